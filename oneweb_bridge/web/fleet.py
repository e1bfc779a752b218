"""The table of the fleet: for each terminal a row of its newest values, from records, samples, usage and forecasts.

Rows are kept in pieces as they are sent, and a piece is read anew where something was written of what it shows. The
answer is written part by part: its text is never there as a whole.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from oneweb_bridge.encoding import encode
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store.fleet_reading import NewestSample
from oneweb_bridge.store.reading import Queries
from oneweb_bridge.web.fleet_rows import REPORTS, FleetRow, ProductParts, decode_parts, make_row
from oneweb_bridge.web.payloads import FLEET_COLUMNS, FleetAnswer

COMPRESSION = 3
"""At 10 000 terminals a third of the time of level 6, and a tenth larger."""
GZIP = 31
"""The parameter `wbits` of zlib for a gzip header, which has no time then."""
SLICE_ROWS = 500
"""Rows that are compressed at a time."""
FEW = 2000
"""Terminals whose products are read by their ids; for more, all products are read."""
OF_PRODUCTS = ("product", "usage", "forecast")
"""Kinds of records that may be those of any terminal's product."""


class EncodedFleet(msgspec.Struct, frozen=True):
    """The answer as it is sent, and the newest row of the journal that is surely in it."""

    seq: int
    compressed: bytes
    rows: dict[str, FleetRow]
    """The rows by IMEI, in its order."""
    counts: tuple[int, ...]
    """How many records of each kind in `OF_PRODUCTS` there were."""

    def decompress(self) -> bytes:
        """The answer for who does not take gzip."""
        return gzip.decompress(self.compressed)


def encode_fleet(queries: Queries, tree: TopicTree, before: EncodedFleet | None = None) -> EncodedFleet:
    """The fleet's answer in its bytes; the one from before while the journal has no row that is not in it.

    Whatever the table shows is written together with a row of the journal, whose number it carries. What is committed
    while it is read may be in it, and comes again from `seq` on.
    """
    seq = queries.head()
    if before is not None and before.seq == seq:
        return before
    counts = tuple(queries.fleet.count(kind) for kind in OF_PRODUCTS)
    rows = _read_rows(queries) if before is None else _renew_rows(queries, before, counts)
    compressor = zlib.compressobj(COMPRESSION, zlib.DEFLATED, GZIP)
    parts = [compressor.compress(text) for text in _iter_texts(tree.event_id(seq), rows)]
    return EncodedFleet(seq, b"".join([*parts, compressor.flush()]), rows, counts)


def _iter_texts(seq: str, rows: dict[str, FleetRow]) -> Iterator[bytes]:
    """The JSON of a `FleetAnswer` in pieces."""
    frame = encode(FleetAnswer(seq=seq, columns=list(FLEET_COLUMNS), rows=[]))
    separator, left = frame[:-2], iter(rows.values())
    while some := list(islice(left, SLICE_ROWS)):
        yield separator + b",".join([row.text() for row in some])
        separator = b","
    yield frame[-2:] if rows else frame


# ── rows ───────────────────────────────────────────────────────────────────────────────────────


def _read_rows(queries: Queries, imeis: Sequence[str] | None = None) -> dict[str, FleetRow]:
    """The rows by IMEI, in its order: all, or those of some terminals."""
    rows = {each.id: make_row(each) for each in queries.fleet.terminals(imeis)}
    _set_samples(rows, queries.fleet.newest_samples(REPORTS, ids=imeis))
    _set_products(rows, _read_products(queries) if imeis is None else _read_products_of(queries, rows.values()))
    return rows


def _renew_rows(queries: Queries, before: EncodedFleet, counts: tuple[int, ...]) -> dict[str, FleetRow]:
    """The rows of now: those from before, of which only the pieces are made anew that something was written of.

    What was removed carries no number: the ids of terminals and the counts of other records tell it.
    """
    changed = queries.fleet.changed_records(before.seq)
    rows = {
        imei: msgspec.structs.replace(before.rows[imei])
        for imei in queries.fleet.ids("terminal")
        if imei in before.rows
    }
    unknown = changed.terminals - rows.keys()
    if changed.terminals:
        # A terminal that was removed and then listed again has lost its samples, and no number tells that either.
        unknown |= changed.terminals & queries.fleet.ids_without_sample("terminal")
    for each in queries.fleet.terminals(sorted(changed.terminals - unknown)):
        rows[each.id] = rows[each.id].with_record(each)
    unknown |= _set_samples(rows, queries.fleet.newest_samples(REPORTS, before.seq))
    if counts != before.counts or not changed.kinds.isdisjoint(OF_PRODUCTS):
        _set_products(rows, _read_products(queries))
    elif others := {imei: row for imei, row in rows.items() if not row.products}:
        _set_products(others, _read_products_of(queries, others.values()))
    if not unknown:
        return rows
    rows.update(_read_rows(queries, sorted(unknown)))
    return dict(sorted(rows.items()))


def _set_samples(rows: Mapping[str, FleetRow], samples: Iterable[NewestSample]) -> set[str]:
    """Shows samples. Returns the terminals of which all samples have to be read."""
    return {sample.id for sample in samples if (row := rows.get(sample.id)) is not None and not row.set_sample(sample)}


def _set_products(rows: Mapping[str, FleetRow], parts: ProductParts) -> None:
    for row in rows.values():
        row.set_products(parts)


def _read_products(queries: Queries) -> ProductParts:
    return decode_parts(*(queries.all_records(kind) for kind in OF_PRODUCTS))


def _read_products_of(queries: Queries, rows: Iterable[FleetRow]) -> ProductParts:
    """What belongs to the products of some rows."""
    ids = sorted({id for row in rows for id in row.product_ids})
    if len(ids) > FEW:
        return _read_products(queries)
    buckets = queries.buckets_of(ids)
    products, forecasts = queries.records("product", ids), queries.records("forecast", buckets)
    return decode_parts(products.items(), sorted(buckets.items()), forecasts.items())
