"""A NATS cluster of three as the broker: the whole bridge on it, and a server that is killed amid messages."""

import asyncio
import json
import re
from pathlib import Path

import aiomqtt
import pytest

from tests import broker_rounds, harness, nats

pytestmark = pytest.mark.nats
MESSAGES = 400
BASE = "oneweb/fleet"
"""Below what the users of deploy/fleet may read and write."""
PATIENCE_S = 90.0
LEGAL = re.compile(r"[A-Za-z0-9_/-]+")


async def test_cluster_is_a_broker_also_when_a_server_is_killed(world: harness.World, tmp_path: Path) -> None:
    """The whole bridge works there; nothing that was acknowledged is lost, and what is retained is right on each."""
    async with nats.run_nats(tmp_path) as cluster:
        await _run_bridge(cluster, world)
        figures = await broker_rounds.play_in_cluster(cluster, tmp_path, MESSAGES)
    assert figures.findings == [], json.dumps(figures.findings)
    assert figures.acknowledged == figures.received == MESSAGES


async def _run_bridge(cluster: nats.NatsCluster, world: harness.World) -> None:
    """Records are retained on each server, a command is answered, and no topic is refused."""
    first, second, third = cluster.ports
    servers = [f"127.0.0.1:{second}", f"127.0.0.1:{third}"]
    mqtt = {"port": first, "servers": servers, "protocol": "3.1.1", "base_topic": BASE, **broker_rounds.CREDENTIALS}
    topic = f"{BASE}/bridge/polling/sites"
    async with (
        nats.subscribed(third, f"{BASE}/#", "homeassistant/#") as subscriber,
        harness.running(world.config(mqtt=mqtt)),
    ):
        await subscriber.until(lambda: subscriber.newest.get(f"{topic}/state", {}).get("status") == "ok", PATIENCE_S)
        await publish(second, f"{topic}/poll", '{"id": "mine"}')
        await subscriber.until(lambda: subscriber.newest.get(f"{topic}/result", {}).get("id") == "mine", PATIENCE_S)
        states = {
            name: doc for name, doc in subscriber.newest.items() if re.fullmatch(rf"{BASE}/site/[^/]+/state", name)
        }
        assert states
        # Servers learn it one by one.
        async with asyncio.timeout(PATIENCE_S):
            while await nats.retained(second, f"{BASE}/site/+/state") != states:
                await asyncio.sleep(0.2)
        # Devices are announced a few seconds after the rest.
        await subscriber.until(lambda: any(name.startswith("homeassistant/") for name in subscriber.newest), PATIENCE_S)
        # Here, because a bridge that has ended says `offline`.
        assert subscriber.newest[f"{BASE}/bridge/status"] == {"state": "online"}
    assert [name for name in subscriber.newest if not LEGAL.fullmatch(name)] == []
    # What the tree avoids is really refused.
    with pytest.raises(aiomqtt.MqttError):
        await publish(first, f"{BASE}/site/a.b", "{}")


async def publish(port: int, topic: str, payload: str) -> None:
    async with nats.client_of(port) as client:
        await client.publish(topic, payload, qos=1)


def test_violations_are_noticed() -> None:
    """The judge of such rounds sees a row that is missing, one that was never acknowledged, and a step back."""
    rounds = 3
    rows = [(f"s{site}", number) for number in range(rounds) for site in range(broker_rounds.SITES)]
    assert broker_rounds.find_violations(set(rows), rows, rounds) == []
    assert broker_rounds.find_violations(set(rows), [*rows, *rows[:5]], rounds) == []
    assert len(broker_rounds.find_violations(set(rows), rows[1:], rounds)) == 1
    assert len(broker_rounds.find_violations(set(rows[1:]), rows, rounds)) == 1
    assert len(broker_rounds.find_violations(set(rows), [*rows[20:40], *rows[:20], *rows[40:]], rounds)) == 20
