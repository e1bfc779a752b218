"""Parsers of single values: from decoded JSON to the published value. Pure.

A parser returns None for an unknown value, and raises Unparseable for one that it cannot read.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo

from oneweb_bridge.encoding import short_time
from oneweb_bridge.model.records import Value

Reader = Callable[[object], Value | None]
Number = int | float

INTEGER_SUFFIXES = ("_bytes", "_bps", "_blocks")
"""Endings of numeric fields that are published as integers; all others are floats."""
MAX_VALUE_CHARS = 100
"""Longest text that is parsed as a number or a time; a longer one is neither, and no pattern is tried on it."""
MAX_NAME_CHARS = 100
"""Longest name that becomes the name of a field."""

_INT64 = 2**63
_NOT_KNOWN = frozenset(("", "n/a", "na", "null", "none", "-"))
_NUMBER = re.compile(r"([-+]?\d+(?: +\d+)*(?:\.\d+)?(?:[eE][-+]?\d+)?) *((?:[^\W\d_]|[%\u00b0]).*)?")
_AS_PUBLISHED = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ", re.ASCII)
"""A time whose text is published unchanged once it was parsed."""
_END_OF_TIME = 253402300800000
"""The year 10000 in ms since the epoch."""


class Unparseable(ValueError):
    """A value that cannot be parsed. The text names the value and the expected form."""


def is_int64(number: int) -> bool:
    """Whether a whole number fits into signed 64 bits, which SQLite and every reader of JSON need."""
    return -_INT64 <= number < _INT64


def parse_text(value: object) -> str | None:
    """A text; numbers become their decimal form, because ids come as either."""
    if type(value) is str:
        return None if value.strip().casefold() == "n/a" else value
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(_bounded(value))
    raise Unparseable(f"expected a text, got {describe(value)}")


def parse_flag(value: object) -> bool | None:
    """A boolean, also from the words true and false."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().casefold() in ("true", "false"):
        return value.strip().casefold() == "true"
    raise Unparseable(f"expected true or false, got {describe(value)}")


def parse_word(value: object) -> str | None:
    """A text in snake_case."""
    text = parse_text(value)
    if text is not None and len(text) > MAX_NAME_CHARS:
        raise Unparseable(f"expected a word, got {describe(value)}")
    return snake(text or "") or None


def parse_texts(value: object) -> list[str] | None:
    """A list of texts in the order of the API, without nulls."""
    if value is None:
        return None
    if not isinstance(value, list):
        value = [value]
    parsed = [parse_text(entry) for entry in value]
    return [entry for entry in parsed if entry]


def parse_text_set(value: object) -> list[str] | None:
    """A set of texts: sorted, each once, because the API's order means nothing."""
    parsed = parse_texts(value)
    return None if parsed is None else sorted(set(parsed))


def parse_time(value: object, zone: tzinfo = UTC, fold: int = 0) -> int | None:
    """A time in ms since the epoch, from RFC 3339 or an epoch in s, ms, us or ns; `zone` is for times without offset.

    In the hour that such a zone has twice, `fold` 1 means the second.
    """
    if isinstance(value, str):
        value = _bounded_text(value, "a time")
        if value.casefold() in _NOT_KNOWN:
            return None
        return _epoch(int(value)) if value.isdecimal() else _in_range(_parse_time_text(value, zone, fold))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unparseable(f"expected a time, got {describe(value)}")
    return _epoch(value)


def _parse_time_text(text: str, zone: tzinfo, fold: int) -> int:
    """The time of a text. Source: RFC 3339."""
    try:
        parsed, more = parse_datetime(text)
        aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=zone, fold=fold)
        return round(aware.timestamp() * 1000) + more
    except (ValueError, OverflowError):
        raise Unparseable(f"expected a time like 2025-06-17T13:40:07Z, got {describe(text)}") from None


def parse_datetime(text: str) -> tuple[datetime, int]:
    """A time as RFC 3339 and RFC 9557 write it, and the ms to add to it. Raises ValueError."""
    try:
        return datetime.fromisoformat(text), 0
    except ValueError:
        return _parse_unusual_time(text)


def _parse_unusual_time(text: str) -> tuple[datetime, int]:
    """A time in lower case, in second 60 or with a zone behind its offset (RFC 9557), and the ms to add to it."""
    time, bracket, _ = text.partition("[")
    leap = time[16:19] == ":60"
    parsed = datetime.fromisoformat((f"{time[:17]}59{time[19:]}" if leap else time).upper())
    if bracket and parsed.tzinfo is None:
        raise ValueError("a zone in brackets says nothing without an offset")
    return parsed, 1000 if leap else 0


