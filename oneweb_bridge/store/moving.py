"""A whole state on its way from one engine to the other: every table of it, in slices of bounded size.

Which tables there are is read from the schemas of the files, so that a new one cannot be left behind.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

SLICE_ROWS = 500
"""Rows in memory at a time: a chunk of the trends may have tens of kB."""
META = "meta"
"""The table that each file has; PostgreSQL has one for both."""

Row = Sequence[Any]
Rows = AsyncGenerator[list[Row], None]
"""The rows of a table in slices."""
Progress = Callable[[float], None]
"""Is called with which part of the rows is moved, from 0 to 1."""


class Table(msgspec.Struct, frozen=True):
    """A table with its columns and its primary key, by which it is read in order."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


class Source(Protocol):
    """A state that is read, and that nobody else works with meanwhile. Raises StoreError."""

    async def count(self, table: Table) -> int:
        """How many rows a table has."""

    def rows(self, table: Table) -> Rows:
        """The rows of a table, by its key, as SQLite holds them."""

    async def counters(self) -> Mapping[str, int]:
        """Tables whose numbers are never used again, with the last one that was given."""


class Target(Protocol):
    """An empty state that is written, and that is there as a whole only when it is complete. Raises StoreError."""

    async def write(self, table: Table, rows: Rows) -> None:
        """Writes the rows of a table."""

    async def write_counters(self, counters: Mapping[str, int]) -> None:
        """Notes the last number of each table, after all rows."""


async def move_tables(
    source: Source, target: Target, tables: Sequence[Table], progress: Progress | None = None
) -> dict[str, int]:
    """Writes all rows of the source to the target. Returns how many each table has."""
    total = sum([await source.count(table) for table in tables]) if progress is not None else 0
    counts = dict.fromkeys((table.name for table in tables), 0)

    async def counted(table: Table) -> Rows:
        async with contextlib.aclosing(source.rows(table)) as slices:
            async for rows in slices:
                counts[table.name] += len(rows)
                yield rows
                if progress is not None:
                    progress(min(1.0, sum(counts.values()) / max(1, total)))

    for table in tables:
        async with contextlib.aclosing(counted(table)) as rows:
            await target.write(table, rows)
    await target.write_counters(await source.counters())
    return counts
