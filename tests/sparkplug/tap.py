"""A TCP proxy between the bridge and its broker that changes nothing and writes down every packet."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

from tests.cancelling import end_tasks
from tests.sparkplug.wire import Closed, Connect, Event, Note, Opened, Packet, Trace, read_packet


class Tap:
    """The events so far, of all connections, in their order."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.events: list[Event] = []
        self.has_news = asyncio.Event()
        """Set at each event."""
        self._target = target
        self._numbers = count(1)
        self._writers: set[asyncio.StreamWriter] = set()

    def trace(self, primary_host: str | None = None) -> Trace:
        """Everything until now."""
        return Trace(tuple(self.events), primary_host)

    def note(self, what: Any, device: str = "", metric: str = "", value: Any = None) -> None:
        """Writes down what a scenario does beside the wire."""
        self.add(0, Note(what, device, metric, value), up=True)

    def add(self, connection: int, packet: Packet, *, up: bool) -> None:
        """Writes down one event."""
        self.events.append(Event(time.time(), connection, up, packet))
        self.has_news.set()

    def sever(self) -> None:
        """Cuts every connection now."""
        for writer in self._writers:
            writer.transport.abort()

    async def until(self, true: Callable[[], Any], patience: float = 60.0) -> Any:
        """Waits until something holds, looking after each event. Returns what it gave."""
        async with asyncio.timeout(patience):
            while not (result := true()):
                self.has_news.clear()
                await self.has_news.wait()
            return result

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. Its CONNECT is written down also when the broker is not there."""
        number, writers = next(self._numbers), {writer}
        self._writers.add(writer)
        self.add(number, Opened(), up=True)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                first = await read_bytes(reader)
                packet = read_packet(first, 4)
                level = packet.level if isinstance(packet, Connect) else 4
                self.add(number, packet, up=True)
                broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._target)
                writers.add(broker_writer)
                self._writers.add(broker_writer)
                broker_writer.write(first)
                await self._pass_both(number, level, (reader, broker_writer), (broker_reader, writer))
        finally:
            self._writers -= writers
            for end in writers:
                end.close()
            self.add(number, Closed(), up=True)

    async def _pass_both(self, number: int, level: int, up: "_Way", down: "_Way") -> None:
        """Passes packets until one side has ended."""
        tasks = [
            asyncio.create_task(self._pass(number, level, up, is_up=True), name="tap up"),
            asyncio.create_task(self._pass(number, level, down, is_up=False), name="tap down"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(*tasks)

    async def _pass(self, number: int, level: int, way: "_Way", *, is_up: bool) -> None:
        reader, writer = way
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                packet = await read_bytes(reader)
                self.add(number, read_packet(packet, level), up=is_up)
                writer.write(packet)
                await writer.drain()


_Way = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def read_bytes(reader: asyncio.StreamReader) -> bytes:
    """The next packet of a stream. Raises IncompleteReadError at its end."""
    packet = bytearray(await reader.readexactly(1))
    length, shift = 0, 0
    while True:
        (byte,) = await reader.readexactly(1)
        packet.append(byte)
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return bytes(packet + await reader.readexactly(length))


@contextlib.asynccontextmanager
async def tapped(target: int) -> AsyncIterator[Tap]:
    """A tap in front of the broker at `target`, on a port of its own."""
    tap = Tap(target)
    server = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
    tap.port = server.sockets[0].getsockname()[1]
    try:
        yield tap
    finally:
        server.close()
        tap.sever()
        await asyncio.sleep(0)
