"""Rows 6 and 7: against what a user would build instead: a Node-RED flow that does the same without durability.

    inject -> http request (parsed JSON) -> split -> function (topic of the IMEI) -> filter (per topic) -> mqtt out

Both peers get the same bytes in one answer, and are timed from the GET that the API sees to the last message that a raw
QoS 0 subscriber gets. The bridge is the real command, told to poll by a command over MQTT; its answer is one page
(`page.style: none`), Home Assistant's discovery and all other calls are off. It publishes event, state, relations and
presence, durably; the flow publishes the state, QoS 1 and retained. Each round has new processes, new brokers and an
empty database, and the peers take turns in each scenario. CPU seconds are those of the peer's process until nothing
more comes.

"One record changed" stands for nothing changed: the one message says when the poll is over.
"""

import asyncio
import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import aiomqtt
import msgspec

from bench import polls
from bench.answers import PATH, Api, api
from bench.clock import ratios
from bench.progress import say
from bench.scope import Scope, spelled
from bench.subscriber import Subscriber, subscribe
from bench.table import Row, of_rounds
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.demo import mosquitto
from tests import harness
from tests.nodered import server
from tests.nodered.server import Usage

PAGE = 1000
"""Records of a page where the bridge reads pages."""
QUIET = 0.4
"""Seconds without a message after which nothing more is expected."""


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


# ── the peers ──────────────────────────────────────────────────────────────────────────────────


class Peer(Protocol):
    """What is measured: it polls when it is triggered, and uses memory and CPU."""

    usage: Usage
    topics: str
    page: int

    async def trigger(self) -> None:
        """Makes it ask the API once."""


class Bridge:
    """The bridge, told over MQTT to poll."""

    topics = "oneweb/terminal/#"

    def __init__(self, pid: int, client: aiomqtt.Client, page: int) -> None:
        self.usage = Usage(pid)
        self.page = page
        self._client = client

    async def trigger(self) -> None:
        """A live poll command."""
        await self._client.publish("oneweb/bridge/polling/user_terminals/poll", b"", qos=1)


@contextlib.asynccontextmanager
async def bridge(directory: Path, api_url: str, port: int, page: int = 0, **changes: Any) -> AsyncIterator[Bridge]:
    """The real command with an empty database; nothing polls by itself. `changes` are those of its configuration.

    It reads the listing in pages of so many records, or all in one.
    """
    calls: dict[str, Any] = {call: {"enabled": False} for call in CALLS}
    calls["user_terminals"]["page"] = {"limit": page} if page else {"style": "none"}
    given = {"polling": calls, "homeassistant": {"enabled": False}}
    config = harness.bridge_yaml(directory, api_url, port, **harness.merged(given, changes))
    async with harness.running(config) as process, aiomqtt.Client("127.0.0.1", port) as client:
        await harness.until_retained(port, "oneweb/bridge/status", lambda payload: payload["state"] == "online", 30)
        await harness.until_retained(port, "oneweb/bridge/info", lambda payload: payload["api"]["state"] == "ok", 30)
        yield Bridge(process.pid, client, page)


class Flow:
    """The flow, whose button is pressed."""

    topics = "nodered/terminal/#"
    page = 0

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


def nodered(directory: Path, api_url: str, port: int) -> contextlib.AbstractAsyncContextManager[Peer]:
    """A new Node-RED with the flow in it, connected to the broker."""
    return run_flow(directory, flow(api_url, port))


@contextlib.asynccontextmanager
async def run_flow(directory: Path, nodes: server.Flow) -> AsyncIterator[Flow]:
    """A new Node-RED with these nodes, connected to the broker."""
    async with server.running(directory) as node_red:
        await node_red.deploy(nodes)
        async with asyncio.timeout(30):
            while "Connected to broker" not in node_red.text():
                await asyncio.sleep(0.05)
        yield Flow(node_red)


# ── the scenarios ──────────────────────────────────────────────────────────────────────────────

SCENARIOS = ("first snapshot", "one record changed", "1 % changed", "all changed")


