"""A real Home Assistant, a real broker and the real bridge with a simulated fleet: what a user sees and does there."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge.demo import mosquitto
from tests import harness
from tests.homeassistant import home
from tests.homeassistant.home import Home

# Home Assistant needs a Python of its own and minutes to install, which `make test-homeassistant` does.
pytestmark = [pytest.mark.homeassistant, pytest.mark.skipif(not home.PYTHON.exists(), reason="no Home Assistant here")]

CALL = "oneweb_main_call_ut_signal_quality"
STATE = "oneweb/bridge/polling/ut_signal_quality/state"
UNITS = {
    "signal_quality_rsrp_dbm": ("dBm", "signal_strength", "measurement"),
    "signal_quality_rssi_dbm": ("dBm", "signal_strength", "measurement"),
    "signal_quality_sinr_db": ("dB", "signal_strength", "measurement"),
    "link_availability_link_availability_pct": ("%", None, "measurement"),
    **{
        f"traffic_{side}_{way}_bytes": ("B", "data_size", "total_increasing")
        for side in ("cnx", "mgmt", "wan")
        for way in ("tx", "rx")
    },
    "link_metrics_latency_ms": ("ms", "duration", "measurement"),
    "link_metrics_jitter_ms": ("ms", "duration", "measurement"),
    "link_metrics_packet_loss_pct": ("%", None, "measurement"),
}
"""What every terminal that measures has, with unit, device class and state class."""


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[harness.World]:
    """A fleet of 25 in which nothing happens by itself."""
    async with harness.world(tmp_path, terminals=25, liveliness=0) as opened:
        yield opened


def kinds(states: dict[str, Any], *, ready: bool = True) -> dict[str, int]:
    """How many devices of each kind have entities, and whether none of them is unavailable."""
    by_kind: dict[str, set[str]] = {}
    for unique, state in states.items():
        kind = unique.split("_")[2]
        mark = unique.split("_")[3] if kind in ("terminal", "product") else unique.rsplit("_", 1)[0]
        if not ready or state["state"] != "unavailable":
            by_kind.setdefault(kind, set()).add(mark)
    return {kind: len(ids) for kind, ids in by_kind.items()}


def complete(states: dict[str, Any]) -> bool:
    """Whether the whole fleet is there, with whatever the simulated API sends."""
    by_kind = kinds(states)
    enough = by_kind.get("terminal") == 25 and by_kind.get("product", 0) >= 20
    return enough and all(s["state"] != "unavailable" for s in states.values()) and len(states) > 900


def unknown(states: dict[str, Any]) -> list[str]:
    """The entities without a value, but for buttons that were never pressed and events that never happened.

    A forecast is not known before three full days.
    """
    return [
        u
        for u, s in states.items()
        if s["state"] == "unknown" and not u.endswith(("_poll", "_republish", "_changes")) and "_forecast_" not in u
    ]


async def wait_for_states(there: Home) -> dict[str, Any]:
    """The states when the fleet is complete and no entity has come for a while."""
    await there.until(complete, 120)
    count = -1
    while count != (count := len(await there.states())):
        await asyncio.sleep(3)
    states: dict[str, Any] = await there.until(lambda states: states if complete(states) else None)
    return states


async def rejected(there: Home, port: int) -> tuple[list[str], dict[str, Any]]:
    """What Home Assistant's schemas have against the discovery of the bridge, and the discovery."""
    configs = await harness.retained(port, "homeassistant/#")
    sentences = [
        f"{topic}: {line}"
        for topic, payload in configs.items()
        for line in await there.ask("validate", payload=payload)
    ]
    return sentences, configs


async def test_fleet_is_at_home_in_home_assistant(fleet: harness.World) -> None:
    """Every entity of a fleet of 25 has a state, with the right unit, and all controls work, without a complaint."""
    directory = fleet.directory / "ha"
    config = fleet.config(removal={"after_missing": 1, "after_time": 0})
    async with harness.running(config) as bridge, home.running(directory, fleet.port) as there:
        states = await wait_for_states(there)
        sentences, discovery = await rejected(there, fleet.port)
        assert sentences == []
        assert max(len(json.dumps(payload)) for payload in discovery.values()) < 32_000
        assert unknown(states) == []
        assert all(len(s["state"]) <= 255 and s["state"] not in ("True", "False", "nan") for s in states.values())
        await devices_hang_together(there, discovery)
        units_are_right(states)
        await controls_work(there, fleet)
        await changes_are_events(there, fleet)
        await removed_with_its_record(there, fleet)
        sums = await there.ask("statistics")
        assert sum(sums.values()) >= 6 * 20
        await bridge_is_lost_and_found(there, fleet, bridge)
        print(f"\nHome Assistant {await there.ask('version')}: {len(discovery)} devices, {len(states)} entities")
        assert there.complaints() == []


