"""How a cycle of the bridge with tabs compares with those without: rows of row 17."""

import statistics
from collections.abc import Sequence

import msgspec

from bench.clock import ratios
from bench.stage import Cycled
from bench.table import Row, of_rounds
from bench.tabs import Tab

NUMBER = "17"


def cycle_row(what: str, alone: Sequence[Cycled], watched: Sequence[Cycled], tabs: Sequence[Tab] = ()) -> Row:
    """How much longer a cycle takes when it is watched."""
    row = Row(
        number=NUMBER,
        what=what,
        goal=1.1,
        bridge=_spent(watched),
        floor=f"without tabs: {_spent(alone)}",
        note="every call, ten simulated minutes after the cycle before, one after the other until it is published",
    )
    if tabs:
        megabytes = sum(tab.bytes for tab in tabs) / len(tabs) / 1e6
        streams, fleets = sum(tab.streams for tab in tabs), sum(tab.fleets for tab in tabs)
        row = msgspec.structs.replace(
            row,
            note=f"{row.note}; {len(tabs)} tabs opened {streams} streams of {megabytes:.1f} MB each, and asked "
            f"{fleets} times for the fleet",
        )
    pairs = alone[-len(watched) :], watched
    wall, cpu = ([[getattr(c, name) for c in cycles] for cycles in pairs] for name in ("wall", "cpu"))
    return of_rounds(row, ratios(wall[1], wall[0]), ratios(cpu[1], cpu[0]))


def _spent(cycles: Sequence[Cycled]) -> str:
    wall, cpu = (statistics.median(getattr(cycled, name) for cycled in cycles) for name in ("wall", "cpu"))
    return f"{wall:.1f} s, {cpu:.1f} CPU s"


def memory_row(what: str, alone: Sequence[Cycled], watched: Sequence[Cycled]) -> Row:
    """The peak of a watched cycle above that of the one before it, at its largest: the bridge itself grows, too."""
    before = alone[-len(watched) :]
    above = [after.peak - first.peak for after, first in zip(watched, before, strict=True)]
    note = ", ".join(
        f"{after.peak:.0f} after {first.peak:.0f} MiB" for after, first in zip(watched, before, strict=True)
    )
    return Row(number=NUMBER, what=what, unit="MiB", goal=40.0, measured=max(above), note=note)
