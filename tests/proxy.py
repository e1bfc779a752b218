"""A TCP proxy between the bridge and its broker that breaks what may break there, on demand.

It reads the stream as MQTT packets, so that it can cut after so many messages, keep PUBACKs back, or
change their reason codes; and it notes what the broker has acknowledged, which is what the bridge
may forget.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from tests.cancelling import end_tasks
from tests.recording import Taken

CONNECT, PUBLISH, PUBACK, SUBACK, UNSUBACK = 1, 3, 4, 9, 11
Bend = Callable[[str], int | None]
"""From a topic to the reason code that its PUBACK shall have; -1 keeps the PUBACK back; None lets it pass."""


class Proxy:
    """Its members are the faults in force; they may be changed at any time."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.taken: list[Taken] = []
        self.connections = 0
        self.wills: list[bool] = []
        """Of each connection, whether it gave a will."""
        self.cuts = 0
        self.published = 0
        self.is_open = True
        """Whether new connections are let through; else they are closed at once."""
        self.swallows = False
        """Whether what comes is thrown away in both directions; such a connection stays dead."""
        self.is_mute = False
        """Whether the messages that the broker delivers are thrown away."""
        self.cut_after: Callable[[], int] | None = None
        """After how many messages of a connection it is cut, in the middle of the next."""
        self.rate: float | None = None
        """Bytes per second in each direction."""
        self.late = 0.0
        """Seconds by which acknowledgements are late: of messages and of subscriptions."""
        self.bend: Bend | None = None
        self.refuse: Bend | None = None
        """From a topic to the reason code with which its message is refused, without the broker seeing it."""
        self.ends_after_refusal = False
        """Whether such a refusal is the last that comes of its connection, as mosquitto does with limited queues."""
        self.reason = ""
        """The reason that such a refusal gives in words."""
        self.garbles: Callable[[], bytes] | None = None
        """What is put before a packet of the broker, which the bridge then cannot read."""
        self._target = target
        self._ends: set[asyncio.StreamWriter] = set()

    def sever(self) -> None:
        """Cuts every connection now."""
        for end in self._ends:
            end.transport.abort()

    def mend(self) -> None:
        """Lets everything through again."""
        self.is_open, self.swallows, self.is_mute, self.rate, self.late = True, False, False, None, 0.0
        self.cut_after = self.bend = self.refuse = self.garbles = None
        self.ends_after_refusal = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection through the proxy."""
        if not self.is_open:
            writer.transport.abort()
            return
        self.connections += 1
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, there_writer}
        self._ends |= ends
        way = _Connection(self)
        tasks = [
            asyncio.create_task(way.up(reader, there_writer, writer), name="proxy up"),
            asyncio.create_task(way.down(there_reader, writer), name="proxy down"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(*tasks)
            self._ends -= ends
            for end in ends:
                # Not aborted: what was passed on before the end still arrives.
                end.close()


class _Connection:
    """One connection: what it has seen, and when it is to be cut."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._modern = True
        self._sent: dict[int, Taken] = {}
        self._left = proxy.cut_after() if proxy.cut_after else None
        self._is_dead = False

    async def up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter) -> None:
        """From the bridge to the broker; refusals go back."""
        async for packet in _packets(reader):
            kind = packet[0] >> 4
            if kind == CONNECT:
                # Length and name of the protocol, then its level.
                self._modern = packet[_body_at(packet) + 6] == 5
                self._proxy.wills.append(bool(packet[_body_at(packet) + 7] & 0x04))
            if kind == PUBLISH and not self._note(packet):
                writer.write(packet[: len(packet) // 2])
                self._proxy.cuts += 1
                return
            refusal = self._refusal(packet) if kind == PUBLISH else b""
            await self._pass(refusal or packet, back if refusal else writer)
            if refusal and self._proxy.ends_after_refusal:
                await self._end(reader, back)
                return

    async def _end(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """Says the end behind what was passed back, and waits for the other side to close.

        Closed at once, with something that nobody has read, it would be reset, and the refusal might be lost.
        """
        self._is_dead = True
        with contextlib.suppress(OSError):
            back.write_eof()
        async for _ in _packets(reader):
            pass

    def _refusal(self, packet: bytes) -> bytes:
        """The PUBACK that refuses a message, or nothing. Source: MQTT 5, 3.4."""
        refuse = self._proxy.refuse
        mid, message = _message(packet, modern=self._modern)
        code = refuse(message.topic) if refuse and mid and self._modern else None
        if code is None:
            return b""
        self._sent.pop(mid, None)
        text = self._proxy.reason.encode()
        words = b"\x1f" + len(text).to_bytes(2, "big") + text if text else b""
        body = mid.to_bytes(2, "big") + bytes((code,)) + _length(len(words)) + words
        return bytes((PUBACK << 4,)) + _length(len(body)) + body

    def _note(self, packet: bytes) -> bool:
        """Remembers a message. Returns False when the connection is to be cut within it."""
        self._proxy.published += 1
        mid, message = _message(packet, modern=self._modern)
        if mid:
            self._sent[mid] = message
        if self._left is None or self._proxy.cut_after is None:
            return True
        self._left -= 1
        return self._left >= 0

    async def down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From the broker to the bridge."""
        async with asyncio.TaskGroup() as late:
            async for packet in _packets(reader):
                if self._proxy.garbles:
                    await self._pass(self._proxy.garbles(), writer)
                if packet[0] >> 4 == PUBLISH and self._proxy.is_mute:
                    continue
                if packet[0] >> 4 in (SUBACK, UNSUBACK) and self._proxy.late:
                    late.create_task(self._pass_later(packet, writer), name="late SUBACK")
                    continue
                if packet[0] >> 4 != PUBACK:
                    await self._pass(packet, writer)
                    continue
                bent = self._acknowledged(packet)
                if bent and self._proxy.late:
                    late.create_task(self._pass_later(bent, writer), name="late PUBACK")
                elif bent:
                    await self._pass(bent, writer)

    def _acknowledged(self, packet: bytes) -> bytes:
        """The PUBACK as the bridge shall see it; empty when it shall not."""
        at = _body_at(packet)
        mid = int.from_bytes(packet[at : at + 2], "big")
        code = packet[at + 2] if len(packet) > at + 2 else 0
        message = self._sent.pop(mid, None)
        if message is None:
            return packet
        if code < 0x80:
            self._proxy.taken.append(Taken(time.time(), message.topic, message.payload, message.retain))
        wanted = self._proxy.bend(message.topic) if self._proxy.bend else None
        if wanted is None:
            return packet
        return b"" if wanted < 0 else bytes((PUBACK << 4, 3, *mid.to_bytes(2, "big"), wanted))

    async def _pass_later(self, packet: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self._proxy.late)
        await self._pass(packet, writer)

    async def _pass(self, packet: bytes, writer: asyncio.StreamWriter) -> None:
        self._is_dead = self._is_dead or self._proxy.swallows
        if self._is_dead:
            return
        if self._proxy.rate:
            await asyncio.sleep(len(packet) / self._proxy.rate)
        with contextlib.suppress(ConnectionError):
            writer.write(packet)
            await writer.drain()


async def _packets(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The packets of a stream until it ends. Source: MQTT 5, 2.1."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            packet = bytearray(await reader.readexactly(1))
            length, shift = 0, 0
            while True:
                (byte,) = await reader.readexactly(1)
                packet.append(byte)
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            packet += await reader.readexactly(length)
            yield bytes(packet)


def _length(number: int) -> bytes:
    """A variable byte integer. Source: MQTT 5, 1.5.5."""
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def _body_at(packet: bytes) -> int:
    """Where the variable header begins."""
    at = 1
    while packet[at] >= 0x80:
        at += 1
    return at + 1


def _message(packet: bytes, *, modern: bool) -> tuple[int, Taken]:
    """Packet id (0 without QoS) and content of a PUBLISH. Source: MQTT 5, 3.3."""
    at = _body_at(packet)
    end = at + 2 + int.from_bytes(packet[at : at + 2], "big")
    topic, mid = packet[at + 2 : end].decode(), 0
    if packet[0] & 0x06:
        mid = int.from_bytes(packet[end : end + 2], "big")
        end += 2
    if modern:
        length, shift, byte = 0, 0, 0x80
        while byte >= 0x80:
            byte = packet[end]
            length |= (byte & 0x7F) << shift
            shift += 7
            end += 1
        end += length
    return mid, Taken(time.time(), topic, packet[end:], bool(packet[0] & 0x01))


@contextlib.asynccontextmanager
async def between(target: int) -> AsyncIterator[Proxy]:
    """A proxy in front of the broker at `target`, on a port of its own."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.is_open = False
        server.close()
        proxy.sever()
        await asyncio.sleep(0)
