"""Who polls next: a fair queue with a fast lane, so that a wish of an operator goes before the schedule."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from heapq import heappop, heappush


class Turns:
    """At most `places` holders at once; those that hurry go before those that do not, else first come first."""

    def __init__(self, places: int) -> None:
        self._places = self._free = places
        self._order = 0
        self._waiting: list[tuple[bool, int, asyncio.Future[None]]] = []

    def resize(self, places: int) -> None:
        """Changes how many may hold at once. Those who hold already stay, and the next come when there is room."""
        self._free += places - self._places
        self._places = places
        self._admit()

    @contextlib.asynccontextmanager
    async def turn(self, *, hurry: bool) -> AsyncIterator[None]:
        """Waits for a place, and gives it back at the end."""
        await self._take(hurry=hurry)
        try:
            yield
        finally:
            self._free += 1
            self._admit()

    async def _take(self, *, hurry: bool) -> None:
        self._order += 1
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (not hurry, self._order, place))
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._free += 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._free > 0 and self._waiting:
            place = heappop(self._waiting)[2]
            if not place.done():
                self._free -= 1
                place.set_result(None)
