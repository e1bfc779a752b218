"""What stands beside a list may say that there are more pages: then the list alone is no complete listing."""

import json
from typing import Any

import pytest

from oneweb_bridge.api.paging import Incomplete, PageResult, Paging
from oneweb_bridge.decode.catalogue import PageSettings
from oneweb_bridge.decode.more_pages import MorePages, more_pages_of
from oneweb_bridge.explore.guesses import share_a_meaning

URL = "https://api.example/things"
LIST = [{"id": "1", "next": "c2", "total": 9}]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (LIST, MorePages()),
        ({"id": "1", "next": "c2"}, MorePages()),
        ({"items": LIST}, MorePages()),
        ({"columns": ["id"], "rows": [["1"]], "recordCount": 9}, MorePages()),
        ({"items": LIST, "total": 7, "count": 99}, MorePages(7, "total")),
        ({"meta": {"totalElements": 7}, "items": LIST}, MorePages(7, "meta.totalElements")),
        ({"items": LIST, "meta": {"nextCursor": "c3"}}, ("meta.nextCursor", "meta.nextCursor")),
        ({"items": LIST, "meta": {"nextCursor": None}}, MorePages()),
        ({"items": LIST, "next": ""}, MorePages()),
        ({"items": LIST, "previous": "c1", "session_token": "x"}, MorePages()),
        ({"items": LIST, "nextInvoice": "y", "nextPageToken": "x"}, ("nextInvoice", "nextPageToken")),
        ({"nextInvoice": "y", "hasMore": True, "items": LIST}, ("nextInvoice", "hasMore")),
        ({"items": LIST, "nextSyncToken": "x", "nextInvoice": "y"}, ("nextInvoice", "")),
        ({"items": LIST, "nextSyncToken": "x", "@odata.deltaLink": "https://x/y"}, MorePages()),
        ({"items": LIST, "nextUpdate": "2025-06-17T13:40:07Z", "next_run": "2025-06-18"}, MorePages()),
        ({"items": LIST, "nextUpdate": "2025-06-17T13:40:07Z", "nextStart": "2025-06-17"}, ("nextStart", "")),
        ({"items": LIST, "nextUpdateId": "12340512"}, ("nextUpdateId", "")),
        (
            {"items": LIST, "nextUpdate": "2025-06-17T13:40:07Z", "next": "2025-06-17T13:40:07Z"},
            ("next", "next"),
        ),
        ({"items": LIST, "has_more": True}, ("has_more", "has_more")),
        ({"items": LIST, "hasMore": False}, MorePages()),
        ({"items": LIST, "hasMore": False, "nextCursor": "c9"}, MorePages()),
        ({"items": LIST, "pageInfo": {"hasNextPage": True}}, ("pageInfo.hasNextPage", "pageInfo.hasNextPage")),
        ({"value": LIST, "@odata.nextLink": "https://x/y"}, ("@odata.nextLink", "@odata.nextLink")),
        ({"value": LIST, "@odata.count": "7"}, MorePages(7, "@odata.count")),
        ({"items": LIST, "_links": {"next": {"href": "/x?page=2"}}}, ("_links.next.href", "_links.next.href")),
        ({"items": LIST, "_links": {"self": {"href": "/x"}}}, MorePages()),
    ],
)
def test_only_what_stands_beside_the_list_is_looked_at(body: Any, expected: MorePages | tuple[str, str]) -> None:
    """Of a next page: what may name one, and what is one by its name."""
    wanted = MorePages(0, "", *expected) if isinstance(expected, tuple) else expected
    assert more_pages_of(json.dumps(body).encode()) == wanted


@pytest.mark.parametrize("style", ["cursor", "link_next", "none", "offset_limit", "page_size"])
def test_list_of_nothing_is_not_empty_where_its_total_says_otherwise(style: Any) -> None:
    """Whatever the pages are: what they are followed by may be what is wrong."""
    with pytest.raises(Incomplete, match="'total' says 7 records and 0 came"):
        _read_to_its_end(
            Paging(PageSettings(style=style), URL), PageResult(count=0, ids=[], more=MorePages(7, "total"))
        )
    with pytest.raises(Incomplete, match="says 7 records and showed 0"):
        _read_to_its_end(Paging(PageSettings(style=style), URL), PageResult(count=0, ids=[], total=7))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff{", b"null", b'{"a": {"b": {"c": {"d": {"next": "x"}}}}}'])
def test_what_cannot_be_read_says_nothing(body: bytes) -> None:
    assert more_pages_of(body) == MorePages()


NEXT, TOTAL = MorePages(next_path="meta.nextCursor", page_path="meta.nextCursor"), MorePages(7, "total")


def _read_to_its_end(paging: Paging, result: PageResult) -> None:
    while paging.next_request is not None:
        paging.accept_page(result)


@pytest.mark.parametrize("style", ["cursor", "link_next", "none", "offset_limit", "page_size"])
@pytest.mark.parametrize(
    ("more", "why"), [(NEXT, "'meta.nextCursor' says"), (TOTAL, "'total' says 7 records and 3 came")]
)
def test_list_that_is_a_part_by_its_own_words_is_incomplete(style: Any, more: MorePages, why: str) -> None:
    """A server that shows its first page whatever is asked for does page, if it names another one."""
    with pytest.raises(Incomplete, match=why):
        _read_to_its_end(Paging(PageSettings(style=style), URL), PageResult(count=3, ids=["a", "b", "c"], more=more))


@pytest.mark.parametrize("style", ["cursor", "link_next"])
def test_what_may_be_about_something_else_does_not_contradict_a_style_that_follows(style: Any) -> None:
    """Such as `nextInvoice` beside a cursor that says that this is the last page."""
    more = MorePages(next_path="nextInvoice")
    _read_to_its_end(Paging(PageSettings(style=style), URL), PageResult(count=1, ids=["a"], more=more))


def test_list_that_is_as_long_as_it_says_is_complete() -> None:
    """A total that was reached, or that the configuration takes for something else, contradicts nothing."""
    for page, total in ((PageSettings(style="none"), 3), (PageSettings(style="none", total_header=""), 7)):
        paging = Paging(page, URL)
        assert paging.accept_page(PageResult(count=3, ids=["a", "b", "c"], more=MorePages(total, "total")))
        assert paging.next_request is None


def test_header_that_counts_all_records_rules_over_the_body() -> None:
    paging = Paging(PageSettings(), URL)
    assert paging.accept_page(PageResult(count=3, ids=["a", "b", "c"], total=3, more=TOTAL))
    assert paging.next_request is None


def test_names_that_say_the_opposite_mean_another_thing() -> None:
    """`explore` proposes no line that reads the last time for the first."""
    assert share_a_meaning(["first_seen"], "first_seen_on")
    assert not share_a_meaning(["first_seen", "firstSeenDate"], "last_seen_date")
    assert not share_a_meaning(["max_bandwidth_uplink"], "maximum_bandwidth_downlink")
