"""From bridge.yaml and the environment to one checked `Config`, and back to YAML with the secrets masked.

    text ─YAML─▶ tree ─${…}─▶ tree ─profile, catalogue─▶ complete tree ─kinds─▶ Config ─rules─▶ Config

Scalars stay text until their kind is known: an IMEI or a password written without quotes keeps its
zeros, and a value from the environment is never read as YAML. Whatever is wrong is a ConfigError of
one sentence that names file, key and what was expected, and never a secret.
"""

import difflib
import functools
import hashlib
import re
from collections.abc import Iterable
from collections.abc import Mapping as Table
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import yaml
from msgspec.structs import replace

from oneweb_bridge.config.schema import (
    ROLES,
    CallForm,
    Config,
    MapForm,
    Mapping,
    Secret,
    expected,
    interval_text,
    key_types,
    meta,
    parse_duration,
    rule_violations,
    without_none,
)
from oneweb_bridge.decode.catalogue import CALLS, READING, Call, Field
from oneweb_bridge.decode.paths import BadPath, compile_path
from oneweb_bridge.files import refusal_of

__all__ = [
    "PROFILES",
    "Config",
    "ConfigError",
    "Secret",
    "dump_yaml",
    "effective",
    "fingerprint",
    "interval_text",
    "load",
    "parse",
    "parse_duration",
    "require_credentials",
    "yaml_text",
]

PROFILES: dict[str, dict[str, Any]] = {
    "production": {"api": {"base_url": "https://api.oneweb.net"}},
    "training": {"api": {"base_url": "https://api.oneweb.training"}},
}
"""What differs per profile, in the file's own form. What the file says otherwise than production wins."""

_FROM_ENVIRONMENT = {"client_id": "${ONEWEB_CLIENT_ID:-}", "client_secret": "${ONEWEB_CLIENT_SECRET:-}"}
_MASK = "***"


class ConfigError(Exception):
    """What is wrong with the configuration: one sentence for the user."""


def load(path: Path | None, environ: Table[str, str]) -> Config:
    """The configuration in `path`, else in ./bridge.yaml, else the defaults. Raises ConfigError."""
    is_named, path = path is not None, path or Path("bridge.yaml")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected a YAML file in UTF-8") from None
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and not is_named:
            return parse("", environ)
        raise ConfigError(f"{path}: cannot be read: {refusal_of(error)}") from None
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    return parse(
        text,
        environ,
        name=str(path),
        directory=path.parent,
        secrets_directory=Path(credentials) if credentials else None,
    )


def parse(
    text: str,
    environ: Table[str, str],
    *,
    name: str = "bridge.yaml",
    directory: Path = Path(),
    secrets_directory: Path | None = None,
) -> Config:
    """The configuration that `text` says; secrets' files may be in either directory. Raises ConfigError."""
    file = _FileReader(name, directory, secrets_directory)
    tree = _with_environment(_tree(text, name))
    tree = _with_profile(file.substituted(tree, environ, ""))
    tree["polling"] = _with_catalogue(tree.get("polling"), file)
    read: Config = file.struct(tree, Config, "")
    config = _build_config(read, file)
    for key, why in rule_violations(config):
        raise file.refusal(key, why)
    return config


def require_credentials(config: Config) -> None:
    """Raises ConfigError that says how to give the credentials, when one of them is missing."""
    for key, variable in (("client_id", "ONEWEB_CLIENT_ID"), ("client_secret", "ONEWEB_CLIENT_SECRET")):
        if not getattr(config.api, key):
            raise ConfigError(
                f"api.{key} is empty: set {variable} in the environment, or api.{key} or api.{key}_file in "
                "the configuration, to what the application in the OneWeb developer portal shows"
            )


# --- YAML -----------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """SafeLoader that leaves every scalar but null as text, and refuses a key that stands twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("null", "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' stands twice", key.start_mark)
            seen.add(key.value)
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}


