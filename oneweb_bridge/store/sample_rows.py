"""The journal as the trends and `history` read it: rows of one id by their own time, and which ids have new rows.

Not async: whoever asks does it in a thread of its own. Each read is one statement, so no snapshot stays open.
"""

import contextlib
from collections.abc import Iterator

from oneweb_bridge.model.records import Row
from oneweb_bridge.store import places
from oneweb_bridge.store.engine import Reader
from oneweb_bridge.store.journal_sql import PAGE_ROWS, ROW_COLUMNS
from oneweb_bridge.store.places import Place

DAY_MS = 86_400_000
_SAMPLES = "((what IN ('metric', 'history') AND name <> 'presence') OR what = 'usage')"
_EVENTS = "what IN ('added', 'changed', 'removed', 'components')"
_STREAM = """CASE WHEN what = 'usage' THEN 'usage' ELSE entity END,
             CASE WHEN what = 'usage' AND entity <> 'usage' THEN name ELSE id END,
             CASE WHEN what = 'usage' THEN 'usage' ELSE name END"""
"""Entity, id and report of a sample's stream."""
MAX_SEQ = (1 << 63) - 1


@contextlib.contextmanager
def open_sample_rows(place: Place) -> Iterator["SampleRows"]:
    """The journal of the database in `place`, to be read from one thread at a time. Raises StoreError."""
    with places.open_reader(place) as db:
        yield SampleRows(db)


