"""What the console's routes answer, compared with what the simulated API has and what the bridge publishes."""

import asyncio
import contextlib
import json
import random
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
import pytest

from oneweb_bridge.demo import mosquitto
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Batch, Entry, NewestSampleWrite, RecordWrite
from oneweb_bridge.model.status import Alarm
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store import store
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.query_thread import open_query_thread
from oneweb_bridge.store.reading import EventFilter, HeldRecords, Queries, open_queries
from oneweb_bridge.store.sqlite import ThreadConnection
from oneweb_bridge.web import fleet, series_routes, views
from oneweb_bridge.web.advice import ADVICE
from oneweb_bridge.web.payloads import FLEET_COLUMNS, TreeNode
from oneweb_bridge.web.tree import Organization, Reference, Site, Terminal, build_tree
from tests import harness
from tests.campaign import is_at_rest

TREE = TopicTree("oneweb", "main", "journal")


class Api:
    """The console's API of a running bridge."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self.url = f"http://127.0.0.1:{port}"

    async def get(self, path: str, status: int = 200) -> Any:
        async with self._session.get(f"{self.url}/api/v1/{path}") as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def text(self, path: str) -> str:
        async with self._session.get(f"{self.url}/api/v1/{path}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()


@contextlib.asynccontextmanager
async def asking(world: harness.World, recorder: harness.Recorder) -> AsyncIterator[Api]:
    """The API of a bridge that has published everything, and polls no more while it is compared with its topics."""
    http = mosquitto.free_port()
    config = world.config(http={"listen": f"127.0.0.1:{http}"}, polling=harness.SLOW)
    async with harness.running(config), aiohttp.ClientSession() as session:
        await recorder.until(lambda: is_at_rest(recorder))
        api = Api(session, http)
        async with asyncio.timeout(harness.BUSY_S):
            while (await api.get("bridge"))["info"]["journal"]["backlog"]:
                await asyncio.sleep(0.05)
        await recorder.catch_up()
        yield api


async def test_answers_are_what_is_published(world: harness.World) -> None:
    """Records, relations, samples, usage, events and calls are those of the topics; ids that are not there are 404."""
    async with harness.recording(world.port) as recorder, asking(world, recorder) as api:
        retained = recorder.retained
        fleet_answer = await api.get("fleet")
        assert fleet_answer["columns"] == list(FLEET_COLUMNS)
        rows = {row[0]: dict(zip(FLEET_COLUMNS, row, strict=True)) for row in fleet_answer["rows"]}
        imeis = {record["id"] for record in world.api.truth("terminals")}
        assert set(rows) == imeis
        for imei, row in rows.items():
            record = retained[f"oneweb/terminal/{imei}/state"]
            assert (row["name"], row["state"], row["latitude"]) == (
                record["name"],
                record["state"],
                record.get("latitude"),
            )
            relations = retained[f"oneweb/terminal/{imei}/relations"]
            assert row["site"] == relations.get("site", {}).get("name")
            assert row["end_customer_id"] == relations.get("end_customer", {}).get("id")
            several = " ".join(relations["product_ids"]) if len(relations["product_ids"]) > 1 else None
            assert row["product_ids"] == several

        imei = min(imei for imei in imeis if rows[imei]["bucket_id"])
        terminal = await api.get(f"terminals/{imei}")
        assert terminal["record"] == retained[f"oneweb/terminal/{imei}/state"]
        assert terminal["relations"] == retained[f"oneweb/terminal/{imei}/relations"]
        assert terminal["components"] == retained[f"oneweb/terminal/{imei}/components"]["components"]
        assert [product["product_id"] for product in terminal["products"]] == terminal["relations"]["product_ids"]
        product = await api.get(f"products/{rows[imei]['product_id']}")
        assert product["record"] == retained[f"oneweb/product/{rows[imei]['product_id']}/state"]
        assert product["terminal"] == terminal["record"]
        assert rows[imei]["bucket_id"] in [bucket["bucket_id"] for bucket in product["buckets"]]
        site = await api.get(f"sites/{rows[imei]['site_id']}")
        assert imei in [record["imei"] for record in site["terminals"]]
        organization = await api.get(f"organizations/{rows[imei]['end_customer_id']}")
        assert organization["record"]["organization_id"] == rows[imei]["end_customer_id"]
        for kind in ("terminals", "products", "organizations", "sites"):
            assert "no record" in (await api.get(f"{kind}/nobody%2Fhere", 404))["error"]

        tree = await api.get("tree")
        assert sum(root["terminals"] for root in tree["roots"]) == len(imeis)

        events = await api.get("events?limit=500")
        published = [event for topic, event, _ in recorder.messages if "/event/" in topic]
        assert {event["id"] for event in events["events"]} <= {event["id"] for event in published}
        known = {event["id"]: event for event in published}
        assert all(event == known[event["id"]] for event in events["events"])

        calls = await api.get("calls")
        assert {call["call"] for call in calls["calls"]} == set(harness.QUICK)
        assert calls["requests_per_hour"] == pytest.approx(sum(c["requests_per_hour"] for c in calls["calls"]), abs=12)
        assert calls["held"] == []
        assert {(c["source"]["enabled"], c["source"]["interval"]) for c in calls["calls"]} == {("file", "file")}

        bridge = await api.get("bridge")
        assert bridge["ready"] == {"api": True, "broker": True, "journal": True}
        assert bridge["info"]["instance"] == "main"
        for path in ("bridge?x=1", "fleet?seq=1", "events?limit=0", "events?limit=501", "events?kind=state"):
            assert (await api.get(path, 400))["error"]
        for path in ("events?before=x", "events?limit=1&limit=2", "events?entity=call", "alerts?entity=terminal"):
            assert (await api.get(path, 400))["error"]


async def test_series_are_the_samples_that_were_published(world: harness.World) -> None:
    """Each sample that was published stands once in the lines, and in the CSV as `history` writes it."""
    async with harness.recording(world.port) as recorder, asking(world, recorder) as api:
        imei = world.api.truth("terminals")[0]["id"]
        where = {"entity": "terminal", "id": imei, "report": "signal_quality", "since": "2025-06-01T00:00:00Z"}
        below = f"oneweb/terminal/{imei}"
        published = {
            sample["ts"]: sample
            for kind in ("metric", "history")
            for sample in recorder.on(f"{below}/{kind}/signal_quality")
        }
        until = {**where, "until": str(max(published) + 1)}
        series = await api.get(f"series?{urlencode(until)}")
        assert series["t"] == sorted(published)
        assert (series["source"], series["lateness"]) == ("samples", 120.0)
        lines = {line["name"]: line for line in series["series"]}
        assert {name: line["unit"] for name, line in lines.items()} == {
            "rsrp_dbm": "dBm",
            "rssi_dbm": "dBm",
            "sinr_db": "dB",
        }
        for name, line in lines.items():
            assert line["v"] == [published[ts].get(name) for ts in series["t"]]
        traffic = await api.get(f"series?{urlencode({**until, 'report': 'traffic', 'names': 'cnx_tx_bytes'})}")
        assert [(line["name"], line["unit"], line["kind"]) for line in traffic["series"]] == [
            ("cnx_tx_bytes", "B/s", "cumulative")
        ]
        assert await api.text(f"series.csv?{urlencode(until)}") == await history(world, imei, until)
        some = (await api.text(f"series.csv?{urlencode({**until, 'names': 'sinr_db'})}")).splitlines()
        assert len(some) == 1 + len(published)
        bucket = (await api.get(f"terminals/{imei}"))["buckets"][0]["bucket_id"]
        names = {**until, "entity": "usage", "id": bucket, "report": "usage", "names": "used_gb", "until": "0s"}
        usage = await api.get(f"series?{urlencode(names)}")
        assert len(usage["t"]) >= 1

        for changes, status in (
            ({"id": "nobody"}, 404),
            ({"report": "throughput"}, 400),
            ({"report": "nothing"}, 400),
            ({"entity": "site"}, 400),
            ({"names": "sinr_db,volume"}, 400),
            ({"points": "9"}, 400),
            ({"points": "10001"}, 400),
            ({"as": "mean"}, 400),
            ({"since": "yesterday"}, 400),
            ({"until": "2024-01-01T00:00:00Z"}, 400),
            ({"id": ""}, 400),
        ):
            for name in ("series", "series.csv"):
                assert (await api.get(f"{name}?{urlencode({**where, **changes})}", status))["error"]


async def history(world: harness.World, imei: str, where: dict[str, str]) -> str:
    """What `history --csv` prints of the same span."""
    code, out, _ = await harness.command(
        "history",
        "-c",
        str(world.directory / "bridge.yaml"),
        "--imei",
        imei,
        "--report",
        where["report"],
        "--since",
        where["since"],
        "--until",
        where["until"],
        "--csv",
    )
    assert code == 0
    return out


# ── from a database that a test fills ──────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def filled(path: Path, *batches: Batch) -> AsyncIterator[Queries]:
    """The queries on a database that holds these batches."""
    async with store.open_store(path) as opened:
        for batch in batches:
            await opened.commit(batch)
        with open_queries(path) as queries:
            yield queries


def records(kind: Any, **docs: dict[str, Any]) -> Batch:
    return Batch(writes=[RecordWrite(kind, id, encode(doc)) for id, doc in docs.items()])


def sample(report: str, id: str, ts: int, **values: Any) -> Batch:
    entries = [Entry("terminal", id, "metric", report, ts, b"{}")]
    return Batch(entries=entries, newest=[NewestSampleWrite("terminal", report, id, ts, 0, encode(values), 0)])


async def row_of(queries: Queries, imei: str = "1") -> dict[str, Any]:
    answer = fleet_of(queries)
    assert answer["columns"] == list(FLEET_COLUMNS)
    rows = [dict(zip(FLEET_COLUMNS, row, strict=True)) for row in answer["rows"]]
    return next(row for row in rows if row["imei"] == imei)


def fleet_of(queries: Queries) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(fleet.encode_fleet(queries, TREE).decompress())
    return answer


async def test_fleet_joins_what_is_known(tmp_path: Path) -> None:
    """A row has the newest of all: the fullest bucket of its products, its forecast, and the last sign of life.

    Members of documents that are called as something that is worked out do not matter.
    """
    relations = {
        "imei": "1",
        "product_ids": ["P0", "P1", "P2"],
        "site": {"id": "S"},
        "end_customer": {"id": "C", "name": "Cu"},
    }
    async with filled(
        tmp_path / "bridge.db",
        records("terminal", **{"1": {"imei": "1", "name": "Skua", "last_seen": "2025-06-17T13:00:00.000Z"}, "2": {}}),
        records("relations", **{"1": relations}),
        records("product", P0={"name": "none used"}, P1={"name": "half"}, P2={"name": "most"}),
        records(
            "usage",
            a={"product_id": "P1", "used_gb": 50.0, "entitlement_gb": 100.0},
            b={"product_id": "P2", "used_gb": 10.0, "entitlement_gb": 30.0},
            c={
                "product_id": "P2",
                "used_gb": 200.005,
                "entitlement_gb": 300.0,
                "overage_blocks": 2,
                "used_pct": "much",
            },
            d={"product_id": "P0", "used_gb": 900.0, "entitlement_gb": 1.0, "remaining_unlimited": True},
        ),
        records("forecast", c={"status": "ok", "exhausted_p50": "2026-11-27T00:00:00Z"}),
        sample("signal_quality", "1", 1_750_167_607_000, sinr_db=10.2, at="noon"),
        sample("link_availability", "1", 1_750_000_000_000, link_availability_pct=99.5),
    ) as queries:
        row = await row_of(queries)
        assert {name: value for name, value in row.items() if value is not None} == {
            "imei": "1",
            "name": "Skua",
            "seen_ts": 1_750_167_607_000,
            "sinr_db": 10.2,
            "sinr_ts": 1_750_167_607_000,
            "link_availability_pct": 99.5,
            "availability_ts": 1_750_000_000_000,
            "bucket_id": "c",
            "used_pct": 66.67,
            "overage_blocks": 2,
            "forecast_status": "ok",
            "exhausted_ts": 1_795_737_600_000,
            "product_id": "P2",
            "product": "most",
            "site_id": "S",
            "end_customer_id": "C",
            "end_customer": "Cu",
            "product_ids": "P0 P1 P2",
        }
        assert [value for value in (await row_of(queries, "2")).values() if value is not None] == ["2"]
        assert fleet_of(queries)["seq"] == "journal:2"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
async def test_fleet_is_one_document_whatever_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Every terminal is there once, by its id, though few rows are held at a time."""
    monkeypatch.setattr(fleet, "SLICE_ROWS", 2)
    async with filled(tmp_path / "bridge.db", records("terminal", **{f"{n}": {} for n in range(count)})) as queries:
        assert [row[0] for row in fleet_of(queries)["rows"]] == [f"{n}" for n in range(count)]


