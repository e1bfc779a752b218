"""The clocks: what is read by people follows the wall clock, and what lasts does not."""

import ast
import asyncio
import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from oneweb_bridge import clock as clock_module
from oneweb_bridge.api.listing import PageCache
from oneweb_bridge.clock import Anchor, Clock, SteadyTime, anchor_of
from oneweb_bridge.config.schema import History, State
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.model.records import Alert, Batch, Entry, RecordWrite
from oneweb_bridge.polling import call_states
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.store import announcements, journal, store
from oneweb_bridge.store.housekeeping import trim
from tests.cancelling import cancel_until_done, end_tasks
from tests.polls import Bench, bench, configured, fleet, opened
from tests.test_id_matching import foreign

HOUR, DAY, YEAR = 3_600, 86_400, 31_557_600
START = 1_750_000_000
STEPS = [sign * step for step in (HOUR, DAY, 10 * YEAR) for sign in (1, -1)]
"""By how many seconds a wall clock is set, ahead and back."""


class Time:
    """A machine's clocks that a test turns: `pass_by` is real time, `set_by` changes the wall clock alone."""

    def __init__(self) -> None:
        self.wall = float(START)
        self.elapsed = 1000.0
        self.boot = "first"

    def clock(self) -> Clock:
        """The clock of a bridge that starts now."""
        return Clock(lambda: self.wall, lambda: self.elapsed, self.boot)

    def pass_by(self, seconds: float) -> None:
        """Lets time pass."""
        self.wall += seconds
        self.elapsed += seconds

    def set_by(self, seconds: float) -> None:
        """Sets the wall clock, as NTP or an operator does."""
        self.wall += seconds

    def reboot(self) -> None:
        """Starts the machine again."""
        self.boot, self.elapsed = self.boot + " and again", 5.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bridge.db"


@pytest.fixture
def time() -> Time:
    return Time()


async def say(db: store.Store, count: int = 1) -> None:
    """Appends rows to the journal."""
    await db.commit(Batch(entries=[Entry("terminal", "T", "changed", "", 0, b"{}")] * count))


async def dropped(db: store.Store, path: Path, max_backlog: float) -> list[str]:
    """What is alerted when the journal is trimmed now, with nothing published."""
    alerts: list[str] = []

    async def alert(alert: Alert) -> None:
        alerts.append(alert.kind)

    state = State(path=str(path), max_backlog=max_backlog)
    await trim(db._connections._writer, state, ("mqtt",), alert, db.steady.now())
    return alerts


@pytest.mark.parametrize("step", STEPS)
async def test_steady_time_does_not_follow_the_wall_clock(step: float, path: Path, time: Time) -> None:
    """However the wall clock is set, while the bridge runs or is stopped, ages are those of real time."""
    async with store.open_store(path, time.clock()) as db:
        begun = db.steady.now()
        assert begun == START * 1000
        time.set_by(step)
        time.pass_by(75)
        assert db.steady.age(begun) == 75
        await say(db)
    time.set_by(step)
    time.pass_by(600)
    async with store.open_store(path, time.clock()) as db:
        assert db.steady.age(begun) == 675
        time.set_by(-2 * step)
        time.pass_by(25)
        assert db.steady.age(begun) == 700


@pytest.mark.parametrize("step", STEPS)
async def test_backlog_is_as_old_as_it_is(step: float, path: Path, time: Time) -> None:
    """What waits is dropped after `state.max_backlog` of real time, not when the clock is set; and then it is."""
    async with store.open_store(path, time.clock()) as db, journal.open_journal(path, "mqtt") as rows:
        await say(db)
        time.pass_by(75)
        time.set_by(step)
        assert await dropped(db, path, 7 * DAY) == []
        await say(db)
        time.pass_by(7 * DAY - 76)
        assert await dropped(db, path, 7 * DAY) == []
        time.pass_by(2)
        assert await dropped(db, path, 7 * DAY) == ["backlog_dropped"]
        assert await rows.cursor() == 1


