"""Which sessions end when a lease changes hands, so that nobody is held up and nobody else is disturbed."""

import asyncio
import contextlib
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from oneweb_bridge.store import lease, store
from oneweb_bridge.store.moving_server import open_server
from oneweb_bridge.store.postgres import connection_options
from oneweb_bridge.store.postgres_schema import LOCK_SCHEMAS, make_schemas
from oneweb_bridge.store.server import Fence, Server
from tests.cancelling import end_tasks
from tests.leases import BATCH, claimed, worker

pytestmark = pytest.mark.postgres


def names(url: str) -> list[str]:
    """The sessions of the holder `a-start`, but that of its leases."""
    with psycopg.connect(url, autocommit=True) as db:
        query = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'a-start % %' ORDER BY 1"
        return [row[0] for row in db.execute(query).fetchall()]


def test_name_of_a_session_fits_into_what_the_server_keeps() -> None:
    """Holder, instance and epoch, however long they are: a name that were cut would match nobody."""
    place = Server("", "i" * 500, Fence("i" * 500, "f" * 32, (1 << 63) - 1))
    assert len(place.application_name.encode()) <= 63
    assert connection_options(place, flushes=True)["application_name"] == place.application_name


@pytest.mark.parametrize("moved", [False, True])
async def test_sessions_for_other_instances_go_on(url: str, moved: bool) -> None:
    """An instance that was given up is taken or moved; what its former holder does for another one is not cut off."""
    async with worker(url, "a") as a, worker(url, "b") as b:
        kept, given = await claimed(a, url, "main"), await claimed(a, url, "other")
        async with store.open_store(kept) as db:
            assert await db.commit(BATCH) == 1
            assert given.fence is not None
            await a.give_up(given.fence)
            if moved:
                async with open_server(url) as server, server.read("other"):
                    pass
            else:
                await claimed(b, url, "other")
            assert await db.commit(BATCH) == 2
            assert set(names(url)) == {kept.application_name}


async def test_own_sessions_that_broke_hold_up_no_claim(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is alone takes its instance again, although the server still has its old session in a COPY."""
    # A session that is told to end does so when the machine has time for it.
    monkeypatch.setattr(lease, "LOCK_TIMEOUT", "20s")
    async with worker(url, "a") as a:
        place = await claimed(a, url, "main")
        connection = await AsyncConnection.connect(url, **connection_options(place, flushes=True))
        async with connection, connection.cursor() as cursor:
            await cursor.execute("SELECT 1 FROM oneweb.lease FOR KEY SHARE")
            assert place.fence is not None
            await a.give_up(place.fence)
            with contextlib.suppress(psycopg.OperationalError):
                async with cursor.copy("COPY stale (imei) FROM STDIN") as copy:
                    await copy.write_row(("T",))
                    assert (await claimed(a, url, "main")).fence == Fence("main", "a-start", 2)
        async with asyncio.timeout(30):
            while names(url):
                await asyncio.sleep(0.05)


async def test_worker_that_stands_still_in_its_claim_blocks_nobody(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the lock under which tables are made: the server ends its session after a part of the lease."""
    stands = asyncio.Event()

    async def stand_still(db: "AsyncConnection[Any]", instance: str) -> None:
        if instance == "first":
            await db.execute(LOCK_SCHEMAS.encode())
            stands.set()
            await asyncio.Event().wait()
        await make_schemas(db, instance)

    monkeypatch.setattr(lease, "make_schemas", stand_still)
    async with worker(url, "a", 10.0) as a, worker(url, "b") as b:
        claiming = asyncio.create_task(a.claim("first"))
        await stands.wait()
        assert await b.claim("second") is not None
        await end_tasks(claiming)
