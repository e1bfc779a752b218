"""The forms in which a report may hold its measurements and their indicators, besides the configured one. Pure.

A form is tried only where the configured member is not there at all. What none of them understands is counted by the
caller as a row that gave no sample.

    {"timestamp": …, "kpiName": "rsrp", "kpiValue": -40}          an indicator for each row
    {"timestamp": …, "rsrp": -40, "sinr": {"value": 10.2}}        a member for each indicator
    {"timestamp": …, "kpis": [{"metric": "rsrp", "val": -40}]}    a list under another name
    {"rsrp": [["2025-06-17T13:40:07Z", -40], …]}                  a series for each indicator
    {"series": [{"name": "rsrp", "points": [{"time": …, "value": -40}]}]}
    {"timestamps": […], "rsrp": […], "sinr": […]}                  lists of equal length
    {"series": [{"name": "rsrp", "timestamps": […], "values": […]}]}
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from oneweb_bridge.decode.fields import UNIT_MEMBERS
from oneweb_bridge.decode.paths import fold_name

MAX_NAME_CHARS = 100


class IndicatorValue(NamedTuple):
    """One value of a measurement under the API's own name of it, and the unit that stands beside it."""

    name: str
    value: Any
    unit: Any = None


class SeriesPoint(NamedTuple):
    """One element of a series: a measurement with one indicator."""

    time: Any
    indicator: IndicatorValue


_NAMES = ("name", "kpiname", "indicatorname", "metricname", "countername", "metric", "kpi", "indicator", "counter")
_VALUES = ("value", "kpivalue", "indicatorvalue", "metricvalue", "countervalue", "val")
_TIMES = ("timestamp", "time", "datetime", "measuredat", "measurementtime", "sampletime", "ts", "t")
_TIME_LISTS = ("timestamps", "times", "datetimes", *_TIMES)
_VALUE_LISTS = ("values", "vals", "data", "samples", "points")
_UNITS = (
    "indicatorunit",
    *map(fold_name, UNIT_MEMBERS),
    "kpiunit",
    "metricunit",
    "counterunit",
    "valuesunit",
    *(f"{name}unit" for name in _VALUES),
)


def _pick(record: dict[str, Any], folded_names: Iterable[str]) -> Any:
    """The value of the first of these members, in whatever style they are written; None where there is none."""
    folded = {fold_name(name): value for name, value in record.items() if len(name) <= MAX_NAME_CHARS}
    return next((folded[name] for name in folded_names if folded.get(name) is not None), None)


def _has_any(record: Any, folded_names: Iterable[str]) -> bool:
    return isinstance(record, dict) and not {
        fold_name(name) for name in record if len(name) <= MAX_NAME_CHARS
    }.isdisjoint(folded_names)


def indicator_of(record: Any) -> IndicatorValue | None:
    """A named value, such as {"name": "rsrp", "value": -40, "indicatorUnit": "dBm"}; None where it has no name."""
    if not isinstance(record, dict):
        return None
    name, value = record.get("name"), record.get("value")
    if isinstance(name, str) and "value" in record:
        unit = record.get("indicatorUnit")
        return IndicatorValue(name, value, _pick(record, _UNITS) if unit is None else unit)
    name = _pick(record, _NAMES)
    if not isinstance(name, str) or not _has_any(record, _VALUES):
        return None
    return IndicatorValue(name, _pick(record, _VALUES), _pick(record, _UNITS))


def indicators_of(value: Any) -> list[IndicatorValue]:
    """The indicators of a list of named values, or of an object with a member for each of them."""
    if isinstance(value, dict) and not _has_any(value, (*_NAMES, *_VALUES)):
        return list(_members(value, None))
    elements = value if isinstance(value, list) else [value]
    return [indicator for element in elements if (indicator := indicator_of(element)) is not None]


def other_indicators(measurement: Any, known: Collection[str]) -> list[IndicatorValue]:
    """The indicators of a measurement that has no list of them where it should be; `known` are their folded names."""
    if not isinstance(measurement, dict):
        return []
    itself = indicator_of(measurement)
    if itself is not None:
        return [itself]
    for inner in measurement.values():
        if isinstance(inner, list) and (
            indicators := [indicator for e in inner if (indicator := indicator_of(e)) is not None]
        ):
            return indicators
    indicators = list(_members(measurement, known))
    return indicators or [
        indicator for inner in measurement.values() if isinstance(inner, dict) for indicator in _members(inner, known)
    ]


