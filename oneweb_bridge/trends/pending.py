"""What of the journal is still to be folded, and the transaction in which it becomes chunks.

It is whole or not there at all, so a kill at any moment loses no sample and doubles none: what was not committed is
still pending, and folding it again gives the same chunks.
"""

from collections.abc import Sequence

import msgspec

from oneweb_bridge.store.engine import Reader, Writer
from oneweb_bridge.store.meta import WRITE_META
from oneweb_bridge.trends.chunks import StreamKey

SCAN = "scan"
"""The fact of `meta` that says how far which journal was looked through."""
FACTS = frozenset({SCAN})
"""All facts of `meta` that are those of the trends, also where the database has the same table."""


class Scan(msgspec.Struct, frozen=True):
    """How far a journal was looked through: rows up to `seq` are folded, but for what is pending."""

    journal_id: str = ""
    seq: int = 0


class Chunk(msgspec.Struct, frozen=True):
    """A day of a stream as it is written, and for usage its products."""

    stream: StreamKey
    body: bytes
    product_ids: tuple[str, ...] = ()


def find_stream(db: Reader, stream: StreamKey) -> int | None:
    """The number of a stream; None where nothing was folded of it."""
    row = db.execute(
        "SELECT stream FROM stream WHERE entity = ? AND id = ? AND report = ?",
        (stream.entity, stream.id, stream.report),
    ).fetchone()
    return None if row is None else int(row[0])


class PendingDays:
    """Days and ids with samples that are in no chunk yet. Belongs to a `TrendsFile`."""

    def __init__(self, db: Writer) -> None:
        self._db = db

    def scan(self) -> Scan:
        """How far which journal was looked through."""
        rows = self._db.execute("SELECT value FROM meta WHERE name = ?", (SCAN,)).fetchall()
        return msgspec.json.decode(rows[0][0], type=Scan) if rows else Scan()

    def note(self, days: Sequence[tuple[int, str, int]], scan: Scan) -> None:
        """Notes days and ids with new samples, each from its first row on, and the scan behind them."""
        with self._db.transaction():
            self._db.executemany(
                """INSERT INTO pending (day, id, seq) VALUES (?, ?, ?)
                   ON CONFLICT (day, id) DO UPDATE SET seq = excluded.seq WHERE excluded.seq < pending.seq""",
                days,
            )
            value = msgspec.json.encode(scan).decode()
            self._db.execute(WRITE_META, (SCAN, value))

    def next_day(self, before_day: int, through_seq: int, limit: int) -> tuple[int, dict[str, int]]:
        """A day and ids of it that wait to be folded, each with its first row; no ids where there is nothing to do.

        Of days before `before_day`, and of rows up to `through_seq` whatever their day.
        """
        row = self._db.execute(
            """SELECT min(day) FROM (SELECT min(day) AS day FROM pending WHERE day < ?
               UNION ALL SELECT min(day) FROM pending WHERE seq <= ?) AS waiting""",
            (before_day, through_seq),
        ).fetchone()
        if row[0] is None:
            return 0, {}
        sql = "SELECT id, seq FROM pending WHERE day = ? AND (day < ? OR seq <= ?) ORDER BY id LIMIT ?"
        return row[0], dict(self._db.execute(sql, (row[0], before_day, through_seq, limit)).fetchall())

    def write_day(self, day: int, ids: Sequence[str], chunks: Sequence[Chunk]) -> None:
        """Stores the chunks of a day and notes that nothing of these ids is pending there: all or nothing."""
        with self._db.transaction():
            self._write_chunks(day, chunks)
            self._end_pending(day, ids)

    def _write_chunks(self, day: int, chunks: Sequence[Chunk]) -> None:
        numbers = [self._number(chunk.stream) for chunk in chunks]
        self._db.executemany(
            """INSERT INTO fine (stream, day, body) VALUES (?, ?, ?)
               ON CONFLICT (stream, day) DO UPDATE SET body = excluded.body""",
            [(number, day, chunk.body) for number, chunk in zip(numbers, chunks, strict=True)],
        )
        self._db.executemany(
            "INSERT INTO bucket_product (product_id, stream) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(p, number) for number, chunk in zip(numbers, chunks, strict=True) for p in chunk.product_ids],
        )

    def _end_pending(self, day: int, ids: Sequence[str]) -> None:
        self._db.executemany("DELETE FROM pending WHERE day = ? AND id = ?", [(day, id) for id in ids])

    def _number(self, stream: StreamKey) -> int:
        """The number of a stream, which it gets here where it is new."""
        number = find_stream(self._db, stream)
        if number is not None:
            return number
        sql = "INSERT INTO stream (entity, id, report) VALUES (?, ?, ?) RETURNING stream"
        return int(self._db.execute(sql, (stream.entity, stream.id, stream.report)).fetchone()[0])

    def folded_through(self) -> int:
        """The last row of the journal up to which every sample is in a chunk."""
        first = self._db.execute("SELECT min(seq) FROM pending").fetchone()[0]
        return self.scan().seq if first is None else int(first) - 1

    def days_of(self, id: str) -> list[tuple[int, int]]:
        """The days of a journal's id that wait to be folded, each with its first row."""
        return self._db.execute("SELECT day, seq FROM pending WHERE id = ? ORDER BY day", (id,)).fetchall()
