"""Keeps a connection to the broker: one session after the other, with growing pauses between.

It is handed callables and knows no poller.
"""

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

import aiomqtt
from aiomqtt.exceptions import MqttConnectError

from oneweb_bridge.config.schema import Mqtt
from oneweb_bridge.config.servers import server_name
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.backoff import BackOff
from oneweb_bridge.model.command import Answer
from oneweb_bridge.model.records import Message, Row
from oneweb_bridge.model.status import Connection, Response, Result
from oneweb_bridge.mqtt.answers import WaitingAnswers
from oneweb_bridge.mqtt.broker_errors import Rejected, TakenOver, describe_connection_error
from oneweb_bridge.mqtt.context import ConnectionContext, ConnectionRecord, ForeignInstance, PublisherCallbacks
from oneweb_bridge.mqtt.cursor import MAX_STORE_RETRY_S
from oneweb_bridge.mqtt.link import MqttConnection, run_in_own_task
from oneweb_bridge.mqtt.look import Look
from oneweb_bridge.mqtt.purge import retained_topics
from oneweb_bridge.mqtt.servers import ServerList
from oneweb_bridge.mqtt.session import Session
from oneweb_bridge.mqtt.suspects import Suspects
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.mqtt.twins import GIVE_WAY_S, TwinConnected, Twins
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.growth import JournalGrowth
from oneweb_bridge.store.journal import Journal

_log = logging.getLogger("oneweb_bridge.publisher")

FIRST_RECONNECT_S = 1.0
MAX_RECONNECT_S = 60.0
HEALTHY_AFTER_S = 60.0
"""Seconds of connection after which the next loss is followed by a quick reconnect again."""
LOOK_AGAIN_S = 60.0
"""Seconds without a connection after which the bridge looks again who publishes below its base."""
MAX_SHORT_CONNECTIONS = 2
"""So many connections in a row that did not last are no accident of the line: the bridge looks again, too."""
LOOK_SUFFIX = "-look"
"""What the client id of a connection that only looks ends with, so that it takes over nobody's connection."""


class NotConnected(Exception):
    """A request needs the broker, and the connection is missing or was lost; the text says which."""


