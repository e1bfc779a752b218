"""Chunks hold every member of every sample, and bins, gaps and rates are what they say: the pure part of the trends."""

import json
import math
import random
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.trends import bins, chunks
from oneweb_bridge.trends.chunks import DAY_MS, Samples, StreamKey

DAY = 20_000
BEGIN = DAY * DAY_MS
MINUTE = 60_000
TRAFFIC = StreamKey("terminal", "T-1", "traffic")
BUCKET = StreamKey("usage", "B-1", "usage")


def payload(ts: int, **values: Any) -> bytes:
    """A sample of a terminal as the bridge publishes it."""
    return encode({"imei": "T-1", "report": "traffic", "time": rfc3339(ts), "ts": ts, **values})


def usage(ts: int, *, marks: dict[str, Any] | None = None, **values: Any) -> bytes:
    """A usage bucket as the bridge publishes it."""
    return encode({"bucket_id": "B-1", **values, "time": rfc3339(ts), "ts": ts, **(marks or {})})


def through_chunk(stream: StreamKey, payloads: list[tuple[int, bytes]]) -> list[bytes]:
    """The payloads of a day as they come out of its chunk."""
    body = chunks.encode_chunk(chunks.read_documents(stream, payloads), DAY)
    samples = chunks.decode_chunk(body, DAY)
    return [chunks.document(stream, samples, index) for index in range(len(samples.ts))]


VALUES = st.dictionaries(
    st.sampled_from(["a_bytes", "b_db", "state", "flag", "words"]),
    st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=4),
        st.booleans(),
        st.lists(st.text(max_size=2), max_size=2),
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(0, DAY_MS - 1), VALUES, min_size=1, max_size=12))
def test_sample_comes_out_of_a_chunk_byte_for_byte(rows: dict[int, dict[str, Any]]) -> None:
    """Whatever members a sample has, and in whatever order, its payload is the same before and after."""
    payloads = [(BEGIN + at, payload(BEGIN + at, **values)) for at, values in sorted(rows.items())]
    assert through_chunk(TRAFFIC, payloads) == [body for _, body in payloads]


def test_usage_comes_out_of_a_chunk_byte_for_byte() -> None:
    """A bucket has its time behind its values, and the begin of a cycle behind that."""
    payloads = [
        (BEGIN, usage(BEGIN, used_gb=1.0, product_id="P")),
        (BEGIN + 5, usage(BEGIN + 5, used_gb=0.0, product_id="P", marks={"cycle_started": True})),
    ]
    assert through_chunk(BUCKET, payloads) == [body for _, body in payloads]


def test_chunk_can_be_looked_at() -> None:
    """It is zlib of JSON columns; integers stand as a first value and differences, floats as they are."""
    samples = chunks.read_documents(
        TRAFFIC,
        [
            (BEGIN + 60, payload(BEGIN + 60, tx_bytes=7, sinr_db=1.5)),
            (BEGIN + 100, payload(BEGIN + 100, sinr_db=2.0)),
            (BEGIN + 200, payload(BEGIN + 200, tx_bytes=5, sinr_db=3.0)),
        ],
    )
    assert json.loads(zlib.decompress(chunks.encode_chunk(samples, DAY))) == {
        "ts": [60, 40, 100],
        "tx_bytes": [7, None, -2],
        "sinr_db": [1.5, 2.0, 3.0],
    }


@pytest.mark.parametrize(
    "body",
    [b"", b"no zlib", zlib.compress(b"no json"), zlib.compress(b'{"a":[1]}'), zlib.compress(b'{"ts":[1],"a":[]}')],
)
def test_damaged_chunk_is_refused(body: bytes) -> None:
    """What is no chunk raises one error."""
    with pytest.raises(chunks.ChunkError):
        chunks.decode_chunk(body, DAY)


def test_later_sample_of_a_time_replaces_the_earlier_and_is_marked() -> None:
    """The later values count, marked as corrected where they differ; folding the same again changes nothing."""
    first, same, other = payload(BEGIN, a=1.0), payload(BEGIN, a=1.0), payload(BEGIN, a=2.0)
    assert through_chunk(TRAFFIC, [(BEGIN, first), (BEGIN, same)]) == [first]
    corrected = payload(BEGIN, a=2.0, corrected=True)
    assert through_chunk(TRAFFIC, [(BEGIN, first), (BEGIN, other)]) == [corrected]
    before = chunks.read_documents(TRAFFIC, [(BEGIN, first), (BEGIN, other)])
    for documents in ([first, other], [other], [corrected]):
        after = chunks.read_documents(TRAFFIC, [(BEGIN, body) for body in documents])
        merged = chunks.merge(TRAFFIC, before, after)
        assert chunks.document(TRAFFIC, merged, 0) == corrected


