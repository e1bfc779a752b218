"""Units: which letters mean what, what is converted into what, and what is refused."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.decode.catalogue import CALLS, FieldType
from oneweb_bridge.decode.fields import _CONVERTERS, DecodeRules
from oneweb_bridge.decode.records import record_decoder
from oneweb_bridge.decode.units import UNITS, can_convert, convert, dimension_of, name_unknown_indicator
from oneweb_bridge.decode.values import Unparseable


@pytest.mark.parametrize(
    ("number", "unit", "wanted", "expected"),
    [
        (1.5, "Mbps", "bps", 1_500_000),
        (1, "kbit/s", "bps", 1000),
        (2, "MB/s", "bps", 16_000_000),
        (2, "Mb/s", "bps", 2_000_000),
        (2, "MBps", "bps", 16_000_000),
        (1000, "KiB/s", "bps", 8_192_000),
        (1, "Mibit/s", "bps", 1_048_576),
        (8, "Gbps", "Mbps", 8000),
        (2, "GB", "B", 2_000_000_000),
        (2, "GBy", "B", 2_000_000_000),
        (1, "kB", "B", 1000),
        (1, "KiB", "B", 1024),
        (1, "MiB", "B", 2**20),
        (1, "GiB", "B", 2**30),
        (8, "Mbit", "MB", 1),
        (8, "Mb", "MB", 1),
        (1500, "MB", "GB", 1.5),
        (0.5, "ratio", "%", 50),
        (0.25, "s", "ms", 250),
        (1500, "us", "ms", 1.5),
        (1500, "\u00b5s", "ms", 1.5),
        (2, "min", "s", 120),
        (5, "", "GB", 5),
        (5, "block", "block", 5),
    ],
)
def test_letters_of_a_unit_decide(number: float, unit: str, wanted: str, expected: float) -> None:
    """Units that measure the same are converted, bits and bytes, thousands and 1024 told apart by their letters."""
    assert convert(number, unit, wanted) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({}, 500),
        ({"unit": "ft"}, 152.4),
        ({"unit": "km"}, 500_000),
        # Other values have these, or they are no units at all.
        ({"unit": "deg"}, 500),
        ({"unit": "UT-0042"}, 500),
        ({"units": "metric"}, 500),
        ({"unit": "KB"}, 500),
        ({"zUnit": "mb"}, None),
        ({"unit": "Feet"}, 152.4),
        ({"unit": "KM"}, None),
    ],
)
def test_unit_beside_several_values_counts_where_it_can_be_this_ones(
    beside: dict[str, str], expected: float | None
) -> None:
    """What resembles a unit of the value and is none is told, and the number is not taken as it is."""
    place = {"geometry": [{"x": 1, "y": 2, "z": 500, **beside}]}
    record = record_decoder(CALLS["sites"], DecodeRules())("S", {"id": "S", "geographicLocation": place})
    assert record.fields.get("elevation_m") == expected
    assert list(record.unparseable) == ([] if expected else ["elevation_m"])


def test_unit_of_data_in_another_case_beside_several_values_is_told() -> None:
    """`KB` may be kB or Kbit: such a number is left out."""
    fields = {"currentBalance": 500, "reservedValue": 1}
    for unit, expected in (("kB", 0.0005), ("KB", None), ("deg", 500)):
        bucket = {"id": "B", "bucketBalance": [{**fields, "unit": unit}]}
        record = record_decoder(CALLS["usage_consumption"], DecodeRules())("B", bucket)
        assert record.fields.get("current_balance_gb") == expected


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [
        ("mb", "GB"),
        ("gb", "GB"),
        ("KB", "B"),
        ("mbps", "bps"),
        ("MBPS", "bps"),
        ("GB of data", "GB"),
        ("dBm", "B"),
        ("MB", "bps"),
        ("MS", "ms"),
        ("dbm", "dBm"),
        ("parsec", "m"),
        ("x" * 10_000, "B"),
    ],
)
def test_unknown_unit_is_refused(unit: str, wanted: str) -> None:
    """A unit that is not known, or that measures something else, is never taken for the right one."""
    assert not can_convert(unit, wanted)
    with pytest.raises(Unparseable, match="expected a number in"):
        convert(5, unit, wanted)


@given(st.integers(-(2**63), 2**63 - 1))
def test_whole_number_is_converted_exactly(number: int) -> None:
    """No bit of a whole number is lost on the way into a smaller unit, or into none."""
    assert convert(number, "B", "B") == number
    assert convert(number, "kB", "B") == number * 1000
    assert convert(number * 1000, "B", "kB") == number
    assert type(convert(number, "MB/s", "bps")) is int


def test_every_published_unit_is_known() -> None:
    """What the catalogue publishes and assumes can be converted, or the bridge would refuse its own defaults."""
    for call in CALLS.values():
        for field in call.fields:
            assert {unit for unit in (field.unit, field.raw_unit) if unit} <= UNITS.keys()
            assert can_convert(field.raw_unit, field.unit)


def test_dimension_is_the_same_for_all_that_can_be_converted() -> None:
    """Bits and bytes measure the same; an unknown unit measures itself."""
    assert dimension_of("kB") == dimension_of("Mbit") != dimension_of("Mbps") == dimension_of("MB/s")
    assert dimension_of("gb") == "gb"


@pytest.mark.parametrize(
    ("name", "unit", "expected"),
    [
        ("modemTemperature", "deg", ("modem_temperature_deg", "deg")),
        ("packetRate", "kbps", ("packet_rate_bps", "bps")),
        ("packetRate", "MB/s", ("packet_rate_bps", "bps")),
        ("queue", "MB", ("queue_bytes", "B")),
        ("queue", "Mb", ("queue_bits", "bit")),
        ("queue", "mb", ("queue", "mb")),
        ("lossPct", "%", ("loss_pct", "%")),
        ("sinr2", "dB", ("sinr2_db", "dB")),
        ("beams", "", ("beams", "")),
        ("spin", "rpm", ("spin", "rpm")),
    ],
)
def test_unknown_indicator_carries_its_unit(name: str, unit: str, expected: tuple[str, str]) -> None:
    """An indicator that nobody told us of gets its own snake_case name with the ending of its unit, once."""
    assert name_unknown_indicator(name, unit) == expected


def test_every_type_of_field_has_a_reader() -> None:
    """A type that the configuration takes is one that a record can be read by."""
    assert {*_CONVERTERS, "time", "number"} == set(get_args(FieldType))
