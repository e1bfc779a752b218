"""Functions from decoded JSON to one field: text, time, flag, or number with its unit. Pure.

A value that cannot be parsed is named with its reason and counts as not known; the other fields of the record count.
"""

import math
from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from oneweb_bridge.decode import units, values
from oneweb_bridge.decode.catalogue import Field
from oneweb_bridge.decode.paths import compile_path, compile_paths, fold_name
from oneweb_bridge.model.records import Fields


class DecodeRules(msgspec.Struct, frozen=True):
    """Rules for all calls: the zone of times without offset, and the words for "no limit"."""

    timezone: str = "UTC"
    unlimited: tuple[str, ...] = ("Unlimited", "-1")

    def zone(self) -> tzinfo:
        return ZoneInfo(self.timezone)

    def no_limit(self) -> frozenset[str]:
        return frozenset(word if word == "-1" else fold_name(word) for word in self.unlimited)


RESERVED_MEMBERS = frozenset(("report", "time", "ts", "corrected", "replayed"))
"""Members that the bridge itself adds to payloads; no field may have these names."""
SetField = Callable[[Any, Fields], None]


def set_fields(
    setters: Sequence[tuple[str, SetField]], record: Any, fields: Fields, unparseable: dict[str, str]
) -> None:
    """Sets every field that can be parsed, and adds the names of the others with the reason to `unparseable`."""
    for name, set_field in setters:
        try:
            set_field(record, fields)
        except values.Unparseable as error:
            unparseable[name] = str(error)
        except Exception as error:
            # The border sets the record aside, and says which field it was.
            error.add_note(name)
            raise


def field_setter(field: Field, rules: DecodeRules, labels: Sequence[str] = ()) -> SetField:
    """A function that sets one field from a record; `labels` are the paths of texts that may mean "no limit"."""
    if field.type == "number":
        return _number_setter(field, rules, labels)
    find, name = compile_paths(field.paths), field.name
    convert = _converter(field, rules)

    def set_field(record: Any, fields: Fields) -> None:
        value = find(record)
        if type(value) is dict:
            value = value_in(value)
        if value is not None and (parsed := convert(value)) is not None:
            fields[name] = parsed

    return set_field


def value_in(value: dict[str, Any]) -> Any:
    """The value that an object stands for, such as {"value": "online"}; the object itself where it has none."""
    return next((value[name] for name in _VALUE_MEMBERS if name in value), value)


_VALUE_MEMBERS = ("value", "amount", "state", "status")


def _converter(field: Field, rules: DecodeRules) -> values.Reader:
    if field.type == "time":
        return values.time_reader(rules.zone())
    return _CONVERTERS[field.type]


_CONVERTERS: dict[str, values.Reader] = {
    "text": values.parse_text,
    "word": values.parse_word,
    "bool": values.parse_flag,
    "words": values.parse_texts,
    "set": values.parse_text_set,
}


def _number_setter(field: Field, rules: DecodeRules, labels: Sequence[str]) -> SetField:
    sources = [(compile_path(path), unit_finder(field, path)) for path in field.paths]
    label_steps = [compile_path(path) for path in labels]
    null_checks = [parent for path in field.paths if (parent := _null_step(path))]
    no_limit = rules.no_limit()

    def is_unlimited(record: Any) -> bool:
        given = [step(record) for step in label_steps] + [find(record) for find, _ in sources]
        if any(_is_word(candidate, no_limit) for candidate in given if candidate is not None):
            return True
        return "null" in no_limit and any(is_null(record) for is_null in null_checks)

    def set_number(record: Any, fields: Fields) -> None:
        if field.unlimited and is_unlimited(record):
            fields[field.unlimited] = True
            return
        for find, find_unit in sources:
            value = find(record)
            if value is None:
                continue
            unit = find_unit(record)
            if type(value) is dict:
                value, unit = value_in(value), unit_in(value) or unit
            if (number := values.parse_quantity(value)) is not None:
                fields[field.name] = convert_number(field, number[0], unit or number[1])
                if field.unlimited:
                    fields[field.unlimited] = False
                return

    return set_number


def _is_word(value: Any, no_limit: frozenset[str]) -> bool:
    if isinstance(value, str):
        return fold_name(value) in no_limit or value.strip() in no_limit
    bounded = isinstance(value, float) or (isinstance(value, int) and values.is_int64(value))
    return bounded and f"{value:g}" in no_limit


def stated_unit(value: Any) -> str:
    """The unit that stands beside a number; "" where there is none. Raises Unparseable."""
    if type(value) is str and value in units.UNITS:
        return value
    unit = (values.parse_text(value) or "").strip()
    return "" if unit in _NO_UNIT else unit


_NO_UNIT = ("na", "1")
"""Units of a number without unit in TMF628 and SI."""
_DEGREES = {"latitude": 90, "longitude": 360}
"""Field of a position -> its largest amount. Longitudes up to 360 come from APIs that count from 0."""


def convert_number(field: Field, number: values.Number, unit: str) -> values.Number:
    """A number of `unit` in the unit and JSON type that the field is published in. Raises Unparseable."""
    converted = units.convert(number, unit or field.raw_unit, field.unit)
    if abs(converted) > _DEGREES.get(field.name, math.inf):
        raise values.Unparseable(f"expected a {field.name}, got {converted:.9g}")
    return values.round_as_published(field.name, converted)


UNIT_MEMBERS = ("unit", "units", "uom", "unitOfMeasure", "unitOfMeasurement", "indicatorUnit")
"""Members that name the unit of the value beside them."""
_PAIRED = ("value", "amount")
"""Members of an object that is one value with its unit. Beside another the unit counts where it can be the value's."""


def unit_in(value: dict[str, Any]) -> str:
    """The unit that an object names; "" where it names none. Raises Unparseable for one that is no text."""
    for name in UNIT_MEMBERS:
        if (unit := value.get(name)) is not None:
            return stated_unit(unit)
    return ""


def unit_finder(field: Field, path: str) -> Callable[[Any], str]:
    """A function to the unit that stands beside the value at a path; "" where there is none."""
    above, _, name = path.rpartition(".")
    if "]" in name:
        return lambda _: ""
    parent, is_paired, own = compile_path(above) if above else None, name in _PAIRED, f"{name}Unit"

    def find_unit(record: Any) -> str:
        beside = record if parent is None else parent(record)
        if type(beside) is list and beside:
            beside = beside[0]
        if type(beside) is not dict:
            return ""
        if is_paired:
            return unit_in(beside)
        unit = stated_unit(beside[own]) if own in beside else unit_in(beside)
        return unit if units.can_convert(unit, field.unit) else ""

    return find_unit


def _null_step(path: str) -> Callable[[Any], bool] | None:
    above, _, name = path.rpartition(".")
    if not above or name not in ("value", "amount"):
        return None
    parent = compile_path(above)

    def is_null(record: Any) -> bool:
        container = parent(record)
        return isinstance(container, dict) and container.get(name, 0) is None

    return is_null
