"""Folding while the bridge runs: nothing is trimmed before it is folded, and what is wrong is told and hurts nobody."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from oneweb_bridge.clock import Clock
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config, History, State
from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.model.records import Alert, Batch, Entry
from oneweb_bridge.store import housekeeping, journal, places, store
from oneweb_bridge.store.places import place_of
from oneweb_bridge.trends import task
from oneweb_bridge.trends.chunks import DAY_MS
from oneweb_bridge.trends.items import Selection, iter_items
from oneweb_bridge.trends.reading import open_history
from oneweb_bridge.trends.series import Span

BEGIN = 20_000 * DAY_MS
NOW = 100 * DAY_MS


class Bridge:
    """A database whose rows were written a week ago, a folder, and what was alerted."""

    def __init__(self, config: Config, db: store.Store) -> None:
        self.config = config
        self.db = db
        self.alerts: list[Alert] = []
        self.folder: task.Folder

    async def alert(self, alert: Alert) -> None:
        self.alerts.append(alert)

    def kinds(self) -> list[str]:
        return [alert.kind for alert in self.alerts]

    async def write(self, *offsets: int) -> None:
        """Samples some ms after the begin of a day that is long over."""
        entries = []
        for ts in (BEGIN + offset for offset in offsets):
            body = encode({"imei": "T", "report": "traffic", "time": rfc3339(ts), "ts": ts, "tx_bytes": 1})
            entries.append(Entry("terminal", "T", "history", "traffic", ts, body))
        await self.db.commit(Batch(entries=entries))

    async def trim(self, **state: Any) -> int:
        """What housekeeping does, with everything published."""
        path = place_of(self.config)
        async with places.open_connection(path) as raw, journal.open_journal(path, "mqtt") as rows:
            await rows.advance(await rows.head())
            given = State(**{"history": History(samples=86400.0), "max_backlog": 1e9, **state})
            return await housekeeping.trim(raw, given, ("mqtt",), self.alert, NOW, fold=self.folder.fold_through)

    def shown(self) -> list[int]:
        with open_history(place_of(self.config), trends_of(self.config)) as history:
            return [item.ts - BEGIN for item in iter_items(history, Selection("terminal", "T", Span(0, 1 << 50)))]


def trends_of(config: Config) -> Path:
    """The file of the trends."""
    place = task.trends_place_of(config, place_of(config))
    assert isinstance(place, Path)
    return place


@contextlib.asynccontextmanager
async def started(directory: Path) -> AsyncIterator[Bridge]:
    config = replace(parse("", {}), state=State(path=str(directory / "bridge.db")))
    then = (NOW - 7 * DAY_MS) / 1000
    async with store.open_store(place_of(config), Clock(lambda: then, lambda: then, "a boot")) as db:
        made = Bridge(config, db)
        clocks = task.Clocks(lambda: BEGIN + 9 * DAY_MS, lambda: NOW)
        async with task.open_folder(lambda: made.config, place_of(config), made.alert, clocks) as made.folder:
            yield made


async def test_nothing_is_trimmed_before_it_is_folded(tmp_path: Path) -> None:
    """Rows that are too old are folded in the same pass, and are in the history as before."""
    async with started(tmp_path) as bridge:
        await bridge.write(0, 1, 2)
        assert await bridge.trim() == 3
        assert bridge.shown() == [0, 1, 2]
        assert bridge.alerts == []


async def test_database_that_is_too_large_is_folded_before_it_is_trimmed(tmp_path: Path) -> None:
    """The size, too, takes nothing that is not folded."""
    async with started(tmp_path) as bridge:
        await bridge.write(0, 1, 2)
        assert await bridge.trim(history=History(samples=1e9, max_size=1)) == 3
        assert bridge.shown() == [0, 1, 2]


async def test_samples_wait_for_trends_that_cannot_be_written(tmp_path: Path) -> None:
    """Up to `state.max_backlog`, told once; then they go, counted and told. Afterwards all goes on."""
    async with started(tmp_path) as bridge:
        await bridge.write(0, 1, 2)
        blocked = trends_of(bridge.config)
        blocked.mkdir()
        assert [await bridge.trim(), await bridge.trim()] == [0, 0]
        assert bridge.kinds() == ["trends_behind"]
        assert await bridge.trim(max_backlog=86400.0) == 3
        assert bridge.kinds() == ["trends_behind", "trends_behind"]
        assert "3 samples" in bridge.alerts[-1].message
        async with journal.open_journal(tmp_path / "bridge.db", task.OUTPUT) as rows:
            assert await rows.counts() == (3, 0)
        blocked.rmdir()
        await bridge.write(5)
        assert await bridge.trim() == 1
        assert bridge.shown() == [5]


async def test_trends_that_are_removed_are_told_after_a_restart(tmp_path: Path) -> None:
    """The database knows that there were some; the first start of all says nothing."""
    for expected in ([], ["trends_lost"], []):
        async with started(tmp_path) as bridge:
            await bridge.write(0)
            await bridge.folder.fold_through(1)
            assert bridge.kinds() == expected
            assert bridge.shown() == [0]
        if not expected:
            trends_of(bridge.config).unlink()


async def test_first_pass_runs_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one after an hour; a bridge that is stopped ends it."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        raise asyncio.CancelledError

    async with started(tmp_path) as bridge:
        await bridge.write(0)
        monkeypatch.setattr("asyncio.sleep", sleep)
        with pytest.raises(asyncio.CancelledError):
            await bridge.folder.run()
        monkeypatch.undo()
        assert (pauses, bridge.shown()) == ([3600.0], [0])
        assert trends_of(bridge.config).exists()


async def test_disabled_trends_hold_up_nothing(tmp_path: Path) -> None:
    """Samples are trimmed as they were before there were trends, and there is no file."""
    async with started(tmp_path) as bridge:
        bridge.config = replace(bridge.config, trends=replace(bridge.config.trends, enabled=False))
        await bridge.write(0)
        assert await bridge.trim() == 1
        assert not trends_of(bridge.config).exists()
