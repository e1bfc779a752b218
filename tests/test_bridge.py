"""The installed command against the simulated API and a real mosquitto, as a user runs it."""

import asyncio
import json
from pathlib import Path

from oneweb_bridge import simulator
from oneweb_bridge.demo import mosquitto
from tests import harness, truth
from tests.campaign import is_at_rest

RELATED_AND_PUBLISHED = """SELECT (SELECT count(*) FROM stale),
    (SELECT max(seq) FROM sqlite_sequence WHERE name = 'journal')
    - (SELECT coalesce(max(seq), 0) FROM cursor WHERE output = 'mqtt')"""
"""The records whose relations are to be made, and the rows that wait."""
ENTITIES = ("oneweb/terminal/#", "oneweb/product/#", "oneweb/organization/#", "oneweb/site/#", "oneweb/usage/#")


async def settle(recorder: harness.Recorder, database: Path) -> None:
    """Waits until every call has succeeded, relations are made of it, and all is published and recorded."""
    await recorder.until(lambda: is_at_rest(recorder))
    async with asyncio.timeout(harness.BUSY_S):
        while harness.rows_of(database, RELATED_AND_PUBLISHED) != [(0, 0)]:
            await asyncio.sleep(0.05)
    await recorder.catch_up()


async def test_first_snapshot_equals_what_the_api_shows(world: harness.World) -> None:
    """After the first polls every retained record is what the API shows, and nothing else is retained."""
    world.api.freeze()
    async with harness.recording(world.port) as recorder, harness.running(world.config()):
        await recorder.until(lambda: is_at_rest(recorder))
        await recorder.quiet(0.5)

        assert truth.differences(await harness.retained(world.port), truth.expected(world.api)) == []
        assert truth.broken_chains(recorder.messages) == []


async def test_removed_terminal_is_announced_then_cleared(world: harness.World) -> None:
    """A terminal that is gone gives its `removed` event first, then every retained topic of it is cleared."""
    world.api.freeze()
    gone = world.api.truth("terminals")[0]["id"]
    config = world.config(removal={"after_missing": 2, "after_time": 0})
    async with harness.recording(world.port) as recorder, harness.running(config):
        await recorder.until(lambda: is_at_rest(recorder))
        await recorder.quiet(0.5)
        world.api.fleet("remove", id=gone)
        mine = f"oneweb/terminal/{gone}/"
        for _ in range(2):
            await harness.poll(world.port, "user_terminals")
        await recorder.until(lambda: recorder.on(f"{mine}event/removed"))
        await recorder.until(lambda: not [t for t in recorder.retained if t.startswith(mine)])

        order = [
            topic
            for topic, content, _ in recorder.messages
            if topic.startswith(mine) and (content is None or "event/removed" in topic)
        ]
        assert f"{mine}event/removed" == order[0]
        assert not [t for t in await harness.retained(world.port) if t.startswith(mine)]


async def test_sigterm_says_offline_and_exits_zero(world: harness.World) -> None:
    """SIGTERM ends the bridge within 5 s with exit code 0, and its status says offline."""
    async with harness.recording(world.port) as recorder, harness.running(world.config()) as bridge:
        await recorder.until(lambda: is_at_rest(recorder))
        code = await bridge.stop()

        assert code == 0
        # This it says when it ends after 4.7 s, whatever is under way.
        assert "stopped without waiting" not in bridge.text()
        assert (await harness.retained(world.port))["oneweb/bridge/status"] == {"state": "offline"}
        assert "Traceback" not in bridge.text()


async def test_kill_says_offline_through_the_will(world: harness.World) -> None:
    """Kill -9 leaves the will behind: the status topic says offline."""
    async with harness.recording(world.port) as recorder, harness.running(world.config()) as bridge:
        await recorder.until(lambda: recorder.retained.get("oneweb/bridge/status") == {"state": "online"})
        await bridge.kill()
        await recorder.until(lambda: recorder.retained.get("oneweb/bridge/status") == {"state": "offline"})


async def test_broker_that_forgot_gets_all_retained_topics_back(tmp_path: Path) -> None:
    """A broker that comes back empty is given every retained topic again, without a new poll."""
    async with harness.world(tmp_path) as world:
        world.api.freeze()
        port = mosquitto.free_port()
        config = harness.bridge_yaml(tmp_path, world.api.url, port, polling=harness.SLOW)
        async with mosquitto.run_mosquitto(port), harness.recording(port) as recorder:
            bridge = await harness.started(config)
            try:
                await settle(recorder, tmp_path / "bridge.db")
                await recorder.quiet(1.0)
                before = await harness.retained(port, *ENTITIES)
            except BaseException:
                await bridge.kill()
                raise
        try:
            async with mosquitto.run_mosquitto(port), harness.recording(port) as recorder:
                await recorder.until(lambda: recorder.on("oneweb/bridge/head"), 30)
                after = await harness.retained(port, *ENTITIES)
                assert before == after
                assert {topic.split("/")[3] for topic in before} >= {"state", "usage", "forecast"}
                assert not [topic for topic in recorder.topics() if "/event/" in topic]
        finally:
            await bridge.kill()


async def test_restart_repeats_nothing(world: harness.World) -> None:
    """A bridge that stopped cleanly and starts again sends no event and no sample a second time."""
    world.api.freeze()
    config = world.config(polling=harness.SLOW)
    async with harness.recording(world.port) as recorder:
        async with harness.running(config) as bridge:
            await settle(recorder, world.directory / "bridge.db")
            await recorder.quiet(1.0)
            await bridge.stop()
        await recorder.catch_up()
        received = len([1 for topic, _, _ in recorder.messages if "/bridge/" not in topic])
        online = recorder.on("oneweb/bridge/status").count({"state": "online"})
        async with harness.running(config):
            await recorder.until(lambda: recorder.on("oneweb/bridge/status").count({"state": "online"}) > online)
            await recorder.quiet(1.0)

        assert received == len([1 for topic, _, _ in recorder.messages if "/bridge/" not in topic])


