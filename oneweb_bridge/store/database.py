"""Opening the SQLite file: one place for pragmas, migrations, and the lock that keeps a second bridge away."""

import asyncio
import contextlib
import fcntl
import os
import secrets
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiosqlite
import msgspec

from oneweb_bridge.clock import Anchor, Clock, SteadyTime, anchor_of
from oneweb_bridge.files import refusal_of
from oneweb_bridge.store.errors import StoreDamaged, StoreError, StoreUnavailable, named_errors
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


RENEW_JOURNAL_ID = """
INSERT OR REPLACE INTO meta
SELECT 'earlier', json_insert(coalesce((SELECT value FROM meta WHERE name = 'earlier'), '[]'),
    '$[#]', json_array(value, :until)) FROM meta WHERE name = 'journal'
UNION ALL SELECT 'journal', :id
"""
"""Gives the journal a new id; rows up to `until` keep the one they have. One statement, so both or neither."""


COPIED = "INSERT OR REPLACE INTO meta VALUES ('copied', '')"
"""Marks a copy: each time it is opened as the bridge's database, its journal gets a new id."""


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Holds the database for this process. Raises StoreError when another bridge has it."""
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError) as error:
        raise StoreError(f"{lock} cannot be written ({refusal_of(error)}): choose another state.path") from None
    try:
        _take_lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _take_lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError(f"{path} is in use by another bridge: stop it, or give this one its own state.path") from None
    except OSError as error:
        raise StoreError(
            f"{path} cannot be locked ({refusal_of(error)}): choose a state.path on a local disk; "
            "a network share without locks cannot keep a database"
        ) from None


@contextlib.asynccontextmanager
async def open_connection(
    path: Path, *, read_only: bool = False, flushes: bool = True
) -> AsyncIterator[aiosqlite.Connection]:
    """A connection in which every transaction is flushed to the disk, unless `flushes` is False. Raises StoreError.

    What is not flushed survives a crash of the process, but a power loss only once another commit was flushed.
    """
    uri = uri_of(path, read_only=read_only)
    try:
        db = await aiosqlite.connect(uri, uri=True, isolation_level=None)
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} cannot be opened ({error}): choose another state.path") from None
    try:
        with explained(path):
            await _prepare_database(db, read_only=read_only, flushes=flushes)
        yield db
    finally:
        await db.close()


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
async def temporary() -> AsyncIterator[aiosqlite.Connection]:
    """A connection to a database of its own that is gone with it; what does not fit in memory is in a file."""
    # The empty name is such a database. Source: SQLite, "In-Memory Databases".
    async with aiosqlite.connect("", isolation_level=None) as db:
        yield db


@contextlib.asynccontextmanager
async def transaction(db: aiosqlite.Connection, lock: asyncio.Lock) -> AsyncIterator[None]:
    """A transaction that is whole or not there at all, also when its task is cancelled in the middle.

    `lock` is the connection's; whoever reads there without it sees what is not committed. Raises StoreUnavailable.
    """
    async with lock:
        with named_errors():
            async with _transaction(db):
                yield


@contextlib.asynccontextmanager
async def _transaction(db: aiosqlite.Connection) -> AsyncIterator[None]:
    try:
        await db.execute("BEGIN IMMEDIATE")
        yield
        await db.execute("COMMIT")
    except BaseException:
        await asyncio.shield(db.rollback())
        raise


async def fetch_all(db: aiosqlite.Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
    """What a statement gives. Raises StoreUnavailable."""
    with named_errors():
        return list(await db.execute_fetchall(sql, parameters))


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


async def _prepare_database(db: aiosqlite.Connection, *, read_only: bool, flushes: bool) -> None:
    await db.execute("PRAGMA busy_timeout = 10000")
    await pragma(db, "schema_version")  # reads the file, so that one that is no database is found out here
    if read_only:
        return
    await db.execute("PRAGMA journal_mode = WAL")
    await db.execute(f"PRAGMA synchronous = {'FULL' if flushes else 'NORMAL'}")
    await db.execute("PRAGMA journal_size_limit = 67108864")


async def migrate(db: aiosqlite.Connection, path: Path) -> None:
    """Brings the schema to `VERSION`, all or nothing. A newer database than the program is refused."""
    version = await pragma(db, "user_version")
    if version == VERSION:
        return
    if version > VERSION:
        raise StoreError(f"{path} was written by a newer oneweb-bridge (schema {version}, known {VERSION}): upgrade")
    if version == 0 and await pragma(db, "page_count") > 1:
        raise StoreError(f"{path} is a database of something else: choose another state.path")
    steps = [_schema()] if version == 0 else [*_DROP_VIEWS, *(MIGRATIONS[step] for step in range(version, VERSION))]
    await db.executescript(f"BEGIN IMMEDIATE;\n{''.join(steps)}\nPRAGMA user_version = {VERSION};\nCOMMIT;")


_DROP_VIEWS = [f"DROP VIEW IF EXISTS {name};\n" for name in VIEWS]
"""A table whose columns a view names cannot be altered; who opens the database makes the views again."""


def _schema() -> str:
    text = files("oneweb_bridge.store").joinpath("schema.sql").read_text()
    return f"{text}\nINSERT INTO meta VALUES ('journal', '{new_journal_id()}');\n"


def new_journal_id() -> str:
    """A random id, the first part of every event id."""
    return secrets.token_hex(8)


async def journal_ids(db: aiosqlite.Connection) -> tuple[str, tuple[tuple[str, int], ...]]:
    """The journal's id, and those it had before, each with the last row that carries it."""
    rows = await db.execute_fetchall("SELECT name, value FROM meta WHERE name IN ('journal', 'earlier')")
    values: dict[str, str] = {name: value for name, value in rows}  # noqa: C416 -- a Row is no pair for mypy
    earlier = msgspec.json.decode(values.get("earlier", "[]"), type=tuple[tuple[str, int], ...])
    return values.get("journal", ""), earlier


