"""What a listing notes of values that nobody could read."""

from oneweb_bridge.api.listing import Problems, UnreadableValues
from oneweb_bridge.model.records import DecodedRecord


def test_reason_is_that_of_the_record_that_is_named() -> None:
    """The sentence names one record and why its value could not be read, not another one's reason."""
    unreadable, problems, problems_again = UnreadableValues(), Problems(), Problems()
    for id, unit in (("a", "gb"), ("b", "furlong"), ("c", "ell")):
        unreadable.note(
            DecodedRecord("usage", id, {}, unparseable=("remaining_gb",), reasons=(f"got the unit {unit!r}",))
        )
    unreadable.add_to(problems, {"a", "b", "c"})
    assert (problems.values, problems.reasons) == ({"remaining_gb": 3}, {"remaining_gb": "a: got the unit 'gb'"})

    unreadable.note(DecodedRecord("usage", "a", {}))
    unreadable.note(DecodedRecord("usage", "b", {}, unparseable=("remaining_gb",), reasons=("got the unit 'mile'",)))
    unreadable.add_to(problems_again, {"a", "b", "c"})
    assert (problems_again.values, problems_again.reasons) == (
        {"remaining_gb": 2},
        {"remaining_gb": "b: got the unit 'mile'"},
    )
