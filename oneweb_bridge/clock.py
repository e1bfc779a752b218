"""The clocks of the bridge: wall time for people, steady time for ages and durations.

The wall clock may be wrong, and may be set at any moment: it gives the times that are published, and nothing is
decided by it alone. What lasts (a hold, a backlog, freshness) is measured in *steady time*, milliseconds that only
ever go forward and that nobody can set. Steady time goes on over a restart of the bridge, because the machine counts
the time since its start, also while it is suspended (CLOCK_BOOTTIME, where CLOCK_MONOTONIC stands still). Over a
start of the machine nothing trustworthy tells how long it was off: steady time goes on where it was, and what was
noted before is at least as old as it says. docs/guarantees.md lists every use.
"""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _elapsed() -> float:
    """Seconds since the machine was started; where the system does not count these, since some moment."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _boot() -> str:
    """The id of this start of the machine; empty where the system has none. Source: random(4)."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip() if hasattr(time, "CLOCK_BOOTTIME") else ""
    except (OSError, ValueError):
        return ""


class Clock:
    """The bridge's clock. `wall` gives seconds since the epoch, `elapsed` seconds since the machine's start `boot`."""

    def __init__(
        self,
        wall: Callable[[], float] = lambda: time.time(),  # noqa: PLW0108 -- looked up late, so that a test can set it
        elapsed: Callable[[], float] = _elapsed,
        boot: str | None = None,
    ) -> None:
        self.wall = wall
        self.elapsed = elapsed
        self.boot = _boot() if boot is None else boot

    def now(self) -> int:
        """The wall clock in ms since the epoch."""
        return round(self.wall() * 1000)


SYSTEM = Clock()
"""The machine's own clocks."""


class Anchor(msgspec.Struct, frozen=True, array_like=True):
    """A moment of one start of the machine: ms since that start, and the steady time then."""

    boot: str
    elapsed: int
    steady: int


class SteadyTime:
    """Steady time from an anchor on. What was noted before `began` may be older than it seems. Times in ms."""

    def __init__(self, clock: Clock, anchor: Anchor) -> None:
        self.began = anchor.steady
        self._clock = clock
        self._anchor = anchor

    def now(self) -> int:
        """The steady time."""
        return self._anchor.steady + max(0, round(self._clock.elapsed() * 1000) - self._anchor.elapsed)

    def age(self, moment: int) -> float | None:
        """Seconds since a steady time, 0 when it is ahead; None when the machine was started since, or for 0."""
        return max(0.0, (self.now() - moment) / 1000) if moment >= max(1, self.began) else None


def anchor_of(clock: Clock, before: Anchor | None, latest: int) -> Anchor:
    """The anchor for this start of the machine. `latest` is the steady time of what was noted last.

    Steady time never goes back, and counts nothing that only the wall clock tells.
    """
    elapsed = round(clock.elapsed() * 1000)
    if before is None:
        return Anchor(clock.boot, elapsed, latest)
    if before.boot == clock.boot and clock.boot and elapsed >= before.elapsed:
        return before
    # One more, so that everything noted before has a smaller time.
    return Anchor(clock.boot, elapsed, max(before.steady, latest) + 1)
