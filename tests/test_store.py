"""The database: whole batches or none, whatever is cancelled, and everything still there after a restart."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from oneweb_bridge.clock import Clock
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import (
    Batch,
    Entry,
    KnownSamples,
    NewestSampleWrite,
    RecordKind,
    RecordWrite,
    SeenSample,
    StoredRecord,
)
from oneweb_bridge.store import database, journal, store
from oneweb_bridge.store.batch_writer import BatchWriter
from oneweb_bridge.store.call_progress import CallProgress
from oneweb_bridge.store.commands import Setting
from oneweb_bridge.store.engine import Transaction
from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.store.places import Place
from oneweb_bridge.store.slices import SLICE
from oneweb_bridge.store.store import Store
from tests.rounds_bridge import made_old
from tests.test_cancellation import cancelled_at_random


def entry(id: str = "T", what: Any = "added", name: str = "") -> Entry:
    return Entry("terminal", id, what, name, 5, b"{}")


def put(id: str, doc: object = None, entry: int | None = None, kind: RecordKind = "terminal") -> RecordWrite:
    return RecordWrite(kind, id, encode({"imei": id} if doc is None else doc), b"kept", entry)


def batch_of(name: str, size: int) -> Batch:
    """A batch of so many records, each with its entry."""
    ids = [f"{name}-{i}" for i in range(size)]
    return Batch(entries=[entry(id) for id in ids], writes=[put(id, entry=i) for i, id in enumerate(ids)])


def sample_batch(ts: int, hash_: int = 7, id: str = "T") -> Batch:
    doc = encode({"ts": ts})
    return Batch(
        entries=[Entry("terminal", id, "metric", "traffic", ts, doc)],
        newest=[NewestSampleWrite("terminal", "traffic", id, ts, hash_, doc, 0)],
        seen=[SeenSample("terminal", "traffic", id, ts, hash_)],
    )


def counted(path: Path, sql: str) -> Any:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchone()[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bridge.db"


# --- whole batches or none ------------------------------------------------------------------------


async def test_commit_stores_records_and_entries_together(place: Place) -> None:
    """A batch's entries are in the journal in their order, and each record knows the row that publishes it."""
    async with (
        store.open_store(place, Clock(lambda: 12.5, lambda: 12.5)) as db,
        journal.open_journal(place, "mqtt") as rows,
    ):
        assert await db.commit(batch_of("a", 3)) == 3
        assert await db.commit(batch_of("b", 2)) == 5
        journal_rows = await rows.after(0)
        assert [(row.seq, row.at, row.id) for row in journal_rows] == [
            (1, 12500, "a-0"),
            (2, 12500, "a-1"),
            (3, 12500, "a-2"),
            (4, 12500, "b-0"),
            (5, 12500, "b-1"),
        ]
        records = await rows.retained.records_between(0, 99)
        assert [(seq, id) for seq, _, id, _ in records] == [(row.seq, row.id) for row in journal_rows]


@pytest.mark.parametrize("seed", range(4))
async def test_cancelled_commits_leave_whole_batches_only(path: Path, seed: int) -> None:
    """Whatever is cancelled at whatever moment, each batch is there as a whole or not at all, and the store goes on."""
    size = 6
    async with store.open_store(path) as db:

        async def write(number: int) -> None:
            await db.commit(batch_of(str(number), size), CallProgress(id=str(number)))

        done = {str(number) for number in await cancelled_at_random(write, 60, seed)}
    with contextlib.closing(sqlite3.connect(path)) as raw:
        rows = [row[0].split("-")[0] for row in raw.execute("SELECT id FROM journal ORDER BY seq")]
        records = [row[0].split("-")[0] for row in raw.execute("SELECT id FROM record ORDER BY seq")]
        memories = {row[0] for row in raw.execute("SELECT id FROM call")}
    assert rows == records
    assert {name: rows.count(name) for name in rows} == dict.fromkeys(memories, size)
    assert done <= memories


