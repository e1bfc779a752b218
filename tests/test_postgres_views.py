"""The views of PostgreSQL: what those of SQLite say, of all instances, for a role that reads nothing else."""

import contextlib
import json
import logging
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from oneweb_bridge.config.read import parse
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.model.records import Batch, Entry, RecordWrite
from oneweb_bridge.store import store
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.places import Place
from oneweb_bridge.store.postgres_views import READABLE, READER
from oneweb_bridge.store.views import VIEWS, view_columns
from tests.places import held
from tests.postgres import USER, run_postgres
from tests.test_views import NOON, reading, rows_of, sample, with_json

pytestmark = pytest.mark.postgres
ROOT = Path(__file__).parent.parent
TYPES = {
    "text": "text",
    "time": "timestamp with time zone",
    "integer": "bigint",
    "real": "double precision",
    "boolean": "boolean",
    "json": "jsonb",
}
MAST = parse("polling: {user_terminals: {map: {mast: {path: mast}}}}", {}).polling


def ask(url: str, sql: str) -> list[dict[str, Any]]:
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as db:
        cursor = db.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def record(kind: Any, id: str, **members: Any) -> RecordWrite:
    return RecordWrite(kind, id, json.dumps(members).encode())


CONTENT = Batch(
    writes=[
        record(
            "terminal",
            "a",
            imei="a",
            name="A",
            imsi="nul \0, and \\u0000",
            product_ids=["p", "q"],
            last_seen="2026-06-01T12:00:00.250Z",
            latitude=70.0,
            longitude="text where a number is expected",
        ),
        record(
            "product", "p", product_id="p", is_bundle=False, allowance_unlimited=True, start_date="2026-01-01T00:00:00Z"
        ),
        record("usage", "b", bucket_id="b", overage_blocks=3, used_gb=1.5, time="2026-06-01T12:00:00Z", ts=NOON),
    ],
    entries=[
        *(sample("a", NOON + 60_000 * n + 7, sinr_db=float(n), wan_tx_bytes=2**40 + n) for n in range(120)),
        sample("a", NOON + 7, sinr_db=99.0, corrected=True, x_new_db=1.5),
        Entry(
            "product", "p", "history", "throughput", NOON, json.dumps({"product_id": "p", "be_uplink_bps": 5}).encode()
        ),
        Entry("site", "s", "added", "", NOON, b'{"record":{"site_id":"s"},"initial":true}'),
        Entry("terminal", "a", "components", "", NOON, b'{"components":{"main/UT":"1"}}'),
        Entry("terminal", "a", "components", "", NOON + 1, b'{"changed":{"components.main/UT":{"from":"1","to":"2"}}}'),
    ],
)


async def fill(place: Place, batch: Batch = CONTENT, calls: Any = CALLS) -> str:
    """A place with its views and some content. Returns the journal's id."""
    async with store.open_store(place) as opened:
        await opened.make_views(calls)
        await opened.commit(batch)
        return opened.journal_id


