"""Splits one page of the API into undecoded records, and makes records out of nested and tabular ones. Pure.

A page is first only split: most records did not change since the last poll, and their hash shows it. The caller
decides which of them are decoded, one at a time, so that a page of a thousand records never stands in memory
as a thousand dictionaries.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from oneweb_bridge.decode.border import BadPage, at_border
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.listings import (
    ATTRIBUTES,
    BadList,
    about_id,
    failure,
    find_lists,
    is_keyed_by_id,
    is_resource_object,
    listed_member,
    promise,
    records_by_id,
    without_wrapper,
    wrapper_of,
)
from oneweb_bridge.decode.paths import compile_path, member_name
from oneweb_bridge.decode.sizes import MAX_MADE_BYTES, MAX_RECORDS, MAX_VALUES, TooMuch, check_depth, check_size

Raw = msgspec.Raw


class EmptyPage(BadPage):
    """A page without records of a listing that has some by its own words: no bad one where others came before it."""


class SplitPage(msgspec.Struct, frozen=True):
    """The undecoded records of one page, and how many items the server counts in it."""

    records: list[Raw]
    count: int


def split_page(body: bytes, selector: str | None = None) -> SplitPage:
    """The records of one page. Raises BadPage when the body is not a list of records."""
    return split_clean_page(clean_body(body), selector)


def split_answer_about(id: str, body: bytes, call: Call) -> SplitPage:
    """The records of an answer that was requested for one id, which takes the place of a key that they do not have.

    Rows without a key are the measurements of a report. Raises BadPage.
    """
    body = clean_body(body)
    try:
        page = split_clean_page(body, call.records)
    except BadPage:
        if not _is_one_record(body, call):
            raise
        page = SplitPage([Raw(body)], 1)
    try:
        records = about_id(id, [_loaded(raw) for raw in page.records], call)
        return SplitPage([Raw(msgspec.json.encode(record)) for record in records], page.count)
    except TooMuch as error:
        raise BadPage(f"{_TOO_LARGE}{error}") from None


def _is_one_record(body: bytes, call: Call) -> bool:
    """Whether an answer about one id is a record without that id, which is no listing otherwise."""
    if call.records is not None or body[:1] != b"{":
        return False
    try:
        answer = _loaded(body)
    except (TooMuch, ValueError, RecursionError):
        return False
    return call.reads == "report" or not find_lists(answer)


def split_clean_page(body: bytes, selector: str | None = None) -> SplitPage:
    """`split_page` for a body that `clean_body` returned."""
    try:
        if selector is not None and selector != "$[*]":
            return _split_nested(body, selector)
        records = _raw_list(body) if body[:1] == b"[" else _unwrapped(body)
        check_count(len(records))
        return SplitPage(records, len(records))
    except TooMuch as error:
        raise BadPage(f"{_TOO_LARGE}{error}") from None
    except BadList as error:
        raise BadPage(f"{error}{_lists_in(body)}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadPage(f"the answer is not valid JSON: {error}") from None


def _lists_in(body: bytes) -> str:
    """The end of a sentence about a list that is not there: which lists are."""
    lists = find_lists(_loaded(body))
    return f"; the lists that are there: {', '.join(lists)}" if lists else "; there is no list of objects in it"


def value_at(body: bytes, path: str) -> Any:
    """The value at `path` of a page that is an object (for the next cursor), or None."""
    try:
        check_size(body)
        check_depth(body)
        return compile_path(path)(msgspec.json.decode(body))
    # Also UnicodeDecodeError: this body was not cleaned.
    except (ValueError, RecursionError):
        return None


def clean_body(body: bytes) -> bytes:
    """The body as valid UTF-8 of whole characters, without a byte order mark. Raises BadPage."""
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not body:
        raise BadPage("the answer is empty, expected a JSON list")
    try:
        check_size(body)
    except TooMuch as error:
        raise BadPage(f"{_TOO_LARGE}{error}") from None
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            raise BadPage("the answer is not UTF-8, expected a JSON list") from None
    # Half a surrogate pair is legal JSON and no text. In one record it must not cost the whole listing.
    # A backslash alone is searched first: that is many times quicker, and most pages have none.
    halves = b"\\" in body and (b"\\ud" in body or b"\\uD" in body)
    return _ESCAPE.sub(_whole, body) if halves else body


_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""Escapes of JSON strings, each as a whole; the group is half a surrogate pair."""
NO_CHARACTER = "\ufffd"


