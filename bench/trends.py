"""The trends (row 13): folding a day of the fleet, the loop's lag meanwhile, bytes a sample, and reading 30 days.

The floor of both is sqlite3 alone, which reads the same rows and the same chunks and does nothing with them.
"""

import asyncio
import contextlib
import itertools
import sqlite3
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.clock import Clock, quantile, ratios, spent
from bench.inside import watched
from bench.scope import Scope, spelled
from bench.table import Row, of_rounds
from oneweb_bridge.config.read import parse
from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.simulator import Options, Simulator
from oneweb_bridge.simulator.reports import TERMINAL_REPORTS
from oneweb_bridge.store import store
from oneweb_bridge.trends.chunks import DAY_MS, StreamKey
from oneweb_bridge.trends.fold import Moment, Outcome, fold_trends
from oneweb_bridge.trends.reading import open_history
from oneweb_bridge.trends.series import Span
from oneweb_bridge.trends.task import rules_of

NUMBER = "13"
PLAYED = 50
"""Terminals that the simulator plays; the others have their values under other ids."""
DAY = 20_000
REPORTS = {
    "linkAvailability": "link_availability",
    "signalQuality": "signal_quality",
    "resourceState": "resource_state",
    "traffic": "traffic",
}
READ_DAYS = 30
FOLDED_S, READ_MS, LAG_MS, BYTES = 60.0, 5.0, 50.0, 12.0
Sample = tuple[int, str, int, dict[str, Any]]
"""Time, report, number of the terminal, values."""


def played(first_day: int, days: int, terminals: int, reports: Mapping[str, str] = REPORTS) -> Iterator[Sample]:
    """What the simulator's terminals measure in some days, by time; `reports` are the API's names and ours."""
    world = Simulator(
        Options(terminals=terminals, seed=2, start=rfc3339((first_day + days + 2) * DAY_MS), keep=1e9)
    ).world
    window = (first_day * DAY_MS / 1000, (first_day + days) * DAY_MS / 1000)
    samples: list[Sample] = []
    for index, (api_name, report) in itertools.product(range(terminals), reports.items()):
        shown = world.reports.terminal_report(TERMINAL_REPORTS[api_name], index, window, window[1] + 86_400)
        for measured in shown["measurement"]:
            ts = round(datetime.fromisoformat(measured["timestamp"]).timestamp() * 1000)
            samples.append((ts, report, index, dict(map(_value, measured["performanceIndicator"]))))
    return iter(sorted(samples, key=lambda sample: sample[:3]))


def _value(indicator: dict[str, Any]) -> tuple[str, Any]:
    name, value = indicator["name"], indicator["value"]
    if name == "resourceState":
        return "resource_state", value
    return (f"{name}_bytes", int(value)) if name.endswith(("Tx", "Rx")) else (name, float(value))


