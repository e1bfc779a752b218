"""Which forecasts are published, and when it is alerted that an allowance will not last. Pure.

A forecast moves a little with each report. What is published is what somebody would want to know: another status, a
figure that moved by more than it wavers, and once a day where it stands. Times are those of the reports.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from oneweb_bridge.decode.values import parse_time
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.forecast import Forecast
from oneweb_bridge.model.records import Alert, Batch, Entry, RecordWrite
from oneweb_bridge.trends.allowances import Bucket, Member, Owner, allowance_of, share_of
from oneweb_bridge.trends.forecast import DAY_MS, make_forecast
from oneweb_bridge.trends.usage_days import UsageDays

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
    if after.ts // DAY_MS > before.ts // DAY_MS:
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
    """A bucket or a pool with its newest members and what is kept of its use; `before` is published of the members."""

    owner: Owner
    members: Sequence[Member]
    days: UsageDays
    before: Mapping[str, Forecast]


class Forecasts(msgspec.Struct):
    """What a poll of usage publishes and keeps: entries and records, the states of use, and alerts."""

    batch: Batch
    days: dict[Owner, UsageDays]
    alerts: list[Alert]


def make_forecasts(subjects: Iterable[Sequence[OwnerUse]], price: Price) -> Forecasts:
    """The forecasts that are due. Each subject comes with all of its owners: it is alerted about once."""
    made = Forecasts(Batch(), {}, [])
    for owners in subjects:
        latest = [(use, _publish(use, price, made.batch)) for use in owners]
        after = {use.owner: _alerted(use, published) for use, published in latest}
        made.days |= {use.owner: msgspec.structs.replace(use.days, alerted=after[use.owner]) for use in owners}
        made.alerts += _alerts(latest, after)
    return made


def _publish(use: OwnerUse, price: Price, batch: Batch) -> Forecast | None:
    """Appends the forecasts of an owner's members that are due. Returns one of them, or None."""
    allowance = allowance_of(share_of(use.members), use.members, use.days.reached)
    made, published = make_forecast("", use.days.days, allowance), None
    for member in use.members:
        forecast = _for_member(made, member.bucket, use.owner, price)
        if is_due(use.before.get(forecast.bucket_id), forecast):
            _append(forecast, batch)
            published = forecast
    return published


def _for_member(made: Forecast, bucket: Bucket, owner: Owner, price: Price) -> Forecast:
    priced = made.overage_p50_blocks is not None
    return msgspec.structs.replace(
        made,
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


def _alerted(use: OwnerUse, published: Forecast | None) -> str:
    """The end of the cycle for which the alert stands after what was published; without data it stands as before."""
    if published is None or published.status == "not_enough_data":
        return use.days.alerted
    return (published.cycle_end or "") if published.exhausted_p50 is not None else ""


def _alerts(latest: Sequence[tuple[OwnerUse, Forecast | None]], after: Mapping[Owner, str]) -> list[Alert]:
    """The alert that an allowance will not last, once in a cycle, and that it will after all."""
    standing = {use.days.alerted for use, _ in latest} - {""}
    for use, published in latest:
        if published is not None and after[use.owner] and after[use.owner] not in standing:
            return [_alert(use, published)]
    for use, published in latest:
        if published is not None and use.days.alerted and not any(after.values()):
            return [_alert(use, published)]
    return []


def _alert(use: OwnerUse, forecast: Forecast) -> Alert:
    name = _name_of(use)
    limit = "" if forecast.entitlement_gb is None else f" of {forecast.entitlement_gb:g} GB"
    if forecast.exhausted_p50 is None:
        until = "" if forecast.cycle_end is None else f" on {forecast.cycle_end}"
        message = f"{name}: the allowance{limit} will probably last until the cycle ends{until}"
    elif forecast.used_gb is not None and forecast.used_gb >= (forecast.entitlement_gb or 0.0):
        message = f"{name}: the allowance{limit} is used up since {forecast.exhausted_p50}"
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
