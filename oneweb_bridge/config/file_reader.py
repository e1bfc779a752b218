"""Reads the tree of one configuration file section by section into values. What is wrong is a ConfigError."""

import functools
import os
import re
from collections.abc import Iterable
from collections.abc import Mapping as Table
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from oneweb_bridge.config.schema import Secret, expected, key_types, meta, without_none
from oneweb_bridge.files import refusal_of


class ConfigError(Exception):
    """The configuration is wrong. The text is one sentence for the user: file, key, what was expected."""


class _Substituted(str):
    """A text with a part from the environment or a file, which no message may show."""

    __slots__ = ()


_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\})?")


class FileReader(msgspec.Struct, frozen=True):
    """One file being read: turns parts of its tree into values."""

    name: str
    directory: Path
    secrets_directory: Path | None

    def refusal(self, key: str, why: str) -> ConfigError:
        return ConfigError(f"{self.name}: {key}: {why}")

    def substitute(self, raw: Any, environ: Table[str, str], key: str) -> Any:
        """The tree with the values of the environment in place of `${NAME}`."""
        if isinstance(raw, dict):
            return {name: self.substitute(entry, environ, _join(key, name)) for name, entry in raw.items()}
        if isinstance(raw, list):
            return [self.substitute(entry, environ, key) for entry in raw]
        if not isinstance(raw, str) or "${" not in raw:
            return raw
        return _Substituted(_VARIABLE.sub(lambda match: self._variable(match, environ, key), raw))

    def _variable(self, match: re.Match[str], environ: Table[str, str], key: str) -> str:
        variable, default = match[1], match[2]
        if match[0] == "$${":
            return "${"
        if variable is None:
            raise self.refusal(key, "expected ${NAME} or ${NAME:-default} (a plain '${' is written '$${')")
        if default is not None:
            return environ.get(variable) or default[2:]
        if variable not in environ:
            raise self.refusal(key, f"the environment variable {variable} is not set, and there is no default")
        return environ[variable]

    def read_section(self, raw: Any, struct: type, key: str) -> Any:
        """A section as a struct. A key that is left empty has its default."""
        if not isinstance(raw, dict | None):
            raise self.refusal(key, f"expected keys with values, got {describe(raw)}")
        known, (required, secrets) = key_types(struct), _names_of(struct)
        self.check_keys(raw or {}, [*known, *(f"{name}_file" for name in secrets)], key)
        raw = dict(raw or {})
        for name in secrets:
            self._read_secret_file(raw, name, key)
        return struct(
            **{
                name: self.read_value(raw.get(name), kind, _join(key, name))
                for name, kind in known.items()
                if name in required or raw.get(name) is not None or (name in raw and without_none(kind)[1])
            }
        )

    def check_keys(self, raw: Iterable[str], known: list[str], key: str) -> None:
        """Raises ConfigError for an unknown key, with the nearest known one."""
        for name in raw:
            if name not in known:
                import difflib  # noqa: PLC0415 -- half a megabyte, which a valid configuration never needs

                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}"
                raise self.refusal(_join(key, name), f"unknown key; {hint}")

    def _read_secret_file(self, raw: dict[str, Any], name: str, key: str) -> None:
        """Replaces `x_file` by the content of that file as `x`."""
        file = raw.pop(f"{name}_file", None)
        if not file:
            return
        full = _join(key, f"{name}_file")
        if raw.get(name):
            raise self.refusal(full, f"expected either {name} or {name}_file, got both")
        if not isinstance(file, str):
            raise self.refusal(full, f"expected a file name, got {describe(file)}")
        try:
            raw[name] = _Substituted(self._secret_path(file).read_text(encoding="utf-8").rstrip("\r\n"))
        except UnicodeDecodeError:
            raise self.refusal(full, f"the file {self._secret_path(file)} is not a text in UTF-8") from None
        except (OSError, ValueError) as error:
            why = refusal_of(error)
            raise self.refusal(full, f"the file {self._secret_path(file)} cannot be read: {why}") from None

    def _secret_path(self, file: str) -> Path:
        here = self.directory / file
        there = self.secrets_directory and self.secrets_directory / file
        # What cannot be looked at is not there: reading it says why. pathlib's own raises for some refusals.
        return there if there and not os.path.exists(here) and os.path.exists(there) else here  # noqa: PTH110

    def read_value(self, raw: Any, kind: Any, key: str) -> Any:
        """One value of a kind; an empty text is null where null is allowed."""
        kind, optional = without_none(kind)
        if optional and raw in (None, ""):
            return None
        if get_origin(kind) is dict:
            return self._read_table(raw, get_args(kind)[1], key)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self.read_section(raw, kind, key)
        if kind is Secret:
            return Secret(self._read_scalar(raw, str, key))
        return self._read_scalar(raw, kind, key)

    def _read_table(self, raw: Any, kind: Any, key: str) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise self.refusal(key, f"expected keys with values, got {describe(raw)}")
        return {name: self.read_value(entry, kind, _join(key, name)) for name, entry in raw.items()}

    def _read_scalar(self, raw: Any, kind: Any, key: str) -> Any:
        extra = meta(kind).extra or {}
        try:
            # The environment may hold bytes that are no text.
            str(raw).encode()
            value = msgspec.convert(extra.get("parse", _plain_text)(raw), kind, strict=False)
        except (msgspec.ValidationError, ValueError):
            raise self.refusal(key, f"expected {expected(kind)}, got {describe(raw)}") from None
        return str(self.directory / value) if extra.get("file") else value


@functools.cache
def _names_of(struct: type) -> tuple[frozenset[str], tuple[str, ...]]:
    """The names of a section's keys that have no default, and of those whose value is a secret."""
    required = frozenset(field.name for field in msgspec.structs.fields(struct) if field.required)
    return required, tuple(name for name, kind in key_types(struct).items() if without_none(kind)[0] is Secret)


def _plain_text(raw: object) -> object:
    return str(raw) if isinstance(raw, str) else raw


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def describe(raw: object) -> str:
    if isinstance(raw, _Substituted):
        return "something else from the environment or a file"
    if isinstance(raw, dict):
        return "keys with values"
    if isinstance(raw, list):
        return "a list"
    if isinstance(raw, int) and abs(raw) >= 10**20:
        return "a number of more than 20 digits"
    text = "".join(sign if sign.isprintable() else " " for sign in str(raw)[:41])
    return "nothing" if raw is None else f"'{text[:40]}…'" if len(text) > 40 else f"'{text}'"


def merge_trees(base: Any, over: Any) -> Any:
    """`over`, with what it leaves out from `base`."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return base | {name: merge_trees(base.get(name), entry) for name, entry in over.items()}
