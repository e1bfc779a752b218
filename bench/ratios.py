"""Rows 1 to 5 and 19: parts of the bridge in this process, each against its floor, in turn."""

import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from bench import drains, polls
from bench.clock import Clock, ratios, spent
from bench.scope import Scope, spelled
from bench.table import Row, of_rounds
from oneweb_bridge.demo import mosquitto

Measure = Callable[[Clock], Awaitable[None]]


async def compared(row: Row, rounds: int, ours: Measure, floor: Measure) -> Row:
    """Measures both in turn, so that a machine that drifts drifts for both. `row.floor` names the floor."""
    pairs: list[tuple[Clock, Clock]] = []
    for _ in range(rounds):
        pair = (Clock(), Clock())
        await ours(pair[0])
        await floor(pair[1])
        pairs.append(pair)
    mine, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    wall, cpu = (ratios([getattr(c, n) for c in mine], [getattr(c, n) for c in theirs]) for n in ("wall", "cpu"))
    row = msgspec.structs.replace(row, bridge=spent(mine), floor=f"{row.floor}: {spent(theirs)}")
    return of_rounds(row, wall, cpu)


# ── polls ──────────────────────────────────────────────────────────────────────────────────────


async def poll_rows(scope: Scope) -> AsyncIterator[Row]:
    """Row 1."""
    for terminals in (scope.of(10_000), scope.of(100_000)):
        async for row in _polls_of(terminals, scope.rounds):
            yield row


async def _polls_of(terminals: int, rounds: int) -> AsyncIterator[Row]:
    first = polls.pages(terminals)
    rounds_of = itertools.count(1)

    async def floor(clock: Clock) -> None:
        polls.split_and_hash(first, clock)

    async with polls.filled(first) as fleet:
        # The second poll of a fleet learns its pages; those after it are what goes on for months.
        await polls.unchanged(fleet, first, Clock())

        async def identical(clock: Clock) -> None:
            await polls.unchanged(fleet, first, clock)

        async def volatile(clock: Clock) -> None:
            await polls.unchanged(fleet, polls.later(first, next(rounds_of)), clock)

        for what, goal, ours in (("identical bytes", 1.5, identical), ("volatile fields moved", 2.5, volatile)):
            row = Row(number="1", what=f"unchanged poll of {spelled(terminals)}, {what}", goal=goal)
            row = msgspec.structs.replace(row, floor="split + hash")
            yield await compared(row, rounds, ours, floor)


async def coverage_rows(scope: Scope) -> AsyncIterator[Row]:
    """Row 19."""
    terminals, rounds_of = scope.of(10_000), itertools.count(1)
    first = polls.pages(terminals)
    async with polls.filled(first) as fleet:

        async def unchanged(clock: Clock) -> None:
            await polls.unchanged(fleet, polls.later(first, next(rounds_of)), clock)

        await unchanged(Clock())
        what = f"coverage and shape in an unchanged poll of {spelled(terminals)}"
        yield await compared(_with_coverage(what, 1.05), scope.rounds, unchanged, _blind(unchanged))

    async def snapshot(clock: Clock) -> None:
        await polls.snapshot(first, clock)

    what = f"coverage and shape in a first snapshot of {spelled(terminals)}"
    yield await compared(_with_coverage(what, 1.1), scope.rounds, snapshot, _blind(snapshot))


def _with_coverage(what: str, goal: float) -> Row:
    return Row(number="19", what=what, goal=goal, floor="without")


def _blind(measure: Measure) -> Measure:
    async def without(clock: Clock) -> None:
        with polls.blind():
            await measure(clock)

    return without


# ── drains ─────────────────────────────────────────────────────────────────────────────────────

Drain = Callable[[int, int, int, Clock], Awaitable[None]]


def _draining(drain: Drain, port: int, count: int, topics: int) -> Measure:
    return lambda clock: drain(port, count, topics, clock)


@contextlib.asynccontextmanager
async def default_broker() -> AsyncIterator[int]:
    """A mosquitto with its default configuration, that is with Nagle; gives its port."""
    with tempfile.TemporaryDirectory() as directory:
        conf = Path(directory) / "default.conf"
        conf.write_text("allow_anonymous true\n")
        port = mosquitto.free_port()
        async with mosquitto.run_mosquitto(port, conf):
            yield port


async def drain_rows(scope: Scope) -> AsyncIterator[Row]:
    """Rows 2 and 3."""
    count, many, few = scope.of(20_000), 10_000, 100
    async with default_broker() as port:
        for number, goal, topics, peer, floor in (
            ("2", 1.2, many, drains.bare, "aiomqtt, 20 workers"),
            ("3", 2.5, many, drains.by_hand, "raw socket"),
            ("3", 2.5, few, drains.by_hand, "raw socket"),
        ):
            what = f"drain of {spelled(count)} rows on {spelled(topics)} topics"
            note = f"both sides MQTT 5, {drains.WINDOW} messages in flight"
            row = Row(number=number, what=what, goal=goal, floor=floor, note=note)
            ours, theirs = _draining(drains.ours, port, count, topics), _draining(peer, port, count, topics)
            yield await compared(row, scope.rounds, ours, theirs)


async def stall_row(scope: Scope) -> AsyncIterator[Row]:
    """Row 4."""
    quick = mosquitto.free_port()
    async with default_broker() as port, mosquitto.run_mosquitto(quick):
        row = Row(number="4", what="2 000 messages, default mosquitto", goal=2.0, floor="one with nodelay")
        ours, theirs = _draining(drains.ours, port, 2000, 2000), _draining(drains.ours, quick, 2000, 2000)
        yield await compared(row, scope.rounds, ours, theirs)


# ── transactions ───────────────────────────────────────────────────────────────────────────────


async def transaction_row(scope: Scope) -> AsyncIterator[Row]:
    """Row 5."""
    count = max(polls.PAGE, scope.of(100_000) // polls.PAGE * polls.PAGE)

    async def ours(clock: Clock) -> None:
        await polls.transaction(count, clock)

    async def floor(clock: Clock) -> None:
        polls.executemany(count, clock)

    what = f"records + journal of {spelled(count)} changes"
    yield await compared(Row(number="5", what=what, goal=1.15, floor="bare executemany"), scope.rounds, ours, floor)
