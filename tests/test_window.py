"""The sliding window: a topic never goes back, nothing is lost, little is repeated, and nobody waits for ever."""

from collections import defaultdict

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.model import Message
from oneweb_bridge.window import REACH, Slip, Window


def message(topic: str, said: str = "x") -> Message:
    return Message(topic, said.encode(), retain=False)


def taken(window: Window) -> list[Slip]:
    found = []
    while (slip := window.take()) is not None:
        found.append(slip)
    return found


def topics(slips: list[Slip]) -> list[str]:
    return [slip.message.topic for slip in slips]


def test_window_sends_rows_in_order_up_to_its_size() -> None:
    """Messages go in the order of their rows, at most `size` of them at once."""
    window = Window(2, 0)
    for seq in (1, 2, 3):
        window.offer(seq, [message(f"t{seq}")])
    assert topics(taken(window)) == ["t1", "t2"]
    assert window.in_flight == 2


def test_acknowledgement_makes_room_at_once() -> None:
    """There is no barrier: one answer lets the next message go."""
    window = Window(2, 0)
    for seq in (1, 2, 3):
        window.offer(seq, [message(f"t{seq}")])
    first, _ = taken(window)
    window.acknowledge(first)
    assert topics(taken(window)) == ["t3"]


def test_cursor_follows_the_longest_run_of_finished_rows() -> None:
    """The cursor may move over a row only when it and all before it were acknowledged, in whatever order."""
    window = Window(9, 0)
    for seq in (4, 7, 9):
        window.offer(seq, [message(f"a{seq}"), message(f"b{seq}")])
    slips = taken(window)
    for slip in (slips[2], slips[3], slips[0]):
        window.acknowledge(slip)
        assert window.prefix == 0
    window.acknowledge(slips[1])
    assert window.prefix == 7
    window.acknowledge(slips[4])
    window.acknowledge(slips[5])
    assert window.prefix == 9


def test_topic_waits_for_the_durable_cursor() -> None:
    """The next message of a topic goes only when the one before it is behind the durable cursor."""
    window = Window(5, 0)
    window.offer(1, [message("t", "1")])
    window.offer(2, [message("t", "2")])
    (first,) = taken(window)
    window.acknowledge(first)
    assert taken(window) == []
    window.committed(1)
    assert [slip.message.payload for slip in taken(window)] == [b"2"]


def test_row_without_messages_is_finished_with_those_before_it() -> None:
    """A row that says nothing moves the cursor, and nothing is sent for it."""
    window = Window(5, 0)
    window.offer(1, [])
    assert window.prefix == 1
    window.offer(2, [message("t")])
    window.offer(3, [])
    assert window.prefix == 1
    window.acknowledge(taken(window)[0])
    assert window.prefix == 3
    assert window.rows == 0


def test_messages_of_a_row_go_in_their_order() -> None:
    """An event whose topic is busy holds back what it causes on other topics."""
    window = Window(5, 0)
    window.offer(1, [message("event", "1")])
    window.offer(2, [message("event", "2"), message("state", "2")])
    (first,) = taken(window)
    window.acknowledge(first)
    assert taken(window) == []
    window.committed(1)
    assert topics(taken(window)) == ["event", "state"]


def test_message_without_a_row_goes_first_and_is_heard_of() -> None:
    """A message that has no row goes before the journal, and its sender hears whether it was accepted."""
    window, heard = Window(1, 0), list[bool]()
    window.offer(1, [message("t")])
    window.offer_loose(message("status"), heard.append)
    (slip,) = taken(window)
    assert slip.message.topic == "status"
    window.acknowledge(slip)
    assert heard == [True]
    assert window.prefix == 0
    assert topics(taken(window)) == ["t"]


