"""How fast the API is asked: never more than is allowed in any hour, and less where it has trouble."""

import itertools

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.api.rate_limits import FIRST_PAUSE_S, HOUR_S, MAX_DELAY_S, MIN_PAUSE_S, Host, Pace, requested_pause
from oneweb_bridge.config.schema import RateLimit

NOW = 1750167607.0
MAX_PAUSE = 3600.0


# --- what the bridge allows itself ----------------------------------------------------------------


def starts_of(pace: Pace, begin: float, end: float) -> list[float]:
    """When requests start, if one is wanted all the time."""
    now, waits = begin, []
    while now < end:
        wait = pace.try_start(now)
        if wait == 0:
            waits.append(now)
        now += wait
    return waits


def test_no_hour_has_more_requests_than_allowed() -> None:
    """Of a budget of 100 an hour, 100 go at once, and no window of 3600 s ever has one more."""
    starts = starts_of(Pace(RateLimit(min_interval=0.25, max_requests_per_hour=100)), 17.3, 5 * HOUR_S)
    assert len([start for start in starts if start < 17.3 + HOUR_S]) == 100
    assert all(later - before >= HOUR_S for before, later in zip(starts, starts[100:], strict=False))
    assert len(starts) > 400


@hypothesis.settings(max_examples=50)
@given(st.lists(st.tuples(st.none() | st.integers(1, 30), st.floats(0, 4000)), min_size=1, max_size=12))
def test_budget_holds_when_it_changes(changes: list[tuple[int | None, float]]) -> None:
    """A budget that is read again counts what was sent before it: no window ever has more than the one in force."""
    pace, now, starts = Pace(RateLimit(min_interval=60)), 0.0, list[float]()
    for allowed, lasts in changes:
        pace.limit = RateLimit(min_interval=60, max_requests_per_hour=allowed)
        for start in starts_of(pace, now, now + lasts):
            starts.append(start)
            assert allowed is None or len([s for s in starts if s > start - HOUR_S]) <= allowed
        now += lasts


def test_starts_keep_their_distance() -> None:
    """Two requests never start closer than min_interval, also after it has changed."""
    pace = Pace(RateLimit(min_interval=0.5))
    first = starts_of(pace, 0, 10)
    pace.limit = RateLimit(min_interval=2.0)
    starts = first + starts_of(pace, 10, 20)
    gaps = [later - before for before, later in itertools.pairwise(starts)]
    assert min(gaps[: len(first) - 1]) >= 0.5
    assert min(gaps[len(first) - 1 :]) >= 2.0


def test_count_of_the_hour_takes_little_memory() -> None:
    """Ever so many requests are counted in an entry a second."""
    pace = Pace(RateLimit(min_interval=0.0))
    for at in range(200_000):
        pace.try_start(at / 10)
    assert len(pace._counts) <= HOUR_S + 2


# --- what the answers ask for ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry_lines", "reset_lines", "expected"),
    [
        ([], [], None),
        (["30"], [], 30),
        (["soon"], [], None),
        ([], ["45000"], 45),
        ([], ["1750167697"], 90),
        ([], ["1750167697000"], 90),
        ([], ["-1"], None),
        (["10"], ["20000"], 20),
        (["soon"], ["20000"], 20),
    ],
)
def test_pause_is_what_the_answer_says(retry_lines: list[str], reset_lines: list[str], expected: float | None) -> None:
    """Retry-After, or the window's reset in ms or as an epoch: the longer counts, nonsense does not."""
    assert requested_pause(retry_lines, reset_lines, NOW) == expected


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        (30.0, 30.0),
        (0.0, MIN_PAUSE_S),
        (-500.0, MIN_PAUSE_S),
        (7200.0, MAX_PAUSE),
        (1e300, MAX_PAUSE),
        (1800.0, 1800.0),
    ],
)
def test_pause_is_obeyed_up_to_its_limit(wait: float, expected: float) -> None:
    """What the API asks for is obeyed, hours of it up to max_pause, and never less than a second."""
    assert Host(MAX_PAUSE).note_refusal(0.0, wait) == expected


def test_pause_without_a_word_grows() -> None:
    """Refusals that do not say how long double the pause each time, up to max_pause; an answer ends that."""
    host, now, pauses = Host(MAX_PAUSE), 0.0, []
    for _ in range(9):
        pauses.append(host.note_refusal(now, None))
        now += pauses[-1]
    assert pauses[:4] == [60, 120, 240, 480]
    assert pauses[-1] == MAX_PAUSE
    host.note_success()
    assert host.note_refusal(now, None) == FIRST_PAUSE_S


def test_refusals_at_the_same_time_count_once() -> None:
    """Four requests in flight that are refused together do not make the pause sixteen times longer."""
    host = Host(MAX_PAUSE)
    assert [host.note_refusal(0.1 * n, None) for n in range(4)] == [FIRST_PAUSE_S] * 4


def test_host_that_says_at_once_and_refuses_again_is_asked_less() -> None:
    """Retry-After: 0 for ever does not make a request each second."""
    host, now = Host(MAX_PAUSE), 0.0
    for _ in range(20):
        now += host.note_refusal(now, 0.0)
    assert now > 600


# --- a shared back-off ----------------------------------------------------------------------------


def test_host_that_fails_is_asked_less_and_less() -> None:
    """After as many failures as one request tries, the host is left alone for longer and longer; an answer ends it."""
    host, delays = Host(MAX_PAUSE), []
    for _ in range(9):
        host.note_failure(0.0)
        delays.append(host.delay(0.0))
    assert delays == [0, 0, 2, 4, 8, 16, MAX_DELAY_S, MAX_DELAY_S, MAX_DELAY_S]
    host.note_success()
    assert host.delay(0.0) == 0


def test_host_that_fails_gets_one_request_at_a_time() -> None:
    """While one request looks whether a failing host is back, the others wait."""
    host = Host(MAX_PAUSE)
    for _ in range(4):
        host.note_failure(0.0)
    assert host.delay(5.0) == 0
    host.note_start(5.0)
    assert host.delay(5.0) > 0


def test_poll_at_once_does_not_wait_for_a_failing_host() -> None:
    """What an operator wants now goes now; what the host asked for holds all the same."""
    host = Host(MAX_PAUSE)
    for _ in range(9):
        host.note_failure(0.0)
    host.note_refusal(0.0, 100.0)
    host.ask_at_once()
    assert (host.delay(0.0), host.pause(0.0)) == (0, 100)
