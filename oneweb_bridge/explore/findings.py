"""Finds out from the answers to `explore` where the API differs from the configuration, and what to change. Pure.

Each judge examines one kind of call and gives findings: a sentence, and the change of bridge.yaml for it. They are
proposals: each is tried before it is shown.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.paths import compile_path
from oneweb_bridge.explore import judge_components, judge_records, judge_reports, judge_usage
from oneweb_bridge.explore.context import Context, Finding, objects, polling, scalar_paths
from oneweb_bridge.explore.evidence import Evidence, Tree, selector_of
from oneweb_bridge.explore.reading import CallReading, Inventory, field_with, texts_of
from oneweb_bridge.explore.zones import zone_finding
from oneweb_bridge.polling.id_matching import matched_kind

_JUDGES = {
    "record": judge_records.judge,
    "components": judge_components.judge,
    "report": judge_reports.judge,
    "usage": judge_usage.judge,
}


def judge(seen: Evidence, context: Context) -> list[Finding]:
    """What is unlike the configuration in the answers of one call."""
    if seen.reply.outcome != "ok" or seen.listed is None:
        return []
    return [*_records_finding(seen), *_JUDGES[seen.call.reads](seen, context)]


def _records_finding(seen: Evidence) -> Iterator[Finding]:
    records = None if seen.listed is None else selector_of(seen.call, seen.listed)
    if seen.listed is not None and records is not None:
        yield Finding(f"the records are in {seen.listed.shape}", polling(seen, records=records))


def general(context: Context) -> list[Finding]:
    """What is unlike the configuration in all calls."""
    zone = zone_finding(context)
    return [] if zone is None else [replace(zone, must_improve=False)]


def parts_of(finding: Finding) -> Iterator[Finding]:
    """A finding, and then each field of its map alone."""
    yield finding
    for call, keys in finding.change.get("polling", {}).items():
        fields = keys.get("map", {})
        if len(fields) > 1:
            for name, value in fields.items():
                yield replace(finding, change={"polling": {call: {"map": {name: value}}}})


def different_keys(change: Tree, known: Any) -> Tree:
    """The keys of a change that are not in force already."""
    different: Tree = {}
    for name, value in change.items():
        configured = known.get(name) if isinstance(known, dict) else None
        is_tree = isinstance(value, dict) and isinstance(configured, dict)
        below = different_keys(value, configured) if is_tree else value
        if value != configured and below != {}:
            different[name] = below if name != "query" else value
    return different


def lateness(call: Call, reading: CallReading, period: int, now: int) -> Finding | None:
    """A report that comes much later than configured needs more lateness, and spans that reach back further."""
    if reading.newest is None or not period or not now:
        return None
    late = (now - reading.newest) / 1000
    # A sample that is about to be followed by the next one is a period older than when it came.
    if late <= call.lateness + period / 1000 + 600:
        return None
    minutes = -(-round(late) // 600) * 10
    change: Tree = {"lateness": f"{minutes}m"}
    if call.window and call.window.length < 2 * minutes * 60:
        change["window"] = {"length": f"{2 * minutes}m"}
    text = f"the newest sample is {minutes} minutes old"
    return Finding(text, {"polling": {call.id: change}}, must_improve=False)


# ── remedies ───────────────────────────────────────────────────────────────────────────────────


def remedies(seen: Evidence, reading: CallReading, inventory: Inventory) -> Iterator[Finding]:
    """Changes to try where a call is not read in full, whatever the reason is."""
    items = [item for item in seen.listed.items if isinstance(item, dict)] if seen.listed else []
    yield from _keys(seen, items, reading, inventory)
    yield from _matches(seen, reading, inventory)
    yield from _other_units(seen, reading)
    yield from _buckets(seen, items)
    if any(finding.about == "imei" for finding in reading.findings):
        yield Finding("terminals have their IMEI in imei, and another id", polling(seen, key="imei"))


_KEYS = ("imei", "userTerminalId", "terminalId", "utId", "deviceId", "productId", "uuid", "identifier", "code", "key")


def _keys(seen: Evidence, items: list[Any], reading: CallReading, inventory: Inventory) -> Iterator[Finding]:
    """Other members as the key: those whose values are ids of the inventory, else one that is unique."""
    kind = matched_kind(seen.call)
    known = inventory.get(kind or "", {})
    paths = list(dict.fromkeys(scalar_paths(items[:50], "", 2)))
    if known and seen.call.reads in ("report", "components"):
        for path in paths:
            values = {str(value) for item in items if (value := compile_path(path)(item)) is not None}
            if 2 * len(values & known.keys()) >= len(values) > 0 and (path,) != seen.call.key:
                yield Finding(f"{path} has the ids of the {kind}s", polling(seen, key=path))
    if reading.outcome == "odd" and "has a readable" in reading.error:
        likely = [path for path in _KEYS if path in paths]
        named = [path for path in paths if path.casefold().endswith("id") and path not in likely]
        for path in [*likely, *named]:
            keys = [compile_path(path)(item) for item in items]
            if len(set(map(str, keys))) == len(keys) and None not in keys:
                yield Finding(f"the records have their ids in {path} (guessed)", polling(seen, key=path))


def _matches(seen: Evidence, reading: CallReading, inventory: Inventory) -> Iterator[Finding]:
    """The field of the inventory that has the ids of a report or of usage."""
    kind = matched_kind(seen.call)
    known = inventory.get(kind or "", {})
    if not known or seen.call.reads not in ("report", "usage"):
        return
    products = (text for fields in reading.records.values() for text in texts_of(fields.get("product_id")))
    ids = set(products) if seen.call.reads == "usage" else set(reading.ids)
    unmatched = sorted(ids - known.keys())
    if unmatched and (field := field_with(known, unmatched)):
        yield Finding(f"its ids are in the field {field} of the {kind}s", polling(seen, match=field))


def _other_units(seen: Evidence, reading: CallReading) -> Iterator[Finding]:
    """Other units for a field whose values cannot be. They are alternatives: only one may make the values possible."""
    for finding in reading.findings:
        field = next((f for f in seen.call.fields if f.name == finding.about), None)
        if finding.kind != "implausible" or field is None or not field.raw_unit:
            continue
        kin = [f.name for f in seen.call.fields if f.raw_unit == field.raw_unit and f.unit == field.unit]
        for unit in _OTHER_UNITS.get(field.raw_unit, ()):
            change = polling(seen, map={name: {"unit": unit} for name in kin})
            text = f"values of {field.name} cannot be in {field.raw_unit}: {unit} (guessed)"
            yield Finding(text, change, alternative=f"unit of {field.name}")


_OTHER_UNITS = {
    "Mbps": ("bps", "kbps", "Gbps"),
    "B": ("kB", "MB", "GB"),
    "GB": ("B", "kB", "MB", "TB"),
    "%": ("ratio",),
    "ms": ("us", "s"),
}


def _buckets(seen: Evidence, items: list[Any]) -> Iterator[Finding]:
    """Buckets under another name, in each report of usage."""
    if seen.call.reads != "usage" or seen.listed is None:
        return
    holder = (seen.listed.records or "$[*]").removesuffix("[*]")
    names = Counter(
        name
        for item in items
        for name, value in item.items()
        if isinstance(value, list) and any("id" in entry for entry in objects(value))
    )
    for name, _ in names.most_common(3):
        if name != "bucket":
            yield Finding(f"buckets are in {name}", polling(seen, records=f"{holder}[*].{name}[*]"))
