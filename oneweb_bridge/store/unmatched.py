"""The table `unmatched`: what came of ids that match no record, kept aside until the inventory knows them."""

from collections.abc import Sequence

from oneweb_bridge.model.records import RecordKind
from oneweb_bridge.store.connections import Connections
from oneweb_bridge.store.engine import placeholders
from oneweb_bridge.store.slices import SLICE
from oneweb_bridge.store.staging import StagedRow

MAX_ROWS = 100_000
"""Rows that are kept of one call; of more the oldest go."""


class UnmatchedTable:
    """Rows as they are staged: time, id, hash and body. All ids of one call must be at most a slice. Times in ms."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._calls: set[str] | None = None
        """The calls of which something may be kept, so that a poll need not look; None until it was read."""
        self._kept_count = 0
        """How often something was kept."""

    async def calls(self) -> frozenset[str]:
        """The calls of which something may be kept."""
        while self._calls is None:
            kept_count = self._kept_count
            rows = await self._connections.rows("SELECT DISTINCT call FROM unmatched")
            if kept_count == self._kept_count:
                self._calls = {row[0] for row in rows}
        return frozenset(self._calls)

    async def note_if_empty(self, call: str) -> None:
        """Notes that nothing is kept of a call any more, if that is so."""
        kept_count = self._kept_count
        is_empty = not await self.ids_after(call, "")
        # What another poll kept meanwhile may not have been seen.
        if is_empty and kept_count == self._kept_count and self._calls is not None:
            self._calls.discard(call)

    async def keep(self, call: str, rows: Sequence[StagedRow]) -> None:
        """Keeps rows; of one that is there already the newer content, and the time since when it is kept."""
        if not rows:
            return
        now = self._connections.steady.now()
        try:
            async with self._connections.transaction() as transaction:
                await transaction.execute_many(
                    """INSERT INTO unmatched (call, id, ts, kept_at, hash, body) VALUES (?, ?, ?, ?, ?, ?)
                       ON CONFLICT (call, id, ts) DO UPDATE SET hash = excluded.hash, body = excluded.body""",
                    [(call, id, ts, now, hash_, body) for ts, id, hash_, body in rows],
                )
        finally:
            # Also where it is cancelled, which may be after the commit.
            self._kept_count += 1
            if self._calls is not None:
                self._calls.add(call)

    async def ids_after(self, call: str, after: str) -> list[str]:
        """The next slice of ids of which something is kept, in their order."""
        rows = await self._connections.rows(
            "SELECT DISTINCT id FROM unmatched WHERE call = ? AND id > ? ORDER BY id LIMIT ?", (call, after, SLICE)
        )
        return [row[0] for row in rows]

    async def load(self, call: str, ids: Sequence[str]) -> list[StagedRow]:
        """What is kept of some ids, oldest first."""
        rows = await self._connections.rows(
            f"""SELECT ts, id, hash, body FROM unmatched WHERE call = ? AND id IN ({placeholders(ids)})
                ORDER BY ts, id""",
            (call, *ids),
        )
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    async def delete(self, call: str, ids: Sequence[str]) -> None:
        """Deletes what is kept of some ids."""
        async with self._connections.transaction() as transaction:
            await transaction.execute_many(
                "DELETE FROM unmatched WHERE call = ? AND id = ?", [(call, id) for id in ids]
            )

    async def trim(self, call: str, before: int) -> None:
        """Deletes what is kept since before a steady time, and the oldest rows above MAX_ROWS."""
        rows = await self._connections.rows(
            "SELECT kept_at FROM unmatched WHERE call = ? ORDER BY kept_at DESC LIMIT 1 OFFSET ?", (call, MAX_ROWS)
        )
        last = max([before - 1, *(row[0] for row in rows)])
        async with self._connections.transaction() as transaction:
            await transaction.execute("DELETE FROM unmatched WHERE call = ? AND kept_at <= ?", (call, last))

    async def count_kept_before(self, call: str, before: int) -> int:
        """How many ids are kept since before a steady time."""
        rows = await self._connections.rows(
            "SELECT count(DISTINCT id) FROM unmatched WHERE call = ? AND kept_at < ?", (call, before)
        )
        return int(rows[0][0])

    async def field_with(self, kind: RecordKind, values: Sequence[str]) -> str:
        """The field of the stored records of a kind that has most of some values, also within a list; "" for none."""
        rows = await self._connections.rows(
            f"""SELECT CASE WHEN j.path = '$' THEN j.key ELSE substr(j.path, 3) END, count(DISTINCT j.atom)
                FROM record r, json_tree(r.doc) j WHERE r.kind = ? AND j.atom IN ({placeholders(values)})
                GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1""",
            (kind, *values),
        )
        return str(rows[0][0]) if rows else ""

    async def ids_by_field(self, kind: RecordKind, field: str) -> dict[str, str]:
        """Value of a field, or of an element of its list -> the id of the stored record that has it."""
        rows = await self._connections.rows(
            """SELECT j.atom, r.id FROM record r, json_tree(r.doc) j
               WHERE r.kind = ? AND j.atom IS NOT NULL AND (j.path = ? OR (j.path = '$' AND j.key = ?))""",
            (kind, f"$.{field}", field),
        )
        return {str(row[0]): row[1] for row in rows}
