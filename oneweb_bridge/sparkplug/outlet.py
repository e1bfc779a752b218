"""The Sparkplug outlet: which Devices there are, on which Edge Node each is, and a connection for each Edge Node.

It reads the journal first and keeps the fleet up to date; the Edge Nodes read behind it, each with a cursor of its own.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence

from oneweb_bridge.clock import Clock
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.sparkplug.api_watch import ApiWatch
from oneweb_bridge.sparkplug.fleet import Fleet
from oneweb_bridge.sparkplug.node import EdgeNodeRunner
from oneweb_bridge.sparkplug.placement import Placement
from oneweb_bridge.sparkplug.shared import EdgeCallbacks, NodeState, SharedState, edge_node_name
from oneweb_bridge.store.edge_tables import EdgeTables, open_edge_tables, output_name
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.growth import JournalGrowth
from oneweb_bridge.store.places import Place

_log = logging.getLogger("oneweb_bridge.sparkplug")

PAGE_ROWS = 1000
LOOK_INTERVAL_S = 0.5
"""Seconds between two looks at how the API is."""
RETRY_S = 1.0
"""Seconds until the database is read again where it could not be."""


@contextlib.asynccontextmanager
async def open_outlet(
    place: Place, growth: JournalGrowth, callbacks: EdgeCallbacks, clock: Clock, version: str
) -> AsyncIterator["Outlet"]:
    """The outlet of the state in `place`. Raises StoreError."""
    async with open_edge_tables(place) as tables:
        yield Outlet(tables, growth, callbacks, clock, version=version, numbers=await tables.numbers())


class Outlet:
    """Made by `open_outlet`."""

    def __init__(
        self,
        tables: EdgeTables,
        growth: JournalGrowth,
        callbacks: EdgeCallbacks,
        clock: Clock,
        *,
        version: str,
        numbers: Iterable[int] = (),
    ) -> None:
        """`numbers` are those of the Edge Nodes that there are."""
        self._tables = tables
        self._numbers = {1, *numbers}
        self._growth = growth
        watch = ApiWatch(CALLS, time.monotonic())
        self._shared = SharedState(tables, callbacks, clock, version=version, watch=watch)
        self._group: asyncio.TaskGroup
        self._changed: dict[str, None] = {}
        """Devices whose parts have changed, until they have an Edge Node that is told."""
        self._folded_ids: dict[str, str] = {}

    def outputs(self) -> tuple[str, ...]:
        """The names of the cursors that hold rows of the journal."""
        return tuple(output_name(number) for number in self._shared.nodes or self._numbers)

    async def run(self) -> None:
        """Keeps the Edge Nodes connected until it is cancelled."""
        with self._growth.subscribe() as journal_grew:
            async with asyncio.TaskGroup() as self._group:
                await self._load()
                self._group.create_task(self._watch_api(), name="sparkplug api")
                await self._follow(journal_grew)

    async def _load(self) -> None:
        """Reads which Devices there are, and where they are. Those that are new are placed with the next rows."""
        shared = self._shared
        ids = await self._tables.fleet_ids()
        shared.fleet = Fleet(ids.terminals, ids.products, ids.buckets)
        shared.placement = Placement(await self._tables.devices(), shared.config.sparkplug.devices_per_edge_node)
        shared.through = ids.head
        for device in shared.placement.devices():
            await shared.free(device)
        for number in sorted({1, *(shared.placement.number_of(device) or 1 for device in shared.placement.devices())}):
            await self._add_node(number, ids.head)
        # What has moved between Edge Nodes before a crash is behind the cursor of one of them, and nobody knows which.
        nodes = list(shared.nodes.values())
        lowest = min(node.cursor for node in nodes)
        for node in nodes:
            node.read_through = node.taken_through = lowest
        self._warn_of_case(shared.placement.devices())
        devices = [device for device in shared.fleet.devices() if shared.placement.number_of(device) is None]
        self._changed |= dict.fromkeys(devices)
        shared.note_move(devices, lowest)
        for node in nodes:
            self._connect(node)

    async def _follow(self, journal_grew: asyncio.Event) -> None:
        while True:
            journal_grew.clear()
            try:
                while await self._read_page():
                    pass
            except StoreUnavailable as error:
                _log.warning("the journal could not be read: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            await journal_grew.wait()

    async def _read_page(self) -> bool:
        """Brings the fleet up to date with the next rows. Returns whether there may be more."""
        shared = self._shared
        head = await self._tables.head()
        rows = await self._tables.rows_between(shared.through, head, PAGE_ROWS)
        before = shared.through
        changes = [devices for row in rows if (devices := shared.fleet.apply(row))]
        shared.note_moves(changes)
        shared.fleet_version += 1
        self._changed |= dict.fromkeys(device for devices in changes for device in devices)
        await self._place([device for device in self._changed if shared.fleet.has(device)], before)
        self._mark_dirty(self._changed)
        shared.hand_over()
        shared.through = rows[-1].seq if len(rows) == PAGE_ROWS else max(head, before)
        if shared.through > before or self._changed:
            shared.wake_all()
        self._changed.clear()
        return shared.through < head

    def _mark_dirty(self, devices: Iterable[str]) -> None:
        for device in devices:
            number = self._shared.placement.number_of(device)
            if number in self._shared.nodes:
                self._shared.nodes[number].dirty[device] = self._shared.fleet_version

    async def _place(self, devices: Sequence[str], cursor: int) -> None:
        """Gives Devices that have none an Edge Node, noted on the disk; starts those that are needed."""
        shared, placement = self._shared, self._shared.placement
        placed = placement.plan(devices)
        if placed:
            await self._tables.place_devices(placed)
            placement.put(placed)
            self._warn_of_case(device for device, _ in placed)
        for number in sorted(
            {number for device in devices if (number := placement.number_of(device))} - set(shared.nodes)
        ):
            # It may have been here before; what is behind its old cursor is of Devices that are gone.
            await self._tables.advance(number, cursor)
            node = await self._add_node(number, cursor)
            node.read_through = node.taken_through = cursor
            self._connect(node)

    async def _add_node(self, number: int, cursor: int) -> NodeState:
        """An Edge Node that is not connected yet; the cursor of a new one begins at `cursor`."""
        shared = self._shared
        await self._tables.add_node(number, cursor)
        name = edge_node_name(shared.config.sparkplug.edge_node_id, number)
        node = shared.nodes[number] = NodeState(number, name, await self._tables.cursor(number))
        return node

    def _connect(self, node: NodeState) -> None:
        runner = EdgeNodeRunner(self._shared, node)
        self._group.create_task(runner.run(), name=f"sparkplug {node.edge_node_id}")

    def _warn_of_case(self, devices: Iterable[str]) -> None:
        for device in devices:
            self._shared.warn_of_case("Devices", self._folded_ids.setdefault(device.casefold(), device), device)

    async def _watch_api(self) -> None:
        """Looks how the API is; the Edge Nodes tell it. Never returns."""
        shared, callbacks = self._shared, self._shared.callbacks
        while True:
            has_changed = shared.watch.look(
                time.monotonic(),
                shared.now(),
                is_connected=callbacks.is_api_connected(),
                successes=callbacks.poll_successes(),
            )
            if has_changed:
                shared.wake_all()
            await asyncio.sleep(LOOK_INTERVAL_S)
