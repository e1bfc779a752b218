"""Row 20: what PostgreSQL costs as the store: against COPY of the same rows, and against SQLite.

The server is Debian's, a cluster of its own on loopback with `fsync`; what its processes use is not in the CPU seconds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec
import psycopg

from bench import fleet, polls
from bench.clock import Clock
from bench.ratios import compared
from bench.scope import Scope, spelled
from bench.table import Row
from tests.places import held, new_database, run_cluster
from tests.postgres import Cluster

NUMBER = "20"
UNCHANGED_GOAL = 1.3
"""How much slower than with SQLite a poll may be in which nothing changed."""


async def rows(scope: Scope) -> AsyncIterator[Row]:
    """All of row 20."""
    with ThreadPoolExecutor(1) as thread:
        loop, stack = asyncio.get_running_loop(), contextlib.ExitStack()
        cluster = await loop.run_in_executor(thread, stack.enter_context, run_cluster(fsync=True))
        try:
            async for row in _transaction_rows(cluster, scope):
                yield row
            async for row in _poll_rows(cluster, scope):
                yield row
            yield await _cycle_row(cluster, scope)
        finally:
            await loop.run_in_executor(thread, stack.close)


async def _transaction_rows(cluster: Cluster, scope: Scope) -> AsyncIterator[Row]:
    count = max(polls.PAGE, scope.of(20_000) // polls.PAGE * polls.PAGE)

    async def ours(clock: Clock) -> None:
        with new_database(cluster) as url:
            async with held(url) as place:
                await polls.transaction(count, clock, place)

    async def copy(clock: Clock) -> None:
        with new_database(cluster) as url:
            copy_rows(url, count, clock)

    async def sqlite(clock: Clock) -> None:
        await polls.transaction(count, clock)

    what = f"{spelled(count)} records and journal rows into PostgreSQL"
    row = Row(number=NUMBER, what=f"{what}, against COPY", floor="COPY")
    yield await compared(row, scope.rounds, ours, copy)
    row = Row(number=NUMBER, what=f"{what}, against SQLite", floor="SQLite")
    yield await compared(row, scope.rounds, ours, sqlite)


def copy_rows(url: str, count: int, clock: Clock) -> None:
    """The rows of `polls.transaction` by COPY, in the same slices, into the same tables."""
    doc, body = "{" + '"x":1,' * 100 + '"y":1}', b"x" * 300
    with psycopg.connect(url, autocommit=True, options=fleet.SEARCH_PATH) as db:
        clock.start()
        for start in range(0, count, polls.PAGE):
            with db.transaction(), db.cursor() as cursor:
                with cursor.copy(_COPY_JOURNAL) as copy:
                    for number in range(start, start + polls.PAGE):
                        copy.write_row((number + 1, 1, "site", str(number), "changed", "", 1, body, 1))
                with cursor.copy(_COPY_RECORDS) as copy:
                    for number in range(start, start + polls.PAGE):
                        copy.write_row(("site", str(number), doc, b"k" * 16, number + 1))
        clock.stop()


_COPY_JOURNAL = b"COPY journal (seq, at, entity, id, what, name, ts, body, epoch) FROM STDIN"
_COPY_RECORDS = b"COPY record (kind, id, doc, hash, seq) FROM STDIN"


async def _poll_rows(cluster: Cluster, scope: Scope) -> AsyncIterator[Row]:
    terminals, numbers = scope.of(10_000), _numbers()
    first = polls.pages(terminals)
    async with contextlib.AsyncExitStack() as stack:
        place = await stack.enter_async_context(held(stack.enter_context(new_database(cluster))))
        ours = await stack.enter_async_context(polls.filled(first, place))
        sqlite = await stack.enter_async_context(polls.filled(first))
        fleets = {"PostgreSQL": ours, "SQLite": sqlite}
        for polled in fleets.values():
            # The second poll of a fleet learns its pages; those after it are what goes on for months.
            await polls.unchanged(polled, first, Clock())

        async def identical(polled: polls.CannedFleet, clock: Clock) -> None:
            await polls.unchanged(polled, first, clock)

        async def volatile(polled: polls.CannedFleet, clock: Clock) -> None:
            await polls.unchanged(polled, polls.later(first, next(numbers)), clock)

        for name, poll in (("identical bytes", identical), ("volatile fields moved", volatile)):
            what = f"unchanged poll of {spelled(terminals)} with PostgreSQL, {name}"
            row = Row(number=NUMBER, what=what, goal=UNCHANGED_GOAL, floor="SQLite")
            yield await compared(row, scope.rounds, partial(poll, ours), partial(poll, sqlite))


def _numbers() -> Iterator[int]:
    yield from range(1, 1000)


async def _cycle_row(cluster: Cluster, scope: Scope) -> Row:
    """The real command, with every call after its own interval."""
    terminals = scope.of(10_000)
    with new_database(cluster) as server:
        state = {"path": None, "url": server}
        async with fleet.simulated(terminals) as url, fleet.running(url, state=state) as run:
            await run.poll(fleet.CYCLE[0])
            row = fleet.cycle_row(terminals, None, await fleet.measure_cycle(run, url))
    what = f"full cycle of {spelled(terminals)} terminals with PostgreSQL"
    return msgspec.structs.replace(row, number=NUMBER, what=what, floor="row 8 is the same with SQLite")
