"""What a command that talks to the broker leaves there when it is killed: nothing, because it gives no will."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiomqtt
import pytest

from oneweb_bridge.cli import check, locate, remote
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.mqtt import purge
from oneweb_bridge.mqtt.topics import TopicTree
from tests import harness, proxy

PROBE = "oneweb/bridge/probe"
Work = Callable[[Config], Awaitable[Any]]


async def look(config: Config) -> None:
    """What `check` does with a broker; raises as it does within."""
    await check._probe(config, config.mqtt)


async def read_topics(config: Config) -> None:
    """What `request/purge` reads."""
    await purge.retained_topics(config.mqtt, TopicTree("oneweb", "main", "a journal"))


async def send_command(config: Config) -> None:
    """`oneweb-bridge poll`."""
    await remote.command(config, [("sites", "poll", {})], print)


COMMANDS: dict[str, tuple[Work, str]] = {
    "check": (look, PROBE),
    "purge": (read_topics, PROBE),
    "poll": (send_command, "oneweb/bridge/polling/sites/poll"),
}


@pytest.mark.parametrize(("work", "topic"), COMMANDS.values(), ids=COMMANDS)
async def test_command_that_is_killed_leaves_nothing(work: Work, topic: str) -> None:
    """Cut off right after its message was taken, as by a kill: nothing is retained, and nobody is told anything."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), proxy.between(port) as gate, harness.recording(port, "#") as recorder:
        config = parse(f"mqtt: {{host: 127.0.0.1, port: {gate.port}}}", {})
        working = asyncio.ensure_future(work(config))
        cut: list[str] = []

        def kill(acknowledged: str) -> int:
            cut.append(acknowledged)
            gate.sever()
            working.cancel()
            return -1

        # What is delivered comes before it is said to be taken, and may be all that the command waits for.
        gate.bend, gate.is_mute = kill, True
        with pytest.raises((asyncio.CancelledError, aiomqtt.MqttError)):
            await asyncio.wait_for(working, 30)
        # The broker says what it has to say of a connection that ends before it takes another message.
        await harness.publish(port, "end", b"1")
        await recorder.until(lambda: recorder.on("end"))
        assert (cut, gate.wills) == ([topic], [False])
        assert [each[0] for each in recorder.messages] == [topic, "end"]
        assert await harness.retained(port, "#") == {}


async def test_reading_commands_give_no_will(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does `status`, nor the look for the broker that a bridge uses."""
    monkeypatch.setattr(locate, "RETAINED_TIMEOUT_S", 0.1)
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), proxy.between(port) as gate:
        # All that `status` waits for.
        await harness.publish(port, "oneweb/bridge/info", '{"instance": "main"}', retain=True)
        for call in CALLS:
            await harness.publish(port, f"oneweb/bridge/polling/{call}/state", json.dumps({"call": call}), retain=True)
        config = parse(f"mqtt: {{host: 127.0.0.1, port: {gate.port}}}", {})
        assert isinstance(await locate._read_trace(config, config.mqtt), locate.Trace)
        assert await remote._read_retained(config, config.mqtt)
    assert gate.wills == [False, False]