@pytest.mark.parametrize("step", STEPS)
async def test_history_is_kept_as_long_as_it_is(step: float, path: Path, time: Time) -> None:
    """Published rows stay for `state.history.events` of real time, while the bridge runs and while it is stopped."""

    async def kept(db: store.Store) -> int:
        state = State(path=str(path), history=History(events=DAY))
        await trim(db._connections._writer, state, (), no_alert, db.steady.now())
        return len(await db._connections.rows("SELECT seq FROM journal", ()))

    async def no_alert(alert: Alert) -> None:
        raise AssertionError(alert)

    async with store.open_store(path, time.clock()) as db:
        await say(db, 3)
        time.set_by(step)
        time.pass_by(HOUR)
        assert await kept(db) == 3
        time.set_by(-2 * step)
    time.set_by(step)
    async with store.open_store(path, time.clock()) as db:
        time.pass_by(23 * HOUR - 1)
        assert await kept(db) == 3
        time.set_by(step)
        time.pass_by(2)
        assert await kept(db) == 0


@pytest.mark.parametrize("step", STEPS)
async def test_discovery_pauses_as_long_as_it_does(step: float, path: Path, time: Time) -> None:
    """A device that has changed is sent after its pause of real time, and one that was cleared is kept for a day."""

    async def cleared(devices: announcements.Devices) -> int:
        return len(await devices._rows("SELECT id FROM discovery WHERE hash <> ?", (b"",)))

    async with (
        store.open_store(path, time.clock()) as db,
        announcements.open_devices(path, db.steady.now) as devices,
    ):
        await db.commit(Batch(writes=[RecordWrite("terminal", "T", b"{}")]))
        await devices.mark_all_dirty("settings", ())
        for seconds, skew, expected in ((0, 0.0, 0), (3, step, 0), (3, -2 * step, 0), (3, step, 0), (2, step, 1)):
            time.set_by(skew)
            time.pass_by(seconds)
            assert len(await devices.dirty(10.0, 10)) == expected
        (device,) = await devices.dirty(10.0, 10)
        gone = announcements.DeviceUpdate(device=device, topic="t", hash=announcements.CLEARED_HASH, was_sent=True)
        await devices.note([gone], 1)
        for seconds, skew, expected in ((HOUR, step, 1), (22 * HOUR, -2 * step, 1), (2 * HOUR, step, 0)):
            time.set_by(skew)
            time.pass_by(seconds)
            await devices.note((), 1)
            assert await cleared(devices) == expected


@pytest.mark.parametrize("step", STEPS)
async def test_kept_pages_are_valid_as_long_as_they_are(step: float, tmp_path: Path) -> None:
    """Pages of the last listing are used for an hour of real time, and decoded after it."""

    async def decoded(b: Bench) -> bool:
        """Whether a poll stages anything."""
        digests = []
        real = b.runner._context.page_caches.take

        def take(call: str) -> PageCache:
            cache = real(call)
            digests.append({digest: cache.ids(digest, b.store.steady.now()) for digest in cache._pages})
            return cache

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(b.runner._context.page_caches, "take", take)
            await b.poll(TERMINALS)
        return [ids is None for page in digests for ids in page.values()] != [False]

    async with bench(tmp_path) as b:
        await b.poll(TERMINALS)
        await b.poll(TERMINALS)
        for seconds, skew, expected in ((20 * 60, step, False), (20 * 60, -step, False), (21 * 60, step, True)):
            b.skew = skew
            await b.later(seconds)
            assert await decoded(b) is expected


async def test_what_was_noted_before_the_machine_started_has_no_known_age(path: Path, time: Time) -> None:
    """Nobody knows how long the machine was off: steady time goes on where it was, and such an age is not known."""
    async with store.open_store(path, time.clock()) as db:
        time.pass_by(DAY)
        await say(db)
        noted = db.steady.now()
    time.pass_by(DAY)
    time.reboot()
    async with store.open_store(path, time.clock()) as db:
        assert db.steady.now() == noted + 1
        assert db.steady.age(noted) is None
        time.pass_by(7)
        assert db.steady.age(db.steady.began) == 7
        later = db.steady.now()
    # The same start of the machine goes on, also when the bridge was stopped meanwhile.
    time.pass_by(10)
    async with store.open_store(path, time.clock()) as db:
        assert db.steady.age(later) == 10


