"""Commands of the console: each goes the way of those over MQTT, is answered on both, and is stored with its source."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.command import CommandMessage, CommandRefusal
from oneweb_bridge.model.status import Response, Result
from oneweb_bridge.web import command_routes
from oneweb_bridge.web.command_routes import CommandQueue, CommandRoutes
from tests import harness
from tests.campaign import is_at_rest
from tests.consoles import COMMAND, Visits, visited
from tests.test_console_live import EventStream

POLLING = "oneweb/bridge/polling"


class Desk:
    """A running bridge, its topics and its console."""

    def __init__(self, recorder: harness.Recorder, session: aiohttp.ClientSession, url: str) -> None:
        self.recorder = recorder
        self.url = url
        self._session = session

    async def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        async with self._session.post(f"{self.url}/{path}", json=body, headers=COMMAND) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def call(self, name: str) -> Any:
        async with self._session.get(f"{self.url}/calls") as answer:
            return next(call for call in (await answer.json())["calls"] if call["call"] == name)

    async def wait_for_answer(self, topic: str, id: str) -> Any:
        """The answer with an id, as it was published."""
        return await self.recorder.until(
            lambda: next((body for body in self.recorder.on(f"oneweb/bridge/{topic}") if body.get("id") == id), None)
        )

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[EventStream]:
        async with self._session.get(f"{self.url}/live") as answer:
            yield EventStream(answer)


@pytest.fixture
async def desk(world: harness.World) -> AsyncIterator[Desk]:
    http = mosquitto.free_port()
    config = world.config(http={"listen": f"127.0.0.1:{http}"}, api={"rate_limit": {"max_requests_per_hour": 100_000}})
    async with (
        harness.recording(world.port) as recorder,
        harness.running(config),
        aiohttp.ClientSession() as session,
    ):
        await recorder.until(lambda: is_at_rest(recorder))
        yield Desk(recorder, session, f"http://127.0.0.1:{http}/api/v1")


async def test_commands_arrive_as_over_mqtt(world: harness.World, desk: Desk) -> None:
    """Set, poll and requests give the result as it is on the result topic; a setting has its source and goes back."""
    async with desk.listening() as stream:
        await stream.until(lambda stream: stream.text)
        result = await desk.post("calls/sites/set", {"interval": "5m", "enabled": False, "id": "mine"})
        assert (result["id"], result["command"], result["status"]) == ("mine", "set", "ok")
        assert (result["state"]["interval"], result["state"]["status"]) == (300, "disabled")
        assert await desk.wait_for_answer("polling/sites/result", "mine") == result
        assert (await desk.call("sites"))["source"] == {"enabled": "console", "interval": "console"}
        await stream.until(lambda stream: any(m.event == "result" for m in stream.messages))
        assert [m.data for m in stream.messages if m.event == "result"] == [{"call": "sites", "body": result}]

    await desk.recorder.until(lambda: not desk.recorder.retained[f"{POLLING}/sites/state"]["enabled"])
    await harness.publish(world.port, f"{POLLING}/sites/enabled/set", "true")
    await desk.recorder.until(lambda: desk.recorder.retained[f"{POLLING}/sites/state"]["enabled"])
    assert (await desk.call("sites"))["source"] == {"enabled": "mqtt", "interval": "console"}
    back = await desk.post("calls/sites/set", {"interval": None})
    assert (back["state"]["interval"], back["id"][:8]) == (10, "console-")
    assert (await desk.call("sites"))["source"] == {"enabled": "mqtt", "interval": "file"}

    polled = await desk.post("calls/products/poll")
    assert (polled["status"], polled["state"]["status"]) == ("ok", "ok")
    assert await desk.wait_for_answer("polling/products/result", polled["id"]) == polled
    assert (await desk.post("calls/all/set", {"enabled": True, "id": "all"})).keys() == {"id", "command", "status"}

    released = await desk.post("requests/release", {"id": "go"})
    assert released == {"id": "go", "status": "ok", "count": 0}
    assert await desk.wait_for_answer("response/release", "go") == released
    replayed = await desk.post("requests/replay", {"since": "1h"})
    assert (replayed["status"], replayed["count"] > 0) == ("ok", True)
    assert (await desk.post("requests/republish"))["count"] > 20

    world.api.fault("status", path="geographicSite", status=500, count=99)
    failed = await desk.post("calls/sites/poll", {})
    assert (failed["status"], failed["state"]["status"]) == ("error", "failed")

    await desk.wait_for_answer("polling/sites/result", failed["id"])
    before = len(desk.recorder.on(f"{POLLING}/sites/result"))
    for path, body, status in (
        ("calls/nothing/set", {"enabled": True}, 404),
        ("calls/sites/set", {}, 400),
        ("calls/sites/set", {"interval": "1s"}, 400),
        ("calls/sites/set", {"enabled": "perhaps"}, 400),
        ("calls/sites/set", {"speed": 1}, 400),
        ("calls/sites/set", {"enabled": True, "id": 5}, 400),
        ("calls/sites/set", [], 400),
        ("calls/sites/poll", {"interval": 5}, 400),
        ("calls/sites/poll?now=1", {}, 400),
        ("calls/sites/stop", {}, 404),
        ("requests/replay", {"since": "1h", "until": "2h"}, 400),
        ("requests/replay", {"imei": "1", "product_id": "2"}, 400),
        ("requests/release", {"call": "nothing"}, 400),
        ("requests/explode", {}, 404),
    ):
        assert (await desk.post(path, body, status))["error"], path
    unknown = await desk.post("calls/nothing/set", {"enabled": True}, 404)
    assert unknown["error"].startswith("there is no call 'nothing', expected one of user_terminals, ")
    assert len(desk.recorder.on(f"{POLLING}/sites/result")) == before


async def test_console_and_broker_at_once_have_one_order(world: harness.World, desk: Desk) -> None:
    """Commands of both at once have one result each, in one order, and the last of it is in force with its source."""
    sites = f"{POLLING}/sites"

    async def over_mqtt(number: int) -> Any:
        await harness.publish(world.port, f"{sites}/set", json.dumps({"id": f"mqtt-{number}", "interval": 60 + number}))

    async def over_http(number: int) -> Any:
        return await desk.post("calls/sites/set", {"id": f"console-{number}", "interval": 120 + number})

    ids = {f"{way}-{number}" for way in ("mqtt", "console") for number in range(8)}
    answers = (await asyncio.gather(*(work(number) for number in range(8) for work in (over_mqtt, over_http))))[1::2]

    def results() -> list[Any]:
        return [result for result in desk.recorder.on(f"{sites}/result") if result.get("id") in ids]

    await desk.recorder.until(lambda: {result["id"] for result in results()} == ids)
    of_ids = {result["id"]: result for result in results()}
    assert len(results()) == len(ids)
    assert [of_ids[answer["id"]] for answer in answers] == answers
    last = results()[-1]
    wanted = last["state"]["interval"]
    await desk.recorder.until(lambda: desk.recorder.retained[f"{sites}/state"]["interval"] == wanted)
    call = await desk.call("sites")
    assert (call["interval"], call["source"]["interval"]) == (wanted, last["id"].partition("-")[0])


async def test_old_retained_command_does_not_undo_the_console(world: harness.World) -> None:
    """A command with retain is obeyed, the console changes the same, the broker delivers it again: the change stays."""
    sites, http = f"{POLLING}/sites", mosquitto.free_port()
    config, url = world.config(http={"listen": f"127.0.0.1:{http}"}), f"http://127.0.0.1:{http}/api/v1"
    await harness.publish(world.port, f"{sites}/set", '{"interval": 111}', retain=True)

    def interval() -> Any:
        return recorder.retained.get(f"{sites}/state", {}).get("interval")

    async with harness.recording(world.port) as recorder, aiohttp.ClientSession() as session:
        desk = Desk(recorder, session, url)
        async with harness.running(config) as process:
            await recorder.until(lambda: interval() == 111)
            await desk.post("calls/sites/set", {"interval": 222})
            await recorder.until(lambda: interval() == 222)
            await process.stop()
        async with harness.running(config):
            await recorder.until(
                lambda: any("obeyed before" in result.get("error", "") for result in recorder.on(f"{sites}/result")), 40
            )
            call = await desk.call("sites")
            assert (call["interval"], call["source"]["interval"], interval()) == (222, "console", 222)


# ── where an answer is late, or none can come ──────────────────────────────────────────────────


class Queue:
    """A queue that a test answers."""

    def __init__(self) -> None:
        self.commands: list[CommandMessage] = []
        self.published: list[Result | Response] = []
        self.refusal: CommandRefusal | None = None
        self.is_full = False

    def routes(self, _: object) -> list[Any]:
        queue = CommandQueue(
            base="oneweb",
            refusal_of=lambda *_: self.refusal,
            has_room=lambda _: not self.is_full,
            put=self.commands.append,
            answer_to=lambda _: self.published.append,
        )
        return CommandRoutes(queue).routes()


async def post(visits: Visits, path: str = "calls/sites/poll", **body: Any) -> Any:
    return await visits.ask(f"/api/v1/{path}", "POST", headers=COMMAND, json=body)


async def test_late_answer_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command without an answer in time is 202 with its id; its answer is published all the same."""
    monkeypatch.setattr(command_routes, "ANSWER_TIMEOUT_S", 0.05)
    queue = Queue()
    async with visited(monkeypatch, routes=queue.routes) as visits:
        answer = await post(visits, id="later")
        assert (answer.status, answer.json()) == (202, {"id": "later"})
        (command,) = queue.commands
        assert (command.topic, command.source) == ("oneweb/bridge/polling/sites/poll", "console")
        late = Result(command="poll", status="ok")
        command.answer(late)
        assert queue.published == [late]


