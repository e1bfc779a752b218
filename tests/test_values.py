"""Single values: what the API may send for a text, a flag, a time or a number, and what is published of it."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.decode import values
from oneweb_bridge.decode.values import (
    Unparseable,
    parse_flag,
    parse_quantity,
    parse_text,
    parse_text_set,
    parse_texts,
    parse_time,
    round_as_published,
    snake,
)
from oneweb_bridge.encoding import rfc3339, short_time

LAST = 253402300799999
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.from_regex(r"[-+]?\d{1,4}([-.: ]\d{0,4}){0,4}[A-Za-z%/]{0,4}", fullmatch=True),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def test_rfc3339_has_milliseconds_and_z() -> None:
    """A time is written in UTC with milliseconds and `Z`, as in the contract's example."""
    assert rfc3339(1750167607000) == "2025-06-17T13:40:07.000Z"
    assert rfc3339(1750169702113) == "2025-06-17T14:15:02.113Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"


def test_short_time_has_a_fraction_only_when_there_is_one() -> None:
    """Times in records carry milliseconds when they are known."""
    assert short_time(1750167607000) == "2025-06-17T13:40:07Z"
    assert short_time(1750167607050) == "2025-06-17T13:40:07.050Z"


@given(st.integers(0, LAST))
def test_moment_reads_what_was_written(ts: int) -> None:
    """A written time read again is the same millisecond, in both forms."""
    assert parse_time(rfc3339(ts)) == ts
    assert parse_time(short_time(ts)) == ts


@pytest.mark.parametrize(
    "value",
    [
        "2025-06-17T13:40:07Z",
        "2025-06-17T13:40:07.000Z",
        " 2025-06-17T13:40:07+00:00 ",
        "2025-06-17T15:40:07+0200",
        "2025-06-17T15:40:07+02:00",
        "2025-06-17 13:40:07",
        "2025-06-17T13:40:07z",
        "2025-06-17t13:40:07z",
        "2025-06-17T13:40:07Z[UTC]",
        "2025-06-17T15:40:07+02:00[Europe/Berlin]",
        1750167607,
        1750167607.0,
        1750167607000,
        "1750167607",
        "1750167607000",
        1750167607000123,
        1750167607000123456,
        "1750167607000123456",
    ],
)
def test_moment_reads_every_form_of_a_time(value: object) -> None:
    """RFC 3339 with any offset, without one, and an epoch in s, ms, us or ns are the same time."""
    assert parse_time(value) == 1750167607000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00.500Z"),
        ("2025-06-17T13:40:60+00:00", "2025-06-17T13:41:00Z"),
    ],
)
def test_second_60_is_the_first_of_the_next_minute(text: str, expected: str) -> None:
    """A leap second, which has no place in a POSIX time, is published as the second behind it."""
    assert values.time_reader(UTC)(text) == expected


@pytest.mark.parametrize("value", [None, "", " ", "N/A", "n/a", "null", "-"])
def test_moment_of_nothing_is_absent(value: object) -> None:
    """A time that is not known is None, never the epoch."""
    assert parse_time(value) is None


@pytest.mark.parametrize(
    "value",
    [
        True,
        [],
        {},
        "yesterday",
        "2025-13-01",
        float("nan"),
        float("inf"),
        -5,
        "1969-12-31T23:59:59Z",
        1e300,
        "99999999999999999999",
        10**400,
        -(10**400),
        "1" * 401,
        "0001-01-01T00:00:00Z",
        "2025-06-17T13:40:07[Europe/Berlin]",
        "9999-12-31T23:59:60Z",
        "0001-01-01T00:00:00+23:59",
        "2025-06-17T13:40:61Z",
        " " * 5000,
    ],
)
def test_moment_of_nonsense_is_odd(value: object) -> None:
    """What is there and is no time between 1970 and 9999 is Odd, not a wrong time."""
    with pytest.raises(Unparseable):
        parse_time(value)


def test_moment_without_offset_stands_in_the_zone() -> None:
    """A time without an offset is one of `mapping.timezone`; one with an offset is not moved."""
    berlin = ZoneInfo("Europe/Berlin")
    assert parse_time("2025-06-17T15:40:07", berlin) == 1750167607000
    assert parse_time("2025-06-17T13:40:07Z", berlin) == 1750167607000


