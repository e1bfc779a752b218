"""OneWeb's API over HTTP: signs in, sends requests within the limits, retries. The one owner of the HTTP session."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Collection, Mapping

import aiohttp
import stamina
from msgspec.structs import replace

from oneweb_bridge import __version__
from oneweb_bridge.api.answers import (
    MAX_REDIRECTS,
    Answer,
    Request,
    describe_refusal,
    is_web_page,
    parse_date,
    redirect_target,
    without_query,
)
from oneweb_bridge.api.auth import SignIn, Token
from oneweb_bridge.api.errors import ApiError, BadAnswer, NotFound, RateLimited, Unauthorized, Unavailable
from oneweb_bridge.api.headers import to_utf8
from oneweb_bridge.api.priority_semaphore import PrioritySemaphore
from oneweb_bridge.api.rate_limits import Host, Pace, requested_pause
from oneweb_bridge.clock import SYSTEM, Clock
from oneweb_bridge.config.masks import Masks, secrets_of
from oneweb_bridge.config.schema import Api as ApiSettings
from oneweb_bridge.decode.bounds import Bounds
from oneweb_bridge.files import refusal_of
from oneweb_bridge.tls import TrustedCas, describe_tls_error

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_SUCCESSES = frozenset((200, 201, 202, 206))
HttpSession = aiohttp.ClientSession
READ_BYTES = 262_144
"""Bytes of an answer that are read at once, which is as much as the event loop takes from a socket."""
MAX_WAIT_S = 10.0
"""The longest wait of a request for its host or its pace; where it would be longer, its poll comes later."""


@contextlib.asynccontextmanager
async def open_api(
    settings: ApiSettings, masks: Masks | None = None, clock: Clock = SYSTEM
) -> AsyncIterator["ApiClient"]:
    """The API with one HTTP session for all calls. `masks` gets its secrets, also the tokens that the API gives."""
    async with open_session() as session:
        yield ApiClient(settings, session, masks or Masks(), clock)


@contextlib.asynccontextmanager
async def open_session() -> AsyncIterator[HttpSession]:
    """The HTTP session of an `ApiClient`."""
    # What is retried is logged here; stamina's own hooks would import what they find for metrics.
    stamina.instrumentation.set_on_retry_hooks(())
    async with aiohttp.ClientSession(
        # `max_in_flight` bounds the connections; aiohttp's own limit could not change with it.
        connector=aiohttp.TCPConnector(limit=0),
        headers={"User-Agent": f"oneweb-bridge/{__version__}", "Accept": "application/json"},
        trust_env=False,
        # By default a listing of 10 MB is held up 80 times.
        read_bufsize=2 * READ_BYTES,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield session


class ApiClient:
    """Made by `open_api`. Shared by all calls, so that they share limits and pauses too."""

    def __init__(
        self, settings: ApiSettings, session: aiohttp.ClientSession, masks: Masks, clock: Clock = SYSTEM
    ) -> None:
        self.masks = masks
        self.requests = 0
        self._clock = clock
        self._host = Host(settings.rate_limit.max_pause)
        self._pace = Pace(settings.rate_limit)
        self._pace_lock = asyncio.Lock()
        self._in_flight = PrioritySemaphore(settings.rate_limit.max_in_flight)
        self._session = session
        self._sign_in = SignIn(settings, masks, self._post_form, self._check_status)
        self._api_clock: tuple[int, float] | None = None
        """The last Date of an answer in ms, and the bridge's clock at that moment in s."""
        self.reconfigure(settings)

    def reconfigure(self, settings: ApiSettings) -> None:
        """Takes new settings (credentials, limits) for the requests to come. What was sent before still counts."""
        self._in_flight.resize(settings.rate_limit.max_in_flight)
        self._pace.limit = settings.rate_limit
        self._host.max_pause = settings.rate_limit.max_pause
        self.masks.add_secrets(*secrets_of(settings))
        self._settings = settings
        self._sign_in.reconfigure(settings)
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

    def forget_token(self) -> None:
        """Lets the next request sign in anew, where the API gives tokens."""
        self._sign_in.forget_token()

    def now(self) -> int:
        """The API's time in ms since the epoch; the host's own until an answer has told it."""
        if self._api_clock is None:
            return self._clock.now()
        date, received_at = self._api_clock
        return date + round((self._clock.elapsed() - received_at) * 1000)

    def bounds(self) -> Bounds:
        """Which times of its answers are believed.

        The later of the two clocks decides: one that is behind, as that of a machine without a battery is at its
        start, must not keep out what is right; one that is ahead does harm only when the data are wrong as well.
        """
        return Bounds(max(self.now(), self._clock.now()) + round(self._settings.clock_tolerance * 1000))

    def earlier_now(self) -> int:
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
        """`get` for any method; only a GET is tried again."""
        url = self.url(path)
        attempts = 3 if method == "GET" else 1
        async for attempt in stamina.retry_context(
            on=_worth_retrying, attempts=attempts, wait_initial=0.5, wait_max=10.0, wait_jitter=0.5, timeout=None
        ):
            with attempt:
                return await self._follow_redirects(Request(method, url, params, body), empty_status)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _follow_redirects(self, request: Request, empty_status: Collection[int]) -> Answer:
        for redirects in range(MAX_REDIRECTS + 1):
            answer = await self._retry_with_new_token(request)
            # 204 is an answer without content, which is a listing without records.
            if answer.status == 204 or answer.status in empty_status:
                self._host.note_success()
                return replace(answer, status=200, body=b"[]")
            if answer.status not in _REDIRECTS:
                return self._check_status(answer)
            request = replace(request, url=redirect_target(answer, redirects), params=None)
            if answer.status == 303:
                request = replace(request, method="GET", body=None)
        raise AssertionError("unreachable: the last redirect raises")

    async def _retry_with_new_token(self, request: Request) -> Answer:
        """The answer; where a token that was good before is not accepted any more, the answer with a new one."""
        had_token = self._sign_in.has_token
        answer, token = await self._within_limits(request)
        if answer.status != 401 or token is None or not had_token:
            return answer
        self._sign_in.discard(token)
        return (await self._within_limits(request))[0]

    async def _within_limits(self, request: Request) -> tuple[Answer, Token | None]:
        """The answer, and the token that the request was sent with."""
        async with self._in_flight.acquire():
            await self._wait_for_host(request.url)
            headers, token = await self._sign_in.headers()
            await self._wait_for_pace(request.url)
            # A 429 may have come for another request while this one waited for the pace.
            await self._wait_for_host(request.url)
            return await self._send_request(request, headers), token

    async def _post_form(self, request: Request, headers: dict[str, str], form: dict[str, str]) -> Answer:
        """The answer to a request for a token, which the limits of the API count as well."""
        await self._wait_for_pace(request.url)
        return await self._exchange(request, headers, form)

    async def _wait_for_host(self, url: str) -> None:
        """Waits while the host fails. Raises RateLimited or Unavailable where that would be too long."""
        while True:
            now = time.monotonic()
            if (pause := self._host.pause(now)) > 0:
                raise RateLimited(f"{without_query(url)} asked to be left alone", pause)
            if (delay := self._host.delay(now)) == 0:
                return
            if delay > MAX_WAIT_S:
                failures = f"did not answer {self._host.failures} requests in a row"
                raise Unavailable(f"{without_query(url)} {failures}, and is asked again in {delay:.0f} s", delay)
            await asyncio.sleep(delay)

    async def _wait_for_pace(self, url: str) -> None:
        """Waits until one more request may start. Raises RateLimited when the budget of the hour is used up."""
        async with self._pace_lock:
            while (wait := self._pace.try_start(time.monotonic())) > 0:
                if (pause := self._pace.hour_wait(time.monotonic())) > MAX_WAIT_S:
                    key = f"api.rate_limit.max_requests_per_hour, {self._pace.limit.max_requests_per_hour}"
                    raise RateLimited(f"{without_query(url)} was not asked: {key}, is used up for {pause:.0f} s", pause)
                await asyncio.sleep(wait)

    async def _send_request(self, request: Request, headers: dict[str, str]) -> Answer:
        if request.body is not None:
            headers = headers | {"Content-Type": "application/json"}
        self.requests += 1
        return await self._exchange(request, headers)

    async def _exchange(self, request: Request, headers: dict[str, str], form: dict[str, str] | None = None) -> Answer:
        """The answer to a request that may start now. Raises Unavailable, and BadAnswer when it is too long."""
        self._host.note_start(time.monotonic())
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
            self._host.note_failure(time.monotonic())
            raise Unavailable(
                f"{without_query(request.url)} cannot be reached: {_describe_http_error(error)}"
            ) from None

    async def _read(self, response: aiohttp.ClientResponse, url: str) -> Answer:
        chunks: list[bytes] = []
        if (response.content_length or 0) > self._settings.max_body:
            raise self._too_long(url, b"")
        size = 0
        async for chunk in response.content.iter_chunked(READ_BYTES):
            size += len(chunk)
            if size > self._settings.max_body:
                raise self._too_long(url, chunks[0] if chunks else b"")
            chunks.append(chunk)
        date = parse_date(response.headers.get("Date"))
        if date is not None:
            self._api_clock = date, self._clock.elapsed()
        body = b"".join(chunks)
        chunks.clear()
        body = await asyncio.to_thread(to_utf8, body, response.charset) if not body.isascii() else to_utf8(body, None)
        return Answer(response.status, body, response.headers, date, url, response.content_type)

    def _too_long(self, url: str, excerpt: bytes) -> BadAnswer:
        return BadAnswer(f"{without_query(url)} sent more than api.max_body, {self._settings.max_body} bytes", excerpt)

    def _check_status(self, answer: Answer) -> Answer:
        """The answer when its status is a success. Raises ApiError for any other."""
        status, now = answer.status, time.monotonic()
        if status in _SUCCESSES:
            self._host.note_success()
            if is_web_page(answer):
                where = without_query(answer.url)
                raise BadAnswer(f"{where} answered with a web page instead of JSON", answer.body)
            return answer
        pause = self._requested_pause(answer)
        refusal = describe_refusal(answer, self.masks)
        if status == 429 or (status == 503 and pause is not None):
            raise RateLimited(refusal, self._host.note_refusal(now, pause, random.uniform(1.0, 1.1)))
        if status >= 500 or status == 408:
            self._host.note_failure(now)
            raise _with_status(Unavailable(refusal), status)
        self._host.note_success()
        if status in (401, 403):
            raise _with_status(Unauthorized(refusal), status)
        raise _with_status((NotFound if status == 404 else BadAnswer)(refusal, answer.body), status)

    def _requested_pause(self, answer: Answer) -> float | None:
        """Seconds for which a 429 or 503 asks to be left alone, where it says so."""
        now = self._clock.wall() if answer.time is None else answer.time / 1000
        resets = answer.lines("x-ratelimit-reset") if answer.status == 429 else []
        return requested_pause(answer.lines("Retry-After"), resets, now)


def _with_status(error: ApiError, status: int) -> ApiError:
    error.status = status
    return error


def _worth_retrying(error: Exception) -> bool:
    return isinstance(error, Unavailable) and error.pause == 0


def _describe_http_error(error: BaseException) -> str:
    if (refusal := describe_tls_error(error)) is not None:
        return refusal
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return refusal_of(error.os_error)
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer was cut off"
    if isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionError)):
        return "the connection was lost"
    return f"{type(error).__name__}"
