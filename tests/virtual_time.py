"""An event loop whose time is virtual: where nobody works any more, it is at once the time of the next timer.

`run` plays a coroutine so. As long as it runs, `time.time` and `time.monotonic` of the whole process are those of the
loop, and with them every clock, interval, timeout and pause of what is played; a day takes as long as its work. What
threads do for the loop (SQLite, slices of a poll), and what stands in sockets of this process, takes no time at all.

It does not suit what waits for other processes: for the loop they seem to be idle.
"""

import asyncio
import contextlib
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from unittest import mock

import aiosqlite

MAX_WORK_S = 60.0
"""Real seconds that a thread may work for the loop, and that a loop without any timer waits."""
_LOOK_S = 0.05
_THREADS = 4
Result = TypeVar("Result")


class VirtualTime:
    """Seconds since the epoch at the start, and how many have passed since."""

    def __init__(self, start: float) -> None:
        self.passed = 0.0
        self._start = start
        self._works: set[object] = set()

    def wall(self) -> float:
        """What `time.time` gives."""
        return self._start + self.passed

    def monotonic(self) -> float:
        """What `time.monotonic` gives: 0 is long ago, as on a machine that has run for a while."""
        return 1000.0 + self.passed

    @property
    def is_at_work(self) -> bool:
        """Whether a thread works for the loop."""
        return bool(self._works)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Time stands still within the block."""
        work = object()
        self._works.add(work)
        try:
            yield
        finally:
            self._works.discard(work)

    def stand_still_until(self, future: Future[Any]) -> None:
        """Time stands still until a thread has ended its work and told the loop so."""
        self._works.add(future)
        # Callbacks run in their order: that by which the loop hears of the end stands before this one.
        future.add_done_callback(self._works.discard)


class _Selector(selectors.DefaultSelector):
    """Waits for threads and sockets alone; the time that the loop would sleep passes at once."""

    def __init__(self, virtual: VirtualTime) -> None:
        super().__init__()
        self._virtual = virtual

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        begun = time.perf_counter()
        while True:
            # Asked before the sockets are: what ended its work until now has written into the loop's own.
            was_at_work = self._virtual.is_at_work
            if (events := super().select(0)) or (timeout is not None and timeout <= 0):
                return events
            if timeout is not None and not was_at_work:
                self._virtual.passed += timeout
                return []
            if events := super().select(_LOOK_S):
                return events
            if time.perf_counter() - begun > MAX_WORK_S:
                raise TimeoutError(f"nothing has happened for {MAX_WORK_S:.0f} s, and nothing is due")


class VirtualLoop(asyncio.SelectorEventLoop):
    """The event loop. Made while `time.monotonic` is virtual already."""

    def __init__(self, virtual: VirtualTime) -> None:
        super().__init__(_Selector(virtual))
        self.virtual = virtual
        self._threads = ThreadPoolExecutor(_THREADS, "virtual")
        self.set_default_executor(self._threads)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """As asyncio's own; time stands still meanwhile."""
        future = (executor or self._threads).submit(func, *args)
        wrapped = asyncio.wrap_future(future, loop=self)
        self.virtual.stand_still_until(future)
        return wrapped

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # as asyncio's
        """As asyncio's own, without its bound: that time would pass at once."""
        await super().shutdown_default_executor()


@contextlib.contextmanager
def _sqlite_takes_no_time(virtual: VirtualTime) -> Iterator[None]:
    """Time stands still while a connection works on a statement, is opened or closed."""

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        async def work(self: aiosqlite.Connection, *arguments: Any, **named: Any) -> Any:
            with virtual.at_work():
                return await real(self, *arguments, **named)

        return work

    with contextlib.ExitStack() as stack:
        for name in ("_execute", "_connect", "close"):
            real = getattr(aiosqlite.Connection, name)
            stack.enter_context(mock.patch.object(aiosqlite.Connection, name, counted(real)))
        yield


def run(main: Coroutine[Any, Any, Result], start: float) -> Result:
    """The result of a coroutine, played in virtual time that begins at `start`, in seconds since the epoch."""
    virtual = VirtualTime(start)
    with (
        mock.patch.object(time, "time", virtual.wall),
        mock.patch.object(time, "monotonic", virtual.monotonic),
        _sqlite_takes_no_time(virtual),
        asyncio.Runner(loop_factory=partial(VirtualLoop, virtual)) as runner,
    ):
        return runner.run(main)
