"""The shape of a call's answers: which members there are, below which others, and of which type. Pure.

No value is remembered. Some records of each poll are looked at, and what is remembered of the polls before decides
what is news: a member that was there for a day and is in no record any more, a type that changed, and a member that
is new in most records. A list adds `[*]` to a path; an element with a name, such as an indicator, adds the name.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.paths import fold_name, top_member

DAY_MS = 86_400_000
LEARNING_MS = 3_600_000
"""How long nothing is news, because rare members come by and by."""
MAX_DEPTH = 8
MAX_PATHS = 400
"""Paths of a call that are remembered; an answer that has more names its members after its data."""
MAX_ELEMENTS = 8
"""Elements of a list that are looked at."""
MAX_NAME_CHARS = 60
MANY = 5.0
"""So many records must be expected to have a member before its absence means something."""
USUAL_SHARE = 0.5
"""A member is news, and its absence too, when at least this share of the records that could have it do."""
_DATA = re.compile(r"\d{5}|[^\w.$@:/ -]")
"""A name that is data, such as an IMEI: all of them are one member, `*`."""
_NAMES = ("name", "kpiName", "counterType", "type")
"""Members that name the element of a list which they stand in, where it has a value."""
_VALUES = ("value", "kpiValue", "amount", "version")

Type = Literal["text", "number", "bool", "object", "list"]
_TYPES: dict[type, Type] = {str: "text", int: "number", float: "number", bool: "bool", dict: "object", list: "list"}


class Member(msgspec.Struct, array_like=True):
    """What is remembered of one path. Times in steady ms; `share` is of the objects that could have it."""

    type: str
    first: int
    last: int
    share: float = 1.0
    absent: float = 0.0
    """In how many objects it was expected since it was seen last."""
    alerted: bool = False
    """Whether its absence was told."""


class AnswerShape(msgspec.Struct):
    """What is remembered of the answers of a call, since a steady time in ms."""

    since: int
    members: dict[str, Member] = {}


class Change(msgspec.Struct, frozen=True):
    """One change of the shape. `about` tells it from others of the call."""

    about: str
    message: str


class _Seen(msgspec.Struct):
    types: set[str]
    count: int = 0


Outline = dict[str, _Seen]


def outline_of(records: Iterable[Any]) -> Outline:
    """The members of some records: path -> the types seen there, and how often. The path of a record itself is ""."""
    outline: Outline = {}
    for record in records:
        _look(record, "", 0, outline)
    return outline


def _look(value: Any, path: str, depth: int, outline: Outline) -> None:
    kind = _TYPES.get(type(value))
    if kind is None or (path not in outline and len(outline) >= MAX_PATHS):
        return
    seen = outline.setdefault(path, _Seen(set()))
    seen.types.add(kind)
    seen.count += 1
    if depth < MAX_DEPTH:
        for inner_path, inner in _inner(value, path):
            _look(inner, inner_path, depth + 1, outline)


def _inner(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            part = "*" if len(name) > MAX_NAME_CHARS or _DATA.search(name) else name
            yield f"{path}.{part}" if path else part, inner
    elif isinstance(value, list):
        for element in value[:MAX_ELEMENTS]:
            yield f"{path}[{_element_name(element)}]", element


def _element_name(element: Any) -> str:
    """`*`, or the name of an element that is a named value."""
    if isinstance(element, dict) and any(name in element for name in _VALUES):
        for member in _NAMES:
            name = element.get(member)
            if isinstance(name, str) and len(name) <= MAX_NAME_CHARS and not _DATA.search(name) and "]" not in name:
                return name
    return "*"


def _parent(path: str) -> str | None:
    """The path of the object that a member stands in; None of an element of a list, which may have none."""
    if path.endswith("[*]") or not path:
        return None
    if path.endswith("]"):
        return path[: path.rindex("[")]
    return path.rpartition(".")[0]


def note_shape(shape: AnswerShape, outline: Outline, call: Call, now: int) -> list[Change]:
    """Brings what is remembered forward by what was just seen, and returns what of it is news."""
    read = {name for path in _paths(call) if (name := top_member(path))}
    is_learning = now - shape.since < LEARNING_MS
    changes = list(_vanished(shape, outline))
    for path, seen in outline.items():
        parent = _parent(path)
        share = 1.0 if parent is None or parent not in outline else min(1.0, seen.count / outline[parent].count)
        member = shape.members.get(path)
        if member is None:
            if len(shape.members) < MAX_PATHS:
                shape.members[path] = Member("|".join(sorted(seen.types)), now, now, share)
                if not is_learning and share >= USUAL_SHARE and _is_news(shape, path, read):
                    changes.append(Change(f"new {path}", f"its records have a new member, {path}"))
            continue
        changes += _type_change(path, member, seen)
        if member.alerted:
            changes.append(Change(f"back {path}", f"the member {path} is in its records again"))
        member.last, member.absent, member.alerted = now, 0.0, False
        member.share = round(0.9 * member.share + 0.1 * share, 3)
    return changes


def _is_news(shape: AnswerShape, path: str, read: set[str]) -> bool:
    """Whether a new member is told: below another new one it is not, nor where a field was waiting for it."""
    parent = _parent(path)
    if parent is None or re.split(r"[.\[]", path)[0] in read:
        return False
    first = shape.members[path].first
    return any(member.first < first and _parent(sibling) == parent for sibling, member in shape.members.items())


def _type_change(path: str, member: Member, seen: _Seen) -> Iterator[Change]:
    types = "|".join(sorted(seen.types))
    if types == member.type:
        return
    before = set(member.type.split("|"))
    if before.isdisjoint(seen.types):
        yield Change(f"type {path}", f"the member {path} was a {member.type} and is a {types} now")
        member.type = types
    else:
        member.type = "|".join(sorted(before | seen.types))


def _vanished(shape: AnswerShape, outline: Outline) -> Iterator[Change]:
    for path, member in shape.members.items():
        parent = _parent(path)
        is_rare = member.share < USUAL_SHARE
        if path in outline or parent is None or parent not in outline or member.alerted or is_rare:
            continue
        member.absent += outline[parent].count * member.share
        if member.last - member.first >= DAY_MS and member.absent >= MANY / member.share:
            member.alerted = True
            yield Change(f"gone {path}", f"the member {path}, which was there for a day, is in no record any more")


def _paths(call: Call) -> Iterator[str]:
    yield from call.key
    if call.reads == "report":
        yield from (path for path in (call.measurements, call.indicators) if path)
        yield from call.timestamp
        if call.indicators is not None:
            return
    for field in call.fields:
        yield from field.paths


def unread_members(outline: Outline, call: Call) -> dict[str, int]:
    """Top-level members of the records that no field of the call reads -> in how many of the records they are."""
    read = {fold_name(name) for path in _paths(call) if (name := top_member(path))}
    return {
        path: seen.count
        for path, seen in outline.items()
        if path and "." not in path and "[" not in path and fold_name(path) not in read and not path.startswith("@")
    }


def is_same(shape: AnswerShape, stored: Mapping[str, Member], now: int) -> bool:
    """Whether nothing but counts differs from what was stored, and that not for long."""
    return shape.members.keys() == stored.keys() and all(
        (member.type, member.alerted) == (stored[path].type, stored[path].alerted)
        and now - stored[path].last < SAVE_AFTER_MS
        for path, member in shape.members.items()
    )


SAVE_AFTER_MS = 3_600_000
"""How old the stored times of a shape may be."""
