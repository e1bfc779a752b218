"""The routes of trends: a span of one report as lines to draw, and as CSV with every sample."""

import asyncio
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Literal, cast

import msgspec
from aiohttp import web

from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.encoding import encode
from oneweb_bridge.store.errors import named_errors
from oneweb_bridge.store.places import Place
from oneweb_bridge.store.threads import open_thread
from oneweb_bridge.trends.chunks import USAGE, StreamKey
from oneweb_bridge.trends.items import Item, Selection, iter_items
from oneweb_bridge.trends.lines import CSV_HEAD, csv_lines, values_of
from oneweb_bridge.trends.reading import History, open_history
from oneweb_bridge.trends.series import DEFAULT_POINTS, Indicator, Series, SeriesQuery, ShowAs, Span
from oneweb_bridge.web.access import DATA, Refusal
from oneweb_bridge.web.answers import BadRequest, json_bytes_response, refuse
from oneweb_bridge.web.data import Sources, answers_unavailable, read_choice, read_number, read_query

PARAMETERS = ("entity", "id", "report", "names", "since", "until", "points", "as")
ENTITIES = ("terminal", "product", "usage")
MIN_POINTS, MAX_POINTS = 10, 10_000
MAX_DOWNLOADS = 3
"""Downloads of CSV at a time: each has a thread of its own, because its client may read slowly."""
PAGE_LINES = 2000
WRITE_TIMEOUT_S = 30.0
RETRY_AFTER_S = 5
FREE_S, WORK_S, REST_S = 0.012, 0.0003, 0.0002
"""A read of more than FREE_S rests after each WORK_S, for REST_S: else a commit takes twice as long meanwhile.

The interpreter changes between threads that calculate after 0.5 ms only, and a commit waits for it at each of its rows.
"""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for, with the call that the report comes from."""

    query: SeriesQuery
    call: Call

    @property
    def selection(self) -> Selection:
        """The same for reading every sample."""
        stream = self.query.stream
        return Selection(stream.entity, stream.id, self.query.span, stream.report)


class UnknownId(Exception):
    """Nothing is known of the id."""


class SeriesRoutes:
    """Reads journal and trends. `headers_of` gives the headers of an answer."""

    def __init__(self, sources: Sources, headers_of: Callable[[web.Request], Mapping[str, str]]) -> None:
        self._sources = sources
        self._places = sources.place, sources.trends
        self._headers_of = headers_of
        self._downloads = 0

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.get(f"{DATA}/series", answers_unavailable(self._send_series)),
            web.get(f"{DATA}/series.csv", answers_unavailable(self._send_csv), allow_head=False),
        ]

    # ── what is asked for ──────────────────────────────────────────────────────────────────────

    def _wanted(self, request: web.Request) -> Wanted:
        given = read_query(request, *PARAMETERS)
        entity, id, report = (read_choice(given, "entity", ENTITIES), given.get("id"), given.get("report"))
        if entity is None or not id or not report:
            raise BadRequest("expected entity, id and report, like entity=terminal&id=…&report=signal_quality")
        call = self._call_of(entity, report)
        query = SeriesQuery(
            stream=StreamKey(entity, id, report),
            span=self._span(given),
            names=tuple(given["names"].split(",")) if given.get("names") else None,
            points=read_number(given, "points", DEFAULT_POINTS, MIN_POINTS, MAX_POINTS) or DEFAULT_POINTS,
            show_as=cast("ShowAs", read_choice(given, "as", ("rate", "raw", "total")) or "rate"),
            indicators={field.name: Indicator(field.unit, _kind_of(field.type, field.kind)) for field in call.fields},
            lateness=call.lateness,
        )
        return Wanted(query=query, call=call)

    def _call_of(self, entity: str, report: str) -> Call:
        calls = self._sources.config().polling.values()
        reports = {USAGE if call.entity == USAGE else call.report: call for call in calls if call.entity == entity}
        reports.pop("", None)
        if report not in reports:
            raise BadRequest(f"report: a {entity} has no such one, expected one of {', '.join(sorted(reports))}")
        return reports[report]

    def _span(self, given: Mapping[str, str]) -> Span:
        since, until = given.get("since") or "24h", given.get("until") or "0s"
        try:
            return Span(*self._sources.time_range(since, until, self._sources.clock.wall()))
        except ValueError as error:
            raise BadRequest(str(error)) from None

    # ── lines ──────────────────────────────────────────────────────────────────────────────────

    async def _send_series(self, request: web.Request) -> web.StreamResponse:
        wanted = self._wanted(request)
        reading = _Reading(self._places)
        try:
            series, body = await self._sources.queries.call(lambda: reading.series(wanted.query), reading.interrupt)
        except UnknownId:
            return _unknown(wanted)
        _check_names(wanted, series)
        return json_bytes_response(body)

    # ── CSV ────────────────────────────────────────────────────────────────────────────────────

    async def _send_csv(self, request: web.Request) -> web.StreamResponse:
        wanted = self._wanted(request)
        if self._downloads >= MAX_DOWNLOADS:
            return refuse(Refusal(503, f"{MAX_DOWNLOADS} downloads are under way: wait for one to end", RETRY_AFTER_S))
        self._downloads += 1
        try:
            async with open_thread("csv") as thread:
                return await self._stream_csv(request, wanted, thread)
        except UnknownId:
            return _unknown(wanted)
        finally:
            self._downloads -= 1

    async def _stream_csv(self, request: web.Request, wanted: Wanted, thread: ThreadPoolExecutor) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        pages = iter_csv_pages(self._places, wanted)
        try:
            page = await loop.run_in_executor(thread, next, pages, b"")
            _check_csv_names(wanted, page)
            response = web.StreamResponse(headers={**self._headers_of(request), **_csv_headers(wanted)})
            await response.prepare(request)
            while page:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await response.write(page)
                page = await loop.run_in_executor(thread, next, pages, b"")
            return response
        finally:
            # In the thread that uses it, after the page that it may be reading.
            thread.submit(pages.close)


class Rests:
    """Called often while a span is read: lets the other threads of the process work, `REST_S` after each `WORK_S`."""

    def __init__(self) -> None:
        self._begun = time.thread_time() + FREE_S

    def __call__(self) -> None:
        """Rests, if there was work enough."""
        if time.thread_time() - self._begun >= WORK_S:
            time.sleep(REST_S)
            self._begun = time.thread_time()


class _Reading:
    """One read of both files, which another thread may interrupt."""

    def __init__(self, files: tuple[Place, Place | None]) -> None:
        self._places = files
        self._history: History | None = None

    def interrupt(self) -> None:
        """Ends the read."""
        if self._history is not None:
            self._history.interrupt()

    def series(self, query: SeriesQuery) -> tuple[Series, bytes]:
        """The lines, and their JSON. Raises UnknownId."""
        with open_history(*self._places, rest=Rests()) as history:
            self._history = history
            if history.known_span(query.stream.entity, query.stream.id) is None:
                raise UnknownId
            series = history.read_series(query)
            return series, encode(series)


def iter_csv_pages(files: tuple[Place, Place | None], wanted: Wanted) -> Generator[bytes, None, None]:
    """Every sample of a span, as `history --csv --report` writes it, in pages of lines. Raises UnknownId."""
    stream, names = wanted.query.stream, wanted.query.names
    with named_errors(), open_history(*files) as history:
        if history.known_span(stream.entity, stream.id) is None:
            raise UnknownId
        items = iter_items(history, wanted.selection)
        lines = (line for item in items for name, line in _named_lines(item) if names is None or name in names)
        head = CSV_HEAD
        while page := list(islice(lines, PAGE_LINES)):
            yield "".join(f"{line}\n" for line in ([head, *page] if head else page)).encode()
            head = ""


def _named_lines(item: Item) -> Iterator[tuple[str, str]]:
    return zip(values_of(item) or [""], csv_lines(item), strict=True)


def _kind_of(type_: str, kind: str) -> Literal["gauge", "cumulative", "delta", "text"]:
    return cast("Literal['gauge', 'cumulative', 'delta', 'text']", kind if type_ == "number" else "text")


def _check_names(wanted: Wanted, series: Series) -> None:
    """Refuses names that neither the call nor any sample of the span has."""
    known = {field.name for field in wanted.call.fields}
    for line in series.series:
        values = line.v if isinstance(line.v, list) else line.mean
        if wanted.query.names and line.name not in known and not any(v is not None for v in values or []):
            raise BadRequest(f"names: {wanted.query.stream.report} has no {line.name[:64]!r}")


def _check_csv_names(wanted: Wanted, first_page: bytes) -> None:
    """The same of lines: each sample has all names, so that the first page has those of the span."""
    known, text = {field.name for field in wanted.call.fields}, first_page.decode()
    for name in wanted.query.names or ():
        if name not in known and f",{name}," not in text:
            raise BadRequest(f"names: {wanted.query.stream.report} has no {name[:64]!r}")


def _unknown(wanted: Wanted) -> web.Response:
    return refuse(Refusal(404, f"nothing is known of a {wanted.query.stream.entity} of this id"))


def _csv_headers(wanted: Wanted) -> dict[str, str]:
    name = f"{wanted.query.stream.id}-{wanted.query.stream.report}.csv"
    plain = "".join(c if c.isascii() and (c.isalnum() or c in ".-_") else "_" for c in name)[-100:]
    return {
        "Content-Type": "text/csv; charset=utf-8; header=present",
        "Content-Disposition": f'attachment; filename="{plain}"',
    }
