"""What one task does while another waits: nothing is lost, hangs, or stays wrong because of the moment it came in."""

import asyncio
import json
import types
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from aiohttp import web

from oneweb_bridge.decode.coverage import Limits
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.records import Alert, Batch, Entry, Message, Positions, RecordWrite, Row
from oneweb_bridge.model.status import Response
from oneweb_bridge.mqtt import purge, resend
from oneweb_bridge.mqtt.answers import WaitingAnswers
from oneweb_bridge.mqtt.lane import Outgoing
from oneweb_bridge.mqtt.link import MqttConnection
from oneweb_bridge.mqtt.resend import Resend
from oneweb_bridge.mqtt.sender import Sender
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.mqtt.window import SendWindow
from oneweb_bridge.polling.missing_records import MissingRecords
from oneweb_bridge.polling.poll_records import RecordsPoll
from oneweb_bridge.polling.product_limits import ProductLimits
from oneweb_bridge.store import database, journal, store
from oneweb_bridge.store.edge_tables import open_edge_tables
from oneweb_bridge.trends.chunks import StreamKey
from oneweb_bridge.trends.file import open_trends
from oneweb_bridge.trends.pending import PendingDays, Scan
from oneweb_bridge.trends.reading import open_history
from oneweb_bridge.trends.series import Span
from tests import harness, polls, test_publisher
from tests.test_api import client, oauth, serving
from tests.test_coverage import renamed, spoil
from tests.test_poll_runner import alerts, managed_poll, manager, silence

TERMINALS, PRODUCTS, SITES, SIGNAL = "user_terminals", "products", "sites", "ut_signal_quality"

# ── a connection that was lost meanwhile ───────────────────────────────────────────────────────


class Link:
    """A connection that takes everything and answers nothing."""

    maximum_packet_size = 1 << 28

    def __init__(self) -> None:
        self.sent = list[Message]()

    def send(self, message: Message) -> int:
        self.sent.append(message)
        return len(self.sent)

    def set_tcp_quickack(self) -> None:
        """Nothing to do."""


def lost_connection(tree: TopicTree) -> tuple[Sender, Resend]:
    """What sends over a connection of which nothing is answered."""

    def on_answered(outgoing: Outgoing, code: int, reason: str) -> None:
        window.acknowledge(outgoing)

    settings = types.SimpleNamespace(max_payload=64_000)
    context: Any = types.SimpleNamespace(
        settings=settings, tree=tree, alerted_topics=set(), callbacks=None, journal=None
    )
    link: Any = Link()
    window = SendWindow(10, Positions(0), tree.class_of)
    sending = Sender(context, link, window, on_answered)
    nobody: Any = None
    return sending, Resend(context, sending, nobody, nobody, asyncio.Lock())


@pytest.mark.parametrize("is_in_flight", [False, True])
async def test_replay_ends_with_the_connection_that_was_lost_while_a_page_was_read(is_in_flight: bool) -> None:
    """It raises what ended the connection: it neither waits for ever nor says that it was done."""
    reading, may_go = asyncio.Event(), asyncio.Event()
    sending, sent_again = lost_connection(TopicTree("b", "i", "j"))

    def row(seq: int) -> Row:
        return Row(seq, 0, "terminal", "x", "metric", "signal_quality", 1, b'{"a":1}')

    async def pages() -> AsyncIterator[list[Row]]:
        yield [row(1)] if is_in_flight else []
        reading.set()
        await may_go.wait()
        yield [row(2)] if is_in_flight else []

    replaying = asyncio.create_task(sent_again.replay(pages()))
    await reading.wait()
    await sending.close()
    may_go.set()
    await asyncio.wait({replaying}, timeout=5)
    if is_in_flight:
        with pytest.raises(aiomqtt.MqttError, match="lost"):
            replaying.result()
    else:
        assert replaying.result() == 0


