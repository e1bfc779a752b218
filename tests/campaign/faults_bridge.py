"""Faults of the bridge's own process: it is killed, stopped, suspended, told to reload, and crashes at named points."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Sequence
from functools import partial

from tests import harness
from tests.campaign.fault import Fault
from tests.campaign.scene import Part, meanwhile

POINTS_OF_STORING = {"before_commit": (2, 40), "after_commit": (2, 40), "between_slices": (1, 6), "staging": (1, 6)}
POINTS_OF_PUBLISHING = {
    "after_publish": (5, 80),
    "after_puback": (1, 15),
    "after_cursor": (1, 15),
    "announcing": (1, 2),
}
"""From which to which pass of a point the process may be killed."""
CRASHES = 2
"""How often it must crash when nothing else is wrong."""


@contextlib.asynccontextmanager
async def killed(part: Part) -> AsyncIterator[None]:
    """Kill -9 at the begin, while it publishes, and at the end; alone, on either version of MQTT."""

    async def kill(protocol: str) -> None:
        async with part.scene.down(kill=True):
            part.scene.changes[part.fault] = {"mqtt": {"protocol": protocol}} if part.scene.is_alone else {}
        await part.scene.until_running()

    async def kill_again() -> None:
        while True:
            await _publishing(part)
            await kill(part.chance.choice(("5", "5", "3.1.1")))

    await kill("5")
    async with meanwhile(kill_again()):
        yield
    await kill("5")
    del part.scene.changes[part.fault]


async def _publishing(part: Part) -> None:
    """Waits until the bridge has published some messages more, or for some seconds where it does not."""
    taken = part.stage.proxy.taken
    enough = len(taken) + part.chance.randint(15, 150)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(part.chance.uniform(1.0, 8.0)):
            while len(taken) < enough:
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def stopped(part: Part) -> AsyncIterator[None]:
    """SIGTERM at the begin; a moment later it is started again, and stopped once more at the end."""
    async with part.scene.down():
        await part.pause(0.2, 1.5)
    await part.scene.until_running()
    yield
    async with part.scene.down():
        pass


@contextlib.asynccontextmanager
async def suspended(part: Part) -> AsyncIterator[None]:
    """SIGSTOP: the process gets no time, while everything around it goes on."""
    async with part.scene.held():
        with contextlib.suppress(ProcessLookupError):
            part.stage.bridge.signal(signal.SIGSTOP)
        yield
        with contextlib.suppress(ProcessLookupError):
            part.stage.bridge.signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def reloaded(part: Part) -> AsyncIterator[None]:
    """SIGHUP with other intervals at the begin, and with those of before at the end."""
    part.scene.changes[part.fault] = {"polling": {"sites": {"interval": "33s"}}, "location_threshold": "90m"}
    await part.scene.reload(signal.SIGHUP)
    yield
    del part.scene.changes[part.fault]
    await part.scene.reload(signal.SIGHUP)


@contextlib.asynccontextmanager
async def crashing(part: Part, points: dict[str, tuple[int, int]]) -> AsyncIterator[None]:
    """It kills itself at a point of the pipeline, and again after the next start; alone, it must get there twice."""
    crashes: list[int | None] = []

    async def crash_again() -> None:
        while True:
            point = part.chance.choice(sorted(points))
            async with part.scene.down(kill=True):
                before = part.stage.bridge
                part.scene.next_accident = {"at": point, "nth": part.chance.randint(*points[point]), "slice": 5}
            crashing = await _next_process(part, before)
            _change_all(part)
            await _next_process(part, crashing)
            crashes.append(crashing.returncode)

    async with meanwhile(crash_again()):
        yield
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(40 * CRASHES if part.scene.is_alone else 0.0):
                while len(crashes) < CRASHES:
                    await asyncio.sleep(0.05)
    part.expect(len(crashes) >= CRASHES, f"it came to {sorted(points)} {len(crashes)} times only")
    part.expect(set(crashes) <= {-signal.SIGKILL}, f"{sorted(points)}: exit codes {crashes} instead of kills")
    async with part.scene.down(kill=True):
        part.scene.next_accident = {}


async def _next_process(part: Part, before: harness.Process) -> harness.Process:
    """Waits until the supervisor has started another process than this."""
    while part.stage.bridge is before:
        await asyncio.sleep(0.02)
    return part.stage.bridge


def _change_all(part: Part) -> None:
    """Changes that every listing, report and device will see."""
    for terminal in part.stage.api.truth("terminals"):
        state = part.chance.choice(("online", "offline", "degraded"))
        part.stage.api.fleet("set_state", id=terminal["id"], state=state)
        part.stage.api.fleet("firmware", id=terminal["id"], version=f"v{part.chance.randint(1, 999)}")
    part.stage.api.advance(30)


def crash_at(point: str) -> Fault:
    """The fault of one point alone."""
    hold = partial(crashing, points={point: ALL_POINTS[point]})
    return Fault(name=f"crash {point}", actor="bridge", about=f"kill -9 at the point {point}", hold=hold)


ALL_POINTS = POINTS_OF_STORING | POINTS_OF_PUBLISHING
FAULTS: Sequence[Fault] = (
    Fault(name="bridge killed", actor="bridge", about="kill -9 while it publishes, again and again", hold=killed),
    Fault(name="bridge stopped", actor="bridge", about="SIGTERM, twice", hold=stopped),
    Fault(name="bridge suspended", actor="bridge", about="SIGSTOP for some seconds", hold=suspended, patience=90.0),
    Fault(name="bridge reloaded", actor="bridge", about="SIGHUP with a changed configuration, and back", hold=reloaded),
    Fault(
        name="crash while storing",
        actor="bridge",
        about="kill -9 around a commit or while a listing is staged",
        hold=partial(crashing, points=POINTS_OF_STORING),
    ),
    Fault(
        name="crash while publishing",
        actor="bridge",
        about="kill -9 around a message, its PUBACK, the cursor or a device",
        hold=partial(crashing, points=POINTS_OF_PUBLISHING),
    ),
)
