"""Where the components of terminals stand, and in which form. Pure."""

import re
from collections.abc import Iterator
from typing import Any

from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.paths import compile_path
from oneweb_bridge.explore.context import Context, Finding, polling
from oneweb_bridge.explore.evidence import Evidence, Tree

_PARTS = ("partition", "type", "version")
_ELSEWHERE = "id,component,resourceRelationship,resourceCharacteristic"
_PATHS = ("/userTerminalComponent", "/component")


def component_places(call: Call) -> Iterator[tuple[str, dict[str, str]]]:
    """Path and query of where else components may be."""
    if "fields" in call.query:
        yield call.path, {**call.query, "fields": _ELSEWHERE}
        yield call.path, {name: value for name, value in call.query.items() if name != "fields"}
    base = call.path.rpartition("/")[0]
    for path in _PATHS:
        yield base + path, {}


def has_components(items: list[Any]) -> bool:
    """Whether some of the items show components in a form that is known here."""
    return any(_form(item) is not None for item in items if isinstance(item, dict))


def judge(seen: Evidence, _: Context) -> list[Finding]:
    """How components come, unless it is as configured."""
    items = [item for item in seen.listed.items if isinstance(item, dict)] if seen.listed else []
    form = next((form for item in items if (form := _form(item)) is not None), None)
    if form is None:
        return [Finding("no components: neither in the terminals nor at a path that was tried")]
    text, change = form
    if "resource" in text and "query" in seen.changes:
        name = text.partition(" ")[0]
        seen.changes["query"] = {**seen.changes["query"], "fields": f"id,{name}"}
    change = {**seen.changes, **change}
    return [Finding(f"components are in {text}", polling(seen, **change))] if change else []


def _form(item: dict[str, Any]) -> tuple[str, Tree] | None:
    """How an item shows components: in words, and the change that reads them."""
    if all(isinstance(item.get(name), str) for name in ("type", "version")):
        return "records of their own", {"explode": "rows"}
    for name, value in item.items():
        for read in (_listed, _mapped, _related, _named):
            form = read(name, value)
            if form is not None:
                return form
    return None


def _listed(name: str, value: Any) -> tuple[str, Tree] | None:
    if not _is_list(value) or not all(part.get("type") and part.get("version") for part in value):
        return None
    return f"{name} as a list", {} if name == "component" else {"map": {"components": f"{name}[*]"}}


def _mapped(name: str, value: Any) -> tuple[str, Tree] | None:
    if not isinstance(value, dict) or not value or "component" not in name.casefold():
        return None
    change: Tree = {"explode": "map"}
    return f"{name} as a map", change if name == "component" else change | {"map": {"components": f"{name}[*]"}}


def _related(name: str, value: Any) -> tuple[str, Tree] | None:
    if not _is_list(value):
        return None
    for below in (key for key, inner in value[0].items() if isinstance(inner, dict)):
        if all(compile_path(f"{below}.{part}")(value[0]) for part in ("type", "version")):
            return f"{name} ({below})", {"map": {"components": f"{name}[*].{below}"}}
    return None


_NAMED = re.compile(r"[^./:|\s]+[./:|\s][^./:|\s]+([./:|\s]version)?", re.IGNORECASE)


def _named(name: str, value: Any) -> tuple[str, Tree] | None:
    if not _is_list(value) or not all(isinstance(part.get("name"), str) and "value" in part for part in value):
        return None
    if not all(_NAMED.fullmatch(part["name"]) for part in value):
        return None
    cut = dict(zip(_PARTS, ("name[:0]", "name[:1]", "value"), strict=True))
    return f"{name} (names like partition.type)", {"map": {"components": f"{name}[*]", **cut}}


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, dict) for part in value)