def _tree(text: str, name: str) -> dict[str, Any]:
    try:
        tree = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
        # An alias to a list that it stands in has no end, which this notices.
        msgspec.json.encode(tree)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        raise ConfigError(f"{name}: line {line + 1}: {_problem(error, text.splitlines()[line:][:1])}") from None
    except yaml.YAMLError:
        raise ConfigError(f"{name}: expected a YAML file, and it has characters that YAML forbids") from None
    except ValueError:
        # A tag like !!int before something that is none, or half of a surrogate pair.
        raise ConfigError(f"{name}: expected texts in UTF-8, and no tags like !!int") from None
    except RecursionError:
        raise ConfigError(f"{name}: is nested too deeply") from None
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(f"{name}: expected keys with values, like 'instance: main', got {_describe(tree)}")
    return tree or {}


def _problem(error: yaml.MarkedYAMLError, lines: list[str]) -> str:
    """What is wrong, without the text that stands there: it may be a password that begins with '*' or '!'."""
    said = error.problem or "is not YAML"
    if said.startswith(("found undefined", "could not determine")):
        return "a text that begins with '*', '&' or '!' must be in quotes"
    if "${" in "".join(lines):
        return f"{said}; inside braces and brackets, '${{NAME}}' must be in quotes"
    return said


# --- from the tree to values ----------------------------------------------------------------------


class _Substituted(str):
    """A text with a part from the environment, which no message may show."""

    __slots__ = ()


_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\})?")


class _FileReader(msgspec.Struct, frozen=True):
    """One file being read: turns parts of its tree into values, and refuses in its name."""

    name: str
    directory: Path
    secrets_directory: Path | None

    def refusal(self, key: str, why: str) -> ConfigError:
        return ConfigError(f"{self.name}: {key}: {why}")

    def substituted(self, said: Any, environ: Table[str, str], key: str) -> Any:
        """The same tree with the environment's values in it."""
        if isinstance(said, dict):
            return {name: self.substituted(entry, environ, _join(key, name)) for name, entry in said.items()}
        if isinstance(said, list):
            return [self.substituted(entry, environ, key) for entry in said]
        if not isinstance(said, str) or "${" not in said:
            return said
        return _Substituted(_VARIABLE.sub(lambda found: self._variable(found, environ, key), said))

    def _variable(self, found: re.Match[str], environ: Table[str, str], key: str) -> str:
        variable, default = found[1], found[2]
        if found[0] == "$${":
            return "${"
        if variable is None:
            raise self.refusal(key, "expected ${NAME} or ${NAME:-default} (a plain '${' is written '$${')")
        if default is not None:
            return environ.get(variable) or default[2:]
        if variable not in environ:
            raise self.refusal(key, f"the environment variable {variable} is not set, and there is no default")
        return environ[variable]

    def struct(self, said: Any, struct: type, key: str) -> Any:
        """A section. A key that is left empty has its default."""
        if not isinstance(said, dict | None):
            raise self.refusal(key, f"expected keys with values, got {_describe(said)}")
        known, (required, secrets) = key_types(struct), _names_of(struct)
        self.known(said or {}, [*known, *(f"{name}_file" for name in secrets)], key)
        said = dict(said or {})
        for name in secrets:
            self._from_file(said, name, key)
        return struct(
            **{
                name: self.value(said.get(name), kind, _join(key, name))
                for name, kind in known.items()
                if name in required or said.get(name) is not None or (name in said and without_none(kind)[1])
            }
        )

    def known(self, said: Iterable[str], known: list[str], key: str) -> None:
        """Refuses a key that does not exist, with the nearest that does."""
        for name in said:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}"
                raise self.refusal(_join(key, name), f"unknown key; {hint}")

    def _from_file(self, said: dict[str, Any], name: str, key: str) -> None:
        """Replaces `x_file` by the content of that file as `x`."""
        file = said.pop(f"{name}_file", None)
        if not file:
            return
        full = _join(key, f"{name}_file")
        if said.get(name):
            raise self.refusal(full, f"expected either {name} or {name}_file, got both")
        if not isinstance(file, str):
            raise self.refusal(full, f"expected a file name, got {_describe(file)}")
        try:
            said[name] = _Substituted(self._found(file).read_text(encoding="utf-8").rstrip("\r\n"))
        except UnicodeDecodeError:
            raise self.refusal(full, f"the file {self._found(file)} is not a text in UTF-8") from None
        except (OSError, ValueError) as error:
            why = refusal_of(error)
            raise self.refusal(full, f"the file {self._found(file)} cannot be read: {why}") from None

    def _found(self, file: str) -> Path:
        here = self.directory / file
        if self.secrets_directory and not here.exists() and (self.secrets_directory / file).exists():
            return self.secrets_directory / file
        return here

    def value(self, said: Any, kind: Any, key: str) -> Any:
        """One value of a kind; an empty text is null where null is allowed."""
        kind, optional = without_none(kind)
        if optional and said in (None, ""):
            return None
        if get_origin(kind) is dict:
            return self._table(said, get_args(kind)[1], key)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self.struct(said, kind, key)
        if kind is Secret:
            return Secret(self._scalar(said, str, key))
        return self._scalar(said, kind, key)

    def _table(self, said: Any, kind: Any, key: str) -> dict[str, Any]:
        if not isinstance(said, dict):
            raise self.refusal(key, f"expected keys with values, got {_describe(said)}")
        return {name: self.value(entry, kind, _join(key, name)) for name, entry in said.items()}

    def _scalar(self, said: Any, kind: Any, key: str) -> Any:
        extra = meta(kind).extra or {}
        try:
            # The environment may hold bytes that are no text.
            str(said).encode()
            value = msgspec.convert(extra.get("parse", _as_said)(said), kind, strict=False)
        except (msgspec.ValidationError, ValueError):
            raise self.refusal(key, f"expected {expected(kind)}, got {_describe(said)}") from None
        return str(self.directory / value) if extra.get("file") else value


