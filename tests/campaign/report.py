"""What a campaign says of itself: lines for the terminal, and tables for docs/guarantees.md. Pure."""

import re
import statistics
from collections.abc import Sequence

import msgspec

from tests.campaign.catalogue import ACTORS, FAULTS, possible_pairs, why_not
from tests.campaign.covering import Meeting, Pair, Table
from tests.campaign.kinds import KINDS
from tests.fault_bench import RoundResult

ROUNDS_MARKS = ("<!-- soak: written by make soak -->", "<!-- soak: end -->")
PAIRS_MARKS = ("<!-- pairs: written by make soak -->", "<!-- pairs: end -->")
HELD, BROKEN, LEFT, NEVER = "+x.-"
"""How the grid of pairs shows a pair: held, broken in its last round, not tried, and two faults that cannot meet."""


class Played(msgspec.Struct, frozen=True):
    """One round and what became of it. `timeline` is empty for a kind."""

    kind: str
    seed: int
    seconds: float
    result: RoundResult
    timeline: str = ""


class Soak(msgspec.Struct):
    """A campaign of one call, and the table of pairs over all calls. `seconds` is how long it took."""

    seed: int
    started: str
    table: Table
    seconds: float = 0.0
    rounds: list[Played] = []


def lines_of(played: Played) -> list[str]:
    """A line for a round, and one for each finding."""
    result = played.result
    outcome = "ok" if not result.findings else f"{len(result.findings)} VIOLATIONS"
    name = played.timeline or played.kind
    head = (
        f"{name:24} seed {played.seed:10}  {played.seconds:6.1f} s  at rest after {result.recovery:5.1f} s  "
        f"{result.messages:5} messages, {result.repeats:3} again, {result.memory:4.0f} MiB  {outcome}"
    )
    return [head, *(f"    {line[:600]}" for line in result.findings[:10])]


def rounds_table(soak: Soak) -> list[str]:
    """The figures of a campaign by kind, in Markdown."""
    names = (
        "Kind",
        "Fault",
        "Rounds",
        "At rest after, median / longest",
        "Messages",
        "Repeats",
        "Forgotten",
        "Violations",
    )
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for kind, about in KINDS.items():
        results = [played.result for played in soak.rounds if played.kind == kind]
        if not results:
            continue
        times = [result.recovery for result in results]
        lines.append(
            f"| {kind} | {about.fault} | {len(results)} | {statistics.median(times):.1f} s / {max(times):.1f} s "
            f"| {sum(v.messages for v in results)} | {sum(v.repeats for v in results)} "
            f"| {sum(v.forgotten for v in results)} | {sum(len(v.findings) for v in results)} |"
        )
    return lines


def summary(soak: Soak) -> str:
    """The campaign in a sentence or two."""
    results = [played.result for played in soak.rounds]
    return (
        f"Campaign of {soak.started}, seed {soak.seed}: {len(results)} rounds of {len({o.kind for o in soak.rounds})} "
        f"kinds in {soak.seconds / 60:.0f} minutes, {sum(v.messages for v in results)} messages judged, "
        f"{sum(len(v.findings) for v in results)} violations. "
        f"The bridge took at most {max((v.memory for v in results), default=0):.0f} MiB of memory "
        f"and {max((v.disk for v in results), default=0) / 1e6:.0f} MB of disk."
    )


def progress(table: Table) -> str:
    """How many pairs have met, in one line."""
    possible = possible_pairs()
    met = [meeting for meeting in table.meetings if (meeting.first, meeting.second) in possible]
    held = sum(meeting.is_held for meeting in met)
    return (
        f"{len(possible)} pairs of {len(FAULTS)} faults can meet: {len(met)} tried, {held} held, "
        f"{len(table.left(possible))} left, in {table.seconds / 60:.0f} minutes (seed {table.seed})."
    )


