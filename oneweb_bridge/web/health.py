"""Health and metrics over HTTP, read-only, for load balancers, containers and Prometheus. No ids in it."""

import time
from collections.abc import Awaitable, Callable, Iterator

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.status import Info
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.store.errors import StoreUnavailable

STUCK_AFTER_S = 30.0
"""Seconds without progress of the event loop's own tasks after which the process counts as stuck."""
MAX_READY_BACKLOG = 100_000
"""Rows waiting above which the journal's part of /readyz says no."""
PREFIX = "oneweb_bridge"
METRICS = {
    "": "version, contract and instance of this bridge",
    "ready": "1 when API, broker and journal are well",
    "api_up": "1 when the API accepts the credentials",
    "broker_up": "1 when the broker is connected and delivers",
    "journal_head": "last row of the journal",
    "journal_backlog": "rows that wait for the broker",
    "journal_backlog_limit": "rows waiting above which the bridge is not ready",
    "journal_owed": "retained topics that are not right on the broker, and are tried again",
    "journal_dropped_total": "rows dropped unsent",
    "journal_set_aside_total": "rows set aside because the broker always refused them",
    "progress_age_seconds": "time since a task of the bridge last made progress",
    "call_enabled": "1 when the call is enabled",
    "call_fresh": "1 when the last success is younger than three intervals plus the lateness",
    "call_interval_seconds": "interval in force",
    "call_last_success_timestamp_seconds": "time of the last success",
    "call_duration_seconds": "duration of the last successful poll",
    "call_failures": "failures since the last success",
    "call_records": "records in the last listing",
    "call_fields_missing": "expected fields that were in no record of the last answer",
}
"""Name without the prefix -> what it is. Base units; labels by call, never by an id."""


class Readiness(msgspec.Struct, frozen=True, omit_defaults=True):
    """What readiness is made of. Each part is True when it is well.

    `incomplete` names the calls whose answers lack something that was expected; they do not make it unready.
    """

    api: bool
    broker: bool
    journal: bool
    incomplete: list[str] = []


class Health:
    """What the endpoints say. `connected` tells of the broker, `info` is the payload of `bridge/info`."""

    def __init__(self, poller: Poller, connected: Callable[[], bool], info: Callable[[], Awaitable[Info]]) -> None:
        self._poller = poller
        self._connected = connected
        self._info = info

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
            api=self._poller.api_state.state == "ok",
            broker=self._connected(),
            journal=written,
            incomplete=[call for call, runtime in self._poller.calls.items() if runtime.status == "incomplete"],
        )

    async def healthz(self, _: web.Request) -> web.Response:
        """200 while the process makes progress, else 503."""
        good = self.alive()
        return web.json_response({"alive": good}, status=200 if good else 503)

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
        info = await self._known()
        registry = CollectorRegistry()
        registry.register(_PrecomputedMetrics([*self._bridge(self._parts(info)), *self._journal(info), *self._calls()]))
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    def _bridge(self, parts: Readiness) -> Iterator[Metric]:
        for name, value in (
            ("ready", float(parts.api and parts.broker and parts.journal)),
            ("api_up", float(parts.api)),
            ("broker_up", float(parts.broker)),
            ("journal_backlog_limit", MAX_READY_BACKLOG),
            ("progress_age_seconds", time.monotonic() - self._poller.progress),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", METRICS[name], value)

    def _journal(self, info: Info | None) -> Iterator[Metric]:
        if info is None:
            return
        labels = {"version": info.version, "contract": str(info.contract), "instance": info.instance}
        yield InfoMetricFamily(PREFIX, METRICS[""], value=labels)
        journal = info.journal
        for name, value in (
            ("journal_head", journal.head),
            ("journal_backlog", journal.backlog),
            ("journal_owed", journal.owed),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", METRICS[name], value)
        for name, value in (("journal_dropped", journal.dropped), ("journal_set_aside", journal.dead)):
            yield CounterMetricFamily(f"{PREFIX}_{name}", METRICS[f"{name}_total"], value)

    def _calls(self) -> Iterator[Metric]:
        values_by_call: dict[str, dict[str, float]] = {}
        for call, runtime in self._poller.calls.items():
            state = self._poller.state(runtime)
            values_by_call[call] = {
                "call_enabled": float(state.enabled),
                "call_fresh": float(state.fresh),
                "call_interval_seconds": runtime.effective,
                "call_duration_seconds": (state.duration_ms or 0) / 1000,
                "call_failures": runtime.progress.failures,
                "call_records": state.records,
            }
            if state.coverage is not None:
                values_by_call[call]["call_fields_missing"] = len(state.coverage.missing)
            # A call without a success has no time; 0 would be 1970.
            if runtime.progress.last_success:
                values_by_call[call]["call_last_success_timestamp_seconds"] = runtime.progress.last_success / 1000
        for name in (name for name in METRICS if name.startswith("call_")):
            family = GaugeMetricFamily(f"{PREFIX}_{name}", METRICS[name], labels=["call"])
            for call, values in values_by_call.items():
                if name in values:
                    family.add_metric([call], values[name])
            yield family


class _PrecomputedMetrics(Collector):
    """A collector with precomputed metrics, because `collect` cannot await."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics
