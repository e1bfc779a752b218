"""The flows of deploy/node-red, imported into a real Node-RED beside a real broker and the real bridge.

`make test-nodered` runs them; `make test` only reads the files.
"""

import asyncio
import html
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from tests import harness
from tests.campaign import is_at_rest
from tests.nodered import server

pytestmark = pytest.mark.nodered

FLOWS = Path(__file__).parent.parent.parent / "deploy/node-red"


class Scene:
    """A world with its bridge, and a Node-RED beside it."""

    def __init__(self, world: harness.World, node_red: server.NodeRed, recorder: harness.Recorder) -> None:
        self.world = world
        self.node_red = node_red
        self.recorder = recorder

    async def load(self, *names: str) -> dict[str, str]:
        """Imports flows as the editor does, for the broker of this world. Returns the ids of nodes by their names."""
        nodes = {node["id"]: node for name in names for node in json.loads((FLOWS / name).read_text())}
        for node in nodes.values():
            if node["type"] == "mqtt-broker":
                node |= {"broker": "127.0.0.1", "port": str(self.world.port)}
        await self.node_red.deploy(list(nodes.values()))
        return {node["name"]: id for id, node in nodes.items() if node.get("name")}

    def retained(self, beginning: str, end: str) -> list[Any]:
        """The retained payloads of a kind, as the broker has them."""
        return [
            content for topic, content in self.recorder.retained.items() if topic.startswith(beginning) and end in topic
        ]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """A fleet of eight that stands still, published completely."""
    async with harness.world(tmp_path) as world, harness.recording(world.port) as recorder:
        world.api.freeze()
        async with harness.running(world.config()), server.running(tmp_path / "node-red") as node_red:
            await recorder.until(lambda: is_at_rest(recorder))
            yield Scene(world, node_red, recorder)
            assert "[error]" not in node_red.text()
            assert "[warn] [" not in node_red.text()


def terminals(scene: Scene) -> list[Any]:
    """The terminals as they are retained."""
    return scene.retained("oneweb/terminal/", "/state")


def online(scene: Scene) -> int:
    """How many of them are online."""
    return sum(state["state"] == "online" for state in terminals(scene))


async def test_fleet_table_shows_every_terminal(scene: Scene) -> None:
    """The page has a row per terminal with state, site and SINR, follows a change, and forgets what is removed."""
    await scene.load("fleet.json")
    known, count = terminals(scene), online(scene)

    def is_whole(text: str) -> bool:
        return text.count("<tr>") == 9 and has_site(html.unescape(text)) and has_sample(html.unescape(text))

    def has_site(page: str) -> bool:
        records = scene.retained("oneweb/terminal/", "/relations")
        return any(f"<td>{relations['site']['name']}</td>" in page for relations in records)

    def has_sample(page: str) -> bool:
        records = scene.retained("oneweb/terminal/", "signal_quality")
        return any(f"<td>{sample['sinr_db']:g}</td>" in page for sample in records)

    page = html.unescape(await scene.node_red.until(is_whole, "/oneweb/fleet"))
    for state in known:
        assert f"<td>{state['name']}</td><td>{state['imei']}</td>" in page
    assert f"{count} of 8 terminals online" in page

    changed = next(state for state in known if state["state"] == "online")
    scene.world.api.fleet("set_state", id=changed["imei"], state="offline")
    await scene.node_red.until(lambda text: f"{count - 1} of 8 terminals online" in text, "/oneweb/fleet")
    notice = await scene.node_red.until_notice(lambda notice: f'"online":{count - 1}' in notice["msg"].replace(" ", ""))
    assert notice["name"] == "Online count"

    for part in ("state", "relations", "metric/signal_quality"):
        await harness.publish(scene.world.port, f"oneweb/terminal/{changed['imei']}/{part}", b"", retain=True)
    await scene.node_red.until(lambda text: changed["imei"] not in text, "/oneweb/fleet")


async def test_fleet_table_forgets_what_the_bridge_removed(tmp_path: Path) -> None:
    """A terminal that the API lists no more leaves the table, and Node-RED logs no error about the cleared topics."""
    async with harness.world(tmp_path) as world, harness.recording(world.port) as recorder:
        config = world.config(removal={"after_missing": 1, "after_time": "1s"})
        async with harness.running(config), server.running(tmp_path / "node-red") as node_red:
            await recorder.until(lambda: is_at_rest(recorder))
            scene = Scene(world, node_red, recorder)
            await scene.load("fleet.json", "calls.json")
            gone = terminals(scene)[0]["imei"]
            await node_red.until(lambda text: gone in text, "/oneweb/fleet")

            world.api.fleet("remove", id=gone)
            await node_red.until(lambda text: gone not in text, "/oneweb/fleet", 60)
            assert "[error]" not in node_red.text()


