"""Commands of any kind, through the real executor, poller and store: each is answered, and none ends anything."""

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge.commands import decode, executor
from oneweb_bridge.commands import inbox as inbox_module
from oneweb_bridge.commands.executor import BrokerRequests, Executor
from oneweb_bridge.commands.inbox import Inbox
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.command import Answer, CommandMessage
from oneweb_bridge.model.records import Batch, Message
from oneweb_bridge.model.status import Response, Result
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.trends.replay import ReplayQuery, read_pages
from tests.cancelling import end_tasks
from tests.polls import Bench, bench, configured

VALUES: tuple[str, ...] = (
    *("0", "-1", "1", "9" * 19, "9" * 400, f"-{'9' * 400}", "1e300", "1e999", "-1e300", "1e-320", "NaN", "Infinity"),
    *("true", "null", "[]", "{}", "[[[[]]]]", '{"id": {"id": 1}}', '""', '" "', '"\\u0000"', '"\\ud800"', '"\\udfff"'),
    *('"1e300s"', f'"{"9" * 400}d"', f'"{"9" * 400}"', '"99999999999999d"', '"10000-01-01T00:00:00Z"', '"-5s"'),
    *('"0001-01-01T00:00:00Z"', '"PT"', f'"P{"9" * 60}D"', f'"{"x" * 3000}"', '"船"', '"a/+/#"', '"٣d"'),
)
BARE: tuple[bytes, ...] = (
    *(value.encode() for value in VALUES),
    *(
        b"",
        b"\x00",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"[" * 4096,
        b"{" * 4096,
        b'{"id":' * 600,
        b"x" * 5000,
        b"\xef\xbb\xbf{}",
    ),
)
MEMBERS = {
    "polling/sites/set": ("enabled", "interval", "id"),
    "polling/all/set": ("enabled", "interval", "id"),
    "polling/sites/poll": ("id", "source"),
    "request/republish": ("what", "id"),
    "request/replay": ("since", "until", "imei", "product_id", "report", "every", "id"),
    "request/release": ("call", "id"),
    "request/purge": ("id",),
}
BARE_TOPICS = (*MEMBERS, "polling/sites/enabled/set", "polling/sites/interval/set", "polling/x\x01/set", "request/")


class Answers:
    """Keeps what is answered, and looks into the journal for a replay as the publisher does."""

    def __init__(self, directory: Path) -> None:
        self.sent: list[Message] = []
        self._directory = directory

    def command(self, topic: str, payload: bytes, *, retain: bool = False) -> CommandMessage:
        """A command whose answer is kept."""
        return CommandMessage(topic, payload, retain, self.answer_to(topic))

    def answer_to(self, topic: str) -> Answer:
        """The way back to the sender of a command on a topic."""

        def answer(answer: Result | Response) -> None:
            to = TopicTree("oneweb", "main", "").answer_topic(topic)
            assert to is not None
            self.sent.append(Message(to, encode(answer), retain=False))

        return answer

    async def replay(self, query: ReplayQuery) -> int:
        pages = read_pages(self._directory / "bridge.db", self._directory / "bridge.trends.db", query)
        return sum([len(page) async for page in pages])

    async def republish(self) -> int:
        return 0

    purge = republish


@contextlib.asynccontextmanager
async def executing(b: Bench, tmp_path: Path) -> AsyncIterator[tuple[Inbox, Answers]]:
    """An executor at work over a poller that does not poll."""
    poller, inbox = Poller(b.runner, b.store, b.api, configured(b.sim.url), b.clock), Inbox()
    await poller.load()
    answers = Answers(tmp_path)
    requests = BrokerRequests(
        republish=answers.republish,
        republish_discovery=answers.republish,
        replay=answers.replay,
        purge=answers.purge,
    )
    obeying = Executor(
        inbox, poller, b.store, requests, b.clock, base="oneweb", is_mqtt5=True, answer_to=answers.answer_to
    )
    task = asyncio.create_task(obeying.run())
    try:
        yield inbox, answers
        assert not task.done() or task.result() is None
    finally:
        await end_tasks(task)


def payloads() -> Iterator[tuple[str, bytes]]:
    """Every topic with every kind of value, bare and in each of its members."""
    yield from itertools.product(BARE_TOPICS, BARE)
    for topic, names in MEMBERS.items():
        for name, value in itertools.product(names, VALUES):
            yield topic, f'{{"{name}": {value}}}'.encode()


