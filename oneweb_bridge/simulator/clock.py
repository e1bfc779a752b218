"""Simulated time: runs `speed` times as fast as real time, and can be pushed ahead."""

import math
import time
from datetime import UTC, datetime
from email.utils import formatdate


class Clock:
    """The simulated time; with speed 0 it stands still and moves by `advance` alone."""

    def __init__(self, start: float, speed: float) -> None:
        self._start = start
        self._speed = speed
        self._began = time.monotonic()
        self._ahead = 0.0

    def now(self) -> float:
        """Seconds since the epoch, in whole milliseconds."""
        passed = (time.monotonic() - self._began) * self._speed
        return math.floor((self._start + passed + self._ahead) * 1000) / 1000

    def advance(self, seconds: float) -> float:
        """Jump ahead and tell the new time."""
        self._ahead += seconds
        return self.now()


def rfc3339(at: float) -> str:
    """`2025-06-17T14:15:00Z`, whole seconds, as the API writes them."""
    return datetime.fromtimestamp(int(at), UTC).isoformat()[:19] + "Z"


def http_date(at: float) -> str:
    """The form of the HTTP Date header."""
    return formatdate(at, usegmt=True)


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch; a time without offset is UTC. ValueError if it is no time."""
    moment = datetime.fromisoformat(text.strip().replace(" ", "+"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
