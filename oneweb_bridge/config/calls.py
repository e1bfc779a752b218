"""The calls of the API: the catalogue's rows with what the file sets over them, and what their mapping hashes to."""

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


def with_catalogue(said: Any, file: FileReader) -> dict[str, Any]:
    """All calls in the file's form: the catalogue's rows with what the file says over them."""
    said = {} if said is None else said
    if not isinstance(said, dict):
        raise file.refusal("polling", f"expected calls with their keys, got {describe(said)}")
    file.known(said, list(CALLS), "polling")
    return {id: _override_call(row, said.get(id), file) for id, row in CALLS.items()}


def _override_call(row: Call, said: Any, file: FileReader) -> dict[str, Any]:
    key = f"polling.{row.id}"
    said = {} if said is None else said
    if not isinstance(said, dict):
        raise file.refusal(key, f"expected keys with values, got {describe(said)}")
    known = key_types(CallForm)
    file.known(said, list(known), key)
    base = {name: _plain(getattr(row, name)) for name in known if name != "map"}
    given = {name: entry for name, entry in said.items() if entry is not None or without_none(known[name])[1]}
    if isinstance(given.get("window"), str):
        if given["window"] != "none":
            raise file.refusal(f"{key}.window", f"expected none or keys with values, got {describe(given['window'])}")
        given["window"] = None
    # A query is replaced as a whole, so that what the catalogue sends can be left out.
    query = given.get("query", base["query"])
    overlaid: dict[str, Any] = merge_trees(base, given)
    return overlaid | {"query": query, "map": _override_map(row, given.get("map", {}), file)}


def _plain(value: Any) -> Any:
    return msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else value


def _override_map(row: Call, said: Any, file: FileReader) -> Any:
    """The map of a call with its short forms written out; a wrong form is left for the kinds to refuse."""
    base: dict[str, Any] = {field.name: map_form(field) for field in row.fields}
    if not isinstance(said, dict):
        return said
    file.known((name for name, entry in said.items() if entry is None), list(base), f"polling.{row.id}.map")
    for name, entry in said.items():
        over = {"path": entry} if isinstance(entry, str | list) else entry
        if isinstance(over, dict) and over.get("unit") and not over.get("type"):
            over = {**over, "type": "number"}
        base[name] = merge_trees(base.get(name), over)
    return base


def map_form(field: Field) -> dict[str, Any]:
    return {"path": field.paths, "type": field.type, "unit": field.raw_unit, "kind": field.kind}


def build_config(config: Config, file: FileReader) -> Config:
    """The configuration with a normalised address, all roles, and the forms of the calls made into calls."""
    mapping = replace(config.mapping, roles=ROLES | config.mapping.roles)
    forms: Iterable[tuple[str, Any]] = config.polling.items()
    polling = {id: _call(CALLS[id], form, mapping, file) for id, form in forms}
    api = replace(config.api, base_url=config.api.base_url.rstrip("/"))
    return replace(config, api=api, mapping=mapping, polling=polling)


def _call(row: Call, form: CallForm, mapping: Mapping, file: FileReader) -> Call:
    key = f"polling.{row.id}"
    checked = _Paths(mapping.roles, file)
    known = {field.name: field for field in row.fields}
    same = {name: getattr(form, name) for name in key_types(CallForm) if name not in ("map", *_PATHS)}
    fields = tuple(
        _field(known.get(name), name, entry, checked.all(entry.path, f"{key}.map.{name}"))
        for name, entry in form.map.items()
        if entry is not None
    )
    found = {name: checked.any(getattr(form, name), f"{key}.{name}") for name in _PATHS}
    checked.one(form.page.cursor_path, f"{key}.page.cursor_path")
    call = replace(row, **same, **found, fields=fields)
    return _swap_coordinates(row, call) if mapping.coordinate_order == "lat_lon" else call


_PATHS = ("records", "key", "measurements", "timestamp", "indicators")


class _Paths(msgspec.Struct, frozen=True):
    """Puts the roles into paths, and refuses those that cannot be read."""

    roles: dict[str, tuple[str, ...]]
    file: FileReader

    def any(self, said: str | tuple[str, ...] | None, key: str) -> str | tuple[str, ...] | None:
        if isinstance(said, tuple):
            return self.all(said, key)
        return None if said is None else self.one(said, key)

    def all(self, said: Iterable[str], key: str) -> tuple[str, ...]:
        return tuple(self.one(path, key) for path in said)

    def one(self, said: str, key: str) -> str:
        path = re.sub(r"\{(\w*)\}", lambda found: self._role(found[1], key), said)
        try:
            compile_path(path)
        except BadPath as bad:
            raise self.file.refusal(key, f"expected a path, but {bad}") from None
        return path

    def _role(self, name: str, key: str) -> str:
        if name not in self.roles:
            raise self.file.refusal(key, f"unknown role '{name}'; mapping.roles has {', '.join(self.roles)}")
        return "|".join(self.roles[name])


_UNITS = ("B", "bps", "Mbps", "GB", "%", "dBm", "dB", "dB/K", "ms", "s", "m", "deg")
_ENDINGS = dict(
    zip(("bytes", "bps", "mbps", "gb", "pct", "dbm", "db", "dbk", "ms", "s", "m", "deg"), _UNITS, strict=True)
)
"""Ending of a field's name -> the unit that it is published in."""


def _field(known: Field | None, name: str, form: MapForm, paths: tuple[str, ...]) -> Field:
    unit = known.unit if known else ""
    if form.type == "number" and not unit:
        unit = _ENDINGS.get(name.rpartition("_")[2], form.unit)
    field = known or Field(name, ())
    return replace(field, paths=paths, type=form.type, unit=unit, raw_unit=form.unit, kind=form.kind)


def _swap_coordinates(row: Call, call: Call) -> Call:
    """The terminals' coordinates the other way round, unless the file maps them in its own way."""
    pair = ("latitude", "longitude")
    paths = {field.name: field.paths for field in call.fields if field.name in pair}
    if row.id != "user_terminals" or paths != {field.name: field.paths for field in row.fields if field.name in pair}:
        return call
    other = {"latitude": paths["longitude"], "longitude": paths["latitude"]}
    return replace(call, fields=tuple(replace(f, paths=other.get(f.name, f.paths)) for f in call.fields))


def mapping_fingerprint(call: Call, mapping: Mapping) -> str:
    """16 hex digits that differ whenever the same answer of the API would be read into other values."""
    reads = (
        call.fields,
        call.records,
        call.explode,
        call.key,
        call.measurements,
        call.timestamp,
        call.indicators,
    )
    means = (mapping.timezone, mapping.unlimited, mapping.coordinate_order)
    return hashlib.sha256(msgspec.json.encode((READING, reads, means))).hexdigest()[:16]
