"""What a listing changes: which events come of it, and that they tell the whole story of a record."""

import json
from collections.abc import Iterable
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Batch, DecodedRecord, Fields, StoredRecord
from oneweb_bridge.polling import diff
from oneweb_bridge.polling.diff import CompareRule, ListedRecord, compare, distance

HERE: dict[str, Any] = {"latitude": 60.0, "longitude": 10.0, "elevation_m": 5.0}
METRE = 1 / 111_195
"""One metre of latitude in degrees."""


def fresh(reading: DecodedRecord) -> ListedRecord:
    return ListedRecord(reading, b"k" * 16)


def terminal(id: str = "T", unparseable: tuple[str, ...] = (), **fields: Any) -> DecodedRecord:
    return DecodedRecord("terminal", id, {"imei": id, **fields}, unparseable)


def compare_one(
    rule: CompareRule, before: StoredRecord | None, reading: DecodedRecord, terminal_record: StoredRecord | None = None
) -> Batch:
    context = {reading.id: terminal_record} if terminal_record else {}
    return compare(rule, {reading.id: before} if before else {}, [fresh(reading)], context)


def stored(**fields: Any) -> StoredRecord:
    return StoredRecord(encode({"imei": "T", **fields}))


def bodies(batch: Batch) -> list[Any]:
    return [json.loads(entry.body) for entry in batch.entries]


TERMINALS = CompareRule(kind="terminal", volatile=frozenset({"last_seen"}), now=1000)

# --- records --------------------------------------------------------------------------------------


def test_new_record_is_added_with_its_record() -> None:
    """A record that was not there is added, stored with its hash, and its entry is the one that publishes it."""
    batch = compare_one(TERMINALS, None, terminal(state="online"))
    (entry,), (put,) = batch.entries, batch.writes
    assert (entry.entity, entry.id, entry.what, entry.ts) == ("terminal", "T", "added", 1000)
    assert json.loads(entry.body) == {"record": {"imei": "T", "state": "online"}, "initial": False}
    assert (json.loads(put.doc), put.hash, put.entry) == ({"imei": "T", "state": "online"}, b"k" * 16, 0)


def test_first_listing_is_initial_and_a_new_mapping_is_remapped() -> None:
    """`initial` and `remapped` of the rule stand in every event of the listing."""
    rule = CompareRule(kind="terminal", initial=True)
    assert bodies(compare_one(rule, None, terminal()))[0]["initial"] is True
    remapped = CompareRule(kind="terminal", remapped=True)
    assert bodies(compare_one(remapped, stored(), terminal(name="n")))[0]["remapped"] is True
    assert "remapped" not in bodies(compare_one(rule, None, terminal()))[0]


def test_change_names_from_and_to_and_carries_the_record_after() -> None:
    """A change names each field that differs, with null for absent, and the whole record after."""
    batch = compare_one(
        TERMINALS, stored(state="online", name="old", gone=1.0), terminal(state="offline", name="old", new="x")
    )
    (body,) = bodies(batch)
    assert body == {
        "changed": {
            "state": {"from": "online", "to": "offline"},
            "new": {"from": None, "to": "x"},
            "gone": {"from": 1.0, "to": None},
        },
        "record": {"imei": "T", "state": "offline", "name": "old", "new": "x"},
        "initial": False,
    }
    assert batch.entries[0].what == "changed"


def test_volatile_field_causes_nothing() -> None:
    """A record that differs in volatile fields alone is the same: no entry, no put, only a new hash."""
    batch = compare_one(TERMINALS, stored(last_seen="a"), terminal(last_seen="b"))
    assert (batch.entries, batch.writes) == ([], [])
    assert batch.unchanged == [(b"k" * 16, "terminal", "T")]


def test_volatile_field_goes_with_the_next_event_outside_the_chain() -> None:
    """A volatile field is published as of the record's last event, and never named in `changed`."""
    (body,) = bodies(compare_one(TERMINALS, stored(last_seen="a", state="x"), terminal(last_seen="b", state="y")))
    assert list(body["changed"]) == ["state"]
    assert body["record"]["last_seen"] == "b"


def test_unreadable_field_is_not_known_any_more() -> None:
    """What nobody could read is absent, and that is a change like any other: the old value is not kept in silence."""
    (body,) = bodies(
        compare_one(TERMINALS, stored(state="online", name="n"), terminal(unparseable=("state",), name="n"))
    )
    assert body["changed"] == {"state": {"from": "online", "to": None}}
    assert body["record"] == {"imei": "T", "name": "n"}


