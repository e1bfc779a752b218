"""The polling manager over MQTT: commands that last, commands that run once. Real command, real broker."""

import asyncio
import contextlib
import json
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import yaml
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from oneweb_bridge import app, simulator
from oneweb_bridge.config.read import load
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.mqtt import look, publisher
from tests import harness
from tests.campaign import is_at_rest
from tests.cancelling import end_tasks

CALL = "oneweb/bridge/polling/sites"
STATE = f"{CALL}/state"


@contextlib.asynccontextmanager
async def settled_bridge(
    world: harness.World, **changes: Any
) -> AsyncIterator[tuple[harness.Recorder, harness.Process]]:
    """A bridge with slow polls that has polled everything once, and what is heard of it."""
    settings = world.config(**harness.merged({"polling": harness.SLOW}, changes))
    async with harness.recording(world.port) as recorder, harness.running(settings) as bridge:
        await recorder.until(lambda: is_at_rest(recorder))
        yield recorder, bridge


def interval(recorder: harness.Recorder) -> int | None:
    """The interval of the sites call, as published last."""
    interval: int | None = recorder.retained.get(STATE, {}).get("interval")
    return interval


def polls(world: harness.World) -> int:
    """How often the sites were asked for."""
    return sum(count for path, count in world.api.requests()["counts"].items() if "geographicSite" in path)


def count_online(recorder: harness.Recorder) -> int:
    return recorder.on("oneweb/bridge/status").count({"state": "online"})


async def online_again(recorder: harness.Recorder, before: int) -> None:
    """Waits until the bridge has published online once more than `before`, counted before it was started."""
    await recorder.until(lambda: count_online(recorder) > before, 40)


async def test_live_set_is_in_force_and_answered(world: harness.World) -> None:
    """A live `set` changes interval and enabled, the state says so, and the result carries id and state."""
    async with settled_bridge(world) as (recorder, _):
        await harness.publish(world.port, f"{CALL}/set", '{"interval": "90s", "enabled": false, "id": "c1"}')
        result = await recorder.until(lambda: [r for r in recorder.on(f"{CALL}/result") if r.get("id") == "c1"])

        assert (result[0]["status"], result[0]["command"]) == ("ok", "set")
        assert {"interval": 90, "enabled": False, "status": "disabled"}.items() <= result[0]["state"].items()
        await recorder.until(lambda: recorder.retained[STATE]["status"] == "disabled")


BARE_VALUES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("enabled/set", "OFF", {"enabled": False}),
    ("enabled/set", "yes", {"enabled": True}),
    ("interval/set", "5min", {"interval": 300}),
    ("set", '{"interval": "PT6M", "enabled": 0}', {"interval": 360, "enabled": False}),
    ("interval/set", "420", {"interval": 420}),
    ("interval/set", "8m", {"interval": 480}),
    ("set", '{"interval": 45}', {"interval": 45}),
)


async def test_bare_values_set_one_thing(world: harness.World) -> None:
    """Each way of setting one value is understood."""
    async with settled_bridge(world) as (recorder, _):
        for number, (topic, payload, expected) in enumerate(BARE_VALUES):
            before = {name: recorder.retained[STATE][name] for name in ("enabled", "interval")}
            assert not expected.items() <= before.items(), f"{topic} {payload} changes nothing"
            await harness.publish(world.port, f"{CALL}/{topic}", payload)
            await recorder.until(lambda number=number: len(recorder.on(f"{CALL}/result")) > number)  # type: ignore[misc]
            result = recorder.on(f"{CALL}/result")[number]

            assert result["status"] == "ok", (topic, payload)
            assert (before | expected).items() <= result["state"].items(), (topic, payload)
            await recorder.until(
                lambda wanted=before | expected: wanted.items() <= recorder.retained[STATE].items()  # type: ignore[misc]
            )


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_retained_set_before_the_first_start_lasts(world: harness.World, protocol: str) -> None:
    """An interval set with retain before the bridge first starts is in force, also after a restart."""
    await harness.publish(world.port, f"{CALL}/interval/set", "77", retain=True)
    settings = world.config(polling=harness.SLOW, mqtt={"protocol": protocol})
    for _ in range(2):
        async with harness.recording(world.port) as recorder, harness.running(settings) as bridge:
            await recorder.until(lambda: interval(recorder) == 77)
            await bridge.stop()