@given(st.datetimes(datetime(1971, 1, 1), datetime(9999, 12, 30)), st.sampled_from(["UTC", "Europe/Berlin"]))  # noqa: DTZ001 -- without a zone on purpose
def test_moment_is_the_time_that_the_zone_says(when: datetime, zone: str) -> None:
    """A local time of a zone is read as that zone's time, to the millisecond."""
    expected = when.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).timestamp() * 1000
    moment = parse_time(when.isoformat(), ZoneInfo(zone))
    assert moment is not None
    assert abs(expected - moment) <= 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", "a"), ("", ""), (5, "5"), (2.5, "2.5"), (True, "true"), (False, "false"), (None, None), ("N/A", None)],
)
def test_text_is_the_decimal_form_or_absent(value: object, expected: str | None) -> None:
    """Numbers and flags become texts because ids come as either; N/A and null are absent."""
    assert expected == parse_text(value)


@pytest.mark.parametrize("read", [parse_text, parse_flag, parse_quantity])
@pytest.mark.parametrize("value", [{}, {"a": 1}, [1]])
def test_structures_are_odd(read: Any, value: object) -> None:
    """An object or a list where a single value belongs is Odd."""
    with pytest.raises(Unparseable):
        read(value)


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), ("TRUE", True), (" false ", False), (False, False), (None, None)]
)
def test_flag_reads_booleans_and_their_words(value: object, expected: bool | None) -> None:
    """True and false are read as booleans and as words of any case."""
    assert expected is parse_flag(value)


def test_flag_of_a_number_is_odd() -> None:
    """1 is not true: a field never changes its JSON type by guessing."""
    with pytest.raises(Unparseable):
        parse_flag(1)


def test_words_keep_the_order_without_nulls() -> None:
    """A list of texts keeps the API's order; nulls and empty texts are left out; a single text is a list of one."""
    assert parse_texts(["b", None, "a", "", 3]) == ["b", "a", "3"]
    assert parse_texts("a") == ["a"]
    assert parse_texts([]) == []
    assert parse_texts(None) is None


def test_texts_are_a_set() -> None:
    """A list whose order means nothing is published sorted, each text once."""
    assert parse_text_set(["b", None, "a", "", "b"]) == parse_text_set(["a", "b"]) == ["a", "b"]
    assert parse_text_set(None) is None


def test_whole_number_stays_whole() -> None:
    """An integer that a float cannot hold is read and published to the last digit."""
    for value in (2**53 + 1, str(2**53 + 1), -(2**63)):
        number, _ = parse_quantity(value) or (0, "")
        assert type(number) is int
        assert round_as_published("wan_tx_bytes", number) == int(value)


@pytest.mark.parametrize(("name", "number"), [("x_bytes", 1e300), ("x_bytes", 2**63), ("x", 1e308 * 10)])
def test_number_that_overflows_in_its_unit_is_odd(name: str, number: float) -> None:
    """What has no place in the published type is unreadable, not an error that ends the process."""
    with pytest.raises(Unparseable):
        round_as_published(name, number)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (500, (500.0, "")),
        (0, (0.0, "")),
        ("500", (500.0, "")),
        ("500 GB", (500.0, "GB")),
        ("-3.5dBm", (-3.5, "dBm")),
        ("1 000 000 B", (1000000.0, "B")),
        ("1e3", (1000.0, "")),
        (2**53 + 1, (2**53 + 1, "")),
        ("9007199254740993 B", (2**53 + 1, "B")),
        ("9 007 199 254 740 993", (2**53 + 1, "")),
        (2**63 - 1, (2**63 - 1, "")),
        (None, None),
        ("", None),
        ("N/A", None),
        ("-", None),
        ("5,5", (5.5, "")),
        ("-40,25 dBm", (-40.25, "dBm")),
        ("0,125", (0.125, "")),
        ("1.234,5 GB", (1234.5, "GB")),
        ("1,234.5 GB", (1234.5, "GB")),
        ("1,234,567", (1234567, "")),
        ("-1,234,567.5 B", (-1234567.5, "B")),
    ],
)
def test_amount_reads_numbers_and_units(value: object, expected: tuple[float, str] | None) -> None:
    """A number, a numeric text and one with a unit behind it are read; what is not known is None, never 0."""
    assert expected == parse_quantity(value)


