"""Stages a listing until it is proved complete: in a private temporary database, on disk but without its fsync.

It is apart from the bridge's database, so that staging a page never holds up who writes records, and a
transaction that is rolled back there takes nothing from here.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from oneweb_bridge.store import database, slices
from oneweb_bridge.store.engine import placeholders
from oneweb_bridge.store.sqlite import SqliteConnection

StagedRow = tuple[int, str, bytes, bytes]
"""Time in ms, id, hash and body."""

# With large pages a listing takes an eighth of the writes.
_SCHEMA = """
PRAGMA page_size = 32768;
CREATE TABLE staged (
    number INTEGER PRIMARY KEY,
    call TEXT NOT NULL,
    ts INTEGER NOT NULL,
    id TEXT NOT NULL,
    hash BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX staged_id ON staged (call, id, ts);
"""


@contextlib.asynccontextmanager
async def open_staging() -> AsyncIterator["Staging"]:
    """An empty staging table that is deleted at the end of the block."""
    async with database.temporary() as db:
        await db.execute_script(_SCHEMA)
        yield Staging(db)


class Staging:
    """Made by `open_staging`. Every method that writes is one transaction."""

    def __init__(self, db: SqliteConnection) -> None:
        self._db = db

    async def clear(self, call: str) -> None:
        """Deletes what is staged of a call."""
        await self._db.execute("DELETE FROM staged WHERE call = ?", (call,))

    async def add(self, call: str, rows: Sequence[StagedRow]) -> None:
        """Adds rows of a call, to wait until its listing is complete."""
        if not rows:
            return
        async with self._db.transaction() as transaction:
            await transaction.execute_many(
                "INSERT INTO staged (call, ts, id, hash, body) VALUES (?, ?, ?, ?, ?)",
                [(call, *row) for row in rows],
            )

    async def iter_slices(self, call: str) -> AsyncIterator[list[StagedRow]]:
        """Yields the rows of a call in slices, oldest time first and then by id."""
        numbers = [
            row[0]
            for row in await self._rows("SELECT number FROM staged WHERE call = ? ORDER BY ts, id, number", (call,))
        ]
        for part in slices.slices_of(numbers):
            rows = await self._rows(
                f"SELECT ts, id, hash, body FROM staged WHERE number IN ({placeholders(part)}) ORDER BY ts, id, number",
                part,
            )
            yield [(row[0], row[1], row[2], row[3]) for row in rows]

    async def ids(self, call: str) -> list[Sequence[str]]:
        """The ids of which a row of a call is staged, in slices."""
        rows = await self._rows("SELECT DISTINCT id FROM staged WHERE call = ?", (call,))
        return list(slices.slices_of([row[0] for row in rows]))

    async def newest_times(self, call: str, ids: Sequence[str]) -> dict[str, int]:
        """The newest time that is staged of each id, in ms."""
        rows = await self._rows(
            f"SELECT id, max(ts) FROM staged WHERE call = ? AND id IN ({placeholders(ids)}) GROUP BY id",
            (call, *ids),
        )
        return {row[0]: row[1] for row in rows}

    async def _rows(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        # What is read outside of a transaction on this connection would see what is not committed.
        async with self._db.lock:
            return await self._db.fetch_all(sql, parameters)
