"""The `discovery` table: which devices of Home Assistant are dirty, and what was last sent of each.

It has a connection of its own, so that reading never waits for a poll that is writing.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import msgspec

from oneweb_bridge.model.records import Fields
from oneweb_bridge.store import places
from oneweb_bridge.store.device_marks import MARK_DIRTY
from oneweb_bridge.store.engine import Connection, Transaction, placeholders
from oneweb_bridge.store.meta import WRITE_META
from oneweb_bridge.store.places import Place

CLEARED_HASH = b"gone"
"""The hash of a device that was cleared: kept for a day, because the broker may lose its state."""
CLEARED_RETENTION_MS = 86_400_000
KINDS = ("bridge", "call", "terminal", "product")
"""In the order in which they are sent: each refers to one before it by `via_device`."""


class DirtyDevice(msgspec.Struct, frozen=True):
    """A device that may have changed since it was sent, and what was sent: where, its hash and its entities."""

    kind: str
    id: str
    mark: int
    topic: str
    hash: bytes
    entities: dict[str, str]


class DeviceUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a dirty device; without a topic nothing was ever retained of it."""

    device: DirtyDevice
    topic: str
    hash: bytes = b""
    entities: dict[str, str] = {}
    was_sent: bool = False
    stays_dirty: bool = False


@contextlib.asynccontextmanager
async def open_devices(place: Place, now: Callable[[], int]) -> AsyncIterator["Devices"]:
    """The devices in the database at `place`; `now` gives steady time. Raises StoreError."""
    async with places.open_connection(place) as connection:
        yield Devices(connection, now)


class Devices:
    """Made by `open_devices`. Every method is one transaction or a few reads."""

    def __init__(self, connection: Connection, now: Callable[[], int]) -> None:
        self._connection = connection
        self._now = now

    # ── dirty devices ────────────────────────────────────────────────────────────────────────────

    async def fingerprint(self) -> str:
        """The fingerprint of the settings under which all devices were marked dirty last."""
        rows = await self._rows("SELECT value FROM meta WHERE name = 'discovery'")
        return rows[0][0] if rows else ""

    async def mark_all_dirty(self, fingerprint: str, own: Iterable[tuple[str, str]]) -> None:
        """Marks every device that there is or was, and those of the bridge's `own`, dirty under new settings."""
        now = self._now()
        async with self._connection.transaction() as transaction:
            await transaction.lock("discovery")
            # The bridge's own come first, without a pause: all others refer to them.
            await transaction.execute_many(MARK_DIRTY, [(kind, id, 0) for kind, id in own])
            await transaction.execute(f"UPDATE discovery SET {_MARKED}", (now,))
            await transaction.execute(
                """INSERT INTO discovery (kind, id, marked_at)
                   SELECT kind, id, ? FROM record WHERE kind IN ('terminal', 'product') ON CONFLICT DO NOTHING""",
                (now,),
            )
            await transaction.execute(WRITE_META, ("discovery", fingerprint))

    async def mark_sent_since(self, seq: int = 0) -> int:
        """Marks devices dirty that were sent when the cursor was at `seq` or later. Returns how many.

        Devices that were cleared since then are cleared again, except with 0: then the broker has none of them.
        """
        except_hash = CLEARED_HASH if seq == 0 else b""
        async with self._connection.transaction() as transaction:
            await transaction.lock("discovery")
            return await transaction.execute(
                f"UPDATE discovery SET {_MARKED}, hash = ? WHERE topic <> '' AND seq >= ? AND hash <> ?",
                (self._now(), b"", seq, except_hash),
            )

    async def delete_unsent(self) -> None:
        """Deletes the devices of which nothing was ever sent."""
        if await self._rows("SELECT 1 FROM discovery WHERE topic = '' LIMIT 1"):
            await self._connection.execute("DELETE FROM discovery WHERE topic = ''")

    async def dirty(self, pause: float, limit: int, skip: Iterable[tuple[str, str]] = ()) -> list[DirtyDevice]:
        """The next dirty devices, those first to which others refer: marked, and last sent, at least `pause` s ago."""
        skipped, devices = set(skip), list[DirtyDevice]()
        for kind in KINDS:
            if len(devices) < limit:
                devices += await self._dirty(kind, pause, limit - len(devices), skipped)
        return devices

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
        devices = [
            DirtyDevice(kind, id, mark, topic, hash_, msgspec.json.decode(entities, type=dict[str, str]))
            for kind, id, mark, topic, hash_, entities in rows
        ]
        return [device for device in devices if (device.kind, device.id) not in skipped][:limit]

    async def note(
        self, updates: Sequence[DeviceUpdate], seq: int, still_holds: Callable[[], bool] = lambda: True
    ) -> None:
        """Stores what became of dirty devices while the cursor was at `seq`. Those marked meanwhile stay dirty.

        `still_holds` is asked when nobody else writes any more: where it does not, nothing is stored.
        """
        now = self._now()
        is_cleared = f"hash = {self._connection.dialect.blob(CLEARED_HASH)}"
        async with self._connection.transaction() as transaction:
            # A poll marks devices in another order.
            await transaction.lock("discovery")
            if not still_holds():
                return
            for update in updates:
                await _note(transaction, update, now, seq)
            await transaction.execute(
                f"DELETE FROM discovery WHERE {is_cleared} AND mark = done AND sent_at < ?",
                (now - CLEARED_RETENTION_MS,),
            )

    # ── what they are made of ────────────────────────────────────────────────────────────────────

    async def record(self, kind: str, id: str) -> Fields | None:
        """The published record of one id."""
        rows = await self._rows("SELECT doc FROM record WHERE kind = ? AND id = ?", (kind, id))
        return msgspec.json.decode(rows[0][0]) if rows else None

    async def value_types(self, reports: Sequence[str], id: str) -> list[tuple[str, str]]:
        """The reports that have a newest sample of this id, each with the types of its values."""
        rows = await self._rows(
            f"""SELECT report, letters FROM newest WHERE id = ? AND seq > 0 AND letters <> ''
                AND report IN ({placeholders(reports)}) ORDER BY report""",
            (id, *reports),
        )
        return [(row[0], row[1]) for row in rows]

    async def terminals_named(self, name: str) -> int:
        """How many terminals have a name: 0, 1, or 2 for more."""
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

    async def forecasts(self, bucket_ids: Sequence[str]) -> dict[str, Fields]:
        """The forecast of each of these buckets that has one."""
        rows = await self._rows(
            f"SELECT id, doc FROM record WHERE kind = 'forecast' AND id IN ({placeholders(bucket_ids)})",
            bucket_ids,
        )
        return {row[0]: msgspec.json.decode(row[1]) for row in rows}

    async def terminals_of(self, product_id: str) -> list[tuple[str, Fields]]:
        """The terminals of a product that have a record; that which the product itself names comes first."""
        rows = await self._rows(
            """SELECT l.imei, r.doc FROM product_link l JOIN record r ON r.kind = 'terminal' AND r.id = l.imei
               WHERE l.product_id = ? ORDER BY l.said_by, l.imei""",
            (product_id,),
        )
        return [(row[0], msgspec.json.decode(row[1])) for row in rows]

    async def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return await self._connection.fetch_all(sql, parameters)


