"""What `history` and `replay` show of a span: samples and events by time, each sample once with its newest values.

Samples and events of the same ms: samples first, in the order of the catalogue, then events as they came; so the order
is the same before and after folding.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import groupby

import msgspec

from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Row
from oneweb_bridge.trends.bins import Bin, combine, is_numeric, summarize
from oneweb_bridge.trends.chunks import CORRECTED, DAY_MS, USAGE, Samples, StreamKey, document
from oneweb_bridge.trends.reading import History
from oneweb_bridge.trends.series import Span

PRESENCE = "presence"
_EVENTS_RANK = 1 << 20
_RANKS = {call.report: rank for rank, call in enumerate(CALLS.values()) if call.report} | {USAGE: _EVENTS_RANK - 1}


class Item(msgspec.Struct, frozen=True):
    """A sample or an event: `kind` is the report, `usage`, `added`, `changed` or `removed`.

    `id` is the one that the journal has it under; `body` what was published of it, of an event its data.
    """

    ts: int
    id: str
    kind: str
    body: bytes
    row: Row


class BinItem(msgspec.Struct, frozen=True):
    """The bins of one report and interval: `ts` is its begin in ms, `every` its length in seconds."""

    ts: int
    id: str
    kind: str
    every: float
    bins: dict[str, Bin]


class Selection(msgspec.Struct, frozen=True):
    """A terminal, product or usage bucket, a span, and one report of it or None for all."""

    entity: str
    id: str
    span: Span
    report: str | None = None

    def shows(self, row: Row) -> bool:
        """Whether usage belongs to it: a bucket may have had other products."""
        return row.what != USAGE or self.entity == USAGE or row.id == self.id


def iter_items(history: History, chosen: Selection) -> Iterator[Item]:
    """Samples and events of a selection by time."""
    sources = [_sample_items(history, stream, chosen) for stream in chosen_streams(history, chosen)]
    if chosen.report in (None, PRESENCE):
        sources.append(_event_items(history, chosen))
    for _, _, _, item in merge(*sources, key=lambda entry: entry[:3]):
        yield item


def chosen_streams(history: History, chosen: Selection) -> list[StreamKey]:
    """The streams of a selection."""
    return [s for s in history.streams(chosen.entity, chosen.id) if chosen.report in (None, s.report)]


_Entry = tuple[int, int, int | str, Item]


def _sample_items(history: History, stream: StreamKey, chosen: Selection) -> Iterator[_Entry]:
    rank = _RANKS.get(stream.report, len(_RANKS))
    for _, samples in history.read_days(stream, chosen.span):
        for index, ts in enumerate(samples.ts):
            row = row_of(stream, samples, index)
            if chosen.shows(row):
                yield ts, rank, 0, Item(ts, row.id, stream.report, row.body, row)


def row_of(stream: StreamKey, samples: Samples, index: int) -> Row:
    """A sample as the journal has it, but for its number."""
    body, ts = document(stream, samples, index), samples.ts[index]
    if stream.entity != USAGE:
        return Row(0, 0, stream.entity, stream.id, "history", stream.report, ts, body)
    product = samples.columns.get("product_id", [None] * len(samples.ts))[index]
    if product is None:
        return Row(0, 0, USAGE, stream.id, "usage", "", ts, body)
    return Row(0, 0, "product", str(product), "usage", stream.id, ts, body)


class _EventBody(msgspec.Struct):
    changed: msgspec.Raw = msgspec.Raw()
    record: msgspec.Raw = msgspec.Raw()


def _event_items(history: History, chosen: Selection) -> Iterator[_Entry]:
    for row in history.events(chosen.entity, chosen.id, chosen.span):
        is_presence = row.what in ("metric", "history")
        if is_presence or (chosen.report is None and is_event(row)):
            kind = row.name if is_presence else "changed" if row.what == "components" else row.what
            yield row.ts, _EVENTS_RANK, row.seq, Item(row.ts, row.id, kind, _event_data(row), row)


def is_event(row: Row) -> bool:
    """Whether a row was published as an event: the first component list of a terminal is none."""
    return row.what != "components" or bool(bytes(msgspec.json.decode(row.body, type=_EventBody).changed))


def _event_data(row: Row) -> bytes:
    """The data of an event as published, without what the row has for the bridge alone."""
    if row.what == "removed":
        return encode({"record": msgspec.json.decode(row.body, type=_EventBody).record})
    if row.what == "components":
        members = msgspec.json.decode(row.body, type=dict[str, msgspec.Raw])
        return encode({name: part for name, part in members.items() if name != "components"})
    return row.body


# ── bins ───────────────────────────────────────────────────────────────────────────────────────


def iter_bins(history: History, chosen: Selection, every_ms: int) -> Iterator[BinItem]:
    """Min, mean, max and count of each indicator that is a number, in intervals of a span, by time.

    Days of which only the summary is kept count where the interval is made of whole days.
    """
    sources = [_bins_of(history, stream, chosen, every_ms) for stream in chosen_streams(history, chosen)]
    for _, _, item in merge(*sources, key=lambda entry: entry[:2]):
        yield item


def _bins_of(
    history: History, stream: StreamKey, chosen: Selection, every_ms: int
) -> Iterator[tuple[int, int, BinItem]]:
    rank = _RANKS.get(stream.report, len(_RANKS))
    parts = merge(
        _fine_parts(history, stream, chosen, every_ms),
        _kept_parts(history, stream, chosen.span, every_ms),
        key=lambda part: part[0],
    )
    for begin, group in groupby(parts, lambda part: part[0]):
        bins = _combined([part for _, part in group])
        if bins:
            yield begin, rank, BinItem(begin, chosen.id, stream.report, every_ms / 1000, bins)


_Part = tuple[int, dict[str, Bin]]


def _fine_parts(history: History, stream: StreamKey, chosen: Selection, every_ms: int) -> Iterator[_Part]:
    """The bins of each day: an interval that is longer than a day, or lies over midnight, has several."""
    for _, whole in history.read_days(stream, chosen.span):
        samples = _shown(whole, stream, chosen)
        columns = {n: c for n, c in samples.columns.items() if n != CORRECTED and is_numeric(c)}
        at = 0
        for begin, group in groupby(samples.ts, lambda ts: ts - ts % every_ms):
            end = at + sum(1 for _ in group)
            bins = {name: summarize(column[at:end]) for name, column in columns.items()}
            yield begin, {name: b for name, b in bins.items() if b is not None}
            at = end


def _shown(samples: Samples, stream: StreamKey, chosen: Selection) -> Samples:
    """The samples of a bucket that belonged to the product asked for."""
    if stream.entity != USAGE or chosen.entity == USAGE:
        return samples
    products = samples.columns.get("product_id", [])
    return samples.picked([i for i, product in enumerate(products) if product == chosen.id])


def _kept_parts(history: History, stream: StreamKey, span: Span, every_ms: int) -> Iterator[_Part]:
    if every_ms % DAY_MS == 0:
        for day, summary in history.kept_days(stream, span).items():
            begin = day * DAY_MS
            yield begin - begin % every_ms, {name: value.bin for name, value in summary.items()}


def _combined(parts: Sequence[dict[str, Bin]]) -> dict[str, Bin]:
    names: Iterable[str] = dict.fromkeys(name for part in parts for name in part)
    bins = {name: combine([part[name] for part in parts if name in part]) for name in names}
    return {name: b for name, b in bins.items() if b is not None}


# ── thinned out ────────────────────────────────────────────────────────────────────────────────


def last_of_each(items: Iterable[Item], every_ms: int) -> Iterator[Item]:
    """The last sample of each report, bucket and interval; events are left out."""
    waiting: dict[tuple[str, str, str], Item] = {}
    for item in items:
        if item.kind in ("added", "changed", "removed"):
            continue
        key = (item.row.entity, item.row.id, item.row.name)
        before = waiting.get(key)
        if before is not None and before.ts // every_ms != item.ts // every_ms:
            yield before
        waiting[key] = item
    yield from sorted(waiting.values(), key=lambda item: item.ts)
