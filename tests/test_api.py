"""The HTTP client: it signs in, retries what may be retried, pauses where it is asked to, and tells no secret."""

import asyncio
import contextlib
import gzip
import itertools
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import stamina
from aiohttp import web
from aioresponses import aioresponses

from oneweb_bridge.api import auth as api_auth
from oneweb_bridge.api.answers import Answer
from oneweb_bridge.api.client import ApiClient, open_api
from oneweb_bridge.api.errors import ApiError, BadAnswer, NotFound, RateLimited, Unauthorized, Unavailable
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.simulator import Simulator
from oneweb_bridge.simulator.options import Options
from oneweb_bridge.simulator.server import serve
from tests.polls import START, configured

TERMINALS = "/resourceInventory/v3/userTerminal"
SECRET = "k7-Sehr-Geheim"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


class Server:
    """A small HTTP server that does what the simulator cannot. `asked` is what it heard."""

    def __init__(self, handler: Handler) -> None:
        self.requests: list[web.Request] = []
        self.url = ""
        self._handler = handler

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        await request.read()
        return await self._handler(request)

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Server]:
    server, application = Server(handler), web.Application()
    application.router.add_route("*", "/{rest:.*}", server.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


def answers(*replies: dict[str, Any]) -> Handler:
    """A handler with one reply after the other; the last again and again."""
    left = list(replies)

    async def handle(request: web.Request) -> web.StreamResponse:
        reply = left.pop(0) if len(left) > 1 else left[0]
        return web.Response(**({"text": "[]", "content_type": "application/json"} | reply))

    return handle


@contextlib.asynccontextmanager
async def client(url: str, **changes: Any) -> AsyncIterator[ApiClient]:
    async with open_api(configured(url, api=changes).api) as connection:
        yield connection


@contextlib.asynccontextmanager
async def simulated(
    changes: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Simulator, ApiClient]]:
    chosen: dict[str, Any] = {"terminals": 8, "seed": 2, "start": START, "speed": 0.0} | options
    async with serve(Options(**chosen)) as simulator, client(simulator.url, **(changes or {})) as connection:
        yield simulator, connection


@contextlib.asynccontextmanager
async def against(handler: Handler, **changes: Any) -> AsyncIterator[tuple[Server, ApiClient]]:
    async with serving(handler) as server, client(server.url, **changes) as connection:
        yield server, connection


def oauth(url: str = "http://127.0.0.1:9", **more: Any) -> dict[str, Any]:
    return {"auth": {"style": "oauth2_client_credentials", "token_url": f"{url}/oauth2/token", **more}}


def clocks_ahead(monkeypatch: pytest.MonkeyPatch, seconds: float, host: float = 0.0) -> None:
    """Lets the client believe that so much time has passed, and that the host's clock was set forward by `host`."""
    ahead = SimpleNamespace(monotonic=lambda: time.monotonic() + seconds, time=lambda: time.time() + seconds + host)
    for module in ("client", "auth"):
        monkeypatch.setattr(f"oneweb_bridge.api.{module}.time", ahead)


