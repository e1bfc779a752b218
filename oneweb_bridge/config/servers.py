"""The brokers that an `mqtt` section names. Pure."""

from msgspec.structs import replace

from oneweb_bridge.config.schema import Mqtt


def split_server(text: str) -> tuple[str, int]:
    """Host and port of `host:port`; an IPv6 address keeps its brackets."""
    host, _, port = text.rpartition(":")
    return host, int(port)


def servers_of(mqtt: Mqtt) -> tuple[Mqtt, ...]:
    """The section once for each server, `host` and `port` first; a server that is named again is left out."""
    unique: dict[tuple[str, int], Mqtt] = {}
    for host, port in ((mqtt.host, mqtt.port), *map(split_server, mqtt.servers)):
        unique.setdefault((host.strip("[]").casefold(), port), replace(mqtt, host=host, port=port, servers=()))
    return tuple(unique.values())


def server_name(mqtt: Mqtt) -> str:
    """`host:port` of a section, as logs and `status` show it."""
    return f"{mqtt.host}:{mqtt.port}"
