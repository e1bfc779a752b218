"""Ways to put a fault into a trace: into packets, topics, payloads, and their order."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from oneweb_bridge.sparkplug import sparkplug_b_pb2 as pb
from tests.sparkplug.facts import Facts
from tests.sparkplug.wire import Connect, Event, Packet, Publish, Trace

Tamper = Callable[[list[Event]], Iterable[Event]]
replace = msgspec.structs.replace


def verb_of(event: Event) -> str:
    if not isinstance(event.packet, Publish):
        return ""
    levels = event.packet.topic.split("/")
    return "STATE" if levels[1] == "STATE" else levels[2]


def edit_packets(kind: type[Packet], edit: Callable[[Any], Packet]) -> Tamper:
    """Changes each packet of a kind that goes up."""
    return lambda events: [
        replace(event, packet=edit(event.packet)) if isinstance(event.packet, kind) and event.up else event
        for event in events
    ]


def edit_messages(verb: str, edit: Callable[[Publish], Publish], nth: int = -1) -> Tamper:
    """Changes each message of a verb, or its nth alone (from 0)."""

    def tamper(events: list[Event]) -> Iterable[Event]:
        number = -1
        for event in events:
            if verb_of(event) != verb:
                yield event
                continue
            number += 1
            is_meant = nth in (-1, number)
            yield replace(event, packet=edit(event.packet)) if is_meant else event  # type: ignore[arg-type]  # a Publish

    return tamper


def edit_payloads(verb: str, edit: Callable[[pb.Payload], object], nth: int = -1) -> Tamper:
    """Changes the payload of each message of a verb, or of its nth alone."""
    return edit_messages(verb, lambda packet: replace(packet, payload=_edited(packet.payload, edit)), nth)


def _edited(body: bytes, edit: Callable[[pb.Payload], object]) -> bytes:
    payload = pb.Payload()
    payload.ParseFromString(body)
    edit(payload)
    return payload.SerializeToString()


def edit_wills(edit: Callable[[pb.Payload], object]) -> Tamper:
    """Changes the payload of each will."""

    def of(packet: Connect) -> Packet:
        assert packet.will
        return replace(packet, will=replace(packet.will, payload=_edited(packet.will.payload, edit)))

    return edit_packets(Connect, of)


def drop(is_meant: Callable[[Event], bool], nth: int = -1) -> Tamper:
    """Takes events away: each that is meant, or the nth alone."""

    def tamper(events: list[Event]) -> Iterable[Event]:
        number = -1
        for event in events:
            number += is_meant(event)
            if not (is_meant(event) and nth in (-1, number)):
                yield event

    return tamper


def drop_verb(verb: str, nth: int = -1) -> Tamper:
    return drop(lambda event: verb_of(event) == verb, nth)


def move_before(verb: str, other: str) -> Tamper:
    """Puts the first message of a verb before the first of another."""

    def tamper(events: list[Event]) -> list[Event]:
        at = next(i for i, event in enumerate(events) if verb_of(event) == verb)
        moved = events.pop(at)
        events.insert(next(i for i, event in enumerate(events) if verb_of(event) == other), moved)
        return events

    return tamper


def edit_metrics(
    verb: str, edit: Callable[[pb.Payload.Metric], object], name: str | None = None, nth: int = -1
) -> Tamper:
    """Changes all metrics of a verb's payloads, or those of one name."""

    def of(payload: pb.Payload) -> None:
        for metric in payload.metrics:
            if name is None or metric.name == name:
                edit(metric)

    return edit_payloads(verb, of, nth)


def set_members(**members: Any) -> Callable[[Any], object]:
    def edit(message: Any) -> None:
        for name, value in members.items():
            setattr(message, name, value)

    return edit


def clear(name: str) -> Callable[[Any], object]:
    return lambda message: message.ClearField(name)


def retopic(old: str, new: str) -> Callable[[Publish], Publish]:
    return lambda packet: replace(packet, topic=packet.topic.replace(old, new))


def repeat(verb: str, nth: int) -> Tamper:
    """Sends a message of a verb twice."""

    def tamper(events: list[Event]) -> Iterable[Event]:
        number = -1
        for event in events:
            number += verb_of(event) == verb
            yield event
            if verb_of(event) == verb and number == nth:
                yield event

    return tamper


def overlap(events: list[Event]) -> list[Event]:
    """The last connection but one is closed only at the very end."""
    sessions = Facts(Trace(tuple(events))).sessions
    at = sessions[-2].closed_index
    assert at is not None
    return [*events[:at], *events[at + 1 :], events[at]]


def send_late_data(events: list[Event]) -> Iterable[Event]:
    """Between the second request and its rebirth a DDATA comes, 2 s after the request."""
    births, data = 0, next(event for event in events if verb_of(event) == "DDATA")
    for event in events:
        births += verb_of(event) == "NBIRTH"
        if births == 3 and verb_of(event) == "NBIRTH":
            yield replace(data, at=event.at - 0.001)
        yield event


def reverse(payload: pb.Payload) -> None:
    metrics = [pb.Payload.Metric.FromString(metric.SerializeToString()) for metric in reversed(payload.metrics)]
    del payload.metrics[:]
    payload.metrics.extend(metrics)


def edit_qualities(**members: Any) -> Callable[[pb.Payload], object]:
    def edit(payload: pb.Payload) -> None:
        for metric in payload.metrics:
            if "Quality" in metric.properties.keys:
                value = metric.properties.values[list(metric.properties.keys).index("Quality")]
                value.Clear()
                set_members(**members)(value)

    return edit


def edit_first_property(edit: Callable[[Any], object]) -> Callable[[pb.Payload.Metric], object]:
    return lambda metric: edit(metric.properties.values[0]) if metric.properties.values else None


def _swap_name(metric: pb.Payload.Metric) -> None:
    metric.name = metric.name.swapcase()


def add_in_other_case(payload: pb.Payload) -> None:
    copy = payload.metrics.add()
    copy.CopyFrom(payload.metrics[0])
    copy.alias = 999
    _swap_name(copy)


def shift_seq(payload: pb.Payload) -> None:
    payload.seq = (payload.seq + 1) % 256


def without_will(packet: Connect) -> Packet:
    return replace(packet, will=None)


def edit_will(**members: Any) -> Callable[[Connect], Packet]:
    def edit(packet: Connect) -> Packet:
        assert packet.will
        return replace(packet, will=replace(packet.will, **members))

    return edit


def is_packet(kind: type[Packet]) -> Callable[[Event], bool]:
    return lambda event: isinstance(event.packet, kind)
