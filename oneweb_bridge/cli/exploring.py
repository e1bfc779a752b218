"""The command `explore`: its options, and what it calls."""

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path

from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.schema import Config
from oneweb_bridge.store.places import place_of


class Refused(Exception):
    """The folder or file of an option cannot be used; the text is one sentence."""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument(
        "--save", type=Path, metavar="DIR", help="writes the answers into a folder, ids and names replaced"
    )
    command.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="DIR",
        help="takes such a folder in place of the API, without a network",
    )
    command.add_argument(
        "--write", dest="file", type=Path, metavar="FILE", help="puts the changes into this file, its comments kept"
    )


def run(options: argparse.Namespace, config: Config, write: Callable[[str], None], masks: Masks) -> bool:
    """Whether every enabled call is read in full. Raises Refused, ConfigError and OSError."""
    from oneweb_bridge import explore  # noqa: PLC0415 -- no other command needs it

    # What a recording shows is about somebody else's API.
    place = place_of(config) if options.source is None else None
    database = place if isinstance(place, Path) else None
    try:
        return asyncio.run(
            explore.explore(
                config, write, options.save, masks, source=options.source, file=options.file, database=database
            )
        )
    except (explore.RecordingError, explore.WriteRefused) as error:
        raise Refused(str(error)) from None
