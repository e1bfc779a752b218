"""The sentences of alerts of polls. Pure. All kinds of alerts are in docs/operating.md."""

from collections.abc import Mapping, Sequence
from typing import Literal

from oneweb_bridge.api.listing import Problems
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.encoding import count_text
from oneweb_bridge.model.records import Alert, RecordKind

UNREADABLE = "value_unreadable"
"""The alert of one field whose values cannot be parsed."""


def unreadable_alerts(call: str, problems: Problems) -> list[Alert]:
    """One alert for all records that were set aside, and one for each field with unparseable values."""
    alerts = []
    if problems.set_aside:
        what = count_text(
            problems.set_aside,
            "record could not be read and was left as it was",
            "records could not be read and were left as they were",
        )
        message = f"{what}; the first: {problems.first}"
        alerts.append(Alert(kind="set_aside", call=call, message=message))
    if problems.unanswered:
        what = count_text(problems.unanswered, "id was refused and gave no rows", "ids were refused and gave no rows")
        message = f"{what}; the first: {problems.first_refusal}"
        alerts.append(Alert(kind="answer_unexpected", call=call, about="refused", message=message))
    for name, count in problems.values.items():
        message = (
            f"{name} could not be read in {count_text(count, 'record')} and counts as not known there; "
            f"the first: {problems.reasons[name]}"
        )
        alerts.append(Alert(kind="value_unreadable", call=call, about=name, message=message))
    return alerts


def not_believed_alerts(call: str, count: int) -> list[Alert]:
    """An alert of `count` times of measurement that were not believed."""
    if not count:
        return []
    what = count_text(count, "time of measurement lies", "times of measurement lie")
    message = (
        f"{what} before 2019 or further ahead of now than api.clock_tolerance; "
        f"what {'it belongs' if count == 1 else 'they belong'} to was left out"
    )
    return [Alert(kind="time_not_believed", call=call, message=message)]


def ambiguous_alerts(call: str, count: int) -> list[Alert]:
    """An alert of `count` times that may mean one hour or the next."""
    if not count:
        return []
    what = count_text(count, "time without an offset lies", "times without an offset lie")
    message = (
        f"{what} in the hour that mapping.timezone has twice, and nothing tells which of the two is meant; "
        "the first was taken"
    )
    return [Alert(kind="time_ambiguous", call=call, message=message)]


def report_stopped_alert(call: Call, imeis: Sequence[str]) -> Alert:
    """An alert of terminals that are online and whose report has stopped."""
    named = ", ".join(imeis[:3]) + (", …" if len(imeis) > 3 else "")
    terminals = "1 terminal that is" if len(imeis) == 1 else f"{len(imeis)} terminals that are"
    return Alert(
        kind="report_stopped",
        call=call.id,
        message=f"the report {call.report} has stopped for {terminals} online, while that of others goes on: {named}",
    )


def values_held_alert(call: str, kind: RecordKind, counts: Mapping[str, int]) -> Alert:
    """An alert of fields whose values are held, each with the number of records that lost it."""
    named = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return Alert(
        kind="values_held",
        call=call,
        about=" ".join(counts),
        message=f"many {kind} records have lost a value at once, and keep the one that they had: {named}. "
        "To let the values go, press Release in the console, or publish {} to bridge/request/release below the base "
        "topic",
    )


def removal_held_alert(call: str, kind: RecordKind, reason: Literal["many", "empty"], count: int) -> Alert:
    """An alert of `count` records whose removal is held."""
    if reason == "empty":
        known = count_text(count, f"{kind} record was", f"{kind} records were")
        sentence = f"the listing is empty where {known} known; nothing is removed"
    else:
        missing = count_text(count, f"{kind} record is missing", f"{kind} records are missing")
        sentence = f"{missing} at once; {'its' if count == 1 else 'their'} removal is held"
    return Alert(
        kind="removal_held",
        call=call,
        message=f"{sentence}. To let them go, press Release in the console, or publish {{}} to bridge/request/release "
        "below the base topic",
    )
