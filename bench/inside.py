"""What is measured in this process: growth (row 11), the loop's lag, and what trimming and a sample cost (row 10)."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from bench import drains, plot, polls
from bench.clock import Clock, quantile
from bench.scope import Scope, spelled
from bench.table import Row
from oneweb_bridge.cli.signals import tune_interpreter
from oneweb_bridge.config.read import parse
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.records import Alert, Batch, Entry
from oneweb_bridge.store import database, housekeeping, store

TICK = 0.005
BODY = b'{"imei":"359235170006117","report":"signal_quality","ts":1750167607000,"rsrp_dbm":-40.0,"rssi_dbm":-106.0}'
TRIES = 3
"""Each point of the growth is the least of so many, for noise only adds."""
Points = list[tuple[float, float]]
Curves = dict[str, Points]


async def growth(scope: Scope) -> Curves:
    """CPU seconds against the number of terminals and of changes."""
    unchanged: Points = []
    for terminals in (scope.of(1000), scope.of(10_000), scope.of(100_000)):
        first, clocks = polls.pages(terminals), [Clock() for _ in range(TRIES)]
        async with polls.filled(first) as fleet:
            for number, clock in enumerate(clocks, 1):
                await polls.unchanged(fleet, polls.later(first, number), clock)
        unchanged.append((terminals, min(clock.cpu for clock in clocks)))
    changed: Points = []
    for count in sorted({max(1, scope.of(count) // polls.PAGE) * polls.PAGE for count in (1000, 10_000, 100_000)}):
        clocks = [Clock() for _ in range(TRIES)]
        for clock in clocks:
            await polls.transaction(count, clock)
        changed.append((count, min(clock.cpu for clock in clocks)))
    return {"unchanged poll by terminals": unchanged, "commit by changes": changed}


async def growth_rows(scope: Scope, drawn: Curves) -> AsyncIterator[Row]:
    """Row 11. Its curves are left in `drawn`."""
    drawn.update(await growth(scope))
    for name, points in drawn.items():
        note = "CPU s: " + ", ".join(f"{y:.3f} for {spelled(round(x))}" for x, y in points)
        row = Row(number="11", what=f"growth, {name}", goal=1.05, unit="exponent", floor="linear: 1", note=note)
        if len(points) < 2:
            yield msgspec.structs.replace(row, trouble="one point gives no slope: a larger scale is needed.")
        else:
            yield msgspec.structs.replace(row, measured=plot.exponent(points))


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


async def _lag_of(what: str, work: Coroutine[Any, Any, object]) -> Row:
    # As the command does it; this process also has a simulated fleet, which the bridge's has not.
    tune_interpreter()
    async with watched() as lags:
        await work
    note = f"p99 {quantile(lags, 0.99):.1f} ms of {len(lags)} looks, one each {1000 * TICK:.0f} ms"
    return Row(number="lag", what=f"event loop's lag, {what}", goal=50.0, unit="ms", measured=max(lags), note=note)


async def lag_rows(scope: Scope) -> AsyncIterator[Row]:
    """The longest lag during a first snapshot and during a drain."""
    terminals, count = scope.of(100_000), scope.of(20_000)
    bodies = polls.pages(terminals)
    async with polls.filled([b"[]"]) as fleet:
        fleet.api.bodies = bodies
        yield await _lag_of(f"first snapshot of {spelled(terminals)}", fleet.intake.poll("user_terminals"))
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port):
        # The rows are written inside the stretch, too: a drain that begins while a poll ends.
        work = drains.ours(port, count, 10_000, Clock())
        yield await _lag_of(f"writing and draining {spelled(count)} rows", work)


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


class Trimmed(msgspec.Struct, frozen=True):
    """What one trim to half of the journal did. Waits in ms, sizes in bytes a sample."""

    waits: list[float]
    deleted: int
    on_disk: float
    written: float


async def _trimmed(count: int) -> Trimmed:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        async with store.open_store(path) as opened:
            size, physical = path.stat().st_size, written()
            for start in range(0, count, 1000):
                await opened.commit(samples(start, 1000))
            physical = written() - physical
            async with database.open_connection(path) as db:
                await db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                await db.execute("INSERT INTO cursor (output, seq) VALUES ('mqtt', ?)", (count,))
                grown = path.stat().st_size - size
                state = parse("", {}).state
                history = msgspec.structs.replace(state.history, max_size=path.stat().st_size // 2)
                state = msgspec.structs.replace(state, history=history)
                now = round(time.time() * 1000)
                task = asyncio.create_task(housekeeping.trim(db, state, ("mqtt",), _no_alert, now))
                waits = await _commits(opened, task)
                return Trimmed(waits, await task, grown / count, physical / count)


async def trim_rows(scope: Scope) -> AsyncIterator[Row]:
    """Row 10: the longest commit of one row while the journal is trimmed to its cap; what a sample costs on disk."""
    trimmed = await _trimmed(max(1000, scope.of(400_000) // 1000 * 1000))
    note = (
        f"p99 {quantile(trimmed.waits, 0.99):.1f} ms of {len(trimmed.waits)} commits while {spelled(trimmed.deleted)} "
        f"rows were deleted"
    )
    what = "longest commit while the journal is trimmed"
    yield Row(number="10", what=what, goal=50.0, unit="ms", measured=max(trimmed.waits), note=note)
    sample = f"a sample of {len(BODY)} bytes"
    yield Row(number="10", what=f"{sample}, in the database", unit="B", measured=trimmed.on_disk)
    note = "in slices of 1 000, as the system counts this process's writes; a checkpoint writes each page again"
    yield Row(number="10", what=f"{sample}, written to the disk", unit="B", measured=trimmed.written, note=note)


async def _commits(opened: store.Store, until: "asyncio.Task[int]") -> list[float]:
    waits: list[float] = []
    while not until.done():
        before = time.perf_counter()
        await opened.commit(samples(len(waits), 1))
        waits.append(1000 * (time.perf_counter() - before))
        await asyncio.sleep(0.002)
    return waits
