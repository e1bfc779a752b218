"""Units: which can be converted into each other, and how. Pure.

Letters decide, as in SI, IEC 80000-13 and UCUM: `b` and `bit` are bits, `B` and `By` are bytes, `k` is
a thousand and `Ki` 1024. `mb` is therefore no megabyte, and no unit at all that anybody means. Words
(`bytes`, `percent`) are taken as they are commonly written.
"""

from typing import NamedTuple

from oneweb_bridge.decode.values import Unparseable, describe, snake


class Unit(NamedTuple):
    """What a unit measures, how many of the smallest unit of its kind it is, and in which unit we publish it."""

    dimension: str
    factor: int
    published: str


_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_BYTE_WORDS = ("byte", "bytes", "Byte", "Bytes", "octet", "octets")
_BIT_WORDS = ("bits", "Bit", "Bits")


def _data_units() -> dict[str, Unit]:
    """Amounts of data and, with `/s` or `ps` behind them, rates; the smallest are a bit and a bit per second."""
    prefixes = _DECIMAL | _BINARY
    found = {
        f"{prefix}{symbol}": Unit("data", bits * factor, published)
        for symbol, bits, published in (("bit", 1, "bit"), ("b", 1, "bit"), ("B", 8, "B"), ("By", 8, "B"))
        for prefix, factor in prefixes.items()
    }
    found |= {word: Unit("data", 8, "B") for word in _BYTE_WORDS} | {
        word: Unit("data", 1, "bit") for word in _BIT_WORDS
    }
    rates = {f"{name}/s": Unit("rate", unit.factor, "bps") for name, unit in found.items()}
    rates |= {
        f"{prefix}{symbol}ps": Unit("rate", bits * factor, "bps")
        for symbol, bits in (("b", 1), ("B", 8))
        for prefix, factor in prefixes.items()
    }
    return found | rates


UNITS: dict[str, Unit] = {
    **_data_units(),
    **{name: Unit("time", 1, "ms") for name in ("ns",)},
    **{name: Unit("time", 10**3, "ms") for name in ("us", "\u00b5s", "\u03bcs")},
    **{name: Unit("time", 10**6, "ms") for name in ("ms", "msec")},
    **{name: Unit("time", 10**9, "s") for name in ("s", "sec", "second", "seconds")},
    **{name: Unit("time", 60 * 10**9, "s") for name in ("min", "minute", "minutes")},
    **{name: Unit("time", 3600 * 10**9, "s") for name in ("h", "hour", "hours")},
    **{name: Unit("time", 86400 * 10**9, "s") for name in ("d", "day", "days")},
    **{name: Unit("share", 1, "%") for name in ("%", "percent")},
    "ratio": Unit("share", 100, "ratio"),
    **{name: Unit("angle", 1, "deg") for name in ("deg", "\u00b0", "degree", "degrees")},
    **{name: Unit("length", 1000, "m") for name in ("m", "metre", "metres", "meter", "meters")},
    "mm": Unit("length", 1, "m"),
    "cm": Unit("length", 10, "m"),
    "km": Unit("length", 10**6, "m"),
    "dBm": Unit("dBm", 1, "dBm"),
    "dB": Unit("dB", 1, "dB"),
    "dB/K": Unit("dB/K", 1, "dB/K"),
    "block": Unit("block", 1, "block"),
    "blocks": Unit("block", 1, "block"),
}
"""Every unit that is known, by the letters in which the API may write it."""

_ENDINGS = {
    "B": "bytes",
    "bit": "bits",
    "bps": "bps",
    "%": "pct",
    "dBm": "dbm",
    "dB": "db",
    "dB/K": "dbk",
    "ms": "ms",
    "s": "s",
    "m": "m",
    "deg": "deg",
}
"""Unit in which an unknown indicator is published -> ending of its field's name."""


def dimension_of(unit: str) -> str:
    """What a unit measures: the same text for all that can be converted into each other; of an unknown one, itself."""
    known = UNITS.get(unit)
    return known.dimension if known else unit


def can_convert(unit: str, wanted: str) -> bool:
    """Whether a number of `unit` can be expressed in `wanted`."""
    if unit == wanted or not unit or not wanted:
        return True
    given, target = UNITS.get(unit), UNITS.get(wanted)
    return given is not None and target is not None and given.dimension == target.dimension


def convert(number: int | float, unit: str, wanted: str) -> int | float:  # noqa: PYI041 -- an int stays one
    """`number` of `unit` expressed in `wanted`, a whole number exactly. Raises Odd when that cannot be."""
    if unit == wanted or not unit or not wanted:
        return number
    if not can_convert(unit, wanted):
        raise Unparseable(f"expected a number in {wanted}, got the unit {describe(unit)}")
    factor, divisor = UNITS[unit].factor, UNITS[wanted].factor
    if isinstance(number, int) and number * factor % divisor == 0:
        return number * factor // divisor
    return number * factor / divisor


def name_unknown_indicator(name: str, unit: str) -> tuple[str, str]:
    """Field name and published unit of an indicator that the catalogue does not know."""
    known = UNITS.get(unit)
    published_unit = known.published if known else unit
    ending, plain = _ENDINGS.get(published_unit, ""), snake(name)
    if not ending or plain.endswith("_" + ending):
        return plain, published_unit
    return f"{plain}_{ending}", published_unit
