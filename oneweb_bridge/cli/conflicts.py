"""What two bridges of one process, or on one broker, may not share."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from oneweb_bridge.config.schema import Config, Mqtt
from oneweb_bridge.config.servers import server_name, servers_of
from oneweb_bridge.trends.task import path_of

_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


def find_conflict(configs: Mapping[Path, Config]) -> str | None:
    """One sentence about the first two files whose bridges cannot run beside each other; None where all can."""
    for (first, one), (second, other) in combinations(configs.items(), 2):
        for sentence in _conflicts(one, other):
            return f"{first} and {second}: {sentence}"
    return None


def _conflicts(one: Config, other: Config) -> Iterator[str]:
    if shared := _files(one) & _files(other):
        yield f"both use the file {min(shared)}: give each its own state.path and trends.path"
    if one.instance == other.instance:
        yield f"both have the instance '{one.instance}', so the same MQTT client id: give each its own"
    if (server := _shared_server(one.mqtt, other.mqtt)) and _overlap(one.mqtt.base_topic, other.mqtt.base_topic):
        topics = dict.fromkeys((one.mqtt.base_topic, other.mqtt.base_topic))
        names = " and ".join(f"'{topic}'" for topic in topics)
        yield f"both publish to {server}, below {names}: give each its own mqtt.base_topic, none below the other"
    if _have_same_node(one, other):
        node = f"{one.sparkplug.group_id}/{one.sparkplug.edge_node_id}"
        yield f"both are the Sparkplug Edge Node {node}: give each its own sparkplug.edge_node_id"


def _files(config: Config) -> set[Path]:
    return {Path(config.state.path).resolve(), path_of(config).resolve()}


def _shared_server(one: Mqtt, other: Mqtt) -> str | None:
    """A server that both name; the names of this host are one."""
    others = {_place(server) for server in servers_of(other)}
    return next((server_name(server) for server in servers_of(one) if _place(server) in others), None)


def _place(server: Mqtt) -> tuple[str, int]:
    host = server.host.strip("[]").casefold()
    return "localhost" if host in _LOOPBACK else host, server.port


def _overlap(base: str, other: str) -> bool:
    return f"{base}/".startswith(f"{other}/") or f"{other}/".startswith(f"{base}/")


def _have_same_node(one: Config, other: Config) -> bool:
    nodes = [(config.sparkplug.group_id, config.sparkplug.edge_node_id) for config in (one, other)]
    brokers = [config.sparkplug.mqtt or config.mqtt for config in (one, other)]
    are_enabled = one.sparkplug.enabled and other.sparkplug.enabled
    return are_enabled and nodes[0] == nodes[1] and _shared_server(*brokers) is not None
