"""Executes commands, each retained one once, and answers them: the only way back against the arrow."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal

import msgspec

from oneweb_bridge.clock import Clock
from oneweb_bridge.commands.decode import (
    ALL,
    BadCommand,
    Command,
    Poll,
    Request,
    Set,
    check_report,
    command_identity,
    decode_command,
    id_of,
    is_no_command,
    no_such_call,
    parse_every,
    time_range,
)
from oneweb_bridge.commands.inbox import Inbox
from oneweb_bridge.encoding import count_text, rfc3339
from oneweb_bridge.model.command import Answer, CommandMessage, CommandRefusal
from oneweb_bridge.model.records import Alert
from oneweb_bridge.model.status import CallState, Response, Result
from oneweb_bridge.mqtt.publisher import NotConnected
from oneweb_bridge.mqtt.topics import CommandTopic, parse_command_topic
from oneweb_bridge.polling.call_runtime import PollResult
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.store.commands import PollRequest
from oneweb_bridge.store.errors import StoreError, StoreUnavailable
from oneweb_bridge.store.store import Store
from oneweb_bridge.trends.replay import ReplayQuery
from oneweb_bridge.trends.series import Span

_log = logging.getLogger("oneweb_bridge.commands")
MAX_RUNNING = 1000
"""Polls and requests that are started and not answered yet."""
MAX_LOGGED_CHARS = 256
_ANOTHER_REPLAY = "another replay is under way, expected one at a time"


class BrokerRequests(msgspec.Struct, frozen=True, kw_only=True):
    """What `request/…` commands ask of the outputs. Each returns how many messages it published.

    Each may raise NotConnected, and `replay` StoreError and StoreUnavailable.
    """

    republish: Callable[[], Awaitable[int]]
    republish_discovery: Callable[[], Awaitable[int]]
    replay: Callable[[ReplayQuery], Awaitable[int]]
    purge: Callable[[], Awaitable[int]]


class Executor:
    """`run` executes the commands of the inbox in order. Polls and requests go on in tasks of their own."""

    def __init__(
        self,
        inbox: Inbox,
        poller: Poller,
        store: Store,
        requests: BrokerRequests,
        clock: Clock,
        *,
        base: str,
        is_mqtt5: bool,
        answer_to: Callable[[str], Answer],
        on_answer: Callable[[CommandTopic, Result | Response], None] = lambda *_: None,
    ) -> None:
        self._inbox = inbox
        self._poller = poller
        self._store = store
        self._requests = requests
        self._clock = clock
        self._is_mqtt5 = is_mqtt5
        self._base = base
        self._answer_to = answer_to
        self._on_answer = on_answer
        self._replaying = False
        self._alerted_dropped = 0
        self._running: set[asyncio.Task[None]] = set()
        self._unanswered: Counter[str] = Counter()
        """Topic -> how many of its remembered polls have no result yet, those that have just ended included."""

    async def run(self) -> None:
        """Executes commands until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            await self._resume_polls(group)
            while True:
                message = await self._inbox.get()
                topic = parse_command_topic(message.topic, self._base)
                if topic is not None:
                    await self._handle(message, topic, group)
                await self._alert_dropped()

    async def _resume_polls(self, group: asyncio.TaskGroup) -> None:
        """Requests again the polls that waited when the bridge ended, and answers their commands."""
        waiting: dict[tuple[str, str | None], list[PollRequest]] = {}
        for request in await self._store.commands.poll_requests():
            if request.call in self._poller.calls:
                waiting.setdefault((request.topic, request.sender), []).append(request)
        for (topic_name, sender), requests in waiting.items():
            results = [self._poller.request_poll(request.call, request.number)[0] for request in requests]
            topic = parse_command_topic(topic_name, self._base)
            if topic is not None:
                message, command = (
                    CommandMessage(topic_name, b"", False, self._answer_to(topic_name)),
                    Poll(topic.name, sender),
                )
                is_remembered = any(request.remembered for request in requests)
                answer = self._answer_polls(results, command, message, topic, is_remembered=is_remembered)
                self._start(group, answer, "poll result")

    async def _alert_dropped(self) -> None:
        """Alerts once per flood that commands were dropped."""
        dropped = self._inbox.dropped
        if dropped > self._alerted_dropped and self._inbox.empty():
            count, self._alerted_dropped = dropped - self._alerted_dropped, dropped
            text = f"{count_text(count, 'command')} dropped: commands came faster than they could be executed"
            await self._poller.alert(Alert(kind="commands_dropped", message=text))

    async def _handle(self, message: CommandMessage, topic: CommandTopic, group: asyncio.TaskGroup) -> None:
        try:
            await self._check_and_execute(message, topic, group)
        except StoreUnavailable as error:
            self._publish_result(message, topic, id_of(message.payload), error=_store_error_text(error))

    async def _check_and_execute(self, message: CommandMessage, topic: CommandTopic, group: asyncio.TaskGroup) -> None:
        if is_no_command(topic, message.payload, retain=message.retain):
            return
        if topic.kind == "request" and message.retain:
            self._publish_result(
                message, topic, None, error="ignored: a retained request is not obeyed, publish it without retain"
            )
            return
        try:
            command = decode_command(topic, message.payload)
        except BadCommand as error:
            self._publish_result(message, topic, error.id, error=str(error))
            if error.__cause__ is not None:
                _log.debug("while it was decoded:", exc_info=error.__cause__)
            return
        identity = (message.topic, command_identity(message.payload, command.id))
        may_come_again = message.retain or (not self._is_mqtt5 and message.source == "mqtt")
        is_remembered = topic.kind == "polling" and may_come_again
        was_just_sent = message.follows_retained
        # A setting may be repeated when it was changed meanwhile; a retained poll runs once, ever.
        is_refused_when_repeated = message.retain and not (was_just_sent and isinstance(command, Set))
        if is_remembered and is_refused_when_repeated and await self._was_executed(identity):
            self._refuse_repeated(command, message, topic)
            return
        await self._execute(command, message, topic, identity if is_remembered else None, group)

    async def _was_executed(self, identity: tuple[str, str]) -> bool:
        topic, command = identity
        return await self._store.commands.last_command_identity(topic) == command

    def _refuse_repeated(self, command: Command, message: CommandMessage, topic: CommandTopic) -> None:
        """Answers a retained command that came before: it was executed, or it is a poll that still waits."""
        if self._unanswered[message.topic]:
            self._publish_result(message, topic, command.id, note="this retained poll waits for its turn already")
        else:
            self._publish_result(message, topic, command.id, error="ignored: this retained command was obeyed before")

    async def _execute(
        self,
        command: Command,
        message: CommandMessage,
        topic: CommandTopic,
        identity: tuple[str, str] | None,
        group: asyncio.TaskGroup,
    ) -> None:
        if len(self._running) >= MAX_RUNNING and not isinstance(command, Set):
            error = f"{MAX_RUNNING} polls and requests are under way: wait for their answers"
            self._publish_result(message, topic, command.id, error=error)
            return
        match command:
            case Set():
                await self._set(command, message, topic, identity)
            case Poll():
                await self._poll(command, message, topic, identity, group)
            case Request():
                self._start(group, self._answer_request(command, message, topic), f"request {command.name}")

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> None:
        """Starts a task. MAX_RUNNING bounds them, because each holds memory."""
        task = group.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _set(
        self, command: Set, message: CommandMessage, topic: CommandTopic, identity: tuple[str, str] | None
    ) -> None:
        try:
            await self._poller.change(self._calls_of(command), command.changes, message.source, identity)
        except ValueError as error:
            self._publish_result(message, topic, command.id, error=str(error))
            return
        state = None if command.call == ALL else self._poller.state(self._poller.calls[command.call])
        self._publish_result(message, topic, command.id, state=state)

    def _calls_of(self, command: Set) -> list[str]:
        return list(self._poller.calls) if command.call == ALL else [command.call]

    async def _poll(
        self,
        command: Poll,
        message: CommandMessage,
        topic: CommandTopic,
        identity: tuple[str, str] | None,
        group: asyncio.TaskGroup,
    ) -> None:
        """Stores the poll request, so that it runs after a restart too, and hands it to the poller."""
        enabled = [call for call, runtime in self._poller.calls.items() if runtime.enabled]
        calls = enabled if command.call == ALL else [command.call]
        numbers = await self._store.commands.add_poll_requests(message.topic, calls, command.id, identity)
        requested = [self._poller.request_poll(call, number) for call, number in zip(calls, numbers, strict=True)]
        pause = max((pause for _, pause in requested), default=0.0)
        if pause > 0:
            at = rfc3339(self._clock.now() + round(pause * 1000))
            self._publish_result(
                message, topic, command.id, note=f"the API asked to be left alone: the poll runs at {at}"
            )
        results = [result for result, _ in requested]
        answer = self._answer_polls(results, command, message, topic, is_remembered=identity is not None)
        self._start(group, answer, "poll result")

    async def _answer_polls(
        self,
        polls: list[Awaitable[PollResult]],
        command: Poll,
        message: CommandMessage,
        topic: CommandTopic,
        *,
        is_remembered: bool,
    ) -> None:
        self._unanswered[message.topic] += is_remembered
        results = [await poll for poll in polls]
        self._unanswered[message.topic] -= is_remembered
        error = next((result.error for result in results if result.error), None)
        state = results[0].state if len(results) == 1 and command.call != ALL else None
        self._publish_result(message, topic, command.id, error=error, state=state)

    async def _answer_request(self, command: Request, message: CommandMessage, topic: CommandTopic) -> None:
        try:
            count = await self._run_request(command)
        except (BadCommand, NotConnected) as error:
            self._publish_result(message, topic, command.id, error=str(error))
        except StoreUnavailable as error:
            self._publish_result(message, topic, command.id, error=_store_error_text(error))
        else:
            self._publish_result(message, topic, command.id, count=count)

    async def _run_request(self, command: Request) -> int:
        match command.name:
            case "republish" if command.what == "discovery":
                return await self._requests.republish_discovery()
            case "republish":
                return await self._requests.republish() + await self._requests.republish_discovery()
            case "release":
                return await self._poller.release(command.call)
            case "replay":
                return await self._replay(command)
            case "purge":
                return await self._requests.purge()

    async def _replay(self, command: Request) -> int:
        """Replays history. Raises BadCommand while another replay runs: two would only make both slower."""
        if self._replaying:
            raise BadCommand(_ANOTHER_REPLAY, command.id)
        query = self._replay_query(command)
        self._replaying = True
        try:
            return await self._requests.replay(query)
        except StoreError as error:
            raise BadCommand(str(error), command.id) from None
        finally:
            self._replaying = False

    def _replay_query(self, command: Request) -> ReplayQuery:
        """What a command asks for. Raises BadCommand."""
        if command.imei is not None and command.product_id is not None:
            raise BadCommand("expected imei or product_id, not both", command.id)
        owner = None if command.imei is None else ("terminal", command.imei)
        owner = owner if command.product_id is None else ("product", command.product_id)
        try:
            check_report(command.report, None if owner is None else owner[0])
            return ReplayQuery(
                owner=owner,
                report=command.report,
                span=Span(*time_range(command.since, command.until, self._clock.wall())),
                every_ms=None if command.every is None else parse_every(command.every),
            )
        except ValueError as error:
            raise BadCommand(str(error), command.id) from None

    def _publish_result(
        self,
        message: CommandMessage,
        topic: CommandTopic,
        id: str | None,
        *,
        error: str | None = None,
        state: CallState | None = None,
        count: int | None = None,
        note: str | None = None,
    ) -> None:
        status: Literal["ok", "error"] = "ok" if error is None else "error"
        reply_problem = message.reply_problem
        if error is not None:
            _log.warning("%s: %s", message.topic[:MAX_LOGGED_CHARS], error)
        if topic.verb:
            result = Result(
                id=id,
                command=topic.verb,
                status=status,
                error=error,
                note=note,
                response_topic_error=reply_problem,
                state=state,
            )
            self._answer(message, topic, result)
        else:
            response = Response(id=id, status=status, error=error, count=count, response_topic_error=reply_problem)
            self._answer(message, topic, response)

    def _answer(self, message: CommandMessage, topic: CommandTopic, answer: Result | Response) -> None:
        message.answer(answer)
        self._on_answer(topic, answer)

    def refusal_of(self, topic_name: str, payload: bytes) -> CommandRefusal | None:
        """Why a command would be refused now; None when it can be queued."""
        topic = parse_command_topic(topic_name, self._base)
        if topic is None:
            return CommandRefusal("unknown_call", no_such_call(topic_name.removeprefix(f"{self._base}/")))
        if topic.kind == "polling" and topic.name not in (ALL, *self._poller.calls):
            return CommandRefusal("unknown_call", no_such_call(topic.name))
        try:
            command = decode_command(topic, payload)
            if isinstance(command, Request) and command.name == "replay":
                self._replay_query(command)
                if self._replaying:
                    return CommandRefusal("busy", _ANOTHER_REPLAY)
        except BadCommand as error:
            return CommandRefusal("invalid", str(error))
        try:
            if isinstance(command, Set):
                self._poller.check_budget(self._calls_of(command), command.changes)
        except ValueError as error:
            return CommandRefusal("over_budget", str(error))
        return None


def _store_error_text(error: StoreUnavailable) -> str:
    return f"the database could not be read or written: {error}; nothing was changed, try again"
