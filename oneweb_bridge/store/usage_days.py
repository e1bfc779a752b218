"""Reads what the forecast keeps of the use of buckets and pools."""

from collections.abc import Sequence

from oneweb_bridge.store import slices
from oneweb_bridge.store.connections import Connections
from oneweb_bridge.store.engine import placeholders


class UsageDaysTable:
    """The table `usage_days`; `kind` is that of an owner, a bucket or a pool. It is written by `Store.commit`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def load(self, kind: str, ids: Sequence[str]) -> dict[str, bytes]:
        """What is kept of those of `ids` of which anything is; at most a slice of them."""
        rows = await self._connections.rows(
            f"SELECT id, body FROM usage_days WHERE kind = ? AND id IN ({placeholders(ids)})", (kind, *ids)
        )
        return {row[0]: row[1].encode() for row in rows}

    async def owners_after(self, kind: str, id: str) -> list[tuple[str, str]]:
        """The next slice of owners of which anything is kept, in their order."""
        rows = await self._connections.rows(
            "SELECT kind, id FROM usage_days WHERE (kind, id) > (?, ?) ORDER BY kind, id LIMIT ?",
            (kind, id, slices.SLICE),
        )
        return [(row[0], row[1]) for row in rows]
