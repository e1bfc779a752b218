"""When a record that the API does not show any more is gone. Pure.

One listing without a record may be a glitch, so it takes several complete ones and some time. Many
records gone at once look like lost rights, so they are held until an operator or time lets them go;
an empty listing after a non-empty one is held without end.
"""

from typing import Literal

import msgspec

from oneweb_bridge.config.schema import Removal


class MissingRecord(msgspec.Struct, frozen=True, gc=False):
    """A stored record that a complete listing did not have: how often by now, and since when (steady ms)."""

    id: str
    missing: int
    since: int


class RemovalDecision(msgspec.Struct, frozen=True):
    """What happens to the absent: `count` their absence, let `gone` go, hold the rest since `held_since`."""

    held: Literal["", "many", "empty"] = ""
    gone: tuple[str, ...] = ()
    held_since: int = 0
    count: bool = True


def decide(
    rule: Removal,
    absent: list[MissingRecord],
    *,
    stored: int,
    listed: int,
    held_since: int,
    released: bool,
    now: int,
    timed: bool = True,
) -> RemovalDecision:
    """The verdict on a complete listing of `listed` records, of which `stored` were known.

    `timed` is false for usage buckets, which go by the number of listings alone. Times in steady ms.
    """
    if listed == 0 and stored > 0 and not released:
        return RemovalDecision(held="empty", held_since=now, count=False)
    if listed == 0 and released:
        return RemovalDecision(gone=tuple(a.id for a in absent))
    due = tuple(
        a.id for a in absent if a.missing >= rule.after_missing and _is_missing_long_enough(rule, a, now, timed=timed)
    )
    waited = held_since > 0 and now - held_since >= rule.hold_for * 1000
    if len(due) > max_at_once(rule, stored) and not released and not waited:
        return RemovalDecision(held="many", held_since=held_since or now)
    return RemovalDecision(gone=due)


def max_at_once(rule: Removal, stored: int) -> int:
    """How many of the `stored` records may go at once without being held."""
    return max(rule.hold_above.count, int(rule.hold_above.share * stored))


def _is_missing_long_enough(rule: Removal, absent: MissingRecord, now: int, *, timed: bool) -> bool:
    return not timed or now - absent.since >= rule.after_time * 1000