async def test_nothing_is_cleared_on_a_connection_that_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who purges is told so, and not how many topics would have been cleared."""

    async def without_owned(topics: list[str], *_: Any) -> list[str]:
        return topics

    monkeypatch.setattr(resend, "without_owned", without_owned)
    sending, sent_again = lost_connection(TopicTree("b", "i", "j"))
    await sending.close()
    with pytest.raises(aiomqtt.MqttError, match="lost"):
        await asyncio.wait_for(sent_again.clear_strays(["b/terminal/t1/state"]), 5)
    with pytest.raises(aiomqtt.MqttError, match="lost"):
        await asyncio.wait_for(sending.wait_for_free_window(), 5)
    with pytest.raises(aiomqtt.MqttError, match="lost"):
        await asyncio.wait_for(sending.wait_until_idle(), 5)
    with pytest.raises(aiomqtt.MqttError, match="lost"):
        await asyncio.wait_for(sending.wait_for_change(), 5)


async def test_answer_that_was_not_acknowledged_comes_with_the_next_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after an answer was given and before the broker has it."""
    port, real, lost = mosquitto.free_port(), MqttConnection.send, list[Message]()
    topic, results = "oneweb/bridge/polling/sites/poll", "oneweb/bridge/polling/sites/result"

    def send(self: MqttConnection, message: Message) -> int:
        if message.topic == results and not lost:
            lost.append(message)
            return 65_535
        return real(self, message)

    monkeypatch.setattr(MqttConnection, "send", send)
    async with (
        mosquitto.run_mosquitto(port),
        test_publisher.bench(tmp_path, port) as made,
        harness.recording(port, "#") as recorder,
        made.publishing() as running,
    ):
        await test_publisher.connected(running)
        running.answer_to(topic)(Response(id="1", status="ok"))
        assert running._session is not None
        running._session.end("the line is cut")
        await recorder.until(lambda: recorder.on(results))
        running.answer_to(topic)(Response(id="2", status="ok"))
        await recorder.until(lambda: len(recorder.on(results)) > 1)
        async with asyncio.timeout(20):
            while running._answers.to_send():  # until the broker's acknowledgement is here too
                await asyncio.sleep(0.01)
    assert [result["id"] for result in recorder.on(results)] == ["1", "2"]


def test_answers_end_when_each_of_their_messages_has_ended() -> None:
    first, other = Message("a", b"", retain=False), Message("a", b"", retain=False)
    answers = WaitingAnswers()
    waiting = answers.add([first, other])
    answers.end(waiting, first)
    assert [answer.messages for answer in answers.to_send()] == [[other]]
    answers.end(waiting, other)
    assert answers.to_send() == ()


# ── purge, and what was dropped ────────────────────────────────────────────────────────────────


def terminal(imei: str) -> Batch:
    """A terminal that is new."""
    doc = json.dumps({"imei": imei}).encode()
    entry = Entry("terminal", imei, "added", "", 5, b'{"record":%b}' % doc)
    return Batch(entries=[entry], writes=[RecordWrite("terminal", imei, doc, entry=0)])


async def test_purge_does_not_clear_a_topic_that_has_come_to_be_owned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it looks which topics are the bridge's, a poll brings the record of a topic that belonged to nobody."""
    port, stray = mosquitto.free_port(), "oneweb/terminal/9/state"
    real = purge.without_owned

    async with (
        mosquitto.run_mosquitto(port),
        test_publisher.bench(tmp_path, port) as made,
        made.publishing() as running,
    ):

        async def without_owned(topics: Any, tree: TopicTree, rows: journal.Journal) -> list[str]:
            strays = await real(topics, tree, rows)
            await made.store.commit(terminal("9"))
            # Where rows may be published meanwhile, it is.
            await asyncio.sleep(0.5)
            return strays

        monkeypatch.setattr(resend, "without_owned", without_owned)
        await test_publisher.connected(running)
        await harness.publish(port, stray, b'{"old":1}', retain=True)
        assert await running.purge() == 1
        await made.drained()
        assert (await harness.retained(port, stray))[stray]["imei"] == "9"


async def test_what_is_dropped_while_topics_are_restored_is_restored_too(tmp_path: Path) -> None:
    """The mark stays where more rows were dropped since it was read."""
    path = tmp_path / "bridge.db"
    async with store.open_store(path), journal.open_journal(path, "mqtt") as rows:
        drop = "UPDATE cursor SET dropped = dropped + 1, restore_from = 7 WHERE output = 'mqtt'"
        await rows.advance(9)
        before = await rows.restore_mark()
        await rows._connection.execute(drop)
        assert not await rows.clear_restore_mark(before)
        assert (mark := await rows.restore_mark()).after == 7
        assert await rows.clear_restore_mark(mark)
        assert (await rows.restore_mark()).after is None


async def test_connection_restores_what_was_dropped_while_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are dropped between the comparison of heads and the first head of the connection."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), test_publisher.bench(tmp_path, port) as made:
        await made.rows.advance(0)
        await made.store.commit(terminal("9"))
        drop = "UPDATE cursor SET dropped = dropped + 1, restore_from = 0 WHERE output = 'mqtt'"
        real = journal.Journal.restore_mark

        async def restore_mark(self: journal.Journal) -> journal.RestoreMark:
            mark = await real(self)
            monkeypatch.undo()
            await self._connection.execute(drop)
            return mark

        monkeypatch.setattr(journal.Journal, "restore_mark", restore_mark)
        async with made.publishing() as running:
            await test_publisher.connected(running)
            async with asyncio.timeout(10):
                while (await made.rows.restore_mark()).after is not None:
                    await asyncio.sleep(0.02)


