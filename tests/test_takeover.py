"""Two workers with the same configuration: one runs the bridge, the other takes over when it dies, stops or pauses."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest

from oneweb_bridge.demo import mosquitto
from tests import harness
from tests.postgres import Cluster, run_postgres

pytestmark = pytest.mark.postgres
LEASE_S = 10.0
"""So long that a busy machine does not lose it by itself."""
PATIENCE_S = 60.0
INFO, HEAD, STATUS = "oneweb/bridge/info", "oneweb/bridge/head", "oneweb/bridge/status"


class Workers:
    """Workers of one instance, and what the broker shows of them."""

    def __init__(self, world: harness.World, url: str, recorder: harness.Recorder) -> None:
        self.world = world
        self.url = url
        self.recorder = recorder
        self.ports: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def start(self, name: str, **state: Any) -> AsyncIterator[harness.Process]:
        """A worker with a configuration of its own."""
        port = self.ports[name] = mosquitto.free_port()
        given = {"path": None, "url": self.url, "lease": LEASE_S, "worker": name, **state}
        file = self.world.config(state=given, http={"listen": f"127.0.0.1:{port}"})
        async with harness.running(file.rename(self.world.directory / f"{name}.yaml")) as process:
            yield process

    @contextlib.asynccontextmanager
    async def both(self, **state: Any) -> AsyncIterator[harness.Process]:
        """Worker `a`, which leads, and `b`, which stands by."""
        async with self.start("a", **state) as a:
            await self.leads("a", 1)
            async with self.start("b", **state):
                await self.stands_by("b")
                yield a

    async def stands_by(self, name: str, *, reaches: bool = True) -> None:
        """Waits until a worker says so, and whether it reaches the database."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    if (await self.ask(name, "/readyz"))[1] == {"role": "standby", "database": reaches}:
                        return
                await asyncio.sleep(0.05)

    async def leads(self, name: str, epoch: int) -> None:
        """Waits until a worker publishes under an epoch."""
        await self.recorder.until(
            lambda: self._shows(HEAD, epoch=epoch) and self._shows(INFO, epoch=epoch, worker=name), PATIENCE_S
        )
        await self.recorder.until(lambda: self._shows(STATUS, state="online"), PATIENCE_S)

    def _shows(self, topic: str, **members: Any) -> bool:
        retained = self.recorder.retained.get(topic) or {}
        return all(retained.get(member) == value for member, value in members.items())

    async def ask(self, name: str, path: str) -> tuple[int, Any]:
        """What the health endpoint of a worker answers."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.ports[name]}{path}") as answer,
        ):
            return answer.status, await (answer.text() if path == "/metrics" else answer.json())


def stored(url: str) -> list[tuple[int, int]]:
    """Number and epoch of each row of the journal."""
    with psycopg.connect(url) as db:
        return db.execute("SELECT seq, epoch FROM oneweb.journal ORDER BY seq").fetchall()


@pytest.fixture
async def workers(world: harness.World, url: str) -> AsyncIterator[Workers]:
    async with harness.recording(world.port, "oneweb/#") as recorder:
        yield Workers(world, url, recorder)


async def test_other_worker_takes_over_from_one_that_was_killed(workers: Workers) -> None:
    """Within the lease and two seconds, under the next epoch; the journal goes on without a gap."""
    async with workers.both() as a:
        await workers.recorder.until(lambda: [t for t in workers.recorder.retained if t.endswith("/state")], PATIENCE_S)
        assert await workers.ask("b", "/readyz") == (200, {"role": "standby", "database": True})
        assert 'oneweb_bridge_leader{instance="main"} 0.0' in (await workers.ask("b", "/metrics"))[1]
        await a.kill()
        begun = time.monotonic()
        await workers.leads("b", 2)
        assert time.monotonic() - begun < 30
        metrics = (await workers.ask("b", "/metrics"))[1]
        assert 'oneweb_bridge_leader{instance="main"} 1.0' in metrics
        assert 'oneweb_bridge_epoch{instance="main"} 2.0' in metrics
    events = [content for topic, content, _ in workers.recorder.messages if "/event/" in topic]
    contents: dict[str, object] = {}
    assert events
    # What comes again after the kill is the same.
    assert [event for event in events if contents.setdefault(event["id"].split(":")[1], event) != event] == []


async def test_paused_worker_stays_away_when_it_wakes(workers: Workers) -> None:
    """It finds its lease gone, neither writes nor connects, and the status stays online."""
    async with workers.both() as a:
        a.signal(signal.SIGSTOP)
        await workers.leads("b", 2)
        seen = len(workers.recorder.on(STATUS))
        a.signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE_S):
            while "does not hold the instance main any more" not in a.text():
                await asyncio.sleep(0.05)
        await workers.stands_by("a")
        assert workers.recorder.on(STATUS)[seen:] == []
        assert workers.recorder.retained[HEAD]["epoch"] == 2


async def test_stop_gives_the_lease_up_at_once(workers: Workers) -> None:
    """The other need not wait for its end, however long it is."""
    async with workers.both(lease=300.0) as a:
        assert await a.stop() == 0
        await workers.leads("b", 2)


async def test_server_that_is_away_is_waited_for(workers: Workers, cluster: Cluster) -> None:
    """A bridge that finds no server says so, and goes on when there is one; what is wrong for good ends it."""
    async with workers.start("a", url=f"postgresql://bridge@127.0.0.1:{mosquitto.free_port()}/x") as process:
        async with asyncio.timeout(PATIENCE_S):
            while "waiting for it" not in process.text():
                await asyncio.sleep(0.05)
        assert (await workers.ask("a", "/readyz"))[0] == 503
        assert await process.stop() == 0
    file = workers.world.config(state={"path": None, "url": cluster.url_of("missing")})
    code, _, error = await harness.command("run", "-c", str(file))
    assert code == 1
    assert 'database "missing" does not exist' in error
    assert "Traceback" not in error


async def test_older_worker_ends_when_a_newer_one_changes_the_schema(workers: Workers) -> None:
    """With exit code 1 and a sentence, at its next renewal."""
    async with workers.start("a") as a:
        await workers.leads("a", 1)
        with psycopg.connect(workers.url, autocommit=True) as db:
            db.execute("UPDATE oneweb.version SET version = 99")
        async with asyncio.timeout(PATIENCE_S):
            while a.returncode is None:
                await asyncio.sleep(0.05)
        assert a.returncode == 1
        assert "the schema oneweb was made by a newer oneweb-bridge (schema 99" in a.text()
        assert "Traceback" not in a.text()


async def test_what_is_stored_is_read_from_there(workers: Workers, tmp_path: Path) -> None:
    """`history` reads the server, and `backup` says what to use."""
    async with workers.start("a") as a:
        await workers.leads("a", 1)
        topic = await workers.recorder.until(
            lambda: next((t for t in workers.recorder.retained if "/terminal/" in t and t.endswith("/state")), None),
            PATIENCE_S,
        )
        assert await a.stop() == 0
    with psycopg.connect(workers.url) as db:
        (shown,) = db.execute("SELECT imei FROM oneweb.terminals WHERE imei = %s", (topic.split("/")[2],)).fetchall()
    assert shown == (topic.split("/")[2],)
    file = str(workers.world.directory / "a.yaml")
    code, output, _ = await harness.command("status", "-c", file, "--json")
    shown = json.loads(output)
    assert code == 1
    assert [(h["instance"], h["worker"], h["epoch"], h["held"]) for h in shown["holders"]] == [("main", "a", 1, False)]
    assert shown["workers"] == []
    _, output, _ = await harness.command("status", "-c", file)
    assert output.splitlines()[-1] == "main: a, epoch 1, held by nobody"
    code, output, _ = await harness.command("history", "-c", file, "--imei", topic.split("/")[2])
    assert code == 0
    assert "added" in output
    code, _, error = await harness.command("backup", "-c", file, str(tmp_path / "copy.db"))
    assert code == 1
    assert "pg_dump" in error


async def test_server_that_comes_back_finds_all_as_it_was(world: harness.World) -> None:
    """While it is away nothing is published that is not stored; then the journal goes on without gap or repeat."""
    with run_postgres(fsync=True) as own:
        own.execute("CREATE DATABASE bridge")
        url = own.url_of("bridge")
        async with harness.recording(world.port, "oneweb/#") as recorder:
            workers = Workers(world, url, recorder)
            async with workers.start("a"):
                await workers.leads("a", 1)
                before = len(stored(url))
                own.stop(signal.SIGQUIT)
                await workers.stands_by("a", reaches=False)
                assert (await workers.ask("a", "/readyz"))[0] == 503
                world.api.fleet("suspend", id=world.api.truth("products")[0]["id"])
                own.start()
                await workers.leads("a", 2)
                await recorder.until(lambda: len(stored(url)) > before, PATIENCE_S)
            rows = stored(url)
        assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1))
        assert [epoch for _, epoch in rows] == sorted(epoch for _, epoch in rows)
