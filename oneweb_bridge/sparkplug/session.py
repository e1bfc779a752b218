"""One connection of an Edge Node: subscribe, wait for the host, be born, and then send what the journal has.

What is sent with QoS 0 nobody confirms. So after each piece the session subscribes to its commands again: a broker
that answers this has read everything before it, because packets of one connection are read in their order. Only then
does the cursor move. A broken connection leaves the cursor where it was, and the next session sends what is behind it
once more, as history after its births.

Each birth is made of what is stored when it is made, and is up to a row of the journal. Of that Device, samples up to
there are history, and records are in the birth already; what is behind it is live. What waited before the births began
goes out first, Device by Device: see `backlog`.
"""

import asyncio
import contextlib
import time
from collections import deque

import aiomqtt

from oneweb_bridge.model.status import Result
from oneweb_bridge.mqtt.link import MqttConnection, Received
from oneweb_bridge.sparkplug import content, node_metrics
from oneweb_bridge.sparkplug.births import Births
from oneweb_bridge.sparkplug.edge_node import EdgeNode, Reading
from oneweb_bridge.sparkplug.host import HostState, Rebirths, state_topic
from oneweb_bridge.sparkplug.rows import RowReader
from oneweb_bridge.sparkplug.shared import NodeState, SharedState
from oneweb_bridge.sparkplug.tree import Metric
from oneweb_bridge.sparkplug.wire import EdgeLink
from oneweb_bridge.sparkplug.writes import CallWrite, Rebirth, Refusal, command_of, read_writes
from oneweb_bridge.store.errors import StoreUnavailable

MAX_WAITING_COMMANDS = 1000
"""NCMDs that wait to be read; of more the oldest are dropped."""
BACKLOG_INTERVAL_S = 10.0
"""Seconds between two messages of how much waits."""


class HostOffline(Exception):
    """The primary host said that it is offline: this connection ends, and another one waits for the host."""


