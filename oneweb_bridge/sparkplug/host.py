"""What a primary host's STATE messages mean, and when a rebirth that a host asks for is due. Pure.

Source: Sparkplug 3.0.0, chapters 5.4, 5.9 and 6.4.27 (STATE).
"""

from typing import Literal

import msgspec

from oneweb_bridge.mqtt.topics import SPARKPLUG_NAMESPACE

Change = Literal["nothing", "online", "offline"]


def state_topic(host_id: str) -> str:
    """Where a host says whether it is there, retained."""
    return f"{SPARKPLUG_NAMESPACE}/STATE/{host_id}"


class _State(msgspec.Struct, frozen=True):
    online: bool
    timestamp: int


class HostState(msgspec.Struct, frozen=True):
    """Whether the primary host is there. `timestamp` is that of the newest STATE that was believed, in its own ms.

    `ahead` is by how many ms the time of the last STATE was ahead of now, where that was more than is tolerated.
    """

    online: bool = False
    timestamp: int = -1
    ahead: int = 0

    def after(self, payload: bytes, now: int, tolerance: int) -> tuple["HostState", Change]:
        """The state after a STATE message, and what it changes. `now` and `tolerance` in ms.

        What is older than the last believed message, not JSON, or of another form (such as 2.2's text) changes
        nothing. A time further ahead of now than is tolerated is not remembered: all right ones would be older.
        """
        try:
            message = msgspec.json.decode(payload, type=_State)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self, "nothing"
        latest = now + tolerance
        known = self.timestamp if self.timestamp <= latest else -1
        if message.timestamp < known:
            return self, "nothing"
        changed = message.online != self.online
        is_ahead = message.timestamp > latest
        state = HostState(
            message.online,
            max(known, now) if is_ahead else message.timestamp,
            message.timestamp - now if is_ahead else 0,
        )
        return state, ("nothing" if not changed else _change_to(message.online))


def _change_to(online: bool) -> Change:
    return "online" if online else "offline"


MIN_REBIRTH_INTERVAL_S = 5.0
"""Seconds after a birth within which requests are answered together, at their end."""
MAX_REBIRTH_DELAY_S = 1.0


class Rebirths(msgspec.Struct, frozen=True):
    """When the node was born last, and when it must be born again (None: nobody asks). Monotonic seconds."""

    born_at: float
    due: float | None = None

    def request(self, now: float) -> "Rebirths":
        """After one more request. Requests while one waits change nothing."""
        if self.due is not None:
            return self
        return msgspec.structs.replace(self, due=max(now, self.born_at + MIN_REBIRTH_INTERVAL_S))

    @property
    def is_waiting(self) -> bool:
        """Whether a request waits for its rebirth; then no data may be sent."""
        return self.due is not None

    def is_due(self, now: float) -> bool:
        """Whether the births have to be sent now."""
        return self.due is not None and now >= self.due
