"""The part of an instance in PostgreSQL as a state that is moved.

While it is moved no worker can take the instance: the session holds a lock that each claim needs as well, and that
ends with the session. What is written is one transaction, so a process that is killed leaves nothing.
"""

import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor

from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.store.moving import META, SLICE_ROWS, Rows, Table
from oneweb_bridge.store.postgres import CONNECT_TIMEOUT_S, END_TIMEOUT_MS, describe, register_types
from oneweb_bridge.store.postgres_schema import (
    CLAIM_LOCKS,
    check_version,
    instance_key,
    make_schemas_for_move,
    schema_name,
    search_path_of,
)
from oneweb_bridge.store.postgres_text import escape_row, restore_row
from oneweb_bridge.store.postgres_views import VIEW_FIELDS
from oneweb_bridge.store.server import session_tag

HEAD = "journal_head"
"""The table with the last number of the journal, which SQLite keeps by itself."""
JOURNAL = "journal"
LOCK_TIMEOUT = "5s"
_Db = AsyncConnection[Any]


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns what the server or its library says into a StoreError."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(
            f"PostgreSQL: {describe(error)}, and nothing was moved: give this user the right to make schemas, and "
            "those on what the bridge's user has made"
        ) from None
    except psycopg.errors.DiskFull as error:
        raise StoreError(f"PostgreSQL: {describe(error)}, and nothing was moved: make room, and run it again") from None
    except psycopg.ProgrammingError as error:
        raise StoreError(f"PostgreSQL: {describe(error)}, and nothing was moved: look at the address") from None
    except psycopg.Error as error:
        raise StoreError(
            f"PostgreSQL: {describe(error)}, and nothing was moved; if it was cut off at the very end, the next try "
            "says that the state is there"
        ) from None


@contextlib.asynccontextmanager
async def open_server(url: str) -> AsyncIterator["MovingServer"]:
    """A session with a server. Raises StoreError."""
    with explained():
        db = await AsyncConnection.connect(
            url,
            autocommit=True,
            cursor_factory=AsyncRawCursor,
            application_name="oneweb-bridge migrate",
            client_encoding="UTF8",
            connect_timeout=CONNECT_TIMEOUT_S,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
        )
        register_types(db)
        async with db:
            for setting in (
                "statement_timeout = 0",
                "idle_in_transaction_session_timeout = 0",
                "synchronous_commit = on",
            ):
                await db.execute(f"SET {setting}".encode())
            yield MovingServer(db)


