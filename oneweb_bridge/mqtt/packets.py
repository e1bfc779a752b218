"""The MQTT packets that the connection writes and reads itself: PUBLISH with QoS 0 and 1, and PUBACK. Pure.

All lengths of MQTT that are not fixed are variable byte integers: seven bits a byte, the lowest first.
`encode_length` and `decode_length` are the only places that know it. Source: MQTT 5, 1.5.5.
"""

from functools import lru_cache

import msgspec

from oneweb_bridge.model.records import Message

PUBLISH, PUBACK = 0x30, 0x40
"""First bytes of packets; that of a PUBLISH has its flags in the lower half. Source: MQTT 5, 2.1."""
MAX_REMAINING_LENGTH = 268_435_455
"""Bytes that a packet may have behind its length. Source: MQTT 5, 2.1.4."""
MAX_TOPIC_BYTES = 0xFFFF
"""Source: MQTT 5, 1.5.4."""
MAX_REASON_CHARACTERS = 200
"""How much of a broker's reason string is shown."""

_REASON_STRING, _USER_PROPERTY = 0x1F, 0x26
"""The properties that a PUBACK may have. Source: MQTT 5, 3.4.2.2."""


class MalformedPacket(ValueError):
    """Bytes that are no MQTT: the connection cannot be used any more."""


class Puback(msgspec.Struct, frozen=True, gc=False):
    """The broker's answer to one message; on MQTT 3.1.1 it has a packet id alone."""

    packet_id: int
    code: int = 0
    reason: str = ""


@lru_cache(maxsize=4096)
def encode_length(size: int) -> bytes:
    """A length as a variable byte integer. Most messages are as long as many others."""
    encoded = bytearray()
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded)


def decode_length(buffer: bytes, at: int) -> tuple[int, int] | None:
    """The variable byte integer at a position and the position behind it; None where bytes are still missing.

    Raises MalformedPacket for one of more than four bytes.
    """
    size = 0
    for index, byte in enumerate(buffer[at : at + 4]):
        size |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return size, at + index + 1
    if len(buffer) - at >= 4:
        raise MalformedPacket("the broker sent a length of more than four bytes")
    return None


def encode_publish(packet_id: int, message: Message, properties: bytes) -> bytes:
    """A PUBLISH with QoS 1. Raises ValueError for one that cannot be. Source: MQTT 5, 3.3."""
    topic = message.topic.encode()
    size = 4 + len(topic) + len(properties) + len(message.payload)
    if len(topic) > MAX_TOPIC_BYTES or size > MAX_REMAINING_LENGTH:
        raise ValueError(f"{len(message.payload)} bytes on a topic of {len(topic)} are more than MQTT has room for")
    start = bytes((PUBLISH | 0x02 | message.retain,)) + encode_length(size)
    numbers = len(topic).to_bytes(2, "big"), packet_id.to_bytes(2, "big")
    return b"".join((start, numbers[0], topic, numbers[1], properties, message.payload))


def encode_unconfirmed_publish(topic: str, payload: bytes, properties: bytes) -> bytes:
    """A PUBLISH with QoS 0, which nobody answers, not retained. Raises ValueError for one that cannot be."""
    encoded = topic.encode()
    size = 2 + len(encoded) + len(properties) + len(payload)
    if len(encoded) > MAX_TOPIC_BYTES or size > MAX_REMAINING_LENGTH:
        raise ValueError(f"{len(payload)} bytes on a topic of {len(encoded)} are more than MQTT has room for")
    start = bytes((PUBLISH,)) + encode_length(size)
    return b"".join((start, len(encoded).to_bytes(2, "big"), encoded, properties, payload))


def find_packet_end(buffer: bytes, at: int) -> tuple[int, int] | None:
    """Where the body of the packet at a position begins and ends; None until it is whole. Raises MalformedPacket."""
    length = decode_length(buffer, at + 1)
    if length is None or length[1] + length[0] > len(buffer):
        return None
    return length[1], length[1] + length[0]


def next_puback(buffer: bytes, at: int) -> tuple[Puback, int] | None:
    """The PUBACK at a position, and the position behind it; None where it is not whole, or another packet.

    Raises MalformedPacket.
    """
    if at + 4 > len(buffer) or buffer[at] != PUBACK:
        return None
    size, end = buffer[at + 1], at + 2 + buffer[at + 1]
    if 2 <= size <= 3 and end <= len(buffer):
        # Nearly all: a packet id, and perhaps a code.
        return Puback(buffer[at + 2] << 8 | buffer[at + 3], buffer[at + 4] if size > 2 else 0), end
    body = find_packet_end(buffer, at)
    answer = None if body is None else decode_puback(buffer[body[0] : body[1]])
    return None if body is None or answer is None else (answer, body[1])


def decode_puback(body: bytes) -> Puback | None:
    """The answer in the body of a PUBACK, or None when it is too short to be one. Source: MQTT 5, 3.4."""
    if len(body) < 2:
        return None
    packet_id = int.from_bytes(body[:2], "big")
    if len(body) < 3:
        return Puback(packet_id)
    return Puback(packet_id, body[2], _reason_string(body[3:]) if len(body) > 3 else "")


def _reason_string(properties: bytes) -> str:
    """The reason string among a PUBACK's properties; empty where there is none, or where they cannot be read."""
    try:
        length = decode_length(properties, 0)
    except MalformedPacket:
        return ""
    size, at = length or (0, 0)
    end = min(at + size, len(properties))
    while at < end:
        kind, at = properties[at], at + 1
        if kind not in (_REASON_STRING, _USER_PROPERTY):
            return ""
        text, at = _text(properties, at)
        if kind == _REASON_STRING:
            return shown(text)
        _, at = _text(properties, at)
    return ""


def _text(buffer: bytes, at: int) -> tuple[str, int]:
    """A text with its length before it, and the position behind it."""
    end = at + 2 + int.from_bytes(buffer[at : at + 2], "big")
    return buffer[at + 2 : end].decode(errors="replace"), end


def shown(text: str) -> str:
    """A text of the broker as it may stand in a log: one short line, nothing that a terminal would obey."""
    line = "".join(each if each.isprintable() else " " for each in text[: 2 * MAX_REASON_CHARACTERS])
    return " ".join(line.split())[:MAX_REASON_CHARACTERS]
