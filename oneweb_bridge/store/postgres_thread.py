"""The engine interface over PostgreSQL for threads: the console's queries, `history`, and the trends."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg import Connection, RawCursor

from oneweb_bridge.store.errors import StoreError, StoreUnavailable
from oneweb_bridge.store.postgres import (
    CHECK_FENCE,
    DIALECT,
    MISSING,
    LeaseLost,
    connection_options,
    named_postgres_errors,
    readable_address,
    register_types,
)
from oneweb_bridge.store.postgres_text import escape_row, escape_rows, restore_row, restore_rows, translate
from oneweb_bridge.store.server import Server

CANCEL_TIMEOUT_S = 1.0
"""Seconds that who interrupts a statement waits for the server to hear of it."""


class ThreadCursor:
    """See `engine.Cursor`. The rows are here already: a page, or what a caller asked to have as a whole."""

    def __init__(self, cursor: "psycopg.Cursor[Any]") -> None:
        self.rowcount = cursor.rowcount
        self._cursor = cursor

    def __iter__(self) -> Iterator[Any]:
        return map(restore_row, self._cursor)

    def fetchone(self) -> Any:
        row = self._cursor.fetchone()
        return None if row is None else restore_row(row)

    def fetchall(self) -> list[Any]:
        return restore_rows(self._cursor.fetchall())


class ThreadConnection:
    """See `engine.Writer`. Connects when it is used, and again after the connection was lost."""

    dialect = DIALECT

    def __init__(self, server: Server, *, read_only: bool) -> None:
        self._server = server
        self._fence = None if read_only else server.fence
        self._db: Connection[Any] | None = None
        self._is_within = False
        self._is_running = False

    def close(self) -> None:
        """Closes what is open."""
        if self._db is not None:
            self._db.close()

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> ThreadCursor:
        if not self._is_within and not sql.lstrip().startswith(("SELECT", "WITH")):
            with self.transaction():
                return self._execute(sql, parameters)
        return self._execute(sql, parameters)

    def _execute(self, sql: str, parameters: Sequence[Any]) -> ThreadCursor:
        with named_postgres_errors(), self._running():
            cursor = self._connected().cursor(binary=True)
            cursor.execute(translate(sql), escape_row(parameters))
            return ThreadCursor(cursor)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> ThreadCursor:
        with named_postgres_errors(), self._running():
            cursor = self._connected().cursor()
            cursor.executemany(translate(sql), escape_rows(rows))
            return ThreadCursor(cursor)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        fence = self._fence
        if fence is None:
            raise StoreUnavailable("this connection only reads")
        with named_postgres_errors(), self._connected().transaction():
            self._is_within = True
            try:
                held = self._execute(CHECK_FENCE, (fence.instance, fence.holder, fence.epoch))
                if held.fetchone() is None:
                    raise LeaseLost(f"another worker holds the instance {fence.instance} now")
                yield
            finally:
                self._is_within = False

    def used_bytes(self) -> int:
        return int(self.execute(_USED_BYTES).fetchone()[0])

    def interrupt(self) -> None:
        # The thread that uses it may drop it meanwhile.
        db = self._db
        if db is not None and self._is_running:
            with contextlib.suppress(psycopg.Error):
                db.cancel_safe(timeout=CANCEL_TIMEOUT_S)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Notes that there is a statement to interrupt."""
        self._is_running = True
        try:
            yield
        finally:
            self._is_running = False

    def _connected(self) -> "Connection[Any]":
        if self._db is None or self._db.closed:
            options = connection_options(self._server, flushes=True)
            with readable_address():
                self._db = Connection.connect(self._server.url, autocommit=True, cursor_factory=RawCursor, **options)
            register_types(self._db)
        return self._db


@contextlib.contextmanager
def open_connection(server: Server, *, read_only: bool) -> Iterator[ThreadConnection]:
    """A connection for one thread at a time. Raises StoreError where there is nothing, and StoreUnavailable."""
    connection = ThreadConnection(server, read_only=read_only)
    try:
        connection.execute("SELECT 1 FROM meta LIMIT 1")
        yield connection
    except psycopg.errors.UndefinedTable:
        raise StoreError(MISSING.format(server.instance)) from None
    finally:
        connection.close()


_USED_BYTES = """
SELECT (SELECT coalesce(sum(octet_length(body)) + 60 * count(*), 0) FROM fine)
+ (SELECT coalesce(sum(octet_length(body)) + 60 * count(*), 0) FROM days)
"""
"""Of the trends: what is stored. Files do not get smaller when rows are deleted."""
