"""Against what a user would build instead: a Node-RED flow that does the same without durability.

    inject -> http request (parsed JSON) -> split -> function (topic of the IMEI) -> filter (per topic) -> mqtt out

Both peers get the same bytes in one answer, and are timed from the GET that the API sees to the last message that a raw
QoS 0 subscriber gets. The bridge is the real command, told to poll by a command over MQTT; its answer is one page
(`page.style: none`), Home Assistant's discovery and all other calls are off. It publishes event, state, relations and
presence, durably; the flow publishes the state, QoS 1 and retained. Each round has new processes, new brokers and an
empty database, and the peers take turns in each scenario. CPU seconds are those of the peer's process until nothing
more comes.

"One record changed" stands for nothing changed: the one message says when the poll is over.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import aiomqtt
import msgspec
from aiohttp import web

from bench import floor, polls
from oneweb_bridge import broker
from oneweb_bridge.catalogue import CALLS
from tests import harness
from tests.nodered import server
from tests.nodered.server import Usage

PATH = CALLS["user_terminals"].path
QUIET = 0.4
"""Seconds without a message after which nothing more is expected."""


class Row(msgspec.Struct, frozen=True):
    """One line of the table: a median over the rounds, the goal, and the figures of both peers."""

    what: str
    goal: float
    at_least: bool
    measured: float
    unit: str
    note: str

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal


class Shot(msgspec.Struct, frozen=True):
    """One poll of one peer: seconds to the first and last message, CPU seconds, how many messages."""

    first: float
    wall: float
    cpu: float
    messages: int


class Memory(msgspec.Struct, frozen=True):
    """Resident memory of one peer in one round, in MiB."""

    idle: float
    peak: float


class Api:
    """The API: whatever is asked for, but the sign-in check, is answered with `body`."""

    def __init__(self) -> None:
        self.url = ""
        self.body = b"[]"
        self.asked = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        """Notes when the listing was asked for."""
        if request.path != PATH:
            return web.json_response({"hello": "world"})
        self.asked = time.perf_counter()
        return web.Response(body=self.body, content_type="application/json")


@contextlib.asynccontextmanager
async def api() -> AsyncIterator[Api]:
    """An API on a free loopback port."""
    made = Api()
    app = web.Application()
    app.router.add_get("/{path:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", broker.free_port())
        await site.start()
        made.url = site.name
        yield made
    finally:
        await runner.cleanup()


class Ear(asyncio.Protocol):
    """A raw QoS 0 subscriber, which reads no more of a message than that it came."""

    def __init__(self, topics: str) -> None:
        self.count = 0
        self.first = self.last = 0.0
        self.ready = asyncio.Event()
        self._subscribe = b"\x00\x01" + floor._field(topics.encode()) + b"\x00"
        self._left = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Signs in and subscribes."""
        assert isinstance(transport, asyncio.Transport)
        transport.write(floor.connect(f"ear-{id(self)}") + floor._packet(0x82, self._subscribe))

    def data_received(self, data: bytes) -> None:
        """Counts what is complete."""
        data, now, at, count = self._left + data, time.perf_counter(), 0, self.count
        while (end := _end(data, at)) is not None:
            count += data[at] >> 4 == 3
            if data[at] == 0x90:
                self.ready.set()
            at = end
        self._left = data[at:]
        if count > self.count:
            self.first, self.last, self.count = self.first or now, now, count

    def again(self) -> None:
        """Counts from 0."""
        self.count, self.first, self.last = 0, 0.0, 0.0


def _end(data: bytes, at: int) -> int | None:
    """Where the MQTT packet that begins at `at` ends, or None when it is not all there."""
    size = shift = 0
    for position in range(at + 1, min(at + 5, len(data))):
        size |= (data[position] & 0x7F) << shift
        shift += 7
        if data[position] < 0x80:
            end = position + 1 + size
            return end if end <= len(data) else None
    return None


@contextlib.asynccontextmanager
async def hearing(port: int, topics: str) -> AsyncIterator[Ear]:
    """A subscriber to `topics`."""
    ear = Ear(topics)
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: ear, "127.0.0.1", port)
    try:
        await asyncio.wait_for(ear.ready.wait(), 10)
        yield ear
    finally:
        transport.close()


# ── the peers ──────────────────────────────────────────────────────────────────────────────────


class Peer(Protocol):
    """What is measured: it polls when it is triggered, and uses memory and CPU."""

    usage: Usage
    topics: str

    async def trigger(self) -> None:
        """Makes it ask the API once."""


class Bridge:
    """The bridge, told over MQTT to poll."""

    topics = "oneweb/terminal/#"

    def __init__(self, pid: int, client: aiomqtt.Client) -> None:
        self.usage = Usage(pid)
        self._client = client

    async def trigger(self) -> None:
        """A live poll command."""
        await self._client.publish("oneweb/bridge/polling/user_terminals/poll", b"", qos=1)


