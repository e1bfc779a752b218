"""What a worker decides about its leases by itself; the server decides by the statements in `lease`. Pure."""

from collections.abc import Collection, Sequence

import msgspec

from oneweb_bridge.store.server import Fence

STOP_SHARE = 0.75
"""The share of a lease after which a worker stops by its own clock, unless it was renewed."""

AFTER_END_S = 0.01
"""Seconds after the end of a lease at which it is looked at."""


class Lease(msgspec.Struct, frozen=True):
    """A lease that is held; `until` is the monotonic time in seconds at which the worker stops unless it is renewed."""

    fence: Fence
    until: float


class Renewal(msgspec.Struct, frozen=True):
    """The leases that last longer now, and how many workers were seen within one lease, this one among them.

    They are those that share instances with this one. `wanted` is what the others would take.
    """

    leases: dict[str, Lease]
    workers: int
    wanted: frozenset[str] = frozenset()


def local_end(asked_at: float, lease: float) -> float:
    """When a worker stops whose lease of so many seconds was claimed or renewed, by its monotonic clock.

    Counted from before the question was sent, because the server's clock begins later.
    """
    return asked_at + lease * STOP_SHARE


def end_after_renewal(fence: Fence, renewed: Lease | None) -> float | None:
    """Until when a lease is held after the server has answered; None where it is lost.

    A renewal under another epoch is of a lease that was taken again since: what runs under this one has to end.
    """
    return None if renewed is None or renewed.fence != fence else renewed.until


def share_of(instances: int, workers: int) -> int:
    """How many of some instances one of several workers holds at most."""
    return -(-instances // max(1, workers))


def choose_to_give_up(held: Sequence[str], wanted: Collection[str], share: int) -> list[str]:
    """Which of the held instances, the newest of which is the last, others shall have now.

    What nobody else would take is kept beyond the share: it would be without a holder.
    """
    others = [instance for instance in held if instance in wanted]
    return others[max(0, len(others) - count_to_give_up(len(held), share)) :]


def count_to_give_up(held: int, share: int) -> int:
    """How many instances a worker gives up now that holds more than its share: a part of them at each renewal.

    Whoever takes them starts a bridge for each, so that they would be without a holder while it starts the others.
    """
    return -(-max(0, held - share) // 3)


def is_left_over(free_since: float, now: float, lease: float) -> bool:
    """Whether nobody took an instance for so long that it may be held beyond the share. Times in seconds."""
    return now - free_since > lease


def pause_until_look(left: float, interval: float) -> float:
    """Seconds until a worker looks again whether an instance is free: just after its lease would end, if that is soon.

    `left` are the seconds that the lease still lasts, 0 where nobody holds it. A holder that lives renews it before.
    """
    return min(interval, left + AFTER_END_S) if left > 0 else interval
