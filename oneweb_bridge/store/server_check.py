"""What `check` says of a database of PostgreSQL: nothing is written, and nothing is made."""

from typing import Any

import msgspec
import psycopg

from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.store.postgres import CONNECT_TIMEOUT_S, describe
from oneweb_bridge.store.postgres_schema import VERSION, schema_name

MIN_SERVER_VERSION = 140_000
"""14, as the server counts it."""


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself, and of an instance. `schema` is 0 where there is none."""

    version: str
    schema: int
    may_create: bool
    worker: str | None
    epoch: int
    """Under which the instance is held, or was held last; 0 where it never was."""

    @property
    def sentence(self) -> str:
        """What is there, for people."""
        schema = f"schema {self.schema}" if self.schema else "no schema yet: the first worker makes it"
        rights = "this user may create schemas" if self.may_create else "this user may not create schemas"
        return f"PostgreSQL {self.version} answers, {rights}, {schema}"

    def holder_of(self, instance: str) -> str:
        """Who holds the instance, for people."""
        if self.worker is not None:
            return f"{instance} is held by {self.worker}, epoch {self.epoch}"
        return f"{instance} is held by nobody" + (f", epoch {self.epoch} was the last" if self.epoch else "")


def look_at_server(url: str, instance: str) -> ServerState:
    """What a worker will find there. Raises StoreError with a sentence for what would keep it from running."""
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as db:
            return _look(db, instance)
    except psycopg.Error as error:
        raise StoreError(f"state.url: {describe(error)}") from None


def _look(db: "psycopg.Connection[Any]", instance: str) -> ServerState:
    if db.info.server_version < MIN_SERVER_VERSION:
        number = db.info.server_version // 10_000
        raise StoreError(f"state.url: the server is PostgreSQL {number}, 14 or newer is needed")
    version, database, user, is_standby, may_create, has_shared, has_part = _fetch(db, _FACTS, schema_name(instance))
    if is_standby:
        raise StoreError("state.url: this server is a standby, which takes no writes: name the primary")
    if not may_create and not (has_shared and has_part):
        raise StoreError(
            "state.url: this user may not create schemas, and some are missing: "
            f'GRANT CREATE ON DATABASE "{database}" TO "{user}"'
        )
    schema = _fetch(db, "SELECT max(version) FROM oneweb.version")[0] if has_shared else 0
    if schema > VERSION:
        raise StoreError(
            f"state.url: the schema was made by a newer oneweb-bridge (schema {schema}, known {VERSION}): upgrade"
        )
    holder = _fetch(db, _HOLDER, instance) if has_shared else ()
    worker, epoch, is_held = holder or (None, 0, False)
    return ServerState(
        version=version, schema=schema, may_create=may_create, worker=worker if is_held else None, epoch=epoch
    )


def _fetch(db: "psycopg.Connection[Any]", sql: str, *parameters: str) -> tuple[Any, ...]:
    return db.execute(sql.encode(), parameters).fetchone() or ()


_FACTS = """
SELECT split_part(current_setting('server_version'), ' ', 1), current_database(), current_user, pg_is_in_recovery(),
has_database_privilege(current_database(), 'CREATE'),
EXISTS (SELECT 1 FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace
    WHERE nspname = 'oneweb' AND relname = 'version'),
EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = %s)
"""
_HOLDER = "SELECT worker, epoch, held FROM oneweb.holders WHERE instance = %s"
