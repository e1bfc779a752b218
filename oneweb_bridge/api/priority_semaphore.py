"""A semaphore with priority: requested polls go before scheduled ones."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from heapq import heappop, heappush


class PrioritySemaphore:
    """At most `permits` holders at once; urgent ones go before the others, else first come first served."""

    def __init__(self, permits: int) -> None:
        self._permits = self._free = permits
        self._order = 0
        self._waiting: list[tuple[bool, int, asyncio.Future[None]]] = []
        self._by_name: dict[str, asyncio.Future[None]] = {}

    @contextlib.asynccontextmanager
    async def acquire(self, name: str = "", *, urgent: bool = False) -> AsyncIterator[None]:
        """Waits for a permit, and releases it at the end. `name` is for `make_urgent`, and waits once at a time."""
        await self._acquire(name, urgent=urgent)
        try:
            yield
        finally:
            self._free += 1
            self._admit()

    def make_urgent(self, name: str) -> None:
        """Puts a waiting name before all that are not urgent; one that does not wait stays as it is."""
        if name in self._by_name:
            # Its first entry is skipped once this one is done.
            self._push(self._by_name[name], urgent=True)

    def resize(self, permits: int) -> None:
        """Takes another number of permits. Who holds one keeps it, also where there are fewer from now on."""
        self._free += permits - self._permits
        self._permits = permits
        self._admit()

    async def _acquire(self, name: str, *, urgent: bool) -> None:
        permit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if name:
            self._by_name[name] = permit
        self._push(permit, urgent=urgent)
        self._admit()
        try:
            await permit
        except asyncio.CancelledError:
            if permit.done() and not permit.cancelled():
                self._free += 1
                self._admit()
            raise
        finally:
            self._by_name.pop(name, None)

    def _push(self, permit: asyncio.Future[None], *, urgent: bool) -> None:
        self._order += 1
        heappush(self._waiting, (not urgent, self._order, permit))

    def _admit(self) -> None:
        while self._free > 0 and self._waiting:
            permit = heappop(self._waiting)[2]
            if not permit.done():
                self._free -= 1
                permit.set_result(None)
