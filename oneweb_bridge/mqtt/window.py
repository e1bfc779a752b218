"""The sliding window: which message goes next, and how far each position may move. Pure, and not shared.

Five promises meet here.

- *A topic never goes back.* A topic with a message that is in flight, or acknowledged but not yet
  behind the saved cursor, makes its next one wait: otherwise a crash would give 1, 2, 1, 2.
- *A row's messages go in their order*, so that an event comes before what it causes on other topics.
- *The cursor moves over what was acknowledged.* It follows the longest run of finished rows.
- *A crash repeats little.* At most MAX_REPEATED_MESSAGES are in flight, acknowledged but not yet behind
  the cursor, or retained and not yet behind the broker's head: after a crash the first two kinds are sent
  again, and the last is restored, because the broker may have lost it. Room is kept for what earlier rows
  have still to send, so only a first unfinished row with more messages than half of that may go beyond it.
- *What is refused holds up nobody else* (see lanes.py).

There is no barrier anywhere: whatever is acknowledged makes room at once. Publishing in chunks, each
waiting for its last acknowledgement, stalls 40 ms per chunk against a broker with Nagle's algorithm.
"""

from collections.abc import Callable, Iterable, Mapping
from heapq import heappop
from typing import Literal

from oneweb_bridge.model.records import Message, Positions
from oneweb_bridge.mqtt.behind_head import BehindHead
from oneweb_bridge.mqtt.fence import TopicFence
from oneweb_bridge.mqtt.lane import Lane, OnAnswer, Outgoing, OutgoingRow
from oneweb_bridge.mqtt.lanes import Lanes

MAX_REPEATED_MESSAGES = 200
"""How many messages may come again after a crash: those in flight, those that were acknowledged but are not yet
behind the saved cursor, and the retained ones between the broker's head and that cursor."""


def max_repeated(size: int, *, is_leased: bool) -> int:
    """How many messages may come again with a window of this size: where others take over, two windows at most."""
    return min(MAX_REPEATED_MESSAGES, 2 * size) if is_leased else MAX_REPEATED_MESSAGES


