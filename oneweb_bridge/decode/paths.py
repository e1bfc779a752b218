"""The language of paths: where a value stands in the API's JSON. Pure.

    name                          a member
    place.id                      a member of a member
    ["@odata.nextLink"]           a member whose name has a dot or a bracket in it
    realizingResource[0].id       an element
    relatedParty[role=Customer].id            the first element whose member matches
    bucketCounter[counterType=usage,level=global].value.amount
    product[*].id                 every element (only where a list is wanted)
    relatedParty[1:].id           every element from the second on (likewise); nothing where there is none
    name[:0]                      the first part of a text like main.UT or 3592…/main/UT, cut at . / : | and spaces

Texts are compared without regard to case, spaces, `_` and `-`; `a|b` matches either. A member that is not there
under its very name is looked for in the same way, so that resource_state is resourceState. An object
where a list is expected counts as a list of one, and a list where an object is expected gives its
first element, because both happen in TM Forum APIs. A missing value is None, never an error.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

Getter = Callable[[Any], Any]
MAX_NAME_CHARS = 200
"""Longest text that is compared as a name, so that none fills the cache."""
_STEP = re.compile(r"\.?([^.\[\]]+)|\[\"([^\"]+)\"\]|\[(\*|:?\d+|\d+:|[^\]]+=[^\]]*)\]")


class BadPath(ValueError):
    """A path that cannot be read, with the reason as its text."""


@lru_cache(maxsize=4096)
def fold_name(text: str) -> str:
    """The form in which names are compared: lower case, without spaces, `_` and `-`."""
    return text.translate(_IGNORED).casefold()


_IGNORED = str.maketrans("", "", " _-\t")


def compile_path(path: str) -> Getter:
    """A function from decoded JSON to the value at `path`, or None. Raises BadPath."""
    steps = [compile_step(step) for step in split_path(path)]
    if len(steps) == 1:
        return steps[0]
    if len(steps) == 2:
        first, second = steps

        def two(value: Any) -> Any:
            inner = first(value)
            return None if inner is None else second(inner)

        return two

    def walk(value: Any) -> Any:
        for step in steps:
            if value is None:
                return None
            value = step(value)
        return value

    return walk


def compile_paths(paths: Iterable[str]) -> Getter:
    """The first of several paths that gives something other than None."""
    steps = [compile_path(path) for path in paths]
    if len(steps) == 1:
        return steps[0]

    def first(value: Any) -> Any:
        for step in steps:
            result = step(value)
            if result is not None:
                return result
        return None

    return first


def top_member(path: str) -> str | None:
    """The top-level member that a path reads, or None when it does not begin with one."""
    return split_path(path)[0].member or None


class Step(NamedTuple):
    """One step of a path: to a member, or to what stands between `[` and `]`."""

    member: str
    selector: str


@lru_cache(4096)
def split_path(path: str) -> tuple[Step, ...]:
    """The steps of a path. Raises BadPath."""
    text = path.removeprefix("$").lstrip(".")
    steps = tuple(Step(match[1] or match[2] or "", match[3] or "") for match in _STEP.finditer(text))
    if not steps or sum(len(match[0]) for match in _STEP.finditer(text)) != len(text):
        raise BadPath(f"'{path}' is not a path like place.id, product[0].id or relatedParty[role=X].id")
    return steps


def compile_step(step: Step) -> Getter:
    """A function from a value to what stands one step further."""
    name, selector = step
    if name:
        return _member(name)
    if selector == "*":
        return _all_elements
    if selector.isdecimal():
        return _element(int(selector))
    if selector[:-1].isdecimal() and selector[-1] == ":":
        return _elements_from(int(selector[:-1]))
    if selector[1:].isdecimal() and selector[0] == ":":
        return _part(int(selector[1:]))
    return _matching(selector)


def _member(name: str) -> Getter:
    folded = fold_name(name)

    def member(value: Any) -> Any:
        if type(value) is dict:
            inner = value.get(name)
            return _variant(value, name, folded) if inner is None else inner
        if type(value) is list and value:
            return _get(value[0], name, folded)
        if isinstance(value, _AllElements):
            return _AllElements(inner for entry in value if (inner := _get(entry, name, folded)) is not None)
        return None

    return member


def _get(value: Any, name: str, folded: str) -> Any:
    if type(value) is not dict:
        return None
    inner = value.get(name)
    return _variant(value, name, folded) if inner is None else inner


MAX_MEMBERS = 200
"""An object with more members is a table of data, and its members are looked for by their very names alone."""


def _variant(value: dict[str, Any], name: str, folded: str) -> Any:
    """The value of the member that is written otherwise: in snake_case, camelCase, PascalCase or kebab-case."""
    # Most objects of an answer have the same few sets of members, of which each is folded once.
    candidates = value if len(value) > MAX_CACHED_MEMBERS else _names_by_folded(tuple(value)).get(folded, ())
    other = variant_of(candidates, name, folded) if candidates else None
    return None if other is None else value[other]


MAX_CACHED_MEMBERS = 64
"""Members of the largest object whose folded names are cached, so that no answer fills the memory."""


@lru_cache(maxsize=256)
def _names_by_folded(names: tuple[str, ...]) -> dict[str, list[str]]:
    """The members of an object by their folded names, each list in the order of the object."""
    by_folded: dict[str, list[str]] = {}
    for name in names:
        if len(name) <= MAX_NAME_CHARS:
            by_folded.setdefault(fold_name(name), []).append(name)
    return by_folded


def member_name(record: Mapping[str, Any], *names: str) -> str | None:
    """The name under which an object has the first of these members that it has, however it is written."""
    for name in names:
        if name in record:
            return name
    return _written_name(tuple(record), names) if len(record) <= MAX_CACHED_MEMBERS else None


@lru_cache(maxsize=1024)
def _written_name(members: tuple[str, ...], names: tuple[str, ...]) -> str | None:
    return next((other for name in names if (other := variant_of(members, name, fold_name(name)))), None)


def variant_of(members: Iterable[str], name: str, folded: str) -> str | None:
    """The first of these names that means the same as `name` and is another text."""
    shortest, longest, first = len(folded), 2 * len(name), folded[:1]
    for count, other in enumerate(members):
        if count >= MAX_MEMBERS:
            return None
        # Most names differ in their length or first letter, which is quicker to see.
        is_similar = shortest <= len(other) <= longest and other[:1].casefold() == first and other != name
        if is_similar and fold_name(other) == folded:
            return other
    return None


def written_names(names: Sequence[str], members: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """How an answer with these members writes names that it does not have as they are.

    One that it does not have at all is taken to be written in the style of the others: it may be in other records.
    """
    missing = [name for name in names if name not in members]
    written = {name: other for name in missing if (other := variant_of(members, name, fold_name(name)))}
    style = next(
        (style for style in _STYLES if written and all(style(n) == other for n, other in written.items())), None
    )
    if style is not None:
        written |= {name: style(name) for name in missing if name not in written}
    return tuple(written.items())


def shows_style(names: Sequence[str], members: Sequence[str]) -> bool:
    """Whether an answer with these members tells how it writes names of several words, if any is looked for.

    From id and name alone nobody knows whether another record has resourceState or resource_state.
    """
    longer = [name for name in names if _HUMP.search(name)]
    return not longer or any(name in members or variant_of(members, name, fold_name(name)) for name in longer)


_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_STYLES: tuple[Callable[[str], str], ...] = (
    lambda name: _HUMP.sub("_", name).lower(),
    lambda name: _HUMP.sub("-", name).lower(),
    lambda name: name[:1].upper() + name[1:],
    str.upper,
    str.lower,
)


class _AllElements(list[Any]):
    """A list of which a further step is taken for each element."""


def _all_elements(value: Any) -> Any:
    return _AllElements(_as_list(value))


def _elements_from(position: int) -> Getter:
    def elements(value: Any) -> Any:
        return _AllElements(_as_list(value)[position:]) or None

    return elements


def _element(position: int) -> Getter:
    def element(value: Any) -> Any:
        entries = _as_list(value)
        return entries[position] if position < len(entries) else None

    return element


_PART_SEPARATORS = re.compile(r"[./:|\s]+")


def _part(position: int) -> Getter:
    def part(value: Any) -> Any:
        parts = _PART_SEPARATORS.split(value) if isinstance(value, str) else []
        return parts[position] if position < len(parts) else None

    return part


class Condition(NamedTuple):
    """`name=a|b`: the member that is compared, under its name and its folded name, and the folded texts."""

    name: str
    folded: str
    texts: frozenset[str]


def conditions_of(selector: str) -> list[Condition]:
    """The conditions of a step like `[counterType=usage,level=global]`; none of any other step."""
    pairs = (condition.partition("=") for condition in selector.split(",") if "=" in selector)
    return [
        Condition(name.strip(), fold_name(name), frozenset(fold_name(text) for text in texts.split("|")))
        for name, _, texts in pairs
    ]


def _matching(selector: str) -> Getter:
    conditions = conditions_of(selector)

    def matching(value: Any) -> Any:
        for entry in _as_list(value):
            if type(entry) is dict:
                for name, folded, texts in conditions:
                    if not _equals_any(_get(entry, name, folded), texts):
                        break
                else:
                    return entry
        return None

    return matching


def _equals_any(value: Any, names: frozenset[str]) -> bool:
    return type(value) is str and len(value) <= MAX_NAME_CHARS and fold_name(value) in names


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [] if value is None else [value]
