"""One MQTT connection: aiomqtt, plus the reason code of each PUBACK and the broker's limits, which aiomqtt hides.

aiomqtt ignores the reason code of a PUBACK, so a publish that an ACL denies looks delivered, and it ignores the
limits that the broker announces. It also makes a task and an event for each message; `send` returns at once, and
`on_puback` is given the broker's answer. A test breaks when a new aiomqtt or paho changes what is used here. A new
MqttConnection is made for each connection, because paho would send later whatever an old one still had queued.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, NoReturn, Self

import aiomqtt
import msgspec
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, ConnectFlags, DisconnectFlags
from paho.mqtt.client import Client as Paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from oneweb_bridge import tls
from oneweb_bridge.config.schema import KEEPALIVE, Mqtt
from oneweb_bridge.model.records import Message
from oneweb_bridge.mqtt import packets
from oneweb_bridge.mqtt.broker_errors import (
    FIRST_REFUSAL_CODE,
    NO_QOS,
    Rejected,
    TakenOver,
    why_unusable,
    with_broker_words,
)
from oneweb_bridge.mqtt.paho_io import OnPuback, PahoIo

CONNECT_TIMEOUT_S = 2.0
"""paho connects in a thread that a cancellation does not end, so this bounds how long an exit takes."""
MAX_BESIDE_PAYLOAD = 200_000
"""Bytes of a message beside its payload: a topic, a response topic and correlation data may have 65535 each."""

DISCONNECT_WITH_WILL = 0x04
"""With this reason the broker publishes the will though the client disconnects. Source: MQTT 5, 3.14.2.1."""
SESSION_TAKEN_OVER = 0x8E
"""Why a broker ends a connection when another client comes with the same client id. Source: MQTT 5, 3.14.2.1."""

MAX_INFLIGHT_MESSAGES = 65535
"""Of paho, which must not hold messages back: the send window does."""

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux only; it does not last and is set again after each read that needs it."""

_log = logging.getLogger("oneweb_bridge.mqtt")


class Received(msgspec.Struct, frozen=True):
    """A message of the broker. `response_topic` and `correlation` are MQTT 5's, where the sender gave them."""

    topic: str
    payload: bytes
    retain: bool
    response_topic: str | None = None
    correlation: bytes | None = None


OnMessage = Callable[[Received], None]


