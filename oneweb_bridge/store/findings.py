"""What was told of each call's answers and still holds, over restarts: a fact of `meta` for each call that has any."""

from collections.abc import Mapping

import msgspec

from oneweb_bridge.store.connections import Connections
from oneweb_bridge.store.meta import WRITE_META


class FindingsTable:
    """The findings of all calls."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def load(self, call: str) -> dict[str, str]:
        """Subject of each finding of a call that was told and not resolved -> its message."""
        rows = await self._connections.rows("SELECT value FROM meta WHERE name = ?", (_name(call),))
        return msgspec.json.decode(rows[0][0], type=dict[str, str]) if rows else {}

    async def save(self, call: str, findings: Mapping[str, str]) -> None:
        """Stores the findings of a call that hold. Raises StoreUnavailable."""
        value = msgspec.json.encode(findings).decode()
        async with self._connections.transaction() as transaction:
            await transaction.execute(WRITE_META, (_name(call), value))


def _name(call: str) -> str:
    return f"findings {call}"