async def test_fleet_is_made_anew_when_the_journal_has_grown(tmp_path: Path) -> None:
    """While nothing was committed the same bytes are sent again; a new sample is in the next answer."""
    path = tmp_path / "bridge.db"
    async with store.open_store(path) as opened:
        await opened.commit(records("terminal", **{"1": {"imei": "1"}}))
        await opened.commit(sample("signal_quality", "1", 1_750_167_607_000, sinr_db=10.2))
        with open_queries(path) as queries:
            first = fleet.encode_fleet(queries, TREE)
            assert fleet.encode_fleet(queries, TREE, first) is first
            await opened.commit(sample("signal_quality", "1", 1_750_167_667_000, sinr_db=11.5))
            second = fleet.encode_fleet(queries, TREE, first)
            assert b"10.2" in first.decompress()
            assert b"11.5" in second.decompress()


KEPT = b'"kept"'
PIECES = ("head", "signal", "availability", "products", "place")


def marked(before: fleet.EncodedFleet) -> fleet.EncodedFleet:
    """The same with every piece of every row replaced by a word."""
    words = dict.fromkeys(PIECES, KEPT)
    return msgspec.structs.replace(
        before, rows={imei: msgspec.structs.replace(row, **words) for imei, row in before.rows.items()}
    )


def made_anew(newer: fleet.EncodedFleet) -> dict[str, str]:
    """By IMEI which pieces of a row are not those that were marked."""
    made = {
        imei: " ".join(piece for piece in PIECES if getattr(row, piece) != KEPT) for imei, row in newer.rows.items()
    }
    return {imei: pieces for imei, pieces in made.items() if pieces}


