"""What is worked out of samples: period, gaps, rates and totals of counters, bins, the summary of a day. Pure.

Times in ms since the epoch. A bin begins at a multiple of its step since the epoch, so days are UTC days; it holds
begin <= t < end and is not there when it is empty.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from math import fsum
from operator import sub
from statistics import median
from typing import Any, cast

import msgspec

from oneweb_bridge.trends.chunks import DAY_MS

MINUTE_MS = 60_000
STEPS_MS = tuple(MINUTE_MS * minutes for minutes in (5, 10, 15, 30, 60, 180, 360, 720, 1440))
GAP_PERIODS = 2.5
"""Neighbours further apart than so many periods have a gap between them."""
MIN_FOR_PERIOD = 4
"""Samples without which nothing is said about a period."""
Number = int | float
Points = Sequence[Number | None]


def choose_step(span_ms: int, points: int) -> int:
    """The shortest step in ms with which a span has at most so many bins, or a day."""
    return next((step for step in STEPS_MS if -(-span_ms // step) <= points), DAY_MS)


def period_of(ts: Sequence[int]) -> float | None:
    """The median distance of neighbours in ms; None for too few samples."""
    return median(map(sub, islice(ts, 1, None), ts)) if len(ts) >= MIN_FOR_PERIOD else None


def is_gap(distance: float, period: float | None) -> bool:
    """Whether two neighbours so many ms apart have a gap between them."""
    return period is not None and distance > GAP_PERIODS * period


def find_gaps(ts: Sequence[int], period: float | None) -> list[tuple[int, int]]:
    """Both edges of each gap."""
    if period is None:
        return []
    # The bound of `is_gap`, worked out once: there may be a year of samples.
    longest = GAP_PERIODS * period
    return [(a, b) for a, b in pairwise(ts) if b - a > longest]


def is_numeric(column: Sequence[Any]) -> bool:
    """Whether all values that are there are numbers."""
    return set(map(type, column)) <= {int, float, type(None)}


# ── counters ───────────────────────────────────────────────────────────────────────────────────


def rates(
    ts: Sequence[int], values: Points, period: float | None, before: tuple[int, Number] | None = None
) -> list[float | None]:
    """How fast a counter grows, per second, at the time of the later of two neighbours; `before` is the first one's.

    None at the first sample known, behind a gap, and where the counter fell: never negative.
    """
    speeds: list[float | None] = []
    for t, value in zip(ts, values, strict=True):
        if value is None:
            speeds.append(None)
            continue
        is_known = before is not None and value >= before[1] and t > before[0] and not is_gap(t - before[0], period)
        speeds.append((value - before[1]) * 1000 / (t - before[0]) if before is not None and is_known else None)
        before = (t, value)
    return speeds


def totals(values: Points) -> list[Number | None]:
    """The rises of a counter added up since its first value, which is 0; a fall adds nothing."""
    sums: list[Number | None] = []
    total: Number = 0
    before: Number | None = None
    for value in values:
        if value is not None:
            total += max(value - before, 0) if before is not None else 0
            before = value
        sums.append(None if value is None else total)
    return sums


# ── bins ───────────────────────────────────────────────────────────────────────────────────────


class Bin(msgspec.Struct, frozen=True, gc=False):
    """What the values of one interval amount to."""

    min: Number
    mean: float
    max: Number
    count: int


def summarize(values: Points) -> Bin | None:
    """The bin of some values; None where there are none."""
    # A bin without gaps, as most are, is taken as it is.
    known = [value for value in values if value is not None] if None in values else cast("Sequence[Number]", values)
    return Bin(min(known), _mean(known), max(known), len(known)) if known else None


def _mean(values: Sequence[Number]) -> float:
    try:
        return fsum(values) / len(values)
    except OverflowError:
        return float(sum(value / len(values) for value in values))


def combine(bins: Sequence[Bin]) -> Bin | None:
    """Several bins as one."""
    if len(bins) < 2:
        return bins[0] if bins else None
    count = sum(b.count for b in bins)
    mean = sum(b.mean * (b.count / count) for b in bins)
    return Bin(min(b.min for b in bins), mean, max(b.max for b in bins), count)


def intervals(ts: Sequence[int], step: int) -> Iterator[tuple[int, int, int]]:
    """The start of each non-empty bin, and the index range of its samples."""
    at = 0
    while at < len(ts):
        begin = ts[at] - ts[at] % step
        end = bisect_left(ts, begin + step, lo=at)
        yield begin, at, end
        at = end


def text_changes(ts: Sequence[int], columns: Sequence[Sequence[Any]], gaps: Sequence[tuple[int, int]]) -> list[int]:
    """The indices where a text differs from the one before, the edges of gaps, and the last one."""
    edges = {edge for gap in gaps for edge in gap}
    kept = []
    for i, t in enumerate(ts):
        differs = i == 0 or any(column[i] != column[i - 1] for column in columns)
        if differs or t in edges or i == len(ts) - 1:
            kept.append(i)
    return kept


# ── what is kept of a day ──────────────────────────────────────────────────────────────────────


class CounterDay(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a counter did within a day: its first and last value, its rises, and the bin of its rates."""

    first: Number
    last: Number
    rise: Number
    mean_total: float
    rate: tuple[float, float, float, int] | None


class Day(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A day of one indicator."""

    min: Number
    mean: float
    max: Number
    count: int
    counter: CounterDay | None = None

    @property
    def bin(self) -> Bin:
        """Its raw values as a bin."""
        return Bin(self.min, self.mean, self.max, self.count)


def summarize_day(ts: Sequence[int], columns: dict[str, list[Any]], counters: frozenset[str]) -> dict[str, Day]:
    """What is kept of a day of one stream, for each of its indicators that is a number."""
    period = period_of(ts)
    days = {}
    for name, column in columns.items():
        whole = summarize(column) if is_numeric(column) else None
        if whole is not None:
            counter = _counter_day(ts, column, period) if name in counters else None
            days[name] = Day(whole.min, whole.mean, whole.max, whole.count, counter)
    return days


def _counter_day(ts: Sequence[int], column: Points, period: float | None) -> CounterDay:
    known = [value for value in column if value is not None]
    total = [value for value in totals(column) if value is not None]
    rate = summarize(rates(ts, column, period))
    summary = None if rate is None else (float(rate.min), rate.mean, float(rate.max), rate.count)
    return CounterDay(known[0], known[-1], total[-1], _mean(total), summary)
