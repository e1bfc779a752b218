"""A power loss, played with the real command: it is killed, and its database is put back to what was flushed.

The library of `flushes` copies each file when it is flushed to the disk, so a write that no flush followed is lost.
"""

import asyncio
import contextlib
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from oneweb_bridge.store import store
from tests import flushes, harness

TERMINALS = 60
WINDOW = 20
MAX_REPEATS = 200
"""Messages that come again at most after the process was killed; see docs/guarantees.md."""
UNHURRIED: dict[str, Any] = {call: {"interval": "1h", "enabled": call == "user_terminals"} for call in harness.QUICK}
# A write that was not flushed can only be taken back by standing between the program and its C library.
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD and /proc are Linux")


class Standing(msgspec.Struct, frozen=True):
    """The journal's last row, and the row up to which a database says that all are published."""

    head: int
    cursor: int


def standing(database: Path) -> Standing:
    """How far a database is, without changing it."""
    sql = """SELECT (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'journal'),
        (SELECT coalesce(max(seq), 0) FROM cursor WHERE output = 'mqtt')"""
    return Standing(*harness.rows_of(database, sql)[0])


def rows(database: Path) -> dict[int, tuple[str, str, str]]:
    """Number of each row of the journal -> whose it is and what."""
    entries = harness.rows_of(database, "SELECT seq, entity, id, what FROM journal")
    return {seq: (entity, id, what) for seq, entity, id, what in entries}


@pytest.fixture
def examined() -> Iterator[flushes.Flushes]:
    """A program whose flushed files are kept."""
    try:
        with flushes.examined(keeps_copies=True) as made:
            yield made
    except flushes.NoCompiler as missing:
        # The library is C, and a compiler is more than `make test` should install for three tests.
        pytest.skip(str(missing))


@contextlib.asynccontextmanager
async def world(directory: Path, examined: flushes.Flushes) -> Any:
    """A fleet that stands still, and an empty database that was flushed."""
    async with harness.world(directory, terminals=TERMINALS, speed=0.0, liveliness=0.0) as made:
        async with store.open_store(directory / "bridge.db"):
            pass
        examined.begin(directory / "bridge.db")
        yield made


async def started(config: Path, examined: flushes.Flushes, **accident: Any) -> harness.Process:
    """The command, with its flushes examined."""
    program = ("tests.crashing", json.dumps(accident))
    return await harness.launched(program, config, **examined.environment)


async def at_rest(port: int, database: Path) -> Standing:
    """Waits until all is published and the broker's head says so."""
    async with asyncio.timeout(60):
        while True:
            now = standing(database)
            if now.head and now.head == now.cursor:
                payload = await harness.retained(port, "oneweb/bridge/head")
                if payload and payload["oneweb/bridge/head"]["seq"] == now.cursor == standing(database).head:
                    return now
            await asyncio.sleep(0.05)


async def stopped_before_a_flush(made: harness.World, process: harness.Process, copy: Path) -> Standing:
    """Stops the command when all is published and the cursor is not flushed; another commit would have flushed it."""
    terminal = made.api.truth("terminals")[0]["id"]
    # Before the first poll has ended there is rest too, with nothing but the state of the calls.
    state = "oneweb/bridge/polling/user_terminals/state"
    await harness.until_retained(made.port, state, lambda content: "last_success" in content)
    for number in range(20):
        before = await at_rest(made.port, made.directory / copy.name)
        process.signal(signal.SIGSTOP)
        if standing(copy).cursor < before.cursor:
            return before
        process.signal(signal.SIGCONT)
        made.api.fleet("rename", id=terminal, name=f"Renamed {number}")
        await harness.poll(made.port, "user_terminals")
    raise AssertionError("each cursor was flushed by another commit")


async def polled_again(config: Path, port: int, database: Path) -> None:
    """Starts the command once more, with nothing examined, and lets it poll everything."""
    await harness.until_retained(port, "oneweb/bridge/status", lambda payload: payload["state"] == "offline")
    async with harness.running(config):
        await harness.until_retained(port, "oneweb/bridge/status", lambda payload: payload["state"] == "online", 30)
        await harness.poll(port)
        await at_rest(port, database)


