"""One poll of one call: fetch, read, compare, commit.

Pages are compared with the stored hashes as they come, and what differs is staged. Only a listing
that is proved complete is decoded, compared and committed, in slices, so that nothing ever holds a
whole listing and no other writer waits long. What decides is pure and runs off the event loop.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from oneweb_bridge.api import fetch
from oneweb_bridge.api.client import ApiClient
from oneweb_bridge.api.errors import NotFound
from oneweb_bridge.api.listing import Listing, ListingPage, PageCache, Problems, SkippableHashes, UnreadableValues
from oneweb_bridge.clock import Clock
from oneweb_bridge.config import filters
from oneweb_bridge.config.calls import mapping_fingerprint
from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode import record_hashes
from oneweb_bridge.decode.border import Unreadable
from oneweb_bridge.decode.bounds import Bounds
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.fields import DecodeRules
from oneweb_bridge.decode.pages import decode_record
from oneweb_bridge.decode.records import record_decoder
from oneweb_bridge.decode.repeated_hour import Known
from oneweb_bridge.decode.samples import Sampler, sample_decoder
from oneweb_bridge.decode.values import parse_time
from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.model.records import (
    Alert,
    Batch,
    DecodedRecord,
    Fields,
    KnownSamples,
    RecordKind,
    Sample,
    StoredRecord,
)
from oneweb_bridge.polling import diff, relations, removal, samples, vanishing
from oneweb_bridge.store.store import SLICE, CallProgress, Store

_log = logging.getLogger("oneweb_bridge.intake")
DAY = 86_400_000
MISSED = " missed"
"""Where spans that were missed are staged, beside the call's own rows."""
Span = tuple[int | None, int | None]
"""Begin and end of what is asked for, in ms; None is open."""


class PollOutcome(msgspec.Struct, kw_only=True):
    """What one complete poll brought, and what of it could not be read.

    `memory` is to be stored together with the call's new state.
    """

    memory: CallProgress
    records: int = 0
    events: int = 0
    samples: int = 0
    held: str = ""
    """What is held, in a sentence."""
    unpaged: bool = False
    alerts: list[Alert] = []
    problems: Problems = msgspec.field(default_factory=Problems)


class CompiledCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call made ready: its readers compiled, its hashes salted."""

    call: Call
    kind: RecordKind
    fingerprint: str
    salt: record_hashes.Salt
    glance: record_hashes.RecordHasher
    read: Callable[[str, Any], DecodedRecord]
    sample: Sampler
    volatile: frozenset[str]
    measured: tuple[str, ...]
    """The fields that tell when something was seen or updated: the volatile times."""
    sets: frozenset[str]
    traits: vanishing.Traits


def compile_call(call: Call, config: Config) -> CompiledCall:
    """The plan of a call under a configuration."""
    rules = DecodeRules(config.mapping.timezone, tuple(config.mapping.unlimited))
    print_ = mapping_fingerprint(call, config.mapping)
    kind: RecordKind = {"components": "components", "usage": "usage"}.get(call.reads, call.entity)  # type: ignore[assignment]
    # Another threshold or filter makes every record be looked at again, but is no change of the mapping.
    volatile = frozenset(field.name for field in call.fields if field.volatile)
    salted = f"{print_} {config.location_threshold} {config.filter}"
    return CompiledCall(
        call=call,
        kind=kind,
        fingerprint=print_,
        salt=record_hashes.Salt.of(salted),
        glance=record_hashes.record_hasher(call),
        read=record_decoder(call, rules),
        sample=sample_decoder(call, rules),
        volatile=volatile,
        measured=tuple(field.name for field in call.fields if field.volatile and field.type == "time"),
        sets=frozenset(field.name for field in call.fields if field.type == "set"),
        traits=vanishing.Traits(
            volatile=volatile,
            no_limit={field.name: field.unlimited for field in call.fields if field.unlimited},
            derived={"parent_id": "kind"} if call.derive == "organization_kind" else {},
        ),
    )


def _plans(config: Config) -> dict[str, CompiledCall]:
    return {id: compile_call(call, config) for id, call in config.polling.items()}


def _compiled_from(config: Config) -> tuple[object, ...]:
    """What the plans, and the pages that were remembered under them, depend on."""
    return config.polling, config.mapping, config.filter, config.location_threshold, config.api.clock_tolerance


class PollRunner:
    """What polls share: the store, the API, the configuration and the clock."""

    def __init__(self, store: Store, api: ApiClient, config: Config, clock: Clock) -> None:
        self._store = store
        self._api = api
        self._clock = clock
        self._attention: dict[str, samples.StoppedReports] = {}
        self._familiar: dict[str, PageCache] = {}
        self._unreadable: dict[str, UnreadableValues] = {}
        self._age = 0
        self._slice = asyncio.Lock()
        """Held from the look at which records there are to the commit that relies on it: no removal comes between."""
        self._config = config
        self._plans = _plans(config)

    def use(self, config: Config) -> None:
        """Takes a new configuration for the polls to come. What was compiled stays where nothing of it has changed."""
        before, self._config = self._config, config
        if _compiled_from(before) != _compiled_from(config):
            self._plans = _plans(config)
            self._forget_pages()

    def _forget_pages(self) -> None:
        """What was remembered of pages, also by polls under way, holds no more."""
        self._age += 1
        self._familiar.clear()

    async def poll(self, call: str) -> PollOutcome:
        """One whole poll. Raises ApiError; then nothing that was announced before is withdrawn."""
        plan = self._plans[call]
        # What a cancelled poll could not take back must not be mistaken for a part of this listing.
        await self._store.delete_staged(call)
        try:
            if plan.call.reads == "report":
                return await self._poll_report(plan)
            return await self._poll_records(plan)
        finally:
            await self._store.delete_staged(call)
            await self._store.delete_staged(call + MISSED)

    def _now(self) -> int:
        return self._clock.now()

    # ── records ────────────────────────────────────────────────────────────────────────────────

    async def _poll_records(self, plan: CompiledCall) -> PollOutcome:
        memory = await self._opened_memory(plan)
        outcome = PollOutcome(memory=memory)
        listing, age = Listing(self._api.bounds()), self._age
        # Whatever goes wrong from here on, the next poll looks at everything.
        earlier = self._familiar.pop(plan.call.id, PageCache())
        await self._stage_listing(plan, listing, earlier)
        # From here on the listing is known to be complete.
        held = await self._hold_values(plan, memory, listing, outcome)
        async for staged in self._store.iter_staged(plan.call.id):
            async with self._slice:
                await self._commit_records(plan, staged, listing, held, outcome)
        await self._remove(plan, listing, memory, outcome)
        outcome.records = len(listing.ids)
        outcome.unpaged = listing.unpaged
        self._unreadable_of(plan.call).add_to(listing.problems, listing.ids)
        outcome.problems = listing.problems
        outcome.alerts += _unreadable_alerts(plan.call.id, outcome.problems) + _time_alerts(plan.call.id, listing)
        outcome.memory = msgspec.structs.replace(outcome.memory, complete=True, remapped=False)
        if age == self._age:
            self._familiar[plan.call.id] = listing.familiar
        return outcome

    def _unreadable_of(self, call: Call) -> UnreadableValues:
        return self._unreadable.setdefault(call.id, UnreadableValues())

    async def _opened_memory(self, plan: CompiledCall) -> CallProgress:
        """The call's memory, with a change of its mapping noted before anything is compared under it."""
        memory = await self._store.load_call_progress(plan.call.id)
        if memory.fingerprint != plan.fingerprint:
            remapped = memory.complete and memory.fingerprint != ""
            memory = msgspec.structs.replace(memory, fingerprint=plan.fingerprint, remapped=memory.remapped or remapped)
            await self._store.remember(memory)
        return memory

    async def _listed(
        self,
        plan: CompiledCall,
        params: Mapping[str, str],
        earlier: PageCache | None = None,
        ids: tuple[str, ...] | None = None,
    ) -> AsyncGenerator[ListingPage, None]:
        errand = fetch.FetchRequest(
            call=plan.call,
            glance=plan.glance,
            salt=plan.salt,
            params=params,
            for_each=await self._each(plan.call) if ids is None else ids,
            familiar=lambda digest: None if earlier is None else earlier.ids(digest, self._store.steady.now()),
        )
        async with contextlib.aclosing(fetch.fetch_pages(self._api, errand)) as pages:
            async for page in pages:
                yield page

    async def _each(self, call: Call) -> tuple[str, ...] | None:
        if call.for_each is None:
            return None
        kind: RecordKind = "terminal" if call.for_each == "user_terminals" else "product"
        return tuple([id async for id, _, _ in self._stored(kind)])

    async def _stored(self, kind: RecordKind) -> AsyncIterator[tuple[str, int, int]]:
        after = ""
        while rows := await self._store.missing_counts_after(kind, after):
            for row in rows:
                yield row
            after = rows[-1][0]

    async def _stage_listing(self, plan: CompiledCall, listing: Listing, earlier: PageCache) -> None:
        """Keeps those records that must be decoded, once the listing is complete."""
        settled: SkippableHashes | None = None
        async with contextlib.aclosing(self._listed(plan, {}, earlier)) as pages:
            async for page in pages:
                listing.note(page)
                if page.familiar:
                    listing.pass_over(page, earlier)
                    continue
                settled = settled or await self._settled(plan.kind)
                rows = await asyncio.to_thread(listing.unsettled, page, settled)
                for start in range(0, len(rows), SLICE):
                    await self._store.stage(plan.call.id, rows[start : start + SLICE])

    async def _settled(self, kind: RecordKind) -> SkippableHashes:
        now = self._store.steady.now()
        due = now - samples.PRESENCE_EVERY if kind == "terminal" else -1
        hashes, oldest = await self._store.skippable_hashes(kind, due)
        until = min(now, oldest) if kind == "terminal" else now
        return SkippableHashes(hashes, now, until + samples.PRESENCE_EVERY)

    async def _commit_records(
        self,
        plan: CompiledCall,
        staged: list[tuple[int, str, bytes, bytes]],
        listing: Listing,
        held: vanishing.HeldFields,
        outcome: PollOutcome,
    ) -> None:
        fresh = await asyncio.to_thread(_decode_staged, plan, staged, listing.problems)
        for record in fresh:
            self._unreadable_of(plan.call).note(record.reading)
        unbelieved = _drop_unbelieved(plan, [record.reading for record in fresh], listing.bounds)
        listing.not_believed += len(unbelieved)
        fresh = await self._wanted(plan, await self._with_held_values(plan, fresh, held), listing)
        ids, memory = [record.reading.id for record in fresh], outcome.memory
        rule = diff.CompareRule(
            kind=plan.kind,
            volatile=plan.volatile,
            threshold=self._config.location_threshold,
            initial=not memory.complete,
            remapped=memory.remapped,
            now=self._now(),
            sets=plan.sets,
        )
        before = await self._store.load(plan.kind, ids)
        listing.known += len(before)
        context = await self._store.load("terminal", ids) if plan.kind == "components" else {}
        batch = await asyncio.to_thread(diff.compare, rule, before, fresh, context)
        if plan.kind == "product":
            products = [id for said_by, id, _ in batch.links if said_by == "product"]
            batch.stale.extend(await self._store.linked_terminals(products))
        if plan.kind == "terminal":
            batch.extend(await self._presence([record.reading for record in fresh], set(unbelieved)))
        outcome.events += sum(_is_event(entry.what, entry.body) for entry in batch.entries)
        outcome.samples += sum(entry.what in ("metric", "usage") for entry in batch.entries)
        await self._store.commit(batch)

    async def _hold_values(
        self, plan: CompiledCall, memory: CallProgress, listing: Listing, outcome: PollOutcome
    ) -> vanishing.HeldFields:
        """Decides which fields keep their values because these vanished from many records of the listing at once."""
        held: dict[str, int] = msgspec.json.decode(memory.values_held)
        rule, stored = self._config.removal, await self._store.count(plan.kind)
        counts: Counter[str] = Counter()
        # As few records as may lose a value at once need no second look, and a change of the mapping is a decision.
        if listing.staged_count > removal.max_at_once(rule, stored) and stored and not memory.remapped:
            async for staged in self._store.iter_staged(plan.call.id):
                fresh = await asyncio.to_thread(_decode_staged, plan, staged, Problems())
                before = await self._store.load(plan.kind, [record.reading.id for record in fresh])
                counts += await asyncio.to_thread(_vanished, plan, before, fresh)
        if listing.shown:
            now = self._store.steady.now()
            held = vanishing.decide(rule, counts, stored=stored, held=held, released=memory.released, now=now)
            if held:
                outcome.alerts.append(alert := _values_held(plan, {name: counts[name] for name in sorted(held)}))
                outcome.held = alert.message
        outcome.memory = msgspec.structs.replace(outcome.memory, values_held=encode(held).decode())
        return held

    async def _with_held_values(
        self, plan: CompiledCall, fresh: list[diff.ListedRecord], held: vanishing.HeldFields
    ) -> list[diff.ListedRecord]:
        """Puts the values that are held back into the records that lost them."""
        if not held:
            return fresh
        before = await self._store.load(plan.kind, [record.reading.id for record in fresh])
        return await asyncio.to_thread(_keep_held, plan, before, fresh, held)

    async def _wanted(
        self, plan: CompiledCall, fresh: list[diff.ListedRecord], listing: Listing
    ) -> list[diff.ListedRecord]:
        """Leaves out what the filter does not let pass, and components of terminals that are gone."""
        rule, ids = self._config.filter, [record.reading.id for record in fresh]
        if plan.kind == "components":
            allowed = await self._allowed("terminal", ids)
        elif plan.kind == "usage":
            products = {record.reading.id: str(record.reading.fields.get("product_id", "")) for record in fresh}
            passed = await self._allowed("product", list(set(products.values())))
            allowed = {id for id, product in products.items() if product in passed or not filters.active(rule)}
        else:
            allowed = {r.reading.id for r in fresh if filters.wanted(rule, plan.kind, r.reading.fields)}
        # One that is stored and not wanted any more is as good as missing.
        listing.ids -= set(ids) - allowed
        return [record for record in fresh if record.reading.id in allowed]

    async def _allowed(self, kind: RecordKind, ids: Sequence[str]) -> set[str]:
        """The ids whose record was not removed and, with a filter, is published."""
        if filters.active(self._config.filter):
            return await self._store.among("record", kind, ids)
        return set(ids) - await self._store.among("removed", kind, ids)

    async def _presence(self, readings: Sequence[DecodedRecord], unbelieved: Collection[str]) -> Batch:
        """Presence that is due; of the ids whose times are not believed it stays so, until there is one to publish."""
        now, steady = self._now(), self._store.steady.now()
        at = await self._store.presence([r.id for r in readings])
        late = [r for r in readings if steady - at.get(r.id, 0) >= samples.PRESENCE_EVERY]
        found = {r.id: sample for r in late if (sample := samples.presence_of(r)) is not None}
        due = [r.id for r in late]
        context = samples.SampleContext(
            entity="terminal",
            past=await self._past(samples.PRESENCE, due),
            latest={},
            # Presence has nothing late: what is not newer is known.
            horizon=1 << 62,
            now=now,
        )
        batch = samples.batch_new_samples([found[id] for id in due if id in found], context)
        batch.presence = [(id, steady) for id in due if id not in unbelieved]
        return batch

    async def _past(self, report: str, ids: Sequence[str]) -> dict[str, KnownSamples]:
        """What is known of the samples of ids, as far as it is believed now."""
        latest = self._api.bounds().latest
        return {id: samples.believable(past, latest) for id, past in (await self._store.past(report, ids)).items()}

    # ── removal ────────────────────────────────────────────────────────────────────────────────

    async def _remove(self, plan: CompiledCall, listing: Listing, memory: CallProgress, outcome: PollOutcome) -> None:
        if plan.kind == "components":
            outcome.memory = msgspec.structs.replace(outcome.memory, released=False)
            return
        stored, now = await self._store.count(plan.kind), self._store.steady.now()
        absent = [] if listing.problems.set_aside else await self._absent(plan, listing, stored, now)
        verdict = removal.decide(
            self._config.removal,
            absent,
            stored=stored,
            listed=listing.shown,
            held_since=memory.held_since,
            released=memory.released,
            now=now,
            timed=plan.kind != "usage",
        )
        if verdict.count and absent:
            await self._store.count_missing(plan.kind, [a.id for a in absent], now)
        for start in range(0, len(verdict.gone), SLICE):
            async with self._slice:
                await self._commit_removed(plan.kind, verdict.gone[start : start + SLICE], outcome)
        if verdict.held:
            outcome.alerts.append(alert := _removal_held_alert(plan, verdict.held, len(absent) or stored))
            outcome.held = alert.message
        outcome.memory = msgspec.structs.replace(
            outcome.memory,
            held_since=verdict.held_since,
            released=memory.released and not verdict.gone and not listing.shown,
        )

    async def _absent(self, plan: CompiledCall, listing: Listing, stored: int, now: int) -> list[removal.MissingRecord]:
        if listing.all_stored(stored):
            return []
        return [
            removal.MissingRecord(id, missing + 1, since or now)
            async for id, missing, since in self._stored(plan.kind)
            if id not in listing.ids
        ]

    async def _commit_removed(self, kind: RecordKind, ids: Sequence[str], outcome: PollOutcome) -> None:
        stored = await self._store.load(kind, ids)
        topics = await self._topics(kind, ids)
        batch = diff.removed(kind, stored, topics, self._now())
        if kind == "product":
            batch.stale.extend(await self._store.linked_terminals(ids))
        outcome.events += 0 if kind == "usage" else len(stored)
        self._forget_pages()
        await self._store.commit(batch)

    async def _topics(self, kind: RecordKind, ids: Sequence[str]) -> dict[str, list[str]]:
        """The retained topics of each record, below its own."""
        if kind == "usage":
            return {}
        reports = await self._store.reports_of(kind, ids)
        own: dict[str, list[str]] = {id: ["state"] for id in ids}
        for other in ("components", "relations"):
            for id in await self._store.among("record", other, ids) if kind == "terminal" else ():
                own[id].append(other)
        return {id: [*topics, *(f"metric/{report}" for report in reports.get(id, ()))] for id, topics in own.items()}

    # ── samples ────────────────────────────────────────────────────────────────────────────────

    async def _poll_report(self, plan: CompiledCall) -> PollOutcome:
        memory = await self._believed_memory(plan)
        outcome = PollOutcome(memory=memory)
        newest = await self._newest_sample(plan)
        spans = _time_windows(plan.call, memory.window_end, newest, (self._api.earlier(), self._api.now()))
        for start, end in spans:
            outcome.memory = await self._poll_span(plan, (start, end), spans[0][0], outcome)
            if end is not None:
                await self._store.remember(outcome.memory)
        outcome.memory = msgspec.structs.replace(outcome.memory, complete=True, remapped=False)
        outcome.alerts += _unreadable_alerts(plan.call.id, outcome.problems)
        if plan.kind == "terminal":
            outcome.alerts += await self._stopped(plan.call)
        return outcome

    async def _newest_sample(self, plan: CompiledCall) -> int:
        """The time of the newest sample known of a call; -1 when there is none."""
        return await self._store.newest_sample(plan.call.report, self._api.bounds().latest)

    async def _believed_memory(self, plan: CompiledCall) -> CallProgress:
        """The call's memory without what a clock that was wrong has left in it."""
        memory, latest = await self._opened_memory(plan), self._api.bounds().latest
        newest = await self._newest_sample(plan)
        window_end = memory.window_end if memory.window_end <= latest else max(newest, 0)
        return msgspec.structs.replace(memory, window_end=window_end, horizon=min(memory.horizon, max(newest, 0)))

    async def _stopped(self, call: Call) -> list[Alert]:
        """What is to be alerted about terminals whose report has stopped while that of others goes on."""
        attention = self._attention.setdefault(call.id, samples.StoppedReports())
        newest = await self._store.newest_samples_of_online(
            call.report, self._config.mapping.online_states, self._api.bounds().latest
        )
        patience = samples.StopThreshold(lateness=round(call.lateness * 1000), interval=round(call.interval * 1000))
        imeis = samples.newly_stopped(attention, newest, patience, self._api.now())
        return [_report_stopped(call, imeis)] if imeis else []

    async def _poll_span(self, plan: CompiledCall, span: Span, first: int | None, outcome: PollOutcome) -> CallProgress:
        """One span of those that begin at `first`: what is behind it, what was missed before them, all committed."""
        start, end = span
        await self._store.delete_staged(plan.call.id)
        listing = Listing(self._api.bounds(), outcome.memory.horizon, outcome.problems)
        await self._stage_span(plan, span, listing)
        if first is not None:
            for missed, ids in await self._missed(plan, first):
                await self._make_up(plan, missed, ids, outcome)
        async for staged in self._store.iter_staged(plan.call.id):
            async with self._slice:
                await self._commit_samples(plan, staged, outcome)
        outcome.records, outcome.unpaged = len(listing.ids), listing.unpaged
        outcome.alerts += _time_alerts(plan.call.id, listing)
        # A span that was asked for by a wrong clock does not reach beyond the API's own time.
        time = min(end or listing.time or self._api.now(), listing.time or self._api.now())
        horizon = _horizon(plan.call, outcome.memory.horizon, start, listing.oldest, await self._newest_sample(plan))
        if horizon - outcome.memory.horizon > DAY // 24:
            await self._store.remember(msgspec.structs.replace(outcome.memory, horizon=horizon))
            await self._store.delete_seen_samples(plan.call.report, horizon)
        else:
            horizon = outcome.memory.horizon
        return msgspec.structs.replace(outcome.memory, window_end=time, horizon=horizon)

    async def _stage_span(
        self, plan: CompiledCall, span: Span, listing: Listing, ids: tuple[str, ...] | None = None, place: str = ""
    ) -> None:
        """Stages what is new in a span, of all ids or of some that come separately, in the call's `place`."""
        listing.begin = span[0] or 0
        async with contextlib.aclosing(self._listed(plan, _window_params(plan.call, *span), ids=ids)) as pages:
            async for page in pages:
                await self._stage_samples(plan, page, listing, plan.call.id + place)

    async def _missed(self, plan: CompiledCall, first: int) -> list[tuple[Span, tuple[str, ...] | None]]:
        """The spans before `first` that were not asked for while nothing came, once something has come again.

        A report that is silent costs no request more than another. When it goes on, all of it may have been delivered
        at once: of a call that shows all ids together when the whole of it was silent, else of each id by itself.
        """
        back = await self._store.staged_ids(plan.call.id)
        newest: dict[str, int] = {"": await self._newest_sample(plan)} if back else {}
        if plan.call.for_each is not None:
            newest = {}
            for ids in back:
                newest |= {id: past.ts for id, past in (await self._past(plan.call.report, ids)).items()}
        return _missed_spans(plan.call, newest, first, self._api.earlier())

    async def _make_up(self, plan: CompiledCall, span: Span, ids: tuple[str, ...] | None, outcome: PollOutcome) -> None:
        """Commits what a missed span has, so that a poll that does not come to its end need not ask for it again."""
        await self._store.delete_staged(plan.call.id + MISSED)
        listing = Listing(self._api.bounds(), outcome.memory.horizon, outcome.problems)
        with contextlib.suppress(NotFound):
            await self._stage_span(plan, span, listing, ids, MISSED)
        async for staged in self._store.iter_staged(plan.call.id + MISSED):
            async with self._slice:
                await self._commit_samples(plan, staged, outcome, MISSED)
        outcome.alerts += _time_alerts(plan.call.id, listing)

    async def _stage_samples(self, plan: CompiledCall, page: ListingPage, listing: Listing, place: str) -> None:
        listing.note(page)
        raws = page.raws()
        items = [(page.ids[at], raws[at]) for at in listing.unseen(page.ids)]
        for start in range(0, len(items), SLICE):
            part = dict(items[start : start + SLICE])
            past = await self._past(plan.call.report, list(part))
            allowed = await self._sampled(plan, list(part))
            rows = await asyncio.to_thread(_new_samples, plan, part, allowed, past, listing)
            await self._store.stage(place, rows)

    async def _sampled(self, plan: CompiledCall, ids: Sequence[str]) -> set[str]:
        if not filters.active(self._config.filter):
            return set(ids)
        return await self._store.among("record", plan.kind, ids)

    async def _commit_samples(
        self, plan: CompiledCall, staged: list[tuple[int, str, bytes, bytes]], outcome: PollOutcome, place: str = ""
    ) -> None:
        ids = list({row[1] for row in staged})
        context = samples.SampleContext(
            entity=plan.call.entity,
            past=await self._past(plan.call.report, ids),
            latest=await self._store.latest_staged(plan.call.id + place, ids),
            gone=frozenset(await self._store.among("removed", plan.kind, ids)),
            horizon=outcome.memory.horizon,
            now=self._api.now(),
        )
        batch = await asyncio.to_thread(_batch_staged_samples, staged, context)
        outcome.samples += len(batch.seen)
        await self._store.commit(batch)

    # ── relations ──────────────────────────────────────────────────────────────────────────────

    async def relate(self) -> None:
        """Works out the relations of all terminals that need it, and says those that changed."""
        while imeis := await self._store.stale():
            async with self._slice:
                await self._relate(imeis)

    async def _relate(self, imeis: Sequence[str]) -> None:
        terminals = _fields(await self._store.load("terminal", imeis))
        linked = await self._store.linked_products(imeis)
        products = _fields(await self._load_all("product", {p for ids in linked.values() for p in ids}))
        site_ids, organization_ids = relations.wanted_ids(terminals, products)
        sites = _fields(await self._load_all("site", site_ids))
        organizations = _fields(await self._load_all("organization", organization_ids))
        related = {
            imei: relations.join_relations(
                imei,
                fields,
                [products[p] for p in linked.get(imei, ()) if p in products],
                sites,
                organizations,
            )
            for imei, fields in terminals.items()
        }
        before = await self._store.load("relations", imeis)
        await self._store.commit(relations.compare(imeis, terminals, related, before, self._now()))

    async def _load_all(self, kind: RecordKind, ids: Iterable[str]) -> dict[str, StoredRecord]:
        return await self._store.load(kind, sorted(ids))


