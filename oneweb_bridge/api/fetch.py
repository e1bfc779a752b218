"""Fetches the listing of a call: sends its requests, and gives the records page by page.

A fetch method turns a `FetchRequest` into pages; `polling.<call>.fetch` selects one of FETCH_METHODS.
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
from oneweb_bridge.decode.more_pages import more_pages_of
from oneweb_bridge.decode.pages import (
    EmptyPage,
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
    """A call with the parameters of its window and, for `for_each`, the ids that are requested one by one.

    `cached_ids` gives, by the digest of a page whose records are all unchanged, its keys.
    """

    call: Call
    hasher: RecordHasher
    salt: Salt
    cached_ids: Callable[[bytes], list[str] | None] = lambda _: None
    params: Mapping[str, str] = {}
    for_each: tuple[str, ...] | None = None


FetchMethod = Callable[[ApiClient, FetchRequest], AsyncGenerator[ListingPage, None]]
SendGet = Callable[[str, Mapping[str, str]], Awaitable[Answer]]


async def fetch_pages(api: ApiClient, request: FetchRequest) -> AsyncGenerator[ListingPage, None]:
    """The pages of a whole listing by the call's fetch method. Raises ApiError, and BadAnswer when incomplete.

    Where several rows make one record, they are held until the listing is complete.
    """
    pages = FETCH_METHODS[request.call.fetch](api, request)
    async with contextlib.aclosing(_with_merged_rows(pages, request) if merges_rows(request.call) else pages) as source:
        async for page in source:
            yield page


async def _with_merged_rows(
    pages: AsyncGenerator[ListingPage, None], request: FetchRequest
) -> AsyncGenerator[ListingPage, None]:
    merger = _RowMerger(request)
    async with contextlib.aclosing(pages):
        async for page in pages:
            merger.add(page)
    for ids in merger.slices():
        yield await asyncio.to_thread(merger.merged_page, ids)


class _Target(msgspec.Struct, frozen=True):
    """Path and query of one request; `id` where it is about one terminal or product."""

    path: str
    query: dict[str, str]
    id: str | None = None


def _targets(request: FetchRequest) -> list[_Target]:
    """Path and query of each request: the call's once, or once for each id."""
    path, query = request.call.path, {**request.call.query, **request.params}
    if request.for_each is None:
        return [_Target(path, query)]
    return [
        _Target(
            _fill_placeholder(path, quote(id, safe="")),
            {name: _fill_placeholder(text, id) for name, text in query.items()},
            id,
        )
        for id in request.for_each
    ]


def _fill_placeholder(text: str, id: str) -> str:
    return text.replace("{ut_id}", id).replace("{product_id}", id)


async def fetch_with_get(api: ApiClient, request: FetchRequest) -> AsyncGenerator[ListingPage, None]:
    """Plain GETs. With `for_each`, an id that is refused or unknown costs its own rows alone."""
    targets, refusals = _targets(request), _Refusals()
    for target in targets:
        try:
            send_get = functools.partial(api.get, empty_status=request.call.empty_status)
            async with contextlib.aclosing(_pages(api, send_get, request, target)) as pages:
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


async def fetch_requested_report(api: ApiClient, request: FetchRequest) -> AsyncGenerator[ListingPage, None]:
    """POSTs a report request, polls its URL until it is ready, then reads its pages.

    An answer to the POST that is the report itself is read at once.
    """
    for target in _targets(request):
        body = msgspec.json.encode(target.query)
        answer = await api.request("POST", target.path, body=body, empty_status=request.call.empty_status)
        if report_jobs.is_report(answer):
            page, _ = await asyncio.to_thread(_read_page, answer, request, target.id)
            yield page
            continue
        report_target = _Target(report_jobs.report_url(answer, api.url(target.path)), {}, target.id)
        send_get = functools.partial(report_jobs.wait_until_ready, api, request.call)
        async with contextlib.aclosing(_pages(api, send_get, request, report_target)) as pages:
            async for page in pages:
                yield page


FETCH_METHODS: dict[str, FetchMethod] = {"get": fetch_with_get, "request": fetch_requested_report}


async def _pages(
    api: ApiClient, send_get: SendGet, request: FetchRequest, target: _Target
) -> AsyncGenerator[ListingPage, None]:
    path, page_requests = target.path, paging.Paging(request.call.page, api.url(target.path))
    while (next_request := page_requests.next_request) is not None:
        answer = await send_get(
            next_request.url or path, {} if next_request.url else {**target.query, **next_request.params}
        )
        if answer.status == 202:
            raise BadAnswer(f"{path}: the answer is still being made; fetch: request may be what is needed")
        page, count = await asyncio.to_thread(_read_page, answer, request, target.id, is_first=page_requests.is_first)
        try:
            is_used = page_requests.accept_page(_page_result(answer, request.call, page, count))
        except paging.Incomplete as error:
            text = f"{path}: the listing is not complete: {error}{_total_header_advice(error, answer, request.call)}"
            raise BadAnswer(text, answer.body) from None
        if is_used:
            yield msgspec.structs.replace(page, unpaged=page_requests.unpaged)
        elif page_requests.unpaged:
            yield ListingPage([], [], page.unreadable, page.time, unpaged=True, reason=page.reason)


