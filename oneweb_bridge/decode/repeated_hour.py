"""The hour that comes twice: which of two moments a local time without an offset means. Pure. Times in ms.

At the end of summer time a clock shows one hour twice, so a time of it has two readings. What decides, in this order:
what cannot be, because the moment has not come yet; the order of the rows, which runs through both hours; the window
that was asked for; and what is known already: the API does not lose the newest sample, and shows again what it has
shown. Where several readings are left, the earliest is taken, and counted as not sure.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise

import msgspec

Readings = tuple[int, int]
"""The earlier and the later moment that a time may mean; both are the same for most."""


class Known(msgspec.Struct, frozen=True):
    """Of one id: the window that was asked for, what is believed, its newest sample (-1: none), and what was seen."""

    begin: int = 0
    latest: int = 1 << 62
    newest: int = -1
    seen: Collection[int] = ()


def resolve_times(times: Sequence[Readings], known: Known) -> tuple[list[int], int]:
    """The moments of the rows of one id, in their order, and how many of them are not sure."""
    possible = [_possible(readings, known) for readings in times]
    if all(first == second for first, second in possible):
        return [first for first, _ in possible], 0
    falls = sum(one > other for (one, _), (other, _) in pairwise(possible))
    rises = sum(one < other for (one, _), (other, _) in pairwise(possible))
    step = -1 if falls > rises else 1
    moments, unsure = list[int](), 0
    for run in _runs(possible[::step]):
        found, count = _resolve_run(run, known)
        moments += found
        unsure += count
    return moments[::step], unsure


def _possible(readings: Readings, known: Known) -> Readings:
    """The readings that can be. In spring, where an hour is missing, the later one is before the earlier: no choice."""
    first, second = readings
    return (first, first) if second <= first or second > known.latest else readings


def _runs(times: Sequence[Readings]) -> Iterator[list[Readings]]:
    """Rows in rising order; where it falls and no hour can be the reason, something else begins: another indicator."""
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
    # The first hour comes before the second: all that may be is where the one ends.
    choices = [[readings[at >= border] for at, readings in enumerate(run)] for border in (*doubtful, len(run))]
    rising = [choice for choice in choices if choice == sorted(choice)]
    asked = _best(rising, lambda choice: sum(ts >= known.begin for ts in choice))
    newest = [choice for choice in asked if max(choice) >= known.newest] or asked
    complete = _best(newest, lambda choice: -_count_lacking(choice, known))
    left = _best(complete, lambda choice: sum(ts in known.seen for ts in choice))
    # The last choice is that of the first hour alone.
    chosen = left[-1] if left else choices[-1]
    others = left or choices
    # Of a row that is known by both its readings nothing is at stake.
    doubtful = [at for at in doubtful if not all(ts in known.seen for ts in run[at])]
    return chosen, sum(any(choice[at] != chosen[at] for choice in others) for at in doubtful)


def _count_lacking(choice: list[int], known: Known) -> int:
    """How many samples that were shown before are not among the rows, though they lie between them."""
    shown, first, last = set(choice), min(choice), max(choice)
    return sum(first <= ts <= last and ts not in shown for ts in known.seen)


def _best(choices: list[list[int]], score: Callable[[list[int]], int]) -> list[list[int]]:
    """The choices with the highest score."""
    scores = [score(choice) for choice in choices]
    return [choice for choice, own in zip(choices, scores, strict=True) if own == max(scores)]
