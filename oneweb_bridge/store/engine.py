"""What the store asks of a database engine: connections, transactions, and the phrases in which the engines differ.

Statements are written once, in what SQLite and PostgreSQL both take: `?` stands for a value, a row that is there
already is met with ON CONFLICT, and no function is used that only one of them has. What differs within a statement is a
phrase of `Dialect`, what differs as a whole (how rows are appended to the journal, the size of the database) a method.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

import msgspec

JournalRow = tuple[int, int, str, str, str, str, int, bytes]
"""The columns of a journal row, in the order of `Row`."""


class Dialect(msgspec.Struct, frozen=True):
    """Phrases of one engine."""

    journal_head: str
    """A query: the number of the last journal row that was ever written, 0 for none."""
    list_values: str
    """A query: the texts of a JSON list that is its one value."""
    body_text: str
    """The column `body` of the journal as text."""
    object_of: Callable[[str, str], str]
    """An aggregate: the JSON object, as text, that has a key and a value of each row. It may be NULL for no rows.

    One row of it is read with less work than many rows, see `packs_pages`.
    """
    packs_pages: bool
    """Whether a page of the journal is read as one text. Python's module for SQLite gives up the interpreter for each
    row, and waits for it again: where other threads work, for longer than all of the reading takes."""
    events_index: str
    """Behind `FROM journal`: a hint to read by the index of events."""
    touch_cursor: str
    """A statement that writes the cursor of an output as it is, so that its commit flushes what was written before."""
    blob: Callable[[bytes], str]
    """Bytes as they are written in a statement, for the condition of a partial index."""


class Transaction(Protocol):
    """A transaction that has begun. What is read here sees its own changes."""

    async def lock(self, table: str) -> None:
        """Waits until no other transaction has changed a table; others wait for this one until it ends.

        First in a transaction that changes many rows of a table in an order of its own, so that it cannot wait for one
        that waits for it. With SQLite there is one writer at a time anyway.
        """

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Executes one statement. Returns how many rows it changed."""

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Executes a statement once for each of `rows`; does nothing when there are none."""

    async def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """The rows that a statement gives."""

    async def append_journal(self, rows: Sequence[JournalRow]) -> None:
        """Appends rows whose numbers follow the journal's last one."""


class Connection(Protocol):
    """An open connection to the database of one instance. Every method raises StoreUnavailable and StoreDamaged."""

    @property
    def dialect(self) -> Dialect:
        """The phrases of this engine."""

    @property
    def lock(self) -> asyncio.Lock:
        """Is held by each statement that writes and by each transaction; connections may share one."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that is whole or not there at all, also when its task is cancelled in the middle."""

    def snapshot(self) -> AbstractAsyncContextManager[Transaction]:
        """Reads of one moment; nothing is written."""

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Executes one statement that is its own transaction. Returns how many rows it changed."""

    async def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """The rows that a statement gives."""

    async def excess_rows(self, max_bytes: int) -> int:
        """About how many of the oldest journal rows must go for the database to take `max_bytes`; 0 for none.

        Too few are told rather than too many: who deletes them asks again.
        """


class Cursor(Protocol):
    """What a statement gives in a thread: its rows, one after the other, or those that are left."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""

    def __iter__(self) -> Iterator[Any]:
        """The rows that were not fetched yet."""

    def fetchone(self) -> Any:
        """The next row; None where there is none."""

    def fetchall(self) -> list[Any]:
        """The rows that were not fetched yet."""


class Reader(Protocol):
    """A connection for one thread at a time, whose errors are those of `named_errors`."""

    @property
    def dialect(self) -> Dialect:
        """The phrases of this engine."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Executes one statement."""

    def interrupt(self) -> None:
        """Ends the statement that runs in another thread; it raises there."""


class Writer(Reader, Protocol):
    """The same for a thread that writes."""

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Cursor:
        """Executes a statement once for each of `rows`."""

    def transaction(self) -> AbstractContextManager[None]:
        """A transaction that is whole or not there at all."""

    def used_bytes(self) -> int:
        """Bytes that the database takes."""


async def fetch_int(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> int:
    """The number that a query gives; 0 where it gives no row. Raises StoreUnavailable."""
    rows = await connection.fetch_all(sql, parameters)
    return int(rows[0][0]) if rows else 0


def placeholders(values: Sequence[object]) -> str:
    """As many question marks as there are values, for `IN (…)`; without any a list that holds nothing."""
    return ", ".join("?" * len(values)) or "NULL"


async def finish_cancelled_or_not(work: Awaitable[Any]) -> None:
    """Waits until `work` has ended. Where the waiting is cancelled, it goes on, and its error is nobody's concern.

    `asyncio.shield` reports such an error since Python 3.14, with a traceback.
    """
    ending = asyncio.ensure_future(work)
    ending.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    await asyncio.wait({ending})
    ending.result()
