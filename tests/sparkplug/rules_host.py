"""The statements on the primary host: an edge waits for its STATE, and believes it by its timestamp. Pure."""

import json
from collections.abc import Iterator
from typing import Literal

import msgspec

from tests.sparkplug.facts import BIRTHS, NAMESPACE, Facts, Message, Session
from tests.sparkplug.judgement import Judgement, Rule, findings

Reason = Literal["offline", "old online"]


class _Waiting(msgspec.Struct, frozen=True):
    """A part of a session in which nobody may be born, what STATE said in it, and a birth that came all the same."""

    reasons: frozenset[Reason]
    born: Message | None = None


class _Offline(msgspec.Struct, frozen=True):
    """A STATE that says offline to a session whose host was there; `is_valid` by its timestamp."""

    message: Message
    session: Session
    is_valid: bool


class _Reading(msgspec.Struct):
    """What the STATE messages of a trace mean."""

    waits: list[_Waiting] = []
    offlines: list[_Offline] = []


def _state(body: bytes) -> tuple[bool, int] | None:
    try:
        content = json.loads(body)
        online, timestamp = content["online"], content["timestamp"]
    except (ValueError, TypeError, KeyError):
        return None
    is_valid = isinstance(online, bool) and isinstance(timestamp, int) and not isinstance(timestamp, bool)
    return (online, timestamp) if is_valid else None


def _read(facts: Facts) -> _Reading:
    """Follows each Edge Node's STATE messages. A restart of the bridge forgets the last timestamp."""
    reading = _Reading()
    restarts = [index for what in ("kill", "stop") for index, _ in facts.notes(what)]
    for sessions in facts.nodes.values():
        last, since = -1, 0
        for session in sessions:
            if any(since <= index < session.connect_index for index in restarts):
                last = -1
            since = session.connect_index
            last = _read_session(f"{NAMESPACE}/STATE/{facts.primary_host}", session, last, reading)
    return reading


def _read_session(topic: str, session: Session, last: int, reading: _Reading) -> int:
    """Adds what one session shows. Returns the timestamp of the last STATE that counts."""
    online, reasons = False, frozenset[Reason]()
    for message in sorted(session.received + session.of(*BIRTHS), key=lambda entry: entry.index):
        if message.up and not online:
            reading.waits.append(_Waiting(reasons, message))
            return last
        state = _state(message.body) if message.topic == topic else None
        if state is None:
            continue
        says, timestamp = state
        if online and not says:
            reading.offlines.append(_Offline(message, session, timestamp >= last))
        if timestamp < last:
            reasons |= {"old online"} if says and not online else frozenset()
            continue
        if says and not online:
            reading.waits.append(_Waiting(reasons))
        last, online = timestamp, says
        reasons = frozenset() if says else reasons | {"offline"}
    if not online:
        reading.waits.append(_Waiting(reasons))
    return last


def _waits_for(*reasons: Reason) -> Rule:
    def find(facts: Facts) -> Iterator[str]:
        if facts.primary_host is None:
            return
        for wait in _read(facts).waits:
            if not reasons or wait.reasons.intersection(reasons):
                yield f"{wait.born.describe()} before its host was online" if wait.born else ""

    return findings(find, "no primary host, or none that said this")


def _waits_for_id(facts: Facts) -> Iterator[str]:
    """The subscription is to the configured host, with QoS 1, before any birth."""
    if facts.primary_host is None:
        return
    topic = f"{NAMESPACE}/STATE/{facts.primary_host}"
    for session in facts.sessions:
        for birth in session.births[:1]:
            levels = [qos for index, name, qos in session.subscriptions if name == topic and index < birth.index]
            received = [m for m in session.received if m.topic == topic and m.index < birth.index]
            yield "" if levels == [1] and received else f"{birth.describe()} without a word of {topic}"


def _valid_offlines(facts: Facts) -> list[_Offline]:
    return [offline for offline in _read(facts).offlines if offline.is_valid] if facts.primary_host else []


def _dies_when_offline(facts: Facts) -> Iterator[str]:
    for offline in _valid_offlines(facts):
        later = [m for m in offline.session.sent if m.index > offline.message.index]
        deaths = [m for m in later if m.verb == "NDEATH"]
        births = [m for m in later if m.verb == "NBIRTH"]
        if births:
            yield f"{births[0].describe()} after the host went offline"
        elif not deaths:
            yield f"no NDEATH after {offline.message.describe()}"
        else:
            yield "" if _ended(offline) else f"connection {offline.session.number} goes on without its host"


def _ended(offline: _Offline) -> bool:
    return offline.session.disconnect is not None and offline.session.disconnect[0] > offline.message.index


def _ends_when_offline(facts: Facts) -> Iterator[str]:
    for offline in _valid_offlines(facts):
        yield "" if _ended(offline) else f"connection {offline.session.number} goes on without its host"


def _comes_back(facts: Facts) -> Iterator[str]:
    stops = [index for what in ("stop", "kill") for index, _ in facts.notes(what)]
    for offline in _valid_offlines(facts):
        node = offline.session.node
        closed = offline.session.closed_index
        if node is None or closed is None or any(offline.message.index < index < closed for index in stops):
            continue
        later = [s for s in facts.nodes[node] if s.connect_index > offline.message.index]
        yield "" if later else f"no connection after {offline.message.describe()}"


def _stays_when_old(facts: Facts) -> Iterator[str]:
    """An offline that is older than the last word ends nothing: neither NDEATH nor an end before the next event."""
    if facts.primary_host is None:
        return
    for offline in _read(facts).offlines:
        if offline.is_valid:
            continue
        later = [m for m in offline.session.messages if m.index > offline.message.index]
        stops = [index for what in ("stop", "kill") for index, _ in facts.notes(what)]
        is_death = bool(later) and later[0].verb == "NDEATH"
        is_asked = any(offline.message.index < index < later[0].index for index in stops) if later else True
        yield f"{later[0].describe()} after an old offline" if is_death and not is_asked else ""


def _optional(rule: Rule) -> Rule:
    def with_host(facts: Facts) -> Judgement:
        return rule(facts) if facts.primary_host else Judgement("not seen", "no primary host")

    return with_host


_BIRTH = "message-flow-edge-node-birth-publish-phid-"
_TERMINATION = "operational-behavior-edge-node-termination-host-offline"

RULES: dict[str, Rule] = {
    f"{_BIRTH}wait": _optional(_waits_for()),
    f"{_BIRTH}wait-id": _optional(findings(_waits_for_id)),
    f"{_BIRTH}wait-online": _optional(_waits_for("offline")),
    f"{_BIRTH}wait-timestamp": _optional(_waits_for("old online")),
    f"{_BIRTH}offline": _optional(findings(_dies_when_offline, "no valid offline while born")),
    "operational-behavior-edge-node-birth-sequence-wait": _optional(_waits_for("offline")),
    _TERMINATION: _optional(findings(_ends_when_offline, "no valid offline while born")),
    f"{_TERMINATION}-reconnect": _optional(findings(_comes_back, "no valid offline while born")),
    f"{_TERMINATION}-timestamp": _optional(findings(_stays_when_old, "no old offline while born")),
}
