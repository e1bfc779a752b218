"""How much of an answer is read: whatever it is made of, it does not fill the memory."""

import subprocess
import sys
import textwrap

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.decode import sizes
from oneweb_bridge.decode.border import BadPage
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.decode.pages import split_page
from oneweb_bridge.decode.sizes import MAX_DEPTH, TooMuch


def nested(depth: int, inner: str = "1") -> bytes:
    return (f"[{inner}," * depth + "1" + "]" * depth).encode()


@pytest.mark.parametrize("inner", ["1", '"]"', '"[{"', '"\\\\\\"]"', "[]", "{}"])
def test_depth_is_bounded_whatever_stands_in_strings(inner: str) -> None:
    """Brackets in strings neither hide how deep something is nor make it deeper."""
    sizes.check_depth(nested(MAX_DEPTH - 1, inner))
    with pytest.raises(TooMuch, match="deep"):
        sizes.check_depth(nested(MAX_DEPTH + 1, inner))


def test_many_values_beside_each_other_are_not_deep() -> None:
    """A long list of objects with brackets in their texts is as deep as one of them."""
    sizes.check_depth(msgspec.json.encode([{"name": "[[{", "parts": [[{}]]} for _ in range(1000)]))


@given(st.recursive(st.text('[]{}"\\', max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_ordinary_value_is_too_deep(value: object) -> None:
    """JSON of a few levels is never refused."""
    sizes.check_depth(msgspec.json.encode([value] * 60))


@pytest.mark.parametrize("text", [b'"' + b'\\"' * 400_000, b'"\\' * 400_000, b"[" * 400_000, b'["' * 400_000])
def test_depth_of_broken_text_is_found_in_one_go(text: bytes) -> None:
    """Text that is no JSON is looked at once, not once for each of its quotes: this would take hours else."""
    with pytest.raises(TooMuch):
        sizes.check_depth(b"[" * 200 + text)


BODIES = {
    "values in a list": 'b"[" + b"1," * 25_000_000 + b"1]"',
    "values in a record": """b'[{"id": "1", "x": [' + b"[]," * 16_000_000 + b'1]}]'""",
    "records": """b"[" + b'{"id":"a"},' * 4_500_000 + b'{"id":"a"}]'""",
    "depth in a record": """b'[{"id": "1", "x": [' + (b"[" * 500 + b"]" * 500 + b",") * 7_500 + b'1]}]'""",
    "members taken over": """b'{"items": [{"a": "' + b"x" * 500_000 + b'", "sub": [' + b"{}," * 150_000 + b'{}]}]}'""",
    "columns taken over": (
        """b'[{"x": "' + b"x" * 500_000 + b'", "columns": ["id"], "rows": [' + b"[1]," * 120_000 + b'[1]]}]'"""
    ),
}
MEASURE = """
import resource, sys
from oneweb_bridge.decode import pages
from oneweb_bridge.decode.catalogue import CALLS
from msgspec.structs import replace

body = {body}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    page = pages.split_page(body, {selector!r})
    for record in pages.expand_tables(replace(CALLS["sites"], explode={explode!r}), page.records):
        pages.decode_record(record)
except ValueError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("kind", BODIES)
def test_no_answer_fills_the_memory(kind: str) -> None:
    """An answer below api.max_body costs a bounded part of a machine of 1 GB, and the sentence says what to set."""
    selector = "$.items[*].sub[*]" if kind == "members taken over" else None
    explode = "columns" if kind == "columns taken over" else "list"
    script = textwrap.dedent(MEASURE).format(body=BODIES[kind], selector=selector, explode=explode)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr == ""
    *sentence, grown = done.stdout.splitlines()
    assert int(grown) < 400
    assert "page.limit, or window.length" in sentence[0] or "nested more than 100 deep" in sentence[0]


def test_page_of_the_real_size_fits() -> None:
    """As many records as are asked for by default, with more in each than the API shows, are far below all bounds."""
    record = {"id": "359235170006117", "measurement": [{"timestamp": "2025-06-17T13:40:07Z", "performanceIndicator": [
        {"name": "rsrp", "value": -40.0, "indicatorUnit": "dBm", "collectionType": "gauge", "indicatorType": "float"}
    ] * 3}] * 42}  # fmt: skip
    body = msgspec.json.encode([record] * CALLS["ut_signal_quality"].page.limit)
    assert len(body) < 64_000_000 / 3
    assert len(split_page(body).records) == 1000


def test_more_records_than_a_page_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is all records, and short ones, is bounded by their number."""
    monkeypatch.setattr("oneweb_bridge.decode.pages.MAX_RECORDS", 3)
    assert len(split_page(b"[1,2,3]").records) == 3
    with pytest.raises(BadPage, match="more than 3 records"):
        split_page(b"[1,2,3,4]")
