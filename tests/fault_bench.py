"""Where a round of the campaign is played: broker, proxy, simulated API, a recorder, and the bridge between them.

    bridge ──▶ proxy ──▶ mosquitto ──▶ recorder (its own process, persistent session)
       ▲                                  │
       └── simulated API (ledger) ────────┴──▶ checker

A round breaks something, mends it, and asks for a result: within `PATIENCE` all must be as if nothing had been.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import math
import os
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import aiomqtt
import msgspec

from oneweb_bridge.demo import mosquitto
from oneweb_bridge.simulator import Options, Simulator, serve
from tests import checker, harness, proxy, recording, truth
from tests.campaign import judging
from tests.recorder import FILTERS

PATIENCE = 60.0
"""Seconds after the end of a fault within which all must be right again."""
LATENESS = {
    "ut_link_availability": "11m",
    "ut_signal_quality": "3m",
    "ut_traffic": "3m",
    "ut_link_metrics": "4m",
    "product_throughput": "4m",
}
"""How late samples of the simulated reports may be: a few come up to three periods later than the others."""
UNDER_WAY_S = 5.0
"""Seconds from the state of a poll to its messages at the recorder, on a busy machine."""
POLLS_S = 25.0
"""Seconds that a poll of every call may take on a busy machine, and the messages of it."""
MOST_MEMORY = 160.0
"""MiB that the bridge may take with a small fleet and api.max_body of 8 MB, whatever happens."""
MOST_DISK = 64 << 20
"""Bytes that its files may take in a round."""
EVIDENCE = Path(__file__).parent.parent / "build" / "evidence"
"""Where that of broken promises is kept."""
WINDOW = int(os.environ.get("SOAK_WINDOW") or 0)
"""Messages in flight, of the bridge and of the broker; 0 leaves both at their defaults."""
IN_FLIGHT = {"window": WINDOW} if WINDOW else {}
_OF_BRIDGES = ("oneweb/bridge/", "elsewhere/bridge/")
"""Where a bridge tells of itself, at any time."""
SECRET, PASSWORD = "canary-7fQ2-api-secret", "canary-9kX4-mqtt-password"
CONFIG = """
allow_anonymous true
max_queued_messages 100000
set_tcp_nodelay true
log_dest none
"""
KEPT = """
persistence true
persistence_location {place}/
autosave_on_changes true
autosave_interval 1
"""
"""What makes mosquitto survive a kill, as in mosquitto/production.conf."""


class RoundResult(msgspec.Struct, kw_only=True):
    """The end of a round. `recovery` is the seconds from the end of the fault until all was right."""

    findings: list[str]
    recovery: float = 0.0
    repeats: int = 0
    forgotten: int = 0
    sessions: int = 0
    messages: int = 0
    memory: float = 0.0
    disk: int = 0


class Stage:
    """Made by `set_up`."""

    def __init__(self, directory: Path, chance: random.Random, api: Simulator, port: int, gate: proxy.Proxy) -> None:
        self.directory = directory
        self.chance = chance
        self.api = api
        self.port = port
        self.proxy = gate
        self.http = mosquitto.free_port()
        self.findings: list[str] = []
        self.mended_at = time.monotonic()
        self.world = harness.World(port, api, directory)
        self.recorder: recording.Recording
        self.bridge: harness.Process
        self._conf = directory / "mosquitto.conf"
        self._mosquitto: contextlib.AsyncExitStack | None = None
        self._broker: asyncio.subprocess.Process
        self._memory = 0.0

    # ── the broker ─────────────────────────────────────────────────────────────────────────────

    async def start_broker(self, *, kept: bool = False, more: str = "") -> None:
        """Starts mosquitto; the bridge reaches it as soon as the recorder has its subscription."""
        in_flight = f"max_inflight_messages {WINDOW}\n" if WINDOW else ""
        text = CONFIG + in_flight + (KEPT.format(place=self.directory) if kept else "persistence false\n") + more
        text += "user root\n" if os.geteuid() == 0 else ""
        self._conf.write_text(text)
        self._mosquitto = contextlib.AsyncExitStack()
        self._broker = await self._mosquitto.enter_async_context(mosquitto.run_mosquitto(self.port, self._conf))
        if hasattr(self, "recorder"):
            await self.recorder.subscribed()
        self.proxy.is_open = True

    async def stop_broker(self, *, kill: bool = False) -> None:
        """Ends mosquitto, in order or by force."""
        self.proxy.is_open = False
        if kill:
            self._broker.kill()
        if self._mosquitto is not None:
            await self._mosquitto.aclose()

    def hang_up(self, number: int) -> None:
        """Sends mosquitto a signal."""
        self._broker.send_signal(number)

    # ── the bridge ─────────────────────────────────────────────────────────────────────────────

    def config(self, **changes: Any) -> Path:
        """The bridge's configuration for this stage."""
        given = {
            "api": {
                "client_secret": SECRET,
                "max_body": "8MB",
                "timeout": {"connect": "2s", "read": "3s", "poll": "30s"},
            },
            "mqtt": {"port": self.proxy.port, "username": "bridge", "password": PASSWORD, **IN_FLIGHT},
            "http": {"listen": f"127.0.0.1:{self.http}"},
            "polling": {call: {"lateness": lateness} for call, lateness in LATENESS.items()},
        }
        return harness.bridge_yaml(self.directory, self.api.url, self.port, **harness.merged(given, changes))

    async def start(self, accident: dict[str, Any] | None = None, **changes: Any) -> harness.Process:
        """Starts the bridge, with an accident in it or as it is."""
        # Another program of a busy machine may have taken the port meanwhile.
        self.http = mosquitto.free_port()
        path = self.config(**changes)
        program = ("oneweb_bridge",) if accident is None else ("tests.crashing", json.dumps(accident))
        self.bridge = await harness.launched(program, path)
        return self.bridge

    async def kill(self) -> None:
        """Kill -9."""
        self._weigh()
        await self.bridge.kill()

    async def stop(self) -> None:
        """SIGTERM; the exit code must be 0, within 10 s."""
        self._weigh()
        code = await self.bridge.stop()
        self.expect(code == 0, f"exit code {code} after SIGTERM")

    async def crashed(self, point: str, patience: float = 40.0) -> None:
        """Waits until the bridge has killed itself at its point."""
        async with asyncio.timeout(patience):
            while self.bridge.returncode is None:
                self._weigh()
                await asyncio.sleep(0.05)
        self.expect(self.bridge.returncode == -9, f"{point}: exit code {self.bridge.returncode} instead of a kill")

    def _weigh(self) -> None:
        with contextlib.suppress(OSError, StopIteration):
            self._memory = max(self._memory, self.bridge.peak_mib())

    # ── looking ────────────────────────────────────────────────────────────────────────────────

    def expect(self, good: Any, otherwise: str) -> None:
        """Notes a finding where something is not as promised."""
        if not good:
            self.findings.append(f"not as promised: {otherwise}")

    async def ready(self) -> dict[str, Any]:
        """What /readyz says, with `status`; empty while nobody answers."""
        return await self._fetch("readyz")

    async def backlog(self) -> float:
        """What /metrics says of the rows that wait; -1 while nobody answers."""
        text = str((await self._fetch("metrics")).get("text", ""))
        lines = [line for line in text.splitlines() if line.startswith("oneweb_bridge_journal_backlog ")]
        return float(lines[0].split()[1]) if lines else -1.0

    async def _fetch(self, what: str) -> dict[str, Any]:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.get(f"http://127.0.0.1:{self.http}/{what}") as answer,
            ):
                text = await answer.text()
                members = json.loads(text) if text.startswith("{") else {"text": text}
                return {**members, "status": answer.status}
        return {}

    async def until(self, true: Callable[[], Any], patience: float = PATIENCE) -> bool:
        """Waits until something holds that the recorder hears of. Returns whether it came to hold."""
        try:
            await self.recorder.until(true, patience)
        except AssertionError:
            return False
        return True

    async def until_ready(self, what: str, *, is_well: bool, patience: float = 30.0) -> None:
        """Expects a part of /readyz to become well, or not well."""
        deadline = time.monotonic() + patience
        while (await self.ready()).get(what) is not is_well:
            if time.monotonic() > deadline:
                self.findings.append(f"not as promised: /readyz says {await self.ready()}, expected {what}: {is_well}")
                return
            await asyncio.sleep(0.1)

    async def wait_until_at_rest(self, patience: float = PATIENCE) -> None:
        """Waits until every call has succeeded once, as far as the recorder heard."""
        calls = [f"oneweb/bridge/polling/{call}/state" for call in harness.QUICK]
        known = self.recorder.retained
        good = await self.until(lambda: all("last_success" in known.get(topic, {}) for topic in calls), patience)
        self.expect(good, f"not every call has succeeded after {patience:.0f} s: {self._log_end()}")

    def _log_end(self) -> str:
        return " | ".join(self.bridge.text().splitlines()[-4:])[-600:]

    # ── the end ────────────────────────────────────────────────────────────────────────────────

    def mended(self) -> None:
        """From now on nothing is broken: the time of recovery begins."""
        self.proxy.mend()
        self.api.clear_faults()
        self.api.freeze()
        self.mended_at = time.monotonic()

    async def rest(self, patience: float = PATIENCE) -> None:
        """Polls everything until all polls succeed and nothing waits, twice."""
        deadline = self.mended_at + patience
        for _ in range(2):
            while not await self._polled():
                if time.monotonic() > deadline or self.bridge.returncode is not None:
                    self.findings.append(
                        f"not as promised: no rest {time.monotonic() - self.mended_at:.0f} s after the fault "
                        f"(exit code {self.bridge.returncode}): {self._log_end()}"
                    )
                    return
                await asyncio.sleep(0.1)

    async def _polled(self) -> bool:
        """One poll of every call. Returns whether all succeeded, and all that they brought was published."""
        if not (await self.ready()).get("broker"):
            return False
        id = f"rest-{self.chance.random()}"
        topic = "oneweb/bridge/polling/all/result"
        try:
            await harness.publish(self.port, "oneweb/bridge/polling/all/poll", json.dumps({"id": id}))
        except (aiomqtt.MqttError, OSError):
            return False

        def answers() -> list[Any]:
            return [result for result in self.recorder.on(topic) if result.get("id") == id and "note" not in result]

        if not await self.until(answers, POLLS_S) or answers()[-1]["status"] != "ok":
            return False
        deadline = time.monotonic() + POLLS_S
        while await self.backlog() != 0 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return await self.backlog() == 0

    async def finish(
        self,
        *,
        without: tuple[str, ...] = (),
        whole: bool = True,
        bounded: bool = True,
        patience: float = PATIENCE,
        **story_options: Any,
    ) -> RoundResult:
        """What became of it. `without` names beginnings of topics that the broker was told to refuse."""
        await self.rest(patience)
        recovery = time.monotonic() - self.mended_at
        retained, still_since = await self._standing_still()
        replayed = recording.replay(self.recorder.lines, self.proxy.taken)
        story = checker.Story(
            ledger=self.world.ledger,
            received=replayed.received,
            retained=retained,
            whole=whole,
            unsure=((still_since, math.inf),),
            **story_options,
        )
        findings = checker.judge(story) + truth.differences(retained, truth.expected(self.api))
        self.findings += [line for line in findings if not any(part in line for part in without)]
        if bounded and replayed.repeats > max(0, replayed.sessions - 1) * judging.REPEATED:
            self.findings.append(f"too many repeats: {replayed.repeats} in {replayed.sessions} connections")
        if self.findings:
            self._keep_evidence(retained, still_since)
        return self._round_result(replayed, recovery)

    def _evidence(self, retained: dict[str, Any], still_since: float) -> judging.Evidence:
        return judging.Evidence(
            lines=self.recorder.lines,
            taken=self.proxy.taken,
            ledger=self.world.ledger,
            retained=retained,
            still_since=still_since,
        )

    def _keep_evidence(self, retained: dict[str, Any], still_since: float) -> None:
        self.findings.append(f"what was seen is kept in {_keep(self._evidence(retained, still_since))}")

    async def finish_allowing(self, allowances: Sequence[judging.Allowance], patience: float = PATIENCE) -> RoundResult:
        """What became of it, where each deviation must be allowed by a fault of the round."""
        await self.rest(patience)
        recovery = time.monotonic() - self.mended_at
        retained, still_since = await self._standing_still()
        allowances = [*allowances, *judging.allow_outgrown(self.bridge.text(), allowances)]
        replayed, findings = judging.judge(self._evidence(retained, still_since), allowances)
        differences = truth.differences(retained, truth.expected(self.api))
        self.findings += findings + judging.without_refused(differences, allowances)
        if self.findings:
            self._keep_evidence(retained, still_since)
        return self._round_result(replayed, recovery)

    def _round_result(self, replayed: recording.Replayed, recovery: float) -> RoundResult:
        self._weigh()
        self._look_for_secrets()
        disk = sum(path.stat().st_size for path in self.directory.glob("bridge.db*") if path.is_file())
        self.expect(self._memory < MOST_MEMORY, f"{self._memory:.0f} MiB of memory")
        self.expect(disk < MOST_DISK, f"{disk} bytes on disk")
        _, _, trace = self.bridge.text().partition("Traceback")
        self.expect(not trace, f"a traceback: {_end_of(trace)}")
        return RoundResult(
            findings=self.findings,
            recovery=recovery,
            repeats=replayed.repeats,
            forgotten=replayed.forgotten,
            sessions=replayed.sessions,
            messages=len(replayed.received),
            memory=self._memory,
            disk=disk,
        )

    async def _standing_still(self) -> tuple[dict[str, Any], float]:
        """What is retained at a moment up to which all was heard, and is what was said last.

        Polls go on, and devices are announced a few seconds after the rest; what is not so after 20 s is a finding.
        The second value is a time of the wall clock before the quiet that was waited for: of a poll that ended later
        the state may have been heard, and its messages not yet.
        """
        retained, still_since = dict[str, Any](), 0.0
        for _ in range(25):
            still_since = time.time() - UNDER_WAY_S
            try:
                await self.recorder.quiet(0.6, 20.0)
            except TimeoutError:
                # A large fleet has something new in every poll.
                await self._stop_polls()
            is_drained, count = await self.backlog() == 0, self._news()
            retained = await harness.retained(self.port, *FILTERS)
            await asyncio.sleep(0.2)
            self.recorder.read()
            # Nothing is waited for from here on: what comes later must not be judged against what is retained now.
            if is_drained and self._news() == count and self._is_as_heard(retained):
                break
        return retained, still_since

    async def _stop_polls(self) -> None:
        """Disables every call, and waits until that is answered."""
        id, topic = f"still-{self.chance.random()}", "oneweb/bridge/polling/all"
        await harness.publish(self.port, f"{topic}/set", json.dumps({"id": id, "enabled": False}))
        await self.until(lambda: any(result.get("id") == id for result in self.recorder.on(f"{topic}/result")), 20.0)

    def _is_as_heard(self, retained: dict[str, Any]) -> bool:
        """Whether all that was said last, as far as the recorder heard, is what is retained."""
        last = self.recorder.retained
        return all(retained.get(topic) == last[topic] for topic in last if not topic.startswith(_OF_BRIDGES))

    def _news(self) -> int:
        return sum("/bridge/" not in topic for topic, _, _ in self.recorder.messages)

    def _look_for_secrets(self) -> None:
        """No planted secret is in what the bridge wrote or said."""
        basic = base64.b64encode(f"demo:{SECRET}".encode())
        for path in self.directory.rglob("*"):
            if path.is_file() and path.name not in ("bridge.yaml", "mosquitto.conf", "mosquitto.db"):
                text = path.read_bytes()
                for secret in (SECRET.encode(), PASSWORD.encode(), basic):
                    self.expect(secret not in text and base64.b64encode(secret) not in text, f"a secret in {path.name}")


