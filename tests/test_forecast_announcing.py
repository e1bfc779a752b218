"""Which forecasts are published, and when it is alerted that an allowance will not last."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.model.forecast import Forecast
from oneweb_bridge.trends import announcing
from oneweb_bridge.trends.allowances import Bucket, Member, Owner, ProductAllowance, owner_of
from oneweb_bridge.trends.announcing import Forecasts, OwnerUse, Price, is_due, make_forecasts
from oneweb_bridge.trends.forecast import DAY_MS
from oneweb_bridge.trends.usage_days import UsageDays

HOUR = 3_600_000
DAY = 20_423
NOON = DAY * DAY_MS + 12 * HOUR
"""1 December 2025."""
END = "2026-01-01T00:00:00Z"


def forecast_at(ts: int = NOON, **changes: Any) -> Forecast:
    figures: dict[str, Any] = {
        "status": "ok",
        "cycle_end": END,
        "entitlement_gb": 300.0,
        "used_at_end_p50_gb": 310.0,
        "exhausted_p10": "2025-12-27T00:00:00Z",
        "exhausted_p50": "2025-12-30T00:00:00Z",
        "overage_p50_blocks": 1,
    }
    return Forecast(bucket_id="B", time=rfc3339(ts), ts=ts, method="gamma-1", days_used=9.0, **(figures | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "unlimited"},
        {"cycle_end": "2026-02-01T00:00:00Z"},
        {"product_id": "P2"},
        {"shared_allowance_id": "POOL"},
    ],
)
def test_other_status_or_cycle_is_published_at_once(changes: dict[str, Any]) -> None:
    """Even a minute after the last one."""
    assert is_due(forecast_at(), forecast_at(NOON + 60_000, **changes))


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({"used_at_end_p50_gb": 313.1}, True),
        ({"used_at_end_p50_gb": 312.9}, False),
        ({"exhausted_p50": "2025-12-30T06:01:00Z"}, True),
        ({"exhausted_p50": "2025-12-30T05:59:00Z"}, False),
        ({"exhausted_p90": "2025-12-31T17:00:00Z"}, True),
        ({"exhausted_p90": "2025-12-31T19:00:00Z"}, False),
        ({"overage_p50_blocks": 2}, True),
        ({"exhaustion_probability_pct": 70.0, "used_gb": 120.0}, False),
    ],
)
def test_figures_are_published_when_they_have_moved(changes: dict[str, Any], due: bool) -> None:
    """p50 by more than 1 % of the entitlement, a date by more than 6 hours, blocks; at most once an hour."""
    assert is_due(forecast_at(), forecast_at(NOON + HOUR, **changes)) is due
    assert not is_due(forecast_at(), forecast_at(NOON + HOUR - 1, **changes))


def test_first_report_of_a_day_is_published() -> None:
    """Once a UTC day it is stated where it stands, by the time of the reports."""
    assert not is_due(forecast_at(), forecast_at(NOON + 12 * HOUR - 1))
    assert is_due(forecast_at(), forecast_at(NOON + 12 * HOUR))
    assert is_due(forecast_at(NOON + 365 * 24 * HOUR), forecast_at()), "the one before had a wrong time"


def test_nothing_is_published_again_after_a_restart() -> None:
    """What was published last comes from the records: the same report gives nothing."""
    assert is_due(None, forecast_at())
    assert not is_due(forecast_at(), forecast_at())


# ── a poll ─────────────────────────────────────────────────────────────────────────────────────


class Bridge:
    """What is kept between the polls of one product or pool."""

    def __init__(self, *buckets: Bucket, product: ProductAllowance | None = None) -> None:
        self.buckets = buckets
        self.product = product or ProductAllowance(overage_increment_gb=30.0)
        self.before: dict[str, Forecast] = {}
        self.days: dict[Owner, UsageDays] = {}
        self.messages: list[str] = []

    def poll(self, day: int, rate: float, until: str = END, price: Price | None = None) -> Forecasts:
        """A poll at the begin of a day of the cycle with `rate` GB used on each day so far."""
        ts, owners = (DAY + day) * DAY_MS, list[OwnerUse]()
        for owner in sorted({owner_of(bucket) for bucket in self.buckets}):
            used = {
                "used_gb": rate * day,
                "remaining_gb": max(0.0, 300.0 - rate * day),
                "valid_from": until,
                "valid_until": until,
            }
            members = [
                Member(msgspec.structs.replace(bucket, entitlement_gb=300.0, **used), ts, self.product)
                for bucket in self.buckets
                if owner_of(bucket) == owner
            ]
            kept = self.days.get(owner, UsageDays())
            full = tuple((DAY + n, rate) for n in range(day))
            stored = msgspec.structs.replace(kept, ts=ts - 1, used=rate * day, cycle=until, limit=300.0, days=full)
            owners.append(OwnerUse(owner, members, stored, before=self.before))
        made = make_forecasts([owners], price or Price())
        self._store(made)
        return made

    def _store(self, made: Forecasts) -> None:
        for write in made.batch.usage_days:
            self.days[Owner(write.kind, write.id)] = msgspec.json.decode(write.body, type=UsageDays)
        self.before |= {put.id: msgspec.json.decode(put.doc, type=Forecast) for put in made.batch.writes}
        self.messages += [alert.message for alert in made.alerts]


def test_forecast_goes_into_journal_and_records_together() -> None:
    """One entry for each bucket, with the record that keeps its topic right, on the product's topic or its own."""
    made = Bridge(Bucket("B", product_id="P")).poll(5, 5.0)
    (entry,), (put,) = made.batch.entries, made.batch.writes

    assert (entry.entity, entry.id, entry.what, entry.name) == ("product", "P", "forecast", "B")
    assert (put.kind, put.id, put.entry, put.doc) == ("forecast", "B", 0, entry.body)
    assert entry.ts == (DAY + 5) * DAY_MS
    alone = Bridge(Bucket("B")).poll(5, 5.0).batch.entries[0]
    assert (alone.entity, alone.id, alone.name) == ("usage", "B", "")


