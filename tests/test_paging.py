"""A listing in pages: complete or nothing, whatever the server does between two pages."""

from collections.abc import Callable
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.api.paging import Incomplete, PageRequest, PageResult, Paging
from oneweb_bridge.decode.catalogue import PageSettings

URL = "https://api.example/things"
Server = Callable[[PageRequest], PageResult]


def listed(page: PageSettings, server: Server) -> tuple[list[str], Paging]:
    """What a poll gets: the ids of all pages that may be used, and the paging at its end."""
    paging, ids = Paging(page, URL), list[str]()
    for requests in count():
        if paging.next_request is None:
            return ids, paging
        assert requests < 200, "the listing does not end"
        got = server(paging.next_request)
        if paging.accept_page(got):
            ids += got.ids
    raise AssertionError


class Things:
    """A server of `ids` in the style of `page`; `total` says whether it counts, `most` how many it shows at once."""

    def __init__(self, ids: list[str], page: PageSettings, *, total: bool = True, most: int = 10**6) -> None:
        self.ids = ids
        self.page = page
        self.total = total
        self.most = most
        self.asks: list[PageRequest] = []

    def __call__(self, ask: PageRequest) -> PageResult:
        self.asks.append(ask)
        page = self.page
        params = ask.params or {name: values[0] for name, values in parse_qs(urlsplit(ask.url or "").query).items()}
        size = min(int(params.get(page.limit_param, params.get(page.size_param, page.limit))), self.most)
        match page.style:
            case "offset_limit":
                start = int(params[page.offset_param])
            case "page_size":
                start = (int(params[page.page_param]) - page.first_page) * size
            case "none":
                start, size = 0, len(self.ids)
            case _:
                start = int(params.get(page.cursor_param, 0))
        shown = self.ids[start : start + size]
        more = str(start + size) if start + size < len(self.ids) else None
        return PageResult(
            count=len(shown),
            ids=shown,
            total=len(self.ids) if self.total and page.style != "cursor" else None,
            next_links=[f"/things?cursor={more}"] if more and page.style == "link_next" else [],
            next_cursor=more if page.style == "cursor" else None,
        )


STYLES: list[Any] = ["offset_limit", "page_size", "link_next", "cursor", "none"]
IDS = st.integers(0, 40).map(lambda size: [f"T{i}" for i in range(size)])


@hypothesis.settings(max_examples=200)
@given(st.sampled_from(STYLES), IDS, st.integers(1, 12), st.booleans(), st.integers(0, 1))
def test_listing_of_any_size_comes_out_complete(
    style: Any, ids: list[str], limit: int, total: bool, first: int
) -> None:
    """In every style, with and without a total, at every page size, all records come once and in order."""
    page = PageSettings(style=style, limit=limit, first_page=first)
    listed_ids, paging = listed(page, Things(ids, page, total=total))
    assert listed_ids == ids
    assert not paging.unpaged


@given(IDS, st.integers(1, 12), st.integers(1, 12))
def test_server_with_smaller_pages_is_followed(ids: list[str], limit: int, most: int) -> None:
    """A server that gives fewer than were asked for is read to its end all the same."""
    page = PageSettings(limit=limit)
    listed_ids, _ = listed(page, Things(ids, page, most=most, total=False))
    assert listed_ids == ids


def test_page_of_pages_asks_as_the_configuration_says() -> None:
    """The names and numbers of the parameters are those of `polling.<call>.page`."""
    page = PageSettings(style="page_size", limit=2, page_param="p", size_param="s", first_page=0)
    server = Things(["a", "b", "c"], page)
    listed(page, server)
    assert [ask.params for ask in server.asks] == [{"p": "0", "s": "2"}, {"p": "1", "s": "2"}]
    page = PageSettings(limit=2, offset_param="o", limit_param="l")
    server = Things(["a", "b", "c"], page)
    listed(page, server)
    assert [ask.params for ask in server.asks] == [{"o": "0", "l": "2"}, {"o": "2", "l": "2"}]


# --- lies -----------------------------------------------------------------------------------------


def scripted(*pages: PageResult) -> Server:
    left = list(pages)
    return lambda _: left.pop(0)


def got(*ids: str, **members: Any) -> PageResult:
    return PageResult(count=len(ids), ids=ids, **members)


