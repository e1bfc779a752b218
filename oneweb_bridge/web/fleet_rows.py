"""Rows of the fleet's table: what stands in their cells, in four pieces of JSON that can be made anew one by one."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from oneweb_bridge.encoding import encode
from oneweb_bridge.store.fleet_reading import NewestSample, TerminalParts
from oneweb_bridge.web.payloads import Cell

SIGNAL, AVAILABILITY = "signal_quality", "link_availability"
REPORTS = (SIGNAL, AVAILABILITY)
"""Reports of which the table shows a value."""
NOT_READ = " {}"
"""The name of a field that is worked out: no member of a document begins with a space."""


class _Terminal(msgspec.Struct, gc=False):
    name: Any = None
    state: Any = None
    last_seen: Any = None
    latitude: Any = None
    longitude: Any = None
    product_ids: tuple[str, ...] = ()


class _Reference(msgspec.Struct, frozen=True, gc=False):
    id: str | None = None
    name: str | None = None


_NOWHERE = _Reference()


class _Relations(msgspec.Struct, gc=False):
    product_ids: tuple[str, ...] | None = None
    site: _Reference = _NOWHERE
    end_customer: _Reference = _NOWHERE
    distribution_partner: _Reference = _NOWHERE


class _Named(msgspec.Struct, gc=False):
    name: Any = None


class Bucket(msgspec.Struct, gc=False):
    """What the table shows of a usage bucket."""

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


class Forecast(msgspec.Struct, gc=False):
    """What the table shows of a forecast."""

    status: str | None = None
    exhausted_p50: str | None = None


class _Signal(msgspec.Struct, gc=False):
    sinr_db: Any = None


class _Availability(msgspec.Struct, gc=False):
    link_availability_pct: Any = None


_decode_terminal = msgspec.json.Decoder(_Terminal).decode
_decode_relations = msgspec.json.Decoder(_Relations).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_decode_bucket = msgspec.json.Decoder(Bucket).decode
_decode_forecast = msgspec.json.Decoder(Forecast).decode
_decode_signal = msgspec.json.Decoder(_Signal).decode
_decode_availability = msgspec.json.Decoder(_Availability).decode
_NO_RELATIONS = _Relations()
_NO_FORECAST = Forecast()
_NO_BUCKET = Bucket()


class ProductParts(msgspec.Struct):
    """What belongs to products: names and the fullest buckets by product id, forecasts by bucket id.

    Structs that the garbage collector does not look at: it would go through tens of thousands again and again.
    """

    names: dict[str, Any]
    buckets: dict[str, Bucket]
    forecasts: dict[str, Forecast]


class FleetRow(msgspec.Struct, gc=False, kw_only=True):
    """A row, in pieces of JSON, and what some of them are made of: the ids of products, and times in ms.

    `newest_report` is the report that has the newest sample.
    """

    product_ids: tuple[str, ...]
    last_seen: int | None
    newest_ts: int | None = None
    newest_report: str = ""
    head: bytes
    signal: bytes = b"null,null"
    availability: bytes = b"null,null"
    products: bytes = b""
    place: bytes

    def with_record(self, stored: TerminalParts) -> "FleetRow":
        """The row with another record and relations; without what belongs to its products where these are others."""
        row = make_row(stored)
        row.newest_ts, row.newest_report = self.newest_ts, self.newest_report
        row.signal, row.availability = self.signal, self.availability
        if row.product_ids == self.product_ids:
            row.products = self.products
        return row

    def set_products(self, parts: ProductParts) -> None:
        """Shows what is known of its products now."""
        self.products = _encode_products(self.product_ids, parts)

    def set_sample(self, sample: NewestSample) -> bool:
        """Shows a newer sample. Returns false where all of its samples have to be known instead.

        That is where the report that had the newest one of all has an older one now, as after a wrong clock.
        """
        if self.newest_ts is None or sample.ts >= self.newest_ts:
            self.newest_ts, self.newest_report = sample.ts, sample.report
        elif sample.report == self.newest_report:
            return False
        if sample.doc is None:
            return True
        if sample.report == SIGNAL:
            self.signal = _encode_cells((_decode_signal(sample.doc).sinr_db, sample.ts))
        else:
            self.availability = _encode_cells((_decode_availability(sample.doc).link_availability_pct, sample.ts))
        return True

    def text(self) -> bytes:
        """Its JSON."""
        seen = _later(self.last_seen, self.newest_ts)
        return b"[%b,%b,%b,%b,%b,%b]" % (
            self.head,
            b"null" if seen is None else b"%d" % seen,
            self.signal,
            self.availability,
            self.products,
            self.place,
        )


def make_row(stored: TerminalParts) -> FleetRow:
    """The row of a terminal, still without its samples and what belongs to its products."""
    terminal = _decode_terminal(stored.record)
    relations = _NO_RELATIONS if stored.relations is None else _decode_relations(stored.relations)
    product_ids = terminal.product_ids if relations.product_ids is None else relations.product_ids
    site, customer, partner = relations.site, relations.end_customer, relations.distribution_partner
    place = (
        site.id,
        site.name,
        customer.id,
        customer.name,
        partner.id,
        partner.name,
        terminal.latitude,
        terminal.longitude,
        " ".join(product_ids) if len(product_ids) > 1 else None,
    )
    return FleetRow(
        product_ids=product_ids,
        last_seen=_to_ms(terminal.last_seen),
        head=_encode_cells((stored.id, terminal.name, terminal.state)),
        place=_encode_cells(place),
    )


def _encode_products(product_ids: tuple[str, ...], parts: ProductParts) -> bytes:
    bucket = _fullest(product_ids, parts.buckets)
    product_id = bucket.product_id or next(iter(product_ids), None)
    forecast = _NO_FORECAST if bucket.bucket_id is None else parts.forecasts.get(bucket.bucket_id, _NO_FORECAST)
    return _encode_cells(
        (
            bucket.bucket_id,
            bucket.used_pct,
            bucket.overage_blocks,
            forecast.status,
            _to_ms(forecast.exhausted_p50),
            product_id,
            None if product_id is None else parts.names.get(product_id),
        )
    )


def _encode_cells(cells: tuple[Cell, ...]) -> bytes:
    """The JSON of some cells, without brackets."""
    return encode(cells)[1:-1]


def decode_parts(
    products: Iterable[tuple[str, str]], buckets: Iterable[tuple[str, str]], forecasts: Iterable[tuple[str, str]]
) -> ProductParts:
    """What belongs to products, from ids and documents in the order of their ids."""
    return ProductParts(
        names={id: _decode_named(doc).name for id, doc in products},
        buckets=_fullest_by_product(buckets),
        forecasts={id: _decode_forecast(doc) for id, doc in forecasts},
    )


def _fullest_by_product(documents: Iterable[tuple[str, str]]) -> dict[str, Bucket]:
    """Of each product the bucket that is used up most; the first where none has a limit."""
    fullest: dict[str, Bucket] = {}
    for id, doc in documents:
        bucket = _decode_bucket(doc)
        bucket.bucket_id = id
        if bucket.product_id is None:
            continue
        before = fullest.get(bucket.product_id)
        if before is None or _is_fuller(bucket, before):
            fullest[bucket.product_id] = bucket
    return fullest


def _is_fuller(bucket: Bucket, other: Bucket) -> bool:
    return bucket.used_pct is not None and (other.used_pct is None or bucket.used_pct > other.used_pct)


def _fullest(product_ids: tuple[str, ...], buckets: Mapping[str, Bucket]) -> Bucket:
    if len(product_ids) == 1:
        return buckets.get(product_ids[0], _NO_BUCKET)
    fullest = _NO_BUCKET
    for bucket in (buckets[id] for id in product_ids if id in buckets):
        if fullest is _NO_BUCKET or _is_fuller(bucket, fullest):
            fullest = bucket
    return fullest


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
