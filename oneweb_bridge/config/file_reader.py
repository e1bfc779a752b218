"""Turns the tree of one configuration file into values, section by section, and refuses in the file's name."""

import difflib
import functools
import re
from collections.abc import Iterable
from collections.abc import Mapping as Table
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from oneweb_bridge.config.schema import Secret, expected, key_types, meta, without_none
from oneweb_bridge.files import refusal_of


class ConfigError(Exception):
    """What is wrong with the configuration: one sentence for the user."""


class _Substituted(str):
    """A text with a part from the environment, which no message may show."""

    __slots__ = ()


_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\})?")


class FileReader(msgspec.Struct, frozen=True):
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
            raise self.refusal(key, f"expected keys with values, got {describe(said)}")
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
            raise self.refusal(full, f"expected a file name, got {describe(file)}")
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
            raise self.refusal(key, f"expected keys with values, got {describe(said)}")
        return {name: self.value(entry, kind, _join(key, name)) for name, entry in said.items()}

    def _scalar(self, said: Any, kind: Any, key: str) -> Any:
        extra = meta(kind).extra or {}
        try:
            # The environment may hold bytes that are no text.
            str(said).encode()
            value = msgspec.convert(extra.get("parse", _as_said)(said), kind, strict=False)
        except (msgspec.ValidationError, ValueError):
            raise self.refusal(key, f"expected {expected(kind)}, got {describe(said)}") from None
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


def describe(said: object) -> str:
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


def merge_trees(base: Any, over: Any) -> Any:
    """`over`, with what it leaves out from `base`."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return base | {name: merge_trees(base.get(name), entry) for name, entry in over.items()}
