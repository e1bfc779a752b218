"""Many instances on three workers: `python -m tests.fleet.sharing [INSTANCES] [--rounds N] [--seed S]`.

One worker is killed. Measured is for how long an instance has no holder, from the last sign of life of the one that
died until another claims it, and how long it takes until all have the same share again when it returns. An instance
that changes hands meanwhile may be without a holder no longer than that either.
"""

import argparse
import asyncio
import collections
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec
import psycopg
import yaml

from oneweb_bridge.store.lease_keeper import MAX_LOOK_S
from tests import harness
from tests.fleet.takeovers import quantile
from tests.places import new_database, run_cluster

INSTANCES, ROUNDS = 30, 3
NAMES = ("a", "b", "c")
LEASE_S = 2.0
RENEWAL_S = min(MAX_LOOK_S, LEASE_S / 3)
LONGEST_S = LEASE_S + RENEWAL_S + 2.0
"""The lease, a renewal, and what a takeover may take besides."""
PATIENCE_S = 90.0
LOOK_S = 0.02


class Figures(msgspec.Struct):
    """Seconds without a holder after each kill and each time that an instance changed hands; until all was balanced."""

    kills: int = 0
    instances: int = 0
    orphaned: list[float] = []
    handed_over: list[float] = []
    balanced: list[float] = []
    findings: list[str] = []

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.instances} instances on {len(NAMES)} workers, {self.kills} kills: without a holder p50 "
            f"{quantile(self.orphaned, 0.5):.2f} s, p99 {quantile(self.orphaned, 0.99):.2f} s, longest "
            f"{max(self.orphaned, default=0):.2f} s (lease {LEASE_S:g} s + renewal {RENEWAL_S:.2f} s, promised with "
            f"the takeover {LONGEST_S:.2f} s); handed over within {max(self.handed_over, default=0):.2f} s, balanced "
            f"again {max(self.balanced, default=0):.1f} s after the return, {len(self.findings)} violations"
        )


class Holding(msgspec.Struct, frozen=True):
    """Who holds an instance; times in s of this machine's clock, by which the server's goes."""

    worker: str
    epoch: int
    since: float
    expires: float
    held: bool


class Sharing:
    """Three workers with the same files. Made by `run_workers`."""

    def __init__(self, directory: Path, url: str, db: "psycopg.Connection", instances: int) -> None:
        self.figures = Figures(instances=instances)
        self.processes: dict[str, harness.Process] = {}
        self._directory = directory
        self._url = url
        self._db = db
        self._last: dict[str, Holding] = {}
        self._free_since: dict[str, float] = {}

    async def start(self, name: str) -> None:
        """Starts a worker."""
        place = self._directory / name
        place.mkdir(exist_ok=True)
        for number in range(self.figures.instances):
            settings = {
                "instance": f"i{number:02}",
                "api": {"base_url": "http://127.0.0.1:9", "client_id": "demo", "client_secret": "demo-secret"},
                "mqtt": {"host": "127.0.0.1", "port": 9, "base_topic": f"i{number:02}"},
                "state": {"path": None, "url": self._url, "lease": LEASE_S, "worker": name},
                "http": {"listen": "127.0.0.1:0"},
            }
            (place / f"i{number:02}.yaml").write_text(yaml.safe_dump(settings))
        self.processes[name] = await harness.launched(("tests.fleet.idle_worker",), place)

    async def end(self) -> None:
        """Kills all."""
        for process in self.processes.values():
            await process.kill()

    def look(self) -> dict[str, Holding]:
        """Who holds what; notes each change of hands since the last look."""
        rows = self._db.execute(_HOLDERS).fetchall()
        current = {row[0]: Holding(*row[1:]) for row in rows}
        for instance, holding in current.items():
            before = self._last.get(instance)
            if before is not None and before.epoch != holding.epoch:
                self._note(instance, before, holding)
                self._free_since.pop(instance, None)
            elif before is not None and before.held and not holding.held:
                self._free_since[instance] = holding.expires
        self._last = current
        return current

    def _note(self, instance: str, before: Holding, after: Holding) -> None:
        if self.processes[before.worker].returncode is None:
            # It was given up, within two looks where no look has seen it free.
            waited = after.since - self._free_since.get(instance, after.since)
            self.figures.handed_over.append(waited)
        else:
            waited = after.since - (before.expires - LEASE_S)
            self.figures.orphaned.append(waited)
        if waited > LONGEST_S:
            self.figures.findings.append(f"{instance} had no holder for {waited:.2f} s")

    async def until_balanced(self, names: Sequence[str]) -> float:
        """Waits until each of some workers holds the same number, or one less. Returns the seconds that it took."""
        begun = time.monotonic()
        while not is_balanced(self.look(), names, self.figures.instances):
            if time.monotonic() - begun > PATIENCE_S:
                counts = collections.Counter(h.worker for h in self._last.values() if h.held)
                logs = {name: process.text()[-500:] for name, process in self.processes.items()}
                raise TimeoutError(f"not balanced after {PATIENCE_S:.0f} s: {counts} {logs}")
            await asyncio.sleep(LOOK_S)
        return time.monotonic() - begun

    async def play_round(self, victim: str) -> None:
        """One worker is killed, and comes back."""
        others = [name for name in NAMES if name != victim]
        await self.processes[victim].kill()
        self.figures.kills += 1
        await self.until_balanced(others)
        await self.start(victim)
        self.figures.balanced.append(await self.until_balanced(NAMES))


def is_balanced(holdings: Mapping[str, Holding], names: Sequence[str], instances: int) -> bool:
    """Whether all are held, by these workers, and none holds two more than another."""
    counts = collections.Counter(holding.worker for holding in holdings.values() if holding.held)
    shares = [counts[name] for name in names]
    return sum(shares) == instances == counts.total() and max(shares) - min(shares) <= 1


_HOLDERS = """
SELECT instance, worker, epoch, EXTRACT(epoch FROM since)::float8, EXTRACT(epoch FROM expires)::float8, held
FROM oneweb.holders
"""


@contextlib.asynccontextmanager
async def run_workers(url: str, instances: int) -> AsyncIterator[Sharing]:
    """The workers, with nothing held yet."""
    with (
        tempfile.TemporaryDirectory(prefix="oneweb-sharing-") as place,
        psycopg.connect(url, autocommit=True) as db,
    ):
        sharing = Sharing(Path(place), url, db, instances)
        try:
            for name in NAMES:
                await sharing.start(name)
            yield sharing
        finally:
            await sharing.end()


async def play(url: str, instances: int, rounds: int, seed: int) -> Figures:
    """So many kills."""
    chance = random.Random(seed)
    async with run_workers(url, instances) as sharing:
        await sharing.until_balanced(NAMES)
        for _ in range(rounds):
            await asyncio.sleep(chance.uniform(0, LEASE_S))
            sharing.look()
            await sharing.play_round(chance.choice(NAMES))
        return sharing.figures


def main() -> int:
    """The exit code: 0 when nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.sharing")
    parser.add_argument("instances", nargs="?", type=int, default=INSTANCES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with run_cluster() as cluster, new_database(cluster) as url:
        figures = asyncio.run(play(url, options.instances, options.rounds, options.seed))
    print(*figures.findings, figures, sep="\n")
    return 1 if figures.findings else 0


if __name__ == "__main__":
    sys.exit(main())
