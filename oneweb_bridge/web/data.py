"""The routes that read: what they ask of the database, and in which form they answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from oneweb_bridge.clock import Clock, SteadyTime
from oneweb_bridge.config.schema import Config
from oneweb_bridge.config.write import reading_hash
from oneweb_bridge.model.exploration import Exploration
from oneweb_bridge.model.status import Info
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.store.errors import StoreDamaged, StoreError, StoreUnavailable
from oneweb_bridge.store.exploration_file import read_exploration
from oneweb_bridge.store.places import Place
from oneweb_bridge.store.query_thread import QueryThread
from oneweb_bridge.store.reading import EventFilter, Queries
from oneweb_bridge.web import calls, fleet, fleet_metrics, views
from oneweb_bridge.web.access import DATA, FLEET_METRICS, Refusal
from oneweb_bridge.web.answers import COMPRESS_FROM_BYTES, BadRequest, json_response, refuse
from oneweb_bridge.web.health import Health
from oneweb_bridge.web.payloads import BridgeAnswer, CallsAnswer, ExplorationAnswer, Readiness

RECENT_MS = 86_400_000
FLEET_AGE_S = 1.0
MAX_PAGE = 500
PAGE = 100
KINDS = ("added", "changed", "removed")
ENTITIES = ("terminal", "product", "organization", "site")
RETRY_AFTER_S = 5
_CHANGED = (
    "The bridge now has another configuration than the one that this is about: restart the bridge if its file was "
    "changed since it started, else run explore again. What explore said then:"
)
_READERS: dict[str, Callable[[Queries, str], Any]] = {
    "terminals": views.read_terminal,
    "products": views.read_product,
    "organizations": views.read_organization,
    "sites": views.read_site,
}


TimeRange = Callable[[str | float | None, str | float | None, float], tuple[int, int]]
"""Understands `since` and `until`, given the seconds since the epoch; gives ms. Raises ValueError."""


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """What the console shows of a running bridge."""

    queries: QueryThread
    poller: Poller
    tree: TopicTree
    health: Health
    info: Callable[[], Awaitable[Info]]
    config: Callable[[], Config]
    clock: Clock
    steady: SteadyTime
    place: Place
    trends: Place
    time_range: TimeRange
    openapi: Callable[[], Mapping[str, Any]]


class DataRoutes:
    """Everything that the console shows, read when it is asked for."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._queries = sources.queries
        self._fleet: tuple[float, fleet.EncodedFleet] | None = None
        self._fleet_lock = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        routes = [
            web.get(f"{DATA}/bridge", self._send_bridge),
            web.get(f"{DATA}/fleet", self._send_fleet),
            *(web.get(f"{DATA}/{kind}/{{id:.*}}", partial(self._send_record, kind)) for kind in _READERS),
            web.get(f"{DATA}/tree", self._send_tree),
            web.get(f"{DATA}/calls", self._send_calls),
            web.get(f"{DATA}/events", self._send_events),
            web.get(f"{DATA}/alerts", self._send_alerts),
            web.get(f"{DATA}/exploration", self._send_exploration),
            web.get(f"{DATA}/openapi.json", self._send_openapi),
            web.get(FLEET_METRICS, self._send_fleet_metrics),
        ]
        return [web.RouteDef(r.method, r.path, answers_unavailable(r.handler), r.kwargs) for r in routes]

    async def bridge(self) -> BridgeAnswer:
        """State, readiness and recent alerts. Raises StoreUnavailable."""
        rows = await self._queries.run(lambda queries: queries.alerts_since(self._sources.clock.now() - RECENT_MS))
        ready = await self._sources.health.parts()
        return BridgeAnswer(
            info=await self._sources.info(),
            ready=Readiness(api=ready.api, broker=ready.broker, journal=ready.journal),
            alerts=views.alert_entries(rows),
        )

    async def _send_bridge(self, request: web.Request) -> web.StreamResponse:
        read_query(request)
        return json_response(await self.bridge())

    async def _send_fleet(self, request: web.Request) -> web.StreamResponse:
        read_query(request)
        # Who comes while it is made waits for it; nobody has it made twice within a second.
        async with self._fleet_lock:
            if self._fleet is None or time.monotonic() - self._fleet[0] >= FLEET_AGE_S:
                self._fleet = await self._read_fleet()
        encoded = self._fleet[1]
        if "gzip" in request.headers.get("Accept-Encoding", "").casefold():
            response = web.Response(body=encoded.compressed, content_type="application/json")
            response.headers["Content-Encoding"] = "gzip"
        else:
            plain = await asyncio.to_thread(encoded.decompress)
            response = web.Response(body=plain, content_type="application/json")
        response.headers["Vary"] = "Accept-Encoding"
        return response

    async def _read_fleet(self) -> tuple[float, fleet.EncodedFleet]:
        """The table, and when it was asked for."""
        now, before = time.monotonic(), None if self._fleet is None else self._fleet[1]
        return now, await self._queries.run(lambda queries: fleet.encode_fleet(queries, self._sources.tree, before))

    async def _send_record(self, kind: str, request: web.Request) -> web.StreamResponse:
        read_query(request)
        id = request.match_info["id"]
        answer = await self._queries.run(lambda queries: _READERS[kind](queries, id))
        if answer is None:
            return refuse(Refusal(404, f"there is no record of this id among the {kind}"))
        return json_response(answer)

    async def _send_tree(self, request: web.Request) -> web.StreamResponse:
        read_query(request)
        return json_response(await self._queries.run(views.read_tree))

    async def _send_calls(self, request: web.Request) -> web.StreamResponse:
        read_query(request)
        holding = calls.holding_calls(self._sources.poller)
        stored = await self._queries.run(lambda queries: calls.read_stored_calls(queries, holding))
        return json_response(self._calls(stored))

    def _calls(self, stored: calls.StoredCalls) -> CallsAnswer:
        limit = calls.hourly_limit(self._sources.config().api.rate_limit)
        return calls.calls_answer(self._sources.poller, stored, limit, self._sources.clock, self._sources.steady)

    async def _send_events(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, "before", "limit", "entity", "id", "kind")
        wanted = EventFilter(
            before=read_number(query, "before", None, 1, 1 << 62),
            limit=read_number(query, "limit", PAGE, 1, MAX_PAGE) or PAGE,
            entity=read_choice(query, "entity", ENTITIES),
            id=query.get("id"),
            kind=read_choice(query, "kind", KINDS),
        )
        return json_response(
            await self._queries.run(lambda queries: views.read_events(queries, self._sources.tree, wanted))
        )

    async def _send_alerts(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, "before", "limit", "kind")
        before, limit = (
            read_number(query, "before", None, 1, 1 << 62),
            read_number(query, "limit", PAGE, 1, MAX_PAGE) or PAGE,
        )
        kind = query.get("kind")
        return json_response(await self._queries.run(lambda queries: views.read_alerts(queries, before, kind, limit)))

    async def _send_exploration(self, request: web.Request) -> web.StreamResponse:
        read_query(request)
        exploration = await self._queries.run(lambda _: _read_exploration(self._sources.place))
        if exploration is not None and exploration.configuration not in ("", reading_hash(self._sources.config())):
            exploration = msgspec.structs.replace(exploration, conclusion=f"{_CHANGED} {exploration.conclusion}")
        return json_response(ExplorationAnswer(exploration))

    async def _send_fleet_metrics(self, request: web.Request) -> web.StreamResponse:
        read_query(request)
        now = self._sources.clock.now()
        body = await self._queries.run(lambda queries: b"".join(fleet_metrics.write_metrics(queries, now)))
        response = web.Response(
            body=body, headers={"Content-Type": fleet_metrics.CONTENT_TYPE}, zlib_executor_size=COMPRESS_FROM_BYTES
        )
        response.enable_compression()
        return response

    async def _send_openapi(self, request: web.Request) -> web.StreamResponse:
        read_query(request)
        return json_response(self._sources.openapi())


