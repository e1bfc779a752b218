"""The Sparkplug outlet against a real broker, with the simulated API behind the bridge."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest

from oneweb_bridge.cli import check
from oneweb_bridge.config import read
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.read import load, parse
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.sparkplug import sparkplug_b_pb2 as pb
from tests import harness
from tests.cancelling import cancel_until_done

GROUP, EDGE = "OneWeb", "oneweb-bridge"


class Received(msgspec.Struct):
    """One Sparkplug message: where it came from, and its metrics by name."""

    verb: str
    edge: str
    device: str
    payload: Any
    metrics: list[tuple[str, Any]]

    def named(self, name: str) -> list[Any]:
        """The metrics of a name."""
        return [metric for known, metric in self.metrics if known == name]

    @property
    def is_history(self) -> bool:
        """Whether any of it is history."""
        return any(metric.is_historical for _, metric in self.metrics)


def value_of(metric: Any) -> Any:
    """The value of a metric; None for null."""
    return None if metric.is_null else getattr(metric, metric.WhichOneof("value"))


class Host:
    """Hears everything below `spBv1.0`, and knows the aliases of births."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.messages: list[Received] = []
        self._client = client
        self._aliases: dict[tuple[str, int], str] = {}
        self._news = asyncio.Event()

    def take(self, topic: str, body: bytes) -> None:
        levels = topic.split("/")
        if len(levels) < 4 or levels[1] == "STATE" or levels[2] == "NCMD":
            return
        payload: Any = pb.Payload.FromString(body)
        edge, device = levels[3], levels[4] if len(levels) > 4 else ""
        metrics = []
        for metric in payload.metrics:
            if metric.name and metric.HasField("alias"):
                self._aliases[edge, metric.alias] = metric.name
            metrics.append((metric.name or self._aliases.get((edge, metric.alias), ""), metric))
        self.messages.append(Received(levels[2], edge, device, payload, metrics))
        self._news.set()

    def of(self, verb: str, edge: str = EDGE, device: str | None = None) -> list[Received]:
        """The messages of a verb."""
        return [m for m in self.messages if (m.verb, m.edge) == (verb, edge) and device in (None, m.device)]

    def live(self, device: str, name: str, edge: str = EDGE) -> Any:
        """The live value of a metric, as a host has it; None for null and for what never came."""
        values = [
            metric
            for m in self.messages
            if (m.edge, m.device) == (edge, device)
            for metric in m.named(name)
            if not metric.is_historical
        ]
        return value_of(values[-1]) if values else None

    async def until(self, true: Callable[[], Any], patience: float = 60.0) -> Any:
        """Waits until something holds, looking after each message."""
        async with asyncio.timeout(patience):
            while not (result := true()):
                self._news.clear()
                await self._news.wait()
        return result

    async def write(self, *metrics: dict[str, Any], edge: str = EDGE, raw: bytes | None = None) -> None:
        """Publishes an NCMD."""
        payload = pb.Payload(timestamp=1)
        for members in metrics:
            payload.metrics.add(**members)
        body = payload.SerializeToString() if raw is None else raw
        await self._client.publish(f"spBv1.0/{GROUP}/NCMD/{edge}", body, qos=0)

    async def say(self, host: str, *, online: bool, timestamp: int) -> None:
        """Publishes a host's STATE."""
        body = json.dumps({"online": online, "timestamp": timestamp})
        await self._client.publish(f"spBv1.0/STATE/{host}", body, qos=1, retain=True)


@contextlib.asynccontextmanager
async def listening(port: int) -> AsyncIterator[Host]:
    """A host on the broker at `port`."""
    client = aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5)
    async with client:
        host = Host(client)
        await client.subscribe("spBv1.0/#", qos=1)

        async def listen() -> None:
            async for message in client.messages:
                host.take(str(message.topic), bytes(message.payload))

        task = asyncio.create_task(listen(), name="host")
        try:
            yield host
        finally:
            await cancel_until_done(task)
            with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError):
                await task


def config(world: harness.World, **changes: Any) -> Path:
    """A bridge with Sparkplug, and calls that are polled only at the start."""
    calls = {call: settings | {"interval": "1h"} for call, settings in harness.QUICK.items()}
    return world.config(sparkplug={"enabled": True} | changes, polling=calls)


async def until_settled(host: Host, patience: float = 60.0) -> None:
    """Until every call has been polled once, and all that came of it was heard."""
    await host.until(lambda: host.live("", "Polling/usage_consumption/Status") == "ok", patience)


