"""What the Sparkplug outlet keeps, and what it reads: Edge Nodes, their Devices, and all that a Device has.

It has connections of its own, so that reading never waits for a poll that is writing. What is read of a Device is of
one moment, together with the journal's last row then: rows up to there are in it, those behind it are not.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from oneweb_bridge.model.devices import DeviceContent, FleetIds, NewestSample, TimedDoc
from oneweb_bridge.model.records import Row
from oneweb_bridge.store import places
from oneweb_bridge.store.engine import Connection, Transaction, placeholders
from oneweb_bridge.store.journal_sql import CURSOR, MOVE_CURSOR, ROW_COLUMNS, rows_of_page, select_page
from oneweb_bridge.store.places import Place

SCAN_ROWS = 20_000
"""Rows looked at in one statement, so that grouping them needs little memory."""
_OLDEST_SAMPLES = """
SELECT id, min(ts) FROM journal WHERE seq > ? AND seq <= ? AND what IN ('metric', 'history') GROUP BY id
"""


@contextlib.asynccontextmanager
async def open_edge_tables(place: Place) -> AsyncIterator["EdgeTables"]:
    """The tables in the database at `place`. Raises StoreError."""
    async with (
        places.open_connection(place) as writer,
        places.open_connection(place, flushes=False) as cursor_connection,
        places.open_connection(place, read_only=True) as reader,
    ):
        yield EdgeTables(writer, cursor_connection, reader)


def output_name(number: int) -> str:
    """The name of an Edge Node's cursor."""
    return f"sparkplug-{number}"


