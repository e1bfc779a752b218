"""Units: which can be converted into each other, and how. Pure.

Upper and lower case count, as in SI, IEC 80000-13 and UCUM: `b` and `bit` are bits, `B` and `By` are bytes,
`k` is a thousand and `Ki` 1024. `mb` is therefore no megabyte and no unit. Words (`bytes`, `percent`) are
read as they are commonly written.
"""

from typing import NamedTuple

from oneweb_bridge.decode.values import Unparseable, describe, snake


class Unit(NamedTuple):
    """Dimension, size in the smallest unit of that dimension, and the unit that the bridge publishes instead."""

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
    amounts = {
        f"{prefix}{symbol}": Unit("data", bits * factor, published)
        for symbol, bits, published in (("bit", 1, "bit"), ("b", 1, "bit"), ("B", 8, "B"), ("By", 8, "B"))
        for prefix, factor in prefixes.items()
    }
    amounts |= {word: Unit("data", 8, "B") for word in _BYTE_WORDS} | {
        word: Unit("data", 1, "bit") for word in _BIT_WORDS
    }
    rates = {f"{name}/s": Unit("rate", unit.factor, "bps") for name, unit in amounts.items()}
    rates |= {
        f"{prefix}{symbol}ps": Unit("rate", bits * factor, "bps")
        for symbol, bits in (("b", 1), ("B", 8))
        for prefix, factor in prefixes.items()
    }
    return amounts | rates


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
    **{name: Unit("length", 10_000, "m") for name in ("m", "metre", "metres", "meter", "meters")},
    "mm": Unit("length", 10, "m"),
    "cm": Unit("length", 100, "m"),
    "km": Unit("length", 10**7, "m"),
    **{name: Unit("length", 3048, "m") for name in ("ft", "foot", "feet")},
    **{name: Unit("length", 16_093_440, "m") for name in ("mi", "mile", "miles")},
    "nmi": Unit("length", 18_520_000, "m"),
    "dBm": Unit("dBm", 1, "dBm"),
    "dB": Unit("dB", 1, "dB"),
    "dB/K": Unit("dB/K", 1, "dB/K"),
    "block": Unit("block", 1, "block"),
    "blocks": Unit("block", 1, "block"),
}
"""Every known unit, by the text in which the API may write it."""

_DIMENSIONS_OF_FOLDED: dict[str, set[str]] = {}
"""Known unit with its letters' case folded -> the dimensions that it may mean."""
for _name, _unit in UNITS.items():
    _DIMENSIONS_OF_FOLDED.setdefault(_name.casefold(), set()).add(_unit.dimension)

ENDINGS = {
    "B": "bytes",
    "bit": "bits",
    "bps": "bps",
    "Mbps": "mbps",
    "GB": "gb",
    "%": "pct",
    "dBm": "dbm",
    "dB": "db",
    "dB/K": "dbk",
    "ms": "ms",
    "s": "s",
    "m": "m",
    "deg": "deg",
}
"""Unit in which a number is published -> ending of its field's name."""


def dimension_of(unit: str) -> str:
    """The dimension of a unit, equal for all that can be converted into each other; an unknown unit is its own."""
    known = UNITS.get(unit)
    return known.dimension if known else unit


def can_convert(unit: str, target: str) -> bool:
    """Whether a number of `unit` can be expressed in `target`."""
    if unit == target or not unit or not target:
        return True
    source_unit, target_unit = UNITS.get(unit), UNITS.get(target)
    return source_unit is not None and target_unit is not None and source_unit.dimension == target_unit.dimension


LONGEST_SYMBOL = 3
"""Characters of a unit whose letters' case counts, outside of data."""


def spelled(unit: str) -> str:
    """The known word that a unit is in another case, such as `Degrees`; any other unit as it is."""
    word = unit.casefold()
    is_word = len(word) > LONGEST_SYMBOL and word in UNITS and UNITS[word].dimension not in ("data", "rate")
    return word if is_word else unit


def resembles(unit: str, target: str) -> bool:
    """Whether an unknown unit differs only by its letters' case from one that can be converted into `target`."""
    return unit not in UNITS and dimension_of(target) in _DIMENSIONS_OF_FOLDED.get(unit.casefold(), ())


def convert(number: int | float, unit: str, target: str) -> int | float:  # noqa: PYI041 -- an int stays one
    """`number` of `unit` expressed in `target`, a whole number exactly. Raises Unparseable for another dimension."""
    if unit == target or not unit or not target:
        return number
    if not can_convert(unit, target):
        raise Unparseable(f"expected a number in {target}, got the unit {describe(unit)}")
    factor, divisor = UNITS[unit].factor, UNITS[target].factor
    if isinstance(number, int) and number * factor % divisor == 0:
        return number * factor // divisor
    return number * factor / divisor


def name_unknown_indicator(name: str, unit: str) -> tuple[str, str]:
    """Field name and published unit of an indicator that the catalogue does not know."""
    known = UNITS.get(unit)
    published_unit = known.published if known else unit
    ending, plain_name = ENDINGS.get(published_unit, ""), snake(name)
    if not ending or plain_name.endswith("_" + ending):
        return plain_name, published_unit
    return f"{plain_name}_{ending}", published_unit
