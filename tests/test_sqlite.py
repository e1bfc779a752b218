"""The connection to SQLite: many rows in one step, with the same outcome as one after the other."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from oneweb_bridge.store.engine import finish_cancelled_or_not
from oneweb_bridge.store.sqlite import ThreadConnection, WideConnection

UPSERT = "INSERT INTO t (id, a, b) VALUES (?, ?, 'b') ON CONFLICT (id) DO UPDATE SET a = excluded.a"


@contextlib.contextmanager
def opened() -> Iterator[WideConnection]:
    """An empty table in memory."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None, factory=WideConnection)) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT)")
        yield db


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 99, 100, 101, 257])
def test_rows_are_inserted_in_their_order(count: int) -> None:
    """However many there are; of two with one key the later counts, also where they go in one step."""
    rows = [(number % 90, f"a{number}") for number in range(count)]
    with opened() as db:
        db.executemany(UPSERT, rows)
        assert db.execute("SELECT id, a, b FROM t").fetchall() == [(id, a, "b") for id, a in sorted(dict(rows).items())]


def test_many_rows_take_few_steps() -> None:
    """A slice of 200 rows waits for the interpreter twice and not 200 times."""
    steps: list[str] = []
    with opened() as db:
        db.set_trace_callback(steps.append)
        db.executemany(UPSERT, [(number, "a") for number in range(213)])
        assert len(steps) == 2 + 1 + 3
        steps.clear()
        db.executemany("UPDATE t SET a = ? WHERE id = ?", [("c", number) for number in range(20)])
        assert len(steps) == 20


def test_rows_of_many_values_stay_within_the_limit_of_sqlite() -> None:
    """What 100 rows would exceed goes in tens, and what even ten would exceed goes row by row."""
    with opened() as db:
        for width, size in ((20, 10), (150, 1)):
            names = ", ".join(f"c{number}" for number in range(width))
            db.execute(f"CREATE TABLE w{width} ({names})")
            steps: list[str] = []
            db.set_trace_callback(steps.append)
            db.executemany(f"INSERT INTO w{width} VALUES ({', '.join('?' * width)})", [tuple(range(width))] * 200)
            db.set_trace_callback(None)
            assert len(steps) == 200 // size
            assert db.execute(f"SELECT count(*), min(c19), max(c19) FROM w{width}").fetchone() == (200, 19, 19)


def test_closed_connection_has_nothing_to_interrupt() -> None:
    """Who asked for a span may go away in the moment in which its thread has closed the file."""
    db = sqlite3.connect(":memory:", factory=ThreadConnection)
    db.close()
    db.interrupt()


# ── what is finished, whoever is cancelled ─────────────────────────────────────────────────────


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_error_of_work_that_must_be_finished_is_told_once(is_cancelled: bool) -> None:
    """Who waits is told of it; where nobody waits any more, it is no report with a traceback."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    may_fail, has_failed = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await may_fail.wait()
        has_failed.set()
        raise OSError("the disk is full")

    waiting = asyncio.create_task(finish_cancelled_or_not(work()))
    await asyncio.sleep(0)
    if is_cancelled:
        waiting.cancel()
        await asyncio.wait({waiting})
    may_fail.set()
    await has_failed.wait()
    (ended,) = await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(0)

    assert type(ended) is (asyncio.CancelledError if is_cancelled else OSError)
    assert reported == []
