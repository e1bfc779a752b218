"""What the Edge Nodes of one bridge share, and what is kept of each over its connections."""

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from oneweb_bridge.clock import Clock
from oneweb_bridge.config.schema import Config, Mqtt
from oneweb_bridge.model.status import Result
from oneweb_bridge.sparkplug.api_watch import ApiWatch
from oneweb_bridge.sparkplug.fleet import Fleet
from oneweb_bridge.sparkplug.host import HostState
from oneweb_bridge.sparkplug.placement import Placement
from oneweb_bridge.sparkplug.tree import Metric
from oneweb_bridge.store.edge_tables import EdgeTables

_log = logging.getLogger("oneweb_bridge.sparkplug")
ALERT_INTERVAL_S = 1.0
OnResult = Callable[[Result], None]


class EdgeCallbacks(msgspec.Struct, frozen=True, kw_only=True):
    """What the outlet is handed.

    `submit` gives a command to the executor, with the address of its topic, and returns why there is no room for it;
    `is_api_connected` and `poll_successes` (in steady ms, by call) say how the API is.
    """

    config: Callable[[], Config]
    alert: Callable[[str, str], Awaitable[None]]
    submit: Callable[[str, bytes, OnResult], str | None]
    is_api_connected: Callable[[], bool]
    poll_successes: Callable[[], dict[str, int]]


class SharedState:
    """Brought forward by the outlet, read by the Edge Nodes."""

    def __init__(
        self, tables: EdgeTables, callbacks: EdgeCallbacks, clock: Clock, *, version: str, watch: ApiWatch
    ) -> None:
        self.tables = tables
        self.callbacks = callbacks
        self.version = version
        self._clock = clock
        self.started_at = self.now()
        self.watch = watch
        self.fleet = Fleet()
        self.fleet_version = 0
        """Grows with each change of the fleet."""
        self.placement = Placement({}, 1)
        self.through = 0
        """The journal's row up to which `fleet` is brought forward; no Edge Node reads beyond it."""
        self.nodes: dict[int, NodeState] = {}
        self.move_counts: Counter[str] = Counter()
        """Device -> how often something has moved to it or from it."""
        self._moves: dict[str, int] = {}
        """Device to which something may have moved -> the row up to which that was sent, until `hand_over`."""
        self._alerted_at = -math.inf
        self._has_warned_of_case = False

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.callbacks.config()

    @property
    def mqtt(self) -> Mqtt:
        """The broker of the Edge Nodes."""
        return self.config.sparkplug.mqtt or self.config.mqtt

    def now(self) -> int:
        """The time of payloads, in ms since the epoch."""
        return self._clock.now()

    async def refuse(self, sentence: str) -> None:
        """Alerts what cannot be obeyed; of more than one in ALERT_INTERVAL_S only the first, the others are logged."""
        now = time.monotonic()
        if now - self._alerted_at >= ALERT_INTERVAL_S:
            self._alerted_at = now
            await self.callbacks.alert("sparkplug", sentence)
        else:
            _log.warning("%s", sentence)

    def warn_of_case(self, what: str, name: str, other: str) -> None:
        """Warns once, the first time that two names are not the same, though they are when case does not count."""
        if name != other and not self._has_warned_of_case:
            self._has_warned_of_case = True
            _log.warning("Sparkplug: the %s %s and %s differ in case only, which some hosts mix up", what, name, other)

    def backlog(self) -> int:
        """How many rows wait for the Edge Node that is furthest behind."""
        return self.through - min((node.sent_through for node in self.nodes.values()), default=self.through)

    async def note_cursor(self, node: "NodeState") -> None:
        """Notes on the disk up to which row an Edge Node has sent everything.

        The cursor stays behind the slowest Edge Node: a product may have moved here with rows that the other has not
        sent, and after a crash nothing but the cursors says so.
        """
        cursor = min((*(each.sent_through for each in self.nodes.values()), *self._moves.values()))
        if cursor > node.cursor:
            node.cursor = cursor
            await self.tables.advance(node.number, cursor)

    def note_moves(self, changes: Iterable[Sequence[str]]) -> None:
        """Notes that something moved between the Devices of each change, for `hand_over` when all have an Edge Node.

        It must be called before any Edge Node reads on: from now on what moved is not sent where it was.
        """
        for devices in changes:
            self.note_move(devices, min(self._sent_through(device) for device in devices))

    def note_move(self, devices: Sequence[str], sent_through: int) -> None:
        """Notes that Devices have something that was sent up to a row only."""
        self.move_counts.update(devices)
        for device in devices:
            self._moves[device] = min(sent_through, self._moves.get(device, sent_through))

    def hand_over(self) -> None:
        """Has Devices of which more was sent than of what they have now send the rows between as history."""
        for device, lowest in self._moves.items():
            node = self._node_of(device)
            if node is not None and node.waiting.get(device, node.taken_through) > lowest:
                node.waiting[device] = lowest
        self._moves.clear()

    def _sent_through(self, device: str) -> int:
        node = self._node_of(device)
        sent = self.through if node is None else node.sent_through_of(device)
        return min(sent, self._moves.get(device, sent))

    def _node_of(self, device: str) -> "NodeState | None":
        return self.nodes.get(self.placement.number_of(device) or 0)

    async def free(self, device: str) -> None:
        """Frees the place of a Device that is dead, unless it has come back."""
        if not self.fleet.has(device) and self.placement.number_of(device) is not None:
            self.placement.free(device)
            await self.tables.free_device(device)

    def wake_all(self) -> None:
        """Has all Edge Nodes look for work."""
        for node in self.nodes.values():
            node.wake.set()


