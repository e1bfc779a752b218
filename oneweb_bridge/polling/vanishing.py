"""When a value that the API does not give any more is gone. Pure.

A value that vanishes from one record is a change like any other. The same field vanishing from many
records at once looks like lost rights or a broken pipeline of the vendor, so the records keep it
until an operator or time lets it go, or the field returns. The thresholds are those of removals.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from oneweb_bridge.config.schema import Removal
from oneweb_bridge.model.records import Fields
from oneweb_bridge.polling.diff import POSITION
from oneweb_bridge.polling.removal import max_at_once

_OURS = frozenset(("time", "ts", "cycle_started"))
"""Fields that the bridge itself adds to a record."""

_NO_VALUE: tuple[None, str] = (None, "")
"""An empty text is published as it is, but where many come at once something is lost as with null."""

HeldFields = Mapping[str, int]
"""The fields whose values are held, each with the steady time in ms since when."""


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What of a call's fields matters here: those that never count, and those that belong to others."""

    volatile: frozenset[str] = frozenset()
    no_limit: Mapping[str, str] = {}
    """Field -> the flag that is true where the field is absent because there is no limit."""
    derived: Mapping[str, str] = {}
    """Field -> the field that is worked out from it."""


def vanished_fields(traits: Traits, before: Fields, after: Fields) -> list[str]:
    """The fields of a record that had a value and have none. A record without any field says nothing at all."""
    if not after:
        return []
    return [
        name
        for name in before.keys() - traits.volatile - _OURS
        if after.get(name) in _NO_VALUE
        and before[name] not in _NO_VALUE
        and after.get(traits.no_limit.get(name, "")) is not True
    ]


def count_vanished(traits: Traits, records: Iterable[tuple[Fields, Fields]]) -> Counter[str]:
    """From how many records each field vanished; of each record its fields before and after."""
    return Counter(name for before, after in records for name in vanished_fields(traits, before, after))


def decide(
    rule: Removal, vanished: Mapping[str, int], *, stored: int, held: HeldFields, released: bool, now: int
) -> dict[str, int]:
    """The fields to hold, of those that `vanished` from so many of the `stored` records. Times in steady ms."""
    limit = max_at_once(rule, stored)
    return {
        name: held.get(name, now)
        for name, count in vanished.items()
        if count > limit and not released and now - held.get(name, now) < rule.hold_for * 1000
    }


def keep_held(traits: Traits, before: Fields, after: Fields, held: HeldFields) -> Fields | None:
    """The fields of a record with the values that it keeps; None when there are none to keep."""
    kept = {name for name in vanished_fields(traits, before, after) if name in held}
    if not kept:
        return None
    # Half a position is none, and what is worked out from a field that is held is held with it.
    if kept & {"latitude", "longitude"}:
        kept.update(POSITION)
    kept.update(traits.derived[name] for name in kept & traits.derived.keys())
    return {
        **{name: value for name, value in after.items() if name not in kept},
        **{name: before[name] for name in before if name in kept},
    }
