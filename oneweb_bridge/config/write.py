"""A configuration as YAML in the file's own form, with the secrets masked."""

from hashlib import sha256
from typing import Any, get_args

import msgspec
import yaml

from oneweb_bridge.config.calls import map_form
from oneweb_bridge.config.schema import CallForm, Config, Secret, key_types, meta, without_none
from oneweb_bridge.decode.catalogue import CALLS, Call, Field

MASK = "***"


def effective(config: Config) -> dict[str, Any]:
    """The complete configuration in the file's own form, secrets masked."""
    return {name: _to_file_form(getattr(config, name), kind) for name, kind in key_types(Config).items()}


def dump_yaml(config: Config) -> str:
    """`effective` as YAML, which `parse` reads."""
    return yaml_text(effective(config))


def yaml_text(tree: dict[str, Any]) -> str:
    """A tree of plain values as YAML, in its own order."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110)


def _to_file_form(value: Any, kind: Any) -> Any:
    kind, _ = without_none(kind)
    extra = meta(kind).extra or {}
    if value is None:
        return None
    if kind is Secret:
        return MASK if value else ""
    if isinstance(value, Call):
        return _call_to_file_form(value)
    if isinstance(value, msgspec.Struct):
        return {name: _to_file_form(getattr(value, name), inner) for name, inner in key_types(kind).items()}
    if isinstance(value, dict):
        return {name: _to_file_form(entry, get_args(kind)[1]) for name, entry in value.items()}
    if "text" in extra:
        return extra["text"](value)
    return list(value) if isinstance(value, tuple) else value


def _call_to_file_form(call: Call) -> dict[str, Any]:
    known = key_types(CallForm)
    plain = {name: None if name == "map" else _to_file_form(getattr(call, name), known[name]) for name in known}
    defaults = {field.name: field for field in CALLS[call.id].fields}
    present = {field.name: _field_to_file_form(field, defaults.get(field.name)) for field in call.fields}
    return plain | {"window": plain["window"] or "none", "map": dict.fromkeys(defaults) | present}


def _field_to_file_form(field: Field, default: Field | None) -> Any:
    """The shortest form that gives this field: its paths alone, when the rest is as in the catalogue."""
    form = map_form(field)
    base = map_form(default or Field(field.name, ()))
    path = field.paths[0] if len(field.paths) == 1 else list(field.paths)
    changed = {name: value for name, value in form.items() if name != "path" and value != base[name]}
    # A unit without a type means number, so the type is written with it.
    if "unit" in changed:
        changed["type"] = field.type
    return {"path": path} | changed if changed else path


def reading_hash(config: Config) -> str:
    """A hash of everything that decides how the API is asked and read; intervals, secrets and outputs do not."""
    tree = effective(config)
    api = {name: tree["api"][name] for name in ("base_url", "auth", "hello")}
    calls = {id: {name: v for name, v in keys.items() if name != "interval"} for id, keys in tree["polling"].items()}
    return sha256(msgspec.json.encode([api, tree["mapping"], calls])).hexdigest()
