"""The counter of repeats, and two kills of the campaign."""

from pathlib import Path

from tests.kill_rounds import Figures, RepeatCounter, play_stage
from tests.recording import Line


def test_messages_of_the_journal_that_come_again_are_counted_once_a_life() -> None:
    lines = [Line(1, "oneweb/terminal/1/state", b"a"), Line(1, "oneweb/bridge/status", b"online")]
    counter = RepeatCounter()
    assert counter.count(lines) == (1, 0)
    lines += [
        Line(2, note="connected"),
        Line(2, "oneweb/bridge/status", b"online"),
        Line(2, "oneweb/terminal/1/state", b"a"),
        Line(2, "oneweb/terminal/1/state", b"b"),
    ]
    assert counter.count(lines) == (2, 1)
    assert counter.count(lines) == (0, 0)


def test_campaign_ends_with_one_line() -> None:
    figures = Figures(repeats=[0, 17, 3], messages=900, findings=["x"])
    assert str(figures) == (
        "3 kills, 900 messages: at most 17 came again after one (median 3, none after 1), 1 violations"
    )


async def test_two_kills_repeat_little_and_lose_nothing(tmp_path: Path) -> None:
    """`python -m tests.kill_rounds 500` plays more."""
    figures = await play_stage(tmp_path, 5, 2)
    assert figures.findings == []
    assert len(figures.repeats) == 2
    assert figures.messages > 0
