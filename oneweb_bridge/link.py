"""One connection to the broker: aiomqtt, and the two things that it does not tell.

aiomqtt ignores the reason code of a PUBACK, so a publish that an ACL denies looks delivered, and it
ignores the limits that the broker announces. `Link` looks at both. It also sends without a task and
an event per message: `send` returns at once, and `on_answer` hears the broker's answer. Both go past
the outer layers of paho, which write each PUBLISH by itself and make five objects and three reads of each
PUBACK; a test breaks when a new aiomqtt or paho changes what is used here. A new Link is made for each
connection, because paho would send later whatever an old one still had queued.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Literal

import aiomqtt
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, ConnectFlags
from paho.mqtt.client import Client as Paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from oneweb_bridge import tls
from oneweb_bridge.model import Message
from oneweb_bridge.settings import KEEPALIVE, Mqtt

CONNECT_TIMEOUT = 2.0
"""paho connects in a thread that a cancellation does not end, so this bounds how long an exit takes."""
INBOUND = 1000
"""Commands that may wait to be obeyed; what comes beyond is dropped and counted."""
PUBLISH, PUBACK = 0x30, 0x40
"""First bytes of packets; that of a PUBLISH has its flags in the lower half. Source: MQTT 5, 2.1."""
LONGEST = 268_435_455
"""Bytes that a packet may have behind its length. Source: MQTT 5, 2.1.4."""
REFUSED = 0x80
"""Reason codes from here on mean that the broker did not take the message. Source: MQTT 5, 2.4."""

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux only; it does not last and is set again after each read that needs it."""

OnAnswer = Callable[[int, int, str], None]
"""Packet id, reason code and its name."""

_log = logging.getLogger("oneweb_bridge.mqtt")


