"""The sliding window: a topic never goes back, nothing is lost, little is repeated, and nobody waits for ever."""

from collections import defaultdict

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.model.records import Message, Positions, Waiting
from oneweb_bridge.mqtt.lane import DOUBT, TRIAL, Outgoing
from oneweb_bridge.mqtt.window import MAX_REPEATED_MESSAGES, SendWindow, max_repeated


def message(topic: str, content: str = "x") -> Message:
    return Message(topic, content.encode(), retain=False)


def window_of(size: int, cursor: int = 0) -> SendWindow:
    """A window in which the class of a topic is what stands before its first digit."""
    return SendWindow(size, Positions(cursor), lambda topic: topic.rstrip("0123456789"))


def taken(window: SendWindow) -> list[Outgoing]:
    sent = []
    while (outgoing := window.next_to_send()) is not None:
        sent.append(outgoing)
    return sent


def topics(outgoings: list[Outgoing]) -> list[str]:
    return [outgoing.message.topic for outgoing in outgoings]


def test_window_sends_rows_in_order_up_to_its_size() -> None:
    """Messages go in the order of their rows, at most `size` of them at once."""
    window = window_of(2)
    for seq in (1, 2, 3):
        window.offer_row(seq, [message(f"t{seq}")])
    assert topics(taken(window)) == ["t1", "t2"]
    assert window.in_flight == 2


def test_stopped_rows_wait_and_other_messages_go() -> None:
    """At the end of a connection only what has no row is sent, and an answer makes no room for a row."""
    window = window_of(2)
    for seq in (1, 2, 3):
        window.offer_row(seq, [message(f"t{seq}")])
    in_flight = taken(window)
    window.stop_rows()
    window.offer_unjournaled(message("status"))
    for outgoing in in_flight:
        window.acknowledge(outgoing)
    assert topics(taken(window)) == ["status"]


def test_acknowledgement_makes_room_at_once() -> None:
    """There is no barrier: one answer lets the next message go."""
    window = window_of(2)
    for seq in (1, 2, 3):
        window.offer_row(seq, [message(f"t{seq}")])
    first, _ = taken(window)
    window.acknowledge(first)
    assert topics(taken(window)) == ["t3"]


def test_cursor_follows_the_longest_run_of_finished_rows() -> None:
    """The cursor may move over a row only when it and all before it were acknowledged, in whatever order."""
    window = window_of(9)
    for seq in (4, 7, 9):
        window.offer_row(seq, [message(f"a{seq}"), message(f"b{seq}")])
    outgoings = taken(window)
    for outgoing in (outgoings[2], outgoings[3], outgoings[0]):
        window.acknowledge(outgoing)
        assert window.finished_seq == 0
    window.acknowledge(outgoings[1])
    assert window.finished_seq == 7
    window.acknowledge(outgoings[4])
    window.acknowledge(outgoings[5])
    assert window.finished_seq == 9


def test_topic_waits_for_the_saved_cursor() -> None:
    """The next message of a topic goes only when the one before it is behind the saved cursor."""
    window = window_of(5)
    window.offer_row(1, [message("t", "1")])
    window.offer_row(2, [message("t", "2")])
    (first,) = taken(window)
    window.acknowledge(first)
    assert taken(window) == []
    window.on_saved(Positions(1))
    assert [outgoing.message.payload for outgoing in taken(window)] == [b"2"]


def test_row_without_messages_is_finished_with_those_before_it() -> None:
    """A row that says nothing moves the cursor, and nothing is sent for it."""
    window = window_of(5)
    window.offer_row(1, [])
    assert window.finished_seq == 1
    window.offer_row(2, [message("t")])
    window.offer_row(3, [])
    assert window.finished_seq == 1
    window.acknowledge(taken(window)[0])
    assert window.finished_seq == 3
    assert window.unfinished_rows == 0


def test_messages_of_a_row_go_in_their_order() -> None:
    """An event whose topic is busy holds back what it causes on other topics."""
    window = window_of(5)
    window.offer_row(1, [message("event", "1")])
    window.offer_row(2, [message("event", "2"), message("state", "2")])
    (first,) = taken(window)
    window.acknowledge(first)
    assert taken(window) == []
    window.on_saved(Positions(1))
    assert topics(taken(window)) == ["event", "state"]