def _properties(content_type: str, correlation: bytes | None = None) -> Properties:
    """Content type and payload format of a message, so that Node-RED parses it unasked."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
    properties.ContentType = content_type
    properties.PayloadFormatIndicator = 1
    if correlation is not None:
        properties.CorrelationData = correlation
    return properties


@lru_cache(maxsize=32)
def _packed(content_type: str) -> bytes:
    """The same as bytes, for all messages that answer no request."""
    return _properties(content_type).pack()  # type: ignore[no-untyped-call,no-any-return]  # paho


async def _granted(link: aiomqtt.Client, topics: Sequence[tuple[str, SubscribeOptions | int]]) -> list[int]:
    """Subscribes. What the broker grants for each filter: QoS, or the code of a refusal. Raises MqttError."""
    before = cancel_count()
    codes = await link.subscribe(list(topics))  # type: ignore[arg-type]  # either form for all of them
    raise_if_cancelled_since(before)
    return [_reason_number(code) for code in codes]


def _require_granted(filters: Sequence[str], granted: list[int]) -> None:
    """Raises MqttError for the first filter that the broker refuses, or has forgotten."""
    for name, code in zip(filters, granted + [FIRST_REFUSAL_CODE] * len(filters), strict=False):
        if code >= FIRST_REFUSAL_CODE:
            raise aiomqtt.MqttError(
                f"the broker refuses the subscription to {name}: let this user read it in its access rules"
            )


class MqttConnection(aiomqtt.Client):
    """A connection that says what became of each message. `async with`, once."""

    def __init__(
        self,
        settings: Mqtt,
        identifier: str,
        on_puback: OnPuback = lambda *_: None,
        *,
        will: Message | None = None,
        on_message: OnMessage | None = None,
    ) -> None:
        """`on_message` is given each message at once; without it they wait in `messages`, however many come."""
        self.receive_maximum = 65535
        self.maximum_packet_size = packets.MAX_REMAINING_LENGTH
        self.is_mqtt5 = settings.protocol == "5"
        self._on_received = on_message
        self._end: aiomqtt.MqttError | None = None
        super().__init__(
            settings.host.strip("[]"),
            settings.port,
            username=settings.username,
            password=settings.password,
            identifier=identifier,
            protocol=aiomqtt.ProtocolVersion.V5 if self.is_mqtt5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if self.is_mqtt5 else True,
            clean_start=True if self.is_mqtt5 else MQTT_CLEAN_START_FIRST_ONLY,
            will=None if will is None else self._will(will),
            transport=settings.transport,
            websocket_path=settings.path,
            timeout=10.0,
            keepalive=KEEPALIVE,
            max_inflight_messages=MAX_INFLIGHT_MESSAGES,
            tls_context=_tls_context(settings),
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            properties=_limits(settings) if self.is_mqtt5 else None,
            logger=_log,
        )
        self._client.connect_timeout = CONNECT_TIMEOUT_S
        self._io = PahoIo(
            self._client, self._loop, on_puback, on_lost=self._fail_pending_connect, on_broken=self._on_broken
        )

    def hand_over(self, on_puback: OnPuback, on_message: OnMessage, on_read: Callable[[], None] = lambda: None) -> None:
        """From now on, these are given the broker's answers and messages; `on_read` is called after some of them."""
        self._io.on_puback, self._on_received, self._io.on_read = on_puback, on_message, on_read

    def _will(self, will: Message) -> aiomqtt.Will:
        properties = _properties(will.content_type) if will.content_type and self.is_mqtt5 else None
        return aiomqtt.Will(will.topic, will.payload, qos=1, retain=will.retain, properties=properties)

    async def __aenter__(self) -> Self:
        """Connects. Raises MqttError. Whatever ends the attempt, cancellation included, leaves nothing open.

        aiomqtt leaves paho's thread, its socket and a task behind then, which fail once the event loop is closed.
        """
        connecting = asyncio.ensure_future(super().__aenter__())
        try:
            await asyncio.wait({connecting})
            connecting.result()
        except BaseException:
            await self._abandon(connecting)
            raise
        return self

    async def _abandon(self, connecting: "asyncio.Future[Self]") -> None:
        """Waits for the attempt to end, which a thread of paho may delay by CONNECT_TIMEOUT, and closes the socket."""
        self._fail_pending_connect(None)
        while not connecting.done():
            # A second request to stop does not make the thread any faster; the first one is raised afterwards.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({connecting})
        for ended in (connecting, self._connected):
            if ended.done() and not ended.cancelled():
                ended.exception()
        # The broker may have heard of the will already, and who leaves on purpose needs none.
        with contextlib.suppress(OSError):
            self._client.disconnect()
        self._client._sock_close()

    def leave_the_will(self) -> None:
        """Ends the connection as a failure of the network does: the broker publishes the will, unlike at DISCONNECT."""
        self._client._sock_close()
        if not self._disconnected.done():
            self._disconnected.set_result(None)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Disconnects. Raises MqttError."""
        await super().__aexit__(exc_type, exc, tb)
        if self._disconnected.done() and not self._disconnected.cancelled():
            # Nobody may have waited for it, which asyncio would report.
            self._disconnected.exception()

    async def wait_for_end(self) -> NoReturn:
        """Waits until the connection is lost. Raises MqttError with the broker's reason, as far as it gave one."""
        await asyncio.wait({self._disconnected})
        cause = self._disconnected.exception()
        raise self._end or aiomqtt.MqttError("the connection to the broker was lost") from cause

    def _fail_pending_connect(self, cause: OSError | None) -> None:
        """Ends the wait for the broker's welcome: with TLS 1.3 it refuses a certificate after the handshake."""
        if self._connected.done():
            return
        error = Rejected("the broker closed the connection before it answered")
        error.__cause__ = cause
        self._connected.set_exception(error)

    def _on_broken(self, error: Exception) -> None:
        if not self._disconnected.done():
            self._disconnected.set_exception(error)

    def send(self, message: Message) -> int:
        """Sends a message with QoS 1 and returns its packet id; `on_puback` hears the rest.

        Raises MqttError, and ValueError for a message that MQTT has no room for.
        What is sent before the event loop goes on leaves in one piece.
        """
        if self._client._sock is None:
            raise aiomqtt.MqttCodeError(MQTTErrorCode.MQTT_ERR_NO_CONN, "Could not publish message")
        packet_id = self._io.free_packet_id()
        self._io.send(packet_id, packets.encode_publish(packet_id, message, self._packed_properties(message)))
        return packet_id

    def send_unconfirmed(self, topic: str, payload: bytes) -> None:
        """Sends bytes with QoS 0, not retained: nobody says whether they came. Raises MqttError, and ValueError."""
        if self._client._sock is None:
            raise aiomqtt.MqttCodeError(MQTTErrorCode.MQTT_ERR_NO_CONN, "Could not publish message")
        properties = b"\0" if self.is_mqtt5 else b""
        self._io.write_packet(packets.encode_unconfirmed_publish(topic, payload, properties))

    @property
    def has_sent_connect(self) -> bool:
        """Whether CONNECT was sent, so that the broker may know of the will."""
        return self._io.has_written

    async def disconnect_with_will(self) -> None:
        """Disconnects. On MQTT 5 the broker publishes the will then, on 3.1.1 it drops it. Source: MQTT 5, 3.14.2.1."""
        if self._disconnected.done():
            return
        if self.is_mqtt5:
            self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=DISCONNECT_WITH_WILL))
        else:
            self._client.disconnect()
        await asyncio.wait({self._disconnected}, timeout=CONNECT_TIMEOUT_S)

    def _packed_properties(self, message: Message) -> bytes:
        """An empty message, which clears a topic, has none: it is no JSON, and Node-RED would refuse it as such."""
        if not self.is_mqtt5:
            return b""
        if not message.payload or not message.content_type:
            return b"\0"
        if message.correlation is None:
            return _packed(message.content_type)
        return _properties(message.content_type, message.correlation).pack()  # type: ignore[no-untyped-call,no-any-return]  # paho

    def set_tcp_quickack(self) -> None:
        """Makes the kernel acknowledge what was read at once, when nothing that is sent would carry it.

        Otherwise a broker with Nagle's algorithm keeps its next PUBACKs back for the 40 ms of a delayed ACK.
        """
        sock = self._client.socket()
        if _QUICKACK is not None and isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    async def unsubscribe_from(self, *filters: str) -> None:
        """Subscribes no longer. Raises MqttError."""
        before = cancel_count()
        await self.unsubscribe(list(filters))
        raise_if_cancelled_since(before)

    async def listen_to(self, *filters: str) -> None:
        """Subscribes for as long as this connection lasts. Raises MqttError when the broker refuses.

        On MQTT 3.1.1 with QoS 0: what is lost with the connection would not come again with QoS 1 either, because its
        session ends with it. NATS makes a replicated consumer for each subscription with QoS 1, which takes seconds,
        and often fails while one of three servers is away.
        """
        if self.is_mqtt5:
            await self.subscribe_to(*filters)
        else:
            _require_granted(filters, await _granted(self, [(name, 0) for name in filters]))

    async def subscribe_to(self, *filters: str) -> None:
        """Subscribes with QoS 1 and, on MQTT 5, retain-as-published. Raises MqttError when the broker refuses."""
        options = SubscribeOptions(qos=1, retainAsPublished=True) if self.is_mqtt5 else 1
        # What was sent before must stand before it on the wire: its answer proves that the broker has read that.
        self._io.flush()
        granted = await _granted(self, [(name, options) for name in filters])
        _require_granted(filters, granted)
        if 0 in granted:
            raise aiomqtt.MqttError(NO_QOS)

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
            problem = why_unusable(reason_code, properties)
            if problem is not None and not self._connected.done():
                kind = Rejected if reason_code.value >= FIRST_REFUSAL_CODE else aiomqtt.MqttError
                self._connected.set_exception(kind(problem))
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: Paho,
        userdata: Any,
        flags: DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if flags.is_disconnect_packet_from_server and self._end is None:
            kind = TakenOver if reason_code.value == SESSION_TAKEN_OVER else aiomqtt.MqttError
            self._end = kind(f"the broker ended the connection: {with_broker_words(str(reason_code), properties)}")
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_subscribe(self, client: Paho, userdata: Any, mid: int, *answer: Any) -> None:
        """The answer to a subscription. Who was told to end does not wait for it any more, which is no error."""
        if mid in self._pending_subscribes:
            super()._on_subscribe(client, userdata, mid, *answer)

    def _on_unsubscribe(self, client: Paho, userdata: Any, mid: int, *answer: Any) -> None:
        """The answer to the end of a subscription, in the same way."""
        if mid in self._pending_unsubscribes:
            super()._on_unsubscribe(client, userdata, mid, *answer)

    def _on_socket_register_write(self, client: Paho, userdata: Any, sock: Any) -> None:  # noqa: ARG002  # aiomqtt's
        """As aiomqtt does it, but looks whether the socket is still open by then: its number may be another's."""

        def register() -> None:
            current: Any = client.socket()
            # What waited may have been written since, and then nobody would take the writer away again.
            if current is sock and sock.fileno() >= 0 and client.want_write():
                self._loop.add_writer(sock.fileno(), self._io.write)

        # paho may call this from the thread in which it connects.
        self._loop.call_soon_threadsafe(register)

    def _on_message(self, client: Paho, userdata: Any, message: Any) -> None:
        """The border to what other clients publish: a message that cannot be handled is set aside, whatever it is."""
        try:
            if self._on_received is None:
                super()._on_message(client, userdata, message)
            else:
                self._on_received(_from_paho(message))
        except Exception as error:  # noqa: BLE001  # it comes again after each restart when it is retained
            topic = packets.shown(message._topic.decode(errors="replace"))
            _log.error("a message on %s was set aside: %s", topic, error)
            _log.debug("while it was handled:", exc_info=True)


