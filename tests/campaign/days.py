"""Days of simulated time, with one to three faults that overlap, each played in one process in less than a minute.

    python -m tests.campaign.days                                   a day of the seed 0
    python -m tests.campaign.days --actor clock --seed 7            a fault of the clock, as `make soak` has it
    python -m tests.campaign.days --timeline "api down@3600+7200, disk full@4000+9000" --seed 7 --shrink 20

Times of a timeline are simulated seconds from the moment when every call has succeeded once. A day ends well when the
checker finds nothing in what the journal told (see `tests.campaign.day`), every call is polled again at its interval
soon after the last fault, presence is told at most hourly and is as young as that, and all records are the API's.
"""

import argparse
import asyncio
import json
import logging
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from oneweb_bridge.simulator import Options, serve
from tests import checker, harness, truth, virtual_time
from tests.campaign import day_judging
from tests.campaign.day import Day
from tests.campaign.day_faults import FAULTS
from tests.campaign.scene import meanwhile
from tests.campaign.shrinking import shrink
from tests.campaign.timeline import Span, Timeline, parse
from tests.cancelling import cancel_until_done
from tests.fault_bench import RoundResult

START = "2025-06-17T14:15:00Z"
HOUR = 3600.0
ACTORS = {
    actor: ", ".join(fault.name for fault in FAULTS.values() if fault.actor == actor)
    for actor in sorted({fault.actor for fault in FAULTS.values()})
}
"""The actors, each with the names of its faults."""
SETTLED_S = 900.0
"""Simulated seconds within which every call has succeeded once where nothing is wrong."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a day has besides its faults. Times are simulated seconds."""

    terminals: int = 12
    hold_for: float = 4 * HOUR
    """How long many removals are held: shorter than the default, so that a day has both ends of a hold."""
    quiet: float = 6.5 * HOUR
    """After the last fault: longer than the longest interval, and than a hold."""
    still: float = 1.5 * HOUR
    """At the end, when the fleet stands still: longer than a removal takes."""
    changes: dict[str, Any] = {}
    """Of the configuration."""


DAY = Plan()


def draw(seed: int, actor: str | None = None) -> Timeline:
    """A day with one to three faults that overlap, one of them of this actor."""
    chance = random.Random(f"{seed} {actor}")
    first = chance.choice([name for name, fault in FAULTS.items() if actor in (None, fault.actor)])
    others = chance.sample(sorted(FAULTS.keys() - {first}), chance.choice((0, 1, 1, 2)))
    spans = []
    for name in sorted((first, *others)):
        seconds = chance.uniform(2 * HOUR, 10 * HOUR)
        # All of them are in force at one moment, two hours from the begin.
        lasting = min(seconds, FAULTS[name].most)
        begin = 2 * HOUR - chance.uniform(0.2, 0.8) * min(lasting, 2 * HOUR)
        spans.append(Span(name, round(begin), round(lasting)))
    return Timeline(seed, tuple(spans))


def play(directory: Path, timeline: Timeline, plan: Plan = DAY) -> RoundResult:
    """What became of the bridge in a day of these faults."""
    return virtual_time.run(_play(directory, timeline, plan), datetime.fromisoformat(START).timestamp())


async def _play(directory: Path, timeline: Timeline, plan: Plan) -> RoundResult:
    options = Options(
        terminals=plan.terminals, seed=timeline.seed % 1000, start=START, ledger=str(directory / "ledger.jsonl")
    )
    async with serve(options) as api:
        day = Day(directory, api, timeline.seed)
        day.changes["plan"] = harness.merged({"removal": {"hold_for": plan.hold_for}}, plan.changes)
        for name in timeline.faults:
            day.changes[f"needs of {name}"] = FAULTS[name].changes
        async with day.meanwhile():
            is_settled = await day.until(lambda: _has_settled(day), SETTLED_S)
            day.expect(is_settled, f"not every call has succeeded after {SETTLED_S:.0f} s")
            await _hold_all(day, timeline)
            mended = time.time()
            await asyncio.sleep(plan.quiet)
            polls_until = time.time()
            api.freeze()
            await asyncio.sleep(plan.still)
            for _ in range(2):
                day.findings += [f"not as promised: at the end {error}" for error in await day.poll_all()]
            await day.until_read()
            return await _round_result(day, directory, plan, mended, polls_until)


def _has_settled(day: Day) -> bool:
    return hasattr(day, "parts") and day_judging.successes(day.received).keys() >= day.intervals().keys()


