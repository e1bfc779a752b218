"""A picture of panels, one below the other, as SVG or PNG: lines with their band, strips of texts, axes.

Shapes are worked out once; the two formats only write them down. SVG is text, so it needs no library; PNG is drawn
by Pillow, which brings its own font.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from html import escape
from math import ceil, floor, log10
from pathlib import Path

import msgspec

WIDTH, PANEL_HEIGHT = 960, 220
LEFT, RIGHT, TOP, BOTTOM = 76, 20, 44, 26
STRIP_HEIGHT = 18
COLOURS = ("#0b6e99", "#b4451f", "#3a7d34", "#7a4fa3", "#8a6d00", "#555555")
GREY, LIGHT, BLACK = "#777777", "#dddddd", "#222222"
SCALE = 2
"""Pixels of a PNG for each unit of the picture."""
Point = tuple[float, float]


class Curve(msgspec.Struct, frozen=True):
    """A line in pieces, with a gap between each two; `band` has the lower and upper edge of each piece's points."""

    name: str
    pieces: list[list[Point]]
    band: list[list[tuple[float, float, float]]] = []


class Strip(msgspec.Struct, frozen=True):
    """Texts over time: from when, until when, and what."""

    name: str
    segments: list[tuple[float, float, str]]


class Panel(msgspec.Struct, frozen=True):
    """One chart: numbers of one unit, or texts."""

    title: str
    curves: list[Curve] = []
    strips: list[Strip] = []


class Axis(msgspec.Struct, frozen=True):
    """The time axis that all panels share, in seconds, and how a time is written."""

    begin: float
    end: float
    ticks: list[float]
    label: Callable[[float], str]


class Shape(msgspec.Struct, frozen=True):
    """A line, an area, or a text (at the first point; `anchor`: start, middle or end)."""

    kind: str
    points: list[Point]
    colour: str
    text: str = ""
    anchor: str = "start"
    opacity: float = 1.0


def write_picture(path: Path, panels: Sequence[Panel], axis: Axis) -> None:
    """Writes the picture in the format that the ending of `path` says. Raises OSError."""
    path.write_bytes(_png(panels, axis) if path.suffix.lower() == ".png" else _svg(panels, axis).encode())


# ── what is drawn ──────────────────────────────────────────────────────────────────────────────


def _shapes(panels: Sequence[Panel], axis: Axis) -> Iterator[Shape]:
    for number, panel in enumerate(panels):
        yield from _panel(panel, axis, number * PANEL_HEIGHT)


def _panel(panel: Panel, axis: Axis, top: float) -> Iterator[Shape]:
    low, high = top + PANEL_HEIGHT - BOTTOM, top + TOP

    def across(t: float) -> float:
        return LEFT + (t - axis.begin) / max(axis.end - axis.begin, 1e-9) * (WIDTH - LEFT - RIGHT)

    yield Shape("text", [(LEFT, top + 16)], BLACK, panel.title)
    for tick in axis.ticks:
        yield Shape("line", [(across(tick), high), (across(tick), low)], LIGHT)
        yield Shape("text", [(across(tick), low + 16)], GREY, axis.label(tick), "middle")
    if panel.curves:
        yield from _curves(panel.curves, across, low, high)
    for number, strip in enumerate(panel.strips):
        yield from _strip(strip, across, high + 8 + number * 2 * STRIP_HEIGHT)


def _curves(curves: Sequence[Curve], across: Callable[[float], float], low: float, high: float) -> Iterator[Shape]:
    values = [y for curve in curves for piece in curve.pieces for _, y in piece]
    values += [edge for curve in curves for piece in curve.band for _, *edges in piece for edge in edges]
    ticks = nice_ticks(min(values), max(values))

    def up(value: float) -> float:
        return low - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (low - high)

    for tick in ticks:
        yield Shape("line", [(LEFT, up(tick)), (WIDTH - RIGHT, up(tick))], LIGHT)
        yield Shape("text", [(LEFT - 6, up(tick) + 4)], GREY, f"{tick:.6g}", "end")
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        for edges in curve.band:
            lower = [(across(t), up(a)) for t, a, _ in edges]
            upper = [(across(t), up(b)) for t, _, b in edges]
            yield Shape("area", [*lower, *reversed(upper)], colour, opacity=0.2)
        for piece in curve.pieces:
            points = [(across(t), up(y)) for t, y in piece]
            yield Shape("line", points if len(points) > 1 else [points[0], (points[0][0] + 1.5, points[0][1])], colour)
        yield Shape("text", [(LEFT + number * 150, high - 8)], colour, curve.name)


def _strip(strip: Strip, across: Callable[[float], float], top: float) -> Iterator[Shape]:
    texts = list(dict.fromkeys(text for _, _, text in strip.segments))
    for begin, end, text in strip.segments:
        left, right = across(begin), max(across(end), across(begin) + 1)
        corners = [(left, top), (right, top), (right, top + STRIP_HEIGHT), (left, top + STRIP_HEIGHT)]
        yield Shape("area", corners, COLOURS[texts.index(text) % len(COLOURS)])
    for number, text in enumerate(texts[: len(COLOURS)]):
        yield Shape(
            "text", [(LEFT + number * 150, top + 2 * STRIP_HEIGHT - 4)], COLOURS[number], f"{strip.name}: {text}"
        )


def nice_ticks(least: float, most: float) -> list[float]:
    """Four to eight round numbers that hold both values between the first and the last."""
    if most - least <= abs(most) * 1e-12:
        least, most = least - (abs(least) or 1.0) * 0.1, most + (abs(most) or 1.0) * 0.1
    raw = (most - least) / 5
    decade = 10.0 ** floor(log10(raw))
    step = next(decade * factor for factor in (1, 2, 2.5, 5, 10) if decade * factor >= raw)
    first, last = floor(least / step), ceil(most / step)
    return [number * step for number in range(first, last + 1)]


# ── how it is written ──────────────────────────────────────────────────────────────────────────


def _svg(panels: Sequence[Panel], axis: Axis) -> str:
    """The picture as text. Source: SVG 1.1."""
    height = PANEL_HEIGHT * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">',
        '<g font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *map(_svg_shape, _shapes(panels, axis)),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _svg_shape(shape: Shape) -> str:
    if shape.kind == "text":
        ((x, y),) = shape.points
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{shape.anchor}"'
        return f'<text {place} fill="{shape.colour}">{escape(shape.text)}</text>'
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
    if shape.kind == "area":
        return f'<polygon points="{points}" fill="{shape.colour}" fill-opacity="{shape.opacity:g}"/>'
    return f'<polyline points="{points}" fill="none" stroke="{shape.colour}" stroke-width="1.2"/>'


def _png(panels: Sequence[Panel], axis: Axis) -> bytes:
    """The picture as pixels."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (WIDTH * SCALE, PANEL_HEIGHT * len(panels) * SCALE), "#ffffff")
    draw = ImageDraw.Draw(image, "RGBA")
    font = ImageFont.load_default(12 * SCALE)
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for shape in _shapes(panels, axis):
        points = [(x * SCALE, y * SCALE) for x, y in shape.points]
        if shape.kind == "text":
            draw.text(points[0], shape.text, shape.colour, font, anchors[shape.anchor])
        elif shape.kind == "area":
            draw.polygon(points, f"{shape.colour}{round(shape.opacity * 255):02x}")
        else:
            draw.line(points, shape.colour, 2)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
