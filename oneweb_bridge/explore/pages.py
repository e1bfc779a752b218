"""Finds the page style of an API: what shows that there is more, and which styles to try. Pure.

Nothing is concluded from one answer: a style is proposed when the whole listing, read with it, has more records.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from oneweb_bridge.decode.catalogue import PageSettings
from oneweb_bridge.decode.paths import fold_name
from oneweb_bridge.explore.evidence import Reply

Change = dict[str, Any]

_OFFSETS = (("start", "count"), ("startIndex", "count"), ("skip", "top"), ("$skip", "$top"), ("offset", "size"))
_PAGES = (("page", "size"), ("page", "pageSize"), ("pageNumber", "pageSize"), ("page", "limit"), ("page", "per_page"))
_CURSORS = ("cursor", "next", "after", "pageToken", "page_token", "continuationToken", "token")
_TOTALS = frozenset(
    ("total", "totalcount", "totalelements", "totalitems", "totalresults", "totalrecords", "recordcount", "count")
)
_MORE = frozenset(("hasmore", "hasnext", "hasnextpage", "more", "moreresults", "istruncated"))
FULL_PAGES = frozenset((5, 10, 20, 25, 30, 50, 100, 200, 250, 500, 1000, 2000, 5000))
"""Sizes that pages usually have: a listing of just so many records may be the first page of a longer one."""
USUAL_SIZE = "is a usual size of a page"
LIMITS = (500, 200, 100, 50, 20, 10)
MAX_DEPTH = 3


def evidence_of_more(reply: Reply, count: int, *, unpaged: bool) -> str:
    """Why an answer is not the whole listing although `count` records came in all; "" when nothing says so."""
    for name, total in [*reply.totals, *_totals(reply.body)]:
        if total > count:
            return f"'{name}' says {total}"
    if reply.is_part:
        return "its status is 206"
    if reply.next_page is not None:
        return "its Link header names a next page"
    if _says_more(reply.body, word=False) is None and (cursor := next(_cursors(reply.body), None)) is not None:
        return f"'{cursor[0]}' names a next page"
    if (member := _says_more(reply.body)) is not None:
        return f"'{member}' says that there is more"
    return f"{count} {USUAL_SIZE}" if unpaged and count in FULL_PAGES else ""


def _totals(body: Any, above: str = "", depth: int = 0) -> Iterator[tuple[str, int]]:
    for name, value in _members(body):
        if fold_name(name) in _TOTALS and isinstance(value, int) and not isinstance(value, bool):
            yield f"{above}{name}", value
        elif depth < MAX_DEPTH:
            yield from _totals(value, f"{above}{name}.", depth + 1)


def _says_more(body: Any, depth: int = 0, *, word: bool = True) -> str | None:
    """The member that says that there is more or, where `word` is false, that there is not."""
    for name, value in _members(body):
        if fold_name(name) in _MORE and value is word:
            return name
        if depth < MAX_DEPTH and (inner := _says_more(value, depth + 1, word=word)) is not None:
            return inner
    return None


def _members(body: Any) -> list[tuple[str, Any]]:
    """The members of an object that is no record."""
    if not isinstance(body, dict) or "id" in body:
        return []
    return [(name, value) for name, value in body.items() if len(name) < 60]


def _cursors(body: Any, above: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Path and value of what looks like a cursor, or like the address of the next page."""
    for name, value in _members(body):
        folded, path = fold_name(name).rpartition(".")[2], _path(above, name)
        if isinstance(value, str) and value and _is_cursor(folded, above):
            yield path, value
        elif isinstance(value, dict) and depth < MAX_DEPTH:
            yield from _cursors(value, f"{path}.", depth + 1)


def _path(above: str, name: str) -> str:
    return f'{above.removesuffix(".")}["{name}"]' if "." in name else f"{above}{name}"


def _is_cursor(folded: str, above: str) -> bool:
    is_next = folded in ("next", "cursor", "after", "nextlink", "nextpage", "nexturl") or "next." in above.casefold()
    return (is_next or folded.endswith(("cursor", "token"))) and not folded.startswith("prev")


PROBES = (
    dict.fromkeys(("limit", "count", "size", "pageSize", "per_page", "top", "$top", "maxResults"), "1"),
    dict.fromkeys(("offset", "start", "startIndex", "skip", "$skip"), "1") | dict.fromkeys(("page", "pageNumber"), "2"),
)
"""Parameters of two requests that a server which pages in any usual way answers otherwise."""


def page_changes(page: PageSettings, reply: Reply, count: int, hints: list[Change]) -> Iterator[Change]:
    """Changes of `page` to try, those that the answer or another call points to before guesses."""
    tried: list[Change] = []
    for change in _candidates(reply, count, hints):
        different = {name: value for name, value in change.items() if getattr(page, name) != value}
        if different and different not in tried:
            tried.append(different)
            yield different


def _candidates(reply: Reply, count: int, hints: list[Change]) -> Iterator[Change]:
    yield from _cursor_changes(reply, count)
    if reply.next_page is not None:
        yield {"style": "link_next"}
        yield from _changes_of_address(reply.next_page, reply.params, count)
    yield from hints
    for offset, limit in _OFFSETS:
        yield {"style": "offset_limit", "offset_param": offset, "limit_param": limit}
    for number, size in _PAGES:
        for first in (1, 0):
            yield {"style": "page_size", "page_param": number, "size_param": size, "first_page": first}


def _cursor_changes(reply: Reply, count: int) -> Iterator[Change]:
    for path, value in _cursors(reply.body):
        if value.startswith(("http://", "https://", "/")):
            yield {"style": "cursor", "cursor_path": path}
            yield from _changes_of_address(value, reply.params, count)
        else:
            for name in dict.fromkeys((path.rpartition(".")[2], *_CURSORS)):
                yield {"style": "cursor", "cursor_path": path, "cursor_param": name}


def _changes_of_address(address: str, sent: Mapping[str, str], count: int) -> Iterator[Change]:
    """The address of the next page shows the names of its parameters: which of them counts records or pages."""
    params = dict(parse_qsl(urlsplit(address).query))
    numbers = {name: int(value) for name, value in params.items() if re.fullmatch(r"\d{1,9}", value)}
    sizes = [name for name in numbers if re.search(r"limit|size|count|per|top|max", name, re.IGNORECASE)]
    for name, number in numbers.items():
        if name in sizes or sent.get(name) == params[name]:
            continue
        limit = {"limit_param": sizes[0]} if sizes else {}
        if number == count:
            yield {"style": "offset_limit", "offset_param": name, **limit}
        if number in (1, 2):
            size = {"size_param": sizes[0]} if sizes else {}
            yield {"style": "page_size", "page_param": name, **size, "first_page": number - 1}


def refusal_changes(page: PageSettings, text: str) -> Iterator[Change]:
    """Changes of `page` to try where a request was refused: smaller pages, then no parameters of pages."""
    named = [int(number) for number in re.findall(r"(?<![\w.-])\d{1,4}(?![\w.-])", text) if int(number) > 0]
    limits = [*sorted((n for n in named if n < page.limit and n not in range(400, 600)), reverse=True), *LIMITS]
    if page.style not in {"none", "link_next"}:
        yield from ({"limit": limit} for limit in dict.fromkeys(limits) if limit < page.limit)
    yield {"style": "page_size"}
    yield {"style": "none"}
