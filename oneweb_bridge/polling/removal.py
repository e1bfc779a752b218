"""Decides when a record missing from listings is removed, and when removals are held. Pure.

One listing without a record may be a glitch, so it takes several complete ones and some time. Many
records missing at once look like lost rights, so their removal is held until an operator releases it
or time is up; that of an empty listing after a non-empty one is held without end.
"""

from typing import Literal

import msgspec

from oneweb_bridge.config.schema import Removal


class MissingRecord(msgspec.Struct, frozen=True, gc=False):
    """A stored record that a complete listing did not have: in how many listings by now, and since when (steady ms)."""

    id: str
    missing: int
    since: int


class RemovalDecision(msgspec.Struct, frozen=True):
    """Either `removed` go, or, for the reason `held_because`, none go and the hold began at `held_since` (steady ms).

    `counts_as_missing`: whether this listing counts as one without the missing records.
    """

    held_because: Literal["", "many", "empty"] = ""
    removed: tuple[str, ...] = ()
    held_since: int = 0
    counts_as_missing: bool = True


def decide(
    rule: Removal,
    missing: list[MissingRecord],
    *,
    stored: int,
    listed: int,
    held_since: int,
    released: bool,
    now: int,
    needs_time: bool = True,
) -> RemovalDecision:
    """The decision on a complete listing of `listed` records where `stored` are stored. Times in steady ms.

    `needs_time` is false for usage buckets, which are removed by the number of listings alone.
    """
    if listed == 0 and stored > 0 and not released:
        return RemovalDecision(held_because="empty", held_since=now, counts_as_missing=False)
    if listed == 0 and released:
        return RemovalDecision(removed=tuple(record.id for record in missing))
    due = tuple(
        record.id
        for record in missing
        if record.missing >= rule.after_missing and (not needs_time or _is_missing_long_enough(rule, record, now))
    )
    hold_expired = held_since > 0 and now - held_since >= rule.hold_for * 1000
    if len(due) > max_at_once(rule, stored) and not released and not hold_expired:
        return RemovalDecision(held_because="many", held_since=held_since or now)
    return RemovalDecision(removed=due)


def max_at_once(rule: Removal, stored: int) -> int:
    """How many of the `stored` records may go at once without being held."""
    return max(rule.hold_above.count, int(rule.hold_above.share * stored))


def _is_missing_long_enough(rule: Removal, record: MissingRecord, now: int) -> bool:
    return now - record.since >= rule.after_time * 1000
