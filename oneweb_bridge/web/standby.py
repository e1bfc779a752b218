"""Health and metrics of a worker that holds no instance: it stands by, and is well while it reaches the database."""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from oneweb_bridge.config.schema import Config
from oneweb_bridge.files import refusal_of
from oneweb_bridge.store.server import Epochs
from oneweb_bridge.web.health import Role
from oneweb_bridge.web.server import serve_routes

_log = logging.getLogger("oneweb_bridge.http")


@contextlib.asynccontextmanager
async def serve_standby(
    config: Config, worker: str, reaches_database: Callable[[], bool], epochs: Callable[[], Epochs]
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Serves on `http.listen` until the block ends, or what it gives was called. A port that is taken is logged.

    `epochs` are the instances of the worker: one that holds another instance is a leader nevertheless.
    """

    def role() -> Role:
        return "standby" if all(epoch is None for epoch in epochs().values()) else "leader"

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"alive": True, "role": role()})

    async def readyz(_: web.Request) -> web.Response:
        is_ready = reaches_database()
        body = {"role": role(), "database": is_ready}
        return web.json_response(body, status=200 if is_ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        from oneweb_bridge.web import bridge_metrics  # noqa: PLC0415 -- takes a megabyte, which only scrapes need

        families = bridge_metrics.lease_families({config.instance: None, **epochs()})
        body = bridge_metrics.write_metrics(families)
        return web.Response(body=body, headers={"Content-Type": bridge_metrics.CONTENT_TYPE})

    routes = [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(serve_routes(routes, config.http.address()))
        except OSError as error:
            _log.error(
                "%s: http.listen cannot be used (%s): choose another port; until then there is no health endpoint",
                worker,
                refusal_of(error),
            )
        yield stack.aclose
