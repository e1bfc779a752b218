"""Every kind of value that somebody outside may send, put into every place of an answer or a command."""

import copy
import json
from collections.abc import Iterable, Iterator
from typing import Any

PLACEHOLDER = "put the value here"

VALUES: dict[str, str] = {
    "nothing": "null",
    "true": "true",
    "zero": "0",
    "negative": "-1",
    "exact": str(2**53 + 1),
    "largest": str(2**63 - 1),
    "smallest": str(-(2**63)),
    "too_large": str(2**63),
    "unsigned": str(2**64),
    "digits": "1" * 401,
    "negative_digits": "-" + "1" * 401,
    "thousands_of_digits": "9" * 5000,
    "tiny": "1e-320",
    "huge": "1e300",
    "negative_huge": "-1.7e308",
    "overflow": "1e999",
    "fraction": "0.1",
    "empty_text": '""',
    "spaces": json.dumps(" " * 500),
    "cubic": json.dumps("1" + 4000 * " " + "_"),
    "text": '"x"',
    "long_text": json.dumps("x" * 70_000),
    "text_digits": json.dumps("1" * 401),
    "text_number": '"9007199254740993"',
    "text_nan": '"NaN"',
    "text_overflow": '"1e999"',
    "unit": '"5 mb"',
    "first_year": '"0001-01-01T00:00:00Z"',
    "last_second": '"9999-12-31T23:59:60Z"',
    "far_offset": '"9999-12-31T23:59:59-23:59"',
    "zone": '"2025-06-17T13:40:07Z[UTC]"',
    "nul": '"a\\u0000b"',
    "surrogate": '"\\ud800"',
    "emoji": json.dumps("\U0001f6f0"),
    "wildcards": '"a/+/#"',
    "list": "[]",
    "list_of_nothing": "[null, [], {}]",
    "list_of_texts": '["b", "a"]',
    "object": "{}",
    "nested": '{"id": {"id": {"value": {"amount": {"name": []}}}}}',
    "deep": "[" * 60 + "]" * 60,
}
"""Name of a kind -> one value of it, as JSON."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands below an object: its members and elements, and theirs."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in inner:
        yield (*path, key)
        yield from places(member, (*path, key))


def with_value(record: Any, place: tuple[Any, ...], value: str) -> str:
    """The record as JSON, with another value at a place."""
    return next(with_values(record, place, [value]))


def with_values(record: Any, place: tuple[Any, ...], values: Iterable[str]) -> Iterator[str]:
    """The record as JSON with each of the values at a place, one after the other."""
    changed = copy.deepcopy(record)
    at = changed
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = PLACEHOLDER
    before, after = json.dumps(changed).split(json.dumps(PLACEHOLDER))
    return (f"{before}{value}{after}" for value in values)


def check_publishable(value: Any) -> None:
    """Fails for a value that has no place in 64 bits or in JSON."""
    if isinstance(value, dict):
        for name, inner in value.items():
            assert isinstance(name, str)
            check_publishable(inner)
    elif isinstance(value, list):
        for inner in value:
            check_publishable(inner)
    elif isinstance(value, int):
        assert -(2**63) <= value < 2**63
    elif isinstance(value, float):
        assert abs(value) < float("inf")
