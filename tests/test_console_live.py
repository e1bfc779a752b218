"""The live stream: the journal's order, nothing missed and no event twice over any cut, and bounds for slow readers."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from oneweb_bridge.config.read import parse
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.records import Batch, Entry, Row
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store import store
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.query_thread import open_query_thread
from oneweb_bridge.web import live
from oneweb_bridge.web.console import Console
from oneweb_bridge.web.live import LiveStream
from oneweb_bridge.web.live_messages import messages_of
from oneweb_bridge.web.streaming import LiveRoute
from tests import harness
from tests.cancelling import end_tasks
from tests.consoles import TOKEN, Visits, visited

TREE = TopicTree("oneweb", "main", "j")


class Message(msgspec.Struct):
    """One message of a stream."""

    event: str
    data: Any
    id: str | None = None

    @property
    def seq(self) -> int:
        return int((self.id or ":0").rpartition(":")[2])


def parse_messages(text: str) -> list[Message]:
    """The messages of a stream, without its comments."""
    messages = []
    for part in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.splitlines() if not line.startswith((":", "retry")))
        if fields:
            messages.append(Message(fields["event"], json.loads(fields["data"]), fields.get("id")))
    return messages


# ── rows to messages ───────────────────────────────────────────────────────────────────────────


def row(
    seq: int, what: Any, entity: str = "terminal", id: str = "1", name: str = "", *, ts: int = 5, **body: Any
) -> Row:
    return Row(seq, 0, entity, id, what, name, ts, json.dumps(body).encode())


def events_of(*rows: Row) -> list[tuple[str, int, Any]]:
    messages = parse_messages(b"".join(message.text for message in messages_of(TREE, rows)).decode())
    return [(message.event, message.seq, message.data) for message in messages]


def state(entity: str, id: str, what: str, body: Any) -> dict[str, Any]:
    return {"entity": entity, "id": id, "what": what, "body": body}


def test_each_row_has_its_messages() -> None:
    """Of a row with two messages the state goes first and has no id; each message has the body that is published."""
    (first, event) = events_of(row(7, "changed", record={"name": "Skua"}, changed={}))
    assert first == ("state", 0, state("terminal", "1", "state", {"name": "Skua"}))
    assert (event[0], event[1], event[2]["id"], event[2]["type"]) == ("event", 7, "j:7", "net.oneweb.terminal.changed")
    (first, event) = events_of(row(8, "removed", "site", record={"name": "Skua"}, clears=["state"]))
    assert (first[1:], event[2]["type"]) == ((0, state("site", "1", "state", None)), "net.oneweb.site.removed")
    assert events_of(row(9, "components", components={"a": "1"})) == [
        ("state", 9, state("terminal", "1", "components", {"imei": "1", "components": {"a": "1"}}))
    ]
    assert [
        (name, seq) for name, seq, _ in events_of(row(9, "components", components={}, changed={"components.a": {}}))
    ] == [
        ("state", 0),
        ("event", 9),
    ]
    assert events_of(row(1, "state", name="relations", imei="1")) == [
        ("state", 1, state("terminal", "1", "relations", {"imei": "1"}))
    ]
    assert events_of(row(1, "state", "call", "sites", "state", status="ok")) == [
        ("state", 1, {"call": "sites", "body": {"status": "ok"}})
    ]
    assert events_of(row(1, "usage", "product", "P", "b", used_gb=1.0)) == [
        ("state", 1, state("usage", "b", "usage", {"used_gb": 1.0}))
    ]
    for names, gone in ((["usage"], True), (["usage", "forecast"], True), ([], True), (["forecast"], False)):
        cleared = Row(1, 0, "product", "P", "clear", "b", 5, json.dumps(names).encode())
        assert events_of(cleared) == ([("state", 1, state("usage", "b", "usage", None))] if gone else []), names
    assert events_of(row(1, "alert", "bridge", "", "x", kind="x")) == [("alert", 1, {"kind": "x"})]
    assert events_of(row(1, "forecast", "product", "P", "b", status="ok")) == [("forecast", 1, {"status": "ok"})]


def test_newest_sample_of_a_batch_goes_alone() -> None:
    """Of several samples of a report and id only the newest goes, in its own place, with the fleet's values alone."""
    rows = (
        row(1, "metric", name="signal_quality", ts=10, sinr_db=1.0, rsrp_dbm=2.0),
        row(2, "history", name="signal_quality", ts=9, sinr_db=3.0),
        row(3, "metric", name="traffic", ts=10, cnx_tx_bytes=5),
        row(4, "metric", id="2", name="signal_quality", ts=8, sinr_db=4.0),
        row(5, "metric", name="traffic", ts=10, cnx_tx_bytes=6),
    )
    assert events_of(*rows) == [
        (
            "sample",
            1,
            {"entity": "terminal", "id": "1", "report": "signal_quality", "ts": 10, "values": {"sinr_db": 1.0}},
        ),
        (
            "sample",
            4,
            {"entity": "terminal", "id": "2", "report": "signal_quality", "ts": 8, "values": {"sinr_db": 4.0}},
        ),
        ("sample", 5, {"entity": "terminal", "id": "1", "report": "traffic", "ts": 10, "values": {}}),
    ]