async def test_retained_then_live_then_reconnects_leave_the_live_one_in_force(world: harness.World) -> None:
    """Retained A, live B: through restarts of the bridge the broker redelivers A, and B stays in force."""
    settings = world.config(polling=harness.SLOW)
    await harness.publish(world.port, f"{CALL}/set", '{"interval": 111}', retain=True)
    async with harness.recording(world.port) as recorder:
        async with harness.running(settings) as bridge:
            await recorder.until(lambda: interval(recorder) == 111)
            await harness.publish(world.port, f"{CALL}/set", '{"interval": 222}')
            await recorder.until(lambda: interval(recorder) == 222)
            await bridge.stop()
        for _ in range(2):
            online = count_online(recorder)
            async with harness.running(settings) as bridge:
                await online_again(recorder, online)
                await recorder.until(
                    lambda: any("obeyed before" in r.get("error", "") for r in recorder.on(f"{CALL}/result"))
                )
                assert interval(recorder) == 222
                await bridge.stop()


async def test_retained_set_repeated_while_offline_is_obeyed(world: harness.World) -> None:
    """Retained A, retained B, bridge away, retained A again: A is in force."""
    settings = world.config(polling=harness.SLOW)
    async with harness.recording(world.port) as recorder:
        async with harness.running(settings) as bridge:
            for value in (111, 222):
                await harness.publish(world.port, f"{CALL}/interval/set", str(value), retain=True)
                await recorder.until(lambda value=value: interval(recorder) == value)  # type: ignore[misc]
            await bridge.stop()
        await harness.publish(world.port, f"{CALL}/interval/set", "111", retain=True)
        async with harness.running(settings):
            await recorder.until(lambda: interval(recorder) == 111)


async def test_repeated_retained_wish_is_obeyed(world: harness.World) -> None:
    """A retained wish that is given again, after somebody else had changed the same thing, is in force again."""
    async with settled_bridge(world) as (recorder, _):
        for _ in range(2):
            await harness.publish(world.port, f"{CALL}/interval/set", "111", retain=True)
            await recorder.until(lambda: interval(recorder) == 111)
            await harness.publish(world.port, f"{CALL}/set", '{"interval": 222}')
            await recorder.until(lambda: interval(recorder) == 222)


async def test_retained_poll_runs_once_ever(world: harness.World) -> None:
    """A retained `poll` runs once; redelivered it does nothing and its result says why. A live one always runs."""
    settings = world.config(polling=harness.SLOW)
    async with harness.recording(world.port) as recorder:
        async with harness.running(settings) as bridge:
            await recorder.until(lambda: is_at_rest(recorder))
            before = polls(world)
            await harness.publish(world.port, f"{CALL}/poll", '{"id": "once"}', retain=True)
            await recorder.until(lambda: recorder.on(f"{CALL}/result"))
            assert before + 1 == polls(world)
            await bridge.stop()
        async with harness.running(settings):
            ignored = await recorder.until(lambda: [r for r in recorder.on(f"{CALL}/result") if r["status"] == "error"])
            assert ignored[0]["id"] == "once"
            assert before + 1 == polls(world)
            await harness.publish(world.port, f"{CALL}/poll", '{"id": "once"}')
            await recorder.until(lambda: polls(world) == before + 2)


async def until_stored(world: harness.World, sql: str) -> None:
    """Waits until a question to the bridge's database has an answer."""
    uri = f"{(world.directory / 'bridge.db').as_uri()}?mode=ro"
    async with asyncio.timeout(20):
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            while not db.execute(sql).fetchall():
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("retain", [True, False])
@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_poll_that_waits_runs_once_after_a_restart(world: harness.World, end: str, *, retain: bool) -> None:
    """A poll that waits for its turn while the bridge is killed or stopped runs once afterwards, and is answered."""
    settings = world.config(polling=harness.SLOW)

    def results() -> list[str]:
        return [r["status"] for r in recorder.on(f"{CALL}/result") if r.get("id") == "w" and "note" not in r]

    async with harness.recording(world.port) as recorder:
        async with harness.running(settings) as bridge:
            await recorder.until(lambda: is_at_rest(recorder))
            before = polls(world)
            world.api.fault("hang", path="productinventory", seconds=30.0, count=3)
            await harness.publish(world.port, "oneweb/bridge/polling/products/poll")
            await recorder.until(
                lambda: recorder.retained["oneweb/bridge/polling/products/state"]["status"] == "polling"
            )
            await harness.publish(world.port, f"{CALL}/poll", '{"id": "w"}', retain=retain)
            await until_stored(world, "SELECT 1 FROM poll_request WHERE call = 'sites'")
            await (bridge.kill() if end == "kill" else bridge.stop())
        world.api.clear_faults()
        assert (polls(world), results()) == (before, [])
        for times in range(2, 4):
            online = count_online(recorder)
            async with harness.running(settings) as bridge:
                await recorder.until(lambda: results()[:1] == ["ok"])
                await online_again(recorder, online)
                await harness.publish(world.port, "oneweb/bridge/polling/products/poll", f'{{"id": "{times}"}}')
                await recorder.until(
                    lambda times=times: [  # type: ignore[misc]
                        r for r in recorder.on("oneweb/bridge/polling/products/result") if r.get("id") == str(times)
                    ]
                )
                await bridge.stop()
    assert polls(world) == before + 1
    assert results().count("ok") == 1