async def steady_time(db: aiosqlite.Connection, clock: Clock) -> SteadyTime:
    """The steady time of this database, going on where it was; see `clock`. The first anchor heals what came before."""
    latest = await _rows(db, "SELECT at FROM journal ORDER BY seq DESC LIMIT 1")
    stored = await _rows(db, "SELECT value FROM meta WHERE name = 'steady'")
    before = msgspec.json.decode(stored[0], type=Anchor) if stored else None
    now = clock.now() if before is None else before.steady
    anchor = anchor_of(clock, before, min([now, *latest]) if before is None else max([now, *latest]))
    if anchor != before:
        await db.execute("BEGIN IMMEDIATE")
        for statement in _BEGIN_STEADY_TIME if before is None else ():
            await db.execute(statement, {"now": anchor.steady})
        value = msgspec.json.encode(anchor).decode()
        await db.execute("INSERT OR REPLACE INTO meta VALUES ('steady', ?)", (value,))
        await db.execute("COMMIT")
    return SteadyTime(clock, anchor)


_BEGIN_STEADY_TIME = (
    "UPDATE journal SET at = :now WHERE seq > (SELECT coalesce(min(seq), 0) FROM cursor)",
    "UPDATE journal SET at = :now WHERE seq = (SELECT max(seq) FROM journal)",
    "UPDATE record SET missing_since = :now WHERE missing > 0",
    "UPDATE record SET presence_at = 0 WHERE presence_at > :now",
    "UPDATE call SET held_since = :now WHERE held_since > 0",
    "UPDATE discovery SET marked_at = min(marked_at, :now), sent_at = min(sent_at, :now)",
)
"""Ages that were measured with the wall clock may be wrong: they begin anew, so that none of them is cut short."""


async def _rows(db: aiosqlite.Connection, sql: str) -> list[Any]:
    """The first column of what a statement gives."""
    return [row[0] for row in await db.execute_fetchall(sql)]


async def renew_copy(db: aiosqlite.Connection) -> None:
    """Gives the journal of a restored copy an id of its own, also when the same copy is restored again.

    Where the original was published is the original's, so the copy drops it.
    """
    if not await _rows(db, "SELECT 1 FROM meta WHERE name = 'copied'"):
        return
    (until,) = await _rows(db, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'journal'")
    async with transaction(db, asyncio.Lock()):
        await db.execute(RENEW_JOURNAL_ID, {"until": until, "id": new_journal_id()})
        await db.execute("DELETE FROM meta WHERE name IN ('copied', 'places')")


def placeholders(values: Sequence[object]) -> str:
    """As many question marks as there are values, for `IN (…)`."""
    return ", ".join("?" * len(values))


NOTE_HEAD_BOUND = """
INSERT OR IGNORE INTO meta
SELECT 'head_bound', coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'journal'
"""
"""Notes the last row before this process appends any; see `JournalIdentity.head_bound`."""


async def pragma(db: aiosqlite.Connection, name: str) -> int:
    """The integer value of a pragma."""
    async with db.execute(f"PRAGMA {name}") as cursor:
        row = await cursor.fetchone()
    return int(row[0]) if row else 0
