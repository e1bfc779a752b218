"""What becomes of messages that the broker refuses: tried again, set aside, waiting as a class, or owed.

The window decides which message goes when (see window.py); here are the pauses, the alerts and what is saved
of them. A row that was set aside is given up, but for what it left unsaid on a retained topic: that topic is
owed, over restarts too, and is tried again, with growing pauses and at each connect. What is sent then is what it
should say by then; a newer row that is accepted settles it as well.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from oneweb_bridge.model.backoff import nth_pause
from oneweb_bridge.model.records import Debt, Message
from oneweb_bridge.mqtt.context import ConnectionContext
from oneweb_bridge.mqtt.lane import Lane, Outgoing
from oneweb_bridge.mqtt.retained import Retained, message_of_debt
from oneweb_bridge.mqtt.sender import Sender
from oneweb_bridge.store.journal_sql import PAGE_ROWS

_log = logging.getLogger("oneweb_bridge.publisher")

MAX_TRIES = 5
"""How often a message may be refused, while others of its class are accepted, before its row is set aside."""
MAX_BREAKS = 3
"""How many connections a message may break, while others of its class are accepted, before its row is set aside."""
FIRST_RETRY_S = 0.1
"""Seconds before a refused message is tried again; each further pause is twice as long, up to MAX_RETRY_S."""
MAX_RETRY_S = 30.0
ALERT_AFTER_TRIALS = 3
"""Trials of a class that must fail before an alert tells that the broker refuses it."""
FIRST_PAYMENT_S = 1.0
"""Seconds before a topic that is owed is tried again; each further pause is twice as long, up to MAX_PAYMENT_S."""
MAX_PAYMENT_S = 60.0
MAX_PAYMENTS_AT_ONCE = 20
"""Topics that are owed and tried at a time; where none of them is accepted, the others wait too."""
MAX_LANE_ROWS = 1000
"""Rows of a class that waits that may be held in memory."""


class Refusals:
    """Retries, sets aside or owes what one connection's broker refuses.

    `drain_lock` keeps the journal from being read on; `save_wanted` is set when there is something to be saved;
    `on_lanes_read` is called when no class waits any more.
    """

    def __init__(
        self,
        context: ConnectionContext,
        sender: Sender,
        drain_lock: asyncio.Lock,
        save_wanted: asyncio.Event,
        on_lanes_read: Callable[[], Awaitable[None]],
    ) -> None:
        self._context = context
        self._sender = sender
        self._window = sender.window
        self._journal = context.journal
        self._tree = context.tree
        self._suspects = context.suspects
        self._drain_lock = drain_lock
        self._save_wanted = save_wanted
        self._on_lanes_read = on_lanes_read
        self._owed: set[str] = set()
        self.paid: set[str] = set()
        """Topics that are owed no longer, until that is saved."""
        self._given_up: set[str] = set()
        """Topics of which a message was refused again and again, and none was accepted since."""
        self._reasons: dict[str, str] = {}
        self._new_debt = asyncio.Event()
        self._is_reading_lanes = False

    async def load(self) -> None:
        """Reads what is owed, and begins with the classes that wait."""
        while debts := await self._journal.owed.next_debts(PAGE_ROWS, self._owed):
            self._owed.update(debt.topic for debt in debts)
            self._given_up.update(debt.topic for debt in debts if debt.tries >= MAX_TRIES)
        for topic, blame in self._suspects.blamed.items():
            self._sender.spawn(self._retry_blamed(topic, blame.until), "mqtt blamed")
        if self._window.lanes:
            self.read_waiting()

    # ── refused and accepted ───────────────────────────────────────────────────────────────────

    def on_refused(self, outgoing: Outgoing, reason: str) -> None:
        """A message of a row was refused, and the window knows."""
        lane = outgoing.lane
        if lane is None:
            return
        self._reasons[lane.name] = reason
        self.read_waiting()
        if not lane.doubted:
            self._sender.spawn(self._retry(outgoing, lane, reason), f"mqtt retry {outgoing.seq}")
        elif lane.waits_for_trial:
            self._sender.spawn(self._try_class(lane), f"mqtt trial {lane.name}")

    def on_accepted(self, message: Message) -> None:
        """A message was accepted: if its topic was owed, it is not any more."""
        self._given_up.discard(message.topic)
        if message.retain and message.topic in self._owed:
            self._owed.discard(message.topic)
            self.paid.add(message.topic)
            self._save_wanted.set()

    def on_doubt_ended(self, lane: Lane) -> None:
        """One of a class that was refused as a whole was accepted."""
        self._sender.spawn(self._alert_accepted(lane), f"mqtt over {lane.name}")

    async def _retry(self, outgoing: Outgoing, lane: Lane, reason: str) -> None:
        """Gives a refused message another chance; sets it aside when others of its class pass and it never does."""
        await asyncio.sleep(nth_pause(FIRST_RETRY_S, MAX_RETRY_S, outgoing.tries))
        if outgoing not in lane.paused:
            return
        # A topic that was given up before need not be tried as often again, as long as it is refused. One whose
        # retained content was refused when it was restored was not given up.
        tries = 1 if outgoing.message.topic in self._given_up else MAX_TRIES
        if outgoing.refused_alone and outgoing.tries_alone >= tries - 1:
            await self._set_aside(outgoing, reason)
        else:
            self._window.lanes.requeue(outgoing)
            self._sender.pump()

    async def _retry_blamed(self, topic: str, until: float) -> None:
        """Sets aside what broke connections again and again while others of its class pass, or tries it again."""
        while time.monotonic() < until:
            outgoing = self._window.lanes.blamed_message(topic)
            if outgoing is None or outgoing.tries < MAX_BREAKS or not outgoing.refused_alone:
                await self._sender.wait_for_change(max(0.0, until - time.monotonic()))
            else:
                await self._set_aside(outgoing, "the connection broke each time")
        outgoing = self._window.lanes.blamed_message(topic)
        self._window.lanes.let_go(topic)
        if outgoing is not None:
            self._window.lanes.requeue(outgoing)
        self._sender.pump()

    async def _set_aside(self, outgoing: Outgoing, reason: str) -> None:
        self._window.lanes.withhold(outgoing)
        await self.set_aside(outgoing.seq, outgoing.message, reason)
        self._window.set_aside(outgoing)
        self._save_wanted.set()
        self._sender.pump()

    async def set_aside(self, seq: int, message: Message, reason: str) -> None:
        """Notes a row that is given up, and that its retained topic is owed."""
        self._given_up.add(message.topic)
        await self._journal.set_aside(seq, message.topic, reason)
        rows = await self._journal.after(seq - 1, 1)
        # The row may have been dropped meanwhile, and another one comes first.
        if message.retain and rows and rows[0].seq == seq:
            await self._owe(Debt(message.topic, rows[0].id, rows[0].name), reason)
        sentence = f"row {seq} on {message.topic} was set aside: {reason}"
        await self._alert("row_set_aside", sentence, about=message.topic)

    async def _alert(self, kind: str, sentence: str, *, about: str) -> None:
        """Alerts something about a topic; but for the alert's own, which would be refused like the first."""
        if about == self._tree.alert:
            _log.error("%s", sentence)
        else:
            await self._context.callbacks.alert(kind, sentence)

    # ── classes that wait ──────────────────────────────────────────────────────────────────────

    async def _try_class(self, lane: Lane) -> None:
        """After a growing pause, lets one of a class that is refused as a whole go, to see whether it still is."""
        wait = nth_pause(FIRST_RETRY_S, MAX_RETRY_S, lane.failed_trials)
        if lane.failed_trials >= ALERT_AFTER_TRIALS and await self._journal.set_alerted(lane.name, alerted=True):
            reason = self._reasons.get(lane.name, "refused")
            await self._alert(
                "topics_refused",
                f"the broker refuses all messages on {lane.name} ({reason}): they wait up to state.max_backlog; "
                "let this user write there in the broker's access rules",
                about=lane.name,
            )
        await asyncio.sleep(wait)
        self._window.lanes.allow_trial(lane.name)
        self._sender.pump()

    async def _alert_accepted(self, lane: Lane) -> None:
        if await self._journal.set_alerted(lane.name, alerted=False):
            sentence = f"the broker accepts messages on {lane.name} again: about {lane.count()} that waited follow"
            await self._alert("topics_accepted", sentence, about=lane.name)

    def read_waiting(self) -> None:
        """Sees to it that the classes that wait are read on."""
        if not self._is_reading_lanes:
            self._is_reading_lanes = True
            self._sender.spawn(self._read_lanes_loop(), "mqtt classes")

    async def _read_lanes_loop(self) -> None:
        """Reads on for classes that are behind the main cursor, until there is none."""
        while self._window.lanes:
            async with self._drain_lock:
                for lane in self._window.lanes.to_read(MAX_LANE_ROWS - PAGE_ROWS):
                    await self._read_lane(lane)
            self._save_wanted.set()
            self._sender.pump()
            if not self._window.lanes.to_read(MAX_LANE_ROWS - PAGE_ROWS):
                await self._sender.wait_for_change()
        self._is_reading_lanes = False
        await self._on_lanes_read()

    async def _read_lane(self, lane: Lane) -> None:
        for row in await self._journal.after(lane.read, PAGE_ROWS):
            if lane.closes_at is not None or self._window.lanes.is_level(lane):
                return
            messages = [m for m in self._tree.messages_of_row(row) if self._tree.class_of(m.topic) == lane.name]
            self._window.offer_to_lane(lane.name, row.seq, await self.fitting(row.seq, messages))

    async def fitting(self, seq: int, messages: list[Message]) -> list[Message]:
        """Those messages of a row that are not too large. The others are set aside, unless a lane will see to them."""
        fitting = []
        for message in messages:
            reason = self._sender.too_large(message)
            if reason is None:
                fitting.append(message)
            else:
                await self.set_aside(seq, message, reason)
        return fitting

    # ── what is owed ───────────────────────────────────────────────────────────────────────────

    async def _owe(self, debt: Debt, reason: str) -> bool:
        self.paid.discard(debt.topic)
        self._owed.add(debt.topic)
        self._new_debt.set()
        return await self._journal.owed.add(debt, reason)

    async def restore(self, retained: Retained) -> bool:
        """Sends what was retained again; where that cannot be, it is owed. Returns whether it was sent."""
        reason = self._sender.too_large(retained.message)
        if reason is None and self._suspects.waits(retained.message.topic, time.monotonic()):
            reason = "it broke the connection before"
        if reason is not None:
            topic = retained.message.topic
            if await self._owe(retained.debt(), reason):
                sentence = f"{topic} could not be published again, and is tried later: {reason}"
                await self._alert("topic_owed", sentence, about=topic)
            return False
        self._sender.send(retained.message, lambda accepted: self._on_restored(retained, accepted))
        return True

    def _on_restored(self, retained: Retained, accepted: bool) -> None:
        if accepted:
            self.on_accepted(retained.message)
        else:
            work = self._owe_refused(retained)
            self._sender.spawn(work, "mqtt owed")

    async def _owe_refused(self, retained: Retained) -> None:
        await self._owe(retained.debt(), "the broker refused it")

    async def payment_loop(self) -> None:
        """Tries again what is owed, with growing pauses. Never returns."""
        failed_passes = 0
        while True:
            self._new_debt.clear()
            if self._owed:
                failed_passes = 0 if await self._pay() else failed_passes + 1
            pause = nth_pause(FIRST_PAYMENT_S, MAX_PAYMENT_S, failed_passes)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause if self._owed else None):
                    await self._new_debt.wait()
            if self._new_debt.is_set():
                failed_passes = 0
                await asyncio.sleep(FIRST_PAYMENT_S)

    async def _pay(self) -> int:
        """One pass over what is owed, as long as the broker takes some of it. Returns how many topics are right now."""
        tried: set[str] = set()
        paid = 0
        while debts := await self._journal.owed.next_debts(MAX_PAYMENTS_AT_ONCE, tried | self.paid):
            tried.update(debt.topic for debt in debts)
            answers = [await self._pay_one(debt) for debt in debts]
            accepted = [answer is not None and await answer for answer in answers]
            refused = [debt for debt, ok in zip(debts, accepted, strict=True) if not ok]
            await self._journal.owed.count_tries([debt.topic for debt in refused])
            self._given_up.update(debt.topic for debt in refused if debt.tries + 1 >= MAX_TRIES)
            if not any(accepted):
                break
            paid += sum(accepted)
        return paid

    async def _pay_one(self, debt: Debt) -> asyncio.Future[bool] | None:
        """Sends what a topic is to say now. None where it cannot, or where rows that wait will say it."""
        if self._window.lanes.is_doubted(debt.topic) or self._suspects.waits(debt.topic, time.monotonic()):
            return None
        # Nothing newer of the topic may be offered between reading its content and sending it.
        async with self._drain_lock:
            message = await message_of_debt(self._tree, self._journal, debt, self._window.lanes.position_of)
            if message is None or self._sender.too_large(message) is not None:
                return None
            answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

            def done(accepted: bool) -> None:
                if accepted:
                    self.on_accepted(message)
                if not answer.done():
                    answer.set_result(accepted)

            self._sender.send(message, done)
        return answer
