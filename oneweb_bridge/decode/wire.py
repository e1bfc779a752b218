"""The API's JSON to flat records and samples.

A page is first only split: most records did not change since the last poll, and a hash tells so.
What is decoded beyond that is decided by the caller, one record at a time, so that a page of a
thousand records never stands in memory as a thousand dictionaries.

A record without a readable key is `Unreadable`; a field that came in a form nobody can read is
named in `Reading.odd` and counts as not known, and the others of the record count.

Decoding is a border (`at_border`): whatever goes wrong in one record or one sample sets that one
aside, because an error that left here would end the process, and be there again after each restart.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import tzinfo
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar, get_args
from zoneinfo import ZoneInfo

import msgspec

from oneweb_bridge.decode import units, values
from oneweb_bridge.decode.catalogue import Call, Field
from oneweb_bridge.decode.paths import Getter, compile_path, compile_paths, fold_name
from oneweb_bridge.decode.repeated_hour import Known, resolve_times
from oneweb_bridge.decode.sizes import MAX_MADE_BYTES, MAX_RECORDS, MAX_VALUES, TooMuch, check_depth, check_size
from oneweb_bridge.model.records import DecodedRecord, Fields, RecordKind, Sample

Raw = msgspec.Raw
_ENVELOPES = ("items", "data", "results")


class BadPage(ValueError):
    """A page that is not a list of records; the text says what came instead."""


class Unreadable(ValueError):
    """A record or a sample that cannot be used at all; the text says why, and its cause is the error behind it."""


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def at_border(decode: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`decode` of one record or one sample, which raises Unreadable and nothing else. The one place that does this."""

    def decode_at_border(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return decode(*args, **kwargs)
        except Unreadable:
            raise
        # What comes from outside may be anything, and nobody can imagine all of it: see the top of the module.
        except Exception as error:
            raise Unreadable(_reason(error)) from error

    return decode_at_border


def _reason(error: Exception) -> str:
    """A short sentence about an error; the fields that it was noted with come first."""
    fields = "".join(f"{name}: " for name in getattr(error, "__notes__", ()))
    kind = "" if isinstance(error, (values.Unparseable, msgspec.MsgspecError)) else f"{type(error).__name__}: "
    return f"{fields}{kind}{error}"[:MAX_REASON_CHARS]


MAX_REASON_CHARS = 200
"""Longest sentence about a record that could not be read."""


class DecodeRules(msgspec.Struct, frozen=True):
    """What holds for all calls: the zone of times without offset, and the words for "no limit"."""

    timezone: str = "UTC"
    unlimited: tuple[str, ...] = ("Unlimited", "-1")

    def zone(self) -> tzinfo:
        return ZoneInfo(self.timezone)

    def no_limit(self) -> frozenset[str]:
        return frozenset(word if word == "-1" else fold_name(word) for word in self.unlimited)


# ── pages ──────────────────────────────────────────────────────────────────────────────────────


class SplitPage(msgspec.Struct, frozen=True):
    """The undecoded records of one page, and how many items the server counts in it."""

    records: list[Raw]
    count: int


def split_page(body: bytes, selector: str | None = None) -> SplitPage:
    """The records of one page. Raises BadPage when the body is not a list of records."""
    return split_clean_page(clean_body(body), selector)


def split_clean_page(body: bytes, selector: str | None = None) -> SplitPage:
    """The same for a body that was checked before."""
    try:
        if selector is not None and selector != "$[*]":
            return _split_nested(body, selector)
        records = _raw_list(body) if body[:1] == b"[" else _unwrapped(body)
        check_count(len(records))
        return SplitPage(records, len(records))
    except TooMuch as error:
        raise BadPage(f"{_TOO_LARGE}{error}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadPage(f"the answer is not valid JSON: {error}") from None


def value_at(body: bytes, path: str) -> Any:
    """The value at `path` of a page that is an object (for the next cursor), or None."""
    try:
        check_size(body)
        check_depth(body)
        return compile_path(path)(msgspec.json.decode(body))
    # Also UnicodeDecodeError, of a body that nobody has checked.
    except (ValueError, RecursionError):
        return None


def clean_body(body: bytes) -> bytes:
    """A body that is text and has whole characters in it. Raises BadPage."""
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not body:
        raise BadPage("the answer is empty, expected a JSON list")
    try:
        check_size(body)
    except TooMuch as error:
        raise BadPage(f"{_TOO_LARGE}{error}") from None
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


def check_count(records: int) -> None:
    """Raises BadPage for more records than a page may have."""
    if records > MAX_RECORDS:
        raise BadPage(f"{_TOO_LARGE}more than {MAX_RECORDS} records")


_TOO_LARGE = "the answer is too large, ask for less with page.limit, or window.length of a report: "


def _loaded(body: bytes | Raw) -> Any:
    """JSON as Python objects; a number that has no bounds stays as it is written, and costs its own record alone."""
    check_depth(bytes(body))
    try:
        return msgspec.json.decode(body)
    except msgspec.ValidationError:
        msgspec.json.decode(body, type=Raw)
        return json.loads(bytes(body), parse_int=_int, parse_float=_float)


def _int(digits: str) -> int | Raw:
    return int(digits) if len(digits) <= MAX_INT_CHARS else Raw(digits.encode())


def _float(digits: str) -> float | Raw:
    number = float(digits)
    return number if math.isfinite(number) else Raw(digits.encode())


MAX_INT_CHARS = 20
"""Digits and sign of the longest whole numbers that 64 bits can hold."""

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


def _split_nested(body: bytes, selector: str) -> SplitPage:
    """Records below others: each takes over the members of those above it, in `parent` those it has itself."""
    names = [name.lstrip(".") for name in selector.removeprefix("$").split("[*]")]
    if names.pop():
        raise BadPage(f"the selector '{selector}' does not end with [*]")
    level: list[Any] = [_loaded(body)]
    counts = []
    for name in names:
        level = _below(level, name)
        counts.append(len(level))
    return SplitPage(_made(Raw(msgspec.json.encode(record)) for record in level), counts[0])


def _below(level: list[Any], name: str) -> list[Any]:
    """The records of the next level, each with the members that it takes over. Raises TooMuch."""
    found: list[Any] = []
    members = 0
    for outer in level:
        for inner in _inner(outer, name):
            members += len(inner) if isinstance(inner, dict) else 1
            if members > MAX_VALUES:
                raise TooMuch(f"more than {MAX_VALUES} values, with those that records take over")
            found.append(inner)
    return found


def _made(records: Iterable[Raw]) -> list[Raw]:
    """Records that were made out of a page, while they are not far longer than a page may be. Raises TooMuch."""
    found: list[Raw] = []
    size = 0
    for record in records:
        size += len(memoryview(record))
        if size > MAX_MADE_BYTES or len(found) >= MAX_RECORDS:
            raise TooMuch(f"more than {MAX_RECORDS} records, or {MAX_MADE_BYTES} bytes with what they take over")
        found.append(record)
    return found


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
        yield _with_parent_members(inherited, record) if isinstance(record, dict) else record


def _top(answer: Any) -> list[Any]:
    if answer is None:
        raise BadPage("the answer is null, expected a JSON list")
    if isinstance(answer, dict):
        lists = [answer[name] for name in _ENVELOPES if isinstance(answer.get(name), list)]
        return lists[0] if lists else [answer]
    return answer if isinstance(answer, list) else [answer]


def _with_parent_members(inherited: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    hidden = {name: value for name, value in inherited.items() if name in record}
    return {**inherited, **({PARENT: hidden} if hidden else {}), **record}


def expand_tables(call: Call, records: list[Raw]) -> list[Raw]:
    """Column tables as one object per row; anything else as it is."""
    if call.explode != "columns":
        return records
    try:
        return _made(row for table in records for row in _rows(table))
    except TooMuch as error:
        raise BadPage(f"{_TOO_LARGE}{error}") from None


def merges_rows(call: Call) -> bool:
    """Whether several records may have one key, and make one record together."""
    return call.explode in ("columns", "rows") or (call.reads == "components" and call.records is not None)


@at_border
def merge_rows(rows: Sequence[Raw]) -> Raw:
    """Rows of one key as one record: the members of the first, and all of them in `rows`. Raises Unreadable."""
    return Raw(msgspec.json.encode({**_raw_object(rows[0]), ROWS: list(rows)}))


ROWS = "rows"
"""The member of a gathered record that paths reach its rows by."""


def _rows(table: Raw) -> Iterator[Raw]:
    try:
        decoded = _loaded(table)
        names, rows = decoded.pop("columns"), decoded.pop("rows")
        for row in rows:
            yield Raw(msgspec.json.encode({**decoded, **dict(zip(names, row, strict=True))}))
    except (msgspec.DecodeError, RecursionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadPage(f"a table without columns and rows of equal length: {error}") from None


@at_border
def decode_record(raw: Raw | bytes) -> Any:
    """One record as Python objects. Raises Unreadable."""
    check_depth(bytes(raw))
    return msgspec.json.decode(raw)


# ── records ────────────────────────────────────────────────────────────────────────────────────

KEYS: dict[RecordKind, str] = {
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


def record_decoder(call: Call, rules: DecodeRules) -> Callable[[str, Any], DecodedRecord]:
    """A function from a record's key and its decoded JSON to what the bridge keeps of it."""
    if call.reads == "components":
        return _components_reader(call)
    kind: RecordKind = "usage" if call.reads == "usage" else call.entity
    paths = {field.name: field.paths for field in call.fields}
    puts = [(field.name, _field_setter(field, rules, paths.get(field.unlimited_label, ()))) for field in call.fields]
    key = KEYS[kind]

    @at_border
    def read(id: str, record: Any) -> DecodedRecord:
        fields: Fields = {key: id}
        odd: dict[str, str] = {}
        _put_all(puts, record, fields, odd)
        if call.derive == "organization_kind":
            fields.setdefault("kind", "end_customer" if "parent_id" in fields else "distribution_partner")
        return DecodedRecord(kind, id, fields, tuple(odd), tuple(odd.values()))

    return read


def _put_all(puts: Sequence[tuple[str, _Put]], record: Any, fields: Fields, odd: dict[str, str]) -> None:
    """Puts every field that can be read; in `odd`, which could not be, and why."""
    for name, put in puts:
        try:
            put(record, fields)
        except values.Unparseable as error:
            odd[name] = str(error)
        except Exception as error:
            # The border sets the record aside, and says which field it was.
            error.add_note(name)
            raise


def _field_setter(field: Field, rules: DecodeRules, labels: Sequence[str] = ()) -> _Put:
    if field.type == "number":
        return _put_number(field, rules, labels)
    find, name = compile_paths(field.paths), field.name
    convert = _converter(field, rules)

    def put(record: Any, fields: Fields) -> None:
        found = find(record)
        if found is not None and (value := convert(found)) is not None:
            fields[name] = value

    return put


def _converter(field: Field, rules: DecodeRules) -> values.Reader:
    if field.type == "time":
        return values.time_text(rules.zone())
    return _CONVERTERS[field.type]


_CONVERTERS: dict[str, values.Reader] = {
    "text": values.parse_text,
    "word": values.word,
    "bool": values.parse_flag,
    "words": values.parse_texts,
    "set": values.texts,
}


def _put_number(field: Field, rules: DecodeRules, labels: Sequence[str]) -> _Put:
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
            if found is not None and (number := values.parse_quantity(found)) is not None:
                unit = _stated_unit(find_unit(record)) if find_unit else ""
                fields[field.name] = _number(field, number[0], unit or number[1])
                if field.unlimited:
                    fields[field.unlimited] = False
                return

    return put


def _is_word(value: Any, no_limit: frozenset[str]) -> bool:
    if isinstance(value, str):
        return fold_name(value) in no_limit or value.strip() in no_limit
    bounded = isinstance(value, float) or (isinstance(value, int) and values.is_int64(value))
    return bounded and f"{value:g}" in no_limit


def _stated_unit(value: Any) -> str:
    """The unit that stands beside a number; "" where there is none. Raises Odd when nobody can read it."""
    if type(value) is str and value in units.UNITS:
        return value
    unit = (values.parse_text(value) or "").strip()
    return "" if unit in _NO_UNIT else unit


_NO_UNIT = ("na", "1")
"""What TMF628 and SI write where there is no unit."""
_DEGREES = {"latitude": 90, "longitude": 360}
"""Field of a position -> the most that it can be, to either side."""


def _number(field: Field, number: values.Number, unit: str) -> values.Number:
    found = units.convert(number, unit or field.raw_unit, field.unit)
    if abs(found) > _DEGREES.get(field.name, math.inf):
        raise values.Unparseable(f"expected a {field.name}, got {found:.9g}")
    return values.round_as_published(field.name, found)


def _unit_step(path: str) -> Getter | None:
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


def _components_reader(call: Call) -> Callable[[str, Any], DecodedRecord]:
    find = {field.name: compile_paths(field.paths) for field in call.fields}

    @at_border
    def read(id: str, record: Any) -> DecodedRecord:
        parts = find["components"](record) if "components" in find else None
        found: Fields = {}
        for part in _parts(parts, record, call):
            partition, type_, version = (
                values.parse_text(find[name](part)) for name in ("partition", "type", "version")
            )
            if type_ and version is not None:
                found[f"{(partition or 'main').casefold()}/{type_}"] = version
        return DecodedRecord("components", id, found)

    return read


def _parts(parts: Any, record: Any, call: Call) -> Iterable[Any]:
    """The components of a terminal, wherever they stand: in a list, in a map, or each in a row of its own."""
    if isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], dict):
        maps = call.explode == "map" or all(isinstance(value, dict) for value in parts[0].values())
        parts = parts[0] if maps and parts[0] else parts
    if isinstance(parts, dict):
        return _partitions(parts)
    if isinstance(parts, list):
        return parts
    return record.get(ROWS, ()) if parts is None and merges_rows(call) else ()


def _partitions(table: dict[str, Any]) -> list[Any]:
    """The forms {"main": {"UT": "2.0.3"}} and {"UT": "2.0.3"} as a list of partition, type and version."""
    return [
        {"partition": partition if types is said else None, "type": type_, "version": version}
        for partition, said in table.items()
        for types in (said if isinstance(said, dict) else {partition: said},)
        for type_, version in types.items()
    ]


# ── samples ────────────────────────────────────────────────────────────────────────────────────


class Measured(msgspec.Struct):
    """Of one entry of a report: the samples, oldest first, what was set aside, and which values nobody could read."""

    samples: list[Sample] = []
    set_aside: list[Unreadable] = []
    odd: dict[str, str] = {}
    unsure: int = 0
    """How many times may mean another hour; see `repeated_hour`."""


class Sampler(Protocol):
    """From one entry of a report, and what is known of its id, to its samples."""

    def __call__(self, id: str, entry: Any, known: Known = ...) -> Measured: ...


def sample_decoder(call: Call, rules: DecodeRules) -> Sampler:
    """A function from one entry of a report to its samples. It raises Unreadable when nothing of it can be used.

    Measurements of one time are one sample, so that a row for each indicator is as good as a row for all.
    """
    find = compile_path(call.measurements) if call.measurements else lambda entry: [entry]
    stamp, zone = compile_paths(call.timestamp), rules.zone()
    put_values, has_summer_time = _measurement_reader(call, rules), rules.timezone != "UTC"

    @at_border
    def measure(measurement: Any, odd: dict[str, str]) -> tuple[tuple[int, int] | None, Fields]:
        fields: Fields = {}
        said = stamp(measurement)
        first = values.parse_time(said, zone)
        second = values.parse_time(said, zone, fold=1) if has_summer_time else first
        put_values(measurement, fields, odd)
        return None if first is None or second is None else (first, second), fields

    @at_border
    def sample(id: str, entry: Any, known: Known = Known()) -> Measured:  # noqa: B008 -- it is frozen
        rows: list[tuple[tuple[int, int] | None, Fields]] = []
        found = Measured()
        labels: Fields = {"product_name": entry["name"]} if _has_name(call, entry) else {}
        for measurement in find(entry) or ():
            try:
                time, fields = measure(measurement, found.odd)
            except Unreadable as error:
                found.set_aside.append(error)
                continue
            if fields:
                rows.append((time, fields))
        moments, found.unsure = resolve_times([time for time, _ in rows if time is not None], known)
        by_time, resolved = dict[int | None, Fields](), iter(moments)
        for time, fields in rows:
            by_time.setdefault(None if time is None else next(resolved), {}).update(fields)
        times = sorted(by_time, key=lambda ts: ts or 0)
        found.samples.extend(Sample(call.report, id, ts, by_time[ts], labels) for ts in times)
        return found

    return sample


def _has_name(call: Call, entry: Any) -> bool:
    return call.entity == "product" and isinstance(entry, dict) and isinstance(entry.get("name"), str)


_PutValues = Callable[[Any, Fields, dict[str, str]], None]


def _measurement_reader(call: Call, rules: DecodeRules) -> _PutValues:
    """A function that puts the values of one measurement into fields; in its last argument, which it could not read."""
    if call.indicators is None:
        puts = [(field.name, _field_setter(field, rules)) for field in call.fields]
        return lambda measurement, fields, odd: _put_all(puts, measurement, fields, odd)

    find = compile_path(call.indicators)
    known = {
        fold_name(path): [(field.name, partial(_put_known, field))] for field in call.fields for path in field.paths
    }

    def put_values(measurement: Any, fields: Fields, odd: dict[str, str]) -> None:
        for indicator in find(measurement) or ():
            if isinstance(indicator, dict) and isinstance(name := indicator.get("name"), str):
                puts = known.get(fold_name(name)) if len(name) <= values.MAX_NAME_CHARS else []
                _put_all(_puts_of_unknown(name) if puts is None else puts, indicator, fields, odd)

    return put_values


def _puts_of_unknown(name: str) -> list[tuple[str, _Put]]:
    """How an indicator that nobody told us of gets under its own name; not at all where that is taken."""
    field_name = values.snake(name)
    return [] if field_name in RESERVED else [(field_name, partial(_put_unknown, name))]


def _put_known(field: Field, indicator: dict[str, Any], fields: Fields) -> None:
    value = indicator.get("value")
    if field.type != "number":
        if (found := values.parse_text(value)) is not None:
            fields[field.name] = found
        return
    number = values.parse_quantity(value)
    if number is not None:
        unit = _stated_unit(indicator.get("indicatorUnit")) or number[1]
        fields[field.name] = _number(field, number[0], unit)


def _put_unknown(name: str, indicator: dict[str, Any], fields: Fields) -> None:
    """A numeric indicator with the ending of its unit; anything else is left out."""
    value = indicator.get("value")
    number = values.parse_quantity(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if number is not None:
        unit = _stated_unit(indicator.get("indicatorUnit"))
        field_name, wanted = units.name_unknown_indicator(name, unit)
        fields[field_name] = values.round_as_published(field_name, units.convert(number[0], unit, wanted))


RESERVED = frozenset(("imei", "product_id", "report", "time", "ts", "corrected", "replayed", ""))
"""Names that an unknown indicator must not take, because they belong to every sample."""

assert set(get_args(RecordKind)) == set(KEYS)  # noqa: S101 -- a table that must be complete, checked at import
