"""The publisher against a real mosquitto, in process: what the broker refuses, forgets, or cannot take."""

import asyncio
import contextlib
import inspect
import json
import logging
import math
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest

from oneweb_bridge.commands.inbox import Inbox
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import AUTO, Mqtt
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.command import CommandMessage
from oneweb_bridge.model.records import Batch, Entry, Message, Positions, RecordWrite, Row
from oneweb_bridge.model.status import Response
from oneweb_bridge.mqtt import answers, cursor, drain, look, probing, publisher, refusals, sender, session, twins
from oneweb_bridge.mqtt.broker_errors import Rejected, TakenOver
from oneweb_bridge.mqtt.context import PublisherCallbacks
from oneweb_bridge.mqtt.lane import Outgoing
from oneweb_bridge.mqtt.link import MqttConnection
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store import journal, store
from oneweb_bridge.store.journal import Journal
from tests import harness, proxy
from tests.cancelling import end_tasks

RESULTS = "oneweb/bridge/polling/sites/result"


@pytest.fixture(autouse=True)
def long_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy broker may need longer than the bridge waits when it stops."""
    monkeypatch.setattr(session, "OFFLINE_TIMEOUT_S", 5.0)


def samples(count: int, ids: int, *, kind: str = "metric", size: int = 100) -> Batch:
    """A batch of so many samples of so many terminals, numbered in their order."""
    batch = Batch()
    for number in range(count):
        body = json.dumps({"number": number, "pad": "x" * size}).encode()
        batch.entries.append(Entry("terminal", f"t{number % ids}", kind, "traffic", number, body))  # type: ignore[arg-type]
    return batch


class Bench:
    """A store, its journal, and a publisher that can be started and stopped."""

    def __init__(self, opened: store.Store, rows: journal.Journal, settings: Mqtt) -> None:
        self.store = opened
        self.rows = rows
        self.settings = settings
        self.alerts: list[str] = []
        self.sent: list[Message] = []
        self.lost: list[int] = []
        self.refusals = 0
        self.base, self.instance = "oneweb", "main"
        self.epoch: int | None = None
        self.on_command: Callable[[CommandMessage], None] = lambda _: None

    def _command(self, incoming: CommandMessage) -> None:
        self.on_command(incoming)

    async def _alert(self, kind: str, message: str) -> None:
        self.alerts.append(f"{kind}: {message}")

    async def _lost(self, seq: int) -> None:
        self.lost.append(seq)

    async def _info(self) -> dict[str, object]:
        return {"journal": {}}

    @contextlib.asynccontextmanager
    async def publishing_later(self) -> AsyncIterator[Callable[[], Awaitable[publisher.Publisher]]]:
        """What begins a publisher, which then runs until the block is over."""
        async with contextlib.AsyncExitStack() as stack:
            yield lambda: stack.enter_async_context(self.publishing())

    @contextlib.asynccontextmanager
    async def publishing(self, instance: str | None = None) -> AsyncIterator[publisher.Publisher]:
        """A publisher while the block runs."""
        callbacks = PublisherCallbacks(
            on_command=self._command,
            info=self._info,
            alert=self._alert,
            on_sent=self.sent.append,
            on_lost=self._lost,
        )
        tree = TopicTree(self.base, instance or self.instance, self.store.journal_id, self.store.earlier)
        tree.epoch = self.epoch
        made = publisher.Publisher(self.settings, tree, self.rows, self.store.growth, callbacks)
        task = asyncio.create_task(made.run())
        log, counter = logging.getLogger("oneweb_bridge.publisher"), RefusalCounter(self)
        log.addHandler(counter)
        try:
            yield made
        finally:
            await end_tasks(task)
            log.removeHandler(counter)

    async def pages(self) -> AsyncIterator[list[Row]]:
        """Every row, for a replay."""
        yield await self.rows.after(0, 10**6)

    async def drained(self, patience: float = 30.0) -> None:
        """Waits until the cursor stands at the end of the journal, and nothing waits."""
        async with asyncio.timeout(patience):
            while await self.rows.positions() != Positions(await self.rows.head()):
                await asyncio.sleep(0.02)


class RefusalCounter(logging.Handler):
    """Counts the refusals of the broker."""

    def __init__(self, counted: Bench) -> None:
        super().__init__()
        self._bench = counted

    def emit(self, record: logging.LogRecord) -> None:
        """Counts a record, if it tells of a refusal."""
        self._bench.refusals += record.msg.startswith("broker refuses")


@contextlib.asynccontextmanager
async def bench(directory: Path, port: int, **changes: Any) -> AsyncIterator[Bench]:
    """A bench for the broker on `port`."""
    settings = msgspec.structs.replace(parse("", {}).mqtt, host="127.0.0.1", port=port, **changes)
    path = directory / "bench.db"
    async with store.open_store(path) as opened, journal.open_journal(path, "mqtt") as rows:
        yield Bench(opened, rows, settings)


@contextlib.asynccontextmanager
async def guarded_broker(directory: Path, acl: str, *settings: str) -> AsyncIterator[int]:
    """A broker with an ACL for anonymous clients and more settings."""
    file = directory / "acl"
    file.write_text(acl)
    file.chmod(0o644)
    conf = directory / "guarded.conf"
    conf.write_text("\n".join(("allow_anonymous true", "user root", f"acl_file {file}", *settings, "")))
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port, conf):
        yield port


ALL = "topic readwrite #\n"
NOON = "2026-06-01T12:00:00.000Z"


async def test_publisher_that_is_cancelled_as_its_connection_fails_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group of tasks may forget that it was cancelled when one of them fails just then: it does not connect again."""
    connecting = asyncio.Event()

    async def connect(_made: publisher.Publisher, _grew: asyncio.Event) -> None:
        connecting.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise OSError("connection lost") from None

    monkeypatch.setattr(publisher.Publisher, "_connect", connect)
    async with bench(tmp_path, 1) as b, b.publishing() as made:
        task = asyncio.create_task(made.run())
        await connecting.wait()
        await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=20)
        await end_tasks(task)
        assert task in done
        assert task.cancelled()