def pairs_tables(table: Table) -> list[str]:
    """The pairs by actor, then every fault, in Markdown. What did not hold is named below."""
    known = {(meeting.first, meeting.second): meeting for meeting in table.meetings}
    lines = ["| Actors | Pairs that can meet | Tried | Held |", "|---|---|---|---|"]
    for (first, second), pairs in sorted(_by_actors().items()):
        met = [known[pair] for pair in pairs if pair in known]
        lines.append(f"| {first}, {second} | {len(pairs)} | {len(met)} | {sum(m.is_held for m in met)} |")
    lines += ["", "| Fault | Actor | What happens | Pairs tried | Held |", "|---|---|---|---|---|"]
    for fault in FAULTS.values():
        met = [meeting for meeting in table.meetings if fault.name in (meeting.first, meeting.second)]
        lines.append(
            f"| {fault.name} | {fault.actor} | {fault.about} | {len(met)} | {sum(meeting.is_held for meeting in met)} |"
        )
    return [*lines, *_not_held(table.meetings), "", *grid_of(table)]


def grid_of(table: Table) -> list[str]:
    """Each pair by itself: a row for each fault, with a character for each fault above it. In Markdown."""
    known, names = table.by_pair(), list(FAULTS)
    numbers = [f"{number:2}" for number in range(1, len(names) + 1)]
    width = max(map(len, names))
    lines = [f"{'':{width + 3}} {''.join(number[place] for number in numbers[:-1])}" for place in (0, 1)]
    for row, name in enumerate(names):
        shown = "".join(_shown(known, *sorted((name, other))) for other in names[:row])
        lines.append(f"{numbers[row]} {name:{width}} {shown}")
    head = f"`{HELD}` held, `{BROKEN}` broken in the last round, `{LEFT}` not tried, `{NEVER}` cannot meet:"
    return [head, "", "```", *(line.rstrip() for line in lines), "```"]


def _shown(known: dict[Pair, Meeting], first: str, second: str) -> str:
    if why_not(first, second) is not None:
        return NEVER
    if (meeting := known.get((first, second))) is None:
        return LEFT
    return HELD if meeting.is_held else BROKEN


def table_on(page: str) -> Table | None:
    """The table of pairs that a page has; None without one. The page does not say how many rounds a pair has had: 1."""
    _, _, rest = page.partition(PAIRS_MARKS[0])
    body, _, _ = rest.partition(PAIRS_MARKS[1])
    rows = re.findall(rf"^ ?\d+ ([a-z][a-z -]*?)(?: +([{HELD}{BROKEN}{LEFT}{NEVER}]+))?$", body, re.MULTILINE)
    sentence = re.search(r"in (\d+) minutes \(seed (\d+)\)", body)
    if not rows or sentence is None:
        return None
    table = Table(seed=int(sentence[2]), seconds=60.0 * int(sentence[1]))
    names = [name for name, _ in rows]
    for name, shown in rows:
        for other, character in zip(names, shown, strict=False):
            if character in (HELD, BROKEN):
                table.note((name, other), is_held=character == HELD)
    return table


def _by_actors() -> dict[Pair, list[Pair]]:
    groups: dict[Pair, list[Pair]] = {}
    for pair in sorted(possible_pairs()):
        first, second = sorted(ACTORS[name] for name in pair)
        groups.setdefault((first, second), []).append(pair)
    return groups


def _not_held(meetings: Sequence[Meeting]) -> list[str]:
    broken = [f"- {meeting.first} and {meeting.second}" for meeting in meetings if not meeting.is_held]
    return ["", "A promise was broken in the last round of:", "", *broken] if broken else []


def between(marks: tuple[str, str], page: str, body: Sequence[str]) -> str:
    """The page with a body between these marks, instead of what stood there."""
    begin, end = marks
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return before + "\n".join([begin, "", *body, "", end]) + after


def written(page: str, soak: Soak) -> str:
    """The page with the figures of a campaign that has any."""
    if soak.rounds and any(played.kind in KINDS for played in soak.rounds):
        sentences = summary(soak).replace(". ", ".\n").split("\n")
        page = between(ROUNDS_MARKS, page, [*sentences, "", *rounds_table(soak)])
    if soak.table.meetings:
        page = between(PAIRS_MARKS, page, [progress(soak.table), "", *pairs_tables(soak.table)])
    return page