def _decode_staged(
    plan: CompiledCall, staged: list[tuple[int, str, bytes, bytes]], problems: Problems
) -> list[diff.ListedRecord]:
    """The records that can be read; what cannot is set aside, and the others go on."""
    fresh = []
    for _, id, hash_, body in staged:
        try:
            fresh.append(diff.ListedRecord(plan.read(id, decode_record(body)), hash_))
        except Unreadable as error:
            _set_aside_alerts(plan.call, id, error, problems)
    return fresh


def _vanished(
    plan: CompiledCall, before: Mapping[str, StoredRecord], fresh: Sequence[diff.ListedRecord]
) -> Counter[str]:
    """From how many stored records each field vanished."""
    pairs = ((diff.fields_of(before.get(record.reading.id)), record.reading.fields) for record in fresh)
    return vanishing.count_vanished(plan.traits, pairs)


def _keep_held(
    plan: CompiledCall,
    before: Mapping[str, StoredRecord],
    fresh: Sequence[diff.ListedRecord],
    held: vanishing.HeldFields,
) -> list[diff.ListedRecord]:
    """The records with their held values. Without a hash, so that they are looked at again in each listing."""
    kept = []
    for record in fresh:
        known = diff.fields_of(before.get(record.reading.id))
        fields = vanishing.keep_held(plan.traits, known, record.reading.fields, held)
        if fields is not None:
            record = diff.ListedRecord(msgspec.structs.replace(record.reading, fields=fields), b"")  # noqa: PLW2901 -- the same record
        kept.append(record)
    return kept