def skip_pauses(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the client believe that each of its pauses is over when it begins. The function lets more time pass."""
    ahead, sleep = 0.0, asyncio.sleep

    def let_pass(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds
        clocks_ahead(monkeypatch, ahead)

    async def sleeping(seconds: float) -> None:
        let_pass(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", sleeping)
    return let_pass


async def failure(connection: ApiClient, path: str = "/x", method: str = "GET") -> ApiError:
    with pytest.raises(ApiError) as caught:
        await connection.request(method, path)
    return caught.value


# --- signing in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["basic", "headers"])
async def test_credentials_are_sent_in_the_style_that_is_set(style: str) -> None:
    """Basic and header sign-in are accepted by an API of that style, and by no other."""
    other = {"basic": "headers", "headers": "basic"}[style]
    async with simulated({"auth": {"style": style}}, auth=style) as (_, connection):
        assert (await connection.hello()).status == 200
    async with simulated({"auth": {"style": style}}, auth=other) as (_, connection):
        with pytest.raises(Unauthorized):
            await connection.hello()


@pytest.mark.parametrize("token_auth", ["basic", "body"])
async def test_token_is_asked_for_once(token_auth: str) -> None:
    """With OAuth2 one token does for many requests, also for those that begin together."""
    async with serve(Options(terminals=8, start=START, speed=0.0, auth="oauth2")) as simulator:
        settings = oauth(simulator.url, token_auth=token_auth) | {"rate_limit": {"max_in_flight": 4}}
        async with client(simulator.url, **settings) as connection:
            await asyncio.gather(*(connection.get(TERMINALS) for _ in range(6)))
        assert simulator.requests()["counts"] == {"/oauth2/token": 1, TERMINALS: 6}


async def test_token_is_renewed_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is about to end is not used any more, by the monotonic clock."""
    async with serve(Options(terminals=8, start=START, speed=0.0, auth="oauth2")) as simulator:
        async with client(simulator.url, **oauth(simulator.url)) as connection:
            await connection.get(TERMINALS)
            clocks_ahead(monkeypatch, 3600)
            await connection.get(TERMINALS)
        assert simulator.requests()["counts"]["/oauth2/token"] == 2


async def test_refused_token_is_renewed_once_and_the_request_succeeds() -> None:
    """A token that the API has forgotten costs one new token and one more request, and no error."""
    async with serve(Options(terminals=8, start=START, speed=0.0, auth="oauth2")) as simulator:
        async with client(simulator.url, **oauth(simulator.url)) as connection:
            await connection.get(TERMINALS)
            simulator.fault("expire_tokens")
            assert (await connection.get(TERMINALS)).status == 200
        assert simulator.requests()["counts"] == {"/oauth2/token": 2, TERMINALS: 3}


async def test_token_that_another_request_has_renewed_stays() -> None:
    """Of two requests refused with one token, the later answer does not throw away the new token of the other."""
    tokens, both, late = itertools.count(), asyncio.Barrier(2), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/oauth2/token":
            return web.json_response({"access_token": f"tok-{next(tokens)}", "expires_in": 3600})
        if request.path == "/first" or request.headers["Authorization"] != "Bearer tok-0":
            return web.json_response([])
        await both.wait()
        if request.path == "/late":
            await late.wait()
        return web.json_response({}, status=401)

    limit = {"rate_limit": {"max_in_flight": 2, "min_interval": "0s"}}
    async with serving(handle) as server, client(server.url, **oauth(server.url), **limit) as connection:
        await connection.get("/first")
        slow = asyncio.create_task(connection.get("/late"))
        await connection.get("/quick")
        late.set()
        await slow
    assert server.paths().count("/oauth2/token") == 2


def token_server(status: int, token: dict[str, Any] | None = None) -> Handler:
    """Grants tokens, and answers everything else with `status`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/oauth2/token":
            return web.json_response({"access_token": "tok", "expires_in": 3600} if token is None else token)
        return web.json_response({"error": "no"}, status=status)

    return handle


@pytest.mark.parametrize(("status", "tokens"), [(401, 5), (403, 1)])
async def test_refusal_makes_no_token_storm(status: int, tokens: int) -> None:
    """An API that refuses every token costs at most one new token a request, and none when it says 403."""
    async with serving(token_server(status)) as server, client(server.url, **oauth(server.url)) as connection:
        for _ in range(5):
            assert isinstance(await failure(connection), Unauthorized)
    assert server.paths().count("/oauth2/token") == tokens


async def test_short_token_is_used_for_most_of_its_time() -> None:
    """A token that lasts 20 s is used again: it does not cost a token request for each request."""
    short = {"access_token": "tok", "expires_in": "20"}
    async with serving(token_server(200, short)) as server, client(server.url, **oauth(server.url)) as connection:
        for _ in range(4):
            await connection.get("/x")
    assert server.paths().count("/oauth2/token") == 1


@pytest.mark.parametrize(
    "token",
    [{}, {"access_token": ""}, {"access_token": "a\nX-Evil: 1"}, {"access_token": "é"}, {"access_token": None}, [], 7],
)
async def test_unusable_token_is_a_bad_answer(token: Any) -> None:
    """Something that is no token is said so in a sentence, and is never put into a header."""
    async with serving(token_server(200, token)) as server, client(server.url, **oauth(server.url)) as connection:
        error = await failure(connection)
    assert isinstance(error, BadAnswer)
    assert "gave no token that can be read" in str(error)
    assert set(server.paths()) == {"/oauth2/token"}


@pytest.mark.parametrize(
    ("reply", "kind", "tries"),
    [
        ({"status": 400, "text": '{"error": "invalid_scope"}'}, Unauthorized, 1),
        ({"status": 401}, Unauthorized, 1),
        ({"status": 404}, BadAnswer, 1),
        ({"status": 302, "headers": {"Location": "/elsewhere"}}, BadAnswer, 1),
        ({"status": 503}, Unavailable, 3),
        ({"status": 429, "headers": {"Retry-After": "60"}}, RateLimited, 1),
    ],
)
async def test_token_endpoint_that_fails_is_told(reply: dict[str, Any], kind: type[ApiError], tries: int) -> None:
    """Without a token nothing is asked; the error says what the token endpoint answered, and is never NotFound."""
    async with serving(answers(reply)) as server, client(server.url, **oauth(server.url)) as connection:
        error = await failure(connection)
    assert isinstance(error, kind)
    assert not isinstance(error, NotFound)
    assert server.paths() == ["/oauth2/token"] * tries


async def test_failing_token_endpoint_is_asked_once_by_all_who_wait() -> None:
    """Requests that wait for one token share its failure, instead of asking one after the other."""

    async def slowly(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        return web.json_response({"error": "invalid_client"}, status=401)

    async with serving(slowly) as server:
        settings = oauth(server.url) | {"rate_limit": {"max_in_flight": 8, "min_interval": "0s"}}
        async with client(server.url, **settings) as connection:
            errors = await asyncio.gather(*(failure(connection) for _ in range(8)))
    assert all(isinstance(error, Unauthorized) for error in errors)
    assert len(server.requests) == 1


async def test_new_credentials_need_a_new_token() -> None:
    """A token that was given for other credentials is not used after they changed."""
    async with (
        serve(Options(terminals=8, start=START, speed=0.0, auth="oauth2")) as simulator,
        client(simulator.url, **oauth(simulator.url)) as connection,
    ):
        await connection.get(TERMINALS)
        wrong = {**oauth(simulator.url), "client_secret": "wrong"}
        connection.reconfigure(configured(simulator.url, api=wrong).api)
        assert isinstance(await failure(connection, TERMINALS), Unauthorized)


@pytest.mark.parametrize("url", ["http://api.example.net/token", "/oauth2/token", "ftp://127.0.0.1/token"])
def test_token_url_over_plain_http_is_refused(url: str) -> None:
    """The secret goes to a token endpoint over HTTPS or loopback only: anything else is a configuration error."""
    auth = {"style": "oauth2_client_credentials", "token_url": url}
    with pytest.raises(ConfigError, match=r"api\.auth\.token_url"):
        configured("http://127.0.0.1:9", api={"auth": auth})


async def test_hello_at_a_wrong_place_names_what_may_be_wrong() -> None:
    """A 404 of hello is a sign-in that failed, because nothing else is asked before it."""
    async with against(answers({"status": 404})) as (_, connection):
        with pytest.raises(Unauthorized, match=r"api\.base_url or api\.hello\.path"):
            await connection.hello()


# --- retries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
async def test_failure_of_the_server_is_tried_again(status: int) -> None:
    """A GET that fails by 5xx or 408 is asked up to three times; the third answer counts."""
    async with against(answers({"status": status}, {"status": status}, {})) as (server, connection):
        assert (await connection.get("/x")).body == b"[]"
        assert len(server.requests) == connection.requests == 3
    async with against(answers({"status": status})) as (server, connection):
        assert isinstance(await failure(connection), Unavailable)
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadAnswer), (401, Unauthorized), (403, Unauthorized), (404, NotFound), (405, BadAnswer)]
)
async def test_refusal_is_not_tried_again(status: int, kind: type[ApiError]) -> None:
    """400, 401, 403, 404 and 405 are asked once, and say the status and what the API says."""
    async with against(answers({"status": status, "text": '{"message": "That  is\\n it"}'})) as (server, connection):
        error = await failure(connection)
    assert type(error) is kind
    assert f"answered {status} (That is it)" in str(error)
    assert len(server.requests) == 1


async def test_post_is_not_tried_again() -> None:
    """Only a GET may be repeated, because a POST may have had its effect."""
    async with against(answers({"status": 503})) as (server, connection):
        assert isinstance(await failure(connection, method="POST"), Unavailable)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (aiohttp.ServerTimeoutError(), "no answer in time"),
        (aiohttp.ServerDisconnectedError(), "the connection was lost"),
        (ConnectionResetError(), "the connection was lost"),
        (aiohttp.ClientPayloadError(), "the answer was cut off"),
        (OSError(5, "Input/output error"), "OSError"),
    ],
)
async def test_broken_connection_is_tried_again(error: Exception, reason: str) -> None:
    """Timeouts and broken connections are tried again, and end in a sentence that names the reason."""
    url = "http://127.0.0.1:9/x"
    async with client("http://127.0.0.1:9") as connection:
        with aioresponses() as staged:
            for _ in range(2):
                staged.get(url, exception=error)
            staged.get(url, body=b"[]")
            assert (await connection.get("/x")).body == b"[]"
        with aioresponses() as staged:
            staged.get(url, exception=error, repeat=True)
            assert str(await failure(connection)) == f"{url} cannot be reached: {reason}"


async def test_silent_server_is_given_up_by_the_read_timeout() -> None:
    """A server that takes the request and says nothing is Unavailable after api.timeout.read, each time."""
    async with simulated({"timeout": {"read": "100ms"}}) as (simulator, connection):
        simulator.fault("hang", path=TERMINALS)
        error = await failure(connection, TERMINALS)
    assert isinstance(error, Unavailable)
    assert "no answer in time" in str(error)


async def test_closed_port_is_unavailable() -> None:
    """Nobody there is Unavailable, with the system's own reason."""
    async with serving(answers({})) as server:
        url = server.url
    async with client(url) as connection:
        error = await failure(connection)
    assert isinstance(error, Unavailable)
    assert str(error).endswith("cannot be reached: Connection refused")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that nobody has signed, and its key."""
    place = tmp_path_factory.mktemp("tls")
    made = (place / "cert.pem", place / "key.pem")
    arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-out", str(made[0]), "-keyout", str(made[1])]
    subprocess.run(["openssl", *arguments.split(), *names], check=True, capture_output=True, timeout=100)
    return made


@contextlib.asynccontextmanager
async def serving_tls(certificate: tuple[Path, Path]) -> AsyncIterator[str]:
    import ssl

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


async def test_certificate_is_checked(certificate: tuple[Path, Path]) -> None:
    """A server whose certificate nobody known has signed is Unavailable, and accepted with its api.ca_file."""
    async with serving_tls(certificate) as url:
        async with client(url) as connection:
            error = await failure(connection)
        async with client(url, ca_file=str(certificate[0])) as connection:
            assert (await connection.get("/x")).body == b"[]"
    assert isinstance(error, Unavailable)
    assert "certificate" in str(error)


# --- being left alone -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "0"}, 1, 1.1),
        ({"Retry-After": "30"}, 30, 33),
        ({"Retry-After": "7200"}, 3600, 3600),
        ({"Retry-After": "1000000000"}, 3600, 3600),
        ({"Retry-After": "soon"}, 60, 66),
        ({"Retry-After": "Tue, 17 Jun 2025 13:00:00 GMT"}, 1, 1.1),
        ({"Retry-After": "Tue, 17 Jun 2025 14:17:00 -0000"}, 120, 132),
        ({"Retry-After": "-1"}, 60, 66),
        ({"x-ratelimit-reset": "45000"}, 45, 49.5),
        ({"X-RateLimit-Reset": "1750169760"}, 60, 66),
        ({}, 60, 66),
    ],
)
async def test_rate_limit_pauses_the_host(
    headers: dict[str, str], least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 429 pauses all calls for what it says, by the API's clock, up to max_pause; nothing is asked meanwhile."""
    headers = {"Date": "Tue, 17 Jun 2025 14:15:00 GMT", **headers}
    async with against(answers({"status": 429, "headers": headers})) as (server, connection):
        monkeypatch.setattr("oneweb_bridge.api.client.time", SimpleNamespace(monotonic=lambda: 1e6, time=time.time))
        error = await failure(connection)
        assert isinstance(error, RateLimited)
        assert least <= error.pause <= most
        assert least - 1 < connection.pause <= most
        other = await failure(connection, "/another/call")
        assert isinstance(other, RateLimited)
        assert "asked to be left alone" in str(other)
        assert other.pause == pytest.approx(connection.pause, abs=1)
        assert len(server.requests) == 1


async def test_unavailable_that_says_when_pauses_the_host() -> None:
    """A 503 with Retry-After is obeyed as a 429 is: one request, and nothing more until then."""
    async with against(answers({"status": 503, "headers": {"Retry-After": "30"}})) as (server, connection):
        error = await failure(connection)
        assert isinstance(error, RateLimited)
        assert 30 <= error.pause <= 33
        assert isinstance(await failure(connection, "/another/call"), RateLimited)
        assert len(server.requests) == 1


async def test_retry_obeys_a_pause_that_came_meanwhile() -> None:
    """The second try of a request is not made when the answer to another has paused the host."""
    too_many = {"status": 429, "headers": {"Retry-After": "30"}}
    async with against(answers({"status": 500}, too_many)) as (server, connection):
        assert isinstance(await failure(connection), RateLimited)
        assert len(server.requests) == 2


async def test_failing_host_is_asked_by_one_call_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three calls that fail do not ask three times as often: what one has seen slows all, until an answer comes."""
    let_pass = skip_pauses(monkeypatch)
    async with against(answers({"status": 500})) as (server, connection):
        await failure(connection)
        for _ in range(3):
            let_pass(1000.0)
            await failure(connection)
        before = len(server.requests)
        for path in ("/a", "/b", "/c"):
            error = await failure(connection, path)
            assert isinstance(error, Unavailable)
            assert error.pause > 10
            assert "did not answer" in str(error)
        assert len(server.requests) == before
        connection.ask_at_once()
        server._handler = answers({})
        await connection.get("/a")
        await connection.get("/b")


async def test_budget_of_the_hour_is_kept_over_a_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGHUP fills no budget: what was sent within the hour counts, and the sentence names the key."""
    limit = {"max_requests_per_hour": 3, "min_interval": "0s"}
    async with against(answers({}), rate_limit=limit) as (server, connection):
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(3):
            await connection.get("/x")
        connection.reconfigure(configured(server.url, api={"rate_limit": limit}).api)
        error = await failure(connection)
        assert isinstance(error, RateLimited)
        assert 3599 - (loop.time() - began) < error.pause <= 3602
        assert r"api.rate_limit.max_requests_per_hour, 3, is used up" in str(error)
        assert len(server.requests) == 3
        clocks_ahead(monkeypatch, 3602)
        await connection.get("/x")


async def test_budget_of_the_hour_counts_token_requests() -> None:
    """A request for a token is a request."""
    async with serving(token_server(200)) as server:
        settings = oauth(server.url) | {"rate_limit": {"max_requests_per_hour": 2, "min_interval": "0s"}}
        async with client(server.url, **settings) as connection:
            await connection.get("/x")
            assert isinstance(await failure(connection), RateLimited)
    assert server.paths() == ["/oauth2/token", "/x"]


async def test_reload_never_lets_more_be_in_flight() -> None:
    """Requests under way count when the configuration is read again, also with fewer or more allowed at once."""
    now, highest, gate = 0, 0, asyncio.Event()

    async def count(*arguments: Any) -> Answer:
        nonlocal now, highest
        now += 1
        highest = max(highest, now)
        await gate.wait()
        now -= 1
        return await send(*arguments)

    async with against(answers({}), rate_limit={"max_in_flight": 2, "min_interval": "0s"}) as (server, connection):
        send, connection._send_request = connection._send_request, count  # type: ignore[assignment, method-assign]  # to see when it starts
        tasks = [asyncio.create_task(connection.get("/x")) for _ in range(3)]
        for most in (1, 2, 1, 2):
            limit = {"max_in_flight": most, "min_interval": "0s"}
            connection.reconfigure(configured(server.url, api={"rate_limit": limit}).api)
            tasks.append(asyncio.create_task(connection.get("/x")))
            for _ in range(50):
                await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)
        assert (highest, len(server.requests)) == (2, 7)


