"""Which limit holds for a usage bucket, who shares it, what a pool has used, and when the cycle ends."""

from typing import Any

import pytest

from oneweb_bridge.trends.allowances import (
    Bucket,
    Member,
    Owner,
    ProductAllowance,
    Share,
    allowance_of,
    cycle_end,
    owner_of,
    report_of,
    share_of,
    subject_of,
)
from oneweb_bridge.trends.usage_days import UsageDays

DECEMBER = 1_796_083_200_000
"""2026-12-01T00:00:00Z."""


def member(ts: int = 1, product: ProductAllowance | None = None, **fields: Any) -> Member:
    return Member(Bucket(**({"bucket_id": "B"} | fields)), ts, product or ProductAllowance())


def pool(*members: dict[str, Any], ts: int = 1, **common: Any) -> Share:
    """What a pool of members says; each has its own fields and those in common."""
    shared: dict[str, Any] = {"is_shared": True, "shared_allowance_id": "POOL"} | common
    return share_of([member(ts, bucket_id=f"B{n}", **(shared | fields)) for n, fields in enumerate(members)])


@pytest.mark.parametrize(
    ("fields", "product", "unlimited", "limit"),
    [
        ({"remaining_unlimited": True, "entitlement_gb": 300.0}, {}, True, None),
        ({"entitlement_gb": 300.0, "used_gb": 1.0, "remaining_gb": 1.0}, {"allowance_gb": 9.0}, False, 300.0),
        ({"used_gb": 100.0, "remaining_gb": 50.0}, {"allowance_gb": 9.0}, False, 150.0),
        ({"used_gb": 100.0}, {"allowance_unlimited": True}, True, None),
        ({"used_gb": 100.0}, {"allowance_gb": 300.0}, False, 300.0),
        ({"used_gb": 100.0}, {}, False, None),
        ({"entitlement_gb": 0.0, "used_gb": 5.0}, {"allowance_gb": 300.0}, False, None),
        ({"entitlement_gb": -1.0, "used_gb": 5.0}, {"allowance_gb": 300.0}, False, 300.0),
        ({"entitlement_gb": 1e300, "used_gb": 5.0}, {}, False, None),
    ],
)
def test_limit_comes_from_the_bucket_then_from_the_product(
    fields: dict[str, Any], product: dict[str, Any], unlimited: bool, limit: float | None
) -> None:
    """Unlimited, entitlement, used plus remaining, the product's allowance, in this order; else it is not known."""
    share = share_of([member(product=ProductAllowance(**product), **fields)])

    assert (share.unlimited, share.limit) == (unlimited, limit)


def test_shared_buckets_are_one_pool() -> None:
    """Buckets that share an allowance have one owner; without its id a shared bucket is by itself."""
    assert owner_of(Bucket("B1", is_shared=True, shared_allowance_id="POOL")) == Owner("pool", "POOL")
    assert owner_of(Bucket("B2", is_shared=True)) == Owner("bucket", "B2")
    assert owner_of(Bucket("B3", shared_allowance_id="POOL")) == Owner("bucket", "B3")


def test_alert_is_about_the_product_or_the_pool() -> None:
    """All buckets of a product are one subject, a bucket without a product is one by itself."""
    assert subject_of(Bucket("B1", product_id="P")) == Owner("product", "P")
    assert subject_of(Bucket("B1")) == Owner("bucket", "B1")
    shared = Bucket("B1", product_id="P", is_shared=True, shared_allowance_id="POOL")
    assert subject_of(shared) == Owner("pool", "POOL")


def test_pool_has_used_what_does_not_remain() -> None:
    """What members show as their own does not matter while something remains."""
    share = pool({"used_gb": 10.0}, {"used_gb": 20.0}, entitlement_gb=300.0, remaining_gb=120.0)

    assert (share.used, share.limit) == (180.0, 300.0)


