"""Usage in the bill cycle: one report with one bucket per metered product."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from .changes import Changes
from .clock import rfc3339
from .draws import About, between
from .fleet import EXTRA_PRODUCTS, PUBLIC_HOST, Fleet
from .options import Options
from .plans import PLANS, Plan, plan_of
from .usage_kinds import amount_between, kinds_of

Json = dict[str, Any]

_DAY = 86400.0
_MONTH = 30 * _DAY
_EFFECTIVE_STEP = 15.0  # the reports are made anew every 15 s
_POOL = 20  # terminals whose pooled products share a sub-pool


class Cycle(NamedTuple):
    """A bill cycle: begin, end (the renewal), in seconds since the epoch."""

    begin: float
    end: float


def cycle_at(at: float, length: float | None, first_day: int = 1) -> Cycle:
    """The cycle around a time: a month in UTC from its `first_day` on, or a multiple of `length` seconds."""
    if length is not None:
        begin = math.floor(at / length) * length
        return Cycle(begin, begin + length)
    day = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first = day.replace(day=first_day)
    if first > day:
        first = (first.replace(day=1) - timedelta(days=1)).replace(day=first_day)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return Cycle(first.timestamp(), following.timestamp())


class Usage:
    """Builds usage reports as they are at a time."""

    def __init__(self, fleet: Fleet, changes: Changes, options: Options) -> None:
        self._fleet = fleet
        self._changes = changes
        self._length = options.cycle
        self._cycle_day = options.cycle_day
        self._has_balance = options.shape.more_fields
        self._kinds = kinds_of(options.usage)
        self._href = PUBLIC_HOST + options.shape.usage_path + "/"
        self._product_href = PUBLIC_HOST + options.shape.product_path + "/"

    def bucket_id(self, index: int) -> str:
        """Two digit groups, as `1209417733-171120048`."""
        return f"{1_209_417_733 + index % 7}-{171_000_000 + index}"

    def report(self, index: int, at: float) -> Json:
        """The report of one product."""
        effective = at // _EFFECTIVE_STEP * _EFFECTIVE_STEP
        stamp = rfc3339(effective).replace("-", "").replace(":", "")
        report_id = f"UCR-{self.bucket_id(index)}-{stamp}"
        customer = self._fleet.customer_of(self._site(index))
        built: Json = {
            "id": report_id,
            "href": self._href + report_id,
            "@type": "UsageConsumptionReport",
            "name": "Site connectivity usage",
            "description": "Cumulative usage since the bill cycle reference date",
            "effectiveDate": rfc3339(effective),
            "relatedParty": {
                "id": self._fleet.organization_id(customer),
                "name": self._fleet.organization_name(customer),
                "role": "End Customer",
            },
            "bucket": [self._bucket(index, effective)],
        }
        return self._changes.apply_to("usage", index, built)

    def cycle(self, at: float) -> Cycle:
        """The cycle around a time, begun anew by the last rollover that was asked for."""
        cycle = cycle_at(at, self._length, self._cycle_day)
        rollover = max((when for when in self._changes.rollovers if when <= at), default=0.0)
        return Cycle(max(cycle.begin, rollover), cycle.end)

    def used(self, index: int, at: float) -> float:
        """GB used since the cycle began; grows, faster by day."""
        begin = self.cycle(at).begin
        plan, seed = plan_of(index), self._fleet.seed
        length = self._length or _MONTH
        rate = (plan.allowance or 800) * between(0.3, 1.4, seed, About.USAGE, index) / length
        if self._kinds:
            kind = self._kinds[(index + index // len(PLANS)) % len(self._kinds)]
            return round(rate * _DAY * amount_between(kind, (seed, index), begin, at), 3)
        wave = min(86400.0, length / 4) / (2 * math.pi)
        phase = between(0, 2 * math.pi, seed, About.USAGE, index, 1)
        waves = math.cos(begin / wave + phase) - math.cos(at / wave + phase)
        return round(rate * (at - begin + 0.8 * wave * waves), 3)

    def pool(self, index: int) -> Sequence[int]:
        """The products that share the allowance of a pooled one."""
        first = index // _POOL * _POOL
        last = self._fleet.size if index < EXTRA_PRODUCTS else EXTRA_PRODUCTS + self._fleet.extras
        return [
            member
            for member in range(first, min(first + _POOL, max(last, index + 1)))
            if plan_of(member).is_pooled and (member >= EXTRA_PRODUCTS or not self._fleet.is_spare(member))
        ]

    def _site(self, index: int) -> int:
        return self._fleet.site_of(index) if index < EXTRA_PRODUCTS else index % self._fleet.sites

    def _bucket(self, index: int, at: float) -> Json:
        plan, cycle, product = plan_of(index), self.cycle(at), self._product(index)
        built: Json = {
            "id": self.bucket_id(index),
            "name": plan.bucket_name,
            "bucketType": "cycle",
            "usageType": "data",
            "isShared": plan.is_pooled,
            "entitlementRenew": rfc3339(cycle.end),
            "product": [product],
        }
        used, entitlement = self.used(index, at), plan.allowance
        shares = [] if not plan.is_pooled else [("usage", "product", used, "GB")]
        if plan.is_pooled:
            members = self.pool(index)
            used = round(sum(self.used(member, at) for member in members), 3)
            entitlement = (plan.allowance or 0) * len(members)
        site = self._site(index)
        period = {"startDateTime": rfc3339(cycle.begin), "endDateTime": rfc3339(cycle.end - 1)}
        user = {"id": self._fleet.site_id(site), "name": self._fleet.site_name(site), "role": "site"}
        common = {"consumptionPeriod": period, "product": product, "user": user}
        built["bucketBalance"] = [_balance(used, entitlement, period)]
        if self._has_balance and entitlement is not None:
            built["currentBalance"] = {"amount": round(entitlement - used, 3), "units": "GB"}
        counted = [*_global_counters(used, entitlement, plan), *shares]
        built["bucketCounter"] = [_counter(*counter, common) for counter in counted]
        if plan.is_pooled:
            built["sharedAllowance"] = self._sub_pool(index)
        return built

    def _product(self, index: int) -> Json:
        product = self._fleet.product_id(index)
        return {"id": product, "href": self._product_href + product, "name": plan_of(index).name}

    def _sub_pool(self, index: int) -> Json:
        group = index // _POOL
        return {
            "id": f"POOL-{7001 + group // 4}-{group % 4 + 1:02d}",
            "name": f"Sub-pool {group + 1}",
            "@type": "SubPool",
            "parentId": f"POOL-{7001 + group // 4}",
        }


def _balance(used: float, entitlement: int | None, period: Json) -> Json:
    """Unlimited comes with the amount 0; the label is rounded otherwise than the amount."""
    left = None if entitlement is None else round(max(0.0, entitlement - used), 3)
    return {
        "remainingValueName": "Unlimited" if left is None else f"{left:.0f} GB of data",
        "remainingValue": {"amount": left or 0.0, "units": "GB"},
        "validFor": period,
    }


def _global_counters(used: float, entitlement: int | None, plan: Plan) -> list[tuple[str, str, float, str]]:
    """Type, level, amount and units of what every bucket counts; an unlimited one has no entitlement."""
    counted: list[tuple[str, str, float, str]] = [("usage", "global", used, "GB")]
    if entitlement is not None:
        counted.append(("entitlement", "global", entitlement, "GB"))
    over = 0.0 if entitlement is None else max(0.0, used - entitlement)
    return [*counted, ("overage", "global", math.ceil(over / plan.increment), "block")]


def _counter(kind: str, level: str, amount: float, units: str, common: Json) -> Json:
    return {
        "counterType": kind,
        "level": level,
        "value": {"amount": amount, "units": units},
        "valueName": f"{amount:g} {units}",
        **common,
    }
