"""The API as `explore` asks it: the bridge's own client, with a clock that stands still and a memory of its answers.

Because the clock stands still, the same request is the same again: no proposal that is tried asks for what is known
already, and a recording can be played without a network.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

import msgspec

from oneweb_bridge.api.answers import Answer, Request
from oneweb_bridge.api.client import ApiClient, HttpSession, open_session
from oneweb_bridge.api.errors import ApiError, RateLimited
from oneweb_bridge.api.headers import Challenge, challenges
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.schema import Api as ApiSettings

MAX_PAUSE_S = 90.0
"""The longest pause that is waited for when the API asks for one."""
MAX_TRIALS = 80
"""Requests of one call that only try what the configuration does not say."""
MAX_REMEMBERED_BYTES = 64_000_000
KEPT_HEADERS = ("Content-Type", "Date", "Link", "Content-Range", "X-Total-Count", "WWW-Authenticate", "Retry-After")


class TrialsUsedUp(ApiError):
    """No more may be tried for this call."""


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was sent, and its answer."""

    method: str
    url: str
    params: dict[str, str] = {}
    auth: str = ""
    status: int
    headers: list[tuple[str, str]] = []
    body: bytes = b""


class ExploreApi(ApiClient):
    """The client of one exploration. `exchanges` are kept only when `is_recording`."""

    is_recording = False
    is_partial = False
    """Whether listings are only the first part of what the API has."""

    def __init__(self, settings: ApiSettings, session: HttpSession, masks: Masks) -> None:
        self._frozen: int | None = None
        self._answers: dict[Any, Answer | ApiError] = {}
        self._remembered_bytes = 0
        self.auth_style = settings.auth.style
        self.exchanges: list[Exchange] = []
        self.tried = 0
        """How many requests were only tried."""
        self.challenges: list[Challenge] = []
        """The ways to sign in that the last answer with status 401 offers."""
        self.trials: int | None = None
        """How many requests more may be sent for what is only tried; None for requests that the bridge sends too."""
        super().__init__(settings, session, masks)

    def reconfigure(self, settings: ApiSettings) -> None:
        super().reconfigure(settings)
        self.auth_style = settings.auth.style
        self._answers.clear()

    def freeze(self) -> None:
        """Lets the clock stand still from now on."""
        self._frozen = self.now()

    def now(self) -> int:
        return super().now() if self._frozen is None else self._frozen

    def earlier_now(self) -> int:
        return super().earlier_now() if self._frozen is None else self._frozen

    async def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        empty_status: Collection[int] = (),
    ) -> Answer:
        """The answer, from memory where the same was asked before. A short pause that the API asks for is waited."""
        key = method, self.url(path), tuple(sorted((params or {}).items())), body, tuple(empty_status)
        if key not in self._answers:
            outcome = await self._outcome(method, path, params, body, empty_status)
            size = len(outcome.body) if isinstance(outcome, Answer) else 0
            self._remembered_bytes += size
            if self._remembered_bytes > MAX_REMEMBERED_BYTES:
                self._remembered_bytes -= size
                return _answer_of(outcome)
            self._answers[key] = outcome
        return _answer_of(self._answers[key])

    async def _outcome(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: bytes | None,
        empty_status: Collection[int],
    ) -> Answer | ApiError:
        if self.trials is not None:
            if self.trials <= 0:
                raise TrialsUsedUp(f"{path} was not tried: {MAX_TRIALS} requests were used up")
            self.trials -= 1
            self.tried += 1
        for is_last in (False, True):
            try:
                return await super().request(method, path, params, body, empty_status)
            except RateLimited as error:
                if is_last or error.pause > MAX_PAUSE_S:
                    return error
                await asyncio.sleep(error.pause)
            except ApiError as error:
                return error
        raise AssertionError("unreachable: the second try returns")

    async def _exchange(self, request: Request, headers: dict[str, str], form: dict[str, str] | None = None) -> Answer:
        answer = await super()._exchange(request, headers, form)
        self._note_challenges(answer)
        if self.is_recording and form is None:
            self.exchanges.append(self._recorded(request, answer))
        return answer

    def _note_challenges(self, answer: Answer) -> None:
        if answer.status == 401:
            self.challenges = challenges(answer.lines("WWW-Authenticate"))

    def _recorded(self, request: Request, answer: Answer) -> Exchange:
        kept = [(str(name), line) for name in self._kept_headers(answer) for line in answer.lines(name)]
        return Exchange(
            method=request.method,
            url=request.url,
            params=dict(request.params or {}),
            auth=self.auth_style,
            status=answer.status,
            headers=kept,
            body=answer.body,
        )

    def _kept_headers(self, answer: Answer) -> list[str]:
        names = {name.casefold(): name for name in answer.headers}
        totals = [name for folded, name in names.items() if re.search(r"total|count", folded)]
        return list(dict.fromkeys([*(names[n.casefold()] for n in KEPT_HEADERS if n.casefold() in names), *totals]))


def _answer_of(outcome: Answer | ApiError) -> Answer:
    if isinstance(outcome, ApiError):
        raise outcome
    return outcome


@contextlib.asynccontextmanager
async def open_explore_api(settings: ApiSettings, masks: Masks) -> AsyncIterator[ExploreApi]:
    """The API for one exploration."""
    async with open_session() as session:
        yield ExploreApi(settings, session, masks)