def as_published(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is not known, with times as in the contract."""
    return {
        name: rfc3339(round(value.timestamp() * 1000)) if isinstance(value, datetime) else value
        for name, value in row.items()
        if value is not None
    }


async def test_views_say_what_those_of_sqlite_say(url: str, tmp_path: Path) -> None:
    """The same content gives the same rows, with instance, epoch, times and JSON in types of PostgreSQL."""
    path = tmp_path / "bridge.db"
    await fill(path)
    async with held(url) as server:
        journal_id = await fill(server)
    with reading(path) as db:
        for view in VIEWS:
            expected = [with_json(row, view) for row in rows_of(db, f"SELECT * FROM {view}")]
            rows = [as_published(row) for row in ask(url, f"SELECT * FROM oneweb.{view}")]
            assert {row.pop("instance") for row in rows} == {"main"}
            if view == "events":
                assert [row.pop("epoch") for row in rows] == [1, 1]
                assert [row.pop("id").partition(":")[0] for row in rows] == [journal_id] * 2
            assert in_order(rows) == in_order(map(as_postgres, expected))
            assert rows


def as_postgres(row: dict[str, Any]) -> dict[str, Any]:
    """A row of SQLite as the other engine has it: times to the millisecond, and no text among numbers."""
    times = {n: as_published({n: datetime.fromisoformat(row[n])})[n] for n in row if n in ("start_date", "time")}
    if "imsi" in row:
        # SQLite shows the text until its NUL, PostgreSQL has none.
        row["imsi"] = "nul \ufffd, and \\u0000"
    return {name: value for name, value in (row | times).items() if name not in ("longitude", "id")}


def in_order(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


@pytest.mark.parametrize("view", VIEWS)
async def test_columns_are_those_of_the_contract(url: str, view: str) -> None:
    """`instance` first, `epoch` on events, and then what docs/sql.md has, in the types of PostgreSQL."""
    async with held(url) as server:
        await fill(server, Batch())
    rows = ask(
        url,
        f"""SELECT column_name, data_type FROM information_schema.columns
        WHERE table_schema = 'oneweb' AND table_name = '{view}' ORDER BY ordinal_position""",
    )
    columns = [(column.name, TYPES[column.type]) for column in view_columns(CALLS)[view]]
    if view == "events":
        columns.insert(2, ("epoch", "bigint"))
    assert [tuple(row.values()) for row in rows] == [("instance", "text"), *columns]


async def test_views_have_the_rows_and_the_fields_of_all_instances(url: str) -> None:
    """An instance that comes later is seen at once, and what it maps stays when the first one starts again."""
    async with held(url) as first, held(url, "second") as second:
        await fill(first)
        entries, writes = [sample("a", NOON + 7, sinr_db=1.0)], [record("terminal", "z", imei="z", mast="tall")]
        await fill(second, Batch(entries=entries, writes=writes), MAST)
        made = ask(url, "SELECT oid, xmin::text FROM pg_class WHERE relname = 'terminals' AND relkind = 'v'")
        async with store.open_store(first) as opened:
            await opened.make_views(CALLS)
        assert made == ask(url, "SELECT oid, xmin::text FROM pg_class WHERE relname = 'terminals' AND relkind = 'v'")
    rows = ask(url, "SELECT instance, imei, mast FROM oneweb.terminals ORDER BY 1")
    assert [tuple(row.values()) for row in rows] == [("main", "a", None), ("second", "z", "tall")]
    rows = ask(url, f"SELECT instance, sinr_db FROM oneweb.samples WHERE ts = {NOON + 7} ORDER BY 1")
    assert [tuple(row.values()) for row in rows] == [("main", 99.0), ("second", 1.0)]


async def test_field_of_two_types_is_a_text(url: str) -> None:
    """What one instance has as a number and another as a text is shown as either has it."""
    number = parse("polling: {user_terminals: {map: {mast: {path: mast, type: number}}}}", {}).polling
    async with held(url) as first, held(url, "second") as second:
        await fill(first, Batch(writes=[record("terminal", "a", imei="a", mast=2.5)]), number)
        assert ask(url, "SELECT mast FROM oneweb.terminals") == [{"mast": 2.5}]
        await fill(second, Batch(writes=[record("terminal", "z", imei="z", mast="tall")]), MAST)
    assert ask(url, "SELECT mast FROM oneweb.terminals ORDER BY instance") == [{"mast": "2.5"}, {"mast": "tall"}]


async def test_view_of_an_older_version_is_replaced(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also where its columns were others. One that somebody built upon keeps its columns; a table stays."""
    ask(url, "CREATE VIEW oneweb.events AS SELECT 1 AS old")
    ask(url, "CREATE VIEW oneweb.usage AS SELECT 1 AS old; CREATE VIEW public.mine AS SELECT * FROM oneweb.usage")
    ask(url, "CREATE TABLE oneweb.hourly AS SELECT 1 AS mine")
    caplog.set_level(logging.WARNING, "oneweb_bridge.store")
    async with held(url) as server:
        await fill(server)
    assert ask(url, "SELECT count(*) FROM oneweb.events") == [{"count": 2}]
    assert ask(url, "SELECT * FROM public.mine") == [{"old": 1}]
    assert ask(url, "SELECT * FROM oneweb.hourly") == [{"mine": 1}]
    assert "the view oneweb.usage keeps its columns" in caplog.text
    assert "the view hourly is not made" in caplog.text


async def test_reader_reads_the_views_and_nothing_else(url: str) -> None:
    """Every relation of the schemas but these is refused, and so is a change of these."""
    async with held(url) as server:
        await fill(server)
    relations = ask(
        url,
        """SELECT nspname, relname FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace
        WHERE nspname IN ('oneweb', 'oneweb_main') AND relkind IN ('r', 'p', 'v', 'm', 'S')""",
    )
    readable = set()
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"SET ROLE {READER}".encode())
        for row in relations:
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                db.execute(f"SELECT * FROM {row['nspname']}.{row['relname']}".encode())
                readable.add(row["relname"] if row["nspname"] == "oneweb" else row)
        for name in READABLE:
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState)):
                db.execute(f"UPDATE oneweb.{name} SET instance = 'x'".encode())
    assert len(relations) > 50
    assert readable == {*VIEWS, "holders"}


