"""The link's own way of writing and reading, against a broker made of bytes."""

import asyncio
import contextlib
import gc
import itertools
import logging
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiomqtt
import pytest

from oneweb_bridge.config.schema import Mqtt
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.records import Message
from oneweb_bridge.mqtt import packets
from oneweb_bridge.mqtt.broker_errors import TakenOver
from oneweb_bridge.mqtt.link import MqttConnection, Received, require_qos

pytestmark = pytest.mark.filterwarnings("error")
CONNACK = {"5": b"\x20\x03\x00\x00\x00", "3.1.1": b"\x20\x02\x00\x00"}
Respond = Callable[[list[bytes], asyncio.StreamWriter], Any]


class Bytes:
    """A broker that welcomes, and answers as it is told. `packets` has what came, whole."""

    def __init__(self, protocol: str, respond: Respond) -> None:
        self.connack = CONNACK[protocol]
        self.connect = b""
        self.packets: list[bytes] = []
        self.left = asyncio.Event()
        self._respond = respond

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            self.connect = await self._packet(reader)
            writer.write(self.connack)
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
async def linked(
    protocol: Any, respond: Respond
) -> AsyncIterator[tuple[MqttConnection, Bytes, list[tuple[int, int, str]]]]:
    """A connection to a broker of bytes, and the answers that it has heard."""
    answers: list[tuple[int, int, str]] = []
    made = Bytes(protocol, respond)
    server = await asyncio.start_server(made.serve, "127.0.0.1", port := mosquitto.free_port())
    settings = Mqtt(host="127.0.0.1", port=port, protocol=protocol)
    will = Message("will", b"{}", retain=True)
    async with server:
        async with MqttConnection(settings, "link-test", lambda *answer: answers.append(answer), will=will) as link:
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
async def test_fragmented_pubacks_are_handled_once_and_in_order(protocol: str, piece: int) -> None:
    """PUBACKs in pieces of any size, several in one, between packets for paho: each is heard once, in order."""
    count = 6
    tails = [b"", b"\x00", b"\x10\x00", b"", b"\x87", b"\x00\x00"] if protocol == "5" else [b""] * count

    async def respond(packets: list[bytes], writer: asyncio.StreamWriter) -> None:
        if len(packets) < count:
            return
        chunks = [b"\x40" + bytes([2 + len(tail)]) + id + tail for id, tail in zip(ids(packets), tails, strict=True)]
        chunks.insert(3, b"\xd0\x00")
        stream = b"".join(chunks)
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
        real = link._io._paho_send

        def counting(buf: bytes | bytearray) -> int:
            nonlocal writes
            writes += 1
            return real(buf)

        monkeypatch.setattr(link._io, "_paho_send", counting)
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


async def test_socket_writer_is_removed_when_nothing_is_left_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of our packets and one of paho's in one turn: once both are written, the event loop has its rest."""
    writes = 0

    async def respond(packets: list[bytes], writer: asyncio.StreamWriter) -> None:
        if packets[-1][0] >> 4 == 8:
            writer.write(b"\x90\x04" + packets[-1][1:3] + b"\x00\x01")

    async with linked("5", respond) as (link, made, _):
        real = link._io.write

        def counting() -> None:
            nonlocal writes
            writes += 1
            real()

        monkeypatch.setattr(link._io, "write", counting)
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


def refusal(packet_id: bytes, code: int, reason: str, *more: tuple[str, str]) -> bytes:
    """A PUBACK with a reason string and user properties, as brokers write them."""
    properties = b"\x1f" + text(reason) if reason else b""
    properties += b"".join(b"\x26" + text(name) + text(value) for name, value in more)
    body = packet_id + bytes((code,)) + packets.encode_length(len(properties)) + properties
    return b"\x40" + packets.encode_length(len(body)) + body


def text(content: str) -> bytes:
    """A text as MQTT writes it."""
    return len(content.encode()).to_bytes(2, "big") + content.encode()


SIZES = [*range(100, 135), *range(16_360, 16_400)]
"""Lengths of reason strings that bring the properties, and the packet, over 127 and 16,383 bytes."""


