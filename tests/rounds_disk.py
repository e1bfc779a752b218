"""Rounds in which the disk, the database's file, or the clock is at fault."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests import harness
from tests.fault_bench import RoundResult, Stage, set_up


async def _asked_for_more(stage: Stage, seconds: float) -> None:
    """Polls, changes and commands, while something is wrong."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for terminal in stage.api.truth("terminals"):
            stage.api.fleet("rename", id=terminal["id"], name=f"T{stage.chance.randint(1, 1 << 20)}" + "y" * 900)
        stage.api.advance(20)
        await harness.publish(stage.port, "oneweb/bridge/polling/all/poll")
        await harness.publish(
            stage.port, "oneweb/bridge/polling/sites/interval/set", f"{stage.chance.randint(60, 600)}"
        )
        await asyncio.sleep(0.7)


async def disk_full(directory: Path, seed: int) -> RoundResult:
    """There is no room for the database any more; health says so; then there is room again."""
    if seed % 2 and (place := _small_disk(directory)) is not None:
        with _mounted(place):
            return await _full(directory, seed, place)
    return await _full(directory, seed, None)


def _small_disk(directory: Path) -> Path | None:
    """A file system of 24 MB, where one may be mounted."""
    place = directory / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        place.rmdir()
        return None
    return place


@contextlib.contextmanager
def _mounted(place: Path) -> Iterator[None]:
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


async def _full(directory: Path, seed: int, disk: Path | None) -> RoundResult:
    flag = directory / "full"
    async with set_up(directory, seed) as stage:
        state = {} if disk is None else {"path": str(disk / "bridge.db")}
        await stage.start(None if disk else {"full_while": str(flag)}, state=state)
        await stage.wait_until_at_rest()
        filler = flag if disk is None else disk / "filler"
        _fill(filler, disk)
        work = asyncio.create_task(_asked_for_more(stage, stage.chance.choice((8.0, 25.0))))
        await stage.until_ready("journal", is_well=False, patience=30.0)
        await work
        filler.unlink()
        stage.mended()
        result = await stage.finish()
        stage.expect(result.recovery <= 30.0, f"all was right only {result.recovery:.0f} s after the disk had room")
        await stage.until_ready("journal", is_well=True)
        return result


def _fill(filler: Path, disk: Path | None) -> None:
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while disk is not None:
            file.write(b"\0" * 65536)


async def corrupt(directory: Path, seed: int) -> RoundResult:
    """The file is damaged, cut or replaced while the bridge is down: one sentence and exit code 1, no traceback."""
    async with set_up(directory, seed) as stage:
        await stage.start()
        await stage.wait_until_at_rest()
        await stage.stop()
        path, whole = directory / "bridge.db", (directory / "bridge.db").read_bytes()
        pages = bytearray(whole)
        for at in range(4096, len(pages), 4096):
            pages[at : at + 200] = stage.chance.randbytes(200)
        for broken in (b"this is no database" * 500, b"\0" * len(whole), bytes(pages)):
            path.write_bytes(broken)
            code, _, output = await harness.command("run", "-c", str(stage.config()))
            last = output.strip().splitlines()[-1]
            stage.expect(code == 1 and last.startswith("oneweb-bridge: "), f"exit code {code}: {output[-300:]}")
            stage.expect("Traceback" not in output, f"a traceback: {output[-300:]}")
        for leftover in directory.glob("bridge.db-*"):
            leftover.unlink()
        path.write_bytes(whole)
        stage.mended()
        await stage.start()
        return await stage.finish()


async def stopped_for_two_hours(directory: Path, seed: int) -> RoundResult:
    """The process is stopped, and two hours later goes on: no burst of polls, nothing is removed too early."""
    async with set_up(directory, seed, report_period=1.0) as stage:
        clock = _Clock(directory)
        await clock.start(stage)
        await stage.wait_until_at_rest()
        stage.bridge.signal(signal.SIGSTOP)
        await asyncio.sleep(2.0)
        stage.api.advance(7_200)
        stage.proxy.sever()
        clock.set(7_200)
        before = stage.api.requests()["total"]
        stage.bridge.signal(signal.SIGCONT)
        await asyncio.sleep(5.0)
        requests = stage.api.requests()["total"] - before
        stage.expect(requests < 60, f"{requests} requests in the 5 s after a stop of two hours")
        clock.set(0)
        stage.mended()
        return await stage.finish()


class _Clock:
    """The bridge's wall clock. Not libfaketime, whose waits on a monotonic clock break those of Python."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "clock"
        self.set(0)

    def set(self, offset: int) -> None:
        """Makes the clock wrong by that many seconds."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(str(offset))
        fresh.rename(self._path)

    async def start(self, stage: Stage) -> None:
        """Starts the bridge under this clock."""
        await stage.start({"clock": str(self._path)})
