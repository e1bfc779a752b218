"""A raw QoS 0 subscriber, which costs so little that it can be in the process that measures."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

from bench import floor


class Subscriber(asyncio.Protocol):
    """Counts messages, and notes when each came where `noting`; it reads no more of them than their topic.

    It acknowledges at once what the broker sends: one that waits for more, as TCP may, keeps the broker's next message
    waiting for 40 ms.
    """

    def __init__(self, topics: str, *, noting: bool = False) -> None:
        self.count = 0
        self.first = self.last = 0.0
        self.arrivals: list[tuple[str, float]] = []
        self.ready = asyncio.Event()
        self.lost = False
        self._noting = noting
        self._subscribe = b"\x00\x01" + floor._field(topics.encode()) + b"\x00"
        self._left = b""
        self._socket: socket.socket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Signs in and subscribes."""
        assert isinstance(transport, asyncio.Transport)
        self._socket = transport.get_extra_info("socket")
        transport.write(floor.connect(f"subscriber-{id(self)}") + floor._packet(0x82, self._subscribe))

    def data_received(self, data: bytes) -> None:
        """Counts what is complete."""
        data, now, at, count = self._left + data, time.perf_counter(), 0, self.count
        if self._socket is not None and hasattr(socket, "TCP_QUICKACK"):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        while (packet := _packet(data, at)) is not None:
            body, end = packet
            if data[at] >> 4 == 3:
                count += 1
                if self._noting:
                    self.arrivals.append((_topic(data, body), now))
            elif data[at] == 0x90:
                self.ready.set()
            at = end
        self._left = data[at:]
        if count > self.count:
            self.first, self.last, self.count = self.first or now, now, count

    def connection_lost(self, _: Exception | None) -> None:
        """Notes that nothing more will come."""
        self.lost = True

    def reset(self) -> None:
        """Counts from 0."""
        self.count, self.first, self.last = 0, 0.0, 0.0
        self.arrivals.clear()


def _packet(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the body of the MQTT packet at `at` begins and ends, or None when it is not all there."""
    size = shift = 0
    for position in range(at + 1, min(at + 5, len(data))):
        size |= (data[position] & 0x7F) << shift
        shift += 7
        if data[position] < 0x80:
            end = position + 1 + size
            return (position + 1, end) if end <= len(data) else None
    return None


def _topic(data: bytes, body: int) -> str:
    size = int.from_bytes(data[body : body + 2], "big")
    return data[body + 2 : body + 2 + size].decode()


@contextlib.asynccontextmanager
async def subscribe(port: int, topics: str, *, noting: bool = False) -> AsyncIterator[Subscriber]:
    """A subscriber to `topics`."""
    subscriber = Subscriber(topics, noting=noting)
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: subscriber, "127.0.0.1", port)
    try:
        await asyncio.wait_for(subscriber.ready.wait(), 10)
        yield subscriber
    finally:
        transport.close()
