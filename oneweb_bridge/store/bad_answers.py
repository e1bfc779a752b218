"""The folder beside the database with the beginning of the last bad answer to each call."""

import contextlib
from pathlib import Path


class BadAnswers:
    """One file for each call, for the operator to look at."""

    def __init__(self, database: Path) -> None:
        self._folder = database.with_name(f"{database.name}.bad-answers")

    def write(self, call: str, excerpt: bytes) -> None:
        """Replaces the call's file. A disk that refuses it changes nothing: the file is a convenience."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            (self._folder / f"{call}.txt").write_bytes(excerpt)
