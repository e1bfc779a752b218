"""The journal as its readers see it: rows in order, and a position for each output.

A cursor only moves forward, and only after the other side has answered.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from oneweb_bridge.clock import SYSTEM, Clock
from oneweb_bridge.model.records import Positions, Row, Waiting
from oneweb_bridge.store import places
from oneweb_bridge.store.engine import Connection, fetch_int
from oneweb_bridge.store.journal_identity import JournalIdentity
from oneweb_bridge.store.journal_sql import CURSOR, MOVE_CURSOR, PAGE_ROWS, rows_of_page, select_page
from oneweb_bridge.store.owed_topics import OwedTopics
from oneweb_bridge.store.places import Place
from oneweb_bridge.store.retained_content import RetainedContent


@contextlib.asynccontextmanager
async def open_journal(
    place: Place, output: str, *, read_only: bool = False, clock: Clock = SYSTEM
) -> AsyncIterator["Journal"]:
    """The journal in `place` for one output. Raises StoreError."""
    async with places.open_connection(place, read_only=read_only) as db:
        if read_only:
            yield Journal(db, db, output, clock)
            return
        # The end of a server looks like a lost connection, and the bridge goes on: a head that it has published must
        # not be ahead of what the server remembers. The end of this machine ends the bridge, which looks back then.
        flushes = not isinstance(place, Path)
        async with places.open_connection(place, flushes=flushes, lock=db.lock) as cursor_db:
            yield Journal(db, cursor_db, output, clock)


class RestoreMark(msgspec.Struct, frozen=True):
    """The row behind which dropped rows left retained topics to be restored, None where there is nothing to do.

    With it comes how many rows were dropped when that was read.
    """

    after: int | None = None
    dropped: int = 0


class Journal:
    """Rows and positions of one output, with `retained`, `owed` and `identity` as parts. Made by `open_journal`."""

    def __init__(self, connection: Connection, cursor_connection: Connection, output: str, clock: Clock) -> None:
        """The cursor is written by `cursor_connection`, whose commits into a file are not flushed to the disk."""
        self._connection = connection
        self._output = output
        self._cursor_connection = cursor_connection
        self._clock = clock
        self.retained = RetainedContent(self._connection)
        self.owed = OwedTopics(self._connection, output)
        self.identity = JournalIdentity(self._connection)

    async def after(self, seq: int, limit: int = PAGE_ROWS) -> list[Row]:
        """The next rows behind `seq`."""
        dialect = self._connection.dialect
        rows = await self._connection.fetch_all(select_page(dialect, "seq > ?"), (seq, limit))
        return rows_of_page(dialect, rows)

    async def head(self) -> int:
        """The number of the last row that was ever written."""
        return await self._fetch_int(self._connection.dialect.journal_head)

    async def oldest(self) -> int:
        """The number of the oldest row that is still there; 0 when there is none."""
        return await self._fetch_int("SELECT coalesce(min(seq), 0) FROM journal")

    async def cursor(self) -> int:
        """How far this output has got."""
        return await self._fetch_int(CURSOR, (self._output,))

    async def advance(self, seq: int) -> None:
        """Notes that everything up to `seq` is done; never goes back.

        It survives any crash of this process, and a power loss once it is flushed.
        """
        await self._cursor_connection.execute(MOVE_CURSOR, (self._output, seq))

    async def flush_cursor(self) -> None:
        """Flushes to the disk what was noted of the cursor."""
        # A commit flushes all before it, but only one that writes something.
        await self._connection.execute(self._connection.dialect.touch_cursor, (self._output,))

    async def require_lease(self) -> None:
        """Raises StoreUnavailable where the instance is held by another worker, or the database is away."""
        async with self._connection.transaction():
            # Each transaction checks the lease when it begins.
            pass

    async def positions(self) -> Positions:
        """How far this output has got, and the classes of topics that wait."""
        # Both of one moment, and not of a save that is under way.
        async with self._connection.snapshot() as reading:
            cursor, *rows = await reading.fetch_all(
                """SELECT '', coalesce(max(seq), 0), 0 FROM cursor WHERE output = ?
                   UNION ALL SELECT class, seq, waiting FROM lane WHERE output = ?""",
                (self._output, self._output),
            )
        return Positions(cursor[1], {row[0]: Waiting(row[1], row[2]) for row in rows})

    async def save(self, positions: Positions, paid: set[str] | None = None) -> None:
        """Notes durably, all or nothing, how far this output is, and topics that are owed no longer.

        `paid` is read when it is this call's turn, and what was noted of it is taken away. A position never goes back.
        """
        async with self._connection.transaction() as transaction:
            topics = list(paid or ())
            await transaction.execute(MOVE_CURSOR, (self._output, positions.cursor))
            await transaction.execute(
                f"DELETE FROM lane WHERE output = ? AND class NOT IN ({self._connection.dialect.list_values})",
                (self._output, msgspec.json.encode(list(positions.waiting)).decode()),
            )
            await transaction.execute_many(
                """INSERT INTO lane (output, class, seq, waiting) VALUES (?, ?, ?, ?)
                   ON CONFLICT (output, class) DO UPDATE SET waiting = excluded.waiting,
                   seq = CASE WHEN excluded.seq > lane.seq THEN excluded.seq ELSE lane.seq END""",
                [(self._output, name, waiting.seq, waiting.count) for name, waiting in positions.waiting.items()],
            )
            await transaction.execute_many(
                "DELETE FROM owed WHERE output = ? AND topic = ?", [(self._output, topic) for topic in topics]
            )
        if paid:
            paid.difference_update(topics)

    async def set_alerted(self, name: str, *, alerted: bool) -> bool:
        """Notes whether it was alerted that a class of topics waits. Returns whether that is new."""
        count = await self._connection.execute(
            "UPDATE lane SET told = ? WHERE output = ? AND class = ? AND told = ?",
            (alerted, self._output, name, not alerted),
        )
        return count > 0

    async def set_aside(self, seq: int, topic: str, reason: str) -> None:
        """Notes a row that this output gave up."""
        await self._connection.execute(
            """INSERT INTO dead (output, seq, at, topic, reason) VALUES (?, ?, ?, ?, ?)
               ON CONFLICT (output, seq) DO UPDATE
               SET at = excluded.at, topic = excluded.topic, reason = excluded.reason""",
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

    async def restore_mark(self) -> RestoreMark:
        """What this output has to restore of dropped rows."""
        sql = "SELECT restore_from, dropped FROM cursor WHERE output = ?"
        rows = await self._connection.fetch_all(sql, (self._output,))
        return RestoreMark(*rows[0]) if rows else RestoreMark()

    async def clear_restore_mark(self, mark: RestoreMark) -> bool:
        """Notes that this output has restored what dropped rows left, unless more were dropped since the mark was read.

        Returns whether nothing is left to restore.
        """
        sql = "UPDATE cursor SET restore_from = NULL WHERE output = ? AND dropped = ?"
        await self._connection.execute(sql, (self._output, mark.dropped))
        return (await self.restore_mark()).after is None

    async def _fetch_int(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return await fetch_int(self._connection, sql, parameters)
