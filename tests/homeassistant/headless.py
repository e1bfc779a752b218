"""A real Home Assistant without a face, run by its own Python: `headless.py DIRECTORY BROKER_PORT`.

It has the recorder, so that what statistics do not like is in its log too.

Reads one JSON request per line and answers with one JSON line. Its log is in DIRECTORY/home-assistant.log.
Imports nothing of the bridge: it is the independent judge of what the bridge announces.
"""

import asyncio
import importlib
import json
import logging
import socket
import sys
from pathlib import Path
from typing import Any

import voluptuous as vol
from homeassistant import auth, bootstrap, config_entries, const, core, loader, setup
from homeassistant.components import recorder
from homeassistant.components.mqtt import schemas
from homeassistant.components.recorder import statistics, tasks
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import recorder as recorder_helper
from homeassistant.util import dt as dt_util

FORMAT = "%(levelname)s %(name)s: %(message)s"


def configuration() -> dict[str, Any]:
    """What configuration.yaml would say; MQTT needs the HTTP server, which gets any free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {
        "homeassistant": {"time_zone": "UTC"},
        "http": {"server_host": "127.0.0.1", "server_port": port},
        "recorder": {"commit_interval": 0},
    }


def entry(port: int) -> dict[str, Any]:
    """The stored entry of the MQTT integration, as if somebody had set it up."""
    data = {"broker": "127.0.0.1", "port": port, "protocol": "5", "discovery": True}
    return {
        "version": 1,
        "minor_version": 5,
        "key": "core.config_entries",
        "data": {
            "entries": [
                {
                    "created_at": "2026-01-01T00:00:00+00:00",
                    "data": data,
                    "disabled_by": None,
                    "discovery_keys": {},
                    "domain": "mqtt",
                    "entry_id": "0123456789abcdef0123456789abcdef",
                    "minor_version": 2,
                    "modified_at": "2026-01-01T00:00:00+00:00",
                    "options": {},
                    "pref_disable_new_entities": False,
                    "pref_disable_polling": False,
                    "source": "user",
                    "subentries": [],
                    "title": "broker",
                    "unique_id": None,
                    "version": 1,
                }
            ]
        },
    }


def rejected(payload: dict[str, Any]) -> list[str]:
    """What Home Assistant's own schemas have against a device's discovery, the message and each entity in it."""
    try:
        schemas.DEVICE_DISCOVERY_SCHEMA(payload)
    except vol.Invalid as error:
        return [str(error)]
    problems = []
    for key, component in payload["components"].items():
        platform = importlib.import_module(f"homeassistant.components.mqtt.{component['platform']}")
        shared = {name: payload[name] for name in ("device", "origin", "availability", "availability_mode")}
        entity = shared | {name: value for name, value in component.items() if name != "platform"}
        try:
            known = platform.DISCOVERY_SCHEMA(entity)
        except vol.Invalid as error:
            problems.append(f"{key}: {error}")
        else:
            problems += [f"{key}: {name} is not known" for name in entity if name not in known]
    return problems


async def answer(hass: core.HomeAssistant, request: dict[str, Any]) -> Any:
    """The answer to one request."""
    await hass.async_block_till_done(wait_background_tasks=False)
    match request["ask"]:
        case "states":
            return {s.entity_id: {"state": s.state, "attributes": dict(s.attributes)} for s in hass.states.async_all()}
        case "entities":
            return {e.unique_id: e.entity_id for e in er.async_get(hass).entities.values() if e.platform == "mqtt"}
        case "version":
            return const.__version__
        case "validate":
            return rejected(request["payload"])
        case "statistics":
            now = dt_util.utcnow()
            start = now.replace(minute=now.minute - now.minute % 5, second=0, microsecond=0)
            recorder.get_instance(hass).queue_task(tasks.StatisticsTask(start, fire_events=False))
            await recorder.get_instance(hass).async_block_till_done()
            statistics_ids = await recorder.get_instance(hass).async_add_executor_job(
                statistics.list_statistic_ids, hass
            )
            return {entry["statistic_id"]: entry["has_sum"] for entry in statistics_ids}
        case "devices":
            devices = dr.async_get(hass).devices.values()
            names = {device.id: min(device.identifiers)[1] for device in devices if device.identifiers}
            return {
                names[device.id]: {
                    "name": device.name,
                    "via": names.get(device.via_device_id or ""),
                    "sw_version": device.sw_version,
                }
                for device in devices
                if device.id in names
            }
        case "call":
            await hass.services.async_call(request["domain"], request["service"], request["data"], blocking=True)
            return "done"
    return None


async def main(directory: Path, port: int) -> None:
    """Starts, answers until the input ends, and stops."""
    (directory / ".storage").mkdir(parents=True, exist_ok=True)
    stored = directory / ".storage" / "core.config_entries"
    (directory / "configuration.yaml").touch()
    if not stored.exists():
        stored.write_text(json.dumps(entry(port)))
    logging.basicConfig(filename=directory / "home-assistant.log", level=logging.INFO, format=FORMAT)
    hass = core.HomeAssistant(str(directory))
    loader.async_setup(hass)
    hass.config.skip_pip = True
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    await bootstrap.async_load_base_functionality(hass)
    hass.auth = await auth.auth_manager_from_config(hass, [{"type": "homeassistant"}], [])
    recorder_helper.async_initialize_recorder(hass)
    config = configuration()
    for component in ("homeassistant", "http", "recorder", "mqtt"):
        assert await setup.async_setup_component(hass, component, config), component
    await hass.async_start()
    print(json.dumps("started"), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            reply = await answer(hass, json.loads(line))
        except Exception as error:  # noqa: BLE001 - the test is to see whatever went wrong
            reply = {"error": repr(error)}
        print(json.dumps(reply, default=str), flush=True)
    await hass.async_stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
