"""Runs asynchronous work until SIGTERM or SIGINT, with the interpreter set up for it."""

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from oneweb_bridge.cli.memory import tune_allocator

CANCEL_AGAIN_S = 4.0
"""Seconds after a signal to stop, and between further tries, until tasks that still run are cancelled again."""
THREAD_SWITCH_S = 0.0005


def run_until_signal(work: Coroutine[Any, Any, None], on_hangup: Callable[[], None] | None = None) -> int:
    """Runs until the work ends or a signal cancels it. Then it may still publish `offline` and close connections."""

    async def supervised() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()

        def cancel_all() -> None:
            # On Python 3.11 a task group forgets that it was cancelled when one of its tasks fails just then.
            for running in asyncio.all_tasks(loop):
                running.cancel()
            loop.call_later(CANCEL_AGAIN_S, cancel_all)

        def stop() -> None:
            task.cancel()
            loop.call_later(CANCEL_AGAIN_S, cancel_all)

        if on_hangup is not None:
            loop.add_signal_handler(signal.SIGHUP, on_hangup)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    tune_allocator()
    tune_interpreter()
    asyncio.run(supervised())
    return 0


def tune_interpreter() -> None:
    """Shortens the thread switch interval, and exempts start-up objects from garbage collection."""
    # A thread waits this long for the interpreter, and every answer of SQLite is such a wait.
    sys.setswitchinterval(THREAD_SWITCH_S)
    gc.collect()
    gc.freeze()
