"""Every metric of the Sparkplug tree: which name, type and unit a field of a record or sample has. Pure.

Names are folders and words of `[A-Za-z0-9 _/-]` without units; a metric's type is fixed for ever. The unit and the type
come from the catalogue, so a new field of the API needs one more name here.
Source: Sparkplug 3.0.0, chapters 5 and 6; the names are those of docs/sparkplug.md.
"""

import re
import sys
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from enum import IntEnum
from typing import Any

import msgspec

from oneweb_bridge.decode import catalogue
from oneweb_bridge.decode.catalogue import Field
from oneweb_bridge.decode.values import INTEGER_SUFFIXES
from oneweb_bridge.encoding import encode
from oneweb_bridge.mqtt.topics import encode_id


class MetricType(IntEnum):
    """The datatypes that the tree uses, with Sparkplug's numbers."""

    INT32 = 3
    INT64 = 4
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13


MetricValue = int | float | bool | str | None


class MetricSpec(msgspec.Struct, frozen=True, gc=False):
    """One metric of the tree: what a birth says of it. `unit` is the property `engUnit`, empty where there is none.

    `bounds` are the properties `engLow` and `engHigh`, where its values have a range.
    """

    name: str
    type: MetricType
    unit: str = ""
    writable: bool = False
    bounds: tuple[float, float] | None = None


class Metric(msgspec.Struct, frozen=True, gc=False):
    """A metric with its value (None: null) at a time, in ms since the epoch."""

    spec: MetricSpec
    value: MetricValue
    ts: int


TERMINAL_NAMES = {
    "imei": "Status/IMEI",
    "imsi": "Status/IMSI",
    "name": "Status/Name",
    "serial_number": "Status/Serial Number",
    "state": "Status/State",
    "start_time": "Status/Start Time",
    "first_seen": "Status/First Seen",
    "last_seen": "Status/Last Seen",
    "hardware_version": "Status/Hardware Version",
    "manufacturer": "Status/Manufacturer",
    "product_ids": "Status/Product Ids",
    "party_id": "Owner/Party Id",
    "party_name": "Owner/Party Name",
    "end_customer_id": "Owner/End Customer Id",
    "end_customer_name": "Owner/End Customer Name",
    "site_id": "Site/Id",
    "site_external_id": "Site/External Id",
    "longitude": "Position/Longitude",
    "latitude": "Position/Latitude",
    "elevation_m": "Position/Elevation",
}
"""Field of a terminal's record -> metric of its Device."""

REPORT_NAMES = {
    "link_availability_pct": "Link/Availability",
    "resource_state": "Link/Resource State",
    "latency_ms": "Link/Latency",
    "jitter_ms": "Link/Jitter",
    "packet_loss_pct": "Link/Packet Loss",
    "rsrp_dbm": "Signal/RSRP",
    "rssi_dbm": "Signal/RSSI",
    "sinr_db": "Signal/SINR",
    "cnx_tx_bytes": "Traffic/CNX Tx",
    "cnx_rx_bytes": "Traffic/CNX Rx",
    "mgmt_tx_bytes": "Traffic/MGMT Tx",
    "mgmt_rx_bytes": "Traffic/MGMT Rx",
    "wan_tx_bytes": "Traffic/WAN Tx",
    "wan_rx_bytes": "Traffic/WAN Rx",
    "ef_uplink_bps": "Throughput/EF Uplink",
    "ef_downlink_bps": "Throughput/EF Downlink",
    "af_uplink_bps": "Throughput/AF Uplink",
    "af_downlink_bps": "Throughput/AF Downlink",
    "be_uplink_bps": "Throughput/BE Uplink",
    "be_downlink_bps": "Throughput/BE Downlink",
}
"""Indicator of a report -> metric; those of a product stand below its folder."""

REPORT_FOLDERS = {
    "link_availability": "Link",
    "resource_state": "Link",
    "link_metrics": "Link",
    "signal_quality": "Signal",
    "traffic": "Traffic",
    "throughput": "Throughput",
}
"""Report -> the folder of those indicators that the catalogue does not know."""

