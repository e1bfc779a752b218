"""Times without an offset in the hour that comes twice: each sample is one, and what cannot be told is said."""

import json
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import stamina
from hypothesis import example, given
from hypothesis import strategies as st

from oneweb_bridge.decode.repeated_hour import Known, Readings, resolve_times
from oneweb_bridge.decode.values import parse_time
from oneweb_bridge.simulator.clock import parse_rfc3339
from tests.polls import Bench, bench

SIGNAL = "ut_signal_quality"
BERLIN = ZoneInfo("Europe/Berlin")
MINUTE, HOUR = 60_000, 3_600_000
CHANGE = round(parse_rfc3339("2025-10-26T01:00:00Z") * 1000)
"""When 03:00 becomes 02:00 in Berlin: the hours before and after it have the same names."""


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


def local(ts: int) -> str:
    """What a clock in Berlin shows, without its offset."""
    return datetime.fromtimestamp(ts / 1000, UTC).astimezone(BERLIN).strftime("%Y-%m-%dT%H:%M:%S")


def readings(moments: Sequence[int]) -> list[tuple[int, int]]:
    """Both readings of what the clock shows at these moments."""
    return [(parse_time(local(ts), BERLIN) or 0, parse_time(local(ts), BERLIN, fold=1) or 0) for ts in moments]


def minutes(*offsets: int) -> list[int]:
    """Moments so many minutes from the change."""
    return [CHANGE + offset * MINUTE for offset in offsets]


def test_hour_that_comes_twice_has_two_readings() -> None:
    """Only times of that hour have two; in spring, where an hour is missing, the later one is no choice."""
    before, first, second, after = readings(minutes(-70, -50, 10, 70))
    assert before[0] == before[1]
    assert first == second == (CHANGE - 50 * MINUTE, CHANGE + 10 * MINUTE)
    assert after[0] == after[1]
    missing = parse_time("2025-03-30T02:30:00", BERLIN), parse_time("2025-03-30T02:30:00", BERLIN, fold=1)
    assert resolve_times([(missing[0] or 0, missing[1] or 0)], Known()) == ([missing[0]], 0)


@pytest.mark.parametrize("order", [1, -1])
def test_rows_that_run_through_both_hours_decide_it(order: int) -> None:
    """Rising or falling, the rows tell where the second hour begins."""
    moments = minutes(-80, -50, -30, -10, 10, 30, 50, 70)[::order]
    assert resolve_times(readings(moments), Known()) == (moments, 0)


def test_rows_of_one_indicator_after_the_other_decide_it_too() -> None:
    """Where the rows begin again, the hours do."""
    moments = minutes(-80, -50, -10, 10, 50, 70) * 2
    assert resolve_times(readings(moments), Known()) == (moments, 0)


def test_moment_that_has_not_come_yet_is_not_meant() -> None:
    """In the first of the two hours the second lies ahead."""
    moments = minutes(-50, -30)
    assert resolve_times(readings(moments), Known(latest=CHANGE - 20 * MINUTE)) == (moments, 0)


def test_moment_before_the_window_is_not_meant() -> None:
    """What was asked for begins in the second hour."""
    moments = minutes(10, 30, 50)
    assert resolve_times(readings(moments), Known(begin=CHANGE)) == (moments, 0)


@pytest.mark.parametrize("newest", [-10, 10, 30])
def test_newest_sample_decides_it(newest: int) -> None:
    """An API that shows the newest sample alone shows none that is older than the one known."""
    (known,) = minutes(newest)
    moments = minutes(40)
    assert resolve_times(readings(moments), Known(newest=known)) == (moments, 0)


def test_what_was_shown_before_is_shown_again() -> None:
    """Of two readings that both may be, the one that is known is meant."""
    moments = minutes(-80, -50, -30, -10, 70)
    assert resolve_times(readings(moments), Known(newest=moments[-1], seen=set(moments))) == (moments, 0)
    moments = minutes(-80, 10, 30, 50, 70)
    assert resolve_times(readings(moments), Known(newest=moments[-1], seen=set(moments))) == (moments, 0)


def test_what_nothing_decides_is_the_first_and_not_sure() -> None:
    """Rows of one of the two hours alone, of which nothing is known, may be of either."""
    moments = minutes(-80, -50, -30, 70)
    assert resolve_times(readings(moments), Known()) == (moments, 2)


@given(
    st.lists(st.integers(-180, 180), min_size=1, max_size=40, unique=True),
    st.sampled_from((1, -1)),
    st.booleans(),
)
def test_resolved_times_are_readings_and_sure_ones_are_right(offsets: list[int], order: int, complete: bool) -> None:
    """Whatever rows there are, each gets one of its readings; rows every ten minutes through both hours are right."""
    moments = minutes(*(range(-180, 181, 10) if complete else sorted(offsets)))[::order]
    both = readings(moments)
    resolved, unsure = resolve_times(both, Known())
    assert all(ts in pair for ts, pair in zip(resolved, both, strict=True))
    if complete:
        assert (resolved, unsure) == (moments, 0)


