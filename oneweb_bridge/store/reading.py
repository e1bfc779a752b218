"""What the console reads of the database. Each method is one statement, so that no transaction stays open.

Not async: all of it runs in the thread of `query_thread`, on a read-only connection of its own.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from oneweb_bridge.model.records import Row
from oneweb_bridge.store import places
from oneweb_bridge.store.engine import Reader, placeholders
from oneweb_bridge.store.fleet_reading import MAX_IDS, FleetReader
from oneweb_bridge.store.journal_sql import ROW_COLUMNS, rows_of_page, select_page
from oneweb_bridge.store.meta import READ_JOURNAL_IDS, JournalIds, journal_ids_of
from oneweb_bridge.store.places import Place

MAX_RECENT_ALERTS = 500
MAX_HELD_IDS = 50
"""Ids of held records that one answer names."""
MAX_RELATED = 5000
"""Records that one answer lists beside its own."""
_EVENTS = "what IN ('added', 'changed', 'removed', 'components')"
"""As the index `journal_events` has it: SQLite uses a partial index for the same words alone."""


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are asked for: those before a row, of an entity, an id, a kind. None means all."""

    before: int | None = None
    limit: int = 100
    entity: str | None = None
    id: str | None = None
    kind: str | None = None


class StoredSetting(msgspec.Struct, frozen=True):
    """Where a setting of a call comes from."""

    call: str
    name: str
    source: str


class HeldRecords(msgspec.Struct, frozen=True):
    """How many records of a kind are held, and the first of their ids."""

    count: int
    ids: list[str]


@contextlib.contextmanager
def open_queries(place: Place) -> Iterator["Queries"]:
    """The queries on the database at `place`. Raises StoreError."""
    with places.open_reader(place, busy_timeout_ms=5000) as connection:
        yield Queries(connection)


