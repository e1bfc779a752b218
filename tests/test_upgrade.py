"""An upgrade changes nothing that a user or the database sees: a database of an earlier version, polled on."""

import contextlib
import sqlite3
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy

from oneweb_bridge.api.answers import Answer
from oneweb_bridge.api.client import ApiClient
from oneweb_bridge.clock import Clock
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import parse
from oneweb_bridge.polling.poll_runner import PollRunner
from oneweb_bridge.store import store

TESTS = Path(__file__).parent
POLLED = TESTS / "schemas" / "3_polled.sql"
"""What an earlier version has made of `samples` at `NOW`."""
NOW = 1_750_171_500.0
ANSWERS = {
    "/resourceInventory/v3/userTerminal": "user_terminals",
    "/api/webservices/productinventory/v2/product": "products",
    "/partyManagement/v1/organization": "organizations",
    "/geographicSiteManagement/v1/geographicSite": "sites",
    "/performanceMonitoring/v2/userTerminal/linkAvailability": "ut_performance_link_availability",
    "/performanceMonitoring/v2/userTerminal/signalQuality": "ut_performance_signal_quality",
    "/performanceMonitoring/v2/userTerminal/resourceState": "ut_performance_resource_state",
    "/performanceMonitoring/v2/userTerminal/traffic": "ut_performance_traffic",
    "/performanceMonitoring/v2/userTerminal/linkMetrics": "ut_performance_link_metrics",
    "/performanceMonitoring/v2/product/throughput": "product_performance_throughput",
    "/usageConsumption/v3/usageConsumptionReport": "usage_consumption",
}
"""Path -> the file in `samples` with its answer."""


class SamplesApi(ApiClient):
    """An API that answers with the files in `samples`."""

    async def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        empty_status: Collection[int] = (),
    ) -> Answer:
        params = params or {}
        name = "user_terminal_components" if "fields" in params else ANSWERS[path]
        is_first = params.get("offset", "0") == "0"
        page = (TESTS / "samples" / f"{name}.json").read_bytes() if is_first else b"[]"
        return Answer(200, page, CIMultiDictProxy(CIMultiDict()), None, self.url(path))


async def poll_all_calls(path: Path, now: float) -> None:
    """Polls every call once into the database at `path`."""
    config, clock = (
        parse("polling: {ut_link_metrics: {enabled: true}}", {}),
        Clock(lambda: now, lambda: now - NOW + 100.0, "a boot"),
    )
    async with store.open_store(path, clock) as opened:
        api = SamplesApi(config.api, None, Masks(), clock)  # type: ignore[arg-type]  # nothing is sent
        runner = PollRunner(opened, api, config, clock)
        for call in config.polling:
            await opened.progress.save((await runner.poll(call)).progress)
        await runner.update_relations()


def restore(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.executescript(POLLED.read_text(encoding="utf-8"))


MORE_FIELDS = ("user_terminals", "sites", "usage_consumption")
"""Calls of which more fields are read now, which the answers in `samples` lack."""
INSTEAD = {
    ("record", "hash"): "length(hash)",
    ("discovery", "mark"): "mark > done",
    ("call", "fingerprint"): f"iif(id IN {MORE_FIELDS}, length(fingerprint), fingerprint)",
}
"""What may differ -> what is compared instead.

Where more of an answer is read or hashed than before, all records are compared once, and nothing comes of it. A mark
counts how often a device was marked dirty.
"""


def rows_of(path: Path, table: str, columns: list[str]) -> list[tuple[Any, ...]]:
    chosen = ", ".join(INSTEAD.get((table, column), column) for column in columns)
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return sorted(raw.execute(f"SELECT {chosen} FROM {table}"))


def columns_of(path: Path, table: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return [row[1] for row in raw.execute(f"PRAGMA table_info({table})")]


async def test_database_of_an_earlier_version_causes_no_row_and_stays_not_remapped(tmp_path: Path) -> None:
    """The answers that it has polled before are as they were: nothing is published, whatever is read of them now."""
    path = tmp_path / "bridge.db"
    restore(path)
    columns = {table: columns_of(path, table) for table in ("record", "newest")}
    before = {table: rows_of(path, table, columns[table]) for table in columns}
    rows = rows_of(path, "journal", ["seq"])

    await poll_all_calls(path, NOW + 60)

    assert rows_of(path, "journal", ["seq"]) == rows
    assert before == {table: rows_of(path, table, columns[table]) for table in before}
    assert set(rows_of(path, "call", ["complete", "remapped"])) == {(1, 0)}


async def test_first_poll_stores_what_an_earlier_version_stored(tmp_path: Path) -> None:
    """From the same answers at the same time come the same rows, byte for byte, the same records and fingerprints."""
    earlier, path = tmp_path / "earlier.db", tmp_path / "bridge.db"
    restore(earlier)

    await poll_all_calls(path, NOW)

    for table in ("journal", "record", "newest", "seen", "product_link", "call", "discovery"):
        columns = columns_of(earlier, table)
        assert rows_of(path, table, columns) == rows_of(earlier, table, columns), table
