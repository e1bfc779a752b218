"""Reads the journal ahead of the send window, page by page, without ever waiting for a page to be finished."""

import asyncio
import contextlib
from collections.abc import Sequence

from oneweb_bridge.model.records import Message, Row
from oneweb_bridge.mqtt.context import ConnectionContext
from oneweb_bridge.mqtt.refusals import Refusals
from oneweb_bridge.mqtt.sender import Sender

MAX_ROWS_AHEAD = 1000
"""Rows that may be offered ahead of the first unfinished one."""
PAGE_ROWS = 250
"""Rows that are read as soon as there is room for them."""
ROWS_AT_ONCE = 25
"""Rows that are offered at once. So most of them become messages while the broker works on others, which takes it about
as long; hundreds at once would leave it without work."""
LOOK_INTERVAL_S = 5.0
"""Seconds after which the journal is read again, though nothing woke the drain: another process may have written."""


class Drain:
    """Offers journal rows to the window of one connection.

    Holds `drain_lock` while it does, so that no row comes into a restore.
    """

    def __init__(
        self, context: ConnectionContext, sender: Sender, refusals: Refusals, drain_lock: asyncio.Lock
    ) -> None:
        self._context = context
        self._sender = sender
        self._window = sender.window
        self._refusals = refusals
        self._drain_lock = drain_lock
        self._has_room = asyncio.Event()

    def on_progress(self) -> None:
        """Messages were answered or sent: there may be room for more rows."""
        if self._window.unfinished_rows <= MAX_ROWS_AHEAD - PAGE_ROWS:
            self._has_room.set()

    async def drain_loop(self) -> None:
        """Offers the rows after the cursor to the window, and goes on as the journal grows. Never returns."""
        journal, journal_grew = self._context.journal, self._context.journal_grew
        seq = self._window.finished_seq
        while True:
            journal_grew.clear()
            # What is read is offered before the lock is given back: else a restore could go before an older row.
            async with self._drain_lock:
                rows = await journal.after(seq, PAGE_ROWS)
                for start in range(0, len(rows), ROWS_AT_ONCE):
                    await self._offer(rows[start : start + ROWS_AT_ONCE])
                    await asyncio.sleep(0)
            if rows:
                seq = rows[-1].seq
                self._has_room.clear()
                self.on_progress()
                await self._has_room.wait()
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_INTERVAL_S):
                        await journal_grew.wait()

    async def _offer(self, rows: Sequence[Row]) -> None:
        for row in rows:
            await self._offer_row(row.seq, self._context.tree.messages_of_row(row))
        if self._window.lanes:
            self._refusals.read_waiting()
        if self._window.in_flight < self._window.size:
            self._sender.pump()

    async def _offer_row(self, seq: int, messages: list[Message]) -> None:
        """Offers a row without what is too large; where a class waits, that is left to who reads for it."""
        window = self._window
        fitting = [message for message in messages if self._sender.too_large(message) is None]
        if len(fitting) < len(messages):
            own = [message for message in messages if window.lanes.left_to(message.topic) is None]
            fitting = [message for message in messages if message not in own]
            fitting += await self._refusals.fitting(seq, own)
        window.offer_row(seq, fitting)
