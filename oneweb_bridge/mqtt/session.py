"""One connection to the broker: prove that it delivers, restore, drain the journal, and receive commands.

What a session has not brought behind the saved cursor is read from the journal again by the next one. A PUBACK takes
effect in `_on_answered`: `_accept` finishes the message in the window, `_refuse` gives it to the refusals.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Sequence
from functools import partial

import aiomqtt

from oneweb_bridge.config.servers import server_name
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.backoff import nth_pause
from oneweb_bridge.model.heads import Place
from oneweb_bridge.model.records import Message, Positions
from oneweb_bridge.model.status import Connection
from oneweb_bridge.mqtt.answers import WaitingAnswer
from oneweb_bridge.mqtt.broker_errors import FIRST_REFUSAL_CODE, describe_connection_error
from oneweb_bridge.mqtt.context import ConnectionContext, ConnectionRecord
from oneweb_bridge.mqtt.cursor import CursorWriter
from oneweb_bridge.mqtt.drain import Drain
from oneweb_bridge.mqtt.handshake import Handshake
from oneweb_bridge.mqtt.lane import Outgoing
from oneweb_bridge.mqtt.link import MqttConnection
from oneweb_bridge.mqtt.probing import Prober
from oneweb_bridge.mqtt.purge import clear_old_bases
from oneweb_bridge.mqtt.receiver import Receiver
from oneweb_bridge.mqtt.refusals import Refusals
from oneweb_bridge.mqtt.resend import Resend
from oneweb_bridge.mqtt.sender import Sender
from oneweb_bridge.mqtt.suspects import RECENT_S
from oneweb_bridge.mqtt.window import SendWindow, max_repeated
from oneweb_bridge.store.errors import StoreUnavailable

_log = logging.getLogger("oneweb_bridge.publisher")

INFO_INTERVAL_S = 10.0
MAX_INFO_PAUSE_S = 600.0
"""Seconds at most until a refused `bridge/info` is tried again."""
MAX_AUTO_WINDOW = 100
"""Messages in flight with `mqtt.window: auto`, where the broker's Receive Maximum allows them."""
OFFLINE_TIMEOUT_S = 2.0
"""Seconds that the messages at the end of a connection may take."""


