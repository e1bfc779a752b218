"""Which time windows of a report to ask for, and how their bounds are written. Pure. Times in ms since the epoch."""

from collections.abc import Mapping

from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.encoding import rfc3339

WindowBounds = tuple[int | None, int | None]
"""Begin and end of a time window; None is open."""
HOUR = 3_600_000
DAY = 24 * HOUR


def time_windows(
    call: Call, window_end: int, newest: int, *, earlier_now: int, api_now: int, horizon: int = 0
) -> list[WindowBounds]:
    """The windows to ask for, oldest first: bounded steps, then an open one. `newest` is -1 for no sample.

    None begins before `horizon`: of what lies there it is not known any more whether it was published. Only a wrong
    clock of the API lets a window begin there.

    `earlier_now` is the earlier of the host's and the API's time, by which steps are counted; `api_now` the API's.
    """
    if call.window is None or (window_end == 0 and newest < 0 and not call.window.required):
        return [(None, None)]
    length, lateness = round(call.window.length * 1000), round(call.lateness * 1000)
    start = (window_end or (newest if newest >= 0 else api_now - length)) - lateness
    if 0 <= newest < start:
        # What was delayed may all come at once. As long as that costs no request more, it is asked for now; a longer
        # silence is made up for when it ends.
        steps = max(1, -(-(earlier_now - start) // length))
        start = newest - lateness if earlier_now - (newest - lateness) <= steps * length else start
    start = max(start, earlier_now - round(call.window.keep * 1000), horizon)
    windows: list[WindowBounds] = []
    while earlier_now - start > length:
        windows.append((start, start + length))
        start += length
    return [*windows, (start, api_now if call.window.required else None)]


def skipped_windows(
    call: Call, newest: Mapping[str, int], first: int, earlier_now: int
) -> list[tuple[WindowBounds, tuple[str, ...] | None]]:
    """The steps from the newest sample of each id, or of all (""), to `first`; an id without a sample has none.

    Each comes with the ids that it is of; None stands for all.
    """
    if call.window is None:
        return []
    oldest = earlier_now - round(call.window.keep * 1000)
    begins = {id: ts - round(call.lateness * 1000) for id, ts in newest.items() if oldest <= ts < first}
    begin = max(min(begins.values(), default=first), oldest)
    windows: list[tuple[WindowBounds, tuple[str, ...] | None]] = []
    while begin < first:
        end = min(begin + round(call.window.length * 1000), first)
        ids = tuple(id for id, ts in begins.items() if ts < end)
        windows.append(((begin, end), ids if call.for_each else None))
        begin = end
    return windows


def window_end_after(before: int, end: int | None, api_time: int, newest: int) -> int:
    """Where a window ends that was asked for up to `end`, by an answer of `api_time`. `newest` is -1 for no sample.

    It does not reach beyond the API's own time. But an answer that says it is older than the newest sample known has a
    wrong date: it does not take the end back behind `before`, up to where everything was asked for already.
    """
    reached = min(end or api_time, api_time)
    return max(reached, before) if api_time < newest else reached


def horizon_after(call: Call, before: int, start: int | None, oldest: int, newest: int) -> int:
    """The time before which seen samples may be forgotten: the API does not show them, and nothing later is missing.

    It was neither asked for nor in the answer, and lies before the newest sample known: no clock has a say in this.
    """
    if newest < 0:
        return before
    known = newest - round(call.lateness * 1000)
    return max(before, min(start or 0, oldest, known), known - 7 * DAY)


def window_params(call: Call, window: WindowBounds) -> dict[str, str]:
    """The parameters of a request for a window."""
    start, end = window
    if call.window is None or start is None:
        return {}
    params = {call.window.start_param: format_time(call.window.format, start)}
    if end is not None:
        params[call.window.end_param] = format_time(call.window.format, end, is_end=True)
    return params


def format_time(format_: str, ts: int, *, is_end: bool = False) -> str:
    """A time as the API wants it, in UTC. The end of a window in dates is the day after, so that today is in it."""
    match format_:
        case "epoch_ms":
            return str(ts)
        case "epoch_s":
            return str(ts // 1000)
        case "rfc3339_s":
            return rfc3339(ts)[:19] + "Z"
        case "rfc3339_offset":
            return rfc3339(ts)[:19] + "+00:00"
        case "without_zone":
            return rfc3339(ts)[:19]
        case "date":
            return rfc3339(ts + DAY if is_end else ts)[:10]
    return rfc3339(ts)