@pytest.mark.parametrize(
    ("style", "pages", "why"),
    [
        ("offset_limit", [got("a", "b"), got("b", "c"), got()], "again"),
        ("offset_limit", [got("a", "b", total=4), got("a", "b", total=4)], "again"),
        ("offset_limit", [got("a", "b"), got("c", "d"), got("a", "b")], "again"),
        ("offset_limit", [got("a", "b", total=4), got("c", "d", total=5)], "changed"),
        ("offset_limit", [got("a", "b", total=5), got(total=5)], "5 records and showed 2"),
        ("offset_limit", [got("a", "b", total=1)], "1 records and showed 2"),
        ("offset_limit", [got(total=7)], "7 records and showed 0"),
        ("page_size", [got("a", "b", total=3), got(total=3)], "3 records and showed 2"),
        ("none", [got("a", "b", total=3)], "3 records and showed 2"),
        ("link_next", [got("a", total=3, next_links=["?page=2"]), got("b", total=3)], "3 records and showed 2"),
        ("link_next", [got("a", next_links=["https://other.example/things?page=2"])], "another server"),
        ("link_next", [got("a", next_links=["http://api.example/things?page=2"])], "another server"),
        ("link_next", [got("a", next_links=["//other.example/x"])], "another server"),
        ("link_next", [got("a", next_links=["?p=2"]), got("b", next_links=["?p=2"])], "read before"),
        ("cursor", [got("a", next_cursor="x"), got("b", next_cursor="x")], "read before"),
        ("cursor", [got("a", next_cursor="x"), got("b", next_cursor="y"), got("a")], "again"),
    ],
)
def test_each_lie_is_incomplete(style: Any, pages: list[PageResult], why: str) -> None:
    """Repeats, totals that change or are not reached, and links that lead away or in a circle are never a listing."""
    with pytest.raises(Incomplete, match=why):
        listed(PageSettings(style=style, limit=2), scripted(*pages))


@pytest.mark.parametrize("style", ["offset_limit", "page_size", "link_next", "cursor"])
def test_listing_without_an_end_is_incomplete(style: Any) -> None:
    """A server that always has one more page is given up after `max_pages`."""
    page, number = PageSettings(style=style, limit=1, max_pages=20), count()

    def endless(_: PageRequest) -> PageResult:
        at = next(number)
        links = [f"?p={at}"] if style == "link_next" else []
        return got(f"T{at}", next_links=links, next_cursor=str(at))

    with pytest.raises(Incomplete, match="more than 20 pages"):
        listed(page, endless)


@hypothesis.settings(max_examples=200)
@given(st.sampled_from(["offset_limit", "page_size"]), st.integers(3, 30), st.integers(1, 8), st.data())
def test_missing_page_is_incomplete(style: Any, size: int, limit: int, data: st.DataObject) -> None:
    """A page that comes empty before the total is reached makes the listing incomplete."""
    page = PageSettings(style=style, limit=limit)
    server, missing = Things([f"T{i}" for i in range(size)], page), data.draw(st.integers(0, (size - 1) // limit))

    def holed(ask: PageRequest) -> PageResult:
        result = server(ask)
        return got(total=result.total) if len(server.asks) - 1 == missing else result

    with pytest.raises(Incomplete):
        listed(page, holed)


@hypothesis.settings(max_examples=200)
@given(st.integers(2, 30), st.integers(1, 8), st.data())
def test_record_that_moves_between_pages_is_noticed(size: int, limit: int, data: st.DataObject) -> None:
    """A record deleted while the pages are read shifts the rest: with a total, that is no whole listing."""
    hypothesis.assume(size > limit)
    page, ids = PageSettings(limit=limit), [f"T{i}" for i in range(size)]
    server, at = Things(ids, page), data.draw(st.integers(0, limit - 1))

    def shifting(ask: PageRequest) -> PageResult:
        result = server(ask)
        if len(server.asks) == 1:
            del server.ids[at]
        return result

    with pytest.raises(Incomplete):
        listed(page, shifting)


# --- servers that do not page ---------------------------------------------------------------------


@pytest.mark.parametrize("style", ["offset_limit", "page_size"])
@pytest.mark.parametrize("total", [True, False])
def test_server_that_gives_all_at_once_is_recognised(style: Any, total: bool) -> None:
    """A server that shows more than it was asked for, and the same again, does not page: that is its whole listing."""
    page, ids = PageSettings(style=style, limit=3), list("abcdefgh")
    listed_ids, paging = listed(page, lambda _: got(*ids, total=len(ids) if total else None))
    assert (listed_ids, paging.unpaged) == (ids, True)


@hypothesis.settings(max_examples=200)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 12), st.booleans())
def test_server_with_larger_pages_is_whole_or_nothing(size: int, limit: int, fixed: int, total: bool) -> None:
    """A server with a page size of its own, above what was asked for, is never cut off after its first page."""
    ids, page = [f"T{i}" for i in range(size)], PageSettings(limit=limit)

    def larger(ask: PageRequest) -> PageResult:
        start = int(ask.params["offset"])
        return got(*ids[start : start + fixed], total=size if total else None)

    try:
        listed_ids, _ = listed(page, larger)
    except Incomplete:
        return
    assert listed_ids == ids


