"""The backlog of Edge Nodes: of each Device the oldest first, and nothing lost, whatever moves or breaks meanwhile."""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import aiomqtt
import pytest

from oneweb_bridge.clock import SYSTEM
from oneweb_bridge.config.read import parse
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.devices import FleetIds
from oneweb_bridge.model.records import Batch, Entry, Row, RowType
from oneweb_bridge.sparkplug import outlet, rows
from oneweb_bridge.sparkplug.backlog import Backlog
from oneweb_bridge.sparkplug.births import Births
from oneweb_bridge.sparkplug.edge_node import EdgeNode, Reading
from oneweb_bridge.sparkplug.fleet import Fleet
from oneweb_bridge.sparkplug.placement import Placement
from oneweb_bridge.sparkplug.rows import RowReader
from oneweb_bridge.sparkplug.shared import EdgeCallbacks, NodeState, SharedState
from oneweb_bridge.sparkplug.tree import Metric
from oneweb_bridge.sparkplug.wire import EdgeLink
from oneweb_bridge.store import edge_tables, store
from oneweb_bridge.store.edge_tables import EdgeTables, open_edge_tables
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.growth import JournalGrowth
from tests.cancelling import end_tasks

NOW = 1_750_000_000_000
SAMPLES = ("metric", "history")
TERMINALS, PRODUCTS = ("T0", "T1", "T2", "T3"), ("P0", "P1", "P2", "P3")


