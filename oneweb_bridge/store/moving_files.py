"""The files of SQLite as a state that is moved: the database, and the trends beside it.

New files are written under other names and get their own only when they are complete: the trends first, because it is
the database that a bridge takes for a state.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from oneweb_bridge.files import is_there, refusal_of
from oneweb_bridge.model.heads import Place
from oneweb_bridge.store import database
from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.store.moving import META, SLICE_ROWS, Row, Rows, Table

ENDING = ".migrating"
"""Of a file that is not complete. One that was left by a process that was killed is written anew."""
_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database, and would apply to another one of the same name."""
IN_USE = "stop it first"
CACHE_KIB = 16_384
"""Of a file that is written: the rows of its indexes do not come in their order."""


class Layout(msgspec.Struct, frozen=True):
    """A kind of file: the script that makes its tables, its `user_version`, and which facts of `meta` are its own.

    `setting` is the key of the configuration that names such a file. Without `facts` it has what no other file has.
    """

    script: str
    version: int
    setting: str
    facts: frozenset[str] = frozenset()

    def tables(self) -> tuple[Table, ...]:
        """The tables of such a file."""
        with contextlib.closing(sqlite3.connect(":memory:")) as db:
            db.executescript(self.script)
            return tuple(_table(db, name) for name in _names(db))


class Files(msgspec.Struct, frozen=True):
    """Where the database and its trends are, and how such files look."""

    path: Path
    trends: Path
    layouts: tuple[Layout, Layout]

    def tables(self) -> tuple[Table, ...]:
        """The tables of both, each name once."""
        tables = {table.name: table for layout in self.layouts for table in layout.tables()}
        return tuple(tables.values())


def _names(db: sqlite3.Connection) -> list[str]:
    rows = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY 1")
    return [row[0] for row in rows]


def _table(db: sqlite3.Connection, name: str) -> Table:
    columns = db.execute(f'PRAGMA table_info("{name}")').fetchall()
    key = sorted((place, column) for _, column, _, _, _, place in columns if place)
    return Table(name, tuple(column[1] for column in columns), tuple(column for _, column in key))


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


# ── the source ─────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def open_source(files: Files) -> Iterator["FileSource"]:
    """The state in files that no bridge works with; it is held meanwhile, and not changed. Raises StoreError."""
    with contextlib.ExitStack() as stack:
        # Looked at before it is held, so that nothing is made beside what is no database.
        parts = [stack.enter_context(_open_part(files.path, files.layouts[0]))]
        stack.enter_context(database.hold_lock(files.path, remedy=IN_USE))
        if _is_there(files.trends):
            parts.append(stack.enter_context(_open_part(files.trends, files.layouts[1])))
        for part in parts:
            with _reading(part.path):
                part.db.execute("BEGIN")
        yield FileSource(parts)


class _Part(msgspec.Struct, frozen=True):
    """An open file, and the tables that it has."""

    path: Path
    db: sqlite3.Connection
    tables: frozenset[str]


@contextlib.contextmanager
def _open_part(path: Path, layout: Layout) -> Iterator[_Part]:
    uri = database.uri_of(path, read_only=True)
    with _reading(path):
        db = sqlite3.connect(uri, uri=True, isolation_level=None)
    with contextlib.closing(db):
        with _reading(path):
            db.execute("PRAGMA busy_timeout = 10000")
            names = _names(db)
            _check_version(path, layout, db.execute("PRAGMA user_version").fetchone()[0], is_empty=not names)
        own = {table.name for table in layout.tables()}
        yield _Part(path, db, frozenset(own & set(names)))


def _check_version(path: Path, layout: Layout, version: int, *, is_empty: bool) -> None:
    if version > layout.version:
        raise StoreError(
            f"{path} was written by a newer oneweb-bridge (schema {version}, known {layout.version}): upgrade"
        )
    if version == 0 and not is_empty:
        raise StoreError(f"{path} is a database of something else: name the file of {layout.setting}")
    if version == 0 and not layout.facts:
        raise StoreError(f"{path} is empty: name the file of {layout.setting}")
    if 0 < version < layout.version:
        raise StoreError(
            f"{path} was written by an older oneweb-bridge (schema {version}, needed {layout.version}): "
            "start this version's bridge with it once, and stop it"
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path} cannot be read now ({error}), and nothing was moved: look at the disk") from None
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"{path} cannot be read as the bridge's database ({error}), and nothing was moved: "
            "name its state.path, or put a backup in its place"
        ) from None


