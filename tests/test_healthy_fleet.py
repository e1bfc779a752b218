"""A fleet that is as it should be raises no alert, however long it is polled, and whenever the bridge restarts."""

from pathlib import Path

from oneweb_bridge.simulator import Simulator
from tests.healthy_fleet import messages_of
from tests.polls import fleet, opened

MINUTE = 60.0


async def test_healthy_fleet_tells_nothing_over_a_day(tmp_path: Path) -> None:
    """Terminals that go offline, come and go, move, are updated and renamed are the life of a fleet, not findings."""
    assert await messages_of(tmp_path, 25, 24) == []


async def _stopped_after_restart(simulator: Simulator, directory: Path) -> list[str]:
    """The first poll of a bridge that has just started again."""
    async with opened(directory, simulator) as b:
        await b.poll("user_terminals")
        return [a.message for a in (await b.poll("ut_signal_quality")).alerts if a.kind == "report_stopped"]


async def test_terminal_that_came_back_while_the_bridge_was_away_is_given_time(tmp_path: Path) -> None:
    """It was offline for hours, so its newest sample is old; that it is online again is no stopped report."""
    async with fleet() as simulator:
        imei = simulator.truth("terminals")[0]["id"]
        async with opened(tmp_path, simulator) as b:
            await b.poll("user_terminals", "ut_signal_quality")
            simulator.fleet("set_state", id=imei, state="offline")
            await b.later(180 * MINUTE)
            await b.poll("user_terminals", "ut_signal_quality")
        simulator.fleet("set_state", id=imei, state="online")
        simulator.advance(MINUTE)
        assert await _stopped_after_restart(simulator, tmp_path) == []


async def test_terminal_that_was_offline_unseen_is_given_time(tmp_path: Path) -> None:
    """It was online before the bridge was away and is so afterwards, so no event tells that its report had a reason."""
    async with fleet() as simulator:
        imei = simulator.truth("terminals")[0]["id"]
        async with opened(tmp_path, simulator) as b:
            await b.poll("user_terminals", "ut_signal_quality")
        simulator.fleet("set_state", id=imei, state="offline")
        simulator.advance(300 * MINUTE)
        simulator.fleet("set_state", id=imei, state="online")
        simulator.advance(MINUTE)
        assert await _stopped_after_restart(simulator, tmp_path) == []


async def test_report_that_stopped_is_alerted_after_a_short_restart(tmp_path: Path) -> None:
    """A restart does not arm the alert anew by itself: what had stopped before is told at the first poll."""
    async with fleet() as simulator:
        imei = simulator.truth("terminals")[0]["id"]
        async with opened(tmp_path, simulator) as b:
            await b.poll("user_terminals", "ut_signal_quality")
            simulator.fleet("set_state", id=imei, state="offline")
            simulator.fleet("set", id=imei, attributes={"resourceState": "online"})
            for _ in range(6):
                await b.later(12 * MINUTE)
                await b.poll("user_terminals", "ut_signal_quality")
        simulator.advance(20 * MINUTE)
        (message,) = await _stopped_after_restart(simulator, tmp_path)
    assert imei in message


async def test_terminal_that_the_last_listing_did_not_show_has_no_stopped_report(tmp_path: Path) -> None:
    """Its record is kept until it was missed often enough, but nobody knows any more whether it is online."""
    async with fleet() as simulator, opened(tmp_path, simulator) as b:
        imei = simulator.truth("terminals")[0]["id"]
        await b.poll("user_terminals", "ut_signal_quality")
        simulator.fleet("remove", id=imei)
        await b.poll("user_terminals")
        for _ in range(15):
            await b.later(12 * MINUTE)
            alerts = (await b.poll("ut_signal_quality")).alerts
            assert [alert.message for alert in alerts if alert.kind == "report_stopped"] == []
