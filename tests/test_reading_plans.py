"""What the console reads, and the trends: every statement finds its rows by an index, or says why it reads a table."""

import inspect
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge.store import store
from oneweb_bridge.store.fleet_reading import FleetReader
from oneweb_bridge.store.reading import Queries, open_queries
from oneweb_bridge.store.sqlite import ThreadConnection
from oneweb_bridge.trends.chunks import USAGE, StreamKey
from oneweb_bridge.trends.file import TrendsFile, open_trends
from oneweb_bridge.trends.pending import Chunk, PendingDays, Scan
from tests.test_query_plans import _batch, _reads_everything, _use_queries

WHOLE_TABLES = {
    "SELECT id, report, ts, doc FROM newest WHERE entity = ": "every newest sample is wanted, by id",
    "SELECT call, name, source FROM setting": "the table has a few rows, and all are wanted",
    "SELECT seq, at, entity, id, what, name, ts, body FROM journal INDEXED BY journal_events": (
        "the index has the events alone, and is read from its end until the page is full"
    ),
    "SELECT min(day), max(day) FROM (": "what is read whole are the days of one stream",
    "SELECT entity, id, report FROM stream": "the worker of the trends moves or counts all streams",
}
"""The beginning of a statement that reads a whole table -> why that is meant."""
NO_STATEMENT = {"Queries.interrupt", "TrendsFile.interrupt"}
Statements = set[str]


@pytest.fixture(name="called")
def _called(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the methods that were called."""
    called: set[str] = set()
    for owner in (Queries, FleetReader, TrendsFile, PendingDays):
        for name, method in _public(owner):
            monkeypatch.setattr(owner, name, _counting(method, f"{owner.__name__}.{name}", called))
    return called


def _public(owner: type) -> list[tuple[str, Callable[..., Any]]]:
    return [(n, m) for n, m in vars(owner).items() if not n.startswith("_") and inspect.isfunction(m)]


def _counting(method: Callable[..., Any], name: str, called: set[str]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        called.add(name)
        return method(*arguments, **named)

    return call


def uncalled(called: set[str], *owners: type) -> set[str]:
    """The methods of these classes that nobody called."""
    return {f"{owner.__name__}.{name}" for owner in owners for name, _ in _public(owner)} - called - NO_STATEMENT


def scans(db: sqlite3.Connection, statements: Statements) -> Iterator[tuple[str, str]]:
    """Each statement that reads a table or an index from end to end, and the step of its plan."""
    for sql in statements:
        if sql.upper().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
            for *_, step in db.execute(f"EXPLAIN QUERY PLAN {sql}"):
                if _reads_everything(step):
                    yield " ".join(sql.split()), step


def unexplained(plans: Sequence[tuple[str, str]]) -> list[str]:
    """Those of which nobody says why."""
    return [f"{step}: {sql}" for sql, step in plans if not any(sql.startswith(known) for known in WHOLE_TABLES)]


async def scans_of_console(path: Path) -> list[tuple[str, str]]:
    """The scans of what the console reads."""
    async with store.open_store(path) as db:
        await db.commit(_batch())
        with open_queries(path) as queries:
            return scans_while(queries._connection, lambda: _use_queries(queries))


def scans_of_trends(path: Path) -> list[tuple[str, str]]:
    """The scans of what the trends run, with rows enough that a plan without an index would be no better."""
    with open_trends(path) as file:
        return scans_while(file._db, lambda: use_trends(file))


def scans_while(connection: object, use: Callable[[], None]) -> list[tuple[str, str]]:
    """The scans of all statements that a connection is given while it is used."""
    assert isinstance(connection, ThreadConnection)
    statements: Statements = set()
    connection.set_trace_callback(statements.add)
    use()
    connection.set_trace_callback(None)
    return list(scans(connection, statements))


def use_trends(file: TrendsFile) -> None:
    """Calls every method."""
    stream, bucket = StreamKey("terminal", "T", "traffic"), StreamKey(USAGE, "B", USAGE)
    pending = file.pending
    pending.note([(1, "T", 5), (1, "B", 6)], Scan("journal", 9))
    assert pending.next_day(2, 9, 10) == (1, {"B": 6, "T": 5})
    assert pending.days_of("T") == [(1, 5)]
    pending.write_day(1, ["T", "B"], [Chunk(stream, b"x"), Chunk(bucket, b"y", ("P",))])
    assert pending.folded_through() == 9
    assert not file.is_empty()
    number = file.find_stream(stream)
    assert number is not None
    assert file.streams_of("product", "P") == [bucket]
    assert len(file.all_streams()) == 2
    assert file.fine_span() == (1, 1)
    assert file.products_of_bucket("B") == ["P"]
    assert list(file.fine(number, 0, 9)) == [(1, b"x")]
    assert file.last_fine_days(number, 9) == [1]
    assert file.fine_of_day(1, [stream]) == {stream: b"x"}
    assert file.span_of(number) == (1, 1)
    assert file.used_bytes()
    assert len(file.oldest_fine(9)) == 2
    file.replace_fine([(number, 1, None)])
    assert list(file.kept_days(number, 0, 9)) == []
    assert file.delete_days(9) == 0


async def test_every_query_of_the_console_finds_its_rows_by_an_index(tmp_path: Path, called: set[str]) -> None:
    """No page costs more because of what it does not show."""
    plans = await scans_of_console(tmp_path / "bridge.db")
    assert uncalled(called, Queries, FleetReader) == set(), "call it in _use_queries"
    assert not unexplained(plans), "\n".join(unexplained(plans))


def test_every_statement_of_the_trends_finds_its_rows_by_an_index(tmp_path: Path, called: set[str]) -> None:
    """Folding a day and reading a stream cost the same whatever else is kept."""
    plans = scans_of_trends(tmp_path / "trends.db")
    assert uncalled(called, TrendsFile, PendingDays) == set(), "call it in use_trends"
    assert not unexplained(plans), "\n".join(unexplained(plans))


def test_trends_of_an_earlier_release_get_the_index(tmp_path: Path) -> None:
    """A file that was made without it has it when it is opened to be written, and is read without it."""
    path = tmp_path / "trends.db"
    with open_trends(path) as file:
        file._db.execute("DROP INDEX bucket_product_stream")
    with open_trends(path, read_only=True) as file:
        assert file.products_of_bucket("B") == []
    assert not [sql for sql, _ in scans_of_trends(path) if "bucket_product" in sql]


async def test_no_reason_is_given_for_nothing(tmp_path: Path) -> None:
    """Each statement that may read a whole table does."""
    plans = [*await scans_of_console(tmp_path / "bridge.db"), *scans_of_trends(tmp_path / "trends.db")]
    assert [known for known in WHOLE_TABLES if not any(sql.startswith(known) for sql, _ in plans)] == []