def has_births(host: Host, count: int) -> bool:
    return len(host.of("NBIRTH")) >= count


def has_live(host: Host, device: str, name: str, value: object) -> bool:
    return bool(host.live(device, name) == value)


def terminals(host: Host, edge: str = EDGE) -> set[str]:
    return {m.device for m in host.of("DBIRTH", edge) if not m.device.startswith("_")}


def test_ids_that_sparkplug_does_not_allow_are_refused(tmp_path: Path) -> None:
    """One sentence names the key and what was expected."""
    for key, value in (
        ("group_id", "a/b"),
        ("group_id", "''"),
        ("group_id", "x" * 65),
        ("edge_node_id", "ä"),
        ("primary_host_id", "a+b"),
        ("devices_per_edge_node", 0),
        ("devices_per_edge_node", 2001),
    ):
        with pytest.raises(ConfigError, match=f"sparkplug.{key}: expected"):
            parse(f"sparkplug: {{{key}: {value}}}", {})
    with pytest.raises(ConfigError, match=r"sparkplug\.mqtt\.password: would go to broker unencrypted"):
        parse("sparkplug: {mqtt: {host: broker, username: u, password: p}}", {})
    assert parse("sparkplug: {group_id: Fleet 1._-, primary_host_id: ig$1}", {}).sparkplug.group_id == "Fleet 1._-"


@pytest.mark.parametrize(
    ("command", "settings", "sentence"),
    [
        ("run", "group_id: a/b", "sparkplug.group_id: expected 1 to 64 letters, digits, spaces, '-', '_' or '.'"),
        ("run", "edge_node_id: 'a#'", "sparkplug.edge_node_id: expected 1 to 64 letters, digits, spaces"),
        ("check", "group_id: +", "sparkplug.group_id: expected 1 to 64 letters"),
        ("check", "primary_host_id: a/b", "sparkplug.primary_host_id: expected 1 to 64 letters"),
    ],
)
async def test_illegal_id_is_exit_2_with_a_sentence(tmp_path: Path, command: str, settings: str, sentence: str) -> None:
    """The command itself ends with exit code 2 and one sentence that names file and key, before it does anything."""
    path = tmp_path / "bridge.yaml"
    path.write_text(f"sparkplug: {{enabled: true, {settings}}}\nstate: {{path: {tmp_path}/bridge.db}}\n")
    code, out, err = await harness.command(command, "-c", str(path))
    assert (code, out) == (2, "")
    assert sentence in err
    assert "bridge.yaml" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "bridge.db").exists()