async def test_fleet_takes_over_what_nothing_was_written_of(tmp_path: Path) -> None:
    """Whatever was committed since, the answer is that of who reads all; other pieces of rows are not even read."""
    path = tmp_path / "bridge.db"
    names = {f"{n}": {"imei": f"{n}", "name": "old", "product_ids": [f"P{n}"]} for n in range(5)}
    async with store.open_store(path) as opened:
        await opened.commit(records("terminal", **names))
        await opened.commit(sample("signal_quality", "1", 1_750_167_607_000, sinr_db=10.2))
        with open_queries(path) as queries:
            before = fleet.encode_fleet(queries, TREE)
            for changes, made in CHANGES:
                for change in changes:
                    await opened.commit(change)
                newer = fleet.encode_fleet(queries, TREE, before)
                assert newer.decompress() == fleet.encode_fleet(queries, TREE).decompress()
                assert made_anew(fleet.encode_fleet(queries, TREE, marked(before))) == made
                before = newer


async def test_fleet_needs_no_rows_of_the_journal(tmp_path: Path) -> None:
    """What changed is known too where a part of the journal was trimmed, or all of it."""
    path = tmp_path / "bridge.db"
    async with store.open_store(path) as opened:
        await opened.commit(records("terminal", **{"1": {"imei": "1"}}))
        await opened.commit(happened("call", "sites", "state"))
        with open_queries(path) as queries:
            before = fleet.encode_fleet(queries, TREE)
            await opened.commit(sample("signal_quality", "1", 1_750_167_607_000, sinr_db=10.2))
            await opened.commit(happened("call", "sites", "state"))
            for last in (2, 3):
                with contextlib.closing(sqlite3.connect(path)) as db, db:
                    db.execute("DELETE FROM journal WHERE seq <= ?", (last,))
                assert b"10.2" in fleet.encode_fleet(queries, TREE, before).decompress()


