"""Accepts TCP connections for the HTTP server: so many at a time, and none that stays idle.

aiohttp neither bounds connections nor cuts one that never asks anything, and asyncio's own accept
loop spins and logs when the process has no descriptor left. So connections are accepted here, one
by one: where all permits are taken the one that has been idle longest makes room, and where
descriptors run out accepting pauses.
"""

import asyncio
import contextlib
import errno
import logging
import resource
import select
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from oneweb_bridge.files import refusal_of

_log = logging.getLogger("oneweb_bridge.http")

MAX_CONNECTIONS = 32
DESCRIPTOR_SHARE = 4
"""At most one of so many descriptors of the process is a connection of a client."""
MAX_IDLE_S = 10.0
"""Seconds from the connection, or its last answer, to the end of its next request's header."""
MAX_WRITE_S = 30.0
"""Seconds that a client may take to read an answer."""
SWEEP_S = 1.0
ACCEPT_PAUSE_S = 1.0
"""Seconds without accepting after the system had no descriptor, or no memory, for a connection."""
BACKLOG = 128
"""Connections that wait in the kernel until they are accepted."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def max_connections() -> int:
    """How many connections the process can afford, by its limit of open descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    affordable = MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else soft // DESCRIPTOR_SHARE
    return max(1, min(MAX_CONNECTIONS, affordable))


class Connections:
    """The open connections: idle ones with the monotonic time since when, and those with a running request."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._idle: dict[asyncio.Transport, float] = {}
        self._busy: set[asyncio.Transport] = set()
        self._changed = asyncio.Event()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Keeps a connection from being cut while its request is answered."""
        transport = request.transport
        if transport is None:
            return await handler(request)
        self._idle.pop(transport, None)
        self._busy.add(transport)
        try:
            return await handler(request)
        finally:
            self._busy.discard(transport)
            self.add(transport)

    def add(self, transport: asyncio.Transport) -> None:
        """Counts a connection as idle from now on."""
        self._idle[transport] = time.monotonic()
        self._changed.set()

    async def make_room(self) -> None:
        """Returns when one more connection is allowed: the one idle longest is cut for it."""
        self._forget_closed()
        while len(self._idle) + len(self._busy) >= self._limit:
            if self._idle:
                self._cut(self._idle_longest())
            else:
                self._changed.clear()
                await self._changed.wait()
            self._forget_closed()

    def cut_idle(self, longer_than: float) -> None:
        """Cuts the connections that have been idle for longer than so many seconds."""
        self._forget_closed()
        now = time.monotonic()
        for transport in [
            transport
            for transport, since in self._idle.items()
            if since <= now - max(longer_than, MAX_WRITE_S if longer_than and _is_read_slowly(transport) else 0.0)
        ]:
            if not (longer_than and _has_unread_bytes(transport)):
                self._cut(transport)

    async def sweep_loop(self) -> None:
        """Cuts what has been idle for too long. Never returns."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.cut_idle(MAX_IDLE_S)

    def _idle_longest(self) -> asyncio.Transport:
        """Where there is a choice, one on which neither a request nor an answer is under way."""
        quiet = (t for t in self._idle if not _is_read_slowly(t) and not _has_unread_bytes(t))
        return next(quiet, next(iter(self._idle)))

    def _forget_closed(self) -> None:
        for transport in [transport for transport in self._idle if transport.is_closing()]:
            del self._idle[transport]
        self._busy = {transport for transport in self._busy if not transport.is_closing()}

    def _cut(self, transport: asyncio.Transport) -> None:
        del self._idle[transport]
        transport.abort()


def _is_read_slowly(transport: asyncio.Transport) -> bool:
    """Whether a client has not read all of its answer yet: then it is not idle."""
    return transport.get_write_buffer_size() > 0


def _has_unread_bytes(transport: asyncio.Transport) -> bool:
    """Whether a client has sent something that was not read yet: mostly a request, which a cut would lose."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    return bool(poll.poll(0))


async def accept_loop(
    listener: socket.socket, make_protocol: Callable[[], asyncio.Protocol], held: Connections
) -> None:
    """Accepts connections one by one, and makes room for each. Never returns."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            accepted, _ = await loop.sock_accept(listener)
        except OSError as error:
            held.cut_idle(0.0)
            _log.warning("a connection cannot be accepted: %s; idle ones are cut", refusal_of(error))
            await asyncio.sleep(ACCEPT_PAUSE_S)
            continue
        try:
            await held.make_room()
            transport, _ = await loop.connect_accepted_socket(make_protocol, accepted)
        except BaseException as error:
            accepted.close()
            if not isinstance(error, OSError):
                raise
        else:
            held.add(transport)


@contextlib.asynccontextmanager
async def accept_connections(
    address: tuple[str, int], make_protocol: Callable[[], asyncio.Protocol], held: Connections
) -> AsyncIterator[int]:
    """Listens on every address of the host while the block runs. Gives the port. Raises OSError when it is taken."""
    async with contextlib.AsyncExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in await _listen(address)]
        tasks = [
            asyncio.create_task(accept_loop(listener, make_protocol, held), name="http accept")
            for listener in listeners
        ]
        tasks.append(asyncio.create_task(held.sweep_loop(), name="http idle"))
        try:
            yield listeners[0].getsockname()[1]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _listen(address: tuple[str, int]) -> list[socket.socket]:
    host, port = address
    addresses = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listeners: list[socket.socket] = []
    problem: OSError | None = None
    for family, socket_address in dict.fromkeys(
        (family, socket_address[:2]) for family, _, _, _, socket_address in addresses
    ):
        try:
            listeners.append(socket.create_server(socket_address, family=family, backlog=BACKLOG))
        except OSError as error:
            problem = error
    # "localhost" may have an address of a protocol that this host has not: one address is enough.
    if problem is not None and (not listeners or problem.errno == errno.EADDRINUSE):
        for listener in listeners:
            listener.close()
        raise problem
    for listener in listeners:
        listener.setblocking(False)
    return listeners