async def test_note_is_not_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a poll has to wait, its note is published and the request waits for the result."""
    queue = Queue()
    async with visited(monkeypatch, routes=queue.routes) as visits:
        request = asyncio.create_task(post(visits))
        async with asyncio.timeout(10):
            while not queue.commands:
                await asyncio.sleep(0.001)
        queue.commands[0].answer(Result(command="poll", status="ok", note="it waits"))
        queue.commands[0].answer(Result(command="poll", status="ok", id="x"))
        assert (await request).json() == {"id": "x", "command": "poll", "status": "ok"}
        assert len(queue.published) == 2


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (CommandRefusal("invalid", "no"), 400),
        (CommandRefusal("unknown_call", "no"), 404),
        (CommandRefusal("over_budget", "no"), 409),
        (CommandRefusal("busy", "no"), 409),
        (None, 503),
    ],
)
async def test_refused_command_is_not_queued(
    monkeypatch: pytest.MonkeyPatch, refusal: CommandRefusal | None, status: int
) -> None:
    """What is refused over HTTP never reaches the queue, and is on no topic."""
    queue = Queue()
    queue.refusal, queue.is_full = refusal, refusal is None
    async with visited(monkeypatch, routes=queue.routes) as visits:
        assert (await post(visits)).status == status
        assert queue.commands == []
