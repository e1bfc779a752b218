"""The metrics of an Edge Node itself: the bridge, the API, the journal, and the calls that may be written. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.model.devices import TimedDoc
from oneweb_bridge.model.records import Row
from oneweb_bridge.sparkplug import content
from oneweb_bridge.sparkplug.tree import Metric

TEXTS: Mapping[str, str] = {
    "Node Control/Rebirth": "true asks for the births of the node and of all its Devices",
    content.CONNECTED.name: "whether the API takes the credentials and answers",
    content.BACKLOG.name: "rows of the journal that wait for this outlet",
} | {
    name: text
    for call in CALLS
    for name, text in (
        (content.call_spec(call, "interval").name, "the interval that was set, 10 s to 7 d"),
        (content.call_spec(call, "poll").name, "true polls now"),
    )
}
"""Metric -> its property `Documentation`."""


def bridge_metrics(version: str, instance: str, since: int) -> list[Metric]:
    """Which bridge it is, since its start."""
    return [Metric(content.VERSION, version, since), Metric(content.INSTANCE, instance, since)]


def api_metric(*, is_connected: bool, since: int) -> Metric:
    """Whether the API is there."""
    return Metric(content.CONNECTED, is_connected, since)


def backlog_metric(count: int, now: int) -> Metric:
    """How many rows wait."""
    return Metric(content.BACKLOG, count, now)


def polling_metrics(states: Mapping[str, TimedDoc], now: int) -> list[Metric]:
    """The metrics of all calls; null for one whose state is not stored yet."""
    return [metric for call in CALLS for metric in call_metrics_of(call, states, now)]


def call_metrics_of(
    call: str, states: Mapping[str, TimedDoc], now: int, members: Sequence[str] = content.CALL_MEMBERS
) -> list[Metric]:
    """The metrics of some members of a call's state."""
    state = states.get(call)
    if state is None:
        return content.call_metrics(call, {}, now, members)
    return content.call_metrics(call, msgspec.json.decode(state.doc), state.ts, members)


def row_metrics(row: Row) -> list[Metric]:
    """What a row says of a call."""
    if row.entity != "call" or row.id not in CALLS:
        return []
    return content.call_metrics(row.id, msgspec.json.decode(row.body), row.ts)
