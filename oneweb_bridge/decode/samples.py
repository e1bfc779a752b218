"""Decodes one entry of a report into its samples. Pure.

Its measurements stand in a list, and the values of one measurement in members or in a list of indicators.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import msgspec

from oneweb_bridge.decode import units, values
from oneweb_bridge.decode.border import Unreadable, at_border
from oneweb_bridge.decode.catalogue import Call, Field
from oneweb_bridge.decode.fields import DecodeRules, PutField, convert_number, field_setter, put_fields, stated_unit
from oneweb_bridge.decode.paths import compile_path, compile_paths, fold_name
from oneweb_bridge.decode.repeated_hour import Known, resolve_times
from oneweb_bridge.model.records import Fields, Sample


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
        puts = [(field.name, field_setter(field, rules)) for field in call.fields]
        return lambda measurement, fields, odd: put_fields(puts, measurement, fields, odd)

    find = compile_path(call.indicators)
    known = {
        fold_name(path): [(field.name, partial(_put_known, field))] for field in call.fields for path in field.paths
    }

    def put_values(measurement: Any, fields: Fields, odd: dict[str, str]) -> None:
        for indicator in find(measurement) or ():
            if isinstance(indicator, dict) and isinstance(name := indicator.get("name"), str):
                puts = known.get(fold_name(name)) if len(name) <= values.MAX_NAME_CHARS else []
                put_fields(_puts_of_unknown(name) if puts is None else puts, indicator, fields, odd)

    return put_values


def _puts_of_unknown(name: str) -> list[tuple[str, PutField]]:
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
        unit = stated_unit(indicator.get("indicatorUnit")) or number[1]
        fields[field.name] = convert_number(field, number[0], unit)


def _put_unknown(name: str, indicator: dict[str, Any], fields: Fields) -> None:
    """A numeric indicator with the ending of its unit; anything else is left out."""
    value = indicator.get("value")
    number = values.parse_quantity(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if number is not None:
        unit = stated_unit(indicator.get("indicatorUnit"))
        field_name, wanted = units.name_unknown_indicator(name, unit)
        fields[field_name] = values.round_as_published(field_name, units.convert(number[0], unit, wanted))


RESERVED = frozenset(("imei", "product_id", "report", "time", "ts", "corrected", "replayed", ""))
"""Names that an unknown indicator must not take, because they belong to every sample."""
