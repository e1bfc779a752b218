"""How values are written: JSON as it is stored and published, times and counts as text. Pure."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, get_args, get_origin, get_type_hints

import msgspec

MAX_LINE_CHARS = 500

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


def count_text(count: object, single: str, several: str = "") -> str:
    """A number and the words that it needs: `1 record`, `2 records`; `several` where an s is not all that differs."""
    return f"{count} {single if count == 1 else several or f'{single}s'}"


def one_line(value: object) -> str:
    """What somebody else sent, as a line for people: not longer than they read, nothing that moves a cursor."""
    text = " ".join(str(value).split())
    return printable(text if len(text) <= MAX_LINE_CHARS else f"{text[:MAX_LINE_CHARS]}…")


def printable(text: str) -> str:
    """The text with nothing in it that begins a line, moves a cursor or turns the direction of writing."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)


def describe_mismatch(error: Exception, form: type[msgspec.Struct]) -> str:
    """What msgspec says of an object that is not of a form; of a word that is none of a list, which are in the list."""
    text = str(error)[:200]
    place = re.search(r"`\$\.(\w+)`", text)
    kind = get_type_hints(form).get(place[1]) if place else None
    if place is None or get_origin(kind) is not Literal:
        return re.sub(r"Expected `(\w+)`, got `(\w+)` - at `\$\.(\w+)`", _type_mismatch, text)
    return f"{place[1]}: expected one of {', '.join(str(choice) for choice in get_args(kind))}"


_TYPES = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "array": "a list"}


def _type_mismatch(match: re.Match[str]) -> str:
    return f"{match[3]}: expected {_TYPES.get(match[1], match[1])}, got {_TYPES.get(match[2], match[2])}"
