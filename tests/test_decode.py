"""The API's JSON: the records and samples of the sample files, every other shape, and any bytes at all."""

import json
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from oneweb_bridge.config.read import parse
from oneweb_bridge.decode import record_hashes
from oneweb_bridge.decode.border import BadPage, Unreadable
from oneweb_bridge.decode.catalogue import CALLS, Call, Field
from oneweb_bridge.decode.fields import DecodeRules
from oneweb_bridge.decode.pages import decode_record, expand_tables, split_page, value_at
from oneweb_bridge.decode.records import KEYS, record_decoder
from oneweb_bridge.decode.samples import sample_decoder
from oneweb_bridge.model.records import DecodedRecord, Sample

FOLDER = Path(__file__).parent / "samples"
POLLING = parse("", {}).polling
FILES = {
    **{call: call for call in ("user_terminals", "user_terminal_components", "products", "organizations", "sites")},
    **{call: call.replace("ut_", "ut_performance_") for call in CALLS if call.startswith("ut_")},
    "product_throughput": "product_performance_throughput",
    "usage_consumption": "usage_consumption",
}
REPORTS = [call.id for call in POLLING.values() if call.reads == "report"]


def body_of(call: str) -> bytes:
    return (FOLDER / f"{FILES[call]}.json").read_bytes()


def readings(call: Call, body: bytes, rules: DecodeRules | None = None) -> list[DecodedRecord]:
    key, read = record_hashes.key_reader(call), record_decoder(call, rules or DecodeRules())
    return [read(key(raw), decode_record(raw)) for raw in split_page(body, call.records).records]


def sampled(call: Call, entry: object, rules: DecodeRules | None = None) -> tuple[list[Sample], int]:
    measured = sample_decoder(call, rules or DecodeRules())("X", entry)
    return measured.samples, len(measured.set_aside)


def read_one(call: str, record: object, rules: DecodeRules | None = None) -> DecodedRecord:
    return record_decoder(POLLING[call], rules or DecodeRules())("X", record)


# --- the sample files -----------------------------------------------------------------------------