@pytest.mark.parametrize("seed", range(8))
async def test_fleet_that_is_renewed_is_the_one_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """After any commits the renewed table has the bytes of one that is read as a whole, however many changed."""
    monkeypatch.setattr(fleet, "FEW", 2)
    chance, path = random.Random(seed), tmp_path / "bridge.db"
    async with store.open_store(path) as opened:
        with open_queries(path) as queries:
            before = fleet.encode_fleet(queries, TREE)
            for _ in range(60):
                for _ in range(chance.choice((1, 1, 2, 9))):
                    await opened.commit(change_at_random(chance))
                newer = fleet.encode_fleet(queries, TREE, before)
                assert newer.decompress() == fleet.encode_fleet(queries, TREE).decompress()
                before = newer


def change_at_random(chance: random.Random) -> Batch:
    """A record that is written or removed, or a sample."""
    n, m = chance.randrange(8), chance.randrange(8)
    docs: dict[Any, tuple[str, dict[str, Any]]] = {
        "terminal": (f"{n}", {"name": f"T{m}", "last_seen": f"2025-06-17T13:0{m}:00.000Z", "product_ids": [f"P{m}"]}),
        "relations": (f"{n}", {"product_ids": [f"P{m}", f"P{n}"][m % 3 :], "site": {"id": f"S{m}"}}),
        "product": (f"P{n}", {"name": f"Plan {m}"}),
        "usage": (f"B{n}", {"product_id": f"P{m}", "used_gb": float(n), "entitlement_gb": chance.choice((None, 9.0))}),
        "forecast": (f"B{n}", {"status": "ok", "exhausted_p50": f"2026-11-2{m}T00:00:00Z"}),
    }
    kind = chance.choice([*docs, "signal_quality", "link_availability", "presence"])
    if kind not in docs:
        ts = 1_750_160_000_000 + chance.randrange(10_000_000)
        return sample(kind, f"{n}", ts, sinr_db=m, link_availability_pct=m)
    id, doc = docs[kind]
    if kind != "relations" and chance.random() < 0.3:
        return happened(kind, id, "removed", removed=[(kind, id)])
    return written(kind, id, doc)


