"""Home Assistant's discovery as the whole bridge publishes it: real command, real broker, simulated API."""

import asyncio
from pathlib import Path

from oneweb_bridge.demo import mosquitto
from tests import harness
from tests.campaign import is_at_rest

DISCOVERY = "homeassistant/device/+/config"
POLLING = "oneweb/bridge/polling/+/state"


def terminals(recorder: harness.Recorder) -> set[str]:
    """The IMEIs of the terminals that are announced now."""
    start = "homeassistant/device/oneweb_main_terminal_"
    return {topic.removeprefix(start).removesuffix("/config") for topic in recorder.retained if topic.startswith(start)}


async def test_terminal_is_announced_and_removed_with_its_record(world: harness.World) -> None:
    """Every terminal has a device; one that is gone leaves nothing, and what others have put there stays."""
    foreign = "homeassistant/device/oneweb_other_bridge/config"
    await harness.publish(world.port, foreign, '{"device": {}}', retain=True)
    imeis = {terminal["id"] for terminal in world.api.truth("terminals")}
    gone = min(imeis)
    removal = {"after_missing": 1, "after_time": 0}
    config = world.config(polling=harness.SLOW, removal=removal)
    async with harness.recording(world.port, DISCOVERY) as recorder, harness.running(config):
        await recorder.until(lambda: terminals(recorder) == imeis)
        world.api.fleet("remove", id=gone)
        await harness.poll(world.port, "user_terminals")
        await recorder.until(lambda: terminals(recorder) == imeis - {gone})
        async with harness.recording(world.port, "oneweb/bridge/response/#") as answers:
            await harness.publish(world.port, "oneweb/bridge/request/purge", "{}")
            await answers.until(lambda: answers.on("oneweb/bridge/response/purge"))
        assert foreign in await harness.retained(world.port, DISCOVERY)
        retained = await harness.retained(world.port, DISCOVERY)
        await recorder.until(lambda: retained.keys() <= recorder.retained.keys())


async def until_announced(database: Path) -> None:
    """Waits until the broker has accepted what is announced of every device."""
    async with asyncio.timeout(harness.BUSY_S):
        while harness.rows_of(database, "SELECT 1 FROM discovery WHERE mark > done"):
            await asyncio.sleep(0.1)


async def test_broker_that_forgot_is_told_of_every_device_again(world: harness.World, tmp_path: Path) -> None:
    """A broker that lost what was retained gets all devices again, and so does who asks for them."""
    port = mosquitto.free_port()
    config = harness.bridge_yaml(tmp_path, world.api.url, port, polling=harness.SLOW)
    bridge = None
    try:
        async with mosquitto.run_mosquitto(port), harness.recording(port, DISCOVERY, POLLING) as recorder:
            bridge = await harness.started(config)
            await recorder.until(lambda: len(terminals(recorder)) == 8 and is_at_rest(recorder))
            await until_announced(tmp_path / "bridge.db")
            before = await harness.retained(port, DISCOVERY)
        async with mosquitto.run_mosquitto(port), harness.recording(port, DISCOVERY) as recorder:
            await recorder.until(lambda: set(recorder.retained) == set(before), 60)
            assert await harness.retained(port, DISCOVERY) == before
            count = len(recorder.messages)
            await harness.publish(port, "oneweb/bridge/request/republish", '{"what": "discovery"}')
            await recorder.until(lambda: len(recorder.messages) == count + len(before))
    finally:
        if bridge is not None:
            await bridge.kill()
