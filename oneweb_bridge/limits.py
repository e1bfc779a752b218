"""How fast the API may be asked: what its answers say about it. Pure. Source: MuleSoft rate limiting, RFC 9110."""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST = 900.0
"""The longest pause in seconds that an answer can make the bridge take."""
DEFAULT = 60.0
"""The pause in seconds after a 429 that does not say how long."""


def pause_of(headers: Mapping[str, str], now: float) -> float:
    """How many seconds to leave the host alone after a 429, between 1 and LONGEST.

    `x-ratelimit-reset` counts milliseconds until the window ends; a value above 10^9 is an epoch in
    seconds, above 10^12 in milliseconds. Nonsense counts as not said.
    """
    said = [_retry_after(headers.get("Retry-After"), now), _reset(headers.get("x-ratelimit-reset"), now)]
    known = [seconds for seconds in said if seconds is not None]
    return min(max(max(known, default=DEFAULT), 1.0), LONGEST)


def _retry_after(value: str | None, now: float) -> float | None:
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value[:20])
    try:
        said = parsedate_to_datetime(value)
        return (said if said.tzinfo else said.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None


def _reset(value: str | None, now: float) -> float | None:
    if value is None or not value.strip().isdecimal():
        return None
    number = float(value[:20])
    if number > 1e12:
        return number / 1000 - now
    return number - now if number > 1e9 else number / 1000
