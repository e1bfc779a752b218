"""Whole polls of single calls against the simulated API: what each makes of the records, and what it says of it."""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import msgspec
import pytest
import stamina

from oneweb_bridge.api.listing import Problems
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.model.records import Batch, OnlineTerminal, RecordKind
from oneweb_bridge.polling import poll_records
from oneweb_bridge.polling.compiled_call import CompiledCall
from oneweb_bridge.polling.diff import ListedRecord
from oneweb_bridge.polling.missing_records import MissingRecords
from oneweb_bridge.polling.poll_context import PollOutcome
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.polling.samples import StoppedReports, StopThreshold, find_stopped, newly_stopped
from oneweb_bridge.simulator.clock import parse_rfc3339
from oneweb_bridge.store.call_progress import CallProgress
from oneweb_bridge.store.staging import StagedRow
from tests.polls import RECORDS, Bench, JournalRow, bench, configured, fleet, opened

TERMINALS, COMPONENTS, USAGE, SIGNAL = (
    "user_terminals",
    "user_terminal_components",
    "usage_consumption",
    "ut_signal_quality",
)
REPORTS = tuple(call for call in CALLS if CALLS[call].reads == "report")
KIND = {"user_terminals": "terminal", "products": "product", "organizations": "organization", "sites": "site"}
THINGS = {"user_terminals": "terminals", "products": "products", "organizations": "organizations", "sites": "sites"}
SLICE = "oneweb_bridge.store.slices.SLICE"
MINUTE, HOUR = 60, 3600


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


class Crash(Exception):
    """What ends the bridge in a story."""


# --- removal --------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", RECORDS)
async def test_record_is_removed_after_three_listings_and_a_quarter_of_an_hour(call: str, tmp_path: Path) -> None:
    """At a poll every 5 min the fourth listing without it removes a record: three are too soon by the clock."""
    async with bench(tmp_path) as b:
        await b.poll(*RECORDS)
        lost = b.ids(THINGS[call])[1]
        last = await b.record(KIND[call], lost)
        await b.news()
        b.sim.fleet("remove", id=lost)
        for _ in range(3):
            await b.poll(call)
            assert await b.events() == []
            await b.later(5 * MINUTE)
        outcome = await b.poll(call)
        (event,) = [row for row in await b.news() if row.what == "removed"]
        assert (event.id, event.body["record"], outcome.events) == (lost, last, 1)
        assert lost not in [row[0] for row in await b.rows("SELECT id FROM record WHERE kind = ?", KIND[call])]


async def test_record_is_not_removed_before_three_listings(tmp_path: Path) -> None:
    """However much time passes, two listings without a record are not enough."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS)
        b.sim.fleet("remove", id=b.ids("terminals")[0])
        await b.news()
        for _ in range(2):
            await b.poll(TERMINALS)
            await b.later(12 * HOUR)
        assert await b.events() == []
        await b.poll(TERMINALS)
        assert [what for what, _ in await b.events()] == ["removed"]


@pytest.mark.parametrize("glitches", [1, 2])
async def test_glitch_removes_nothing(glitches: int, tmp_path: Path) -> None:
    """A record that is back after one or two listings was never gone, also when that happens again and again."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS)
        await b.news()
        shy = b.ids("terminals")[0]
        for _ in range(4):
            b.sim.fleet("remove", id=shy)
            for _ in range(glitches):
                await b.later(20 * MINUTE)
                await b.poll(TERMINALS)
            b.sim.fleet("restore", id=shy)
            await b.later(20 * MINUTE)
            await b.poll(TERMINALS)
        assert await b.events() == []
        assert (await b.holdings())["missing"] == []


