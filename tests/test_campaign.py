"""The most telling rounds of the fault campaign, each once with a fixed seed. `make soak` plays all kinds for long."""

from pathlib import Path

import msgspec
import pytest

from tests import crashing, recording
from tests.campaign import report
from tests.campaign.covering import Table
from tests.campaign.faults_bridge import ALL_POINTS
from tests.campaign.kinds import KINDS
from tests.fault_bench import RoundResult
from tests.recording import Line, Taken

SHORT = (
    "crash after_commit",
    "crash after_publish",
    "crash after_puback",
    "crash storing_command",
    "broker kill, empty",
    "cut",
    "puback refused",
    "acl, MQTT 3.1.1",
    "commits fail",
    "database corrupt",
)


@pytest.mark.parametrize("kind", SHORT)
async def test_nothing_is_lost_or_invented_after(kind: str, tmp_path: Path) -> None:
    """After the fault all is as if it had not been: no event or sample lost, invented, out of order or changed."""
    result = await KINDS[kind].run(tmp_path, 1)

    assert result.findings == []


def test_every_named_point_is_crashed_at() -> None:
    """No point that the launcher knows is left out of the campaign."""
    played = {kind.removeprefix("crash ") for kind in KINDS if kind.startswith("crash ")}

    assert {*crashing.POINTS, *crashing.WITHIN} <= played | {"after_migration"}
    assert set(ALL_POINTS) <= {*crashing.POINTS, *crashing.WITHIN}


# ── what is judged ─────────────────────────────────────────────────────────────────────────────


def line_of(at: float, number: int, topic: str = "oneweb/site/a/event/changed") -> Line:
    """A message."""
    return Line(at, topic, str(number).encode())


def probe(at: float, nonce: str) -> Line:
    """The first message of each of the bridge's connections."""
    sent = {"time": f"1970-01-01T00:00:0{at:.3f}Z", "nonce": nonce}
    return Line(at, "oneweb/bridge/probe", msgspec.json.encode(sent))


def taken(*lines: Line) -> list[Taken]:
    """The same messages, as the broker acknowledged them."""
    return [Taken(line.at, line.topic, line.payload, line.retain) for line in lines]


def numbers(replayed: recording.Replayed) -> list[int]:
    """The numbers of the messages that are to be judged."""
    return [int(payload) for topic, payload, _ in replayed.received if "probe" not in topic]


CONNECTED, LOST, BACK = Line(0, note="connected"), Line(5, note="lost"), Line(7, note="connected")


def test_what_the_broker_forgot_is_put_where_it_was_forgotten() -> None:
    """An acknowledged message that a killed broker never delivered is judged as delivered, and counted."""
    story = [CONNECTED, probe(1, "a"), line_of(2, 1), LOST, BACK, probe(8, "b"), line_of(9, 4)]
    replayed = recording.replay(story, taken(line_of(2, 1), line_of(3, 2), line_of(4, 3), line_of(9, 4)))

    assert numbers(replayed) == [1, 2, 3, 4]
    assert (replayed.forgotten, replayed.sessions) == (2, 2)


def test_what_was_lost_while_the_broker_lived_is_not_excused() -> None:
    """A message that was acknowledged and not heard is put in only where the broker was away."""
    story = [CONNECTED, probe(1, "a"), line_of(2, 1), line_of(4, 3)]
    replayed = recording.replay(story, taken(line_of(2, 1), line_of(3, 2), line_of(4, 3)))

    assert numbers(replayed) == [1, 3]


def test_what_was_never_acknowledged_is_not_excused() -> None:
    """A message that the broker did not acknowledge before it was killed is the bridge's to send again."""
    story = [CONNECTED, probe(1, "a"), line_of(2, 1), LOST, BACK, probe(8, "b"), line_of(9, 3)]
    replayed = recording.replay(story, taken(line_of(2, 1), line_of(8.5, 2), line_of(9, 3)))

    assert numbers(replayed) == [1, 3]


def test_memory_of_the_broker_is_not_the_bridges_repeat() -> None:
    """What a broker repeats of its own queue, before the bridge speaks again, is left out; later repeats count."""
    story = [
        CONNECTED,
        probe(1, "a"),
        line_of(2, 1),
        line_of(3, 2),
        LOST,
        BACK,
        line_of(7, 1),
        line_of(7, 2),
        probe(8, "b"),
    ]
    replayed = recording.replay([*story, line_of(9, 2)])

    assert numbers(replayed) == [1, 2, 2]
    assert replayed.repeats == 1


# ── the figures ────────────────────────────────────────────────────────────────────────────────


def test_figures_are_written_between_the_marks() -> None:
    """`--write` replaces what stands between the marks of a page and nothing else."""
    begin, end = report.ROUNDS_MARKS
    good, bad = (
        RoundResult(findings=[], recovery=2.0, messages=7),
        RoundResult(findings=["lost event: x"], recovery=4.0),
    )
    rounds = [report.Played("cut", 1, 9.0, good), report.Played("cut", 2, 9.0, bad)]
    soak = report.Soak(seed=3, started="2026-01-01", table=Table(seed=3), seconds=60.0, rounds=rounds)
    text = report.written(f"before\n{begin}\nold\n{end}\nafter\n", soak)

    assert text.startswith(f"before\n{begin}\n")
    assert text.endswith(f"{end}\nafter\n")
    assert "old" not in text
    assert "| 2 | 3.0 s / 4.0 s | 7 | 0 | 0 | 1 |" in text
