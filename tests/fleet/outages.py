"""PostgreSQL away, and back: `python -m tests.fleet.outages [KIND…] [--seconds N] [--seed S]`.

Two workers, and a server that is stopped (`away`), is killed and started again and again (`immediate`), stands still
(`frozen`), finds its disk full (`full`), or is reached through a proxy that cuts connections in the middle of a COMMIT
(`cut`). Meanwhile everything changes, and polls are requested. Nothing may be published that is not stored, no worker
may collect in memory, and within 30 s of the server's return all must be as the API says.

The full disk is a small tmpfs where one may be mounted; else no file of the server may grow (RLIMIT_FSIZE).
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path

import aiomqtt
import msgspec
import psycopg

from tests import harness
from tests.fault_bench import MOST_MEMORY
from tests.fleet import commit_proxy, watching
from tests.fleet.workers import NAMES, Workers, set_up_workers
from tests.kill_rounds import REMOVAL
from tests.places import make_tables
from tests.postgres import Cluster, run_postgres
from tests.recording import Line

KINDS = ("away", "immediate", "frozen", "full", "cut")
SECONDS = 300.0
LEASE_S = 4.0
RECOVERY_S = 30.0
"""The longest that is promised, from the return of the server until all is right."""
CUT_SHARE = 0.15
DISK_BYTES = 128 << 20
TERMINALS = 12


class Figures(msgspec.Struct, kw_only=True):
    """What one outage showed. Memory is the highest of both workers, in MiB, before and at the end."""

    kind: str
    seconds: float
    how: str = ""
    recovery: float = 0.0
    memory_before: float = 0.0
    memory: float = 0.0
    messages: int = 0
    rows: int = 0
    findings: list[str] = []

    def __str__(self) -> str:
        """One line."""
        how = f" ({self.how})" if self.how else ""
        return (
            f"{self.kind}{how}, {self.seconds:.0f} s: all right {self.recovery:.1f} s after the return (promised "
            f"{RECOVERY_S:g} s), memory {self.memory:.0f} MiB (before {self.memory_before:.0f}), {self.messages} "
            f"messages, {self.rows} rows, {len(self.findings)} violations"
        )


class Scene(msgspec.Struct):
    """What an outage is made with. The proxy is between the workers and the server."""

    workers: Workers
    cluster: Cluster
    proxy: commit_proxy.CommitProxy
    disk: Path | None
    seconds: float
    how: str = ""

    async def keep_busy(self, seconds: float) -> None:
        """Changes and polls, while something is wrong. Time goes on as it does, and so does what is missed."""
        stage, end = self.workers.stage, time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for terminal in stage.api.truth("terminals"):
                stage.api.fleet("rename", id=terminal["id"], name=f"T{stage.chance.randint(1, 1 << 20)}" + "y" * 900)
            with contextlib.suppress(aiomqtt.MqttError):
                await harness.publish(stage.port, "oneweb/bridge/polling/all/poll")
            await asyncio.sleep(min(left, 0.7))


# ── the outages ────────────────────────────────────────────────────────────────────────────────


async def _away(scene: Scene) -> None:
    await asyncio.to_thread(scene.cluster.stop)
    await scene.keep_busy(scene.seconds)
    await asyncio.to_thread(scene.cluster.start)


async def _immediate(scene: Scene) -> None:
    """Killed with all its sessions, and started again, at random."""
    chance, count, end = scene.workers.stage.chance, 0, time.monotonic() + scene.seconds
    while count == 0 or time.monotonic() < end:
        await scene.keep_busy(chance.uniform(0.5, 4.0))
        await asyncio.to_thread(scene.cluster.stop, signal.SIGQUIT)
        await asyncio.sleep(chance.uniform(0, 1.0))
        await asyncio.to_thread(scene.cluster.start)
        count += 1
    scene.how = f"{count} times"


async def _frozen(scene: Scene) -> None:
    """Its processes stand still, so that no connection breaks and no answer comes."""
    pids = scene.cluster.pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await scene.keep_busy(scene.seconds)
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def _full(scene: Scene) -> None:
    filler = None if scene.disk is None else scene.disk / "filler"
    scene.how = "files that cannot grow" if filler is None else "tmpfs"
    _fill(scene.cluster, filler)
    await scene.keep_busy(scene.seconds)
    if filler is not None:
        filler.unlink()
    else:
        _limit_files(scene.cluster, resource.RLIM_INFINITY)
    await asyncio.to_thread(_revive, scene.cluster)


def _fill(cluster: Cluster, filler: Path | None) -> None:
    if filler is None:
        _limit_files(cluster, 0)
        return
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 65536)


def _limit_files(cluster: Cluster, size: int) -> None:
    for pid in cluster.pids() if cluster.is_running else ():
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _revive(cluster: Cluster) -> None:
    """The server ends when it cannot write its log; then somebody starts it again, as its supervisor does."""
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(cluster.url, connect_timeout=5).close()
        return
    cluster.stop(signal.SIGQUIT)
    cluster.start()


async def _cut(scene: Scene) -> None:
    chance, proxy = scene.workers.stage.chance, scene.proxy
    proxy.choose = lambda: chance.choice(commit_proxy.MODES) if chance.random() < CUT_SHARE else None
    await scene.keep_busy(scene.seconds)
    proxy.choose = lambda: None
    scene.how = ", ".join(f"{count} {mode}" for mode, count in proxy.cuts.items()) + f", {proxy.passed} passed"
    scene.workers.stage.expect(sum(proxy.cuts.values()), "no COMMIT was cut")


_PLAY: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "away": _away,
    "immediate": _immediate,
    "frozen": _frozen,
    "full": _full,
    "cut": _cut,
}

# ── a round ────────────────────────────────────────────────────────────────────────────────────


def unstored(lines: Iterable[Line], url: str) -> list[str]:
    """The events that were published and are not in the journal."""
    with psycopg.connect(url) as db:
        stored: dict[int, str] = dict(db.execute("SELECT seq, id FROM oneweb.journal").fetchall())
    wrong = []
    for line in lines:
        if "/event/" in line.topic and line.payload:
            event = json.loads(line.payload)
            if stored.get(int(event["id"].rpartition(":")[2])) != event["subject"]:
                wrong.append(f"published, but not stored: {line.topic} {event['id']}")
    return wrong


@contextlib.contextmanager
def _small_disk(kind: str) -> Iterator[Path | None]:
    """A small file system for the server, where one is wanted and may be mounted."""
    if kind != "full" or os.geteuid():
        yield None
        return
    place = Path(tempfile.mkdtemp(prefix="oneweb-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=755", "tmpfs", str(place)]
    is_mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield place if is_mounted else None
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)
        place.rmdir()


@contextlib.asynccontextmanager
async def _scene(kind: str, directory: Path, seed: int, seconds: float) -> AsyncIterator[Scene]:
    with _small_disk(kind) as disk, run_postgres(fsync=kind == "immediate", inside=disk) as cluster:
        cluster.execute("CREATE DATABASE bridge")
        await make_tables(cluster.url_of("bridge"))
        async with (
            commit_proxy.between(cluster.port) as proxy,
            set_up_workers(
                directory, seed, cluster.url_of("bridge"), LEASE_S, options={"terminals": TERMINALS}, removal=REMOVAL
            ) as workers,
        ):
            address = f"127.0.0.1:{proxy.port}/bridge?{commit_proxy.PARAMETERS}"
            workers.worker_url = f"postgresql://bridge@{address}"
            yield Scene(workers, cluster, proxy, disk, seconds)


async def play_round(kind: str, directory: Path, seed: int, seconds: float) -> Figures:
    """One outage, and what became of it."""
    figures = Figures(kind=kind, seconds=seconds)
    async with _scene(kind, directory, seed, seconds) as scene:
        workers, stage = scene.workers, scene.workers.stage
        for name in NAMES:
            await workers.start(name)
        await workers.until_leads(1)
        await workers.until_online()
        await scene.keep_busy(3.0)
        figures.memory_before = workers.peak_mib()
        await _PLAY[kind](scene)
        stage.mended()
        figures.memory = workers.peak_mib()
        await workers.hand_over()
        result = await stage.finish(removal=(1, 0.0, 5))
        await workers.end()
        stored = watching.read_stored(workers.url)
        figures.findings = [*result.findings, *stored.findings, *unstored(stage.recorder.lines, workers.url)]
        figures.how, figures.recovery = scene.how, result.recovery
        figures.messages, figures.rows = result.messages, stored.rows
        if figures.recovery > RECOVERY_S:
            figures.findings.append(f"all was right only {figures.recovery:.0f} s after the return of the server")
        if figures.memory > MOST_MEMORY:
            figures.findings.append(f"a worker took {figures.memory:.0f} MiB")
    return figures


async def play(kinds: Iterable[str], seed: int, seconds: float) -> list[Figures]:
    """One round of each kind. Prints a line for each."""
    rounds, chance = [], random.Random(seed)
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="oneweb-outages-") as place:
            figures = await play_round(kind, Path(place), chance.randrange(1 << 30), seconds)
            if figures.findings:
                shutil.copytree(place, Path("build") / f"outage-{kind}", dirs_exist_ok=True)
        print(*figures.findings, figures, sep="\n", flush=True)
        rounds.append(figures)
    return rounds


def main() -> int:
    """The exit code: 0 when nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.outages")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"that each outage lasts ({SECONDS:g})")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"there is no kind {min(unknown)}: expected some of {', '.join(KINDS)}")
    rounds = asyncio.run(play(options.kinds or KINDS, options.seed, options.seconds))
    return 1 if any(figures.findings for figures in rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
