"""The HTTP server of the bridge: health and metrics for everybody, and the console behind its access rules."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from aiohttp import web
from aiohttp.typedefs import Middleware

from oneweb_bridge.web.access import MAX_BODY_BYTES
from oneweb_bridge.web.connections import MAX_IDLE_S, Connections, accept_connections, max_connections
from oneweb_bridge.web.console import Console
from oneweb_bridge.web.health import Health

CLOSING_S = 1.0
"""Seconds that requests under way have at the end."""


@contextlib.asynccontextmanager
async def serve_http(health: Health, address: tuple[str, int], console: Console | None = None) -> AsyncIterator[int]:
    """Serves on `address` while the block runs, and gives the port. Raises OSError when it is taken."""
    guards = [] if console is None else [console.guard]
    routes = [*health.routes(), *([] if console is None else console.routes())]
    async with serve_routes(routes, address, guards) as port:
        yield port


@contextlib.asynccontextmanager
async def serve_routes(
    routes: Iterable[web.RouteDef], address: tuple[str, int], guards: Iterable[Middleware] = ()
) -> AsyncIterator[int]:
    """Serves routes behind `guards` as `serve_http` does: so many connections at a time, and none that stays idle."""
    held = Connections(max_connections())
    site = web.Application(middlewares=[held.middleware, *guards], client_max_size=MAX_BODY_BYTES)
    site.on_response_prepare.append(_hide_server)
    site.add_routes(routes)
    runner = web.AppRunner(
        site, access_log=None, keepalive_timeout=MAX_IDLE_S, shutdown_timeout=CLOSING_S, handler_cancellation=True
    )
    await runner.setup()
    try:
        assert runner.server is not None  # noqa: S101 -- made by setup
        async with accept_connections(address, runner.server, held) as port:
            yield port
    finally:
        # A request that hangs is no reason to fail: it ends with the process.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * CLOSING_S):
                await runner.cleanup()


async def _hide_server(_: web.Request, response: web.StreamResponse) -> None:
    """Which versions run here is nobody's business."""
    response.headers.popall("Server", None)
