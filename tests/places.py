"""The places of the state that tests run on: a file of SQLite, and a server of PostgreSQL."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from psycopg import AsyncConnection, AsyncRawCursor

from oneweb_bridge.store.lease import Holder, open_leases
from oneweb_bridge.store.lease_rules import Lease
from oneweb_bridge.store.places import Place
from oneweb_bridge.store.postgres_schema import make_schemas
from oneweb_bridge.store.server import Server
from tests.postgres import Cluster, run_postgres

LEASE_S = 600.0
TEMPLATE = "made"
_numbers = itertools.count(1)


@contextlib.contextmanager
def run_cluster(*, fsync: bool = False) -> Iterator[Cluster]:
    """A cluster for all tests of a process, with a database that has the tables already, to be copied."""
    with run_postgres(fsync=fsync) as cluster:
        cluster.execute(f"CREATE DATABASE {TEMPLATE}")
        # In a thread, because a fixture may be made within a running loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, make_tables(cluster.url_of(TEMPLATE))).result()
        yield cluster


async def make_tables(url: str) -> None:
    """Makes the tables of the instance `main` in a database."""
    async with await AsyncConnection.connect(url, autocommit=True, cursor_factory=AsyncRawCursor) as db:
        await make_schemas(db, "main")


@contextlib.asynccontextmanager
async def held(url: str, instance: str = "main", holder: str | None = None) -> AsyncIterator[Server]:
    """An instance of a database whose lease is held for longer than a test lasts, and given up at the end."""
    me = Holder("tester", holder or f"holder-{next(_numbers)}", LEASE_S)
    async with open_leases(url, me) as leases:
        lease: Lease | None = await leases.claim(instance)
        assert lease is not None
        yield Server(url, instance, lease.fence, LEASE_S)
        await leases.give_up(lease.fence)


@contextlib.contextmanager
def new_database(cluster: Cluster) -> Iterator[str]:
    """The address of a database of its own, in which the tables of the instance `main` are made already."""
    name = f"test_{next(_numbers)}"
    cluster.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
    yield cluster.url_of(name)
    cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.asynccontextmanager
async def open_place(kind: str, directory: Path, cluster: Cluster | None) -> AsyncIterator[Place]:
    """An empty place of a kind, `sqlite` or `postgres`."""
    if kind == "sqlite":
        yield directory / "bridge.db"
        return
    assert cluster is not None
    with new_database(cluster) as url:
        async with held(url) as server:
            yield server
