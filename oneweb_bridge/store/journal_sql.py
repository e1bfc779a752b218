"""What all readers of the journal share: how many rows they read at a time, the columns, and how a cursor moves."""

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
