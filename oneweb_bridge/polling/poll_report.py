"""One poll of a call whose answer is samples: the time windows that are due, one after the other."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

import msgspec

from oneweb_bridge.api.errors import NotFound
from oneweb_bridge.api.listing import ListingPage, ReportListing
from oneweb_bridge.config import filters
from oneweb_bridge.decode.border import Unreadable
from oneweb_bridge.decode.coverage import NO_LIMITS, Limits
from oneweb_bridge.decode.pages import decode_record
from oneweb_bridge.decode.repeated_hour import Known
from oneweb_bridge.model.records import Alert, Batch, KnownSamples, Sample
from oneweb_bridge.polling import samples
from oneweb_bridge.polling.alerts import (
    ambiguous_alerts,
    not_believed_alerts,
    report_stopped_alert,
    unreadable_alerts,
)
from oneweb_bridge.polling.compiled_call import CompiledCall
from oneweb_bridge.polling.poll_context import PollContext, PollOutcome, set_aside
from oneweb_bridge.polling.time_windows import (
    HOUR,
    WindowBounds,
    horizon_after,
    skipped_windows,
    time_windows,
    window_end_after,
    window_params,
)
from oneweb_bridge.store.call_progress import CallProgress
from oneweb_bridge.store.slices import slices_of
from oneweb_bridge.store.staging import StagedRow

SKIPPED = " missed"
"""Where windows that were skipped are staged, beside the call's own rows."""
KEPT = " kept"
"""Where samples are staged that were kept aside."""