async def test_topic_order_holds_through_the_window(tmp_path: Path) -> None:
    """20 terminals, 2 000 samples: each topic hears its samples in their order, none missing, none twice."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made, harness.recording(port) as recorder:
        await made.store.commit(samples(1000, 20))
        async with made.publishing():
            await made.store.commit(samples(1000, 20))
            await made.drained()
            await recorder.catch_up()

    for terminal in range(20):
        numbers = [sample["number"] for sample in recorder.on(f"oneweb/terminal/t{terminal}/metric/traffic")]
        assert [*range(terminal, 1000, 20)] * 2 == numbers


async def test_stop_publishes_the_head_of_all_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop between an acknowledgement and its head leaves none behind: by the head a restored backup is seen."""

    async def never(_: cursor.CursorWriter) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(cursor.CursorWriter, "cursor_loop", never)
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made, harness.recording(port) as recorder:
        await made.store.commit(samples(12, 12))
        async with made.publishing():
            await recorder.until(lambda: terminal_messages(recorder) == 12)
        assert await made.rows.cursor() == 12
        assert (await harness.retained(port))["oneweb/bridge/head"]["seq"] == 12


async def test_stop_sends_no_more_rows(tmp_path: Path) -> None:
    """A stop in the middle of a long journal ends with the head of the last row that went out."""
    port = mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(port),
        bench(tmp_path, port, window=4) as made,
        harness.recording(port) as recorder,
    ):
        await made.store.commit(samples(1000, 1000))
        async with made.publishing():
            await recorder.until(lambda: terminal_messages(recorder) > 10)
        count = terminal_messages(recorder)
        await recorder.until(lambda: recorder.retained.get("oneweb/bridge/status") == {"state": "offline"})
        head = (await harness.retained(port))["oneweb/bridge/head"]["seq"]
        assert head == await made.rows.cursor()
        assert count <= head == terminal_messages(recorder) < 1000


async def test_acl_denial_is_not_counted_as_delivered(tmp_path: Path) -> None:
    """On MQTT 5 a topic that the ACL denies makes its class wait until its row is set aside; the others go on."""
    acl = "topic deny oneweb/terminal/t0/#\n" + ALL
    async with (
        guarded_broker(tmp_path, acl) as port,
        bench(tmp_path, port) as made,
        harness.recording(port) as recorder,
    ):
        await made.store.commit(samples(12, 4))
        async with made.publishing():
            await recorder.until(lambda: terminal_messages(recorder) == 3)
            async with asyncio.timeout(20):
                while not (waiting := (await made.rows.positions()).waiting):
                    await asyncio.sleep(0.01)
            assert [(name, lane.seq) for name, lane in waiting.items()] == [("oneweb/terminal/+/metric/traffic", 0)]
            await recorder.until(lambda: terminal_messages(recorder) == 9)
            await made.drained()

    assert [alert.split(":")[0] for alert in made.alerts] == ["row_set_aside"] * 3
    assert await counts(tmp_path) == (0, 3)


def terminal_messages(recorder: harness.Recorder) -> int:
    """How many messages below oneweb/terminal were heard."""
    return len([topic for topic, _, _ in recorder.messages if "/terminal/" in topic])


async def counts(directory: Path) -> tuple[int, int]:
    """Dropped and set aside, as the database has it."""
    async with journal.open_journal(directory / "bench.db", "mqtt") as rows:
        return await rows.counts()


async def test_everything_denied_sets_nothing_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing of the journal passes, the access rules are wrong, and no row is given up."""
    monkeypatch.setattr(refusals, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(refusals, "MAX_RETRY_S", 0.05)
    acl = "topic deny oneweb/terminal/#\n" + ALL
    async with guarded_broker(tmp_path, acl) as port, bench(tmp_path, port) as made:
        await made.store.commit(samples(5, 5))
        async with made.publishing():
            async with asyncio.timeout(20):
                while made.refusals < 40:
                    await asyncio.sleep(0.02)

    assert await counts(tmp_path) == (0, 0)


async def test_probe_that_does_not_come_back_stops_the_drain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that takes but does not deliver is given nothing of the journal, on 3.1.1 too."""
    monkeypatch.setattr(probing, "PROBE_TIMEOUT_S", 1.0)
    acl = "topic write oneweb/#\ntopic read oneweb/bridge/head\n"
    for protocol in ("5", "3.1.1"):
        directory = tmp_path / protocol
        directory.mkdir()
        async with guarded_broker(directory, acl) as port, bench(directory, port, protocol=protocol) as made:
            await made.store.commit(samples(5, 5))
            async with made.publishing() as running:
                async with asyncio.timeout(20):
                    while "did not deliver" not in str(running._last_error):
                        await asyncio.sleep(0.05)

            assert await made.rows.cursor() == 0
            assert made.sent == []


async def test_message_over_the_limit_is_set_aside_before_it_is_sent(tmp_path: Path) -> None:
    """A row over mqtt.max_payload or the broker's maximum packet size never reaches the wire; the others do."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port, max_payload=2000) as made:
        await made.store.commit(samples(1, 1, size=3000))
        await made.store.commit(samples(3, 3))
        async with made.publishing():
            await made.drained()

    assert len(made.sent) == 3
    assert await counts(tmp_path) == (0, 1)
    assert "2000" in made.alerts[0]


async def test_broker_packet_limit_is_respected(tmp_path: Path) -> None:
    """The maximum packet size that an MQTT 5 broker announces counts like mqtt.max_payload."""
    async with guarded_broker(tmp_path, ALL, "max_packet_size 4000") as port, bench(tmp_path, port) as made:
        await made.store.commit(samples(1, 1, size=5000))
        await made.store.commit(samples(3, 3))
        async with made.publishing():
            await made.drained()

    assert len(made.sent) == 3


@pytest.mark.parametrize(("announced", "window", "size"), [(150, AUTO, 100), (30, AUTO, 30), (150, 120, 120)])
async def test_window_is_as_large_as_the_broker_allows(tmp_path: Path, announced: int, window: int, size: int) -> None:
    """`auto` takes the broker's Receive Maximum, 100 at most; a number is taken as it is."""
    async with (
        guarded_broker(tmp_path, ALL, f"max_inflight_messages {announced}") as port,
        bench(tmp_path, port, window=window) as made,
        made.publishing() as running,
    ):
        await connected(running)
        assert running._session is not None
        assert running._session._window.size == size


