"""Who holds which instance of a database of PostgreSQL, and which workers are there, as `status` shows it."""

from typing import Any

import psycopg
from psycopg.rows import dict_row

from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.store.postgres import CONNECT_TIMEOUT_S, describe

Table = list[dict[str, Any]]


def read_holders(url: str) -> tuple[Table, Table]:
    """The views `oneweb.holders` and `oneweb.workers`, times as texts; empty before there were any.

    Raises StoreError.
    """
    try:
        with psycopg.connect(url, autocommit=True, row_factory=dict_row, connect_timeout=CONNECT_TIMEOUT_S) as db:
            holders = db.execute("SELECT * FROM oneweb.holders ORDER BY instance").fetchall()
            workers = db.execute("SELECT * FROM oneweb.workers ORDER BY worker, holder").fetchall()
    except psycopg.errors.UndefinedTable:
        return [], []
    except psycopg.Error as error:
        raise StoreError(f"state.url: {describe(error)}") from None
    return [_with_texts(row) for row in holders], [_with_texts(row) for row in workers]


def _with_texts(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its times as texts."""
    return {
        name: rfc3339(round(value.timestamp() * 1000)) if name in ("since", "expires", "seen") else value
        for name, value in row.items()
    }
