"""Samples as columns, and a day of them as a compressed chunk. Pure.

A chunk is zlib of JSON: `{"ts": [offset in the day, differences…], "sinr_db": [9.1, null, …], …}`, a list per member
of the samples; null stands for absent. A column without anything but integers has its first value and then
differences; floats are always written with a fraction or an exponent, so the two cannot be confused. The members that
every sample of the stream shares (its key, report, time and ts) are left out and come back in `document`, byte for
byte as published: a sample whose members stand in another order than usual keeps that order in the column "".
"""

import zlib
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import sub
from typing import Any

import msgspec

from oneweb_bridge.encoding import encode, rfc3339

DAY_MS = 86_400_000
LEVEL = 6
"""Of zlib: higher ones take longer and save nothing here."""
CORRECTED = "corrected"
USAGE = "usage"
MARKS = ("cycle_started", CORRECTED)
"""Members that say something about a sample and are no values of it; they stand at its end."""
_ORDERS = ""
_KEYS = {"terminal": "imei", "product": "product_id", USAGE: "bucket_id"}


_decode_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_offsets = msgspec.json.Decoder(list[int]).decode
_decode_values = msgspec.json.Decoder(list[Any]).decode
_decode_orders = msgspec.json.Decoder(dict[str, list[str]]).decode


class ChunkError(ValueError):
    """A chunk cannot be read."""


class StreamKey(msgspec.Struct, frozen=True, order=True):
    """A report of one terminal or product, or a usage bucket: entity and report are `usage` then, id is the bucket."""

    entity: str
    id: str
    report: str

    @property
    def key_member(self) -> str:
        """The member of its samples that carries the id."""
        return _KEYS.get(self.entity, "id")


class Samples(msgspec.Struct):
    """Samples of one stream by time, as columns as long as `ts`; None where a sample has no such member.

    Times in ms since the epoch, each once. `orders` has the members of those samples, by time, whose order is unusual.
    """

    ts: list[int] = []
    columns: dict[str, list[Any]] = {}
    orders: dict[int, list[str]] = {}

    def between(self, since: int, until: int) -> "Samples":
        """Those with since <= ts < until."""
        if not self.ts or (self.ts[0] >= since and self.ts[-1] < until):
            return self
        kept = [i for i, ts in enumerate(self.ts) if since <= ts < until]
        return self.picked(kept)

    def picked(self, indices: Sequence[int]) -> "Samples":
        """Those at some indices, which grow."""
        ts = [self.ts[i] for i in indices]
        columns = {name: [column[i] for i in indices] for name, column in self.columns.items()}
        return Samples(ts, columns, {t: self.orders[t] for t in ts if t in self.orders} if self.orders else {})

    def values(self, index: int) -> dict[str, Any]:
        """The members of one sample, without key, report, time and ts."""
        return {name: column[index] for name, column in self.columns.items() if column[index] is not None}


# ── from documents and back ────────────────────────────────────────────────────────────────────


def _usual_order(stream: StreamKey, names: Iterable[str]) -> list[str]:
    """The order in which the members of a sample are published."""
    names = list(names)
    if stream.entity != USAGE:
        return [stream.key_member, "report", "time", "ts", *names]
    values, marks = [n for n in names if n not in MARKS], [n for n in names if n in MARKS]
    return [stream.key_member, *values, "time", "ts", *marks]


def document(stream: StreamKey, samples: Samples, index: int) -> bytes:
    """The payload of a sample as it was published."""
    ts, values = samples.ts[index], samples.values(index)
    members = {**values, stream.key_member: stream.id, "report": stream.report, "time": rfc3339(ts), "ts": ts}
    order = samples.orders.get(ts, _usual_order(stream, values))
    return encode({name: members[name] for name in order})


def read_documents(stream: StreamKey, documents: Iterable[tuple[int, bytes]]) -> Samples:
    """The samples of payloads with their times, in the order in which they came: of one time the later counts.

    It is marked as corrected where its values are others than those before.
    """
    rows: dict[int, dict[str, Any]] = {}
    for ts, body in documents:
        members = msgspec.json.decode(body)
        before = rows.get(ts)
        rows[ts] = members if before is None else _corrected(stream, before, members)
    return _from_rows(stream, rows)


