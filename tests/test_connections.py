"""The HTTP server's connections: so many at a time, none that stays idle, and a pause where descriptors run out."""

import asyncio
import contextlib
import errno
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from oneweb_bridge.config.read import parse
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.web import connections
from oneweb_bridge.web.standby import serve_standby
from tests import harness
from tests.campaign import is_at_rest

LOOPBACK = "127.0.0.1"


class Server:
    """A small server over the connections under test. `release` lets the requests to /slow end."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.release = asyncio.Event()
        self.waiting = asyncio.Semaphore(0)

    async def slow(self, _: web.Request) -> web.Response:
        self.waiting.release()
        await self.release.wait()
        return web.Response(text="late")

    async def quick(self, _: web.Request) -> web.Response:
        return web.Response(text="now")


@contextlib.asynccontextmanager
async def serving(limit: int) -> AsyncIterator[Server]:
    """A server that has room for `limit` connections."""
    server, held = Server(mosquitto.free_port()), connections.Connections(limit)
    site = web.Application(middlewares=[held.middleware])
    site.add_routes([web.get("/slow", server.slow), web.get("/", server.quick)])
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    assert runner.server is not None
    async with connections.accept_connections((LOOPBACK, server.port), runner.server, held):
        yield server
        server.release.set()
    await runner.cleanup()


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(LOOPBACK, port)


async def cut(reader: asyncio.StreamReader) -> bool:
    """Waits for the end of a connection to which nothing was said."""
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 30) == b""
    return True


async def fetch_text(port: int, path: str = "/") -> str:
    """What the server says to a client of its own."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{LOOPBACK}:{port}{path}") as answer:
        return await answer.text()


