"""The other commands, run as a user runs them."""

import asyncio
import contextlib
import csv
import io
import json
import os
import re
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from oneweb_bridge import simulator
from oneweb_bridge.cli import main
from oneweb_bridge.demo import mosquitto
from tests import harness
from tests.campaign import is_at_rest


async def test_check_says_ok_for_each_step(world: harness.World) -> None:
    """`check` against a good API and broker exits 0 with one line per step."""
    code, out, err = await harness.command("check", "-c", str(world.config()))

    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["ok", "ok", "ok", "note"]
    assert "http.listen leaves the port open" in out


async def test_console_is_found_where_it_answers(world: harness.World) -> None:
    """`check` and `status --open` say where the console is, and why it cannot be reached."""
    http = mosquitto.free_port()
    config = world.config(http={"listen": f"127.0.0.1:{http}"})
    code, out, err = await harness.command("status", "--open", "-c", str(config))
    assert (code, out) == (1, "")
    assert "nothing answers" in err
    async with harness.recording(world.port) as recorder, harness.running(config):
        # While it makes its first polls it may need longer for an answer than the command waits.
        await recorder.until(lambda: is_at_rest(recorder))
        code, out, _ = await harness.command("status", "--open", "-c", str(config))
        assert (code, out) == (0, f"http://127.0.0.1:{http}/\n")
        _, out, _ = await harness.command("check", "-c", str(config))
        assert f"ok      console: http://127.0.0.1:{http}/ answers" in out
        assert "X-Forwarded-For" in out
    open_to_all = world.config(http={"listen": "0.0.0.0:8480"})
    code, _, err = await harness.command("status", "--open", "-c", str(open_to_all))
    assert (code, "console.token" in err) == (1, True)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"api": {"client_secret": "wrong-canary"}}, "Check api.client_id and api.client_secret"),
        ({"api": {"base_url": "http://127.0.0.1:9"}}, "Check api.base_url"),
        ({"mqtt": {"port": 9}}, "Check mqtt.host"),
        ({"api": {"client_id": ""}}, "ONEWEB_CLIENT_ID"),
    ],
)
async def test_check_says_what_to_do_about_each_failure(
    world: harness.World, changes: dict[str, dict[str, object]], sentence: str
) -> None:
    """`check` exits 1 and its failing line says what to do, without the secret."""
    code, out, err = await harness.command("check", "-c", str(world.config(**changes)))

    assert code == 1
    failed = [line for line in out.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1
    assert sentence in failed[0]
    assert "wrong-canary" not in out + err


async def test_check_notices_a_broker_that_does_not_deliver(tmp_path: Path, world: harness.World) -> None:
    """A broker that takes the probe but lets nobody read it is a failure with the topic to allow."""
    acl = tmp_path / "acl"
    acl.write_text("topic write oneweb/#\n")
    acl.chmod(0o644)
    conf = tmp_path / "deaf.conf"
    conf.write_text(f"allow_anonymous true\nacl_file {acl}\nuser root\n")
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port, conf):
        code, out, _ = await harness.command("check", "-c", str(world.config(mqtt={"port": port})))

    assert code == 1
    assert "oneweb/bridge/probe" in out


async def test_history_shows_what_was_published(world: harness.World) -> None:
    """`history` gives a terminal's samples and events as a table, CSV or JSON lines, also while the bridge runs."""
    config = str(world.config())
    imei = world.api.truth("terminals")[0]["id"]
    async with harness.recording(world.port) as recorder, harness.running(Path(config)):
        await recorder.until(lambda: is_at_rest(recorder))
        wanted = recorder.retained[f"oneweb/terminal/{imei}/metric/traffic"]
        span = ("--since", "2025-01-01T00:00:00Z")
        code, out, _ = await harness.command("history", "-c", config, "--imei", imei, *span, "--json")
        assert code == 0
        lines = [json.loads(line) for line in out.splitlines()]
        assert wanted in [line["data"] for line in lines]
        assert "added" in {line["kind"] for line in lines}
        code, out, _ = await harness.command(
            "history", "-c", config, "--imei", imei, *span, "--report", "traffic", "--csv"
        )
        rows = list(csv.DictReader(io.StringIO(out)))
        assert str(wanted["wan_tx_bytes"]) in [row["value"] for row in rows if row["name"] == "wan_tx_bytes"]
        assert {"traffic"} == {row["kind"] for row in rows}
        code, out, _ = await harness.command("history", "-c", config, "--imei", imei, *span)
        assert "traffic" in out
    code, out, err = await harness.command("history", "-c", config, "--imei", imei, "--since", "soon")
    assert (code, out) == (2, "")
    assert "expected a time" in err


@pytest.mark.parametrize(
    "span",
    [
        ("--since", "99999999999999d"),
        ("--since", "9" * 400),
        ("--since=-5s",),
        ("--until", "1e300"),
        ("--since", "10000-01-01T00:00:00Z"),
        ("--since", "1h", "--until", "2h"),
    ],
)
async def test_history_of_an_impossible_time_is_wrong_usage(world: harness.World, span: tuple[str, ...]) -> None:
    """A span of time that does not exist is exit 2 with one sentence that names the option."""
    code, out, err = await harness.command("history", "-c", str(world.config()), "--imei", "T", *span)

    assert (code, out) == (2, "")
    assert re.match(r"oneweb-bridge: history: (since|until): expected ", err)
    assert len(err.splitlines()) == 1


