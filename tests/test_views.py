"""The views for people who read with SQL: they say what was published, and docs/sql.md tells of them what is true."""

import contextlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge.cli import history
from oneweb_bridge.config.read import parse
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.model.records import Batch, Entry
from oneweb_bridge.store import database, store
from oneweb_bridge.store.views import VIEWS, view_columns, view_statements
from tests import harness
from tests.campaign import is_at_rest

DOCS = (Path(__file__).parent.parent / "docs" / "sql.md").read_text()
NOON = 1_780_315_200_000
HOUR_MS = 3_600_000


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The database as docs/sql.md says that people open it."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as db:
        db.row_factory = sqlite3.Row
        yield db


def rows_of(db: sqlite3.Connection, sql: str) -> list[dict[str, Any]]:
    """What a query gives, without what is not known."""
    return [{name: row[name] for name in row.keys() if row[name] is not None} for row in db.execute(sql)]  # noqa: SIM118  # a Row is no dict


def with_json(row: dict[str, Any], view: str) -> dict[str, Any]:
    """A row with its JSON and its flags as they are published."""
    types = {column.name: column.type for column in view_columns(CALLS)[view]}
    decoded = {name: json.loads(value) for name, value in row.items() if types[name] == "json"}
    return row | decoded | {name: bool(value) for name, value in row.items() if types[name] == "boolean"}


def retained_of(recorder: harness.Recorder, *ends: str) -> list[Any]:
    """The retained messages whose topic has such a form."""
    return [doc for topic, doc in recorder.retained.items() if any(re.fullmatch(end, topic) for end in ends)]


def sorted_by(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: [str(row.get(name)) for name in names])


def is_published(recorder: harness.Recorder, db: sqlite3.Connection) -> bool:
    """Whether the broker has everything that the journal has."""
    (last,) = db.execute("SELECT max(seq) FROM journal").fetchone()
    return bool(recorder.retained.get("oneweb/bridge/head", {}).get("seq") == last)


async def test_views_say_what_was_published_while_the_bridge_runs(world: harness.World) -> None:
    """Records, usage, samples and events are those of the topics, read while the bridge runs and writes."""
    config = world.config(polling={call: {"interval": "1h"} for call in harness.QUICK})
    async with harness.recording(world.port) as recorder, harness.running(config) as bridge:
        await recorder.until(lambda: is_at_rest(recorder))
        with reading(world.directory / "bridge.db") as db:
            assert rows_of(db, "SELECT count(*) AS n FROM terminals") == [{"n": 8}]
            # What is stored last is published last, but for samples of one topic: each waits for the one before.
            await recorder.until(lambda: is_published(recorder, db))
        assert await bridge.stop() == 0
        await recorder.until(lambda: recorder.retained["oneweb/bridge/status"] == {"state": "offline"})
    with reading(world.directory / "bridge.db") as db:
        for view, key, topic in (
            ("terminals", "imei", "oneweb/terminal/[^/]+/state"),
            ("products", "product_id", "oneweb/product/[^/]+/state"),
            ("usage", "bucket_id", "oneweb/product/[^/]+/usage/[^/]+"),
        ):
            rows = [with_json(row, view) for row in rows_of(db, f"SELECT * FROM {view}")]
            published = [{n: v for n, v in doc.items() if n != "cycle_started"} for doc in retained_of(recorder, topic)]
            assert sorted_by(rows, key) == sorted_by(published, key)
            assert rows
        _compare_samples(db, recorder)
        _compare_events(db, recorder)
        for query in re.findall(r"```sql\n(.*?)```", DOCS, re.DOTALL):
            db.execute(query).fetchall()


def _compare_samples(db: sqlite3.Connection, recorder: harness.Recorder) -> None:
    topic = re.compile(r"oneweb/[^/]+/[^/]+/(metric|history)/(?!presence|usage)[^/]+")
    last: dict[tuple[Any, ...], Any] = {}
    for name, doc, _ in recorder.messages:
        if topic.fullmatch(name) and doc:
            key = (doc.get("imei"), doc.get("product_id"), doc["report"], doc["ts"])
            last[key] = doc | {"corrected": doc.get("corrected", False)}
    rows = [with_json(row, "samples") for row in rows_of(db, "SELECT * FROM samples")]
    assert sorted_by(rows, "imei", "product_id", "report", "ts") == sorted_by(
        list(last.values()), "imei", "product_id", "report", "ts"
    )
    assert len(rows) > 20


