"""The faults of days: those of the catalogue that need no real socket. Their pauses are minutes instead of tenths."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any
from unittest import mock

import aiosqlite
import msgspec

from oneweb_bridge.decode.catalogue import CALLS
from tests import crashing, rounds_api
from tests.campaign.day import Day
from tests.campaign.faults_api import DATES, PATHS, SHORT_PAST
from tests.campaign.faults_disk import DAY, HOUR, YEAR
from tests.campaign.faults_fleet import IDS, NAMES
from tests.campaign.scene import meanwhile
from tests.rounds_api import Faults

SILENCES: Faults = (("slow", {"rate": 200.0}), ("hang", {"seconds": 300.0}), ("hang", {"seconds": 20.0}))
CUTS: Faults = (
    *(("cut", {"bytes": at, "length": length}) for at in (5, 300, 3000) for length in ("content", "chunked", "none")),
    ("truncated", {"bytes": 300}),
)


COMMANDS: Sequence[dict[str, bool | float | None] | None] = (
    {"interval": 30.0},
    {"interval": 600.0},
    {"interval": 86400.0},
    {"interval": None},
    {"enabled": False},
    {"enabled": True},
    {"enabled": None},
    None,
    None,
)
"""What a command changes of calls; None for one that polls."""


class DayFault(msgspec.Struct, frozen=True, kw_only=True):
    """It is in force while the block of `hold` runs, alone or beside others."""

    name: str
    actor: str
    about: str
    hold: Callable[[Day, random.Random], AbstractAsyncContextManager[None]]
    most: float = float("inf")
    """Seconds that it lasts at most: where the disk is at fault, the bridge tries again every few seconds."""
    changes: dict[str, Any] = {}
    """What it needs of the configuration, from the beginning of its day."""


# ── the API ────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def troubled(day: Day, chance: random.Random, name: str, faults: Faults) -> AsyncIterator[None]:
    """A few answers at a time are wrong, of all calls or of some."""

    async def trouble() -> None:
        while True:
            kind, details = chance.choice(faults)
            day.set_trouble(name, kind=kind, count=chance.randint(1, 8), path=chance.choice(PATHS), **details)
            await asyncio.sleep(chance.uniform(60, 900))

    async with meanwhile(trouble()):
        yield
    day.set_trouble(name)


@contextlib.asynccontextmanager
async def failing(day: Day, chance: random.Random, name: str, statuses: Sequence[int]) -> AsyncIterator[None]:
    """Every answer is the same error."""
    day.set_trouble(name, kind="status", status=chance.choice(statuses))
    yield
    day.set_trouble(name)


# ── clock, disk, process, configuration ────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def clock_off(day: Day, chance: random.Random, name: str, unit: int) -> AsyncIterator[None]:
    """The wall clock jumps by one or three units ahead or behind, again and again, and is right at the end."""

    async def jump_again() -> None:
        while True:
            # With a rest, so that no wrong time is that of another poll.
            await day.set_skew(name, chance.choice((unit, -unit, 3 * unit)) + chance.uniform(10, 200))
            await asyncio.sleep(chance.uniform(300, 5400))

    async with meanwhile(jump_again()):
        yield
    await day.set_skew(name, 0.0)


@contextlib.contextmanager
def _bad_disk(day: Day) -> Iterator[None]:
    """What is done to statements within the block is undone after it; a start of the bridge may fail."""
    day.is_disk_at_fault = True
    try:
        with mock.patch.object(aiosqlite.Connection, "execute", aiosqlite.Connection.execute):
            yield
    finally:
        day.is_disk_at_fault = False


@contextlib.asynccontextmanager
async def commits_failing(day: Day, chance: random.Random) -> AsyncIterator[None]:
    """A part of all writes ends with an I/O error."""
    with _bad_disk(day):
        crashing.let_writes_fail(lambda: True, chance.choice((0.05, 0.2, 0.6, 1.0)), chance)
        yield


@contextlib.asynccontextmanager
async def disk_full(day: Day, chance: random.Random) -> AsyncIterator[None]:
    """There is room at times only."""
    full = [True]

    async def change() -> None:
        while True:
            full[0] = chance.random() < 0.7
            await asyncio.sleep(chance.uniform(60, 1800))

    with _bad_disk(day):
        crashing.let_the_disk_be_full(lambda: full[0])
        async with meanwhile(change()):
            yield
        full[0] = False
        # The bound is taken back at the next transaction of each connection.
        await asyncio.sleep(120.0)


@contextlib.asynccontextmanager
async def restarted(day: Day, chance: random.Random) -> AsyncIterator[None]:
    """The bridge ends at whatever it does, and is started again, after seconds or hours."""

    async def restart_again() -> None:
        while True:
            await asyncio.sleep(chance.uniform(20, 3600))
            await day.end_bridge()

    async with meanwhile(restart_again()):
        yield


@contextlib.asynccontextmanager
async def reconfigured(day: Day, chance: random.Random, name: str, changes: Sequence[Any]) -> AsyncIterator[None]:
    """The configuration is read again with something changed, at last with that of before."""

    async def change_again() -> None:
        while True:
            day.changes[name] = chance.choice(changes)
            await day.reconfigure()
            await asyncio.sleep(chance.uniform(600, 3600))

    async with meanwhile(change_again()):
        yield
    day.changes.pop(name, None)
    await day.reconfigure()


@contextlib.asynccontextmanager
async def commanded(day: Day, chance: random.Random) -> AsyncIterator[None]:
    """Commands set other intervals, disable calls and poll, one or many at once; at last all is as the file says."""

    async def command_again() -> None:
        while True:
            calls = chance.sample(sorted(CALLS), chance.choice((1, 1, 3, len(CALLS))))
            await day.command(calls, chance.choice(COMMANDS))
            await asyncio.sleep(chance.uniform(5, 3600))

    async with meanwhile(command_again()):
        yield
    await day.command(sorted(CALLS), {"interval": None, "enabled": None})


# ── the fleet ──────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def vanished(day: Day, chance: random.Random, count: int) -> AsyncIterator[None]:
    """Terminals vanish, and come back."""
    gone = chance.sample(day.api.truth("terminals"), count)
    for terminal in gone:
        day.api.fleet("remove", id=terminal["id"])
    yield
    for terminal in gone:
        day.api.fleet("restore", id=terminal["id"])


@contextlib.asynccontextmanager
async def degraded(day: Day, chance: random.Random) -> AsyncIterator[None]:
    """Every terminal degrades at once, and is online again."""
    state = chance.choice(("degraded", "offline"))
    for terminal in day.api.truth("terminals"):
        day.api.fleet("set_state", id=terminal["id"], state=state)
    yield
    for terminal in day.api.truth("terminals"):
        day.api.fleet("set_state", id=terminal["id"], state="online")


@contextlib.asynccontextmanager
async def renamed(day: Day, chance: random.Random) -> AsyncIterator[None]:
    """Names of any characters, for terminals, sites and organizations."""

    async def rename_again() -> None:
        while True:
            for kind, operation in (
                ("terminals", "rename"),
                ("sites", "rename_site"),
                ("organizations", "rename_organization"),
            ):
                for record in day.api.truth(kind)[2:]:
                    day.api.fleet(operation, id=record["id"], name=chance.choice(NAMES[1:]))
            await asyncio.sleep(chance.uniform(600, 5400))

    async with meanwhile(rename_again()):
        yield


@contextlib.asynccontextmanager
async def grown(day: Day, chance: random.Random, ids: Sequence[str]) -> AsyncIterator[None]:
    """Terminals come, some of them with ids that are any text, and stay."""
    day.api.fleet("add", count=chance.randint(5, 20))
    for id in chance.sample(ids, min(5, len(ids))):
        day.api.fleet("add", id=id)
    yield


def _api(name: str, about: str, faults: Faults, **changes: Any) -> DayFault:
    return DayFault(
        name=name, actor="api", about=about, hold=partial(troubled, name=name, faults=faults), changes=changes
    )


def _down(name: str, about: str, statuses: Sequence[int]) -> DayFault:
    return DayFault(name=name, actor="api", about=about, hold=partial(failing, name=name, statuses=statuses))


def _clock(unit_name: str, unit: int) -> DayFault:
    name = f"clock a {unit_name} off"
    about = f"the wall clock jumps {unit_name}s ahead and behind"
    return DayFault(name=name, actor="clock", about=about, hold=partial(clock_off, name=name, unit=unit))


def _reconfigured(name: str, about: str, *changes: Any) -> DayFault:
    hold = partial(reconfigured, name=name, changes=changes)
    return DayFault(name=name, actor="bridge", about=about, hold=hold)


PAGED = {"polling": rounds_api.PAGED}
FAULTS: dict[str, DayFault] = {
    fault.name: fault
    for fault in (
        _api("api status", "status codes 400 to 504", rounds_api.STATUS),
        _api("api nonsense", "HTML, null, NaN, depth, redirects, other types", rounds_api.NONSENSE),
        _api("api lies", "pages repeated, missing, half empty", rounds_api.LIES, **PAGED),
        _api("api limits", "429 with nonsense in Retry-After", rounds_api.LIMITS),
        _api("api silent", "answers that trickle or never come", SILENCES),
        _api("api cut", "bodies cut", CUTS),
        _api("api date", "a Date header hours, a day or years off", DATES, polling=SHORT_PAST),
        _down("api down", "5xx for every request", (500, 502, 503, 504)),
        _down("api unauthorized", "401 or 403 for every request", (401, 403)),
        _clock("hour", HOUR),
        _clock("day", DAY),
        _clock("year", YEAR),
        DayFault(
            name="commits fail",
            actor="disk",
            about="I/O errors on a part of all writes",
            hold=commits_failing,
            most=HOUR,
        ),
        DayFault(name="disk full", actor="disk", about="no room for the database, at times", hold=disk_full, most=HOUR),
        DayFault(name="bridge restarted", actor="bridge", about="the process ends at any moment", hold=restarted),
        _reconfigured(
            "intervals changed",
            "the file has other intervals",
            {"polling": {"user_terminals": {"interval": "30s"}, "ut_traffic": {"interval": "1h"}}},
            {"polling": {"ut_traffic": {"enabled": False}, "sites": {"interval": "20m"}}},
        ),
        _reconfigured(
            "budget changed",
            "the file allows few requests in an hour",
            {"api": {"rate_limit": {"max_requests_per_hour": 40}}},
            {"api": {"rate_limit": {"max_requests_per_hour": 200, "min_interval": "5s"}}},
        ),
        DayFault(
            name="commands",
            actor="commands",
            about="intervals, switches and polls by command, one call or all",
            hold=commanded,
        ),
        DayFault(
            name="mass removal",
            actor="fleet",
            about="most terminals vanish, and come back",
            hold=partial(vanished, count=8),
        ),
        DayFault(
            name="records removed",
            actor="fleet",
            about="two terminals vanish, and come back",
            hold=partial(vanished, count=2),
        ),
        DayFault(name="mass degradation", actor="fleet", about="every terminal degrades and recovers", hold=degraded),
        DayFault(name="names odd", actor="fleet", about="names of any characters", hold=renamed),
        DayFault(
            name="fleet grown",
            actor="fleet",
            about="many terminals more, also with odd ids",
            hold=partial(grown, ids=IDS),
        ),
    )
}
