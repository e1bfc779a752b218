"""The other forms that the real API may have: from the default shape of an object to the chosen one."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from .clock import parse_rfc3339
from .options import Shape

Json = dict[str, Any]

INDICATORS = {
    "linkAvailability": "availabilityPercent",
    "rsrp": "RSRP_dBm",
    "rssi": "RSSI_dBm",
    "sinr": "SINR",
    "resourceState": "state",
    "cnxTx": "customerTx",
    "cnxRx": "customerRx",
    "mgmtTx": "managementTx",
    "mgmtRx": "managementRx",
    "wanTx": "satelliteTx",
    "wanRx": "satelliteRx",
    "latency": "roundTripTime",
    "jitter": "delayVariation",
    "packetLoss": "lossPercent",
    "expeditedForwardingUplink": "EF_UL",
    "expeditedForwardingDownlink": "EF_DL",
    "assuredForwardingUplink": "AF_UL",
    "assuredForwardingDownlink": "AF_DL",
    "bestEffortUplink": "BE_UL",
    "bestEffortDownlink": "BE_DL",
}
"""Indicator names with `names="other"`."""
CHARACTERISTICS = {
    "allowance": "dataAllowance",
    "overageIncrement": "overageBlockSize",
    "maxBandwidthDownlink": "downlinkMaximum",
    "maxBandwidthUplink": "uplinkMaximum",
    "budgetedAmount": "committedRate",
    "minAntennaGain": "minimumGT",
    "ipStaticAddress": "staticIp",
    "ipAddressingType": "addressing",
    "serviceGrade": "grade",
}
"""Characteristic names with `names="other"`."""
LINK_METRICS = {
    "latency": ("rtt", "ms", 1.0),
    "jitter": ("delayVariation", "ms", 1.0),
    "packetLoss": ("lossRatio", "1", 0.01),
}
"""Link metrics with `link_metrics="other"`: name, unit, factor."""
ROLES = {"Distribution Partner": "distributor", "Sub-Distributor": "reseller", "End Customer": "customer"}
"""Roles with `roles="other"`."""
COUNTERS = {"usage": "used", "entitlement": "allowance", "overage": "overageBlocks"}
"""Counter types with `counters="other"`."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def shaped(kind: str, items: list[Json], shape: Shape, wanted: frozenset[str]) -> list[Any]:
    """The objects of a page in the chosen form, with the wanted attributes (none means all) and `id`."""
    change = _CHANGES.get(kind)
    if change is not None and shape != Shape():
        items = [changed for item in items for changed in change(item, shape)]
    if shape.zone_hours is not None:
        items = [_in_zone(item, shape.zone_hours) for item in items]
    if wanted:
        kept = wanted | {"id"}
        items = [{name: value for name, value in item.items() if name in kept} for item in items]
    return items


def string_members(body: bytes) -> dict[str, str] | None:
    """A JSON object's members as texts; None if it is no object."""
    try:
        return {name: str(value) for name, value in msgspec.json.decode(body or b"null", type=Json).items()}
    except msgspec.DecodeError:
        return None


# terminals and components


def _terminal(item: Json, shape: Shape) -> list[Json]:
    item = _with_roles(item, shape)
    if "component" in item:
        item = _components(item, shape)
    if shape.date_names == "fallback":
        item = {("versionNumber" if name == "hardwareVersion" else name): value for name, value in item.items()}
        item.pop("startDate", None)
    place = item.get("place")
    if isinstance(place, dict) and shape.place == "array":
        item["place"] = [place]
    if isinstance(place, dict) and shape.place == "external_id":
        item["place"] = {**place, "id": f"LOC-{place['id']}", "externalId": place["id"]}
    if shape.coordinate_order == "lat_lon" and item.get("location"):
        item["location"] = _latitude_first(item["location"])
    return [item]


