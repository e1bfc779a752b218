"""The control endpoint: the simulator's own, without sign-in, below /_control."""

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from .clock import http_date
from .simulator import Simulator

PREFIX = "/_control"

_CHUNK = 1000  # objects built before other requests get a turn


async def control(simulator: Simulator, request: web.Request) -> web.StreamResponse:
    """Answer a request below the prefix; 400 with a sentence if it cannot be done."""
    try:
        document = await _obey(simulator, request)
    except ValueError as error:
        return _json(simulator, 400, {"error": str(error)})
    if document is None:
        return _json(simulator, 404, {"error": f"no {request.method} {request.path}"})
    return _json(simulator, 200, document)


async def _obey(simulator: Simulator, request: web.Request) -> Any:  # noqa: PLR0911  # one row per path
    match request.method, request.path.removeprefix(PREFIX):
        case "POST", "/fault":
            simulator.fault(**await _members(request, "kind"))
            return {}
        case "DELETE", "/fault":
            simulator.clear_faults()
            return {}
        case "POST", "/fleet":
            return simulator.fleet(**await _members(request, "op"))
        case "POST", "/freeze":
            return simulator.freeze(bool((await _members(request)).get("on", True)))
        case "POST", "/time":
            return simulator.advance(_number((await _members(request, "advance"))["advance"]))
        case "GET", "/time":
            return simulator.time()
        case "GET", "/requests":
            return simulator.requests()
        case "GET", "/truth":
            return await _truth(simulator, request.query.get("kind", ""))
        case _:
            return None


async def _truth(simulator: Simulator, kind: str) -> list[Any]:
    """All objects as of one time, without keeping other requests waiting."""
    at = simulator.world.clock.now()
    items: list[Any] = []
    while True:
        part = simulator.truth(kind, len(items), len(items) + _CHUNK, at)
        items.extend(part)
        if len(part) < _CHUNK:
            return items
        await asyncio.sleep(0)


async def _members(request: web.Request, needed: str | None = None) -> dict[str, Any]:
    try:
        members = msgspec.json.decode(await request.read() or b"{}", type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"the body must be a JSON object: {error}.") from None
    if needed is not None and needed not in members:
        raise ValueError(f"the body needs a member {needed}.")
    return members


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("advance must be a number of seconds, 0 or more.")  # noqa: TRY004  # a user's mistake
    return float(value)


def _json(simulator: Simulator, status: int, document: Any) -> web.Response:
    headers = {"Date": http_date(simulator.world.clock.now())}
    body = msgspec.json.encode(document)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
