"""Rounds of the fault campaign: each makes a world, breaks it in one way, lets it come to rest, and judges.

The same rounds run short in the tests and long in `make soak`.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from oneweb_bridge import broker, simulator
from tests import checker, harness, truth

Finding = str
QUIET = 1.0


class Round(msgspec.Struct, frozen=True):
    """One kind of round, and how often it comes compared with the others."""

    run: Callable[[Path, int], Awaitable[list[Finding]]]
    weight: float = 1.0


def settled(recorder: harness.Recorder, calls: int = 12) -> bool:
    """Whether every call has succeeded at least once, as far as the recorder heard."""
    wanted = {
        t: p for t, p in recorder.retained.items() if t.startswith("oneweb/bridge/polling/") and t.endswith("/state")
    }
    return len(wanted) == calls and all("last_success" in state for state in wanted.values())


async def judged(recorder: harness.Recorder, world: harness.World, *, whole: bool = True) -> list[Finding]:
    """What is wrong once all is quiet: retained topics against the truth, and all that was heard against the ledger.

    `whole` says that the recorder heard everything from the beginning.
    """
    retained, heard = await _standing_still(recorder, world.port)
    story = checker.Story(ledger=world.ledger, heard=heard, retained=retained, whole=whole)
    return truth.differences(retained, truth.expected(world.api)) + checker.judge(story)


async def _standing_still(recorder: harness.Recorder, port: int) -> tuple[dict[str, Any], list[Any]]:
    """What is retained and what was heard at one moment: polls go on, so it is asked until nothing came meanwhile."""
    retained: dict[str, Any] = {}
    for _ in range(30):
        await recorder.quiet(QUIET)
        count = len(_news(recorder))
        retained = await harness.retained(port)
        await asyncio.sleep(0.3)
        if len(_news(recorder)) == count:
            break
    return retained, list(recorder.raw)


def _news(recorder: harness.Recorder) -> list[str]:
    """The topics heard of that are not about the bridge itself."""
    return [topic for topic, _, _ in recorder.messages if "/bridge/" not in topic]


async def killed_in_first_snapshot(directory: Path, seed: int, terminals: int = 400) -> list[Finding]:
    """Kill -9 at a random moment of the first snapshot, then a restart and quiet."""
    chance = random.Random(seed)
    protocol = chance.choice(("5", "5", "3.1.1"))
    async with harness.world(directory, terminals=terminals, seed=seed % 1000) as world:
        world.api.freeze()
        config = world.config(mqtt={"protocol": protocol})
        async with harness.recording(world.port) as recorder:
            async with harness.running(config):
                await recorder.until(lambda: any("/event/" in topic for topic in recorder.topics()), 40)
                await asyncio.sleep(chance.uniform(0.0, 3.0))
            async with harness.running(config):
                await recorder.until(lambda: settled(recorder), 90)
                return await judged(recorder, world)


async def killed_again_and_again(directory: Path, seed: int) -> list[Finding]:
    """A living fleet, and kill -9 every few seconds; at the end the story stands still and all must be right."""
    chance = random.Random(seed)
    async with harness.world(directory, terminals=40, seed=seed % 1000, liveliness=20.0) as world:
        config = world.config()
        async with harness.recording(world.port) as recorder:
            for _ in range(6):
                async with harness.running(config):
                    await asyncio.sleep(chance.uniform(0.5, 6.0))
                world.api.advance(chance.uniform(0, 60))
            world.api.freeze()
            async with harness.running(config):
                await two_more_polls(recorder)
                return await judged(recorder, world)


async def two_more_polls(recorder: harness.Recorder) -> None:
    """Waits until every call has succeeded twice from now on, so that what is retained is what the API shows."""
    calls = [f"oneweb/bridge/polling/{call}/state" for call in harness.QUICK]
    before = {topic: recorder.retained.get(topic, {}).get("last_success", "") for topic in calls}
    for _ in range(2):
        await recorder.until(partial(_succeeded_since, recorder, before), 90)
        before = {topic: recorder.retained[topic]["last_success"] for topic in calls}


def _succeeded_since(recorder: harness.Recorder, before: dict[str, str]) -> bool:
    return all(recorder.retained.get(topic, {}).get("last_success", "") > then for topic, then in before.items())


async def broker_killed(directory: Path, seed: int) -> list[Finding]:
    """The broker is killed with all it knew, stays away for a while, and comes back empty."""
    chance = random.Random(seed)
    port = broker.free_port()
    options = simulator.Options(
        terminals=40,
        seed=seed % 1000,
        liveliness=20.0,
        report_period=0.05,
        lateness_scale=0.02,
        ledger=str(directory / "ledger.jsonl"),
    )
    async with simulator.serve(options) as api:
        world = harness.World(port, api, directory)
        async with harness.running(world.config()):
            for _ in range(3):
                async with broker.running(port) as process:
                    await asyncio.sleep(chance.uniform(1.0, 8.0))
                    process.kill()
                await asyncio.sleep(chance.uniform(0.0, 3.0))
            async with broker.running(port), harness.recording(port) as recorder:
                api.freeze()
                await recorder.until(lambda: recorder.on("oneweb/bridge/head"), 60)
                await two_more_polls(recorder)
                return await judged(recorder, world, whole=False)


async def api_misbehaves(directory: Path, seed: int) -> list[Finding]:
    """The API answers nonsense of every kind for a while; nothing is invented, and afterwards all is right."""
    chance = random.Random(seed)
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("status", {"status": 503}),
        ("status", {"status": 500}),
        ("html", {}),
        ("empty_body", {}),
        ("null", {}),
        ("object", {}),
        ("empty_list", {}),
        ("cut", {"bytes": 900}),
        ("cut", {"bytes": 300, "length": "none"}),
        ("truncated", {"bytes": 700}),
        ("not_utf8", {}),
        ("nan", {}),
        ("deep", {"depth": 20_000}),
        ("total_changes", {}),
        ("page_missing", {}),
        ("redirect", {"host": "127.0.0.2:9"}),
        ("drop_items", {"share": 0.5}),
    )
    async with harness.world(directory, terminals=40, seed=seed % 1000) as world:
        world.api.freeze()
        async with harness.recording(world.port) as recorder, harness.running(world.config()):
            await recorder.until(lambda: settled(recorder), 60)
            for _ in range(10):
                kind, details = chance.choice(kinds)
                world.api.fault(kind, count=chance.randint(1, 6), **details)
                await asyncio.sleep(chance.uniform(0.5, 3.0))
            world.api.clear_faults()
            await two_more_polls(recorder)
            removed = [topic for topic in recorder.topics() if topic.endswith("/event/removed")]
            return [f"invented {topic}" for topic in removed] + await judged(recorder, world)


async def connection_cut(directory: Path, seed: int) -> list[Finding]:
    """The connection to the broker is cut every few messages by a proxy; order holds, nothing is lost."""
    chance = random.Random(seed)
    async with harness.world(directory, terminals=60, seed=seed % 1000) as world:
        world.api.freeze()
        async with harness.cutting_proxy(world.port, chance) as proxy, harness.recording(world.port) as recorder:
            config = world.config(mqtt={"port": proxy.port})
            async with harness.running(config):
                await recorder.until(lambda: proxy.cuts >= 3, 60)
                proxy.mend()
                await recorder.until(lambda: settled(recorder), 90)
                return await judged(recorder, world)


ROUNDS: dict[str, Round] = {
    "killed_in_first_snapshot": Round(killed_in_first_snapshot, 4.0),
    "killed_again_and_again": Round(killed_again_and_again, 1.0),
    "broker_killed": Round(broker_killed, 1.0),
    "api_misbehaves": Round(api_misbehaves, 1.0),
    "connection_cut": Round(connection_cut, 1.0),
}
