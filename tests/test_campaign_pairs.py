"""The campaign of faults that meet: what it chooses, how it shrinks, what it allows; and three pairs, played."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests import mutants, soak
from tests.campaign import catalogue, covering, put_back, report, shrinking
from tests.campaign.covering import Table
from tests.campaign.playing import play
from tests.campaign.timeline import Span, Timeline, draw, parse
from tests.fault_bench import RoundResult

PAIRS = (
    ("broker lost state", "record too large"),
    ("bridge killed", "puback late"),
    ("api cut", "clock a day off"),
)
LONGEST_ROUND_S = 150


async def test_nothing_is_lost_or_invented_when_two_faults_meet(tmp_path: Path) -> None:
    """After two faults at once all is as if they had not been. Three rounds side by side, which mostly wait."""

    async def findings_of(number: int, pair: tuple[str, str]) -> list[str]:
        directory = tmp_path / f"{number}"
        directory.mkdir()
        timeline = Timeline(number, (Span(pair[0], 0.5, 2.0), Span(pair[1], 0.0, 3.0)), is_cold=True)
        try:
            async with asyncio.timeout(LONGEST_ROUND_S):
                return (await play(directory, timeline, terminals=4)).findings
        except TimeoutError:
            return [f"the round of {pair[0]} and {pair[1]} did not end within {LONGEST_ROUND_S} s"]

    assert await asyncio.gather(*(findings_of(number, pair) for number, pair in enumerate(PAIRS))) == [[], [], []]


# ── the catalogue and what is drawn from it ────────────────────────────────────────────────────


def test_faults_that_exclude_each_other_are_faults_and_say_why() -> None:
    """Each exception names a fault that is there, with a reason."""
    for fault in catalogue.FAULTS.values():
        assert set(fault.cannot_meet) <= set(catalogue.FAULTS)
        assert all(fault.cannot_meet.values())
    assert catalogue.why_not("broker lost state", "instance changed")
    assert ("broker lost state", "instance changed") not in catalogue.possible_pairs()


def test_every_actor_has_faults() -> None:
    """The faults are those of ten actors, and have names of their own."""
    assert len(catalogue.FAULTS) == sum(len(module.FAULTS) for module in catalogue.MODULES) >= 40
    actors = {"bridge", "broker", "link", "API", "disk", "clock", "commands", "configuration", "fleet", "state"}
    assert set(catalogue.ACTORS.values()) == actors


def test_timeline_is_drawn_from_its_seed_alone() -> None:
    """The same seed and faults, in any order, give the same timeline, and its faults overlap."""
    faults = ("link cut", "disk full", "bridge killed")

    assert draw(7, faults) == draw(7, faults[::-1]) != draw(8, faults)
    for seed in range(50):
        spans = draw(seed, faults).spans
        assert max(span.begin for span in spans) + 2 <= min(span.begin + span.seconds for span in spans)


def test_timeline_is_read_as_it_is_written() -> None:
    """What a campaign prints repeats the round."""
    for seed in range(20):
        timeline = draw(seed, ("link cut", "clock a day off"))
        assert parse(str(timeline), seed) == timeline


# ── the table of pairs ─────────────────────────────────────────────────────────────────────────


def _covered(table: Table, possible: frozenset[covering.Pair], most: int) -> int:
    for number in range(most):
        choice = table.choose(possible)
        if choice is None:
            return number
        assert set(covering.pairs_of(choice[1])) <= possible
        table.note(choice[1], is_held=True)
    return most


def test_every_pair_that_can_meet_is_tried() -> None:
    """The rounds that are chosen cover the table, with fewer rounds than it has pairs."""
    possible = catalogue.possible_pairs()
    table = Table(seed=5)

    rounds = _covered(table, possible, len(possible) + 1)

    assert table.left(possible) == []
    assert rounds < 0.4 * len(possible)


def test_pairs_go_on_where_the_last_call_ended(tmp_path: Path) -> None:
    """The table is kept in the file; the same seed goes on with the same rounds."""
    possible = catalogue.possible_pairs()
    whole, first = Table(seed=5), Table(seed=5)
    _covered(whole, possible, 30)
    _covered(first, possible, 10)
    path = tmp_path / "soak.json"
    path.write_bytes(msgspec.json.encode(report.Soak(seed=1, started="2026-01-01", table=first)))
    second = soak.load_table(path, 99)
    _covered(second, possible, 20)

    assert second == whole


def test_file_of_another_version_begins_a_new_table(tmp_path: Path) -> None:
    """What cannot be read is no table."""
    path = tmp_path / "soak.json"
    assert soak.load_table(path, 3) == Table(seed=3)
    path.write_text('{"seed": 1, "rounds": []}')
    assert soak.load_table(path, 3) == Table(seed=3)


def test_pairs_go_on_where_the_page_ended(tmp_path: Path) -> None:
    """The page shows each pair, tried and held; a machine that has no file of earlier calls goes on with them."""
    possible = catalogue.possible_pairs()
    table = Table(seed=5, seconds=7 * 60.0)
    _covered(table, possible, 20)
    table.note(("bridge killed", "link cut"), is_held=False)
    page = tmp_path / "page.md"
    begin, end = report.PAIRS_MARKS
    whole = report.Soak(seed=1, started="2026-01-01", table=table)
    page.write_text(report.written(f"before\n{begin}\n{end}\nafter\n", whole))
    resumed = soak.load_table(tmp_path / "soak.json", 99, page)

    assert (resumed.seed, resumed.seconds) == (5, 420.0)
    assert {pair: meeting.is_held for pair, meeting in resumed.by_pair().items()} == {
        pair: meeting.is_held for pair, meeting in table.by_pair().items()
    }
    assert resumed.left(possible) == table.left(possible)
    page.write_text(f"{begin}\n{end}\n")
    assert soak.load_table(tmp_path / "soak.json", 99, page) == Table(seed=99)


def test_pair_that_failed_is_no_pair_that_held() -> None:
    """A round counts for its pairs; the last one says whether they held."""
    table = Table(seed=1)
    table.note(("a", "b", "c"), is_held=True)
    table.note(("b", "a"), is_held=False)

    assert [(m.first, m.second, m.rounds, m.is_held) for m in table.meetings] == [
        ("a", "b", 2, False),
        ("a", "c", 1, True),
        ("b", "c", 1, True),
    ]


def test_pairs_are_written_between_their_marks() -> None:
    """The page gets what was tried, what held and what did not, and keeps the rest."""
    table = Table(seed=1)
    table.note(("disk full", "link cut"), is_held=True)
    table.note(("disk full", "api cut"), is_held=False)
    marks = "\n".join(report.PAIRS_MARKS)
    page = report.written(f"before\n{marks}\nafter\n", report.Soak(seed=3, started="2026-01-01", table=table))

    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "2 tried, 1 held" in page
    assert "| disk full | disk | no room for the database | 2 | 1 |" in page
    assert "- api cut and disk full" in page


# ── the shrinker ───────────────────────────────────────────────────────────────────────────────


async def shrunk(timeline: Timeline, fails: Callable[[Timeline], bool], most: int = 100) -> tuple[Timeline, int]:
    """What is left of a timeline, and how many rounds it took."""
    played: list[Timeline] = []

    async def play_one(candidate: Timeline) -> bool:
        assert candidate.seed == timeline.seed
        assert candidate not in played
        played.append(candidate)
        return fails(candidate)

    return await shrinking.shrink(timeline, play_one, most), len(played)


THREE = Timeline(4, (Span("a", 0.5, 6.0), Span("b", 1.0, 8.0), Span("c", 2.0, 5.0)), is_cold=True)


async def test_violation_of_two_faults_is_shrunk_to_them() -> None:
    """A third fault, a cold start and most of the time are taken away; what fails is still there."""
    smallest, _ = await shrunk(THREE, lambda timeline: {"a", "c"} <= set(timeline.faults))

    assert smallest.faults == ("a", "c")
    assert not smallest.is_cold
    assert [span.seconds for span in smallest.spans] == [1.0, 1.0]


async def test_violation_of_one_fault_is_shrunk_to_it() -> None:
    """A fault that fails by itself is left alone, and as long as it must be."""
    smallest, _ = await shrunk(THREE, lambda timeline: any(s.fault == "b" and s.seconds >= 3 for s in timeline.spans))

    assert smallest.faults == ("b",)
    assert 3 <= smallest.spans[0].seconds < 6


async def test_violation_that_needs_an_overlap_keeps_it() -> None:
    """Later and shorter, but never so that it does not fail any more."""

    def overlap(timeline: Timeline) -> bool:
        spans = {span.fault: span for span in timeline.spans}
        if not {"a", "b"} <= spans.keys():
            return False
        ends = min(spans[name].begin + spans[name].seconds for name in "ab")
        return ends - max(spans[name].begin for name in "ab") >= 0.5

    smallest, _ = await shrunk(THREE, overlap)

    assert smallest.faults == ("a", "b")
    assert overlap(smallest)
    assert sum(span.seconds for span in smallest.spans) < 7


async def test_shrinking_ends() -> None:
    """A violation that comes every time, never again, or by chance: the rounds are bounded."""
    assert await shrunk(THREE, lambda timeline: False, 5) == (THREE, 5)
    smallest, rounds = await shrunk(THREE, lambda timeline: True)
    assert len(smallest.spans) == 1
    assert rounds <= 12


def test_shrunk_timeline_is_printed_as_command_and_test() -> None:
    """Both have everything that the round needs."""
    timeline = Timeline(7, (Span("link cut", 0.5, 4.0), Span("disk full", 1.0, 2.0)))

    assert shrinking.command_of(timeline) == ("make soak ARGS='--timeline \"link cut@0.5+4, disk full@1+2\" --seed 7'")
    text = shrinking.body_of_test(timeline)
    assert "async def test_nothing_is_lost_with_link_cut_and_disk_full" in text
    assert 'parse("link cut@0.5+4, disk full@1+2", 7)' in text
    compile(text, "test", "exec")


async def test_planted_violation_is_shrunk_and_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A campaign that meets a violation prints what it was shrunk to, and only that pair counts as broken."""
    broken = frozenset(("disk full", "link cut"))

    async def play_one(_: Path, timeline: Timeline) -> RoundResult:
        return RoundResult(findings=["lost event: x"] if broken <= set(timeline.faults) else [])

    faults = ("bridge killed", "disk full", "link cut")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(soak, "play", play_one)
    monkeypatch.setattr(soak, "possible_pairs", lambda: frozenset(covering.pairs_of(faults)))
    result = report.Soak(seed=1, started="2026-01-01", table=Table(seed=1))
    await soak.Campaign(result, "pairs").run(0.2, 1)

    known = result.table.by_pair()
    assert {pair for pair in known if not known[pair].is_held} == {("disk full", "link cut")}
    assert len(known) == 3
    assert soak.load_table(tmp_path / "soak.json", 0) == result.table


