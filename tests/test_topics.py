"""Topics and payloads: legal for everybody, reversible, and exactly those of the contract."""

import json
import re
from hashlib import sha256
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Message, Row, RowType
from oneweb_bridge.mqtt.topics import (
    EVENT_TYPE,
    MAX_LEVEL,
    MAX_RESPONSE_TOPIC_BYTES,
    TopicTree,
    encode_id,
    response_topic_problem,
)

TREE = TopicTree("oneweb", "site-a", "4f1c")
TS = 1750169702113
TEXT = st.text(max_size=80) | st.text("_xhe0-", max_size=80) | st.text("ab_x", min_size=20, max_size=70)
LEGAL = re.compile(r"[A-Za-z0-9_-]{1,64}")


def decode_level(level: str) -> str | None:
    """The id of a topic level, as the contract says it; None when it was too long to keep whole."""
    if level == "_e":
        return ""
    raw, rest = bytearray(), level
    while rest:
        if rest.startswith("__"):
            raw, rest = raw + b"_", rest[2:]
        elif rest.startswith("_x"):
            raw, rest = raw + bytes.fromhex(rest[2:4]), rest[4:]
        elif rest.startswith("_"):
            return None
        else:
            raw, rest = raw + rest[0].encode(), rest[1:]
    return raw.decode()


def row(what: RowType, body: object, *, entity: str = "terminal", id: str = "T", name: str = "") -> Row:
    return Row(1042, TS + 5, entity, id, what, name, TS, body if isinstance(body, bytes) else encode(body))


def shown(messages: list[Message]) -> list[tuple[str, Any, bool]]:
    return [(m.topic, json.loads(m.payload) if m.payload else None, m.retain) for m in messages]


# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "level"),
    [
        ("359235170006117", "359235170006117"),
        ("SC-410027318845", "SC-410027318845"),
        ("a_b", "a__b"),
        ("", "_e"),
        ("_e", "__e"),
        ("a/b", "a_x2fb"),
        ("+", "_x2b"),
        ("#", "_x23"),
        ("$SYS", "_x24SYS"),
        ("a b.c*>", "a_x20b_x2ec_x2a_x3e"),
        ("ü", "_xc3_xbc"),
        ("a\0", "a_x00"),
        ("x" * 64, "x" * 64),
        ("²", "_xc2_xb2"),
        ("x" * 65, "x" * 40 + "_h" + sha256(b"x" * 65).hexdigest()[:16]),
        ("ü" * 20, "_xc3_xbc" * 5 + "_h" + sha256("ü".encode() * 20).hexdigest()[:16]),
        ("a" + "ü" * 20, "a" + ("_xc3_xbc" * 5)[:36] + "_h" + sha256(("a" + "ü" * 20).encode()).hexdigest()[:16]),
    ],
)
def test_id_is_encoded_as_the_contract_says(id: str, level: str) -> None:
    """Letters, digits and `-` stay, `_` is doubled, other bytes are `_xhh`, empty is `_e`, long is cut and hashed."""
    assert level == encode_id(id)


@hypothesis.settings(max_examples=400)
@given(TEXT)
def test_encoded_id_is_legal_everywhere(id: str) -> None:
    """Whatever the API calls a thing, its level has only A-Z a-z 0-9 - _ and at most 64 bytes."""
    assert LEGAL.fullmatch(encode_id(id))


@hypothesis.settings(max_examples=400)
@given(TEXT)
def test_encoded_id_is_reversible(id: str) -> None:
    """A level gives its id back, but for one that was too long to keep whole, which says so."""
    level = encode_id(id)
    whole = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "__" if c == "_" else "" for c in id)
    escaped = sum(4 * len(c.encode()) for c in id if not (c.isascii() and (c.isalnum() or c in "-_")))
    assert decode_level(level) == (id if len(whole) + escaped <= MAX_LEVEL else None)


@hypothesis.settings(max_examples=400)
@given(TEXT, TEXT, st.integers(1, 10))
def test_encoded_ids_never_collide(first: str, other: str, times: int) -> None:
    """Two ids have two levels, also long ones that begin alike, and ids that look like levels."""
    for id in (other, first * times, encode_id(first), first + other, other + first):
        assert (encode_id(first) == encode_id(id)) is (first == id)


