"""Every statement of the store's modules finds its rows by an index: none reads a table from end to end, or says why.

The statements are collected from a run in which each public method of the store is called.
"""

import contextlib
import inspect
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from oneweb_bridge.config.read import parse
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.heads import Place
from oneweb_bridge.model.records import (
    Alert,
    Batch,
    Debt,
    Entry,
    NewestSampleWrite,
    Positions,
    RecordWrite,
    SeenSample,
    UsageDaysWrite,
    Waiting,
)
from oneweb_bridge.store import announcements, database, housekeeping, journal, places, staging, store
from oneweb_bridge.store.call_progress import CallProgress, ProgressTable
from oneweb_bridge.store.commands import CommandTables, Setting
from oneweb_bridge.store.edge_tables import EdgeTables, open_edge_tables
from oneweb_bridge.store.engine import Connection
from oneweb_bridge.store.journal_identity import JournalIdentity
from oneweb_bridge.store.owed_topics import OwedTopics
from oneweb_bridge.store.places import Place as StatePlace
from oneweb_bridge.store.reading import EventFilter, Queries, open_queries
from oneweb_bridge.store.records import Records, Relations
from oneweb_bridge.store.retained_content import RetainedContent
from oneweb_bridge.store.samples import Samples
from oneweb_bridge.store.shapes import AnswerShapes
from oneweb_bridge.store.unmatched import UnmatchedTable
from oneweb_bridge.store.usage_days import UsageDaysTable
from oneweb_bridge.trends.reading import open_history
from oneweb_bridge.trends.series import Span
from tests.places import open_place
from tests.postgres import Cluster

WHOLE_TABLES = {
    "SELECT imei FROM stale LIMIT ?": "the table is the work that is left, and a slice of it is taken",
    "SELECT 1 FROM removed LIMIT 1": "the first row answers",
    "SELECT call, name, value, source FROM setting": "the table has a few rows, and all are wanted",
    "SELECT CASE WHEN j.path = '$' THEN j.key": "a finding names the field that has its ids, once",
    "SELECT DISTINCT call FROM unmatched": "read once, at the first poll",
    "SELECT j.atom, r.id FROM record r, json_tree(r.doc) j": "only a call with `match` needs the field of all records",
    "SELECT number FROM edge_node": "the table has a row for each connection, and all are wanted",
    "SELECT device, number FROM edge_device": "all Devices are read at a start",
    "SELECT number, topic, call, remembered, sender FROM poll_request": "all polls that wait are read, at a start",
    "UPDATE discovery SET marked_at = CASE WHEN mark = done THEN ? ELSE marked_at END, mark = mark + 1": (
        "all devices are marked when the settings that they are made of change, or when a broker lost its state"
    ),
}
"""The beginning of a statement that reads a whole table -> why that is meant."""

OWNERS = (
    store.Store,
    Records,
    Relations,
    Samples,
    ProgressTable,
    AnswerShapes,
    UnmatchedTable,
    CommandTables,
    UsageDaysTable,
    journal.Journal,
    JournalIdentity,
    OwedTopics,
    RetainedContent,
    announcements.Devices,
    staging.Staging,
    EdgeTables,
)


@contextlib.asynccontextmanager
async def watched(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, set[str]]]:
    """The distinct statements of each kind of connection, and the names of the methods that were called."""
    seen: dict[str, set[str]] = {"statements": set(), "temporary": set(), "methods": set()}
    for name in ("execute", "executemany", "execute_fetchall"):
        monkeypatch.setattr(aiosqlite.Connection, name, _noting(getattr(aiosqlite.Connection, name), seen))
    for owner in OWNERS:
        for name, method in _public(owner):
            monkeypatch.setattr(owner, name, _counting(method, f"{owner.__name__}.{name}", seen["methods"]))
    yield seen


def _noting(real: Callable[..., Any], seen: dict[str, set[str]]) -> Callable[..., Any]:
    def note(self: aiosqlite.Connection, sql: str, *arguments: Any, **named: Any) -> Any:
        kind = "temporary" if "staged" in sql else "statements"
        seen[kind].add(" ".join(sql.split()))
        return real(self, sql, *arguments, **named)

    return note