@pytest.mark.parametrize(
    ("before", "latest", "elapsed", "expected"),
    [
        (None, 500, 3, Anchor("here", 3000, 500)),
        (Anchor("here", 1000, 400), 500, 3, Anchor("here", 1000, 400)),
        (Anchor("here", 9000, 400), 500, 3, Anchor("here", 3000, 501)),
        (Anchor("there", 1000, 400), 500, 3, Anchor("here", 3000, 501)),
        (Anchor("there", 1000, 600), 500, 3, Anchor("here", 3000, 601)),
    ],
)
def test_steady_time_never_goes_back(before: Anchor | None, latest: int, elapsed: float, expected: Anchor) -> None:
    """Over another start of the machine, or a snapshot of it, it goes on from the latest that is known."""
    assert anchor_of(Clock(lambda: 0, lambda: elapsed, "here"), before, latest) == expected


def test_machine_that_does_not_name_its_start_counts_no_time_over_a_stop() -> None:
    """Without a name of the start, each start of the bridge counts as one of the machine."""
    clock = Clock(lambda: 0, lambda: 99, "")
    anchor = anchor_of(clock, Anchor("", 1000, 400), 500)
    assert anchor == Anchor("", 99_000, 501)
    assert SteadyTime(clock, anchor).age(500) is None


def test_a_time_that_was_never_noted_has_no_age() -> None:
    """0 stands for never; what lies ahead is as old as now."""
    steady = SteadyTime(Clock(lambda: 0, lambda: 1, "b"), Anchor("b", 0, 0))
    assert (steady.age(0), steady.age(1), steady.age(5000)) == (None, 0.999, 0.0)


@pytest.mark.parametrize("step", [10 * YEAR, -10 * YEAR])
async def test_ages_of_an_older_version_begin_anew(step: int, path: Path, time: Time) -> None:
    """What a version without steady time noted by a wrong clock neither waits for ever nor is dropped at once."""
    async with store.open_store(path, time.clock()) as db:
        await say(db, 3)
    wrong = (START + step) * 1000
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("DELETE FROM meta WHERE name = 'steady'")
        raw.execute("UPDATE journal SET at = ? WHERE seq < 3", (wrong,))
        raw.execute("INSERT INTO call (id, held_since) VALUES ('sites', ?)", (wrong,))
        raw.execute("INSERT INTO record (kind, id, doc, missing, missing_since) VALUES ('site','s','{}',1,?)", (wrong,))
        raw.execute("INSERT INTO record (kind, id, doc, presence_at) VALUES ('terminal','t','{}',?)", (wrong,))
        raw.commit()
    async with store.open_store(path, time.clock()) as db:
        assert db.steady.now() == START * 1000
        assert await dropped(db, path, 60) == []
        assert (await db.progress.load("sites")).held_since == START * 1000
        assert [row[2] for row in await db.records.missing_counts_after("site", "")] == [START * 1000]
        assert (await db.records.presence_times(["t"]))["t"] <= START * 1000
        time.pass_by(61)
        assert await dropped(db, path, 60) == ["backlog_dropped"]


# --- at every stage -------------------------------------------------------------------------------

SITES, TERMINALS, SIGNAL = "sites", "user_terminals", "ut_signal_quality"


async def loaded(b: Bench) -> Poller:
    """A poller that does not run: the test makes its polls."""
    poller = Poller(b.runner, b.store, b.api, configured(b.sim.url, **b._changes), b.clock)
    await poller.load()
    return poller


@pytest.mark.parametrize("step", STEPS)
async def test_freshness_and_the_first_wait_do_not_follow_the_wall_clock(step: float, tmp_path: Path) -> None:
    """A success is as fresh as it is, and after a restart a call waits for the rest of its interval."""
    async with fleet() as simulator:
        async with opened(tmp_path, simulator) as b:
            progress = await loaded(b)
            runtime = progress.calls[SITES]
            await progress._poll(runtime)
            b.skew += step
            assert progress.state(runtime).fresh
            b.sim.advance(3 * runtime.effective - 1)
            assert progress.state(runtime).fresh
            b.sim.advance(2)
            assert not progress.state(runtime).fresh
            await progress._poll(runtime)
            b.sim.advance(runtime.effective / 4)
        async with opened(tmp_path, simulator) as b:
            b.skew = -step
            progress_again = await loaded(b)
            left = progress_again.calls[SITES].due - monotonic()
            assert left == pytest.approx(0.75 * progress_again.calls[SITES].interval, abs=60)
            assert progress_again.state(progress_again.calls[SITES]).fresh


