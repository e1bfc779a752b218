"""What every command does first: read its configuration, and set up the log and the masks of secrets by it."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from oneweb_bridge.cli import logs
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.masks import Masks, secrets_of, secrets_of_state
from oneweb_bridge.config.read import load
from oneweb_bridge.config.schema import Config, Log
from oneweb_bridge.files import is_folder, refusal_of

ENDINGS = (".yaml", ".yml")
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}
"""Control characters, but for tab and line feed -> how they are printed."""


def load_config(options: argparse.Namespace, masks: Masks) -> Config:
    """The configuration, after logging was set up by it. Its secrets are added to `masks`. Raises ConfigError."""
    config = load(options.config, os.environ)
    add_secrets(config, masks)
    logs.set_up(log_settings(options, config.log), masks)
    return config


def add_secrets(config: Config, masks: Masks) -> None:
    """Masks the secrets of a configuration from now on."""
    masks.add_secrets(*secrets_of(config.api), config.mqtt.password, config.console.token)
    if config.sparkplug.mqtt is not None:
        masks.add_secrets(config.sparkplug.mqtt.password)
    masks.add_secrets(*secrets_of_state(config.state))


def log_settings(options: argparse.Namespace, settings: Log) -> Log:
    """The settings of the log, with what the options of the command replace."""
    return Log(level=options.log_level or settings.level, format=options.log_format or settings.format)


def describe_damage(config: Config) -> str:
    """The sentence about a database that is damaged."""
    if config.state.url is not None:
        return "the database of state.url is damaged: put a backup in its place"
    return f"{config.state.path} is damaged: move it away, or put a backup in its place"


def masked_print(masks: Masks) -> Callable[[str], None]:
    """A function that prints lines without secrets, and without what moves a terminal's cursor.

    They may quote the API or the broker.
    """
    return lambda line: print(masks.mask_text(line).translate(_CONTROLS))


def require_single_file(command: str, given: Sequence[Path] | None) -> Path | None:
    """The one configuration file of a command that takes no more; None without one. Raises ConfigError."""
    paths = list(given or ())
    if len(paths) > 1 or any(is_folder(path) for path in paths):
        got = f"the folder {paths[0]}" if len(paths) == 1 else f"{len(paths)} times -c"
        raise ConfigError(
            f"{command}: expected one configuration file, got {got}: only run takes several; name the file of "
            "the bridge that you mean"
        )
    return paths[0] if paths else None


def find_files(given: Sequence[Path] | None) -> list[Path]:
    """The configuration files that are named, and those in a folder that is named, by name. Raises ConfigError."""
    return [file for path in given or () for file in (_files_in(path) if is_folder(path) else [path])]


def _files_in(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read: {refusal_of(error)}") from None
    named = [path for path in paths if path.suffix in ENDINGS and not path.name.startswith(".")]
    files = [path for path in named if not is_folder(path)]
    if not files:
        raise ConfigError(f"{folder}: expected at least one file that ends in .yaml or .yml in this folder")
    return files
