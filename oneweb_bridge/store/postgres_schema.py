"""The schemas in PostgreSQL: `oneweb` for all instances, and one for the part of each instance.

A table of an instance is a partition of the table of the same name in `oneweb`. So people see one table with the column
`instance`, while a bridge works on its own part alone, with keys and statements that need no `instance`.
"""

import hashlib
import zlib
from importlib.resources import files
from typing import Any

from psycopg import AsyncConnection, sql

from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.store.meta import new_journal_id

VERSION = 1
"""The version of both schemas that this program makes."""
MAX_NAME_BYTES = 63
"""Of longer names PostgreSQL takes the beginning."""
LOCK_SCHEMAS = f"SELECT pg_advisory_xact_lock({0x6F6E6577})"
"""Takes the lock under which schemas are changed, until the transaction ends: of two that come at once, one waits."""
_MOVE_LOCK = 0x6F6E6578
"""The key of the advisory lock of who makes tables for a state that is moved there, until all of it is there; shared by
all others that make tables."""
CLAIM_LOCKS = 0x6F6E6577
"""The first key of the advisory locks of instances. A worker that claims an instance shares its lock with others;
`migrate` holds it alone."""


def schema_name(instance: str) -> str:
    """The schema that holds an instance's partitions. `instance` has only letters, digits, '_' and '-'."""
    name = f"oneweb_{instance}"
    if len(name) <= MAX_NAME_BYTES:
        return name
    return f"{name[:46]}_{hashlib.sha256(instance.encode()).hexdigest()[:16]}"


def search_path_of(instance: str) -> str:
    """The search path of a session that works for an instance."""
    return f'"{schema_name(instance)}",oneweb'


def instance_key(instance: str) -> int:
    """The second key of an instance's advisory lock: 32 bits with a sign. Two may have the same, and then wait."""
    key = zlib.crc32(instance.encode())
    return key - (1 << 32) if key >= 1 << 31 else key


async def try_to_lock(db: "AsyncConnection[Any]", instance: str) -> bool:
    """Keeps the state of an instance from being moved until this transaction ends.

    False where it is being moved, or where its tables are missing and another state is moved there: that may last long.
    """
    key = (CLAIM_LOCKS, instance_key(instance))
    rows = await db.execute(b"SELECT pg_try_advisory_xact_lock_shared($1::int4, $2::int4)", key)
    if not (await rows.fetchone() or (False,))[0]:
        return False
    if await _is_made(db, instance):
        return True
    rows = await db.execute(b"SELECT pg_try_advisory_xact_lock_shared($1)", (_MOVE_LOCK,))
    return bool((await rows.fetchone() or (False,))[0])


async def make_schemas_for_move(db: "AsyncConnection[Any]", instance: str) -> None:
    """As `make_schemas`, in a transaction that lasts: no worker has tables to make meanwhile, and none waits for it."""
    await db.execute(b"SELECT pg_advisory_xact_lock($1)", (_MOVE_LOCK,))
    await _make_missing(db, instance)


async def _is_made(db: "AsyncConnection[Any]", instance: str) -> bool:
    """Whether there is nothing to make for an instance."""
    return await _read_version(db) == VERSION and await _has_tables(db, instance)


async def check_version(db: "AsyncConnection[Any]") -> None:
    """Raises StoreError where the schema is not what this program makes."""
    version = await _read_version(db)
    refuse_newer(version)
    if 0 < version < VERSION:
        raise StoreError(
            f"the schema oneweb was made by an older oneweb-bridge (schema {version}, needed {VERSION}): "
            "start a worker of this version once, and stop it"
        )


async def make_schemas(db: "AsyncConnection[Any]", instance: str) -> None:
    """Makes what is missing for an instance, all or nothing. Raises StoreError for a schema that is newer."""
    if await _is_made(db, instance):
        return
    async with db.transaction():
        await db.execute(LOCK_SCHEMAS.encode())
        await _make_missing(db, instance)


async def _make_missing(db: "AsyncConnection[Any]", instance: str) -> None:
    await _make_shared(db)
    if not await _has_tables(db, instance):
        await _make_part(db, instance)


async def _make_shared(db: "AsyncConnection[Any]") -> None:
    version = await _read_version(db)
    refuse_newer(version)
    if version == 0:
        await db.execute(_text("postgres_shared.sql"))
        await db.execute(b"INSERT INTO oneweb.version VALUES ($1)", (VERSION,))


async def _read_version(db: "AsyncConnection[Any]") -> int:
    """The version of the schema; 0 where there is none."""
    present = await db.execute(b"SELECT to_regclass('oneweb.version')")
    if (await present.fetchone() or (None,))[0] is None:
        return 0
    return int((await (await db.execute(b"SELECT max(version) FROM oneweb.version")).fetchone() or (0,))[0])


def refuse_newer(version: int) -> None:
    """Raises StoreError for the version of a schema that this program does not know."""
    if version > VERSION:
        raise StoreError(
            f"the schema oneweb was made by a newer oneweb-bridge (schema {version}, known {VERSION}): upgrade"
        )


async def _has_tables(db: "AsyncConnection[Any]", instance: str) -> bool:
    rows = await db.execute(b"SELECT to_regclass($1)", (f'"{schema_name(instance)}".meta',))
    return (await rows.fetchone() or (None,))[0] is not None


async def _make_part(db: "AsyncConnection[Any]", instance: str) -> None:
    schema = sql.Identifier(schema_name(instance))
    await db.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
    await db.execute(sql.SQL("SET LOCAL search_path TO {}, oneweb").format(schema))
    await db.execute(_text("postgres.sql"))
    await db.execute(b"INSERT INTO meta VALUES ('journal', $1)", (new_journal_id(),))
    for name in await _tables(db):
        table = sql.Identifier(name)
        await db.execute(
            sql.SQL('ALTER TABLE {} ADD COLUMN instance text COLLATE "C" NOT NULL DEFAULT {}').format(
                table, sql.Literal(instance)
            )
        )
        await db.execute(
            sql.SQL("CREATE TABLE IF NOT EXISTS oneweb.{} (LIKE {}) PARTITION BY LIST (instance)").format(table, table)
        )
        await db.execute(
            sql.SQL("ALTER TABLE oneweb.{} ATTACH PARTITION {} FOR VALUES IN ({})").format(
                table, table, sql.Literal(instance)
            )
        )


async def _tables(db: "AsyncConnection[Any]") -> list[str]:
    """The tables of the part that is the search path."""
    rows = await db.execute(
        b"SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' ORDER BY 1"
    )
    return [row[0] for row in await rows.fetchall()]


def _text(name: str) -> bytes:
    return files("oneweb_bridge.store").joinpath(name).read_bytes()