def write_journal(path: Path, samples: Iterator[Sample], copies: int) -> int:
    """Appends samples of all terminals, a poll after the other. Returns how many rows."""
    written = 0
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        for _, poll in itertools.groupby(samples, lambda sample: (sample[0] // 600_000, sample[1])):
            rows = [row for sample in poll for row in _rows(sample, copies)]
            db.execute("BEGIN")
            db.executemany(
                """INSERT INTO journal (at, entity, id, what, name, ts, body)
                   VALUES (0, 'terminal', ?, 'metric', ?, ?, ?)""",
                rows,
            )
            db.execute("COMMIT")
            written += len(rows)
    return written


def _rows(sample: Sample, copies: int) -> Iterator[tuple[str, str, int, bytes]]:
    ts, report, index, values = sample
    for copy in range(copies):
        imei = f"35923517{index * copies + copy:07d}"
        yield imei, report, ts, encode({"imei": imei, "report": report, "time": rfc3339(ts), "ts": ts, **values})


def fold(directory: Path, days: int, clock: Clock | None = None) -> Outcome:
    """Folds the whole journal."""
    moment = Moment(api=(DAY + days) * DAY_MS + DAY_MS, steady=1 << 60)
    rules = rules_of(parse("", {}))
    trends = directory / "bench.trends.db"
    if clock is not None:
        clock.start()
    outcome = fold_trends(directory / "bench.db", trends, rules, moment, is_known=False, stop=threading.Event())
    if clock is not None:
        clock.stop()
    return outcome


def read_rows_alone(path: Path, clock: Clock) -> None:
    """The floor of folding: every row of the day by the same index, id after id."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        clock.start()
        ids = [row[0] for row in db.execute("SELECT DISTINCT id FROM journal")]
        for id in ids:
            db.execute("SELECT id, name, ts, body FROM journal WHERE id = ? ORDER BY ts", (id,)).fetchall()
        clock.stop()


async def rows(scope: Scope) -> AsyncIterator[Row]:
    """Row 13."""
    copies = max(1, scope.of(10_000) // PLAYED)
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        async with store.open_store(directory / "bench.db"):
            pass
        count = await asyncio.to_thread(write_journal, directory / "bench.db", played(DAY, 1, PLAYED), copies)
        async for row in _folding_rows(directory, count, copies * PLAYED):
            yield row
    with tempfile.TemporaryDirectory() as place:
        async for row in _reading_rows(Path(place), scope.rounds):
            yield row


async def _folding_rows(directory: Path, count: int, terminals: int) -> AsyncIterator[Row]:
    floor, clock = Clock(), Clock()
    await asyncio.to_thread(read_rows_alone, directory / "bench.db", floor)
    async with watched() as lags:
        await asyncio.to_thread(fold, directory, 1, clock)
    what, goal = (
        f"a day of {spelled(terminals)} terminals folded, {spelled(count)} samples",
        FOLDED_S * terminals / 10_000,
    )
    yield Row(number=NUMBER, what=f"{what}, CPU", unit="s", goal=goal, measured=clock.cpu, bridge=spent([clock]))
    ratio = clock.cpu / floor.cpu
    yield Row(
        number=NUMBER,
        what="the same, against sqlite3 reading these rows",
        measured=ratio,
        bridge=spent([clock]),
        floor=spent([floor]),
    )
    yield Row(
        number=NUMBER,
        what="event loop's lag meanwhile, p99",
        unit="ms",
        goal=LAG_MS,
        measured=quantile(lags, 0.99),
        note=f"largest {max(lags):.1f} ms of {len(lags)} looks",
    )
    size = (directory / "bench.trends.db").stat().st_size / count
    yield Row(number=NUMBER, what="a sample in the trends, the whole file", unit="B", goal=BYTES, measured=size)


async def _reading_rows(directory: Path, rounds: int) -> AsyncIterator[Row]:
    async with store.open_store(directory / "bench.db"):
        pass
    write_journal(directory / "bench.db", played(DAY, READ_DAYS, 4), 1)
    fold(directory, READ_DAYS)
    stream = StreamKey("terminal", "359235170000001", "signal_quality")
    read, floor = [], []
    for _ in range(rounds + 1):
        read.append(_read_ms(directory, stream))
        floor.append(_floor_ms(directory, stream))
    # The first round warms what there is to warm.
    row = Row(number=NUMBER, what=f"{READ_DAYS} days of one indicator of one terminal, warm", unit="ms", goal=READ_MS)
    yield of_rounds(row, read[1:])
    row = Row(
        number=NUMBER,
        what="the same, against sqlite3 reading these chunks",
        bridge=f"{read[-1]:.2f} ms",
        floor=f"{floor[-1]:.3f} ms",
    )
    yield of_rounds(row, ratios(read[1:], floor[1:]))


def _read_ms(directory: Path, stream: StreamKey) -> float:
    with open_history(directory / "bench.db", directory / "bench.trends.db") as history:
        begun = time.perf_counter()
        samples = history.read_samples(stream, Span(DAY * DAY_MS, (DAY + READ_DAYS) * DAY_MS), ["sinr"])
        took = 1000 * (time.perf_counter() - begun)
    assert len(samples.ts) > 24 * READ_DAYS
    return took


def _floor_ms(directory: Path, stream: StreamKey) -> float:
    with contextlib.closing(sqlite3.connect(directory / "bench.trends.db")) as db:
        begun = time.perf_counter()
        db.execute(
            """SELECT day, body FROM fine WHERE day >= ? AND stream =
               (SELECT stream FROM stream WHERE entity = ? AND id = ? AND report = ?)""",
            (DAY, stream.entity, stream.id, stream.report),
        ).fetchall()
        return 1000 * (time.perf_counter() - begun)
