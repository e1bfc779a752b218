"""Reads one call exactly as the bridge does, and counts what would be published.

The requests are the bridge's own (the same client, pages, windows, retries), so is the decoder, and what follows from
the counts is judged by the functions that judge a poll.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec

from oneweb_bridge.api.errors import ApiError, NotFound, RateLimited, Unauthorized, Unavailable
from oneweb_bridge.api.fetch import FetchRequest, fetch_pages
from oneweb_bridge.api.listing import ListingPage, Problems
from oneweb_bridge.decode.border import BadPage, Unreadable
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.coverage import NO_LIMITS, FieldCoverage, Finding
from oneweb_bridge.decode.expectations import LIMITS
from oneweb_bridge.decode.id_coverage import UnmatchedIds, ids_finding, is_worth_reporting
from oneweb_bridge.decode.pages import decode_record, expand_tables, split_page
from oneweb_bridge.encoding import count_text
from oneweb_bridge.explore.client import ExploreApi, TrialsUsedUp
from oneweb_bridge.explore.evidence import Outcome
from oneweb_bridge.model.records import Fields, Sample
from oneweb_bridge.polling.answer_watch import AnswerMemory, AnswerWatch, fields_of
from oneweb_bridge.polling.compiled_call import CompiledCall
from oneweb_bridge.polling.id_matching import matched_kind
from oneweb_bridge.polling.time_windows import WindowBounds, time_windows, window_params

MAX_IDS = 5
"""Ids that a call with `for_each` is asked for."""

Inventory = Mapping[str, Mapping[str, Fields]]
"""Kind of record -> id -> fields, of what was read so far."""


class CallReading(msgspec.Struct, frozen=True, kw_only=True):
    """What the bridge reads of one call under one configuration.

    `fields` counts the records, or samples, that have each field, `others` those with a value that has no field;
    `records` are those by id, `ids` those of a report. Times in ms.
    """

    outcome: Outcome
    error: str = ""
    status: int | None = None
    count: int = 0
    records: Mapping[str, Fields] = {}
    ids: frozenset[str] = frozenset()
    samples: int = 0
    fields: Mapping[str, int] = {}
    others: Mapping[str, int] = {}
    findings: tuple[Finding, ...] = ()
    coverage: FieldCoverage | None = None
    newest: int | None = None
    set_aside: int = 0
    first_set_aside: str = ""
    unparseable: Mapping[str, int] = {}
    reasons: Mapping[str, str] = {}
    not_believed: int = 0
    unpaged: bool = False
    pages: int = 0
    """Of how many pages with records the longest listing was made."""
    for_some: bool = False
    window_refused: bool = False
    """Whether a request without time parameters was answered, and one with them was not."""

    @property
    def amount(self) -> int:
        """How many records, or samples of a report, were read."""
        return max(self.samples, len(self.records))

    @property
    def is_whole(self) -> bool:
        """Whether the call was reached, and all that is expected of it was there and could be read."""
        return (
            self.outcome == "ok"
            and self.coverage is not None
            and not self.coverage.missing
            and not self.findings
            and not self.problems
        )

    @property
    def problems(self) -> list[str]:
        """What could not be read, in sentences."""
        texts = []
        if self.set_aside:
            noun = "record or sample" if self.set_aside == 1 else "records or samples"
            texts.append(f"{self.set_aside} {noun} cannot be read: {self.first_set_aside}")
        texts += [
            f"{count_text(count, 'value')} of {name} cannot be read ({self.reasons.get(name, '')})"
            for name, count in self.unparseable.items()
        ]
        if self.not_believed:
            texts.append(f"{count_text(self.not_believed, 'sample')} ahead of the clock: is mapping.timezone right?")
        return texts


async def read_call(api: ExploreApi, plan: CompiledCall, inventory: Inventory) -> CallReading:
    """Reads a call as the first two polls of the bridge would."""
    reader, done = _Reader(plan, inventory, api), 0
    try:
        for window in _windows(plan.call, api.now()):
            await reader.read(window)
            done += 1
    except TrialsUsedUp:
        raise
    except ApiError as error:
        outcome, is_later = outcome_of(error), done > 0
        return CallReading(outcome=outcome, error=str(error), status=error.status, window_refused=is_later)
    return reader.reading()


def _windows(call: Call, now: int) -> list[WindowBounds]:
    """The windows of the first poll, and of the one after it."""
    first = time_windows(call, 0, -1, earlier_now=now, api_now=now)
    return first if call.window is None else [*first, *time_windows(call, now, now, earlier_now=now, api_now=now)]


_OUTCOMES: tuple[tuple[type[ApiError], Outcome], ...] = (
    (Unauthorized, "refused"),
    (RateLimited, "busy"),
    (Unavailable, "away"),
    (NotFound, "unknown"),
)


def outcome_of(error: ApiError) -> Outcome:
    """How a request ended."""
    for kind, outcome in _OUTCOMES:
        if isinstance(error, kind):
            return outcome
    return "rejected" if error.status is not None and 400 <= error.status < 500 else "odd"


class _Reader:
    """Decodes and counts the pages of one call."""

    def __init__(self, plan: CompiledCall, inventory: Inventory, api: ExploreApi) -> None:
        self._plan = plan
        self._inventory = inventory
        self._api = api
        self._watch = AnswerWatch(plan.expected, plan.kind, AnswerMemory())
        self._problems = Problems()
        self._records: dict[str, Fields] = {}
        self._samples: dict[tuple[str, int | None], Sample] = {}
        self._ids: set[str] = set()
        self._count = 0
        self._not_believed = 0
        self._unpaged = False
        self._pages = 0
        self._record_ids = self._ids_by_field()

    def _ids_by_field(self) -> dict[str, str]:
        """Other id -> id of the record, by `match`."""
        field, kind = self._plan.call.match, matched_kind(self._plan.call)
        records = self._inventory.get(kind or "", {})
        return {text: id for id, fields in records.items() for text in texts_of(fields.get(field))} if field else {}

    def _for_each(self) -> tuple[str, ...] | None:
        each = self._plan.call.for_each
        if each is None:
            return None
        return tuple(self._inventory.get("terminal" if each == "user_terminals" else "product", {}))[:MAX_IDS]

    async def read(self, window: WindowBounds) -> None:
        """All pages of one window. Raises ApiError."""
        plan = self._plan
        request = FetchRequest(
            call=plan.call,
            hasher=plan.hasher,
            salt=plan.salt,
            params=window_params(plan.call, window),
            for_each=self._for_each(),
        )
        count = 0
        async with contextlib.aclosing(fetch_pages(self._api, request)) as pages:
            async for page in pages:
                self._add(page)
                count += bool(page.ids)
        self._pages = max(self._pages, count)

    def _add(self, page: ListingPage) -> None:
        self._watch.look_at_page(page)
        self._unpaged = self._unpaged or page.unpaged
        if page.unreadable:
            self._problems.add_set_aside(page.reason, page.unreadable)
        if page.unanswered:
            self._problems.add_set_aside(page.reason, page.unanswered)
        self._count += len(page.ids)
        for id, raw in zip(page.ids, page.raws(), strict=True):
            try:
                if self._plan.call.reads == "report":
                    self._add_entry(id, decode_record(raw))
                else:
                    self._add_record(id, decode_record(raw))
            except Unreadable as error:
                self._problems.add_set_aside(f"{id}: {error}")

    def _add_record(self, id: str, record: Any) -> None:
        reading = self._plan.decode_record(id, record)
        limits = self._limits_of(str(reading.fields.get("product_id", "")))
        self._watch.note_record(reading, limits)
        self._problems.add_values(id, reading.unparseable, reading.reasons)
        self._records[id] = reading.fields

    def _add_entry(self, id: str, entry: Any) -> None:
        id = self._record_ids.get(id, id)
        self._ids.add(id)
        measured = self._plan.decode_samples(id, entry)
        fresh = [sample for sample in measured.samples if (id, sample.ts) not in self._samples]
        self._watch.count_samples(msgspec.structs.replace(measured, samples=fresh), self._limits_of(id))
        self._problems.add_values(id, list(measured.unparseable), list(measured.unparseable.values()))
        for reason in measured.set_aside:
            self._problems.add_set_aside(f"{id}: {reason}")
        bounds = self._api.bounds()
        self._not_believed += sum(sample.ts is not None and not bounds.has(sample.ts) for sample in fresh)
        self._samples.update({(id, sample.ts): sample for sample in fresh})

    def _limits_of(self, product: str) -> Mapping[str, float]:
        fields = self._inventory.get("product", {}).get(product, {})
        limits = {name: value for name in set(LIMITS.values()) if isinstance(value := fields.get(name), float)}
        return limits or NO_LIMITS

    def reading(self) -> CallReading:
        """What was read."""
        call = self._plan.call
        if call.reads != "report":
            self._watch.count_listing(self._records.keys(), len(self._records))
        judgement = self._watch.judge(self._id_findings())
        rows = [s.values for s in self._samples.values()] if call.reads == "report" else list(self._counted_records())
        known = {name for field in call.fields for name in (field.name, field.unlimited)}
        times = [sample.ts for sample in self._samples.values() if sample.ts is not None]
        return CallReading(
            outcome="ok",
            count=len(self._ids) if call.reads == "report" else self._count,
            records=self._records,
            ids=frozenset(self._ids),
            samples=len(self._samples),
            fields=Counter(name for row in rows for name in row if name in known),
            others=Counter(name for row in rows for name in row if name not in known),
            findings=judgement.findings if judgement else (),
            coverage=judgement.coverage if judgement else None,
            newest=max(times, default=None),
            set_aside=self._problems.set_aside,
            first_set_aside=self._problems.first,
            unparseable=self._problems.values,
            reasons=self._problems.reasons,
            not_believed=self._not_believed,
            unpaged=self._unpaged,
            pages=self._pages,
            for_some=call.for_each is not None,
        )

    def _counted_records(self) -> list[Fields]:
        return [fields_of(self._plan.kind, fields) for fields in self._records.values()]

    def _id_findings(self) -> list[Finding]:
        """Ids of a report or of usage that match no record of the inventory."""
        call, kind = self._plan.call, matched_kind(self._plan.call)
        known = self._inventory.get(kind or "")
        if kind is None or not known or self._api.is_partial:
            return []
        unmatched = sorted(self._own_ids() - known.keys())
        if not unmatched:
            return []
        of_all = UnmatchedIds(
            count=len(unmatched),
            total=len(self._own_ids()),
            examples=tuple(unmatched[:2]),
            matching_field=field_with(known, unmatched),
        )
        return [ids_finding(call, kind, of_all)] if is_worth_reporting(of_all) or len(unmatched) == of_all.total else []

    def _own_ids(self) -> set[str]:
        if self._plan.call.reads == "usage":
            products = (str(fields["product_id"]) for fields in self._records.values() if "product_id" in fields)
            return {self._record_ids.get(id, id) for id in products}
        return self._ids if self._plan.call.reads == "report" else set(self._records)


def sample_period(plan: CompiledCall, body: Any) -> int:
    """The usual time in ms between two samples of one id in an answer; 0 when it cannot be known."""
    times: dict[str, list[int]] = {}
    with contextlib.suppress(BadPage):
        for raw in expand_tables(plan.call, split_page(msgspec.json.encode(body), plan.call.records).records):
            with contextlib.suppress(Unreadable):
                own = plan.hasher.key(raw)
                samples = plan.decode_samples(own, decode_record(raw)).samples
                times.setdefault(own, []).extend(sample.ts for sample in samples if sample.ts is not None)
    gaps = sorted(after - before for own_times in times.values() for before, after in pairwise(sorted(own_times)))
    return gaps[len(gaps) // 2] if gaps else 0


def texts_of(value: Any) -> list[str]:
    """The ids in a value of a record."""
    return [str(entry) for entry in value] if isinstance(value, list) else [] if value is None else [str(value)]


def field_with(records: Mapping[str, Fields], ids: list[str]) -> str:
    """The field of the records whose values are most of these ids; "" for none."""
    wanted, counts = set(ids), Counter[str]()
    for fields in records.values():
        counts.update(name for name, value in fields.items() if wanted.intersection(texts_of(value)))
    best = counts.most_common(1)
    return best[0][0] if best and 2 * best[0][1] >= len(wanted) else ""
