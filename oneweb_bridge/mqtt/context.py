"""What one connection to the broker is given, and what it leaves to the next one."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from oneweb_bridge.config.schema import Mqtt
from oneweb_bridge.model.command import Answer, CommandMessage
from oneweb_bridge.model.records import Message
from oneweb_bridge.mqtt.answers import WaitingAnswers
from oneweb_bridge.mqtt.suspects import Suspects
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.mqtt.twins import Twins
from oneweb_bridge.store.journal import Journal


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
    on_connected: Callable[[str], None] = lambda _: None
    """Is given host:port of the server, before `info` is published there."""
    on_lost: Callable[[int], Awaitable[None]] = _ignore_loss
    discovery_prefix: Callable[[], str] = lambda: "homeassistant"


class ConnectionContext(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection is given.

    `process` is the id by which the probes of this process are told from those of a twin. `has_published`: this
    process has been connected before. `answer_to` makes the way back to the sender of a command, which outlasts the
    connection. `alerted_topics` are the topics of unjournaled messages that were alerted as too large, and
    behind `refused ` those that were alerted as refused.
    """

    settings: Mqtt
    tree: TopicTree
    journal: Journal
    journal_grew: asyncio.Event
    callbacks: PublisherCallbacks
    twins: Twins
    process: str
    has_published: bool
    suspects: Suspects
    alerted_topics: set[str]
    answer_to: Callable[[str, str | None, bytes | None], Answer]
    answers: WaitingAnswers

    @property
    def instance(self) -> str:
        """The name under which this bridge publishes."""
        return self.tree.instance


class ConnectionRecord(msgspec.Struct, frozen=True):
    """What a connection leaves to the next one: how far the journal is published, and for how many seconds it lasted.

    `lasted` is None for a connection that was lost before it could publish.
    """

    cursor: int = 0
    lasted: float | None = None
