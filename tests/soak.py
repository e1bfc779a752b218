"""`make soak`: the long campaigns, seeded and bounded. Prints its seed, each round, and what was violated.

SOAK_MINUTES bounds it (default 20), SOAK_SEED repeats one.
"""

import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.campaign import ROUNDS, Finding


async def campaign(seed: int, minutes: float) -> int:
    """Runs rounds until the time is over, each kind of them at least once. Returns how many violations there were."""
    chance, deadline = random.Random(seed), time.monotonic() + minutes * 60
    counts: dict[str, int] = dict.fromkeys(ROUNDS, 0)
    violations: list[Finding] = []
    while time.monotonic() < deadline or not all(counts.values()):
        name = min(counts, key=lambda kind: counts[kind] / ROUNDS[kind].weight)
        round_seed = chance.randrange(1 << 30)
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="oneweb-soak-") as directory:
            found = await ROUNDS[name].run(Path(directory), round_seed)
        counts[name] += 1
        violations += found
        verdict = "ok" if not found else f"{len(found)} VIOLATIONS"
        print(f"{name:28} seed {round_seed:10}  {time.monotonic() - begun:6.1f} s  {verdict}", flush=True)
        for line in found[:20]:
            print(f"    {line}", flush=True)
    print(f"\nseed {seed}: {sum(counts.values())} rounds ({counts}), {len(violations)} violations")
    return len(violations)


def main() -> int:
    """The exit code: 0 when nothing was violated."""
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 30))
    minutes = float(os.environ.get("SOAK_MINUTES", "20"))
    print(f"seed {seed}, {minutes:g} minutes")
    return 1 if asyncio.run(campaign(seed, minutes)) else 0


if __name__ == "__main__":
    sys.exit(main())
