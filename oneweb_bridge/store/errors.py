"""What can be wrong with the database, named by what follows from it: nobody above the store knows SQLite's errors."""

import contextlib
import sqlite3
from collections.abc import Iterator

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""Error codes, without their extension, of a file that is not to be trusted any more. Source: SQLite, rescode.html."""


class StoreError(Exception):
    """The database cannot be used; the text says which file, why, and what to do."""


class UnknownEntity(StoreError):
    """Nothing is stored of the id that was asked for; the text says which."""


class StoreUnavailable(Exception):
    """The database cannot be read or written now, and nothing was changed: try again later. The text says why."""


class StoreDamaged(Exception):
    """The database's file is damaged, and nothing in it can be trusted: end."""


@contextlib.contextmanager
def named_errors() -> Iterator[None]:
    """Turns the errors of SQLite into those of this module. Raises StoreUnavailable and StoreDamaged."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED:
            raise StoreDamaged(str(error)) from error
        if isinstance(error, sqlite3.OperationalError):
            raise StoreUnavailable(str(error)) from error
        raise
