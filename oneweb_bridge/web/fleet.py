"""The table of the fleet: for each terminal a row of its newest values, from records, samples, usage and forecasts."""

import gzip
from datetime import datetime
from typing import Any

import msgspec

from oneweb_bridge.encoding import encode
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store.reading import Queries
from oneweb_bridge.web.payloads import FLEET_COLUMNS, Cell, FleetAnswer

SIGNAL, AVAILABILITY = "signal_quality", "link_availability"
COMPRESSION = 3
"""At 10 000 terminals a third of the time of level 6, and a tenth larger."""


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

    def used_pct(self) -> float | None:
        """Per cent of the entitlement that is used; None where it is not known, or there is no limit."""
        if self.remaining_unlimited or self.used_gb is None or not self.entitlement_gb:
            return None
        return round(100 * self.used_gb / self.entitlement_gb, 2)


class _Forecast(msgspec.Struct, gc=False):
    status: str | None = None
    exhausted_p50: str | None = None


class _Signal(msgspec.Struct, gc=False):
    sinr_db: Any = None


class _Availability(msgspec.Struct, gc=False):
    link_availability_pct: Any = None


class FleetParts(msgspec.Struct):
    """What the rows are joined from, by id."""

    relations: dict[str, _Relations]
    products: dict[str, Any]
    buckets: dict[str, tuple[float | None, _Bucket]]
    forecasts: dict[str, _Forecast]
    seen: dict[str, int]
    signal: dict[str, tuple[int, Any]]
    availability: dict[str, tuple[int, Any]]


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
    signal, availability = msgspec.json.Decoder(_Signal).decode, msgspec.json.Decoder(_Availability).decode
    return FleetParts(
        relations={id: relations(doc) for id, doc in queries.all_records("relations")},
        products={id: named(doc).name for id, doc in queries.all_records("product")},
        buckets=_fullest_buckets(queries),
        forecasts={id: forecast(doc) for id, doc in queries.all_records("forecast")},
        seen=dict(queries.newest_times()),
        signal={id: (ts, signal(doc).sinr_db) for id, ts, doc in queries.newest_values(SIGNAL)},
        availability={
            id: (ts, availability(doc).link_availability_pct) for id, ts, doc in queries.newest_values(AVAILABILITY)
        },
    )


def _fullest_buckets(queries: Queries) -> dict[str, tuple[float | None, _Bucket]]:
    """Of each product the bucket that is used up most, with its per cent; the first where none has a limit."""
    decode = msgspec.json.Decoder(_Bucket).decode
    fullest: dict[str, tuple[float | None, _Bucket]] = {}
    for id, doc in queries.all_records("usage"):
        bucket = decode(doc)
        bucket.bucket_id = id
        if bucket.product_id is None:
            continue
        before, used_pct = fullest.get(bucket.product_id), bucket.used_pct()
        if before is None or (used_pct is not None and (before[0] is None or used_pct > before[0])):
            fullest[bucket.product_id] = used_pct, bucket
    return fullest


_NO_RELATIONS = _Relations()
_NO_FORECAST = _Forecast()
_NO_USAGE: tuple[float | None, _Bucket] = (None, _Bucket())
_NO_SAMPLE: tuple[int | None, Any] = (None, None)


def _row(imei: str, terminal: _Terminal, parts: FleetParts) -> tuple[Cell, ...]:
    relations = parts.relations.get(imei, _NO_RELATIONS)
    product_ids = terminal.product_ids if relations.product_ids is None else relations.product_ids
    used_pct, bucket = _fullest(product_ids, parts.buckets)
    product_id = bucket.product_id or next(iter(product_ids), None)
    forecast = _NO_FORECAST if bucket.bucket_id is None else parts.forecasts.get(bucket.bucket_id, _NO_FORECAST)
    sinr_ts, sinr = parts.signal.get(imei, _NO_SAMPLE)
    availability_ts, availability = parts.availability.get(imei, _NO_SAMPLE)
    site, customer, partner = relations.site, relations.end_customer, relations.distribution_partner
    # A tuple: ten thousand lists would have the garbage collector look at all of them again and again.
    return (
        imei,
        terminal.name,
        terminal.state,
        _later(_to_ms(terminal.last_seen), parts.seen.get(imei)),
        sinr,
        sinr_ts,
        availability,
        availability_ts,
        bucket.bucket_id,
        used_pct,
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


def _fullest(product_ids: list[str], buckets: dict[str, tuple[float | None, _Bucket]]) -> tuple[float | None, _Bucket]:
    if len(product_ids) == 1:
        return buckets.get(product_ids[0], _NO_USAGE)
    candidates = [buckets[id] for id in product_ids if id in buckets]
    return max(candidates, key=lambda candidate: -1.0 if candidate[0] is None else candidate[0], default=_NO_USAGE)
