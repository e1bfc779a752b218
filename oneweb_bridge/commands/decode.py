"""Decodes payloads of the command topics. What is wrong is a BadCommand of one sentence. Pure."""

import contextlib
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Literal, TypeVar

import msgspec

from oneweb_bridge.config.units import MAX_INTERVAL_S, MAX_QUANTITY_CHARS, MIN_INTERVAL_S, parse_duration, shortened
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.decode.values import parse_datetime
from oneweb_bridge.encoding import describe_mismatch
from oneweb_bridge.mqtt.topics import CommandTopic

MAX_COMMAND_BYTES = 4096
"""Longest payload of a command in bytes."""
ALL = "all"

RequestName = Literal["republish", "replay", "release", "purge"]
REQUESTS: tuple[RequestName, ...] = ("republish", "replay", "release", "purge")


_REPORTS = {
    "terminal": [call.report for call in CALLS.values() if call.report and call.entity == "terminal"] + ["presence"],
    "product": [call.report for call in CALLS.values() if call.report and call.entity == "product"] + ["usage"],
}
"""Entity -> the reports that it has samples of."""


def check_report(report: str | None, entity: str | None = None) -> None:
    """Raises ValueError with a sentence for a report that an entity, or without one anything, never has."""
    known = [*_REPORTS["terminal"], *_REPORTS["product"]] if entity is None else _REPORTS[entity]
    if report is not None and report not in known:
        owner = "there" if entity is None else f"for a {entity} there"
        raise ValueError(f"report: {owner} is no {shortened(report)}, expected one of {', '.join(known)}")


def no_such_call(name: str) -> str:
    """What to say of a call that there is not."""
    return f"there is no call {name[:64]!r}, expected one of {', '.join(CALLS)}"


class BadCommand(ValueError):
    """A command that cannot be executed; the text says what was expected. `id` is the sender's, if it is readable."""

    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


class Set(msgspec.Struct, frozen=True):
    """Settings to store: each name with its value, or None to go back to the configuration file."""

    call: str
    changes: dict[str, bool | float | None]
    id: str | None = None


class Poll(msgspec.Struct, frozen=True):
    """Polls a call now, or every enabled one with `all`."""

    call: str
    id: str | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A bridge request. Which members it uses depends on `name`."""

    name: RequestName
    id: str | None = None
    what: Literal["everything", "discovery"] = "everything"
    call: str | None = None
    since: str | float | None = None
    until: str | float | None = None
    imei: str | None = None
    product_id: str | None = None
    report: str | None = None
    every: str | float | None = None


Command = Set | Poll | Request


class SetPayload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Payload of `set`: `interval` in seconds or as `5m`, `enabled` also as `ON`, `yes` or 1; null: as in the file."""

    enabled: bool | int | str | msgspec.UnsetType | None = msgspec.UNSET
    interval: int | float | str | msgspec.UnsetType | None = msgspec.UNSET
    id: str | None = None


class PollPayload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Payload of `poll`; it may also be empty."""

    id: str | None = None


class Republish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Payload of `republish`: which retained topics are published again."""

    id: str | None = None
    what: Literal["everything", "discovery"] = "everything"


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Payload of `replay`: whose past events and samples are sent again, and from which time."""

    id: str | None = None
    since: str | float | None = None
    until: str | float | None = None
    imei: str | None = None
    product_id: str | None = None
    report: str | None = None
    every: str | float | None = None


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Payload of `release`: the call whose held removals and values are released; without it, all calls."""

    id: str | None = None
    call: str | None = None


