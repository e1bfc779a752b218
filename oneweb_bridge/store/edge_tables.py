"""What the Sparkplug outlet keeps, and what it reads: Edge Nodes, their Devices, and all that a Device has.

It has connections of its own, so that reading never waits for a poll that is writing. What is read of a Device is of
one moment, together with the journal's last row then: rows up to there are in it, those behind it are not.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite

from oneweb_bridge.model.devices import DeviceContent, FleetIds, NewestSample, TimedDoc
from oneweb_bridge.model.records import Row
from oneweb_bridge.store import database
from oneweb_bridge.store.database import placeholders
from oneweb_bridge.store.errors import named_errors
from oneweb_bridge.store.output_connection import ROW_COLUMNS

_HEAD = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'journal'"
_MOVE_CURSOR = """
INSERT INTO cursor (output, seq) VALUES (?, ?) ON CONFLICT (output) DO UPDATE SET seq = max(seq, excluded.seq)
"""


@contextlib.asynccontextmanager
async def open_edge_tables(path: Path) -> AsyncIterator["EdgeTables"]:
    """The tables in the database at `path`. Raises StoreError."""
    async with (
        database.open_connection(path) as writer,
        database.open_connection(path, flushes=False) as cursor_db,
        database.open_connection(path, read_only=True) as reader,
    ):
        yield EdgeTables(writer, cursor_db, reader)


def output_name(number: int) -> str:
    """The name of an Edge Node's cursor."""
    return f"sparkplug-{number}"


