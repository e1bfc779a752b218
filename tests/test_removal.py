"""When a record that the API does not list any more is removed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.config.schema import HoldAbove, Removal
from oneweb_bridge.polling.removal import MissingRecord, RemovalDecision, decide

RULE = Removal(after_missing=3, after_time=900.0, hold_above=HoldAbove(count=5, share=0.1), hold_for=86_400.0)
HOUR, DAY = 3_600_000, 86_400_000


def absent(count: int, missing: int = 3, since: int = 0) -> list[MissingRecord]:
    return [MissingRecord(f"T{i}", missing, since) for i in range(count)]


def decided(
    missing: list[MissingRecord],
    *,
    stored: int = 20,
    listed: int = 10,
    held_since: int = 0,
    released: bool = False,
    now: int = HOUR,
    needs_time: bool = True,
) -> RemovalDecision:
    return decide(
        RULE,
        missing,
        stored=stored,
        listed=listed,
        held_since=held_since,
        released=released,
        now=now,
        needs_time=needs_time,
    )


@pytest.mark.parametrize(
    ("missing", "since", "is_removed"),
    [(1, 0, False), (2, 0, False), (3, 0, True), (3, HOUR - 899_999, False), (3, HOUR - 900_000, True), (99, 0, True)],
)
def test_record_is_removed_after_some_listings_and_some_time(missing: int, since: int, is_removed: bool) -> None:
    """A record goes after `after_missing` complete listings without it AND `after_time` since it was first missed."""
    assert bool(decided(absent(1, missing, since)).removed) is is_removed


def test_usage_goes_by_listings_alone() -> None:
    """A usage bucket is cleared after so many complete listings, whatever the time between them."""
    assert decided(absent(1, 3, HOUR), needs_time=False).removed == ("T0",)
    assert decided(absent(1, 2, HOUR), needs_time=False).removed == ()


@pytest.mark.parametrize(
    ("count", "stored", "held"), [(5, 20, False), (6, 20, True), (10, 100, False), (11, 100, True)]
)
def test_many_removals_at_once_are_held(count: int, stored: int, held: bool) -> None:
    """More removals at once than the greater of count and share are held as a whole."""
    decision = decided(absent(count), stored=stored)
    assert (decision.held_because, len(decision.removed)) == (("many", 0) if held else ("", count))
    assert decision.held_since == (HOUR if held else 0)


def test_held_removals_go_after_a_time() -> None:
    """What is held keeps the time since when, and goes after `hold_for`."""
    first = decided(absent(9))
    later = decided(absent(9), held_since=first.held_since, now=HOUR + DAY - 1)
    assert (later.held_because, later.held_since) == ("many", HOUR)
    last = decided(absent(9), held_since=first.held_since, now=HOUR + DAY)
    assert (len(last.removed), last.held_since) == (9, 0)


def test_held_removals_go_at_once_when_released() -> None:
    """An operator's release lets many go at once."""
    assert len(decided(absent(9), released=True).removed) == 9


@given(st.integers(0, 10**13), st.integers(0, 10**13))
def test_empty_listing_is_never_let_go_by_time(held_since: int, now: int) -> None:
    """An empty listing after a non-empty one is held however long, and is not counted as missing anything."""
    decision = decided(absent(20), listed=0, held_since=held_since, now=now)
    assert (decision.held_because, decision.removed, decision.counts_as_missing) == ("empty", (), False)


def test_empty_listing_of_nothing_is_nothing() -> None:
    """An empty listing where nothing was known is complete and holds nothing."""
    assert decided([], stored=0, listed=0) == RemovalDecision()


def test_released_empty_listing_goes_at_once() -> None:
    """`release` lets the removals of an empty listing go at once, although such listings were never counted."""
    decision = decided(absent(20, missing=1, since=HOUR), listed=0, held_since=HOUR, released=True)
    assert len(decision.removed) == 20


def test_time_of_an_empty_listing_does_not_count_for_many() -> None:
    """Many removals are held for `hold_for` also when the listing was empty for long before."""
    held_since = 0
    for hour in range(1, 49):
        held_since = decided(absent(20, 3), listed=0, held_since=held_since, now=hour * HOUR).held_since
    assert decided(absent(19, 3), listed=1, held_since=held_since, now=49 * HOUR).held_because == "many"


def test_complete_listing_ends_the_hold() -> None:
    """A listing that shows everything again leaves nothing held."""
    assert decided([], held_since=HOUR) == RemovalDecision()


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2 * HOUR)), max_size=12),
    st.integers(0, 40),
    st.integers(0, 20),
    st.booleans(),
)
def test_only_what_is_due_goes_and_never_too_many(
    away: list[tuple[int, int]], more: int, listed: int, released: bool
) -> None:
    """Whatever is let go was missing long enough, and never more at once than the rule allows unreleased."""
    missing = [MissingRecord(f"T{i}", missing, since) for i, (missing, since) in enumerate(away)]
    stored = len(missing) + more
    decision = decided(missing, stored=stored, listed=listed, released=released, now=2 * HOUR)
    if not released:
        due = {a.id for a in missing if a.missing >= 3 and 2 * HOUR - a.since >= 900_000}
        assert set(decision.removed) <= due
        assert len(decision.removed) <= max(5, int(0.1 * stored))
        assert listed or not decision.removed
    assert set(decision.removed) <= {a.id for a in missing}
    assert not (decision.held_because and decision.removed)