@given(TEXT)
def test_cut_of_a_long_id_is_before_an_escape(id: str) -> None:
    """A long id keeps at most 40 bytes and never half an escape."""
    level = encode_id(id + "x" * 65)
    kept, _, hash_ = level.rpartition("_h")
    assert len(kept) <= 40
    assert re.fullmatch(r"([A-Za-z0-9-]|__|_x[0-9a-f]{2})*", kept)
    assert re.fullmatch(r"[0-9a-f]{16}", hash_)


# --- rows to messages -----------------------------------------------------------------------------


def test_changed_is_an_event_and_then_the_state() -> None:
    """A change is published as the CloudEvent of the contract, followed by the retained record."""
    data = {"changed": {"state": {"from": "online", "to": "offline"}}, "record": {"imei": "T"}, "initial": False}
    event, state = TREE.messages_of_row(row("changed", data))
    assert (event.topic, event.retain, event.content_type) == ("oneweb/terminal/T/event/changed", False, EVENT_TYPE)
    assert json.loads(event.payload) == {
        "specversion": "1.0",
        "id": "4f1c:1042",
        "source": "/oneweb-bridge/site-a",
        "type": "net.oneweb.terminal.changed",
        "subject": "T",
        "time": "2025-06-17T14:15:02.113Z",
        "ts": TS,
        "datacontenttype": "application/json",
        "data": data,
    }
    assert (state.topic, state.payload, state.retain) == ("oneweb/terminal/T/state", b'{"imei":"T"}', True)
    assert state.content_type == "application/json"


@pytest.mark.parametrize("entity", ["terminal", "product", "organization", "site"])
def test_added_is_an_event_and_the_state(entity: str) -> None:
    """Each kind of record has its own branch of the tree."""
    messages = shown(TREE.messages_of_row(row("added", {"record": {"a": 1}, "initial": True}, entity=entity, id="a/b")))
    assert [(topic, retain) for topic, _, retain in messages] == [
        (f"oneweb/{entity}/a_x2fb/event/added", False),
        (f"oneweb/{entity}/a_x2fb/state", True),
    ]
    assert messages[0][1]["subject"] == "a/b"
    assert messages[0][1]["data"] == {"record": {"a": 1}, "initial": True}


def test_removed_is_an_event_and_then_clears() -> None:
    """A removed record's event carries the last record, and its retained topics are cleared after it."""
    messages = shown(
        TREE.messages_of_row(row("removed", {"record": {"imei": "T"}, "clears": ["state", "metric/traffic"]}))
    )
    assert messages[0][0] == "oneweb/terminal/T/event/removed"
    assert messages[0][1]["data"] == {"record": {"imei": "T"}}
    assert messages[1:] == [("oneweb/terminal/T/state", None, True), ("oneweb/terminal/T/metric/traffic", None, True)]
    (event,) = shown(TREE.messages_of_row(row("removed", {"record": {}, "clears": [], "remapped": True})))
    assert event[1]["data"] == {"record": {}, "remapped": True}


def test_first_components_are_published_without_an_event() -> None:
    """The first component list of a terminal is a retained message alone."""
    assert shown(TREE.messages_of_row(row("components", {"components": {"main/UT": "1"}}))) == [
        ("oneweb/terminal/T/components", {"imei": "T", "components": {"main/UT": "1"}}, True)
    ]


def test_changed_components_are_a_change_of_the_terminal() -> None:
    """A change of firmware is a `changed` of its terminal, without the whole list in the event."""
    expected = {
        "components": {"main/UT": "2"},
        "changed": {"components.main/UT": {"from": "1", "to": "2"}},
        "record": {"imei": "T"},
        "initial": False,
    }
    event, components = shown(TREE.messages_of_row(row("components", expected)))
    assert event[0] == "oneweb/terminal/T/event/changed"
    assert event[1]["type"] == "net.oneweb.terminal.changed"
    assert event[1]["data"] == {name: part for name, part in expected.items() if name != "components"}
    assert components == ("oneweb/terminal/T/components", {"imei": "T", "components": {"main/UT": "2"}}, True)