def test_message_without_a_row_goes_first_and_is_heard_of() -> None:
    """A message that has no row goes before the journal, and its sender hears whether it was accepted."""
    window, answers = window_of(1), list[bool]()
    window.offer_row(1, [message("t")])
    window.offer_unjournaled(message("status"), answers.append)
    (outgoing,) = taken(window)
    assert outgoing.message.topic == "status"
    window.acknowledge(outgoing)
    assert answers == [True]
    assert window.finished_seq == 0
    assert topics(taken(window)) == ["t"]


def test_refused_message_without_a_row_is_heard_of_and_frees_its_topic() -> None:
    """A refusal tells the sender, and the next message of the topic goes."""
    window, answers = window_of(1), list[bool]()
    window.offer_unjournaled(message("t", "1"), answers.append)
    window.offer_unjournaled(message("t", "2"), answers.append)
    window.refuse(taken(window)[0])
    assert answers == [False]
    assert [outgoing.message.payload for outgoing in taken(window)] == [b"2"]


def test_refused_message_waits_in_a_lane_and_the_cursor_goes_on() -> None:
    """A refused message is not counted as delivered: its class has a position of its own, and the others pass."""
    window = window_of(3)
    window.offer_row(1, [message("bad1")])
    window.offer_row(2, [message("good1")])
    bad, good = taken(window)
    window.acknowledge(good)
    window.refuse(bad)
    assert window.positions() == Positions(2, {"bad": Waiting(0, 1)})
    window.lanes.requeue(bad)
    assert taken(window) == [bad]
    window.acknowledge(bad)
    assert window.positions() == Positions(2)
    window.on_saved(Positions(2))
    assert (window.state(), window.lanes.by_class) == ("idle", {})


def test_row_of_a_class_that_waits_follows_in_its_order() -> None:
    """What comes later of a class that waits is left to its lane, and read from the journal again for it."""
    window = window_of(9)
    window.offer_row(1, [message("bad1", "1")])
    (bad,) = taken(window)
    window.refuse(bad)
    window.offer_row(2, [message("bad1", "2"), message("good1")])
    (good,) = taken(window)
    assert good.message.topic == "good1"
    window.acknowledge(good)
    assert window.positions() == Positions(2, {"bad": Waiting(0, 2)})
    (lane,) = window.lanes.to_read(9)
    window.offer_to_lane("bad", lane.read + 1, [message("bad1", "2")])
    window.lanes.requeue(bad)
    window.acknowledge(taken(window)[0])
    assert window.positions() == Positions(2, {"bad": Waiting(1, 1)})
    window.on_saved(window.positions())
    assert [outgoing.message.payload for outgoing in taken(window)] == [b"2"]


def refuse_all(window: SendWindow) -> list[Outgoing]:
    outgoings = taken(window)
    for outgoing in outgoings:
        window.refuse(outgoing)
    return outgoings


def test_class_that_is_refused_as_a_whole_tries_one_and_another() -> None:
    """A trial is the oldest message, and where that is refused one other: the latest, which tells most."""
    window = window_of(20)
    for seq in range(1, 10):
        window.offer_row(seq, [message(f"bad{seq}")])
    window.offer_row(10, [message("good1")])
    refuse_all(window)
    assert taken(window) == []
    (lane, _) = window.lanes.by_class.values()
    assert (lane.doubted, lane.failed_trials, lane.waits_for_trial) == (True, 1, True)
    window.lanes.allow_trial("bad")
    (oldest,) = refuse_all(window)
    (latest,) = refuse_all(window)
    assert (oldest.seq, latest.seq, taken(window)) == (1, 9, [])
    assert (lane.failed_trials, lane.waits_for_trial) == (2, True)
    window.lanes.allow_trial("bad")
    window.acknowledge(taken(window)[0])
    assert [outgoing.seq for outgoing in taken(window)] == [2, 3, 4, 5, 6, 7, 8, 9]


def test_few_refusals_do_not_doubt_a_class() -> None:
    """Fewer than `DOUBT` refusals pause the refused alone, and others of the class pass."""
    window = window_of(20)
    for seq in range(1, DOUBT + 5):
        window.offer_row(seq, [message(f"t{seq}")])
    outgoings = taken(window)
    for outgoing in outgoings[: DOUBT - 1]:
        window.refuse(outgoing)
    for outgoing in outgoings[DOUBT - 1 :]:
        window.acknowledge(outgoing)
    assert all(outgoing.refused_alone for outgoing in outgoings[: DOUBT - 1])
    (lane,) = window.lanes.by_class.values()
    assert not lane.doubted


