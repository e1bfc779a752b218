"""Chance without state: a draw is a function of its keys, so no answer depends on who asked before."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1


class About:
    """What a draw is about, so that two draws with the same other keys are independent."""

    ADDRESS = 1
    NUMBERING = 2
    PHASE = 3
    OUTAGE_LENGTH = 4
    OUTAGE_START = 5
    FIRMWARE_PHASE = 6
    POSITION = 7
    JITTER = 8
    PRESENCE = 9
    DATES = 10
    SEEN = 11
    OFFSET = 12
    VALUE = 13
    LATE = 14
    CORRECTED = 15
    RESET = 16
    RATE = 17
    USAGE = 18
    COURSE = 19
    FIXED = 20
    LEVEL = 21
    DROPPED = 22
    DAY = 23
    VOYAGE = 24
    TREND = 25


def mix(*keys: int) -> int:
    """64 well-mixed bits from some integers.

    The hash of a tuple of integers is xxHash in every CPython since 3.8, not salted, and several times
    as quick as the same in Python; splitmix64 then spreads what differs in the last key only.
    """
    bits = hash(keys) & _MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)


def draw(*keys: int) -> float:
    """A number in [0, 1)."""
    return (mix(*keys) >> 11) / 9007199254740992.0


def between(low: float, high: float, *keys: int) -> float:
    """A number in [low, high)."""
    return low + (high - low) * draw(*keys)


def pick(choices: Sequence[T], *keys: int) -> T:
    """One of the choices."""
    return choices[mix(*keys) % len(choices)]