def test_set_in_another_order_is_the_same() -> None:
    """A list whose order means nothing causes no event when only its order differs, and keeps the announced one."""
    rule = msgspec.structs.replace(TERMINALS, unordered=frozenset({"product_ids"}))
    before = stored(product_ids=["b", "a"], state="x")
    assert compare_one(rule, before, terminal(product_ids=["a", "b"], state="x")).entries == []
    (body,) = bodies(compare_one(rule, before, terminal(product_ids=["a", "b"], state="y")))
    assert list(body["changed"]) == ["state"]
    assert body["record"]["product_ids"] == ["b", "a"]
    (body,) = bodies(compare_one(rule, before, terminal(product_ids=["a", "c"], state="x")))
    assert body["changed"] == {"product_ids": {"from": ["b", "a"], "to": ["a", "c"]}}


@pytest.mark.parametrize(("metres", "announced"), [(0, False), (99, False), (101, True), (5000, True)])
def test_position_is_announced_beyond_the_threshold(metres: float, announced: bool) -> None:
    """A position causes an event only when it is more than `location_threshold` from the last announced one."""
    near = HERE | {"latitude": 60.0 + metres * METRE}
    batch = compare_one(TERMINALS, stored(**HERE), terminal(**near))
    assert bool(batch.entries) is announced


def test_creeping_position_is_announced_against_the_last_announced_one() -> None:
    """Many small steps are announced once they add up: the comparison is with what was announced last."""
    known, events = stored(**HERE), 0
    for step in range(1, 31):
        batch = compare_one(TERMINALS, known, terminal(**(HERE | {"latitude": 60.0 + 12 * step * METRE})))
        events += len(batch.entries)
        known = StoredRecord(batch.writes[0].doc) if batch.writes else known
    assert events == 3


def test_small_move_is_not_published_with_another_change() -> None:
    """The position in the published record changes only together with its own event."""
    near = HERE | {"latitude": 60.0 + 50 * METRE}
    (body,) = bodies(compare_one(TERMINALS, stored(**HERE, state="online"), terminal(**near, state="offline")))
    assert list(body["changed"]) == ["state"]
    assert body["record"]["latitude"] == 60.0


def test_position_that_comes_or_goes_is_a_change() -> None:
    """A position that was not there, or is not any more, is announced at any distance."""
    assert compare_one(TERMINALS, stored(), terminal(**HERE)).entries
    assert compare_one(TERMINALS, stored(**HERE), terminal()).entries
    assert compare_one(TERMINALS, stored(**HERE), terminal(latitude=60.0, longitude=10.0)).entries


def test_height_counts_for_the_threshold() -> None:
    """A terminal that rises by more than the threshold has moved."""
    assert not compare_one(TERMINALS, stored(**HERE), terminal(**(HERE | {"elevation_m": 100.0}))).entries
    assert compare_one(TERMINALS, stored(**HERE), terminal(**(HERE | {"elevation_m": 106.0}))).entries


@pytest.mark.parametrize(
    ("one_place", "other", "expected"),
    [
        ((0.0, 0.0), (0.0, 1.0), 111_195),
        ((0.0, 179.9), (0.0, -179.9), 22_239),
        ((90.0, 0.0), (90.0, 120.0), 0),
        ((90.0, 0.0), (-90.0, 0.0), 20_015_115),
    ],
)
def test_distance_is_the_great_circle(
    one_place: tuple[float, float], other: tuple[float, float], expected: float
) -> None:
    """Distances are right across the date line, at the poles and to the antipode."""
    first, second = ({"latitude": lat, "longitude": lon} for lat, lon in (one_place, other))
    assert expected == pytest.approx(distance(dict(first), dict(second)), abs=2)


# --- the whole story ------------------------------------------------------------------------------

WORDS = st.sampled_from(["a", "b", "c"])
PLACES = st.fixed_dictionaries(
    {},
    optional={
        "latitude": st.sampled_from([60.0, 60.0005, 60.0012, 61.0, -90.0]),
        "longitude": st.sampled_from([10.0, 10.0009, 180.0, -180.0]),
        "elevation_m": st.sampled_from([5.0, 50.0, 500.0]),
    },
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "state": WORDS,
        "name": WORDS,
        "last_seen": WORDS,
        "start_time": WORDS,
        "product_ids": st.lists(WORDS, max_size=2),
    },
)
READINGS = st.tuples(
    VALUES, PLACES, st.sets(st.sampled_from(["state", "latitude", "name", "last_seen", "product_ids"]), max_size=2)
)


