"""What all readers of the journal share: the columns, how a page of rows is read, and how a cursor moves."""

from collections.abc import Sequence
from typing import Any

import msgspec

from oneweb_bridge.model.records import Row
from oneweb_bridge.store.engine import Dialect

PAGE_ROWS = 500
"""Rows read at a time."""
ROW_COLUMNS = "seq, at, entity, id, what, name, ts, body"
"""The columns of a journal row, in the order of `Row`."""
CURSOR = "SELECT coalesce(max(seq), 0) FROM cursor WHERE output = ?"
"""A query: how far an output has got."""
MOVE_CURSOR = """
INSERT INTO cursor (output, seq) VALUES (?, ?)
ON CONFLICT (output) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > cursor.seq
"""
"""Moves the cursor of an output; never back."""


class _PackedRow(msgspec.Struct, gc=False, array_like=True):
    seq: int
    at: int
    entity: str
    id: str
    what: Any
    name: str
    ts: int
    body: str


_unpack = msgspec.json.Decoder(list[_PackedRow]).decode


def select_page(dialect: Dialect, condition: str) -> str:
    """A query for the rows of a page, to be read by `rows_of_page`: those that meet a condition, in their order.

    Its last parameter is how many there are at most.
    """
    page = f"SELECT {ROW_COLUMNS} FROM journal WHERE {condition} ORDER BY seq LIMIT ?"
    if not dialect.packs_pages:
        return page
    return f"SELECT json_group_array(json_array({ROW_COLUMNS.replace('body', dialect.body_text)})) FROM ({page})"


def rows_of_page(dialect: Dialect, fetched: Sequence[Any]) -> list[Row]:
    """The rows that such a query gave."""
    if not dialect.packs_pages:
        return [Row(*row) for row in fetched]
    return [
        Row(row.seq, row.at, row.entity, row.id, row.what, row.name, row.ts, row.body.encode())
        for row in _unpack(fetched[0][0])
    ]
