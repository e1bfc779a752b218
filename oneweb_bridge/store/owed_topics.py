"""Retained topics that are not right on the broker, and are tried again until they are."""

from collections.abc import Collection, Sequence

import msgspec

from oneweb_bridge.model.records import Debt
from oneweb_bridge.store.engine import Connection, fetch_int
from oneweb_bridge.store.journal_sql import PAGE_ROWS


class OwedTopics:
    """The topics that one output owes. They are paid with its cursor: see `Journal.save`."""

    def __init__(self, connection: Connection, output: str) -> None:
        self._connection = connection
        self._output = output

    async def add(self, debt: Debt, reason: str) -> bool:
        """Notes durably that a retained topic is not right. Returns whether that is new."""
        count = await self._connection.execute(
            "INSERT INTO owed (output, topic, id, name, reason) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (self._output, debt.topic, debt.id, debt.name, reason),
        )
        return count > 0

    async def next_debts(self, limit: int = PAGE_ROWS, skip: Collection[str] = ()) -> list[Debt]:
        """The next topics that are owed, but for those to skip: those that were tried least come first."""
        rows = await self._connection.fetch_all(
            f"""SELECT topic, id, name, tries FROM owed
                WHERE output = ? AND topic NOT IN ({self._connection.dialect.list_values})
                ORDER BY tries, topic LIMIT ?""",
            (self._output, msgspec.json.encode(list(skip)).decode(), limit),
        )
        return [Debt(*row) for row in rows]

    async def count(self) -> int:
        """How many topics are owed."""
        return await fetch_int(self._connection, "SELECT count(*) FROM owed WHERE output = ?", (self._output,))

    async def count_tries(self, topics: Sequence[str]) -> None:
        """Notes that these topics were tried again in vain."""
        async with self._connection.transaction() as transaction:
            await transaction.execute_many(
                "UPDATE owed SET tries = tries + 1 WHERE output = ? AND topic = ?",
                [(self._output, topic) for topic in topics],
            )
