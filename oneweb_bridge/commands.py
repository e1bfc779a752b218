"""What comes in on the command topics: payload to command, and the sentence that says why not. Pure."""

from hashlib import sha256
from typing import Literal, TypeVar

import msgspec

from oneweb_bridge.catalogue import CALLS
from oneweb_bridge.settings import parse_duration
from oneweb_bridge.values import Odd, moment

MOST = 4096
"""Longest payload of a command in bytes."""
SHORTEST, LONGEST = 10.0, 604800.0
"""Bounds of an interval in seconds."""
ALL = "all"

Verb = Literal["set", "poll", "enabled", "interval"]
RequestName = Literal["republish", "replay", "release", "purge"]
REQUESTS: tuple[RequestName, ...] = ("republish", "replay", "release", "purge")


class BadCommand(ValueError):
    """A command that cannot be obeyed; the text says what was expected. `id` is the sender's, if it was readable."""

    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


class Set(msgspec.Struct, frozen=True):
    """A wish that lasts: each name with its value, or None to go back to the configuration file."""

    call: str
    changes: dict[str, bool | float | None]
    id: str | None = None


class Poll(msgspec.Struct, frozen=True):
    """Polls a call now, or every enabled one with `all`."""

    call: str
    id: str | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the bridge does once. Which members mean something depends on `name`."""

    name: RequestName
    id: str | None = None
    what: Literal["everything", "discovery"] = "everything"
    call: str | None = None
    since: str | float | None = None
    until: str | float | None = None
    imei: str | None = None
    product_id: str | None = None
    report: str | None = None


Command = Set | Poll | Request


class SetPayload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `set` takes, any of it: `interval` in seconds or as `5m`; null goes back to the configuration file."""

    enabled: bool | msgspec.UnsetType | None = msgspec.UNSET
    interval: int | float | str | msgspec.UnsetType | None = msgspec.UNSET
    id: str | None = None


class PollPayload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `poll` takes; an empty payload is as good."""

    id: str | None = None
    source: str | None = None


class Republish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is published again."""

    id: str | None = None
    what: Literal["everything", "discovery"] = "everything"


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose events and samples of the past are sent once more, and of which span of time."""

    id: str | None = None
    since: str | float | None = None
    until: str | float | None = None
    imei: str | None = None
    product_id: str | None = None
    report: str | None = None


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The call whose held removals go; without it, all of them."""

    id: str | None = None
    call: str | None = None


class Purge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing but an id of yours."""

    id: str | None = None


PAYLOADS: dict[RequestName, type[msgspec.Struct]] = {
    "republish": Republish,
    "replay": Replay,
    "release": Release,
    "purge": Purge,
}


class Address(msgspec.Struct, frozen=True):
    """Where a command came in: polling/{call}/{verb} or request/{name}, below the base."""

    kind: Literal["polling", "request"]
    name: str
    verb: Verb | Literal[""] = ""


def address_of(topic: str, base: str) -> Address | None:
    """The command address of a topic, or None when it is no command topic."""
    levels = topic.removeprefix(f"{base}/bridge/").split("/")
    match levels:
        case ["polling", call, ("set" | "poll") as verb]:
            return Address("polling", call, verb)
        case ["polling", call, ("enabled" | "interval") as name, "set"]:
            return Address("polling", call, name)
        case ["request", name]:
            return Address("request", name)
    return None


def is_empty(address: Address, payload: bytes, *, retain: bool) -> bool:
    """Whether a payload is no command at all: clearing a retained message, or an empty wish."""
    return not payload.strip() and (retain or address.verb != "poll")


def decode(address: Address, payload: bytes) -> Command:
    """The command of a payload. Raises BadCommand."""
    if len(payload) > MOST:
        raise BadCommand(f"the payload has {len(payload)} bytes, expected at most {MOST}")
    if address.kind == "request":
        return _request(address.name, payload)
    if address.name != ALL and address.name not in CALLS:
        expected = f"expected one of {', '.join(CALLS)}"
        raise BadCommand(f"there is no call {address.name[:64]!r}, {expected}", id_of(payload))
    match address.verb:
        case "poll":
            found = _typed(payload.strip() or b"{}", PollPayload)
            return Poll(address.name, found.id)
        case "set":
            return _set(address.name, _typed(payload, SetPayload))
        case _:
            return Set(address.name, {address.verb: _bare(address.verb, payload)})


Form = TypeVar("Form", bound=msgspec.Struct)


def _typed(payload: bytes, form: type[Form]) -> Form:
    try:
        return msgspec.json.decode(payload, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        names = ", ".join(name for name in form.__struct_fields__)
        raise BadCommand(f"expected a JSON object with any of {names}: {error}", id_of(payload)) from None


def id_of(payload: bytes) -> str | None:
    """The `id` of a payload that could not be read otherwise, so that the sender knows which one it was."""
    try:
        found = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    id = found.get("id") if isinstance(found, dict) else None
    return id[:256] if isinstance(id, str) else None


def _set(call: str, payload: SetPayload) -> Set:
    changes: dict[str, bool | float | None] = {}
    if payload.enabled is not msgspec.UNSET:
        changes["enabled"] = payload.enabled
    if payload.interval is not msgspec.UNSET:
        changes["interval"] = None if payload.interval is None else _interval(payload.interval, payload.id)
    if not changes:
        raise BadCommand("expected enabled, interval, or both", payload.id)
    return Set(call, changes, payload.id)


def _bare(name: str, payload: bytes) -> bool | float | None:
    try:
        said = payload.decode().strip()
    except UnicodeDecodeError:
        raise BadCommand("expected a text in UTF-8") from None
    said = said.strip('"')
    if said == "null":
        return None
    if name == "interval":
        return _interval(said, None)
    if said.casefold() not in _FLAGS:
        raise BadCommand(f"expected true, false, ON or OFF, got {said[:40]!r}")
    return _FLAGS[said.casefold()]


_FLAGS = {"true": True, "on": True, "false": False, "off": False}


def _interval(said: float | str, id: str | None) -> float:
    try:
        seconds = parse_duration(said)
    except ValueError as error:
        raise BadCommand(f"interval: {error}", id) from None
    if not SHORTEST <= seconds <= LONGEST:
        raise BadCommand(f"interval: expected 10 s to 7 d, got {said!r}", id)
    return seconds


def _request(name: str, payload: bytes) -> Request:
    if name not in PAYLOADS:
        expected = f"expected one of {', '.join(REQUESTS)}"
        raise BadCommand(f"there is no request {name[:64]!r}, {expected}", id_of(payload))
    found = _typed(payload, PAYLOADS[name])
    if getattr(found, "call", None) not in (None, *CALLS):
        raise BadCommand(f"there is no call {found.call[:64]!r}", id_of(payload))  # type: ignore[attr-defined]
    return Request(name=name, **msgspec.structs.asdict(found))


def mark_of(payload: bytes, id: str | None) -> str:
    """What is remembered of a command: its id, else its content."""
    return f"id:{id}" if id is not None else f"sha256:{sha256(payload).hexdigest()}"


def instant(said: str | float, now: float) -> int:
    """A time, a time in ms, or how long ago, in ms since the epoch; `now` in seconds. Raises ValueError."""
    if isinstance(said, (int, float)) and said >= 1e11:
        return round(said)
    try:
        return round((now - parse_duration(said)) * 1000)
    except ValueError:
        pass
    try:
        found = moment(said)
    except Odd:
        found = None
    if found is None:
        raise ValueError(f"expected a time like 2025-06-17T13:40:07Z or how long ago like 24h, got {str(said)[:40]!r}")
    return found
