"""A round as a value: which faults are in force from when to when. Pure."""

import random
from collections.abc import Sequence

import msgspec


class Span(msgspec.Struct, frozen=True):
    """One fault in force. Times are in s, from the moment when the bridge is at rest, or was started."""

    fault: str
    begin: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.fault}@{self.begin:g}+{self.seconds:g}"


class Timeline(msgspec.Struct, frozen=True):
    """One to three faults that overlap. `is_cold` says that they begin with an empty database."""

    seed: int
    spans: tuple[Span, ...]
    is_cold: bool = False

    def __str__(self) -> str:
        return ", ".join(map(str, self.spans)) + (", cold" if self.is_cold else "")

    @property
    def faults(self) -> tuple[str, ...]:
        """The names of its faults."""
        return tuple(span.fault for span in self.spans)


def draw(seed: int, faults: Sequence[str], *, cold_share: float = 0.3) -> Timeline:
    """A timeline of these faults, which overlap for 2 s or more."""
    chance = random.Random(f"{seed} {sorted(faults)}")
    spans = []
    for fault in sorted(faults):
        begin = round(chance.uniform(0.0, 1.5), 1)
        spans.append(Span(fault, begin, round(chance.uniform(3.5, 6.0), 1)))
    return Timeline(seed, tuple(spans), chance.random() < cold_share)


def parse(text: str, seed: int) -> Timeline:
    """A timeline from what `str` makes of one. Raises ValueError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    spans = []
    for part in parts:
        if part != "cold":
            fault, _, times = part.rpartition("@")
            begin, _, seconds = times.partition("+")
            spans.append(Span(fault, float(begin), float(seconds)))
    return Timeline(seed, tuple(spans), "cold" in parts)