async def test_pause_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the pause is over, the host is asked again."""
    too_many = {"status": 429, "headers": {"Retry-After": "5"}}
    async with against(answers(too_many, {})) as (_, connection):
        await failure(connection)
        clocks_ahead(monkeypatch, 6)
        assert (await connection.get("/x")).status == 200


async def test_pause_holds_for_requests_that_wait_already() -> None:
    """A request that waited for its turn while another got a 429 is not sent any more."""
    too_many = {"status": 429, "headers": {"Retry-After": "60"}}
    limit = {"max_in_flight": 4, "min_interval": "1500ms"}
    async with against(answers(too_many), rate_limit=limit) as (server, connection):
        errors = await asyncio.gather(*(failure(connection) for _ in range(4)))
        assert all(isinstance(error, RateLimited) for error in errors)
        assert len(server.requests) == 1


async def test_shorter_pause_does_not_end_a_longer_one() -> None:
    """Of two 429s the longer pause counts, whichever comes last."""
    replies = [{"status": 429, "headers": {"Retry-After": seconds}} for seconds in ("100", "2")]
    limit = {"max_in_flight": 2, "min_interval": "0s"}

    async def together(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return await reply(request)

    gate, reply = asyncio.Barrier(2), answers(*replies)
    async with against(together, rate_limit=limit) as (_, connection):
        await asyncio.gather(failure(connection), failure(connection))
        assert connection.pause > 90


async def test_quota_of_the_gateway_is_respected() -> None:
    """A real quota: after the 429 nothing is asked until the window ends."""
    async with simulated(rate_limit=2, rate_window=30.0) as (simulator, connection):
        await connection.get(TERMINALS)
        await connection.get(TERMINALS)
        assert isinstance(await failure(connection, TERMINALS), RateLimited)
        assert 1 <= connection.pause <= 33
        await failure(connection, TERMINALS)
        assert simulator.requests()["total"] == 3


async def test_requests_keep_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests start at least api.rate_limit.min_interval apart, however many are wanted at once."""
    starts: list[float] = []

    def note(now: float) -> float:
        wait = try_start(now)
        starts.extend([now] if wait == 0 else [])
        return wait

    limit = {"max_in_flight": 8, "min_interval": "50ms"}
    async with against(answers({}), rate_limit=limit) as (_, connection):
        try_start = connection._pace.try_start
        monkeypatch.setattr(connection._pace, "try_start", note)
        await asyncio.gather(*(connection.get("/x") for _ in range(8)))
    assert len(starts) == 8
    assert min(later - before for before, later in itertools.pairwise(starts)) >= 0.05