def test_refusals_of_a_whole_class_are_not_those_of_one_message() -> None:
    """Only refusals while others pass say something of the message itself."""
    window = window_of(20)
    for seq in range(1, 10):
        window.offer_row(seq, [message(f"t{seq}")])
    oldest, *_ = refuse_all(window)
    for _ in range(5):
        window.lanes.allow_trial("t")
        refuse_all(window)
        refuse_all(window)
    window.offer_to_lane("t", 10, [message("t10")])
    window.lanes.allow_trial("t")
    (retried,) = refuse_all(window)
    (latest,) = taken(window)
    window.acknowledge(latest)
    assert retried is oldest
    assert (oldest.tries > 5, oldest.refused_alone, oldest.tries_alone) == (True, True, 0)
    window.lanes.by_class["t"].requeue(oldest)
    for outgoing in taken(window):
        if outgoing is oldest:
            window.refuse(outgoing)
        else:
            window.acknowledge(outgoing)
    assert oldest.tries_alone == 1


def test_class_that_is_accepted_again_begins_anew() -> None:
    """Where a message passes that was refused before, the refusals of the others count no longer."""
    window = window_of(20)
    for seq in range(1, 10):
        window.offer_row(seq, [message(f"t{seq}")])
    outgoings = refuse_all(window)
    window.lanes.allow_trial("t")
    window.acknowledge(taken(window)[0])
    assert [outgoing.tries for outgoing in outgoings[1:]] == [0] * 8


def test_cursor_does_not_pass_the_place_of_a_closing_lane() -> None:
    """What goes through the main lane behind that place would be repeated after a crash, however much it is."""
    window = SendWindow(9, Positions(2, {"a": Waiting(0, 2)}), lambda topic: topic[0])
    window.offer_to_lane("a", 1, [message("a1")])
    window.acknowledge(taken(window)[0])
    window.offer_to_lane("a", 2, [message("a2")])
    window.offer_row(3, [message("a3")])
    for outgoing in taken(window):
        if outgoing.message.topic == "a3":
            window.acknowledge(outgoing)
    assert window.positions() == Positions(2, {"a": Waiting(1, 1)})


def test_class_begins_to_wait_again_before_it_is_level() -> None:
    """A class that is refused again while its lane is closing keeps everything, and the cursor does not lie."""
    window = window_of(20)
    window.offer_row(1, [message("a1", "1")])
    window.refuse(taken(window)[0])
    (lane,) = window.lanes.by_class.values()
    window.lanes.requeue(next(iter(lane.paused)))
    window.acknowledge(taken(window)[0])
    assert lane.closes_at == 1
    window.offer_row(2, [message("a2", "2")])
    window.refuse(taken(window)[0])
    assert window.positions() == Positions(2, {"a": Waiting(1, 1)})


def test_what_is_blamed_waits_and_others_of_its_class_pass() -> None:
    """A topic that broke connections is withheld until it is let go, also when its class does not wait yet."""
    window = SendWindow(9, Positions(0), lambda topic: topic[0], {"t1": 3})
    for seq in (1, 2):
        window.offer_row(seq, [message(f"t{seq}")])
        for lane in window.lanes.to_read(9):
            window.offer_to_lane("t", lane.read + 1, [message(f"t{lane.read + 1}")])
    (other,) = taken(window)
    assert other.message.topic == "t2"
    window.acknowledge(other)
    window.lanes.let_go("t1")
    outgoing = window.lanes.blamed_message("t1")
    assert outgoing is not None
    assert (outgoing.tries, outgoing.refused_alone) == (3, True)
    window.lanes.requeue(outgoing)
    assert taken(window) == [outgoing]


def test_state_says_what_is_left() -> None:
    """Busy while something is under way, unsaved while only the cursor is behind, and then idle."""
    window = window_of(1)
    assert window.state() == "idle"
    window.offer_row(1, [message("t")])
    assert window.state() == "busy"
    window.acknowledge(taken(window)[0])
    assert window.state() == "unsaved"
    window.on_saved(Positions(1))
    assert window.state() == "idle"


def test_cursor_is_awaited_by_a_topic_with_a_next_message() -> None:
    """Of two messages on one topic the second waits for the cursor, also when it is offered later; others do not."""
    for is_offered_later in (False, True):
        window = window_of(5)
        window.offer_row(1, [message("t", "1")])
        if not is_offered_later:
            window.offer_row(2, [message("t", "2")])
        window.acknowledge(taken(window)[0])
        assert window.is_cursor_awaited() is not is_offered_later
        if is_offered_later:
            window.offer_row(2, [message("t", "2")])
            assert window.is_cursor_awaited()
        window.on_saved(Positions(1))
        assert not window.is_cursor_awaited()


