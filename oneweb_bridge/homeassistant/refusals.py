"""Which devices the broker refused, and when they are tried again. Pure."""

from collections.abc import Sequence

from oneweb_bridge.model.backoff import BackOff
from oneweb_bridge.store.announcements import DirtyDevice

PAUSES_S = (5.0, 300.0)
"""First and longest pause in seconds before a refused device is tried again, and before any is where none was taken."""


class DeviceRefusals:
    """The refused devices of one connection, each with a growing pause; and one for all where none of a chunk is taken.

    Without the common pause, a fleet whose devices are all refused would be sent again and again. It begins short,
    because a chunk may by chance be of refused devices alone, and others wait behind it. A device that is larger than
    the broker allows counts as refused.
    """

    def __init__(self) -> None:
        self._pauses: dict[tuple[str, str], BackOff] = {}
        self._until: dict[tuple[str, str], float] = {}
        self._common = BackOff(*PAUSES_S)
        self._all_until = 0.0

    def may_send(self, now: float) -> bool:
        """Whether any device may be tried at `now` (monotonic time)."""
        return now >= self._all_until

    def waiting(self, now: float) -> set[tuple[str, str]]:
        """The devices that are not to be tried yet, by kind and id."""
        return {key for key, until in self._until.items() if until > now}

    def note(self, accepted: Sequence[DirtyDevice], refused: Sequence[DirtyDevice], now: float) -> None:
        """What the broker answered to a chunk of devices."""
        for device in accepted:
            self._pauses.pop((device.kind, device.id), None)
            self._until.pop((device.kind, device.id), None)
        for device in refused:
            key = device.kind, device.id
            self._until[key] = now + self._pauses.setdefault(key, BackOff(*PAUSES_S)).pause()
        if accepted:
            self._common.reset()
        elif refused:
            self._all_until = now + self._common.pause()