async def test_flows_carry_a_thousand_terminals(scene: Scene) -> None:
    """With a thousand terminals more the flows are up to date as soon as Node-RED has all, and count rightly."""
    async with aiomqtt.Client("127.0.0.1", scene.world.port, timeout=harness.BUSY_S) as client:
        for number in range(1000):
            imei = f"{number:015d}"
            record = {"imei": imei, "name": f"T{number}", "state": "online" if number % 2 else "offline"}
            await client.publish(f"oneweb/terminal/{imei}/state", json.dumps(record), qos=1, retain=True)
            sample = {"imei": imei, "sinr_db": 1.0}
            await client.publish(f"oneweb/terminal/{imei}/metric/signal_quality", json.dumps(sample), retain=True)
    await scene.load("fleet.json", "usage.json", "calls.json", "offline-alert.json")
    await scene.node_red.until(lambda text: f"{online(scene)} of 1008 terminals online" in text, "/oneweb/fleet", 60)
    assert online(scene) >= 500


async def test_names_are_text_and_not_markup(scene: Scene) -> None:
    """A name with markup in it is shown as it is written."""
    await scene.load("fleet.json")
    record = {"imei": "1", "name": "<script>alert(1)</script>", "state": "online"}
    await harness.publish(scene.world.port, "oneweb/terminal/1/state", json.dumps(record), retain=True)

    page = await scene.node_red.until(lambda text: "alert(1)" in text, "/oneweb/fleet")
    assert "<script>" not in page


async def until_listening(scene: Scene) -> None:
    """Waits until the flow has subscribed, which it does after its page is there: an event comes once."""
    record = {"imei": "0", "name": "Nobody"}
    data = {"changed": {"state": {"from": "online", "to": "offline"}}, "record": record}
    event = json.dumps({"id": "x:0", "time": "2026-01-01T00:00:00Z", "data": data})
    async with asyncio.timeout(harness.BUSY_S):
        while not any(notice["name"] == "Alert" and "Nobody" in notice["msg"] for notice in scene.node_red.notices):
            await harness.publish(scene.world.port, "oneweb/terminal/0/event/changed", event)
            await asyncio.sleep(0.2)


async def test_alert_when_a_terminal_goes_offline(scene: Scene) -> None:
    """Going offline and coming back are one alert each; a repeated or replayed event, or another change, is none."""
    await scene.load("offline-alert.json")
    await scene.node_red.until(lambda text: "Alerts" in text, "/oneweb/alerts")
    await until_listening(scene)
    changed = next(state for state in terminals(scene) if state["state"] == "online")
    topic = f"oneweb/terminal/{changed['imei']}/event/changed"

    scene.world.api.fleet("set_state", id=changed["imei"], state="offline")
    text = f"{changed['name']} is offline"
    await scene.node_red.until_notice(lambda notice: notice["name"] == "Alert" and text in notice["msg"])
    event = (await scene.recorder.until(lambda: scene.recorder.on(topic)))[0]
    await harness.publish(scene.world.port, topic, json.dumps(event))
    await harness.publish(scene.world.port, topic, json.dumps(event | {"id": "x:1", "replayed": True}))

    scene.world.api.fleet("set_state", id=changed["imei"], state="online")
    page = await scene.node_red.until(lambda text: "is online again" in text, "/oneweb/alerts")
    assert html.unescape(page).count(changed["name"]) == 2


async def test_alert_when_the_bridge_is_gone(scene: Scene) -> None:
    """The bridge's absence is an alert, and its return."""
    await scene.load("offline-alert.json")
    for state, text in (("offline", "nothing is known"), ("online", "the bridge is online again")):
        await harness.publish(scene.world.port, "oneweb/bridge/status", json.dumps({"state": state}), retain=True)
        await scene.node_red.until_notice(lambda notice, text=text: notice["name"] == "Alert" and text in notice["msg"])  # type: ignore[misc]


