"""The sliding window: which message goes next, and how far the cursor may move. Pure, and not shared.

Four promises meet here.

- *A topic never goes back.* A topic with a message that is in flight, or acknowledged but not yet
  behind the durable cursor, makes its next one wait: otherwise a crash would give 1, 2, 1, 2.
- *A row's messages go in their order*, so that an event comes before what it causes on other topics.
- *The cursor moves over what was acknowledged.* It follows the longest run of finished rows.
- *A crash repeats little.* At most a window is in flight, and at most as much again is acknowledged
  but not yet behind the cursor. Only the messages of the first unfinished row may go beyond that,
  because everything else waits for it.

There is no barrier anywhere: whatever is acknowledged makes room at once. Publishing in chunks, each
waiting for its last acknowledgement, stalls 40 ms per chunk against a broker with Nagle's algorithm.
"""

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Literal

from oneweb_bridge.model import Message

Done = Callable[[bool], None]

REACH = 2
"""How many windows of messages may be ahead of the durable cursor: one in flight, and one that was
acknowledged while the cursor was being written. With one alone, the broker idles during each write."""


class Slip:
    """One message on its way. `seq` is its journal row, or 0 for a message without one.

    `sent_at` is the sender's: seconds of a monotonic clock.
    """

    __slots__ = ("done", "first_in_topic", "following", "message", "order", "row", "sent_at", "tries", "turn")

    def __init__(self, message: Message, order: int, row: "_Row | None", done: Done | None) -> None:
        self.message = message
        self.order = order
        self.row = row
        self.done = done
        self.tries = 0
        self.sent_at = 0.0
        self.following: Slip | None = None
        self.turn = True
        self.first_in_topic = False

    @property
    def seq(self) -> int:
        """The journal row of the message; 0 when it has none."""
        return self.row.seq if self.row else 0


class _Row:
    __slots__ = ("missing", "seq", "slips")

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.slips: list[Slip] = []
        self.missing = 0


class Window:
    """The window of one connection, starting behind the durable `cursor`."""

    def __init__(self, size: int, cursor: int) -> None:
        self.size = size
        self.in_flight = 0
        self.accepted = 0
        self.prefix = cursor
        self._cursor = cursor
        self._undurable = 0
        self._order = 0
        self._rows: deque[_Row] = deque()
        self._finished: deque[_Row] = deque()
        self._ready: list[tuple[int, int, Slip]] = []
        self._waiting: dict[str, deque[Slip]] = {}

    @property
    def rows(self) -> int:
        """How many rows are offered and not finished."""
        return len(self._rows)

    def offer(self, seq: int, messages: Iterable[Message]) -> None:
        """Takes the next journal row. A row without messages is finished as soon as those before it are."""
        row = _Row(seq)
        self._rows.append(row)
        for message in messages:
            self._order += 1
            slip = Slip(message, self._order, row, None)
            if row.slips:
                slip.turn, row.slips[-1].following = False, slip
            row.slips.append(slip)
        for slip in row.slips:
            self._enqueue(slip)
        row.missing = len(row.slips)
        self._advance()

    def offer_loose(self, message: Message, done: Done | None = None) -> None:
        """Takes a message that has no row; `done` hears whether the broker accepted it."""
        self._order += 1
        self._enqueue(Slip(message, self._order, None, done))

    def take(self) -> Slip | None:
        """The next message to send now, or None when the window is full or everything waits."""
        if not self._ready or self.in_flight >= self.size:
            return None
        first = self._ready[0][2]
        full = self.in_flight + self._undurable >= self.size * REACH
        if full and first.row is not None and (first.row is not self._rows[0] or self.prefix > self._cursor):
            return None
        heappop(self._ready)
        self.in_flight += 1
        if first.following is not None and not first.following.turn:
            first.following.turn = True
            self._make_ready(first.following)
        return first

    def acknowledge(self, slip: Slip) -> None:
        """The broker has accepted a message."""
        self.in_flight -= 1
        if slip.row is None:
            self._release(slip)
            if slip.done:
                slip.done(True)
            return
        self.accepted += 1
        self._undurable += 1
        self._finish(slip)

    def refuse(self, slip: Slip) -> None:
        """The broker does not want a message now; `again` or `give_up` says what becomes of it."""
        self.in_flight -= 1
        slip.tries += 1
        if slip.row is None:
            self._release(slip)
            if slip.done:
                slip.done(False)

    def again(self, slip: Slip) -> None:
        """Puts a refused message back."""
        heappush(self._ready, (*_place(slip), slip))

    def give_up(self, slip: Slip) -> None:
        """Counts a refused message as finished, because it was set aside."""
        self._undurable += 1
        self._finish(slip)

    def committed(self, seq: int) -> None:
        """The durable cursor stands at `seq` now: topics behind it may have their next message."""
        self._cursor = seq
        while self._finished and self._finished[0].seq <= seq:
            for slip in self._finished.popleft().slips:
                self._undurable -= 1
                self._release(slip)

    def state(self) -> Literal["idle", "uncommitted", "busy"]:
        """Whether nothing is left, only the cursor is behind, or messages are under way."""
        if self._rows or self._ready or self.in_flight:
            return "busy"
        return "uncommitted" if self.prefix > self._cursor else "idle"

    def _enqueue(self, slip: Slip) -> None:
        topic = slip.message.topic
        if topic in self._waiting:
            self._waiting[topic].append(slip)
        else:
            self._waiting[topic] = deque()
            slip.first_in_topic = True
            self._make_ready(slip)

    def _make_ready(self, slip: Slip) -> None:
        """A message may go when it is the first of its topic and those before it in its row have gone."""
        if slip.turn and slip.first_in_topic:
            heappush(self._ready, (*_place(slip), slip))

    def _finish(self, slip: Slip) -> None:
        row = slip.row
        if row is not None:
            row.missing -= 1
            if row.missing == 0:
                self._advance()

    def _advance(self) -> None:
        while self._rows and self._rows[0].missing == 0:
            row = self._rows.popleft()
            self.prefix = row.seq
            self._finished.append(row)

    def _release(self, slip: Slip) -> None:
        queue = self._waiting[slip.message.topic]
        if queue:
            following = queue.popleft()
            following.first_in_topic = True
            self._make_ready(following)
        else:
            del self._waiting[slip.message.topic]


def _place(slip: Slip) -> tuple[int, int]:
    """Messages without a row go first, then the lowest row: everything else waits for it."""
    return slip.seq, slip.order