async def devices_hang_together(there: Home, discovery: dict[str, Any]) -> None:
    """A product hangs on its terminal, a terminal and a call on the bridge; each carries what was said of it."""
    devices = await there.ask("devices")
    configured = {p["device"]["identifiers"][0]: p["device"] for p in discovery.values()}
    assert set(devices) == set(configured)
    for id, device in devices.items():
        assert device["via"] == configured[id].get("via_device")
        assert device["name"] == configured[id]["name"]
        assert device["sw_version"] == configured[id].get("sw_version")
    assert sum("_terminal_" in (d["via"] or "") for d in devices.values()) >= 15
    assert sum(d["sw_version"] is not None for id, d in devices.items() if "_terminal_" in id) >= 20


def units_are_right(states: dict[str, Any]) -> None:
    """Each measured value has its unit, device class and state class."""
    for name, (unit, device_class, state_class) in UNITS.items():
        matching = [s for u, s in states.items() if "_terminal_" in u and u.endswith(f"_{name}")]
        assert len(matching) >= 15, name
        for state in matching:
            attributes = state["attributes"]
            assert attributes["unit_of_measurement"] == unit
            assert attributes.get("device_class") == device_class
            assert attributes["state_class"] == state_class
            float(state["state"])
    used = [s for u, s in states.items() if u.endswith("_used_gb")]
    assert used
    assert all(s["attributes"]["state_class"] == "total" and s["attributes"]["last_reset"] for s in used)
    for name in ("remaining_gb", "entitlement_gb", "overage_blocks", "used_pct", "be_downlink_bps", "ef_uplink_bps"):
        assert any(u.endswith(f"_{name}") and "_product_" in u for u in states), name
    places = [s for u, s in states.items() if u.endswith("_position")]
    assert places
    assert all(s["state"] == "not_home" and s["attributes"]["gps_accuracy"] == 100 for s in places)


async def controls_work(there: Home, fleet: harness.World) -> None:
    """Switch, number and button change the bridge; the wishes of the first two are retained."""
    async with harness.recording(fleet.port) as recorder:
        await there.call(f"{CALL}_enabled", "turn_off")
        await recorder.until(lambda: recorder.retained.get(STATE, {}).get("enabled") is False)
        await there.until(lambda states: states[f"{CALL}_status"]["state"] == "disabled")
        assert states_of(await there.states(), "enabled") == "off"
        # Somebody else switches it on and off again between; Home Assistant's own wish must still work.
        await harness.publish(fleet.port, STATE.replace("/state", "/set"), '{"enabled": true}')
        await there.until(lambda states: states_of(states, "enabled") == "on")
        await there.call(f"{CALL}_enabled", "turn_off")
        await there.until(lambda states: states_of(states, "enabled") == "off")
        await there.call(f"{CALL}_enabled", "turn_on")
        await there.until(lambda states: states_of(states, "enabled") == "on")
        await there.call(f"{CALL}_interval", "set_value", value=45)
        await recorder.until(lambda: recorder.retained[STATE]["interval"] == 45)
        await there.until(lambda states: states_of(states, "interval") == "45")
        set_commands = await harness.retained(fleet.port, "oneweb/bridge/polling/+/+/set")
        assert set(set_commands) == {STATE.replace("/state", f"/{name}/set") for name in ("enabled", "interval")}
        before = len(recorder.on(STATE.replace("/state", "/result")))
        await there.call(f"{CALL}_poll", "press")
        await recorder.until(lambda: len(recorder.on(STATE.replace("/state", "/result"))) > before)
        assert recorder.on(STATE.replace("/state", "/result"))[-1]["status"] == "ok"
        await there.call("oneweb_main_bridge_republish", "press")
        await recorder.until(lambda: recorder.on("oneweb/bridge/response/republish"))


def states_of(states: dict[str, Any], entity: str) -> str:
    """The state of an entity of the call that is played with."""
    return str(states[f"{CALL}_{entity}"]["state"])


async def changes_are_events(there: Home, fleet: harness.World) -> None:
    """A terminal that goes offline shows it, and fires its event."""
    imei = next(t["id"] for t in fleet.api.truth("terminals") if t["resourceState"] == "online")
    fleet.api.fleet("set_state", id=imei, state="offline")
    unique = f"oneweb_main_terminal_{imei}"
    await there.until(lambda states: states[f"{unique}_connectivity"]["state"] == "off")
    event = (await there.states())[f"{unique}_changes"]
    assert event["attributes"]["event_type"] == "changed"
    assert "state" in event["attributes"]["changed"]


async def removed_with_its_record(there: Home, fleet: harness.World) -> None:
    """A removed terminal leaves Home Assistant, and comes back with its record."""
    imei = fleet.api.truth("terminals")[-1]["id"]
    unique = f"oneweb_main_terminal_{imei}"
    fleet.api.fleet("remove", id=imei)
    await there.until(lambda states: not any(u.startswith(unique) for u in states), 120)
    assert unique not in await there.ask("devices")
    fleet.api.fleet("restore", id=imei)
    await there.until(lambda states: any(u.startswith(unique) for u in states), 60)
    await wait_for_states(there)