def test_cursor_is_not_awaited_where_writing_it_would_help_nobody() -> None:
    """A topic that waits behind an unfinished row of others is not helped by a cursor that cannot pass it."""
    window = window_of(5)
    for seq, topic in enumerate(("first", "slow", "t", "t"), 1):
        window.offer_row(seq, [message(topic, str(seq))])
    first, slow, third = taken(window)
    window.acknowledge(first)
    window.acknowledge(third)
    assert window.has_moved()
    assert not window.is_cursor_awaited()
    window.acknowledge(slow)
    assert window.is_cursor_awaited()


@pytest.mark.parametrize(("size", "room"), [(20, 90), (100, 50), (500, 1)])
def test_cursor_is_awaited_before_the_window_is_blocked(size: int, room: int) -> None:
    """It is written while messages flow: when half of what may be acknowledged beyond it is."""
    window = window_of(size)
    for seq in range(1, 300):
        window.offer_row(seq, [message(f"t{seq}")])
    in_flight: list[Outgoing] = []
    for _ in range(room):
        assert not window.is_cursor_awaited()
        in_flight += taken(window)
        window.acknowledge(in_flight.pop(0))
    assert window.is_cursor_awaited()


def test_window_that_skips_begins_after_that_row() -> None:
    """What another process has published is finished, and topics behind it are free."""
    window = window_of(5, cursor=10)
    window.skip_to(40)
    assert (window.finished_seq, window.saved, window.state()) == (40, Positions(40), "idle")
    window.offer_row(41, [message("t")])
    window.acknowledge(taken(window)[0])
    assert window.positions() == Positions(41)


def test_acknowledged_reach_is_bounded() -> None:
    """Without a commit, no more than MAX_REPEATED_MESSAGES are sent ahead, so that a crash repeats no more."""
    window = window_of(3)
    for seq in range(1, 400):
        window.offer_row(seq, [message(f"t{seq}")])
    sent = 0
    while outgoings := taken(window):
        sent += len(outgoings)
        for outgoing in outgoings[::-1]:
            window.acknowledge(outgoing)
    assert sent == MAX_REPEATED_MESSAGES


def test_room_is_kept_for_what_earlier_rows_have_left() -> None:
    """A row of several messages waits with the first for the cursor; what follows it leaves room for all of them."""
    window = SendWindow(20, Positions(0), lambda _: "", max_repeated=40)
    window.offer_row(1, [message("a"), message("b")])
    window.offer_row(2, [message(topic) for topic in "bcdefghij"])
    for seq in range(3, 99):
        window.offer_row(seq, [message(f"t{seq}")])
    slow, unsaved = window.next_to_send(), 0
    assert slow is not None
    while others := taken(window):
        for outgoing in others:
            window.acknowledge(outgoing)
        unsaved += len(others)
    assert unsaved == 40 - 1 - 9
    window.acknowledge(slow)
    window.on_saved(Positions(1))
    unsaved -= 1
    while others := taken(window):
        for outgoing in others:
            window.acknowledge(outgoing)
        unsaved += len(others)
        if window.saved != window.positions():
            break
    assert unsaved == 40


@pytest.mark.parametrize(("size", "count"), [(1, 2), (3, 6), (20, 40), (100, 200), (1000, 200)])
def test_where_others_take_over_at_most_two_windows_come_again(size: int, count: int) -> None:
    """Never more than without a lease."""
    assert max_repeated(size, is_leased=True) == count
    assert max_repeated(size, is_leased=False) == MAX_REPEATED_MESSAGES


def test_what_the_head_does_not_say_counts_as_repeated() -> None:
    """Retained messages behind the cursor wait for the broker's head, which a crash would make them come again by."""
    window = window_of(20)
    window.behind_head.on_head(0)
    for seq in range(1, 400):
        window.offer_row(seq, [Message(f"a{seq}", b"x", retain=True), message(f"b{seq}")])

    def send_all() -> int:
        """Until the window is full: everything is acknowledged, and the cursor is saved behind it."""
        sent = 0
        while outgoings := taken(window):
            for outgoing in outgoings:
                window.acknowledge(outgoing)
            sent += len(outgoings)
            window.on_saved(window.positions())
        return sent

    first = send_all()
    assert MAX_REPEATED_MESSAGES - 20 < len(window.behind_head) <= MAX_REPEATED_MESSAGES
    assert 2 * MAX_REPEATED_MESSAGES - 40 < first < 2 * MAX_REPEATED_MESSAGES + 40
    window.behind_head.on_head(window.saved.cursor)
    assert len(window.behind_head) == 0
    assert send_all() >= 2 * MAX_REPEATED_MESSAGES - 40
    window.behind_head.on_head(None)
    assert send_all() > 0
    assert window.state() == "idle"


