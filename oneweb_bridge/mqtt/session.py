"""One connection to the broker: prove that it delivers, restore, drain the journal, and listen for commands.

What a session has not brought behind the durable cursor is read from the journal again by the next one.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Protocol

import aiomqtt
import msgspec

from oneweb_bridge.clock import SYSTEM
from oneweb_bridge.config.schema import Mqtt
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.model.heads import Place, foreign_sentence, owner_of, read_head
from oneweb_bridge.model.records import Message, Positions
from oneweb_bridge.model.status import Alarm, Connection, Head, Probe
from oneweb_bridge.mqtt.link import FIRST_REFUSAL_CODE, NO_RETAIN, MqttConnection, Received, TakenOver
from oneweb_bridge.mqtt.packets import MAX_REMAINING_LENGTH
from oneweb_bridge.mqtt.refusals import Refusals
from oneweb_bridge.mqtt.resend import messages_to_restore
from oneweb_bridge.mqtt.suspects import RECENT, Suspects
from oneweb_bridge.mqtt.topics import TopicTree, response_topic_problem
from oneweb_bridge.mqtt.window import Outgoing, SendWindow
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.journal import PAGE_ROWS, Journal

_log = logging.getLogger("oneweb_bridge.publisher")

MAX_ROWS_AHEAD = 1000
"""Rows that may be read ahead of the first unfinished one."""
STALL_TIMEOUT_S = 30.0
"""Seconds without the broker's answer to one message, after which the connection is given up."""
FIRST_RETRY_S = 0.1
"""Seconds before a cursor that the disk did not take is written again; each further pause is twice as long."""
HEADROOM = 128
"""Bytes of a PUBLISH beside its topic, correlation data and payload: header, lengths, packet id, other properties."""
LONGEST_STORE_WAIT = 5.0
"""Seconds after which a cursor that could not be written is tried again at the latest."""
INFO_INTERVAL_S = 10.0
PROBE_INTERVAL_S = 60.0
PROBE_TIMEOUT_S = 10.0
MIN_TWIN_TIMEOUT_S, TWIN_ROUND_TRIPS = 3.0, 4.0
"""For how long a bridge that is about to connect waits for the probe of another with its name: at least so many
seconds, and so many times as long as its own probe took."""


class CommandMessage(msgspec.Struct, frozen=True):
    """A message on a command topic. `reply_to` and `correlation` are MQTT 5's, where the sender gave them.

    `reply_to` is a topic that may be answered on; `reply_problem` says why the one that the sender gave is not.
    `again`: its topic has had a retained message on this connection before, so this one was sent just now
    and is not what the broker had kept.
    """

    topic: str
    payload: bytes
    retain: bool
    reply_to: str | None = None
    correlation: bytes | None = None
    again: bool = False
    reply_problem: str | None = None


class TwinConnected(TakenOver):
    """Another bridge with this name is connected: it answered the one that is about to connect."""


class ForeignInstance(Exception):
    """Another instance publishes below this base topic; the text says which."""


async def _ignore_loss(_: int) -> None:
    """What happens where nobody asked to hear of a loss."""


class PublisherCallbacks(msgspec.Struct, frozen=True, kw_only=True):
    """What the publisher is handed: whom to give commands, and where to learn what it cannot know."""

    on_command: Callable[[CommandMessage], None]
    info: Callable[[], Awaitable[object]]
    alert: Callable[[str, str], Awaitable[None]]
    on_sent: Callable[[Message], None] = lambda _: None
    on_birth: Callable[[], None] = lambda: None
    on_lost: Callable[[int], Awaitable[None]] = _ignore_loss
    discovery_prefix: Callable[[], str] = lambda: "homeassistant"


class Owner(Protocol):
    """What a session needs of the publisher that made it, and what it keeps there for the next one."""

    settings: Mqtt
    instance: str
    tree: TopicTree
    journal: Journal
    journal_grew: asyncio.Event
    handles: PublisherCallbacks
    cursor: int
    connected_since: float | None
    problem: str | None
    suspects: Suspects
    refusals: int
    too_large: set[str]
    was_connected: bool
    process: str

    async def meet_twin(self) -> None:
        """Another bridge with this instance published while this one was away. Raises TakenOver to give way to it."""

    async def tell_twin(self) -> None:
        """Alerts that another bridge with this instance wants to connect."""

    async def find_strays(self) -> list[str]:
        """The retained topics below the base that the bridge does not own. Raises MqttError."""

    async def clear_old_bases(self) -> None:
        """Clears what was published below an earlier base topic."""


