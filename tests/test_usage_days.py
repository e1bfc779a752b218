"""Reports of use become amounts per UTC day: full days, cycles, gaps, and when a limit was reached."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.trends.forecast import DAY_MS, MAX_DAYS
from oneweb_bridge.trends.usage_days import UsageDays, UsageReport, add_report

HOUR = 3_600_000
DAY = 20_423
BEGIN = DAY * DAY_MS


def after(reports: Iterable[tuple[float, float]], **common: Any) -> UsageDays:
    """What is kept of reports: hours since the begin of the day, and the use."""
    days = UsageDays()
    for hours, used in reports:
        days = add_report(days, UsageReport(BEGIN + round(hours * HOUR), used, **common))
    return days


def test_full_days_lie_between_reports() -> None:
    """The first and the last day are not full; the use at midnight is interpolated."""
    days = after([(18, 5.0), (30, 17.0), (54, 41.0), (60, 44.0)], cycle="a")

    # At 24 h 11 GB, at 48 h 35 GB.
    assert days.days == ((DAY + 1, 24.0),)


def test_reports_of_midnight_make_days_by_themselves() -> None:
    """A report of midnight is an edge, without a neighbour to interpolate with."""
    days = after([(0, 1.0), (24, 5.0), (48, 7.0)])

    assert days.days == ((DAY, 4.0), (DAY + 1, 2.0))


def test_day_with_a_long_gap_is_not_full() -> None:
    """Reports more than 36 hours apart say nothing of the midnights between them, those at 36 hours do."""
    assert after([(0, 0.0), (20, 1.0), (56, 4.0), (72, 5.0)]).days != ()
    assert after([(0, 0.0), (20, 1.0), (56.1, 4.0), (73, 5.0)]).days == ()


def test_quiet_days_are_zeros() -> None:
    """A bucket that shows the same for a week has days of nothing, no slope to its next use."""
    days = after([*((hours, 7.0) for hours in range(0, 8 * 24 + 1, 12)), (8 * 24 + 6, 9.0)])

    assert days.days == tuple((DAY + day, 0.0) for day in range(8))


def test_new_cycle_goes_on_counting() -> None:
    """The use of a new cycle is added to that of the one before: no day is negative, none is lost."""
    days = UsageDays()
    for hours, used, cycle in ((0, 90.0, "nov"), (20, 100.0, "nov"), (28, 4.0, "dec"), (48, 14.0, "dec")):
        days = add_report(days, UsageReport(BEGIN + hours * HOUR, used, cycle))

    assert days.days == ((DAY, 12.0), (DAY + 1, 12.0))


def test_fall_without_a_cycle_begins_one_and_within_one_corrects() -> None:
    """Less than before is a new cycle where nothing says which it is, and a correction within one."""
    reports = [(0, 90.0), (12, 100.0), (24, 95.0)]

    assert after(reports).days == ((DAY, 105.0),)
    assert after(reports, cycle="nov").days == ((DAY, 5.0),)


def test_older_report_changes_nothing() -> None:
    """A report from before the newest one is not news."""
    known = after([(0, 1.0), (24, 5.0)])

    assert add_report(known, UsageReport(BEGIN + HOUR, 99.0)) == known


def test_report_of_a_wrong_time_does_not_stop_the_days() -> None:
    """After a report a year ahead the next right ones count again; days of before stay."""
    days = after([(0, 0.0), (24, 5.0), (48, 10.0), (365 * 24, 11.0), (60, 12.0), (72, 14.0), (96, 20.0)])

    assert days.days == ((DAY, 5.0), (DAY + 1, 5.0), (DAY + 3, 6.0))
    assert days.ts == BEGIN + 96 * HOUR


def test_no_more_days_are_kept_than_are_used() -> None:
    """After 56 full days the oldest goes."""
    days = after([(24 * day, float(day)) for day in range(MAX_DAYS + 5)])

    assert len(days.days) == MAX_DAYS
    assert days.days[-1][0] == DAY + MAX_DAYS + 3


def test_limit_is_reached_between_two_reports() -> None:
    """The time is interpolated, and stays as more is used."""
    days = after([(0, 290.0), (10, 310.0), (20, 320.0)], limit=300.0)

    assert days.reached == BEGIN + 5 * HOUR


def test_limit_that_was_reached_before_the_first_report() -> None:
    """Nobody knows since when: the first report that shows it counts."""
    assert after([(3, 310.0), (9, 320.0)], limit=300.0).reached == BEGIN + 3 * HOUR


def test_limit_that_is_raised_is_not_reached_any_more() -> None:
    """After more was bought nothing is reached; when that is used up too, it has its own time."""
    days = after([(0, 290.0), (10, 310.0)], limit=300.0)
    days = add_report(days, UsageReport(BEGIN + 12 * HOUR, 310.0, limit=320.0))
    assert days.reached is None
    days = add_report(days, UsageReport(BEGIN + 14 * HOUR, 330.0, limit=320.0))
    assert days.reached == BEGIN + 13 * HOUR


def test_new_cycle_has_reached_nothing() -> None:
    """What was reached in the last cycle is past."""
    days = after([(0, 290.0), (10, 310.0)], cycle="nov", limit=300.0)
    days = add_report(days, UsageReport(BEGIN + 20 * HOUR, 5.0, "dec", 300.0))

    assert days.reached is None


@given(st.lists(st.tuples(st.floats(0.01, 40.0), st.floats(0.0, 50.0)), min_size=2, max_size=60))
def test_days_add_up_to_what_was_used(steps: list[tuple[float, float]]) -> None:
    """No day is negative, and together they are never more than what the reports showed."""
    hours, used, reports = 0.0, 0.0, []
    for wait, amount in steps:
        hours, used = hours + wait, used + amount
        reports.append((hours, used))
    days = after(reports)

    assert all(amount >= 0.0 for _, amount in days.days)
    assert sum(amount for _, amount in days.days) <= used - reports[0][1] + 1e-3
    assert [day for day, _ in days.days] == sorted({day for day, _ in days.days})


@pytest.mark.parametrize("hours", [1, 6, 24])
def test_days_do_not_depend_on_how_often_is_asked(hours: int) -> None:
    """Steady use gives the same days, asked each hour or once a day."""
    days = after([(hour, hour * 0.5) for hour in range(0, 97, hours)])

    assert days.days == tuple((DAY + day, 12.0) for day in range(4))
