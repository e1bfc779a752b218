"""Finds the time parameters of a report: which to try, and what the answers mean. Pure."""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from oneweb_bridge.decode.catalogue import Call, TimeWindow
from oneweb_bridge.explore.evidence import Reply, Span, find_list
from oneweb_bridge.polling.time_windows import format_time

_NAMES = (
    ("from", "to"),
    ("startTime", "endTime"),
    ("start", "end"),
    ("startDate", "endDate"),
)
_FORMATS = ("rfc3339", "epoch_ms", "epoch_s")
HOUR = 3_600_000


class WindowAttempt(msgspec.Struct, frozen=True):
    """Time parameters to try, and the change of `window` that makes the bridge send them."""

    params: dict[str, str]
    change: dict[str, Any]


def attempts(call: Call, now: int, before: Span | None) -> Iterator[WindowAttempt]:
    """The configured parameters, then others; alone what worked for a report before, where one did. Times in ms."""
    window = call.window or TimeWindow()
    begin = now - round(2000 * call.lateness) - 3 * HOUR
    if before is not None:
        if before.works is not False:
            yield _try(window, before.change, begin, now)
        return
    for start, end in ((window.start_param, window.end_param), *_NAMES):
        for format_ in _FORMATS:
            change = {"start_param": start, "end_param": end, "format": format_}
            changed = {name: value for name, value in change.items() if getattr(window, name) != value}
            yield _try(window, changed, begin, now)


def _try(window: TimeWindow, change: dict[str, Any], begin: int, end: int) -> WindowAttempt:
    settings = msgspec.structs.asdict(window) | change
    names = (settings["start_param"], settings["end_param"])
    return WindowAttempt(
        {name: format_time(settings["format"], ts) for name, ts in zip(names, (begin, end), strict=True)}, change
    )


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
