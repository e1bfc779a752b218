"""A span of one stream as lines to draw: samples as they are, or bins where there are more than points. Pure.

Gaps, rates and bins are decided here, once, so that no chart has to guess.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from oneweb_bridge.trends.bins import (
    Bin,
    CounterDay,
    Day,
    Number,
    choose_step,
    find_gaps,
    intervals,
    is_numeric,
    rates,
    summarize,
    text_changes,
    totals,
)
from oneweb_bridge.trends.chunks import CORRECTED, DAY_MS, MARKS, Samples, StreamKey

Kind = Literal["gauge", "cumulative", "delta", "text"]
ShowAs = Literal["rate", "raw", "total"]
DEFAULT_POINTS = 2000


class Span(msgspec.Struct, frozen=True):
    """Times in ms since the epoch: since <= ts < until."""

    since: int
    until: int

    def days(self) -> tuple[int, int]:
        """The first and the last day that have a part in it."""
        return self.since // DAY_MS, (self.until - 1) // DAY_MS

    def within(self, day: int) -> "Span":
        """The part that lies on a day."""
        return Span(max(self.since, day * DAY_MS), min(self.until, (day + 1) * DAY_MS))


class Indicator(msgspec.Struct, frozen=True):
    """What is known of an indicator beside its values."""

    unit: str = ""
    kind: Kind = "gauge"


class SeriesQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines are wanted. `names` None: all indicators; `show_as` is for counters; `indicators` what is known.

    With `step_ms` bins of this length, however many samples there are.
    """

    stream: StreamKey
    span: Span
    names: tuple[str, ...] | None = None
    points: int = DEFAULT_POINTS
    show_as: ShowAs = "rate"
    indicators: Mapping[str, Indicator] = {}
    lateness: float = 0.0
    step_ms: int | None = None


class Line(msgspec.Struct, kw_only=True):
    """One indicator: `v` at each time, or the four of each bin; None where there is none."""

    name: str
    unit: str
    kind: Kind
    v: list[Any] | UnsetType = UNSET
    min: list[Number | None] | UnsetType = UNSET
    mean: list[float | None] | UnsetType = UNSET
    max: list[Number | None] | UnsetType = UNSET
    count: list[int] | UnsetType = UNSET


class Series(msgspec.Struct, kw_only=True):
    """The answer of `/api/v1/series`. Times in ms, durations in seconds; `step` None: samples as they are.

    `gaps` has both edges of each; `corrected` the indices of corrected samples.
    """

    step: float | None
    source: Literal["samples", "bins", "days"]
    period: float | None
    lateness: float
    t: list[int]
    series: list[Line]
    gaps: list[tuple[int, int]]
    corrected: list[int] = []


class SeriesSource(msgspec.Struct, kw_only=True):
    """What was read for a query: the samples of the span and the one before it, the period in ms, and kept days."""

    samples: Samples
    before: Samples
    period: float | None
    kept: Mapping[int, Mapping[str, Day]] = {}


def build_series(query: SeriesQuery, source: SeriesSource, rest: Callable[[], None] = lambda: None) -> Series:
    """The lines of a query. Text indicators are never put into bins: there they are left out beside numbers.

    `rest` is called after each bin of each line.
    """
    samples = source.samples
    gaps = find_gaps(samples.ts, source.period)
    names = _names(query, source)
    kinds = {name: _kind(name, query, samples) for name in names}
    texts = [name for name in names if kinds[name] == "text"]
    answer = Series(
        step=None,
        source="samples",
        period=None if source.period is None else source.period / 1000,
        lateness=query.lateness,
        t=[],
        series=[],
        gaps=gaps,
    )
    lines = [Line(name=name, unit=_unit(name, query, kinds), kind=kinds[name]) for name in names]
    if len(samples.ts) <= query.points and not source.kept and (query.step_ms is None or len(texts) == len(names)):
        return _as_they_are(answer, query, source, lines)
    if len(texts) == len(names):
        columns = [samples.columns.get(name, [None] * len(samples.ts)) for name in names]
        thinned = samples.picked(text_changes(samples.ts, columns, gaps))
        return _as_they_are(answer, query, msgspec.structs.replace(source, samples=thinned), lines)
    return _in_bins(answer, query, source, [line for line in lines if line.kind != "text"], rest)


def _names(query: SeriesQuery, source: SeriesSource) -> list[str]:
    if query.names is not None:
        return list(query.names)
    kept = [name for day in source.kept.values() for name in day]
    return [name for name in dict.fromkeys([*source.samples.columns, *kept]) if name not in MARKS]


