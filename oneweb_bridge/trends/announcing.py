"""Which forecasts are published, and when it is alerted that an allowance will not last. Pure.

A forecast moves a little with each report. What is published is what somebody would want to know: another status, a
figure that moved by more than it wavers, and once a day where it stands. Times are those of the reports.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from oneweb_bridge.decode.values import parse_time
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.forecast import Forecast
from oneweb_bridge.model.records import Alert, Batch, Entry, RecordWrite, UsageDaysWrite
from oneweb_bridge.trends.allowances import Bucket, Member, Owner, allowance_of, report_of, share_of
from oneweb_bridge.trends.forecast import DAY_MS, make_forecast
from oneweb_bridge.trends.usage_days import UsageDays, UsageReport, is_worth_storing, note_report

MIN_PAUSE_MS = 3_600_000
"""Least time between two forecasts that say the same in other figures."""
MOVED_SHARE = 0.01
"""Share of the entitlement by which the median use moves before it is published."""
MOVED_MS = 6 * 3_600_000
"""How far a date moves before it is published."""


def is_due(before: Forecast | None, after: Forecast) -> bool:
    """Whether a forecast is to be published after the one that was published last."""
    if before is None or _identity(before) != _identity(after):
        return True
    if after.ts // DAY_MS != before.ts // DAY_MS:
        return True
    return after.ts - before.ts >= MIN_PAUSE_MS and has_moved(before, after)


def _identity(forecast: Forecast) -> tuple[object, ...]:
    """What is published at once when it changes."""
    return forecast.status, forecast.cycle_end, forecast.product_id, forecast.shared_allowance_id


def has_moved(before: Forecast, after: Forecast) -> bool:
    """Whether one of the figures differs by more than it wavers."""
    if _blocks(before) != _blocks(after):
        return True
    moved = abs((after.used_at_end_p50_gb or 0.0) - (before.used_at_end_p50_gb or 0.0))
    if moved > MOVED_SHARE * (after.entitlement_gb or 0.0):
        return True
    pairs = zip(_dates(before), _dates(after), strict=True)
    return any(abs(new - old) > MOVED_MS for old, new in pairs)


def _blocks(forecast: Forecast) -> tuple[int | None, ...]:
    return forecast.overage_p10_blocks, forecast.overage_p50_blocks, forecast.overage_p90_blocks


def _dates(forecast: Forecast) -> list[int]:
    """The dates in ms; one that is not within the cycle counts as its end."""
    dates = (forecast.exhausted_p10, forecast.exhausted_p50, forecast.exhausted_p90)
    return [parse_time(date or forecast.cycle_end) or 0 for date in dates]


# ── a poll of usage ────────────────────────────────────────────────────────────────────────────


class Price(msgspec.Struct, frozen=True):
    """What an overage block costs, as configured."""

    amount: float | None = None
    currency: str | None = None


class OwnerUse(msgspec.Struct, frozen=True):
    """A bucket or a pool with its newest members, and what is known of its use before they are added.

    `unstored` is a report newer than what is stored, and was not worth storing; `before` has the forecasts that were
    published last, by member.
    """

    owner: Owner
    members: Sequence[Member]
    stored: UsageDays = UsageDays()
    unstored: UsageReport | None = None
    before: Mapping[str, Forecast] = {}


class Forecasts(msgspec.Struct):
    """What a poll of usage gives: what is stored and published, alerts, and reports that were not worth storing."""

    batch: Batch
    alerts: list[Alert]
    unstored: dict[Owner, UsageReport | None]


def make_forecasts(subjects: Iterable[Sequence[OwnerUse]], price: Price) -> Forecasts:
    """The forecasts that are due. Each subject comes with all of its owners: it is alerted about once."""
    forecasts = Forecasts(Batch(), [], {})
    for owners in subjects:
        latest = [_publish(use, price, forecasts.batch) for use in owners]
        cycle_ends = {update.use.owner: _cycle_end_alerted(update) for update in latest}
        for update in latest:
            _store_use_or_keep_report(update, cycle_ends[update.use.owner], forecasts)
        forecasts.alerts += _alerts(latest, cycle_ends)
    return forecasts


class _Update(msgspec.Struct, frozen=True):
    """An owner after its newest report, and a forecast that was published of it, if one was."""

    use: OwnerUse
    report: UsageReport | None
    days: UsageDays
    published: Forecast | None


def _publish(use: OwnerUse, price: Price, batch: Batch) -> _Update:
    """Appends the forecasts of an owner's members that are due."""
    share = share_of(use.members)
    report = report_of(share)
    days = use.stored if report is None else note_report(use.stored, use.unstored, report)
    owner_forecast, published = make_forecast("", days.days, allowance_of(share, use.members, days)), None
    for member in use.members:
        forecast = _for_member(owner_forecast, member.bucket, use.owner, price)
        before = use.before.get(forecast.bucket_id)
        if is_due(before, forecast):
            _append(forecast, batch)
            published = forecast
            if forecast.product_id is not None and _outline(before) != _outline(forecast):
                batch.dirty_devices.append(("product", forecast.product_id))
    return _Update(use, report, days, published)


