"""Rows of the journal to data of one Edge Node, in pieces that the broker's answer follows: the backlog, then live."""

import msgspec

from oneweb_bridge.model.records import Row
from oneweb_bridge.polling.samples import PRESENCE
from oneweb_bridge.sparkplug import content, node_metrics
from oneweb_bridge.sparkplug.backlog import Backlog
from oneweb_bridge.sparkplug.births import Births
from oneweb_bridge.sparkplug.content import RowMetrics
from oneweb_bridge.sparkplug.edge_node import EdgeNode, Reading
from oneweb_bridge.sparkplug.shared import NodeState, SharedState
from oneweb_bridge.sparkplug.tree import Metric
from oneweb_bridge.sparkplug.wire import EdgeLink

PAGE_ROWS = 2000
"""Rows after which the broker's answer is waited for."""
_SAMPLES = ("metric", "history")


class _DeviceData(msgspec.Struct):
    """What a page has of one Device ('' for the node)."""

    history: list[Metric] = []
    live: list[Reading] = []


class RowReader:
    """Reads on from where an Edge Node is."""

    def __init__(self, shared: SharedState, state: NodeState, node: EdgeNode, births: Births, wire: EdgeLink) -> None:
        self._shared = shared
        self._state = state
        self._node = node
        self._births = births
        self._wire = wire
        self._backlog = Backlog(shared, state)
        self._pending: dict[str, _DeviceData] = {}

    @property
    def has_more(self) -> bool:
        """Whether there are rows that were not sent."""
        return bool(self._state.waiting) or self._state.read_through < self._shared.through

    def begin(self, through: int) -> None:
        """All births were made after the row `through`: what was not sent up to there is the backlog."""
        self._backlog.begin(through)

    async def send_next(self) -> None:
        """Sends the next rows, and moves the cursor when the broker has read them. Raises MqttError."""
        if self._state.waiting:
            await self._send_backlog()
        else:
            await self._send_page()
        await self._shared.note_cursor(self._state)

    async def _send_backlog(self) -> None:
        piece = await self._backlog.read(PAGE_ROWS)
        for row in piece.rows:
            if row.what in _SAMPLES:
                await self._take(row, is_past=True)
        self._flush()
        await self._wire.confirm()
        self._backlog.note_sent(piece.ended)

    async def _send_page(self) -> None:
        state, through = self._state, self._shared.through
        state.taken_through = through
        rows = await self._shared.tables.rows_between(state.read_through, through, PAGE_ROWS)
        for row in rows:
            await self._take(row)
        self._flush()
        await self._wire.confirm()
        state.read_through = rows[-1].seq if len(rows) == PAGE_ROWS else through

    async def _take(self, row: Row, *, is_past: bool = False) -> None:
        """Makes what a row says ready to be sent; `is_past`: as history, because the birth has what is newest."""
        if row.entity == "call":
            self._take_call(row)
            return
        fleet = self._shared.fleet
        device = fleet.device_of(row)
        if device is None or self._shared.placement.number_of(device) != self._state.number:
            return
        is_placed = row.entity == "product" and fleet.is_placed(row.id)
        update = content.row_metrics(row, self._shared.config.mapping.online_states, is_placed=is_placed)
        if update is None or (update.kind == "record" and self._births.includes(device, row)):
            return
        await self._make_complete(device, row, update)
        if not self._node.has_born(device) or not self._node.has_metrics(device, update.metrics):
            # Too large for the broker, or of something that was removed since, as the database knows already.
            return
        is_live = not is_past and not self._births.includes(device, row)
        if update.kind == "sample" and update.report != PRESENCE:
            is_live = is_live and not self._node.has_later(device, update.metrics)
        if update.kind == "history" or (update.kind == "sample" and not is_live):
            self._data(device).history += [metric for metric in update.metrics if metric.value is not None]
        elif is_live:
            self._add_live(device, row, update)

    async def _make_complete(self, device: str, row: Row, update: RowMetrics) -> None:
        """Has a new birth of a Device whose last one lacks what a row says."""
        if self._node.has_born(device) and content.is_complete(update, self._node.names(device)):
            return
        if self._births.is_made(device) and not self._node.has_born(device):
            # Its birth is too large for the broker, which is alerted.
            return
        if update.kind != "record":
            self._births.note_unknown(device, update.report, row.id, update.metrics)
        self._flush()
        await self._births.sync(device)

    def _add_live(self, device: str, row: Row, update: RowMetrics) -> None:
        last_seen = self._node.last_value(device, content.LAST_SEEN)
        if update.kind == "sample":
            metrics = content.live_sample(update, last_seen)
            missing = content.missing_indicators(update, self._births.unknown_of(device, update.report, row.id))
            if missing:
                self._flush_live(device)
                metrics = metrics + self._node.changed(device, missing)
        else:
            self._flush_live(device)
            metrics = content.without_older_presence(update.metrics, last_seen)
            metrics = self._node.changed(device, metrics + content.gone_metrics(update, self._node.names(device)))
        self._data(device).live += [Reading(metric, self._births.quality(metric, update.call)) for metric in metrics]

    def _take_call(self, row: Row) -> None:
        if self._state.is_first and not self._births.includes("", row):
            self._flush_live("")
            metrics = self._node.changed("", node_metrics.row_metrics(row))
            self._state.note_sent(metrics)
            self._data("").live += [Reading(metric) for metric in metrics]

    def _data(self, device: str) -> _DeviceData:
        return self._pending.setdefault(device, _DeviceData())

    def _flush_live(self, device: str) -> None:
        """Sends what waits of a Device, so that what was sent last is known."""
        if device in self._pending:
            self._send(device, self._pending.pop(device))

    def _flush(self) -> None:
        pending, self._pending = self._pending, {}
        for device, data in pending.items():
            self._send(device, data)

    def _send(self, device: str, data: _DeviceData) -> None:
        now = self._shared.now()
        messages = self._node.history(device, data.history, now) if data.history else []
        messages += self._node.live(device, data.live, now) if data.live else []
        for message in messages:
            self._wire.send(message)