@pytest.mark.parametrize("is_cut_short", [True, False])
async def test_poll_that_brought_nothing_is_made_soon_after_a_restart(is_cut_short: bool, tmp_path: Path) -> None:
    """A poll that failed, or within which the bridge was stopped or killed, is not one to wait an interval after."""
    async with fleet() as simulator:
        async with opened(tmp_path, simulator) as b:
            progress = await loaded(b)
            await progress._poll(progress.calls[SITES])
            b.sim.advance(60)
            before = simulator.requests()["total"]
            simulator.fault("hang" if is_cut_short else "status", path="geographicSite", status=404, count=9)
            poll = asyncio.create_task(progress._poll(progress.calls[SITES]))
            while simulator.requests()["total"] == before:
                await asyncio.sleep(0.01)
            await (cancel_until_done(poll) if is_cut_short else poll)
        async with opened(tmp_path, simulator) as b:
            runtime = (await loaded(b)).calls[SITES]
            assert runtime.interval >= 3600
            assert 0 < runtime.due - monotonic() <= 15


async def test_after_a_start_of_the_machine_nothing_is_fresh_and_all_is_due(tmp_path: Path) -> None:
    """How long it was off is not known, so nothing old passes for fresh, and every call is polled."""
    async with fleet() as simulator:
        async with opened(tmp_path, simulator) as b:
            progress = await loaded(b)
            await progress._poll(progress.calls[SITES])
        async with opened(tmp_path, simulator, boot="another") as b:
            progress = await loaded(b)
            state = progress.state(progress.calls[SITES])
            assert (state.fresh, state.last_success is not None) == (False, True)
            assert progress.calls[SITES].due <= monotonic()


