"""The births of an Edge Node and its Devices on one connection, from what is stored when each is made."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

import aiomqtt

from oneweb_bridge.model.records import Row
from oneweb_bridge.sparkplug import content, node_metrics
from oneweb_bridge.sparkplug.content import SourcedMetric
from oneweb_bridge.sparkplug.edge_node import EdgeNode, Reading
from oneweb_bridge.sparkplug.payload import GOOD, STALE
from oneweb_bridge.sparkplug.shared import NodeState, SharedState
from oneweb_bridge.sparkplug.tree import Metric, MetricSpec
from oneweb_bridge.sparkplug.wire import EdgeLink

_log = logging.getLogger("oneweb_bridge.sparkplug")

CHUNK = 50
"""Devices after which the broker's answer, and CHUNK_PAUSE_S, are waited for: a host has to keep up."""
CHUNK_PAUSE_S = 0.05


class Births:
    """Which births were made, and up to which row of the journal each one is."""

    def __init__(
        self,
        shared: SharedState,
        state: NodeState,
        node: EdgeNode,
        wire: EdgeLink,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_interrupted` says whether births of all are due, so that what they will tell is not sent before them."""
        self.born_at = 0.0
        """When the node was born last (monotonic seconds)."""
        self._shared = shared
        self._state = state
        self._node = node
        self._wire = wire
        self._is_interrupted = is_interrupted
        self._rows: dict[str, int] = {}
        """Device ('' for the node) -> the row up to which its birth is."""
        self._versions: dict[str, int] = {}
        """Device -> the version of the fleet of which its last birth or death was made."""
        self._stale: frozenset[str] = frozenset()
        self._unknown: dict[str, dict[tuple[str, str], dict[str, MetricSpec]]] = {}

    # ── what is born ───────────────────────────────────────────────────────────────────────────

    def includes(self, device: str, row: Row) -> bool:
        """Whether the birth of a Device ('' for the node) was made of what was stored after a row."""
        return row.seq <= self._rows.get(device, -1)

    def is_made(self, device: str) -> bool:
        """Whether a birth was made, though it may have been too large to be sent."""
        return device in self._rows

    def unknown_of(self, device: str, report: str, id: str) -> list[MetricSpec]:
        """The metrics of a report's indicators that the tree does not have."""
        return list(self._unknown.get(device, {}).get((report, id), {}).values())

    def note_unknown(self, device: str, report: str, id: str, metrics: list[Metric]) -> None:
        """Has the next births of a Device include indicators that its newest samples may not have."""
        known = self._unknown.setdefault(device, {}).setdefault((report, id), {})
        names = self._node.names(device)
        known.update({metric.spec.name: metric.spec for metric in metrics if metric.spec.name not in names})

    def quality(self, metric: Metric, call: str) -> int | None:
        """What live data say of their quality: that it is good again, where it was not."""
        return GOOD if call in self._stale and metric.value is not None else None

    # ── births ─────────────────────────────────────────────────────────────────────────────────

    async def bear_all(self) -> None:
        """NBIRTH, then a DBIRTH of each Device. Raises MqttError."""
        shared, state = self._shared, self._state
        for device in list(state.dirty):
            del state.dirty[device]
            await shared.free(device)
        self._rows.clear()
        self._versions.clear()
        self._stale = shared.watch.stale_calls
        await self._bear_node()
        for number, device in enumerate(shared.placement.devices_of(state.number), 1):
            await self.sync(device)
            if number % CHUNK == 0:
                await self._pace()
        await self._wire.confirm()

    async def _pace(self) -> None:
        await self._wire.confirm()
        await asyncio.sleep(CHUNK_PAUSE_S)

    async def _bear_node(self) -> None:
        shared, now = self._shared, self._shared.now()
        metrics = node_metrics.bridge_metrics(shared.version, shared.config.instance, shared.started_at)
        watch = shared.watch
        metrics.append(node_metrics.api_metric(is_connected=watch.is_connected, since=watch.changed_at or now))
        if self._state.is_first:
            head, states = await shared.tables.call_states()
            self._rows[""] = head
            metrics.append(node_metrics.backlog_metric(shared.backlog(), now))
            metrics += node_metrics.polling_metrics(states, now)
        metrics = [self._state.since_change(metric) for metric in metrics]
        self._state.note_sent(metrics)
        message = self._node.node_birth(metrics, now, node_metrics.TEXTS)
        problem = self._wire.too_large(message)
        if problem is not None:
            await self._alert_once("", f"Sparkplug: NBIRTH cannot be sent: {problem}")
            raise aiomqtt.MqttError(problem)
        self._state.own_births.append(message.payload)
        self.born_at = time.monotonic()
        self._wire.send(message)

    async def sync_dirty(self) -> None:
        """Tells of the Devices that have other parts than before, those first that lost some. Raises MqttError."""
        dirty = self._state.dirty
        for number, device in enumerate(list(dirty), 1):
            if self._is_interrupted():
                return
            if dirty.pop(device, 0) > self._versions.get(device, -1):
                await self.sync(device)
            if number % CHUNK == 0:
                await self._pace()

    async def sync(self, device: str) -> None:
        """DBIRTH of a Device as it is stored now, or its DDEATH when nothing is left of it. Raises MqttError."""
        metrics, head = await self._read(device)
        if not metrics:
            self._die(device)
            await self._shared.free(device)
            return
        self._warn_of_case(sourced.metric.spec.name for sourced in metrics)
        readings = [Reading(sourced.metric, self._birth_quality(sourced)) for sourced in metrics]
        message = self._node.device_birth(device, readings, self._shared.now())
        self._rows[device] = head
        problem = self._wire.too_large(message)
        if problem is None:
            self._wire.send(message)
        else:
            self._node.take_back(device)
            await self._alert_once(device, f"Sparkplug: the birth of Device {device} cannot be sent: {problem}")

    def _warn_of_case(self, names: Iterable[str]) -> None:
        """Of ids within a Device: those of its products, buckets and components are in the names of its metrics."""
        folded: dict[str, str] = {}
        for name in names:
            self._shared.warn_of_case("metrics", folded.setdefault(name.casefold(), name), name)

    def _die(self, device: str) -> None:
        self._rows.pop(device, None)
        self._unknown.pop(device, None)
        if self._node.has_born(device):
            self._wire.send(self._node.device_death(device, self._shared.now()))

    def _birth_quality(self, sourced: SourcedMetric) -> int | None:
        return STALE if sourced.call in self._stale and sourced.metric.value is not None else None

    async def _alert_once(self, device: str, sentence: str) -> None:
        if device not in self._state.alerted:
            self._state.alerted.add(device)
            await self._shared.callbacks.alert("sparkplug", sentence)

    async def _read(self, device: str) -> tuple[list[SourcedMetric], int]:
        """All metrics of a Device, and the journal's last row when they were read."""
        parts = self._shared.fleet.parts_of(device)
        self._versions[device] = self._shared.fleet_version
        stored = await self._shared.tables.device_content(parts.imei, parts.products, list(parts.buckets))
        unknown = self._unknown.setdefault(device, {})
        for stream, specs in content.find_unknown_indicators(stored).items():
            unknown.setdefault(stream, {}).update(specs)
        online_states = self._shared.config.mapping.online_states
        return content.device_metrics(parts, stored, online_states, self._shared.now(), unknown), stored.head

    # ── quality ────────────────────────────────────────────────────────────────────────────────

    @property
    def has_other_quality(self) -> bool:
        """Whether values have become stale, or good again, since it was told."""
        return self._stale != self._shared.watch.stale_calls

    async def tell_quality(self) -> None:
        """Sends the values that became stale, or are good again, once more with their quality. Raises MqttError."""
        stale = self._shared.watch.stale_calls
        became_stale, became_good = stale - self._stale, self._stale - stale
        self._stale = stale
        for number, device in enumerate(self._node.born_devices(), 1):
            if self._is_interrupted():
                return
            await self._tell_quality_of(device, dict.fromkeys(became_good, GOOD) | dict.fromkeys(became_stale, STALE))
            if number % CHUNK == 0:
                await self._pace()

    async def _tell_quality_of(self, device: str, qualities: dict[str, int]) -> None:
        """With it goes whatever else has changed, because what is behind in the journal counts as told then."""
        metrics, head = await self._read(device)
        if {sourced.metric.spec.name for sourced in metrics} != self._node.names(device):
            await self.sync(device)
            return
        changed = {metric.spec.name for metric in self._node.changed(device, (sourced.metric for sourced in metrics))}
        readings = []
        for sourced in metrics:
            quality = qualities.get(sourced.call) if sourced.metric.value is not None else None
            if quality is not None or sourced.metric.spec.name in changed:
                readings.append(Reading(sourced.metric, quality))
        self._rows[device] = head
        for message in self._node.live(device, readings, self._shared.now()):
            self._wire.send(message)
