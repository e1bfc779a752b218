"""What `request/replay` sends again: samples as far back as the trends reach, and events as far as the journal does.

Read page by page in a thread of its own, so that neither memory nor the event loop feels a span of years.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator

import msgspec

from oneweb_bridge.model.records import Row
from oneweb_bridge.store.errors import named_errors
from oneweb_bridge.store.places import Place
from oneweb_bridge.store.threads import open_thread
from oneweb_bridge.trends.chunks import DAY_MS, StreamKey
from oneweb_bridge.trends.items import Item, Selection, iter_items, last_of_each, row_of
from oneweb_bridge.trends.reading import History, open_history
from oneweb_bridge.trends.series import Span

PAGE_ROWS = 500
Pages = AsyncGenerator[list[Row], None]


class ReplayQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Whose past is sent again (None: everybody's), which report (None: all), and which span.

    With `every_ms` only the last sample of each such interval, and no events.
    """

    owner: tuple[str, str] | None
    report: str | None
    span: Span
    every_ms: int | None = None


Replay = Callable[[ReplayQuery], Pages]
"""What reads the past for `request/replay`."""


async def read_pages(database: Place, trends: Place, query: ReplayQuery) -> Pages:
    """Rows as the journal had them, in pages. Raises StoreUnavailable, UnknownEntity and StoreError."""
    loop = asyncio.get_running_loop()
    pages = iter_pages(database, trends, query)
    async with open_thread("replay") as thread:
        try:
            while page := await loop.run_in_executor(thread, next, pages, None):
                yield page
        finally:
            # In the thread that uses it: a replay that is ended while it reads ends after that page.
            thread.submit(pages.close)


def iter_pages(database: Place, trends: Place, query: ReplayQuery) -> Generator[list[Row], None, None]:
    """The same, for the thread itself."""
    with named_errors(), open_history(database, trends) as history:
        page: list[Row] = []
        for row in _iter_rows(history, query):
            page.append(row)
            if len(page) == PAGE_ROWS:
                yield page
                page = []
        if page:
            yield page


def _iter_rows(history: History, query: ReplayQuery) -> Iterator[Row]:
    if query.owner is not None:
        history.require_known(*query.owner)
        items = iter_items(history, Selection(*query.owner, query.span, query.report))
        for item in items if query.every_ms is None else last_of_each(items, query.every_ms):
            yield item.row
        return
    yield from _samples_of_all(history, query)
    if query.every_ms is None:
        yield from (row for row in history.all_events(query.span) if _is_wanted(row, query.report))


def _is_wanted(row: Row, report: str | None) -> bool:
    return report is None or (row.name == report and row.what in ("metric", "history"))


def _samples_of_all(history: History, query: ReplayQuery) -> Iterator[Row]:
    """The samples of every stream: a day of all of them after the other, and of a stream by time."""
    streams = [s for s in history.all_streams() if query.report in (None, s.report)]
    known = history.sample_span()
    if known is None or not streams:
        return
    # Whole intervals in one piece, so that each of them has one last sample.
    every = query.every_ms or DAY_MS
    step = every * -(-DAY_MS // every)
    begin, end = max(known.since, query.span.since), min(known.until, query.span.until)
    for since in range(begin - begin % step, end, step):
        part = Span(max(begin, since), min(end, since + step))
        for stream in streams:
            rows = _samples_of(history, stream, part)
            yield from rows if query.every_ms is None else _last_of_each(rows, query.every_ms)


def _samples_of(history: History, stream: StreamKey, span: Span) -> Iterator[Row]:
    for _, samples in history.read_days(stream, span):
        for index in range(len(samples.ts)):
            yield row_of(stream, samples, index)


def _last_of_each(rows: Iterator[Row], every_ms: int) -> Iterator[Row]:
    for item in last_of_each((Item(row.ts, row.id, row.name, row.body, row) for row in rows), every_ms):
        yield item.row
