"""What commands have left in the database: settings, requested polls, and the last command of each topic."""

from collections.abc import Iterable

import msgspec

from oneweb_bridge.store.connections import Connections
from oneweb_bridge.store.engine import Connection, Transaction


class PollRequest(msgspec.Struct, frozen=True):
    """A poll that a command on `topic` asked for. `remembered`: it is obeyed once, `sender`: the command's own id."""

    number: int
    topic: str
    call: str
    remembered: bool
    sender: str | None


class Setting(msgspec.Struct, frozen=True):
    """A value that a command has set for a call, as JSON, and where the command came from."""

    call: str
    name: str
    value: str
    source: str


async def forget_polls(connection: Connection) -> None:
    """Drops the polls that the worker before had taken: who asked it is answered by nobody.

    One that is retained comes again from the broker and is obeyed then, because its topic has no last command any more.
    """
    async with connection.transaction() as transaction:
        await transaction.execute(
            "DELETE FROM command WHERE topic IN (SELECT topic FROM poll_request WHERE remembered)"
        )
        await transaction.execute("DELETE FROM poll_request")


TopicIdentity = tuple[str, str]
"""A command topic, and the identity of the command on it: its id or its hash."""


class CommandTables:
    """The tables `setting`, `poll_request` and `command`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def settings(self) -> list[Setting]:
        """What commands have set."""
        rows = await self._connections.rows("SELECT call, name, value, source FROM setting")
        return [Setting(*row) for row in rows]

    async def store_command(self, settings: Iterable[Setting], identity: TopicIdentity | None) -> None:
        """Stores settings (an empty value drops one) and, with them, that the command was obeyed."""
        now = self._connections.clock.now()
        async with self._connections.transaction() as transaction:
            for setting in settings:
                await transaction.execute(
                    "DELETE FROM setting WHERE call = ? AND name = ?", (setting.call, setting.name)
                )
                if setting.value:
                    await transaction.execute(
                        "INSERT INTO setting (call, name, value, source, at) VALUES (?, ?, ?, ?, ?)",
                        (setting.call, setting.name, setting.value, setting.source, now),
                    )
            await self._write_identity(transaction, identity)

    async def add_poll_requests(
        self, topic: str, calls: Iterable[str], sender: str | None, identity: TopicIdentity | None
    ) -> list[int]:
        """Stores polls that a command asks for and, with them, the command's identity. Returns their numbers."""
        now, numbers = self._connections.clock.now(), []
        async with self._connections.transaction() as transaction:
            for call in calls:
                key = (topic, call, identity is not None)
                # The newest command of a topic takes the place of the one before, at the end of the queue.
                await transaction.execute(
                    "DELETE FROM poll_request WHERE topic = ? AND call = ? AND remembered = ?", key
                )
                rows = await transaction.fetch_all(
                    """INSERT INTO poll_request (topic, call, remembered, sender, at) VALUES (?, ?, ?, ?, ?)
                       RETURNING number""",
                    (*key, sender, now),
                )
                numbers.append(int(rows[0][0]))
            await self._write_identity(transaction, identity)
        return numbers

    async def _write_identity(self, transaction: Transaction, identity: TopicIdentity | None) -> None:
        if identity is not None:
            now = self._connections.clock.now()
            await transaction.execute(
                """INSERT INTO command (topic, mark, at) VALUES (?, ?, ?)
                   ON CONFLICT (topic) DO UPDATE SET mark = excluded.mark, at = excluded.at""",
                (*identity, now),
            )

    async def poll_requests(self) -> list[PollRequest]:
        """The polls that were asked for and have not ended, in the order in which they came."""
        rows = await self._connections.rows(
            "SELECT number, topic, call, remembered, sender FROM poll_request ORDER BY number"
        )
        return [PollRequest(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows]

    async def last_command_identity(self, topic: str) -> str | None:
        """The identity of the last command that was obeyed on a topic; None when none was."""
        rows = await self._connections.rows("SELECT mark FROM command WHERE topic = ?", (topic,))
        return rows[0][0] if rows else None
