"""When a call is due: no burst at a start, a growing pause after failures, and a budget that is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.polling.schedule import (
    SCHEDULED_SHARE,
    backoff,
    first_wait,
    is_fresh,
    next_wait,
    requests_per_hour,
    stretch_intervals,
)

INTERVALS = st.floats(10, 604_800)
CALLS = st.dictionaries(st.sampled_from("abcdef"), INTERVALS, min_size=1)


@pytest.mark.parametrize(("age", "expected"), [(None, 0), (0, 300), (100, 200), (300, 0), (1000, 0), (10**9, 0)])
def test_first_wait_goes_on_where_the_last_run_stopped(age: float | None, expected: float) -> None:
    """After a restart a call waits for the rest of its interval; polled at an unknown time, or never, is due now."""
    assert expected == first_wait(age, 300)


@pytest.mark.parametrize(("failures", "age", "expected"), [(1, 0, 15), (1, 20, 0), (3, 10, 50), (9, 0, 300)])
def test_first_wait_after_failures_is_that_of_a_failure(failures: int, age: float, expected: float) -> None:
    """A call whose last polls brought nothing does not wait for its whole interval after a restart."""
    assert expected == first_wait(age, 300, failures)


@given(st.none() | st.floats(-1e10, 1e10), INTERVALS, st.integers(0, 10**6))
def test_first_wait_is_never_longer_than_the_interval(age: float | None, interval: float, failures: int) -> None:
    """Whatever the age, a call waits an interval at most."""
    assert 0 <= first_wait(age, interval, failures) <= interval


@given(INTERVALS, st.floats(0, 10**6))
def test_next_wait_keeps_the_distance_from_start_to_start(interval: float, took: float) -> None:
    """A slow poll shortens the pause after it, down to none."""
    assert next_wait(interval, took) == max(0.0, interval - took)


@given(st.integers(1, 10**6), INTERVALS, st.floats(0, 1))
def test_backoff_grows_and_stays_below_the_interval(failures: int, interval: float, chance: float) -> None:
    """Each failure in a row makes the pause longer, spread by chance, and never above the interval."""
    wait = backoff(failures, interval, chance)
    assert 0 < wait <= interval
    assert wait <= backoff(failures + 1, interval, chance)


def test_backoff_is_spread() -> None:
    """Two bridges that fail together do not come back together."""
    assert backoff(1, 600, 0.0) < backoff(1, 600, 0.5) < backoff(1, 600, 1.0) < backoff(3, 600, 0.0)


@given(CALLS, st.dictionaries(st.sampled_from("abcdef"), st.floats(1, 1000)), st.floats(1, 10**5))
def test_stretched_intervals_keep_the_budget(
    intervals: dict[str, float], requests: dict[str, float], allowed: float
) -> None:
    """At the effective intervals the calls cost no more than their share of what is allowed, and are never sooner."""
    stretched = stretch_intervals(intervals, requests, allowed)
    assert (
        requests_per_hour(stretched, requests)
        <= max(allowed * SCHEDULED_SHARE, requests_per_hour(intervals, requests)) * 1.000001
    )
    if requests_per_hour(intervals, requests) > allowed * SCHEDULED_SHARE:
        assert requests_per_hour(stretched, requests) == pytest.approx(allowed * SCHEDULED_SHARE)
        factors = [stretched[call] / interval for call, interval in intervals.items()]
        assert max(factors) == pytest.approx(min(factors))
    else:
        assert stretched == intervals


def test_stretching_without_a_limit_changes_nothing() -> None:
    """No limit, no stretching."""
    assert stretch_intervals({"a": 10.0}, {"a": 1e6}, 0) == {"a": 10.0}


def test_hourly_counts_every_request_of_a_poll() -> None:
    """A call that needs several requests costs them all."""
    assert requests_per_hour({"a": 60.0, "b": 3600.0}, {"a": 2.0}) == 121.0


@pytest.mark.parametrize(
    ("age", "fresh"),
    [(None, False), (0, True), (910, True), (911, False)],
)
def test_fresh_ends_after_three_intervals_and_the_lateness(age: float | None, fresh: bool) -> None:
    """`fresh` goes false when the last success is older than three intervals and the report's lateness."""
    assert is_fresh(age, 300, 10) is fresh