RECORDS: dict[str, dict[str, dict[str, object]]] = {
    "user_terminals": {
        "359235170006117": {
            "imei": "359235170006117",
            "imsi": "001010170006117",
            "name": "Terminal Alesund",
            "serial_number": "INS-RA01-004417",
            "state": "online",
            "start_time": "2025-02-03T09:30:00Z",
            "first_seen": "2025-02-03T09:41:12Z",
            "last_seen": "2025-06-17T14:14:58Z",
            "hardware_version": "HW-2.0.1",
            "manufacturer": "Inster",
            "party_id": "ACC-101",
            "party_name": "Northlight Networks",
            "end_customer_id": "ACC-201",
            "end_customer_name": "Fjord Salmon Farms",
            "site_id": "SITE-001",
            "site_external_id": "NO-ALE-01",
            "product_ids": ["SC-410027318845"],
            "longitude": 6.021412,
            "latitude": 62.472228,
            "elevation_m": 14.5,
        },
        "359235170007289": {
            "imei": "359235170007289",
            "imsi": "001010170007289",
            "name": "Terminal Aberdeen",
            "serial_number": "INS-RA01-004502",
            "state": "online",
            "start_time": "2025-02-17T12:00:00Z",
            "first_seen": "2025-02-17T12:20:55Z",
            "last_seen": "2025-06-17T14:15:01Z",
            "hardware_version": "HW-2.0.1",
            "manufacturer": "Inster",
            "party_id": "ACC-101",
            "party_name": "Northlight Networks",
            "end_customer_id": "ACC-202",
            "end_customer_name": "Bluewater Drilling",
            "site_id": "SITE-002",
            "site_external_id": "GB-ABZ-07",
            "product_ids": ["SC-410027318852"],
            "longitude": -2.094278,
            "latitude": 57.149651,
            "elevation_m": 21.0,
        },
        "359235170008550": {
            "imei": "359235170008550",
            "imsi": "001010170008550",
            "name": "Terminal Punta Arenas",
            "serial_number": "OW70-118834",
            "state": "offline",
            "start_time": "2025-04-08T16:45:00Z",
            "first_seen": "2025-04-08T17:02:31Z",
            "last_seen": "2025-06-17T03:22:40Z",
            "hardware_version": "HW-1.4.5",
            "manufacturer": "Intellian",
            "party_id": "ACC-102",
            "party_name": "Meridian Satcom",
            "end_customer_id": "ACC-203",
            "end_customer_name": "Harbour Pilots Cooperative",
            "site_id": "SITE-003",
            "site_external_id": "CL-PUQ-02",
            "product_ids": ["SC-410027319011"],
            "longitude": -70.917129,
            "latitude": -53.163833,
            "elevation_m": 9.25,
        },
    },
    "user_terminal_components": {
        "359235170006117": {
            "main/AIM": "1.0.0.196",
            "main/CNX": "420.204.1.022",
            "main/EGR": "2.1.7",
            "main/MDM": "4.0.1.305RP",
            "main/MIM": "0.0.0",
            "main/SSM": "SSMv2_5.0.65",
            "main/SSM_BSP": "SSM_BSP_4.0.24",
            "main/UT": "INSTER-RA01_2.0.3",
        },
        "359235170007289": {
            "main/AIM": "1.0.0.196",
            "main/CNX": "420.204.1.022",
            "main/EGR": "2.1.7",
            "main/MDM": "4.0.1.305RP",
            "main/MIM": "0.0.0",
            "main/SSM": "SSMv2_5.0.65",
            "main/SSM_BSP": "SSM_BSP_4.0.24",
            "main/UT": "INSTER-RA01_2.0.3",
        },
        "359235170008550": {
            "main/AIM": "1.0.0.190",
            "main/CNX": "420.204.1.018",
            "main/EGR": "2.1.5",
            "main/MDM": "4.0.1.301RP",
            "main/MIM": "0.0.0",
            "main/SSM": "SSM_5.0.70",
            "main/SSM_BSP": "SSM_BSP_4.0.24",
            "main/UT": "OW-IESA_2.0.0.9",
        },
    },
    "products": {
        "SC-410027318845": {
            "product_id": "SC-410027318845",
            "name": "OneWeb Maritime",
            "description": "Maritime plan with monthly allowance",
            "is_bundle": False,
            "status": "active",
            "start_date": "2025-02-01T00:00:00Z",
            "billing_start_date": "2025-02-01T00:00:00Z",
            "last_update": "2025-06-02T08:11:40Z",
            "site_id": "SITE-001",
            "distribution_partner_id": "ACC-101",
            "distribution_partner_name": "Northlight Networks",
            "end_customer_id": "ACC-201",
            "end_customer_name": "Fjord Salmon Farms",
            "imei": "359235170006117",
            "allowance_gb": 300.0,
            "allowance_unlimited": False,
            "overage_increment_gb": 30.0,
            "max_bandwidth_downlink_mbps": 40.0,
            "max_bandwidth_uplink_mbps": 15.0,
            "budgeted_amount_mbps": 45.0,
            "min_antenna_gain_dbk": 8.5,
            "ip_static_address": "192.0.2.40",
            "ip_addressing_type": "Static",
            "service_grade": "Silver",
        },
        "SC-410027318852": {
            "product_id": "SC-410027318852",
            "name": "OneWeb Premium",
            "description": "Uncapped plan for fixed sites",
            "is_bundle": True,
            "status": "active",
            "start_date": "2025-02-15T00:00:00Z",
            "billing_start_date": "2025-02-15T00:00:00Z",
            "last_update": "2025-05-28T10:02:07Z",
            "site_id": "SITE-002",
            "distribution_partner_id": "ACC-101",
            "distribution_partner_name": "Northlight Networks",
            "end_customer_id": "ACC-202",
            "end_customer_name": "Bluewater Drilling",
            "imei": "359235170007289",
            "allowance_unlimited": True,
            "overage_increment_gb": 25.0,
            "max_bandwidth_downlink_mbps": 50.0,
            "max_bandwidth_uplink_mbps": 20.0,
            "budgeted_amount_mbps": 60.0,
            "min_antenna_gain_dbk": 9.0,
            "ip_static_address": "192.0.2.20",
            "ip_addressing_type": "Static",
            "service_grade": "Gold",
        },
        "SC-410027319011": {
            "product_id": "SC-410027319011",
            "name": "OneWeb Business",
            "description": "Business plan, pooled allowance",
            "is_bundle": False,
            "status": "suspended",
            "start_date": "2025-04-01T00:00:00Z",
            "billing_start_date": "2025-04-01T00:00:00Z",
            "last_update": "2025-06-16T21:30:00Z",
            "site_id": "SITE-003",
            "distribution_partner_id": "ACC-102",
            "distribution_partner_name": "Meridian Satcom",
            "end_customer_id": "ACC-203",
            "end_customer_name": "Harbour Pilots Cooperative",
            "imei": "359235170008550",
            "allowance_gb": 150.0,
            "allowance_unlimited": False,
            "overage_increment_gb": 15.0,
            "max_bandwidth_downlink_mbps": 30.0,
            "max_bandwidth_uplink_mbps": 10.0,
            "budgeted_amount_mbps": 35.0,
            "min_antenna_gain_dbk": 8.5,
            "ip_addressing_type": "Dynamic",
            "service_grade": "Silver",
        },
    },
    "organizations": {
        "ACC-101": {
            "organization_id": "ACC-101",
            "name": "Northlight Networks",
            "kind": "distribution_partner",
            "status": "validated",
        },
        "ACC-102": {
            "organization_id": "ACC-102",
            "name": "Meridian Satcom",
            "kind": "distribution_partner",
            "status": "validated",
        },
        "ACC-201": {
            "organization_id": "ACC-201",
            "name": "Fjord Salmon Farms",
            "parent_id": "ACC-101",
            "kind": "end_customer",
            "status": "validated",
        },
        "ACC-202": {
            "organization_id": "ACC-202",
            "name": "Bluewater Drilling",
            "parent_id": "ACC-101",
            "kind": "end_customer",
            "status": "validated",
        },
        "ACC-203": {
            "organization_id": "ACC-203",
            "name": "Harbour Pilots Cooperative",
            "parent_id": "ACC-102",
            "kind": "end_customer",
            "status": "validated",
        },
    },
    "sites": {
        "SITE-001": {
            "site_id": "SITE-001",
            "name": "Alesund fish farm",
            "description": "Feed barge, fixed mount",
            "code": "NO-ALE-01",
            "status": "active",
            "related_party_id": "ACC-101",
            "address_street_nr": "12",
            "address_street_name": "Moloveien",
            "address_city": "Alesund",
            "address_postcode": "6004",
            "address_country": "NO",
            "latitude": 62.472228,
            "longitude": 6.021412,
            "elevation_m": 14.5,
        },
        "SITE-002": {
            "site_id": "SITE-002",
            "name": "Aberdeen harbour",
            "description": "Quay 3 office roof",
            "code": "GB-ABZ-07",
            "status": "active",
            "related_party_id": "ACC-101",
            "address_street_nr": "3",
            "address_street_name": "Regent Quay",
            "address_city": "Aberdeen",
            "address_postcode": "AB11 5BE",
            "address_country": "GB",
            "latitude": 57.149651,
            "longitude": -2.094278,
            "elevation_m": 21.0,
        },
        "SITE-003": {
            "site_id": "SITE-003",
            "name": "Punta Arenas pilot station",
            "description": "Pilot launch shelter",
            "code": "CL-PUQ-02",
            "status": "active",
            "related_party_id": "ACC-102",
            "address_street_nr": "840",
            "address_street_name": "Avenida Costanera",
            "address_city": "Punta Arenas",
            "address_postcode": "6200000",
            "address_country": "CL",
            "latitude": -53.163833,
            "longitude": -70.917129,
            "elevation_m": 9.25,
        },
    },
    "usage_consumption": {
        "1209417733-171120048": {
            "bucket_id": "1209417733-171120048",
            "bucket_name": "Maritime 300 GB monthly",
            "bucket_type": "cycle",
            "usage_type": "data",
            "is_shared": False,
            "entitlement_renew": "2025-07-01T00:00:00Z",
            "remaining_label": "0 GB of data",
            "remaining_gb": 0.0,
            "remaining_unlimited": False,
            "valid_from": "2025-06-01T00:00:00Z",
            "valid_until": "2025-06-30T23:59:59Z",
            "counter_type": "usage",
            "counter_level": "global",
            "used_gb": 318.4,
            "entitlement_gb": 300.0,
            "overage_blocks": 1,
            "product_id": "SC-410027318845",
            "user_id": "SITE-001",
            "product_name": "OneWeb Maritime",
            "effective_date": "2025-06-17T14:15:00Z",
        },
        "1209417733-171120061": {
            "bucket_id": "1209417733-171120061",
            "bucket_name": "Premium unlimited data",
            "bucket_type": "cycle",
            "usage_type": "data",
            "is_shared": False,
            "entitlement_renew": "2025-07-01T00:00:00Z",
            "remaining_label": "Unlimited",
            "remaining_unlimited": True,
            "valid_from": "2025-06-01T00:00:00Z",
            "valid_until": "2025-06-30T23:59:59Z",
            "counter_type": "usage",
            "counter_level": "global",
            "used_gb": 912.7,
            "overage_blocks": 0,
            "product_id": "SC-410027318852",
            "user_id": "SITE-002",
            "product_name": "OneWeb Premium",
            "effective_date": "2025-06-17T14:15:00Z",
        },
        "1309418120-181130007": {
            "bucket_id": "1309418120-181130007",
            "bucket_name": "Business pooled allowance",
            "bucket_type": "cycle",
            "usage_type": "data",
            "is_shared": True,
            "entitlement_renew": "2025-07-01T00:00:00Z",
            "remaining_label": "88.2 GB of data",
            "remaining_gb": 88.2,
            "remaining_unlimited": False,
            "valid_from": "2025-06-01T00:00:00Z",
            "valid_until": "2025-06-30T23:59:59Z",
            "counter_type": "usage",
            "counter_level": "global",
            "used_gb": 61.8,
            "entitlement_gb": 150.0,
            "overage_blocks": 0,
            "product_id": "SC-410027319011",
            "user_id": "SITE-003",
            "product_name": "OneWeb Business",
            "shared_allowance_id": "POOL-7001-02",
            "shared_allowance_name": "Harbour sub-pool A",
            "shared_allowance_parent_id": "POOL-7001",
            "effective_date": "2025-06-17T14:15:00Z",
        },
    },
}

