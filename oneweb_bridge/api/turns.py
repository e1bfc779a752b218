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
        self._by_name: dict[str, asyncio.Future[None]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, name: str = "", *, hurry: bool = False) -> AsyncIterator[None]:
        """Waits for a place, and gives it back at the end. `name` is for `hurry`, and waits once at a time."""
        await self._take(name, hurry=hurry)
        try:
            yield
        finally:
            self._free += 1
            self._admit()

    def hurry(self, name: str) -> None:
        """Puts a name that waits before all that do not hurry; one that does not wait stays as it is."""
        if name in self._by_name:
            # Its other entry is passed over once it is done.
            self._push(self._by_name[name], hurry=True)

    def resize(self, places: int) -> None:
        """Takes another number of places. Who holds one keeps it, also where there are fewer from now on."""
        self._free += places - self._places
        self._places = places
        self._admit()

    async def _take(self, name: str, *, hurry: bool) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if name:
            self._by_name[name] = place
        self._push(place, hurry=hurry)
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._free += 1
                self._admit()
            raise
        finally:
            self._by_name.pop(name, None)

    def _push(self, place: asyncio.Future[None], *, hurry: bool) -> None:
        self._order += 1
        heappush(self._waiting, (not hurry, self._order, place))

    def _admit(self) -> None:
        while self._free > 0 and self._waiting:
            place = heappop(self._waiting)[2]
            if not place.done():
                self._free -= 1
                place.set_result(None)
