"""Finds out which of several brokers the bridge uses, for the commands that talk to it."""

import asyncio
import contextlib
import secrets
from typing import Any

import aiomqtt
import msgspec

from oneweb_bridge.config.schema import Config, Mqtt
from oneweb_bridge.config.servers import server_name, servers_of
from oneweb_bridge.decode.sizes import TooMuch, check_depth
from oneweb_bridge.mqtt.broker_errors import describe_connection_error
from oneweb_bridge.mqtt.link import MqttConnection
from oneweb_bridge.mqtt.topics import TopicTree

RETAINED_TIMEOUT_S = 2.0
"""Seconds to wait for retained messages of a broker that may have none."""


class Unreachable(Exception):
    """The bridge cannot be reached; the text says why."""


class Trace(msgspec.Struct, frozen=True, order=True):
    """What a broker retains of the bridge. A greater one is the more probable place of the bridge."""

    is_online: bool
    since: str
    """When the bridge connected there; a broker that was killed may still say `online` of an earlier time."""


async def locate_broker(config: Config) -> Mqtt:
    """The broker that the bridge uses, or used last. Raises Unreachable when no broker answers."""
    servers = servers_of(config.mqtt)
    if len(servers) == 1:
        return servers[0]
    answers = await asyncio.gather(*(_read_trace(config, server) for server in servers))
    traces = [(trace, server) for trace, server in zip(answers, servers, strict=True) if isinstance(trace, Trace)]
    if not traces:
        failures = (f"{server_name(server)}: {why}" for why, server in zip(answers, servers, strict=True))
        raise Unreachable(
            f"no broker can be reached: {'; '.join(failures)}: start one, or check mqtt.host, port, servers, tls, "
            "username and password in the configuration, which -c names"
        )
    # Of equal ones the first: the order is that in which the bridge tries them.
    return max(traces, key=lambda pair: pair[0])[1]


async def _read_trace(config: Config, server: Mqtt) -> Trace | str:
    """The trace on one broker; a text that says why it cannot be reached."""
    tree = TopicTree(config.mqtt.base_topic, config.instance, "")
    retained: dict[str, Any] = {}
    try:
        async with MqttConnection(server, f"oneweb-bridge-locate-{secrets.token_hex(4)}") as link:
            await link.listen_to(tree.status, tree.info)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETAINED_TIMEOUT_S):
                    async for message in link.messages:
                        retained[str(message.topic)] = decode_object(message.payload)
                        if len(retained) > 1:
                            break
    except (aiomqtt.MqttError, OSError) as error:
        return describe_connection_error(error)
    since = as_object(retained.get(tree.info, {}).get("broker")).get("since", "")
    return Trace(retained.get(tree.status, {}).get("state") == "online", since if isinstance(since, str) else "")


def as_object(value: object) -> dict[str, Any]:
    """A JSON object; an empty one for anything else, because any client may publish there."""
    return value if isinstance(value, dict) else {}


def decode_object(payload: Any) -> dict[str, Any]:
    """The JSON object in a payload; an empty one for anything else, and for one that is too deep to be shown.

    In place of a whole number beyond 64 bits is None: no number of the bridge is so large, and it fails wherever it is
    counted with.
    """
    try:
        check_depth(payload)
        decoded = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, AttributeError, TooMuch):
        return {}
    return as_object(_without_huge(decoded))


def _without_huge(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_huge(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_huge(inner) for inner in value]
    return None if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63 else value
