"""The two connections that the parts of the store share: one writes, the other reads what was committed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiosqlite

from oneweb_bridge.clock import Clock, SteadyTime
from oneweb_bridge.store import database
from oneweb_bridge.store.errors import StoreUnavailable


class OpenTransaction:
    """A transaction that has begun. What is read here sees its own changes."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> aiosqlite.Cursor:
        """Executes one statement."""
        return await self._db.execute(sql, parameters)

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Executes a statement once for each of `rows`; does nothing when there are none."""
        if rows:
            await self._db.executemany(sql, rows)

    async def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """The rows that a statement gives."""
        return list(await self._db.execute_fetchall(sql, parameters))


class Connections:
    """The writer's connection and the reader's, with the clocks by which rows are dated.

    Reads have a connection of their own: on that of the writer they would see what another task has not committed.
    """

    def __init__(
        self, writer: aiosqlite.Connection, reader: aiosqlite.Connection, *, clock: Clock, steady: SteadyTime
    ) -> None:
        self.clock = clock
        self.steady = steady
        self.write_error: str | None = None
        """Why the last transaction could not be written; None when it was."""
        self._writer = writer
        self._reader = reader
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[OpenTransaction]:
        """A transaction that is whole or not there at all; one is open at a time. Raises StoreUnavailable."""
        try:
            async with database.transaction(self._writer, self._lock):
                yield OpenTransaction(self._writer)
            self.write_error = None
        except StoreUnavailable as error:
            self.write_error = str(error)
            raise

    async def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """The rows that a statement gives, of what was committed."""
        return await database.fetch_all(self._reader, sql, parameters)
