"""Which journal this is: its ids, the places where it was published, and what a broker's head may name of it.

A copy that is put in the place of its original gets a new id, for its later rows have the numbers of others.
"""

import msgspec

from oneweb_bridge.model.heads import Identity, Place
from oneweb_bridge.store.engine import Connection, fetch_int
from oneweb_bridge.store.meta import READ_JOURNAL_IDS, WRITE_META, JournalIds, journal_ids_of, renew_journal_id


class JournalIdentity:
    """Reads and writes durably by which a broker's `head` is recognised."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(self) -> Identity:
        """The ids of the journal, and where the database was published."""
        id, earlier = journal_ids_of(await self._connection.fetch_all(READ_JOURNAL_IDS))
        return Identity(journal_id=id, earlier=earlier, places=await self._places())

    async def renew(self, until: int) -> JournalIds:
        """Gives the journal a new id, durably; rows up to `until` keep the one they have. Returns all ids."""
        async with self._connection.transaction() as transaction:
            return await renew_journal_id(transaction, until)

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
        rows = await self._connection.fetch_all(
            "SELECT value FROM meta WHERE name = 'places' AND NOT EXISTS (SELECT 1 FROM meta WHERE name = 'copied')"
        )
        return msgspec.json.decode(rows[0][0], type=tuple[Place, ...]) if rows else ()

    async def _write_places(self, places: tuple[Place, ...]) -> None:
        value = msgspec.json.encode(places).decode()
        await self._connection.execute(WRITE_META, ("places", value))

    async def head_bound(self) -> int:
        """The last row that a broker's head may name of this journal, though the cursor is behind it.

        It is the last row that was there before the database was opened, and stays over restarts until a head was
        compared: of a copy that is put in the place of its original, later rows have the numbers of others.
        """
        return await fetch_int(
            self._connection, "SELECT coalesce(max(CAST(value AS BIGINT)), 0) FROM meta WHERE name = 'head_bound'"
        )

    async def clear_head_bound(self) -> None:
        """Notes that the broker's head was compared: from now on it is not ahead of the cursor."""
        await self._connection.execute("DELETE FROM meta WHERE name = 'head_bound'")
