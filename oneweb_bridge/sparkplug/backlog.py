"""Which samples of an Edge Node's backlog are sent next: Device by Device, of each the oldest first.

The backlog is what came before the births and was not sent. Of each Device it is read by time from the database, so
that memory holds one piece of it, however large it is.
"""

from collections.abc import Sequence

import msgspec

from oneweb_bridge.model.records import Row
from oneweb_bridge.sparkplug.shared import NodeState, SharedState


class Stretch(msgspec.Struct, frozen=True):
    """What waits of a Device: the rows (after, through] with the ids of its terminal and its products.

    `moves` tells it from one that had the same ids before and after something moved away and back.
    """

    device: str
    ids: tuple[str, ...]
    after: int
    through: int
    moves: int


class Piece(msgspec.Struct, frozen=True):
    """The next rows, also of other kinds than samples, and the stretches whose last rows are among them."""

    rows: list[Row]
    ended: list[Stretch]


class Backlog:
    """Of one session of an Edge Node; what waits is in its `NodeState`."""

    def __init__(self, shared: SharedState, state: NodeState) -> None:
        self._shared = shared
        self._state = state
        self._oldest: dict[str, int] = {}
        """Id -> the time of its oldest sample in the rows `_scanned`."""
        self._scanned = (0, 0)
        self._place: tuple[Stretch, tuple[int, int]] | None = None
        """The stretch that is being read, and time and number of its last row that was read."""

    def begin(self, through: int) -> None:
        """Has all rows up to `through` wait that were not sent, for the births that were made after them."""
        state = self._state
        if through > state.read_through:
            for device in self._shared.placement.devices_of(state.number):
                state.waiting.setdefault(device, state.read_through)
        state.read_through = state.taken_through = max(through, state.read_through)

    async def read(self, limit: int) -> Piece:
        """At most `limit` rows. They count as sent with `note_sent` only."""
        piece = Piece([], [])
        for device in list(self._state.waiting):
            stretch = self._stretch(device)
            piece.rows.extend(await self._read_stretch(stretch, limit - len(piece.rows)))
            if len(piece.rows) >= limit:
                break
            piece.ended.append(stretch)
        return piece

    def note_sent(self, ended: Sequence[Stretch]) -> None:
        """The broker has read the last rows of these stretches. One that has grown meanwhile is read once more."""
        for stretch in ended:
            if stretch == self._stretch(stretch.device):
                del self._state.waiting[stretch.device]

    def _stretch(self, device: str) -> Stretch:
        """Without ids for a Device that is not on this Edge Node any more."""
        shared, state = self._shared, self._state
        ids: tuple[str, ...] = ()
        if shared.placement.number_of(device) == state.number:
            parts = shared.fleet.parts_of(device)
            ids = tuple(dict.fromkeys((*(() if parts.imei is None else (parts.imei,)), *parts.products)))
        return Stretch(device, ids, state.waiting[device], state.read_through, shared.move_counts[device])

    async def _find_oldest(self, stretch: Stretch) -> int | None:
        """The time of the oldest sample of a stretch; None without one. All that waits is looked through at once."""
        if stretch.after < self._scanned[0] or stretch.through > self._scanned[1]:
            low = min(stretch.after, *self._state.waiting.values())
            self._oldest = await self._shared.tables.oldest_samples(low, stretch.through)
            self._scanned = (low, stretch.through)
        return min((self._oldest[id] for id in stretch.ids if id in self._oldest), default=None)

    async def _read_stretch(self, stretch: Stretch, limit: int) -> list[Row]:
        """Its next rows by time. It begins anew when it is not what it was: what is new of it may be older."""
        oldest = await self._find_oldest(stretch)
        if oldest is None:
            return []
        place = (oldest, 0)
        if self._place is not None and self._place[0] == stretch:
            place = self._place[1]
        rows = await self._shared.tables.rows_by_time(stretch.ids, (stretch.after, stretch.through), place, limit)
        if rows:
            self._place = (stretch, (rows[-1].ts, rows[-1].seq))
        return rows
