"""A mosquitto of our own on a free loopback port, for the demo and the tests."""

import asyncio
import contextlib
import os
import random
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from oneweb_bridge.files import refusal_of

PORTS = range(15_000, 32_000)
START_TIMEOUT_S = 30.0
_given: set[int] = set()
"""From which `free_port` takes: below those that systems hand out by themselves."""

_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/bin")


class NoBroker(Exception):
    """There is no mosquitto, or it does not start; the text says what to do."""


def find_mosquitto() -> str | None:
    """Where mosquitto is, also outside a plain user's PATH; ONEWEB_BRIDGE_MOSQUITTO names another one."""
    if named := os.environ.get("ONEWEB_BRIDGE_MOSQUITTO"):
        return named if os.access(named, os.X_OK) else None
    path = os.pathsep.join((os.environ.get("PATH", ""), *_PLACES))
    return shutil.which("mosquitto", path=path)


def demo_config_path() -> Path:
    """The configuration that comes with the project: in the checkout, or in the installed package."""
    here = Path(__file__).parent
    checkout = here.parent.parent / "mosquitto" / "demo.conf"
    return next(path for path in (checkout, here / "demo.conf") if path.exists())


def free_port() -> int:
    """A loopback port that nobody listens on now, and that this process was not given lately.

    Systems do not hand out those of `PORTS` by themselves, so that no connection that is opened meanwhile gets it.
    """
    if len(_given) > len(PORTS) // 2:
        _given.clear()
    while True:
        port = random.choice(PORTS)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port


@contextlib.asynccontextmanager
async def run_mosquitto(port: int, config: Path | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A mosquitto on `port`, until the end of the block. Raises NoBroker."""
    program = find_mosquitto()
    if program is None:
        raise NoBroker("mosquitto is not installed: apt-get install mosquitto")
    try:
        process = await asyncio.create_subprocess_exec(
            program, "-c", str(config or demo_config_path()), "-p", str(port), stderr=asyncio.subprocess.DEVNULL
        )
    except OSError as error:
        raise NoBroker(f"{program} cannot be started ({refusal_of(error)}): install mosquitto anew") from None
    try:
        await _reachable(process, port)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _reachable(process: asyncio.subprocess.Process, port: int) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT_S):
            while process.returncode is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    await writer.wait_closed()
                    return
                await asyncio.sleep(0.02)
    raise NoBroker(f"mosquitto did not start on 127.0.0.1:{port}")
