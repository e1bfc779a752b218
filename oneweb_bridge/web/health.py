"""Health and metrics over HTTP, read-only, for load balancers, containers and Prometheus. No ids in it."""

import time
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
from aiohttp import web

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.status import Info
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.server import Epochs

STUCK_AFTER_S = 30.0
"""Seconds without progress of the event loop's own tasks after which the process counts as stuck."""
MAX_READY_BACKLOG = 100_000
"""Rows waiting above which the journal's part of /readyz says no."""


Role = Literal["leader", "standby"]
"""`leader` polls and publishes; `standby` waits for another process to end, which none does with SQLite."""
ROLE: Role = "leader"


class Readiness(msgspec.Struct, frozen=True, omit_defaults=True):
    """What readiness is made of. Each part is True when it is well.

    `incomplete` names the calls whose answers lack something that was expected; they do not make it unready. `role`
    is `leader` in a process that polls and publishes.
    """

    role: Role
    api: bool
    broker: bool
    journal: bool
    incomplete: list[str] = []


class Health:
    """What the endpoints say. `connected` tells of the broker, `info` is the payload of `bridge/info`.

    `epochs` are the instances of this worker with PostgreSQL; there are none with SQLite.
    """

    def __init__(
        self,
        poller: Poller,
        connected: Callable[[], bool],
        info: Callable[[], Awaitable[Info]],
        epochs: Callable[[], Epochs] = dict,
    ) -> None:
        self._poller = poller
        self._connected = connected
        self._info = info
        self._epochs = epochs

    def alive(self) -> bool:
        """Whether the process makes progress: its tasks run, and no poll is far beyond its deadline."""
        return time.monotonic() - self._poller.progress < STUCK_AFTER_S and not self._poller.stuck()

    async def parts(self) -> Readiness:
        """The parts of readiness."""
        return self._parts(await self._known())

    async def _known(self) -> Info | None:
        """The bridge's own state; None while the database cannot be read."""
        try:
            return await self._info()
        except StoreUnavailable:
            return None

    def _parts(self, info: Info | None) -> Readiness:
        written = info is not None and info.journal.error is None and info.journal.backlog < MAX_READY_BACKLOG
        return Readiness(
            role=ROLE,
            api=self._poller.api_state.state == "ok",
            broker=self._connected(),
            journal=written,
            incomplete=[call for call, runtime in self._poller.calls.items() if runtime.status == "incomplete"],
        )

    async def healthz(self, _: web.Request) -> web.Response:
        """200 while the process makes progress, else 503."""
        good = self.alive()
        return web.json_response({"alive": good, "role": ROLE}, status=200 if good else 503)

    async def readyz(self, _: web.Request) -> web.Response:
        """200 when API, broker and journal are well, else 503; the body says which are."""
        parts = await self.parts()
        good = parts.api and parts.broker and parts.journal
        return web.Response(body=encode(parts), status=200 if good else 503, content_type="application/json")

    def routes(self) -> list[web.RouteDef]:
        """The endpoints."""
        return [web.get("/healthz", self.healthz), web.get("/readyz", self.readyz), web.get("/metrics", self.metrics)]

    async def metrics(self, _: web.Request) -> web.Response:
        """Readiness and the state of each call as Prometheus text; the journal's metrics only while it can be read."""
        from oneweb_bridge.web import bridge_metrics  # noqa: PLC0415 -- takes a megabyte, which only scrapes need

        info = await self._known()
        families = bridge_metrics.families_of(self._gauges(self._parts(info)), info, self._poller, self._epochs())
        return web.Response(
            body=bridge_metrics.write_metrics(families), headers={"Content-Type": bridge_metrics.CONTENT_TYPE}
        )

    def _gauges(self, parts: Readiness) -> dict[str, float]:
        """The bridge's own metrics, by their names in `bridge_metrics.METRICS`."""
        return {
            "ready": float(parts.api and parts.broker and parts.journal),
            "api_up": float(parts.api),
            "broker_up": float(parts.broker),
            "journal_backlog_limit": MAX_READY_BACKLOG,
            "progress_age_seconds": time.monotonic() - self._poller.progress,
        }
