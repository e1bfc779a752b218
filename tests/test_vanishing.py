"""When a value that many records have lost at once is let go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.config.schema import HoldAbove, Removal
from oneweb_bridge.model.records import Fields
from oneweb_bridge.polling.vanishing import Traits, count_vanished, decide, keep_held, vanished_fields

RULE = Removal(hold_above=HoldAbove(count=5, share=0.1), hold_for=86_400.0)
HOUR, DAY = 3_600_000, 86_400_000
TRAITS = Traits(
    volatile=frozenset({"last_seen"}),
    no_limit={"allowance_gb": "allowance_unlimited"},
    derived={"parent_id": "kind"},
)


@pytest.mark.parametrize(
    ("before", "after", "vanished"),
    [
        ({"imei": "1", "state": "online"}, {"imei": "1"}, {"state"}),
        ({"imei": "1", "last_seen": "x", "ts": 1, "time": "x", "cycle_started": True}, {"imei": "1"}, set()),
        ({"id": "1", "allowance_gb": 3.0}, {"id": "1", "allowance_unlimited": True}, set()),
        (
            {"id": "1", "allowance_gb": 3.0, "allowance_unlimited": False},
            {"id": "1"},
            {"allowance_gb", "allowance_unlimited"},
        ),
        (
            {"imei": "1", "name": "a", "product_ids": ["P"]},
            {"imei": "1", "name": "", "product_ids": []},
            {"name"},
        ),
        ({"imei": "1", "name": ""}, {"imei": "1"}, set()),
        ({"imei": "1", "flag": True, "rate_bps": 5}, {"imei": "1", "flag": False, "rate_bps": 0}, set()),
        ({"main/UT": "1"}, {}, set()),
        ({}, {"imei": "1"}, set()),
    ],
)
def test_value_has_vanished_where_there_was_one(before: Fields, after: Fields, vanished: set[str]) -> None:
    """A field counts that had a value and has none; not a volatile one, one of ours, or one that became unlimited."""
    assert set(vanished_fields(TRAITS, before, after)) == vanished


@pytest.mark.parametrize(
    ("count", "stored", "held"), [(5, 20, False), (6, 20, True), (10, 100, False), (11, 100, True)]
)
def test_field_is_held_above_the_thresholds_of_removals(count: int, stored: int, held: bool) -> None:
    """More than the greater of count and share; another field that vanished from few records is not held."""
    decision = decide(RULE, {"state": count, "name": 1}, stored=stored, held={}, released=False, now=HOUR)
    assert decision == ({"state": HOUR} if held else {})


def test_each_field_is_held_for_its_own_time() -> None:
    """A field that vanished a day later is held a day longer; a release lets all go."""
    counts = {"state": 9, "name": 9}
    assert decide(RULE, counts, stored=20, held={"state": HOUR}, released=False, now=HOUR + DAY) == {"name": HOUR + DAY}
    assert decide(RULE, counts, stored=20, held={"state": HOUR}, released=True, now=HOUR + 1) == {}


def test_what_belongs_together_is_held_together() -> None:
    """Half a position is none, and what is worked out from a held field is held with it."""
    before: Fields = {"id": "1", "latitude": 1.0, "longitude": 2.0, "parent_id": "P", "kind": "end_customer"}
    after: Fields = {"id": "1", "latitude": 5.0, "elevation_m": 7.0, "kind": "distribution_partner", "name": "new"}
    held = {"longitude": 1, "parent_id": 1}
    assert keep_held(TRAITS, before, after, held) == {**before, "name": "new"}
    assert keep_held(TRAITS, before, before, held) is None


FIELDS = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.text(max_size=2))


@given(st.lists(st.tuples(FIELDS, FIELDS), max_size=30), st.integers(0, 60))
def test_no_field_vanishes_from_more_records_than_may(pairs: list[tuple[Fields, Fields]], more: int) -> None:
    """Whatever a listing says, after the hold no field is lost by more records than the rule lets go at once."""
    stored = len(pairs) + more
    held = decide(RULE, count_vanished(TRAITS, pairs), stored=stored, held={}, released=False, now=1)
    kept = [(before, keep_held(TRAITS, before, after, held) or after) for before, after in pairs]
    assert all(count <= max(5, int(0.1 * stored)) for count in count_vanished(TRAITS, kept).values())
