"""The tap and what reads its bytes: MQTT 3.1.1 and 5 with a real mosquitto, and Sparkplug payloads of every kind."""

import asyncio
import struct

import aiomqtt
import paho.mqtt.properties
import pytest
from paho.mqtt.packettypes import PacketTypes

from oneweb_bridge.demo import mosquitto
from oneweb_bridge.sparkplug import sparkplug_b_pb2 as pb
from tests.sparkplug.reader import INT32, INT64, Unreadable, read_payload
from tests.sparkplug.tap import Tap, tapped
from tests.sparkplug.wire import Closed, Connack, Connect, Disconnect, Opened, Publish, Subscribe, Will

WILL = Will("spBv1.0/G/NDEATH/E", b"\x01\x02", 1, retain=False)


async def _converse(port: int, protocol: aiomqtt.ProtocolVersion) -> None:
    """Connects with a will, subscribes, publishes with each QoS, hears itself, and leaves."""
    properties = None
    is_5 = protocol is aiomqtt.ProtocolVersion.V5
    if is_5:
        properties = paho.mqtt.properties.Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
        properties.SessionExpiryInterval = 30
        properties.UserProperty = ("a", "b")
    will = aiomqtt.Will(WILL.topic, WILL.payload, WILL.qos, WILL.retain)
    async with aiomqtt.Client(
        "127.0.0.1", port, protocol=protocol, identifier="edge", will=will, properties=properties
    ) as client:
        await client.subscribe([("spBv1.0/G/NCMD/E", 1), ("spBv1.0/STATE/scada", 0)])
        await client.publish("a/b", b"zero", qos=0)
        await client.publish("spBv1.0/G/NCMD/E", b"x" * 300, qos=1, retain=True)
        async with asyncio.timeout(10):
            await anext(aiter(client.messages))


def _packets(tap: Tap, kind: type) -> list[object]:
    return [event.packet for event in tap.events if isinstance(event.packet, kind)]


@pytest.mark.parametrize("protocol", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5])
async def test_tap_writes_down_a_conversation(protocol: aiomqtt.ProtocolVersion) -> None:
    """What both sides say is in the trace as it was on the wire, in its order, with its direction."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), tapped(port) as tap:
        await _converse(tap.port, protocol)
        await tap.until(lambda: _packets(tap, Closed))
    level = 5 if protocol is aiomqtt.ProtocolVersion.V5 else 4
    assert _packets(tap, Connect) == [Connect(level, "edge", True, 30 if level == 5 else None, WILL)]
    assert _packets(tap, Connack) == [Connack(0)]
    assert _packets(tap, Subscribe) == [Subscribe((("spBv1.0/G/NCMD/E", 1), ("spBv1.0/STATE/scada", 0)))]
    command = Publish("spBv1.0/G/NCMD/E", b"x" * 300, 1, retain=True)
    assert _packets(tap, Publish)[:2] == [Publish("a/b", b"zero", 0, retain=False), command]
    assert [event.up for event in tap.events if isinstance(event.packet, Publish)] == [True, True, False]
    assert _packets(tap, Disconnect) == [Disconnect(0)]
    kinds = [type(event.packet) for event in tap.events]
    assert (kinds[0], kinds[1], kinds[-1]) == (Opened, Connect, Closed)


async def test_connect_is_seen_without_a_broker() -> None:
    """A CONNECT that nobody answers is in the trace: it has used up a bdSeq."""
    connect = b"\x00\x04MQTT\x04\x02\x00\x0a\x00\x04edge"
    async with tapped(mosquitto.free_port()) as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(bytes((0x10, len(connect))) + connect)
        assert await reader.read() == b""
        writer.close()
    assert _packets(tap, Connect) == [Connect(4, "edge", True, None, None)]


# ── payloads ───────────────────────────────────────────────────────────────────────────────────


def test_reader_agrees_with_protobuf() -> None:
    """Names, aliases, times, flags, properties and values of every member are read as protobuf wrote them."""
    payload = pb.Payload(timestamp=1_764_000_000_000, seq=255)
    metric = payload.metrics.add(name="a/ü", alias=7, timestamp=5, datatype=INT64, long_value=(1 << 64) - 5)
    metric.properties.keys.append("engUnit")
    metric.properties.values.add(type=12, string_value="dBm")
    payload.metrics.add(is_historical=True, int_value=(1 << 32) - 97)
    payload.metrics.add(double_value=-1.5)
    payload.metrics.add(float_value=0.5)
    payload.metrics.add(boolean_value=False)
    payload.metrics.add(string_value="é")
    payload.metrics.add(is_null=True)
    read = read_payload(payload.SerializeToString())
    assert (read.timestamp, read.seq, len(read.metrics)) == (1_764_000_000_000, 255, 7)
    first, second, *others, null = read.metrics
    assert (first.name, first.alias, first.timestamp, first.meaning(INT64)) == ("a/ü", 7, 5, -5)
    assert (unit := first.property("engUnit")) is not None
    assert (unit.type, unit.value) == (12, "dBm")
    assert (second.is_historical, second.meaning(INT32), second.alias) == (True, -97, None)
    assert [(other.field, other.value) for other in others] == [
        ("double", -1.5),
        ("float", 0.5),
        ("boolean", False),
        ("string", "é"),
    ]
    assert (null.is_null, null.field, null.meaning(INT64)) == (True, "", None)


@pytest.mark.parametrize(
    "body",
    [b"\xff", b"\x08", b"\x12\x05\x08", b"\x0a\x01\x00", b"\x12\x02\x0a\x09", b"\x12\x03\x0a\x01\xff", b"\x50\x01"],
)
def test_reader_refuses_what_is_no_payload(body: bytes) -> None:
    """A number without an end, a cut message, a wrong wire type, text that is no UTF-8, an unknown field."""
    with pytest.raises(Unreadable):
        read_payload(body)


def test_reader_reads_fixed_numbers_as_ieee() -> None:
    """A double is eight bytes, the lowest first, whatever protobuf is installed."""
    metric = b"\x69" + struct.pack("<d", 70.25)
    assert read_payload(b"\x12" + bytes([len(metric)]) + metric).metrics[0].value == 70.25
