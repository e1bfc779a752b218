"""Telling systemd that the bridge is ready, and that it makes progress. Source: sd_notify(3)."""

import asyncio
import os
import socket
from collections.abc import Callable


def say(state: str) -> None:
    """Sends one state to systemd, if it asked for it."""
    place = os.environ.get("NOTIFY_SOCKET")
    if not place:
        return
    address = "\0" + place[1:] if place.startswith("@") else place
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.connect(address)
        out.sendall(state.encode())


async def keep_watchdog(alive: Callable[[], bool]) -> None:
    """Says that all is well at half the watchdog's time, as long as `alive` says so. Never returns."""
    say("READY=1")
    period = int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000
    while True:
        await asyncio.sleep(period or 3600.0)
        if period and alive():
            say("WATCHDOG=1")