class MovingServer:
    """A session with a server. Made by `open_server`. Every method raises StoreError."""

    def __init__(self, db: _Db) -> None:
        self._db = db

    async def instances(self) -> list[str]:
        """The instances that have a state there."""
        try:
            rows = await self._db.execute(b"SELECT instance FROM oneweb.meta WHERE name = 'journal' ORDER BY 1")
        except psycopg.errors.UndefinedTable:
            return []
        return [row[0] for row in await rows.fetchall()]

    @contextlib.asynccontextmanager
    async def read(self, instance: str) -> AsyncIterator["ServerSource"]:
        """The state of an instance that nobody holds, of one moment; it is not changed."""
        await check_version(self._db)
        async with self._held(instance):
            await self._db.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield ServerSource(self._db, await _open_part(self._db, instance))
            await self._db.execute(b"ROLLBACK")

    @contextlib.asynccontextmanager
    async def write(self, instance: str) -> AsyncIterator["ServerTarget"]:
        """The part of an instance that has no state yet; it is there when the block has ended without an error."""
        async with self._held(instance), self._db.transaction():
            epoch = await self._last_epoch(instance)
            await make_schemas_for_move(self._db, instance)
            types = await _open_part(self._db, instance)
            if not await _is_empty(self._db, types):
                raise StoreError(
                    f"PostgreSQL has a state of the instance {instance} already, and nothing was moved: name another "
                    f'database, or remove it first (DROP SCHEMA "{schema_name(instance)}" CASCADE)'
                )
            await self._db.execute(b"DELETE FROM meta")
            yield ServerTarget(self._db, types, epoch)
            await self._db.execute(b"ANALYZE " + ", ".join(f'"{name}"' for name in types).encode())

    @contextlib.asynccontextmanager
    async def _held(self, instance: str) -> AsyncIterator[None]:
        """Keeps workers from taking an instance that none of them has."""
        key = (CLAIM_LOCKS, instance_key(instance))
        try:
            # One that was killed may last a moment longer on the server.
            await self._db.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'".encode())
            await self._db.execute(b"SELECT pg_advisory_lock($1::int4, $2::int4)", key)
            await self._db.execute(b"RESET lock_timeout")
        except psycopg.errors.LockNotAvailable:
            raise StoreError(
                f"the instance {instance} is being moved or taken by a worker, and nothing was moved: "
                "stop its workers, and run it again"
            ) from None
        await self._refuse_holder(instance)
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            await self._db.execute(_END_SESSIONS, (instance, END_TIMEOUT_MS, session_tag(instance)))
        # After an error the lock ends with the session.
        yield
        # A worker that waits need not wait until the server has noticed the end of this session.
        with contextlib.suppress(psycopg.OperationalError):
            await self._db.execute(b"SELECT pg_advisory_unlock($1::int4, $2::int4)", key)

    async def _refuse_holder(self, instance: str) -> None:
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            rows = await self._db.execute(_HOLDER, (instance,))
            if (row := await rows.fetchone()) is not None:
                raise StoreError(
                    f"the instance {instance} is held by the worker {row[0]}, and nothing was moved: stop all its "
                    f"workers, or wait for {row[1]:.0f} s if that one died"
                )

    async def _last_epoch(self, instance: str) -> int:
        """The epoch of the last holder; 0 where there was none."""
        present = await self._db.execute(b"SELECT to_regclass('oneweb.lease')")
        if (await present.fetchone() or (None,))[0] is None:
            return 0
        rows = await self._db.execute(b"SELECT epoch FROM oneweb.lease WHERE instance = $1", (instance,))
        return int((await rows.fetchone() or (0,))[0])


_HOLDER = b"""
SELECT worker, extract(epoch FROM expires - clock_timestamp())::float8 FROM oneweb.lease
WHERE instance = $1 AND expires > clock_timestamp()
"""
_END_SESSIONS = b"""
SELECT pg_terminate_backend(activity.pid, $2) FROM oneweb.lease JOIN pg_stat_activity AS activity
ON activity.application_name = lease.holder || ' ' || $3::text || ' ' || lease.epoch
AND activity.datname = current_database()
WHERE lease.instance = $1
"""
"""Those of a worker that was paused within a transaction, and would commit it when it wakes."""

Types = Mapping[str, Mapping[str, str]]
"""Table -> column -> type, of the part of an instance."""


async def _open_part(db: _Db, instance: str) -> Types:
    """Makes the part of an instance the search path of this transaction."""
    await db.execute(f"SET LOCAL search_path TO {search_path_of(instance)}".encode())
    types: dict[str, dict[str, str]] = {}
    for table, column, type_ in await (await db.execute(_COLUMNS)).fetchall():
        types.setdefault(table, {})[column] = type_
    return types


_COLUMNS = b"""
SELECT pg_class.relname, attname, typname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
JOIN pg_type ON pg_type.oid = atttypid
WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
ORDER BY 1, attnum
"""


async def _is_empty(db: _Db, types: Types) -> bool:
    """Whether nothing was stored yet, as when a worker has made its tables and no more."""
    but = {META: "WHERE name <> 'journal'", HEAD: "WHERE seq > 0"}
    looks = " OR ".join(f'EXISTS (SELECT 1 FROM "{name}" {but.get(name, "")})' for name in types)
    return not (await (await db.execute(f"SELECT {looks}".encode())).fetchone() or (True,))[0]