# ── the stream, over HTTP ──────────────────────────────────────────────────────────────────────


class Stage(msgspec.Struct):
    """A store whose journal is streamed, and the stream as it is asked for."""

    store: store.Store
    stream: LiveStream
    visits: Visits
    session: aiohttp.ClientSession
    task: asyncio.Task[None]

    async def write(self, *kinds: str) -> int:
        entries = [Entry("bridge", "", "alert", kind, 5, json.dumps({"kind": kind}).encode()) for kind in kinds]
        return await self.store.commit(Batch(entries=entries))

    @contextlib.asynccontextmanager
    async def listening(self, since: str | None = None, **headers: str) -> AsyncIterator["EventStream"]:
        sent = {"X-Test-Peer": "127.0.0.1", **headers}
        query = {} if since is None else {"since": since}
        url = f"http://127.0.0.1:{self.visits.port}/api/v1/live"
        async with self.session.get(url, params=query, headers=sent) as answer:
            yield EventStream(answer)

    def id(self, seq: int) -> str:
        return f"{self.store.journal_id}:{seq}"


class EventStream:
    """Reads one stream."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.text = ""

    @property
    def messages(self) -> list[Message]:
        return parse_messages(self.text.rpartition("\n\n")[0])

    async def until(self, true: Callable[["EventStream"], Any]) -> "EventStream":
        async with asyncio.timeout(30):
            while not true(self):
                assert not self.answer.content.at_eof(), self.text
                self.text += (await self.answer.content.readany()).decode()
        return self

    async def kinds(self, count: int) -> list[str]:
        await self.until(lambda stream: len(stream.messages) >= count)
        return [message.data.get("kind", message.event) for message in self.messages]


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(live, "BATCH_S", 0.01)
    path = tmp_path / "bridge.db"

    async def bridge() -> dict[str, str]:
        return {"kind": "bridge"}

    async with store.open_store(path) as opened, open_query_thread(path) as queries, aiohttp.ClientSession() as session:
        stream = LiveStream(queries, TopicTree("oneweb", "main", opened.journal_id), opened.growth, bridge)
        monkeypatch.setattr(stream, "_bridge_loop", lambda: asyncio.sleep(0))

        def routes(console: Console) -> list[web.RouteDef]:
            return LiveRoute(stream, console.headers, console.is_still_signed_in).routes()

        task = asyncio.create_task(stream.run())
        async with visited(monkeypatch, routes=routes) as visits:
            yield Stage(opened, stream, visits, session, task)
        await end_tasks(task)


async def test_stream_begins_now_and_keeps_the_order(stage: Stage) -> None:
    """Without an id a stream has what is written from now on, in order; results stand behind their rows."""
    await stage.write("before")
    async with stage.listening() as stream:
        await stream.until(lambda stream: stream.text.startswith("retry: 2000\n\n"))
        assert stream.answer.headers["Content-Type"] == "text/event-stream"
        assert stream.answer.headers["Cache-Control"] == "no-store"
        await stage.write("a", "b")
        await stage.write("c")
        stage.stream.tell("result", {"kind": "result"})
        assert await stream.kinds(4) == ["a", "b", "c", "result"]
        assert [message.id for message in stream.messages] == [stage.id(2), stage.id(3), stage.id(4), None]


async def test_stream_goes_on_behind_an_id(stage: Stage) -> None:
    """With an id the stream has everything behind it, once, also what is written meanwhile; the header wins."""
    await stage.write(*"abcde")
    async with (
        stage.listening() as other,
        stage.listening(stage.id(2)) as stream,
        stage.listening(stage.id(1), **{"Last-Event-ID": stage.id(4)}) as late,
    ):
        await stage.write("f")
        await stage.write("g")
        assert await stream.kinds(5) == ["c", "d", "e", "f", "g"]
        assert await late.kinds(3) == ["e", "f", "g"]
        assert await other.kinds(2) == ["f", "g"]


async def test_snapshot_may_be_newer_than_the_stream(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a snapshot had is not told again to its owner, though the other listeners have yet to hear of it."""
    async with stage.listening() as other:
        await stage.write("a")
        assert await other.kinds(1) == ["a"]
        monkeypatch.setattr(live, "BATCH_S", 0.2)
        await stage.write("b")
        await other.kinds(2)
        # The next batch is not due yet.
        seq = await stage.write("c")
        async with stage.listening(stage.id(seq)) as stream:
            await stage.write("d")
            assert await other.kinds(4) == ["a", "b", "c", "d"]
            assert await stream.kinds(1) == ["d"]


