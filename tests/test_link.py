"""The link's own way of writing and reading, against a broker made of bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiomqtt
import pytest

from oneweb_bridge import broker
from oneweb_bridge.link import Link
from oneweb_bridge.model import Message
from oneweb_bridge.settings import Mqtt

CONNACK = {"5": b"\x20\x03\x00\x00\x00", "3.1.1": b"\x20\x02\x00\x00"}
Respond = Callable[[list[bytes], asyncio.StreamWriter], Any]


class Bytes:
    """A broker that welcomes, and answers as it is told. `packets` has what came, whole."""

    def __init__(self, protocol: str, respond: Respond) -> None:
        self.packets: list[bytes] = []
        self.left = asyncio.Event()
        self._protocol = protocol
        self._respond = respond

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._packet(reader)
            writer.write(CONNACK[self._protocol])
            while True:
                packet = await self._packet(reader)
                if packet[0] >> 4 == 14:
                    break
                self.packets.append(packet)
                await self._respond(self.packets, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.left.set()

    async def _packet(self, reader: asyncio.StreamReader) -> bytes:
        first, size, shift = await reader.readexactly(1), 0, 0
        while True:
            byte = (await reader.readexactly(1))[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return first + await reader.readexactly(size)


@contextlib.asynccontextmanager
async def linked(protocol: Any, respond: Respond) -> AsyncIterator[tuple[Link, Bytes, list[tuple[int, int, str]]]]:
    """A connection to a broker of bytes, and the answers that it has heard."""
    answers: list[tuple[int, int, str]] = []
    made = Bytes(protocol, respond)
    server = await asyncio.start_server(made.serve, "127.0.0.1", port := broker.free_port())
    settings = Mqtt(host="127.0.0.1", port=port, protocol=protocol)
    will = Message("will", b"{}", retain=True)
    async with server:
        async with Link(settings, "link-test", will, lambda *said: answers.append(said)) as link:
            yield link, made, answers
        await asyncio.wait_for(made.left.wait(), 10)


async def until(true: Callable[[], bool]) -> None:
    """Waits until something holds."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


def ids(packets: list[bytes]) -> list[bytes]:
    """The packet ids of PUBLISH packets."""
    return [packet[3 + int.from_bytes(packet[1:3], "big") :][:2] for packet in packets]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("piece", [1, 2, 3, 5, 7, 1000])
async def test_answers_are_heard_however_they_are_cut(protocol: str, piece: int) -> None:
    """PUBACKs in pieces of any size, several in one, between packets for paho: each is heard once, in order."""
    count = 6
    tails = [b"", b"\x00", b"\x10\x00", b"", b"\x87", b"\x00\x00"] if protocol == "5" else [b""] * count

    async def respond(packets: list[bytes], writer: asyncio.StreamWriter) -> None:
        if len(packets) < count:
            return
        said = [b"\x40" + bytes([2 + len(tail)]) + id + tail for id, tail in zip(ids(packets), tails, strict=True)]
        said.insert(3, b"\xd0\x00")
        stream = b"".join(said)
        for at in range(0, len(stream), piece):
            writer.write(stream[at : at + piece])
            await writer.drain()
            await asyncio.sleep(0.002)

    async with linked(protocol, respond) as (link, _, answers):
        sent = [link.send(Message(f"t/{number}", b"{}", retain=False)) for number in range(count)]
        await until(lambda: len(answers) == count)

    assert [mid for mid, _, _ in answers] == sent
    assert [code for _, code, _ in answers] == [tail[0] if tail else 0 for tail in tails]
    assert [bool(reason) for _, _, reason in answers] == [tail[:1] == b"\x87" for tail in tails]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_what_is_sent_at_once_is_written_whole(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages of one turn of the loop leave in one write, in order, with topic, flags, properties and payload."""
    writes = 0

    async def respond(_: list[bytes], __: asyncio.StreamWriter) -> None:
        pass

    payloads = [b"", b"{}", b"x" * 127, b"y" * 20_000, b"z" * 3_000_000]
    async with linked(protocol, respond) as (link, made, _):
        real = link._paho_send

        def counting(buf: bytes | bytearray) -> int:
            nonlocal writes
            writes += 1
            return real(buf)

        monkeypatch.setattr(link, "_paho_send", counting)
        small = payloads[:4]
        mids = [link.send(Message(f"t/{n}", payload, retain=n % 2 == 1)) for n, payload in enumerate(small)]
        await until(lambda: len(made.packets) == len(small))
        assert writes == 1
        mids.append(link.send(Message("t/4", payloads[4], retain=False)))
        await until(lambda: len(made.packets) == len(payloads))

    for number, (packet, payload) in enumerate(zip(made.packets, payloads, strict=True)):
        assert packet[0] == 0x32 | number % 2
        assert packet[1:6] == b"\x00\x03t/" + str(number).encode()
        assert int.from_bytes(packet[6:8], "big") == mids[number]
        properties = b"" if protocol == "3.1.1" else b"\x00" if not payload else packet[8 : 9 + packet[8]]
        assert (b"application/json" in properties) is (protocol == "5" and payload != b"")
        assert packet[8:] == properties + payload


async def test_packet_id_of_a_message_on_its_way_is_not_given_again() -> None:
    """After 65,535 ids the next message gets one that is free, and no message can be sent when the link is gone."""

    async def respond(_: list[bytes], __: asyncio.StreamWriter) -> None:
        pass

    async with linked("5", respond) as (link, made, _):
        waiting = link.send(Message("t", b"{}", retain=False))
        link._client._last_mid = waiting - 1
        assert link.send(Message("t", b"{}", retain=False)) == waiting + 1
        await until(lambda: len(made.packets) == 2)
    with pytest.raises(aiomqtt.MqttError):
        link.send(Message("t", b"{}", retain=False))


async def test_message_that_mqtt_has_no_room_for_is_refused() -> None:
    """A topic of more than 65,535 bytes is refused before anything is written."""

    async def respond(_: list[bytes], __: asyncio.StreamWriter) -> None:
        pass

    async with linked("5", respond) as (link, made, _):
        with pytest.raises(ValueError, match="room"):
            link.send(Message("t" * 65_536, b"{}", retain=False))
        link.send(Message("t", b"{}", retain=False))
        await until(lambda: len(made.packets) == 1)


async def test_link_with_nothing_to_write_does_not_watch_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of our packets and one of paho's in one turn: once both are written, the event loop has its rest."""
    writes = 0

    async def respond(packets: list[bytes], writer: asyncio.StreamWriter) -> None:
        if packets[-1][0] >> 4 == 8:
            writer.write(b"\x90\x04" + packets[-1][1:3] + b"\x00\x01")

    async with linked("5", respond) as (link, made, _):
        real = link._write

        def counting() -> None:
            nonlocal writes
            writes += 1
            real()

        monkeypatch.setattr(link, "_write", counting)
        for number in range(20):
            wanted = len(made.packets) + 2
            link.send(Message("t", b"{}", retain=False))
            link._client.subscribe(f"t/{number}")
            async with asyncio.timeout(10):
                while len(made.packets) < wanted:
                    await asyncio.sleep(0.01)
        written = writes
        for _ in range(50):
            await asyncio.sleep(0.002)
    assert writes - written <= 1