class Memory:
    """The journal and the tables of the outlet, in memory. Each call lets others run, as a thread of SQLite would."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.terminals: dict[str, None] = {}
        self.products: dict[str, str | None] = {}
        self.cursors: dict[int, int] = {1: 0}
        self.placed: dict[str, int] = {}
        self.refuses = False

    def _add(self, entity: str, id: str, what: RowType, body: dict[str, Any], name: str = "") -> None:
        self.rows.append(Row(len(self.rows) + 1, 0, entity, id, what, name, body.get("ts", NOW), encode(body)))

    def sample(self, id: str, ts: int) -> None:
        """A sample of a terminal or of a product, whose value is its number."""
        number = float(len(self.rows) + 1)
        if id in PRODUCTS:
            self._add("product", id, "history", {"ts": ts, "product_id": id, "ef_uplink_bps": number}, "throughput")
        else:
            self._add("terminal", id, "history", {"ts": ts, "imei": id, "sinr_db": number}, "signal_quality")

    def terminal(self, imei: str, what: RowType = "added") -> None:
        """A terminal is there, or is removed."""
        self.terminals.pop(imei, None)
        if what != "removed":
            self.terminals[imei] = None
        self._add("terminal", imei, what, {"record": {"imei": imei}})

    def product(self, id: str, imei: str) -> None:
        """A product belongs to a terminal, or to one that nobody knows."""
        self.products[id] = imei
        self._add("product", id, "changed", {"record": {"product_id": id, "imei": imei}})

    async def head(self) -> int:
        await asyncio.sleep(0)
        return len(self.rows)

    async def rows_between(self, after: int, through: int, limit: int) -> list[Row]:
        await asyncio.sleep(0)
        return self.rows[after:through][:limit]

    async def oldest_samples(self, after: int, through: int) -> dict[str, int]:
        await asyncio.sleep(0)
        chosen = [row for row in self.rows[after:through] if row.what in SAMPLES]
        return {id: min(row.ts for row in chosen if row.id == id) for id in {row.id for row in chosen}}

    async def rows_by_time(
        self, ids: Sequence[str], between: tuple[int, int], place: tuple[int, int], limit: int
    ) -> list[Row]:
        await asyncio.sleep(0)
        chosen = [row for row in self.rows[slice(*between)] if row.id in ids and (row.ts, row.seq) > place]
        return sorted(chosen, key=lambda row: (row.ts, row.seq))[:limit]

    async def fleet_ids(self) -> FleetIds:
        await asyncio.sleep(0)
        return FleetIds(len(self.rows), list(self.terminals), list(self.products.items()), [])

    async def devices(self) -> dict[str, int]:
        await asyncio.sleep(0)
        return dict(self.placed)

    async def place_devices(self, devices: Sequence[tuple[str, int]]) -> None:
        await asyncio.sleep(0)
        if self.refuses:
            self.refuses = False
            raise StoreUnavailable("the disk is full")
        self.placed |= dict(devices)

    async def free_device(self, device: str) -> None:
        await asyncio.sleep(0)
        self.placed.pop(device, None)

    async def add_node(self, number: int, cursor: int) -> None:
        await asyncio.sleep(0)
        self.cursors.setdefault(number, cursor)

    async def cursor(self, number: int) -> int:
        await asyncio.sleep(0)
        return self.cursors.get(number, 0)

    async def advance(self, number: int, seq: int) -> None:
        await asyncio.sleep(0)
        self.cursors[number] = max(seq, self.cursors.get(number, 0))


async def _no_alert(_kind: str, _sentence: str) -> None:
    return None


CONFIG = parse("sparkplug: {enabled: true, devices_per_edge_node: 3}", {})
CALLBACKS = EdgeCallbacks(
    config=lambda: CONFIG,
    alert=_no_alert,
    submit=lambda *_: None,
    is_api_connected=lambda: True,
    poll_successes=dict,
)


# ── which rows are next ────────────────────────────────────────────────────────────────────────


def stage(memory: Memory, nodes: int = 1) -> SharedState:
    """What Edge Nodes share, with all Devices on the first one."""
    shared = SharedState(cast("EdgeTables", memory), CALLBACKS, SYSTEM, version="1", watch=cast("Any", None))
    shared.fleet = Fleet(memory.terminals, memory.products.items())
    shared.placement = Placement(dict.fromkeys(shared.fleet.devices(), 1), 100)
    shared.nodes = {number: NodeState(number, f"edge-{number}", 0) for number in range(1, nodes + 1)}
    return shared


async def test_each_device_is_read_oldest_first_over_all_pieces() -> None:
    """Late samples stand before those that came earlier, also when they are pieces apart; a terminal with products."""
    memory = Memory()
    for imei in ("T0", "T1"):
        memory.terminal(imei)
    memory.product("P0", "T0")
    for number in (5, 7, 6, 8, 2, 1, 3, 4):
        for id in ("T0", "P0", "T1"):
            memory.sample(id, NOW + number)
    shared = stage(memory)
    backlog, node = Backlog(shared, shared.nodes[1]), shared.nodes[1]
    backlog.begin(len(memory.rows))
    order: dict[str, list[tuple[int, int]]] = {}
    while node.waiting:
        piece = await backlog.read(3)
        assert len(piece.rows) <= 3
        for row in piece.rows:
            if row.what in SAMPLES:
                order.setdefault(shared.fleet.device_of(row) or "", []).append((row.ts, row.seq))
        backlog.note_sent(piece.ended)
    assert {device: len(read) for device, read in order.items()} == {"T0": 16, "T1": 8}
    assert all(read == sorted(read) for read in order.values())


async def test_product_that_joins_meanwhile_is_read_from_its_beginning() -> None:
    """Its new Device is read once more, though it was read to its end, because nobody has sent those rows."""
    memory = Memory()
    for imei in ("T0", "T1"):
        memory.terminal(imei)
    memory.product("P0", "T1")
    for id in ("T0", "P0"):
        memory.sample(id, NOW)
    shared = stage(memory)
    backlog, node = Backlog(shared, shared.nodes[1]), shared.nodes[1]
    shared.through = len(memory.rows)
    backlog.begin(shared.through)
    piece = await backlog.read(1)
    piece = piece if piece.ended else await backlog.read(1)
    memory.product("P0", "T0")
    shared.note_moves([shared.fleet.apply(memory.rows[-1])])
    shared.hand_over()
    backlog.note_sent(piece.ended)
    sent = []
    while node.waiting:
        piece = await backlog.read(1)
        sent += [(shared.fleet.device_of(row), row.id) for row in piece.rows if row.what in SAMPLES]
        backlog.note_sent(piece.ended)
    assert ("T0", "P0") in sent


async def test_cursor_waits_for_all_devices_of_all_nodes() -> None:
    """What waits for one Edge Node may have come from another, so no cursor passes it."""
    memory = Memory()
    shared = stage(memory, nodes=2)
    shared.through = 9
    first, second = shared.nodes[1], shared.nodes[2]
    first.read_through = second.read_through = 9
    second.waiting["T0"] = 4
    await shared.note_cursor(first)
    assert (memory.cursors[1], shared.backlog()) == (4, 5)
    second.waiting.clear()
    await shared.note_cursor(first)
    assert (memory.cursors[1], shared.backlog()) == (9, 0)


# ── nothing is lost ────────────────────────────────────────────────────────────────────────────


class Chance:
    """What the Edge Nodes of a game have in common: chance, and what the broker has read."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.arrived: set[float] = set()

    async def pause(self, most: int = 3) -> None:
        """Lets others run for a while."""
        for _ in range(self.random.randrange(most + 1)):
            await asyncio.sleep(0)