async def _hold_all(day: Day, timeline: Timeline) -> None:
    async with meanwhile(_live(day)), asyncio.TaskGroup() as group:
        for span in timeline.spans:
            group.create_task(_hold(day, span, timeline.seed), name=span.fault)


async def _hold(day: Day, span: Span, seed: int) -> None:
    await asyncio.sleep(span.begin)
    async with FAULTS[span.fault].hold(day, random.Random(f"{seed} {span.fault}")):
        await asyncio.sleep(span.seconds)


async def _live(day: Day) -> None:
    """What the story of the simulator has not by itself: corrections, counters that begin anew, new names."""
    await asyncio.sleep(day.chance.uniform(300, 3000))
    # Once: values that are corrected again may come to be what they were.
    day.api.fault("corrected")
    while True:
        terminal = day.chance.choice(day.api.truth("terminals"))["id"]
        day.api.fleet("rename", id=terminal, name=f"T{day.chance.randint(1, 1 << 20)}")
        day.api.fault("counter_reset")
        await asyncio.sleep(day.chance.uniform(300, 3000))


async def _round_result(day: Day, directory: Path, plan: Plan, mended: float, until: float) -> RoundResult:
    retained = await day.retained()
    story = checker.Story(
        ledger=[json.loads(line) for line in (directory / "ledger.jsonl").read_bytes().splitlines()],
        received=[(message.topic, message.payload, message.retain) for message in day.received],
        retained=retained,
        hold_for=plan.hold_for,
        heard_at=day_judging.times_of_events(day.received),
    )
    intervals = day.intervals()
    recovery, late = day_judging.late(day.received, mended, intervals)
    findings = checker.judge(story) + truth.differences(retained, truth.expected(day.api))
    findings += late + day_judging.off_schedule(day.received, mended, until, intervals)
    findings += day_judging.wrong_presence(day.received, day.api.truth("terminals"), time.time())
    findings += day_judging.unwell(day.received)
    return RoundResult(findings=day.findings + findings, recovery=recovery, messages=len(day.received))


# ── as a process of its own ────────────────────────────────────────────────────────────────────


async def play_apart(actor: str, directory: Path, seed: int) -> RoundResult:
    """A day with a fault of this actor, in a process of its own: what plays beside it has real time."""
    return await _play_apart("--actor", actor, "--seed", f"{seed}", "--directory", str(directory))


async def shrunk(timeline: Timeline, max_rounds: int) -> Timeline:
    """The smallest timeline that still fails; each day that is tried is a process of its own."""

    async def fails(candidate: Timeline) -> bool:
        result = await _play_apart("--timeline", str(candidate), "--seed", f"{candidate.seed}")
        print(f"  shrinking: {candidate}: {len(result.findings)} violations", flush=True)
        return bool(result.findings)

    return await shrink(timeline, fails, max_rounds)


async def _play_apart(*arguments: str) -> RoundResult:
    line = [sys.executable, "-m", "tests.campaign.days", *arguments, "--json"]
    process = await asyncio.create_subprocess_exec(
        *line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    reading = asyncio.create_task(process.communicate())
    try:
        await asyncio.wait({reading})
        output, errors = reading.result()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await cancel_until_done(reading)
    if process.returncode not in (0, 1) or not output:
        return RoundResult(findings=[f"not finished: exit code {process.returncode}: {errors.decode()[-600:]}"])
    return msgspec.json.decode(output, type=RoundResult)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 when nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.days")
    parser.add_argument("--actor", choices=list(ACTORS))
    parser.add_argument("--timeline")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, help="where its files stay; without it, nowhere")
    parser.add_argument("--json", action="store_true", help="prints the result for a program")
    parser.add_argument(
        "--shrink", type=int, default=0, metavar="DAYS", help="shrinks a day that fails, in so many days at most"
    )
    options = parser.parse_args(arguments)
    # What a bridge logs in a day is what its faults do to it.
    logging.disable()
    timeline = parse(options.timeline, options.seed) if options.timeline else draw(options.seed, options.actor)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="oneweb-day-") as place:
        result = play(options.directory or Path(place), timeline)
    if options.json:
        print(msgspec.json.encode(result).decode())
    else:
        print(f"{timeline} seed {timeline.seed}: {time.monotonic() - begun:.1f} s, {result.messages} messages")
        print("\n".join(result.findings) or "ok", flush=True)
    if result.findings and options.shrink:
        smallest = asyncio.run(shrunk(timeline, options.shrink))
        print(f'  repeat it: python -m tests.campaign.days --timeline "{smallest}" --seed {smallest.seed}')
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
