"""Kill -9 within folding, again and again: `python -m tests.fold_rounds ROUNDS [SEED]` plays a campaign.

A round writes samples, late ones and corrections, and starts a process that folds and kills itself at a named point.
Whatever was folded is trimmed then. At the end, and after each round, the history must be what was written: nothing
lost, nothing doubled.
"""

import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Event

from oneweb_bridge.trends import fold
from oneweb_bridge.trends.chunks import DAY_MS
from oneweb_bridge.trends.file import open_trends
from oneweb_bridge.trends.fold import Moment, fold_trends
from tests import crashing
from tests.past import BEGIN, HOUR, RULES, Past, open_past, sample

FOLDING_POINTS = ("folding_scan", "folding_chunks", "folding_end", "after_fold")
IDS = tuple(f"T{number}" for number in range(12))
Truth = dict[tuple[str, int], float]
"""Id and time -> the last value."""


def fold_and_crash(database: Path, point: str, nth: int) -> None:
    """In a process of its own: folds, and kills itself at the n-th pass of a point."""
    crashing.prepare(crashing.Accident(at=point, nth=nth))
    fold.SLICE_IDS, fold.SCAN_ROWS = 3, 20
    moment = Moment(api=BEGIN + 9 * DAY_MS, steady=1 << 50)
    trends = database.with_name("bridge.trends.db")
    fold_trends(database, trends, RULES, moment, is_known=False, stop=Event())


async def write_some(past: Past, chance: random.Random, truth: Truth) -> None:
    """New samples, late ones, and corrections of what may be folded and trimmed already."""
    for _ in range(4):
        entries = []
        for _ in range(chance.randint(1, 20)):
            id, ts = chance.choice(IDS), BEGIN + chance.randrange(72) * HOUR
            value = float(chance.randrange(10**6))
            known = (id, ts) in truth
            entries.append(sample(ts, id, sinr_db=value, **({"corrected": True} if known else {})))
            truth[id, ts] = value
        await past.write(*entries)


def differences(past: Past, truth: Truth) -> list[str]:
    """Where the history is not what was written."""
    samples: list[tuple[tuple[str, int], float]] = []
    for id in IDS:
        for body in past.shown(id=id):
            members = json.loads(body)
            samples.append(((id, members["ts"]), members["sinr_db"]))
    wrong = [f"{len(samples)} samples instead of {len(truth)}"] if len(samples) != len(truth) else []
    return wrong + [f"{key}: {value}, not {truth.get(key)}" for key, value in samples if truth.get(key) != value]


def folded_through(past: Past) -> int:
    """Up to which row the journal may be trimmed."""
    if not past.trends.exists():
        return 0
    try:
        with open_trends(past.trends) as file:
            return file.pending.folded_through()
    except Exception as error:
        raise AssertionError(f"the trends cannot be opened after a kill: {error}") from error


async def play_round(past: Past, point: str, chance: random.Random, truth: Truth) -> list[str]:
    """One kill. Returns what is wrong after it."""
    await write_some(past, chance, truth)
    # A pass looks through few rows, so its first step comes once or twice.
    arguments = [str(past.path), point, str(1 if point == "folding_scan" else chance.randint(1, 2))]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fold_rounds", "child", *arguments, stderr=subprocess.PIPE
    )
    _, errors = await process.communicate()
    if process.returncode != -signal.SIGKILL:
        return [f"the process ended with {process.returncode}: {errors.decode()[-300:]}"]
    wrong = differences(past, truth)
    if chance.random() < 0.7:
        past.trim(folded_through(past))
    return wrong + differences(past, truth)


async def campaign(rounds: int, seed: int, directory: Path) -> list[str]:
    """Plays rounds over one database. Returns the first difference, or nothing."""
    chance, truth = random.Random(seed), Truth()
    async with open_past(directory) as past:
        for number in range(rounds):
            point = FOLDING_POINTS[number % len(FOLDING_POINTS)]
            if wrong := await play_round(past, point, chance, truth):
                return [f"round {number}, {point}: {line}" for line in wrong]
        past.trim(past.fold(BEGIN + 9 * DAY_MS).folded_through)
        return differences(past, truth)


def main(arguments: list[str]) -> int:
    """The child of a round, or the campaign."""
    if arguments[:1] == ["child"]:
        fold_and_crash(Path(arguments[1]), arguments[2], int(arguments[3]))
        return 0
    rounds, seed = int(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 1
    with tempfile.TemporaryDirectory(prefix="oneweb-fold-") as place:
        wrong = asyncio.run(campaign(rounds, seed, Path(place)))
    print("\n".join(wrong) or f"{rounds} kills within folding: nothing lost, nothing doubled")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
