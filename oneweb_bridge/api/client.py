"""OneWeb's API over HTTP: sign in, ask, retry, and be no burden. The one owner of the HTTP session.

Errors are split by what happens next:

    ApiError
    ├── Unauthorized   stop this call and tell
    ├── RateLimited    leave the whole host alone for `pause` seconds
    ├── Unavailable    back off and try again, not sooner than in `pause` seconds
    └── BadAnswer      the same, and keep a piece of the answer for the operator
        └── NotFound   the API does not know this path, or this id
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Collection, Mapping
from email.utils import parsedate_to_datetime
from typing import Annotated
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec
import stamina
from msgspec.structs import replace
from multidict import CIMultiDictProxy

from oneweb_bridge import __version__
from oneweb_bridge.api.headers import origin, resolve, to_utf8
from oneweb_bridge.api.rate_limits import Host, Pace, requested_pause
from oneweb_bridge.api.turns import Turns
from oneweb_bridge.clock import SYSTEM, Clock
from oneweb_bridge.config.masks import Masks, basic_credentials, secrets_of
from oneweb_bridge.config.schema import Api as Settings
from oneweb_bridge.decode.bounds import EARLIEST, Bounds
from oneweb_bridge.tls import TrustedCas, describe_tls_error

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_PAGES = frozenset(("text/html", "application/xhtml+xml"))
_JSON_BEGINS = frozenset((b"[", b"{", b'"', b""))
MAX_WAIT_S = 10.0
"""The longest wait of a request for its host or its turn; where it would be longer, its poll comes later."""
MAX_PAUSE_S = 65536
"""Bytes of a bad answer that an error carries."""
_TEXT_MEMBERS = ("message", "reason", "error", "description")


class ApiError(Exception):
    """Why the API could not be asked, in a sentence that names the address without its query."""


class Unauthorized(ApiError):
    """The credentials are not accepted, or not for this call."""


class RateLimited(ApiError):
    """The API asks to be left alone for `pause` seconds."""

    def __init__(self, message: str, pause: float) -> None:
        super().__init__(message)
        self.pause = pause


class Unavailable(ApiError):
    """The API cannot be reached, or says that it cannot answer now; with a `pause` it was not even asked."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class BadAnswer(ApiError):
    """The API answered something else than what was asked for; `piece` is the beginning of it."""

    def __init__(self, message: str, piece: bytes = b"") -> None:
        super().__init__(message)
        self.piece = piece[:MAX_PAUSE_S]


class NotFound(BadAnswer):
    """The API does not know the path, or nothing of the id in it."""


class Answer(msgspec.Struct, frozen=True):
    """A whole answer from `url`, its text in UTF-8. `time` is the API's own clock in ms, where it says it."""

    status: int
    body: bytes
    headers: CIMultiDictProxy[str]
    time: int | None
    url: str = ""
    media_type: str = "application/json"

    def lines(self, name: str) -> list[str]:
        """The values of all lines of a header."""
        return self.headers.getall(name, [])


class Request(msgspec.Struct, frozen=True):
    """One request to the API."""

    method: str
    url: str
    params: Mapping[str, str] | None = None
    body: bytes | None = None


class Token(msgspec.Struct, frozen=True):
    """An OAuth2 access token and the monotonic time when it ends. Source: RFC 6749."""

    value: str
    ends: float


class _TokenAnswer(msgspec.Struct, frozen=True):
    access_token: Annotated[str, msgspec.Meta(pattern=r"^[!-~]+\Z")]
    expires_in: float | None = None

    def lasts(self) -> float:
        """For how many seconds it is used: a little less than it is good for, also when that is short."""
        said = 3600.0 if self.expires_in is None else min(self.expires_in, 86400.0)
        return max(1.0, said - min(30.0, said / 10))


