"""Judges what was heard against an AsyncAPI document: address to channel, channel to message, message to schema."""

import json
import re
from typing import Any

import jsonschema

_DRAFT7 = jsonschema.Draft7Validator
_TYPES = _DRAFT7.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int).redefine(
    "number", lambda _, value: type(value) is float
)
STRICT = jsonschema.validators.extend(_DRAFT7, type_checker=_TYPES)  # type: ignore[no-untyped-call]  # jsonschema
"""JSON Schema that tells 70.0 from 70, as the contract does."""


class Judge:
    """One document. `heard` has each channel and message that a judged topic was found to be."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.received: set[tuple[str, str]] = set()
        self._document = document
        self._addresses = {key: _pattern(channel) for key, channel in document["channels"].items()}
        operations = document["operations"].values()
        self._operations = {
            operation["channel"]["$ref"].removeprefix("#/channels/"): operation for operation in operations
        }
        self._validators: dict[str, Any] = {}

    def everything(self) -> set[tuple[str, str]]:
        """Every channel with each of its messages."""
        return {(key, name) for key, channel in self._document["channels"].items() for name in channel["messages"]}

    def errors(self, message: str, payload: Any) -> list[str]:
        """What is wrong with a decoded payload."""
        if message not in self._validators:
            schema = {"$ref": f"#/components/schemas/{message}", "components": self._document["components"]}
            self._validators[message] = STRICT(schema)
        return [f"{error.json_path}: {error.message[:300]}" for error in self._validators[message].iter_errors(payload)]

    def judge(self, topic: str, payload: bytes, *, retain: bool) -> list[str]:
        """What is wrong with one message; nothing when the document describes it."""
        matches = [(key, match) for key, regex in self._addresses.items() if (match := regex.fullmatch(topic))]
        if len(matches) != 1:
            return [f"{topic}: {len(matches)} channels"]
        key, match = matches[0]
        operation = self._operations[key]
        if not payload:
            known = operation["bindings"]["mqtt"].get("retain") or operation["action"] == "receive"
            return [] if known else [f"{topic}: an empty payload"]
        if operation["bindings"]["mqtt"].get("retain", retain) != retain:
            return [f"{topic}: retain is {retain}"]
        messages = self._document["channels"][key]["messages"]
        name = match.groupdict().get("report") or next(iter(messages))
        self.received.add((key, name))
        message = self._document["components"]["messages"][messages[name]["$ref"].rpartition("/")[2]]
        content = payload.decode() if message["contentType"] == "text/plain" else json.loads(payload)
        return [f"{topic}: {error}" for error in self.errors(message["name"], content)]


def _pattern(channel: dict[str, Any]) -> re.Pattern[str]:
    parts = []
    for part in re.split(r"({\w+})", channel["address"]):
        if not part.startswith("{"):
            parts.append(re.escape(part))
            continue
        values = channel["parameters"][part[1:-1]].get("enum")
        parts.append(f"(?P<{part[1:-1]}>{'|'.join(map(re.escape, values)) if values else '[^/]+'})")
    return re.compile("".join(parts))
