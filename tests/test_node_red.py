"""The flows of deploy/node-red as files: what can be said of them without a Node-RED. `make test-nodered` runs them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge.commands import decode as commands
from oneweb_bridge.mqtt.topics import parse_command_topic
from tests.test_docs import command_topics, topic_classes

FLOWS = Path(__file__).parent.parent / "deploy/node-red"
FILES = sorted(FLOWS.glob("*.json"))
CORE = {
    *("tab", "comment", "inject", "debug", "function", "switch", "template", "rbe"),
    *("mqtt in", "mqtt out", "mqtt-broker", "http in", "http response"),
}
"""What the flows may be made of; `make test-nodered` proves that all of it comes with Node-RED."""


def nodes(path: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return entries


each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_the_four_flows_are_there() -> None:
    """A fleet table, an alert, commands and usage."""
    assert [path.name for path in FILES] == ["calls.json", "fleet.json", "offline-alert.json", "usage.json"]


@each
def test_flow_is_made_of_core_nodes(path: Path) -> None:
    """No node has to be installed for it."""
    assert {node["type"] for node in nodes(path)} <= CORE


@each
def test_flow_is_wired_to_itself(path: Path) -> None:
    """Every wire ends at a node of the flow, and every MQTT node knows its broker."""
    all_nodes = nodes(path)
    known = {node["id"] for node in all_nodes}

    assert len(known) == len(all_nodes)
    for node in all_nodes:
        assert {end for wire in node.get("wires", []) for end in wire} <= known
        assert node.get("z", all_nodes[0]["id"]) == all_nodes[0]["id"]
        assert node.get("broker") in known or not node["type"].startswith("mqtt ")


def test_flows_share_one_broker_and_nothing_else() -> None:
    """Imported together they bring one broker, without an account in it, and no id twice."""
    brokers = [node for path in FILES for node in nodes(path) if node["type"] == "mqtt-broker"]
    others = [node["id"] for path in FILES for node in nodes(path) if node["type"] != "mqtt-broker"]

    assert all(broker == brokers[0] for broker in brokers)
    assert not {"credentials", "user", "password"} & brokers[0].keys()
    assert len(others) == len(set(others))


def matches(topic: str, pattern: str) -> bool:
    """Whether a filter hears what the table of topics calls `pattern`, where names in braces stand for any level."""
    ours, theirs = topic.split("/"), pattern.split("/")
    return len(ours) == len(theirs) and all(
        a == b or (a == "+" and b.startswith("{")) or (b.startswith("{") and a != "+") or b == "+"
        for a, b in zip(ours, theirs, strict=True)
    )


@each
def test_flow_listens_where_the_bridge_publishes(path: Path) -> None:
    """Every topic that it subscribes to is one of the bridge, and it asks for JSON by content type."""
    published = [name.replace("/ID", "/{id}") for name in topic_classes()] + command_topics()
    published.append("oneweb/bridge/polling/{call}/state")
    inputs = [node for node in nodes(path) if node["type"] == "mqtt in"]

    assert inputs
    for node in inputs:
        assert any(matches(node["topic"], name) for name in published), node["topic"]
        assert node["datatype"] == "auto-detect"


def test_buttons_send_what_the_bridge_understands() -> None:
    """Every button leads to a command topic, with a payload that is a command there."""
    by_id = {node["id"]: node for path in FILES for node in nodes(path)}
    buttons = [node for node in by_id.values() if node["type"] == "inject"]

    assert len(buttons) == 5
    for button in buttons:
        (end,) = button["wires"][0]
        address = parse_command_topic(by_id[end]["topic"], "oneweb")
        assert address is not None
        commands.decode_command(address, button["payload"].encode())


@each
def test_flow_is_documented(path: Path) -> None:
    """Its file, its page and its buttons are in the README beside it."""
    text = (FLOWS / "README.md").read_text(encoding="utf-8")
    pages = [node["url"] for node in nodes(path) if node["type"] == "http in"]

    assert f"\n| `{path.name}` |" in text
    assert pages
    assert all(f"`{page}`" in text for page in pages)


def test_documented_flows_exist() -> None:
    """The README names no flow that is not there."""
    names = re.findall(r"^\| `([\w-]+\.json)` \|", (FLOWS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert names
    assert set(names) == {path.name for path in FILES}
