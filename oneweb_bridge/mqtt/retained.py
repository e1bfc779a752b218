"""Builds the retained messages of a range of journal rows with their current content, for a broker that lost them.

A topic that has rows waiting is not among it: those rows bring what is newest.
"""

from collections.abc import AsyncIterator, Callable

import msgspec

from oneweb_bridge.model.records import Debt, Message, Row
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store.journal import Journal

PositionOf = Callable[[str], int]
"""The row up to which everything of a topic is finished."""


class Retained(msgspec.Struct, frozen=True):
    """What a topic is to say, and what names it where it stays owed."""

    message: Message
    id: str
    name: str

    def debt(self) -> Debt:
        """The topic as one that is owed."""
        return Debt(self.message.topic, self.id, self.name)


async def messages_to_restore(
    tree: TopicTree, journal: Journal, after_seq: int, through_seq: int, position_of: PositionOf
) -> AsyncIterator[Retained]:
    """Yields the clears, records and newest samples that rows in (after_seq, through_seq] left, as they are now."""
    async for seq, retained in _retained(tree, journal, after_seq, through_seq):
        if seq <= position_of(retained.message.topic):
            yield retained


async def _retained(
    tree: TopicTree, journal: Journal, after_seq: int, through_seq: int
) -> AsyncIterator[tuple[int, Retained]]:
    seq = after_seq
    while rows := await journal.retained.clearing_between(seq, through_seq):
        for row in rows:
            newer = await _topics_with_newer(tree, journal, row)
            for message in tree.messages_of_row(row):
                if message.retain and message.topic not in newer:
                    yield row.seq, Retained(message, row.id, row.name)
        seq = rows[-1].seq
    seq = after_seq
    while records := await journal.retained.records_between(seq, through_seq):
        for seq, kind, id, doc in records:
            yield seq, Retained(tree.record_message(kind, id, doc), tree.row_id_of(kind, id, doc), id)
        seq = records[-1][0]
    seq = after_seq
    while newest := await journal.retained.newest_between(seq, through_seq):
        for seq, entity, report, id, doc in newest:
            yield seq, Retained(tree.sample_message(entity, report, id, doc), id, report)
        seq = newest[-1][0]


async def _topics_with_newer(tree: TopicTree, journal: Journal, row: Row) -> set[str]:
    """The topics of a row's id that have something newer to say, or will have once the journal is drained."""
    topics = set(await _messages_now(tree, journal, row.id))
    return topics | await _topics_of_rows_after(tree, journal, row.id, row.seq)


async def _messages_now(tree: TopicTree, journal: Journal, id: str) -> dict[str, Message]:
    """What the topics of one id say now."""
    records, newest = await journal.retained.of_id(id)
    messages = [tree.record_message(kind, id, doc) for kind, id, doc in records]
    messages += [tree.sample_message(entity, report, id, doc) for entity, report, id, doc in newest]
    return {message.topic: message for message in messages}


async def _topics_of_rows_after(tree: TopicTree, journal: Journal, id: str, seq: int) -> set[str]:
    """The topics of rows of one id behind row `seq`."""
    topics: set[str] = set()
    while later := await journal.retained.rows_of_id_after(id, seq):
        topics |= {message.topic for row in later for message in tree.messages_of_row(row)}
        seq = later[-1].seq
    return topics


async def message_of_debt(tree: TopicTree, journal: Journal, debt: Debt, position_of: PositionOf) -> Message | None:
    """What a topic that is owed is to say now; None where rows are waiting that will say it."""
    messages = await _messages_now(tree, journal, debt.id) | await _messages_now(tree, journal, debt.name)
    # Looked at after the content: what is committed between is found waiting.
    if debt.topic in await _topics_of_rows_after(tree, journal, debt.id, position_of(debt.topic)):
        return None
    return messages.get(debt.topic, Message(debt.topic, b"", retain=True))
