"""Several brokers: which one is tried next, and what the next one is given when one is lost."""

import asyncio
import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest

from oneweb_bridge.cli import check, locate, remote
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.read import load, parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.config.servers import server_name, servers_of
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.mqtt.servers import ServerList
from tests import harness
from tests.broker_rounds import SITES, numbered
from tests.test_publisher import Bench, bench, connected


def config_of(*servers: str, more: str = "") -> Config:
    """A configuration whose first server is `a:1883`."""
    return parse(f"mqtt: {{host: a, servers: [{', '.join(servers)}]{more}}}", {})


def test_servers_are_host_and_port_and_then_the_list() -> None:
    """Host and port come first, the list in its order, each once; the other keys hold for all."""
    config = config_of("b:1884", "'[::1]:1885'", "A:1883", "b:1884", more=", base_topic: fleet")
    servers = servers_of(config.mqtt)
    assert [server_name(server) for server in servers] == ["a:1883", "b:1884", "[::1]:1885"]
    assert {(server.base_topic, server.servers) for server in servers} == {("fleet", ())}
    assert [server_name(server) for server in servers_of(parse("", {}).mqtt)] == ["localhost:1883"]


def test_pause_is_due_when_each_server_was_tried() -> None:
    """Three servers are tried without a pause between them; one that worked gives each other one its try."""
    servers = ServerList(config_of("b:1", "c:1").mqtt)
    tries = [(servers.current.host, servers.go_to_next()) for _ in range(6)]
    assert tries == [("a", True), ("b", True), ("c", False)] * 2
    servers.go_to_next()
    servers.go_to_next()
    servers.begin_round()
    assert [(servers.current.host, servers.go_to_next()) for _ in range(3)] == [("c", True), ("a", True), ("b", False)]
    assert not ServerList(config_of().mqtt).go_to_next()


@pytest.mark.parametrize(
    ("servers", "reason"),
    [
        ("b", "mqtt.servers: expected a list of servers like"),
        ("b:0", "expected a port from 1 to 65535, got 'b:0'"),
        ("b:65536", "expected a port from 1 to 65535, got 'b:65536'"),
        ("'fd00::1:1883'", "mqtt.servers: expected a list of servers like"),
        ("'[fd00]:1883'", "expected a host name or an address, got"),
        ("mqtt://b:1883", "mqtt.servers: expected a list of servers like"),
    ],
)
def test_server_that_is_none_is_refused(servers: str, reason: str) -> None:
    """One sentence with the key says what was expected."""
    with pytest.raises(ConfigError) as caught:
        config_of(servers)
    assert "mqtt.servers" in str(caught.value)
    assert reason in str(caught.value)


def test_password_goes_to_no_server_unencrypted() -> None:
    """One server on another host is enough to refuse a password without TLS."""
    text = "mqtt: {host: 127.0.0.1, servers: ['[::1]:1', b.example.net:1], username: u, password: p}"
    with pytest.raises(ConfigError, match=r"mqtt\.password: would go to b\.example\.net unencrypted"):
        parse(text, {})
    assert parse(text.replace(", b.example.net:1", ""), {}).mqtt.password == "p"


def sites_of(retained: dict[str, Any]) -> dict[str, int]:
    """The number that each retained site has."""
    return {topic.split("/")[2]: doc["number"] for topic, doc in retained.items() if topic.startswith("oneweb/site/")}


async def is_lost(process: asyncio.subprocess.Process) -> None:
    """Kills a broker and waits for its end."""
    process.kill()
    await asyncio.wait_for(process.wait(), 10)


async def until_published_to(made: Bench, port: int, number: int) -> None:
    """Waits until everything is published, and the head says so on this broker."""
    await made.drained()
    head = await made.rows.head()
    await harness.until_retained(port, "oneweb/bridge/head", lambda content: content["seq"] == head, patience=20)
    assert sites_of(await harness.retained(port)) == {f"s{site}": number for site in range(SITES)}


async def test_next_broker_goes_on_where_a_lost_one_ended(tmp_path: Path) -> None:
    """A broker is killed amid publishing, and later the next: each row is acknowledged once or more, none is missing.

    The retained topics are right on each broker in turn, also on one that comes back empty.
    """
    first, second = mosquitto.free_port(), mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(second) as other,
        bench(tmp_path, first, servers=(f"127.0.0.1:{second}",)) as made,
        contextlib.AsyncExitStack() as brokers,
        contextlib.AsyncExitStack() as stack,
        asyncio.timeout(60),
    ):
        process = await brokers.enter_async_context(mosquitto.run_mosquitto(first))
        recorder = await stack.enter_async_context(harness.recording(first, "oneweb/site/#"))
        running = await stack.enter_async_context(made.publishing())
        for number in range(100):
            await made.store.commit(numbered(number))
        await recorder.until(lambda: len(recorder.messages) > 200)
        await is_lost(process)
        await until_published_to(made, second, 99)
        assert server_name(running._servers.current) == f"127.0.0.1:{second}"
        # It outlives the publisher: on Python 3.11 a task group forgets that it was cancelled when it fails just then.
        await brokers.enter_async_context(mosquitto.run_mosquitto(first))
        await made.store.commit(numbered(100))
        await made.drained()
        await is_lost(other)
        await made.store.commit(numbered(101))
        await until_published_to(made, first, 101)

    accepted = [json.loads(message.payload) for message in made.sent]
    assert {(doc["site_id"], doc["number"]) for doc in accepted} == {
        (f"s{site}", number) for site in range(SITES) for number in range(102)
    }
    assert made.alerts == []


