"""JSON Schema of every payload, made from the catalogue's fields and the published structs. Pure.

Each property carries its unit in `x-unit` and an example; the example of a payload consists of those.
A property without one is a flag of few messages, and is left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from oneweb_bridge.decode.catalogue import Call, Field
from oneweb_bridge.decode.records import KEYS
from oneweb_bridge.decode.values import INTEGER_SUFFIXES
from oneweb_bridge.model.status import TIME

Schema = dict[str, Any]
REF = "#/components/schemas/"

EXAMPLES: dict[str, Any] = {
    "imei": "359235170297930",
    "product_id": "SC-410000160766",
    "organization_id": "ACC-101",
    "site_id": "SITE-006",
    "bucket_id": "1209417733-171000000",
    "imsi": "001010170297930",
    "name": "Skerry Networks",
    "serial_number": "OW70-100007",
    "state": "online",
    "resource_state": "online",
    "status": "active",
    "network_status": "inService",
    "hardware_version": "HW-1.4.4",
    "firmware_version": "OW-IESA_2.0.0.27",
    "manufacturer": "Intellian",
    "kind": "distribution_partner",
    "product_ids": ["SC-410000160766"],
    "latitude": -53.270763,
    "longitude": -70.956729,
    "elevation_m": 37.5,
    "rsrp_dbm": -42.0,
    "rssi_dbm": -107.0,
    "sinr_db": 9.1,
    "link_availability_pct": 99.04,
    "used_gb": 265.835,
    "remaining_gb": 34.165,
    "current_balance_gb": 34.165,
    "entitlement_gb": 300.0,
    "overage_blocks": 0,
    "address_country": "NA",
}
"""Field -> an example of its value; other fields get an example of their type."""

_BY_TYPE: dict[str, Any] = {"time": "2025-06-17T14:15:02Z", "number": 12.5, "bool": False, "words": [], "set": []}
_BEFORE: dict[str, Any] = {"state": "offline", "status": "suspended", "name": "Skerry Net"}
_TYPES: dict[str, Schema] = {
    "text": {"type": "string"},
    "word": {"type": "string", "pattern": "^[a-z0-9_]+$"},
    "time": {"type": "string", "format": "date-time", "pattern": TIME},
    "bool": {"type": "boolean"},
    "words": {"type": "array", "items": {"type": "string"}},
    "integer": {"type": "integer", "format": "int64"},
    "float": {"type": "number", "format": "double"},
}
CHANGES = {name: f"ChangeOf{name.capitalize()}" for name in _TYPES}
"""Type -> the schema of a change of such a field."""

_EXACT_TIME: Schema = {**_TYPES["time"], "pattern": TIME.replace(r"(\.\d{3})?", r"\.\d{3}")}
_TIME_MEMBERS: Schema = {
    "time": {**_EXACT_TIME, "examples": ["2025-06-17T14:15:02.113Z"]},
    "ts": {**_TYPES["integer"], "x-unit": "ms", "examples": [1750169702113]},
}


def _flag(about: str) -> Schema:
    return {"type": "boolean", "const": True, "description": about}


CORRECTED = _flag("the API returned other values for this time before")
REPLAYED = _flag("sent again by request/replay; may be older than the message before")
REMAPPED = _flag("from the first listing after a change of the mapping")
CYCLE_STARTED = _flag("the first message of a new bill cycle")


def object_schema(properties: Schema, required: Iterable[str], about: str = "", **more: Any) -> Schema:
    """An object that has no other members, unless `more` says so."""
    schema: Schema = {"type": "object"} | ({"description": about} if about else {})
    return schema | {"required": list(required), "properties": properties, "additionalProperties": False} | more


def ref(name: str) -> Schema:
    """A reference to a shared schema."""
    return {"$ref": REF + name}


# ── fields of the catalogue ────────────────────────────────────────────────────────────────────


def type_of(field: Field) -> str:
    """The type that the contract gives a field."""
    if field.type == "number":
        return "integer" if field.name.endswith(INTEGER_SUFFIXES) else "float"
    return "words" if field.type == "set" else field.type


def properties(fields: Iterable[Field]) -> Schema:
    """The properties of flat fields, with the flags of those that may be unlimited."""
    schemas: Schema = {}
    for field in fields:
        schemas[field.name] = _property(field)
        if field.unlimited:
            about = f"true: there is no limit, and {field.name} is absent"
            schemas[field.unlimited] = {**_TYPES["bool"], "description": about, "examples": [False]}
    return schemas


def _property(field: Field) -> Schema:
    kind = type_of(field)
    example = EXAMPLES.get(field.name, _BY_TYPE.get(field.type, field.name.replace("_", " ")))
    schema = dict(_TYPES[kind])
    if field.unit:
        schema["x-unit"] = field.unit
    if field.volatile:
        schema["description"] = "volatile: never causes a message"
    if field.kind != "gauge":
        schema["description"] = {"cumulative": "counter: grows, and falls when it is reset", "delta": "since the last"}[
            field.kind
        ]
    return schema | {"examples": [round(example) if kind == "integer" else example]}


def _key(call: Call) -> Schema:
    name = KEYS[call.entity]
    return {name: {"type": "string", "description": "key", "examples": [EXAMPLES.get(name, name)]}}


def record(call: Call) -> Schema:
    """A record; only its key is always there."""
    key = _key(call)
    return object_schema({**key, **properties(call.fields)}, key, call.about)


def components() -> Schema:
    """The firmware of a terminal: partition/type to version."""
    versions = {
        "type": "object",
        "description": "partition/type to version",
        "additionalProperties": {"type": "string"},
        "examples": [{"main/SSM": "SSM_5.0.86", "main/UT": "OW-IESA_2.0.0.27"}],
    }
    imei = {"type": "string", "description": "key", "examples": [EXAMPLES["imei"]]}
    return object_schema({"imei": imei, "components": versions}, ("imei", "components"), "firmware of each component")


def sample(call: Call) -> Schema:
    """A sample of a report; where the API names indicators, it may have numbers that the catalogue does not know."""
    report = {"type": "string", "const": call.report}
    labels = {"product_name": {"type": "string", "examples": ["OneWeb Maritime"]}} if call.entity == "product" else {}
    members = {**_key(call), "report": report, **_TIME_MEMBERS, **labels, **properties(call.fields)}
    unknown: Schema = {"additionalProperties": False}
    if call.indicators is not None:
        integer_names = f"({'|'.join(INTEGER_SUFFIXES)})$"
        unknown = {"patternProperties": {integer_names: _TYPES["integer"]}, "additionalProperties": _TYPES["float"]}
    flags = {"corrected": CORRECTED, "replayed": REPLAYED}
    return object_schema({**members, **flags}, [*_key(call), "report", "time", "ts"], call.about, **unknown)


def presence(call: Call) -> Schema:
    """The presence report: when a terminal was seen, made from its record."""
    seen = properties(field for field in call.fields if field.name in ("first_seen", "last_seen"))
    flags = {"corrected": CORRECTED, "replayed": REPLAYED}
    return object_schema(
        {**_key(call), **_TIME_MEMBERS, **seen, **flags}, [*_key(call), "time", "ts"], "when a terminal was last seen"
    )


def usage(call: Call) -> Schema:
    """A usage bucket at its effective date."""
    flags = {"cycle_started": CYCLE_STARTED, "replayed": REPLAYED}
    return object_schema(
        {**_key(call), **properties(call.fields), **_TIME_MEMBERS, **flags}, [*_key(call), "time", "ts"], call.about
    )


# ── events ─────────────────────────────────────────────────────────────────────────────────────


def changes() -> dict[str, Schema]:
    """The schemas of a change, one for each type; null stands for absent."""
    return {CHANGES[name]: _change(schema) for name, schema in _TYPES.items()}


def _change(schema: Schema) -> Schema:
    nullable = {**schema, "type": [schema["type"], "null"]}
    return object_schema({"from": nullable, "to": nullable}, ("from", "to"), "null stands for absent")


def event(call: Call, what: str, name: str, source: str) -> Schema:
    """A CloudEvents 1.0 event of a record whose schema is `name`."""
    data: Schema = {"changed": _changed(call)} if what == "changed" else {}
    data |= {"record": ref(name)}
    if what != "removed":
        about = "from the first complete listing of the call"
        data["initial"] = {"type": "boolean", "description": about, "examples": [False]}
    data["remapped"] = REMAPPED
    required = [member for member in data if member != "remapped"]
    members = {
        "specversion": {"type": "string", "const": "1.0"},
        "id": {"type": "string", "pattern": r"^[0-9a-f]+:\d+$", "examples": ["1bf44f91fcc37727:388"]},
        "source": {"type": "string", "const": source},
        "type": {"type": "string", "const": f"net.oneweb.{call.entity}.{what}"},
        "subject": {
            "type": "string",
            "description": "the id of the record",
            "examples": [EXAMPLES.get(KEYS[call.entity])],
        },
        **_TIME_MEMBERS,
        "datacontenttype": {"type": "string", "const": "application/json"},
        "data": object_schema(data, required),
    }
    return object_schema(
        {**members, "replayed": REPLAYED}, members, f"a {call.entity} was {what}" if what != "changed" else ""
    )


def _changed(call: Call) -> Schema:
    fields = [field for field in call.fields if not field.volatile]
    members = {field.name: ref(CHANGES[type_of(field)]) for field in fields}
    members |= {field.unlimited: ref(CHANGES["bool"]) for field in fields if field.unlimited}
    example_name = next((name for name in _BEFORE if name in members), "")
    more: Schema = {"minProperties": 1}
    if example_name:
        more["examples"] = [{example_name: {"from": _BEFORE[example_name], "to": EXAMPLES[example_name]}}]
    if call.entity == "terminal":
        more["patternProperties"] = {r"^components\.": ref(CHANGES["text"])}
    return object_schema(members, (), "each field that differs", **more)


# ── Home Assistant ─────────────────────────────────────────────────────────────────────────────

_TEXTS: Schema = {"type": "array", "items": {"type": "string"}}


def discovery() -> Schema:
    """A device of Home Assistant with its entities. Each platform's keys are in Home Assistant's own schemas."""
    device = {"identifiers": {**_TEXTS, "examples": [["oneweb_main_bridge"]]}}
    topics = {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "string"}}}
    entity = {
        "type": "object",
        "required": ["platform"],
        "properties": {"platform": {"type": "string"}, "availability": topics},
        "additionalProperties": {"type": ["string", "number", "integer", "boolean", "array"], "items": _TEXTS["items"]},
    }
    version = {
        "platform": "sensor",
        "name": "Version",
        "state_topic": "oneweb/bridge/info",
        "value_template": "{{ value_json.get('version') }}",
        "unique_id": "oneweb_main_bridge_version",
    }
    members = {
        "device": object_schema(device, device, additionalProperties={"type": "string"}),
        "origin": object_schema({"name": {"type": "string", "examples": ["oneweb-bridge"]}}, ("name",))
        | {"additionalProperties": {"type": "string"}},
        "availability": topics,
        "availability_mode": {"type": "string", "const": "all"},
        "components": {"type": "object", "additionalProperties": entity, "examples": [{"version": version}]},
    }
    return object_schema(members, ("device", "origin", "components"), "a device of Home Assistant with its entities")


# ── structs ────────────────────────────────────────────────────────────────────────────────────


def of_structs(types: Iterable[type[msgspec.Struct]], *, nullable: bool = False) -> dict[str, Schema]:
    """The schemas of structs and of their members. A None is not sent, unless `nullable`."""
    _, schemas = msgspec.json.schema_components(types, ref_template=REF + "{name}")
    return {name: _struct(schema, nullable=nullable) for name, schema in schemas.items()}


def _struct(schema: Schema, *, nullable: bool) -> Schema:
    members = {name: _member(inner, nullable=nullable) for name, inner in schema.get("properties", {}).items()}
    other_members = {name: value for name, value in schema.items() if name != "title"}
    return {**other_members, "properties": members, "additionalProperties": False}


def _member(schema: Schema, *, nullable: bool) -> Schema:
    without_default = {name: value for name, value in schema.items() if name != "default"}
    choices = without_default.get("anyOf")
    if nullable or not choices:
        return without_default
    not_null = [choice for choice in choices if choice != {"type": "null"}]
    return not_null[0] if len(not_null) == 1 else {**without_default, "anyOf": not_null}


# ── examples ───────────────────────────────────────────────────────────────────────────────────


def example(schema: Schema, shared: Mapping[str, Schema]) -> Any:
    """A payload for a schema, made from the examples in it."""
    if "$ref" in schema:
        return example(shared[schema["$ref"].removeprefix(REF)], shared)
    for examples in (schema.get("examples"), schema.get("enum"), [schema["const"]] if "const" in schema else None):
        if examples:
            return examples[0]
    if schema.get("type") != "object":
        return None
    members = {
        name: example(inner, shared) for name, inner in schema.get("properties", {}).items() if _is_in_examples(inner)
    }
    inner = schema.get("additionalProperties")
    if not members and isinstance(inner, dict) and "$ref" in inner:
        members = {"user_terminals": example(inner, shared)}
    return members


def _is_in_examples(schema: Schema) -> bool:
    """Flags of few messages are left out of examples."""
    if schema.get("type") == "boolean" and schema.get("const") is True:
        return False
    return "$ref" in schema or bool({"examples", "const", "enum"} & schema.keys()) or schema.get("type") == "object"
