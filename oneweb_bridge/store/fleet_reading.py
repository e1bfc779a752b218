"""What the table of the fleet reads of the database: terminals, their newest samples, and what was written since.

Not async, see `reading`. Each method is one statement for some ids.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from oneweb_bridge.store.engine import placeholders

MAX_IDS = 500
"""Ids that one statement names."""
_TERMINALS = """SELECT t.id, t.doc, r.doc FROM record t
    LEFT JOIN record r ON r.kind = 'relations' AND r.id = t.id
    WHERE t.kind = 'terminal'"""
_NEWEST = """SELECT id, report, ts, CASE WHEN report IN (?, ?) THEN doc END
    FROM newest WHERE entity = 'terminal' AND seq > ?"""
# DISTINCT would let SQLite read all records by another index, to have the kinds in order.
_CHANGED_RECORDS = """SELECT kind, CASE WHEN kind IN ('terminal', 'relations') THEN id ELSE '' END
    FROM record WHERE seq > ?"""


class TerminalParts(NamedTuple):
    """The documents of a terminal and its relations; None where there are no relations.

    A tuple, because there are tens of thousands.
    """

    id: str
    record: str
    relations: str | None


class NewestSample(NamedTuple):
    """The newest sample of a terminal and report; its document is None where it was not asked for."""

    id: str
    report: str
    ts: int
    doc: str | None


class ChangedRecords(NamedTuple):
    """Kinds of which some record was written, and the terminals whose record or relations were."""

    kinds: frozenset[str]
    terminals: frozenset[str]


class FleetReader:
    """Part of `Queries`."""

    def __init__(self, iterate: Callable[..., Iterator[Any]]) -> None:
        self._iterate = iterate

    def terminals(self, ids: Sequence[str] | None = None) -> Iterator[TerminalParts]:
        """Terminals with their relations, by id: all, or those of some ids."""
        return itertools.starmap(TerminalParts, self._of_ids(_TERMINALS, "t.id", (), ids, "ORDER BY t.id"))

    def newest_samples(
        self, reports: tuple[str, str], seq: int = 0, ids: Sequence[str] | None = None
    ) -> Iterator[NewestSample]:
        """The newest sample of each terminal and report, of two reports with their documents, in no order.

        Only those that were written behind a row of the journal, and where ids are given those of these.
        """
        return itertools.starmap(NewestSample, self._of_ids(_NEWEST, "id", (*reports, seq), ids))

    def _of_ids(
        self, sql: str, column: str, values: Sequence[Any], ids: Sequence[str] | None, order: str = ""
    ) -> Iterator[Any]:
        if ids is None:
            yield from self._iterate(f"{sql} {order}", values)
        for start in range(0, len(ids or ()), MAX_IDS):
            part = (ids or ())[start : start + MAX_IDS]
            yield from self._iterate(f"{sql} AND {column} IN ({placeholders(part)}) {order}", (*values, *part))

    def changed_records(self, seq: int) -> ChangedRecords:
        """What was written behind a row of the journal. A record that was removed is none of them."""
        rows = list(self._iterate(_CHANGED_RECORDS, (seq,)))
        return ChangedRecords(frozenset(kind for kind, _ in rows), frozenset(id for _, id in rows if id))

    def ids(self, kind: str) -> list[str]:
        """The ids of all records of a kind, in their order."""
        return [id for (id,) in self._iterate("SELECT id FROM record WHERE kind = ? ORDER BY id", (kind,))]

    def ids_without_sample(self, entity: str) -> set[str]:
        """The ids of an entity that have no newest sample of some report, though there were samples of it."""
        return {id for (id,) in self._iterate("SELECT id FROM newest WHERE seq = 0 AND entity = ?", (entity,))}

    def count(self, kind: str) -> int:
        """How many records of a kind there are."""
        (row,) = self._iterate("SELECT count(*) FROM record WHERE kind = ?", (kind,))
        return int(row[0])
