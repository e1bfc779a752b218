"""The command line's parser and its values: what is wrong is one sentence, without the usage."""

import argparse
import contextlib
import sys
from typing import NoReturn

from oneweb_bridge.config.units import parse_duration

WRONG = 2
"""The exit code of wrong usage."""
FILE = "file"
"""The word for going back to the configuration file."""
MAX_TERMINALS = 400_000
"""The largest simulated fleet."""


class Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong, without the usage, which `--help` has. Parsers of commands are of it too."""

    def error(self, message: str) -> NoReturn:
        """Prints the sentence and exits."""
        command = self.prog.removeprefix("oneweb-bridge").strip()
        text = message.removeprefix("argument CALL: ")
        prefix = f"{command}: " if command else ""
        print(f"oneweb-bridge: {prefix}{text} (`{self.prog} --help` shows what there is)", file=sys.stderr)
        raise SystemExit(WRONG)


def parse_terminals(text: str) -> int:
    """The size of a simulated fleet. Raises ArgumentTypeError."""
    if not text.isdecimal() or len(text) > 6 or int(text) > MAX_TERMINALS:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to {MAX_TERMINALS}, got {text[:40]!r}")
    return int(text)


def parse_speed(text: str) -> float:
    """A factor on the time of the simulator. Raises ArgumentTypeError."""
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) <= 1e6:
            return number
    raise argparse.ArgumentTypeError(f"expected a number above 0, at most 1000000, got {text[:40]!r}")


def parse_seconds(text: str) -> float:
    """Seconds of a duration. Raises ArgumentTypeError."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_call(text: str) -> str:
    """The name of a call, or `all`; the nearest names for any other. Raises ArgumentTypeError."""
    import difflib  # noqa: PLC0415 -- half a megabyte, which right names never need

    from oneweb_bridge.decode.catalogue import CALLS  # noqa: PLC0415 -- most commands need no catalogue

    known = [*CALLS, "all"]
    if text in known:
        return text
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    near += [name for name in known if text and text in name and name not in near][:3]
    expected = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(known)}"
    raise argparse.ArgumentTypeError(f"there is no call '{text[:40]}', {expected}")


def parse_interval_or_file(text: str) -> str:
    """An interval within its bounds, as it was written, or FILE. Raises ArgumentTypeError."""
    from oneweb_bridge.commands.decode import parse_interval  # noqa: PLC0415 -- only `set` needs it

    if text == FILE:
        return text
    try:
        parse_interval(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("interval: ")) from None
    return text