@pytest.mark.parametrize(
    ("what", "entity", "id", "name", "topic", "retain"),
    [
        ("metric", "terminal", "T", "traffic", "oneweb/terminal/T/metric/traffic", True),
        ("history", "terminal", "T", "traffic", "oneweb/terminal/T/history/traffic", False),
        ("metric", "product", "P", "throughput", "oneweb/product/P/metric/throughput", True),
        ("usage", "product", "P", "a b", "oneweb/product/P/usage/a_x20b", True),
        ("usage", "usage", "B_1", "", "oneweb/usage/B__1", True),
        ("forecast", "product", "P", "a b", "oneweb/product/P/forecast/a_x20b", True),
        ("forecast", "usage", "B_1", "", "oneweb/forecast/B__1", True),
        ("state", "call", "sites", "state", "oneweb/bridge/polling/sites/state", True),
        ("state", "terminal", "T", "relations", "oneweb/terminal/T/relations", True),
        ("alert", "bridge", "", "bad_answer", "oneweb/bridge/alert", False),
    ],
)
def test_row_goes_to_its_topic_as_it_is(  # noqa: PLR0917 -- a row of a table
    what: RowType, entity: str, id: str, name: str, topic: str, retain: bool
) -> None:
    """Samples, usage, forecasts, states and alerts are published byte for byte as they stand in the journal."""
    (message,) = TREE.messages_of_row(row(what, b'{"a":70.0}', entity=entity, id=id, name=name))
    assert (message.topic, message.payload, message.retain, message.content_type) == (
        topic,
        b'{"a":70.0}',
        retain,
        "application/json",
    )


@pytest.mark.parametrize(
    ("entity", "id", "name", "topic"),
    [("product", "P", "B", "oneweb/product/P/usage/B"), ("usage", "B", "", "oneweb/usage/B")],
)
def test_clear_empties_the_topic_of_a_bucket(entity: str, id: str, name: str, topic: str) -> None:
    """A bucket that is gone or moved has its retained topic cleared."""
    assert shown(TREE.messages_of_row(row("clear", [], entity=entity, id=id, name=name))) == [(topic, None, True)]


def test_forecast_is_cleared_with_its_usage_topic() -> None:
    """A bucket that had a forecast is cleared on both topics, by one row."""
    gone = row("clear", ["usage", "forecast"], entity="product", id="P", name="B")

    assert shown(TREE.messages_of_row(gone)) == [
        ("oneweb/product/P/usage/B", None, True),
        ("oneweb/product/P/forecast/B", None, True),
    ]
    assert shown(TREE.messages_of_row(row("clear", ["forecast"], entity="usage", id="B"))) == [
        ("oneweb/forecast/B", None, True),
    ]


def test_forecasts_are_a_class_of_their_own() -> None:
    """Access rules may refuse them, whatever product and bucket."""
    assert TREE.class_of("oneweb/product/P/forecast/B") == "oneweb/product/+/forecast/+"
    assert TREE.class_of("oneweb/forecast/B") == "oneweb/forecast/+"


def test_row_gives_the_same_bytes_whenever_it_is_sent() -> None:
    """The same row becomes the same messages, so that a repeat is an exact one."""
    body = {"record": {"imei": "T"}, "initial": False}
    assert TREE.messages_of_row(row("added", body)) == TopicTree("oneweb", "site-a", "4f1c").messages_of_row(
        row("added", body)
    )


ROWS = [
    row("added", {"record": {}, "initial": False}),
    row("changed", {"changed": {}, "record": {}, "initial": False}),
    row("removed", {"record": {}, "clears": ["state", "components", "relations", "metric/presence", "metric/traffic"]}),
    row("components", {"components": {}, "changed": {"a": 1}, "record": {}}),
    row("metric", {"a": 1}, name="traffic"),
    row("metric", {"a": 1}, name="presence"),
    row("history", {"a": 1}, name="traffic"),
    row("state", {"a": 1}, name="relations"),
    row("state", {"a": 1}, entity="call", id="sites", name="state"),
    row("alert", {"a": 1}, entity="bridge", id=""),
    row("usage", {"a": 1}, entity="product", name="B"),
    row("usage", {"a": 1}, entity="usage", id="B"),
    row("added", {"record": {}}, entity="product"),
    row("added", {"record": {}}, entity="site"),
    row("added", {"record": {}}, entity="organization"),
]


def test_topic_with_a_message_has_none_below_it() -> None:
    """No topic is the beginning of another one, also with those of commands, so that levels can be folders."""
    topics = {m.topic for r in ROWS for m in TREE.messages_of_row(r)}
    topics |= {TREE.status, TREE.info, TREE.head, TREE.probe}
    topics |= {m.topic for r in ROWS if (m := TREE.replay_message(r)) is not None}
    topics |= {name.replace("+", "sites", 1) for name in TREE.command_filters()}
    for topic in topics:
        assert not any(other.startswith(f"{topic}/") for other in topics), topic