async def test_failed_commit_leaves_nothing(place: Place) -> None:
    """A batch that cannot be stored to its end is not stored at all, and the next one is."""
    async with store.open_store(place) as db:
        broken = batch_of("a", 2)
        broken.newest.append(NewestSampleWrite("terminal", "traffic", "T", 1, 2**70, b"{}", 0))
        with db.growth.subscribe() as journal_grew, pytest.raises(OverflowError):
            await db.commit(broken)
        assert not journal_grew.is_set()
        assert await db.records.count("terminal") == 0
        assert await db.commit(batch_of("b", 1)) == 1


async def test_commit_wakes_every_reader_of_the_journal(place: Place) -> None:
    """Each reader is woken by a commit that appends rows, and by no other; clearing its wake-up is its own affair."""
    async with store.open_store(place) as db:
        with db.growth.subscribe() as first, db.growth.subscribe() as second:
            await db.commit(Batch(writes=[put("T")]))
            assert not first.is_set()
            await db.commit(batch_of("a", 1))
            assert first.is_set()
            first.clear()
            assert second.is_set()
        await db.commit(batch_of("b", 1))
        assert not first.is_set()


def test_killed_process_leaves_whole_batches_only(path: Path) -> None:
    """Kill -9 in the middle of a transaction leaves the batches before it, whole."""
    program = f"""
        import asyncio, os
        from pathlib import Path
        from oneweb_bridge.store import store
        from oneweb_bridge.store.batch_writer import BatchWriter
        from oneweb_bridge.store.sqlite import DIALECT
        from tests.test_store import batch_of

        async def main():
            async with store.open_store(Path({str(path)!r})) as db:
                await db.commit(batch_of("a", 5))
                async with db._connections.transaction() as transaction:
                    await BatchWriter(transaction, batch_of("b", 5), DIALECT, now=1, wall_time=1).write()
                    os.kill(os.getpid(), 9)

        asyncio.run(main())
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=60)
    assert ended.returncode == -9
    assert counted(path, "SELECT count(*) FROM journal") == 5
    assert counted(path, "PRAGMA integrity_check") == "ok"


async def test_reads_do_not_see_what_is_uncommitted(place: Place) -> None:
    """While a task writes, others read what was committed before, whether the write then succeeds or fails."""
    async with store.open_store(place) as db:
        await db.commit(batch_of("a", 1))
        async with failing(db) as transaction:
            await BatchWriter(transaction, batch_of("b", 1), db._connections.dialect, now=1, wall_time=1).write()
            assert await db.records.load("terminal", ["b-0"]) == {}
            assert await db.records.count("terminal") == 1
        await db.commit(batch_of("c", 1))
        assert await db.records.count("terminal") == 2


@contextlib.asynccontextmanager
async def failing(db: Store) -> AsyncIterator[Transaction]:
    """A transaction that is rolled back at its end."""
    with contextlib.suppress(InterruptedError):
        async with db._connections.transaction() as transaction:
            yield transaction
            raise InterruptedError


async def test_rollback_of_another_task_keeps_what_is_unstaged_away(place: Place) -> None:
    """Old staged rows do not come back into the next listing because another task's transaction was rolled back."""
    async with store.open_store(place) as db:
        await db.staging.add("x", [(1, "old", b"", b"")])
        async with failing(db):
            await db.staging.clear("x")
        assert await collected(db, "x") == []


async def test_rollback_of_a_page_keeps_what_is_unstaged_away(place: Place) -> None:
    """Nor does it where a page was being staged meanwhile, which then could not be: to unstage waits for that."""
    async with store.open_store(place) as db:
        await db.staging.add("x", [(1, "old", b"", b"")])
        with contextlib.suppress(InterruptedError):
            async with db.staging._db.transaction() as transaction:
                await transaction.execute("DELETE FROM staged WHERE call = 'y'")
                clearing = asyncio.create_task(db.staging.clear("x"))
                # What is read now comes behind a statement that did not wait.
                for _ in range(3):
                    await transaction.fetch_all("SELECT 1")
                raise InterruptedError
        await clearing
        assert await collected(db, "x") == []


