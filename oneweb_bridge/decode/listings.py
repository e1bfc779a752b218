"""Where the records of an answer stand: in a list within an object, or in an object keyed by their ids. Pure."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.paths import compile_path, fold_name, top_member

ENVELOPES = ("items", "data", "results")
"""Members that hold the list of an answer."""
MAX_LISTS = 6
MAX_DEPTH = 5
_ID = re.compile(r"(?=.*\d{4})[\w.:-]{5,64}", re.ASCII)
"""A member's name that can only be an id, such as an IMEI or SC-410027318845."""


class BadList(ValueError):
    """The list of records is not where it should be; the text says where that is."""


def listed_member(members: Mapping[str, Any], type_of: Callable[[Any], type | None]) -> str | None:
    """The name of the member that holds the records, in whatever case it is written; None where there is none.

    A list goes before a null, which `type_of` gives as None and which stands for an empty list.
    """
    folded: dict[str, str] = {fold_name(name): name for name in reversed(list(members)) if len(name) <= MAX_NAME_CHARS}
    held = [folded[name] for name in ENVELOPES if name in folded]
    for wanted in (list, None):
        for name in held:
            if type_of(members[name]) is wanted:
                return name
    return None


MAX_NAME_CHARS = 40
TOTALS = frozenset(
    [
        *("total", "totalcount", "totalelements", "totalitems", "totalresults", "totalrecords", "totalhits"),
        *("recordcount", "resultcount", "numfound", "@odata.count"),
    ]
)
"""Folded names of members that count all records of a listing."""
_ABOUT_PAGES = frozenset(("meta", "page", "paging", "pagination", "pageinfo"))
_ERRORS = frozenset(("error", "errors"))


def failure(answer: Mapping[str, Any]) -> str:
    """What an answer with an empty list says of having failed; "" for nothing."""
    return next(
        (f"'{name}' says that something failed" for name, value in _beside(answer) if _is_failure(name, value)), ""
    )


def promise(answer: Mapping[str, Any]) -> str:
    """What an answer with an empty list says of records that there are; "" for nothing.

    In an answer with records `count` may be those of its page; in one without any it says the same as a total.
    """
    names = (*TOTALS, "count")
    totals = ((name, value) for name, value in _beside(answer) if fold_name(name) in names and _is_positive(value))
    return next((f"'{name}' says that there are {value} records" for name, value in totals), "")


