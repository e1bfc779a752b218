"""The lanes of the send window: the main one, and one for each class of topics that is refused. Pure, and not shared.

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

from collections.abc import Callable
from heapq import heapify

from oneweb_bridge.model.records import Positions, Waiting
from oneweb_bridge.mqtt.fence import TopicFence
from oneweb_bridge.mqtt.lane import TRIAL, Lane, Outgoing, OutgoingRow


class Lanes:
    """The main lane, and one for each class that waits. `class_of` tells the class of a topic."""

    def __init__(self, positions: Positions, class_of: Callable[[str], str], fence: TopicFence) -> None:
        self.main = Lane("", positions.cursor, positions.cursor)
        self.by_class: dict[str, Lane] = {}
        self.class_of = class_of
        self._fence = fence
        for name, waiting in positions.waiting.items():
            lane = self.by_class[name] = Lane(name, waiting.seq, waiting.seq)
            lane.skipped, lane.doubted, lane.trial_left = waiting.count, True, TRIAL
            self.close_if_level(lane)

    def __bool__(self) -> bool:
        """Whether a class waits."""
        return bool(self.by_class)

    def all(self) -> list[Lane]:
        """The main lane and the others."""
        return [self.main, *self.by_class.values()]

    def count_unsaved(self) -> int:
        """How many messages are acknowledged but not behind a saved position."""
        count = self.main.unsaved
        for lane in self.by_class.values():
            count += lane.unsaved
        return count

    def waiting_for(self, topic: str) -> Lane | None:
        """The lane of the class of a topic, if it waits."""
        return self.by_class.get(self.class_of(topic)) if self.by_class else None

    def left_to(self, topic: str) -> Lane | None:
        """The lane through which the next row's message on a topic goes; None where that is the main one."""
        lane = self.waiting_for(topic)
        return lane if lane is not None and lane.closes_at is None else None

    def is_level(self, lane: Lane) -> bool:
        """Whether a lane has read as far as the main one."""
        return lane.read >= self.main.read

    def to_read(self, most: int) -> list[Lane]:
        """The lanes that have rows to read before the place of the main one, and fewer than `most` in hand."""
        return [
            lane
            for lane in self.by_class.values()
            if lane.closes_at is None and not self.is_level(lane) and len(lane.rows) < most
        ]

    def position_of(self, topic: str) -> int:
        """Every row up to this one is finished for this topic."""
        return (self.waiting_for(topic) or self.main).finished_seq

    def is_doubted(self, topic: str) -> bool:
        """Whether the class of a topic is refused as a whole."""
        lane = self.waiting_for(topic)
        return lane is not None and lane.doubted

    def allow_trial(self, name: str) -> None:
        """Allows a doubted lane one trial."""
        lane = self.by_class.get(name)
        if lane is not None and lane.waits_for_trial:
            lane.trial_left = TRIAL

    def requeue(self, outgoing: Outgoing) -> None:
        """Puts a refused message back, after its pause."""
        if outgoing.lane is not None:
            outgoing.lane.requeue(outgoing)

    def withhold(self, outgoing: Outgoing) -> None:
        """Keeps a refused message from being sent, because it is going to be set aside."""
        if outgoing.lane is not None:
            outgoing.lane.paused.discard(outgoing)

    def blamed_message(self, topic: str) -> Outgoing | None:
        """The message that is withheld on a topic."""
        paused = (outgoing for lane in self.all() for outgoing in lane.paused)
        return next((outgoing for outgoing in paused if outgoing.message.topic == topic), None)

    def let_go(self, topic: str) -> None:
        """Withholds a topic no longer; what is paused on it goes when it is put back."""
        self._fence.withheld.discard(topic)

    def positions(self) -> Positions:
        """What may be saved now: a class that waits is saved together with the cursor that has passed it."""
        lanes = self.by_class.values()
        limits = [lane.closes_at for lane in lanes if lane.closes_at is not None and lane.rows]
        cursor = min([self.main.finished_seq, *limits])
        waiting = {
            lane.name: Waiting(lane.finished_seq, lane.count())
            for lane in lanes
            if lane.closes_at is None or lane.rows or cursor < lane.closes_at
        }
        return Positions(cursor, waiting)

    def pop_saved(self, positions: Positions) -> list[Outgoing]:
        """The messages that the positions, which are saved now, have passed; lanes that are done end."""
        saved = self.main.pop_saved(positions.cursor)
        for name, lane in list(self.by_class.items()):
            waiting = positions.waiting.get(name)
            saved += lane.pop_saved(positions.cursor if waiting is None else waiting.seq)
            if waiting is None and lane.closes_at is not None and not lane.rows and positions.cursor >= lane.closes_at:
                del self.by_class[name]
                self.main.accepted += lane.accepted
        return saved

    def skip_to(self, seq: int) -> None:
        """Lets the main lane begin after row `seq`."""
        self.main.finished_seq = self.main.read = self.main.saved_seq = seq

    def close_if_level(self, lane: Lane) -> None:
        """A lane that is as far as the main one, and in which nothing is refused, takes nothing more."""
        if lane.closes_at is None and lane.read == self.main.read and not (lane.rows and lane.has_refused()):
            lane.closes_at = lane.read
            lane.doubted = False
            lane.pop_finished_rows()

    def divert(self, name: str) -> Lane:
        """Takes what is under way of a class out of the main lane. What was finished of it there is done."""
        lane = self.by_class.get(name)
        if lane is None:
            lane = self.by_class[name] = Lane(name, self.main.finished_seq, self.main.read)
        elif lane.closes_at is None:
            return lane
        lane.closes_at = None
        lane.read = self.main.read
        moved: list[Outgoing] = []
        for row in self.main.rows:
            own = [outgoing for outgoing in row.messages if self.class_of(outgoing.message.topic) == name]
            if own:
                row.messages = [outgoing for outgoing in row.messages if outgoing not in own]
                self._move(own, row, lane)
                moved += own
        if moved:
            lane.ready += [entry for entry in self.main.ready if entry[2].lane is lane]
            self.main.ready = [entry for entry in self.main.ready if entry[2].lane is not lane]
            heapify(lane.ready)
            heapify(self.main.ready)
        for outgoing in moved:
            self._fence.let_next_go(outgoing)
        lane.pop_finished_rows()
        self.main.pop_finished_rows()
        return lane

    def _move(self, messages: list[Outgoing], row: OutgoingRow, lane: Lane) -> None:
        moved = OutgoingRow(row.seq, messages)
        for outgoing in messages:
            outgoing.row, outgoing.lane = moved, lane
            if outgoing.is_finished:
                self.main.unsaved -= 1
                lane.unsaved += 1
            else:
                row.unfinished -= 1
                moved.unfinished += 1
            if outgoing.in_flight:
                row.in_flight -= 1
                moved.in_flight += 1
                self.main.in_flight -= 1
                lane.in_flight += 1
        lane.rows.append(moved)
