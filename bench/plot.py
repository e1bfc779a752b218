"""A log-log plot as SVG, without a library."""

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, EDGE = 640, 400, 60
COLOURS = ("#0b6e99", "#b4451f", "#3a7d34")
Points = Sequence[tuple[float, float]]


def exponent(points: Points) -> float:
    """The slope by least squares of log y over log x."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def _scale(values: Sequence[float], low: float, high: float) -> tuple[range, float, float]:
    """The decades that hold all values, and what turns a logarithm into a coordinate."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = max(last, first + 1)
    step = (high - low) / (last - first)
    return range(first, last + 1), step, low - first * step


def svg(series: Mapping[str, Points], across: str, upwards: str) -> str:
    """All series in one picture; `across` and `upwards` name the axes."""
    every = [point for points in series.values() for point in points]
    columns, kx, x0 = _scale([x for x, _ in every], EDGE, WIDTH - EDGE)
    lines, ky, y0 = _scale([y for _, y in every], HEIGHT - EDGE, EDGE)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            ' font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for decade in columns:
        x = x0 + decade * kx
        parts.append(f'<path d="M{x:.1f} {EDGE}V{HEIGHT - EDGE}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - EDGE + 18}" text-anchor="middle">{10.0**decade:g}</text>')
    for decade in lines:
        y = y0 + decade * ky
        parts.append(f'<path d="M{EDGE} {y:.1f}H{WIDTH - EDGE}" stroke="#ddd"/>')
        parts.append(f'<text x="{EDGE - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**decade:g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">{across}</text>')
    parts.append(f'<text x="{EDGE}" y="{EDGE - 34}">{upwards}</text>')
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [(x0 + math.log10(x) * kx, y0 + math.log10(y) * ky) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        label = f"{name}: exponent {exponent(points):.2f}"
        parts.append(f'<text x="{EDGE + number * 260}" y="{EDGE - 14}" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])
