"""Plays a timeline: sets up what its faults need, begins and ends each at its time, and asks for the result."""

import asyncio
import contextlib
import functools
import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from tests.campaign.catalogue import FAULTS
from tests.campaign.fault import Fault
from tests.campaign.scene import Part, Scene, Setup, meanwhile
from tests.campaign.timeline import Span, Timeline, draw
from tests.fault_bench import RoundResult, set_up

MORE_PATIENCE_S = 30.0
"""Seconds more for each further fault, because recoveries may wait for each other."""


async def play(
    directory: Path, timeline: Timeline, terminals: int = 12, catalogue: Mapping[str, Fault] = FAULTS
) -> RoundResult:
    """What became of the bridge under these faults of a catalogue, with a fleet of at least so many terminals."""
    faults = [catalogue[name] for name in timeline.faults]
    setup = functools.reduce(Setup.joined, [fault.setup for fault in faults], Setup())
    options = {"terminals": terminals} | setup.fleet
    async with set_up(directory, timeline.seed, kept=True, broker_conf=setup.broker, **options) as stage:
        scene = Scene(stage, setup, timeline.seed, is_alone=len(faults) == 1)
        await scene.start()
        async with meanwhile(scene.supervise()):
            if not timeline.is_cold:
                await stage.wait_until_at_rest()
            await _hold_all(scene, timeline, catalogue)
            await scene.until_running()
            stage.mended()
            patience = max(fault.patience for fault in faults) + MORE_PATIENCE_S * (len(faults) - 1)
            result = await stage.finish_allowing(scene.allowances, patience)
        await scene.conclude()
        return result


async def _hold_all(scene: Scene, timeline: Timeline, catalogue: Mapping[str, Fault]) -> None:
    """All faults, each at its time. Where several meet, something is always on its way."""
    life = contextlib.nullcontext() if scene.is_alone else meanwhile(_live(scene, timeline.seed))
    async with life, asyncio.TaskGroup() as group:
        for span in timeline.spans:
            group.create_task(_hold(scene, span, timeline.seed, catalogue[span.fault]), name=span.fault)


async def _hold(scene: Scene, span: Span, seed: int, fault: Fault) -> None:
    """One fault from its begin to its end. Its choices depend on the seed and its name alone."""
    await asyncio.sleep(span.begin)
    part = Part(scene, span.fault, random.Random(f"{seed} {span.fault}"))
    if fault.overtakes:
        scene.allow(span.fault, overtakes=True)
    async with fault.hold(part):
        await scene.pass_time(span.seconds)


async def _live(scene: Scene, seed: int) -> None:
    """Changes of terminals, new samples, and polls of every call, several in a row; and a while of nothing new."""
    chance, api = random.Random(f"{seed} life"), scene.stage.api
    while True:
        await asyncio.sleep(chance.choice((0.6, 0.6, 0.9, 0.9, 3.0)))
        api.advance(chance.uniform(5, 20))
        terminals = api.truth("terminals")
        for terminal in chance.sample(terminals, min(3, len(terminals))):
            api.fleet("rename", id=terminal["id"], name=f"T{chance.randint(1, 1 << 20)}")
        await scene.say("oneweb/bridge/polling/all/poll")


def alone(
    fault: str | Fault, *, is_cold: bool = False, seconds: float | None = None
) -> Callable[[Path, int], Awaitable[RoundResult]]:
    """Rounds with this fault alone, from directory and seed; for so many seconds, where the seed is not to say it."""
    catalogue = FAULTS if isinstance(fault, str) else {fault.name: fault}
    name = fault if isinstance(fault, str) else fault.name

    async def run(directory: Path, seed: int) -> RoundResult:
        timeline = draw(seed, (name,), cold_share=float(is_cold))
        if seconds is not None:
            spans = tuple(msgspec.structs.replace(span, seconds=seconds) for span in timeline.spans)
            timeline = msgspec.structs.replace(timeline, spans=spans)
        return await play(directory, timeline, catalogue=catalogue)

    return run
