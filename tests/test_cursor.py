"""When the cursor is written, flushed, and published as the head."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oneweb_bridge.model.records import Message, Positions
from oneweb_bridge.mqtt import cursor
from oneweb_bridge.mqtt.cursor import CursorWriter
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.mqtt.window import MAX_REPEATED_MESSAGES, SendWindow
from oneweb_bridge.store import journal, store
from oneweb_bridge.store.errors import StoreUnavailable


class Disk:
    """Stands for the journal: notes what is written and flushed, and may refuse."""

    def __init__(self) -> None:
        self.deeds: list[object] = []
        self.refuses = 0

    async def advance(self, seq: int) -> None:
        """Notes a cursor."""
        self.deeds.append(seq)

    async def flush_cursor(self) -> None:
        """Notes a flush."""
        if self.refuses:
            self.refuses -= 1
            raise StoreUnavailable("disk I/O error")
        self.deeds.append("flush")

    async def until(self, *deeds: object) -> None:
        """Waits until exactly this was done."""
        async with asyncio.timeout(10):
            while self.deeds != list(deeds):
                await asyncio.sleep(0.005)


class Writing:
    """A writer over a window of 100 with rows on topics of their own, of which the broker has taken all in flight."""

    def __init__(self, rows: int, *, retain: bool = False) -> None:
        self.window = SendWindow(100, Positions(0), lambda topic: topic)
        self.disk = Disk()
        for seq in range(1, rows + 1):
            self.window.offer_row(seq, [Message(f"t{seq}", b"{}", retain=retain)])
        self._in_flight: list[Any] = []
        sender: Any = SimpleNamespace(window=self.window, pump=self.progress)
        context: Any = SimpleNamespace(tree=TopicTree("oneweb", "main", "j"), journal=self.disk)
        refusals: Any = SimpleNamespace(paid=set())
        self.save_wanted = asyncio.Event()
        self.writer = CursorWriter(context, sender, refusals, self.save_wanted)

    def progress(self) -> None:
        """What the sender does after answers."""
        while (outgoing := self.window.next_to_send()) is not None:
            self._in_flight.append(outgoing)
        self.writer.on_progress()

    def acknowledge(self, count: int) -> None:
        """The broker accepts the oldest messages."""
        for _ in range(count):
            self.progress()
            self.window.acknowledge(self._in_flight.pop(0))
        self.writer.on_progress()


async def test_cursor_is_written_when_enough_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what may be acknowledged beyond it is enough; until then it waits for its time."""
    monkeypatch.setattr(cursor, "CURSOR_INTERVAL_S", 1000.0)
    monkeypatch.setattr(cursor, "FLUSH_INTERVAL_S", 1000.0)
    writing = Writing(300)
    task = asyncio.create_task(writing.writer.cursor_loop())
    await asyncio.sleep(0)
    writing.acknowledge(49)
    assert not writing.save_wanted.is_set()
    writing.acknowledge(1)
    await writing.disk.until(50)
    writing.acknowledge(50)
    await writing.disk.until(50, 100)
    task.cancel()


async def test_cursor_is_not_asked_for_again_while_it_is_being_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is acknowledged during a save waits for the next one as long as if it had come after it."""
    monkeypatch.setattr(cursor, "CURSOR_INTERVAL_S", 1000.0)
    monkeypatch.setattr(cursor, "FLUSH_INTERVAL_S", 1000.0)
    writing = Writing(300)
    begun, may_end, advance = asyncio.Event(), asyncio.Event(), writing.disk.advance

    async def slow_advance(seq: int) -> None:
        begun.set()
        await may_end.wait()
        await advance(seq)

    writing.disk.advance = slow_advance  # type: ignore[method-assign]
    task = asyncio.create_task(writing.writer.cursor_loop())
    await asyncio.sleep(0)
    writing.acknowledge(50)
    async with asyncio.timeout(10):
        await begun.wait()
    writing.acknowledge(30)
    assert not writing.save_wanted.is_set()
    may_end.set()
    await writing.disk.until(50)
    writing.acknowledge(19)
    assert not writing.save_wanted.is_set()
    writing.acknowledge(1)
    await writing.disk.until(50, 100)
    task.cancel()


async def test_cursor_that_nobody_waits_for_is_written_in_time_and_flushed_at_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A single acknowledgement is noted soon, and flushed once nothing more has moved; then there is peace."""
    monkeypatch.setattr(cursor, "CURSOR_INTERVAL_S", 0.01)
    monkeypatch.setattr(cursor, "FLUSH_INTERVAL_S", 1000.0)
    writing = Writing(1)
    task = asyncio.create_task(writing.writer.cursor_loop())
    await asyncio.sleep(0)
    writing.acknowledge(1)
    await writing.disk.until(1, "flush")
    async with asyncio.timeout(10):
        while writing.writer._timer is not None and not writing.writer._timer.cancelled():
            await asyncio.sleep(0.005)
    assert writing.disk.deeds == [1, "flush"]
    task.cancel()