@pytest.mark.parametrize(
    ("since", "reason"),
    [
        ("another:1", "another journal"),
        ("x", "another journal"),
        ("{journal}:99", "backup"),
        ("{journal}:0", "not kept"),
        ("{journal}:2", "not kept"),
        ("{journal}:3", "more than 2 rows"),
    ],
)
async def test_stream_that_cannot_go_on_says_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, since: str, reason: str
) -> None:
    """Behind an unknown, trimmed or far too old id the stream begins with a reset, and goes on from now."""
    await stage.write(*"abcdef")
    async with stage.store._connections.transaction() as transaction:
        await transaction.execute("DELETE FROM journal WHERE seq < 3")
    monkeypatch.setattr(live, "MAX_RESUME_ROWS", 2 if "more" in reason else 10)
    async with stage.listening(since.format(journal=stage.store.journal_id)) as stream:
        await stage.write("new")
        assert await stream.kinds(2) == ["reset", "new"]
        reset = stream.messages[0]
        assert (reason in reset.data["reason"], reset.id) == (True, stage.id(6))


async def test_listeners_are_bounded_and_free_their_places(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """One listener too many is asked to come later; the place of one that went away is free at once."""
    monkeypatch.setattr(live, "MAX_LISTENERS", 2)
    async with stage.listening():
        async with stage.listening(), stage.listening() as third:
            assert (third.answer.status, third.answer.headers["Retry-After"]) == (503, "5")
        async with asyncio.timeout(30):
            while True:
                async with stage.listening() as stream_again:
                    if stream_again.answer.status == 200:
                        break


async def test_eight_tabs_have_everything_at_once(stage: Stage) -> None:
    """Each of eight streams, which go on behind different ids, has all that is behind its own, once and in order."""
    every = [*"abcdefgh"]
    await stage.write(*every)
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(stage.listening(stage.id(number))) for number in range(1, 9)]
        for number in range(20):
            every += (kinds := [f"{number}-{part}" for part in range(10)])
            await stage.write(*kinds)
        for number, stream in enumerate(streams, 1):
            assert await stream.kinds(len(every) - number) == every[number:]


