"""Journal rows as messages of the live stream (SSE). Pure.

Of a row that gives two messages the state goes first and has no id, so that at most a state comes again where the
stream is cut between them, and an event never.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Row
from oneweb_bridge.mqtt.topics import EVENT_TYPE, TopicTree, cleared_names

FLEET_VALUES = {"signal_quality": ("sinr_db",), "link_availability": ("link_availability_pct",)}
"""Report -> its values that the fleet's table has."""


class LiveMessage(msgspec.Struct, frozen=True, gc=False):
    """One message as it is sent, and the row that it comes from; 0 for what is in no journal."""

    seq: int
    text: bytes


class _State(msgspec.Struct, frozen=True):
    entity: str
    id: str
    what: str
    body: Raw


class _Sample(msgspec.Struct, frozen=True):
    entity: str
    id: str
    report: str
    ts: int
    values: dict[str, Any]


class _CallState(msgspec.Struct, frozen=True):
    call: str
    body: Raw


class _EventBody(msgspec.Struct, frozen=True):
    record: Raw = Raw(b"null")
    components: Raw = Raw(b"{}")


_decode_event_body = msgspec.json.Decoder(_EventBody).decode
_NULL = Raw(b"null")


def format_message(event: str, data: bytes, id: str | None = None) -> bytes:
    """A message of the stream. Source: HTML, 9.2.6. JSON has no line ends in it."""
    head = f"event: {event}\n" if id is None else f"event: {event}\nid: {id}\n"
    return b"%bdata: %b\n\n" % (head.encode(), data)


def messages_of(tree: TopicTree, rows: Sequence[Row]) -> list[LiveMessage]:
    """The messages of a batch of rows in their order; of several samples of a report and id the newest alone."""
    newest = _newest_samples(rows)
    messages: list[LiveMessage] = []
    for row in rows:
        if row.what in ("metric", "history") and newest[row.entity, row.name, row.id] != row.seq:
            continue
        parts = list(_parts_of(tree, row))
        for number, (event, data) in enumerate(parts, 1):
            id = tree.event_id(row.seq) if number == len(parts) else None
            messages.append(LiveMessage(row.seq, format_message(event, data, id)))
    return messages


def _newest_samples(rows: Iterable[Row]) -> dict[tuple[str, str, str], int]:
    """Entity, report and id -> the row of the newest of its samples; of the same time the later row."""
    newest: dict[tuple[str, str, str], tuple[int, int]] = {}
    for row in rows:
        if row.what in ("metric", "history"):
            key = row.entity, row.name, row.id
            newest[key] = max(newest.get(key, (row.ts, row.seq)), (row.ts, row.seq))
    return {key: seq for key, (_, seq) in newest.items()}


def _parts_of(tree: TopicTree, row: Row) -> Iterable[tuple[str, bytes]]:
    match row.what:
        case "added" | "changed" | "removed" | "components":
            yield _state_of_event(row)
            if (event := event_of(tree, row)) is not None:
                yield "event", event
        case "state" if row.entity == "call":
            yield "state", encode(_CallState(row.id, Raw(row.body)))
        case "state":
            yield _state(row, row.name, Raw(row.body))
        case "metric" | "history":
            yield "sample", encode(_Sample(row.entity, row.id, row.name, row.ts, _fleet_values(row)))
        case "usage":
            yield _state_of_bucket(row, Raw(row.body))
        case "clear":
            # A row that clears a forecast alone says nothing of its bucket.
            if "usage" in cleared_names(row):
                yield _state_of_bucket(row, _NULL)
        case "alert" | "forecast":
            yield row.what, row.body


def _state_of_event(row: Row) -> tuple[str, bytes]:
    body = _decode_event_body(row.body)
    match row.what:
        case "removed":
            return _state(row, "state", _NULL)
        case "components":
            return _state(row, "components", Raw(encode({"imei": row.id, "components": body.components})))
        case _:
            return _state(row, "state", body.record)


def _state_of_bucket(row: Row, body: Raw) -> tuple[str, bytes]:
    return "state", encode(_State("usage", row.name or row.id, "usage", body))


def _state(row: Row, what: str, body: Raw) -> tuple[str, bytes]:
    return "state", encode(_State(row.entity, row.id, what, body))


def event_of(tree: TopicTree, row: Row) -> bytes | None:
    """The event of a row as it is published; None for a row without one, like the first components of a terminal."""
    events = (m.payload for m in tree.messages_of_row(row) if m.content_type == EVENT_TYPE)
    return next(events, None)


def _fleet_values(row: Row) -> dict[str, Any]:
    names = FLEET_VALUES.get(row.name)
    if names is None:
        return {}
    sample: dict[str, Any] = msgspec.json.decode(row.body)
    return {name: sample[name] for name in names if name in sample}