def happened(entity: str, id: str, what: Any, name: str = "", **written: Any) -> Batch:
    """A row of the journal, and what is written with it."""
    return Batch(entries=[Entry(entity, id, what, name, 1_750_167_608_000, b"{}")], **written)


def written(kind: Any, id: str, doc: dict[str, Any]) -> Batch:
    """A record that is published by a row of the journal."""
    return happened(kind, id, "changed", writes=[RecordWrite(kind, id, encode(doc), entry=0)])


WHOLE = "head signal availability products place"
ALL = dict.fromkeys("1234", "products")
CHANGES: list[tuple[list[Batch], dict[str, str]]] = [
    ([happened("call", "sites", "state"), happened("", "", "alert")], {}),
    ([sample("signal_quality", "1", 1_750_167_609_000, sinr_db=11.5)], {"1": "signal"}),
    ([sample("presence", "3", 1_750_167_609_000, online=True)], {}),
    ([written("terminal", "2", {"imei": "2", "name": "new"})], {"2": "head products place"}),
    ([written("relations", "3", {"imei": "3", "site": {"id": "S"}})], {"3": "head place"}),
    ([written("relations", "4", {"imei": "4", "product_ids": ["P9"]})], {"4": "head products place"}),
    ([written("terminal", "15", {"imei": "15"})], {"15": WHOLE}),
    ([happened("terminal", "15", "removed", removed=[("terminal", "15")])], {}),
    ([happened("terminal", "0", "removed", removed=[("terminal", "0")])], {}),
    ([written("organization", "O", {"name": "Org"})], {}),
    ([written("product", "P3", {"name": "Maritime"})], ALL),
    ([written("usage", "b", {"product_id": "P4", "used_gb": 1.0, "entitlement_gb": 2.0})], ALL),
    ([written("forecast", "b", {"status": "ok"})], ALL),
    ([happened("usage", "b", "forecast", removed=[("forecast", "b")])], ALL),
    ([happened("product", "P3", "removed", removed=[("product", "P3")])], ALL),
]
"""What happens, and which pieces of which rows are made anew by then."""


