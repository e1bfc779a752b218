"""The API's JSON to flat records and samples.

A page is first only split: most records did not change since the last poll, and a hash tells so.
What is decoded beyond that is decided by the caller, one record at a time, so that a page of a
thousand records never stands in memory as a thousand dictionaries.

A record without a readable key is `Unreadable`; a field that came in a form nobody can read is
named in `Reading.odd`, and the others of the record count.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import tzinfo
from typing import Any, get_args
from zoneinfo import ZoneInfo

import msgspec

from oneweb_bridge import values
from oneweb_bridge.catalogue import Call, Field
from oneweb_bridge.model import Fields, Kind, Reading, Sample, Value
from oneweb_bridge.paths import Step, compile_path, compile_paths, folded

Raw = msgspec.Raw
_ENVELOPES = ("items", "data", "results")


class BadPage(ValueError):
    """A page that is not a list of records; the text says what came instead."""


class Unreadable(ValueError):
    """A record that cannot be used at all; the text says why."""


class Rules(msgspec.Struct, frozen=True):
    """What holds for all calls: the zone of times without offset, and the words for "no limit"."""

    timezone: str = "UTC"
    unlimited: tuple[str, ...] = ("Unlimited", "-1")

    def zone(self) -> tzinfo:
        return ZoneInfo(self.timezone)

    def no_limit(self) -> frozenset[str]:
        return frozenset(word if word == "-1" else folded(word) for word in self.unlimited)


# ── pages ──────────────────────────────────────────────────────────────────────────────────────


class Page(msgspec.Struct, frozen=True):
    """The undecoded records of one page, and how many items the server counts in it."""

    records: list[Raw]
    count: int


def split(body: bytes, selector: str | None = None) -> Page:
    """The records of one page. Raises BadPage when the body is not a list of records."""
    return split_checked(checked(body), selector)


def split_checked(body: bytes, selector: str | None = None) -> Page:
    """The same for a body that was checked before."""
    try:
        if selector is not None and selector != "$[*]":
            return _selected(body, selector)
        records = _raw_list(body) if body[:1] == b"[" else _unwrapped(body)
        return Page(records, len(records))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadPage(f"the answer is not valid JSON: {error}") from None


def member(body: bytes, path: str) -> Any:
    """The value at `path` of a page that is an object (for the next cursor), or None."""
    try:
        return compile_path(path)(msgspec.json.decode(body))
    except (msgspec.DecodeError, RecursionError):
        return None


def checked(body: bytes) -> bytes:
    """A body that is text and has whole characters in it. Raises BadPage."""
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not body:
        raise BadPage("the answer is empty, expected a JSON list")
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            raise BadPage("the answer is not UTF-8, expected a JSON list") from None
    # Half a surrogate pair is legal JSON and no text. In one record it must not cost the whole listing.
    # One letter is looked for first, because that is many times quicker than two, and mostly there is none.
    halves = b"\\" in body and (b"\\ud" in body or b"\\uD" in body)
    return _ESCAPE.sub(_whole, body) if halves else body


_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""Escapes of JSON strings, each as a whole; the group is half a surrogate pair."""
NO_CHARACTER = "\ufffd"


