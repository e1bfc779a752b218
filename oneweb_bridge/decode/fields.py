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
from oneweb_bridge.decode.path_reader import PathTable
from oneweb_bridge.decode.paths import fold_name, member_name
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
    setters: Sequence[tuple[str, SetField]], source: Any, fields: Fields, unparseable: dict[str, str]
) -> None:
    """Sets every field that can be parsed, and adds the names of the others with the reason to `unparseable`.

    `source` is what the setters read: the values at the paths of a record, or an indicator.
    """
    for name, set_field in setters:
        try:
            set_field(source, fields)
        except values.Unparseable as error:
            unparseable[name] = str(error)
        except Exception as error:
            # The border sets the record aside, and says which field it was.
            error.add_note(name)
            raise


def field_setter(field: Field, rules: DecodeRules, paths: PathTable, labels: Sequence[str] = ()) -> SetField:
    """A function that sets one field from the values at `paths`, to which it adds those of the field.

    `labels` are the paths of texts that may mean "no limit".
    """
    if field.type == "number":
        return _number_setter(field, rules, paths, labels)
    positions, name = [paths.position(path) for path in field.paths], field.name
    convert = _converter(field, rules)

    def set_field(path_values: Sequence[Any], fields: Fields) -> None:
        for position in positions:
            value = path_values[position]
            if value is not None:
                if type(value) is dict:
                    value = value_in(value)
                if value is not None and (parsed := convert(value)) is not None:
                    fields[name] = parsed
                return

    return set_field


def value_in(value: dict[str, Any]) -> Any:
    """The value that an object stands for, such as {"value": "online"}; the object itself where it has none."""
    name = member_name(value, *_VALUE_MEMBERS)
    return value if name is None else value[name]


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


def _number_setter(field: Field, rules: DecodeRules, paths: PathTable, labels: Sequence[str]) -> SetField:
    sources = [(paths.position(path), unit_finder(field, path, paths)) for path in field.paths]
    candidates = [paths.position(path) for path in (*labels, *field.paths)]
    null_checks = [is_null for path in field.paths if (is_null := _null_check(path, paths))]
    no_limit = rules.no_limit()

    def is_unlimited(path_values: Sequence[Any]) -> bool:
        given = [path_values[position] for position in candidates]
        if any(_is_word(candidate, no_limit) for candidate in given if candidate is not None):
            return True
        return "null" in no_limit and any(is_null(path_values) for is_null in null_checks)

    def set_number(path_values: Sequence[Any], fields: Fields) -> None:
        if field.unlimited and is_unlimited(path_values):
            fields[field.unlimited] = True
            return
        for position, find_unit in sources:
            value = path_values[position]
            if value is None:
                continue
            unit = find_unit(path_values)
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
    other = member_name(value, *UNIT_MEMBERS)
    return "" if other is None or value[other] is None else stated_unit(value[other])


def _unit_of_shared(unit: str, field: Field) -> str:
    """The unit that stands beside several values, where it is this field's; "" where it is another's, or no unit.

    A symbol that differs from one of this field only by its letters' case (KB, mbps) is returned, and will be refused.
    """
    unit = units.spelled(unit)
    return unit if units.can_convert(unit, field.unit) or units.resembles(unit, field.unit) else ""


def unit_finder(field: Field, path: str, paths: PathTable) -> Callable[[Sequence[Any]], str]:
    """A function from the values at `paths` to the unit that stands beside the value at `path`; "" where none does."""
    above, _, name = path.rpartition(".")
    if "]" in name:
        return lambda _: ""
    parent, is_paired, own = paths.position(above), name in _PAIRED, f"{name}Unit"

    def find_unit(path_values: Sequence[Any]) -> str:
        beside = path_values[parent]
        if type(beside) is list and beside:
            beside = beside[0]
        if type(beside) is not dict:
            return ""
        own_unit = member_name(beside, own)
        if own_unit is not None and beside[own_unit] is not None:
            return stated_unit(beside[own_unit])
        if is_paired:
            return unit_in(beside)
        return _unit_of_shared(unit_in(beside), field)

    return find_unit


def _null_check(path: str, paths: PathTable) -> Callable[[Sequence[Any]], bool] | None:
    above, _, name = path.rpartition(".")
    if not above or name not in ("value", "amount"):
        return None
    parent = paths.position(above)

    def is_null(path_values: Sequence[Any]) -> bool:
        container = path_values[parent]
        held = member_name(container, name) if isinstance(container, dict) else None
        return held is not None and container[held] is None

    return is_null
