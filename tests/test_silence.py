"""Reports whose pipeline hangs: when it goes on, nothing that it held back is lost, and asking for it costs little."""

import json
import math
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import stamina
from multidict import CIMultiDict, CIMultiDictProxy

from oneweb_bridge.api.answers import Answer
from oneweb_bridge.api.errors import NotFound
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.polling import time_windows
from oneweb_bridge.simulator.clock import parse_rfc3339
from tests.polls import Bench, bench

SIGNAL = "ut_signal_quality"
MINUTE, HOUR, DAY = 60, 3_600, 86_400
DELAY = 5 * MINUTE
"""Seconds from a measurement until the API shows it, while its pipeline works."""


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


class Vendor:
    """An API that measures each id every ten minutes, and whose pipeline hangs for some of them. Times in seconds."""

    def __init__(self, b: Bench, ids: tuple[str, ...]) -> None:
        self.b = b
        self.begun = b.sim.world.clock.now() - 2 * HOUR
        self.ids = ids
        self.hung: dict[str, tuple[float, float]] = {}
        self.requests: list[tuple[float, float, str]] = []
        self.unknown: set[str] = set()
        self.late: dict[tuple[str, int], float] = {}
        self.behind = 0
        """Seconds by which the dates of answers are behind."""
        b.api.get = self.get  # type: ignore[method-assign]  # what the API shows is all that is of interest here

    def now(self) -> float:
        return self.b.sim.world.clock.now()

    def hang(self, begin: float, end: float, *ids: str) -> None:
        """Nothing that was measured from shortly before `begin` on is shown before `end`."""
        self.hung |= dict.fromkeys(ids or self.ids, (begin, end))

    def measured(self, id: str) -> list[int]:
        """When an id was measured so far; each has a phase of its own."""
        phase = 60 * self.ids.index(id)
        return list(range(math.ceil(self.begun) + phase, math.floor(self.now()), 10 * MINUTE))

    def shown(self, id: str) -> list[int]:
        """Those of them that the API shows."""
        begin, end = self.hung.get(id, (math.inf, math.inf))
        stuck = begin <= self.now() < end
        shown = [ts for ts in self.measured(id) if ts + DELAY <= (begin if stuck else self.now())]
        return [ts for ts in shown if self.late.get((id, ts), 0) <= self.now()]

    async def get(
        self, path: str, params: Mapping[str, str] | None = None, empty_status: Collection[int] = ()
    ) -> Answer:
        """The samples of the window that is asked for, of all ids or of the one in the path."""
        params, of = params or {}, path.rpartition("/")[2]
        begin = parse_rfc3339(params["startDateTime"]) if "startDateTime" in params else self.begun
        end = parse_rfc3339(params["endDateTime"]) if "endDateTime" in params else math.inf
        ids = (of,) if of in self.ids else self.ids
        if of in self.unknown:
            error = NotFound(f"{path} answered 404")
            error.status = 404
            raise error
        if params.get("offset", "0") == "0":
            self.requests.append((begin, end, of))
        first = params.get("offset", "0") == "0"
        body = [self._entry(id, begin, end) for id in ids] if first else []
        return Answer(
            200, json.dumps(body).encode(), CIMultiDictProxy(CIMultiDict()), round((self.now() - self.behind) * 1000)
        )

    def _entry(self, id: str, begin: float, end: float) -> dict[str, Any]:
        times = [ts for ts in self.shown(id) if begin <= ts < end]
        value = [{"name": "sinr", "value": 1.0}]
        return {
            "id": id,
            "measurement": [{"timestamp": rfc3339(ts * 1000), "performanceIndicator": value} for ts in times],
        }

    async def polled(self, seconds: float, every: float = 10 * MINUTE) -> AsyncIterator[int]:
        """Polls for so long. Gives the number of requests of each poll."""
        for _ in range(round(seconds / every)):
            self.b.sim.advance(every)
            before = len(self.requests)
            await self.b.poll(SIGNAL)
            yield len(self.requests) - before

    async def costs(self, seconds: float, every: float = 10 * MINUTE) -> list[int]:
        """The requests of each poll of so long a time."""
        return [count async for count in self.polled(seconds, every)]

    async def published(self) -> dict[str, list[int]]:
        """The times of the samples that went out, of each id, in their order."""
        times: dict[str, list[int]] = {id: [] for id in self.ids}
        for row in await self.b.news():
            if row.what in ("metric", "history") and row.name == "signal_quality":
                times[row.id].append(row.ts // 1000)
        return times

    def expected(self) -> dict[str, list[int]]:
        return {id: self.shown(id) for id in self.ids}


@pytest.mark.parametrize("silence", [1 * HOUR, 5 * HOUR, 7 * HOUR, 30 * HOUR, 6 * DAY])
@pytest.mark.parametrize("required", [False, True])
async def test_report_that_was_silent_loses_nothing(silence: int, required: bool, tmp_path: Path) -> None:
    """All that a pipeline held back goes out once, oldest first; asking costs a request a poll until it goes on."""
    window = {"required": required, "length": "6h"}
    async with bench(tmp_path, polling={SIGNAL: {"window": window}}) as b:
        vendor = Vendor(b, ("a", "b", "c"))
        await vendor.costs(HOUR)
        vendor.hang(vendor.now(), vendor.now() + silence)
        every = 10 * MINUTE if silence <= 7 * HOUR else HOUR
        costs = await vendor.costs(silence - every, every)
        assert set(costs) == {1}
        (cost,) = await vendor.costs(every, every)
        assert cost <= math.ceil((silence + 2 * HOUR) / (6 * HOUR)) + 1
        published = await vendor.published()
        assert published == vendor.expected()
        longest = max(end - begin for begin, end, _ in vendor.requests if end < math.inf) if required else 0
        assert longest <= 6 * HOUR
        # Once it goes on, all is as before.
        assert set(await vendor.costs(2 * HOUR)) == {1}
        after = await vendor.published()
        assert {id: published[id] + after[id] for id in vendor.ids} == vendor.expected()


async def test_window_is_never_later_than_the_newest_sample(tmp_path: Path) -> None:
    """Up to the length of a window, each poll asks from the newest sample known of the call, and its lateness."""
    async with bench(tmp_path) as b:
        vendor = Vendor(b, ("a", "b"))
        await vendor.costs(HOUR)
        newest = max(max(times) for times in (await vendor.published()).values())
        vendor.hang(vendor.now(), vendor.now() + DAY)
        await vendor.costs(5 * HOUR)
        assert max(begin for begin, _, _ in vendor.requests) <= newest


async def test_id_that_comes_separately_and_was_silent_loses_nothing(tmp_path: Path) -> None:
    """Where ids are asked for one by one, one of them that was silent is made up for by itself."""
    path = "/performanceMonitoring/v2/userTerminal/signalQuality/{ut_id}"
    settings = {"path": path, "for_each": "user_terminals", "page": {"style": "none"}}
    async with bench(tmp_path, polling={SIGNAL: settings}) as b:
        await b.poll("user_terminals")
        ids = tuple(sorted(b.ids("terminals")))
        vendor = Vendor(b, ids)
        await vendor.costs(HOUR)
        vendor.hang(vendor.now(), vendor.now() + 20 * HOUR, ids[2])
        vendor.hang(vendor.now(), vendor.now() + DAY * 9, ids[4])
        assert set(await vendor.costs(20 * HOUR - HOUR, HOUR)) == {len(ids)}
        (cost,) = await vendor.costs(HOUR, HOUR)
        assert cost == len(ids) + 4
        assert {of for _, end, of in vendor.requests if end < math.inf} == {ids[2]}
        assert await vendor.published() == vendor.expected()
        # One that the API does not know any more fails nobody's poll.
        vendor.unknown.add(ids[4])
        assert len(await vendor.costs(HOUR)) == 6


async def test_interrupted_making_up_goes_on_where_it_was(tmp_path: Path) -> None:
    """A poll that fails in the middle of what was missed loses nothing and sends nothing twice."""
    async with bench(tmp_path) as b:
        vendor = Vendor(b, ("a", "b"))
        await vendor.costs(HOUR)
        vendor.hang(vendor.now(), vendor.now() + 40 * HOUR)
        await vendor.costs(39 * HOUR, HOUR)
        real, left = vendor.get, 4

        async def failing(
            path: str, params: Mapping[str, str] | None = None, empty_status: Collection[int] = ()
        ) -> Answer:
            nonlocal left
            left -= 1
            if left == 0:
                raise RuntimeError("cut")
            return await real(path, params, empty_status)

        b.api.get = failing  # type: ignore[method-assign]  # as above
        b.sim.advance(HOUR)
        with pytest.raises(RuntimeError, match="cut"):
            await b.poll(SIGNAL)
        await vendor.costs(HOUR)
        assert await vendor.published() == vendor.expected()


async def test_sample_that_was_late_already_is_not_forgotten_in_a_silence(tmp_path: Path) -> None:
    """One that is older than the newest of its id, and hung with all others, goes out when they do."""
    async with bench(tmp_path) as b:
        vendor = Vendor(b, ("a", "b"))
        end = vendor.now() + HOUR + 8 * HOUR
        b.sim.advance(HOUR)
        late = vendor.shown("b")[-2]
        vendor.late["b", late] = end
        await b.poll(SIGNAL)
        vendor.hang(vendor.now(), end)
        await vendor.costs(8 * HOUR)
        published = await vendor.published()
        assert late in published["b"]
        assert {id: sorted(times) for id, times in published.items()} == vendor.expected()


async def test_window_that_a_wrong_clock_has_left_ahead_loses_nothing(tmp_path: Path) -> None:
    """Where the last window seems to end in ten years, the next begins at the newest sample."""
    async with bench(tmp_path) as b:
        vendor = Vendor(b, ("a", "b"))
        await vendor.costs(HOUR)
        ahead = round((vendor.now() + 3650 * DAY) * 1000)
        await b.store._connections._writer.execute("UPDATE call SET window_end = ?", (ahead,))
        await vendor.costs(8 * HOUR, 8 * HOUR)
        assert await vendor.published() == vendor.expected()


@pytest.mark.parametrize("behind", [DAY, 730 * DAY])
async def test_date_that_is_behind_for_once_asks_for_nothing_again(behind: int, tmp_path: Path) -> None:
    """An answer that says it is older than the newest sample does not take the next window back."""
    async with bench(tmp_path) as b:
        vendor = Vendor(b, ("a", "b"))
        await vendor.costs(HOUR)
        await vendor.costs(HOUR)
        before = (await b.store.progress.load(SIGNAL)).window_end
        vendor.behind = behind
        await vendor.costs(HOUR)
        assert (await b.store.progress.load(SIGNAL)).window_end == before
        vendor.behind = 0
        vendor.requests.clear()
        await vendor.costs(HOUR)
        assert len(vendor.requests) == 6
        assert (await b.store.progress.load(SIGNAL)).window_end == round(vendor.now() * 1000)
        assert await vendor.published() == vendor.expected()


def test_end_of_a_window_goes_by_the_time_of_the_api_that_can_be_right() -> None:
    """Forward with every date, back only with one that no sample contradicts, and never beyond it."""
    assert time_windows.window_end_after(0, None, 50, 40) == 50
    assert time_windows.window_end_after(60, None, 50, 40) == 50
    assert time_windows.window_end_after(60, None, 50, 55) == 60
    assert time_windows.window_end_after(30, 45, 50, 40) == 45
    assert time_windows.window_end_after(30, 45, 35, 40) == 35
    assert time_windows.window_end_after(0, None, 50, -1) == 50


async def test_window_that_a_wrong_clock_has_left_behind_asks_for_nothing_twice(tmp_path: Path) -> None:
    """Where the last window seems to have ended a day too early, what was forgotten since is not asked for again."""
    async with bench(tmp_path) as b:
        vendor = Vendor(b, ("a", "b"))
        for _ in range(3):
            await vendor.costs(HOUR)
        horizon = (await b.store.progress.load(SIGNAL)).horizon
        behind = round((vendor.now() - DAY) * 1000)
        assert behind < horizon
        await b.store._connections._writer.execute("UPDATE call SET window_end = ?", (behind,))
        vendor.requests.clear()
        await vendor.costs(HOUR)
        assert min(begin for begin, _, _ in vendor.requests) * 1000 >= horizon
        assert await vendor.published() == vendor.expected()
