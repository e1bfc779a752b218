"""The table of the fleet: for each terminal a row of its newest values, from records, samples, usage and forecasts.

Rows are kept as they are sent, and read anew where something happened to their terminal. The answer is written piece by
piece: its text is never there as a whole.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec

from oneweb_bridge.encoding import encode
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store.reading import Queries, TerminalParts
from oneweb_bridge.web.payloads import FLEET_COLUMNS, Cell, FleetAnswer

SIGNAL, AVAILABILITY = "signal_quality", "link_availability"
COMPRESSION = 3
"""At 10 000 terminals a third of the time of level 6, and a tenth larger."""
GZIP = 31
"""The parameter `wbits` of zlib for a gzip header, which has no time then."""
SLICE_ROWS = 500
"""Rows that are compressed at a time."""
MAX_ROWS_SINCE = 10_000
MAX_CHANGED = 1000
"""Rows of the journal, and terminals in them, since the answer from before; with more, all is read anew."""
NOT_READ = " {}"
"""The name of a field that is worked out: no member of a document begins with a space."""


class _Terminal(msgspec.Struct, gc=False):
    name: Any = None
    state: Any = None
    last_seen: Any = None
    latitude: Any = None
    longitude: Any = None
    product_ids: list[str] = []


class _Reference(msgspec.Struct, frozen=True, gc=False):
    id: str | None = None
    name: str | None = None


_NOWHERE = _Reference()


class _Relations(msgspec.Struct, gc=False):
    product_ids: list[str] | None = None
    site: _Reference = _NOWHERE
    end_customer: _Reference = _NOWHERE
    distribution_partner: _Reference = _NOWHERE


class _Named(msgspec.Struct, gc=False):
    name: Any = None


class _Bucket(msgspec.Struct, gc=False):
    bucket_id: str | None = None
    product_id: str | None = None
    used_gb: float | None = None
    entitlement_gb: float | None = None
    remaining_unlimited: bool = False
    overage_blocks: Any = None
    used_pct: float | None = msgspec.field(default=None, name=NOT_READ.format("used_pct"))
    """Per cent of the entitlement that is used; None where it is not known, or there is no limit."""

    def __post_init__(self) -> None:
        if self.used_gb is not None and self.entitlement_gb and not self.remaining_unlimited:
            self.used_pct = round(100 * self.used_gb / self.entitlement_gb, 2)


class _Forecast(msgspec.Struct, gc=False):
    status: str | None = None
    exhausted_p50: str | None = None


class _Signal(msgspec.Struct, gc=False):
    sinr_db: Any = None


class _Availability(msgspec.Struct, gc=False):
    link_availability_pct: Any = None


class FleetParts(msgspec.Struct):
    """What belongs to products, by id; the rest is beside its terminal.

    Structs that the garbage collector does not look at: it would go through tens of thousands again and again.
    """

    products: dict[str, Any]
    buckets: dict[str, _Bucket]
    forecasts: dict[str, _Forecast]


class EncodedFleet(msgspec.Struct, frozen=True):
    """The answer as it is sent, and the newest row of the journal that is surely in it."""

    seq: int
    compressed: bytes
    rows: dict[str, bytes]
    """The JSON of each row by its IMEI, which the next answer takes over where nothing happened to the terminal."""

    def decompress(self) -> bytes:
        """The answer for who does not take gzip."""
        return gzip.decompress(self.compressed)


def encode_fleet(queries: Queries, tree: TopicTree, before: EncodedFleet | None = None) -> EncodedFleet:
    """The fleet's answer in its bytes; the one from before while the journal has no row that is not in it.

    Whatever the table shows changes together with a row of the journal. What is committed while it is read may be in
    it, and comes again from `seq` on.
    """
    seq = queries.head()
    if before is not None and before.seq == seq:
        return before
    rows = _read_rows(queries, before)
    compressor = zlib.compressobj(COMPRESSION, zlib.DEFLATED, GZIP)
    parts = [compressor.compress(text) for text in _iter_texts(tree.event_id(seq), rows)]
    return EncodedFleet(seq, b"".join([*parts, compressor.flush()]), rows)


def _iter_texts(seq: str, rows: dict[str, bytes]) -> Iterator[bytes]:
    """The JSON of a `FleetAnswer` in pieces."""
    frame = encode(FleetAnswer(seq=seq, columns=list(FLEET_COLUMNS), rows=[]))
    separator, left = frame[:-2], iter(rows.values())
    while some := list(islice(left, SLICE_ROWS)):
        yield separator + b",".join(some)
        separator = b","
    yield frame[-2:] if rows else frame


def _read_rows(queries: Queries, before: EncodedFleet | None) -> dict[str, bytes]:
    """The rows by IMEI, in its order; those that cannot have changed are taken from the answer before."""
    changed = None if before is None else _changed_terminals(queries, before.seq)
    if before is None or changed is None:
        return dict(_iter_rows(queries, queries.terminals(SIGNAL, AVAILABILITY)))
    if not changed:
        return before.rows
    rows = {imei: row for imei, row in before.rows.items() if imei not in changed}
    rows.update(_iter_rows(queries, queries.terminals(SIGNAL, AVAILABILITY, sorted(changed))))
    return dict(sorted(rows.items()))


def _changed_terminals(queries: Queries, seq: int) -> set[str] | None:
    """The terminals that the journal has rows of behind `seq`; None where any terminal may have changed.

    A product, a bucket or a forecast may be that of any terminal.
    """
    rows = queries.kinds_since(seq, MAX_ROWS_SINCE)
    if rows is None or any(_may_concern_all(entity, what) for entity, _, what in rows):
        return None
    changed = {id for entity, id, _ in rows if entity == "terminal"}
    return changed if len(changed) <= MAX_CHANGED else None


def _may_concern_all(entity: str, what: str) -> bool:
    if entity == "terminal":
        return what in {"usage", "clear", "forecast"}
    # The names of organizations and sites are in the relations of terminals.
    return entity not in {"call", "organization", "site"} and what != "alert"


def _iter_rows(queries: Queries, terminals: Iterable[TerminalParts]) -> Iterator[tuple[str, bytes]]:
    parts = _read_parts(queries)
    terminal = msgspec.json.Decoder(_Terminal).decode
    relations = msgspec.json.Decoder(_Relations).decode
    signal = msgspec.json.Decoder(_Signal).decode
    availability = msgspec.json.Decoder(_Availability).decode
    for each in terminals:
        row = _row(
            each,
            terminal(each.record),
            _NO_RELATIONS if each.relations is None else relations(each.relations),
            (
                None if each.first is None else signal(each.first).sinr_db,
                None if each.second is None else availability(each.second).link_availability_pct,
            ),
            parts,
        )
        yield each.id, encode(row)


def _read_parts(queries: Queries) -> FleetParts:
    named = msgspec.json.Decoder(_Named).decode
    forecast = msgspec.json.Decoder(_Forecast).decode
    return FleetParts(
        products={id: named(doc).name for id, doc in queries.all_records("product")},
        buckets=_fullest_buckets(queries),
        forecasts={id: forecast(doc) for id, doc in queries.all_records("forecast")},
    )


def _fullest_buckets(queries: Queries) -> dict[str, _Bucket]:
    """Of each product the bucket that is used up most; the first where none has a limit."""
    decode = msgspec.json.Decoder(_Bucket).decode
    fullest: dict[str, _Bucket] = {}
    for id, doc in queries.all_records("usage"):
        bucket = decode(doc)
        bucket.bucket_id = id
        if bucket.product_id is None:
            continue
        before = fullest.get(bucket.product_id)
        if before is None or _is_fuller(bucket, before):
            fullest[bucket.product_id] = bucket
    return fullest


def _is_fuller(bucket: _Bucket, other: _Bucket) -> bool:
    return bucket.used_pct is not None and (other.used_pct is None or bucket.used_pct > other.used_pct)


_NO_RELATIONS = _Relations()
_NO_FORECAST = _Forecast()
_NO_BUCKET = _Bucket()


def _row(
    stored: TerminalParts,
    terminal: _Terminal,
    relations: _Relations,
    measured: tuple[Any, Any],
    parts: FleetParts,
) -> tuple[Cell, ...]:
    sinr_db, availability_pct = measured
    product_ids = terminal.product_ids if relations.product_ids is None else relations.product_ids
    bucket = _fullest(product_ids, parts.buckets)
    product_id = bucket.product_id or next(iter(product_ids), None)
    forecast = _NO_FORECAST if bucket.bucket_id is None else parts.forecasts.get(bucket.bucket_id, _NO_FORECAST)
    site, customer, partner = relations.site, relations.end_customer, relations.distribution_partner
    return (
        stored.id,
        terminal.name,
        terminal.state,
        _later(_to_ms(terminal.last_seen), stored.newest_ts),
        sinr_db,
        stored.first_ts,
        availability_pct,
        stored.second_ts,
        bucket.bucket_id,
        bucket.used_pct,
        bucket.overage_blocks,
        forecast.status,
        _to_ms(forecast.exhausted_p50),
        product_id,
        None if product_id is None else parts.products.get(product_id),
        site.id,
        site.name,
        customer.id,
        customer.name,
        partner.id,
        partner.name,
        terminal.latitude,
        terminal.longitude,
    )


def _later(first: int | None, second: int | None) -> int | None:
    return first or second if first is None or second is None else max(first, second)


def _to_ms(text: Any) -> int | None:
    """A time as it is published, in ms; None where a field of that name is mapped to something else."""
    if text is None:
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (TypeError, ValueError):
        return None


def _fullest(product_ids: list[str], buckets: dict[str, _Bucket]) -> _Bucket:
    if len(product_ids) == 1:
        return buckets.get(product_ids[0], _NO_BUCKET)
    fullest = _NO_BUCKET
    for bucket in (buckets[id] for id in product_ids if id in buckets):
        if fullest is _NO_BUCKET or _is_fuller(bucket, fullest):
            fullest = bucket
    return fullest