@contextlib.asynccontextmanager
async def bridge(directory: Path, api_url: str, port: int) -> AsyncIterator[Bridge]:
    """The real command with an empty database; nothing polls by itself."""
    calls: dict[str, Any] = {call: {"enabled": False} for call in CALLS}
    calls["user_terminals"]["page"] = {"style": "none"}
    config = harness.bridge_yaml(directory, api_url, port, polling=calls, homeassistant={"enabled": False})
    async with harness.running(config) as process, aiomqtt.Client("127.0.0.1", port) as client:
        await harness.until_retained(port, "oneweb/bridge/status", lambda said: said["state"] == "online", 30)
        await harness.until_retained(port, "oneweb/bridge/info", lambda said: said["api"]["state"] == "ok", 30)
        yield Bridge(process.pid, client)


class Flow:
    """The flow, whose button is pressed."""

    topics = "nodered/terminal/#"

    def __init__(self, node_red: server.NodeRed) -> None:
        self.usage = Usage(node_red.pid)
        self._node_red = node_red

    async def trigger(self) -> None:
        """Presses the button."""
        await self._node_red.press("trigger")


def flow(api_url: str, port: int) -> server.Flow:
    """What a user would build: core nodes, with their defaults."""
    function = "msg.topic = 'nodered/terminal/' + msg.payload.imei + '/state';\nreturn msg;"
    return [
        {"id": "tab", "type": "tab", "label": "Terminals"},
        _node("trigger", "inject", "request", props=[{"p": "payload"}], payload="", payloadType="date"),
        _node("request", "http request", "split", method="GET", ret="obj", url=f"{api_url}{PATH}", headers=[]),
        _node("split", "split", "topic", arraySplt=1, arraySpltType="len", spltType="str", splt="\\n"),
        _node("topic", "function", "filter", func=function, outputs=1),
        _node("filter", "rbe", "out", func="rbe", property="payload", topi="topic", septopics=True),
        _node("out", "mqtt out", broker="broker", topic="", qos="1", retain="true"),
        {
            "id": "broker",
            "type": "mqtt-broker",
            "broker": "127.0.0.1",
            "port": str(port),
            "protocolVersion": "5",
            "keepalive": "60",
            "cleansession": True,
        },
    ]


def _node(id: str, type: str, *to: str, **rest: Any) -> dict[str, Any]:
    return {"id": id, "type": type, "z": "tab", "name": "", "x": 0, "y": 0, "wires": [list(to)], **rest}


@contextlib.asynccontextmanager
async def nodered(directory: Path, api_url: str, port: int) -> AsyncIterator[Flow]:
    """A new Node-RED with the flow in it, connected to the broker."""
    async with server.running(directory) as node_red:
        await node_red.deploy(flow(api_url, port))
        async with asyncio.timeout(30):
            while "Connected to broker" not in node_red.text():
                await asyncio.sleep(0.05)
        yield Flow(node_red)


# ── the scenarios ──────────────────────────────────────────────────────────────────────────────

SCENARIOS = ("first snapshot", "one record changed", "1 % changed", "all changed")


def listings(terminals: int) -> dict[str, tuple[bytes, int]]:
    """Each scenario's answer, and how many records differ from the one before."""
    things: list[dict[str, Any]] = [thing for page in polls.pages(terminals) for thing in msgspec.json.decode(page)]
    changed = {"first snapshot": things, "one record changed": things[:1], "1 % changed": things[::100]}
    found = {}
    for scenario in SCENARIOS:
        concerned = changed.get(scenario, things)
        for thing in concerned:
            thing["name"] = f"{thing['name']} ({scenario})"
        found[scenario] = (msgspec.json.encode(things), len(concerned))
    return found


class Course:
    """One peer of one round: its ear, and what was measured."""

    def __init__(self, peer: Peer, ear: Ear, api: Api) -> None:
        self.peer = peer
        self.idle = peer.usage.rss
        self._ear = ear
        self._api = api

    async def shot(self, body: bytes, least: int) -> Shot:
        """One poll that answers `body` and causes at least so many messages."""
        self._ear.again()
        self._api.body, self._api.asked = body, 0.0
        before = self.peer.usage.cpu
        await self.peer.trigger()
        await self._over(least)
        asked, ear = self._api.asked, self._ear
        return Shot(ear.first - asked, ear.last - asked, self.peer.usage.cpu - before, ear.count)

    async def _over(self, least: int, patience: float = 120.0) -> None:
        """Waits until as many messages have come, and then none for a while."""
        async with asyncio.timeout(patience):
            while self._ear.count < least or time.perf_counter() - self._ear.last < QUIET:
                await asyncio.sleep(QUIET / 4)

    def memory(self) -> Memory:
        """Of the whole round."""
        return Memory(self.idle, self.peer.usage.peak)


