"""The journal as a live stream: one reader of new rows, and many listeners.

Listeners have no cursor in the database: each says where it goes on. What it missed is read for it from the journal,
while what is new already queues; so nothing is missed between the two, and nothing comes twice.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

from msgspec import Raw

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Row
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store.errors import StoreDamaged, StoreUnavailable
from oneweb_bridge.store.growth import JournalGrowth
from oneweb_bridge.store.query_thread import QueryThread
from oneweb_bridge.store.reading import Queries
from oneweb_bridge.web.live_messages import LiveMessage, format_message, messages_of

MAX_LISTENERS = 20
MAX_BEHIND = 1000
"""Messages that may wait for a listener; above that it is closed."""
MAX_RESUME_ROWS = 10_000
PAGE_ROWS = 500
PAGE_PAUSE_S = 0.05
"""Seconds between two pages of one batch, in which listeners that can follow do so."""
BATCH_S = 0.5
"""Seconds from the beginning of a batch of what is new to that of the next one."""
BRIDGE_S = 10.0
"""Seconds between two looks at the state of the bridge."""
COMMENT_S = 15.0
RETRY = b"retry: 2000\n\n"
COMMENT = b": \n\n"


class TooManyListeners(Exception):
    """All places of the stream are taken."""


class Listener:
    """Messages for one client. `through` is the row up to which it has everything, `abort` ends its connection."""

    def __init__(self, abort: Callable[[], None]) -> None:
        self.through = 0
        self.abort = abort
        self._waiting: deque[LiveMessage] = deque()
        self._wake = asyncio.Event()

    def put(self, messages: Sequence[LiveMessage]) -> None:
        """Queues messages behind those that wait; too many end the connection."""
        if len(self._waiting) + len(messages) > MAX_BEHIND:
            self._waiting.clear()
            self.abort()
        else:
            self._waiting.extend(messages)
            self._wake.set()

    async def next_texts(self) -> bytes:
        """What is to be sent next: all that waits, or a comment after 15 s."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMMENT_S):
                await self._wake.wait()
        self._wake.clear()
        texts = [message.text for message in self._waiting if not 0 < message.seq <= self.through]
        self._waiting.clear()
        return b"".join(texts) or COMMENT


