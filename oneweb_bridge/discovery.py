"""Records to Home Assistant's device-based discovery: one message per device, with all of its entities. Pure.

An entity is announced only for a value that the API really sends. Its value comes from our own
topics by a template, and a template asks for a member with `get`, because what is not known is
absent and Home Assistant would warn of an undefined one; null becomes "None", which it takes for
unknown. What feeds an entity also decides whether it is available: the state of the call, so that
one message turns a whole fleet unavailable.

Source: Home Assistant, MQTT integration, `schemas.py` and the platforms' own (2026.2).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from oneweb_bridge.catalogue import Call, Field
from oneweb_bridge.diff import encode
from oneweb_bridge.model import Fields, Message, Status
from oneweb_bridge.topics import Tree, encode_id

Device = Literal["bridge", "call", "terminal", "product"]
"""What is announced as a device of its own. A device stands behind the one that it is reached through."""

Entity = dict[str, Any]
Entities = dict[str, Entity]

MANUFACTURER = "Eutelsat OneWeb"
LONGEST_NAME = 100
"""Characters of a device's name."""
SHORTEST_INTERVAL, LONGEST_INTERVAL = 10, 604_800
"""Bounds of an interval in seconds, as commands take it."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What all devices of one bridge share. `accuracy` in metres: how far a terminal may be from its position."""

    tree: Tree
    prefix: str
    version: str
    online: tuple[str, ...]
    accuracy: int
    calls: Mapping[str, Call]


class Shape(msgspec.Struct, frozen=True):
    """Which values a report of one id has, by name, each with its letter: number, text or bool."""

    report: str
    letters: Mapping[str, str]