SAMPLES: dict[str, list[tuple[str, int, dict[str, object]]]] = {
    "ut_link_availability": [
        ("359235170006117", 1750164775000, {"link_availability_pct": 100.0}),
        ("359235170007289", 1750164775000, {"link_availability_pct": 99.72}),
        ("359235170008550", 1750164775000, {"link_availability_pct": 0.0}),
    ],
    "ut_signal_quality": [
        ("359235170006117", 1750167607000, {"rsrp_dbm": -40.0, "rssi_dbm": -106.0, "sinr_db": 10.2}),
        ("359235170007289", 1750167606000, {"rsrp_dbm": -43.0, "rssi_dbm": -108.0, "sinr_db": 7.8}),
    ],
    "ut_resource_state": [
        ("359235170006117", 1750169640000, {"resource_state": "online"}),
        ("359235170007289", 1750169701000, {"resource_state": "online"}),
        ("359235170008550", 1750169702000, {"resource_state": "offline"}),
    ],
    "ut_traffic": [
        (
            "359235170006117",
            1750168208000,
            {
                "cnx_tx_bytes": 73600000000,
                "cnx_rx_bytes": 76300000000,
                "mgmt_tx_bytes": 352000000,
                "mgmt_rx_bytes": 81300000,
                "wan_tx_bytes": 4350000000,
                "wan_rx_bytes": 2750000000,
            },
        ),
        (
            "359235170007289",
            1750168207000,
            {
                "cnx_tx_bytes": 150000000000,
                "cnx_rx_bytes": 23700000000,
                "mgmt_tx_bytes": 73300000,
                "mgmt_rx_bytes": 73200000,
                "wan_tx_bytes": 13500000000,
                "wan_rx_bytes": 97800000000,
            },
        ),
        (
            "359235170008550",
            1750130404000,
            {
                "cnx_tx_bytes": 56500000,
                "cnx_rx_bytes": 63300000,
                "mgmt_tx_bytes": 12000000,
                "mgmt_rx_bytes": 45900000,
                "wan_tx_bytes": 475000,
                "wan_rx_bytes": 784000,
            },
        ),
    ],
    "ut_link_metrics": [
        ("359235170006117", 1750167000000, {"latency_ms": 68.4, "jitter_ms": 6.1, "packet_loss_pct": 0.02}),
        ("359235170007289", 1750167000000, {"latency_ms": 74.9, "jitter_ms": 9.3, "packet_loss_pct": 0.15}),
    ],
    "product_throughput": [
        ("SC-410027318845", 1750167000000, {"be_uplink_bps": 308837, "be_downlink_bps": 588855}),
        (
            "SC-410027318852",
            1750167000000,
            {"ef_uplink_bps": 0, "ef_downlink_bps": 0, "be_uplink_bps": 3520160, "be_downlink_bps": 15657981},
        ),
    ],
}