def _set_aside_alerts(call: Call, id: str, error: Unreadable, problems: Problems) -> None:
    problems.add_set_aside(f"{id}: {error}")
    _log.debug("%s: something of %s is set aside: %s", call.id, id, error, exc_info=error)


def _drop_unbelieved(plan: CompiledCall, readings: Sequence[DecodedRecord], bounds: Bounds) -> list[str]:
    """Takes out of records the times of a measurement that are not believed. Returns the id of each such time."""
    ids = []
    for reading in readings:
        for name in plan.measured:
            ts = parse_time(reading.fields.get(name))
            if ts is not None and not bounds.has(ts):
                del reading.fields[name]
                ids.append(reading.id)
    return ids


def _known(listing: Listing, past: KnownSamples | None) -> Known:
    """What decides, of one id, which hour a time without an offset means."""
    past = past or KnownSamples()
    return Known(listing.begin, listing.bounds.latest, past.ts, past.seen)


def _new_samples(
    plan: CompiledCall,
    records: Mapping[str, msgspec.Raw],
    allowed: set[str],
    past: Mapping[str, KnownSamples],
    listing: Listing,
) -> list[tuple[int, str, bytes, bytes]]:
    """The samples that are not known yet, as rows to stage."""
    rows = []
    for id, raw in records.items():
        if id not in allowed:
            continue
        try:
            measured = plan.sample(id, decode_record(raw), _known(listing, past.get(id)))
        except Unreadable as error:
            _set_aside_alerts(plan.call, id, error, listing.problems)
            continue
        for reason in measured.set_aside:
            _set_aside_alerts(plan.call, id, reason, listing.problems)
        listing.problems.add_values(id, list(measured.odd), list(measured.odd.values()))
        found = [s for s in measured.samples if s.ts is None or listing.bounds.has(s.ts)]
        listing.not_believed += len(measured.samples) - len(found)
        listing.unsure += measured.unsure
        listing.oldest = min([listing.oldest, *(s.ts for s in found[:-1] if s.ts is not None)])
        rows += [
            (sample.ts or 0, id, b"", msgspec.msgpack.encode(sample))
            for sample in found
            if samples.classify_sample(past.get(id), sample.ts, samples.hash_of(sample.values), listing.horizon)
            != "known"
        ]
    return rows


