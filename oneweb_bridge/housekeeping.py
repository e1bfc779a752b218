"""What keeps the database within its bounds: old rows go in small slices, so that no poll ever waits for it.

A row that an output has not sent yet is kept, whatever its age, up to `state.max_backlog`; what is
dropped then is counted and alerted, and its retained topics are restored from the records.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiosqlite

from oneweb_bridge import database
from oneweb_bridge.model import Alert
from oneweb_bridge.settings import State

_log = logging.getLogger("oneweb_bridge.housekeeping")

SLICE = 500
"""Rows deleted in one transaction."""
LOOK = 5000
"""Rows looked at in one read."""
Marks = dict[str, int]
"""How far the journal has been looked through for each group of kinds, so that it is not looked through again."""
EVERY = 60.0
RETRY = 5.0
"""Seconds until it is tried again where the database could not be written."""
_EVENTS = "('added', 'changed', 'removed', 'components')"
_SAMPLES = "('metric', 'history', 'usage')"
_PASSING = "('state', 'alert', 'clear')"
"""Rows that are of no use once they are published, but for a broker that forgets."""
_DAY = 86_400_000


async def keep(
    path: Path,
    settings: Callable[[], State],
    outputs: tuple[str, ...],
    alert: Callable[[Alert], Awaitable[None]],
    now: Callable[[], int],
) -> None:
    """Trims the journal every minute; `now` gives steady time. Never returns."""
    marks: Marks = {}
    async with database.connected(path) as db:
        while True:
            pause = EVERY
            try:
                await trim(db, settings(), outputs, alert, now(), marks=marks)
            except sqlite3.OperationalError as error:
                _log.warning("the journal could not be trimmed: %s", error)
                # A script that failed in its middle would hold up every other writer.
                await db.rollback()
                # It may be what makes room.
                pause = RETRY
            await asyncio.sleep(pause)


async def trim(
    db: aiosqlite.Connection,
    state: State,
    outputs: tuple[str, ...],
    alert: Callable[[Alert], Awaitable[None]],
    now: int,
    *,
    marks: Marks | None = None,
) -> int:
    """Deletes what is older than configured, and the oldest rows while the file is too large. Returns how many.

    `now` is steady time, as that of the rows.
    """
    marks = {} if marks is None else marks
    await _drop_backlog(db, state, outputs, alert, now)
    published = await _published(db, outputs)
    deleted = 0
    for kinds, keep_ms in (
        (_EVENTS, state.history.events * 1000),
        (_SAMPLES, state.history.samples * 1000),
        (_PASSING, min(_DAY, state.history.events * 1000)),
    ):
        last = await last_before(db, now - round(keep_ms), 0, published)
        deleted += await _delete_older(db, kinds, last, marks)
    while await _used(db) > state.history.max_size and (count := await _delete_oldest(db, published)):
        deleted += count
        await asyncio.sleep(0.01)
    return deleted


async def _published(db: aiosqlite.Connection, outputs: tuple[str, ...]) -> int:
    """Everything up to this row has been sent by every output."""
    found = [await _one(db, "SELECT coalesce(max(seq), 0) FROM cursor WHERE output = ?", (name,)) for name in outputs]
    head = await _one(db, "SELECT coalesce(max(seq), 0) FROM journal", ())
    return min([*found, head])


async def _delete_older(db: aiosqlite.Connection, kinds: str, last: int, marks: Marks) -> int:
    """Deletes the rows of some kinds up to `last`: looks first, without holding up a writer, then deletes."""
    deleted, at = 0, marks.get(kinds, 0)
    while at < last:
        # Rows that are kept for longer lie between, so a step is bounded by what it looks at.
        end = min(at + LOOK, last)
        sql = f"SELECT seq FROM journal WHERE seq > ? AND seq <= ? AND what IN {kinds}"
        found = [row[0] for row in await db.execute_fetchall(sql, (at, end))]
        for start in range(0, len(found), SLICE):
            part = found[start : start + SLICE]
            await db.execute(f"DELETE FROM journal WHERE seq IN ({', '.join('?' * len(part))})", part)
            await asyncio.sleep(0.01)
        deleted += len(found)
        at = marks[kinds] = end
    return deleted


async def last_before(db: aiosqlite.Connection, moment: int, low: int, high: int) -> int:
    """The last row up to `high` that was written before `moment`, or `low`. Rows are written in order of time."""
    while low < high:
        middle = (low + high + 1) // 2
        rows = list(
            await db.execute_fetchall("SELECT seq, at FROM journal WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,))
        )
        if rows and rows[0][0] <= high and rows[0][1] < moment:
            low = rows[0][0]
        else:
            high = middle - 1
    return low


async def _delete_oldest(db: aiosqlite.Connection, published: int) -> int:
    cursor = await db.execute(
        "DELETE FROM journal WHERE seq IN (SELECT seq FROM journal WHERE seq <= ? ORDER BY seq LIMIT ?)",
        (published, SLICE),
    )
    return cursor.rowcount


async def _used(db: aiosqlite.Connection) -> int:
    """Bytes of the file that are in use; free pages are used again before it grows."""
    pages = await database.pragma(db, "page_count") - await database.pragma(db, "freelist_count")
    return pages * await database.pragma(db, "page_size")


async def _drop_backlog(
    db: aiosqlite.Connection,
    state: State,
    outputs: tuple[str, ...],
    alert: Callable[[Alert], Awaitable[None]],
    now: int,
) -> None:
    before = now - round(state.max_backlog * 1000)
    for output in outputs:
        cursor = await _one(db, "SELECT coalesce(max(seq), 0) FROM cursor WHERE output = ?", (output,))
        first = await _one(
            db,
            "SELECT coalesce(min(at), ?) FROM (SELECT at FROM journal WHERE seq > ? ORDER BY seq LIMIT 1)",
            (now, cursor),
        )
        if first >= before:
            continue
        head = await _one(db, "SELECT coalesce(max(seq), 0) FROM journal", ())
        last = await last_before(db, before, cursor, head)
        await _drop(db, output, cursor, last)
        await alert(
            Alert(
                kind="backlog_dropped",
                message=f"{last - cursor} messages older than state.max_backlog were dropped unsent",
            )
        )


async def _drop(db: aiosqlite.Connection, output: str, cursor: int, last: int) -> None:
    await db.executescript(
        f"""BEGIN IMMEDIATE;
        INSERT INTO cursor VALUES ('{output}', {last}) ON CONFLICT (output) DO UPDATE SET seq = max(seq, excluded.seq);
        INSERT INTO meta VALUES ('dropped', '{last - cursor}')
          ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + {last - cursor};
        INSERT INTO meta VALUES ('restore_from', '{cursor}') ON CONFLICT (name) DO NOTHING;
        COMMIT;"""
    )


async def _one(db: aiosqlite.Connection, sql: str, parameters: tuple[object, ...]) -> int:
    async with db.execute(sql, parameters) as cursor:
        row = await cursor.fetchone()
    return int(row[0]) if row else 0
