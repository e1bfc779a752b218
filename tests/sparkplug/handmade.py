"""Traces made by hand around the pure session: what `EdgeNode` says, as a tap has it.

The story plays broker and host. Wills, births, data, deaths, rebirths and the meaning of STATE come from the edge's own
pure parts, so that a fault in one of them is a fault in the trace.
"""

import contextlib
import json
from collections.abc import Iterable
from typing import Any

from oneweb_bridge.sparkplug import payload
from oneweb_bridge.sparkplug import sparkplug_b_pb2 as pb
from oneweb_bridge.sparkplug.edge_node import EdgeMessage, EdgeNode, NotBorn, Reading
from oneweb_bridge.sparkplug.host import HostState, Rebirths, state_topic
from oneweb_bridge.sparkplug.tree import Metric, MetricSpec, MetricType, MetricValue
from tests.sparkplug.wire import (
    Closed,
    Connack,
    Connect,
    Disconnect,
    Event,
    Note,
    Opened,
    Packet,
    Publish,
    Subscribe,
    Trace,
    Will,
)

MAX_PAYLOAD = 65_536
START = 1_764_000_000.0
TOLERANCE_MS = 600_000
"""How far ahead of the story the time of a host may be."""
SAMPLED = 1_750_167_607_000
"""The source's time of the first values, long before the story."""
CONNECTED = MetricSpec("API/Connected", MetricType.BOOLEAN)
BACKLOG = MetricSpec("Journal/Backlog", MetricType.INT64)
INTERVAL = MetricSpec("Polling/sites/Interval", MetricType.INT64, "s", writable=True)
IMEI = MetricSpec("Status/IMEI", MetricType.STRING)
ONLINE = MetricSpec("Status/Online", MetricType.BOOLEAN)
SEEN = MetricSpec("Status/Last Seen", MetricType.DATETIME)
RSRP = MetricSpec("Signal/RSRP", MetricType.DOUBLE, "dBm")
BYTES = MetricSpec("Traffic/WAN Tx", MetricType.INT64, "B")
JITTER = MetricSpec("Link/Jitter", MetricType.DOUBLE, "ms")


