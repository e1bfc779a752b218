"""The connection of one Edge Node, as its session uses it: send, have the broker's answer, end in order."""

import asyncio
import contextlib

import aiomqtt

from oneweb_bridge.model.records import Message
from oneweb_bridge.mqtt.broker_errors import FIRST_REFUSAL_CODE
from oneweb_bridge.mqtt.link import MqttConnection
from oneweb_bridge.sparkplug.edge_node import EdgeMessage, EdgeNode

DEATH_TIMEOUT_S = 2.0
"""Seconds that the messages at the end of a connection may take."""
HEADROOM_BYTES = 512
"""Bytes of a PUBLISH beside its payload, at most: three ids of 64 characters, header and lengths."""


class EdgeLink:
    """Sends the messages of one session of an Edge Node over its connection, and waits for their answers."""

    def __init__(self, link: MqttConnection, node: EdgeNode) -> None:
        self._link = link
        self._node = node
        self._max_packet = max(0, link.maximum_packet_size - HEADROOM_BYTES)
        node.limit_payload(self._max_packet)
        self._is_unconfirmed = False
        self._answers: dict[int, asyncio.Future[int]] = {}

    def send(self, message: EdgeMessage) -> None:
        """Sends a message with QoS 0. Raises MqttError."""
        self._is_unconfirmed = True
        self._link.send_unconfirmed(message.topic, message.payload)

    async def subscribe(self, *filters: str) -> None:
        """Subscribes with QoS 1. Raises MqttError when the broker refuses."""
        await self._link.subscribe_to(*filters)

    async def confirm(self) -> None:
        """Returns when the broker has read everything that was sent before. Raises MqttError.

        It subscribes once more to what it is subscribed to: the answer comes after all that was sent before.
        """
        if self._is_unconfirmed:
            self._is_unconfirmed = False
            await self._link.subscribe_to(self._node.topics.of("NCMD"))

    def too_large(self, message: EdgeMessage) -> str | None:
        """Why a message may not be sent: MQTT 5 answers one over the broker's limit with the end of the connection."""
        size = len(message.payload)
        if size <= self._max_packet:
            return None
        return f"{size} bytes are more than the {self._max_packet} that the broker allows"

    def on_puback(self, packet_id: int, code: int, _reason: str) -> None:
        """The broker's answer to a message with QoS 1."""
        answer = self._answers.pop(packet_id, None)
        if answer is not None and not answer.done():
            answer.set_result(code)

    async def end(self) -> None:
        """NDEATH of a node that is born, and DISCONNECT so that the broker sends the will too. Raises nothing."""
        with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
            async with asyncio.timeout(DEATH_TIMEOUT_S):
                if self._node.is_born:
                    await self._publish_death(self._node.death())
                    await self._link.disconnect_with_will()

    def leave_the_death_to_the_broker(self) -> None:
        """Ends the connection of a node that is born without DISCONNECT, after which the broker would drop the will."""
        if self._node.is_born:
            self._link.leave_the_will()

    async def _publish_death(self, message: EdgeMessage) -> None:
        packet_id = self._link.send(Message(message.topic, message.payload, retain=False, content_type=""))
        answer = self._answers[packet_id] = asyncio.get_running_loop().create_future()
        if await answer >= FIRST_REFUSAL_CODE:
            raise aiomqtt.MqttError(f"the broker refuses {message.topic}")
