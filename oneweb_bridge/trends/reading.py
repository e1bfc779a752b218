"""Reading: the samples of a stream from chunks and journal, merged by time, each once with its newest values.

What is folded comes from the chunks, what is not yet from the journal, so an answer is the same before and after
folding and trimming. Either file alone does: without trends all comes from the journal.

Not async, and for one thread at a time. A read that another thread interrupts raises StoreUnavailable.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.files import is_there, refusal_of
from oneweb_bridge.model.records import Row
from oneweb_bridge.store.errors import StoreDamaged, StoreError, UnknownEntity, named_errors
from oneweb_bridge.store.places import Place
from oneweb_bridge.store.sample_rows import SampleRows, open_sample_rows
from oneweb_bridge.trends.bins import Day, period_of
from oneweb_bridge.trends.chunks import (
    CORRECTED,
    DAY_MS,
    USAGE,
    ChunkError,
    Samples,
    StreamKey,
    decode_chunk,
    join,
    merge,
    read_documents,
)
from oneweb_bridge.trends.file import TrendsFile, open_trends
from oneweb_bridge.trends.series import Series, SeriesQuery, SeriesSource, Span, build_series

PERIOD_SPAN_MS = 7 * DAY_MS
"""Before the end of a span with too few samples to tell their period."""


@contextlib.contextmanager
def open_history(
    database: Place, trends: Place | None, *, rest: Callable[[], None] = lambda: None
) -> Iterator["History"]:
    """The history in the journal of `database` and in `trends`. Raises StoreError where neither can be read.

    Trends that are not there, not wanted (None) or no trends are as empty ones. `rest` is called after each day and
    each bin: it may wait, so that other threads of this process get on with their work.
    """
    with contextlib.ExitStack() as stack:
        file = None if trends is None else _open_if_there(stack, trends)
        try:
            rows = stack.enter_context(open_sample_rows(database))
        except StoreError:
            if file is None:
                raise
            rows = None
        with named_errors():
            yield History(rows, file, rest)


def _open_if_there(stack: contextlib.ExitStack, trends: Place) -> TrendsFile | None:
    if not isinstance(trends, Path):
        return stack.enter_context(open_trends(trends, read_only=True))
    try:
        if not is_there(trends):
            return None
    except OSError as error:
        raise StoreError(f"{trends} cannot be read ({refusal_of(error)}): choose another trends.path") from None
    try:
        with named_errors():
            file = stack.enter_context(open_trends(trends, read_only=True))
            return None if file.is_empty() else file
    except StoreDamaged as error:
        raise StoreError(f"{trends} is damaged ({error}): move it away, or put a backup in its place") from None


class History:
    """Made by `open_history`."""

    def __init__(self, rows: SampleRows | None, file: TrendsFile | None, rest: Callable[[], None]) -> None:
        self._rows = rows
        self._file = file
        self._rest = rest
        self._owners: dict[str, set[str]] = {}
        """Bucket -> ids under which the journal was seen to have rows of it."""

    def interrupt(self) -> None:
        """Ends the read that runs in another thread."""
        for source in (self._rows, self._file):
            if source is not None:
                source.interrupt()

    def streams(self, entity: str, id: str) -> list[StreamKey]:
        """The streams of a terminal or product (those of its buckets too) or of a usage bucket, in a fixed order."""
        streams = set() if self._file is None else set(self._file.streams_of(entity, id))
        if self._rows is not None:
            for owner in self._journal_ids(entity, id):
                below = [StreamKey(*key) for key in self._rows.streams_of(owner)]
                streams.update(below)
                self._note_owner(owner, below)
        own = [s for s in streams if (s.entity, s.id) == (entity, id)]
        buckets = [s for s in streams if s.entity == USAGE and entity == "product"]
        return sorted({*own, *buckets})

    def read_samples(self, stream: StreamKey, span: Span, names: Sequence[str] | None = None) -> Samples:
        """The samples of a span at full resolution, with these columns alone where `names` are given.

        For their values: what `document` needs besides is in `read_days`.
        """
        return join([samples for _, samples in self.read_days(stream, span, names)])

    def read_days(
        self, stream: StreamKey, span: Span, names: Sequence[str] | None = None
    ) -> Iterator[tuple[int, Samples]]:
        """The same, one day (since the epoch) after the other; days without samples are left out."""
        # In this order: what is folded and trimmed after the journal was read is in the chunks that are read then.
        unfolded = self._unfolded(stream, span)
        folded = self._folded(stream, span)
        for day in sorted(unfolded.keys() | folded.keys()):
            body, rows = folded.get(day), unfolded.get(day)
            samples = self._decode(stream, day, body, names if rows is None else None)
            if rows is not None:
                samples = merge(stream, samples, read_documents(stream, rows))
            samples = samples.between(span.since, span.until)
            self._rest()
            if samples.ts:
                yield day, samples

    @staticmethod
    def _decode(stream: StreamKey, day: int, body: bytes | None, names: Sequence[str] | None) -> Samples:
        if body is None:
            return Samples()
        try:
            return decode_chunk(body, day, names)
        except ChunkError as error:
            date = rfc3339(day * DAY_MS)[:10]
            raise StoreError(
                f"the trends of {stream.report} of {stream.id} on {date} cannot be read ({error}): "
                "put a backup of the trends in their place, or ask for other days"
            ) from None

    def last_before(self, stream: StreamKey, moment: int) -> Samples:
        """The newest sample before a moment, or none."""
        days = {(row_ts // DAY_MS) for row_ts in self._last_unfolded(stream, moment)}
        number = None if self._file is None else self._file.find_stream(stream)
        if self._file is not None and number is not None:
            days.update(self._file.last_fine_days(number, (moment - 1) // DAY_MS))
        for day in sorted(days, reverse=True):
            samples = self.read_samples(stream, Span(day * DAY_MS, min(moment, (day + 1) * DAY_MS)))
            if samples.ts:
                return samples.picked([len(samples.ts) - 1])
        return Samples()

    def kept_days(self, stream: StreamKey, span: Span) -> dict[int, dict[str, Day]]:
        """What the days of a span amount to that are not kept at full resolution any more."""
        number = None if self._file is None else self._file.find_stream(stream)
        if self._file is None or number is None:
            return {}
        return dict(self._file.kept_days(number, *span.days()))

    def all_streams(self) -> list[StreamKey]:
        """Every stream, in a fixed order."""
        streams = set() if self._file is None else set(self._file.all_streams())
        return sorted(
            streams.union(() if self._rows is None else (StreamKey(*key) for key in self._rows.all_streams()))
        )

    def all_events(self, span: Span) -> Iterator[Row]:
        """Events, component lists and presence of everybody in the journal, as they came."""
        return iter(()) if self._rows is None else self._rows.all_events(span.since, span.until)

    def sample_span(self) -> Span | None:
        """The span outside of which there is no sample of anybody; None without any."""
        rows = None if self._rows is None else self._rows.sample_span()
        days = None if self._file is None else self._file.fine_span()
        edges = [] if rows is None else [(rows[0], rows[1] + 1)]
        edges += [] if days is None else [(days[0] * DAY_MS, (days[1] + 1) * DAY_MS)]
        return Span(min(a for a, _ in edges), max(b for _, b in edges)) if edges else None

    def read_series(self, query: SeriesQuery) -> Series:
        """The lines of a query: see `build_series`."""
        names = None if query.names is None else [*query.names, CORRECTED]
        samples = self.read_samples(query.stream, query.span, names)
        is_rate = query.show_as == "rate"
        source = SeriesSource(
            samples=samples,
            before=self.last_before(query.stream, query.span.since) if is_rate else Samples(),
            period=self.period(query.stream, query.span, samples),
            kept=self.kept_days(query.stream, query.span),
        )
        return build_series(query, source, self._rest)

    def period(self, stream: StreamKey, span: Span, samples: Samples) -> float | None:
        """The period in ms of the samples of a span; of the 7 days before its end where there are too few."""
        period = period_of(samples.ts)
        if period is None:
            period = period_of(self.read_samples(stream, Span(span.until - PERIOD_SPAN_MS, span.until), ()).ts)
        return period

    def events(self, entity: str, id: str, span: Span) -> Iterator[Row]:
        """Events, component lists and presence of an entity in the journal, by time and then as they came."""
        return iter(()) if self._rows is None else self._rows.events_of(entity, id, span.since, span.until)

    def known_span(self, entity: str, id: str) -> Span | None:
        """The span in which anything is known of an entity; None where nothing is."""
        spans = [] if self._rows is None else [self._rows.span_of(owner) for owner in self._journal_ids(entity, id)]
        edges = [(begin, end + 1) for span in spans if span is not None for begin, end in [span]]
        for stream in [] if self._file is None else self._file.streams_of(entity, id):
            number = self._file.find_stream(stream) if self._file is not None else None
            days = self._file.span_of(number) if self._file is not None and number is not None else None
            edges += [] if days is None else [(days[0] * DAY_MS, (days[1] + 1) * DAY_MS)]
        return Span(min(a for a, _ in edges), max(b for _, b in edges)) if edges else None

    def require_known(self, entity: str, id: str) -> None:
        """Raises UnknownEntity where nothing was ever stored of a terminal, product or bucket, or nothing is left."""
        if self.known_span(entity, id) is None and (self._rows is None or not self._rows.has_record(entity, id)):
            name = "IMEI" if entity == "terminal" else "id"
            raise UnknownEntity(f"nothing is known of a {entity} with the {name} {id[:64]!r}: correct the {name}")

    # ── what is folded, and what is not ────────────────────────────────────────────────────────

    def _journal_ids(self, entity: str, id: str) -> list[str]:
        """The ids under which the journal has rows of an entity: usage stands under its product."""
        if entity != USAGE:
            return [id]
        ids = {id} | self._owners.get(id, set())
        ids |= set() if self._file is None else set(self._file.products_of_bucket(id))
        product = None if self._rows is None else self._rows.product_of_bucket(id)
        return sorted(ids if product is None else ids | {product})

    def _note_owner(self, owner: str, streams: Sequence[StreamKey]) -> None:
        for stream in streams:
            if stream.entity == USAGE:
                self._owners.setdefault(stream.id, set()).add(owner)

    def _unfolded(self, stream: StreamKey, span: Span) -> dict[int, list[tuple[int, bytes]]]:
        """Times and payloads, by day, of the rows of the journal that may be in no chunk."""
        unfolded: dict[int, list[tuple[int, bytes]]] = {}
        if self._rows is None:
            return unfolded
        key = (stream.entity, stream.id, stream.report)
        for id in self._journal_ids(stream.entity, stream.id):
            new, pending = self._positions(id)
            # Those of a day that waits came before the new ones.
            for part, (first, end) in [
                *((span.within(day), (first, new)) for day, first in pending),
                (span, (new, None)),
            ]:
                for ts, body in self._rows.samples_of(key, id, part.since, part.until, seqs=(first, end)):
                    unfolded.setdefault(ts // DAY_MS, []).append((ts, body))
        return unfolded

    def _positions(self, id: str) -> tuple[int, list[tuple[int, int]]]:
        """The first row behind those that were looked through, and the days of an id that wait, with their first."""
        if self._file is None:
            return 0, []
        # Read in this order: what is looked through between the two is then found in the journal.
        scan = self._file.pending.scan()
        pending = self._file.pending.days_of(id)
        is_of_journal = self._rows is not None and scan.journal_id == self._rows.journal_id()
        return (scan.seq + 1, pending) if is_of_journal else (0, [])

    def _last_unfolded(self, stream: StreamKey, moment: int) -> list[int]:
        """The times of the newest row before a moment under each id of a stream, folded or not."""
        if self._rows is None:
            return []
        key = (stream.entity, stream.id, stream.report)
        times = [self._rows.last_before(key, id, moment) for id in self._journal_ids(stream.entity, stream.id)]
        return [ts for ts in times if ts is not None]

    def _folded(self, stream: StreamKey, span: Span) -> dict[int, bytes]:
        """The chunks of a span by day."""
        number = None if self._file is None else self._file.find_stream(stream)
        if self._file is None or number is None:
            return {}
        return dict(self._file.fine(number, *span.days()))
