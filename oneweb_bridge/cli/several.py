"""`run` with several configuration files: bridges in one process, each with its own database, lock and client id.

A bridge that ends with an error does not end the others; it is started again after a pause that grows. When none of
them runs any more the process ends, so that its supervisor takes over.
"""

import argparse
import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from oneweb_bridge import app, systemd
from oneweb_bridge.cli import logs
from oneweb_bridge.cli.conflicts import find_conflict
from oneweb_bridge.cli.loading import add_secrets, describe_damage, log_settings
from oneweb_bridge.cli.signals import MAX_STOP_S, run_until_signal
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.masks import MAX_TEMPORARY, Masks
from oneweb_bridge.config.read import load, require_credentials, require_postgres, require_sparkplug
from oneweb_bridge.config.schema import Config
from oneweb_bridge.model.backoff import BackOff
from oneweb_bridge.mqtt.link import run_in_own_task
from oneweb_bridge.store.errors import StoreDamaged, StoreError
from oneweb_bridge.store.server import Holding

if TYPE_CHECKING:
    from oneweb_bridge.store.lease_keeper import LeaseKeeper

DONE, FAILED = 0, 1
FIRST_RESTART_S, MAX_RESTART_S = 10.0, 300.0
HEALTHY_AFTER_S = 600.0
"""Seconds of running after which the next failure is followed by a short pause again."""

_log = logging.getLogger("oneweb_bridge.cli")


class NothingRuns(Exception):
    """Every bridge of the process has ended with an error."""


class SharedWatchdog:
    """systemd watches one process: it is alive while each bridge that runs in it is."""

    def __init__(self) -> None:
        self._checks: list[Callable[[], bool]] = []
        self._has_begun = asyncio.Event()

    def begin(self) -> None:
        """The process is ready, although no bridge may run in it for long: it waits for leases."""
        self._has_begun.set()

    async def join(self, is_alive: Callable[[], bool]) -> None:
        """Counts a bridge for as long as it runs. Never returns."""
        self._checks.append(is_alive)
        self.begin()
        try:
            await asyncio.Event().wait()
        finally:
            self._checks.remove(is_alive)

    def is_alive(self) -> bool:
        """Whether all that run are alive."""
        return all(is_alive() for is_alive in self._checks)

    async def run(self) -> None:
        """Notifies systemd, once a bridge has begun, or the process waits for leases. Never returns."""
        await self._has_begun.wait()
        await systemd.keep_watchdog(self.is_alive)