# ── defects that are put back ──────────────────────────────────────────────────────────────────


def test_defects_that_are_put_back_are_rows_and_meet_in_the_table(tmp_path: Path) -> None:
    """Each is a guard of the table of mutants that can be taken out, and its faults can meet."""
    sources = mutants.ROOT / "oneweb_bridge"
    assert len({defect.guard for defect in put_back.DEFECTS}) == len(put_back.DEFECTS) >= 10
    for number, defect in enumerate(put_back.DEFECTS):
        assert set(covering.pairs_of(defect.faults)) <= catalogue.possible_pairs()
        tree = tmp_path / f"{number}"
        shutil.copytree(sources, tree / "oneweb_bridge", ignore=shutil.ignore_patterns("__pycache__", "static"))
        put_back.put_into(tree, defect.guard)


def test_defect_counts_as_found_only_with_two_faults_and_a_sound_round() -> None:
    """Not when three faults were needed, nor when the round fails without it as well."""
    two, three = "link cut@0+1, api cut@0+1", "link cut@0+1, api cut@0+1, disk full@0+1"

    assert put_back.Outcome(two, 1, "lost").is_caught
    assert not put_back.Outcome(three, 1, "lost").is_caught
    assert not put_back.Outcome(two, 1, "lost", is_sound=False).is_caught
    assert not put_back.Outcome().is_caught