@pytest.mark.parametrize("most", [1, 3])
async def test_no_more_requests_than_allowed_are_in_flight(most: int) -> None:
    """Never more than api.rate_limit.max_in_flight requests are under way, and that many are."""
    now, highest = 0, 0

    async def count(request: web.Request) -> web.StreamResponse:
        nonlocal now, highest
        now += 1
        highest = max(highest, now)
        await asyncio.sleep(0.02)
        now -= 1
        return web.json_response([])

    async with against(count, rate_limit={"max_in_flight": most, "min_interval": "0s"}) as (_, connection):
        await asyncio.gather(*(connection.get("/x") for _ in range(9)))
    assert highest == most


# --- what comes back ------------------------------------------------------------------------------

MEMORY = """
import asyncio, resource, sys
from oneweb_bridge.api.client import open_api
from oneweb_bridge.api.errors import BadAnswer
from tests.polls import configured

async def main():
    settings = configured(sys.argv[1], api={"max_body": sys.argv[2]}).api
    async with open_api(settings) as connection:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            await connection.get("/resourceInventory/v3/userTerminal")
        except BadAnswer as error:
            print(error)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)

asyncio.run(main())
"""


async def grown_by(url: str, max_body: str) -> tuple[str, int]:
    """What a process of its own says to a listing, and by how many MiB its memory grew."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(MEMORY), url, max_body, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    sentence, grown = out.decode().splitlines()
    return sentence, int(grown)


@pytest.mark.parametrize(("kind", "megabytes"), [("gzip_bomb", 300), ("big", 60)])
async def test_endless_body_does_not_fill_the_memory(kind: str, megabytes: int) -> None:
    """The limit counts decoded bytes: a bomb of 300 MB, or 60 MB in clear, is a bad answer that costs no memory."""
    async with simulated() as (simulator, _):
        simulator.fault(kind, megabytes=megabytes)
        sentence, grown = await grown_by(simulator.url, "16MB")
    assert sentence.endswith("sent more than api.max_body, 16000000 bytes")
    assert grown < 60


@pytest.mark.parametrize("packed", [True, False])
async def test_body_may_be_as_long_as_the_limit(packed: bool) -> None:
    """A body of exactly api.max_body decoded bytes is taken; one byte more is refused, packed or not."""
    body = b"[" + b" " * 99_998 + b"]"

    async def send(request: web.Request) -> web.StreamResponse:
        padded = body + b" " * int(request.query["more"])
        headers = {"Content-Encoding": "gzip"} if packed else {}
        return web.Response(body=gzip.compress(padded) if packed else padded, headers=headers)

    async with against(send, max_body=100_000) as (_, connection):
        assert (await connection.get("/x", {"more": "0"})).body == body
        with pytest.raises(BadAnswer) as caught:
            await connection.get("/x", {"more": "1"})
    assert "api.max_body, 100000 bytes" in str(caught.value)


@pytest.mark.parametrize(
    "location",
    [
        "{other}/x",
        "//{other_netloc}/x",
        "http://user:pass@{netloc}/x",
        "https://{netloc}/x",
        "http://[",
        "http://a:b/",
        "",
    ],
)
async def test_redirect_to_another_place_is_not_followed(location: str) -> None:
    """No other server, scheme or user is asked, and no credential reaches one."""
    async with serving(answers({})) as other, serving(answers({})) as server:
        names = {"other": other.url, "other_netloc": other.url[7:], "netloc": server.url[7:]}
        server._handler = answers({"status": 302, "headers": {"Location": location.format(**names)}})
        for auth in ({"style": "basic"}, {"style": "headers"}, oauth(server.url)["auth"]):
            async with client(server.url, auth=auth) as connection:
                assert isinstance(await failure(connection), BadAnswer)
    assert other.requests == []


async def test_redirect_on_the_same_server_is_followed() -> None:
    """A moved path is followed with the credentials, relative or whole, and its parameters are its own."""

    async def moved(request: web.Request) -> web.StreamResponse:
        if request.path == "/x":
            raise web.HTTPFound("/y?a=2")
        if request.path == "/y":
            raise web.HTTPTemporaryRedirect(f"http://LOCALHOST:{request.url.port}/z")
        return web.json_response([request.path_qs, "Authorization" in request.headers])

    async with serving(moved) as server, client(server.url.replace("127.0.0.1", "localhost")) as connection:
        assert (await connection.get("/x", {"a": "1"})).body == b'["/z", true]'
    assert [request.path_qs for request in server.requests] == ["/x?a=1", "/y?a=2", "/z"]


async def test_see_other_after_a_post_is_a_get() -> None:
    """303 after a POST means: look there. Source: RFC 9110."""

    async def made(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            raise web.HTTPSeeOther("/report/1")
        return web.json_response([request.method, request.content_length])

    async with against(made) as (_, connection):
        assert (await connection.request("POST", "/report", body=b"{}")).body == b'["GET", null]'


async def test_redirects_in_a_circle_end() -> None:
    """A server that redirects for ever is asked four times."""
    async with against(answers({"status": 307, "headers": {"Location": "/x"}})) as (server, connection):
        error = await failure(connection)
        assert isinstance(error, BadAnswer)
        assert "one redirect after the other" in str(error)
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<!DOCTYPE html><p>Sign in", "text/html"),
        (" \n<html>", "application/json"),
        ("Sign in", "TEXT/HTML; charset=utf-8"),
        ("Sign in", "application/xhtml+xml"),
    ],
)
async def test_web_page_is_a_bad_answer(body: str, content_type: str) -> None:
    """A login page with status 200 is told as what it is, and a piece of it is kept."""
    reply = {"body": body.encode(), "headers": {"Content-Type": content_type}}

    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(**reply)  # type: ignore[arg-type]  # of mixed types

    async with against(page) as (_, connection):
        error = await failure(connection)
    assert isinstance(error, BadAnswer)
    assert "web page instead of JSON" in str(error)
    assert error.excerpt == body.encode()


async def test_wrong_content_type_is_taken_when_the_body_is_json() -> None:
    """What counts is the body: JSON said to be plain text, or nothing, is JSON."""
    async with simulated() as (simulator, connection):
        simulator.fault("content_type", value="text/plain")
        assert (await connection.get(TERMINALS)).body.startswith(b"[{")


@pytest.mark.parametrize("body", ["[]", ' {"items": []}', "\ufeff[]"])
async def test_json_that_calls_itself_a_page_is_taken(body: str) -> None:
    """JSON said to be text/html is JSON."""
    reply = {"text": body, "content_type": "text/html"}
    async with against(answers(reply)) as (_, connection):
        assert (await connection.get("/x")).body.decode() == body.removeprefix("\ufeff")


@pytest.mark.parametrize(
    ("encoding", "content_type"),
    [
        ("iso-8859-1", 'application/json; Charset="ISO-8859-1"'),
        ("utf-16", "application/json"),
        ("utf-8", "application/json; charset=iso-8859-1"),
    ],
)
async def test_text_in_another_charset_is_read(encoding: str, content_type: str) -> None:
    """A body in the charset that its type names comes out in UTF-8; one that is UTF-8 stays what it is."""
    text = '["Ålesund"]'

    async def send(request: web.Request) -> web.StreamResponse:
        return web.Response(body=text.encode(encoding), headers={"Content-Type": content_type})

    async with against(send) as (_, connection):
        assert (await connection.get("/x")).body == text.encode()


async def test_trickle_is_ended_by_the_deadline_of_the_poll() -> None:
    """A body that comes byte by byte never trips the read timeout, but the deadline around the poll ends it at once."""
    async with simulated({"timeout": {"read": "1s"}}) as (simulator, connection):
        simulator.fault("slow", rate=200.0, count=1)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await connection.get(TERMINALS)
        assert time.monotonic() - began < 5
        assert (await connection.get(TERMINALS)).status == 200


async def test_no_content_is_an_empty_list() -> None:
    """204 is a listing without records; 404 is one only where the call says so."""
    async with against(answers({"status": 204, "text": None})) as (_, connection):
        assert (await connection.get("/x")).body == b"[]"
    async with against(answers({"status": 404, "text": None})) as (_, connection):
        assert isinstance(await failure(connection), BadAnswer)
        assert (await connection.get("/x", empty_status=(204, 404))).body == b"[]"


# --- the API's time -------------------------------------------------------------------------------


async def test_time_is_that_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once an answer had a date, the API's time is known and goes on, whatever is done to the host's clock."""
    async with simulated() as (simulator, connection):
        assert connection.now() == pytest.approx(time.time() * 1000, abs=2000)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await connection.hello()
        clocks_ahead(monkeypatch, 0, host=86_400)
        # The simulator's clock stands still meanwhile.
        ahead = connection.now() - simulator.world.clock.now() * 1000
        assert -2000 <= ahead <= 2000 + (loop.time() - began) * 1000


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Jun 2025 13:00:00 GMT", "Mon, 1 Jan 99999 00:00:00 GMT"])
async def test_nonsense_date_counts_as_none(date: str) -> None:
    """A Date header that nobody can read does not fail the poll, and tells no time."""
    async with against(answers({"headers": {"Date": date}})) as (_, connection):
        assert (await connection.get("/x")).time is None
        assert connection.now() == pytest.approx(time.time() * 1000, abs=2000)


