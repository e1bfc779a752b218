"""Messages of the send window, and rows of them with a position of their own. Pure, and not shared.

`Lane.pop_finished_rows` is where an acknowledgement moves a position.
"""

from collections import deque
from collections.abc import Callable, Collection
from heapq import heapify, heappush

import msgspec

from oneweb_bridge.model.records import Message

DOUBT = 5
"""Refusals without an acceptance between, after which a class of topics counts as refused as a whole."""
TRIAL = 2
"""Messages of a doubted lane that go after a pause: the oldest, and one other."""

OnAnswer = Callable[[bool], None]
"""Given whether the broker accepted a message."""


class Outgoing(msgspec.Struct, eq=False):
    """A message given to the window: queued, in flight, or acknowledged but not behind the cursor.

    `sent_at` is the sender's: seconds of a monotonic clock.
    """

    message: Message
    order: int
    row: "OutgoingRow | None"
    lane: "Lane | None"
    on_answer: OnAnswer | None = None
    tries: int = 0
    tries_alone: int = 0
    """How often it was refused after others of its class had been accepted, and while the class was not refused."""
    sent_at: float = 0.0
    accepted_before: int = 0
    next_in_row: "Outgoing | None" = None
    predecessor_sent: bool = True
    first_in_topic: bool = False
    in_flight: bool = False
    is_finished: bool = False

    @property
    def seq(self) -> int:
        """The journal row of the message; 0 when it has none."""
        return self.row.seq if self.row else 0

    @property
    def refused_alone(self) -> bool:
        """Whether others of its class were accepted since it was first refused."""
        return self.lane is not None and self.tries > 0 and self.lane.accepted > self.accepted_before


HeapEntry = tuple[int, int, Outgoing]
"""An entry of a heap of messages that may go."""


def heap_entry(outgoing: Outgoing) -> HeapEntry:
    """Messages without a row go first, then the lowest row: everything else waits for it."""
    return outgoing.seq, outgoing.order, outgoing


class OutgoingRow(msgspec.Struct, eq=False):
    """The messages of one journal row. `unfinished` counts those that are neither acknowledged nor set aside."""

    seq: int
    messages: list[Outgoing] = []
    unfinished: int = 0
    in_flight: int = 0


class Lane:
    """Rows with a position of their own. `name` is the class of topics; that of the main lane is empty.

    Everything up to `finished_seq` is finished, everything up to `saved_seq` is saved; `read` is the last row known.
    """

    def __init__(self, name: str, finished_seq: int, read: int) -> None:
        self.name = name
        self.finished_seq = finished_seq
        self.read = read
        self.saved_seq = finished_seq
        self.rows: deque[OutgoingRow] = deque()
        self.finished: deque[OutgoingRow] = deque()
        self.ready: list[HeapEntry] = []
        self.paused: set[Outgoing] = set()
        self.in_flight = 0
        self.unsaved = 0
        """Messages that are acknowledged but not behind the saved position."""
        self.accepted = 0
        self.skipped = 0
        """Messages of the class that the main lane has passed over, and that are not read again yet."""
        self.refusals = 0
        """Refusals since a message was accepted."""
        self.doubted = False
        self.failed_trials = 0
        """Trials that failed since the lane is doubted."""
        self.trial_left = 0
        """Messages that may still go in this trial."""
        self.closes_at: int | None = None
        """The row behind which this class goes through the main lane again; None: the lane is not closing."""

    @property
    def waits_for_trial(self) -> bool:
        """Whether nothing goes until the next trial."""
        return self.doubted and not self.trial_left and not self.in_flight and bool(self.rows)

    def count(self) -> int:
        """About how many messages wait."""
        return self.skipped + sum(row.unfinished for row in self.rows)

    def count_unsent_before(self, row: OutgoingRow | None) -> int:
        """How many messages of the rows before this one are still to be sent."""
        count = 0
        for earlier in self.rows:
            if earlier is row:
                break
            count += earlier.unfinished - earlier.in_flight
        return count

    def pop_finished_rows(self) -> None:
        """Moves `finished_seq` over the rows that are finished."""
        while self.rows and self.rows[0].unfinished == 0:
            row = self.rows.popleft()
            self.finished_seq = max(self.finished_seq, row.seq)
            self.finished.append(row)
        if not self.rows:
            self.finished_seq = max(self.finished_seq, self.read)

    def pop_saved(self, seq: int) -> list[Outgoing]:
        """The messages of finished rows up to `seq`, which is saved now."""
        self.saved_seq = max(self.saved_seq, seq)
        saved: list[Outgoing] = []
        while self.finished and self.finished[0].seq <= seq:
            row = self.finished.popleft()
            # They name their row, which names them no longer: else only the garbage collector could free them.
            saved += row.messages
            row.messages = []
        self.unsaved -= len(saved)
        return saved

    # ── refused ────────────────────────────────────────────────────────────────────────────────

    def pause(self, outgoing: Outgoing) -> None:
        """A message was refused; after too many refusals in a row the class is doubted."""
        if outgoing.tries == 1:
            outgoing.accepted_before = self.accepted
        self.paused.add(outgoing)
        if not outgoing.refused_alone:
            self.refusals += 1
            if self.refusals >= DOUBT and not self.doubted:
                self.doubted, self.failed_trials, self.trial_left = True, 0, 0
        elif not self.doubted:
            outgoing.tries_alone += 1

    def requeue(self, outgoing: Outgoing) -> None:
        """Puts a refused message back, after its pause."""
        if outgoing in self.paused:
            self.paused.discard(outgoing)
            heappush(self.ready, heap_entry(outgoing))

    def end_trial(self, withheld: Collection[str]) -> None:
        """A message of a doubted lane was refused: all wait for the next trial, unless this one goes on."""
        for outgoing in [outgoing for outgoing in self.paused if outgoing.message.topic not in withheld]:
            self.requeue(outgoing)
        if self.trial_left and len(self.ready) < TRIAL:
            self.trial_left = 0
        if not self.trial_left and not self.in_flight:
            self.failed_trials += 1

    def next_of_trial(self) -> Outgoing | None:
        """The next message of a trial: first the oldest, then the one that was tried least, the latest of those."""
        if not self.trial_left or self.in_flight or not self.ready:
            return None
        entry = min(self.ready)
        if self.trial_left < TRIAL:
            entry = min(self.ready, key=lambda other: (other[2].tries, -other[0], -other[1]))
        self.trial_left -= 1
        self.ready.remove(entry)
        heapify(self.ready)
        return entry[2]

    def end_doubt(self, *, was_refused: bool) -> None:
        """A message was accepted. Had it been refused before, then the tries of all of them begin anew."""
        self.doubted, self.failed_trials, self.trial_left = False, 0, 0
        if was_refused:
            for row in self.rows:
                for outgoing in row.messages:
                    outgoing.tries = outgoing.tries_alone = 0

    def has_refused(self) -> bool:
        """Whether messages are refused, one by one or as a class."""
        return self.doubted or any(outgoing.tries for row in self.rows for outgoing in row.messages)