def test_every_payload_is_an_object_or_clears() -> None:
    """Every payload is a JSON object, and only retained topics are emptied."""
    for r in ROWS:
        for m in TREE.messages_of_row(r):
            assert (not m.payload and m.retain) or isinstance(json.loads(m.payload), dict)


# --- replay ---------------------------------------------------------------------------------------


def test_replayed_row_is_marked_and_never_retained() -> None:
    """Events go to their event topic and samples to `history`, each with `replayed`, never to a retained topic."""
    messages = [m for r in ROWS if (m := TREE.replay_message(r)) is not None]
    assert all(json.loads(m.payload)["replayed"] is True for m in messages)
    assert not any(m.retain for m in messages)
    assert all({"event", "history"} & set(m.topic.split("/")) for m in messages)


@pytest.mark.parametrize("what", ["added", "changed", "removed"])
def test_replayed_event_is_the_same_event(what: RowType) -> None:
    """A replayed event has the id, time and content of the first time."""
    body = {"changed": {}, "record": {"imei": "T"}, "initial": False}
    replayed = TREE.replay_message(row(what, body))
    assert replayed is not None
    first = json.loads(TREE.messages_of_row(row(what, body))[0].payload)
    assert json.loads(replayed.payload) == first | {"replayed": True}
    assert replayed.topic == TREE.messages_of_row(row(what, body))[0].topic


def test_replayed_metric_goes_to_history() -> None:
    """A sample that was a metric is replayed as history, with its values."""
    replayed = TREE.replay_message(row("metric", {"imei": "T", "sinr_db": 10.0}, name="signal_quality"))
    assert replayed is not None
    assert shown([replayed]) == [
        ("oneweb/terminal/T/history/signal_quality", {"imei": "T", "sinr_db": 10.0, "replayed": True}, False)
    ]
    assert b"10.0" in replayed.payload


def test_replayed_usage_of_a_product_goes_to_its_history() -> None:
    """Usage is replayed to the product's history, all buckets on one topic."""
    replayed = TREE.replay_message(row("usage", {"bucket_id": "B"}, entity="product", id="P", name="B"))
    assert replayed is not None
    assert replayed.topic == "oneweb/product/P/history/usage"


def test_replayed_usage_without_a_product_does_not_name_one() -> None:
    """A bucket without a product must not be replayed below a product that does not exist."""
    replayed = TREE.replay_message(row("usage", {"bucket_id": "B"}, entity="usage", id="B"))
    assert replayed is None or not replayed.topic.startswith("oneweb/product/")


@pytest.mark.parametrize(
    "silent",
    [
        row("components", {"components": {"main/UT": "1"}}),
        row("state", {}, entity="call", id="sites", name="state"),
        row("alert", {}),
        row("clear", [], entity="usage"),
        row("forecast", {"bucket_id": "B"}, entity="product", id="P", name="B"),
    ],
)
def test_what_is_no_news_is_not_replayed(silent: Row) -> None:
    """States, alerts, clears, forecasts and the first component list are not replayed."""
    assert TREE.replay_message(silent) is None


# --- what is retained -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "published",
    [
        row("added", {"record": {"imei": "T", "x": 1.0}, "initial": False}),
        row("added", {"record": {"a": 1}, "initial": False}, entity="site", id="S"),
        row("components", {"components": {"main/UT": "1"}}),
        row("state", {"imei": "T", "product_ids": []}, name="relations"),
        row("state", {"call": "sites"}, entity="call", id="sites", name="state"),
        row("usage", {"bucket_id": "B 1", "product_id": "P"}, entity="product", id="P", name="B 1"),
        row("usage", {"bucket_id": "B 1"}, entity="usage", id="B 1"),
        row("forecast", {"bucket_id": "B 1", "product_id": "P"}, entity="product", id="P", name="B 1"),
        row("forecast", {"bucket_id": "B 1"}, entity="usage", id="B 1"),
    ],
)
def test_restored_record_is_the_message_that_was_published(published: Row) -> None:
    """What is restored from the stored record has the topic and the bytes of what the row published."""
    body = json.loads(published.body)
    stored: Any = published.body if published.what in ("state", "usage", "forecast") else None
    kind: Any = published.entity
    if published.what == "components":
        kind, stored = "components", encode(body["components"])
    elif published.what in ("added", "changed"):
        stored = encode(body["record"])
    elif published.name == "relations":
        kind = "relations"
    elif published.what in ("usage", "forecast"):
        kind = published.what
    id = published.name if kind in ("usage", "forecast") and published.name else published.id
    assert TREE.record_message(kind, id, stored) == TREE.messages_of_row(published)[-1]


