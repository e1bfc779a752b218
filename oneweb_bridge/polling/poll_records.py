"""One poll of a call whose answer is records."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Mapping, Sequence

import msgspec

from oneweb_bridge.api.listing import ListingPage, PageCache, Problems, RecordListing, SkippableHashes
from oneweb_bridge.config import filters
from oneweb_bridge.decode.border import Unreadable
from oneweb_bridge.decode.bounds import Bounds
from oneweb_bridge.decode.coverage import NO_LIMITS, Limits
from oneweb_bridge.decode.pages import decode_record
from oneweb_bridge.decode.values import parse_time
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Batch, DecodedRecord, RecordKind, StoredRecord
from oneweb_bridge.polling import diff, removal, samples, vanishing
from oneweb_bridge.polling.alerts import UNREADABLE, not_believed_alerts, unreadable_alerts, values_held_alert
from oneweb_bridge.polling.answer_watch import AnswerMemory, AnswerWatch
from oneweb_bridge.polling.compiled_call import CompiledCall
from oneweb_bridge.polling.diff import ListedRecord
from oneweb_bridge.polling.id_matching import matched_kind
from oneweb_bridge.polling.missing_records import MissingRecords
from oneweb_bridge.polling.poll_context import PollContext, PollOutcome, set_aside
from oneweb_bridge.store.call_progress import CallProgress
from oneweb_bridge.store.slices import slices_of
from oneweb_bridge.store.staging import StagedRow

_COMPARED_WITH: dict[RecordKind, RecordKind] = {"components": "terminal", "usage": "forecast"}
"""The records of the same ids that are needed besides when records of a kind are compared."""
MAX_KEPT_SLICES = 10
"""Slices that stay in memory as they were decoded to look for vanished values: so they are decoded once.

