"""Sparkplug payloads, read from their bytes as the specification describes them.

It shares nothing with the bridge's encoder: neither the generated module nor protobuf, so that the two can disagree.
Source: Sparkplug 3.0.0, chapter 6.4 (the schema in 6.3); protobuf's encoding, https://protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FLOAT, DOUBLE, BOOLEAN, STRING, DATETIME, TEXT = range(1, 15)
BASIC_TYPES = frozenset(range(1, 15))
PROPERTY_TYPES = BASIC_TYPES | {20, 21}
"""The basic ones, PropertySet and PropertySetList."""
METRIC_TYPES = frozenset(range(1, 35))
_SIGNED_BITS = {INT8: 32, INT16: 32, INT32: 32, INT64: 64}
FIELD_OF = {
    **dict.fromkeys((INT8, INT16, INT32, UINT8, UINT16, UINT32), "int"),
    **dict.fromkeys((INT64, UINT64, DATETIME), "long"),
    FLOAT: "float",
    DOUBLE: "double",
    BOOLEAN: "boolean",
    STRING: "string",
    TEXT: "string",
}
"""Datatype -> the member of the schema that carries its value."""


class Unreadable(Exception):
    """Bytes that are no Sparkplug payload."""


class Property(msgspec.Struct, frozen=True):
    """A value of a property set. `field` is the member that carries it, empty without one."""

    type: int | None = None
    is_null: bool = False
    field: str = ""
    value: Any = None


class Metric(msgspec.Struct, frozen=True):
    """A metric as it stands in the payload; None for what is not there."""

    name: str | None = None
    alias: int | None = None
    timestamp: int | None = None
    datatype: int | None = None
    is_historical: bool = False
    is_null: bool = False
    keys: tuple[str, ...] = ()
    properties: tuple[Property, ...] = ()
    field: str = ""
    value: Any = None

    def property(self, key: str) -> Property | None:
        """The value of a property, or None."""
        return dict(zip(self.keys, self.properties, strict=False)).get(key)

    def meaning(self, datatype: int | None) -> Any:
        """The value as its datatype says it; None for a null."""
        if self.is_null:
            return None
        bits = _SIGNED_BITS.get(datatype or 0)
        return self.value - (1 << bits) if bits and self.value >> (bits - 1) else self.value


class Payload(msgspec.Struct, frozen=True):
    """A whole payload."""

    timestamp: int | None = None
    seq: int | None = None
    metrics: tuple[Metric, ...] = ()

    def metric(self, name: str) -> Metric | None:
        """The metric with this name, or None."""
        return next((metric for metric in self.metrics if metric.name == name), None)


def read_payload(body: bytes) -> Payload:
    """The payload. Raises Unreadable."""
    members: dict[str, Any] = {}
    metrics = []
    for number, wire, value in _fields(body):
        match number:
            case 1:
                members["timestamp"] = _expect(wire, VARINT, value)
            case 2:
                metrics.append(_metric(_expect(wire, LENGTH, value)))
            case 3:
                members["seq"] = _expect(wire, VARINT, value)
            case 4 | 5:
                _expect(wire, LENGTH, value)
            case _:
                raise Unreadable(f"field {number} of a payload")
    return Payload(**members, metrics=tuple(metrics))


_METRIC_FIELDS = {1: ("name", LENGTH), 2: ("alias", VARINT), 3: ("timestamp", VARINT), 4: ("datatype", VARINT)}
_METRIC_FLAGS = {5: "is_historical", 7: "is_null"}
_METRIC_VALUES = {
    10: ("int", VARINT),
    11: ("long", VARINT),
    12: ("float", FIXED32),
    13: ("double", FIXED64),
    14: ("boolean", VARINT),
    15: ("string", LENGTH),
    16: ("bytes", LENGTH),
    17: ("dataset", LENGTH),
    18: ("template", LENGTH),
}
_PROPERTY_VALUES = {
    3: ("int", VARINT),
    4: ("long", VARINT),
    5: ("float", FIXED32),
    6: ("double", FIXED64),
    7: ("boolean", VARINT),
    8: ("string", LENGTH),
    9: ("propertyset", LENGTH),
    10: ("propertysets", LENGTH),
}


def _metric(body: bytes) -> Metric:
    members: dict[str, Any] = {}
    for number, wire, value in _fields(body):
        if number in _METRIC_FIELDS:
            name, expected = _METRIC_FIELDS[number]
            members[name] = _text(_expect(wire, expected, value)) if name == "name" else _expect(wire, expected, value)
        elif number in _METRIC_FLAGS:
            members[_METRIC_FLAGS[number]] = bool(_expect(wire, VARINT, value))
        elif number in _METRIC_VALUES:
            members["field"], members["value"] = _value(_METRIC_VALUES[number], wire, value)
        elif number == 9:
            members["keys"], members["properties"] = _properties(_expect(wire, LENGTH, value))
        elif number not in (6, 8):
            raise Unreadable(f"field {number} of a metric")
    return Metric(**members)


def _properties(body: bytes) -> tuple[tuple[str, ...], tuple[Property, ...]]:
    keys, values = [], []
    for number, wire, value in _fields(body):
        if number == 1:
            keys.append(_text(_expect(wire, LENGTH, value)))
        elif number == 2:
            values.append(_property(_expect(wire, LENGTH, value)))
        else:
            raise Unreadable(f"field {number} of a property set")
    return tuple(keys), tuple(values)


def _property(body: bytes) -> Property:
    members: dict[str, Any] = {}
    for number, wire, value in _fields(body):
        if number == 1:
            members["type"] = _expect(wire, VARINT, value)
        elif number == 2:
            members["is_null"] = bool(_expect(wire, VARINT, value))
        elif number in _PROPERTY_VALUES:
            members["field"], members["value"] = _value(_PROPERTY_VALUES[number], wire, value)
        else:
            raise Unreadable(f"field {number} of a property")
    return Property(**members)


def _value(kind: tuple[str, int], wire: int, value: Any) -> tuple[str, Any]:
    field, expected = kind
    _expect(wire, expected, value)
    match field:
        case "string":
            return field, _text(value)
        case "float":
            return field, struct.unpack("<f", value)[0]
        case "double":
            return field, struct.unpack("<d", value)[0]
        case "boolean":
            return field, bool(value)
        case _:
            return field, value


def _expect(wire: int, expected: int, value: Any) -> Any:
    if wire != expected:
        raise Unreadable(f"wire type {wire} instead of {expected}")
    return value


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Unreadable("text that is no UTF-8") from None


def _fields(body: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and raw value of each field of a message."""
    at = 0
    while at < len(body):
        key, at = _varint(body, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value: int | bytes
            value, at = _varint(body, at)
        else:
            size = {FIXED64: 8, FIXED32: 4}.get(wire)
            if wire == LENGTH:
                size, at = _varint(body, at)
            if size is None or at + size > len(body):
                raise Unreadable(f"wire type {wire}, or a message that is cut")
            value, at = body[at : at + size], at + size
        yield number, wire, value


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(body) and shift < 70:
        byte = body[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise Unreadable("a number that does not end")
