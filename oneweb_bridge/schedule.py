"""When a call is due. Pure: the time, and chance, come in as arguments. All times in seconds."""

from collections.abc import Mapping

FIRST_BACKOFF = 15.0
SLOW_RETRY = 900.0
"""After 401 or 403: nothing but a change of credentials helps, so ask seldom."""
MARGIN = 0.9
"""The share of what the limiter allows that scheduled polls may use; the rest is for retries and wishes."""


def first_wait(last_poll: float | None, interval: float, now: float) -> float:
    """How long a call waits after a start, so that a restart causes no burst; a last poll in the future is none."""
    if last_poll is None or last_poll > now:
        return 0.0
    return min(max(last_poll + interval - now, 0.0), interval)


def next_wait(interval: float, took: float) -> float:
    """How long to wait after a poll that took `took`, so that polls keep their distance from start to start."""
    return max(interval - took, 0.0)


def backoff(failures: int, interval: float, chance: float) -> float:
    """How long to wait after the `failures`-th failure in a row: growing, spread, never above the interval."""
    wait = FIRST_BACKOFF * 2.0 ** min(failures - 1, 16)
    return min(wait * (0.75 + 0.5 * chance), interval)


def stretched(intervals: Mapping[str, float], requests: Mapping[str, float], allowed: float) -> dict[str, float]:
    """The intervals at which calls cost at most `allowed` requests an hour, stretched evenly where they cost more."""
    cost = hourly(intervals, requests)
    factor = max(1.0, cost / (allowed * MARGIN)) if allowed > 0 else 1.0
    return {call: interval * factor for call, interval in intervals.items()}


def hourly(intervals: Mapping[str, float], requests: Mapping[str, float]) -> float:
    """How many requests an hour the calls cost at these intervals, with so many requests a poll."""
    return sum(3600.0 / interval * requests.get(call, 1.0) for call, interval in intervals.items())


def is_fresh(last_success: float | None, interval: float, lateness: float, now: float) -> bool:
    """Whether the last success is younger than three intervals and the report's lateness."""
    return last_success is not None and now - last_success <= 3 * interval + lateness