@pytest.mark.parametrize("size", [1, 2, 20])
@pytest.mark.parametrize("count", range(1, 13))
def test_row_of_many_messages_passes_any_window(size: int, count: int) -> None:
    """A row of up to twelve messages, also on one topic of another row, goes through a window of any size."""
    window, sent = window_of(size), 0
    for seq in (1, 2, 3):
        window.offer_row(seq, [message(f"t{n}") for n in range(count)])
    for _ in range(200):
        outgoings = taken(window)
        sent += len(outgoings)
        for outgoing in outgoings:
            window.acknowledge(outgoing)
        if not outgoings and window.state() != "idle":
            assert window.finished_seq > 0
            window.on_saved(Positions(window.finished_seq))
    assert (sent, window.state()) == (3 * count, "idle")


def test_commit_frees_only_what_is_behind_the_cursor() -> None:
    """What was acknowledged while an older cursor was being written waits for the next one."""
    window = window_of(5)
    for seq, topic in enumerate("abab", 1):
        window.offer_row(seq, [message(topic, str(seq))])
    first, second = taken(window)
    window.acknowledge(first)
    window.acknowledge(second)
    window.on_saved(Positions(1))
    assert [outgoing.message.payload for outgoing in taken(window)] == [b"3"]


# --- any interleaving, with losses ----------------------------------------------------------------

ROWS = st.lists(
    st.lists(st.integers(0, 4), max_size=4, unique=True)
    | st.lists(st.integers(0, 12), min_size=1, max_size=12, unique=True),
    min_size=1,
    max_size=12,
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("offer", "take", "take", "ack", "ack", "write", "commit", "refuse", "loose", "lose"),
                *("deny", "allow", "retry", "read", "give up"),
            ]
        ),
        st.integers(0, 30),
    ),
    max_size=80,
)
CLASSES = "abc"


def topic_of(number: int) -> str:
    return f"{CLASSES[number % 3]}{number}"


