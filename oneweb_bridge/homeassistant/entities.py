"""The entities of Home Assistant's MQTT discovery: one function for each platform, and the templates in them. Pure.

A template asks for a member with `get`, because what is not known is absent, and says `none` for
whatever is not of the expected type, which Home Assistant takes for unknown. So a state is never
`True`, `nan` or too long. A topic that is cleared brings a payload without JSON, which Home Assistant
would call an error, so a template looks first.

Source: Home Assistant, MQTT integration, the platforms' schemas (2026.2).
"""

from collections.abc import Sequence
from typing import Any

Entity = dict[str, Any]
Entities = dict[str, Entity]

LONGEST_STATE = 255
"""Characters that a state may have."""

UNITS: tuple[tuple[str, str, str | None, int], ...] = (
    ("_dbm", "dBm", "signal_strength", 1),
    ("_db", "dB", "signal_strength", 1),
    ("_pct", "%", None, 2),
    ("_bps", "bit/s", "data_rate", 0),
    ("_mbps", "Mbit/s", "data_rate", 2),
    ("_bytes", "B", "data_size", 0),
    ("_gb", "GB", "data_size", 2),
    ("_ms", "ms", "duration", 1),
    ("_s", "s", "duration", 1),
    ("_m", "m", "distance", 1),
)
"""The end of a name -> unit, device class and decimals in Home Assistant. A unit that is not here is left out."""


def sensor(name: str, state: str, template: str, *, diagnostic: bool = False, **members: Any) -> Entity:
    """A sensor whose state is what `template` makes of the messages on `state`."""
    entity = {"platform": "sensor", "name": name, "state_topic": state, "value_template": template, **members}
    return _with_category(entity, "diagnostic" if diagnostic else "")


def number(name: str, state: str, member: str, *, grows: bool = False, value: str = "") -> Entity:
    """A sensor of a number; its unit is told by the end of the member's name. `value` replaces the member itself."""
    template = (
        f"{_assign_v(value or member_expression(member))}{{{{ v if v is number and v is not boolean else none }}}}"
    )
    keys: Entity = {"state_class": "total_increasing" if grows else "measurement"}
    unit = next((row for row in UNITS if member.endswith(row[0])), None)
    if unit is not None:
        _, keys["unit_of_measurement"], device_class, keys["suggested_display_precision"] = unit
        keys |= {"device_class": device_class} if device_class else {}
    return sensor(name, state, template, **keys)


def text(name: str, state: str, value: str, *, diagnostic: bool = False) -> Entity:
    """A sensor of a text, cut to what a state may be."""
    template = f"{_assign_v(value)}{{{{ (v | string)[:{LONGEST_STATE}] if v and v is not boolean else none }}}}"
    return sensor(name, state, template, diagnostic=diagnostic)


def time(name: str, state: str, member: str, *, diagnostic: bool = True) -> Entity:
    """A sensor of an instant."""
    template = f"{_assign_v(member_expression(member))}{{{{ v }}}}"
    return sensor(name, state, template, device_class="timestamp", diagnostic=diagnostic)


def with_attributes(entity: Entity, state: str, members: Sequence[str]) -> Entity:
    """The entity with those of these members of the messages on `state` that are there as its attributes."""
    listed = ", ".join(quoted(member) for member in members)
    shown = f"dict(value_json.items() | selectattr(0, 'in', [{listed}]))"
    template = f"{{{{ ({shown} if value_json is defined else {{}}) | tojson }}}}"
    return entity | {"json_attributes_topic": state, "json_attributes_template": template}


def binary(name: str, state: str, true: str, known: str, *, diagnostic: bool = False, **members: Any) -> Entity:
    """A binary sensor: on where the expression `true` holds, off where not, unknown where `known` does not."""
    template = f"{{{{ ('ON' if {true} else 'OFF') if value_json is defined and {known} else none }}}}"
    entity = {"platform": "binary_sensor", "name": name, "state_topic": state, "value_template": template, **members}
    return _with_category(entity, "diagnostic" if diagnostic else "")


def button(name: str, command: str, *, config: bool = False) -> Entity:
    """A button; what it sends is not retained."""
    entity = {"platform": "button", "name": name, "command_topic": command, "payload_press": "{}"}
    return _with_category(entity, "config" if config else "")


def switch(name: str, state: str, member: str, command: str) -> Entity:
    """A switch, retained, so that what is switched while the bridge is away is obeyed when it is back."""
    entity = {
        "platform": "switch",
        "name": name,
        "state_topic": state,
        "value_template": f"{{{{ 'ON' if value_json is defined and {member_expression(member)} else 'OFF' }}}}",
        "command_topic": command,
        "retain": True,
    }
    return _with_category(entity, "config")


def duration(name: str, state: str, member: str, command: str, bounds: tuple[int, int]) -> Entity:
    """A number of seconds that can be set, retained as a switch."""
    entity = {
        "platform": "number",
        "name": name,
        "state_topic": state,
        "value_template": f"{{{{ {member_expression(member)} if value_json is defined else none }}}}",
        "command_topic": command,
        "retain": True,
        "min": bounds[0],
        "max": bounds[1],
        "step": 1,
        "mode": "box",
        "device_class": "duration",
        "unit_of_measurement": "s",
    }
    return _with_category(entity, "config")


def tracker(name: str, state: str, accuracy: int) -> Entity:
    """A device tracker, `accuracy` in metres. Without a state topic, so that the zone is found by the position."""
    point = f"{{'latitude': value_json['latitude'], 'longitude': value_json['longitude'], 'gps_accuracy': {accuracy}}}"
    known = "value_json is defined and 'latitude' in value_json and 'longitude' in value_json"
    entity = {
        "platform": "device_tracker",
        "name": name,
        "source_type": "gps",
        "json_attributes_topic": state,
        "json_attributes_template": f"{{{{ ({point} if {known} else {{}}) | tojson }}}}",
    }
    return _with_category(entity)


def events(name: str, state: str) -> Entity:
    """What was added, changed or removed, as an event; one that was replayed on request is no news."""
    members = (
        "{'event_type': value_json['type'].split('.') | last, 'time': value_json['time'], "
        "'changed': value_json.get('data', {}).get('changed', {}).keys() | list}"
    )
    entity = {
        "platform": "event",
        "name": name,
        "state_topic": state,
        "event_types": ["added", "changed", "removed"],
        "value_template": f"{{{{ {members} | tojson if value_json is defined and not value_json.get('replayed') }}}}",
    }
    return _with_category(entity)


def member_expression(member: str) -> str:
    """A member of the message as an expression; none where it is absent."""
    return f"value_json.get({quoted(member)})"


def quoted(text: str) -> str:
    """A text as a literal within a template. What could end the literal, or the template, is escaped."""
    return "'" + "".join(c if c.isalnum() or c in "/_-. " else f"\\U{ord(c):08x}" for c in text) + "'"


def _assign_v(value: str) -> str:
    """Lets `v` be an expression, and none for a message that is no JSON: the one that clears a topic."""
    return f"{{% set v = ({value}) if value_json is defined else none %}}"


def _with_category(entity: Entity, category: str = "") -> Entity:
    return entity | ({"entity_category": category} if category else {}) | {"qos": 1}
