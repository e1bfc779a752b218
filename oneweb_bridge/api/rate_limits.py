"""Limits of requests: the bridge's own, and how long to pause after a 429, from the answer's headers. Pure.

Times are monotonic seconds and come in as arguments. Source: MuleSoft rate limiting, RFC 9110.
"""

from collections import deque
from collections.abc import Sequence

from oneweb_bridge.api.headers import retry_after
from oneweb_bridge.config.schema import RateLimit
from oneweb_bridge.model.backoff import nth_pause

HOUR_S = 3600
FIRST_PAUSE_S = 60.0
"""The first pause after a 429 that does not say how long; it doubles with each further one."""
MIN_PAUSE_S = 1.0
FAILURES_BEFORE_BACKOFF = 3
"""Failures in a row after which all calls slow down: as many as one request tries."""
FIRST_DELAY_S = 2.0
MAX_DELAY_S = 30.0
"""Longest back-off from a failing host, so that its return is noticed soon."""


class Pace:
    """Lets requests start at the minimum interval, and at most so many in any hour.

    The starts of the last hour are counted by the second, which bounds their memory.
    """

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self._last = float("-inf")
        self._counts: deque[tuple[int, int]] = deque()
        self._total = 0

    def try_start(self, now: float) -> float:
        """Counts a request and returns 0 when it may start now; else returns the seconds until the next try."""
        wait = max(self._last + self.limit.min_interval - now, self.hour_wait(now))
        if wait > 0:
            return wait
        self._last = now
        second, count = self._counts.pop() if self._counts and self._counts[-1][0] == int(now) else (int(now), 0)
        self._counts.append((second, count + 1))
        self._total += 1
        return 0.0

    def hour_wait(self, now: float) -> float:
        """Seconds until the budget of the hour allows one more request."""
        while self._counts and self._counts[0][0] + HOUR_S + 1 <= now:
            self._total -= self._counts.popleft()[1]
        allowed = self.limit.max_requests_per_hour
        if allowed is None:
            return 0.0
        excess, wait = self._total - allowed, 0.0
        for second, count in self._counts:
            if excess < 0:
                break
            excess, wait = excess - count, second + HOUR_S + 1 - now
        return wait


class Host:
    """When the API's host gets requests again: after the pause of a 429, and with a shared back-off while it fails."""

    def __init__(self, max_pause: float) -> None:
        self.max_pause = max_pause
        self.paused_until = 0.0
        self.failures = 0
        self._refusals = 0
        self._retry_at = 0.0

    def pause(self, now: float) -> float:
        """Seconds left of the pause that the host asked for; 0 when there is none."""
        return max(0.0, self.paused_until - now)

    def delay(self, now: float) -> float:
        """Seconds left of the back-off from a failing host."""
        return max(0.0, self._retry_at - now)

    def note_start(self, now: float) -> None:
        """Notes that a request starts: while the host fails, it is the only one for the back-off."""
        self._back_off(now)

    def note_success(self) -> None:
        """Notes an answer: failures and refusals start from 0 again."""
        self.failures, self._refusals, self._retry_at = 0, 0, 0.0

    def note_failure(self, now: float) -> None:
        """Notes that the host could not be reached, or answered 5xx or 408."""
        self.failures += 1
        self._back_off(now)

    def note_refusal(self, now: float, wait: float | None, spread: float = 1.0) -> float:
        """Notes a 429, or a 503 with a pause, of `wait` seconds if it says so. Returns the pause in seconds.

        `spread` is a factor that is different for each bridge, so that they do not all come back at once.
        """
        if self.pause(now) == 0:
            self._refusals += 1
        number = self._refusals - 1
        if wait is None:
            pause = nth_pause(FIRST_PAUSE_S, self.max_pause, number)
        else:
            # The pause grows also for a host that says "at once" and refuses again.
            pause = max(wait, nth_pause(MIN_PAUSE_S, FIRST_PAUSE_S, number))
        pause = min(max(pause, MIN_PAUSE_S) * spread, self.max_pause)
        self.paused_until = max(self.paused_until, now + pause)
        return pause

    def ask_at_once(self) -> None:
        """Ends the back-off for a requested poll. A pause that the host asked for holds."""
        self._retry_at = 0.0

    def _back_off(self, now: float) -> None:
        beyond = self.failures - FAILURES_BEFORE_BACKOFF
        if beyond >= 0:
            self._retry_at = now + nth_pause(FIRST_DELAY_S, MAX_DELAY_S, beyond)


def requested_pause(retry_lines: Sequence[str], reset_lines: Sequence[str], now: float) -> float | None:
    """Seconds for which a refusal asks to pause, by the API's clock `now`; None when it does not say.

    `x-ratelimit-reset` counts milliseconds until the window ends; a value above 10^9 is an epoch in
    seconds, above 10^12 in milliseconds. Nonsense counts as not said.
    """
    waits = [retry_after(retry_lines, now), *(_reset(line.strip(), now) for line in reset_lines)]
    return max((seconds for seconds in waits if seconds is not None), default=None)


def _reset(text: str, now: float) -> float | None:
    if not (text.isascii() and text.isdecimal()):
        return None
    number = float(text[:20])
    if number > 1e12:
        return number / 1000 - now
    return number - now if number > 1e9 else number / 1000
