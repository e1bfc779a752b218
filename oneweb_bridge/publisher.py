"""Keeps a connection to the broker: one session after the other, with growing pauses between.

It is handed callables and knows no poller.
"""

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

import aiomqtt

from oneweb_bridge.diff import encode
from oneweb_bridge.journal import Journal
from oneweb_bridge.link import Link, cancellations, go_if_cancelled, reason_of
from oneweb_bridge.model import Message
from oneweb_bridge.payloads import Connection
from oneweb_bridge.purge import clear_old_bases, stray_topics
from oneweb_bridge.session import Foreign, Handles, Incoming, Session
from oneweb_bridge.settings import Mqtt
from oneweb_bridge.topics import Tree

_log = logging.getLogger("oneweb_bridge.publisher")

FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0
LONGEST_STORE_WAIT = 5.0
"""Where the broker is well and the disk is not: what failed because of it is tried again soon."""
HEALTHY = 60.0
"""Seconds of connection after which the next loss is followed by a quick reconnect again."""


class Publisher:
    """`run` keeps a connection until it is cancelled."""

    def __init__(self, settings: Mqtt, tree: Tree, journal: Journal, changed: asyncio.Event, handles: Handles) -> None:
        self.settings = settings
        self.instance = tree.instance
        self.tree = tree
        self.journal = journal
        self.changed = changed
        self.handles = handles
        self.connected_since: float | None = None
        self.problem: str | None = "not connected yet"
        self.cursor = 0
        self.refusals = 0
        self._session: Session | None = None
        self.losses: dict[int, int] = {}
        self.too_large: set[str] = set()
        """Topics of messages without a row that were told to be too large, so that they are told once."""

    async def run(self) -> None:
        """Connects, and connects again with growing pauses. Never returns."""
        wait = FIRST_WAIT
        while True:
            started, longest = time.monotonic(), LONGEST_WAIT
            try:
                await self._connect()
            except* (aiomqtt.MqttError, OSError, TimeoutError, Foreign) as group:
                self.problem = reason_of(_first(group))
            except* sqlite3.OperationalError as group:
                # The next session reads from the disk how far the journal is published.
                self.problem = f"the journal could not be read or written: {_first(group)}"
                longest = LONGEST_STORE_WAIT
            finally:
                self.connected_since, self._session = None, None
            wait = min(FIRST_WAIT if time.monotonic() - started > HEALTHY else wait, longest)
            _log.warning(
                "broker %s:%s: %s; next try in %.0f s",
                self.settings.host,
                self.settings.port,
                self.problem,
                wait,
            )
            await asyncio.sleep(wait * (0.8 + secrets.randbelow(400) / 1000))
            wait = min(wait * 2, LONGEST_WAIT)

    async def _connect(self) -> None:
        session = Session(self)
        will = Message(self.tree.status, encode(Connection("offline")), retain=True)
        identifier = f"oneweb-bridge-{self.instance}"
        before = cancellations()
        async with Link(self.settings, identifier, session.answered, will=will, on_message=session.receive) as link:
            self._session = session
            try:
                go_if_cancelled(before)
                await session.run(link)
            finally:
                await session.close()

    def reply(self, message: Message, to: Incoming | None = None) -> None:
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
        if changed and self._session is not None:
            self._session.end("the configuration changed")

    def _connected(self) -> Session:
        if self._session is None:
            raise aiomqtt.MqttError("not connected to the broker")
        return self._session


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
