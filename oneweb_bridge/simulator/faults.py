"""Faults on demand: what goes wrong, how often, and on which paths.

Kinds that replace the answer (`REPLACING`), kinds that bend an otherwise true one (its page, objects, links),
and kinds that spoil it on its way (`SPOILING`). The server plays the first and the last; the second are
functions here.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from .answer import Answer
from .paging import Page

Json = dict[str, Any]

Replacing = Literal[
    "status",
    "html",
    "empty_body",
    "null",
    "object",
    "empty_list",
    "redirect",
    "gzip_bomb",
    "big",
    "nan",
    "deep",
    "hang",
]
Bending = Literal[
    "missing_key", "nulls", "null_location", "number_imei", "unknown_attributes", "unknown_indicator", "drop_items",
    "page_repeat", "page_missing", "total_changes", "endless_next", "foreign_next",
]  # fmt: skip
Spoiling = Literal["cut", "truncated", "slow", "not_utf8", "bom", "content_type", "date"]
Story = Literal["corrected", "counter_reset", "cycle_rollover", "expire_tokens"]

REPLACING: frozenset[str] = frozenset(Replacing.__args__)  # type: ignore[attr-defined]  # a Literal's values
SPOILING: frozenset[str] = frozenset(Spoiling.__args__)  # type: ignore[attr-defined]  # a Literal's values
STORY: frozenset[str] = frozenset(Story.__args__)  # type: ignore[attr-defined]  # a Literal's values


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault: `kind`, where and how often, and what the kind needs."""

    kind: Replacing | Bending | Spoiling | Story
    path: str = ""
    """Only for requests whose path and query contain this."""
    count: int | None = None
    """How many requests it hits; without it, all until it is cleared."""
    after: int = 0
    """How many matching requests pass unharmed before."""
    status: int = 500
    """status, redirect: the status code (redirect: 302 unless it is 3xx)."""
    body: str | None = None
    """status: the body; without it, a short JSON error."""
    headers: dict[str, str] = {}
    """status: further headers."""
    bytes: int = 100
    """cut, truncated: bytes of the body that are sent."""
    length: Literal["content", "chunked", "none"] = "content"
    """cut: whether the answer says its length before, is chunked, or ends with the connection."""
    rate: float = 200.0
    """slow: bytes per second."""
    seconds: float = 3600.0
    """hang: seconds until the connection is closed without an answer; date: by which the Date header is ahead."""
    share: float = 0.5
    """drop_items, missing_key, nulls, null_location, number_imei: share of the objects that are hit."""
    key: str = "id"
    """missing_key: the attribute that is missing."""
    megabytes: float = 10.0
    """big, gzip_bomb: size of the body, decoded."""
    depth: int = 100_000
    """deep: how deep arrays are nested."""
    host: str = "elsewhere.invalid"
    """redirect, foreign_next: the other host."""
    by: int = 1
    """total_changes: how much the total grows from page to page."""
    value: str = "text/plain"
    """content_type: the type that is said."""
    report: str | None = None
    """corrected: only this report."""
    id: str | None = None
    """corrected, counter_reset: only this terminal or product."""


class Faults:
    """The faults that are waiting, in the order they were asked for."""

    def __init__(self) -> None:
        self._waiting: list[list[Any]] = []  # [fault, requests still to pass, hits left]

    def add(self, fault: Fault) -> None:
        """Let a fault wait for its requests."""
        self._waiting.append([fault, fault.after, fault.count])

    def clear(self) -> None:
        """Forget them all."""
        self._waiting.clear()

    def take(self, path: str) -> Fault | None:
        """The first fault that hits a request."""
        for entry in self._waiting:
            fault: Fault = entry[0]
            if fault.path not in path:
                continue
            if entry[1] > 0:
                entry[1] -= 1
                continue
            if entry[2] is not None:
                entry[2] -= 1
                if entry[2] <= 0:
                    self._waiting.remove(entry)
            return fault
        return None


def bend_page(fault: Fault | None, page: Page) -> Page:
    """`page_repeat`: every page is the first. `page_missing`: later pages are empty."""
    if fault is None or page.limit is None:
        return page
    if fault.kind == "page_repeat":
        return Page(0, page.limit)
    if fault.kind == "page_missing" and page.offset:
        return Page(page.offset, 0)
    return page


def bend_items(fault: Fault | None, items: list[Json], chance: Callable[..., float]) -> list[Json]:
    """The objects of a page with what the fault does to them."""
    if fault is None:
        return items
    if fault.kind == "drop_items":
        return [item for place, item in enumerate(items) if chance(place) >= fault.share]
    bend = _BENDS.get(fault.kind)
    if bend is None:
        return items
    return [
        bend(item, fault) if chance(place) < fault.share or fault.share >= 1 else item
        for place, item in enumerate(items)
    ]


def bend_ends(fault: Fault | None, page: Page, has_next: bool, total: int) -> tuple[bool, int]:
    """Whether there is a next page, and the total, as the fault tells them."""
    if fault is None:
        return has_next, total
    if fault.kind == "total_changes":
        return has_next, total + fault.by * (page.offset // (page.limit or 1))
    return has_next or fault.kind in ("endless_next", "foreign_next"), total


def bend_links(fault: Fault | None, answer: Answer) -> Answer:
    """`foreign_next`: the next page is on another host."""
    if fault and fault.kind == "foreign_next" and "Link" in answer.headers:
        scheme, _, rest = answer.headers["Link"].partition("://")
        answer.headers["Link"] = f"{scheme}://{fault.host}/{rest.partition('/')[2]}"
    return answer


def _missing_key(item: Json, fault: Fault) -> Json:
    return {name: value for name, value in item.items() if name != fault.key}


def _nulls(item: Json, _fault: Fault) -> Json:
    return {name: value if name in ("id", "imei") else None for name, value in item.items()}


def _null_location(item: Json, _fault: Fault) -> Json:
    return {**item, "location": None} if "location" in item else item


def _number_imei(item: Json, _fault: Fault) -> Json:
    return {
        name: int(value) if name in ("id", "imei") and str(value).isdecimal() else value for name, value in item.items()
    }


def _unknown_attributes(item: Json, _fault: Fault) -> Json:
    return {**item, "x-vendor": {"nested": [1, 2, {"deep": None}]}, "newFlag": True, "unité": "µ"}


def _unknown_indicator(item: Json, _fault: Fault) -> Json:
    new = {
        "name": "beamTemperature",
        "value": 21.5,
        "indicatorUnit": "C",
        "collectionType": "gauge",
        "indicatorType": "float",
    }
    measured = [
        {**measurement, "performanceIndicator": [*measurement["performanceIndicator"], new]}
        for measurement in item.get("measurement", ())
    ]
    return {**item, "measurement": measured} if measured else item


_BENDS: dict[str, Callable[[Json, Fault], Json]] = {
    "missing_key": _missing_key,
    "nulls": _nulls,
    "null_location": _null_location,
    "number_imei": _number_imei,
    "unknown_attributes": _unknown_attributes,
    "unknown_indicator": _unknown_indicator,
}
