"""What was found in the answers of a call, compared with what was expected. Pure.

A poll counts its records and samples into an `AnswerCounts`; slices and pages are merged by counting into the same
one. `judge_answer` makes of it the coverage that is published and the findings that are alerted. `explore` counts and
judges with the same functions.

Records that did not change since the last poll are not decoded. `RecordNotes` remembers of each stored record what it
lacked, and which of its values were implausible, when it was decoded last.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Literal

import msgspec

from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.expectations import (
    COMPONENTS,
    LIMIT_FACTORS,
    LIMITS,
    MAX_RATIO,
    MOSTLY_WHOLE,
    RANGES,
    STEADY,
    TIME,
    Alternatives,
    Expectation,
    expectation_of,
)
from oneweb_bridge.model.records import Fields

GENERAL_SHARE = 0.75
"""A field that nearly all records have is reported when fewer than this share of them have it."""
MIN_RECORDS = 4
"""Fewer records than this say nothing about a share."""
MAX_IMPLAUSIBLE = 3
"""As many implausible values of a field are not reported, unless they are half of all."""
SUDDEN_RATIO = 100.0
"""A usual magnitude that changes by more than this from one poll to the next is another unit."""
LACKING_SAMPLES = 5
"""Samples in a row that lack a field which others had, until it counts as missing."""
MAX_MAGNITUDES = 200
"""Values of a field in one poll whose magnitude is looked at."""
MAX_STATE_CHARS = 40
MAX_NAMED = 8
"""Most members or ids that a sentence names."""

TERMINALS = "user_terminals"
OFFLINE = "offline"
_UNKNOWN_STATE = "state is "
"""How the note of a record says a state that nothing is known of."""

FindingKind = Literal["missing", "partial", "implausible", "sudden", "rows", "ids", "states"]
Limits = Mapping[str, float]
"""Field of a product's record -> its value, of those that limit samples and usage."""
NO_LIMITS: Limits = {}


class Finding(msgspec.Struct, frozen=True):
    """Something unexpected in a call's answers, in one sentence. `about` tells it from others of the call.

    `incomplete`: what the call is for was not there, so that its status is not ok.
    """

    kind: FindingKind
    about: str
    message: str
    incomplete: bool = False


class FieldCoverage(msgspec.Struct, frozen=True):
    """How many fields were expected, how many of them were found, and which were in no record."""

    expected: int
    seen: int
    missing: tuple[str, ...] = ()


class Judgement(msgspec.Struct, frozen=True):
    """What follows from one or more polls of a call."""

    coverage: FieldCoverage
    findings: tuple[Finding, ...] = ()


class _Values(msgspec.Struct):
    """Of the numbers of one field: how many there were, how many were implausible, and their mean magnitude."""

    count: int = 0
    implausible: int = 0
    example: str = ""
    positive: int = 0
    log_sum: float = 0.0


class AnswerCounts(msgspec.Struct):
    """What was counted in one poll. `records` are records, or samples of a report.

    `rows` are measurements that were not empty, `unread_rows` those of them of which no field could be read.
    """

    records: int = 0
    lacking: Counter[str] = msgspec.field(default_factory=Counter)
    values: dict[str, _Values] = {}
    rows: int = 0
    unread_rows: int = 0
    unread_members: dict[str, int] = {}
    """Members of the answer that no field reads -> in how many of the records that were looked at."""


class Expected(msgspec.Struct, frozen=True):
    """The expectation of a call, made ready for counting."""

    call: Call
    expectation: Expectation
    each: tuple[Alternatives, ...]
    single: frozenset[str]
    """Fields without an alternative, but for the time: looked for all at once, because that is quicker."""
    is_simple: bool
    """Whether there are no others."""
    ranged: tuple[tuple[str, float, float], ...]
    limited: tuple[str, ...]
    states: frozenset[str] = frozenset()
    """The states of terminals that are known to mean online or offline, in lower case."""

    @classmethod
    def of(cls, call: Call, online_states: Iterable[str] = ()) -> "Expected":
        """Of a call as it is configured, with the states of a terminal that count as online."""
        expectation, names = expectation_of(call), [field.name for field in call.fields]
        return cls(
            call=call,
            expectation=expectation,
            each=expectation.fields(),
            single=frozenset(group[0] for group in expectation.fields() if len(group) == 1) - {TIME},
            is_simple=all(len(group) == 1 for group in expectation.fields()),
            ranged=tuple((name, RANGES[name].low, RANGES[name].high) for name in names if name in RANGES),
            limited=tuple(name for name in names if name in LIMITS),
            states=_known_states(online_states) if call.id == TERMINALS else frozenset(),
        )


