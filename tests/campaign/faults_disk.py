"""Faults of the disk and of the wall clock of the bridge's machine."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from functools import partial

from tests.campaign.fault import Fault
from tests.campaign.scene import Part, meanwhile

HOUR, DAY, YEAR = 3600, 86_400, 31_557_600


async def ask_for_more(part: Part) -> None:
    """Polls, changes and commands, while something is wrong."""
    while True:
        for terminal in part.stage.api.truth("terminals"):
            name = f"T{part.chance.randint(1, 1 << 20)}" + "y" * 900
            part.stage.api.fleet("rename", id=terminal["id"], name=name)
        part.stage.api.advance(20)
        await part.scene.say("oneweb/bridge/polling/all/poll")
        await part.scene.say("oneweb/bridge/polling/sites/interval/set", f"{part.chance.randint(60, 600)}")
        await asyncio.sleep(0.7)


@contextlib.asynccontextmanager
async def flagged(part: Part, flag: str, content: str = "") -> AsyncIterator[None]:
    """The disk fails, is full or slow, as long as a file is there; a bridge that is started meanwhile may end."""
    part.scene.allow(part.fault, may_end=True)
    part.scene.file(flag).write_text(content)
    async with meanwhile(ask_for_more(part)):
        try:
            yield
            if flag == "full" and part.scene.is_alone:
                await part.stage.until_ready("journal", is_well=False, patience=30.0)
        finally:
            part.scene.file(flag).unlink()


@contextlib.asynccontextmanager
async def slow(part: Part) -> AsyncIterator[None]:
    """Each commit takes a while."""
    part.scene.file("slow").write_text(f"{part.chance.choice((0.02, 0.1, 0.4))}")
    async with meanwhile(ask_for_more(part)):
        yield
    part.scene.file("slow").unlink()


@contextlib.asynccontextmanager
async def locked(part: Part) -> AsyncIterator[None]:
    """Another process holds the database's lock."""
    part.scene.allow(part.fault, may_end=True)
    path = part.scene.file("bridge.db")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0.0)) as other:
        await _lock(other)
        async with meanwhile(ask_for_more(part)):
            yield
            if part.scene.is_alone:
                await part.pause(8.0, 9.0)  # longer than anybody waits
        if other.in_transaction:
            other.execute("ROLLBACK")


async def _lock(other: sqlite3.Connection) -> None:
    for _ in range(100):
        with contextlib.suppress(sqlite3.OperationalError):
            other.execute("BEGIN IMMEDIATE")
            return
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def clock_off(part: Part, offsets: Sequence[int]) -> AsyncIterator[None]:
    """The wall clock of the bridge's machine jumps, again and again, and is right at the end."""

    async def jump_again() -> None:
        while True:
            part.scene.set_clock(part.fault, part.chance.choice(offsets))
            await part.pause(1.5, 2.5)

    part.scene.is_removal_excluded = True
    async with meanwhile(ask_for_more(part)), meanwhile(jump_again()):
        yield
    part.scene.set_clock(part.fault, 0)


def _clock(name: str, unit: int) -> Fault:
    hold = partial(clock_off, offsets=(unit, -unit, 3 * unit))
    return Fault(name=f"clock a {name} off", actor="clock", about=f"one or three {name}s ahead, or behind", hold=hold)


FAULTS: Sequence[Fault] = (
    Fault(
        name="commits fail",
        actor="disk",
        about="I/O errors on a part of all writes",
        hold=partial(flagged, flag="failing"),
    ),
    Fault(name="disk full", actor="disk", about="no room for the database", hold=partial(flagged, flag="full")),
    Fault(name="disk slow", actor="disk", about="each commit takes up to 0.4 s", hold=slow),
    Fault(name="database locked", actor="disk", about="another process holds the database", hold=locked),
    _clock("hour", HOUR),
    _clock("day", DAY),
    _clock("year", YEAR),
)