@pytest.mark.parametrize("seed", range(2))
async def test_cancelled_staging_leaves_whole_pages_only(place: Place, seed: int) -> None:
    """A page is staged as a whole or not at all, whatever is cancelled."""
    async with store.open_store(place) as db:

        async def stage(number: int) -> None:
            await db.staging.add(f"c{number}", [(at, "a", b"", b"") for at in range(4)])

        done = await cancelled_at_random(stage, 60, seed)
        sizes = {number: len(await collected(db, f"c{number}")) for number in range(181)}
    assert set(sizes.values()) <= {0, 4}
    assert {sizes[number] for number in done} == {4}


# --- opening --------------------------------------------------------------------------------------


async def test_second_bridge_is_refused(path: Path) -> None:
    """A database in use is refused with a sentence, and usable again when the first has gone."""
    async with store.open_store(path):
        with pytest.raises(StoreError, match="in use by another bridge"):
            async with store.open_store(path):
                pass
    async with store.open_store(path) as db:
        await db.commit(batch_of("a", 1))


def test_second_process_is_refused(path: Path) -> None:
    """Also when the other bridge is another process."""
    program = f"""
        import asyncio
        from pathlib import Path
        from oneweb_bridge.store import store
        from oneweb_bridge.store.errors import StoreError

        async def main():
            async with store.open_store(Path({str(path)!r})):
                pass

        try:
            asyncio.run(main())
        except StoreError as error:
            print(error)
    """
    with database.hold_lock(path):
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60, capture_output=True, text=True
        )
    assert "in use by another bridge" in ended.stdout


async def test_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    """A database of a newer program is refused, and not a byte of it is changed."""
    async with store.open_store(path) as db:
        await db.commit(batch_of("a", 1))
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute(f"PRAGMA user_version = {database.VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer oneweb-bridge"):
        async with store.open_store(path):
            pass
    assert path.read_bytes() == before


SCHEMAS = Path(__file__).parent / "schemas"
"""The schema of each version that was published, as it stood then."""


def shape(path: Path) -> dict[str, object]:
    """The tables with their columns, and the indexes, of a database."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        tables = [row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        indexes = sorted(raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'"))
        return {"indexes": indexes, **{name: sorted(row[1:] for row in columns(raw, name)) for name in sorted(tables)}}


def columns(raw: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    return raw.execute(f"PRAGMA table_info({table})").fetchall()


async def test_database_that_is_made_old_is_as_the_first_version(path: Path, tmp_path: Path) -> None:
    """The round that crashes within the migration begins with a database that has something to migrate."""
    async with store.open_store(path):
        pass
    made_old(path)
    with contextlib.closing(sqlite3.connect(tmp_path / "first.db")) as raw:
        raw.executescript((SCHEMAS / "1.sql").read_text())
    assert shape(path) == shape(tmp_path / "first.db")


@pytest.mark.parametrize("version", range(1, database.VERSION))
async def test_older_schema_becomes_the_newest(path: Path, version: int) -> None:
    """A database of each older version is brought to the schema that a new one has, with all that is in it."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.executescript((SCHEMAS / f"{version}.sql").read_text())
        raw.execute("INSERT INTO meta VALUES ('journal', 'abcd')")
        raw.execute("INSERT INTO record (kind, id, doc) VALUES ('site', 's', '{}')")
        raw.execute("INSERT INTO newest (entity, report, id, ts, hash, doc, seq) VALUES ('site','r','s',1,1,'{}',1)")
        raw.execute(f"PRAGMA user_version = {version}")
        raw.commit()
    async with store.open_store(path) as db:
        assert db.journal_id == "abcd"
        assert await db.records.existing_ids("record", "site", ["s"]) == {"s"}
    new = path.with_name("new.db")
    async with store.open_store(new):
        pass
    assert shape(path) == shape(new)


