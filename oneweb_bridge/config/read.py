"""From bridge.yaml and the environment to one checked `Config`.

    text ─YAML─▶ tree ─${…}─▶ tree ─profile, catalogue─▶ complete tree ─kinds─▶ Config ─rules─▶ Config

Scalars stay text until their kind is known: an IMEI or a password written without quotes keeps its
zeros, and a value from the environment is never read as YAML. Whatever is wrong is a ConfigError of
one sentence that names file, key and what was expected, and never a secret.
"""

import importlib.util
from collections.abc import Mapping as Table
from pathlib import Path
from typing import Any

import msgspec
import yaml

from oneweb_bridge.config.calls import build_config, read_call, with_catalogue
from oneweb_bridge.config.credentials import missing_credential
from oneweb_bridge.config.file_reader import ConfigError, FileReader, describe, merge_trees
from oneweb_bridge.config.rules import rule_violations
from oneweb_bridge.config.schema import Config
from oneweb_bridge.config.yaml_errors import describe_yaml_error
from oneweb_bridge.files import refusal_of

PROFILES: dict[str, dict[str, Any]] = {
    "production": {"api": {"base_url": "https://api.oneweb.net"}},
    "training": {"api": {"base_url": "https://api.oneweb.training"}},
}
"""Keys that differ per profile, in the file's own form. A key that the file changes from production's value wins."""
_FROM_ENVIRONMENT = {"client_id": "${ONEWEB_CLIENT_ID:-}", "client_secret": "${ONEWEB_CLIENT_SECRET:-}"}


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
    """The configuration in `text`; files of secrets may be in either directory. Raises ConfigError."""
    file = FileReader(name, directory, secrets_directory)
    tree = _with_environment(_parse_yaml(text, name))
    return _read_tree(_with_profile(file.substitute(tree, environ, "")), file)


def read_values(tree: dict[str, Any]) -> Config:
    """The configuration of a complete tree in the file's form, as `effective` gives it. Raises ConfigError."""
    return _read_tree(tree, FileReader("bridge.yaml", Path(), None))


def with_call(config: Config, id: str, raw: dict[str, Any]) -> Config:
    """A configuration with another call, given in the file's form. Raises ConfigError."""
    file = FileReader("bridge.yaml", Path(), None)
    changed = msgspec.structs.replace(config, polling=config.polling | {id: read_call(id, raw, config, file)})
    return _checked(changed, file)


def _read_tree(tree: dict[str, Any], file: FileReader) -> Config:
    tree["polling"] = with_catalogue(tree.get("polling"), file)
    read: Config = file.read_section(tree, Config, "")
    return _checked(build_config(read, file), file)


def _checked(config: Config, file: FileReader) -> Config:
    for key, why in rule_violations(config):
        raise file.refusal(key, why)
    return config


def require_credentials(config: Config) -> None:
    """Raises ConfigError when a credential is missing; its text says how to give it."""
    if sentence := missing_credential(config.api):
        raise ConfigError(sentence)


def require_sparkplug(config: Config) -> None:
    """Raises ConfigError when Sparkplug is enabled and its library is not installed."""
    if config.sparkplug.enabled and not _has_protobuf():
        raise ConfigError(
            "sparkplug.enabled: the library for it is not installed: "
            'pip install "oneweb-bridge[sparkplug]", or set sparkplug.enabled: false'
        )


def require_postgres(config: Config) -> None:
    """Raises ConfigError when the state is in PostgreSQL and the driver is not installed."""
    if config.state.url is not None and importlib.util.find_spec("psycopg") is None:
        raise ConfigError(
            "state.url: the driver of PostgreSQL is not installed: "
            'pip install "oneweb-bridge[postgres]", or give state.path instead'
        )


def _has_protobuf() -> bool:
    try:
        return importlib.util.find_spec("google.protobuf") is not None
    except ModuleNotFoundError:
        return False


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


def _parse_yaml(text: str, name: str) -> dict[str, Any]:
    try:
        tree = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
        # An alias to a list that it stands in has no end, which this notices.
        msgspec.json.encode(tree)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{name}: {describe_yaml_error(error, text.splitlines())}") from None
    except yaml.YAMLError:
        raise ConfigError(f"{name}: expected a YAML file, and it has characters that YAML forbids") from None
    except ValueError:
        # A tag like !!int before something that is none, or half of a surrogate pair.
        raise ConfigError(f"{name}: expected texts in UTF-8, and no tags like !!int") from None
    except RecursionError:
        raise ConfigError(f"{name}: is nested too deeply") from None
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(f"{name}: expected keys with values, like 'instance: main', got {describe(tree)}")
    return tree or {}


def _with_environment(tree: dict[str, Any]) -> dict[str, Any]:
    """Credentials that the file does not mention come from the environment."""
    api = tree.get("api") or {}
    if not isinstance(api, dict):
        return tree
    missing = {key: reference for key, reference in _FROM_ENVIRONMENT.items() if not {key, f"{key}_file"} & api.keys()}
    return {**tree, "api": api | missing}


def _with_profile(tree: dict[str, Any]) -> dict[str, Any]:
    profile = PROFILES.get(str(tree.get("profile")), {})
    merged: dict[str, Any] = merge_trees(profile, _without_defaults(tree, PROFILES["production"]))
    return merged


def _without_defaults(tree: Any, base: Any) -> Any:
    """`tree` without values that equal `base`: a complete file repeats them, and a profile may still change them."""
    if not isinstance(tree, dict) or not isinstance(base, dict):
        return tree
    return {
        name: _without_defaults(entry, base.get(name))
        for name, entry in tree.items()
        if not _is_default(entry, base.get(name))
    }


def _is_default(text: Any, default: Any) -> bool:
    return isinstance(default, str) and isinstance(text, str) and text.rstrip("/") in ("", default)