class SendWindow:
    """The window of one connection, starting at saved `positions`. `class_of` tells the class of a topic.

    Messages of rows on the topics in `tries_of_withheld` go only when these are let go; the number says how often they
    were tried before.
    """

    def __init__(
        self,
        size: int,
        positions: Positions,
        class_of: Callable[[str], str],
        tries_of_withheld: Mapping[str, int] | None = None,
        max_repeated: int = MAX_REPEATED_MESSAGES,
    ) -> None:
        self.size = size
        self.max_behind_head = max(1, max_repeated // 4)
        """Retained messages that a crash would repeat because the head does not say them, after which it is published
        at once: a part of what may come again, which also is in flight or waits for the cursor."""
        self._max_repeated = max_repeated
        self.in_flight = 0
        self.saved = positions
        self._tries_of_withheld = dict(tries_of_withheld or {})
        self._fence = TopicFence(self._tries_of_withheld)
        self._order = 0
        self._has_stopped_rows = False
        self.behind_head = BehindHead()
        self.lanes = Lanes(positions, class_of, self._fence)
        self._main = self.lanes.main

    @property
    def finished_seq(self) -> int:
        """Everything up to this row is finished, but for what waits in lanes."""
        return self._main.finished_seq

    @property
    def unfinished_rows(self) -> int:
        """How many rows are offered and not finished, but for what waits in lanes."""
        return len(self._main.rows)

    # ── what is to be sent ─────────────────────────────────────────────────────────────────────

    def offer_row(self, seq: int, messages: Iterable[Message]) -> None:
        """Takes the next journal row. A row without messages is finished as soon as those before it are."""
        messages = list(messages)
        if self._fence.withheld:
            for message in messages:
                if message.topic in self._fence.withheld:
                    self.lanes.divert(self.lanes.class_of(message.topic))
        self._main.read = seq
        if self.lanes:
            messages = [message for message in messages if not self._leave_to_lane(message.topic, seq)]
        self._add_row(self._main, seq, messages)
        for lane in self.lanes.by_class.values():
            self.lanes.close_if_level(lane)

    def offer_to_lane(self, name: str, seq: int, messages: Iterable[Message]) -> None:
        """Takes the next journal row of a lane that is behind the main one; only what is of its class counts."""
        lane = self.lanes.by_class[name]
        lane.read = seq
        own = [message for message in messages if self.lanes.class_of(message.topic) == name]
        lane.skipped = 0 if self.lanes.is_level(lane) else max(0, lane.skipped - len(own))
        if own:
            self._add_row(lane, seq, own)
        lane.pop_finished_rows()
        self.lanes.close_if_level(lane)

    def offer_unjournaled(self, message: Message, on_answer: OnAnswer | None = None) -> None:
        """Takes a message that has no row; `on_answer` is given whether the broker accepted it."""
        self._order += 1
        self._fence.enqueue(Outgoing(message, self._order, None, None, on_answer))

    def next_to_send(self) -> Outgoing | None:
        """The next message to send now, or None when the window is full or everything waits."""
        if self.in_flight >= self.size:
            return None
        outgoing = heappop(self._fence.unjournaled)[2] if self._fence.unjournaled else self._next_of_rows()
        if outgoing is None:
            return None
        outgoing.in_flight = True
        self.in_flight += 1
        if outgoing.lane is not None and outgoing.row is not None:
            outgoing.lane.in_flight += 1
            outgoing.row.in_flight += 1
        if outgoing.next_in_row is not None:
            self._fence.let_next_go(outgoing)
        return outgoing

    def stop_rows(self) -> None:
        """From now on only messages without a row go: the connection is about to end."""
        self._has_stopped_rows = True

    def _next_of_rows(self) -> Outgoing | None:
        """The next message of a row, of the main lane if it has one."""
        if self._has_stopped_rows:
            return None
        outgoing = self._next_of_lane(self._main)
        for lane in self.lanes.by_class.values():
            outgoing = outgoing or self._next_of_lane(lane)
        return outgoing

    def _next_of_lane(self, lane: Lane) -> Outgoing | None:
        """The next message of a lane. A lane reaches a window ahead, so that the main one can always go on."""
        if lane.doubted:
            return lane.next_of_trial()
        if not lane.ready:
            return None
        first = lane.ready[0][2]
        is_full = self._has_no_room_for(first) or (bool(lane.name) and lane.in_flight + lane.unsaved >= self.size)
        if is_full and (self.behind_head or first.row is not lane.rows[0] or lane.finished_seq > lane.saved_seq):
            return None
        return heappop(lane.ready)[2]

    def _has_no_room_for(self, outgoing: Outgoing) -> bool:
        """Whether with this message more could be repeated than may be. What its lane still has to send of earlier
        rows has its room kept: the first of them is going to be sent in any case.
        """
        room = self._max_repeated - self.in_flight - self.lanes.count_unsaved() - len(self.behind_head)
        if outgoing.lane is None or 2 * room > self._max_repeated:
            return room <= 0
        return room <= outgoing.lane.count_unsent_before(outgoing.row)

    def _leave_to_lane(self, topic: str, seq: int) -> bool:
        """Whether a message of a row that the main lane reads is left to the lane of its class, which counts it."""
        lane = self.lanes.left_to(topic)
        if lane is None:
            return False
        lane.skipped += seq > lane.read
        return True

    def _add_row(self, lane: Lane, seq: int, messages: Iterable[Message]) -> None:
        row = OutgoingRow(seq)
        lane.rows.append(row)
        for message in messages:
            self._order += 1
            outgoing = Outgoing(message, self._order, row, lane)
            if self._tries_of_withheld:
                outgoing.tries = self._tries_of_withheld.get(message.topic, 0)
            if row.messages:
                outgoing.predecessor_sent, row.messages[-1].next_in_row = False, outgoing
            row.messages.append(outgoing)
        for outgoing in row.messages:
            self._fence.enqueue(outgoing)
        row.unfinished = len(row.messages)
        if not row.messages:
            lane.pop_finished_rows()

    # ── what became of it ──────────────────────────────────────────────────────────────────────

    def acknowledge(self, outgoing: Outgoing) -> None:
        """The broker has accepted a message."""
        self._leave_flight(outgoing)
        lane = outgoing.lane
        if lane is None:
            self._end_unjournaled(outgoing, accepted=True)
            return
        lane.accepted += 1
        lane.refusals = 0
        if lane.doubted:
            lane.end_doubt(was_refused=outgoing.tries > 0)
        self._finish(outgoing)

    def refuse(self, outgoing: Outgoing) -> None:
        """The broker refused a message (reason code from 0x80): its class gets a lane, in which it pauses.

        The caller then requeues it or sets it aside.
        """
        self._leave_flight(outgoing)
        outgoing.tries += 1
        if outgoing.row is None:
            self._end_unjournaled(outgoing, accepted=False)
            return
        lane = self.lanes.divert(self.lanes.class_of(outgoing.message.topic))
        lane.pause(outgoing)
        if lane.doubted:
            lane.end_trial(self._fence.withheld)

    def set_aside(self, outgoing: Outgoing) -> None:
        """Counts a refused message as finished, because it was set aside."""
        self._finish(outgoing)

    def positions(self) -> Positions:
        """What may be saved now."""
        return self.lanes.positions()

    def has_moved(self) -> bool:
        """Whether a position may have moved since it was saved."""
        return bool(self.lanes) or self._main.finished_seq > self._main.saved_seq

    def is_cursor_awaited(self) -> bool:
        """Whether somebody waits for the positions to be saved. To be asked when all that may be sent has been.

        That is the next message of a topic, where the window has nothing else to send; or the window: it is blocked
        when as much is acknowledged but not saved as it leaves room for, so half of that counts as waiting, and the
        cursor is saved while messages flow.
        """
        if not any(lane.finished_seq > lane.saved_seq for lane in self.lanes.all()):
            return False
        room = max(1, (self._max_repeated - self.size) // 2)
        has_nothing_to_send = self.in_flight < self.size
        if self.lanes.count_unsaved() >= room or (has_nothing_to_send and self._fence.is_cursor_awaited()):
            return True
        return any(2 * lane.unsaved >= self.size for lane in self.lanes.by_class.values())

    def skip_to(self, seq: int) -> None:
        """Begins after row `seq`, which another process has published up to. Only before rows are offered."""
        self.lanes.skip_to(seq)
        self.saved = Positions(seq, self.saved.waiting)

    def on_saved(self, positions: Positions) -> None:
        """These positions are saved now: topics behind them may have their next message."""
        self.saved = positions
        for outgoing in self.lanes.pop_saved(positions):
            self._fence.free_topic(outgoing)
            self.behind_head.add(outgoing, positions.cursor)

    def state(self) -> Literal["idle", "unsaved", "busy"]:
        """Whether nothing is left, only a position is behind, or messages are under way. What is doubted waits."""
        going = [lane for lane in self.lanes.all() if not lane.doubted]
        if self._fence.unjournaled or self.in_flight or any(lane.rows for lane in going):
            return "busy"
        return "unsaved" if self.positions() != self.saved else "idle"

    def _leave_flight(self, outgoing: Outgoing) -> None:
        outgoing.in_flight = False
        self.in_flight -= 1
        if outgoing.lane is not None and outgoing.row is not None:
            outgoing.lane.in_flight -= 1
            outgoing.row.in_flight -= 1

    def _end_unjournaled(self, outgoing: Outgoing, *, accepted: bool) -> None:
        self._fence.free_topic(outgoing)
        if outgoing.on_answer:
            outgoing.on_answer(accepted)

    def _finish(self, outgoing: Outgoing) -> None:
        row, lane = outgoing.row, outgoing.lane
        if row is None or lane is None:
            return
        self._fence.finish(outgoing)
        lane.unsaved += 1
        row.unfinished -= 1
        if row.unfinished == 0:
            lane.pop_finished_rows()
        if lane.name:
            self.lanes.close_if_level(lane)
