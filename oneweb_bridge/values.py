"""Single values: from what the API sent to what the bridge publishes.

Every reader takes a decoded JSON value and returns the published value, or None when nothing is
known, and raises Odd when something is there that it cannot read.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from functools import lru_cache

from oneweb_bridge.model import Value

Reader = Callable[[object], Value | None]

WHOLE = ("_bytes", "_bps", "_blocks")
"""Endings of numeric fields that are published as integers; all others are floats."""

_NOT_KNOWN = frozenset(("", "n/a", "na", "null", "none", "-"))
_NUMBER = re.compile(r"\s*([-+]?\d[\d ]*(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*((?:[^\W\d_]|[%°]).*)?\s*")
_DAY_ONLY = re.compile(r"\d{4}-\d{2}-\d{2}")
_AS_PUBLISHED = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\dZ", re.ASCII)
"""A time whose text, once it is known to be one, need not be made anew."""
_OFFSET = re.compile(r"([+-]\d{2})(\d{2})$")


class Odd(ValueError):
    """A value that came in a form nobody can read; the text says which and what was expected."""


@lru_cache(maxsize=1024)
def rfc3339(ts: int) -> str:
    """Milliseconds since the epoch as UTC with milliseconds. Source: RFC 3339."""
    whole, millis = divmod(ts, 1000)
    return f"{datetime.fromtimestamp(whole, UTC).isoformat()[:19]}.{millis:03d}Z"


def short_time(ts: int) -> str:
    """The same, with the fraction only when there is one."""
    return rfc3339(ts) if ts % 1000 else rfc3339(ts)[:-5] + "Z"


def text(value: object) -> str | None:
    """A text; numbers become their decimal form, because ids come as either."""
    if type(value) is str:
        return None if value.strip().casefold() == "n/a" else value
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise Odd(f"expected a text, got {_said(value)}")


def flag(value: object) -> bool | None:
    """A boolean, also from the words true and false."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().casefold() in ("true", "false"):
        return value.strip().casefold() == "true"
    raise Odd(f"expected true or false, got {_said(value)}")


def words(value: object) -> list[str] | None:
    """A list of texts in the order of the API, without nulls."""
    if value is None:
        return None
    if not isinstance(value, list):
        value = [value]
    found = [text(entry) for entry in value]
    return [entry for entry in found if entry]


def moment(value: object, zone: tzinfo = UTC) -> int | None:
    """A time in ms since the epoch, from RFC 3339 or an epoch in s or ms; `zone` is for times without offset."""
    if value is None or (isinstance(value, str) and value.strip().casefold() in _NOT_KNOWN):
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _epoch(float(value))
    if not isinstance(value, str):
        raise Odd(f"expected a time, got {_said(value)}")
    said = value.strip()
    if said.isdecimal():
        return _epoch(float(said))
    try:
        parsed = datetime.fromisoformat(said if said.endswith("Z") else _OFFSET.sub(r"\1:\2", said))
    except ValueError:
        raise Odd(f"expected a time like 2025-06-17T13:40:07Z, got {_said(value)}") from None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=zone)
    return _in_range(round(parsed.timestamp() * 1000))


def time_text(zone: tzinfo) -> Reader:
    """A reader of times that are published as text."""

    def read(value: object) -> str | None:
        ts = moment(value, zone)
        if type(value) is str and _AS_PUBLISHED.fullmatch(value):
            return value
        return None if ts is None else short_time(ts)

    return read


def _epoch(value: float) -> int:
    if not math.isfinite(value):
        raise Odd(f"expected a time, got {value}")
    return _in_range(round(value if abs(value) >= 1e11 else value * 1000))


def _in_range(ts: int) -> int:
    if not 0 <= ts < 253402300800000:
        raise Odd("expected a time between 1970 and 9999")
    return ts


def amount(value: object) -> tuple[float, str] | None:
    """A number and the unit that was written behind it, if any: 500, "500", "500 GB"."""
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _finite(float(value) if abs(value) < 2**1000 else math.inf, value), ""
    if not isinstance(value, str):
        raise Odd(f"expected a number, got {_said(value)}")
    if value.strip().casefold() in _NOT_KNOWN:
        return None
    found = _NUMBER.fullmatch(value)
    if found is None:
        raise Odd(f"expected a number, got {_said(value)}")
    return _finite(float(found[1].replace(" ", "")), value), (found[2] or "").strip()


