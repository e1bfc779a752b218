"""What a user reads after a mistake: one sentence that says where it is and what to do."""

import asyncio
import errno
import json
import os
import socket
import sqlite3
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from msgspec.structs import replace

from oneweb_bridge.api.listing import Problems
from oneweb_bridge.cli import main as cli
from oneweb_bridge.cli import remote
from oneweb_bridge.cli.remote import table
from oneweb_bridge.commands.decode import BadCommand, check_report, decode_command, parse_every, parse_interval
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.read import parse
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.demo import demo, mosquitto
from oneweb_bridge.files import refusal_of
from oneweb_bridge.mqtt.broker_errors import describe_connection_error
from oneweb_bridge.mqtt.topics import CommandTopic
from oneweb_bridge.polling.alerts import unreadable_alerts
from oneweb_bridge.polling.request_budget import RequestBudget
from oneweb_bridge.simulator import Shape
from oneweb_bridge.store.errors import UnknownEntity
from oneweb_bridge.trends.reading import open_history
from oneweb_bridge.web import healthcheck
from oneweb_bridge.web.access import RequestFacts, refuse_form
from tests import harness
from tests.past import BEGIN, Past, sample
from tests.polls import bench
from tests.test_executor import executing

REPLAY = CommandTopic("request", "replay")


# ── names of closed lists ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("report", "entity", "expected"),
    [
        ("signal_qualty", "terminal", "signal_quality"),
        ("throughput", "terminal", "expected one of link_availability"),
        ("signal_quality", "product", "expected one of throughput, usage"),
        ("nothing", None, "presence, throughput, usage"),
        ("", None, "presence, throughput, usage"),
    ],
)
def test_report_that_is_never_there_is_refused(report: str, entity: str | None, expected: str) -> None:
    """A report of no call, or of another kind of entity, is refused with the ones there are."""
    with pytest.raises(ValueError, match=expected):
        check_report(report, entity)


def test_every_report_of_a_call_is_known() -> None:
    """The reports of all calls, presence and usage are taken, with and without the entity that has them."""
    for call in CALLS.values():
        check_report(call.report or None, call.entity if call.report else None)
        check_report(call.report or None)
    for report, entity in (("presence", "terminal"), ("usage", "product"), (None, "terminal")):
        check_report(report, entity)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"report": "signal_qualty"}, "report: there is no 'signal_qualty', expected one of link_availability"),
        ({"imei": "T", "report": "throughput"}, "report: for a terminal there is no 'throughput', expected one of"),
        ({"imei": "1"}, "nothing is known of a terminal with the IMEI '1'"),
        ({"product_id": "1"}, "nothing is known of a product with the id '1'"),
    ],
)
async def test_replay_of_what_is_not_there_is_an_error(tmp_path: Path, payload: dict[str, str], expected: str) -> None:
    """A typing error in a replay is answered with what is wrong, never with `ok` and no message."""
    async with bench(tmp_path) as b, executing(b, tmp_path) as (inbox, answers), asyncio.timeout(30):
        inbox.put(answers.command("oneweb/bridge/request/replay", json.dumps({"id": "x", **payload}).encode()))
        while not answers.sent:
            await asyncio.sleep(0.01)

    answer = json.loads(answers.sent[0].payload)
    assert (answer["id"], answer["status"]) == ("x", "error")
    assert expected in answer["error"]
    assert "count" not in answer


async def test_terminal_without_samples_and_events_is_known(past: Past) -> None:
    """A record alone is enough: nothing to send again is no error then."""
    with open_history(past.path, past.trends) as history, pytest.raises(UnknownEntity, match="'T'"):
        history.require_known("terminal", "T")
    with sqlite3.connect(past.path) as db:
        columns = [name for _, name, _, needed, default, _ in db.execute("PRAGMA table_info(record)") if needed]
        values = {"kind": "terminal", "id": "T", "doc": "{}"}
        marks = ", ".join("?" * len(columns))
        db.execute(
            f"INSERT INTO record ({', '.join(columns)}) VALUES ({marks})",
            [values.get(name, 0) for name in columns],
        )
    db.close()
    with open_history(past.path, past.trends) as history:
        history.require_known("terminal", "T")