def _whole(escape: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if escape[1] else escape[0]


_raw_list = msgspec.json.Decoder(list[Raw]).decode
_raw_object = msgspec.json.Decoder(dict[str, Raw]).decode


def _unwrapped(body: bytes) -> list[Raw]:
    if body[:1] != b"{":
        raise BadPage(f"the answer is {_shown(body)}, expected a JSON list")
    members = _raw_object(body)
    for name in _ENVELOPES:
        if bytes(members.get(name, b"")).lstrip()[:1] == b"[":
            return _raw_list(members[name])
    if "id" in members or {"columns", "rows"} <= members.keys():
        return [Raw(body)]
    raise BadPage("the answer is an object without a list in items, data or results, and without an id")


def _shown(body: bytes) -> str:
    return repr(body[:20].decode(errors="replace"))


def _selected(body: bytes, selector: str) -> Page:
    """Records below others: each takes over the members of those above it, in `parent` those it has itself."""
    names = [name.lstrip(".") for name in selector.removeprefix("$").split("[*]")]
    if names.pop():
        raise BadPage(f"the selector '{selector}' does not end with [*]")
    level: list[Any] = [msgspec.json.decode(body)]
    counts = []
    for name in names:
        level = [inner for outer in level for inner in _inner(outer, name)]
        counts.append(len(level))
    return Page([Raw(msgspec.json.encode(record)) for record in level], counts[0])


PARENT = "parent"
"""The member of a record below others that has what those above it say under names that it uses itself."""


def _inner(outer: Any, path: str) -> Iterator[Any]:
    if not path:
        yield from _top(outer)
        return
    *parents, name = path.split(".")
    found = outer
    for parent in parents:
        found = found.get(parent) if isinstance(found, dict) else None
    inner = found.get(name) if isinstance(found, dict) else None
    inherited = {k: v for k, v in found.items() if k != name} if isinstance(found, dict) else {}
    for record in inner if isinstance(inner, list) else [] if inner is None else [inner]:
        yield _heir(inherited, record) if isinstance(record, dict) else record


def _top(answer: Any) -> list[Any]:
    if answer is None:
        raise BadPage("the answer is null, expected a JSON list")
    if isinstance(answer, dict):
        lists = [answer[name] for name in _ENVELOPES if isinstance(answer.get(name), list)]
        return lists[0] if lists else [answer]
    return answer if isinstance(answer, list) else [answer]


def _heir(inherited: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    hidden = {name: value for name, value in inherited.items() if name in record}
    return {**inherited, **({PARENT: hidden} if hidden else {}), **record}


def exploded(call: Call, records: list[Raw]) -> list[Raw]:
    """Column tables as one object per row; anything else as it is."""
    if call.explode != "columns":
        return records
    return [row for table in records for row in _rows(table)]


def gathers(call: Call) -> bool:
    """Whether several records may have one key, and make one record together."""
    return call.explode in ("columns", "rows") or (call.reads == "components" and call.records is not None)


def gathered(rows: Sequence[Raw]) -> Raw:
    """Rows of one key as one record: the members of the first, and all of them in `rows`. Raises Unreadable."""
    try:
        return Raw(msgspec.json.encode({**_raw_object(rows[0]), ROWS: list(rows)}))
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(f"a row that is not readable: {error}") from None


ROWS = "rows"
"""The member of a gathered record that paths reach its rows by."""


def _rows(table: Raw) -> Iterator[Raw]:
    try:
        decoded = msgspec.json.decode(table)
        names, rows = decoded.pop("columns"), decoded.pop("rows")
        for row in rows:
            yield Raw(msgspec.json.encode({**decoded, **dict(zip(names, row, strict=True))}))
    except (msgspec.DecodeError, RecursionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadPage(f"a table without columns and rows of equal length: {error}") from None


def decoded(raw: Raw | bytes) -> Any:
    """One record as Python objects. Raises Unreadable."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(f"a record that is not readable: {error}") from None


# ── records ────────────────────────────────────────────────────────────────────────────────────

KEYS: dict[Kind, str] = {
    "terminal": "imei",
    "components": "imei",
    "product": "product_id",
    "organization": "organization_id",
    "site": "site_id",
    "usage": "bucket_id",
    "relations": "imei",
    "call": "call",
}
"""The field that carries the key of each kind of record."""

_Put = Callable[[Any, Fields], None]


def reader(call: Call, rules: Rules) -> Callable[[str, Any], Reading]:
    """A function from a record's key and its decoded JSON to what the bridge keeps of it."""
    if call.reads == "components":
        return _components_reader(call)
    kind: Kind = "usage" if call.reads == "usage" else call.entity
    paths = {field.name: field.paths for field in call.fields}
    puts = [(field.name, _put(field, rules, paths.get(field.unlimited_label, ()))) for field in call.fields]
    key = KEYS[kind]

    def read(id: str, record: Any) -> Reading:
        fields: Fields = {key: id}
        odd = []
        for name, put in puts:
            try:
                put(record, fields)
            except values.Odd:
                odd.append(name)
        if call.derive == "organization_kind":
            fields.setdefault("kind", "end_customer" if "parent_id" in fields else "distribution_partner")
        return Reading(kind, id, fields, tuple(odd))

    return read


def _put(field: Field, rules: Rules, labels: Sequence[str] = ()) -> _Put:
    if field.type == "number":
        return _put_number(field, rules, labels)
    find, name = compile_paths(field.paths), field.name
    convert = _converter(field, rules)

    def put(record: Any, fields: Fields) -> None:
        found = find(record)
        if found is not None and (value := convert(found)) is not None:
            fields[name] = value

    return put


def _converter(field: Field, rules: Rules) -> values.Reader:
    if field.type == "time":
        return values.time_text(rules.zone())
    if field.type == "word":
        return lambda value: values.snake(values.text(value) or "") or None
    return {"text": values.text, "bool": values.flag, "words": values.words}[field.type]


def _put_number(field: Field, rules: Rules, labels: Sequence[str]) -> _Put:
    sources = [(compile_path(path), _unit_step(path)) for path in field.paths]
    words = [compile_path(path) for path in labels]
    nulls = [parent for path in field.paths if (parent := _null_step(path))]
    no_limit = rules.no_limit()

    def unlimited(record: Any) -> bool:
        said = [step(record) for step in words] + [find(record) for find, _ in sources]
        if any(_is_word(value, no_limit) for value in said if value is not None):
            return True
        return "null" in no_limit and any(is_null(record) for is_null in nulls)

    def put(record: Any, fields: Fields) -> None:
        if field.unlimited and unlimited(record):
            fields[field.unlimited] = True
            return
        for find, find_unit in sources:
            found = find(record)
            if found is not None and (number := values.amount(found)) is not None:
                unit = values.text(find_unit(record)) if find_unit else None
                fields[field.name] = _number(field, number[0], unit or number[1])
                if field.unlimited:
                    fields[field.unlimited] = False
                return

    return put


def _is_word(value: Any, no_limit: frozenset[str]) -> bool:
    if isinstance(value, str):
        return folded(value) in no_limit or value.strip() in no_limit
    return isinstance(value, (int, float)) and f"{value:g}" in no_limit


def _number(field: Field, number: float, unit: str | None) -> float | int:
    said = unit or field.raw_unit
    found = values.convert(number, said, field.unit)
    if field.name == "latitude" and abs(found) > 90:
        raise values.Odd(f"expected a latitude, got {found}")
    return values.published(field.name, found)


def _unit_step(path: str) -> Step | None:
    for ending, unit in ((".value", ".unit"), (".amount", ".units")):
        if path.endswith(ending):
            return compile_path(path.removesuffix(ending) + unit)
    return None


def _null_step(path: str) -> Callable[[Any], bool] | None:
    above, _, name = path.rpartition(".")
    if not above or name not in ("value", "amount"):
        return None
    parent = compile_path(above)

    def is_null(record: Any) -> bool:
        found = parent(record)
        return isinstance(found, dict) and found.get(name, 0) is None

    return is_null


def _components_reader(call: Call) -> Callable[[str, Any], Reading]:
    find = {field.name: compile_paths(field.paths) for field in call.fields}

    def read(id: str, record: Any) -> Reading:
        parts = find["components"](record) if "components" in find else None
        found: Fields = {}
        for part in _parts(parts, record, call):
            partition, type_, version = (values.text(find[name](part)) for name in ("partition", "type", "version"))
            if type_ and version is not None:
                found[f"{(partition or 'main').casefold()}/{type_}"] = version
        return Reading("components", id, found)

    return _tolerant(read)


def _parts(parts: Any, record: Any, call: Call) -> Iterable[Any]:
    """The components of a terminal, wherever they stand: in a list, in a map, or each in a row of its own."""
    if isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], dict):
        maps = call.explode == "map" or all(isinstance(value, dict) for value in parts[0].values())
        parts = parts[0] if maps and parts[0] else parts
    if isinstance(parts, dict):
        return _partitions(parts)
    if isinstance(parts, list):
        return parts
    return record.get(ROWS, ()) if parts is None and gathers(call) else ()


def _partitions(table: dict[str, Any]) -> list[Any]:
    """The forms {"main": {"UT": "2.0.3"}} and {"UT": "2.0.3"} as a list of partition, type and version."""
    return [
        {"partition": partition if types is said else None, "type": type_, "version": version}
        for partition, said in table.items()
        for types in (said if isinstance(said, dict) else {partition: said},)
        for type_, version in types.items()
    ]


def _tolerant(read: Callable[[str, Any], Reading]) -> Callable[[str, Any], Reading]:
    def tolerant(id: str, record: Any) -> Reading:
        try:
            return read(id, record)
        except values.Odd as error:
            raise Unreadable(f"components of {id}: {error}") from None

    return tolerant


# ── samples ────────────────────────────────────────────────────────────────────────────────────


def sampler(call: Call, rules: Rules) -> Callable[[str, Any], tuple[list[Sample], int]]:
    """A function from one entry of a report to its samples, oldest first, and how many could not be read.

    Measurements of one time are one sample, so that a row for each indicator is as good as a row for all.
    """
    find = compile_path(call.measurements) if call.measurements else lambda entry: [entry]
    stamp = compile_paths(call.timestamp)
    zone, read = rules.zone(), _measurement_reader(call, rules)

    def sample(id: str, entry: Any) -> tuple[list[Sample], int]:
        by_time: dict[int | None, Fields] = {}
        unreadable = 0
        labels: Fields = {"product_name": entry["name"]} if _has_name(call, entry) else {}
        for measurement in find(entry) or ():
            try:
                ts, found = values.moment(stamp(measurement), zone), read(measurement)
            except values.Odd:
                unreadable += 1
                continue
            if found:
                by_time.setdefault(ts, {}).update(found)
        times = sorted(by_time, key=lambda ts: ts or 0)
        return [Sample(call.report, id, ts, by_time[ts], labels) for ts in times], unreadable

    return sample


def _has_name(call: Call, entry: Any) -> bool:
    return call.entity == "product" and isinstance(entry, dict) and isinstance(entry.get("name"), str)


def _measurement_reader(call: Call, rules: Rules) -> Callable[[Any], Fields]:
    if call.indicators is None:
        puts = [_put(field, rules) for field in call.fields]

        def read_flat(measurement: Any) -> Fields:
            fields: Fields = {}
            for put in puts:
                put(measurement, fields)
            return fields

        return read_flat

    find = compile_path(call.indicators)
    known = {folded(path): field for field in call.fields for path in field.paths}

    def read(measurement: Any) -> Fields:
        fields: Fields = {}
        for indicator in find(measurement) or ():
            if isinstance(indicator, dict) and isinstance(name := indicator.get("name"), str):
                put_indicator(known.get(folded(name)), name, indicator, fields)
        return fields

    def put_indicator(field: Field | None, name: str, indicator: dict[str, Any], fields: Fields) -> None:
        unit = indicator.get("indicatorUnit")
        unit = unit if isinstance(unit, str) and unit not in _NO_UNIT else ""
        put = _unknown_indicator if field is None else _known_indicator
        found = put(field or _NOBODY, name, unit, indicator.get("value"))
        if found is not None:
            fields[found[0]] = found[1]

    return read


_NOBODY = Field("", ())
_NO_UNIT = ("na", "1")
"""What TMF628 and SI write where there is no unit."""


def _known_indicator(field: Field, _: str, unit: str, value: Any) -> tuple[str, Value] | None:
    if field.type != "number":
        found = values.text(value)
        return None if found is None else (field.name, found)
    number = values.amount(value)
    return None if number is None else (field.name, _number(field, number[0], unit or number[1]))


def _unknown_indicator(_: Field, name: str, unit: str, value: Any) -> tuple[str, Value] | None:
    """A numeric indicator that nobody told us of, under its own name; anything else is left out."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or values.snake(name) in RESERVED:
        return None
    number = values.amount(value)
    field_name, wanted = values.unknown_name(name, unit)
    if number is None or not field_name:
        return None
    return field_name, values.published(field_name, values.convert(number[0], unit, wanted))


RESERVED = frozenset(("imei", "product_id", "report", "time", "ts", "corrected", "replayed", ""))
"""Names that an unknown indicator must not take, because they belong to every sample."""

assert set(get_args(Kind)) == set(KEYS)  # noqa: S101 -- a table that must be complete, checked at import
