"""Which retained topics below the base belong to nobody: left by an older database, another base or another program."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator

import aiomqtt

from oneweb_bridge import commands
from oneweb_bridge.diff import encode
from oneweb_bridge.journal import Journal
from oneweb_bridge.link import Link
from oneweb_bridge.model import Message
from oneweb_bridge.payloads import Probe
from oneweb_bridge.settings import Mqtt
from oneweb_bridge.topics import Tree
from oneweb_bridge.values import rfc3339

PATIENCE = 30.0


async def stray_topics(settings: Mqtt, tree: Tree, journal: Journal) -> list[str]:
    """The retained topics below the base that the bridge does not own. Raises MqttError."""
    found = await _retained_topics(settings, tree)
    found -= {tree.status, tree.info, tree.head}
    found = {topic for topic in found if commands.address_of(topic, tree.base) is None}
    # What is owned is read after what was found: a topic that came in between is owned, not stray.
    async for topic in _owned(tree, journal):
        found.discard(topic)
    return sorted(found)


async def _retained_topics(settings: Mqtt, tree: Tree) -> set[str]:
    """All retained topics below the base, by a connection of its own that is told them at subscription."""
    nonce = secrets.token_hex(8)
    topics: set[str] = set()
    probe = Message(tree.probe, encode(Probe(rfc3339(round(time.time() * 1000)), nonce)), retain=False)
    async with Link(settings, f"oneweb-bridge-purge-{nonce[:8]}") as link:
        await link.subscribe(f"{tree.base}/#", qos=1)
        # The broker sends what is retained before what is published later.
        link.send(probe)
        try:
            async with asyncio.timeout(PATIENCE):
                async for message in link.messages:
                    if nonce.encode() in bytes(message.payload):
                        return topics
                    if message.retain:
                        topics.add(str(message.topic))
        except TimeoutError:
            raise aiomqtt.MqttError(f"the broker did not deliver {tree.probe} in {PATIENCE:.0f} s") from None
    return topics


async def _owned(tree: Tree, journal: Journal) -> AsyncIterator[str]:
    at, end = 0, 1 << 62
    while records := await journal.records_between(at, end):
        for seq, kind, id, doc in records:
            yield tree.retained(kind, id, doc).topic
            at = seq
    at = 0
    while newest := await journal.newest_between(at, end):
        for seq, entity, report, id, doc in newest:
            yield tree.metric(entity, report, id, doc).topic
            at = seq