def _corrected(stream: StreamKey, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The later of two samples of one time."""
    if CORRECTED not in after and (CORRECTED in before or _values(stream, before) != _values(stream, after)):
        return {**after, CORRECTED: True}
    return after


def _values(stream: StreamKey, members: dict[str, Any]) -> dict[str, Any]:
    shared = (stream.key_member, "report", "time", "ts", CORRECTED)
    return {name: value for name, value in members.items() if name not in shared}


def _from_rows(stream: StreamKey, rows: dict[int, dict[str, Any]]) -> Samples:
    """Columns of whole members by time."""
    times = sorted(rows)
    shapes: dict[tuple[str, ...], list[str]] = {}
    for ts in times:
        shape = tuple(rows[ts])
        if shape not in shapes:
            shapes[shape] = list(_values(stream, dict.fromkeys(shape)))
    names = _column_order(shapes.values())
    if any(CORRECTED in shape for shape in shapes):
        names.append(CORRECTED)
    unusual = {shape for shape in shapes if list(shape) != _usual_order(stream, [n for n in names if n in shape])}
    ordered = [rows[ts] for ts in times]
    columns = {name: [row.get(name) for row in ordered] for name in names}
    orders = {ts: list(rows[ts]) for ts in times if tuple(rows[ts]) in unusual} if unusual else {}
    return Samples(times, columns, orders)


def _column_order(shapes: Iterable[Sequence[str]]) -> list[str]:
    """All names, each behind the one before it in the first shape that has it."""
    order: list[str] = []
    for shape in shapes:
        at = 0
        for name in shape:
            if name not in order:
                order.insert(at, name)
            at = order.index(name) + 1
    return order


def merge(stream: StreamKey, before: Samples, after: Samples) -> Samples:
    """Both by time; where both have one, the later counts, marked as corrected where its values are others."""
    if not before.ts or not after.ts:
        return before if before.ts else after
    rows = _rows(stream, before)
    for ts, members in _rows(stream, after).items():
        rows[ts] = _corrected(stream, rows[ts], members) if ts in rows else members
    return _from_rows(stream, rows)


def _rows(stream: StreamKey, samples: Samples) -> dict[int, dict[str, Any]]:
    """Whole members by time, in their published order; the shared ones without their value."""
    rows = {}
    for i, ts in enumerate(samples.ts):
        values = samples.values(i)
        order = samples.orders.get(ts, _usual_order(stream, values))
        rows[ts] = {name: values.get(name) for name in order}
    return rows


def join(parts: Sequence[Samples]) -> Samples:
    """Parts that follow each other in time, as one, for their values alone: the orders of members are not kept."""
    parts = [part for part in parts if part.ts]
    if len(parts) == 1:
        return parts[0]
    whole = Samples([ts for part in parts for ts in part.ts], {}, {})
    for name in _column_order([list(part.columns) for part in parts]):
        column: list[Any] = []
        for part in parts:
            values = part.columns.get(name)
            column.extend([None] * len(part.ts) if values is None else values)
        whole.columns[name] = column
    return whole


# ── from chunks and back ───────────────────────────────────────────────────────────────────────


def encode_chunk(samples: Samples, day: int) -> bytes:
    """The chunk of a day (days since the epoch) to which all samples belong."""
    begin = day * DAY_MS
    document: dict[str, Any] = {"ts": _differences([ts - begin for ts in samples.ts])}
    for name, column in samples.columns.items():
        document[name] = _differences(column) if _is_integer(column) else column
    if samples.orders:
        document[_ORDERS] = {str(ts - begin): order for ts, order in samples.orders.items()}
    return zlib.compress(encode(document), LEVEL)


def decode_chunk(body: bytes, day: int, names: Iterable[str] | None = None) -> Samples:
    """The samples of a chunk; with `names`, only these columns, for values alone. Raises ChunkError."""
    try:
        parts = _decode_parts(zlib.decompress(body))
        begin = day * DAY_MS
        ts = list(accumulate(_decode_offsets(parts.pop("ts")), initial=begin))[1:]
        orders = _decode_orders(parts.pop(_ORDERS)) if _ORDERS in parts else {}
        wanted = parts if names is None else [name for name in names if name in parts]
        columns = {name: _column(bytes(parts[name])) for name in wanted}
        if any(len(column) != len(ts) for column in columns.values()):
            raise ChunkError("columns of different lengths")
        return Samples(ts, columns, {begin + int(at): order for at, order in orders.items()})
    except (zlib.error, msgspec.DecodeError, msgspec.ValidationError, KeyError, TypeError, ValueError) as error:
        raise ChunkError(str(error)) from None


def _is_integer(column: list[Any]) -> bool:
    """Whether there is nothing but integers, and at least one."""
    types = set(map(type, column))
    return int in types and types <= {int, type(None)}


def _differences(column: list[Any]) -> list[Any]:
    """The first integer, and then what is to be added to the one before; None stays."""
    if None not in column:
        return [*column[:1], *map(sub, column[1:], column)]
    before, differences = 0, []
    for value in column:
        differences.append(None if value is None else value - before)
        before = before if value is None else value
    return differences


def _column(text: bytes) -> list[Any]:
    """The values of a stored column."""
    stored: list[Any] = _decode_values(text)
    # Integers are written without a point, so that those that have one need not be looked at.
    if b"." in text or not _is_integer(stored):
        return stored
    if None not in stored:
        return list(accumulate(stored))
    before, values = 0, []
    for step in stored:
        before += step or 0
        values.append(None if step is None else before)
    return values
