"""The table of goals: one form of row for all measures, and how it is printed and put into a page. Pure."""

import statistics
from collections.abc import Sequence

import msgspec

BEGIN, END = "<!-- bench: written by make bench -->", "<!-- bench: end -->"
HEADINGS = ("row", "what", "goal", "measured", "range", "CPU", "bridge", "floor", "met")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line. A row without goal is stated; one with `trouble` was not measured, and `trouble` says why.

    `measured` is in `unit`, the median of `rounds`, of which `low` and `high` are the extremes. Where it is a ratio of
    wall time, `cpu` is the same ratio of CPU seconds. `bridge` and `floor` are what the ratio was made of.
    """

    number: str
    what: str
    unit: str = "x"
    goal: float | None = None
    at_least: bool = False
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    cpu: float | None = None
    rounds: int = 1
    bridge: str = ""
    floor: str = ""
    note: str = ""
    trouble: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none. What could not be measured is not reached."""
        if self.goal is None:
            return False if self.trouble else None
        if self.measured is None:
            return False
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal


def of_rounds(row: Row, values: Sequence[float], cpu: Sequence[float] = ()) -> Row:
    """The row with the median of the rounds, and their extremes."""
    return msgspec.structs.replace(
        row,
        measured=statistics.median(values),
        low=min(values),
        high=max(values),
        rounds=len(values),
        cpu=statistics.median(cpu) if cpu else None,
    )


def plain(rows: Sequence[Row]) -> list[dict[str, object]]:
    """For JSON: every member, and whether the goal is met."""
    return [{**msgspec.structs.asdict(row), "met": row.met} for row in rows]


# ── the cells ──────────────────────────────────────────────────────────────────────────────────


def number(value: float | None) -> str:
    """With three digits where there are so many."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _goal(row: Row) -> str:
    if row.goal is None:
        return "-" if row.trouble else "stated"
    return f"{'≥' if row.at_least else '≤'} {row.goal:g} {row.unit}"


def _met(row: Row) -> str:
    if row.trouble:
        return "NOT MEASURED"
    return {True: "yes", False: "NO", None: "-"}[row.met]


def cells(row: Row) -> tuple[str, ...]:
    """What stands in each column."""
    measured = f"{number(row.measured)} {row.unit}" if row.measured is not None else "-"
    spread = f"{number(row.low)} to {number(row.high)}" if row.rounds > 1 else ""
    cpu = f"{number(row.cpu)} {row.unit}" if row.cpu is not None else ""
    return (row.number, row.what, _goal(row), measured, spread, cpu, row.bridge, row.floor, _met(row))


def _notes(rows: Sequence[Row]) -> list[str]:
    """What does not fit into a column."""
    notes = [(row, " ".join(part for part in (row.trouble, row.note) if part)) for row in rows]
    return [f"{row.number}, {row.what}: {text}" for row, text in notes if text]


# ── the whole ──────────────────────────────────────────────────────────────────────────────────


def text(rows: Sequence[Row]) -> str:
    """For a terminal."""
    lines = [HEADINGS, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*table, "", *_notes(rows)])


def markdown(rows: Sequence[Row]) -> list[str]:
    """For a page."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in (HEADINGS, *map(cells, rows))]
    return [lines[0], "|" + "---|" * len(HEADINGS), *lines[1:], "", *(f"- {note}" for note in _notes(rows))]


def between_marks(page: str, body: Sequence[str]) -> str:
    """The page with `body` between its marks; they are added at the end where there are none."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    before = before if BEGIN in page else f"{page.rstrip()}\n\n".lstrip()
    return before + "\n".join([BEGIN, "", *body, "", END]) + (after or "\n")