async def test_window_never_exceeds_the_receive_maximum(tmp_path: Path) -> None:
    """The window is the smaller of mqtt.window and what the broker announces."""
    async with (
        guarded_broker(tmp_path, ALL, "max_inflight_messages 3") as port,
        bench(tmp_path, port, window=50) as made,
    ):
        await made.store.commit(samples(300, 300))
        async with made.publishing() as running:
            await made.drained()
            assert running._session is not None
            assert running._session._window.size == 3


@pytest.mark.parametrize("lowered", [0, 40])
async def test_head_decides_what_is_restored(tmp_path: Path, lowered: int) -> None:
    """A lower head restores the topics with a row behind it, and no others; an equal head restores nothing."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made:
        batch = Batch()
        for number in range(100):
            doc = json.dumps({"site_id": f"s{number}"}).encode()
            batch.entries.append(Entry("site", f"s{number}", "state", "state", number, doc))
            batch.writes.append(RecordWrite("site", f"s{number}", doc, entry=number))
        await made.store.commit(batch)
        async with made.publishing():
            await made.drained()
            await harness.until_retained(port, "oneweb/bridge/head", lambda head: head["seq"] == 100)
        if lowered:
            head = {"journal": made.store.journal_id, "instance": "main", "seq": 100 - lowered}
            await harness.publish(port, "oneweb/bridge/head", json.dumps(head), retain=True)
        async with harness.recording(port) as recorder:
            await recorder.until(lambda: site_messages(recorder) == 100)
            async with made.publishing() as running:
                await recorder.until(lambda: running.connected_since is not None)
                await recorder.until(lambda: site_messages(recorder) >= 100 + lowered)
                await recorder.quiet(0.5)

    assert site_messages(recorder) == 100 + lowered


def site_messages(recorder: harness.Recorder) -> int:
    """How many messages below oneweb/site were heard."""
    return sum(topic.startswith("oneweb/site/") for topic, _, _ in recorder.messages)


async def test_head_that_is_the_cursor_says_nothing_of_what_has_no_row(tmp_path: Path) -> None:
    """Devices have no rows: what was announced since the last one is announced again: it may be lost."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as b:
        await b.store.commit(samples(5, 2))
        async with b.publishing():
            await b.drained()
        b.lost.clear()
        async with b.publishing(), asyncio.timeout(20):
            while not b.lost:
                await asyncio.sleep(0.02)
        assert b.lost == [await b.rows.head()]


async def test_head_of_another_journal_restores_everything(tmp_path: Path) -> None:
    """The number of another journal means nothing here, also when it is lower."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made:
        await made.store.commit(sites(10))
        async with made.publishing():
            await made.drained()
            await harness.until_retained(port, "oneweb/bridge/head", lambda head: head["seq"] == 10)
        head = {"journal": "another", "instance": "main", "seq": 9}
        await harness.publish(port, "oneweb/bridge/head", json.dumps(head), retain=True)
        async with harness.recording(port) as recorder:
            await recorder.quiet(0.3)
            known = len(recorder.messages)
            async with made.publishing():
                await recorder.until(lambda: len(of_sites(recorder, known)) == 10)

    assert made.alerts == []


def sites(count: int) -> Batch:
    """A batch of so many sites, numbered in their order."""
    batch = Batch()
    for number in range(count):
        doc = json.dumps({"site_id": f"s{number}"}).encode()
        batch.entries.append(Entry("site", f"s{number}", "state", "state", number, doc))
        batch.writes.append(RecordWrite("site", f"s{number}", doc, entry=number))
    return batch


def of_sites(recorder: harness.Recorder, start: int) -> list[Any]:
    """What was heard of sites since a message."""
    return [content for topic, content, _ in recorder.messages[start:] if topic.startswith("oneweb/site/")]


async def test_restore_skips_the_clear_of_a_record_that_came_back(tmp_path: Path) -> None:
    """A record that was removed and came back is restored, and the clear between is not repeated."""
    port = mosquitto.free_port()
    gone = Entry("site", "s0", "removed", "", 5, b'{"record":{"site_id":"s0"},"clears":["state"]}')
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made:
        await made.store.commit(sites(1))
        await made.store.commit(Batch(entries=[gone], removed=[("site", "s0")]))
        await made.store.commit(sites(1))
        async with made.publishing():
            await made.drained()
            await harness.until_retained(port, "oneweb/bridge/head", lambda head: head["seq"] == 3)
        head = {"journal": made.store.journal_id, "instance": "main", "seq": 1}
        await harness.publish(port, "oneweb/bridge/head", json.dumps(head), retain=True)
        async with harness.recording(port) as recorder:
            await recorder.until(lambda: {"oneweb/bridge/head", "oneweb/site/s0/state"} <= recorder.retained.keys())
            known = len(recorder.messages)
            async with made.publishing():
                await recorder.until(lambda: recorder.retained["oneweb/bridge/head"]["seq"] == 3)

    assert of_sites(recorder, known) == [{"site_id": "s0"}]


async def test_clear_is_not_repeated_on_a_topic_with_rows_waiting(tmp_path: Path) -> None:
    """A topic that has rows waiting is restored by draining them: an old clear does not come after something newer."""
    port = mosquitto.free_port()
    gone = Entry("site", "s0", "removed", "", 5, b'{"record":{"site_id":"s0"},"clears":["state"]}')
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made:
        await made.store.commit(sites(1))
        await made.store.commit(Batch(entries=[gone], removed=[("site", "s0")]))
        async with made.publishing():
            await made.drained()
            await harness.until_retained(port, "oneweb/bridge/head", lambda head: head["seq"] == 2)
        await made.store.commit(sites(1))
        await made.store.commit(Batch(entries=[gone], removed=[("site", "s0")]))
        head = {"journal": made.store.journal_id, "instance": "main", "seq": 1}
        await harness.publish(port, "oneweb/bridge/head", json.dumps(head), retain=True)
        async with harness.recording(port, "oneweb/site/s0/state", "oneweb/bridge/head") as recorder, made.publishing():
            await recorder.until(
                lambda: recorder.on("oneweb/bridge/head")[-1:] and recorder.retained["oneweb/bridge/head"]["seq"] == 4
            )

    assert recorder.on("oneweb/site/s0/state") == [{"site_id": "s0"}, None]


async def test_broker_that_answers_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that takes and does not answer is noticed, long before the keepalive would."""
    monkeypatch.setattr(sender, "STALL_TIMEOUT_S", 1.0)
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port) as process, bench(tmp_path, port) as made, made.publishing() as running:
        await made.store.commit(samples(1, 1))
        # Rows flow when the subscriptions are made, which have a time limit of their own.
        await made.drained()
        async with asyncio.timeout(20):
            process.send_signal(signal.SIGSTOP)
            try:
                await made.store.commit(samples(3, 3))
                while "did not acknowledge" not in str(running._last_error):
                    await asyncio.sleep(0.05)
            finally:
                process.send_signal(signal.SIGCONT)


