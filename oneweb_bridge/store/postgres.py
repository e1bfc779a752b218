"""The engine interface over PostgreSQL: connections, the fence in every transaction, and the phrases of its SQL.

Each instance has a schema of its own with its part of every table, and that schema is the search path: so statements
need no `instance`. See `postgres_schema`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.types.numeric import Int8BinaryDumper

from oneweb_bridge.store.engine import Dialect, JournalRow, finish_cancelled_or_not
from oneweb_bridge.store.errors import StoreDamaged, StoreError, StoreUnavailable
from oneweb_bridge.store.postgres_schema import search_path_of
from oneweb_bridge.store.postgres_text import escape_row, escape_rows, restore_rows, translate
from oneweb_bridge.store.server import Fence, Server

DIALECT = Dialect(
    journal_head="SELECT coalesce(max(seq), 0) FROM journal_head",
    list_values="SELECT json_array_elements_text(CAST(? AS json))",
    body_text="convert_from(body, 'UTF8')",
    object_of="json_object_agg({}, {})::text".format,
    packs_pages=False,
    events_index="",
    touch_cursor="UPDATE cursor SET seq = seq WHERE output = ?",
    blob=lambda value: f"'\\x{value.hex()}'::bytea",
)
MIN_COPY_ROWS = 20
"""Rows from which on COPY is quicker than an INSERT for each."""
CONNECT_TIMEOUT_S = 10
TCP_OPTIONS: dict[str, Any] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""By which a server that went away without a word is noticed within half a minute; the system's own take hours."""
_SERVER_TCP_SETTINGS = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
"""By which the server notices the same of a worker, whose locks it holds until then."""
MISSING = "state.url: the database has nothing of the instance {}: run the bridge first, or name another database"
END_TIMEOUT_MS = 5000
"""How long a backend that lost its client may take to end, before its database counts as away."""


class LeaseLost(StoreUnavailable):
    """Another worker holds the instance now, so that nothing was written."""


CHECK_FENCE = """
SELECT 1 FROM oneweb.lease WHERE instance = ? AND holder = ? AND epoch = ? AND expires > clock_timestamp()
FOR KEY SHARE
"""
"""Holds the lease's key for the transaction: a takeover changes it and waits, a renewal does not change it.

Not FOR SHARE, because then a renewal would wait as well, without end where transactions overlap.
"""


@contextlib.contextmanager
def named_postgres_errors() -> Iterator[None]:
    """Turns the errors of psycopg into those of the store. Raises StoreUnavailable and StoreDamaged."""
    try:
        yield
    except (psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted) as error:
        raise StoreDamaged(describe(error)) from error
    except _PASSING as error:
        raise StoreUnavailable(describe(error)) from error


_PASSING = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)
"""What is tried again. `InternalError` has what the server says of a session or of itself: a transaction that it ended
because the worker stood still in it, a server that is a standby now, a file that it cannot extend."""


def describe(error: Exception) -> str:
    """The first line of what the server or the library says, but nothing that quotes an address with its password."""
    if _is_of_address(error):
        return "its parameters are not those of libpq"
    return str(error).partition("\n")[0] or type(error).__name__


def _is_of_address(error: Exception) -> bool:
    """Whether libpq could not read an address, of which it quotes a part then: no server has said it."""
    return isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None


@contextlib.contextmanager
def readable_address() -> Iterator[None]:
    """Around a connect. Raises StoreError for an address that libpq cannot read, besides what psycopg raises."""
    try:
        yield
    except psycopg.ProgrammingError as error:
        if not _is_of_address(error):
            raise
        raise StoreError(f"state.url: {describe(error)}: look at the address") from None


async def connect(url: str, **options: Any) -> "AsyncConnection[Any]":
    """A session whose statements are their own transactions. Raises StoreError, besides what psycopg raises."""
    with readable_address():
        db = await AsyncConnection.connect(url, autocommit=True, cursor_factory=AsyncRawCursor, **options)
    register_types(db)
    return db


class PostgresTransaction:
    """See `engine.Transaction`. `epoch` is written into each journal row."""

    def __init__(self, db: "AsyncConnection[Any]", epoch: int) -> None:
        self._db = db
        self._epoch = epoch

    async def lock(self, table: str) -> None:
        await self._db.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE".encode())

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return (await self._db.execute(translate(sql), escape_row(parameters))).rowcount

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            async with self._db.cursor() as cursor:
                await cursor.executemany(translate(sql), escape_rows(rows))

    async def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        cursor = await self._db.execute(translate(sql), escape_row(parameters), binary=True)
        return restore_rows(await cursor.fetchall())

    async def append_journal(self, rows: Sequence[JournalRow]) -> None:
        if not rows:
            return
        moved = await self.execute("UPDATE journal_head SET seq = ? WHERE seq = ?", (rows[-1][0], rows[0][0] - 1))
        if moved != 1:
            raise StoreUnavailable("the journal has grown meanwhile")
        if len(rows) < MIN_COPY_ROWS:
            await self.execute_many(_INSERT_ROW, [(*row, self._epoch) for row in rows])
            return
        async with self._db.cursor() as cursor, cursor.copy(_COPY_ROWS) as copy:
            copy.set_types(_ROW_TYPES)
            for row in rows:
                await copy.write_row((*escape_row(row), self._epoch))


