"""Workers of the tests, and what they claim: for tests of leases on a server of PostgreSQL."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import psycopg

from oneweb_bridge.model.records import Batch, Entry
from oneweb_bridge.store.lease import Holder, LeaseTable, open_leases
from oneweb_bridge.store.server import Server

LEASE_S = 600.0
TIMEOUT_S = 30.0
"""How long a test may work with a worker."""
BATCH = Batch(entries=[Entry("terminal", "T", "changed", "", 0, b"{}")])


@contextlib.asynccontextmanager
async def worker(url: str, name: str, lease: float = LEASE_S) -> AsyncIterator[LeaseTable]:
    """The leases as a worker of this name has them; the holder is `NAME-start`."""
    async with open_leases(url, Holder(name, f"{name}-start", lease)) as leases:
        async with asyncio.timeout(TIMEOUT_S):
            yield leases


async def claimed(leases: LeaseTable, url: str, instance: str = "main") -> Server:
    """The place of an instance that is claimed now."""
    lease = await leases.claim(instance)
    assert lease is not None
    return Server(url, instance, lease.fence, LEASE_S)


def ask(url: str, sql: str) -> list[Any]:
    """The rows of a statement that is a transaction by itself."""
    with psycopg.connect(url, autocommit=True) as db:
        cursor = db.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def expire(url: str) -> None:
    """The lease ends, as if its holder had been silent for so long."""
    ask(url, "UPDATE oneweb.lease SET expires = clock_timestamp()")
