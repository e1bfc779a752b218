"""How a listing comes in pages, and when it is complete. Pure: answers in, the next question out.

A listing is complete or it is nothing, because what it lacks would be taken for removed. It is
complete when its totals agree, when the page behind the last one is empty, or when a well-formed
answer names no next page; nothing in it comes twice, and no answer says that there is more. A server
that does not page at all is recognised and said so in `unpaged`.
Source: TMF630 (offset, limit, X-Total-Count, 206), RFC 8288 (Link), RFC 9110 (Content-Range).
"""

from collections.abc import Sequence

import msgspec

from oneweb_bridge.api import headers
from oneweb_bridge.decode.catalogue import PageSettings

MAX_RECORDS = 1_000_000
"""Records of a listing, above which it is given up: their ids are held until its end."""


class Incomplete(Exception):
    """The pages of a listing do not make a whole; the text says why. `about_total`: its total is the reason."""

    def __init__(self, message: str, *, about_total: bool = False) -> None:
        super().__init__(message)
        self.about_total = about_total


class PageRequest(msgspec.Struct, frozen=True):
    """The next request of a listing: parameters to add, or the address to use instead."""

    params: dict[str, str] = {}
    url: str | None = None


class PageResult(msgspec.Struct, frozen=True, kw_only=True):
    """One answered page: how many items, with which ids, and what its headers and body say of the others.

    `is_part`: its status says that it is not all. `doubt`: why it cannot say that there is no next page.
    """

    count: int
    ids: Sequence[str]
    total: int | None = None
    next_links: Sequence[str] = ()
    next_cursor: str | None = None
    is_part: bool = False
    doubt: str = ""


class Paging:
    """The state of one listing. `ask` is the next request, or None when the listing is complete."""

    def __init__(self, page: PageSettings, url: str) -> None:
        self.unpaged = False
        self._page = page
        self._url = url
        self._origin = headers.origin(url)
        self._pages = 0
        self._received = 0
        self._total: int | None = None
        self._first: tuple[str, ...] = ()
        self._ids: set[str] = set()
        self._visited: set[str] = set()
        self.ask: PageRequest | None = self._first_ask()

    def took(self, got: PageResult) -> bool:
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
            self._check_whole(got)
        elif len(self._ids) > MAX_RECORDS:
            raise Incomplete(f"the listing has more than {MAX_RECORDS} records")
        elif self._pages >= self._page.max_pages:
            raise Incomplete(f"the listing has more than {self._page.max_pages} pages")
        return True

    def _first_ask(self) -> PageRequest:
        page = self._page
        match page.style:
            case "offset_limit":
                return PageRequest({page.offset_param: "0", page.limit_param: str(page.limit)})
            case "page_size":
                return PageRequest({page.page_param: str(page.first_page), page.size_param: str(page.limit)})
            case "cursor":
                return PageRequest({page.limit_param: str(page.limit)})
            case "none" | "link_next":
                return PageRequest()

    def _next_ask(self, got: PageResult) -> PageRequest | None:
        page = self._page
        match page.style:
            case "offset_limit" if self._more(got):
                return PageRequest({page.offset_param: str(self._received), page.limit_param: str(page.limit)})
            case "page_size" if self._more(got):
                number = page.first_page + self._pages
                return PageRequest({page.page_param: str(number), page.size_param: str(page.limit)})
            case "link_next" if got.next_links:
                if len(got.next_links) > 1:
                    raise Incomplete("an answer names several next pages")
                return PageRequest(url=self._same_origin(got.next_links[0]))
            case "cursor" if got.next_cursor:
                self._visit(got.next_cursor)
                return PageRequest({page.limit_param: str(page.limit), page.cursor_param: got.next_cursor})
        return None

    def _more(self, got: PageResult) -> bool:
        if self._total is not None:
            self.unpaged = self._pages == 1 and self._page.limit < got.count == self._total
            return got.count > 0 and (self._received < self._total or bool(got.next_links))
        return got.count > 0

    def _check_total(self, got: PageResult) -> None:
        if got.total is None:
            return
        if self._total is not None and got.total != self._total:
            text = f"the total changed from {self._total} to {got.total} while the pages were read"
            raise Incomplete(text, about_total=True)
        self._total = got.total

    def _is_first_again(self, got: PageResult) -> bool:
        """Whether a server shows the same again because it knows no pages. A full page proves nothing."""
        if self._page.style not in ("offset_limit", "page_size") or got.count == self._page.limit:
            return False
        again = self._pages == 2 and self._total is None and got.count > 0 and tuple(got.ids) == self._first
        return again and not got.next_links

    def _check_repeats(self, got: PageResult) -> None:
        again = self._ids.intersection(got.ids)
        if again:
            raise Incomplete(f"page {self._pages} shows {min(again)!r} again")
        self._ids.update(got.ids)

    def _check_whole(self, got: PageResult) -> None:
        if self._total is not None and self._received != self._total:
            text = f"the server says {self._total} records and showed {self._received}"
            raise Incomplete(text, about_total=True)
        if got.count == 0 and self._page.style in ("offset_limit", "page_size"):
            return
        if got.next_links:
            raise Incomplete("an answer names a next page that page.style does not follow")
        if self._total is None and got.doubt:
            raise Incomplete(f"nothing says that there is no next page: {got.doubt}")
        if self._total is None and got.is_part and self._pages == 1:
            raise Incomplete("the server says with status 206 that this is a part, and names no next page")

    def _same_origin(self, link: str) -> str:
        try:
            url = headers.resolve(self._url, link)
            elsewhere = headers.origin(url) != self._origin
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
