"""Row 15: what flushing to the disk costs, on a disk where a flush takes 20 ms, and how often the bridge flushes.

Each drain runs in a process of its own, whose flushes are delayed by a library (`tests/flushes.c`); the flushes of a
first snapshot are counted by the same library in the real command.

    python -m bench.flushing PORT COUNT TOPICS        drains so many rows once, and prints the seconds
"""

import asyncio
import contextlib
import os
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from bench import drains, polls, ratios
from bench.answers import api
from bench.clock import Clock
from bench.fleet import standing
from bench.scope import Scope, spelled
from bench.table import Row, of_rounds
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.demo import mosquitto
from tests import flushes, harness

DELAY_S = 0.02
"""Seconds that each flush takes longer: an SD card, or a virtual machine on a busy disk."""
TOPICS = 10_000
MAX_FLUSHES = 150
LOOK_S = 0.1
SNAPSHOT_TIMEOUT_S = 120.0


async def _drain_delayed(port: int, count: int, delay: float) -> float:
    """Seconds of one drain in a process whose flushes take `delay` s longer. Raises flushes.NoCompiler."""
    with flushes.examined(delay=delay) as examined:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.flushing", str(port), str(count), str(TOPICS)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **examined.environment},
        )
        out, _ = await process.communicate()
        if process.returncode:
            raise AssertionError(f"the drain ended with exit code {process.returncode}")
        return float(out)


async def _slow_disk_row(scope: Scope) -> Row:
    count, rates = scope.of(20_000), list[tuple[float, float]]()
    async with ratios.default_broker() as port:
        for _ in range(scope.rounds):
            slow, quick = await _drain_delayed(port, count, DELAY_S), await _drain_delayed(port, count, 0.0)
            rates.append((count / slow, count / quick))
    slow_rate, quick_rate = (sum(column) / len(rates) for column in zip(*rates, strict=True))
    row = Row(
        number="15",
        what=f"drain of {spelled(count)} rows where a flush takes {1000 * DELAY_S:.0f} ms longer: rate by that without",
        goal=0.8,
        at_least=True,
        bridge=f"{slow_rate:.0f} messages/s",
        floor=f"without delay: {quick_rate:.0f} messages/s",
        note=f"MQTT 5, window 20, {spelled(TOPICS)} topics; the cursor is flushed once a second",
    )
    return of_rounds(row, [slow / quick for slow, quick in rates])


@contextlib.asynccontextmanager
async def _snapshot(terminals: int) -> AsyncIterator[tuple[int, int]]:
    """Flushes of the command until a first snapshot is published, and how many rows that was."""
    pages, calls = polls.pages(terminals), dict[str, Any]({call: {"enabled": False} for call in CALLS})
    calls["user_terminals"] = {"enabled": True, "interval": "1d"}
    port = mosquitto.free_port()
    with tempfile.TemporaryDirectory() as directory, flushes.examined() as examined:
        database = Path(directory) / "bridge.db"
        async with api() as listing, mosquitto.run_mosquitto(port):
            records = sum(len(msgspec.json.decode(page, type=list[msgspec.Raw])) for page in pages)
            listing.show(pages, records, polls.PAGE)
            config = harness.bridge_yaml(
                Path(directory), listing.url, port, polling=calls, homeassistant={"enabled": False}
            )
            async with harness.running(config, **examined.environment), asyncio.timeout(SNAPSHOT_TIMEOUT_S):
                await _until_published(database, records)
                yield examined.count(), standing(database).head


async def _until_published(database: Path, records: int) -> None:
    """Waits until all that a first snapshot brings is out, and nothing more comes."""
    while not _is_published(database, records):
        await asyncio.sleep(LOOK_S)


def _is_published(database: Path, records: int) -> bool:
    try:
        now = standing(database)
    except sqlite3.OperationalError:
        # It is being made.
        return False
    return now.head >= records and now.is_at_rest


async def rows(scope: Scope) -> AsyncIterator[Row]:
    """Row 15."""
    try:
        yield await _slow_disk_row(scope)
        terminals = scope.of(10_000)
        async with _snapshot(terminals) as (count, messages):
            yield Row(
                number="15",
                what=f"flushes in a first snapshot of {spelled(terminals)}",
                goal=MAX_FLUSHES,
                unit="flushes",
                measured=count,
                note=f"{spelled(messages)} rows of the journal; counted from the start of the process",
            )
    except flushes.NoCompiler as missing:
        yield Row(number="15", what="flushing to the disk", trouble=f"{missing}.")


def main(arguments: list[str]) -> int:
    """Drains once, in a process of its own."""
    port, count, topics = (int(argument) for argument in arguments)
    clock = Clock()
    asyncio.run(drains.ours(port, count, topics, clock))
    print(clock.wall)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