def test_refused_message_without_a_row_is_heard_of_and_frees_its_topic() -> None:
    """A refusal tells the sender, and the next message of the topic goes."""
    window, heard = Window(1, 0), list[bool]()
    window.offer_loose(message("t", "1"), heard.append)
    window.offer_loose(message("t", "2"), heard.append)
    window.refuse(taken(window)[0])
    assert heard == [False]
    assert [slip.message.payload for slip in taken(window)] == [b"2"]


def test_refused_row_holds_the_cursor_until_it_is_given_up() -> None:
    """A refused message is not counted as delivered: it comes again, and the cursor passes it only when set aside."""
    window = Window(3, 0)
    window.offer(1, [message("bad")])
    window.offer(2, [message("good")])
    bad, good = taken(window)
    window.acknowledge(good)
    window.refuse(bad)
    assert (window.prefix, bad.tries) == (0, 1)
    window.again(bad)
    assert taken(window) == [bad]
    window.refuse(bad)
    window.give_up(bad)
    assert (window.prefix, window.state()) == (2, "uncommitted")
    window.committed(2)
    assert window.state() == "idle"


def test_state_says_what_is_left() -> None:
    """Busy while something is under way, uncommitted while only the cursor is behind, and then idle."""
    window = Window(1, 0)
    assert window.state() == "idle"
    window.offer(1, [message("t")])
    assert window.state() == "busy"
    window.acknowledge(taken(window)[0])
    assert window.state() == "uncommitted"
    window.committed(1)
    assert window.state() == "idle"


def test_acknowledged_reach_is_bounded() -> None:
    """Without a commit, no more than `REACH` windows are sent ahead, so that a crash repeats little."""
    window = Window(3, 0)
    for seq in range(1, 50):
        window.offer(seq, [message(f"t{seq}")])
    sent = 0
    while slips := taken(window):
        sent += len(slips)
        for slip in slips[::-1]:
            window.acknowledge(slip)
    assert sent == 3 * REACH


@pytest.mark.parametrize("size", [1, 2, 20])
@pytest.mark.parametrize("count", range(1, 13))
def test_row_of_many_messages_passes_any_window(size: int, count: int) -> None:
    """A row of up to twelve messages, also on one topic of another row, goes through a window of any size."""
    window, sent = Window(size, 0), 0
    for seq in (1, 2, 3):
        window.offer(seq, [message(f"t{n}") for n in range(count)])
    for _ in range(200):
        slips = taken(window)
        sent += len(slips)
        for slip in slips:
            window.acknowledge(slip)
        if not slips and window.state() != "idle":
            assert window.prefix > 0
            window.committed(window.prefix)
    assert (sent, window.state()) == (3 * count, "idle")


def test_commit_frees_only_what_is_behind_the_cursor() -> None:
    """What was acknowledged while an older cursor was being written waits for the next one."""
    window = Window(5, 0)
    for seq, topic in enumerate("abab", 1):
        window.offer(seq, [message(topic, str(seq))])
    first, second = taken(window)
    window.acknowledge(first)
    window.acknowledge(second)
    window.committed(1)
    assert [slip.message.payload for slip in taken(window)] == [b"3"]


# --- any interleaving, with losses ----------------------------------------------------------------

ROWS = st.lists(
    st.lists(st.integers(0, 4), max_size=4, unique=True)
    | st.lists(st.integers(0, 12), min_size=1, max_size=12, unique=True),
    min_size=1,
    max_size=12,
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["offer", "take", "take", "ack", "ack", "write", "commit", "refuse", "loose", "lose"]),
        st.integers(0, 30),
    ),
    max_size=80,
)