def test_merge_is_the_union_by_time() -> None:
    """Late samples end at their place, whichever side they come from, with their own columns."""
    samples_at_odd = chunks.read_documents(TRAFFIC, [(BEGIN + t, payload(BEGIN + t, a=t)) for t in (1, 3, 5)])
    even = chunks.read_documents(TRAFFIC, [(BEGIN + t, payload(BEGIN + t, b="x")) for t in (2, 4)])
    merged = chunks.merge(TRAFFIC, samples_at_odd, even)
    assert [ts - BEGIN for ts in merged.ts] == [1, 2, 3, 4, 5]
    assert merged.columns == {"a": [1, None, 3, None, 5], "b": [None, "x", None, "x", None]}
    assert chunks.merge(TRAFFIC, merged, Samples()) == merged
    assert chunks.merge(TRAFFIC, Samples(), merged) == merged


# ── bins, gaps, rates ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("hours", "points", "minutes"),
    [(24, 2000, 5), (24, 288, 5), (24, 287, 10), (24 * 30, 2000, 30), (24 * 730, 10, 1440)],
)
def test_step_is_the_shortest_that_fits(hours: int, points: int, minutes: int) -> None:
    """The shortest of the steps with at most so many bins, or a day."""
    assert bins.choose_step(hours * 60 * MINUTE, points) == minutes * MINUTE


def test_gap_is_further_than_two_and_a_half_periods() -> None:
    """Two neighbours have a gap between them above 2.5 times the median distance, and not at it."""
    ts = [0, 10, 20, 45, 55, 81]
    assert bins.period_of(ts) == 10
    assert bins.find_gaps(ts, 10.0) == [(55, 81)]
    assert bins.period_of(ts[:3]) is None
    assert bins.find_gaps(ts, None) == []


def test_rate_is_never_negative_and_never_over_a_gap() -> None:
    """The rate stands at the later neighbour; none at the first sample, at a reset and behind a gap."""
    ts = [0, 10_000, 20_000, 30_000, 70_000, 80_000]
    values = [100, 200, 50, 60, 100, 110]
    assert bins.rates(ts, values, 10_000.0) == [None, 10.0, None, 1.0, None, 1.0]
    assert bins.rates(ts[1:2], values[1:2], 10_000.0, before=(0, 100)) == [10.0]
    assert bins.rates(ts, [1, None, 3, None, None, None], None) == [None, None, 0.1, None, None, None]


def test_total_adds_up_rises_alone() -> None:
    """A fall adds nothing, a rise over a gap counts, and the first value is zero."""
    assert bins.totals([100, 150, None, 20, 30]) == [0, 50, None, 50, 60]


def test_bins_equal_brute_force() -> None:
    """Bins begin at multiples of the step since the epoch, hold begin <= t < end, and are not there when empty."""
    chance = random.Random(5)
    ts = sorted(chance.sample(range(BEGIN - 2 * DAY_MS, BEGIN + DAY_MS, 1000), 400))
    values = [chance.choice([None, chance.uniform(-5, 5)]) for _ in ts]
    for step in bins.STEPS_MS:
        by_begin = {begin: bins.summarize(values[a:b]) for begin, a, b in bins.intervals(ts, step)}
        assert sum(b - a for _, a, b in bins.intervals(ts, step)) == len(ts)
        for begin in range(BEGIN - 2 * DAY_MS, BEGIN + DAY_MS, step):
            inside = [v for t, v in zip(ts, values, strict=True) if begin <= t < begin + step and v is not None]
            summary = by_begin.pop(begin, None)
            if not inside:
                assert summary is None
                continue
            assert summary is not None
            assert (summary.min, summary.max, summary.count) == (min(inside), max(inside), len(inside))
            assert math.isclose(summary.mean, sum(inside) / len(inside), abs_tol=1e-9)
        assert by_begin == {}


def test_day_of_a_counter_keeps_its_rates_and_rises() -> None:
    """What is kept of a day of a counter: first, last, rises, and its rates without the reset."""
    ts = [BEGIN + MINUTE * i for i in range(5)]
    day = bins.summarize_day(ts, {"a": [0, 60, 120, 30, 90], "s": ["x"] * 5}, frozenset({"a"}))
    assert list(day) == ["a"]
    counter = day["a"].counter
    assert day["a"].bin == bins.Bin(0, 60.0, 120, 5)
    assert counter is not None
    assert (counter.first, counter.last, counter.rise, counter.rate) == (0, 90, 180, (1.0, 1.0, 1.0, 3))


def test_text_is_thinned_to_its_changes() -> None:
    """Of a text those stay where it changed, the edges of gaps, and the last one."""
    ts = [0, 1, 2, 3, 13, 14, 15]
    column = ["on", "on", "off", "off", "off", "off", "off"]
    assert bins.text_changes(ts, [column], [(3, 13)]) == [0, 2, 3, 4, 6]
