"""Plays a timeline: sets up what its faults need, begins and ends each at its time, and asks for the result."""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.campaign.catalogue import FAULTS
from tests.campaign.scene import Part, Scene, Setup, meanwhile
from tests.campaign.timeline import Span, Timeline, draw
from tests.fault_bench import RoundResult, set_up

MORE_PATIENCE_S = 30.0
"""Seconds more for each further fault, because recoveries may wait for each other."""


async def play(directory: Path, timeline: Timeline, terminals: int = 12) -> RoundResult:
    """What became of the bridge under these faults, with a fleet of at least so many terminals."""
    faults = [FAULTS[name] for name in timeline.faults]
    setup = functools.reduce(Setup.joined, [fault.setup for fault in faults], Setup())
    options = {"terminals": terminals} | setup.fleet
    async with set_up(directory, timeline.seed, kept=True, broker_conf=setup.broker, **options) as stage:
        scene = Scene(stage, setup, timeline.seed, is_alone=len(faults) == 1)
        await scene.start()
        async with meanwhile(scene.supervise()):
            if not timeline.is_cold:
                await stage.wait_until_at_rest()
            async with asyncio.TaskGroup() as group:
                for span in timeline.spans:
                    group.create_task(_hold(scene, span, timeline.seed), name=span.fault)
            await scene.until_running()
            stage.mended()
            patience = max(fault.patience for fault in faults) + MORE_PATIENCE_S * (len(faults) - 1)
            result = await stage.finish_allowing(scene.allowances, patience)
        scene.conclude()
        return result


async def _hold(scene: Scene, span: Span, seed: int) -> None:
    """One fault from its begin to its end. Its choices depend on the seed and its name alone."""
    await asyncio.sleep(span.begin)
    part = Part(scene, span.fault, random.Random(f"{seed} {span.fault}"))
    async with FAULTS[span.fault].hold(part):
        await asyncio.sleep(span.seconds)


def alone(fault: str, *, is_cold: bool = False) -> Callable[[Path, int], Awaitable[RoundResult]]:
    """Rounds with this fault alone, from directory and seed."""

    async def run(directory: Path, seed: int) -> RoundResult:
        return await play(directory, draw(seed, (fault,), cold_share=float(is_cold)))

    return run
