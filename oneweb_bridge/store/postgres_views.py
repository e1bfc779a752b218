"""Makes the views of PostgreSQL for people who read with SQL, and the role that reads them; see `views`.

A view has the rows of all instances. Its columns are those of the contract, and those of the fields that any instance
maps: each instance remembers its own in `meta`, so that no worker takes away what another one needs.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import msgspec
import psycopg

from oneweb_bridge.decode.catalogue import CALLS, Call
from oneweb_bridge.store.connections import Connections
from oneweb_bridge.store.engine import Transaction, placeholders
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.meta import WRITE_META
from oneweb_bridge.store.postgres import describe
from oneweb_bridge.store.postgres_schema import LOCK_SCHEMAS
from oneweb_bridge.store.view_dialects import POSTGRES
from oneweb_bridge.store.views import VIEWS, FieldColumn, merge_fields, view_fields, view_queries

_log = logging.getLogger("oneweb_bridge.store")

READER = "oneweb_reader"
READABLE = (*VIEWS, "holders")
"""What the role may read."""
LOCK_TIMEOUT = "5s"
"""How long it is waited for somebody whose query reads a view that is to be made anew."""
VIEW_FIELDS = "view_fields"
"""Where in `meta` an instance has its own."""
_decode_fields = msgspec.json.Decoder(dict[str, tuple[FieldColumn, ...]]).decode


Fetch = Callable[[str, Sequence[Any]], Awaitable[list[Any]]]
"""Reads the rows of a statement, within a transaction or on the connection that reads."""


async def make_views(connections: Connections, calls: Mapping[str, Call]) -> None:
    """Makes the views and the role that are missing, or not as these calls ask. Raises StoreUnavailable.

    Nothing is written when all is as it should be. What others made under the name of a view stays, and a view that
    others built upon keeps the columns that it has.
    """
    own = msgspec.json.encode(view_fields(calls)).decode()
    try:
        if not await _is_complete(connections.rows, own):
            async with connections.transaction() as transaction:
                await _complete(transaction, own)
    except psycopg.Error as error:
        raise StoreUnavailable(describe(error)) from error


async def _is_complete(fetch: Fetch, own: str) -> bool:
    """Whether nothing is to be done. `own` are the columns that this instance needs."""
    known = await fetch("SELECT value FROM meta WHERE name = ?", (VIEW_FIELDS,))
    return (
        [row[0] for row in known] == [own]
        and not await _stale_views(fetch, await _queries(fetch))
        and not await _lacks_rights(fetch)
    )


async def _complete(transaction: Transaction, own: str) -> None:
    await transaction.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    await transaction.execute(LOCK_SCHEMAS)
    await transaction.execute(WRITE_META, (VIEW_FIELDS, own))
    queries = await _queries(transaction.fetch_all)
    stale = await _stale_views(transaction.fetch_all, queries)
    if stale:
        await transaction.execute(_functions())
    for name in stale:
        await _make_view(transaction, name, queries[name])
    await _let_read(transaction)


async def _queries(fetch: Fetch) -> dict[str, str]:
    """View -> its query, with the columns that any instance of this database needs."""
    rows = await fetch("SELECT value FROM oneweb.meta WHERE name = ? ORDER BY instance", (VIEW_FIELDS,))
    fields = merge_fields([view_fields(CALLS), *(_decode_fields(row[0]) for row in rows)])
    return view_queries(fields, POSTGRES)


def _functions() -> str:
    return files("oneweb_bridge.store").joinpath("postgres_views.sql").read_text()


def _mark(query: str) -> str:
    """The comment of a view that stands for a query: PostgreSQL does not keep the text of a view."""
    return f"made by oneweb-bridge, {hashlib.sha256((_functions() + query).encode()).hexdigest()[:16]}"


async def _stale_views(fetch: Fetch, queries: Mapping[str, str]) -> list[str]:
    """The views that are not there, or not as they should be; without those whose name is taken."""
    rows = await fetch(
        f"""SELECT relname, relkind = 'v', obj_description(oid, 'pg_class') FROM pg_class
        WHERE relnamespace = 'oneweb'::regnamespace AND relname IN ({placeholders(VIEWS)})""",
        VIEWS,
    )
    present = {name: (is_view, comment) for name, is_view, comment in rows}
    stale = []
    for name in VIEWS:
        is_view, comment = present.get(name, (True, None))
        if not is_view:
            _log.warning("the view %s is not made: the schema oneweb has something else of that name", name)
        elif comment != _mark(queries[name]):
            stale.append(name)
    return stale


async def _make_view(transaction: Transaction, name: str, query: str) -> None:
    """Replaces a view; where its columns change, it is dropped first, unless others built upon it."""
    comment = f"COMMENT ON VIEW oneweb.{name} IS '{_mark(query)}'"
    create = f"CREATE OR REPLACE VIEW oneweb.{name} AS {query}"
    for statements in ((create, comment), (f"DROP VIEW oneweb.{name}", create, comment)):
        await transaction.execute("SAVEPOINT before_view")
        try:
            for statement in statements:
                await transaction.execute(statement)
        except psycopg.errors.InvalidTableDefinition:
            await transaction.execute("ROLLBACK TO before_view")
        except psycopg.errors.DependentObjectsStillExist:
            await transaction.execute("ROLLBACK TO before_view")
            _log.warning("the view oneweb.%s keeps its columns: something else is built upon it", name)
            return
        else:
            return


# ── who may read ───────────────────────────────────────────────────────────────────────────────


async def _has_role(fetch: Fetch) -> bool:
    return bool(await fetch("SELECT 1 FROM pg_roles WHERE rolname = ?", (READER,)))


async def _may_make_role(fetch: Fetch) -> bool:
    sql = "SELECT 1 FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolcreaterole)"
    return bool(await fetch(sql, ()))


async def _lacks_rights(fetch: Fetch) -> bool:
    """Whether the role is to be made, or to be given something. Where this user may not make it, nothing is."""
    if not await _has_role(fetch):
        return await _may_make_role(fetch)
    has_usage = await fetch(f"SELECT has_schema_privilege(name '{READER}', 'oneweb', 'USAGE')", ())
    return not has_usage[0][0] or bool(await _unreadable(fetch))


async def _unreadable(fetch: Fetch) -> list[str]:
    """What the role should be able to read, and cannot."""
    rows = await fetch(
        f"""SELECT relname FROM pg_class WHERE relnamespace = 'oneweb'::regnamespace AND relkind = 'v'
        AND relname IN ({placeholders(READABLE)}) AND NOT has_table_privilege(name '{READER}', oid, 'SELECT')""",
        READABLE,
    )
    return [row[0] for row in rows]


async def _let_read(transaction: Transaction) -> None:
    """Gives the role what it reads; makes it where this user may."""
    if not await _has_role(transaction.fetch_all):
        if not await _may_make_role(transaction.fetch_all):
            _log.info("there is no role %s, and this user may not make it: docs/fleet.md has the statement", READER)
            return
        await _make_role(transaction)
    await transaction.execute(f"GRANT USAGE ON SCHEMA oneweb TO {READER}")
    for name in await _unreadable(transaction.fetch_all):
        await transaction.execute(f"GRANT SELECT ON oneweb.{name} TO {READER}")


async def _make_role(transaction: Transaction) -> None:
    await transaction.execute("SAVEPOINT before_role")
    try:
        await transaction.execute(f"CREATE ROLE {READER} NOLOGIN")
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        # A worker of another database of this server was quicker.
        await transaction.execute("ROLLBACK TO before_role")