def resolve_each_border(run: Sequence[Readings], known: Known) -> tuple[list[int], int]:
    """What `resolve_times` promises of rising rows, by looking at every border as a whole."""
    doubtful = [at for at, (first, second) in enumerate(run) if first != second]
    choices = [[pair[at >= border] for at, pair in enumerate(run)] for border in (*doubtful, len(run))]
    left = [choice for choice in choices if choice == sorted(choice)]

    def lacking(choice: list[int]) -> int:
        return len({ts for ts in known.seen if min(choice) <= ts <= max(choice)} - set(choice))

    for score in (
        lambda choice: sum(ts >= known.begin for ts in choice),
        lambda choice: int(max(choice) >= known.newest),
        lambda choice: -lacking(choice),
        lambda choice: sum(ts in known.seen for ts in choice),
    ):
        scores: list[int] = [score(choice) for choice in left]
        left = [choice for choice, own in zip(left, scores, strict=True) if own == max(scores)]
    alternatives = left or choices
    chosen = alternatives[-1]
    doubtful = [at for at in doubtful if not all(ts in known.seen for ts in run[at])]
    return chosen, sum(any(choice[at] != chosen[at] for choice in alternatives) for at in doubtful)


HOURS = st.integers(0, 12)
"""Small moments, in which the two readings of a time are four apart."""


@given(
    st.lists(st.tuples(HOURS, st.booleans()), min_size=1, max_size=12),
    st.frozensets(HOURS, max_size=10),
    HOURS,
    HOURS,
)
@example([(8, False), (10, False), (11, True), (11, False)], frozenset({1, 3, 6, 10, 11}), 3, 8)
def test_counting_once_decides_as_looking_at_every_border(
    rows: list[tuple[int, bool]], seen: frozenset[int], begin: int, newest: int
) -> None:
    """Rising rows, some with an offset, also several of one time, with anything known of the id."""
    run = [
        (ts, ts) if has_offset else (ts - 4, ts)
        for ts, has_offset in sorted(rows, key=lambda row: (row[0], not row[1]))
    ]
    known = Known(begin=begin, newest=newest, seen=seen)
    pairs = list(pairwise(first for first, _ in run))
    is_rising = sum(before > after for before, after in pairs) <= sum(before < after for before, after in pairs)
    if is_rising and any(first != second for first, second in run):
        assert resolve_times(run, known) == resolve_each_border(run, known)


def test_any_number_of_rows_in_that_hour_takes_memory_in_proportion() -> None:
    """A hundred thousand rows of one terminal, all at one time that may mean two moments."""
    both = readings(minutes(-30)) * 100_000
    tracemalloc.start()
    try:
        assert resolve_times(both, Known()) == ([both[0][0]] * 100_000, 100_000)
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


# --- whole polls ----------------------------------------------------------------------------------


async def shown(b: Bench, moments: Sequence[int]) -> Any:
    """Polls the report while the API shows these samples in local time, whatever is asked for."""
    # Values differ from those an hour later, and are such that nothing else is told.
    beside = [{"name": "rsrp", "value": -90}, {"name": "rssi", "value": -80}]
    rows = [
        {"timestamp": local(ts), "performanceIndicator": [*beside, {"name": "sinr", "value": ts // MINUTE % 50}]}
        for ts in moments
    ]
    b.sim.fault("status", status=200, body=json.dumps([{"id": "a", "measurement": rows}]), path="signalQuality")
    try:
        return await b.poll(SIGNAL)
    finally:
        b.sim.clear_faults()


def berlin(tmp_path: Path, start: timedelta) -> Any:
    """A bridge whose API writes local times of Berlin, at some time from the change."""
    begin = datetime.fromtimestamp(CHANGE / 1000, UTC) + start
    return bench(tmp_path, {"start": begin.strftime("%Y-%m-%dT%H:%M:%SZ")}, mapping={"timezone": "Europe/Berlin"})


@pytest.mark.parametrize("shows", [1, 4, 12])
async def test_each_sample_of_a_night_goes_out_once(shows: int, tmp_path: Path) -> None:
    """Polled every ten minutes, seven samples of the two hours are seven, and none is `corrected`."""
    async with berlin(tmp_path, timedelta(hours=-2)) as b:
        expected = []
        for at in range(-120, 121, 10):
            if at % 20 == 0:
                expected.append(CHANGE + at * MINUTE)
            outcome = await shown(b, expected[-shows:])
            assert outcome.alerts == []
            await b.later(600)
        rows = [row for row in await b.news() if row.name == "signal_quality"]
        assert sorted(row.ts for row in rows) == expected
        assert not any("corrected" in row.body for row in rows)


async def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    """Samples of one of the two hours, first heard of the day after, are told."""
    async with berlin(tmp_path, timedelta(hours=20)) as b:
        outcome = await shown(b, minutes(10, 30))
        assert [alert.kind for alert in outcome.alerts] == ["time_ambiguous"]
        assert outcome.alerts[0].message.startswith("2 times without an offset")
