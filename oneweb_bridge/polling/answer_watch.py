"""What is counted of a call's answers while they are polled, and what follows from it. Pure.

`AnswerMemory` is kept from poll to poll, `AnswerWatch` is of one poll.
"""

import json
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from oneweb_bridge.api.listing import ListingPage
from oneweb_bridge.decode import answer_shape, coverage, id_coverage
from oneweb_bridge.decode.answer_shape import AnswerShape
from oneweb_bridge.decode.border import Unreadable
from oneweb_bridge.decode.coverage import AnswerCounts, CallHistory, Expected, Finding, Judgement, Limits, RecordNotes
from oneweb_bridge.decode.pages import decode_record
from oneweb_bridge.decode.samples import Measured
from oneweb_bridge.model.records import Alert, DecodedRecord, Fields, RecordKind

FIRST_PAGE_SAMPLE = 10
LATER_PAGE_SAMPLE = 1
MAX_SAMPLE = 20
"""Records of a poll whose shape is looked at: enough to see a change, and no cost beside the poll itself."""
MAX_SAMPLE_BYTES = 65536
"""Bytes of the beginning of a page in which these records are looked for."""


class AnswerMemory:
    """What is remembered of one call's answers. `shape` is None until it was loaded."""

    def __init__(self) -> None:
        self.notes = RecordNotes()
        self.history = CallHistory()
        self.judgement: Judgement | None = None
        self.key_findings: list[Finding] = []
        """What the records that were looked at last said of their ids."""
        self.shape: AnswerShape | None = None
        self.stored_shape: dict[str, answer_shape.Member] = {}


def fields_of(kind: RecordKind, fields: Fields) -> Fields:
    """The fields of a record as coverage looks at them."""
    if kind != "components":
        return fields
    return coverage.fields_of_components({name: value for name, value in fields.items() if name != "imei" and value})


class AnswerWatch:
    """Counts what one poll finds."""

    def __init__(self, expected: Expected, kind: RecordKind, memory: AnswerMemory) -> None:
        """`memory` is that of the poll, also where a new configuration has begun another meanwhile."""
        self.counts = AnswerCounts()
        self.memory = memory
        self._expected = expected
        self._kind = kind
        self._sample: list[Any] = []
        self._outline: answer_shape.Outline = {}

    # ── while pages come ───────────────────────────────────────────────────────────────────────

    @property
    def is_looking(self) -> bool:
        """Whether more records are wanted for the shape."""
        return len(self._sample) < MAX_SAMPLE

    def look_at_page(self, page: ListingPage) -> None:
        """Takes some records of a page for its shape."""
        wanted = min(FIRST_PAGE_SAMPLE if not self._sample else LATER_PAGE_SAMPLE, MAX_SAMPLE - len(self._sample))
        if wanted > 0:
            self._sample += _records_of_body(page.body, wanted) if page.body else _decoded(page.records[:wanted])

    def note_record(self, reading: DecodedRecord, limits: Limits) -> None:
        """Counts a record that was decoded."""
        fields = fields_of(self._kind, reading.fields)
        self.memory.notes.note(reading.id, coverage.note_of(self._expected, fields, limits))
        coverage.count_values(self.counts, self._expected, reading.fields)

    def note_stored(self, id: str, fields: Fields) -> None:
        """Takes over what a stored record has, which was not decoded since the bridge started."""
        self.memory.notes.note(id, coverage.note_of(self._expected, fields_of(self._kind, fields)))

    def count_samples(self, measured: Measured, limits: Limits) -> None:
        """Counts the samples of one id."""
        self.counts.rows += measured.rows
        self.counts.unread_rows += measured.unread_rows
        for sample in measured.samples:
            coverage.count_sample(
                self.counts, self._expected, sample.values, timed=sample.ts is not None, limits=limits
            )

    # ── at the end ─────────────────────────────────────────────────────────────────────────────

    def count_listing(self, listed: AbstractSet[str], count: int) -> None:
        """Counts all records of a complete listing, those that were not decoded as they were the last time."""
        self.counts.records = count
        self.memory.notes.count(self.counts, listed)

    def judge(self, findings: Iterable[Finding] = ()) -> Judgement | None:
        """What follows from the poll; where it brought nothing that could be judged, what followed from the last."""
        self._outline = answer_shape.outline_of(self._sample)
        self.counts.unread_members = answer_shape.unread_members(self._outline, self._expected.call)
        judgement = coverage.judge_answer(self._expected, self.counts, self.memory.history)
        if judgement is not None:
            self.memory.judgement = judgement
        if self._sample:
            self.memory.key_findings = id_coverage.key_findings(self._expected.call, self._sample)
        latest = self.memory.judgement
        if latest is None:
            return None
        return msgspec.structs.replace(latest, findings=(*latest.findings, *self.memory.key_findings, *findings))

    def shape_alerts(self, now: int) -> list[Alert]:
        """What changed in the shape of the answers since the polls before."""
        shape = self.memory.shape
        if shape is None or not self._sample:
            return []
        call = self._expected.call
        changes = answer_shape.note_shape(shape, self._outline, call, now)
        return [
            Alert(kind="shape_changed", call=call.id, about=change.about, message=f"{call.path}: {change.message}")
            for change in changes
        ]


def finding_alerts(call: str, findings: Iterable[Finding]) -> list[Alert]:
    """One alert for each finding."""
    return [
        Alert(kind="answer_unexpected", call=call, about=f"{finding.kind} {finding.about}", message=finding.message)
        for finding in findings
    ]


def _decoded(raws: Iterable[msgspec.Raw]) -> list[Any]:
    records = []
    for raw in raws:
        try:
            records.append(decode_record(raw))
        except Unreadable:
            continue
    return records


_json = json.JSONDecoder()


def _records_of_body(body: bytes, count: int) -> list[Any]:
    """The first records of a list that was not split, as far as they stand at its beginning."""
    text, records, place = body[1:MAX_SAMPLE_BYTES].decode(errors="ignore"), list[Any](), 0
    while len(records) < count:
        place = len(text) - len(text[place:].lstrip(" \t\r\n,"))
        try:
            record, place = _json.raw_decode(text, place)
        except (ValueError, RecursionError):
            break
        records.append(record)
    return records