class EdgeTables:
    """Made by `open_edge_tables`."""

    def __init__(self, writer: Connection, cursor_connection: Connection, reader: Connection) -> None:
        """Commits of `cursor_connection`, by which cursors are written, are not flushed to the disk."""
        self._writer = writer
        self._cursor_connection = cursor_connection
        self._reader = reader
        self._read_lock = asyncio.Lock()

    # ── Edge Nodes and Devices ─────────────────────────────────────────────────────────────────

    async def add_node(self, number: int, cursor: int) -> None:
        """Notes an Edge Node that is new; its cursor begins at `cursor`. One that there is stays as it is."""
        async with self._writer.transaction() as transaction:
            sql = "INSERT INTO edge_node (number) VALUES (?) ON CONFLICT DO NOTHING"
            if await transaction.execute(sql, (number,)):
                await transaction.execute(MOVE_CURSOR, (output_name(number), cursor))

    async def numbers(self) -> list[int]:
        """The numbers of the Edge Nodes that there are."""
        return [row[0] for row in await self._rows("SELECT number FROM edge_node ORDER BY number")]

    async def next_bd_seq(self, number: int) -> int:
        """The `bdSeq` of the next CONNECT, noted on the disk before this returns: 0 to 255, and 0 again."""
        async with self._writer.transaction() as transaction:
            rows = await transaction.fetch_all(
                "UPDATE edge_node SET bd_seq = (coalesce(bd_seq, -1) + 1) % 256 WHERE number = ? RETURNING bd_seq",
                (number,),
            )
        return int(rows[0][0])

    async def devices(self) -> dict[str, int]:
        """Device -> the number of its Edge Node."""
        return {row[0]: row[1] for row in await self._rows("SELECT device, number FROM edge_device")}

    async def place_devices(self, devices: Iterable[tuple[str, int]]) -> None:
        """Notes on the disk which Edge Node Devices belong to."""
        async with self._writer.transaction() as transaction:
            await transaction.execute_many(
                """INSERT INTO edge_device (device, number) VALUES (?, ?)
                   ON CONFLICT (device) DO UPDATE SET number = excluded.number""",
                list(devices),
            )

    async def free_device(self, device: str) -> None:
        """Forgets a Device that is dead."""
        await self._writer.execute("DELETE FROM edge_device WHERE device = ?", (device,))

    # ── the journal ────────────────────────────────────────────────────────────────────────────

    async def head(self) -> int:
        """The number of the last row that was ever written."""
        return int((await self._rows(self._reader.dialect.journal_head))[0][0])

    async def rows_between(self, after: int, through: int, limit: int) -> list[Row]:
        """The next rows in (after, through]."""
        dialect = self._reader.dialect
        sql = select_page(dialect, "seq > ? AND seq <= ?")
        return rows_of_page(dialect, await self._rows(sql, (after, through, limit)))

    async def oldest_samples(self, after: int, through: int) -> dict[str, int]:
        """Id -> the time of its oldest sample in the rows (after, through]."""
        oldest: dict[str, int] = {}
        for start in range(after, through, SCAN_ROWS):
            rows = await self._rows(_OLDEST_SAMPLES, (start, min(start + SCAN_ROWS, through)))
            oldest |= {id: min(ts, oldest.get(id, ts)) for id, ts in rows}
        return oldest

    async def rows_by_time(
        self, ids: Sequence[str], between: tuple[int, int], place: tuple[int, int], limit: int
    ) -> list[Row]:
        """The next rows of some ids by time, and then as they came: in (after, through], behind a time and row."""
        after, through = between
        ts, seq = place
        # With a sign the numbers are no way to find the rows: they are found by the index of ids and times.
        sql = f"""SELECT {ROW_COLUMNS} FROM journal WHERE seq IN (
                      SELECT seq FROM journal
                      WHERE id IN ({placeholders(ids)}) AND ts >= ? AND (ts > ? OR seq > ?) AND +seq > ? AND +seq <= ?
                      ORDER BY ts, seq LIMIT ?)
                  ORDER BY ts, seq"""
        return [Row(*row) for row in await self._rows(sql, (*ids, ts, ts, seq, after, through, limit))]

    async def cursor(self, number: int) -> int:
        """The row up to which an Edge Node has sent everything."""
        return int((await self._rows(CURSOR, (output_name(number),)))[0][0])

    async def advance(self, number: int, seq: int) -> None:
        """Notes that an Edge Node has sent everything up to `seq`; never goes back. It survives any crash of this
        process, and a power loss with the next commit.
        """
        await self._cursor_connection.execute(MOVE_CURSOR, (output_name(number), seq))

    # ── what there is ──────────────────────────────────────────────────────────────────────────

    async def fleet_ids(self) -> FleetIds:
        """Which terminals, products and usage buckets there are."""
        async with self._snapshot() as (reading, head):
            terminals = await reading.fetch_all("SELECT id FROM record WHERE kind = 'terminal'")
            products = await reading.fetch_all(
                "SELECT id, json_extract(doc, '$.imei') FROM record WHERE kind = 'product'"
            )
            buckets = await reading.fetch_all(
                "SELECT id, json_extract(doc, '$.product_id') FROM record WHERE kind = 'usage'"
            )
        return FleetIds(
            head, [row[0] for row in terminals], [(r[0], r[1]) for r in products], [(r[0], r[1]) for r in buckets]
        )

    async def device_content(self, imei: str | None, products: Sequence[str], buckets: Sequence[str]) -> DeviceContent:
        """The records and newest samples of a terminal, of products and of usage buckets, those that there are."""
        ids = ([] if imei is None else [imei]) + list(products)
        async with self._snapshot() as (reading, head):
            own = [] if imei is None else [imei]
            records = await _records(reading, ("terminal", "components", "relations"), own)
            records |= await _records(reading, ("product",), products)
            records |= await _records(reading, ("usage",), buckets)
            samples = await reading.fetch_all(
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
        async with self._snapshot() as (reading, head):
            rows = await reading.fetch_all("SELECT id, doc, event_at FROM record WHERE kind = 'call'")
        return head, {row[0]: TimedDoc(row[1].encode(), row[2]) for row in rows}

    @contextlib.asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[tuple[Transaction, int]]:
        """Reads of one moment, with the number of the journal's last row then."""
        async with self._read_lock, self._reader.snapshot() as reading:
            rows = await reading.fetch_all(self._reader.dialect.journal_head)
            yield reading, int(rows[0][0])

    async def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        async with self._read_lock:
            return await self._reader.fetch_all(sql, parameters)


async def _records(reading: Transaction, kinds: Sequence[str], ids: Sequence[str]) -> dict[tuple[str, str], TimedDoc]:
    rows = await reading.fetch_all(
        f"""SELECT kind, id, doc, event_at FROM record
            WHERE kind IN ({placeholders(kinds)}) AND id IN ({placeholders(ids)})""",
        (*kinds, *ids),
    )
    return {(row[0], row[1]): TimedDoc(row[2].encode(), row[3]) for row in rows}