def _compare_events(db: sqlite3.Connection, recorder: harness.Recorder) -> None:
    published = {doc["id"]: doc for topic, doc, _ in recorder.messages if "/event/" in topic and "id" in doc}
    rows = [with_json(row, "events") for row in rows_of(db, "SELECT * FROM events ORDER BY seq")]
    assert {row["id"] for row in rows} == published.keys()
    for row in rows:
        event = published[row["id"]]
        assert (row["time"], row["ts"], row["key"]) == (event["time"], event["ts"], event["subject"])
        assert f"net.oneweb.{row['entity']}.{row['verb']}" == event["type"]
        assert {name: row[name] for name in ("changed", "record", "initial") if name in row} == event["data"]


def sample(terminal: str, ts: int, **members: Any) -> Entry:
    """A sample of signal quality."""
    doc = {"imei": terminal, "report": "signal_quality", "time": rfc3339(ts), "ts": ts, **members}
    return Entry("terminal", terminal, "metric", "signal_quality", ts, json.dumps(doc).encode())


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database with samples of two terminals over three hours, one corrected, and a change of components."""
    file = tmp_path / "bridge.db"
    async with store.open_store(file) as opened:
        await opened.make_views(CALLS)
        batch = Batch()
        for number in range(180):
            for terminal in ("a", "b"):
                ts = NOON + number * 60_000 + 7
                batch.entries.append(sample(terminal, ts, sinr_db=float(number % 50), x_new_db=1.5))
        batch.entries.append(sample("a", NOON + 7, sinr_db=99.0, corrected=True))
        change = {"components": {"main/UT": "2"}, "changed": {"components.main/UT": {"from": "1", "to": "2"}}}
        batch.entries.append(
            Entry("terminal", "a", "components", "", NOON + 1, json.dumps(change | {"record": {"imei": "a"}}).encode())
        )
        batch.entries.append(Entry("terminal", "b", "components", "", NOON, b'{"components":{"main/UT":"1"}}'))
        await opened.commit(batch)
    return file


def test_sample_has_its_last_values_and_unknown_indicators_apart(path: Path) -> None:
    """A corrected sample is one row with its last values; what no field knows stands in `other`."""
    with reading(path) as db:
        (first,) = rows_of(db, f"SELECT * FROM samples WHERE imei = 'a' AND ts = {NOON + 7}")
        assert first == {
            "imei": "a",
            "report": "signal_quality",
            "time": rfc3339(NOON + 7),
            "ts": NOON + 7,
            "corrected": 1,
            "sinr_db": 99.0,
        }
        (second,) = rows_of(db, f"SELECT * FROM samples WHERE imei = 'b' AND ts = {NOON + 7}")
        assert (second["corrected"], json.loads(second["other"])) == (0, {"x_new_db": 1.5})
        assert rows_of(db, "SELECT count(*) AS n FROM samples") == [{"n": 360}]


def test_change_of_components_is_an_event_and_the_first_list_is_none(path: Path) -> None:
    """As on the topics: `changed` of the terminal, and nothing for the first list."""
    with reading(path) as db:
        (event,) = rows_of(db, "SELECT * FROM events")
    assert (event["key"], event["verb"], event["time"]) == ("a", "changed", rfc3339(NOON + 1))
    assert json.loads(event["changed"]) == {"components.main/UT": {"from": "1", "to": "2"}}


def test_hours_are_those_of_history(path: Path) -> None:
    """`hourly` has the same hours and figures as `history --every 1h`, corrected values among them."""
    lines: list[str] = []
    query = history.HistoryQuery(imei="a", since=rfc3339(NOON - HOUR_MS), until=rfc3339(NOON + DAY_MS), every="1h")
    history.print_history((path, path.with_name("no-trends.db")), query, "json", lines.append, lambda _: None)
    expected = {}
    for line in map(json.loads, lines):
        for field, figures in line["data"].items():
            expected[line["time"], field] = {name: figures[name] for name in ("min", "mean", "max", "count")}
    with reading(path) as db:
        rows = rows_of(db, "SELECT * FROM hourly WHERE imei = 'a'")
    assert {
        (row["time"], row["field"]): pytest.approx({n: row[n] for n in ("min", "mean", "max", "count")}) for row in rows
    } == expected
    assert len(rows) == 6


DAY_MS = 24 * HOUR_MS


async def test_event_keeps_the_id_that_its_journal_had(tmp_path: Path) -> None:
    """Rows that were written before a backup was restored have the id of the journal of that time."""
    path, copy = tmp_path / "bridge.db", tmp_path / "copy.db"
    async with store.open_store(path) as opened:
        await opened.make_views(CALLS)
        await opened.commit(Batch(entries=[Entry("site", "s", "added", "", NOON, b'{"record":{},"initial":true}')]))
        before = opened.journal_id
    shutil.copy(path, copy)
    with contextlib.closing(sqlite3.connect(copy)) as db:
        db.execute(database.COPIED)
        db.commit()
    async with store.open_store(copy) as opened:
        await opened.commit(Batch(entries=[Entry("site", "s", "removed", "", NOON, b'{"record":{}}')]))
        after = opened.journal_id
    with reading(copy) as db:
        assert [row["id"] for row in rows_of(db, "SELECT id FROM events ORDER BY seq")] == [f"{before}:1", f"{after}:2"]


async def test_views_are_made_anew_only_when_fields_change(tmp_path: Path) -> None:
    """A start with the same fields writes no schema; a field that is mapped is a column after the next one."""
    path = tmp_path / "bridge.db"
    versions, more = [], parse("polling: {user_terminals: {map: {mast: {path: mast}}}}", {}).polling
    for calls in (CALLS, CALLS, more):
        async with store.open_store(path) as opened:
            await opened.make_views(calls)
        with reading(path) as db:
            versions.append(db.execute("PRAGMA schema_version").fetchone()[0])
    assert versions[0] == versions[1] < versions[2]
    with reading(path) as db:
        assert "mast" in [row[1] for row in db.execute("PRAGMA table_info(terminals)")]


async def test_table_of_somebody_else_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A table that has the name of a view stays, with a line in the log; the other views are made."""
    path = tmp_path / "bridge.db"
    async with store.open_store(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE events (mine)")
        db.execute("INSERT INTO events VALUES (1)")
        db.commit()
    async with store.open_store(path) as opened:
        await opened.make_views(CALLS)
    with reading(path) as db:
        assert rows_of(db, "SELECT * FROM events") == [{"mine": 1}]
        assert rows_of(db, "SELECT count(*) AS n FROM terminals") == [{"n": 0}]
    assert "the view events is not made" in caplog.text


def test_one_terminal_is_found_by_an_index(path: Path) -> None:
    """With an id, samples and hours are searched and not scanned; the newest events come from their index."""
    with reading(path) as db:
        for query in (
            "SELECT * FROM samples WHERE imei = 'a' AND ts > 5 ORDER BY ts",
            "SELECT * FROM hourly WHERE imei = 'a'",
        ):
            plan = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {query}")]
            assert any(re.match(r"SEARCH sample USING INDEX journal_history \(id=\?", step) for step in plan), plan
        plan = [
            row["detail"] for row in db.execute("EXPLAIN QUERY PLAN SELECT * FROM events ORDER BY seq DESC LIMIT 9")
        ]
        assert "SCAN journal USING INDEX journal_events" in plan


@pytest.mark.parametrize("view", VIEWS)
def test_docs_name_each_column_with_its_unit(view: str) -> None:
    """The table of each view in docs/sql.md has its columns in their order, with type and unit."""
    section = DOCS.split(f"\n## {view}\n")[1].split("\n## ")[0]
    rows = [
        tuple(cell.strip() for cell in row)
        for row in re.findall(r"^\| `(.+?)` \|(.*?)\|(.*?)\|$", section, re.MULTILINE)
    ]
    assert rows == [(column.name, column.type, column.unit) for column in view_columns(CALLS)[view]]


def test_statements_fit_small_builds_of_sqlite() -> None:
    """No function is called with more than 100 arguments, which SQLite may be compiled for."""
    names = [f"field_{number}" for number in range(150)]
    fields = ", ".join(f"{name}: {{path: {name}}}" for name in names)
    calls = parse(f"polling: {{ut_traffic: {{map: {{{fields}}}}}}}", {}).polling
    statement = view_statements(calls)["samples"]
    assert max(call.count("'$.") for call in re.findall(r"json_remove\([^()]*(?:\([^()]*\))?[^()]*\)", statement)) < 100
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE journal (seq, at, entity, id, what, name, ts, body)")
        db.execute(statement)
        assert db.execute("SELECT count(*) FROM samples").fetchone() == (0,)
