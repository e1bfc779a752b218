"""Runs asynchronous work until SIGTERM or SIGINT, with the interpreter set up for it."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from oneweb_bridge.cli.memory import tune_allocator

MAX_STOP_S = 4.7
"""Seconds after a signal in which `run` ends, whatever is still under way: a database may be held by others."""
CANCEL_AGAIN_S = 4.0
"""Seconds after a signal to stop, and between further tries, until tasks that still run are cancelled again."""
THREAD_SWITCH_S = 0.0005


_log = logging.getLogger("oneweb_bridge.cli")


def run_until_signal(
    work: Coroutine[Any, Any, None],
    on_hangup: Callable[[], None] | None = None,
    max_stop: float | None = None,
    exit_code: Callable[[], int] = lambda: 0,
) -> int:
    """Runs until the work ends or a signal cancels it. Then it may still publish `offline` and close connections.

    Where that takes longer than `max_stop` seconds, the process ends as it is: only for work whose every end is safe.
    Returns what `exit_code` gives at the end, with which the process ends in that case, too.
    """
    tune_allocator()
    tune_interpreter()
    with contextlib.ExitStack() as stops:
        asyncio.run(_supervised(work, on_hangup, partial(_limit_stop, max_stop, stops, exit_code)))
    return exit_code()


def _limit_stop(max_stop: float | None, stops: contextlib.ExitStack, exit_code: Callable[[], int]) -> None:
    """Ends the process after so many seconds, unless all is over before."""
    if max_stop is None:
        return

    def end_now() -> None:
        _log.warning("stopped without waiting for what is still under way: the next start goes on from the database")
        os._exit(exit_code())

    timer = threading.Timer(max_stop, end_now)
    timer.daemon = True
    timer.start()
    stops.callback(timer.cancel)


async def _supervised(
    work: Coroutine[Any, Any, None], on_hangup: Callable[[], None] | None, on_stop: Callable[[], None]
) -> None:
    """Does the work until a signal. An error that comes after it is logged, because the work was to end anyway."""
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    stopped = asyncio.Event()

    def cancel_all() -> None:
        # On Python 3.11 a task group forgets that it was cancelled when one of its tasks fails just then.
        for running in asyncio.all_tasks(loop):
            running.cancel()
        loop.call_later(CANCEL_AGAIN_S, cancel_all)

    def stop() -> None:
        if not stopped.is_set():
            stopped.set()
            on_stop()
        task.cancel()
        loop.call_later(CANCEL_AGAIN_S, cancel_all)

    if on_hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        pass
    except Exception as error:
        if not stopped.is_set():
            raise
        _log.warning("stopped, though not in order: %s", _first_of(error))


def _first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def tune_interpreter() -> None:
    """Shortens the thread switch interval, and exempts start-up objects from garbage collection."""
    # A thread waits this long for the interpreter, and every answer of SQLite is such a wait.
    sys.setswitchinterval(THREAD_SWITCH_S)
    gc.collect()
    gc.freeze()
