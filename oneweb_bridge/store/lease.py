"""Leases: who may do anything for an instance, and what others see of it. All times are those of the server's clock.

A worker holds an instance while its row in `oneweb.lease` has not expired. It renews the row in time, and stops by its
own monotonic clock before it expires. Whoever finds a row expired ends the sessions of the former holder first: one
that was stopped within a transaction or a COPY would hold up the takeover with its locks.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import AsyncConnection

from oneweb_bridge.store.errors import StoreError, StoreUnavailable
from oneweb_bridge.store.lease_rules import Lease, Renewal, local_end
from oneweb_bridge.store.postgres import (
    CONNECT_TIMEOUT_S,
    TCP_OPTIONS,
    connect,
    describe,
    idle_timeout,
    named_postgres_errors,
)
from oneweb_bridge.store.postgres_schema import make_schemas, refuse_newer, try_to_lock
from oneweb_bridge.store.server import Fence, session_tag

LOCK_TIMEOUT = "1s"
"""How long a takeover waits for what the former holder had locked; it is tried again soon."""


class Holder(msgspec.Struct, frozen=True):
    """A worker: its name for people, its id of this start of the process, and for how long it is given leases (s).

    `instances` are those that it shares with others.
    """

    worker: str
    holder: str
    lease: float
    instances: tuple[str, ...] = ()


class _Session:
    """A connection that is opened when it is used, and again after it was lost. One statement at a time."""

    def __init__(self, url: str, name: str) -> None:
        self.lock = asyncio.Lock()
        self.db: AsyncConnection[Any] | None = None
        self._url = url
        self._name = name

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator["AsyncConnection[Any]"]:
        """The connection, for the block alone. Raises StoreUnavailable, and StoreError for what is wrong for good."""
        async with self.lock:
            with _named_errors():
                if self.db is None or self.db.closed:
                    self.db = await connect(
                        self._url,
                        application_name=self._name,
                        connect_timeout=CONNECT_TIMEOUT_S,
                        **TCP_OPTIONS,
                    )
                yield self.db

    async def close(self) -> None:
        if self.db is not None:
            await self.db.close()


class LeaseTable:
    """Made by `open_leases`. Every method is one short transaction; raises StoreUnavailable.

    What keeps leases has a session of its own: a claim may wait for others that make the tables of an instance.
    """

    def __init__(self, url: str, me: Holder) -> None:
        self._me = me
        self._claiming = _Session(url, f"{me.holder} leases")
        self._keeping = _Session(url, f"{me.holder} leases")

    async def close(self) -> None:
        """Closes the connections."""
        await self._claiming.close()
        await self._keeping.close()

    async def claim(self, instance: str) -> Lease | None:
        """Takes the instance if it is free or expired; None where another worker holds it, or its state is being moved.

        Makes its tables. Raises StoreError for what is wrong for good: a password, a missing database, a newer schema.
        """
        async with self._claiming.use() as db:
            if instance in await self._times_left(db, [instance]):
                return None
            async with db.transaction():
                return await self._claim(db, instance)

    async def _claim(self, db: "AsyncConnection[Any]", instance: str) -> Lease | None:
        """Takes an instance within one transaction, at whose end it can be moved again."""
        # Others wait for what this one has locked, also where it stands still.
        await db.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{idle_timeout(self._me.lease)}'".encode())
        if not await try_to_lock(db, instance):
            return None
        await make_schemas(db, instance)
        await db.execute(_END_SESSIONS, (instance, session_tag(instance)))
        await db.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'".encode())
        begun = time.monotonic()
        cursor = await db.execute(_CLAIM, (instance, self._me.worker, self._me.holder, self._me.lease))
        row = await cursor.fetchone()
        return None if row is None else self._lease(instance, row[0], begun)

    async def _times_left(self, db: "AsyncConnection[Any]", instances: Collection[str]) -> dict[str, float]:
        try:
            cursor = await db.execute(_TIMES_LEFT, (list(instances),))
        except psycopg.errors.UndefinedTable:
            return {}
        return {row[0]: float(row[1]) for row in await cursor.fetchall()}

    async def times_left(self, instances: Collection[str]) -> dict[str, float]:
        """Seconds until the leases of some instances end, by the server's clock; without those that nobody holds."""
        async with self._claiming.use() as db:
            return await self._times_left(db, instances)

    async def renew(self, instances: Sequence[str], waiting: Sequence[str] = ()) -> Renewal:
        """Renews the leases of some instances that are held. Those that are missing in the answer are lost.

        `waiting` are the instances that others may leave to this worker.
        Raises TimeoutError as well, where the server does not answer in a third of the lease.
        """
        async with asyncio.timeout(self._me.lease / 3):
            begun = time.monotonic()
            try:
                async with self._keeping.use() as db:
                    return await self._renew(db, list(instances), waiting, begun)
            except _NO_TABLES:
                return Renewal({}, 1)

    async def _renew(
        self, db: "AsyncConnection[Any]", instances: list[str], waiting: Sequence[str], begun: float
    ) -> Renewal:
        me = self._me
        await db.execute(_SIGN, (me.holder, me.worker, [*instances, *waiting]))
        await db.execute(_FORGET_WORKERS)
        cursor = await db.execute(_RENEW, (self._me.holder, instances, self._me.lease))
        leases = {row[0]: self._lease(row[0], row[1], begun) for row in await cursor.fetchall()}
        others = await db.execute(_OTHERS, (me.lease, me.holder, list(me.instances)))
        wanted, version = await others.fetchone() or (None, 0)
        refuse_newer(int(version))
        return Renewal(leases, 1 + len(wanted or ()), frozenset().union(*(wanted or ())))

    async def give_up(self, fence: Fence) -> None:
        """Lets others have an instance at once."""
        async with self._keeping.use() as db:
            with contextlib.suppress(*_NO_TABLES):
                await db.execute(_GIVE_UP, (fence.instance, fence.holder, fence.epoch))

    async def leave(self) -> None:
        """Takes the sign of life away."""
        async with self._keeping.use() as db:
            with contextlib.suppress(*_NO_TABLES):
                await db.execute(b"DELETE FROM oneweb.worker WHERE holder = $1", (self._me.holder,))

    def _lease(self, instance: str, epoch: int, begun: float) -> Lease:
        return Lease(Fence(instance, self._me.holder, epoch), local_end(begun, self._me.lease))


