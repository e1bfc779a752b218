"""Puts defects that were mended back, one by one, and lets the campaign catch them.

    python -m tests.campaign.put_back            all of them
    python -m tests.campaign.put_back fence      those whose name has one of the words

Each is a row of `tests/mutants.py`, put into a copy of the tree. There the campaign plays rounds of faults from its
table, shrinks the first that breaks a promise, and plays what is left once more without the defect, where it must hold.
PUT_BACK_JOBS is how many defects are tried side by side (default 1). The exit code is 0 when `WANTED_SHARE` of those
that were chosen were caught and shrunk to two faults or fewer.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from tests.campaign.timeline import parse
from tests.mutants import ROOT, TABLE

WANTED_SHARE = 0.8
SEEDS = range(1, 17)
"""Of the rounds that are played until one breaks a promise."""
SHRINKING = 4
"""Rounds that shrinking may take."""
PATIENCE = 1800.0
"""Seconds that a round may take together with its shrinking; what takes longer counts as not caught."""
_LEFT = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", ".hypothesis", "build", "dist", "soak.json")


class Defect(msgspec.Struct, frozen=True):
    """What was mended: the guard that was added (its row in `tests/mutants.py`), and faults among which it mattered."""

    guard: str
    faults: tuple[str, ...]
    timeline: str = ""
    """When these faults are in force, where it matters only if they meet so; else each seed draws its times."""


# Not among them: "SUBACK: one that nobody waits for is no error". It shows itself as a traceback in the log, in the
# instant between the end of the waiting and that of the connection, which no fault from outside makes longer. Nor
# "stall watchdog": without it the probe of the next minute ends the connection, and the round holds.
DEFECTS = (
    Defect("old base: one that is cleared in part says so", ("base topic changed", "bridge killed")),
    Defect("old base: what an interrupted start leaves is known", ("base topic changed", "link cut")),
    Defect("discovery since the last row is announced again", ("broker killed", "mass degradation")),
    Defect(
        "devices that the broker lost do not wait for a pause of refused ones",
        ("broker lost state", "record too large"),
    ),
    Defect("discovery is announced again after a loss", ("broker lost state", "commands retained")),
    # Messages wait for late answers, several of each topic; it crashes while the cursor behind some is to be written.
    # In eight rounds it was not caught: two messages of a topic must go within the milliseconds of one save.
    Defect(
        "fence: a topic waits for the durable cursor",
        ("crash while publishing", "puback late"),
        "puback late@0+14, crash while publishing@0.5+13",
    ),
    Defect("cursor only behind what was acknowledged", ("bridge killed", "puback late")),
    Defect("lane: what waits is noted with the cursor that passed it", ("bridge killed", "class refused")),
    Defect("removal: many are held", ("bridge stopped", "mass removal")),
    Defect("completeness: the total is reached", ("api lies", "records removed")),
    # While the restored bridge starts, the broker must have lost the head by which any older copy is recognised.
    Defect(
        "backup: the copy has a journal id of its own",
        ("backup restored", "broker lost state"),
        "backup restored@0+4, broker lost state@2+14",
    ),
    Defect("a retained command is obeyed once", ("bridge killed", "commands retained")),
    Defect("samples exactly once", ("api delays", "link cut")),
    Defect("metric never goes back", ("api delays", "bridge suspended")),
    # These three were found by the campaign itself.
    Defect("usage does not go back with clocks that are all behind", ("api date", "clock a day off")),
    Defect("a topic that was refused when it was restored is not given up", ("broker lost state", "quota used up")),
    Defect("a bridge that cannot say offline leaves its will", ("base topic changed", "link garbled")),
)


class Outcome(msgspec.Struct, frozen=True):
    """What became of a defect: the command that shows it, its faults, and the first sentence of what was broken."""

    timeline: str = ""
    seed: int = 0
    finding: str = ""
    is_sound: bool = True
    """Whether the same round held without the defect."""

    @property
    def is_caught(self) -> bool:
        """Caught, shrunk to two faults or fewer, and by the defect alone."""
        return bool(self.timeline) and self.is_sound and len(parse(self.timeline, 0).faults) <= 2


def put_into(tree: Path, guard: str) -> None:
    """Takes the guard out of the sources of a tree."""
    (mutant,) = (mutant for mutant in TABLE if mutant.guard == guard)
    path = tree / "oneweb_bridge" / mutant.file
    text = path.read_text()
    assert text.count(mutant.text) == 1, f"{guard}: its text does not stand once in {mutant.file}"
    path.write_text(text.replace(mutant.text, mutant.without))


def tried(defect: Defect) -> Outcome:
    """Puts a defect into a copy of the tree, and plays rounds there."""
    with tempfile.TemporaryDirectory(prefix="oneweb-put-back-") as place:
        tree = Path(shutil.copytree(ROOT, Path(place) / "tree", ignore=_LEFT))
        put_into(tree, defect.guard)
        for seed in SEEDS:
            rounds = ("--timeline", defect.timeline) if defect.timeline else ("--pair", *defect.faults)
            code, output = _play(tree, *rounds, "--seed", f"{seed}", "--shrink", f"{SHRINKING}")
            timeline = re.search(r'repeat it: .*--timeline "([^"]*)"', output)
            if code and timeline:
                sound, _ = _play(ROOT, "--timeline", timeline[1], "--seed", f"{seed}")
                return Outcome(timeline[1], seed, _finding_of(output), is_sound=sound == 0)
    return Outcome()


def _play(tree: Path, *arguments: str) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-m", "tests.soak", *arguments]
    try:
        ended = subprocess.run(line, cwd=tree, env=environment, check=False, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return 0, ""
    return ended.returncode, ended.stdout.decode()


def _finding_of(output: str) -> str:
    return next((line.strip() for line in output.splitlines() if line.startswith("    ")), "")


def line_of(defect: Defect, outcome: Outcome) -> str:
    """A line for the terminal."""
    if not outcome.timeline:
        return f"NOT CAUGHT  {defect.guard}"
    word = "caught   " if outcome.is_caught else "NOT SOUND" if not outcome.is_sound else "TOO MANY "
    return f"{word}  {defect.guard}: {outcome.timeline} (seed {outcome.seed}): {outcome.finding[:160]}"


def main(words: Sequence[str]) -> int:
    """The exit code: 0 when enough were caught."""
    chosen = [d for d in DEFECTS if not words or any(word in d.guard for word in words)]
    with ThreadPoolExecutor(int(os.environ.get("PUT_BACK_JOBS") or 1)) as pool:
        caught = _count(zip(chosen, pool.map(tried, chosen), strict=True))
    print(f"\n{len(chosen)} defects put back, {caught} caught with two faults or fewer")
    return 0 if caught >= WANTED_SHARE * len(chosen) else 1


def _count(outcomes: Iterable[tuple[Defect, Outcome]]) -> int:
    caught = 0
    for defect, outcome in outcomes:
        print(line_of(defect, outcome), flush=True)
        caught += outcome.is_caught
    return caught


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
