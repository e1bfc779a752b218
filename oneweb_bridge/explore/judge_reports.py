"""In which form the samples of a report come, and what their values are called and measured in. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from oneweb_bridge.decode.catalogue import Call, Field
from oneweb_bridge.decode.expectations import MOSTLY_WHOLE
from oneweb_bridge.decode.fields import UNIT_MEMBERS
from oneweb_bridge.decode.paths import fold_name
from oneweb_bridge.decode.report_forms import indicator_of
from oneweb_bridge.explore.context import Context, Finding, is_time, number_of, objects, polling
from oneweb_bridge.explore.evidence import Evidence, Tree, find_list
from oneweb_bridge.explore.guesses import Name, match_names

_TIMES = ("timestamp", "time", "dateTime", "date", "measuredAt", "startTime", "ts")
_NOT_VALUES = frozenset(("id", "imei", "name", "report", "granularity", "href", "unit"))


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """How a report holds its samples, and the change that reads them. `samples` are flat, or hold `indicators`."""

    text: str
    change: Tree
    samples: list[dict[str, Any]]
    indicators: str | None


class Value(msgspec.Struct, frozen=True):
    """One value of a sample, with what the API says of it."""

    name: str
    value: Any
    unit: str = ""
    collection: str = ""


def report_places(call: Call) -> Iterator[Tree]:
    """Other ways to ask for a report: one by one, or at one path with a parameter. None of them writes anything."""
    each, id = ("products", "{product_id}") if call.entity == "product" else ("user_terminals", "{ut_id}")
    base, _, report = call.path.rpartition("/")
    yield {"path": f"{base}/{id}/{report}", "for_each": each}
    yield {"query": {**call.query, "id": id}, "for_each": each}
    yield {"path": f"{call.path}/{id}", "for_each": each}
    above = base.rpartition("/")[0]
    for name in ("performanceReport", "report"):
        yield {"path": f"{above}/{name}", "query": {**call.query, "report": report}}


def judge(seen: Evidence, context: Context) -> list[Finding]:
    """What is unlike the configuration in a report."""
    return _in_samples(seen, context)


def _in_samples(seen: Evidence, _: Context) -> list[Finding]:
    listed = find_list((seen.windowed or seen.reply).body)
    items = [item for item in listed.items if isinstance(item, dict)] if listed else []
    form = _form(seen.call, items)
    if form is None:
        return []
    # Several rows of one id must be read as such, even where this answer has one of each.
    is_certain = form.change.get("explode") in ("columns", "rows")
    findings = [Finding(form.text, polling(seen, **form.change), not is_certain)] if form.change else []
    values = list(_values(form))
    # A path names a flat member exactly; indicators are matched in any spelling.
    names = _names(seen.call, values, fold_name if form.indicators else str)
    if names:
        findings.append(Finding("values have other names (guessed)", polling(seen, map=dict(names))))
    if form.indicators and values and not any(value.unit for value in values) and seen.call.fields[0].raw_unit:
        findings.append(Finding("values do not say their unit: those in the map count"))
    return findings + _units(seen, values, names)


# ── form ───────────────────────────────────────────────────────────────────────────────────────


def _form(call: Call, items: list[dict[str, Any]]) -> Form | None:
    tables = [item for item in items if isinstance(item.get("columns"), list) and isinstance(item.get("rows"), list)]
    if tables:
        rows = [dict(zip(t["columns"], row, strict=False)) for t in tables for row in t["rows"]]
        return _flat(call, rows, "samples are tables of columns and rows", "columns", "rows[*]")
    for item in items:
        for name, entries in item.items():
            if _are_samples(entries):
                return _nested(call, items, name)
    if any(_time_of(item) for item in items):
        ids = [item.get("id") for item in items]
        if len(set(ids)) < len(ids) and any(indicator_of(item) for item in items):
            change = _different(call, explode="rows", measurements="rows[*]", **_timestamp(call, items))
            text = "each value of a sample is a record"
            return Form(text=text, change=change, samples=[], indicators=call.indicators)
        if len(set(ids)) < len(ids):
            return _flat(call, items, "each sample is a flat record", "rows", "rows[*]")
        return _flat(call, items, "each record is one flat sample", "list", None)
    return None


def _are_samples(entries: Any) -> bool:
    return isinstance(entries, list) and bool(entries) and all(isinstance(e, dict) and _time_of(e) for e in entries)


def _time_of(sample: Mapping[str, Any]) -> str | None:
    """The member with the time of a sample."""
    named = [name for name in _TIMES if is_time(sample.get(name))]
    return named[0] if named else next((n for n, v in sample.items() if isinstance(v, str) and is_time(v)), None)


def _nested(call: Call, items: list[dict[str, Any]], name: str) -> Form:
    samples = [sample for item in items for sample in objects(item.get(name))]
    indicators = next((inner for sample in samples for inner, v in sample.items() if _are_indicators(v)), None)
    if indicators is None and not any(isinstance(v, list) for sample in samples for v in sample.values()):
        return _flat(call, samples, "samples are flat objects", "list", f"{name}[*]")
    indicators = indicators or "performanceIndicator"
    change = _different(call, measurements=f"{name}[*]", indicators=f"{indicators}[*]", **_timestamp(call, samples))
    return Form(
        text=f"samples are in {name}, values in {indicators}", change=change, samples=samples, indicators=indicators
    )


def _are_indicators(entries: Any) -> bool:
    return isinstance(entries, list) and bool(entries) and all(isinstance(e, dict) and "name" in e for e in entries)


def _flat(call: Call, samples: list[dict[str, Any]], text: str, explode: str, measurements: str | None) -> Form:
    change = _different(call, explode=explode, measurements=measurements, indicators=None, **_timestamp(call, samples))
    return Form(text=text, change=change, samples=samples, indicators=None)


def _timestamp(call: Call, samples: list[dict[str, Any]]) -> Tree:
    member = next((name for sample in samples if (name := _time_of(sample))), None)
    return {} if member is None or member in call.timestamp else {"timestamp": member}


def _different(call: Call, **keys: Any) -> Tree:
    return {name: value for name, value in keys.items() if getattr(call, name) != value}


# ── names ──────────────────────────────────────────────────────────────────────────────────────


def _values(form: Form) -> Iterator[Value]:
    for sample in form.samples:
        if form.indicators is None:
            time = _time_of(sample)
            yield from (Value(n, v) for n, v in sample.items() if n != time and n not in _NOT_VALUES)
        for indicator in objects(sample.get(form.indicators or "")):
            if isinstance(indicator.get("name"), str):
                units = [indicator[name] for name in ("indicatorUnit", *UNIT_MEMBERS) if name in indicator]
                texts = [next(iter(units), ""), indicator.get("collectionType")]
                unit, collection = (text if isinstance(text, str) and text != "na" else "" for text in texts)
                yield Value(indicator["name"], indicator.get("value"), unit, collection)


def _names(call: Call, values: list[Value], spelled: Callable[[str], str]) -> dict[str, str]:
    """Field -> name of the API, for fields whose own names do not come."""
    listed = {spelled(value.name) for value in values}
    known = {spelled(path) for field in call.fields for path in field.paths}
    missing = {
        field.name: ((field.name, *field.paths), field.raw_unit)
        for field in call.fields
        if not any(spelled(path) in listed for path in field.paths)
    }
    others = {value.name: Name(value.name, value.unit) for value in values if spelled(value.name) not in known}
    return match_names(missing, others.values())


# ── units ──────────────────────────────────────────────────────────────────────────────────────


def _units(seen: Evidence, values: list[Value], names: Mapping[str, str]) -> list[Finding]:
    """Units that the API does not say, guessed by the values; and counters that are none."""
    by_field = {field.name: _of(field, values, names) for field in seen.call.fields}
    by_unit: dict[str, Tree] = {}
    for field in seen.call.fields:
        own = by_field[field.name]
        for unit in _likely_units(field, own):
            by_unit.setdefault(unit, {})[field.name] = {"unit": unit}
    # Fields of one kind have one unit, also where a value is too small to show it.
    kinds = {
        field.unit: field.raw_unit
        for field in seen.call.fields
        if field.name in {n for c in by_unit.values() for n in c}
    }
    silent = {name for name, own in by_field.items() if own and all(value.unit in ("", "1") for value in own)}
    for unit, change in by_unit.items():
        change.update({f.name: {"unit": unit} for f in seen.call.fields if f.unit in kinds and f.name in silent})
    alternative = "unit" if len(by_unit) > 1 else ""
    findings = [
        Finding(f"values have no unit and look like {unit}", _map(seen, change, names), bool(alternative), alternative)
        for unit, change in by_unit.items()
    ]
    deltas: Tree = {
        name: {"kind": "delta"}
        for name, own in by_field.items()
        if any(value.collection.casefold() == "delta" for value in own)
    }
    if deltas:
        text = "traffic is the amount of each interval"
        findings.append(Finding(text, _map(seen, deltas, names), must_improve=False))
    return findings


def _map(seen: Evidence, change: Tree, names: Mapping[str, str]) -> Tree:
    """A change of the map in its long form, which has the path too where that has changed."""
    return polling(seen, map={n: ({"path": names[n]} if n in names else {}) | keys for n, keys in change.items()})


def _of(field: Field, values: list[Value], names: Mapping[str, str]) -> list[Value]:
    folded_names = {fold_name(names[field.name])} if field.name in names else {fold_name(path) for path in field.paths}
    return [value for value in values if fold_name(value.name) in folded_names]


def _likely_units(field: Field, own: list[Value]) -> list[str]:
    """Which units the values of one field may have where the API does not say it; none for as configured."""
    numbers = [number for value in own if (number := number_of(value.value)) is not None]
    if any(value.unit not in ("", "1") for value in own) or not numbers or not field.raw_unit:
        return []
    if field.raw_unit == "%":
        named = any(word in own[0].name.casefold() for word in ("ratio", "fraction"))
        is_share = field.name in MOSTLY_WHOLE and 0 < max(numbers) <= 1
        return ["ratio"] if named or is_share or own[0].unit == "1" else []
    whole = all(number.is_integer() for number in numbers)
    if field.unit == "bps" and field.raw_unit == "Mbps" and whole and max(numbers) >= 1000:
        return ["bps", "kbps"]
    if field.unit == "B" and field.raw_unit == "B" and not whole:
        return _volume(max(_decimals(number) for number in numbers))
    return []


def _decimals(number: float) -> int:
    return len(f"{number:.9f}".rstrip("0").partition(".")[2])


def _volume(decimals: int) -> list[str]:
    """The unit in which a number of bytes has so many decimals; few decimals may be rounded."""
    return [] if decimals <= 3 else ["MB"] if decimals <= 6 else ["GB"]
