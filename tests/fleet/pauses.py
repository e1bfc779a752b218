"""SIGSTOP and SIGCONT of the holder, again and again: `python -m tests.fleet.pauses [ROUNDS] [--unfenced] [--seed S]`.

Two writers share an instance. The holder is stopped at random, within an open transaction, within a COPY, and before a
COMMIT; most times it goes on after the other has taken over and written. It then tries to write, as fast as it can,
whatever its own clock says. With `--unfenced` the check is taken out of its transactions, and stale rows must appear.
"""

import argparse
import asyncio
import collections
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import psycopg

from tests.fleet import stopping, watching
from tests.fleet.writer import Orders
from tests.places import new_database, run_cluster

ROUNDS = 200
LANES = 4
"""Pairs of writers at the same time, each with a database of its own."""
LEASE_S = 2.0
PATIENCE_S = 60.0
SHORT_SHARE = 0.15
"""Of so many rounds the pause is shorter than the lease."""
MAX_MISSED = 20
"""How often a holder may lose its lease on the way to a point."""
AT_RANDOM = "random"
POINTS = (AT_RANDOM, AT_RANDOM, *stopping.POINTS)


class Figures(msgspec.Struct):
    """What a campaign showed."""

    points: collections.Counter[str] = msgspec.field(default_factory=collections.Counter)
    short: int = 0
    takeovers: int = 0
    rows: int = 0
    stale_rows: int = 0
    stale_statements: int = 0
    lost: int = 0
    findings: list[str] = []

    def add(self, other: "Figures") -> None:
        """Adds those of another lane."""
        self.points += other.points
        self.short += other.short
        self.takeovers += other.takeovers
        self.rows += other.rows
        self.stale_rows += other.stale_rows
        self.stale_statements += other.stale_statements
        self.lost += other.lost
        self.findings += other.findings

    def __str__(self) -> str:
        """One line for the end of a campaign."""
        points = ", ".join(f"{name} {count}" for name, count in sorted(self.points.items()))
        return (
            f"{self.points.total()} pauses ({points}; {self.short} shorter than the lease), {self.takeovers} takeovers,"
            f" {self.rows} rows: {self.stale_rows} rows and {self.stale_statements} statements of an older epoch after "
            f"a newer one, {self.lost} committed batches missing, {len(self.findings)} violations"
        )


