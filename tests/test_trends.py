"""The trends and the journal together: every sample once, at its time, before and after folding and trimming."""

import contextlib
import sqlite3
import threading
from datetime import datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from oneweb_bridge.model.records import Batch, NewestSampleWrite, Row
from oneweb_bridge.store import store
from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.store.sqlite import ThreadConnection
from oneweb_bridge.trends.chunks import DAY_MS, StreamKey
from oneweb_bridge.trends.fold import FoldRules, Moment, Outcome, fold_trends
from oneweb_bridge.trends.items import Selection, iter_bins, iter_items, last_of_each
from oneweb_bridge.trends.pending import PendingDays
from oneweb_bridge.trends.reading import open_history
from oneweb_bridge.trends.replay import ReplayQuery, iter_pages, read_pages
from oneweb_bridge.trends.series import Indicator, SeriesQuery, Span
from tests import fold_rounds
from tests.past import BEGIN, EVER, HOUR, RULES, SIGNAL, TODAY, Past, changed, sample, traffic, usage
from tests.places import open_place
from tests.postgres import Cluster

# ── the same before and after ──────────────────────────────────────────────────────────────────


async def test_history_is_the_same_before_and_after_folding_and_trimming(past: Past) -> None:
    """The same bytes in the same order: from the journal, with chunks beside it, and from chunks alone."""
    await past.write(
        sample(BEGIN + 2 * HOUR, sinr_db=9.0),
        sample(BEGIN + HOUR, rsrp_dbm=-100.0, sinr_db=8.0),
        traffic(BEGIN + HOUR, 10),
        sample(BEGIN + 2 * HOUR, sinr_db=7.5, corrected=True),
        sample(BEGIN - HOUR, sinr_db=1.0),
        sample(BEGIN + 30 * HOUR, sinr_db=2.0),
    )
    before = past.shown()
    assert [b'"sinr_db":7.5' in body for body in before].count(True) == 1
    assert len(before) == 5
    outcome = past.fold()
    assert (outcome.error, outcome.lost, outcome.ids) == ("", "", 2)
    assert past.shown() == before
    past.trim(outcome.folded_through)
    assert past.shown() == before


async def test_day_is_folded_when_it_is_over_for_three_hours(past: Past) -> None:
    """Not before, so that what is late is folded once; and then everything of it."""
    await past.write(sample(BEGIN, sinr_db=1.0))
    assert past.fold(BEGIN + DAY_MS + 3 * HOUR - 1).ids == 0
    assert past.fold(BEGIN + DAY_MS + 3 * HOUR).ids == 1


async def test_day_that_is_not_over_is_folded_where_the_journal_is_short(past: Past) -> None:
    """A journal whose oldest row is younger than 36 h cannot wait for the end of the day."""
    await past.write(sample(BEGIN, sinr_db=1.0))
    assert past.fold(BEGIN + HOUR, steady=2000 + 36 * HOUR).ids == 0
    assert past.fold(BEGIN + HOUR, steady=2000 + 36 * HOUR - 1).ids == 1


async def test_row_that_is_about_to_be_trimmed_is_folded_first(past: Past) -> None:
    """Whether its day is over or not; rows behind it wait."""
    await past.write(sample(BEGIN, sinr_db=1.0), sample(BEGIN, id="U", sinr_db=1.0))
    outcome = past.fold(BEGIN + HOUR, through=1)
    assert (outcome.ids, outcome.folded_through) == (1, 1)
    past.trim(1)
    assert len(past.shown()) == 1


async def test_late_and_corrected_samples_end_at_their_place(past: Past) -> None:
    """What comes for a day that is folded and trimmed makes that day again, and is seen at once."""
    await past.write(sample(BEGIN + HOUR, sinr_db=1.0), sample(BEGIN + 3 * HOUR, sinr_db=3.0))
    past.trim(past.fold().folded_through)
    await past.write(sample(BEGIN + 2 * HOUR, sinr_db=2.0), sample(BEGIN + 3 * HOUR, sinr_db=4.0, corrected=True))
    expected = [b"1.0}", b"2.0}", b'4.0,"corrected":true}']
    for _ in range(3):
        assert [body.endswith(end) for body, end in zip(past.shown(), expected, strict=True)] == [True] * 3
        past.trim(past.fold().folded_through)
    assert past.chunks() == 1