def _counting(method: Callable[..., Any], name: str, called: set[str]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        called.add(name)
        return method(*arguments, **named)

    return call


def _public(owner: type) -> list[tuple[str, Callable[..., Any]]]:
    """The methods that may speak to the database."""
    return [
        (name, method)
        for name, method in vars(owner).items()
        if not name.startswith("_") and (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method))
    ]


async def test_every_statement_finds_its_rows_by_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement that a poll, the publisher or the announcer runs costs more because other records are stored."""
    path = tmp_path / "bridge.db"
    methods = {f"{owner.__name__}.{name}" for owner in OWNERS for name, _ in _public(owner)}
    async with watched(monkeypatch) as seen:
        await _use_everything(path, seen)
        statements, temporary = set(seen["statements"]), set(seen["temporary"])
    assert methods - seen["methods"] == set(), "call it in _use_everything"
    async with database.open_connection(path) as db, staging.open_staging() as staged:
        scans = [scan for sql in statements for scan in await _scans(db, sql)]
        scans += [scan for sql in temporary for scan in await _scans(staged._db, sql)]
    unknown = [f"{step}: {sql}" for sql, step in scans if not any(sql.startswith(known) for known in WHOLE_TABLES)]
    assert not unknown, "\n".join(unknown)
    needless = [known for known in WHOLE_TABLES if not any(sql.startswith(known) for sql, _ in scans)]
    assert needless == []


@pytest.mark.postgres
async def test_every_statement_is_one_of_both_engines(cluster: Cluster, tmp_path: Path) -> None:
    """PostgreSQL takes every statement of the store, with the values that it is given."""
    async with open_place("postgres", tmp_path, cluster) as place:
        await _use_everything(place, {"statements": set()})
        async with store.open_store(place) as db:
            # The journal is empty now.
            await db.commit(_batch())
        with open_queries(place) as queries, open_history(place, place) as history:
            _use_queries(queries)
            assert list(history.all_events(Span(0, 1 << 60)))
            streams = history.all_streams()
            assert [history.read_samples(stream, Span(0, 1 << 60)).ts for stream in streams]


def _use_queries(queries: Queries) -> None:
    assert queries.journal_ids()[0]
    assert queries.has_row(queries.head())
    assert queries.oldest()
    for wanted in (EventFilter(), EventFilter(before=9, entity="terminal", id="T", kind="added")):
        queries.events(wanted)
    queries.alerts(None, None, 1)
    queries.alerts(9, "kind", 1)
    queries.alerts_since(0)
    assert queries.rows_after(0, 9)
    list(queries.all_records("terminal"))
    queries.records("terminal", ["T", "U"])
    queries.record("terminal", "T")
    queries.buckets_of(["P"])
    queries.newest_of("terminal", "T")
    list(queries.all_newest("terminal"))
    list(queries.fleet.terminals())
    list(queries.fleet.terminals(["T", "U"]))
    list(queries.fleet.newest_samples(("traffic", "presence")))
    list(queries.fleet.newest_samples(("traffic", "presence"), 1, ["T", "U"]))
    queries.fleet.changed_records(0)
    queries.fleet.ids("terminal")
    queries.fleet.ids_without_sample("terminal")
    queries.fleet.count("terminal")
    queries.terminals_of_product("P")
    queries.products_of_terminal("T")
    queries.records_by_member("terminal", "name", "x")
    queries.settings()
    queries.held_records("terminal")


async def _scans(db: Connection, sql: str) -> list[tuple[str, str]]:
    """The steps of a statement's plan that read a whole table or index."""
    if not sql.upper().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
        return []
    steps = [row[3] for row in await db.fetch_all(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))]
    # `coalesce(min(seq), 0)` and its like end at the first entry, and a constant row is no table.
    ends_at_once = re.match(r"SELECT coalesce\((min|max)\(seq\), 0\) FROM journal$", sql)
    return [(sql, step) for step in steps if _reads_everything(step) and not ends_at_once]