class Terminal(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a terminal. `shared_name`: another one is called the same."""

    imei: str
    record: Fields
    components: Fields = {}
    shapes: Sequence[Shape] = ()
    shared_name: bool = False


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a product; `imei` is its terminal where that is announced, `buckets` its usage."""

    product_id: str
    record: Fields
    imei: str | None = None
    shapes: Sequence[Shape] = ()
    buckets: Sequence[Fields] = ()


def identifier(setup: Setup, kind: Device, id: str = "") -> str:
    """The name of a device that never changes, of letters, digits, '_' and '-'."""
    below = {"bridge": "", "call": f"_{id}"}.get(kind, f"_{encode_id(id)}")
    return f"oneweb_{setup.tree.instance}_{kind}{below}"


def topic(setup: Setup, kind: Device, id: str = "") -> str:
    """Where a device is announced."""
    return f"{setup.prefix}/device/{identifier(setup, kind, id)}/config"


def message(topic: str, payload: Mapping[str, Any] | None) -> Message:
    """The retained message that announces a device, or takes it away."""
    return Message(topic, b"" if payload is None else encode(payload), retain=True)


def platforms(payload: Mapping[str, Any]) -> dict[str, str]:
    """The entities of a device, each with its platform: what must be known to take one away later."""
    return {key: entity["platform"] for key, entity in payload["components"].items()}


def without(payload: Mapping[str, Any], before: Mapping[str, str]) -> dict[str, Any]:
    """The payload with every entity that it no longer has marked as gone: its platform and nothing else."""
    gone = {key: {"platform": platform} for key, platform in before.items() if key not in payload["components"]}
    return {**payload, "components": {**payload["components"], **gone}}


# ── devices ────────────────────────────────────────────────────────────────────────────────────


def bridge(setup: Setup) -> dict[str, Any]:
    """The bridge itself."""
    info, name = setup.tree.info, f"OneWeb bridge {setup.tree.instance}"
    entities = {
        "connection": _binary(
            "Connection", setup.tree.status, "connectivity", "value_json.get('state') == 'online'", availability=[]
        ),
        "api": _binary("API", info, "connectivity", "value_json.get('api', {}).get('state') == 'ok'"),
        "backlog": _sensor(
            "Backlog", info, "value_json.get('journal', {}).get('backlog')", state_class="measurement", diagnostic=True
        ),
        "version": _sensor("Version", info, "value_json.get('version')", diagnostic=True),
        "republish": _button("Republish", f"{setup.tree.base}/bridge/request/republish"),
    }
    device = {"name": name, "manufacturer": "oneweb-bridge", "model": "Bridge", "sw_version": setup.version}
    return _payload(setup, identifier(setup, "bridge"), device, entities)


def call(setup: Setup, id: str) -> dict[str, Any]:
    """One API call of the polling manager, with its switch, its interval and its button."""
    topics = f"{setup.tree.base}/bridge/polling/{id}"
    state = f"{topics}/state"
    problem = ("failed", "unauthorized", "rate_limited", "held")
    entities = {
        "enabled": _switch("Enabled", state, f"{topics}/enabled/set"),
        "interval": _interval("Interval", state, f"{topics}/interval/set"),
        "poll": _button("Poll now", f"{topics}/poll"),
        "status": _sensor(
            "Status", state, "value_json.get('status')", device_class="enum", options=_STATUSES, diagnostic=True
        ),
        "last_poll": _time("Last poll", state, "last_poll"),
        "last_success": _time("Last success", state, "last_success"),
        "problem": _binary("Problem", state, "problem", f"value_json.get('status') in {list(problem)}"),
    }
    device = {
        "name": f"OneWeb {id.removeprefix('ut_').replace('_', ' ')} {setup.tree.instance}",
        "manufacturer": "oneweb-bridge",
        "model": "API call",
        "model_id": id,
        "via_device": identifier(setup, "bridge"),
    }
    return _payload(setup, identifier(setup, "call", id), device, entities)


_STATUSES = [*Status.__args__]  # type: ignore[attr-defined]  # a Literal has its words there


def terminal(setup: Setup, known: Terminal) -> dict[str, Any]:
    """A terminal with what is measured of it."""
    entities = {**_terminal_entities(setup, known), **_component_entities(setup, known)}
    for shape in known.shapes:
        entities |= _report_entities(setup, "terminal", known.imei, shape)
    name = named(str(known.record.get("name", "")), "OneWeb terminal", known.imei, always=known.shared_name)
    device = {
        "name": name,
        "manufacturer": _short(known.record.get("manufacturer", MANUFACTURER)),
        "model": "User terminal",
        "via_device": identifier(setup, "bridge"),
    }
    said = {
        "serial_number": known.record.get("serial_number"),
        "hw_version": known.record.get("hardware_version"),
        "sw_version": firmware(known.components),
    }
    device |= {member: _short(value) for member, value in said.items() if value}
    return _payload(setup, identifier(setup, "terminal", known.imei), device, entities)


def product(setup: Setup, known: Product) -> dict[str, Any]:
    """A product with its throughput and its usage. Many products share the name of a plan, so each carries its id."""
    entities: Entities = {}
    for shape in known.shapes:
        entities |= _report_entities(setup, "product", known.product_id, shape)
    suffixes = _bucket_suffixes(known.buckets)
    for bucket, suffix in zip(known.buckets, suffixes, strict=True):
        entities |= _usage_entities(setup, known.product_id, bucket, suffix)
    via = identifier(setup, "bridge") if known.imei is None else identifier(setup, "terminal", known.imei)
    device = {
        "name": named(str(known.record.get("name", "")), "OneWeb product", known.product_id, always=True),
        "manufacturer": MANUFACTURER,
        "model": "Product",
        "via_device": via,
    }
    return _payload(setup, identifier(setup, "product", known.product_id), device, entities)


def named(name: str, otherwise: str, id: str, *, always: bool = False) -> str:
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
    main = {key.rpartition("/")[2]: str(version) for key, version in sorted(components.items()) if "main" in key}
    return main.get("UT") or main.get("SSM")


def _payload(setup: Setup, identifier: str, device: Mapping[str, Any], entities: Entities) -> dict[str, Any]:
    return {
        "device": {"identifiers": [identifier], **device},
        "origin": {"name": "oneweb-bridge", "sw_version": setup.version},
        "availability": [_connected(setup)],
        "availability_mode": "all",
        "components": {key: {**entity, "unique_id": f"{identifier}_{key}"} for key, entity in entities.items()},
    }


def _connected(setup: Setup) -> dict[str, str]:
    return {"topic": setup.tree.status, "value_template": "{{ value_json.get('state') }}"}


def _fresh(setup: Setup, call: str) -> list[dict[str, str]]:
    """Available as long as the bridge is connected and the call that feeds the entity succeeds."""
    template = "{{ 'online' if value_json.get('fresh') else 'offline' }}"
    return [_connected(setup), {"topic": setup.tree.of("call", call, "state"), "value_template": template}]


# ── a terminal's own ───────────────────────────────────────────────────────────────────────────


def _terminal_entities(setup: Setup, known: Terminal) -> Entities:
    state, entities = setup.tree.of("terminal", known.imei, "state"), {}
    if "state" in known.record:
        online = f"value_json.get('state') in [{', '.join(_quoted(word) for word in setup.online)}]"
        entities["connectivity"] = _binary("Connectivity", state, "connectivity", online, "value_json.get('state')")
        entities["state"] = _sensor("State", state, _text("state"))
    if "latitude" in known.record and "longitude" in known.record:
        entities["position"] = _tracker("Position", state, setup.accuracy)
    entities["changes"] = _events("Changes", setup.tree.of("terminal", known.imei, "event", "+"))
    return {key: {**entity, "availability": _fresh(setup, "user_terminals")} for key, entity in entities.items()}


def _component_entities(setup: Setup, known: Terminal) -> Entities:
    state, fresh = setup.tree.of("terminal", known.imei, "components"), _fresh(setup, "user_terminal_components")
    return {
        f"component_{encode_id(name)}": {
            **_sensor(
                f"Firmware {_cut(name, 60)}",
                state,
                f"(value_json.get('components', {{}}).get({_quoted(name)}) | string)[:255]",
                diagnostic=True,
            ),
            "availability": fresh,
        }
        for name in sorted(known.components)
    }


# ── reports ────────────────────────────────────────────────────────────────────────────────────

_UNITS: tuple[tuple[str, str, str | None, int], ...] = (
    ("_dbm", "dBm", "signal_strength", 1),
    ("_db", "dB", "signal_strength", 1),
    ("_pct", "%", None, 2),
    ("_bps", "bit/s", "data_rate", 0),
    ("_mbps", "Mbit/s", "data_rate", 2),
    ("_bytes", "B", "data_size", 0),
    ("_gb", "GB", "data_size", 2),
    ("_ms", "ms", "duration", 1),
)
"""The end of a name -> unit, device class and decimals in Home Assistant. A unit that is not here is left out."""

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


def _report_entities(setup: Setup, entity: str, id: str, shape: Shape) -> Entities:
    found = next((row for row in setup.calls.values() if row.report == shape.report), None)
    if found is None:
        return {}
    fields = {field.name: field for field in found.fields}
    state, fresh = setup.tree.of(entity, id, "metric", shape.report), _fresh(setup, found.id)
    return {
        f"{shape.report}_{name}": {**_measured(name, letter, state, fields.get(name)), "availability": fresh}
        for name, letter in sorted(shape.letters.items())
    }


def _measured(name: str, letter: str, state: str, field: Field | None) -> Entity:
    title = _NAMES.get(name, _cut(name.replace("_", " ").capitalize(), 60))
    if letter == "b":
        return _binary(title, state, None, f"value_json.get({_quoted(name)})", f"value_json.get({_quoted(name)})")
    if letter == "t":
        return _sensor(title, state, _text(name), diagnostic=name == "resource_state")
    grows = field is not None and field.kind == "cumulative"
    return _number(title, state, f"value_json.get({_quoted(name)})", name, grows=grows)


def _number(title: str, state: str, value: str, name: str, *, grows: bool = False) -> Entity:
    entity = _sensor(title, state, value, state_class="total_increasing" if grows else "measurement")
    for ending, unit, device_class, decimals in _UNITS:
        if name.endswith(ending):
            entity |= {"unit_of_measurement": unit, "suggested_display_precision": decimals}
            entity |= {"device_class": device_class} if device_class else {}
    return entity


def shape(report: str, said: str) -> Shape:
    """The shape of a report from what `samples.letters` made of them."""
    return Shape(report, {name: letter for name, _, letter in (part.partition("=") for part in said.split())})


# ── usage ──────────────────────────────────────────────────────────────────────────────────────

_USAGE = {
    "used_gb": "Data used",
    "remaining_gb": "Data remaining",
    "entitlement_gb": "Data entitlement",
    "overage_blocks": "Overage blocks",
}
_CYCLE = {
    "valid_from": "Bill cycle begins",
    "valid_until": "Bill cycle ends",
    "entitlement_renew": "Entitlement renews",
}


def _usage_entities(setup: Setup, product_id: str, bucket: Fields, suffix: str) -> Entities:
    id = str(bucket["bucket_id"])
    state = setup.tree.of("product", product_id, "usage", encode_id(id))
    entities: Entities = {}
    for name, title in _USAGE.items():
        if name in bucket:
            entities[name] = _number(title + suffix, state, f"value_json.get('{name}')", name)
    if "used_gb" in entities and "valid_from" in bucket:
        # A correction may lower what was used, which a counter that only grows may not.
        entities["used_gb"] |= {
            "state_class": "total",
            "last_reset_value_template": "{{ value_json.get('valid_from') or '' }}",
        }
    if "used_gb" in bucket and bucket.get("entitlement_gb"):
        entities["used_pct"] = _number(f"Data used share{suffix}", state, _SHARE, "used_pct")
    for name, title in _CYCLE.items():
        if name in bucket:
            entities[name] = _time(title + suffix, state, name)
    fresh = _fresh(setup, "usage_consumption")
    return {f"usage_{encode_id(id)}_{name}": {**entity, "availability": fresh} for name, entity in entities.items()}


_SHARE = (
    "(100 * value_json['used_gb'] / value_json['entitlement_gb']) | round(2) "
    "if value_json.get('used_gb') is not none and value_json.get('entitlement_gb') else none"
)


def _bucket_suffixes(buckets: Sequence[Fields]) -> list[str]:
    """What tells the entities of several buckets apart: nothing, their names, or their ids."""
    if len(buckets) < 2:
        return [""] * len(buckets)
    names = [_cut(str(bucket.get("bucket_name", "")).strip(), 60) for bucket in buckets]
    clear = len(set(names)) == len(names) and all(names)
    marks = names if clear else [encode_id(str(bucket["bucket_id"])) for bucket in buckets]
    return [f" ({mark})" for mark in marks]


# ── entities ───────────────────────────────────────────────────────────────────────────────────


def _sensor(
    name: str,
    state: str,
    value: str,
    *,
    state_class: str | None = None,
    device_class: str | None = None,
    options: Sequence[str] | None = None,
    diagnostic: bool = False,
) -> Entity:
    entity: Entity = {"platform": "sensor", "name": name, "state_topic": state, "value_template": f"{{{{ {value} }}}}"}
    said = {"state_class": state_class, "device_class": device_class, "options": options}
    entity |= {member: value for member, value in said.items() if value is not None}
    if diagnostic:
        entity["entity_category"] = "diagnostic"
    return {**entity, "qos": 1}


def _time(name: str, state: str, member: str) -> Entity:
    return _sensor(name, state, f"value_json.get('{member}')", device_class="timestamp", diagnostic=True)


def _binary(
    name: str, state: str, device_class: str | None, true: str, known: str = "", *, availability: Any = None
) -> Entity:
    """ON and OFF; where `known` is given and null, neither."""
    value = f"'ON' if {true} else 'OFF'"
    value = f"none if {known} is none else {value}" if known else value
    entity: Entity = {
        "platform": "binary_sensor",
        "name": name,
        "state_topic": state,
        "value_template": f"{{{{ {value} }}}}",
        "qos": 1,
    }
    if device_class:
        entity["device_class"] = device_class
    if not known:
        entity["entity_category"] = "diagnostic"
    if availability is not None:
        entity["availability"] = availability
    return entity


def _button(name: str, command: str) -> Entity:
    return {"platform": "button", "name": name, "command_topic": command, "payload_press": "{}", "qos": 1}


def _switch(name: str, state: str, command: str) -> Entity:
    """Retained, so that what is switched while the bridge is away is obeyed when it is back."""
    return {
        "platform": "switch",
        "name": name,
        "state_topic": state,
        "value_template": "{{ 'ON' if value_json.get('enabled') else 'OFF' }}",
        "command_topic": command,
        "retain": True,
        "entity_category": "config",
        "qos": 1,
    }


def _interval(name: str, state: str, command: str) -> Entity:
    return {
        "platform": "number",
        "name": name,
        "state_topic": state,
        "value_template": "{{ value_json.get('interval') }}",
        "command_topic": command,
        "retain": True,
        "min": SHORTEST_INTERVAL,
        "max": LONGEST_INTERVAL,
        "step": 1,
        "mode": "box",
        "device_class": "duration",
        "unit_of_measurement": "s",
        "entity_category": "config",
        "qos": 1,
    }


def _tracker(name: str, state: str, accuracy: int) -> Entity:
    """Without a state topic, so that the zone is found by the position."""
    point = f"{{'latitude': value_json['latitude'], 'longitude': value_json['longitude'], 'gps_accuracy': {accuracy}}}"
    known = "'latitude' in value_json and 'longitude' in value_json"
    return {
        "platform": "device_tracker",
        "name": name,
        "source_type": "gps",
        "json_attributes_topic": state,
        "json_attributes_template": f"{{{{ ({point} if {known} else {{}}) | tojson }}}}",
        "qos": 1,
    }


def _events(name: str, state: str) -> Entity:
    """What changed, as an event; one that was replayed on request is no news."""
    said = (
        "{'event_type': value_json['type'].split('.') | last, 'time': value_json['time'], "
        "'changed': value_json.get('data', {}).get('changed', {}).keys() | list}"
    )
    return {
        "platform": "event",
        "name": name,
        "state_topic": state,
        "event_types": ["added", "changed", "removed"],
        "value_template": f"{{{{ '' if value_json.get('replayed') else {said} | tojson }}}}",
        "qos": 1,
    }


def _text(member: str) -> str:
    """A text as a state, which has at most 255 characters; null stays unknown."""
    return f"(value_json.get({_quoted(member)}) | string)[:255]"


def _quoted(text: str) -> str:
    """A text within a template. Braces and the like cannot end the template from within a string of escapes."""
    return "'" + "".join(c if c.isalnum() or c in "/_-. " else _escaped(c) for c in text) + "'"


def _escaped(char: str) -> str:
    return f"\\U{ord(char):08x}"


def _short(value: object) -> str:
    return _cut(" ".join(str(value).split()), 255)