async def test_late_sample_fills_a_gap(past: Past) -> None:
    """What the API showed late lies in the gap, which is none any more; also where its day was folded before."""
    ten_minutes = 600_000
    await past.write(*(sample(BEGIN + n * ten_minutes, sinr_db=1.0) for n in range(12) if not 4 <= n < 9))
    span = Span(BEGIN, BEGIN + 2 * HOUR)

    def gaps() -> list[tuple[int, int]]:
        with open_history(past.path, past.trends) as history:
            return history.read_series(SeriesQuery(stream=SIGNAL, span=span)).gaps

    assert gaps() == [(BEGIN + 3 * ten_minutes, BEGIN + 9 * ten_minutes)]
    past.trim(past.fold().folded_through)
    assert gaps() == [(BEGIN + 3 * ten_minutes, BEGIN + 9 * ten_minutes)]
    await past.write(*(sample(BEGIN + n * ten_minutes, sinr_db=2.0) for n in range(4, 9)))
    assert gaps() == []
    past.trim(past.fold().folded_through)
    assert gaps() == []


async def test_days_begin_and_end_where_they_do(past: Past) -> None:
    """The edges of a day, a month, a year and a leap day: each sample is in the day of UTC that its time says."""
    midnights = [
        round(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp() * 1000)
        for day in ("2023-12-31", "2024-01-01", "2024-02-28", "2024-02-29", "2024-03-01", "2024-03-31")
    ]
    times = sorted(midnight + part for midnight in midnights for part in (0, 1, DAY_MS - 1))
    await past.write(*(sample(ts, sinr_db=float(n)) for n, ts in enumerate(times)))
    before = past.shown()
    assert len(before) == len(times)
    past.trim(past.fold(midnights[-1] + 9 * DAY_MS).folded_through)
    assert past.shown() == before
    assert past.chunks() == len(midnights)
    rests: list[int] = []
    with open_history(past.path, past.trends, rest=lambda: rests.append(len(rests))) as history:
        read = [(day * DAY_MS, list(samples.ts)) for day, samples in history.read_days(SIGNAL, EVER)]
        assert len(rests) == len(midnights)
        span = Span(midnights[0], midnights[-1] + DAY_MS)
        series = history.read_series(SeriesQuery(stream=SIGNAL, span=span, points=10))
    assert len(rests) == 3 * len(midnights), "each day that is read again, and each bin"
    assert read == [(midnight, [midnight, midnight + 1, midnight + DAY_MS - 1]) for midnight in midnights]
    assert (series.step, series.t) == (86_400.0, midnights)
    assert series.series[0].count == [3] * len(midnights)


async def test_clock_that_is_set_back_loses_and_doubles_nothing(past: Past) -> None:
    """Folded today, then days ago by the API's clock, then today again: the same samples at their times."""
    await past.write(*(sample(BEGIN + n * HOUR, sinr_db=float(n)) for n in range(30)))
    past.trim(past.fold().folded_through)
    for number, now in enumerate((BEGIN - 20 * DAY_MS, BEGIN + HOUR + 1, BEGIN + 5 * DAY_MS), 31):
        await past.write(sample(now, sinr_db=0.5))
        before = past.shown()
        assert len(set(before)) == len(before) == number
        past.trim(past.fold(now + 1).folded_through)
        assert past.shown() == before


async def test_folding_twice_changes_nothing(past: Past) -> None:
    """The same rows again give the same chunks, also from a journal with another id."""
    await past.write(sample(BEGIN, sinr_db=1.0), usage(BEGIN, 1.0), usage(BEGIN, 2.0))
    past.fold()
    before = past.shown(), past.shown("product", "P")
    with sqlite3.connect(past.path) as db:
        db.execute("UPDATE meta SET value = 'another' WHERE name = 'journal'")
    db.close()
    assert past.fold().ids == 2
    assert (past.shown(), past.shown("product", "P")) == before