class Bridge:
    """A journal, saved positions, and one window after another, with a broker that notes all it is sent."""

    def __init__(self, rows: list[list[int]], size: int) -> None:
        self.rows = rows
        self.size = size
        self.saved = Positions(0)
        self.delivered: dict[str, list[int]] = defaultdict(list)
        self.answered: set[tuple[int, str]] = set()
        self.given_up: set[tuple[int, str]] = set()
        self.denied: set[str] = set()
        self.repeats = 0
        self.losses = 0
        self.connect()

    def connect(self) -> None:
        self.window = SendWindow(self.size, self.saved, lambda topic: topic[0], max_repeated=2 * self.size)
        self.at = self.saved.cursor
        self.written = self.saved
        self.flying: list[Outgoing] = []
        self.answers: list[bool] = []

    def messages(self, seq: int) -> list[Message]:
        return [message(topic_of(number), str(seq)) for number in self.rows[seq - 1]]

    def offer(self) -> None:
        if self.at < len(self.rows):
            self.at += 1
            self.window.offer_row(self.at, self.messages(self.at))

    def read(self, most: int = 9) -> None:
        """The classes that wait are read on, a row each."""
        for lane in self.window.lanes.to_read(most):
            seq = lane.read + 1
            own = [own_message for own_message in self.messages(seq) if own_message.topic[0] == lane.name]
            self.window.offer_to_lane(lane.name, seq, own)

    def take(self) -> bool:
        outgoing = self.window.next_to_send()
        if outgoing is None:
            return False
        self.flying.append(outgoing)
        assert self.window.in_flight == len(self.flying) <= self.size
        if outgoing.seq:
            self.broker_has(outgoing)
        return True

    def broker_has(self, outgoing: Outgoing) -> None:
        """The worst broker keeps a message the moment that it is sent, also when its answer is lost."""
        if outgoing.message.topic[0] in self.denied:
            return
        numbers = self.delivered[outgoing.message.topic]
        self.repeats += outgoing.seq in numbers and outgoing.tries == 0
        numbers.append(outgoing.seq)

    def answer(self, at: int, *, accepted: bool) -> None:
        if not self.flying:
            return
        outgoing = self.flying.pop(at % len(self.flying))
        delivered = outgoing.seq in self.delivered[outgoing.message.topic] or not outgoing.seq
        if accepted and delivered:
            self.window.acknowledge(outgoing)
            self.answered.add((outgoing.seq, outgoing.message.topic))
        else:
            self.window.refuse(outgoing)

    def retry(self) -> None:
        """Pauses are over: refused messages, and one trial of each class that is refused as a whole."""
        for lane in list(self.window.lanes.by_class.values()):
            for outgoing in list(lane.paused):
                self.window.lanes.requeue(outgoing)
            self.window.lanes.allow_trial(lane.name)

    def set_aside(self) -> None:
        """One that was refused while others of its class passed is set aside."""
        for lane in list(self.window.lanes.by_class.values()):
            for outgoing in [outgoing for outgoing in lane.paused if outgoing.refused_alone]:
                self.window.lanes.withhold(outgoing)
                self.window.set_aside(outgoing)
                self.given_up.add((outgoing.seq, outgoing.message.topic))

    def write(self) -> None:
        """The positions are being saved: they are on the disk now, and the window hears of it later."""
        before, self.saved = self.saved, self.window.positions()
        assert self.saved.cursor >= before.cursor
        self.judge()

    def judge(self) -> None:
        """No position is behind what was neither acknowledged nor set aside."""
        for seq, numbers in enumerate(self.rows, 1):
            for topic in map(topic_of, numbers):
                waiting = self.saved.waiting.get(topic[0])
                behind = self.saved.cursor if waiting is None else waiting.seq
                assert seq > behind or (seq, topic) in self.answered | self.given_up, (seq, topic, self.saved)

    def commit(self) -> None:
        self.window.on_saved(self.saved)

    def step(self, what: str, at: int) -> None:
        if what in ("ack", "refuse"):
            self.answer(at, accepted=what == "ack")
        elif what in ("offer", "take", "write", "commit", "retry", "read"):
            getattr(self, what)()
        elif what == "give up":
            self.set_aside()
        elif what == "loose":
            self.window.offer_unjournaled(message(topic_of(at % 13), "loose"), self.answers.append)
        elif what == "deny":
            self.denied.add(CLASSES[at % 3])
        elif what == "allow":
            self.denied.clear()
        else:
            self.losses += 1
            self.connect()

    def finish(self) -> None:
        """Everything goes on without a fault; it must come to an end, and nothing may wait any more."""
        self.denied.clear()
        for _ in range(3000):
            self.offer()
            self.read()
            moved = self.take()
            if not moved:
                self.answer(0, accepted=True)
            if self.at == len(self.rows) and self.window.state() == "idle" and not self.window.lanes:
                assert self.saved == Positions(len(self.rows))
                return
            if not moved and not self.flying:
                self.retry()
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
    for numbers in bridge.delivered.values():
        assert numbers == sorted(numbers)


@hypothesis.settings(max_examples=400)
@given(ROWS, st.integers(1, 5), STEPS)
def test_every_row_is_delivered_and_little_is_repeated(
    rows: list[list[int]], size: int, steps: list[tuple[str, int]]
) -> None:
    """Everything arrives; each loss repeats at most the reach and one long row of each lane; nothing is left out."""
    bridge = Bridge(rows, size)
    for what, at in steps:
        bridge.step(what, at)
    bridge.finish()
    expected = {(seq, topic_of(number)) for seq, row in enumerate(rows, 1) for number in row}
    delivered = {(seq, topic) for topic, numbers in bridge.delivered.items() for seq in numbers}
    assert delivered | bridge.given_up == expected
    longest = max(len(row) for row in rows)
    assert bridge.repeats <= bridge.losses * (2 * size + (longest + TRIAL) * (len(CLASSES) + 1))


@given(ROWS)
def test_without_a_loss_nothing_is_sent_twice(rows: list[list[int]]) -> None:
    """On one connection that stays, every message is sent exactly once."""
    bridge = Bridge(rows, 1)
    bridge.finish()
    assert bridge.repeats == 0
    assert sum(len(numbers) for numbers in bridge.delivered.values()) == sum(len(row) for row in rows)
