"""Decodes one entry of a report into its samples. Pure.

Its measurements stand in a list, and the values of one measurement in members or in a list of indicators.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from oneweb_bridge.decode import units, values
from oneweb_bridge.decode.border import Unreadable, at_border
from oneweb_bridge.decode.catalogue import Call, Field
from oneweb_bridge.decode.fields import (
    RESERVED_MEMBERS,
    DecodeRules,
    SetField,
    convert_number,
    field_setter,
    set_fields,
    stated_unit,
)
from oneweb_bridge.decode.path_reader import PathTable
from oneweb_bridge.decode.paths import Getter, compile_path, compile_paths, fold_name, member_name, top_member
from oneweb_bridge.decode.repeated_hour import Known, resolve_times
from oneweb_bridge.decode.report_forms import (
    IndicatorValue,
    SeriesPoint,
    indicators_of,
    other_indicators,
    other_measurements,
)
from oneweb_bridge.model.records import Fields, Sample


class Measured(msgspec.Struct):
    """One decoded entry of a report: samples, oldest first; unreadable measurements; unparseable values."""

    samples: list[Sample] = []
    set_aside: list[Unreadable] = []
    unparseable: dict[str, str] = {}
    unsure: int = 0
    """How many times may mean another moment; see `repeated_hour`."""
    rows: int = 0
    """How many measurements were not empty."""
    unread_rows: int = 0
    """How many of them have no value that a field or indicator reads."""


class SampleDecoder(Protocol):
    """Decodes one entry of a report, given what is known of its id."""

    def __call__(self, id: str, entry: Any, known: Known = ...) -> Measured: ...


def sample_decoder(call: Call, rules: DecodeRules) -> SampleDecoder:
    """A function from one entry of a report to its samples. It raises Unreadable when nothing in it can be used.

    Measurements of one time are one sample, so that a row for each indicator is as good as a row for all.
    """
    find = _measurement_finder(call)
    find_time, zone = compile_paths(call.timestamp), rules.zone()
    set_values, has_summer_time = _measurement_decoder(call, rules), rules.timezone != "UTC"

    @at_border
    def measure(measurement: Any, measured: Measured) -> tuple[tuple[int, int] | None, Fields]:
        fields: Fields = {}
        time = measurement.time if isinstance(measurement, SeriesPoint) else find_time(measurement)
        first = values.parse_time(time, zone)
        second = values.parse_time(time, zone, fold=1) if has_summer_time else first
        has_content = set_values(measurement, fields, measured.unparseable)
        measured.rows += bool(fields) or has_content
        measured.unread_rows += has_content and not fields
        return None if first is None or second is None else (first, second), fields

    @at_border
    def sample(id: str, entry: Any, known: Known = Known()) -> Measured:  # noqa: B008 -- it is frozen
        rows: list[tuple[tuple[int, int] | None, Fields]] = []
        measured = Measured()
        labels = _labels(call, entry)
        measurements = find(entry)
        if measurements is None:
            measured.rows = measured.unread_rows = 1
        for measurement in measurements or ():
            try:
                time, fields = measure(measurement, measured)
            except Unreadable as error:
                measured.set_aside.append(error)
                continue
            if fields:
                rows.append((time, fields))
        moments, measured.unsure = resolve_times([time for time, _ in rows if time is not None], known)
        by_time, resolved = dict[int | None, Fields](), iter(moments)
        for time, fields in rows:
            by_time.setdefault(None if time is None else next(resolved), {}).update(fields)
        times = sorted(by_time, key=lambda ts: ts or 0)
        measured.samples.extend(Sample(call.report, id, ts, by_time[ts], labels) for ts in times)
        return measured

    return sample


def _known_names(call: Call) -> frozenset[str]:
    return frozenset(fold_name(path) for field in call.fields for path in field.paths)


def _measurement_finder(call: Call) -> Callable[[Any], Sequence[Any] | None]:
    """A function to the measurements of an entry. It returns None for an entry in no known form."""
    if not call.measurements:
        return lambda entry: [entry]
    get, names = compile_path(call.measurements), _known_names(call)
    member = top_member(call.measurements) or ""
    has_member = compile_path(member) if member else get

    def find(entry: Any) -> Sequence[Any] | None:
        listed = get(entry)
        if listed:
            return listed if isinstance(listed, list) else [listed]
        # An empty list and null mean that there is no measurement; a missing member may mean another form.
        if has_member(entry) is not None or (isinstance(entry, dict) and member_name(entry, member) is not None):
            return []
        return other_measurements(entry, names) or None

    return find


def _labels(call: Call, entry: Any) -> Fields:
    """What the samples of an entry carry besides their values: the name of a product."""
    held = member_name(entry, "name") if call.entity == "product" and isinstance(entry, dict) else None
    return {"product_name": entry[held]} if held is not None and isinstance(entry[held], str) else {}


_SetValues = Callable[[Any, Fields, dict[str, str]], bool]


def _measurement_decoder(call: Call, rules: DecodeRules) -> _SetValues:
    """A function that sets the values of one measurement, and adds unparseable ones to its last argument.

    It returns whether the measurement had any value.
    """
    if call.indicators is None:
        return _flat_decoder(call, rules)
    # Without `[*]`, so that an object in place of the list is not read as a list of one.
    find, names = compile_path(call.indicators.removesuffix("[*]")), _known_names(call)
    member = top_member(call.indicators) or ""
    known_setters = {
        fold_name(path): [(field.name, partial(_set_known, field))] for field in call.fields for path in field.paths
    }

    def set_values(measurement: Any, fields: Fields, unparseable: dict[str, str]) -> bool:
        indicators, is_known_form = _indicators(measurement, find, member, names)
        has_value = False
        for indicator in indicators:
            has_value = has_value or indicator.value is not None
            name = indicator.name
            setters = known_setters.get(fold_name(name)) if len(name) <= values.MAX_NAME_CHARS else []
            set_fields(_setters_of_unknown(name) if setters is None else setters, indicator, fields, unparseable)
        return has_value or not is_known_form

    return set_values


def _flat_decoder(call: Call, rules: DecodeRules) -> _SetValues:
    """`_measurement_decoder` for measurements with a member for each field."""
    paths = PathTable()
    setters = [(field.name, field_setter(field, rules, paths)) for field in call.fields]
    read_paths = paths.reader()
    members = [name for field in call.fields for path in field.paths if (name := top_member(path))]

    def set_values(measurement: Any, fields: Fields, unparseable: dict[str, str]) -> bool:
        set_fields(setters, read_paths(measurement), fields, unparseable)
        is_dict = isinstance(measurement, dict)
        return not is_dict or not any(name in measurement and measurement[name] is None for name in members)

    return set_values


def _indicators(
    measurement: Any, find: Getter, member: str, known: frozenset[str]
) -> tuple[Iterable[IndicatorValue], bool]:
    """The indicators of a measurement, and whether they came in a known form."""
    if isinstance(measurement, SeriesPoint):
        return (measurement.indicator,), True
    value = find(measurement)
    if value:
        indicators = indicators_of(value)
        return indicators, bool(indicators)
    if isinstance(measurement, dict) and member_name(measurement, member) is not None:
        return (), True
    indicators = other_indicators(measurement, known)
    return indicators, bool(indicators)


def _setters_of_unknown(name: str) -> list[tuple[str, SetField]]:
    """Publishes an indicator that the catalogue does not know under its own name, unless that is reserved."""
    field_name = values.snake(name)
    return [] if field_name in RESERVED else [(field_name, partial(_set_unknown, name))]


def _set_known(field: Field, indicator: IndicatorValue, fields: Fields) -> None:
    value = indicator.value
    if field.type != "number":
        if (text := values.parse_text(value)) is not None:
            fields[field.name] = text
        return
    number = values.parse_quantity(value)
    if number is not None:
        unit = stated_unit(indicator.unit) or number[1]
        fields[field.name] = convert_number(field, number[0], unit)


def _set_unknown(name: str, indicator: IndicatorValue, fields: Fields) -> None:
    """A numeric indicator with the ending of its unit; anything else is left out."""
    value = indicator.value
    number = values.parse_quantity(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if number is not None:
        unit = stated_unit(indicator.unit)
        field_name, published_unit = units.name_unknown_indicator(name, unit)
        fields[field_name] = values.round_as_published(field_name, units.convert(number[0], unit, published_unit))


RESERVED = RESERVED_MEMBERS | {"imei", "product_id", ""}
"""Names that an unknown indicator must not take, because they belong to every sample."""
