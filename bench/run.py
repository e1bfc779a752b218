"""`make bench`: the figures of docs/performance.md, as ratios of interleaved rounds, printed and written as JSON."""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from bench import drains, polls
from bench.clock import Clock, ratio
from oneweb_bridge import broker
from oneweb_bridge.cli import SWITCH


class Row(msgspec.Struct, frozen=True):
    """One line of the table: what, the goal, and the median ratio of wall and of CPU seconds."""

    what: str
    goal: float
    wall: float
    cpu: float


Measure = Callable[[Clock], Awaitable[None]]


async def compared(what: str, goal: float, rounds: int, ours: Measure, floor: Measure) -> Row:
    """Measures both in turn, so that a machine that drifts drifts for both."""
    pairs: list[tuple[Clock, Clock]] = []
    for _ in range(rounds):
        pair = (Clock(), Clock())
        await ours(pair[0])
        await floor(pair[1])
        pairs.append(pair)
    wall, cpu = ratio([a for a, _ in pairs], [b for _, b in pairs])
    row = Row(what, goal, round(wall, 2), round(cpu, 2))
    print(f"{row.what:64} goal {row.goal:5.2f}   wall {row.wall:6.2f}   CPU {row.cpu:6.2f}", flush=True)
    return row


async def drain_rows(rounds: int, count: int) -> list[Row]:
    """Draining the journal to a mosquitto with its default configuration."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        conf = Path(directory) / "default.conf"
        conf.write_text("allow_anonymous true\n")
        port, quick = broker.free_port(), broker.free_port()
        async with broker.running(port, conf), broker.running(quick):
            for what, goal, topics, peer in (
                ("drain, 10 000 topics, against aiomqtt", 1.2, 10_000, drains.bare),
                ("drain, 10 000 topics, against the raw socket", 6.5, 10_000, drains.by_hand),
                ("drain, 100 topics, against the raw socket", 8.0, 100, drains.by_hand),
            ):
                rows.append(
                    await compared(
                        what,
                        goal,
                        rounds,
                        lambda clock, topics=topics: drains.ours(port, count, topics, clock),  # type: ignore[misc]
                        lambda clock, topics=topics, peer=peer: peer(port, count, topics, clock),  # type: ignore[misc]
                    )
                )
            rows.append(
                await compared(
                    "2 000 messages, default broker against one with nodelay",
                    2.0,
                    rounds,
                    lambda clock: drains.ours(port, 2000, 2000, clock),
                    lambda clock: drains.ours(quick, 2000, 2000, clock),
                )
            )
    return rows


async def poll_rows(rounds: int, terminals: int) -> list[Row]:
    """Polls in which nothing changed."""
    rows = []
    first = polls.pages(terminals)
    rounds_of = itertools.count(1)

    async def floor(clock: Clock) -> None:
        polls.split_and_hash(first, clock)

    async with polls.filled(first) as intake:
        for what, goal, bodies in (
            ("identical bytes", 1.5, lambda: first),
            ("volatile fields moved", 3.0, lambda: polls.later(first, next(rounds_of))),
        ):
            rows.append(
                await compared(
                    f"unchanged poll of {terminals}, {what}, against split + hash",
                    goal,
                    rounds,
                    lambda clock, bodies=bodies: polls.unchanged(intake, bodies(), clock),  # type: ignore[misc]
                    floor,
                )
            )
    return rows


async def transaction_row(rounds: int, count: int) -> Row:
    """Storing changes."""

    async def floor(clock: Clock) -> None:
        polls.executemany(count, clock)

    what = f"records + journal of {count} changes, against executemany"
    return await compared(what, 1.3, rounds, lambda clock: polls.transaction(count, clock), floor)


async def bench(rounds: int, scale: float) -> list[Row]:
    """All rows."""
    return [
        *await drain_rows(rounds, int(20_000 * scale)),
        *await poll_rows(rounds, int(10_000 * scale)),
        *await poll_rows(max(3, rounds // 2), int(100_000 * scale)),
        await transaction_row(rounds, int(100_000 * scale)),
    ]


def main() -> int:
    """Prints the table; the exit code is 0 whatever it says, for a figure is no verdict."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--scale", type=float, default=1.0, help="a smaller run for a first look")
    options.add_argument("--json", type=Path, default=Path("bench/results/local/bench.json"))
    given = options.parse_args()
    sys.setswitchinterval(SWITCH)
    rows = asyncio.run(bench(given.rounds, given.scale))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps([msgspec.structs.asdict(row) for row in rows], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