They take some 10 MB. What a longer listing has beyond them is decoded twice.
"""


class RecordsPoll:
    """One poll: `run` stages what must be decoded, and commits it once the listing is complete."""

    def __init__(self, context: PollContext, plan: CompiledCall, progress: CallProgress) -> None:
        self._context = context
        self._store = context.store
        self._plan = plan
        self._progress = progress
        self._outcome = PollOutcome(progress=progress)
        self._listing = RecordListing(context.api.bounds())
        self._unreadable = context.unreadable[plan.call.id]
        self._held: vanishing.HeldFields = {}
        self._decoded: deque[bytes] = deque()
        """The first slices of the listing as they were decoded; empty bytes for one that must be decoded again."""
        self._effective: dict[str, int] = {}
        """The effective date of each usage bucket that was compared; the API's time of one that has none."""
        self._limits: Mapping[str, Limits] = {}

    async def run(self) -> PollOutcome:
        """The whole poll. Raises ApiError."""
        call, listing, outcome, caches = self._plan.call, self._listing, self._outcome, self._context.page_caches
        # Taken, not read: whatever goes wrong from here on, the next poll compares every page.
        cache, version = caches.take(call.id), caches.version
        self._watch = await self._context.watch(self._plan)
        self._matcher = await self._context.matcher(call)
        if self._plan.kind == "usage":
            self._limits = await self._context.product_limits.load()
        await self._stage_listing(cache)
        # From here on the listing is known to be complete.
        await self._decide_held_values()
        async for staged in self._store.staging.iter_slices(call.id):
            async with self._context.slice_lock:
                await self._commit_slice(staged)
        await MissingRecords(self._context, self._plan, listing).decide(self._progress, outcome)
        if self._effective:
            await self._context.on_usage(self._effective)
        await self._note_stored_records()
        self._unreadable.add_to(listing.problems, listing.ids)
        outcome.records, outcome.unpaged, outcome.problems = len(listing.ids), listing.unpaged, listing.problems
        outcome.alerts += unreadable_alerts(call.id, outcome.problems)
        outcome.alerts += not_believed_alerts(call.id, listing.not_believed)
        await self._conclude_watch()
        outcome.progress = msgspec.structs.replace(outcome.progress, complete=True, remapped=False)
        caches.keep(call.id, listing.cache, version)
        return outcome

    # ── while pages come ───────────────────────────────────────────────────────────────────────

    async def _stage_listing(self, cache: PageCache) -> None:
        """Stages the records that must be decoded once the listing is complete."""
        skippable: SkippableHashes | None = None
        async with contextlib.aclosing(self._context.pages(self._plan, {}, cache)) as pages:
            async for page in pages:
                self._listing.note_page(page)
                if page.from_cache:
                    self._listing.add_cached_page(page, cache)
                    continue
                if not page.ids:
                    # Such as the last page where the API names no total: there is nothing to compare with all hashes.
                    continue
                skippable = skippable or await self._skippable_hashes()
                rows = await asyncio.to_thread(self._records_to_decode, page, skippable)
                for part in slices_of(rows):
                    await self._store.staging.add(self._plan.call.id, part)

    def _records_to_decode(self, page: ListingPage, skippable: SkippableHashes) -> list[StagedRow]:
        self._watch.look_at_page(page)
        return self._listing.records_to_decode(page, skippable)

    async def _skippable_hashes(self) -> SkippableHashes:
        kind, now = self._plan.kind, self._store.steady.now()
        presence_after = now - samples.PRESENCE_INTERVAL_MS if kind == "terminal" else -1
        hashes, oldest = await self._store.records.skippable_hashes(kind, presence_after)
        until = min(now, oldest) if kind == "terminal" else now
        return SkippableHashes(hashes, now, until + samples.PRESENCE_INTERVAL_MS)

    # ── once the listing is complete ───────────────────────────────────────────────────────────

    async def _decide_held_values(self) -> None:
        """Decides which fields keep their values because these vanished from many records of the listing at once."""
        plan, progress, rule = self._plan, self._progress, self._context.config.removal
        held: dict[str, int] = msgspec.json.decode(progress.values_held)
        staged, stored = self._listing.staged_count, 0
        if staged > rule.hold_above.count:
            stored = await self._store.records.count(plan.kind)
        counts: Counter[str] = Counter()
        # As few records as may lose a value at once are not counted, and a change of the mapping is a decision.
        if staged > removal.max_at_once(rule, stored) and stored and not progress.remapped:
            async for rows in self._store.staging.iter_slices(plan.call.id):
                listed = await asyncio.to_thread(_decode_staged, plan, rows, Problems())
                before = await self._load_stored(listed)
                counts += await asyncio.to_thread(_count_vanished, plan, before, listed)
                if len(self._decoded) < MAX_KEPT_SLICES:
                    # What could not be read is counted when the slice is committed.
                    self._decoded.append(_pack(listed) if len(listed) == len(rows) else b"")
        if self._listing.listed_count:
            now = self._store.steady.now()
            held = vanishing.decide(rule, counts, stored=stored, held=held, released=progress.released, now=now)
            if held:
                named = {name: counts[name] for name in sorted(held)}
                self._outcome.alerts.append(alert := values_held_alert(plan.call.id, plan.kind, named))
                self._outcome.held = alert.message
        self._outcome.progress = msgspec.structs.replace(progress, values_held=encode(held).decode())
        self._held = held

    async def _commit_slice(self, staged: list[StagedRow]) -> None:
        plan, listing = self._plan, self._listing
        decoded = self._decoded.popleft() if self._decoded else b""
        if decoded:
            listed = await asyncio.to_thread(_unpack, decoded)
        else:
            listed = await asyncio.to_thread(_decode_staged, plan, staged, listing.problems)
        for record in listed:
            self._note_record(record.reading)
        unbelieved = _drop_unbelieved_times(plan, [record.reading for record in listed], listing.bounds)
        listing.not_believed += len(unbelieved)
        listed = await self._apply_filter(await self._keep_unmatched(staged, await self._restore_held_values(listed)))
        ids = [record.reading.id for record in listed]
        before = await self._load_stored(listed)
        listing.listed_and_stored += len(before)
        other = _COMPARED_WITH.get(plan.kind)
        context = {} if other is None else await self._store.records.load(other, ids)
        rule = self._rule(frozenset(unbelieved))
        batch = await asyncio.to_thread(diff.compare, rule, before, listed, context)
        if plan.kind == "product":
            products = [id for side, id, _ in batch.product_links if side == "product"]
            batch.stale_relations.extend(await self._store.relations.linked_terminals(products))
        if plan.kind == "terminal":
            batch.extend(await self._presence([record.reading for record in listed], set(unbelieved)))
        self._outcome.events += sum(_is_event(entry.what, entry.body) for entry in batch.entries)
        self._outcome.samples += sum(entry.what in ("metric", "usage") for entry in batch.entries)
        await self._store.commit(batch)
        if plan.kind == "usage":
            now = self._context.api.now()
            self._effective |= {r.reading.id: diff.effective_date(r.reading.fields, now) for r in listed}

    def _note_record(self, reading: DecodedRecord) -> None:
        self._unreadable.note(reading)
        self._watch.note_record(reading, self._limits.get(str(reading.fields.get("product_id", "")), NO_LIMITS))
        if self._plan.kind == "product":
            self._context.product_limits.note(reading.id, reading.fields)

    async def _note_stored_records(self) -> None:
        """Notes the records that were not decoded since the bridge started as they are stored.

        A field that could not be read before that, and that such a record lacks, can be read no better now.
        """
        notes, call = self._watch.memory.notes, self._plan.call.id
        if notes.complete:
            return
        unreadable = [about for kind, about in await self._store.findings.load(call) if kind == UNREADABLE]
        for ids in slices_of([id for id in self._listing.ids if not notes.has_noted(id)]):
            for id, record in (await self._store.records.load(self._plan.kind, ids)).items():
                fields = diff.fields_of(record)
                self._watch.note_stored(id, fields)
                self._unreadable.presume(id, [name for name in unreadable if name not in fields])
        notes.complete = True

    async def _conclude_watch(self) -> None:
        """Compares what the listing had with what was expected."""
        self._watch.count_listing(self._listing.ids, self._listing.listed_count)
        self._context.conclude(self._plan, self._watch, self._outcome, await self._matcher.findings())

    def _rule(self, unbelieved: frozenset[str]) -> diff.CompareRule:
        progress = self._outcome.progress
        return diff.CompareRule(
            kind=self._plan.kind,
            volatile=self._plan.volatile,
            threshold=self._context.config.location_threshold,
            initial=not progress.complete,
            remapped=progress.remapped,
            now=self._context.now(),
            unordered=self._plan.unordered,
            unbelieved=unbelieved,
        )

    async def _load_stored(self, listed: Sequence[ListedRecord]) -> dict[str, StoredRecord]:
        return await self._store.records.load(self._plan.kind, [record.reading.id for record in listed])

    async def _restore_held_values(self, listed: list[ListedRecord]) -> list[ListedRecord]:
        """Puts the values that are held back into the records that lost them."""
        if not self._held:
            return listed
        before = await self._load_stored(listed)
        return await asyncio.to_thread(_with_held_values, self._plan, before, listed, self._held)

    async def _keep_unmatched(self, staged: list[StagedRow], listed: list[ListedRecord]) -> list[ListedRecord]:
        """Returns the records whose terminal or product is known; what belongs to others is kept aside, undecoded."""
        if matched_kind(self._plan.call) is None:
            return listed
        owners = {record.reading.id: self._owner_of(record.reading) for record in listed}
        unmatched = await self._matcher.unmatched(owner for owner in owners.values() if owner)
        kept = {id for id, owner in owners.items() if owner in unmatched}
        if kept:
            await self._store.unmatched.keep(self._plan.call.id, [row for row in staged if row[1] in kept])
            self._listing.ids -= kept
            self._listing.kept_aside |= kept
        return [record for record in listed if record.reading.id not in kept]

    def _owner_of(self, reading: DecodedRecord) -> str:
        """The id of the terminal of components, or of the product of usage, which its own field has then."""
        if self._plan.kind == "components":
            return reading.id
        product = str(reading.fields.get("product_id", ""))
        if product:
            reading.fields["product_id"] = product = self._matcher.record_id(product)
        return product

    async def publish_kept(self) -> int:
        """Commits the records that were kept aside, are not stored since, and belong to a known one now."""
        call, after, count = self._plan.call.id, "", 0
        self._watch = AnswerWatch(self._plan.expected, self._plan.kind, AnswerMemory())
        self._matcher = await self._context.matcher(self._plan.call)
        while ids := await self._store.unmatched.ids_after(call, after):
            after = ids[-1]
            # Under the lock, because a poll of the same call may store something newer of them, or keep it aside.
            async with self._context.slice_lock:
                stored = await self._store.records.existing_ids("record", self._plan.kind, ids)
                rows = [row for row in await self._store.unmatched.load(call, ids) if row[1] not in stored]
                if rows:
                    await self._commit_slice(rows)
                published = await self._store.records.existing_ids("record", self._plan.kind, ids)
                await self._store.unmatched.delete(call, sorted(published))
            count += len(published - stored)
        return count

    async def _apply_filter(self, listed: list[ListedRecord]) -> list[ListedRecord]:
        """Returns the records that pass `filter`; takes the others out of the listing, so that they count as missing.

        Components of terminals that are not stored do not pass either.
        """
        passing = await self._ids_passing(listed)
        self._listing.ids.difference_update(record.reading.id for record in listed if record.reading.id not in passing)
        return [record for record in listed if record.reading.id in passing]

    async def _ids_passing(self, listed: Sequence[ListedRecord]) -> set[str]:
        rule, kind = self._context.config.filter, self._plan.kind
        if kind == "components":
            return await self._context.ids_passing_filter("terminal", [record.reading.id for record in listed])
        if kind == "usage":
            products = {record.reading.id: str(record.reading.fields.get("product_id", "")) for record in listed}
            passing = await self._context.ids_passing_filter("product", list(set(products.values())))
            return {id for id, product in products.items() if product in passing or not filters.active(rule)}
        return {r.reading.id for r in listed if filters.wanted(rule, kind, r.reading.fields)}

    async def _presence(self, readings: Sequence[DecodedRecord], unbelieved: set[str]) -> Batch:
        """Presence that is due; of the ids whose times are not believed it stays so, until there is one to publish."""
        now = self._store.steady.now()
        published = await self._store.records.presence_times([reading.id for reading in readings])
        due = [r for r in readings if now - published.get(r.id, 0) >= samples.PRESENCE_INTERVAL_MS]
        context = samples.SampleContext(
            entity="terminal",
            past=await self._context.known_samples(
                samples.PRESENCE, [reading.id for reading in due], self._listing.bounds.latest
            ),
            latest={},
            # Presence has nothing late: what is not newer is known.
            horizon=1 << 62,
            now=self._context.now(),
        )
        presence = [sample for reading in due if (sample := samples.presence_of(reading)) is not None]
        batch = samples.batch_new_samples(presence, context)
        batch.presence = [(reading.id, now) for reading in due if reading.id not in unbelieved]
        return batch


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[ListedRecord]).decode


