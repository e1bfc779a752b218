"""Payload to command: what is obeyed, and the sentence that says why not."""

import contextlib
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.commands.decode import (
    MAX_COMMAND_BYTES,
    MAX_TIME_MS,
    REQUESTS,
    BadCommand,
    Command,
    Poll,
    Request,
    Set,
    command_identity,
    decode_command,
    is_no_command,
    time_range,
)
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.mqtt.topics import CommandTopic, parse_command_topic

CALL = "user_terminals"


def obeyed(verb: Any, payload: bytes | str, call: str = CALL) -> Command:
    return decode_command(
        CommandTopic("polling", call, verb), payload if isinstance(payload, bytes) else payload.encode()
    )


def requested(name: str, payload: str = "{}") -> Command:
    return decode_command(CommandTopic("request", name), payload.encode())


# --- topics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("oneweb/bridge/polling/sites/set", CommandTopic("polling", "sites", "set")),
        ("oneweb/bridge/polling/sites/poll", CommandTopic("polling", "sites", "poll")),
        ("oneweb/bridge/polling/sites/enabled/set", CommandTopic("polling", "sites", "enabled")),
        ("oneweb/bridge/polling/sites/interval/set", CommandTopic("polling", "sites", "interval")),
        ("oneweb/bridge/polling/nobody/set", CommandTopic("polling", "nobody", "set")),
        ("oneweb/bridge/request/replay", CommandTopic("request", "replay")),
        ("oneweb/bridge/polling/sites/state", None),
        ("oneweb/bridge/polling/sites/name/set", None),
        ("oneweb/bridge/polling/sites/enabled", None),
        ("oneweb/bridge/response/replay", None),
        ("oneweb/bridge/request/replay/now", None),
        ("other/bridge/polling/sites/set", None),
    ],
)
def test_address_is_read_from_the_topic(topic: str, expected: CommandTopic | None) -> None:
    """Every command topic of the contract has its address, and no other topic has one."""
    assert expected == parse_command_topic(topic, "oneweb")


def test_address_knows_a_base_of_several_levels() -> None:
    """The base topic may have levels of its own."""
    assert parse_command_topic("a/b/bridge/request/purge", "a/b") == CommandTopic("request", "purge")


# --- empty payloads -------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"  \n"])
@pytest.mark.parametrize(
    ("kind", "name", "verb", "retain", "empty"),
    [
        ("polling", CALL, "set", False, True),
        ("polling", CALL, "enabled", False, True),
        ("polling", CALL, "interval", True, True),
        ("request", "purge", "", False, True),
        ("polling", CALL, "poll", False, False),
        ("polling", CALL, "poll", True, True),
    ],
)
def test_empty_payload_is_a_poll_and_nothing_else(  # noqa: PLR0917 -- a row of a table
    payload: bytes, kind: Any, name: str, verb: Any, retain: bool, empty: bool
) -> None:
    """Empty is nothing on `set` and `request`, a poll on `poll`, and with the retain flag only a clearing."""
    assert is_no_command(CommandTopic(kind, name, verb), payload, retain=retain) is empty


def test_payload_is_not_empty() -> None:
    """Anything at all is a command, right or wrong."""
    assert not is_no_command(CommandTopic("polling", CALL, "set"), b"{}", retain=True)


# --- set ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "changes"),
    [
        ('{"enabled": false}', {"enabled": False}),
        ('{"interval": 300}', {"interval": 300.0}),
        ('{"interval": "5m"}', {"interval": 300.0}),
        ('{"interval": "10s", "enabled": true}', {"interval": 10.0, "enabled": True}),
        ('{"interval": "7d"}', {"interval": 604_800.0}),
        ('{"interval": null}', {"interval": None}),
        ('{"enabled": null}', {"enabled": None}),
        ('{"enabled": "yes"}', {"enabled": True}),
        ('{"enabled": "OFF", "interval": "5min"}', {"enabled": False, "interval": 300.0}),
        ('{"enabled": 1, "interval": "PT5M"}', {"enabled": True, "interval": 300.0}),
        ('{"enabled": 0}', {"enabled": False}),
    ],
)
def test_set_takes_any_subset(payload: str, changes: dict[str, object]) -> None:
    """`set` takes enabled, interval or both, and null goes back to the file."""
    assert obeyed("set", payload) == Set(CALL, changes)  # type: ignore[arg-type]  # values by parametrisation