def _batch_staged_samples(staged: list[tuple[int, str, bytes, bytes]], context: samples.SampleContext) -> Batch:
    decode = msgspec.msgpack.Decoder(Sample).decode
    return samples.batch_new_samples([decode(row[3]) for row in staged], context)


def _time_windows(call: Call, window_end: int, newest: int, clocks: tuple[int, int]) -> list[Span]:
    """The windows to ask for, oldest first: bounded steps, then an open one. Times in ms; `newest` is -1 for none.

    `clocks` are the earlier of the host's and the API's time, by which steps are counted, and the API's own.
    """
    earlier, now = clocks
    if call.window is None or (window_end == 0 and newest < 0 and not call.window.required):
        return [(None, None)]
    length, late = round(call.window.length * 1000), round(call.lateness * 1000)
    start = (window_end or (newest if newest >= 0 else now - length)) - late
    if 0 <= newest < start:
        # What was delayed may all come at once. As long as that costs no request more, it is asked for now; a longer
        # silence is made up for when it ends.
        steps = max(1, -(-(earlier - start) // length))
        start = newest - late if earlier - (newest - late) <= steps * length else start
    start = max(start, earlier - round(call.window.keep * 1000))
    spans: list[Span] = []
    while earlier - start > length:
        spans.append((start, start + length))
        start += length
    return [*spans, (start, now if call.window.required else None)]


def _missed_spans(
    call: Call, newest: Mapping[str, int], first: int, earlier: int
) -> list[tuple[Span, tuple[str, ...] | None]]:
    """The steps from the newest sample of each id, or of all (""), to `first`; what never came misses nothing."""
    if call.window is None:
        return []
    oldest = earlier - round(call.window.keep * 1000)
    begins = {id: ts - round(call.lateness * 1000) for id, ts in newest.items() if oldest <= ts < first}
    begin, spans = max(min(begins.values(), default=first), oldest), list[tuple[Span, tuple[str, ...] | None]]()
    while begin < first:
        end = min(begin + round(call.window.length * 1000), first)
        ids = tuple(id for id, ts in begins.items() if ts < end)
        spans.append(((begin, end), ids if call.for_each else None))
        begin = end
    return spans


def _horizon(call: Call, before: int, start: int | None, oldest: int, newest: int) -> int:
    """Before when what was seen may be forgotten: the API does not show it any more, and nothing later is missing.

    It was neither asked for nor in the answer, and lies before the newest sample known: no clock has a say in this.
    """
    if newest < 0:
        return before
    known = newest - round(call.lateness * 1000)
    return max(before, min(start or 0, oldest, known), known - 7 * DAY)


def _window_params(call: Call, start: int | None, end: int | None) -> dict[str, str]:
    if call.window is None or start is None:
        return {}
    params = {call.window.start_param: _format_time(call.window.format, start)}
    if end is not None:
        params[call.window.end_param] = _format_time(call.window.format, end)
    return params


def _format_time(format_: str, ts: int) -> str:
    if format_ == "rfc3339":
        return rfc3339(ts)
    return str(ts if format_ == "epoch_ms" else ts // 1000)


def _is_event(what: str, body: bytes) -> bool:
    return what in ("added", "changed", "removed") or (what == "components" and b'"changed":' in body)


def _fields(stored: Mapping[str, StoredRecord]) -> dict[str, Fields]:
    return {id: diff.fields_of(record) for id, record in stored.items()}


def _unreadable_alerts(call: str, problems: Problems) -> list[Alert]:
    """What is to be alerted of records that were set aside, and of each field with values that nobody can read."""
    alerts = []
    if problems.set_aside:
        message = (
            f"{problems.set_aside} records could not be read and were left as they were; the first: {problems.first}"
        )
        alerts.append(Alert(kind="set_aside", call=call, message=message))
    for name, count in problems.values.items():
        message = (
            f"{name} could not be read in {count} records and counts as not known there; "
            f"the first: {problems.reasons[name]}"
        )
        alerts.append(Alert(kind="value_unreadable", call=call, about=name, message=message))
    return alerts


def _time_alerts(call: str, listing: Listing) -> list[Alert]:
    """What is to be alerted of times that were not believed, or that may mean one hour or the next."""
    alerts = []
    if listing.not_believed:
        message = (
            f"{listing.not_believed} times of measurement lie before 2019 or further ahead of now than "
            "api.clock_tolerance; what they belong to was left out"
        )
        alerts.append(Alert(kind="time_not_believed", call=call, message=message))
    if listing.unsure:
        message = (
            f"{listing.unsure} times without an offset lie in the hour that mapping.timezone has twice, and nothing "
            "tells which of the two is meant; the first was taken"
        )
        alerts.append(Alert(kind="time_ambiguous", call=call, message=message))
    return alerts


def _report_stopped(call: Call, imeis: Sequence[str]) -> Alert:
    named = ", ".join(imeis[:3]) + (", …" if len(imeis) > 3 else "")
    whom = "1 terminal that is" if len(imeis) == 1 else f"{len(imeis)} terminals that are"
    return Alert(
        kind="report_stopped",
        call=call.id,
        message=f"the report {call.report} has stopped for {whom} online, while that of others goes on: {named}",
    )


def _values_held(plan: CompiledCall, counts: Mapping[str, int]) -> Alert:
    named = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return Alert(
        kind="values_held",
        call=plan.call.id,
        about=" ".join(counts),
        message=f"many {plan.kind} records have lost a value at once, and keep the one that they had: {named}. "
        "To let the values go, publish {} to bridge/request/release below the base topic",
    )


def _removal_held_alert(plan: CompiledCall, held: str, count: int) -> Alert:
    said = {
        "empty": f"the listing is empty where {count} {plan.kind} records were known; nothing is removed",
        "many": f"{count} {plan.kind} records are missing at once; their removal is held",
    }[held]
    return Alert(
        kind="removal_held",
        call=plan.call.id,
        message=f"{said}. To let them go, publish {{}} to bridge/request/release below the base topic",
    )