class Answer(msgspec.Struct, frozen=True):
    """What the API says in one scenario: the listing, how many records it has, and how many differ from before."""

    body: bytes
    records: int
    changed: int
    things: list[msgspec.Raw]

    def pages(self, page: int) -> list[bytes]:
        """The same listing in pages; all in one where `page` is 0."""
        if not page:
            return [self.body]
        return [msgspec.json.encode(self.things[at : at + page]) for at in range(0, self.records, page)]


def listings(terminals: int, scenarios: Sequence[str] = SCENARIOS) -> dict[str, Answer]:
    """Each scenario's answer."""
    things: list[dict[str, Any]] = [thing for page in polls.pages(terminals) for thing in msgspec.json.decode(page)]
    changed = {"first snapshot": things, "one record changed": things[:1], "1 % changed": things[::100]}
    seen_at = {}
    for scenario in scenarios:
        concerned = changed.get(scenario, things)
        for thing in concerned:
            thing["name"] = f"{thing['name']} ({scenario})"
        seen_at[scenario] = _answer_of(msgspec.json.encode(things), len(concerned))
    return seen_at


def _answer_of(body: bytes, changed: int) -> Answer:
    things = msgspec.json.decode(body, type=list[msgspec.Raw])
    return Answer(body, len(things), changed, [msgspec.Raw(bytes(thing)) for thing in things])


class Course:
    """One peer of one round: its subscriber, and what was measured."""

    def __init__(self, peer: Peer, subscriber: Subscriber, api: Api, records: int) -> None:
        self.peer = peer
        self.idle = peer.usage.rss
        self._subscriber = subscriber
        self._api = api
        self._records = records

    async def shot(self, answer: Answer, least: int = 0) -> Shot:
        """One poll that gets this answer, in pages where the peer reads pages, and causes so many messages at least."""
        least = least or answer.changed
        self._subscriber.reset()
        self._api.show(answer.pages(self.peer.page), answer.records, self.peer.page)
        self._api.asked_at = 0.0
        before = self.peer.usage.cpu
        await self.peer.trigger()
        await self._over(least)
        begun, subscriber = self._api.asked_at, self._subscriber
        return Shot(subscriber.first - begun, subscriber.last - begun, self.peer.usage.cpu - before, subscriber.count)

    async def _over(self, least: int, patience: float = 600.0) -> None:
        """Waits until as many messages have come, and then none for a while."""
        async with asyncio.timeout(patience):
            while self._subscriber.count < least or time.perf_counter() - self._subscriber.last < QUIET:
                assert not self._subscriber.lost, "the broker closed the subscriber's connection"
                await asyncio.sleep(QUIET / 4)

    def memory(self) -> Memory:
        """Of the whole round."""
        return Memory(self.idle, self.peer.usage.peak)


Made = Callable[[Path, str, int], contextlib.AbstractAsyncContextManager[Peer]]
PEERS: dict[str, Made] = {"bridge": bridge, "flow": nodered}
Shots = dict[tuple[str, str], Shot]