def test_set_keeps_the_id_of_its_sender() -> None:
    """The id comes back in the result."""
    assert obeyed("set", '{"enabled": true, "id": "x1"}') == Set(CALL, {"enabled": True}, "x1")


@pytest.mark.parametrize(
    "payload",
    [
        "{}",
        '{"id": "x"}',
        "[]",
        "null",
        "true",
        "{",
        '{"enabled": "maybe"}',
        '{"enabled": 2}',
        '{"enabled": 1.0}',
        f'{{"enabled": {"9" * 400}}}',
        f'{{"interval": {"9" * 400}}}',
        f'{{"interval": "{"9" * 400}s"}}',
        '{"interval": true}',
        '{"interval": 9}',
        '{"interval": "9s"}',
        '{"interval": 604801}',
        '{"interval": "8d"}',
        '{"interval": -5}',
        '{"interval": 1e999}',
        '{"interval": "soon"}',
        '{"interval": [5]}',
        '{"intervall": 300}',
        '{"enabled": true, "id": 5}',
        b'{"id": "\xff"}',
        "[" * 4000,
    ],
)
def test_bad_set_says_what_was_expected(payload: bytes | str) -> None:
    """Bad JSON, unknown keys, wrong types and intervals out of bounds are refused with what was expected."""
    with pytest.raises(BadCommand, match=r"(?i)expected"):
        obeyed("set", payload)


@pytest.mark.parametrize("payload", ['{"id": "x1", "typo": 1}', '{"id": "x1", "interval": 5}', '{"id": "x1"}'])
def test_refusal_carries_the_id(payload: str) -> None:
    """The sender of a bad command learns which one it was, wherever its id is readable."""
    with pytest.raises(BadCommand) as caught:
        obeyed("set", payload)
    assert caught.value.id == "x1"


@pytest.mark.parametrize("verb", ["set", "poll", "enabled", "interval"])
def test_unknown_call_is_refused_by_name(verb: str) -> None:
    """A call that does not exist is refused, naming those that do."""
    with pytest.raises(BadCommand, match=r"'nobody'.*user_terminals.*usage_consumption"):
        obeyed(verb, "true", call="nobody")


@pytest.mark.parametrize("verb", ["set", "poll", "enabled", "interval"])
def test_long_payload_is_refused(verb: str) -> None:
    """A payload over 4 kB is refused whatever it says."""
    with pytest.raises(BadCommand, match="at most 4096"):
        obeyed(verb, b" " * (MAX_COMMAND_BYTES + 1))


# --- the bare forms -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("true", True),
        ("ON", True),
        ("on", True),
        (" True\n", True),
        ("false", False),
        ("OFF", False),
        ("null", None),
        ("yes", True),
        ("No", False),
        ("1", True),
        ("0", False),
    ],
)
def test_bare_enabled_takes_the_words_of_home_assistant(payload: str, expected: bool | None) -> None:
    """`enabled/set` takes true, false, ON, OFF, yes, no, 1 and 0, bare."""
    assert obeyed("enabled", payload) == Set(CALL, {"enabled": expected})


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("300", 300.0),
        ("5m", 300.0),
        (" 5m ", 300.0),
        ('"5m"', 300.0),
        ("300.0", 300.0),
        ("5min", 300.0),
        ("PT5M", 300.0),
        ("null", None),
    ],
)
def test_bare_interval_takes_seconds_and_durations(payload: str, expected: float | None) -> None:
    """`interval/set` takes seconds or a duration, bare."""
    assert obeyed("interval", payload) == Set(CALL, {"interval": expected})


@pytest.mark.parametrize(
    ("verb", "payload"),
    [
        ("enabled", b"yes please"),
        ("enabled", b"2"),
        ("enabled", b"\xff"),
        ("enabled", b"{}"),
        ("interval", b"9"),
        ("interval", b"8d"),
        ("interval", b"soon"),
        ("interval", b"true"),
        ("interval", b"nan"),
        ("interval", b"\xff"),
    ],
)
def test_bad_bare_value_says_what_was_expected(verb: str, payload: bytes) -> None:
    """A bare value that is none is refused with what was expected."""
    with pytest.raises(BadCommand, match="expected"):
        obeyed(verb, payload)