def _known_states(online: Iterable[str]) -> frozenset[str]:
    """Of none that is configured nothing is known."""
    words = frozenset(state.casefold() for state in online)
    return words | {OFFLINE} if words else words


class RecordNote(msgspec.Struct, frozen=True, gc=False):
    """What one record lacks of what is expected, and which of its values are implausible."""

    lacking: tuple[str, ...] = ()
    implausible: tuple[tuple[str, float], ...] = ()


_NOTHING = RecordNote()


def note_of(expected: Expected, fields: Fields, limits: Limits = NO_LIMITS) -> RecordNote:
    """What a record, or the values of a sample, lack of what is expected, and which values are implausible."""
    lacking = _lacking(expected, fields)
    if expected.states and (state := str(fields.get("state", OFFLINE))).casefold() not in expected.states:
        lacking = (*lacking, f"{_UNKNOWN_STATE}{state[:MAX_STATE_CHARS]}")
    implausible = _implausible(expected, fields, limits)
    return RecordNote(lacking, implausible) if lacking or implausible else _NOTHING


def _lacking(expected: Expected, fields: Fields) -> tuple[str, ...]:
    if expected.is_simple and expected.single <= fields.keys():
        return ()
    lacking = (group[0] for group in expected.each if not any(name in fields for name in group))
    # A time is no field of a sample, and counted where it is read.
    return tuple(name for name in lacking if name != TIME)


def _implausible(expected: Expected, fields: Fields, limits: Limits) -> tuple[tuple[str, float], ...]:
    implausible = [
        (name, value)
        for name, low, high in expected.ranged
        if isinstance(value := fields.get(name), (int, float)) and not low <= value <= high
    ]
    if limits and fields.get("is_shared") is not True:
        implausible += [(name, value) for name in expected.limited if (value := _above_limit(fields, name, limits))]
    return tuple(implausible)


def _above_limit(fields: Fields, name: str, limits: Limits) -> float:
    """A value that is many times what its product allows, or 0."""
    value, limit = fields.get(name), limits.get(LIMITS[name])
    if not limit or not isinstance(value, (int, float)):
        return 0
    return value if value > MAX_RATIO * limit * LIMIT_FACTORS[name] else 0


class RecordNotes:
    """The notes of a call's stored records, in RAM. What is remembered of a record holds until it is decoded again."""

    def __init__(self) -> None:
        self._notes: dict[str, RecordNote] = {}
        self._noted: set[str] = set()
        self.complete = False
        """Whether every stored record was looked at since the bridge started."""

    def note(self, id: str, note: RecordNote) -> None:
        """Takes over the note of a record that was just decoded."""
        self._noted.add(id)
        if note is _NOTHING:
            self._notes.pop(id, None)
        else:
            self._notes[id] = note

    def has_noted(self, id: str) -> bool:
        """Whether a record was noted in this poll."""
        return id in self._noted

    def count(self, counts: AnswerCounts, listed: AbstractSet[str]) -> None:
        """Counts all records of a listing, and forgets those that are not listed any more."""
        self._notes = {id: note for id, note in self._notes.items() if id in listed or id in self._noted}
        for note in self._notes.values():
            _count_note(counts, note)
        self._noted.clear()


def _count_note(counts: AnswerCounts, note: RecordNote) -> None:
    counts.lacking.update(note.lacking)
    for name, value in note.implausible:
        values = counts.values.setdefault(name, _Values())
        values.implausible += 1
        values.example = values.example or f"{value:.9g}"


def count_values(counts: AnswerCounts, expected: Expected, fields: Fields) -> None:
    """Counts the numbers of one record or sample, and their magnitude."""
    for name, _, _ in expected.ranged:
        value = fields.get(name)
        if isinstance(value, (int, float)):
            values = counts.values.get(name)
            if values is None:
                values = counts.values[name] = _Values()
            values.count += 1
            if value > 0 and values.positive < MAX_MAGNITUDES:
                values.positive += 1
                values.log_sum += math.log10(value)


