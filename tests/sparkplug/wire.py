"""MQTT packets as a tap sees them, read from their bytes: versions 3.1.1 and 5.

Source: MQTT 3.1.1 and MQTT 5.0 (OASIS), chapters 2 and 3.
"""

from typing import Literal

import msgspec

CONNECT, CONNACK, PUBLISH, SUBSCRIBE, DISCONNECT = 1, 2, 3, 8, 14
SESSION_EXPIRY = 0x11


class Will(msgspec.Struct, frozen=True):
    topic: str
    payload: bytes
    qos: int
    retain: bool


class Connect(msgspec.Struct, frozen=True, tag=True):
    """`level` is 4 for MQTT 3.1.1 and 5 for MQTT 5; `session_expiry` is None where nothing says it."""

    level: int
    client: str
    clean: bool
    session_expiry: int | None
    will: Will | None


class Connack(msgspec.Struct, frozen=True, tag=True):
    code: int


class Publish(msgspec.Struct, frozen=True, tag=True):
    topic: str
    payload: bytes
    qos: int
    retain: bool


class Subscribe(msgspec.Struct, frozen=True, tag=True):
    """Topic filters with the QoS that is asked for."""

    filters: tuple[tuple[str, int], ...]


class Disconnect(msgspec.Struct, frozen=True, tag=True):
    reason: int


class Other(msgspec.Struct, frozen=True, tag=True):
    """A packet that no rule looks into."""

    kind: int


class Opened(msgspec.Struct, frozen=True, tag=True):
    """A connection has come, before its first packet."""


class Closed(msgspec.Struct, frozen=True, tag=True):
    """A connection has ended."""


class Note(msgspec.Struct, frozen=True, tag=True):
    """What a scenario did beside the wire.

    `stop`: the bridge was asked to stop. `kill`: it was killed. `left`: a Device is gone. `changed`: a metric of a
    Device (empty: of the node) has a value that must come.
    """

    what: Literal["stop", "kill", "left", "changed"]
    device: str = ""
    metric: str = ""
    value: str | int | float | bool | None = None


Packet = Connect | Connack | Publish | Subscribe | Disconnect | Other | Opened | Closed | Note


class Event(msgspec.Struct, frozen=True):
    """One packet of one connection, in the order in which the tap passed it on. `at` is in seconds since the epoch."""

    at: float
    connection: int
    up: bool
    """From the bridge to the broker."""
    packet: Packet


class Trace(msgspec.Struct, frozen=True):
    """What passed in one scenario, and what it was configured with. The first connection has a new database."""

    events: tuple[Event, ...]
    primary_host: str | None = None


class _Cursor:
    """Reads the members of a packet one after the other."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    def take(self, size: int) -> bytes:
        taken = self._body[self._at : self._at + size]
        self._at += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def binary(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        return self.binary().decode()

    def varint(self) -> int:
        value, shift, byte = 0, 0, 0x80
        while byte >= 0x80:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
        return value

    def properties(self) -> "_Cursor":
        return _Cursor(self.take(self.varint()))

    def rest(self) -> bytes:
        return self.take(len(self._body) - self._at)

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._body)


def read_packet(packet: bytes, level: int) -> Packet:
    """A whole packet; `level` is that of its connection, and no matter for CONNECT itself."""
    kind, flags = packet[0] >> 4, packet[0] & 0x0F
    cursor = _Cursor(packet[1:])
    cursor.varint()
    match kind:
        case 1:
            return _connect(cursor)
        case 2:
            cursor.number(1)
            return Connack(cursor.number(1))
        case 3:
            return _publish(cursor, flags, level)
        case 8:
            return _subscribe(cursor, level)
        case 14:
            return Disconnect(0 if cursor.is_at_end else cursor.number(1))
        case _:
            return Other(kind)


def _connect(cursor: _Cursor) -> Connect:
    cursor.text()
    level, flags = cursor.number(1), cursor.number(1)
    cursor.number(2)
    expiry = _session_expiry(cursor.properties()) if level == 5 else None
    client, will = cursor.text(), None
    if flags & 0x04:
        if level == 5:
            cursor.properties()
        will = Will(cursor.text(), cursor.binary(), (flags >> 3) & 3, bool(flags & 0x20))
    return Connect(level, client, bool(flags & 0x02), expiry, will)


_PROPERTY_SIZES = {0x11: 4, 0x21: 2, 0x27: 4, 0x22: 2, 0x19: 1, 0x17: 1}
"""The properties of CONNECT whose size is fixed."""


def _session_expiry(properties: _Cursor) -> int | None:
    expiry = None
    while not properties.is_at_end:
        name = properties.number(1)
        if name in _PROPERTY_SIZES:
            value = properties.number(_PROPERTY_SIZES[name])
            expiry = value if name == SESSION_EXPIRY else expiry
        else:
            properties.binary()
            if name == 0x26:  # a user property is a pair
                properties.binary()
    return expiry


def _publish(cursor: _Cursor, flags: int, level: int) -> Publish:
    topic, qos = cursor.text(), (flags >> 1) & 3
    if qos:
        cursor.number(2)
    if level == 5:
        cursor.properties()
    return Publish(topic, cursor.rest(), qos, bool(flags & 0x01))


def _subscribe(cursor: _Cursor, level: int) -> Subscribe:
    cursor.number(2)
    if level == 5:
        cursor.properties()
    filters = []
    while not cursor.is_at_end:
        name = cursor.text()
        filters.append((name, cursor.number(1) & 3))
    return Subscribe(tuple(filters))
