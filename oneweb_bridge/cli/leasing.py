"""Runs a bridge while its worker holds the lease of its instance, and again when it has got it again."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

from oneweb_bridge.config.schema import Config
from oneweb_bridge.model.backoff import BackOff
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.lease_keeper import HeldLease, LeaseKeeper
from oneweb_bridge.store.server import Holding
from oneweb_bridge.web.standby import serve_standby

FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 10.0
"""Pauses after a start that failed, while the server grants leases but no more: no connections, or no room on its disk.
So short that all goes on soon after the server can do it again."""
STARTED_AFTER_S = 60.0
"""Seconds of running after which the next failure is followed by a short pause again."""

_log = logging.getLogger("oneweb_bridge.lease")

Run = Callable[[Config, Holding], Coroutine[Any, Any, None]]


class _LeaseEnded(Exception):
    """The lease was lost: whatever was done under it ends."""


async def run_while_held(
    config: Callable[[], Config],
    keeper: LeaseKeeper,
    run: Run,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> NoReturn:
    """Runs the bridge whenever its instance is held; meanwhile health and metrics say that it stands by.

    Raises what `run` raises, and StoreError for a database that cannot be used.
    """
    instance, loop = config().instance, asyncio.get_running_loop()
    pauses, pause = BackOff(FIRST_PAUSE_S, MAX_PAUSE_S), 0.0
    while True:
        async with contextlib.AsyncExitStack() as stack:
            stop_serving = await stack.enter_async_context(
                serve_standby(config(), keeper.worker, lambda: keeper.reaches_database, keeper.epochs)
            )
            # The lease was given up before: another worker may have more luck.
            await sleep(pause)
            held, holding = await stack.enter_async_context(keeper.hold(instance))
            await stop_serving()
            started, pause = loop.time(), 0.0
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_end_with(held), name="lease")
                    group.create_task(run(config(), holding), name=f"bridge {instance}")
            except* StoreUnavailable as group:
                # Before the bridge runs nothing waits for a server but this; the next lease is claimed when it is back.
                if loop.time() - started > STARTED_AFTER_S:
                    pauses.reset()
                pause = pauses.pause()
                _log.error("PostgreSQL was lost at the start (%s); next try in %.0f s", group.exceptions[0], pause)
            except* _LeaseEnded:
                pauses.reset()
                _log.warning(
                    "%s does not hold the instance %s any more: it stops, and goes on when it has it again",
                    keeper.worker,
                    instance,
                )


async def _end_with(held: HeldLease) -> NoReturn:
    await held.lost.wait()
    raise _LeaseEnded
