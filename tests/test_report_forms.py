"""The forms in which a report may hold its measurements, and which rows count as not understood."""

from typing import Any

import pytest

from oneweb_bridge.decode.fields import DecodeRules
from oneweb_bridge.decode.samples import Measured, sample_decoder
from tests.test_decode import POLLING

TIME, TS = "2025-06-17T13:40:07Z", 1750167607000
SIGNAL = {"rsrp_dbm": -40.0, "sinr_db": 10.2}


def decoded(entry: dict[str, Any], call: str = "ut_signal_quality") -> Measured:
    return sample_decoder(POLLING[call], DecodeRules())("359235170006117", entry)


@pytest.mark.parametrize(
    "entry",
    [
        {"measurement": [{"timestamp": TIME, "performanceIndicator": {"rsrp": -40, "sinr": {"value": 10.2}}}]},
        {
            "measurement": [
                {"timestamp": TIME, "kpis": [{"metric": "RSRP", "val": -40}, {"metric": "SINR", "val": 10.2}]}
            ]
        },
        {"measurement": [{"timestamp": TIME, "rsrp": -40, "sinr": {"value": 10.2, "unit": "dB"}, "id": 7}]},
        {
            "measurement": [
                {"timestamp": TIME, "kpiName": "rsrp", "kpiValue": "-40", "unit": "dBm"},
                {"timestamp": TIME, "kpiName": "sinr", "kpiValue": 10.2},
            ]
        },
        {"timestamp": TIME, "rsrp": -40, "sinr": 10.2, "cell": 12},
        {"rsrp": [[TIME, -40]], "sinr": [[TIME, 10.2]]},
        {"values": {"rsrp": [{"time": TIME, "value": -40}], "sinr": [{"time": TIME, "value": 10.2}]}},
        {"series": [{"name": "rsrp", "points": [[TS, -40]]}, {"name": "sinr", "points": [{"ts": TIME, "val": 10.2}]}]},
    ],
)
def test_a_report_is_read_in_every_common_form(entry: dict[str, Any]) -> None:
    """What DataMiner, TMF and time-series databases call a report gives the same sample, without configuration."""
    samples = decoded(entry)
    assert [(sample.ts, sample.values) for sample in samples.samples] == [(TS, SIGNAL)]
    assert (samples.unread_rows, samples.unparseable) == (0, {})


def test_an_empty_list_of_measurements_or_indicators_is_no_row() -> None:
    assert decoded({"measurement": []}) == decoded({"measurement": None}) == Measured()
    no_values = {"timestamp": TIME, "performanceIndicator": [{"name": "rsrp", "value": None}]}
    for measurement in (no_values, {"timestamp": TIME, "performanceIndicator": []}):
        assert decoded({"measurement": [measurement]}) == Measured()


@pytest.mark.parametrize(
    "entry",
    [
        {"href": "x"},
        {"measurement": [{"timestamp": TIME, "readings": {"a": 1}}]},
        {"measurement": [{"timestamp": TIME, "performanceIndicator": [{"label": "rsrp", "reading": -40}]}]},
    ],
)
def test_a_row_that_no_form_understands_is_counted(entry: dict[str, Any]) -> None:
    """Without this a report in an unknown form would be polled for ever, with status ok and no sample."""
    samples = decoded(entry)
    assert (samples.samples, samples.rows, samples.unread_rows) == ([], 1, 1)


@pytest.mark.parametrize("member", ["unit", "uom", "units", "unitOfMeasure", "indicatorUnit"])
def test_the_unit_beside_a_value_is_used(member: str) -> None:
    """A counter in kB is not published as a thousandth of itself, whatever the member with its unit is called."""
    indicator = {"name": "cnxTx", "value": 5, member: "kB"}
    samples = decoded({"measurement": [{"timestamp": TIME, "performanceIndicator": [indicator]}]}, "ut_traffic")
    assert samples.samples[0].values == {"cnx_tx_bytes": 5000}
    flat = {"timestamp": TIME, "cnxTx": {"value": 5, member: "kB"}}
    assert decoded({"measurement": [flat]}, "ut_traffic").samples[0].values == {"cnx_tx_bytes": 5000}


def test_a_member_may_have_a_unit_of_its_own() -> None:
    """It is converted by it; one in an unknown unit is told, and not published as if it were in bytes."""
    flat = {"timestamp": TIME, "cnxTx": 5, "cnxRx": 7, "cnxTxUnit": "kB"}
    assert decoded({"measurement": [flat]}, "ut_traffic").samples[0].values == {"cnx_tx_bytes": 5000, "cnx_rx_bytes": 7}
    samples = decoded({"measurement": [flat | {"cnxTxUnit": "KB"}]}, "ut_traffic")
    assert list(samples.unparseable) == ["cnx_tx_bytes"]
    assert samples.samples[0].values == {"cnx_rx_bytes": 7}


@pytest.mark.parametrize(
    "entry",
    [
        {"timestamps": [TIME], "cnxTx": [5], "cnxTxUnit": "kB"},
        {"cnxTx": [[TIME, 5]], "cnxTxUnit": "kB"},
        {"timestamps": [TIME], "cnxTx": [5], "cnxTxUnit": ["kB"]},
        {"measurement": [{"timestamp": TIME, "counter": "cnxTx", "val": 5, "counterUnit": "kB"}]},
        {"measurement": [{"timestamp": TIME, "cnxTx": {"value": 5}, "cnxTxUnit": "kB"}]},
        {"measurement": [{"timestamp": TIME, "kpiName": "cnxTx", "kpiValue": 5, "kpiValueUnit": "kB"}]},
        {
            "measurement": [
                {"timestamp": TIME, "performanceIndicator": [{"name": "cnxTx", "value": 5, "valueUnit": "kB"}]}
            ]
        },
        {"measurement": [{"timestamp": TIME, "performanceIndicator": {"cnxTx": 5, "cnxTxUnit": None, "unit": "kB"}}]},
    ],
)
def test_unit_of_its_own_is_used_in_every_form(entry: dict[str, Any]) -> None:
    samples = decoded(entry, "ut_traffic")
    assert [sample.values for sample in samples.samples] == [{"cnx_tx_bytes": 5000}]


def test_a_unit_that_contradicts_the_mapping_is_told() -> None:
    indicator = {"name": "cnxTx", "value": 5, "unit": "dBm"}
    samples = decoded({"measurement": [{"timestamp": TIME, "performanceIndicator": [indicator]}]}, "ut_traffic")
    assert list(samples.unparseable) == ["cnx_tx_bytes"]