# ── what is told ───────────────────────────────────────────────────────────────────────────────


async def test_alerts_are_not_lost_with_the_task_that_stores_them(tmp_path: Path) -> None:
    """A session that ends takes its own alert along, and those of others that waited with it: they are stored later."""
    async with polls.bench(tmp_path, {"terminals": 1}) as b:
        states = (await manager(b))._states
        states._waiting_alerts.append(states._alert_entry(Alert(kind="waiting", message="")))
        async with b.store._connections._writer.lock:
            telling = asyncio.create_task(states.alert(Alert(kind="topics_refused", message="")))
            await asyncio.sleep(0.05)
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        await states._store_waiting_alerts()
        assert [row.name for row in await b.news() if row.what == "alert"] == ["waiting", "topics_refused"]


@pytest.mark.parametrize("is_during_a_poll", [False, True])
async def test_reload_leaves_what_is_known_of_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_during_a_poll: bool
) -> None:
    """A finding holds on, whether another configuration comes between two polls or while one is made."""
    async with polls.bench(tmp_path) as b:
        poller = await manager(b)
        await spoil(b, SITES, renamed("name", "label"))
        await managed_poll(b, poller, SITES)
        await managed_poll(b, poller, SITES)
        real = RecordsPoll._decide_held_values

        async def decide(self: RecordsPoll) -> None:
            monkeypatch.undo()
            b.configure(polling={PRODUCTS: {"interval": "7m"}})
            await real(self)

        if is_during_a_poll:
            monkeypatch.setattr(RecordsPoll, "_decide_held_values", decide)
        else:
            b.configure(polling={PRODUCTS: {"interval": "7m"}})
        for _ in range(3):
            assert [row for row in await managed_poll(b, poller, SITES) if row.what == "alert"] == []
            assert poller.calls[SITES].status == "incomplete"


async def test_report_that_stopped_is_alerted_until_that_is_stored(tmp_path: Path) -> None:
    """A poll whose end could not be stored takes its alert along, and the next one raises it again."""
    async with polls.bench(tmp_path, {"terminals": 12}) as b:
        assert await alerts(b, 3) == []
        await silence(b, b.ids("terminals")[0])
        while True:
            await b.later(600)
            await b.poll(TERMINALS)
            outcome = await b.runner.poll(SIGNAL)
            if outcome.alerts:
                break
            await b.store.progress.save(outcome.progress)
        await b.later(600)
        assert "report_stopped" in {alert.kind for alert in (await b.poll(SIGNAL)).alerts}
        assert "report_stopped" not in {alert.kind for alert in (await b.poll(SIGNAL)).alerts}


# ── what is in force ───────────────────────────────────────────────────────────────────────────


async def test_product_that_is_decoded_while_limits_are_read_keeps_its_newer_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with polls.bench(tmp_path) as b:
        await b.poll(PRODUCTS)
        limits, id = ProductLimits(b.store), b.ids("products")[0]
        real = b.store.records.load

        async def load(kind: Any, ids: Any) -> Any:
            stored = await real(kind, ids)
            limits.note(id, {"max_bandwidth_downlink_mbps": 7.0})
            limits.note("new", {"max_bandwidth_downlink_mbps": 8.0})
            return stored

        monkeypatch.setattr(b.store.records, "load", load)
        known = await limits.load()
        wanted: dict[str, Limits] = {
            id: {"max_bandwidth_downlink_mbps": 7.0},
            "new": {"max_bandwidth_downlink_mbps": 8.0},
        }
        assert {name: known[name] for name in wanted} == wanted


async def test_token_of_credentials_that_were_replaced_meanwhile_is_not_used() -> None:
    """New credentials come while a token is asked for with the old ones."""
    is_waiting, may_answer = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path != "/oauth2/token":
            return web.json_response([{"token": request.headers["Authorization"]}])
        form = await request.post()
        client_id = form["client_id"]
        assert isinstance(client_id, str)
        if client_id == "old":
            is_waiting.set()
            await may_answer.wait()
        return web.json_response({"access_token": f"token-of-{client_id}", "expires_in": 3600})

    async with serving(handle) as server:
        settings = oauth(server.url, token_auth="body")
        async with client(server.url, **settings, client_id="old") as connection:
            request = asyncio.create_task(connection.get("/x"))
            await is_waiting.wait()
            async with client(server.url, **settings, client_id="new") as other:
                connection.reconfigure(other._settings)
            may_answer.set()
            answer = await request
    assert json.loads(answer.body) == [{"token": "Bearer token-of-new"}]