async def test_removed_record_that_comes_back_is_added_again(tmp_path: Path) -> None:
    """After its `removed` a record that is listed again is `added`, not initial, with what it has now."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS, COMPONENTS)
        prodigal = b.ids("terminals")[0]
        b.sim.fleet("remove", id=prodigal)
        await poll_until_removed(b, TERMINALS)
        await b.news()
        b.sim.fleet("restore", id=prodigal)
        b.sim.fleet("rename", id=prodigal, name="Back again")
        await b.poll(TERMINALS, COMPONENTS)
        news = [row for row in await b.news() if row.what in ("added", "components")]
        assert [(row.what, row.id) for row in news] == [("added", prodigal), ("components", prodigal)]
        assert news[0].body["record"]["name"] == "Back again"
        assert news[0].body["initial"] is False
        assert "changed" not in news[1].body


async def poll_until_removed(b: Bench, call: str, polls: int = 3) -> None:
    """Polls until what is missing is due to go."""
    for _ in range(polls):
        await b.poll(call)
        await b.later(10 * MINUTE)


async def manager(b: Bench) -> Poller:
    """A poller over the bench, whose polls the test makes itself."""
    poller = Poller(b.runner, b.store, b.api, configured(b.sim.url, **b._changes), b.clock)
    await poller.load()
    return poller


async def managed_poll(b: Bench, poller: Poller, call: str, seconds: float = 10 * MINUTE) -> list[JournalRow]:
    """One poll through the poller, some time later: what it said besides the state of the call."""
    await b.later(seconds)
    await poller._poll(poller.calls[call])
    return [row for row in await b.news() if row.what not in ("state", "metric", "history")]


async def test_many_removals_are_held_and_alerted_once(tmp_path: Path) -> None:
    """More than five at once are held with one alert; after removal.hold_for they go by themselves."""
    async with bench(tmp_path, {"terminals": 20}) as b:
        poller = await manager(b)
        await managed_poll(b, poller, TERMINALS)
        lost = b.ids("terminals")[:6]
        for id in lost:
            b.sim.fleet("remove", id=id)
        polls = [await managed_poll(b, poller, TERMINALS) for _ in range(6)]
        assert [[row.what for row in news] for news in polls] == [[], [], ["alert"], [], [], []]
        assert polls[2][0].body["kind"] == "removal_held"
        assert "6 terminal records are missing at once" in polls[2][0].body["message"]
        assert poller.calls[TERMINALS].status == "held"
        news = await managed_poll(b, poller, TERMINALS, 24 * HOUR)
        assert [(row.what, row.id) for row in news] == [("removed", id) for id in sorted(lost)]
        assert poller.calls[TERMINALS].status == "ok"


async def test_held_removals_go_when_released(tmp_path: Path) -> None:
    """`release` lets held removals go with the next poll, and only those: the next mass removal is held again."""
    async with bench(tmp_path, {"terminals": 30}) as b:
        poller = await manager(b)
        await managed_poll(b, poller, TERMINALS)
        ids = b.ids("terminals")
        for wave in (ids[:6], ids[6:12]):
            for id in wave:
                b.sim.fleet("remove", id=id)
            assert "alert" in [row.what for _ in range(3) for row in await managed_poll(b, poller, TERMINALS)]
            assert await poller.release(None) == 1
            news = await managed_poll(b, poller, TERMINALS)
            assert {(row.what, row.id) for row in news} == {("removed", id) for id in wave}
            assert await poller.release(None) == 0


async def test_partial_listing_neither_ends_a_hold_nor_uses_up_a_release(tmp_path: Path) -> None:
    """A listing with a record that cannot be read says nothing of what is missing: all stays as it was."""
    async with bench(tmp_path, {"terminals": 20}) as b:
        poller = await manager(b)
        await managed_poll(b, poller, TERMINALS)
        for id in b.ids("terminals")[:6]:
            b.sim.fleet("remove", id=id)
        for _ in range(3):
            await managed_poll(b, poller, TERMINALS)
        progress = poller.calls[TERMINALS].progress
        assert progress.held_since > 0
        assert await poller.release(TERMINALS) == 1
        there = b.sim.truth("terminals")
        partial = json.dumps([{**there[0], "id": None}, *there[1:]])
        headers = {"X-Total-Count": str(len(there))}
        b.sim.fault("status", status=200, body=partial, path="userTerminal", count=1, headers=headers)
        news = await managed_poll(b, poller, TERMINALS)
        assert [row.body["kind"] for row in news] == ["set_aside"], "what is held was told before"
        assert poller.calls[TERMINALS].status == "held"
        assert "6 terminal records are missing at once" in (poller.calls[TERMINALS].error or "")
        assert poller.calls[TERMINALS].progress.held_since == progress.held_since
        assert poller.calls[TERMINALS].progress.released
        assert [row.what for row in await managed_poll(b, poller, TERMINALS)] == ["removed"] * 6


async def test_held_records_that_come_back_were_never_gone(tmp_path: Path) -> None:
    """When the rights are back, nothing was removed, nothing is said, and the alert is armed again."""
    async with bench(tmp_path, {"terminals": 20}) as b:
        poller = await manager(b)
        await managed_poll(b, poller, TERMINALS)
        lost = b.ids("terminals")[:10]
        for _ in range(2):
            for id in lost:
                b.sim.fleet("remove", id=id)
            assert [row.what for _ in range(5) for row in await managed_poll(b, poller, TERMINALS)] == ["alert"]
            for id in lost:
                b.sim.fleet("restore", id=id)
            assert await managed_poll(b, poller, TERMINALS) == []
            assert poller.calls[TERMINALS].progress.held_since == 0


async def test_empty_listing_goes_by_release_alone(tmp_path: Path) -> None:
    """An empty listing after a full one is held for a month; a release lets all go at once."""
    async with bench(tmp_path) as b:
        poller = await manager(b)
        await managed_poll(b, poller, TERMINALS)
        ids = b.ids("terminals")
        for id in ids:
            b.sim.fleet("remove", id=id)
        rows = [row for _ in range(4) for row in await managed_poll(b, poller, TERMINALS, 10 * 24 * HOUR)]
        assert [row.what for row in rows] == ["alert"]
        assert "the listing is empty where 8 terminal records were known" in rows[0].body["message"]
        await poller.release(TERMINALS)
        assert len([row for row in await managed_poll(b, poller, TERMINALS) if row.what == "removed"]) == 8


# --- values that vanish ---------------------------------------------------------------------------

LISTED = {
    "user_terminals": "/userTerminal",
    "products": "/product",
    "organizations": "/organization",
    "sites": "/geographicSite",
}


def spoil(b: Bench, call: str, kind: str, **details: Any) -> None:
    """From now on the listing of a call lacks what `kind` takes away."""
    b.sim.clear_faults()
    b.sim.fault(kind, path=LISTED[call], share=1.0, **details)


@pytest.mark.parametrize("call", RECORDS)
async def test_listing_of_nothing_but_ids_tells_nothing(call: str, tmp_path: Path) -> None:
    """Records that have lost all values at once keep them: no event, status held, and one alert that names fields."""
    async with bench(tmp_path, {"terminals": 60}) as b:
        poller = await manager(b)
        await managed_poll(b, poller, call)
        before = (await b.holdings())["record"]
        spoil(b, call, "nulls")
        polls = [await managed_poll(b, poller, call) for _ in range(3)]
        assert {row.what for news in polls for row in news} == {"alert"}
        assert not any(news for news in polls[1:])
        (alert,) = (row.body for row in polls[0] if row.body["kind"] == "values_held")
        assert {row.body["kind"] for row in polls[0]} == {"values_held", "answer_unexpected"}
        count = len(b.ids(THINGS[call]))
        assert f"name ({count})" in alert["message"]
        assert "request/release" in alert["message"]
        assert (poller.calls[call].status, poller.calls[call].error) == ("held", alert["message"])
        assert (await b.holdings())["record"] == before
        b.sim.clear_faults()
        over = [row.body["message"] for row in await managed_poll(b, poller, call)]
        assert all(message.startswith("as expected again") for message in over)
        assert poller.calls[call].status == "ok"
        assert not poller.calls[call].progress.is_holding()
        assert (await b.holdings())["record"] == before


async def test_only_the_field_that_vanished_is_held(tmp_path: Path) -> None:
    """Other changes of the same records go out, as events whose chain still holds, and the field stays."""
    async with bench(tmp_path, {"terminals": 12}) as b:
        poller = await manager(b)
        await managed_poll(b, poller, TERMINALS)
        spoil(b, TERMINALS, "missing_key", key="resourceState")
        renamed = b.ids("terminals")[0]
        b.sim.fleet("rename", id=renamed, name="Another name")
        news = await managed_poll(b, poller, TERMINALS)
        assert [row.what for row in news] == ["changed", "alert", "alert"]
        assert set(news[0].body["changed"]) == {"name"}
        assert news[0].body["record"]["state"] in ("online", "offline")
        assert "state (12)" in news[1].body["message"]
        assert "none of 12 records has the field state" in news[2].body["message"]
        assert await managed_poll(b, poller, TERMINALS) == []
        # What else vanishes meanwhile is told anew.
        spoil(b, TERMINALS, "nulls")
        kinds = [row.body["kind"] for row in await managed_poll(b, poller, TERMINALS)]
        assert kinds.count("values_held") == 1
        assert set(kinds) == {"values_held", "answer_unexpected"}


async def test_held_values_go_when_released(tmp_path: Path) -> None:
    """`release` lets the values go at the next poll, once: what vanishes later is held again."""
    async with bench(tmp_path, {"terminals": 12}) as b:
        poller = await manager(b)
        await managed_poll(b, poller, TERMINALS)
        spoil(b, TERMINALS, "missing_key", key="resourceState")
        await managed_poll(b, poller, TERMINALS)
        assert await poller.release(None) == 1
        news = await managed_poll(b, poller, TERMINALS)
        changed = [row for row in news if row.what == "changed"]
        assert [row.body["changed"]["state"]["to"] for row in changed] == [None] * 12
        assert {row.what for row in news} == {"changed"}
        # That no record has a state any more was alerted when the values were held.
        assert (poller.calls[TERMINALS].status, await poller.release(None)) == ("incomplete", 0)
        spoil(b, TERMINALS, "nulls")
        alerts = [row.body["kind"] for row in await managed_poll(b, poller, TERMINALS)]
        assert set(alerts) == {"values_held", "answer_unexpected"}


async def test_held_values_go_after_a_time_also_over_a_restart(tmp_path: Path) -> None:
    """After removal.hold_for the values go by themselves; the time counts from the first listing without them."""
    async with fleet(terminals=12) as simulator:
        async with opened(tmp_path, simulator) as b:
            await b.poll(TERMINALS)
            spoil(b, TERMINALS, "missing_key", key="resourceState")
            await b.poll(TERMINALS)
            await b.later(23 * HOUR)
        async with opened(tmp_path, simulator) as b:
            await b.news()
            assert (await b.poll(TERMINALS)).held
            assert await b.events() == []
            await b.later(HOUR)
            assert not (await b.poll(TERMINALS)).held
            assert [what for what, _ in await b.events()] == ["changed"] * 12


async def test_few_values_that_vanish_go_out_at_once(tmp_path: Path) -> None:
    """As few as may be removed at once are changes like any other."""
    async with bench(tmp_path, {"terminals": 5}) as b:
        await b.poll(TERMINALS)
        await b.news()
        spoil(b, TERMINALS, "missing_key", key="resourceState")
        assert not (await b.poll(TERMINALS)).held
        assert [what for what, _ in await b.events()] == ["changed"] * 5


@pytest.mark.parametrize(("kept", "decoded"), [(10, 12 + 3), (2, 12 + 6), (0, 12 + 12)])
async def test_records_that_all_changed_are_decoded_once_as_far_as_memory_allows(
    kept: int, decoded: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are decoded to look for vanished values, and again only beyond what is kept, or to count what is unreadable.

    Either way each is published as it is listed.
    """
    counts: list[int] = []

    def decode_staged(plan: CompiledCall, staged: list[StagedRow], problems: Problems) -> list[ListedRecord]:
        counts.append(len(staged))
        return real(plan, staged, problems)

    real = poll_records._decode_staged
    monkeypatch.setattr(poll_records, "_decode_staged", decode_staged)
    monkeypatch.setattr(poll_records, "MAX_KEPT_SLICES", kept)
    monkeypatch.setattr(SLICE, 3)
    async with bench(tmp_path, {"terminals": 12}) as b:
        await b.poll(TERMINALS)
        await b.news()
        counts.clear()
        things = [{**thing, "name": f"New {thing['id']}"} for thing in b.sim.truth("terminals")]
        ids = sorted(thing["id"] for thing in things)
        for thing in things:
            if thing["id"] == ids[-1]:
                thing["deep"] = json.loads("[" * 120 + "]" * 120)
        headers = {"X-Total-Count": "12"}
        b.sim.fault("status", status=200, body=json.dumps(things), path="userTerminal", count=1, headers=headers)
        outcome = await b.poll(TERMINALS)

        assert await b.events() == [("changed", id) for id in ids[:-1]]
        assert [(await b.record("terminal", id))["name"] for id in ids[:-1]] == [f"New {id}" for id in ids[:-1]]
        assert (outcome.problems.set_aside, sum(counts)) == (1, decoded)