async def bridge_is_lost_and_found(there: Home, fleet: harness.World, bridge: harness.Process) -> None:
    """A bridge that is killed leaves everything unavailable but its own connection; started anew, all is back."""
    await bridge.kill()
    await there.until(
        lambda states: all(s["state"] == "unavailable" for u, s in states.items() if not u.endswith("_connection"))
    )
    assert (await there.states())["oneweb_main_bridge_connection"]["state"] == "off"
    async with harness.running(fleet.config()):
        await there.until(complete)


async def test_fleet_survives_restarts_of_home_assistant_and_of_the_broker(fleet: harness.World) -> None:
    """After a restart of Home Assistant, and of a broker that forgot everything, the fleet is back with its states."""
    directory, port = fleet.directory / "ha", mosquitto.free_port()
    config = harness.bridge_yaml(fleet.directory, fleet.api.url, port)
    async with harness.running(config):
        async with mosquitto.run_mosquitto(port):
            async with home.running(directory, port) as there:
                before = await wait_for_states(there)
            async with home.running(directory, port) as there:
                await there.until(complete)
        async with mosquitto.run_mosquitto(port), home.running(directory, port) as there:
            after = await wait_for_states(there)
            assert {u: s["entity_id"] for u, s in after.items()} == {u: s["entity_id"] for u, s in before.items()}
            assert unknown(after) == []
            # It had to do without a broker for a while, and says so.
            complaints = [line for line in there.complaints() if "mqtt.client" not in line]
            assert complaints == []


NAMES = ["", "x" * 500, "same", "same", "{{ 1 / 0 }}", "💥", "a\u0000b\n\tc", "'\"\\{% raw %}", "None", "unavailable"]


async def until_devices_are_known(there: home.Home, port: int) -> None:
    """Waits until Home Assistant has each device that is announced."""
    async with asyncio.timeout(harness.BUSY_S):
        while True:
            announced = (await harness.retained(port, "homeassistant/device/#")).values()
            if {each["device"]["identifiers"][0] for each in announced} == set(await there.ask("devices")):
                return
            await asyncio.sleep(0.2)


async def test_bad_names_are_valid_distinct_devices(tmp_path: Path) -> None:
    """Names that are empty, long, equal or code give devices that Home Assistant takes, and that can be told apart."""
    async with harness.world(tmp_path, terminals=len(NAMES), liveliness=0) as world:
        for kind in ("terminals", "products"):
            for item, name in zip(world.api.truth(kind), NAMES, strict=False):
                world.api.fleet("set", id=item["id"], attributes={"name": name})
        async with harness.running(world.config()), home.running(tmp_path / "ha", world.port) as there:
            await there.until(lambda states: kinds(states).get("terminal") == len(NAMES), 90)
            await asyncio.sleep(3)
            await until_devices_are_known(there, world.port)
            sentences, discovery = await rejected(there, world.port)
            assert sentences == []
            names = [device["name"] for device in (await there.ask("devices")).values()]
            assert len(names) == len(set(names)) == len(discovery)
            assert all(0 < len(name) <= 100 for name in names)
            assert there.complaints() == []


FORECAST = {
    "status": "ok",
    "confidence": "medium",
    "cycle_end": "2026-12-01T00:00:00Z",
    "used_gb": 265.8,
    "entitlement_gb": 300.0,
    "used_at_end_p10_gb": 316.2,
    "used_at_end_p50_gb": 341.7,
    "used_at_end_p90_gb": 371.0,
    "exhausted_p10": "2026-11-25T00:00:00Z",
    "exhausted_p50": "2026-11-27T00:00:00Z",
    "exhausted_p90": "2026-11-29T00:00:00Z",
    "exhaustion_probability_pct": 97.0,
    "overage_p10_blocks": 1,
    "overage_p50_blocks": 2,
    "overage_p90_blocks": 3,
}
"""What the bridge publishes once three full days are known."""


async def test_forecast_is_shown_with_its_band(fleet: harness.World) -> None:
    """On the product's device: when the allowance is exhausted, how probably, the use at the end, and the blocks."""
    async with harness.running(fleet.config()), home.running(fleet.directory / "ha", fleet.port) as there:
        await wait_for_states(there)
        topics = list(await harness.retained(fleet.port, "oneweb/product/+/forecast/+"))
        topic = topics[0]
        product, _, bucket = topic.removeprefix("oneweb/product/").split("/")
        payload = FORECAST | {"product_id": product, "bucket_id": bucket}
        await harness.publish(fleet.port, topic, json.dumps(payload), retain=True)
        beginning = f"oneweb_main_product_{product}_forecast_{bucket}_"
        shown = await there.until(
            lambda states: {
                unique.removeprefix(beginning): state
                for unique, state in states.items()
                if unique.startswith(beginning) and state["state"] not in ("unknown", "unavailable")
            }
        )
        assert shown["exhausted"]["state"].startswith("2026-11-27T00:00:00")
        assert shown["exhausted"]["attributes"]["exhausted_p90"] == FORECAST["exhausted_p90"]
        assert float(shown["probability"]["state"]) == 97.0
        assert float(shown["used_at_end"]["state"]) == 341.7
        assert shown["used_at_end"]["attributes"]["unit_of_measurement"] == "GB"
        assert there.complaints() == []
