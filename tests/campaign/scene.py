"""Where the faults of a timeline act: a stage whose bridge and broker have one owner each while several faults act.

Only the supervisor starts the bridge, as a service manager does. A fault that needs it stopped takes `down`;
whoever needs the broker away takes `broker_down`.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from tests import harness
from tests.campaign.judging import BASE, Allowance
from tests.cancelling import cancel_until_done
from tests.fault_bench import Stage
from tests.proxy import Bend

MAX_START_S = 10.0
"""Seconds that a start of the bridge may take before the time of a round goes on without it."""
MAX_STARTS_S = 20.0
"""Seconds that all starts within one fault may take before its time goes on."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a fault needs from the beginning of its round."""

    broker: str = ""
    """Lines for mosquitto.conf."""
    changes: dict[str, Any] = {}
    """Of the bridge's configuration."""
    fleet: dict[str, Any] = {}
    """Options of the simulator."""
    is_quick: bool = False
    """Whether the bridge pauses shorter between two connections, so that a round sees more of them."""

    def joined(self, other: "Setup") -> "Setup":
        """Both."""
        return Setup(
            broker=self.broker + other.broker,
            changes=harness.merged(self.changes, other.changes),
            fleet=self.fleet | other.fleet,
            is_quick=self.is_quick or other.is_quick,
        )


