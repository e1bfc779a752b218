"""Publishes once more: retained topics that the broker may have lost, or history on request."""

import asyncio
from collections.abc import AsyncIterator, Iterable

from oneweb_bridge.model.records import Message, Row
from oneweb_bridge.mqtt.context import ConnectionContext
from oneweb_bridge.mqtt.cursor import CursorWriter
from oneweb_bridge.mqtt.purge import without_owned
from oneweb_bridge.mqtt.refusals import Refusals
from oneweb_bridge.mqtt.retained import messages_to_restore
from oneweb_bridge.mqtt.sender import Sender


class Resend:
    """Restores, republishes and replays over one connection.

    Holds `drain_lock` while it restores, so that nothing newer of a topic comes between.
    """

    def __init__(
        self,
        context: ConnectionContext,
        sender: Sender,
        refusals: Refusals,
        cursor: CursorWriter,
        drain_lock: asyncio.Lock,
    ) -> None:
        self._journal = context.journal
        self._tree = context.tree
        self._sender = sender
        self._refusals = refusals
        self._cursor = cursor
        self._drain_lock = drain_lock

    async def restore(self, after_seq: int, through_seq: int) -> int:
        """Publishes again what rows in (after_seq, through_seq] left retained, with its newest content.

        Returns how many topics.
        """
        count = 0
        position_of = self._sender.window.lanes.position_of
        async for topic in messages_to_restore(self._tree, self._journal, after_seq, through_seq, position_of):
            await self._sender.wait_for_free_window()
            count += await self._refusals.restore(topic)
        await self._sender.wait_until_answered()
        return count

    async def restore_dropped(self) -> None:
        """Restores the topics of rows that were dropped since this connection began."""
        while (mark := await self._journal.restore_mark()).after is not None:
            async with self._drain_lock:
                with self._cursor.withhold_heads():
                    await self._sender.wait_until_idle()
                    await self.restore(mark.after, self._sender.window.finished_seq)
                    await self._journal.clear_restore_mark(mark)

    async def republish(self) -> int:
        """Publishes every retained topic again, between two rows of the journal. Returns how many."""
        async with self._drain_lock:
            with self._cursor.withhold_heads():
                await self._sender.wait_until_idle()
                return await self.restore(0, self._sender.window.finished_seq)

    async def replay(self, pages: AsyncIterator[list[Row]]) -> int:
        """Sends rows once more, marked as replayed, while live rows go on. Returns how many."""
        batch, count = self._sender.batch(), 0
        async for rows in pages:
            for row in rows:
                message = self._tree.replay_message(row)
                if message is not None and await self._sender.is_small_enough(message):
                    await batch.send(message)
                    count += 1
        await batch.wait_until_answered()
        return count

    async def clear_strays(self, topics: Iterable[str]) -> int:
        """Clears those of the retained topics that the bridge does not own. Returns how many."""
        # Under the lock, so that a topic which comes to be the bridge's meanwhile is published after it was cleared.
        async with self._drain_lock:
            strays = await without_owned(topics, self._tree, self._journal)
            for topic in strays:
                await self._sender.wait_for_free_window()
                self._sender.send(Message(topic, b"", retain=True))
        await self._sender.wait_until_answered()
        return len(strays)