async def test_dropped_rows_of_an_older_database_belong_to_the_broker(path: Path) -> None:
    """Before there were several outputs, what was dropped and has to be restored was that of the output `mqtt`."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.executescript((SCHEMAS / "3.sql").read_text())
        raw.executescript("INSERT INTO meta VALUES ('journal', 'abcd'), ('dropped', '12'), ('restore_from', '7')")
        raw.executescript("INSERT INTO cursor VALUES ('mqtt', 20), ('console', 3); PRAGMA user_version = 3")
    async with store.open_store(path), journal.open_journal(path, "mqtt") as rows:
        assert (await rows.cursor(), await rows.counts(), (await rows.restore_mark()).after) == (20, (12, 0), 7)
        async with journal.open_journal(path, "console") as other:
            assert (await other.cursor(), await other.counts(), (await other.restore_mark()).after) == (3, (0, 0), None)
    assert counted(path, "SELECT count(*) FROM meta WHERE name IN ('dropped', 'restore_from')") == 0


async def test_database_of_something_else_is_refused(path: Path) -> None:
    """A file that another program made is not taken over."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE mine (x)")
        raw.commit()
    with pytest.raises(StoreError, match="something else"):
        async with store.open_store(path):
            pass
    assert counted(path, "SELECT count(*) FROM sqlite_master") == 1


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be looked at" * 40, b"\0" * 8192])
async def test_corrupt_file_is_a_store_error(path: Path, content: bytes) -> None:
    """A file that is no database is refused with a sentence that says what to do, never a traceback."""
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"bridge\.db"):
        async with store.open_store(path):
            pass


@pytest.mark.parametrize("cut", [1, 2, 3])
async def test_damaged_database_is_a_store_error(path: Path, cut: int) -> None:
    """A database whose pages were overwritten is refused when it is opened, not found out at the first poll."""
    async with store.open_store(path) as db:
        await db.commit(batch_of("a", 50))
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * (4096 * cut - 100) + whole[4096 * cut :])
    with pytest.raises(StoreError, match=r"bridge\.db"):
        async with store.open_store(path):
            pass


async def test_unwritable_path_raises_store_error(tmp_path: Path) -> None:
    """A directory that is not there, and a directory in place of the file, are said in a sentence."""
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "nowhere" / "bridge.db", tmp_path / "folder"):
        with pytest.raises(StoreError, match="state"):
            async with store.open_store(place):
                pass


async def test_new_database_is_private(path: Path) -> None:
    """Only the user of the bridge can read what it stores."""
    async with store.open_store(path):
        assert path.stat().st_mode & 0o077 == 0


async def test_journal_id_is_random_and_stays(tmp_path: Path) -> None:
    """Each database has a journal id of its own, for ever."""
    ids = []
    for name in ("a.db", "b.db", "a.db"):
        async with store.open_store(tmp_path / name) as db:
            ids.append(db.journal_id)
    assert ids[0] == ids[2] != ids[1]
    assert len(ids[0]) >= 8


async def test_two_connections_keep_the_write_ahead_log(path: Path) -> None:
    """A second connection that comes and goes must not drop SQLite's locks: the log stays while the store is open."""
    log = path.with_name(path.name + "-wal")
    async with store.open_store(path) as db:
        await db.commit(batch_of("a", 1))
        for turn in range(3):
            async with journal.open_journal(path, "mqtt") as rows:
                await db.commit(batch_of(f"b{turn}", 1))
                await rows.advance(turn + 1)
            async with journal.open_journal(path, "history", read_only=True) as rows:
                assert await rows.head() == turn + 2
            database.create_private(path)
            assert log.exists()
            count = "sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM journal').fetchone()"
            ended = subprocess.run(
                [sys.executable, "-c", f"import sqlite3, sys; print({count})", str(path)],
                check=True,
                timeout=60,
                capture_output=True,
                text=True,
            )
            assert ended.stdout.strip() == f"({turn + 2},)"
            assert log.exists()
        await db.commit(batch_of("last", 1))
    assert counted(path, "SELECT count(*) FROM journal") == 5


async def test_transactions_are_written_out(path: Path) -> None:
    """The store writes ahead and waits for the disk, so that a commit survives a power cut."""
    async with store.open_store(path) as db:
        assert await db._connections._writer.fetch_all("PRAGMA synchronous") == [(2,)]
        assert (await db._connections.rows("PRAGMA journal_mode"))[0][0] == "wal"


# --- over a restart -------------------------------------------------------------------------------


