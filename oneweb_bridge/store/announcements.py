"""The table of devices that Home Assistant is to be told of: which are dirty, what is known of them, what was sent.

Has a connection of its own, so that reading never waits for a poll that is writing.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite
import msgspec

from oneweb_bridge.model.records import Fields
from oneweb_bridge.store import database
from oneweb_bridge.store.database import placeholders
from oneweb_bridge.store.device_marks import MARK_DIRTY

CLEARED_HASH = b"gone"
"""The hash of a device that was cleared: remembered for a day, because a broker may forget that it was."""
REMEMBERED = 86_400_000
KINDS = ("bridge", "call", "terminal", "product")
"""In the order in which they are sent: each hangs on one before it."""


class DirtyDevice(msgspec.Struct, frozen=True):
    """A device that may have changed since it was sent, and what was sent: where, its hash and its entities."""

    kind: str
    id: str
    mark: int
    topic: str
    hash: bytes
    entities: dict[str, str]


class DeviceUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a dirty device; without a topic nothing was ever retained of it.

    `fresh`: something was sent. `again`: it stays dirty.
    """

    device: DirtyDevice
    topic: str
    hash: bytes = b""
    entities: dict[str, str] = {}
    fresh: bool = False
    again: bool = False


@contextlib.asynccontextmanager
async def open_devices(path: Path, now: Callable[[], int]) -> AsyncIterator["Devices"]:
    """The devices in the database at `path`; `now` gives steady time. Raises StoreError."""
    async with database.open_connection(path) as db:
        yield Devices(db, now)


