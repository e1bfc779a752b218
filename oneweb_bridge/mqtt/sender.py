"""Sends what the window allows over one connection, and hands on the broker's answers.

Whoever waits here for an answer is woken by it, or by the failure of the connection: nothing is asked again and again.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, NoReturn

import aiomqtt

from oneweb_bridge.model.records import Message
from oneweb_bridge.mqtt.broker_errors import FIRST_REFUSAL_CODE
from oneweb_bridge.mqtt.context import ConnectionContext
from oneweb_bridge.mqtt.lane import OnAnswer, Outgoing
from oneweb_bridge.mqtt.link import MAX_BESIDE_PAYLOAD, MqttConnection
from oneweb_bridge.mqtt.window import SendWindow

STALL_TIMEOUT_S = 30.0
"""Seconds without the broker's answer to one message, after which the connection is given up."""
WATCH_INTERVAL_S = 1.0
HEADROOM_BYTES = 128
"""Bytes of a PUBLISH beside its topic, correlation data and payload: header, lengths, packet id, other properties."""

OnAnswered = Callable[[Outgoing, int, str], None]
"""An outgoing message, and the broker's reason code for it with its name."""


class Sender:
    """Sends what the window of one connection allows.

    `window` decides what goes next; `on_answered` (of the session) gives an answer its effect. `on_progress` is called
    after each batch of answers or messages.
    """

    def __init__(
        self,
        context: ConnectionContext,
        link: MqttConnection,
        window: SendWindow,
        on_answered: OnAnswered,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.window = window
        self.link = link
        self._max_payload = context.settings.max_payload
        self._context = context
        self._on_answered = on_answered
        self._on_progress = on_progress
        self._in_flight: dict[int, Outgoing] = {}
        self._window_changed = asyncio.Event()
        self._failure: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_answers = False

    # ── sending ────────────────────────────────────────────────────────────────────────────────

    def send(self, message: Message, on_answer: OnAnswer | None = None) -> None:
        """Sends a message without a journal row; `on_answer` is given whether the broker accepted it."""
        self.window.offer_unjournaled(message, on_answer)
        self.pump()

    def pump(self) -> None:
        """Sends whatever may be sent now. To be called after everything that makes room in the window."""
        self._has_answers = False
        if self._failure.done():
            return
        has_sent, now = False, time.monotonic()
        while (outgoing := self.window.next_to_send()) is not None:
            try:
                self._in_flight[self.link.send(outgoing.message)] = outgoing
            except aiomqtt.MqttError as error:
                self.fail(error)
                return
            except ValueError as error:
                # No broker can take it, and the connection is as good as before.
                self._on_answered(outgoing, FIRST_REFUSAL_CODE, str(error))
                continue
            outgoing.sent_at = now
            has_sent = True
        if not has_sent:
            self.link.set_tcp_quickack()
        self._on_progress()
        self._window_changed.set()

    def on_puback(self, packet_id: int, code: int, reason: str) -> None:
        """The broker's answer to one message; when all that came with it are read, `on_read` is called."""
        outgoing = self._in_flight.pop(packet_id, None)
        if outgoing is not None:
            self._has_answers = True
            self._on_answered(outgoing, code, reason)

    def on_read(self) -> None:
        """Sends what the answers made room for."""
        if self._has_answers:
            self.pump()

    def unanswered(self) -> list[Outgoing]:
        """The messages that wait for the broker's answer, oldest row first."""
        return sorted(self._in_flight.values(), key=lambda outgoing: (outgoing.seq, outgoing.order))

    async def publish_and_wait(self, message: Message) -> None:
        """Sends a message without a journal row and waits for the answer. Raises MqttError when it is refused."""
        accepted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.send(message, lambda ok: None if accepted.done() else accepted.set_result(ok))
        await self._wait_for(accepted)
        if not accepted.result():
            raise aiomqtt.MqttError(f"the broker refuses {message.topic}: let this user write it in its access rules")

    async def publish_messages(self, messages: Iterable[Message]) -> list[bool]:
        """Sends messages without a journal row, beside the rows. Returns which the broker accepted."""
        messages = list(messages)
        accepted = [False] * len(messages)
        batch = self.batch()
        for index, message in enumerate(messages):
            if await self.is_small_enough(message):
                await batch.send(message, partial(accepted.__setitem__, index))
        await batch.wait_until_answered()
        return accepted

    def batch(self) -> "Batch":
        """Sends many messages in at most half of the window, so that journal rows go on."""
        return Batch(self, max(1, self.window.size // 2))

    # ── sizes ──────────────────────────────────────────────────────────────────────────────────

    def too_large(self, message: Message) -> str | None:
        """Why a message may not be sent: MQTT 5 answers one over the broker's limit with the end of the connection."""
        size, most = len(message.payload), self.link.maximum_packet_size
        if size <= self._max_payload and size + MAX_BESIDE_PAYLOAD <= most:
            # Whatever its topic is, so nothing needs to be measured.
            return None
        beside = HEADROOM_BYTES + len(message.topic.encode()) + len(message.correlation or b"")
        limit = min(self._max_payload, max(0, most - beside))
        if size <= limit:
            return None
        return f"{size} bytes are more than the {limit} that the broker or mqtt.max_payload allow"

    async def is_small_enough(self, message: Message) -> bool:
        """Whether an unjournaled message may be sent; alerts once for each topic where it is too large."""
        reason, alerted = self.too_large(message), self._context.alerted_topics
        if reason is not None and message.topic not in alerted:
            alerted.add(message.topic)
            sentence = f"{message.topic} cannot be published: {reason}"
            await self._context.callbacks.alert("message_too_large", sentence)
        return reason is None

    # ── waiting ────────────────────────────────────────────────────────────────────────────────

    async def wait_for_change(self, timeout: float | None = None) -> None:
        """Waits until something was answered or sent, at most `timeout` seconds. Raises what ended the connection."""
        # Where it has ended already, nothing changes any more.
        self.raise_failure()
        self._window_changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._window_changed.wait()
        self.raise_failure()

    async def wait_for_free_window(self) -> None:
        """Waits until another message may be sent at once. Raises what ended the connection."""
        self.raise_failure()
        while self.window.in_flight >= self.window.size:
            await self.wait_for_change()

    async def wait_until_answered(self) -> None:
        """Waits until the broker has answered all that was sent. Raises what ended the connection."""
        self.raise_failure()
        while self.window.in_flight:
            await self.wait_for_change()

    async def wait_until_idle(self) -> None:
        """Waits until all rows are published and the cursor is saved behind them. Raises what ended the connection."""
        self.raise_failure()
        while self.window.state() != "idle":
            await self.wait_for_change()

    async def _wait_for(self, answer: "asyncio.Future[bool]") -> None:
        ends: set[asyncio.Future[Any]] = {answer, self._failure}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            self.raise_failure()

    # ── failing ────────────────────────────────────────────────────────────────────────────────

    def fail(self, error: BaseException) -> None:
        """Ends the connection with an error, which a task of it raises: in a callback of paho it would be lost."""
        if not self._failure.done():
            self._failure.set_exception(error)
            # It may be that nobody waits for it, which asyncio would report.
            self._failure.exception()
        self._window_changed.set()

    def raise_failure(self) -> None:
        """Raises what ended the connection, if it has ended."""
        if self._failure.done():
            self._failure.result()

    async def end_on_failure(self) -> None:
        """Ends the connection at once when something has failed. Raises the error."""
        await asyncio.wait({self._failure})
        self.raise_failure()

    async def watch_loop(self) -> None:
        """Ends the connection when a message has waited too long for its answer. Raises MqttError."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            self.check_stall()

    def check_stall(self) -> None:
        """Raises MqttError when a message has waited STALL_TIMEOUT_S for its answer, however busy the connection is.

        Messages are kept in the order in which they were sent, so the first is the oldest.
        """
        oldest = next(iter(self._in_flight.values()), None)
        if oldest is not None and time.monotonic() - oldest.sent_at > STALL_TIMEOUT_S:
            raise aiomqtt.MqttError(
                f"the broker did not acknowledge a message on {oldest.message.topic} for {STALL_TIMEOUT_S:.0f} s"
            )

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Does some work beside everything else. Its failure ends the connection."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def close(self) -> Sequence[Outgoing]:
        """Ends all waits and all spawned work. Returns the messages that were not answered, oldest row first."""
        self.fail(aiomqtt.MqttError("the connection to the broker was lost"))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return self.unanswered()


class Batch:
    """Unjournaled messages of which at most `limit` are under way. Made by `Sender.batch`."""

    def __init__(self, sender: Sender, limit: int) -> None:
        self._sender = sender
        self._limit = limit
        self._under_way = 0

    async def send(self, message: Message, on_answer: OnAnswer = lambda _: None) -> None:
        """Sends a message when there is room for it. Raises what ended the connection."""
        while self._under_way >= self._limit:
            await self._sender.wait_for_change()

        def done(accepted: bool) -> None:
            self._under_way -= 1
            on_answer(accepted)

        self._under_way += 1
        self._sender.send(message, done)

    async def wait_until_answered(self) -> None:
        """Waits until the broker has answered all of them. Raises what ended the connection."""
        while self._under_way:
            await self._sender.wait_for_change()
