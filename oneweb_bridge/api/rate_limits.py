"""How fast the API may be asked: what the bridge allows itself, and what the answers ask for. Pure.

Times are monotonic seconds and come in as arguments. Source: MuleSoft rate limiting, RFC 9110.
"""

from collections import deque
from collections.abc import Sequence

from oneweb_bridge.api.headers import retry_after
from oneweb_bridge.config.schema import RateLimit

HOUR = 3600
FIRST_PAUSE_S = 60.0
"""The first pause after a 429 that does not say how long; it doubles with each further one."""
MIN_PAUSE_S = 1.0
PATIENT_FAILURES = 3
"""Failures in a row after which all calls slow down: as many as one request tries."""
FIRST_DELAY_S = 2.0
MAX_DELAY_S = 30.0
"""The longest time in which a host that fails is not asked, so that its return is noticed soon."""


class Pace:
    """When the next request may start: far enough from the one before, and never too many in any hour.

    The starts of the last hour are counted by the second, so that their number takes no memory.
    """

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self._last = float("-inf")
        self._counts: deque[tuple[int, int]] = deque()
        self._total = 0

    def start(self, now: float) -> float:
        """0 when a request may start now, which is counted then; else how many seconds to wait before asking again."""
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
        while self._counts and self._counts[0][0] + HOUR + 1 <= now:
            self._total -= self._counts.popleft()[1]
        allowed = self.limit.max_requests_per_hour
        if allowed is None:
            return 0.0
        excess, wait = self._total - allowed, 0.0
        for second, count in self._counts:
            if excess < 0:
                break
            excess, wait = excess - count, second + HOUR + 1 - now
        return wait


class Host:
    """When the API's host may be asked again: what it asked for itself, and a shared back-off while it fails."""

    def __init__(self, max_pause: float) -> None:
        self.max_pause = max_pause
        self.paused_until = 0.0
        self.failures = 0
        self._refusals = 0
        self._retry_at = 0.0

    def pause(self, now: float) -> float:
        """Seconds for which the host asked to be left alone; 0 when it may be asked."""
        return max(0.0, self.paused_until - now)

    def delay(self, now: float) -> float:
        """Seconds for which a host that fails is not asked."""
        return max(0.0, self._retry_at - now)

    def start(self, now: float) -> None:
        """A request starts: while the host fails, it is the only one for some time."""
        self._back_off(now)

    def answered(self) -> None:
        """The host gave an answer that is no sign of trouble."""
        self.failures, self._refusals, self._retry_at = 0, 0, 0.0

    def failed(self, now: float) -> None:
        """The host could not be reached, or could not answer."""
        self.failures += 1
        self._back_off(now)

    def refused(self, now: float, wait: float | None, spread: float = 1.0) -> float:
        """The host asks to be left alone, for `wait` seconds if it says so. Returns for how long it will be.

        `spread` is a factor that is different for each bridge, so that they do not all come back at once.
        """
        if self.pause(now) == 0:
            self._refusals += 1
        growth = 2.0 ** min(self._refusals - 1, 30)
        # A host that says "at once" and refuses again is not asked each second for ever.
        pause = FIRST_PAUSE_S * growth if wait is None else max(wait, min(MIN_PAUSE_S * growth, FIRST_PAUSE_S))
        pause = min(max(pause, MIN_PAUSE_S) * spread, self.max_pause)
        self.paused_until = max(self.paused_until, now + pause)
        return pause

    def ask_at_once(self) -> None:
        """Ends the wait after failures, for a poll that somebody wants now. What the host asked for holds."""
        self._retry_at = 0.0

    def _back_off(self, now: float) -> None:
        beyond = self.failures - PATIENT_FAILURES
        if beyond >= 0:
            self._retry_at = now + min(FIRST_DELAY_S * 2.0 ** min(beyond, 30), MAX_DELAY_S)


def requested_pause(retry_lines: Sequence[str], reset_lines: Sequence[str], now: float) -> float | None:
    """How many seconds a refusal asks to be left alone, by the API's clock `now`; None when it does not say.

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