class FileSource:
    """See `moving.Source`. Made by `open_source`."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts

    def instances(self) -> list[str]:
        """The names under which this state was published."""
        main = self._parts[0]
        with _reading(main.path):
            rows = main.db.execute("SELECT value FROM meta WHERE name = 'places'").fetchall()
        places = msgspec.json.decode(rows[0][0], type=tuple[Place, ...]) if rows else ()
        return sorted({place.instance for place in places})

    async def count(self, table: Table) -> int:
        counts = []
        for part in self._parts:
            if table.name in part.tables:
                with _reading(part.path):
                    counts.append(part.db.execute(f'SELECT count(*) FROM "{table.name}"').fetchone()[0])
        return sum(counts)

    async def rows(self, table: Table) -> Rows:
        for part in self._parts:
            if table.name not in part.tables:
                continue
            with _reading(part.path):
                cursor = part.db.execute(
                    f'SELECT {_quoted(table.columns)} FROM "{table.name}" ORDER BY {_quoted(table.key)}'
                )
            while True:
                with _reading(part.path):
                    rows = cursor.fetchmany(SLICE_ROWS)
                if not rows:
                    break
                yield rows

    async def counters(self) -> Mapping[str, int]:
        main = self._parts[0]
        with _reading(main.path):
            return dict(main.db.execute("SELECT name, seq FROM sqlite_sequence").fetchall())


# ── the target ─────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def open_target(files: Files, journal_id: str) -> Iterator["FileTarget"]:
    """New files, which are there when the block has ended without an error, or not at all. Raises StoreError.

    A file of trends without its database is replaced where it is of the journal with this id: it was left behind when
    a process was killed between the two.
    """
    _check_new(files.path)
    _check_new(files.trends, may_exist=_is_of_journal(files.trends, journal_id))
    with database.hold_lock(files.path, remedy=IN_USE), contextlib.ExitStack() as stack:
        _check_new(files.path)
        paths = (files.path, files.trends)
        parts = [stack.enter_context(_new_part(*given)) for given in zip(paths, files.layouts, strict=True)]
        target = FileTarget(parts)
        yield target
        target.finish()


def _check_new(path: Path, *, may_exist: bool = False) -> None:
    if (_is_there(path) or path.is_symlink()) and not may_exist:
        raise StoreError(f"{path} exists already, and nothing was moved: name a file that does not exist")
    for ending in _BESIDE:
        left = path.with_name(path.name + ending)
        if _is_there(left):
            raise StoreError(f"{left} was left by another database, and nothing was moved: move it away")


def _is_there(path: Path) -> bool:
    try:
        return is_there(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({refusal_of(error)}), and nothing was moved") from None


def _is_of_journal(trends: Path, journal_id: str) -> bool:
    with contextlib.suppress(StoreError, sqlite3.DatabaseError):
        uri = database.uri_of(trends, read_only=True)
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            query = "SELECT 1 FROM meta WHERE name = 'scan' AND instr(value, ?) > 0"
            return db.execute(query, (journal_id,)).fetchone() is not None
    return False


class _NewPart(msgspec.Struct):
    """A file that is written: its later name, and which facts of `meta` go there."""

    path: Path
    layout: Layout
    db: sqlite3.Connection
    tables: frozenset[str]
    row_count: int = 0

    @property
    def written(self) -> Path:
        """The name that it has until it is complete."""
        return _unfinished(self.path)


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ENDING)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, ValueError) as error:
        reason = str(error) if isinstance(error, sqlite3.Error) else refusal_of(error)
        raise StoreError(
            f"{path} cannot be written ({reason}), and nothing was moved: look at the disk, or name a file elsewhere"
        ) from None


@contextlib.contextmanager
def _new_part(path: Path, layout: Layout) -> Iterator[_NewPart]:
    """An empty file under its other name, gone at the end unless it got its own."""
    part = _unfinished(path)
    with _writing(path):
        _remove(part)
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with _writing(path):
            db = sqlite3.connect(part, isolation_level=None)
        with contextlib.closing(db):
            with _writing(path):
                # Whatever goes wrong, the file is written anew: it needs no journal of its own.
                db.execute("PRAGMA journal_mode = OFF")
                db.execute("PRAGMA synchronous = OFF")
                db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
                db.executescript(f"BEGIN;\n{layout.script}\nPRAGMA user_version = {layout.version};\n")
            yield _NewPart(path, layout, db, frozenset(_names(db)))
    finally:
        with contextlib.suppress(OSError):
            _remove(part)


def _remove(part: Path) -> None:
    for ending in ("", *_BESIDE):
        part.with_name(part.name + ending).unlink(missing_ok=True)


class FileTarget:
    """See `moving.Target`. Made by `open_target`."""

    def __init__(self, parts: Sequence[_NewPart]) -> None:
        self._parts = parts
        self._shared = frozenset(fact for part in parts for fact in part.layout.facts)

    async def write(self, table: Table, rows: Rows) -> None:
        places = ", ".join("?" * len(table.columns))
        statement = f'INSERT INTO "{table.name}" ({_quoted(table.columns)}) VALUES ({places})'
        parts = [part for part in self._parts if table.name in part.tables]
        async for slice_ in rows:
            for part in parts:
                own = slice_ if table.name != META else [row for row in slice_ if self._belongs(table, row, part)]
                with _writing(part.path):
                    part.db.executemany(statement, own)
                part.row_count += len(own)

    def _belongs(self, table: Table, row: Row, part: _NewPart) -> bool:
        """Whether a fact belongs to a file."""
        name = row[table.columns.index("name")]
        return name in part.layout.facts if part.layout.facts else name not in self._shared

    async def write_counters(self, counters: Mapping[str, int]) -> None:
        main = self._parts[0]
        with _writing(main.path):
            rows = main.db.execute("SELECT name FROM sqlite_schema WHERE sql LIKE '%AUTOINCREMENT%'").fetchall()
            for (name,) in rows:
                if counters.get(name, 0) > 0:
                    main.db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
                    main.db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, counters[name]))

    def finish(self) -> None:
        """Gives the complete files their names. Trends that have nothing get none. Raises StoreError."""
        kept = [part for part in reversed(self._parts) if part.row_count or not part.layout.facts]
        for part in kept:
            with _writing(part.path):
                part.db.execute("COMMIT")
                part.db.close()
                _fsync(part.written)
        with contextlib.ExitStack() as undo:
            for part in kept:
                with _writing(part.path):
                    part.written.replace(part.path)
                    undo.callback(part.path.unlink, missing_ok=True)
                    _fsync(part.path.parent)
            undo.pop_all()


def _fsync(path: Path) -> None:
    """Makes a file's content, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
