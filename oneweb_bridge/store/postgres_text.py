"""Texts and statements on their way to PostgreSQL and back.

PostgreSQL holds every character but NUL, and the API's ids may be anything: a NUL is written as two other characters.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

ESCAPE = "\U0010ffff"
"""A code point that is no character and never will be. It stands before "0" for NUL, and before "1" for itself."""


@functools.cache
def translate(sql: str) -> bytes:
    """A statement with PostgreSQL's placeholders; no statement of the store has a question mark for anything else."""
    first, *rest = sql.split("?")
    return (first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))).encode()


def escape_row(row: Sequence[Any]) -> Sequence[Any]:
    """Values as they are stored."""
    if not any(type(value) is str and ("\0" in value or ESCAPE in value) for value in row):
        return row
    return [_escape(value) if isinstance(value, str) else value for value in row]


def escape_rows(rows: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """Rows as they are stored."""
    return [escape_row(row) for row in rows]


def restore_row(row: Sequence[Any]) -> Sequence[Any]:
    """A row with its values as they were given."""
    if not any(type(value) is str and ESCAPE in value for value in row):
        return row
    return tuple(_restore(value) if isinstance(value, str) else value for value in row)


def restore_rows(rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Rows with their values as they were given."""
    return [restore_row(row) for row in rows]


def _escape(text: str) -> str:
    return text.replace(ESCAPE, ESCAPE + "1").replace("\0", ESCAPE + "0")


def _restore(text: str) -> str:
    return text.replace(ESCAPE + "0", "\0").replace(ESCAPE + "1", ESCAPE)
