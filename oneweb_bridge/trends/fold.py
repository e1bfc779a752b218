"""Folding: samples go from the journal into chunks, a day of 200 ids in one transaction.

First the new rows of the journal are looked through, each once, for the days and ids that they are of; these are then
pending until their chunks are written. A day is folded when it is over for three hours by the API's clock, because
reports are late; at once where the journal is too short to wait, and where a row is about to be trimmed. What comes
for a day that is folded makes it pending again, so late and corrected samples end at their place.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Event

import msgspec

from oneweb_bridge.encoding import encode
from oneweb_bridge.files import is_there, refusal_of
from oneweb_bridge.store.errors import StoreDamaged, StoreError, StoreUnavailable, named_errors
from oneweb_bridge.store.places import Place
from oneweb_bridge.store.sample_rows import SampleRows, open_sample_rows
from oneweb_bridge.trends.bins import summarize_day
from oneweb_bridge.trends.chunks import (
    DAY_MS,
    USAGE,
    ChunkError,
    Samples,
    StreamKey,
    decode_chunk,
    encode_chunk,
    merge,
    read_documents,
)
from oneweb_bridge.trends.file import TrendsFile, open_trends
from oneweb_bridge.trends.pending import Chunk, Scan

SLICE_IDS = 200
"""Ids folded in one transaction."""
SCAN_ROWS = 50_000
"""Rows of the journal looked through in one statement."""
SETTLE_MS = 3 * 3_600_000
"""How long a day must be over before it is folded."""
SHORT_JOURNAL_MS = 36 * 3_600_000
"""Where the oldest row is younger, days are folded before they are over."""
MAX_DAY = 1 << 40
"""Later than any day."""
DAMAGED_SUFFIX = ".damaged"


class FoldRules(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept: `keep` and `keep_daily` in seconds, `max_size` in bytes; report -> its counters."""

    keep: float
    keep_daily: float
    max_size: int
    counters: Mapping[str, frozenset[str]] = {}

    def counters_of(self, stream: StreamKey) -> frozenset[str]:
        """The indicators of a stream that are counters."""
        return self.counters.get(stream.report, frozenset())


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """When a pass runs: `api` in ms by the API's clock, `steady` in steady ms, as the journal's rows are dated.

    Everything up to the row `through` is folded, whether its day is over or not.
    """

    api: int
    steady: int
    through: int = 0


class Outcome(msgspec.Struct, kw_only=True):
    """What a pass did: up to which row every sample is in a chunk, and what an operator should know."""

    folded_through: int = 0
    ids: int = 0
    unreadable: int = 0
    """Chunks that could not be read and were made again from the rows of the journal."""
    lost: str = ""
    """Why the trends begin again; empty where they did not."""
    error: str = ""
    """Why the pass ended before its time; empty where it did not."""


def fold_trends(
    database: Place, trends: Place, rules: FoldRules, moment: Moment, *, is_known: bool, stop: Event
) -> Outcome:
    """One pass, until all is folded or `stop` is set. Never raises for what is wrong with the trends' file.

    A damaged file is moved away and made again from what the journal has. `is_known`: samples were folded before.
    """
    outcome = Outcome()
    try:
        if is_known and isinstance(trends, Path) and not is_there(trends):
            outcome.lost = f"{trends} is gone"
        try:
            _run_pass(database, trends, rules, moment, outcome, stop)
        except StoreDamaged as error:
            if not isinstance(trends, Path):
                raise
            outcome.lost = f"{trends} is damaged ({error}) and was moved to {_move_away(trends).name}"
            _run_pass(database, trends, rules, moment, outcome, stop)
    except (StoreUnavailable, StoreDamaged, StoreError) as error:
        outcome.error = str(error)
    except OSError as error:
        outcome.error = f"{trends} cannot be used: {refusal_of(error)}"
    return outcome


def _move_away(trends: Path) -> Path:
    """Makes room for a new file. The damaged one stays, for people; its log is of no use without it."""
    target = trends.with_name(trends.name + DAMAGED_SUFFIX)
    trends.replace(target)
    for suffix in ("-wal", "-shm"):
        trends.with_name(trends.name + suffix).unlink(missing_ok=True)
    return target


