"""How much one transaction or one read takes at most, so that no other writer waits long and memory stays bounded."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

SLICE = 1000
"""Records of one slice."""

_T = TypeVar("_T")


def slices_of(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """The values in slices of at most `SLICE`."""
    for start in range(0, len(values), SLICE):
        yield values[start : start + SLICE]
