"""What is done with the database of an instance, whatever its engine, before a bridge works with it."""

import msgspec

from oneweb_bridge.clock import Anchor, Clock, SteadyTime, anchor_of
from oneweb_bridge.store.engine import Connection, fetch_int
from oneweb_bridge.store.meta import READ_JOURNAL_IDS, WRITE_META, JournalIds, journal_ids_of, renew_journal_id

NOTE_HEAD_BOUND = "INSERT INTO meta (name, value) VALUES ('head_bound', ?) ON CONFLICT DO NOTHING"
"""Notes the last row before this process appends any; see `JournalIdentity.head_bound`."""


async def prepare(connection: Connection, clock: Clock) -> tuple[SteadyTime, JournalIds]:
    """Makes a restored copy a database of its own, notes where the journal ends, and continues steady time."""
    await _renew_copy(connection)
    head = await fetch_int(connection, connection.dialect.journal_head)
    await connection.execute(NOTE_HEAD_BOUND, (str(head),))
    steady = await steady_time(connection, clock)
    return steady, journal_ids_of(await connection.fetch_all(READ_JOURNAL_IDS))


async def _renew_copy(connection: Connection) -> None:
    """Gives the journal of a restored copy an id of its own, also when the same copy is restored again.

    Where the original was published is the original's, so the copy drops it.
    """
    if not await connection.fetch_all("SELECT 1 FROM meta WHERE name = 'copied'"):
        return
    until = await fetch_int(connection, connection.dialect.journal_head)
    async with connection.transaction() as transaction:
        await renew_journal_id(transaction, until)
        await transaction.execute("DELETE FROM meta WHERE name IN ('copied', 'places')")


async def steady_time(connection: Connection, clock: Clock) -> SteadyTime:
    """The steady time of this database, going on where it was; see `clock`. The first anchor heals what came before."""
    latest = [row[0] for row in await connection.fetch_all("SELECT at FROM journal ORDER BY seq DESC LIMIT 1")]
    stored = await connection.fetch_all("SELECT value FROM meta WHERE name = 'steady'")
    before = msgspec.json.decode(stored[0][0], type=Anchor) if stored else None
    now = clock.now() if before is None else before.steady
    anchor = anchor_of(clock, before, min([now, *latest]) if before is None else max([now, *latest]))
    if anchor != before:
        async with connection.transaction() as transaction:
            for statement in _BEGIN_STEADY_TIME if before is None else ():
                await transaction.execute(statement, [anchor.steady] * statement.count("?"))
            await transaction.execute(WRITE_META, ("steady", msgspec.json.encode(anchor).decode()))
    return SteadyTime(clock, anchor)


_BEGIN_STEADY_TIME = (
    "UPDATE journal SET at = ? WHERE seq > (SELECT coalesce(min(seq), 0) FROM cursor)",
    "UPDATE journal SET at = ? WHERE seq = (SELECT max(seq) FROM journal)",
    "UPDATE record SET missing_since = ? WHERE missing > 0",
    "UPDATE record SET presence_at = 0 WHERE presence_at > ?",
    "UPDATE call SET held_since = ? WHERE held_since > 0",
    "UPDATE discovery SET marked_at = ? WHERE marked_at > ?",
    "UPDATE discovery SET sent_at = ? WHERE sent_at > ?",
)
"""Ages that were measured with the wall clock may be wrong: they begin anew, so that none of them is cut short."""
