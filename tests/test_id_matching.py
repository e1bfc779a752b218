"""Ids of reports, usage and components that match no record: no topics of what does not exist, and nothing is lost."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.polling.poll_runner import PollRunner
from oneweb_bridge.store.unmatched import UnmatchedTable
from tests.polls import Bench, JournalRow, bench
from tests.test_coverage import spoil
from tests.test_poll_runner import managed_poll, manager

TERMINALS, PRODUCTS, SIGNAL, USAGE = "user_terminals", "products", "ut_signal_quality", "usage_consumption"
COMPONENTS = "user_terminal_components"


async def foreign(b: Bench, call: str, suffix: str = "-x") -> None:
    """Lets a call answer with ids that nobody knows."""
    await spoil(b, call, lambda rows: [row | {"id": row["id"] + suffix} for row in rows])


async def topics(b: Bench) -> set[str]:
    """The ids that have something in the journal besides the bridge's own."""
    return {row.id for row in await b.news() if row.entity in ("terminal", "product", "usage")}


async def test_samples_of_unknown_ids_get_no_topic_and_are_told(tmp_path: Path) -> None:
    """A report that carries another id than the inventory makes no terminals that do not exist."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS)
        await b.news()
        await foreign(b, SIGNAL)
        outcome = await b.poll(SIGNAL)
        assert await topics(b) == set()
        assert outcome.samples == 0
        first, second = sorted(id + "-x" for id in b.ids("terminals"))[:2]
        assert f"match no terminal known, such as {first} and {second}" in outcome.incomplete
        (alert,) = (a for a in outcome.alerts if a.kind == "answer_unexpected")
        assert alert.about == "ids ids"


async def test_what_was_kept_goes_out_when_the_inventory_lists_the_id(tmp_path: Path) -> None:
    """A terminal that its report shows first loses no sample, and is no finding while it is new."""
    async with bench(tmp_path) as b:
        added = b.ids("terminals")[0]
        listing = b.sim.truth("terminals")
        for remaining in (listing[1:], listing):
            body = json.dumps(remaining)
            b.sim.clear_faults()
            headers = {"X-Total-Count": str(len(remaining))}
            b.sim.fault("status", status=200, body=body, path=CALLS[TERMINALS].path, headers=headers)
            await b.poll(TERMINALS)
            if remaining is not listing:
                outcome = await b.poll(SIGNAL)
                assert (outcome.incomplete, outcome.alerts) == ("", [])
                assert added not in {row.id for row in await b.news() if row.what in ("metric", "history")}
        samples = [row for row in await b.news() if row.id == added and row.name == "signal_quality"]
        assert [row.what for row in samples] == ["metric"]
        assert await b.store.unmatched.ids_after(SIGNAL, "") == []
        # The API repeats the sample, which is known.
        await b.poll(SIGNAL)
        assert samples[0].ts not in {row.ts for row in await b.news() if row.id == added}


async def test_an_id_that_a_later_listing_does_not_have_either_is_told(tmp_path: Path) -> None:
    """One id of many is no finding at first, but when the inventory was listed since and did not have it."""
    async with bench(tmp_path, {"terminals": 20}) as b:
        poller = await manager(b)
        await managed_poll(b, poller, TERMINALS)
        lost = b.ids("terminals")[0]
        await spoil(b, SIGNAL, lambda rows: [r | {"id": "ghost"} if r["id"] == lost else r for r in rows])
        assert [row for row in await managed_poll(b, poller, SIGNAL) if row.what == "alert"] == []
        await managed_poll(b, poller, TERMINALS)
        (alert,) = (row.body for row in await managed_poll(b, poller, SIGNAL) if row.what == "alert")
        assert "1 of 20 ids match no terminal known, such as ghost" in alert["message"]
        assert poller.calls[SIGNAL].status == "incomplete"


async def test_match_says_which_field_has_the_ids(tmp_path: Path) -> None:
    """The finding names the field of the inventory that the ids stand in; the line in the configuration mends it."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS)
        serials = {t["id"]: t["serialNumber"] for t in b.sim.truth("terminals")}
        await spoil(b, SIGNAL, lambda rows: [row | {"id": serials[row["id"]]} for row in rows])
        outcome = await b.poll(SIGNAL)
        assert "set polling.ut_signal_quality.match: serial_number" in outcome.incomplete
        await b.news()
        b.configure(polling={SIGNAL: {"match": "serial_number"}})
        outcome = await b.poll(SIGNAL)
        assert outcome.incomplete == ""
        samples = [row for row in await b.news() if row.what in ("metric", "history")]
        assert {row.id for row in samples} <= set(serials)
        assert len({(row.id, row.ts) for row in samples}) == len(samples) == outcome.records
        assert await b.store.unmatched.ids_after(SIGNAL, "") == []