async def test_rows_that_could_not_be_read_come_with_the_next_batch(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy database delays what was written, also where nothing is written after it."""
    read = stage.stream._give_new_rows

    async def fail() -> None:
        monkeypatch.setattr(stage.stream, "_give_new_rows", read)
        raise StoreUnavailable("busy")

    async with stage.listening() as stream:
        await stream.until(lambda stream: stream.text)
        monkeypatch.setattr(stage.stream, "_give_new_rows", fail)
        await stage.write("a")
        assert await stream.kinds(1) == ["a"]


async def test_slow_reader_is_closed_and_nobody_else(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not read is cut when too much waits; who reads has everything."""
    monkeypatch.setattr(live, "MAX_BEHIND", 50)
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.visits.port, limit=1024)
    writer.write(b"GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\nX-Test-Peer: 127.0.0.1\r\n\r\n")
    await reader.readuntil(b"\n\n")
    async with stage.listening() as stream:
        count = 0
        async with asyncio.timeout(30):
            while len(stage.stream._listeners) == 2:
                await stage.write(*["x" * 50_000] * 20)
                count += 20
                await stream.kinds(count)
        assert await stream.kinds(count) == ["x" * 50_000] * count
    writer.close()


async def test_stream_ends_with_its_session(stage: Stage) -> None:
    """When a token is set, a stream that was open without one ends with its next message."""
    async with stage.listening() as stream:
        stage.visits.console.reconfigure(parse(f"console: {{token: {TOKEN}}}", {}))
        await stage.write("secret")
        async with asyncio.timeout(10):
            assert b"secret" not in await stream.answer.content.read()


async def test_streams_end_with_the_bridge(stage: Stage) -> None:
    """Where the bridge stops, its streams do not hold it up: they are cut at once."""
    async with stage.listening() as stream:
        await stream.until(lambda stream: stream.text)
        stage.task.cancel()
        with contextlib.suppress(aiohttp.ClientError):
            async with asyncio.timeout(10):
                await stream.answer.content.read()
    assert not stage.stream._listeners


async def test_head_of_the_stream_ends(stage: Stage) -> None:
    """HEAD is no way to keep a stream open."""
    assert (await stage.visits.ask("/api/v1/live", "HEAD")).status == 405


# ── with the real bridge ───────────────────────────────────────────────────────────────────────


async def listen_until(url: str, last: str | None, events: int) -> list[Message]:
    """The messages behind `last` until so many events are among them, as soon as the bridge answers."""
    headers = {} if last is None else {"Last-Event-ID": last}
    async with asyncio.timeout(40), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                async with session.get(f"{url}/live", headers=headers) as answer:
                    stream = EventStream(answer)
                    await stream.until(lambda stream: sum(m.event == "event" for m in stream.messages) >= events)
                    return stream.messages
            await asyncio.sleep(0.02)


async def test_no_event_is_missed_or_twice_over_a_restart(world: harness.World) -> None:
    """A stream that goes on behind its last id after a kill -9 has every event of the journal, once and in order."""
    http = mosquitto.free_port()
    config, url = world.config(http={"listen": f"127.0.0.1:{http}"}), f"http://127.0.0.1:{http}/api/v1"
    async with harness.running(config):
        listening = asyncio.create_task(listen_until(url, None, 2), name="stream")
        for number in itertools.count():
            await asyncio.wait({listening}, timeout=1.0)
            if listening.done():
                break
            # What was written before the stream began is not told: something new is.
            for terminal in world.api.truth("terminals")[:2]:
                world.api.fleet("rename", id=terminal["id"], name=f"Renamed {number}")
        messages = await listening
    last = next(message.id for message in reversed(messages) if message.id)
    world.api.fleet("set_state", id=world.api.truth("terminals")[-1]["id"], state="degraded")
    async with harness.running(config), aiohttp.ClientSession() as session:
        messages += await listen_until(url, last, 1)
        async with session.get(f"{url}/events", params={"limit": "500"}) as answer:
            every = [event["id"] for event in reversed((await answer.json())["events"])]
    ids = [message.data["id"] for message in messages if message.event == "event"]
    begin = every.index(ids[0])
    assert ids == every[begin : begin + len(ids)]
    seqs = [message.seq for message in messages if message.id]
    assert seqs == sorted(seqs)