# --- secrets --------------------------------------------------------------------------------------


def echoes(status: int) -> Handler:
    """A server that says everything it was told in its error."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/oauth2/token" and status < 500:
            return web.json_response({"access_token": "tok-" + SECRET, "expires_in": 60})
        messages = [
            text for name, text in request.headers.items() if name in ("Authorization", "client_id", "client_secret")
        ]
        return web.json_response({"message": " ".join([*messages, (await request.read()).decode()])}, status=status)

    return handle


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize("style", ["basic", "headers", "oauth2_client_credentials"])
async def test_error_never_tells_a_credential(style: str, status: int) -> None:
    """Even where the server echoes what it was sent, no error text has id, secret, token, query or Basic header."""
    async with serving(echoes(status)) as server:
        auth = {"style": style, "token_url": f"{server.url}/oauth2/token", "token_auth": "body"}
        async with client(server.url, auth=auth, client_id="id-" + SECRET, client_secret="s-" + SECRET) as connection:
            with pytest.raises(ApiError) as caught:
                await connection.get("/x", {"q": SECRET})
            secrets = {SECRET, api_auth._basic(connection._settings).removeprefix("Basic ")}
    assert not [secret for secret in secrets if secret in f"{caught.value} {caught.value!r}"]


async def test_unreachable_proxy_is_told_without_its_password() -> None:
    """A proxy's address may carry a password, which no error says."""
    async with client("http://127.0.0.1:9", proxy=f"http://user:{SECRET}@127.0.0.1:9") as connection:
        error = await failure(connection)
    assert isinstance(error, Unavailable)
    assert SECRET not in f"{error} {error!r} {error.__context__!r}"