class Wire:
    """A connection that breaks at random; of what nobody has confirmed some has arrived then."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._sent: list[float] = []

    def send(self, value: float) -> None:
        self._sent.append(value)

    async def confirm(self) -> None:
        await self._chance.pause()
        is_broken = self._chance.random.random() < 0.1
        if is_broken:
            self._sent = self._sent[: self._chance.random.randrange(len(self._sent) + 1)]
        self._chance.arrived.update(self._sent)
        self._sent.clear()
        if is_broken:
            raise aiomqtt.MqttError("broken")


class Born:
    """An Edge Node whose Devices are all born: its messages are the values that they have."""

    def has_born(self, _device: str) -> bool:
        return True

    def names(self, _device: str) -> frozenset[str]:
        return frozenset()

    def last_value(self, _device: str, _name: str) -> None:
        return None

    def has_later(self, _device: str, _metrics: Sequence[Metric]) -> bool:
        return False

    def has_metrics(self, _device: str, _metrics: Sequence[Metric]) -> bool:
        return True

    def changed(self, _device: str, _metrics: Sequence[Metric]) -> list[Metric]:
        return []

    def history(self, _device: str, metrics: Sequence[Metric], _now: int) -> list[Any]:
        return [metric.value for metric in metrics]

    def live(self, _device: str, readings: Sequence[Reading], _now: int) -> list[Any]:
        return [reading.metric.value for reading in readings]


class UpTo:
    """Births up to a row of the journal."""

    def __init__(self, head: int, chance: Chance) -> None:
        self._head = head
        self._chance = chance

    def includes(self, _device: str, row: Row) -> bool:
        return row.seq <= self._head

    def is_made(self, _device: str) -> bool:
        return True

    def note_unknown(self, *_: object) -> None:
        return None

    def unknown_of(self, *_: object) -> list[Any]:
        return []

    def quality(self, *_: object) -> None:
        return None

    async def sync(self, _device: str) -> None:
        await self._chance.pause(2)


class Runner:
    """In place of an Edge Node's connections: births, and then what `RowReader` sends."""

    def __init__(self, shared: SharedState, state: NodeState, chance: Chance) -> None:
        self._shared, self._state, self._chance = shared, state, chance

    async def run(self) -> None:
        """One connection after the other. Never returns."""
        while True:
            await self._chance.pause(6)
            with contextlib.suppress(aiomqtt.MqttError):
                await self._connect()

    async def _connect(self) -> None:
        shared, state, through = self._shared, self._state, self._shared.through
        births = UpTo(await shared.tables.head(), self._chance)
        reader = RowReader(
            shared,
            state,
            cast("EdgeNode", Born()),
            cast("Births", births),
            cast("EdgeLink", Wire(self._chance)),
        )
        await self._chance.pause()
        reader.begin(through)
        while True:
            state.wake.clear()
            for device in list(state.dirty):
                del state.dirty[device]
                await shared.free(device)
            if reader.has_more:
                await reader.send_next()
            else:
                await state.wake.wait()


def _is_drained(shared: SharedState, head: int) -> bool:
    return shared.through == head and all(node.sent_through == head for node in shared.nodes.values())


def _act(memory: Memory, chance: random.Random) -> None:
    """Samples most of the time, some of them late; a product moves, a terminal comes and goes, the disk is full."""
    kind = chance.random()
    if kind < 0.6:
        for _ in range(chance.randrange(1, 5)):
            memory.sample(chance.choice(TERMINALS[:3] + PRODUCTS), NOW + chance.randrange(1000))
    elif kind < 0.85:
        memory.product(chance.choice(PRODUCTS), chance.choice((*TERMINALS, "nobody")))
    elif kind < 0.95:
        memory.terminal("T3", "removed" if "T3" in memory.terminals else "added")
    else:
        memory.refuses = True


