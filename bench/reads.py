"""Row 17, in this process: spans of a report over HTTP while rows are written, and commits while spans are read.

A year of one terminal: the last two days in the journal, the others in chunks.
"""

import asyncio
import contextlib
import itertools
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec

from bench.clock import quantile, ratios
from bench.inside import BODY, watched
from bench.scope import Scope, spelled
from bench.table import Row, of_rounds
from bench.trends import played, write_journal
from oneweb_bridge.cli.signals import tune_interpreter
from oneweb_bridge.clock import SYSTEM, Clock
from oneweb_bridge.commands.decode import time_range
from oneweb_bridge.config.read import parse
from oneweb_bridge.model.records import Batch, Entry
from oneweb_bridge.store import store
from oneweb_bridge.store.query_thread import open_query_thread
from oneweb_bridge.trends.chunks import DAY_MS
from oneweb_bridge.trends.fold import Moment, fold_trends
from oneweb_bridge.trends.task import rules_of
from oneweb_bridge.web import access
from oneweb_bridge.web.console import Console
from oneweb_bridge.web.health import Health
from oneweb_bridge.web.series_routes import SeriesRoutes
from oneweb_bridge.web.server import serve_http
from tests.cancelling import end_tasks

NUMBER = "17"
DAYS = 366
TERMINAL, REPORT = "359235170000000", "signal_quality"
SPANS = (("24h", "of the journal", 50.0, 200), ("30d", "of chunks", 50.0, 200), ("365d", "of chunks", 300.0, 60))
"""Span, where it is read from, its budget in ms, and how often it is asked for at full scale."""
SLICE = 200
"""Rows of a commit."""
PAUSE_S = 0.01
COMMITS = 200
ROUNDS = 5
HOUR_MS = 3_600_000


def prepare(directory: Path) -> None:
    """Writes the year into the journal, and folds all days but the last two."""
    today = int(time.time()) * 1000 // DAY_MS
    samples = played(today - DAYS + 1, DAYS + 1, 1, {"signalQuality": REPORT})
    write_journal(directory / "bridge.db", samples, 1)
    fold_trends(
        directory / "bridge.db",
        directory / "bridge.trends.db",
        rules_of(parse("", {})),
        Moment(api=(today - 1) * DAY_MS + 4 * HOUR_MS, steady=1 << 60),
        is_known=False,
        stop=threading.Event(),
    )


class Served:
    """The routes of series on a real listener, and the store that is written meanwhile."""

    def __init__(self, opened: store.Store, http: aiohttp.ClientSession, port: int) -> None:
        self._store = opened
        self._http = http
        self._url = f"http://127.0.0.1:{port}/api/v1/series"
        self._numbers: Iterator[int] = itertools.count(0, SLICE)

    async def ask(self, span: str) -> float:
        """Milliseconds of one request, to its last byte."""
        query = {"entity": "terminal", "id": TERMINAL, "report": REPORT, "since": span}
        begun = time.perf_counter()
        async with self._http.get(self._url, params=query) as answer:
            body = await answer.read()
        took = 1000 * (time.perf_counter() - begun)
        assert answer.status == 200, body
        return took

    async def points(self, span: str) -> int:
        """How many points a span has."""
        query = {"entity": "terminal", "id": TERMINAL, "report": REPORT, "since": span}
        async with self._http.get(self._url, params=query, headers={"Accept-Encoding": "identity"}) as answer:
            return len(msgspec.json.decode(await answer.read())["t"])

    async def commit(self) -> float:
        """Milliseconds that one commit takes."""
        first, now = next(self._numbers), SYSTEM.now()
        entries = [
            Entry("terminal", f"45{number % 5000:013d}", "metric", REPORT, now + number, BODY)
            for number in range(first, first + SLICE)
        ]
        begun = time.perf_counter()
        await self._store.commit(Batch(entries=entries))
        return 1000 * (time.perf_counter() - begun)

    async def write_loop(self) -> None:
        """Writes as a bridge that polls. Never returns."""
        while True:
            await self.commit()
            await asyncio.sleep(PAUSE_S)

    async def read_loop(self) -> None:
        """Reads one span after the other. Never returns."""
        for span, *_ in itertools.cycle(SPANS):
            await self.ask(span)


@contextlib.asynccontextmanager
async def _served(directory: Path) -> AsyncIterator[Served]:
    path, config = directory / "bridge.db", parse("", {})
    async with store.open_store(path) as opened, open_query_thread(path) as queries:
        sources: Any = SimpleNamespace(
            queries=queries,
            config=lambda: config,
            clock=SYSTEM,
            time_range=time_range,
            place=path,
            trends=directory / "bridge.trends.db",
        )
        # A second for each request: this client asks more often than an address may.
        console = Console(access.rules_of(config), Clock(elapsed=itertools.count().__next__), "1", "main")
        console.add(*SeriesRoutes(sources, console.headers).routes())
        async with (
            serve_http(Health.__new__(Health), ("127.0.0.1", 0), console) as port,
            aiohttp.ClientSession(auto_decompress=False) as http,
        ):
            yield Served(opened, http, port)


@contextlib.asynccontextmanager
async def _meanwhile(work: Any) -> AsyncIterator[None]:
    """Runs some work while the block runs. Raises what ended it."""
    task = asyncio.ensure_future(work)
    try:
        yield
        if task.done():
            task.result()
    finally:
        await end_tasks(task)


async def rows(scope: Scope) -> AsyncIterator[Row]:
    """The rows of reading and of commits."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        async with store.open_store(directory / "bridge.db"):
            pass
        await asyncio.to_thread(prepare, directory)
        tune_interpreter()
        async with _served(directory) as served:
            async with watched() as lags, _meanwhile(served.write_loop()):
                for span, place_words, goal, count in SPANS:
                    yield await _span_row(served, span, place_words, goal, max(20, scope.of(count)))
            what = "event loop's lag while spans are read and rows written, p99"
            note = f"largest {max(lags):.1f} ms of {len(lags)} looks"
            yield Row(number=NUMBER, what=what, unit="ms", goal=50.0, measured=quantile(lags, 0.99), note=note)
            yield await _commit_row(served, min(scope.rounds, ROUNDS), max(20, scope.of(COMMITS)))


async def _span_row(served: Served, span: str, place: str, goal: float, count: int) -> Row:
    took = [await served.ask(span) for _ in range(count)]
    note = f"{spelled(await served.points(span))} points; median {sorted(took)[count // 2]:.1f} ms of {count} requests"
    what = f"{span} of one report, {place}, while rows are written, p99"
    return Row(number=NUMBER, what=what, unit="ms", goal=goal, measured=quantile(took, 0.99), note=note)


async def _commit_row(served: Served, rounds: int, count: int) -> Row:
    """The p99 of commits while spans are read, against those without; each waits a little after the one before."""
    alone, read = [], []
    for _ in range(rounds):
        alone.append(await _commits(served, count))
        async with _meanwhile(served.read_loop()):
            read.append(await _commits(served, count))
    row = Row(
        number=NUMBER,
        what=f"commit of {SLICE} rows while spans are read, p99",
        goal=1.5,
        bridge=f"{read[-1]:.1f} ms",
        floor=f"nobody reads: {alone[-1]:.1f} ms",
        note=f"{count} commits each",
    )
    return of_rounds(row, ratios(read, alone))


async def _commits(served: Served, count: int) -> float:
    waits = []
    for _ in range(count):
        waits.append(await served.commit())
        await asyncio.sleep(PAUSE_S)
    return quantile(waits, 0.99)
