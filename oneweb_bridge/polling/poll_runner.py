"""One poll of one call: fetch, read, compare, commit.

Pages are compared with the stored hashes as they come, and what differs is staged. Only a listing
that is proved complete is decoded, compared and committed, in slices, so that nothing ever holds a
whole listing and no other writer waits long. What decides is pure and runs off the event loop.
"""

import logging
from collections.abc import Callable, Mapping

import msgspec

from oneweb_bridge.api.client import ApiClient
from oneweb_bridge.clock import Clock
from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode.expectations import INVENTORY
from oneweb_bridge.polling import relation_updates
from oneweb_bridge.polling.compiled_call import CompiledCall, compile_calls, compiled_settings
from oneweb_bridge.polling.id_matching import matched_kind
from oneweb_bridge.polling.poll_context import OnUsage, PollContext, PollOutcome
from oneweb_bridge.polling.poll_records import RecordsPoll
from oneweb_bridge.polling.poll_report import SKIPPED, ReportPoll
from oneweb_bridge.store.call_progress import CallProgress
from oneweb_bridge.store.store import Store

_log = logging.getLogger("oneweb_bridge.intake")


async def ignore_usage(_dates: Mapping[str, int]) -> None:
    """Where nobody wants to know which buckets were polled."""


class PollRunner:
    """Runs polls. What is compiled of the calls and cached of their pages stays until their configuration changes."""

    def __init__(
        self, store: Store, api: ApiClient, config: Config, clock: Clock, on_usage: OnUsage = ignore_usage
    ) -> None:
        self._store = store
        self._context = PollContext(store, api, config, clock, on_usage)
        self._plans = compile_calls(config)

    def reconfigure(self, config: Config) -> None:
        """Takes a new configuration for the polls to come. What was compiled stays where nothing of it has changed."""
        before, self._context.config = self._context.config, config
        if compiled_settings(before) != compiled_settings(config):
            self._plans = compile_calls(config)
            self._context.page_caches.clear()
            self._context.answers.clear()

    async def poll(self, call: str) -> PollOutcome:
        """One whole poll. Raises ApiError; then nothing that was published before is withdrawn."""
        # What a cancelled poll could not delete must not be taken for a part of this listing.
        await self._store.staging.clear(call)
        try:
            plan, progress = await self._load_plan(call)
            outcome = await self._new_poll(plan, progress).run()
            await self._publish_kept(plan, outcome)
            return outcome
        finally:
            for place in (call, call + SKIPPED):
                await self._store.staging.clear(place)

    def _new_poll(self, plan: CompiledCall, progress: CallProgress) -> ReportPoll | RecordsPoll:
        poll = ReportPoll if plan.call.reads == "report" else RecordsPoll
        return poll(self._context, plan, progress)

    async def _publish_kept(self, plan: CompiledCall, outcome: PollOutcome) -> None:
        """Publishes what was kept aside of the polled call, or of all whose ids this listing of the inventory knows."""
        kept = await self._store.unmatched.calls()
        waiting = [other for other in self._plans.values() if other.call.id in kept and _concerns(plan, other)]
        if waiting and plan.call.id in INVENTORY.values():
            # From now on its ids are known, which the poller would store only after this.
            await self._store.progress.save(outcome.progress)
        for other in waiting:
            count = await self._new_poll(other, await self._load_progress(other)).publish_kept()
            await self._store.unmatched.note_if_empty(other.call.id)
            if count:
                _log.info("%s: %d samples or records of ids that are known now are published", other.call.id, count)

    async def keep_shape(self, call: str, outcome: PollOutcome) -> None:
        """Stores the shape of a poll's answers, after its alerts. Raises StoreUnavailable."""
        await self._context.keep_shape(call, outcome)

    def forget_shape(self, call: str) -> None:
        """Lets the next poll compare with the stored shape: the alerts of the last one were not stored."""
        self._context.forget_shape(call)

    def follow_calls(self, is_enabled: Callable[[str], bool], is_expected: Callable[[str], bool]) -> None:
        """Takes from the manager of the calls which are enabled, and which will be listed soon."""
        self._context.inventory.is_enabled = is_enabled
        self._context.inventory.is_expected = is_expected

    async def _load_plan(self, call: str) -> tuple[CompiledCall, CallProgress]:
        """What is compiled of a call, as it is configured when this returns, and its progress."""
        while True:
            plan = self._plans[call]
            progress = await self._load_progress(plan)
            if plan is self._plans[call]:
                return plan, progress

    async def _load_progress(self, plan: CompiledCall) -> CallProgress:
        """The call's progress, with a change of its mapping stored before anything is compared under it."""
        progress = await self._store.progress.load(plan.call.id)
        if progress.fingerprint != plan.fingerprint:
            remapped = progress.remapped or (progress.complete and progress.fingerprint != "")
            progress = msgspec.structs.replace(progress, fingerprint=plan.fingerprint, remapped=remapped)
            await self._store.progress.save(progress)
        return progress

    async def update_relations(self) -> None:
        """Recomputes the relations of all terminals that need it, and publishes those that changed."""
        await relation_updates.update_relations(self._context)


def _concerns(polled: CompiledCall, plan: CompiledCall) -> bool:
    """Whether what is kept aside of a call may be known after a poll: its own, or that of its inventory."""
    kind = matched_kind(plan.call)
    return kind is not None and (plan is polled or INVENTORY[kind] == polled.call.id)
