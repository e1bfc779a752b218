"""Notes durably how far the journal is published, and publishes it as the broker's `head`."""

import asyncio
import logging

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.backoff import BackOff
from oneweb_bridge.model.records import Message, Positions
from oneweb_bridge.model.status import Head
from oneweb_bridge.mqtt.context import ConnectionContext
from oneweb_bridge.mqtt.refusals import Refusals
from oneweb_bridge.mqtt.sender import Sender
from oneweb_bridge.store.errors import StoreUnavailable

_log = logging.getLogger("oneweb_bridge.publisher")

FIRST_RETRY_S = 0.1
"""Seconds before a cursor that the disk did not take is written again; each further pause is twice as long."""
MAX_STORE_RETRY_S = 5.0
"""Seconds after which a cursor that could not be written is tried again at the latest."""


class CursorWriter:
    """Of one connection. `to_note` is set when a position may have moved; `drain_lock` is held during a restore."""

    def __init__(
        self,
        context: ConnectionContext,
        sender: Sender,
        refusals: Refusals,
        drain_lock: asyncio.Lock,
        to_note: asyncio.Event,
    ) -> None:
        self.cursor = sender.window.durable.cursor
        """The row that was noted last."""
        self._tree = context.tree
        self._journal = context.journal
        self._sender = sender
        self._window = sender.window
        self._refusals = refusals
        self._drain_lock = drain_lock
        self._to_note = to_note
        self._published_head: int | None = None
        self._is_head_under_way = False

    async def cursor_loop(self) -> None:
        """Notes the positions whenever they have changed and no other write is under way. Never returns."""
        while True:
            self._to_note.clear()
            positions = self._window.positions()
            if self._is_to_be_noted(positions):
                await self._save_until_written(positions)
                self._on_written(positions)
                self.publish_head()
                self._sender.pump()
            else:
                await self._to_note.wait()

    def _is_to_be_noted(self, positions: Positions) -> bool:
        return positions != self._window.durable or bool(self._refusals.paid)

    def _on_written(self, positions: Positions) -> None:
        self.cursor = positions.cursor
        self._window.cursor_written(positions)

    async def _save_until_written(self, positions: Positions) -> None:
        """Tries again as long as the disk does not take it: a new connection would only repeat the messages."""
        pauses = BackOff(FIRST_RETRY_S, MAX_STORE_RETRY_S)
        while True:
            try:
                await self._save(positions)
                return
            except StoreUnavailable as error:
                pause = pauses.pause()
                _log.error("the journal's cursor could not be written: %s; next try in %.1f s", error, pause)
            await asyncio.sleep(pause)

    async def _save(self, positions: Positions) -> None:
        if positions.waiting or self._window.durable.waiting or self._refusals.paid:
            await self._journal.save(positions, self._refusals.paid)
        else:
            await self._journal.advance(positions.cursor)

    async def save_last(self) -> None:
        """Notes the positions once. What cannot be written now is repeated by the next connection."""
        positions = self._window.positions()
        if self._is_to_be_noted(positions):
            try:
                await self._save(positions)
            except StoreUnavailable as error:
                _log.warning("the journal's cursor could not be written at the end: %s", error)
            else:
                self._on_written(positions)

    # ── the head ───────────────────────────────────────────────────────────────────────────────

    def publish_head(self) -> None:
        """Publishes how far the broker is known to be: one head at a time, and never while topics are restored."""
        seq = self.cursor
        if self._is_head_under_way or self._drain_lock.locked() or not self._is_head_behind():
            return

        def done(accepted: bool) -> None:
            self._is_head_under_way = False
            if accepted:
                self._published_head = seq
                self.publish_head()

        self._is_head_under_way = True
        self._window.offer_unjournaled(self._head_message(seq), done)

    def _is_head_behind(self) -> bool:
        """Whether a head was published on this connection, and the cursor has moved since."""
        return self._published_head is not None and self.cursor > self._published_head

    def _head_message(self, seq: int) -> Message:
        head = Head(self._tree.journal_id, self._tree.instance, seq)
        return Message(self._tree.head, encode(head), retain=True)

    async def publish_head_and_wait(self) -> None:
        """Publishes the head and waits for the broker's answer. Raises MqttError."""
        seq = self.cursor
        await self._sender.publish_and_wait(self._head_message(seq))
        self._published_head = seq

    async def publish_last_head(self) -> None:
        """Brings the head to the last acknowledged row: by it a backup that is restored now is recognised."""
        await self.save_last()
        if self._is_head_behind():
            await self.publish_head_and_wait()
