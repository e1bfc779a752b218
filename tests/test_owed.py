"""What the broker refuses or cannot take, and what it is owed: the publisher against a real mosquitto, in process."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from oneweb_bridge import app
from oneweb_bridge.config.read import parse
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.backoff import BackOff, nth_pause
from oneweb_bridge.model.records import Batch, Entry, Message, RecordWrite
from oneweb_bridge.model.status import Response
from oneweb_bridge.mqtt import cursor, publisher, refusals, session, suspects
from oneweb_bridge.mqtt.broker_errors import FIRST_REFUSAL_CODE
from oneweb_bridge.mqtt.link import MqttConnection
from tests import harness, proxy
from tests.test_publisher import ALL, Bench, bench, counts, guarded_broker, of_sites, samples, sites, terminal_messages


def large_site(size: int) -> Batch:
    """A site whose retained record is so large."""
    doc = json.dumps({"site_id": "large", "name": "x" * size}).encode()
    entry = Entry("site", "large", "state", "state", 1, doc)
    return Batch(entries=[entry], writes=[RecordWrite("site", "large", doc, entry=0)])


async def forget_head(port: int) -> None:
    """Takes the head away, so that the next connection restores everything."""
    await harness.publish(port, "oneweb/bridge/head", retain=True)


async def published(made: Bench, port: int) -> None:
    """Brings the whole journal and the head to the broker, and leaves."""
    async with made.publishing():
        await made.drained()
        head = await made.rows.head()
        await harness.until_retained(port, "oneweb/bridge/head", lambda head_now: head_now["seq"] == head)


# ── size ───────────────────────────────────────────────────────────────────────────────────────────


async def test_restore_and_republish_pass_what_fits(tmp_path: Path) -> None:
    """A record above the broker's limit is told when all is restored or republished, and the connection stays."""
    async with guarded_broker(tmp_path, ALL) as port, bench(tmp_path, port) as made:
        await made.store.commit(large_site(6000))
        await made.store.commit(sites(5))
        await published(made, port)
    async with (
        guarded_broker(tmp_path, ALL, "max_packet_size 4000") as port,
        bench(tmp_path, port) as made,
        harness.recording(port) as recorder,
        made.publishing() as running,
    ):
        await recorder.until(lambda: len(of_sites(recorder, 0)) == 5)
        await harness.until_retained(port, "oneweb/bridge/head", lambda head: head["seq"] == 6)
        since = running.connected_since
        assert await running.republish() == 5
        await recorder.until(lambda: len(of_sites(recorder, 0)) == 10)
        assert running.connected_since == since
    assert [alert.split(" ")[:2] for alert in made.alerts] == [["topic_owed:", "oneweb/site/large/state"]]


async def test_replay_and_discovery_pass_what_fits(tmp_path: Path) -> None:
    """A replayed row and a message of discovery above a limit are told and left out, and the connection stays."""
    async with guarded_broker(tmp_path, ALL, "max_packet_size 4000") as port, bench(tmp_path, port) as made:
        await made.store.commit(samples(3, 3))
        await made.store.commit(samples(1, 1, size=3800))
        await published(made, port)
        # A replayed row is a little longer than the row.
        made.settings = msgspec.structs.replace(made.settings, max_payload=3815)
        async with harness.recording(port) as recorder, made.publishing() as running:
            since = await recorder.until(lambda: running.connected_since)
            assert await running.replay(made.pages()) == 3
            pair = [
                Message("homeassistant/a", b"x" * 9000, retain=True),
                Message("homeassistant/b", b"{}", retain=True),
            ]
            assert await running.publish_messages(pair) == [False, True]
            assert running.connected_since == since
    assert [alert.split(":")[0] for alert in made.alerts] == ["message_too_large"] * 2


# ── connecting and leaving ─────────────────────────────────────────────────────────────────────────


