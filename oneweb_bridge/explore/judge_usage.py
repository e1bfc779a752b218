"""In which form usage comes: buckets in reports or rows of counters, and what the counters are called. Pure."""

import re
from typing import Any

from oneweb_bridge.decode.catalogue import Field
from oneweb_bridge.decode.paths import fold_name
from oneweb_bridge.explore.context import Context, Finding, objects, polling
from oneweb_bridge.explore.evidence import Evidence, Tree
from oneweb_bridge.explore.guesses import Name, match_names
from oneweb_bridge.explore.judge_records import unlimited_finding

_COUNTERS = {"usage": "usage", "entitlement": "entitlement", "overage": "overage block"}
_TYPE = re.compile(r"counterType=([^\],]+)")


def judge(seen: Evidence, context: Context) -> list[Finding]:
    """What is unlike the configuration in usage."""
    items = context.items.get(seen.call.id, [])
    if not items:
        return []
    if any("counterType" in item for item in items):
        change = _rows(seen)
        findings = [Finding("each counter is a record of its own", polling(seen, **change))]
        return findings + _limits(items, context)
    buckets = [bucket for item in items for bucket in objects(item.get("bucket", item))]
    findings = []
    if not any("bucket" in item for item in items) and seen.call.records is not None:
        findings.append(Finding("each record is a bucket", polling(seen, records=seen.listed and seen.listed.records)))
    return [*findings, *_types(seen, buckets), *_pool(seen, buckets), *_limits(_balances(buckets), context)]


def _balances(buckets: list[Any]) -> list[Any]:
    return [balance for bucket in buckets for balance in objects(bucket.get("bucketBalance", ()))]


# ── rows ───────────────────────────────────────────────────────────────────────────────────────


def _rows(seen: Evidence) -> Tree:
    """The configured paths, with rows of one bucket in the place of its counters."""
    moved = {field.name: _moved(field) for field in seen.call.fields}
    paths: Tree = {
        field.name: moved[field.name]
        for field in seen.call.fields
        if moved[field.name] != (field.paths[0] if len(field.paths) == 1 else list(field.paths))
    }
    return {"records": seen.listed.records if seen.listed else None, "explode": "rows", "map": paths}


_MOVES = (
    (r"^bucketBalance(\[\d+\])?\.", ""),
    (r"^bucketCounter\[\d+\]\.", ""),
    (r"^bucketCounter\[", "rows["),
    (r"^product\[\d+\]\.", "product."),
)


def _moved(field: Field) -> Any:
    paths = []
    for path in field.paths:
        moved = path
        for old, new in _MOVES:
            moved = re.sub(old, new, moved)
        if moved not in paths:
            paths.append(moved)
    return paths[0] if len(paths) == 1 else paths


# ── counters ───────────────────────────────────────────────────────────────────────────────────


def _types(seen: Evidence, buckets: list[Any]) -> list[Finding]:
    """Counter types under other names."""
    listed: dict[str, str] = {}
    for counter in (counter_ for bucket in buckets for counter_ in objects(bucket.get("bucketCounter", ()))):
        kind, value = counter.get("counterType"), counter.get("value")
        if isinstance(kind, str):
            units = value.get("units") if isinstance(value, dict) else ""
            listed[kind] = units if isinstance(units, str) else ""
    configured = {match for field in seen.call.fields for path in field.paths for match in _TYPE.findall(path)}
    missing = {
        kind: ((_COUNTERS.get(kind, kind),), "") for kind in configured if fold_name(kind) not in map(fold_name, listed)
    }
    others = [Name(kind) for kind in listed if fold_name(kind) not in map(fold_name, configured)]
    names = match_names(missing, others) if listed else {}
    if not names:
        return []
    change: Tree = {}
    for field in seen.call.fields:
        paths = [_TYPE.sub(lambda match: f"counterType={names.get(match[1], match[1])}", path) for path in field.paths]
        if tuple(paths) != field.paths:
            change[field.name] = paths[0] if len(paths) == 1 else paths
    return [Finding("counters have other types (guessed)", polling(seen, map=change))]


def _pool(seen: Evidence, buckets: list[Any]) -> list[Finding]:
    """A sub-pool among the relationships of a bucket instead of in sharedAllowance."""
    if any("sharedAllowance" in bucket for bucket in buckets):
        return []
    related = [relationship for bucket in buckets for relationship in objects(bucket.get("bucketRelationship", ()))]
    kinds = [
        relationship["relationshipType"]
        for relationship in related
        if isinstance(relationship.get("relationshipType"), str) and "id" in relationship
    ]
    kind = next((kind for kind in kinds if "pool" in kind.casefold() or "share" in kind.casefold()), None)
    if kind is None:
        return []
    change = {
        field.name: path.replace("sharedAllowance.", f"bucketRelationship[relationshipType={kind}].")
        for field in seen.call.fields
        for path in field.paths[:1]
        if path.startswith("sharedAllowance.")
    }
    return [Finding("the sub-pool is in bucketRelationship", polling(seen, map=change))]


def _limits(balances: list[Any], context: Context) -> list[Finding]:
    """An amount of null in a balance without a label is no limit."""
    texts = {
        "null"
        for balance in balances
        if isinstance(value := balance.get("remainingValue"), dict)
        and value.get("amount", 0) is None
        and not balance.get("remainingValueName")
    }
    return unlimited_finding(texts, context)