async def test_restart_keeps_everything(place: Place) -> None:
    """Records, samples, links, settings, marks, memories and the journal's numbers are there after a restart."""
    progress = CallProgress(
        id="sites",
        fingerprint="f",
        complete=True,
        remapped=True,
        last_poll=1,
        last_success=2,
        window_end=3,
        horizon=4,
        held_since=5,
        released=True,
        failures=6,
    )
    async with store.open_store(place) as db:
        await db.commit(batch_of("T", 2), progress)
        await db.commit(sample_batch(9))
        await db.commit(
            Batch(product_links=[("terminal", "T-0", (("P", "T-0"),))], stale_relations=["T-0"], presence=[("T-1", 77)])
        )
        await db.commands.store_command([Setting("sites", "interval", "300.0", "mqtt")], ("topic", "mark"))
        await db.records.count_missing("terminal", ["T-1"], 44)
    async with store.open_store(place) as db:
        assert await db.progress.load("sites") == progress
        assert await db.records.load("terminal", ["T-0"]) == {"T-0": StoredRecord(b'{"imei":"T-0"}', b"kept")}
        assert await db.records.missing_counts_after("terminal", "T-0") == [("T-1", 1, 44)]
        assert await db.records.presence_times(["T-0", "T-1", "T-2"]) == {"T-0": 0, "T-1": 77}
        assert await db.samples.known_samples("traffic", ["T"]) == {"T": KnownSamples(9, 7, {9: 7})}
        assert await db.relations.linked_products(["T-0"]) == {"T-0": ["P"]}
        assert await db.relations.stale_terminals() == ["T-0"]
        assert await db.commands.settings() == [Setting("sites", "interval", "300.0", "mqtt")]
        assert await db.commands.last_command_identity("topic") == "mark"
        assert await db.commit(batch_of("next", 1)) == 4


async def test_journal_numbers_are_never_used_again(path: Path) -> None:
    """Also when the journal was emptied, the next row has the next number, or a cursor would wait for ever."""
    async with store.open_store(path) as db:
        await db.commit(batch_of("a", 3))
        await db._connections._writer.execute("DELETE FROM journal")
    async with store.open_store(path) as db:
        assert await db.commit(batch_of("b", 1)) == 4
    assert counted(path, "SELECT seq FROM journal") == 4


# --- records --------------------------------------------------------------------------------------


async def test_unchanged_record_keeps_its_row_and_content(place: Place) -> None:
    """A record that is the same gets a new hash and is not missing any more; what was announced stays."""
    async with store.open_store(place) as db, journal.open_journal(place, "mqtt") as rows:
        await db.commit(batch_of("T", 1))
        await db.records.count_missing("terminal", ["T-0"], 10)
        await db.commit(Batch(unchanged=[(b"k2", "terminal", "T-0")]))
        assert await db.records.load("terminal", ["T-0"]) == {"T-0": StoredRecord(b'{"imei":"T-0"}', b"k2")}
        assert await rows.retained.records_between(0, 9) == [(1, "terminal", "T-0", b'{"imei":"T-0"}')]
        assert await db.records.missing_counts_after("terminal", "") == [("T-0", 0, 0)]


async def test_skippable_hashes_leave_out_missing_records_and_due_presence(place: Place) -> None:
    """Neither a record that is missing, nor a terminal whose presence is due, is passed over."""
    async with store.open_store(place) as db:
        ids = ["here", "missing", "due"]
        puts = [msgspec.structs.replace(put(id), hash=id.encode()) for id in ids]
        await db.commit(Batch(writes=puts, presence=[("here", 90), ("missing", 95), ("due", 50)]))
        await db.records.count_missing("terminal", ["missing"], 1)
        assert await db.records.skippable_hashes("terminal", 50) == ({b"here"}, 90)
        assert await db.records.skippable_hashes("terminal", 49) == ({b"here", b"due"}, 50)
        assert await db.records.skippable_hashes("site", -1) == (set(), 1 << 62)


async def test_missing_counts_and_keeps_the_first_time(place: Place) -> None:
    """How often a record was missing grows; since when stays as it was first seen missing."""
    async with store.open_store(place) as db:
        await db.commit(batch_of("T", 1))
        for now in (10, 20, 30):
            await db.records.count_missing("terminal", ["T-0"], now)
        assert await db.records.missing_counts_after("terminal", "") == [("T-0", 3, 10)]
        await db.commit(Batch(writes=[put("T-0")]))
        assert await db.records.missing_counts_after("terminal", "") == [("T-0", 0, 0)]


