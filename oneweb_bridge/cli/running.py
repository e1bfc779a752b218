"""The command `run`: one bridge, or several in one process, until a signal."""

import argparse
import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from oneweb_bridge.cli.loading import describe_damage, find_files, load_config
from oneweb_bridge.cli.signals import MAX_STOP_S, run_until_signal
from oneweb_bridge.config.credentials import missing_credential
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import require_credentials, require_sparkplug
from oneweb_bridge.config.schema import Config
from oneweb_bridge.store.errors import StoreDamaged, StoreError

FAILED = 1

_log = logging.getLogger("oneweb_bridge.cli")


def run(options: argparse.Namespace, print_error: Callable[[str, int], int]) -> int:
    """Runs the bridge of each configuration file that is named. Raises ConfigError."""
    # Until the bridge listens for it: what is read now is as new as what it asks for.
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    files = find_files(options.config)
    if len(files) > 1:
        return _run_several(options, files)
    options.config = files[0] if files else None
    masks = Masks()
    config = load_config(options, masks)
    if config.state.url is not None:
        return _run_several(options, files or [Path("bridge.yaml")])
    return _run_single(options, config, masks, print_error)


def _run_several(options: argparse.Namespace, files: Sequence[Path]) -> int:
    from oneweb_bridge.cli.several import run_several  # noqa: PLC0415 -- a single bridge with SQLite needs none of it

    return run_several(options, files)


def _run_single(
    options: argparse.Namespace, config: Config, masks: Masks, print_error: Callable[[str, int], int]
) -> int:
    from oneweb_bridge import app  # noqa: PLC0415 -- no other command needs it

    if missing_credential(config.api) and not _has_console(config):
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
        return run_until_signal(app.run(config, masks=masks, reloads=reloads), reload, MAX_STOP_S)
    except* StoreError as group:
        return_code = print_error(str(group.exceptions[0]), FAILED)
    except* StoreDamaged:
        return_code = print_error(describe_damage(config), FAILED)
    return return_code


def _has_console(config: Config) -> bool:
    """Whether there is a page that can say what is missing, and how to give it."""
    from oneweb_bridge.web.access import reason_for_off  # noqa: PLC0415 -- needed without credentials only

    return reason_for_off(config) is None
