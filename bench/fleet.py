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

from bench.progress import say
from bench.scope import Scope, spelled
from bench.table import Row
from oneweb_bridge import broker
from oneweb_bridge.catalogue import CALLS
from tests import harness
from tests.nodered.server import Usage

CALM: dict[str, Any] = {
    call: {"enabled": False, "interval": row.interval, "lateness": row.lateness} for call, row in CALLS.items()
}
"""Every call with the defaults of the catalogue, and nothing polled by itself."""
CYCLE = sorted((call for call in CALLS if call != "ut_link_metrics"), key=lambda call: CALLS[call].interval)
"""The calls that are enabled by default, the most frequent first."""
PATIENCE = 600.0
LOOK = 0.2
"""Seconds between two looks at the database."""
IDLE = 5.0
"""Seconds over which is measured what the bridge uses while nothing is polled."""


@contextlib.asynccontextmanager
async def simulated(terminals: int) -> AsyncIterator[str]:
    """The simulator as the command `simulate`; gives its URL. Its clock stands still until it is told to jump."""
    port = broker.free_port()
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

    @property
    def settled(self) -> bool:
        """Whether everything but discovery is out. Discovery goes on at its own pace for minutes."""
        return self.head == self.published and not self.stale


def standing(path: Path) -> Standing:
    """How far the bridge is, without asking it, so that asking costs it nothing."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as db:
        return Standing(
            *db.execute(
                """SELECT (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'journal'),
                   (SELECT coalesce(max(seq), 0) FROM cursor), (SELECT count(*) FROM stale),
                   (SELECT count(*) FROM discovery WHERE mark > done)"""
            ).fetchone()
        )


class Run:
    """A running bridge that polls when told."""

    def __init__(self, process: harness.Process, client: aiomqtt.Client, path: Path, port: int) -> None:
        self.process = process
        self.usage = Usage(process.pid)
        self.path = path
        self.port = port
        self._client = client

    async def tell(self, call: str, verb: str, **wish: Any) -> dict[str, Any]:
        """One command to its result."""
        name = os.urandom(4).hex()
        said = msgspec.json.encode({"id": name, **wish})
        await self._client.publish(f"oneweb/bridge/polling/{call}/{verb}", said, qos=1)
        async with asyncio.timeout(PATIENCE):
            async for message in self._client.messages:
                found: dict[str, Any] = msgspec.json.decode(message.payload)
                if found.get("id") == name and "note" not in found:
                    return found
        raise AssertionError

    async def poll(self, call: str) -> dict[str, Any]:
        """One poll, until all that came of it is published. Returns the call's state. Raises AssertionError."""
        said = await self.tell(call, "poll")
        if said["status"] != "ok":
            raise AssertionError(f"{call}: {said.get('error')}")
        await self.settled()
        return dict(said["state"])

    async def settled(self) -> Standing:
        """Waits until two looks in a row find nothing that waits. Raises AssertionError with what does."""
        deadline, before = time.monotonic() + PATIENCE, None
        while time.monotonic() < deadline:
            now = standing(self.path)
            if now.settled and now == msgspec.structs.replace(before or now, unannounced=now.unannounced) and before:
                return now
            before = now
            await asyncio.sleep(LOOK)
        raise AssertionError(f"not settled in {PATIENCE:.0f} s: {standing(self.path)}")

    async def usage_of(self, call: str) -> tuple[float, dict[str, Any]]:
        """CPU seconds of one poll, and the call's state."""
        before = self.usage.cpu
        said = await self.poll(call)
        return self.usage.cpu - before, said


@contextlib.asynccontextmanager
async def connected(process: harness.Process, path: Path, port: int) -> AsyncIterator[Run]:
    """The bridge that was started, once it is online and signed in."""
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await harness.until_retained(port, "oneweb/bridge/status", lambda said: said["state"] == "online", 30)
        await harness.until_retained(port, "oneweb/bridge/info", lambda said: said["api"]["state"] == "ok", 30)
        await client.subscribe("oneweb/bridge/polling/+/result", qos=1)
        yield Run(process, client, path, port)


@contextlib.asynccontextmanager
async def running(url: str, **changes: Any) -> AsyncIterator[Run]:
    """A broker and the bridge with an empty database, for the API at `url`."""
    port = broker.free_port()
    with tempfile.TemporaryDirectory() as directory:
        config = harness.bridge_yaml(Path(directory), url, port, **{"polling": CALM, **changes})
        async with (
            broker.running(port),
            harness.running(config) as process,
            connected(process, Path(directory) / "bridge.db", port) as run,
        ):
            yield run


# ── row 7 ──────────────────────────────────────────────────────────────────────────────────────