def test_samples_cover_every_call() -> None:
    """Every call of the catalogue has a sample file and an expectation here."""
    assert set(FILES) == set(CALLS) == {*RECORDS, *SAMPLES}
    assert all((FOLDER / f"{name}.json").exists() for name in FILES.values())


@pytest.mark.parametrize("call", RECORDS)
def test_records_are_those_of_the_contract(call: str) -> None:
    """Each sample file gives exactly these records: every field that the API sends, and none that it does not know."""
    records = readings(POLLING[call], body_of(call))
    assert RECORDS[call] == {reading.id: reading.fields for reading in records}
    assert [reading.unparseable for reading in records] == [()] * len(records)


@pytest.mark.parametrize("call", RECORDS)
def test_records_carry_their_key_and_kind(call: str) -> None:
    """A record can be understood without its topic; components carry their terminal's key in the payload instead."""
    for reading in readings(POLLING[call], body_of(call)):
        if call == "user_terminal_components":
            assert reading.kind == "components"
        else:
            assert reading.fields[KEYS[reading.kind]] == reading.id


@pytest.mark.parametrize("call", SAMPLES)
def test_samples_are_those_of_the_contract(call: str) -> None:
    """Each report gives exactly these samples, stamped with the report's own time."""
    row = POLLING[call]
    key, sample = record_hashes.key_reader(row), sample_decoder(row, DecodeRules())
    entries = [sample(key(raw), decode_record(raw)) for raw in split_page(body_of(call)).records]
    assert SAMPLES[call] == [
        (measured_sample.id, measured_sample.ts, measured_sample.values)
        for entry in entries
        for measured_sample in entry.samples
    ]
    assert not any(entry.set_aside or entry.unparseable for entry in entries)
    assert {measured_sample.report for entry in entries for measured_sample in entry.samples} == {row.report}


@pytest.mark.parametrize("call", CALLS)
def test_numbers_keep_the_type_of_the_contract(call: str) -> None:
    """Fields ending in _bytes, _bps and _blocks are integers, every other number is a float."""
    fields = RECORDS[call].values() if call in RECORDS else [values for _, _, values in SAMPLES[call]]
    for record in fields:
        for name, value in record.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                assert type(value) is (int if name.endswith(("_bytes", "_bps", "_blocks")) else float), name


@pytest.mark.parametrize("call", [call for call in CALLS if call in REPORTS])
def test_empty_report_has_no_sample(call: str) -> None:
    """A terminal without measurements, and a measurement without values, is no sample and no error."""
    for measurement in ([], [{"timestamp": "2025-06-17T13:30:00Z", "performanceIndicator": []}]):
        assert sampled(POLLING[call], {"id": "X", "measurement": measurement}) == ([], 0)


# --- pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'[{"id":1},{"id":2}]',
        b'\xef\xbb\xbf [{"id":1},{"id":2}]\n',
        b'{"items":[{"id":1},{"id":2}],"total":2}',
        b'{"total":2,"data": [{"id":1},{"id":2}]}',
        b'{"results":[{"id":1},{"id":2}]}',
    ],
)
def test_split_finds_the_list(body: bytes) -> None:
    """A bare array and the usual envelopes, also with a byte order mark, are the same two records."""
    page = split_page(body)
    assert [decode_record(raw) for raw in page.records] == [{"id": 1}, {"id": 2}]
    assert page.count == 2


