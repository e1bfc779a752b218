"""Decodes one record of the API: terminal, components, product, organization, site, usage bucket, relations. Pure."""

from collections.abc import Callable, Iterable
from typing import Any, get_args

from oneweb_bridge.decode import values
from oneweb_bridge.decode.border import at_border
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.fields import DecodeRules, field_setter, set_fields
from oneweb_bridge.decode.pages import ROWS, merges_rows
from oneweb_bridge.decode.path_reader import PathTable
from oneweb_bridge.decode.paths import compile_paths
from oneweb_bridge.model.records import DecodedRecord, Fields, RecordKind

KEYS: dict[RecordKind, str] = {
    "terminal": "imei",
    "components": "imei",
    "product": "product_id",
    "organization": "organization_id",
    "site": "site_id",
    "usage": "bucket_id",
    "forecast": "bucket_id",
    "relations": "imei",
    "call": "call",
}
"""The field that carries the key of each kind of record."""


def record_decoder(call: Call, rules: DecodeRules) -> Callable[[str, Any], DecodedRecord]:
    """A function from a record's key and its decoded JSON to its fields. It raises Unreadable."""
    if call.reads == "components":
        return _components_decoder(call)
    kind: RecordKind = "usage" if call.reads == "usage" else call.entity
    labels, paths, key = {field.name: field.paths for field in call.fields}, PathTable(), KEYS[kind]
    setters = [
        (field.name, field_setter(field, rules, paths, labels.get(field.unlimited_label, ()))) for field in call.fields
    ]
    read_paths = paths.reader()

    @at_border
    def read(id: str, record: Any) -> DecodedRecord:
        fields: Fields = {key: id}
        unparseable: dict[str, str] = {}
        set_fields(setters, read_paths(record), fields, unparseable)
        if call.derive == "organization_kind":
            fields.setdefault("kind", "end_customer" if "parent_id" in fields else "distribution_partner")
        return DecodedRecord(kind, id, fields, tuple(unparseable), tuple(unparseable.values()))

    return read


def _components_decoder(call: Call) -> Callable[[str, Any], DecodedRecord]:
    find = {field.name: compile_paths(field.paths) for field in call.fields}

    @at_border
    def read(id: str, record: Any) -> DecodedRecord:
        parts = find["components"](record) if "components" in find else None
        versions: Fields = {}
        for part in _parts(parts, record, call):
            partition, type_, version = (
                values.parse_text(find[name](part)) for name in ("partition", "type", "version")
            )
            if type_ and version is not None:
                versions[f"{(partition or 'main').casefold()}/{type_}"] = version
        return DecodedRecord("components", id, versions)

    return read


def _parts(parts: Any, record: Any, call: Call) -> Iterable[Any]:
    """The components of a terminal: from a list, from a map, or each from a row of its own."""
    if isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], dict):
        maps = call.explode == "map" or all(isinstance(value, dict) for value in parts[0].values())
        parts = parts[0] if maps and parts[0] else parts
    if isinstance(parts, dict):
        return _partitions(parts)
    if isinstance(parts, list):
        return parts
    return record.get(ROWS, ()) if parts is None and merges_rows(call) else ()


def _partitions(table: dict[str, Any]) -> list[Any]:
    """The forms {"main": {"UT": "2.0.3"}} and {"UT": "2.0.3"} as a list of partition, type and version."""
    return [
        {"partition": partition if types is entry else None, "type": type_, "version": version}
        for partition, entry in table.items()
        for types in (entry if isinstance(entry, dict) else {partition: entry},)
        for type_, version in types.items()
    ]


assert set(get_args(RecordKind)) == set(KEYS)  # noqa: S101 -- a table that must be complete, checked at import
