"""Deletes journal rows by age and size, 500 at a time, so that no other writer waits.

A row that an output has not published yet is kept, whatever its age, up to `state.max_backlog`; what is
dropped then is counted and alerted, and its retained topics are restored from the records.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from oneweb_bridge.config.schema import State
from oneweb_bridge.model.records import Alert, Row
from oneweb_bridge.store import places
from oneweb_bridge.store.engine import Connection, fetch_int, placeholders
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.journal_sql import CURSOR, MOVE_CURSOR, ROW_COLUMNS
from oneweb_bridge.store.places import Place

_log = logging.getLogger("oneweb_bridge.housekeeping")

SLICE = 500
"""Rows deleted in one transaction."""
SCAN_ROWS = 5000
"""Rows looked at in one read."""
ScanPositions = dict[str, int]
"""Up to which row the journal has been scanned for each group of row types, so that it is not scanned again."""
Classes = Callable[[Row], Collection[str]]
"""The classes of topics on which a row has messages."""
Fold = Callable[[int], Awaitable[int]]
"""Brings the samples up to a row into the trends; returns the row up to which all are there, maybe an earlier one."""
TRENDS = "trends"
TRIM_INTERVAL_S = 60.0
RETRY_S = 5.0
"""Seconds until it is tried again where the database could not be written."""
_EVENTS = "('added', 'changed', 'removed', 'components', 'alert')"
_SAMPLES = "('metric', 'history', 'usage')"
_SHORT_LIVED = "('state', 'clear', 'forecast')"
"""Row types deleted within a day once they are published; needed only to restore a broker that lost its state."""
_DAY = 86_400_000


async def housekeeping_loop(
    place: Place,
    settings: Callable[[], State],
    outputs: Callable[[], tuple[str, ...]],
    alert: Callable[[Alert], Awaitable[None]],
    *,
    now: Callable[[], int],
    classes: Classes,
    fold: Fold | None = None,
) -> None:
    """Trims the journal every minute; `now` gives steady time. No sample goes before `fold` has it. Never returns."""
    positions: ScanPositions = {}
    async with places.open_connection(place) as db:
        while True:
            pause = TRIM_INTERVAL_S
            try:
                await trim(db, settings(), outputs(), alert, now(), positions=positions, classes=classes, fold=fold)
            except StoreUnavailable as error:
                _log.warning("the journal could not be trimmed: %s", error)
                # It may be what makes room.
                pause = RETRY_S
            await asyncio.sleep(pause)


async def trim(
    db: Connection,
    state: State,
    outputs: tuple[str, ...],
    alert: Callable[[Alert], Awaitable[None]],
    now: int,
    *,
    positions: ScanPositions | None = None,
    classes: Classes = lambda _: (),
    fold: Fold | None = None,
) -> int:
    """Deletes what is older than configured, and the oldest rows while the file is too large. Returns how many.

    `now` is steady time, as that of the rows.
    """
    positions = {} if positions is None else positions
    dropped = await _drop_backlog(db, outputs, now - round(state.max_backlog * 1000), classes)
    if dropped:
        messages = "1 message" if dropped == 1 else f"{dropped} messages"
        sentence = f"{messages} older than state.max_backlog {'was' if dropped == 1 else 'were'} dropped unsent"
        await alert(Alert(kind="backlog_dropped", message=sentence))
    published = await _published(db, outputs)
    overdue = await last_before(db, now - round(state.max_backlog * 1000), 0, published)
    trends = _Folding(db, fold, overdue, alert)
    deleted = 0
    for kinds, keep_ms in (
        (_EVENTS, state.history.events * 1000),
        (_SAMPLES, state.history.samples * 1000),
        (_SHORT_LIVED, min(_DAY, state.history.events * 1000)),
    ):
        last = await last_before(db, now - round(keep_ms), 0, published)
        if kinds == _SAMPLES and last > positions.get(kinds, 0):
            last = await trends.deletable(last)
        deleted += await _delete_older(db, kinds, last, positions)
    if await db.excess_rows(state.history.max_size):
        deleted += await _delete_down_to(db, state.history.max_size, await trends.deletable(published))
    return deleted


class _Folding:
    """What may be deleted of samples: what is in the trends, and what has waited for them for `state.max_backlog`."""

    def __init__(
        self, db: Connection, fold: Fold | None, overdue: int, alert: Callable[[Alert], Awaitable[None]]
    ) -> None:
        self._db = db
        self._fold = fold
        self._overdue = overdue
        self._alert = alert

    async def deletable(self, last: int) -> int:
        """The last row up to `last` that may be deleted. Samples that the trends will never have are counted."""
        folded = last if self._fold is None else await self._fold(last)
        if folded >= last:
            return last
        lost = await self._count_lost(folded, min(last, self._overdue))
        if lost:
            sentence = f"{lost} samples waited for the trends longer than state.max_backlog and are trimmed without"
            await self._alert(Alert(kind="trends_behind", message=sentence))
        return max(folded, min(last, self._overdue))

    async def _count_lost(self, folded: int, last: int) -> int:
        """How many samples in the rows (folded, last] were not counted yet; they are now."""
        counted = await fetch_int(self._db, CURSOR, (TRENDS,))
        sql = f"SELECT count(*) FROM journal WHERE seq > ? AND seq <= ? AND what IN {_SAMPLES}"
        lost = await fetch_int(self._db, sql, (max(folded, counted), last))
        if lost:
            await self._db.execute(_DROP_UNFOLDED, (TRENDS, last, lost))
        return lost


async def _delete_down_to(db: Connection, max_size: int, last: int) -> int:
    """Deletes the oldest rows up to `last` until the database is small enough. Returns how many."""
    deleted = 0
    while excess := await db.excess_rows(max_size):
        for start in range(0, excess, SLICE):
            count = await _delete_oldest(db, last, min(SLICE, excess - start))
            if not count:
                return deleted
            deleted += count
            await asyncio.sleep(0.01)
    return deleted


async def _published(db: Connection, outputs: tuple[str, ...]) -> int:
    """The row up to which every output has published everything."""
    cursors = [await fetch_int(db, CURSOR, (name,)) for name in outputs]
    head = await fetch_int(db, "SELECT coalesce(max(seq), 0) FROM journal", ())
    # What waits because its class of topics is refused is behind the cursor, and not published.
    lanes = [
        await fetch_int(db, "SELECT coalesce(min(seq), ?) FROM lane WHERE output = ?", (head, name)) for name in outputs
    ]
    return min([*cursors, *lanes, head])


async def _delete_older(db: Connection, kinds: str, last: int, positions: ScanPositions) -> int:
    """Deletes the rows of some types up to `last`: finds them first, without holding up a writer, then deletes."""
    deleted, at = 0, positions.get(kinds, 0)
    while at < last:
        # Rows that are kept for longer lie between, so a step is bounded by what it looks at.
        end = min(at + SCAN_ROWS, last)
        sql = f"SELECT seq FROM journal WHERE seq > ? AND seq <= ? AND what IN {kinds}"
        seqs = [row[0] for row in await db.fetch_all(sql, (at, end))]
        for start in range(0, len(seqs), SLICE):
            part = seqs[start : start + SLICE]
            await db.execute(f"DELETE FROM journal WHERE seq IN ({placeholders(part)})", part)
            await asyncio.sleep(0.01)
        deleted += len(seqs)
        at = positions[kinds] = end
    return deleted


async def last_before(db: Connection, moment: int, low: int, high: int) -> int:
    """The last row up to `high` that was written before `moment`, or `low`. Rows are written in order of time."""
    while low < high:
        middle = (low + high + 1) // 2
        rows = await db.fetch_all("SELECT seq, at FROM journal WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,))
        if rows and rows[0][0] <= high and rows[0][1] < moment:
            low = rows[0][0]
        else:
            high = middle - 1
    return low


async def _delete_oldest(db: Connection, published: int, limit: int) -> int:
    return await db.execute(
        "DELETE FROM journal WHERE seq IN (SELECT seq FROM journal WHERE seq <= ? ORDER BY seq LIMIT ?)",
        (published, limit),
    )


async def _drop_backlog(db: Connection, outputs: tuple[str, ...], before: int, classes: Classes) -> int:
    """Drops unpublished rows written before some moment. Returns how many messages that are."""
    dropped = 0
    for output in outputs:
        cursor = await fetch_int(db, CURSOR, (output,))
        dropped += await _drop_lanes(db, output, cursor, before, classes)
        last = await _last_waiting(db, cursor, before)
        if last > cursor:
            await _drop(db, output, (MOVE_CURSOR, (output, last)), count=last - cursor, low=cursor)
            dropped += last - cursor
    return dropped


async def _drop_lanes(db: Connection, output: str, cursor: int, before: int, classes: Classes) -> int:
    """Drops what waits because the broker refuses its class of topics. Returns how many messages that are."""
    dropped = 0
    for name, seq in await db.fetch_all("SELECT class, seq FROM lane WHERE output = ?", (output,)):
        last = await _last_waiting(db, seq, before)
        if last > seq:
            count = await _count_of_class(db, name, seq, min(last, cursor), classes)
            await _drop(db, output, (_MOVE_LANE, (last, output, name, last)), count=count, low=seq)
            dropped += count
    return dropped


async def _last_waiting(db: Connection, seq: int, before: int) -> int:
    """The last row behind `seq` that was written before some moment, or `seq`."""
    first = await fetch_int(
        db,
        "SELECT coalesce(min(at), ?) FROM (SELECT at FROM journal WHERE seq > ? ORDER BY seq LIMIT 1) AS next",
        (before, seq),
    )
    if first >= before:
        return seq
    head = await fetch_int(db, "SELECT coalesce(max(seq), 0) FROM journal", ())
    return await last_before(db, before, seq, head)


async def _count_of_class(db: Connection, name: str, low: int, high: int, classes: Classes) -> int:
    """How many rows in (low, high] have messages on a class of topics."""
    count = 0
    while rows := await db.fetch_all(
        f"SELECT {ROW_COLUMNS} FROM journal WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?", (low, high, SLICE)
    ):
        count += sum(name in classes(Row(*row)) for row in rows)
        low = rows[-1][0]
    return count


_DROP_UNFOLDED = """
INSERT INTO cursor (output, seq, dropped) VALUES (?, ?, ?) ON CONFLICT (output) DO UPDATE
SET seq = CASE WHEN excluded.seq > cursor.seq THEN excluded.seq ELSE cursor.seq END,
dropped = cursor.dropped + excluded.dropped
"""
_MOVE_LANE = "UPDATE lane SET seq = ? WHERE output = ? AND class = ? AND seq < ?"


_Move = tuple[str, tuple[object, ...]]
"""The statement that moves a position, and its parameters."""
_COUNT_DROPPED = """
INSERT INTO cursor (output, seq, dropped, restore_from) VALUES (?, 0, ?, ?)
ON CONFLICT (output) DO UPDATE SET dropped = cursor.dropped + excluded.dropped,
restore_from = CASE WHEN cursor.restore_from < excluded.restore_from
THEN cursor.restore_from ELSE excluded.restore_from END
"""


async def _drop(db: Connection, output: str, move: _Move, *, count: int, low: int) -> None:
    """Moves a position of an output, counts what it drops, and notes from where it has to restore retained topics."""
    async with db.transaction() as transaction:
        # In the order in which positions are saved: the cursor before its lanes.
        await transaction.execute(_COUNT_DROPPED, (output, count, low))
        await transaction.execute(*move)
