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
_TOTALS = frozenset(("total", "totalcount", "totalelements", "totalitems", "totalresults", "recordcount"))
_ABOUT_PAGES = frozenset(("meta", "page", "paging", "pagination", "pageinfo"))
_ERRORS = frozenset(("error", "errors"))


def contradiction(answer: Mapping[str, Any]) -> str:
    """What an answer with an empty list says against its being empty: a total above 0, or an error; "" for nothing."""
    for name, value in answer.items():
        folded = fold_name(name) if len(name) <= MAX_NAME_CHARS else ""
        if folded in _TOTALS and isinstance(value, int) and value > 0:
            return f"'{name}' says that there are {value} records"
        if folded in _ERRORS and value:
            return f"'{name}' says that something failed"
        if folded in _ABOUT_PAGES and isinstance(value, dict) and (inner := contradiction(value)):
            return inner
    return ""


def is_keyed_by_id(answer: Any) -> bool:
    """Whether an object has an entry for each id, such as {"359235170006117": {…}}."""
    return (
        isinstance(answer, dict)
        and bool(answer)
        and all(_ID.fullmatch(name) is not None and isinstance(value, (dict, list)) for name, value in answer.items())
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


def wrapper_of(record: Any, call: Call) -> str | None:
    """The member that holds the record itself, such as {"resource": {"id": …}, "resourceState": …}; None for none."""
    if not isinstance(record, dict) or len(call.key) != 1 or top_member(call.key[0]) != call.key[0]:
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
    return {name: value for name, value in record.items() if name != wrapper} | record[wrapper]


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