async def test_released_components_are_not_released_for_ever(tmp_path: Path) -> None:
    """A release of components holds for one listing too."""
    async with bench(tmp_path, {"terminals": 12}) as b:
        poller = await manager(b)
        await managed_poll(b, poller, TERMINALS)
        await managed_poll(b, poller, COMPONENTS)
        runtime = poller.calls[COMPONENTS]
        runtime.progress = msgspec.structs.replace(runtime.progress, values_held='{"main/UT":1}')
        assert await poller.release(COMPONENTS) == 1
        await managed_poll(b, poller, COMPONENTS)
        assert (runtime.progress.released, runtime.progress.is_holding()) == (False, False)


# --- initial and remapped -------------------------------------------------------------------------


async def test_initial_is_the_first_listing_of_each_call(tmp_path: Path) -> None:
    """Every record of a call's first complete listing is initial; one that is added later is not."""
    async with bench(tmp_path) as b:
        for call in RECORDS:
            await b.poll(call)
            assert {row.body["initial"] for row in await b.news() if row.what == "added"} == {True}
        (new,) = b.sim.fleet("add")["ids"]
        await b.poll(*RECORDS)
        added = [row for row in await b.news() if row.what == "added"]
        assert {row.entity for row in added} == {"terminal", "product"}
        assert new in [row.id for row in added]
        assert {row.body["initial"] for row in added} == {False}


def crash_after(b: Bench, slices: int) -> None:
    """Lets the bridge die at the commit that follows so many."""
    commit, left = b.store.commit, [slices]

    async def dying(batch: Batch, progress: CallProgress | None = None, ended: Sequence[int] = ()) -> int:
        if not left[0]:
            raise Crash
        left[0] -= 1
        return await commit(batch, progress, ended)

    b.store.commit = dying  # type: ignore[method-assign]  # the fault of this story


