"""The drain: it reads ahead as far as there is room, and what it has read is offered before anybody else may send."""

import asyncio
from types import SimpleNamespace
from typing import Any

from oneweb_bridge.model.records import Positions, Row
from oneweb_bridge.mqtt.drain import MAX_ROWS_AHEAD, PAGE_ROWS, Drain
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.mqtt.window import SendWindow


async def test_drain_holds_no_row_back_that_it_has_read() -> None:
    """While somebody else may restore a topic, no row is read and not offered; and there is an end to reading ahead."""
    window, lock = SendWindow(20, Positions(0), lambda topic: topic), asyncio.Lock()
    read_through = 0

    async def after(seq: int, limit: int) -> list[Row]:
        nonlocal read_through
        assert lock.locked()
        read_through = seq + limit
        return [Row(n, 0, "terminal", f"T{n}", "metric", "traffic", 1, b"{}") for n in range(seq + 1, seq + 1 + limit)]

    context: Any = SimpleNamespace(
        journal=SimpleNamespace(after=after), journal_grew=asyncio.Event(), tree=TopicTree("oneweb", "main", "j")
    )
    sender: Any = SimpleNamespace(window=window, pump=lambda: None, too_large=lambda _: None)
    refusals: Any = SimpleNamespace(read_waiting=lambda: None)
    task = asyncio.create_task(Drain(context, sender, refusals, lock).drain_loop())
    for _ in range(4 * MAX_ROWS_AHEAD):
        await asyncio.sleep(0)
        if not lock.locked():
            assert window.unfinished_rows == read_through
    assert not task.done()
    assert MAX_ROWS_AHEAD - PAGE_ROWS < read_through <= MAX_ROWS_AHEAD
    task.cancel()