def _members(record: dict[str, Any], known: Collection[str] | None) -> Iterator[IndicatorValue]:
    """The members of an object that are indicators; with `known` those of these names alone."""
    unit, own_units = _pick(record, _UNITS) if known is None else None, _own_units(record)
    for name, value in record.items():
        if len(name) > MAX_NAME_CHARS or (known is not None and fold_name(name) not in known):
            continue
        if isinstance(value, dict):
            if _has_any(value, _VALUES):
                inner = _pick(value, _UNITS)
                own = own_units.get(fold_name(name))
                is_own = inner is None and isinstance(own, str)
                yield IndicatorValue(name, _pick(value, _VALUES), own if is_own else inner)
        elif not isinstance(value, list) and fold_name(name) not in _UNITS:
            own = own_units.get(fold_name(name))
            yield IndicatorValue(name, value, own if isinstance(own, str) else unit)


def _own_units(record: dict[str, Any]) -> dict[str, Any]:
    """Folded name of a member -> the unit that another member, `<name>Unit`, gives for it: a text, or one for each."""
    folded = {fold_name(name): value for name, value in record.items() if len(name) <= MAX_NAME_CHARS}
    units = {name.removesuffix("unit"): value for name, value in folded.items() if name.endswith("unit")}
    return {name: unit for name, unit in units.items() if isinstance(unit, (str, list))}


def other_measurements(entry: Any, known: Collection[str]) -> list[Any]:
    """The measurements of an entry that has none where they should be: objects, or points of series."""
    if not isinstance(entry, dict):
        return []
    for record in (entry, *(inner for inner in entry.values() if isinstance(inner, dict))):
        if points := [*_columns(entry, record, known), *_series(record, known)]:
            return points
        for inner in record.values():
            if isinstance(inner, list) and inner and all(_has_any(element, _TIMES) for element in inner):
                return inner
    return [entry] if _has_any(entry, _TIMES) or _has_any(entry, known) else []


def _columns(entry: dict[str, Any], record: dict[str, Any], known: Collection[str]) -> Iterator[SeriesPoint]:
    """The points of lists of one length: of the times, in the entry or the record, and of each indicator."""
    times = _pick(record, _TIME_LISTS) or _pick(entry, _TIME_LISTS)
    if isinstance(times, list) and times:
        for name, values in record.items():
            if isinstance(values, list) and len(name) <= MAX_NAME_CHARS and fold_name(name) in known:
                yield from _parallel(name, times, values, _own_units(record).get(fold_name(name)))


def _parallel(name: str, times: Any, values: Any, unit: Any) -> Iterator[SeriesPoint]:
    if isinstance(times, list) and isinstance(values, list) and len(times) == len(values):
        units = unit if isinstance(unit, list) and len(unit) == len(values) else [unit] * len(values)
        for time, value, own in zip(times, values, units, strict=True):
            yield SeriesPoint(time, IndicatorValue(name, value, None if isinstance(own, list) else own))


def _series(record: dict[str, Any], known: Collection[str]) -> Iterator[SeriesPoint]:
    for name, value in record.items():
        if not isinstance(value, list) or not value or len(name) > MAX_NAME_CHARS:
            continue
        if fold_name(name) in known:
            own = _own_units(record).get(fold_name(name))
            yield from _points(name, value, own if isinstance(own, str) else None)
            continue
        for element in value:
            series_name = _pick(element, _NAMES) if isinstance(element, dict) else None
            if isinstance(series_name, str) and isinstance(element, dict) and not _has_any(element, _VALUES):
                unit = _pick(element, _UNITS)
                yield from _parallel(series_name, _pick(element, _TIME_LISTS), _pick(element, _VALUE_LISTS), unit)
                for points in element.values():
                    if isinstance(points, list):
                        yield from _points(series_name, points, unit)


def _points(name: str, points: Iterable[Any], unit: Any) -> Iterator[SeriesPoint]:
    """The points of a series: pairs of time and value, or objects with both."""
    for point in points:
        if isinstance(point, list) and len(point) == 2:
            yield SeriesPoint(point[0], IndicatorValue(name, point[1], unit))
        elif _has_any(point, _TIMES) and _has_any(point, _VALUES):
            yield SeriesPoint(
                _pick(point, _TIMES), IndicatorValue(name, _pick(point, _VALUES), _pick(point, _UNITS) or unit)
            )
