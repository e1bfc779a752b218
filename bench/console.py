"""Row 17: what the console costs the bridge: a full cycle with eight tabs open, the loop's lag, memory, the fleet.

The bridge, the broker and the simulated API are processes of their own; the tabs are in this one (`bench.tabs`), and
once more real ones in Chromium. Row 18, the page itself, is measured with the same bridge (`bench.page`).
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

import aiohttp

from bench import fleet, page, reads
from bench.clock import quantile
from bench.console_rows import NUMBER, cycle_row, memory_row
from bench.progress import say
from bench.scope import Scope, spelled
from bench.stage import EVENTS, PASSED_S, Cycled, Stage, open_stage
from bench.subscriber import Subscriber, subscribe
from bench.table import Row, of_rounds
from bench.tabs import TABS, Tab, delays, open_tabs
from tests.cancelling import end_tasks

ROUNDS = 3
"""A cycle takes as long as a fleet of 10 000 does, so few are measured."""
FLEETS = 7
"""How often the fleet's table is measured."""
MADE_AFTER = {"user_terminals": "some rows changed", "usage_consumption": "all rows made again"}
"""Polls after which the table is asked for -> what has to be made of it then."""
OTHER_S = 2.0
"""Seconds over which is measured what the bridge does besides."""
ASKED_S = 5.0
PAUSE_S = 0.15
"""Seconds between two requests of a tab that asks for the fleet without end: an address may ask 100 times a second."""
IDLE_ROUNDS = 3
IDLE_TERMINALS = 8


T = TypeVar("T")


async def rows(scope: Scope) -> AsyncIterator[Row]:
    """Rows 17 and 18."""
    if NUMBER in scope.rows:
        async for row in reads.rows(scope):
            yield row
        yield await _idle_row(min(scope.rounds, IDLE_ROUNDS))
    async with fleet.simulated(scope.of(10_000)) as url, open_stage(url) as stage:
        await stage.run.poll(fleet.CYCLE[0])
        await fleet._warm(stage.run)
        say("console: the fleet is there")
        if NUMBER in scope.rows:
            async for row in _cycle_rows(scope, stage):
                yield row
        async for row in page.rows(scope, stage):
            yield row
        # At the end: it lets hours pass whose samples nobody polls, and a cycle would have them all to write.
        if NUMBER in scope.rows:
            async for row in _fleet_rows(scope, stage):
                yield row


# ── a cycle with tabs ──────────────────────────────────────────────────────────────────────────


async def _cycle_rows(scope: Scope, stage: Stage) -> AsyncIterator[Row]:
    """The rows of cycles without and with tabs, in turn."""
    alone: list[Cycled] = []
    watched: list[Cycled] = []
    tabs: list[Tab] = []
    late: list[float] = []
    async with subscribe(stage.run.port, EVENTS, noting=True) as events:
        await stage.cycle()
        for number in range(min(scope.rounds, ROUNDS)):
            alone.append(await stage.cycle())
            async with open_tabs(stage.url) as opened:
                events.reset()
                watched.append(await stage.cycle())
                late += delays(_terminals(events), opened[0].events)
                tabs += opened
            say(f"console: cycle {number + 1}: {alone[-1].wall:.1f} s, with tabs {watched[-1].wall:.1f} s")
    yield cycle_row(f"full cycle of {spelled(scope.of(10_000))} terminals with {TABS} tabs", alone, watched, tabs)
    lags, before = [lag for cycled in watched for lag in cycled.lags], [lag for cycled in alone for lag in cycled.lags]
    note = f"largest {max(lags):.0f} ms of {len(lags)} looks; without tabs p99 {quantile(before, 0.99):.1f} ms"
    what = f"event loop's lag in a cycle with {TABS} tabs, p99"
    yield Row(number=NUMBER, what=what, unit="ms", goal=50.0, measured=quantile(lags, 0.99), note=note)
    yield memory_row(f"memory in a cycle with {TABS} tabs, above that without", alone, watched)
    assert late, "no event came over the stream"
    what = "event at a stream after the same at a subscriber, in a cycle, p99"
    note = f"{spelled(len(late))} events; median {statistics.median(late):.0f} ms, largest {max(late):.0f} ms"
    yield Row(number=NUMBER, what=what, unit="ms", goal=500.0, measured=quantile(late, 0.99), note=note)


def _terminals(events: Subscriber) -> list[tuple[str, float]]:
    return [(topic.split("/")[2], at) for topic, at in events.arrivals]


# ── the fleet's table ──────────────────────────────────────────────────────────────────────────


