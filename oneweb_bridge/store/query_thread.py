"""One thread for everything that people ask of the database: a query waits for the one before, and none lasts long."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from oneweb_bridge.store.errors import StoreUnavailable, named_errors
from oneweb_bridge.store.places import Place
from oneweb_bridge.store.reading import Queries, open_queries
from oneweb_bridge.store.threads import open_thread

QUERY_TIMEOUT_S = 5.0
T = TypeVar("T")


@contextlib.asynccontextmanager
async def open_query_thread(place: Place) -> AsyncIterator["QueryThread"]:
    """A thread with a read-only connection of its own to the database at `place`. Raises StoreError."""
    async with open_thread("queries") as executor:
        with contextlib.ExitStack() as stack:
            loop = asyncio.get_running_loop()
            queries = await loop.run_in_executor(executor, lambda: stack.enter_context(open_queries(place)))
            try:
                yield QueryThread(executor, queries)
            finally:
                await asyncio.to_thread(queries.interrupt)


class QueryThread:
    """Made by `open_query_thread`."""

    def __init__(self, executor: ThreadPoolExecutor, queries: Queries) -> None:
        self._executor = executor
        self._queries = queries
        self._lock = asyncio.Lock()

    async def run(self, work: Callable[[Queries], T]) -> T:
        """What `work` gives, called in the thread. Raises StoreUnavailable, also when it takes longer than 5 s."""
        return await self.call(lambda: work(self._queries), self._queries.interrupt)

    async def call(self, work: Callable[[], T], interrupt: Callable[[], None]) -> T:
        """The same with a connection of the caller's own, whose query `interrupt` ends from another thread."""
        async with self._lock:
            future = asyncio.get_running_loop().run_in_executor(self._executor, _with_named_errors, work)
            try:
                async with asyncio.timeout(QUERY_TIMEOUT_S):
                    await asyncio.wait({future})
                    return future.result()
            except TimeoutError:
                raise StoreUnavailable(f"the query took longer than {QUERY_TIMEOUT_S:.0f} s: ask for less") from None
            finally:
                # The lock is kept until the thread is free, so that the next query is not the one that is interrupted.
                while not future.done():
                    # To tell a server that is away takes a second.
                    await asyncio.to_thread(interrupt)
                    await asyncio.wait([future], timeout=0.05)
                future.cancelled() or future.exception()


def _with_named_errors(work: Callable[[], T]) -> T:
    with named_errors():
        return work()