Made = Callable[[Path, str, int], contextlib.AbstractAsyncContextManager[Peer]]
PEERS: dict[str, Made] = {"bridge": bridge, "flow": nodered}
Shots = dict[tuple[str, str], Shot]


async def one_round(answers: dict[str, tuple[bytes, int]], *, backwards: bool) -> tuple[Shots, dict[str, Memory]]:
    """All scenarios for both peers, each with its own broker."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        asked = await stack.enter_async_context(api())
        courses = {}
        for name, made in PEERS.items():
            port = broker.free_port()
            (directory / name).mkdir()
            await stack.enter_async_context(broker.running(port))
            peer = await stack.enter_async_context(made(directory / name, asked.url, port))
            courses[name] = Course(peer, await stack.enter_async_context(hearing(port, peer.topics)), asked)
        order = sorted(courses, reverse=backwards)
        shots = {}
        for scenario, (body, changed) in answers.items():
            for name in order:
                shots[scenario, name] = await courses[name].shot(body, changed)
        return shots, {name: course.memory() for name, course in courses.items()}


async def measured(rounds: int, terminals: int) -> tuple[list[Shots], list[dict[str, Memory]]]:
    """All rounds; who begins changes from round to round."""
    answers = listings(terminals)
    found = [await one_round(answers, backwards=number % 2 == 1) for number in range(rounds)]
    return [shots for shots, _ in found], [memory for _, memory in found]


# ── the rows ───────────────────────────────────────────────────────────────────────────────────

GOALS = {"first snapshot": 1.5, "one record changed": 10.0, "1 % changed": 10.0, "all changed": 1.2}


def _ratio(of: Callable[[int, str], float], above: str, below: str, rounds: int) -> float:
    return round(statistics.median(of(number, above) / of(number, below) for number in range(rounds)), 2)


def _both(of: Callable[[int, str], float], rounds: int, form: str) -> str:
    return ", ".join(f"{name} {statistics.median(of(n, name) for n in range(rounds)):{form}}" for name in PEERS)


def scenario_rows(shots: list[Shots], scenario: str, terminals: int) -> list[Row]:
    """How much sooner the bridge is done, and what a message costs it."""
    rounds = len(shots)

    def wall(number: int, name: str) -> float:
        return shots[number][scenario, name].wall

    def first(number: int, name: str) -> float:
        return shots[number][scenario, name].first

    def cpu(number: int, name: str) -> float:
        return shots[number][scenario, name].cpu

    def each(number: int, name: str) -> float:
        return 1e6 * cpu(number, name) / shots[number][scenario, name].messages

    counted = ", ".join(f"{name} {shots[0][scenario, name].messages}" for name in PEERS)
    what = f"{scenario} of {terminals}, against Node-RED"
    seconds = f"s: {_both(wall, rounds, '.3f')}; to the first: {_both(first, rounds, '.3f')}"
    spent = f"CPU s: {_both(cpu, rounds, '.2f')}; messages: {counted}; CPU us a message: {_both(each, rounds, '.0f')}"
    return [
        Row(f"{what}, times faster", GOALS[scenario], True, _ratio(wall, "flow", "bridge", rounds), "x", seconds),
        Row(f"{what}, CPU per message", 1.0, False, _ratio(each, "bridge", "flow", rounds), "x", spent),
    ]


def memory_rows(memories: list[dict[str, Memory]], terminals: int) -> list[Row]:
    """Resident memory, idle and at its highest."""
    rounds = len(memories)
    found = []
    for what, goal in (("idle", 0.5), ("peak", 0.25)):

        def of(number: int, name: str, what: str = what) -> float:
            return float(getattr(memories[number][name], what))

        note = f"MiB: {_both(of, rounds, '.0f')}"
        ratio = _ratio(of, "bridge", "flow", rounds)
        found.append(Row(f"{what} RSS, {terminals} terminals, against Node-RED", goal, False, ratio, "x", note))
    return found


async def rows(rounds: int, terminals: int = 10_000) -> list[Row]:
    """The rows of the table. Raises server.NotInstalled."""
    shots, memories = await measured(rounds, terminals)
    found = [row for scenario in SCENARIOS for row in scenario_rows(shots, scenario, terminals)]
    return [*found, *memory_rows(memories, terminals)]


def main() -> int:
    """Prints the rows."""
    options = argparse.ArgumentParser(description="The bridge against a Node-RED flow.")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--terminals", type=int, default=10_000)
    given = options.parse_args()
    for row in asyncio.run(rows(given.rounds, given.terminals)):
        sign = ">=" if row.at_least else "<="
        print(f"{row.what:58} goal {sign} {row.goal:5.2f} {row.unit}  {row.measured:6.2f} {row.unit}   {row.note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
