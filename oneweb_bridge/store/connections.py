"""The two connections that the parts of the store share: one writes, the other reads what was committed."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from oneweb_bridge.clock import Clock, SteadyTime
from oneweb_bridge.store.engine import Connection, Dialect, Transaction
from oneweb_bridge.store.errors import StoreUnavailable


class Connections:
    """The writer's connection and the reader's, with the clocks by which rows are dated.

    Reads have a connection of their own: on that of the writer they would see what another task has not committed.
    """

    def __init__(self, writer: Connection, reader: Connection, *, clock: Clock, steady: SteadyTime) -> None:
        self.clock = clock
        self.steady = steady
        self.write_error: str | None = None
        """Why the last transaction could not be written; None when it was."""
        self._writer = writer
        self._reader = reader

    @property
    def dialect(self) -> Dialect:
        """The phrases of the engine."""
        return self._reader.dialect

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction that is whole or not there at all; one is open at a time. Raises StoreUnavailable."""
        try:
            async with self._writer.transaction() as transaction:
                yield transaction
            self.write_error = None
        except StoreUnavailable as error:
            self.write_error = str(error)
            raise

    async def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """The rows that a statement gives, of what was committed."""
        return await self._reader.fetch_all(sql, parameters)