def test_split_takes_one_object_for_one_record() -> None:
    """An object with an id, where a list was expected, is a list of one."""
    assert [bytes(raw) for raw in split_page(b'{"id":"a"}').records] == [b'{"id":"a"}']


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"3",
        b'"text"',
        b"{}",
        b'{"message":"Hello OneWeb"}',
        b'{"error":"no"}',
        b"<html></html>",
        b'[{"id":1}',
        b"[1,]",
        b"\xff\xfe",
        b'["\xff"]',
        b'{"items":{"id":1}}',
    ],
)
@pytest.mark.parametrize("selector", [None, "$[*]"])
def test_split_refuses_what_is_no_list(body: bytes, selector: str | None) -> None:
    """An answer that is no list of records is BadPage, so that it never counts as an empty listing."""
    with pytest.raises(BadPage, match="the answer is"):
        split_page(body, selector)


def test_split_copies_parent_members_into_nested_records() -> None:
    """Nested records take over the members of their parents, as `parent` those they have too; the count is theirs."""
    body = b'[{"id":"r","date":"d","bucket":[{"id":"b1"},{"id":"b2","date":"own"}]},{"id":"s","bucket":{"id":"b3"}}]'
    page = split_page(body, "$[*].bucket[*]")
    assert [decode_record(raw) for raw in page.records] == [
        {"id": "b1", "date": "d", "parent": {"id": "r"}},
        {"id": "b2", "date": "own", "parent": {"id": "r", "date": "d"}},
        {"id": "b3", "parent": {"id": "s"}},
    ]
    assert page.count == 2


def test_split_with_a_selector_reads_into_an_envelope() -> None:
    """A selector may name the members on the way to the list."""
    page = split_page(b'{"answer":{"rows":[{"id":1}],"at":5}}', "$.answer.rows[*]")
    assert [decode_record(raw) for raw in page.records] == [{"id": 1, "at": 5}]


@pytest.mark.parametrize("body", [b"[", b"", b"\xff"])
def test_split_with_a_selector_refuses_no_json(body: bytes) -> None:
    """Under a selector, too, an answer that is nothing is BadPage."""
    with pytest.raises(BadPage):
        split_page(body, "$[*].bucket[*]")


def test_split_of_deep_nesting_is_refused() -> None:
    """An answer nested without end is BadPage or a record that is Unreadable, never the end of the process."""
    deep = b"[" * 100_000 + b"]" * 100_000
    for selector in (None, "$[*].bucket[*]"):
        with pytest.raises((BadPage, Unreadable)):
            _ = [decode_record(raw) for raw in split_page(deep, selector).records]


def test_columns_become_one_record_for_each_row() -> None:
    """A column table is one object per row, with what stands beside the table."""
    call = replace(CALLS["ut_traffic"], explode="columns")
    table = msgspec.Raw(b'{"report":"r","columns":["id","x"],"rows":[["a",1],["b",2]]}')
    decoded = [decode_record(raw) for raw in expand_tables(call, [table])]
    assert decoded == [{"report": "r", "id": "a", "x": 1}, {"report": "r", "id": "b", "x": 2}]


@pytest.mark.parametrize(
    "table",
    [
        b"[]",
        b"3",
        b"{}",
        b'{"columns":["a"],"rows":[[1,2]]}',
        b'{"columns":3,"rows":[[1]]}',
        b'{"columns":[[]],"rows":[[1]]}',
    ],
)
def test_table_with_rows_of_wrong_length_raises_bad_page(table: bytes) -> None:
    """A table without columns, or with rows of another length, is BadPage."""
    with pytest.raises(BadPage):
        expand_tables(replace(CALLS["ut_traffic"], explode="columns"), [msgspec.Raw(table)])


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"), [(b'{"id":"a b"}', "a b"), (b'{"id":17}', "17"), (b'{"x":[1],"id":"y"}', "y")]
)
def test_key_is_the_text_of_the_id(body: bytes, expected: str) -> None:
    """An id may be a text or a number; the key is its text."""
    assert expected == record_hashes.key_reader(CALLS["user_terminals"])(msgspec.Raw(body))


@pytest.mark.parametrize(
    "body", [b"{}", b'{"id":null}', b'{"id":""}', b'{"id":{}}', b"[]", b"null", b"3", b'{"id":"\\ud800"}']
)
def test_record_without_a_key_is_unreadable(body: bytes) -> None:
    """A record without a readable key is set aside by name."""
    for keys in (("id",), ("id", "part.of")):
        with pytest.raises(Unreadable):
            record_hashes.key_reader(replace(CALLS["user_terminals"], key=keys))(msgspec.Raw(body))


def test_key_of_several_paths_joins_them() -> None:
    """A key made of several members has all of them."""
    call = replace(CALLS["user_terminals"], key=("id", "part.of"))
    assert record_hashes.key_reader(call)(msgspec.Raw(b'{"id":"a","part":{"of":3}}')) == "a/3"