@pytest.mark.parametrize(
    "value",
    [
        *(
            True,
            "many",
            "1,000 GB",
            "62.47,6.02",
            "1,23,456.7",
            "12:30",
            "1.2.3",
            "1e999",
            float("nan"),
            float("-inf"),
            10**400,
            -(10**400),
        ),
        *(2**63, -(2**63) - 1, str(2**63), "1" * 401, "1" + 4000 * " " + "_"),
    ],
)
def test_amount_of_nonsense_is_odd(value: object) -> None:
    """What is no finite number of 64 bits is Odd: neither NaN nor an integer that nobody can store reaches JSON."""
    with pytest.raises(Unparseable):
        parse_quantity(value)


@given(ANYTHING)
def test_readers_give_a_value_nothing_or_odd(value: object) -> None:
    """Whatever comes, every reader returns its type or None, or raises Odd and nothing else."""
    kinds: list[tuple[Any, tuple[type, ...]]] = [
        (parse_text, (str,)),
        (parse_flag, (bool,)),
        (parse_texts, (list,)),
        (parse_time, (int,)),
        (values.time_reader(UTC), (str,)),
        (parse_quantity, (tuple,)),
    ]
    for read, types in kinds:
        try:
            parsed = read(value)
        except Unparseable:
            continue
        assert parsed is None or type(parsed) in types


@given(ANYTHING)
def test_odd_says_what_was_expected_in_a_short_line(value: object) -> None:
    """The sentence of Odd names what was expected and does not carry a whole document."""
    said_of_it = []
    for read in (parse_text, parse_flag, parse_time, parse_quantity):
        try:
            read(value)
        except Unparseable as error:
            said_of_it.append(str(error))
    assert all(sentence.startswith("expected ") and len(sentence) < 140 for sentence in said_of_it)


@given(
    st.sampled_from(["cnx_tx_bytes", "be_uplink_bps", "overage_blocks"]),
    st.floats(-9e18, 9e18, allow_nan=False),
)
def test_whole_fields_are_integers(name: str, number: float) -> None:
    """Fields that end in _bytes, _bps or _blocks are integers."""
    assert type(round_as_published(name, number)) is int


@given(
    st.sampled_from(["rsrp_dbm", "used_gb", "latitude", "elevation_m", "x"]),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_other_fields_are_floats(name: str, number: float) -> None:
    """Every other number is a float, also a whole one."""
    assert type(round_as_published(name, number)) is float


def test_published_float_has_no_noise() -> None:
    """What a conversion adds behind the ninth digit is not published."""
    assert round_as_published("used_gb", 0.1 + 0.2) == 0.3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("packetLoss", "packet_loss"),
        ("RSRP", "rsrp"),
        ("cnxTx", "cnx_tx"),
        ("HTTPErrors", "http_errors"),
        ("a-b c.d", "a_b_c_d"),
        ("  x  ", "x"),
        ("ünï", "n"),
        ("__", ""),
    ],
)
def test_snake_makes_a_field_name(name: str, expected: str) -> None:
    """An indicator's name becomes lower case with single underscores."""
    assert expected == snake(name)


@given(st.text(max_size=20))
def test_snake_is_always_legal(name: str) -> None:
    """Whatever the API calls an indicator, its field name has only a-z, 0-9 and single inner underscores."""
    snake_name = snake(name)
    assert set(snake_name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    assert "__" not in snake_name
    assert snake_name == snake_name.strip("_")


@pytest.mark.parametrize(
    "text", ["2024-02-16T05:50:15Z", "1970-01-01T00:00:00Z", "2024-02-29T23:59:59Z", "9999-12-31T23:59:59Z"]
)
def test_time_that_is_as_published_stays(text: str) -> None:
    """A time in the published form is what its own moment would be written as."""
    assert values.time_reader(UTC)(text) == text == short_time(values.parse_time(text) or 0)


@pytest.mark.parametrize("text", ["2024-W07-5T05:50:15Z", "2024-02-16 05:50:15Z"])
def test_time_in_another_form_of_the_same_length_is_written_anew(text: str) -> None:
    """Twenty characters and a Z are not enough."""
    assert len(text) == 20
    assert values.time_reader(UTC)(text) == "2024-02-16T05:50:15Z"


@pytest.mark.parametrize("text", ["2024-02-16T24:00:00Z", "\uff12024-02-16T05:50:15Z"])
def test_time_that_only_looks_as_published_is_not_taken_as_it_is(text: str) -> None:
    """Hour 24, which newer Pythons read as the next day, and digits of other scripts."""
    assert values._AS_PUBLISHED.fullmatch(text) is None
