"""The credentials of each request: Basic, headers, or an OAuth2 token that is renewed before it ends."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urljoin

import msgspec

from oneweb_bridge.api.answers import Answer, Request, message_in, without_query
from oneweb_bridge.api.errors import ApiError, BadAnswer, NotFound, Unauthorized
from oneweb_bridge.config.credentials import missing_credential
from oneweb_bridge.config.masks import Masks, basic_credentials
from oneweb_bridge.config.schema import Api as ApiSettings
from oneweb_bridge.decode.paths import fold_name

PostForm = Callable[[Request, dict[str, str], dict[str, str]], Awaitable[Answer]]
"""Sends a request with these headers and this form, within the limits of the API."""

DEFAULT_TOKEN_LIFE_S = 3600.0
MAX_TOKEN_LIFE_S = 86400.0


class Token(msgspec.Struct, frozen=True):
    """An OAuth2 access token and the monotonic time when it ends. Source: RFC 6749."""

    value: str
    ends: float


class TokenAnswer(msgspec.Struct, frozen=True):
    """A token and for how many seconds it is valid, where the answer says so."""

    access_token: str
    expires_in: float | None = None

    def lifetime(self) -> float:
        """For how many seconds the token is used: a little less than it is valid, also when that is short."""
        valid_for = DEFAULT_TOKEN_LIFE_S if self.expires_in is None else min(self.expires_in, MAX_TOKEN_LIFE_S)
        return max(1.0, valid_for - min(30.0, valid_for / 10))


_TOKEN_MEMBERS = ("accesstoken", "token", "bearertoken")
_WRAPPERS = ("token", "accesstoken", "data", "result", "response")
_TOKEN = re.compile(r"[!-~]+")


def parse_token(body: bytes) -> TokenAnswer:
    """The token in an answer: `access_token` of RFC 6749, section 5.1, or what else it is called. Raises ValueError."""
    answer = msgspec.json.decode(body)
    for _ in range(3):
        if not isinstance(answer, dict):
            break
        members = {fold_name(name): value for name, value in answer.items() if len(name) <= MAX_NAME_CHARS}
        token = next((members[name] for name in _TOKEN_MEMBERS if isinstance(members.get(name), str)), None)
        if token is not None:
            if not _TOKEN.fullmatch(token):
                break
            return TokenAnswer(token, msgspec.convert(members.get("expiresin"), float | None, strict=False))
        answer = next((members[name] for name in _WRAPPERS if isinstance(members.get(name), dict)), None)
    raise ValueError("no token in the answer")


MAX_NAME_CHARS = 100


class SignIn:
    """Gives each request its credentials. One for all requests, so that they share one token and its renewal."""

    def __init__(
        self, settings: ApiSettings, masks: Masks, post_form: PostForm, check_status: Callable[[Answer], Answer]
    ) -> None:
        self._settings = settings
        self._masks = masks
        self._post_form = post_form
        self._check_status = check_status
        self._token: Token | None = None
        self._changes = 0
        """How often the credentials, or the rights that a token has by them, may have changed."""
        self._lock = asyncio.Lock()
        self._failure: tuple[float, ApiError] | None = None

    def reconfigure(self, settings: ApiSettings) -> None:
        """Takes new credentials for the requests to come."""
        self._settings = settings
        self.forget_token()

    @property
    def has_token(self) -> bool:
        return self._token is not None

    def discard(self, token: Token) -> None:
        """Drops a token that was refused, unless another request has a new one already."""
        if self._token is token:
            self._token = None

    def forget_token(self) -> None:
        """Lets the next request get a new token: the rights of an application are those that it had when it got one."""
        self._token = None
        self._changes += 1

    async def headers(self) -> tuple[dict[str, str], Token | None]:
        """The headers with the credentials, and the token in them, if there is one. Raises ApiError."""
        settings, auth = self._settings, self._settings.auth
        if sentence := missing_credential(settings):
            raise Unauthorized(sentence)
        match auth.style:
            case "basic":
                return {"Authorization": _basic(settings)}, None
            case "headers":
                return {
                    auth.client_id_header: str(settings.client_id),
                    auth.client_secret_header: str(settings.client_secret),
                }, None
            case "oauth2_client_credentials":
                token = await self._access_token()
                return {"Authorization": f"Bearer {token.value}"}, token

    async def _access_token(self) -> Token:
        requested_at = time.monotonic()
        async with self._lock:
            while self._token is None or time.monotonic() >= self._token.ends:
                # Those who waited here while the last try failed share its failure, and do not try again each.
                if self._failure is not None and self._failure[0] >= requested_at:
                    raise self._failure[1]
                changes = self._changes
                token = await self._renew_token()
                # One that was asked for with credentials of before is not kept.
                self._token = token if changes == self._changes else None
            return self._token

    async def _renew_token(self) -> Token:
        try:
            return await self._fetch_token()
        except ApiError as error:
            self._failure = time.monotonic(), error
            raise

    async def _fetch_token(self) -> Token:
        url, headers, form = self._token_request()
        answer = await self._post_form(Request("POST", url), headers, form)
        if answer.status in (400, 401, 403):
            message = message_in(answer.body, self._masks)
            raise Unauthorized(f"{without_query(url)} gave no token: it answered {answer.status}{message}")
        try:
            body = self._check_status(answer).body
            granted = parse_token(body)
        except NotFound as error:
            raise BadAnswer(f"{error}; api.auth.token_url may be wrong") from None
        # Bad JSON and a text that is no UTF-8 are a ValueError too.
        except (ValueError, RecursionError):
            raise BadAnswer(f"{without_query(url)} gave no token that can be read") from None
        self._masks.add_secrets(granted.access_token, temporary=True)
        return Token(granted.access_token, time.monotonic() + granted.lifetime())

    def _token_request(self) -> tuple[str, dict[str, str], dict[str, str]]:
        """Address, headers and form of the request for a token. Source: RFC 6749, section 4.4.2."""
        settings, auth = self._settings, self._settings.auth
        form, headers = {"grant_type": "client_credentials"}, {}
        if auth.scope:
            form["scope"] = auth.scope
        if auth.token_auth == "basic":  # noqa: S105 -- the name of a style
            headers["Authorization"] = _basic(settings)
        else:
            form |= {"client_id": str(settings.client_id), "client_secret": str(settings.client_secret)}
        return urljoin(settings.base_url + "/", auth.token_url or ""), headers, form


def _basic(settings: ApiSettings) -> str:
    return f"Basic {basic_credentials(settings.client_id, settings.client_secret)}"
