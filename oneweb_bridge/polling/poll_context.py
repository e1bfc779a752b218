"""What all polls share, and what each of them gives."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence

import msgspec

from oneweb_bridge.api import fetch
from oneweb_bridge.api.client import ApiClient
from oneweb_bridge.api.listing import ListingPage, PageCache, Problems, UnreadableValues
from oneweb_bridge.clock import Clock
from oneweb_bridge.config import filters
from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode.answer_shape import is_same
from oneweb_bridge.decode.border import Unreadable
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.coverage import FieldCoverage, Finding, summarize
from oneweb_bridge.model.records import Alert, KnownSamples, RecordKind
from oneweb_bridge.polling import samples
from oneweb_bridge.polling.answer_watch import AnswerMemory, AnswerWatch, finding_alerts
from oneweb_bridge.polling.compiled_call import CompiledCall
from oneweb_bridge.polling.id_matching import IdMatcher, InventoryCalls
from oneweb_bridge.polling.product_limits import ProductLimits
from oneweb_bridge.store.call_progress import CallProgress
from oneweb_bridge.store.store import Store

_log = logging.getLogger("oneweb_bridge.intake")


class PollOutcome(msgspec.Struct, kw_only=True):
    """What one complete poll brought, and what of it could not be read.

    `progress` is to be stored together with the call's new state.
    """

    progress: CallProgress
    records: int = 0
    events: int = 0
    samples: int = 0
    held: str = ""
    """What is held, in a sentence."""
    unpaged: bool = False
    """Whether the server does not page: it answers with all records at once, whatever page is asked for."""
    coverage: FieldCoverage | None = None
    incomplete: str = ""
    """What the answer lacks of what the call is for, in a sentence."""
    alerts: list[Alert] = []
    stopped: frozenset[str] = frozenset()
    """The terminals of which it was alerted, now or before, that their report has stopped."""
    problems: Problems = msgspec.field(default_factory=Problems)
    memory: AnswerMemory | None = None
    """What is remembered of the call's answers, this one included."""


class PageCaches:
    """The cached pages of each call's last listing."""

    def __init__(self) -> None:
        self._caches: dict[str, PageCache] = {}
        self.version = 0
        """Goes up with each `clear`; pages of a lower version no longer hold."""

    def take(self, call: str) -> PageCache:
        """The cached pages of a call, which are kept for one poll only."""
        return self._caches.pop(call, PageCache())

    def keep(self, call: str, cache: PageCache, version: int) -> None:
        """Keeps the pages of a listing that began under a version, unless they no longer hold."""
        if version == self.version:
            self._caches[call] = cache

    def clear(self) -> None:
        """Drops all pages, also those that polls under way are collecting."""
        self.version += 1
        self._caches.clear()


OnUsage = Callable[[Mapping[str, int]], Awaitable[None]]
"""Called once a poll of usage has stored all, with the buckets that it compared, each with its effective date in ms."""


