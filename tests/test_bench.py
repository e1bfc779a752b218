"""What `make bench` says of its measurements: no clock in it, and no measurement."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import floor, inside, lagging, page, plot, run, tabs
from bench.scope import Scope, spelled
from bench.subscriber import Subscriber
from bench.table import BEGIN, END, Row, between_marks, markdown, of_rounds, plain, text

SOME = Row(number="2", what="drain", goal=1.2, measured=1.1)


def run_of(command: str, *numbers: str) -> run.Run:
    """A run of half an hour that measured these rows."""
    return run.Run(
        command=command,
        date="2025-06-17",
        rounds=7,
        scale=1.0,
        machine="some machine",
        minutes=30.0,
        numbers=list(numbers),
    )


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (SOME, True),
        (Row(number="2", what="drain", goal=1.2, measured=1.3), False),
        (Row(number="6", what="faster", goal=10.0, at_least=True, measured=9.9), False),
        (Row(number="6", what="faster", goal=10.0, at_least=True, measured=10.0), True),
        (Row(number="8", what="a large fleet", measured=70.0), None),
        (Row(number="6", what="faster", goal=10.0, at_least=True, trouble="not installed"), False),
        (Row(number="6", what="the rest", trouble="not installed"), False),
    ],
)
def test_row_says_whether_its_goal_is_met(row: Row, met: bool | None) -> None:
    """A goal is reached or not, a stated figure has none, and what was not measured is never met."""
    assert row.met is met
    assert plain([row])[0]["met"] is met


def test_row_of_rounds_is_their_median() -> None:
    """One slow round of a busy machine does not decide, but is shown."""
    row = of_rounds(SOME, [9.0, 1.0, 2.0], [1.0, 1.5, 7.0])

    assert (row.measured, row.low, row.high, row.cpu, row.rounds) == (2.0, 1.0, 9.0, 1.5, 3)
    assert "1.00 to 9.00" in text([row])


def test_table_leaves_no_row_out() -> None:
    """A row that was not measured stands in both forms of the table, with the reason."""
    lost = Row(number="6", what="Node-RED", trouble="Node-RED is not installed")

    for shown in (text([SOME, lost]), "\n".join(markdown([SOME, lost]))):
        assert "NOT MEASURED" in shown
        assert "Node-RED is not installed" in shown
        assert "≤ 1.2 x" in shown


def test_page_keeps_what_stands_around_the_marks() -> None:
    """Writing again replaces the figures and nothing else; a page without marks gets them at its end."""
    once = between_marks("# Performance\n\nWords.\n", ["first"])
    page = once.replace(END, f"{END}\n\nMore words.")
    page_again = between_marks(page, ["second"])

    assert once.startswith("# Performance\n\nWords.\n\n" + BEGIN)
    assert "first" not in page_again
    assert page_again == page.replace("first", "second")
    assert between_marks("", ["first"]).startswith(BEGIN)


async def _broken(_: Scope) -> AsyncIterator[Row]:
    yield SOME
    raise OSError("no such program")


async def _endless(_: Scope) -> AsyncIterator[Row]:
    yield SOME
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("rows", "limit", "why"), [(_broken, 10.0, "OSError: no such program"), (_endless, 0.01, "not measured in 0 s")]
)
async def test_part_that_fails_is_told_and_keeps_its_rows(rows: run.Measure, limit: float, why: str) -> None:
    """What a part measured before it failed or hung stays, and a row with the reason stands for the rest."""
    part = run.Part(("2", "3"), "drains", limit, rows)
    measured = await run.measured(part, Scope(rows=frozenset({"2", "3"})))

    assert measured[0] == SOME
    assert [(row.number, row.trouble) for row in measured[1:]] == [("2", why), ("3", why)]


async def test_rows_that_are_not_wanted_are_not_shown() -> None:
    """A part that gives several rows shows those that were asked for."""
    part = run.Part(("2", "3"), "drains", 10.0, _broken)

    assert [row.number for row in await run.measured(part, Scope(rows=frozenset({"3"})))] == ["3"]


def test_every_row_has_a_part() -> None:
    """Each number that can be asked for is measured by some part."""
    assert {number for part in run.parts(inside.Curves()) for number in part.numbers} == set(run.NUMBERS)


@pytest.mark.parametrize(
    "wrong", [["--rows", "99"], ["--rounds", "0"], ["--scale", "0"], ["--scale", "2"], ["--live", "-1"]]
)
def test_options_refuse_what_cannot_be_measured(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A row that does not exist, no round, no fleet, or more than the full one."""
    with pytest.raises(SystemExit):
        run.options(wrong)
    assert "expected" in capsys.readouterr().err