# --- records --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["Unlimited", "unlimited", "UNLIMITED ", "-1", -1, -1.0])
def test_unlimited_is_a_flag_without_a_number(value: object) -> None:
    """An allowance without limit is said by its flag, and no number stands for it."""
    fields = read_one("products", {"characteristic": [{"name": "allowance", "value": value}]}).fields
    assert fields["allowance_unlimited"] is True
    assert "allowance_gb" not in fields


def test_null_is_unlimited_where_the_configuration_says_so() -> None:
    """`null` counts as no limit only when `mapping.unlimited` lists it and the member is there."""
    record = {"characteristic": [{"name": "allowance", "value": None}]}
    rules = DecodeRules(unlimited=("Unlimited", "null"))
    assert read_one("products", record, rules).fields["allowance_unlimited"] is True
    assert "allowance_unlimited" not in read_one("products", record).fields
    assert "allowance_unlimited" not in read_one("products", {"characteristic": [{"name": "other"}]}, rules).fields


@pytest.mark.parametrize("value", ["N/A", None, "", "-"])
def test_what_is_not_known_is_absent(value: object) -> None:
    """N/A and null are absent, never 0 and never a text, in records and in samples."""
    record = {"characteristic": [{"name": "allowance", "value": value}, {"name": "minAntennaGain", "value": value}]}
    reading = read_one("products", record)
    assert reading.fields == {"product_id": "X"}
    assert reading.unparseable == ()
    entry = {"measurement": [{"timestamp": 1750167607, "performanceIndicator": [{"name": "sinr", "value": value}]}]}
    assert sampled(POLLING["ut_signal_quality"], entry) == ([], 0)


@pytest.mark.parametrize(
    ("characteristic", "expected"),
    [
        ({"value": "500 GB"}, 500.0),
        ({"value": 500}, 500.0),
        ({"value": "500"}, 500.0),
        ({"value": "1", "unit": "TB"}, 1000.0),
        ({"value": "500000 MB"}, 500.0),
    ],
)
def test_number_of_a_characteristic_is_in_the_unit_of_its_name(
    characteristic: dict[str, object], expected: float
) -> None:
    """A number, a numeric text and one with a unit are the same gigabytes, under both names of the list."""
    for member in ("characteristic", "productCharacteristic"):
        record = {member: [{"name": "Over age_increment".replace(" ", ""), **characteristic}]}
        assert read_one("products", record).fields["overage_increment_gb"] == expected


@pytest.mark.parametrize(
    ("record", "unparseable"),
    [
        ({"name": "n", "resourceState": {"deep": 1}}, ("state",)),
        ({"name": "n", "startDate": "yesterday"}, ("start_time",)),
        ({"name": "n", "location": {"features": [{"geometry": {"coordinates": [5, 95]}}]}}, ("latitude",)),
        ({"name": "n", "product": [{"id": {}}]}, ("product_ids",)),
    ],
)
def test_odd_field_is_named_and_the_others_count(record: object, unparseable: tuple[str, ...]) -> None:
    """A field in a form nobody can read is named in `odd` and left out; the rest of the record is read."""
    reading = read_one("user_terminals", record)
    assert reading.unparseable == unparseable
    assert reading.fields["name"] == "n"
    assert not set(unparseable) & set(reading.fields)


@pytest.mark.parametrize("location", [None, {}, {"features": []}, {"features": [{"geometry": None}]}, []])
def test_terminal_without_a_position_has_none(location: object) -> None:
    """Any part of the location may be null or empty: then the position is absent, not 0, 0."""
    assert read_one("user_terminals", {"id": "X", "location": location}).fields == {"imei": "X"}


def test_organization_without_a_type_is_known_by_its_parent() -> None:
    """Without a type, an organization with a parent is an end customer, and one without a distribution partner."""
    assert read_one("organizations", {"id": "X"}).fields["kind"] == "distribution_partner"
    child = {"organizationParentRelationship": {"organization": {"id": "P"}}}
    assert read_one("organizations", child).fields == {"organization_id": "X", "parent_id": "P", "kind": "end_customer"}
    assert read_one("organizations", {"type": "Sub-Distributor"}).fields["kind"] == "sub_distributor"


@pytest.mark.parametrize(
    "component",
    [
        [{"partition": "Main", "type": "UT", "version": "2.0.3"}, {"type": "SSM", "version": 5}],
        {"Main": {"UT": "2.0.3", "SSM": 5}},
        [{"MAIN": {"UT": "2.0.3", "SSM": 5}}],
    ],
)
def test_components_are_keyed_by_partition_and_type(component: object) -> None:
    """As a list or as a map, components are partition (lower case, `main` when absent), type and version."""
    assert read_one("user_terminal_components", {"component": component}).fields == {
        "main/UT": "2.0.3",
        "main/SSM": "5",
    }


@pytest.mark.parametrize("component", [None, [], {}, [{}], [{"type": "UT"}], "x"])
def test_no_components_means_none_are_known(component: object) -> None:
    """An empty or missing list gives an empty reading, which is never a removal."""
    assert read_one("user_terminal_components", {"component": component}).fields == {}


