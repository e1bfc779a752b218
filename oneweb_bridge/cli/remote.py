"""The commands that talk to a running bridge over MQTT: `status`, `poll` and `set`."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Any

import aiomqtt
import msgspec

from oneweb_bridge.config.schema import Config
from oneweb_bridge.config.units import interval_text
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.model.records import Message
from oneweb_bridge.mqtt.broker_errors import describe_connection_error
from oneweb_bridge.mqtt.link import MqttConnection
from oneweb_bridge.mqtt.topics import TopicTree

ANSWER_TIMEOUT_S = 5.0
COLUMNS = (
    "call",
    "enabled",
    "interval",
    "status",
    "last_poll",
    "last_success",
    "records",
    "next_poll",
    "error",
)


CommandToSend = tuple[str, str, dict[str, object]]
"""Call, verb and payload of a command."""


class Unreachable(Exception):
    """The bridge cannot be asked; the text says why."""


async def status(config: Config, write: Callable[[str], None], *, as_json: bool) -> bool:
    """Writes the polling manager's table. False when the bridge cannot be asked or is offline."""
    try:
        said = await _retained(config)
    except Unreachable as error:
        write(f"oneweb-bridge: {error}")
        return False
    if as_json:
        write(msgspec.json.encode(said).decode())
    else:
        for line in table(said):
            write(line)
    return bool(said["bridge"] == "online")


async def _retained(config: Config) -> dict[str, Any]:
    """What the bridge's own retained topics say."""
    tree = TopicTree(config.mqtt.base_topic, config.instance, "")
    name = f"oneweb-bridge-status-{secrets.token_hex(4)}"
    said: dict[str, Any] = {"bridge": "offline", "info": {}, "calls": {}}
    try:
        async with MqttConnection(config.mqtt, name) as link:
            await link.subscribe_to(tree.status, tree.info, f"{tree.base}/bridge/polling/+/state")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    async for message in link.messages:
                        _take(said, str(message.topic), message.payload, tree)
                        if len(said["calls"]) == len(CALLS) and said["info"]:
                            break
    except (aiomqtt.MqttError, OSError) as error:
        raise Unreachable(
            f"the broker {config.mqtt.host}:{config.mqtt.port} cannot be reached: {describe_connection_error(error)}"
        ) from None
    if not said["calls"]:
        raise Unreachable(f"no bridge has published below {tree.base} at {config.mqtt.host}:{config.mqtt.port}")
    return said


async def command(config: Config, asked: list[CommandToSend], write: Callable[[str], None]) -> bool:
    """Sends (call, verb, payload) and writes one line per result. False when one failed or did not come."""
    tree = TopicTree(config.mqtt.base_topic, config.instance, "")
    name = f"oneweb-bridge-command-{secrets.token_hex(4)}"
    try:
        async with MqttConnection(config.mqtt, name) as link:
            await link.subscribe_to(tree.status, f"{tree.base}/bridge/polling/+/result")
            return await _send_and_print_results(link, tree, asked, _patience(config, asked), write)
    except (aiomqtt.MqttError, OSError) as error:
        reason = describe_connection_error(error)
        write(f"oneweb-bridge: the broker {config.mqtt.host}:{config.mqtt.port} cannot be reached: {reason}")
        return False


async def _send_and_print_results(
    link: MqttConnection,
    tree: TopicTree,
    asked: list[CommandToSend],
    patience: float,
    write: Callable[[str], None],
) -> bool:
    waiting: dict[str, str] = {}
    for call, verb, payload in asked:
        id = secrets.token_hex(8)
        waiting[id] = call
        topic = f"{tree.base}/bridge/polling/{call}/{verb}"
        link.send(Message(topic, msgspec.json.encode({**payload, "id": id}), retain=False))
    good = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            async for message in link.messages:
                found = _decoded(message.payload)
                if str(message.topic) == tree.status and found.get("state") == "offline":
                    write("oneweb-bridge: the bridge is offline")
                    return False
                call = waiting.get(str(found.get("id")), "")
                if not call:
                    continue
                if "note" in found:
                    write(f"{call}: {found['note']}")
                    continue
                del waiting[str(found["id"])]
                good = good and found.get("status") == "ok"
                write(_result_line(call, found))
                if not waiting:
                    return good
    late = ", ".join(waiting.values())
    write(f"oneweb-bridge: no result for {late} in {interval_text(patience)}; is the bridge running?")
    return False


def _patience(config: Config, asked: list[CommandToSend]) -> float:
    """A poll may take its time; anything else is answered at once."""
    return config.api.timeout.poll if any(verb == "poll" for _, verb, _ in asked) else 10.0


def _result_line(call: str, found: dict[str, Any]) -> str:
    if found.get("status") != "ok":
        return f"{call}: {found.get('error', 'failed')}"
    state = _object(found.get("state"))
    if not state:
        return f"{call}: ok"
    counts = ", ".join(f"{state[name]} {name}" for name in ("records", "events", "samples") if name in state)
    enabled = "true" if state.get("enabled") else "false"
    return f"{call}: ok, enabled {enabled}, every {_duration(state.get('interval'))}, {counts}"


def _duration(seconds: object) -> str:
    """Seconds as people say them, 6h instead of 21600; empty where it is no number."""
    return interval_text(seconds) if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) else ""


def _object(value: object) -> dict[str, Any]:
    """A JSON object; anything else that stands in its place, as an empty one: anybody may publish there."""
    return value if isinstance(value, dict) else {}


def _decoded(payload: Any) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
        return {}
    return _object(found)


def _take(said: dict[str, Any], topic: str, payload: Any, tree: TopicTree) -> None:
    found = _decoded(payload)
    if topic == tree.status:
        said["bridge"] = found.get("state", "offline")
    elif topic == tree.info:
        said["info"] = found
    else:
        said["calls"][topic.split("/")[-2]] = found


def table(said: dict[str, Any]) -> list[str]:
    """The table for a terminal, with what is known of the bridge above it."""
    info = said["info"]
    api, journal = _object(info.get("api")), _object(info.get("journal"))
    head = f"bridge {said['bridge']}, API {api.get('state', 'unknown')}, backlog {journal.get('backlog', 'unknown')}"
    costs = {call: _object(cost) for call, cost in _object(info.get("calls")).items()}
    per_hour = sum(n for cost in costs.values() if isinstance(n := cost.get("requests_per_hour"), int))
    calls = [said["calls"][call] for call in CALLS if call in said["calls"]]
    rows = [COLUMNS, *(tuple(_cell(call, name, costs) for name in COLUMNS) for call in calls)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [f"{head}, {per_hour} requests an hour", "", *lines]


def _cell(call: dict[str, Any], name: str, costs: dict[str, Any]) -> str:
    value = call.get(name)
    if name == "enabled":
        return "yes" if value else "no"
    if name == "interval":
        effective = costs.get(str(call.get("call")), {}).get("effective_interval", value)
        return _duration(value) if effective == value else f"{_duration(value)} ({_duration(effective)})"
    if name in ("last_poll", "last_success", "next_poll"):
        return str(value or "")[:19].replace("T", " ")
    return "" if value is None else str(value)