def test_more_than_asked_for_but_less_than_the_total_is_no_listing() -> None:
    """A first answer longer than the limit but short of its own total is not the whole."""
    with pytest.raises(Incomplete):
        listed(PageSettings(limit=2), scripted(got("a", "b", "c", total=9), *[got(total=9)] * 5))


@pytest.mark.parametrize("style", ["offset_limit", "page_size"])
def test_server_that_ignores_paging_is_recognised(style: Any) -> None:
    """The first page once more, and not a full one, is the whole listing of a server that does not page."""
    ids, paging = listed(PageSettings(style=style, limit=3), lambda _: got("a", "b"))
    assert (ids, paging.unpaged) == (["a", "b"], True)


def test_full_page_that_comes_again_is_incomplete() -> None:
    """Exactly as many as asked for, twice the same: the server may ignore the offset alone, so nothing is proved."""
    with pytest.raises(Incomplete):
        listed(PageSettings(limit=2), lambda _: got("a", "b"))


@pytest.mark.parametrize("style", ["cursor", "link_next"])
def test_first_page_behind_a_link_is_incomplete(style: Any) -> None:
    """A server that says there is more, and then shows the first page again, has not shown all."""
    with pytest.raises(Incomplete):
        listed(PageSettings(style=style, limit=2), scripted(got("a", next_cursor="x", next_links=["?p=2"]), got("a")))


# --- evidence -------------------------------------------------------------------------------------

MORE = {"next_links": ["/things?p=2"]}


@pytest.mark.parametrize(
    ("style", "pages", "why"),
    [
        ("none", [got("a", "b", **MORE)], "page.style does not follow"),
        ("none", [got("a", "b", total=2, **MORE)], "page.style does not follow"),
        ("none", [got("a", "b", is_part=True)], "status 206"),
        ("cursor", [got("a", "b", **MORE)], "page.style does not follow"),
        ("cursor", [got("a", "b", doubt="its cursor is odd")], "no next page: its cursor is odd"),
        ("cursor", [got("a", "b", is_part=True)], "status 206"),
        ("link_next", [got("a", doubt="its Link header cannot be read")], "Link header cannot be read"),
        ("link_next", [got("a", is_part=True)], "status 206"),
        ("link_next", [got("a", next_links=["?p=2", "?p=3"])], "several next pages"),
        ("offset_limit", [got("a", **MORE), got("a", **MORE)], "again"),
        ("page_size", [got("a", **MORE), got("a", **MORE)], "again"),
        ("offset_limit", [got("a", "b", total=2, **MORE), got("c", total=2)], "2 records and showed 3"),
    ],
)
def test_answer_that_says_there_is_more_is_never_the_end(style: Any, pages: list[PageResult], why: str) -> None:
    """A next page that is not followed, status 206 alone, and what cannot be read are no proof of an end."""
    with pytest.raises(Incomplete, match=why):
        listed(PageSettings(style=style, limit=2), scripted(*pages))


@pytest.mark.parametrize(
    ("style", "pages"),
    [
        ("none", [got("a", "b", total=2, is_part=True)]),
        ("link_next", [got("a", is_part=True, **MORE), got("b", is_part=True)]),
        ("link_next", [got("a", total=1, doubt="its Link header cannot be read")]),
        ("offset_limit", [got("a", "b", is_part=True), got(is_part=True)]),
        ("offset_limit", [got("a", "b", total=2, **MORE), got(total=2)]),
    ],
)
def test_proved_end_is_an_end(style: Any, pages: list[PageResult]) -> None:
    """A total that is reached, an empty page, or a last page behind others end a listing, whatever its status."""
    ids, _ = listed(PageSettings(style=style, limit=2), scripted(*pages))
    assert ids == [id for page in pages for id in page.ids]


def test_listing_beyond_all_bounds_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that shows ever new records does not fill the memory with their ids."""
    monkeypatch.setattr("oneweb_bridge.api.paging.MAX_RECORDS", 50)
    number = count()
    with pytest.raises(Incomplete, match="more than 50 records"):
        listed(PageSettings(limit=10), lambda _: got(*(f"T{next(number)}" for _ in range(10))))


def test_next_page_on_the_same_server_is_known_in_any_spelling() -> None:
    """Host names have no case, and a default port may be left out: that is no other server."""
    pages = scripted(got("a", next_links=["HTTPS://API.example:443/things?p=2"]), got("b"))
    assert listed(PageSettings(style="link_next"), pages)[0] == ["a", "b"]