def _finite(number: float, said: object) -> float:
    if not math.isfinite(number):
        raise Odd(f"expected a finite number, got {_said(said)}")
    return number


_FACTORS: dict[str, tuple[str, float]] = {
    **{u: ("B", f) for u, f in (("b", 1.0), ("byte", 1.0), ("bytes", 1.0), ("octets", 1.0))},
    **{u: ("B", f) for u, f in (("kb", 1e3), ("mb", 1e6), ("gb", 1e9), ("tb", 1e12), ("pb", 1e15))},
    **{u: ("B", f) for u, f in (("kib", 2.0**10), ("mib", 2.0**20), ("gib", 2.0**30), ("tib", 2.0**40))},
    **{u: ("bps", f) for u, f in (("bps", 1.0), ("bit/s", 1.0), ("b/s", 1.0))},
    **{u: ("bps", f) for u, f in (("kbps", 1e3), ("kbit/s", 1e3), ("kb/s", 1e3))},
    **{u: ("bps", f) for u, f in (("mbps", 1e6), ("mbit/s", 1e6), ("mb/s", 1e6))},
    **{u: ("bps", f) for u, f in (("gbps", 1e9), ("gbit/s", 1e9), ("gb/s", 1e9))},
    **{u: ("s", f) for u, f in (("s", 1.0), ("sec", 1.0), ("seconds", 1.0), ("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6))},
    **{u: ("%", f) for u, f in (("%", 1.0), ("percent", 1.0), ("ratio", 100.0))},
}
"""Unit in lower case -> what it measures and its factor. Prefixes are decimal but for Ki, Mi, Gi."""


def measured(unit: str) -> str:
    """What a unit measures: the same text for all units that can be converted into each other."""
    return _FACTORS.get(unit.casefold(), (unit.casefold(), 1.0))[0]


def convert(number: float, unit: str, wanted: str) -> float:
    """`number` of `unit` expressed in `wanted`; unchanged when either is unknown or they do not measure the same."""
    if unit == wanted or not unit or not wanted:
        return number
    base, factor = _FACTORS.get(unit.casefold(), ("", 1.0))
    wanted_base, wanted_factor = _FACTORS.get(wanted.casefold(), ("?", 1.0))
    return number * factor / wanted_factor if base == wanted_base else number


def published(name: str, number: float) -> int | float:
    """The JSON type that the contract gives a number of this name."""
    return round(number) if name.endswith(WHOLE) else round(number, 9)


SUFFIXES = {
    "b": ("bytes", "B"),
    "byte": ("bytes", "B"),
    "bytes": ("bytes", "B"),
    "bps": ("bps", "bps"),
    "kbps": ("bps", "bps"),
    "mbps": ("bps", "bps"),
    "gbps": ("bps", "bps"),
    "kb": ("bytes", "B"),
    "mb": ("bytes", "B"),
    "gb": ("bytes", "B"),
    "%": ("pct", "%"),
    "percent": ("pct", "%"),
    "dbm": ("dbm", "dBm"),
    "db": ("db", "dB"),
    "db/k": ("dbk", "dB/K"),
    "ms": ("ms", "ms"),
    "s": ("s", "s"),
    "m": ("m", "m"),
    "deg": ("deg", "deg"),
}
"""Unit in lower case -> ending of the field name, and the unit it is published in."""


def snake(name: str) -> str:
    """An indicator's name as a field name: packetLoss -> packet_loss."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.casefold()).strip("_")


def unknown_name(name: str, unit: str) -> tuple[str, str]:
    """Field name and unit for an indicator that the catalogue does not know."""
    suffix, published_unit = SUFFIXES.get(unit.casefold(), ("", unit))
    plain = snake(name)
    if not suffix or plain.endswith("_" + suffix):
        return plain, published_unit
    return f"{plain}_{suffix}", published_unit


def _said(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    shown = str(value)
    return f"'{shown[:40]}…'" if len(shown) > 40 else f"'{shown}'"