async def test_answers_are_acknowledged_at_once_when_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no message carries the acknowledgement of an answer, the kernel is asked for it (the 40 ms trap)."""
    attempts = 0

    def counting(self: MqttConnection) -> None:
        nonlocal attempts
        attempts += 1
        real(self)

    real = MqttConnection.set_tcp_quickack
    monkeypatch.setattr(MqttConnection, "set_tcp_quickack", counting)
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made:
        await made.store.commit(samples(200, 1))
        async with made.publishing():
            await made.drained()

    assert attempts > 50


async def test_aiomqtt_and_paho_still_have_what_the_link_uses() -> None:
    """What Link overrides or shortens is as in the aiomqtt and paho it was written for."""
    expected = {
        "_on_connect": ["self", "client", "userdata", "flags", "reason_code", "properties"],
        "_on_disconnect": ["self", "client", "userdata", "flags", "reason_code", "properties"],
        "_on_message": ["self", "client", "userdata", "message"],
        "_on_socket_register_write": ["self", "client", "userdata", "sock"],
        "_on_subscribe": ["self", "client", "userdata", "mid", "reason_codes", "properties"],
        "_on_unsubscribe": ["self", "client", "userdata", "mid", "reason_codes", "properties"],
    }
    # Each version of Python gives classes other members between double underscores.
    overridden = {name for name in vars(MqttConnection) if name in vars(aiomqtt.Client) and not name.startswith("__")}
    assert set(expected) == overridden
    for name, parameters in expected.items():
        assert parameters == list(inspect.signature(getattr(aiomqtt.Client, name)).parameters)
    shortened = {
        "_handle_pubackcomp": ["cmd"],
        "_sock_recv": ["bufsize"],
        "_sock_send": ["buf"],
        "loop_read": ["max_packets"],
        "loop_write": [],
        "_mid_generate": [],
    }
    client = aiomqtt.Client("127.0.0.1")._client
    for name, parameters in shortened.items():
        assert parameters == list(inspect.signature(getattr(client, name)).parameters)
    assert {"_in_packet", "_out_packet", "_sock"} <= vars(client).keys()
    queued = re.findall(r'"(\w+)":', inspect.getsource(client._packet_queue))
    assert queued == ["command", "mid", "qos", "pos", "to_process", "packet", "info"]


@pytest.mark.parametrize("restarts_in_between", [False, True])
async def test_cursor_that_a_power_loss_set_back_goes_to_the_head(tmp_path: Path, *, restarts_in_between: bool) -> None:
    """Where the broker's head is ahead of the cursor and the journal had those rows, they are not published again."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), harness.recording(port, "oneweb/terminal/#") as recorder:
        async with bench(tmp_path, port) as made:
            journal_id = made.store.journal_id
            await made.store.commit(samples(40, 40))
            async with made.publishing():
                await made.drained()
            await made.rows._connection.execute("UPDATE cursor SET seq = 10")
        if restarts_in_between:
            async with bench(tmp_path, port) as made:
                await made.store.commit(samples(1, 1))
        async with bench(tmp_path, port) as made:
            await made.store.commit(samples(1, 1))
            async with made.publishing():
                await made.drained()
            await recorder.quiet(0.3)
            assert (await made.rows.identity.read()).journal_id == journal_id

    assert made.alerts == []
    assert terminal_messages(recorder) == 41 + restarts_in_between


async def test_copy_that_grew_before_it_was_published_is_no_power_loss(tmp_path: Path) -> None:
    """Rows of a restored copy have the numbers of others that its original published: none of them is passed over."""
    port, path, copy = mosquitto.free_port(), tmp_path / "bench.db", tmp_path / "copy.db"
    async with mosquitto.run_mosquitto(port), harness.recording(port, "oneweb/terminal/#") as recorder:
        async with bench(tmp_path, port) as made:
            await made.store.commit(samples(10, 10))
            async with made.publishing():
                await made.drained()
            await made.store._connections._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            shutil.copy(path, copy)
            await made.store.commit(samples(5, 5))
            async with made.publishing():
                await made.drained()
        path.write_bytes(copy.read_bytes())
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        for _ in range(2):
            async with bench(tmp_path, port) as made:
                await made.store.commit(samples(8, 8))
        known = terminal_messages(recorder)
        async with bench(tmp_path, port) as made, made.publishing():
            await made.drained()
            await recorder.until(lambda: terminal_messages(recorder) >= known + 16)

    assert [alert.split(":")[0] for alert in made.alerts] == ["database_restored"]


async def test_no_barrier_stalls_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is filled again at each answer: it is hardly ever empty while rows wait (the 40 ms trap)."""
    port = mosquitto.free_port()
    empty = 0

    def counting(self: sender.Sender) -> None:
        nonlocal empty
        real(self)
        empty += self.window.in_flight == 0 and self.window.unfinished_rows > 0

    real = sender.Sender.pump
    monkeypatch.setattr(sender.Sender, "pump", counting)
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made:
        await made.store.commit(samples(1000, 1000))
        await made.store.commit(samples(1000, 1000))
        async with made.publishing():
            await made.drained()

    assert empty < 200


async def test_drain_reads_the_next_page_before_the_last_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next page is read while the one before is under way: the window does not run dry between two."""
    monkeypatch.setattr(drain, "PAGE_ROWS", 20)
    monkeypatch.setattr(drain, "MAX_ROWS_AHEAD", 60)
    port = mosquitto.free_port()
    drains: list[drain.Drain] = []
    under_way: list[int] = []

    async def loop(self: drain.Drain) -> None:
        drains.append(self)
        await real_loop(self)

    async def after(self: Journal, seq: int, limit: int) -> list[Row]:
        if drains and 0 < seq < 1000:
            under_way.append(drains[-1]._window.unfinished_rows)
        return await real_after(self, seq, limit)

    real_loop, real_after = drain.Drain.drain_loop, Journal.after
    monkeypatch.setattr(drain.Drain, "drain_loop", loop)
    monkeypatch.setattr(Journal, "after", after)
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port, window=10) as made:
        await made.store.commit(samples(1000, 1000))
        async with made.publishing():
            await made.drained()
    assert len(under_way) > 40
    assert sum(rows == 0 for rows in under_way) < 10


