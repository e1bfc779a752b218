"""Draining 20 000 journal rows of 300 bytes: ours, a bare aiomqtt sliding window, and the floor."""

import asyncio
import math
import tempfile
from pathlib import Path

import aiomqtt
import msgspec

from bench import floor
from bench.clock import Clock
from oneweb_bridge.config.read import parse
from oneweb_bridge.model.records import Batch, Entry
from oneweb_bridge.mqtt.context import PublisherCallbacks
from oneweb_bridge.mqtt.publisher import Publisher
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store import journal, store

PAD = b"x" * 260
WINDOW = 20
"""What a mosquitto with its default configuration announces, and the bridge takes by itself."""


def entry(number: int, topics: int) -> Entry:
    """One sample of about 300 bytes."""
    body = b'{"imei":"359235170006117","ts":' + str(number).encode() + b',"pad":"' + PAD + b'"}'
    return Entry("terminal", f"35923517{number % topics:07d}", "metric", "signal_quality", number, body)


def messages(count: int, topics: int) -> list[tuple[bytes, bytes, bool]]:
    """The same as topic, payload and whether it is retained."""
    made = [entry(number, topics) for number in range(count)]
    return [(f"oneweb/terminal/{e.id}/metric/signal_quality".encode(), e.body, True) for e in made]


async def _nothing() -> dict[str, object]:
    return {}


async def _no_alert(_: str, __: str) -> None:
    return None


async def ours(port: int, count: int, topics: int, clock: Clock) -> None:
    """The bridge's publisher, its journal and its cursor. The journal is filled before the clock starts."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        async with store.open_store(path) as opened, journal.open_journal(path, "mqtt") as rows:
            for start in range(0, count, 1000):
                await opened.commit(Batch(entries=[entry(n, topics) for n in range(start, min(start + 1000, count))]))
            settings = msgspec.structs.replace(parse("", {}).mqtt, host="127.0.0.1", port=port)
            callbacks = PublisherCallbacks(on_command=lambda _: None, info=_nothing, alert=_no_alert)
            made = Publisher(settings, TopicTree("oneweb", "main", opened.journal_id), rows, opened.growth, callbacks)
            clock.start()
            task = asyncio.create_task(made.run())
            while made.cursor < count:
                await asyncio.sleep(0.005)
            clock.stop()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def bare(port: int, count: int, topics: int, clock: Clock) -> None:
    """What aiomqtt does at its best: 20 workers on one iterator, no timeout per message, no durability."""
    async with aiomqtt.Client(
        "127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5, max_inflight_messages=40
    ) as client:
        client.pending_calls_threshold = 100
        left = iter(messages(count, topics))

        async def work() -> None:
            for topic, payload, retain in left:
                await client.publish(topic.decode(), payload, qos=1, retain=retain, timeout=math.inf)

        clock.start()
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(work())
        clock.stop()


async def by_hand(port: int, count: int, topics: int, clock: Clock) -> None:
    """The floor, with the protocol, the properties and the window of `ours`."""
    made = messages(count, topics)
    clock.start()
    await floor.drain(port, made, WINDOW)
    clock.stop()
