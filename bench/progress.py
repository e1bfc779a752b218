"""What goes on, on standard error, so that standard output has the table alone."""

import sys
import time

BEGUN = time.monotonic()


def say(text: str) -> None:
    """One line, with the seconds since the start."""
    print(f"bench {time.monotonic() - BEGUN:6.0f} s  {text}", file=sys.stderr, flush=True)
