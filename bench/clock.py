"""Wall and CPU seconds of one stretch of a program."""

import statistics
import time
from collections.abc import Sequence


class Clock:
    """Between `start` and `stop`."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self._begun = (0.0, 0.0)

    def start(self) -> None:
        """Begins."""
        self._begun = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Ends."""
        self.wall, self.cpu = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]


def ratio(ours: Sequence[Clock], theirs: Sequence[Clock]) -> tuple[float, float]:
    """The medians of the ratios round by round, of wall and of CPU seconds."""
    pairs = list(zip(ours, theirs, strict=True))
    wall = statistics.median(a.wall / b.wall for a, b in pairs)
    return wall, statistics.median(a.cpu / b.cpu for a, b in pairs)