async def test_removing_a_terminal_deletes_components_relations_and_newest_samples(place: Place) -> None:
    """With a terminal go its components, its relations and its newest samples; what was seen of them is remembered."""
    async with store.open_store(place) as db, journal.open_journal(place, "mqtt") as rows:
        await db.commit(
            Batch(writes=[put("T"), put("T", kind="components"), put("T", kind="relations"), put("T", kind="site")])
        )
        await db.commit(sample_batch(9))
        await db.commit(Batch(stale_relations=["T"]))
        await db.commit(Batch(removed=[("terminal", "T")], entries=[entry(what="removed")]))
        assert [await db.records.count(kind) for kind in ("terminal", "components", "relations", "site")] == [
            0,
            0,
            0,
            1,
        ]
        assert await db.records.existing_ids("removed", "terminal", ["T", "U"]) == {"T"}
        assert await db.samples.reports_of("terminal", ["T"]) == {}
        assert await rows.retained.newest_between(0, 99) == []
        assert (await db.samples.known_samples("traffic", ["T"]))["T"].seen == {9: 7}
        assert await db.relations.stale_terminals() == []
        await db.commit(Batch(writes=[put("T")]))
        assert await db.records.existing_ids("removed", "terminal", ["T"]) == set()


async def test_ids_come_in_slices_and_all(place: Place) -> None:
    """Ids are read slice by slice in their order, each once."""
    ids = [f"T{i:05}" for i in range(SLICE + 5)]
    async with store.open_store(place) as db:
        await db.commit(Batch(writes=[put(id) for id in reversed(ids)]))
        first = await db.records.missing_counts_after("terminal", "")
        rest = await db.records.missing_counts_after("terminal", first[-1][0])
        assert [id for id, _, _ in (*first, *rest)] == ids
        assert len(first) == SLICE
        assert await db.records.count("terminal") == len(ids)


async def test_any_text_is_an_id(place: Place) -> None:
    """Ids are opaque: whatever the API calls a thing is stored and found again."""
    ids = ["", "ä/ö", "a'b\"c", "%", "\n", "x" * 5000, "null\0byte", "🛰"]
    async with store.open_store(place) as db:
        await db.commit(Batch(entries=[entry(id) for id in ids], writes=[put(id, entry=i) for i, id in enumerate(ids)]))
        assert set(await db.records.load("terminal", ids)) == set(ids)


# --- samples --------------------------------------------------------------------------------------


async def test_past_is_what_was_seen(place: Place) -> None:
    """The newest sample, and the hash of each that may come again, are known per id and report."""
    async with store.open_store(place) as db:
        await db.commit(sample_batch(5, 50))
        await db.commit(
            Batch(
                seen=[SeenSample("terminal", "traffic", "T", 3, 30), SeenSample("terminal", "traffic", "late", 1, 10)]
            )
        )
        await db.commit(sample_batch(7, -70))
        known = await db.samples.known_samples("traffic", ["T", "late", "nobody"])
        assert known == {"T": KnownSamples(7, -70, {3: 30, 5: 50, 7: -70}), "late": KnownSamples(-1, 0, {1: 10})}
        assert await db.samples.known_samples("signal_quality", ["T"]) == {}


async def test_forgotten_samples_are_the_old_ones(place: Place) -> None:
    """What is older than the horizon is forgotten, but the newest of each id stays known."""
    async with store.open_store(place) as db:
        for ts in (3, 5, 6, 7):
            await db.commit(sample_batch(ts, ts * 10))
        await db.commit(sample_batch(2, 20, id="old"))
        await db.samples.delete_seen_samples("traffic", 6)
        assert await db.samples.known_samples("traffic", ["T", "old"]) == {
            "T": KnownSamples(7, 70, {6: 60, 7: 70}),
            "old": KnownSamples(2, 20, {2: 20}),
        }


# --- staging --------------------------------------------------------------------------------------


async def collected(db: Store, call: str) -> list[tuple[int, str, bytes, bytes]]:
    return [row async for part in db.staging.iter_slices(call) for row in part]


