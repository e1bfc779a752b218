"""The ledger: what every answered page showed, a JSON line each, for a checker that folds it."""

import os
import time
from typing import Any

import msgspec

from .answer import Answer, SimulatedRequest
from .clock import rfc3339


class Ledger:
    """Appends to a file; without a path it does nothing."""

    def __init__(self, path: str | None) -> None:
        # One unbuffered write per line: a kill loses none.
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, request: SimulatedRequest, answer: Answer, at: float, complete: bool) -> None:
        """Note a page that was answered, in the form it had on the wire."""
        if self._file is None or answer.status not in (200, 206) or answer.items is None:
            return
        line: dict[str, Any] = {
            "at": rfc3339(at),
            "wall": time.time(),
            "path": request.path,
            "query": dict(request.query),
            "status": answer.status,
            "offset": answer.offset,
            "total": answer.total,
            "complete_body": complete,
            "items": answer.items,
        }
        os.write(self._file, msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
