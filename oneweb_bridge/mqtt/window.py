"""The sliding window: which message goes next, and how far each position may move. Pure, and not shared.

Five promises meet here.

- *A topic never goes back.* A topic with a message that is in flight, or acknowledged but not yet
  behind the durable cursor, makes its next one wait: otherwise a crash would give 1, 2, 1, 2.
- *A row's messages go in their order*, so that an event comes before what it causes on other topics.
- *The cursor moves over what was acknowledged.* It follows the longest run of finished rows.
- *A crash repeats little.* At most a window is in flight, and at most as much again is acknowledged
  but not yet behind the cursor. Only the messages of the first unfinished row may go beyond that,
  because everything else waits for it.
- *What is refused holds up nobody else.*

There is no barrier anywhere: whatever is acknowledged makes room at once. Publishing in chunks, each
waiting for its last acknowledgement, stalls 40 ms per chunk against a broker with Nagle's algorithm.

How a refusal goes. An access rule tells topics apart by their class (a topic without its id), so the first
refusal of a row's message gives its class a *lane*: the messages of that class leave the rows of the main
lane and wait in rows of their own, with a position of their own. Both positions are written in one
transaction, so that everything of the class behind the lane's position is still to come, whatever
happens, and the main cursor can move on.

- Within a lane a refused message pauses alone and the others go on. One that was refused often enough while
  others of its class were accepted is set aside.
- When `DOUBT` refusals come without a message accepted between, the class is refused as a whole: the lane is
  *doubted*, and only a trial goes after each pause: its oldest message, and, where that is refused too, one
  other, which finds out whether only some of the class are refused. The lane waits for as long as
  it takes; its rows stay in the journal, and only the first of them are held here.
- A message that is accepted ends the doubt. A lane that has read as far as the main lane is closing: what comes
  behind that place goes through the main lane again, whose position does not pass that place before the
  lane's rows are done.

The order of a row's messages ends where one of them waits in a lane: what else the row says is not refused
and passes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import Literal

from oneweb_bridge.model.records import Message, Positions, Waiting

OnAnswer = Callable[[bool], None]

WINDOWS_BEYOND_CURSOR = 2
"""How many windows of messages may be ahead of the durable cursor: one in flight, and one that was
acknowledged while the cursor was being written. With one alone, the broker idles during each write."""
DOUBT = 5
"""Refusals without an acceptance between, after which a class of topics counts as refused as a whole."""
TRIAL = 2
"""Messages of a doubted lane that go after a pause: the oldest, and one other."""


class Outgoing:
    """One message on its way. `seq` is its journal row, or 0 for a message without one.

    `sent_at` is the sender's: seconds of a monotonic clock.
    """

    __slots__ = (
        "accepted_before",
        "done",
        "finished",
        "first_in_topic",
        "following",
        "in_flight",
        "lane",
        "message",
        "order",
        "row",
        "sent_at",
        "tries",
        "turn",
    )

    def __init__(
        self, message: Message, order: int, row: "_Row | None", lane: "Lane | None", done: OnAnswer | None
    ) -> None:
        self.message = message
        self.order = order
        self.row = row
        self.lane = lane
        self.done = done
        self.tries = 0
        self.sent_at = 0.0
        self.accepted_before = 0
        self.following: Outgoing | None = None
        self.turn = True
        self.first_in_topic = False
        self.in_flight = False
        self.finished = False

    @property
    def seq(self) -> int:
        """The journal row of the message; 0 when it has none."""
        return self.row.seq if self.row else 0

    @property
    def refused_alone(self) -> bool:
        """Whether others of its class were accepted since it was first refused."""
        return self.lane is not None and self.tries > 0 and self.lane.accepted > self.accepted_before


class _Row:
    __slots__ = ("missing", "seq", "slips")

    def __init__(self, seq: int, slips: Iterable[Outgoing] = ()) -> None:
        self.seq = seq
        self.slips = list(slips)
        self.missing = 0


class Lane:
    """Rows with a position of their own: `prefix`, behind which everything is finished; `read` is the last one known.

    `name` is the class of topics; the main lane, which has all that are not refused, is without one.
    """

    def __init__(self, name: str, prefix: int, read: int) -> None:
        self.name = name
        self.prefix = prefix
        self.read = read
        self.cursor = prefix
        self.rows: deque[_Row] = deque()
        self.finished: deque[_Row] = deque()
        self.ready: list[tuple[int, int, Outgoing]] = []
        self.paused: set[Outgoing] = set()
        self.in_flight = 0
        self.undurable = 0
        self.accepted = 0
        self.skipped = 0
        """Messages of the class that the main lane has passed over, and that are not read again yet."""
        self.refusals = 0
        """Refusals since a message was accepted."""
        self.doubted = False
        self.rounds = 0
        """Trials that failed since the lane is doubted."""
        self.trial = 0
        """Messages that may still go in this trial."""
        self.closing: int | None = None

    @property
    def waits_for_trial(self) -> bool:
        """Whether nothing goes until the next trial."""
        return self.doubted and not self.trial and not self.in_flight and bool(self.rows)

    def count(self) -> int:
        """About how many messages wait."""
        return self.skipped + sum(row.missing for row in self.rows)

    def advance(self) -> None:
        """Moves `prefix` over the rows that are finished."""
        while self.rows and self.rows[0].missing == 0:
            row = self.rows.popleft()
            self.prefix = max(self.prefix, row.seq)
            self.finished.append(row)
        if not self.rows:
            self.prefix = max(self.prefix, self.read)

    def take_trial(self) -> Outgoing | None:
        """The next message of a trial: first the oldest, then the one that was tried least, the latest of those."""
        if not self.trial or self.in_flight or not self.ready:
            return None
        entry = min(self.ready)
        if self.trial < TRIAL:
            entry = min(self.ready, key=lambda other: (other[2].tries, -other[0], -other[1]))
        self.trial -= 1
        self.ready.remove(entry)
        heapify(self.ready)
        return entry[2]


class SendWindow:
    """The window of one connection, starting at durable `positions`. `class_of` tells the class of a topic.

    Rows on topics to `withhold` go only when they are let go; the number says how often they were tried before.
    """

    def __init__(
        self,
        size: int,
        positions: Positions,
        class_of: Callable[[str], str],
        withhold: Mapping[str, int] | None = None,
    ) -> None:
        self.size = size
        self.in_flight = 0
        self.durable = positions
        self._withheld = dict(withhold or {})
        self._tries = dict(withhold or {})
        self._class_of = class_of
        self._order = 0
        self._has_stopped_rows = False
        self._main = Lane("", positions.cursor, positions.cursor)
        self._loose: list[tuple[int, int, Outgoing]] = []
        self._topics: dict[str, deque[Outgoing]] = {}
        self.lanes: dict[str, Lane] = {}
        for name, waiting in positions.waiting.items():
            lane = self.lanes[name] = Lane(name, waiting.seq, waiting.seq)
            lane.skipped, lane.doubted, lane.trial = waiting.count, True, TRIAL
            self._close_if_level(lane)

    @property
    def prefix(self) -> int:
        """Everything up to this row is finished, but for what waits in lanes."""
        return self._main.prefix

    @property
    def rows(self) -> int:
        """How many rows are offered and not finished, but for what waits in lanes."""
        return len(self._main.rows)

    @property
    def accepted(self) -> int:
        """How many messages of rows the broker has accepted."""
        return self._main.accepted + sum(lane.accepted for lane in self.lanes.values())

    # ── what is to be sent ─────────────────────────────────────────────────────────────────────

    def offer(self, seq: int, messages: Iterable[Message]) -> None:
        """Takes the next journal row. A row without messages is finished as soon as those before it are."""
        messages = list(messages)
        for message in messages:
            if message.topic in self._withheld:
                self._divert(self._class_of(message.topic))
        self._main.read = seq
        if self.lanes:
            messages = [message for message in messages if not self._pass_to_lane(message.topic, seq)]
        self._offer_row(self._main, seq, messages)
        for lane in self.lanes.values():
            self._close_if_level(lane)

    def offer_to_lane(self, name: str, seq: int, messages: Iterable[Message]) -> None:
        """Takes the next journal row of a lane that is behind the main one; only what is of its class counts."""
        lane = self.lanes[name]
        lane.read = seq
        own = [message for message in messages if self._class_of(message.topic) == name]
        lane.skipped = 0 if self.is_level(lane) else max(0, lane.skipped - len(own))
        if own:
            self._offer_row(lane, seq, own)
        lane.advance()
        self._close_if_level(lane)

    def offer_unjournaled(self, message: Message, done: OnAnswer | None = None) -> None:
        """Takes a message that has no row; `done` hears whether the broker accepted it."""
        self._order += 1
        self._enqueue(Outgoing(message, self._order, None, None, done))

    def is_left_to_lane(self, topic: str) -> bool:
        """Whether the next row's message on a topic goes through the lane of its class, and not the main one."""
        lane = self.lanes.get(self._class_of(topic)) if self.lanes else None
        return lane is not None and lane.closing is None

    def is_level(self, lane: Lane) -> bool:
        """Whether a lane has read as far as the main one."""
        return lane.read >= self._main.read

    def lanes_to_read(self, most: int) -> list[Lane]:
        """The lanes that have rows to read before the place of the main one, and fewer than `most` in hand."""
        return [
            lane
            for lane in self.lanes.values()
            if lane.closing is None and not self.is_level(lane) and len(lane.rows) < most
        ]

    def position_of(self, topic: str) -> int:
        """Every row up to this one is finished for this topic."""
        lane = self.lanes.get(self._class_of(topic)) if self.lanes else None
        return self._main.prefix if lane is None else lane.prefix

    def is_doubted(self, topic: str) -> bool:
        """Whether the class of a topic is refused as a whole."""
        lane = self.lanes.get(self._class_of(topic)) if self.lanes else None
        return lane is not None and lane.doubted

    def take(self) -> Outgoing | None:
        """The next message to send now, or None when the window is full or everything waits."""
        if self.in_flight >= self.size:
            return None
        slip = heappop(self._loose)[2] if self._loose else self._take_row()
        if slip is None:
            return None
        slip.in_flight = True
        self.in_flight += 1
        if slip.lane is not None:
            slip.lane.in_flight += 1
        self._pass_turn(slip)
        return slip

    def stop_rows(self) -> None:
        """From now on only messages without a row go: the connection is about to end."""
        self._has_stopped_rows = True

    def _take_row(self) -> Outgoing | None:
        """The next message of a row, of the main lane if it has one."""
        if self._has_stopped_rows:
            return None
        slip = self._take_from(self._main)
        if slip is None and self.lanes:
            slip = next((slip for lane in self.lanes.values() if (slip := self._take_from(lane))), None)
        return slip

    def _take_from(self, lane: Lane) -> Outgoing | None:
        """The next message of a lane. A lane reaches a window ahead, so that the main one can always go on."""
        if lane.doubted:
            return lane.take_trial()
        if not lane.ready:
            return None
        first = lane.ready[0][2]
        full = self.in_flight + self._undurable() >= self.size * WINDOWS_BEYOND_CURSOR or (
            bool(lane.name) and lane.in_flight + lane.undurable >= self.size
        )
        if full and (first.row is not lane.rows[0] or lane.prefix > lane.cursor):
            return None
        return heappop(lane.ready)[2]

    def _undurable(self) -> int:
        return self._main.undurable + sum(lane.undurable for lane in self.lanes.values())

    # ── what became of it ──────────────────────────────────────────────────────────────────────

    def acknowledge(self, slip: Outgoing) -> None:
        """The broker has accepted a message."""
        self._landed(slip)
        lane = slip.lane
        if lane is None:
            self._release(slip)
            if slip.done:
                slip.done(True)
            return
        lane.accepted += 1
        lane.refusals = 0
        if lane.doubted:
            self._end_doubt(lane, mended=slip.tries > 0)
        self._finish(slip)

    def refuse(self, slip: Outgoing) -> None:
        """The broker does not want a message now: its class gets a lane, in which it is tried again or given up."""
        self._landed(slip)
        slip.tries += 1
        if slip.row is None:
            self._release(slip)
            if slip.done:
                slip.done(False)
            return
        lane = self._divert(self._class_of(slip.message.topic))
        if slip.tries == 1:
            slip.accepted_before = lane.accepted
        lane.paused.add(slip)
        if not slip.refused_alone:
            lane.refusals += 1
            if lane.refusals >= DOUBT and not lane.doubted:
                lane.doubted, lane.rounds, lane.trial = True, 0, 0
        if lane.doubted:
            self._resume_all(lane)
            self._end_trial(lane)

    def again(self, slip: Outgoing) -> None:
        """Puts a refused message back, after its pause."""
        if slip.lane is not None and slip in slip.lane.paused:
            slip.lane.paused.discard(slip)
            heappush(slip.lane.ready, (*_priority(slip), slip))

    def withhold(self, slip: Outgoing) -> None:
        """Keeps a refused message from being sent, because it is going to be given up."""
        if slip.lane is not None:
            slip.lane.paused.discard(slip)

    def blamed_slip(self, topic: str) -> Outgoing | None:
        """The message that is withheld on a topic."""
        lanes = (self._main, *self.lanes.values())
        return next((slip for lane in lanes for slip in lane.paused if slip.message.topic == topic), None)

    def let_go(self, topic: str) -> None:
        """Withholds a topic no longer; what is paused on it goes when it is put back."""
        self._withheld.pop(topic, None)

    def set_aside(self, slip: Outgoing) -> None:
        """Counts a refused message as finished, because it was set aside."""
        self._finish(slip)

    def try_lane(self, name: str) -> None:
        """Allows a doubted lane one trial."""
        lane = self.lanes.get(name)
        if lane is not None and lane.waits_for_trial:
            lane.trial = TRIAL

    def positions(self) -> Positions:
        """What may be noted durably now: a class that waits is noted together with the cursor that has passed it."""
        lanes = self.lanes.values()
        limits = [lane.closing for lane in lanes if lane.closing is not None and lane.rows]
        cursor = min([self._main.prefix, *limits])
        waiting = {
            lane.name: Waiting(lane.prefix, lane.count())
            for lane in lanes
            if lane.closing is None or lane.rows or cursor < lane.closing
        }
        return Positions(cursor, waiting)

    def committed(self, positions: Positions) -> None:
        """These positions are durable now: topics behind them may have their next message."""
        self.durable = positions
        self._commit_lane(self._main, positions.cursor)
        for name, lane in list(self.lanes.items()):
            waiting = positions.waiting.get(name)
            self._commit_lane(lane, positions.cursor if waiting is None else waiting.seq)
            if waiting is None and lane.closing is not None and not lane.rows and positions.cursor >= lane.closing:
                del self.lanes[name]
                self._main.accepted += lane.accepted

    def state(self) -> Literal["idle", "uncommitted", "busy"]:
        """Whether nothing is left, only a position is behind, or messages are under way. What is doubted waits."""
        going = [self._main, *(lane for lane in self.lanes.values() if not lane.doubted)]
        if self._loose or self.in_flight or any(lane.rows for lane in going):
            return "busy"
        return "uncommitted" if self.positions() != self.durable else "idle"

    # ── inside ─────────────────────────────────────────────────────────────────────────────────

    def _pass_to_lane(self, topic: str, seq: int) -> bool:
        """Whether a message of a row that the main lane reads is left to the lane of its class, which counts it."""
        if not self.is_left_to_lane(topic):
            return False
        lane = self.lanes[self._class_of(topic)]
        lane.skipped += seq > lane.read
        return True

    def _offer_row(self, lane: Lane, seq: int, messages: Iterable[Message]) -> None:
        row = _Row(seq)
        lane.rows.append(row)
        for message in messages:
            self._order += 1
            slip = Outgoing(message, self._order, row, lane, None)
            slip.tries = self._tries.get(message.topic, 0)
            if row.slips:
                slip.turn, row.slips[-1].following = False, slip
            row.slips.append(slip)
        for slip in row.slips:
            self._enqueue(slip)
        row.missing = len(row.slips)
        lane.advance()

    def _landed(self, slip: Outgoing) -> None:
        slip.in_flight = False
        self.in_flight -= 1
        if slip.lane is not None:
            slip.lane.in_flight -= 1

    def _divert(self, name: str) -> Lane:
        """Takes what is under way of a class out of the main lane. What was finished of it there is done."""
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(name, self._main.prefix, self._main.read)
        elif lane.closing is None:
            return lane
        lane.closing = None
        lane.read = self._main.read
        moved: list[Outgoing] = []
        for row in self._main.rows:
            own = [slip for slip in row.slips if self._class_of(slip.message.topic) == name]
            if own:
                row.slips = [slip for slip in row.slips if slip not in own]
                self._move_to_lane(own, row, lane)
                moved += own
        if moved:
            lane.ready += [entry for entry in self._main.ready if entry[2].lane is lane]
            self._main.ready = [entry for entry in self._main.ready if entry[2].lane is not lane]
            heapify(lane.ready)
            heapify(self._main.ready)
        for slip in moved:
            self._pass_turn(slip)
        lane.advance()
        self._main.advance()
        return lane

    def _move_to_lane(self, slips: list[Outgoing], row: _Row, lane: Lane) -> None:
        moved = _Row(row.seq, slips)
        for slip in slips:
            slip.row, slip.lane = moved, lane
            if slip.finished:
                self._main.undurable -= 1
                lane.undurable += 1
            else:
                row.missing -= 1
                moved.missing += 1
            if slip.in_flight:
                self._main.in_flight -= 1
                lane.in_flight += 1
        lane.rows.append(moved)

    def _resume_all(self, lane: Lane) -> None:
        for slip in [slip for slip in lane.paused if slip.message.topic not in self._withheld]:
            self.again(slip)

    def _end_trial(self, lane: Lane) -> None:
        if lane.trial and len(lane.ready) < TRIAL:
            lane.trial = 0
        if not lane.trial and not lane.in_flight:
            lane.rounds += 1

    def _end_doubt(self, lane: Lane, *, mended: bool) -> None:
        """One of a doubted lane was accepted. Was it one that had been refused, then all of them begin anew."""
        lane.doubted, lane.rounds, lane.trial = False, 0, 0
        if mended:
            for row in lane.rows:
                for slip in row.slips:
                    slip.tries = 0

    def _close_if_level(self, lane: Lane) -> None:
        """A lane that is as far as the main one, and in which nothing is refused, takes nothing more."""
        if lane.closing is not None or lane.read != self._main.read:
            return
        if not lane.rows or not (lane.doubted or any(slip.tries for row in lane.rows for slip in row.slips)):
            lane.closing = lane.read
            lane.doubted = False
            lane.advance()

    def _commit_lane(self, lane: Lane, seq: int) -> None:
        lane.cursor = max(lane.cursor, seq)
        while lane.finished and lane.finished[0].seq <= seq:
            for slip in lane.finished.popleft().slips:
                lane.undurable -= 1
                self._release(slip)

    def _enqueue(self, slip: Outgoing) -> None:
        topic = slip.message.topic
        if topic in self._topics:
            self._topics[topic].append(slip)
        else:
            self._topics[topic] = deque()
            slip.first_in_topic = True
            self._make_ready(slip)

    def _make_ready(self, slip: Outgoing) -> None:
        """A message may go when it is the first of its topic and those before it in its row have gone."""
        if not slip.turn or not slip.first_in_topic:
            return
        if slip.lane is not None and slip.message.topic in self._withheld:
            slip.lane.paused.add(slip)
        else:
            heappush(self._loose if slip.lane is None else slip.lane.ready, (*_priority(slip), slip))

    def _pass_turn(self, slip: Outgoing) -> None:
        """Lets what follows in the row go: this one has gone before it, or waits in a lane."""
        if slip.following is not None and not slip.following.turn:
            slip.following.turn = True
            self._make_ready(slip.following)

    def _finish(self, slip: Outgoing) -> None:
        row, lane = slip.row, slip.lane
        if row is None or lane is None:
            return
        slip.finished = True
        lane.undurable += 1
        row.missing -= 1
        if row.missing == 0:
            lane.advance()
        if lane.name:
            self._close_if_level(lane)

    def _release(self, slip: Outgoing) -> None:
        queue = self._topics[slip.message.topic]
        if queue:
            following = queue.popleft()
            following.first_in_topic = True
            self._make_ready(following)
        else:
            del self._topics[slip.message.topic]


def _priority(slip: Outgoing) -> tuple[int, int]:
    """Messages without a row go first, then the lowest row: everything else waits for it."""
    return slip.seq, slip.order
