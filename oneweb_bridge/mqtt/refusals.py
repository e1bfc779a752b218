"""What becomes of messages that the broker refuses: tried again, set aside, waiting as a class, or owed.

The window decides which message goes when (see window.py); here are the pauses, the alerts and what is noted
durably. A row that was set aside is given up, but for what it left unsaid on a retained topic: that topic is
owed, over restarts too, and is tried again, with growing pauses and at each connect. What is sent then is what it
should say by then; a newer row that is accepted settles it as well.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from oneweb_bridge.model.records import Debt, Message
from oneweb_bridge.mqtt.resend import Retained, pay
from oneweb_bridge.mqtt.suspects import Suspects
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.mqtt.window import Lane, Outgoing, SendWindow
from oneweb_bridge.store.journal import PAGE_ROWS, Journal

_log = logging.getLogger("oneweb_bridge.publisher")

TRIES = 5
"""How often a message may be refused, while others of its class are accepted, before its row is set aside."""
BREAKS = 3
"""How many connections a message may break, while others of its class are accepted, before its row is set aside."""
FIRST_RETRY = 0.1
"""Seconds before a refused message is tried again; each further pause is twice as long, up to LONGEST_RETRY."""
LONGEST_RETRY = 30.0
TOLD_AFTER = 3
"""Trials of a class that must fail before an alert tells that the broker refuses it."""
FIRST_PAYMENT = 1.0
"""Seconds before a topic that is owed is tried again; each further pause is twice as long, up to LONGEST_PAYMENT."""
LONGEST_PAYMENT = 60.0
PAID_AT_ONCE = 20
"""Topics that are owed and tried at a time; where none of them is accepted, the others wait too."""
HELD = 1000
"""Rows of a class that waits that may be held in memory."""


class Connection(Protocol):
    """What is needed of the session. `pausing` keeps the journal from being read on."""

    pausing: asyncio.Lock

    def send(self, message: Message, done: Callable[[bool], None]) -> None:
        """Sends a message without a row; `done` hears whether the broker accepted it."""

    def pump(self) -> None:
        """Sends whatever may be sent now."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Does some work beside everything else. Its failure ends the connection."""

    def too_large(self, message: Message) -> str | None:
        """Why a message may not be sent."""

    async def next_answer(self) -> None:
        """Waits until there is room, or a second is over."""

    async def alert(self, kind: str, sentence: str, *, about: str) -> None:
        """Tells an operator of something about a topic, or a class of topics."""

    async def restore_dropped(self) -> None:
        """Brings the topics of rows that were dropped meanwhile to what they should say."""

    def note(self) -> None:
        """There is something to be noted durably."""