async def test_check_says_whether_sparkplug_can_be_used(world: harness.World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that is missing, with how to install it; a broker that cannot be reached; else the Edge Node."""
    settings = load(config(world), {})
    assert (await check._check_sparkplug(settings, settings.mqtt))[0]
    broker = msgspec.structs.replace(settings.mqtt, port=mosquitto.free_port())
    away = msgspec.structs.replace(settings.sparkplug, mqtt=broker)
    is_good, line = await check._check_sparkplug(msgspec.structs.replace(settings, sparkplug=away), broker)
    assert not is_good
    assert "sparkplug.mqtt" in line
    monkeypatch.setattr(read, "_has_protobuf", lambda: False)
    is_good, line = await check._check_sparkplug(settings, settings.mqtt)
    assert not is_good
    assert 'pip install "oneweb-bridge[sparkplug]"' in line


async def test_fleet_appears_and_the_end_is_said(world: harness.World) -> None:
    """NBIRTH first, each Device born before its data, what the JSON topics say; at the end the same death twice."""
    async with listening(world.port) as host, harness.recording(world.port) as json_topics:
        # With a longer goodbye, which a busy machine does not cut off.
        bridge = await harness.launched(("tests.sparkplug.quick",), config(world, devices_per_edge_node=6))
        try:
            await until_settled(host)
            second = f"{EDGE}-2"
            await host.until(lambda: len(terminals(host) | terminals(host, second)) == 8)
            await host.until(lambda: len({m.device for m in host.of("DBIRTH")}) == 6)
            for imei in terminals(host):
                topic = f"oneweb/terminal/{imei}"
                sample = await json_topics.until(partial(json_topics.retained.get, f"{topic}/metric/signal_quality"))
                record = json_topics.retained[f"{topic}/state"]
                await host.until(partial(has_live, host, imei, "Signal/SINR", sample["sinr_db"]))
                assert host.live(imei, "Status/Name") == record["name"]
                assert host.messages[[m.device for m in host.messages].index(imei)].verb == "DBIRTH"
            assert await bridge.stop(patience=60) == 0
        finally:
            await bridge.kill()
        await host.until(lambda: len(host.of("NDEATH")) == 2 and len(host.of("NDEATH", second)) == 2)
        for edge in (EDGE, second):
            mine = [m for m in host.messages if m.edge == edge]
            assert mine[0].verb == "NBIRTH"
            assert [m.payload.seq for m in mine if m.verb != "NDEATH"] == [n % 256 for n in range(len(mine) - 2)]
            deaths = host.of("NDEATH", edge)
            assert deaths[0].payload == deaths[1].payload
            assert value_of(deaths[0].named("bdSeq")[0]) == value_of(mine[0].named("bdSeq")[0]) == 0


async def test_writes_are_obeyed_and_answered(world: harness.World) -> None:
    """The answer is the value in force: the new one, or the old one and an alert of the kind `sparkplug`."""
    async with (
        listening(world.port) as host,
        harness.recording(world.port) as topics,
        harness.running(config(world)) as bridge,
    ):
        await until_settled(host)
        name = "Polling/ut_traffic"
        (alias,) = {m.alias for b in host.of("NBIRTH") for m in b.named(f"{name}/Interval")}
        await host.write({"alias": alias, "int_value": 600})
        await host.until(lambda: host.live("", f"{name}/Interval") == 600)
        state = "oneweb/bridge/polling/ut_traffic/state"
        await topics.until(lambda: topics.retained[state]["interval"] == 600)
        count = len(host.messages)
        await host.write({"name": f"{name}/Interval", "long_value": 5})
        answers = lambda: [m for h in host.messages[count:] for m in h.named(f"{name}/Interval")]  # noqa: E731
        assert value_of((await host.until(answers))[0]) == 600
        alert = await topics.until(lambda: [a for a in topics.on("oneweb/bridge/alert") if a["kind"] == "sparkplug"])
        assert "10 s to 7 d" in alert[0]["message"]
        last = host.live("", f"{name}/Last Poll")
        await host.write({"name": f"{name}/Poll Now", "boolean_value": True})
        await host.until(lambda: (host.live("", f"{name}/Last Poll") or 0) > last)
        await host.until(lambda: [m for h in host.of("NDATA") for m in h.named(f"{name}/Poll Now")])
        for raw in (b"\xff\xff", b""):
            await host.write(raw=raw)
        await host.write({"alias": 9999, "boolean_value": True})
        await host.write({"name": f"{name}/Enabled", "boolean_value": False})
        await host.until(lambda: host.live("", f"{name}/Enabled") is False)
        await host.until(lambda: host.live("", f"{name}/Status") == "disabled")
        last = host.live("", f"{name}/Last Poll")
        await host.write({"name": f"{name}/Poll Now", "boolean_value": True})
        await host.until(lambda: host.live("", f"{name}/Last Poll") > last)
        assert host.live("", f"{name}/Enabled") is False
        assert await bridge.stop() == 0


async def test_kill_loses_no_sample(world: harness.World) -> None:
    """After `kill -9` come births with the next `bdSeq`, and every sample is live or history in the end."""
    async with listening(world.port) as host, harness.recording(world.port) as topics:
        settings = config(world)
        for number in range(3):
            async with harness.running(settings) as bridge:
                await host.until(partial(has_births, host, number + 1))
                await topics.until(lambda: topics.retained.get("oneweb/bridge/status") == {"state": "online"})
                await harness.poll(world.port, "ut_signal_quality")
                if number == 2:
                    ((end,),) = harness.rows_of(world.directory / "bridge.db", "SELECT max(seq) FROM journal")
                    await topics.until(lambda end=end: topics.retained["oneweb/bridge/head"]["seq"] >= end)  # type: ignore[misc]
                    await host.until(lambda: shown_by(host) >= sampled(topics))
                    assert await bridge.stop() == 0
                await bridge.kill()
        numbers = [value_of(m.named("bdSeq")[0]) for m in host.of("NBIRTH")]
        assert numbers == list(range(len(numbers)))
        assert len(sampled(topics)) >= 8
        assert shown_by(host) == sampled(topics)


def shown_by(host: Host) -> set[tuple[Any, Any, Any]]:
    """Terminal, time and SINR of each value that the host was given."""
    return {
        (m.device, metric.timestamp, value_of(metric))
        for m in host.messages
        for metric in m.named("Signal/SINR")
        if not metric.is_null
    }


def sampled(topics: harness.Recorder) -> set[tuple[Any, Any, Any]]:
    """The same of each sample on the topics."""
    return {
        (s["imei"], s["ts"], s["sinr_db"])
        for t, s, _ in topics.messages
        if t.endswith("/signal_quality") and s and "sinr_db" in s
    }


async def test_host_that_is_away_is_waited_for(world: harness.World) -> None:
    """No birth before it is online; an older word changes nothing; offline ends the connection, and the rows wait."""
    async with listening(world.port) as host, harness.recording(world.port) as topics:
        await host.say("scada", online=False, timestamp=10)
        async with harness.running(config(world, primary_host_id="scada")) as bridge:
            await topics.until(lambda: "oneweb/bridge/status" in topics.retained)
            await harness.poll(world.port, "user_terminals")
            assert host.messages == []
            await host.say("scada", online=True, timestamp=9)
            await host.say("scada", online=True, timestamp=11)
            await until_settled(host)
            await host.say("scada", online=False, timestamp=10)
            await host.say("scada", online=False, timestamp=12)
            await host.until(lambda: host.of("NDEATH"))
            births = len(host.of("NBIRTH"))
            await harness.poll(world.port, "ut_signal_quality")
            assert len(host.of("NBIRTH")) == births
            await host.say("scada", online=True, timestamp=12)
            await host.until(lambda: len(host.of("NBIRTH")) > births)
            assert value_of(host.of("NBIRTH")[-1].named("bdSeq")[0]) == 1
            assert await bridge.stop() == 0


async def test_rebirth_comes_with_the_same_number_and_aliases(world: harness.World) -> None:
    """Many requests give one rebirth, of the node and all Devices, with no data in between."""
    async with listening(world.port) as host:
        async with harness.running(config(world)) as bridge:
            await until_settled(host)
            devices = {m.device for m in host.of("DBIRTH")}
            start = len(host.messages)
            for _ in range(20):
                await host.write({"name": "Node Control/Rebirth", "boolean_value": True})
            await host.until(lambda: len(host.of("NBIRTH")) == 2)
            await host.until(lambda: {m.device for m in host.messages[start:] if m.verb == "DBIRTH"} == devices)
            first, second = host.of("NBIRTH")
            assert value_of(first.named("bdSeq")[0]) == value_of(second.named("bdSeq")[0])
            assert {(n, m.alias) for n, m in first.metrics} == {(n, m.alias) for n, m in second.metrics}
            assert await bridge.stop() == 0
        assert len(host.of("NBIRTH")) == 2


async def test_removed_terminal_dies_and_its_product_lives_on(world: harness.World) -> None:
    """DDEATH of the terminal, and a birth of its product as a Device of its own, with the product's folder."""
    removal = {"after_missing": 1, "after_time": "0s"}
    calls = {call: settings | {"interval": "1h"} for call, settings in harness.QUICK.items()}
    settings = world.config(sparkplug={"enabled": True}, polling=calls, removal=removal)
    async with listening(world.port) as host, harness.running(settings) as bridge:
        await until_settled(host)
        imei, product = next(
            (m.device, name.split("/")[1])
            for m in host.of("DBIRTH")
            for name, _ in m.metrics
            if name.startswith("Product/") and not m.device.startswith("_")
        )
        # Commands come by another connection.
        await harness.until_retained(world.port, "oneweb/bridge/status", lambda status: status["state"] == "online")
        world.api.fleet("remove", id=imei)
        await harness.poll(world.port, "user_terminals")
        await host.until(lambda: host.of("DDEATH", device=imei))
        (birth,) = await host.until(lambda: host.of("DBIRTH", device=f"_product-{product}"))
        assert birth.named(f"Product/{product}/Plan/Name")
        assert await bridge.stop() == 0


async def test_another_bridge_with_the_same_ids_is_alerted(world: harness.World) -> None:
    """An NBIRTH on the own topic that the bridge did not send."""
    async with (
        listening(world.port) as host,
        harness.recording(world.port) as topics,
        harness.running(config(world)) as bridge,
    ):
        await until_settled(host)
        body = pb.Payload(timestamp=1, seq=0).SerializeToString()
        await harness.publish(world.port, f"spBv1.0/{GROUP}/NBIRTH/{EDGE}", body)
        alert = await topics.until(lambda: [a for a in topics.on("oneweb/bridge/alert") if a["kind"] == "sparkplug"])
        assert "sparkplug.edge_node_id" in alert[0]["message"]
        assert await bridge.stop() == 0
