"""A Sparkplug host written from the specification: a tag store that follows births, data and deaths, and a client.

It shares no code with the bridge. Source: Sparkplug 3.0.0, chapters 5.3 to 5.5, 5.7 and 6.4.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiomqtt
import msgspec

from tests.cancelling import end_tasks
from tests.sparkplug.reader import Metric, Unreadable, read_payload

NAMESPACE = "spBv1.0"
GOOD = 192
Key = tuple[str, str]
"""Device (empty for the node, the id with a slash for further nodes) and the name of a metric."""


class Tag(msgspec.Struct, frozen=True):
    """The live value of a metric, at its own time."""

    value: Any
    ts: int
    quality: int = GOOD


class Node(msgspec.Struct):
    """One Edge Node as its births say it. `devices` has the born ones, and '' for the node itself."""

    is_online: bool = False
    bd_seq: int | None = None
    seq: int = 0
    aliases: dict[int, tuple[str, str, int | None]] = {}
    """Alias -> Device, name, datatype."""
    devices: set[str] = set()


class TagStore:
    """What a host knows. `problems` are breaches that no lost message excuses."""

    def __init__(self) -> None:
        self.nodes: dict[tuple[str, str], Node] = {}
        self.tags: dict[Key, Tag] = {}
        self.history: dict[Key, dict[int, list[Any]]] = {}
        """What came in DDATA, live or historical: time -> values in the order in which they came."""
        self.problems: list[str] = []
        self._first = ""

    def take(self, topic: str, body: bytes) -> bool:
        """Takes one message. Returns whether a rebirth of its Edge Node has to be asked for."""
        levels = topic.split("/")
        if len(levels) < 4 or levels[0] != NAMESPACE or levels[2].endswith("CMD"):
            return False
        verb, device = levels[2], levels[4] if len(levels) > 4 else ""
        node = self.nodes.setdefault((levels[1], levels[3]), Node())
        try:
            payload = read_payload(body)
        except Unreadable as error:
            self.problems.append(f"{topic}: {error}")
            return True
        self._first = self._first or levels[3]
        owner = device or ("" if levels[3] == self._first else f"{levels[3]}/")
        if verb == "NDEATH":
            self._die(node, payload.metric("bdSeq"))
            return False
        if verb == "NBIRTH":
            self._bear_node(node, payload.seq or 0, payload.metric("bdSeq"))
        elif not node.is_online or payload.seq != (node.seq + 1) % 256:
            node.seq = payload.seq or 0
            return True
        node.seq = payload.seq or 0
        if verb.endswith("BIRTH"):
            self._bear(node, device, owner, payload.metrics)
        elif verb == "DDEATH":
            self._remove(node, device)
        elif device not in node.devices:
            return True
        else:
            return False in [self._tell(node, device, owner, metric) for metric in payload.metrics]
        return False

    def _die(self, node: Node, bd_seq: Metric | None) -> None:
        """The NDEATH of an earlier session says nothing of this one."""
        if bd_seq is not None and bd_seq.value == node.bd_seq:
            node.is_online = False
            node.devices.clear()

    def _bear_node(self, node: Node, seq: int, bd_seq: Metric | None) -> None:
        node.is_online, node.seq, node.bd_seq = True, seq, bd_seq.value if bd_seq else None
        node.aliases.clear()
        node.devices.clear()

    def _bear(self, node: Node, device: str, owner: str, metrics: tuple[Metric, ...]) -> None:
        node.devices.add(device)
        names = {metric.name or "" for metric in metrics}
        for key in [key for key in self.tags if key[0] == owner and key[1] not in names]:
            del self.tags[key]
        for metric in metrics:
            if metric.alias is not None:
                node.aliases[metric.alias] = (device, metric.name or "", metric.datatype)
            self._set_live((owner, metric.name or ""), metric, metric.datatype)

    def _remove(self, node: Node, device: str) -> None:
        node.devices.discard(device)
        for key in [key for key in self.tags if key[0] == device]:
            del self.tags[key]

    def _tell(self, node: Node, device: str, owner: str, metric: Metric) -> bool:
        """Takes a metric of data. Returns False for one that no birth has said."""
        born, name, datatype = node.aliases.get(metric.alias or 0, ("", "", None))
        if not name or born != device:
            return False
        value = metric.meaning(datatype)
        if device and value is not None:
            values = self.history.setdefault((device, name), {}).setdefault(metric.timestamp or 0, [])
            if not values or values[-1] != value:
                values.append(value)
        if not metric.is_historical:
            self._set_live((owner, name), metric, datatype)
        return True

    def _set_live(self, key: Key, metric: Metric, datatype: int | None) -> None:
        value, ts, before = metric.meaning(datatype), metric.timestamp or 0, self.tags.get(key)
        if before is not None and None not in (value, before.value) and ts < before.ts:
            self.problems.append(f"{key} went back from {before.ts} to {ts}")
        quality = metric.property("Quality")
        self.tags[key] = Tag(value, ts, GOOD if quality is None else quality.value)


class Host:
    """A client that keeps a tag store. With an id it is a primary host, and says so."""

    def __init__(self, port: int, host_id: str | None = None) -> None:
        self.store = TagStore()
        self.has_news = asyncio.Event()
        self._port = port
        self._id = host_id
        self._client: aiomqtt.Client | None = None
        self._asked_at: dict[tuple[str, str], float] = {}

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator["Host"]:
        """Listens, also over restarts of the broker, until the end of the block; then it goes offline."""
        task = asyncio.create_task(self._run(), name="sparkplug host")
        try:
            yield self
        finally:
            task.cancel()
            # Once only: a second cancellation would end its wait for the deaths.
            await asyncio.wait({task}, timeout=60)
            await end_tasks(task)

    async def until(self, true: Callable[[], Any], patience: float = 60.0) -> Any:
        """Waits until something holds, looking after each message. Returns what it gave."""
        async with asyncio.timeout(patience):
            while not (result := true()):
                self.has_news.clear()
                await self.has_news.wait()
            return result

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._listen()
            await asyncio.sleep(0.1)

    async def _listen(self) -> None:
        stamp = round(time.time() * 1000)
        will = None if self._id is None else aiomqtt.Will(self._state_topic, _state(online=False, ts=stamp), 1, True)
        async with aiomqtt.Client(
            "127.0.0.1", self._port, will=will, timeout=5, max_queued_incoming_messages=0
        ) as client:
            self._client = client
            await client.subscribe(f"{NAMESPACE}/#", qos=1)
            if self._id is not None:
                await client.publish(self._state_topic, _state(online=True, ts=stamp), qos=1, retain=True)
            try:
                async for message in client.messages:
                    await self._take(client, str(message.topic), bytes(message.payload))
            except asyncio.CancelledError:
                if self._id is not None:
                    await self.go_offline()
                raise

    async def go_offline(self) -> None:
        """Says offline, and stays until the Edge Nodes have left, so that nothing is on its way to nobody."""
        assert self._client
        await self._client.publish(
            self._state_topic, _state(online=False, ts=round(time.time() * 1000)), qos=1, retain=True
        )
        async with asyncio.timeout(50):
            while any(node.is_online for node in self.store.nodes.values()):
                message = await anext(aiter(self._client.messages))
                self.store.take(str(message.topic), bytes(message.payload))

    @property
    def _state_topic(self) -> str:
        return f"{NAMESPACE}/STATE/{self._id}"

    async def _take(self, client: aiomqtt.Client, topic: str, body: bytes) -> None:
        asks = self.store.take(topic, body)
        node = tuple(topic.split("/")[1:4:2])
        if asks and time.monotonic() - self._asked_at.get(node, 0.0) > 1.0:  # type: ignore[arg-type]  # of two
            self._asked_at[node] = time.monotonic()  # type: ignore[index]  # of two
            await client.publish(f"{NAMESPACE}/{node[0]}/NCMD/{node[1]}", rebirth_request(), qos=1)
        self.has_news.set()


def _state(*, online: bool, ts: int) -> bytes:
    return json.dumps({"online": online, "timestamp": ts}).encode()


# ── writing, by hand ───────────────────────────────────────────────────────────────────────────


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def write_command(name: str, value: bool | int) -> bytes:
    """An NCMD of one metric by name: a Boolean, or an Int64."""
    text = name.encode()
    metric = b"\x0a" + _number(len(text)) + text + b"\x18" + _number(round(time.time() * 1000))
    metric += b"\x20\x0b\x70" + bytes([value]) if isinstance(value, bool) else b"\x20\x04\x58" + _number(value)
    return b"\x08" + _number(round(time.time() * 1000)) + b"\x12" + _number(len(metric)) + metric


def rebirth_request() -> bytes:
    """An NCMD that asks for all births."""
    return write_command("Node Control/Rebirth", value=True)
