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

from oneweb_bridge.api import headers, paging
from oneweb_bridge.api.answers import Answer
from oneweb_bridge.api.client import ApiClient
from oneweb_bridge.api.errors import BadAnswer, NotFound
from oneweb_bridge.api.listing import ListingPage, digest
from oneweb_bridge.decode.border import BadPage, Unreadable
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.pages import (
    check_count,
    clean_body,
    expand_tables,
    merge_rows,
    merges_rows,
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
    path: str
    query: dict[str, str]


def _targets(errand: FetchRequest) -> list[_Target]:
    """What to ask for: the call's path and query once, or once for each id."""
    path, query = errand.call.path, {**errand.call.query, **errand.params}
    if errand.for_each is None:
        return [_Target(path, query)]
    return [
        _Target(
            _fill_placeholder(path, quote(id, safe="")),
            {name: _fill_placeholder(said, id) for name, said in query.items()},
        )
        for id in errand.for_each
    ]


def _fill_placeholder(text: str, id: str) -> str:
    return text.replace("{ut_id}", id).replace("{product_id}", id)


async def fetch_with_get(api: ApiClient, errand: FetchRequest) -> AsyncGenerator[ListingPage, None]:
    """Plain GETs. An id of many that the API does not know has nothing to show; all of them mean a wrong path."""
    targets, unknown = _targets(errand), 0
    for target in targets:
        try:
            ask = functools.partial(api.get, empty_status=errand.call.empty_status)
            async with contextlib.aclosing(_pages(api, ask, errand, target)) as pages:
                async for page in pages:
                    yield page
        except NotFound:
            unknown += 1
            if unknown == len(targets):
                raise


async def fetch_requested_report(api: ApiClient, errand: FetchRequest) -> AsyncGenerator[ListingPage, None]:
    """A report that has to be requested: POST the wish, ask until it is ready, then read it like any listing."""
    for target in _targets(errand):
        answer = await api.request("POST", target.path, body=msgspec.json.encode(target.query))
        made = _Target(_report_url(answer, api.url(target.path)), {})
        ask = functools.partial(_wait_until_ready, api, errand.call)
        async with contextlib.aclosing(_pages(api, ask, errand, made)) as pages:
            async for page in pages:
                yield page


FETCH_METHODS: dict[str, Step] = {"get": fetch_with_get, "request": fetch_requested_report}
_LOOKS, _FIRST_PAUSE, _LONGEST_PAUSE = 60, 0.1, 5.0


async def _wait_until_ready(api: ApiClient, call: Call, path: str, params: Mapping[str, str]) -> Answer:
    """The answer as soon as there is one, asked for in growing steps."""
    for look in range(_LOOKS):
        answer = await api.get(path, params, call.empty_status)
        if answer.status != 202 and not _still_working(answer):
            return answer
        await asyncio.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**look))
    raise BadAnswer(f"{path}: the requested report was not ready after {_LOOKS} looks")


def _report_url(answer: Answer, url: str) -> str:
    """Where a requested report will be; never on another server, which would be given the credentials."""
    url = answer.url or url
    place = answer.headers.get("Location")
    if place is None:
        id = value_at(answer.body, "id")
        if not isinstance(id, (str, int)):
            raise BadAnswer(f"{url}: the requested report has neither a Location header nor an id", answer.body)
        place = f"{url}/{quote(str(id), safe='')}"
    try:
        place = headers.resolve(url, place)
        elsewhere = headers.origin(place) != headers.origin(url)
    except ValueError:
        raise BadAnswer(f"{url}: the requested report has no readable address", answer.body) from None
    if elsewhere:
        raise BadAnswer(f"{url}: the requested report is on another server, which is not asked")
    return place


def _still_working(answer: Answer) -> bool:
    state = value_at(answer.body, "status")
    return isinstance(state, str) and state.casefold() in ("pending", "inprogress", "acknowledged", "running")


async def _pages(
    api: ApiClient, ask_for: SendGet, errand: FetchRequest, target: _Target
) -> AsyncGenerator[ListingPage, None]:
    path, listing = target.path, paging.Paging(errand.call.page, api.url(target.path))
    while (ask := listing.ask) is not None:
        answer = await ask_for(ask.url or path, {} if ask.url else {**target.query, **ask.params})
        if answer.status == 202:
            raise BadAnswer(f"{path}: the answer is still being made; fetch: request may be what is needed")
        page, count = await asyncio.to_thread(_read_page, answer, errand)
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
        self._sum = ListingPage([], [], unreadable, time, unpaged, reason=reason)

    def slices(self) -> Iterator[list[str]]:
        """The keys in slices; one at least, so that an empty listing is told."""
        ids = list(self._rows)
        for start in range(0, len(ids) or 1, _SLICE):
            yield ids[start : start + _SLICE]

    def page(self, ids: list[str]) -> ListingPage:
        """A page with one record for each key."""
        page, self._sum = self._sum, msgspec.structs.replace(self._sum, unreadable=0)
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


def _read_page(answer: Answer, errand: FetchRequest) -> tuple[ListingPage, int]:
    """One page, and how many items the server counts in it. Raises BadAnswer."""
    call = errand.call
    try:
        if (seen := _hash_whole_page(answer, errand)) is not None:
            return seen, len(seen.ids)
        page = split_page(answer.body, call.records)
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