async def test_info_goes_out_once_at_a_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge's own state is published at a connect, and then only when it has changed."""
    monkeypatch.setattr(session, "INFO_INTERVAL_S", 0.02)
    state: dict[str, Any] = {"journal": {}}
    port, looks = mosquitto.free_port(), 0

    async def look() -> dict[str, Any]:
        nonlocal looks
        looks += 1
        return dict(state)

    async def looked(more: int) -> None:
        until = looks + more
        async with asyncio.timeout(20):
            while looks < until:
                await asyncio.sleep(0.01)

    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made, harness.recording(port) as recorder:
        monkeypatch.setattr(made, "_info", look)
        async with made.publishing():
            await looked(4)
            assert len(recorder.on("oneweb/bridge/info")) == 1
            state["journal"] = {"head": 1}
            await looked(4)
    assert recorder.on("oneweb/bridge/info") == [{"journal": {}}, {"journal": {"head": 1}}]


async def test_info_that_is_denied_keeps_nothing_else_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge's own state alone waits until the broker takes it; one that is too large for it is alerted."""
    monkeypatch.setattr(session, "INFO_INTERVAL_S", 0.05)
    monkeypatch.setattr(Bench, "_info", staticmethod(lambda: asyncio.sleep(0, {"text": "x" * 3000})))
    async with ruled_broker(tmp_path) as (port, rules), harness.recording(port) as recorder:
        await rules.say("oneweb/bridge/info")
        async with bench(tmp_path, port) as made:
            await made.store.commit(sites(10))
            async with made.publishing() as running:
                await made.drained()
                await recorder.until(lambda: len(of_sites(recorder, 0)) == 10)
                since = running.connected_since
                await rules.say()
                await recorder.until(lambda: recorder.on("oneweb/bridge/info"))
                assert running.connected_since == since
            assert [alert.split(" ")[0] for alert in made.alerts] == ["topics_refused:"]
        async with bench(tmp_path, port, max_payload=2000) as made:
            async with made.publishing() as running:
                await recorder.until(lambda: running.connected_since)
                await made.store.commit(sites(11))
                await made.drained()
            assert [alert.split(" ")[:2] for alert in made.alerts] == [["message_too_large:", "oneweb/bridge/info"]]


async def test_everything_is_restored_where_rows_behind_the_head_are_gone(tmp_path: Path) -> None:
    """Rows behind the broker's head that were trimmed may have cleared or said anything: all topics are restored."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made:
        await made.store.commit(sites(10))
        await published(made, port)
        head = {"journal": made.store.journal_id, "instance": "main", "seq": 4}
        await harness.publish(port, "oneweb/bridge/head", json.dumps(head), retain=True)
        await made.store._connections._writer.execute("DELETE FROM journal WHERE seq <= 8")
        async with harness.recording(port, "oneweb/site/#") as recorder:
            await recorder.until(lambda: len(of_sites(recorder, 0)) == 10)
            known = len(recorder.messages)
            await published(made, port)
            await recorder.until(lambda: len(of_sites(recorder, known)) == 10)


async def test_head_is_not_said_while_topics_are_restored(tmp_path: Path) -> None:
    """While everything is republished the head stays where it was, also when the cursor moves meanwhile."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made, made.publishing() as running:
        await made.store.commit(sites(3))
        await made.drained()
        await harness.until_retained(port, "oneweb/bridge/head", lambda head: head["seq"] == 3)
        current = running._session
        assert current is not None
        writer = current._cursor
        # A message is delivered before it is said to be taken.
        await asyncio.wait_for(current.sender.wait_until_idle(), 20)
        with writer.withhold_heads():
            writer.cursor = 4
            writer._head_due_at = 0.0
            writer.publish_head()
            assert current._window.state() == "idle"
        assert current._window.state() == "busy"


