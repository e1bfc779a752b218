"""Headers as the standards have them, and text in whatever encoding it comes."""

import string
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.api import headers

URL = "https://api.example/v2/things?limit=2"
ABOVE = "https://api.example/v2/"
NEWAUTH = [("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}), ("basic", {"realm": "simple"})]
"""The example of RFC 9110, 11.6.1."""


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


def took(read: Callable[[Sequence[str]], object], lines: Sequence[str]) -> float:
    """Seconds of the processor that it takes to read headers."""
    started = time.process_time()
    read(lines)
    return time.process_time() - started


def test_long_header_takes_no_long_time() -> None:
    """Reading takes time in proportion to the length: ten times the header, no hundred times the time."""

    def lines(size: int) -> list[str]:
        return ['<a>; a="' + "\\" * size, "<" * size, ";" * size, "</x>; a=" + " " * size]

    def asking(size: int) -> list[str]:
        return ['A b="' + "\\" * size, "A " * size, "A," * size, "A " + "=" * size, "A " + "b =" * size, "A" * size]

    for read, grown in ((lambda given: headers.next_pages(given, URL), lines), (headers.challenges, asking)):
        assert took(read, grown(200_000)) < 40 * max(took(read, grown(20_000)), 0.005)


# ── challenges ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], []),
        ([""], []),
        (["Basic"], [("basic", {})]),
        (['Basic realm="api"'], [("basic", {"realm": "api"})]),
        (['Bearer realm="a", token_url="https://x/t"'], [("bearer", {"realm": "a", "token_url": "https://x/t"})]),
        (['Basic realm="a", Bearer'], [("basic", {"realm": "a"}), ("bearer", {})]),
        (['Basic realm="a"', "Bearer scope=x"], [("basic", {"realm": "a"}), ("bearer", {"scope": "x"})]),
        (['Basic realm="a, Bearer token_url=\\"no\\""'], [("basic", {"realm": 'a, Bearer token_url="no"'})]),
        (['BEARER REALM = "a" , Scope = b'], [("bearer", {"realm": "a", "scope": "b"})]),
        (["Negotiate YWJj=, Bearer"], [("negotiate", {}), ("bearer", {})]),
        (["Negotiate YWJj==", "Basic"], [("negotiate", {}), ("basic", {})]),
        (["Negotiate, , NTLM,"], [("negotiate", {}), ("ntlm", {})]),
        (["Digest a=1, a=2"], [("digest", {"a": "1"})]),
        (['Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"'], NEWAUTH),
        (["a=b, Basic", "Bearer"], [("bearer", {})]),
        (['Basic realm="a', "Bearer"], [("basic", {}), ("bearer", {})]),
        (['Basic realm="a" x, Bearer'], [("basic", {"realm": "a"})]),
        (['"Basic"'], []),
    ],
)
def test_challenges_are_those_of_the_standard(lines: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    """Several in one line and several lines, quotes, commas in them, case: as RFC 9110 has them."""
    assert [(challenge.scheme, challenge.parameters) for challenge in headers.challenges(lines)] == expected


WORDS = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=8)
PARAMETERS = st.dictionaries(WORDS.map(str.lower), st.text(max_size=8), max_size=3)


@given(st.lists(st.tuples(WORDS, PARAMETERS), max_size=4), st.booleans(), st.data())
def test_challenges_survive_the_way_there_and_back(
    given: list[tuple[str, dict[str, str]]], in_one_line: bool, data: st.DataObject
) -> None:
    """Whatever is written as the standard says is read as it was meant, in one header and in several."""

    def written(name: str, value: str) -> str:
        equals = data.draw(st.sampled_from(("=", " = ")))
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{name}{equals}"{escaped}"'

    lines = [f"{scheme} {', '.join(written(*pair) for pair in members.items())}".strip() for scheme, members in given]
    read = headers.challenges([", ".join(lines)] if in_one_line else lines)
    assert [(each.scheme, each.parameters) for each in read] == [(s.lower(), members) for s, members in given]


@given(st.lists(st.text('Bearer,="\\ \t\x00?a', max_size=60) | st.text(max_size=60), max_size=3))
def test_any_challenge_is_read_or_left_out(lines: list[str]) -> None:
    """No header makes the bridge fail."""
    for challenge in headers.challenges(lines):
        assert challenge.scheme == challenge.scheme.lower() != ""


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
