"""What the API answered to a look at one call, and where the records are in it. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from oneweb_bridge.decode.catalogue import Call

Ended = Literal["ok", "refused", "unknown", "rejected", "away", "busy", "odd", "skipped"]
"""How a request ended: refused is 401 and 403, unknown 404, rejected 400 and the like, away no connection or 5xx.
Skipped was not sent, because it would not only read."""

Tree = dict[str, Any]
"""A piece of bridge.yaml."""
_ENVELOPES = ("items", "data", "results")


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one request. `said` says in a sentence why there is none; `time` is the API's clock in ms."""

    ended: Ended
    said: str = ""
    params: Mapping[str, str] = {}
    body: Any = None
    total: int | None = None
    next_page: str | None = None
    time: int | None = None


class Paging(msgspec.Struct, frozen=True):
    """What was found out about pages: how to say it, and the keys of `page` to change. `how` "" means not known."""

    how: str = ""
    change: dict[str, Any] = {}
    said: str = ""


class Span(msgspec.Struct, frozen=True):
    """What was found out about time parameters. `change` is of `window`; `works` None means not tried."""

    works: bool | None = None
    change: dict[str, Any] = {}


class Evidence(msgspec.Struct, kw_only=True):
    """All that was seen of one call. `changes` are keys of the call that had to be changed to see it."""

    call: Call
    reply: Reply
    windowed: Reply | None = None
    paging: Paging = Paging()
    span: Span = Span()
    changes: dict[str, Any] = {}
    found: "Found | None" = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The list in an answer: its items, how the answer holds it, and the selector that the configuration needs."""

    items: list[Any]
    shape: str
    records: str | None = None


def located(body: Any) -> Found | None:
    """The list of records in an answer, or None when there is none."""
    if isinstance(body, list):
        return Found(items=body, shape="a bare list")
    if not isinstance(body, dict):
        return None
    for name in _ENVELOPES:
        if isinstance(body.get(name), list):
            return Found(items=body[name], shape=f"a list in '{name}'")
    if "id" in body or {"columns", "rows"} <= body.keys():
        return Found(items=[body], shape="one object")
    lists = sorted(_lists(body, (), 3), key=lambda pair: -len(pair[1]))
    if not lists:
        return None
    path = ".".join(lists[0][0])
    return Found(items=lists[0][1], shape=f"a list in '{path}'", records=f"{path}[*]")


def _lists(body: dict[str, Any], above: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    for name, below in body.items():
        if isinstance(below, list) and all(isinstance(entry, dict) for entry in below):
            yield (*above, name), below
        elif isinstance(below, dict) and depth > 1:
            yield from _lists(below, (*above, name), depth - 1)


def place(body: Any, entries: list[Any]) -> Any:
    """The same answer with other entries in its list."""
    if isinstance(body, list):
        return entries
    found = located(body)
    if not isinstance(body, dict) or found is None or found.shape == "one object":
        return body
    return {name: _placed(below, found.items, entries) for name, below in body.items()}


def _placed(below: Any, items: list[Any], entries: list[Any]) -> Any:
    if below is items:
        return entries
    if isinstance(below, dict):
        return {name: _placed(inner, items, entries) for name, inner in below.items()}
    return below


def identity(item: Any) -> str:
    """What tells an item from others: its id, else all of it."""
    if isinstance(item, dict) and isinstance(item.get("id"), (str, int)):
        return str(item["id"]) + str(item.get("counterType", "")) + str(item.get("type", ""))
    return msgspec.json.encode(item).decode()
