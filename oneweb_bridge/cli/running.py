"""The command `run`: one bridge, or several in one process, until a signal."""

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from oneweb_bridge.cli.loading import find_files, load_config
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import require_credentials, require_sparkplug
from oneweb_bridge.config.schema import Config
from oneweb_bridge.store.errors import StoreDamaged, StoreError

DONE, FAILED = 0, 1
CANCEL_AGAIN_S = 4.0
"""Seconds after a signal to stop, and between further tries, until tasks that still run are cancelled again."""
THREAD_SWITCH_S = 0.0005

_log = logging.getLogger("oneweb_bridge.cli")


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

    tune_interpreter()
    asyncio.run(supervised())
    return DONE


def tune_interpreter() -> None:
    """Shortens the thread switch interval, and exempts start-up objects from garbage collection."""
    # A thread waits this long for the interpreter, and every answer of SQLite is such a wait.
    sys.setswitchinterval(THREAD_SWITCH_S)
    gc.collect()
    gc.freeze()


def run(options: argparse.Namespace, print_error: Callable[[str, int], int]) -> int:
    """Runs the bridge of each configuration file that is named. Raises ConfigError."""
    files = find_files(options.config)
    if len(files) > 1:
        from oneweb_bridge.cli.several import run_several  # noqa: PLC0415 -- a single bridge needs none of it

        return run_several(options, files)
    options.config = files[0] if files else None
    return _run_single(options, print_error)


def _run_single(options: argparse.Namespace, print_error: Callable[[str, int], int]) -> int:
    from oneweb_bridge import app  # noqa: PLC0415 -- no other command needs it

    masks = Masks()
    config = load_config(options, masks)
    require_credentials(config)
    require_sparkplug(config)
    reloads: asyncio.Queue[Config] = asyncio.Queue()

    def reload() -> None:
        try:
            new_config = load_config(options, masks)
            require_credentials(new_config)
        except ConfigError as error:
            _log.error("%s; the configuration stays as it was", error)
            return
        reloads.put_nowait(new_config)

    try:
        return run_until_signal(app.run(config, masks=masks, reloads=reloads), reload)
    except* StoreError as group:
        return_code = print_error(str(group.exceptions[0]), FAILED)
    except* StoreDamaged:
        return_code = print_error(describe_damage(config), FAILED)
    return return_code


def describe_damage(config: Config) -> str:
    """The sentence about a database that is damaged."""
    return f"{config.state.path} is damaged: move it away, or put a backup in its place"
