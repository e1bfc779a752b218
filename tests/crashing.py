"""The real command with an accident built in, so that the product itself knows of none.

    python -m tests.crashing '{"at": "after_commit", "nth": 3}' run -c bridge.yaml

The accident is a kill -9 of itself at the n-th pass of a named point, or a commit that fails, a disk that
is full, a clock that is wrong. What it hooks into is looked up by name: a function that was renamed makes the
launcher fail at once, and with it every test of that point.
"""

import asyncio
import functools
import inspect
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite
import msgspec
from aiosqlite.context import contextmanager

from oneweb_bridge.cli import main as cli
from oneweb_bridge.mqtt import link, probing, publisher, sender, session
from oneweb_bridge.polling.missing_records import MissingRecords
from oneweb_bridge.polling.poll_records import RecordsPoll
from oneweb_bridge.store import announcements, database, journal, slices
from oneweb_bridge.store.batch_writer import BatchWriter
from oneweb_bridge.store.commands import CommandTables
from oneweb_bridge.store.sqlite import SqliteConnection
from oneweb_bridge.store.staging import Staging
from oneweb_bridge.trends.pending import PendingDays


class Accident(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall go wrong."""

    at: str = ""
    """A name of `POINTS`: where it kills itself."""
    nth: int = 1
    slice: int = 0
    """Records of one transaction, so that a small fleet has several; 0 leaves it."""
    quick: bool = False
    """Shorter pauses between two connections, so that a round sees more of them."""
    info_every: float = 0.0
    """Seconds between two looks whether the bridge's info has changed; 0 leaves it."""
    probe_patience: float = 0.0
    """Seconds until a probe that does not come back is given up; 0 leaves it."""
    flushes_cursor: bool = True
    """Whether the cursor is flushed to the disk for its own sake, and not only by what else is."""
    fail_while: str = ""
    """While this file exists, `fail_share` of all writes fail with an I/O error."""
    fail_share: float = 0.3
    slow_while: str = ""
    """While this file exists, each write to the disk takes as many seconds as the file says."""
    full_while: str = ""
    """While this file exists, the database cannot grow."""
    clock: str = ""
    """A file with the seconds by which the clock is wrong."""
    seed: int = 0


Point = tuple[type, str, str]
POINTS: dict[str, Point] = {
    "between_slices": (RecordsPoll, "_commit_slice", "after"),
    "staging": (Staging, "add", "after"),
    "removing": (BatchWriter, "_remove", "after"),
    "after_removal": (MissingRecords, "_commit_removed", "after"),
    "after_publish": (link.MqttConnection, "send", "after"),
    "after_puback": (journal.Journal, "advance", "before"),
    "after_cursor": (journal.Journal, "advance", "after"),
    "restoring": (sender.Sender, "wait_for_free_window", "after"),
    "after_command": (CommandTables, "store_command", "after"),
    "announcing": (announcements.Devices, "note", "before"),
    "folding_scan": (PendingDays, "note", "after"),
    "folding_chunks": (PendingDays, "_write_chunks", "after"),
    "folding_end": (PendingDays, "_end_pending", "after"),
    "after_fold": (PendingDays, "write_day", "after"),
}
"""Where it kills itself: before or after a function."""
WITHIN = ("before_commit", "after_commit", "storing_command", "migrating", "after_migration")
"""The points that lie within a transaction."""


class Crash:
    """Counts the passes of the chosen point, and ends the process as `kill -9` does."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def pass_by(self) -> None:
        """One pass."""
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal takes a moment, in which nothing more may happen


def _hook(owner: type, name: str, when: str, crash: Crash) -> None:
    """Puts the crash before or after a function, async or not."""
    real: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(real)
    async def later(*arguments: Any, **named: Any) -> Any:
        if when == "before":
            crash.pass_by()
            return await real(*arguments, **named)
        result = await real(*arguments, **named)
        crash.pass_by()
        return result

    @functools.wraps(real)
    def now(*arguments: Any, **named: Any) -> Any:
        result = real(*arguments, **named)
        crash.pass_by()
        return result

    setattr(owner, name, later if inspect.iscoroutinefunction(real) else now)


Execute = Callable[[aiosqlite.Connection, str, Sequence[Any] | None], Awaitable[aiosqlite.Cursor]]
IsOn = Callable[[], bool]


def instead_of_execute(make: Callable[[Execute], Execute]) -> None:
    """Replaces what every connection does with a statement."""
    instead = make(aiosqlite.Connection.execute)

    @contextmanager
    async def execute(
        self: aiosqlite.Connection, sql: str, parameters: Sequence[Any] | None = None
    ) -> aiosqlite.Cursor:
        return await instead(self, sql, parameters)

    aiosqlite.Connection.execute = execute  # type: ignore[method-assign]


def _hook_commit(point: str, crash: Crash) -> None:
    """Around COMMIT: of any transaction, or of the one that stores a command."""
    change, storing = CommandTables.store_command, [point != "storing_command"]

    def make(real: Execute) -> Execute:
        async def execute(self: aiosqlite.Connection, sql: str, parameters: Sequence[Any] | None) -> aiosqlite.Cursor:
            if sql != "COMMIT" or not storing[0]:
                return await real(self, sql, parameters)
            if point != "after_commit":
                crash.pass_by()
            result = await real(self, sql, parameters)
            if point == "after_commit":
                crash.pass_by()
            return result

        return execute

    async def changing(self: CommandTables, *arguments: Any) -> None:
        storing[0] = True
        await change(self, *arguments)

    instead_of_execute(make)
    if point == "storing_command":
        CommandTables.store_command = changing  # type: ignore[method-assign,assignment]


def _hook_migration(point: str, crash: Crash) -> None:
    real, migrate = aiosqlite.Connection.executescript, database.migrate

    @contextmanager
    async def half(self: aiosqlite.Connection, script: str) -> aiosqlite.Cursor:
        if "user_version" not in script:
            return await real(self, script)
        await real(self, script.removesuffix("COMMIT;"))
        crash.pass_by()
        return await self.execute("COMMIT")

    async def whole(connection: SqliteConnection, path: Path) -> None:
        await migrate(connection, path)
        crash.pass_by()

    if point == "migrating":
        aiosqlite.Connection.executescript = half  # type: ignore[method-assign]
    else:
        database.migrate = whole


def _writes(connection: aiosqlite.Connection, sql: str) -> bool:
    """Whether a statement writes to the disk: the end of a transaction, or one that is its own."""
    word = sql.split(maxsplit=1)[0].upper()
    return word == "COMMIT" or (word in ("INSERT", "UPDATE", "DELETE") and not connection.in_transaction)


def let_writes_fail(is_on: IsOn, share: float, chance: random.Random) -> None:
    """Some commits, and some statements outside of a transaction, end with an I/O error and change nothing."""

    def make(real: Execute) -> Execute:
        async def execute(self: aiosqlite.Connection, sql: str, parameters: Sequence[Any] | None) -> aiosqlite.Cursor:
            if _writes(self, sql) and is_on() and chance.random() < share:
                raise sqlite3.OperationalError("disk I/O error")
            return await real(self, sql, parameters)

        return execute

    instead_of_execute(make)


def _let_writes_be_slow(accident: Accident) -> None:
    """While the file exists, each write takes its time, as on a disk that others keep busy."""
    flag = Path(accident.slow_while)

    def make(real: Execute) -> Execute:
        async def execute(self: aiosqlite.Connection, sql: str, parameters: Sequence[Any] | None) -> aiosqlite.Cursor:
            if _writes(self, sql) and flag.exists():
                await asyncio.sleep(float(flag.read_text() or 0))
            return await real(self, sql, parameters)

        return execute

    instead_of_execute(make)


def let_the_disk_be_full(is_on: IsOn) -> None:
    """Meanwhile no connection lets the database grow, as on a full disk."""

    def make(real: Execute) -> Execute:
        async def execute(self: aiosqlite.Connection, sql: str, parameters: Sequence[Any] | None) -> aiosqlite.Cursor:
            if sql.startswith("BEGIN"):
                bound = await real(self, f"PRAGMA max_page_count = {1 if is_on() else 1 << 30}", None)
                await bound.fetchall()  # a row that is not fetched keeps a read transaction open
                await bound.close()
            return await real(self, sql, parameters)

        return execute

    instead_of_execute(make)


def _flush_no_cursor() -> None:
    async def flush_cursor(_: journal.Journal) -> None:
        return

    assert inspect.iscoroutinefunction(journal.Journal.flush_cursor)
    journal.Journal.flush_cursor = flush_cursor  # type: ignore[method-assign,assignment]


def _bend_the_clock(accident: Accident) -> None:
    """The wall clock is wrong by what the file says; the monotonic one is not, as in a real jump."""
    path, real = Path(accident.clock), time.time

    def wrong() -> float:
        return real() + float(path.read_text() or 0)

    time.time = wrong


def _kill_at(accident: Accident) -> None:
    if accident.at in POINTS:
        _hook(*POINTS[accident.at], Crash(accident.nth))
    elif accident.at in WITHIN:
        hook = _hook_migration if "migra" in accident.at else _hook_commit
        hook(accident.at, Crash(accident.nth))
    else:
        raise AttributeError(f"no point {accident.at}")


def prepare(accident: Accident) -> None:
    """Puts the accident into the program. Raises AttributeError when what it hooks into is gone."""
    if accident.slice:
        slices.SLICE = accident.slice
    if accident.quick:
        publisher.FIRST_RECONNECT_S, publisher.MAX_RECONNECT_S = 0.2, 1.0
    if accident.info_every:
        session.INFO_INTERVAL_S = accident.info_every
    if accident.probe_patience:
        probing.PROBE_TIMEOUT_S = accident.probe_patience
    if not accident.flushes_cursor:
        _flush_no_cursor()
    if accident.at:
        _kill_at(accident)
    if accident.fail_while:
        let_writes_fail(Path(accident.fail_while).exists, accident.fail_share, random.Random(accident.seed))
    if accident.slow_while:
        _let_writes_be_slow(accident)
    if accident.full_while:
        let_the_disk_be_full(Path(accident.full_while).exists)
    if accident.clock:
        _bend_the_clock(accident)


def main(arguments: Sequence[str]) -> int:
    """Runs the command with the accident in it."""
    prepare(msgspec.json.decode(arguments[0], type=Accident))
    return cli.main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