@contextlib.asynccontextmanager
async def open_api(settings: Settings, masks: Masks | None = None, clock: Clock = SYSTEM) -> AsyncIterator["ApiClient"]:
    """The API with one HTTP session for all calls. `masks` learn its secrets, also those that the API gives."""
    async with aiohttp.ClientSession(
        # How many connections there are is what `max_in_flight` says, also after it has changed.
        connector=aiohttp.TCPConnector(limit=0),
        headers={"User-Agent": f"oneweb-bridge/{__version__}", "Accept": "application/json"},
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield ApiClient(settings, session, masks or Masks(), clock)


class ApiClient:
    """Made by `connected`. Shared by all calls, so that limits and pauses are."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession, masks: Masks, clock: Clock = SYSTEM) -> None:
        self.masks = masks
        self.requests = 0
        self._clock = clock
        self._host = Host(settings.rate_limit.max_pause)
        self._pace = Pace(settings.rate_limit)
        self._pace_lock = asyncio.Lock()
        self._in_flight = Turns(settings.rate_limit.max_in_flight)
        self._session = session
        self._token: Token | None = None
        self._token_lock = asyncio.Lock()
        self._token_failure: tuple[float, ApiError] | None = None
        self._heard: tuple[int, float] | None = None
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Takes new settings (credentials, limits) for the requests to come. What was sent before still counts."""
        self._in_flight.resize(settings.rate_limit.max_in_flight)
        self._pace.limit = settings.rate_limit
        self._host.max_pause = settings.rate_limit.max_pause
        self.masks.learn(*secrets_of(settings))
        self._settings = settings
        self._token = None
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=settings.timeout.connect,
            sock_connect=settings.timeout.connect,
            sock_read=settings.timeout.read,
        )
        self._trust = TrustedCas("api.ca_file", settings.ca_file)

    @property
    def pause(self) -> float:
        """For how many seconds more the host is left alone, because it asked for it; 0 when it may be asked."""
        return self._host.pause(time.monotonic())

    def ask_at_once(self) -> None:
        """Lets the next request go although the host has failed, because somebody wants it now."""
        self._host.ask_at_once()

    def now(self) -> int:
        """The API's time in ms since the epoch; the host's own until an answer has told it."""
        if self._heard is None:
            return self._clock.now()
        date, heard_at = self._heard
        return date + round((self._clock.elapsed() - heard_at) * 1000)

    def bounds(self) -> Bounds:
        """Which times of its answers are believed.

        The later of the two clocks decides: one that is behind, as that of a machine without a battery is at its
        start, must not keep out what is right; one that is ahead does harm only when the data are wrong as well.
        """
        return Bounds(max(self.now(), self._clock.now()) + round(self._settings.clock_tolerance * 1000))

    def earlier(self) -> int:
        """The earlier of the host's time and the API's, in ms: what is forgotten is forgotten by this one."""
        return min(self.now(), self._clock.now())

    def url(self, path: str) -> str:
        """The whole address of a path below `api.base_url`; a whole address stays as it is."""
        return self._settings.base_url + path if path.startswith("/") else path

    async def hello(self) -> Answer:
        """Signs in: returns when the credentials are accepted. The body means nothing."""
        try:
            return await self.get(self._settings.hello.path)
        except NotFound as error:
            raise Unauthorized(f"{error}: the credentials or api.base_url or api.hello.path are wrong") from None

    async def get(
        self, path: str, params: Mapping[str, str] | None = None, empty_status: Collection[int] = ()
    ) -> Answer:
        """The answer to one GET, after at most two retries of what may be retried. Raises ApiError.

        An answer with one of `empty_status` stands for an empty list.
        """
        return await self.request("GET", path, params, empty_status=empty_status)

    async def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        empty_status: Collection[int] = (),
    ) -> Answer:
        """The same for another method; only a GET is tried again."""
        url = self.url(path)
        attempts = 3 if method == "GET" else 1
        async for attempt in stamina.retry_context(
            on=_worth_retrying, attempts=attempts, wait_initial=0.5, wait_max=10.0, wait_jitter=0.5, timeout=None
        ):
            with attempt:
                return await self._once(Request(method, url, params, body), empty_status)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _once(self, request: Request, empty_status: Collection[int]) -> Answer:
        for redirects in range(4):
            answer = await self._signed(request)
            if answer.status in empty_status:
                self._host.answered()
                return replace(answer, status=200, body=b"[]")
            if answer.status not in _REDIRECTS:
                return self._judged(answer)
            request = replace(request, url=_redirected(answer, redirects), params=None)
            if answer.status == 303:
                request = replace(request, method="GET", body=None)
        raise AssertionError("unreachable: the fourth redirect raises")

    async def _signed(self, request: Request) -> Answer:
        """The answer; where a token that was good before is not accepted any more, the answer with a new one."""
        had_token = self._token is not None
        answer, token = await self._limited(request)
        if answer.status != 401 or token is None or not had_token:
            return answer
        # Another request may have been refused before, and have a new token already.
        if self._token is token:
            self._token = None
        return (await self._limited(request))[0]

    async def _limited(self, request: Request) -> tuple[Answer, Token | None]:
        """The answer, and the token that the request was sent with."""
        async with self._in_flight.turn(hurry=False):
            await self._wait_for_host(request.url)
            headers, token = await self._credentials()
            await self._take_turn(request.url)
            # Another request may have been told to wait while this one had to.
            await self._wait_for_host(request.url)
            return await self._sent(request, headers), token

    async def _wait_for_host(self, url: str) -> None:
        """Waits while the host fails. Raises RateLimited or Unavailable where that would be too long."""
        while True:
            now = time.monotonic()
            if (pause := self._host.pause(now)) > 0:
                raise RateLimited(f"{_where(url)} asked to be left alone", pause)
            if (delay := self._host.delay(now)) == 0:
                return
            if delay > MAX_WAIT_S:
                failures = f"did not answer {self._host.failures} requests in a row"
                raise Unavailable(f"{_where(url)} {failures}, and is asked again in {delay:.0f} s", delay)
            await asyncio.sleep(delay)

    async def _take_turn(self, url: str) -> None:
        """Waits until one more request may start. Raises RateLimited when the budget of the hour is used up."""
        async with self._pace_lock:
            while (wait := self._pace.start(time.monotonic())) > 0:
                if (pause := self._pace.hour_wait(time.monotonic())) > MAX_WAIT_S:
                    key = f"api.rate_limit.max_requests_per_hour, {self._pace.limit.max_requests_per_hour}"
                    raise RateLimited(f"{_where(url)} was not asked: {key}, is used up for {pause:.0f} s", pause)
                await asyncio.sleep(wait)

    async def _sent(self, request: Request, headers: dict[str, str]) -> Answer:
        if request.body is not None:
            headers = headers | {"Content-Type": "application/json"}
        self.requests += 1
        return await self._exchanged(request, headers)

    async def _exchanged(self, request: Request, headers: dict[str, str], form: dict[str, str] | None = None) -> Answer:
        """The answer to a request that may start now. Raises Unavailable, and BadAnswer when it is too long."""
        self._host.start(time.monotonic())
        try:
            async with self._session.request(
                request.method,
                request.url,
                params=request.params,
                headers=headers,
                data=form or request.body,
                allow_redirects=False,
                proxy=self._settings.proxy,
                ssl=self._trust.context(),
                timeout=self._timeout,
            ) as response:
                return await self._read(response, request.url)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._host.failed(time.monotonic())
            raise Unavailable(f"{_where(request.url)} cannot be reached: {_describe_http_error(error)}") from None

    async def _read(self, response: aiohttp.ClientResponse, url: str) -> Answer:
        chunks: list[bytes] = []
        if (response.content_length or 0) > self._settings.max_body:
            raise self._too_long(url, b"")
        size = 0
        async for chunk in response.content.iter_chunked(65536):
            size += len(chunk)
            if size > self._settings.max_body:
                raise self._too_long(url, chunks[0] if chunks else b"")
            chunks.append(chunk)
        date = _date(response.headers.get("Date"))
        if date is not None:
            self._heard = date, self._clock.elapsed()
        body = b"".join(chunks)
        chunks.clear()
        body = await asyncio.to_thread(to_utf8, body, response.charset) if not body.isascii() else to_utf8(body, None)
        return Answer(response.status, body, response.headers, date, url, response.content_type)

    def _too_long(self, url: str, piece: bytes) -> BadAnswer:
        return BadAnswer(f"{_where(url)} sent more than api.max_body, {self._settings.max_body} bytes", piece)

    def _judged(self, answer: Answer) -> Answer:
        status, where, now = answer.status, _where(answer.url), time.monotonic()
        pause = self._requested_pause(answer)
        if status == 429 or (status == 503 and pause is not None):
            raise RateLimited(self._refusal(answer), self._host.refused(now, pause, random.uniform(1.0, 1.1)))
        if status >= 500 or status == 408:
            self._host.failed(now)
            raise Unavailable(self._refusal(answer))
        self._host.answered()
        if status in (200, 201, 202, 206):
            if _is_web_page(answer):
                raise BadAnswer(f"{where} answered with a web page instead of JSON", answer.body)
            return answer
        text = self._refusal(answer)
        if status in (401, 403):
            raise Unauthorized(text)
        raise (NotFound if status == 404 else BadAnswer)(text, answer.body)

    def _requested_pause(self, answer: Answer) -> float | None:
        """Seconds for which a 429 or 503 asks to be left alone, where it says so."""
        now = self._clock.wall() if answer.time is None else answer.time / 1000
        resets = answer.lines("x-ratelimit-reset") if answer.status == 429 else []
        return requested_pause(answer.lines("Retry-After"), resets, now)

    def _refusal(self, answer: Answer) -> str:
        return f"{_where(answer.url)} answered {answer.status}{self._human_text(answer.body)}"

    def _human_text(self, body: bytes) -> str:
        """What an error body says to people, in one short line without secrets; nothing when it is not JSON."""
        try:
            said = msgspec.json.decode(body[:65536])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ""
        texts = [said.get(name) for name in _TEXT_MEMBERS] if isinstance(said, dict) else []
        found = next((text for text in texts if isinstance(text, str)), "")
        line = " ".join(self.masks.text(found).split())[:200]
        return f" ({line})" if line else ""

    # ── signing in ─────────────────────────────────────────────────────────────────────────────

    async def _credentials(self) -> tuple[dict[str, str], Token | None]:
        settings, auth = self._settings, self._settings.auth
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
        asked_at = time.monotonic()
        async with self._token_lock:
            if self._token is None or time.monotonic() >= self._token.ends:
                # Those who waited here while the last try failed share its failure, and do not try again each.
                if self._token_failure is not None and self._token_failure[0] >= asked_at:
                    raise self._token_failure[1]
                self._token = await self._renewed()
            return self._token

    async def _renewed(self) -> Token:
        try:
            return await self._new_token()
        except ApiError as error:
            self._token_failure = time.monotonic(), error
            raise

    async def _new_token(self) -> Token:
        settings, auth = self._settings, self._settings.auth
        form, headers = {"grant_type": "client_credentials"}, {}
        if auth.scope:
            form["scope"] = auth.scope
        if auth.token_auth == "basic":  # noqa: S105 -- the name of a style
            headers["Authorization"] = _basic(settings)
        else:
            form |= {"client_id": str(settings.client_id), "client_secret": str(settings.client_secret)}
        url = urljoin(settings.base_url + "/", auth.token_url or "")
        await self._take_turn(url)
        answer = await self._exchanged(Request("POST", url), headers, form)
        if answer.status in (400, 401, 403):
            said = self._human_text(answer.body)
            raise Unauthorized(f"{_where(url)} gave no token: it answered {answer.status}{said}")
        try:
            found = msgspec.json.decode(self._judged(answer).body, type=_TokenAnswer, strict=False)
        except NotFound as error:
            raise BadAnswer(f"{error}; api.auth.token_url may be wrong") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadAnswer(f"{_where(url)} gave no token that can be read") from None
        self.masks.learn(found.access_token, passing=True)
        return Token(found.access_token, time.monotonic() + found.lasts())


