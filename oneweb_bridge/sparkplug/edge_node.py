"""One Edge Node's session: which message it sends next, with which `seq` and which aliases. Pure.

A session lasts as long as its connection. `seq` counts all its messages, of the node and of its Devices, from 0 at
each NBIRTH; `bdSeq` is one for the connection, and stands in its will and in each of its births.
Source: Sparkplug 3.0.0, chapters 5.4 to 5.11, 6.4.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from oneweb_bridge.mqtt.topics import SPARKPLUG_NAMESPACE
from oneweb_bridge.sparkplug import payload
from oneweb_bridge.sparkplug.payload import Aliased
from oneweb_bridge.sparkplug.tree import Metric, MetricSpec, MetricType, MetricValue

BD_SEQ = MetricSpec("bdSeq", MetricType.INT64)
REBIRTH = MetricSpec("Node Control/Rebirth", MetricType.BOOLEAN, writable=True)
WITHOUT_ALIAS = (BD_SEQ.name, REBIRTH.name)
"""Hosts ask for these two by name before they know any alias."""

_NONE: Mapping[str, Any] = MappingProxyType({})


class NotBorn(Exception):
    """A Device, or a metric of it, is not in its last birth, and nothing may be sent of it before it is."""


class EdgeMessage(msgspec.Struct, frozen=True, gc=False):
    """What goes to the broker: births and data with QoS 0, deaths of the node with QoS 1; never retained."""

    topic: str
    payload: bytes
    qos: int = 0


class Reading(msgspec.Struct, frozen=True, gc=False):
    """A metric to send, with its quality where that has to be said."""

    metric: Metric
    quality: int | None = None


class _Sent(msgspec.Struct, frozen=True, gc=False):
    """The live value of a metric that was sent last, and the latest time that was sent with a value."""

    value: MetricValue
    ts: int


MAX_METRICS = 500
"""Metrics of one DDATA."""


def _sent(metric: Metric, before: _Sent | None) -> _Sent:
    last = 0 if before is None else before.ts
    return _Sent(metric.value, last if metric.value is None else max(metric.ts, last))


def _by_time(readings: Iterable[Reading], ts: int) -> list[Reading]:
    """The order of metrics in a payload. Source: operational-behavior-data-publish-nbirth-order, -dbirth-order."""
    return sorted(readings, key=lambda reading: ts if reading.metric.value is None else reading.metric.ts)


def _without_passed_nulls(readings: Iterable[Reading]) -> list[Reading]:
    """Without a null that a later reading of its metric has replaced: it would have the payload's time, and win."""
    given = list(readings)
    newest = {reading.metric.spec.name: number for number, reading in enumerate(given)}
    return [
        reading
        for number, reading in enumerate(given)
        if reading.metric.value is not None or newest[reading.metric.spec.name] == number
    ]


class Topics(msgspec.Struct, frozen=True):
    """The topics of one Edge Node."""

    group_id: str
    edge_node_id: str

    def of(self, verb: str, device: str = "") -> str:
        """The topic of a verb; without a Device that of the node."""
        levels = (SPARKPLUG_NAMESPACE, self.group_id, verb, self.edge_node_id, *((device,) if device else ()))
        return "/".join(levels)


class Aliases:
    """The aliases of one session, from 1; they stay over its rebirths."""

    def __init__(self) -> None:
        self._next = 1
        self._of: dict[str, dict[str, int]] = {}
        """Device ('' for the node) -> name -> alias."""
        self._node_specs: dict[int, MetricSpec] = {}
        """Nobody may write the metrics of Devices, so only the node's are known by alias."""

    def of(self, device: str, spec: MetricSpec) -> int | None:
        """The alias of a metric, a new one where it has none; None for the two that never have one."""
        if not device and spec.name in WITHOUT_ALIAS:
            return None
        aliases = self._of.setdefault(device, {})
        alias = aliases.get(spec.name)
        if alias is None:
            alias = aliases[spec.name] = self._next
            self._next += 1
            if not device:
                self._node_specs[alias] = spec
        return alias

    def spec_of(self, written: payload.Written) -> MetricSpec | None:
        """The node's metric that an NCMD names, by alias or by name; None of any other."""
        if written.name == REBIRTH.name:
            return REBIRTH
        alias = self._of.get("", {}).get(written.name) if written.name else written.alias
        return None if alias is None else self._node_specs.get(alias)


