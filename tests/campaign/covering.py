"""Which faults meet next, so that in the end every pair has met. Pure."""

import random
from collections.abc import Iterable, Sequence
from itertools import combinations

import msgspec

Pair = tuple[str, str]


class Meeting(msgspec.Struct, frozen=True):
    """A pair that has met: in how many rounds both were in force, and whether every promise held in the last one."""

    first: str
    second: str
    rounds: int
    is_held: bool


class Table(msgspec.Struct):
    """The table of pairs. It is kept over several calls; `drawn` counts the rounds that its seed has chosen."""

    seed: int
    drawn: int = 0
    seconds: float = 0.0
    meetings: list[Meeting] = []

    def note(self, faults: Sequence[str], *, is_held: bool) -> None:
        """Counts a round for every pair of its faults. Of a round that failed, only those that it was shrunk to."""
        known = self.by_pair()
        for pair in pairs_of(faults):
            rounds = known[pair].rounds if pair in known else 0
            known[pair] = Meeting(*pair, rounds + 1, is_held)
        self.meetings = [known[pair] for pair in sorted(known)]

    def by_pair(self) -> dict[Pair, Meeting]:
        """The pairs that have met."""
        return {(meeting.first, meeting.second): meeting for meeting in self.meetings}

    def left(self, possible: Iterable[Pair]) -> list[Pair]:
        """The possible pairs that have not met, in their order."""
        return sorted(set(possible) - self.by_pair().keys())

    def choose(self, possible: frozenset[Pair]) -> tuple[int, tuple[str, ...]] | None:
        """Seed and faults of the next round: a pair that has not met, and the third that brings most others with it.

        None when all have met. The same table and seed choose the same.
        """
        left = self.left(possible)
        if not left:
            return None
        chance = random.Random(f"{self.seed} {self.drawn}")
        self.drawn += 1
        faults: tuple[str, ...] = chance.choice(left)
        broken = {(meeting.first, meeting.second) for meeting in self.meetings if not meeting.is_held}
        faults = _with_third(faults, possible - broken, frozenset(left))
        return chance.randrange(1 << 30), tuple(sorted(faults))


def pairs_of(faults: Sequence[str]) -> list[Pair]:
    """Every pair, each in alphabetical order."""
    return [(first, second) for first, second in combinations(sorted(set(faults)), 2)]


def _with_third(faults: tuple[str, ...], possible: frozenset[Pair], left: frozenset[Pair]) -> tuple[str, ...]:
    """The faults and the one that may meet both and makes most new pairs; without one that makes any, as they are."""
    best, gain = faults, 1
    for third in sorted({name for pair in possible for name in pair} - set(faults)):
        pairs = set(pairs_of((*faults, third)))
        if pairs <= possible and len(pairs & left) > gain:
            best, gain = (*faults, third), len(pairs & left)
    return best
