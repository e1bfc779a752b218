"""Records to Home Assistant's device-based discovery: one message per device, with all of its entities. Pure.

An entity is announced only for a value that the API really sends. What feeds an entity also decides
whether it is available: the state of the call, so that one message turns a whole fleet unavailable.

Source: Home Assistant, MQTT integration, `schemas.py` and the platforms' own (2026.2).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from oneweb_bridge.config.units import MAX_INTERVAL_S, MIN_INTERVAL_S
from oneweb_bridge.decode.catalogue import Call, Field
from oneweb_bridge.encoding import encode
from oneweb_bridge.homeassistant import entities as ha
from oneweb_bridge.homeassistant.entities import Entities, Entity
from oneweb_bridge.model.records import Fields, Message, Status
from oneweb_bridge.mqtt.topics import TopicTree, encode_id

Device = Literal["bridge", "call", "terminal", "product"]
"""What is announced as a device of its own. A device stands behind the one that it is reached through."""

MANUFACTURER = "Eutelsat OneWeb"
LONGEST_NAME = 100
"""Characters of a device's name."""


class DiscoverySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What all devices of one bridge share. `accuracy` in metres: how far a terminal may be from its position."""

    tree: TopicTree
    prefix: str
    version: str
    online: tuple[str, ...]
    accuracy: int
    calls: Mapping[str, Call]


class ReportValues(msgspec.Struct, frozen=True):
    """The values that a report of one id has: name to type, `n` for a number, `t` for a text, `b` for a bool."""

    report: str
    types: Mapping[str, str]


class Terminal(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a terminal. `shared_name`: another one is called the same."""

    imei: str
    record: Fields
    components: Fields = {}
    reports: Sequence[ReportValues] = ()
    shared_name: bool = False


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a product: its terminal where that is announced, its usage, and the forecasts by bucket."""

    product_id: str
    record: Fields
    imei: str | None = None
    reports: Sequence[ReportValues] = ()
    buckets: Sequence[Fields] = ()
    forecasts: Mapping[str, Fields] = {}


def identifier(setup: DiscoverySettings, kind: Device, id: str = "") -> str:
    """The name of a device that never changes and no other device has, of letters, digits, '_' and '-'."""
    below = {"bridge": "", "call": f"_{id}"}.get(kind, f"_{encode_id(id)}")
    # A '_' of the instance is doubled, so that no two instances can mean the same by it.
    return f"oneweb_{encode_id(setup.tree.instance)}_{kind}{below}"


def topic(setup: DiscoverySettings, kind: Device, id: str = "") -> str:
    """Where a device is announced."""
    return f"{setup.prefix}/device/{identifier(setup, kind, id)}/config"


def message(topic: str, payload: Mapping[str, Any] | None) -> Message:
    """The retained message that announces a device, or takes it away."""
    return Message(topic, b"" if payload is None else encode(payload), retain=True)


def platforms(payload: Mapping[str, Any]) -> dict[str, str]:
    """The entities of a device, each with its platform: what must be known to take one away later."""
    return {key: entity["platform"] for key, entity in payload["components"].items()}


def with_removed_entities(payload: Mapping[str, Any], before: Mapping[str, str]) -> dict[str, Any]:
    """The payload with every entity that it no longer has marked as gone: its platform and nothing else."""
    gone = {key: {"platform": platform} for key, platform in before.items() if key not in payload["components"]}
    return {**payload, "components": {**payload["components"], **gone}}


# ── devices ────────────────────────────────────────────────────────────────────────────────────


def bridge(setup: DiscoverySettings) -> dict[str, Any]:
    """The bridge itself."""
    status, info = setup.tree.status, setup.tree.info
    api, backlog = "value_json.get('api', {}).get('state')", "value_json.get('journal', {}).get('backlog')"
    connection = {"device_class": "connectivity", "availability": []}
    entities = {
        "connection": ha.binary(
            "Connection",
            status,
            f"{ha.member_expression('state')} == 'online'",
            ha.member_expression("state"),
            diagnostic=True,
            **connection,
        ),
        "api": ha.binary("API", info, f"{api} == 'ok'", api, diagnostic=True, device_class="connectivity"),
        "backlog": ha.number("Backlog", info, "backlog", value=backlog) | {"entity_category": "diagnostic"},
        "version": ha.text("Version", info, ha.member_expression("version"), diagnostic=True),
        "republish": ha.button("Republish", f"{setup.tree.base}/bridge/request/republish", config=True),
    }
    device = {
        "name": _of_instance(setup, "OneWeb bridge"),
        "manufacturer": "oneweb-bridge",
        "model": "Bridge",
        "sw_version": setup.version,
    }
    return _payload(setup, identifier(setup, "bridge"), device, entities)


def call(setup: DiscoverySettings, id: str) -> dict[str, Any]:
    """One API call of the polling manager, with its switch, its interval and its button."""
    topics = f"{setup.tree.base}/bridge/polling/{id}"
    state, bounds = f"{topics}/state", (round(MIN_INTERVAL_S), round(MAX_INTERVAL_S))
    status, problem = ha.member_expression("status"), ["failed", "incomplete", "unauthorized", "rate_limited", "held"]
    entities = {
        "enabled": ha.switch("Enabled", state, "enabled", f"{topics}/enabled/set"),
        "interval": ha.duration("Interval", state, "interval", f"{topics}/interval/set", bounds),
        "poll": ha.button("Poll now", f"{topics}/poll"),
        "status": ha.sensor(
            "Status", state, f"{{{{ {status} }}}}", device_class="enum", options=_STATUSES, diagnostic=True
        ),
        "last_poll": ha.time("Last poll", state, "last_poll"),
        "last_success": ha.time("Last success", state, "last_success"),
        "problem": ha.binary(
            "Problem", state, f"{status} in {problem}", status, diagnostic=True, device_class="problem"
        ),
    }
    device = {
        "name": _of_instance(setup, f"OneWeb call {id.replace('_', ' ')}"),
        "manufacturer": "oneweb-bridge",
        "model": "API call",
        "model_id": id,
        "via_device": identifier(setup, "bridge"),
    }
    return _payload(setup, identifier(setup, "call", id), device, entities)


def _of_instance(setup: DiscoverySettings, name: str) -> str:
    """A name with the instance, where it is not the only one that most people have."""
    return name if setup.tree.instance == "main" else f"{name} {setup.tree.instance}"


_STATUSES = [*Status.__args__]  # type: ignore[attr-defined]  # a Literal has its words there


def terminal(setup: DiscoverySettings, known: Terminal) -> dict[str, Any]:
    """A terminal with what is measured of it."""
    entities = {**_terminal_entities(setup, known), **_component_entities(setup, known)}
    for report in known.reports:
        entities |= _report_entities(setup, "terminal", known.imei, report)
    name = device_name(str(known.record.get("name", "")), "OneWeb terminal", known.imei, always=known.shared_name)
    device = {
        "name": name,
        "manufacturer": _short(known.record.get("manufacturer") or MANUFACTURER),
        "model": "User terminal",
        "via_device": identifier(setup, "bridge"),
    }
    versions = {
        "serial_number": known.record.get("serial_number"),
        "hw_version": known.record.get("hardware_version"),
        "sw_version": known.record.get("firmware_version") or firmware(known.components),
    }
    device |= {member: _short(value) for member, value in versions.items() if value}
    return _payload(setup, identifier(setup, "terminal", known.imei), device, entities)


def product(setup: DiscoverySettings, known: Product) -> dict[str, Any]:
    """A product with its throughput and its usage. Many products share the name of a plan, so each carries its id."""
    entities: Entities = {}
    if "status" in known.record:
        status = ha.text(
            "Status", setup.tree.topic_of("product", known.product_id, "state"), ha.member_expression("status")
        )
        entities |= _available(setup, "products", {"status": status})
    for report in known.reports:
        entities |= _report_entities(setup, "product", known.product_id, report)
    suffixes = _bucket_suffixes(known.buckets)
    for bucket, suffix in zip(known.buckets, suffixes, strict=True):
        entities |= _usage_entities(setup, known.product_id, bucket, suffix)
        entities |= _forecast_entities(setup, known, str(bucket["bucket_id"]), suffix)
    via = identifier(setup, "bridge") if known.imei is None else identifier(setup, "terminal", known.imei)
    device = {
        "name": device_name(str(known.record.get("name", "")), "OneWeb product", known.product_id, always=True),
        "manufacturer": MANUFACTURER,
        "model": "Product",
        "via_device": via,
    }
    return _payload(setup, identifier(setup, "product", known.product_id), device, entities)


def device_name(name: str, otherwise: str, id: str, *, always: bool = False) -> str:
    """A device's name: printable, of bounded length, and with the id where it would not be told apart without."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    mark = " ".join("".join(c if c.isprintable() else " " for c in id).split()) or encode_id(id)
    if len(mark) > LONGEST_NAME // 2:
        mark = encode_id(id)[-20:]
    room = LONGEST_NAME - len(mark) - 1
    if clean and not always and len(clean) <= LONGEST_NAME:
        return clean
    return f"{_cut(clean or otherwise, room)} {mark}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def firmware(components: Fields) -> str | None:
    """The version that stands for the whole terminal: of the UT, else of the SSM, which updates the others."""
    main = {name.casefold(): str(version) for name, version in components.items()}
    return main.get("main/ut") or main.get("main/ssm")


