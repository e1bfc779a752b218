"""Row 10: a start of the real command with a large fleet and a journal at its size cap, to the first poll.

The database is made by the bridge itself, but for the rows of the journal, which are samples that were published. The
broker has kept what was retained, as one that is not restarted with the bridge.
"""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from bench import polls
from bench.answers import Api, api
from bench.fleet import CALM, Run, connected
from bench.inside import BODY
from bench.progress import say
from bench.scope import Scope, spelled
from bench.table import Row, of_rounds
from oneweb_bridge.demo import mosquitto
from tests import harness

CAP = 4_000_000_000
"""The default of state.history.max_size."""
OVER = 1.03
"""How much more than its cap the journal has, so that it is being trimmed while the first poll runs."""
WITHOUT_INDEX = 0.75
"""The share of the cap that rows take whose index is still to be made, which takes most of the rest."""
STEP = 250_000
MOST = 3
"""Starts that are measured."""
PATIENCE = 120.0

_ROWS = f"""
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {STEP})
INSERT INTO journal (at, entity, id, what, name, ts, body)
SELECT :now, 'terminal', '35923517' || printf('%07d', i % 100000), 'metric', 'signal_quality', :now + i, :body FROM n
"""


class Start(msgspec.Struct, frozen=True):
    """One start: seconds to the first request of a poll and to its end; MiB at the most, and rows trimmed meanwhile."""

    first_request: float
    polled: float
    peak: float
    trimmed: int


# ── a database at its cap ──────────────────────────────────────────────────────────────────────


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _used(db: sqlite3.Connection) -> int:
    """Bytes in use, as the bridge counts them against the cap."""
    return (_pragma(db, "page_count") - _pragma(db, "freelist_count")) * _pragma(db, "page_size")


def fill(path: Path, cap: int) -> int:
    """Fills the journal of a bridge that does not run a little beyond its cap. Returns its last row, all published.

    The fleet's discovery is taken as done, and the last poll as long ago.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000")
        index = db.execute("SELECT sql FROM sqlite_master WHERE name = 'journal_history'").fetchone()[0]
        # Sorting millions of ids once is several times quicker than finding the place of each.
        db.execute("DROP INDEX journal_history")
        _grow(db, WITHOUT_INDEX * OVER * cap)
        db.execute(index)
        _grow(db, OVER * cap)
        db.execute("UPDATE cursor SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 'journal')")
        db.execute("UPDATE discovery SET done = mark")
        _forget_poll(db)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        last = int(db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'journal'").fetchone()[0])
    _sync(path)
    return last


def _sync(path: Path) -> None:
    """Waits until the disk has it all, so that what was filled in is not written while the bridge starts."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _grow(db: sqlite3.Connection, size: float) -> None:
    values = {"now": round(time.time() * 1000), "body": BODY}
    while _used(db) < size:
        db.execute(_ROWS, values)


def _forget_poll(db: sqlite3.Connection) -> None:
    """Makes the call due at the next start."""
    db.execute("UPDATE call SET last_poll = 1, polled = 0")


async def _know(port: int, path: Path, seq: int) -> None:
    """Makes the broker know that everything is published, as it does when the bridge published it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        name = db.execute("SELECT value FROM meta WHERE name = 'journal'").fetchone()[0]
    head = msgspec.json.encode({"journal": name, "instance": "main", "seq": seq})
    await harness.publish(port, "oneweb/bridge/head", head, retain=True)


def _rows(path: Path) -> int:
    """How many rows the journal has, by its ends: counting millions takes seconds."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as db:
        low, high = db.execute("SELECT (SELECT min(seq) FROM journal), (SELECT max(seq) FROM journal)").fetchone()
    return int(high - low + 1)