class ReportPoll:
    """One poll: `run` stages what is new in each window, and commits it once the window's listing is complete."""

    def __init__(self, context: PollContext, plan: CompiledCall, progress: CallProgress) -> None:
        self._context = context
        self._store = context.store
        self._api = context.api
        self._plan = plan
        self._call = plan.call
        self._outcome = PollOutcome(progress=progress)
        self._limits: Mapping[str, Limits] = {}

    async def run(self) -> PollOutcome:
        """The whole poll. Raises ApiError; the windows before the one that failed are committed."""
        call, outcome = self._call, self._outcome
        newest = await self._newest_sample()
        self._watch = await self._context.watch(self._plan)
        self._matcher = await self._context.matcher(self._call)
        self._limits = await self._context.product_limits.load() if self._plan.kind == "product" else {}
        outcome.progress = self._believed_progress(newest)
        polled = outcome.progress.window_end
        windows = time_windows(
            call,
            outcome.progress.window_end,
            newest,
            earlier_now=self._api.earlier_now(),
            api_now=self._api.now(),
            horizon=outcome.progress.horizon,
        )
        for window in windows:
            outcome.progress = await self._poll_window(window, windows[0][0])
            if window[1] is not None:
                await self._store.progress.save(outcome.progress)
        outcome.progress = msgspec.structs.replace(outcome.progress, complete=True, remapped=False)
        outcome.alerts += unreadable_alerts(call.id, outcome.problems)
        self._context.conclude(self._plan, self._watch, outcome, await self._matcher.findings())
        if self._plan.kind == "terminal":
            outcome.alerts += await self._stopped_alerts(polled)
        return outcome

    async def _newest_sample(self) -> int:
        """The time of the newest sample known of the call; -1 when there is none."""
        return await self._store.samples.newest_sample(self._call.report, self._api.bounds().latest)

    def _believed_progress(self, newest: int) -> CallProgress:
        """The call's progress without what a clock that was wrong has left in it."""
        progress, latest = self._outcome.progress, self._api.bounds().latest
        window_end = progress.window_end if progress.window_end <= latest else max(newest, 0)
        return msgspec.structs.replace(progress, window_end=window_end, horizon=min(progress.horizon, max(newest, 0)))

    async def _stopped_alerts(self, polled: int) -> list[Alert]:
        """An alert of terminals whose report has stopped while that of others goes on. `polled`: the poll before."""
        call = self._call
        online = await self._store.samples.newest_samples_of_online(
            call.report, self._context.config.mapping.online_states, self._api.bounds().latest
        )
        threshold = samples.StopThreshold(lateness=round(call.lateness * 1000), interval=round(call.interval * 1000))
        reports = self._context.stopped[call.id]
        # As it is stored: where the end of the last poll could not be, its alert was not either.
        reports.alerted = await self._store.findings.load_stopped(call.id)
        imeis = samples.newly_stopped(reports, online, threshold, self._api.now(), polled)
        self._outcome.stopped = frozenset(reports.alerted)
        return [report_stopped_alert(call, imeis)] if imeis else []

    # ── windows ────────────────────────────────────────────────────────────────────────────────

    async def _poll_window(self, window: WindowBounds, first: int | None) -> CallProgress:
        """One window of those that begin at `first`, and what was skipped before them, all committed."""
        (start, end), outcome = window, self._outcome
        await self._store.staging.clear(self._call.id)
        listing = self._listing(window)
        await self._stage_window(window, listing, self._call.id)
        if first is not None:
            for skipped, ids in await self._skipped_windows(first):
                await self._poll_skipped(skipped, ids)
        await self._commit_staged(self._call.id)
        outcome.records, outcome.unpaged = len(listing.ids), listing.unpaged
        self._add_time_alerts(listing)
        newest = await self._newest_sample()
        window_end = window_end_after(outcome.progress.window_end, end, listing.time or self._api.now(), newest)
        progress = msgspec.structs.replace(outcome.progress, window_end=window_end)
        horizon = horizon_after(self._call, progress.horizon, start, listing.oldest, newest)
        if horizon - progress.horizon <= HOUR:
            return progress
        await self._store.progress.save(msgspec.structs.replace(outcome.progress, horizon=horizon))
        await self._store.samples.delete_seen_samples(self._call.report, horizon)
        return msgspec.structs.replace(progress, horizon=horizon)

    async def _skipped_windows(self, first: int) -> list[tuple[WindowBounds, tuple[str, ...] | None]]:
        """The windows before `first` that were not asked for while nothing came, once something has come again.

        A report that is silent costs no request more than another. When it goes on, all of it may have been delivered
        at once: of a call that shows all ids together when the whole of it was silent, else of each id by itself.
        """
        staged = await self._store.staging.ids(self._call.id)
        newest: dict[str, int] = {"": await self._newest_sample()} if staged else {}
        if self._call.for_each is not None:
            newest = {}
            for ids in staged:
                known = await self._context.known_samples(self._call.report, ids, 0)
                newest |= {id: past.ts for id, past in known.items()}
        return skipped_windows(self._call, newest, first, self._api.earlier_now())

    async def _poll_skipped(self, window: WindowBounds, ids: tuple[str, ...] | None) -> None:
        """Commits what a skipped window has, so that a poll that does not come to its end need not ask for it again."""
        place = self._call.id + SKIPPED
        await self._store.staging.clear(place)
        listing = self._listing(window)
        with contextlib.suppress(NotFound):
            await self._stage_window(window, listing, place, ids)
        await self._commit_staged(place)
        self._add_time_alerts(listing)

    def _listing(self, window: WindowBounds) -> ReportListing:
        horizon, problems = self._outcome.progress.horizon, self._outcome.problems
        return ReportListing(self._api.bounds(), window[0] or 0, horizon, problems)

    def _add_time_alerts(self, listing: ReportListing) -> None:
        self._outcome.alerts += not_believed_alerts(self._call.id, listing.not_believed)
        self._outcome.alerts += ambiguous_alerts(self._call.id, listing.unsure)

    # ── samples ────────────────────────────────────────────────────────────────────────────────

    async def _stage_window(
        self, window: WindowBounds, listing: ReportListing, place: str, ids: tuple[str, ...] | None = None
    ) -> None:
        """Stages under `place` what is new in a window, of all ids or of some that come separately."""
        params = window_params(self._call, window)
        async with contextlib.aclosing(self._context.pages(self._plan, params, ids=ids)) as pages:
            async for page in pages:
                await self._stage_new_samples(page, listing, place)

    async def _stage_new_samples(self, page: ListingPage, listing: ReportListing, place: str) -> None:
        listing.note_page(page)
        raws = page.raws()
        if self._watch.is_looking:
            await asyncio.to_thread(self._watch.look_at_page, page)
        for positions in slices_of(listing.first_positions(page.ids)):
            raw_ids = {self._matcher.record_id(page.ids[position]): page.ids[position] for position in positions}
            part = {self._matcher.record_id(page.ids[position]): raws[position] for position in positions}
            async with self._context.kept_lock:
                unmatched = await self._matcher.unmatched(part)
                if unmatched:
                    kept = {id: part.pop(id) for id in unmatched}
                    rows = await asyncio.to_thread(self._new_samples, kept, {}, listing)
                    await self._store.unmatched.keep(self._call.id, rows)
                # What was kept aside of the others is older than what the page has of them.
                await self._publish_matched([raw_ids[id] for id in part])
            known = await self._context.known_samples(self._call.report, list(part), listing.bounds.latest)
            published = await self._published_ids(list(part))
            wanted = {id: raw for id, raw in part.items() if id in published}
            await self._store.staging.add(place, await asyncio.to_thread(self._new_samples, wanted, known, listing))

    def _new_samples(
        self, records: Mapping[str, msgspec.Raw], known: Mapping[str, KnownSamples], listing: ReportListing
    ) -> list[StagedRow]:
        """The samples that are not known yet, as rows to stage. What cannot be read is counted in the listing."""
        rows = []
        for id, raw in records.items():
            past = known.get(id)
            try:
                decoded = self._plan.decode_samples(id, decode_record(raw), _known_of(listing, past))
            except Unreadable as error:
                set_aside(self._call, id, error, listing.problems)
                continue
            self._watch.count_samples(decoded, self._limits.get(id, NO_LIMITS))
            for reason in decoded.set_aside:
                set_aside(self._call, id, reason, listing.problems)
            listing.problems.add_values(id, list(decoded.unparseable), list(decoded.unparseable.values()))
            believed = [s for s in decoded.samples if s.ts is None or listing.bounds.has(s.ts)]
            listing.not_believed += len(decoded.samples) - len(believed)
            listing.unsure += decoded.unsure
            listing.oldest = min([listing.oldest, *(s.ts for s in believed[:-1] if s.ts is not None)])
            rows += [
                (sample.ts or 0, id, b"", msgspec.msgpack.encode(sample))
                for sample in believed
                if samples.classify_sample(past, sample.ts, samples.hash_of(sample.values), listing.horizon) != "known"
            ]
        return rows

    async def _published_ids(self, ids: Sequence[str]) -> set[str]:
        """The ids that pass the filter."""
        if not filters.active(self._context.config.filter):
            return set(ids)
        return await self._store.records.existing_ids("record", self._plan.kind, ids)

    async def publish_kept(self) -> int:
        """Commits the samples that were kept aside and whose ids match a record now. Returns how many there were."""
        self._matcher, after = await self._context.matcher(self._call), ""
        while ids := await self._store.unmatched.ids_after(self._call.id, after):
            after = ids[-1]
            async with self._context.kept_lock:
                unmatched = await self._matcher.unmatched(map(self._matcher.record_id, ids))
                await self._publish_matched([id for id in ids if self._matcher.record_id(id) not in unmatched])
        return self._outcome.samples

    async def _publish_matched(self, ids: Sequence[str]) -> None:
        """Commits what was kept aside of ids that match a record. The caller holds `kept_lock`."""
        call, place = self._call.id, self._call.id + KEPT
        if call not in await self._store.unmatched.calls():
            return
        rows = [self._with_record_id(row) for row in await self._store.unmatched.load(call, ids)]
        if rows:
            # A filter may be in force that was not when they were kept.
            published = await self._published_ids(list({row[1] for row in rows}))
            await self._store.staging.clear(place)
            await self._store.staging.add(place, [row for row in rows if row[1] in published])
            await self._commit_staged(place)
            await self._store.staging.clear(place)
            await self._store.unmatched.delete(call, ids)

    def _with_record_id(self, row: StagedRow) -> StagedRow:
        ts, id, hash_, body = row
        record_id = self._matcher.record_id(id)
        if record_id == id:
            return row
        sample = msgspec.structs.replace(msgspec.msgpack.decode(body, type=Sample), id=record_id)
        return ts, record_id, hash_, msgspec.msgpack.encode(sample)

    async def _commit_staged(self, place: str) -> None:
        async for staged in self._store.staging.iter_slices(place):
            async with self._context.slice_lock:
                await self._commit_samples(staged, place)

    async def _commit_samples(self, staged: list[StagedRow], place: str) -> None:
        ids = list({row[1] for row in staged})
        context = samples.SampleContext(
            entity=self._call.entity,
            past=await self._context.known_samples(self._call.report, ids, max(row[0] for row in staged)),
            latest=await self._store.staging.newest_times(place, ids),
            removed=frozenset(await self._store.records.existing_ids("removed", self._plan.kind, ids)),
            horizon=self._outcome.progress.horizon,
            now=self._api.now(),
        )
        batch = await asyncio.to_thread(_batch_staged_samples, staged, context)
        self._outcome.samples += len(batch.seen)
        await self._store.commit(batch)


def _batch_staged_samples(staged: list[StagedRow], context: samples.SampleContext) -> Batch:
    decode = msgspec.msgpack.Decoder(Sample).decode
    return samples.batch_new_samples([decode(row[3]) for row in staged], context)


def _known_of(listing: ReportListing, past: KnownSamples | None) -> Known:
    """What decides, of one id, which hour a time without an offset means."""
    past = past or KnownSamples()
    return Known(listing.begin, listing.bounds.latest, past.ts, past.seen)