class Instances:
    """The bridges of this process. `run` keeps them until it is cancelled."""

    def __init__(self, configs: Sequence[Config], masks: Masks) -> None:
        self.down: set[str] = set()
        """The instances that have ended with an error and are not started again yet."""
        self._configs = {config.instance: config for config in configs}
        self._masks = masks
        self._reloads: dict[str, app.Reloads] = {}
        self._watchdog = SharedWatchdog()
        self._keepers: dict[str, LeaseKeeper] = {}

    async def run(self) -> None:
        """Runs all. Raises NothingRuns, in a group, when the last of them has ended with an error."""
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            group.create_task(self._watchdog.run(), name="watchdog")
            for keeper in await self._open_keepers(stack):
                group.create_task(keeper.run(), name="leases")
                self._watchdog.begin()
            for instance in self._configs:
                group.create_task(self._keep_running(instance), name=instance)

    def reload(self, configs: Sequence[Config]) -> None:
        """Gives each bridge its new configuration; one that does not run now begins with it.

        What takes effect with a restart only stays as it is in both cases.
        """
        for instance, config in zip(list(self._configs), configs, strict=True):
            token = logs.INSTANCE.set(instance)
            kept = self._configs[instance] = app.keep_identity(config, self._configs[instance])
            logs.INSTANCE.reset(token)
            if instance in self._reloads:
                self._reloads[instance].put_nowait(kept)

    async def _keep_running(self, instance: str) -> NoReturn:
        logs.INSTANCE.set(instance)
        pauses, loop = BackOff(FIRST_RESTART_S, MAX_RESTART_S), asyncio.get_running_loop()
        while True:
            started = loop.time()
            self.down.discard(instance)
            try:
                await run_in_own_task(self._run_once(instance), f"bridge {instance}")
            except* StoreError as group:
                _log.error("%s", group.exceptions[0])
            except* StoreDamaged:
                _log.error("%s", describe_damage(self._configs[instance]))
            except* Exception as group:  # noqa: BLE001 -- a bug of one bridge must not end the others
                _log.critical("this is a bug, please report it", exc_info=group)
            self.down.add(instance)
            if len(self.down) == len(self._configs):
                raise NothingRuns
            if loop.time() - started > HEALTHY_AFTER_S:
                pauses.reset()
            pause = pauses.pause()
            _log.error("this bridge has ended, the others go on; it is started again in %.0f s", pause)
            await asyncio.sleep(pause)

    async def _open_keepers(self, stack: contextlib.AsyncExitStack) -> list["LeaseKeeper"]:
        """A keeper of leases for each database of PostgreSQL that is named."""
        configs = list(self._configs.values())
        for state in (config.state for config in configs):
            if state.url is not None and state.url not in self._keepers:
                # Its driver is installed only where it is used.
                from oneweb_bridge.store.lease_keeper import open_keeper  # noqa: PLC0415

                instances = [config.instance for config in configs if config.state.url == state.url]
                self._keepers[state.url] = await stack.enter_async_context(open_keeper(state, instances))
        return list(self._keepers.values())

    async def _run_once(self, instance: str) -> None:
        self._reloads[instance] = asyncio.Queue()
        try:
            keeper = self._keepers.get(self._configs[instance].state.url or "")
            if keeper is None:
                await self._run_bridge(self._configs[instance], None)
                return
            from oneweb_bridge.cli.leasing import run_while_held  # noqa: PLC0415 -- as above

            await run_while_held(lambda: self._configs[instance], keeper, self._run_bridge)
        finally:
            del self._reloads[instance]

    async def _run_bridge(self, config: Config, holding: Holding | None) -> None:
        await app.run(
            config,
            masks=self._masks,
            holding=holding,
            reloads=self._reloads[config.instance],
            keep_watchdog=self._watchdog.join,
        )


def run_several(options: argparse.Namespace, files: Sequence[Path]) -> int:
    """Runs the bridges of several files until a signal. Raises ConfigError before anything is started.

    Returns 0 when all of them ran at the end, else 1.
    """
    masks = Masks(MAX_TEMPORARY * len(files))
    configs = _load_all(options, files, masks)
    instances: list[Instances] = []

    async def work() -> None:
        instances.append(Instances(configs, masks))
        await instances[0].run()

    def reload() -> None:
        try:
            new_configs = _load_all(options, files, masks)
        except ConfigError as error:
            _log.error("%s; all configurations stay as they were", error)
            return
        instances[0].reload(new_configs)

    def exit_code() -> int:
        return FAILED if not instances or instances[0].down else DONE

    try:
        run_until_signal(work(), reload, MAX_STOP_S, exit_code)
    except* NothingRuns:
        _log.error("none of the %d bridges runs any more", len(files))
    return exit_code()


def _load_all(options: argparse.Namespace, files: Sequence[Path], masks: Masks) -> list[Config]:
    """The configuration of each file, after logging was set up by the first one's. Raises ConfigError."""
    configs: dict[Path, Config] = {}
    for file in files:
        config = configs[file] = load(file, os.environ)
        add_secrets(config, masks)
        try:
            require_credentials(config)
            require_sparkplug(config)
            require_postgres(config)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None
    if (conflict := find_conflict(configs)) is not None:
        raise ConfigError(conflict)
    first = next(iter(configs.values()))
    logs.set_up(log_settings(options, first.log), masks)
    return list(configs.values())
