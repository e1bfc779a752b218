"""The commands that talk to a running bridge over MQTT: `status`, `poll` and `set`."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterable
from typing import Any

import aiomqtt
import msgspec

from oneweb_bridge.cli.locate import Unreachable, as_object, decode_object, locate_broker
from oneweb_bridge.config.read import require_postgres
from oneweb_bridge.config.schema import Config, Mqtt
from oneweb_bridge.config.servers import server_name
from oneweb_bridge.config.units import MAX_DURATION_S, interval_text
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.encoding import count_text, one_line
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


async def status(config: Config, write: Callable[[str], None], *, as_json: bool) -> bool:
    """Writes the table of calls, and with PostgreSQL who holds what. False when the bridge is offline or not reached.

    Raises StoreError for a database that cannot be read.
    """
    holding = _read_holding(config)
    try:
        broker = await locate_broker(config)
        bridge = await _read_retained(config, broker) | holding
    except Unreachable as error:
        if as_json:
            write(msgspec.json.encode({"bridge": "offline", "error": str(error), **holding}).decode())
        else:
            write(f"oneweb-bridge: {error}")
            _write_lines(write, _holder_lines(holding))
        return False
    if config.mqtt.servers:
        bridge["broker"] = server_name(broker)
    if as_json:
        write(msgspec.json.encode(bridge).decode())
    else:
        _write_lines(write, [*table(bridge), *_holder_lines(holding)])
    return bool(bridge["bridge"] == "online")


def _write_lines(write: Callable[[str], None], lines: Iterable[str]) -> None:
    for line in lines:
        write(line)


def _read_holding(config: Config) -> dict[str, Any]:
    """Who holds what, and which workers are there; nothing with SQLite. Raises StoreError."""
    if config.state.url is None:
        return {}
    require_postgres(config)
    from oneweb_bridge.store.holders import read_holders  # noqa: PLC0415 -- its driver is an extra

    holders, workers = read_holders(config.state.url)
    return {"holders": holders, "workers": workers}


def _holder_lines(holding: dict[str, Any]) -> list[str]:
    """A line for each instance, below an empty one."""
    lines = [
        f"{holder['instance']}: {holder['worker']}, epoch {holder['epoch']}, "
        + (f"until {_short_time(holder['expires'])}" if holder["held"] else "held by nobody")
        for holder in holding.get("holders", [])
    ]
    return ["", *lines] if lines else []


def _short_time(text: str) -> str:
    """A time of the contract without its fraction; it keeps its zone."""
    return f"{text[:19].replace('T', ' ')}Z" if text else ""


async def _read_retained(config: Config, broker: Mqtt) -> dict[str, Any]:
    """The bridge's status, info and call states, from its retained topics. Raises Unreachable."""
    tree = TopicTree(config.mqtt.base_topic, config.instance, "")
    name = f"oneweb-bridge-status-{secrets.token_hex(4)}"
    bridge: dict[str, Any] = {"bridge": "offline", "info": {}, "calls": {}}
    try:
        async with MqttConnection(broker, name) as link:
            await link.listen_to(tree.status, tree.info, f"{tree.base}/bridge/polling/+/state")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    async for message in link.messages:
                        _add_message(bridge, str(message.topic), message.payload, tree)
                        if len(bridge["calls"]) == len(CALLS) and bridge["info"]:
                            break
    except (aiomqtt.MqttError, OSError) as error:
        raise Unreachable(_unreachable(config, broker, error)) from None
    if not bridge["calls"]:
        raise Unreachable(
            f"no bridge has published below {tree.base} at {server_name(broker)}: start it with `oneweb-bridge run`, "
            "or check mqtt.host and mqtt.base_topic in the configuration, which -c names"
        )
    return bridge


async def command(config: Config, commands: list[CommandToSend], write: Callable[[str], None]) -> bool:
    """Sends (call, verb, payload) and writes one line per result. False when one failed or did not come."""
    tree = TopicTree(config.mqtt.base_topic, config.instance, "")
    name = f"oneweb-bridge-command-{secrets.token_hex(4)}"
    try:
        broker = await locate_broker(config)
    except Unreachable as error:
        write(f"oneweb-bridge: {error}")
        return False
    try:
        async with MqttConnection(broker, name) as link:
            await link.listen_to(tree.status, f"{tree.base}/bridge/polling/+/result")
            return await _send_and_print_results(link, tree, commands, _answer_timeout(config, commands), write)
    except (aiomqtt.MqttError, OSError) as error:
        write(f"oneweb-bridge: {_unreachable(config, broker, error)}")
        return False