async def test_history_of_what_is_not_there_has_failed(
    past: Past, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown report is wrong usage; an unknown IMEI a failure; a known one that has nothing in the span is none."""
    await past.write(sample(BEGIN, sinr_db=1.0))
    monkeypatch.chdir(past.path.parent)
    Path("b.yaml").write_text(f"state: {{path: {past.path}}}")
    for arguments, code, expected in (
        (("--imei", "T", "--report", "signal_qualty"), 2, "expected one of link_availability, signal_quality"),
        (("--product", "P", "--report", "signal_quality"), 2, "expected one of throughput, usage"),
        (("--imei", "1"), 1, "nothing is known of a terminal with the IMEI '1'"),
        (("--imei", "1", "--plot"), 1, "nothing is known of a terminal with the IMEI '1'"),
        (("--imei", "T", "--report", "traffic"), 0, "nothing is kept of T in this span"),
    ):
        assert await asyncio.to_thread(cli.main, ["history", "-c", "b.yaml", *arguments]) == code
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        assert expected in err


def test_word_of_republish_is_refused_with_those_there_are() -> None:
    """`what` has two values, which the error names."""
    with pytest.raises(BadCommand, match="what: expected one of everything, discovery"):
        decode_command(CommandTopic("request", "republish"), b'{"what": "discovry"}')


@pytest.mark.parametrize(("name", "nearest"), [("ut_signl", "ut_signal_quality"), ("signal_quality", "ut_signal")])
def test_wrong_call_is_one_sentence_with_the_nearest_names(
    name: str, nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No usage of many lines, and exit 2."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["poll", name])
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert (len(err.splitlines()), f"there is no call '{name}', did you mean {nearest}" in err) == (1, True)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["history"], ["run", "--nonsense"], ["poll"]])
def test_wrong_usage_is_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It names the command and where its usage is."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    err = capsys.readouterr().err
    assert (ended.value.code, len(err.splitlines())) == (2, 1)
    assert "--help" in err


def test_shape_is_refused_with_its_values_and_listed_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong value of `simulate --shape` is refused with the right ones, and the help has all of them."""
    assert cli.main(["simulate", "--shape", "names=x"]) == 2
    assert capsys.readouterr().err == "oneweb-bridge: simulate: --shape names: expected one of default, other\n"
    assert cli.main(["simulate", "--auth", "x"]) == 2
    assert capsys.readouterr().err.startswith("oneweb-bridge: simulate: --auth: expected one of basic, headers, ")
    assert cli.main(["simulate", "--port", "x"]) == 2
    assert capsys.readouterr().err == "oneweb-bridge: simulate: --port: expected a whole number, got a text\n"
    with pytest.raises(SystemExit):
        cli.main(["simulate", "--help"])
    text = "".join(capsys.readouterr().out.split())
    assert "names(default|other)" in text
    assert all(name in text for name in Shape.__struct_fields__)


# ── what the system refuses ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), os.strerror(errno.ECONNREFUSED)),
        (OSError(errno.EADDRINUSE, "error while attempting to bind on ('::1', 1)"), os.strerror(errno.EADDRINUSE)),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 111] Connect call failed"),
            os.strerror(111),
        ),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (ValueError("embedded null byte"), "not a file name"),
    ],
)
def test_refusal_of_the_system_is_in_its_words(error: OSError | ValueError, expected: str) -> None:
    """Neither numbers nor the tuples of asyncio, whichever part of Python has made the error."""
    assert refusal_of(error) == expected


def test_refusal_of_a_broker_is_in_words() -> None:
    """The library makes an error of its own of the text of the system's."""
    assert describe_connection_error(aiomqtt.MqttError("[Errno 111] Connection refused")) == os.strerror(111)
    assert describe_connection_error(aiomqtt.MqttError("[Errno -2] Name or service not known")) == (
        "Name or service not known"
    )


