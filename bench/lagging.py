"""The real command, whose event loop writes down how late it runs: `python -m bench.lagging FILE run -c bridge.yaml`.

Each line of FILE is one look, 5 ms after the one before: by how many ms it came too late.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

from oneweb_bridge.cli import main as cli
from oneweb_bridge.cli import running

TICK_S = 0.005


def lags_of(path: Path, start: int) -> list[float]:
    """The lags in ms that were written behind the byte `start`."""
    with path.open("rb") as file:
        file.seek(start)
        # The last line may be half written.
        return [float(line) for line in file.read().rpartition(b"\n")[0].split()]


async def _watch(file: TextIO) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(TICK_S)
        file.write(f"{1000 * (time.perf_counter() - before - TICK_S):.2f}\n")


async def _watched(path: Path, work: Coroutine[Any, Any, None]) -> None:
    with path.open("w", buffering=1) as file:
        task = asyncio.create_task(_watch(file), name="lag")
        try:
            await work
        finally:
            task.cancel()


def main(path: Path, arguments: Sequence[str]) -> int:
    """Runs the command with `arguments`."""
    run_until_signal = running.__dict__["run_until_signal"]

    def run_watched(work: Coroutine[Any, Any, None], on_hangup: Callable[[], None] | None = None) -> int:
        code: int = run_until_signal(_watched(path, work), on_hangup)
        return code

    with mock.patch.object(running, "run_until_signal", run_watched):
        return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