async def test_message_without_an_answer_ends_even_a_busy_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One PUBACK that never comes, while others do: the connection is given up, and its row comes with the next."""
    monkeypatch.setattr(sender, "STALL_TIMEOUT_S", 0.5)
    monkeypatch.setattr(publisher, "FIRST_RECONNECT_S", 0.1)
    port = mosquitto.free_port()

    def keep_back(topic: str) -> int | None:
        is_told = "did not acknowledge a message on oneweb/terminal/t0/" in caplog.text
        return -1 if "/t0/" in topic and not is_told else None

    async with mosquitto.run_mosquitto(port), proxy.between(port) as gate, bench(tmp_path, gate.port) as made:
        gate.bend = keep_back
        await made.store.commit(samples(1, 1))
        async with made.publishing() as running, asyncio.timeout(30):
            while "did not acknowledge a message on oneweb/terminal/t0/" not in caplog.text:
                # What is busy is another topic; the row that waits holds up the cursor only.
                await running.publish_messages([Message("oneweb/site/busy/state", b"{}", retain=True)])
                await asyncio.sleep(0.01)
            await made.drained()


async def test_each_probe_has_a_word_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late copy of an earlier probe does not prove a later one."""
    monkeypatch.setattr(probing, "PROBE_INTERVAL_S", 0.05)
    port = mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(port),
        bench(tmp_path, port) as made,
        harness.recording(port) as recorder,
        made.publishing(),
    ):
        probes = await recorder.until(lambda: len(probes := recorder.on("oneweb/bridge/probe")) >= 4 and probes)

    assert len({probe["nonce"] for probe in probes}) == len(probes)


async def test_answers_to_response_topics_take_part_in_the_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many commands want answers on topics of their own, no more is in flight than the broker allows."""
    most = 0

    def counting(self: MqttConnection, message: Message) -> int:
        nonlocal most
        mid = real(self, message)
        most = max(most, len(self._io._sent))
        return mid

    real = MqttConnection.send
    monkeypatch.setattr(MqttConnection, "send", counting)
    async with (
        guarded_broker(tmp_path, ALL, "max_inflight_messages 3") as port,
        bench(tmp_path, port) as made,
        harness.recording(port, "answers/#") as recorder,
        made.publishing() as running,
    ):
        async with asyncio.timeout(20):
            while running.connected_since is None:
                await asyncio.sleep(0.02)
        for number in range(50):
            running.answer_to("oneweb/bridge/request/purge", f"answers/{number}", b"c")(Response(status="ok"))
        await recorder.until(lambda: len(recorder.messages) == 50)

    assert most == 3


async def test_message_that_mqtt_has_no_room_for_is_refused_alone(tmp_path: Path) -> None:
    """A topic that cannot be sent is refused like one that the broker refuses; the connection goes on."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made, made.publishing() as running:
        async with asyncio.timeout(20):
            while (
                accepted := await running.publish_messages([Message(f"oneweb/{'x' * 65_536}", b"{}", retain=False)])
            ) is None:
                await asyncio.sleep(0.02)
        await made.store.commit(samples(3, 3))
        await made.drained()

    assert accepted == [False]


async def test_flood_of_commands_is_dropped_in_one_place_and_counted(tmp_path: Path) -> None:
    """Commands wait in one bounded queue: what does not fit is counted there, and nothing else gets lost."""
    inbox, port = Inbox(), mosquitto.free_port()
    count = 2500
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made:
        made.on_command = inbox.put
        async with made.publishing() as running, asyncio.timeout(30):
            while running.connected_since is None:
                await asyncio.sleep(0.02)
            async with MqttConnection(made.settings, "flood") as link:
                for _ in range(count):
                    link.send(Message("oneweb/bridge/polling/sites/poll", b"{}", retain=False))
                while inbox.dropped < count - 1000:
                    await asyncio.sleep(0.02)

    assert inbox.dropped == count - 1000


async def test_answer_with_correlation_data_over_the_limit_is_not_sent(tmp_path: Path) -> None:
    """Correlation data counts for the size of an answer: what the sender may choose does not end the connection."""
    async with (
        guarded_broker(tmp_path, ALL, "max_packet_size 4000") as port,
        bench(tmp_path, port) as made,
        harness.recording(port, "#") as recorder,
        made.publishing() as running,
    ):
        await connected(running)
        since = running.connected_since
        for size in (100, 4000, 200):
            answer = running.answer_to("oneweb/bridge/request/purge", "answers", b"c" * size)
            answer(Response(status="ok", count=size))
        await recorder.until(lambda: len(recorder.on("oneweb/bridge/response/purge")) == 3)
        answers = await recorder.until(lambda: len(answers := recorder.on("answers")) == 2 and answers)
        assert running.connected_since == since
    assert [answer["count"] for answer in answers] == [100, 200]


async def test_message_that_is_no_command_for_its_size_is_kept_back_by_the_broker(tmp_path: Path) -> None:
    """On MQTT 5 the broker knows the largest message that the bridge takes, retained ones too."""
    received: list[bytes] = []
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made:
        made.on_command = lambda incoming: received.append(incoming.payload)
        await harness.publish(port, "oneweb/bridge/polling/sites/set", b"x" * 1_000_000, retain=True)
        async with made.publishing() as running, asyncio.timeout(20):
            await connected(running)
            await harness.publish(port, "oneweb/bridge/polling/products/set", b"x" * 1_000_000)
            await harness.publish(port, "oneweb/bridge/polling/products/set", b"x" * 65_536)
            while not received:
                await asyncio.sleep(0.02)

    assert [len(payload) for payload in received] == [65_536]