def room(wanted: int, place: str) -> int:
    """A cap that leaves two thirds of the free disk alone."""
    return min(wanted, shutil.disk_usage(place).free // 3)


# ── the starts ─────────────────────────────────────────────────────────────────────────────────


async def _until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not in {PATIENCE:.0f} s")
        await asyncio.sleep(0.005)


def _has_asked(seen: Api, process: harness.Process) -> bool:
    if process.returncode is not None:
        raise AssertionError(f"the bridge ended: {process.text()[-1000:]}")
    return seen.asked_at > 0


def _has_polled(db: sqlite3.Connection) -> bool:
    """Whether a poll has succeeded since the last one was forgotten."""
    sql = "SELECT last_poll > 1 AND last_success >= last_poll FROM call WHERE id = 'user_terminals'"
    row = db.execute(sql).fetchone()
    return bool(row and row[0])


async def _start(config: Path, path: Path, seen: Api) -> Start:
    rows = _rows(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        _forget_poll(db)
        seen.asked_at, begun = 0.0, time.perf_counter()
        async with harness.running(config) as process:
            await _until(lambda: _has_asked(seen, process), "the first request of a poll")
            await _until(lambda: _has_polled(db), "the end of the first poll")
            polled = time.perf_counter() - begun
            start = Start(seen.asked_at - begun, polled, process.peak_mib(), rows - _rows(path))
            await process.stop()
    return start


async def _answers(run: Run, other: Run) -> list[float]:
    """How many ms commands take to be answered while the whole fleet is compared."""
    poll = asyncio.create_task(run.tell("user_terminals", "poll"), name="poll")
    waits = []
    while not poll.done():
        begun = time.perf_counter()
        await other.tell("sites", "set", interval="6h")
        waits.append(1e3 * (time.perf_counter() - begun))
    await poll
    return waits


def _answer_row(waits: list[float], records: int) -> Row:
    note = f"median {statistics.median(waits):.0f} ms of {len(waits)} commands, one after the other, during one poll"
    what = f"command answered while {spelled(records)} are compared, longest"
    return Row(number="lag", what=what, goal=200.0, unit="ms", measured=max(waits), note=note)


# ── the rows ───────────────────────────────────────────────────────────────────────────────────


async def rows(scope: Scope) -> AsyncIterator[Row]:
    """Row 10, and how soon commands are answered."""
    pages = polls.pages(scope.of(100_000))
    records = sum(len(msgspec.json.decode(page, type=list[msgspec.Raw])) for page in pages)
    polling = {**CALM, "user_terminals": {**CALM["user_terminals"], "enabled": True}}
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        seen, port = await stack.enter_async_context(api()), mosquitto.free_port()
        await stack.enter_async_context(mosquitto.run_mosquitto(port))
        cap = room(scope.of(CAP), str(directory))
        config = harness.bridge_yaml(directory, seen.url, port, polling=polling, state={"history": {"max_size": cap}})
        path = directory / "bridge.db"
        seen.show(pages, records, polls.PAGE)
        waits = await _first(config, path, port, lambda: seen.show(polls.later(pages, 1), records, polls.PAGE))
        yield _answer_row(waits, records)
        say(f"start: filling the journal to {cap / 1e6:.0f} MB")
        await _know(port, path, fill(path, cap))
        rows_before = _rows(path)
        starts = []
        for number in range(max(1, min(MOST, scope.rounds))):
            seen.show(polls.later(pages, number + 2), records, polls.PAGE)
            starts.append(await _start(config, path, seen))
    for row in _start_rows(starts, records, rows_before, cap):
        yield row


async def _first(config: Path, path: Path, port: int, move: Callable[[], None]) -> list[float]:
    """The first run, which takes the fleet in; then it is compared while commands come."""
    async with harness.running(config) as process, connected(process, path, port) as run:
        with contextlib.closing(sqlite3.connect(path)) as db:
            await _until(lambda: _has_polled(db), "the first snapshot")
        await run.wait_until_at_rest()
        move()
        async with connected(process, path, port) as other:
            waits = await _answers(run, other)
        await run.wait_until_at_rest()
        await process.stop()
    return waits


def _start_rows(starts: list[Start], records: int, rows: int, cap: int) -> list[Row]:
    median = statistics.median
    what = f"start with {spelled(records)} records and {spelled(rows)} rows ({cap / 1e9:.2g} GB)"
    note = (
        f"the first poll, whose volatile fields have moved, ends {median(s.polled for s in starts):.1f} s after the "
        f"start; {median(s.trimmed for s in starts):.0f} rows were trimmed meanwhile"
    )
    begun = Row(number="10", what=f"{what}, to the first poll", goal=2.0, unit="s", note=note)
    peak = Row(number="10", what=f"peak RSS of that start, {spelled(records)} terminals", goal=160.0, unit="MiB")
    return [of_rounds(begun, [s.first_request for s in starts]), of_rounds(peak, [s.peak for s in starts])]