def test_members_of_a_pool_get_the_figures_of_the_pool() -> None:
    """Each member's topic has the same figures, its own ids, and the pool's."""
    shared: dict[str, Any] = {"is_shared": True, "shared_allowance_id": "POOL"}
    bridge = Bridge(Bucket("B1", product_id="P1", **shared), Bucket("B2", product_id="P2", **shared))
    bridge.poll(10, 12.0)
    first, other = bridge.before["B1"], bridge.before["B2"]

    assert (first.product_id, other.product_id) == ("P1", "P2")
    assert {first.shared_allowance_id, other.shared_allowance_id} == {"POOL"}
    assert first.used_gb == 120.0
    assert msgspec.structs.replace(first, bucket_id="B2", product_id="P2") == other


def test_price_is_published_as_it_is() -> None:
    """Price and currency come with the blocks, and only with them."""
    price = Price(90.0, "EUR")
    bridge = Bridge(Bucket("B", product_id="P"))
    prices = []
    for day in (1, 5):
        bridge.poll(day, 5.0, price=price)
        prices.append((bridge.before["B"].overage_price, bridge.before["B"].overage_currency))

    assert prices == [(None, None), (90.0, "EUR")]


def test_alert_comes_once_and_when_it_is_over() -> None:
    """The median date comes up: one alert in the cycle. It is gone again: another one."""
    bridge = Bridge(Bucket("B", product_id="P", product_name="Maritime"))
    for day, rate in ((5, 5.0), (8, 12.0), (9, 12.0), (10, 13.0), (12, 4.0), (13, 4.0), (15, 12.0)):
        bridge.poll(day, rate)

    assert len(bridge.messages) == 3
    assert bridge.messages[0].startswith(
        "product P (Maritime), bucket B: the allowance of 300 GB will probably be used up"
    )
    assert "will probably last until the cycle ends on 2026-01-01T00:00:00Z" in bridge.messages[1]
    assert "used up" in bridge.messages[2]


def test_alert_names_an_allowance_that_is_used_up() -> None:
    """Used up already: since when."""
    bridge = Bridge(Bucket("B", product_id="P"))
    bridge.poll(20, 20.0)

    assert "is used up since" in bridge.messages[0]
    assert "; the cycle ends on 20" in bridge.messages[0]


def test_next_cycle_is_alerted_of_anew() -> None:
    """Each cycle that will not last has one alert of its own."""
    bridge = Bridge(Bucket("B", product_id="P"))
    bridge.poll(10, 12.0)
    bridge.poll(11, 12.0, until="2026-01-05T00:00:00Z")

    assert len(bridge.messages) == 2
    assert "2026-01-05" in bridge.messages[1]


@pytest.mark.parametrize(
    "buckets",
    [
        [Bucket("B1", product_id="P"), Bucket("B2", product_id="P")],
        [
            Bucket("B1", product_id="P1", is_shared=True, shared_allowance_id="POOL"),
            Bucket("B2", product_id="P2", is_shared=True, shared_allowance_id="POOL"),
        ],
    ],
)
def test_product_and_pool_are_alerted_of_once(buckets: Sequence[Bucket]) -> None:
    """However many buckets will not last, and again when none is left."""
    bridge = Bridge(*buckets)
    bridge.poll(10, 12.0)
    bridge.poll(12, 4.0)

    assert len(bridge.messages) == 2


def test_alert_stands_while_there_are_no_data() -> None:
    """A forecast that says nothing takes nothing back."""
    bridge = Bridge(Bucket("B", product_id="P"))
    bridge.poll(10, 12.0)
    bridge.poll(1, 12.0)
    bridge.poll(11, 12.0)

    assert len(bridge.messages) == 1


def test_alert_agrees_with_what_is_published() -> None:
    """Within the hour nothing is published, and so nothing is alerted."""
    bridge = Bridge(Bucket("B", product_id="P"))
    bridge.poll(10, 9.0)
    assert bridge.before["B"].exhausted_p50 is None
    bridge.poll(10, 12.0)

    assert bridge.messages == []
    assert announcing.MIN_PAUSE_MS == HOUR
