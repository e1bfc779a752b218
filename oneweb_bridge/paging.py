"""How a listing comes in pages, and when it is complete. Pure: answers in, the next question out.

A listing is complete or it is nothing, because what it lacks would be taken for removed. It is
complete when its totals agree, or when the page behind the last one is empty; nothing in it comes
twice. A server that does not page at all is recognised and said so in `unpaged`.
Source: TMF630 (offset, limit, X-Total-Count), RFC 8288 (Link).
"""

import re
from collections.abc import Sequence
from urllib.parse import urljoin, urlsplit

import msgspec

from oneweb_bridge.catalogue import Page


class Incomplete(Exception):
    """The pages of a listing do not make a whole; the text says why."""


class Ask(msgspec.Struct, frozen=True):
    """The next request of a listing: parameters to add, or the address to use instead."""

    params: dict[str, str] = {}
    url: str | None = None


class Got(msgspec.Struct, frozen=True, kw_only=True):
    """One answered page: how many items, with which ids, and what its headers and body say of the others."""

    count: int
    ids: Sequence[str]
    total: int | None = None
    next_link: str | None = None
    next_cursor: str | None = None


class Paging:
    """The state of one listing. `ask` is the next request, or None when the listing is complete."""

    def __init__(self, page: Page, url: str) -> None:
        self.unpaged = False
        self._page = page
        self._url = url
        self._origin = urlsplit(url)[:2]
        self._pages = 0
        self._received = 0
        self._total: int | None = None
        self._first: tuple[str, ...] = ()
        self._ids: set[str] = set()
        self._visited: set[str] = set()
        self.ask: Ask | None = self._first_ask()

    def took(self, got: Got) -> bool:
        """Goes on to the next page. False when this page must not be used. Raises Incomplete."""
        self._pages += 1
        self._check_total(got)
        if self._is_first_again(got):
            self.unpaged, self.ask = True, None
            return False
        self._check_repeats(got)
        self._received += got.count
        if self._pages == 1:
            self._first = tuple(got.ids)
        self.ask = self._next_ask(got)
        if self.ask is None:
            self._check_whole()
        elif self._pages >= self._page.max_pages:
            raise Incomplete(f"the listing has more than {self._page.max_pages} pages")
        return True

    def _first_ask(self) -> Ask:
        page = self._page
        match page.style:
            case "offset_limit":
                return Ask({page.offset_param: "0", page.limit_param: str(page.limit)})
            case "page_size":
                return Ask({page.page_param: str(page.first_page), page.size_param: str(page.limit)})
            case "cursor":
                return Ask({page.limit_param: str(page.limit)})
            case "none" | "link_next":
                return Ask()

    def _next_ask(self, got: Got) -> Ask | None:
        page = self._page
        match page.style:
            case "offset_limit" if self._more(got):
                return Ask({page.offset_param: str(self._received), page.limit_param: str(page.limit)})
            case "page_size" if self._more(got):
                number = page.first_page + self._pages
                return Ask({page.page_param: str(number), page.size_param: str(page.limit)})
            case "link_next" if got.next_link:
                return Ask(url=self._same_origin(got.next_link))
            case "cursor" if got.next_cursor:
                self._visit(got.next_cursor)
                return Ask({page.limit_param: str(page.limit), page.cursor_param: got.next_cursor})
        return None

    def _more(self, got: Got) -> bool:
        if self._total is not None:
            self.unpaged = self._pages == 1 and self._page.limit < got.count == self._total
            return self._received < self._total and got.count > 0
        return got.count > 0

    def _check_total(self, got: Got) -> None:
        if got.total is None:
            return
        if self._total is not None and got.total != self._total:
            raise Incomplete(f"the total changed from {self._total} to {got.total} while the pages were read")
        self._total = got.total

    def _is_first_again(self, got: Got) -> bool:
        """Whether a server shows the same again because it knows no pages. A full page proves nothing."""
        if self._page.style not in ("offset_limit", "page_size") or got.count == self._page.limit:
            return False
        return self._pages == 2 and self._total is None and got.count > 0 and tuple(got.ids) == self._first

    def _check_repeats(self, got: Got) -> None:
        again = self._ids.intersection(got.ids)
        if again:
            raise Incomplete(f"page {self._pages} shows {min(again)!r} again")
        self._ids.update(got.ids)

    def _check_whole(self) -> None:
        if self._total is not None and self._received != self._total:
            raise Incomplete(f"the server says {self._total} records and showed {self._received}")

    def _same_origin(self, link: str) -> str:
        try:
            url = urljoin(self._url, link)
            elsewhere = urlsplit(url)[:2] != self._origin
        except ValueError:
            raise Incomplete("the next page has no readable address") from None
        if elsewhere:
            raise Incomplete("the next page is on another server")
        self._visit(url)
        return url

    def _visit(self, place: str) -> None:
        if place in self._visited:
            raise Incomplete("the next page is one that was read before")
        self._visited.add(place)


_LINK = re.compile(r'<([^>]*)>\s*;[^,]*\brel\s*=\s*"?next"?', re.IGNORECASE)


def next_link(header: str | None) -> str | None:
    """The address of the next page in a Link header. Source: RFC 8288."""
    found = _LINK.search(header) if header and len(header) < 16_384 else None
    return found[1] if found else None


def total_of(header: str | None) -> int | None:
    """The number in a total header, or None when there is none that can be read."""
    return int(header) if header and header.strip().isdecimal() and len(header) < 12 else None