def test_page_has_the_plot_beside_it(tmp_path: Path) -> None:
    """The page names the machine, the command and its plot, which is a picture of its own."""
    page = tmp_path / "performance.md"
    curves = {"polls": [(1000.0, 0.01), (10_000.0, 0.1)], "commits": [(1000.0, 0.02), (100_000.0, 3.0)]}
    run.write(page, [run_of("make bench", "2")], [SOME], curves)

    text = page.read_text()
    assert "`make bench`" in text
    assert "some machine" in text
    assert "(performance.svg)" in text
    picture = ET.fromstring((tmp_path / "performance.svg").read_text())
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}polyline"))) == 2


def test_rows_of_an_earlier_run_are_kept(tmp_path: Path) -> None:
    """What was measured newer replaces all rows of its number; the page says which run each number comes from."""
    page, before = tmp_path / "performance.md", [SOME, Row(number="3", what="first"), Row(number="3", what="second")]
    earlier = run.Report(runs=[run_of("make bench", "2", "3")], rows=plain(before))
    newer = Row(number="3", what="third", measured=1.0)
    runs, rows = run.add_rows(earlier, run_of("make bench ARGS='--rows 3'", "3"), [newer])
    run.write(page, runs, rows, inside.Curves())

    assert rows == [SOME, newer]
    assert "`make bench` on 2025-06-17, 30 minutes, for row 2." in page.read_text()
    assert "`make bench ARGS='--rows 3'` on 2025-06-17, 30 minutes, for row 3." in page.read_text()
    assert page.read_text().count("some machine") == 1


def test_figures_that_are_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is measured for half an hour."""
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(SystemExit):
        run.options(["--add", f"{tmp_path / 'other.json'}"])
    assert "has no figures of an earlier run" in capsys.readouterr().err


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_exponent_is_the_slope_of_the_logarithms(exponent: float) -> None:
    """Linear growth has exponent 1, whatever a single step costs."""
    points = [(x, 3.0 * x**exponent) for x in (1000.0, 10_000.0, 100_000.0)]

    assert plot.exponent(points) == pytest.approx(exponent)


def test_ear_hears_every_message_however_it_is_cut() -> None:
    """Packets that come in pieces, or several at once, are each counted once, with their topic."""
    packets = floor.publish(b"a/b", 1, b"x" * 300) + b"\x90\x03\x00\x01\x00" + floor.publish(b"c", 2, b"")
    for size in (1, 7, len(packets)):
        subscriber = Subscriber("#", noting=True)
        for start in range(0, len(packets), size):
            subscriber.data_received(packets[start : start + size])

        assert [topic for topic, _ in subscriber.arrivals] == ["a/b", "c"]
        assert subscriber.count == 2
        assert subscriber.ready.is_set()


@pytest.mark.parametrize(("count", "text"), [(8, "8"), (1000, "1 000"), (100_000, "100 000")])
def test_numbers_are_spelled_in_groups(count: int, text: str) -> None:
    """A fleet is easy to read."""
    assert spelled(count) == text


def test_tab_knows_where_its_stream_goes_on() -> None:
    """A message that is cut waits for its rest, and the last id counts, also where the last message has none."""
    text = b"event: event\nid: j:7\ndata: {}\n\nevent: state\ndata: {}\n\nevent: event\nid: j:8\nda"
    whole, left = tabs.complete_messages(text)
    assert (whole + left, left) == (text, b"event: event\nid: j:8\nda")
    assert tabs.last_id(whole) == "j:7"
    assert tabs.last_id(b": \n\n") is None
    assert tabs.complete_messages(b"retry: 20") == (b"", b"retry: 20")


def test_delay_is_of_the_same_event() -> None:
    """Events of a terminal are told apart by their order; what came to one side alone is left out."""
    first = [("a", 1.0), ("b", 1.0), ("a", 2.0), ("c", 3.0)]
    second = [("b", 1.5), ("a", 1.25), ("a", 2.125), ("a", 9.0)]
    assert tabs.delays(first, second) == [500.0, 250.0, 125.0]


def test_lags_are_read_from_where_a_stretch_began(tmp_path: Path) -> None:
    """A line that is half written does not count."""
    path = tmp_path / "lags"
    path.write_text("9.00\n0.10\n12.50\n0.")
    assert lagging.lags_of(path, 5) == [0.1, 12.5]


def test_files_of_the_page_are_weighed_by_who_wrote_them() -> None:
    """Page, own modules and styles on one side, what others wrote on the other, in kB of 1000 bytes."""
    own, vendored = page.weight_rows(
        [("http://h/", 1000), ("http://h/static/app.js?v=1", 500), ("http://h/static/vendor/p.js?v=1", 7000)]
    )
    assert (own.measured, vendored.measured) == (1.5, 7.0)


def test_floor_counts_whole_answers_of_the_broker() -> None:
    """With a reason code, without one, and with half of the next."""
    data = b"\x40\x02\x00\x01" + b"\x40\x03\x00\x02\x10" + b"\x40\x02\x00"
    assert floor.count_packets(data) == (2, b"\x40\x02\x00")
    assert floor.count_packets(b"\x40") == (0, b"\x40")
