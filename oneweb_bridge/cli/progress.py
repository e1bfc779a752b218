"""How far long work is, on a terminal; a pipe sees nothing of it."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def show_percent(what: str, *, shown: bool) -> Iterator[Callable[[float], None]]:
    """Shows which part of long work is done, from 0 to 1: after a second, twice a second, and only where `shown`."""
    begun = told = time.monotonic()

    def progress(part: float) -> None:
        nonlocal told
        now = time.monotonic()
        if shown and now - begun > 1 and now - told > 0.5:
            told = now
            print(f"\r{100 * part:.0f} % {what}", end="", file=sys.stderr, flush=True)

    try:
        yield progress
    finally:
        if told != begun:
            print(file=sys.stderr)
