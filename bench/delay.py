"""Row 9: from the last byte of the API's answer to the message at a subscriber, against what that takes at least.

The floor is made of three things that are measured after each poll, with nothing of the bridge in them: decoding the
same answer to plain objects, one SQLite transaction with one row that is written out, and one QoS 1 message to the same
broker until the same subscriber has it. The bridge and the broker are processes of their own, the API and the
subscriber are in this one, which does nothing else meanwhile.
"""

import asyncio
import contextlib
import sqlite3
import statistics
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec

from bench import floor, polls
from bench.answers import Api, api
from bench.clock import Clock, quantile
from bench.fleet import CALM, Run, running
from bench.progress import say
from bench.scope import Scope, spelled
from bench.subscriber import Subscriber, subscribe
from bench.table import Row
from oneweb_bridge.store import store

POLLS = 15
"""Polls for each round that is shown_api for."""
LEAST = 20
PATIENCE = 20.0
TOPIC = "floor/one"


class Least(msgspec.Struct, frozen=True):
    """One measure of the floor, in ms; `split` is what row 1 has instead of decoding: split, key and hash."""

    decode: float
    commit: float
    publish: float
    split: float

    @property
    def total(self) -> float:
        """Of what every way from the answer to the subscriber has to do."""
        return self.decode + self.commit + self.publish


# ── the floor ──────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _committing(directory: Path) -> Iterator[sqlite3.Connection]:
    """An empty database of the bridge's schema on the same disk."""
    schema = (Path(store.__file__).parent / "schema.sql").read_text()
    with contextlib.closing(sqlite3.connect(directory / "floor.db", isolation_level=None)) as db:
        db.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {schema}")
        yield db


class Sender:
    """A raw connection to the broker."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._number = 0

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(floor.connect("floor"))
        await self._reader.readexactly(4)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def send(self, payload: bytes) -> None:
        """One message, until the broker has acknowledged it."""
        self._number += 1
        self._writer.write(floor.publish(TOPIC.encode(), self._number, payload))
        acknowledged = await self._reader.readexactly(4)
        assert struct.unpack("!H", acknowledged[2:])[0] == self._number


async def _least(body: bytes, db: sqlite3.Connection, sender: Sender, subscriber: Subscriber) -> Least:
    clock, split = Clock(), Clock()
    clock.start()
    msgspec.json.decode(body)
    clock.stop()
    polls.split_and_hash([body], split)
    begun = time.perf_counter()
    db.execute("BEGIN IMMEDIATE")
    db.execute(
        """INSERT INTO journal (at, entity, id, what, name, ts, body)
           VALUES (1, 'terminal', '1', 'changed', '', 1, ?)""",
        (b"x" * 300,),
    )
    db.execute("COMMIT")
    committed = time.perf_counter()
    subscriber.reset()
    sent = time.perf_counter()
    await sender.send(b"x" * 300)
    await _first_arrivals(subscriber, {TOPIC})
    return Least(1e3 * clock.wall, 1e3 * (committed - begun), 1e3 * (subscriber.last - sent), 1e3 * split.wall)


async def _first_arrivals(subscriber: Subscriber, topics: set[str]) -> dict[str, float]:
    """When each of the topics had its first message. Raises AssertionError with what is missing."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        seen_at: dict[str, float] = {}
        for topic, at in subscriber.arrivals:
            seen_at.setdefault(topic, at)
        if topics <= seen_at.keys():
            return {topic: seen_at[topic] for topic in topics}
        await asyncio.sleep(0.002)
    raise AssertionError(f"not heard in {PATIENCE:.0f} s: {sorted(topics - {t for t, _ in subscriber.arrivals})[:3]}")


# ── the bridge ─────────────────────────────────────────────────────────────────────────────────


class Fleet:
    """A listing in which another hundredth has another name, and everybody another time, in each poll."""

    def __init__(self, terminals: int) -> None:
        pages = polls.pages(terminals)
        self.things: list[dict[str, Any]] = [thing for page in pages for thing in msgspec.json.decode(page)]
        self._number = 0

    def body(self) -> bytes:
        """As it is."""
        return polls.later([msgspec.json.encode(self.things)], self._number % 1000)[0]

    def changed(self) -> set[str]:
        """Changes one of a hundred; returns the topics that tell of it."""
        self._number += 1
        concerned = self.things[self._number % 100 :: 100]
        for thing in concerned:
            thing["name"] = f"{thing['name'].partition(' #')[0]} #{self._number}"
        imeis = [thing["imei"] for thing in concerned]
        return {f"oneweb/terminal/{imei}/{what}" for imei in imeis for what in ("event/changed", "state")}


async def _poll_once(run: Run, shown_api: Api, fleet: Fleet, subscriber: Subscriber) -> tuple[list[float], bytes]:
    """One poll: the delay of each message in ms, and the answer."""
    topics, body = fleet.changed(), fleet.body()
    shown_api.show([body], len(fleet.things))
    subscriber.reset()
    await run.tell("user_terminals", "poll")
    received = await _first_arrivals(subscriber, topics)
    return [1e3 * (at - shown_api.answered) for at in received.values()], body


async def _measured(terminals: int, count: int) -> tuple[list[float], list[Least]]:
    fleet, delays, least = Fleet(terminals), [], []
    async with contextlib.AsyncExitStack() as stack:
        shown_api = await stack.enter_async_context(api())
        shown_api.show([fleet.body()], len(fleet.things))
        run = await stack.enter_async_context(running(shown_api.url, polling=CALM, homeassistant={"enabled": False}))
        await run.poll("user_terminals")
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        db = stack.enter_context(_committing(directory))
        sender = await stack.enter_async_context(Sender(run.port))
        subscriber = await stack.enter_async_context(subscribe(run.port, "#", noting=True))
        for number in range(count):
            parts, body = await _poll_once(run, shown_api, fleet, subscriber)
            delays += parts
            await run.wait_until_at_rest()
            least.append(await _least(body, db, sender, subscriber))
            if number % POLLS == POLLS - 1:
                say(f"delay: {number + 1} of {count} polls")
    return delays, least


async def rows(scope: Scope) -> AsyncIterator[Row]:
    """Row 9."""
    terminals = max(100, scope.of(1000))
    delays, least = await _measured(terminals, max(LEAST, POLLS * scope.rounds))
    medians = {name: statistics.median(getattr(part, name) for part in least) for name in Least.__struct_fields__}
    total, p99 = statistics.median(part.total for part in least), quantile(delays, 0.99)
    split = total - medians["decode"] + medians["split"]
    note = (
        f"{spelled(len(delays))} messages of {len(least)} polls of {spelled(terminals)} terminals with 1 % changed and "
        f"every volatile field moved; median delay {statistics.median(delays):.1f} ms, longest {max(delays):.1f} ms; "
        f"the floor's own p99 {quantile([part.total for part in least], 0.99):.1f} ms; "
        f"{p99 / split:.2f} x where the floor splits and hashes ({medians['split']:.1f} ms) instead of decoding"
    )
    yield Row(
        number="9",
        what="last byte of the answer to message at a subscriber, p99",
        goal=2.5,
        measured=p99 / total,
        bridge=f"{p99:.1f} ms",
        floor=(
            f"{total:.1f} ms: decode {medians['decode']:.1f} + commit {medians['commit']:.1f} + "
            f"publish {medians['publish']:.1f}"
        ),
        note=note,
    )
