"""The connection by which one output reads the journal and writes what is its own.

Every output has its own, so that reading never waits for a poll that is writing.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiosqlite

from oneweb_bridge.store import database
from oneweb_bridge.store.errors import named_errors

PAGE_ROWS = 500
"""Rows read at a time."""
ROW_COLUMNS = "seq, at, entity, id, what, name, ts, body"
"""The columns of a journal row, in the order of `Row`."""


class OutputConnection:
    """An open connection and the name of its output. Every method raises StoreUnavailable."""

    def __init__(self, db: aiosqlite.Connection, output: str) -> None:
        self.db = db
        self.output = output
        self.lock = asyncio.Lock()

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """A transaction that is whole or not there at all."""
        return database.transaction(self.db, self.lock)

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Carries out one statement that is its own transaction. Returns how many rows it changed."""
        async with self.lock:
            with named_errors():
                return (await self.db.execute(sql, parameters)).rowcount

    async def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """The rows that a statement gives."""
        return await database.fetch_all(self.db, sql, parameters)

    async def fetch_int(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """The number that a statement gives."""
        return int((await self.fetch_all(sql, parameters))[0][0])