async def test_history_is_utf_8_in_any_locale(world: harness.World) -> None:
    """Arrows and names of any script come out as UTF-8, whatever the locale says."""
    config, imei = str(world.config()), world.api.truth("terminals")[0]["id"]
    async with harness.recording(world.port) as recorder, harness.running(Path(config)):
        await recorder.until(lambda: is_at_rest(recorder))
        world.api.fleet("rename", id=imei, name="Fähre Ærø 船")
        await harness.poll(world.port, "user_terminals")
        await recorder.until(lambda: recorder.on(f"oneweb/terminal/{imei}/event/changed"))
    for form in ((), ("--csv",), ("--json",)):
        code, out, err = await harness.command(
            *("history", "-c", config, "--imei", imei, "--since", "2025-01-01T00:00:00Z", *form),
            PYTHONIOENCODING="latin-1",
        )
        assert (code, err) == (0, "")
        assert "Fähre Ærø 船" in out


async def test_config_masks_secrets(world: harness.World) -> None:
    """`config` prints the effective configuration as YAML and shows no secret."""
    code, out, _ = await harness.command(
        "config", "-c", str(world.config(mqtt={"password": "canary-4711", "username": "u"}))
    )

    assert code == 0
    assert "user_terminals" in out
    assert "canary-4711" not in out
    assert "demo-secret" not in out


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a program that is just starting."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.05)


async def test_simulate_serves_the_api_until_it_is_stopped(tmp_path: Path) -> None:
    """`simulate` says where it listens, answers hello with the right credentials only, and exits 0 on SIGTERM."""
    port = mosquitto.free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "oneweb_bridge", "simulate", "--port", str(port), "--terminals", "3"
    )
    try:
        reader, writer = await connected(port)
        writer.write(b"GET /hello/v1/oneweb/world HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b" 401 " in await reader.readline()
        writer.close()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()


FORGETFUL = """
import asyncio, contextlib
from oneweb_bridge.cli import signals as cli

async def forgets(often):
    print("ready", flush=True)
    for _ in range(often):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    await asyncio.Event().wait()

async def work():
    async with asyncio.TaskGroup() as group:
        group.create_task(forgets(2))

cli.CANCEL_AGAIN_S = 0.2
raise SystemExit(cli.run_until_signal(work()))
"""


async def test_task_that_forgets_that_it_was_cancelled_is_told_again() -> None:
    """A signal to stop is obeyed also by work that has lost the first cancellations."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", FORGETFUL, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()


HELD_UP = """
import asyncio, sys, threading, time
from oneweb_bridge.cli import signals as cli

async def work():
    print("ready", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        if sys.argv[1] == "waits":
            threading.Thread(target=time.sleep, args=(30,)).start()
            await asyncio.to_thread(time.sleep, 30)
        raise ExceptionGroup("", [OSError("the database is locked")])

raise SystemExit(cli.run_until_signal(work(), None, 0.5 if sys.argv[1] == "waits" else 10))
"""


@pytest.mark.parametrize(("how", "words"), [("waits", "without waiting"), ("fails", "the database is locked")])
async def test_stop_that_is_held_up_ends_in_time(how: str, words: str) -> None:
    """Another process may hold the database longer than a stop may take, or make the last write fail."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HELD_UP, how, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), 15)
        assert (process.returncode, errors.decode().count(words)) == (0, 1)
        assert "Traceback" not in errors.decode()
    finally:
        if process.returncode is None:
            process.kill()


async def test_demo_publishes_a_fleet_that_its_printed_line_shows() -> None:
    """The demo prints a mosquitto_sub line, and with its port a fleet of 25 is heard."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "oneweb_bridge",
        "demo",
        "--duration",
        "300s",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            first = (await process.stdout.readline()).decode().split()
            assert first[0] == "Console:"
            async with aiohttp.ClientSession() as session, session.get(first[1]) as page:
                assert (page.status, page.content_type) == (200, "text/html")
            while not (
                match := re.search(
                    rb"mosquitto_sub -h 127\.0\.0\.1 -p (\d+) -t 'oneweb/#' -v", await process.stdout.readline()
                )
            ):
                pass
            while not (line := re.search(rb"status -c (\S+)", await process.stdout.readline())):
                pass
        drained = asyncio.create_task(process.stdout.read())
        async with harness.recording(int(match[1])) as recorder:
            await recorder.until(lambda: is_at_rest(recorder), 60)
            await recorder.until(lambda: recorder.retained["oneweb/bridge/info"]["api"]["state"] == "ok")
            states = [t for t in recorder.retained if re.fullmatch(r"oneweb/terminal/\d+/state", t)]
            assert len(states) in (24, 25)
        code, out, err = await harness.command("status", "-c", line[1].decode())
        assert (code, err) == (0, "")
        assert out.startswith("bridge online, API ok")
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0
        await drained
    finally:
        if process.returncode is None:
            process.kill()


async def test_demo_without_a_broker_prints_json_lines() -> None:
    """Where there is no mosquitto the demo says in one sentence how to get one, and prints what it would publish."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oneweb_bridge", "demo"),
        env={**os.environ, "ONEWEB_BRIDGE_MOSQUITTO": "/nonexistent"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(harness.BUSY_S):
            topic = ""
            while not (topic.startswith("oneweb/terminal/") and topic.endswith("/state")):
                topic = json.loads(await process.stdout.readline())["topic"]
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0
        assert b"apt-get install mosquitto" in errors
    finally:
        if process.returncode is None:
            process.kill()


async def test_demo_is_over_after_its_duration() -> None:
    """However far it has come by then."""
    code, _, err = await harness.command("demo", "--duration", "2s", ONEWEB_BRIDGE_MOSQUITTO="/nonexistent")

    assert code == 0
    assert "The demo is over after 2s (--duration)." in err


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("run", "--nonsense"), ("poll", "nonsense"), ("history",)])
async def test_wrong_usage_is_exit_2_without_a_traceback(arguments: tuple[str, ...]) -> None:
    """Wrong usage exits 2 and shows no traceback."""
    code, out, err = await harness.command(*arguments)

    assert (code, out) == (2, "")
    assert "Traceback" not in err