PRODUCT_NAMES = {
    "product_id": "Plan/Id",
    "name": "Plan/Name",
    "description": "Plan/Description",
    "status": "Plan/Status",
    "site_id": "Plan/Site Id",
    "imei": "Plan/IMEI",
    "is_bundle": "Plan/Bundle",
    "allowance_unlimited": "Plan/Allowance Unlimited",
    "start_date": "Plan/Start Date",
    "termination_date": "Plan/Termination Date",
    "billing_start_date": "Plan/Billing Start Date",
    "last_update": "Plan/Last Update",
    "distribution_partner_id": "Plan/Distribution Partner Id",
    "distribution_partner_name": "Plan/Distribution Partner Name",
    "end_customer_id": "Plan/End Customer Id",
    "end_customer_name": "Plan/End Customer Name",
    "allowance_gb": "Plan/Allowance",
    "overage_increment_gb": "Plan/Overage Increment",
    "max_bandwidth_downlink_mbps": "Plan/Max Bandwidth Downlink",
    "max_bandwidth_uplink_mbps": "Plan/Max Bandwidth Uplink",
    "budgeted_amount_mbps": "Plan/Budgeted Amount",
    "min_antenna_gain_dbk": "Plan/Min Antenna Gain",
    "ip_static_address": "Plan/IP Static Address",
    "ip_addressing_type": "Plan/IP Addressing Type",
    "service_grade": "Plan/Service Grade",
}
"""Field of a product's record -> metric below `Product/<product_id>/`."""

BUCKET_NAMES = {
    "bucket_id": "Id",
    "bucket_name": "Name",
    "bucket_type": "Type",
    "usage_type": "Usage Type",
    "remaining_label": "Remaining Label",
    "counter_type": "Counter Type",
    "counter_level": "Counter Level",
    "product_id": "Product Id",
    "product_name": "Product Name",
    "user_id": "User Id",
    "shared_allowance_id": "Shared Allowance Id",
    "shared_allowance_name": "Shared Allowance Name",
    "shared_allowance_parent_id": "Shared Allowance Parent Id",
    "is_shared": "Shared",
    "remaining_unlimited": "Remaining Unlimited",
    "entitlement_renew": "Entitlement Renew",
    "valid_from": "Valid From",
    "valid_until": "Valid Until",
    "effective_date": "Effective Date",
    "remaining_gb": "Remaining",
    "used_gb": "Used",
    "entitlement_gb": "Entitlement",
    "overage_blocks": "Overage",
}
"""Field of a usage bucket -> metric below `Product/<product_id>/Usage/<bucket_id>/` or `Usage/<bucket_id>/`."""

ONLINE = MetricSpec("Status/Online", MetricType.BOOLEAN)
PRESENCE = ("first_seen", "last_seen")
"""The fields of a terminal's record that samples of its presence bring forward."""
SITE_NAME = MetricSpec("Site/Name", MetricType.STRING)
NOT_METRICS = frozenset(("ts", "time", "report", "corrected", "cycle_started", "replayed", "remapped"))
"""Members of payloads that are no metrics: times, and marks of the message."""

_TYPES = {"time": MetricType.DATETIME, "bool": MetricType.BOOLEAN, "number": MetricType.DOUBLE}
_UNITS = {
    "_dbm": "dBm",
    "_dbk": "dB/K",
    "_db": "dB",
    "_pct": "%",
    "_mbps": "Mbps",
    "_bps": "bps",
    "_bytes": "B",
    "_gb": "GB",
    "_ms": "ms",
    "_s": "s",
    "_m": "m",
}
"""The end of an unknown indicator's name -> its unit; a longer end before one that it ends with."""

_CATALOGUE: dict[str, Field] = {
    field.name: field
    for fields in (
        catalogue.TERMINAL,
        catalogue.PRODUCT,
        *(call.fields for call in catalogue.CALLS.values() if call.report),
    )
    for field in fields
}
_USAGE: dict[str, Field] = {field.name: field for field in catalogue.USAGE}
_FLAGS = frozenset(("allowance_unlimited", "remaining_unlimited"))


