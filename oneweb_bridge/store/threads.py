"""A thread of its own for what would hold up the event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor


@contextlib.asynccontextmanager
async def open_thread(name: str) -> AsyncIterator[ThreadPoolExecutor]:
    """One thread, which has ended when the block is over. The event loop goes on while it is waited for."""
    executor = ThreadPoolExecutor(1, name)
    try:
        yield executor
    finally:
        # A server that is gone without a word is noticed after half a minute.
        await asyncio.to_thread(executor.shutdown)