class Bridge:
    """A journal, a durable cursor, and one window after another, with a broker that notes all it is sent."""

    def __init__(self, rows: list[list[int]], size: int) -> None:
        self.rows = rows
        self.size = size
        self.durable = 0
        self.delivered: dict[str, list[int]] = defaultdict(list)
        self.repeats = 0
        self.losses = 0
        self.connect()

    def connect(self) -> None:
        self.window = Window(self.size, self.durable)
        self.at = self.durable
        self.flying: list[Slip] = []
        self.heard: list[bool] = []

    def offer(self) -> None:
        if self.at < len(self.rows):
            self.at += 1
            self.window.offer(self.at, [message(f"t{topic}", str(self.at)) for topic in self.rows[self.at - 1]])

    def take(self) -> bool:
        slip = self.window.take()
        if slip is None:
            return False
        self.flying.append(slip)
        assert self.window.in_flight == len(self.flying) <= self.size
        if slip.seq:
            self.broker_has(slip)
        return True

    def broker_has(self, slip: Slip) -> None:
        """The worst broker keeps a message the moment that it is sent, also when its answer is lost."""
        said = self.delivered[slip.message.topic]
        self.repeats += slip.seq in said and slip.tries == 0
        said.append(slip.seq)

    def answer(self, at: int, *, accepted: bool) -> None:
        if not self.flying:
            return
        slip = self.flying.pop(at % len(self.flying))
        if accepted:
            self.window.acknowledge(slip)
        else:
            self.window.refuse(slip)
            if slip.seq:
                self.window.again(slip)

    def write(self) -> None:
        """The cursor is being written: it is durable now, and the window hears of it later."""
        assert self.window.prefix >= self.durable
        self.durable = self.window.prefix

    def commit(self) -> None:
        self.window.committed(self.durable)

    def step(self, what: str, at: int) -> None:
        if what == "offer":
            self.offer()
        elif what == "take":
            self.take()
        elif what in ("ack", "refuse"):
            self.answer(at, accepted=what == "ack")
        elif what in ("write", "commit"):
            getattr(self, what)()
        elif what == "loose":
            self.window.offer_loose(message(f"t{at % 13}", "loose"), self.heard.append)
        else:
            self.losses += 1
            self.connect()

    def finish(self) -> None:
        """Everything goes on without a fault; it must come to an end."""
        for _ in range(2000):
            self.offer()
            moved = self.take()
            if not moved:
                self.answer(0, accepted=True)
            if self.at == len(self.rows) and self.window.state() == "idle":
                return
            if not moved and not self.flying:
                self.write()
                self.commit()
        raise AssertionError("the window is stuck")


@hypothesis.settings(max_examples=400)
@given(ROWS, st.integers(1, 5), STEPS)
def test_topic_never_goes_back(rows: list[list[int]], size: int, steps: list[tuple[str, int]]) -> None:
    """In any interleaving with losses, a topic may repeat what it said, but never say less than before."""
    bridge = Bridge(rows, size)
    for what, at in steps:
        bridge.step(what, at)
    bridge.finish()
    for said in bridge.delivered.values():
        assert said == sorted(said)


@hypothesis.settings(max_examples=400)
@given(ROWS, st.integers(1, 5), STEPS)
def test_every_row_is_delivered_and_little_is_repeated(
    rows: list[list[int]], size: int, steps: list[tuple[str, int]]
) -> None:
    """Everything arrives; each loss repeats at most the reach and one long row; the cursor ends behind all."""
    bridge = Bridge(rows, size)
    for what, at in steps:
        bridge.step(what, at)
    bridge.finish()
    expected = {f"t{topic}": {seq for seq, row in enumerate(rows, 1) if topic in row} for row in rows for topic in row}
    assert {topic: set(said) for topic, said in bridge.delivered.items()} == expected
    assert bridge.durable == len(rows)
    longest = max(len(row) for row in rows)
    assert bridge.repeats <= bridge.losses * (size * REACH + longest)


@given(ROWS)
def test_without_a_loss_nothing_is_sent_twice(rows: list[list[int]]) -> None:
    """On one connection that stays, every message is sent exactly once."""
    bridge = Bridge(rows, 1)
    bridge.finish()
    assert bridge.repeats == 0
    assert sum(len(said) for said in bridge.delivered.values()) == sum(len(row) for row in rows)