def story(versions: Iterable[tuple[Fields, Fields, set[str]]]) -> tuple[list[Any], Fields]:
    """All events of one terminal, and its stored record at the end."""
    events: list[Any] = []
    known: StoredRecord | None = None
    for values, place, unparseable in versions:
        shown: Any = {name: value for name, value in (values | place).items() if name not in unparseable}
        batch = compare_one(TERMINALS, known, terminal(unparseable=tuple(sorted(unparseable)), **shown))
        events += zip([entry.what for entry in batch.entries], bodies(batch), strict=True)
        for put in batch.writes:
            assert put.entry == 0
            known = StoredRecord(put.doc)
    return events, diff.fields_of(known)


@hypothesis.settings(max_examples=300)
@given(st.lists(READINGS, min_size=1, max_size=12))
def test_events_replayed_give_the_record(versions: list[tuple[Fields, Fields, set[str]]]) -> None:
    """`from` equals the `to` before it, and the events of a record, replayed, give its retained record."""
    events, final = story(versions)
    (first, added), rest = events[0], events[1:]
    assert first == "added"
    replayed: Fields = dict(added["record"])
    for what, event in rest:
        assert what == "changed"
        assert event["changed"]
        assert "last_seen" not in event["changed"]
        for name, change in event["changed"].items():
            assert change["from"] != change["to"]
            assert replayed.get(name) == change["from"]
            replayed.pop(name, None)
            if change["to"] is not None:
                replayed[name] = change["to"]
        kept_fields = {name: value for name, value in event["record"].items() if name != "last_seen"}
        assert kept_fields == {name: value for name, value in replayed.items() if name != "last_seen"}
    assert events[-1][1]["record"] == final


@given(st.lists(READINGS, min_size=1, max_size=8))
def test_repeated_listing_says_nothing_new(versions: list[tuple[Fields, Fields, set[str]]]) -> None:
    """The same reading a second time causes no event, whatever came before."""
    twice = [reading for reading in versions for _ in range(2)]
    assert story(versions)[0] == story(twice)[0]


# --- relations that have to be worked out again ---------------------------------------------------


def test_change_of_a_terminal_touches_its_relations_and_links() -> None:
    """A terminal that changed says which products it has, and its relations are stale."""
    batch = compare_one(TERMINALS, None, terminal(product_ids=["P1", "P2"]))
    assert batch.stale_relations == ["T"]
    assert batch.product_links == [("terminal", "T", (("P1", "T"), ("P2", "T")))]


JOINED = {
    "terminal": ("site_id", "party_id", "party_name", "end_customer_id", "end_customer_name"),
    "product": (
        "site_id",
        "distribution_partner_id",
        "distribution_partner_name",
        "end_customer_id",
        "end_customer_name",
    ),
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in JOINED.items() for name in names])
def test_relations_are_stale_when_what_they_are_made_of_changes(kind: Any, name: str) -> None:
    """Each field that relations have makes them stale; one that they do not have leaves them alone."""
    rule = CompareRule(kind=kind, volatile=frozenset(), now=1000)
    same = {"imei": "T", "name": "a"}
    before = StoredRecord(encode({**same, name: "old"}))
    assert compare_one(rule, before, DecodedRecord(kind, "X", {**same, name: "new"})).stale_relations
    assert compare_one(rule, before, DecodedRecord(kind, "X", dict(same))).stale_relations
    renamed = compare_one(rule, before, DecodedRecord(kind, "X", {"imei": "T", "name": "b", name: "old"}))
    assert (renamed.stale_relations, renamed.product_links, len(renamed.writes)) == ([], [], 1)


def test_product_that_moves_touches_both_terminals() -> None:
    """A product that goes to another terminal makes the relations of the old and the new one stale."""
    rule = CompareRule(kind="product")
    before = StoredRecord(encode({"product_id": "P", "imei": "T1"}))
    batch = compare_one(rule, before, DecodedRecord("product", "P", {"product_id": "P", "imei": "T2"}))
    assert batch.stale_relations == ["T1", "T2"]
    assert batch.product_links == [("product", "P", (("P", "T2"),))]
    batch = compare_one(rule, before, DecodedRecord("product", "P", {"product_id": "P"}))
    assert (batch.stale_relations, batch.product_links) == (["T1"], [("product", "P", ())])


@pytest.mark.parametrize("kind", ["site", "organization"])
def test_new_name_touches_all_relations(kind: Any) -> None:
    """A site or organization with another name makes every relation stale; another change of it does not."""
    rule, before = CompareRule(kind=kind), StoredRecord(encode({"name": "a", "status": "x"}))
    assert compare_one(rule, before, DecodedRecord(kind, "S", {"name": "b", "status": "x"})).all_stale
    assert not compare_one(rule, before, DecodedRecord(kind, "S", {"name": "a", "status": "y"})).all_stale