def count_sample(
    counts: AnswerCounts, expected: Expected, values: Fields, *, timed: bool, limits: Limits = NO_LIMITS
) -> None:
    """Counts one sample of a report."""
    counts.records += 1
    note = note_of(expected, values, limits)
    if note is not _NOTHING:
        _count_note(counts, note)
    if not timed:
        counts.lacking[TIME] += 1
    count_values(counts, expected, values)


def fields_of_components(components: Fields) -> Fields:
    """The record of a terminal's components as coverage looks at it: it has components, or it has none."""
    return {COMPONENTS: True} if components else {}


# ── judging ────────────────────────────────────────────────────────────────────────────────────


class CallHistory(msgspec.Struct):
    """What is remembered of a call's answers from poll to poll, in RAM."""

    seen: set[str] = set()
    """Fields that were found at some time."""
    lacking: dict[str, int] = {}
    """Field -> samples in a row that lack it."""
    magnitudes: dict[str, float] = {}
    """Field -> the mean decimal logarithm of its values in the last poll that had enough of them."""


def judge_answer(expected: Expected, counts: AnswerCounts, history: CallHistory | None = None) -> Judgement | None:
    """What follows from the counts of a poll; None where it brought nothing that could be judged."""
    history = CallHistory() if history is None else history
    if not counts.records and not counts.unread_rows:
        return None
    missing = _missing(expected, counts, history)
    findings = [
        *_row_findings(expected.call, counts),
        *(_missing_finding(expected.call, name, counts) for name in missing),
        *_partial_findings(expected, counts, missing),
        *_implausible_findings(expected.call, counts),
        *_share_findings(expected.call, counts),
        *_state_findings(counts),
        *_sudden_findings(expected.call, counts, history),
    ]
    total = len(expected.each)
    return Judgement(FieldCoverage(total, total - len(missing), tuple(missing)), tuple(findings))


def _missing(expected: Expected, counts: AnswerCounts, history: CallHistory) -> list[str]:
    """The expected fields that no record has. A report may bring few samples, so what was found before needs more."""
    is_report = expected.call.reads == "report"
    missing = []
    for group in expected.each:
        name = group[0]
        lacking = counts.records if counts.records == 0 else counts.lacking[name]
        if lacking < counts.records:
            history.seen.add(name)
            history.lacking.pop(name, None)
            continue
        history.lacking[name] = history.lacking.get(name, 0) + counts.records
        if not is_report or name not in history.seen or history.lacking[name] >= LACKING_SAMPLES:
            missing.append(name)
    return missing