def _payload(
    setup: DiscoverySettings, identifier: str, device: Mapping[str, Any], entities: Entities
) -> dict[str, Any]:
    return {
        "device": {"identifiers": [identifier], **device},
        "origin": {"name": "oneweb-bridge", "sw_version": setup.version},
        "availability": [_connected(setup)],
        "availability_mode": "all",
        "components": {key: {**entity, "unique_id": f"{identifier}_{key}"} for key, entity in entities.items()},
    }


def _connected(setup: DiscoverySettings) -> dict[str, str]:
    return {"topic": setup.tree.status, "value_template": "{{ value_json.get('state') }}"}


# ── a terminal's own ───────────────────────────────────────────────────────────────────────────


def _terminal_entities(setup: DiscoverySettings, known: Terminal) -> Entities:
    state, entities = setup.tree.topic_of("terminal", known.imei, "state"), Entities()
    if "state" in known.record:
        words = ", ".join(ha.quoted(word.casefold()) for word in setup.online)
        online = f"{ha.member_expression('state')} | string | lower in [{words}]"
        entities["connectivity"] = ha.binary(
            "Connectivity", state, online, f"{ha.member_expression('state')} is string", device_class="connectivity"
        )
        entities["state"] = ha.text("State", state, ha.member_expression("state"))
    if "network_status" in known.record:
        entities["network_status"] = ha.text("Network status", state, ha.member_expression("network_status"))
    if "latitude" in known.record and "longitude" in known.record:
        entities["position"] = ha.tracker("Position", state, setup.accuracy)
    entities["changes"] = ha.events("Changes", setup.tree.topic_of("terminal", known.imei, "event", "+"))
    return _available(setup, "user_terminals", entities)


