"""Keeps a connection to the broker: one session after the other, with growing pauses between.

It is handed callables and knows no poller.
"""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import aiomqtt
from aiomqtt.exceptions import MqttConnectError

from oneweb_bridge.config.schema import Mqtt
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Message
from oneweb_bridge.model.status import Connection
from oneweb_bridge.mqtt.link import MqttConnection, Rejected, TakenOver, describe_connection_error
from oneweb_bridge.mqtt.purge import clear_old_bases, stray_topics
from oneweb_bridge.mqtt.session import CommandMessage, ForeignInstance, PublisherCallbacks, Session, TwinConnected
from oneweb_bridge.mqtt.suspects import Suspects
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.growth import JournalGrowth
from oneweb_bridge.store.journal import Journal

_log = logging.getLogger("oneweb_bridge.publisher")

FIRST_RECONNECT_S = 1.0
MAX_RECONNECT_S = 60.0
LONGEST_STORE_WAIT = 5.0
"""Where the broker is well and the disk is not: what failed because of it is tried again soon."""
HEALTHY_AFTER_S = 60.0
"""Seconds of connection after which the next loss is followed by a quick reconnect again."""
LOOK_AGAIN = 60.0
"""Seconds without a connection after which the bridge looks again who publishes below its base."""
MAX_SHORT_CONNECTIONS = 2
"""So many connections in a row that did not last are no accident of the line: the bridge looks again, too."""
LOOK_SUFFIX = "-look"
"""What the client id of a connection that only looks ends with, so that it takes over nobody's connection."""
RETURN = 10.0
"""Seconds after which a bridge comes back that was connected when a twin took its connection."""
GIVE_WAY, LONGEST_ABSENCE = 60.0, 600.0
"""Seconds for which the twin that came later stays away: at first, and at most, each time twice as long."""


class TakeOvers:
    """What a bridge does about a twin: another one with the same instance, and so with the same client id. Pure.

    Only one of them can be connected. Each compares how long its last connection lasted with how long it had been away
    before: the one that has been away longer gives way. After its pause it looks whether the other is there; each
    pause is twice as long. One that does not answer may be gone, so then it comes back in any case.
    """

    def __init__(self) -> None:
        self._lasted, self._was_away = 0.0, GIVE_WAY
        self._in_a_row = 0
        self._has_given_way = False

    def note_connection(self, lasted: float, was_away: float) -> None:
        """A connection of so many seconds is over, which came after so many without one."""
        self._lasted, self._was_away = lasted, was_away
        self._has_given_way = False

    @property
    def gives_way(self) -> bool:
        """Whether this bridge is the one that leaves the other alone."""
        return self._lasted < self._was_away and not self._has_given_way

    def pause(self) -> float:
        """Seconds until the next connection."""
        if not self.gives_way:
            self._in_a_row = 0
            return RETURN
        self._has_given_way = True
        return self.stay_away()

    def stay_away(self) -> float:
        """Seconds until the next look, where the other one is known to be there."""
        self._in_a_row += 1
        return min(GIVE_WAY * 2.0 ** (self._in_a_row - 1), LONGEST_ABSENCE)