async def test_buttons_poll_and_change_an_interval(scene: Scene) -> None:
    """The buttons reach the bridge, the answer is shown, and the table has the new interval."""
    buttons = await scene.load("calls.json")
    await scene.node_red.until(lambda text: "user_terminals" in text, "/oneweb/calls")
    state = "oneweb/bridge/polling/user_terminals/state"

    await scene.node_red.press(buttons["Poll the terminals now"])
    await scene.node_red.until_notice(lambda notice: notice["msg"].startswith("user_terminals: poll ok"))
    for button, interval in (("Terminals every minute", 60), ("Terminals every 5 minutes", 300)):
        await scene.node_red.press(buttons[button])
        await scene.recorder.until(lambda interval=interval: scene.recorder.retained[state]["interval"] == interval)  # type: ignore[misc]
        row = f"<td>user_terminals</td><td>true</td><td>{interval}</td>"
        await scene.node_red.until(lambda text, row=row: row in text, "/oneweb/calls")  # type: ignore[misc]
    await scene.node_red.press(buttons["Terminals as bridge.yaml says"])
    await scene.recorder.until(lambda: scene.recorder.retained[state]["interval"] == 10)
    await scene.node_red.press(buttons["Poll everything now"])
    await scene.recorder.until(lambda: len(scene.recorder.on("oneweb/bridge/polling/all/result")) == 1)


async def test_usage_over_80_percent_is_told_once(scene: Scene) -> None:
    """A bucket above 80 % is told once and stands first in the table; one below is not told."""
    await scene.load("usage.json")
    page, bucket = "", {"product_id": "SC-1", "bucket_id": "B-1", "bucket_name": "Monthly", "entitlement_gb": 300.0}
    for used, percent in ((200.0, "66.7"), (246.0, "82"), (250.0, "83.3")):
        payload = json.dumps(bucket | {"used_gb": used})
        await harness.publish(scene.world.port, "oneweb/product/SC-1/usage/B-1", payload, retain=True)
        cell = f">{percent}</td>"
        page = await scene.node_red.until(lambda text, cell=cell: cell in text, "/oneweb/usage")  # type: ignore[misc]

    await scene.node_red.until_notice(lambda notice: "SC-1: 82 % of 300 GB used (Monthly)" in notice["msg"])
    messages = [notice["msg"] for notice in scene.node_red.notices if "SC-1" in notice["msg"]]
    assert len(messages) == 1
    for known in scene.retained("oneweb/product/", "/usage/"):
        if known.get("entitlement_gb"):
            assert known["bucket_name"] in html.unescape(page)


async def test_usage_has_its_forecast_beside_it(scene: Scene) -> None:
    """The table says what is expected at the end and when the data are used up, and nothing once it is cleared."""
    await scene.load("usage.json")
    port, usage, forecast = scene.world.port, "oneweb/product/SC-1/usage/B-1", "oneweb/product/SC-1/forecast/B-1"
    bucket = {"product_id": "SC-1", "bucket_id": "B-1", "entitlement_gb": 300.0, "used_gb": 200.0}
    figures = {"status": "ok", "used_gb": 200.0, "entitlement_gb": 300.0, "used_at_end_p50_gb": 341.7}
    dates = {"exhausted_p10": "2026-11-25T00:00:00Z", "exhausted_p50": "2026-11-27T00:00:00Z"}
    await harness.publish(port, usage, json.dumps(bucket), retain=True)
    for payload, cells in (
        (figures | dates, "<td>342</td><td>2026-11-27 (2026-11-25 to after the cycle)</td>"),
        (figures | {"exhaustion_probability_pct": 12.5}, "<td>342</td><td>12.5 % in this cycle</td>"),
        (figures | dates | {"used_gb": 310.0}, "<td>342</td><td>since 2026-11-27</td>"),
        ({"status": "not_enough_data"}, ">66.7</td><td></td><td></td>"),
        (figures | dates, "<td>342</td>"),
        (None, ">66.7</td><td></td><td></td>"),
    ):
        await harness.publish(port, forecast, json.dumps(payload) if payload else "", retain=True)
        await scene.node_red.until(lambda page, cells=cells: cells in page, "/oneweb/usage")  # type: ignore[misc]


async def test_all_flows_live_together(scene: Scene) -> None:
    """All four work beside each other with one broker, and every node of theirs comes with Node-RED itself."""
    names = sorted(path.name for path in FLOWS.glob("*.json"))
    await scene.load(*names)
    for page in ("fleet", "alerts", "calls", "usage"):
        await scene.node_red.until(lambda text: "<table>" in text, f"/oneweb/{page}")

    modules = await scene.node_red.types()
    used = {node["type"] for name in names for node in json.loads((FLOWS / name).read_text())} - {"tab"}
    assert {modules[name] for name in used} == {"node-red"}
