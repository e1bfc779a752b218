"""Puts changes into the user's bridge.yaml: its comments, order and form are kept, and nothing else is touched."""

import contextlib
import difflib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.tokens import AliasToken, AnchorToken

from oneweb_bridge.explore.evidence import Tree
from oneweb_bridge.files import refusal_of

BACKUP_SUFFIX = ".before-explore"


class WriteRefused(Exception):
    """The file was not changed; the text is one sentence for the user."""


def write_changes(path: Path, changes: Tree) -> list[str]:
    """Changes the file, a copy of what it was beside it, and returns the difference. Raises WriteRefused."""
    before = _read(path)
    after = changed_text(before, changes, str(path))
    if after == before:
        return []
    # Where the path is a symbolic link, the file behind it is changed, and the link stays.
    path = path.resolve()
    copy = path.with_name(path.name + BACKUP_SUFFIX)
    try:
        _replace(copy, before, path)
        _replace(path, after, path)
    except OSError as error:
        raise WriteRefused(f"{path} cannot be written: {refusal_of(error)}; nothing was changed") from None
    return [line.rstrip("\r\n") for line in _difference(before, after, path)]


def check_writable(path: Path) -> None:
    """Raises WriteRefused where the file could not be changed, so that this is known before all is asked."""
    changed_text(_read(path), {}, str(path))
    path = path.resolve()
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise WriteRefused(f"{path} or its folder is not writable; nothing was changed")


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise WriteRefused(f"{path} is no YAML file in UTF-8; nothing was changed") from None
    except (OSError, ValueError) as error:
        raise WriteRefused(f"{path} cannot be read: {refusal_of(error)}; nothing was changed") from None


def changed_text(text: str, changes: Tree, name: str) -> str:
    """The text of a file with changes. Raises WriteRefused where it is no YAML of keys, or has anchors.

    A byte order mark stays, and so do the ends of lines.
    """
    body = text.removeprefix(MARK)
    end = "\r\n" if "\r\n" in body else "\n"
    plain = body.replace("\r\n", "\n")
    lines = _lines(body)
    if changes and lines and not lines[-1].endswith("\n"):
        lines[-1] += end
    changed = _changed_lines(lines, plain, changes, name)
    return text[: len(text) - len(body)] + "".join(
        line if is_own else line.replace("\n", end) for is_own, line in changed
    )


MARK = "\ufeff"


def _lines(text: str) -> list[str]:
    """The lines with their ends. No other character ends a line of YAML."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _changed_lines(lines: list[str], text: str, changes: Tree, name: str) -> Iterator[tuple[bool, str]]:
    """The lines of the changed file, each with whether it is the file's own. Raises WriteRefused."""
    yaml = _yaml(text)
    try:
        tree = yaml.load(text)
    except (YAMLError, ValueError, RecursionError):
        raise WriteRefused(f"{name} is no YAML that can be changed; nothing was changed") from None
    if tree is None:
        yield from ((True, line) for line in lines)
        if changes:
            yield False, _dumped(yaml, changes)
        return
    if not isinstance(tree, CommentedMap):
        raise WriteRefused(f"{name} is no YAML of keys with values; nothing was changed")
    if _has_anchors(text):
        raise WriteRefused(
            f"{name} has anchors (&name, *name), which a change would also change elsewhere: paste the lines by hand; "
            "nothing was changed"
        )
    if not changes:
        yield from ((True, line) for line in lines)
        return
    unchanged = _lines(_dumped(yaml, tree))
    filled = _merge(tree, changes, name)
    if len(unchanged) != len(lines):
        raise WriteRefused(f"{name} cannot be changed without touching other lines: paste them by hand; {_UNCHANGED}")
    for number, line in _with_changed_lines(unchanged, _lines(_dumped(yaml, tree))):
        is_own = number is not None and number not in filled
        yield is_own, lines[number] if is_own and number is not None else line


def _yaml(text: str) -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.explicit_start = text.startswith("---")
    widths = [len(line) - len(line.lstrip(" ")) for line in text.splitlines() if line.startswith(" ") and line.strip()]
    yaml.indent(mapping=min(widths, default=2), sequence=4, offset=2)
    return yaml


def _dumped(yaml: YAML, tree: Any) -> str:
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()


def _with_changed_lines(unchanged: list[str], changed: list[str]) -> Iterator[tuple[int | None, str]]:
    """The lines of the changed form, each with the number of the file's own line that it is; None for another.

    The library writes some values in its own way, such as nothing for null, which is no change.
    """
    for kind, first, last, new_first, new_last in difflib.SequenceMatcher(
        None, unchanged, changed, False
    ).get_opcodes():
        numbers = range(first, last) if kind == "equal" else [None] * (new_last - new_first)
        yield from zip(numbers, changed[new_first:new_last], strict=True)


_UNCHANGED = "nothing was changed"


def _has_anchors(text: str) -> bool:
    return any(isinstance(token, AnchorToken | AliasToken) for token in YAML().scan(text))


def _merge(tree: CommentedMap, changes: Tree, file: str) -> set[int]:
    """Puts changes into a tree. Raises WriteRefused where keys would take the place of a list.

    Returns the lines of keys that had null: one that says so must not stay.
    """
    filled: set[int] = set()
    for name, value in changes.items():
        inner = tree.get(name)
        if isinstance(inner, list) and isinstance(value, dict):
            raise WriteRefused(f"{file} has a list at '{name}', where keys with values are expected; {_UNCHANGED}")
        if isinstance(inner, CommentedMap) and isinstance(value, dict) and name != "query":
            filled |= _merge(inner, value, file)
        else:
            if inner is None and name in tree:
                filled.add(tree.lc.key(name)[0])
            tree[name] = _plain(value, depth=0)
    return filled


def _plain(value: Any, *, depth: int) -> Any:
    """A new value: objects below a call's keys stand on one line."""
    if not isinstance(value, dict):
        return list(value) if isinstance(value, tuple) else value
    new = CommentedMap((name, _plain(inner, depth=depth + 1)) for name, inner in value.items())
    if not any(isinstance(inner, dict) for inner in value.values()):
        new.fa.set_flow_style()
    return new


def _replace(path: Path, text: str, like: Path) -> None:
    """Writes a file as a whole, with the owner's rights of another, or not at all. Raises OSError."""
    mode = like.stat().st_mode & 0o777
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _difference(before: str, after: str, path: Path) -> Iterator[str]:
    lines = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return difflib.unified_diff(*lines, str(path), str(path), n=2)
