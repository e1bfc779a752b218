"""Asks the access rules in their order, and remembers sessions and guesses. Pure: the time is an argument."""

import math

import msgspec

from oneweb_bridge.web import access
from oneweb_bridge.web.access import Refusal, RequestFacts, Rules, Visitor
from oneweb_bridge.web.sessions import (
    GUESSING_S,
    MAX_REQUESTS,
    MAX_WRONG_TOKENS,
    REQUESTS_S,
    RecentTimes,
    Sessions,
)

WRONG_SENTENCE = "this token is wrong: it is console.token of the configuration"


class Admission(msgspec.Struct, frozen=True):
    """A request that may go on to its route."""

    visitor: Visitor
    is_signed_in: bool


class AccessGate:
    """Admits or refuses requests. `wrong_tokens` counts every wrong token since the start."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.wrong_tokens = 0
        self._sessions = Sessions()
        self._guesses = RecentTimes(MAX_WRONG_TOKENS, GUESSING_S)
        self._requests = RecentTimes(MAX_REQUESTS, REQUESTS_S)

    def reconfigure(self, rules: Rules) -> None:
        """Takes other rules; a changed token ends all sessions."""
        if rules.token != self.rules.token:
            self._sessions.end_all()
        self.rules = rules

    def check(self, facts: RequestFacts, now: float, *, is_counted: bool = True) -> Admission | Refusal:
        """Admits a request, or says with which status and sentence it is refused; `now` in seconds.

        A request that is not counted is not refused for how often its address asks.
        """
        visitor = access.visitor_of(facts, self.rules)
        refusal = self._refuse_anywhere(facts, visitor)
        if refusal is None and is_counted:
            refusal = self._refuse_load(visitor, now)
        if refusal is not None:
            return refusal
        if not access.is_data(facts.path):
            return Admission(visitor, is_signed_in=False)
        refusal = access.refuse_other_site(facts, visitor)
        if refusal is not None:
            return refusal
        guessing = self.refuse_guessing(visitor, now)
        has_right_bearer = self._has_right_bearer(facts, visitor, now)
        is_signed_in = has_right_bearer or self._is_known(facts, visitor, now)
        if not is_signed_in and access.needs_sign_in(facts):
            return guessing or Refusal(401, self._sign_in_sentence(facts))
        return access.refuse_form(facts, has_right_bearer=has_right_bearer) or Admission(visitor, is_signed_in)

    def is_signed_in(self, facts: RequestFacts, now: float) -> bool:
        """Whether a request that was admitted would be signed in now too."""
        visitor, bearer = access.visitor_of(facts, self.rules), access.bearer_of(facts)
        is_right = bearer is not None and access.is_right_token(bearer, self.rules)
        return is_right or self._is_known(facts, visitor, now)

    def _refuse_anywhere(self, facts: RequestFacts, visitor: Visitor) -> Refusal | None:
        if self.rules.off is not None:
            return Refusal(404, self.rules.off)
        return access.refuse_host(facts, visitor, self.rules)

    def _refuse_load(self, visitor: Visitor, now: float) -> Refusal | None:
        if wait := self._requests.wait(visitor.key, now):
            return Refusal(429, f"expected at most {MAX_REQUESTS} requests a second", math.ceil(wait))
        self._requests.add(visitor.key, now)
        return None

    def _sign_in_sentence(self, facts: RequestFacts) -> str:
        if self.rules.token is None:
            return "only this host may ask while there is no console.token: set one, or open the console on this host"
        if access.bearer_of(facts) is not None:
            return WRONG_SENTENCE
        return "not signed in: sign in on the console's page, or send the token as 'Authorization: Bearer …'"

    def _has_right_bearer(self, facts: RequestFacts, visitor: Visitor, now: float) -> bool:
        bearer = access.bearer_of(facts)
        return bearer is not None and self._try_token(bearer, visitor, now)

    def _is_known(self, facts: RequestFacts, visitor: Visitor, now: float) -> bool:
        if visitor.is_ingress:
            return True
        if self.rules.token is None:
            return visitor.is_this_host
        return any(self._sessions.has(value, now) for value in _cookies(facts, visitor.cookie(self.rules)))

    def _try_token(self, token: str, visitor: Visitor, now: float) -> bool:
        """Whether a token is the right one. While somebody guesses at this address, it is not looked at."""
        if self.rules.token is None or self._guesses.wait(visitor.key, now):
            return False
        if access.is_right_token(token, self.rules):
            return True
        self._guesses.add(visitor.key, now)
        self.wrong_tokens += 1
        return False

    def refuse_guessing(self, visitor: Visitor, now: float) -> Refusal | None:
        """429 while an address has sent too many wrong tokens."""
        if wait := self._guesses.wait(visitor.key, now):
            seconds = math.ceil(wait)
            return Refusal(429, f"too many wrong tokens came from this address: wait {seconds} s", seconds)
        return None

    def sign_in(self, token: str, session: str, visitor: Visitor, now: float) -> Refusal | None:
        """Begins the session whose cookie has the value `session`, or says why not."""
        guessing = self.refuse_guessing(visitor, now)
        if guessing is not None:
            return guessing
        if not self._try_token(token, visitor, now):
            return Refusal(401, WRONG_SENTENCE)
        self._sessions.add(session, now + self.rules.session_s)
        return None

    def sign_out(self, facts: RequestFacts, visitor: Visitor) -> None:
        """Ends the session of a request's cookie."""
        for value in _cookies(facts, visitor.cookie(self.rules)):
            self._sessions.end(value)


def _cookies(facts: RequestFacts, name: str) -> list[str]:
    """The values of a cookie: another site of the same host may have set one of the same name."""
    pairs = [part.strip().partition("=") for part in facts.header("cookie").split(";")]
    return [value for key, _, value in pairs if key == name]