async def test_retained_poll_that_comes_again_while_it_waits_runs_once(world: harness.World) -> None:
    """A retained poll that the broker delivers a second time before its turn says that it waits, and runs once."""
    async with settled_bridge(world) as (recorder, _):
        before = polls(world)
        world.api.fault("hang", path="productinventory", seconds=8.0, count=1)
        await harness.publish(world.port, "oneweb/bridge/polling/products/poll")
        await recorder.until(lambda: recorder.retained["oneweb/bridge/polling/products/state"]["status"] == "polling")
        for _ in range(2):
            await harness.publish(world.port, f"{CALL}/poll", '{"id": "twice"}', retain=True)
        await recorder.until(lambda: any(r["status"] == "ok" and "state" in r for r in recorder.on(f"{CALL}/result")))
        await harness.publish(world.port, "oneweb/bridge/polling/products/poll", '{"id": "after"}')
        await recorder.until(
            lambda: [r for r in recorder.on("oneweb/bridge/polling/products/result") if r.get("id") == "after"]
        )

        assert polls(world) == before + 1
        assert [r.get("note") for r in recorder.on(f"{CALL}/result")] == [
            "this retained poll waits for its turn already",
            None,
        ]


@pytest.mark.parametrize(("point", "stored"), [("storing_command", 0), ("after_command", 12)])
async def test_set_on_all_that_is_killed_is_whole_or_not_at_all(world: harness.World, point: str, stored: int) -> None:
    """Killed while a retained `set` on all is stored, it holds for every call or for none, and in the end for every."""
    settings = world.config(polling=harness.SLOW)
    await harness.publish(world.port, "oneweb/bridge/polling/all/set", '{"interval": "90s"}', retain=True)
    bridge = await harness.launched(("tests.crashing", json.dumps({"at": point})), settings)
    try:
        async with asyncio.timeout(20):
            while bridge.returncode is None:
                await asyncio.sleep(0.02)
    finally:
        await bridge.kill()
    with contextlib.closing(sqlite3.connect(world.directory / "bridge.db")) as db:
        assert db.execute("SELECT count(*) FROM setting").fetchone() == (stored,)
        assert db.execute("SELECT count(*) FROM command").fetchone() == (min(stored, 1),)

    async with harness.recording(world.port) as recorder, harness.running(settings):
        topics = [f"oneweb/bridge/polling/{call}/state" for call in harness.QUICK]
        await recorder.until(lambda: all(recorder.retained.get(t, {}).get("interval") == 90 for t in topics))


async def test_set_on_all_over_the_budget_changes_nothing(world: harness.World) -> None:
    """A `set` on all that would break max_requests_per_hour is refused with what all would cost."""
    async with settled_bridge(world, api={"rate_limit": {"max_requests_per_hour": 500}}) as (recorder, _):
        await harness.publish(world.port, "oneweb/bridge/polling/all/set", '{"interval": 60, "id": "all"}')
        result = await recorder.until(lambda: recorder.on("oneweb/bridge/polling/all/result"))
        await harness.publish(world.port, f"{CALL}/set", '{"interval": 3000}')
        await recorder.until(lambda: interval(recorder) == 3000)

        assert (result[0]["id"], result[0]["status"]) == ("all", "error")
        assert "requests an hour" in result[0]["error"]
        assert {
            recorder.retained[f"oneweb/bridge/polling/{call}/state"]["interval"]
            for call in set(harness.SLOW) - {"sites"}
        } == {3600}