async def test_fleet_shows_the_first_product_of_a_terminal_without_limits(tmp_path: Path) -> None:
    """An unlimited bucket is shown without a per cent, and a product without one as well."""
    async with filled(
        tmp_path / "bridge.db",
        records("terminal", **{"1": {"product_ids": ["P1"]}, "2": {"product_ids": ["P2", "P1"]}, "3": {}}),
        records("usage", a={"product_id": "P1", "used_gb": 5.0, "remaining_unlimited": True, "entitlement_gb": 1.0}),
        records("product", P2={"name": "Plan"}),
    ) as queries:
        first, second = await row_of(queries), await row_of(queries, "2")
        assert (first["product_id"], first["bucket_id"], first["used_pct"]) == ("P1", "a", None)
        assert (second["product_id"], second["bucket_id"], second["product"]) == ("P1", "a", None)
        assert (await row_of(queries, "3"))["product_id"] is None


async def test_held_records_are_named(tmp_path: Path) -> None:
    """Those that are missing, or keep values without being listed so; all of them where the listing was empty."""
    path = tmp_path / "bridge.db"
    ids = [f"{number:03}" for number in range(60)]
    async with store.open_store(path) as opened:
        await opened.commit(Batch(writes=[RecordWrite("site", id, b"{}", hash=b"h") for id in ids]))
        with open_queries(path) as queries:
            assert queries.held_records("site") == HeldRecords(60, ids[:50])
            await opened.records.count_missing("site", ["007", "003"], 5)
            assert queries.held_records("site") == HeldRecords(2, ["003", "007"])
            await opened.commit(Batch(writes=[RecordWrite("site", id, b"{}") for id in ("001", "002", "004")]))
            assert queries.held_records("site") == HeldRecords(3, ["001", "002", "004"])


async def test_product_shows_the_members_of_its_pool(tmp_path: Path) -> None:
    """Every bucket of the same shared allowance is listed with its product and terminal, who used most first."""
    pool = {"is_shared": True, "shared_allowance_id": "POOL-1", "shared_allowance_name": "Fleet 1"}
    async with filled(
        tmp_path / "bridge.db",
        records("terminal", **{"1": {"imei": "1", "name": "Skua"}, "2": {"imei": "2", "name": "Petrel"}}),
        records("product", P1={"name": "Plan", "imei": "1"}, P2={"name": "Plan", "imei": "2"}, P3={"name": "Own"}),
        records(
            "usage",
            a={"product_id": "P1", "used_gb": 5.0, "shared_allowance_parent_id": "POOL-0", **pool},
            b={"product_id": "P2", "used_gb": 40.0, "overage_blocks": 1, **pool},
            c={"used_gb": 1.0, **pool},
            d={"product_id": "P3", "used_gb": 7.0, "is_shared": False, "shared_allowance_id": "POOL-1"},
        ),
    ) as queries:
        answer = views.read_product(queries, "P1")
        assert answer is not None
        (shown,) = answer.pools
        assert (shown.shared_allowance_id, shown.shared_allowance_name) == ("POOL-1", "Fleet 1")
        assert shown.shared_allowance_parent_id == "POOL-0"
        assert [member.bucket_id for member in shown.members] == ["b", "a", "c"]
        first, last = shown.members[0], shown.members[-1]
        assert (first.terminal, first.imei, first.product, first.overage_blocks) == ("Petrel", "2", "Plan", 1)
        assert (last.product_id, last.terminal) == (None, None)
        alone = views.read_product(queries, "P3")
        assert alone is not None
        assert alone.pools == []


async def test_events_are_paged_from_the_newest(tmp_path: Path) -> None:
    """Pages follow one another without a gap or an overlap, filters hold, and a first component list is no event."""
    entries = []
    for number in range(20):
        entries.append(Entry("terminal", "1", "metric", "traffic", number, b'{"x":1}'))
        entries.append(
            Entry("site" if number % 2 else "terminal", "12"[number % 2], "changed", "", number, b'{"changed":{}}')
        )
    entries.append(Entry("terminal", "1", "components", "", 99, b'{"components":{}}'))
    entries.append(Entry("terminal", "1", "components", "", 100, b'{"components":{},"changed":{"components.a":{}}}'))
    entries.append(Entry("terminal", "1", "removed", "", 101, b'{"record":{}}'))
    async with filled(tmp_path / "bridge.db", Batch(entries=entries)) as queries:
        tree = TopicTree("oneweb", "main", *queries.journal_ids())

        def pages(**wanted: Any) -> list[int]:
            answers, before = [], None
            while True:
                answer = views.read_events(queries, tree, EventFilter(**wanted, limit=4, before=before))
                answers += [int(msgspec.json.decode(event)["id"].rpartition(":")[2]) for event in answer.events]
                before = answer.next
                if before is None:
                    return answers

        every = pages()
        assert every == sorted(every, reverse=True)
        assert len(every) == 22
        assert 41 not in every
        assert pages(kind="removed") == [43]
        assert pages(kind="changed") == every[1:]
        assert len(pages(entity="site")) == len(pages(id="2")) == len(pages(entity="site", id="2")) == 10
        assert pages(entity="product") == pages(id="3") == []


