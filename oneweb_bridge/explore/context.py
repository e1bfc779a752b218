"""What the judges of `explore` share: findings, the context of all calls, and what the configuration reads. Pure."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from oneweb_bridge.config.read import read_values
from oneweb_bridge.config.schema import Config
from oneweb_bridge.config.write import effective
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.listings import without_wrapper, wrapper_of
from oneweb_bridge.decode.paths import compile_path, fold_name, top_member
from oneweb_bridge.decode.values import Unparseable, parse_time
from oneweb_bridge.explore.evidence import Evidence, Tree


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as the configuration says: a sentence, and what to change, if that can be known.

    `must_improve`: the change is right only if more is read with it; else it is enough that no less is. Of findings
    with the same `alternative` one is right, so that none is when several read better.
    """

    text: str
    change: Tree = {}
    must_improve: bool = True
    alternative: str = ""


def polling(seen: Evidence, **keys: Any) -> Tree:
    """A change of keys of a call."""
    return {"polling": {seen.call.id: keys}}


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What all calls together say. `items` by call; `kinds` of organizations by id; `now` the API's clock in ms."""

    config: Config
    items: Mapping[str, list[Any]]
    now: int
    kinds: Mapping[str, str]
    sites: Mapping[str, tuple[float, float]]
    default_maps: Mapping[str, Mapping[str, Any]]
    """Call -> field -> where it is read by default, as bridge.yaml has it; with the roles of this configuration."""

    @classmethod
    def of(cls, seen: Iterable[Evidence], config: Config) -> "Context":
        """The context of all that was seen."""
        seen = list(seen)
        items = {e.call.id: _records_of(e.call, e.listed.items) for e in seen if e.listed}
        now = max((e.reply.time for e in seen if e.reply.time is not None), default=0)
        kinds = {str(org.get("id")): _kind(org) for org in items.get("organizations", ())}
        sites = {str(site.get("id")): point for site in items.get("sites", ()) if (point := _point(site, config))}
        maps = default_maps(config)
        return cls(config=config, items=items, now=now, kinds=kinds, sites=sites, default_maps=maps)


def default_maps(config: Config) -> dict[str, dict[str, Any]]:
    """The maps of all calls as they are without the lines of the user, under the roles that he has configured."""
    mapping = {"coordinate_order": config.mapping.coordinate_order, "roles": effective(config)["mapping"]["roles"]}
    polling_by_default = effective(read_values({"mapping": mapping}))["polling"]
    return {id: keys["map"] for id, keys in polling_by_default.items()}


def _records_of(call: Call, items: Sequence[Any]) -> list[dict[str, Any]]:
    """The objects of a list, without what each is wrapped in."""
    records = [item for item in items if isinstance(item, dict)]
    wrapper = wrapper_of(records[0], call) if records else None
    return records if wrapper is None else [without_wrapper(record, wrapper) for record in records]


def _kind(organization: Mapping[str, Any]) -> str:
    type_name = fold_name(str(organization.get("type", "")))
    if "customer" in type_name or "user" in type_name:
        return "end_customer"
    parent = organization.get("organizationParentRelationship")
    return "other" if parent else "distribution_partner"


def _point(site: Any, config: Config) -> tuple[float, float] | None:
    """Latitude and longitude of a site."""
    paths = {field.name: field.paths[0] for field in config.polling["sites"].fields}
    try:
        return float(compile_path(paths["latitude"])(site)), float(compile_path(paths["longitude"])(site))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def number_of(value: Any) -> float | None:
    """A JSON number as a float; None for anything else, also for an integer that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    with contextlib.suppress(OverflowError):
        return float(value)
    return None


def values_at(items: Iterable[Any], paths: Sequence[str]) -> Iterator[Any]:
    """What the items have at the first of the paths that gives something."""
    steps = [compile_path(path) for path in paths]
    for item in items:
        value = next((value for step in steps if (value := step(item)) is not None), None)
        if value is not None:
            yield value


def scalar_paths(items: Iterable[Any], above: str, depth: int) -> Iterator[str]:
    """The paths of texts and whole numbers in some items, each as often as it is there."""
    for item in items:
        for name, value in item.items() if isinstance(item, dict) else ():
            if not name.isidentifier():
                continue
            if isinstance(value, str | int) and not isinstance(value, bool):
                yield above + name
            elif isinstance(value, dict) and depth > 1:
                yield from scalar_paths([value], f"{above}{name}.", depth - 1)


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; an object alone is a list of one."""
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, dict)]


def has_any(items: Iterable[Any], paths: Sequence[str]) -> bool:
    """Whether any of the items has something at one of the paths."""
    return next(values_at(items, paths), None) is not None


def is_time(value: Any) -> bool:
    """Whether a value can be read as a time of our days."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return False
    try:
        ts = parse_time(value)
    except Unparseable:
        return False
    return ts is not None and 946_684_800_000 < ts < 4_102_444_800_000


_EXPECTED = frozenset(
    map(
        fold_name,
        (
            *("href", "id", "imei", "parent", "rows", "report", "granularity", "productSpecification", "name"),
            *("schemaLocation", "isLegalEntity", "organizationChildRelationship", "relatedParty", "place", "product"),
            "description",
        ),
    )
)
_KINDS = ((bool, "bool"), (str, "text"), (int, "number"), (float, "number"), (list, "list"), (dict, "object"))


def unknown_members(call: Call, records: Iterable[Any]) -> list[str]:
    """Top-level members that nothing reads, with the type of what stands there."""
    paths = [*call.key, *re.split(r"\W+", call.records or ""), *(path for field in call.fields for path in field.paths)]
    if call.reads == "report":
        paths += [path for path in (call.measurements, call.indicators, *call.timestamp) if path]
    known = {fold_name(name) for path in paths if path and (name := top_member(path))} | _EXPECTED
    members: dict[str, str] = {}
    for record in records:
        for name, value in record.items() if isinstance(record, dict) else ():
            if fold_name(name) not in known and not name.startswith("@") and value is not None:
                members.setdefault(
                    name, next((type_name for kind, type_name in _KINDS if isinstance(value, kind)), "?")
                )
    return [f"{name} ({type_name})" for name, type_name in sorted(members.items())]
