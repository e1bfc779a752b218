"""The calls in force: those of the catalogue with the keys of the file over them; and their mapping fingerprints."""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from oneweb_bridge.config.file_reader import FileReader, describe, merge_trees
from oneweb_bridge.config.schema import ROLES, CallForm, Config, MapForm, Mapping, key_types, without_none
from oneweb_bridge.decode.catalogue import CALLS, READING, Call, Field
from oneweb_bridge.decode.paths import BadPath, compile_path
from oneweb_bridge.decode.units import ENDINGS


def with_catalogue(raw: Any, file: FileReader) -> dict[str, Any]:
    """All calls in the file's form: those of the catalogue with the keys of the file over them."""
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise file.refusal("polling", f"expected calls with their keys, got {describe(raw)}")
    file.check_keys(raw, list(CALLS), "polling")
    return {id: _override_call(row, raw.get(id), file) for id, row in CALLS.items()}


def _override_call(row: Call, raw: Any, file: FileReader) -> dict[str, Any]:
    key = f"polling.{row.id}"
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise file.refusal(key, f"expected keys with values, got {describe(raw)}")
    known = key_types(CallForm)
    file.check_keys(raw, list(known), key)
    base = {name: _to_builtins(getattr(row, name)) for name in known if name != "map"}
    given = {name: entry for name, entry in raw.items() if entry is not None or without_none(known[name])[1]}
    if isinstance(given.get("window"), str):
        if given["window"] != "none":
            raise file.refusal(f"{key}.window", f"expected none or keys with values, got {describe(given['window'])}")
        given["window"] = None
    # A query is replaced as a whole, so that what the catalogue sends can be left out.
    query = given.get("query", base["query"])
    overlaid: dict[str, Any] = merge_trees(base, given)
    return overlaid | {"query": query, "map": _override_map(row, given.get("map", {}), file)}


def read_call(id: str, raw: dict[str, Any], config: Config, file: FileReader) -> Call:
    """One call in the file's form, under the mapping of a configuration. Raises ConfigError."""
    form = file.read_value(_override_call(CALLS[id], raw, file), CallForm, f"polling.{id}")
    return _build_call(CALLS[id], form, config.mapping, file)


def _to_builtins(value: Any) -> Any:
    return msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else value


def _override_map(row: Call, raw: Any, file: FileReader) -> Any:
    """The map of a call with its short forms written out; a wrong form stays, and is refused when it is read."""
    base: dict[str, Any] = {field.name: map_form(field) for field in row.fields}
    if not isinstance(raw, dict):
        return raw
    file.check_keys((name for name, entry in raw.items() if entry is None), list(base), f"polling.{row.id}.map")
    for name, entry in raw.items():
        over = {"path": entry} if isinstance(entry, str | list) else entry
        if isinstance(over, dict) and over.get("unit") and not over.get("type"):
            over = {**over, "type": "number"}
        base[name] = merge_trees(base.get(name), over)
    return base


def map_form(field: Field) -> dict[str, Any]:
    return {"path": field.paths, "type": field.type, "unit": field.raw_unit, "kind": field.kind}


def build_config(config: Config, file: FileReader) -> Config:
    """The configuration with a normalised address, all roles, and each `CallForm` made into a `Call`."""
    mapping = replace(config.mapping, roles=ROLES | config.mapping.roles)
    forms: Iterable[tuple[str, Any]] = config.polling.items()
    polling = {id: _build_call(CALLS[id], form, mapping, file) for id, form in forms}
    api = replace(config.api, base_url=config.api.base_url.rstrip("/"))
    return replace(config, api=api, mapping=mapping, polling=polling)


def _build_call(row: Call, form: CallForm, mapping: Mapping, file: FileReader) -> Call:
    key = f"polling.{row.id}"
    checker = _PathChecker(mapping.roles, file)
    known = {field.name: field for field in row.fields}
    same = {name: getattr(form, name) for name in key_types(CallForm) if name not in ("map", *_PATH_KEYS)}
    fields = tuple(
        _build_field(known.get(name), name, entry, checker.check_all(entry.path, f"{key}.map.{name}"))
        for name, entry in form.map.items()
        if entry is not None
    )
    paths = {name: checker.check_any(getattr(form, name), f"{key}.{name}") for name in _PATH_KEYS}
    checker.check(form.page.cursor_path, f"{key}.page.cursor_path")
    call = replace(row, **same, **paths, fields=fields)
    return _swap_coordinates(row, call) if mapping.coordinate_order == "lat_lon" else call


_PATH_KEYS = ("records", "key", "measurements", "timestamp", "indicators")


class _PathChecker(msgspec.Struct, frozen=True):
    """Replaces the roles in paths by their names, and refuses paths that cannot be compiled."""

    roles: dict[str, tuple[str, ...]]
    file: FileReader

    def check_any(self, text: str | tuple[str, ...] | None, key: str) -> str | tuple[str, ...] | None:
        if isinstance(text, tuple):
            return self.check_all(text, key)
        return None if text is None else self.check(text, key)

    def check_all(self, text: Iterable[str], key: str) -> tuple[str, ...]:
        return tuple(self.check(path, key) for path in text)

    def check(self, text: str, key: str) -> str:
        path = re.sub(r"\{(\w*)\}", lambda match: self._role(match[1], key), text)
        try:
            compile_path(path)
        except BadPath as bad:
            raise self.file.refusal(key, f"expected a path, but {bad}") from None
        return path

    def _role(self, name: str, key: str) -> str:
        if name not in self.roles:
            raise self.file.refusal(key, f"unknown role '{name}'; mapping.roles has {', '.join(self.roles)}")
        return "|".join(self.roles[name])


_UNIT_OF_ENDING = {ending: unit for unit, ending in ENDINGS.items() if ending != "bits"}
"""Ending of a field's name -> the unit that it is published in. A field x_bits keeps the API's unit."""


def _build_field(known: Field | None, name: str, form: MapForm, paths: tuple[str, ...]) -> Field:
    unit = known.unit if known else ""
    if form.type == "number" and not unit:
        unit = _UNIT_OF_ENDING.get(name.rpartition("_")[2], form.unit)
    field = known or Field(name, ())
    return replace(field, paths=paths, type=form.type, unit=unit, raw_unit=form.unit, kind=form.kind)


def _swap_coordinates(row: Call, call: Call) -> Call:
    """Swaps the paths of a terminal's latitude and longitude, unless the file maps them itself."""
    pair = ("latitude", "longitude")
    paths = {field.name: field.paths for field in call.fields if field.name in pair}
    if row.id != "user_terminals" or paths != {field.name: field.paths for field in row.fields if field.name in pair}:
        return call
    other = {"latitude": paths["longitude"], "longitude": paths["latitude"]}
    return replace(call, fields=tuple(replace(f, paths=other.get(f.name, f.paths)) for f in call.fields))


def mapping_fingerprint(call: Call, mapping: Mapping) -> str:
    """16 hex digits that differ whenever the same answer of the API would be decoded into other values."""
    decoding = (
        call.fields,
        call.records,
        call.explode,
        call.key,
        call.measurements,
        call.timestamp,
        call.indicators,
    )
    rules = (mapping.timezone, mapping.unlimited, mapping.coordinate_order)
    return hashlib.sha256(msgspec.json.encode((READING, decoding, rules))).hexdigest()[:16]