async def test_retained_poll_runs_once_through_fifty_reconnects(
    world: harness.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same retained trigger is obeyed once, however often the broker redelivers it to a new connection."""
    monkeypatch.setattr(publisher, "FIRST_RECONNECT_S", 0.01)
    monkeypatch.setattr(publisher, "MAX_RECONNECT_S", 0.01)
    monkeypatch.setattr(look, "MIN_TWIN_TIMEOUT_S", 0.01)
    connections: list[publisher.Publisher] = []
    ends = iter(range(50))

    class Remembered(publisher.Publisher):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            connections.append(self)

    monkeypatch.setattr(app, "Publisher", Remembered)
    await harness.publish(world.port, f"{CALL}/poll", '{"id": "fifty"}', retain=True)
    settings = load(world.config(polling=harness.SLOW), {})
    async with harness.recording(world.port) as recorder:
        task = asyncio.create_task(app.run(settings))
        await recorder.until(lambda: [r for r in recorder.on(f"{CALL}/result") if r["status"] == "ok"])
        before = polls(world)
        ended = None
        for number in ends:
            # One that was ended may still be there while it closes.
            async with asyncio.timeout(30):
                while (running := connections[0]._session) is None or running is ended:
                    await asyncio.sleep(0.01)
            ended = running
            running.end("the test wants a reconnect")
            await recorder.until(lambda number=number: ignored(recorder) > number, 30)  # type: ignore[misc]
        await end_tasks(task)

    assert before == polls(world)
    assert len([r for r in recorder.on(f"{CALL}/result") if r["status"] == "ok"]) == 1


def ignored(recorder: harness.Recorder) -> int:
    """How often the retained poll was said to be obeyed before."""
    return sum("obeyed before" in r.get("error", "") for r in recorder.on(f"{CALL}/result"))


def saved(path: Path, text: bytes) -> bool:
    """Whether the broker has written something to its disk."""
    return path.exists() and text in path.read_bytes()


async def test_live_setting_survives_a_broker_killed_with_its_retained_store(tmp_path: Path) -> None:
    """The broker is killed and comes back with a retained A on disk; the later live B stays in force."""
    port = mosquitto.free_port()
    store = tmp_path / "mosquitto"
    store.mkdir(mode=0o777)
    store.chmod(0o777)
    conf = tmp_path / "mosquitto.conf"
    conf.write_text(
        f"allow_anonymous true\npersistence true\npersistence_location {store}/\n"
        "autosave_on_changes true\nautosave_interval 1\nuser root\n"
    )
    async with simulator.serve(simulator.Options(terminals=4, seed=2)) as api:
        path = harness.bridge_yaml(tmp_path, api.url, port, polling=harness.SLOW)
        async with mosquitto.run_mosquitto(port, conf) as process, harness.recording(port) as recorder:
            bridge = await harness.started(path)
            await harness.publish(port, f"{CALL}/interval/set", "111", retain=True)
            await recorder.until(lambda: interval(recorder) == 111)
            await harness.publish(port, f"{CALL}/interval/set", "222")
            await recorder.until(lambda: interval(recorder) == 222)
            async with asyncio.timeout(15):
                while not saved(store / "mosquitto.db", b"interval/set"):
                    await asyncio.sleep(0.05)
            process.kill()
        try:
            async with mosquitto.run_mosquitto(port, conf), harness.recording(port) as recorder:
                # Its result may have gone out before the recorder was there; the log has it all the same.
                await recorder.until(lambda: "was obeyed before" in bridge.text(), 60)
                assert str((await harness.retained(port))[f"{CALL}/interval/set"]) == "111"
                await recorder.until(lambda: interval(recorder) == 222)
                code, out, _ = await harness.command("status", "-c", str(path), "--json")
                assert (code, json.loads(out)["calls"]["sites"]["interval"]) == (0, 222)
        finally:
            await bridge.kill()


async def test_ten_polls_become_one_running_and_one_to_follow(world: harness.World) -> None:
    """Ten live polls while one is running become one more run, and all ten are answered."""
    async with settled_bridge(world) as (recorder, _):
        before = polls(world)
        world.api.fault("hang", path="geographicSite", seconds=8.0, count=1)
        async with aiomqtt.Client("127.0.0.1", world.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            await client.publish(f"{CALL}/poll", b"", qos=1)
            await recorder.until(lambda: recorder.retained[STATE]["status"] == "polling")
            for number in range(10):
                await client.publish(f"{CALL}/poll", json.dumps({"id": str(number)}), qos=1)
        wanted = {str(number) for number in range(10)}
        await recorder.until(lambda: wanted <= {r.get("id") for r in recorder.on(f"{CALL}/result")})

        assert polls(world) <= before + 2 + 2  # the hung request may have been tried again


async def test_poll_all_polls_every_enabled_call(world: harness.World) -> None:
    """`all` polls each enabled call once, and answers on its own result topic."""
    async with settled_bridge(world) as (recorder, _):
        before = world.api.requests()["total"]
        await harness.publish(world.port, "oneweb/bridge/polling/all/poll")
        await recorder.until(lambda: recorder.on("oneweb/bridge/polling/all/result"))

        assert world.api.requests()["total"] >= before + 12


BAD_COMMANDS = (
    ("nonsense/poll", b"", "there is no call 'nonsense'"),
    ("sites/set", b"{", "expected a JSON object"),
    ("sites/set", b'{"interval": NaN}', "expected a JSON object"),
    ("sites/set", b'{"interval": "soon"}', "expected a duration"),
    ("sites/set", b'{"interval": 9}', "10 s to 7 d"),
    ("sites/set", b'{"interval": 604801}', "10 s to 7 d"),
    ("sites/set", b'{"enabled": "maybe"}', "expected true, false, ON, OFF"),
    ("sites/set", b'{"intervall": 60}', "intervall"),
    ("sites/set", b"{}", "expected enabled, interval, or both"),
    ("sites/set", b"\xff\xfe\x00", "expected a JSON object"),
    ("sites/set", b'{"id": "' + b"x" * 5000 + b'"}', "at most 4096"),
    ("sites/enabled/set", b"maybe", "expected true, false, ON, OFF"),
    ("sites/interval/set", b"1e999", "duration"),
)


async def test_bad_command_is_refused_with_what_was_expected(world: harness.World) -> None:
    """A command that cannot be obeyed gives an error result, changes nothing, and the bridge goes on."""
    async with settled_bridge(world) as (recorder, bridge):
        before = dict(recorder.retained[STATE])
        for topic, payload, sentence in BAD_COMMANDS:
            results = f"oneweb/bridge/polling/{topic.split('/', maxsplit=1)[0]}/result"
            count = len(recorder.on(results))
            await harness.publish(world.port, f"oneweb/bridge/polling/{topic}", payload)
            await recorder.until(
                lambda results=results, count=count: len(recorder.on(results)) > count  # type: ignore[misc]
            )
            result = recorder.on(results)[count]

            assert result["status"] == "error", (topic, payload)
            assert sentence in result["error"], (topic, payload)
            assert before == recorder.retained[STATE], (topic, payload)
        assert bridge.returncode is None


async def test_response_topic_gets_the_result_with_its_correlation(world: harness.World) -> None:
    """With MQTT 5 the result also goes to the sender's response topic, with the correlation data."""
    async with settled_bridge(world):
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = "my/answers"
        properties.CorrelationData = b"c-42"
        async with aiomqtt.Client("127.0.0.1", world.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            await client.subscribe("my/answers", qos=1)
            await client.publish(f"{CALL}/set", '{"interval": 60}', qos=1, properties=properties)
            async with asyncio.timeout(10):
                async for message in client.messages:
                    assert json.loads(bytes(message.payload))["status"] == "ok"
                    assert getattr(message.properties, "CorrelationData", None) == b"c-42"
                    break


async def asked_with(port: int, topic: str, payload: str, response_topic: str) -> None:
    """Publishes a command that says where it wants its answer."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic = response_topic
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.publish(topic, payload, qos=1, properties=properties)


async def test_response_topic_of_the_bridge_itself_is_not_used(world: harness.World) -> None:
    """Who may send commands cannot overwrite the head, records or discovery: the result topic alone says so."""
    async with settled_bridge(world) as (recorder, _), harness.recording(world.port, "homeassistant/#") as devices:
        for topic in ("oneweb/bridge/head", "homeassistant/device/x/config", "oneweb/bridge/response/mine"):
            await asked_with(world.port, f"{CALL}/set", json.dumps({"interval": 60, "id": topic}), topic)
            await asked_with(world.port, "oneweb/bridge/request/release", json.dumps({"id": topic}), topic)
        released = await recorder.until(
            lambda: len(answers := recorder.on("oneweb/bridge/response/release")) == 3 and answers
        )
        await recorder.until(lambda: len(recorder.on("oneweb/bridge/response/mine")) == 2)

        assert ["response_topic_error" in result for result in recorder.on(f"{CALL}/result")] == [True, True, False]
        assert ["response_topic_error" in result for result in released] == [True, True, False]
        assert "oneweb/bridge/head" in released[0]["response_topic_error"]
        assert all("journal" in head for head in recorder.on("oneweb/bridge/head"))
        assert devices.on("homeassistant/device/x/config") == []


async def test_longest_request_name_is_answered_and_ends_nothing(world: harness.World) -> None:
    """A retained request whose name leaves no room for an answer's topic is refused, also at the next connect."""
    longest = "oneweb/bridge/request/"
    longest += "x" * (65_535 - len(longest))
    await harness.publish(world.port, longest, b"{}", retain=True)
    async with settled_bridge(world) as (recorder, bridge):
        await recorder.until(lambda: recorder.on("oneweb/bridge/response/unknown"))
        await harness.publish(world.port, longest, b"{}")
        await recorder.until(lambda: len(recorder.on("oneweb/bridge/response/unknown")) >= 2)

        assert bridge.returncode is None


async def test_null_goes_back_to_the_file(world: harness.World) -> None:
    """`{"interval": null}` gives up what commands have set."""
    async with settled_bridge(world) as (recorder, _):
        await harness.publish(world.port, f"{CALL}/set", '{"interval": 60}')
        await recorder.until(lambda: interval(recorder) == 60)
        await harness.publish(world.port, f"{CALL}/set", '{"interval": null}')
        await recorder.until(lambda: interval(recorder) == 3600)


@contextlib.asynccontextmanager
async def running_with_quick_info(settings: Path) -> AsyncIterator[harness.Process]:
    """The bridge, with an info that follows a change within 0.1 s instead of 10 s."""
    process = await harness.launched(("tests.crashing", json.dumps({"info_every": 0.1})), settings)
    try:
        yield process
    finally:
        await process.kill()


async def test_sighup_reads_intervals_again_and_keeps_what_commands_set(world: harness.World) -> None:
    """SIGHUP puts new intervals of the file in force, but a command's setting stays over it."""
    settings = world.config(polling=harness.SLOW)
    async with harness.recording(world.port) as recorder, running_with_quick_info(settings) as bridge:
        await recorder.until(lambda: is_at_rest(recorder))
        await harness.publish(world.port, f"{CALL}/set", '{"interval": 60}')
        await recorder.until(lambda: interval(recorder) == 60)
        tree = yaml.safe_load(settings.read_text())
        tree["polling"]["sites"]["interval"] = tree["polling"]["products"]["interval"] = "2h"
        before, tree["instance"] = recorder.retained["oneweb/bridge/info"]["instance"], "another"
        settings.write_text(yaml.safe_dump(tree))
        bridge.signal(signal.SIGHUP)
        await recorder.until(lambda: recorder.retained["oneweb/bridge/polling/products/state"]["interval"] == 7200)
        assert interval(recorder) == 60
        # The name stays until a restart: what is published under it does not change in between.
        await recorder.until(lambda: recorder.retained["oneweb/bridge/info"]["calls"]["products"]["interval"] == 7200)
        assert recorder.retained["oneweb/bridge/info"]["instance"] == before

        settings.write_text("mqtt: {hots: x}")
        bridge.signal(signal.SIGHUP)
        async with asyncio.timeout(10):
            while "stays as it was" not in bridge.text():
                await asyncio.sleep(0.05)
        assert bridge.returncode is None


async def test_request_budget_refuses_with_the_figure(world: harness.World) -> None:
    """An interval that would break max_requests_per_hour is refused with what it would cost."""
    async with settled_bridge(world, api={"rate_limit": {"max_requests_per_hour": 60}}) as (recorder, _):
        await harness.publish(world.port, f"{CALL}/set", '{"interval": 10}')
        result = await recorder.until(lambda: recorder.on(f"{CALL}/result"))

        assert result[0]["status"] == "error"
        assert "requests an hour" in result[0]["error"]
        assert "371" in result[0]["error"]
        assert interval(recorder) == 3600


async def test_republish_sends_every_retained_topic_again(world: harness.World) -> None:
    """`republish` sends each retained record and sample once more, and its response says how many."""
    async with settled_bridge(world, homeassistant={"enabled": False}) as (recorder, _):
        await recorder.quiet(0.5)
        owned = {t for t in recorder.retained if not t.startswith("oneweb/bridge/")}
        before = len(recorder.messages)
        await harness.publish(world.port, "oneweb/bridge/request/republish", '{"id": "r1"}')
        response = await recorder.until(lambda: recorder.on("oneweb/bridge/response/republish"))
        await recorder.until(lambda: owned <= {topic for topic, _, _ in recorder.messages[before:]})
        await recorder.quiet(0.5)

        repeated = [topic for topic, _, _ in recorder.messages[before:] if not topic.startswith("oneweb/bridge/")]
        assert (response[0]["id"], response[0]["status"]) == ("r1", "ok")
        assert owned == set(repeated)
        assert len(repeated) == len(set(repeated))
        assert response[0]["count"] == len(repeated) + 12


async def test_replay_sends_history_marked_and_never_retained(world: harness.World) -> None:
    """`replay` sends a terminal's events and samples once more, marked, to no retained topic."""
    async with settled_bridge(world) as (recorder, _):
        await recorder.quiet(0.5)
        imei = world.api.truth("terminals")[0]["id"]
        before, retained = len(recorder.messages), dict(recorder.retained)
        await harness.publish(world.port, "oneweb/bridge/request/replay", json.dumps({"imei": imei, "id": "p1"}))
        response = await recorder.until(lambda: recorder.on("oneweb/bridge/response/replay"))

        news = [m for m in recorder.messages[before:] if not m[0].startswith("oneweb/bridge/")]
        assert ("p1", "ok", len(news)) == (response[0]["id"], response[0]["status"], response[0]["count"])
        assert all(content["replayed"] is True and not retain for _, content, retain in news)
        assert all(topic.startswith(f"oneweb/terminal/{imei}/") for topic, _, _ in news)
        assert {"event/added", "history/traffic"} <= {topic.split("/", 3)[3] for topic, _, _ in news}
        assert retained.keys() == recorder.retained.keys()


UNTIMELY = (
    *(
        '{"since": 1e300}',
        '{"since": -1}',
        '{"until": 253402300800000}',
        '{"since": "99999999999999d"}',
        '{"since": true}',
    ),
    *(f'{{"since": {"9" * 400}}}', '{"since": [[[]]]}', '{"since": "10000-01-01T00:00:00Z"}', '{"since": NaN}'),
    '{"since": "1h", "until": "2h"}',
)


async def test_replay_of_an_impossible_time_is_refused(world: harness.World) -> None:
    """No `since` or `until` ends the bridge: each is answered with what was expected."""
    async with settled_bridge(world) as (recorder, bridge):
        for payload in UNTIMELY:
            await harness.publish(world.port, "oneweb/bridge/request/replay", payload)
        answers = await recorder.until(
            lambda: len(answers := recorder.on("oneweb/bridge/response/replay")) == len(UNTIMELY) and answers
        )
        await harness.publish(world.port, f"{CALL}/poll")
        await recorder.until(lambda: recorder.on(f"{CALL}/result"))

    assert {answer["status"] for answer in answers} == {"error"}
    assert all("expected" in answer["error"].casefold() for answer in answers)
    assert bridge.returncode is not None
    assert "Traceback" not in bridge.text()


async def test_name_that_fits_no_topic_is_answered_on_another(world: harness.World) -> None:
    """A request or a call with a name of any length gets its error, and the bridge stays connected."""
    async with settled_bridge(world) as (recorder, bridge):
        # The topic itself may have 65535 bytes; the answer's would be longer.
        for topic in ("request/" + "x" * 65_000, "polling/" + "x" * 65_000 + "/set", "request/nobody"):
            await harness.publish(world.port, f"oneweb/bridge/{topic}", "{}")
        await recorder.until(lambda: recorder.on("oneweb/bridge/response/nobody"))

        assert "there is no request 'xxx" in recorder.on("oneweb/bridge/response/unknown")[0]["error"]
        assert "there is no call 'xxx" in recorder.on("oneweb/bridge/polling/unknown/result")[0]["error"]
        assert recorder.on("oneweb/bridge/status").count({"state": "online"}) == 1
        assert all(len(line) < 1000 for line in bridge.text().splitlines())


async def test_purge_clears_what_nobody_owns(world: harness.World) -> None:
    """`purge` clears a stray retained topic, and nothing that the bridge owns nor a retained command."""
    await harness.publish(world.port, "oneweb/terminal/123/state", '{"imei": "123"}', retain=True)
    await harness.publish(world.port, f"{CALL}/interval/set", "3600", retain=True)
    async with settled_bridge(world) as (recorder, _):
        await recorder.quiet(0.5)
        before = await harness.retained(world.port)
        await harness.publish(world.port, "oneweb/bridge/request/purge", '{"id": "u1"}')
        response = await recorder.until(lambda: recorder.on("oneweb/bridge/response/purge"))
        after = await harness.retained(world.port)

        assert (response[0]["status"], response[0]["count"]) == ("ok", 1)
        assert before.keys() - after.keys() == {"oneweb/terminal/123/state"}


async def test_held_removals_go_when_released(world: harness.World) -> None:
    """An empty listing removes nothing, the call says held, and `release` lets the removals go."""
    world.api.freeze()
    changes = {"polling": {"sites": {"interval": "10s"}}, "removal": {"after_missing": 1, "after_time": "1s"}}
    async with settled_bridge(world, **changes) as (recorder, _):
        sites = {t for t in recorder.retained if t.startswith("oneweb/site/")}
        world.api.fault("empty_list", path="geographicSite")
        await harness.publish(world.port, f"{CALL}/poll")
        await recorder.until(lambda: recorder.retained[STATE]["status"] == "held")
        assert sites <= recorder.retained.keys()

        world.api.fault("empty_list", path="geographicSite")
        await harness.publish(world.port, "oneweb/bridge/request/release", '{"call": "sites"}')
        await recorder.until(lambda: not [t for t in recorder.retained if t.startswith("oneweb/site/")])
        assert recorder.on("oneweb/bridge/response/release")[0]["count"] == 1


async def test_status_poll_and_set_of_the_cli(world: harness.World) -> None:
    """`status`, `poll` and `set` talk to the running bridge, wait for the answer, and exit 0."""
    async with settled_bridge(world) as (recorder, bridge):
        path = str(world.directory / "bridge.yaml")
        code, out, _ = await harness.command("status", "-c", path, "--json")
        assert code == 0
        assert set(harness.QUICK) == set(json.loads(out)["calls"])
        code, out, _ = await harness.command("status", "-c", path)
        assert code == 0
        assert "user_terminals" in out
        assert "requests an hour" in out
        code, out, _ = await harness.command("set", "sites", "--interval", "2m", "--disable", "-c", path)
        assert code == 0
        # The result is published at once, the state as a row of the journal.
        await recorder.until(lambda: (interval(recorder), recorder.retained[STATE]["enabled"]) == (120, False))
        code, out, _ = await harness.command("poll", "sites", "products", "-c", path)
        assert code == 0
        assert "sites: ok" in out
        await bridge.stop()
        code, out, _ = await harness.command("set", "sites", "--enable", "-c", path)
        assert code == 1
        assert "offline" in out


async def test_flood_of_commands_leaves_the_bridge_polling(world: harness.World) -> None:
    """10 000 commands at once are survived: polls go on, memory stays bounded, the newest state is right."""
    async with settled_bridge(world, polling={"products": {"interval": "10s"}}) as (recorder, bridge):
        async with aiomqtt.Client(
            "127.0.0.1", world.port, protocol=aiomqtt.ProtocolVersion.V5, max_inflight_messages=1000
        ) as client:
            for number in range(10_000):
                client._client.publish(f"{CALL}/set", f'{{"interval": {60 + number % 100}}}', qos=0)
            await client.publish("harness/end", b"", qos=1, timeout=60)
        before = recorder.retained["oneweb/bridge/polling/products/state"]["last_poll"]
        products = "oneweb/bridge/polling/products/state"
        await recorder.until(lambda: recorder.retained[products]["last_poll"] > before, 30)

        assert bridge.returncode is None
        assert bridge.peak_mib() < 150
