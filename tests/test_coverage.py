"""What a poll should have found: counted, told once, and over once; healthy fleets tell nothing."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from oneweb_bridge.decode import coverage
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.decode.coverage import AnswerCounts, CallHistory, Expected, RecordNotes
from oneweb_bridge.decode.expectations import EXPECTATIONS, RANGES, TIME
from oneweb_bridge.model.status import Coverage
from tests.polls import Bench, bench, fleet, opened
from tests.test_decode import POLLING
from tests.test_poll_runner import managed_poll, manager

TERMINALS, SIGNAL, THROUGHPUT = "user_terminals", "ut_signal_quality", "product_throughput"


def judgement_of(call: str, records: list[dict[str, Any]], history: CallHistory | None = None) -> coverage.Judgement:
    """What follows from records or samples of a call."""
    expected, counts = Expected.of(POLLING[call]), AnswerCounts()
    if POLLING[call].reads == "report":
        for values in records:
            coverage.count_sample(counts, expected, values, timed=True)
    else:
        notes = RecordNotes()
        for number, fields in enumerate(records):
            notes.note(str(number), coverage.note_of(expected, fields))
            coverage.count_values(counts, expected, fields)
        counts.records = len(records)
        notes.count(counts, {str(number) for number in range(len(records))})
    judgement = coverage.judge_answer(expected, counts, history)
    assert judgement is not None
    return judgement


WHOLE = {"rsrp_dbm": -90.0, "rssi_dbm": -60.0, "sinr_db": 10.0}


def test_every_call_and_field_of_the_tables_exists() -> None:
    """A renamed field must not leave an expectation behind that nothing can meet."""
    assert EXPECTATIONS.keys() == CALLS.keys()
    names = {field.name for call in CALLS.values() for field in call.fields}
    assert RANGES.keys() <= names
    for call, expectation in EXPECTATIONS.items():
        expected = Expected.of(CALLS[call])
        assert [len(group) for group in expected.each] == [len(group) for group in expectation.fields()]


def test_a_field_that_no_sample_has_is_missing() -> None:
    judgement = judgement_of(SIGNAL, [{"rsrp_dbm": -90.0, "rssi_dbm": -60.0}] * 3)
    assert judgement.coverage == coverage.FieldCoverage(4, 3, ("sinr_db",))
    (finding,) = judgement.findings
    assert (finding.kind, finding.about, finding.incomplete) == ("missing", "sinr_db", True)
    assert "polling.ut_signal_quality.map" in finding.message


def test_a_field_that_is_not_mapped_is_not_expected() -> None:
    """Who knows that this API has no SINR says so with `sinr_db: null`, and the call is complete."""
    call = POLLING[SIGNAL]
    fields = tuple(field for field in call.fields if field.name != "sinr_db")
    assert Expected.of(replace(call, fields=fields)).each == ((TIME,), ("rsrp_dbm",), ("rssi_dbm",))


def test_one_of_the_classes_of_throughput_is_enough() -> None:
    assert judgement_of(THROUGHPUT, [{"be_uplink_bps": 5}]).findings == ()
    assert judgement_of(THROUGHPUT, [{"other_bps": 5}]).coverage.missing == ("be_downlink_bps",)


def test_few_samples_do_not_take_back_what_was_found() -> None:
    """A late sample without a value is no news of the report, five in a row are."""
    history = CallHistory()
    judgement_of(SIGNAL, [WHOLE] * 5, history)
    late = {"rsrp_dbm": -90.0, "rssi_dbm": -60.0}
    assert [judgement_of(SIGNAL, [late] * 2, history).coverage.missing for _ in range(3)] == [(), (), ("sinr_db",)]


def test_half_of_the_records_without_a_position_are_told() -> None:
    whole = {name: "x" for group in EXPECTATIONS[TERMINALS].fields() for name in group}
    half = {name: value for name, value in whole.items() if name not in ("latitude", "longitude")}
    judgement = judgement_of(TERMINALS, [whole, half] * 5)
    assert judgement.coverage.missing == ()
    assert {(f.kind, f.about, f.incomplete) for f in judgement.findings} == {
        ("partial", "latitude", False),
        ("partial", "longitude", False),
    }
    assert judgement_of(TERMINALS, [whole] * 9 + [half]).findings == ()


@pytest.mark.parametrize(
    ("call", "name", "value"),
    [
        (SIGNAL, "rsrp_dbm", 90.0),
        (SIGNAL, "sinr_db", 1020.0),
        ("ut_link_availability", "link_availability_pct", 130.0),
        ("ut_traffic", "wan_tx_bytes", -5),
    ],
)
def test_values_that_cannot_be_are_told(call: str, name: str, value: float) -> None:
    """A few are noise, many are another unit or another field."""
    good = {group[0]: 1.0 for group in EXPECTATIONS[call].fields()} | (WHOLE if call == SIGNAL else {})
    assert judgement_of(call, [good] * 25 + [{**good, name: value}] * 3).findings == ()
    (finding,) = judgement_of(call, [{**good, name: value}] * 4 + [good] * 25).findings
    assert (finding.kind, finding.about) == ("implausible", name)
    assert f"{value:g}" in finding.message


def test_percentages_that_are_shares_are_reported() -> None:
    """An availability of less than one percent everywhere is another unit; of some terminals it may be."""
    shares = [{"link_availability_pct": value} for value in (0.99, 1.0, 0.9, 0.0, 0.97, 0.4)]
    (finding,) = judgement_of("ut_link_availability", shares).findings
    assert "set polling.ut_link_availability.map.link_availability_pct: {unit: ratio}" in finding.message
    assert judgement_of("ut_link_availability", [*shares, *[{"link_availability_pct": 99.0}] * 2]).findings == ()


def test_a_rate_is_compared_with_what_the_product_allows() -> None:
    expected = Expected.of(POLLING[THROUGHPUT])
    limits = {"max_bandwidth_downlink_mbps": 40.0}
    assert not coverage.note_of(expected, {"be_downlink_bps": 399_000_000}, limits).implausible
    assert coverage.note_of(expected, {"be_downlink_bps": 401_000_000}, limits).implausible


def test_values_that_are_suddenly_a_thousand_times_greater_are_told() -> None:
    """What was bytes and is kilobytes now is still plausible, but not beside the poll before."""
    history = CallHistory()
    whole = {group[0]: 5_000_000 + n for n, group in enumerate(EXPECTATIONS["ut_traffic"].fields())}
    assert judgement_of("ut_traffic", [whole] * 6, history).findings == ()
    small = {name: value // 1000 for name, value in whole.items()}
    findings = judgement_of("ut_traffic", [small] * 6, history).findings
    assert {finding.kind for finding in findings} == {"sudden"}
    assert judgement_of("ut_traffic", [whole] * 6, history).findings == ()


# ── in a poll ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(name="fleet_of_25")
async def _fleet_of_25(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path, {"terminals": 25}) as opened:
        yield opened


async def test_a_poll_of_each_call_of_a_healthy_fleet_finds_all(fleet_of_25: Bench) -> None:
    """Everything that is expected is there, and nothing is told; also when nothing is decoded again."""
    for _ in range(2):
        for call in CALLS:
            outcome = await fleet_of_25.poll(call)
            assert [alert.message for alert in outcome.alerts] == []
            assert outcome.coverage is not None
            assert (call, outcome.coverage.missing) == (call, ())
        await fleet_of_25.later(600)


async def spoil(b: Bench, call: str, change: Callable[[Any], Any]) -> None:
    """Lets the API answer a call as it does now, but changed."""
    row = CALLS[call]
    body = change(json.loads((await b.api.get(row.path, {"limit": "1000", **row.query})).body))
    headers = {"X-Total-Count": str(len(body))} if isinstance(body, list) else {}
    b.sim.clear_faults()
    b.sim.fault("status", status=200, body=json.dumps(body), path=row.path, headers=headers)


def renamed(before: str, after: str) -> Callable[[Any], Any]:
    return lambda body: json.loads(json.dumps(body).replace(f'"{before}"', f'"{after}"'))


@pytest.mark.parametrize(
    ("call", "change", "missing"),
    [
        (TERMINALS, renamed("resourceState", "operationalStatus"), ("state",)),
        ("products", renamed("maxBandwidthUplink", "up"), ("max_bandwidth_uplink_mbps",)),
        (SIGNAL, renamed("timestamp", "measured"), ("time",)),
    ],
)
async def test_an_answer_without_what_the_call_is_for_is_incomplete(
    call: str, change: Callable[[Any], Any], missing: tuple[str, ...], fleet_of_25: Bench
) -> None:
    """What is sure is published; the sentence names the field, and the members that nobody reads."""
    await spoil(fleet_of_25, call, change)
    outcome = await fleet_of_25.poll(call)
    assert outcome.coverage is not None
    assert outcome.coverage.missing == missing
    assert outcome.records > 0
    assert missing[0] in outcome.incomplete
    assert [alert.kind for alert in outcome.alerts] == ["answer_unexpected"]


async def test_rows_that_nobody_understands_are_incomplete(fleet_of_25: Bench) -> None:
    """A report that changed its form is not an ok poll with 0 samples."""
    await spoil(fleet_of_25, SIGNAL, renamed("value", "reading"))
    outcome = await fleet_of_25.poll(SIGNAL)
    assert (outcome.samples, outcome.coverage and outcome.coverage.seen) == (0, 0)
    assert "rows of the answer gave no sample" in outcome.incomplete


async def test_a_finding_is_told_once_and_once_when_it_is_over(fleet_of_25: Bench) -> None:
    b = fleet_of_25
    poller = await manager(b)
    await managed_poll(b, poller, TERMINALS)
    state = poller.state(poller.calls[TERMINALS])
    assert (state.status, state.error, state.coverage) == ("ok", None, Coverage(11, 11, []))
    await spoil(b, TERMINALS, renamed("lastSeenDate", "seen"))
    for expected in ([("answer_unexpected", "last_seen"), ("shape_changed", "seen")], []):
        alerts = [row.body for row in await managed_poll(b, poller, TERMINALS) if row.what == "alert"]
        assert [alert["kind"] for alert in alerts if alert["kind"] != "shape_changed"] == [k for k, _ in expected[:1]]
        state = poller.state(poller.calls[TERMINALS])
        assert (state.status, state.coverage) == ("incomplete", Coverage(11, 10, ["last_seen"]))
        assert "last_seen" in (state.error or "")
    b.sim.clear_faults()
    (over,) = (row.body for row in await managed_poll(b, poller, TERMINALS) if row.what == "alert")
    assert over["message"].startswith("as expected again; it was: none of 25 records has the field last_seen")
    assert poller.state(poller.calls[TERMINALS]).status == "ok"


async def test_what_was_not_decoded_since_a_restart_counts_as_it_is_stored(tmp_path: Path) -> None:
    """After a restart records are skipped by their hashes; a field that none of them has is still missing."""
    async with fleet(terminals=8) as simulator:
        async with opened(tmp_path, simulator) as b:
            await spoil(b, "sites", renamed("name", "label"))
            assert (await b.poll("sites")).incomplete
        async with opened(tmp_path, simulator) as b:
            outcome = await b.poll("sites")
            assert outcome.coverage is not None
            assert outcome.coverage.missing == ("name",)


async def test_a_finding_that_still_holds_after_a_restart_is_no_new_alert(tmp_path: Path) -> None:
    """It was told before; when it is over, that is told by the bridge that runs then."""
    kinds: list[list[str]] = []
    async with fleet(terminals=8) as simulator:
        for is_good in (False, False, True, True):
            async with opened(tmp_path, simulator) as b:
                if is_good:
                    simulator.clear_faults()
                elif not kinds:
                    await spoil(b, "sites", renamed("name", "label"))
                await b.news()
                rows = await managed_poll(b, await manager(b), "sites")
                kinds.append([row.body["message"][:20] for row in rows if row.what == "alert"])
    assert [len(messages) for messages in kinds] == [1, 0, 1, 0]
    assert kinds[2] == ["as expected again; i"]
