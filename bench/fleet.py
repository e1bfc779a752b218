"""Rows 7 and 8, with the real command: its memory, and CPU seconds of a cycle of all calls.

The simulated API is a process of its own, so that neither its CPU nor its memory is counted. Home Assistant's
discovery is on, as it is by default. Nothing polls by itself: each poll is a command over MQTT.
"""

import asyncio
import contextlib
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import aiomqtt
import msgspec
import psycopg

from bench.progress import say
from bench.scope import Scope, spelled
from bench.table import Row
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.homeassistant import announcer
from tests import harness
from tests.nodered.server import Usage

CALM: dict[str, Any] = {
    call: {"enabled": False, "interval": row.interval, "lateness": row.lateness} for call, row in CALLS.items()
}
"""Every call with the defaults of the catalogue, and nothing polled by itself."""
CYCLE = sorted((call for call in CALLS if call != "ut_link_metrics"), key=lambda call: CALLS[call].interval)
"""The calls that are enabled by default, the most frequent first, which begins with the terminals."""
PATIENCE = 600.0
LOOK = 0.2
"""Seconds between two looks at the database."""
IDLE = 60.0
"""Seconds over which is measured what the bridge uses while nothing is polled; it trims its journal once in them."""
ANNOUNCING = 8.0
"""Seconds over which is measured what announcing devices takes."""

FEW = 50
"""So many devices are announced within a second; what fewer take is not worth measuring."""


@contextlib.asynccontextmanager
async def simulated(terminals: int) -> AsyncIterator[str]:
    """The simulator as the command `simulate`; gives its URL. Its clock stands still until it is told to jump."""
    port = mosquitto.free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oneweb_bridge", "simulate", "--speed", "0"),
        *("--port", str(port), "--terminals", str(terminals), "--seed", "2"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(120), aiohttp.ClientSession() as http:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(f"http://127.0.0.1:{port}/_control/time"):
                        break
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def advance(url: str, seconds: float) -> None:
    """Lets simulated time pass."""
    async with aiohttp.ClientSession() as http, http.post(f"{url}/_control/time", json={"advance": seconds}) as answer:
        answer.raise_for_status()


# ── a running bridge ───────────────────────────────────────────────────────────────────────────


class Standing(msgspec.Struct, frozen=True):
    """What the database says: the journal's last row and the last that is published, and what is still to be done."""

    head: int
    published: int
    stale: int
    unannounced: int
    looked_at: int
    """Steady time in ms at which a device was looked at last for Home Assistant."""

    @property
    def is_at_rest(self) -> bool:
        """Whether everything but discovery is out. Discovery goes on at its own pace for minutes."""
        return self.head == self.published and not self.stale


def standing(database: Path | str) -> Standing:
    """How far the bridge is, without asking it, so that asking costs it nothing. `database` is a file or an address."""
    head = "SELECT max(seq) FROM sqlite_sequence WHERE name = 'journal'"
    if isinstance(database, str):
        head = "SELECT seq FROM journal_head"
    return Standing(*_row(database, _STANDING.format(head)))


def devices_since(database: Path | str, moment: int) -> int:
    """The devices that were looked at for Home Assistant after a moment of steady time, in ms."""
    (count,) = _row(database, f"SELECT count(*) FROM discovery WHERE mark = done AND marked_at > {moment}")
    return int(count)


def _row(database: Path | str, sql: str) -> tuple[Any, ...]:
    if isinstance(database, str):
        with psycopg.connect(database, options=SEARCH_PATH) as server:
            row = server.execute(sql.encode()).fetchone()
    else:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)) as file:
            row = file.execute(sql).fetchone()
    assert row is not None
    return tuple(row)


SEARCH_PATH = "-c search_path=oneweb_main,oneweb"
_STANDING = """
SELECT coalesce(({}), 0), (SELECT coalesce(max(seq), 0) FROM cursor WHERE output = 'mqtt'),
(SELECT count(*) FROM stale), (SELECT count(*) FROM discovery WHERE mark > done),
(SELECT coalesce(max(marked_at), 0) FROM discovery WHERE mark = done)
"""


