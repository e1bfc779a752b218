"""Bars side by side as SVG, without a library."""

from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, EDGE = 640, 320, 50
COLOURS = ("#0b6e99", "#b4451f", "#3a7d34")


def svg(names: Sequence[str], series: Mapping[str, Sequence[float]], upwards: str) -> str:
    """One group of bars for each name, one bar for each series; `upwards` names the axis."""
    most = max(value for values in series.values() for value in values) * 1.1
    low, high = HEIGHT - EDGE, EDGE
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            ' font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<path d="M{EDGE} {low}H{WIDTH - EDGE}" stroke="#888"/>',
        f'<text x="{EDGE}" y="{EDGE - 30}">{upwards}</text>',
    ]
    group = (WIDTH - 2 * EDGE) / len(names)
    wide = group * 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<text x="{EDGE + number * 140}" y="{EDGE - 12}" fill="{colour}">{name}</text>')
        for place, value in enumerate(values):
            x, tall = EDGE + place * group + group * 0.1 + number * wide, (low - high) * value / most
            parts.append(
                f'<rect x="{x:.1f}" y="{low - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}" fill="{colour}"/>'
            )
            label = f'<text x="{x + wide / 2:.1f}" y="{low - tall - 4:.1f}" text-anchor="middle" font-size="10">'
            parts.append(f"{label}{value:.0f}</text>")
    for place, name in enumerate(names):
        x = EDGE + (place + 0.5) * group
        parts.append(f'<text x="{x:.1f}" y="{low + 18}" text-anchor="middle">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])
