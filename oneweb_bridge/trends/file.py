"""The trends (SQLite: `trends.db`): chunks of every sample, what days amount to, and how far the journal is folded.

A transaction is whole or not there at all, so a kill at any moment loses no sample and doubles none: what was not
committed is still pending, and folding it again gives the same chunks.
"""

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import msgspec

from oneweb_bridge.files import refusal_of
from oneweb_bridge.store import database
from oneweb_bridge.store.engine import Writer
from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.store.places import Place, open_writer
from oneweb_bridge.store.sqlite import ThreadConnection
from oneweb_bridge.trends.bins import Day
from oneweb_bridge.trends.chunks import USAGE, StreamKey
from oneweb_bridge.trends.pending import PendingDays, find_stream

VERSION = 1
_LATER_INDEX = "CREATE INDEX IF NOT EXISTS bucket_product_stream ON bucket_product (stream)"
"""A file of an earlier release lacks it. It is no other version: that release still uses the file."""
DELETE_ROWS = 2000
"""Rows deleted in one transaction."""
_decode_days = msgspec.json.Decoder(dict[str, Day]).decode


def schema_script() -> str:
    """The statements that make the tables of a file."""
    return files("oneweb_bridge.trends").joinpath("schema.sql").read_text()


@contextlib.contextmanager
def open_trends(place: Place, *, read_only: bool = False) -> Iterator["TrendsFile"]:
    """The trends in `place`, for one thread at a time; made where they are missing, unless `read_only`.

    Raises StoreError where they cannot be used, and sqlite3.DatabaseError where their file is damaged.
    """
    if isinstance(place, Path):
        with _open_file(place, read_only=read_only) as db:
            yield TrendsFile(db)
    else:
        with open_writer(place, read_only=read_only) as writer:
            yield TrendsFile(writer)


@contextlib.contextmanager
def _open_file(path: Path, *, read_only: bool) -> Iterator[ThreadConnection]:
    uri = _prepared_uri(path, read_only=read_only)
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, factory=ThreadConnection)
    with contextlib.closing(db):
        db.execute("PRAGMA busy_timeout = 10000")
        if not read_only:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA journal_size_limit = 67108864")
        _migrate(db, path, read_only=read_only)
        yield db


def _prepared_uri(path: Path, *, read_only: bool) -> str:
    """The address of the file, which is made where it is missing and to be written. Raises StoreError."""
    try:
        if not read_only and not path.exists():
            # The log of a file that was removed would be taken for that of the new one.
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        if not read_only:
            database.create_private(path)
        return database.uri_of(path, read_only=read_only)
    except StoreError as error:
        raise StoreError(str(error).replace("state.path", "trends.path")) from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be opened ({refusal_of(error)}): choose another trends.path") from None


def _migrate(db: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise StoreError(f"{path} was written by a newer oneweb-bridge (trends {version}, known {VERSION}): upgrade")
    if version == 0 and db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] > 0:
        raise StoreError(f"{path} is a database of something else: choose another trends.path")
    if version == 0 and not read_only:
        db.executescript(f"BEGIN IMMEDIATE;\n{schema_script()}\nPRAGMA user_version = {VERSION};\nCOMMIT;")
    elif not read_only:
        db.execute(_LATER_INDEX)