async def test_cursor_that_moves_all_the_time_is_flushed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without a rest a flush follows; one that fails is tried again."""
    monkeypatch.setattr(cursor, "CURSOR_INTERVAL_S", 1000.0)
    monkeypatch.setattr(cursor, "FLUSH_INTERVAL_S", 0.0)
    writing = Writing(300)
    writing.disk.refuses = 1
    task = asyncio.create_task(writing.writer.cursor_loop())
    await asyncio.sleep(0)
    writing.acknowledge(50)
    await writing.disk.until(50)
    writing.acknowledge(50)
    await writing.disk.until(50, 100, "flush")
    task.cancel()


async def test_heads_have_a_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cursor that moves quickly is published after a pause; the last one of a connection at once."""
    monkeypatch.setattr(cursor, "HEAD_INTERVAL_S", 1000.0)
    writing = Writing(0)
    heads: list[Message] = []

    async def publish(message: Message) -> None:
        heads.append(message)

    writer: Any = writing.writer
    writer._sender.publish_and_wait = publish
    await writer.publish_head_and_wait()
    for seq in (1, 2):
        writer.cursor = seq
        writer.publish_head()
        while (outgoing := writing.window.next_to_send()) is not None:
            heads.append(outgoing.message)
            writing.window.acknowledge(outgoing)
    assert [b'"seq":1' in head.payload for head in heads] == [False, True]
    await writer.publish_last_head()
    assert b'"seq":2' in heads[-1].payload
    writer._head_timer.cancel()


def test_head_follows_when_topics_are_restored() -> None:
    """A head that is due while topics are restored is published afterwards, and meanwhile nothing waits for one."""
    writing = Writing(0)
    writer: Any = writing.writer
    writer._published_head, writer.cursor = 0, 7
    writing.window.behind_head.on_head(0)
    writing.window.behind_head._rows = [1, 2]
    with writer.withhold_heads():
        assert len(writing.window.behind_head) == 0
        writer.publish_head()
        assert writing.window.next_to_send() is None
    assert b'"seq":7' in writing._in_flight[0].message.payload


def head_of_retained(count: int) -> tuple[Writing, Any]:
    """A writer over retained messages whose last head is of row 0, and of which `count` are behind the cursor."""
    writing = Writing(300, retain=True)
    writer: Any = writing.writer
    writer._published_head, writer._head_due_at = 0, time.monotonic() + 1000
    writing.window.behind_head.on_head(0)
    writing.acknowledge(count)
    writer._on_saved(writing.window.positions())
    writer.publish_head()
    return writing, writer


async def test_head_is_published_at_once_when_many_messages_wait_for_it() -> None:
    """Otherwise a crash would repeat them: the next start restores what the head does not say."""
    many = MAX_REPEATED_MESSAGES // 4
    few, writer = head_of_retained(many - 1)
    assert not writer._is_head_under_way
    writer._head_timer.cancel()
    writing, writer = head_of_retained(many)
    assert writer._is_head_under_way
    head = writing.window.next_to_send()
    assert head is not None
    assert head.message.topic.endswith("/head")
    writing.window.acknowledge(head)
    assert len(writing.window.behind_head) == 0
    assert len(few.window.behind_head) == many - 1


async def test_head_that_is_refused_holds_up_no_message() -> None:
    """No other head is in sight, so what waits for one is not counted."""
    writing, writer = head_of_retained(MAX_REPEATED_MESSAGES // 4)
    head = writing.window.next_to_send()
    assert head is not None
    writing.window.refuse(head)
    assert len(writing.window.behind_head) == 0
    assert not writer._is_head_under_way


async def test_cursor_is_written_by_a_connection_that_does_not_flush(tmp_path: Path) -> None:
    """Its commits wait for a flush, which writes to the log although the cursor is the same; all others are flushed."""
    path = tmp_path / "bridge.db"
    log = path.with_name("bridge.db-wal")
    async with store.open_store(path), journal.open_journal(path, "mqtt") as rows:
        connections = (rows._connection, rows._cursor_connection)
        modes = [(await db.fetch_all("PRAGMA synchronous"))[0][0] for db in connections]
        await rows.advance(7)
        before = log.stat().st_size
        await rows.flush_cursor()
        assert log.stat().st_size > before
        assert (modes, await rows.cursor()) == ([2, 1], 7)
