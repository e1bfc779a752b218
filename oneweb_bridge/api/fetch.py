"""The fetch step of a call: which requests make its listing, and the records page by page.

A step is a function from `Errand` to pages; `STEPS` names them, and `polling.<call>.fetch` chooses.
A new way of asking is one more step, and nothing else changes.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from urllib.parse import quote

import msgspec

from oneweb_bridge.api import headers, paging, report_jobs
from oneweb_bridge.api.answers import Answer
from oneweb_bridge.api.client import ApiClient
from oneweb_bridge.api.errors import ApiError, BadAnswer
from oneweb_bridge.api.listing import ListingPage, digest
from oneweb_bridge.decode.border import BadPage, Unreadable
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.pages import (
    check_count,
    clean_body,
    expand_tables,
    merge_rows,
    merges_rows,
    split_answer_about,
    split_page,
    value_at,
)
from oneweb_bridge.decode.record_hashes import RecordHasher, Salt
from oneweb_bridge.decode.sizes import MAX_MADE_BYTES

_log = logging.getLogger("oneweb_bridge.fetch")


class FetchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be fetched: a call, the parameters of its window, and the ids it is asked for one by one.

    `cached_ids` gives the keys of a page, by its digest, whose records are all as they are stored.
    """

    call: Call
    hasher: RecordHasher
    salt: Salt
    cached_ids: Callable[[bytes], list[str] | None] = lambda _: None
    params: Mapping[str, str] = {}
    for_each: tuple[str, ...] | None = None


Step = Callable[[ApiClient, FetchRequest], AsyncGenerator[ListingPage, None]]
SendGet = Callable[[str, Mapping[str, str]], Awaitable[Answer]]


async def fetch_pages(api: ApiClient, errand: FetchRequest) -> AsyncGenerator[ListingPage, None]:
    """The pages of a whole listing by the call's own step. Raises ApiError, and BadAnswer when incomplete.

    Where rows of one key make a record together, they are held until the last of them is there.
    """
    pages = FETCH_METHODS[errand.call.fetch](api, errand)
    async with contextlib.aclosing(_gathered(pages, errand) if merges_rows(errand.call) else pages) as wanted:
        async for page in wanted:
            yield page


async def _gathered(
    pages: AsyncGenerator[ListingPage, None], errand: FetchRequest
) -> AsyncGenerator[ListingPage, None]:
    rows = _RowMerger(errand)
    async with contextlib.aclosing(pages):
        async for page in pages:
            rows.take(page)
    for ids in rows.slices():
        yield await asyncio.to_thread(rows.page, ids)


class _Target(msgspec.Struct, frozen=True):
    """What one request asks for; `id` where it is about one terminal or product."""

    path: str
    query: dict[str, str]
    id: str | None = None


def _targets(errand: FetchRequest) -> list[_Target]:
    """What to ask for: the call's path and query once, or once for each id."""
    path, query = errand.call.path, {**errand.call.query, **errand.params}
    if errand.for_each is None:
        return [_Target(path, query)]
    return [
        _Target(
            _fill_placeholder(path, quote(id, safe="")),
            {name: _fill_placeholder(said, id) for name, said in query.items()},
            id,
        )
        for id in errand.for_each
    ]


def _fill_placeholder(text: str, id: str) -> str:
    return text.replace("{ut_id}", id).replace("{product_id}", id)


async def fetch_with_get(api: ApiClient, errand: FetchRequest) -> AsyncGenerator[ListingPage, None]:
    """Plain GETs. Where there is one for each id, an id that is refused or not known costs its own rows alone."""
    targets, refusals = _targets(errand), _Refusals()
    for target in targets:
        try:
            ask = functools.partial(api.get, empty_status=errand.call.empty_status)
            async with contextlib.aclosing(_pages(api, ask, errand, target)) as pages:
                async for page in pages:
                    yield page
            refusals.in_a_row = 0
        except ApiError as error:
            refusals.add(error, target.id, len(targets))
    if refusals.count:
        yield ListingPage([], [], 0, None, unanswered=refusals.count, reason=refusals.first)


MAX_REFUSALS_IN_A_ROW = 3
"""After so many server errors one after the other it is the server that fails, not what is known of an id."""


