"""Telling systemd that the bridge is ready, and that it makes progress. Source: sd_notify(3)."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable

_log = logging.getLogger("oneweb_bridge.notify")


def notify_systemd(state: str) -> bool:
    """Sends one state to systemd, if it asked for it. False when its socket cannot be used; never waits for it."""
    place = os.environ.get("NOTIFY_SOCKET")
    if not place:
        return True
    address = "\0" + place[1:] if place.startswith("@") else place
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            # A reader that does not read must not stop the bridge.
            out.setblocking(False)
            out.connect(address)
            out.send(state.encode())
    except OSError as error:
        _log.debug("NOTIFY_SOCKET %s cannot be used: %s", place, error)
        return False
    return True


async def keep_watchdog(alive: Callable[[], bool]) -> None:
    """Says that all is well at half the watchdog's time, as long as `alive` says so. Never returns."""
    reached = _check_reached(reached=notify_systemd("READY=1"), before=True)
    period = _half_watchdog()
    while True:
        await asyncio.sleep(period or 3600.0)
        if period and alive():
            reached = _check_reached(reached=notify_systemd("WATCHDOG=1"), before=reached)


def _check_reached(*, reached: bool, before: bool) -> bool:
    """Tells once when systemd cannot be reached any more."""
    if before and not reached:
        _log.warning("systemd cannot be told how the bridge is, because its NOTIFY_SOCKET cannot be used")
    return reached


def _half_watchdog() -> float:
    """Half the seconds after which systemd misses a word; 0 when it waits for none."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 2_000_000 if text.isascii() and text.isdecimal() and len(text) < 18 else 0.0