async def test_retained_commands_of_unknown_calls_are_not_remembered(tmp_path: Path) -> None:
    """What a connection remembers of retained commands does not grow with the names that their senders think of."""
    received: list[CommandMessage] = []
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made:
        made.on_command = received.append
        async with made.publishing() as running, asyncio.timeout(20):
            await connected(running)
            for name in ("sites", "all", "x" * 1000, "y" * 1000):
                await harness.publish(port, f"oneweb/bridge/polling/{name}/set", b"{}", retain=True)
            while len(received) < 4:
                await asyncio.sleep(0.02)
            assert running._session is not None
            assert running._session._receiver._topics_with_retained == {
                f"oneweb/bridge/polling/{name}/set" for name in ("sites", "all")
            }


def test_commands_that_wait_are_bounded_in_bytes() -> None:
    """What waits holds no more than its bound, however few commands it is; what was taken out makes room."""
    inbox, size = Inbox(), 1_000_000
    command = CommandMessage("oneweb/bridge/polling/sites/set", b"", False, reply_bytes=size)
    for _ in range(6):
        inbox.put(command)
    assert inbox.dropped == 3
    asyncio.run(inbox.get())
    inbox.put(command)
    inbox.put(command)
    assert inbox.dropped == 4


async def test_answer_to_a_retained_command_waits_in_the_window_of_its_connection(tmp_path: Path) -> None:
    """A retained command comes before the beginning is over; its answer is not lost with a window that is replaced."""
    port = mosquitto.free_port()
    windows: list[object] = []
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made:
        await harness.publish(port, "oneweb/bridge/request/purge", b"{}", retain=True)
        async with made.publishing() as running, asyncio.timeout(20):
            # The publisher's task has not begun yet.
            made.on_command = lambda _: windows.append(running._session and running._session._window)
            while running.connected_since is None or not windows:
                await asyncio.sleep(0.02)
            assert running._session is not None
            assert windows == [running._session._window]


@pytest.mark.parametrize("is_late", [False, True])
async def test_answers_wait_for_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_late: bool) -> None:
    """They come before the answers to what is retained: the newest 100, and none that has waited for too long."""
    monkeypatch.setattr(answers, "ANSWER_WAIT_S", -1.0 if is_late else 600.0)
    port, topic = mosquitto.free_port(), "oneweb/bridge/polling/sites/poll"
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made, harness.recording(port, "#") as recorder:
        await harness.publish(port, topic, b"{}", retain=True)
        made.on_command = lambda command: command.answer(Response(id="retained", status="error"))
        async with made.publishing() as running:
            # The publisher's task has not begun yet.
            for number in range(answers.MAX_ANSWERS + 5):
                running.answer_to(topic, "answers")(Response(id=f"{number}", status="ok"))
            await recorder.until(lambda: [r for r in recorder.on(RESULTS) if r["id"] == "retained"])
    kept = [] if is_late else [f"{number}" for number in range(5, answers.MAX_ANSWERS + 5)]
    assert [result["id"] for result in recorder.on(RESULTS)] == [*kept, "retained"]
    assert [result["id"] for result in recorder.on("answers")] == kept


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_bridge_that_stops_without_an_answer_leaves_its_will(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """The window is full and nothing is acknowledged any more: who looks there learns all the same that it is gone."""
    monkeypatch.setattr(session, "OFFLINE_TIMEOUT_S", 0.3)
    port = mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(port),
        proxy.between(port) as gate,
        bench(tmp_path, gate.port, window=1, protocol=protocol) as made,
    ):
        async with made.publishing() as running:
            await connected(running)
            gate.bend = lambda topic: -1
            await made.store.commit(samples(3, 3))
            async with asyncio.timeout(20):
                while not (running._session and running._session.sender._in_flight):
                    await asyncio.sleep(0.01)
        await harness.until_retained(port, "oneweb/bridge/status", lambda status: status == {"state": "offline"})


async def test_broker_that_is_left_for_another_is_told_so(tmp_path: Path) -> None:
    """After a reload with another broker nobody reads at the old one for ever that the bridge is online."""
    first, second = mosquitto.free_port(), mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(first),
        mosquitto.run_mosquitto(second),
        bench(tmp_path, first) as made,
        made.publishing() as running,
    ):
        await connected(running)
        running.reconfigure(msgspec.structs.replace(made.settings, port=second))
        await harness.until_retained(first, "oneweb/bridge/status", lambda status: status == {"state": "offline"})
        await harness.until_retained(second, "oneweb/bridge/status", lambda status: status == {"state": "online"})


async def connected(running: publisher.Publisher) -> None:
    """Waits until the publisher has begun a session."""
    async with asyncio.timeout(20):
        while running.connected_since is None:
            await asyncio.sleep(0.02)