def _limits(settings: Mqtt) -> Properties:
    """What the broker may send: room for every command and all that the bridge publishes, and no more.

    The broker keeps a larger message back, so that nobody who may send commands fills the memory.
    """
    limits = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
    limits.MaximumPacketSize = min(settings.max_payload + MAX_BESIDE_PAYLOAD, packets.MAX_REMAINING_LENGTH)
    return limits


def _from_paho(message: Any) -> Received:
    """A message of paho. Raises UnicodeDecodeError for a topic that is no text."""
    properties = message.properties
    return Received(
        message.topic,
        bytes(message.payload),
        bool(message.retain),
        getattr(properties, "ResponseTopic", None),
        getattr(properties, "CorrelationData", None),
    )


def cancel_count() -> int:
    """How often this task was asked to end so far; a group of tasks that failed counts too, so it need not be 0."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def run_in_own_task(step: Coroutine[Any, Any, None], name: str) -> None:
    """Runs a step that has a group of tasks, for a loop that repeats it. Raises CancelledError once it was cancelled.

    On Python 3.11 a group forgets that its task was cancelled when one of its tasks fails just then, and may leave a
    cancellation counted that nobody asked for. In a task of its own neither is seen here, and the loop comes to an end.
    """
    try:
        await asyncio.create_task(step, name=name)
    finally:
        if cancel_count():
            raise asyncio.CancelledError


def raise_if_cancelled_since(before: int) -> None:
    """Ends a task that was cancelled during a step that forgets it: aiomqtt waits with `asyncio.wait_for`.

    On Python 3.11 that gives the result instead, when both come at once; and the bridge would not stop.
    """
    if cancel_count() > before:
        raise asyncio.CancelledError


def _reason_number(code: int | ReasonCode) -> int:
    return code if isinstance(code, int) else int(code.value)


def _tls_context(settings: Mqtt) -> ssl.SSLContext | None:
    """A context from the files as they are now: each connection has its own, so renewed files need no restart."""
    chosen = settings.tls
    if not chosen.enabled:
        return None
    return tls.client_context("mqtt.tls", chosen.ca_file, chosen.cert_file, chosen.key_file, insecure=chosen.insecure)


async def listen_to_retained(link: MqttConnection, topics: str) -> None:
    """Subscribes so that only what was retained before has the mark of it. Raises MqttError when the broker refuses."""
    options = SubscribeOptions(qos=1) if link.is_mqtt5 else 1
    _require_granted([topics], await _granted(link, [(topics, options)]))


async def require_qos(link: MqttConnection, name: str) -> None:
    """Raises MqttError where a broker of MQTT 3.1.1 grants QoS 0 only; one of MQTT 5 has said so before."""
    if not link.is_mqtt5 and await _granted(link, [(name, 1)]) == [0]:
        raise aiomqtt.MqttError(NO_QOS)