# ── usage ──────────────────────────────────────────────────────────────────────────────────────


async def test_usage_is_a_stream_of_its_bucket(past: Past) -> None:
    """A product shows its buckets while they are its own; the bucket shows all, also those without a product."""
    await past.write(
        usage(BEGIN, 1.0, product=None),
        usage(BEGIN + HOUR, 2.0, product="P"),
        usage(BEGIN + 2 * HOUR, 3.0, product="Q"),
    )
    for _ in range(2):
        assert [b'"used_gb":2.0' in body for body in past.shown("product", "P")] == [True]
        assert [b'"used_gb":3.0' in body for body in past.shown("product", "Q")] == [True]
        past.trim(past.fold().folded_through)
    assert len(past.shown("usage", "B")) == 3


# ── what can happen to the file ────────────────────────────────────────────────────────────────


async def test_trends_that_are_gone_are_told_and_made_anew(past: Past) -> None:
    """From what the journal still has."""
    await past.write(sample(BEGIN, sinr_db=1.0))
    assert past.fold().lost == ""
    past.trends.with_name(f"{past.trends.name}-wal").write_bytes(b"the log of the file that is gone")
    past.trends.unlink()
    outcome = past.fold()
    assert outcome.lost == f"{past.trends} is gone"
    assert (outcome.error, len(past.shown())) == ("", 1)


async def test_damaged_trends_are_moved_away_and_made_anew(past: Past) -> None:
    """They are kept beside the new ones, for people."""
    await past.write(sample(BEGIN, sinr_db=1.0))
    past.trends.write_bytes(b"this is no database" * 1000)
    with pytest.raises(StoreError, match=r"bridge\.trends\.db is damaged"):
        past.shown()
    outcome = past.fold()
    assert "is damaged" in outcome.lost
    assert (outcome.error, len(past.shown())) == ("", 1)
    assert (past.trends.parent / f"{past.trends.name}.damaged").read_bytes().startswith(b"this is no")


async def test_chunk_that_cannot_be_read_is_made_anew(past: Past) -> None:
    """One bad chunk costs that chunk alone."""
    await past.write(sample(BEGIN, sinr_db=1.0))
    past.fold()
    with sqlite3.connect(past.trends) as db:
        db.execute("UPDATE fine SET body = x'00'")
    db.close()
    await past.write(sample(BEGIN + HOUR, sinr_db=2.0))
    outcome = past.fold()
    assert (outcome.unreadable, outcome.error) == (1, "")
    assert len(past.shown()) == 1


async def test_trends_that_cannot_be_written_are_an_error_in_words(past: Past) -> None:
    """Nothing is raised: the bridge goes on, and what is not folded stays in the journal."""
    await past.write(sample(BEGIN, sinr_db=1.0))
    past.trends.touch()
    assert len(past.shown()) == 1
    past.trends.unlink()
    past.trends.mkdir()
    outcome = past.fold()
    assert "cannot be opened as a database: choose another trends.path" in outcome.error
    assert outcome.folded_through == 0


