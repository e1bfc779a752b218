"""Saves in the journal how far the window has come (`Lane.finished_seq`), and publishes it as the broker's `head`.

The cursor is saved when somebody waits for it (see `SendWindow.is_cursor_awaited`), and otherwise CURSOR_INTERVAL_S
after it has moved. A saved cursor survives any crash of this process; it is flushed to the disk once in
FLUSH_INTERVAL_S, and when the drain has come to rest, so a power loss repeats at most what was acknowledged since.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.backoff import BackOff
from oneweb_bridge.model.records import Message, Positions
from oneweb_bridge.model.status import Head
from oneweb_bridge.mqtt.context import ConnectionContext
from oneweb_bridge.mqtt.refusals import Refusals
from oneweb_bridge.mqtt.sender import Sender
from oneweb_bridge.store.errors import StoreUnavailable

_log = logging.getLogger("oneweb_bridge.publisher")

CURSOR_INTERVAL_S = 0.1
"""Seconds after which a cursor that has moved is saved, though nobody waits for it."""
FLUSH_INTERVAL_S = 1.0
"""Seconds after which a saved cursor is flushed to the disk."""
HEAD_INTERVAL_S = 0.1
"""Seconds between two heads, unless as many messages as `SendWindow.max_behind_head` wait for the next one."""
FIRST_RETRY_S = 0.1
"""Seconds before a cursor that the disk did not take is saved again; each further pause is twice as long."""
MAX_STORE_RETRY_S = 5.0
"""Seconds after which a cursor that could not be saved is tried again at the latest."""


class CursorWriter:
    """Saves the cursor of one connection.

    `save_wanted` is set when a position may have moved.
    """

    def __init__(
        self,
        context: ConnectionContext,
        sender: Sender,
        refusals: Refusals,
        save_wanted: asyncio.Event,
    ) -> None:
        self.cursor = sender.window.saved.cursor
        """The row up to which everything is saved as published."""
        self._tree = context.tree
        self._journal = context.journal
        self._sender = sender
        self._window = sender.window
        self._refusals = refusals
        self._save_wanted = save_wanted
        self._timer: asyncio.TimerHandle | None = None
        self._is_saving = False
        self._unflushed_since: float | None = None
        self._published_head: int | None = None
        self._is_restoring = False
        self._is_head_under_way = False
        self._head_due_at = 0.0
        self._head_timer: asyncio.TimerHandle | None = None

    def on_progress(self) -> None:
        """Messages were answered or sent: the cursor is saved now, soon, or not at all."""
        if self._save_wanted.is_set() or self._is_saving:
            # What waits now may be waiting for what is being saved: it is looked at again when that is done.
            return
        if self._window.is_cursor_awaited():
            self._save_wanted.set()
        elif self._timer is None and self._window.has_moved():
            self._wake_later()

    def _wake_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(CURSOR_INTERVAL_S, self._save_wanted.set)

    async def cursor_loop(self) -> None:
        """Saves and flushes the cursor when it is due. Never returns."""
        try:
            while True:
                self._save_wanted.clear()
                self._cancel_timer()
                await self._save_and_flush()
                await self._save_wanted.wait()
        finally:
            self._cancel_timer()
            if self._head_timer is not None:
                self._head_timer.cancel()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _save_and_flush(self) -> None:
        positions = self._window.positions()
        is_at_rest = not self._is_unsaved(positions)
        if not is_at_rest:
            self._is_saving = True
            try:
                await self._save_with_retries(positions)
            finally:
                self._is_saving = False
            self._on_saved(positions)
            self.publish_head()
            self._sender.pump()
        if self._unflushed_since is not None:
            if is_at_rest or time.monotonic() - self._unflushed_since >= FLUSH_INTERVAL_S:
                await self._flush()
            # It comes to rest when nothing has moved until then.
            self._wake_later()

    async def _flush(self) -> None:
        try:
            await self._journal.flush_cursor()
            self._unflushed_since = None
        except StoreUnavailable as error:
            _log.warning("the journal's cursor could not be flushed to the disk: %s", error)
            self._unflushed_since = time.monotonic()

    def _is_unsaved(self, positions: Positions) -> bool:
        return positions != self._window.saved or bool(self._refusals.paid)

    def _on_saved(self, positions: Positions) -> None:
        self.cursor = positions.cursor
        self._window.on_saved(positions)

    async def _save_with_retries(self, positions: Positions) -> None:
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
        if positions.waiting or self._window.saved.waiting or self._refusals.paid:
            # Flushed at once: else a head could tell the next connection of rows of which a class still waits.
            await self._journal.save(positions, self._refusals.paid)
            self._unflushed_since = None
        else:
            await self._journal.advance(positions.cursor)
            if self._unflushed_since is None:
                self._unflushed_since = time.monotonic()

    async def save_last(self) -> None:
        """Saves the positions once, flushed. What cannot be saved now is repeated by the next connection."""
        positions = self._window.positions()
        try:
            if self._is_unsaved(positions):
                await self._save(positions)
                self._on_saved(positions)
            if self._unflushed_since is not None:
                await self._journal.flush_cursor()
                self._unflushed_since = None
        except StoreUnavailable as error:
            _log.warning("the journal's cursor could not be written at the end: %s", error)

    # ── the head ───────────────────────────────────────────────────────────────────────────────

    def publish_head(self) -> None:
        """Publishes how far the broker is known to be: one head at a time, and never while topics are restored.

        Where the last one is younger than HEAD_INTERVAL_S and few messages wait for it, it is published later.
        """
        if self._is_head_under_way or self._is_restoring or not self._is_head_behind():
            return
        delay = self._head_due_at - time.monotonic()
        if delay > 0 and len(self._window.behind_head) < self._window.max_behind_head:
            if self._head_timer is None:
                self._head_timer = asyncio.get_running_loop().call_later(delay, self._publish_due_head)
            return
        seq = self.cursor

        def done(accepted: bool) -> None:
            self._is_head_under_way = False
            # While topics are restored, and where the broker refuses heads, no message may wait for one.
            self._window.behind_head.on_head(seq if accepted and not self._is_restoring else None)
            if accepted:
                self._published_head = seq
                self.publish_head()

        self._is_head_under_way = True
        self._head_due_at = time.monotonic() + HEAD_INTERVAL_S
        self._window.offer_unjournaled(self._head_message(seq), done)

    @contextlib.contextmanager
    def withhold_heads(self) -> Iterator[None]:
        """While topics are restored: no head, and no message waits for one. The head that is due follows."""
        self._is_restoring = True
        self._window.behind_head.on_head(None)
        try:
            yield
        finally:
            self._is_restoring = False
            self.publish_head()
            self._sender.pump()

    def _publish_due_head(self) -> None:
        self._head_timer = None
        self.publish_head()
        self._sender.pump()

    def begin_at(self, cursor: int) -> None:
        """The broker is known to have all rows up to `cursor`, which is ahead of what was saved here."""
        self.cursor = cursor
        self._window.skip_to(cursor)

    def _is_head_behind(self) -> bool:
        """Whether a head was published on this connection, and the cursor has moved since."""
        return self._published_head is not None and self.cursor > self._published_head

    def _head_message(self, seq: int) -> Message:
        head = Head(self._tree.journal_id, self._tree.instance, seq, self._tree.epoch)
        return Message(self._tree.head, encode(head), retain=True)

    async def publish_epoch(self, seq: int) -> None:
        """Publishes a head with the row that the broker had, and this worker's epoch. Raises MqttError."""
        await self._sender.publish_and_wait(self._head_message(seq))

    async def publish_head_and_wait(self) -> None:
        """Publishes the head and waits for the broker's answer. Raises MqttError."""
        seq = self.cursor
        await self._sender.publish_and_wait(self._head_message(seq))
        self._published_head = seq
        self._window.behind_head.on_head(seq)

    async def publish_empty_head(self) -> None:
        """Publishes a head that names the owner of the base topic and no row. Raises MqttError."""
        await self._sender.publish_and_wait(self._head_message(0))

    async def publish_last_head(self) -> None:
        """Brings the head to the last acknowledged row: by it a backup that is restored now is recognised."""
        await self.save_last()
        if self._is_head_behind():
            await self.publish_head_and_wait()