class Queries:
    """Made by `open_queries`."""

    def __init__(self, connection: Reader) -> None:
        self._connection = connection
        self.fleet = FleetReader(self._iterate)
        # The first components of a terminal are no event.
        document = connection.dialect.body_text
        self._is_event = f"(what <> 'components' OR json_extract({document}, '$.changed') IS NOT NULL)"

    def interrupt(self) -> None:
        """Ends the query that runs in another thread."""
        self._connection.interrupt()

    def _iterate(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Any]:
        return iter(self._connection.execute(sql, parameters))

    # ── the journal ────────────────────────────────────────────────────────────────────────────

    def journal_ids(self) -> JournalIds:
        """The journal's id, and those it had before, each with the last row that carries it."""
        return journal_ids_of(list(self._iterate(READ_JOURNAL_IDS)))

    def head(self) -> int:
        """The number of the last row that was ever written."""
        (row,) = self._iterate(self._connection.dialect.journal_head)
        return int(row[0])

    def oldest(self) -> int:
        """The number of the oldest row that is still there; 0 when there is none."""
        (row,) = self._iterate("SELECT coalesce(min(seq), 0) FROM journal")
        return int(row[0])

    def has_row(self, seq: int) -> bool:
        """Whether a row is still kept."""
        return any(True for _ in self._iterate("SELECT 1 FROM journal WHERE seq = ?", (seq,)))

    def rows_after(self, seq: int, limit: int) -> list[Row]:
        """The next rows behind `seq`."""
        dialect = self._connection.dialect
        return rows_of_page(dialect, list(self._iterate(select_page(dialect, "seq > ?"), (seq, limit))))

    def events(self, wanted: EventFilter) -> list[Row]:
        """Rows that carry an event, newest first."""
        conditions: list[str] = [_EVENTS, self._is_event]
        values: list[str | int] = []
        # The plus keeps SQLite from going through all rows before `seq` instead of those of the id.
        index = "" if wanted.id is not None else self._connection.dialect.events_index
        if wanted.before is not None:
            conditions.append("seq < ?" if wanted.id is None else "+seq < ?")
            values.append(wanted.before)
        for column, value in (("id", wanted.id), ("entity", wanted.entity)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        if wanted.kind is not None:
            conditions.append("CASE what WHEN 'components' THEN 'changed' ELSE what END = ?")
            values.append(wanted.kind)
        sql = f"SELECT {ROW_COLUMNS} FROM journal {index} WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?"
        return [Row(*row) for row in self._iterate(sql, (*values, wanted.limit))]

    def alerts(self, before: int | None, kind: str | None, limit: int) -> list[Row]:
        """Alerts, newest first."""
        sql = (
            f"SELECT {ROW_COLUMNS} FROM journal WHERE id = '' AND what = 'alert' AND +seq < ? "
            "AND name = coalesce(?, name) ORDER BY seq DESC LIMIT ?"
        )
        return [Row(*row) for row in self._iterate(sql, (1 << 62 if before is None else before, kind, limit))]

    def alerts_since(self, ts: int) -> list[Row]:
        """Alerts since a time in ms, newest first."""
        sql = (
            f"SELECT {ROW_COLUMNS} FROM journal WHERE id = '' AND what = 'alert' AND ts >= ? ORDER BY seq DESC LIMIT ?"
        )
        return [Row(*row) for row in self._iterate(sql, (ts, MAX_RECENT_ALERTS))]

    # ── records and samples ────────────────────────────────────────────────────────────────────

    def all_records(self, kind: str) -> Iterator[tuple[str, str]]:
        """Id and document of every record of a kind, by id."""
        return self._iterate("SELECT id, doc FROM record WHERE kind = ? ORDER BY id", (kind,))

    def records(self, kind: str, ids: Iterable[str]) -> dict[str, str]:
        """The documents of those of some ids that are stored."""
        wanted = list(ids)
        documents: dict[str, str] = {}
        for start in range(0, len(wanted), MAX_IDS):
            part = wanted[start : start + MAX_IDS]
            sql = f"SELECT id, doc FROM record WHERE kind = ? AND id IN ({placeholders(part)}) ORDER BY id"
            documents.update(self._iterate(sql, (kind, *part)))
        return documents

    def record(self, kind: str, id: str) -> str | None:
        """The document of one record."""
        return self.records(kind, [id]).get(id)

    def buckets_of(self, product_ids: Iterable[str]) -> dict[str, str]:
        """The usage buckets of products, by bucket id."""
        documents: dict[str, str] = {}
        for product_id in product_ids:
            sql = (
                "SELECT id, doc FROM record WHERE kind = 'usage' AND json_extract(doc, '$.product_id') = ? ORDER BY id"
            )
            documents.update(self._iterate(sql, (product_id,)))
        return documents

    def newest_of(self, entity: str, id: str) -> dict[str, str]:
        """The newest sample of each report of an id."""
        sql = "SELECT report, doc FROM newest WHERE id = ? AND entity = ? AND seq > 0 ORDER BY report"
        return dict(self._iterate(sql, (id, entity)))

    def all_newest(self, entity: str) -> Iterator[tuple[str, str, int, str]]:
        """Id, report, time and document of every newest sample of an entity, by id."""
        sql = "SELECT id, report, ts, doc FROM newest WHERE entity = ? AND seq > 0 ORDER BY id, report"
        return self._iterate(sql, (entity,))

    def terminals_of_product(self, product_id: str) -> list[str]:
        """The terminals that a product belongs to."""
        sql = "SELECT DISTINCT imei FROM product_link WHERE product_id = ? ORDER BY imei"
        return [row[0] for row in self._iterate(sql, (product_id,))]

    def products_of_terminal(self, imei: str) -> list[str]:
        """The products of a terminal."""
        sql = "SELECT DISTINCT product_id FROM product_link WHERE imei = ? ORDER BY product_id"
        return [row[0] for row in self._iterate(sql, (imei,))]

    def records_by_member(self, kind: str, member: str, value: str) -> dict[str, str]:
        """The records of a kind of which a member, given by its path, has a value."""
        sql = "SELECT id, doc FROM record WHERE kind = ? AND json_extract(doc, ?) = ? ORDER BY id LIMIT ?"
        return dict(self._iterate(sql, (kind, f"$.{member}", value, MAX_RELATED)))

    # ── calls ──────────────────────────────────────────────────────────────────────────────────

    def settings(self) -> list[StoredSetting]:
        """Where the settings come from that commands have made."""
        return [StoredSetting(*row) for row in self._iterate("SELECT call, name, source FROM setting")]

    def held_records(self, kind: str) -> HeldRecords:
        """The records of a kind that are held: those that are missing, or that keep values which the API does not show
        any more (these have no hash). Where the last listing was empty it counted none as missing, and all are held.
        """
        missing = self._held("kind = ? AND missing > 0", kind)
        without_hash = self._held("kind = ? AND hash = ?", kind, b"")
        held = max(missing, without_hash, key=lambda held: held.count)
        return held if held.count else self._held("kind = ?", kind)

    def _held(self, condition: str, *values: Any) -> HeldRecords:
        (row,) = self._iterate(f"SELECT count(*) FROM record WHERE {condition}", values)
        ids = self._iterate(f"SELECT id FROM record WHERE {condition} ORDER BY id LIMIT ?", (*values, MAX_HELD_IDS))
        return HeldRecords(int(row[0]), [id for (id,) in ids])