class Purge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Payload of `purge`: only an id of yours."""

    id: str | None = None


PAYLOADS: dict[RequestName, type[msgspec.Struct]] = {
    "republish": Republish,
    "replay": Replay,
    "release": Release,
    "purge": Purge,
}


def is_no_command(topic: CommandTopic, payload: bytes, *, retain: bool) -> bool:
    """Whether a payload is no command: an empty one, which on `poll` clears a retained message or polls."""
    return not payload.strip() and (retain or topic.verb != "poll")


def decode_command(topic: CommandTopic, payload: bytes) -> Command:
    """The command of a payload. Raises only BadCommand: a retained payload that raised more would come again."""
    try:
        return _decode(topic, payload)
    except BadCommand:
        raise
    except Exception as error:
        raise BadCommand(f"the payload cannot be read ({type(error).__name__}), see docs/commands.md") from error


def _decode(topic: CommandTopic, payload: bytes) -> Command:
    if len(payload) > MAX_COMMAND_BYTES:
        raise BadCommand(f"the payload has {len(payload)} bytes, expected at most {MAX_COMMAND_BYTES}")
    if topic.kind == "request":
        return _decode_request(topic.name, payload)
    if topic.name != ALL and topic.name not in CALLS:
        raise BadCommand(no_such_call(topic.name), id_of(payload))
    match topic.verb:
        case "poll":
            decoded = _decode_payload(payload.strip() or b"{}", PollPayload)
            return Poll(topic.name, decoded.id)
        case "set":
            return _decode_set(topic.name, _decode_payload(payload, SetPayload))
        case _:
            return Set(topic.name, {topic.verb: _decode_bare_value(topic.verb, payload)})


Form = TypeVar("Form", bound=msgspec.Struct)


def _decode_payload(payload: bytes, form: type[Form]) -> Form:
    try:
        return msgspec.json.decode(payload, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        names = ", ".join(name for name in form.__struct_fields__)
        raise BadCommand(
            f"expected a JSON object with any of {names}: {describe_mismatch(error, form)}", id_of(payload)
        ) from None


def id_of(payload: bytes) -> str | None:
    """The `id` of a payload that could not be decoded, so that the sender knows which answer this is."""
    try:
        decoded = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    id = decoded.get("id") if isinstance(decoded, dict) else None
    return id[:256] if isinstance(id, str) else None


def _decode_set(call: str, payload: SetPayload) -> Set:
    changes: dict[str, bool | float | None] = {}
    if payload.enabled is not msgspec.UNSET:
        changes["enabled"] = None if payload.enabled is None else _parse_switch(payload.enabled, payload.id)
    if payload.interval is not msgspec.UNSET:
        changes["interval"] = None if payload.interval is None else _parse_interval(payload.interval, payload.id)
    if not changes:
        raise BadCommand("expected enabled, interval, or both", payload.id)
    return Set(call, changes, payload.id)


def _decode_bare_value(name: str, payload: bytes) -> bool | float | None:
    try:
        text = payload.decode().strip()
    except UnicodeDecodeError:
        raise BadCommand("expected a text in UTF-8") from None
    text = text.strip('"')
    if text == "null":
        return None
    if name == "interval":
        return _parse_interval(text, None)
    return _parse_switch(text, None)


SWITCHES = {
    **dict.fromkeys(("true", "on", "yes", "1"), True),
    **dict.fromkeys(("false", "off", "no", "0"), False),
}
"""The words for enabled and disabled, in lower case."""


def _parse_switch(value: bool | int | str, id: str | None) -> bool:
    text = str(value).strip()[:41]
    if text.casefold() not in SWITCHES:
        raise BadCommand(f"enabled: expected true, false, ON, OFF, yes, no, 1 or 0, got {text[:40]!r}", id)
    return SWITCHES[text.casefold()]


def _parse_interval(raw: float | str, id: str | None) -> float:
    try:
        return parse_interval(raw)
    except ValueError as error:
        raise BadCommand(str(error), id) from None


def parse_interval(value: float | str) -> float:
    """Seconds of an interval within its bounds. Raises ValueError with a sentence."""
    try:
        seconds = parse_duration(value)
    except ValueError:
        # Its own bounds are those of any duration, not of an interval.
        text = f"interval: expected a duration like 30s or 5m, from 10 s to 7 d, got {shortened(value)}"
        raise ValueError(text) from None
    if not MIN_INTERVAL_S <= seconds <= MAX_INTERVAL_S:
        raise ValueError(f"interval: expected 10 s to 7 d, got {value!r}")
    return seconds


def _decode_request(name: str, payload: bytes) -> Request:
    if name not in PAYLOADS:
        expected = f"expected one of {', '.join(REQUESTS)}"
        raise BadCommand(f"there is no request {name[:64]!r}, {expected}", id_of(payload))
    decoded = _decode_payload(payload, PAYLOADS[name])
    if getattr(decoded, "call", None) not in (None, *CALLS):
        raise BadCommand(no_such_call(decoded.call), id_of(payload))  # type: ignore[attr-defined]
    return Request(name=name, **msgspec.structs.asdict(decoded))


def command_identity(payload: bytes, id: str | None) -> str:
    """How a redelivered command is recognised: its id, else the hash of its payload."""
    return f"id:{id}" if id is not None else f"sha256:{sha256(payload).hexdigest()}"


MAX_TIME_MS = 253_402_300_800_000
"""The end of the year 9999 in ms since the epoch, beyond which no time can be written."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_FROM = 1e9
"""Numbers from here on are seconds since the epoch; smaller ones are seconds before now."""