async def test_reader_is_made_where_that_is_allowed(caplog: pytest.LogCaptureFixture) -> None:
    """A user that may not make roles says so; the next start gives a role its rights that was made meanwhile."""
    caplog.set_level(logging.INFO, "oneweb_bridge.store")
    with run_postgres() as own:
        own.execute("CREATE ROLE plain LOGIN; CREATE ROLE grafana LOGIN")
        own.execute("CREATE DATABASE bridge OWNER plain")
        plain = own.url_of("bridge").replace(f"{USER}@", "plain@")
        async with held(plain) as server:
            await fill(server)
            assert "this user may not make it: docs/fleet.md has the statement" in caplog.text
            own.execute(f"CREATE ROLE {READER} NOLOGIN; GRANT {READER} TO grafana")
            async with store.open_store(server) as opened:
                await opened.make_views(CALLS)
        assert ask(plain.replace("plain@", "grafana@"), "SELECT name FROM oneweb.terminals") != []


async def test_terminal_is_found_by_an_index(url: str) -> None:
    """With an id, samples and hours are searched by id and time, in both places where the journal is read."""
    async with held(url) as server:
        await fill(server)
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("SET enable_seqscan = off")
        for view in ("samples", "hourly"):
            sql = f"EXPLAIN SELECT * FROM oneweb.{view} WHERE imei = 'a'"
            plan = "\n".join(row[0] for row in db.execute(sql.encode()))
            assert plan.count("journal_history") == 2, plan
            assert "Seq Scan" not in plan


async def test_somebody_who_reads_for_long_holds_nobody_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that is in use is not made anew, and the store goes on; the next start does it."""
    monkeypatch.setattr("oneweb_bridge.store.postgres_views.LOCK_TIMEOUT", "50ms")
    async with held(url) as server:
        await fill(server)
        with psycopg.connect(url) as db:
            db.execute("SELECT count(*) FROM oneweb.terminals")
            async with store.open_store(server) as opened:
                with pytest.raises(StoreUnavailable):
                    await opened.make_views(MAST)
                await opened.commit(Batch(writes=[record("terminal", "b", imei="b", mast="tall")]))
        async with store.open_store(server) as opened:
            await opened.make_views(MAST)
    assert ask(url, "SELECT mast FROM oneweb.terminals WHERE imei = 'b'") == [{"mast": "tall"}]


# ── what the documentation and the dashboard ask ───────────────────────────────────────────────


def reported(report: str, ts: int, **members: Any) -> Entry:
    """A sample of a report of terminal `a`."""
    doc = {"imei": "a", "report": report, "time": rfc3339(ts), "ts": ts, **members}
    return Entry("terminal", "a", "history", report, ts, json.dumps(doc).encode())


FLEET = Batch(
    writes=[
        *(record("terminal", id, imei=id, name=id, state=state) for id, state in (("a", "online"), ("b", "offline"))),
        record("product", "p", product_id="p", name="P"),
        record("usage", "b", bucket_id="b", product_id="p", used_gb=9.0, entitlement_gb=10.0),
    ],
    entries=[
        *(sample("a", NOON + 60_000 * n, sinr_db=float(n)) for n in range(3)),
        *(reported("link_availability", NOON + n, link_availability_pct=99.5) for n in range(2)),
        *(reported("traffic", NOON + 60_000 * n, cnx_rx_bytes=5000 * n) for n in range(2)),
        Entry(
            "terminal", "b", "changed", "", NOON, b'{"changed":{"state":{"from":"online","to":"offline"}},"record":{}}'
        ),
    ],
)
DASHBOARD = json.loads((ROOT / "deploy/grafana/oneweb-postgres.json").read_text())


def as_asked(sql: str) -> str:
    """A query of the dashboard as Grafana sends it."""
    begin, end = NOON - 3_600_000, NOON + 3_600_000
    span = f"'{rfc3339(begin)}' AND '{rfc3339(end)}'"
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN {span}", sql)
    values = {"instance:sqlstring": "'main','other'", "terminal:sqlstring": "'a'", "__from": begin, "__to": end}
    return re.sub(r"\$\{(.+?)\}", lambda match: str(values[match[1]]), sql)


async def test_dashboard_and_documented_queries_have_an_answer(url: str) -> None:
    """Each panel of the dashboard shows something of a small fleet, read by the role; the queries of the docs run."""
    documented = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/fleet.md").read_text(), re.DOTALL)
    lists = [entry["query"] for entry in DASHBOARD["templating"]["list"] if entry["type"] == "query"]
    panels = [target["rawSql"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    async with held(url) as server:
        await fill(server, FLEET)
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as db:
            db.execute(f"SET ROLE {READER}".encode())
            for sql in [*lists, *panels]:
                rows = db.execute(as_asked(sql).encode()).fetchall()
                assert rows, sql
                assert any(value not in (None, 0) for row in rows for value in row.values()) or "NOT held" in sql, sql
            for sql in documented:
                if not sql.startswith("CREATE"):
                    db.execute(sql.encode()).fetchall()
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"]) == 12
    assert len(documented) == 4