@pytest.mark.parametrize("size", SIZES)
def test_length_of_any_size_is_read_as_it_is_written(size: int) -> None:
    """A PUBACK of any size is found whole, with its code and reason, and at no byte before its end."""
    packet = refusal(b"\x01\x02", 0x97, "q" * size)
    for cut in {*range(1, 8), size // 2, len(packet) - 1}:
        assert packets.find_packet_end(packet[:cut], 0) is None
    end = packets.find_packet_end(packet + b"\x40\x02\x00\x03", 0)
    assert end is not None
    answer = packets.decode_puback(packet[end[0] : end[1]])

    assert end[1] == len(packet)
    assert answer == packets.Puback(0x0102, 0x97, "q" * min(size, packets.MAX_REASON_CHARACTERS))


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_next_puback_is_whole_and_nothing_else(protocol: str) -> None:
    """PUBACKs of each form are found one after the other, and none in what is cut or another packet."""
    short = [b"\x40\x02\x01\x02"]
    if protocol == "5":
        short += [b"\x40\x03\x01\x02\x10", b"\x40\x04\x01\x02\x87\x00", refusal(b"\x01\x02", 0x97, "full")]
    expected = [
        packets.Puback(0x0102, code, reason) for code, reason in ((0, ""), (0x10, ""), (0x87, ""), (0x97, "full"))
    ]
    stream, at = b"".join(short) + b"\xd0\x02\x01\x02", 0
    for packet, answer in zip(short, expected, strict=False):
        assert packets.next_puback(stream, at) == (answer, at + len(packet))
        for cut in range(len(packet)):
            assert packets.next_puback(stream[: at + cut], at) is None
        at += len(packet)
    assert packets.next_puback(stream, at) is None


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, packets.MAX_REMAINING_LENGTH])
def test_length_survives_the_way_there_and_back(size: int) -> None:
    """Each length has one form of one to four bytes, and half of it says nothing yet."""
    encoded = packets.encode_length(size)
    assert packets.decode_length(b"x" + encoded + b"\xff", 1) == (size, 1 + len(encoded))
    assert packets.decode_length(encoded[:-1], 0) is None
    with pytest.raises(packets.MalformedPacket):
        packets.decode_length(b"\x80\x80\x80\x80\x01", 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01",
        b"\x00\x01\x87",
        b"\x00\x01\x87\x80",
        b"\x00\x01\x87\xff\xff\xff\xff\x7f",
        b"\x00\x01\x87\x04\x1f\x00\x09a",
    ],
)
def test_puback_that_is_cut_or_wrong_inside_keeps_its_code(body: bytes) -> None:
    """Properties that cannot be read take neither the code away nor the connection."""
    answer = packets.decode_puback(body)
    assert answer is None if len(body) < 2 else answer is not None and answer.code == 0x87


SIZES_AND_PIECES = [
    *itertools.product((3, 119, 120, 121, 122, 123, 124), (1, 3, 128, 130, 100_000)),
    *itertools.product((16_375, 16_384), (128, 130, 100_000)),
]
"""Characters of a refusal's reason, and bytes that come at once; long ones byte by byte would take seconds."""


@pytest.mark.parametrize(("size", "piece"), SIZES_AND_PIECES)
async def test_long_refusals_are_heard_as_refusals(size: int, piece: int) -> None:
    """Refusals with long words between plain answers: each answer is heard once, in order, with its code and words."""
    count = 5

    async def respond(received: list[bytes], writer: asyncio.StreamWriter) -> None:
        if len(received) < count:
            return
        packets_sent = [
            refusal(id, 0x97, "q" * size, ("node", "n1")) if number % 2 else b"\x40\x02" + id
            for number, id in enumerate(ids(received))
        ]
        stream = b"".join(packets_sent)
        for at in range(0, len(stream), piece):
            writer.write(stream[at : at + piece])
            await writer.drain()
            await asyncio.sleep(0)

    async with linked("5", respond) as (link, _, answers):
        sent = [link.send(Message(f"t/{number}", b"{}", retain=False)) for number in range(count)]
        await until(lambda: len(answers) == count)

    assert [mid for mid, _, _ in answers] == sent
    assert [code for _, code, _ in answers] == [0, 0x97, 0, 0x97, 0]
    assert answers[1][2] == "Quota exceeded: " + "q" * min(size, packets.MAX_REASON_CHARACTERS)


def test_words_of_a_broker_are_one_short_line() -> None:
    """A reason string cannot write lines of its own into the log, nor colours."""
    assert packets.shown("no\n2026 info: all well\x1b[31m\0  !") == "no 2026 info: all well [31m !"


def suback(packet: bytes, *codes: int) -> bytes:
    """The answer to a SUBSCRIBE."""
    return b"\x90" + bytes((3 + len(codes),)) + packet[1:3] + b"\x00" + bytes(codes)