def _keep(evidence: judging.Evidence) -> Path:
    """Writes what a round that broke a promise left, to be judged again: its seed alone may not bring it back."""
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    path = EVIDENCE / f"{time.time():.0f}-{os.getpid()}.json"
    path.write_bytes(msgspec.json.encode(evidence))
    return path


def _end_of(trace: str) -> str:
    """The last lines of a traceback that has more of the log behind it: up to the first line of the log's form."""
    lines = list(itertools.takewhile(lambda line: not re.match(r"\d{4}-\d\d-\d\dT", line), trace.splitlines()))
    return " | ".join(line.strip() for line in lines[-6:])[-600:]


@contextlib.asynccontextmanager
async def set_up(
    directory: Path, seed: int, *, kept: bool = False, broker_conf: str = "", **options: Any
) -> AsyncIterator[Stage]:
    """A stage with a small fleet that lives, a broker that runs, and a recorder that listens; no bridge yet."""
    chance, port = random.Random(seed), mosquitto.free_port()
    given: dict[str, Any] = {
        "terminals": 12,
        "seed": seed % 1000,
        "client_secret": SECRET,
        "liveliness": 20.0,
        "report_period": 0.05,
        "lateness_scale": 0.02,
        "ledger": str(directory / "ledger.jsonl"),
    }
    async with serve(Options(**(given | options))) as api, proxy.between(port) as gate:
        stage = Stage(directory, chance, api, port, gate)
        await stage.start_broker(kept=kept, more=broker_conf)
        try:
            async with recording.subscribed(port, directory) as recorder:
                stage.recorder = recorder
                try:
                    yield stage
                finally:
                    if hasattr(stage, "bridge"):
                        await stage.bridge.kill()
        finally:
            await stage.stop_broker()
