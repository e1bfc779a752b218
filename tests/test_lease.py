"""Leases: one worker at a time does anything for an instance, and one that was paused writes nothing after another."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import psycopg
import pytest

from oneweb_bridge.config.schema import Secret, State
from oneweb_bridge.store import journal, lease, places, postgres_schema, store
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.lease_keeper import LeaseKeeper, open_keeper
from oneweb_bridge.store.lease_looks import LeaseLooks
from oneweb_bridge.store.lease_rules import Renewal
from oneweb_bridge.store.postgres import TCP_OPTIONS, LeaseLost, PostgresConnection, named_postgres_errors
from oneweb_bridge.store.server import Fence, Server
from tests.cancelling import end_tasks
from tests.leases import BATCH, ask, claimed, expire, worker
from tests.postgres import Cluster

pytestmark = pytest.mark.postgres


async def test_epoch_grows_with_each_new_holder(url: str) -> None:
    """It begins with 1, and grows also when the same worker takes the instance again."""
    async with worker(url, "a") as a, worker(url, "b") as b:
        epochs = []
        for leases in (a, b, b, a):
            lease = await leases.claim("main")
            assert lease is not None
            epochs.append(lease.fence.epoch)
            await leases.give_up(lease.fence)
    assert epochs == [1, 2, 3, 4]
    assert ask(url, "SELECT instance, worker, holder, epoch, held FROM oneweb.holders") == [
        ("main", "a", "a-start", 4, False)
    ]


async def test_held_instance_is_not_taken(url: str) -> None:
    """Not before the lease was given up, or has expired; and what was renewed has not."""
    async with worker(url, "a") as a, worker(url, "b") as b:
        first = await claimed(a, url)
        assert await b.claim("main") is None
        assert set((await a.renew(["main", "other"])).leases) == {"main"}
        assert first.fence is not None
        await a.give_up(first.fence)
        second = await claimed(b, url)
        assert (await a.renew(["main"])).leases == {}
        expire(url)
        assert (await b.renew(["main"])).leases == {}
        third = await claimed(a, url)
        assert [place.fence.epoch for place in (second, third) if place.fence] == [2, 3]
        assert [name for name, _ in ask(url, "SELECT worker, seen FROM oneweb.workers ORDER BY 1")] == ["a", "b"]


async def test_paused_worker_writes_nothing_after_another_took_over(url: str) -> None:
    """Its next transaction finds another holder, and the journal's numbers go on without it."""
    async with worker(url, "a") as a, worker(url, "b") as b, store.open_store(await claimed(a, url)) as old:
        assert await old.commit(BATCH) == 1
        expire(url)
        place = await claimed(b, url)
        async with store.open_store(place) as new, journal.open_journal(place, "mqtt") as rows:
            assert await new.commit(BATCH) == 2
            # Its session was ended by the takeover; a new one finds another holder.
            for error in (StoreUnavailable, LeaseLost):
                with pytest.raises(error):
                    await old.commit(BATCH)
            assert [row.seq for row in await rows.after(0)] == [1, 2]
    assert ask(url, "SELECT instance, seq, epoch FROM oneweb.journal ORDER BY seq") == [("main", 1, 1), ("main", 2, 2)]


