"""Where a day of simulated time is played: the simulated API, and the bridge from its poller to its journal.

    virtual time ──▶ simulated API (ledger) ──▶ poller ──▶ store ──▶ journal ──▶ reader ──▶ checker

All of it is in one process, whose event loop has virtual time (`tests.virtual_time`): schedule, back-off, pauses, holds
and housekeeping go through whole days. There is no broker: what is judged are the messages of the journal's rows, as
an output reads them that is never away. What happens between journal and broker is for the rounds with real sockets.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import yaml

from oneweb_bridge import app
from oneweb_bridge.clock import Clock
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.model.backoff import BackOff
from oneweb_bridge.model.records import Message
from oneweb_bridge.mqtt.retained import messages_to_restore
from oneweb_bridge.simulator import Simulator
from oneweb_bridge.store.errors import StoreError, StoreUnavailable
from oneweb_bridge.store.journal import Journal, open_journal
from oneweb_bridge.trends.task import EVERYTHING
from tests import harness

SETTINGS: dict[str, Any] = {
    "api": {"client_id": "demo", "client_secret": "demo-secret", "rate_limit": {"min_interval": "1ms"}},
    "polling": {"ut_link_metrics": {"enabled": True}},
    "trends": {"enabled": False},
}
MAX_START_PAUSE_S = 60.0
"""Seconds between two starts of a bridge that cannot start."""
STATES = "oneweb/bridge/polling/"
_TIMES = ("last_poll", "last_success")


class Received(msgspec.Struct, frozen=True):
    """A message of a journal row, and when it was read, in seconds of the wall clock as it should be."""

    at: float
    topic: str
    payload: bytes
    retain: bool


class Day:
    """One day: the API, the bridge that polls it, what its journal told, and what is in force of faults."""

    def __init__(self, directory: Path, api: Simulator, seed: int) -> None:
        self.api = api
        self.chance = random.Random(seed)
        self.received: list[Received] = []
        self.findings: list[str] = []
        self.changes: dict[str, dict[str, Any]] = {}
        """Changes of the configuration, by fault."""
        self.unsure: list[tuple[float, float]] = []
        self.is_disk_at_fault = False
        self.parts: app.BridgeParts
        self.starts = 0
        self._directory = directory
        self._skews: dict[str, float] = {}
        self._troubles: dict[str, dict[str, Any]] = {}
        self._seq = 0
        self._run: asyncio.Task[None] | None = None

    # ── the bridge ─────────────────────────────────────────────────────────────────────────────

    @property
    def skew(self) -> float:
        """Seconds by which the bridge's wall clock is wrong."""
        return sum(self._skews.values())

    def config(self) -> Config:
        """The configuration that is in force."""
        merged = harness.merged(SETTINGS, {"api": {"base_url": self.api.url}})
        merged["state"] = {"path": str(self._directory / "bridge.db")}
        for changes in self.changes.values():
            merged = harness.merged(merged, changes)
        return parse(yaml.safe_dump(merged), {})

    async def supervise(self) -> None:
        """Runs the bridge, and starts it again whenever it has ended. Never returns."""
        pauses = BackOff(1.0, MAX_START_PAUSE_S)
        try:
            while True:
                self._run = asyncio.create_task(self._run_bridge(), name="bridge")
                await asyncio.wait([self._run])
                error = None if self._run.cancelled() else self._run.exception()
                if error is None:
                    pauses.reset()
                elif not self.is_disk_at_fault:
                    self.findings.append(f"not as promised: the bridge ended by itself: {error!r:.300}")
                await asyncio.sleep(pauses.pause())
        finally:
            await self.end_bridge()

    async def end_bridge(self) -> None:
        """Ends the bridge at whatever it does; it is started again."""
        if self._run is not None:
            self._run.cancel()
            await asyncio.wait([self._run])

    async def _run_bridge(self) -> None:
        clock = Clock(lambda: time.time() + self.skew, time.monotonic, "one boot")
        self.starts += 1
        async with (
            app.open_bridge(self.config(), clock) as parts,
            open_journal(parts.place, app.OUTPUT, clock=clock) as journal,
        ):
            # What a crash of the machine leaves is examined elsewhere; here it would cost most of the time.
            await parts.store._connections._writer.execute("PRAGMA synchronous = OFF")
            self.parts = parts
            async with asyncio.TaskGroup() as group:
                group.create_task(parts.poller.run(), name="poller")
                group.create_task(self._read(parts, journal), name="reader")
                group.create_task(app.keep_house(parts, lambda: (app.OUTPUT,), _nothing_to_fold), name="housekeeping")

    async def _read(self, parts: app.BridgeParts, journal: Journal) -> None:
        """Reads the journal as an output does, and takes every message at once."""
        with parts.store.growth.subscribe() as grown:
            while True:
                grown.clear()
                while rows := await journal.after(self._seq):
                    self.received += [
                        self._received(message) for row in rows for message in parts.tree.messages_of_row(row)
                    ]
                    self._seq = rows[-1].seq
                    with contextlib.suppress(StoreUnavailable):
                        await journal.advance(self._seq)
                await grown.wait()

    def _received(self, message: Message) -> Received:
        """A message; the state of a call with the times that a right clock would have given its last poll."""
        received = Received(time.time(), message.topic, message.payload, message.retain)
        if self.skew == 0 or not message.topic.startswith(STATES) or not message.payload:
            return received
        state = msgspec.json.decode(message.payload)
        for name in _TIMES:
            if name in state:
                at = datetime.fromisoformat(state[name]).timestamp() - self.skew
                state[name] = rfc3339(round(at * 1000))
        return msgspec.structs.replace(received, payload=msgspec.json.encode(state))

    async def until_read(self) -> None:
        """Returns when the reader has read whatever the bridge has written until now."""
        # No time passes as long as anybody has something to do.
        await asyncio.sleep(0.001)

    async def retained(self) -> dict[str, Any]:
        """What a broker would be given that had lost everything, by topic."""
        tree = self.parts.tree
        async with open_journal(self.parts.place, app.OUTPUT, read_only=True) as journal:
            head = await journal.head()
            restored = messages_to_restore(tree, journal, 0, head, lambda _: head)
            messages = [retained.message async for retained in restored]
        return {m.topic: msgspec.json.decode(m.payload) for m in messages if m.payload}

    # ── what faults do ─────────────────────────────────────────────────────────────────────────

    async def set_skew(self, fault: str, seconds: float) -> None:
        """Makes the bridge's wall clock wrong by so many seconds, besides what other faults do."""
        await self.until_read()
        self._skews[fault] = seconds

    def set_trouble(self, fault: str, **trouble: Any) -> None:
        """Makes something go wrong with the API's answers, instead of what this fault did before; or nothing."""
        self._troubles[fault] = trouble
        self.api.clear_faults()
        for each in self._troubles.values():
            if each:
                self.api.fault(**each)

    async def reconfigure(self) -> None:
        """Has the running bridge read its configuration again."""
        with contextlib.suppress(StoreError, StoreUnavailable):
            config = app.keep_identity(self.config(), self.parts.config)
            self.parts.config = config
            self.parts.api.reconfigure(config.api)
            await self.parts.poller.reconfigure(config)

    async def command(self, calls: Sequence[str], changes: Mapping[str, bool | float | None] | None) -> None:
        """Changes calls as a command does, or polls them; where the store or the budget refuses it, again later."""
        while True:
            try:
                if changes is None:
                    for call in calls:
                        self.parts.poller.request_poll(call)
                else:
                    await self.parts.poller.change(calls, changes, "command", None)
            except (StoreError, StoreUnavailable, ValueError):
                await asyncio.sleep(60.0)
            else:
                return

    def expect(self, good: Any, otherwise: str) -> None:
        """Notes a finding where something is not as promised."""
        if not good:
            self.findings.append(f"not as promised: {otherwise}")

    # ── passing time ───────────────────────────────────────────────────────────────────────────

    async def until(self, is_so: Callable[[], bool], seconds: float) -> bool:
        """Lets time pass until something is so. Returns whether it came to be."""
        end = time.time() + seconds
        while not is_so():
            if time.time() > end:
                return False
            await asyncio.sleep(1.0)
        return True

    def intervals(self) -> dict[str, float]:
        """The interval of each enabled call, in seconds."""
        return {call: runtime.interval for call, runtime in self.parts.poller.calls.items() if runtime.enabled}

    async def poll_all(self) -> Iterable[str]:
        """Polls every call, as a command does. Returns what went wrong."""
        polls = {call: self.parts.poller.request_poll(call)[0] for call in self.intervals()}
        return [f"{call}: {error}" for call, poll in polls.items() if (error := (await poll).error)]

    @contextlib.asynccontextmanager
    async def meanwhile(self) -> AsyncIterator[None]:
        """The bridge runs within the block."""
        task = asyncio.create_task(self.supervise(), name="supervisor")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


async def _nothing_to_fold(seq: int) -> int:
    """As `Folder.fold_through` with trends that are not enabled."""
    return max(seq, EVERYTHING)