def _whole(escape: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if escape[1] else escape[0]


def check_count(records: int) -> None:
    """Raises BadPage for more records than a page may have."""
    if records > MAX_RECORDS:
        raise BadPage(f"{_TOO_LARGE}more than {MAX_RECORDS} records")


_TOO_LARGE = "the answer is too large, ask for less with page.limit, or window.length of a report: "


def _loaded(body: bytes | Raw) -> Any:
    """JSON as Python objects; a number that is too large stays raw, so that it costs its own record alone."""
    check_depth(bytes(body))
    try:
        return msgspec.json.decode(body)
    except msgspec.ValidationError:
        msgspec.json.decode(body, type=Raw)
        return json.loads(bytes(body), parse_int=_int, parse_float=_float)


def _int(digits: str) -> int | Raw:
    return int(digits) if len(digits) <= MAX_INT_CHARS else Raw(digits.encode())


def _float(digits: str) -> float | Raw:
    number = float(digits)
    return number if math.isfinite(number) else Raw(digits.encode())


MAX_INT_CHARS = 20
"""Digits and sign of the longest whole numbers that 64 bits can hold."""
_raw_list = msgspec.json.Decoder(list[Raw]).decode
_raw_object = msgspec.json.Decoder(dict[str, Raw]).decode


def _unwrapped(body: bytes) -> list[Raw]:
    """The records of an answer that is no list itself. Raises BadList where they are not in it."""
    if body == b"null":
        return []
    if body[:1] != b"{":
        raise BadPage(f"the answer is {_excerpt(body)}, expected a JSON list")
    members = _raw_object(body)
    name = listed_member(members, lambda raw: _KINDS.get(bytes(raw).lstrip()[:1], dict))
    if name is not None:
        return _not_contradicted(_raw_list_or_null(members[name]), name, members)
    if member_name(members, "id") or (member_name(members, "columns") and member_name(members, "rows")):
        return [Raw(body)]
    answer = _loaded(body)
    if is_keyed_by_id(answer):
        return [Raw(msgspec.json.encode(record)) for record in records_by_id(answer)]
    raise BadList("the answer is an object without a list in items, data or results, and without an id")


_KINDS: dict[bytes, type | None] = {b"[": list, b"n": None}


def _raw_list_or_null(raw: Raw) -> list[Raw]:
    return [] if bytes(raw).strip() == b"null" else _raw_list(raw)


def _not_contradicted(records: list[Any], name: str, members: dict[str, Any]) -> list[Any]:
    """The records, unless there are none although the rest of the answer says otherwise. Raises BadPage."""
    if not records:
        answer = _loaded(msgspec.json.encode(members))
        if reason := failure(answer):
            raise BadPage(f"the list '{name}' is empty, but {reason}")
        if reason := promise(answer):
            raise EmptyPage(f"the list '{name}' is empty, but {reason}")
    return records


def _excerpt(body: bytes) -> str:
    return repr(body[:20].decode(errors="replace"))


def _split_nested(body: bytes, selector: str) -> SplitPage:
    """Nested records: each takes over its parents' members; under `parent` those whose names it uses itself."""
    names = [name.lstrip(".") for name in selector.removeprefix("$").split("[*]")]
    if names.pop():
        raise BadPage(f"the selector '{selector}' does not end with [*]")
    answer = _loaded(body)
    if answer is None:
        return SplitPage([], 0)
    level: list[Any] = [answer]
    counts = []
    for name in names:
        level = _below(level, name)
        counts.append(len(level))
    if not counts[0] and names[0] and isinstance(answer, dict):
        _not_contradicted([], names[0], answer)
    return SplitPage(_made(Raw(msgspec.json.encode(record)) for record in level), counts[0])


def _below(level: list[Any], name: str) -> list[Any]:
    """The records of the next level, each with the members that it takes over. Raises TooMuch, and BadList."""
    inners: list[Any] = []
    members = 0
    is_there = not level or not name
    for outer in level:
        is_there = is_there or _has(outer, name)
        for inner in _inner(outer, name):
            members += len(inner) if isinstance(inner, dict) else 1
            if members > MAX_VALUES:
                raise TooMuch(f"more than {MAX_VALUES} values, with those that records take over")
            inners.append(inner)
    if not is_there:
        raise BadList(f"there is no list at '{name}', where `records` says")
    return inners


def _has(outer: Any, path: str) -> bool:
    """Whether the member at a path is there, whatever it is."""
    for name in path.split("."):
        held = member_name(outer, name) if isinstance(outer, dict) else None
        if held is None:
            return False
        outer = outer[held]
    return True


def _made(records: Iterable[Raw]) -> list[Raw]:
    """The list of records made from a page. Raises TooMuch when they are far longer than a page may be."""
    checked: list[Raw] = []
    size = 0
    for record in records:
        size += len(memoryview(record))
        if size > MAX_MADE_BYTES or len(checked) >= MAX_RECORDS:
            raise TooMuch(f"more than {MAX_RECORDS} records, or {MAX_MADE_BYTES} bytes with what they take over")
        checked.append(record)
    return checked


PARENT = "parent"
"""The member of a nested record with its parents' members under names that it uses itself."""


def _inner(outer: Any, path: str) -> Iterator[Any]:
    if not path:
        yield from _top(outer)
        return
    *parents, name = path.split(".")
    parent_value = outer
    for parent in parents:
        held = member_name(parent_value, parent) if isinstance(parent_value, dict) else None
        parent_value = None if held is None else parent_value[held]
    held = member_name(parent_value, name) if isinstance(parent_value, dict) else None
    inner = None if held is None else parent_value[held]
    inherited = {k: v for k, v in parent_value.items() if k != held} if isinstance(parent_value, dict) else {}
    for record in inner if isinstance(inner, list) else [] if inner is None else [inner]:
        yield _with_parent_members(inherited, record) if isinstance(record, dict) else record


def _top(answer: Any) -> list[Any]:
    if isinstance(answer, dict):
        name = listed_member(answer, lambda value: None if value is None else type(value))
        if name is not None:
            records = _not_contradicted(answer[name] or [], name, answer)
            if records and is_resource_object(records[0]):
                return [without_wrapper(record, ATTRIBUTES) for record in records]
            return records
        return records_by_id(answer) if is_keyed_by_id(answer) else [answer]
    return answer if isinstance(answer, list) else [answer]


def _with_parent_members(inherited: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    hidden = {name: value for name, value in inherited.items() if name in record}
    return {**inherited, **({PARENT: hidden} if hidden else {}), **record}


def expand_tables(call: Call, records: list[Raw]) -> list[Raw]:
    """Column tables as one object per row, and records without what they are wrapped in; others as they are."""
    if call.explode != "columns":
        return _without_wrappers(records, call)
    try:
        return _made(row for table in records for row in _rows(table))
    except TooMuch as error:
        raise BadPage(f"{_TOO_LARGE}{error}") from None


def _without_wrappers(records: list[Raw], call: Call) -> list[Raw]:
    """Records that the first one shows to be wrapped, without what they are wrapped in; others as they are."""
    try:
        wrapper = wrapper_of(_loaded(records[0]), call) if records else None
    except (TooMuch, ValueError, RecursionError):
        # What is wrong with the first record is no matter of the page.
        return records
    if wrapper is None:
        return records
    decoded = (_loaded(raw) for raw in records)
    try:
        return _made(Raw(msgspec.json.encode(without_wrapper(record, wrapper))) for record in decoded)
    except TooMuch as error:
        raise BadPage(f"{_TOO_LARGE}{error}") from None


def merges_rows(call: Call) -> bool:
    """Whether several records may have one key, and make one record together."""
    return call.explode in ("columns", "rows") or (call.reads == "components" and call.records is not None)


@at_border
def merge_rows(rows: Sequence[Raw]) -> Raw:
    """Rows of one key as one record: the members of the first, and all of them in `rows`. Raises Unreadable."""
    return Raw(msgspec.json.encode({**_raw_object(rows[0]), ROWS: list(rows)}))


ROWS = "rows"
"""The member of a merged record that has its rows."""


def _rows(table: Raw) -> Iterator[Raw]:
    try:
        decoded = _loaded(table)
        names, rows = (decoded.pop(member_name(decoded, name) or name) for name in ("columns", "rows"))
        for row in rows:
            yield Raw(msgspec.json.encode({**decoded, **dict(zip(names, row, strict=True))}))
    except (msgspec.DecodeError, RecursionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadPage(f"a table without columns and rows of equal length: {error}") from None


@at_border
def decode_record(raw: Raw | bytes) -> Any:
    """One record as Python objects. Raises Unreadable."""
    check_depth(bytes(raw))
    return msgspec.json.decode(raw)