_INSERT_ROW = """
INSERT INTO journal (seq, at, entity, id, what, name, ts, body, epoch) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_COPY_ROWS = b"COPY journal (seq, at, entity, id, what, name, ts, body, epoch) FROM STDIN (FORMAT BINARY)"
_ROW_TYPES = ("int8", "int8", "text", "text", "text", "text", "int8", "bytea", "int8")

Open = Callable[[], Awaitable["AsyncConnection[Any]"]]


class PostgresConnection:
    """See `engine.Connection`. Connects when it is used, and again after the connection was lost."""

    dialect = DIALECT

    def __init__(self, open_: Open, fence: Fence | None = None, lock: asyncio.Lock | None = None) -> None:
        """Without a `fence` nothing may be written."""
        self.lock = asyncio.Lock() if lock is None else lock
        self._open = open_
        self._fence = fence
        self._db: AsyncConnection[Any] | None = None
        self._backend = 0
        self._lost_backend: int | None = None

    async def close(self) -> None:
        """Closes what is open; what comes then connects again."""
        if self._db is not None:
            await self._db.close()
            self._db = None

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresTransaction]:
        if self._fence is None:
            raise StoreUnavailable("this connection only reads")
        async with self.lock, self._begun(b"BEGIN") as transaction:
            fence = self._fence
            held = await transaction.fetch_all(CHECK_FENCE, (fence.instance, fence.holder, fence.epoch))
            if not held:
                raise LeaseLost(f"another worker holds the instance {fence.instance} now")
            yield transaction

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PostgresTransaction]:
        async with self.lock, self._begun(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as transaction:
            yield transaction

    @contextlib.asynccontextmanager
    async def _begun(self, begin: bytes) -> AsyncIterator[PostgresTransaction]:
        with named_postgres_errors():
            db = await self._connected()
            try:
                await db.execute(begin)
                yield PostgresTransaction(db, 0 if self._fence is None else self._fence.epoch)
                await db.execute(b"COMMIT")
            except BaseException:
                await finish_cancelled_or_not(self._roll_back(db))
                raise

    async def _roll_back(self, db: "AsyncConnection[Any]") -> None:
        """Ends the transaction, or the connection where that cannot be done."""
        try:
            await db.execute(b"ROLLBACK")
        except psycopg.Error:
            self._lost_backend = self._lost_backend or self._backend
            await db.close()

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        async with self.transaction() as transaction:
            return await transaction.execute(sql, parameters)

    async def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        async with self.lock:
            with named_postgres_errors():
                return await PostgresTransaction(await self._connected(), 0).fetch_all(sql, parameters)

    async def excess_rows(self, max_bytes: int) -> int:
        # Deleted rows leave holes that are filled again: no file gets smaller, so rows are counted.
        rows = await self.fetch_all(_EXCESS_ROWS, (max_bytes,))
        return max(0, int(rows[0][0]))

    async def _connected(self) -> "AsyncConnection[Any]":
        """The open connection. A backend that was lost in a transaction has ended before, one way or the other."""
        if self._db is not None and not self._db.closed:
            return self._db
        self._db = await self._open()
        self._backend = self._db.info.backend_pid
        if self._lost_backend is not None:
            ended = await self._db.execute(_END_BACKEND, (self._lost_backend, END_TIMEOUT_MS))
            if (await ended.fetchone() or (None,))[0] is False:
                await self._db.close()
                raise StoreUnavailable("the server has not ended a connection that was lost")
            self._lost_backend = None
        return self._db


_END_BACKEND = b"""
SELECT bool_and(pg_terminate_backend(pid, $2)) FROM pg_stat_activity
WHERE pid = $1 AND application_name = current_setting('application_name')
"""
_EXCESS_ROWS = """
WITH sample AS (
    SELECT coalesce(avg(octet_length(body) + octet_length(id)), 0) + 260 AS bytes
    FROM (SELECT body, id FROM journal ORDER BY seq DESC LIMIT 1000) AS newest
), others AS (
    SELECT coalesce(sum(pg_total_relation_size(oid)), 0) AS bytes FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
    AND relname NOT IN ('journal', 'fine', 'days', 'stream', 'bucket_product', 'pending')
)
SELECT ceil((SELECT count(*) FROM journal) - (? - others.bytes) / sample.bytes) FROM sample, others
"""
"""260 bytes are what a row and its places in the indexes take beside its texts."""


def idle_timeout(lease: float) -> str:
    """For how long a session may stand still within a transaction, under a lease of so many seconds."""
    return f"{round(lease * 250)}ms"


def connection_options(server: Server, *, flushes: bool) -> dict[str, Any]:
    """What a session of an instance is opened with."""
    settings = {
        "search_path": search_path_of(server.instance),
        "synchronous_commit": "on" if flushes else "off",
        # Who was stopped within a transaction must not hold up the takeover, nor others, for long.
        "idle_in_transaction_session_timeout": idle_timeout(server.lease),
        **_SERVER_TCP_SETTINGS,
    }
    return {
        "application_name": server.application_name,
        "client_encoding": "UTF8",
        "connect_timeout": CONNECT_TIMEOUT_S,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        **TCP_OPTIONS,
    }


def register_types(db: "psycopg.BaseConnection[Any]") -> None:
    """One type for all whole numbers, so that a statement is prepared once and not for each size."""
    db.adapters.register_dumper(int, Int8BinaryDumper)


@contextlib.asynccontextmanager
async def open_connection(
    server: Server, *, read_only: bool = False, flushes: bool = True, lock: asyncio.Lock | None = None
) -> AsyncIterator[PostgresConnection]:
    """A connection to the part of an instance. Raises StoreError where there is none, and StoreUnavailable."""

    def open_session() -> Awaitable[AsyncConnection[Any]]:
        return connect(server.url, **connection_options(server, flushes=flushes))

    connection = PostgresConnection(open_session, None if read_only else server.fence, lock)
    try:
        await connection.fetch_all("SELECT 1 FROM meta LIMIT 1")
        yield connection
    except psycopg.errors.UndefinedTable:
        raise StoreError(MISSING.format(server.instance)) from None
    finally:
        await connection.close()
