"""The count of repeats, and two kills of the campaign."""

from pathlib import Path

from tests.kill_rounds import PROBE, Figures, count_repeats, play_stage
from tests.recording import Line


def test_messages_of_the_journal_that_come_again_are_counted_by_connection() -> None:
    """What is not of the journal does not count."""
    lines = [
        Line(1, PROBE, b'{"process":"1"}'),
        Line(1, "oneweb/terminal/1/state", b"a"),
        Line(1, "oneweb/bridge/status", b"online"),
        Line(2, note="connected"),
        Line(2, PROBE, b'{"process":"2"}'),
        Line(2, "oneweb/bridge/status", b"online"),
        Line(2, "oneweb/terminal/1/state", b"a"),
        Line(2, "oneweb/terminal/1/state", b"b"),
        Line(2, PROBE, b'{"process":"2"}'),
        Line(2, "oneweb/terminal/1/state", b"b"),
        Line(3, PROBE, b'{"process":"3"}'),
        Line(3, "oneweb/product/1/forecast/2", b"c"),
    ]
    assert count_repeats(lines) == (4, [0, 0, 2, 0])


def test_record_that_is_again_what_it_was_does_not_come_again() -> None:
    """Only its last content, once more, is a repeat."""
    topic = "oneweb/terminal/1/state"
    lines = [Line(1, topic, content, retain=True) for content in (b"online", b"offline", b"online", b"online")]
    assert count_repeats(lines) == (4, [1])


def test_campaign_ends_with_one_line() -> None:
    figures = Figures([0, 17, 3], 900, ["x"])
    expected = (
        "3 connections after kills, 900 messages: at most 17 came again in one (median 3, none in 1), 1 violations"
    )
    assert str(figures) == expected


async def test_two_kills_repeat_little_and_lose_nothing(tmp_path: Path) -> None:
    """`python -m tests.kill_rounds 500` plays more."""
    figures = await play_stage(tmp_path, 5, 2)
    assert figures.findings == []
    assert figures.messages > 0
