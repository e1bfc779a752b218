"""Runs a bridge while its worker holds the lease of its instance, and again when it has got it again."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from oneweb_bridge.config.schema import Config
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.lease_keeper import HeldLease, LeaseKeeper
from oneweb_bridge.store.server import Holding
from oneweb_bridge.web.standby import serve_standby

_log = logging.getLogger("oneweb_bridge.lease")

Run = Callable[[Config, Holding], Coroutine[Any, Any, None]]


class _LeaseEnded(Exception):
    """The lease was lost: whatever was done under it ends."""


async def run_while_held(config: Callable[[], Config], keeper: LeaseKeeper, run: Run) -> NoReturn:
    """Runs the bridge whenever its instance is held; meanwhile health and metrics say that it stands by.

    Raises what `run` raises, and StoreError for a database that cannot be used.
    """
    instance = config().instance
    while True:
        async with (
            serve_standby(config(), keeper.worker, lambda: keeper.reaches_database, keeper.epochs) as stop_serving,
            keeper.hold(instance) as (held, holding),
        ):
            await stop_serving()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_end_with(held), name="lease")
                    group.create_task(run(config(), holding), name=f"bridge {instance}")
            except* StoreUnavailable as group:
                # Before the bridge runs nothing waits for a server but this; the next lease is claimed when it is back.
                _log.error("PostgreSQL was lost at the start (%s)", group.exceptions[0])
            except* _LeaseEnded:
                _log.warning(
                    "%s does not hold the instance %s any more: it stops, and goes on when it has it again",
                    keeper.worker,
                    instance,
                )


async def _end_with(held: HeldLease) -> NoReturn:
    await held.lost.wait()
    raise _LeaseEnded