async def one_round(
    answers: dict[str, Answer], peers: dict[str, Made], *, backwards: bool
) -> tuple[Shots, dict[str, Memory]]:
    """All scenarios for both peers, each with its own broker."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shown_api = await stack.enter_async_context(api())
        records = next(iter(answers.values())).records
        courses = {}
        for name, made in peers.items():
            port = mosquitto.free_port()
            (directory / name).mkdir()
            await stack.enter_async_context(mosquitto.run_mosquitto(port))
            peer = await stack.enter_async_context(made(directory / name, shown_api.url, port))
            subscriber = await stack.enter_async_context(subscribe(port, peer.topics))
            courses[name] = Course(peer, subscriber, shown_api, records)
        order = sorted(courses, reverse=backwards)
        shots = {}
        for scenario, answer in answers.items():
            for name in order:
                shots[scenario, name] = await courses[name].shot(answer)
        return shots, {name: course.memory() for name, course in courses.items()}


async def measured(
    rounds: int, answers: dict[str, Answer], peers: dict[str, Made] | None = None
) -> tuple[list[Shots], list[dict[str, Memory]]]:
    """All rounds; who begins changes from round to round."""
    rows = []
    for number in range(rounds):
        rows.append(await one_round(answers, peers or PEERS, backwards=number % 2 == 1))
        say(f"Node-RED: round {number + 1} of {rounds}")
    return [shots for shots, _ in rows], [memory for _, memory in rows]


# ── the rows ───────────────────────────────────────────────────────────────────────────────────

GOALS = {"first snapshot": 1.5, "one record changed": 8.0, "1 % changed": 6.0, "all changed": 1.2}
Of = Callable[[str], list[float]]
"""The figures of a peer, round by round."""


def _medians(of: Of, form: str) -> dict[str, str]:
    """The median of each peer."""
    return {name: f"{statistics.median(of(name)):{form}}" for name in PEERS}


def median_of(shots: Sequence[Shot]) -> str:
    """Seconds and CPU seconds of the median shot in words."""
    wall, cpu = (statistics.median(getattr(shot, name) for shot in shots) for name in ("wall", "cpu"))
    return f"{wall:.3f} s, {cpu:.2f} CPU s"


def scenario_rows(shots: list[Shots], scenario: str, terminals: int) -> list[Row]:
    """How much sooner the bridge is done, and what a message costs it."""

    def of(member: str) -> Of:
        return lambda name: [getattr(shot[scenario, name], member) for shot in shots]

    def each(name: str) -> list[float]:
        return [1e6 * cpu / count for cpu, count in zip(of("cpu")(name), of("messages")(name), strict=True)]

    wall, cpu, first, count = of("wall"), of("cpu"), _medians(of("first"), ".3f"), _medians(of("messages"), ".0f")
    seconds = {name: f"{_medians(wall, '.3f')[name]} s, {_medians(cpu, '.2f')[name]} CPU s" for name in PEERS}
    what = f"{scenario} of {spelled(terminals)}"
    faster = Row(
        number="6",
        what=f"{what}: times faster than Node-RED",
        goal=GOALS[scenario],
        at_least=True,
        bridge=seconds["bridge"],
        floor=f"Node-RED: {seconds['flow']}",
        note=f"first message after {first['bridge']} s, with Node-RED {first['flow']} s",
    )
    cost = Row(
        number="6",
        what=f"{what}: CPU per message",
        goal=1.0,
        bridge=f"{_medians(each, '.0f')['bridge']} us",
        floor=f"Node-RED: {_medians(each, '.0f')['flow']} us",
        note=f"{count['bridge']} messages, Node-RED {count['flow']}",
    )
    # Time is theirs over ours, so that more is better; CPU is shown the same way.
    return [
        of_rounds(faster, ratios(wall("flow"), wall("bridge")), ratios(cpu("flow"), cpu("bridge"))),
        of_rounds(cost, ratios(each("bridge"), each("flow"))),
    ]


def memory_rows(
    memories: list[dict[str, Memory]], terminals: int, note: str = "both read the listing as one answer"
) -> list[Row]:
    """Resident memory, idle and at its highest."""
    rows = []
    for what, goal in (("idle", 0.33), ("peak", 0.27)):

        def of(name: str, what: str = what) -> list[float]:
            return [getattr(memory[name], what) for memory in memories]

        texts = _medians(of, ".0f")
        row = Row(
            number="7",
            what=f"{what} RSS against Node-RED, {spelled(terminals)}",
            goal=goal,
            bridge=f"{texts['bridge']} MiB",
            floor=f"Node-RED: {texts['flow']} MiB",
            note=note,
        )
        rows.append(of_rounds(row, ratios(of("bridge"), of("flow"))))
    return rows


async def rows(scope: Scope) -> AsyncIterator[Row]:
    """Rows 6 and 7. Raises server.NotInstalled."""
    terminals = scope.of(10_000)
    shots, memories = await measured(scope.rounds, listings(terminals))
    for scenario in SCENARIOS:
        for row in scenario_rows(shots, scenario, terminals):
            yield row
    for row in memory_rows(memories, terminals):
        yield row
    # Once is enough for memory, and a minute.
    terminals = scope.of(100_000)
    peers: dict[str, Made] = {"bridge": functools.partial(bridge, page=PAGE), "flow": nodered}
    _, memories = await measured(1, listings(terminals, ("first snapshot",)), peers)
    note = "the flow reads one answer, the bridge pages of 1 000, because it refuses one of more than 3 000 000 values"
    yield memory_rows(memories, terminals, note)[1]