class Publisher:
    """`run` keeps a connection until it is cancelled."""

    def __init__(
        self, settings: Mqtt, tree: TopicTree, journal: Journal, growth: JournalGrowth, handles: PublisherCallbacks
    ) -> None:
        self.settings = settings
        self.instance = tree.instance
        self.tree = tree
        self.journal = journal
        self._growth = growth
        self.journal_grew = asyncio.Event()
        self.handles = handles
        self.connected_since: float | None = None
        self.problem: str | None = "not connected yet"
        self.cursor = 0
        self.refusals = 0
        self._session: Session | None = None
        self.suspects = Suspects()
        self.too_large: set[str] = set()
        """Topics of messages without a row that were told to be too large, so that they are told once."""
        self._accepted_at = -math.inf
        self._lost_at = time.monotonic() - GIVE_WAY
        self._take_overs = TakeOvers()
        self._told_twin_at = -math.inf
        self.was_connected = False
        self.process = secrets.token_hex(8)
        """By which the probes of this process are told from those of another bridge with its name."""
        self._look_suffix = LOOK_SUFFIX
        self._short_in_a_row = 0

    async def run(self) -> None:
        """Connects, and connects again with growing pauses. Never returns."""
        with self._growth.subscribe() as self.journal_grew:
            await self._reconnect_loop()

    async def _reconnect_loop(self) -> NoReturn:
        wait = FIRST_RECONNECT_S
        while True:
            started, pause, longest = time.monotonic(), 0.0, MAX_RECONNECT_S
            try:
                await self._connect()
            except* (aiomqtt.MqttError, OSError, TimeoutError, ForeignInstance) as group:
                self.problem = describe_connection_error(_first_error(group))
                if group.subgroup(TakenOver) is not None:
                    self.problem, pause = self._twin_sentence, self._pause_for_twin(group)
                if group.subgroup((ForeignInstance, TakenOver)) is not None:
                    self._accepted_at = -math.inf
            except* StoreUnavailable as group:
                # The next session reads from the disk how far the journal is published.
                self.problem = f"the journal could not be read or written: {_first_error(group)}"
                longest = LONGEST_STORE_WAIT
            finally:
                self.connected_since, self._session = None, None
            # Where it is known what broke the connection, the others need not wait for it.
            well = time.monotonic() - started > HEALTHY_AFTER_S or self.suspects.culprit is not None
            self.suspects.culprit = None
            wait = min(FIRST_RECONNECT_S if well else wait, longest)
            pause = max(pause, wait * (0.8 + secrets.randbelow(400) / 1000))
            _log.warning(
                "broker %s:%s: %s; next try in %.0f s", self.settings.host, self.settings.port, self.problem, pause
            )
            await asyncio.sleep(pause)
            wait = min(wait * 2, MAX_RECONNECT_S)

    def _pause_for_twin(self, group: BaseExceptionGroup[Any]) -> float:
        if group.subgroup(TwinConnected) is not None:
            return self._take_overs.stay_away()
        return self._take_overs.pause()

    async def meet_twin(self) -> None:
        """Another bridge with this instance published while this one was away. Raises TakenOver to give way to it."""
        await self.tell_twin()
        if self._take_overs.gives_way:
            raise TakenOver(self._twin_sentence)

    async def tell_twin(self) -> None:
        """Alerts, once in a while; it waits in the journal until this bridge is connected."""
        if time.monotonic() - self._told_twin_at > LONGEST_ABSENCE:
            await self.handles.alert("client_id_taken", self._twin_sentence)
            self._told_twin_at = time.monotonic()

    @property
    def _twin_sentence(self) -> str:
        return (
            f"another client connects with the client id {self._identifier!r}, and the broker lets in one at a time: "
            f"is this bridge started twice, or has another one the instance {self.instance!r} too? Stop one of them, "
            "or give it an instance of its own"
        )

    @property
    def _identifier(self) -> str:
        return f"oneweb-bridge-{self.instance}"

    async def _connect(self) -> None:
        """One connection, with a will only when this bridge may publish below the base.

        A broker speaks a will as soon as the connection breaks, whoever gave it; a bridge that has yet to see another
        one's head must have none. So the first connection of a process looks without one, and so does each after the
        head was another's, after a take-over, after a minute without connection, and after two connections that did
        not last. Between two connections that follow each other more
        quickly, only a broker that lost the head, and another bridge that was quicker, could make this one a stranger;
        it would leave one round trip after it came, by a DISCONNECT, which takes the will away. Looking each time
        would double the connections, which some brokers count, and on a slow link the time of a reconnect.
        """
        long_ago = time.monotonic() - self._accepted_at > LOOK_AGAIN
        if long_ago or self._short_in_a_row >= MAX_SHORT_CONNECTIONS:
            await self._look()
        session = Session(self)
        will = Message(self.tree.status, encode(Connection("offline")), retain=True)
        async with self._linked(session, will) as link:
            self._session = session
            try:
                await session.run(link)
            except* TakenOver:
                await self.tell_twin()
                raise
            finally:
                self._note_connection()
                await session.close()

    def _note_connection(self) -> None:
        if self.connected_since is not None:
            now = time.monotonic()
            lasted = now - self.connected_since
            self._take_overs.note_connection(lasted, self.connected_since - self._lost_at)
            self._short_in_a_row = self._short_in_a_row + 1 if lasted < HEALTHY_AFTER_S else 0
            self._lost_at = self._accepted_at = now
            self.was_connected = True

    async def _look(self) -> None:
        """Looks under a client id of its own; where the broker refuses that one, the next time under the bridge's."""
        session = Session(self)
        try:
            async with self._linked(session, None, self._look_suffix) as link:
                await session.look(link)
        except (Rejected, MqttConnectError):
            self._look_suffix = "" if self._look_suffix else LOOK_SUFFIX
            raise
        self._accepted_at = time.monotonic()

    def _linked(self, session: Session, will: Message | None, suffix: str = "") -> MqttConnection:
        identifier = self._identifier + suffix
        return MqttConnection(self.settings, identifier, session.answered, will=will, on_message=session.receive)

    def reply(self, message: Message, to: CommandMessage | None = None) -> None:
        """Publishes an answer to a command, also to the response topic that the sender gave, if connected."""
        if self._session is not None:
            self._session.reply(message, to)

    async def republish(self) -> int:
        """Publishes every retained topic again. Returns how many. Raises MqttError."""
        return await self._connected().republish()

    async def announce(self, messages: Sequence[Message]) -> list[bool] | None:
        """Sends messages without a row. Returns which the broker accepted; None without a connection that lasts."""
        if self._session is None or self.connected_since is None:
            return None
        try:
            return await self._session.announce(messages)
        except aiomqtt.MqttError:
            return None

    async def replay(self, whose: tuple[str, str] | None, report: str | None, since: int, until: int) -> int:
        """Sends what the journal has of one entity and id, or of all, once more. Returns how many. Raises MqttError."""
        return await self._connected().replay(whose, report, since, until)

    async def purge(self) -> int:
        """Clears the retained topics below the base that are not the bridge's, and all below its earlier bases.

        Returns how many. Raises MqttError.
        """
        session = self._connected()
        strays = await stray_topics(self.settings, self.tree, self.journal)
        await session.clear(strays)
        return len(strays) + await self._clear_old_bases(session, is_requested=True)

    async def find_strays(self) -> list[str]:
        """The retained topics below the base that the bridge does not own. Raises MqttError."""
        return await stray_topics(self.settings, self.tree, self.journal)

    async def clear_old_bases(self) -> None:
        """Clears what was published below an earlier base topic, when that is wanted; what fails stays to be done."""
        if self._session is None or not self.settings.clear_old_base:
            return
        try:
            await self._clear_old_bases(self._session, is_requested=False)
        except aiomqtt.MqttError as error:
            _log.warning("the former mqtt.base_topic could not be cleared now: %s", error)

    async def _clear_old_bases(self, session: Session, *, is_requested: bool) -> int:
        return await clear_old_bases(
            self.settings, self.tree, self.journal, session.announce, is_requested=is_requested
        )

    def use(self, settings: Mqtt, *, anew: bool = False) -> None:
        """Takes new settings; changed ones make a new connection at once, as `anew` does."""
        changed, self.settings = anew or settings != self.settings, settings
        if changed:
            self._accepted_at = -math.inf
        if changed and self._session is not None:
            self._session.end("the configuration changed")

    def _connected(self) -> Session:
        if self._session is None:
            raise aiomqtt.MqttError("not connected to the broker")
        return self._session


def _first_error(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