def _read_exploration(place: Place) -> Exploration | None:
    """What explore kept beside the database's file; None where there is none."""
    return read_exploration(place) if isinstance(place, Path) else None


def answers_unavailable(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    """A route that says 503 while the database cannot be read."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except StoreUnavailable as error:
            return refuse(Refusal(503, f"the database cannot be read now: {error}", RETRY_AFTER_S))
        except StoreError as error:
            return refuse(Refusal(503, str(error)))
        except StoreDamaged:
            return refuse(Refusal(503, "the database is damaged: stop the bridge and put a backup in its place"))

    return answer


# ── queries ────────────────────────────────────────────────────────────────────────────────────


def read_query(request: web.Request, *known: str) -> Mapping[str, str]:
    """The parameters of a request, each once. Raises BadRequest for another one."""
    for name in request.query:
        if name not in known:
            expected = f"expected one of {', '.join(known)}" if known else "expected none"
            raise BadRequest(f"unknown parameter {name[:40]!r}: {expected}")
        if len(request.query.getall(name)) > 1:
            raise BadRequest(f"{name}: expected once")
    return dict(request.query)


def read_number(query: Mapping[str, str], name: str, default: int | None, least: int, most: int) -> int | None:
    """A parameter that is a whole number within bounds. Raises BadRequest."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise BadRequest(f"{name}: expected a whole number from {least} to {most}")
    return int(text)


def read_choice(query: Mapping[str, str], name: str, known: tuple[str, ...]) -> str | None:
    """A parameter that is one of a few words; None without it. Raises BadRequest."""
    value = query.get(name)
    if value is not None and value not in known:
        raise BadRequest(f"{name}: expected one of {', '.join(known)}")
    return value