class EdgeSession:
    """One session of an Edge Node, over one connection. `run` ends with an exception group when that is lost."""

    def __init__(
        self,
        shared: SharedState,
        state: NodeState,
        link: MqttConnection,
        node: EdgeNode,
        *,
        host_timeout: float | None = None,
    ) -> None:
        """`host_timeout`: seconds to wait for the primary host; None waits for as long as the connection lasts."""
        self._host_timeout = host_timeout
        self._shared = shared
        self._state = state
        self._link = link
        self._node = node
        self._wire = EdgeLink(link, node)
        self._births = Births(shared, state, node, self._wire, self._is_interrupted)
        self._rows = RowReader(shared, state, node, self._births, self._wire)
        self._rebirths = Rebirths(0.0)
        self._commands: deque[bytes] = deque(maxlen=MAX_WAITING_COMMANDS)
        self._answers: deque[tuple[str, tuple[str, ...]]] = deque()
        """Calls, and the members of their states of which the value in force is to be sent."""
        self._retained_command: bytes | None = None
        self._unchanged: dict[str, Metric] = {}
        """Metrics that nobody may write, and somebody did: they are sent as they are."""
        self._refused: deque[str] = deque(maxlen=MAX_WAITING_COMMANDS)
        self._twin_seen = False
        self._host_came = self._host_left = self._is_host_ahead = False
        self._backlog_at = 0.0
        host = shared.config.sparkplug.primary_host_id
        self._state_topic = None if host is None else state_topic(host)
        # Whether it is there is learned anew on each connection; what is older than the last word is not believed.
        state.host = HostState(timestamp=state.host.timestamp)

    async def run(self) -> None:
        """Everything that one connection does. Never returns; an end in order says the node's death."""
        self._link.hand_over(self._wire.on_puback, self._receive)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._link.wait_for_end(), name="sparkplug end")
                group.create_task(self._work(), name="sparkplug work")
        except asyncio.CancelledError:
            await self._wire.end()
            raise
        except BaseExceptionGroup as group:
            if group.subgroup((HostOffline, StoreUnavailable)) is not None:
                await self._wire.end()
            else:
                self._wire.leave_the_death_to_the_broker()
            raise

    # ── what comes in ──────────────────────────────────────────────────────────────────────────

    def _receive(self, message: Received) -> None:
        state = self._state
        if message.topic == self._state_topic:
            tolerance = round(self._shared.config.api.clock_tolerance * 1000)
            state.host, change = state.host.after(message.payload, self._shared.now(), tolerance)
            self._note_host_clock()
            self._host_left = self._host_left or (change == "offline" and self._host_came)
        elif message.topic == self._node.topics.of("NCMD"):
            if not message.retain:
                self._commands.append(message.payload)
            elif message.payload != self._retained_command:
                # It comes again with each answer of the broker, which is to a SUBSCRIBE.
                self._retained_command = message.payload
                self._refused.append("Sparkplug: a retained NCMD is not obeyed: publish it without retain")
        elif message.topic == self._node.topics.of("NBIRTH") and message.payload not in state.own_births:
            self._twin_seen = True
        state.wake.set()

    def _note_host_clock(self) -> None:
        """Has it alerted, once for a connection, that the times of the host cannot be right."""
        if self._state.host.ahead and not self._is_host_ahead:
            seconds = self._state.host.ahead // 1000
            self._refused.append(
                f"Sparkplug: {self._state_topic} has a time {seconds} s ahead of this machine's clock: one of them is "
                "wrong; what it says is believed, its time is not remembered"
            )
        self._is_host_ahead = bool(self._state.host.ahead)

    async def _subscribe(self) -> None:
        filters = [self._node.topics.of("NCMD"), *([] if self._state_topic is None else [self._state_topic])]
        await self._wire.subscribe(*filters)
        # Only to notice another bridge with the same ids: access rules may forbid it.
        with contextlib.suppress(aiomqtt.MqttError):
            await self._wire.subscribe(self._node.topics.of("NBIRTH"))

    async def _wait_for_host(self) -> None:
        """Raises HostOffline when there is another server where the host may be, and it does not come here."""
        try:
            async with asyncio.timeout(self._host_timeout):
                while self._state_topic is not None and not self._state.host.online:
                    self._state.wake.clear()
                    await self._state.wake.wait()
        except TimeoutError:
            raise HostOffline(self._state_topic) from None
        self._host_came = True
        self._commands.clear()

    # ── the loop ───────────────────────────────────────────────────────────────────────────────

    async def _work(self) -> None:
        await self._subscribe()
        await self._wait_for_host()
        await self._bear()
        while True:
            self._state.wake.clear()
            if self._host_left:
                raise HostOffline(self._state_topic)
            self._read_commands()
            await self._tell_refusals()
            if not self._rebirths.is_waiting:
                await self._tell()
            elif self._rebirths.is_due(time.monotonic()):
                await self._bear()
            if self._rebirths.is_waiting or not self._rows.has_more:
                await self._wait()

    async def _bear(self) -> None:
        through = self._shared.through
        await self._births.bear_all()
        self._rows.begin(through)
        self._rebirths = Rebirths(self._births.born_at)
        self._backlog_at = time.monotonic()

    async def _tell(self) -> None:
        """What has changed since, in the order in which it must be sent. Raises MqttError."""
        await self._births.sync_dirty()
        if self._births.has_other_quality:
            await self._births.tell_quality()
        if self._is_interrupted():
            return
        self._tell_node()
        await self._tell_answers()
        if self._rows.has_more:
            await self._rows.send_next()
        await self._wire.confirm()

    def _is_interrupted(self) -> bool:
        """Whether a rebirth was asked for, or the host has left: then no more data are sent, which may be many."""
        self._read_commands()
        return self._rebirths.is_waiting or self._host_left

    def _tell_node(self) -> None:
        """Whether the API is there, and what waits."""
        shared, now = self._shared, self._shared.now()
        watch = shared.watch
        metrics = [node_metrics.api_metric(is_connected=watch.is_connected, since=watch.changed_at or now)]
        if self._state.is_first and time.monotonic() - self._backlog_at >= BACKLOG_INTERVAL_S:
            self._backlog_at = time.monotonic()
            metrics.append(node_metrics.backlog_metric(shared.backlog(), now))
        self._send_node(self._node.changed("", metrics))

    def _send_node(self, metrics: list[Metric]) -> None:
        self._state.note_sent(metrics)
        readings = [Reading(metric) for metric in metrics]
        for message in self._node.live("", readings, self._shared.now()) if readings else ():
            self._wire.send(message)

    async def _wait(self) -> None:
        due = self._rebirths.due
        timeout = BACKLOG_INTERVAL_S if due is None else max(0.0, due - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._state.wake.wait()

    # ── writes ─────────────────────────────────────────────────────────────────────────────────

    def _read_commands(self) -> None:
        while self._commands:
            for write in read_writes(self._commands.popleft(), self._node.aliases.spec_of):
                match write:
                    case Rebirth():
                        self._rebirths = self._rebirths.request(time.monotonic())
                    case CallWrite():
                        self._submit(write)
                    case Refusal():
                        self._refuse(write)

    async def _tell_refusals(self) -> None:
        """Alerts what could not be obeyed, and another bridge with the same ids."""
        if self._twin_seen:
            self._twin_seen = False
            await self._shared.refuse(
                f"Sparkplug: another client publishes births of Edge Node {self._state.edge_node_id} in group "
                f"{self._shared.config.sparkplug.group_id}: give each bridge its own sparkplug.edge_node_id"
            )
        while self._refused:
            await self._shared.refuse(self._refused.popleft())

    def _submit(self, write: CallWrite) -> None:
        if write.member == "poll" and not write.value:
            self._answers.append((write.call, ("poll",)))
            return
        members = ("last_poll", "status", "poll") if write.member == "poll" else (write.member,)

        def on_result(result: Result) -> None:
            if result.note is not None:
                return
            if result.error is not None and result.state is None:
                self._refused.append(f"Sparkplug: a write of {write.call} {write.member}: {result.error}")
            self._answers.append((write.call, members))
            self._state.wake.set()

        topic, payload = command_of(write)
        problem = self._shared.callbacks.submit(topic, payload, on_result)
        if problem is not None:
            self._refused.append(f"Sparkplug: a write of {write.call} {write.member}: {problem}")
            self._answers.append((write.call, members))

    def _refuse(self, refusal: Refusal) -> None:
        self._refused.append(f"Sparkplug: {refusal.sentence}")
        place = content.call_of_metric(refusal.metric)
        if place is not None:
            self._answers.append((place[0], (place[1],)))
        elif (metric := self._state.last_sent(refusal.metric)) is not None:
            self._unchanged[refusal.metric] = metric

    async def _tell_answers(self) -> None:
        """The values in force after writes, whether or not they have changed. Raises MqttError."""
        if self._unchanged:
            self._send_node(list(self._unchanged.values()))
            self._unchanged.clear()
        if not self._answers:
            return
        answers = list(self._answers)
        self._answers.clear()
        _, states = await self._shared.tables.call_states()
        self._send_node(
            [
                metric
                for call, members in dict.fromkeys(answers)
                for metric in node_metrics.call_metrics_of(call, states, self._shared.now(), members)
            ]
        )
