"""Decides which of two moments a local time without an offset means in the hour that comes twice. Pure. Times in ms.

At the end of summer time a clock shows one hour twice, so a time in it has two readings. These rules decide, in this
order: a moment that has not come yet is excluded; the rows run through both hours in order; the times lie in the
requested window; the API does not lose the newest stored sample, and returns again the samples that it returned
before. Where several readings are left, the earliest is taken, and counted as unsure.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise

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
    moments, unsure = list[int](), 0
    for run in _runs(possible[::step]):
        run_moments, count = _resolve_run(run, known)
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


def _resolve_run(run: list[Readings], known: Known) -> tuple[list[int], int]:
    doubtful = [at for at, (first, second) in enumerate(run) if first != second]
    if not doubtful:
        return [first for first, _ in run], 0
    # The first hour comes before the second, so each choice is one border between them.
    choices = [[readings[at >= border] for at, readings in enumerate(run)] for border in (*doubtful, len(run))]
    rising = [choice for choice in choices if choice == sorted(choice)]
    in_window = _best(rising, lambda choice: sum(ts >= known.begin for ts in choice))
    with_newest = [choice for choice in in_window if max(choice) >= known.newest] or in_window
    most_complete = _best(with_newest, lambda choice: -_count_lacking(choice, known))
    left = _best(most_complete, lambda choice: sum(ts in known.seen for ts in choice))
    # The last choice puts all rows into the first hour.
    chosen = left[-1] if left else choices[-1]
    alternatives = left or choices
    # A row whose readings were both seen cannot be wrong: it is published already.
    doubtful = [at for at in doubtful if not all(ts in known.seen for ts in run[at])]
    return chosen, sum(any(choice[at] != chosen[at] for choice in alternatives) for at in doubtful)


def _count_lacking(choice: list[int], known: Known) -> int:
    """How many seen samples are not among the rows, though they lie between them."""
    listed, first, last = set(choice), min(choice), max(choice)
    return sum(first <= ts <= last and ts not in listed for ts in known.seen)


def _best(choices: list[list[int]], score: Callable[[list[int]], int]) -> list[list[int]]:
    """The choices with the highest score."""
    scores = [score(choice) for choice in choices]
    return [choice for choice, own in zip(choices, scores, strict=True) if own == max(scores)]
