"""`oneweb-bridge history`: samples and events from the journal and the trends, for people, spreadsheets and scripts."""

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from oneweb_bridge.clock import SYSTEM
from oneweb_bridge.commands.decode import check_report, parse_every, time_range
from oneweb_bridge.store.places import Place
from oneweb_bridge.trends.items import BinItem, Item, Selection, iter_bins, iter_items
from oneweb_bridge.trends.lines import (
    CSV_BINS_HEAD,
    CSV_HEAD,
    csv_lines,
    csv_lines_of_bins,
    json_line,
    json_line_of_bins,
    table_line,
    table_lines_of_bins,
)
from oneweb_bridge.trends.reading import History, open_history
from oneweb_bridge.trends.series import Span

Form = Literal["table", "csv", "json"]
Progress = Callable[[float], None]
"""Hears which part of the span is read, from 0 to 1."""
MAX_BINS = 500_000
"""More intervals than anybody reads: 2 years have 210 240 of 5 minutes."""
OLDEST_MS = 1_546_300_800_000
"""2019-01-01, before which no sample is believed: see docs/guarantees.md."""
DAY_MS = 86_400_000


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: a terminal or a product, perhaps one report, a span of time, and perhaps intervals of it."""

    imei: str | None = None
    product: str | None = None
    report: str | None = None
    since: str = "24h"
    until: str | None = None
    every: str | None = None

    def selection(self) -> Selection:
        """What it selects. Raises ValueError for a span that is none, and a report that the entity never has."""
        check_report(self.report, "product" if self.imei is None else "terminal")
        span = Span(*time_range(self.since, self.until, SYSTEM.wall()))
        if self.imei is None:
            return Selection("product", self.product or "", span, self.report)
        return Selection("terminal", self.imei, span, self.report)

    def every_ms(self, span: Span) -> int | None:
        """The length of an interval in ms. Raises ValueError for one that is too short for this span."""
        if self.every is None:
            return None
        every = parse_every(self.every)
        known = min(span.until, SYSTEM.now() + DAY_MS) - max(span.since, OLDEST_MS)
        if known > every * MAX_BINS:
            raise ValueError(
                f"every: expected at most {MAX_BINS} intervals, got {known // every}: choose longer ones, "
                "or a shorter span with --since and --until"
            )
        return every


def print_history(
    places: tuple[Place, Place], query: HistoryQuery, form: Form, write: Callable[[str], None], progress: Progress
) -> bool:
    """Writes everything that answers the query, oldest first, without holding it. `places`: of state and trends.

    Returns whether there was anything. Raises ValueError for a query that cannot be answered, UnknownEntity and others
    of StoreError.
    """
    chosen = query.selection()
    every = query.every_ms(chosen.span)
    with open_history(*places) as history:
        history.require_known(chosen.entity, chosen.id)
        if every is None:
            return _write(_until_end(iter_items(history, chosen), history, chosen, progress), _ITEMS[form], write)
        return _write(_until_end(iter_bins(history, chosen, every), history, chosen, progress), _BINS[form], write)


def _until_end(
    items: Iterator[Item] | Iterator[BinItem], history: History, chosen: Selection, progress: Progress
) -> Iterator[Item | BinItem]:
    """The same items; tells how far they are."""
    known = history.known_span(chosen.entity, chosen.id) or chosen.span
    begin, end = max(known.since, chosen.span.since), min(known.until, chosen.span.until)
    for item in items:
        progress(min(1.0, max(0.0, (item.ts - begin) / max(end - begin, 1))))
        yield item


def _write(
    items: Iterator[Item | BinItem], form: tuple[str, Callable[..., object]], write: Callable[[str], None]
) -> bool:
    head, lines_of = form
    is_empty = True
    for item in items:
        is_empty = False
        if head:
            write(head)
            head = ""
        lines = lines_of(item)
        for line in [lines] if isinstance(lines, str) else lines:  # type: ignore[attr-defined]  # a text or several
            write(line)
    return not is_empty


_ITEMS: dict[Form, tuple[str, Callable[..., object]]] = {
    "table": ("", table_line),
    "csv": (CSV_HEAD, csv_lines),
    "json": ("", json_line),
}
_BINS: dict[Form, tuple[str, Callable[..., object]]] = {
    "table": ("", table_lines_of_bins),
    "csv": (CSV_BINS_HEAD, csv_lines_of_bins),
    "json": ("", json_line_of_bins),
}