@pytest.mark.parametrize(("codes", "words"), [((1, 0x80), "subscription to b"), ((1,), "to b"), ((1, 0), "QoS 0 only")])
async def test_subscription_that_is_refused_is_an_error(codes: tuple[int, ...], words: str) -> None:
    """A SUBACK that refuses one filter, forgets it, or grants less than QoS 1, says which and what to do."""

    async def respond(received: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(suback(received[-1], *codes))

    async with linked("5", respond) as (link, _, _):
        with pytest.raises(aiomqtt.MqttError, match=words):
            await link.subscribe_to("a", "b")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_subscription_follows_what_was_sent_before(protocol: str) -> None:
    """Its answer proves that the broker has read everything before: also what was sent in the same turn of the loop."""

    async def respond(received: list[bytes], writer: asyncio.StreamWriter) -> None:
        if received[-1][0] >> 4 == 8:
            writer.write(suback(received[-1], 1) if protocol == "5" else b"\x90\x03" + received[-1][1:3] + b"\x01")

    async with linked(protocol, respond) as (link, made, _):
        for number in range(3):
            link.send_unconfirmed(f"t/{number}", b"x")
        await link.subscribe_to("commands")
        link.send_unconfirmed("t/3", b"x")
        await until(lambda: len(made.packets) == 5)
    assert [packet[0] >> 4 for packet in made.packets] == [3, 3, 3, 8, 3]


async def test_connection_of_311_listens_with_qos_0_and_asks_for_qos_1_once(caplog: pytest.LogCaptureFixture) -> None:
    """What it hears is asked for with QoS 0; a broker that grants no more for the probe is refused, also there."""
    packets_sent: list[bytes] = []

    async def respond(received: list[bytes], writer: asyncio.StreamWriter) -> None:
        packets_sent.append(received[-1])
        writer.write(b"\x90\x03" + received[-1][1:3] + bytes((0x80 if received[-1].endswith(b"c\0") else 0,)))

    async with linked("3.1.1", respond) as (link, _, _):
        await link.listen_to("a")
        with pytest.raises(aiomqtt.MqttError, match="QoS 0 only"):
            await require_qos(link, "b")
        with pytest.raises(aiomqtt.MqttError, match="subscription to c"):
            await link.listen_to("c")
    assert [packet[-1] for packet in packets_sent] == [0, 1, 0]


@pytest.mark.parametrize(
    ("connack", "words"),
    [
        (b"\x20\x05\x00\x00\x02\x25\x00", "does not keep retained"),
        (b"\x20\x05\x00\x00\x02\x24\x00", "QoS 0 only"),
        (b"\x20\x0b\x00\x87\x08\x1f\x00\x05ports", "Not authorized: ports"),
    ],
)
async def test_broker_that_cannot_be_used_says_why(connack: bytes, words: str) -> None:
    """No retained messages, no QoS 1, or a refusal with words: one sentence, and nothing stays open."""

    async def respond(_: list[bytes], __: asyncio.StreamWriter) -> None:
        pass

    made = Bytes("5", respond)
    made.connack = connack
    server = await asyncio.start_server(made.serve, "127.0.0.1", port := mosquitto.free_port())
    async with server:
        with pytest.raises(aiomqtt.MqttError, match=words):
            async with MqttConnection(Mqtt(host="127.0.0.1", port=port), "link-test"):
                pass
        await asyncio.wait_for(made.left.wait(), 10)


async def test_will_is_retained_only_where_it_says_so() -> None:
    """A will has the retain flag of its message, and a connection without one gives none."""

    async def respond(_: list[bytes], __: asyncio.StreamWriter) -> None:
        pass

    flags = []
    for will in (None, Message("w", b"{}", retain=False), Message("w", b"{}", retain=True)):
        made = Bytes("5", respond)
        server = await asyncio.start_server(made.serve, "127.0.0.1", port := mosquitto.free_port())
        async with server:
            async with MqttConnection(Mqtt(host="127.0.0.1", port=port), "link-test", will=will):
                pass
            await asyncio.wait_for(made.left.wait(), 10)
        flags.append(made.connect[8] & 0x24)

    assert flags == [0, 0x04, 0x24]


@pytest.mark.parametrize(
    ("packet", "kind", "words"),
    [
        (b"\xe0\x01\x8e", TakenOver, "Session taken over"),
        (b"\xe0\x0a\x97\x08\x1f\x00\x05today", aiomqtt.MqttError, "Quota exceeded: today"),
        (b"", aiomqtt.MqttError, "was lost"),
    ],
)
async def test_end_of_a_connection_says_why(packet: bytes, kind: type[Exception], words: str) -> None:
    """The reason of a DISCONNECT is told, which aiomqtt keeps for itself."""

    async def respond(_: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(packet)
        writer.close()

    async with linked("5", respond) as (link, _, _):
        link.send(Message("t", b"{}", retain=False))
        with pytest.raises(kind, match=words):
            await asyncio.wait_for(link.wait_for_end(), 10)


def publish(topic: bytes, payload: bytes = b"{}", properties: bytes = b"\0") -> bytes:
    """A PUBLISH with QoS 0."""
    body = len(topic).to_bytes(2, "big") + topic + properties + payload
    return b"\x30" + packets.encode_length(len(body)) + body


async def test_message_that_cannot_be_handled_is_set_aside(caplog: pytest.LogCaptureFixture) -> None:
    """A topic that is no UTF-8, and one whose handling fails, are told; the next message is handled."""
    received: list[Received] = []

    def on_message(message: Received) -> None:
        received.append(message)
        if message.topic == "bad":
            raise KeyError(message.topic)

    async def respond(_: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(
            publish(b"\xff\xfe") + publish(b"bad") + publish(b"good", b"1", b"\x0a\x08\x00\x01r\x09\x00\x03abc")
        )

    made = Bytes("5", respond)
    server = await asyncio.start_server(made.serve, "127.0.0.1", port := mosquitto.free_port())
    async with server:
        async with MqttConnection(Mqtt(host="127.0.0.1", port=port), "link-test", on_message=on_message) as link:
            link.send(Message("t", b"{}", retain=False))
            await until(lambda: len(received) == 2)
        await asyncio.wait_for(made.left.wait(), 10)

    assert received[1] == Received("good", b"1", False, "r", b"abc")
    assert sum("was set aside" in record.message for record in caplog.records) == 2


SUBACK, UNSUBACK = b"\x90\x04\x00\x63\x00\x00", b"\xb0\x04\x00\x63\x00\x00"
"""Answers with the packet id 99, of MQTT 5."""


async def test_answer_to_a_subscription_that_nobody_waits_for_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Who was told to end while it subscribes leaves before the broker has answered: no traceback in the log."""
    received: list[Received] = []

    async def respond(_: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(SUBACK + UNSUBACK + publish(b"after"))

    made = Bytes("5", respond)
    server = await asyncio.start_server(made.serve, "127.0.0.1", port := mosquitto.free_port())
    async with server:
        settings = Mqtt(host="127.0.0.1", port=port)
        async with MqttConnection(settings, "link-test", on_message=received.append) as link:
            link.send(Message("t", b"{}", retain=False))
            await until(lambda: len(received) == 1)
        await asyncio.wait_for(made.left.wait(), 10)

    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


STAGES = ("before the socket", "after the socket", "before CONNACK", "at CONNACK")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("times", [1, 2])
def test_connect_that_is_cancelled_leaves_nothing_behind(
    stage: str, times: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whenever a stop comes while it connects, the loop can be closed at once: no traceback, nothing open, no will."""
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    caplog.set_level(logging.DEBUG, "asyncio")
    asyncio.run(cancel_at(stage, times), debug=False)
    gc.collect()

    assert unraisable == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def cancel_at(stage: str, times: int) -> None:
    """Cancels a connect while it is at one stage, and lets what it waits for happen only then."""
    reached, may_go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(1)
        if stage == "before CONNACK":
            reached.set()
        elif stage == "at CONNACK" and first:
            writer.write(CONNACK["5"])
            reached.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(1000):
                pass
        writer.close()
        left.set()

    def pause(at: str) -> None:
        if stage == at:
            loop.call_soon_threadsafe(reached.set)
            may_go.wait(10)

    server = await asyncio.start_server(serve, "127.0.0.1", port := mosquitto.free_port())
    link = MqttConnection(Mqtt(host="127.0.0.1", port=port), "link-test", will=Message("w", b"{}", retain=True))
    real = link._client._create_socket_connection

    def create() -> socket.socket:
        pause("before the socket")
        made = real()
        pause("after the socket")
        return made

    link._client._create_socket_connection = create  # type: ignore[method-assign]

    async def connect() -> None:
        async with link:
            await asyncio.Event().wait()

    async with server:
        task = asyncio.create_task(connect())
        await asyncio.wait_for(reached.wait(), 10)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        may_go.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        await asyncio.wait_for(left.wait(), 10)
