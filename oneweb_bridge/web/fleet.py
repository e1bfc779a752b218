"""The table of the fleet: for each terminal a row of its newest values, from records, samples, usage and forecasts."""

import gzip
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from oneweb_bridge.encoding import encode
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store.reading import Queries
from oneweb_bridge.web.payloads import FLEET_COLUMNS, Cell, FleetAnswer

SIGNAL, AVAILABILITY = "signal_quality", "link_availability"
COMPRESSION = 3
"""At 10 000 terminals a third of the time of level 6, and a tenth larger."""
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
    at: int | None = msgspec.field(default=None, name=NOT_READ.format("at"))


class _Availability(msgspec.Struct, gc=False):
    link_availability_pct: Any = None
    at: int | None = msgspec.field(default=None, name=NOT_READ.format("at"))


class FleetParts(msgspec.Struct):
    """What the rows are joined from, by id.

    Structs that the garbage collector does not look at: it would go through tens of thousands again and again.
    """

    relations: dict[str, _Relations]
    products: dict[str, Any]
    buckets: dict[str, _Bucket]
    forecasts: dict[str, _Forecast]
    seen: dict[str, int]
    signal: dict[str, _Signal]
    availability: dict[str, _Availability]


class EncodedFleet(msgspec.Struct, frozen=True):
    """The answer as it is sent, plain and compressed, and the newest row of the journal that is surely in it."""

    seq: int
    body: bytes
    compressed: bytes


def encode_fleet(queries: Queries, tree: TopicTree, before: EncodedFleet | None = None) -> EncodedFleet:
    """The fleet's answer in its bytes; the one from before while the journal has no row that is not in it.

    Whatever the table shows changes together with a row of the journal.
    """
    seq = queries.head()
    if before is not None and before.seq == seq:
        return before
    body = encode(read_fleet(queries, tree))
    return EncodedFleet(seq, body, gzip.compress(body, COMPRESSION, mtime=0))


def read_fleet(queries: Queries, tree: TopicTree) -> FleetAnswer:
    """The fleet's table. What is committed while it is read may be in it, and comes again from `seq` on."""
    seq = tree.event_id(queries.head())
    parts = _read_parts(queries)
    decode = msgspec.json.Decoder(_Terminal).decode
    rows = [_row(imei, decode(doc), parts) for imei, doc in queries.all_records("terminal")]
    return FleetAnswer(seq=seq, columns=list(FLEET_COLUMNS), rows=rows)


def _read_parts(queries: Queries) -> FleetParts:
    relations = msgspec.json.Decoder(_Relations).decode
    named = msgspec.json.Decoder(_Named).decode
    forecast = msgspec.json.Decoder(_Forecast).decode
    return FleetParts(
        relations={id: relations(doc) for id, doc in queries.all_records("relations")},
        products={id: named(doc).name for id, doc in queries.all_records("product")},
        buckets=_fullest_buckets(queries),
        forecasts={id: forecast(doc) for id, doc in queries.all_records("forecast")},
        seen=dict(queries.newest_times()),
        signal=_newest(queries, SIGNAL, _Signal),
        availability=_newest(queries, AVAILABILITY, _Availability),
    )


_Sample = TypeVar("_Sample", _Signal, _Availability)


def _newest(queries: Queries, report: str, form: type[_Sample]) -> dict[str, _Sample]:
    """The newest sample of a report of each id, with its time."""
    decode = msgspec.json.Decoder(form).decode
    samples: dict[str, _Sample] = {}
    for id, ts, doc in queries.newest_values(report):
        samples[id] = sample = decode(doc)
        sample.at = ts
    return samples


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
_NO_SIGNAL, _NO_AVAILABILITY = _Signal(), _Availability()


def _row(imei: str, terminal: _Terminal, parts: FleetParts) -> tuple[Cell, ...]:
    relations = parts.relations.get(imei, _NO_RELATIONS)
    product_ids = terminal.product_ids if relations.product_ids is None else relations.product_ids
    bucket = _fullest(product_ids, parts.buckets)
    product_id = bucket.product_id or next(iter(product_ids), None)
    forecast = _NO_FORECAST if bucket.bucket_id is None else parts.forecasts.get(bucket.bucket_id, _NO_FORECAST)
    signal = parts.signal.get(imei, _NO_SIGNAL)
    availability = parts.availability.get(imei, _NO_AVAILABILITY)
    site, customer, partner = relations.site, relations.end_customer, relations.distribution_partner
    return (
        imei,
        terminal.name,
        terminal.state,
        _later(_to_ms(terminal.last_seen), parts.seen.get(imei)),
        signal.sinr_db,
        signal.at,
        availability.link_availability_pct,
        availability.at,
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