async def test_what_was_acknowledged_last_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that ends notes what the broker has acknowledged, though its cursor had no time to."""

    async def never(_: cursor.CursorWriter) -> None:
        return

    monkeypatch.setattr(cursor.CursorWriter, "cursor_loop", never)
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made:
        await made.store.commit(samples(3, 3))
        async with harness.recording(port, "oneweb/terminal/#") as recorder, made.publishing() as running:
            await recorder.until(lambda: len(made.sent) == 3)
            running.reconfigure(running.settings, reconnect=True)
            async with asyncio.timeout(20):
                while await made.rows.cursor() != 3:
                    await asyncio.sleep(0.02)


# ── refused: a class, one of it, and what is owed ──────────────────────────────────────────────────


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses."""
    monkeypatch.setattr(refusals, "FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(refusals, "FIRST_PAYMENT_S", 0.1)


class Rules:
    """The access rules of a running broker."""

    def __init__(self, file: Path, process: asyncio.subprocess.Process, port: int) -> None:
        self._file = file
        self._process = process
        self._port = port
        self._count = 0

    async def say(self, *denied: str) -> None:
        """Everybody may do everything but on topics that match one of these. Returns when that is in force."""
        self._count += 1
        marker = Message(f"marker/{self._count}", b"", retain=False)
        self._file.write_text("".join(f"topic deny {name}\n" for name in (*denied, marker.topic)) + ALL)
        self._process.send_signal(signal.SIGHUP)
        settings = msgspec.structs.replace(parse("", {}).mqtt, host="127.0.0.1", port=self._port)
        codes: asyncio.Queue[int] = asyncio.Queue()
        async with (
            asyncio.timeout(20),
            MqttConnection(settings, "ruler", lambda *answer: codes.put_nowait(answer[1])) as link,
        ):
            while True:
                link.send(marker)
                if await codes.get() >= FIRST_REFUSAL_CODE:
                    return


@contextlib.asynccontextmanager
async def ruled_broker(directory: Path, *settings: str) -> AsyncIterator[tuple[int, Rules]]:
    """A broker whose access rules change while it runs; it keeps nothing when it ends."""
    file, conf, port = directory / "rules", directory / "ruled.conf", mosquitto.free_port()
    file.write_text(ALL)
    file.chmod(0o644)
    conf.write_text("\n".join(("allow_anonymous true", "user root", f"acl_file {file}", *settings, "")))
    async with mosquitto.run_mosquitto(port, conf) as process:
        # It listens before it handles signals.
        await harness.publish(port, "ready")
        yield port, Rules(file, process, port)


def events(first: int, count: int, ids: int) -> Batch:
    """So many changes of terminals, each with its event and its record."""
    batch = Batch()
    for number in range(first, first + count):
        imei = f"t{number % ids}"
        record = {"imei": imei, "number": number}
        body = json.dumps({"changed": {"number": {"from": number - ids, "to": number}}, "record": record}).encode()
        batch.entries.append(Entry("terminal", imei, "changed", "", number, body))
        batch.writes.append(RecordWrite("terminal", imei, json.dumps(record).encode(), entry=number - first))
    return batch


def numbers(recorder: harness.Recorder, part: str) -> list[int]:
    """The numbers in all that was heard on topics with a part, in order."""
    contents = [content for topic, content, _ in recorder.messages if part in topic]
    return [(content.get("data", {}).get("record") or content)["number"] for content in contents]


EVENTS = "oneweb/+/+/event/#"
CHANGED = "oneweb/terminal/+/event/changed"


async def refused(made: Bench) -> None:
    """Waits until an alert has told that a class is refused."""
    async with asyncio.timeout(20):
        while not any(alert.startswith("topics_refused") for alert in made.alerts):
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("quick")
async def test_class_that_is_denied_waits_and_comes_in_its_order(tmp_path: Path) -> None:
    """Events that are denied for a while all come, in order and once each; records pass meanwhile; told twice."""
    async with (
        ruled_broker(tmp_path) as (port, rules),
        bench(tmp_path, port) as made,
        harness.recording(port, "oneweb/terminal/#") as recorder,
        made.publishing(),
    ):
        await made.store.commit(events(0, 5, 10))
        await made.drained()
        await rules.say(EVENTS)
        await made.store.commit(events(5, 60, 10))
        await refused(made)
        await recorder.until(lambda: len(numbers(recorder, "/state")) == 65)
        assert numbers(recorder, "/event/") == [0, 1, 2, 3, 4]
        async with asyncio.timeout(20):
            while (positions := await made.rows.positions()).cursor < 65:
                await asyncio.sleep(0.02)
        assert (positions.cursor, list(positions.waiting)) == (65, [CHANGED])
        assert await made.rows.waiting() == 60
        await rules.say()
        await made.drained()
        await recorder.until(lambda: len(numbers(recorder, "/event/")) >= 65)
        await recorder.quiet(0.3)
    received = numbers(recorder, "/event/")
    # The rules may change within a trial: after the oldest, which was refused, it lets another topic's oldest go.
    first = received[5]
    assert first < 15
    assert received == [0, 1, 2, 3, 4, first, *(number for number in range(5, 65) if number != first)]
    assert [alert.split(":")[0] for alert in made.alerts] == ["topics_refused", "topics_accepted"]
    assert await counts(tmp_path) == (0, 0)


@pytest.mark.usefixtures("quick")
async def test_class_that_waits_survives_the_process(tmp_path: Path) -> None:
    """What waits waits over restarts, however far the cursor is, is tried at each connect, and is not told again."""
    async with (
        ruled_broker(tmp_path) as (port, rules),
        harness.recording(port, "oneweb/terminal/#") as recorder,
    ):
        await rules.say(EVENTS)
        async with bench(tmp_path, port) as made:
            await made.store.commit(events(0, 30, 10))
            async with made.publishing():
                await refused(made)
                await recorder.until(lambda: len(numbers(recorder, "/state")) == 30)
        async with bench(tmp_path, port) as made:
            await made.store.commit(events(30, 30, 10))
            async with made.publishing():
                await recorder.until(lambda: len(numbers(recorder, "/state")) == 60)
                async with asyncio.timeout(20):
                    while made.refusals < 9:
                        await asyncio.sleep(0.02)
            assert made.alerts == []
        await rules.say()
        async with bench(tmp_path, port) as made, made.publishing():
            await made.drained()
            await recorder.until(lambda: len(numbers(recorder, "/event/")) >= 60)
    assert numbers(recorder, "/event/") == [*range(60)]
    assert [alert.split(":")[0] for alert in made.alerts] == ["topics_accepted"]


@pytest.mark.usefixtures("quick")
async def test_alerts_that_are_denied_make_no_alerts(tmp_path: Path) -> None:
    """The class of alerts waits like any other, and nothing tells of it but the log."""
    async with ruled_broker(tmp_path) as (port, rules), bench(tmp_path, port) as made, made.publishing():
        await rules.say("oneweb/bridge/alert")
        await made.store.commit(Batch(entries=[Entry("bridge", "", "alert", "", 1, b'{"kind":"x"}')]))
        async with asyncio.timeout(20):
            while made.refusals < 10:
                await asyncio.sleep(0.02)
        assert made.alerts == []
        await rules.say()
        await made.drained()
    assert [message.topic for message in made.sent] == ["oneweb/bridge/alert"]


@pytest.mark.usefixtures("quick")
async def test_retained_topic_that_was_set_aside_is_owed_until_it_is_right(tmp_path: Path) -> None:
    """What was refused while others passed comes by itself when the broker takes it, with its newest content."""
    async with (
        ruled_broker(tmp_path) as (port, rules),
        bench(tmp_path, port) as made,
        made.publishing(),
    ):
        await rules.say("oneweb/terminal/t0/state")
        await made.store.commit(events(0, 20, 10))
        await made.drained()
        assert await made.rows.owed.count() == 1
        await rules.say()
        await harness.until_retained(port, "oneweb/terminal/t0/state", lambda state: state["number"] == 10, 20)
        async with asyncio.timeout(20):
            while await made.rows.owed.count():
                await asyncio.sleep(0.02)
    assert await counts(tmp_path) == (0, 2)


@pytest.mark.usefixtures("quick")
async def test_info_says_how_many_topics_are_owed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`journal.owed` of `bridge/info` counts the retained topics that are not right yet, and is 0 when they are."""
    monkeypatch.setattr(session, "INFO_INTERVAL_S", 0.05)
    poller = SimpleNamespace(api_state="ok", whole_costs=dict, calls={})

    async def owed(wanted: int) -> None:
        await harness.until_retained(port, "oneweb/bridge/info", lambda info: info["journal"]["owed"] == wanted, 30)

    async with ruled_broker(tmp_path) as (port, rules), bench(tmp_path, port) as made:
        about = SimpleNamespace(config=parse("", {}), started_at="", poller=poller, store=made.store, server=None)
        about.tree, about.worker = SimpleNamespace(epoch=None), ""
        monkeypatch.setattr(made, "_info", lambda: app._info(about, made.rows))  # type: ignore[arg-type]  # parts of it
        async with made.publishing():
            await owed(0)
            await rules.say("oneweb/terminal/t0/state", "oneweb/terminal/t1/state")
            await made.store.commit(events(0, 20, 10))
            await owed(2)
            await rules.say()
            await owed(0)


class Pauses:
    """Which pauses were asked for: of each first pause, the numbers of the tries in order. All of them are short."""

    def __init__(self) -> None:
        self.numbers: dict[float, list[int]] = {}

    def note(self, first: float, longest: float, number: int) -> float:
        """In the place of `nth_pause`."""
        assert longest >= 10 * first
        self.numbers.setdefault(first, []).append(number)
        return 0.01

    def longest_growth(self, first: float) -> int:
        """How many pauses followed each other of which each was longer than the one before."""
        longest = run = 1
        for sooner, later in pairwise(self.numbers[first]):
            run = run + 1 if later == sooner + 1 else 1
            longest = max(longest, run)
        return longest


async def test_pauses_between_tries_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a topic that is owed and of a class that is refused: each try that fails makes the next pause longer."""
    pauses = Pauses()
    monkeypatch.setattr(refusals, "nth_pause", pauses.note)
    trials, payments = refusals.FIRST_RETRY_S, refusals.FIRST_PAYMENT_S
    async with ruled_broker(tmp_path) as (port, rules), bench(tmp_path, port) as made, made.publishing():
        await rules.say("oneweb/terminal/t0/state")
        await made.store.commit(events(0, 20, 10))
        async with asyncio.timeout(30):
            while payments not in pauses.numbers or pauses.longest_growth(payments) < 6:
                await asyncio.sleep(0.01)
        assert pauses.longest_growth(trials) >= refusals.MAX_TRIES - 1
        pauses.numbers.clear()
        await rules.say("oneweb/site/#")
        await made.store.commit(sites(3))
        async with asyncio.timeout(30):
            while len(pauses.numbers.get(trials, [])) < 12:
                await asyncio.sleep(0.01)
        assert pauses.longest_growth(trials) >= 6


@pytest.mark.parametrize(("first", "longest"), [(0.1, 30.0), (1.0, 60.0), (2.0, 300.0)])
def test_pauses_double_up_to_the_longest(first: float, longest: float) -> None:
    """Each pause is twice the one before, until the longest; no number of tries is too large."""
    pauses, steps = [nth_pause(first, longest, number) for number in range(20)], BackOff(first, longest)
    assert pauses == [steps.pause() for _ in range(20)]
    assert pauses[0] == first
    assert all(later in (2 * sooner, longest) for sooner, later in pairwise(pauses))
    assert pauses[-1] == nth_pause(first, longest, 10**6) == longest
    steps.reset()
    assert steps.pause() == first


@pytest.mark.usefixtures("quick")
async def test_debt_is_paid_at_the_next_start(tmp_path: Path) -> None:
    """What is owed is known after a restart, and is right soon after the connect."""
    async with ruled_broker(tmp_path) as (port, rules):
        await rules.say("oneweb/terminal/t0/state")
        async with bench(tmp_path, port) as made:
            await made.store.commit(events(0, 10, 10))
            async with made.publishing():
                await made.drained()
        await rules.say()
        async with bench(tmp_path, port) as made, made.publishing():
            await harness.until_retained(port, "oneweb/terminal/t0/state", lambda state: state["number"] == 0)


@pytest.mark.usefixtures("quick")
async def test_newer_row_that_is_accepted_settles_the_debt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next row of the topic makes it right; nothing older follows."""
    monkeypatch.setattr(refusals, "FIRST_PAYMENT_S", 1000.0)
    monkeypatch.setattr(refusals, "MAX_PAYMENT_S", 1000.0)
    async with (
        ruled_broker(tmp_path) as (port, rules),
        bench(tmp_path, port) as made,
        harness.recording(port, "oneweb/terminal/t0/state") as recorder,
        made.publishing(),
    ):
        await rules.say("oneweb/terminal/t0/state")
        await made.store.commit(events(0, 10, 10))
        await made.drained()
        async with asyncio.timeout(20):
            while await made.rows.owed.count() != 1:
                await asyncio.sleep(0.02)
        await rules.say()
        await made.store.commit(events(10, 10, 10))
        async with asyncio.timeout(20):
            while await made.rows.owed.count():
                await asyncio.sleep(0.02)
        await recorder.until(lambda: numbers(recorder, "/t0/"))
    assert numbers(recorder, "/t0/") == [10]


@pytest.mark.usefixtures("quick")
async def test_owed_clear_is_sent(tmp_path: Path) -> None:
    """A clear that was refused comes when it is allowed: what is retained of a removed record goes."""
    gone = Entry("terminal", "t0", "removed", "", 5, b'{"record":{"imei":"t0"},"clears":["state"]}')
    async with ruled_broker(tmp_path) as (port, rules), bench(tmp_path, port) as made:
        await made.store.commit(events(0, 10, 10))
        await published(made, port)
        await rules.say("oneweb/terminal/t0/state")
        # Both before anything is sent: else five tries may be over before anything of the class has passed.
        await made.store.commit(Batch(entries=[gone], removed=[("terminal", "t0")]))
        await made.store.commit(events(11, 9, 10))
        async with made.publishing():
            await made.drained()
            assert await made.rows.owed.count() == 1
            await rules.say()
            async with asyncio.timeout(20):
                while "oneweb/terminal/t0/state" in await harness.retained(port):
                    await asyncio.sleep(0.05)


@pytest.mark.usefixtures("quick")
async def test_short_refusal_of_another_topic_is_not_given_up_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic that was given up is given up more quickly again; another one of its class is not."""
    monkeypatch.setattr(refusals, "FIRST_PAYMENT_S", 1000.0)
    monkeypatch.setattr(refusals, "MAX_PAYMENT_S", 1000.0)
    monkeypatch.setattr(refusals, "FIRST_RETRY_S", 0.1)
    async with ruled_broker(tmp_path) as (port, rules), bench(tmp_path, port) as made, made.publishing():
        await rules.say("oneweb/terminal/t0/#")
        await made.store.commit(samples(8, 4))
        await made.drained()
        refused_before = made.refusals
        # Time enough to change the rules before its last try.
        monkeypatch.setattr(refusals, "FIRST_RETRY_S", 0.5)
        await rules.say("oneweb/terminal/t0/#", "oneweb/terminal/t1/#")
        await made.store.commit(Batch(entries=samples(2, 2).entries[1:]))
        async with asyncio.timeout(20):
            while made.refusals == refused_before:
                await asyncio.sleep(0.01)
            # Others of its class pass meanwhile.
            await made.store.commit(Batch(entries=samples(4, 4).entries[2:]))
            while made.refusals < refused_before + 2:
                await asyncio.sleep(0.01)
        await rules.say()
        await made.drained()
    assert [alert.split(" ")[4].split("/")[2] for alert in made.alerts] == ["t0", "t0"]
    assert len([message for message in made.sent if "/t1/" in message.topic]) == 3
    # One try of the second row, or two where others of its class were not accepted yet; given up slowly it has five.
    assert refusals.MAX_TRIES < refused_before <= refusals.MAX_TRIES + 2


@pytest.mark.usefixtures("quick")
async def test_topic_that_was_refused_when_it_was_restored_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is owed, but its next row has its five tries: one refusal says little."""
    monkeypatch.setattr(refusals, "FIRST_PAYMENT_S", 1000.0)
    monkeypatch.setattr(refusals, "MAX_PAYMENT_S", 1000.0)
    monkeypatch.setattr(refusals, "FIRST_RETRY_S", 0.4)
    async with ruled_broker(tmp_path) as (port, rules), bench(tmp_path, port) as made:
        await made.store.commit(sites(4))
        await published(made, port)
        await forget_head(port)
        await rules.say("oneweb/site/s1/#")
        async with made.publishing(), asyncio.timeout(30):
            while await made.rows.owed.count() != 1:
                await asyncio.sleep(0.02)
            before = made.refusals
            await made.store.commit(sites(4))
            while made.refusals < before + 2:
                await asyncio.sleep(0.01)
            await rules.say()
            await made.drained()
    assert [alert for alert in made.alerts if alert.startswith("row_set_aside")] == []


# ── what breaks the connection ─────────────────────────────────────────────────────────────────────


class Breaker:
    """Stands before a broker and ends each connection that carries certain bytes towards it."""

    def __init__(self, port: int, needle: bytes) -> None:
        self.needle = needle
        self.broken = 0
        self._port = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, broker_writer, self.needle))
                group.create_task(self._pass_on(broker_reader, writer, b""))
        except* OSError:
            pass
        finally:
            writer.close()
            broker_writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, needle: bytes) -> None:
        while data := await reader.read(65536):
            if needle and self.needle and needle in data:
                self.broken += 1
                break
            writer.write(data)
        raise ConnectionResetError


@contextlib.asynccontextmanager
async def breaking(port: int, needle: bytes) -> AsyncIterator[tuple[int, Breaker]]:
    """A breaker before the broker on `port`, and the port that it listens on."""
    breaker = Breaker(port, needle)
    async with await asyncio.start_server(breaker.serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], breaker


async def test_message_that_breaks_the_connection_is_found_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two connections find it; then everything else passes, and it follows when the broker takes it."""
    monkeypatch.setattr(publisher, "FIRST_RECONNECT_S", 0.1)
    # Longer than a busy machine takes for two connections: what is blamed is not tried before the others have passed.
    monkeypatch.setattr(suspects, "FIRST_PAUSE_S", 3.0)
    port = mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(port),
        breaking(port, b"oneweb/site/s5/") as (before, breaker),
        bench(tmp_path, before) as made,
        harness.recording(port, "oneweb/site/#") as recorder,
    ):
        await made.store.commit(sites(30))
        await made.store.commit(samples(30, 30))
        async with made.publishing():
            await recorder.until(lambda: len({site["site_id"] for site in of_sites(recorder, 0)}) == 29)
            assert breaker.broken <= 1 + refusals.MAX_BREAKS
            async with asyncio.timeout(20):
                while len({message.topic for message in made.sent}) < 59:
                    await asyncio.sleep(0.02)
            breaker.needle = b""
            await made.drained()
            await recorder.until(lambda: len({site["site_id"] for site in of_sites(recorder, 0)}) == 30)
    assert {site["site_id"] for site in of_sites(recorder, 0)} == {f"s{number}" for number in range(30)}


