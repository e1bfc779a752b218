"""How much is measured."""

import msgspec


class Scope(msgspec.Struct, frozen=True):
    """How often ratios are measured, which share of the full fleets, and the numbers of the rows that are wanted.

    `live` are the seconds that a page of the console stays open to see whether it grows.
    """

    rounds: int = 7
    scale: float = 1.0
    rows: frozenset[str] = frozenset()
    live: float = 20.0

    def of(self, count: int) -> int:
        """A fleet, or a number of rows, at this scale."""
        return max(1, round(count * self.scale))


def spelled(count: int) -> str:
    """100000 as 100 000."""
    return f"{count:,}".replace(",", " ")