def _kind(name: str, query: SeriesQuery, samples: Samples) -> Kind:
    column = samples.columns.get(name)
    if column is not None and not is_numeric(column):
        return "text"
    known = query.indicators.get(name)
    return "gauge" if known is None else known.kind


def _unit(name: str, query: SeriesQuery, kinds: Mapping[str, Kind]) -> str:
    unit = query.indicators.get(name, Indicator()).unit
    return f"{unit}/s" if kinds[name] == "cumulative" and query.show_as == "rate" else unit


def _shown(line: Line, query: SeriesQuery, source: SeriesSource) -> list[Any]:
    """The values of a line at the times of the samples, as they are wanted."""
    samples = source.samples
    column = samples.columns.get(line.name, [None] * len(samples.ts))
    if line.kind != "cumulative" or query.show_as == "raw":
        return column
    if query.show_as == "total":
        return totals(column)
    value = source.before.columns.get(line.name, [None])[0]
    before = None if value is None or not source.before.ts else (source.before.ts[0], value)
    return rates(samples.ts, column, source.period, before)


def _as_they_are(answer: Series, query: SeriesQuery, source: SeriesSource, lines: Sequence[Line]) -> Series:
    for line in lines:
        line.v = _shown(line, query, source)
    answer.t, answer.series = source.samples.ts, list(lines)
    marks = source.samples.columns.get(CORRECTED, [])
    answer.corrected = [i for i, mark in enumerate(marks) if mark]
    return answer


def _in_bins(
    answer: Series, query: SeriesQuery, source: SeriesSource, lines: Sequence[Line], rest: Callable[[], None]
) -> Series:
    step = DAY_MS if source.kept else query.step_ms or choose_step(query.span.until - query.span.since, query.points)
    answer.step, answer.source = step / 1000, "days" if source.kept else "bins"
    spans = list(intervals(source.samples.ts, step))
    answer.t = sorted({begin for begin, _, _ in spans} | {day * DAY_MS for day in source.kept})
    for line in lines:
        shown = _shown(line, query, source)
        bins: dict[int, Bin | None] = {}
        for begin, a, b in spans:
            bins[begin] = summarize(shown[a:b])
            rest()
        if source.kept:
            bins = _with_kept_days(line, query, source, bins)
        _fill(line, [bins.get(begin) for begin in answer.t])
    answer.series = list(lines)
    return answer


def _fill(line: Line, bins: Sequence[Bin | None]) -> None:
    line.min = [None if b is None else b.min for b in bins]
    line.mean = [None if b is None else b.mean for b in bins]
    line.max = [None if b is None else b.max for b in bins]
    line.count = [0 if b is None else b.count for b in bins]


def _with_kept_days(
    line: Line, query: SeriesQuery, source: SeriesSource, bins: Mapping[int, Bin | None]
) -> dict[int, Bin | None]:
    """Bins of days, those of days of which the summary alone is kept among them."""
    whole: dict[int, Bin | None] = dict(bins)
    kept = {day * DAY_MS: summary[line.name] for day, summary in source.kept.items() if line.name in summary}
    if line.kind != "cumulative" or query.show_as == "raw":
        return whole | {begin: day.bin for begin, day in kept.items()}
    counters = {begin: day.counter for begin, day in kept.items() if day.counter is not None}
    if query.show_as == "rate":
        return whole | {begin: None if c.rate is None else Bin(*c.rate) for begin, c in counters.items()}
    return _running_totals(line.name, source, counters)


def _running_totals(name: str, source: SeriesSource, counters: Mapping[int, CounterDay]) -> dict[int, Bin | None]:
    """Bins of the rises added up over all days."""
    column = source.samples.columns.get(name, [None] * len(source.samples.ts))
    days = {
        begin: [value for _, value in group if value is not None]
        for begin, group in groupby(
            zip(source.samples.ts, column, strict=True), lambda pair: pair[0] - pair[0] % DAY_MS
        )
    }
    total: Number = 0
    last: Number | None = None
    bins: dict[int, Bin | None] = {}
    for begin in sorted(days.keys() | counters.keys()):
        counter = counters.get(begin) or _counter_of(days[begin])
        if counter is None:
            continue
        total += 0 if last is None else max(counter.first - last, 0)
        bins[begin] = Bin(total, total + counter.mean_total, total + counter.rise, 1)
        total, last = total + counter.rise, counter.last
    return bins


def _counter_of(values: Sequence[Number]) -> CounterDay | None:
    whole = summarize(totals(values))
    return None if whole is None else CounterDay(values[0], values[-1], whole.max, whole.mean, None)