async def test_what_breaks_the_connection_is_found_by_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second connection sends one message at a time, the oldest first; other classes pass on the third."""
    monkeypatch.setattr(publisher, "FIRST_RECONNECT_S", 0.1)
    monkeypatch.setattr(suspects, "FIRST_PAUSE_S", 1000.0)
    port = mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(port),
        breaking(port, b"oneweb/site/s5/") as (before, breaker),
        bench(tmp_path, before) as made,
        harness.recording(port, "oneweb/terminal/#") as recorder,
    ):
        await made.store.commit(sites(30))
        await made.store.commit(samples(60, 30))
        async with made.publishing() as running:
            await recorder.until(lambda: terminal_messages(recorder) >= 60)
            assert breaker.broken == 2
            assert list(running._suspects.blamed) == ["oneweb/site/s5/state"]


async def test_broker_that_ends_the_connection_after_its_refusal_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was refused right before the end is blamed at once: the next connection sends everything else."""
    # A busy machine may need longer from the refusal to the end, and for all that the next connection sends.
    monkeypatch.setattr(session, "RECENT_S", 60.0)
    monkeypatch.setattr(suspects, "FIRST_PAUSE_S", 6.0)
    port = mosquitto.free_port()
    blames: list[list[str]] = []
    async with (
        mosquitto.run_mosquitto(port),
        proxy.between(port) as gate,
        bench(tmp_path, gate.port) as made,
    ):
        await made.store.commit(sites(30))
        await made.store.commit(samples(30, 30))
        async with made.publishing() as running:

            def refuse(topic: str) -> int | None:
                if not topic.startswith("oneweb/site/s5/"):
                    return None
                blames.append(list(running._suspects.blamed))
                return 0x97

            gate.refuse, gate.ends_after_refusal = refuse, True
            async with asyncio.timeout(60):
                while len({message.topic for message in made.sent}) < 59:
                    await asyncio.sleep(0.02)
                in_time = len(blames)
                # Until it was tried once more.
                while len(blames) < 2:
                    await asyncio.sleep(0.02)
    assert in_time <= 2
    assert blames[0] == []
    assert all(blamed == ["oneweb/site/s5/state"] for blamed in blames[1:])