# --- components -----------------------------------------------------------------------------------

COMPONENTS = CompareRule(kind="components", now=1000)


def parts(**versions: str) -> DecodedRecord:
    return DecodedRecord("components", "T", {f"main/{name}": version for name, version in versions.items()})


def test_first_component_list_is_no_event() -> None:
    """The first component list of a terminal is published without an event."""
    batch = compare_one(COMPONENTS, None, parts(UT="1"))
    assert bodies(batch) == [{"components": {"main/UT": "1"}}]
    assert batch.writes[0].entry == 0


def test_change_of_components_is_named_per_component() -> None:
    """A change of firmware is an event of the terminal, with its record, named per component."""
    known = StoredRecord(encode({"main/UT": "1", "main/SSM": "1"}))
    batch = compare_one(COMPONENTS, known, parts(UT="2", MDM="7"), stored(state="online"))
    (body,) = bodies(batch)
    assert (batch.entries[0].entity, batch.entries[0].what) == ("terminal", "components")
    assert body == {
        "components": {"main/UT": "2", "main/MDM": "7"},
        "changed": {
            "components.main/UT": {"from": "1", "to": "2"},
            "components.main/MDM": {"from": None, "to": "7"},
            "components.main/SSM": {"from": "1", "to": None},
        },
        "record": {"imei": "T", "state": "online"},
        "initial": False,
    }


def test_empty_component_list_removes_nothing() -> None:
    """An empty list means that the API does not know, so what is known stays."""
    batch = compare_one(COMPONENTS, StoredRecord(encode({"main/UT": "1"})), parts())
    assert (batch.entries, batch.writes) == ([], [])
    assert compare_one(COMPONENTS, None, parts()) == Batch()


@given(st.lists(st.dictionaries(st.sampled_from("AB"), WORDS), max_size=8))
def test_component_events_replayed_give_the_components(lists: list[dict[str, str]]) -> None:
    """The events of the components, replayed over the first list, give the retained components."""
    known: StoredRecord | None = None
    replayed: dict[str, object] | None = None
    for versions in lists:
        batch = compare_one(COMPONENTS, known, parts(**versions))
        for body in bodies(batch):
            if "changed" not in body:
                assert replayed is None
                replayed = dict(body["components"])
            else:
                assert replayed is not None
                for name, change in body["changed"].items():
                    part = name.removeprefix("components.")
                    assert replayed.pop(part, None) == change["from"]
                    if change["to"] is not None:
                        replayed[part] = change["to"]
        known = StoredRecord(batch.writes[0].doc) if batch.writes else known
    assert (replayed or {}) == diff.fields_of(known)


# --- usage ----------------------------------------------------------------------------------------

USAGE = CompareRule(kind="usage", volatile=frozenset({"effective_date"}), now=5_000)


def bucket(**fields: Any) -> DecodedRecord:
    return DecodedRecord("usage", "B", {"bucket_id": "B", **fields})


def test_usage_is_published_with_the_effective_time() -> None:
    """A bucket is a sample whose time is the report's effective date, or the poll's where there is none."""
    batch = compare_one(USAGE, None, bucket(product_id="P", used_gb=1.0, effective_date="2025-06-17T14:15:00Z"))
    (entry,), (body,) = batch.entries, bodies(batch)
    assert (entry.entity, entry.id, entry.what, entry.name, entry.ts) == ("product", "P", "usage", "B", 1750169700000)
    assert (body["time"], body["ts"]) == ("2025-06-17T14:15:00.000Z", 1750169700000)
    (entry,) = compare_one(USAGE, None, bucket()).entries
    assert (entry.entity, entry.id, entry.name, entry.ts) == ("usage", "B", "", 5000)


@pytest.mark.parametrize(
    ("change", "products"),
    [
        ({"used_gb": 4.0}, []),
        ({"entitlement_gb": 20.0}, []),
        ({"entitlement_gb": 0.0}, [("product", "P")]),
        ({"overage_blocks": 1}, [("product", "P")]),
        ({"bucket_name": "New"}, [("product", "P")]),
        ({"product_id": "Q"}, [("product", "Q")]),
    ],
)
def test_usage_tells_which_products_have_other_values(change: Fields, products: list[tuple[str, str]]) -> None:
    """Amounts that move are no other values; a value that comes, a name, or another product is."""
    known: Fields = {"product_id": "P", "bucket_name": "Data", "used_gb": 3.0, "entitlement_gb": 10.0}
    first = diff.compare(USAGE, {}, [fresh(bucket(**known))], {})
    stored = {"B": StoredRecord(first.writes[0].doc)}

    assert first.dirty_devices == [("product", "P")]
    assert diff.compare(USAGE, stored, [fresh(bucket(**{**known, **change}))], {}).dirty_devices == products


