"""A fleet's first snapshot through mosquitto/production.conf, against the same through mosquitto/demo.conf (row 12)."""

import asyncio
import contextlib
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bench.fleet import CALM, simulated, standing
from bench.scope import Scope, spelled
from bench.table import Row, of_rounds
from oneweb_bridge.demo import mosquitto
from tests import broker_setup, harness

LOOK_S = 0.1
SNAPSHOT_TIMEOUT_S = 300.0
UNHURRIED = {call: {**settings, "enabled": True} for call, settings in CALM.items()}
"""Every call once at the start, and then at its own interval."""


def written_bytes(pid: int) -> int:
    """Bytes that a process has handed to write(2) so far. Source: proc_pid_io(5)."""
    lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


async def snapshot(url: str, mqtt: dict[str, Any]) -> tuple[float, int]:
    """Seconds from the start of an empty bridge until its first polls are all published, and how many rows that is."""
    with tempfile.TemporaryDirectory() as directory:
        config = harness.bridge_yaml(Path(directory), url, int(mqtt["port"]), mqtt=mqtt, polling=UNHURRIED)
        database, begun = Path(directory) / "bridge.db", time.perf_counter()
        async with harness.running(config), asyncio.timeout(SNAPSHOT_TIMEOUT_S):
            while not _is_published(database):
                await asyncio.sleep(LOOK_S)
            return time.perf_counter() - begun, standing(database).head


def _is_published(database: Path) -> bool:
    if not database.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            succeeded = db.execute("SELECT count(*) FROM call WHERE last_success > 0").fetchone()[0]
        return bool(succeeded == len(UNHURRIED) and standing(database).is_at_rest)
    except sqlite3.OperationalError:
        return False


async def rows(scope: Scope) -> AsyncIterator[Row]:
    """Row 12: the rate against the demo's configuration, and what the broker writes for it."""
    terminals, port = scope.of(1000), mosquitto.free_port()
    ratios: list[float] = []
    seconds: list[tuple[float, float]] = []
    written = count = 0
    with broker_setup.placed() as place:
        async with mosquitto.run_mosquitto(port), broker_setup.running(place) as process:
            for _ in range(min(scope.rounds, 3)):
                async with simulated(terminals) as url:
                    demo, count = await snapshot(url, {"host": "127.0.0.1", "port": port})
                async with simulated(terminals) as url:
                    before = written_bytes(process.pid)
                    production, _ = await snapshot(url, place.settings("bridge"))
                    written = max(written, written_bytes(process.pid) - before)
                seconds.append((demo, production))
                ratios.append(demo / production)
    what = f"first snapshot of {spelled(terminals)} terminals through production.conf: rate by that through demo.conf"
    demo, production = (sum(column) / len(seconds) for column in zip(*seconds, strict=True))
    yield of_rounds(
        Row(
            number="12",
            what=what,
            goal=0.7,
            at_least=True,
            bridge=f"{production:.1f} s",
            floor=f"demo.conf: {demo:.1f} s",
            note=f"{spelled(count)} rows; the broker wrote {written / 1e6:.1f} MB",
        ),
        ratios,
    )