@pytest.mark.parametrize("slices", [0, 1, 2])
async def test_initial_holds_over_a_crash_between_slices(
    slices: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first listing that was stored in part is ended by the next one, as initial; nothing comes twice."""
    monkeypatch.setattr(SLICE, 3)
    async with fleet() as sim:
        async with opened(tmp_path, sim) as b:
            crash_after(b, slices)
            with pytest.raises(Crash):
                await b.poll(TERMINALS)
            before = [row.id for row in await b.news() if row.what == "added"]
        async with opened(tmp_path, sim) as b:
            await b.poll(TERMINALS)
            added = [row for row in await b.news() if row.what == "added"]
            assert len(before) == 3 * slices
            assert sorted(row.id for row in added) == sorted(b.ids("terminals"))
            assert {row.body["initial"] for row in added} == {True}
            sim.fleet("add")
            await b.poll(TERMINALS)
            assert [row.body["initial"] for row in await b.news() if row.what == "added"] == [False]


NICKNAMED = {"map": {"nickname": {"path": "name"}}}


async def test_remapped_marks_the_first_listing_after_a_change_of_mapping(tmp_path: Path) -> None:
    """A new field is read from records that did not change, as `remapped`; later changes are plain again."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS, "sites")
        await b.news()
        b.configure(polling={TERMINALS: NICKNAMED})
        await b.poll(TERMINALS, "sites")
        news = [row for row in await b.news() if row.what == "changed"]
        assert sorted(row.id for row in news) == sorted(b.ids("terminals"))
        assert all(row.body["remapped"] is True and set(row.body["changed"]) == {"nickname"} for row in news)
        b.sim.fleet("rename", id=news[0].id, name="Other")
        await b.poll(TERMINALS)
        (change,) = [row.body for row in await b.news() if row.what == "changed"]
        assert "remapped" not in change
        assert change["changed"]["nickname"]["to"] == "Other"


async def test_removal_by_the_first_listing_after_a_change_of_mapping_is_remapped(tmp_path: Path) -> None:
    """A record that this listing lacks may be gone because the configuration reads other ids; later ones are plain."""
    async with bench(tmp_path, removal={"after_missing": 1, "after_time": 0}) as b:
        await b.poll(TERMINALS)
        first, second = b.ids("terminals")[:2]
        await b.news()
        b.configure(polling={TERMINALS: NICKNAMED})
        for id, expected in ((first, True), (second, None)):
            b.sim.fleet("remove", id=id)
            await b.poll(TERMINALS)
            (removal,) = [row for row in await b.news() if row.what == "removed"]
            assert (removal.id, removal.body.get("remapped")) == (id, expected)


async def test_remapped_holds_over_a_crash_between_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the listing after a change of mapping is cut by a crash, the rest of it is `remapped` too."""
    monkeypatch.setattr(SLICE, 3)
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS)
        await b.news()
        b.configure(polling={TERMINALS: NICKNAMED})
        commit = b.store.commit
        crash_after(b, 1)
        with pytest.raises(Crash):
            await b.poll(TERMINALS)
        b.store.commit = commit  # type: ignore[method-assign]  # the end of the fault
        await b.poll(TERMINALS)
        news = [row for row in await b.news() if row.what == "changed"]
        assert sorted(row.id for row in news) == sorted(b.ids("terminals"))
        assert {row.body.get("remapped") for row in news} == {True}


async def test_corrected_path_takes_a_field_away(tmp_path: Path) -> None:
    """A field that is mapped no more goes with a change to null, and comes back when it is mapped again."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS)
        for fields, end in (({"name": None}, "to"), ({"name": {"path": "name"}}, "from")):
            await b.news()
            b.configure(polling={TERMINALS: {"map": fields}})
            await b.poll(TERMINALS)
            changes = [row.body["changed"]["name"] for row in await b.news() if row.what == "changed"]
            assert [change[end] for change in changes] == [None] * 8


# --- components, position, volatile fields --------------------------------------------------------


async def test_components_tell_changes_by_component(tmp_path: Path) -> None:
    """The first list is no event; a later version is a change of its component, with the terminal's record."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS)
        assert (await b.poll(COMPONENTS)).events == 0
        first = [row for row in await b.news() if row.what == "components"]
        assert len(first) == 8
        assert not [row for row in first if "changed" in row.body]
        id = first[0].id
        before = first[0].body["components"]["main/SSM"]
        b.sim.fleet("firmware", id=id, type="SSM", version="SSMv9")
        assert (await b.poll(COMPONENTS)).events == 1
        (row,) = await b.news()
        assert row.body["changed"] == {"components.main/SSM": {"from": before, "to": "SSMv9"}}
        assert row.body["record"] == await b.record("terminal", id)
        assert row.body["components"]["main/SSM"] == "SSMv9"


@pytest.mark.parametrize("unknown", [{"component": []}, {}, {"component": None}, {"component": {}}])
async def test_empty_component_list_means_not_known(unknown: dict[str, Any], tmp_path: Path) -> None:
    """A terminal whose list is empty, null or absent keeps those that were known; that none has any is told."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS, COMPONENTS)
        before = await b.holdings()
        await b.news()
        body = json.dumps([{"id": id, **unknown} for id in b.ids("terminals")])
        b.sim.fault("status", status=200, body=body, headers={"X-Total-Count": "8"}, count=1)
        outcome = await b.poll(COMPONENTS)
        assert ("answer_unexpected", "missing components") in {(a.kind, a.about) for a in outcome.alerts}
        assert not (await b.poll(COMPONENTS)).incomplete
        assert await b.news() == []
        assert await b.holdings() == before


async def test_position_is_told_beyond_the_threshold_from_what_was_announced(tmp_path: Path) -> None:
    """Small steps add up: not each is told, but the one that leaves 100 m around the last announced position."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS)
        id = b.ids("terminals")[0]
        before = await b.record("terminal", id)
        published = []
        await b.news()
        for _ in range(4):
            b.sim.fleet("move", id=id, metres=40.0)
            await b.poll(TERMINALS)
            published.append([sorted(row.body["changed"]) for row in await b.news() if row.what == "changed"])
        assert published == [[], [], [["latitude"]], []]
        assert (await b.record("terminal", id))["latitude"] == pytest.approx(
            before["latitude"] + 120 / 111_320, abs=1e-5
        )


async def test_volatile_fields_are_never_told(tmp_path: Path) -> None:
    """last_seen and last_update differ in every listing: no event, no row but presence, and that once an hour."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS, "products")
        seen = {row.id: row.body["last_seen"] for row in await b.news() if row.name == "presence"}
        assert len(seen) >= 7
        counts = []
        for _ in range(12):
            await b.later(10 * MINUTE)
            await b.poll(TERMINALS, "products")
            news = await b.news()
            assert {(row.what, row.name) for row in news} <= {("metric", "presence")}
            counts.append(len(news))
        assert [number for number, count in enumerate(counts, 1) if count] == [6, 12]


# --- usage ----------------------------------------------------------------------------------------


async def test_usage_does_not_go_back_with_clocks_that_are_all_behind(tmp_path: Path) -> None:
    """The effective date is not believed then: what is published keeps the time before, and goes on when it is."""
    async with bench(tmp_path, {"liveliness": 20.0}) as b:
        await b.poll(USAGE)
        times = {row.id: row.ts for row in await b.news() if row.what == "usage"}
        b.skew = -24.0 * HOUR
        b.sim.fault("date", seconds=-24 * HOUR, count=1000)
        for is_behind in (True, False):
            await b.later(6 * HOUR)
            if not is_behind:
                b.skew = 0.0
                b.sim.clear_faults()
                await b.later(6 * HOUR)
            await b.poll(USAGE)
            news = {row.id: row.ts for row in await b.news() if row.what == "usage"}
            assert news
            assert all((ts == times[id]) if is_behind else (ts > times[id]) for id, ts in news.items())


async def test_usage_is_told_when_a_value_differs(tmp_path: Path) -> None:
    """The same values at another effective date are no row; other values are one, and never an event."""
    async with bench(tmp_path) as b:
        await b.poll(USAGE)
        buckets = {row.name: row for row in await b.news()}
        assert buckets.keys() == {report["bucket"][0]["id"] for report in b.sim.truth("usage")}
        assert {row.what for row in buckets.values()} == {"usage"}
        frozen = b.sim.truth("usage")
        for report in frozen:
            id = report["bucket"][0]["id"]
            b.sim.fleet("set", id=id, attributes={"bucket": report["bucket"], "effectiveDate": "2025-06-17T15:00:00Z"})
        await b.later(HOUR)
        await b.poll(USAGE)
        assert await b.news() == []
        bucket = frozen[0]["bucket"][0]
        bucket["bucketBalance"][0]["remainingValueName"] = "another label"
        b.sim.fleet("set", id=bucket["id"], attributes={"bucket": [bucket]})
        assert (await b.poll(USAGE)).events == 0
        (row,) = await b.news()
        assert (row.what, row.name, row.body["remaining_label"]) == ("usage", bucket["id"], "another label")
        assert row.body["time"] == "2025-06-17T15:00:00.000Z"
        assert "cycle_started" not in row.body


async def test_new_bill_cycle_is_marked_once(tmp_path: Path) -> None:
    """The first row of a bucket in a new bill cycle says cycle_started, the ones after it do not."""
    async with bench(tmp_path) as b:
        await b.poll(USAGE)
        await b.news()
        await b.later(HOUR)
        b.sim.fault("cycle_rollover")
        for started in (True, None):
            await b.later(HOUR)
            await b.poll(USAGE)
            news = await b.news()
            assert len(news) == len(b.sim.truth("usage"))
            assert {row.body.get("cycle_started") for row in news} == {started}


async def test_bucket_that_moves_clears_its_old_topic(tmp_path: Path) -> None:
    """A bucket of another product is cleared below the old one before it is told below the new one."""
    async with bench(tmp_path) as b:
        await b.poll(USAGE)
        await b.news()
        bucket = b.sim.truth("usage")[0]["bucket"][0]
        old = bucket["product"][0]["id"]
        moved = json.loads(json.dumps(bucket).replace(old, "SC-410000000001"))
        b.sim.fleet("set", id=bucket["id"], attributes={"bucket": [moved]})
        await b.poll(USAGE)
        news = [(row.what, row.id) for row in await b.news() if row.name == bucket["id"]]
        assert news == [("clear", old), ("usage", "SC-410000000001")]


async def test_bucket_that_is_missing_is_cleared_without_event(tmp_path: Path) -> None:
    """Three complete listings without a bucket clear its topic, whatever the time; no event says so."""
    async with bench(tmp_path) as b:
        await b.poll(USAGE)
        bucket = b.sim.truth("usage")[0]["bucket"][0]
        b.sim.fleet("remove", id=bucket["id"])
        rows = []
        for _ in range(3):
            await b.news()
            assert (await b.poll(USAGE)).events == 0
            rows.append([(row.what, row.name) for row in await b.news()])
        assert rows == [[], [], [("clear", bucket["id"])]]


# --- samples --------------------------------------------------------------------------------------


def shown(ledger: Path) -> dict[tuple[str, str, int], list[Any]]:
    """What the API has shown of each measurement: its values, and each correction, in the order of the answers."""
    measurements: dict[tuple[str, str, int], list[Any]] = defaultdict(list)
    for line in ledger.read_text().splitlines():
        for item in json.loads(line)["items"]:
            for measurement in item.get("measurement", ()):
                indicators = [
                    (indicator["name"], indicator["value"]) for indicator in measurement["performanceIndicator"]
                ]
                values = {name: value for name, value in indicators if value is not None}
                versions = measurements[
                    item["report"], item["id"], round(parse_rfc3339(measurement["timestamp"]) * 1000)
                ]
                if values and (not versions or versions[-1] != values):
                    versions.append(values)
    return {key: versions for key, versions in measurements.items() if versions}


NAMES = {"linkAvailability": "link_availability", "signalQuality": "signal_quality", "resourceState": "resource_state"}


def told_samples(news: Iterable[JournalRow]) -> dict[tuple[str, str, int], list[tuple[str, bool, Any]]]:
    """What went out of each measurement, in its order: where to, whether corrected, and the values."""
    published: dict[tuple[str, str, int], list[tuple[str, bool, Any]]] = defaultdict(list)
    for row in news:
        if row.what in ("metric", "history") and row.name != "presence":
            body = dict(row.body)
            kept = {
                n: v
                for n, v in body.items()
                if n not in ("time", "ts", "imei", "product_id", "product_name", "report", "corrected")
            }
            published[row.name, row.id, row.ts].append((row.what, body.get("corrected", False), kept))
    return published


def check_exactly_once(news: list[JournalRow], ledger: Path) -> int:
    """Every measurement shown went out once for each of its versions; returns how many were corrected."""
    published = told_samples(news)
    wanted = {
        (NAMES.get(name, {"linkMetrics": "link_metrics"}.get(name, name)), id, ts): v
        for (name, id, ts), v in shown(ledger).items()
    }
    assert published.keys() == wanted.keys()
    corrections = 0
    for key, rows in published.items():
        versions = [rows[0][2]]
        for what, corrected, values in rows[1:]:
            assert corrected
            if values == versions[-1]:
                assert what == "metric", f"{key} went out twice: {rows}"
            else:
                versions.append(values)
        assert len(versions) == len(wanted[key]), f"{key}: {rows} of {wanted[key]}"
        corrections += len(versions) - 1
    newest: dict[tuple[str, str], int] = {}
    for row in news:
        if row.what == "metric" and row.name != "presence":
            assert row.ts >= newest.get((row.name, row.id), 0), "a metric went back in time"
            newest[row.name, row.id] = row.ts
    return corrections


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_samples_go_out_exactly_once_over_a_whole_story(seed: int, tmp_path: Path) -> None:
    """Late, corrected, repeated, out of order, counters reset: each version of each sample goes out once."""
    chance, ledger = random.Random(seed), tmp_path / "ledger.jsonl"
    options = {"terminals": 6, "seed": seed, "liveliness": 5.0, "lateness_scale": 0.3, "ledger": str(ledger)}
    async with bench(tmp_path, options, polling={"ut_link_metrics": {"enabled": True}}) as b:
        for _ in range(25):
            if chance.random() < 0.3:
                b.sim.fault(
                    "corrected", report=chance.choice(["traffic", "signalQuality", "resourceState", "throughput"])
                )
            if chance.random() < 0.1:
                b.sim.fault("counter_reset", id=chance.choice(b.ids("terminals")))
            await b.poll(*chance.sample(REPORTS, chance.randint(1, len(REPORTS))))
            await b.later(chance.choice([10, 60, 300, 900, 1800, 8 * HOUR]))
        assert check_exactly_once(await b.news(), ledger) > 5


async def test_samples_survive_a_crash_between_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash in the middle of a report loses nothing and repeats nothing."""
    monkeypatch.setattr(SLICE, 3)
    ledger = tmp_path / "ledger.jsonl"
    async with bench(tmp_path, {"ledger": str(ledger)}) as b:
        await b.poll(SIGNAL)
        for slices in (0, 1, 3):
            await b.later(HOUR)
            commit = b.store.commit
            crash_after(b, slices)
            with pytest.raises(Crash):
                await b.poll(SIGNAL)
            b.store.commit = commit  # type: ignore[method-assign]  # the end of the fault
        await b.poll(SIGNAL)
        check_exactly_once(await b.news(), ledger)


def asked_windows(b: Bench, path: str) -> list[tuple[float | None, float | None]]:
    """The windows that a report was asked for, in their order."""
    queries = [request["query"] for request in b.sim.requests()["last"] if request["path"].endswith(path)]
    return [
        tuple(parse_rfc3339(q[name]) if name in q else None for name in ("startDateTime", "endDateTime"))  # type: ignore[misc]
        for q in queries
        if q.get("offset", "0") == "0"
    ]


def measured(b: Bench, report: str, begin: float) -> set[tuple[str, int]]:
    """Every measurement since `begin` that the API can show by now."""
    now = b.sim.world.clock.now()
    collection = b.sim.world.performance(report, (begin, now))
    entries = collection.slice(0, len(collection.members(now)), now)
    return {(e["id"], round(parse_rfc3339(m["timestamp"]) * 1000)) for e in entries for m in e["measurement"]}


async def newest(b: Bench) -> float:
    """The time of the newest sample that is known of the report."""
    return float((await b.rows("SELECT max(ts) FROM newest WHERE report = 'signal_quality'"))[0][0]) / 1000


async def test_outage_is_made_up_for_in_bounded_steps(tmp_path: Path) -> None:
    """After 20 hours the missed window is asked for in steps of 6 h, oldest first; nothing is missing or twice."""
    async with bench(tmp_path) as b:
        await b.poll(SIGNAL)
        first = b.sim.world.clock.now()
        await b.later(20 * HOUR)
        b.sim.fault("status", status=500, path="signalQuality", after=2)
        begin = await newest(b) - 40 * MINUTE
        assert begin < first - 40 * MINUTE
        with pytest.raises(Exception, match="500"):
            await b.poll(SIGNAL)
        b.sim.clear_faults()
        await b.poll(SIGNAL)
        spans = asked_windows(b, "signalQuality")
        assert spans[:3] == [(None, None), (begin, begin + 6 * HOUR), (begin + 6 * HOUR, begin + 12 * HOUR)]
        # The failed step is asked for again, from what was stored; the steps before it are not.
        resumed = begin + 12 * HOUR - 40 * MINUTE
        assert spans[-2:] == [(resumed, resumed + 6 * HOUR), (resumed + 6 * HOUR, None)]
        published = [(row.id, row.ts) for row in await b.news()]
        assert len(published) == len(set(published))
        assert {sample for sample in published if sample[1] >= begin * 1000} == measured(b, "signalQuality", begin)
        times = [ts for _, ts in published[8:]]
        assert times == sorted(times)


async def test_outage_longer_than_the_api_remembers_begins_where_it_does(tmp_path: Path) -> None:
    """After a month only what the API keeps is asked for."""
    async with bench(tmp_path) as b:
        await b.poll(SIGNAL)
        await b.later(30 * 24 * HOUR)
        await b.poll(SIGNAL)
        spans = asked_windows(b, "signalQuality")
        assert len(spans) == 1 + 28
        assert spans[1][0] == pytest.approx(b.sim.world.clock.now() - 7 * 24 * HOUR, abs=30)


@pytest.mark.parametrize("skew", [-HOUR, 24 * HOUR, -400 * 24 * HOUR])
async def test_window_goes_by_the_clock_of_the_api(skew: float, tmp_path: Path) -> None:
    """However wrong the host's clock is, or becomes, the windows are those of the API's time and nothing is lost."""
    async with bench(tmp_path) as b:
        await b.poll(SIGNAL)
        first = b.sim.world.clock.now()
        begin = await newest(b) - 40 * MINUTE
        assert begin < first - 40 * MINUTE
        b.skew = skew
        await b.later(HOUR)
        outcome = await b.poll(SIGNAL)
        assert asked_windows(b, "signalQuality")[1:] == [(begin, None)]
        assert outcome.progress.window_end == b.sim.world.clock.now() * 1000
        published = {(row.id, row.ts) for row in await b.news()}
        assert published >= measured(b, "signalQuality", first - 40 * MINUTE)


async def test_wrong_clock_before_the_first_answer_skips_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the API's time is not known yet and the host's is days ahead, no window ends beyond the API's own."""
    async with bench(tmp_path) as b:
        await b.poll(SIGNAL)
        first = b.sim.world.clock.now()
        b.sim.advance(HOUR)
        monkeypatch.setattr(b.api, "now", lambda: round((first + 48 * HOUR) * 1000))
        b.skew = 47 * HOUR
        b.sim.fault("status", status=500, path="signalQuality", after=1)
        with pytest.raises(Exception, match="500"):
            await b.poll(SIGNAL)
        assert (await b.store.progress.load(SIGNAL)).window_end <= (first + HOUR) * 1000
        monkeypatch.undo()
        b.skew = 0
        b.sim.clear_faults()
        await b.later(HOUR)
        await b.poll(SIGNAL)
        published = {(row.id, row.ts) for row in await b.news()}
        assert published >= measured(b, "signalQuality", first - 40 * MINUTE)


# --- filters --------------------------------------------------------------------------------------


def parties(thing: dict[str, Any]) -> set[str]:
    """The organizations that an object names."""
    return {party["id"] for party in thing.get("relatedParty", [])}


def passes(rule: str, value: str, thing: dict[str, Any], owner: list[dict[str, Any]], place: Any) -> bool:
    """Whether a terminal or product passes a filter of one value."""
    if rule == "organizations":
        return value in parties(thing)
    return value in [terminal["id"] for terminal in (owner if rule == "imeis" else place)]


def passing(b: Bench, rule: str, value: str) -> tuple[set[str], set[str]]:
    """The terminals and the products that a filter lets pass, worked out from the truth."""
    terminals = [t for t in b.sim.truth("terminals") if passes(rule, value, t, [t], [t["place"]])]
    products = [p for p in b.sim.truth("products") if passes(rule, value, p, p["realizingResource"], p["place"])]
    return {t["id"] for t in terminals}, {p["id"] for p in products}


EVERYTHING = (*RECORDS, COMPONENTS, *REPORTS, USAGE)


@pytest.mark.parametrize("rule", ["imeis", "sites", "organizations"])
async def test_filter_holds_for_everything_that_is_published(rule: str, tmp_path: Path) -> None:
    """Records, components, samples and usage of what does not pass are never told, nor stored."""
    async with fleet(terminals=20) as sim:
        terminal = sim.truth("terminals")[3]
        value = {
            "imeis": terminal["id"],
            "sites": terminal["place"]["id"],
            "organizations": terminal["relatedParty"][-1]["id"],
        }[rule]
        async with opened(tmp_path, sim, filter={rule: [value]}) as b:
            await b.poll(*EVERYTHING)
            await b.later(2 * HOUR)
            await b.poll(*EVERYTHING)
            terminals, products = passing(b, rule, value)
            published = defaultdict(set)
            for row in await b.news():
                published[row.entity].add(row.id)
            assert published["terminal"] == terminals
            assert published["product"] == products
            assert published["site"] == ({value} if rule == "sites" else published["site"])
            assert not published["usage"]
            assert {row[0] for row in await b.rows("SELECT id FROM newest WHERE entity = 'terminal'")} == terminals
            assert {row[0] for row in await b.rows("SELECT id FROM newest WHERE entity = 'product'")} <= products


async def test_record_that_leaves_the_filter_is_removed(tmp_path: Path) -> None:
    """A terminal that moves to a site that is not published goes like one that is missing, though the API lists it."""
    async with fleet(terminals=20) as sim:
        moving = sim.truth("terminals")[3]
        async with opened(tmp_path, sim, filter={"sites": [moving["place"]["id"]]}) as b:
            await b.poll(TERMINALS)
            assert moving["id"] in [id for _, id in await b.events()]
            sim.fleet("set", id=moving["id"], attributes={"place": {"id": "SITE-elsewhere"}})
            await poll_until_removed(b, TERMINALS)
            assert await b.events() == [("removed", moving["id"])]
            sim.fleet("set", id=moving["id"], attributes={"place": moving["place"]})
            await b.poll(TERMINALS)
            assert await b.events() == [("added", moving["id"])]


async def test_filter_that_changes_takes_effect_on_records_that_did_not(tmp_path: Path) -> None:
    """A wider filter adds what was kept back; a narrower one removes what is not wanted any more."""
    async with bench(tmp_path) as b:
        first, second = b.ids("terminals")[:2]
        b.configure(filter={"imeis": [first]})
        await b.poll(TERMINALS)
        assert await b.events() == [("added", first)]
        b.configure(filter={"imeis": [first, second]})
        await b.poll(TERMINALS)
        assert await b.events() == [("added", second)]
        b.configure(filter={"imeis": [second]})
        await poll_until_removed(b, TERMINALS)
        assert await b.events() == [("removed", first)]


# --- odd ids --------------------------------------------------------------------------------------


async def test_ids_that_differ_by_case_alone_are_two(tmp_path: Path) -> None:
    """Each of them has its own record, changes, components and end."""
    async with bench(tmp_path) as b:
        for id in ("utX-1", "UTx-1"):
            b.sim.fleet("add", id=id)
        await b.poll(TERMINALS, COMPONENTS)
        assert {("added", "utX-1"), ("added", "UTx-1")} <= set(await b.events())
        b.sim.fleet("rename", id="utX-1", name="lower")
        await b.poll(TERMINALS)
        assert await b.events() == [("changed", "utX-1")]
        b.sim.fleet("remove", id="UTx-1")
        await poll_until_removed(b, TERMINALS)
        assert await b.events() == [("removed", "UTx-1")]
        assert await b.record("components", "utX-1")


@pytest.mark.parametrize("call", ["user_terminals", "ut_signal_quality"])
async def test_id_that_stands_twice_in_a_page_counts_once(call: str, tmp_path: Path) -> None:
    """The first of two records with one id counts, the other is set aside, and nothing is taken for missing."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS, SIGNAL)
        things = b.sim.truth("terminals") if call == TERMINALS else [{"id": id} for id in b.ids("terminals")]
        twice = json.dumps([{**things[0], "name": name} for name in ("First", "Second")] + things[2:])
        await b.news()
        for _ in range(4):
            b.sim.fault("status", status=200, body=twice, path="userTerminal", count=1, headers={"X-Total-Count": "8"})
            outcome = await b.poll(call)
            kinds = [alert.kind for alert in outcome.alerts]
            # Ids alone are no report, which is told as well.
            assert kinds == (["set_aside"] if call == TERMINALS else ["set_aside", "answer_unexpected"])
            await b.later(10 * MINUTE)
        if call == TERMINALS:
            assert await b.events() == [("changed", things[0]["id"])]
            assert (await b.record("terminal", things[0]["id"]))["name"] == "First"
        assert (await b.holdings())["missing"] == []


async def test_page_without_records_needs_no_stored_hashes(tmp_path: Path) -> None:
    """Where the API names no total, an empty page ends a listing whose other pages were recognised by their digest."""
    page = {"limit": 4, "total_header": ""}
    async with bench(tmp_path, polling={TERMINALS: {"page": page}}) as b:
        await b.poll(TERMINALS, TERMINALS)
        assert await b.events() == [("added", id) for id in sorted(b.ids("terminals"))]
        b.store.records.skippable_hashes = AsyncMock()  # type: ignore[method-assign]
        requests = b.sim.requests()["total"]
        assert (await b.poll(TERMINALS)).records == 8
        assert b.sim.requests()["total"] == requests + 3
        b.store.records.skippable_hashes.assert_not_called()
        assert await b.events() == []
        assert (await b.holdings())["missing"] == []


# --- relations ------------------------------------------------------------------------------------


async def related(b: Bench, *calls: str) -> dict[str, dict[str, Any]]:
    """Polls, works the relations out, and returns those that were told since."""
    await b.news()
    await b.poll(*calls)
    await b.runner.update_relations()
    return {row.id: row.body for row in await b.news() if row.name == "relations"}


def expected_relations(b: Bench, terminal: dict[str, Any]) -> dict[str, Any]:
    """The relations of a terminal, worked out from the truth."""
    sites = {site["id"]: site["name"] for site in b.sim.truth("sites")}
    names = {organization["id"]: organization["tradingName"] for organization in b.sim.truth("organizations")}
    products = [p["id"] for p in b.sim.truth("products") if terminal["id"] in [r["id"] for r in p["realizingResource"]]]
    partner, customer = (
        next(p["id"] for p in terminal["relatedParty"] if p["role"] == role)
        for role in ("Distribution Partner", "End Customer")
    )
    return {
        "imei": terminal["id"],
        "product_ids": sorted({*products, *(p["id"] for p in terminal.get("product", []))}),
        "site": {"id": terminal["place"]["id"], "name": sites[terminal["place"]["id"]]},
        "distribution_partner": {"id": partner, "name": names[partner]},
        "end_customer": {"id": customer, "name": names[customer]},
    }


@pytest.mark.parametrize("order", [RECORDS, RECORDS[::-1]])
async def test_relations_join_the_names_of_all_calls(order: tuple[str, ...], tmp_path: Path) -> None:
    """In whatever order the lists are polled, each terminal's relations have the ids and names that they show."""
    async with bench(tmp_path) as b:
        relations = await related(b, *order)
        assert relations == {t["id"]: expected_relations(b, t) for t in b.sim.truth("terminals")}
        assert await related(b, *order) == {}


@pytest.mark.parametrize("name", ["site", "distribution_partner", "end_customer"])
async def test_relations_follow_a_new_name(name: str, tmp_path: Path) -> None:
    """When a site or an organization is renamed, the relations of its terminals are told anew, and no others."""
    async with bench(tmp_path) as b:
        before = await related(b, *RECORDS)
        id = before[b.ids("terminals")[0]][name]["id"]
        b.sim.fleet("rename", id=id, name="A new name")
        after = await related(b, "sites", "organizations")
        assert after.keys() == {imei for imei, relation in before.items() if relation[name]["id"] == id}
        assert {relation[name]["name"] for relation in after.values()} == {"A new name"}


async def test_relations_follow_a_product_to_another_terminal(tmp_path: Path) -> None:
    """A product that moves leaves the relations of one terminal and joins those of the other."""
    async with bench(tmp_path) as b:
        before = await related(b, *RECORDS)
        old, new = b.ids("terminals")[:2]
        (product,) = before[old]["product_ids"]
        b.sim.fleet("set", id=product, attributes={"realizingResource": [{"id": new}]})
        b.sim.fleet("set", id=old, drop=["product"])
        after = await related(b, TERMINALS, "products")
        assert after.keys() == {old, new}
        assert after[old]["product_ids"] == []
        assert after[new]["product_ids"] == sorted([product, *before[new]["product_ids"]])


async def test_dangling_links_are_shown_as_far_as_known(tmp_path: Path) -> None:
    """A site that no list shows has its id alone; the product of a terminal that is not listed yet waits for it."""
    async with bench(tmp_path) as b:
        first = b.sim.truth("terminals")[0]
        b.sim.fleet("set", id=first["id"], attributes={"place": {"id": "SITE-none"}, "relatedParty": []})
        product = b.sim.truth("products")[0]
        b.sim.fleet(
            "set", id=product["id"], attributes={"realizingResource": [{"id": "a stranger"}], "relatedParty": []}
        )
        relations = await related(b, *RECORDS)
        assert relations.keys() == set(b.ids("terminals"))
        assert relations[first["id"]]["site"] == {"id": "SITE-none"}
        assert "distribution_partner" not in relations[first["id"]]
        b.sim.fleet("add", id="a stranger")
        after = await related(b, TERMINALS)
        assert product["id"] in after["a stranger"]["product_ids"]


async def test_relations_go_with_their_terminal(tmp_path: Path) -> None:
    """A removed terminal's relations are cleared with its other topics, and not worked out again."""
    async with bench(tmp_path) as b:
        await b.poll(SIGNAL, COMPONENTS)
        await related(b, *RECORDS)
        id = b.ids("terminals")[0]
        b.sim.fleet("remove", id=id)
        await poll_until_removed(b, TERMINALS)
        (event,) = [row for row in await b.news() if row.what == "removed"]
        assert {"state", "components", "relations", "metric/presence", "metric/signal_quality"} == set(
            event.body["clears"]
        )
        b.sim.fleet("rename", id=b.ids("sites")[0], name="A new name")
        assert id not in await related(b, "sites", "products", COMPONENTS)
        assert await b.rows("SELECT kind FROM record WHERE id = ?", id) == []


async def test_sample_of_a_removed_terminal_goes_to_history_alone(tmp_path: Path) -> None:
    """What comes late for a terminal that is gone does not bring its topic back."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS, SIGNAL)
        id = b.ids("terminals")[0]
        b.sim.fleet("remove", id=id)
        await poll_until_removed(b, TERMINALS)
        b.sim.fleet("restore", id=id)
        await b.news()
        await b.poll(SIGNAL)
        late = [row for row in await b.news() if row.id == id]
        assert {row.what for row in late} == {"history"}
        sql = "SELECT ts, doc, seq, letters FROM newest WHERE id = ? AND report = 'signal_quality'"
        assert await b.rows(sql, id) == [(max(row.body["ts"] for row in late), "", 0, "")]


@pytest.mark.parametrize("call", [SIGNAL, COMPONENTS])
async def test_poll_during_a_removal_brings_no_topic_back(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that is removed while another call's answer is compared keeps no retained topic."""
    async with bench(tmp_path) as b:
        await b.poll(TERMINALS)
        id = b.ids("terminals")[0]
        b.sim.fleet("remove", id=id)
        await poll_until_removed(b, TERMINALS, 2)
        b.sim.fleet("restore", id=id)
        existing_ids, decide = b.store.records.existing_ids, MissingRecords.decide
        at_removal, polls = asyncio.Event(), list[asyncio.Task[PollOutcome]]()

        async def removing(*args: Any) -> None:
            at_removal.set()
            await decide(*args)

        async def existing_ids_then_removal(table: Any, kind: RecordKind, ids: Sequence[str]) -> set[str]:
            existing = await existing_ids(table, kind, ids)
            if table == "removed" and id in ids and not polls:
                b.sim.fleet("remove", id=id)
                polls.append(asyncio.create_task(b.poll(TERMINALS)))
                await at_removal.wait()
                # As many round trips to the database as a removal that does not wait needs, and more.
                for _ in range(50):
                    await b.rows("SELECT 1")
            return existing

        monkeypatch.setattr(MissingRecords, "decide", removing)
        monkeypatch.setattr(b.store.records, "existing_ids", existing_ids_then_removal)
        await b.poll(call)
        await asyncio.gather(*polls)
        last = [row.what for row in await b.news() if row.id == id][-1]
        assert last == "removed"
        assert await b.rows("SELECT report FROM newest WHERE id = ? AND seq > 0", id) == []
        assert await b.rows("SELECT kind FROM record WHERE id = ?", id) == []


# --- reports that stop ----------------------------------------------------------------------------

PATIENCE = StopThreshold(lateness=20, interval=10)


def terminals_at(**newest: int) -> list[OnlineTerminal]:
    return [OnlineTerminal(id, ts, ts - 10) for id, ts in newest.items()]


@pytest.mark.parametrize(
    ("newest", "expected"),
    [
        ({"a": 100, "b": 100, "c": 100}, []),
        ({"a": 99, "b": 100, "c": 100}, ["a"]),
        ({"a": 99, "b": 99, "c": 100, "d": 100}, ["a", "b"]),
        ({"a": 99, "b": 99, "c": 100}, ["a", "b"]),
        ({"a": 99, "b": 99, "c": 99, "d": 100}, []),
        ({"a": 99, "b": 99}, []),
        ({"a": 99}, []),
        ({}, []),
    ],
)
def test_report_has_stopped_where_that_of_half_the_others_goes_on(newest: dict[str, int], expected: list[str]) -> None:
    """A newest sample older than allowed tells, unless most others have none either: then the API is late for all."""
    assert find_stopped(terminals_at(**newest), {}, 100) == expected


def test_stopped_report_is_noticed_once_until_it_goes_on() -> None:
    """The first notice names the terminal, the next are silent; going offline does not arm it again, a sample does."""
    attention, silent = StoppedReports(), []
    for now, a in ((170, 99), (180, 99), (190, None), (300, 99), (400, 390), (500, 390)):
        others = {"b": now - 50, "c": now - 50, **({} if a is None else {"a": a})}
        silent.append(newly_stopped(attention, terminals_at(**others), PATIENCE, now))
    assert silent == [["a"], [], [], [], [], ["a"]]


def test_terminal_that_comes_online_is_given_time() -> None:
    """Whose newest sample is old because it was offline is not told of before it had the same time online."""
    attention = StoppedReports()
    newly_stopped(attention, terminals_at(b=950, c=950), PATIENCE, 1000)
    published = [
        newly_stopped(attention, terminals_at(a=10, b=now - 50, c=now - 50), PATIENCE, now)
        for now in (1010, 1070, 1080)
    ]
    assert published == [[], [], ["a"]]


def test_report_with_long_steps_is_given_as_many_of_them() -> None:
    """An hourly report that is polled every 10 min is not late because it is hourly."""
    hourly = [OnlineTerminal("a", 0, -60), OnlineTerminal("b", 120, 60), OnlineTerminal("c", 120, 60)]
    assert PATIENCE.max_age(hourly) == 320
    assert PATIENCE.max_age([OnlineTerminal("a", 5), OnlineTerminal("b", 5)]) == 70
    assert PATIENCE.max_age([]) == 70


def test_three_late_samples_in_a_row_are_no_report_that_stopped() -> None:
    """Of ten thousand terminals one has them every day; five steps without a sample are told."""
    reports, polled, alerted = StoppedReports(), 960, []
    newly_stopped(reports, terminals_at(a=960, b=960, c=960), PATIENCE, 1000)
    for now in range(1010, 1050, 10):
        alerted += newly_stopped(reports, terminals_at(a=960, b=now - 20, c=now - 20), PATIENCE, now, polled)
        polled = now
        assert alerted == (["a"] if now == 1040 else [])


async def silence(b: Bench, *imeis: str) -> None:
    """From now on there are no samples of these, though the inventory says online."""
    for imei in imeis:
        b.sim.fleet("set_state", id=imei, state="offline")
        b.sim.fleet("set", id=imei, attributes={"resourceState": "online"})


async def alerts(b: Bench, polls: int, minutes: float = 10) -> list[str]:
    """The alerts of so many polls of the report."""
    messages = []
    for _ in range(polls):
        await b.later(minutes * MINUTE)
        messages += [
            alert.message for alert in (await b.poll(TERMINALS, SIGNAL)).alerts if alert.kind == "report_stopped"
        ]
    return messages


async def test_report_that_has_stopped_for_some_terminals_is_alerted_once(tmp_path: Path) -> None:
    """An alert says the report, how many terminals and three of them, once; when it goes on it is armed again."""
    async with bench(tmp_path, {"terminals": 12}) as b:
        assert await alerts(b, 3) == []
        silent = sorted(b.ids("terminals")[:4])
        for _ in range(2):
            await silence(b, *silent)
            assert await alerts(b, 6) == []
            (message,) = await alerts(b, 6)
            assert message.startswith("the report signal_quality has stopped for 4 terminals that are online")
            assert message.endswith(": " + ", ".join(silent[:3]) + ", …")
            for imei in silent:
                b.sim.fleet("set_state", id=imei, state="online")
            assert await alerts(b, 8) == []


@pytest.mark.parametrize("case", ["offline", "all", "never", "product"])
async def test_report_that_has_a_reason_to_be_silent_is_not_alerted(case: str, tmp_path: Path) -> None:
    """Terminals that are offline, that never had a sample, or an API that is late for all, are no alert."""
    async with bench(tmp_path) as b:
        imeis = b.ids("terminals")
        assert await alerts(b, 2) == []
        if case == "never":
            await silence(b, *b.sim.fleet("add")["ids"])
        if case == "all":
            await silence(b, *imeis)
        if case == "offline":
            b.sim.fleet("set_state", id=imeis[0], state="offline")
        if case == "product":
            await b.poll("product_throughput")
        assert await alerts(b, 4, 60) == []