def time_range(since: str | float | None, until: str | float | None, now: float) -> tuple[int, int]:
    """The times of `since` and `until` in ms since the epoch, the end not included. Raises ValueError.

    None means from the first or to the last; `now` is in seconds.
    """
    begin = 0 if since is None else _parse_instant("since", since, now)
    end = MAX_TIME_MS if until is None else _parse_instant("until", until, now)
    if end <= begin:
        raise ValueError("until: expected a time after since")
    return begin, end


MIN_EVERY_S = 60.0


def parse_every(value: str | float) -> int:
    """The length in ms of the intervals in which values are thinned out. Raises ValueError with a sentence."""
    with contextlib.suppress(ValueError):
        if (seconds := parse_duration(value)) >= MIN_EVERY_S:
            return round(seconds * 1000)
    raise ValueError(f"every: expected at least 1m, like 5m or 1h, and at most 100 years, got {shortened(value)}")


def _parse_instant(name: str, value: str | float, now: float) -> int:
    """A time in ms since the epoch, from a time or a duration before now. Raises ValueError."""
    try:
        return _to_ms(value, now)
    except (ValueError, ArithmeticError):
        raise ValueError(
            f"{name}: expected a time like 2025-06-17T13:40:07Z, with its zone, or how long ago like 24h, "
            f"in the years 1 to 9999, got {str(value)[:40]!r}"
        ) from None


def _to_ms(value: str | float, now: float) -> int:
    if isinstance(value, str):
        if len(value) > MAX_QUANTITY_CHARS:
            raise ValueError
        value = float(value) if value.strip().isdecimal() else value
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return _bounded((now - parse_duration(value)) * 1000)
        return _bounded(_time_of(value))
    if value < EPOCH_FROM:
        return _bounded((now - parse_duration(value)) * 1000)
    return _bounded(value if value >= 1e11 else value * 1000)


def _time_of(text: str) -> int:
    """The time of a text in ms since the epoch. What lies before the epoch counts as the epoch: nothing is older."""
    moment, more = parse_datetime(text)
    if moment.tzinfo is None:
        # Whoever leaves the zone out means one of two, and would get hours that were not asked for.
        raise ValueError
    return max(0, round((moment - EPOCH) / timedelta(milliseconds=1)) + more)


def _bounded(ms: float) -> int:
    """The time in ms. Compared before it is rounded: infinity has no integer. Raises ValueError."""
    if not 0 <= ms < MAX_TIME_MS:
        raise ValueError
    return round(ms)