def _component_entities(setup: DiscoverySettings, known: Terminal) -> Entities:
    state = setup.tree.topic_of("terminal", known.imei, "components")
    entities = {
        f"component_{encode_id(name)}": ha.text(
            f"Firmware {_cut(name, 60)}",
            state,
            f"value_json.get('components', {{}}).get({ha.quoted(name)})",
            diagnostic=True,
        )
        for name in sorted(known.components)
    }
    return _available(setup, "user_terminal_components", entities)


def _available(setup: DiscoverySettings, call: str, entities: Entities) -> Entities:
    """Available as long as the bridge is connected and the call that feeds the entities succeeds."""
    template = "{{ 'online' if value_json.get('fresh') else 'offline' }}"
    fresh = [_connected(setup), {"topic": setup.tree.topic_of("call", call, "state"), "value_template": template}]
    return {key: {**entity, "availability": fresh} for key, entity in entities.items()}


# ── reports ────────────────────────────────────────────────────────────────────────────────────

_NAMES = {
    "rsrp_dbm": "RSRP",
    "rssi_dbm": "RSSI",
    "sinr_db": "SINR",
    "link_availability_pct": "Link availability",
    "resource_state": "Reported state",
    "cnx_tx_bytes": "Customer sent",
    "cnx_rx_bytes": "Customer received",
    "mgmt_tx_bytes": "Management sent",
    "mgmt_rx_bytes": "Management received",
    "wan_tx_bytes": "Satellite sent",
    "wan_rx_bytes": "Satellite received",
    "latency_ms": "Latency",
    "jitter_ms": "Jitter",
    "packet_loss_pct": "Packet loss",
    "ef_uplink_bps": "Expedited uplink",
    "ef_downlink_bps": "Expedited downlink",
    "af_uplink_bps": "Assured uplink",
    "af_downlink_bps": "Assured downlink",
    "be_uplink_bps": "Best effort uplink",
    "be_downlink_bps": "Best effort downlink",
}
"""Names of the fields that are known; another one is named after itself."""


def _report_entities(setup: DiscoverySettings, entity: str, id: str, report: ReportValues) -> Entities:
    call = next((row for row in setup.calls.values() if row.report == report.report), None)
    if call is None:
        return {}
    fields = {field.name: field for field in call.fields}
    state = setup.tree.topic_of(entity, id, "metric", report.report)
    entities = {
        f"{report.report}_{name}": _measured(name, value_type, state, fields.get(name))
        for name, value_type in sorted(report.types.items())
    }
    return _available(setup, call.id, entities)


