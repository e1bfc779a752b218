"""What was alerted of each call and still holds, over restarts: facts of `meta` for each call that has any."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from oneweb_bridge.store.connections import Connections

AlertKey = tuple[str, str]
"""Kind and subject of an alert."""


def alerts_fact(call: str, alerts: Mapping[AlertKey, str]) -> tuple[str, str]:
    """What a batch remembers of the alerts of a call that hold, each with its message."""
    return _alerts(call), _text([(*key, message) for key, message in alerts.items()])


def stopped_fact(call: str, imeis: Collection[str]) -> tuple[str, str]:
    """What a batch remembers of the terminals of which it was alerted that this report has stopped."""
    return _stopped(call), _text(sorted(imeis))


def _alerts(call: str) -> str:
    return f"alerts {call}"


def _stopped(call: str) -> str:
    return f"stopped {call}"


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class FindingsTable:
    """Reads what batches have remembered."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def load(self, call: str) -> dict[AlertKey, str]:
        """The alerts of a call that were published and still hold, each with its message."""
        rows = await self._value(_alerts(call), list[tuple[str, str, str]], [])
        return {(kind, about): message for kind, about, message in rows}

    async def load_stopped(self, call: str) -> set[str]:
        """The terminals of which it was alerted that this report has stopped, and which have not sent since."""
        return set(await self._value(_stopped(call), list[str], []))

    async def _value(self, name: str, type_: Any, otherwise: Any) -> Any:
        rows = await self._connections.rows("SELECT value FROM meta WHERE name = ?", (name,))
        return msgspec.json.decode(rows[0][0], type=type_) if rows else otherwise
