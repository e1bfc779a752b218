"""Decides which page to request next, and whether the listing is complete. Pure.

An incomplete listing is not used, because a record missing in it would count as removed. A listing is
complete when its totals agree, when the page behind the last one is empty, or when a well-formed
answer names no next page; nothing in it comes twice, and no answer says that there is more. `unpaged`
is true for a server that does not page at all.
Source: TMF630 (offset, limit, X-Total-Count, 206), RFC 8288 (Link), RFC 9110 (Content-Range).
"""

from collections.abc import Sequence

import msgspec

from oneweb_bridge.api import headers
from oneweb_bridge.decode.catalogue import PageSettings
from oneweb_bridge.decode.more_pages import MorePages

MAX_RECORDS = 1_000_000
"""Largest listing: its ids are held in RAM until its end."""


class Incomplete(Exception):
    """The pages are no complete listing; the text says why. `about_total`: because of its total."""

    def __init__(self, message: str, *, about_total: bool = False) -> None:
        super().__init__(message)
        self.about_total = about_total


class PageRequest(msgspec.Struct, frozen=True):
    """The next request of a listing: parameters to add, or the address to use instead."""

    params: dict[str, str] = {}
    url: str | None = None


class PageResult(msgspec.Struct, frozen=True, kw_only=True):
    """One page: its number of items, their ids, and what headers and body say about the other pages.

    `is_part`: its status is 206. `doubt`: why it does not prove that there is no next page. `more` is what stands
    beside the list in the body.
    """

    count: int
    ids: Sequence[str]
    total: int | None = None
    next_links: Sequence[str] = ()
    next_cursor: str | None = None
    is_part: bool = False
    doubt: str = ""
    more: MorePages = MorePages()


class Paging:
    """The state of one listing. `next_request` is None when the listing is complete."""

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
        self.next_request: PageRequest | None = self._first_request()

    @property
    def is_first(self) -> bool:
        """Whether no page was accepted yet."""
        return self._pages == 0

    def accept_page(self, result: PageResult) -> bool:
        """Takes one page and sets `next_request`. False when the page must not be used. Raises Incomplete."""
        self._pages += 1
        self._check_total(result)
        if self._is_first_page_again(result):
            self._check_body(result)
            self.unpaged, self.next_request = True, None
            return False
        self._check_repeats(result)
        self._received += result.count
        if self._pages == 1:
            self._first = tuple(result.ids)
        self.next_request = self._request_after(result)
        if self.next_request is None:
            self._check_whole(result)
        elif len(self._ids) > MAX_RECORDS:
            raise Incomplete(f"the listing has more than {MAX_RECORDS} records")
        elif self._pages >= self._page.max_pages:
            raise Incomplete(f"the listing has more than {self._page.max_pages} pages")
        return True

    def _first_request(self) -> PageRequest:
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

    def _request_after(self, result: PageResult) -> PageRequest | None:
        page = self._page
        match page.style:
            case "offset_limit" if self._has_more(result):
                return PageRequest({page.offset_param: str(self._received), page.limit_param: str(page.limit)})
            case "page_size" if self._has_more(result):
                number = page.first_page + self._pages
                return PageRequest({page.page_param: str(number), page.size_param: str(page.limit)})
            case "link_next" if result.next_links:
                if len(result.next_links) > 1:
                    raise Incomplete("an answer names several next pages")
                return PageRequest(url=self._same_origin(result.next_links[0]))
            case "cursor" if result.next_cursor and _is_address(result.next_cursor):
                return PageRequest(url=self._same_origin(result.next_cursor))
            case "cursor" if result.next_cursor:
                self._visit(result.next_cursor)
                return PageRequest({page.limit_param: str(page.limit), page.cursor_param: result.next_cursor})
        return None

    def _has_more(self, result: PageResult) -> bool:
        if self._total is not None:
            self.unpaged = self._pages == 1 and self._page.limit < result.count == self._total
            return result.count > 0 and (self._received < self._total or bool(result.next_links))
        return result.count > 0

    def _check_total(self, result: PageResult) -> None:
        if result.total is None:
            return
        if self._total is not None and result.total != self._total:
            text = f"the total changed from {self._total} to {result.total} while the pages were read"
            raise Incomplete(text, about_total=True)
        self._total = result.total

    def _is_first_page_again(self, result: PageResult) -> bool:
        """Whether the server returned the first page again because it does not page. A full page proves nothing."""
        if self._page.style not in ("offset_limit", "page_size") or result.count == self._page.limit:
            return False
        is_repeated = self._pages == 2 and self._total is None and result.count > 0 and tuple(result.ids) == self._first
        return is_repeated and not result.next_links

    def _check_repeats(self, result: PageResult) -> None:
        repeated = self._ids.intersection(result.ids)
        if repeated:
            raise Incomplete(f"page {self._pages} shows {min(repeated)!r} again")
        self._ids.update(result.ids)

    def _check_whole(self, result: PageResult) -> None:
        if self._total is not None and self._received != self._total:
            text = f"the server says {self._total} records and showed {self._received}"
            raise Incomplete(text, about_total=True)
        self._check_body(result)
        if result.count == 0 and self._page.style in ("offset_limit", "page_size"):
            return
        if result.next_links:
            raise Incomplete("an answer names a next page that page.style does not follow")
        if self._total is None and result.doubt:
            raise Incomplete(f"nothing says that there is no next page: {result.doubt}")
        if self._total is None and result.is_part and self._pages == 1:
            raise Incomplete("the server says with status 206 that this is a part, and names no next page")

    def _check_body(self, result: PageResult) -> None:
        """The end of a listing must not be contradicted by what stands beside its list, where no header counts it."""
        more = result.more
        if self._total is not None:
            return
        if more.total > self._received and self._page.total_header:
            raise Incomplete(
                f"its member '{more.total_path}' says {more.total} records and {self._received} came; where that "
                "counts something else, set page.total_header of the call to ''"
            )
        # What a style follows says itself whether there is more: against it counts only what is a page by its name.
        next_path = more.page_path if self._page.style in ("link_next", "cursor") else more.next_path
        if next_path and result.count > 0:
            raise Incomplete(
                f"its member '{next_path}' says that there is a next page, which page.style "
                f"{self._page.style} does not follow; oneweb-bridge explore looks for the style that does"
            )

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

    def _visit(self, position: str) -> None:
        if position in self._visited:
            raise Incomplete("the next page is one that was read before")
        self._visited.add(position)


def _is_address(cursor: str) -> bool:
    """Whether what stands where a cursor should be is the address of the next page."""
    return cursor.startswith(("http://", "https://", "/"))
