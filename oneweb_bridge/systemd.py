"""Notifies systemd that the bridge is ready and makes progress. Source: sd_notify(3)."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable

from oneweb_bridge.files import refusal_of

_log = logging.getLogger("oneweb_bridge.notify")


def notify_systemd(state: str) -> bool:
    """Sends one state to systemd if NOTIFY_SOCKET is set. False when the socket cannot be used; never waits."""
    socket_path = os.environ.get("NOTIFY_SOCKET")
    if not socket_path:
        return True
    address = "\0" + socket_path[1:] if socket_path.startswith("@") else socket_path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            # A systemd that does not read must not stop the bridge.
            sender.setblocking(False)
            sender.connect(address)
            sender.send(state.encode())
    except OSError as error:
        _log.debug("NOTIFY_SOCKET %s cannot be used: %s", socket_path, refusal_of(error))
        return False
    return True


async def keep_watchdog(alive: Callable[[], bool]) -> None:
    """Notifies the watchdog at half its period, as long as `alive` is true. Never returns."""
    is_reached = _check_reached(is_reached=notify_systemd("READY=1"), before=True)
    period = _half_watchdog()
    while True:
        await asyncio.sleep(period or 3600.0)
        if period and alive():
            is_reached = _check_reached(is_reached=notify_systemd("WATCHDOG=1"), before=is_reached)


def _check_reached(*, is_reached: bool, before: bool) -> bool:
    """Logs once when systemd cannot be reached any more."""
    if before and not is_reached:
        _log.warning("systemd cannot be told how the bridge is, because its NOTIFY_SOCKET cannot be used")
    return is_reached


def _half_watchdog() -> float:
    """Half the watchdog's period in seconds; 0 when there is no watchdog."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 2_000_000 if text.isascii() and text.isdecimal() and len(text) < 18 else 0.0
