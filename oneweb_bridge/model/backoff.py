"""Growing pauses between tries. Pure."""

import math


class BackOff:
    """Pauses in seconds: the first is `first`, each further one twice as long, up to `longest`."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def pause(self, at_most: float = math.inf) -> float:
        """The next pause."""
        pause = min(self._next, at_most)
        self._next = min(pause * 2, self._longest)
        return pause

    def reset(self) -> None:
        """Begins again with the first pause."""
        self._next = self._first


def nth_pause(first: float, longest: float, number: int) -> float:
    """The pause before try `number`, counted from 0."""
    # 2.0 ** 1024 would be no number any more.
    return min(first * 2.0 ** min(number, 64), longest)