class SampleRows:
    """Made by `open_sample_rows`. Samples are measurements and usage, not presence."""

    def __init__(self, db: Reader) -> None:
        self._db = db

    def interrupt(self) -> None:
        """Ends the statement that runs in another thread; it raises there."""
        self._db.interrupt()

    def journal_id(self) -> str:
        """The id of the journal: rows of another one are other rows, whatever their numbers."""
        return str(self._db.execute("SELECT value FROM meta WHERE name = 'journal'").fetchone()[0])

    def has_record(self, kind: str, id: str) -> bool:
        """Whether there is a record of an id, which may have neither samples nor events any more."""
        return self._db.execute("SELECT 1 FROM record WHERE kind = ? AND id = ?", (kind, id)).fetchone() is not None

    def head(self) -> int:
        """The number of the last row that was ever written."""
        return self._fetch_int(self._db.dialect.journal_head)

    def oldest(self) -> tuple[int, int] | None:
        """The number of the oldest row, and the steady time in ms when it was written; None without rows."""
        row = self._db.execute("SELECT seq, at FROM journal ORDER BY seq LIMIT 1").fetchone()
        return None if row is None else (row[0], row[1])

    def find_new_days(self, after: int, through: int) -> list[tuple[int, str, int]]:
        """Day (since the epoch), id and first row of all samples in the rows (after, through]."""
        return self._db.execute(
            f"""SELECT ts / {DAY_MS}, id, min(seq) FROM journal WHERE seq > ? AND seq <= ? AND {_SAMPLES}
                GROUP BY 1, 2""",
            (after, through),
        ).fetchall()

    def samples_of_day(self, day: int, firsts: dict[str, int]) -> Iterator[tuple[str, str, str, int, bytes]]:
        """Entity, id, report, ts and body of the samples of some ids on a day, from a first row of each on.

        Those of an id stand together, by time and then as they came. Usage is of its bucket, whoever's it is.
        """
        sql = f"""SELECT {_STREAM}, ts, body FROM journal
                  WHERE id = ? AND ts >= ? AND ts < ? AND seq >= ? AND {_SAMPLES} ORDER BY ts, seq"""
        for id, first in firsts.items():
            yield from self._db.execute(sql, (id, day * DAY_MS, (day + 1) * DAY_MS, first))

    def samples_of(
        self, stream: tuple[str, str, str], id: str, since: int, until: int, *, seqs: tuple[int, int | None] = (0, None)
    ) -> Iterator[tuple[int, bytes]]:
        """Times and payloads of a stream's samples under an id, by time and as they came; `seqs`: from row, to row."""
        sql = f"""SELECT ts, body FROM journal WHERE id = ? AND ts >= ? AND ts < ? AND seq >= ? AND seq < ?
                  AND {_SAMPLES} AND ({_STREAM}) = (?, ?, ?) ORDER BY ts, seq"""
        first, end = seqs
        return iter(self._db.execute(sql, (id, since, until, first, MAX_SEQ if end is None else end, *stream)))

    def last_before(self, stream: tuple[str, str, str], id: str, moment: int) -> int | None:
        """The time of the newest sample of a stream under an id before a moment; None without one."""
        sql = f"""SELECT ts FROM journal WHERE id = ? AND ts < ? AND {_SAMPLES} AND ({_STREAM}) = (?, ?, ?)
                  ORDER BY ts DESC LIMIT 1"""
        row = self._db.execute(sql, (id, moment, *stream)).fetchone()
        return None if row is None else row[0]

    def streams_of(self, id: str) -> list[tuple[str, str, str]]:
        """Entity, id and report of the streams that have rows under an id."""
        sql = f"SELECT DISTINCT {_STREAM} FROM journal WHERE id = ? AND {_SAMPLES}"
        return self._db.execute(sql, (id,)).fetchall()

    def events_of(self, entity: str, id: str, since: int, until: int) -> Iterator[Row]:
        """Events, component lists and presence of an entity, by time and then as they came."""
        sql = f"""SELECT {ROW_COLUMNS} FROM journal WHERE id = ? AND entity = ? AND ts >= ? AND ts < ?
                  AND ({_EVENTS} OR (name = 'presence' AND what IN ('metric', 'history'))) ORDER BY ts, seq"""
        return (Row(*row) for row in self._db.execute(sql, (id, entity, since, until)).fetchall())

    def all_events(self, since: int, until: int) -> Iterator[Row]:
        """Events, component lists and presence of everybody, as they came."""
        sql = f"""SELECT {ROW_COLUMNS} FROM journal WHERE seq > ? AND ts >= ? AND ts < ?
                  AND ({_EVENTS} OR (name = 'presence' AND what IN ('metric', 'history'))) ORDER BY seq LIMIT ?"""
        seq = 0
        while rows := self._db.execute(sql, (seq, since, until, PAGE_ROWS)).fetchall():
            yield from (Row(*row) for row in rows)
            seq = rows[-1][0]

    def all_streams(self) -> list[tuple[str, str, str]]:
        """Entity, id and report of every stream that is known."""
        return self._db.execute(
            """SELECT entity, id, report FROM newest WHERE report <> 'presence'
               UNION SELECT 'usage', id, 'usage' FROM record WHERE kind = 'usage'
               UNION SELECT 'usage', id, 'usage' FROM removed WHERE kind = 'usage'"""
        ).fetchall()

    def sample_span(self) -> tuple[int, int] | None:
        """The times of the oldest and the newest sample there may be; None without a row."""
        row = self._db.execute("SELECT min(ts), max(ts) FROM journal").fetchone()
        return None if row[0] is None else (row[0], row[1])

    def span_of(self, id: str) -> tuple[int, int] | None:
        """The times of the first and the last row of an id; None without one."""
        # Asked together, they would be looked for in all rows of the id, instead of at the ends of the index.
        sql = "SELECT (SELECT min(ts) FROM journal WHERE id = ?), (SELECT max(ts) FROM journal WHERE id = ?)"
        row = self._db.execute(sql, (id, id)).fetchone()
        return None if row[0] is None else (row[0], row[1])

    def product_of_bucket(self, bucket: str) -> str | None:
        """The product of a usage bucket that is known; None without one."""
        sql = "SELECT json_extract(doc, '$.product_id') FROM record WHERE kind = 'usage' AND id = ?"
        row = self._db.execute(sql, (bucket,)).fetchone()
        return None if row is None else row[0]

    def _fetch_int(self, sql: str) -> int:
        return int(self._db.execute(sql).fetchone()[0])
