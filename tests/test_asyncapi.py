"""The AsyncAPI document: valid, complete, and made of the tables that publish."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from msgspec.structs import replace

from oneweb_bridge import __version__
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.write import yaml_text
from oneweb_bridge.contract import asyncapi
from oneweb_bridge.decode.catalogue import CALLS, Call, Field, TimeWindow
from tests import harness, listener

ROOT = Path(__file__).parent.parent
DEFAULTS = parse("", {})
DOCUMENT = asyncapi.document(DEFAULTS, __version__)


async def test_command_prints_the_document_of_the_defaults(tmp_path: Path) -> None:
    """Without a configuration the command prints the document that is attached to a release."""
    code, out, err = await harness.command("asyncapi", cwd=tmp_path)

    assert (code, err) == (0, "")
    assert out == yaml_text(DOCUMENT)
    assert yaml.safe_load(out) == DOCUMENT


async def test_command_prints_the_document_of_its_configuration(tmp_path: Path) -> None:
    """The command prints YAML with the base topic, instance and added fields of the configuration, and no secret."""
    path = tmp_path / "bridge.yaml"
    path.write_text(
        "instance: ship-7\n"
        "mqtt: {base_topic: fleet/oneweb, host: broker.example, username: canary-user, password: canary-word, "
        "tls: {enabled: true}}\n"
        "polling: {user_terminals: {map: {fan_rpm: {path: fan, type: number}}}}\n"
    )
    code, out, err = await harness.command("asyncapi", "-c", str(path))
    document = yaml.safe_load(out)

    assert (code, err) == (0, "")
    assert document["channels"]["bridgeStatus"]["address"] == "fleet/oneweb/bridge/status"
    assert document["servers"]["broker"]["protocol"] == "secure-mqtt"
    assert document["channels"]["discoveryCall"]["address"] == "homeassistant/device/oneweb_ship-7_call_{call}/config"
    assert document["components"]["schemas"]["Terminal"]["properties"]["fan_rpm"]["type"] == "number"
    assert "canary" not in out


def test_document_is_valid_by_the_official_schema() -> None:
    """The schema of AsyncAPI 3.0.0 has nothing to say against the document."""
    schema = json.loads((ROOT / "tests/asyncapi/3.0.0.json").read_text(encoding="utf-8"))
    errors = [error.message[:300] for error in jsonschema.Draft7Validator(schema).iter_errors(DOCUMENT)]

    assert errors == []


def test_references_resolve() -> None:
    """Every reference leads to a part of the document."""
    for pointer in references(DOCUMENT):
        place: Any = DOCUMENT
        for part in pointer.removeprefix("#/").split("/"):
            assert part in place, pointer
            place = place[part]


def references(part: Any) -> list[str]:
    """Every reference in a part of a document."""
    if isinstance(part, list):
        return [pointer for inner in part for pointer in references(inner)]
    if not isinstance(part, dict):
        return []
    own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
    return own + [pointer for inner in part.values() for pointer in references(inner)]


@pytest.mark.parametrize("name", DOCUMENT["components"]["messages"])
def test_example_of_a_message_is_valid(name: str) -> None:
    """Every message has an example that its own schema accepts."""
    message = DOCUMENT["components"]["messages"][name]

    assert listener.Judge(DOCUMENT).errors(name, message["examples"][0]["payload"]) == []
    assert message["examples"][0]["payload"]


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_schema_is_closed_or_typed(name: str) -> None:
    """Each object says which further members it may have: none, or those of a type."""
    for part in objects(DOCUMENT["components"]["schemas"][name]):
        further = part.get("additionalProperties")

        assert further is False or (isinstance(further, dict) and {"type", "$ref"} & further.keys()), part


def objects(part: Any) -> list[dict[str, Any]]:
    """Every schema of an object in a schema."""
    if not isinstance(part, dict):
        return []
    own = [part] if part.get("type") == "object" else []
    below = [*part.get("properties", {}).values(), part.get("additionalProperties"), part.get("items")]
    return own + [inner_object for inner in below for inner_object in objects(inner)]


def test_new_call_appears_by_itself() -> None:
    """One more row of the catalogue is one more message, with its fields, units and place in the parameters."""
    fan = Call(
        id="ut_fan",
        about="speed of the fan",
        entity="terminal",
        reads="report",
        report="fan",
        interval=600,
        path="/fan",
        window=TimeWindow(),
        fields=(Field("fan_rpm", ("fan",), "number", "1/min", "1/min"),),
    )
    document = asyncapi.document(replace(DEFAULTS, polling={**DEFAULTS.polling, "ut_fan": fan}), __version__)

    assert "fan" in document["channels"]["terminalMetric"]["parameters"]["report"]["enum"]
    assert "ut_fan" in document["channels"]["pollingState"]["parameters"]["call"]["enum"]
    assert document["components"]["schemas"]["Fan"]["properties"]["fan_rpm"]["x-unit"] == "1/min"


def test_every_field_of_the_catalogue_is_in_a_schema() -> None:
    """Each field of each call stands in the schema of its payload, with its unit."""
    properties = [schema.get("properties", {}) for schema in DOCUMENT["components"]["schemas"].values()]
    for call in CALLS.values():
        for field in call.fields if call.reads != "components" else ():
            units = [
                members[field.name].get("x-unit", "")
                for members in properties
                if "x-unit" in members.get(field.name, {})
            ]

            assert any(field.name in members for members in properties), field.name
            assert not field.unit or field.unit in units, field.name


WRONG = [
    ("Terminal", {"imei": 359235170297930}),
    ("Terminal", {"imei": "1", "latitude": 53}),
    ("Terminal", {"imei": "1", "name": None}),
    ("Terminal", {"imei": "1", "nonsense": "x"}),
    ("Terminal", {"name": "no key"}),
    ("SignalQuality", {"imei": "1", "report": "traffic", "time": "2025-06-17T14:15:02.113Z", "ts": 1}),
    ("SignalQuality", {"imei": "1", "report": "signal_quality", "time": "2025-06-17T14:15:02Z", "ts": 1}),
    ("SignalQuality", {"imei": "1", "report": "signal_quality", "time": "2025-06-17T14:15:02.113Z", "ts": 1.0}),
    (
        "Traffic",
        {"imei": "1", "report": "traffic", "time": "2025-06-17T14:15:02.113Z", "ts": 1, "cnx_tx_bytes": 7.0},
    ),
    ("Connection", {"state": "away"}),
    ("Enabled", "TRUE"),
]


@pytest.mark.parametrize(("name", "payload"), WRONG)
def test_wrong_payload_is_refused(name: str, payload: object) -> None:
    """A wrong type, an unknown member, a null, a missing key or a time of the wrong form does not pass."""
    assert listener.Judge(DOCUMENT).errors(name, payload)


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        *(("Enabled", text) for text in ("true", "OFF", "yes", "no", "1", "0", "null")),
        *(("Interval", text) for text in ("300", "5m", "5min", "1d", "0.5h", "PT5M", "P1D", "null")),
    ],
)
def test_each_form_of_a_bare_value_is_described(name: str, payload: str) -> None:
    """What the bridge takes on the topics of one value, the document has."""
    assert not listener.Judge(DOCUMENT).errors(name, payload)


@pytest.mark.parametrize(
    "topic",
    ["oneweb/terminal/1/nonsense", "oneweb/terminal/1/metric/nonsense", "oneweb/bridge/polling/nonsense/state", "x"],
)
def test_unknown_topic_is_refused(topic: str) -> None:
    """A topic that no channel describes does not pass."""
    assert listener.Judge(DOCUMENT).judge(topic, b'{"state":"online"}', retain=True)


def test_commands_have_their_replies() -> None:
    """Each command is an operation that the bridge receives, with the channel of its answer."""
    operations = DOCUMENT["operations"].values()
    received = [
        operation
        for operation in operations
        if operation["action"] == "receive" and "homeAssistant" not in operation["channel"]["$ref"]
    ]

    assert len(received) == 8
    assert all("reply" in operation for operation in received)
    for operation in received:
        (message,) = DOCUMENT["channels"][operation["channel"]["$ref"].rpartition("/")[2]]["messages"]
        assert "responseTopic" in DOCUMENT["components"]["messages"][message]["bindings"]["mqtt"]
    assert all(operation["bindings"]["mqtt"]["qos"] == 1 for operation in operations)


def test_server_has_the_will() -> None:
    """The server's binding says the will: offline, retained, on the status topic."""
    will = DOCUMENT["servers"]["broker"]["bindings"]["mqtt"]["lastWill"]

    assert will == {"topic": "oneweb/bridge/status", "qos": 1, "retain": True, "message": '{"state":"offline"}'}
