"""What a span of the journal left retained, with its newest content: for a broker that may have lost it."""

from collections.abc import AsyncIterator

from oneweb_bridge.journal import Journal
from oneweb_bridge.model import Message, Row
from oneweb_bridge.topics import Tree


async def retained(tree: Tree, journal: Journal, low: int, cursor: int) -> AsyncIterator[Message]:
    """The clears, records and newest samples that rows in (low, cursor] left, each as it is to be now."""
    at = low
    while rows := await journal.clearing_between(at, cursor):
        for row in rows:
            newer = await _newer(tree, journal, row)
            for message in tree.messages(row):
                if message.retain and message.topic not in newer:
                    yield message
        at = rows[-1].seq
    at = low
    while records := await journal.records_between(at, cursor):
        for _, kind, id, doc in records:
            yield tree.retained(kind, id, doc)
        at = records[-1][0]
    at = low
    while newest := await journal.newest_between(at, cursor):
        for _, entity, report, id, doc in newest:
            yield tree.metric(entity, report, id, doc)
        at = newest[-1][0]


async def _newer(tree: Tree, journal: Journal, row: Row) -> set[str]:
    """The topics of a row's id that have something newer to say, or will have once the journal is drained."""
    records, newest = await journal.alive(row.id)
    topics = {tree.retained(kind, id, doc).topic for kind, id, doc in records}
    topics |= {tree.metric(entity, report, id, doc).topic for entity, report, id, doc in newest}
    at = row.seq
    while later := await journal.later(row.id, at):
        topics |= {message.topic for one in later for message in tree.messages(one)}
        at = later[-1].seq
    return topics