class _Refusals:
    """The ids of a call that were refused while others were not."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""
        self.in_a_row = 0

    def add(self, error: ApiError, id: str | None, requests: int) -> None:
        """Counts a refusal, or raises it again where it is not about one id: refused for all, or a failing server."""
        status = error.status or 0
        if id is None or not (status in (403, 404) or status >= 500):
            raise error
        self.count += 1
        self.in_a_row += status >= 500
        if self.count == requests or self.in_a_row > MAX_REFUSALS_IN_A_ROW:
            raise error
        self.first = self.first or f"{id}: {error}"


async def fetch_requested_report(api: ApiClient, errand: FetchRequest) -> AsyncGenerator[ListingPage, None]:
    """A report that has to be requested: POST the request, ask until it is ready, then read it like any listing.

    An answer to the POST that is the report itself is read at once.
    """
    for target in _targets(errand):
        answer = await api.request("POST", target.path, body=msgspec.json.encode(target.query))
        if report_jobs.is_report(answer):
            page, _ = await asyncio.to_thread(_read_page, answer, errand, target.id)
            yield page
            continue
        made = _Target(report_jobs.report_url(answer, api.url(target.path)), {}, target.id)
        ask = functools.partial(report_jobs.wait_until_ready, api, errand.call)
        async with contextlib.aclosing(_pages(api, ask, errand, made)) as pages:
            async for page in pages:
                yield page


FETCH_METHODS: dict[str, Step] = {"get": fetch_with_get, "request": fetch_requested_report}


async def _pages(
    api: ApiClient, ask_for: SendGet, errand: FetchRequest, target: _Target
) -> AsyncGenerator[ListingPage, None]:
    path, listing = target.path, paging.Paging(errand.call.page, api.url(target.path))
    while (ask := listing.ask) is not None:
        answer = await ask_for(ask.url or path, {} if ask.url else {**target.query, **ask.params})
        if answer.status == 202:
            raise BadAnswer(f"{path}: the answer is still being made; fetch: request may be what is needed")
        page, count = await asyncio.to_thread(_read_page, answer, errand, target.id)
        try:
            used = listing.took(_page_result(answer, errand.call, page, count))
        except paging.Incomplete as error:
            text = f"{path}: the listing is not complete: {error}{_advice(error, answer, errand.call)}"
            raise BadAnswer(text, answer.body) from None
        if used:
            yield msgspec.structs.replace(page, unpaged=listing.unpaged)
        elif listing.unpaged:
            yield ListingPage([], [], page.unreadable, page.time, unpaged=True, reason=page.reason)


class _RowMerger:
    """The rows of a listing by their key, in the order in which the keys were seen."""

    def __init__(self, errand: FetchRequest) -> None:
        self._errand = errand
        self._rows: dict[str, list[msgspec.Raw]] = {}
        self._size = 0
        self._sum = ListingPage([], [], 0, None)

    def take(self, page: ListingPage) -> None:
        """Keeps the rows of one page."""
        for id, raw in zip(page.ids, page.raws(), strict=True):
            self._rows.setdefault(id, []).append(raw)
            self._size += len(memoryview(raw))
        if self._size > MAX_MADE_BYTES:
            path = self._errand.call.path
            raise BadAnswer(f"{path}: rows of one listing that belong together have more than {MAX_MADE_BYTES} bytes")
        unpaged, time = self._sum.unpaged or page.unpaged, self._sum.time or page.time
        unreadable, reason = self._sum.unreadable + page.unreadable, self._sum.reason or page.reason
        unanswered = self._sum.unanswered + page.unanswered
        self._sum = ListingPage([], [], unreadable, time, unpaged, reason=reason, unanswered=unanswered)

    def slices(self) -> Iterator[list[str]]:
        """The keys in slices; one at least, so that an empty listing is told."""
        ids = list(self._rows)
        for start in range(0, len(ids) or 1, _SLICE):
            yield ids[start : start + _SLICE]

    def page(self, ids: list[str]) -> ListingPage:
        """A page with one record for each key."""
        page, self._sum = self._sum, msgspec.structs.replace(self._sum, unreadable=0, unanswered=0)
        records, unreadable, reason = {}, page.unreadable, page.reason
        for id in ids:
            try:
                records[id] = merge_rows(self._rows.pop(id))
            except Unreadable as error:
                unreadable, reason = unreadable + 1, reason or f"{id}: {error}"
                _log.debug("%s: %s is set aside", self._errand.call.id, id, exc_info=error)
        hashes = _hashes(records, records.values(), self._errand)
        return msgspec.structs.replace(
            page, ids=list(records), hashes=hashes, records=list(records.values()), unreadable=unreadable, reason=reason
        )


_SLICE = 1000


def _advice(error: paging.Incomplete, answer: Answer, call: Call) -> str:
    if not error.about_total:
        return ""
    if not answer.lines(call.page.total_header):
        return " (by its header Content-Range)"
    key = f"polling.{call.id}.page.total_header"
    return (
        f" (by its header {call.page.total_header}: where that counts something else, set {key} to another, or to '')"
    )


def _page_result(answer: Answer, call: Call, page: ListingPage, count: int) -> paging.PageResult:
    following, readable = headers.next_pages(answer.lines("Link"), answer.url)
    cursor, doubt = _next_cursor(answer, call, count) if call.page.style == "cursor" else (None, "")
    if not readable and call.page.style == "link_next":
        doubt = "its Link header cannot be read"
    total = headers.whole_number(answer.lines(call.page.total_header))
    return paging.PageResult(
        count=count,
        # Rows of one key may stand on several pages; what may not come twice is the row.
        ids=list(dict.fromkeys(seen.hex() for seen in page.hashes)) if merges_rows(call) else page.ids,
        total=headers.whole_length(answer.lines("Content-Range")) if total is None else total,
        next_links=following,
        next_cursor=cursor,
        is_part=answer.status == 206,
        doubt=doubt,
    )


def _next_cursor(answer: Answer, call: Call, count: int) -> tuple[str | None, str]:
    """The cursor of the next page, and why this answer cannot say that there is none."""
    cursor = value_at(answer.body, call.page.cursor_path)
    if cursor is None or cursor is False or cursor == "":
        proves_end = answer.body.lstrip()[:1] == b"{" or count < call.page.limit
        return None, "" if proves_end else f"a list has no place for the cursor '{call.page.cursor_path}'"
    if isinstance(cursor, (str, int)) and cursor is not True:
        return str(cursor), ""
    return None, f"its cursor '{call.page.cursor_path}' is neither a text nor a number"


def _read_page(answer: Answer, errand: FetchRequest, id: str | None = None) -> tuple[ListingPage, int]:
    """One page, and how many items the server counts in it; `id` is what it was requested for. Raises BadAnswer."""
    call = errand.call
    try:
        if (seen := _hash_whole_page(answer, errand)) is not None:
            return seen, len(seen.ids)
        page = split_page(answer.body, call.records) if id is None else split_answer_about(id, answer.body, call)
        records = expand_tables(call, page.records)
    except BadPage as error:
        raise BadAnswer(f"{call.path}: {error}", answer.body) from None
    return _hash_each_record(records, answer, errand), page.count


def _hash_whole_page(answer: Answer, errand: FetchRequest) -> ListingPage | None:
    """A page of records that is known by its bytes, or looked at in one piece; None when neither can be."""
    if errand.call.reads == "report" or merges_rows(errand.call):
        return None
    seen_as = digest(answer.body)
    if (ids := errand.cached_ids(seen_as)) is not None:
        return ListingPage(ids, [], 0, answer.time, digest=seen_as, from_cache=True)
    body = clean_body(answer.body)
    seen = errand.hasher.hash_page(body, errand.salt)
    if seen is None or not seen[0]:
        return None
    check_count(len(seen[0]))
    return ListingPage(*seen, 0, answer.time, body=body, digest=seen_as)


def _hash_each_record(records: list[msgspec.Raw], answer: Answer, errand: FetchRequest) -> ListingPage:
    call, ids, readable, reason = errand.call, [], [], ""
    for raw in records:
        try:
            ids.append(errand.hasher.key(raw))
            readable.append(raw)
        except Unreadable as error:
            reason = reason or str(error)
            _log.debug("%s: a record is set aside", call.id, exc_info=error)
    unreadable = len(records) - len(ids)
    if unreadable and not ids:
        raise BadAnswer(
            f"{call.path}: none of {unreadable} records has a readable {' and '.join(call.key)}", answer.body
        )
    if merges_rows(call):
        hashes = [errand.salt.hash(id, (raw,)) for id, raw in zip(ids, readable, strict=True)]
    else:
        hashes = _hashes(ids, readable, errand)
    return ListingPage(ids, hashes, unreadable, answer.time, records=readable, reason=reason)


def _hashes(ids: Iterable[str], raws: Iterable[msgspec.Raw], errand: FetchRequest) -> list[bytes]:
    """The hashes of records one by one; samples have none, because they are compared by their times."""
    if errand.call.reads == "report":
        return []
    return errand.salt.hashes(ids, errand.hasher.hashed_members(list(raws)))
