"""Reads the tables of records: what is stored, what is missing from listings, what belongs to what."""

from collections.abc import Sequence
from typing import Literal

from oneweb_bridge.model.records import RecordKind, StoredRecord
from oneweb_bridge.store import slices
from oneweb_bridge.store.connections import Connections
from oneweb_bridge.store.engine import placeholders


class Records:
    """The tables `record` and `removed`. All ids of one call must be at most a slice."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def load(self, kind: RecordKind, ids: Sequence[str]) -> dict[str, StoredRecord]:
        """The stored records among `ids`."""
        rows = await self._connections.rows(
            f"SELECT id, doc, hash FROM record WHERE kind = ? AND id IN ({placeholders(ids)})", (kind, *ids)
        )
        return {row[0]: StoredRecord(row[1].encode(), row[2]) for row in rows}

    async def docs_after(self, kind: RecordKind, after: str) -> list[tuple[str, bytes]]:
        """The next slice of stored records in the order of their ids, each with its id."""
        rows = await self._connections.rows(
            "SELECT id, doc FROM record WHERE kind = ? AND id > ? ORDER BY id LIMIT ?", (kind, after, slices.SLICE)
        )
        return [(row[0], row[1].encode()) for row in rows]

    async def count(self, kind: RecordKind) -> int:
        """How many records of a kind are stored."""
        return int((await self._connections.rows("SELECT count(*) FROM record WHERE kind = ?", (kind,)))[0][0])

    async def existing_ids(self, table: Literal["record", "removed"], kind: RecordKind, ids: Sequence[str]) -> set[str]:
        """Those of `ids` that are stored (`record`), or that were removed and have not come back (`removed`)."""
        rows = await self._connections.rows(
            f"SELECT id FROM {table} WHERE kind = ? AND id IN ({placeholders(ids)})", (kind, *ids)
        )
        return {row[0] for row in rows}

    async def skippable_hashes(self, kind: RecordKind, presence_after: int) -> tuple[set[bytes], int]:
        """The hashes of records that may be skipped when listed unchanged, and the oldest publication of presence.

        Those that are missing may not be skipped, nor terminals whose presence was published at `presence_after` or
        before. Times in steady ms.
        """
        hashes: set[bytes] = set()
        after, oldest = "", 1 << 62
        while rows := await self._connections.rows(
            "SELECT id, hash, missing, presence_at FROM record WHERE kind = ? AND id > ? ORDER BY id LIMIT ?",
            (kind, after, 5 * slices.SLICE),
        ):
            skippable = [row for row in rows if not row[2] and row[3] > presence_after]
            hashes.update(row[1] for row in skippable)
            oldest = min([oldest, *(row[3] for row in skippable)])
            after = rows[-1][0]
        return hashes, oldest

    async def presence_times(self, imeis: Sequence[str]) -> dict[str, int]:
        """When the presence of each stored terminal was published last, in steady ms; 0 for never."""
        rows = await self._connections.rows(
            f"SELECT id, presence_at FROM record WHERE kind = 'terminal' AND id IN ({placeholders(imeis)})", imeis
        )
        return {row[0]: row[1] for row in rows}

    async def missing_counts_after(self, kind: RecordKind, after: str) -> list[tuple[str, int, int]]:
        """The next slice of stored ids in their order, each with how often and since when it is missing."""
        rows = await self._connections.rows(
            "SELECT id, missing, missing_since FROM record WHERE kind = ? AND id > ? ORDER BY id LIMIT ?",
            (kind, after, slices.SLICE),
        )
        return [(row[0], row[1], row[2]) for row in rows]

    async def count_of_missing(self, kind: RecordKind) -> int:
        """How many records the last complete listings did not have."""
        rows = await self._connections.rows("SELECT count(*) FROM record WHERE kind = ? AND missing > 0", (kind,))
        return int(rows[0][0])

    async def count_missing(self, kind: RecordKind, ids: Sequence[str], now: int) -> None:
        """Notes that a complete listing did not have these records; `now` is steady time.

        A crash may leave some slices uncounted.
        """
        for part in slices.slices_of(ids):
            async with self._connections.transaction() as transaction:
                await transaction.execute_many(
                    """UPDATE record SET missing = missing + 1,
                       missing_since = CASE WHEN missing_since = 0 THEN ? ELSE missing_since END
                       WHERE kind = ? AND id = ?""",
                    [(now, kind, id) for id in part],
                )


class Relations:
    """The tables `stale` and `product_link`: which relations must be recomputed, and which products a terminal has."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def stale_terminals(self) -> list[str]:
        """Some terminals whose relations must be recomputed; none when all are right."""
        rows = await self._connections.rows("SELECT imei FROM stale LIMIT ?", (slices.SLICE // 2,))
        return [row[0] for row in rows]

    async def linked_terminals(self, product_ids: Sequence[str]) -> list[str]:
        """The terminals of these products, by what either side says."""
        rows = await self._connections.rows(
            f"SELECT DISTINCT imei FROM product_link WHERE product_id IN ({placeholders(product_ids)})", product_ids
        )
        return [row[0] for row in rows]

    async def linked_products(self, imeis: Sequence[str]) -> dict[str, list[str]]:
        """The products of each of these terminals, by what either side says."""
        rows = await self._connections.rows(
            f"""SELECT DISTINCT imei, product_id FROM product_link WHERE imei IN ({placeholders(imeis)})
                ORDER BY imei, product_id""",
            imeis,
        )
        products: dict[str, list[str]] = {}
        for imei, product_id in rows:
            products.setdefault(imei, []).append(product_id)
        return products
