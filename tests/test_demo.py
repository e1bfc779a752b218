"""The demo's past: what the bridge knows when the demo begins, and that its fleet raises no false alarm."""

import json
from pathlib import Path
from typing import Any

import msgspec

from oneweb_bridge.clock import SYSTEM
from oneweb_bridge.demo import demo, past
from oneweb_bridge.simulator import Simulator, serve
from tests.polls import opened

DAY_MS = round(1000 * past.DAY)
TERMINALS = 8
REPORTS = ("ut_link_availability", "ut_signal_quality", "ut_resource_state", "ut_traffic", "ut_link_metrics")
"""The reports that may be found to have stopped."""


async def lived_through(directory: Path, simulator: Simulator) -> None:
    """Has the demo's bridge live through the past, into `directory`/bridge.db."""
    config = demo.configuration(simulator.url, 1883, directory)
    state = msgspec.structs.replace(config.state, path=str(directory / "bridge.db"))
    await past.live_through(msgspec.structs.replace(config, state=state), simulator)


async def test_demo_begins_with_forecasts_and_trends(tmp_path: Path) -> None:
    """Every allowance has a forecast from the first moment, and the bridge itself catches up with the last day of
    reports, an hour of which has as many samples as OneWeb's own periods give.
    """
    async with serve(demo.simulator_options(TERMINALS, 1.0, past.DAYS)) as simulator:
        await lived_through(tmp_path, simulator)
        now = SYSTEM.now()
        assert abs(simulator.world.clock.now() - now / 1000) < 60
        async with opened(tmp_path, simulator) as b:
            docs = await b.rows("SELECT doc FROM record WHERE kind = 'forecast'")
            forecasts = [json.loads(doc) for (doc,) in docs]
            outcome = await b.poll("ut_signal_quality")
            samples = [row for row in await b.news() if row.name == "signal_quality"]
            alerts = await b.rows("SELECT count(*) FROM journal WHERE what = 'alert' AND name != 'allowance_exhausts'")
    assert {forecast["status"] for forecast in forecasts} == {"ok", "unlimited"}
    assert {"exhausted_p50" in forecast for forecast in forecasts} == {True, False}
    assert alerts == [(0,)]
    # Of every terminal that is online most of the time: a sample in ten minutes.
    assert outcome.samples > 60 * TERMINALS
    assert min(row.ts for row in samples) < now - 0.9 * DAY_MS


async def test_ten_minutes_of_the_demo_raise_no_false_alarm(tmp_path: Path) -> None:
    """No report of a terminal counts as stopped, however often terminals go off and come back in the demo."""
    options = msgspec.structs.replace(demo.simulator_options(25, 1.0, 0), speed=0.0)
    config = demo.configuration("http://127.0.0.1:1", 1883, tmp_path)
    changes: dict[str, Any] = {
        "polling": {
            id: {"interval": call.interval, "lateness": call.lateness, "enabled": True}
            for id, call in config.polling.items()
            if id in REPORTS
        }
    }
    messages = []
    async with serve(options) as simulator, opened(tmp_path, simulator, **changes) as b:
        due = {"user_terminals": 0.0, **dict.fromkeys(REPORTS, 0.0)}
        for second in range(0, 600, 2):
            for call in [call for call, at in due.items() if at <= second]:
                due[call] += demo.INTERVALS[call]
                outcome = await b.poll(call)
                messages += [alert.message for alert in outcome.alerts] + ([outcome.held] if outcome.held else [])
            await b.later(2.0)
    assert messages == []


async def test_sites_that_vanish_in_the_demo_are_held(tmp_path: Path) -> None:
    """Once they were missing often and long enough, their removal waits until it is released."""
    options = msgspec.structs.replace(demo.simulator_options(25, 1.0, 0), speed=0.0)
    config = demo.configuration("http://127.0.0.1:1", 1883, tmp_path)
    after_time = config.removal.after_time
    async with serve(options) as simulator, opened(tmp_path, simulator, removal={"after_time": after_time}) as b:
        outcome = await b.poll("sites")
        hidden = demo.hide_sites(simulator)
        for _ in range(config.removal.after_missing + 1):
            await b.later(demo.INTERVALS["sites"])
            outcome = await b.poll("sites")
    assert f"{len(hidden)} site records are missing at once" in outcome.held
