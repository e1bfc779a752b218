"""What is measured in process: growth, the event loop's lag, and how long trimming keeps a commit waiting."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from bench import drains, plot, polls
from bench.clock import Clock
from bench.nodered import Row
from oneweb_bridge import broker, database, housekeeping, store
from oneweb_bridge.config import parse
from oneweb_bridge.model import Alert, Batch, Entry

TICK = 0.005
BODY = b'{"imei":"359235170006117","report":"signal_quality","ts":1750167607000,"rsrp_dbm":-40.0,"rssi_dbm":-106.0}'
Points = list[tuple[float, float]]


async def growth(scale: float) -> tuple[list[Row], dict[str, Points]]:
    """Row 11: CPU seconds, the least of three, against the number of terminals and of changes."""
    unchanged: Points = []
    for terminals in sorted({1000, 10_000, int(100_000 * scale)}):
        first, clocks = polls.pages(terminals), [Clock() for _ in range(3)]
        async with polls.filled(first) as intake:
            for number, clock in enumerate(clocks, 1):
                await polls.unchanged(intake, polls.later(first, number), clock)
        unchanged.append((terminals, min(clock.cpu for clock in clocks)))
    changed: Points = []
    for count in (1000, 10_000, 50_000):
        clocks = [Clock() for _ in range(3)]
        for clock in clocks:
            await polls.transaction(count, clock)
        changed.append((count, min(clock.cpu for clock in clocks)))
    found = {"unchanged poll by terminals": unchanged, "commit by changes": changed}
    return [_grown(name, points) for name, points in found.items()], found


def _grown(name: str, points: Points) -> Row:
    note = "CPU s: " + ", ".join(f"{x:.0f}: {y:.3f}" for x, y in points)
    return Row(f"growth, {name}", 1.05, False, round(plot.exponent(points), 3), "exponent", note)


async def _watch(lags: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(TICK)
        lags.append(1000 * (time.perf_counter() - before - TICK))


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[list[float]]:
    """How late the event loop was each time, in ms, while the block runs."""
    lags: list[float] = []
    task = asyncio.create_task(_watch(lags), name="lag")
    try:
        yield lags
    finally:
        task.cancel()


async def _lag_of(what: str, work: Coroutine[Any, Any, None]) -> Row:
    async with watched() as lags:
        await work
    worst, p99 = max(lags), sorted(lags)[int(len(lags) * 0.99)]
    return Row(what, 50.0, False, round(worst, 1), "ms", f"p99 {p99:.1f} ms of {len(lags)} looks")


async def lag(scale: float) -> list[Row]:
    """The longest lag during a first snapshot and during a drain."""
    terminals, count = int(100_000 * scale), int(20_000 * max(scale, 0.5))
    bodies = polls.pages(terminals)
    async with polls.filled([b"[]"]) as intake:
        intake.bodies = bodies
        first = await _lag_of(f"event-loop lag, first snapshot of {terminals}", _ignored(intake.poll("user_terminals")))
    port = broker.free_port()
    async with broker.running(port):
        # The rows are written inside the stretch, too: a drain that begins while a poll ends.
        drained = await _lag_of(f"event-loop lag, drain of {count}", drains.ours(port, count, 10_000, Clock()))
    return [first, drained]


async def _ignored(work: Coroutine[Any, Any, Any]) -> None:
    await work


def samples(first: int, count: int) -> Batch:
    """Journal rows as a report gives them."""
    return Batch(
        entries=[
            Entry("terminal", f"35923517{n % 10_000:07d}", "metric", "signal_quality", n, BODY)
            for n in range(first, first + count)
        ]
    )


def written() -> int:
    """Bytes that this process has caused to be written to the disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


async def _no_alert(_: Alert) -> None:
    return None


async def trimming(scale: float) -> list[Row]:
    """Row 10: the longest commit of one row while the journal is trimmed to its cap; what a sample costs on disk."""
    count = int(400_000 * scale)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        async with store.opened(path) as opened:
            size, physical = path.stat().st_size, written()
            for start in range(0, count, 1000):
                await opened.commit(samples(start, 1000))
            physical = written() - physical
            async with database.connected(path) as db:
                await db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                await db.execute("INSERT INTO cursor VALUES ('mqtt', ?)", (count,))
                grown = path.stat().st_size - size
                state = parse("", {}).state
                history = msgspec.structs.replace(state.history, max_size=path.stat().st_size // 2)
                state = msgspec.structs.replace(state, history=history)
                now = round(time.time() * 1000)
                task = asyncio.create_task(housekeeping.trim(db, state, ("mqtt",), _no_alert, now))
                waits = await _commits(opened, task)
                deleted = await task
    worst, p99 = max(waits), sorted(waits)[int(len(waits) * 0.99)]
    note = (
        f"p99 {p99:.1f} ms of {len(waits)} commits while {deleted} rows went; "
        f"a sample of {len(BODY)} bytes: {grown / count:.0f} bytes on disk, {physical / count:.0f} bytes written"
    )
    return [Row("longest commit while the journal is trimmed", 50.0, False, round(worst, 1), "ms", note)]


async def _commits(opened: store.Store, until: "asyncio.Task[int]") -> list[float]:
    waits = []
    while not until.done():
        before = time.perf_counter()
        await opened.commit(samples(len(waits), 1))
        waits.append(1000 * (time.perf_counter() - before))
        await asyncio.sleep(0.002)
    return waits