def test_restored_metric_is_the_message_that_was_published() -> None:
    """The newest sample is restored as it was published."""
    published = row("metric", {"imei": "T"}, name="traffic")
    assert [TREE.sample_message("terminal", "traffic", "T", published.body)] == TREE.messages_of_row(published)


# --- the rest -------------------------------------------------------------------------------------


def test_tree_has_the_topics_of_the_contract() -> None:
    """The bridge's own topics and the filters of its commands are below the base, however many levels that has."""
    tree = TopicTree("a/b", "i", "j")
    assert (tree.status, tree.info, tree.head, tree.probe) == (
        "a/b/bridge/status",
        "a/b/bridge/info",
        "a/b/bridge/head",
        "a/b/bridge/probe",
    )
    assert list(tree.command_filters()) == [
        "a/b/bridge/polling/+/set",
        "a/b/bridge/polling/+/enabled/set",
        "a/b/bridge/polling/+/interval/set",
        "a/b/bridge/polling/+/poll",
        "a/b/bridge/request/+",
    ]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_encoded_float_is_always_written_as_one(number: float) -> None:
    """A float never becomes an integer on the wire: 70.0 stays 70.0."""
    text = encode({"a": number}).decode()
    assert re.search(r"[.eE]", text)
    assert msgspec.json.decode(text)["a"] == number


@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        ("my/answers", True),
        ("onewebs/bridge/head", True),
        ("homeassistants", True),
        ("a/$b", True),
        ("oneweb/bridge/response/mine", True),
        ("oneweb/bridge/response/", True),
        ("", False),
        ("a/+/b", False),
        ("a/#", False),
        ("$SYS/broker", False),
        ("$share/a/b", False),
        ("a\0b", False),
        ("a\nb", False),
        ("x" * (MAX_RESPONSE_TOPIC_BYTES + 1), False),
        ("oneweb", False),
        ("oneweb/bridge/head", False),
        ("oneweb/bridge/response", False),
        ("oneweb/terminal/response/state", False),
        ("oneweb/bridge/polling/sites/set", False),
        ("homeassistant", False),
        ("homeassistant/device/a/config", False),
        ("homeassistant/status", False),
        ("spBv1.0/group/NCMD/node", False),
        ("a/" * 100 + "b", True),
        ("a/" * 101 + "b", False),
        ("spBv1.0-answers", True),
    ],
)
def test_answers_go_only_where_answers_may_be_listened_to(topic: str, allowed: bool) -> None:
    """No wildcards, no `$`, nothing below the base but bridge/response, nothing of Home Assistant's; a sentence why."""
    problem = response_topic_problem(topic, "oneweb", "homeassistant")
    assert (problem is None) is allowed
    assert problem is None or problem.startswith("the response topic ")


@hypothesis.settings(max_examples=30)
@given(TEXT, TEXT)
def test_nothing_in_a_topic_is_refused_by_nats(id: str, bucket: str) -> None:
    """NATS refuses dots and spaces: whatever the ids are, no topic below the base has one, nor of another report."""
    rows = [
        msgspec.structs.replace(r, id=id, name=bucket if r.what == "usage" else r.name)
        for r in ROWS
        if r.entity not in ("call", "bridge")
    ]
    topics = {m.topic for r in [*ROWS, *rows] for m in TREE.messages_of_row(r)}
    topics |= {m.topic for r in rows if (m := TREE.replay_message(r)) is not None}
    topics |= {TREE.status, TREE.info, TREE.head, TREE.probe, TREE.alert}
    topics |= {TREE.topic_of(call.entity, id, "metric", call.report) for call in CALLS.values() if call.report}
    assert [topic for topic in topics if not re.fullmatch(r"[A-Za-z0-9_/-]+", topic)] == []
