"""The HTTP server: gate, quota, answer, and the faults that replace an answer or spoil it on its way."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from .answer import Answer, Refused, SimulatedRequest, method_not_allowed
from .auth import TOKEN_PATH
from .broken_answers import replacement, send_cut, send_slowly, spoiled
from .clock import http_date
from .control import PREFIX, control
from .faults import REPLACING, SPOILING, Fault
from .options import Options
from .simulator import Simulator

_WORTH_COMPRESSING = 1024
_UNREADABLE = ("cut", "truncated", "not_utf8")


@asynccontextmanager
async def serve(options: Options) -> AsyncIterator[Simulator]:
    """Serve a simulated API while the context lasts."""
    simulator = Simulator(options)
    application = web.Application(client_max_size=16 * 2**20)
    application.router.add_route("*", "/{rest:.*}", _Handler(simulator).handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, options.host, options.port)
        await site.start()
        simulator.port = runner.addresses[0][1]
        yield simulator
    finally:
        await runner.cleanup()
        simulator.ledger.close()


async def run(options: Options) -> None:
    """Serve until cancelled."""
    async with serve(options):
        await asyncio.get_running_loop().create_future()


class _Handler:
    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if request.path.startswith(PREFIX + "/"):
            return await control(self._simulator, request)
        simulated = await _simulated_request(request)
        fault = self._simulator.faults.take(request.path_qs)
        if fault is not None and fault.kind in REPLACING:
            return await self._replaced(request, simulated, fault)
        answer = self._answer(simulated, fault)
        is_harmed = fault is not None and fault.kind in SPOILING and answer.status in (200, 206)
        harm = fault if is_harmed else None
        self._note_answer(simulated, answer, harm is None or _leaves_whole(harm, answer.body()))
        return await self._send(request, answer, harm)

    def _answer(self, simulated: SimulatedRequest, fault: Fault | None) -> Answer:
        """Gate first, then quota, then the API: a path is not even looked at without credentials."""
        simulator = self._simulator
        rates: dict[str, str] = {}
        try:
            if simulated.path == TOKEN_PATH and simulator.options.auth == "oauth2":
                if simulated.method != "POST":
                    raise method_not_allowed()
                return simulator.gate.grant(simulated)
            simulator.gate.check(simulated)
            rates = simulator.quota.spend()
            answer = simulator.api.answer(simulated, fault)
        except Refused as refused:
            answer = refused.answer
        answer.headers = {**rates, **answer.headers}
        return answer

    def _note_answer(self, simulated: SimulatedRequest, answer: Answer, complete: bool) -> None:
        simulator = self._simulator
        simulator.note(simulated, answer.status)
        simulator.ledger.write(simulated, answer, simulator.world.clock.now(), complete)

    async def _replaced(self, request: web.Request, simulated: SimulatedRequest, fault: Fault) -> web.StreamResponse:
        """Play a fault that needs no true answer."""
        if fault.kind == "hang":
            self._simulator.note(simulated, 0)
            await asyncio.sleep(fault.seconds)
            return _hung_up(request)
        status, body, headers = replacement(fault, request.path_qs)
        is_listing = fault.kind == "empty_list"
        answer = Answer(status, None, headers, [] if is_listing else None, 0, 0 if is_listing else None)
        self._note_answer(simulated, answer, complete=True)
        return web.Response(status=status, body=body, headers={**self._date(), **headers})

    async def _send(self, request: web.Request, answer: Answer, fault: Fault | None) -> web.StreamResponse:
        body = answer.body()
        headers = {"Content-Type": "application/json", **self._date(), **answer.headers}
        if fault is not None:
            body, headers = spoiled(fault, body, headers)
            if fault.kind == "cut":
                return await send_cut(request, fault, answer.status, body, headers)
            if fault.kind == "slow":
                return await send_slowly(request, fault, answer.status, body, headers)
        elif self._is_compressed(request, body):
            # Level 1 and no time in the header: quick, and the same bytes every time.
            body = gzip.compress(body, 1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return web.Response(status=answer.status, body=body, headers=headers)

    def _is_compressed(self, request: web.Request, body: bytes) -> bool:
        accepted = "gzip" in request.headers.get("Accept-Encoding", "").lower()
        return accepted and self._simulator.options.gzip and len(body) >= _WORTH_COMPRESSING

    def _date(self) -> dict[str, str]:
        """The header from which a client takes the API's time: the simulated one."""
        return {"Date": http_date(self._simulator.world.clock.now())}


def _leaves_whole(fault: Fault, body: bytes) -> bool:
    """Whether a body can be read in spite of a fault: one that is shorter than what is sent of it is not cut."""
    if fault.kind not in _UNREADABLE:
        return True
    never_ends = fault.kind == "cut" and fault.length == "chunked"
    return fault.kind != "not_utf8" and not never_ends and fault.bytes >= len(body)


async def _simulated_request(request: web.Request) -> SimulatedRequest:
    url = str(request.url.with_query(None))
    return SimulatedRequest(
        request.method, request.path, dict(request.query), request.headers, url, await request.read()
    )


def _hung_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
