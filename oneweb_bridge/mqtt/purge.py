"""Which retained topics below the base belong to nobody: left by an older database, another base or another program."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

import aiomqtt
import msgspec

from oneweb_bridge.config.schema import Mqtt
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.heads import is_former, read_head
from oneweb_bridge.model.records import Message
from oneweb_bridge.model.status import Head
from oneweb_bridge.mqtt.broker_errors import describe_connection_error
from oneweb_bridge.mqtt.link import MqttConnection, listen_to_retained
from oneweb_bridge.mqtt.probing import read_until_probe
from oneweb_bridge.mqtt.topics import TopicTree, parse_command_topic
from oneweb_bridge.store.journal import Journal

_log = logging.getLogger("oneweb_bridge.publisher")

READ_TIMEOUT_S = 30.0


PublishMessages = Callable[[Sequence[Message]], Awaitable[list[bool]]]
"""Publishes messages within the send window, and returns which the broker accepted. Raises MqttError."""


async def stray_topics(settings: Mqtt, tree: TopicTree, journal: Journal) -> list[str]:
    """The retained topics below the base that the bridge does not own. Raises MqttError."""
    return await without_owned(await retained_topics(settings, tree), tree, journal)


async def retained_topics(settings: Mqtt, tree: TopicTree) -> set[str]:
    """What is retained below the base, but for commands. Raises MqttError."""
    kept = await _read_retained(settings, tree.base, tree.probe)
    return {topic for topic in kept.topics if parse_command_topic(topic, tree.base) is None}


async def without_owned(topics: Iterable[str], tree: TopicTree, journal: Journal) -> list[str]:
    """Those of the topics that were found which the bridge does not own.

    What is owned is read after what was found: a topic that came in between is owned.
    """
    strays = set(topics)
    async for topic in _owned(tree, journal):
        strays.discard(topic)
    return sorted(strays - {tree.status, tree.info, tree.head})


async def clear_old_bases(
    settings: Mqtt, tree: TopicTree, journal: Journal, publish_messages: PublishMessages, *, is_requested: bool
) -> int:
    """Clears what this database left retained below base topics that it had before. Returns how many topics.

    Only where the head there is this database's own, and unless it is asked for not where a bridge says that it is
    online: this may be a copy of that one's database. The head goes last, so that a crash leaves the rest to the next
    connection; before anything else it is set to no row, so that a bridge that comes back to a base which is cleared
    in part publishes all of it again. Raises MqttError.
    """
    count, problems, identity = 0, list[aiomqtt.MqttError](), await journal.identity.read()
    for base in identity.old_bases(tree.base):
        old = TopicTree(base, tree.instance, tree.journal_id)
        try:
            # By a probe below this base: only who can read there knows that nothing is left.
            kept = await _read_retained(settings, base, old.probe)
            head = read_head(kept.bridge.get(old.head, b""))
            if head is None or not is_former(head, base, identity):
                _log.info("%s: nothing of this bridge is left there", base)
            elif b'"online"' in kept.bridge.get(old.status, b"") and not is_requested:
                _log.warning(
                    "%s: a bridge says there that it is online; stop it, or clear what is retained by request/purge",
                    base,
                )
                continue
            else:
                # One base may lie below the other.
                topics = await without_owned({t for t in kept.topics if old.may_own(t)}, tree, journal)
                emptied = Head(str(head.get("journal")), str(head.get("instance")), 0)
                await _publish_all([Message(old.head, encode(emptied), retain=True)], old, publish_messages)
                count += await _clear_base(old, topics, publish_messages)
        except aiomqtt.MqttError as error:
            # It stays known, and does not keep up the others.
            problems.append(error)
        else:
            await journal.identity.forget_base(base)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise aiomqtt.MqttError("; ".join(dict.fromkeys(describe_connection_error(problem) for problem in problems)))
    return count


async def _clear_base(old: TopicTree, topics: Sequence[str], publish_messages: PublishMessages) -> int:
    """Clears topics of an old base, the head last."""
    others = [topic for topic in topics if topic != old.head]
    for part in (others, [old.head]):
        await _publish_all([Message(topic, b"", retain=True) for topic in part], old, publish_messages)
    _log.info("%s: cleared %d retained topics of the former mqtt.base_topic", old.base, len(others) + 1)
    return len(others) + 1


async def _publish_all(messages: Sequence[Message], old: TopicTree, publish_messages: PublishMessages) -> None:
    if not all(await publish_messages(messages)):
        raise aiomqtt.MqttError(
            f"the broker refuses to clear topics below {old.base}: let this user write there in its access rules"
        )


class _Retained(msgspec.Struct):
    """The topics that are retained below a base, and the payloads of those that are the bridge's own state."""

    topics: set[str]
    bridge: dict[str, bytes]


async def _read_retained(settings: Mqtt, base: str, probe_topic: str) -> _Retained:
    """What is retained below a base, read by a connection of its own when it subscribes. Raises MqttError."""
    kept, prefix = _Retained(set(), {}), f"{base}/bridge/"

    async def subscribe(link: MqttConnection) -> None:
        await listen_to_retained(link, f"{base}/#")

    def on_message(message: aiomqtt.Message) -> None:
        topic = str(message.topic)
        if message.retain:
            kept.topics.add(topic)
        if message.retain and topic.startswith(prefix):
            kept.bridge[topic] = bytes(message.payload)

    try:
        await read_until_probe(
            settings, "oneweb-bridge-purge", probe_topic, subscribe, on_message, timeout=READ_TIMEOUT_S
        )
    except TimeoutError:
        raise aiomqtt.MqttError(
            f"the broker did not deliver {probe_topic} in {READ_TIMEOUT_S:.0f} s: let this user read and write below "
            f"{base} in its access rules"
        ) from None
    return kept


async def _owned(tree: TopicTree, journal: Journal) -> AsyncIterator[str]:
    at, end = 0, 1 << 62
    while records := await journal.retained.records_between(at, end):
        for seq, kind, id, doc in records:
            yield tree.record_message(kind, id, doc).topic
            at = seq
    at = 0
    while newest := await journal.retained.newest_between(at, end):
        for seq, entity, report, id, doc in newest:
            yield tree.sample_message(entity, report, id, doc).topic
            at = seq