def _measured(name: str, value_type: str, state: str, field: Field | None) -> Entity:
    title = _NAMES.get(name, _cut(name.replace("_", " ").capitalize(), 60))
    if value_type == "b":
        return ha.binary(title, state, ha.member_expression(name), f"{ha.member_expression(name)} is boolean")
    if value_type == "t":
        return ha.text(title, state, ha.member_expression(name), diagnostic=name == "resource_state")
    return ha.number(title, state, name, grows=field is not None and field.kind == "cumulative")


def parse_value_types(report: str, text: str) -> ReportValues:
    """The values of a report from the text that `value_types` made of them."""
    return ReportValues(report, {name: kind for name, _, kind in (part.partition("=") for part in text.split())})


# ── usage ──────────────────────────────────────────────────────────────────────────────────────

_USAGE = {
    "used_gb": "Data used",
    "remaining_gb": "Data remaining",
    "current_balance_gb": "Current balance",
    "entitlement_gb": "Data entitlement",
    "overage_blocks": "Overage blocks",
}
_CYCLE = {
    "valid_from": "Bill cycle begins",
    "valid_until": "Bill cycle ends",
    "entitlement_renew": "Entitlement renews",
}


def _usage_entities(setup: DiscoverySettings, product_id: str, bucket: Fields, suffix: str) -> Entities:
    id = encode_id(str(bucket["bucket_id"]))
    state = setup.tree.topic_of("product", product_id, "usage", id)
    entities = {name: ha.number(title + suffix, state, name) for name, title in _USAGE.items() if name in bucket}
    if "used_gb" in entities and "valid_from" in bucket:
        # A correction may lower what was used, which a counter that only grows may not.
        reset = f"{{{{ {ha.member_expression('valid_from')} or '' if value_json is defined else '' }}}}"
        entities["used_gb"] |= {"state_class": "total", "last_reset_value_template": reset}
    if "used_gb" in bucket and bucket.get("entitlement_gb"):
        entities["used_pct"] = ha.number(f"Data used share{suffix}", state, "used_pct", value=_SHARE)
    entities |= {name: ha.time(title + suffix, state, name) for name, title in _CYCLE.items() if name in bucket}
    return _available(setup, "usage_consumption", {f"usage_{id}_{name}": entity for name, entity in entities.items()})


def _forecast_entities(setup: DiscoverySettings, known: Product, bucket_id: str, suffix: str) -> Entities:
    """What is forecast of a bucket, each with its band as attributes; nothing of one that has no limit."""
    forecast = known.forecasts.get(bucket_id)
    if forecast is None or forecast.get("status") == "unlimited":
        return {}
    id = encode_id(bucket_id)
    state = setup.tree.topic_of("product", known.product_id, "forecast", id)
    sensors = {
        "exhausted": (
            ha.time(f"Allowance exhausted{suffix}", state, "exhausted_p50", diagnostic=False),
            _band("exhausted_{}"),
        ),
        "probability": (ha.number(f"Exhaustion probability{suffix}", state, "exhaustion_probability_pct"), ()),
        "used_at_end": (
            ha.number(f"Usage at end of cycle{suffix}", state, "used_at_end_p50_gb"),
            _band("used_at_end_{}_gb"),
        ),
    }
    if "overage_increment_gb" in known.record:
        blocks = ha.number(f"Overage blocks expected{suffix}", state, "overage_p50_blocks")
        sensors["overage"] = blocks, (*_band("overage_{}_blocks"), "overage_price", "overage_currency")
    common = ("status", "confidence", "cycle_end", "shared_allowance_id")
    entities = {
        f"forecast_{id}_{name}": ha.with_attributes(entity, state, (*band, *common))
        for name, (entity, band) in sensors.items()
    }
    return _available(setup, "usage_consumption", entities)


def _band(member: str) -> tuple[str, ...]:
    """The ends of a band."""
    return member.format("p10"), member.format("p90")


_SHARE = (
    "(100 * value_json['used_gb'] / value_json['entitlement_gb']) | round(2) "
    "if value_json.get('used_gb') is number and value_json.get('entitlement_gb') else none"
)


def _bucket_suffixes(buckets: Sequence[Fields]) -> list[str]:
    """What tells the entities of several buckets apart: nothing, their names, or their ids."""
    if len(buckets) < 2:
        return [""] * len(buckets)
    names = [_cut(str(bucket.get("bucket_name", "")).strip(), 60) for bucket in buckets]
    clear = len(set(names)) == len(names) and all(names)
    marks = names if clear else [encode_id(str(bucket["bucket_id"])) for bucket in buckets]
    return [f" ({mark})" for mark in marks]


def _short(value: object) -> str:
    return _cut(" ".join(str(value).split()), 255)
