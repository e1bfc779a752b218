"""A console on a real listener, whose visitors come from wherever a test says."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from oneweb_bridge.clock import Clock
from oneweb_bridge.config.read import parse
from oneweb_bridge.web import access, console
from oneweb_bridge.web.health import Health
from oneweb_bridge.web.server import serve_http

TOKEN = "a-token-of-the-tests"
PEER_HEADER = "x-test-peer"
real_facts_of = console.facts_of
COMMAND = {"X-Oneweb-Console": "1"}


class Answer(msgspec.Struct):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cookies: list[Any]

    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


class Visits:
    """What a visitor asks the console. `at` is the console's clock in seconds."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self.port = port
        self.at = 1000.0
        self.console: console.Console
        self._session = session

    async def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        peer: str = "127.0.0.1",
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Answer:
        """The answer to one request."""
        sent = {"Host": f"localhost:{self.port}", **(headers or {}), PEER_HEADER: peer}
        async with self._session.request(
            method, f"http://127.0.0.1:{self.port}{path}", headers=sent, **options
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read(), [*answer.cookies.values()])


@contextlib.asynccontextmanager
async def visited(
    patch: pytest.MonkeyPatch,
    text: str = "",
    listen: str = "127.0.0.1:8480",
    routes: Callable[[console.Console], list[web.RouteDef]] | None = None,
) -> AsyncIterator[Visits]:
    """A console with `routes`, else with a few that answer anything, configured as `console: {text}`.

    Peers are what the tests' header says.
    """

    def facts_of(request: web.Request) -> access.RequestFacts:
        facts = real_facts_of(request)
        headers = dict(facts.headers)
        return access.RequestFacts(
            method=facts.method,
            path=facts.path,
            peer=headers.pop(PEER_HEADER),
            headers=headers,
            has_body=facts.has_body,
            body_bytes=facts.body_bytes,
        )

    patch.setattr(console, "facts_of", facts_of)
    config = parse(f"http: {{listen: '{listen}'}}\nconsole: {{{text}}}", {})
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), skip_auto_headers=("Accept-Encoding",)
    ) as session:
        visits = Visits(0, session)
        clock = Clock(lambda: visits.at, lambda: visits.at, "boot")
        visits.console = console.Console(access.rules_of(config), clock, "1.2.3", "main")
        visits.console.add(*(_answer_anything if routes is None else routes)(visits.console))
        async with serve_http(Health.__new__(Health), ("127.0.0.1", 0), visits.console) as visits.port:
            yield visits


def _answer_anything(_: console.Console) -> list[web.RouteDef]:
    return [
        web.get("/api/v1/bridge", _answer),
        web.post("/api/v1/calls/{call}/poll", _answer),
        web.get("/api/v1/live", _answer),
    ]


async def _answer(_: web.Request) -> web.Response:
    return web.json_response({"data": "of the fleet"})
