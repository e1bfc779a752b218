"""The floor of publishing: QoS 1 over one socket, by hand, with a window and nothing else. Source: MQTT."""

import asyncio
import struct


def _field(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


def _packet(kind: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while True:
        size, digit = divmod(size, 128)
        length += bytes((digit | (0x80 if size else 0),))
        if not size:
            return bytes((kind,)) + length + body


def connect(name: str) -> bytes:
    """A CONNECT with a clean session and no will, to a broker that shall not ask for a sign of life."""
    return _packet(0x10, _field(b"MQTT") + b"\x04\x02\x00\x00" + _field(name.encode()))


def publish(topic: bytes, mid: int, payload: bytes, *, retain: bool = True) -> bytes:
    """A PUBLISH with QoS 1."""
    return _packet(0x33 if retain else 0x32, _field(topic) + struct.pack("!H", mid) + payload)


# ── MQTT 5, with what the bridge sends beside each message ─────────────────────────────────────

PROPERTIES = b"\x13\x03" + _field(b"application/json")
"""As long as it says: the content type. Source: MQTT 5, 3.3.2.3.9."""


def connect5(name: str) -> bytes:
    """The CONNECT of MQTT 5 with a clean session and no properties."""
    return _packet(0x10, _field(b"MQTT") + b"\x05\x02\x00\x00" + b"\x00" + _field(name.encode()))


def publish5(topic: bytes, mid: int, payload: bytes, *, retain: bool = True) -> bytes:
    """A PUBLISH of MQTT 5 with QoS 1 and the content type."""
    return _packet(0x33 if retain else 0x32, _field(topic) + struct.pack("!H", mid) + PROPERTIES + payload)


async def drain(port: int, messages: list[tuple[bytes, bytes, bool]], window: int) -> None:
    """Publishes all messages by MQTT 5 with so many in flight, and returns with the last PUBACK."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(connect5("floor"))
    answer = await reader.readexactly(2)
    await reader.readexactly(answer[1])
    sent = done = 0
    left = b""
    while done < len(messages):
        batch = []
        while sent < len(messages) and sent - done < window:
            topic, payload, retain = messages[sent]
            batch.append(publish5(topic, sent % 65535 + 1, payload, retain=retain))
            sent += 1
        if batch:
            writer.write(b"".join(batch))
        received = await reader.read(65536)
        if not received:
            raise ConnectionError("the broker closed the connection of the floor")
        count, left = count_packets(left + received)
        done += count
    writer.close()


def count_packets(data: bytes) -> tuple[int, bytes]:
    """How many whole packets of less than 128 bytes there are, as PUBACKs are, and what is left of the next."""
    count = at = 0
    while len(data) - at >= 2 and len(data) - at >= 2 + data[at + 1]:
        at += 2 + data[at + 1]
        count += 1
    return count, data[at:]
