"""When the leases of instances that others hold end: read from the server for all at once, and kept for a moment."""

import time
from collections.abc import Collection

from oneweb_bridge.store.lease import LeaseTable


class LeaseLooks:
    """What a worker knows of the instances that it waits for. Many wait, so that not each of them may ask by itself."""

    def __init__(self, table: LeaseTable, max_age: float) -> None:
        """What was read is used for `max_age` seconds."""
        self._table = table
        self._max_age = max_age
        self._read_at = -max_age
        self._ends: dict[str, float] = {}

    async def time_left(self, instance: str, waiting: Collection[str]) -> float:
        """Seconds until the lease of an instance ends, 0 where nobody holds it. Reads those of all that wait.

        A lease that ends now may have been renewed since it was read: `claim` looks again. Raises StoreUnavailable.
        """
        now = time.monotonic()
        if now - self._read_at >= self._max_age or instance not in self._ends:
            left = await self._table.times_left(waiting)
            self._ends = {each: now + left.get(each, 0.0) for each in waiting}
            self._read_at = now
        return max(0.0, self._ends[instance] - now)

    def forget(self, instance: str) -> None:
        """Another worker was quicker: it is read anew."""
        self._ends.pop(instance, None)
