"""Looking at records without decoding them: nothing that matters is overlooked, and nothing is looked at twice."""

import json
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.api import listing
from oneweb_bridge.api.listing import ListingPage, PageCache, RecordListing, SkippableHashes
from oneweb_bridge.decode import record_hashes
from oneweb_bridge.decode.bounds import Bounds
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.decode.record_hashes import Salt
from tests.test_decode import POLLING

TERMINALS = record_hashes.record_hasher(POLLING["user_terminals"])


def body(*records: Any) -> bytes:
    return json.dumps(records).encode()


def test_hash_depends_on_the_mapping_the_key_and_the_parts() -> None:
    """Under another mapping the same record hashes differently, so that a corrected path takes effect at once."""
    assert Salt.of("a").hash("k", [b"x"]) == Salt.of("a").hash("k", [msgspec.Raw(b"x")])
    others = [Salt.of("b").hash("k", [b"x"]), Salt.of("a").hash("l", [b"x"]), Salt.of("a").hash("k", [b"y"])]
    assert len({Salt.of("a").hash("k", [b"x"]), *others, Salt.of("a").hash("k", [b"x", b""])}) == 5
    assert len(others[0]) == 16


@hypothesis.settings(max_examples=60)
@given(st.sampled_from(sorted(CALLS)), st.lists(st.dictionaries(st.sampled_from(["id", "name", "x"]), st.text())))
def test_hashing_a_whole_page_equals_hashing_each_record(call: str, records: list[dict[str, str]]) -> None:
    """The quick way and the long way give the same keys and the same parts, or the quick one gives up."""
    seen = record_hashes.record_hasher(POLLING[call])
    whole, salt = seen.hash_page(body(*records), Salt.of("a")), Salt.of("a")
    if whole is not None:
        raws = [msgspec.Raw(json.dumps(record).encode()) for record in records]
        keys = [seen.key(raw) for raw in raws]
        assert whole == (keys, salt.hashes(keys, seen.hashed_members(raws)))


def test_page_with_an_odd_key_is_looked_at_record_by_record() -> None:
    """A key that is no plain text, or none at all, is for the long way, which counts what it cannot read."""
    plain = {"id": "1", "resourceState": "online"}
    assert TERMINALS.hash_page(body(plain, {"id": "2"}), Salt.of("a")) is not None
    for unreadable in ({"id": 3}, {"id": ""}, {"id": "é"}, {"id": None}, {}, 7):
        assert TERMINALS.hash_page(body(plain, unreadable), Salt.of("a")) is None
    assert TERMINALS.hash_page(b'{"id": "1"}', Salt.of("a")) is None
    assert TERMINALS.hash_page(b'[{"id": "1"}', Salt.of("a")) is None


def page(*ids: str, hashes: list[bytes] | None = None) -> ListingPage:
    page = body(*({"id": id} for id in ids))
    return ListingPage(
        list(ids), hashes or [id.encode() for id in ids], 0, None, body=page, digest=listing.digest(page)
    )


def test_page_is_cached_only_when_none_of_its_records_must_be_decoded() -> None:
    """One record that must be decoded, or that was listed before, and the whole page is read the next time."""
    skippable = SkippableHashes({b"a", b"b"}, since=10, until=20)
    for shown, rows in ((page("a", "b"), 0), (page("a", "c"), 1), (page("a", "a"), 0)):
        listing = RecordListing(Bounds(1 << 62))
        assert len(listing.records_to_decode(shown, skippable)) == rows
        cached = listing.cache.ids(shown.digest, 15)
        assert cached == (["a", "b"] if shown.ids == ["a", "b"] else None)


def test_cached_page_expires() -> None:
    """It is not used when a presence is due again or the clock went back, and being used does not make it last."""
    earlier, shown = PageCache(), page("a", "b")
    earlier.remember_page(shown, 10, 20)
    assert [earlier.ids(shown.digest, now) for now in (9, 10, 19, 20)] == [None, ["a", "b"], ["a", "b"], None]
    listing_again = RecordListing(Bounds(1 << 62))
    listing_again.add_cached_page(shown, earlier)
    assert (listing_again.listed_and_stored, listing_again.ids, listing_again.cache.validity(shown.digest)) == (
        2,
        {"a", "b"},
        (10, 20),
    )


@pytest.mark.parametrize("state", ["resource_state", "ResourceState", "resource-state"])
def test_what_is_hashed_follows_the_names_of_the_answer(state: str) -> None:
    """A state in snake_case is hashed too, in one piece and record by record; else its change would not be noticed."""
    id = "Id" if state[0].isupper() else "id"
    before, after = ({id: "1", state: "online"}, {id: "1", state: "offline"})
    hasher, salt = record_hashes.record_hasher(POLLING["user_terminals"]), Salt.of("a")
    whole = [hasher.hash_page(body(record), salt) for record in (before, after)]
    assert whole[0] is not None
    assert whole[0] != whole[1]
    raws = [msgspec.Raw(json.dumps(record).encode()) for record in (before, after)]
    assert [salt.hashes(["1"], hasher.hashed_members([raw])) for raw in raws] == [entry[1] for entry in whole if entry]
    assert {hasher.key(raw) for raw in raws} == {"1"}


@pytest.mark.parametrize(("member", "is_shown"), [("name", False), ("last_seen_date", True)])
def test_a_first_record_that_shows_no_style_hides_no_change(member: str, *, is_shown: bool) -> None:
    """Where the first record has names of one word alone, the others may write theirs in any style."""
    hasher, salt, first = record_hashes.record_hasher(POLLING["user_terminals"]), Salt.of("a"), {"id": "1", member: "x"}
    hashes = []
    for state in ("online", "offline"):
        records = [first, {"id": "2", "resource_state": state}]
        assert (hasher.hash_page(body(*records), salt) is not None) is is_shown
        raws = [msgspec.Raw(json.dumps(record).encode()) for record in records]
        hashes.append(salt.hashes(["1", "2"], hasher.hashed_members(raws)))
    assert hashes[0][0] == hashes[1][0]
    assert hashes[0][1] != hashes[1][1]
