"""What the bridge knows, in SQLite: records, samples, settings, and the journal they are told through.

The one writer of records. A transaction is whole or not there at all (`database.transaction`).
After a failed commit nothing in memory is trusted any more; it is read again from the disk.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite
import msgspec

from oneweb_bridge.clock import SYSTEM, Clock, SteadyTime
from oneweb_bridge.model.records import (
    Batch,
    Entry,
    FormerJournalIds,
    KnownSamples,
    NewestSampleWrite,
    OnlineTerminal,
    RecordKind,
    StoredRecord,
)
from oneweb_bridge.model.value_types import merge_value_types
from oneweb_bridge.store import database, staging
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.growth import JournalGrowth
from oneweb_bridge.store.staging import StagedRow, Staging

SLICE = 1000
"""How many records one transaction takes at most, so that another writer never waits long."""


class CallProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one call over restarts. Times in ms; see schema.sql.

    `last_poll` and `last_success` are for people; `polled` and `succeeded` are the same in steady time, as
    `held_since` is. `values_held` is JSON: the fields whose values are held, each with the steady time since when.
    """

    id: str
    fingerprint: str = ""
    complete: bool = False
    remapped: bool = False
    last_poll: int = 0
    last_success: int = 0
    window_end: int = 0
    horizon: int = 0
    held_since: int = 0
    released: bool = False
    failures: int = 0
    polled: int = 0
    succeeded: int = 0
    values_held: str = "{}"

    def is_holding(self) -> bool:
        """Whether removals or values are held."""
        return self.held_since > 0 or self.values_held != "{}"


class PollRequest(msgspec.Struct, frozen=True):
    """A poll that a command on `topic` asked for. `remembered`: it is obeyed once, `sender`: the command's own id."""

    number: int
    topic: str
    call: str
    remembered: bool
    sender: str | None


class Setting(msgspec.Struct, frozen=True):
    """A value that a command has set for a call, as JSON, and where the command came from."""

    call: str
    name: str
    value: str
    source: str


@contextlib.asynccontextmanager
async def open_store(path: Path, clock: Clock = SYSTEM) -> AsyncIterator["Store"]:
    """The store in `path`, created where it is missing. Raises StoreError."""
    with database.hold_lock(path):
        database.create_private(path)
        async with database.open_connection(path) as db:
            with database.explained(path):
                await database.migrate(db, path)
                await database.renew_copy(db)
                steady = await database.steady_time(db, clock)
                ids = await database.journal_ids(db)
            async with database.open_connection(path, read_only=True) as reader, staging.opened() as staged:
                yield Store(db, reader, staged, path, ids, clock=clock, steady=steady)


MARK_DIRTY = """
INSERT INTO discovery (kind, id, marked_at) VALUES (?, ?, ?)
ON CONFLICT (kind, id) DO UPDATE SET mark = mark + 1,
marked_at = CASE WHEN mark = done THEN excluded.marked_at ELSE marked_at END
"""
"""Marks a device as one that may have changed; the time is that of the first mark since it was sent."""

_DEVICE_CHANGING = ("added", "changed", "removed", "components", "clear")
"""Entries after which a device may have other entities, or be none any more."""


