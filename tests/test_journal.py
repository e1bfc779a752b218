"""The journal as its readers see it: in order, with a cursor that only moves forward."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge.clock import Clock
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Batch, Entry, NewestSampleWrite, RecordWrite, SeenSample
from oneweb_bridge.store import journal, store
from oneweb_bridge.store.batch_writer import BatchWriter
from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.store.journal import Journal
from oneweb_bridge.store.journal_sql import PAGE_ROWS
from oneweb_bridge.store.places import Place
from oneweb_bridge.store.reading import open_queries
from oneweb_bridge.store.store import Store


def entry(
    id: str = "T", what: Any = "metric", *, entity: str = "terminal", name: str = "traffic", ts: int = 5
) -> Entry:
    return Entry(entity, id, what, name, ts, b"{}")


@pytest.fixture
async def db(place: Place) -> AsyncIterator[Store]:
    async with store.open_store(place, Clock(lambda: 2.0, lambda: 2.0, "a boot")) as opened:
        yield opened


@pytest.fixture
async def rows(db: Store, place: Place) -> AsyncIterator[Journal]:
    async with journal.open_journal(place, "mqtt", clock=Clock(lambda: 3.0)) as opened:
        yield opened


async def test_rows_come_in_order_page_by_page(db: Store, rows: Journal) -> None:
    """Every row behind a number comes once, in its order, at most a page at a time."""
    await db.commit(Batch(entries=[entry(f"T{i}") for i in range(PAGE_ROWS + 3)]))
    first = await rows.after(0)
    rest = await rows.after(first[-1].seq)
    assert [row.seq for row in (*first, *rest)] == list(range(1, PAGE_ROWS + 4))
    assert len(first) == PAGE_ROWS
    assert await rows.after(PAGE_ROWS + 3) == []
    assert [row.seq for row in await rows.after(1, 2)] == [2, 3]


async def test_row_is_the_entry_that_was_committed(db: Store, rows: Journal) -> None:
    """A row carries its entry unchanged, and when it was written."""
    await db.commit(Batch(entries=[Entry("product", "P", "usage", "B", 77, b'{"used_gb":1.0}')]))
    (row,) = await rows.after(0)
    assert (row.seq, row.at, row.entity, row.id, row.what, row.name, row.ts, row.body) == (
        1,
        2000,
        "product",
        "P",
        "usage",
        "B",
        77,
        b'{"used_gb":1.0}',
    )


TEXTS = ("", " ", "'", '"', "\\", "\x1f\x7f", "ä\u202e🛰", "{}", "null", "a/b+#", "z" * 70_000)
NUMBERS = (0, -1, 2**53 + 1, 2**63 - 1, -(2**63))


async def test_any_row_is_read_as_it_was_written(db: Store, rows: Journal, place: Place) -> None:
    """Whatever stands in ids, names, times and bodies, each reader of pages has it byte for byte; an empty body too."""
    written = [
        Entry("terminal", id, "metric", name, ts, b"")
        for id in TEXTS
        for name, ts in zip(TEXTS, NUMBERS * 3, strict=False)
    ]
    written += [Entry("terminal", "T", "metric", "traffic", 5, encode({text: [text, 0.1, None]})) for text in TEXTS]
    await db.commit(Batch(entries=written))
    with open_queries(place) as queries:
        for read in (await rows.after(0), queries.rows_after(0, PAGE_ROWS)):
            assert [Entry(row.entity, row.id, row.what, row.name, row.ts, row.body) for row in read] == written
            assert [row.seq for row in read] == list(range(1, len(written) + 1))


async def test_empty_journal_has_neither_head_nor_cursor(rows: Journal) -> None:
    """Before anything is written, all numbers are 0."""
    assert (await rows.head(), await rows.oldest(), await rows.cursor()) == (0, 0, 0)
    assert await rows.counts() == (0, 0)
    assert (await rows.restore_mark()).after is None


async def test_head_stays_when_rows_are_deleted(db: Store, rows: Journal) -> None:
    """The head is the last row that was ever written, the oldest is the first that is still there."""
    await db.commit(Batch(entries=[entry() for _ in range(5)]))
    await db._connections._writer.execute("DELETE FROM journal WHERE seq < 4")
    assert (await rows.head(), await rows.oldest()) == (5, 4)
    await db._connections._writer.execute("DELETE FROM journal")
    assert (await rows.head(), await rows.oldest()) == (5, 0)


async def test_cursor_never_goes_back(rows: Journal) -> None:
    """A cursor moves forward, and an older number does not move it."""
    cursors = []
    for seq in (3, 2, 7, 1):
        await rows.advance(seq)
        cursors.append(await rows.cursor())
    assert cursors == [3, 3, 7, 7]


async def test_cursor_is_there_after_a_restart_and_each_output_has_its_own(place: Place) -> None:
    """A cursor is durable, and one output does not move another's."""
    async with store.open_store(place):
        for output, seq in (("mqtt", 5), ("sparkplug", 2)):
            async with journal.open_journal(place, output) as opened:
                await opened.advance(seq)
    async with store.open_store(place):
        async with journal.open_journal(place, "mqtt") as opened:
            assert await opened.cursor() == 5
        async with journal.open_journal(place, "sparkplug") as opened:
            assert await opened.cursor() == 2


