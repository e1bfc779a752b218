"""Executes commands, each retained one once, and answers them: the only way back against the arrow."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal

import msgspec

from oneweb_bridge.clock import Clock
from oneweb_bridge.commands import decode as commands
from oneweb_bridge.commands.decode import ALL, BadCommand, Poll, Request, Set
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.model.command import Answer, CommandMessage
from oneweb_bridge.model.records import Alert
from oneweb_bridge.model.status import CallState, Response, Result
from oneweb_bridge.mqtt.publisher import NotConnected
from oneweb_bridge.mqtt.topics import CommandTopic, parse_command_topic
from oneweb_bridge.polling.call_runtime import PollResult
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.store.commands import PollRequest
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.store import Store

_log = logging.getLogger("oneweb_bridge.commands")
MOST_WAITING = 1000
MOST_WAITING_BYTES = 4_000_000
MAX_UNDER_WAY = 1000
"""Polls and requests that are asked for and not answered yet."""
MAX_LOGGED_CHARS = 256


class Inbox:
    """Commands that wait to be obeyed, up to a number and a size. What does not fit is dropped and counted."""

    def __init__(self) -> None:
        self.dropped = 0
        self._queue: asyncio.Queue[CommandMessage] = asyncio.Queue(MOST_WAITING)
        self._bytes = 0

    def put(self, incoming: CommandMessage) -> None:
        """Queues a command."""
        size = incoming.size
        if self._queue.full() or self._bytes + size > MOST_WAITING_BYTES:
            self.dropped += 1
        else:
            self._bytes += size
            self._queue.put_nowait(incoming)

    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._queue.empty()

    async def get(self) -> CommandMessage:
        """The next command."""
        incoming = await self._queue.get()
        self._bytes -= incoming.size
        return incoming


class BrokerRequests(msgspec.Struct, frozen=True, kw_only=True):
    """What `request/…` commands ask of the outputs. Each returns how many messages it published.

    Each may raise NotConnected. `replay` is given entity and id, or None for all, the report, and the time window in
    ms.
    """

    republish: Callable[[], Awaitable[int]]
    republish_discovery: Callable[[], Awaitable[int]]
    replay: Callable[[tuple[str, str] | None, str | None, int, int], Awaitable[int]]
    purge: Callable[[], Awaitable[int]]


class Executor:
    """`run` obeys what comes into the inbox, in order. Long work goes on in tasks of its own."""

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
    ) -> None:
        self._inbox = inbox
        self._poller = poller
        self._store = store
        self._requests = requests
        self._clock = clock
        self._is_mqtt5 = is_mqtt5
        self._base = base
        self._answer_to = answer_to
        self._replaying = False
        self._told_dropped = 0
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Obeys commands until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            await self._resume_polls(group)
            while True:
                incoming = await self._inbox.get()
                address = parse_command_topic(incoming.topic, self._base)
                if address is not None:
                    await self._obey_or_say_why_not(incoming, address, group)
                await self._tell_dropped()

    async def _resume_polls(self, group: asyncio.TaskGroup) -> None:
        """Asks again for the polls that waited when the bridge ended, and answers their commands."""
        asked_for: dict[tuple[str, str | None], list[PollRequest]] = {}
        for request in await self._store.commands.poll_requests():
            if request.call in self._poller.calls:
                asked_for.setdefault((request.topic, request.sender), []).append(request)
        for (topic, sender), requests in asked_for.items():
            wishes = [self._poller.request_poll(request.call, request.number)[0] for request in requests]
            address = parse_command_topic(topic, self._base)
            if address is not None:
                incoming, command = (
                    CommandMessage(topic, b"", False, self._answer_to(topic)),
                    Poll(address.name, sender),
                )
                self._start(group, self._answer_polls(wishes, command, incoming, address), "poll result")

    async def _tell_dropped(self) -> None:
        """Alerts once per flood that commands were dropped."""
        dropped = self._inbox.dropped
        if dropped > self._told_dropped and self._inbox.empty():
            count, self._told_dropped = dropped - self._told_dropped, dropped
            said = f"{count} commands came faster than they could be obeyed and were dropped"
            await self._poller.alert(Alert(kind="commands_dropped", message=said))

    async def _obey_or_say_why_not(
        self, incoming: CommandMessage, address: CommandTopic, group: asyncio.TaskGroup
    ) -> None:
        try:
            await self._obey(incoming, address, group)
        except StoreUnavailable as error:
            self._answer(incoming, address, commands.id_of(incoming.payload), error=_not_stored(error))

    async def _obey(self, incoming: CommandMessage, address: CommandTopic, group: asyncio.TaskGroup) -> None:
        if commands.is_no_command(address, incoming.payload, retain=incoming.retain):
            return
        if address.kind == "request" and incoming.retain:
            self._answer(
                incoming, address, None, error="ignored: a retained request is not obeyed, publish it without retain"
            )
            return
        try:
            command = commands.decode(address, incoming.payload)
        except BadCommand as error:
            self._answer(incoming, address, error.id, error=str(error))
            if error.__cause__ is not None:
                _log.debug("while it was decoded:", exc_info=error.__cause__)
            return
        mark = (incoming.topic, commands.command_identity(incoming.payload, command.id))
        remembers = address.kind == "polling" and (incoming.retain or not self._is_mqtt5)
        # A wish may be repeated when somebody else had changed it meanwhile; a retained poll runs once, ever.
        kept = incoming.retain and not (incoming.follows_retained and isinstance(command, Set))
        if remembers and kept and await self._store.commands.last_command_identity(incoming.topic) == mark[1]:
            await self._ignore(command, incoming, address)
            return
        await self._do(command, incoming, address, mark if remembers else None, group)

    async def _ignore(self, command: commands.Command, incoming: CommandMessage, address: CommandTopic) -> None:
        """Answers a retained command that has come before: it was obeyed, or it is a poll that still waits."""
        waits = any(r.remembered and r.topic == incoming.topic for r in await self._store.commands.poll_requests())
        if waits:
            self._answer(incoming, address, command.id, note="this retained poll waits for its turn already")
        else:
            self._answer(incoming, address, command.id, error="ignored: this retained command was obeyed before")

    async def _do(
        self,
        command: commands.Command,
        incoming: CommandMessage,
        address: CommandTopic,
        mark: tuple[str, str] | None,
        group: asyncio.TaskGroup,
    ) -> None:
        if len(self._under_way) >= MAX_UNDER_WAY and not isinstance(command, Set):
            error = f"{MAX_UNDER_WAY} polls and requests are under way: wait for their answers"
            self._answer(incoming, address, command.id, error=error)
            return
        match command:
            case Set():
                await self._set(command, incoming, address, mark)
            case Poll():
                await self._poll(command, incoming, address, mark, group)
            case Request():
                self._start(group, self._request(command, incoming, address), f"request {command.name}")

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> None:
        """Starts what takes its time. How much may be under way is bounded, because each holds memory."""
        task = group.create_task(work, name=name)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _set(
        self, command: Set, incoming: CommandMessage, address: CommandTopic, mark: tuple[str, str] | None
    ) -> None:
        calls = list(self._poller.calls) if command.call == ALL else [command.call]
        try:
            await self._poller.change(calls, command.changes, "mqtt", mark)
        except ValueError as error:
            self._answer(incoming, address, command.id, error=str(error))
            return
        state = None if command.call == ALL else self._poller.state(self._poller.calls[command.call])
        self._answer(incoming, address, command.id, state=state)

    async def _poll(
        self,
        command: Poll,
        incoming: CommandMessage,
        address: CommandTopic,
        mark: tuple[str, str] | None,
        group: asyncio.TaskGroup,
    ) -> None:
        """Stores what is asked for, so that it runs after a restart too, and asks the poller for it."""
        enabled = [call for call, runtime in self._poller.calls.items() if runtime.enabled]
        calls = enabled if command.call == ALL else [command.call]
        numbers = await self._store.commands.add_poll_requests(incoming.topic, calls, command.id, mark)
        wishes = [self._poller.request_poll(call, number) for call, number in zip(calls, numbers, strict=True)]
        pause = max((pause for _, pause in wishes), default=0.0)
        if pause > 0:
            at = rfc3339(self._clock.now() + round(pause * 1000))
            self._answer(incoming, address, command.id, note=f"the API asked to be left alone: the poll runs at {at}")
        self._start(group, self._answer_polls([w for w, _ in wishes], command, incoming, address), "poll result")

    async def _answer_polls(
        self, wishes: list[Awaitable[PollResult]], command: Poll, incoming: CommandMessage, address: CommandTopic
    ) -> None:
        ends = [await wish for wish in wishes]
        error = next((end.error for end in ends if end.error), None)
        state = ends[0].state if len(ends) == 1 and command.call != ALL else None
        self._answer(incoming, address, command.id, error=error, state=state)

    async def _request(self, command: Request, incoming: CommandMessage, address: CommandTopic) -> None:
        try:
            count = await self._requested(command)
        except (BadCommand, NotConnected) as error:
            self._answer(incoming, address, command.id, error=str(error))
        except StoreUnavailable as error:
            self._answer(incoming, address, command.id, error=_not_stored(error))
        else:
            self._answer(incoming, address, command.id, count=count)

    async def _requested(self, command: Request) -> int:
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
        """One at a time: a second replay would only make both slower."""
        if self._replaying:
            raise BadCommand("another replay is under way, expected one at a time", command.id)
        if command.imei is not None and command.product_id is not None:
            raise BadCommand("expected imei or product_id, not both", command.id)
        try:
            since, until = commands.time_range(command.since, command.until, self._clock.wall())
        except ValueError as error:
            raise BadCommand(str(error), command.id) from None
        whose = None if command.imei is None else ("terminal", command.imei)
        whose = whose if command.product_id is None else ("product", command.product_id)
        self._replaying = True
        try:
            return await self._requests.replay(whose, command.report, since, until)
        finally:
            self._replaying = False

    def _answer(
        self,
        incoming: CommandMessage,
        address: CommandTopic,
        id: str | None,
        *,
        error: str | None = None,
        state: CallState | None = None,
        count: int | None = None,
        note: str | None = None,
    ) -> None:
        status: Literal["ok", "error"] = "ok" if error is None else "error"
        unused = incoming.reply_problem
        if error is not None:
            _log.warning("%s: %s", incoming.topic[:MAX_LOGGED_CHARS], error)
        if address.verb:
            result = Result(
                id=id,
                command=address.verb,
                status=status,
                error=error,
                note=note,
                response_topic_error=unused,
                state=state,
            )
            incoming.answer(result)
        else:
            incoming.answer(Response(id=id, status=status, error=error, count=count, response_topic_error=unused))


def _not_stored(error: StoreUnavailable) -> str:
    return f"the database could not be read or written: {error}; nothing was changed, try again"
