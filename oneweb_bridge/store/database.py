"""Opening the SQLite file: one place for pragmas, migrations, and the lock that keeps a second bridge away."""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files
from pathlib import Path

import aiosqlite

from oneweb_bridge.files import refusal_of
from oneweb_bridge.store.errors import StoreDamaged, StoreError, StoreUnavailable, named_errors
from oneweb_bridge.store.meta import new_journal_id
from oneweb_bridge.store.sqlite import SqliteConnection, ThreadConnection, WideConnection
from oneweb_bridge.store.views import VIEWS

VERSION = 4
"""`user_version` of the schema that this program writes."""

MIGRATIONS: dict[int, str] = {
    1: """
ALTER TABLE record DROP COLUMN raw_hash;
ALTER TABLE record RENAME COLUMN kept_hash TO hash;
CREATE INDEX record_settled ON record (kind, id, hash, missing, presence_at);
CREATE INDEX record_name ON record (json_extract(doc, '$.name')) WHERE kind = 'terminal';
CREATE INDEX record_bucket ON record (json_extract(doc, '$.product_id')) WHERE kind = 'usage';
ALTER TABLE newest ADD COLUMN letters TEXT NOT NULL DEFAULT '';
CREATE TABLE discovery (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    mark INTEGER NOT NULL DEFAULT 1,
    marked_at INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0,
    topic TEXT NOT NULL DEFAULT '',
    hash BLOB NOT NULL DEFAULT x'',
    entities TEXT NOT NULL DEFAULT '{}',
    sent_at INTEGER NOT NULL DEFAULT 0,
    seq INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, id)
);
CREATE INDEX discovery_dirty ON discovery (kind, marked_at) WHERE mark > done;
CREATE INDEX discovery_gone ON discovery (sent_at) WHERE hash = x'676f6e65';
""",
    2: """
ALTER TABLE call ADD COLUMN polled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call ADD COLUMN succeeded INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call ADD COLUMN values_held TEXT NOT NULL DEFAULT '{}';
CREATE INDEX newest_id ON newest (id);
CREATE INDEX discovery_unsent ON discovery (kind) WHERE topic = '';
CREATE TABLE poll_request (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    call TEXT NOT NULL,
    remembered INTEGER NOT NULL,
    sender TEXT,
    at INTEGER NOT NULL,
    UNIQUE (topic, call, remembered)
);
CREATE TABLE lane (
    output TEXT NOT NULL,
    class TEXT NOT NULL,
    seq INTEGER NOT NULL,
    waiting INTEGER NOT NULL DEFAULT 0,
    told INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (output, class)
);
CREATE TABLE owed (
    output TEXT NOT NULL,
    topic TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL,
    PRIMARY KEY (output, topic)
);
CREATE INDEX owed_tries ON owed (output, tries, topic);
""",
    3: """
ALTER TABLE cursor ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursor ADD COLUMN restore_from INTEGER;
INSERT OR IGNORE INTO cursor (output, seq) SELECT 'mqtt', 0 FROM meta WHERE name IN ('dropped', 'restore_from');
UPDATE cursor SET
    dropped = coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'dropped'), 0),
    restore_from = (SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'restore_from')
WHERE output = 'mqtt';
DELETE FROM meta WHERE name IN ('dropped', 'restore_from');
CREATE INDEX journal_events ON journal (seq) WHERE what IN ('added', 'changed', 'removed', 'components');
CREATE TABLE usage_days (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE TABLE answer_shape (
    call TEXT PRIMARY KEY,
    shape TEXT NOT NULL
);
CREATE TABLE unmatched (
    call TEXT NOT NULL,
    id TEXT NOT NULL,
    ts INTEGER NOT NULL,
    kept_at INTEGER NOT NULL,
    hash BLOB NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (call, id, ts)
) WITHOUT ROWID;
CREATE INDEX unmatched_kept ON unmatched (call, kept_at);
ALTER TABLE record ADD COLUMN event_at INTEGER NOT NULL DEFAULT 0;
UPDATE record SET event_at = coalesce((SELECT ts FROM journal WHERE journal.seq = record.seq), 0);
CREATE TABLE edge_node (
    number INTEGER PRIMARY KEY,
    bd_seq INTEGER
);
CREATE TABLE edge_device (
    device TEXT PRIMARY KEY,
    number INTEGER NOT NULL
) WITHOUT ROWID;
""",
}
"""Version -> the SQL that brings a database of that version to the next one."""


COPIED = "INSERT OR REPLACE INTO meta VALUES ('copied', '')"
"""Marks a copy: each time it is opened as the bridge's database, its journal gets a new id."""


@contextlib.contextmanager
def hold_lock(path: Path, remedy: str = "stop it, or give this one its own state.path") -> Iterator[None]:
    """Holds the database for this process. Raises StoreError when another has it, with a `remedy` for its user."""
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError) as error:
        raise StoreError(f"{lock} cannot be written ({refusal_of(error)}): choose another state.path") from None
    try:
        _take_lock(descriptor, path, remedy)
        yield
    finally:
        os.close(descriptor)