# --- poll -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "id"), [("", None), (" ", None), ("{}", None), ('{"id": "x"}', "x"), ('{"id": null}', None)]
)
def test_poll_takes_nothing_or_an_id(payload: str, id: str | None) -> None:
    """A poll needs no payload and may carry an id."""
    assert obeyed("poll", payload) == Poll(CALL, id)


def test_poll_of_all_is_a_poll() -> None:
    """`all` stands for every enabled call."""
    assert obeyed("poll", "", call="all") == Poll("all")


@pytest.mark.parametrize("payload", ["now", "[]", '{"id": 5}', '{"what": 1}', '{"source": "me"}'])
def test_bad_poll_is_refused(payload: str) -> None:
    """What is neither empty nor an object with an id is no poll."""
    with pytest.raises(BadCommand, match="expected"):
        obeyed("poll", payload)


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "payload", "expected"),
    [
        ("republish", "{}", Request(name="republish")),
        ("republish", '{"what": "discovery", "id": "x"}', Request(name="republish", what="discovery", id="x")),
        (
            "replay",
            '{"since": "24h", "until": "2025-06-17T14:15:00Z", "imei": "T", "report": "traffic"}',
            Request(name="replay", since="24h", until="2025-06-17T14:15:00Z", imei="T", report="traffic"),
        ),
        (
            "replay",
            '{"since": 1750167607, "product_id": "P"}',
            Request(name="replay", since=1750167607.0, product_id="P"),
        ),
        ("release", '{"call": "sites"}', Request(name="release", call="sites")),
        ("release", '{"call": null}', Request(name="release")),
        ("purge", "{}", Request(name="purge")),
    ],
)
def test_request_carries_its_members(name: str, payload: str, expected: Request) -> None:
    """Each request takes the members of the contract."""
    assert requested(name, payload) == expected


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("republish", '{"what": "nothing"}'),
        ("replay", '{"since": []}'),
        ("replay", '{"calls": 1}'),
        ("release", '{"call": 5}'),
        ("purge", '{"what": "everything"}'),
        ("purge", "[]"),
        ("explode", "{}"),
    ],
)
def test_bad_request_says_what_was_expected(name: str, payload: str) -> None:
    """An unknown request, member or value is refused with what was expected."""
    with pytest.raises(BadCommand, match=r"(?i)expected"):
        requested(name, payload)


def test_release_of_an_unknown_call_is_refused() -> None:
    """A release names a call that exists, or none."""
    with pytest.raises(BadCommand, match=r"'nobody'.*expected one of user_terminals.*usage_consumption") as caught:
        requested("release", '{"call": "nobody", "id": "x"}')
    assert caught.value.id == "x"


# --- times ----------------------------------------------------------------------------------------

NOW = 1_750_167_607.5
NOW_MS = 1_750_167_607_500


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("24h", NOW_MS - 86_400_000),
        ("PT24H", NOW_MS - 86_400_000),
        (90, NOW_MS - 90_000),
        ("90", NOW_MS - 90_000),
        ("2025-06-17T13:40:07Z", 1_750_167_607_000),
        (1_750_167_607, 1_750_167_607_000),
        ("1750167607", 1_750_167_607_000),
        (1_750_167_607_123, 1_750_167_607_123),
        ("1750167607123", 1_750_167_607_123),
        (None, 0),
        ("2025-06-17T15:40:07+02:00", 1_750_167_607_000),
        ("0001-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59Z", 0),
        ("2025-06-17t13:40:07z", 1_750_167_607_000),
        ("2025-06-17T13:40:07Z[UTC]", 1_750_167_607_000),
        ("2025-06-17T13:39:60Z", 1_750_167_600_000),
    ],
)
def test_time_is_read_in_each_form(since: str | float | None, expected: int) -> None:
    """`since` is a time, an epoch in seconds or milliseconds, or how long ago; without it, the beginning."""
    assert time_range(since, None, NOW) == (expected, MAX_TIME_MS)