async def test_event_index_is_used(tmp_path: Path) -> None:
    """Going back through events reads no samples, and all other queries find their rows by an index."""
    seen: set[str] = set()
    async with filled(tmp_path / "bridge.db") as queries:
        assert isinstance(queries._connection, ThreadConnection)
        queries._connection.set_trace_callback(seen.add)
        tree = TopicTree("oneweb", "main", *queries.journal_ids())
        views.read_events(queries, tree, EventFilter(before=5, kind="added"))
        views.read_events(queries, tree, EventFilter(before=5, id="1"))
        views.read_alerts(queries, 5, "x", 1)
        queries.alerts_since(1)
        queries.rows_after(1, 1)
        queries.oldest()
        fleet.encode_fleet(queries, TREE)
        views.read_tree(queries)
        queries.buckets_of(["P"])
        queries.records("terminal", ["1"])
        queries.newest_of("terminal", "1")
        queries.products_of_terminal("1")
        queries.terminals_of_product("1")
        queries.held_records("terminal")
        queries._connection.set_trace_callback(None)
        plans = {
            sql: " / ".join(row[3] for row in queries._iterate(f"EXPLAIN QUERY PLAN {sql}"))
            for sql in seen
            if "meta" not in sql
        }
    scans = {sql: plan for sql, plan in plans.items() if "SCAN" in plan}
    assert all(any(word in sql for word in ("newest", "sqlite_sequence", "json_group_array")) for sql in scans), scans
    assert any("SCAN journal USING INDEX journal_events" in plan or "journal_events" in plan for plan in plans.values())


async def test_alerts_have_advice(tmp_path: Path) -> None:
    """Alerts come newest first, filtered by kind, each with what to do about it."""
    alerts = [
        Entry("bridge", "", "alert", kind, ts, encode(Alarm("2025-06-17T14:15:02.113Z", kind, "message", call)))
        for ts, kind, call in ((1, "removal_held", "sites"), (2, "topics_accepted", None), (3, "removal_held", None))
    ]
    async with filled(tmp_path / "bridge.db", Batch(entries=alerts)) as queries:
        first = views.read_alerts(queries, None, None, 2)
        assert [(a.seq, a.kind, a.call) for a in first.alerts] == [
            (3, "removal_held", None),
            (2, "topics_accepted", None),
        ]
        assert (first.next, first.alerts[1].advice) == (2, None)
        last = views.read_alerts(queries, first.next, None, 2)
        assert ([a.call for a in last.alerts], last.next) == (["sites"], None)
        assert last.alerts[0].advice == ADVICE["removal_held"]
        assert len(views.read_alerts(queries, None, "removal_held", 5).alerts) == 2
        assert [row.seq for row in queries.alerts_since(2)] == [3, 2]