def _spec(name: str, field: Field | None) -> MetricSpec:
    if field is None:
        return MetricSpec(name, MetricType.STRING)
    whole = field.type == "number" and field.name.endswith(INTEGER_SUFFIXES)
    kind = MetricType.INT64 if whole else _TYPES.get(field.type, MetricType.STRING)
    return MetricSpec(name, kind, field.unit, bounds=_BOUNDS.get(field.name))


_BOUNDS = {
    "longitude": (-180.0, 180.0),
    "latitude": (-90.0, 90.0),
    "link_availability_pct": (0.0, 100.0),
    "packet_loss_pct": (0.0, 100.0),
}
"""Field -> the range of its values."""


def _specs(names: Mapping[str, str], fields: Mapping[str, Field]) -> dict[str, MetricSpec]:
    return {
        name: MetricSpec(metric, MetricType.BOOLEAN) if name in _FLAGS else _spec(metric, fields.get(name))
        for name, metric in names.items()
    }


TERMINAL_SPECS = _specs(TERMINAL_NAMES, _CATALOGUE)
REPORT_SPECS = _specs(REPORT_NAMES, _CATALOGUE)
PRODUCT_SPECS = _specs(PRODUCT_NAMES, _CATALOGUE)
BUCKET_SPECS = _specs(BUCKET_NAMES, _USAGE)
THROUGHPUT = frozenset(field.name for field in catalogue.THROUGHPUT)

# ── names ──────────────────────────────────────────────────────────────────────────────────────


def product_folder(product_id: str) -> str:
    """The folder of a product, with its slash."""
    return f"Product/{encode_id(product_id)}/"


def bucket_folder(product_id: str | None, bucket_id: str) -> str:
    """The folder of a usage bucket, with its slash; `product_id` is None where no known product has it."""
    return f"{'' if product_id is None else product_folder(product_id)}Usage/{encode_id(bucket_id)}/"


def _below(folder: str, spec: MetricSpec) -> MetricSpec:
    return msgspec.structs.replace(spec, name=folder + spec.name) if folder else spec


COMPONENTS = "Components/"


def component_spec(component: str) -> MetricSpec:
    """The version of a component, like `main/SSM`."""
    return MetricSpec(COMPONENTS + "/".join(encode_id(part) for part in component.split("/")), MetricType.STRING)


def other_spec(folder: str, field: str) -> MetricSpec:
    """A field of a record that only the configuration knows."""
    return MetricSpec(f"{folder}Other/{_words(field)}", MetricType.STRING)


def unknown_indicator_spec(folder: str, report: str, name: str) -> MetricSpec:
    """An indicator that the catalogue does not know, in the folder of its report; its name says its type."""
    ending = next((ending for ending in _UNITS if name.endswith(ending)), "")
    metric = f"{folder}{REPORT_FOLDERS.get(report, 'Other')}/{_words(name.removesuffix(ending) or name)}"
    kind = MetricType.INT64 if name.endswith(INTEGER_SUFFIXES) else MetricType.DOUBLE
    return MetricSpec(metric, kind, _UNITS.get(ending, ""))


def _words(name: str) -> str:
    words = [word for word in name.split("_") if word]
    return re.sub(r"[^A-Za-z0-9 _-]", "_", " ".join(word[0].upper() + word[1:] for word in words)) or "_"


# ── values ─────────────────────────────────────────────────────────────────────────────────────


def metric_value(spec: MetricSpec, value: Any) -> MetricValue:
    """A member of a payload as the value of its metric: times in ms, lists as JSON; an empty list is null.

    So is a value of another kind than the metric's, which a field may have where the configuration gives it a type.
    """
    if value is None or value == []:
        return None
    match spec.type:
        case MetricType.DATETIME:
            return milliseconds(value)
        case MetricType.STRING:
            return value if isinstance(value, str) else encode(value).decode()
        case MetricType.BOOLEAN:
            return value if isinstance(value, bool) else None
        case MetricType.DOUBLE:
            return float(value) if _is_number(value) and abs(value) <= sys.float_info.max else None
        case _:
            return int(value) if _is_number(value) and abs(value) < _INT64_BOUND else None


