"""The retained messages that a crash would repeat because the broker's head does not say them yet. Pure.

After a crash the next connection restores every retained topic that has a row behind the broker's head, because the
broker may have lost it. So those between the head and the saved cursor count among the messages that come again.
"""

from oneweb_bridge.mqtt.lane import Outgoing


class BehindHead:
    """Their rows, by `len` how many there are. Nothing is counted until a head is known."""

    def __init__(self) -> None:
        self._head: int | None = None
        self._rows: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, outgoing: Outgoing, cursor: int) -> None:
        """A message that is saved now, up to this cursor."""
        if self._head is not None and outgoing.message.retain and self._head < outgoing.seq <= cursor:
            self._rows.append(outgoing.seq)

    def on_head(self, seq: int | None) -> None:
        """The broker's head says this row now. None: no head can follow, so nothing waits for one."""
        self._head = seq
        self._rows = [] if seq is None else [row for row in self._rows if row > seq]
