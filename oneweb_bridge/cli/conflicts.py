"""What two bridges of one process, or on one broker, may not share."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from oneweb_bridge.config.schema import Config, Mqtt
from oneweb_bridge.config.servers import server_name, servers_of
from oneweb_bridge.store.places import place_of
from oneweb_bridge.trends.task import trends_place_of

_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


def find_conflict(configs: Mapping[Path, Config]) -> str | None:
    """One sentence about the first two files whose bridges cannot run beside each other; None where all can."""
    for (path, config), (other_path, other) in combinations(configs.items(), 2):
        for sentence in _conflicts(config, other):
            return f"{path} and {other_path}: {sentence}"
    return None


def _conflicts(config: Config, other: Config) -> Iterator[str]:
    if shared := _files(config) & _files(other):
        yield f"both use the file {min(shared)}: give each its own state.path and trends.path"
    if config.instance == other.instance:
        yield f"both have the instance '{config.instance}', so the same MQTT client id: give each its own"
    if (server := _shared_server(config.mqtt, other.mqtt)) and _overlap(config.mqtt.base_topic, other.mqtt.base_topic):
        topics = dict.fromkeys((config.mqtt.base_topic, other.mqtt.base_topic))
        names = " and ".join(f"'{topic}'" for topic in topics)
        yield f"both publish to {server}, below {names}: give each its own mqtt.base_topic, none below the other"
    if _have_same_node(config, other):
        node = f"{config.sparkplug.group_id}/{config.sparkplug.edge_node_id}"
        yield f"both are the Sparkplug Edge Node {node}: give each its own sparkplug.edge_node_id"


def _files(config: Config) -> set[Path]:
    place = place_of(config)
    places = (place, trends_place_of(config, place))
    return {path.resolve() for path in places if isinstance(path, Path)}


def _shared_server(mqtt: Mqtt, other: Mqtt) -> str | None:
    """A server that both name; the names of this host are config."""
    others = {_place(server) for server in servers_of(other)}
    return next((server_name(server) for server in servers_of(mqtt) if _place(server) in others), None)


def _place(server: Mqtt) -> tuple[str, int]:
    host = server.host.strip("[]").casefold()
    return "localhost" if host in _LOOPBACK else host, server.port


def _overlap(base: str, other: str) -> bool:
    return f"{base}/".startswith(f"{other}/") or f"{other}/".startswith(f"{base}/")


def _have_same_node(config: Config, other: Config) -> bool:
    nodes = [(each.sparkplug.group_id, each.sparkplug.edge_node_id) for each in (config, other)]
    brokers = [each.sparkplug.mqtt or each.mqtt for each in (config, other)]
    are_enabled = config.sparkplug.enabled and other.sparkplug.enabled
    return are_enabled and nodes[0] == nodes[1] and _shared_server(*brokers) is not None
