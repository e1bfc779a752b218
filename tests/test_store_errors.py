"""What is wrong with the database is told by errors of the store's own, named by what follows from them."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from oneweb_bridge.store import journal, store
from oneweb_bridge.store.errors import StoreDamaged, StoreUnavailable, named_errors
from tests.test_store import batch_of


async def test_full_disk_makes_the_store_unavailable_until_there_is_room(tmp_path: Path) -> None:
    """What cannot be written is an error that says to try again, and nothing of it is stored."""
    path = tmp_path / "bridge.db"
    async with store.open_store(path) as db, journal.open_journal(path, "mqtt") as rows:
        await db._connections._writer.fetch_all("PRAGMA max_page_count = 1")
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await db.commit(batch_of("a" * 100_000, 9))
        assert "disk is full" in (db.write_error or "")
        assert await rows.after(0) == []
        await db._connections._writer.fetch_all("PRAGMA max_page_count = 1000000")
        await db.commit(batch_of("a", 1))
        assert (db.write_error, len(await rows.after(0))) == (None, 1)


async def test_locked_database_makes_a_journal_unavailable(tmp_path: Path) -> None:
    """A cursor that cannot be written now is no error of SQLite's, but one that says to try again."""
    path = tmp_path / "bridge.db"
    async with store.open_store(path), journal.open_journal(path, "mqtt") as rows:
        await rows._cursor_connection.fetch_all("PRAGMA busy_timeout = 0")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="locked"):
                await rows.advance(1)
        await rows.advance(1)
        assert await rows.cursor() == 1


async def test_damaged_page_is_told_from_a_disk_that_fails_for_a_while(tmp_path: Path) -> None:
    """After a damaged file nothing is to be tried again."""
    path = tmp_path / "bridge.db"
    async with store.open_store(path) as db:
        for number in range(50):
            await db.commit(batch_of(f"{number}" * 100, 9))
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = raw.execute("PRAGMA page_size").fetchone()[0]
        root = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'journal'").fetchone()[0]
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    async with journal.open_journal(path, "mqtt") as rows:
        with pytest.raises(StoreDamaged, match="malformed"):
            await rows.after(0)


def test_error_of_a_statement_keeps_its_name() -> None:
    """A constraint that is broken is a mistake of this program, and no state of the disk."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        db.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(sqlite3.IntegrityError), named_errors():
            db.execute("INSERT INTO t VALUES (1)")