def _reads_everything(step: str) -> bool:
    # That index has nothing but the rows that are wanted, json_each() what the caller gave, a subquery what it found.
    wanted = ("CONSTANT ROW", "INDEX discovery_unsent", "json_each VIRTUAL TABLE", "(subquery", "SUBQUERY")
    return step.startswith("SCAN") and not any(name in step for name in wanted)


async def _use_everything(place: StatePlace, seen: dict[str, set[str]]) -> None:
    async with (
        store.open_store(place) as db,
        journal.open_journal(place, "mqtt") as rows,
        announcements.open_devices(place, db.steady.now) as known,
        open_edge_tables(place) as edge,
        places.open_connection(place) as raw,
    ):
        await db.make_views(CALLS)
        # What opening a database does, and a migration, is done once for all of it.
        seen["statements"].clear()
        await _use_store(db)
        await _use_staging(db)
        await _use_journal(rows)
        await _use_devices(known)
        await _use_edge_tables(edge)
        await _use_housekeeping(raw)
        await db.commit(Batch(removed=[("terminal", "T"), ("product", "P")]))


async def _use_store(db: store.Store) -> None:
    await db.commit(_batch(), CallProgress(id="user_terminals"))
    await db.commit(Batch(removed=[("site", "S")]))
    await db.commit(Batch(writes=[RecordWrite("site", "S", b"{}", b"h")]))
    await db.commit(
        Batch(unchanged=[(b"h", "terminal", "T")], presence=[("T", 5)], all_stale=True, relations_done=["T"])
    )
    await db.progress.save(CallProgress(id="sites"))
    await db.shapes.save("sites", await db.shapes.load("sites", 0))
    await db.unmatched.keep("ut_traffic", [(1, "x", b"", b"")])
    await db.unmatched.load("ut_traffic", await db.unmatched.ids_after("ut_traffic", ""))
    await db.unmatched.count_kept_before("ut_traffic", 1)
    await db.unmatched.calls()
    await db.unmatched.note_if_empty("ut_link_metrics")
    await db.unmatched.trim("ut_traffic", 1)
    await db.unmatched.delete("ut_traffic", ["x"])
    await db.unmatched.field_with("terminal", ["x"])
    await db.unmatched.ids_by_field("terminal", "serial_number")
    await db.records.count_of_missing("terminal")
    await db.records.count_missing("site", ["S"], 1)
    await db.progress.load("sites")
    await db.records.skippable_hashes("terminal", 0)
    await db.records.presence_times(["T"])
    await db.records.load("terminal", ["T"])
    await db.records.count("terminal")
    await db.records.missing_counts_after("terminal", "")
    await db.records.docs_after("usage", "")
    await db.commit(Batch(usage_days=[UsageDaysWrite("pool", "A", b"{}"), UsageDaysWrite("pool", "B")]))
    await db.usage_days.load("pool", ["A"])
    await db.usage_days.owners_after("", "")
    await db.samples.reports_of("terminal", ["T", "U"])
    await db.samples.known_samples("traffic", ["T"])
    await db.samples.newest_sample("traffic", 9)
    await db.samples.newest_samples_of_online("traffic", ["online"], 9)
    await db.records.existing_ids("record", "terminal", ["T"])
    await db.records.existing_ids("removed", "terminal", ["T"])
    await db.samples.delete_seen_samples("traffic", 1)
    await db.relations.stale_terminals()
    await db.relations.linked_terminals(["P"])
    await db.relations.linked_products(["T"])
    await db.commands.store_command([Setting("sites", "interval", "5", "mqtt")], ("topic", "mark"))
    await db.commands.settings()
    await db.commands.last_command_identity("topic")
    await db.commands.add_poll_requests("topic", ["sites"], None, ("topic", "mark"))
    await db.commands.poll_requests()
    await db.progress.release(["sites"])