async def test_staged_rows_come_oldest_first_across_ids(place: Place) -> None:
    """What is staged comes by time, then id, then as it came, in slices, and each call has its own."""
    rows = [(5, "b", b"", b"1"), (5, "a", b"", b"2"), (3, "b", b"", b"3"), (5, "a", b"", b"4")]
    async with store.open_store(place) as db:
        await db.staging.add("x", rows)
        await db.staging.add("y", [(1, "z", b"", b"")])
        await db.staging.add("x", [])
        assert [row[3] for row in await collected(db, "x")] == [b"3", b"2", b"4", b"1"]
        assert await db.staging.newest_times("x", ["a", "b", "c"]) == {"a": 5, "b": 5}
        await db.staging.clear("x")
        assert (await collected(db, "x"), len(await collected(db, "y"))) == ([], 1)


async def test_staged_rows_come_in_slices(place: Place) -> None:
    """No slice is larger than one transaction may be."""
    async with store.open_store(place) as db:
        await db.staging.add("x", [(i, "a", b"", b"") for i in range(SLICE * 2 + 1)])
        assert [len(part) async for part in db.staging.iter_slices("x")] == [SLICE, SLICE, 1]


async def test_staged_rows_do_not_survive_a_restart(place: Place) -> None:
    """A listing that was not complete when the bridge ended is not there afterwards."""
    async with store.open_store(place) as db:
        await db.staging.add("x", [(1, "a", b"", b"")])
    async with store.open_store(place) as db:
        assert await collected(db, "x") == []


# --- relations ------------------------------------------------------------------------------------


async def test_links_are_what_either_side_says(place: Place) -> None:
    """A product belongs to a terminal as long as one of the two says so; each side replaces only what it said."""
    async with store.open_store(place) as db:
        await db.commit(
            Batch(product_links=[("terminal", "T", (("P1", "T"), ("P2", "T"))), ("product", "P1", (("P1", "T"),))])
        )
        assert await db.relations.linked_products(["T"]) == {"T": ["P1", "P2"]}
        await db.commit(Batch(product_links=[("terminal", "T", ())]))
        assert await db.relations.linked_products(["T"]) == {"T": ["P1"]}
        await db.commit(Batch(product_links=[("product", "P1", (("P1", "U"),))]))
        assert await db.relations.linked_products(["T", "U"]) == {"U": ["P1"]}
        assert await db.relations.linked_terminals(["P1"]) == ["U"]


async def test_all_terminals_can_be_stale(place: Place) -> None:
    """A new name of a site concerns every terminal, and each is worked off once."""
    async with store.open_store(place) as db:
        await db.commit(
            Batch(writes=[put("T"), put("U"), put("S", kind="site")], stale_relations=["T"], all_stale=True)
        )
        assert sorted(await db.relations.stale_terminals()) == ["T", "U"]
        await db.commit(Batch(relations_done=["T"]))
        assert await db.relations.stale_terminals() == ["U"]


# --- settings -------------------------------------------------------------------------------------


async def test_setting_is_replaced_and_dropped(place: Place) -> None:
    """A newer setting replaces the older, and an empty value goes back to the file; the mark is stored with it."""
    async with store.open_store(place) as db:

        async def change(value: str, mark: str) -> Iterable[tuple[str, str]]:
            await db.commands.store_command([Setting("sites", "interval", value, "mqtt")], ("t", mark))
            assert await db.commands.last_command_identity("t") == mark
            return [(s.name, s.value) for s in await db.commands.settings()]

        assert await change("300", "m1") == [("interval", "300")]
        assert await change("60", "m2") == [("interval", "60")]
        assert await change("", "m3") == []
        assert await db.commands.last_command_identity("other") is None
        await db.commands.store_command([], None)


async def test_progress_of_a_call_never_polled_is_empty(place: Place) -> None:
    """A call that was never polled has no progress, and progress is saved without a row of the journal."""
    async with store.open_store(place) as db:
        assert await db.progress.load("sites") == CallProgress(id="sites")
        with db.growth.subscribe() as journal_grew:
            await db.progress.save(CallProgress(id="sites", failures=3))
        assert not journal_grew.is_set()
        assert (await db.progress.load("sites")).failures == 3
