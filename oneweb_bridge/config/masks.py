"""Replaces secrets by `***`, plain and in every encoding in which they may be echoed.

A former secret stays masked: after a rotation it may still be valid somewhere, and an API may echo it
later. Texts and bytes from outside pass through here before they leave the bridge: to the log, to the
file of a bad answer, to errors in topics, and to what commands print.
"""

import base64
import html
import json
import re
from collections import deque
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote, urlsplit

from oneweb_bridge.config.schema import Api, State

HIDDEN = "***"
MIN_SECRET_CHARS = 4
"""Characters of the shortest secret that is masked; shorter ones stand in half of all words."""
MAX_TEMPORARY = 20
"""How many tokens are masked: each is valid for an hour or so."""


class Masks:
    """Masks all secrets that were added to it."""

    def __init__(self, max_temporary: int = MAX_TEMPORARY) -> None:
        self._lasting: set[str] = set()
        self._temporary: deque[set[str]] = deque(maxlen=max_temporary)
        self._text = re.compile(r"(?!)")
        self._bytes = re.compile(rb"(?!)")

    def add_secrets(self, *secrets: str | None, temporary: bool = False) -> None:
        """Masks these as well from now on; of temporary ones only the newest."""
        forms = {form for secret in secrets if secret for form in _encodings(secret) if len(form) >= MIN_SECRET_CHARS}
        if forms <= self._lasting.union(*self._temporary):
            return
        if temporary:
            self._temporary.append(forms)
        else:
            self._lasting |= forms
        # The longest come first: nothing may be left of a secret that begins with another one.
        ordered = sorted(self._lasting.union(*self._temporary), key=len, reverse=True)
        self._text = re.compile("|".join(re.escape(form) for form in ordered))
        self._bytes = re.compile(b"|".join(re.escape(form.encode()) for form in ordered))

    def mask_text(self, text: str) -> str:
        """The text with its secrets replaced."""
        return self._text.sub(HIDDEN, text)

    def mask_bytes(self, text: bytes) -> bytes:
        """The bytes with their secrets replaced."""
        return self._bytes.sub(HIDDEN.encode(), text)


def secrets_of(api: Api) -> Iterator[str]:
    """The secrets in the API's settings: credentials and proxy, plain and as they are sent."""
    yield from (api.client_secret, api.client_id)
    if api.client_secret:
        yield basic_credentials(api.client_id, api.client_secret)
    if api.proxy:
        yield api.proxy
        parts = urlsplit(api.proxy)
        password = unquote(parts.password or "")
        yield from (password, basic_credentials(unquote(parts.username or ""), password))


def secrets_of_state(state: State) -> Iterator[str]:
    """The address of a database, and its passwords."""
    if state.url is not None:
        yield state.url
        for given in re.split("[?&]", state.url)[1:]:
            name, _, password = given.partition("=")
            if name in ("password", "sslpassword"):
                yield from (password, unquote(password))
        if "@" in state.url:
            before = state.url.partition("://")[2].rpartition("@")[0]
            password = before.partition(":")[2]
            yield from (password, unquote(password))


def basic_credentials(name: str, password: str) -> str:
    """The credentials of HTTP Basic. Source: RFC 7617."""
    return base64.b64encode(f"{name}:{password}".encode()).decode()


def _encodings(secret: str) -> Iterator[str]:
    """A secret as it stands in JSON, in URLs and forms, in HTML, in a Python repr, and in base64."""
    yield from (secret, secret.strip())
    for escaped in (json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret), ascii(secret)):
        yield escaped[1:-1]
        # PHP and others write the slash with a backslash too.
        yield escaped[1:-1].replace("/", "\\/")
    for quoted in (quote(secret), quote(secret, safe=""), quote_plus(secret)):
        yield quoted
        yield re.sub(r"%..", lambda match: match[0].lower(), quoted)
    yield from (html.escape(secret), html.escape(secret, quote=False))
    yield base64.b64encode(secret.encode()).decode().rstrip("=")
    yield base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")
