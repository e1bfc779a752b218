"""What the system refuses, files and addresses alike: in its words, without numbers and without Python's own."""

import os
import re
import socket
import ssl
from pathlib import Path

_NUMBER = re.compile(r"\[Errno (-?\d+)\] ?")


def refusal_of(error: OSError | ValueError) -> str:
    """Why a file or an address cannot be used. Python says a ValueError of a name with a NUL in it."""
    if not isinstance(error, OSError):
        return "not a file name"
    if isinstance(error, (socket.gaierror, socket.herror, ssl.SSLError)):
        # Their numbers are not the system's.
        return error.strerror or plain_text(str(error))
    if error.errno is not None and error.errno > 0:
        # asyncio puts its own text, with the address as a tuple, in the place of the system's.
        return os.strerror(error.errno)
    return error.strerror or plain_text(str(error)) or "no reason was given"


def is_folder(path: Path) -> bool:
    """Whether a path is a folder. What the system does not let us look at is none: whoever reads it says why."""
    # pathlib's own raises for some refusals, in some Pythons.
    return os.path.isdir(path)  # noqa: PTH112


def is_there(path: Path) -> bool:
    """Whether something is at a path. Raises OSError where the system does not say: Pythons differ in that."""
    try:
        # pathlib's own takes some refusals for an absence, and raises for others.
        os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return True


def plain_text(text: str) -> str:
    """A text of an error without the numbers of the system; where asyncio tried several addresses, the first reason."""
    number = _NUMBER.search(text)
    if number is None:
        return text
    return os.strerror(int(number[1])) if int(number[1]) > 0 else _NUMBER.sub("", text)
