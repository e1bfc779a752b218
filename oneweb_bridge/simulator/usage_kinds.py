"""How products use data: seven kinds of daily amounts, each a function of its keys and the day.

The amounts of a kind are relative: about 1 a day on average over the kinds' own cycles, so that a tariff's share of its
allowance is chosen elsewhere. Days are UTC days since the epoch.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

from .draws import About, between, draw

_NORMAL = NormalDist()
_NIGHT = 0.8
"""How much less than the average is used at midnight, and more at noon."""
_BURST, _WALK, _WALK_DAYS = 0.9, 0.07, 45
_SHIFT_DAYS, _GROWTH_DAYS, _GROWTH = 60, 360, 0.005

Keys = tuple[int, ...]
Kind = Callable[[Keys, int], float]


def _normal(*keys: int) -> float:
    return _NORMAL.inv_cdf(max(draw(*keys), 1e-9))


def _noise(spread: float, keys: Keys, day: int) -> float:
    """A factor around 1 that differs from day to day."""
    return max(0.0, 1.0 + spread * _normal(*keys, About.DAY, day))


def _office(keys: Keys, day: int) -> float:
    """Weekdays, and little at the weekend. Day 0 of the epoch was a Thursday."""
    return (1.33 if (day + 3) % 7 < 5 else 0.18) * _noise(0.3, keys, day)


def _steady(keys: Keys, day: int) -> float:
    return _noise(0.1, keys, day)


def _vessel(keys: Keys, day: int) -> float:
    """At sea for some days, then in port, where hardly anything is used."""
    length = 12 + int(17 * draw(*keys, About.VOYAGE))
    voyage, at = divmod(day + int(length * draw(*keys, About.VOYAGE, 1)), length)
    in_port = at < between(0.2, 0.6, *keys, About.VOYAGE, 2, voyage) * length
    return (0.05 if in_port else 1.6) * _noise(0.25, keys, day)


def _bursty(keys: Keys, day: int) -> float:
    """A few days that are many times the others."""
    return math.exp(_BURST * _normal(*keys, About.DAY, day) - _BURST**2 / 2)


def _shift(keys: Keys, day: int) -> float:
    """A level that holds for some weeks, then another."""
    period = (day + int(_SHIFT_DAYS * draw(*keys, About.TREND))) // _SHIFT_DAYS
    return between(0.4, 1.6, *keys, About.TREND, 1, period) * _noise(0.35, keys, day)


def _growth(keys: Keys, day: int) -> float:
    """More every week, for months; then from the beginning."""
    grown = (day + int(_GROWTH_DAYS * draw(*keys, About.TREND))) % _GROWTH_DAYS - _GROWTH_DAYS / 2
    return math.exp(_GROWTH * grown) * _noise(0.35, keys, day)


def _walk(keys: Keys, day: int) -> float:
    """A level that wanders: the sum of the steps of two months."""
    steps = sum(_normal(*keys, About.TREND, step) for step in range(day - _WALK_DAYS, day))
    return math.exp(_WALK * steps - _WALK**2 * _WALK_DAYS / 2) * _noise(0.3, keys, day)


KINDS: dict[str, Kind] = {
    "office": _office,
    "steady": _steady,
    "vessel": _vessel,
    "bursty": _bursty,
    "shift": _shift,
    "growth": _growth,
    "walk": _walk,
}

SMOOTH = "smooth"
"""The use without a kind: the same every day."""


def kinds_of(text: str) -> tuple[str, ...]:
    """The kinds that a text names, with commas between them; none of `smooth`. ValueError for any other."""
    names = tuple(name.strip() for name in text.split(","))
    if names == (SMOOTH,):
        return ()
    if not set(names) <= KINDS.keys():
        raise ValueError(f"expected {SMOOTH}, or some of {', '.join(KINDS)}")
    return names


@lru_cache(maxsize=1 << 18)
def amount_of_day(kind: str, keys: Keys, day: int) -> float:
    """What is used on one day, relative to the average of the kind."""
    return KINDS[kind](keys, day)


def amount_between(kind: str, keys: Keys, begin: float, end: float) -> float:
    """What is used in a span, in days; times in seconds since the epoch."""
    first, first_part = _day_and_part(begin)
    last, last_part = _day_and_part(end)
    whole = sum(amount_of_day(kind, keys, day) for day in range(first, last))
    before = amount_of_day(kind, keys, first) * first_part
    return whole - before + amount_of_day(kind, keys, last) * last_part


def _day_and_part(at: float) -> tuple[int, float]:
    """The day of a time, and which part of that day's amount was used before it."""
    day, seconds = divmod(at, 86400.0)
    passed = seconds / 86400.0
    return int(day), passed - _NIGHT * math.sin(2 * math.pi * passed) / (2 * math.pi)