def test_usage_goes_out_again_only_when_a_value_differs() -> None:
    """A later effective date alone is no news; a changed value is, and is no event."""
    before = compare_one(USAGE, None, bucket(used_gb=1.0, effective_date="2025-06-17T14:15:00Z")).writes[0].doc
    same = compare_one(USAGE, StoredRecord(before), bucket(used_gb=1.0, effective_date="2025-06-17T14:45:00Z"))
    assert (same.entries, len(same.unchanged)) == ([], 1)
    other = compare_one(USAGE, StoredRecord(before), bucket(used_gb=1.5, effective_date="2025-06-17T14:45:00Z"))
    assert [entry.what for entry in other.entries] == ["usage"]


@pytest.mark.parametrize("name", ["valid_from", "entitlement_renew"])
def test_first_sample_of_a_cycle_says_so_once(name: str) -> None:
    """The first sample of a later bill cycle carries `cycle_started`; the next one, and a correction, do not."""
    first = compare_one(USAGE, None, bucket(used_gb=9.0, **{name: "2025-06-01T00:00:00Z"}))
    second = compare_one(
        USAGE, StoredRecord(first.writes[0].doc), bucket(used_gb=0.1, **{name: "2025-07-01T00:00:00Z"})
    )
    third = compare_one(
        USAGE, StoredRecord(second.writes[0].doc), bucket(used_gb=0.2, **{name: "2025-07-01T00:00:00Z"})
    )
    back = compare_one(USAGE, StoredRecord(third.writes[0].doc), bucket(used_gb=9.0, **{name: "2025-06-01T00:00:00Z"}))
    assert [b.get("cycle_started") for batch in (first, second, third, back) for b in bodies(batch)] == [
        None,
        True,
        None,
        None,
    ]


def test_bucket_that_moves_is_cleared_at_its_old_product() -> None:
    """A bucket that moved to another product is cleared there first, and then published at the new one."""
    before = compare_one(USAGE, None, bucket(product_id="P1")).writes[0].doc
    batch = compare_one(USAGE, StoredRecord(before), bucket(product_id="P2"))
    assert [(e.entity, e.id, e.what, e.name) for e in batch.entries] == [
        ("product", "P1", "clear", "B"),
        ("product", "P2", "usage", "B"),
    ]
    assert batch.writes[0].entry == 1
    batch = compare_one(USAGE, StoredRecord(before), bucket())
    assert [(e.entity, e.id, e.what) for e in batch.entries] == [("product", "P1", "clear"), ("usage", "B", "usage")]


# --- removal --------------------------------------------------------------------------------------


def test_removal_says_the_last_that_was_known() -> None:
    """A removed record's event has the last known record and names the topics that are cleared after it."""
    batch = diff.remove("terminal", {"T": stored(state="x")}, {"T": ["state", "metric/traffic"]}, 7)
    assert batch.removed == [("terminal", "T")]
    assert (batch.entries[0].what, batch.entries[0].ts) == ("removed", 7)
    assert bodies(batch) == [{"record": {"imei": "T", "state": "x"}, "clears": ["state", "metric/traffic"]}]
    assert (batch.product_links, batch.stale_relations) == ([("terminal", "T", ())], [])
    assert bodies(diff.remove("site", {"S": stored()}, {}, 7, remapped=True))[0]["remapped"] is True


def test_removed_bucket_is_cleared_without_an_event() -> None:
    """A usage bucket that is gone clears its topic, and there is no event."""
    known = StoredRecord(encode({"bucket_id": "B", "product_id": "P"}))
    batch = diff.remove("usage", {"B": known}, {}, 7)
    assert [(e.entity, e.id, e.what, e.name) for e in batch.entries] == [("product", "P", "clear", "B")]


def test_removed_product_touches_its_terminal() -> None:
    """The terminal of a removed product has its relations worked out again, without that product."""
    batch = diff.remove("product", {"P": StoredRecord(encode({"product_id": "P", "imei": "T"}))}, {}, 7)
    assert (batch.stale_relations, batch.product_links) == (["T"], [("product", "P", ())])


def test_batches_joined_keep_their_entries() -> None:
    """A batch put behind another one still points at its own entries."""
    first, second = compare_one(TERMINALS, None, terminal("A")), compare_one(TERMINALS, None, terminal("B"))
    first.extend(second)
    assert [first.entries[put.entry or 0].id for put in first.writes] == [put.id for put in first.writes] == ["A", "B"]