class LiveStream:
    """`run` reads for all listeners until it is cancelled; each comes by `listen`."""

    def __init__(
        self, queries: QueryThread, tree: TopicTree, growth: JournalGrowth, bridge: Callable[[], Awaitable[object]]
    ) -> None:
        self._queries = queries
        self._tree = tree
        self._growth = growth
        self._bridge = bridge
        self._listeners: set[Listener] = set()
        self._joining = asyncio.Lock()
        self._through = 0
        """The row up to which everything was given to the listeners."""
        self._unjournaled: list[LiveMessage] = []
        self._something_to_give = asyncio.Event()
        self._somebody_listens = asyncio.Event()
        self._told_bridge = b""

    async def run(self) -> None:
        """Gives what is new to the listeners, at most twice a second. Never returns; with it the streams end."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._wake_loop(), name="live wake")
                group.create_task(self._batch_loop(), name="live rows")
                group.create_task(self._bridge_loop(), name="live bridge")
        finally:
            # The server would wait for them, and they have nothing more to say.
            for listener in list(self._listeners):
                listener.abort()

    async def _wake_loop(self) -> None:
        with self._growth.subscribe() as grown:
            while True:
                await grown.wait()
                grown.clear()
                self._something_to_give.set()

    async def _batch_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._somebody_listens.wait()
            await self._something_to_give.wait()
            self._something_to_give.clear()
            begun = loop.time()
            # What was told belongs behind the rows that were written before.
            unjournaled, self._unjournaled = self._unjournaled, []
            try:
                await self._give_new_rows()
            except (StoreUnavailable, StoreDamaged):
                # They are read again with the next batch, not with the next commit.
                self._something_to_give.set()
            self._give(unjournaled)
            await asyncio.sleep(begun + BATCH_S - loop.time())

    async def _give_new_rows(self) -> None:
        while self._listeners:
            through = self._through
            rows, messages = await self._queries.run(partial(self._read_page, through))
            if not rows:
                return
            # Whoever came when nobody else was there has set the position to the end of the journal.
            if self._through == through:
                self._through = rows[-1].seq
                self._give(messages)
            if len(rows) == PAGE_ROWS:
                await asyncio.sleep(PAGE_PAUSE_S)

    def _read_page(self, after: int, queries: Queries) -> tuple[list[Row], list[LiveMessage]]:
        rows = queries.rows_after(after, PAGE_ROWS)
        return rows, messages_of(self._tree, rows)

    def _give(self, messages: Sequence[LiveMessage]) -> None:
        if messages:
            for listener in list(self._listeners):
                listener.put(messages)

    async def _bridge_loop(self) -> None:
        while True:
            await self._somebody_listens.wait()
            with contextlib.suppress(StoreUnavailable, StoreDamaged):
                answer = encode(await self._bridge())
                if answer != self._told_bridge:
                    self._told_bridge = answer
                    self.tell("bridge", Raw(answer))
            await asyncio.sleep(BRIDGE_S)

    def tell(self, event: str, data: object) -> None:
        """Gives the listeners a message that is in no journal, with the next batch."""
        if self._listeners:
            self._unjournaled.append(LiveMessage(0, format_message(event, encode(data))))
            self._something_to_give.set()

    # ── listeners ──────────────────────────────────────────────────────────────────────────────

    @contextlib.asynccontextmanager
    async def listen(self, since: str | None, abort: Callable[[], None]) -> AsyncIterator[AsyncIterator[bytes]]:
        """The stream from now on, or from behind `since`, the id of a message; `abort` is called for a slow listener.

        Raises TooManyListeners and StoreUnavailable.
        """
        if len(self._listeners) >= MAX_LISTENERS:
            raise TooManyListeners
        listener = Listener(abort)
        async with self._joining:
            if not self._listeners:
                self._through = await self._queries.run(Queries.head)
            if len(self._listeners) >= MAX_LISTENERS:
                raise TooManyListeners
            listener.through = self._through
            self._listeners.add(listener)
        self._somebody_listens.set()
        try:
            yield self._stream(listener, since)
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                self._somebody_listens.clear()
                self._unjournaled.clear()

    async def _stream(self, listener: Listener, since: str | None) -> AsyncIterator[bytes]:
        yield RETRY + COMMENT
        async for texts in self._missed(listener, since):
            yield texts
        while True:
            yield await listener.next_texts()

    async def _missed(self, listener: Listener, since: str | None) -> AsyncIterator[bytes]:
        """What was told between `since` and the moment at which the listener came."""
        if since is None:
            return
        until = listener.through
        start = await self._queries.run(lambda queries: resume_position(queries, self._tree, since))
        if isinstance(start, str):
            text = encode({"reason": start})
            yield format_message("reset", text, self._tree.event_id(until))
            return
        # A snapshot may be newer than what was given to all: what it has is not told again.
        listener.through = max(until, start)
        while start < until:
            rows, messages = await self._queries.run(partial(self._read_page, start))
            texts = b"".join(message.text for message in messages if message.seq <= until)
            if texts:
                yield texts
            start = rows[-1].seq if rows else until


def resume_position(queries: Queries, tree: TopicTree, since: str) -> int | str:
    """The row behind which a stream goes on, or the reason why it cannot: then everything is to be loaded again."""
    seq = since.rpartition(":")[2]
    if not (seq.isascii() and seq.isdecimal() and len(seq) < 19) or tree.event_id(int(seq)) != since:
        return "this is another journal"
    head = queries.head()
    if int(seq) > head:
        return "the journal is older than this: a backup was restored"
    if head - int(seq) > MAX_RESUME_ROWS:
        return f"more than {MAX_RESUME_ROWS} rows were written since"
    is_kept = queries.has_row(int(seq)) if int(seq) else queries.oldest() == 1
    if int(seq) != head and not is_kept:
        return "rows since then are not kept any more"
    return int(seq)
