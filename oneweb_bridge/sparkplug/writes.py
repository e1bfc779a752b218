"""What an NCMD asks for: writes that may be obeyed, and refusals with their sentence. Pure.

Source: Sparkplug 3.0.0, chapters 5.11 (commands), 6.4.22 (NCMD).
"""

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from oneweb_bridge.encoding import encode
from oneweb_bridge.sparkplug.content import call_of_metric
from oneweb_bridge.sparkplug.edge_node import REBIRTH
from oneweb_bridge.sparkplug.payload import Written, decode_command
from oneweb_bridge.sparkplug.tree import MetricSpec, MetricType

MAX_COMMAND_BYTES = 65_536
"""Longest NCMD that is read; there are some dozens of metrics to write."""
MAX_COMMAND_METRICS = 100
SpecOf = Callable[[Written], MetricSpec | None]


class Rebirth(msgspec.Struct, frozen=True):
    """All births are asked for again."""


class CallWrite(msgspec.Struct, frozen=True):
    """A member of a call's state is written, or a poll is asked for."""

    call: str
    member: str
    value: bool | int


class Refusal(msgspec.Struct, frozen=True):
    """What cannot be obeyed, and why. `metric` is the name of the metric whose value in force is the answer."""

    sentence: str
    metric: str = ""


Write = Rebirth | CallWrite | Refusal


def command_of(write: CallWrite) -> tuple[str, bytes]:
    """The end of the topic, and the payload, of the command that says the same as a write."""
    if write.member == "poll":
        return f"{write.call}/poll", b""
    return f"{write.call}/set", encode({write.member: write.value})


def read_writes(body: bytes, spec_of: SpecOf) -> list[Write]:
    """What an NCMD asks for, in its order."""
    if len(body) > MAX_COMMAND_BYTES:
        return [Refusal(f"an NCMD of {len(body)} bytes: expected at most {MAX_COMMAND_BYTES}")]
    try:
        written = decode_command(body)
    except ValueError as error:
        return [Refusal(f"an NCMD cannot be read: {error}")]
    if len(written) > MAX_COMMAND_METRICS:
        return [Refusal(f"an NCMD with {len(written)} metrics: expected at most {MAX_COMMAND_METRICS}")]
    return list(_writes(written, spec_of))


def _writes(metrics: list[Written], spec_of: SpecOf) -> Iterator[Write]:
    for written in metrics:
        spec = spec_of(written)
        if spec is None:
            yield Refusal(f"an NCMD writes {_named(written)}: expected a metric of the last NBIRTH")
        elif not spec.writable:
            yield Refusal(f"an NCMD writes {spec.name}: nobody may write it", spec.name)
        else:
            yield from _write(written, spec)


def _named(written: Written) -> str:
    if written.name:
        return "".join(char if char.isprintable() else " " for char in written.name[:64])
    return "a metric without name and alias" if written.alias is None else f"alias {written.alias}"


def _write(written: Written, spec: MetricSpec) -> Iterator[Write]:
    value, place = written.value, call_of_metric(spec.name)
    expected: Literal["true or false", "an integer"] = (
        "true or false" if spec.type == MetricType.BOOLEAN else "an integer"
    )
    is_right = isinstance(value, bool) if spec.type == MetricType.BOOLEAN else type(value) is int
    if not is_right or not isinstance(value, int):
        yield Refusal(f"an NCMD writes {spec.name}: expected {expected}", spec.name if place else "")
    elif spec.name == REBIRTH.name:
        if value:
            yield Rebirth()
    elif place is not None:
        yield CallWrite(place[0], place[1], value)
