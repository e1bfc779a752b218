"""`make soak`: the fault campaign, seeded and bounded. Prints its seed and each round; ends with a table.

SOAK_MINUTES bounds it (default 20), SOAK_SEED repeats one, SOAK_JOBS is how many rounds run side by side (default 3).
SOAK_WINDOW sets how many messages bridge and broker have in flight (default: what each takes by itself).

    make soak                                               kinds of rounds, and pairs of faults that have not met yet
    make soak ARGS='--only pairs'                           pairs alone; `--only kinds` the others
    make soak ARGS='--kind "crash staging" --seed 4711'     one round of one kind
    make soak ARGS='--pair "link cut" "disk full" --seed 4711'          one round of these faults
    make soak ARGS='--timeline "link cut@0.5+4, disk full@1+2" --seed 4711'    exactly these times
    make soak ARGS='--left'                                 which pairs have not met yet
    make soak ARGS='--write docs/guarantees.md'             writes the figures into that page
    make soak ARGS='--from docs/guarantees.md'              goes on with the grid of that page, if it has one

Which pairs have met is kept in soak.json over several calls; remove it to begin anew.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from tests.campaign.catalogue import FAULTS, possible_pairs, why_not
from tests.campaign.covering import Table
from tests.campaign.kinds import KINDS
from tests.campaign.playing import play
from tests.campaign.report import (
    Played,
    Soak,
    lines_of,
    pairs_tables,
    progress,
    rounds_table,
    summary,
    table_on,
    written,
)
from tests.campaign.shrinking import MAX_ROUNDS, body_of_test, command_of, shrink
from tests.campaign.timeline import Timeline, draw, parse
from tests.fault_bench import RoundResult

FILE = Path("soak.json")
ROUND_TIMEOUT_S = 480.0
MAX_FINDINGS = 50
"""Findings of a round that are kept; how many there are more is said."""
SHORT_SHRINKING = 6
"""Rounds that shrinking takes within a campaign: enough to leave out faults. `--timeline … --shrink` does the rest."""


async def _play(run: Callable[[Path], Awaitable[RoundResult]]) -> tuple[float, RoundResult]:
    """Plays one round. What breaks the round itself is a finding too."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="oneweb-soak-") as directory:
        try:
            async with asyncio.timeout(ROUND_TIMEOUT_S):
                result = await run(Path(directory))
        except Exception as error:  # noqa: BLE001  # the other rounds go on, and the table says it
            cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            where = traceback.extract_tb(cause.__traceback__)[-1]
            result = RoundResult(
                findings=[f"not finished: {type(cause).__name__} {cause} at {where.name}:{where.lineno}"]
            )
    if (more := len(result.findings) - MAX_FINDINGS) > 0:
        kept = [*result.findings[:MAX_FINDINGS], f"and {more} findings more"]
        result = msgspec.structs.replace(result, findings=kept)
    return time.monotonic() - begun, result


async def play_kind(kind: str, seed: int) -> Played:
    """One round of a kind."""
    seconds, result = await _play(lambda directory: KINDS[kind].run(directory, seed))
    return Played(kind, seed, seconds, result)


async def play_timeline(timeline: Timeline) -> Played:
    """One round of faults that overlap."""
    seconds, result = await _play(lambda directory: play(directory, timeline))
    return Played("pairs", timeline.seed, seconds, result, str(timeline))


class Campaign:
    """Plays rounds until the time is over: a kind that is behind, and pairs that have not met, in turn."""

    def __init__(self, soak: Soak, only: str | None) -> None:
        self._soak = soak
        self._only = only
        self._chance = random.Random(soak.seed)
        self._counts = dict.fromkeys(() if only == "pairs" else KINDS, 0)
        self._begun = time.monotonic()

    async def run(self, minutes: float, jobs: int) -> None:
        """The whole campaign, with so many rounds side by side."""
        async with asyncio.TaskGroup() as group:
            for number in range(jobs):
                group.create_task(self._work(minutes), name=f"rounds {number}")

    async def _work(self, minutes: float) -> None:
        is_first = True
        while time.monotonic() - self._begun < minutes * 60 or (is_first and not all(self._counts.values())):
            if self._counts and (
                self._only == "kinds" or not all(self._counts.values()) or self._chance.random() < 0.3
            ):
                await self._play_kind()
            elif not await self._play_pair() and not self._counts:
                return
            is_first = not all(self._counts.values())
            self._save()

    async def _play_kind(self) -> None:
        least = min(self._counts[kind] / KINDS[kind].weight for kind in self._counts)
        kind = self._chance.choice([kind for kind in self._counts if self._counts[kind] / KINDS[kind].weight <= least])
        self._counts[kind] += 1
        self._note(await play_kind(kind, self._chance.randrange(1 << 30)))

    async def _play_pair(self) -> bool:
        """A round of faults that have not met. Returns whether there were any."""
        choice = self._soak.table.choose(possible_pairs())
        if choice is None:
            return False
        timeline = draw(*choice)
        played = await play_timeline(timeline)
        self._note(played)
        if played.result.findings:
            timeline = await shrunk(timeline, SHORT_SHRINKING)
        self._soak.table.note(timeline.faults, is_held=not played.result.findings)
        self._soak.table.seconds += played.seconds
        return True

    def _note(self, played: Played) -> None:
        self._soak.rounds.append(played)
        self._soak.seconds = time.monotonic() - self._begun
        print("\n".join(lines_of(played)), flush=True)

    def _save(self) -> None:
        fresh = FILE.with_suffix(".new")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(self._soak)))
        fresh.replace(FILE)


