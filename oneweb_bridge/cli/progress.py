"""How far long work is, on a terminal; a pipe sees nothing of it."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def show_percent(what: str, *, shown: bool) -> Iterator[Callable[[float], None]]:
    """Shows which part of long work is done, from 0 to 1: after a second, twice a second, and only where `shown`."""
    started_at = printed_at = time.monotonic()

    def progress(part: float) -> None:
        nonlocal printed_at
        now = time.monotonic()
        if shown and now - started_at > 1 and now - printed_at > 0.5:
            printed_at = now
            print(f"\r{100 * part:.0f} % {what}", end="", file=sys.stderr, flush=True)

    try:
        yield progress
    finally:
        if printed_at != started_at:
            print(file=sys.stderr)