async def test_row_set_aside_is_counted_once(db: Store, rows: Journal, place: Place) -> None:
    """A row that an output gave up is counted for that output, however often it is said."""
    await rows.set_aside(4, "t", "refused")
    await rows.set_aside(4, "t", "refused again")
    await rows.set_aside(6, "t", "too large")
    assert await rows.counts() == (0, 2)
    async with journal.open_journal(place, "other") as other:
        assert await other.counts() == (0, 0)


async def test_dropped_rows_are_counted_for_each_output(db: Store, rows: Journal) -> None:
    """What another output never sent does not count for this one."""
    await db._connections._writer.execute("INSERT INTO cursor VALUES ('mqtt', 0, 10, NULL), ('other', 0, 7, NULL)")
    assert await rows.counts() == (10, 0)


async def test_reader_sees_only_what_is_committed(db: Store, rows: Journal) -> None:
    """A reader has a connection of its own and never sees half a transaction."""
    await db.commit(Batch(entries=[entry()]))
    async with db._connections.transaction() as transaction:
        await BatchWriter(transaction, Batch(entries=[entry()]), db._connections.dialect, now=1, wall_time=1).write()
        assert await rows.head() == 1
        assert len(await rows.after(0)) == 1
    assert len(await rows.after(0)) == 2


async def test_read_only_journal_needs_a_database(tmp_path: Path) -> None:
    """`history` of a bridge that never ran is said in a sentence, and makes no file."""
    path = tmp_path / "bridge.db"
    with pytest.raises(StoreError, match="does not exist"):
        async with journal.open_journal(path, "history", read_only=True):
            pass
    assert not path.exists()


async def test_corrupt_file_is_a_store_error(tmp_path: Path) -> None:
    """A file that is no database is a sentence for readers, too."""
    path = tmp_path / "bridge.db"
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 40)
    with pytest.raises(StoreError, match=r"bridge\.db"):
        async with journal.open_journal(path, "history", read_only=True) as opened:
            await opened.head()


# --- what is retained -----------------------------------------------------------------------------


async def filled(db: Store) -> None:
    """Rows 1 to 5: a terminal, its sample, a site; then the terminal is removed, and a bucket cleared."""
    doc = encode({"ts": 5})
    await db.commit(
        Batch(
            entries=[entry(what="added"), entry(), entry("S", "added", entity="site")],
            writes=[
                RecordWrite("terminal", "T", b'{"imei":"T"}', entry=0),
                RecordWrite("site", "S", b'{"site_id":"S"}', entry=2),
            ],
            newest=[NewestSampleWrite("terminal", "traffic", "T", 5, 1, doc, 1)],
            seen=[SeenSample("terminal", "traffic", "T", 5, 1)],
        )
    )


async def test_retained_content_is_found_by_the_row_that_published_it(db: Store, rows: Journal) -> None:
    """Records and newest samples are found by the rows in (low, high] that published them last."""
    await filled(db)
    assert await rows.retained.records_between(0, 3) == [
        (1, "terminal", "T", b'{"imei":"T"}'),
        (3, "site", "S", b'{"site_id":"S"}'),
    ]
    assert await rows.retained.records_between(1, 2) == []
    assert await rows.retained.newest_between(1, 2) == [(2, "terminal", "traffic", "T", b'{"ts":5}')]
    assert await rows.retained.newest_between(2, 3) == []


async def test_retained_content_moves_with_its_newest_row(db: Store, rows: Journal) -> None:
    """A record that was published again is found under its newest row alone."""
    await filled(db)
    await db.commit(Batch(entries=[entry(what="changed")], writes=[RecordWrite("terminal", "T", b'{"x":1}', entry=0)]))
    assert [seq for seq, *_ in await rows.retained.records_between(0, 9)] == [3, 4]
    assert await rows.retained.records_between(3, 4) == [(4, "terminal", "T", b'{"x":1}')]


async def test_clears_are_found_and_what_is_alive_besides(db: Store, rows: Journal) -> None:
    """Rows that cleared topics are found, and of one id what is retained still."""
    await filled(db)
    removed = [entry(what="removed"), entry("P", "clear", entity="product", name="B")]
    await db.commit(Batch(entries=removed, removed=[("terminal", "T")]))
    assert [(row.seq, row.what) for row in await rows.retained.clearing_between(0, 9)] == [(4, "removed"), (5, "clear")]
    assert [row.seq for row in await rows.retained.clearing_between(4, 9)] == [5]
    assert await rows.retained.of_id("T") == ([], [])
    assert await rows.retained.of_id("S") == ([("site", "S", b'{"site_id":"S"}')], [])
    assert await rows.retained.records_between(0, 9) == [(3, "site", "S", b'{"site_id":"S"}')]
    assert await rows.retained.newest_between(0, 9) == []


async def test_restore_is_noted_for_each_output_until_it_is_done(db: Store, rows: Journal, place: Place) -> None:
    """After rows were dropped each output knows the row to restore from, until it has restored."""
    await db._connections._writer.execute("INSERT INTO cursor VALUES ('mqtt', 20, 3, 17), ('other', 20, 3, 16)")
    async with journal.open_journal(place, "other") as other:
        assert (await rows.restore_mark()).after == 17
        await rows.clear_restore_mark(await rows.restore_mark())
        assert (await rows.restore_mark()).after is None
        assert (await other.restore_mark()).after == 16
