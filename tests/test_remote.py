"""What `status`, `poll` and `set` make of what stands on the bridge's topics, whoever has put it there."""

import json
from typing import Any

import pytest

from oneweb_bridge.cli import remote
from oneweb_bridge.cli.locate import Unreachable, decode_object
from oneweb_bridge.cli.remote import _add_message, _result_line, table
from oneweb_bridge.config.read import parse
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.mqtt.topics import TopicTree

TREE = TopicTree("oneweb", "main", "")
STATE = {"call": "sites", "enabled": True, "interval": 21600, "status": "ok", "records": 7, "events": 0, "samples": 0}


def status_of(**calls: Any) -> dict[str, Any]:
    info = {"calls": {"sites": {"interval": 21600, "effective_interval": 21600, "requests_per_hour": 2}}}
    return {"bridge": "online", "info": info, "calls": {"sites": STATE, **calls}}


def test_table_says_intervals_as_people_do() -> None:
    """6h instead of 21600, and the one in force in parentheses where it differs."""
    stretched = status_of(products=STATE | {"call": "products", "interval": 300})
    stretched["info"]["calls"]["products"] = {"effective_interval": 450, "requests_per_hour": 8}
    head, _, _, products, sites = table(stretched)

    assert head.endswith("10 requests an hour")
    assert sites.split()[:4] == ["sites", "yes", "6h", "ok"]
    assert products.split()[:4] == ["products", "yes", "5m", "(450s)"]


def test_result_says_the_interval_as_people_do() -> None:
    """The line of a result says 6h."""
    line = _result_line("sites", {"status": "ok", "state": STATE})
    assert line == "sites: ok, enabled, every 6h, 7 records, 0 events, 0 samples"
    assert _result_line("all", {"status": "ok"}) == "all: ok"


STRANGE: tuple[Any, ...] = (None, True, 7, -1, 1e300, "text", [], [[]], {}, {"calls": 1}, {"calls": {"sites": 1}})


@pytest.mark.parametrize("strange", STRANGE)
def test_strange_values_are_no_traceback(strange: Any) -> None:
    """Whatever stands in a member of what others may publish, the table and the line of a result are made."""
    for name in (*STATE, "last_poll", "next_poll", "error"):
        assert table(status_of(sites=STATE | {name: strange}))
        assert _result_line("sites", {"status": "ok", "state": STATE | {name: strange}})
    for name in ("api", "journal", "calls"):
        assert table({**status_of(), "info": {name: strange}})
    assert _result_line("sites", {"status": strange, "state": strange, "error": strange})


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"[" * 100_000, b'"\\ud800"', b"1e999", b"[1]", b"null", "text", None]
)
def test_payload_that_is_no_object_is_empty(payload: Any) -> None:
    """A payload that cannot be read, or is no JSON object, says nothing."""
    state: dict[str, Any] = {"bridge": "offline", "info": {}, "calls": {}}
    for topic in (TREE.status, TREE.info, "oneweb/bridge/polling/sites/state"):
        _add_message(state, topic, payload, TREE)

    assert decode_object(payload) == {}
    assert len(table(state)) == 3 + ("sites" in CALLS)


async def test_status_as_json_is_json_where_no_bridge_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script reads one object in any case; people read a sentence."""

    async def nowhere(_: Any) -> None:
        raise Unreachable("the broker localhost:1883 cannot be reached: refused")

    monkeypatch.setattr(remote, "locate_broker", nowhere)
    lines: list[str] = []
    for as_json in (True, False):
        assert not await remote.status(parse("", {}), lines.append, as_json=as_json)
    sentence = "the broker localhost:1883 cannot be reached: refused"
    assert json.loads(lines[0]) == {"bridge": "offline", "error": sentence}
    assert lines[1:] == [f"oneweb-bridge: {sentence}"]