async def _sequences(db: _Db) -> list[tuple[str, str, str]]:
    """Table, column and sequence of each column that numbers its rows."""
    rows = await (await db.execute(_DEFAULTS)).fetchall()
    matches = [
        (table, column, re.fullmatch(r"nextval\('(.+)'::regclass\)", default)) for table, column, default in rows
    ]
    return [(table, column, match[1]) for table, column, match in matches if match]


_DEFAULTS = b"""
SELECT relname, attname, pg_get_expr(adbin, adrelid) FROM pg_attrdef JOIN pg_class ON pg_class.oid = adrelid
JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' ORDER BY 1
"""


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


class ServerSource:
    """See `moving.Source`. Made by `MovingServer.read`."""

    def __init__(self, db: _Db, types: Types) -> None:
        self._db = db
        self._types = types

    async def journal_id(self) -> str:
        """The id of the journal."""
        rows = await self._db.execute(b"SELECT value FROM meta WHERE name = 'journal'")
        return str((await rows.fetchone() or ("",))[0])

    async def count(self, table: Table) -> int:
        rows = await self._db.execute(f'SELECT count(*) FROM "{table.name}"'.encode())
        return int((await rows.fetchone() or (0,))[0])

    async def rows(self, table: Table) -> Rows:
        query = f'SELECT {_names(table.columns)} FROM "{table.name}" ORDER BY {_names(table.key)}'
        # Twice as quick as COPY, whose rows are awaited each.
        await self._db.execute(f"DECLARE moved NO SCROLL CURSOR FOR {query}".encode())
        while True:
            cursor = await self._db.execute(f"FETCH {SLICE_ROWS} FROM moved".encode(), binary=True)
            rows = await cursor.fetchall()
            if not rows:
                break
            # True and False are 1 and 0 for SQLite as well.
            yield [restore_row(row) for row in rows if table.name != META or VIEW_FIELDS not in row]
        await self._db.execute(b"CLOSE moved")

    async def counters(self) -> Mapping[str, int]:
        rows = await self._db.execute(f"SELECT seq FROM {HEAD}".encode())
        counters = {JOURNAL: int((await rows.fetchone() or (0,))[0])}
        for table, _, sequence in await _sequences(self._db):
            rows = await self._db.execute(b"SELECT pg_sequence_last_value($1::text::regclass)", (sequence,))
            counters[table] = int((await rows.fetchone() or (0,))[0] or 0)
        return counters


class ServerTarget:
    """See `moving.Target`. Made by `MovingServer.write`. The rows of the journal get the epoch of the last holder."""

    def __init__(self, db: _Db, types: Types, epoch: int) -> None:
        self._db = db
        self._types = types
        self._epoch = epoch

    async def write(self, table: Table, rows: Rows) -> None:
        more = {"epoch": self._epoch} if table.name == JOURNAL else {}
        columns = (*table.columns, *more)
        types = [self._types[table.name][column] for column in columns]
        statement = f'COPY "{table.name}" ({_names(columns)}) FROM STDIN (FORMAT BINARY)'
        async with self._db.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            copy.set_types(types)
            async for slice_ in rows:
                for row in slice_:
                    values = [*row, *more.values()]
                    await copy.write_row(escape_row([_as(t, v) for t, v in zip(types, values, strict=True)]))

    async def write_counters(self, counters: Mapping[str, int]) -> None:
        await self._db.execute(f"UPDATE {HEAD} SET seq = $1".encode(), (counters.get(JOURNAL, 0),))
        for table, column, sequence in await _sequences(self._db):
            rows = await self._db.execute(f'SELECT max("{column}") FROM "{table}"'.encode())
            last = max(int((await rows.fetchone() or (0,))[0] or 0), counters.get(table, 0))
            if last > 0:
                await self._db.execute(b"SELECT setval($1::text::regclass, $2)", (sequence, last))


def _as(type_: str, value: Any) -> Any:
    """A value of SQLite, whose columns hold values of every type, for a column of PostgreSQL."""
    if type_ == "bool" and value is not None:
        return bool(value)
    if type_ == "bytea" and isinstance(value, str):
        return value.encode()
    if type_ == "text" and isinstance(value, bytes):
        return value.decode()
    return value
