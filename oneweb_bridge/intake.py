"""One poll of one call: fetch, read, compare, commit.

Pages are compared with the stored hashes as they come, and what differs is staged. Only a listing
that is proved complete is decoded, compared and committed, in slices, so that nothing ever holds a
whole listing and no other writer waits long. What decides is pure and runs off the event loop.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from oneweb_bridge import diff, fetch, filters, relations, removal, samples, wire
from oneweb_bridge.api import Api
from oneweb_bridge.catalogue import Call
from oneweb_bridge.config import Config, fingerprint
from oneweb_bridge.model import Alert, Batch, Fields, Kind, Reading, Sample, Stored
from oneweb_bridge.store import SLICE, CallMemory, Store
from oneweb_bridge.values import rfc3339

DAY = 86_400_000


class Outcome(msgspec.Struct, kw_only=True):
    """What one complete poll brought. `memory` is to be stored together with the call's new state."""

    memory: CallMemory
    records: int = 0
    events: int = 0
    samples: int = 0
    held: str = ""
    unpaged: bool = False
    alerts: list[Alert] = []


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A call made ready: its readers compiled, its hashes salted."""

    call: Call
    kind: Kind
    fingerprint: str
    salt: diff.Salt
    key: Callable[[msgspec.Raw], str]
    kept: Callable[[msgspec.Raw], bytes]
    read: Callable[[str, Any], Reading]
    sample: Callable[[str, Any], tuple[list[Sample], int]]
    volatile: frozenset[str]


def planned(call: Call, config: Config) -> Plan:
    """The plan of a call under a configuration."""
    rules = wire.Rules(config.mapping.timezone, tuple(config.mapping.unlimited))
    print_ = fingerprint(call, config.mapping)
    kind: Kind = {"components": "components", "usage": "usage"}.get(call.reads, call.entity)  # type: ignore[assignment]
    # Another threshold or filter makes every record be looked at again, but is no change of the mapping.
    salted = f"{print_} {config.location_threshold} {config.filter}"
    return Plan(
        call=call,
        kind=kind,
        fingerprint=print_,
        salt=diff.Salt.of(salted),
        key=wire.key_of(call),
        kept=wire.kept_of(call),
        read=wire.reader(call, rules),
        sample=wire.sampler(call, rules),
        volatile=frozenset(field.name for field in call.fields if field.volatile),
    )


class Intake:
    """What polls share: the store, the API and the configuration. `clock` gives seconds since the epoch."""

    def __init__(self, store: Store, api: Api, config: Config, clock: Callable[[], float]) -> None:
        self._store = store
        self._api = api
        self._clock = clock
        self._attention: dict[str, samples.Attention] = {}
        self.use(config)

    def use(self, config: Config) -> None:
        """Takes a new configuration for the polls to come."""
        self._config = config
        self._plans = {id: planned(call, config) for id, call in config.polling.items()}

    async def poll(self, call: str) -> Outcome:
        """One whole poll. Raises ApiError; then nothing that was announced before is withdrawn."""
        plan = self._plans[call]
        # What a cancelled poll could not take back must not be mistaken for a part of this listing.
        await self._store.unstage(call)
        try:
            if plan.call.reads == "report":
                return await self._poll_report(plan)
            return await self._poll_records(plan)
        finally:
            await self._store.unstage(call)

    def _now(self) -> int:
        return round(self._clock() * 1000)

    # ── records ────────────────────────────────────────────────────────────────────────────────

    async def _poll_records(self, plan: Plan) -> Outcome:
        memory = await self._opened_memory(plan)
        outcome = Outcome(memory=memory)
        listing = Listing()
        async with contextlib.aclosing(self._listed(plan, {})) as pages:
            async for page in pages:
                await self._stage_records(plan, page, listing)
        # From here on the listing is known to be complete.
        async for staged in self._store.staged(plan.call.id):
            await self._commit_records(plan, staged, memory, listing, outcome)
        await self._remove(plan, listing, memory, outcome)
        outcome.records = len(listing.ids)
        outcome.unpaged = listing.unpaged
        outcome.alerts += _set_aside(plan.call.id, listing.unreadable)
        outcome.memory = msgspec.structs.replace(outcome.memory, complete=True, remapped=False)
        return outcome

    async def _opened_memory(self, plan: Plan) -> CallMemory:
        """The call's memory, with a change of its mapping noted before anything is compared under it."""
        memory = await self._store.call_memory(plan.call.id)
        if memory.fingerprint != plan.fingerprint:
            remapped = memory.complete and memory.fingerprint != ""
            memory = msgspec.structs.replace(memory, fingerprint=plan.fingerprint, remapped=memory.remapped or remapped)
            await self._store.remember(memory)
        return memory

    async def _listed(self, plan: Plan, params: Mapping[str, str]) -> AsyncGenerator[fetch.Listed, None]:
        errand = fetch.Errand(
            call=plan.call, key=plan.key, salt=plan.salt, params=params, for_each=await self._each(plan.call)
        )
        async with contextlib.aclosing(fetch.listing(self._api, errand)) as pages:
            async for page in pages:
                yield page

    async def _each(self, call: Call) -> tuple[str, ...] | None:
        if call.for_each is None:
            return None
        kind: Kind = "terminal" if call.for_each == "user_terminals" else "product"
        return tuple([id async for id, _, _ in self._stored(kind)])

    async def _stored(self, kind: Kind) -> AsyncIterator[tuple[str, int, int]]:
        after = ""
        while rows := await self._store.ids_after(kind, after):
            for row in rows:
                yield row
            after = rows[-1][0]

    async def _stage_records(self, plan: Plan, page: fetch.Listed, listing: "Listing") -> None:
        listing.unreadable += page.unreadable
        listing.unpaged = listing.unpaged or page.unpaged
        items = listing.unseen(page.items)
        for start in range(0, len(items), SLICE):
            part = items[start : start + SLICE]
            known = await self._store.known(plan.kind, [item.id for item in part])
            listing.known += len(known)
            now = self._now()
            due = {id for id, k in known.items() if plan.kind == "terminal" and _presence_due(k.presence_at, now)}
            rows = await asyncio.to_thread(_changed, plan, part, known, due)
            await self._store.stage(plan.call.id, rows)

    async def _commit_records(
        self,
        plan: Plan,
        staged: list[tuple[int, str, bytes, bytes]],
        memory: CallMemory,
        listing: "Listing",
        outcome: Outcome,
    ) -> None:
        fresh, unreadable = await asyncio.to_thread(_read, plan, staged)
        listing.unreadable += unreadable
        fresh = await self._wanted(plan, fresh, listing)
        ids = [record.reading.id for record in fresh]
        rule = diff.Rule(
            kind=plan.kind,
            volatile=plan.volatile,
            threshold=self._config.location_threshold,
            initial=not memory.complete,
            remapped=memory.remapped,
            now=self._now(),
        )
        before = await self._store.load(plan.kind, ids)
        context = await self._store.load("terminal", ids) if plan.kind == "components" else {}
        batch = await asyncio.to_thread(diff.compare, rule, before, fresh, context)
        if plan.kind == "product":
            products = [id for said_by, id, _ in batch.links if said_by == "product"]
            batch.stale.extend(await self._store.linked_terminals(products))
        if plan.kind == "terminal":
            batch.extend(await self._presence([record.reading for record in fresh]))
        outcome.events += sum(_is_event(entry.what, entry.body) for entry in batch.entries)
        outcome.samples += sum(entry.what in ("metric", "usage") for entry in batch.entries)
        await self._store.commit(batch)

    async def _wanted(self, plan: Plan, fresh: list[diff.Fresh], listing: "Listing") -> list[diff.Fresh]:
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
        unwanted = set(ids) - allowed
        listing.ids -= unwanted
        # One that is stored and not wanted any more is as good as missing.
        listing.known -= len(await self._store.among("record", plan.kind, sorted(unwanted)))
        return [record for record in fresh if record.reading.id in allowed]

    async def _allowed(self, kind: Kind, ids: Sequence[str]) -> set[str]:
        """The ids whose record was not removed and, with a filter, is published."""
        if filters.active(self._config.filter):
            return await self._store.among("record", kind, ids)
        return set(ids) - await self._store.among("removed", kind, ids)

    async def _presence(self, readings: Iterable[Reading]) -> Batch:
        now = self._now()
        found = {r.id: sample for r in readings if (sample := samples.presence_of(r)) is not None}
        known = await self._store.known("terminal", list(found))
        due = [id for id in found if id not in known or _presence_due(known[id].presence_at, now)]
        context = samples.Context(
            entity="terminal",
            past=await self._store.past(samples.PRESENCE, due),
            latest={},
            horizon=now,
            now=now,
        )
        batch = samples.judge([found[id] for id in due], context)
        batch.presence = [(id, now) for id in due]
        return batch

    # ── removal ────────────────────────────────────────────────────────────────────────────────

    async def _remove(self, plan: Plan, listing: "Listing", memory: CallMemory, outcome: Outcome) -> None:
        if plan.kind == "components":
            return
        stored, now = await self._store.count(plan.kind), self._now()
        absent = [] if listing.unreadable else await self._absent(plan, listing, stored, now)
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
            await self._commit_removed(plan.kind, verdict.gone[start : start + SLICE], outcome)
        if verdict.held:
            outcome.alerts.append(_held(plan, verdict.held, len(absent) or stored))
        outcome.held = verdict.held
        outcome.memory = msgspec.structs.replace(
            outcome.memory,
            held_since=verdict.held_since,
            released=memory.released and not verdict.gone and not listing.shown,
        )

    async def _absent(self, plan: Plan, listing: "Listing", stored: int, now: int) -> list[removal.Absent]:
        if listing.all_stored(stored):
            return []
        return [
            removal.Absent(id, missing + 1, since or now)
            async for id, missing, since in self._stored(plan.kind)
            if id not in listing.ids
        ]

    async def _commit_removed(self, kind: Kind, ids: Sequence[str], outcome: Outcome) -> None:
        stored = await self._store.load(kind, ids)
        topics = await self._topics(kind, ids)
        batch = diff.removed(kind, stored, topics, self._now())
        if kind == "product":
            batch.stale.extend(await self._store.linked_terminals(ids))
        outcome.events += 0 if kind == "usage" else len(stored)
        await self._store.commit(batch)

    async def _topics(self, kind: Kind, ids: Sequence[str]) -> dict[str, list[str]]:
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

    async def _poll_report(self, plan: Plan) -> Outcome:
        memory = await self._opened_memory(plan)
        outcome = Outcome(memory=memory)
        spans = _spans(plan.call, memory.window_end, self._api.now())
        for start, end in spans:
            outcome.memory = await self._poll_span(plan, start, end, outcome)
            if end is not None:
                await self._store.remember(outcome.memory)
        outcome.memory = msgspec.structs.replace(outcome.memory, complete=True, remapped=False)
        if plan.kind == "terminal":
            outcome.alerts += await self._stopped(plan.call)
        return outcome

    async def _stopped(self, call: Call) -> list[Alert]:
        """What is to be alerted about terminals whose report has stopped while that of others goes on."""
        attention = self._attention.setdefault(call.id, samples.Attention())
        newest = await self._store.newest_online(call.report, self._config.mapping.online_states)
        patience = samples.Patience(lateness=round(call.lateness * 1000), interval=round(call.interval * 1000))
        imeis = samples.notice_stopped(attention, newest, patience, self._api.now())
        return [_report_stopped(call, imeis)] if imeis else []

    async def _poll_span(self, plan: Plan, start: int | None, end: int | None, outcome: Outcome) -> CallMemory:
        await self._store.unstage(plan.call.id)
        listing = Listing(outcome.memory.horizon)
        async with contextlib.aclosing(self._listed(plan, _window_params(plan.call, start, end))) as pages:
            async for page in pages:
                await self._stage_samples(plan, page, listing)
        async for staged in self._store.staged(plan.call.id):
            await self._commit_samples(plan, staged, outcome)
        outcome.records, outcome.unpaged = len(listing.ids), listing.unpaged
        outcome.alerts += _set_aside(plan.call.id, listing.unreadable)
        # A span that was asked for by a wrong clock does not reach beyond the API's own time.
        time = min(end or listing.time or self._api.now(), listing.time or self._api.now())
        # What is forgotten now the API does not show any more: it was neither asked for nor in this answer.
        horizon = max(outcome.memory.horizon, min(start or 0, listing.oldest, time), time - 7 * DAY)
        if horizon - outcome.memory.horizon > DAY // 24:
            await self._store.remember(msgspec.structs.replace(outcome.memory, horizon=horizon))
            await self._store.forget_samples(plan.call.report, horizon)
        else:
            horizon = outcome.memory.horizon
        return msgspec.structs.replace(outcome.memory, window_end=time, horizon=horizon)

    async def _stage_samples(self, plan: Plan, page: fetch.Listed, listing: "Listing") -> None:
        listing.unreadable += page.unreadable
        listing.unpaged = listing.unpaged or page.unpaged
        listing.time = listing.time or page.time
        items = listing.unseen(page.items)
        for start in range(0, len(items), SLICE):
            part = items[start : start + SLICE]
            past = await self._store.past(plan.call.report, [item.id for item in part])
            allowed = await self._sampled(plan, [item.id for item in part])
            rows = await asyncio.to_thread(_new_samples, plan, part, allowed, past, listing)
            await self._store.stage(plan.call.id, rows)

    async def _sampled(self, plan: Plan, ids: Sequence[str]) -> set[str]:
        if not filters.active(self._config.filter):
            return set(ids)
        return await self._store.among("record", plan.kind, ids)

    async def _commit_samples(self, plan: Plan, staged: list[tuple[int, str, bytes, bytes]], outcome: Outcome) -> None:
        ids = list({row[1] for row in staged})
        context = samples.Context(
            entity=plan.call.entity,
            past=await self._store.past(plan.call.report, ids),
            latest=await self._store.latest_staged(plan.call.id, ids),
            gone=frozenset(await self._store.among("removed", plan.kind, ids)),
            horizon=outcome.memory.horizon,
            now=self._now(),
        )
        batch = await asyncio.to_thread(_judged, staged, context)
        outcome.samples += len(batch.seen)
        await self._store.commit(batch)

    # ── relations ──────────────────────────────────────────────────────────────────────────────

    async def relate(self) -> None:
        """Works out the relations of all terminals that need it, and says those that changed."""
        while imeis := await self._store.stale():
            terminals = _fields(await self._store.load("terminal", imeis))
            linked = await self._store.linked_products(imeis)
            products = _fields(await self._load_all("product", {p for ids in linked.values() for p in ids}))
            site_ids, organization_ids = relations.wanted_ids(terminals, products)
            sites = _fields(await self._load_all("site", site_ids))
            organizations = _fields(await self._load_all("organization", organization_ids))
            related = {
                imei: relations.relate(
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

    async def _load_all(self, kind: Kind, ids: Iterable[str]) -> dict[str, Stored]:
        return await self._store.load(kind, sorted(ids))


class Listing:
    """What a listing has shown so far: the ids, how many are stored, and what could not be read."""

    def __init__(self, horizon: int = 0) -> None:
        self.ids: set[str] = set()
        self.shown = 0
        self.known = 0
        self.unreadable = 0
        self.unpaged = False
        self.time: int | None = None
        self.oldest = 1 << 62
        self.horizon = horizon

    def unseen(self, items: list[fetch.Item]) -> list[fetch.Item]:
        """The items without those whose id was shown before; such a one counts as unreadable."""
        fresh = []
        self.shown += len(items)
        for item in items:
            if item.id in self.ids:
                self.unreadable += 1
            else:
                self.ids.add(item.id)
                fresh.append(item)
        return fresh

    def all_stored(self, stored: int) -> bool:
        """Whether every stored record was shown, without looking at each."""
        return self.known == stored


def _presence_due(at: int, now: int) -> bool:
    return now - at >= samples.PRESENCE_EVERY


def _changed(
    plan: Plan, items: list[fetch.Item], known: Mapping[str, Any], due: set[str]
) -> list[tuple[int, str, bytes, bytes]]:
    """The items that must be decoded, as rows to stage."""
    rows = []
    for item in items:
        before = known.get(item.id)
        if before is not None and before.raw_hash == item.hash and not before.missing and item.id not in due:
            continue
        kept: list[bytes] = []

        def kept_hash(raw: msgspec.Raw = item.raw, kept: list[bytes] = kept) -> bytes:
            kept.append(plan.salt.hash(plan.kept(raw)))
            return kept[0]

        if item.id in due or diff.differs(before, item.hash, kept_hash):
            rows.append((0, item.id, item.hash + (kept[0] if kept else kept_hash()), bytes(item.raw)))
    return rows


def _read(plan: Plan, staged: list[tuple[int, str, bytes, bytes]]) -> tuple[list[diff.Fresh], int]:
    fresh, unreadable = [], 0
    for _, id, hashes, body in staged:
        try:
            fresh.append(diff.Fresh(plan.read(id, wire.decoded(body)), hashes[:16], hashes[16:]))
        except wire.Unreadable:
            unreadable += 1
    return fresh, unreadable


def _new_samples(
    plan: Plan,
    items: list[fetch.Item],
    allowed: set[str],
    past: Mapping[str, samples.Past],
    listing: Listing,
) -> list[tuple[int, str, bytes, bytes]]:
    """The samples that are not known yet, as rows to stage."""
    rows = []
    for item in items:
        if item.id not in allowed:
            continue
        try:
            found, unreadable = plan.sample(item.id, wire.decoded(item.raw))
        except wire.Unreadable:
            listing.unreadable += 1
            continue
        listing.unreadable += unreadable
        listing.oldest = min([listing.oldest, *(s.ts for s in found[:-1] if s.ts is not None)])
        rows += [
            (sample.ts or 0, item.id, b"", msgspec.msgpack.encode(sample))
            for sample in found
            if samples.verdict(past.get(item.id), sample.ts, samples.hash_of(sample.values), listing.horizon) != "known"
        ]
    return rows


def _judged(staged: list[tuple[int, str, bytes, bytes]], context: samples.Context) -> Batch:
    decode = msgspec.msgpack.Decoder(Sample).decode
    return samples.judge([decode(row[3]) for row in staged], context)


def _spans(call: Call, window_end: int, now: int) -> list[tuple[int | None, int | None]]:
    """The windows to ask for, oldest first: bounded steps, then an open one. Times in ms."""
    if call.window is None or (window_end == 0 and not call.window.required):
        return [(None, None)]
    length, spans = round(call.window.length * 1000), []
    start = max((window_end or now - length) - round(call.lateness * 1000), now - round(call.window.keep * 1000))
    while now - start > length:
        spans.append((start, start + length))
        start += length
    return [*spans, (start, now if call.window.required else None)]


def _window_params(call: Call, start: int | None, end: int | None) -> dict[str, str]:
    if call.window is None or start is None:
        return {}
    params = {call.window.start_param: _written(call.window.format, start)}
    if end is not None:
        params[call.window.end_param] = _written(call.window.format, end)
    return params


def _written(format_: str, ts: int) -> str:
    if format_ == "rfc3339":
        return rfc3339(ts)
    return str(ts if format_ == "epoch_ms" else ts // 1000)


def _is_event(what: str, body: bytes) -> bool:
    return what in ("added", "changed", "removed") or (what == "components" and b'"changed":' in body)


def _fields(stored: Mapping[str, Stored]) -> dict[str, Fields]:
    return {id: diff.fields_of(record) for id, record in stored.items()}


def _set_aside(call: str, unreadable: int) -> list[Alert]:
    if not unreadable:
        return []
    return [
        Alert(
            kind="set_aside",
            call=call,
            message=f"{unreadable} records could not be read and were left as they were",
        )
    ]


def _report_stopped(call: Call, imeis: Sequence[str]) -> Alert:
    named = ", ".join(imeis[:3]) + (", …" if len(imeis) > 3 else "")
    whom = "1 terminal that is" if len(imeis) == 1 else f"{len(imeis)} terminals that are"
    return Alert(
        kind="report_stopped",
        call=call.id,
        message=f"the report {call.report} has stopped for {whom} online, while that of others goes on: {named}",
    )


def _held(plan: Plan, held: str, count: int) -> Alert:
    said = {
        "empty": f"the listing is empty where {count} {plan.kind} records were known; nothing is removed",
        "many": f"{count} {plan.kind} records are missing at once; their removal is held",
    }[held]
    return Alert(
        kind="removal_held",
        call=plan.call.id,
        message=f"{said}. To let them go, publish {{}} to bridge/request/release below the base topic",
    )
