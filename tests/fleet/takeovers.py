"""Kill -9 of the holder, and pauses: `python -m tests.fleet.takeovers [KILLS] [--pauses N] [--clocks] [--seed S]`.

Two workers of one instance with a lease of 2 s. Before each round every terminal changes and every call is polled, and
the holder is killed or stopped while that is read and published. Measured is how long the other takes, from the last
sign of life of the holder until `bridge/head` names the next epoch, and how many messages come again: at most two
windows in one connection. At the end of a stage all must be as the API says, with nothing lost, invented or out of
order. With `--clocks` one worker's clock is half a day slow and the other's half a day fast.
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests import harness
from tests.fleet import watching
from tests.fleet.workers import NAMES, PATIENCE_S, STATUS, Holder, Workers, set_up_workers
from tests.kill_rounds import REMOVAL, count_repeats, is_from_journal
from tests.places import new_database, run_cluster

KILLS = 100
STAGE_ROUNDS = 25
LEASE_S = 2.0
TAKEOVER_S = LEASE_S + 2.0
"""The longest that is promised, from the last sign of life to the next epoch."""
WINDOWS = (20, 100)
TERMINALS = 60
CLOCKS = {"a": -43_200, "b": 43_200}
"""Seconds by which the workers' clocks are wrong."""
FIRST_MESSAGE_WITHIN_S = 8.0
KEPT = Path("build")
"""Where the files of a stage are copied that violated something."""


class Figures(msgspec.Struct):
    """What a campaign showed: seconds of each takeover, messages that came again in each connection, violations."""

    kills: int = 0
    pauses: int = 0
    takeovers: list[float] = []
    repeats: list[int] = []
    messages: int = 0
    rows: int = 0
    findings: list[str] = []

    def add(self, other: "Figures") -> None:
        """Adds those of another stage."""
        self.kills += other.kills
        self.pauses += other.pauses
        self.takeovers += other.takeovers
        self.repeats += other.repeats
        self.messages += other.messages
        self.rows += other.rows
        self.findings += other.findings

    def __str__(self) -> str:
        """One line for the end of a campaign."""
        return (
            f"{self.kills} kills and {self.pauses} pauses, {self.messages} messages, {self.rows} rows: takeover p50 "
            f"{quantile(self.takeovers, 0.5):.2f} s, p99 {quantile(self.takeovers, 0.99):.2f} s, longest "
            f"{max(self.takeovers, default=0):.2f} s (promised {TAKEOVER_S:g} s); at most "
            f"{max(self.repeats, default=0)} messages came again in one connection (median "
            f"{statistics.median(self.repeats or [0]):g}), {len(self.findings)} violations"
        )


