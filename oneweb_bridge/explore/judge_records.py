"""What is unlike the configuration in terminals, products, organizations and sites. Pure."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from oneweb_bridge.decode.catalogue import Field
from oneweb_bridge.decode.coverage import MAX_STATE_CHARS
from oneweb_bridge.decode.fields import value_in
from oneweb_bridge.decode.paths import compile_path, fold_name
from oneweb_bridge.decode.values import Unparseable, parse_text
from oneweb_bridge.explore.context import (
    Context,
    Finding,
    has_any,
    number_of,
    objects,
    polling,
    scalar_paths,
    unknown_members,
    values_at,
)
from oneweb_bridge.explore.evidence import Evidence
from oneweb_bridge.explore.guesses import Name, match_names, share_a_meaning

_CHARACTERISTIC = re.compile(r"(\w+)\[name=([^\]]+)\]\.value")


def judge(seen: Evidence, context: Context) -> list[Finding]:
    """Everything that is unlike the configuration in the records of one call."""
    items = context.items.get(seen.call.id, [])
    findings = [
        *_useless_lines(seen, context, items),
        *_characteristics(seen, items),
        *_plain(seen, items),
        *_positions(seen, items),
    ]
    if seen.call.id in ("user_terminals", "products"):
        findings += _roles(context, items)
    if seen.call.id == "user_terminals":
        findings += [*_order(context, items), *_site_ids(seen, context, items), *_states(seen, context, items)]
    if seen.call.id == "products":
        findings += [*_unlimited(seen, context, items), *_link(seen, context, items)]
    return findings


def _useless_lines(seen: Evidence, context: Context, items: list[Any]) -> Iterator[Finding]:
    """Lines of the user that find nothing in any record, where the default path does."""
    configured = {field.name: field.paths for field in seen.call.fields}
    for name, default in context.default_maps.get(seen.call.id, {}).items():
        paths = _paths_of(default)
        is_useless = name in configured and configured[name] != paths and not has_any(items, configured[name])
        if is_useless and paths and has_any(items, paths):
            line = f"polling.{seen.call.id}.map.{name}"
            text = f"your own line {line} finds nothing in any record, and the default path does: remove the line"
            yield Finding(text, polling(seen, map={name: default}))


def _paths_of(entry: Any) -> tuple[str, ...]:
    """The paths in an entry of a map."""
    if isinstance(entry, dict):
        entry = entry.get("path")
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


# ── characteristics ────────────────────────────────────────────────────────────────────────────


def _characteristics(seen: Evidence, items: list[Any]) -> list[Finding]:
    """Characteristics under other names than the configured ones."""
    configured = {field.name: names for field in seen.call.fields if (names := _named(field))}
    for member in sorted({member for names in configured.values() for member, _ in names}):
        listed = _listed_characteristics(member, items)
        known = {fold_name(name) for names in configured.values() for _, name in names}
        missing = {
            field.name: ((field.name, *(name for _, name in configured[field.name])), field.raw_unit)
            for field in seen.call.fields
            if field.name in configured
            and not any(fold_name(name) in map(fold_name, listed) for _, name in configured[field.name])
        }
        others = [Name(name, unit) for name, unit in listed.items() if fold_name(name) not in known]
        pairs = match_names(missing, others)
        if pairs:
            change = {field: f"{member}[name={name}].value" for field, name in pairs.items()}
            return [Finding("characteristics have other names (guessed)", polling(seen, map=change))]
    return []


def _named(field: Field) -> list[tuple[str, str]]:
    """Member and name of each characteristic that a field is read from; none of a field that is a fallback."""
    matches = [_CHARACTERISTIC.fullmatch(path) for path in field.paths]
    return [(match[1], match[2]) for match in matches if match] if all(matches) else []


def _listed_characteristics(member: str, items: list[Any]) -> dict[str, str]:
    """Name and unit of all characteristics that the items show."""
    units: dict[str, str] = {}
    for characteristic in (characteristic for item in items for characteristic in objects(item.get(member))):
        name, unit = characteristic.get("name"), characteristic.get("unit")
        if isinstance(name, str):
            units[name] = units.get(name) or (unit if isinstance(unit, str) else "")
    return units


# ── plain members ──────────────────────────────────────────────────────────────────────────────

_PLAIN = re.compile(r"\w+")
_ALIASES = {
    "name": ("displayname", "label", "title", "terminalname", "commonname"),
    "state": ("operationalstate", "operationalstatus", "connectivity", "connectionstate", "connectionstatus", "online"),
    "status": ("lifecyclestatus", "lifecyclestate", "productstatus", "servicestatus"),
    "last_seen": ("lastcontactdate", "lastcontact", "lastseen", "lastcommunication", "lastonline"),
}
"""Field -> other names of it that are no words of its own."""


def _plain(seen: Evidence, items: list[Any]) -> list[Finding]:
    """Members that nothing reads and that are much like a field which no item has."""
    missing = {
        field.name: ((field.name, *field.paths), "")
        for field in seen.call.fields
        if all(_PLAIN.fullmatch(path) for path in field.paths) and not has_any(items, field.paths)
    }
    others = [Name(text.partition(" ")[0]) for text in unknown_members(seen.call, items) if "(text)" in text]
    guesses = match_names(missing, others) if items else {}
    pairs = {name: other for name, other in guesses.items() if share_a_meaning(missing[name][0], other)}
    for name in missing:
        alias = next((other.name for other in others if fold_name(other.name) in _ALIASES.get(name, ())), None)
        if alias is not None and alias not in pairs.values():
            pairs[name] = alias
    return [Finding("members have other names (guessed)", polling(seen, map=dict(pairs)))] if pairs else []


_POSITIONS = {"latitude": ("latitude", "lat"), "longitude": ("longitude", "lon", "lng", "long")}


def _positions(seen: Evidence, items: list[Any]) -> list[Finding]:
    """Latitude and longitude in members of their own, or in those of one object."""
    fields = {field.name: field.paths for field in seen.call.fields if field.name in _POSITIONS}
    if len(fields) < 2 or not items or any(has_any(items, paths) for paths in fields.values()):
        return []
    for above in (
        "",
        *(f"{name}." for name, value in items[0].items() if isinstance(value, dict) and name.isidentifier()),
    ):
        holder = items[0] if not above else items[0][above[:-1]]
        pair = {
            ours: f"{above}{name}"
            for ours, names in _POSITIONS.items()
            for name in holder
            if name.isidentifier() and fold_name(name) in names
        }
        if len(pair) == len(_POSITIONS):
            return [Finding("latitude and longitude are members of their own", polling(seen, map=dict(pair)))]
    return _points(seen, items[0])


def _points(seen: Evidence, item: Any) -> list[Finding]:
    """A position as a point of GeoJSON, longitude first."""
    for name, value in item.items():
        for path, point in ((name, value), (f"{name}.geometry", compile_path("geometry")(value))):
            coordinates = point.get("coordinates") if isinstance(point, dict) else None
            if isinstance(coordinates, list) and len(coordinates) in (2, 3) and _are_numbers(coordinates):
                change = {n: f"{path}.coordinates[{i}]" for n, i in (("latitude", 1), ("longitude", 0))}
                return [Finding(f"the position is the point in {path}", polling(seen, map=change))]
    return []


def _are_numbers(values: list[Any]) -> bool:
    return all(number_of(value) is not None for value in values)


# ── roles ──────────────────────────────────────────────────────────────────────────────────────


def _roles(context: Context, items: list[Any]) -> list[Finding]:
    """Roles of parties that no configured text matches, told by what kind of organization has them."""
    kinds: dict[str, Counter[str]] = {}
    for party in (party for item in items for party in objects(item.get("relatedParty"))):
        role = party.get("role")
        if isinstance(role, str):
            kinds.setdefault(role, Counter())[context.kinds.get(str(party.get("id")), "")] += 1
    roles: dict[str, list[str]] = {}
    for ours, texts in context.config.mapping.roles.items():
        if kinds and not {fold_name(text) for text in texts} & {fold_name(role) for role in kinds}:
            guess = _role(ours, kinds)
            roles |= {ours: [guess]} if guess else {}
    text = ", ".join(sorted(kinds))
    return (
        [Finding(f"parties have other roles: {text}", {"mapping": {"roles": roles}}, must_improve=False)]
        if roles
        else []
    )


def _role(ours: str, kinds: Mapping[str, Counter[str]]) -> str | None:
    by_kind = {role: counted[ours] / counted.total() for role, counted in kinds.items() if counted[ours]}
    if by_kind:
        return max(by_kind, key=lambda role: by_kind[role])
    return match_names({ours: ((ours,), "")}, [Name(role) for role in kinds]).get(ours)


# ── positions and sites ────────────────────────────────────────────────────────────────────────


def _order(context: Context, items: list[Any]) -> list[Finding]:
    """Latitude before longitude, or the other way round: by what cannot be, else by where the site is."""
    fields = {field.name: field.paths for field in context.config.polling["user_terminals"].fields}
    votes = [
        vote
        for item in items
        if (vote := _is_swapped(_number(item, fields["latitude"]), _number(item, fields["longitude"]), item, context))
        is not None
    ]
    if not votes or sum(votes) * 2 <= len(votes):
        return []
    other = "lon_lat" if context.config.mapping.coordinate_order == "lat_lon" else "lat_lon"
    text = (
        f"the coordinates of {sum(votes)} of {len(votes)} terminals fit those of their sites, or the globe, the other "
        "way round; if it is the sites that are wrong, swap polling.sites.map.latitude and longitude instead"
    )
    return [Finding(text, {"mapping": {"coordinate_order": other}}, must_improve=False)]


_ONLINE = frozenset(
    ("up", "active", "connected", "available", "operational", "inservice", "enabled", "true", "1", "ok", "working")
)
"""Folded words that mean online."""


def _states(seen: Evidence, context: Context, items: list[Any]) -> list[Finding]:
    """Words for online that are not configured, where no terminal says one that is."""
    paths = next((field.paths for field in seen.call.fields if field.name == "state"), ())
    words = {_word(value_in(v) if isinstance(v, dict) else v) for v in values_at(items, paths) if _is_plain(v)}
    known = {state.casefold() for state in context.config.mapping.online_states}
    likely = (word for word in words if word and len(word) <= MAX_STATE_CHARS and fold_name(word) in _ONLINE)
    new = sorted(word for word in likely if word.casefold() not in known)
    if not new:
        return []
    change = {"mapping": {"online_states": [*context.config.mapping.online_states, *new]}}
    return [Finding(f"terminals that are online say {', '.join(new)} (guessed)", change)]


def _word(value: Any) -> str | None:
    """A state as the bridge reads it; None for what it cannot read, which another finding names."""
    try:
        return parse_text(value)
    except Unparseable:
        return None


def _is_plain(value: Any) -> bool:
    inner = value_in(value) if isinstance(value, dict) else value
    return isinstance(inner, str | bool | int)


def _number(item: Any, paths: tuple[str, ...]) -> float | None:
    return number_of(next(values_at([item], paths), None))


def _is_swapped(latitude: float | None, longitude: float | None, item: Any, context: Context) -> bool | None:
    if latitude is None or longitude is None:
        return None
    if abs(latitude) > 90 or abs(longitude) > 90:
        return abs(latitude) > 90
    site = compile_path("place")(item)
    ids = [str(compile_path(name)(site)) for name in ("id", "externalId")] if site else []
    site = next((context.sites[id] for id in ids if id in context.sites), None)
    if site is None or abs(site[0]) > 90:
        return None
    return math.dist((longitude, latitude), site) < math.dist((latitude, longitude), site)


def _site_ids(seen: Evidence, context: Context, items: list[Any]) -> list[Finding]:
    """The member of `place` that has the ids of the sites."""
    sites = {str(site.get("id")) for site in context.items.get("sites", ())}
    known = {
        path: sum(str(value) in sites for value in values_at(items, (path,)))
        for path in ("place.id", "place.externalId")
    }
    configured = next((field.paths for field in seen.call.fields if field.name == "site_id"), ())
    if known["place.externalId"] <= known["place.id"] or configured[:1] == ("place.externalId",):
        return []
    change = polling(seen, map={"site_id": ["place.externalId", "place.id"]})
    return [Finding("place.externalId has the ids of the sites, place.id has not", change, must_improve=False)]


# ── products ───────────────────────────────────────────────────────────────────────────────────


def _unlimited(seen: Evidence, context: Context, items: list[Any]) -> list[Finding]:
    """Words for "no limit" that are not configured: null, or a word where a number was expected."""
    pairs = _characteristics(seen, items)
    renamed = pairs[0].change["polling"][seen.call.id]["map"] if pairs else {}
    field = next((field for field in seen.call.fields if field.unlimited), None)
    paths = field.paths if field else ()
    texts = set(_no_limits(items, (renamed[field.name],) if field and field.name in renamed else paths))
    return unlimited_finding(texts, context)


def unlimited_finding(texts: set[str], context: Context) -> list[Finding]:
    """What to say of words for "no limit"."""
    known = {fold_name(word) for word in context.config.mapping.unlimited if word != "-1"}
    new = sorted(word for word in texts if fold_name(word) not in known and word != "-1")
    if not new:
        return []
    change = {"mapping": {"unlimited": [*context.config.mapping.unlimited, *new]}}
    return [Finding(f"no limit is said as {', '.join(new)}", change, must_improve=False)]


def _no_limits(items: list[Any], paths: tuple[str, ...]) -> Iterator[str]:
    for path in paths:
        above = compile_path(path.rpartition(".")[0])
        for item in items:
            holder = above(item)
            if isinstance(holder, dict) and "value" in holder:
                value = holder["value"]
                if value is None:
                    yield "null"
                elif isinstance(value, str) and not re.search(r"\d", value) and value.casefold() not in ("n/a", ""):
                    yield value


def _link(seen: Evidence, context: Context, items: list[Any]) -> list[Finding]:
    """Products that do not name their terminal."""
    field = next((field for field in seen.call.fields if field.name == "imei"), None)
    if not items or field is None or has_any(items, field.paths):
        return []
    imeis = {str(item.get("id")) for item in context.items.get("user_terminals", ())}
    for path in dict.fromkeys(scalar_paths(items[:50], "", 2)):
        if sum(str(value) in imeis for value in values_at(items, (path,))) * 2 > len(items):
            return [Finding(f"products name their terminal in {path}", polling(seen, map={"imei": path}))]
    linked = any(item.get("product") for item in context.items.get("user_terminals", ()))
    text = "the terminals name their products, which is enough" if linked else "and no terminal names a product"
    return [Finding(f"no product names its terminal; {text}")]
