"""What was alerted and still holds is no news after a restart; that it is over is, for the bridge that runs then."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.simulator import Simulator
from tests.polls import Bench, fleet, opened
from tests.test_poll_runner import managed_poll, manager, silence

SITES, PRODUCTS, TERMINALS, SIGNAL = "sites", "products", "user_terminals", "ut_signal_quality"
MINUTE = 60.0


async def answer(b: Bench, call: str, change: Callable[[Any], Any]) -> None:
    """From now on the API answers a call as it does now, but changed."""
    row = CALLS[call]
    body = change(json.loads((await b.api.get(row.path, {"limit": "1000"})).body))
    b.sim.clear_faults()
    b.sim.fault("status", status=200, body=json.dumps(body), path=row.path, headers={"X-Total-Count": str(len(body))})


def without_an_id(records: Any) -> Any:
    return [{**records[0], "id": None}, *records[1:]]


def without_a_date(records: Any) -> Any:
    return [{**record, "startDate": "0001-01-01"} for record in records]


@contextlib.asynccontextmanager
async def started(directory: Path, simulator: Simulator) -> AsyncIterator[tuple[Bench, Callable[[str], Any]]]:
    """A bridge that has just started, and how it polls a call: the kinds of alerts that came."""
    async with opened(directory, simulator) as b:
        await b.news()
        poller = await manager(b)

        async def poll(call: str) -> list[str]:
            rows = await managed_poll(b, poller, call)
            return [row.body["kind"] for row in rows if row.what == "alert"]

        yield b, poll


@pytest.mark.parametrize(
    ("call", "change", "kind"),
    [(SITES, without_an_id, "set_aside"), (PRODUCTS, without_a_date, "value_unreadable")],
)
async def test_what_holds_over_restarts_is_told_once(
    call: str, change: Callable[[Any], Any], kind: str, tmp_path: Path
) -> None:
    """Also where its records were not decoded since the restart; when it is over and comes again, it is told again."""
    published = []
    async with fleet() as simulator:
        async with started(tmp_path, simulator) as (b, poll):
            await poll(call)
            await answer(b, call, change)
            published.append([name for _ in range(2) for name in await poll(call)])
        for _ in range(2):
            async with started(tmp_path, simulator) as (b, poll):
                published.append([name for _ in range(2) for name in await poll(call)])
        simulator.clear_faults()
        async with started(tmp_path, simulator) as (b, poll):
            published.append([name for _ in range(2) for name in await poll(call)])
            await answer(b, call, change)
            published.append(await poll(call))
    assert [names.count(kind) for names in published] == [1, 0, 0, 0, 1]


async def test_a_record_that_changes_after_a_restart_is_no_news(tmp_path: Path) -> None:
    """Its value is as unreadable as it was."""
    async with fleet() as simulator:
        async with started(tmp_path, simulator) as (b, poll):
            await answer(b, PRODUCTS, without_a_date)
            assert "value_unreadable" in await poll(PRODUCTS)
        async with started(tmp_path, simulator) as (b, poll):
            assert "value_unreadable" not in await poll(PRODUCTS)
            simulator.clear_faults()
            await answer(b, PRODUCTS, lambda records: [{**r, "name": "n"} for r in without_a_date(records)])
            assert "value_unreadable" not in await poll(PRODUCTS)


async def test_a_report_that_has_stopped_is_told_once_over_restarts(tmp_path: Path) -> None:
    """The terminals of which it was told are remembered; once their samples came again, another stop is told."""
    async with fleet(terminals=12) as simulator:
        stopped: list[str] = []

        async def polls(count: int) -> int:
            async with started(tmp_path, simulator) as (b, poll):
                if not stopped:
                    await poll(TERMINALS)
                    await poll(SIGNAL)
                    stopped.extend(sorted(b.ids("terminals")[:4]))
                    await silence(b, *stopped)
                names = [name for _ in range(count) for call in (TERMINALS, SIGNAL) for name in await poll(call)]
                return names.count("report_stopped")

        assert await polls(12) == 1
        assert await polls(3) == 0
        for imei in stopped:
            simulator.fleet("set_state", id=imei, state="online")
        assert await polls(8) == 0
        async with opened(tmp_path, simulator) as b:
            await silence(b, *stopped)
        assert await polls(12) == 1


async def test_a_poll_that_fails_ends_no_finding(tmp_path: Path) -> None:
    """That an answer was as expected again is not said because no answer came."""
    async with fleet() as simulator, started(tmp_path, simulator) as (b, poll):
        await poll(SITES)
        await answer(b, SITES, lambda records: [{**record, "name": None} for record in records])
        first = await poll(SITES)
        assert "answer_unexpected" in first
        simulator.clear_faults()
        simulator.fault("html", path=CALLS[SITES].path, count=1)
        assert await poll(SITES) == ["bad_answer"]
        assert await poll(SITES) == ["answer_unexpected"], "it is over"