def quantile(values: Sequence[float], share: float) -> float:
    """The value below or at which that share of all lie; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


class _Rounds:
    """The rounds of one stage."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._stage = workers.stage
        self._figures = Figures()

    async def play(self, kinds: Sequence[str], window: int) -> Figures:
        workers, stage, figures = self._workers, self._stage, self._figures
        for name in NAMES:
            await workers.start(name)
        await workers.until_leads(1)
        for number, kind in enumerate(kinds, 1):
            await self._play_round(kind, number)
        stage.mended()
        await workers.hand_over()
        result = await stage.finish(removal=(1, 0.0, 5))
        await workers.end()
        stored = watching.read_stored(workers.url)
        figures.rows = stored.rows
        figures.messages, repeats = count_repeats(stage.recorder.lines)
        # Nothing stands before the first probe, and nothing can come again in the first connection.
        figures.repeats = repeats[2:]
        many = [count for count in figures.repeats if count > 2 * window]
        figures.findings += [f"{count} messages came again in one connection, window {window}" for count in many]
        figures.findings += [*result.findings, *stored.findings]
        return figures

    async def _until_one_stands_by(self) -> tuple[Holder, str]:
        """Waits until the worker that does not hold the instance is ready. Who holds it, and the other's name."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                holder = self._workers.holder()
                assert holder is not None
                other = next(name for name in NAMES if name != holder.worker)
                # It may become the holder meanwhile, because the first one could not renew its lease in time.
                with contextlib.suppress(TimeoutError):
                    await self._workers.until_stands_by(other, 5.0)
                    return holder, other

    async def _play_round(self, kind: str, number: int) -> None:
        workers, figures = self._workers, self._figures
        await workers.until_online()
        holder, other = await self._until_one_stands_by()
        await self._until_amid()
        process = workers.processes[holder.worker]
        if kind == "kill":
            await process.kill()
            figures.kills += 1
        else:
            process.signal(signal.SIGSTOP)
            figures.pauses += 1
        holder = self._last_sign_of(holder)
        if kind == "kill":
            await workers.start(holder.worker)
        took = await workers.until_leads(holder.epoch + 1) - holder.renewed_at
        figures.takeovers.append(took)
        if took > TAKEOVER_S:
            figures.findings.append(f"round {number}: the takeover took {took:.2f} s after a {kind}")
        if kind == "pause":
            await self._wake(holder, other)
        self._stage.api.advance(self._stage.chance.uniform(0, 60))

    def _last_sign_of(self, holder: Holder) -> Holder:
        """The lease as the holder left it: it may have renewed it, or given it to itself anew, meanwhile."""
        current = self._workers.holder()
        assert current is not None
        if current.worker != holder.worker:
            self._figures.findings.append("the holder lost the instance before it was killed")
            return holder
        return current

    async def _wake(self, holder: Holder, other: str) -> None:
        """The one that was stopped goes on: it stands by, and is not heard of."""
        workers, stage = self._workers, self._stage
        await workers.until_online()
        await asyncio.sleep(stage.chance.uniform(0, 0.5))
        count, before = len(stage.recorder.on(STATUS)), workers.holder()
        workers.processes[holder.worker].signal(signal.SIGCONT)
        await self._until_one_stands_by()
        current = workers.holder()
        is_undisturbed = (
            current is not None and before is not None and before.worker == other and current.epoch == before.epoch
        )
        # Another takeover, by a busy machine, has states of its own.
        stage.expect(
            not is_undisturbed or len(stage.recorder.on(STATUS)) == count,
            f"{STATUS} changed when a paused worker woke: {stage.recorder.on(STATUS)[count:]}",
        )

    async def _until_amid(self) -> None:
        """Everything changes and is polled; returns while it is on its way."""
        stage = self._stage
        for terminal in stage.api.truth("terminals"):
            state = stage.chance.choice(("online", "offline", "degraded"))
            stage.api.fleet("set_state", id=terminal["id"], state=state)
        stage.api.advance(30)
        before = len(stage.recorder.lines)
        await harness.publish(stage.port, "oneweb/bridge/polling/all/poll")
        if stage.chance.random() < 0.2:
            await asyncio.sleep(stage.chance.uniform(0, 1.0))
            return
        await stage.until(
            lambda: any(is_from_journal(line) for line in stage.recorder.lines[before:]), FIRST_MESSAGE_WITHIN_S
        )
        await asyncio.sleep(stage.chance.uniform(0, 0.5))


async def play_stage(
    directory: Path, url: str, kinds: Sequence[str], seed: int, *, clocks: bool = False, window: int = 20
) -> Figures:
    """Rounds in the life of one database, each a `kill` or a `pause`."""
    options: dict[str, Any] = {"terminals": TERMINALS, "broker_conf": f"max_inflight_messages {window}\n"}
    async with set_up_workers(
        directory, seed, url, LEASE_S, options=options, mqtt={"window": window}, removal=REMOVAL
    ) as workers:
        if clocks:
            for name, offset in CLOCKS.items():
                path = directory / f"{name}.clock"
                path.write_text(str(offset))
                workers.accidents[name] = {"clock": str(path)}
        begun = time.monotonic()
        figures = await _Rounds(workers).play(kinds, window)
        print(f"seed {seed}, window {window}, {time.monotonic() - begun:.0f} s: {figures}", flush=True)
        return figures


async def play(urls: Sequence[str], kinds: Sequence[str], seed: int, *, clocks: bool = False) -> Figures:
    """All rounds, stage by stage, each with a database of its own."""
    whole, chance = Figures(), random.Random(seed)
    for number, url in enumerate(urls):
        stage_kinds = kinds[number * STAGE_ROUNDS : (number + 1) * STAGE_ROUNDS]
        window = WINDOWS[number % len(WINDOWS)]
        with tempfile.TemporaryDirectory(prefix="oneweb-takeovers-") as place:
            figures = await play_stage(
                Path(place), url, stage_kinds, chance.randrange(1 << 30), clocks=clocks, window=window
            )
            if figures.findings:
                kept = KEPT / f"takeovers-{number}"
                shutil.copytree(place, kept, dirs_exist_ok=True)
                print(*figures.findings, f"the files of this stage are in {kept}", sep="\n", flush=True)
        whole.add(figures)
    return whole


def main() -> int:
    """The exit code: 0 when nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.takeovers")
    parser.add_argument("kills", nargs="?", type=int, default=KILLS)
    parser.add_argument("--pauses", type=int, default=0)
    parser.add_argument("--clocks", action="store_true", help="the workers' clocks are a day apart")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    kinds = ["kill"] * options.kills + ["pause"] * options.pauses
    random.Random(options.seed).shuffle(kinds)
    with run_cluster() as cluster, contextlib.ExitStack() as stack:
        urls = [stack.enter_context(new_database(cluster)) for _ in range(0, len(kinds), STAGE_ROUNDS)]
        whole = asyncio.run(play(urls, kinds, options.seed, clocks=options.clocks))
    print(f"{'clocks a day apart: ' if options.clocks else ''}{whole}")
    return 1 if whole.findings else 0


if __name__ == "__main__":
    sys.exit(main())