async def test_will_is_given_only_by_a_connection_that_may_publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first connection looks without a will, the next has one; a quick reconnect does not look again."""
    monkeypatch.setattr(publisher, "FIRST_RECONNECT_S", 0.01)
    port = mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(port),
        proxy.between(port) as gate,
        bench(tmp_path, gate.port) as made,
        made.publishing() as running,
    ):
        await connected(running)
        gate.sever()
        async with asyncio.timeout(20):
            while len(gate.wills) < 3:
                await asyncio.sleep(0.02)
        await connected(running)

    assert gate.wills == [False, True, True]


async def test_stranger_never_gives_a_will(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge that finds another one's head has no will, however often it comes, and its end says nothing."""
    monkeypatch.setattr(publisher, "FIRST_RECONNECT_S", 0.01)
    port = mosquitto.free_port()
    head = {"journal": "another", "instance": "other", "seq": 9}
    async with mosquitto.run_mosquitto(port), proxy.between(port) as gate, bench(tmp_path, gate.port) as made:
        await harness.publish(port, "oneweb/bridge/head", json.dumps(head), retain=True)
        await harness.publish(port, "oneweb/bridge/status", b'{"state":"online"}', retain=True)
        async with harness.recording(port, "oneweb/bridge/status") as recorder, made.publishing() as running:
            async with asyncio.timeout(20):
                while len(gate.wills) < 3:
                    await asyncio.sleep(0.02)
            gate.sever()
            assert "'other'" in str(running._last_error)

    assert not any(gate.wills)
    assert recorder.on("oneweb/bridge/status") == [{"state": "online"}]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize(
    ("setting", "words"), [("retain_available false", "does not keep retained"), ("max_qos 0", "QoS 0 only")]
)
async def test_broker_without_retain_or_qos_1_gets_a_sentence(
    tmp_path: Path, protocol: str, setting: str, words: str
) -> None:
    """Such a broker is told apart from a wrong password or a broken line, on MQTT 3.1.1 too."""
    port = mosquitto.free_port()
    conf = tmp_path / "poor.conf"
    conf.write_text(f"user root\nlistener {port} 127.0.0.1\nallow_anonymous true\n{setting}\n")
    process = await asyncio.create_subprocess_exec(
        "mosquitto", "-c", str(conf), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with bench(tmp_path, port, protocol=protocol) as made, made.publishing() as running:
            async with asyncio.timeout(20):
                while words not in str(running._last_error):
                    await asyncio.sleep(0.05)
    finally:
        process.terminate()
        await process.wait()


async def test_proof_of_retained_messages_leaves_none(tmp_path: Path) -> None:
    """On MQTT 3.1.1 the status proves that the broker keeps what it should; a probe is never retained."""
    port = mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(port),
        harness.recording(port) as recorder,
        bench(tmp_path, port, protocol="3.1.1") as made,
        made.publishing() as running,
    ):
        await connected(running)
        await recorder.until(lambda: recorder.retained.get("oneweb/bridge/status") == {"state": "online"})
        kept = await harness.retained(port)

    assert kept["oneweb/bridge/status"] == {"state": "online"}
    assert "oneweb/bridge/probe" not in kept
    assert [retain for topic, _, retain in recorder.messages if topic == "oneweb/bridge/probe" and retain] == []


@contextlib.asynccontextmanager
async def twin_benches(directory: Path, port: int, **changes: Any) -> AsyncIterator[tuple[Bench, Bench]]:
    """Two benches with databases of their own for one broker: what they publish as has one client id."""
    for name in "ab":
        (directory / name).mkdir()
    async with bench(directory / "a", port, **changes) as first, bench(directory / "b", port, **changes) as second:
        yield first, second


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_twin_that_comes_later_looks_and_stays_away(
    tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes nobody's connection and stays away for as long as the other answers, which alerts; then it comes."""
    monkeypatch.setattr(twins, "GIVE_WAY_S", 0.2)
    monkeypatch.setattr(twins, "MAX_ABSENCE_S", 0.5)
    monkeypatch.setattr(look, "MIN_TWIN_TIMEOUT_S", 20.0)
    port = mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(port),
        twin_benches(tmp_path, port, protocol=protocol) as (first, second),
        second.publishing_later() as later,
    ):
        async with first.publishing() as older:
            await connected(older)
            since = older.connected_since
            newer = await later()
            async with asyncio.timeout(20):
                while newer._twins.take_overs._in_a_row < 3:
                    await asyncio.sleep(0.02)
            assert "'oneweb-bridge-main'" in str(newer._last_error)
            assert older.connected_since == since
            assert newer.connected_since is None
            kept = await harness.retained(port, "oneweb/bridge/status")
            assert kept["oneweb/bridge/status"] == {"state": "online"}
        await connected(newer)

    assert {alert.split(":")[0] for alert in first.alerts} == {"client_id_taken"}
    assert second.alerts == []


async def test_twin_that_does_not_answer_is_no_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a bridge left that lost its power says online for a while; nobody answers, and the next one connects."""
    monkeypatch.setattr(look, "MIN_TWIN_TIMEOUT_S", 0.2)
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made:
        await harness.publish(port, "oneweb/bridge/status", b'{"state":"online"}', retain=True)
        strange = (
            b"no JSON",
            b"[" * 9000,
            json.dumps({"time": NOON, "nonce": "n", "instance": "other", "process": "x", "asks": True}),
            json.dumps({"time": NOON, "nonce": "n", "process": "x"}),
            b"{}",
        )
        old = {"time": NOON, "nonce": "n", "instance": "other", "process": "x"}
        await harness.publish(port, "oneweb/bridge/probe", json.dumps(old), retain=True)
        async with made.publishing() as running:
            for payload in strange:
                await harness.publish(port, "oneweb/bridge/probe", payload)
            await connected(running)

    assert made.alerts == []


@pytest.mark.parametrize("epoch", [None, 1])
async def test_stranger_without_a_head_is_known_by_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int | None
) -> None:
    """While the first bridge below a base has no head there yet, another instance finds out that it is online.

    Also one with a lease, which speaks of its own instance alone.
    """
    monkeypatch.setattr(look, "MIN_TWIN_TIMEOUT_S", 20.0)
    monkeypatch.setattr(publisher, "FIRST_RECONNECT_S", 0.01)
    port = mosquitto.free_port()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with (
        mosquitto.run_mosquitto(port),
        bench(tmp_path / "a", port) as first,
        bench(tmp_path / "b", port) as last,
        first.publishing() as older,
    ):
        last.epoch = epoch
        async with harness.recording(port, "oneweb/bridge/head") as heads:
            await heads.until(lambda: heads.on("oneweb/bridge/head"))
        await harness.publish(port, "oneweb/bridge/head", b"", retain=True)
        async with harness.recording(port, "oneweb/bridge/alert") as recorder, last.publishing("other") as newer:
            await recorder.until(lambda: recorder.on("oneweb/bridge/alert"))
            async with asyncio.timeout(20):
                while "'main' is online below" not in str(newer._last_error):
                    await asyncio.sleep(0.02)
            assert newer.connected_since is None
        assert older.connected_since is not None
    assert {alert["kind"] for alert in recorder.on("oneweb/bridge/alert")} == {"foreign_instance"}
    assert first.alerts == []


async def test_probe_that_asks_is_answered(tmp_path: Path) -> None:
    """Not one of `check`, of this process, or one that asks nothing; one that asks is, once for all at a time."""
    port = mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(port),
        harness.recording(port, "oneweb/bridge/probe") as recorder,
        bench(tmp_path, port) as made,
        made.publishing() as running,
    ):
        await connected(running)
        before = len(recorder.on("oneweb/bridge/probe"))
        silent: list[dict[str, Any]] = [{"instance": "other", "process": "x"}, {}, {"instance": "main", "asks": True}]
        silent += [
            {"instance": "main", "process": running._process, "asks": True},
            {"instance": "main", "process": "x"},
        ]
        asks = {"instance": "main", "process": "x", "asks": True}
        for members in (*silent, asks):
            await harness.publish(port, "oneweb/bridge/probe", json.dumps({"time": NOON, "nonce": "n", **members}))
        await recorder.until(lambda: len(recorder.on("oneweb/bridge/probe")) > before + len(silent) + 1)
        await recorder.quiet(0.3)

    answers = [probe for probe in recorder.on("oneweb/bridge/probe")[before:] if probe["nonce"] != "n"]
    assert [(probe["instance"], probe["process"], "asks" in probe) for probe in answers] == [
        ("main", running._process, False)
    ]
    assert len(made.alerts) == 1


async def test_connections_that_do_not_last_look_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a broker does not say why it ends them, another client may be what ends two in a row."""
    monkeypatch.setattr(publisher, "FIRST_RECONNECT_S", 0.01)
    port = mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(port),
        proxy.between(port) as gate,
        bench(tmp_path, gate.port) as made,
        made.publishing() as running,
    ):
        for _ in range(2):
            await connected(running)
            before = running.connected_since
            gate.sever()
            async with asyncio.timeout(20):
                while running.connected_since == before:
                    await asyncio.sleep(0.02)
        await connected(running)

    assert gate.wills == [False, True, True, False, True]