class EdgeTables:
    """Made by `open_edge_tables`."""

    def __init__(
        self, writer: aiosqlite.Connection, cursor_db: aiosqlite.Connection, reader: aiosqlite.Connection
    ) -> None:
        """`cursor_db` is the connection by which cursors are written: its commits are not flushed to the disk."""
        self._writer = writer
        self._cursor_db = cursor_db
        self._reader = reader
        self._write_lock = asyncio.Lock()
        self._read_lock = asyncio.Lock()

    # ── Edge Nodes and Devices ─────────────────────────────────────────────────────────────────

    async def add_node(self, number: int, cursor: int) -> None:
        """Notes an Edge Node that is new; its cursor begins at `cursor`. One that there is stays as it is."""
        async with database.transaction(self._writer, self._write_lock):
            known = await self._writer.execute("INSERT OR IGNORE INTO edge_node (number) VALUES (?)", (number,))
            if known.rowcount:
                await self._writer.execute(_MOVE_CURSOR, (output_name(number), cursor))

    async def numbers(self) -> list[int]:
        """The numbers of the Edge Nodes that there are."""
        return [row[0] for row in await self._rows("SELECT number FROM edge_node ORDER BY number")]

    async def next_bd_seq(self, number: int) -> int:
        """The `bdSeq` of the next CONNECT, noted on the disk before this returns: 0 to 255, and 0 again."""
        async with database.transaction(self._writer, self._write_lock):
            await self._writer.execute(
                "UPDATE edge_node SET bd_seq = (coalesce(bd_seq, -1) + 1) % 256 WHERE number = ?", (number,)
            )
            rows = await self._writer.execute_fetchall("SELECT bd_seq FROM edge_node WHERE number = ?", (number,))
        return int(next(iter(rows))[0])

    async def devices(self) -> dict[str, int]:
        """Device -> the number of its Edge Node."""
        return {row[0]: row[1] for row in await self._rows("SELECT device, number FROM edge_device")}

    async def place_devices(self, devices: Iterable[tuple[str, int]]) -> None:
        """Notes on the disk which Edge Node Devices belong to."""
        async with database.transaction(self._writer, self._write_lock):
            await self._writer.executemany("INSERT OR IGNORE INTO edge_device VALUES (?, ?)", list(devices))

    async def free_device(self, device: str) -> None:
        """Forgets a Device that is dead."""
        async with database.transaction(self._writer, self._write_lock):
            await self._writer.execute("DELETE FROM edge_device WHERE device = ?", (device,))

    # ── the journal ────────────────────────────────────────────────────────────────────────────

    async def head(self) -> int:
        """The number of the last row that was ever written."""
        return int((await self._rows(_HEAD))[0][0])

    async def rows_between(self, after: int, through: int, limit: int) -> list[Row]:
        """The next rows in (after, through]."""
        sql = f"SELECT {ROW_COLUMNS} FROM journal WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        return [Row(*row) for row in await self._rows(sql, (after, through, limit))]

    async def cursor(self, number: int) -> int:
        """The row up to which an Edge Node has sent everything."""
        sql = "SELECT coalesce(max(seq), 0) FROM cursor WHERE output = ?"
        return int((await self._rows(sql, (output_name(number),)))[0][0])

    async def advance(self, number: int, seq: int) -> None:
        """Notes that an Edge Node has sent everything up to `seq`; never goes back. It survives any crash of this
        process, and a power loss with the next commit.
        """
        with named_errors():
            await self._cursor_db.execute(_MOVE_CURSOR, (output_name(number), seq))

    # ── what there is ──────────────────────────────────────────────────────────────────────────

    async def fleet_ids(self) -> FleetIds:
        """Which terminals, products and usage buckets there are."""
        async with self._snapshot() as head:
            terminals = await self._unlocked("SELECT id FROM record WHERE kind = 'terminal'")
            products = await self._unlocked("SELECT id, json_extract(doc, '$.imei') FROM record WHERE kind = 'product'")
            buckets = await self._unlocked(
                "SELECT id, json_extract(doc, '$.product_id') FROM record WHERE kind = 'usage'"
            )
        return FleetIds(
            head, [row[0] for row in terminals], [(r[0], r[1]) for r in products], [(r[0], r[1]) for r in buckets]
        )

    async def device_content(self, imei: str | None, products: Sequence[str], buckets: Sequence[str]) -> DeviceContent:
        """The records and newest samples of a terminal, of products and of usage buckets, those that there are."""
        ids = ([] if imei is None else [imei]) + list(products)
        async with self._snapshot() as head:
            records = await self._records(("terminal", "components", "relations"), [] if imei is None else [imei])
            records |= await self._records(("product",), products)
            records |= await self._records(("usage",), buckets)
            samples = await self._unlocked(
                f"""SELECT report, id, doc, letters FROM newest WHERE id IN ({placeholders(ids)}) AND seq > 0
                    AND ((entity = 'terminal' AND id = ?) OR (entity = 'product' AND id IN ({placeholders(products)})))
                    ORDER BY report, id""",
                (*ids, imei, *products),
            )
        return DeviceContent(
            head=head, records=records, samples=[NewestSample(r[0], r[1], r[2].encode(), r[3]) for r in samples]
        )

    async def call_states(self) -> tuple[int, dict[str, TimedDoc]]:
        """The journal's last row, and the state of each call."""
        async with self._snapshot() as head:
            rows = await self._unlocked("SELECT id, doc, event_at FROM record WHERE kind = 'call'")
        return head, {row[0]: TimedDoc(row[1].encode(), row[2]) for row in rows}

    async def _records(self, kinds: Sequence[str], ids: Sequence[str]) -> dict[tuple[str, str], TimedDoc]:
        rows = await self._unlocked(
            f"""SELECT kind, id, doc, event_at FROM record
                WHERE kind IN ({placeholders(kinds)}) AND id IN ({placeholders(ids)})""",
            (*kinds, *ids),
        )
        return {(row[0], row[1]): TimedDoc(row[2].encode(), row[3]) for row in rows}

    @contextlib.asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[int]:
        """Reads of one moment. Gives the number of the journal's last row then."""
        async with self._read_lock:
            with named_errors():
                try:
                    # Within, because who is cancelled here has begun all the same.
                    await self._reader.execute("BEGIN")
                    rows = await self._reader.execute_fetchall(_HEAD)
                    yield int(next(iter(rows))[0])
                finally:
                    await asyncio.shield(self._reader.rollback())

    async def _unlocked(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return list(await self._reader.execute_fetchall(sql, parameters))

    async def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        async with self._read_lock:
            return await database.fetch_all(self._reader, sql, parameters)