async def test_unreachable_broker_and_api_are_waited_for(tmp_path: Path) -> None:
    """With neither broker nor API the bridge stays up, says so in its log, and publishes when both come."""
    port, api_port = mosquitto.free_port(), mosquitto.free_port()
    config = harness.bridge_yaml(tmp_path, f"http://127.0.0.1:{api_port}", port)
    async with harness.running(config) as bridge:
        async with asyncio.timeout(15):
            while "hello: " not in bridge.text() or "broker 127.0.0.1" not in bridge.text():
                await asyncio.sleep(0.05)
        async with mosquitto.run_mosquitto(port), harness.recording(port) as recorder:
            await recorder.until(
                lambda: recorder.retained.get("oneweb/bridge/info", {}).get("api", {}).get("state") == "unreachable", 20
            )
            async with simulator.serve(simulator.Options(port=api_port, terminals=3, seed=2)):
                await recorder.until(lambda: is_at_rest(recorder), 60)
        assert bridge.returncode is None
        assert "Traceback" not in bridge.text()


async def test_wrong_credentials_are_told_in_topics_and_log(world: harness.World) -> None:
    """With credentials that the API refuses, info says unauthorized and nothing is polled."""
    config = world.config(api={"client_secret": "wrong-secret-canary"})
    async with harness.recording(world.port) as recorder, harness.running(config) as bridge:
        await recorder.until(
            lambda: recorder.retained.get("oneweb/bridge/info", {}).get("api", {}).get("state") == "unauthorized"
        )

        assert {"/hello/v1/oneweb/world"} == {request["path"] for request in world.api.requests()["last"]}
        assert "wrong-secret-canary" not in bridge.text() + json.dumps(recorder.messages)


async def test_missing_credentials_are_told_and_nothing_is_asked(world: harness.World) -> None:
    """With a console the bridge runs, so that its first page can say what is missing; without one it ends with 2."""
    path = world.config(api={"client_secret": ""}, http={"listen": "127.0.0.1:0"})
    async with harness.running(path) as process:
        await harness.until_retained(
            world.port,
            "oneweb/bridge/info",
            lambda info: "api.client_secret is empty: set ONEWEB_CLIENT_SECRET" in (info["api"].get("error") or ""),
        )
        api = (await harness.retained(world.port))["oneweb/bridge/info"]["api"]
        assert api["state"] == "unauthorized"
        assert "api.client_secret is empty" in process.text()
        assert world.api.requests()["total"] == 0
    code, _, error = await harness.command(
        "run", "-c", str(world.config(api={"client_id": ""}, console={"enabled": False}))
    )
    assert (code, error.count("\n")) == (2, 1)
    assert "api.client_id is empty: set ONEWEB_CLIENT_ID" in error


async def test_configuration_that_is_wrong_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    """A misspelt key ends the command with exit code 2 and one sentence that names file, key and the nearest one."""
    (tmp_path / "bridge.yaml").write_text("mqtt: {hots: localhost}\n")
    code, out, err = await harness.command("run", "-c", str(tmp_path / "bridge.yaml"))

    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert "bridge.yaml" in err
    assert "mqtt.hots" in err
    assert "host" in err.replace("hots", "")


STRANGE = ["a/b", "+", "#", "$SYS", "a.b c%d", "nul\0byte", "🛰️ emoji", "x" * 10_000, "ü_", "..", "A", "a"]


async def test_strange_ids_are_published_under_legal_topics(tmp_path: Path) -> None:
    """Ids with wildcards, slashes, NUL, emoji or 10 kB each have a record on a topic of their own."""
    async with harness.world(tmp_path, terminals=40) as world:
        sites = [site["id"] for site in world.api.truth("sites")][: len(STRANGE)]
        for id, site in zip(STRANGE, sites, strict=True):
            world.api.fleet("rename_site", id=site, name=id)
        config = world.config(polling={"sites": {"key": "name"}})
        wanted = {f"oneweb/site/{truth.level(id)}/state" for id in STRANGE}
        async with harness.recording(world.port) as recorder, harness.running(config):
            await recorder.until(lambda: wanted <= recorder.retained.keys())

        ids = {content["site_id"] for topic, content in recorder.retained.items() if topic in wanted}
        assert set(STRANGE) == ids


async def test_second_bridge_on_one_database_is_refused(world: harness.World) -> None:
    """A second bridge with the same state file exits 1 with one sentence, and the first goes on."""
    config = world.config()
    async with harness.recording(world.port) as recorder, harness.running(config) as bridge:
        await recorder.until(lambda: is_at_rest(recorder))
        code, _, err = await harness.command("run", "-c", str(config))

        assert code == 1
        assert "in use by another bridge" in err
        assert len(err.strip().splitlines()) == 1
        assert bridge.returncode is None


async def test_foreign_instance_publishes_nothing(world: harness.World) -> None:
    """A bridge of another instance on the same base topic publishes no record, and says why."""
    head = {"journal": "0123456789abcdef", "instance": "other", "seq": 7}
    await harness.publish(world.port, "oneweb/bridge/head", json.dumps(head), retain=True)
    async with harness.recording(world.port) as recorder, harness.running(world.config()) as bridge:
        async with asyncio.timeout(15):
            while "belongs to the bridge instance 'other'" not in bridge.text():
                await asyncio.sleep(0.05)

        assert not [topic for topic in recorder.topics() if not topic.startswith("oneweb/bridge/")]
