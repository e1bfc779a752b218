"""What follows from a complete listing for the stored records that it did not have: counted, held or removed."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from oneweb_bridge.api.listing import RecordListing
from oneweb_bridge.model.records import RecordKind
from oneweb_bridge.polling import diff, removal
from oneweb_bridge.polling.alerts import removal_held_alert
from oneweb_bridge.polling.compiled_call import CompiledCall
from oneweb_bridge.polling.poll_context import PollContext, PollOutcome
from oneweb_bridge.store.call_progress import CallProgress
from oneweb_bridge.store.slices import slices_of


class MissingRecords:
    """Deals with the records that one listing did not have."""

    def __init__(self, context: PollContext, plan: CompiledCall, listing: RecordListing) -> None:
        self._context = context
        self._store = context.store
        self._kind = plan.kind
        self._call = plan.call.id
        self._listing = listing

    async def decide(self, progress: CallProgress, outcome: PollOutcome) -> None:
        """Counts, holds or removes them. `progress` is that of before the poll; that of the outcome is brought on."""
        if self._kind == "components":
            outcome.progress = msgspec.structs.replace(outcome.progress, released=False)
            return
        listing, now = self._listing, self._store.steady.now()
        stored = await self._store.records.count(self._kind)
        is_partial = listing.problems.set_aside or listing.problems.unanswered
        if is_partial and listing.listed_count:
            # What it does not show is not known to be missing: a hold goes on, and a release waits.
            if progress.held_since:
                self._tell_held("many", await self._store.records.count_of_missing(self._kind), outcome)
            return
        missing = [] if is_partial else await self._missing(stored, now)
        decision = removal.decide(
            self._context.config.removal,
            missing,
            stored=stored,
            listed=listing.listed_count,
            held_since=progress.held_since,
            released=progress.released,
            now=now,
            needs_time=self._kind != "usage",
        )
        if decision.counts_as_missing and missing:
            await self._store.records.count_missing(self._kind, [record.id for record in missing], now)
        for ids in slices_of(decision.removed):
            async with self._context.slice_lock:
                await self._commit_removed(ids, outcome, remapped=progress.remapped)
        if decision.held_because:
            self._tell_held(decision.held_because, len(missing) or stored, outcome)
        outcome.progress = msgspec.structs.replace(
            outcome.progress,
            held_since=decision.held_since,
            released=progress.released and not decision.removed and not listing.listed_count,
        )

    def _tell_held(self, why: Literal["many", "empty"], count: int, outcome: PollOutcome) -> None:
        outcome.alerts.append(alert := removal_held_alert(self._call, self._kind, why, count))
        outcome.held = alert.message

    async def _missing(self, stored: int, now: int) -> list[removal.MissingRecord]:
        if self._listing.has_all(stored):
            return []
        return [
            removal.MissingRecord(id, missing + 1, since or now)
            async for id, missing, since in self._context.stored_ids(self._kind)
            if id not in self._listing.ids and id not in self._listing.kept_aside
        ]

    async def _commit_removed(self, ids: Sequence[str], outcome: PollOutcome, *, remapped: bool) -> None:
        stored = await self._store.records.load(self._kind, ids)
        topics = await self._retained_topics(ids)
        batch = diff.remove(self._kind, stored, topics, self._context.now(), remapped=remapped)
        if self._kind == "product":
            batch.stale_relations.extend(await self._store.relations.linked_terminals(ids))
        outcome.events += 0 if self._kind == "usage" else len(stored)
        try:
            await self._store.commit(batch)
        finally:
            # After it, because another poll may have cached a page of what is removed.
            self._context.page_caches.clear()

    async def _retained_topics(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """The retained topics of each record, below its own."""
        if self._kind == "usage":
            return {id: ["forecast"] for id in await self._store.records.existing_ids("record", "forecast", ids)}
        topics: dict[str, list[str]] = {id: ["state"] for id in ids}
        others: tuple[RecordKind, ...] = ("components", "relations") if self._kind == "terminal" else ()
        for other in others:
            for id in await self._store.records.existing_ids("record", other, ids):
                topics[id].append(other)
        for id, reports in (await self._store.samples.reports_of(self._kind, ids)).items():
            topics[id] += [f"metric/{report}" for report in reports]
        return topics
