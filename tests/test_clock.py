"""The clocks: what is read by people follows the wall clock, and what lasts does not."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from oneweb_bridge import journal, store
from oneweb_bridge.clock import Anchor, Clock, SteadyTime, anchor_of
from oneweb_bridge.housekeeping import trim
from oneweb_bridge.model import Alert, Batch, Entry
from oneweb_bridge.settings import State

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

    async def alert(found: Alert) -> None:
        alerts.append(found.kind)

    state = State(path=str(path), max_backlog=max_backlog)
    await trim(db._db, state, ("mqtt",), alert, db.steady.now())
    return alerts


@pytest.mark.parametrize("step", STEPS)
async def test_steady_time_does_not_follow_the_wall_clock(step: float, path: Path, time: Time) -> None:
    """However the wall clock is set, while the bridge runs or is stopped, ages are those of real time."""
    async with store.opened(path, time.clock()) as db:
        begun = db.steady.now()
        assert begun == START * 1000
        time.set_by(step)
        time.pass_by(75)
        assert db.steady.age(begun) == 75
        await say(db)
    time.set_by(step)
    time.pass_by(600)
    async with store.opened(path, time.clock()) as db:
        assert db.steady.age(begun) == 675
        time.set_by(-2 * step)
        time.pass_by(25)
        assert db.steady.age(begun) == 700


@pytest.mark.parametrize("step", STEPS)
async def test_backlog_is_as_old_as_it_is(step: float, path: Path, time: Time) -> None:
    """What waits is dropped after `state.max_backlog` of real time, not when the clock is set; and then it is."""
    async with store.opened(path, time.clock()) as db, journal.opened(path, "mqtt") as rows:
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


async def test_what_was_noted_before_the_machine_started_has_no_known_age(path: Path, time: Time) -> None:
    """Nobody knows how long the machine was off: steady time goes on where it was, and such an age is not known."""
    async with store.opened(path, time.clock()) as db:
        time.pass_by(DAY)
        await say(db)
        noted = db.steady.now()
    time.pass_by(DAY)
    time.reboot()
    async with store.opened(path, time.clock()) as db:
        assert db.steady.now() == noted
        assert db.steady.age(noted - 1) is None
        time.pass_by(7)
        assert db.steady.age(db.steady.began) == 7
        again = db.steady.now()
    # The same start of the machine goes on, also when the bridge was stopped meanwhile.
    time.pass_by(10)
    async with store.opened(path, time.clock()) as db:
        assert db.steady.age(again) == 10


@pytest.mark.parametrize(
    ("before", "latest", "elapsed", "expected"),
    [
        (None, 500, 3, Anchor("here", 3000, 500)),
        (Anchor("here", 1000, 400), 500, 3, Anchor("here", 1000, 400)),
        (Anchor("here", 9000, 400), 500, 3, Anchor("here", 3000, 500)),
        (Anchor("there", 1000, 400), 500, 3, Anchor("here", 3000, 500)),
        (Anchor("there", 1000, 600), 500, 3, Anchor("here", 3000, 600)),
    ],
)
def test_steady_time_never_goes_back(before: Anchor | None, latest: int, elapsed: float, expected: Anchor) -> None:
    """Over another start of the machine, or a snapshot of it, it goes on from the latest that is known."""
    assert anchor_of(Clock(lambda: 0, lambda: elapsed, "here"), before, latest) == expected


def test_machine_that_does_not_name_its_start_counts_no_time_over_a_stop() -> None:
    """Without a name of the start, each start of the bridge counts as one of the machine."""
    clock = Clock(lambda: 0, lambda: 99, "")
    anchor = anchor_of(clock, Anchor("", 1000, 400), 500)
    assert anchor == Anchor("", 99_000, 500)
    assert SteadyTime(clock, anchor).age(499) is None


def test_a_time_that_was_never_noted_has_no_age() -> None:
    """0 stands for never; what lies ahead is as old as now."""
    steady = SteadyTime(Clock(lambda: 0, lambda: 1, "b"), Anchor("b", 0, 0))
    assert (steady.age(0), steady.age(1), steady.age(5000)) == (None, 0.999, 0.0)


@pytest.mark.parametrize("step", [10 * YEAR, -10 * YEAR])
async def test_ages_of_an_older_version_begin_anew(step: int, path: Path, time: Time) -> None:
    """What a version without steady time noted by a wrong clock neither waits for ever nor is dropped at once."""
    async with store.opened(path, time.clock()) as db:
        await say(db, 3)
    wrong = (START + step) * 1000
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("DELETE FROM meta WHERE name = 'steady'")
        raw.execute("UPDATE journal SET at = ? WHERE seq < 3", (wrong,))
        raw.execute("INSERT INTO call (id, held_since) VALUES ('sites', ?)", (wrong,))
        raw.execute("INSERT INTO record (kind, id, doc, missing, missing_since) VALUES ('site','s','{}',1,?)", (wrong,))
        raw.execute("INSERT INTO record (kind, id, doc, presence_at) VALUES ('terminal','t','{}',?)", (wrong,))
        raw.commit()
    async with store.opened(path, time.clock()) as db:
        assert db.steady.now() == START * 1000
        assert await dropped(db, path, 60) == []
        assert (await db.call_memory("sites")).held_since == START * 1000
        assert [row[2] for row in await db.ids_after("site", "")] == [START * 1000]
        assert (await db.presence(["t"]))["t"] <= START * 1000
        time.pass_by(61)
        assert await dropped(db, path, 60) == ["backlog_dropped"]