def _take_lock(descriptor: int, path: Path, remedy: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError(f"{path} is in use by another bridge: {remedy}") from None
    except OSError as error:
        raise StoreError(
            f"{path} cannot be locked ({refusal_of(error)}): choose a state.path on a local disk; "
            "a network share without locks cannot keep a database"
        ) from None


@contextlib.asynccontextmanager
async def open_connection(
    path: Path, *, read_only: bool = False, flushes: bool = True, lock: asyncio.Lock | None = None
) -> AsyncIterator[SqliteConnection]:
    """A connection in which every transaction is flushed to the disk, unless `flushes` is False. Raises StoreError.

    What is not flushed survives a crash of the process, but a power loss only once another commit was flushed.
    Connections that are given the same `lock` write one after the other.
    """
    uri = uri_of(path, read_only=read_only)
    try:
        db = await aiosqlite.connect(uri, uri=True, isolation_level=None, factory=WideConnection)
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} cannot be opened ({error}): choose another state.path") from None
    try:
        connection = SqliteConnection(db, lock)
        with explained(path):
            await _prepare_connection(connection, read_only=read_only, flushes=flushes)
        yield connection
    finally:
        await db.close()


@contextlib.asynccontextmanager
async def open_own_file(path: Path) -> AsyncIterator[SqliteConnection]:
    """The file for the one bridge that works with it, created where it is missing, with its newest schema.

    Raises StoreError.
    """
    with hold_lock(path):
        create_private(path)
        async with open_connection(path) as connection:
            with explained(path):
                await migrate(connection, path)
            yield connection


@contextlib.contextmanager
def open_reader(path: Path, *, busy_timeout_ms: int = 10_000) -> Iterator[ThreadConnection]:
    """A read-only connection for one thread at a time. Raises StoreError."""
    uri = uri_of(path, read_only=True)
    with explained(path):
        reader = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, factory=ThreadConnection)
    with contextlib.closing(reader):
        with explained(path):
            reader.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
            reader.execute("SELECT 1 FROM journal LIMIT 1").fetchone()
        yield reader


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a database is being opened into a StoreError."""
    try:
        with named_errors():
            yield
    except StoreUnavailable as error:
        raise StoreError(f"{path} cannot be used now ({error}): end what else uses it, and look at the disk") from None
    except (StoreDamaged, sqlite3.DatabaseError) as error:
        raise StoreError(f"{path} cannot be read as the bridge's database ({error}): move it away") from None


@contextlib.asynccontextmanager
async def temporary() -> AsyncIterator[SqliteConnection]:
    """A connection to a database of its own that is gone with it; what does not fit in memory is in a file."""
    # The empty name is such a database. Source: SQLite, "In-Memory Databases".
    async with aiosqlite.connect("", isolation_level=None, factory=WideConnection) as db:
        yield SqliteConnection(db)


def create_private(path: Path) -> None:
    """Makes an empty file that only this user can read, where there is none. Raises StoreError.

    A file that exists is never opened here: closing it would drop the locks that SQLite's own
    connections of this process hold on it. Source: SQLite, "How To Corrupt An SQLite Database File".
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be written ({refusal_of(error)}): choose another state.path") from None


def uri_of(path: Path, *, read_only: bool) -> str:
    """The address of a database file for SQLite. Raises StoreError when it cannot be opened."""
    # Checked before, because aiosqlite leaves a thread behind where it cannot open a file.
    access = os.R_OK if read_only else os.R_OK | os.W_OK
    try:
        is_usable = stat.S_ISREG(path.stat().st_mode) and os.access(path, access)
    except FileNotFoundError:
        if read_only:
            raise StoreError(f"{path} does not exist: run the bridge first, or name its state.path") from None
        is_usable = True
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be opened ({refusal_of(error)}): choose another state.path") from None
    if not is_usable:
        raise StoreError(f"{path} cannot be opened as a database: choose another state.path")
    return f"{path.absolute().as_uri()}{'?mode=ro' if read_only else ''}"


async def _prepare_connection(connection: SqliteConnection, *, read_only: bool, flushes: bool) -> None:
    await connection.execute("PRAGMA busy_timeout = 10000")
    await connection.pragma("schema_version")  # reads the file, so that one that is no database is found out here
    if read_only:
        return
    await connection.execute("PRAGMA journal_mode = WAL")
    await connection.execute(f"PRAGMA synchronous = {'FULL' if flushes else 'NORMAL'}")
    await connection.execute("PRAGMA journal_size_limit = 67108864")


async def migrate(connection: SqliteConnection, path: Path) -> None:
    """Brings the schema to `VERSION`, all or nothing. A newer database than the program is refused."""
    version = await connection.pragma("user_version")
    if version == VERSION:
        return
    if version > VERSION:
        raise StoreError(f"{path} was written by a newer oneweb-bridge (schema {version}, known {VERSION}): upgrade")
    if version == 0 and await connection.pragma("page_count") > 1:
        raise StoreError(f"{path} is a database of something else: choose another state.path")
    steps = [_schema()] if version == 0 else [*_DROP_VIEWS, *(MIGRATIONS[step] for step in range(version, VERSION))]
    await connection.execute_script(f"BEGIN IMMEDIATE;\n{''.join(steps)}\nPRAGMA user_version = {VERSION};\nCOMMIT;")


_DROP_VIEWS = [f"DROP VIEW IF EXISTS {name};\n" for name in VIEWS]
"""A table whose columns a view names cannot be altered; who opens the database makes the views again."""


def schema_script() -> str:
    """The statements that make the tables of a file."""
    return files("oneweb_bridge.store").joinpath("schema.sql").read_text()


def _schema() -> str:
    return f"{schema_script()}\nINSERT INTO meta VALUES ('journal', '{new_journal_id()}');\n"