@functools.cache
def _names_of(struct: type) -> tuple[frozenset[str], tuple[str, ...]]:
    """The names of a section's keys that have no default, and of those whose value is a secret."""
    required = frozenset(field.name for field in msgspec.structs.fields(struct) if field.required)
    return required, tuple(name for name, kind in key_types(struct).items() if without_none(kind)[0] is Secret)


def _as_said(said: object) -> object:
    return str(said) if isinstance(said, str) else said


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _describe(said: object) -> str:
    if isinstance(said, _Substituted):
        return "something else from the environment or a file"
    if isinstance(said, dict):
        return "keys with values"
    if isinstance(said, list):
        return "a list"
    if isinstance(said, int) and abs(said) >= 10**20:
        return "a number of more than 20 digits"
    shown = "".join(sign if sign.isprintable() else " " for sign in str(said)[:41])
    return "nothing" if said is None else f"'{shown[:40]}…'" if len(shown) > 40 else f"'{shown}'"


# --- what the file leaves out ---------------------------------------------------------------------


def _merged(base: Any, over: Any) -> Any:
    """`over`, with what it leaves out from `base`."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return base | {name: _merged(base.get(name), entry) for name, entry in over.items()}


def _with_environment(tree: dict[str, Any]) -> dict[str, Any]:
    """Credentials that the file does not mention come from the environment."""
    api = tree.get("api") or {}
    if not isinstance(api, dict):
        return tree
    absent = {key: said for key, said in _FROM_ENVIRONMENT.items() if not {key, f"{key}_file"} & api.keys()}
    return {**tree, "api": api | absent}


def _with_profile(tree: dict[str, Any]) -> dict[str, Any]:
    profile = PROFILES.get(str(tree.get("profile")), {})
    merged: dict[str, Any] = _merged(profile, _without(tree, PROFILES["production"]))
    return merged


def _without(tree: Any, base: Any) -> Any:
    """`tree` without what `base` says as well, which a complete file repeats and a profile may yet change."""
    if not isinstance(tree, dict) or not isinstance(base, dict):
        return tree
    return {name: _without(entry, base.get(name)) for name, entry in tree.items() if not _same(entry, base.get(name))}


def _same(said: Any, default: Any) -> bool:
    return isinstance(default, str) and isinstance(said, str) and said.rstrip("/") in ("", default)


def _with_catalogue(said: Any, file: _FileReader) -> dict[str, Any]:
    """All calls in the file's form: the catalogue's rows with what the file says over them."""
    said = {} if said is None else said
    if not isinstance(said, dict):
        raise file.refusal("polling", f"expected calls with their keys, got {_describe(said)}")
    file.known(said, list(CALLS), "polling")
    return {id: _override_call(row, said.get(id), file) for id, row in CALLS.items()}


def _override_call(row: Call, said: Any, file: _FileReader) -> dict[str, Any]:
    key = f"polling.{row.id}"
    said = {} if said is None else said
    if not isinstance(said, dict):
        raise file.refusal(key, f"expected keys with values, got {_describe(said)}")
    known = key_types(CallForm)
    file.known(said, list(known), key)
    base = {name: _plain(getattr(row, name)) for name in known if name != "map"}
    given = {name: entry for name, entry in said.items() if entry is not None or without_none(known[name])[1]}
    if isinstance(given.get("window"), str):
        if given["window"] != "none":
            raise file.refusal(f"{key}.window", f"expected none or keys with values, got {_describe(given['window'])}")
        given["window"] = None
    # A query is replaced as a whole, so that what the catalogue sends can be left out.
    query = given.get("query", base["query"])
    overlaid: dict[str, Any] = _merged(base, given)
    return overlaid | {"query": query, "map": _override_map(row, given.get("map", {}), file)}


def _plain(value: Any) -> Any:
    return msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else value


def _override_map(row: Call, said: Any, file: _FileReader) -> Any:
    """The map of a call with its short forms written out; a wrong form is left for the kinds to refuse."""
    base: dict[str, Any] = {field.name: _map_form(field) for field in row.fields}
    if not isinstance(said, dict):
        return said
    file.known((name for name, entry in said.items() if entry is None), list(base), f"polling.{row.id}.map")
    for name, entry in said.items():
        over = {"path": entry} if isinstance(entry, str | list) else entry
        if isinstance(over, dict) and over.get("unit") and not over.get("type"):
            over = {**over, "type": "number"}
        base[name] = _merged(base.get(name), over)
    return base


def _map_form(field: Field) -> dict[str, Any]:
    return {"path": field.paths, "type": field.type, "unit": field.raw_unit, "kind": field.kind}


# --- from what was read to what is in force -------------------------------------------------------


def _build_config(config: Config, file: _FileReader) -> Config:
    """The configuration with a normalised address, all roles, and the forms of the calls made into calls."""
    mapping = replace(config.mapping, roles=ROLES | config.mapping.roles)
    forms: Iterable[tuple[str, Any]] = config.polling.items()
    polling = {id: _call(CALLS[id], form, mapping, file) for id, form in forms}
    api = replace(config.api, base_url=config.api.base_url.rstrip("/"))
    return replace(config, api=api, mapping=mapping, polling=polling)


def _call(row: Call, form: CallForm, mapping: Mapping, file: _FileReader) -> Call:
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
    file: _FileReader

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


# --- and back -------------------------------------------------------------------------------------


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
        return _MASK if value else ""
    if isinstance(value, Call):
        return _written_call(value)
    if isinstance(value, msgspec.Struct):
        return {name: _to_file_form(getattr(value, name), inner) for name, inner in key_types(kind).items()}
    if isinstance(value, dict):
        return {name: _to_file_form(entry, get_args(kind)[1]) for name, entry in value.items()}
    if "text" in extra:
        return extra["text"](value)
    return list(value) if isinstance(value, tuple) else value


def _written_call(call: Call) -> dict[str, Any]:
    known = key_types(CallForm)
    plain = {name: None if name == "map" else _to_file_form(getattr(call, name), known[name]) for name in known}
    defaults = {field.name: field for field in CALLS[call.id].fields}
    present = {field.name: _written_field(field, defaults.get(field.name)) for field in call.fields}
    return plain | {"window": plain["window"] or "none", "map": dict.fromkeys(defaults) | present}


def _written_field(field: Field, default: Field | None) -> Any:
    """The shortest form that gives this field: paths alone, when nothing else is unlike the catalogue."""
    form = _map_form(field)
    base = _map_form(default or Field(field.name, ()))
    path = field.paths[0] if len(field.paths) == 1 else list(field.paths)
    other = {name: said for name, said in form.items() if name != "path" and said != base[name]}
    # A unit makes a number of a field that says no type.
    if "unit" in other:
        other["type"] = field.type
    return {"path": path} | other if other else path


def fingerprint(call: Call, mapping: Mapping) -> str:
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
