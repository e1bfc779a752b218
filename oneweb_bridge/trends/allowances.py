"""Usage buckets and their products to allowances: which limit holds, who shares one, what a pool has used. Pure."""

from collections.abc import Iterable, Sequence

import msgspec

from oneweb_bridge.decode.values import Unparseable, parse_time
from oneweb_bridge.trends.forecast import Allowance
from oneweb_bridge.trends.usage_days import UsageDays, UsageReport


class Bucket(msgspec.Struct, frozen=True):
    """The members of a published usage bucket that a forecast needs; `ts` is when one of its values differed last."""

    bucket_id: str
    product_id: str | None = None
    product_name: str | None = None
    bucket_name: str | None = None
    is_shared: bool = False
    shared_allowance_id: str | None = None
    shared_allowance_name: str | None = None
    used_gb: float | None = None
    remaining_gb: float | None = None
    remaining_unlimited: bool = False
    entitlement_gb: float | None = None
    overage_blocks: int = 0
    valid_from: str | None = None
    valid_until: str | None = None
    entitlement_renew: str | None = None
    ts: int = 0


class ProductAllowance(msgspec.Struct, frozen=True):
    """The members of a published product that a forecast needs."""

    allowance_gb: float | None = None
    allowance_unlimited: bool = False
    overage_increment_gb: float | None = None


class Owner(msgspec.Struct, frozen=True, order=True):
    """Whose use is forecast: a bucket, or a pool of buckets that share an allowance."""

    kind: str
    id: str


class Member(msgspec.Struct, frozen=True):
    """A bucket, its newest effective date in ms, and its product as far as that is known."""

    bucket: Bucket
    ts: int
    product: ProductAllowance = ProductAllowance()


def owner_of(bucket: Bucket) -> Owner:
    """The pool of a shared bucket; a bucket that is not shared, or does not say with whom, is by itself."""
    if bucket.is_shared and bucket.shared_allowance_id is not None:
        return Owner("pool", bucket.shared_allowance_id)
    return Owner("bucket", bucket.bucket_id)


def subject_of(bucket: Bucket) -> Owner:
    """Who is alerted about, once: the pool, or the product with all of its buckets."""
    owner = owner_of(bucket)
    return Owner("product", bucket.product_id) if owner.kind == "bucket" and bucket.product_id is not None else owner


class Share(msgspec.Struct, frozen=True):
    """What the members of an owner have in common: use and limit in GB, and the bucket that shows it newest."""

    newest: Member
    used: float | None
    limit: float | None
    unlimited: bool


MAX_GB = 1e12


def valid_amount(amount: float | None) -> float | None:
    """An amount of data in GB; None of one that cannot be one, with which nothing is to be reckoned."""
    return amount if amount is not None and 0.0 <= amount <= MAX_GB else None


def share_of(members: Sequence[Member]) -> Share:
    """What the members of an owner say together; what concerns the pool is taken from the one that is newest."""
    newest = max(members, key=lambda member: (member.ts, member.bucket.bucket_id))
    bucket = newest.bucket
    unlimited, limit = _limit(newest, members)
    if not bucket.is_shared:
        return Share(newest, valid_amount(bucket.used_gb), limit, unlimited)
    return Share(newest, _pool_use(bucket, limit, members), limit, unlimited)


def _limit(newest: Member, members: Sequence[Member]) -> tuple[bool, float | None]:
    """Whether there is no limit, and the limit in GB; neither where none is known. A bucket goes before its product.

    An allowance of 0 is none that could be used up.
    """
    bucket = newest.bucket
    if bucket.remaining_unlimited:
        return True, None
    entitlement, used, remaining = (
        valid_amount(gb) for gb in (bucket.entitlement_gb, bucket.used_gb, bucket.remaining_gb)
    )
    if entitlement is not None:
        return False, entitlement or None
    if used is not None and remaining is not None:
        return False, used + remaining or None
    products = [member.product for member in members]
    if any(product.allowance_unlimited for product in products):
        return True, None
    # Products that share an allowance bring their parts of it.
    parts = [part for product in products if (part := valid_amount(product.allowance_gb)) is not None]
    return False, sum(parts) or None if len(parts) == len(products) else None


def _pool_use(bucket: Bucket, limit: float | None, members: Sequence[Member]) -> float | None:
    """What a pool has used: its limit without what remains, or where that is not known what its members used.

    A remaining amount of 0 says only that the limit was reached. Whether members show their own use or the pool's is
    not documented; what goes beyond the limit tells.
    """
    uses = [used for member in members if (used := valid_amount(member.bucket.used_gb)) is not None]
    remaining = valid_amount(bucket.remaining_gb)
    if limit is None or remaining is None:
        return sum(uses) if uses else None
    if remaining > 0.0 or not uses:
        return max(0.0, limit - remaining)
    largest = max(uses)
    return largest if largest >= limit else max(limit, sum(uses))


def report_of(share: Share) -> UsageReport | None:
    """The share as a report of its use; None where no use is known."""
    bucket = share.newest.bucket
    if share.used is None:
        return None
    cycle = bucket.valid_from or bucket.entitlement_renew or ""
    return UsageReport(share.newest.ts, share.used, cycle, share.limit)


def allowance_of(share: Share, members: Iterable[Member], days: UsageDays) -> Allowance:
    """The share as what is forecast, at its newest report. `days` is what is known of its use, that report included."""
    bucket, sizes = share.newest.bucket, [valid_amount(share.newest.product.overage_increment_gb)]
    blocks = bucket.overage_blocks
    for member in members:
        sizes.append(valid_amount(member.product.overage_increment_gb))
        blocks = max(blocks, member.bucket.overage_blocks)
    return Allowance(
        ts=max(share.newest.ts, days.ts),
        used=share.used,
        limit=share.limit,
        unlimited=share.unlimited,
        cycle_end=cycle_end(bucket),
        increment=next((size for size in sizes if size), None),
        blocks=blocks,
        reached=days.reached,
    )


_SECOND_MS = 1000
_LAST_SECOND = 253_402_300_799


def cycle_end(bucket: Bucket) -> int | None:
    """When the bill cycle ends, in ms. What ends in its last second before a minute is meant to end with the minute."""
    until = _time(bucket.valid_until)
    if until is None:
        return _time(bucket.entitlement_renew)
    second = until // _SECOND_MS
    # The last second of the year 9999 means no end, and nothing comes after it.
    return (second + 1) * _SECOND_MS if second % 60 == 59 and second < _LAST_SECOND else until


def _time(text: str | None) -> int | None:
    try:
        return parse_time(text)
    except Unparseable:
        return None