def _basic(settings: Settings) -> str:
    return f"Basic {basic_credentials(settings.client_id, settings.client_secret)}"


def _where(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _is_web_page(answer: Answer) -> bool:
    """Whether an answer is for people. One that only calls itself so is not: what counts is the body."""
    begin = answer.body[:1024].lstrip()[:1]
    return begin == b"<" or (answer.media_type in _PAGES and begin not in _JSON_BEGINS)


def _worth_retrying(error: Exception) -> bool:
    return isinstance(error, Unavailable) and error.pause == 0


def _redirected(answer: Answer, redirects: int) -> str:
    """Where a redirect leads to; never to another server, which would be given the credentials."""
    url = answer.url
    try:
        target = resolve(url, answer.headers["Location"])
        here, there = origin(url), origin(target)
    except (KeyError, ValueError):
        raise BadAnswer(f"{_where(url)} answered with a redirect without a readable address") from None
    if there != here:
        raise BadAnswer(f"{_where(url)} answered with a redirect to another place, which is not followed")
    if redirects == 3:
        raise BadAnswer(f"{_where(url)} answered with one redirect after the other")
    return target


def _describe_http_error(error: BaseException) -> str:
    if (refusal := describe_tls_error(error)) is not None:
        return refusal
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error) or type(error.os_error).__name__
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer was cut off"
    if isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionError)):
        return "the connection was lost"
    return f"{type(error).__name__}"


def _date(header: str | None) -> int | None:
    """A Date header in ms since the epoch; None when it is not there, not readable, or before all that is believed."""
    try:
        date = round(parsedate_to_datetime(header).timestamp() * 1000) if header else 0
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date >= EARLIEST else None
