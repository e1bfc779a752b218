"""The floor of publishing: QoS 1 over one socket, by hand, with a window and nothing else. Source: MQTT 3.1.1."""

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


async def drain(port: int, messages: list[tuple[bytes, bytes, bool]], window: int = 1000) -> None:
    """Publishes all messages and returns with the last PUBACK."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(connect("floor"))
    await reader.readexactly(4)
    sent = done = 0
    while done < len(messages):
        batch = []
        while sent < len(messages) and sent - done < window:
            topic, payload, retain = messages[sent]
            batch.append(publish(topic, sent % 65535 + 1, payload, retain=retain))
            sent += 1
        if batch:
            writer.write(b"".join(batch))
        answer = await reader.read(65536)
        answer += await reader.readexactly(-len(answer) % 4)
        done += len(answer) // 4
    writer.close()
