"""What the console remembers of its visitors: sessions, wrong tokens, and how often an address asks.

Times are seconds of a clock that never goes back, and are arguments. All of it is gone at a restart. Pure.
"""

import hashlib
from collections import deque

MAX_SESSIONS = 1000
MAX_WRONG_TOKENS = 5
GUESSING_S = 60.0
MAX_REQUESTS = 100
"""Requests of one address within a second."""
REQUESTS_S = 1.0
MAX_ADDRESSES = 10_000
"""Addresses that are remembered at once; the one that was heard of longest ago is forgotten first."""


class Sessions:
    """Signed-in sessions, by the hash of their cookie: whoever reads the process's memory cannot use it."""

    def __init__(self) -> None:
        self._ends: dict[bytes, float] = {}

    def add(self, value: str, end: float) -> None:
        """Begins a session that lasts until `end`."""
        while len(self._ends) >= MAX_SESSIONS:
            del self._ends[next(iter(self._ends))]
        self._ends[_hash(value)] = end

    def has(self, value: str, now: float) -> bool:
        """Whether a cookie's value belongs to a session that has not ended."""
        key = _hash(value)
        if self._ends.get(key, now) > now:
            return True
        self._ends.pop(key, None)
        return False

    def end(self, value: str) -> None:
        """Ends a session."""
        self._ends.pop(_hash(value), None)

    def end_all(self) -> None:
        """Ends all sessions."""
        self._ends.clear()


def _hash(value: str) -> bytes:
    return hashlib.sha256(value.encode(errors="replace")).digest()


class RecentTimes:
    """For each key the times of its last events, at most `most` of them and none older than `seconds`."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._times: dict[str, deque[float]] = {}

    def add(self, key: str, now: float) -> None:
        """Notes an event."""
        times = self._times.pop(key, None) or deque(maxlen=self._most)
        while len(self._times) >= MAX_ADDRESSES:
            del self._times[next(iter(self._times))]
        self._times[key] = times
        times.append(now)

    def wait(self, key: str, now: float) -> float:
        """Seconds until there is room for another event; 0 when there is."""
        times = self._times.get(key)
        if times is None:
            return 0.0
        while times and times[0] <= now - self._seconds:
            times.popleft()
        return times[0] + self._seconds - now if len(times) >= self._most else 0.0
