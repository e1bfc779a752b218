"""Proves that the broker delivers what it takes: a message on `bridge/probe` that must come back.

Also how a bridge that is about to connect hears of one that publishes below its base: by that one's probe.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable

import aiomqtt
import msgspec

from oneweb_bridge.clock import SYSTEM
from oneweb_bridge.config.schema import Mqtt
from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.model.records import Message
from oneweb_bridge.model.status import Probe
from oneweb_bridge.mqtt.broker_errors import FIRST_REFUSAL_CODE
from oneweb_bridge.mqtt.context import ConnectionContext
from oneweb_bridge.mqtt.link import MqttConnection
from oneweb_bridge.mqtt.sender import Sender

PROBE_INTERVAL_S = 60.0
PROBE_TIMEOUT_S = 10.0


class Prober:
    """The probes of one connection. `asks`: a bridge that is online below this base shall answer."""

    def __init__(self, context: ConnectionContext, sender: Sender, *, asks: bool) -> None:
        self.other: str | None = None
        """The instance of the bridge that `other_answered`: a twin's is this one's own."""
        self.other_answered = asyncio.Event()
        self.answers = False
        """Whether a bridge that asks gets an answer: from one that is online."""
        self._context = context
        self._sender = sender
        self._asks = asks
        self._nonce = ""
        self._came_back = asyncio.Event()
        self._is_answering = False

    async def prove_delivery(self) -> None:
        """Publishes a probe and waits until it comes back. Raises MqttError when it does not."""
        # A late copy of an earlier probe proves nothing, so each has a nonce of its own.
        self._nonce = secrets.token_hex(8)
        self._came_back.clear()
        self._sender.send(self._message(self._nonce))
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._came_back.wait()
        except TimeoutError:
            raise aiomqtt.MqttError(
                f"the broker took a message on {self._context.tree.probe} but did not deliver it: "
                "let this user read and write it in the broker's access rules"
            ) from None

    async def probe_loop(self) -> None:
        """Proves again and again that the broker delivers; its access rules may change. Raises MqttError."""
        while True:
            await asyncio.sleep(PROBE_INTERVAL_S)
            await self.prove_delivery()

    def on_probe(self, payload: bytes) -> None:
        """A message on the probe's topic: the last one of this connection, another bridge's, or anybody's."""
        if self._nonce and self._nonce.encode() in payload:
            self._came_back.set()
            return
        try:
            probe = msgspec.json.decode(payload, type=Probe)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if probe.instance is None or probe.process in (None, self._context.process):
            return
        if not probe.asks:
            self.other = probe.instance
            self.other_answered.set()
        elif self.answers and not self._is_answering:
            self._is_answering = True
            self._sender.send(self._message(secrets.token_hex(8)), self._end_answer)
            if probe.instance == self._context.instance:
                self._sender.spawn(self._context.twins.alert(), "mqtt twin")

    def _end_answer(self, _: bool) -> None:
        self._is_answering = False

    def _message(self, nonce: str) -> Message:
        context = self._context
        probe = Probe(rfc3339(SYSTEM.now()), nonce, context.instance, context.process, self._asks)
        return Message(context.tree.probe, encode(probe), retain=False)


async def read_until_probe(
    settings: Mqtt,
    client: str,
    topic: str,
    subscribe: Callable[[MqttConnection], Awaitable[None]],
    on_message: Callable[[aiomqtt.Message], None],
    *,
    timeout: float,
) -> None:
    """Subscribes by a connection of its own, publishes a probe on `topic` and reads until it comes back.

    What was retained at the subscription comes before it. `client` is the beginning of the client id. Raises
    TimeoutError when the probe does not come within `timeout` seconds, and MqttError when the broker refuses it.
    """
    nonce, refusals, limits = secrets.token_hex(8), list[str](), list[asyncio.Timeout]()

    def on_puback(_: int, code: int, reason: str) -> None:
        if code >= FIRST_REFUSAL_CODE:
            refusals.append(reason)
            # Nothing more is to be waited for. After the end of the block it may not be changed.
            for limit in limits:
                with contextlib.suppress(RuntimeError):
                    limit.reschedule(0.0)

    async with MqttConnection(settings, f"{client}-{nonce[:8]}", on_puback) as link:
        await subscribe(link)
        try:
            async with asyncio.timeout(timeout) as limit:
                limits.append(limit)
                link.send(Message(topic, encode(Probe(rfc3339(SYSTEM.now()), nonce)), retain=False))
                async for message in link.messages:
                    if nonce.encode() in bytes(message.payload):
                        return
                    on_message(message)
        except TimeoutError:
            if not refusals:
                raise
            raise aiomqtt.MqttError(f"the broker refuses {topic}: {refusals[0]}") from None
