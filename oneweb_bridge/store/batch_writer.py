"""Writes one batch: its journal rows, its records and samples, and which devices and relations they concern."""

from collections.abc import Sequence

from oneweb_bridge.model.records import Batch, NewestSampleWrite, RecordKind
from oneweb_bridge.model.value_types import merge_value_types
from oneweb_bridge.store.device_marks import MARK_DIRTY
from oneweb_bridge.store.engine import Dialect, Transaction, placeholders
from oneweb_bridge.store.meta import WRITE_META

_DEVICE_CHANGING = ("added", "changed", "removed", "components", "clear")
"""Types of rows after which a device of Home Assistant must be built anew."""


class BatchWriter:
    """A batch that is being written in an open transaction. `now` is steady, `wall_time` the clock's, both in ms."""

    def __init__(self, transaction: Transaction, batch: Batch, dialect: Dialect, *, now: int, wall_time: int) -> None:
        self._transaction = transaction
        self._batch = batch
        self._dialect = dialect
        self._now = now
        self._wall_time = wall_time
        self._head = 0
        self._dirty_devices: set[tuple[str, str]] = set()

    async def write(self) -> int:
        """Writes all of it. Returns the number of the journal's last row."""
        rows = await self._transaction.fetch_all(self._dialect.journal_head)
        self._head = int(rows[0][0])
        await self._append_entries()
        await self._write_records()
        await self._write_samples()
        await self._write_usage_days()
        await self._write_relations()
        await self._transaction.execute_many(WRITE_META, self._batch.facts)
        await self._mark_changed_devices()
        return self._head + len(self._batch.entries)

    def _seq_of(self, entry: int | None) -> int:
        """The row number of an entry of the batch; 0 for none."""
        return 0 if entry is None else self._head + entry + 1

    def _time_of(self, entry: int | None) -> int:
        """The time of an entry of the batch in ms; 0 for none."""
        return 0 if entry is None else self._batch.entries[entry].ts

    async def _append_entries(self) -> None:
        await self._transaction.append_journal(
            [
                (self._seq_of(index), self._now, e.entity, e.id, e.what, e.name, e.ts, e.body)
                for index, e in enumerate(self._batch.entries)
            ]
        )

    # ── records ────────────────────────────────────────────────────────────────────────────────

    async def _write_records(self) -> None:
        batch, transaction = self._batch, self._transaction
        await transaction.execute_many(
            """INSERT INTO record (kind, id, doc, hash, seq, event_at) VALUES (?, ?, ?, ?, ?, ?)
               ON CONFLICT (kind, id) DO UPDATE SET doc = excluded.doc, hash = excluded.hash, missing = 0,
               missing_since = 0, seq = CASE WHEN excluded.seq > 0 THEN excluded.seq ELSE record.seq END,
               event_at = CASE WHEN excluded.seq > 0 THEN excluded.event_at ELSE record.event_at END""",
            [
                (put.kind, put.id, put.doc.decode(), put.hash, self._seq_of(put.entry), self._time_of(put.entry))
                for put in batch.writes
            ],
        )
        if batch.writes and await transaction.fetch_all("SELECT 1 FROM removed LIMIT 1"):
            await transaction.execute_many(
                "DELETE FROM removed WHERE kind = ? AND id = ?", [(put.kind, put.id) for put in batch.writes]
            )
        await transaction.execute_many(
            "UPDATE record SET hash = ?, missing = 0, missing_since = 0 WHERE kind = ? AND id = ?",
            batch.unchanged,
        )
        await transaction.execute_many(
            "UPDATE record SET presence_at = ? WHERE kind = 'terminal' AND id = ?",
            [(at, id) for id, at in batch.presence],
        )
        if batch.removed:
            await self._remove(batch.removed)

    async def _remove(self, removed: Sequence[tuple[RecordKind, str]]) -> None:
        transaction = self._transaction
        await transaction.execute_many("DELETE FROM record WHERE kind = ? AND id = ?", removed)
        await transaction.execute_many(
            """INSERT INTO removed (kind, id, at) VALUES (?, ?, ?)
               ON CONFLICT (kind, id) DO UPDATE SET at = excluded.at""",
            [(kind, id, self._wall_time) for kind, id in removed],
        )
        # Keep the seen samples of a removed id, or the API's repeats would be published as new.
        await transaction.execute_many(
            "UPDATE newest SET doc = '', seq = 0, letters = '' WHERE entity = ? AND id = ?", removed
        )
        terminals = [id for kind, id in removed if kind == "terminal"]
        for kind in ("components", "relations"):
            await transaction.execute_many(
                "DELETE FROM record WHERE kind = ? AND id = ?", [(kind, id) for id in terminals]
            )
        await transaction.execute_many("DELETE FROM stale WHERE imei = ?", [(id,) for id in terminals])

    # ── samples ────────────────────────────────────────────────────────────────────────────────

    async def _write_samples(self) -> None:
        batch, transaction = self._batch, self._transaction
        value_types = await self._merge_value_types(batch.newest)
        await transaction.execute_many(
            """INSERT INTO newest (entity, report, id, ts, hash, doc, seq, letters) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
               ON CONFLICT (report, id) DO UPDATE SET ts = excluded.ts, hash = excluded.hash,
               doc = excluded.doc, seq = excluded.seq, letters = excluded.letters""",
            [
                (n.entity, n.report, n.id, n.ts, n.hash, n.doc.decode(), self._seq_of(n.entry), types)
                for n in batch.newest
                for types in [value_types.get((n.report, n.id), "")]
            ],
        )
        # Those that were just written have their row, which gives what was seen its stream.
        written = {(n.entity, n.report, n.id) for n in batch.newest}
        await transaction.execute_many(
            """INSERT INTO newest (entity, report, id, ts, hash, doc, seq) VALUES (?, ?, ?, -1, 0, '', 0)
               ON CONFLICT DO NOTHING""",
            [key for s in batch.seen if (key := (s.entity, s.report, s.id)) not in written],
        )
        await transaction.execute_many(
            """INSERT INTO seen (stream, ts, hash) SELECT stream, ?, ? FROM newest WHERE report = ? AND id = ?
               ON CONFLICT (stream, ts) DO UPDATE SET hash = excluded.hash""",
            [(sample.ts, sample.hash, sample.report, sample.id) for sample in batch.seen],
        )

    async def _merge_value_types(self, newest: Sequence[NewestSampleWrite]) -> dict[tuple[str, str], str]:
        """The value types of each report and id with those of new samples; notes the devices that have other ones."""
        types: dict[tuple[str, str], str] = {}
        for report in {n.report for n in newest}:
            ids = list({n.id for n in newest if n.report == report})
            rows = await self._transaction.fetch_all(
                f"SELECT id, letters FROM newest WHERE report = ? AND id IN ({placeholders(ids)})", (report, *ids)
            )
            types |= {(report, row[0]): row[1] for row in rows}
        for n in newest:
            before = types.get((n.report, n.id), "")
            if n.value_types != before and not set(n.value_types.split()) <= set(before.split()):
                types[n.report, n.id] = merged = merge_value_types(before, n.value_types)
                if merged != before:
                    self._dirty_devices.add((n.entity, n.id))
        return types

    async def _write_usage_days(self) -> None:
        writes, transaction = self._batch.usage_days, self._transaction
        await transaction.execute_many(
            """INSERT INTO usage_days (kind, id, body) VALUES (?, ?, ?)
               ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body""",
            [(write.kind, write.id, write.body.decode()) for write in writes if write.body],
        )
        await transaction.execute_many(
            "DELETE FROM usage_days WHERE kind = ? AND id = ?",
            [(write.kind, write.id) for write in writes if not write.body],
        )

    # ── what follows from them ─────────────────────────────────────────────────────────────────

    async def _write_relations(self) -> None:
        batch, transaction = self._batch, self._transaction
        await transaction.execute_many("DELETE FROM stale WHERE imei = ?", [(imei,) for imei in batch.relations_done])
        for side, column in (("terminal", "imei"), ("product", "product_id")):
            sources = [(side, id) for said_by, id, _ in batch.product_links if said_by == side]
            await transaction.execute_many(f"DELETE FROM product_link WHERE said_by = ? AND {column} = ?", sources)
        await transaction.execute_many(
            "INSERT INTO product_link (product_id, imei, said_by) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            [(*link, said_by) for said_by, _, links in batch.product_links for link in links],
        )
        await transaction.execute_many(
            "INSERT INTO stale (imei) VALUES (?) ON CONFLICT DO NOTHING", [(imei,) for imei in batch.stale_relations]
        )
        if batch.all_stale:
            await transaction.execute(
                "INSERT INTO stale (imei) SELECT id FROM record WHERE kind = 'terminal' ON CONFLICT DO NOTHING"
            )

    async def _mark_changed_devices(self) -> None:
        """Marks the devices that the batch changes dirty, with the change itself: both or neither."""
        batch = self._batch
        devices = self._dirty_devices.union(batch.dirty_devices)
        devices |= {
            (entry.entity, entry.id)
            for entry in batch.entries
            if entry.entity in ("terminal", "product") and entry.what in _DEVICE_CHANGING
        }
        devices |= {
            ("product", product) for side, _, links in batch.product_links if side == "terminal" for product, _ in links
        }
        await self._transaction.execute_many(MARK_DIRTY, [(kind, id, self._now) for kind, id in sorted(devices)])