async def test_full_disk_is_an_error_in_words_and_heals(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not written stays pending, and is folded when there is room again."""
    await past.write(sample(BEGIN, sinr_db=1.0))

    def refuse(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(PendingDays, "_write_chunks", refuse)
    outcome = past.fold()
    assert (outcome.error, outcome.folded_through) == ("database or disk is full", 0)
    assert len(past.shown()) == 1
    monkeypatch.undo()
    assert (past.fold().error, past.fold().folded_through) == ("", 1)
    past.trim(1)
    assert len(past.shown()) == 1


async def test_reading_goes_by_the_index_of_ids_and_times(past: Past) -> None:
    """No read of one id goes through the journal: with millions of rows that would take seconds."""
    await past.write(sample(BEGIN, sinr_db=1.0))
    statements: list[str] = []
    with open_history(past.path, past.trends) as history:
        assert history._rows is not None
        assert isinstance(history._rows._db, ThreadConnection)
        history._rows._db.set_trace_callback(statements.append)
        list(iter_items(history, Selection("terminal", "T", EVER)))
        history.last_before(SIGNAL, BEGIN + 1)
        list(history._rows.samples_of_day(TODAY, {"T": 1}))
    with sqlite3.connect(past.path) as db:
        plans = {s: db.execute(f"EXPLAIN QUERY PLAN {s}").fetchall() for s in statements if "WHERE id = " in s}
    db.close()
    assert len(plans) >= 4
    for statement, plan in plans.items():
        assert any("USING INDEX journal_" in str(step) or "USING COVERING INDEX" in str(step) for step in plan), (
            statement,
            plan,
        )


async def test_newer_trends_are_left_alone(past: Past) -> None:
    """A file that a newer program wrote is neither read nor replaced."""
    with sqlite3.connect(past.trends) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    assert "newer oneweb-bridge" in past.fold().error
    with pytest.raises(StoreError, match="newer"):
        past.shown()


async def test_kills_within_folding_lose_and_double_nothing(tmp_path: Path) -> None:
    """At each step; `python -m tests.fold_rounds 100` plays more."""
    assert await fold_rounds.campaign(len(fold_rounds.FOLDING_POINTS), 1, tmp_path) == []


async def test_history_does_with_either_file_alone(past: Past) -> None:
    """The journal alone, or the trends alone."""
    await past.write(sample(BEGIN, sinr_db=1.0))
    with open_history(past.path, None) as history:
        assert len(list(iter_items(history, Selection("terminal", "T", EVER)))) == 1
    past.fold()
    with open_history(past.path.with_name("none.db"), past.trends) as history:
        assert len(list(iter_items(history, Selection("terminal", "T", EVER)))) == 1
    with pytest.raises(StoreError), open_history(past.path.with_name("none.db"), past.trends.with_name("none")):
        pass


async def test_old_days_keep_their_summary_alone(past: Past) -> None:
    """Full resolution goes after `keep`, or where the file is too large, oldest first; a day's bins stay longer."""
    await past.write(*(sample(BEGIN + d * DAY_MS + h * HOUR, sinr_db=float(h)) for d in range(3) for h in range(4)))
    past.fold(BEGIN + 4 * DAY_MS)
    past.trim()
    moment = Moment(api=BEGIN + 4 * DAY_MS, steady=1 << 50)
    rules = FoldRules(keep=2 * 86400.0, keep_daily=3 * 86400.0, max_size=10**9)
    fold_trends(past.path, past.trends, rules, moment, is_known=True, stop=threading.Event())
    with open_history(past.path, past.trends) as history:
        binned = list(iter_bins(history, Selection("terminal", "T", EVER), DAY_MS))
        assert [(item.ts, item.bins["sinr_db"].mean) for item in binned] == [
            (BEGIN + DAY_MS, 1.5),
            (BEGIN + 2 * DAY_MS, 1.5),
        ]
        series = history.read_series(SeriesQuery(stream=SIGNAL, span=Span(BEGIN, BEGIN + 4 * DAY_MS)))
        assert (series.source, series.step, series.t) == ("days", 86400.0, [BEGIN + DAY_MS, BEGIN + 2 * DAY_MS])
        assert len(history.read_samples(SIGNAL, EVER).ts) == 4
    rules = FoldRules(keep=9e9, keep_daily=9e9, max_size=1)
    fold_trends(past.path, past.trends, rules, moment, is_known=True, stop=threading.Event())
    with open_history(past.path, past.trends) as history:
        assert history.read_samples(SIGNAL, EVER).ts == []


# ── what is read ───────────────────────────────────────────────────────────────────────────────


async def test_items_are_by_time_samples_before_events(past: Past) -> None:
    """By time; of one moment samples first, in the order of the catalogue, whether folded or not."""
    await past.write(changed(BEGIN), traffic(BEGIN, 1), sample(BEGIN, sinr_db=1.0), changed(BEGIN - 1))
    for _ in range(2):
        with open_history(past.path, past.trends) as history:
            kinds = [item.kind for item in iter_items(history, Selection("terminal", "T", EVER))]
        assert kinds == ["changed", "signal_quality", "traffic", "changed"]
        past.fold()


async def test_last_sample_of_each_interval_goes_out_as_it_was(past: Past) -> None:
    """Thinned out, each report by itself, without events."""
    await past.write(*(sample(BEGIN + m * 60_000, sinr_db=float(m)) for m in range(0, 150, 10)), changed(BEGIN))
    with open_history(past.path, past.trends) as history:
        items = list(last_of_each(iter_items(history, Selection("terminal", "T", EVER)), HOUR))
    assert [(item.ts - BEGIN) // 60_000 for item in items] == [50, 110, 140]


async def test_series_are_samples_or_bins(past: Past) -> None:
    """Up to so many points the samples as they are, then bins; gaps and corrections are told."""
    minutes = [*range(0, 100, 10), *range(200, 300, 10)]
    await past.write(*(sample(BEGIN + m * 60_000, sinr_db=float(m)) for m in minutes))
    await past.write(sample(BEGIN, sinr_db=5.0, corrected=True))
    span = Span(BEGIN, BEGIN + 5 * HOUR)
    with open_history(past.path, past.trends) as history:
        series = history.read_series(SeriesQuery(stream=SIGNAL, span=span, indicators={"sinr_db": Indicator("dB")}))
        assert (series.step, series.source, series.period) == (None, "samples", 600.0)
        assert series.gaps == [(BEGIN + 90 * 60_000, BEGIN + 200 * 60_000)]
        assert series.corrected == [0]
        (line,) = series.series
        assert (line.name, line.unit, line.kind, line.v) == ("sinr_db", "dB", "gauge", [5.0, *map(float, minutes[1:])])
        series = history.read_series(SeriesQuery(stream=SIGNAL, span=span, points=10))
    assert (series.step, series.source, series.corrected) == (1800.0, "bins", [])
    assert [(t - BEGIN) // 60_000 for t in series.t] == [0, 30, 60, 90, 180, 210, 240, 270]
    assert series.series[0].count == [3, 3, 3, 1, 1, 3, 3, 3]


async def test_counter_is_shown_as_rate_raw_or_total(past: Past) -> None:
    """Its neighbour may lie before the span and in a chunk that is trimmed from the journal."""
    await past.write(*(traffic(BEGIN + i * 600_000, tx) for i, tx in enumerate([0, 600, 1200, 100, 700, 1300])))
    past.trim(past.fold().folded_through)
    stream, span = StreamKey("terminal", "T", "traffic"), Span(BEGIN + 600_000, BEGIN + HOUR)
    known = {"tx_bytes": Indicator("B", "cumulative")}
    with open_history(past.path, past.trends) as history:
        lines = [
            history.read_series(SeriesQuery(stream=stream, span=span, show_as=way, indicators=known)).series[0]
            for way in ("rate", "raw", "total")
        ]
    assert [line.v for line in lines] == [
        [1.0, 1.0, None, 1.0, 1.0],
        [600, 1200, 100, 700, 1300],
        [0, 600, 600, 1200, 1800],
    ]
    assert [line.unit for line in lines] == ["B/s", "B", "B"]


# ── what is replayed ───────────────────────────────────────────────────────────────────────────


def replayed(
    past: Past, owner: tuple[str, str] | None, *, every: int | None = None, report: str | None = None
) -> list[Row]:
    """The rows that `request/replay` sends."""
    query = ReplayQuery(owner=owner, report=report, span=EVER, every_ms=every)
    return [row for page in iter_pages(past.path, past.trends, query) for row in page]


async def test_replay_reaches_as_far_back_as_the_trends(past: Past) -> None:
    """Each sample once, as it was, of one or of everybody; then the events that the journal still has."""
    newest = [NewestSampleWrite("terminal", "signal_quality", id, 5, 7, b"{}", None, "sinr_db=n") for id in ("T", "U")]
    entries = [sample(BEGIN + h * HOUR, id, sinr_db=float(h)) for h in (0, 1, 25) for id in ("T", "U")]
    await past.db.commit(Batch(entries=[*entries, changed(BEGIN)], newest=newest))
    for _ in range(2):
        everybody = replayed(past, None)
        assert [(row.id, row.ts - BEGIN) for row in everybody if row.what == "history"] == [
            *(("T", 0), ("T", HOUR), ("U", 0), ("U", HOUR)),
            *(("T", 25 * HOUR), ("U", 25 * HOUR)),
        ]
        assert {row.body for row in everybody if row.what == "history"} == {entry.body for entry in entries}
        assert [row.what for row in replayed(past, ("terminal", "U"))] == ["history"] * 3
        assert replayed(past, None, report="traffic") == []
        past.trim(past.fold().folded_through - 1)
    assert [row.what for row in replayed(past, None)].count("changed") == 1


async def test_replay_thins_out_to_the_last_sample_of_each_interval(past: Past) -> None:
    """As it was, whatever the interval has to do with days; events are left out."""
    newest = [NewestSampleWrite("terminal", "signal_quality", "T", 5, 7, b"{}", None, "sinr_db=n")]
    await past.db.commit(Batch(entries=[changed(BEGIN), *(sample(BEGIN + h * HOUR) for h in range(40))], newest=newest))
    five = 5 * HOUR
    expected = sorted({(BEGIN + h * HOUR) // five: BEGIN + h * HOUR for h in range(40)}.values())
    for _ in range(2):
        assert [row.ts for row in replayed(past, None, every=five)] == expected
        assert [row.ts for row in replayed(past, ("terminal", "T"), every=five)] == expected
        past.fold()


async def test_replay_is_read_in_pages_and_can_be_ended(past: Past) -> None:
    """Pages of a bounded size, in a thread; one that is ended leaves nothing open."""
    await past.write(*(sample(BEGIN + m * 1000) for m in range(1200)))
    query = ReplayQuery(owner=("terminal", "T"), report=None, span=EVER)
    sizes = [len(page) async for page in read_pages(past.path, past.trends, query)]
    assert sizes == [500, 500, 200]
    async with contextlib.aclosing(read_pages(past.path, past.trends, query)) as pages:
        assert len(await anext(pages)) == 500
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("replay")]


@pytest.mark.postgres
async def test_trends_on_a_server(cluster: Cluster, tmp_path: Path) -> None:
    """In the same database as the state: the same is shown before and after folding, trimming and summing up."""
    async with open_place("postgres", tmp_path, cluster) as place, store.open_store(place) as db:
        entries = [sample(BEGIN + d * DAY_MS + h * HOUR, sinr_db=float(h)) for d in range(3) for h in range(4)]
        await db.commit(Batch(entries=[*entries, usage(BEGIN, 1.0)]))

        def shown() -> list[bytes]:
            with open_history(place, place) as history:
                return [item.body for item in iter_items(history, Selection("terminal", "T", EVER))]

        def fold(day: int, keep: float) -> Outcome:
            rules = replace(RULES, keep=keep * 86400.0)
            moment = Moment(api=BEGIN + day * DAY_MS + 4 * HOUR, steady=1 << 50)
            return fold_trends(place, place, rules, moment, is_known=True, stop=threading.Event())

        before = shown()
        assert (fold(4, 730).error, len(before)) == ("", 12)
        await db._connections._writer.execute("DELETE FROM journal")
        assert shown() == before
        assert fold(4, 2).error == ""
        with open_history(place, place) as history:
            assert len(history.read_samples(SIGNAL, EVER).ts) == 4
            assert sorted(history.kept_days(SIGNAL, EVER)) == [TODAY, TODAY + 1]
