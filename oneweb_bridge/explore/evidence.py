"""The answers of the API to the requests for one call, and the list of records in them. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.listings import ENVELOPES, is_keyed_by_id, records_by_id
from oneweb_bridge.decode.paths import compile_path

Outcome = Literal["ok", "refused", "unknown", "rejected", "away", "busy", "odd", "skipped"]
"""How a request ended: refused is 401 and 403, unknown 404, rejected 400 and the like, away no connection or 5xx.
Skipped was not sent, because it is a POST."""

Tree = dict[str, Any]
"""A piece of bridge.yaml."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one request. `error` is the sentence why there is none; `time` is the API's clock in ms.

    `totals` are the headers that count records, `next_page` is the address in `Link`, `is_part` a status of 206.
    """

    outcome: Outcome
    error: str = ""
    params: Mapping[str, str] = {}
    body: Any = None
    totals: tuple[tuple[str, int], ...] = ()
    next_page: str | None = None
    is_part: bool = False
    time: int | None = None


class Evidence(msgspec.Struct, kw_only=True):
    """The first answer of one call. `windowed` is that to time parameters, where it shows more.

    `changes` are keys of the call that had to be changed to get them.
    """

    call: Call
    reply: Reply
    windowed: Reply | None = None
    changes: dict[str, Any] = {}
    listed: "FoundList | None" = None


class FoundList(msgspec.Struct, frozen=True, kw_only=True):
    """The list in an answer: its items, its place in words, and the selector that the configuration needs."""

    items: list[Any]
    shape: str
    records: str | None = None


def find_list(body: Any) -> FoundList | None:
    """The list of records in an answer, or None when there is none."""
    if isinstance(body, list):
        return FoundList(items=body, shape="a bare list")
    if not isinstance(body, dict):
        return None
    for name in ENVELOPES:
        if isinstance(body.get(name), list):
            return FoundList(items=body[name], shape=f"a list in '{name}'")
    if is_keyed_by_id(body):
        return FoundList(items=records_by_id(body), shape="an object by id")
    if "id" in body or {"columns", "rows"} <= body.keys():
        return FoundList(items=[body], shape="one object")
    lists = sorted(_lists(body, (), 3), key=lambda pair: -len(pair[1]))
    if not lists:
        return None
    path = ".".join(lists[0][0])
    return FoundList(items=lists[0][1], shape=f"a list in '{path}'", records=f"{path}[*]")


_BUCKETS = ("bucket", *(f"{wrapper}.bucket" for wrapper in ("node", "attributes", "resource", "item")))


def selector_of(call: Call, listed: FoundList) -> str | None:
    """What `records` must be for a list that was found; of usage, for its buckets. None where it need not be set."""
    if listed.records is None or call.reads != "usage":
        return listed.records
    held = (path for path in _BUCKETS if any(compile_path(path)(item) is not None for item in listed.items))
    below = next(held, None)
    return listed.records if below is None else f"{listed.records}.{below}[*]"


def _lists(body: dict[str, Any], above: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    for name, below in body.items():
        if isinstance(below, list) and all(isinstance(entry, dict) for entry in below):
            yield (*above, name), below
        elif isinstance(below, dict) and depth > 1:
            yield from _lists(below, (*above, name), depth - 1)


def replace_items(body: Any, items: list[Any]) -> Any:
    """The same answer with other entries in its list."""
    if isinstance(body, list):
        return items
    listed = find_list(body)
    if not isinstance(body, dict) or listed is None or listed.shape == "one object":
        return body
    return {name: _replace_in(below, listed.items, items) for name, below in body.items()}


def _replace_in(below: Any, items: list[Any], entries: list[Any]) -> Any:
    if below is items:
        return entries
    if isinstance(below, dict):
        return {name: _replace_in(inner, items, entries) for name, inner in below.items()}
    return below


def identity(item: Any) -> str:
    """What tells an item from others: its id, else all of it."""
    if isinstance(item, dict) and isinstance(item.get("id"), (str, int)):
        return str(item["id"]) + str(item.get("counterType", "")) + str(item.get("type", ""))
    return msgspec.json.encode(item).decode()
