"""Sparkplug payloads as bytes: metrics with names or aliases, values, nulls, properties. Pure.

Source: Sparkplug 3.0.0, chapter 6.4 (payload, metric, property sets); the protobuf schema beside this file.
"""

from collections.abc import Iterable, Mapping

import msgspec
from google.protobuf.message import DecodeError

from oneweb_bridge.sparkplug import sparkplug_b_pb2 as pb
from oneweb_bridge.sparkplug.tree import Metric, MetricSpec, MetricType, MetricValue

GOOD, STALE = 192, 500
"""Values of the property `Quality`."""
_WRAP = 1 << 64


class Aliased(msgspec.Struct, frozen=True, gc=False):
    """A metric as data messages carry it. `alias` is None for the two node metrics that have none."""

    metric: Metric
    alias: int | None
    historical: bool = False
    quality: int | None = None


def encode_birth(metrics: Iterable[Aliased], ts: int, texts: Mapping[str, str]) -> bytes:
    """NBIRTH or DBIRTH without its `seq`: each metric with name, alias, type, value and properties.

    `texts` documents some by name.
    """
    payload = pb.Payload(timestamp=ts)
    for aliased in metrics:
        entry, spec = payload.metrics.add(), aliased.metric.spec
        entry.name, entry.datatype = spec.name, spec.type
        _fill(entry, aliased, ts)
        _add_properties(entry, spec, aliased.quality, texts.get(spec.name, ""))
    return payload.SerializeToString()


def encode_data(metrics: Iterable[Aliased], ts: int) -> bytes:
    """NDATA or DDATA without its `seq`: each metric by its alias alone, or by its name where it has none."""
    payload = pb.Payload(timestamp=ts)
    for aliased in metrics:
        entry = payload.metrics.add()
        if aliased.alias is None:
            entry.name = aliased.metric.spec.name
        _fill(entry, aliased, ts)
        if aliased.historical:
            entry.is_historical = True
        if aliased.quality is not None:
            _add_property(entry, "Quality", MetricType.INT32, aliased.quality)
    return payload.SerializeToString()


def encode_device_death(ts: int) -> bytes:
    """DDEATH without its `seq`: no metrics."""
    return pb.Payload(timestamp=ts).SerializeToString()


def with_seq(body: bytes, seq: int) -> bytes:
    """A payload with its `seq`, whose field comes behind all that are used here, so that it can be given last."""
    return body + pb.Payload(seq=seq).SerializeToString()


def encode_node_death(bd_seq: int, ts: int | None = None) -> bytes:
    """NDEATH: `bdSeq` alone, without a seq; the will has no time."""
    payload = pb.Payload()
    if ts is not None:
        payload.timestamp = ts
    entry = payload.metrics.add()
    entry.name, entry.datatype, entry.long_value = "bdSeq", MetricType.INT64, bd_seq
    if ts is not None:
        entry.timestamp = ts
    return payload.SerializeToString()


def _fill(entry: pb.Payload.Metric, aliased: Aliased, ts: int) -> None:
    """Alias, time and value of a metric. A null has the time of the payload."""
    if aliased.alias is not None:
        entry.alias = aliased.alias
    entry.timestamp = ts if aliased.metric.value is None else aliased.metric.ts
    _set_value(entry, aliased.metric.spec.type, aliased.metric.value)


def _set_value(entry: pb.Payload.Metric, kind: MetricType, value: MetricValue) -> None:
    if value is None:
        entry.is_null = True
        return
    match kind:
        case MetricType.INT64 | MetricType.DATETIME:
            entry.long_value = int(value) % _WRAP
        case MetricType.INT32:
            entry.int_value = int(value) % (1 << 32)
        case MetricType.DOUBLE:
            entry.double_value = float(value)
        case MetricType.BOOLEAN:
            entry.boolean_value = bool(value)
        case MetricType.STRING:
            entry.string_value = str(value)


def _add_properties(entry: pb.Payload.Metric, spec: MetricSpec, quality: int | None, text: str) -> None:
    if spec.unit:
        _add_property(entry, "engUnit", MetricType.STRING, spec.unit)
    _add_property(entry, "readOnly", MetricType.BOOLEAN, not spec.writable)
    if spec.bounds is not None:
        for key, bound in zip(("engLow", "engHigh"), spec.bounds, strict=True):
            _add_property(entry, key, MetricType.DOUBLE, bound)
    if text:
        _add_property(entry, "Documentation", MetricType.STRING, text)
    if quality is not None:
        _add_property(entry, "Quality", MetricType.INT32, quality)


def _add_property(entry: pb.Payload.Metric, key: str, kind: MetricType, value: str | float | bool) -> None:
    entry.properties.keys.append(key)
    added = entry.properties.values.add()
    added.type = kind
    match kind:
        case MetricType.STRING:
            added.string_value = str(value)
        case MetricType.BOOLEAN:
            added.boolean_value = bool(value)
        case MetricType.DOUBLE:
            added.double_value = float(value)
        case _:
            added.int_value = int(value)


class Written(msgspec.Struct, frozen=True):
    """One metric of an NCMD: its name or alias, and its value; None for a null or a value of another kind."""

    name: str
    alias: int | None
    value: int | float | bool | str | None


def decode_command(body: bytes) -> list[Written]:
    """The metrics of an NCMD. Raises ValueError for bytes that are no Sparkplug payload."""
    payload = pb.Payload()
    try:
        payload.ParseFromString(body)
    except DecodeError as error:
        raise ValueError(f"the payload is no Sparkplug payload: {error}") from None
    return [_written(entry) for entry in payload.metrics]


def _written(entry: pb.Payload.Metric) -> Written:
    alias = entry.alias if entry.HasField("alias") else None
    which = None if entry.is_null else entry.WhichOneof("value")
    if which in ("int_value", "long_value"):
        bits = 32 if which == "int_value" else 64
        value = getattr(entry, which)
        return Written(entry.name, alias, value - (1 << bits) if value >> (bits - 1) else value)
    if which in ("float_value", "double_value", "boolean_value", "string_value"):
        return Written(entry.name, alias, getattr(entry, which))
    return Written(entry.name, alias, None)