def _run_pass(database: Place, trends: Place, rules: FoldRules, moment: Moment, outcome: Outcome, stop: Event) -> None:  # noqa: PLR0917 -- as fold_trends
    with named_errors(), open_trends(trends) as file, open_sample_rows(database) as rows:
        folding = FoldingPass(rows, file, moment, outcome)
        while not stop.is_set() and folding.scan_rows():
            pass
        while not stop.is_set() and folding.fold_slice():
            pass
        outcome.folded_through = file.pending.folded_through()
        if not stop.is_set():
            trim_trends(file, rules, moment.api // DAY_MS)


class FoldingPass:
    """One pass over open files. Each method is one step, after which a kill loses nothing."""

    def __init__(self, rows: SampleRows, file: TrendsFile, moment: Moment, outcome: Outcome) -> None:
        self._rows = rows
        self._file = file
        self._moment = moment
        self._outcome = outcome

    def scan_rows(self) -> bool:
        """Looks through the next rows of the journal. Returns whether there are more."""
        rows, scan = self._rows, self._file.pending.scan()
        journal_id, head, oldest = rows.journal_id(), rows.head(), rows.oldest()
        if scan.journal_id != journal_id or scan.seq > head:
            # Numbers of another journal mean other rows: all are looked through again, which folds nothing twice.
            scan = Scan(journal_id)
        elif scan.seq == head:
            return False
        after = max(scan.seq, head if oldest is None else oldest[0] - 1)
        through = min(head, after + SCAN_ROWS)
        self._file.pending.note(rows.find_new_days(after, through), Scan(journal_id, through))
        return through < head

    def fold_slice(self) -> bool:
        """Folds a day of some ids. Returns whether there was one left to fold."""
        day, first_rows = self._file.pending.next_day(self._first_open_day(), self._moment.through, SLICE_IDS)
        if not first_rows:
            return False
        documents: dict[tuple[str, str, str], list[tuple[int, bytes]]] = {}
        for entity, id, report, ts, body in self._rows.samples_of_day(day, first_rows):
            documents.setdefault((entity, id, report), []).append((ts, body))
        streams = {StreamKey(*key): payloads for key, payloads in documents.items()}
        before = self._file.fine_of_day(day, list(streams))
        chunks = []
        for stream, payloads in streams.items():
            samples = _decode_or_count(before.get(stream), day, self._outcome)
            chunks.append(make_chunk(stream, day, samples, payloads))
        self._file.pending.write_day(day, list(first_rows), chunks)
        self._outcome.ids += len(first_rows)
        return True

    def _first_open_day(self) -> int:
        """The day (since the epoch) before which all days are folded."""
        oldest = self._rows.oldest()
        if oldest is not None and self._moment.steady - oldest[1] < SHORT_JOURNAL_MS:
            return MAX_DAY
        return (self._moment.api - SETTLE_MS) // DAY_MS


def _decode_or_count(body: bytes | None, day: int, outcome: Outcome) -> Samples:
    if body is None:
        return Samples()
    try:
        return decode_chunk(body, day)
    except ChunkError:
        outcome.unreadable += 1
        return Samples()


def make_chunk(stream: StreamKey, day: int, before: Samples, documents: Iterable[tuple[int, bytes]]) -> Chunk:
    """The chunk of a day: what was in it before, and the payloads that came since."""
    samples = merge(stream, before, read_documents(stream, documents))
    products = _products(samples) if stream.entity == USAGE else ()
    return Chunk(stream, encode_chunk(samples, day), products)


def _products(samples: Samples) -> tuple[str, ...]:
    products: Sequence[object] = samples.columns.get("product_id", [])
    return tuple(sorted({product for product in products if isinstance(product, str)}))


def trim_trends(file: TrendsFile, rules: FoldRules, today: int) -> None:
    """Brings the file within its bounds: old chunks become what their day amounts to, and old days go.

    While the file is too large, the oldest chunks go the same way, whatever their age.
    """
    while _summarize_oldest(file, rules, today - int(rules.keep // 86_400)):
        pass
    while file.delete_days(today - int(rules.keep_daily // 86_400)):
        pass
    while file.used_bytes() > rules.max_size:
        days = file.fine_span()
        if days is None or not _summarize_oldest(file, rules, days[0] + 1):
            return


def _summarize_oldest(file: TrendsFile, rules: FoldRules, before_day: int) -> bool:
    """Replaces some chunks of days before a day, oldest first. Returns whether there were any."""
    chunks = file.oldest_fine(before_day)
    summaries = []
    for number, stream, day, body in chunks:
        try:
            samples = decode_chunk(body, day)
        except ChunkError:
            # It was told when it was found; what cannot be read has nothing to keep.
            samples = Samples()
        summary = summarize_day(samples.ts, samples.columns, rules.counters_of(stream))
        summaries.append((number, day, zlib.compress(encode(summary)) if summary else None))
    file.replace_fine(summaries)
    return bool(chunks)