def test_advice_is_that_of_the_documentation() -> None:
    """What the console advises is what docs/operating.md says, for every kind of alert."""
    text = (Path(__file__).parent.parent / "docs/operating.md").read_text()
    table = re.findall(
        r"^\| `([a-z_]+)` \| .* \| (.*) \|$", text[text.index("## Alerts") : text.index("Also worth")], re.MULTILINE
    )
    documented = {kind: re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", advice).replace("`", "") for kind, advice in table}
    assert {kind: advice for kind, advice in documented.items() if advice != "nothing"} == ADVICE


# ── the tree ───────────────────────────────────────────────────────────────────────────────────


def outline(nodes: list[TreeNode]) -> list[Any]:
    """Nodes as `kind id count`, with those below."""
    return [[f"{node.kind} {node.id} {node.terminals}", *outline(node.children)] for node in nodes]


def test_tree_counts_each_terminal_once() -> None:
    """A terminal counts under its owner and up its parents; what has no place stands at the root; the roots add up."""
    organizations = {
        "partner": Organization("Partner"),
        "b": Organization("Beta", "partner"),
        "a": Organization("Alpha", "partner"),
        "lost": Organization("Lost", "nobody"),
    }
    sites = {"s": Site("Shared"), "empty": Site("Empty", "b"), "stray": Site("Stray", "nobody")}
    terminals = [
        Terminal("online", Reference("s", "Shared"), Reference("a")),
        Terminal("offline", Reference("s"), Reference("b")),
        Terminal("online", None, Reference("a")),
        Terminal("online", None, Reference("unknown", "Unknown")),
        Terminal(None, Reference("new", "New"), None),
        Terminal("online", None, None),
    ]
    roots = build_tree(organizations, sites, terminals)
    assert outline(roots) == [
        ["organization lost 0"],
        [
            "organization partner 3",
            ["organization a 2", ["site s 1"], ["none  1"]],
            ["organization b 1", ["site empty 0"], ["site s 1"]],
        ],
        ["organization unknown 1", ["none  1"]],
        ["site new 1"],
        ["site stray 0"],
        ["none  1"],
    ]
    assert roots[1].states == {"online": 2, "offline": 1}
    assert roots[3].states == {"unknown": 1}
    assert sum(root.terminals for root in roots) == len(terminals)


def test_tree_ends_where_parents_go_round() -> None:
    """Organizations that are one another's parents are shown, and their terminals counted once."""
    organizations = {
        "a": Organization(None, "c"),
        "b": Organization(None, "a"),
        "c": Organization(None, "b"),
        "d": Organization(None, "d"),
    }
    roots = build_tree(organizations, {}, [Terminal("online", None, Reference("b"))])
    assert outline(roots) == [
        ["organization a 1", ["organization b 1", ["organization c 0"], ["none  1"]]],
        ["organization d 0"],
    ]


# ── the thread ─────────────────────────────────────────────────────────────────────────────────

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


async def test_long_query_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query that takes too long ends with an error, also when its asker has gone; the next one is answered."""
    monkeypatch.setattr("oneweb_bridge.store.query_thread.QUERY_TIMEOUT_S", 0.1)
    async with store.open_store(tmp_path / "bridge.db"), open_query_thread(tmp_path / "bridge.db") as thread:
        with pytest.raises(StoreUnavailable, match="took longer"):
            await thread.run(endless)
        monkeypatch.setattr("oneweb_bridge.store.query_thread.QUERY_TIMEOUT_S", 60.0)
        assert await thread.run(Queries.head) == 0
        request = asyncio.create_task(thread.run(endless))
        queued = asyncio.create_task(thread.run(Queries.head))
        await asyncio.sleep(0)
        request.cancel()
        assert await queued == 0
        await asyncio.gather(request, return_exceptions=True)


def endless(queries: Queries) -> Any:
    return list(queries._iterate(ENDLESS))


def test_read_rests_after_some_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is asked to: behind the first 12 ms of its own work, 0.2 ms after each 0.3 ms."""
    worked, slept = iter([0.0, 0.0121, 0.0124, 0.0124, 0.0126, 0.0128, 0.0128]), list[float]()
    monkeypatch.setattr("time.thread_time", lambda: next(worked))
    monkeypatch.setattr("time.sleep", slept.append)
    rest = series_routes.Rests()
    counts = []
    for _ in range(4):
        rest()
        counts.append(len(slept))
    assert counts == [0, 1, 1, 2]
    assert set(slept) == {series_routes.REST_S}


async def test_reader_cannot_write(tmp_path: Path) -> None:
    """The console's connection is read-only."""
    async with store.open_store(tmp_path / "bridge.db"), open_query_thread(tmp_path / "bridge.db") as thread:
        with pytest.raises(StoreUnavailable, match="readonly"):
            await thread.run(lambda queries: list(queries._iterate("DELETE FROM setting")))