async def _play(seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Memory, Chance]:
    """Three lives of an outlet, two of which end with a kill, and peace at the end."""
    memory, chance = Memory(), Chance(seed)
    for imei, product in zip(TERMINALS, PRODUCTS, strict=True):
        memory.terminal(imei)
        memory.product(product, imei)
    monkeypatch.setattr(outlet, "EdgeNodeRunner", lambda shared, state: Runner(shared, state, chance))
    for life in range(3):
        growth = JournalGrowth()
        made = outlet.Outlet(cast("EdgeTables", memory), growth, CALLBACKS, SYSTEM, version="1")
        task = asyncio.create_task(made.run())
        for _ in range(25):
            _act(memory, chance.random)
            growth.notify()
            await chance.pause(12)
        for _ in range(100_000 if life == 2 else 0):
            if _is_drained(made._shared, len(memory.rows)):
                break
            await asyncio.sleep(0)
        assert life < 2 or _is_drained(made._shared, len(memory.rows))
        await end_tasks(task)
    return memory, chance


@pytest.mark.parametrize("first", range(0, 60, 20))
async def test_every_sample_arrives(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever moves between Devices and Edge Nodes, breaks, is refused or is killed at any moment."""
    monkeypatch.setattr(rows, "PAGE_ROWS", 3)
    monkeypatch.setattr(outlet, "PAGE_ROWS", 4)
    monkeypatch.setattr(outlet, "RETRY_S", 0.0)
    for seed in range(first, first + 20):
        memory, chance = await _play(seed, monkeypatch)
        expected = {float(row.seq) for row in memory.rows if row.what in SAMPLES}
        assert (seed, sorted(expected - chance.arrived)) == (seed, [])


async def test_device_has_its_edge_node_when_that_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No birth can come before, and a Device that could not be noted is noted later."""
    memory, chance = Memory(), Chance(0)
    memory.terminal("T0")
    memory.refuses = True
    monkeypatch.setattr(outlet, "EdgeNodeRunner", lambda shared, state: Runner(shared, state, chance))
    monkeypatch.setattr(outlet, "RETRY_S", 0.0)
    place, early = memory.place_devices, []

    async def place_and_look(devices: Sequence[tuple[str, int]]) -> None:
        early.extend(made._shared.placement.devices())
        await place(devices)
        early.extend(made._shared.placement.devices())

    monkeypatch.setattr(memory, "place_devices", place_and_look)
    made = outlet.Outlet(cast("EdgeTables", memory), JournalGrowth(), CALLBACKS, SYSTEM, version="1")
    task = asyncio.create_task(made.run())
    async with asyncio.timeout(20):
        while made._shared.placement.number_of("T0") is None:
            await asyncio.sleep(0)
    await end_tasks(task)
    assert (memory.placed, early) == ({"T0": 1}, [])


# ── the database ───────────────────────────────────────────────────────────────────────────────


async def test_database_reads_by_time_as_it_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late rows, equal times, ids of others, rows outside and of other kinds: page after page as in memory."""
    monkeypatch.setattr(edge_tables, "SCAN_ROWS", 7)
    chance, memory = random.Random(1), Memory()
    for imei in TERMINALS:
        memory.terminal(imei)
    for _ in range(60):
        memory.sample(chance.choice(TERMINALS + PRODUCTS), NOW + chance.randrange(12))
    async with store.open_store(tmp_path / "bridge.db") as db, open_edge_tables(tmp_path / "bridge.db") as tables:
        await db.commit(
            Batch(entries=[Entry(row.entity, row.id, row.what, row.name, row.ts, row.body) for row in memory.rows])
        )
        assert await tables.oldest_samples(9, 50) == await memory.oldest_samples(9, 50)
        place, count = (0, 0), 0
        while page := await tables.rows_by_time(["T0", "P0", "P1"], (5, 55), place, 4):
            expected = await memory.rows_by_time(["T0", "P0", "P1"], (5, 55), place, 4)
            assert [(row.seq, row.ts, row.body) for row in page] == [(r.seq, r.ts, r.body) for r in expected]
            place, count = (page[-1].ts, page[-1].seq), count + len(page)
        assert count == len(await memory.rows_by_time(["T0", "P0", "P1"], (5, 55), (0, 0), 1000)) > 8
