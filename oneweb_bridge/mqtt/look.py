"""Whether this bridge may publish below its base, found out by a connection that has no will yet."""

import asyncio
import contextlib
import logging
import time

import aiomqtt

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Message, Positions
from oneweb_bridge.model.status import Connection
from oneweb_bridge.mqtt import probing
from oneweb_bridge.mqtt.broker_errors import FIRST_REFUSAL_CODE, NO_RETAIN
from oneweb_bridge.mqtt.context import ConnectionContext
from oneweb_bridge.mqtt.handshake import Handshake
from oneweb_bridge.mqtt.lane import Outgoing
from oneweb_bridge.mqtt.link import MqttConnection, Received, require_qos
from oneweb_bridge.mqtt.probing import Prober
from oneweb_bridge.mqtt.sender import Sender
from oneweb_bridge.mqtt.window import SendWindow

_log = logging.getLogger("oneweb_bridge.publisher")

MIN_TWIN_TIMEOUT_S, TWIN_ROUND_TRIPS = 3.0, 4.0
"""For how long a bridge that is about to connect waits for the probe of another: at least so many seconds, and so many
times as long as its own probe took."""


class Look:
    """Finds out whether this bridge may publish, on a connection that has no will yet."""

    def __init__(self, context: ConnectionContext, link: MqttConnection) -> None:
        self._tree = context.tree
        self._instance = context.instance
        self._link = link
        window = SendWindow(1, Positions(0), context.tree.class_of)
        self._sender = Sender(context, link, window, self._on_answered)
        self._prober = Prober(context, self._sender, asks=True)
        self._handshake = Handshake(context, self._sender, self._prober)
        self._status: bytes | None = None
        self._is_status_hidden = False
        self._status_kept = asyncio.Event()
        self._is_proving_retain = False

    async def run(self) -> None:
        """Raises ForeignInstance where another instance publishes, and TwinConnected for another bridge with this name.

        They come in a group of errors, as does the loss of the connection.
        """
        link, tree, handshake = self._link, self._tree, self._handshake
        link.hand_over(self._sender.on_puback, self._receive, self._sender.on_read)
        try:
            async with asyncio.TaskGroup() as group:
                watchers = [
                    group.create_task(link.wait_for_end(), name="mqtt end"),
                    group.create_task(self._sender.end_on_failure(), name="mqtt failure"),
                    group.create_task(self._sender.watch_loop(), name="mqtt watch"),
                ]
                await link.listen_to(tree.head, tree.probe)
                await require_qos(link, tree.probe)
                # Where it may not be read, who is connected is known by its answer alone.
                try:
                    await link.listen_to(tree.status)
                except aiomqtt.MqttError:
                    self._is_status_hidden = True
                asked_at = time.monotonic()
                await handshake.prove_delivery()
                await handshake.refuse_foreign_instance()
                await self._look_for_others(time.monotonic() - asked_at)
                if not link.is_mqtt5 and not self._status_kept.is_set():
                    await self._prove_retain()
                for watcher in watchers:
                    watcher.cancel()
        except BaseExceptionGroup as group:
            if self._is_proving_retain:
                raise aiomqtt.MqttError(NO_RETAIN) from group
            raise
        finally:
            await self._sender.close()

    def _receive(self, message: Received) -> None:
        if message.topic == self._tree.head:
            self._handshake.on_head(message.payload)
        elif message.topic == self._tree.probe and not message.retain:
            self._prober.on_probe(message.payload)
        elif message.topic == self._tree.status:
            self._status = message.payload
            if message.retain:
                self._status_kept.set()

    def _on_answered(self, outgoing: Outgoing, code: int, reason: str) -> None:
        if code < FIRST_REFUSAL_CODE:
            self._sender.window.acknowledge(outgoing)
        else:
            _log.error("broker refuses %s: %s", outgoing.message.topic, reason)
            self._sender.window.refuse(outgoing)

    async def _look_for_others(self, round_trip: float) -> None:
        """Raises TwinConnected or ForeignInstance when another bridge answers; one that is connected does so at once.

        Another instance has no head here yet while it restores for the first time. Where nobody ever published, or the
        last one published `offline`, or the broker did so for it, there is nobody to wait for. A bridge that is frozen
        does not answer, nor one that is cut off from the broker.
        """
        head, is_leased = self._handshake.head, self._tree.epoch is not None
        if is_leased and head is not None:
            return
        has_nobody_published = self._status is None and head is None and not self._is_status_hidden
        if has_nobody_published or b'"offline"' in (self._status or b""):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(MIN_TWIN_TIMEOUT_S, TWIN_ROUND_TRIPS * round_trip)):
                await self._prober.other_answered.wait()
        other = self._prober.other
        # The lease says that no other worker may publish; who still does so is about to lose the connection.
        if other is not None and not (is_leased and other == self._instance):
            await self._handshake.refuse_other(other)

    async def _prove_retain(self) -> None:
        """A retained message must come with a subscription, and MQTT 3.1.1 cannot say otherwise. Raises MqttError.

        The status proves it, which is retained anyway: a probe that is retained might stay for ever.
        """
        self._is_proving_retain = True
        status = Message(self._tree.status, encode(Connection("offline")), retain=True)
        await self._sender.publish_and_wait(status)
        await self._link.listen_to(self._tree.status)
        try:
            async with asyncio.timeout(probing.PROBE_TIMEOUT_S):
                await self._status_kept.wait()
        except TimeoutError:
            raise aiomqtt.MqttError(NO_RETAIN) from None
        self._is_proving_retain = False
