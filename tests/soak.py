"""`make soak`: the fault campaign, seeded and bounded. Prints its seed and each round; ends with a table.

SOAK_MINUTES bounds it (default 20), SOAK_SEED repeats one, SOAK_JOBS is how many rounds run side by side (default 3).

    make soak ARGS='--kind "crash staging" --seed 4711'     one round of one kind
    make soak ARGS='--write docs/guarantees.md'             writes the figures into that page
"""

import argparse
import asyncio
import os
import random
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.campaign import KINDS
from tests.fault_bench import RoundResult

FILE = Path("soak.json")
BEGIN, END = "<!-- soak: written by make soak -->", "<!-- soak: end -->"


class Played(msgspec.Struct, frozen=True):
    """One round and what became of it."""

    kind: str
    seed: int
    seconds: float
    result: RoundResult


class Soak(msgspec.Struct):
    """A whole campaign. `seconds` is how long it took."""

    seed: int
    started: str
    seconds: float = 0.0
    rounds: list[Played] = []


async def played(kind: str, seed: int) -> Played:
    """Plays one round. What breaks the round itself is a finding too."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="oneweb-soak-") as directory:
        try:
            async with asyncio.timeout(480):
                result = await KINDS[kind].run(Path(directory), seed)
        except Exception as error:  # noqa: BLE001  # the other rounds go on, and the table says it
            where = traceback.extract_tb(error.__traceback__)[-1]
            result = RoundResult(
                findings=[f"not finished: {type(error).__name__} {error} at {where.name}:{where.lineno}"]
            )
    return Played(kind, seed, time.monotonic() - begun, result)


async def campaign(soak: Soak, minutes: float, jobs: int) -> None:
    """Plays rounds until the time is over, each kind at least once: the one that is most behind its weight first."""
    chance, begun = random.Random(soak.seed), time.monotonic()
    counts = dict.fromkeys(KINDS, 0)

    async def work() -> None:
        while time.monotonic() - begun < minutes * 60 or not all(counts.values()):
            least = min(counts[kind] / KINDS[kind].weight for kind in KINDS)
            kind = chance.choice([kind for kind in KINDS if counts[kind] / KINDS[kind].weight <= least])
            counts[kind] += 1
            done = await played(kind, chance.randrange(1 << 30))
            soak.rounds.append(done)
            tell(done)

    async with asyncio.TaskGroup() as group:
        for number in range(jobs):
            group.create_task(work(), name=f"rounds {number}")
    soak.seconds = time.monotonic() - begun


def tell(played: Played) -> None:
    """A line for a round, and one for each finding."""
    result = played.result
    outcome = "ok" if not result.findings else f"{len(result.findings)} VIOLATIONS"
    print(
        f"{played.kind:24} seed {played.seed:10}  {played.seconds:6.1f} s  at rest after {result.recovery:5.1f} s  "
        f"{result.messages:5} messages, {result.repeats:3} again, {result.memory:4.0f} MiB  {outcome}",
        flush=True,
    )
    for line in result.findings[:10]:
        print(f"    {line[:600]}", flush=True)


def table(soak: Soak) -> list[str]:
    """The figures of a campaign by kind, in Markdown."""
    names = (
        "Kind",
        "Fault",
        "Rounds",
        "At rest after, median / longest",
        "Messages",
        "Repeats",
        "Forgotten",
        "Violations",
    )
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for kind, about in KINDS.items():
        results = [round_.result for round_ in soak.rounds if round_.kind == kind]
        if not results:
            continue
        times = [result.recovery for result in results]
        lines.append(
            f"| {kind} | {about.fault} | {len(results)} | {statistics.median(times):.1f} s / {max(times):.1f} s "
            f"| {sum(v.messages for v in results)} | {sum(v.repeats for v in results)} "
            f"| {sum(v.forgotten for v in results)} | {sum(len(v.findings) for v in results)} |"
        )
    return lines


def summary(soak: Soak) -> str:
    """The campaign in a sentence or two."""
    results = [round_.result for round_ in soak.rounds]
    return (
        f"Campaign of {soak.started}, seed {soak.seed}: {len(results)} rounds of {len({o.kind for o in soak.rounds})} "
        f"kinds in {soak.seconds / 60:.0f} minutes, {sum(v.messages for v in results)} messages judged, "
        f"{sum(len(v.findings) for v in results)} violations. "
        f"The bridge took at most {max((v.memory for v in results), default=0):.0f} MiB of memory "
        f"and {max((v.disk for v in results), default=0) / 1e6:.0f} MB of disk."
    )


def write(soak: Soak, page: Path) -> None:
    """Puts the figures between the marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    body = "\n".join([BEGIN, "", *summary(soak).replace(". ", ".\n").split("\n"), "", *table(soak), "", END])
    page.write_text(before + body + after)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="writes the figures into a page")
    parser.add_argument("--kind", choices=list(KINDS), help="plays one round of this kind alone")
    parser.add_argument("--seed", type=int, help="the seed of that round")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 when nothing was violated."""
    options = _options(arguments)
    # As Ctrl-C does: the rounds under way end their processes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 30))
    soak = Soak(seed=seed, started=time.strftime("%Y-%m-%d", time.gmtime()))
    if options.kind:
        soak.rounds.append(asyncio.run(played(options.kind, seed if options.seed is None else options.seed)))
        tell(soak.rounds[0])
        return 1 if soak.rounds[0].result.findings else 0
    minutes, jobs = float(os.environ.get("SOAK_MINUTES") or 20), int(os.environ.get("SOAK_JOBS") or 3)
    print(f"SOAK_SEED={seed} SOAK_MINUTES={minutes:g} SOAK_JOBS={jobs}", flush=True)
    asyncio.run(campaign(soak, minutes, jobs))
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(soak)))
    print("\n".join(["", *table(soak), "", summary(soak)]))
    if options.write:
        write(soak, options.write)
    return 1 if any(round_.result.findings for round_ in soak.rounds) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("stopped: the campaign is not judged")
