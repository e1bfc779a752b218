"""The language of paths: where a value stands, what counts as a match, and that no JSON makes it fail."""

from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.config.read import parse
from oneweb_bridge.decode.paths import (
    MAX_MEMBERS,
    BadPath,
    compile_path,
    compile_paths,
    fold_name,
    top_member,
    written_names,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "name", "value", "place", "role", "product", "x"]) | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)

PARTIES = {
    "relatedParty": [
        {"role": "Distribution Partner", "id": "ACC-101"},
        {"role": "end_customer", "level": "global", "id": "ACC-201"},
        {"role": "End Customer", "level": "product", "id": "ACC-202"},
    ]
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("name", "n"),
        ("$.name", "n"),
        ("place.id", "S1"),
        ("place.deeper.still", 7),
        ("list[0].id", "a"),
        ("list[1].id", "b"),
        ("list[2].id", None),
        ("list[1:].id", ["b"]),
        ("list[2:].id", None),
        ('["@odata.nextLink"]', "next"),
        ('["@odata.nextLink"].id', None),
        ("nested[0][1]", 2),
        ("$[0].name", "n"),
        ("place.nothing.here", None),
        ("name.id", None),
    ],
)
def test_path_gives_the_value_that_stands_there(path: str, expected: object) -> None:
    """Members, members of members and elements are found, and what is not there is None."""
    value = {
        "name": "n",
        "place": {"id": "S1", "deeper": {"still": 7}},
        "list": [{"id": "a"}, {"id": "b"}],
        "nested": [[1, 2]],
        "@odata.nextLink": "next",
    }
    assert expected == compile_path(path)(value)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("relatedParty[role=Distribution Partner].id", "ACC-101"),
        ("relatedParty[role=distribution_partner].id", "ACC-101"),
        ("relatedParty[role=DISTRIBUTION-PARTNER].id", "ACC-101"),
        ("relatedParty[role=End Customer].id", "ACC-201"),
        ("relatedParty[role=nobody|End Customer].id", "ACC-201"),
        ("relatedParty[role=End Customer,level=product].id", "ACC-202"),
        ("relatedParty[role=nobody].id", None),
        ("relatedParty[colour=End Customer].id", None),
    ],
)
def test_condition_gives_the_first_element_that_matches(path: str, expected: object) -> None:
    """A condition compares without case, spaces, `_` and `-`, knows alternatives, and all its parts must hold."""
    assert expected == compile_path(path)(PARTIES)


def test_path_takes_an_object_for_a_list_of_one() -> None:
    """An object where a list is expected counts as its only element."""
    record = {"product": {"id": "P1", "role": "x"}}
    assert compile_path("product[0].id")(record) == "P1"
    assert compile_path("product[role=X].id")(record) == "P1"
    assert compile_path("product[*].id")(record) == ["P1"]
    assert compile_path("product[1].id")(record) is None


def test_path_takes_a_list_for_its_first_element() -> None:
    """A list where an object is expected gives its first element."""
    assert compile_path("place.id")({"place": [{"id": "S1"}, {"id": "S2"}]}) == "S1"
    assert compile_path("place.id")({"place": []}) is None


def test_every_gives_the_member_of_each_element() -> None:
    """`[*]` asks every element, and leaves out those without the member."""
    assert compile_path("product[*].id")({"product": [{"id": "a"}, {}, 3, {"id": "b"}]}) == ["a", "b"]
    assert compile_path("product[*].place.id")({"product": [{"place": {"id": "x"}}, {"place": 1}]}) == ["x"]


def test_paths_take_the_first_that_gives_something() -> None:
    """Of several paths the first one with a value counts, and false and 0 are values."""
    step = compile_paths(("a.b", "c", "d"))
    assert step({"a": {"b": 0}, "c": 1}) == 0
    assert step({"a": {}, "c": False, "d": 1}) is False
    assert step({"d": "x"}) == "x"
    assert step({}) is None


@pytest.mark.parametrize("path", ["", "$", ".", "a[", "a]", "a[]", "a[x]", "a[-1]", "a.[0", "a[=x", "[*"])
def test_bad_path_is_refused_by_name(path: str) -> None:
    """What is no path is BadPath when it is compiled, with the path in the sentence, not an error at a poll."""
    with pytest.raises(BadPath, match="is not a path"):
        compile_path(path)


@pytest.mark.parametrize(
    ("path", "expected"), [("id", "id"), ("place.id", "place"), ("list[0].x", "list"), ("[0].x", None)]
)
def test_top_member_names_what_a_path_reads(path: str, expected: str | None) -> None:
    """The top-level member is the path's first name, and None when it begins with an index."""
    assert expected == top_member(path)


@given(st.text(max_size=20))
def test_folded_ignores_case_and_separators(text: str) -> None:
    """Two spellings that differ in case of ASCII letters, spaces, `_` and `-` fold to the same."""
    spread = "_".join(text)
    assert fold_name(text) == fold_name(spread) == fold_name(f" {text}-")
    assert fold_name(fold_name(text)) == fold_name(text)


ALL_PATHS = sorted({path for call in parse("", {}).polling.values() for field in call.fields for path in field.paths})


@hypothesis.settings(max_examples=150)
@given(JSON)
def test_no_json_makes_a_path_fail(value: Any) -> None:
    """Every path of the catalogue takes any JSON at all and gives a value or None."""
    for path in ALL_PATHS:
        compile_path(path)(value)


@hypothesis.settings(max_examples=150)
@given(
    st.lists(
        st.sampled_from(["id", "place", "[0]", "[3]", "[*]", "[role=x|y]", "[role=x,name=y]"]), min_size=1, max_size=4
    ),
    JSON,
)
def test_no_path_fails_on_any_json(parts: list[str], value: Any) -> None:
    """Any path that compiles takes any JSON at all."""
    path = "".join(part if part.startswith("[") or not at else f".{part}" for at, part in enumerate(parts))
    compile_path(path)(value)
    compile_paths((path, "id"))(value)


@given(st.text(max_size=12))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    """Compiling never fails in another way than BadPath, and what compiles can be used."""
    try:
        step = compile_path(text)
    except BadPath:
        return
    step({"id": [1, {"id": 2}]})


@pytest.mark.parametrize(
    "name", ["resource_state", "ResourceState", "resource-state", "resourcestate", "RESOURCE_STATE"]
)
def test_a_member_in_another_style_is_the_same_member(name: str) -> None:
    assert compile_path("resourceState")({"x": 1, name: "online"}) == "online"
    assert compile_path("place.resourceState")({"Place": {name: "online"}}) == "online"
    assert (
        compile_path("relatedParty[partyRole=Customer].id")(
            {"related_party": [{"party_role": "partner", "id": 1}, {"PartyRole": "customer", "Id": 2}]}
        )
        == 2
    )


def test_the_very_name_goes_before_another_style() -> None:
    assert compile_path("resourceState")({"resource_state": "offline", "resourceState": "online"}) == "online"


def test_a_table_of_data_is_not_searched_for_other_styles() -> None:
    table = {f"row {number}": number for number in range(MAX_MEMBERS)} | {"resource_state": "online"}
    assert compile_path("resourceState")(table) is None


def test_names_that_an_answer_does_not_have_follow_the_style_of_the_others() -> None:
    names = ["id", "resourceState", "terminationDate", "name"]
    assert written_names(names, ["id", "resource_state", "name"]) == (
        ("resourceState", "resource_state"),
        ("terminationDate", "termination_date"),
    )
    assert written_names(names, ["id", "name"]) == ()
