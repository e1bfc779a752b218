"""When a call is due. Pure: the time, and chance, come in as arguments. All times in seconds."""

import math
from collections.abc import Mapping

from oneweb_bridge.model.backoff import nth_pause

FIRST_BACKOFF_S = 15.0
FIRST_STORE_RETRY_S, MAX_STORE_RETRY_S, MAX_STORE_RETRIES = 1.0, 5.0, 10
UNAUTHORIZED_RETRY_S = 900.0
"""After 401 or 403: nothing but a change of credentials helps, so ask seldom."""
SCHEDULED_SHARE = 0.9
"""Share of what the limiter allows that scheduled polls may use; the rest is for retries and requested polls."""


def first_wait(since_last_poll: float | None, interval: float, failures: int = 0) -> float:
    """How long a call waits after a start, so that a restart causes no burst; not at all when nobody knows.

    After `failures` polls in a row that brought nothing it waits as after a failure, not for a whole interval.
    """
    if since_last_poll is None:
        return 0.0
    wait = backoff(failures, interval, chance=0.5) if failures else interval
    return max(wait - max(since_last_poll, 0.0), 0.0)


def next_wait(interval: float, took: float) -> float:
    """How long to wait after a poll that took `took`, so that polls keep their distance from start to start."""
    return max(interval - took, 0.0)


def store_retry(refusals: int, *, asked_api: bool) -> float | None:
    """How long to wait after the database could not be written for the `refusals`-th time in a row.

    Short, because nobody tells when a disk has room again. A poll that had asked the API costs requests, so after some
    of them there is no short pause any more: None.
    """
    if not asked_api:
        return nth_pause(FIRST_STORE_RETRY_S, MAX_STORE_RETRY_S, refusals - 1)
    if refusals > MAX_STORE_RETRIES:
        return None
    return nth_pause(FIRST_STORE_RETRY_S, 2 * MAX_STORE_RETRY_S, refusals - 1)


def backoff(failures: int, interval: float, chance: float) -> float:
    """How long to wait after the `failures`-th failure in a row: growing, spread, never above the interval."""
    wait = nth_pause(FIRST_BACKOFF_S, math.inf, failures - 1)
    return min(wait * (0.75 + 0.5 * chance), interval)


def stretch_intervals(
    intervals: Mapping[str, float], requests: Mapping[str, float], allowed: float
) -> dict[str, float]:
    """The intervals at which calls cost at most `allowed` requests an hour, stretched evenly where they cost more."""
    cost = requests_per_hour(intervals, requests)
    factor = max(1.0, cost / (allowed * SCHEDULED_SHARE)) if allowed > 0 else 1.0
    return {call: interval * factor for call, interval in intervals.items()}


def requests_per_hour(intervals: Mapping[str, float], requests: Mapping[str, float]) -> float:
    """How many requests an hour the calls cost at these intervals, with so many requests a poll."""
    return sum(3600.0 / interval * requests.get(call, 1.0) for call, interval in intervals.items())


def is_fresh(since_success: float | None, interval: float, lateness: float) -> bool:
    """Whether the last success is younger than three intervals and the report's lateness; not when nobody knows."""
    return since_success is not None and since_success <= 3 * interval + lateness
