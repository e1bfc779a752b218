"""Threads beside the event loop: whatever they wait for, the loop goes on."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oneweb_bridge.store import store
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.query_thread import open_query_thread
from oneweb_bridge.store.threads import open_thread

PATIENCE_S = 10.0


async def test_loop_goes_on_while_a_thread_ends() -> None:
    """What frees the thread may be the loop itself."""
    freed, loop = threading.Event(), asyncio.get_running_loop()
    async with open_thread("waiting") as thread:
        assert isinstance(thread, ThreadPoolExecutor)
        was_freed = loop.run_in_executor(thread, freed.wait, PATIENCE_S)
        loop.call_soon(freed.set)
    assert await was_freed


async def test_loop_goes_on_while_a_query_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To tell a server that is away to end a statement takes a second, each time."""
    monkeypatch.setattr("oneweb_bridge.store.query_thread.QUERY_TIMEOUT_S", 0.01)
    loop, has_gone_on, freed = asyncio.get_running_loop(), threading.Event(), threading.Event()
    answers: list[bool] = []

    def interrupt() -> None:
        loop.call_soon_threadsafe(has_gone_on.set)
        answers.append(has_gone_on.wait(PATIENCE_S))
        freed.set()

    async with store.open_store(tmp_path / "bridge.db"), open_query_thread(tmp_path / "bridge.db") as thread:
        with pytest.raises(StoreUnavailable, match="took longer"):
            await thread.call(lambda: freed.wait(2 * PATIENCE_S), interrupt)
    assert answers
    assert all(answers)