async def test_usage_of_unknown_products_is_kept_until_they_are_known(tmp_path: Path) -> None:
    """A bucket of a product that no listing has gets no topic; it gets one with the listing that has it."""
    async with bench(tmp_path) as b:
        await spoil(b, PRODUCTS, lambda rows: rows[:1])
        await b.poll(PRODUCTS)
        await b.news()
        outcome = await b.poll(USAGE)
        assert "match no product known" in outcome.incomplete
        first = {row.body["product_id"] for row in await b.news() if row.what == "usage"}
        assert len(first) <= 1
        b.sim.clear_faults()
        await b.poll(PRODUCTS)
        later = {row.body["product_id"] for row in await b.news() if row.what == "usage"}
        assert len(later) > 1
        assert not later & first
        assert (await b.poll(USAGE)).incomplete == ""
        assert [row for row in await b.news() if row.what == "usage"] == []


async def test_components_of_unknown_terminals_are_kept_until_they_are_known(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await spoil(b, TERMINALS, lambda rows: rows[:1])
        await b.poll(TERMINALS)
        b.sim.clear_faults()
        await b.news()
        assert "match no terminal known" in (await b.poll(COMPONENTS)).incomplete
        assert len({row.id for row in await b.news() if row.what == "components"}) == 1
        await b.poll(TERMINALS)
        assert len({row.id for row in await b.news() if row.what == "components"}) == 7


@pytest.mark.parametrize("settings", [{}, {TERMINALS: {"enabled": False}}])
async def test_ids_are_taken_as_they_are_without_an_inventory(settings: dict[str, Any], tmp_path: Path) -> None:
    """Who disabled the inventory, or whose rights do not reach it, still has the samples."""
    async with bench(tmp_path, polling=settings) as b:
        if settings:
            await b.poll(TERMINALS)
        await foreign(b, SIGNAL)
        outcome = await b.poll(SIGNAL)
        assert (outcome.incomplete, outcome.samples) == ("", outcome.records)


async def test_a_report_before_the_first_listing_waits_for_it(tmp_path: Path) -> None:
    """At a first start a report may come before the inventory: it is kept, told by nobody, and goes out with it."""
    async with bench(tmp_path) as b:
        poller = await manager(b)
        assert [row for row in await managed_poll(b, poller, SIGNAL) if row.what == "alert"] == []
        assert poller.calls[SIGNAL].status == "ok"
        assert {row.id for row in await b.news() if row.what == "metric"} == set()
        await poller._poll(poller.calls[TERMINALS])
        assert {row.id for row in await b.news() if row.name == "signal_quality"} == set(b.ids("terminals"))


async def test_what_matches_nothing_is_kept_for_a_time(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS)
        await foreign(b, SIGNAL)
        await b.poll(SIGNAL)
        assert len(await b.store.unmatched.ids_after(SIGNAL, "")) == 8
        await b.later(25 * 3600)
        await foreign(b, SIGNAL, "-y")
        await b.poll(SIGNAL)
        assert all(id.endswith("-y") for id in await b.store.unmatched.ids_after(SIGNAL, ""))


async def test_what_was_kept_of_ids_that_a_new_filter_excludes_is_not_published(tmp_path: Path) -> None:
    """What waits for the inventory when a filter comes into force passes it or goes."""
    async with bench(tmp_path) as b:
        poller = await manager(b)
        await managed_poll(b, poller, SIGNAL)
        wanted, *_ = b.ids("terminals")
        b.configure(filter={"imeis": [wanted]})
        await b.poll(TERMINALS)
        assert {row.id for row in await b.news() if row.name == "signal_quality"} == {wanted}
        assert await b.store.unmatched.ids_after(SIGNAL, "") == []


# ── two polls at once ──────────────────────────────────────────────────────────────────────────


def kept_rows(rows: list[JournalRow], name: str) -> list[tuple[str, int, bool, float]]:
    """Of samples: where to, when, whether corrected, and a value."""
    samples = [row for row in rows if row.name == name and row.what in ("metric", "history")]
    return [(row.what, row.ts, row.body.get("corrected", False), row.body["sinr_db"]) for row in samples]


async def test_what_is_kept_while_the_inventory_publishes_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report's poll keeps a new sample aside just while the inventory's poll publishes the older ones."""
    loaded, deciding, kept = asyncio.Event(), asyncio.Event(), asyncio.Event()
    real_load, real_keep, real_delete = UnmatchedTable.load, UnmatchedTable.keep, UnmatchedTable.delete

    async def load(self: UnmatchedTable, call: str, ids: Any) -> Any:
        rows = await real_load(self, call, ids)
        loaded.set()
        return rows

    async def keep(self: UnmatchedTable, call: str, rows: Any) -> None:
        deciding.set()
        # Where it may not be read meanwhile, this is in vain.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(loaded.wait(), 1.0)
        await real_keep(self, call, rows)
        kept.set()

    async def delete(self: UnmatchedTable, call: str, ids: Any) -> None:
        await kept.wait()
        await real_delete(self, call, ids)

    async with bench(tmp_path, {"terminals": 1}) as b:
        poller = await manager(b)
        await managed_poll(b, poller, SIGNAL)
        (id,) = b.ids("terminals")
        before = len(await b.store.unmatched.load(SIGNAL, [id]))
        await b.later(600)
        for name, patched in (("load", load), ("keep", keep), ("delete", delete)):
            monkeypatch.setattr(UnmatchedTable, name, patched)
        report = asyncio.create_task(b.runner.poll(SIGNAL))
        await asyncio.wait_for(deciding.wait(), 10)
        await asyncio.gather(report, b.poll(TERMINALS))

        published = {ts for _, ts, _, _ in kept_rows(await b.news(), "signal_quality")}
        assert len(published) == before + 1
        assert await b.store.unmatched.ids_after(SIGNAL, "") == []


async def test_nothing_newer_overtakes_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge that ended before it published what was kept: a correction that comes first does not come to stay."""
    late = {SIGNAL: {"lateness": "50m"}}
    async with bench(tmp_path, {"terminals": 1}, polling=late) as b:
        poller = await manager(b)
        await managed_poll(b, poller, SIGNAL)
        with monkeypatch.context() as killed:

            async def ended(*_: Any) -> None:
                """Nothing more."""

            killed.setattr(PollRunner, "_publish_kept", ended)
            await b.poll(TERMINALS)
        b.sim.fault("corrected", report="signalQuality")
        await b.later(1)
        await b.news()
        await b.poll(SIGNAL)
        first, *_, second = kept_rows(await b.news(), "signal_quality")
        assert first[:3] == ("metric", second[1], False)
        assert second[2]
        assert first[3] != second[3]
        for _ in range(2):
            await b.poll(SIGNAL)
            assert kept_rows(await b.news(), "signal_quality") == []


async def test_calls_that_keep_something_are_known_while_others_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept while somebody looks whether anything is left is not forgotten."""
    async with bench(tmp_path) as b:
        table = b.store.unmatched
        assert await table.calls() == frozenset()
        real = UnmatchedTable.ids_after

        async def ids_after(self: UnmatchedTable, call: str, after: str) -> list[str]:
            ids = await real(self, call, after)
            await table.keep(call, [(1, "x", b"", b"")])
            return ids

        monkeypatch.setattr(UnmatchedTable, "ids_after", ids_after)
        await table.note_if_empty(SIGNAL)
        assert await table.calls() == {SIGNAL}


async def test_components_that_were_kept_do_not_replace_newer_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The components' own poll brings newer ones just while the inventory's poll publishes the older."""
    polls = list[asyncio.Task[Any]]()
    real = UnmatchedTable.load

    async def load(self: UnmatchedTable, call: str, ids: Any) -> Any:
        rows = await real(self, call, ids)
        if not polls:
            polls.append(asyncio.create_task(b.poll(COMPONENTS)))
            # Where it may not store anything meanwhile, this is in vain.
            await asyncio.wait(polls, timeout=0.5)
        return rows

    async with bench(tmp_path, {"terminals": 1}) as b:
        poller = await manager(b)
        await managed_poll(b, poller, COMPONENTS)
        (id,) = b.ids("terminals")
        b.sim.fleet("firmware", id=id, version="v99")
        monkeypatch.setattr(UnmatchedTable, "load", load)
        await b.poll(TERMINALS)
        await asyncio.gather(*polls)

        *_, last = (row.body["components"] for row in await b.news() if row.what == "components")
        assert "v99" in last.values()
