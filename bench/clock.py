"""Wall and CPU seconds of one stretch of a program."""

import statistics
import time
from collections.abc import Sequence

from oneweb_bridge.cli.signals import tune_interpreter


class Clock:
    """Between `start` and `stop`."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self._begun = (0.0, 0.0)

    def start(self) -> None:
        """Begins, with the interpreter as the command has it."""
        tune_interpreter()
        self._begun = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Ends."""
        self.wall, self.cpu = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round, so that a machine that drifts drifts for both."""
    return [a / b if b else 0.0 for a, b in zip(above, below, strict=True)]


def spent(clocks: Sequence[Clock]) -> str:
    """The medians in words."""
    wall, cpu = (statistics.median(getattr(clock, name) for clock in clocks) for name in ("wall", "cpu"))
    return f"{wall:.3f} s, {cpu:.3f} CPU s"


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