def _latitude_first(location: Json) -> Json:
    features = []
    for feature in location.get("features", ()):
        geometry = feature["geometry"]
        if geometry:
            longitude, latitude, *rest = geometry["coordinates"]
            geometry = {**geometry, "coordinates": [latitude, longitude, *rest]}
        features.append({**feature, "geometry": geometry})
    return {**location, "features": features}


def _components(item: Json, shape: Shape) -> Json:
    """The component versions as an attribute, as relationships, as characteristics; listed or mapped."""
    listed = item["component"]
    rest = {name: value for name, value in item.items() if name != "component"}
    if shape.components == "relationship":
        related = [
            {
                "relationshipType": "contains",
                "resource": {
                    "id": f"{item['id']}/{part['partition']}/{part['type']}",
                    "@referredType": "Component",
                    **part,
                },
            }
            for part in listed
        ]
        return {**rest, "resourceRelationship": related}
    if shape.components == "characteristics":
        named = [{"name": f"{part['partition']}.{part['type']}.version", "value": part["version"]} for part in listed]
        return {**rest, "resourceCharacteristic": named}
    if shape.component_form == "map":
        mapped: dict[str, dict[str, str]] = {}
        for part in listed:
            mapped.setdefault(part["partition"], {})[part["type"]] = part["version"]
        return {**item, "component": mapped}
    return item


def _with_roles(item: Json, shape: Shape) -> Json:
    if shape.roles == "default" or not isinstance(item.get("relatedParty"), list):
        return dict(item)
    parties = [{**party, "role": ROLES.get(party.get("role"), party.get("role"))} for party in item["relatedParty"]]
    return {**item, "relatedParty": parties}


# products


def _product(item: Json, shape: Shape) -> list[Json]:
    item = _with_roles(item, shape)
    named = [_characteristic(characteristic, shape) for characteristic in item.get("characteristic", ())]
    if shape.product_link != "realizing_resource":
        terminals = item.pop("realizingResource", [])
        if shape.product_link == "characteristic":
            named += [{"name": "imei", "value": terminal["id"]} for terminal in terminals]
    if "characteristic" in item:
        item["characteristic"] = named
    if shape.date_names == "fallback":
        item.pop("billingStartDate", None)
        item.pop("lastUpdate", None)
    return [item]


def _characteristic(characteristic: Json, shape: Shape) -> Json:
    if characteristic["value"] == "Unlimited":
        characteristic = {
            **characteristic,
            "value": {"text": "Unlimited", "null": None, "minus_one": "-1"}[shape.unlimited],
        }
    return (
        {**characteristic, "name": CHARACTERISTICS[characteristic["name"]]}
        if shape.names == "other"
        else characteristic
    )


# usage


def _usage(item: Json, shape: Shape) -> list[Json]:
    item = {**item, "bucket": [_bucket(bucket, shape) for bucket in item.get("bucket", ())]}
    if shape.usage_rows == "bucket":
        return [item]
    return [row for bucket in item["bucket"] for row in _counter_rows(item, bucket)]


def _bucket(bucket: Json, shape: Shape) -> Json:
    bucket = dict(bucket)
    if shape.unlimited != "text":
        bucket["bucketBalance"] = [_unlimited_balance(balance, shape) for balance in bucket["bucketBalance"]]
    if shape.counters == "other":
        bucket["bucketCounter"] = [
            {**counter, "counterType": COUNTERS[counter["counterType"]]} for counter in bucket["bucketCounter"]
        ]
        pool = bucket.pop("sharedAllowance", None)
        if pool:
            bucket["bucketRelationship"] = [{"relationshipType": "subPool", **pool}]
    return bucket


def _unlimited_balance(balance: Json, shape: Shape) -> Json:
    if balance["remainingValueName"] != "Unlimited":
        return balance
    amount = None if shape.unlimited == "null" else -1
    return {**balance, "remainingValueName": None, "remainingValue": {"amount": amount, "units": "GB"}}


