"""The engine interface over SQLite: connections and the phrases of its SQL."""

import asyncio
import contextlib
import functools
import re
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import aiosqlite

from oneweb_bridge.store.engine import Dialect, JournalRow, finish_cancelled_or_not
from oneweb_bridge.store.errors import named_errors

DIALECT = Dialect(
    journal_head="SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'journal'",
    list_values="SELECT value FROM json_each(?)",
    body_text="CAST(body AS TEXT)",
    object_of="json_group_object({}, {})".format,
    packs_pages=True,
    events_index="INDEXED BY journal_events",
    # UPDATE would not do: SQLite writes nothing for a row that stays equal.
    touch_cursor="INSERT OR REPLACE INTO cursor SELECT * FROM cursor WHERE output = ?",
    blob=lambda value: f"x'{value.hex()}'",
)


EXCESS_STEP = 500
"""Rows to delete before it is looked again how large the file is: that takes no time."""


ROWS_AT_ONCE = (100, 10)
"""How many rows one step of SQLite inserts, the most that there are first; what is left goes row by row."""
MAX_VALUES = 999
"""Values of one statement that every SQLite takes. Source: https://sqlite.org/limits.html, 9."""
_VALUES = re.compile(r"VALUES (\([^()]*\))")


class WideConnection(sqlite3.Connection):
    """A connection of Python's own whose `executemany` inserts many rows in one step.

    Before and after each step the thread gives up the interpreter and waits for it; where other threads work, that is
    most of what a row costs.
    """

    def executemany(self, sql: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        """Executes a statement for each of `rows`, in their order. The cursor is that of the last ones."""
        left, cursor = list(rows), None
        most = MAX_VALUES // len(left[0]) if left and left[0] and _VALUES.search(sql) else 0
        for count in ROWS_AT_ONCE:
            if count <= min(most, len(left)):
                whole = len(left) - len(left) % count
                wide = [tuple(chain.from_iterable(left[at : at + count])) for at in range(0, whole, count)]
                cursor, left = super().executemany(_widen(sql, count), wide), left[whole:]
        return super().executemany(sql, left) if left or cursor is None else cursor


@functools.cache
def _widen(sql: str, count: int) -> str:
    """The statement for `count` rows at once."""
    return _VALUES.sub(lambda match: f"VALUES {', '.join([match[1]] * count)}", sql)


class ThreadConnection(WideConnection):
    """See `engine.Writer`: a connection of Python's own, in which every statement is a transaction."""

    dialect = DIALECT

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        try:
            self.execute("BEGIN IMMEDIATE")
            yield
            self.execute("COMMIT")
        except BaseException:
            self.rollback()
            raise

    def interrupt(self) -> None:
        """Ends the statement that runs in another thread; that thread may have closed the connection since."""
        with contextlib.suppress(sqlite3.ProgrammingError):
            super().interrupt()

    def used_bytes(self) -> int:
        """Bytes of the file that are in use; free pages are used again before it grows."""
        pages, free, size = (
            self.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


class SqliteTransaction:
    """See `engine.Transaction`."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    async def lock(self, table: str) -> None:
        """Nothing: the file is locked since BEGIN."""

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return (await self._db.execute(sql, parameters)).rowcount

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            await self._db.executemany(sql, rows)

    async def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return list(await self._db.execute_fetchall(sql, parameters))

    async def append_journal(self, rows: Sequence[JournalRow]) -> None:
        await self.execute_many(
            "INSERT INTO journal (seq, at, entity, id, what, name, ts, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows
        )


class SqliteConnection:
    """See `engine.Connection`. One statement or transaction at a time holds `lock`; plain reads do not wait for it."""

    dialect = DIALECT

    def __init__(self, db: aiosqlite.Connection, lock: asyncio.Lock | None = None) -> None:
        """`lock` is given where two connections would only wait for each other in the file."""
        self.lock = asyncio.Lock() if lock is None else lock
        self._db = db
        self._transaction = SqliteTransaction(db)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqliteTransaction]:
        """As the interface says. Whoever reads meanwhile on this connection, but outside, sees what is uncommitted."""
        async with self.lock:
            with named_errors():
                async with self._begun():
                    yield self._transaction

    @contextlib.asynccontextmanager
    async def _begun(self) -> AsyncIterator[None]:
        try:
            await self._db.execute("BEGIN IMMEDIATE")
            yield
            await self._db.execute("COMMIT")
        except BaseException:
            await finish_cancelled_or_not(self._db.rollback())
            raise

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[SqliteTransaction]:
        async with self.lock:
            with named_errors():
                try:
                    # Within, because who is cancelled here has begun all the same.
                    await self._db.execute("BEGIN")
                    yield self._transaction
                finally:
                    await finish_cancelled_or_not(self._db.rollback())

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        async with self.lock:
            with named_errors():
                return await self._transaction.execute(sql, parameters)

    async def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with named_errors():
            return await self._transaction.fetch_all(sql, parameters)

    async def execute_script(self, script: str) -> None:
        """Executes statements as they stand there; transactions among them are the script's own."""
        async with self.lock:
            await self._db.executescript(script)

    async def pragma(self, name: str) -> int:
        """The integer value of a pragma; 0 of one that gives none."""
        rows = await self.fetch_all(f"PRAGMA {name}")
        return int(rows[0][0]) if rows else 0

    async def used_bytes(self) -> int:
        """Bytes of the file that are in use; free pages are used again before it grows."""
        pages = await self.pragma("page_count") - await self.pragma("freelist_count")
        return pages * await self.pragma("page_size")

    async def excess_rows(self, max_bytes: int) -> int:
        return EXCESS_STEP if await self.used_bytes() > max_bytes else 0
