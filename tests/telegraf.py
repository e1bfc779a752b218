"""A small model of what Telegraf's mqtt_consumer and its json_v2 parser do with deploy/telegraf/telegraf.conf.

Only the options that the file uses: another one is an error here. Source: Telegraf 1.x, topic_parser.go
and json_v2/parser.go. A cleared topic (an empty payload) is no JSON: Telegraf logs it and makes no point.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec

FILE = Path(__file__).parent.parent / "deploy" / "telegraf" / "telegraf.conf"


class Object(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`json_v2.object`: which members become tags and fields."""

    path: str
    tags: list[str] = []
    included_keys: list[str] = []
    excluded_keys: list[str] = []


class JsonV2(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`json_v2`: where the time is."""

    object: list[Object]
    timestamp_path: str = ""
    timestamp_format: str = ""


class TopicParsing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`topic_parsing`: what each level of a topic is."""

    topic: str
    measurement: str = ""
    tags: str = ""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `inputs.mqtt_consumer`."""

    servers: list[str]
    topics: list[str]
    topic_tag: str
    qos: int
    client_id: str
    persistent_session: bool
    name_prefix: str = ""
    name_override: str = ""
    data_format: str
    topic_parsing: list[TopicParsing] = []
    json_v2: list[JsonV2]


class Point(msgspec.Struct, frozen=True):
    """What is written; `ts` in ms, or None for the time of arrival."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, Any]
    ts: int | None


def rules() -> list[Rule]:
    """The inputs of the file."""
    return msgspec.convert(tomllib.loads(FILE.read_text(encoding="utf-8"))["inputs"]["mqtt_consumer"], list[Rule])


def takes(rule: Rule, topic: str) -> bool:
    """Whether one of the input's subscriptions matches a topic."""
    return any(_matches(pattern, topic) for pattern in rule.topics)


def _matches(pattern: str, topic: str) -> bool:
    wanted, levels = pattern.split("/"), topic.split("/")
    return len(wanted) == len(levels) and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True))


def points(rule: Rule, topic: str, payload: bytes) -> list[Point]:
    """The points of one message."""
    if not takes(rule, topic):
        return []
    measurement = "mqtt_consumer"
    tags: dict[str, str] = {}
    for parsing in rule.topic_parsing:
        if _matches(parsing.topic, topic):
            measurement = next(iter(_levels(parsing.measurement, topic).values()), measurement)
            tags |= _levels(parsing.tags, topic)
    name = rule.name_override or rule.name_prefix + measurement
    return [_point(name, tags, part, json.loads(payload)) for part in rule.json_v2]


def _levels(names: str, topic: str) -> dict[str, str]:
    if not names:
        return {}
    pairs = zip(names.split("/"), topic.split("/"), strict=True)
    return {name: level for name, level in pairs if name != "_"}


def _point(name: str, tags: dict[str, str], rule: JsonV2, payload: dict[str, Any]) -> Point:
    (part,) = rule.object
    assert part.path == "@this"
    kept = {
        member: value
        for member, value in payload.items()
        if member not in part.excluded_keys and (not part.included_keys or member in part.included_keys)
    }
    # Without a wanted type, the parser takes a number as Go's float64.
    kept = {member: float(value) if type(value) is int else value for member, value in kept.items()}
    own = {member: str(kept.pop(member)) for member in part.tags if member in kept}
    assert rule.timestamp_format in ("", "unix_ms")
    return Point(name, tags | own, kept, payload[rule.timestamp_path] if rule.timestamp_path else None)