def test_pool_without_a_remaining_amount_adds_its_members_up() -> None:
    """Where nothing is said of what remains, the use of the pool is that of its members."""
    assert pool({"used_gb": 10.0}, {"used_gb": 20.0}, {}, entitlement_gb=300.0).used == 30.0
    assert pool({}, {}, entitlement_gb=300.0).used is None


@pytest.mark.parametrize(
    ("uses", "used"),
    [((320.0, 320.0), 320.0), ((200.0, 130.0), 330.0), ((100.0, 130.0), 300.0), ((None, None), 300.0)],
)
def test_pool_that_is_used_up_goes_on(uses: tuple[float | None, ...], used: float) -> None:
    """Nothing remains of it: the use goes on beyond the limit, as members show it, their own or the pool's."""
    members = [{} if use is None else {"used_gb": use} for use in uses]

    assert pool(*members, entitlement_gb=300.0, remaining_gb=0.0).used == used


def test_pool_without_an_entitlement_takes_its_products_together() -> None:
    """Each product brings its part; where one is not known, the whole is not known."""
    part = ProductAllowance(allowance_gb=150.0)
    fields: dict[str, Any] = {"is_shared": True, "shared_allowance_id": "POOL", "used_gb": 10.0}

    assert share_of([member(product=part, **fields), member(product=part, **fields)]).limit == 300.0
    assert share_of([member(product=part, **fields), member(**fields)]).limit is None


def test_pool_is_as_its_newest_member_shows_it() -> None:
    """Balance and time are those of the member with the newest effective date."""
    fields: dict[str, Any] = {"is_shared": True, "shared_allowance_id": "POOL", "entitlement_gb": 300.0}
    share = share_of(
        [
            member(5, bucket_id="B1", remaining_gb=90.0, **fields),
            member(7, bucket_id="B2", remaining_gb=80.0, **fields),
            member(3, bucket_id="B3", remaining_gb=99.0, **fields),
        ]
    )

    assert share.used == 220.0
    report = report_of(share)
    assert report is not None
    assert report.ts == 7


def test_allowance_takes_blocks_and_their_size_from_any_member() -> None:
    """The blocks that are used already are the most that a member shows."""
    sized = ProductAllowance(overage_increment_gb=15.0)
    fields: dict[str, Any] = {
        "is_shared": True,
        "shared_allowance_id": "POOL",
        "entitlement_gb": 300.0,
        "remaining_gb": 0.0,
    }
    members = [
        member(5, bucket_id="B1", overage_blocks=2, product=sized, **fields),
        member(7, bucket_id="B2", overage_blocks=1, **fields),
    ]
    allowance = allowance_of(share_of(members), members, UsageDays(ts=7, reached=4))

    assert (allowance.blocks, allowance.increment, allowance.reached, allowance.ts) == (2, 15.0, 4, 7)


@pytest.mark.parametrize(
    ("until", "renew", "end"),
    [
        ("2026-11-30T23:59:59Z", "2026-12-15T00:00:00Z", DECEMBER),
        ("2026-11-30T23:59:59.999Z", None, DECEMBER),
        ("2026-12-01T00:00:00Z", None, DECEMBER),
        ("2026-11-30T23:59:58Z", None, DECEMBER - 2000),
        (None, "2026-12-01T00:00:00Z", DECEMBER),
        (None, None, None),
        ("never", None, None),
        ("9999-12-31T23:59:59Z", None, 253_402_300_799_000),
    ],
)
def test_cycle_ends_with_the_minute_that_is_meant(until: str | None, renew: str | None, end: int | None) -> None:
    """valid_until counts before the renewal, its last second of a minute is the end of that minute."""
    assert cycle_end(Bucket("B", valid_until=until, entitlement_renew=renew)) == end


def test_bucket_without_a_use_makes_no_report() -> None:
    """What is not known is no zero."""
    assert report_of(share_of([member(entitlement_gb=300.0)])) is None
