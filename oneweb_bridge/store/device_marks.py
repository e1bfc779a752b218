"""Marks devices dirty in the table `discovery`, for who writes records and for who sends devices."""

MARK_DIRTY = """
INSERT INTO discovery (kind, id, marked_at) VALUES (?, ?, ?)
ON CONFLICT (kind, id) DO UPDATE SET mark = discovery.mark + 1,
marked_at = CASE WHEN discovery.mark = discovery.done THEN excluded.marked_at ELSE discovery.marked_at END
"""
"""Marks a device as one that may have changed; the time is that of the first mark since it was sent."""