def test_components_that_nobody_can_read_are_unreadable() -> None:
    """A component list with a broken version is set aside as a whole, because part of it would look like a removal."""
    with pytest.raises(Unreadable):
        read_one("user_terminal_components", {"component": [{"type": "UT", "version": {"major": 2}}]})


# --- samples --------------------------------------------------------------------------------------


def measured(*measurements: object) -> dict[str, object]:
    return {"id": "X", "measurement": list(measurements)}


def indicator(name: str, value: object, unit: str | None = None) -> dict[str, object]:
    indicator_fields: dict[str, object] = {"name": name, "value": value}
    return indicator_fields if unit is None else indicator_fields | {"indicatorUnit": unit}


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1.5, "Mbps", 1500000),
        (1500000, "bps", 1500000),
        (1.5, None, 1500000),
        (1500, "kbps", 1500000),
        ("1.5 Mbps", None, 1500000),
    ],
)
def test_throughput_obeys_the_unit_of_the_indicator(value: object, unit: str | None, expected: int) -> None:
    """Whatever unit the API names, the field holds whole bits per second."""
    entry = measured({"timestamp": 1750167000, "performanceIndicator": [indicator("bestEffortUplink", value, unit)]})
    (decoded,), _ = sampled(POLLING["product_throughput"], entry)
    assert decoded.values == {"be_uplink_bps": expected}
    assert type(decoded.values["be_uplink_bps"]) is int


def test_unknown_indicator_has_its_own_name() -> None:
    """A numeric indicator that nobody told us of is published under its snake_case name with its unit."""
    indicators = [
        indicator("boardTemperature", 41, "deg"),
        indicator("queue", 2, "kB"),
        indicator("mood", "good"),
        indicator("on", True),
    ]
    (decoded,), _ = sampled(
        POLLING["ut_traffic"], measured({"timestamp": 1750167000, "performanceIndicator": indicators})
    )
    assert decoded.values == {"board_temperature_deg": 41.0, "queue_bytes": 2000}
    assert type(decoded.values["board_temperature_deg"]) is float


@pytest.mark.parametrize("name", ["imei", "report", "Time", "ts", "productId", "corrected", "replayed", "***"])
def test_unknown_indicator_cannot_take_a_name_of_the_bridge(name: str) -> None:
    """An indicator called like the sample's own members does not overwrite them."""
    entry = measured({"timestamp": 1750167000, "performanceIndicator": [indicator(name, 5)]})
    assert sampled(POLLING["ut_traffic"], entry) == ([], 0)


def test_samples_come_oldest_first() -> None:
    """Of one entry the samples are in the order of their time, however the API lists them."""
    entry = measured(
        *(
            {"timestamp": at, "performanceIndicator": [indicator("sinr", 1)]}
            for at in (1750167300, 1750167000, 1750167600)
        )
    )
    samples, _ = sampled(POLLING["ut_signal_quality"], entry)
    assert [sample.ts for sample in samples] == [1750167000000, 1750167300000, 1750167600000]


def test_unreadable_measurement_is_counted_and_the_others_go_on() -> None:
    """A measurement with a broken time is set aside; of a broken value the field is not known, and named."""
    good = {"timestamp": 1750167000, "performanceIndicator": [indicator("sinr", 1)]}
    bad_time = good | {"timestamp": "yesterday"}
    bad_value = good | {"performanceIndicator": [indicator("sinr", {"v": 1})]}
    decoded = sample_decoder(POLLING["ut_signal_quality"], DecodeRules())("X", measured(bad_time, good, bad_value))
    assert (len(decoded.samples), len(decoded.set_aside)) == (1, 1)
    assert decoded.unparseable == {"sinr_db": "expected a number, got an object"}


def test_measurements_of_one_time_are_one_sample() -> None:
    """Indicators of one time that come in several measurements are one sample, or each poll would see corrections."""
    parts = [indicator("rsrp", -40), indicator("sinr", 10.2)]
    entry = measured(*({"timestamp": 1750167000, "performanceIndicator": [part]} for part in parts))
    samples, _ = sampled(POLLING["ut_signal_quality"], entry)
    assert [(sample.ts, sample.values) for sample in samples] == [(1750167000000, {"rsrp_dbm": -40.0, "sinr_db": 10.2})]


def test_measurement_without_a_time_has_none() -> None:
    """A measurement that has no time is a sample whose time the poll gives."""
    (decoded,), _ = sampled(POLLING["ut_signal_quality"], measured({"performanceIndicator": [indicator("sinr", 1)]}))
    assert decoded.ts is None


def test_flat_measurements_are_read_by_the_same_table() -> None:
    """With `measurements: null` and `indicators: null` the record itself is the sample, and the map its field paths."""
    call = replace(
        POLLING["ut_signal_quality"],
        measurements=None,
        indicators=None,
        timestamp=("at",),
        fields=(Field("sinr_db", ("quality.sinr",), "number", "dB", "dB"),),
    )
    (decoded,), _ = sampled(call, {"id": "X", "at": 1750167000, "quality": {"sinr": "7"}})
    assert (decoded.ts, decoded.values) == (1750167000000, {"sinr_db": 7.0})