async def _note(transaction: Transaction, update: DeviceUpdate, now: int, seq: int) -> None:
    device = update.device
    await transaction.execute(
        "UPDATE discovery SET done = ?, marked_at = ? WHERE kind = ? AND id = ?",
        (device.mark - update.stays_dirty, now, device.kind, device.id),
    )
    if update.was_sent:
        # Otherwise what is known of it was read before, and the broker may have lost it since.
        entities = msgspec.json.encode(update.entities).decode()
        await transaction.execute(
            "UPDATE discovery SET topic = ?, hash = ?, entities = ?, sent_at = ?, seq = ? WHERE kind = ? AND id = ?",
            (update.topic, update.hash, entities, now, seq, device.kind, device.id),
        )
    if not update.topic and not update.stays_dirty:
        await transaction.execute(
            "DELETE FROM discovery WHERE kind = ? AND id = ? AND mark = done", (device.kind, device.id)
        )
    if device.kind == "terminal" and (device.hash in (b"", CLEARED_HASH)) != (update.hash in (b"", CLEARED_HASH)):
        # Its products are reached through it, or not any more.
        products = await transaction.fetch_all(
            "SELECT DISTINCT product_id FROM product_link WHERE imei = ?", (device.id,)
        )
        await transaction.execute_many(MARK_DIRTY, [("product", row[0], now) for row in products])
    if device.kind == "terminal" and update.was_sent:
        # The first of two with the same name has to take its IMEI into its name; of a third, both have done so.
        others = await transaction.fetch_all(_NAMESAKES, (device.id, device.id))
        await transaction.execute_many(MARK_DIRTY, [("terminal", row[0], now) for row in others if len(others) == 1])


_NAMESAKES = """
SELECT other.id FROM record this JOIN record other ON other.kind = 'terminal' AND other.id <> ?
AND json_extract(other.doc, '$.name') = json_extract(this.doc, '$.name')
WHERE this.kind = 'terminal' AND this.id = ? AND json_extract(this.doc, '$.name') <> '' LIMIT 2
"""
_MARKED = "marked_at = CASE WHEN mark = done THEN ? ELSE marked_at END, mark = mark + 1"
