"""Two workers of one instance on a stage of the fault bench: their processes, and what the database says of them."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psycopg

from oneweb_bridge.demo import mosquitto
from tests import harness
from tests.fault_bench import Stage, set_up
from tests.fleet import watching

PATIENCE_S = 90.0
HEAD, STATUS = "oneweb/bridge/head", "oneweb/bridge/status"
NAMES = ("a", "b")


class Holder(msgspec.Struct, frozen=True):
    """The lease of the instance. `renewed_at` is the holder's last sign of life, in s of this machine's clock."""

    worker: str
    epoch: int
    renewed_at: float
    held: bool


class Workers:
    """Made by `set_up_workers`."""

    def __init__(self, stage: Stage, url: str, lease: float, **changes: Any) -> None:
        """`changes` are members of both configurations."""
        self.stage = stage
        self.url = url
        self.worker_url = url
        """Where the workers reach the database: maybe another way than the tests."""
        self.lease = lease
        self.accidents: dict[str, dict[str, Any]] = {}
        """By worker, what `tests.crashing` makes wrong in it."""
        self.processes: dict[str, harness.Process] = {}
        self._changes = changes
        self._ports: dict[str, int] = {}

    async def start(self, name: str) -> None:
        """Starts a worker."""
        port = self._ports[name] = mosquitto.free_port()
        state = {"path": None, "url": self.worker_url, "lease": self.lease, "worker": name}
        given = {"state": state, "http": {"listen": f"127.0.0.1:{port}"}}
        place = self.stage.directory / name
        place.mkdir(exist_ok=True)
        path = self.stage.config(**harness.merged(given, self._changes)).rename(place / "bridge.yaml")
        accident = self.accidents.get(name)
        program = ("oneweb_bridge",) if accident is None else ("tests.crashing", json.dumps(accident))
        self.processes[name] = await harness.launched(program, path)

    async def end(self) -> None:
        """Kills both."""
        for process in self.processes.values():
            await process.kill()

    def peak_mib(self) -> float:
        """The highest resident memory of a worker so far."""
        return max(process.peak_mib() for process in self.processes.values())

    def holder(self) -> Holder | None:
        """Who holds the instance, or held it last; None before there was any."""
        with psycopg.connect(self.url, autocommit=True) as db:
            row = db.execute(
                "SELECT worker, epoch, EXTRACT(epoch FROM expires)::float8, held FROM oneweb.holders"
            ).fetchone()
        return None if row is None else Holder(row[0], row[1], row[2] - self.lease, row[3])

    async def until_leads(self, epoch: int) -> float:
        """Waits until `bridge/head` names an epoch that is as new. Returns when it did, by this machine's clock."""

        def at() -> float | None:
            lines = reversed(self.stage.recorder.lines)
            heads = [line for line in lines if line.topic == HEAD and line.payload]
            newer = [line.at for line in heads if json.loads(line.payload).get("epoch", 0) >= epoch]
            return newer[-1] if newer else None

        try:
            result: float = await self.stage.recorder.until(at, PATIENCE_S)
        except AssertionError:
            logs = {name: process.text()[-700:] for name, process in self.processes.items()}
            raise AssertionError(f"nobody published {HEAD} with epoch {epoch} in {PATIENCE_S:.0f} s: {logs}") from None
        return result

    async def until_online(self) -> None:
        """Waits until the status says so."""
        await self.stage.until(lambda: self.stage.recorder.retained.get(STATUS) == {"state": "online"}, PATIENCE_S)

    async def until_stands_by(self, name: str, patience: float = PATIENCE_S) -> None:
        """Waits until a worker answers that it is ready to take over. Raises TimeoutError."""
        end = time.monotonic() + patience
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while time.monotonic() < end:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                    async with session.get(f"http://127.0.0.1:{self._ports[name]}/readyz") as answer:
                        if await answer.json() == {"role": "standby", "database": True}:
                            return
                await asyncio.sleep(0.05)
        raise TimeoutError(
            f"worker {name} does not stand by after {patience:.0f} s: {self.processes[name].text()[-700:]}"
        )

    async def hand_over(self) -> None:
        """Makes the holder the bridge that the stage examines at its end, and ends the other, which could take over."""
        end = time.monotonic() + PATIENCE_S
        while (holder := self.holder()) is None or not holder.held:
            if time.monotonic() > end:
                raise TimeoutError(f"nobody holds the instance after {PATIENCE_S:.0f} s")
            await asyncio.sleep(0.05)
        self.stage.bridge, self.stage.http = self.processes[holder.worker], self._ports[holder.worker]
        for name, process in self.processes.items():
            if name != holder.worker:
                await process.kill()


@contextlib.asynccontextmanager
async def set_up_workers(
    directory: Path, seed: int, url: str, lease: float, *, options: dict[str, Any] | None = None, **changes: Any
) -> AsyncIterator[Workers]:
    """A stage with a database whose triggers watch; no worker yet. `options` are those of `fault_bench.set_up`."""
    watching.install(url)
    async with set_up(directory, seed, **(options or {})) as stage:
        workers = Workers(stage, url, lease, **changes)
        try:
            yield workers
        finally:
            await workers.end()