def events(recorder: harness.Recorder) -> Counter[tuple[str, str]]:
    """How often each event was recorder: its topic and its own id."""
    return Counter((topic, payload["id"]) for topic, payload, _ in recorder.messages if "/event/" in topic)


async def test_cursor_that_is_lost_is_found_at_the_broker(tmp_path: Path, examined: flushes.Flushes) -> None:
    """A power loss takes the cursor back, the broker's head is further on: nothing is lost, and nothing comes again."""
    database = tmp_path / "bridge.db"
    async with world(tmp_path, examined) as made, harness.recording(made.port, "oneweb/+/+/#") as recorder:
        config = made.config(polling=UNHURRIED, mqtt={"window": WINDOW}, homeassistant={"enabled": False})
        process = await started(config, examined, flushes_cursor=False)
        try:
            before = await stopped_before_a_flush(made, process, examined.copies / database.name)
        finally:
            await process.kill()
        await recorder.catch_up()
        retained, published = dict(recorder.retained), events(recorder)
        examined.lose_power(database)
        assert standing(database).head == before.head, "what was published is in the journal, flushed"
        assert standing(database).cursor < before.cursor
        await polled_again(config, made.port, database)
        await recorder.catch_up()
        assert events(recorder) == published
        assert len(published) >= TERMINALS
        assert set(published.values()) == {1}
        differing = [topic for topic, payload in retained.items() if recorder.retained.get(topic) != payload]
        assert [topic for topic in differing if not topic.startswith("oneweb/bridge/")] == []


async def test_power_loss_amid_a_first_snapshot_loses_nothing(tmp_path: Path, examined: flushes.Flushes) -> None:
    """Whatever the moment: each event comes, and only those again that neither cursor nor head had."""
    database = tmp_path / "bridge.db"
    async with world(tmp_path, examined) as made, harness.recording(made.port, "oneweb/+/+/#") as recorder:
        config = made.config(polling=UNHURRIED, mqtt={"window": WINDOW}, homeassistant={"enabled": False})
        process = await started(config, examined)
        try:
            await recorder.until(lambda: len(events(recorder)) >= TERMINALS // 3)
        finally:
            await process.kill()
        await recorder.quiet(0.2)
        head = (await harness.retained(made.port, "oneweb/bridge/head")).get("oneweb/bridge/head", {"seq": 0})["seq"]
        examined.lose_power(database)
        left = standing(database)
        assert head <= left.head, "a row is flushed before it is published"
        numbers = {(id, what): seq for seq, (_, id, what) in rows(database).items()}
        before = events(recorder)
        await polled_again(config, made.port, database)
        await recorder.catch_up()
        repeated = [topic.split("/") for (topic, _), count in events(recorder).items() if count > 1]
        assert len(repeated) <= MAX_REPEATS
        assert all(numbers[id, what] > max(left.cursor, head) for _, _, id, _, what in repeated)
        assert set(before) <= set(events(recorder))
        added = {topic.split("/")[2] for topic, _ in events(recorder) if topic.startswith("oneweb/terminal/")}
        assert added == {thing["id"] for thing in made.api.truth("terminals")}


async def test_cursor_is_flushed_when_all_is_published(tmp_path: Path, examined: flushes.Flushes) -> None:
    """At rest a power loss takes nothing back, whatever the broker remembers."""
    database, copy = tmp_path / "bridge.db", examined.copies / "bridge.db"
    async with world(tmp_path, examined) as made:
        process = await started(made.config(polling=UNHURRIED), examined)
        try:
            before = await at_rest(made.port, database)
            async with asyncio.timeout(30):
                while standing(copy).cursor < before.cursor:
                    await asyncio.sleep(0.05)
        finally:
            await process.kill()
        examined.lose_power(database)
        assert standing(database).cursor >= before.cursor