DIGITS = "9" * 400


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("demo", "--terminals", DIGITS), "expected a number from 0 to 400000"),
        (("demo", "--speed", "nan"), "expected a number above 0"),
        (("demo", "--duration", "99999999999999d"), "at most 100 years"),
        (("simulate", "--port", DIGITS), "port must be from 0 to 65535"),
        (("simulate", "--terminals", DIGITS), "terminals must be from 0 to 400000"),
        (("simulate", "--cycle", "inf"), "cycle must be from 1"),
        (("simulate", "--shape", "zone_hours=nan"), "zone_hours must be from -24"),
        (("simulate", "--shape", "nonsense=1"), "'nonsense' is no NAME"),
        (("set", "sites", "--interval", "1e300s"), "expected a duration like 30s or 5m"),
        (("set", "sites", "--interval", "9s"), "expected 10 s to 7 d"),
    ],
)
async def test_number_out_of_bounds_is_exit_2_with_a_sentence(arguments: tuple[str, ...], expected: str) -> None:
    """A number that the command cannot count with exits 2 and says what was expected."""
    code, out, err = await harness.command(*arguments)

    assert (code, out) == (2, "")
    assert expected in err
    assert "Traceback" not in err


async def test_simulate_help_describes_every_option() -> None:
    """Each option of `simulate` is described, with its default where there is one."""
    code, out, _ = await harness.command("simulate", "--help", COLUMNS="200")

    described = re.findall(r"^  --([a-z-]+) \S+\s+(\w.*)$", out, re.MULTILINE)
    names = {name.replace("_", "-") for name in simulator.Options.__struct_fields__} - {"gzip"}
    assert code == 0
    assert names <= {name for name, _ in described}
    assert "None" not in out
    assert "terminals in the fleet, 0 to 400000 (default: 25)" in out


async def test_corrupt_database_is_one_sentence_and_exit_1(world: harness.World) -> None:
    """A state file that is no database is refused with one sentence that names it."""
    config = world.config()
    (world.directory / "bridge.db").write_text("this is no database " * 400)
    code, _, err = await harness.command("run", "-c", str(config))

    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "bridge.db" in err


async def test_newer_database_is_refused(world: harness.World) -> None:
    """A state file of a newer version is not touched, and the sentence says to upgrade."""
    config = world.config()
    with contextlib.closing(sqlite3.connect(world.directory / "bridge.db")) as db:
        db.execute("CREATE TABLE x (y)")
        db.execute("PRAGMA user_version = 99")
    code, _, err = await harness.command("run", "-c", str(config))

    assert code == 1
    assert "upgrade" in err


@pytest.mark.parametrize(
    ("command", "code"), [("_check", 1), ("_backup", 1), ("_poll", 1), ("_history", 1), ("_run", 0), ("_demo", 0)]
)
def test_interrupted_command_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, code: int
) -> None:
    """Ctrl-C ends a command with exit code 1, so that no script goes on as if it were done; `run` ends so with 0."""
    given = {"_backup": ("x.db",), "_poll": ("sites",), "_history": ("--imei", "1")}

    def interrupt(_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, command, interrupt)
    assert main.main((command[1:], *given.get(command, ()))) == code
    assert capsys.readouterr().err == ("oneweb-bridge: interrupted\n" if code else "")


def test_hangup_before_the_bridge_listens_for_it_is_harmless(tmp_path: Path) -> None:
    """A reload right after the start, as by a service manager, does not end the process: what is read is new enough."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert main.main(["run", "-c", str(tmp_path / "missing.yaml")]) == 2
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