UNTIMELY = (
    *(1e300, -1e300, 1e999, float("nan"), -1, 10**400, MAX_TIME_MS, "99999999999999d", "9" * 400, "9" * 5000, "30000d"),
    *(
        "-5s",
        "",
        "soon",
        "10000-01-01T00:00:00Z",
        "2025-06-17T13:40:07",
        "2025-06-17",
        "n/a",
        "24h" + " " * 5000,
        "1e300s",
        "\0",
    ),
)


@pytest.mark.parametrize("value", UNTIMELY, ids=lambda value: str(value)[:12] if value != 10**400 else "digits")
@pytest.mark.parametrize("name", ["since", "until"])
def test_time_beyond_its_bounds_is_refused(name: str, value: str | float) -> None:
    """No value gives a time that SQLite cannot hold; the sentence says which one and what was expected."""
    with pytest.raises(ValueError, match=f"^{name}: expected a time like .* or how long ago") as refused:
        time_range(value if name == "since" else None, value if name == "until" else None, NOW)
    assert len(str(refused.value)) < 200


@given(st.none() | st.text(max_size=30) | st.floats() | st.integers(), st.none() | st.text(max_size=30) | st.floats())
def test_any_range_is_bounded_or_refused(since: Any, until: Any) -> None:
    """Every pair of values is a range that begins before it ends, within the years 1970 to 9999, or a ValueError."""
    begin, end = 0, 1
    with contextlib.suppress(ValueError):
        begin, end = time_range(since, until, NOW)
    assert 0 <= begin < end <= MAX_TIME_MS


@pytest.mark.parametrize(("since", "until"), [("1h", "2h"), ("2025-06-17T13:40:07Z", "2025-06-17T13:40:07Z")])
def test_range_that_ends_before_it_begins_is_refused(since: str, until: str) -> None:
    """`until` must be after `since`."""
    with pytest.raises(ValueError, match="until: expected a time after since"):
        time_range(since, until, NOW)


# --- whatever comes -------------------------------------------------------------------------------

ADDRESSES = st.builds(
    CommandTopic,
    st.just("polling"),
    st.sampled_from([*CALLS, "all", "nobody"]),
    st.sampled_from(["set", "poll", "enabled", "interval"]),
) | st.builds(CommandTopic, st.just("request"), st.sampled_from([*REQUESTS, "nothing"]))
WORDS = st.sampled_from(
    [
        b"{",
        b"}",
        b'"id":',
        b'"interval":',
        b'"enabled":',
        b'"call":',
        b'"x"',
        b"5",
        b"null",
        b",",
        b"1e999",
        b"\xff",
        b"[",
    ]
)


@hypothesis.settings(max_examples=300)
@given(ADDRESSES, st.binary(max_size=40) | st.lists(WORDS, max_size=8).map(b"".join))
def test_any_payload_is_a_command_or_refused(address: CommandTopic, payload: bytes) -> None:
    """No payload on any command topic fails in another way than BadCommand, with a sentence of bearable length."""
    sentence, id = "nothing", None
    try:
        decode_command(address, payload)
    except BadCommand as error:
        sentence, id = str(error), error.id
    assert 0 < len(sentence) < 600
    assert id is None or len(id) <= 256


# --- the memory of retained commands --------------------------------------------------------------


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_mark_tells_contents_apart(first: bytes, other: bytes) -> None:
    """Without an id a command is remembered by its content."""
    assert (command_identity(first, None) == command_identity(other, None)) is (first == other)


def test_mark_is_the_id_where_there_is_one() -> None:
    """With an id the content does not matter, and no id looks like a content."""
    assert command_identity(b"a", "x") == command_identity(b"b", "x") != command_identity(b"a", "y")
    assert command_identity(b"a", None) != command_identity(b"a", "a")
    assert command_identity(b"a", "") != command_identity(b"a", None)


@pytest.mark.parametrize("address", [CommandTopic("polling", "nobody", "poll"), CommandTopic("request", "nothing")])
def test_id_of_a_command_for_nobody_is_repeated(address: CommandTopic) -> None:
    """The answer to a command for a call or a request that does not exist has the sender's id."""
    with pytest.raises(BadCommand) as refused:
        decode_command(address, b'{"id": "mine"}')

    assert refused.value.id == "mine"