class Store:
    """Made by `opened`. Every method is one transaction, or reads what was committed; a slice is of one moment.

    Reads have a connection of their own: on that of the writer they would see what another task has not committed.
    """

    def __init__(
        self,
        db: aiosqlite.Connection,
        reader: aiosqlite.Connection,
        staged: Staging,
        path: Path,
        ids: tuple[str, FormerJournalIds],
        *,
        clock: Clock,
        steady: SteadyTime,
    ) -> None:
        self.path = path
        self.steady = steady
        self.journal_id, self.earlier = ids
        self.growth = JournalGrowth()
        self.problem: str | None = None
        """Why the last transaction could not be written; None when it was."""
        self._db = db
        self._reader = reader
        self._staging = staged
        self._lock = asyncio.Lock()
        self._clock = clock

    # ── writing ────────────────────────────────────────────────────────────────────────────────

    async def commit(self, batch: Batch, memory: CallProgress | None = None, ended: Sequence[int] = ()) -> int:
        """Stores a batch and appends its entries to the journal. Returns the journal's last number.

        With it, in the same transaction: the progress of a call, and the numbers of poll requests that have ended.
        """
        async with self._transaction():
            head = await self._head()
            await self._append(head, batch.entries)
            await self._write_records(head, batch)
            await self._write_samples(head, batch)
            await self._write_relations(batch)
            await self._mark_devices(batch)
            if memory is not None:
                await self._write_memory(memory)
            await self._many("DELETE FROM poll_request WHERE number = ?", [(number,) for number in ended])
        if batch.entries:
            self.growth.notify()
        return head + len(batch.entries)

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        try:
            async with database.transaction(self._db, self._lock):
                yield
            self.problem = None
        except StoreUnavailable as error:
            self.problem = str(error)
            raise

    async def _head(self) -> int:
        rows = await self._rows_in_transaction("SELECT seq FROM sqlite_sequence WHERE name = 'journal'")
        return int(rows[0][0]) if rows else 0

    async def _append(self, head: int, entries: Sequence[Entry]) -> None:
        at = self.steady.now()
        await self._many(
            "INSERT INTO journal (seq, at, entity, id, what, name, ts, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(head + i, at, e.entity, e.id, e.what, e.name, e.ts, e.body) for i, e in enumerate(entries, 1)],
        )

    async def _write_records(self, head: int, batch: Batch) -> None:
        await self._many(
            """INSERT INTO record (kind, id, doc, hash, seq) VALUES (?, ?, ?, ?, ?)
               ON CONFLICT (kind, id) DO UPDATE SET doc = excluded.doc, hash = excluded.hash, missing = 0,
               missing_since = 0, seq = CASE WHEN excluded.seq > 0 THEN excluded.seq ELSE seq END""",
            [(p.kind, p.id, p.doc.decode(), p.hash, 0 if p.entry is None else head + p.entry + 1) for p in batch.puts],
        )
        if batch.puts and await self._rows_in_transaction("SELECT 1 FROM removed LIMIT 1"):
            await self._many("DELETE FROM removed WHERE kind = ? AND id = ?", [(p.kind, p.id) for p in batch.puts])
        await self._many(
            "UPDATE record SET hash = ?, missing = 0, missing_since = 0 WHERE kind = ? AND id = ?",
            batch.same,
        )
        await self._many(
            "UPDATE record SET presence_at = ? WHERE kind = 'terminal' AND id = ?",
            [(at, id) for id, at in batch.presence],
        )
        if batch.removed:
            await self._remove(batch.removed)

    async def _remove(self, removed: Sequence[tuple[RecordKind, str]]) -> None:
        at = self._clock.now()
        await self._many("DELETE FROM record WHERE kind = ? AND id = ?", removed)
        await self._many("INSERT OR REPLACE INTO removed VALUES (?, ?, ?)", [(kind, id, at) for kind, id in removed])
        # What was seen of its samples stays, or they would go out again when the API repeats them.
        await self._many("UPDATE newest SET doc = '', seq = 0, letters = '' WHERE entity = ? AND id = ?", removed)
        terminals = [id for kind, id in removed if kind == "terminal"]
        for kind in ("components", "relations"):
            await self._many("DELETE FROM record WHERE kind = ? AND id = ?", [(kind, id) for id in terminals])
        await self._many("DELETE FROM stale WHERE imei = ?", [(id,) for id in terminals])

    async def _write_samples(self, head: int, batch: Batch) -> None:
        letters = await self._all_letters(batch.newest)
        await self._many(
            "INSERT OR IGNORE INTO newest (entity, report, id, ts, hash, doc, seq) VALUES (?, ?, ?, -1, 0, '', 0)",
            [(s.entity, s.report, s.id) for s in batch.seen],
        )
        await self._many(
            """INSERT INTO newest (entity, report, id, ts, hash, doc, seq) VALUES (?, ?, ?, ?, ?, ?, ?)
               ON CONFLICT (report, id) DO UPDATE SET ts = excluded.ts, hash = excluded.hash,
               doc = excluded.doc, seq = excluded.seq""",
            [
                (n.entity, n.report, n.id, n.ts, n.hash, n.doc.decode(), 0 if n.entry is None else head + n.entry + 1)
                for n in batch.newest
            ],
        )
        await self._many(
            "UPDATE newest SET letters = ? WHERE report = ? AND id = ?",
            [(said, report, id) for (_, report, id), said in letters.items()],
        )
        await self._mark([(entity, id) for entity, _, id in letters])
        await self._many(
            """INSERT OR REPLACE INTO seen (stream, ts, hash)
               SELECT stream, ?, ? FROM newest WHERE report = ? AND id = ?""",
            [(s.ts, s.hash, s.report, s.id) for s in batch.seen],
        )

    async def _all_letters(self, newest: Sequence[NewestSampleWrite]) -> dict[tuple[str, str, str], str]:
        """What is known of the values of each report and id, where one of these samples brings something new."""
        known: dict[tuple[str, str], str] = {}
        for report in {n.report for n in newest}:
            ids = list({n.id for n in newest if n.report == report})
            rows = await self._rows_in_transaction(
                f"SELECT id, letters FROM newest WHERE report = ? AND id IN ({_placeholders(ids)})", (report, *ids)
            )
            known |= {(report, row[0]): row[1] for row in rows}
        found: dict[tuple[str, str, str], str] = {}
        for n in newest:
            before = found.get((n.entity, n.report, n.id), known.get((n.report, n.id), ""))
            if n.letters != before and not set(n.letters.split()) <= set(before.split()):
                merged = merge_value_types(before, n.letters)
                if merged != before:
                    found[n.entity, n.report, n.id] = merged
        return found

    async def _mark_devices(self, batch: Batch) -> None:
        """Notes what Home Assistant may have to be told of, with the change itself: both or neither."""
        marks = {
            (entry.entity, entry.id)
            for entry in batch.entries
            if entry.entity in ("terminal", "product") and entry.what in _DEVICE_CHANGING
        }
        marks |= {("product", product) for side, _, links in batch.links if side == "terminal" for product, _ in links}
        await self._mark(sorted(marks.union(batch.reshaped)))

    async def _mark(self, devices: Sequence[tuple[str, str]]) -> None:
        now = self.steady.now()
        await self._many(MARK_DIRTY, [(kind, id, now) for kind, id in devices])

    async def _write_relations(self, batch: Batch) -> None:
        await self._many("DELETE FROM stale WHERE imei = ?", [(imei,) for imei in batch.related])
        for side, column in (("terminal", "imei"), ("product", "product_id")):
            said = [(side, id) for said_by, id, _ in batch.links if said_by == side]
            await self._many(f"DELETE FROM product_link WHERE said_by = ? AND {column} = ?", said)
        await self._many(
            "INSERT OR IGNORE INTO product_link VALUES (?, ?, ?)",
            [(*link, said_by) for said_by, _, links in batch.links for link in links],
        )
        await self._many("INSERT OR IGNORE INTO stale VALUES (?)", [(imei,) for imei in batch.stale])
        if batch.all_stale:
            await self._db.execute("INSERT OR IGNORE INTO stale SELECT id FROM record WHERE kind = 'terminal'")

    async def _write_memory(self, memory: CallProgress) -> None:
        names = CallProgress.__struct_fields__
        await self._db.execute(
            f"INSERT OR REPLACE INTO call ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            msgspec.structs.astuple(memory),
        )

    async def remember(self, memory: CallProgress) -> None:
        """Stores what is remembered of a call, without saying anything."""
        async with self._transaction():
            await self._write_memory(memory)

    async def release_removals(self, calls: Sequence[str]) -> None:
        """Stores for all these calls or for none that their held removals may go."""
        async with self._transaction():
            await self._many("UPDATE call SET released = 1 WHERE id = ?", [(call,) for call in calls])

    async def _rows_in_transaction(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Reads what the open transaction sees, its own changes among it."""
        return list(await self._db.execute_fetchall(sql, parameters))

    async def _many(self, sql: str, parameters: Sequence[Any]) -> None:
        if parameters:
            await self._db.executemany(sql, parameters)

    async def count_missing(self, kind: RecordKind, ids: Sequence[str], now: int) -> None:
        """Notes that a complete listing did not have these records; `now` is steady time.

        A crash may leave some slices uncounted.
        """
        for start in range(0, len(ids), SLICE):
            async with self._transaction():
                await self._many(
                    """UPDATE record SET missing = missing + 1,
                       missing_since = CASE WHEN missing_since = 0 THEN ? ELSE missing_since END
                       WHERE kind = ? AND id = ?""",
                    [(now, kind, id) for id in ids[start : start + SLICE]],
                )

    # ── reading ────────────────────────────────────────────────────────────────────────────────

    async def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return await database.fetch_all(self._reader, sql, parameters)

    async def load_call_progress(self, call: str) -> CallProgress:
        """What is remembered of a call; of one never polled, nothing."""
        names = ", ".join(CallProgress.__struct_fields__)
        rows = await self._rows(f"SELECT {names} FROM call WHERE id = ?", (call,))
        return _call_progress(rows[0]) if rows else CallProgress(id=call)

    async def skippable_hashes(self, kind: RecordKind, presence_after: int) -> tuple[set[bytes], int]:
        """The hashes of records that need no look when they come with the same one, and their oldest presence.

        Those that are missing need one, and terminals whose presence went out at a steady time in ms or before.
        """
        found: set[bytes] = set()
        after, oldest = "", 1 << 62
        while rows := await self._rows(
            "SELECT id, hash, missing, presence_at FROM record WHERE kind = ? AND id > ? ORDER BY id LIMIT ?",
            (kind, after, 5 * SLICE),
        ):
            known = [row for row in rows if not row[2] and row[3] > presence_after]
            found.update(row[1] for row in known)
            oldest = min([oldest, *(row[3] for row in known)])
            after = rows[-1][0]
        return found, oldest

    async def presence(self, imeis: Sequence[str]) -> dict[str, int]:
        """The steady time when the presence of each stored terminal went out last; 0 for never."""
        rows = await self._rows(
            f"SELECT id, presence_at FROM record WHERE kind = 'terminal' AND id IN ({_placeholders(imeis)})", imeis
        )
        return {row[0]: row[1] for row in rows}

    async def load(self, kind: RecordKind, ids: Sequence[str]) -> dict[str, StoredRecord]:
        """The stored records among `ids`."""
        rows = await self._rows(
            f"SELECT id, doc, hash FROM record WHERE kind = ? AND id IN ({_placeholders(ids)})", (kind, *ids)
        )
        return {row[0]: StoredRecord(row[1].encode(), row[2]) for row in rows}

    async def count(self, kind: RecordKind) -> int:
        """How many records of a kind are stored."""
        return int((await self._rows("SELECT count(*) FROM record WHERE kind = ?", (kind,)))[0][0])

    async def missing_counts_after(self, kind: RecordKind, after: str) -> list[tuple[str, int, int]]:
        """The next slice of stored ids in their order, each with how often and since when it is missing."""
        rows = await self._rows(
            "SELECT id, missing, missing_since FROM record WHERE kind = ? AND id > ? ORDER BY id LIMIT ?",
            (kind, after, SLICE),
        )
        return [(row[0], row[1], row[2]) for row in rows]

    async def reports_of(self, entity: str, ids: Sequence[str]) -> dict[str, list[str]]:
        """Which reports have a newest sample, per id."""
        rows = await self._rows(
            f"""SELECT id, report FROM newest WHERE entity = ? AND seq > 0 AND id IN ({_placeholders(ids)})
                ORDER BY report""",
            (entity, *ids),
        )
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row[0], []).append(row[1])
        return found

    async def past(self, report: str, ids: Sequence[str]) -> dict[str, KnownSamples]:
        """What is known of the samples of those of the ids that have had any."""
        rows = await self._rows(
            f"""SELECT n.id, n.ts, n.hash, s.ts, s.hash FROM newest n LEFT JOIN seen s ON s.stream = n.stream
                WHERE n.report = ? AND n.id IN ({_placeholders(ids)})""",
            (report, *ids),
        )
        found: dict[str, KnownSamples] = {}
        for id, ts, hash_, seen_ts, seen_hash in rows:
            past = found.setdefault(id, KnownSamples(ts, hash_, {ts: hash_} if ts >= 0 else {}))
            if seen_ts is not None:
                past.seen[seen_ts] = seen_hash
        return found

    async def newest_sample(self, report: str, latest: int) -> int:
        """The time of the newest sample of a report up to `latest`; -1 when there is none."""
        rows = await self._rows("SELECT max(ts) FROM newest WHERE report = ? AND ts <= ?", (report, latest))
        return -1 if rows[0][0] is None else int(rows[0][0])

    async def newest_samples_of_online(self, report: str, states: Sequence[str], latest: int) -> list[OnlineTerminal]:
        """The newest sample time up to `latest`, and the one before, of each terminal that is in one of `states`."""
        rows = await self._rows(
            f"""SELECT n.id, n.ts, (SELECT max(s.ts) FROM seen s WHERE s.stream = n.stream AND s.ts < n.ts)
                FROM newest n JOIN record r ON r.kind = 'terminal' AND r.id = n.id
                WHERE n.report = ? AND n.ts BETWEEN 0 AND ?
                    AND json_extract(r.doc, '$.state') IN ({_placeholders(states)})
                ORDER BY n.id""",
            (report, latest, *states),
        )
        return [OnlineTerminal(id, ts, -1 if before is None else before) for id, ts, before in rows]

    async def among(self, table: str, kind: RecordKind, ids: Sequence[str]) -> set[str]:
        """Those of `ids` that `table` (record or removed) has."""
        rows = await self._rows(f"SELECT id FROM {table} WHERE kind = ? AND id IN ({_placeholders(ids)})", (kind, *ids))
        return {row[0] for row in rows}

    async def delete_seen_samples(self, report: str, before: int) -> None:
        """Drops what is remembered of samples older than `before`, but for the newest of each id."""
        streams = [row[0] for row in await self._rows("SELECT stream FROM newest WHERE report = ?", (report,))]
        for start in range(0, len(streams), SLICE):
            async with self._transaction():
                await self._many(
                    "DELETE FROM seen WHERE stream = ? AND ts < ?",
                    [(stream, before) for stream in streams[start : start + SLICE]],
                )

    def write_bad_answer(self, call: str, piece: bytes) -> None:
        """Keeps the beginning of the last bad answer to a call beside the database, for the operator to see."""
        place = self.path.with_name(f"{self.path.name}.bad-answers")
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, exist_ok=True)
            (place / f"{call}.txt").write_bytes(piece)

    # ── staging ────────────────────────────────────────────────────────────────────────────────

    async def delete_staged(self, call: str) -> None:
        """Forgets what is staged of a call."""
        await self._staging.clear(call)

    async def stage(self, call: str, rows: Sequence[StagedRow]) -> None:
        """Keeps (ts, id, hash, body) until the listing is complete."""
        await self._staging.add(call, rows)

    def iter_staged(self, call: str) -> AsyncIterator[list[StagedRow]]:
        """What is staged of a call, oldest time first and then by id, in slices."""
        return self._staging.slices(call, SLICE)

    async def staged_ids(self, call: str) -> list[list[str]]:
        """The ids of which something is staged, in slices."""
        ids = await self._staging.ids(call)
        return [ids[start : start + SLICE] for start in range(0, len(ids), SLICE)]

    async def latest_staged(self, call: str, ids: Sequence[str]) -> dict[str, int]:
        """The newest time that is staged of each id."""
        return await self._staging.latest(call, ids)

    # ── relations ──────────────────────────────────────────────────────────────────────────────

    async def stale(self) -> list[str]:
        """Some terminals whose relations have to be worked out again."""
        return [row[0] for row in await self._rows("SELECT imei FROM stale LIMIT ?", (SLICE // 2,))]

    async def linked_terminals(self, product_ids: Sequence[str]) -> list[str]:
        """The terminals that have one of these products, or are said to have it."""
        rows = await self._rows(
            f"SELECT DISTINCT imei FROM product_link WHERE product_id IN ({_placeholders(product_ids)})", product_ids
        )
        return [row[0] for row in rows]

    async def linked_products(self, imeis: Sequence[str]) -> dict[str, list[str]]:
        """The products of each terminal, as either side says it."""
        rows = await self._rows(
            f"""SELECT DISTINCT imei, product_id FROM product_link WHERE imei IN ({_placeholders(imeis)})
                ORDER BY imei, product_id""",
            imeis,
        )
        found: dict[str, list[str]] = {}
        for imei, product_id in rows:
            found.setdefault(imei, []).append(product_id)
        return found

    # ── settings and commands ──────────────────────────────────────────────────────────────────

    async def settings(self) -> list[Setting]:
        """What commands have set."""
        return [Setting(*row) for row in await self._rows("SELECT call, name, value, source FROM setting")]

    async def store_command(self, settings: Iterable[Setting], mark: tuple[str, str] | None) -> None:
        """Stores settings (an empty value drops one) and, with them, that the command was obeyed."""
        now = self._clock.now()
        async with self._transaction():
            for setting in settings:
                await self._db.execute("DELETE FROM setting WHERE call = ? AND name = ?", (setting.call, setting.name))
                if setting.value:
                    await self._db.execute(
                        "INSERT INTO setting VALUES (?, ?, ?, ?, ?)",
                        (setting.call, setting.name, setting.value, setting.source, now),
                    )
            await self._write_command(mark)

    async def add_poll_requests(
        self, topic: str, calls: Iterable[str], sender: str | None, mark: tuple[str, str] | None
    ) -> list[int]:
        """Stores polls that a command asks for and, with them, the command's identity. Returns their numbers."""
        now, numbers = self._clock.now(), []
        async with self._transaction():
            for call in calls:
                cursor = await self._db.execute(
                    "INSERT OR REPLACE INTO poll_request (topic, call, remembered, sender, at) VALUES (?, ?, ?, ?, ?)",
                    (topic, call, mark is not None, sender, now),
                )
                numbers.append(cursor.lastrowid or 0)
            await self._write_command(mark)
        return numbers

    async def _write_command(self, mark: tuple[str, str] | None) -> None:
        if mark is not None:
            await self._db.execute("INSERT OR REPLACE INTO command VALUES (?, ?, ?)", (*mark, self._clock.now()))

    async def poll_requests(self) -> list[PollRequest]:
        """The polls that were asked for and have not ended, in the order in which they came."""
        rows = await self._rows("SELECT number, topic, call, remembered, sender FROM poll_request ORDER BY number")
        return [PollRequest(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows]

    async def last_command_identity(self, topic: str) -> str | None:
        """What was remembered of the last command of a topic."""
        rows = await self._rows("SELECT mark FROM command WHERE topic = ?", (topic,))
        return rows[0][0] if rows else None


def _placeholders(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _call_progress(row: Any) -> CallProgress:
    names = CallProgress.__struct_fields__
    flags = ("complete", "remapped", "released")
    return msgspec.convert({n: bool(v) if n in flags else v for n, v in zip(names, row, strict=True)}, CallProgress)
