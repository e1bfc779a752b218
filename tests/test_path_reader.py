"""The reader that is made for a call reads the same as its paths walked one by one, from any JSON."""

import inspect
import random
import re
import textwrap
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode import path_reader
from oneweb_bridge.decode.fields import DecodeRules, field_setter
from oneweb_bridge.decode.path_reader import PathTable, compile_reader, write_source
from oneweb_bridge.decode.paths import BadPath, compile_path
from oneweb_bridge.simulator import Options, Shape, Simulator
from oneweb_bridge.simulator.shapes import shaped

KINDS = {
    "terminals": "user_terminals",
    "products": "products",
    "organizations": "organizations",
    "sites": "sites",
    "usage": "usage_consumption",
}
CALLS = parse("", {}).polling
ODD_PATHS = (
    "name",
    "Name",
    "_",
    "x[*]",
    "x[*].id",
    "x[0][1]",
    "$[0].name",
    "[*]",
    "[1]",
    "name[:0]",
    "x[:1].id",
    "x[role=a].id",
    "x[role=A].name",
    "x[role=b|c].id",
    "x[ role =d].id",
    "x[ro_le=a].id",
    "x[role=a,level=b].id",
    "x[role=].id",
    "x.value.amount",
    'it\'s."quoted"\\n.{x}',
)
NAMES = ("name", "Name", "NAME", "x", "X", "id", "role", "Role", "level", "value", "amount", "_", "")
TEXTS = ("a", "A", "b", "c", "d", "", "a b", "x" * 300)


def paths_of(call: str, config: Config | None = None) -> list[str]:
    """Every path that the fields of a call read, with the places where units are looked for."""
    table, fields = PathTable(), (config.polling if config else CALLS)[call].fields
    for field in fields:
        field_setter(field, DecodeRules(), table, [path for other in fields for path in other.paths])
    return list(table._positions)


def assert_same(paths: Sequence[str], records: Sequence[Any]) -> None:
    """Both read the same values of the same types."""
    read, walk = compile_reader(tuple(paths)), [compile_path(path) if path else (lambda value: value) for path in paths]
    for record in records:
        expected = [find(record) for find in walk]
        # As text, in which 1, 1.0 and True differ.
        assert repr(list(read(record))) == repr(expected)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=25,
)


@hypothesis.settings(max_examples=300, deadline=None)
@given(record=JSON)
def test_odd_paths_read_the_same_from_any_json(record: Any) -> None:
    """Every kind of step, alone and after others, from values of every type in every place."""
    assert_same(ODD_PATHS, [record])


@hypothesis.settings(max_examples=100, deadline=None)
@given(paths=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=3), record=JSON)
@hypothesis.example(paths=["$"], record={})
@hypothesis.example(paths=["name[", "x"], record={})
def test_any_text_is_the_same_path(paths: list[str], record: Any) -> None:
    """What a configuration names is a path for both or for neither; nothing of it becomes code."""
    try:
        for path in paths:
            compile_path(path)
    except BadPath:
        with pytest.raises(BadPath):
            compile_reader(tuple(paths))
        return
    assert_same(paths, [record])


# --- the API's own records ------------------------------------------------------------------------


def shapes() -> Iterator[Shape]:
    """The default shape, and each other value of each member."""
    yield Shape()
    hints = typing.get_type_hints(Shape)
    for name, default in msgspec.structs.asdict(Shape()).items():
        values = typing.get_args(hints[name]) if typing.get_origin(hints[name]) is Literal else ()
        values = (not default,) if isinstance(default, bool) else values
        yield from (msgspec.convert({name: value}, Shape) for value in values if value != default)


def records_of(kind: str) -> list[Any]:
    """Records as the API shows them, in every shape; usage also by bucket."""
    simulator = Simulator(Options(terminals=8, seed=2, start="2025-06-17T14:15:00Z", speed=0.0))
    items = simulator.truth(kind, 0, 4)
    records = [item for shape in shapes() for item in shaped(kind, items, shape, frozenset())]
    records += [bucket for record in records for bucket in record.get("bucket", ()) if isinstance(bucket, dict)]
    return list({repr(record): record for record in records}.values())


@pytest.mark.parametrize("kind", KINDS)
def test_reads_the_same_from_every_shape(kind: str) -> None:
    """In all forms that the simulated API has, every path of every call."""
    records = records_of(kind)
    assert len(records) >= 4
    for call in CALLS:
        assert_same(paths_of(call), records)


STYLES = (str.upper, str.title, lambda name: name[:1].upper() + name[1:], lambda name: f"{name[:2]}_{name[2:]}")


def changed(value: Any, rng: random.Random, depth: int = 0) -> Any:
    """A record with some of its members renamed, left out, null, of another type, or within a list."""
    if depth and rng.random() < 0.06:
        return rng.choice([None, "", "n/a", 0, -1, 1.5, True, [], {}, [None], [value, value], {"value": value}, "a b"])
    if isinstance(value, list):
        entries = [changed(entry, rng, depth + 1) for entry in value]
        return entries[0] if entries and rng.random() < 0.1 else entries
    if not isinstance(value, dict):
        return value
    members = [(name, changed(inner, rng, depth + 1)) for name, inner in value.items() if rng.random() > 0.05]
    if rng.random() < 0.2:
        rng.shuffle(members)
    changed_members = {rng.choice(STYLES)(name) if rng.random() < 0.1 else name: inner for name, inner in members}
    return [changed_members] if depth and rng.random() < 0.05 else changed_members


def compare_changed(count: int, seed: int) -> None:
    """Compares both on so many records that were changed at random."""
    rng = random.Random(seed)
    for kind, call in KINDS.items():
        paths, records = paths_of(call), records_of(kind)
        assert_same(paths, [changed(rng.choice(records), rng) for _ in range(count // len(KINDS))])


def test_reads_the_same_from_records_changed_at_random() -> None:
    """The paths of a call meet its own records with something wrong in them."""
    compare_changed(2000, 16)


# --- what it makes --------------------------------------------------------------------------------


def test_docstring_shows_what_is_made() -> None:
    """The code in the module's docstring is the code of the paths above it."""
    text = inspect.cleandoc(path_reader.__doc__ or "")
    paths, shown = re.findall(r"For\n\n    (.*)\n\nit makes\n\n(.*?)\n\n", text, re.DOTALL)[0]
    source, _ = write_source(paths.split(", "))
    assert textwrap.dedent(shown) == source


def test_step_in_common_is_taken_once() -> None:
    """A list that several paths look through is looked through once, however many texts they look for."""

    class Entries(list[Any]):
        looks = 0

        def __iter__(self) -> Iterator[Any]:
            self.looks += 1
            return super().__iter__()

    entries = Entries([{"name": name, "value": name.upper()} for name in ("a", "b", "c")])
    read = compile_reader(tuple(f"characteristic[name={name}].value" for name in ("a", "b", "c", "d")))
    assert read({"characteristic": entries}) == ("A", "B", "C", None)
    assert entries.looks == 1


def test_reader_without_paths_reads_nothing() -> None:
    """A call without fields has a reader, too, and an empty path is the record."""
    assert compile_reader(())({"name": "n"}) == ()
    assert compile_reader(("", "name"))({"name": "n"}) == ({"name": "n"}, "n")
