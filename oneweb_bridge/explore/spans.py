"""Finds the time parameters of a report: which to try, in which form, and what the answers mean. Pure."""

import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from oneweb_bridge.decode.catalogue import Call, TimeWindow
from oneweb_bridge.explore.evidence import Reply, find_list
from oneweb_bridge.polling.time_windows import format_time

_NAMES = (
    ("from", "to"),
    ("startTime", "endTime"),
    ("start", "end"),
    ("startDate", "endDate"),
    ("fromDate", "toDate"),
)
_FORMATS = ("rfc3339_s", "epoch_ms", "epoch_s", "date", "rfc3339_offset", "without_zone")
HOUR = 3_600_000


class WindowAttempt(msgspec.Struct, frozen=True):
    """Time parameters to try, and the change of `window` that makes the bridge send them."""

    params: dict[str, str]
    change: dict[str, Any]


def attempts(call: Call, now: int, hint: dict[str, Any] | None) -> Iterator[WindowAttempt]:
    """The configured parameters, those that worked for another report, then others. Times in ms."""
    window = call.window or TimeWindow()
    begin = now - round(2000 * call.lateness) - 3 * HOUR
    yield _attempt(window, {}, begin, now)
    if hint is not None:
        yield _attempt(window, hint, begin, now)
    for start, end in ((window.start_param, window.end_param), *_NAMES):
        for format_ in ("rfc3339", "epoch_ms", "epoch_s"):
            change = {"start_param": start, "end_param": end, "format": format_}
            yield _attempt(window, _different(window, change), begin, now)


def _attempt(window: TimeWindow, change: dict[str, Any], begin: int, end: int) -> WindowAttempt:
    settings = msgspec.structs.asdict(window) | change
    first = format_time(settings["format"], begin)
    last = format_time(settings["format"], end, is_end=True)
    return WindowAttempt({settings["start_param"]: first, settings["end_param"]: last}, change)


def _different(window: TimeWindow, change: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in change.items() if getattr(window, name) != value}


def changes_after_refusal(call: Call, text: str, hint: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Changes of `window` to try where time parameters, or their absence, were refused with this text.

    What the text names comes first: parameters, a format, a shorter span.
    """
    window, shorter = call.window or TimeWindow(), {"length": f"{max(60, round(call.lateness / 30))}m"}
    if hint:
        yield hint
        yield {**hint, "required": True}
    names = [*_named_parameters(text), (window.start_param, window.end_param)]
    formats = sorted(_FORMATS, key=lambda format_: not re.search(_HINTS[format_], text, re.IGNORECASE))
    for start, end in dict.fromkeys(names):
        base = _different(window, {"start_param": start, "end_param": end})
        yield {**base, "required": True}
        yield {**base, "required": True, **shorter}
        for format_ in formats:
            yield {**base, "format": format_}
            yield {**base, "format": format_, "required": True}
    for start, end in _NAMES:
        base = _different(window, {"start_param": start, "end_param": end})
        for format_ in dict.fromkeys(("rfc3339", formats[0], "epoch_s", "epoch_ms")):
            yield {**base, **_different(window, {"format": format_}), "required": True}


_HINTS = {
    "rfc3339_s": r"HH:mm:ss'?Z|ISO|RFC|fraction",
    "epoch_ms": r"milli|epoch",
    "epoch_s": r"seconds|unix|epoch",
    "date": r"yyyy-MM-dd(?!.?T)|\bdate\b",
    "rfc3339_offset": r"offset|zone|\+00",
    "without_zone": r"local|without",
}


def _named_parameters(text: str) -> list[tuple[str, str]]:
    """Pairs of parameters that a refusal names: one that begins and one that ends."""
    words = re.findall(r"[A-Za-z_][A-Za-z_.]{1,30}", text)
    starts = [word for word in words if re.match(r"(from|start|begin|since)", word, re.IGNORECASE)]
    ends = [word for word in words if re.match(r"(to$|to[A-Z_]|end|until)", word)]
    return [(starts[0], ends[0])] if starts and ends else []


def judge_window(plain: Reply, windowed: Reply) -> Literal["works", "unheard", "rejected", "refused"]:
    """Whether a span was understood: it shows more than a request without one, or is the only one that is answered."""
    if windowed.outcome != "ok":
        return "rejected" if windowed.outcome in ("rejected", "odd") else "refused"
    if plain.outcome != "ok":
        return "works"
    more = _count_values(windowed) - _count_values(plain)
    # Less than without a span: it was understood, but as another time.
    return "works" if more > 0 else "unheard" if more == 0 else "rejected"


def _count_values(reply: Reply) -> int:
    """How many values an answer holds."""
    listed = find_list(reply.body)
    return sum(map(_entries, listed.items)) if listed else 0


def _entries(item: Any) -> int:
    if isinstance(item, dict):
        return sum(_entries(below) for below in item.values())
    return 1 + sum(map(_entries, item)) if isinstance(item, list) else 1
