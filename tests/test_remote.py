"""What `status`, `poll` and `set` make of what stands on the bridge's topics, whoever has put it there."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from oneweb_bridge.cli import remote
from oneweb_bridge.cli.console_address import look_for_console
from oneweb_bridge.cli.loading import masked_print
from oneweb_bridge.cli.locate import Unreachable, decode_object
from oneweb_bridge.cli.remote import _add_message, _result_line, table
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import parse
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.mqtt.topics import TopicTree
from tests.outside import VALUES, with_value, with_values

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


STRANGE = VALUES | {
    "half": "-0.5",
    "longest_number": "9" * 4300,
    "cursor": json.dumps("\x1b[2J\r\n\x9b1;1H"),
    "as_deep_as_it_may_be": "[" * 990 + "]" * 990,
    "calls": '{"calls": 1}',
    "call": '{"calls": {"sites": 1}}',
}
INFO = {"api": {"state": "ok"}, "journal": {"backlog": 0}, "calls": {"sites": {}, "products": {}}}
COST = {"interval": 21600, "effective_interval": 21600, "requests_per_hour": 2}


def published(info: bytes, state: bytes) -> dict[str, Any]:
    """What `status` has after it read these payloads, the state twice as if two calls had it."""
    bridge: dict[str, Any] = {"bridge": "offline", "info": {}, "calls": {}}
    _add_message(bridge, TREE.status, b'{"state": "online"}', TREE)
    _add_message(bridge, TREE.info, info, TREE)
    for call in ("sites", "products"):
        _add_message(bridge, f"oneweb/bridge/polling/{call}/state", state, TREE)
    return bridge


def check_lines(lines: list[str]) -> None:
    """Fails for what cannot be written to a pipe, moves a terminal's cursor, or is longer than anybody reads."""
    for line in lines:
        line.encode()
        assert line.isprintable()
        assert len(line) < 4000


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)
def test_strange_values_are_no_traceback(strange: str) -> None:
    """Whatever stands in a member of what others may publish: the table, its JSON and the line of a result are made."""
    info, state = {**INFO, "calls": dict.fromkeys(CALLS, COST)}, json.dumps(STATE).encode()
    for name in (*STATE, "last_poll", "next_poll", "error"):
        (changed,) = with_values(STATE | {name: ""}, (name,), [strange])
        bridge = published(json.dumps(info).encode(), changed.encode())
        msgspec.json.encode(bridge)
        check_lines(table(bridge))
        check_lines([_result_line("sites", decode_object(f'{{"status": "ok", "state": {changed}}}'.encode()))])
    for name in ("api", "journal", "calls"):
        check_lines(table(published(with_value(INFO, (name,), strange).encode(), state)))
    for name in COST:
        costs = with_value(COST, (name,), strange)
        payload = f'{{"calls": {{"sites": {costs}, "products": {costs}}}}}'
        check_lines(table(published(payload.encode(), state)))
    for name in ("status", "state", "error"):
        result = with_value({"status": "error", "state": {}, "error": ""}, (name,), strange)
        check_lines([_result_line("sites", decode_object(result.encode()))])


def test_number_beyond_64_bits_is_not_known() -> None:
    """No number of the bridge is so large: it is left out, and what stands beside it is shown."""
    state = {**STATE, "interval": 10**400, "records": 2**64, "events": 2**63 - 1}
    row = table(published(json.dumps(INFO).encode(), json.dumps(state).encode()))[-1]
    assert row.split() == ["sites", "yes", "ok"]
    line = _result_line("sites", decode_object(json.dumps({"status": "ok", "state": state}).encode()))
    assert line == f"sites: ok, enabled, every (unknown), {2**63 - 1} events, 0 samples"


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


OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "no_http": b"\x00\xff\r\n\r\n",
    "negative_chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    "no_chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    "length_of_thousands_of_digits": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    "many_headers": OK + b"a: b\r\n" * 200 + b"\r\n",
    "nested": OK + b'\r\n{"x":' + b"[" * 4000,
    "cursor": OK + b'\r\n{"error":"\\u001b[2J\\n\\u202e"}',
    **{f"signed_in_{name}": OK + b'\r\n{"signed_in":%b}' % value.encode() for name, value in VALUES.items()},
    **{f"error_{name}": OK + b'\r\n{"error":%b}' % value.encode() for name, value in VALUES.items()},
}


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """The port of a server that sends these bytes once, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_whatever_answers_for_the_console_is_a_sentence(answer: bytes) -> None:
    """`check` and `status --open` say in a line that something else answers there, or what it says."""
    with answering(answer) as port:
        state = look_for_console(parse(f"http: {{listen: '127.0.0.1:{port}'}}", {}))
    check_lines([state.sentence])
    assert state.is_answering == (answer.endswith((b":true}", b":false}")) and b"signed_in" in answer)


def test_lines_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """What a broker or the API says in an error is printed without control characters; lines and tabs stay."""
    masked_print(Masks())("refused: \x1b[2J\x9b1A\r\x00\tthere\nbelow")
    assert capsys.readouterr().out == "refused: \\x1b[2J\\x9b1A\\x0d\\x00\tthere\nbelow\n"