class Scene:
    """The stage of one round, and what is in force on it."""

    def __init__(self, stage: Stage, setup: Setup, seed: int, *, is_alone: bool) -> None:
        self.stage = stage
        self.seed = seed
        self.is_alone = is_alone
        self.allowances: list[Allowance] = []
        self.changes: dict[str, dict[str, Any]] = {}
        """Changes of the configuration, by fault."""
        self.next_accident: dict[str, Any] = {}
        """What the next start of the bridge has besides the files of faults."""
        self.bends: dict[str, Bend] = {}
        self.refusals: dict[str, Bend] = {}
        self.is_removal_excluded = False
        """Whether a fault says that nothing may be removed in its round, when it is alone."""
        self.base = BASE
        """The base topic below which commands are sent."""
        self.checks: list[Callable[[], Awaitable[None]]] = []
        """What faults want looked at once all is right again."""
        self._setup = setup
        self._offsets: dict[str, float] = {}
        self._bridge_lock, self._broker_lock = asyncio.Lock(), asyncio.Lock()
        self._starts_until = 0.0
        """Until when the bridge may take to start, of a monotonic clock; 0 once it is connected."""
        self._ended_by_us: set[int] = set()
        self._ended_alone: list[str] = []
        self.set_clock("", 0)
        stage.proxy.bend = lambda topic: _first(self.bends, topic)
        stage.proxy.refuse = lambda topic: _first(self.refusals, topic)

    # ── the bridge ─────────────────────────────────────────────────────────────────────────────

    def file(self, name: str) -> Path:
        """A file by which a fault acts on the running bridge."""
        return self.stage.directory / name

    def set_clock(self, fault: str, offset: float) -> None:
        """Makes the bridge's wall clock wrong by so many seconds, besides what other faults do."""
        self._offsets[fault] = offset
        fresh = self.file("clock.new")
        fresh.write_text(str(sum(self._offsets.values())))
        fresh.rename(self.file("clock"))

    async def start(self) -> None:
        """Starts the bridge with what is in force."""
        accident: dict[str, Any] = {
            "clock": str(self.file("clock")),
            "fail_while": str(self.file("failing")),
            "full_while": str(self.file("full")),
            "slow_while": str(self.file("slow")),
            "fail_share": 0.1 + self.seed % 6 / 10,
            "seed": self.seed,
            "quick": self._setup.is_quick or not self.is_alone,
            "slice": 0 if self.is_alone else 5,
        }
        await self.stage.start(accident | self.next_accident, **self.configuration())
        if "at" in self.next_accident:
            # It kills itself, maybe before anybody looks.
            self._ended_by_us.add(self.stage.bridge.pid)
        self.next_accident = {}
        self._starts_until = time.monotonic() + MAX_START_S

    def configuration(self) -> dict[str, Any]:
        """The changes of the configuration that are in force."""
        merged = self._setup.changes
        for changes in self.changes.values():
            merged = harness.merged(merged, changes)
        return merged

    async def reload(self, number: int) -> None:
        """Writes the configuration that is in force, and has the running bridge read it."""
        self.stage.config(**self.configuration())
        await self._until_signals_are_handled()
        with contextlib.suppress(ProcessLookupError):
            self.stage.bridge.signal(number)

    @contextlib.asynccontextmanager
    async def down(self, *, kill: bool = False) -> AsyncIterator[None]:
        """The bridge is not running within the block; the supervisor starts it after that."""
        async with self._bridge_lock:
            self._ended_by_us.add(self.stage.bridge.pid)
            if kill:
                await self.stage.kill()
            elif self.stage.bridge.returncode is None:
                await self._stop()
            yield

    async def _until_signals_are_handled(self) -> None:
        """A process that has only begun to start has no handlers yet, and would end by any signal."""
        for _ in range(100):
            if self.stage.bridge.returncode is not None or await self.stage.ready():
                break
            await asyncio.sleep(0.1)

    async def _stop(self) -> None:
        await self._until_signals_are_handled()
        if self.stage.bridge.returncode is not None:
            # It was quicker than the signal.
            self._ended_alone.append(self._own_end())
            return
        try:
            await self.stage.stop()
        except TimeoutError:
            self.stage.findings.append("not as promised: not ended 10 s after SIGTERM")
            await self.stage.kill()

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Nobody else ends or starts the bridge within the block."""
        async with self._bridge_lock:
            yield

    async def supervise(self) -> None:
        """Starts the bridge whenever it has ended, as a service manager does."""
        while True:
            await asyncio.sleep(0.05)
            if self.stage.bridge.returncode is None:
                await self._note_connection()
                continue
            async with self._bridge_lock:
                if self.stage.bridge.returncode is not None:
                    await self._note_end()
                    await self.start()

    async def _note_end(self) -> None:
        if self.stage.bridge.pid not in self._ended_by_us:
            self._ended_alone.append(self._own_end())
            await asyncio.sleep(1.0)

    def _own_end(self) -> str:
        bridge = self.stage.bridge
        last = " | ".join(bridge.text().splitlines()[-3:])[-400:]
        return f"not as promised: ended by itself with {bridge.returncode}: {last}"

    async def _note_connection(self) -> None:
        if self._is_starting():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    if (await self.stage.ready()).get("broker"):
                        self._starts_until = 0.0

    def _is_starting(self) -> bool:
        return time.monotonic() < self._starts_until and not self._broker_lock.locked()

    async def until_running(self) -> None:
        """Waits until the supervisor has started the bridge, and for a while until it is connected."""
        while self._bridge_lock.locked() or self.stage.bridge.returncode is not None or self._is_starting():
            await asyncio.sleep(0.05)

    async def pass_time(self, seconds: float) -> None:
        """Waits so many seconds, besides those in which the bridge starts: on a busy machine they are many.

        A bridge that does little else than start makes it longer by MAX_STARTS_S at most.
        """
        left, before = seconds, time.monotonic()
        end = before + seconds + MAX_STARTS_S
        while left > 0 and before < end:
            await asyncio.sleep(min(left, 0.1))
            now = time.monotonic()
            left, before = left - (0.0 if self._is_starting() else now - before), now

    async def conclude(self) -> None:
        """Makes findings of ends that no fault allows, of removals where none may be, and of what faults check."""
        for check in self.checks:
            await check()
        removed = [topic for topic in self.stage.recorder.topics() if topic.endswith("/event/removed")]
        self.stage.expect(not (self.is_alone and self.is_removal_excluded and removed), f"removed: {removed}")
        if not any(allowance.may_end for allowance in self.allowances):
            self.stage.findings += self._ended_alone

    # ── the broker ─────────────────────────────────────────────────────────────────────────────

    @contextlib.asynccontextmanager
    async def broker_down(self, *, kill: bool = False, forgets: bool = False) -> AsyncIterator[None]:
        """The broker is not running within the block; with `forgets` it starts again with nothing."""
        async with self._broker_lock:
            try:
                await self.stage.stop_broker(kill=kill)
                yield
            finally:
                if forgets:
                    self.file("mosquitto.db").unlink(missing_ok=True)
                await self.stage.start_broker(kept=True, more=self._setup.broker)

    async def say(self, topic: str, payload: bytes | str = b"", *, retain: bool = False) -> None:
        """Publishes as anybody could, if there is a broker; what is not retained to the bridge, wherever it is."""
        if not retain:
            topic = self.base + topic.removeprefix(BASE)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2):
                await harness.publish(self.stage.port, topic, payload, retain=retain)

    async def is_interval(self, call: str, seconds: int, patience: float) -> bool:
        """Whether the state of a call comes to say this interval."""
        known, topic = self.stage.recorder.retained, f"{BASE}/bridge/polling/{call}/state"
        return await self.stage.until(lambda: known.get(topic, {}).get("interval") == seconds, patience)

    def allow(self, fault: str, **what: Any) -> None:
        """Notes what this fault allows from now on."""
        self.allowances.append(Allowance(fault=fault, **what))


class Part(msgspec.Struct, frozen=True):
    """What one fault is given: the scene, its own name, and its own chance."""

    scene: Scene
    fault: str
    chance: random.Random

    @property
    def stage(self) -> Stage:
        """The stage of the round."""
        return self.scene.stage

    def pause(self, shortest: float, longest: float) -> Coroutine[Any, Any, None]:
        """A wait of so many seconds."""
        return asyncio.sleep(self.chance.uniform(shortest, longest))

    def expect(self, good: Any, otherwise: str) -> None:
        """A finding where something is not as this fault promises when it is alone."""
        if self.scene.is_alone:
            self.stage.expect(good, otherwise)


@contextlib.asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs something beside the block, and ends it with the block. An error in it ends the round."""
    task = asyncio.create_task(work, name="fault")
    try:
        yield
    finally:
        if not task.done():
            await cancel_until_done(task)
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _first(bends: dict[str, Bend], topic: str) -> int | None:
    """What the first fault wants that wants anything of this topic."""
    return next((code for bend in list(bends.values()) if (code := bend(topic)) is not None), None)


def now() -> float:
    """Seconds of the wall clock of the machine that plays the round."""
    return time.time()
