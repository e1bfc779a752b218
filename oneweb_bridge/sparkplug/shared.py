"""What the Edge Nodes of one bridge share, and what is kept of each over its connections."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from oneweb_bridge.clock import Clock
from oneweb_bridge.config.schema import Config, Mqtt
from oneweb_bridge.model.status import Result
from oneweb_bridge.sparkplug.api_watch import ApiWatch
from oneweb_bridge.sparkplug.fleet import Fleet
from oneweb_bridge.sparkplug.host import HostState
from oneweb_bridge.sparkplug.placement import Placement
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
        self._alerted_at = -math.inf

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

    def backlog(self) -> int:
        """How many rows wait for the Edge Node that is furthest behind."""
        return max((self.through - node.cursor for node in self.nodes.values()), default=0)

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
        """The row up to which everything was sent, and the broker has answered something sent after it."""
        self.wake = asyncio.Event()
        self.dirty: dict[str, int] = {}
        """Devices whose parts have changed, in the order in which they must be told -> the version of the fleet."""
        self.reread_from: int | None = None
        """A row after which rows are to be read once more, because another Edge Node had not sent them."""
        self.alerted: set[str] = set()
        """Devices ('' for the node) whose birth is alerted as too large."""
        self.host = HostState()
        self.own_births: deque[bytes] = deque(maxlen=16)
        """The births of the node that this process has sent."""

    @property
    def is_first(self) -> bool:
        """Whether it is the one that speaks for the bridge: journal, polling, writes."""
        return self.number == 1


def edge_node_name(base: str, number: int) -> str:
    """The id of an Edge Node by its number."""
    return base if number == 1 else f"{base}-{number}"