class _RowMerger:
    """Collects the rows of a listing by key, in the order of the first row of each key."""

    def __init__(self, request: FetchRequest) -> None:
        self._request = request
        self._rows: dict[str, list[msgspec.Raw]] = {}
        self._size = 0
        self._sum = ListingPage([], [], 0, None)

    def add(self, page: ListingPage) -> None:
        """Adds the rows of one page. Raises BadAnswer when they are too many bytes."""
        for id, raw in zip(page.ids, page.raws(), strict=True):
            self._rows.setdefault(id, []).append(raw)
            self._size += len(memoryview(raw))
        if self._size > MAX_MADE_BYTES:
            path = self._request.call.path
            raise BadAnswer(f"{path}: rows of one listing that belong together have more than {MAX_MADE_BYTES} bytes")
        unpaged, time = self._sum.unpaged or page.unpaged, self._sum.time or page.time
        unreadable, reason = self._sum.unreadable + page.unreadable, self._sum.reason or page.reason
        unanswered = self._sum.unanswered + page.unanswered
        self._sum = ListingPage([], [], unreadable, time, unpaged, reason=reason, unanswered=unanswered)

    def slices(self) -> Iterator[list[str]]:
        """The keys in slices; at least one slice, so that an empty listing has a page too."""
        ids = list(self._rows)
        for start in range(0, len(ids) or 1, SLICE_RECORDS):
            yield ids[start : start + SLICE_RECORDS]

    def merged_page(self, ids: list[str]) -> ListingPage:
        """A page with one record for each key."""
        page, self._sum = self._sum, msgspec.structs.replace(self._sum, unreadable=0, unanswered=0)
        records, unreadable, reason = {}, page.unreadable, page.reason
        for id in ids:
            try:
                records[id] = merge_rows(self._rows.pop(id))
            except Unreadable as error:
                unreadable, reason = unreadable + 1, reason or f"{id}: {error}"
                _log.debug("%s: %s is set aside", self._request.call.id, id, exc_info=error)
        hashes = _hashes(records, records.values(), self._request)
        return msgspec.structs.replace(
            page, ids=list(records), hashes=hashes, records=list(records.values()), unreadable=unreadable, reason=reason
        )


SLICE_RECORDS = 1000


def _total_header_advice(error: paging.Incomplete, answer: Answer, call: Call) -> str:
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
    total = headers.agreed_number(answer.lines(call.page.total_header))
    return paging.PageResult(
        count=count,
        # Rows of one key may stand on several pages, but no row may come twice.
        ids=list(dict.fromkeys(row_hash.hex() for row_hash in page.hashes)) if merges_rows(call) else page.ids,
        total=headers.record_count(answer.lines("Content-Range")) if total is None else total,
        next_links=following,
        next_cursor=cursor,
        is_part=answer.status == 206,
        doubt=doubt,
        more=more_pages_of(answer.body),
    )


def _next_cursor(answer: Answer, call: Call, count: int) -> tuple[str | None, str]:
    """The cursor of the next page; where there is none, why this answer does not prove the end."""
    cursor = value_at(answer.body, call.page.cursor_path)
    if cursor is None or cursor is False or cursor == "":
        proves_end = answer.body.lstrip()[:1] == b"{" or count < call.page.limit
        return None, "" if proves_end else f"a list has no place for the cursor '{call.page.cursor_path}'"
    if isinstance(cursor, (str, int)) and cursor is not True:
        return str(cursor), ""
    return None, f"its cursor '{call.page.cursor_path}' is neither a text nor a number"


def _read_page(
    answer: Answer, request: FetchRequest, id: str | None = None, *, is_first: bool = True
) -> tuple[ListingPage, int]:
    """One page, and how many items the server counts in it; `id` is what it was requested for. Raises BadAnswer."""
    call = request.call
    try:
        if (hashed := _hash_whole_page(answer, request)) is not None:
            return hashed, len(hashed.ids)
        page = split_page(answer.body, call.records) if id is None else split_answer_about(id, answer.body, call)
        records = expand_tables(call, page.records)
    except BadPage as error:
        if isinstance(error, EmptyPage) and not is_first:
            return ListingPage([], [], 0, answer.time), 0
        raise BadAnswer(f"{call.path}: {error}", answer.body) from None
    return _hash_each_record(records, answer, request), page.count


def _hash_whole_page(answer: Answer, request: FetchRequest) -> ListingPage | None:
    """A page that is cached by its digest, or hashed as a whole; None when it must be hashed record by record."""
    if request.call.reads == "report" or merges_rows(request.call):
        return None
    page_digest = digest(answer.body)
    if (ids := request.cached_ids(page_digest)) is not None:
        return ListingPage(ids, [], 0, answer.time, digest=page_digest, from_cache=True)
    body = clean_body(answer.body)
    hashed = request.hasher.hash_page(body, request.salt)
    if hashed is None or not hashed[0]:
        return None
    check_count(len(hashed[0]))
    return ListingPage(*hashed, 0, answer.time, body=body, digest=page_digest)


def _hash_each_record(records: list[msgspec.Raw], answer: Answer, request: FetchRequest) -> ListingPage:
    call, ids, readable, reason = request.call, [], [], ""
    for raw in records:
        try:
            ids.append(request.hasher.key(raw))
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
        hashes = [request.salt.hash(id, (raw,)) for id, raw in zip(ids, readable, strict=True)]
    else:
        hashes = _hashes(ids, readable, request)
    return ListingPage(ids, hashes, unreadable, answer.time, records=readable, reason=reason)


def _hashes(ids: Iterable[str], raws: Iterable[msgspec.Raw], request: FetchRequest) -> list[bytes]:
    """The hashes of records; samples have none, because they are compared by their times."""
    if request.call.reads == "report":
        return []
    return request.salt.hashes(ids, request.hasher.hashed_members(list(raws)))
