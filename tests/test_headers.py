"""Headers as the standards have them, and text in whatever encoding it comes."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.api import headers

URL = "https://api.example/v2/things?limit=2"
ABOVE = "https://api.example/v2/"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], []),
        ([""], []),
        (['<https://api.example/x?p=2>; rel="next"'], ["https://api.example/x?p=2"]),
        (["</x?p=2>; rel=next"], ["https://api.example/x?p=2"]),
        (["<?p=2>; rel=next"], [ABOVE + "things?p=2"]),
        (["<more>; rel=next"], [ABOVE + "more"]),
        (['</x>; rel="self"', '</y>; rel="next"'], ["https://api.example/y"]),
        (['</x?p=1>; rel="prev", </x?p=3>; rel="next"'], ["https://api.example/x?p=3"]),
        (
            ['</x?fields=id,name>; rel="self", </y?fields=id,name>; rel="next"'],
            ["https://api.example/y?fields=id,name"],
        ),
        (['</x>; title="a, </b>; rel=next"; rel="prev", </y>; rel="next"'], ["https://api.example/y"]),
        (['</x>; title="a\\"; rel=next"; rel=last'], []),
        (['</x>; rel="prev next"'], ["https://api.example/x"]),
        (["</x>; REL=NEXT"], ["https://api.example/x"]),
        (['</x> ; rel = "next" ;'], ["https://api.example/x"]),
        (["</x>; rel=first; rel=next"], []),
        (['</x>; rel="nextpage"', '</y>; rel="http://example/next"'], []),
        (["</x>; rel=next; anchor=/other"], []),
        ([f'</x>; rel=next; anchor="{URL}"'], ["https://api.example/x"]),
        ([", , </x>; rel=next,"], ["https://api.example/x"]),
        (["</x>;rel=next", "</x>;rel=next"], ["https://api.example/x"]),
        (["</x>;rel=next", "</y>;rel=next"], ["https://api.example/x", "https://api.example/y"]),
    ],
)
def test_next_page_is_the_link_with_that_relation(lines: list[str], expected: list[str]) -> None:
    """Lines, several links in one, quotes, commas, case, several relations, relative targets: as RFC 8288 has them."""
    assert headers.next_pages(lines, URL) == (expected, True)


@pytest.mark.parametrize(
    "line",
    ["garbage", "</x; rel=next", '</x>; rel="next', "</x> rel=next", "<http://[/>; rel=next", "<\udce9>; rel=next"],
)
def test_broken_link_is_told_and_not_guessed(line: str) -> None:
    """A header that does not follow the grammar names no page, and is said not to be readable; others count."""
    assert headers.next_pages([line, "</y>; rel=next"], URL) == (["https://api.example/y"], False)


@given(st.lists(st.text('<>;,="\\ rel next/?a', max_size=60) | st.text(max_size=60), max_size=3))
def test_any_link_header_is_read_or_refused(lines: list[str]) -> None:
    """No header makes the bridge fail, and what is found is an address."""
    for url in headers.next_pages(lines, URL)[0]:
        headers.origin(url)


def test_long_link_header_takes_no_long_time() -> None:
    """Reading takes time in proportion to the length: ten times the header, no hundred times the time."""

    def took(size: int) -> float:
        started = time.process_time()
        headers.next_pages(['<a>; a="' + "\\" * size, "<" * size, ";" * size, "</x>; a=" + " " * size], URL)
        return time.process_time() - started

    assert took(200_000) < 40 * max(took(20_000), 0.005)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["0"], 0),
        ([" 17 "], 17),
        (["17, 17"], 17),
        (["17", "17"], 17),
        (["17", "18"], None),
        ([""], None),
        ([], None),
        (["-1"], None),
        (["x"], None),
        (["٣"], None),
        (["9" * 30], None),
    ],
)
def test_total_is_a_number_or_unknown(lines: list[str], expected: int | None) -> None:
    """A total that cannot be read, or that two lines say differently, counts as none."""
    assert headers.agreed_number(lines) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["items 0-99/250"], 250),
        (["items */250"], 250),
        (["items 0-99/*"], None),
        (["bytes 0-99/250"], None),
        (["250"], None),
        ([], None),
    ],
)
def test_content_range_counts_records(lines: list[str], expected: int | None) -> None:
    """The complete length of a Content-Range in a unit of records is a total; one in bytes is not."""
    assert headers.record_count(lines) == expected


NOW = 1750167607.0


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        (["30"], 30),
        ([" 30 "], 30),
        (["30", "90"], 90),
        (["٣"], None),
        (["-5"], None),
        (["soon"], None),
        (["Tue, 17 Jun 2025 13:42:07 GMT"], 120),
        (["Tuesday, 17-Jun-25 13:42:07 GMT"], 120),
        (["Tue Jun 17 13:42:07 2025"], 120),
        (["Tue, 17 Jun 99999 13:42:07 GMT"], None),
    ],
)
def test_retry_after_is_seconds_or_a_date(lines: list[str], expected: float | None) -> None:
    """Seconds, or any of the three forms of a date that RFC 9110 has; nonsense counts as not said."""
    assert headers.retry_after(lines, NOW) == expected


TEXT = '[{"name": "Ålesund"}]'


@pytest.mark.parametrize(
    ("encoding", "charset"),
    [
        ("utf-8", None),
        ("utf-8", "utf-8"),
        ("utf-8", "iso-8859-1"),
        ("utf-8", "no-such-charset"),
        ("utf-8-sig", None),
        ("utf-16", None),
        ("utf-16-le", None),
        ("utf-32-be", "utf-8"),
        ("iso-8859-1", "ISO-8859-1"),
        ("cp1252", "windows-1252"),
    ],
)
def test_text_comes_out_as_utf8(encoding: str, charset: str | None) -> None:
    """UTF-8 is taken whatever the header says; other encodings by their bytes, else by the header."""
    assert headers.to_utf8(TEXT.encode(encoding), charset) == TEXT.encode()


@pytest.mark.parametrize("charset", [None, "utf-8", "punycode", "rot13", "unicode_escape", "idna", "\0"])
def test_text_that_nobody_can_read_stays_as_it_is(charset: str | None) -> None:
    """Bytes that are no text, or said to be in what is no encoding of text, are left to whoever complains."""
    body = TEXT.encode("iso-8859-1")
    assert headers.to_utf8(body, charset) == body


@given(st.binary(max_size=50), st.none() | st.text(max_size=12))
def test_any_body_is_read_or_left(body: bytes, charset: str | None) -> None:
    """No bytes and no charset make the bridge fail."""
    headers.to_utf8(body, charset)