class NodeState:
    """What is kept of an Edge Node over its connections."""

    def __init__(self, number: int, edge_node_id: str, cursor: int) -> None:
        self.number = number
        self.edge_node_id = edge_node_id
        self.cursor = cursor
        """Up to which row everything was sent, as it is noted on the disk."""
        self.read_through = cursor
        """The row up to which rows were sent, and the broker has answered something sent after them, or `waiting`."""
        self.taken_through = cursor
        """The row up to which rows were taken from the journal to be sent, whether or not they were answered."""
        self.waiting: dict[str, int] = {}
        """Device -> the row after which its samples up to `read_through` are still to be sent, as history."""
        self.wake = asyncio.Event()
        self.dirty: dict[str, int] = {}
        """Devices whose parts have changed, in the order in which they must be told -> the version of the fleet."""
        self.alerted: set[str] = set()
        """Devices ('' for the node) whose birth is alerted as too large."""
        self.host = HostState()
        self._sent: dict[str, Metric] = {}
        """The node's own metrics as they were sent last."""
        self.own_births: deque[bytes] = deque(maxlen=16)
        """The births of the node that this process has sent."""

    @property
    def sent_through(self) -> int:
        """The row up to which everything was sent."""
        return min((self.read_through, *self.waiting.values()))

    def sent_through_of(self, device: str) -> int:
        """The row up to which everything of a Device was sent."""
        return self.waiting.get(device, self.read_through)

    def note_sent(self, metrics: Iterable[Metric]) -> None:
        """Remembers metrics of the node itself, because a birth says when they changed."""
        self._sent |= {metric.spec.name: metric for metric in metrics}

    def last_sent(self, name: str) -> Metric | None:
        """A metric of the node itself as it was sent last."""
        return self._sent.get(name)

    def since_change(self, metric: Metric) -> Metric:
        """A metric of the node itself as it was sent last, unless it has another value now; its time is no earlier."""
        before = self._sent.get(metric.spec.name)
        if before is None:
            return metric
        return before if before.value == metric.value else msgspec.structs.replace(metric, ts=max(metric.ts, before.ts))

    @property
    def is_first(self) -> bool:
        """Whether it is the one that speaks for the bridge: journal, polling, writes."""
        return self.number == 1


def edge_node_name(base: str, number: int) -> str:
    """The id of an Edge Node by its number."""
    return base if number == 1 else f"{base}-{number}"
