"""The command `migrate`: the whole state of an instance, from files of SQLite to PostgreSQL or back."""

import argparse
import asyncio
import importlib.util
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from oneweb_bridge.cli.loading import load_config
from oneweb_bridge.cli.progress import show_percent
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.masks import Masks, secrets_of_state
from oneweb_bridge.config.rules import has_readable_servers
from oneweb_bridge.config.schema import Config, Instance, Secret, State
from oneweb_bridge.store import database, moving_files
from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.store.moving import Progress, move_tables
from oneweb_bridge.store.moving_files import Files, Layout
from oneweb_bridge.trends import file as trends_file
from oneweb_bridge.trends.pending import FACTS
from oneweb_bridge.trends.task import beside

SERVER = "PostgreSQL"
ADDRESS = "an address like postgresql://user@host:5432/database"


class _Move(msgspec.Struct, frozen=True):
    """What is moved: files from or to a server; `instance` is None where the state itself has to tell."""

    files: Files
    url: str
    instance: str | None
    to_server: bool


def run(options: argparse.Namespace, masks: Masks) -> None:
    """Moves the state and prints what was moved.

    Raises ConfigError for wrong usage, and StoreError where it cannot be moved; nothing was moved then.
    """
    move = _plan(options, masks)
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigError('migrate: the driver of PostgreSQL is not installed: pip install "oneweb-bridge[postgres]"')
    is_terminal = sys.stderr.isatty()
    with show_percent("of the rows moved", shown=is_terminal) as progress:
        instance, counts = asyncio.run(_move(move, progress if is_terminal else None))
    _print_result(move, instance, counts)


def _plan(options: argparse.Namespace, masks: Masks) -> _Move:
    """What the options say. Raises ConfigError."""
    config = load_config(options, masks) if options.config is not None else None
    source, target = _side("--from", options.source, masks), _side("--to", options.target, masks)
    if isinstance(source, Path) and isinstance(target, Path):
        raise ConfigError(f"migrate: expected {ADDRESS} as --from or --to, got two files: 'backup' copies a file")
    if isinstance(source, str) and isinstance(target, str):
        raise ConfigError("migrate: expected a file as --from or --to, got two addresses: use pg_dump and pg_restore")
    path, url = (source, target) if isinstance(source, Path) else (target, source)
    return _Move(files_of(Path(path), config), str(url), _instance_of(options, config), isinstance(source, Path))


def _side(option: str, text: str, masks: Masks) -> Path | str:
    """A file, or the address of a server. Raises ConfigError, which does not quote the address."""
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text) and not text.startswith(("postgres:", "postgresql:")):
        if not text or "\0" in text:
            raise ConfigError(f"migrate: {option}: expected a file name, or {ADDRESS}")
        return Path(text)
    masks.add_secrets(*secrets_of_state(State(path=None, url=Secret(text))))
    if not re.match(r"postgres(ql)?://", text) or not text.isprintable() or not has_readable_servers(text):
        raise ConfigError(
            f"migrate: {option}: expected a file name, or {ADDRESS}; escape special characters of a password"
        )
    return text


def files_of(path: Path, config: Config | None = None) -> Files:
    """The database and the trends, which are where the configuration has them, or beside it."""
    trends = Path(config.trends.path) if config is not None and config.trends.path else beside(path)
    state = Layout(database.schema_script(), database.VERSION, "state.path")
    return Files(path, trends, (state, Layout(trends_file.schema_script(), trends_file.VERSION, "trends.path", FACTS)))


def _instance_of(options: argparse.Namespace, config: Config | None) -> str | None:
    if config is not None:
        return config.instance
    if options.instance is None:
        return None
    try:
        return msgspec.convert(options.instance, Instance)
    except msgspec.ValidationError:
        raise ConfigError("migrate: --instance: expected 1 to 64 letters, digits, '_' or '-'") from None


async def _move(move: _Move, progress: Progress | None) -> tuple[str, dict[str, int]]:
    """Moves. Returns the instance, and how many rows each table has."""
    return await (_move_to_server(move, progress) if move.to_server else _move_to_files(move, progress))


async def _move_to_server(move: _Move, progress: Progress | None) -> tuple[str, dict[str, int]]:
    # Its driver is an extra.
    from oneweb_bridge.store.moving_server import open_server  # noqa: PLC0415

    with moving_files.open_source(move.files) as source:
        instance = _choose(source.instances(), move.instance, str(move.files.path))
        async with open_server(move.url) as server, server.write(instance) as target:
            return instance, await move_tables(source, target, move.files.tables(), progress)


async def _move_to_files(move: _Move, progress: Progress | None) -> tuple[str, dict[str, int]]:
    # As above.
    from oneweb_bridge.store.moving_server import open_server  # noqa: PLC0415

    async with open_server(move.url) as server:
        instances = await server.instances()
        if not instances:
            raise StoreError(f"{SERVER} has no state of any instance: look at the address")
        instance = _choose(instances, move.instance, SERVER)
        async with server.read(instance) as source:
            with moving_files.open_target(move.files, await source.journal_id()) as target:
                return instance, await move_tables(source, target, move.files.tables(), progress)


def _choose(present: Sequence[str], given: str | None, where: str) -> str:
    """The instance to move. Raises StoreError where it is not there, and ConfigError where it has to be named."""
    if given is not None:
        if present and given not in present:
            raise StoreError(f"{where} has the state of {_listed(present)}, not of {given}: name that one")
        return given
    if len(present) == 1:
        return present[0]
    if not present:
        raise ConfigError(
            f"migrate: {where} was never published, so it does not tell its instance: add --instance or -c"
        )
    raise ConfigError(f"migrate: {where} has the state of {_listed(present)}: add --instance or -c to name one")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown


def _print_result(move: _Move, instance: str, counts: Mapping[str, int]) -> None:
    # The file name may hold bytes that are no text.
    file = os.fsencode(move.files.path).decode(errors="replace")
    source, target = (file, SERVER) if move.to_server else (SERVER, file)
    records, rows, streams = counts["record"], counts["journal"], counts["stream"]
    print(f"{instance}: {records} records, {rows} rows of the journal, trends of {streams} streams are in {target} now")
    key = "state.url" if move.to_server else "state.path"
    print(f"set {key} in the configuration; what {source} has is as it was: run no bridge with it any more")