class EdgeNode:
    """The messages of one connection of one Edge Node, in the order in which they must be sent."""

    def __init__(self, group_id: str, edge_node_id: str, bd_seq: int, max_payload: int) -> None:
        """`max_payload` bounds data in bytes; a birth is one message, however large."""
        self.topics = Topics(group_id, edge_node_id)
        self.aliases = Aliases()
        self._bd_seq = bd_seq
        self._max_payload = max_payload
        self._seq = 0
        self._born: dict[str, dict[str, _Sent]] = {}
        """Device ('' for the node) -> the metrics of its last birth, with what was sent live last."""

    def limit_payload(self, size: int) -> None:
        """Data have at most `size` bytes from now on: the broker takes no more."""
        self._max_payload = min(self._max_payload, size)

    # ── will and death ─────────────────────────────────────────────────────────────────────────

    def will(self) -> EdgeMessage:
        """What the broker sends when the connection breaks."""
        return EdgeMessage(self.topics.of("NDEATH"), payload.encode_node_death(self._bd_seq), qos=1)

    def death(self) -> EdgeMessage:
        """The last message of a session that ends in order: what the will says. Nothing is born afterwards."""
        self._born.clear()
        return self.will()

    # ── what is born ───────────────────────────────────────────────────────────────────────────

    @property
    def is_born(self) -> bool:
        """Whether the node's own birth has been made in this session, after the last death."""
        return "" in self._born

    def has_born(self, device: str) -> bool:
        """Whether a Device is in a birth since the node's last one."""
        return device in self._born

    def born_devices(self) -> list[str]:
        """The Devices that are born."""
        return [device for device in self._born if device]

    def names(self, device: str) -> frozenset[str]:
        """The metrics in the last birth of a Device."""
        return frozenset(self._born.get(device, ()))

    def has_metrics(self, device: str, metrics: Iterable[Metric]) -> bool:
        """Whether all these metrics are in the last birth of a Device."""
        born = self._born.get(device, {})
        return all(metric.spec.name in born for metric in metrics)

    def last_value(self, device: str, name: str) -> MetricValue:
        """The live value that was sent last; None for null, and for what is not born."""
        sent = self._born.get(device, {}).get(name)
        return None if sent is None else sent.value

    def has_later(self, device: str, metrics: Iterable[Metric]) -> bool:
        """Whether a value of a later time was sent live of one of these metrics."""
        born = self._born.get(device, {})
        return any((sent := born.get(metric.spec.name)) is not None and sent.ts > metric.ts for metric in metrics)

    def changed(self, device: str, metrics: Iterable[Metric]) -> list[Metric]:
        """Those of the metrics whose live value is another one than was sent last."""
        return [metric for metric in metrics if self.last_value(device, metric.spec.name) != metric.value]

    # ── births ─────────────────────────────────────────────────────────────────────────────────

    def node_birth(self, metrics: Sequence[Metric], ts: int, texts: Mapping[str, str] | None = None) -> EdgeMessage:
        """NBIRTH with seq 0. All Devices have to be born again after it."""
        self._born.clear()
        self._seq = 0
        control = (Metric(BD_SEQ, self._bd_seq, ts), Metric(REBIRTH, value=False, ts=ts))
        readings = [Reading(metric) for metric in (*control, *metrics)]
        return self._birth("NBIRTH", "", readings, ts, texts or _NONE)

    def device_birth(self, device: str, readings: Sequence[Reading], ts: int) -> EdgeMessage:
        """DBIRTH with all metrics that the Device may report. Raises NotBorn before the node's own birth."""
        if not self.is_born:
            raise NotBorn(self.topics.edge_node_id)
        return self._birth("DBIRTH", device, readings, ts, _NONE)

    def _birth(
        self, verb: str, device: str, readings: Sequence[Reading], ts: int, texts: Mapping[str, str]
    ) -> EdgeMessage:
        aliased = [
            Aliased(reading.metric, self.aliases.of(device, reading.metric.spec), quality=reading.quality)
            for reading in _by_time(readings, ts)
        ]
        self._born[device] = {reading.metric.spec.name: _sent(reading.metric, None) for reading in readings}
        return self._message(verb, device, payload.encode_birth(aliased, ts, texts))

    def take_back(self, device: str) -> None:
        """The birth that was made last, of this Device, is not sent: its seq is free again."""
        self._born.pop(device, None)
        self._seq = (self._seq - 1) % 256

    def device_death(self, device: str, ts: int) -> EdgeMessage:
        """DDEATH. Raises NotBorn for a Device that is not born."""
        if self._born.pop(device, None) is None:
            raise NotBorn(device)
        return self._message("DDEATH", device, payload.encode_device_death(ts))

    # ── data ───────────────────────────────────────────────────────────────────────────────────

    def live(self, device: str, readings: Iterable[Reading], ts: int) -> list[EdgeMessage]:
        """NDATA (device '') or DDATA of live values, oldest first. Raises NotBorn for what no birth has said.

        The time of a metric never goes back: one that is older has the time that was sent before. A null goes out
        when the value before was none.
        """
        born = self._born_metrics(device)
        timed = []
        for reading in _by_time(_without_passed_nulls(readings), ts):
            metric = reading.metric
            sent = born.get(metric.spec.name)
            if sent is None:
                raise NotBorn(device)
            if metric.value is None and sent.value is None and reading.quality is None:
                continue
            born[metric.spec.name] = sent = _sent(metric, sent)
            timed.append(Reading(msgspec.structs.replace(metric, ts=sent.ts), reading.quality))
        ordered = [(reading.metric, reading.quality) for reading in _by_time(timed, ts)]
        return self._data(device, ordered, ts, historical=False)

    def history(self, device: str, metrics: Iterable[Metric], ts: int) -> list[EdgeMessage]:
        """DDATA of historical values, oldest first. Raises NotBorn for what no birth has said."""
        self._born_metrics(device)
        ordered = sorted(metrics, key=lambda metric: metric.ts)
        return self._data(device, [(metric, None) for metric in ordered], ts, historical=True)

    def _born_metrics(self, device: str) -> dict[str, _Sent]:
        born = self._born.get(device)
        if born is None:
            raise NotBorn(device)
        return born

    def _data(
        self, device: str, metrics: Sequence[tuple[Metric, int | None]], ts: int, *, historical: bool
    ) -> list[EdgeMessage]:
        born = self._born_metrics(device)
        if any(metric.spec.name not in born for metric, _ in metrics):
            raise NotBorn(device)
        aliased = [
            Aliased(metric, self.aliases.of(device, metric.spec), historical, quality) for metric, quality in metrics
        ]
        verb = "DDATA" if device else "NDATA"
        return [self._message(verb, device, body) for body in self._bodies(aliased, ts)]

    def _bodies(self, aliased: Sequence[Aliased], ts: int) -> Iterator[bytes]:
        """Payloads of at most MAX_METRICS and `max_payload`; a single metric is sent, however large."""
        if len(aliased) > MAX_METRICS:
            for start in range(0, len(aliased), MAX_METRICS):
                yield from self._bodies(aliased[start : start + MAX_METRICS], ts)
            return
        body = payload.encode_data(aliased, ts) if aliased else b""
        if len(body) > self._max_payload and len(aliased) > 1:
            half = len(aliased) // 2
            yield from self._bodies(aliased[:half], ts)
            yield from self._bodies(aliased[half:], ts)
        elif aliased:
            yield body

    def _message(self, verb: str, device: str, body: bytes) -> EdgeMessage:
        seq, self._seq = self._seq, (self._seq + 1) % 256
        return EdgeMessage(self.topics.of(verb, device), payload.with_seq(body, seq))
