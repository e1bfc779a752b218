"""What a round may show because of its faults, and the judgement of it. Pure.

Each allowance names the fault that it comes from, and a round has the allowances of its own faults and no others.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import msgspec

from tests import checker, recording

BASE, OTHER_BASE = "oneweb", "elsewhere"
"""The base topic, and that to which a fault moves the bridge for a while."""
REPEATED = 200
"""Messages that may come again after each connection."""
EVER = (float("-inf"), float("inf"))


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What one fault allows. Times are seconds of the wall clock of the machine that plays the round."""

    fault: str
    refused: tuple[str, ...] = ()
    """Beginnings of topics whose messages the broker was made to refuse: what is missing there is not judged."""
    forgets: bool = False
    """The broker may lose what it acknowledged: such messages count as delivered at their place."""
    repeats: bool = False
    """More than `REPEATED` messages may come again after a connection."""
    unsure: tuple[tuple[float, float], ...] = ()
    """Times in which a complete listing may have been accepted and need not have been."""
    restored_at: tuple[float, ...] = ()
    """When a backup took the place of the database: announcements begin anew from an older state."""
    removal: tuple[int, float, int] | None = None
    """Missed listings, seconds, and how many at once are held, where they differ from the defaults."""
    overtakes: bool = False
    """Messages may overtake those of other topics, which wait: refused, or blamed for the end of a connection."""
    renames: bool = False
    """The bridge goes by another name for a while, which is the source of what it then publishes."""
    may_end: bool = False
    """The bridge may end by itself, with one sentence, and is started again."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What a round left: what was received, acknowledged, answered by the API, and retained at the end.

    Of what the API answered after `still_since` (seconds of the wall clock) not everything was heard yet.
    """

    lines: Sequence[recording.Line]
    taken: Sequence[recording.Taken]
    ledger: Sequence[dict[str, Any]]
    retained: Mapping[str, Any]
    still_since: float = EVER[1]


def judge(evidence: Evidence, allowances: Sequence[Allowance]) -> tuple[recording.Replayed, list[str]]:
    """What was received, and every broken promise that no allowance excuses."""
    evidence = _below_one_base(evidence)
    may_forget = any(allowance.forgets for allowance in allowances)
    replayed = recording.replay(evidence.lines, evidence.taken, may_forget=may_forget)
    findings = without_refused(_findings(evidence, replayed, allowances), allowances)
    if (
        not any(allowance.repeats for allowance in allowances)
        and replayed.repeats > max(0, replayed.sessions - 1) * REPEATED
    ):
        findings.append(f"too many repeats: {replayed.repeats} in {replayed.sessions} connections")
    return replayed, findings


def allow_outgrown(log: str, allowances: Iterable[Allowance]) -> list[Allowance]:
    """What a broker that forgets and takes no large messages allows besides.

    A device that it took while it was small, and which has grown since, can be said no more.
    """
    if not any(allowance.forgets for allowance in allowances):
        return []
    topics = re.findall(r"(homeassistant/\S+) cannot be published: \d+ bytes are more", log)
    return [Allowance(fault="record too large", refused=tuple(dict.fromkeys(topics)))] if topics else []


def without_refused(findings: Iterable[str], allowances: Sequence[Allowance]) -> list[str]:
    """The findings but for those about topics whose messages the broker was made to refuse."""
    beginnings = [beginning for allowance in allowances for beginning in allowance.refused]
    # A topic level ends where a letter, digit, `-` or `_` does not follow: SITE-001 is not SITE-0011.
    patterns = [re.compile(re.escape(beginning) + r"(?![\w-])") for beginning in beginnings]
    return [line for line in findings if not any(pattern.search(line) for pattern in patterns)]


def _findings(evidence: Evidence, replayed: recording.Replayed, allowances: Sequence[Allowance]) -> list[str]:
    removal = next((allowance.removal for allowance in allowances if allowance.removal), (3, 900.0, 5))
    unsure = (*(times for allowance in allowances for times in allowance.unsure), (evidence.still_since, EVER[1]))
    restored = sorted(at for allowance in allowances for at in allowance.restored_at)
    sections = _sections(replayed.received, _first_probes(evidence.taken, restored))
    is_renamed = any(allowance.renames for allowance in allowances)
    findings: list[str] = []
    for number, received in enumerate(sections):
        is_last = number == len(sections) - 1
        story = checker.Story(
            ledger=evidence.ledger,
            received=received,
            whole=number == 0,
            is_cut=not is_last,
            is_renamed=is_renamed,
            unsure=(*unsure, *((EVER[0], at) for at in restored)) if is_last else (EVER,),
            removal=removal,
            overtakes=any(allowance.overtakes for allowance in allowances),
        )
        findings += checker.judge(story)
    if len(sections) > 1:
        findings += checker.judge_ids(replayed.received, is_renamed=is_renamed)
    whole = checker.Story(ledger=(), received=replayed.received, retained=evidence.retained)
    return findings + checker.judge_retained(whole)


def _below_one_base(evidence: Evidence) -> Evidence:
    """The evidence as if the bridge had always published below one base, and had never cleared one that it left."""
    return msgspec.structs.replace(evidence, lines=_moved(evidence.lines), taken=_moved(evidence.taken))


Message = TypeVar("Message", recording.Line, recording.Taken)


def _moved(messages: Iterable[Message]) -> list[Message]:
    """Messages below `BASE` alone. Below which base the bridge is, its last probe says."""
    current, kept = BASE, []
    for message in messages:
        base, _, below = message.topic.partition("/")
        if base in (BASE, OTHER_BASE):
            current = base if below == "bridge/probe" else current
            if base != current and not message.payload:
                continue
        kept.append(msgspec.structs.replace(message, topic=f"{BASE}/{below}") if base == OTHER_BASE else message)
    return kept


def _first_probes(taken: Iterable[recording.Taken], restored: Sequence[float]) -> list[bytes]:
    """The first probe of the bridge after each restore: what it publishes on the restored database begins there."""
    probes = [message for message in taken if message.topic.endswith("/bridge/probe")]
    firsts = [next((probe.payload for probe in probes if probe.at > at), b"") for at in restored]
    return [payload for payload in dict.fromkeys(firsts) if payload]


def _sections(
    received: Sequence[tuple[str, bytes, bool]], probes: Iterable[bytes]
) -> list[Sequence[tuple[str, bytes, bool]]]:
    places = [next((at for at, (_, payload, _) in enumerate(received) if payload == probe), 0) for probe in probes]
    ends = [0, *sorted(places), len(received)]
    return [received[begin:end] for begin, end in pairwise(ends)]