class Session:
    """Puts together the parts of one connection, from the probe to its loss."""

    def __init__(self, context: ConnectionContext, link: MqttConnection, positions: Positions) -> None:
        self.connected_at: float | None = None
        """Since when this connection publishes (monotonic time); None before."""
        self._context = context
        self._link = link
        # The connections before this one may have broken because of a message: then one at a time.
        size = 1 if context.suspects.topics else self._full_window()
        self._window = SendWindow(
            size,
            positions,
            context.tree.class_of,
            context.suspects.counts(),
            max_repeated(self._full_window(), is_leased=context.tree.epoch is not None),
        )
        self.sender = Sender(context, link, self._window, self._on_answered, self._on_progress)
        self._save_wanted, drain_lock = asyncio.Event(), asyncio.Lock()
        self._refusals = Refusals(context, self.sender, drain_lock, self._save_wanted, self._restore_dropped)
        self._cursor = CursorWriter(context, self.sender, self._refusals, self._save_wanted)
        self.resend = Resend(context, self.sender, self._refusals, self._cursor, drain_lock)
        self._drain = Drain(context, self.sender, self._refusals, drain_lock)
        self._prober = Prober(context, self.sender, asks=False)
        self._handshake = Handshake(context, self.sender, self._prober)
        self._receiver = Receiver(context, self._handshake, self._prober)
        self._last_refused: tuple[str, float] | None = None
        self._info, self._info_refusals, self._info_due = b"", 0, 0.0
        self._is_said_to_be_online = False

    @property
    def cursor(self) -> int:
        """The journal row up to which everything is published and saved."""
        return self._cursor.cursor

    def _full_window(self) -> int:
        return min(self._context.settings.window or MAX_AUTO_WINDOW, self._link.receive_maximum)

    async def run(self) -> None:
        """Everything that one connection does. Ends with an exception group when it is lost."""
        link, tree = self._link, self._context.tree
        link.hand_over(self.sender.on_puback, self._receiver.receive, self.sender.on_read)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.wait_for_end(), name="mqtt end")
                group.create_task(self.sender.end_on_failure(), name="mqtt failure")
                group.create_task(self.sender.watch_loop(), name="mqtt watch")
                # Before the subscription: a retained command that was answered meanwhile comes again with it, and its
                # result must be heard before the sentence that it was obeyed already.
                for answer in self._context.answers.to_send():
                    self.answer(answer)
                # Commands come, and are answered, as soon as they are subscribed to.
                await link.listen_to(*self._receiver.filters)
                await self._start_up()
                # What comes there from now on is what this bridge publishes itself.
                await link.unsubscribe_from(tree.head)
                group.create_task(self._drain.drain_loop(), name="mqtt drain")
                group.create_task(self._clear_old_bases(), name="mqtt old bases")
                group.create_task(self._cursor.cursor_loop(), name="mqtt cursor")
                group.create_task(self._refusals.payment_loop(), name="mqtt owed")
                group.create_task(self._info_loop(), name="mqtt info")
                group.create_task(self._prober.probe_loop(), name="mqtt probe")
        except asyncio.CancelledError:
            await self._publish_offline(with_head=True)
            raise
        except BaseExceptionGroup as group:
            if group.subgroup(StoreUnavailable) is not None:
                # The broker is well, and this is quicker than the will.
                await self._publish_offline()
            raise
        finally:
            if self._is_said_to_be_online:
                link.leave_the_will()

    async def _start_up(self) -> None:
        """Proves delivery, compares the broker's head with the cursor, and restores what the broker has lost."""
        context, tree = self._context, self._context.tree
        await self._refusals.load()
        await self._handshake.prove_delivery()
        known = await self._handshake.compare_head(self.cursor)
        if known.cursor > self.cursor:
            self._cursor.begin_at(known.cursor)
        await context.journal.identity.note_place(Place(tree.base, context.instance))
        if self._handshake.head is None and (await context.journal.identity.read()).old_bases(tree.base):
            # So that what an interrupted start leaves below a base is known as this bridge's when it has moved on.
            await self._cursor.publish_empty_head()
        self._prober.answers = self._is_said_to_be_online = True
        await self.sender.publish_and_wait(Message(tree.status, encode(Connection("online")), retain=True))
        self.connected_at = time.monotonic()
        _log.info("broker %s: connected", server_name(context.settings))
        context.callbacks.on_connected(server_name(context.settings))
        await self._publish_info(encode(await context.callbacks.info()))
        if tree.epoch is not None:
            await self._publish_epoch()
        if known.restore_start < self.cursor:
            await self._restore_lost(known.restore_start)
        else:
            # Such a head is silent on what was published without a row since: a broker may have lost just that.
            await context.callbacks.on_lost(self.cursor)
        # Before the head, by which it is recognised: what is not alerted now is alerted by the next session.
        await self._handshake.alert_restored_backup()
        if not await context.journal.clear_restore_mark(self._handshake.restore_mark):
            # More rows were dropped since it was read.
            self.sender.spawn(self._restore_dropped(), "mqtt dropped")
        await context.journal.identity.clear_head_bound()
        await self._cursor.publish_head_and_wait()

    async def _publish_epoch(self) -> None:
        """Says before any row that this worker has taken over, where the broker's head is of this journal."""
        head, tree = self._handshake.head, self._context.tree
        if head is not None and head.get("journal") == tree.journal_id and isinstance(seq := head.get("seq"), int):
            await self._cursor.publish_epoch(seq)

    async def _restore_lost(self, after_seq: int) -> None:
        count = await self.resend.restore(after_seq, self.cursor)
        _log.info("broker %s: restored %d retained topics", server_name(self._context.settings), count)
        await self._context.callbacks.on_lost(after_seq)

    async def _restore_dropped(self) -> None:
        await self.resend.restore_dropped()

    async def _clear_old_bases(self) -> None:
        """Clears what was published below an earlier base topic, when that is configured; a failure is logged."""
        if self._context.settings.clear_old_base:
            try:
                await self.clear_old_bases(is_requested=False)
            except aiomqtt.MqttError as error:
                _log.warning(
                    "the former mqtt.base_topic could not be cleared now: %s", describe_connection_error(error)
                )

    async def clear_old_bases(self, *, is_requested: bool) -> int:
        """Clears what was published below earlier base topics. Returns how many topics. Raises MqttError."""
        context = self._context
        return await clear_old_bases(
            context.settings, context.tree, context.journal, self.publish_messages, is_requested=is_requested
        )

    async def _info_loop(self) -> None:
        """Publishes the bridge's own state when it changed, at most every INFO_INTERVAL_S seconds. Raises MqttError."""
        while True:
            await asyncio.sleep(INFO_INTERVAL_S)
            info = encode(await self._context.callbacks.info())
            if info != self._info:
                await self._publish_info(info)

    async def _publish_info(self, info: bytes) -> None:
        """Publishes the bridge's own state. One that is refused is alerted and tried again after growing pauses."""
        message, now = Message(self._context.tree.info, info, retain=True), time.monotonic()
        if now < self._info_due or self._context.suspects.waits(message.topic, now):
            return
        if not await self.sender.is_small_enough(message):
            return
        alerted, key = self._context.alerted_topics, f"refused {message.topic}"
        if all(await self.publish_messages([message])):
            self._info, self._info_refusals = info, 0
            alerted.discard(key)
            return
        self._info_due = now + nth_pause(INFO_INTERVAL_S, MAX_INFO_PAUSE_S, self._info_refusals)
        self._info_refusals += 1
        if key not in alerted:
            alerted.add(key)
            sentence = f"the broker refuses {message.topic}, which is tried again: let this user write it"
            await self._context.callbacks.alert("topics_refused", sentence)

    # ── what an answer means ───────────────────────────────────────────────────────────────────

    def _on_answered(self, outgoing: Outgoing, code: int, reason: str) -> None:
        suspects = self._context.suspects
        if suspects:
            suspects.on_answered(outgoing.message.topic, accepted=code < FIRST_REFUSAL_CODE)
            if not suspects.topics:
                # Everything that was under way when the last connection broke is answered, so the window opens.
                self._window.size = self._full_window()
        if code < FIRST_REFUSAL_CODE:
            self._accept(outgoing)
        else:
            self._refuse(outgoing, reason)

    def _on_progress(self) -> None:
        self._cursor.on_progress()
        self._drain.on_progress()

    def _accept(self, outgoing: Outgoing) -> None:
        lane = outgoing.lane
        was_doubted = lane is not None and lane.doubted
        self._window.acknowledge(outgoing)
        if outgoing.seq:
            self._refusals.on_accepted(outgoing.message)
            self._context.callbacks.on_sent(outgoing.message)
        if lane is not None and was_doubted:
            self._refusals.on_doubt_ended(lane)

    def _refuse(self, outgoing: Outgoing, reason: str) -> None:
        self._last_refused = (outgoing.message.topic, time.monotonic())
        _log.error("broker refuses %s: %s", outgoing.message.topic, reason)
        self._window.refuse(outgoing)
        self._refusals.on_refused(outgoing, reason)

    # ── for the publisher ──────────────────────────────────────────────────────────────────────

    def answer(self, answer: WaitingAnswer) -> None:
        """Publishes an answer to a command, which waits until it is acknowledged.

        One that is too large, or broke the connection, is logged and given up.
        """
        for message in answer.messages:
            reason = self.sender.too_large(message)
            if reason is None and self._broke_connection(message.topic):
                reason = "it broke the connection before"
            if reason is None:
                self.sender.send(message, partial(self._end_answer, answer, message))
            else:
                _log.error("no answer on %s: %s", message.topic, reason)
                self._context.answers.end(answer, message)

    def _broke_connection(self, response_topic: str) -> bool:
        """Whether an answer on a topic that a stranger chose is to be given up. The bridge's own topics are never."""
        is_own = response_topic.startswith(f"{self._context.tree.base}/")
        return not is_own and self._context.suspects.waits(response_topic, time.monotonic())

    def _end_answer(self, answer: WaitingAnswer, message: Message, _accepted: bool) -> None:
        self._context.answers.end(answer, message)

    async def publish_messages(self, messages: Iterable[Message]) -> list[bool]:
        """Publishes messages without journal rows. Returns which the broker accepted. Raises MqttError."""
        return await self.sender.publish_messages(messages)

    def end(self, reason: str) -> None:
        """Ends this connection; the publisher makes another."""
        self.sender.fail(aiomqtt.MqttError(reason))

    # ── the end ────────────────────────────────────────────────────────────────────────────────

    async def _publish_offline(self, *, with_head: bool = False) -> None:
        """Publishes `offline`, if `online` was. Where the broker does not acknowledge it in time, it has the will."""
        if not self._is_said_to_be_online:
            return
        self._window.stop_rows()
        with contextlib.suppress(aiomqtt.MqttError, StoreUnavailable, TimeoutError):
            async with asyncio.timeout(OFFLINE_TIMEOUT_S):
                status = Message(self._context.tree.status, encode(Connection("offline")), retain=True)
                await self.sender.publish_and_wait(status)
                self._is_said_to_be_online = False
                if with_head:
                    await self._cursor.publish_last_head()

    async def close(self) -> ConnectionRecord:
        """Ends what is under way, blames the message that broke the connection, and saves the last positions."""
        unanswered = await self.sender.close()
        self._blame(unanswered)
        await self._cursor.save_last()
        lasted = None if self.connected_at is None else time.monotonic() - self.connected_at
        return ConnectionRecord(self.cursor, lasted)

    def _blame(self, unanswered: Sequence[Outgoing]) -> None:
        """Finds out which message broke the connection: its class waits, and the others go on at the next one."""
        now, last, suspects = time.monotonic(), self._last_refused, self._context.suspects
        refused = last[0] if last is not None and now - last[1] < RECENT_S else None
        suspects.on_connection_lost([outgoing.message.topic for outgoing in unanswered], refused, now)
        for outgoing in unanswered:
            if outgoing.seq and outgoing.message.topic == suspects.culprit:
                self._window.refuse(outgoing)