class TrendsFile:
    """Chunks and days, to read and to keep within bounds; `pending` is what folding writes. Made by `open_trends`."""

    def __init__(self, db: Writer) -> None:
        self._db = db
        self.pending = PendingDays(db)

    def interrupt(self) -> None:
        """Ends the statement that runs in another thread; it raises there."""
        self._db.interrupt()

    def is_empty(self) -> bool:
        """Whether nothing was ever written to it, not even its tables."""
        return bool(self._db.execute("PRAGMA user_version").fetchone()[0] == 0)

    # ── reading ────────────────────────────────────────────────────────────────────────────────

    def find_stream(self, stream: StreamKey) -> int | None:
        """The number of a stream; None where nothing was folded of it."""
        return find_stream(self._db, stream)

    def streams_of(self, entity: str, id: str) -> list[StreamKey]:
        """The streams of a terminal or product, with the buckets that belonged to it, or of a usage bucket."""
        rows = self._db.execute(
            """SELECT entity, id, report FROM stream WHERE entity = ? AND id = ? UNION
               SELECT entity, id, report FROM stream WHERE ? = 'product' AND stream IN
               (SELECT stream FROM bucket_product WHERE product_id = ?)""",
            (entity, id, entity, id),
        )
        return [StreamKey(*row) for row in rows]

    def all_streams(self) -> list[StreamKey]:
        """Every stream."""
        return [StreamKey(*row) for row in self._db.execute("SELECT entity, id, report FROM stream")]

    def fine_span(self) -> tuple[int, int] | None:
        """The first and the last day at full resolution."""
        row = self._db.execute("SELECT (SELECT min(day) FROM fine), (SELECT max(day) FROM fine)").fetchone()
        return None if row[0] is None else (row[0], row[1])

    def products_of_bucket(self, bucket: str) -> list[str]:
        """The products to which a bucket belonged at any time."""
        rows = self._db.execute(
            """SELECT product_id FROM bucket_product JOIN stream USING (stream)
               WHERE entity = ? AND id = ? AND report = ?""",
            (USAGE, bucket, USAGE),
        )
        return [row[0] for row in rows]

    def fine(self, stream: int, first_day: int, last_day: int) -> Iterator[tuple[int, bytes]]:
        """Days and chunks of a stream, oldest first."""
        sql = "SELECT day, body FROM fine WHERE stream = ? AND day BETWEEN ? AND ? ORDER BY day"
        yield from self._db.execute(sql, (stream, first_day, last_day))

    def last_fine_days(self, stream: int, through_day: int) -> list[int]:
        """The two newest days of a stream at full resolution up to a day, newest first."""
        sql = "SELECT day FROM fine WHERE stream = ? AND day <= ? ORDER BY day DESC LIMIT 2"
        return [row[0] for row in self._db.execute(sql, (stream, through_day))]

    def fine_of_day(self, day: int, streams: Sequence[StreamKey]) -> dict[StreamKey, bytes]:
        """The chunks of a day that there are already."""
        chunks = {}
        for stream in streams:
            row = self._db.execute(
                """SELECT body FROM fine WHERE day = ? AND stream =
                   (SELECT stream FROM stream WHERE entity = ? AND id = ? AND report = ?)""",
                (day, stream.entity, stream.id, stream.report),
            ).fetchone()
            if row is not None:
                chunks[stream] = row[0]
        return chunks

    def kept_days(self, stream: int, first_day: int, last_day: int) -> Iterator[tuple[int, dict[str, Day]]]:
        """What the days of a stream amount to that are not kept at full resolution any more."""
        sql = """SELECT day, body FROM days AS kept WHERE stream = ? AND day BETWEEN ? AND ? AND NOT EXISTS
                 (SELECT 1 FROM fine WHERE fine.stream = kept.stream AND fine.day = kept.day) ORDER BY day"""
        for day, body in self._db.execute(sql, (stream, first_day, last_day)):
            yield day, _decode_days(zlib.decompress(body))

    def span_of(self, stream: int) -> tuple[int, int] | None:
        """The first and the last day of which anything is kept of a stream."""
        sql = """SELECT min(day), max(day) FROM (SELECT day FROM days WHERE stream = ?
                 UNION ALL SELECT day FROM fine WHERE stream = ?) AS kept"""
        row = self._db.execute(sql, (stream, stream)).fetchone()
        return None if row[0] is None else (row[0], row[1])

    # ── bounds ─────────────────────────────────────────────────────────────────────────────────

    def used_bytes(self) -> int:
        """Bytes of the file that are in use; free pages are used again before it grows."""
        return self._db.used_bytes()

    def oldest_fine(self, before_day: int) -> list[tuple[int, StreamKey, int, bytes]]:
        """Number, stream, day and chunk of some days before a day, oldest first."""
        rows = self._db.execute(
            """SELECT stream, entity, id, report, day, body FROM fine JOIN stream USING (stream)
               WHERE day < ? ORDER BY day LIMIT ?""",
            (before_day, DELETE_ROWS),
        )
        return [(number, StreamKey(entity, id, report), day, body) for number, entity, id, report, day, body in rows]

    def replace_fine(self, summaries: Sequence[tuple[int, int, bytes | None]]) -> None:
        """Deletes chunks by stream number and day, and keeps what each day amounts to, where there is anything."""
        with self._db.transaction():
            # What is there already is of more samples than what came so late that its day had been summarized.
            self._db.executemany(
                "INSERT INTO days (stream, day, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [summary for summary in summaries if summary[2] is not None],
            )
            self._db.executemany(
                "DELETE FROM fine WHERE stream = ? AND day = ?", [(stream, day) for stream, day, _ in summaries]
            )

    def delete_days(self, before_day: int) -> int:
        """Deletes some summaries of days before a day, oldest first. Returns how many."""
        sql = """DELETE FROM days WHERE (stream, day) IN
                 (SELECT stream, day FROM days WHERE day < ? ORDER BY day LIMIT ?)"""
        return self._db.execute(sql, (before_day, DELETE_ROWS)).rowcount
