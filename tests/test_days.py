"""Days of simulated time: a short one whose faults overlap holds, and each defect that is planted in one is found."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from oneweb_bridge.clock import SteadyTime
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.polling import removal, samples, schedule
from oneweb_bridge.store.samples import Samples
from tests import virtual_time
from tests.campaign import days
from tests.campaign.day_faults import FAULTS
from tests.campaign.days import HOUR, Plan
from tests.campaign.timeline import Span, Timeline, parse

HOURLY: dict[str, Any] = {
    call: {"interval": "1h"} for call in ("user_terminal_components", "organizations", "sites", "usage_consumption")
}
SHORT = Plan(terminals=12, hold_for=0.5 * HOUR, quiet=1.1 * HOUR, still=0.6 * HOUR, changes={"polling": HOURLY})
"""A few hours with all calls, every one of which is polled after its faults."""


def only(*calls: str) -> Plan:
    """A few hours with these calls."""
    others = {call: {"enabled": False} for call in CALLS if call not in calls}
    return msgspec.structs.replace(SHORT, changes={"polling": HOURLY | others})


def findings(directory: Path, plan: Plan, *spans: Span) -> set[str]:
    """The kinds of what is found in a short day of these faults; of calls that are not polled nothing is there."""
    result = days.play(directory, Timeline(5, spans), plan)
    return {finding.partition(":")[0] for finding in result.findings if not finding.startswith("missing ")}


# ── virtual time ───────────────────────────────────────────────────────────────────────────────


def test_day_of_pauses_takes_no_time_and_threads_take_none_of_it() -> None:
    """Where nobody works the next timer is due at once; while a thread works, time stands still."""

    async def day() -> tuple[float, float]:
        begun = time.monotonic()
        for _ in range(24):
            await asyncio.sleep(HOUR)
        passed = time.monotonic() - begun
        async with asyncio.timeout(0.001):
            # Longer than the timeout, for whoever looks at a real clock.
            await asyncio.to_thread(_work)
        return passed, time.time()

    passed, wall = virtual_time.run(day(), 1_000_000.0)

    assert round(passed) == 24 * HOUR
    assert round(wall) == 1_000_000 + 24 * HOUR
    assert time.time() > wall


def _work() -> int:
    return sum(range(200_000))


def test_loop_in_which_nothing_can_happen_any_more_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a timer and without work it would wait for ever."""
    monkeypatch.setattr(virtual_time, "MAX_WORK_S", 0.1)
    with pytest.raises(TimeoutError, match="nothing is due"):
        virtual_time.run(_wait_for_nobody(), 0.0)


async def _wait_for_nobody() -> None:
    await asyncio.Event().wait()


# ── a day that holds ───────────────────────────────────────────────────────────────────────────


def test_nothing_is_lost_or_invented_in_a_day(tmp_path: Path) -> None:
    """Three faults that overlap: afterwards all is as if they had not been, and all calls keep their intervals."""
    spans = Span("bridge restarted", 0, 2400), Span("clock a day off", 300, 2400), Span("commits fail", 600, 600)

    assert days.play(tmp_path, Timeline(5, spans), SHORT).findings == []


# ── planted defects ────────────────────────────────────────────────────────────────────────────


def _with_hold(factor: float) -> Callable[..., Any]:
    """Decisions that hold for another time than the rule says."""

    def decide(rule: Any, *arguments: Any, **named: Any) -> Any:
        return real(msgspec.structs.replace(rule, hold_for=rule.hold_for * factor), *arguments, **named)

    real = removal.decide
    return decide


@pytest.mark.parametrize("factor", [0.5, 1.5, 1.0])
def test_hold_that_is_shortened_or_lengthened_is_found(
    factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many removals go after `hold_for`: not sooner, and not later; they are back at the end."""
    monkeypatch.setattr(removal, "decide", _with_hold(factor))

    kinds = findings(tmp_path, only("user_terminals"), Span("mass removal", 0, 1.3 * HOUR))
    assert kinds == set() if factor == 1.0 else "lost event" in kinds


def test_time_of_the_wall_clock_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps must end no hold, and no pause between two messages of presence."""
    monkeypatch.setattr(SteadyTime, "now", lambda self: self._clock.now())

    spans = Span("mass removal", 0, 2500), Span("clock a day off", 300, 2000)
    assert "presence" in findings(tmp_path, only("user_terminals"), *spans)


def test_sample_that_is_published_twice_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each poll asks for what was there already."""

    async def known_samples(*_: Any, **__: Any) -> dict[Any, Any]:
        return {}

    monkeypatch.setattr(Samples, "known_samples", known_samples)

    kinds = findings(tmp_path, only("user_terminals", "ut_traffic"), Span("bridge restarted", 0, 2000))
    assert kinds & {"sample twice", "step back", "other bytes"}


def test_call_that_is_not_polled_again_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off has an end."""
    monkeypatch.setattr(schedule, "backoff", lambda *_: 9 * HOUR)

    kinds = findings(tmp_path, only("user_terminals"), Span("api down", 0, 2000))
    assert kinds == {"not as promised"}


def test_interval_that_is_not_kept_and_presence_too_often_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polls keep their distance from start to start, and presence its hour."""
    monkeypatch.setattr(schedule, "next_wait", lambda interval, _: interval * 1.5)
    monkeypatch.setattr(samples, "PRESENCE_INTERVAL_MS", 600_000)

    kinds = findings(tmp_path, only("user_terminals"), Span("names odd", 0, 600))
    assert kinds == {"not as promised", "presence"}


# ── what is drawn ──────────────────────────────────────────────────────────────────────────────


def test_day_is_drawn_from_its_seed_alone() -> None:
    """The same seed and actor give the same day, with a fault of that actor, and it is read as it is written."""
    for seed in range(30):
        for actor in days.ACTORS:
            timeline = days.draw(seed, actor)
            assert timeline == days.draw(seed, actor)
            assert actor in {FAULTS[name].actor for name in timeline.faults}
            assert parse(str(timeline), seed) == timeline
            assert all(span.begin < 2 * HOUR < span.begin + span.seconds for span in timeline.spans)
