"""What a bridge does about a twin: another one with the same instance, and so with the same client id."""

import logging
import math
import time
from collections.abc import Awaitable, Callable

from oneweb_bridge.model.backoff import nth_pause
from oneweb_bridge.mqtt.broker_errors import TakenOver

_log = logging.getLogger("oneweb_bridge.publisher")

RETURN_S = 10.0
"""Seconds after which a bridge comes back that was connected when a twin took its connection."""
GIVE_WAY_S, MAX_ABSENCE_S = 60.0, 600.0
"""Seconds for which the twin that came later stays away: at first, and at most, each time twice as long."""


class TwinConnected(TakenOver):
    """Another bridge with this name is connected: it answered the one that is about to connect."""


class TakeOvers:
    """Which of two twins gives way, and for how long. No I/O, no clock.

    Only one of them can be connected. Each compares how long its last connection lasted with how long it had been away
    before: the one that has been away longer gives way. After its pause it looks whether the other is there; each
    pause is twice as long. One that does not answer may be gone, so then it comes back in any case.
    """

    def __init__(self) -> None:
        self._lasted, self._was_away = 0.0, GIVE_WAY_S
        self._in_a_row = 0
        self._has_given_way = False

    def note_connection(self, lasted: float, was_away: float) -> None:
        """A connection of so many seconds is over, which came after so many without one."""
        self._lasted, self._was_away = lasted, was_away
        self._has_given_way = False

    @property
    def gives_way(self) -> bool:
        """Whether this bridge is the one that leaves the other alone."""
        return self._lasted < self._was_away and not self._has_given_way

    def pause(self) -> float:
        """Seconds until the next connection."""
        if not self.gives_way:
            self._in_a_row = 0
            return RETURN_S
        self._has_given_way = True
        return self.next_absence()

    def next_absence(self) -> float:
        """Seconds to stay away where the other one is known to be there; twice as long each time."""
        self._in_a_row += 1
        return nth_pause(GIVE_WAY_S, MAX_ABSENCE_S, self._in_a_row - 1)


class Twins:
    """Alerts that there is a twin, and decides who gives way."""

    def __init__(self, client_id: str, instance: str, alert: Callable[[str, str], Awaitable[None]]) -> None:
        self.take_overs = TakeOvers()
        self.sentence = (
            f"another client connects with the client id {client_id!r}, and the broker lets in one at a time: "
            f"is this bridge started twice, or has another one the instance {instance!r} too? Stop one of them, "
            "or give it an instance of its own"
        )
        self._alert = alert
        self._alerted_at = -math.inf

    async def alert(self) -> None:
        """Alerts, at most every MAX_ABSENCE_S; the alert waits in the journal until this bridge is connected."""
        if time.monotonic() - self._alerted_at > MAX_ABSENCE_S:
            await self._alert("client_id_taken", self.sentence)
            self._alerted_at = time.monotonic()

    async def alert_and_give_way(self) -> None:
        """Alerts that a twin published while this bridge was away. Raises TakenOver where this one gives way to it."""
        await self.alert()
        if self.take_overs.gives_way:
            raise TakenOver(self.sentence)
