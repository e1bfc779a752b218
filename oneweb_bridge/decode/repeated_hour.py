"""Decides which of two moments a local time without an offset means in the hour that comes twice. Pure. Times in ms.

At the end of summer time a clock shows one hour twice, so a time in it has two readings. These rules decide, in this
order: a moment that has not come yet is excluded; the rows run through both hours in order; the times lie in the
requested window; the API does not lose the newest stored sample, and returns again the samples that it returned
before. Where several readings are left, the earliest is taken, and counted as unsure.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate, pairwise

import msgspec

Readings = tuple[int, int]
"""The earlier and the later moment that a time may mean; both are the same for most."""


class Known(msgspec.Struct, frozen=True):
    """Of one id: begin of the requested window, latest believed time, newest sample (-1: none), times seen before."""

    begin: int = 0
    latest: int = 1 << 62
    newest: int = -1
    seen: Collection[int] = ()


def resolve_times(times: Sequence[Readings], known: Known) -> tuple[list[int], int]:
    """The moments of the rows of one id, in their order, and how many of them are unsure."""
    possible = [_possible(readings, known) for readings in times]
    if all(first == second for first, second in possible):
        return [first for first, _ in possible], 0
    falls = sum(before > after for (before, _), (after, _) in pairwise(possible))
    rises = sum(before < after for (before, _), (after, _) in pairwise(possible))
    step = -1 if falls > rises else 1
    known = msgspec.structs.replace(known, seen=frozenset(known.seen))
    moments, unsure, seen = list[int](), 0, sorted(known.seen)
    for run in _runs(possible[::step]):
        run_moments, count = _resolve_run(run, known, seen)
        moments += run_moments
        unsure += count
    return moments[::step], unsure


def _possible(readings: Readings, known: Known) -> Readings:
    """The possible readings. In spring, in the missing hour, the later one is before the earlier: no choice."""
    first, second = readings
    return (first, first) if second <= first or second > known.latest else readings


def _runs(times: Sequence[Readings]) -> Iterator[list[Readings]]:
    """Rows in rising order. A fall that the repeated hour cannot explain begins the rows of another indicator."""
    run: list[Readings] = []
    for readings in times:
        if run and readings[1] < run[-1][0]:
            yield run
            run = []
        run.append(readings)
    yield run


def _resolve_run(run: list[Readings], known: Known, seen: Sequence[int]) -> tuple[list[int], int]:
    doubtful = [at for at, (first, second) in enumerate(run) if first != second]
    if not doubtful:
        return [first for first, _ in run], 0
    borders = _Borders(run, known, seen)
    # The first hour comes before the second, so each choice is one border between them.
    choices = [*doubtful, len(run)]
    in_window = _best([border for border in choices if borders.is_rising(border)], borders.count_in_window)
    with_newest = [border for border in in_window if borders.last(border) >= known.newest] or in_window
    most_complete = _best(with_newest, lambda border: -borders.count_lacking(border))
    left = _best(most_complete, borders.count_seen)
    # The last choice puts all rows into the first hour.
    chosen, alternatives = (left or choices)[-1], left or choices
    # A row whose readings were both seen cannot be wrong: it is published already.
    unsure = sum(
        alternatives[-1] > at if at >= chosen else alternatives[0] <= at
        for at in doubtful
        if not all(ts in known.seen for ts in run[at])
    )
    return borders.moments(chosen), unsure


class _Borders:
    """What each border of a run means: rows before it have their earlier moment, the others their later one.

    Everything is counted once for all borders, so that a run of any length takes time and memory in proportion to it.
    """

    def __init__(self, run: list[Readings], known: Known, seen: Sequence[int]) -> None:
        self._ordered, self._seen_times = seen, known.seen
        self._run = run
        self._earlier, self._later = ([readings[side] for readings in run] for side in (0, 1))
        self._rising_until = next((at for at, (a, b) in enumerate(pairwise(self._earlier), 1) if a > b), len(run))
        falls = (at for at in range(len(run) - 1, 0, -1) if self._later[at - 1] > self._later[at])
        self._rising_from = next(falls, 0)
        self._in_window = self._counts(lambda _, ts: ts >= known.begin)
        self._seen = self._counts(lambda _, ts: ts in known.seen)
        self._distinct = self._counts(lambda before, ts: ts in known.seen and ts != before)

    def _counts(self, counts: Callable[[int | None, int], bool]) -> tuple[list[int], list[int]]:
        """How many earlier moments before each border count, and how many later ones from it on.

        A moment is judged with its neighbour on the side away from the border.
        """
        before = [counts(last, ts) for last, ts in zip([None, *self._earlier], self._earlier, strict=False)]
        after = [counts(last, ts) for last, ts in zip([None, *self._later[::-1]], self._later[::-1], strict=False)]
        return [0, *accumulate(before)], [0, *accumulate(after)][::-1]

    def moments(self, border: int) -> list[int]:
        """The moments of all rows."""
        return self._earlier[:border] + self._later[border:]

    def is_rising(self, border: int) -> bool:
        """Whether the moments rise."""
        joins = border in (0, len(self._run)) or self._earlier[border - 1] <= self._later[border]
        return border <= self._rising_until and border >= self._rising_from and joins

    def last(self, border: int) -> int:
        """The last moment."""
        return self._earlier[-1] if border == len(self._run) else self._later[-1]

    def count_in_window(self, border: int) -> int:
        """How many moments lie in the requested window."""
        return self._in_window[0][border] + self._in_window[1][border]

    def count_seen(self, border: int) -> int:
        """How many moments were seen before."""
        return self._seen[0][border] + self._seen[1][border]

    def count_lacking(self, border: int) -> int:
        """How many seen samples are not among the moments, which rise, though they lie between them."""
        listed = self._distinct[0][border] + self._distinct[1][border]
        if 0 < border < len(self._run) and self._earlier[border - 1] == self._later[border]:
            # A row with an offset may stand beside the border.
            listed -= self._later[border] in self._seen_times
        first = self._earlier[0] if border else self._later[0]
        return bisect_right(self._ordered, self.last(border)) - bisect_left(self._ordered, first) - listed


def _best(borders: list[int], score: Callable[[int], int]) -> list[int]:
    """The borders with the highest score."""
    scores = [score(border) for border in borders]
    highest = max(scores, default=0)
    return [border for border, own in zip(borders, scores, strict=True) if own == highest]
