"""Reports of use to amounts per UTC day, and when the limit of a cycle was reached. Pure.

What is used is cumulative in a bill cycle and falls back when the next one begins. The amount of a day is known when
both of its edges lie between reports that are not too far apart; the use at an edge is interpolated between them.
"""

import msgspec

from oneweb_bridge.trends.forecast import DAY_MS, MAX_DAYS

MAX_GAP_MS = 36 * 3_600_000
"""Furthest apart that two reports may be for the use between them to be interpolated."""


class UsageReport(msgspec.Struct, frozen=True):
    """What a bucket or a pool showed at one time (ms): the GB used in the cycle, which cycle, and its limit in GB.

    `cycle` is any text that differs between cycles, empty where none is known.
    """

    ts: int
    used: float
    cycle: str = ""
    limit: float | None = None


class UsageDays(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of the reports of one bucket or pool.

    `total` is what was used over all cycles up to the newest report, `edge` the same at the begin of that report's day,
    where it is known. `days` are the full days with their amounts, oldest first. `reached` is when the limit of this
    cycle was reached (ms). `alerted` is the end of the cycle for which the alert was given that it will be.
    """

    ts: int = -1
    used: float = 0.0
    cycle: str = ""
    total: float = 0.0
    edge: float | None = None
    days: tuple[tuple[int, float], ...] = ()
    limit: float | None = None
    reached: int | None = None
    alerted: str = ""


def starts_cycle(past: UsageDays, report: UsageReport) -> bool:
    """Whether a report is of another cycle than the newest one: it says so, or less is used and nothing is said.

    Less in the same cycle is a correction.
    """
    if past.ts < 0:
        return False
    if past.cycle and report.cycle:
        return past.cycle != report.cycle
    return report.used < past.used


def add_report(past: UsageDays, report: UsageReport) -> UsageDays:
    """What is known with one more report; one that is older than the newest changes nothing.

    One that is older by more than the longest gap means that the newest had a wrong time: what is behind it goes.
    """
    if report.ts < past.ts - MAX_GAP_MS:
        past = _without_later(past, report.ts)
    if report.ts < past.ts:
        return past
    is_new_cycle = starts_cycle(past, report)
    rise = 0.0 if past.ts < 0 else report.used if is_new_cycle else report.used - past.used
    edge, days = _cross_midnights(past, report.ts, rise)
    return UsageDays(
        ts=report.ts,
        used=report.used,
        cycle=report.cycle,
        total=round(past.total + rise, 6),
        edge=edge,
        days=days[-MAX_DAYS:],
        limit=report.limit,
        reached=_reached(past, report, is_new_cycle=is_new_cycle),
        alerted=past.alerted,
    )


def note_report(stored: UsageDays, unstored: UsageReport | None, report: UsageReport) -> UsageDays:
    """What is stored with one more report, and with one before it, `unstored`, that was not worth storing."""
    return add_report(stored if unstored is None else add_report(stored, unstored), report)


def is_worth_storing(stored: UsageDays, days: UsageDays) -> bool:
    """Whether more than the time of the newest report has changed, or that is of another day."""
    same = msgspec.structs.replace(days, ts=stored.ts) == stored
    return not same or days.ts // DAY_MS != stored.ts // DAY_MS


def _without_later(past: UsageDays, ts: int) -> UsageDays:
    """What is known without the newest report, and without days from that of `ts` on."""
    days = tuple((day, amount) for day, amount in past.days if day < ts // DAY_MS)
    return UsageDays(total=past.total, days=days, alerted=past.alerted)


def _cross_midnights(past: UsageDays, ts: int, rise: float) -> tuple[float | None, tuple[tuple[int, float], ...]]:
    """The use at the begin of the day of `ts`, and the full days, those among them that have ended since."""
    gap = ts - past.ts
    day = ts // DAY_MS
    if past.ts < 0 or gap > MAX_GAP_MS:
        # What is between is not known, but for a report of midnight itself.
        return (round(past.total + rise, 6) if ts % DAY_MS == 0 else None), past.days
    edge, days = past.edge, past.days
    for ended in range(past.ts // DAY_MS, day):
        total = past.total + rise * (((ended + 1) * DAY_MS - past.ts) / gap)
        if edge is not None:
            days = (*days, (ended, round(max(0.0, total - edge), 6)))
        edge = round(total, 6)
    return edge, days


def _reached(past: UsageDays, report: UsageReport, *, is_new_cycle: bool) -> int | None:
    """When the limit was reached: between two reports, or with the first one that is known of this cycle and limit."""
    limit = report.limit
    if limit is None or report.used < limit:
        return None
    if past.reached is not None and not is_new_cycle and past.limit == limit:
        return past.reached
    before = 0.0 if is_new_cycle else past.used
    if past.ts < 0 or before >= limit:
        return report.ts
    return past.ts + round((report.ts - past.ts) * (limit - before) / (report.used - before))