def _row_findings(call: Call, counts: AnswerCounts) -> Iterable[Finding]:
    if counts.unread_rows > max(MAX_IMPLAUSIBLE, counts.rows // 10) or 2 * counts.unread_rows >= max(counts.rows, 1):
        yield Finding(
            "rows",
            "rows",
            f"{counts.unread_rows} of {counts.rows} rows of the answer gave no sample, because no indicator of "
            f"{call.id} is in them{_unread(counts)}; look at polling.{call.id}.measurements, indicators and map",
            incomplete=counts.records == 0,
        )


def _missing_finding(call: Call, name: str, counts: AnswerCounts) -> Finding:
    what = f"none of {counts.records} {_noun(call)} has"
    if name == TIME:
        advice = f"look at polling.{call.id}.timestamp; the time of the poll is used"
        return Finding("missing", name, f"{what} a time that can be read{_unread(counts)}; {advice}", incomplete=True)
    advice = f"say in polling.{call.id}.map where {name} stands, or {name}: null if this API does not have it"
    return Finding("missing", name, f"{what} the field {name}{_unread(counts)}; {advice}", incomplete=True)


def _partial_findings(expected: Expected, counts: AnswerCounts, missing: Iterable[str]) -> Iterable[Finding]:
    if counts.records < MIN_RECORDS:
        return
    for group in expected.expectation.general:
        name = group[0]
        count = counts.records - counts.lacking[name]
        if name not in missing and count < GENERAL_SHARE * counts.records:
            message = f"only {count} of {counts.records} {_noun(expected.call)} have {_described(name)}"
            yield Finding("partial", name, message)


def _implausible_findings(call: Call, counts: AnswerCounts) -> Iterable[Finding]:
    for name, values in counts.values.items():
        total = max(values.count, values.implausible)
        many = values.implausible > max(MAX_IMPLAUSIBLE, total // 100) or 2 * values.implausible >= total
        if values.implausible and many:
            range_ = RANGES[name]
            limit = f" or {MAX_RATIO} times what the product allows" if name in LIMITS else ""
            message = (
                f"{values.implausible} values of {name} cannot be, such as {values.example}: expected "
                f"{range_.low:g} to {range_.high:g}{limit}; the unit or the path in polling.{call.id}.map.{name} "
                "may be wrong"
            )
            yield Finding("implausible", name, message)


def _share_findings(call: Call, counts: AnswerCounts) -> Iterable[Finding]:
    """Percentages that look like shares from 0 to 1."""
    for name in MOSTLY_WHOLE & counts.values.keys():
        values = counts.values[name]
        if values.positive >= LACKING_SAMPLES and values.log_sum <= 0:
            mean = 10 ** (values.log_sum / values.positive)
            message = (
                f"the values of {name} are {mean:.2g} % in the mean, and may be shares "
                f"from 0 to 1: then set polling.{call.id}.map.{name}: {{unit: ratio}}"
            )
            yield Finding("implausible", name, message)


def _sudden_findings(call: Call, counts: AnswerCounts, history: CallHistory) -> Iterable[Finding]:
    """Fields whose values are suddenly many times greater or smaller than those of the poll before."""
    for name, values in counts.values.items():
        if name not in STEADY or values.positive < LACKING_SAMPLES:
            continue
        magnitude = values.log_sum / values.positive
        before = history.magnitudes.setdefault(name, magnitude)
        ratio = 10 ** min(abs(magnitude - before), 30)
        if ratio < SUDDEN_RATIO:
            history.magnitudes[name] = magnitude
            continue
        way = "greater" if magnitude > before else "smaller"
        message = (
            f"the values of {name} are suddenly {ratio:.0f} times {way} than before; their unit may have changed, see "
            f"polling.{call.id}.map.{name}"
        )
        yield Finding("sudden", name, message)


def _state_findings(counts: AnswerCounts) -> Iterable[Finding]:
    """Terminals of which none is in a state that is known: then which of them are online is not known either."""
    words = sorted(name.removeprefix(_UNKNOWN_STATE) for name in counts.lacking if name.startswith(_UNKNOWN_STATE))
    unknown = sum(counts.lacking[_UNKNOWN_STATE + word] for word in words)
    if unknown and unknown == counts.records - counts.lacking["state"]:
        named = f"{', '.join(words[:MAX_NAMED])}{', …' if len(words) > MAX_NAMED else ''}"
        message = (
            f"no state of a terminal is known, neither online nor offline; they are {named}: name those that mean "
            "online in mapping.online_states"
        )
        yield Finding("states", "states", message)


def _noun(call: Call) -> str:
    return "samples" if call.reads == "report" else "records"


def _described(name: str) -> str:
    return "a time" if name == TIME else f"the field {name}"


def _unread(counts: AnswerCounts) -> str:
    """The members that no field reads, most frequent first, as the end of a sentence."""
    names = sorted(counts.unread_members, key=lambda name: (-counts.unread_members[name], name))
    if not names:
        return ""
    more = ", …" if len(names) > MAX_NAMED else ""
    return f" (members that no field reads: {', '.join(names[:MAX_NAMED])}{more})"


def summarize(findings: Iterable[Finding]) -> str | None:
    """What makes a call incomplete, in one sentence; None when nothing does."""
    incomplete = [finding for finding in findings if finding.incomplete]
    missing = [finding for finding in incomplete if finding.kind == "missing"]
    parts = [finding.message for finding in incomplete if finding.kind != "missing"]
    if len(missing) > 1:
        parts.append(f"no record has {', '.join(finding.about for finding in missing)}; {ADVICE}")
    else:
        parts += [finding.message for finding in missing]
    return "; ".join(parts) or None


ADVICE = "oneweb-bridge explore shows where they may stand"