class _Packed(Properties):
    """Properties of a PUBLISH that never change: packed once, instead of for each message."""

    def __init__(self, content_type: str) -> None:
        super().__init__(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
        self.ContentType = content_type
        self.PayloadFormatIndicator = 1
        object.__setattr__(self, "_packed", super().pack())  # type: ignore[no-untyped-call]  # paho

    def pack(self) -> bytes:
        packed: bytes = object.__getattribute__(self, "_packed")
        return packed


class Link(aiomqtt.Client):
    """A connection that says what became of each message. `async with`, once."""

    def __init__(
        self, settings: Mqtt, identifier: str, will: Message, on_answer: OnAnswer, *, inbound: int = INBOUND
    ) -> None:
        self.receive_maximum = 65535
        self.maximum_packet_size = LONGEST
        self.dropped = 0
        self.modern = settings.protocol == "5"
        self._on_answer = on_answer
        self._properties_of: dict[str, Properties] = {}
        super().__init__(
            settings.host.strip("[]"),
            settings.port,
            username=settings.username,
            password=settings.password,
            identifier=identifier,
            protocol=aiomqtt.ProtocolVersion.V5 if self.modern else aiomqtt.ProtocolVersion.V311,
            clean_session=None if self.modern else True,
            clean_start=True if self.modern else MQTT_CLEAN_START_FIRST_ONLY,
            will=aiomqtt.Will(
                will.topic, will.payload, qos=1, retain=True, properties=self.properties(will.content_type)
            ),
            transport=settings.transport,
            timeout=10.0,
            keepalive=KEEPALIVE,
            max_queued_incoming_messages=inbound,
            max_inflight_messages=settings.window + 20,
            tls_context=_tls(settings),
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            logger=_log,
        )
        self._client.connect_timeout = CONNECT_TIMEOUT
        self._sent: set[int] = set()
        self._outgoing: list[bytes] = []
        self._read, self._at = b"", 0
        self._take_over()

    def _take_over(self) -> None:
        """Puts four of paho's inner steps on a shorter way; what they promise stays."""
        client = self._client
        self._paho_puback, self._paho_recv, self._paho_send, self._paho_read = (
            client._handle_pubackcomp,
            client._sock_recv,
            client._sock_send,
            client.loop_read,
        )
        client._handle_pubackcomp = self._puback  # type: ignore[method-assign]
        client._sock_recv = self._recv  # type: ignore[method-assign]
        client._sock_send = self._send  # type: ignore[method-assign]
        client.loop_read = self._loop_read  # type: ignore[method-assign]

    def _recv(self, bufsize: int) -> bytes:
        """Bytes of the connection, read in large pieces: paho asks for each packet in three small ones."""
        if self._at >= len(self._read):
            self._read, self._at = self._received(), 0
        found = self._read[self._at : self._at + bufsize]
        self._at += len(found)
        return found

    def _received(self) -> bytes:
        try:
            found = self._paho_recv(65536)
        except BlockingIOError:
            raise
        except OSError as error:
            self._lost(error)
            raise
        if not found:
            self._lost(None)
        return found

    def _send(self, buf: bytes | bytearray) -> int:
        """Writes to the connection. The first write may be in the thread of paho's `connect`."""
        try:
            return self._paho_send(buf)
        except BlockingIOError:
            raise
        except OSError as error:
            self._loop.call_soon_threadsafe(self._lost, self._last_words(error))
            raise

    def _last_words(self, error: OSError) -> OSError:
        """Why a connection that takes no more bytes was refused: what the broker wrote before it closed."""
        try:
            self._paho_recv(1)
        except BlockingIOError:
            return error
        except OSError as told:
            return told
        return error

    def _lost(self, cause: OSError | None) -> None:
        """Ends the wait for the broker's welcome: with TLS 1.3 it refuses a certificate after the handshake."""
        if self._connected.done():
            return
        error = aiomqtt.MqttError("the broker closed the connection before it answered")
        error.__cause__ = cause
        self._connected.set_exception(error)

    def _loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Handles everything that was read, because the event loop only tells of what is still unread."""
        while True:
            code = self._paho_read(max_packets)
            if code == MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._complete()
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS or self._at >= len(self._read):
                return code

    def _complete(self) -> None:
        """Completes the whole PUBACKs that come next in what was read, up to the first packet that is for paho."""
        read = self._read
        while self._at + 4 <= len(read) and read[self._at] == PUBACK:
            end = self._at + 2 + read[self._at + 1]
            if end > len(read) or not self._answered(read[self._at + 2 : end]):
                return
            self._at = end

    def properties(self, content_type: str) -> Properties | None:
        """Content type and payload format of a message, so that Node-RED parses it unasked; none on 3.1.1."""
        if not self.modern:
            return None
        if content_type not in self._properties_of:
            self._properties_of[content_type] = _Packed(content_type)
        return self._properties_of[content_type]

    def send(self, message: Message, properties: Properties | None = None) -> int:
        """Sends a message with QoS 1 and returns its packet id; `on_answer` hears the rest. Raises MqttError.

        An empty one, which clears a topic, has no content type: it is no JSON, and Node-RED would refuse it as such.
        What is sent before the event loop goes on leaves in one piece.
        """
        if message.payload:
            properties = properties or self.properties(message.content_type)
        if self._client._sock is None:
            raise aiomqtt.MqttCodeError(MQTTErrorCode.MQTT_ERR_NO_CONN, "Could not publish message")
        mid = self._free_id()
        packed = b"" if not self.modern else b"\0" if properties is None else properties.pack()  # type: ignore[no-untyped-call]  # paho
        packet = _publish(mid, message, packed)
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(packet)
        self._sent.add(mid)
        return mid

    def _free_id(self) -> int:
        """A packet id that no message on its way has; paho shares them with its subscriptions."""
        while (mid := self._client._mid_generate()) in self._sent:
            pass
        return mid

    def _flush(self) -> None:
        """Hands all that was sent to paho as if it were one packet: one write instead of one for each message."""
        whole, self._outgoing = b"".join(self._outgoing), []
        packet: Any = {
            "command": PUBLISH,
            "mid": 0,
            "qos": 1,
            "pos": 0,
            "to_process": len(whole),
            "packet": whole,
            "info": None,
        }
        self._client._out_packet.append(packet)
        self._write()

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except Exception as error:  # noqa: BLE001  # whatever it is, this connection is broken
            if not self._disconnected.done():
                self._disconnected.set_exception(error)

    def _puback(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        """Completes a PUBACK that paho has read, if it is for a message that `send` sent."""
        if self._answered(bytes(self._client._in_packet["packet"])):
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return self._paho_puback(cmd)

    def _answered(self, packet: bytes) -> bool:
        """Tells of the answer to a message of `send`, without the four objects that paho makes of it.

        The packet is the packet id and, on MQTT 5 where it is not success, a reason code. Source: MQTT 5, 3.4.
        """
        mid = int.from_bytes(packet[:2], "big")
        if mid not in self._sent or len(packet) < 2:
            return False
        self._sent.discard(mid)
        code = packet[2] if len(packet) > 2 else 0
        self._on_answer(mid, code, _reason(code) if code >= REFUSED else "")
        return True

    def answer_quickly(self) -> None:
        """Makes the kernel acknowledge what was read at once, when nothing that is sent would carry it.

        Otherwise a broker with Nagle's algorithm keeps its next PUBACKs back for the 40 ms of a delayed ACK.
        """
        sock = self._client.socket()
        if _QUICKACK is not None and isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    async def leave(self, *filters: str) -> None:
        """Subscribes no longer. Raises MqttError."""
        before = cancellations()
        await self.unsubscribe(list(filters))
        go_if_cancelled(before)

    async def listen(self, *filters: str) -> None:
        """Subscribes with QoS 1 and, on MQTT 5, retain-as-published. Raises MqttError when the broker refuses."""
        before = cancellations()
        if self.modern:
            options = SubscribeOptions(qos=1, retainAsPublished=True)
            codes = await self.subscribe([(name, options) for name in filters])
        else:
            codes = await self.subscribe([(name, 1) for name in filters])
        go_if_cancelled(before)
        for name, code in zip(filters, codes, strict=False):
            if _number(code) >= REFUSED:  # type: ignore[arg-type]  # aiomqtt says less than it gives
                raise aiomqtt.MqttError(f"the broker refuses the subscription to {name}")

    def _on_connect(
        self,
        client: Paho,
        userdata: Any,
        flags: ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if properties is not None:
            self.receive_maximum = getattr(properties, "ReceiveMaximum", self.receive_maximum)
            self.maximum_packet_size = getattr(properties, "MaximumPacketSize", self.maximum_packet_size)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_socket_register_write(self, client: Paho, userdata: Any, sock: Any) -> None:  # noqa: ARG002  # aiomqtt's
        """As aiomqtt does it, but looks whether the socket is still open by then: its number may be another's."""

        def register() -> None:
            current: Any = client.socket()
            # What waited may have been written since, and then nobody would take the writer away again.
            if current is sock and sock.fileno() >= 0 and client.want_write():
                self._loop.add_writer(sock.fileno(), self._write)

        # paho may call this from the thread in which it connects.
        self._loop.call_soon_threadsafe(register)

    def _on_message(self, client: Paho, userdata: Any, message: Any) -> None:
        if self._queue.full():
            self.dropped += 1
            return
        super()._on_message(client, userdata, message)


def _publish(mid: int, message: Message, properties: bytes) -> bytes:
    """A PUBLISH with QoS 1. Raises ValueError for one that cannot be. Source: MQTT 5, 3.3."""
    topic = message.topic.encode()
    size = 4 + len(topic) + len(properties) + len(message.payload)
    if len(topic) > 0xFFFF or size > LONGEST:
        raise ValueError(f"{len(message.payload)} bytes on a topic of {len(topic)} are more than MQTT has room for")
    first = PUBLISH | 0x02 | message.retain
    start = bytes((first, *_length(size)))
    numbers = len(topic).to_bytes(2, "big"), mid.to_bytes(2, "big")
    return b"".join((start, numbers[0], topic, numbers[1], properties, message.payload))


def _length(size: int) -> Iterator[int]:
    """The bytes of a packet's length: seven bits each, the lowest first. Source: MQTT 5, 1.5.5."""
    while size > 0x7F:
        yield size & 0x7F | 0x80
        size >>= 7
    yield size


def cancellations() -> int:
    """How often this task was asked to end so far; a group of tasks that failed counts too, so it need not be 0."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def go_if_cancelled(before: int) -> None:
    """Ends a task that was cancelled during a step that forgets it: aiomqtt waits with `asyncio.wait_for`.

    On Python 3.11 that gives the result instead, when both come at once; and the bridge would not stop.
    """
    if cancellations() > before:
        raise asyncio.CancelledError


def _reason(code: int) -> str:
    """The name of a PUBACK's reason code."""
    try:
        return str(ReasonCode(PacketTypes.PUBACK, identifier=code))
    except KeyError:
        return f"reason code {code}"


def _number(code: int | ReasonCode) -> int:
    return code if isinstance(code, int) else int(code.value)


def _tls(settings: Mqtt) -> ssl.SSLContext | None:
    """A context from the files as they are now: each connection has its own, so renewed files need no restart."""
    chosen = settings.tls
    if not chosen.enabled:
        return None
    return tls.client_context("mqtt.tls", chosen.ca_file, chosen.cert_file, chosen.key_file, insecure=chosen.insecure)


def reason_of(error: BaseException) -> str:
    """Why a connection failed, for people."""
    if (refusal := tls.reason_of(error)) is not None:
        return refusal
    if isinstance(error, aiomqtt.MqttCodeError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    if isinstance(error.__context__, ConnectionResetError):
        return "it reset the connection; check whether TLS is spoken on this port (mqtt.tls.enabled)"
    return " ".join(str(error).split()) or type(error).__name__