def _batch() -> Batch:
    doc = encode({"name": "x", "state": "online"})
    return Batch(
        entries=[Entry("terminal", "T", "added", "", 5, b"{}"), Entry("terminal", "T", "metric", "traffic", 5, doc)],
        writes=[RecordWrite("terminal", "T", doc, b"h", 0), RecordWrite("product", "P", doc, b"h")],
        newest=[NewestSampleWrite("terminal", "traffic", "T", 5, 7, doc, 1, "a=n")],
        seen=[SeenSample("terminal", "traffic", "T", 5, 7)],
        product_links=[("terminal", "T", (("P", "T"),)), ("product", "P", (("P", "T"),))],
        stale_relations=["T"],
    )


async def _use_staging(db: store.Store) -> None:
    await db.staging.clear("sites")
    await db.staging.add("sites", [(1, "S", b"", b"")])
    assert [part async for part in db.staging.iter_slices("sites")]
    await db.staging.newest_times("sites", ["S"])
    await db.staging.ids("sites")


async def _use_edge_tables(edge: EdgeTables) -> None:
    await edge.add_node(1, 0)
    await edge.numbers()
    await edge.next_bd_seq(1)
    await edge.place_devices([("T", 1)])
    await edge.devices()
    await edge.free_device("T")
    await edge.head()
    await edge.rows_between(0, 9, 5)
    await edge.oldest_samples(0, 9)
    await edge.rows_by_time(["T", "P"], (0, 9), (0, 0), 5)
    await edge.cursor(1)
    await edge.advance(1, 1)
    await edge.fleet_ids()
    await edge.device_content("T", ["P"], ["B"])
    await edge.call_states()


async def _use_journal(rows: journal.Journal) -> None:
    await rows.after(0)
    await rows.head()
    await rows.oldest()
    await rows.cursor()
    await rows.advance(1)
    await rows.identity.renew(1)
    await rows.set_aside(1, "topic", "reason")
    await rows.counts()
    await rows.identity.read()
    await rows.identity.note_place(Place("oneweb", "main"))
    await rows.identity.forget_base("oneweb")
    await rows.positions()
    await rows.save(Positions(1, {"class": Waiting(0, 3)}), {"topic"})
    await rows.set_alerted("class", alerted=True)
    await rows.waiting()
    await rows.owed.add(Debt("topic", "T", "state"), "reason")
    await rows.owed.next_debts(1, ["other"])
    await rows.owed.count()
    await rows.owed.count_tries(["topic"])
    await rows.retained.records_between(0, 9)
    await rows.retained.newest_between(0, 9)
    await rows.retained.clearing_between(0, 9)
    await rows.retained.of_id("T")
    await rows.retained.rows_of_id_after("T", 0)
    await rows.clear_restore_mark(await rows.restore_mark())
    await rows.flush_cursor()
    await rows.require_lease()
    await rows.identity.head_bound()
    await rows.identity.clear_head_bound()


async def _use_devices(known: announcements.Devices) -> None:
    await known.fingerprint()
    await known.mark_all_dirty("x", [("bridge", "")])
    for device in await known.dirty(-1.0, 10):
        await known.note([announcements.DeviceUpdate(device=device, topic="t", hash=b"1", was_sent=True)], 1)
        await known.note([announcements.DeviceUpdate(device=device, topic="")], 1)
    await known.mark_sent_since(1)
    await known.delete_unsent()
    await known.record("terminal", "T")
    await known.value_types(["traffic"], "T")
    await known.terminals_named("x")
    await known.buckets("P")
    await known.forecasts(["B", "C"])
    await known.terminals_of("P")


async def _use_housekeeping(raw: Connection) -> None:
    state = parse("state: {max_backlog: 1m, history: {events: 1m, samples: 1m, max_size: 1MB}}", {}).state

    async def alert(_: Alert) -> None:
        pass

    await housekeeping.trim(raw, state, ("mqtt",), alert, 1 << 60)
    await housekeeping._delete_oldest(raw, 1, 500)