@pytest.mark.parametrize("arguments", [("status",), ("poll", "sites"), ("set", "sites", "--interval", "5m")])
def test_broker_that_is_not_there_is_a_sentence_with_a_remedy(
    tmp_path: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Which keys to check, and that the broker may not run."""
    port = mosquitto.free_port()
    file = tmp_path / "b.yaml"
    file.write_text(f"mqtt: {{host: 127.0.0.1, port: {port}}}")
    assert cli.main([*arguments, "-c", str(file)]) == 1
    text = "".join(capsys.readouterr())
    assert text == (
        f"oneweb-bridge: the broker 127.0.0.1:{port} cannot be reached (Connection refused): start it, or check "
        "mqtt.host, port, tls, username and password in the configuration, which -c names\n"
    )


async def test_command_to_a_stopped_bridge_says_how_to_start_it(world: harness.World) -> None:
    """`poll` of a bridge that is offline ends at once, with a remedy."""
    await harness.publish(world.port, "oneweb/bridge/status", '{"state": "offline"}', retain=True)
    code, out, _ = await harness.command("poll", "sites", "-c", str(world.config()))
    assert code == 1
    assert "the bridge is offline: start it with `oneweb-bridge run`" in out


def test_port_of_the_simulator_that_is_taken_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """It names the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert cli.main(["simulate", "--port", port]) == 2
    err = capsys.readouterr().err
    assert err == (
        f"oneweb-bridge: simulate: 127.0.0.1:{port} cannot be used (Address already in use): choose another\n"
    )


def test_healthcheck_of_nobody_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the key and the address."""
    port = mosquitto.free_port()
    (tmp_path / "b.yaml").write_text(f"http: {{listen: '127.0.0.1:{port}'}}")
    assert healthcheck.main([str(tmp_path / "b.yaml")]) == 1
    err = capsys.readouterr().err
    assert f"http.listen, 127.0.0.1:{port}, does not answer (Connection refused)" in err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n\tb: 1", "line 2: a tab stands where the line is indented: indentation takes spaces"),
        ("a: 1\nb: [1\n\n", "line 2: the brace or bracket that begins here is not closed"),
        ("a: [1,", "line 1: the file ends here, and a brace or bracket in this line or above is not closed"),
        ("a: {b: 1\n\nc: 2\n", "line 3: expected a comma or the closing '}'"),
        ("a: 1\nb: 'x\nc: d", "line 2: the quote that begins here is not closed"),
        ("a:\n  b: 1\n c: 2", "line 3: the indentation does not fit"),
        ("a:\n  b: 1\n   c: 2", "line 3: a key with ':' cannot stand here"),
        ("a: b: c", "put a value with ': ' in quotes"),
        ("a: @x", "line 1: a text cannot begin with '@': put the text in quotes"),
        ("a: 'it's'", "a quote inside single quotes is written twice"),
    ],
)
def test_mistake_in_yaml_is_told_in_the_words_of_people(text: str, expected: str) -> None:
    """The line, and what to do; none of the parser's own words."""
    with pytest.raises(ConfigError) as refused:
        parse(text, {})
    assert expected in str(refused.value)
    assert not any(word in str(refused.value) for word in ("token", "stream end", "block end", "node content"))


# ── bounds, HTTP ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["2 minutes", "fast", "1s", "8d", "", "1e300s"])
def test_interval_is_refused_with_the_bounds_of_intervals(text: str) -> None:
    """Whether it is no duration or too short a one, the sentence has the bounds of intervals, never those of years."""
    with pytest.raises(ValueError, match=r"^interval: expected .*10 s to 7 d, got '"):
        parse_interval(text)
    with pytest.raises(BadCommand, match="10 s to 7 d"):
        decode_command(CommandTopic("polling", "sites", "interval"), text.encode() or b'""')


def test_every_is_refused_with_its_bounds() -> None:
    """The same for the intervals of `history` and `replay`."""
    for text in ("soon", "59s", "0"):
        with pytest.raises(ValueError, match=r"^every: expected at least 1m, like 5m or 1h"):
            parse_every(text)


def test_missing_header_is_told_with_what_to_send() -> None:
    """Any program can send it; the sentence has the option of curl."""
    facts = RequestFacts(method="POST", path="/api/v1/calls/sites/poll", peer="127.0.0.1", headers={})
    refusal = refuse_form(facts, has_right_bearer=False)
    assert refusal is not None
    assert "curl: -H 'X-Oneweb-Console: 1'" in refusal.error


# ── words and numbers ──────────────────────────────────────────────────────────────────────────


def test_status_says_zones_and_what_was_before() -> None:
    """Times have their zone; what an offline bridge said of the API is past; one event is no events."""
    state: dict[str, Any] = {"call": "sites", "enabled": True, "last_poll": "2025-06-17T14:15:02.113Z"}
    info = {"api": {"state": "ok"}}
    head, _, _, line = table({"bridge": "offline", "info": info, "calls": {"sites": state}})
    assert head.startswith("bridge offline, API was ok, ")
    assert "2025-06-17 14:15:02Z" in line
    assert table({"bridge": "online", "info": info, "calls": {}})[0].startswith("bridge online, API ok, ")
    counts = {"interval": 60, "records": 1, "events": 1, "samples": 2, "enabled": False}
    result = remote._result_line("sites", {"status": "ok", "state": counts})
    assert result == "sites: ok, disabled, every 1m, 1 record, 1 event, 2 samples"


def test_counts_have_the_right_noun() -> None:
    """One record, two records, in the alerts of a poll."""
    problems = Problems()
    problems.add_set_aside("x: no id")
    (alert,) = unreadable_alerts("sites", problems)
    assert alert.message == "1 record could not be read and was left as it was; the first: x: no id"
    problems.add_set_aside("y: no id")
    assert unreadable_alerts("sites", problems)[0].message.startswith("2 records could not be read")


def test_whole_costs_of_calls_have_the_sum_of_the_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """So `status`, `info` and the console have one number, whatever fractions the calls have."""
    config = parse("", {})
    budget = RequestBudget({}, config)
    monkeypatch.setattr(budget, "costs", lambda: {"a": 0.4, "b": 0.4, "c": 0.4, "d": 12.0})
    assert sum(budget.whole_costs().values()) == 13
    assert budget.whole_costs()["d"] == 12


def test_demo_writes_a_configuration_for_the_other_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the broker, database and console that it uses; it says where, and that the usual port was taken."""
    config = demo.configuration("http://127.0.0.1:9", 1885, tmp_path)
    config = replace(config, http=replace(config.http, listen="127.0.0.1:0"))
    demo._say_where(25, config, "http://127.0.0.1:8499/")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Console: http://127.0.0.1:8499/"
    assert lines[1] == "Another program uses 127.0.0.1:8480, so the console is on a free port."
    file = tmp_path / "bridge.yaml"
    assert any(line.endswith(f" status -c {file}") for line in lines)
    written = parse(file.read_text(), {}, name=str(file))
    assert (written.mqtt, written.state, written.api.base_url) == (config.mqtt, config.state, config.api.base_url)
    assert written.http.listen == "127.0.0.1:8499"
    assert {c.id: (c.enabled, c.interval) for c in written.polling.values()} == {
        c.id: (c.enabled, c.interval) for c in config.polling.values()
    }


@pytest.mark.parametrize(
    ("arguments", "payload"),
    [
        (("--interval", "file"), {"interval": None}),
        (("--enabled", "file"), {"enabled": None}),
        (("--enabled", "yes"), {"enabled": True}),
        (("--enabled", "off"), {"enabled": False}),
        (("--enabled", "false", "--interval", "5m"), {"interval": "5m", "enabled": False}),
        (("--enable",), {"enabled": True}),
        (("--disable",), {"enabled": False}),
    ],
)
def test_set_goes_back_to_the_file(
    arguments: tuple[str, ...], payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`file` is the `null` of MQTT and the console."""
    sent: list[Any] = []

    async def send(_: Any, commands: list[Any], __: Any) -> bool:
        sent.extend(commands)
        return True

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote, "command", send)
    assert cli.main(["set", "sites", *arguments]) == 0
    assert sent == [("sites", "set", payload)]
