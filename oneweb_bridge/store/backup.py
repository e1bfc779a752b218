"""`oneweb-bridge backup`: a consistent copy of the database, also while the bridge writes to it.

The copy is of one moment: the source is read in one transaction, so a bridge that goes on neither waits nor
makes the copy begin again. The copy is marked: whenever it is restored, the numbers of the rows that it lacks
come again with other content, but its journal gets a new id then, so no event id comes twice.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from oneweb_bridge.files import refusal_of
from oneweb_bridge.store import database
from oneweb_bridge.store.errors import StoreError

PAGES = 1024
"""Pages copied in one step: a few MB, so that progress is shown and Ctrl-C takes effect."""

Progress = Callable[[int, int], None]
"""Is called with how many pages are copied, and of how many."""


class BackupError(Exception):
    """The copy could not be made; the text says why and what to do."""


class Source(msgspec.Struct, frozen=True):
    """A file to copy, and the copy. The database's copy is marked, so that its journal gets a new id."""

    path: Path
    target: Path
    is_marked: bool = True


def write_backups(sources: Sequence[Source], *, force: bool = False, progress: Progress = lambda *_: None) -> list[int]:
    """Copies files to new private ones, in this order: all of them whole, or none. Returns the bytes of each.

    Raises StoreError for a source and BackupError for a target; a file that exists is replaced with `force` only.
    """
    for source in sources:
        with _named_by(source.target):
            _check_target([other.path for other in sources], source.target, force=force)
    with contextlib.ExitStack() as stack:
        parts = []
        for source in sources:
            with _named_by(source.target):
                part = source.target.with_name(f"{source.target.name}.part")
                stack.enter_context(_new_file(part))
                _copy(source, part, progress)
                parts.append(part)
        for source, part in zip(sources, parts, strict=True):
            with _named_by(source.target):
                part.replace(source.target)
    for source in sources:
        with _named_by(source.target):
            _fsync_directory(source.target.parent)
    return [source.target.stat().st_size for source in sources]


@contextlib.contextmanager
def _named_by(target: Path) -> Iterator[None]:
    """Turns what the system says of a copy into a BackupError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise BackupError(f"{target} cannot be written ({refusal_of(error)}): name a file elsewhere") from None


def _check_target(sources: Sequence[Path], target: Path, *, force: bool) -> None:
    suffixes = ("", "-wal", "-shm", ".lock")
    taken = [source.with_name(source.name + suffix) for source in sources for suffix in suffixes]
    if any(target.absolute() == path.absolute() or _same_file(target, path) for path in taken):
        raise BackupError(f"{target} belongs to the running database: name another file")
    if target.is_dir():
        raise BackupError(f"{target} is a directory: name a file in it")
    if (target.exists() or target.is_symlink()) and not force:
        raise BackupError(f"{target} exists already: name another file, or say --force to replace it")


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


@contextlib.contextmanager
def _new_file(part: Path) -> Iterator[None]:
    """A file that only this user can read, gone at the end unless it was given its name."""
    try:
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise BackupError(f"{part} exists: remove it, unless another backup is under way") from None
    try:
        yield
    finally:
        part.unlink(missing_ok=True)


def _copy(source: Source, part: Path, progress: Progress) -> None:
    """Copies page by page within one read transaction, and marks the copy."""
    with _open_source(source.path) as read:
        try:
            with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as write:
                read.backup(write, pages=PAGES, progress=lambda _, left, all_: progress(all_ - left, all_))
                _finish_copy(write, is_marked=source.is_marked)
        except sqlite3.DatabaseError as error:
            raise BackupError(f"{source.path} could not be copied to {part.parent} ({error})") from None


@contextlib.contextmanager
def _open_source(source: Path) -> Iterator[sqlite3.Connection]:
    """The database within one read transaction, in which nothing changes."""
    uri = database.uri_of(source, read_only=True)
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as read:
        try:
            read.execute("PRAGMA busy_timeout = 10000")
            read.execute("BEGIN")
            read.execute("SELECT value FROM meta WHERE name = 'journal'").fetchone()
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{source} cannot be read as the bridge's database ({error}): name its state.path"
            ) from None
        yield read


def _finish_copy(copy: sqlite3.Connection, *, is_marked: bool) -> None:
    """One file without a log beside it, marked as a copy."""
    copy.execute("PRAGMA journal_mode = DELETE")
    copy.execute("PRAGMA synchronous = FULL")
    if is_marked:
        copy.execute(database.COPIED)


def _fsync_directory(directory: Path) -> None:
    """Makes the new name survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