async def test_no_command_ends_the_executor(tmp_path: Path) -> None:
    """Every kind of value in every member of every command is answered; after all of them a good one is obeyed."""
    async with bench(tmp_path) as b, executing(b, tmp_path) as (inbox, answers), asyncio.timeout(60):
        for topic, payload in payloads():
            inbox.put(answers.command(f"oneweb/bridge/{topic}", payload))
            while not inbox.empty():
                await asyncio.sleep(0)
        inbox.put(answers.command("oneweb/bridge/request/purge", b'{"id": "the end"}', retain=False))
        while not any(b"the end" in message.payload for message in answers.sent):
            await asyncio.sleep(0.01)

        assert len(answers.sent) > 500
        for message in answers.sent:
            answer = json.loads(message.payload)
            assert answer["status"] in ("ok", "error")
            assert len(message.payload) < 5000
            assert len(message.topic) < 300
            assert "\x01" not in message.topic
            assert not message.retain
        settings = await b.store.commands.settings()
        assert {setting.name for setting in settings} <= {"enabled", "interval"}


async def test_flood_of_commands_is_told_once_with_its_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that were dropped are an alert with their number when the flood is over; the next flood is another."""
    monkeypatch.setattr(inbox_module, "MAX_WAITING", 20)
    async with bench(tmp_path) as b, executing(b, tmp_path) as (inbox, answers), asyncio.timeout(60):
        command = answers.command("oneweb/bridge/polling/sites/set", b'{"interval": 60}')
        texts = []
        for waves in ((3, 4), (1,), ()):
            for dropped in waves:
                while inbox.has_room(command):
                    inbox.put(command)
                for _ in range(dropped):
                    inbox.put(command)
                # Until some are executed, so that the next wave meets the flood under way.
                sent = len(answers.sent)
                while len(answers.sent) < sent + 3:
                    await asyncio.sleep(0)
            while not inbox.empty():
                await asyncio.sleep(0.01)
            # What is told of a flood comes before the answer to the second command behind it.
            for _ in range(2):
                sent = len(answers.sent)
                inbox.put(command)
                while len(answers.sent) <= sent or not inbox.empty():
                    await asyncio.sleep(0.01)
            texts.append([row.body["message"] for row in await b.news() if row.body.get("kind") == "commands_dropped"])

        reason = "dropped: commands came faster than they could be executed"
        assert texts == [[f"7 commands {reason}"], [f"1 command {reason}"], []]


async def test_polls_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where so many polls and requests wait already, a further one is refused; a `set` is obeyed all the same."""
    monkeypatch.setattr(executor, "MAX_RUNNING", 3)
    async with bench(tmp_path) as b, executing(b, tmp_path) as (inbox, answers), asyncio.timeout(20):
        for number in range(4):
            inbox.put(
                answers.command("oneweb/bridge/polling/sites/poll", f'{{"id": "{number}"}}'.encode(), retain=False)
            )
        inbox.put(answers.command("oneweb/bridge/polling/sites/set", b'{"interval": 60}', retain=False))
        while len(answers.sent) < 2:
            await asyncio.sleep(0.01)

        refused, changed = (json.loads(message.payload) for message in answers.sent)
        assert (refused["id"], refused["status"]) == ("3", "error")
        assert "3 polls and requests are under way" in refused["error"]
        assert changed["status"] == "ok"
        # Of live polls of one topic the newest is kept over a restart.
        assert [(request.call, request.sender) for request in await b.store.commands.poll_requests()] == [
            ("sites", "2")
        ]


async def test_retained_poll_whose_result_follows_was_not_obeyed_before(tmp_path: Path) -> None:
    """A poll that has ended is stored no more before its result goes out: until then it is said to wait."""
    topic, body = "oneweb/bridge/polling/sites/poll", b'{"id": "once"}'
    async with bench(tmp_path) as b, executing(b, tmp_path) as (inbox, answers), asyncio.timeout(20):
        inbox.put(answers.command(topic, body, retain=True))
        while not (requests := await b.store.commands.poll_requests()):
            await asyncio.sleep(0.01)
        await b.store.commit(Batch(), ended=[request.number for request in requests])
        inbox.put(answers.command(topic, body, retain=True))
        while not answers.sent:
            await asyncio.sleep(0.01)
        answer = json.loads(answers.sent[0].payload)
    assert (answer["id"], answer.get("note")) == ("once", "this retained poll waits for its turn already")


async def test_what_a_decoder_raises_refuses_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong while a command is read is its own fault: an error result, and a traceback at debug only."""

    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(decode, "_decode_set", broken)
    with caplog.at_level(logging.DEBUG, "oneweb_bridge.commands"):
        async with bench(tmp_path) as b, executing(b, tmp_path) as (inbox, answers), asyncio.timeout(20):
            inbox.put(answers.command("oneweb/bridge/polling/sites/set", b'{"enabled": true}', retain=True))
            while not answers.sent:
                await asyncio.sleep(0.01)
            assert await b.store.commands.last_command_identity("oneweb/bridge/polling/sites/set") is None

    assert json.loads(answers.sent[0].payload)["status"] == "error"
    assert [record.levelname for record in caplog.records if record.exc_info] == ["DEBUG"]