async def test_unreachable_servers_share_one_pause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers that cannot be reached are tried in their order without pauses, and then there is one that grows."""
    caplog.set_level(logging.WARNING, "oneweb_bridge.publisher")
    monkeypatch.setattr("oneweb_bridge.mqtt.publisher.FIRST_RECONNECT_S", 0.01)
    ports = [mosquitto.free_port() for _ in range(3)]
    servers = tuple(f"127.0.0.1:{port}" for port in ports[1:])
    async with bench(tmp_path, ports[0], servers=servers) as made, made.publishing():
        async with asyncio.timeout(20):
            while len(caplog.messages) < 6:
                await asyncio.sleep(0.02)
    names = [message.split(": ")[0].removeprefix("broker 127.0.0.1:") for message in caplog.messages[:6]]
    assert names == [str(port) for port in ports] * 2
    pauses = ["next try in" in message for message in caplog.messages[:6]]
    assert pauses == [False, False, True] * 2


async def test_base_of_another_bridge_is_no_reason_for_another_broker(tmp_path: Path) -> None:
    """Where another instance publishes below the base topic, nothing is published anywhere."""
    first, second = mosquitto.free_port(), mosquitto.free_port()
    async with mosquitto.run_mosquitto(first), mosquitto.run_mosquitto(second):
        head = {"journal": "another", "instance": "another", "seq": 1}
        await harness.publish(first, "oneweb/bridge/head", json.dumps(head), retain=True)
        async with bench(tmp_path, first, servers=(f"127.0.0.1:{second}",)) as made:
            await made.store.commit(numbered(1))
            async with made.publishing() as running, asyncio.timeout(20):
                while "belongs to the bridge instance" not in str(running._last_error):
                    await asyncio.sleep(0.02)
                assert server_name(running._servers.current) == f"127.0.0.1:{first}"
        assert await harness.retained(second) == {}


async def test_head_that_an_older_database_left_on_the_next_broker_is_no_twin(tmp_path: Path) -> None:
    """A server that this process has not published to may have a head of this instance's earlier database."""
    first, second = mosquitto.free_port(), mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(second),
        mosquitto.run_mosquitto(first) as process,
        bench(tmp_path, first, servers=(f"127.0.0.1:{second}",)) as made,
    ):
        head = {"journal": "an-older-database", "instance": "main", "seq": 3}
        await harness.publish(second, "oneweb/bridge/head", json.dumps(head), retain=True)
        await made.store.commit(numbered(1))
        async with made.publishing():
            await until_published_to(made, first, 1)
            await is_lost(process)
            await until_published_to(made, second, 1)
    assert made.alerts == []


async def test_server_with_an_ipv6_address_is_used(tmp_path: Path) -> None:
    """`[::1]:port` is a server like any other, and is named so."""
    port = mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(port),
        bench(tmp_path, mosquitto.free_port(), servers=(f"[::1]:{port}",)) as made,
        made.publishing() as running,
    ):
        await connected(running)
        assert server_name(running._servers.current) == f"[::1]:{port}"


async def test_info_status_and_check_name_the_server(world: harness.World) -> None:
    """With the first server away: `info` has the second, `status` prints it, `check` fails for the first alone."""
    away = mosquitto.free_port()
    path = world.config(mqtt={"port": away, "servers": [f"127.0.0.1:{world.port}"]})
    async with harness.recording(world.port, "oneweb/bridge/#") as recorder, harness.running(path):
        calls = "oneweb/bridge/polling/ut_traffic/state"
        await recorder.until(lambda: "oneweb/bridge/info" in recorder.retained and calls in recorder.retained)
        info = recorder.retained["oneweb/bridge/info"]
        assert info["broker"]["server"] == f"127.0.0.1:{world.port}"
        lines: list[str] = []
        assert await remote.status(load(path, {}), lines.append, as_json=False)
        assert lines[0].startswith(f"bridge online at 127.0.0.1:{world.port}, ")
        lines.clear()
        assert not await check.check(load(path, {}), lines.append)
    brokers = [line for line in lines if " broker: " in line]
    assert brokers[0].startswith(f"FAILED  broker: 127.0.0.1:{away}: ")
    assert brokers[1].startswith(f"ok      broker: 127.0.0.1:{world.port} takes")


async def test_command_finds_the_broker_that_the_bridge_came_to_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that was killed may still say `online`; the later connection counts. None at all is one sentence."""
    monkeypatch.setattr(locate, "RETAINED_TIMEOUT_S", 30.0)
    ports = [mosquitto.free_port() for _ in range(3)]
    config = parse("mqtt: {host: 127.0.0.1}", {})
    servers = tuple(f"127.0.0.1:{port}" for port in ports[1:])
    mqtt = msgspec.structs.replace(config.mqtt, port=ports[0], servers=servers)
    config = msgspec.structs.replace(config, mqtt=mqtt)
    with pytest.raises(locate.Unreachable, match=f"no broker can be reached: 127.0.0.1:{ports[0]}: "):
        await locate.locate_broker(config)
    async with contextlib.AsyncExitStack() as stack:
        for port, since in zip(ports[:2], ("2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z"), strict=True):
            await stack.enter_async_context(mosquitto.run_mosquitto(port))
            info = {"broker": {"server": f"127.0.0.1:{port}", "since": since}}
            async with aiomqtt.Client("127.0.0.1", port) as client:
                await client.publish("oneweb/bridge/status", '{"state":"online"}', qos=1, retain=True)
                await client.publish("oneweb/bridge/info", json.dumps(info), qos=1, retain=True)
        assert (await locate.locate_broker(config)).port == ports[1]