class Devices:
    """Made by `open_devices`. Every method is one transaction or a few reads."""

    def __init__(self, db: aiosqlite.Connection, now: Callable[[], int]) -> None:
        self._db = db
        self._now = now
        self._lock = asyncio.Lock()

    # ── marks ──────────────────────────────────────────────────────────────────────────────────

    async def fingerprint(self) -> str:
        """Under which settings the devices were marked last."""
        rows = await self._rows("SELECT value FROM meta WHERE name = 'discovery'")
        return rows[0][0] if rows else ""

    async def mark_all(self, fingerprint: str, own: Iterable[tuple[str, str]]) -> None:
        """Marks every device that there is or was, and those of the bridge's `own`, under new settings."""
        now = self._now()
        async with database.transaction(self._db, self._lock):
            # The bridge's own come first, without a pause: all others hang on them.
            await self._db.executemany(MARK_DIRTY, [(kind, id, 0) for kind, id in own])
            await self._db.execute(f"UPDATE discovery SET {_MARKED}", (now,))
            await self._db.execute(
                """INSERT OR IGNORE INTO discovery (kind, id, marked_at)
                   SELECT kind, id, ? FROM record WHERE kind IN ('terminal', 'product')""",
                (now,),
            )
            await self._db.execute("INSERT OR REPLACE INTO meta VALUES ('discovery', ?)", (fingerprint,))

    async def forget(self, seq: int = 0) -> int:
        """Marks what was sent since the journal was published to `seq`, to be sent again. Returns how many.

        What was cleared since then is cleared again, unless everything is forgotten.
        """
        gone = CLEARED_HASH if seq == 0 else b""
        async with database.transaction(self._db, self._lock):
            cursor = await self._db.execute(
                f"UPDATE discovery SET {_MARKED}, hash = x'' WHERE topic <> '' AND seq >= ? AND hash <> ?",
                (self._now(), seq, gone),
            )
        return cursor.rowcount

    async def drop_unsent(self) -> None:
        """Forgets the marks of devices that nothing was sent of."""
        if await self._rows("SELECT 1 FROM discovery WHERE topic = '' LIMIT 1"):
            async with database.transaction(self._db, self._lock):
                await self._db.execute("DELETE FROM discovery WHERE topic = ''")

    async def dirty(self, pause: float, limit: int, skip: Iterable[tuple[str, str]] = ()) -> list[DirtyDevice]:
        """The next devices that were marked, and last sent, that many seconds ago: those that others need first."""
        skipped, found = set(skip), list[DirtyDevice]()
        for kind in KINDS:
            if len(found) < limit:
                found += await self._dirty(kind, pause, limit - len(found), skipped)
        return found

    async def _dirty(self, kind: str, pause: float, limit: int, skipped: set[tuple[str, str]]) -> list[DirtyDevice]:
        now = self._now()
        before = now - round(pause * 1000)
        rows = await self._rows(
            """SELECT kind, id, mark, topic, hash, entities FROM discovery
               WHERE mark > done AND kind = ?
               AND (marked_at <= ? OR marked_at > ?) AND (sent_at <= ? OR sent_at > ?)
               ORDER BY marked_at LIMIT ?""",
            (kind, before, now, before, now, limit + len(skipped)),
        )
        found = [
            DirtyDevice(kind, id, mark, topic, hash_, msgspec.json.decode(entities, type=dict[str, str]))
            for kind, id, mark, topic, hash_, entities in rows
        ]
        return [device for device in found if (device.kind, device.id) not in skipped][:limit]

    async def note(self, sent: Sequence[DeviceUpdate], seq: int) -> None:
        """Stores what became of dirty devices with the journal published to `seq`. What was marked meanwhile stays."""
        now = self._now()
        async with database.transaction(self._db, self._lock):
            for one in sent:
                await self._note(one, now, seq)
            await self._db.execute(
                f"DELETE FROM discovery WHERE hash = x'{CLEARED_HASH.hex()}' AND mark = done AND sent_at < ?",
                (now - REMEMBERED,),
            )

    async def _note(self, one: DeviceUpdate, now: int, seq: int) -> None:
        device = one.device
        await self._db.execute(
            """UPDATE discovery SET done = ?, marked_at = ?, topic = ?, hash = ?, entities = ?,
               sent_at = CASE WHEN ? THEN ? ELSE sent_at END, seq = CASE WHEN ? THEN ? ELSE seq END
               WHERE kind = ? AND id = ?""",
            (
                device.mark - one.again,
                now,
                one.topic,
                one.hash,
                msgspec.json.encode(one.entities).decode(),
                one.fresh,
                now,
                one.fresh,
                seq,
                device.kind,
                device.id,
            ),
        )
        if not one.topic and not one.again:
            await self._db.execute(
                "DELETE FROM discovery WHERE kind = ? AND id = ? AND mark = done", (device.kind, device.id)
            )
        if device.kind == "terminal" and (device.hash in (b"", CLEARED_HASH)) != (one.hash in (b"", CLEARED_HASH)):
            # Its products are reached through it, or not any more.
            products = await self._rows("SELECT DISTINCT product_id FROM product_link WHERE imei = ?", (device.id,))
            await self._db.executemany(MARK_DIRTY, [("product", row[0], now) for row in products])
        if device.kind == "terminal" and one.fresh:
            # The first of two that are called the same has to take its IMEI into its name; a third one finds it done.
            others = await self._rows(_NAMESAKES, (device.id, device.id))
            await self._db.executemany(MARK_DIRTY, [("terminal", row[0], now) for row in others if len(others) == 1])

    # ── what is known ──────────────────────────────────────────────────────────────────────────

    async def record(self, kind: str, id: str) -> Fields | None:
        """The announced record of one id."""
        rows = await self._rows("SELECT doc FROM record WHERE kind = ? AND id = ?", (kind, id))
        return msgspec.json.decode(rows[0][0]) if rows else None

    async def letters(self, reports: Sequence[str], id: str) -> list[tuple[str, str]]:
        """Each of the reports that has a newest sample of this id, with the letters of its values."""
        rows = await self._rows(
            f"""SELECT report, letters FROM newest WHERE id = ? AND seq > 0 AND letters <> ''
                AND report IN ({placeholders(reports)}) ORDER BY report""",
            (id, *reports),
        )
        return [(row[0], row[1]) for row in rows]

    async def terminals_named(self, name: str) -> int:
        """Whether none, one, or two and more terminals have a name."""
        rows = await self._rows(
            """SELECT 1 FROM record WHERE kind = 'terminal' AND json_extract(doc, '$.name') = ? LIMIT 2""", (name,)
        )
        return len(rows)

    async def buckets(self, product_id: str) -> list[Fields]:
        """The usage of a product."""
        rows = await self._rows(
            """SELECT doc FROM record WHERE kind = 'usage' AND json_extract(doc, '$.product_id') = ? ORDER BY id""",
            (product_id,),
        )
        return [msgspec.json.decode(row[0]) for row in rows]

    async def terminals_of(self, product_id: str) -> list[tuple[str, Fields]]:
        """The terminals of a product that have a record; what the product itself says comes first."""
        rows = await self._rows(
            """SELECT l.imei, r.doc FROM product_link l JOIN record r ON r.kind = 'terminal' AND r.id = l.imei
               WHERE l.product_id = ? ORDER BY l.said_by, l.imei""",
            (product_id,),
        )
        return [(row[0], msgspec.json.decode(row[1])) for row in rows]

    async def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return await database.fetch_all(self._db, sql, parameters)


_NAMESAKES = """
SELECT other.id FROM record one JOIN record other ON other.kind = 'terminal' AND other.id <> ?
AND json_extract(other.doc, '$.name') = json_extract(one.doc, '$.name')
WHERE one.kind = 'terminal' AND one.id = ? AND json_extract(one.doc, '$.name') <> '' LIMIT 2
"""
_MARKED = "marked_at = CASE WHEN mark = done THEN ? ELSE marked_at END, mark = mark + 1"
