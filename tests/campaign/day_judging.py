"""What is judged of a day beside the checker: that polls keep their intervals, and presence its hour. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import msgspec

from tests import truth
from tests.campaign.day import STATES, Received

SLACK_S = 30.0
"""Seconds that a poll may wait for others, and be read later."""
MAX_RECOVERY_S = 1200.0
"""Seconds beyond its interval within which a call succeeds after the end of a fault: as after 401, and a pause more."""
PRESENCE_S = 3600.0


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def states(received: Iterable[Received]) -> dict[str, list[dict[str, Any]]]:
    """What was published of each call, in order."""
    messages: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for message in received:
        if message.topic.startswith(STATES) and message.topic.endswith("/state"):
            state = msgspec.json.decode(message.payload)
            messages[state["call"]].append(state)
    return messages


def times_of_events(received: Iterable[Received]) -> dict[str, float]:
    """When each event was read, by its id."""
    events = [message for message in received if "/event/" in message.topic]
    return {msgspec.json.decode(event.payload)["id"]: event.at for event in events}


def successes(received: Iterable[Received]) -> dict[str, list[float]]:
    """When the polls of each call began that succeeded, in order."""
    polls: dict[str, list[float]] = {}
    for call, messages in states(received).items():
        ended = [state for state in messages if state.get("last_poll", "~") <= state.get("last_success", "")]
        if ended:
            polls[call] = sorted({_seconds(state["last_poll"]) for state in ended})
    return polls


def late(received: Sequence[Received], mended: float, intervals: Mapping[str, float]) -> tuple[float, list[str]]:
    """Seconds beyond its interval that a call took at most to succeed after the last fault, and which took too long."""
    waits = {
        call: min((at for at in successes(received).get(call, ()) if at >= mended), default=float("inf"))
        - mended
        - interval
        for call, interval in intervals.items()
    }
    findings = [
        f"not as promised: {call} succeeded only {wait + intervals[call]:.0f} s after the last fault"
        for call, wait in waits.items()
        if wait > MAX_RECOVERY_S
    ]
    return max(0.0, *waits.values()), findings


def off_schedule(received: Sequence[Received], since: float, until: float, intervals: Mapping[str, float]) -> list[str]:
    """Calls whose polls do not keep their interval while nothing is wrong, from the first that succeeds on."""
    findings = []
    for call, times in successes(received).items():
        quiet = [at for at in times if since <= at <= until]
        gaps = [after - before for before, after in pairwise(quiet)]
        if (wrong := next((gap for gap in gaps if abs(gap - intervals[call]) > SLACK_S), None)) is not None:
            findings.append(f"not as promised: {call} is polled after {wrong:.0f} s instead of {intervals[call]:.0f} s")
    return findings


def unwell(received: Sequence[Received]) -> list[str]:
    """Calls whose last state does not say that all is well."""
    last = {call: messages[-1] for call, messages in states(received).items()}
    return [
        f"not as promised: at the end {call} is {state['status']}: {state.get('error')}"
        for call, state in last.items()
        if state["enabled"] and (state["status"] != "ok" or not state["fresh"])
    ]


def wrong_presence(received: Sequence[Received], terminals: Iterable[dict[str, Any]], now: float) -> list[str]:
    """Terminals whose presence was published more often than hourly, or is not what the API says, up to an hour."""
    findings = []
    for thing in terminals:
        place = f"oneweb/terminal/{truth.level(thing['id'])}"
        messages = [message for message in received if message.topic == f"{place}/metric/presence"]
        # One that was removed and came back is new.
        gone = [message.at for message in messages if not message.payload]
        for before, after in pairwise(messages):
            if after.payload and before.payload and after.at - before.at < PRESENCE_S - 1:
                findings.append(f"presence: {place} was published {after.at - before.at:.0f} s after the last one")
        if not messages or not messages[-1].payload:
            findings.append(f"presence: {place} was never published, or cleared at {gone}")
            continue
        body = msgspec.json.decode(messages[-1].payload)
        age = _seconds(thing["lastSeenDate"]) - _seconds(body["last_seen"])
        if body.get("first_seen") != thing.get("firstSeenDate") or not -1 <= age <= PRESENCE_S + 300 + SLACK_S:
            findings.append(f"presence: {place} says {body!r:.200}, {age:.0f} s before the API")
    return findings
