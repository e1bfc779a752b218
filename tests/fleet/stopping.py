"""Points in a worker at which it stops itself with SIGSTOP, so that the product knows of none.

A file names the point; it is removed before the process stops, and whoever wrote it sends SIGCONT. A function that was
renamed makes this fail at once.
"""

import contextlib
import functools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg

from oneweb_bridge.store import postgres, postgres_thread
from oneweb_bridge.store.postgres import CHECK_FENCE, PostgresConnection, PostgresTransaction
from oneweb_bridge.store.postgres_thread import ThreadConnection

POINTS = ("transaction", "copy", "commit", "thread")
"""After the check of the fence, between two rows of a COPY, before COMMIT, and before COMMIT in another thread."""


class Stops:
    """Stops this process at a point that the file names."""

    def __init__(self, flag: Path) -> None:
        self._flag = flag

    def pass_by(self, point: str) -> None:
        """One pass of a point."""
        if self._flag.exists() and self._flag.read_text() == point:
            self._flag.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)


def install(flag: Path) -> None:
    """Puts the points into this process."""
    stops = Stops(flag)
    _hook_transactions(stops)
    _hook_threads(stops)
    real = psycopg.AsyncCopy.write_row

    @functools.wraps(real)
    async def write_row(self: "psycopg.AsyncCopy", row: Any) -> None:
        await real(self, row)
        stops.pass_by("copy")

    psycopg.AsyncCopy.write_row = write_row  # type: ignore[method-assign]


def _hook_transactions(stops: Stops) -> None:
    real = PostgresConnection.transaction

    @contextlib.asynccontextmanager
    async def transaction(self: PostgresConnection) -> AsyncIterator[PostgresTransaction]:
        async with real(self) as opened:
            stops.pass_by("transaction")
            yield opened
            stops.pass_by("commit")

    PostgresConnection.transaction = transaction  # type: ignore[method-assign]


def _hook_threads(stops: Stops) -> None:
    real = ThreadConnection.transaction

    @contextlib.contextmanager
    def transaction(self: ThreadConnection) -> Iterator[None]:
        with real(self):
            yield
            stops.pass_by("thread")

    ThreadConnection.transaction = transaction  # type: ignore[method-assign]


def remove_fence() -> None:
    """The control: every transaction passes, whoever holds the instance."""
    passes = "SELECT 1 WHERE concat(CAST(? AS text), CAST(? AS text), CAST(? AS bigint)) <> ''"
    for module in (postgres, postgres_thread):
        assert getattr(module, "CHECK_FENCE", None) == CHECK_FENCE
        setattr(module, "CHECK_FENCE", passes)  # noqa: B010 -- one of them only imports the name
