"""Health and metrics over HTTP, read-only, for load balancers, containers and Prometheus. No ids in it."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from oneweb_bridge.diff import encode
from oneweb_bridge.payloads import Info
from oneweb_bridge.poller import Poller

STUCK = 30.0
"""Seconds without progress of the event loop's own tasks after which the process counts as stuck."""
BACKLOG = 100_000
"""Rows waiting above which the journal's part of /readyz says no."""


class Parts(msgspec.Struct, frozen=True):
    """What readiness is made of. Each part is True when it is well."""

    api: bool
    broker: bool
    journal: bool


class Health:
    """What the endpoints say. `connected` tells of the broker, `info` is the payload of `bridge/info`."""

    def __init__(self, poller: Poller, connected: Callable[[], bool], info: Callable[[], Awaitable[Info]]) -> None:
        self._poller = poller
        self._connected = connected
        self._info = info

    def alive(self) -> bool:
        """Whether the process makes progress: its tasks run, and no poll is far beyond its deadline."""
        return time.monotonic() - self._poller.progress < STUCK and not self._poller.stuck()

    async def parts(self) -> Parts:
        """The parts of readiness."""
        try:
            journal = (await self._info()).journal
            written = journal.error is None and journal.backlog < BACKLOG
        except sqlite3.OperationalError:
            written = False
        return Parts(api=self._poller.api_state.state == "ok", broker=self._connected(), journal=written)

    async def healthz(self, _: web.Request) -> web.Response:
        """200 while the process makes progress, else 503."""
        good = self.alive()
        return web.json_response({"alive": good}, status=200 if good else 503)

    async def readyz(self, _: web.Request) -> web.Response:
        """200 when API, broker and journal are well, else 503; the body says which are."""
        parts = await self.parts()
        good = parts.api and parts.broker and parts.journal
        return web.Response(body=encode(parts), status=200 if good else 503, content_type="application/json")

    async def metrics(self, _: web.Request) -> web.Response:
        """The same and the state of each call in Prometheus' text form."""
        registry = CollectorRegistry()
        parts, info = await self.parts(), await self._info()
        for name, about, value in (
            ("api_up", "whether the API accepts the credentials", float(parts.api)),
            ("broker_up", "whether the broker is connected", float(parts.broker)),
            ("journal_head", "last row of the journal", info.journal.head),
            ("journal_backlog", "rows that wait for the broker", info.journal.backlog),
            ("journal_dropped", "rows dropped unsent", info.journal.dropped),
            ("journal_dead", "rows set aside", info.journal.dead),
        ):
            Gauge(f"oneweb_bridge_{name}", about, registry=registry).set(value)
        self._calls(registry)
        return web.Response(body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4"})

    def _calls(self, registry: CollectorRegistry) -> None:
        names = {
            "enabled": "whether the call is enabled",
            "fresh": "whether the last success is younger than three intervals",
            "interval_seconds": "effective interval",
            "last_success_timestamp_seconds": "time of the last success",
            "duration_seconds": "duration of the last successful poll",
            "failures": "failures since the last success",
            "records": "records in the last listing",
        }
        gauges = {n: Gauge(f"oneweb_bridge_call_{n}", about, ["call"], registry=registry) for n, about in names.items()}
        for call, slot in self._poller.slots.items():
            state = self._poller.state(slot)
            for name, value in (
                ("enabled", float(state.enabled)),
                ("fresh", float(state.fresh)),
                ("interval_seconds", slot.effective),
                ("last_success_timestamp_seconds", slot.memory.last_success / 1000),
                ("duration_seconds", (state.duration_ms or 0) / 1000),
                ("failures", slot.memory.failures),
                ("records", state.records),
            ):
                gauges[name].labels(call).set(value)


@contextlib.asynccontextmanager
async def served(health: Health, address: tuple[str, int]) -> AsyncIterator[None]:
    """The endpoints on `address` while the block runs. Raises OSError when it is taken."""
    site = web.Application()
    site.add_routes(
        [web.get("/healthz", health.healthz), web.get("/readyz", health.readyz), web.get("/metrics", health.metrics)]
    )
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, *address).start()
        yield
    finally:
        async with asyncio.timeout(2.0):
            await runner.cleanup()