def _counter_rows(report: Json, bucket: Json) -> list[Json]:
    """One flat row per counter; the bucket's id is in every row."""
    own = {name: value for name, value in bucket.items() if name not in ("bucketCounter", "bucketBalance", "product")}
    shared = {"effectiveDate": report["effectiveDate"], **own, **bucket["bucketBalance"][0]}
    return [{**shared, **counter} for counter in bucket["bucketCounter"]]


# performance


def _report(item: Json, shape: Shape) -> list[Json]:
    measured = [
        {
            "timestamp": _timestamp(measurement["timestamp"], shape),
            "performanceIndicator": _indicators(measurement["performanceIndicator"], shape),
        }
        for measurement in item["measurement"]
    ]
    if shape.indicators == "list":
        return [{**item, "measurement": measured}]
    flat = [
        {
            "timestamp": measurement["timestamp"],
            **{each["name"]: each["value"] for each in measurement["performanceIndicator"]},
        }
        for measurement in measured
    ]
    if shape.indicators == "flat":
        return [{**item, "measurement": flat}]
    rest = {name: value for name, value in item.items() if name != "measurement"}
    columns = list(dict.fromkeys(["timestamp", *(name for measurement in flat for name in measurement)]))
    return [{**rest, "columns": columns, "rows": [[measurement.get(name) for name in columns] for measurement in flat]}]


def _timestamp(text: str, shape: Shape) -> Any:
    return int(parse_rfc3339(text) * 1000) if shape.timestamps == "epoch_ms" else text


def _indicators(indicators: list[Json], shape: Shape) -> list[Json]:
    by_name = {indicator["name"]: indicator for indicator in indicators}
    if shape.signal == "swapped" and "rsrp" in by_name and "rssi" in by_name:
        levels = by_name["rsrp"]["value"], by_name["rssi"]["value"]
        by_name["rssi"], by_name["rsrp"] = (
            {**by_name[name], "value": level} for name, level in zip(("rssi", "rsrp"), levels, strict=True)
        )
    return [_indicator(by_name[indicator["name"]], shape) for indicator in indicators]


def _indicator(indicator: Json, shape: Shape) -> Json:
    name, value = indicator["name"], indicator["value"]
    changed = dict(indicator)
    if shape.throughput_unit == "bps" and indicator["indicatorUnit"] == "Mbps":
        changed |= {"value": None if value is None else round(value * 1e6), "indicatorUnit": "bps"}
    if shape.traffic_unit == "MB" and indicator["indicatorUnit"] == "B":
        changed |= {"value": value / 1e6, "indicatorUnit": "MB", "indicatorType": "float"}
    if shape.link_metrics == "other" and name in LINK_METRICS:
        other, unit, factor = LINK_METRICS[name]
        changed |= {"name": other, "value": round(value * factor, 6), "indicatorUnit": unit}
    elif shape.names == "other":
        changed["name"] = INDICATORS.get(name, name)
    if not shape.indicator_unit:
        del changed["indicatorUnit"]
    return changed


# every call


def _in_zone(value: Any, hours: float) -> Any:
    """The same times on another zone's clock, without saying so."""
    if isinstance(value, dict):
        return {name: _in_zone(member, hours) for name, member in value.items()}
    if isinstance(value, list):
        return [_in_zone(member, hours) for member in value]
    if isinstance(value, str) and _TIME.fullmatch(value):
        return (datetime.fromtimestamp(parse_rfc3339(value), UTC) + timedelta(hours=hours)).isoformat()[:19]
    return value


_CHANGES: dict[str, Callable[[Json, Shape], list[Json]]] = {
    "terminals": _terminal,
    "components": _terminal,
    "products": _product,
    "organizations": lambda item, shape: [_with_roles(item, shape)],
    "sites": lambda item, shape: [_with_roles(item, shape)],
    "usage": _usage,
    "report": _report,
}