_INT64_BOUND = 1 << 63


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def milliseconds(value: object) -> int | None:
    """An RFC 3339 time, as records carry it, in ms since the epoch."""
    try:
        return round(datetime.fromisoformat(str(value)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _metric(spec: MetricSpec, value: Any, ts: int) -> Metric:
    return Metric(spec, metric_value(spec, value), ts)


def terminal_metrics(record: Mapping[str, Any], ts: int, online_states: Collection[str]) -> Iterator[Metric]:
    """All metrics of a terminal's record; what it lacks is null. `ts` is the time of the record's last event."""
    yield from _record_metrics("", TERMINAL_SPECS, record, ts)
    state = record.get("state")
    yield Metric(ONLINE, None if state is None else state in online_states, ts)


def presence_metrics(presence: Mapping[str, Any]) -> Iterator[Metric]:
    """When a terminal was seen, as a sample of its presence says it."""
    for field in PRESENCE:
        if field in presence:
            yield _metric(TERMINAL_SPECS[field], presence[field], presence["ts"])


def relations_metrics(relations: Mapping[str, Any], ts: int) -> Iterator[Metric]:
    """The name of a terminal's site."""
    yield _metric(SITE_NAME, (relations.get("site") or {}).get("name"), ts)


def component_metrics(components: Mapping[str, Any], ts: int) -> Iterator[Metric]:
    """The version of each component, as the record of a terminal's components has them."""
    for name, version in components.items():
        yield _metric(component_spec(name), version, ts)


def product_metrics(record: Mapping[str, Any], ts: int) -> Iterator[Metric]:
    """All metrics of a product's record, below its folder."""
    yield from _record_metrics(product_folder(record["product_id"]), PRODUCT_SPECS, record, ts)


def bucket_metrics(bucket: Mapping[str, Any], folder: str) -> Iterator[Metric]:
    """All metrics of a usage bucket at the time of its message, below its folder."""
    yield from _record_metrics(folder, BUCKET_SPECS, bucket, bucket["ts"])


def _record_metrics(
    folder: str, specs: Mapping[str, MetricSpec], record: Mapping[str, Any], ts: int
) -> Iterator[Metric]:
    for field, spec in specs.items():
        yield _metric(_below(folder, spec), record.get(field), ts)
    for field in sorted(record.keys() - specs.keys() - NOT_METRICS):
        yield _metric(other_spec(folder, field), record[field], ts)


_INDICATORS: dict[str, tuple[str, ...]] = {
    call.report: tuple(field.name for field in call.fields if field.name in REPORT_SPECS)
    for call in catalogue.CALLS.values()
    if call.report
}
"""Report -> the indicators of it that the tree has."""
_NO_INDICATORS = NOT_METRICS | {"imei", "product_id", "product_name"}
"""Members of samples beside their indicators."""


def indicator_specs(folder: str, report: str) -> list[MetricSpec]:
    """The metrics of a report that the tree has."""
    return [_below(folder, REPORT_SPECS[name]) for name in _INDICATORS.get(report, ())]


def unknown_specs(folder: str, report: str, value_types: str) -> list[MetricSpec]:
    """The metrics of the numbers (`name=n` each) of a report that the tree does not have."""
    names = (part.rpartition("=") for part in value_types.split())
    return [
        unknown_indicator_spec(folder, report, name)
        for name, _, kind in names
        if kind == "n" and _is_unknown(report, name)
    ]


def _is_unknown(report: str, name: str) -> bool:
    return name not in _INDICATORS.get(report, ()) and name not in _NO_INDICATORS


def sample_metrics(report: str, sample: Mapping[str, Any], folder: str = "") -> Iterator[Metric]:
    """The metrics of what one sample has, at its own time."""
    known, ts = _INDICATORS.get(report, ()), sample["ts"]
    for name, value in sample.items():
        if name in known:
            yield _metric(_below(folder, REPORT_SPECS[name]), value, ts)
        elif name not in _NO_INDICATORS and _is_number(value):
            yield _metric(unknown_indicator_spec(folder, report, name), value, ts)
