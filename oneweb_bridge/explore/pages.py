"""Finds the page style of an API: which small requests to try, and what their answers prove. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from oneweb_bridge.decode.catalogue import PageSettings
from oneweb_bridge.explore.evidence import Paging, Reply, identity

FIRST_LIMIT = 50
"""Limit of records of the first request."""

_OFFSETS = (("start", "count"), ("startIndex", "count"), ("skip", "top"), ("offset", "size"))
_PAGES = (("page", "size"), ("page", "pageSize"), ("pageNumber", "pageSize"), ("page", "limit"), ("page", "per_page"))
_CURSORS = ("cursor", "next", "after", "pageToken", "continuationToken")


class PageAttempt(msgspec.Struct, frozen=True):
    """A small request that would show a page style: its parameters, and the change of `page` that it proves.

    `expects` is the place in the listing at which its answer begins. A try of page numbers tells by it
    whether the first page is 0 or 1.
    """

    params: dict[str, str]
    change: dict[str, Any]
    how: str
    expects: tuple[int, ...] = (1,)


def first_params(page: PageSettings) -> dict[str, str]:
    """Parameters of the first request."""
    return {page.limit_param: str(FIRST_LIMIT)} if page.style != "none" else {}


def first_attempt(page: PageSettings) -> PageAttempt:
    """Two records from behind the first, in the way that the configuration has."""
    if page.style == "page_size":
        return _page_attempt(page.page_param, page.size_param)
    return _offset_attempt(page.offset_param, page.limit_param, {})


def other_attempts(page: PageSettings, reply: Reply, count: int) -> Iterator[PageAttempt]:
    """What else to try. Signs in `reply`, which gave the first `count` records, come before guesses."""
    cursor = _cursor(reply.body)
    if cursor is not None:
        path, value = cursor
        for name in _CURSORS:
            change = {"style": "cursor", "cursor_param": name, "cursor_path": path}
            params = {page.limit_param: str(FIRST_LIMIT), name: value}
            yield PageAttempt(params, _without_defaults(change), "cursor", (count,))
    yield from _link_attempts(page, reply, count)
    for offset, limit in _OFFSETS:
        yield _offset_attempt(offset, limit, {"offset_param": offset, "limit_param": limit})
    yield from (_page_attempt(number, size) for number, size in _PAGES)


def _page_attempt(number: str, size: str) -> PageAttempt:
    change = {"style": "page_size", "page_param": number, "size_param": size}
    return PageAttempt({number: "2", size: "2"}, _without_defaults(change), "page_size", (2, 4))


def _offset_attempt(offset: str, limit: str, change: dict[str, Any]) -> PageAttempt:
    return PageAttempt({offset: "1", limit: "2"}, _without_defaults(change), "offset_limit")


def _link_attempts(page: PageSettings, reply: Reply, count: int) -> Iterator[PageAttempt]:
    """The next page's address shows the names of its parameters."""
    link = reply.next_page
    if link is None:
        return
    new = {name: value for name, value in parse_qsl(urlsplit(link).query) if name not in reply.params}
    offsets = [name for name, value in new.items() if value == str(count)]
    if page.offset_param in dict(parse_qsl(urlsplit(link).query)) and page.offset_param not in reply.params:
        offsets = [page.offset_param, *offsets]
    limits = [name for name, value in new.items() if value.isdecimal() and name not in offsets[:1]]
    for offset in offsets[:1]:
        limit = (limits or [page.limit_param])[0]
        yield _offset_attempt(offset, limit, {"offset_param": offset, "limit_param": limit})
    yield PageAttempt(new, {"style": "link_next"}, "link_next", (count,))


def _cursor(body: Any) -> tuple[str, str] | None:
    """Path and value of what looks like a cursor in an answer."""
    if not isinstance(body, dict):
        return None
    for name, value in body.items():
        folded = name.casefold().replace("_", "")
        if isinstance(value, dict):
            below = _cursor(value)
            if below is not None:
                return f"{name}.{below[0]}", below[1]
        elif isinstance(value, str) and value and "://" not in value and _is_cursor(folded):
            return name, value
    return None


def _is_cursor(folded: str) -> bool:
    return folded in ("next", "cursor", "after") or folded.endswith(("cursor", "token"))


def _without_defaults(change: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in change.items() if getattr(PageSettings(), name) != value}


def change_proved_by(
    attempt: PageAttempt, first: Sequence[Any], page_items: Sequence[Any], answer_items: Sequence[Any]
) -> dict[str, Any] | None:
    """The change of `page` that an answer to a try proves, or None when it proves nothing.

    `first` is the listing from its begin, `shown` the part of it from which a cursor or link goes on.
    """
    before, after = [identity(item) for item in first], [identity(item) for item in answer_items]
    if not after or after[0] == before[0]:
        return None
    if attempt.how in ("cursor", "link_next"):
        return attempt.change if after[0] not in [identity(item) for item in page_items] else None
    for expected in attempt.expects:
        if after == before[expected : expected + len(after)] and len(after) <= 2:
            zero = attempt.how == "page_size" and expected == 4
            return attempt.change | ({"first_page": 0} if zero else {})
    return None


def conclude_paging(
    page: PageSettings, reply: Reply, count: int, proved: tuple[PageAttempt, dict[str, Any]] | None
) -> Paging:
    """The conclusion about pages. `proved` is None when no attempt proved a style."""
    if proved is not None:
        attempt, change = proved
        change = {name: value for name, value in change.items() if getattr(page, name) != value}
        return Paging(attempt.how, change, f"pages by {attempt.how}")
    if count < 3:
        return Paging("", {}, "too few records to tell the page style")
    if reply.total is not None and reply.total > count:
        return Paging(
            "", {}, f"the page style is not known: {count} of {reply.total} came, and nothing gave the others"
        )
    change = {} if page.style == "none" else {"style": "none"}
    return Paging("none", change, "no pages: everything comes at once")
