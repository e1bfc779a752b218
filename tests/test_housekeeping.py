"""What keeps the database small: old rows go, what is not published yet stays, and a drop is said aloud."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from oneweb_bridge.clock import Clock
from oneweb_bridge.config.schema import History, State
from oneweb_bridge.model.records import Alert, Batch, Entry, Positions, RowType, Waiting
from oneweb_bridge.store import journal, places, store
from oneweb_bridge.store.engine import Connection
from oneweb_bridge.store.housekeeping import SLICE, trim
from oneweb_bridge.store.journal import Journal
from oneweb_bridge.store.places import Place

DAY = 86_400_000
NOW = 100 * DAY
OUTPUTS = ("mqtt",)


class House:
    """A database, a clock that the test turns, and what was alerted."""

    def __init__(self, db: store.Store, rows: Journal, raw: Connection, place: Place) -> None:
        self.db = db
        self.rows = rows
        self.raw = raw
        self.place = place
        self.now = 0.0
        self.alerts: list[Alert] = []

    async def say(self, days_ago: float, *whats: RowType, size: int = 2, times: int = 1) -> None:
        """Writes rows as they would have been written some days ago."""
        self.now = (NOW - days_ago * DAY) / 1000
        body = b"{" + b" " * size + b"}"
        await self.db.commit(Batch(entries=[Entry("terminal", "T", what, "x", 0, body) for what in whats * times]))

    async def trim(self, outputs: tuple[str, ...] = OUTPUTS, **state: Any) -> int:
        classes = {"changed": ["events"], "metric": ["metrics"]}
        return await trim(
            self.raw, State(**state), outputs, self._alert, NOW, classes=lambda row: classes.get(row.what, [])
        )

    async def _alert(self, alert: Alert) -> None:
        self.alerts.append(alert)

    async def left(self) -> list[str]:
        return [row.what for row in await self.rows.after(0, 10**6)]


def now(houses: list[House]) -> float:
    """What the clock says, also before there is a house."""
    return houses[0].now if houses else 0.0


@pytest.fixture
async def house(place: Place) -> AsyncIterator[House]:
    houses = list[House]()
    async with (
        store.open_store(place, Clock(lambda: now(houses), lambda: now(houses), "a boot")) as db,
        journal.open_journal(place, "mqtt") as rows,
        places.open_connection(place) as raw,
    ):
        houses.append(House(db, rows, raw, place))
        yield houses[0]


async def test_rows_are_kept_as_long_as_their_kind_says(house: House) -> None:
    """Events with alerts, samples and what only passes through have their own time, and go when it is over."""
    await house.say(31, "added", "metric", "state", "alert")
    await house.say(29, "changed", "history", "alert")
    await house.say(8, "removed", "usage", "clear")
    await house.say(6, "components", "metric", "state")
    await house.say(0.5, "changed", "metric", "state")
    await house.rows.advance(99)
    assert await house.trim() == 8
    assert await house.left() == ["changed", "alert", "removed", "components", "metric", "changed", "metric", "state"]
    assert house.alerts == []


async def test_what_is_not_published_yet_stays(house: House) -> None:
    """A row that an output has not sent is kept whatever its age, up to `max_backlog`."""
    await house.say(60, "metric", "metric", "metric")
    await house.rows.advance(1)
    assert await house.trim(max_backlog=90 * 86400.0) == 1
    assert await house.left() == ["metric", "metric"]
    assert await house.trim(max_backlog=90 * 86400.0, history=History(max_size=1)) == 0
    assert house.alerts == []


async def test_slowest_output_decides(house: House) -> None:
    """With two outputs, only what both have sent may go."""
    await house.say(60, "metric", "metric", "metric")
    await house.rows.advance(3)
    async with journal.open_journal(house.place, "sparkplug") as other:
        await other.advance(2)
    assert await house.trim(("mqtt", "sparkplug"), max_backlog=90 * 86400.0) == 2
    assert await house.left() == ["metric"]


async def test_backlog_that_is_too_old_is_dropped_counted_and_alerted(house: House) -> None:
    """What the broker has not taken for `max_backlog` is passed over: counted, alerted, and to be restored."""
    await house.say(20, "metric", "metric")
    await house.say(9, "metric", "metric", "metric")
    await house.say(1, "metric")
    await house.rows.advance(2)
    await house.trim()
    assert await house.rows.cursor() == 5
    assert await house.rows.counts() == (3, 0)
    assert (await house.rows.restore_mark()).after == 2
    assert await house.left() == ["metric"]
    (alert,) = house.alerts
    assert alert.kind == "backlog_dropped"
    assert alert.message.startswith("3 messages")


async def test_drop_of_one_output_is_no_loss_of_another(house: House) -> None:
    """Where one output is behind, only that one counts what it never sent, and has topics to restore."""
    await house.say(9, "metric", "metric", "metric")
    await house.say(1, "metric")
    await house.rows.advance(4)
    async with journal.open_journal(house.place, "sparkplug") as other:
        await other.advance(1)
        await house.trim(("mqtt", "sparkplug"))
        assert (await other.counts(), (await other.restore_mark()).after) == ((2, 0), 1)
        assert (await house.rows.counts(), (await house.rows.restore_mark()).after) == ((0, 0), None)


async def test_second_drop_is_added_and_restores_from_the_first(house: House) -> None:
    """Drops add up as numbers, and the place to restore from stays the oldest one."""
    await house.say(20, "metric", times=8)
    await house.rows.advance(1)
    await house.trim()
    await house.say(9, "metric", times=5)
    await house.trim()
    assert await house.rows.counts() == (12, 0)
    assert (await house.rows.restore_mark()).after == 1
    assert await house.rows.cursor() == 13


async def test_what_waits_of_a_class_is_kept_and_then_dropped_like_a_backlog(house: House) -> None:
    """Rows of a class that is refused are behind the cursor and stay, up to `max_backlog`; only they count as lost."""
    await house.say(20, "metric", "changed", "metric")
    await house.say(9, "changed", "metric")
    await house.say(1, "changed")
    await house.rows.save(Positions(6, {"events": Waiting(1, 3)}))
    assert await house.trim(max_backlog=90 * 86400.0) == 1
    assert await house.left() == ["changed", "metric", "changed", "metric", "changed"]
    assert house.alerts == []
    await house.trim()
    assert (await house.rows.positions()).waiting["events"].seq == 5
    assert await house.rows.counts() == (2, 0)
    assert (await house.rows.restore_mark()).after == 1
    assert [alert.message.split(" older")[0] for alert in house.alerts] == ["2 messages"]
    assert await house.rows.cursor() == 6


async def test_trim_deletes_nothing_from_a_young_published_journal(house: House) -> None:
    """An empty journal, and one that is young and published, are left alone without a word."""
    assert await house.trim() == 0
    await house.say(1, "metric")
    await house.rows.advance(1)
    assert await house.trim() == 0
    assert await house.trim() == 0
    assert house.alerts == []
    assert await house.rows.counts() == (0, 0)


async def test_oldest_rows_go_while_the_file_is_too_large(house: House) -> None:
    """Above `max_size` the oldest published rows go first, whatever their kind, until the rest fits."""
    await house.say(1, "changed", times=2 * SLICE, size=2000)
    await house.say(0, "metric", times=SLICE, size=2000)
    await house.rows.advance(99_999)
    await house.trim(history=History(max_size=2_400_000))
    left = await house.left()
    assert SLICE <= len(left) < 3 * SLICE
    assert left[-SLICE:] == ["metric"] * SLICE
    assert await house.rows.head() == 3 * SLICE


async def test_many_old_rows_all_go(house: House) -> None:
    """More rows than one slice are deleted in one round."""
    await house.say(40, "metric", times=2 * SLICE + 1)
    await house.rows.advance(99_999)
    assert await house.trim() == 2 * SLICE + 1
    assert await house.left() == []


async def test_records_are_never_trimmed(house: House) -> None:
    """The retained topics' contents stay, however old the rows are that published them."""
    await house.db.commit(Batch(entries=[Entry("terminal", "T", "added", "", 0, b"{}")]))
    await house.rows.advance(1)
    await house.raw.execute("INSERT INTO record (kind, id, doc, seq) VALUES ('terminal', 'T', '{}', 1)")
    await house.trim(history=History(max_size=1))
    assert await house.left() == []
    assert await house.rows.retained.records_between(0, 9) == [(1, "terminal", "T", b"{}")]