async def test_fresh_goes_false_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a poll the state says so by itself, once."""
    monkeypatch.setattr(call_states, "FRESH_CHECK_S", 0.005)
    async with bench(tmp_path) as b:
        progress = await loaded(b)
        runtime = progress.calls[SITES]
        await progress._poll(runtime)
        b.sim.advance(3 * runtime.effective + 1)
        await b.news()
        task = asyncio.create_task(progress._states.retry_loop())
        answers: list[bool] = []
        async with asyncio.timeout(20):
            while not answers:
                await asyncio.sleep(0.005)
                answers = [row.body["fresh"] for row in await b.news() if row.what == "state" and row.id == SITES]
        await end_tasks(task)
        assert answers == [False]


@pytest.mark.parametrize("step", STEPS)
async def test_removal_and_hold_last_as_long_as_they_do(step: float, tmp_path: Path) -> None:
    """`after_time` and `hold_for` are neither cut short nor lengthened by a clock that is set, also over a restart."""
    rules = {"after_missing": 2, "after_time": "15m", "hold_above": {"count": 1, "share": "0%"}, "hold_for": "24h"}
    async with fleet() as simulator:
        async with opened(tmp_path, simulator, removal=rules) as b:
            await b.poll(TERMINALS)
            for id in b.ids("terminals")[:2]:
                b.sim.fleet("remove", id=id)
            for seconds in (0, 10 * 60):
                await b.later(seconds)
                b.skew += step
                assert not (await b.poll(TERMINALS)).held
            await b.later(6 * 60)
            b.skew -= 2 * step
            assert "missing at once" in (await b.poll(TERMINALS)).held
        async with opened(tmp_path, simulator, removal=rules) as b:
            await b.later(23 * HOUR)
            b.skew = step
            assert "missing at once" in (await b.poll(TERMINALS)).held
            await b.later(2 * HOUR)
            await b.news()
            assert not (await b.poll(TERMINALS)).held
            assert [what for what, _ in await b.events()] == ["removed", "removed"]


@pytest.mark.parametrize("step", STEPS)
async def test_vanished_values_are_held_as_long_as_they_are(step: float, tmp_path: Path) -> None:
    """Values that vanish from many are held for `hold_for` of real time, also over a restart, and then go."""
    async with fleet(terminals=12) as simulator:
        async with opened(tmp_path, simulator) as b:
            await b.poll(TERMINALS)
            b.sim.fault("missing_key", path=CALLS[TERMINALS].path, share=1.0, key="resourceState")
            b.skew += step
            assert (await b.poll(TERMINALS)).held
            await b.later(11 * HOUR)
            b.skew -= 2 * step
            assert (await b.poll(TERMINALS)).held
            await b.later(12 * HOUR)
        async with opened(tmp_path, simulator) as b:
            b.skew = step
            await b.news()
            assert (await b.poll(TERMINALS)).held
            assert await b.events() == []
            await b.later(HOUR)
            b.skew = -step
            assert not (await b.poll(TERMINALS)).held
            assert [what for what, _ in await b.events()] == ["changed"] * 12


@pytest.mark.parametrize("step", STEPS)
async def test_what_is_kept_aside_is_kept_as_long_as_it_is(step: float, tmp_path: Path) -> None:
    """Samples of unknown ids wait for `hold_for` of real time, not less and not for ever."""

    async def kept_of(b: Bench, suffix: str) -> int:
        return sum(id.endswith(suffix) for id in await b.store.unmatched.ids_after(SIGNAL, ""))

    async with bench(tmp_path) as b:
        await b.poll(TERMINALS)
        await foreign(b, SIGNAL, "-x")
        await b.poll(SIGNAL)
        count = await kept_of(b, "-x")
        assert count > 0
        for seconds, skew, expected in ((23 * HOUR, step, count), (HOUR // 2, -step, count), (HOUR, step, 0)):
            await b.later(seconds)
            b.skew = skew
            await foreign(b, SIGNAL, f"-{skew}-{seconds}")
            await b.poll(SIGNAL)
            assert await kept_of(b, "-x") == expected


@pytest.mark.parametrize("step", STEPS)
async def test_presence_goes_out_once_an_hour(step: float, tmp_path: Path) -> None:
    """A clock that is set neither lets it out sooner nor holds it back."""

    async def presences(b: Bench) -> int:
        await b.poll(TERMINALS)
        return sum(row.name == "presence" for row in await b.news())

    async with bench(tmp_path, {"liveliness": 1.0}) as b:
        assert await presences(b) > 0
        b.skew = step
        await b.later(50 * 60)
        assert await presences(b) == 0
        await b.later(11 * 60)
        assert await presences(b) > 0


# --- the table ------------------------------------------------------------------------------------

PACKAGE = Path(clock_module.__file__).parent
CLOCKS = {
    "wall": ({"clock", "_clock", "SYSTEM"}, {"now", "wall"}),
    "API": ({"api", "_api"}, {"now", "earlier_now", "bounds"}),
    "steady": ({"steady"}, {"now", "age"}),
    "monotonic": ({"time"}, {"monotonic"}),
}
"""How each clock is asked: of whom, and what."""


def clock_uses(tree: ast.AST, function: str = "") -> Iterator[tuple[str, str]]:
    """Each use of a clock below a node: which, and in which function."""
    for node in ast.iter_child_nodes(tree):
        inner = node.name if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            yield from ((kind, inner) for kind, (who, what) in CLOCKS.items() if name in who and node.attr in what)
            if node.attr == "time" and isinstance(owner, ast.Call):
                yield "monotonic", inner
        yield from clock_uses(node, inner)


def uses() -> set[tuple[str, str]]:
    """Every use of a clock in the package: where and which. What can be set is named by function, others by module."""
    uses = set()
    for path in PACKAGE.rglob("*.py"):
        module = path.parent.name if path.stem == "__init__" else path.stem
        if "simulator" not in path.parts and path.stem != "clock":
            for kind, function in clock_uses(ast.parse(path.read_text(encoding="utf-8"))):
                uses.add((f"{module}.{function}" if kind in ("wall", "API") else module, kind))
    return uses


def test_every_use_of_a_clock_is_in_the_table() -> None:
    """docs/guarantees.md says of each which rule holds it, and of none that is not there."""
    text = (PACKAGE.parent / "docs" / "guarantees.md").read_text(encoding="utf-8")
    table = text.partition("<!-- clocks: begin -->")[2].partition("<!-- clocks: end -->")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (wall|API|steady|monotonic) \| \S.* \|$", table, re.MULTILINE)
    assert len(rows) == len(set(rows)) == table.count("\n| `")
    assert set(rows) == uses()


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if "simulator" not in path.parts and path.stem != "clock"],
    ids=lambda path: path.stem,
)
def test_nobody_asks_another_wall_clock(path: Path) -> None:
    """The wall clock is asked through `clock` alone, so that a test can set it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert not names & {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "today")}
    assert not names & {("datetime", "utcnow"), ("date", "today"), ("time", "localtime"), ("time", "ctime")}