class Story:
    """One Edge Node with its connections, one after the other."""

    def __init__(self, level: int = 5, host: str | None = None) -> None:
        self.events: list[Event] = []
        self._level, self._host = level, host
        self._now, self._connection, self._bd_seq = START, 0, 255
        self._edge = EdgeNode("OneWeb", "oneweb-bridge", 0, MAX_PAYLOAD)
        self._state = HostState()
        self._rebirths = Rebirths(0.0)
        self._devices: dict[str, dict[MetricSpec, Metric]] = {}
        self._node = {spec: Metric(spec, value, self.ms) for spec, value in ((CONNECTED, True), (BACKLOG, 0))}
        self._node[INTERVAL] = Metric(INTERVAL, 300, self.ms)
        self._qualities: dict[str, int] = {}

    @property
    def ms(self) -> int:
        """Now, in ms since the epoch."""
        return round(self._now * 1000)

    def tags(self) -> dict[tuple[str, str], Any]:
        """The values that a host must have."""
        return {
            (device, spec.name): metric.value
            for device, values in {"": self._node, **self._devices}.items()
            for spec, metric in values.items()
        }

    @property
    def trace(self) -> Trace:
        """What a tap would have."""
        return Trace(tuple(self.events), self._host)

    def pass_time(self, seconds: float) -> None:
        """Waits, and gives birth again when that is due meanwhile."""
        self._now += seconds
        if self._rebirths.is_due(self._now):
            self.give_birth()

    def note(self, what: Any, device: str = "", spec: MetricSpec | None = None, value: Any = None) -> None:
        """A note beside the wire."""
        self._add(Note(what, device, spec.name if spec else "", value), connection=0)

    def _add(self, packet: Packet, *, up: bool = True, connection: int | None = None) -> None:
        self._now += 0.001
        self.events.append(Event(self._now, self._connection if connection is None else connection, up, packet))

    def publish(self, message: EdgeMessage) -> None:
        """What the edge sends."""
        self._add(Publish(message.topic, message.payload, message.qos, retain=False))

    def connect(self) -> None:
        """The next connection, with the next bdSeq."""
        self._connection += 1
        self._bd_seq = (self._bd_seq + 1) % 256
        self._edge = EdgeNode("OneWeb", "oneweb-bridge", self._bd_seq, MAX_PAYLOAD)
        self._rebirths = Rebirths(self._now)
        will = self._edge.will()
        self._add(Opened())
        expiry = 0 if self._level == 5 else None
        self._add(
            Connect(self._level, "oneweb-main", True, expiry, Will(will.topic, will.payload, will.qos, retain=False))
        )
        self._add(Connack(0), up=False)
        topics = [self._edge.topics.of("NCMD"), *([state_topic(self._host)] if self._host else [])]
        self._add(Subscribe(tuple((topic, 1) for topic in topics)))

    def give_birth(self) -> None:
        """NBIRTH, and DBIRTH of each Device."""
        self._rebirths = Rebirths(self._now)
        if not self._edge.is_born:
            self.try_data("", BACKLOG)
        self.publish(self._edge.node_birth(list(self._node.values()), self.ms))
        for device in self._devices:
            self.try_data(device)
        for device in self._devices:
            self.try_data(device)
            self.give_device_birth(device)

    def try_data(self, device: str, spec: MetricSpec | None = None) -> None:
        """Data at a time when the edge must refuse it."""
        metric = Metric(spec or RSRP, -1.0, SAMPLED + 5000)
        with contextlib.suppress(NotBorn):
            self._publish_all(self._edge.live(device, [Reading(metric)], self.ms))

    def try_births(self, device: str) -> None:
        """Births and deaths of a Device at a time when the edge must refuse them."""
        with contextlib.suppress(NotBorn):
            self.publish(self._edge.device_birth(device, [], self.ms))
        with contextlib.suppress(NotBorn):
            self.publish(self._edge.device_death(device, self.ms))

    def give_device_birth(self, device: str) -> None:
        """DBIRTH with the current values."""
        readings = [Reading(metric, self._qualities.get(spec.name)) for spec, metric in self._devices[device].items()]
        self.publish(self._edge.device_birth(device, readings, self.ms))

    def add_device(self, device: str) -> None:
        """A Device joins."""
        values: dict[MetricSpec, MetricValue] = {
            IMEI: device,
            ONLINE: True,
            SEEN: SAMPLED - 5000,
            RSRP: -97.5,
            BYTES: (1 << 53) + 1,
            JITTER: None,
        }
        self._devices[device] = {
            spec: Metric(spec, value, SAMPLED - 9000 if value is None else SAMPLED) for spec, value in values.items()
        }
        self.give_device_birth(device)

    def add_metric(self, device: str, spec: MetricSpec, value: Any, ts: int) -> None:
        """A field that no birth has said."""
        metric = Metric(spec, value, ts)
        self.try_data(device, spec)
        if not self._edge.has_metrics(device, [metric]):
            self._devices[device][spec] = metric
            self.give_device_birth(device)
            return
        self.send(device, [metric])

    def remove_device(self, device: str) -> None:
        """A Device leaves."""
        self.note("left", device)
        self._devices.pop(device)
        self.publish(self._edge.device_death(device, self.ms))

    def send(self, device: str, metrics: Iterable[Metric], *, historical: bool = False) -> None:
        """Data, unless a rebirth waits. History is not the current value."""
        sent = list(metrics)
        if not historical:
            for metric in sent:
                self._keep(self._devices[device] if device else self._node, metric)
            for metric in {metric.spec: metric for metric in sent}.values():
                self.note("changed", device, metric.spec, metric.value)
        if not self._rebirths.is_waiting:
            self._publish_all(self._data(device, sent, historical=historical))

    def _keep(self, values: dict[MetricSpec, Metric], metric: Metric) -> None:
        """The current value, whose time does not go back."""
        before = values.get(metric.spec, metric).ts
        values[metric.spec] = Metric(metric.spec, metric.value, max(metric.ts, before))

    def _data(self, device: str, metrics: list[Metric], *, historical: bool) -> list[EdgeMessage]:
        if historical:
            return self._edge.history(device, metrics, self.ms)
        return self._edge.live(device, [Reading(metric) for metric in metrics], self.ms)

    def _publish_all(self, messages: Iterable[EdgeMessage]) -> None:
        for message in messages:
            self.publish(message)

    def go_stale(self, device: str) -> None:
        """Each value once more with the quality STALE, and in births too."""
        known = [metric for metric in self._devices[device].values() if metric.value is not None]
        self._qualities = dict.fromkeys((metric.spec.name for metric in known), payload.STALE)
        self._publish_all(self._edge.live(device, [Reading(metric, payload.STALE) for metric in known], self.ms))

    def write(self, name: str, *, value: int | bool) -> None:
        """A host's NCMD. A rebirth follows when it is due; another write is answered with the value in force."""
        body = pb.Payload(timestamp=self.ms)
        entry = body.metrics.add(name=name, timestamp=self.ms)
        if isinstance(value, bool):
            entry.datatype, entry.boolean_value = MetricType.BOOLEAN, value
        else:
            entry.datatype, entry.long_value = MetricType.INT64, value
        self._add(Publish(self._edge.topics.of("NCMD"), body.SerializeToString(), 0, retain=False), up=False)
        for written in payload.decode_command(body.SerializeToString()):
            spec = self._edge.aliases.spec_of(written)
            if spec is not None and spec.name == "Node Control/Rebirth" and written.value is True:
                self._rebirths = self._rebirths.request(self._now)
            elif spec is not None and spec.writable:
                self.send("", [Metric(spec, written.value, self.ms)])

    def say_state(self, *, online: bool, timestamp: int) -> None:
        """The primary host's STATE, and what the edge makes of it."""
        assert self._host
        body = json.dumps({"online": online, "timestamp": timestamp}).encode()
        self._add(Publish(state_topic(self._host), body, 1, retain=True), up=False)
        self._state, change = self._state.after(body, self.ms, TOLERANCE_MS)
        if change == "online":
            self.give_birth()
        elif change == "offline":
            self.end()
            self.connect()

    def end(self) -> None:
        """An end in order."""
        self.publish(self._edge.death())
        self._add(Disconnect(4 if self._level == 5 else 0))
        self._add(Closed())

    def lose(self, *, killed: bool = False) -> None:
        """The connection is gone without a word; a killed bridge forgets its host."""
        if killed:
            self.note("kill")
            self._state = HostState()
        self._add(Closed())