async def memory_rows(scope: Scope) -> AsyncIterator[Row]:
    """Row 7, but for Node-RED."""
    async with simulated(8) as url, running(url) as run:
        for call in CYCLE:
            await run.poll(call)
        note = f"after one poll of every call; peak {run.usage.peak:.0f} MiB"
        yield Row(number="7", what="idle RSS, 8 terminals", goal=45.0, unit="MiB", measured=run.usage.rss, note=note)
    for terminals, goal in ((scope.of(10_000), 90.0), (scope.of(100_000), 160.0)):
        yield await _peak(terminals, goal)


async def _peak(terminals: int, goal: float) -> Row:
    async with simulated(terminals) as url, running(url) as run:
        cpu, said = await run.usage_of("user_terminals")
        first = run.usage.peak
        await run.poll("user_terminals")
        note = (
            f"{spelled(said['records'])} records in pages of 1 000; {first:.0f} MiB after the first snapshot, which "
            f"took {cpu:.1f} CPU s, then a poll in which nothing changed; {run.usage.rss:.0f} MiB at its end"
        )
        what = f"peak RSS, {spelled(terminals)} terminals"
        return Row(number="7", what=what, goal=goal, unit="MiB", measured=run.usage.peak, note=note)


# ── row 8 ──────────────────────────────────────────────────────────────────────────────────────


class Cycle(msgspec.Struct, frozen=True):
    """What each call used when its own interval had passed: CPU seconds, samples and events."""

    cpu: dict[str, float]
    samples: int
    events: int
    idle: float
    """CPU seconds a second while nothing is polled."""
    discovery: tuple[int, float]
    """Devices that were announced in a while, and CPU seconds for that."""
    unannounced: int

    @property
    def share(self) -> float:
        """Percent of a core at the default intervals."""
        return 100 * (self.idle + sum(cpu / CALLS[call].interval for call, cpu in self.cpu.items()))


async def _warm(run: Run) -> None:
    """Everything that a fleet brings once: the first snapshot, and the samples that the API still shows."""
    for call in CYCLE:
        await run.poll(call)
    # The first poll of a report brings the newest samples, the second one all within the lateness.
    for call in CYCLE:
        if CALLS[call].window is not None:
            await run.poll(call)


async def _resting(run: Run) -> tuple[int, float]:
    """Devices that were announced, and CPU seconds, while nothing was polled for a while."""
    before, cpu = standing(run.path), run.usage.cpu
    await asyncio.sleep(IDLE)
    return before.unannounced - standing(run.path).unannounced, run.usage.cpu - cpu


def _announced(path: Path) -> None:
    """Takes discovery as done. A fleet is announced once, at 50 devices a second, which is not part of a cycle."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as db:
        db.execute("UPDATE discovery SET done = mark WHERE mark > done")
        db.commit()


async def _cycle(terminals: int) -> Cycle:
    async with simulated(terminals) as url, running(url) as run:
        await _warm(run)
        say(f"cycle of {spelled(terminals)}: warm, {spelled(standing(run.path).head)} rows")
        discovery = await _resting(run)
        _announced(run.path)
        _, idle = await _resting(run)
        spent, samples, events, passed = {}, 0, 0, 0.0
        for call in CYCLE:
            await advance(url, CALLS[call].interval - passed)
            passed = CALLS[call].interval
            spent[call], said = await run.usage_of(call)
            samples, events = samples + said["samples"], events + said["events"]
        return Cycle(spent, samples, events, idle / IDLE, discovery, standing(run.path).unannounced)


def _cycle_row(terminals: int, goal: float | None, found: Cycle) -> Row:
    devices, cpu = found.discovery
    each = f"{1000 * cpu / devices:.1f} CPU ms a device" if devices else "nothing was left to announce"
    note = (
        f"each call after its own interval, duplicates within its lateness included: {spelled(found.samples)} samples, "
        f"{spelled(found.events)} events; {100 * found.idle:.1f} % while nothing is polled; announcing the fleet once "
        f"to Home Assistant is not in it: {each}, {spelled(found.unannounced)} left at the end. CPU s: "
        + ", ".join(f"{call} {cpu:.2f}" for call, cpu in found.cpu.items())
    )
    return Row(
        number="8",
        what=f"full cycle of {spelled(terminals)} terminals",
        unit="% of a core",
        goal=goal,
        measured=found.share,
        bridge=f"{sum(found.cpu.values()):.1f} CPU s",
        note=note,
    )


async def cycle_rows(scope: Scope) -> AsyncIterator[Row]:
    """Row 8."""
    for terminals, goal in ((scope.of(10_000), 10.0), (scope.of(100_000), None)):
        yield _cycle_row(terminals, goal, await _cycle(terminals))