class Run:
    """A running bridge that polls when told."""

    def __init__(self, process: harness.Process, client: aiomqtt.Client, path: Path | str, port: int) -> None:
        self.process = process
        self.usage = Usage(process.pid)
        self.path = path
        self.port = port
        self._client = client

    async def tell(self, call: str, verb: str, **members: Any) -> dict[str, Any]:
        """One command to its result."""
        name = os.urandom(4).hex()
        payload = msgspec.json.encode({"id": name, **members})
        await self._client.publish(f"oneweb/bridge/polling/{call}/{verb}", payload, qos=1)
        async with asyncio.timeout(PATIENCE):
            async for message in self._client.messages:
                answer: dict[str, Any] = msgspec.json.decode(message.payload)
                if answer.get("id") == name and "note" not in answer:
                    return answer
        raise AssertionError

    async def poll(self, call: str) -> dict[str, Any]:
        """One poll, until all that came of it is published. Returns the call's state. Raises AssertionError."""
        answer = await self.tell(call, "poll")
        if answer["status"] != "ok":
            raise AssertionError(f"{call}: {answer.get('error')}")
        await self.wait_until_at_rest()
        return dict(answer["state"])

    async def wait_until_at_rest(self) -> Standing:
        """Waits until two looks in a row find nothing that waits. Raises AssertionError with what does."""
        deadline, before = time.monotonic() + PATIENCE, None
        while time.monotonic() < deadline:
            now = standing(self.path)
            if now.is_at_rest and now == msgspec.structs.replace(before or now, unannounced=now.unannounced) and before:
                return now
            before = now
            await asyncio.sleep(LOOK)
        raise AssertionError(f"not settled in {PATIENCE:.0f} s: {standing(self.path)}")

    async def usage_of(self, call: str) -> tuple[float, dict[str, Any]]:
        """CPU seconds of one poll, and the call's state."""
        before = self.usage.cpu
        answer = await self.poll(call)
        return self.usage.cpu - before, answer


@contextlib.asynccontextmanager
async def connected(process: harness.Process, path: Path | str, port: int) -> AsyncIterator[Run]:
    """The bridge that was started, once it is online and signed in. `path` is of its file, or its server's address."""
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await harness.until_retained(port, "oneweb/bridge/status", lambda payload: payload["state"] == "online", 30)
        await harness.until_retained(port, "oneweb/bridge/info", lambda payload: payload["api"]["state"] == "ok", 30)
        await client.subscribe("oneweb/bridge/polling/+/result", qos=1)
        yield Run(process, client, path, port)


@contextlib.asynccontextmanager
async def running(url: str, **changes: Any) -> AsyncIterator[Run]:
    """A broker and the bridge with an empty database, for the API at `url`."""
    port = mosquitto.free_port()
    with tempfile.TemporaryDirectory() as directory:
        config = harness.bridge_yaml(Path(directory), url, port, **{"polling": CALM, **changes})
        database = changes.get("state", {}).get("url") or Path(directory) / "bridge.db"
        async with (
            mosquitto.run_mosquitto(port),
            harness.running(config) as process,
            connected(process, database, port) as run,
        ):
            yield run


# ── the cycle ──────────────────────────────────────────────────────────────────────────────────


class Spent(msgspec.Struct, frozen=True):
    """One poll: CPU seconds until everything is published, and what it brought.

    `devices` have to be looked at for Home Assistant then, which takes `announcing` CPU seconds.
    """

    cpu: float
    samples: int
    events: int
    devices: int
    announcing: float


class Cycle(msgspec.Struct, frozen=True):
    """What each call used when its own interval had passed, and CPU seconds a second while nothing is polled."""

    calls: dict[str, Spent]
    idle: float
    first: tuple[int, float]
    """Devices that were announced for the first time in a while, and CPU seconds for that."""
    peak: float

    @property
    def cpu(self) -> float:
        """CPU seconds of all calls together."""
        return sum(spent.cpu + spent.announcing for spent in self.calls.values())

    @property
    def share(self) -> float:
        """Percent of a core at the default intervals."""
        each = ((spent.cpu + spent.announcing) / CALLS[call].interval for call, spent in self.calls.items())
        return 100 * (self.idle + sum(each))


async def _warm(run: Run) -> None:
    """What a fleet brings once, after its inventory: all other calls, and the samples that are still shown."""
    for call in CYCLE[1:]:
        await run.poll(call)
    # The first poll of a report brings the newest samples, the second one all within the lateness.
    for call in CYCLE:
        if CALLS[call].window is not None:
            await run.poll(call)


async def _resting(run: Run, seconds: float) -> tuple[int, float]:
    """Devices that were looked at, and CPU seconds, while nothing was polled for so long."""
    await asyncio.sleep(announcer.PAUSE_S)
    # Not by how many fewer wait: a forecast or a sample may mark others meanwhile.
    before, cpu = standing(run.path).looked_at, run.usage.cpu
    await asyncio.sleep(seconds)
    return devices_since(run.path, before), run.usage.cpu - cpu