def _bounded_text(value: str, what: str) -> str:
    """A text without the spaces around it. Raises Unparseable when it is longer than any number or time."""
    if len(value) > MAX_VALUE_CHARS:
        raise Unparseable(f"expected {what}, got {describe(value)}")
    return value.strip()


def time_reader(zone: tzinfo) -> Reader:
    """A parser of times that are published as text."""

    def read(value: object) -> str | None:
        ts = parse_time(value, zone)
        if type(value) is str and _AS_PUBLISHED.fullmatch(value):
            return value
        return None if ts is None else short_time(ts)

    return read


_FINER = ((1e15, 4.1e15, 1_000), (1e18, 4.1e18, 1_000_000))
"""Epochs in us and in ns from 2001 to 2099, and how many of them are a millisecond."""


def _epoch(value: Number) -> int:
    for least, most, divisor in _FINER:
        if least <= value <= most:
            return _in_range(int(value // divisor))
    # Compared before anything is computed: there is no float for an int of 400 digits, and none is between for NaN.
    if not 0 <= value < _END_OF_TIME:
        raise Unparseable(f"expected a time between 1970 and 9999, got {describe(value)}")
    return _in_range(round(value if value >= 1e11 else value * 1000))


def _in_range(ts: int) -> int:
    if not 0 <= ts < _END_OF_TIME:
        raise Unparseable("expected a time between 1970 and 9999")
    return ts


def parse_quantity(value: object) -> tuple[Number, str] | None:
    """A number and the unit that was written behind it, if any: 500, "500", "500 GB". An integer stays one.

    A comma is read where it can mean one thing only: 12,5 and 1.234,5 and 1,234.5 and 1,234,567 but not 1,234.
    """
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _bounded(value), ""
    if not isinstance(value, str):
        raise Unparseable(f"expected a number, got {describe(value)}")
    text = _bounded_text(value, "a number")
    if text.casefold() in _NOT_KNOWN:
        return None
    match = _NUMBER.fullmatch(_without_comma(text) if "," in text else text)
    if match is None:
        raise Unparseable(f"expected a number, got {describe(value)}")
    digits = match[1].replace(" ", "")
    whole = digits.lstrip("+-").isdecimal()
    return _bounded(int(digits) if whole else float(digits)), match[2] or ""


def _without_comma(text: str) -> str:
    """A number with commas as one without; as it is where nobody can tell what its comma means."""
    match = _WITH_COMMA.fullmatch(text)
    if match is None:
        return text
    sign, digits, rest = match.groups()
    if _GROUPS.fullmatch(digits):
        return f"{sign}{digits.replace(',', '')}{rest}"
    comma_first, _, point_last = digits.rpartition(".")
    if "," in comma_first and "," not in point_last:
        whole, fraction, mark = comma_first, point_last, ","
    else:
        whole, _, fraction = digits.rpartition(",")
        mark = "."
        if "." not in whole and len(fraction) == 3 and whole != "0":
            return text
    groups = whole.split(mark)
    if "," in whole.replace(mark, "") or any(len(group) != 3 for group in groups[1:]):
        return text
    return f"{sign}{''.join(groups)}.{fraction}{rest}"


_GROUPS = re.compile(r"\d{1,3}(?:,\d{3}){2,}(?:\.\d+)?")
"""Commas that cannot be but between thousands."""
_WITH_COMMA = re.compile(r"([-+]?)(\d[\d.,]*\d)((?:[^\d.,].*)?)", re.DOTALL)


def _bounded(number: Number) -> Number:
    if isinstance(number, int):
        if not is_int64(number):
            raise Unparseable(f"expected a whole number of at most 64 bits, got {describe(number)}")
    elif not math.isfinite(number):
        raise Unparseable(f"expected a finite number, got {number}")
    return number


def round_as_published(name: str, number: Number) -> Number:
    """The number in the JSON type that the contract gives its name. Raises Unparseable for one that overflowed."""
    if not math.isfinite(number):
        raise Unparseable("expected a number that is finite in its unit")
    if name.endswith(INTEGER_SUFFIXES):
        return _bounded(round(number))
    return round(float(number), 9)


_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_SNAKE = re.compile(r"[^a-z0-9]+")


def snake(name: str) -> str:
    """An indicator's name as a field name: packetLoss -> packet_loss; "" for one of more than MAX_NAME_CHARS."""
    if len(name) > MAX_NAME_CHARS:
        return ""
    return _NOT_SNAKE.sub("_", _HUMPS.sub("_", name).casefold()).strip("_")


def describe(value: object) -> str:
    """A value as it stands in an error, in at most 45 characters."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and not is_int64(value):
        return "a number that is too large"
    text = str(value)
    return f"'{text[:40]}…'" if len(text) > 40 else f"'{text}'"