class Refusals:
    """Of one connection."""

    def __init__(
        self, connection: Connection, window: SendWindow, journal: Journal, tree: TopicTree, suspects: Suspects
    ) -> None:
        self._connection = connection
        self._window = window
        self._journal = journal
        self._tree = tree
        self._suspects = suspects
        self._owed: set[str] = set()
        self.paid: set[str] = set()
        """Topics that are owed no longer, until that is noted durably."""
        self._given_up: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._new_debt = asyncio.Event()
        self._feeding = False

    async def load(self) -> None:
        """Reads what is owed, and begins with the classes that wait."""
        while debts := await self._journal.owed(PAGE_ROWS, self._owed):
            self._owed.update(debt.topic for debt in debts)
        for topic, blame in self._suspects.blamed.items():
            self._connection.spawn(self._see_to_blamed(topic, blame.until), "mqtt blamed")
        if self._window.lanes:
            self.feed()

    # ── refused and accepted ───────────────────────────────────────────────────────────────────

    def refused(self, slip: Outgoing, reason: str) -> None:
        """A message of a row was refused, and the window knows."""
        lane = slip.lane
        if lane is None:
            return
        self._reasons[lane.name] = reason
        self.feed()
        if not lane.doubted:
            self._connection.spawn(self._retry(slip, lane, reason), f"mqtt retry {slip.seq}")
        elif lane.waits_for_trial:
            self._connection.spawn(self._try_class(lane), f"mqtt trial {lane.name}")

    def accepted(self, message: Message) -> None:
        """A message was accepted: if its topic was owed, it is not any more."""
        self._given_up.discard(message.topic)
        if message.retain and message.topic in self._owed:
            self._owed.discard(message.topic)
            self.paid.add(message.topic)
            self._connection.note()

    def doubt_ended(self, lane: Lane) -> None:
        """One of a class that was refused as a whole was accepted."""
        self._connection.spawn(self._tell_over(lane), f"mqtt over {lane.name}")

    async def _retry(self, slip: Outgoing, lane: Lane, reason: str) -> None:
        """Gives a refused message another chance; sets it aside when others of its class pass and it never does."""
        await asyncio.sleep(min(FIRST_RETRY * 2.0**slip.tries, LONGEST_RETRY))
        if slip not in lane.paused:
            return
        # A topic that was given up before need not be tried as often again, as long as it is refused.
        tries = 1 if slip.message.topic in self._given_up or slip.message.topic in self._owed else TRIES
        if slip.refused_alone and slip.tries >= tries:
            await self._give_up(slip, reason)
        else:
            self._window.again(slip)
            self._connection.pump()

    async def _see_to_blamed(self, topic: str, until: float) -> None:
        """Sets aside what broke connections again and again while others of its class pass, or tries it again."""
        while time.monotonic() < until:
            slip = self._window.blamed_slip(topic)
            if slip is None or slip.tries < BREAKS or not slip.refused_alone:
                await self._connection.next_answer()
            else:
                await self._give_up(slip, "the connection broke each time")
        slip = self._window.blamed_slip(topic)
        self._window.let_go(topic)
        if slip is not None:
            self._window.again(slip)
        self._connection.pump()

    async def _give_up(self, slip: Outgoing, reason: str) -> None:
        self._window.withhold(slip)
        await self.set_aside(slip.seq, slip.message, reason)
        self._window.set_aside(slip)
        self._connection.note()
        self._connection.pump()

    async def set_aside(self, seq: int, message: Message, reason: str) -> None:
        """Notes a row that is given up, and that its retained topic is owed."""
        self._given_up.add(message.topic)
        await self._journal.set_aside(seq, message.topic, reason)
        if message.retain and (rows := await self._journal.after(seq - 1, 1)):
            await self._owe(Debt(message.topic, rows[0].id, rows[0].name), reason)
        sentence = f"row {seq} on {message.topic} was set aside: {reason}"
        await self._connection.alert("row_set_aside", sentence, about=message.topic)

    # ── classes that wait ──────────────────────────────────────────────────────────────────────

    async def _try_class(self, lane: Lane) -> None:
        """After a growing pause, lets one of a class that is refused as a whole go, to see whether it still is."""
        wait = min(FIRST_RETRY * 2.0**lane.rounds, LONGEST_RETRY)
        if lane.rounds >= TOLD_AFTER and await self._journal.mark_told(lane.name, told=True):
            reason = self._reasons.get(lane.name, "refused")
            await self._connection.alert(
                "topics_refused",
                f"the broker refuses all messages on {lane.name} ({reason}): they wait up to state.max_backlog; "
                "let this user write there in the broker's access rules",
                about=lane.name,
            )
        await asyncio.sleep(wait)
        self._window.try_lane(lane.name)
        self._connection.pump()

    async def _tell_over(self, lane: Lane) -> None:
        if await self._journal.mark_told(lane.name, told=False):
            sentence = f"the broker accepts messages on {lane.name} again: about {lane.count()} that waited follow"
            await self._connection.alert("topics_accepted", sentence, about=lane.name)

    def feed(self) -> None:
        """Sees to it that the classes that wait are read on."""
        if not self._feeding:
            self._feeding = True
            self._connection.spawn(self._read_lanes(), "mqtt classes")

    async def _read_lanes(self) -> None:
        """Reads on for classes that are behind the main cursor, until there is none."""
        while self._window.lanes:
            async with self._connection.pausing:
                for lane in self._window.lanes_to_read(HELD - PAGE_ROWS):
                    await self._read_lane(lane)
            self._connection.note()
            self._connection.pump()
            if not self._window.lanes_to_read(HELD - PAGE_ROWS):
                await self._connection.next_answer()
        self._feeding = False
        await self._connection.restore_dropped()

    async def _read_lane(self, lane: Lane) -> None:
        for row in await self._journal.after(lane.read, PAGE_ROWS):
            if lane.closing is not None or self._window.is_level(lane):
                return
            messages = [m for m in self._tree.messages(row) if self._tree.class_of(m.topic) == lane.name]
            self._window.offer_to_lane(lane.name, row.seq, await self.fitting(row.seq, messages))

    async def fitting(self, seq: int, messages: list[Message]) -> list[Message]:
        """Those messages of a row that are not too large. The others are set aside, unless a lane will see to them."""
        found = []
        for message in messages:
            reason = self._connection.too_large(message)
            if reason is None:
                found.append(message)
            else:
                await self.set_aside(seq, message, reason)
        return found

    # ── what is owed ───────────────────────────────────────────────────────────────────────────

    async def _owe(self, debt: Debt, reason: str) -> bool:
        self.paid.discard(debt.topic)
        self._owed.add(debt.topic)
        self._new_debt.set()
        return await self._journal.owe(debt, reason)

    async def restore(self, retained: Retained) -> bool:
        """Sends what was retained again; where that cannot be, it is owed. Returns whether it was sent."""
        reason = self._connection.too_large(retained.message)
        if reason is None and self._suspects.waits(retained.message.topic, time.monotonic()):
            reason = "it broke the connection before"
        if reason is not None:
            topic = retained.message.topic
            if await self._owe(retained.debt(), reason):
                sentence = f"{topic} could not be published again, and is tried later: {reason}"
                await self._connection.alert("topic_owed", sentence, about=topic)
            return False
        self._connection.send(retained.message, lambda accepted: self._restored(retained, accepted))
        return True

    def _restored(self, retained: Retained, accepted: bool) -> None:
        if accepted:
            self.accepted(retained.message)
        else:
            work = self._owe_refused(retained)
            self._connection.spawn(work, "mqtt owed")

    async def _owe_refused(self, retained: Retained) -> None:
        await self._owe(retained.debt(), "the broker refused it")

    async def keep_paying(self) -> None:
        """Tries again what is owed, with growing pauses. Never returns."""
        wait = FIRST_PAYMENT
        while True:
            self._new_debt.clear()
            if self._owed:
                wait = FIRST_PAYMENT if await self._pay() else min(wait * 2, LONGEST_PAYMENT)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait if self._owed else None):
                    await self._new_debt.wait()
                    wait = FIRST_PAYMENT
            if self._new_debt.is_set():
                await asyncio.sleep(wait)

    async def _pay(self) -> int:
        """One pass over what is owed, as long as the broker takes some of it. Returns how many topics are right now."""
        tried: set[str] = set()
        paid = 0
        while debts := await self._journal.owed(PAID_AT_ONCE, tried | self.paid):
            tried.update(debt.topic for debt in debts)
            answers = [await self._pay_one(debt) for debt in debts]
            accepted = [answer is not None and await answer for answer in answers]
            await self._journal.count_tries([d.topic for d, ok in zip(debts, accepted, strict=True) if not ok])
            if not any(accepted):
                break
            paid += sum(accepted)
        return paid

    async def _pay_one(self, debt: Debt) -> asyncio.Future[bool] | None:
        """Sends what a topic is to say now. None where it cannot, or where rows that wait will say it."""
        if self._window.is_doubted(debt.topic) or self._suspects.waits(debt.topic, time.monotonic()):
            return None
        # Nothing newer of the topic may be offered between reading its content and sending it.
        async with self._connection.pausing:
            message = await pay(self._tree, self._journal, debt, self._window.position_of)
            if message is None or self._connection.too_large(message) is not None:
                return None
            answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

            def done(accepted: bool) -> None:
                if accepted:
                    self.accepted(message)
                if not answer.done():
                    answer.set_result(accepted)

            self._connection.send(message, done)
        return answer