def _announced(path: Path | str) -> None:
    """Takes discovery as done: at 50 devices a second a fleet takes minutes to hours."""
    if isinstance(path, str):
        with psycopg.connect(path, options=SEARCH_PATH) as server:
            server.execute("UPDATE discovery SET done = mark WHERE mark > done")
        return
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as db:
        db.execute("UPDATE discovery SET done = mark WHERE mark > done")
        db.commit()


async def _spent(run: Run, call: str, idle: float) -> Spent:
    cpu, answer = await run.usage_of(call)
    devices, announcing = standing(run.path).unannounced, 0.0
    if devices >= FEW:
        done, used = await _resting(run, ANNOUNCING)
        announcing = devices * max(0.0, used - idle * ANNOUNCING) / max(done, 1)
        _announced(run.path)
    say(f"cycle: {call} {cpu:.2f} CPU s, {devices} devices {announcing:.2f} CPU s")
    return Spent(cpu, answer["samples"], answer["events"], devices, announcing)


async def measure_cycle(run: Run, url: str) -> Cycle:
    """One cycle of all calls of a bridge that has seen the inventory once."""
    await _warm(run)
    say(f"cycle: warm, {spelled(standing(run.path).head)} rows")
    first = await _resting(run, ANNOUNCING)
    _announced(run.path)
    _, used = await _resting(run, IDLE)
    idle, passed, calls = used / IDLE, 0.0, {}
    for call in CYCLE:
        await advance(url, CALLS[call].interval - passed)
        passed = CALLS[call].interval
        calls[call] = await _spent(run, call, idle)
    return Cycle(calls, idle, first, run.usage.peak)


# ── the rows ───────────────────────────────────────────────────────────────────────────────────


async def rows(scope: Scope) -> AsyncIterator[Row]:
    """Row 8, and row 7 but for Node-RED."""
    if "7" in scope.rows:
        yield await _idle_row()
    for full, most, share in ((10_000, 90.0, 10.0), (100_000, 160.0, None)):
        terminals = scope.of(full)
        async with simulated(terminals) as url, running(url) as run:
            yield await _peak_row(run, terminals, most)
            if "8" in scope.rows:
                yield cycle_row(terminals, share, await measure_cycle(run, url))


async def _idle_row() -> Row:
    async with simulated(8) as url, running(url) as run:
        for call in CYCLE:
            await run.poll(call)
        note = f"after one poll of every call; peak {run.usage.peak:.0f} MiB"
        return Row(number="7", what="idle RSS, 8 terminals", goal=45.0, unit="MiB", measured=run.usage.rss, note=note)


async def _peak_row(run: Run, terminals: int, goal: float) -> Row:
    """The first snapshot of the inventory, and a poll in which nothing changed."""
    cpu, answer = await run.usage_of(CYCLE[0])
    first = run.usage.peak
    await run.poll(CYCLE[0])
    note = (
        f"{spelled(answer['records'])} records in pages of 1 000; {first:.0f} MiB after the first snapshot, which took "
        f"{cpu:.1f} CPU s, then a poll in which nothing changed; {run.usage.rss:.0f} MiB at its end"
    )
    what = f"peak RSS, {spelled(terminals)} terminals"
    return Row(number="7", what=what, goal=goal, unit="MiB", measured=run.usage.peak, note=note)


def cycle_row(terminals: int, goal: float | None, cycle: Cycle) -> Row:
    """Row 8."""
    devices, cpu = cycle.first
    samples, events, marked, announcing = (
        sum(getattr(spent, name) for spent in cycle.calls.values())
        for name in ("samples", "events", "devices", "announcing")
    )
    note = (
        f"each call after its own interval: {spelled(samples)} samples, {spelled(events)} events; {spelled(marked)} "
        f"devices looked at for Home Assistant, {announcing:.1f} CPU s of these; {100 * cycle.idle:.1f} % of a core "
        f"while nothing is polled; peak RSS {cycle.peak:.0f} MiB; announcing a device for the first time, once, is not "
        f"in it: {1000 * cpu / max(devices, 1):.1f} CPU ms. CPU s: "
    )
    return Row(
        number="8",
        what=f"full cycle of {spelled(terminals)} terminals",
        unit="% of a core",
        goal=goal,
        measured=cycle.share,
        bridge=f"{cycle.cpu:.1f} CPU s",
        note=note + ", ".join(f"{call} {spent.cpu + spent.announcing:.2f}" for call, spent in cycle.calls.items()),
    )
