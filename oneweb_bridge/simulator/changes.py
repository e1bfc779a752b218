"""What was asked of the story from outside: its only state, for all else is a function of seed and time."""

from bisect import bisect_right
from typing import Any, Literal

import msgspec

Kind = Literal["terminals", "products", "organizations", "sites", "usage"]


class Correction(msgspec.Struct, frozen=True):
    """From `at` on, the measurements that were new at that time show other values."""

    at: float
    report: str | None
    index: int | None


class Addition(msgspec.Struct, frozen=True):
    """A terminal that was added."""

    index: int
    at: float
    imei: str | None


class Changes:
    """The requested changes, in the order of the requests."""

    def __init__(self) -> None:
        self.revision = 0
        self.states: dict[int, list[tuple[float, str]]] = {}
        self.frozen: list[tuple[float, float]] = []
        self.additions: list[Addition] = []
        self.added: dict[int, Addition] = {}
        self.custom_imeis: dict[str, int] = {}
        self.removed: dict[str, set[int]] = {}
        self.attributes: dict[tuple[str, int], dict[str, Any]] = {}
        self.dropped: dict[tuple[str, int], set[str]] = {}
        self.names: dict[tuple[str, int], str] = {}
        self.firmware: dict[int, dict[tuple[str, str], str]] = {}
        self.positions: dict[int, tuple[float, float, float | None]] = {}
        self.statuses: dict[int, tuple[str, float]] = {}
        self.resets: list[tuple[float, int | None]] = []
        self.corrections: list[Correction] = []
        self.rollovers: list[float] = []

    def story_time(self, at: float) -> float:
        """The time the story's own life is at: a frozen span stays at its first instant."""
        for begin, end in self.frozen:
            if begin <= at < end:
                return begin
        return at

    def is_frozen(self) -> bool:
        """Whether the story's own life stands still."""
        return bool(self.frozen) and self.frozen[-1][1] == float("inf")

    def freeze(self, on: bool, now: float) -> None:
        """Open a frozen span, or close the open one."""
        is_frozen = self.is_frozen()
        if on and not is_frozen:
            self.frozen.append((now, float("inf")))
        elif is_frozen and not on:
            self.frozen[-1] = (self.frozen[-1][0], now)

    def add(self, additions: list[Addition]) -> None:
        """Terminals that were not there before."""
        self.additions.extend(additions)
        self.added.update((addition.index, addition) for addition in additions)
        self.custom_imeis.update((addition.imei, addition.index) for addition in additions if addition.imei)

    def state_at(self, index: int, at: float) -> tuple[float, str] | None:
        """The requested state that holds at a time, and since when."""
        ordered = self.states.get(index)
        if not ordered:
            return None
        position = bisect_right(ordered, (at, "\uffff"))
        return ordered[position - 1] if position else None

    def reset_before(self, index: int, at: float) -> float:
        """When the counters of a terminal were last reset on request; 0 if never."""
        times = [when for when, whom in self.resets if when <= at and whom in {None, index}]
        return max(times, default=0.0)

    def corrections_of(self, report: str, index: int, measured: float, reach: float, now: float) -> int:
        """How often a measurement was corrected by now; `reach` is how far a correction looks back."""
        return sum(
            1
            for correction in self.corrections
            if correction.report in (None, report)
            and correction.index in (None, index)
            and correction.at - reach < measured <= correction.at <= now
        )

    def apply_to(self, kind: str, index: int, built: dict[str, Any]) -> dict[str, Any]:
        """The object with the attributes that were set or dropped on request."""
        key = (kind, index)
        if key in self.attributes:
            built.update(self.attributes[key])
        for name in self.dropped.get(key, ()):
            built.pop(name, None)
        return built
