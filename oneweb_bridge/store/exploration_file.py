"""The last exploration, kept in a file beside the database: `explore` writes it, the console shows it."""

import contextlib
import os
import tempfile
from pathlib import Path

import msgspec

from oneweb_bridge.encoding import encode
from oneweb_bridge.files import refusal_of
from oneweb_bridge.model.exploration import Exploration
from oneweb_bridge.store.errors import StoreError

MAX_BYTES = 4_000_000


def exploration_path(database: Path) -> Path:
    """The file that belongs to a database: `oneweb-bridge.db` gives `oneweb-bridge.explore.json`."""
    return database.parent / f"{database.stem}.explore.json"


def write_exploration(database: Path, exploration: Exploration) -> Path:
    """Replaces what is kept, as a whole, with the rights of the database where there is one. Raises OSError."""
    path = exploration_path(database)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(encode(exploration))
        if database.exists():
            _copy_rights(database, Path(name))
        Path(name).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    return path


def _copy_rights(like: Path, path: Path) -> None:
    """Gives a file owner and mode of another: explore may be run by root, and the bridge is not root."""
    rights = like.stat()
    path.chmod(rights.st_mode & 0o777)
    with contextlib.suppress(PermissionError):
        os.chown(path, rights.st_uid, rights.st_gid)


def read_exploration(database: Path) -> Exploration | None:
    """What is kept; None where explore was never run with this database. Raises StoreError."""
    path = exploration_path(database)
    try:
        with path.open("rb") as file:
            body = file.read(MAX_BYTES)
        return msgspec.json.decode(body, type=Exploration)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({refusal_of(error)}): give the bridge's user the right") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise StoreError(f"{path} is no report of explore of this version: run explore again") from None