class Writers:
    """Two writers of one instance. Made by `run_writers`."""

    def __init__(self, url: str, chance: random.Random, orders: Iterable[Orders], db: "psycopg.Connection") -> None:
        self.figures = Figures()
        self._url = url
        self._chance = chance
        self._orders = {each.name: each for each in orders}
        self._db = db
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._missed = 0

    async def start(self) -> None:
        """Starts both."""
        for name, orders in self._orders.items():
            text = msgspec.json.encode(orders).decode()
            self._processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.fleet.writer", text
            )

    async def end(self) -> None:
        """Kills both."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def pause(self) -> None:
        """One round: the holder stops, and goes on."""
        chance = self._chance
        worker, epoch = await self._until_holder_writes(0)
        point = chance.choice(POINTS)
        if not await self._stop(worker, point):
            self._missed += 1
            if self._missed > MAX_MISSED:
                raise TimeoutError(f"the holder did not come to {point}, as at {self._missed} points before")
            return
        self.figures.points[point] += 1
        if chance.random() < SHORT_SHARE:
            self.figures.short += 1
            await asyncio.sleep(chance.uniform(0.1, LEASE_S / 2))
        else:
            await self._until_holder_writes(epoch)
            await asyncio.sleep(chance.uniform(0, 0.3))
        os.kill(self._processes[worker].pid, signal.SIGCONT)
        # So long that it has tried to write before the next round.
        await asyncio.sleep(0.2)

    async def _stop(self, worker: str, point: str) -> bool:
        """Stops a writer at a point. Returns False where it did not come there."""
        pid, flag = self._processes[worker].pid, self._orders[worker].flag
        if point == AT_RANDOM:
            await asyncio.sleep(self._chance.uniform(0, 0.3))
            os.kill(pid, signal.SIGSTOP)
        else:
            fresh = flag.with_suffix(".new")
            fresh.write_text(point)
            fresh.rename(flag)
        end = time.monotonic() + 10
        while not is_stopped(pid):
            if time.monotonic() > end:
                flag.unlink(missing_ok=True)
                os.kill(pid, signal.SIGCONT)
                return False
            await asyncio.sleep(0.005)
        return True

    async def _until_holder_writes(self, after_epoch: int) -> tuple[str, int]:
        """Waits for a holder of a later epoch that has written. Returns its name and epoch."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            row = self._db.execute(_WRITING_HOLDER, (after_epoch,)).fetchone()
            if row is not None:
                return row[0], row[1]
            ended = [name for name, process in self._processes.items() if process.returncode is not None]
            if ended:
                raise RuntimeError(f"writers ended by themselves: {ended}")
            await asyncio.sleep(0.02)
        raise TimeoutError(
            f"no holder after epoch {after_epoch} wrote anything in {PATIENCE_S:.0f} s: {self._describe()}"
        )

    def _describe(self) -> str:
        """Who holds the instance, who stands still, and what the server does for whom."""
        stopped = [name for name, process in self._processes.items() if is_stopped(process.pid)]
        holders = self._db.execute("SELECT worker, epoch, held FROM oneweb.holders").fetchall()
        sessions = self._db.execute(
            "SELECT application_name, state, wait_event, left(query, 60) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
        return f"holders {holders}, stopped {stopped}, sessions {sessions}"

    def judge(self) -> Figures:
        """What the database says at the end, when both have been killed."""
        stored, figures = watching.read_stored(self._url), self.figures
        figures.takeovers, figures.rows = stored.holders - 1, stored.rows
        figures.stale_rows, figures.stale_statements = stored.stale_rows, stored.stale_statements
        figures.findings = list(stored.findings)
        with psycopg.connect(self._url) as db:
            last: dict[str, int] = dict(db.execute("SELECT name, max(seq) FROM oneweb.journal GROUP BY 1").fetchall())
            twice = db.execute(
                "SELECT count(*) FROM (SELECT name FROM oneweb.journal GROUP BY 1 "
                "HAVING count(DISTINCT epoch) > 1) AS names"
            ).fetchall()[0][0]
        for orders in self._orders.values():
            for line in orders.committed.read_text().splitlines():
                name, head = line.split()
                figures.lost += last.get(name) != int(head)
        figures.findings += [f"{figures.lost} batches that were committed are not in the journal"] * bool(figures.lost)
        figures.findings += [f"{twice} batches were written twice"] * bool(twice)
        return figures


_WRITING_HOLDER = """
SELECT worker, epoch FROM oneweb.holders
WHERE held AND epoch > %s AND epoch = (SELECT epoch FROM oneweb.journal ORDER BY seq DESC LIMIT 1)
"""


def is_stopped(pid: int) -> bool:
    """Whether a process stands still."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@contextlib.asynccontextmanager
async def run_writers(url: str, seed: int, *, fenced: bool) -> AsyncIterator[Writers]:
    """Two writers with the database at `url`, until the end of the block."""
    watching.install(url)
    with (
        tempfile.TemporaryDirectory(prefix="oneweb-pauses-") as directory,
        psycopg.connect(url, autocommit=True) as db,
    ):
        orders = [Orders(url=url, name=name, directory=directory, lease=LEASE_S, fenced=fenced) for name in "ab"]
        writers = Writers(url, random.Random(seed), orders, db)
        try:
            await writers.start()
            yield writers
        finally:
            await writers.end()


async def play_lane(url: str, rounds: int, seed: int, *, fenced: bool) -> Figures:
    """So many rounds with one pair."""
    async with run_writers(url, seed, fenced=fenced) as writers:
        while writers.figures.points.total() < rounds:
            await writers.pause()
        await writers.end()
        return writers.judge()


async def play(urls: list[str], rounds: int, seed: int, *, fenced: bool = True) -> Figures:
    """So many rounds, shared between databases that are used at the same time."""
    shares = [len(range(lane, rounds, len(urls))) for lane in range(len(urls))]
    whole = Figures()
    for figures in await asyncio.gather(
        *(
            play_lane(url, share, seed + lane, fenced=fenced)
            for lane, (url, share) in enumerate(zip(urls, shares, strict=True))
        )
    ):
        whole.add(figures)
    return whole


def main() -> int:
    """The exit code: 0 when nothing was violated; of the control, when something was."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.pauses")
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    parser.add_argument("--unfenced", action="store_true")
    parser.add_argument("--lanes", type=int, default=LANES)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with run_cluster() as cluster, contextlib.ExitStack() as stack:
        urls = [stack.enter_context(new_database(cluster)) for _ in range(options.lanes)]
        whole = asyncio.run(play(urls, options.rounds, options.seed, fenced=not options.unfenced))
    print(*whole.findings, f"{'without' if options.unfenced else 'with'} the fence: {whole}", sep="\n")
    return int(bool(whole.findings) != options.unfenced)


if __name__ == "__main__":
    sys.exit(main())
