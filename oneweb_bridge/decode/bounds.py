"""Bounds of the times that the bridge believes. Pure. Times in ms since the epoch.

A time at which something was measured, seen or updated is believed from 2019 on, when the first satellite of the
constellation was launched, to a little ahead of now. A time outside is alerted and not stored: one terminal that was
"last seen" in 2036 would otherwise never be seen again. Plain dates, such as that of an activation or the end of a
contract, are published as they are: nothing is decided by them.
"""

import msgspec

EARLIEST = 1_546_300_800_000
"""2019-01-01T00:00:00Z."""


class Bounds(msgspec.Struct, frozen=True):
    """From `EARLIEST` to `latest`, both included."""

    latest: int

    def has(self, ts: int) -> bool:
        """Whether a time is believed."""
        return EARLIEST <= ts <= self.latest
