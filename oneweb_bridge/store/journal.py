"""The journal as its readers see it: rows in order, a cursor for each output, and what is retained.

Every output has a connection of its own, so that reading never waits for a poll that is writing.
A cursor only moves forward, and only after the other side has answered.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, get_args

import aiosqlite
import msgspec

from oneweb_bridge.clock import SYSTEM, Clock
from oneweb_bridge.model.heads import Identity, Place
from oneweb_bridge.model.records import Debt, FormerJournalIds, Positions, RecordKind, Row, Waiting
from oneweb_bridge.store import database
from oneweb_bridge.store.errors import named_errors

PAGE_ROWS = 500
"""Rows read at a time."""

_MOVE_CURSOR = """
INSERT INTO cursor (output, seq) VALUES (?, ?)
ON CONFLICT (output) DO UPDATE SET seq = max(seq, excluded.seq)
"""
_ROW = "seq, at, entity, id, what, name, ts, body"


@contextlib.asynccontextmanager
async def open_journal(
    path: Path, output: str, *, read_only: bool = False, clock: Clock = SYSTEM
) -> AsyncIterator["Journal"]:
    """The journal in `path` for one output. Raises StoreError."""
    async with database.open_connection(path, read_only=read_only) as db:
        if read_only:
            yield Journal(db, db, output, clock)
            return
        async with database.open_connection(path, flushes=False) as cursor_db:
            yield Journal(db, cursor_db, output, clock)


class Journal:
    """Made by `opened`."""

    def __init__(self, db: aiosqlite.Connection, cursor_db: aiosqlite.Connection, output: str, clock: Clock) -> None:
        """`cursor_db` is the connection by which the cursor is written: its commits are not flushed to the disk."""
        self._db = db
        self._cursor_db = cursor_db
        self._output = output
        self._clock = clock
        self._lock = asyncio.Lock()

    async def after(self, seq: int, limit: int = PAGE_ROWS) -> list[Row]:
        """The next rows behind `seq`."""
        rows = await self._rows(f"SELECT {_ROW} FROM journal WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
        return [Row(*row) for row in rows]

    async def head(self) -> int:
        """The number of the last row that was ever written."""
        return await self._fetch_int("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'journal'")

    async def oldest(self) -> int:
        """The number of the oldest row that is still there; 0 when there is none."""
        return await self._fetch_int("SELECT coalesce(min(seq), 0) FROM journal")

    async def cursor(self) -> int:
        """How far this output has got."""
        return await self._fetch_int("SELECT coalesce(max(seq), 0) FROM cursor WHERE output = ?", (self._output,))

    async def advance(self, seq: int) -> None:
        """Notes that everything up to `seq` is done; never goes back.

        It survives any crash of this process, and a power loss once it is flushed.
        """
        async with self._lock:
            with named_errors():
                await self._cursor_db.execute(_MOVE_CURSOR, (self._output, seq))

    async def flush_cursor(self) -> None:
        """Flushes to the disk what was noted of the cursor."""
        # A commit flushes all before it, but only one that changes something: an equal row would not be written.
        await self._execute("INSERT OR REPLACE INTO cursor SELECT * FROM cursor WHERE output = ?", (self._output,))

    async def positions(self) -> Positions:
        """How far this output has got, and the classes of topics that wait."""
        # In one statement, so that both are of one moment.
        cursor, *rows = await self._rows(
            """SELECT '', coalesce(max(seq), 0), 0 FROM cursor WHERE output = ?
               UNION ALL SELECT class, seq, waiting FROM lane WHERE output = ?""",
            (self._output, self._output),
        )
        return Positions(cursor[1], {row[0]: Waiting(row[1], row[2]) for row in rows})

    async def save(self, positions: Positions, paid: set[str] | None = None) -> None:
        """Notes durably, all or nothing, how far this output is, and topics that are owed no longer.

        `paid` is read when it is this call's turn, and what was noted of it is taken away. A position never goes back.
        """
        async with self._transaction():
            topics = list(paid or ())
            await self._db.execute(_MOVE_CURSOR, (self._output, positions.cursor))
            await self._db.execute(
                "DELETE FROM lane WHERE output = ? AND class NOT IN (SELECT value FROM json_each(?))",
                (self._output, msgspec.json.encode(list(positions.waiting)).decode()),
            )
            await self._db.executemany(
                """INSERT INTO lane (output, class, seq, waiting) VALUES (?, ?, ?, ?)
                   ON CONFLICT (output, class) DO UPDATE
                   SET seq = max(seq, excluded.seq), waiting = excluded.waiting""",
                [(self._output, name, waiting.seq, waiting.count) for name, waiting in positions.waiting.items()],
            )
            await self._db.executemany(
                "DELETE FROM owed WHERE output = ? AND topic = ?", [(self._output, topic) for topic in topics]
            )
        if paid:
            paid.difference_update(topics)

    async def mark_told(self, name: str, *, told: bool) -> bool:
        """Notes whether an alert has told that a class of topics waits. Returns whether that is new."""
        count = await self._execute(
            "UPDATE lane SET told = ? WHERE output = ? AND class = ? AND told = ?",
            (told, self._output, name, not told),
        )
        return count > 0

    async def renew(self, until: int) -> tuple[str, FormerJournalIds]:
        """Gives the journal a new id, durably; rows up to `until` keep the one they have. Returns all ids."""
        async with self._transaction():
            await self._db.execute(database.RENEW_JOURNAL_ID, {"until": until, "id": database.new_journal_id()})
        return await self._ids()

    async def _ids(self) -> tuple[str, FormerJournalIds]:
        with named_errors():
            return await database.journal_ids(self._db)

    async def identity(self) -> Identity:
        """The ids of the journal, and where the database was published."""
        id, earlier = await self._ids()
        return Identity(journal_id=id, earlier=earlier, places=await self._places())

    async def note_place(self, place: Place) -> None:
        """Notes durably that the database is published there, before anything is."""
        places = await self._places()
        if place not in places:
            await self._write_places((*places, place))

    async def forget_base(self, base: str) -> None:
        """Notes that nothing of this database is left below a base topic."""
        await self._write_places(tuple(place for place in await self._places() if place.base != base))

    async def _places(self) -> tuple[Place, ...]:
        # Those in a copy are the original's until it is opened, and gone then.
        rows = await self._rows(
            "SELECT value FROM meta WHERE name = 'places' AND NOT EXISTS (SELECT 1 FROM meta WHERE name = 'copied')"
        )
        return msgspec.json.decode(rows[0][0], type=tuple[Place, ...]) if rows else ()

    async def _write_places(self, places: tuple[Place, ...]) -> None:
        value = msgspec.json.encode(places).decode()
        await self._execute("INSERT OR REPLACE INTO meta VALUES ('places', ?)", (value,))

    async def set_aside(self, seq: int, topic: str, reason: str) -> None:
        """Notes a row that this output gave up."""
        await self._execute(
            "INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?)",
            (self._output, seq, self._clock.now(), topic, reason),
        )

    async def counts(self) -> tuple[int, int]:
        """How many rows of this output were dropped unpublished and how many were set aside, ever."""
        dropped = await self._fetch_int(
            "SELECT coalesce(max(dropped), 0) FROM cursor WHERE output = ?", (self._output,)
        )
        return dropped, await self._fetch_int("SELECT count(*) FROM dead WHERE output = ?", (self._output,))

    async def waiting(self) -> int:
        """About how many messages wait because the broker refuses their class."""
        return await self._fetch_int("SELECT coalesce(sum(waiting), 0) FROM lane WHERE output = ?", (self._output,))

    # ── what is owed ───────────────────────────────────────────────────────────────────────────

    async def owe(self, debt: Debt, reason: str) -> bool:
        """Notes durably that a retained topic is not right. Returns whether that is new."""
        async with self._transaction():
            cursor = await self._db.execute(
                "INSERT OR IGNORE INTO owed (output, topic, id, name, reason) VALUES (?, ?, ?, ?, ?)",
                (self._output, debt.topic, debt.id, debt.name, reason),
            )
        return cursor.rowcount > 0

    async def owed(self, limit: int = PAGE_ROWS, skip: Collection[str] = ()) -> list[Debt]:
        """The next topics that are owed, but for those to skip: those that were tried least come first."""
        rows = await self._rows(
            """SELECT topic, id, name, tries FROM owed
               WHERE output = ? AND topic NOT IN (SELECT value FROM json_each(?)) ORDER BY tries, topic LIMIT ?""",
            (self._output, msgspec.json.encode(list(skip)).decode(), limit),
        )
        return [Debt(*row) for row in rows]

    async def count_owed(self) -> int:
        """How many topics are owed."""
        return await self._fetch_int("SELECT count(*) FROM owed WHERE output = ?", (self._output,))

    async def count_tries(self, topics: Sequence[str]) -> None:
        """Notes that these topics were tried again in vain."""
        async with self._transaction():
            await self._db.executemany(
                "UPDATE owed SET tries = tries + 1 WHERE output = ? AND topic = ?",
                [(self._output, topic) for topic in topics],
            )

    # ── what is retained ───────────────────────────────────────────────────────────────────────

    async def records_between(self, low: int, high: int) -> list[tuple[int, RecordKind, str, bytes]]:
        """The next records published last by a row in (low, high]: row, kind, id and document."""
        rows = await self._rows(
            "SELECT seq, kind, id, doc FROM record WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
            (low, high, PAGE_ROWS),
        )
        return [(row[0], row[1], row[2], row[3].encode()) for row in rows]

    async def newest_between(self, low: int, high: int) -> list[tuple[int, str, str, str, bytes]]:
        """The next newest samples published by a row in (low, high]: row, entity, report, id and document."""
        rows = await self._rows(
            """SELECT seq, entity, report, id, doc FROM newest WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?""",
            (low, high, PAGE_ROWS),
        )
        return [(row[0], row[1], row[2], row[3], row[4].encode()) for row in rows]

    async def clearing_between(self, low: int, high: int) -> list[Row]:
        """The next rows in (low, high] that cleared retained topics."""
        rows = await self._rows(
            f"""SELECT {_ROW} FROM journal WHERE seq > ? AND seq <= ? AND what IN ('removed', 'clear')
                ORDER BY seq LIMIT ?""",
            (low, high, PAGE_ROWS),
        )
        return [Row(*row) for row in rows]

    async def retained_of(
        self, id: str
    ) -> tuple[list[tuple[RecordKind, str, bytes]], list[tuple[str, str, str, bytes]]]:
        """What is retained now of one id: its records, and its newest samples."""
        # Records are found by kind and id only, so all kinds are named.
        kinds = get_args(RecordKind)
        records = await self._rows(
            f"SELECT kind, id, doc FROM record WHERE kind IN ({', '.join('?' * len(kinds))}) AND id = ?", (*kinds, id)
        )
        newest = await self._rows("SELECT entity, report, id, doc FROM newest WHERE id = ? AND seq > 0", (id,))
        return [(r[0], r[1], r[2].encode()) for r in records], [(n[0], n[1], n[2], n[3].encode()) for n in newest]

    async def rows_of_id_after(self, id: str, seq: int) -> list[Row]:
        """The next rows of one id behind `seq`."""
        # The plus keeps SQLite from going through all rows behind `seq` instead of those of the id.
        sql = f"SELECT {_ROW} FROM journal WHERE id = ? AND +seq > ? ORDER BY seq LIMIT ?"
        return [Row(*row) for row in await self._rows(sql, (id, seq, PAGE_ROWS))]

    async def head_bound(self) -> int:
        """The last row that a broker's head may name of this journal, though the cursor is behind it.

        It is the last row that was there before the database was opened, and stays over restarts until a head was
        compared: of a copy that is put in the place of its original, later rows have the numbers of others.
        """
        return await self._fetch_int(
            "SELECT coalesce(max(CAST(value AS INTEGER)), 0) FROM meta WHERE name = 'head_bound'"
        )

    async def clear_head_bound(self) -> None:
        """Notes that the broker's head was compared: from now on it is not ahead of the cursor."""
        await self._execute("DELETE FROM meta WHERE name = 'head_bound'")

    async def restore_from(self) -> int | None:
        """The row behind which dropped rows left retained topics to be restored; None when there is nothing to do."""
        rows = await self._rows("SELECT restore_from FROM cursor WHERE output = ?", (self._output,))
        return rows[0][0] if rows else None

    async def clear_restore_from(self) -> None:
        """Notes that this output has restored what dropped rows left."""
        await self._execute("UPDATE cursor SET restore_from = NULL WHERE output = ?", (self._output,))

    def _transaction(self) -> AbstractAsyncContextManager[None]:
        return database.transaction(self._db, self._lock)

    async def _execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Carries out one statement that is its own transaction. Returns how many rows it changed."""
        async with self._lock:
            with named_errors():
                return (await self._db.execute(sql, parameters)).rowcount

    async def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return await database.fetch_all(self._db, sql, parameters)

    async def _fetch_int(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return int((await self._rows(sql, parameters))[0][0])