def _beside(answer: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The members of an answer, and of what in it is about its pages."""
    for name, value in answer.items():
        if len(name) <= MAX_NAME_CHARS:
            yield name, value
            if fold_name(name) in _ABOUT_PAGES and isinstance(value, dict):
                yield from _beside(value)


def _is_failure(name: str, value: Any) -> bool:
    folded = fold_name(name)
    return (folded in _ERRORS and bool(value)) or _says_failed(folded, value)


def _says_failed(folded: str, value: Any) -> bool:
    is_failure = isinstance(value, str) and len(value) <= MAX_NAME_CHARS and fold_name(value) in _FAILED
    return (folded in _SUCCESSES and value is False) or (folded in _STATUSES and is_failure)


_SUCCESSES = frozenset(("success", "successful", "succeeded", "ok"))
_STATUSES = frozenset(("status", "result", "state"))
_FAILED = frozenset(("error", "failed", "failure", "fail", "ko", "nok", "rejected", "denied"))


def _is_positive(value: Any) -> bool:
    is_number = type(value) is int or (isinstance(value, str) and value.isdecimal() and len(value) <= MAX_DIGITS)
    return is_number and int(value) > 0


MAX_DIGITS = 18


def is_keyed_by_id(answer: Any) -> bool:
    """Whether an object has an entry for each id, such as {"359235170006117": {…}}.

    An entry that says its id itself proves it, whatever that looks like.
    """
    if not isinstance(answer, dict) or not answer:
        return False
    entries = answer.items()
    return all(_ID.fullmatch(name) is not None and isinstance(value, (dict, list)) for name, value in entries) or all(
        isinstance(value, dict) and str(value.get("id")) == name for name, value in entries
    )


def records_by_id(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of an object that is keyed by ids as records; a list in one is that of its measurements."""
    return [
        {**value, "id": value.get("id", id)} if isinstance(value, dict) else {"id": id, "measurement": value}
        for id, value in answer.items()
    ]


_WRAPPERS: dict[str, frozenset[str]] = {
    entity: frozenset(("resource", "item", "entity", "node", *own))
    for entity, own in {
        "terminal": ("terminal", "userterminal"),
        "product": ("product",),
        "organization": ("organization", "party"),
        "site": ("site", "geographicsite"),
        "usage": ("bucket",),
    }.items()
}
"""Entity of a call -> members that may hold a record whose state stands beside it. A site is none of a terminal."""


ATTRIBUTES = "attributes"
_OF_RESOURCE_OBJECTS = frozenset(("id", "type", ATTRIBUTES, "relationships", "links", "meta"))


def is_resource_object(record: Any) -> bool:
    """Whether a record holds its members in `attributes`, and has nothing else of its own. Source: JSON:API 1.1."""
    return (
        isinstance(record, dict)
        and isinstance(record.get(ATTRIBUTES), dict)
        and "id" in record
        and record.keys() <= _OF_RESOURCE_OBJECTS
    )


def wrapper_of(record: Any, call: Call) -> str | None:
    """The member that holds the record itself, such as {"resource": {"id": …}, "resourceState": …}; None for none."""
    if not isinstance(record, dict):
        return None
    if is_resource_object(record):
        return ATTRIBUTES
    if len(call.key) != 1 or top_member(call.key[0]) != call.key[0]:
        return None
    find = compile_path(call.key[0])
    if find(record) is not None:
        return None
    names = [name for name in record if len(name) <= MAX_NAME_CHARS and fold_name(name) in _WRAPPERS[call.entity]]
    held = [name for name in names if isinstance(record[name], dict) and find(record[name]) is not None]
    return held[0] if len(held) == 1 else None


def without_wrapper(record: Any, wrapper: str) -> Any:
    """The record in a member, with what stands beside that."""
    if not isinstance(record, dict) or not isinstance(record.get(wrapper), dict):
        return record
    beside = {name: value for name, value in record.items() if name != wrapper}
    if wrapper == ATTRIBUTES:
        # The type of a resource object says what it is, and nothing about it; the id is its own.
        beside.pop("type", None)
        return record[wrapper] | beside
    return beside | record[wrapper]


def about_id(id: str, records: list[Any], call: Call) -> list[Any]:
    """Records of an answer about one id, with the key that they do not have, or with a link to their product."""
    if call.reads == "usage":
        return [record if not isinstance(record, dict) else {"product": [{"id": id}], **record} for record in records]
    key, find = call.key[0], compile_path(call.key[0])
    if len(call.key) > 1 or top_member(key) != key:
        return records
    keyless = [record for record in records if isinstance(record, dict) and find(record) is None]
    if call.reads == "report" and len(keyless) > 1 and len(keyless) == len(records):
        return [{key: id, "measurement": records}]
    return [{**record, key: id} if record in keyless else record for record in records]


def find_lists(answer: Any) -> list[str]:
    """The lists of objects in an answer as values for `records`, each with its length; the first MAX_LISTS of them."""
    lists = []
    for path, records in _lists(answer, "$", 0):
        lists.append(f"{path}[*] ({len(records)})")
        if len(lists) == MAX_LISTS:
            break
    return lists


def _lists(value: Any, path: str, depth: int) -> Iterator[tuple[str, list[Any]]]:
    if depth > MAX_DEPTH:
        return
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            yield path, value
            yield from _lists(value[0], f"{path}[*]", depth + 1)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if re.fullmatch(r"[\w-]+", name):
                yield from _lists(inner, f"{path}.{name}", depth + 1)