@contextlib.asynccontextmanager
async def open_leases(url: str, me: Holder) -> AsyncIterator[LeaseTable]:
    """The leases in the database at `url`, as this worker sees them. Connects when it is used."""
    table = LeaseTable(url, me)
    try:
        yield table
    finally:
        await table.close()


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    """As `named_postgres_errors`, but what no waiting mends is a StoreError."""
    try:
        with named_postgres_errors():
            yield
    except StoreUnavailable as error:
        if any(words in str(error) for words in _LASTING):
            raise StoreError(f"state.url: {error}") from None
        raise
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(f"state.url: {describe(error)}: give this user the right to make schemas") from None


_LASTING = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "invalid connection option",
    "certificate",
    "server does not support SSL",
)
"""What libpq says, in English, of settings that are wrong: such errors have no code. Others are waited for."""
_NO_TABLES = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
"""Nobody has made the tables yet, or somebody has removed them."""
_FORGET_WORKERS = b"DELETE FROM oneweb.worker WHERE seen < clock_timestamp() - interval '10 minutes'"
"""Those that ended without a word: longer than any lease."""
_OTHERS = b"""
SELECT json_agg(instances), (SELECT max(version) FROM oneweb.version) FROM oneweb.worker
WHERE seen > clock_timestamp() - make_interval(secs => $1::float8) AND holder <> $2 AND instances && $3::text[]
"""
"""What each of the others that share instances with this worker would take."""
_TIMES_LEFT = b"""
SELECT instance, EXTRACT(epoch FROM expires - clock_timestamp())::float8 FROM oneweb.lease
WHERE instance = ANY($1) AND expires > clock_timestamp()
"""
_CLAIM = b"""
INSERT INTO oneweb.lease AS lease (instance, worker, holder, epoch, since, expires)
VALUES ($1, $2, $3, 1, clock_timestamp(), clock_timestamp() + make_interval(secs => $4::float8))
ON CONFLICT (instance) DO UPDATE SET worker = excluded.worker, holder = excluded.holder, epoch = lease.epoch + 1,
since = excluded.since, expires = clock_timestamp() + make_interval(secs => $4::float8)
WHERE lease.expires <= clock_timestamp() RETURNING epoch
"""
_END_SESSIONS = b"""
SELECT pg_terminate_backend(activity.pid) FROM oneweb.lease JOIN pg_stat_activity AS activity
ON activity.application_name = lease.holder || ' ' || $2::text || ' ' || lease.epoch
AND activity.datname = current_database()
WHERE lease.instance = $1 AND lease.expires <= clock_timestamp()
"""
"""Those of the last lease of an instance, also where this worker had it: it has closed them, but one that broke without
a word lasts on at the server. The sessions of its holder for other instances go on."""
_RENEW = b"""
UPDATE oneweb.lease SET expires = clock_timestamp() + make_interval(secs => $3::float8)
WHERE holder = $1 AND instance = ANY($2) AND expires > clock_timestamp() RETURNING instance, epoch
"""
_GIVE_UP = b"""
UPDATE oneweb.lease SET expires = clock_timestamp() WHERE instance = $1 AND holder = $2 AND epoch = $3
AND expires > clock_timestamp()
"""
_SIGN = b"""
INSERT INTO oneweb.worker (holder, worker, seen, instances) VALUES ($1, $2, clock_timestamp(), $3::text[])
ON CONFLICT (holder) DO UPDATE SET seen = excluded.seen, instances = excluded.instances
"""
