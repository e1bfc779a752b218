"""Which of the API's names may mean which of ours: by words, abbreviations, units, and what is left over. Pure.

A guess is only ever shown to people, who can see the value that comes of it.
"""

import difflib
import re
from collections.abc import Iterable, Mapping

import msgspec

from oneweb_bridge.decode.units import dimension_of
from oneweb_bridge.decode.values import snake

_PHRASES = {
    "round_trip_time": "latency",
    "delay_variation": "jitter",
    "expedited_forwarding": "ef",
    "assured_forwarding": "af",
    "best_effort": "be",
    "block_size": "increment",
    "committed_rate": "budgeted_amount",
    "signal_to_noise": "sinr",
    "g_t": "antenna_gain",
    "gt": "antenna_gain",
}
_SYNONYMS = {
    **dict.fromkeys(("ul", "up", "upload", "upstream"), "uplink"),
    **dict.fromkeys(("dl", "down", "download", "downstream"), "downlink"),
    **dict.fromkeys(("customer", "lan", "client"), "cnx"),
    **dict.fromkeys(("management",), "mgmt"),
    **dict.fromkeys(("satellite", "sat"), "wan"),
    **dict.fromkeys(("transmit", "transmitted", "sent", "out"), "tx"),
    **dict.fromkeys(("receive", "received", "in"), "rx"),
    **dict.fromkeys(("rtt", "ping", "delay"), "latency"),
    **dict.fromkeys(("used", "consumed", "consumption"), "usage"),
    **dict.fromkeys(("allowance", "granted", "quota"), "entitlement"),
    "maximum": "max",
    "minimum": "min",
    "availability": "available",
    "blocks": "block",
    "addressing": "address",
}
_UNITS = frozenset(("dbm", "db", "dbk", "pct", "percent", "bytes", "bps", "mbps", "gb", "ms", "ratio", "value"))
_GOOD_ENOUGH = 0.3


class Name(msgspec.Struct, frozen=True):
    """A name and the unit that goes with it, where one is known."""

    name: str
    unit: str = ""


def words_of(name: str) -> frozenset[str]:
    """The words of a name in one spelling, without units: EF_UL and expeditedForwardingUplink give the same."""
    plain = snake(name)
    for phrase, replacement in _PHRASES.items():
        plain = re.sub(rf"(?<![a-z0-9]){phrase}(?![a-z0-9])", replacement, plain)
    all_words = frozenset(_SYNONYMS.get(word, word) for word in plain.split("_"))
    return all_words - _UNITS or all_words


_COMMON = frozenset(("date", "time", "id", "name", "at", "state", "status", "type", "number", "code", "value", "text"))
"""Words that say what a value is, and not what it is about."""


_OPPOSITES = (("first", "last"), ("start", "end"), ("tx", "rx"), ("uplink", "downlink"), ("max", "min"))


def share_a_meaning(ours: Iterable[str], theirs: str) -> bool:
    """Whether two names are about the same: activationDate is like terminationDate in its letters alone.

    firstSeenDate and lastSeenDate are not: they say the opposite of what they are about.
    """
    their_words = words_of(theirs)
    return any(
        ((words_of(name) - _COMMON) & their_words or words_of(name) == their_words)
        and not _are_opposite(words_of(name), their_words)
        for name in ours
    )


def _are_opposite(words: frozenset[str], others: frozenset[str]) -> bool:
    pairs = (*_OPPOSITES, *(pair[::-1] for pair in _OPPOSITES))
    return any(word in words - others and opposite in others - words for word, opposite in pairs)


def likeness(ours: Iterable[str], theirs: str) -> float:
    """From 0 to 1: how much a name of the API is like any of the names of a field."""
    their_words = words_of(theirs)
    return max(_likeness_of_words(words_of(name), their_words) for name in ours)


def _likeness_of_words(ours: frozenset[str], theirs: frozenset[str]) -> float:
    shared = len(ours & theirs) / len(ours | theirs)
    spelled = difflib.SequenceMatcher(None, "_".join(sorted(ours)), "_".join(sorted(theirs))).ratio()
    return max(shared, spelled - 0.35)


def match_names(ours: Mapping[str, tuple[tuple[str, ...], str]], theirs: Iterable[Name]) -> dict[str, str]:
    """Field -> name of the API, each at most once. `ours` has the names and the unit of each field."""
    theirs = list(theirs)
    scored = sorted(
        ((_score(names, unit, other), field, other.name) for field, (names, unit) in ours.items() for other in theirs),
        reverse=True,
    )
    chosen: dict[str, str] = {}
    for score, field, name in scored:
        if score >= _GOOD_ENOUGH and field not in chosen and name not in chosen.values():
            chosen[field] = name
    chosen |= _left_over(ours, theirs, chosen)
    return {field: chosen[field] for field in ours if field in chosen}


def _score(names: tuple[str, ...], unit: str, other: Name) -> float:
    if unit and other.unit and dimension_of(unit) != dimension_of(other.unit) and other.unit != "1":
        return 0.0
    bonus = 0.1 if unit and other.unit and dimension_of(unit) == dimension_of(other.unit) else 0.0
    return likeness(names, other.name) + bonus


def _left_over(
    ours: Mapping[str, tuple[tuple[str, ...], str]], theirs: list[Name], chosen: Mapping[str, str]
) -> dict[str, str]:
    """Of each unit, the one field and the one name that nothing else has claimed."""
    more = {}
    for unit in {dimension_of(unit) for _, unit in ours.values() if unit}:
        fields = [
            field for field, (_, own) in ours.items() if field not in chosen and own and dimension_of(own) == unit
        ]
        names = [o.name for o in theirs if o.name not in chosen.values() and o.unit and dimension_of(o.unit) == unit]
        if len(fields) == len(names) == 1:
            more[fields[0]] = names[0]
    return more
