"""How values are written: JSON as it is stored and published, and times as text. Pure."""

from datetime import UTC, datetime
from functools import lru_cache

import msgspec

encode = msgspec.json.Encoder().encode
"""One encoder for everything that is stored and published, so that equal values are equal bytes."""


@lru_cache(maxsize=1024)
def rfc3339(ts: int) -> str:
    """Milliseconds since the epoch as UTC with milliseconds. Source: RFC 3339."""
    whole, millis = divmod(ts, 1000)
    return f"{datetime.fromtimestamp(whole, UTC).isoformat()[:19]}.{millis:03d}Z"


def short_time(ts: int) -> str:
    """The same, with the fraction only when there is one."""
    return rfc3339(ts) if ts % 1000 else rfc3339(ts)[:-5] + "Z"