async def test_look_that_the_broker_rejects_has_the_client_id_of_the_bridge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some brokers let a user in with a single client id."""
    monkeypatch.setattr(publisher, "FIRST_RECONNECT_S", 0.01)
    suffixes: list[str] = []
    real = publisher.Publisher._link

    def link(self: publisher.Publisher, will: Message | None, suffix: str = "") -> MqttConnection:
        suffixes.append(suffix)
        if suffix:
            raise Rejected("Client identifier not valid")
        return real(self, will, suffix)

    monkeypatch.setattr(publisher.Publisher, "_link", link)
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made, made.publishing() as running:
        await connected(running)

    assert suffixes == ["-look", "", ""]


async def test_end_that_a_twin_causes_is_told_where_the_broker_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DISCONNECT with 0x8E: the sentence, the alert, and a pause that is longer than after a broken line."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made, made.publishing() as running:
        await connected(running)
        assert running._session is not None
        pauses: list[float] = []
        real = twins.TakeOvers.pause

        def noting(self: twins.TakeOvers) -> float:
            pauses.append(real(self))
            return pauses[-1]

        monkeypatch.setattr(twins.TakeOvers, "pause", noting)
        link: Any = running._session._link
        link._end = TakenOver("Session taken over")
        link._disconnected.set_exception(aiomqtt.MqttError("ended"))
        async with asyncio.timeout(20):
            while not pauses:
                await asyncio.sleep(0.02)

        assert running._accepted_at == -math.inf
    assert pauses == [twins.GIVE_WAY_S]
    assert [alert.split(":")[0] for alert in made.alerts] == ["client_id_taken"]


@pytest.mark.parametrize("tells", [True, False])
def test_twins_take_over_seldom(*, tells: bool) -> None:
    """Two twins, one of which was there for an hour, take over three times in the first minute, and less and less.

    With a broker that `tells` why, who is thrown out pauses; else it comes back after a second and sees the head.
    """
    bridges = [twins.TakeOvers(), twins.TakeOvers()]
    lost, since, due = [-3601.0, -twins.GIVE_WAY_S], -3600.0, [math.inf, 0.0]
    online: int | None = 0
    head, take_overs = 0, []
    while (now := min(due)) < 7200:
        comes = due.index(now)
        due[comes] = math.inf
        if online is not None:
            take_overs.append(now)
            bridges[online].note_connection(now - since, since - lost[online])
            lost[online], due[online] = now, now + (bridges[online].pause() if tells else 1.0)
        online = None
        if head != comes and now > 0 and bridges[comes].gives_way:
            due[comes] = now + bridges[comes].pause()
        else:
            since, online, head = now, comes, comes

    assert len([at for at in take_overs if at < 60]) <= 3
    assert len([at for at in take_overs if at > 3600]) <= 24


async def test_goodbye_is_said_only_by_who_was_there(tmp_path: Path) -> None:
    """A bridge that is stopped before it knew whether it may publish leaves `status` as it was."""
    readable = ("readwrite harness/#", "write oneweb/#", "read oneweb/bridge/head", "read oneweb/bridge/status")
    acl = "".join(f"topic {rule}\n" for rule in readable)
    async with guarded_broker(tmp_path, acl) as port, bench(tmp_path, port) as made:
        await harness.publish(port, "oneweb/bridge/status", b'{"state":"online"}', retain=True)
        async with made.publishing() as running, asyncio.timeout(20):
            # As if it had just looked: its next connection has a will.
            running._accepted_at = time.monotonic()
            while running._session is None or not running._session._prober._nonce:
                await asyncio.sleep(0.02)
        kept = await harness.retained(port, "oneweb/bridge/status")

    assert kept["oneweb/bridge/status"] == {"state": "online"}


async def test_busy_connection_is_judged_by_its_oldest_message(tmp_path: Path) -> None:
    """A message sent just now does not hide one that waits too long; while all are young there is no complaint."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made, made.publishing() as running:
        await connected(running)
        assert running._session is not None
        tried = running._session.sender
        async with asyncio.timeout(20):
            while tried._in_flight:
                await asyncio.sleep(0.01)
        for packet_id, age in ((70_001, sender.STALL_TIMEOUT_S + 1), (70_002, 0.0)):
            waiting = Outgoing(Message(f"t/{packet_id}", b"{}", retain=False), packet_id, None, None)
            waiting.sent_at = time.monotonic() - age
            tried._in_flight[packet_id] = waiting
        with pytest.raises(aiomqtt.MqttError, match="t/70001"):
            tried.check_stall()
        del tried._in_flight[70_001]
        tried.check_stall()