async def shrunk(timeline: Timeline, max_rounds: int = MAX_ROUNDS) -> Timeline:
    """The smallest timeline that still fails; it is printed as a command and as a test."""

    async def fails(candidate: Timeline) -> bool:
        played = await play_timeline(candidate)
        print("\n".join(f"  shrinking: {line}" for line in lines_of(played)), flush=True)
        return bool(played.result.findings)

    smallest = await shrink(timeline, fails, max_rounds)
    print(f"  repeat it: {command_of(smallest)}\n  or as a test:\n\n{body_of_test(smallest)}", flush=True)
    return smallest


def load_table(path: Path, seed: int, page: Path | None = None) -> Table:
    """The table of pairs that earlier calls have left, or that of a page, or a new one with this seed."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Soak).table
    except (OSError, msgspec.DecodeError):
        return (table_on(page.read_text()) if page else None) or Table(seed=seed)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="writes the figures into a page")
    parser.add_argument("--from", dest="page", type=Path, metavar="PAGE", help="takes its pairs, without a soak.json")
    parser.add_argument("--only", choices=["kinds", "pairs"], help="plays these alone")
    parser.add_argument("--kind", choices=list(KINDS), help="plays one round of this kind alone")
    parser.add_argument("--pair", nargs="+", metavar="FAULT", help="plays one round of one to three faults")
    parser.add_argument("--timeline", help="plays one round of faults at these times")
    parser.add_argument("--seed", type=int, help="the seed of that round")
    parser.add_argument(
        "--shrink",
        type=int,
        nargs="?",
        const=MAX_ROUNDS,
        default=0,
        metavar="ROUNDS",
        help="shrinks that round when it fails, in so many rounds at most",
    )
    parser.add_argument("--left", action="store_true", help="prints the pairs that have not met")
    options = parser.parse_args(arguments)
    names = options.pair or (parse(options.timeline, 0).faults if options.timeline else ())
    for name in names:
        if name not in FAULTS:
            parser.error(f"no fault {name!r}: expected some of {', '.join(FAULTS)}")
    if len(names) == 2 and (reason := why_not(*names)):
        parser.error(f"these two cannot meet: {reason}")
    return options


def _play_one(options: argparse.Namespace, seed: int) -> int:
    if options.kind:
        played = asyncio.run(play_kind(options.kind, seed))
        print("\n".join(lines_of(played)), flush=True)
        return 1 if played.result.findings else 0
    timeline = parse(options.timeline, seed) if options.timeline else draw(seed, options.pair)
    played = asyncio.run(play_timeline(timeline))
    print("\n".join(lines_of(played)), flush=True)
    if played.result.findings and options.shrink:
        asyncio.run(shrunk(timeline, options.shrink))
    return 1 if played.result.findings else 0


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 when nothing was violated."""
    options = _options(arguments)
    # As Ctrl-C does: the rounds under way end their processes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 30))
    if options.kind or options.pair or options.timeline:
        return _play_one(options, seed if options.seed is None else options.seed)
    table = load_table(FILE, seed, options.page)
    if options.left:
        print(
            "\n".join([*(f"{first} and {second}" for first, second in table.left(possible_pairs())), progress(table)])
        )
        return 0
    soak = Soak(seed=seed, started=time.strftime("%Y-%m-%d", time.gmtime()), table=table)
    minutes, jobs = float(os.environ.get("SOAK_MINUTES") or 20), int(os.environ.get("SOAK_JOBS") or 3)
    print(f"SOAK_SEED={seed} SOAK_MINUTES={minutes:g} SOAK_JOBS={jobs}", flush=True)
    asyncio.run(Campaign(soak, options.only).run(minutes, jobs))
    print("\n".join(["", *rounds_table(soak), "", *pairs_tables(soak.table), "", summary(soak), progress(soak.table)]))
    if options.write:
        options.write.write_text(written(options.write.read_text(), soak))
    return 1 if any(played.result.findings for played in soak.rounds) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("stopped: the campaign is not judged")
