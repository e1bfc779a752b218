"""The border between the API's answers and the bridge: an error in one record costs that record alone. Pure.

Whatever goes wrong while one record or one sample is decoded sets that one aside, because an error
that left here would end the process, and be there again after each restart.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import msgspec

from oneweb_bridge.decode import values


class BadPage(ValueError):
    """A page that is not a list of records; the text says what came instead."""


class Unreadable(ValueError):
    """A whole record or sample that cannot be used. The text is the reason, `__cause__` the error behind it."""


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def at_border(decode: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Makes `decode` of one record or sample raise Unreadable and nothing else."""

    def decode_at_border(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return decode(*args, **kwargs)
        except Unreadable:
            raise
        # An answer may hold anything, and no list of errors is complete: see the top of the module.
        except Exception as error:
            raise Unreadable(_reason(error)) from error

    return decode_at_border


def _reason(error: Exception) -> str:
    """A short sentence about an error, beginning with the field names in its notes."""
    fields = "".join(f"{name}: " for name in getattr(error, "__notes__", ()))
    kind = "" if isinstance(error, (values.Unparseable, msgspec.MsgspecError)) else f"{type(error).__name__}: "
    return f"{fields}{kind}{error}"[:MAX_REASON_CHARS]


MAX_REASON_CHARS = 200
"""Longest sentence about a record that could not be read."""