def _unreachable(config: Config, broker: Mqtt, error: BaseException) -> str:
    """Why the broker is not reached, and what to do."""
    keys = "mqtt.host, port, servers" if config.mqtt.servers else "mqtt.host, port"
    return (
        f"the broker {server_name(broker)} cannot be reached ({describe_connection_error(error)}): start it, or check "
        f"{keys}, tls, username and password in the configuration, which -c names"
    )


async def _send_and_print_results(
    link: MqttConnection,
    tree: TopicTree,
    commands: list[CommandToSend],
    timeout: float,
    write: Callable[[str], None],
) -> bool:
    waiting: dict[str, str] = {}
    for call, verb, payload in commands:
        id = secrets.token_hex(8)
        waiting[id] = call
        topic = f"{tree.base}/bridge/polling/{call}/{verb}"
        link.send(Message(topic, msgspec.json.encode({**payload, "id": id}), retain=False))
    is_good = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            async for message in link.messages:
                result = decode_object(message.payload)
                if str(message.topic) == tree.status and result.get("state") == "offline":
                    write(
                        "oneweb-bridge: the bridge is offline: start it with `oneweb-bridge run`, or see in its log why"
                    )
                    return False
                call = waiting.get(str(result.get("id")), "")
                if not call:
                    continue
                if "note" in result:
                    write(f"{call}: {one_line(result['note'])}")
                    continue
                del waiting[str(result["id"])]
                is_good = is_good and result.get("status") == "ok"
                write(_result_line(call, result))
                if not waiting:
                    return is_good
    late = ", ".join(waiting.values())
    write(f"oneweb-bridge: no result for {late} in {interval_text(timeout)}: look at `status` and its log")
    return False


def _answer_timeout(config: Config, commands: list[CommandToSend]) -> float:
    """Seconds to wait for results: a poll may take long, anything else is answered at once."""
    return config.api.timeout.poll if any(verb == "poll" for _, verb, _ in commands) else 10.0


def _result_line(call: str, result: dict[str, Any]) -> str:
    if result.get("status") != "ok":
        return f"{call}: {one_line(result.get('error', 'failed'))}"
    state = as_object(result.get("state"))
    if not state:
        return f"{call}: ok"
    names = [name for name in ("records", "events", "samples") if isinstance(state.get(name), int)]
    counts = "".join(f", {count_text(state[name], name.removesuffix('s'))}" for name in names)
    enabled = "enabled" if state.get("enabled") else "disabled"
    return f"{call}: ok, {enabled}, every {_duration(state.get('interval')) or '(unknown)'}{counts}"


def _duration(seconds: object) -> str:
    """Seconds in short form, 6h instead of 21600; empty for anything but a number that a duration may have."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds <= MAX_DURATION_S:
        return ""
    return interval_text(seconds)


def _add_message(bridge: dict[str, Any], topic: str, payload: Any, tree: TopicTree) -> None:
    payload_object = decode_object(payload)
    if topic == tree.status:
        bridge["bridge"] = payload_object.get("state", "offline")
    elif topic == tree.info:
        bridge["info"] = payload_object
    else:
        bridge["calls"][topic.split("/")[-2]] = payload_object


def table(bridge: dict[str, Any]) -> list[str]:
    """The lines of the table, below a line about the bridge."""
    info = bridge["info"]
    api, journal = as_object(info.get("api")), as_object(info.get("journal"))
    place = f" at {bridge['broker']}" if "broker" in bridge else ""
    backlog = journal.get("backlog", "unknown")
    # What an offline bridge has said of the API may be of long ago.
    was = "" if bridge["bridge"] == "online" else "was "
    head = f"bridge {bridge['bridge']}{place}, API {was}{api.get('state', 'unknown')}, backlog {backlog}"
    costs = {call: as_object(cost) for call, cost in as_object(info.get("calls")).items()}
    per_hour = sum(n for cost in costs.values() if isinstance(n := cost.get("requests_per_hour"), int))
    calls = [bridge["calls"][call] for call in CALLS if call in bridge["calls"]]
    rows = [COLUMNS, *(tuple(_cell(call, name, costs) for name in COLUMNS) for call in calls)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [one_line(f"{head}, {per_hour} requests an hour"), "", *lines]


def _cell(call: dict[str, Any], name: str, costs: dict[str, Any]) -> str:
    value = call.get(name)
    if name == "enabled":
        return "yes" if value else "no"
    if name == "interval":
        effective = costs.get(str(call.get("call")), {}).get("effective_interval", value)
        return _duration(value) if effective == value else f"{_duration(value)} ({_duration(effective)})"
    if name in ("last_poll", "last_success", "next_poll"):
        return _short_time(one_line(value or ""))
    return "" if value is None else one_line(value)