def _decode_staged(plan: CompiledCall, staged: list[StagedRow], problems: Problems) -> list[ListedRecord]:
    """The records that can be read; what cannot is set aside, and the others go on."""
    listed = []
    for _, id, hash_, body in staged:
        try:
            listed.append(ListedRecord(plan.decode_record(id, decode_record(body)), hash_))
        except Unreadable as error:
            set_aside(plan.call, id, error, problems)
    return listed


def _count_vanished(
    plan: CompiledCall, before: Mapping[str, StoredRecord], listed: Sequence[ListedRecord]
) -> Counter[str]:
    """From how many stored records each field vanished."""
    pairs = ((diff.fields_of(before.get(record.reading.id)), record.reading.fields) for record in listed)
    return vanishing.count_vanished(plan.traits, pairs)


def _with_held_values(
    plan: CompiledCall,
    before: Mapping[str, StoredRecord],
    listed: Sequence[ListedRecord],
    held: vanishing.HeldFields,
) -> list[ListedRecord]:
    """The records with their held values. Without a hash, so that they are decoded again in each listing."""
    records = []
    for record in listed:
        stored = diff.fields_of(before.get(record.reading.id))
        fields = vanishing.keep_held(plan.traits, stored, record.reading.fields, held)
        if fields is None:
            records.append(record)
        else:
            records.append(ListedRecord(msgspec.structs.replace(record.reading, fields=fields), b""))
    return records


def _drop_unbelieved_times(plan: CompiledCall, readings: Sequence[DecodedRecord], bounds: Bounds) -> list[str]:
    """Takes out of records the times of a measurement that are not believed. Returns the id of each such time."""
    ids = []
    for reading in readings:
        for name in plan.measurement_times:
            ts = parse_time(reading.fields.get(name))
            if ts is not None and not bounds.has(ts):
                del reading.fields[name]
                ids.append(reading.id)
    return ids


def _is_event(what: str, body: bytes) -> bool:
    return what in ("added", "changed", "removed") or (what == "components" and b'"changed":' in body)