async def test_rows_that_are_looked_through_while_a_trend_is_read_are_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The days that wait to be folded and how far the journal was looked through are read one after the other."""
    place, file, key = tmp_path / "bridge.db", tmp_path / "trends.db", StreamKey("terminal", "x", "signal_quality")

    def row(seq: int) -> tuple[int, int, str, str, str, str, int, bytes]:
        return seq, 0, "terminal", "x", "metric", "signal_quality", 1000 * seq, b'{"sinr_db":1.5}'

    async with database.open_own_file(place) as opened:
        async with opened.transaction() as transaction:
            await transaction.append_journal([row(seq) for seq in range(1, 11)])
        journal_id = (await opened.fetch_all("SELECT value FROM meta WHERE name = 'journal'"))[0][0]
    with open_trends(file) as trends:
        trends.pending.note([], Scan(journal_id, 0))
        for name in ("days_of", "scan"):
            real = getattr(PendingDays, name)

            def read(self: PendingDays, *arguments: Any, real: Any = real) -> Any:
                known = real(self, *arguments)
                monkeypatch.undo()
                trends.pending.note([(0, "x", 1)], Scan(journal_id, 10))
                return known

            monkeypatch.setattr(PendingDays, name, read)
        with open_history(place, file) as history:
            assert len(history.read_samples(key, Span(0, 10**9)).ts) == 10


# ── and the rest of the kind ───────────────────────────────────────────────────────────────────


async def test_page_that_is_cached_while_a_record_is_removed_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another poll may have read a page of what is removed before that was committed."""
    versions = list[int]()
    async with polls.bench(tmp_path, removal={"after_missing": 1, "after_time": "0s"}) as b:
        await b.poll(TERMINALS)
        b.sim.fleet("remove", id=b.ids("terminals")[0])
        caches, real = b.runner._context.page_caches, MissingRecords._commit_removed

        async def commit_removed(self: MissingRecords, *arguments: Any, **named: Any) -> None:
            versions.append(caches.version)
            commit = b.store.commit

            async def commit_and_look(*batch: Any, **more: Any) -> None:
                await commit(*batch, **more)
                versions.append(caches.version)

            monkeypatch.setattr(b.store, "commit", commit_and_look)
            await real(self, *arguments, **named)
            monkeypatch.setattr(b.store, "commit", commit)
            versions.append(caches.version)

        monkeypatch.setattr(MissingRecords, "_commit_removed", commit_removed)
        await b.poll(TERMINALS)
    before, committed, after = versions
    assert before == committed < after


async def test_device_that_moves_to_another_edge_node_is_there_after_a_restart(tmp_path: Path) -> None:
    """Its old place may still be noted, where a stop came before it was forgotten."""
    path = tmp_path / "bridge.db"
    async with store.open_store(path), open_edge_tables(path) as tables:
        await tables.place_devices([("T", 1)])
        await tables.place_devices([("T", 2)])
        assert await tables.devices() == {"T": 2}


async def test_bucket_that_is_kept_aside_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The poll of the products stores it while its own poll has only kept it aside."""
    count = "SELECT count(*) FROM record WHERE kind = 'usage'"
    async with polls.bench(tmp_path, {"terminals": 4}, removal={"after_missing": 1, "after_time": "0s"}) as b:
        await spoil(b, PRODUCTS, lambda rows: rows[:1])
        await b.poll(PRODUCTS)
        b.sim.clear_faults()
        real = MissingRecords.decide

        async def decide(self: MissingRecords, *arguments: Any) -> None:
            monkeypatch.undo()
            await b.poll(PRODUCTS)
            assert (await b.rows(count))[0][0] > 1
            await real(self, *arguments)

        monkeypatch.setattr(MissingRecords, "decide", decide)
        await b.poll("usage_consumption")
        assert (await b.rows(count))[0][0] > 1


async def test_row_that_was_dropped_meanwhile_is_not_owed_under_another_one(tmp_path: Path) -> None:
    """What is owed of a topic is what stands in its own row, and not in the next one that is there."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), test_publisher.bench(tmp_path, port) as made:
        await made.store.commit(terminal("8"))
        await made.store.commit(terminal("9"))
        async with made.publishing() as running:
            await test_publisher.connected(running)
            await made.drained()
            assert running._session is not None
            await made.rows._connection.execute("DELETE FROM journal WHERE seq = 1")
            gone = Message("oneweb/terminal/8/state", b"{}", retain=True)
            await running._session._refusals.set_aside(1, gone, "refused")
            assert await made.rows.owed.next_debts() == []
