"""A broker is killed and returns amid many messages: `python -m tests.broker_rounds nats|mosquitto [MESSAGES]`.

The publisher of the bridge sends its journal to the first of several servers, which is killed (kill -9) after a quarter
of the messages, and started again after three quarters. At the end every row that was acknowledged has arrived, each
topic in its order, and the retained topics are right on every server of a cluster, or on the one that is in use.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.records import Batch, Entry, RecordWrite
from tests import harness, nats
from tests.test_publisher import Bench, bench

SITES = 20
CREDENTIALS = {"username": nats.USER, "password": nats.PASSWORD}
SITE_TOPICS = "oneweb/site/#"
PATIENCE_S = 240.0


class Figures(msgspec.Struct, kw_only=True):
    """What a round showed: rows, what was acknowledged and received of them, and violations."""

    rows: int
    acknowledged: int
    received: int
    repeats: int
    seconds: float
    findings: list[str] = []

    def __str__(self) -> str:
        return (
            f"{self.rows} rows: {self.acknowledged} acknowledged, {self.received} received, {self.repeats} of them "
            f"again, {len(self.findings)} violations, in {self.seconds:.1f} s"
        )


def numbered(number: int) -> Batch:
    """A new state of every site."""
    batch = Batch()
    for site in range(SITES):
        doc = json.dumps({"site_id": f"s{site}", "number": number}).encode()
        batch.entries.append(Entry("site", f"s{site}", "state", "state", number, doc))
        batch.writes.append(RecordWrite("site", f"s{site}", doc, entry=site))
    return batch


def key_of(content: dict[str, Any]) -> tuple[str, int]:
    """Site and number of a message."""
    return content["site_id"], content["number"]


def find_violations(sent: set[tuple[str, int]], received: list[tuple[str, int]], rounds: int) -> list[str]:
    """What is missing, and topics that went back but for exact repeats."""
    findings = []
    expected = {(f"s{site}", number) for site in range(SITES) for number in range(rounds)}
    if missing := expected - sent:
        findings.append(f"{len(missing)} rows were never acknowledged")
    if lost := sent - set(received):
        findings.append(f"{len(lost)} rows were acknowledged and have not arrived, like {min(lost)}")
    newest: dict[str, int] = {}
    known: set[tuple[str, int]] = set()
    for site, number in received:
        if (site, number) not in known and number < newest.get(site, -1):
            findings.append(f"{site}: {number} came for the first time after {newest[site]}")
        known.add((site, number))
        newest[site] = max(number, newest.get(site, -1))
    return findings


async def _commit(made: Bench, numbers: range) -> None:
    for number in numbers:
        await made.store.commit(numbered(number))


async def _are_right(read: Any, rounds: int) -> bool:
    contents = {topic: doc for topic, doc in (await read()).items() if topic.startswith("oneweb/site/")}
    return {key_of(doc) for doc in contents.values()} == {(f"s{site}", rounds - 1) for site in range(SITES)}


async def _until_right(read: Any, rounds: int) -> bool:
    """Whether the retained topics are right, or become so in a moment: servers of a cluster learn it one by one."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            while not await _are_right(read, rounds):
                await asyncio.sleep(0.2)
            return True
    return False


async def play_nats(directory: Path, messages: int) -> Figures:
    """A cluster of three."""
    async with nats.run_nats(directory) as cluster:
        return await play_in_cluster(cluster, directory, messages)


async def play_in_cluster(cluster: nats.NatsCluster, directory: Path, messages: int) -> Figures:
    """The first of three servers is killed, with a subscriber at the third."""
    rounds = messages // SITES
    begun, (first, *others) = time.monotonic(), cluster.ports
    servers = tuple(f"127.0.0.1:{port}" for port in others)
    async with (
        bench(directory, first, servers=servers, protocol="3.1.1", **CREDENTIALS) as made,
        nats.subscribed(others[-1], SITE_TOPICS) as subscriber,
    ):
        await _commit(made, range(rounds // 2))
        async with made.publishing():
            await subscriber.until(lambda: len(subscriber.messages) > messages / 4, PATIENCE_S)
            await cluster.kill(0)
            await _commit(made, range(rounds // 2, rounds))
            await subscriber.until(lambda: len(subscriber.messages) > messages * 3 / 4, PATIENCE_S)
            await cluster.start(0)
            await made.drained(PATIENCE_S)
        await cluster.until_ready(0)
        sent = {key_of(json.loads(message.payload)) for message in made.sent if "/site/" in message.topic}
        await subscriber.until(lambda: sent <= {key_of(doc) for _, doc in subscriber.messages}, PATIENCE_S)
    figures = _figures(rounds, sent, [key_of(doc) for _, doc in subscriber.messages], begun)
    for number, port in enumerate(cluster.ports):
        if not await _until_right(lambda port=port: nats.retained(port, SITE_TOPICS), rounds):
            figures.findings.append(f"retained topics are wrong on server {number}")
    return figures


async def play_mosquitto(directory: Path, messages: int) -> Figures:
    """Two brokers that know nothing of each other: the bridge goes to the second, and back when that is killed."""
    rounds = messages // SITES
    ports = [mosquitto.free_port(), mosquitto.free_port()]
    begun = time.monotonic()
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(PATIENCE_S):
        brokers = [await stack.enter_async_context(mosquitto.run_mosquitto(port)) for port in ports]
        recorders = [await stack.enter_async_context(harness.recording(port, SITE_TOPICS)) for port in ports]
        made = await stack.enter_async_context(bench(directory, ports[0], servers=(f"127.0.0.1:{ports[1]}",)))
        await _commit(made, range(rounds // 2))
        await stack.enter_async_context(made.publishing())
        await recorders[0].until(lambda: len(recorders[0].messages) > messages / 4, PATIENCE_S)
        brokers[0].kill()
        await _commit(made, range(rounds // 2, rounds))
        await recorders[1].until(lambda: len(recorders[1].messages) > messages / 4, PATIENCE_S)
        await stack.enter_async_context(mosquitto.run_mosquitto(ports[0]))
        await made.drained(PATIENCE_S)
        right = await _until_right(lambda: harness.retained(ports[1], SITE_TOPICS), rounds)
        head = (await harness.retained(ports[1], "oneweb/bridge/head"))["oneweb/bridge/head"]
        sent = {key_of(json.loads(message.payload)) for message in made.sent if "/site/" in message.topic}
        received = [key_of(doc) for recorder in recorders for _, doc, _ in recorder.messages if doc]
        figures = _figures(rounds, sent, received, begun)
        if not right or head["seq"] != await made.rows.head():
            figures.findings.append(f"retained topics or the head are wrong: {head}")
        return figures


def _figures(rounds: int, sent: set[tuple[str, int]], received: list[tuple[str, int]], begun: float) -> Figures:
    return Figures(
        rows=rounds * SITES,
        acknowledged=len(sent),
        received=len(set(received)),
        repeats=len(received) - len(set(received)),
        seconds=time.monotonic() - begun,
        findings=find_violations(sent, received, rounds),
    )


PLAYS = {"nats": play_nats, "mosquitto": play_mosquitto}


def main(arguments: list[str]) -> int:
    """The exit code: 0 when nothing was violated."""
    play, messages = PLAYS[arguments[0]], int(arguments[1]) if len(arguments) > 1 else 10_000
    with tempfile.TemporaryDirectory(prefix="oneweb-brokers-") as place:
        figures = asyncio.run(play(Path(place), messages))
    print(figures, *figures.findings, sep="\n  ")
    return 1 if figures.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
