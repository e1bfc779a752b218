"""Telling systemd: what it hears, and that the bridge goes on when nobody listens."""

import asyncio
import contextlib
import logging
import socket
from pathlib import Path

import pytest

from oneweb_bridge import systemd


async def watched_for(seconds: float) -> None:
    """The watchdog for some time; it must not end by itself."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await systemd.keep_watchdog(lambda: True)
            raise AssertionError


async def test_systemd_hears_that_the_bridge_is_ready_and_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """READY once, then WATCHDOG at half the time that systemd waits."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "socket"))
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "socket"))
        receiver.settimeout(5)
        watching = asyncio.create_task(watched_for(30))
        received = [await asyncio.to_thread(receiver.recv, 100) for _ in range(3)]
        watching.cancel()
    assert received == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]


def fill(place: Path) -> None:
    """Sends to a socket that nobody reads until nothing more fits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(BlockingIOError):
        sender.setblocking(False)
        sender.connect(str(place))
        while True:
            sender.send(b"full")


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "oneweb_bridge.notify"]


@pytest.mark.parametrize("kind", ["missing", "gone", "full", "long", "odd"])
async def test_socket_that_cannot_be_used_is_told_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A socket that is gone, that nobody reads, or that is none, costs one line of the log and nothing else."""
    place = tmp_path / ("s" * 120 if kind == "long" else "socket")
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1" if kind == "odd" else str(place))
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver, caplog.at_level(logging.WARNING):
        if kind in ("gone", "full"):
            receiver.bind(str(place))
        if kind == "gone":
            receiver.close()
        if kind == "full":
            fill(place)
        watching = asyncio.create_task(watched_for(30))
        async with asyncio.timeout(20):
            while not warnings_in(caplog):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # some fifty times more, which are not told
        watching.cancel()
    assert warnings_in(caplog) == ["systemd cannot be told how the bridge is, because its NOTIFY_SOCKET cannot be used"]


@pytest.mark.parametrize("text", ["", "x", "-1", "1e9", "9" * 400])
async def test_watchdog_time_that_is_none_is_no_watchdog(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A WATCHDOG_USEC that is no number of microseconds counts as none."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", text)
    await watched_for(0.01)