async def test_message_that_breaks_every_connection_is_set_aside_and_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others of its class pass it is set aside after some connections, and is owed."""
    monkeypatch.setattr(publisher, "FIRST_RECONNECT_S", 0.05)
    monkeypatch.setattr(suspects, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(refusals, "FIRST_PAYMENT_S", 1000.0)
    monkeypatch.setattr(refusals, "MAX_PAYMENT_S", 1000.0)
    port = mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(port),
        breaking(port, b"oneweb/site/s5/") as (before, breaker),
        bench(tmp_path, before) as made,
    ):
        await made.store.commit(sites(10))
        async with made.publishing() as running:
            for number in range(40):
                # Others of its class, so that there is something to compare with.
                doc = json.dumps({"site_id": f"n{number}"}).encode()
                entry = Entry("site", f"n{number}", "state", "state", 1, doc)
                await made.store.commit(
                    Batch(entries=[entry], writes=[RecordWrite("site", f"n{number}", doc, entry=0)])
                )
                await asyncio.sleep(0.1)
                if await made.rows.owed.count():
                    break
            async with asyncio.timeout(30):
                while not await made.rows.owed.count():
                    await asyncio.sleep(0.02)
            breaker.needle = b""
            await made.drained()
            assert running._suspects.blamed.keys() <= {"oneweb/site/s5/state"}
    assert await counts(tmp_path) == (0, 1)
    assert "broke each time" in made.alerts[-1]


async def test_mosquitto_that_ends_the_connection_after_its_refusal_holds_nobody_up(tmp_path: Path) -> None:
    """Mosquitto 2.0 does so with `max_queued_messages 0`: what is denied waits, everything else passes."""
    settings = ("set_tcp_nodelay true", "max_queued_messages 0")
    async with ruled_broker(tmp_path, *settings) as (port, rules), bench(tmp_path, port) as made:
        await rules.say("oneweb/site/s5/#")
        await made.store.commit(sites(30))
        await made.store.commit(samples(30, 30))
        async with made.publishing() as running, asyncio.timeout(30):
            while len({message.topic for message in made.sent}) < 59:
                await asyncio.sleep(0.02)
            assert running._suspects.blamed.keys() <= {"oneweb/site/s5/state"}
    assert all("oneweb/site/s5/state" in alert for alert in made.alerts)


async def test_answer_that_breaks_the_connection_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mosquitto takes no topic of more than 200 levels: the answer ends some connections, and then nothing more."""
    monkeypatch.setattr(publisher, "FIRST_RECONNECT_S", 0.05)
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made, made.publishing() as running:
        async with asyncio.timeout(30):
            while running.connected_since is None:
                await asyncio.sleep(0.02)
            running.answer_to("oneweb/bridge/request/purge", "a/" * 250 + "b", b"c")(Response(status="ok"))
            while running._answers.to_send():
                await asyncio.sleep(0.02)
        await made.store.commit(samples(5, 5))
        await made.drained()
