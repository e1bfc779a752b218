"""Makes the forecasts after each poll of usage, and commits them through the journal.

What is kept of the use of each bucket and pool is stored together with the forecasts and alerts that follow from it:
all or nothing. After a crash in between, the next report brings what was not forecast.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

import msgspec

from oneweb_bridge.clock import Clock
from oneweb_bridge.config.schema import ForecastSettings
from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.model.forecast import Forecast
from oneweb_bridge.model.records import Alert, Batch, Entry, RecordKind, UsageDaysWrite
from oneweb_bridge.model.status import Alarm
from oneweb_bridge.store.slices import slices_of
from oneweb_bridge.store.store import Store
from oneweb_bridge.trends.allowances import Bucket, Member, Owner, ProductAllowance, owner_of, subject_of
from oneweb_bridge.trends.announcing import Forecasts, OwnerUse, Price, make_forecasts
from oneweb_bridge.trends.usage_days import UsageDays, UsageReport

_log = logging.getLogger("oneweb_bridge.forecast")
CHUNK_BUCKETS = 200
"""About how many buckets are forecast in one transaction, so that no other writer waits long."""
_decode_bucket = msgspec.json.Decoder(Bucket).decode
_decode_product = msgspec.json.Decoder(ProductAllowance).decode
_decode_forecast = msgspec.json.Decoder(Forecast).decode
_decode_days = msgspec.json.Decoder(UsageDays).decode

_Owners = dict[Owner, list[Bucket]]
"""The buckets of each owner of one subject."""


class Forecaster:
    """`update` is called after each poll of usage."""

    def __init__(self, store: Store, settings: ForecastSettings, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._unstored: dict[Owner, UsageReport] = {}
        """The newest report of each owner of which nothing but the time is newer than what is stored."""

    def reconfigure(self, settings: ForecastSettings) -> None:
        """Takes a new configuration for the polls to come."""
        self._settings = settings

    async def update(self, dates: Mapping[str, int]) -> None:
        """Publishes the forecasts that are due of the buckets with a report, of which these are the effective dates."""
        if not self._settings.enabled:
            await self._clear_all()
            return
        subjects = await self._load_subjects()
        for chunk in _chunks(subject for subject in subjects if _has_report(subject, dates)):
            await self._update_chunk(chunk, dates)
        await self._forget_others({owner for subject in subjects for owner in subject})

    async def _load_subjects(self) -> list[_Owners]:
        """All stored buckets by owner, and owners by whom an alert is about."""
        subjects: defaultdict[Owner, _Owners] = defaultdict(dict)
        async for docs in self._docs("usage"):
            for bucket in await asyncio.to_thread(_decode_buckets, docs):
                subjects[subject_of(bucket)].setdefault(owner_of(bucket), []).append(bucket)
        return list(subjects.values())

    async def _docs(self, kind: RecordKind) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        after = ""
        while docs := await self._store.records.docs_after(kind, after):
            yield docs
            after = docs[-1][0]

    async def _update_chunk(self, chunk: Sequence[_Owners], dates: Mapping[str, int]) -> None:
        context = await self._load_context(chunk)
        price = Price(self._settings.overage_price, self._settings.overage_currency)

        def make() -> Forecasts:
            return make_forecasts((context.uses_of(subject, dates) for subject in chunk), price)

        forecasts = await asyncio.to_thread(make)
        forecasts.batch.entries += [self._alert_entry(alert) for alert in forecasts.alerts]
        if forecasts.batch.entries or forecasts.batch.usage_days:
            await self._store.commit(forecasts.batch)
        self._update_unstored(forecasts.unstored)
        for alert in forecasts.alerts:
            _log.warning("%s", alert.message)

    async def _load_context(self, chunk: Sequence[_Owners]) -> "_Context":
        buckets = [bucket for subject in chunk for shared in subject.values() for bucket in shared]
        return _Context(
            products=await self._load_docs("product", [b.product_id for b in buckets if b.product_id is not None]),
            forecasts=await self._load_docs("forecast", [bucket.bucket_id for bucket in buckets]),
            days=await self._load_days([owner for subject in chunk for owner in subject]),
            unstored=self._unstored,
        )

    def _update_unstored(self, unstored: Mapping[Owner, UsageReport | None]) -> None:
        for owner, report in unstored.items():
            if report is None:
                self._unstored.pop(owner, None)
            else:
                self._unstored[owner] = report

    def _alert_entry(self, alert: Alert) -> Entry:
        now = self._clock.now()
        body = encode(Alarm(time=rfc3339(now), kind=alert.kind, message=alert.message, call=alert.call))
        return Entry("bridge", "", "alert", alert.kind, now, body)

    async def _load_docs(self, kind: RecordKind, ids: Sequence[str]) -> dict[str, bytes]:
        docs: dict[str, bytes] = {}
        for part in slices_of(ids):
            docs |= {id: stored.doc for id, stored in (await self._store.records.load(kind, part)).items()}
        return docs

    async def _load_days(self, owners: Sequence[Owner]) -> dict[Owner, bytes]:
        stored: dict[Owner, bytes] = {}
        for kind in sorted({owner.kind for owner in owners}):
            for part in slices_of([owner.id for owner in owners if owner.kind == kind]):
                bodies = await self._store.usage_days.load(kind, part)
                stored |= {Owner(kind, id): body for id, body in bodies.items()}
        return stored

    async def _forget_others(self, owners: set[Owner]) -> None:
        """Deletes what is kept of the use of buckets and pools that are gone."""
        kind = id = ""
        while stored := await self._store.usage_days.owners_after(kind, id):
            deletions = [UsageDaysWrite(*key) for key in stored if Owner(*key) not in owners]
            if deletions:
                await self._store.commit(Batch(usage_days=deletions))
            kind, id = stored[-1]
        self._unstored = {owner: report for owner, report in self._unstored.items() if owner in owners}

    async def _clear_all(self) -> None:
        """Clears the forecasts that are still retained from before they were switched off."""
        async for docs in self._docs("forecast"):
            batch = Batch()
            for id, doc in docs:
                product = _decode_forecast(doc).product_id
                owner = ("usage", id, "") if product is None else ("product", product, id)
                batch.entries.append(
                    Entry(owner[0], owner[1], "clear", owner[2], self._clock.now(), encode(["forecast"]))
                )
                batch.removed.append(("forecast", id))
            await self._store.commit(batch)


def _decode_buckets(docs: Iterable[tuple[str, bytes]]) -> list[Bucket]:
    buckets = []
    for id, doc in docs:
        # A mapping may have given a field another type: there is nothing to be forecast then.
        try:
            buckets.append(_decode_bucket(doc))
        except msgspec.ValidationError as error:
            _log.debug("%s has no forecast: %s", id, error)
    return buckets


def _has_report(subject: _Owners, dates: Mapping[str, int]) -> bool:
    return any(bucket.bucket_id in dates for shared in subject.values() for bucket in shared)


def _chunks(subjects: Iterable[_Owners]) -> Iterator[list[_Owners]]:
    """Whole subjects, together at least a chunk of buckets, but for the last ones."""
    chunk, count = list[_Owners](), 0
    for subject in subjects:
        chunk.append(subject)
        count += sum(len(shared) for shared in subject.values())
        if count >= CHUNK_BUCKETS:
            yield chunk
            chunk, count = [], 0
    if chunk:
        yield chunk


class _Context(msgspec.Struct, frozen=True):
    """What is known of the buckets of some subjects: documents by id, and newest reports that are not stored."""

    products: Mapping[str, bytes]
    forecasts: Mapping[str, bytes]
    days: Mapping[Owner, bytes]
    unstored: Mapping[Owner, UsageReport]

    def uses_of(self, subject: _Owners, dates: Mapping[str, int]) -> list[OwnerUse]:
        """The owners of a subject; a bucket without an effective date in this poll is as it was published last."""
        return [
            OwnerUse(
                owner,
                [Member(bucket, dates.get(bucket.bucket_id, bucket.ts), self._product(bucket)) for bucket in buckets],
                _decode_days(self.days[owner]) if owner in self.days else UsageDays(),
                self.unstored.get(owner),
                self._published(buckets),
            )
            for owner, buckets in subject.items()
        ]

    def _published(self, buckets: Iterable[Bucket]) -> dict[str, Forecast]:
        ids = (bucket.bucket_id for bucket in buckets)
        return {id: _decode_forecast(self.forecasts[id]) for id in ids if id in self.forecasts}

    def _product(self, bucket: Bucket) -> ProductAllowance:
        doc = self.products.get(bucket.product_id or "")
        try:
            return ProductAllowance() if doc is None else _decode_product(doc)
        except msgspec.ValidationError as error:
            _log.debug("%s has no known allowance: %s", bucket.product_id, error)
            return ProductAllowance()