async def _fleet_rows(scope: Scope, stage: Stage) -> AsyncIterator[Row]:
    async with aiohttp.ClientSession(headers={"Accept-Encoding": "gzip"}, auto_decompress=False) as http:
        for call, reason in MADE_AFTER.items():
            yield await _table_row(scope, stage, http, call, reason)
        yield await _made_row(http, stage)


async def _table_row(scope: Scope, stage: Stage, http: aiohttp.ClientSession, call: str, reason: str) -> Row:
    """CPU of one table for all tabs, after a poll that changed something of it."""
    costs, versions, size = [], [], 0
    for _ in range(FLEETS):
        await fleet.advance(stage.api_url, PASSED_S)
        await stage.run.poll(call)
        await asyncio.sleep(1.1)
        # What goes on by itself meanwhile, such as devices of Home Assistant, is no part of the table.
        _, other_s, other = await _spent(stage, asyncio.sleep(OTHER_S))
        bodies, seconds, cpu = await _spent(stage, asyncio.gather(*(_ask_fleet(http, stage.url) for _ in range(TABS))))
        costs.append(1000 * max(0.0, cpu - other * seconds / other_s))
        versions.append(_version(bodies[0]))
        size = len(bodies[0])
    assert len(set(versions)) == FLEETS, "the same table was sent again"
    what = f"the fleet's table of {spelled(scope.of(10_000))} for {TABS} tabs at once, {reason}, CPU"
    note = f"{size / 1000:.0f} kB compressed, made after a poll of {call}; the system counts in steps of 10 ms"
    return of_rounds(Row(number=NUMBER, what=what, unit="ms", goal=250.0, note=note), costs)


async def _spent(stage: Stage, work: Awaitable[T]) -> tuple[T, float, float]:
    """What some work gives, its seconds, and the CPU seconds of the bridge meanwhile."""
    begun, cpu = time.perf_counter(), stage.run.usage.cpu
    result = await work
    return result, time.perf_counter() - begun, stage.run.usage.cpu - cpu


async def _ask_fleet(http: aiohttp.ClientSession, url: str) -> bytes:
    async with http.get(f"{url}api/v1/fleet") as answer:
        answer.raise_for_status()
        return await answer.read()


def _version(body: bytes) -> int:
    """A table differs from the one before in its bytes."""
    return hash(body)


async def _made_row(http: aiohttp.ClientSession, stage: Stage) -> Row:
    """How often the table is made while all tabs ask for it without end and the journal grows."""
    first: dict[int, float] = {}
    requests = 0

    async def ask() -> None:
        nonlocal requests
        while True:
            version = _version(await _ask_fleet(http, stage.url))
            requests += 1
            first.setdefault(version, time.perf_counter())
            await asyncio.sleep(PAUSE_S)

    tasks = [asyncio.create_task(ask(), name="fleet") for _ in range(TABS)]
    deadline = time.perf_counter() + ASKED_S
    while time.perf_counter() < deadline:
        await stage.run.tell("organizations", "poll")
        await asyncio.sleep(PAUSE_S)
    for task in tasks:
        if task.done():
            task.result()
    await end_tasks(*tasks)
    times = sorted(first.values())
    # The first table of the stretch may be older than the stretch.
    rate = (len(times) - 2) / (times[-1] - times[1]) if len(times) > 2 else 0.0
    note = f"{len(times)} tables for {requests} requests of {TABS} tabs"
    what = "tables made while the journal grows"
    return Row(number=NUMBER, what=what, unit="a second", goal=1.0, measured=rate, note=note)


# ── nobody looks ───────────────────────────────────────────────────────────────────────────────


async def _idle_row(rounds: int) -> Row:
    """Memory of a bridge whose console nobody has opened, above that of one without a console."""
    above, sizes = [], []
    async with fleet.simulated(IDLE_TERMINALS) as url:
        for _ in range(rounds):
            without, idle = [await _resident(url, enabled=enabled) for enabled in (False, True)]
            above.append(idle - without)
            sizes.append(idle)
    note = f"{statistics.median(sizes):.1f} MiB with {IDLE_TERMINALS} terminals"
    row = Row(number=NUMBER, what="memory of a console that nobody opened", unit="MiB", goal=2.0, note=note)
    return of_rounds(row, above)


async def _resident(url: str, *, enabled: bool) -> float:
    async with fleet.running(url, console={"enabled": enabled}, homeassistant={"enabled": False}) as run:
        for call in ("user_terminals", "ut_signal_quality"):
            await run.poll(call)
        return run.usage.rss