@pytest.mark.parametrize("copies", [False, True])
async def test_worker_that_stands_still_in_a_transaction_holds_nobody_up(
    url: str, copies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sessions are ended by whoever takes over, also in the middle of a COPY; nothing of it is stored."""
    # A session that is told to end does so when the machine has time for it.
    monkeypatch.setattr(lease, "LOCK_TIMEOUT", "20s")
    async with worker(url, "a") as a, worker(url, "b") as b, store.open_store(await claimed(a, url)) as old:
        connection = old._connections._writer
        assert isinstance(connection, PostgresConnection)
        with pytest.raises(StoreUnavailable):  # noqa: PT012 -- it is raised by the end of the transaction
            async with connection.transaction() as transaction:
                await transaction.append_journal([(1, 0, "terminal", "T", "changed", "", 0, b"{}")])
                async with contextlib.AsyncExitStack() as stack:
                    if copies:
                        cursor = await stack.enter_async_context(transaction._db.cursor())
                        copy = await stack.enter_async_context(cursor.copy(b"COPY stale (imei) FROM STDIN"))
                        await copy.write_row(("T",))
                    expire(url)
                    async with asyncio.timeout(30):
                        place = await claimed(b, url)
        async with store.open_store(place) as new:
            assert await new.commit(BATCH) == 1
    assert ask(url, "SELECT seq, epoch FROM oneweb.journal") == [(1, 2)]
    assert ask(url, "SELECT imei FROM oneweb.stale") == []


def end_idle_session(url: str) -> None:
    """Has the server end a session that stands still in a transaction, and waits until it did."""
    query = "SELECT 1 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database()"
    end = time.monotonic() + 30
    while ask(url, query):
        assert time.monotonic() < end, "the server did not end the session"


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.IdleInTransactionSessionTimeout,
        psycopg.errors.ReadOnlySqlTransaction,
        psycopg.errors.DiskFull,
        psycopg.errors.AdminShutdown,
        psycopg.errors.InternalError_,
    ],
)
def test_what_the_server_cannot_do_now_is_tried_again(error: type[psycopg.Error]) -> None:
    with pytest.raises(StoreUnavailable, match="now"), named_postgres_errors():
        raise error("not now")


async def test_transaction_that_the_server_ended_is_tried_again(url: str) -> None:
    """A worker that stood still for a quarter of the lease goes on when it wakes; nothing of it was stored."""
    async with worker(url, "a") as a:
        place = await claimed(a, url)
        async with store.open_store(place) as db:
            connection = db._connections._writer
            with pytest.raises(StoreUnavailable):  # noqa: PT012 -- as above
                async with connection.transaction() as transaction:
                    await transaction.execute("SET LOCAL idle_in_transaction_session_timeout = '10ms'")
                    end_idle_session(url)
                    await transaction.execute("INSERT INTO stale (imei) VALUES ('T')")
            assert await db.commit(BATCH) == 1
        with places.open_writer(place, read_only=False) as thread:
            with (  # noqa: PT012 -- as above
                pytest.raises(StoreUnavailable),
                thread.transaction(),
            ):
                thread.execute("SET LOCAL idle_in_transaction_session_timeout = '10ms'")
                end_idle_session(url)
            thread.execute("INSERT INTO stale (imei) VALUES ('U')")
    assert ask(url, "SELECT imei FROM oneweb.stale") == [("U",)]


async def test_claim_that_waits_costs_no_other_lease(url: str) -> None:
    """While another worker makes the tables of an instance, a claim waits, and what is held is renewed."""
    async with worker(url, "a", lease=60.0) as a:
        lease = await a.claim("main")
        assert lease is not None
        with psycopg.connect(url) as db:
            db.execute(postgres_schema.LOCK_SCHEMAS.encode())
            claiming = asyncio.create_task(a.claim("other"))
            await until(lambda: bool(ask(url, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")))
            assert set((await a.renew(["main"])).leases) == {"main"}
        assert await claiming is not None


async def test_worker_before_there_are_tables_renews_nothing_and_ends(cluster: Cluster) -> None:
    """Another worker is making them, or somebody has removed them."""
    cluster.execute("CREATE DATABASE bare")
    async with worker(cluster.url_of("bare"), "a") as a:
        assert await a.renew(["main"]) == Renewal({}, 1)
        await a.give_up(Fence("main", "a", 1))
        await a.leave()
    cluster.execute("DROP DATABASE bare WITH (FORCE)")


async def test_every_session_notices_a_server_that_went_away_without_a_word(url: str) -> None:
    """Also that of the leases, which stands by for days and whose next question would get no answer."""
    async with worker(url, "a") as a:
        place = await claimed(a, url)
        async with store.open_store(place) as db:
            await db.commit(BATCH)
            writer: Any = db._connections._writer
            for session in (a._claiming.db, writer._db):
                assert session is not None
                given = session.info.get_parameters()
                assert {name: given.get(name) for name in TCP_OPTIONS} == {n: str(v) for n, v in TCP_OPTIONS.items()}


async def test_lease_that_lasts_is_not_looked_at_before_its_end(url: str) -> None:
    async with worker(url, "a") as a, worker(url, "b") as b:
        assert await b.times_left(["main"]) == {}
        await claimed(a, url)
        assert 500 < (await b.times_left(["main", "other"]))["main"] <= 600
        looks = LeaseLooks(b, 1000.0)
        for _ in range(3):
            assert 500 < await looks.time_left("main", {"main"}) <= 600
            # What was read is used again, until somebody was quicker.
            expire(url)
        assert await b.times_left(["main"]) == {}
        looks.forget("main")
        assert await looks.time_left("main", {"main"}) == 0.0


async def test_renewal_waits_for_no_transaction(url: str) -> None:
    """A transaction that lasts does not cost the lease, however many of them overlap."""
    async with (
        worker(url, "a") as a,
        store.open_store(await claimed(a, url)) as db,
        db._connections._writer.transaction(),
        asyncio.timeout(10),
    ):
        assert set((await a.renew(["main"])).leases) == {"main"}


async def test_two_that_come_at_once_make_the_tables_once(cluster: Cluster) -> None:
    """One of them waits for the other; the instances of one database have their own journals."""
    cluster.execute("CREATE DATABASE fresh")
    url = cluster.url_of("fresh")
    async with contextlib.AsyncExitStack() as stack:
        tables = [await stack.enter_async_context(worker(url, f"w{number}")) for number in range(4)]
        leases = await asyncio.gather(*(table.claim(f"i{n}") for n, table in enumerate(tables)))
        for number, lease in enumerate(leases):
            assert lease is not None
            async with store.open_store(Server(url, f"i{number}", lease.fence, 600.0)) as db:
                assert await db.commit(BATCH) == 1
    assert ask(url, "SELECT instance, seq FROM oneweb.journal ORDER BY 1") == [(f"i{n}", 1) for n in range(4)]
    cluster.execute("DROP DATABASE fresh WITH (FORCE)")


@contextlib.asynccontextmanager
async def sharing(url: str, worker: str, instances: list[str], down: Collection[str] = ()) -> AsyncIterator[set[str]]:
    """A worker that holds its share of instances, but none whose bridge is down; gives those that it holds now."""
    state = State(path=None, url=Secret(url), lease=12.0, worker=worker)
    held: set[str] = set()

    async def hold(keeper: LeaseKeeper, instance: str) -> None:
        while True:
            async with keeper.hold(instance) as (lease, _):
                held.add(instance)
                await lease.lost.wait()
                held.discard(instance)

    async with open_keeper(state, instances) as keeper:
        tasks = [
            asyncio.create_task(keeper.run()),
            *(asyncio.create_task(hold(keeper, i)) for i in instances if i not in down),
        ]
        try:
            yield held
        finally:
            await end_tasks(*tasks)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.05)


async def test_workers_share_the_instances(url: str) -> None:
    """Each takes its share, gives up what is too much when another comes, and takes all when it is alone again."""
    instances = [f"i{number}" for number in range(5)]
    async with sharing(url, "a", instances) as a:
        await until(lambda: len(a) == 5)
        async with sharing(url, "b", instances) as b:
            await until(lambda: sorted((len(a), len(b))) == [2, 3])
            assert a | b == set(instances)
        await until(lambda: len(a) == 5)


async def until_signed(url: str, times: int) -> None:
    """Waits until each worker has renewed so many times more."""
    for _ in range(times):
        (begun,) = ask(url, "SELECT clock_timestamp()")[0]
        await until(lambda begun=begun: all(seen > begun for (seen,) in ask(url, "SELECT seen FROM oneweb.worker")))  # type: ignore[misc]


async def test_workers_with_other_instances_do_not_count(url: str) -> None:
    """They share the database alone: each worker has its share of its own instances, and keeps it."""
    xs, ys = ["x0", "x1", "x2", "x3"], ["y0"]
    async with sharing(url, "a", xs) as a, sharing(url, "c", ys) as c, sharing(url, "d", ys) as d:
        await until(lambda: len(a) == 4 and len(c) + len(d) == 1)
        async with sharing(url, "b", xs) as b:
            await until(lambda: (len(a), len(b)) == (2, 2))
            await keep_what_they_have(url, [*xs, *ys])


async def keep_what_they_have(url: str, instances: list[str]) -> None:
    """Waits until each worker has signed several times, in which no instance changes hands."""
    await until_signed(url, 5)
    before = ask(url, "SELECT instance, epoch FROM oneweb.holders WHERE held ORDER BY 1")
    assert [instance for instance, _ in before] == instances
    await until_signed(url, 5)
    assert ask(url, "SELECT instance, epoch FROM oneweb.holders WHERE held ORDER BY 1") == before


async def test_instance_that_nobody_else_would_take_is_kept(url: str) -> None:
    """The bridge of the other worker is down: what this one took beyond its share it does not give up again."""
    instances = ["i0", "i1", "i2", "i3"]
    async with sharing(url, "a", instances) as a, sharing(url, "b", instances, instances[1:]) as b:
        await until(lambda: (a, b) == ({"i1", "i2", "i3"}, {"i0"}))
        await until_signed(url, 4)
        assert (a, b) == ({"i1", "i2", "i3"}, {"i0"})