class PollContext:
    """The store, the API, the clock and the configuration in force, as polls use them."""

    def __init__(self, store: Store, api: ApiClient, config: Config, clock: Clock, on_usage: OnUsage) -> None:
        self.store = store
        self.api = api
        self.config = config
        self.on_usage = on_usage
        self.page_caches = PageCaches()
        self.unreadable: defaultdict[str, UnreadableValues] = defaultdict(UnreadableValues)
        self.answers: defaultdict[str, AnswerMemory] = defaultdict(AnswerMemory)
        self.product_limits = ProductLimits(store)
        self.inventory = InventoryCalls()
        self.stopped: defaultdict[str, samples.StoppedReports] = defaultdict(samples.StoppedReports)
        self.slice_lock = asyncio.Lock()
        """Held from the look at which records there are to the commit that relies on it: no removal comes between."""
        self.kept_lock = asyncio.Lock()
        """Held from the look at which ids of a report match to what follows: samples are kept aside, or published that
        were. So nothing is kept of an id whose samples are being published, and nothing newer overtakes them."""
        self._clock = clock

    def now(self) -> int:
        """The time of an event, in ms."""
        return self._clock.now()

    async def pages(
        self,
        plan: CompiledCall,
        params: Mapping[str, str],
        cache: PageCache | None = None,
        ids: tuple[str, ...] | None = None,
    ) -> AsyncGenerator[ListingPage, None]:
        """The pages of a whole listing, of all ids or of some that come separately. Raises ApiError."""
        request = fetch.FetchRequest(
            call=plan.call,
            hasher=plan.hasher,
            salt=plan.salt,
            params=params,
            for_each=await self._for_each_ids(plan.call) if ids is None else ids,
            cached_ids=lambda digest: None if cache is None else cache.ids(digest, self.store.steady.now()),
        )
        async with contextlib.aclosing(fetch.fetch_pages(self.api, request)) as pages:
            async for page in pages:
                yield page

    async def watch(self, plan: CompiledCall) -> AnswerWatch:
        """Counts what a poll finds. The shape of the call's answers is read from the store at its first poll."""
        memory = self.answers[plan.call.id]
        if memory.shape is None:
            memory.shape = await self.store.shapes.load(plan.call.id, self.store.steady.now())
            memory.stored_shape = dict(memory.shape.members)
        return AnswerWatch(plan.expected, plan.kind, memory)

    async def matcher(self, call: Call) -> IdMatcher:
        """Matches the ids of one poll with the inventory."""
        matcher = IdMatcher(self.store, self.config, self.inventory, call)
        await matcher.begin()
        return matcher

    def conclude(
        self, plan: CompiledCall, watch: AnswerWatch, outcome: PollOutcome, findings: Sequence[Finding] = ()
    ) -> None:
        """Puts into the outcome what the poll lacked and what changed in the shape of the answers."""
        now, call = self.store.steady.now(), plan.call.id
        judgement = watch.judge(findings)
        if judgement is not None:
            outcome.coverage = judgement.coverage
            outcome.incomplete = summarize(judgement.findings) or ""
            outcome.alerts += finding_alerts(call, judgement.findings)
        outcome.alerts += watch.shape_alerts(now)
        outcome.memory = watch.memory

    async def keep_shape(self, call: str, outcome: PollOutcome) -> None:
        """Stores the shape of a poll's answers, once the alerts of its changes are stored. Raises StoreUnavailable."""
        memory = outcome.memory
        now = self.store.steady.now()
        if memory is not None and memory.shape is not None and not is_same(memory.shape, memory.stored_shape, now):
            await self.store.shapes.save(call, memory.shape)
            memory.stored_shape = {path: msgspec.structs.replace(m) for path, m in memory.shape.members.items()}

    def forget_shape(self, call: str) -> None:
        """Lets the next poll begin with the stored shape: alerts of what is newer were not stored."""
        self.answers[call].shape = None

    async def _for_each_ids(self, call: Call) -> tuple[str, ...] | None:
        if call.for_each is None:
            return None
        kind: RecordKind = "terminal" if call.for_each == "user_terminals" else "product"
        return tuple([id async for id, _, _ in self.stored_ids(kind)])

    async def stored_ids(self, kind: RecordKind) -> AsyncIterator[tuple[str, int, int]]:
        """All stored ids of a kind, each with how often and since when it is missing."""
        after = ""
        while rows := await self.store.records.missing_counts_after(kind, after):
            for row in rows:
                yield row
            after = rows[-1][0]

    async def ids_passing_filter(self, kind: RecordKind, ids: Sequence[str]) -> set[str]:
        """The ids whose record was not removed and, with a filter, is published."""
        if filters.active(self.config.filter):
            return await self.store.records.existing_ids("record", kind, ids)
        return set(ids) - await self.store.records.existing_ids("removed", kind, ids)

    async def known_samples(self, report: str, ids: Sequence[str], latest: int) -> dict[str, KnownSamples]:
        """The known samples of ids up to `latest`, which is believed of the samples that are compared with them.

        Nothing later is believed now. But the clocks may be set while a poll runs, and what it let in stays comparable.
        """
        latest = max(latest, self.api.bounds().latest)
        known = await self.store.samples.known_samples(report, ids)
        return {id: samples.believable(past, latest) for id, past in known.items()}


def set_aside(call: Call, id: str, error: Unreadable, problems: Problems) -> None:
    """Counts what could not be read of an id; where exactly is logged."""
    problems.add_set_aside(f"{id}: {error}")
    _log.debug("%s: something of %s is set aside: %s", call.id, id, error, exc_info=error)