class Session:
    """One connection, from the probe to its loss."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._tree = owner.tree
        self._suspects = owner.suspects
        self._journal = owner.journal
        self._window = SendWindow(1, Positions(0), owner.tree.class_of)
        self._refusals: Refusals = self._new_refusals()
        self._slips: dict[int, Outgoing] = {}
        self._link: MqttConnection | None = None
        self._answered = asyncio.Event()
        self._room = asyncio.Event()
        self.pausing = asyncio.Lock()
        self._head: asyncio.Future[Mapping[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._nonce = ""
        self._asks = False
        self._twin_heard = asyncio.Event()
        self._is_answering_twin = False
        self._status: bytes | None = None
        self._probed = asyncio.Event()
        self._status_kept = asyncio.Event()
        self._is_proving_retain = False
        self._is_online = False
        self._last_refused: tuple[str, float] | None = None
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()
        self._retries: set[asyncio.Task[None]] = set()
        self._published_head: int | None = None
        self._head_under_way = False
        self._pumping = False
        self._kept: set[str] = set()
        self._discovery_prefix = owner.handles.discovery_prefix()
        self._restored: str | None = None
        self._info = b""

    async def look(self, link: MqttConnection) -> None:
        """Finds out whether this bridge may publish, on a connection that has no will yet.

        Raises Foreign, TwinConnected where another bridge with this name is connected, and a group of errors when the
        connection is lost.
        """
        self._link, self._asks = link, True
        try:
            async with asyncio.TaskGroup() as group:
                end = group.create_task(link.wait_for_end(), name="mqtt end")
                failure = group.create_task(self._end_on_failure(), name="mqtt failure")
                await link.listen(self._tree.head, self._tree.probe)
                # Where it may not be read, who is connected is known by its answer alone.
                with contextlib.suppress(aiomqtt.MqttError):
                    await link.listen(self._tree.status)
                asked = time.monotonic()
                await self._probe()
                await self._judge_head(self._head.result())
                await self._look_for_twin(time.monotonic() - asked)
                if not link.modern and not self._status_kept.is_set():
                    await self._prove_retain(link)
                end.cancel()
                failure.cancel()
        except BaseExceptionGroup as group:
            if self._is_proving_retain:
                raise aiomqtt.MqttError(NO_RETAIN) from group
            raise

    async def run(self, link: MqttConnection) -> None:
        """Everything that one connection does. Ends with an exception group when it is lost."""
        self._link = link
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.wait_for_end(), name="mqtt end")
                group.create_task(self._end_on_failure(), name="mqtt failure")
                # Commands come, and are answered, as soon as they are subscribed to.
                cursor = await self._open_window(link)
                await link.listen(self._tree.head, self._tree.probe, *self._tree.commands(), self._birth_topic)
                await self._begin(cursor)
                # What comes there from now on is what this bridge says itself.
                await link.leave(self._tree.head)
                group.create_task(self._drain(), name="mqtt drain")
                group.create_task(self._owner.clear_old_bases(), name="mqtt old bases")
                group.create_task(self._commit(), name="mqtt cursor")
                group.create_task(self._refusals.keep_paying(), name="mqtt owed")
                group.create_task(self._watch(), name="mqtt watch")
                group.create_task(self._inform(), name="mqtt info")
                group.create_task(self._keep_probing(), name="mqtt probe")
        except asyncio.CancelledError:
            await self._say_goodbye(with_head=True)
            raise
        except BaseExceptionGroup as group:
            if group.subgroup(StoreUnavailable) is not None:
                # The broker is well and would not publish the will.
                await self._say_goodbye()
            raise

    async def _open_window(self, link: MqttConnection) -> int:
        """Makes the window that the broker allows, behind the durable positions. Returns the cursor."""
        positions = await self._journal.positions()
        self._owner.cursor = positions.cursor
        size = 1 if self._suspects.topics else self._full_size(link)
        self._window = SendWindow(size, positions, self._tree.class_of, self._suspects.counts())
        self._refusals = self._new_refusals()
        return positions.cursor

    async def _begin(self, cursor: int) -> None:
        """Proves that the broker delivers, and brings it to where the cursor is."""
        await self._refusals.load()
        await self._probe()
        low = await self._behind(cursor)
        await self._journal.note_place(Place(self._tree.base, self._owner.instance))
        self._is_online = True
        await self._said(Message(self._tree.status, encode(Connection("online")), retain=True))
        self._owner.connected_since, self._owner.problem = time.monotonic(), None
        _log.info("broker %s:%s: connected", self._owner.settings.host, self._owner.settings.port)
        self._info = encode(await self._owner.handles.info())
        await self._said(Message(self._tree.info, self._info, retain=True))
        if low < cursor:
            count = await self._restore(low, cursor)
            _log.info(
                "broker %s:%s: restored %d retained topics",
                self._owner.settings.host,
                self._owner.settings.port,
                count,
            )
            await self._owner.handles.on_lost(low)
        # Before the head, by which it is recognised: what is not told now is told by the next session.
        await self._tell_restored()
        await self._journal.clear_restore_from()
        await self._publish_head_and_wait(cursor)

    def _full_size(self, link: MqttConnection) -> int:
        return min(self._owner.settings.window, link.receive_maximum)

    def _new_refusals(self) -> Refusals:
        return Refusals(self, self._window, self._journal, self._tree, self._suspects)

    # ── beginning ──────────────────────────────────────────────────────────────────────────────

    async def _probe(self) -> None:
        """What the broker takes must come back, or nothing else is sent. The head comes before it, if there is one."""
        # A late copy of an earlier probe proves nothing, so each has a word of its own.
        self._nonce = secrets.token_hex(8)
        self._probed.clear()
        self._offer(self._probe_message(self._nonce))
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._probed.wait()
        except TimeoutError:
            raise aiomqtt.MqttError(
                f"the broker took a message on {self._tree.probe} but did not deliver it: "
                "let this user read and write it in the broker's access rules"
            ) from None
        if not self._head.done():
            self._head.set_result(None)

    def _probe_message(self, nonce: str) -> Message:
        probe = Probe(rfc3339(SYSTEM.now()), nonce, self._owner.instance, self._owner.process, self._asks)
        return Message(self._tree.probe, encode(probe), retain=False)

    async def _look_for_twin(self, round_trip: float) -> None:
        """Raises TwinConnected when another bridge with this name answers; one that is connected does so at once.

        Where nobody ever published, or the last one said goodbye, or the broker did so for it, there is nobody to
        wait for. A bridge that is frozen does not answer, nor one that is cut off from the broker.
        """
        never = self._status is None and self._head.result() is None
        if never or b'"offline"' in (self._status or b""):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(MIN_TWIN_TIMEOUT_S, TWIN_ROUND_TRIPS * round_trip)):
                await self._twin_heard.wait()
        if self._twin_heard.is_set():
            raise TwinConnected("another bridge with this name is connected")

    async def _prove_retain(self, link: MqttConnection) -> None:
        """A retained message must come with a subscription, and MQTT 3.1.1 cannot say otherwise. Raises MqttError.

        The status proves it, which is retained anyway: a probe that is retained might stay for ever.
        """
        self._is_proving_retain = True
        await self._said(Message(self._tree.status, encode(Connection("offline")), retain=True))
        await link.listen(self._tree.status)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._status_kept.wait()
        except TimeoutError:
            raise aiomqtt.MqttError(NO_RETAIN) from None
        self._is_proving_retain = False

    async def _keep_probing(self) -> None:
        """Proves again and again that the broker delivers; its access rules may change."""
        while True:
            await asyncio.sleep(PROBE_INTERVAL_S)
            await self._probe()

    async def _behind(self, cursor: int) -> int:
        """The row behind which the broker may have lost what was retained."""
        head = self._head.result()
        dropped = await self._journal.restore_from()
        if head is None:
            return 0
        await self._judge_head(head)
        seq = head.get("seq")
        if not isinstance(seq, int):
            return 0
        ours = head.get("journal") == self._tree.journal_id
        self._restored = await self._recognise(str(head.get("journal")), seq, cursor)
        low = seq if ours and seq <= cursor else 0
        oldest = await self._journal.oldest()
        if 0 < low < oldest - 1:
            low = 0
        return low if dropped is None else min(low, dropped)

    async def _recognise(self, journal: str, seq: int, cursor: int) -> str | None:
        """What to alert when the broker has had rows that this database does not know: a backup was restored.

        A copy that `backup` made gets an id of its own when it is opened. Any other copy gets one here, because the
        numbers of the rows that it lacks come again, and an event id may not.
        """
        earlier = dict(self._tree.earlier)
        if journal == self._tree.journal_id:
            known, is_older = cursor, seq > cursor
        elif journal in earlier:
            known, is_older = earlier[journal], False
        else:
            # Another database was here in between, maybe another copy. Where this one had published under its id, so
            # may another copy have, with other content.
            last = max(earlier.values(), default=0)
            known, is_older = last or cursor or seq, cursor > last
        if is_older:
            self._tree.journal_id, self._tree.earlier = await self._journal.renew(cursor)
        if seq <= known:
            return None
        return (
            f"the database ends at row {known}, but row {seq} was published: a backup was restored. Every retained "
            "topic is published again, and what happened since the backup is announced anew"
        )

    async def _tell_restored(self) -> None:
        """Alerts that a backup was restored, with how much of what came after it the broker still keeps."""
        if self._restored is None:
            return
        try:
            count = len(await self._owner.find_strays())
        except aiomqtt.MqttError as error:
            _log.warning("what is left below %s could not be counted: %s", self._tree.base, error)
            count = 0
        left = (
            f". {count} retained topics below {self._tree.base} are of what the backup does not know: those that the "
            "next polls do not bring back stay until they are cleared by request/purge"
        )
        await self._owner.handles.alert("database_restored", self._restored + (left if count else ""))

    async def _judge_head(self, head: Mapping[str, Any] | None) -> None:
        """Raises Foreign for the head of another instance, and TakenOver to give way to a twin."""
        here, identity = Place(self._tree.base, self._owner.instance), await self._journal.identity()
        if head is not None and owner_of(head, here, identity) == "another":
            raise await self._foreign(head)
        # Since this process published its own head, somebody else has published another under the same name.
        if head is not None and self._owner.was_connected and not identity.knows(head.get("journal")):
            await self._owner.meet_twin()

    async def _foreign(self, head: Mapping[str, Any]) -> ForeignInstance:
        said = foreign_sentence(head, self._tree.head, Place(self._tree.base, self._owner.instance))
        # It cannot go through the journal: nothing of the journal is published here.
        alert = Alarm(time=rfc3339(SYSTEM.now()), kind="foreign_instance", message=said)
        await self._said(Message(self._tree.alert, encode(alert), retain=False))
        return ForeignInstance(said)

    async def _restore(self, low: int, cursor: int) -> int:
        """Publishes again what rows in (low, cursor] left retained, with its newest content. Returns how many."""
        count = 0
        async for found in messages_to_restore(self._tree, self._journal, low, cursor, self._window.position_of):
            await self._room_for_loose()
            count += await self._refusals.restore(found)
        await self._flushed()
        return count

    async def restore_dropped(self) -> None:
        """Brings the topics of rows that were dropped meanwhile to what they should say."""
        low = await self._journal.restore_from()
        if low is not None:
            async with self.pausing:
                await self._idle()
                await self._restore(low, self._window.prefix)
                await self._journal.clear_restore_from()

    async def republish(self) -> int:
        """Every retained topic again, between two rows of the journal."""
        async with self.pausing:
            await self._idle()
            count = await self._restore(0, self._window.prefix)
        self._say_head()
        self._pump()
        return count

    async def replay(self, whose: tuple[str, str] | None, report: str | None, since: int, until: int) -> int:
        """Sends what the journal has of a span of time once more, marked, while live rows go on. Returns how many."""
        most, count, after = max(1, self._window.size // 2), 0, 0
        places = asyncio.Semaphore(most)
        while rows := await self._journal.history(whose, since, until, after):
            after = rows[-1].seq
            for row in rows:
                message = self._tree.replayed(row) if _asked_for(row.what, row.name, report) else None
                if message is None or not await self._is_small_enough(message):
                    continue
                await self._place(places)
                self._offer(message, lambda _: places.release())
                count += 1
        for _ in range(most):
            await self._place(places)
        return count

    async def announce(self, messages: Iterable[Message]) -> list[bool]:
        """Sends messages without a row, in at most half of the window. Returns which the broker accepted."""
        places, answers = asyncio.Semaphore(max(1, self._window.size // 2)), []
        for message in messages:
            await self._place(places)
            answers.append(await self._answer_of(message, places))
        for answer in answers:
            while not answer.done():
                self._raise_failure()
                await asyncio.wait({answer}, timeout=1.0)
        return [answer.result() for answer in answers]

    async def _answer_of(self, message: Message, places: asyncio.Semaphore) -> asyncio.Future[bool]:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if not await self._is_small_enough(message):
            places.release()
            answer.set_result(False)
            return answer

        def done(accepted: bool) -> None:
            places.release()
            if not answer.done():
                answer.set_result(accepted)

        self._offer(message, done)
        return answer

    async def clear(self, topics: Iterable[str]) -> None:
        """Clears retained topics that nobody owns."""
        for topic in topics:
            await self._room_for_loose()
            self._offer(Message(topic, b"", retain=True))
        await self._flushed()

    def end(self, why: str) -> None:
        """Ends this connection; the publisher makes another."""
        self._fail(aiomqtt.MqttError(why))

    async def _place(self, places: asyncio.Semaphore) -> None:
        """Waits for a place of a replay; a broken connection ends the wait."""
        while True:
            self._raise_failure()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await places.acquire()
                    return

    # ── sending ────────────────────────────────────────────────────────────────────────────────

    def too_large(self, message: Message) -> str | None:
        """Why a message may not be sent: MQTT 5 answers one over the broker's limit with the end of the connection."""
        packet = MAX_REMAINING_LENGTH if self._link is None else self._link.maximum_packet_size
        beside = HEADROOM + len(message.topic.encode()) + len(message.correlation or b"")
        limit = min(self._owner.settings.max_payload, max(0, packet - beside))
        if len(message.payload) <= limit:
            return None
        return f"{len(message.payload)} bytes are more than the {limit} that the broker or mqtt.max_payload allow"

    async def _is_small_enough(self, message: Message) -> bool:
        """Whether a message that has no row is small enough; one that is not is told, once for each topic."""
        reason = self.too_large(message)
        if reason is not None and message.topic not in self._owner.too_large:
            self._owner.too_large.add(message.topic)
            await self._owner.handles.alert("message_too_large", f"{message.topic} cannot be published: {reason}")
        return reason is None

    def _offer(self, message: Message, done: Callable[[bool], None] | None = None) -> None:
        self._window.offer_unjournaled(message, done)
        self._pump()

    send = _offer

    def pump(self) -> None:
        """Sends whatever may be sent now."""
        self._pump()

    async def alert(self, kind: str, sentence: str, *, about: str) -> None:
        """Tells an operator of something about a topic; but for an alert, which would be refused like the first."""
        if about == self._tree.alert:
            _log.error("%s", sentence)
        else:
            await self._owner.handles.alert(kind, sentence)

    def note(self) -> None:
        """There is something to be noted durably."""
        self._answered.set()

    def _pump(self) -> None:
        """Sends whatever may be sent now. Called after everything that makes room."""
        link, self._pumping = self._link, False
        if link is None or self._failure is not None:
            return
        sent = False
        while (slip := self._window.take()) is not None:
            try:
                self._slips[link.send(slip.message)] = slip
            except aiomqtt.MqttError as error:
                self._fail(error)
                return
            except ValueError as error:
                # No broker can take it, and the connection is as good as before.
                self._settle(slip, FIRST_REFUSAL_CODE, str(error))
                continue
            slip.sent_at = time.monotonic()
            sent = True
        if not sent:
            link.set_tcp_quickack()
        self._room.set()

    def _pump_soon(self) -> None:
        """Pumps once for all answers that come in one piece."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _fail(self, error: BaseException) -> None:
        """An error in a callback of paho's would be swallowed there: a task of this session raises it."""
        self._failure = self._failure or error
        self._failed.set()
        self._answered.set()

    async def _end_on_failure(self) -> None:
        """Ends the session at once when something has failed, also while it begins. Raises MqttError."""
        await self._failed.wait()
        self._raise_failure()

    def answered(self, mid: int, code: int, reason: str) -> None:
        """The broker's answer to one message."""
        slip = self._slips.pop(mid, None)
        if slip is not None:
            self._settle(slip, code, reason)

    def _settle(self, slip: Outgoing, code: int, reason: str) -> None:
        """What an answer means for its message."""
        self._suspects.answered(slip.message.topic, accepted=code < FIRST_REFUSAL_CODE)
        self._end_search()
        if code < FIRST_REFUSAL_CODE:
            self._accept(slip)
        else:
            self._refuse(slip, reason)
        self._answered.set()
        self._pump_soon()

    def _accept(self, slip: Outgoing) -> None:
        lane = slip.lane
        doubted = lane is not None and lane.doubted
        self._window.acknowledge(slip)
        if slip.seq:
            self._refusals.accepted(slip.message)
            self._owner.handles.on_sent(slip.message)
        if lane is not None and doubted:
            self._refusals.doubt_ended(lane)

    def _refuse(self, slip: Outgoing, reason: str) -> None:
        self._owner.refusals += 1
        self._last_refused = (slip.message.topic, time.monotonic())
        _log.error("broker refuses %s: %s", slip.message.topic, reason)
        self._window.refuse(slip)
        self._refusals.refused(slip, reason)

    def _end_search(self) -> None:
        """Where everything that was under way when the last connection broke is answered, the window opens."""
        if not self._suspects.topics and self._link is not None:
            self._window.size = self._full_size(self._link)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Does some work beside everything else. Its failure ends the connection."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._retries.add(task)
        task.add_done_callback(self._retried)

    def _retried(self, task: asyncio.Task[None]) -> None:
        self._retries.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._fail(task.exception() or RuntimeError("retry failed"))

    async def _said(self, message: Message) -> None:
        """Sends a message without a row and waits for the broker's answer."""
        accepted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._offer(message, lambda ok: None if accepted.done() else accepted.set_result(ok))
        while not accepted.done():
            self._raise_failure()
            await asyncio.wait({accepted}, timeout=1.0)
            self._check_stall()
        if not accepted.result():
            raise aiomqtt.MqttError(f"the broker refuses {message.topic}: let this user write it in its access rules")

    async def _publish_head_and_wait(self, seq: int) -> None:
        await self._said(self._head_message(seq))
        self._published_head = seq

    async def _room_for_loose(self) -> None:
        while self._window.in_flight >= self._window.size:
            await self.next_answer()

    async def _flushed(self) -> None:
        while self._window.in_flight:
            await self.next_answer()

    async def _idle(self) -> None:
        while self._window.state() != "idle":
            await self.next_answer()

    async def next_answer(self) -> None:
        """Waits until there is room, or a second is over."""
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._room.wait()
        self._raise_failure()
        self._check_stall()

    # ── the tasks of a connection ──────────────────────────────────────────────────────────────

    async def _drain(self) -> None:
        """Reads the journal ahead of the window, page by page, without ever waiting for a page to be finished."""
        at = self._window.prefix
        while True:
            self._owner.journal_grew.clear()
            async with self.pausing:
                rows = await self._journal.after(at, PAGE_ROWS)
                for row in rows:
                    messages = self._tree.messages(row)
                    await self._offer_row(row.seq, messages)
                    at = row.seq
                if self._window.lanes:
                    self._refusals.feed()
            self._pump()
            if not rows:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5.0):
                        await self._owner.journal_grew.wait()
            while self._window.rows > MAX_ROWS_AHEAD - PAGE_ROWS:
                await self.next_answer()

    async def _offer_row(self, seq: int, messages: list[Message]) -> None:
        """Offers a row, but for what is too large; where a class waits, that is left to who reads for it."""
        window = self._window
        fitting = [message for message in messages if self.too_large(message) is None]
        if len(fitting) < len(messages):
            own = [message for message in messages if not window.is_left_to_lane(message.topic)]
            fitting = [message for message in messages if message not in own]
            fitting += await self._refusals.fitting(seq, own)
        window.offer(seq, fitting)

    async def _commit(self) -> None:
        """Notes how far everything is whenever that has changed and no other write is under way."""
        while True:
            self._answered.clear()
            self._raise_failure()
            positions = self._window.positions()
            if positions != self._window.durable or self._refusals.paid:
                await self._save_again_and_again(positions)
                self._owner.cursor = positions.cursor
                self._window.committed(positions)
                self._say_head()
                self._pump()
            else:
                await self._answered.wait()

    async def _save_again_and_again(self, positions: Positions) -> None:
        """Notes positions, and as long as the disk does not take them, again: a new connection would only repeat."""
        wait = FIRST_RETRY_S
        while True:
            try:
                await self._save(positions)
                return
            except StoreUnavailable as error:
                _log.error("the journal's cursor could not be written: %s; next try in %.1f s", error, wait)
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_STORE_WAIT)

    async def _save(self, positions: Positions) -> None:
        if positions.waiting or self._window.durable.waiting or self._refusals.paid:
            await self._journal.save(positions, self._refusals.paid)
        else:
            await self._journal.advance(positions.cursor)

    def _say_head(self) -> None:
        """Tells how far the broker is known to be: one message at a time, and never while topics are restored."""
        seq = self._owner.cursor
        if self._head_under_way or self.pausing.locked() or not self._is_head_behind():
            return

        def done(ok: bool) -> None:
            self._head_under_way = False
            if ok:
                self._published_head = seq
                self._say_head()

        self._head_under_way = True
        self._window.offer_unjournaled(self._head_message(seq), done)

    def _is_head_behind(self) -> bool:
        """Whether a head was published on this connection, and the cursor has moved since."""
        return self._published_head is not None and self._owner.cursor > self._published_head

    def _head_message(self, seq: int) -> Message:
        said = Head(self._tree.journal_id, self._owner.instance, seq)
        return Message(self._tree.head, encode(said), retain=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._raise_failure()
            self._check_stall()

    async def _inform(self) -> None:
        """Publishes the bridge's own state when it changed, at most every INFO_EVERY seconds."""
        while True:
            await asyncio.sleep(INFO_INTERVAL_S)
            info = encode(await self._owner.handles.info())
            if info != self._info:
                await self._said(Message(self._tree.info, info, retain=True))
                self._info = info

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _check_stall(self) -> None:
        """However busy the connection is: a message without an answer holds up all that waits for its row.

        Messages are kept in the order in which they were sent, so the first is the oldest.
        """
        oldest = next(iter(self._slips.values()), None)
        if oldest is not None and time.monotonic() - oldest.sent_at > STALL_TIMEOUT_S:
            raise aiomqtt.MqttError(
                f"the broker did not acknowledge a message on {oldest.message.topic} for {STALL_TIMEOUT_S:.0f} s"
            )

    # ── listening ──────────────────────────────────────────────────────────────────────────────

    @property
    def _birth_topic(self) -> str:
        return f"{self._discovery_prefix}/status"

    def receive(self, message: Received) -> None:
        """Takes a message of the broker. Commands wait in one queue only, the bounded one of `on_command`."""
        if message.topic == self._tree.head:
            self._heard_head(message.payload)
        elif message.topic == self._tree.probe:
            if self._nonce.encode() in message.payload:
                self._probed.set()
            else:
                self._hear_probe(message.payload)
        elif message.topic == self._tree.status:
            self._status = message.payload
            if message.retain:
                self._status_kept.set()
        elif message.topic == self._birth_topic:
            if message.payload == b"online":
                self._owner.handles.on_birth()
        else:
            incoming = self._incoming(message)
            if incoming.retain and self._is_of_a_call(message.topic):
                self._kept.add(message.topic)
            self._owner.handles.on_command(incoming)

    def _is_of_a_call(self, topic: str) -> bool:
        """Whether a command is for a call that there is: any others are as many as their senders like."""
        name = topic.removeprefix(f"{self._tree.base}/bridge/polling/").partition("/")[0]
        return name == "all" or name in CALLS

    def _incoming(self, message: Received) -> CommandMessage:
        """A command. Where its sender wants the answer is a topic that a stranger chose: here alone it is checked."""
        topic, problem = message.response_topic, None
        if topic is not None:
            problem = response_topic_problem(topic, self._tree.base, self._discovery_prefix)
        return CommandMessage(
            message.topic,
            message.payload,
            message.retain,
            topic if problem is None else None,
            message.correlation,
            message.topic in self._kept,
            problem,
        )

    def _hear_probe(self, payload: bytes) -> None:
        """A probe that this session did not send last: one of another bridge with this name is a twin's."""
        try:
            probe = msgspec.json.decode(payload, type=Probe)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if probe.instance != self._owner.instance or probe.process in (None, self._owner.process):
            return
        if not probe.asks:
            self._twin_heard.set()
        elif self._is_online and not self._is_answering_twin:
            self._is_answering_twin = True
            self._offer(self._probe_message(secrets.token_hex(8)), self._twin_answered)
            self.spawn(self._owner.tell_twin(), "mqtt twin")

    def _twin_answered(self, _: bool) -> None:  # as every callback of a message
        self._is_answering_twin = False

    def _heard_head(self, payload: bytes) -> None:
        if self._head.done():
            return
        self._head.set_result(read_head(payload))

    # ── replies and the end ────────────────────────────────────────────────────────────────────

    def reply(self, message: Message, to: CommandMessage | None) -> None:
        """Publishes an answer, and on MQTT 5 also where the sender wants it."""
        answers = [message]
        if to is not None and to.reply_to is not None:
            answers.append(Message(to.reply_to, message.payload, retain=False, correlation=to.correlation))
        for answer in answers:
            if (reason := self.too_large(answer)) is None:
                self._offer(answer)
            else:
                _log.error("no answer on %s: %s", answer.topic, reason)

    async def _say_goodbye(self, *, with_head: bool = False) -> None:
        """The will is for crashes; who leaves says so, if it had said that it is there."""
        if not self._is_online:
            return
        self._window.stop_rows()
        with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
            async with asyncio.timeout(2.0):
                await self._said(Message(self._tree.status, encode(Connection("offline")), retain=True))
                if with_head:
                    await self._publish_last_head()

    async def _publish_last_head(self) -> None:
        """Brings the head to the last acknowledged row: by it a backup that is restored now is recognised."""
        await self._save_last_positions()
        if self._is_head_behind():
            await self._publish_head_and_wait(self._owner.cursor)

    async def _save_last_positions(self) -> None:
        """Notes how far everything is. What cannot be written now is repeated by the next session."""
        positions = self._window.positions()
        if positions != self._window.durable or self._refusals.paid:
            with contextlib.suppress(StoreUnavailable):
                await self._save(positions)
                self._owner.cursor = positions.cursor
                self._window.committed(positions)

    async def close(self) -> None:
        """Remembers which row was first in the way when the connection broke, and ends what is under way."""
        self._fail(aiomqtt.MqttError("the connection to the broker was lost"))
        self._room.set()
        for task in list(self._retries):
            task.cancel()
        await asyncio.gather(*self._retries, return_exceptions=True)
        self._blame()
        await self._save_last_positions()

    def _blame(self) -> None:
        """Finds out which message broke the connection: its class waits, and the others go on at the next one."""
        now, last = time.monotonic(), self._last_refused
        refused = last[0] if last is not None and now - last[1] < RECENT else None
        unanswered = sorted(self._slips.values(), key=lambda slip: (slip.seq, slip.order))
        self._suspects.lost([slip.message.topic for slip in unanswered], refused, now)
        for slip in unanswered:
            if slip.seq and slip.message.topic == self._suspects.culprit:
                self._window.refuse(slip)


def _asked_for(what: str, name: str, report: str | None) -> bool:
    if report is None:
        return True
    return what == "usage" if report == "usage" else name == report and what in ("metric", "history")