def _outline(forecast: Forecast | None) -> tuple[object, ...]:
    """What Home Assistant's device of the product depends on: whether there will ever be figures."""
    return () if forecast is None else (forecast.product_id, forecast.status == "unlimited")


def _store_use_or_keep_report(update: _Update, alerted_cycle_end: str, forecasts: Forecasts) -> None:
    """Stores what is known of the use, or keeps the report in mind where nothing but its time is new."""
    owner, days = update.use.owner, msgspec.structs.replace(update.days, alerted=alerted_cycle_end)
    if update.report is None:
        return
    if is_worth_storing(update.use.stored, days):
        forecasts.batch.usage_days.append(UsageDaysWrite(owner.kind, owner.id, encode(days)))
        forecasts.unstored[owner] = None
    else:
        forecasts.unstored[owner] = update.report


def _for_member(owner_forecast: Forecast, bucket: Bucket, owner: Owner, price: Price) -> Forecast:
    priced = owner_forecast.overage_p50_blocks is not None
    return msgspec.structs.replace(
        owner_forecast,
        bucket_id=bucket.bucket_id,
        product_id=bucket.product_id,
        shared_allowance_id=owner.id if owner.kind == "pool" else None,
        overage_price=price.amount if priced else None,
        overage_currency=price.currency if priced else None,
    )


def _append(forecast: Forecast, batch: Batch) -> None:
    doc = encode(forecast)
    batch.writes.append(RecordWrite("forecast", forecast.bucket_id, doc, entry=len(batch.entries)))
    if forecast.product_id is None:
        entry = Entry("usage", forecast.bucket_id, "forecast", "", forecast.ts, doc)
    else:
        entry = Entry("product", forecast.product_id, "forecast", forecast.bucket_id, forecast.ts, doc)
    batch.entries.append(entry)


# ── alerts ─────────────────────────────────────────────────────────────────────────────────────


def _cycle_end_alerted(update: _Update) -> str:
    """The end of the cycle for which the alert stands after what was published; without data it stands as before."""
    published = update.published
    if published is None or published.status == "not_enough_data":
        return update.use.stored.alerted
    return (published.cycle_end or "") if published.exhausted_p50 is not None else ""


def _alerts(latest: Sequence[_Update], cycle_ends: Mapping[Owner, str]) -> list[Alert]:
    """The alert that an allowance will not last, once in a cycle, and that it will after all.

    `cycle_ends` are those for which the alert stands now.
    """
    standing = {update.use.stored.alerted for update in latest} - {""}
    for update in latest:
        until = cycle_ends[update.use.owner]
        if update.published is not None and until and until not in standing:
            return [_alert(update.use, update.published)]
    for update in latest:
        if update.published is not None and update.use.stored.alerted and not any(cycle_ends.values()):
            return [_alert(update.use, update.published)]
    return []


def _alert(use: OwnerUse, forecast: Forecast) -> Alert:
    name = _name_of(use)
    limit = "" if forecast.entitlement_gb is None else f" of {forecast.entitlement_gb:g} GB"
    if forecast.exhausted_p50 is None:
        until = "" if forecast.cycle_end is None else f" on {forecast.cycle_end}"
        message = f"{name}: the allowance{limit} will probably last until the cycle ends{until}"
    elif forecast.used_gb is not None and forecast.used_gb >= (forecast.entitlement_gb or 0.0):
        until = "" if forecast.cycle_end is None else f"; the cycle ends on {forecast.cycle_end}"
        message = f"{name}: the allowance{limit} is used up since {forecast.exhausted_p50}{until}"
    else:
        message = (
            f"{name}: the allowance{limit} will probably be used up on {forecast.exhausted_p50}, before the cycle ends "
            f"on {forecast.cycle_end}; {forecast.used_gb:g} GB are used, {forecast.used_at_end_p50_gb:.0f} GB are "
            "expected by then"
        )
    return Alert(kind="allowance_exhausts", call="usage_consumption", about=name, message=message)


def _name_of(use: OwnerUse) -> str:
    """Who uses: the pool, or the product and its bucket."""
    bucket = use.members[0].bucket
    if use.owner.kind == "pool":
        return f"pool {_named(use.owner.id, bucket.shared_allowance_name)}"
    product = "" if bucket.product_id is None else f"product {_named(bucket.product_id, bucket.product_name)}, "
    return f"{product}bucket {_named(bucket.bucket_id, bucket.bucket_name)}"


def _named(id: str, name: str | None) -> str:
    return f"{id} ({name})" if name else id
