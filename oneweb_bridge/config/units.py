"""Durations, sizes, lengths and shares: from the text of the file to a number and back. Pure."""

import re
from collections.abc import Mapping as Table

MAX_QUANTITY_CHARS = 64
"""Longest text that is parsed as a number with a unit."""
MAX_DURATION_S = 100 * 366 * 86400.0
MIN_INTERVAL_S, MAX_INTERVAL_S = 10.0, 604_800.0
"""Bounds of the interval of a call, in the file and in commands."""
MAX_SIZE_BYTES = (1 << 63) - 1
MAX_LENGTH_M = 1e9
MAX_AMOUNT = 1e9
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z%]*)", re.ASCII)
_DURATIONS = {"y": 31_536_000.0, "d": 86400.0, "h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0, "": 1.0, "ms": 0.001}
_ISO_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", re.ASCII)
"""ISO 8601 without years, months and weeks, which Home Assistant and Java write."""
_ISO_FACTORS = (86400.0, 3600.0, 60.0, 1.0)
_DECIMAL = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY = {"KiB": 2**10, "kiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZES = _DECIMAL | _BINARY
_LENGTHS = {"km": 1000.0, "m": 1.0, "": 1.0}
_SHARES = {"%": 0.01, "": 1.0}


def parse_duration(raw: object) -> float:
    """Seconds from `30s`, `5m`, `5min`, `6h`, `1d`, `2y` (of 365 days), `250ms`, `PT5M` or a number.

    Raises ValueError with a sentence.
    """
    expected = "a duration like 30s or 5m, at most 100 years"
    parts = _ISO_DURATION.fullmatch(raw.strip()) if isinstance(raw, str) and len(raw) <= MAX_QUANTITY_CHARS else None
    if parts is None or parts[0][-1] in "PT":
        return _parse_quantity(raw, _DURATIONS, expected, MAX_DURATION_S)
    seconds = sum(float(part or 0) * factor for part, factor in zip(parts.groups(), _ISO_FACTORS, strict=True))
    return _parse_quantity(seconds, _DURATIONS, expected, MAX_DURATION_S)


def parse_size(raw: object) -> int:
    """Bytes from `64kB`, `256MB`, `4GB`, `64KiB` or a number of bytes. Raises ValueError with a sentence."""
    return round(_parse_quantity(raw, _SIZES, "a size like 64kB or 4GB", MAX_SIZE_BYTES))


def parse_length(raw: object) -> float:
    """Metres from `100m`, `1km` or a number of metres. Raises ValueError with a sentence."""
    return _parse_quantity(raw, _LENGTHS, "a length like 100m or 1km", MAX_LENGTH_M)


def parse_share(raw: object) -> float:
    """A share from `10%` or `0.1`. Raises ValueError with a sentence."""
    return round(_parse_quantity(raw, _SHARES, "a share like 10% or 0.1", 1.0), 12)


def parse_amount(raw: object) -> float:
    """An amount of money from `90` or `89.5`, without a currency. Raises ValueError with a sentence."""
    return _parse_quantity(raw, {"": 1.0}, "an amount like 90 or 89.5, at most 1000000000", MAX_AMOUNT)


def _parse_quantity(raw: object, units: Table[str, float], expected: str, maximum: float) -> float:
    """The number in `raw`, in the unit of the bridge: from 0 to `maximum`, never infinite. Raises only ValueError."""
    number: float | None = None
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        number = raw
    elif isinstance(raw, str) and len(raw) <= MAX_QUANTITY_CHARS:
        match = _QUANTITY.fullmatch(raw.strip())
        number = float(match[1]) * units[match[2]] if match and match[2] in units else None
    # Compared before the conversion to float, which fails for an integer of any size.
    if number is None or not 0 <= number <= maximum:
        raise ValueError(f"expected {expected}, got {shortened(raw)}")
    return float(number)


def shortened(raw: object) -> str:
    """A value as an error shows it; a long one is cut."""
    if isinstance(raw, int) and not isinstance(raw, bool) and abs(raw) >= 10**20:
        return "a number of more than 20 digits"
    text = str(raw)
    return f"'{text[:40]}…'" if len(text) > 40 else f"'{text}'"


def interval_text(seconds: float) -> str:
    """The shortest exact form of a duration: 300 -> 5m. `parse_duration` reads it back."""
    for unit in ("y", "d", "h", "m", "s"):
        if seconds and seconds % _DURATIONS[unit] == 0:
            return f"{round(seconds / _DURATIONS[unit])}{unit}"
    millis = round(seconds * 1000)
    return f"{millis}ms" if millis and parse_duration(f"{millis}ms") == seconds else f"{seconds:.15g}s"


def size_text(size: int) -> str:
    for unit in ("TB", "GB", "MB", "kB", "TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return f"{size}B"


def length_text(metres: float) -> str:
    return f"{round(metres / 1000)}km" if metres and metres % 1000 == 0 else f"{metres:.15g}m"


def share_text(share: float) -> str:
    return f"{round(share * 100, 10):.12g}%"
