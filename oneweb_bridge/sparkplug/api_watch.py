"""Whether the API is there, and which calls' values are stale because it has been away. Pure, and not shared."""

from collections.abc import Collection, Mapping

STALE_AFTER_S = 60.0
"""Seconds without the API after which all values are stale."""


class ApiWatch:
    """Brought forward by `look`. `calls` are all calls; times of `look` are monotonic seconds."""

    def __init__(self, calls: Collection[str], now: float) -> None:
        self.is_connected = False
        self.changed_at = 0
        """When `is_connected` changed last, in ms since the epoch."""
        self.stale_calls: frozenset[str] = frozenset()
        """The calls whose values are stale: all once the API has been away, until each was polled again."""
        self._calls = frozenset(calls)
        self._away_since: float | None = now
        self._polls_before: dict[str, int] = {}

    def look(self, now: float, wall_ms: int, *, is_connected: bool, successes: Mapping[str, int]) -> bool:
        """Takes how the API is now, and when each call succeeded last. Returns whether anything has changed."""
        before = (self.is_connected, self.stale_calls)
        if is_connected != self.is_connected or not self.changed_at:
            self.is_connected, self.changed_at = is_connected, wall_ms
            self._away_since = None if is_connected else now
            if not is_connected:
                # As they were before the API was away: the poll by which it is back may have ended already.
                self._polls_before = dict(successes)
        if self._away_since is not None and now - self._away_since >= STALE_AFTER_S:
            self.stale_calls = self._calls
        elif is_connected and self.stale_calls:
            self.stale_calls = frozenset(
                call for call in self.stale_calls if successes.get(call, 0) <= self._polls_before.get(call, 0)
            )
        return before != (self.is_connected, self.stale_calls)
