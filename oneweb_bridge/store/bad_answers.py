"""The folder beside the database with the beginning of the last bad answer to each call."""

import contextlib
from pathlib import Path

from oneweb_bridge.store.places import Place


class BadAnswers:
    """One file for each call, for the operator to look at; none where the database is no file."""

    def __init__(self, place: Place) -> None:
        self._folder = place.with_name(f"{place.name}.bad-answers") if isinstance(place, Path) else None

    def write(self, call: str, excerpt: bytes) -> None:
        """Replaces the call's file. A disk that refuses it changes nothing: the file is a convenience."""
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            (self._folder / f"{call}.txt").write_bytes(excerpt)