async def test_one_that_is_idle_longest_makes_room() -> None:
    """Above the limit the connection that has asked nothing for longest is cut, and the others stay."""
    async with serving(3) as server:
        clients = [await connected(server.port) for _ in range(3)]
        # A request makes the first the one that was heard of last.
        clients[0][1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"now" in await asyncio.wait_for(clients[0][0].readuntil(b"now"), 30)
        clients.append(await connected(server.port))
        assert await cut(clients[1][0])
        assert not clients[0][0].at_eof()
        assert not clients[2][0].at_eof()
        for _, writer in clients:
            writer.close()


async def test_closed_connections_cost_an_open_one_nothing() -> None:
    """Those that have ended, as after each request of a proxy, make room enough: no open one is cut for the next."""
    async with serving(3) as server:
        for _ in range(2):
            reader, writer = await connected(server.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"now" in await asyncio.wait_for(reader.read(), 30)
            writer.close()
        reader, writer = await connected(server.port)
        assert await fetch_text(server.port) == "now"
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"now" in await asyncio.wait_for(reader.readuntil(b"now"), 30)
        writer.close()


class Transport(asyncio.Transport):
    """One end of a connection that nobody reads; `is_cut` after it was."""

    def __init__(self) -> None:
        self.end, self.client = socket.socketpair()
        super().__init__({"socket": self.end})
        self.is_cut = False

    def is_closing(self) -> bool:
        return self.is_cut

    def abort(self) -> None:
        self.is_cut = True

    def get_write_buffer_size(self) -> int:
        return 0


async def test_arriving_request_is_not_cut_off() -> None:
    """A connection that a request has just reached goes on, however idle it was: another makes room."""
    held, asking, silent = connections.Connections(2), Transport(), Transport()
    held.add(asking)
    held.add(silent)
    asking.client.send(b"GET / HTTP/1.1\r\n")
    await held.make_room()
    assert (asking.is_cut, silent.is_cut) == (False, True)
    held.cut_idle(longer_than=1e-9)
    assert (asking.is_cut, silent.is_cut) == (False, True)
    asking.end.recv(100)
    held.cut_idle(longer_than=1e-9)
    assert (asking.is_cut, silent.is_cut) == (True, True)
    for transport in (asking, silent):
        transport.end.close()
        transport.client.close()


async def test_request_under_way_is_not_cut_for_another() -> None:
    """While requests take all places the next client waits, and is answered when one of them ends."""
    async with serving(2) as server:
        slow = [asyncio.create_task(fetch_text(server.port, "/slow")) for _ in range(2)]
        for _ in slow:
            await asyncio.wait_for(server.waiting.acquire(), 30)
        quick = asyncio.create_task(fetch_text(server.port))
        done, _ = await asyncio.wait([*slow, quick], timeout=0.2)
        assert not done
        server.release.set()
        assert await asyncio.wait_for(asyncio.gather(*slow, quick), 30) == ["late", "late", "now"]


async def test_idle_connection_is_cut_also_when_it_says_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a client that asks nothing nor one that sends its header letter by letter keeps its place."""
    monkeypatch.setattr(connections, "MAX_IDLE_S", 0.2)
    monkeypatch.setattr(connections, "SWEEP_S", 0.01)
    async with serving(10) as server:
        silent, (dripping, writer) = await connected(server.port), await connected(server.port)

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"G")
                    await writer.drain()
                    await asyncio.sleep(0.01)

        task = asyncio.create_task(drip())
        assert await cut(silent[0])
        assert await cut(dripping)
        task.cancel()
        silent[1].close()
        writer.close()


async def test_accepting_pauses_where_descriptors_run_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each failure cuts what is idle and waits before the next try; then clients are accepted again."""
    loop, tries, pauses = asyncio.get_running_loop(), 0, 0
    accept: Callable[[socket.socket], object] = loop.sock_accept
    sleep = asyncio.sleep

    async def failing(listener: socket.socket) -> object:
        nonlocal tries
        tries += 1
        if 2 <= tries <= 4:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return await accept(listener)  # type: ignore[misc]  # the loop's own coroutine

    async def sleeping(seconds: float) -> None:
        nonlocal pauses
        pauses += seconds == connections.ACCEPT_PAUSE_S
        await sleep(0.001 if seconds == connections.ACCEPT_PAUSE_S else seconds)

    monkeypatch.setattr(loop, "sock_accept", failing, raising=False)
    monkeypatch.setattr(connections, "SWEEP_S", 99.0)
    monkeypatch.setattr(asyncio, "sleep", sleeping)
    async with serving(10) as server:
        idle, writer = await connected(server.port)
        assert await fetch_text(server.port) == "now"
        assert await cut(idle)
        writer.close()
        assert (tries, pauses) == (6, 3)
    assert "Too many open files" in caplog.text


def test_limit_leaves_descriptors_for_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the descriptors may be clients, some at least and never many."""
    for soft, limit in ((40, 10), (1024, 32), (resource.RLIM_INFINITY, 32), (3, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert connections.max_connections() == limit


async def test_sixty_idle_clients_and_forty_descriptors(world: harness.World) -> None:
    """The bridge goes on, its health is answered while they stay, and its log has a handful of lines."""
    http = mosquitto.free_port()
    config = world.config(http={"listen": f"{LOOPBACK}:{http}"})
    async with harness.recording(world.port) as recorder, limited(config, descriptors=40) as bridge:
        await recorder.until(lambda: is_at_rest(recorder))
        clients = [await connected(http) for _ in range(60)]
        for _ in range(5):
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{LOOPBACK}:{http}/healthz") as answer,
            ):
                assert answer.status == 200
        for reader, _ in clients[:45]:
            assert await cut(reader)
        assert (await harness.poll(world.port))["status"] == "ok"
        lines = bridge.text().splitlines()
        for _, writer in clients:
            writer.close()
        assert bridge.returncode is None
        assert len(lines) < 100, lines[-20:]
        assert "Traceback" not in bridge.text()


@contextlib.asynccontextmanager
async def limited(config: Path, descriptors: int) -> AsyncIterator[harness.Process]:
    """The bridge with so many descriptors."""
    log = config.with_suffix(".log")
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            f'ulimit -n {descriptors}; exec "$@"',
            "sh",
            sys.executable,
            *("-m", "oneweb_bridge", "run", "-c", str(config)),
            stdout=out,
            stderr=out,
        )
    bridge = harness.Process(process, log)
    try:
        yield bridge
    finally:
        await bridge.kill()


async def test_standby_bounds_its_connections_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that stands by serves its health under the same limits, and does not say what runs there."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    port = mosquitto.free_port()
    config = parse(f"http: {{listen: '{LOOPBACK}:{port}'}}", {})
    async with serve_standby(config, "a", lambda: True, dict) as stop:
        clients = [await connected(port) for _ in range(3)]
        assert await cut(clients[0][0])
        async with aiohttp.ClientSession() as session, session.get(f"http://{LOOPBACK}:{port}/healthz") as answer:
            assert (answer.status, "Server" in answer.headers) == (200, False)
        await stop()
        with pytest.raises(OSError, match=r"refused|failed"):
            await connected(port)
        for _, writer in clients:
            writer.close()