class Publisher:
    """`run` keeps a connection until it is cancelled."""

    def __init__(
        self,
        settings: Mqtt,
        tree: TopicTree,
        journal: Journal,
        growth: JournalGrowth,
        callbacks: PublisherCallbacks,
    ) -> None:
        self.settings = settings
        self.tree = tree
        self._journal = journal
        self._growth = growth
        self._callbacks = callbacks
        self._session: Session | None = None
        self._last_connection = ConnectionRecord()
        self._suspects = Suspects()
        self._alerted_topics: set[str] = set()
        self._client_id = f"oneweb-bridge-{tree.instance}"
        self._twins = Twins(self._client_id, tree.instance, callbacks.alert)
        self._process = secrets.token_hex(8)
        self._servers = ServerList(settings)
        self._published_to: set[str] = set()
        """The servers to which this process has published."""
        self._accepted_at = -math.inf
        self._last_error: str | None = "not connected yet"
        self._lost_at = time.monotonic() - GIVE_WAY_S
        self._short_in_a_row = 0
        self._look_suffix = LOOK_SUFFIX
        self._answers = WaitingAnswers()

    @property
    def connected_since(self) -> float | None:
        """Since when the bridge publishes (monotonic time); None without a connection."""
        return None if self._session is None else self._session.connected_at

    @property
    def cursor(self) -> int:
        """The journal row up to which everything is published and saved."""
        return self._last_connection.cursor if self._session is None else self._session.cursor

    async def run(self) -> None:
        """Connects, and connects again with growing pauses. Never returns."""
        with self._growth.subscribe() as journal_grew:
            await self._reconnect_loop(journal_grew)

    async def _reconnect_loop(self, journal_grew: asyncio.Event) -> NoReturn:
        pauses = BackOff(FIRST_RECONNECT_S, MAX_RECONNECT_S)
        while True:
            started, shortest, longest = time.monotonic(), 0.0, MAX_RECONNECT_S
            servers, may_go_on = self._servers, True
            try:
                await run_in_own_task(self._connect(journal_grew), "connection")
            except* (aiomqtt.MqttError, OSError, TimeoutError, ForeignInstance) as group:
                self._last_error = describe_connection_error(_first_error(group))
                if group.subgroup(TakenOver) is not None:
                    self._last_error, shortest = self._twins.sentence, self._pause_for_twin(group)
                if group.subgroup((ForeignInstance, TakenOver)) is not None:
                    # Another broker would not make it right, and its subscribers would hear two bridges.
                    self._accepted_at, may_go_on = -math.inf, False
            except* StoreUnavailable as group:
                # The next session reads from the disk how far the journal is published.
                self._last_error = f"the journal could not be read or written: {_first_error(group)}"
                longest = MAX_STORE_RETRY_S
                may_go_on = False
            if time.monotonic() - started > HEALTHY_AFTER_S:
                servers.begin_round()
            # Where it is known what broke the connection, the others need not wait for it.
            if time.monotonic() - started > HEALTHY_AFTER_S or self._suspects.culprit is not None:
                pauses.reset()
            self._suspects.culprit = None
            failed, is_time_for_pause = server_name(servers.current), True
            if may_go_on and servers is self._servers:
                is_time_for_pause = self._go_to_next_server()
            if is_time_for_pause:
                pause = max(shortest, pauses.pause(longest) * (0.8 + secrets.randbelow(400) / 1000))
                _log.warning("broker %s: %s; next try in %.0f s", failed, self._last_error, pause)
                await asyncio.sleep(pause)
            else:
                next_server = server_name(self._servers.current)
                _log.warning("broker %s: %s; the next server is %s", failed, self._last_error, next_server)

    def _go_to_next_server(self) -> bool:
        """Goes to the next server of the list. True when each was tried since the last pause, so that one is due."""
        if self._servers.has_several():
            # Who publishes there is not known yet.
            self._accepted_at = -math.inf
        return not self._servers.go_to_next()

    def _pause_for_twin(self, group: BaseExceptionGroup[Any]) -> float:
        if group.subgroup(TwinConnected) is not None:
            return self._twins.take_overs.next_absence()
        return self._twins.take_overs.pause()

    async def _connect(self, journal_grew: asyncio.Event) -> None:
        """One connection, with a will only when this bridge may publish below the base.

        A broker publishes a will as soon as the connection breaks, whoever gave it; a bridge that has yet to see
        another one's head must have none. So the first connection of a process looks without one, and so does each
        after the head was another's, after a take-over, after a minute without connection, and after two connections
        that did not last. Between two connections that follow each other more quickly, only a broker that lost the
        head, and another bridge that was quicker, could make this one a stranger; it would leave one round trip after
        it came, by a DISCONNECT, which takes the will away. Looking each time would double the connections, which
        some brokers count, and on a slow link the time of a reconnect.
        """
        servers, context = self._servers, self._context(journal_grew)
        is_long_ago = time.monotonic() - self._accepted_at > LOOK_AGAIN_S
        if is_long_ago or self._short_in_a_row >= MAX_SHORT_CONNECTIONS:
            await self._look(context)
        await self._require_lease()
        will = Message(self.tree.status, encode(Connection("offline")), retain=True)
        async with self._link(will) as link:
            positions = await self._journal.positions()
            # From here to the session nothing may wait: `reconfigure` ends only a session that it sees.
            if servers is not self._servers:
                # Nobody has looked who publishes there.
                self._accepted_at = -math.inf
                raise aiomqtt.MqttError("the configuration changed")
            session = self._session = Session(context, link, positions)
            try:
                await session.run()
            except* TakenOver:
                await self._twins.alert()
                raise
            finally:
                # Who closes the session sees it no more.
                self._session = None
                self._note_connection(await session.close())

    def _context(self, journal_grew: asyncio.Event) -> ConnectionContext:
        return ConnectionContext(
            settings=self._servers.current,
            tree=self.tree,
            journal=self._journal,
            journal_grew=journal_grew,
            callbacks=self._callbacks,
            twins=self._twins,
            process=self._process,
            has_published=server_name(self._servers.current) in self._published_to,
            suspects=self._suspects,
            alerted_topics=self._alerted_topics,
            answer_to=self.answer_to,
            answers=self._answers,
        )

    def _note_connection(self, connection: ConnectionRecord) -> None:
        self._last_connection = connection
        if connection.lasted is None:
            return
        now = time.monotonic()
        self._twins.take_overs.note_connection(connection.lasted, now - connection.lasted - self._lost_at)
        self._short_in_a_row = self._short_in_a_row + 1 if connection.lasted < HEALTHY_AFTER_S else 0
        self._lost_at = self._accepted_at = now
        self._published_to.add(server_name(self._servers.current))

    async def _look(self, context: ConnectionContext) -> None:
        """Looks under a client id of its own; where the broker refuses that one, the next time under the bridge's."""
        await self._require_lease()
        try:
            async with self._link(None, self._look_suffix) as link:
                await Look(context, link).run()
        except (Rejected, MqttConnectError):
            self._look_suffix = "" if self._look_suffix else LOOK_SUFFIX
            raise
        self._accepted_at = time.monotonic()

    async def _require_lease(self) -> None:
        """Raises StoreUnavailable where another worker holds the instance now: it would lose its connection by this.

        This worker may not know it yet, when its machine was asleep.
        """
        if self.tree.epoch is not None:
            await self._journal.require_lease()

    def _link(self, will: Message | None, suffix: str = "") -> MqttConnection:
        return MqttConnection(self._servers.current, self._client_id + suffix, will=will)

    # ── what others ask of it ──────────────────────────────────────────────────────────────────

    def answer_to(
        self, command_topic: str, response_topic: str | None = None, correlation: bytes | None = None
    ) -> Answer:
        """The way back to the sender of a command: the topic for results, and on MQTT 5 where the sender wants it."""
        return partial(self._publish_answer, command_topic, response_topic, correlation)

    def _publish_answer(
        self, command_topic: str, response_topic: str | None, correlation: bytes | None, answer: Result | Response
    ) -> None:
        topic, payload = self.tree.answer_topic(command_topic), encode(answer)
        if topic is None:
            return
        messages = [Message(topic, payload, retain=False)]
        if response_topic is not None:
            messages.append(Message(response_topic, payload, retain=False, correlation=correlation))
        waiting = self._answers.add(messages)
        if self._session is not None:
            self._session.answer(waiting)

    async def publish_messages(self, messages: Sequence[Message]) -> list[bool] | None:
        """Publishes messages without journal rows. Returns which the broker accepted; None without a connection."""
        if self._session is None or self.connected_since is None:
            return None
        try:
            return await self._session.publish_messages(messages)
        except aiomqtt.MqttError:
            return None

    async def republish(self) -> int:
        """Publishes every retained topic again. Returns how many. Raises NotConnected."""
        with _named_errors():
            return await self._connected().resend.republish()

    async def replay(self, pages: AsyncIterator[list[Row]]) -> int:
        """Sends rows once more, to `event` and `history` topics. Returns how many. Raises NotConnected."""
        with _named_errors():
            return await self._connected().resend.replay(pages)

    async def purge(self) -> int:
        """Clears the retained topics below the base that are not the bridge's, and all below its earlier bases.

        Returns how many. Raises NotConnected.
        """
        with _named_errors():
            session = self._connected()
            retained = await retained_topics(self._servers.current, self.tree)
            count = await session.resend.clear_strays(retained)
            return count + await session.clear_old_bases(is_requested=True)

    def reconfigure(self, settings: Mqtt, *, reconnect: bool = False) -> None:
        """Takes new settings; changed ones make a new connection at once, as `reconnect` does."""
        has_changed, self.settings = reconnect or settings != self.settings, settings
        if has_changed:
            self._accepted_at = -math.inf
            self._servers = ServerList(settings)
        if has_changed and self._session is not None:
            self._session.end("the configuration changed")

    def _connected(self) -> Session:
        if self._session is None or self.connected_since is None:
            raise NotConnected("not connected to the broker")
        return self._session


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    """Turns a lost connection, and a TLS file that cannot be read when a connection is made, into NotConnected."""
    try:
        yield
    except (aiomqtt.MqttError, OSError) as error:
        raise NotConnected(describe_connection_error(error)) from error


def _first_error(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