def test_times_without_offset_stand_in_the_configured_zone() -> None:
    """`mapping.timezone` holds for records and samples alike."""
    rules = DecodeRules(timezone="Europe/Berlin")
    assert read_one("user_terminals", {"startDate": "2025-06-17T15:40:07"}, rules).fields["start_time"] == (
        "2025-06-17T13:40:07Z"
    )
    entry = measured({"timestamp": "2025-06-17T15:40:07", "performanceIndicator": [indicator("sinr", 1)]})
    (decoded,), _ = sampled(POLLING["ut_signal_quality"], entry, rules)
    assert decoded.ts == 1750167607000


# --- whatever comes -------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        "id",
        "items",
        "data",
        "component",
        "partition",
        "type",
        "version",
        "measurement",
        "timestamp",
        "name",
        "performanceIndicator",
        "value",
        "unit",
        "indicatorUnit",
        "bucket",
        "columns",
        "rows",
        "characteristic",
        "location",
        "features",
        "geometry",
        "coordinates",
        "relatedParty",
        "role",
        "place",
        "bucketCounter",
        "counterType",
        "parent",
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | st.sampled_from(
        ["allowance", "Unlimited", "-1", "N/A", "sinr", "usage", "global", "2025-06-17T13:40:07Z", "1e400"]
    )
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=25
)


def wreck(body: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, put in cuts:
        place = at % (len(body) + 1)
        body = body[:place] + put + body[place + length :]
    return body


def walked_through(call: Call, body: bytes) -> None:
    """Everything that a poll does with a body; only BadPage and Unreadable may come of it."""
    try:
        page = split_page(body, call.records)
        records = expand_tables(call, page.records)
    except BadPage:
        return
    key, kept = record_hashes.key_reader(call), record_hashes.record_hasher(call).hashed_members
    read, sample = record_decoder(call, DecodeRules()), sample_decoder(call, DecodeRules())
    for raw in records:
        try:
            id = key(raw)
            list(kept([raw]))
            decoded = decode_record(raw)
            decoded_again: object = sample(id, decoded).samples if call.reads == "report" else read(id, decoded)
        except Unreadable:
            continue
        msgspec.json.encode(decoded_again)


@hypothesis.settings(max_examples=60)
@given(st.binary(max_size=60))
def test_any_bytes_are_records_or_bad_page(body: bytes) -> None:
    """Whatever the server sends, the reader answers with records, BadPage or Unreadable and nothing else."""
    for call in POLLING.values():
        walked_through(call, body)
        walked_through(call, b"[" + body + b"]")


@hypothesis.settings(max_examples=120)
@given(st.sampled_from(sorted(CALLS)), st.lists(JSON, max_size=3), st.booleans())
def test_any_json_is_records_or_bad_page(call: str, records: list[Any], columns: bool) -> None:
    """Whatever JSON the server sends, as a list, alone or as a table, no reader fails in another way."""
    row = replace(POLLING[call], explode="columns") if columns else POLLING[call]
    walked_through(row, json.dumps(records).encode())
    walked_through(
        row, json.dumps([{"id": "X", "measurement": records, "component": records, "bucket": records}]).encode()
    )
    if records:
        walked_through(row, json.dumps(records[0]).encode())


@hypothesis.settings(max_examples=120)
@given(
    st.sampled_from(sorted(CALLS)),
    st.lists(
        st.tuples(
            st.integers(0, 20_000),
            st.integers(0, 12),
            st.sampled_from([b"", b"null", b"{}", b"[]", b'"', b"1e9", b"\xff"]),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_damaged_answer_raises_only_bad_page_or_unreadable(call: str, cuts: list[tuple[int, int, bytes]]) -> None:
    """A real answer with pieces cut out and put in is read, refused or set aside, never more."""
    walked_through(POLLING[call], wreck(body_of(call), cuts))


@given(st.binary(max_size=40), st.text(max_size=8))
def test_member_of_any_bytes_is_a_value_or_none(body: bytes, name: str) -> None:
    """Looking for the next cursor in any answer never fails."""
    value_at(body, "next")
    value_at(json.dumps({"next": name}).encode(), "next.deeper")


@hypothesis.settings(max_examples=60)
@given(st.sampled_from(sorted(RECORDS)), st.integers(0, 4), st.text(max_size=5))
def test_hashed_members_differ_when_a_field_differs(call: str, at: int, text: str) -> None:
    """Equal kept bytes mean equal fields: what can cause an event is always in them."""
    row = POLLING[call]
    kept, read = record_hashes.record_hasher(row).hashed_members, record_decoder(row, DecodeRules())
    records = [decode_record(raw) for raw in split_page(body_of(call), row.records).records]
    volatile = {field.name for field in row.fields if field.volatile}
    record = records[at % len(records)]
    for name in list(record):
        if name == "id":
            continue
        changed = record | {name: text}
        first, other = (msgspec.Raw(msgspec.json.encode(r)) for r in (record, changed))
        try:
            before, after = (read("X", r).fields for r in (record, changed))
        except Unreadable:
            continue
        if [*map(bytes, *kept([first]))] == [*map(bytes, *kept([other]))]:
            assert {k: v for k, v in before.items() if k not in volatile} == {
                k: v for k, v in after.items() if k not in volatile
            }
