"""`oneweb-bridge history --plot`: the samples of a span as charts, in the terminal or in an SVG or PNG file.

Counters are drawn as rates, gaps stay gaps, and texts are strips. Braille dots come from plotille; matplotlib is
fifty times larger than what is needed here, and the bridge runs on small machines.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import plotille

from oneweb_bridge.cli.history import HistoryQuery
from oneweb_bridge.cli.picture import Axis, Curve, Panel, Strip, write_picture
from oneweb_bridge.config.schema import Config
from oneweb_bridge.encoding import one_line, rfc3339
from oneweb_bridge.store.places import place_of
from oneweb_bridge.trends.chunks import CORRECTED, USAGE, StreamKey
from oneweb_bridge.trends.indicators import indicators_of
from oneweb_bridge.trends.items import Selection, chosen_streams
from oneweb_bridge.trends.reading import History, open_history
from oneweb_bridge.trends.series import Line, Series, SeriesQuery, Span
from oneweb_bridge.trends.task import trends_place_of

FILE_POINTS = 2000
SUFFIXES = (".svg", ".png")
TICK_STEPS_S = (300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 2 * 86_400, 7 * 86_400, 30 * 86_400, 91 * 86_400)
MAX_TICKS = 8
SYMBOLS = "█▒░▓·+"
MIN_DRAWN, MAX_DRAWN = 1e-300, 1e300
EDGE_COLUMNS = 22
"""What plotille needs beside a chart for its numbers and the arrow of its axis."""


def plot_history(
    config: Config, query: HistoryQuery, file: Path | None, columns: int, write: Callable[[str], None]
) -> bool:
    """Draws into `file`, or as lines of at most `columns` for `write`. Returns whether there was anything to draw.

    Raises ValueError for a query or a file name that cannot be, StoreError, and OSError for the file.
    """
    if file is not None and file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"plot: expected a file that ends in .svg or .png, got {str(file)[:80]!r}")
    chosen, place = query.selection(), place_of(config)
    every = query.every_ms(chosen.span)
    points = FILE_POINTS if file is not None else 4 * columns
    with open_history(place, trends_place_of(config, place)) as history:
        history.require_known(chosen.entity, chosen.id)
        panels, times = _panels(history, config, chosen, points, every)
    if not panels:
        return False
    axis = _axis(min(times) / 1000, max(times) / 1000)
    if file is not None:
        write_picture(file, panels, axis)
    else:
        for panel in panels:
            _draw(panel, axis, columns, write)
    return True


# ── from series to panels ──────────────────────────────────────────────────────────────────────


def _panels(
    history: History, config: Config, chosen: Selection, points: int, every: int | None
) -> tuple[list[Panel], list[int]]:
    """A panel for each report and unit, and the times of all."""
    panels, times = [], []
    known = history.known_span(chosen.entity, chosen.id) or chosen.span
    span = Span(max(chosen.span.since, known.since), min(chosen.span.until, known.until))
    for stream in chosen_streams(history, chosen) if span.until > span.since else []:
        indicators = indicators_of(config, stream)
        series = history.read_series(
            SeriesQuery(stream=stream, span=span, points=points, indicators=indicators, step_ms=every)
        )
        if series.t:
            panels += _panels_of(stream, series)
            times += [series.t[0], series.t[-1]]
    return panels, times


def _panels_of(stream: StreamKey, series: Series) -> list[Panel]:
    whose = f" of bucket {stream.id}" if stream.entity == USAGE else ""
    span = f"{rfc3339(series.t[0])[:16]}Z to {rfc3339(series.t[-1])[:16]}Z"
    numbers = [line for line in series.series if line.kind != "text"]
    panels = []
    for unit in dict.fromkeys(line.unit for line in numbers):
        curves = [_curve(line, series) for line in numbers if line.unit == unit]
        curves = [curve for curve in curves if curve.pieces]
        if curves:
            panels.append(Panel(f"{stream.report}{whose} [{unit or '1'}], {span}", curves))
    texts = [line for line in series.series if line.kind == "text" and line.name != CORRECTED]
    if stream.entity != USAGE and texts:
        panels.append(Panel(f"{stream.report}, {span}", strips=[_strip(line, series) for line in texts]))
    return panels


def _curve(line: Line, series: Series) -> Curve:
    """The line in pieces: a new one after each gap, and where there is no value."""
    is_band = isinstance(line.mean, list)
    values: list[float | None] = line.mean if isinstance(line.mean, list) else list(line.v or [])
    pieces: list[list[tuple[float, float]]] = [[]]
    band: list[list[tuple[float, float, float]]] = [[]]
    before: int | None = None
    for index, (t, value) in enumerate(zip(series.t, values, strict=True)):
        if value is None or (before is not None and _is_cut(before, t, series)):
            pieces.append([])
            band.append([])
        if value is None:
            continue
        pieces[-1].append((t / 1000, _drawable(value)))
        if is_band:
            band[-1].append((t / 1000, _drawable(line.min[index]), _drawable(line.max[index])))  # type: ignore[index]  # as long as the mean
        before = t
    return Curve(line.name, [p for p in pieces if p], [edges for edges in band if edges])


def _drawable(value: Any) -> float:
    """A number between which and any other an axis can have ticks: the distance of the largest floats is infinite."""
    return float(min(MAX_DRAWN, max(-MAX_DRAWN, value))) if abs(value) >= MIN_DRAWN else 0.0


def _is_cut(before: int, t: int, series: Series) -> bool:
    """Whether a gap lies between two points: a bin begins before the samples in it."""
    if series.step is not None:
        return t - before > 1000 * max(series.step, 2.5 * (series.period or 0.0))
    return any(a >= before and b <= t for a, b in series.gaps)


def _strip(line: Line, series: Series) -> Strip:
    segments: list[tuple[float, float, str]] = []
    values = list(line.v or [])
    gaps = dict(series.gaps)
    for index, (t, value) in enumerate(zip(series.t, values, strict=True)):
        end = series.t[index + 1] if index + 1 < len(series.t) and t not in gaps else t
        text = "-" if value is None else one_line(value)
        if segments and segments[-1][2] == text and segments[-1][1] == t / 1000:
            segments[-1] = (segments[-1][0], end / 1000, text)
        else:
            segments.append((t / 1000, end / 1000, text))
    return Strip(line.name, segments)


# ── the time axis ──────────────────────────────────────────────────────────────────────────────


def _axis(begin: float, end: float) -> Axis:
    end = max(end, begin + 1)
    step = next((s for s in TICK_STEPS_S if (end - begin) / s <= MAX_TICKS), (end - begin) / MAX_TICKS)
    first = -(-begin // step) * step
    ticks = [first + number * step for number in range(int((end - first) // step) + 1)] if first <= end else []
    return Axis(begin, end, ticks, _label(end - begin))


def _label(span: float) -> Callable[[float], str]:
    """How a time is written: in UTC, as short as the span allows."""
    form = "%H:%M" if span <= 1.5 * 86_400 else "%m-%d" if span <= 300 * 86_400 else "%Y-%m"
    return lambda t: datetime.fromtimestamp(t, UTC).strftime(form)


# ── in the terminal ────────────────────────────────────────────────────────────────────────────


def _draw(panel: Panel, axis: Axis, columns: int, write: Callable[[str], None]) -> None:
    write(panel.title)
    width = max(20, columns - EDGE_COLUMNS)
    for curve in panel.curves:
        _draw_curve(curve, axis, width, write)
    for strip in panel.strips:
        _draw_strip(strip, axis, width, write)
    write("")


def _draw_curve(curve: Curve, axis: Axis, width: int, write: Callable[[str], None]) -> None:
    figure = plotille.Figure()
    figure.width, figure.height, figure.with_colors = width, 8, False
    figure.x_label, figure.y_label = "UTC", curve.name[:9]
    label = _label(axis.end - axis.begin)
    figure.x_ticks_fkt = lambda least, _: label(least)
    figure.y_ticks_fkt = lambda least, _: f"{least:.4g}"
    figure.set_x_limits(axis.begin, axis.end)
    for piece in curve.pieces:
        figure.plot([t for t, _ in piece], [value for _, value in piece])
    values = [value for piece in curve.pieces for _, value in piece]
    write(f"{curve.name}: now {values[-1]:.6g}, min {min(values):.6g}, max {max(values):.6g}")
    for line in str(figure.show()).splitlines():
        write(line.rstrip())


def _draw_strip(strip: Strip, axis: Axis, width: int, write: Callable[[str], None]) -> None:
    texts = list(dict.fromkeys(text for _, _, text in strip.segments))
    cells = [" "] * width
    for begin, end, text in strip.segments:
        for cell in range(_cell(begin, axis, width), _cell(end, axis, width) + 1):
            cells[cell] = SYMBOLS[texts.index(text) % len(SYMBOLS)]
    label = _label(axis.end - axis.begin)
    write("".join(cells))
    write(f"{label(axis.begin)}{label(axis.end):>{max(1, width - len(label(axis.begin)))}}")
    write(", ".join(f"{SYMBOLS[number % len(SYMBOLS)]} {text}" for number, text in enumerate(texts)))


def _cell(t: float, axis: Axis, width: int) -> int:
    return min(width - 1, max(0, int((t - axis.begin) / (axis.end - axis.begin) * width)))
