"""The table `call`: how far the polls of each call have come, over restarts."""

from collections.abc import Sequence
from typing import Any

import msgspec

from oneweb_bridge.store.connections import Connections
from oneweb_bridge.store.engine import Transaction


class CallProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of one call over restarts. Times in ms; the fields are columns, see schema.sql.

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

    def failures_in_a_row(self) -> int:
        """How many polls brought nothing since the last success; one that the end of the bridge cut short counts."""
        return max(self.failures, 1) if self.polled > self.succeeded else 0

    def is_holding(self) -> bool:
        """Whether removals or values are held."""
        return self.held_since > 0 or self.values_held != "{}"


_COLUMNS = CallProgress.__struct_fields__
_BOOLEANS = frozenset(("complete", "remapped", "released"))


class ProgressTable:
    """The progress of all calls."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def load(self, call: str) -> CallProgress:
        """The progress of a call; that of one never polled has the defaults."""
        rows = await self._connections.rows(f"SELECT {', '.join(_COLUMNS)} FROM call WHERE id = ?", (call,))
        return _progress_of(rows[0]) if rows else CallProgress(id=call)

    async def save(self, progress: CallProgress) -> None:
        """Stores a call's progress without appending to the journal."""
        async with self._connections.transaction() as transaction:
            await write_progress(transaction, progress)

    async def release(self, calls: Sequence[str]) -> None:
        """Stores for all these calls or for none that what is held of them may go."""
        async with self._connections.transaction() as transaction:
            await transaction.execute_many(
                "UPDATE call SET released = ? WHERE id = ?", [(True, call) for call in calls]
            )


async def write_progress(transaction: Transaction, progress: CallProgress) -> None:
    """Writes a call's progress as a part of a transaction."""
    await transaction.execute(_WRITE, msgspec.structs.astuple(progress))


_WRITE = f"""
INSERT INTO call ({", ".join(_COLUMNS)}) VALUES ({", ".join("?" * len(_COLUMNS))})
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])}
"""


def _progress_of(row: Any) -> CallProgress:
    named = zip(_COLUMNS, row, strict=True)
    return msgspec.convert({name: bool(v) if name in _BOOLEANS else v for name, v in named}, CallProgress)
