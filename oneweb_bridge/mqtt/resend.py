"""What a span of the journal left retained, with its newest content: for a broker that may have lost it.

A topic that has rows waiting is not among it: those rows bring what is newest.
"""

from collections.abc import AsyncIterator, Callable

import msgspec

from oneweb_bridge.model.records import Debt, Message, Row
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store.journal import Journal

Done = Callable[[str], int]
"""Up to which row everything of a topic is done."""


class Retained(msgspec.Struct, frozen=True):
    """What a topic is to say, and what names it where it stays owed."""

    message: Message
    id: str
    name: str

    def debt(self) -> Debt:
        """The topic as one that is owed."""
        return Debt(self.message.topic, self.id, self.name)


async def messages_to_restore(
    tree: TopicTree, journal: Journal, low: int, cursor: int, done: Done
) -> AsyncIterator[Retained]:
    """The clears, records and newest samples that rows in (low, cursor] left, each as it is to be now."""
    async for seq, found in _retained(tree, journal, low, cursor):
        if seq <= done(found.message.topic):
            yield found


async def _retained(tree: TopicTree, journal: Journal, low: int, cursor: int) -> AsyncIterator[tuple[int, Retained]]:
    at = low
    while rows := await journal.clearing_between(at, cursor):
        for row in rows:
            newer = await _topics_with_newer(tree, journal, row)
            for message in tree.messages(row):
                if message.retain and message.topic not in newer:
                    yield row.seq, Retained(message, row.id, row.name)
        at = rows[-1].seq
    at = low
    while records := await journal.records_between(at, cursor):
        for seq, kind, id, doc in records:
            yield seq, Retained(tree.retained(kind, id, doc), tree.owner(kind, id, doc), id)
        at = records[-1][0]
    at = low
    while newest := await journal.newest_between(at, cursor):
        for seq, entity, report, id, doc in newest:
            yield seq, Retained(tree.metric(entity, report, id, doc), id, report)
        at = newest[-1][0]


async def _topics_with_newer(tree: TopicTree, journal: Journal, row: Row) -> set[str]:
    """The topics of a row's id that have something newer to say, or will have once the journal is drained."""
    topics = set(await _current(tree, journal, row.id))
    return topics | await _later(tree, journal, row.id, row.seq)


async def _current(tree: TopicTree, journal: Journal, id: str) -> dict[str, Message]:
    """What the topics of one id say now."""
    records, newest = await journal.alive(id)
    messages = [tree.retained(kind, id, doc) for kind, id, doc in records]
    messages += [tree.metric(entity, report, id, doc) for entity, report, id, doc in newest]
    return {message.topic: message for message in messages}


async def _later(tree: TopicTree, journal: Journal, id: str, seq: int) -> set[str]:
    """The topics of rows of one id behind row `seq`."""
    topics: set[str] = set()
    while later := await journal.later(id, seq):
        topics |= {message.topic for row in later for message in tree.messages(row)}
        seq = later[-1].seq
    return topics


async def pay(tree: TopicTree, journal: Journal, debt: Debt, done: Done) -> Message | None:
    """What a topic that is owed is to say now; None where rows are waiting that will say it."""
    messages = await _current(tree, journal, debt.id) | await _current(tree, journal, debt.name)
    # Looked at after the content: what is committed between is found waiting.
    if debt.topic in await _later(tree, journal, debt.id, done(debt.topic)):
        return None
    return messages.get(debt.topic, Message(debt.topic, b"", retain=True))