SINGLE, TWO = "359235170006117", "359235170006118"


def tell(level: int = 5, samples: int = 3, connects: int = 2) -> Trace:
    """The whole story as a tap would have it."""
    return tell_story(level, samples, connects).trace


def tell_story(level: int = 5, samples: int = 3, connects: int = 2) -> Story:
    """Start, data, a new field, history, rebirths, writes, a Device that leaves, samples, a kill, connects, a stop."""
    story = Story(level)
    story.connect()
    story.try_births(SINGLE)
    story.give_birth()
    story.try_data(SINGLE)
    story.add_device(SINGLE)
    story.add_device(TWO)
    story.send(SINGLE, [Metric(BYTES, (1 << 53) + 3, SAMPLED + 1000), Metric(RSRP, -98.0, SAMPLED + 900)])
    story.send(SINGLE, [Metric(BYTES, 9, SAMPLED + 10)])
    story.send(SINGLE, [Metric(RSRP, value, SAMPLED + 500 - value) for value in (1, 2)], historical=True)
    story.send(SINGLE, [Metric(JITTER, 1.5, SAMPLED + 2000)])
    story.add_metric(SINGLE, MetricSpec("Signal/New", MetricType.DOUBLE, "dB"), 1.25, SAMPLED + 2500)
    story.send(SINGLE, [Metric(JITTER, None, SAMPLED + 2600), Metric(JITTER, 2.5, SAMPLED + 2700)])
    story.send(SINGLE, [Metric(JITTER, None, SAMPLED + 2800)])
    story.send(SINGLE, [Metric(JITTER, None, SAMPLED + 2900), Metric(SEEN, SAMPLED + 2900, SAMPLED + 2900)])
    story.pass_time(6.0)
    story.write("Node Control/Rebirth", value=True)
    story.pass_time(0.1)
    story.write("Node Control/Rebirth", value=True)
    story.pass_time(2.0)
    story.send("", [Metric(BACKLOG, 3, story.ms)])
    story.pass_time(4.0)
    story.write("Polling/sites/Interval", value=60)
    story.write("Polling/sites/Interval", value=60)
    story.send("", [Metric(BACKLOG, 5, story.ms)])
    story.remove_device(TWO)
    for number in range(samples):
        story.send(SINGLE, [Metric(RSRP, -90.0 + number, SAMPLED + 3000 + number)])
    story.lose(killed=True)
    for _ in range(connects):
        story.connect()
        story.give_birth()
        story.lose()
    story.connect()
    story.give_birth()
    story.go_stale(SINGLE)
    story.note("stop")
    story.end()
    return story


def tell_of_host(level: int = 5) -> Trace:
    """A primary host that is offline, then online, then says old things, goes, and comes back."""
    story = Story(level, "scada")
    story.connect()
    story.say_state(online=False, timestamp=1000)
    story.say_state(online=True, timestamp=500)
    story.say_state(online=True, timestamp=1000)
    story.add_device(SINGLE)
    story.say_state(online=True, timestamp=900)
    story.say_state(online=False, timestamp=900)
    story.say_state(online=True, timestamp=1800)
    story.say_state(online=False, timestamp=1700)
    story.send(SINGLE, [Metric(RSRP, -98.0, SAMPLED + 1000)])
    story.say_state(online=False, timestamp=2000)
    story.say_state(online=False, timestamp=2000)
    story.say_state(online=True, timestamp=1500)
    story.say_state(online=True, timestamp=3000)
    story.send(SINGLE, [Metric(RSRP, -99.0, SAMPLED + 2000)])
    story.note("stop")
    story.end()
    return story.trace
