"""The broker of mosquitto/: made by its README's own commands, judged by what really arrives."""

import asyncio
import contextlib
import json
import re
import shlex
import signal
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from bench import shipped
from oneweb_bridge import tls
from oneweb_bridge.simulator import Options, serve
from tests import broker_setup, harness
from tests.campaign import is_at_rest
from tests.test_docs import command_topics, topic_classes


@pytest.fixture(scope="module")
def place() -> Iterator[broker_setup.Place]:
    """A broker's folders, set up once for the tests of this module."""
    with broker_setup.placed() as made:
        yield made


@pytest.fixture
async def door(place: broker_setup.Place) -> AsyncIterator[broker_setup.Place]:
    """The same with the broker running."""
    async with broker_setup.running(place):
        yield place


# ── the commands of the README ─────────────────────────────────────────────────────────────────


async def test_printed_commands_make_a_broker_that_can_be_tried(door: broker_setup.Place) -> None:
    """After the README's commands its last line, as printed, shows a message to a reader."""
    line = (
        broker_setup.printed()[-1].replace("/etc/mosquitto", str(door.home)).replace("broker.example.org", "localhost")
    )
    words = shlex.split(line.replace("8883", str(door.port)).replace("$READER_PASSWORD", door.passwords["reader"]))
    process = await asyncio.create_subprocess_exec(
        *words, "-C", "1", cwd=door.files, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with door.client("bridge") as client:
        await client.publish("oneweb/bridge/status", b'{"state":"online"}', qos=1, retain=True)
        out, err = await asyncio.wait_for(process.communicate(), harness.BUSY_S)

    assert out.decode().strip() == 'oneweb/bridge/status {"state":"online"}', err


def test_keys_and_passwords_are_for_the_broker_alone(place: broker_setup.Place) -> None:
    """Nothing that the README's commands make can be read by others than owner and group."""
    modes = {path.name: path.stat().st_mode & 0o777 for path in place.files.iterdir()}

    assert {name for name, mode in modes.items() if mode & 0o007} == set()
    assert {"acl", "passwd", "ca.crt", "server.crt", "server.key", "bridge.crt", "bridge.key"} <= modes.keys()


def test_certificates_hold_against_the_strictest_check(place: broker_setup.Place) -> None:
    """The README's certificates are good for a client that checks every word of RFC 5280, as newer Pythons do."""
    context = tls.client_context("test", str(place.files / "ca.crt"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert _accepted(place, context) == "localhost"


def _accepted(place: broker_setup.Place, context: ssl.SSLContext) -> str:
    """The name in the certificate that a server with the place's files shows, without a broker."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(place.files / "server.crt", place.files / "server.key")
    here = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    there = server.wrap_bio(outgoing, incoming, server_side=True)
    for side in (here, there, here, there):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    certificate: dict[str, Any] = here.getpeercert() or {}
    return str(certificate["subjectAltName"][0][1])


# ── who gets in ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("abandoned_sockets")
@pytest.mark.parametrize("wrong", ["no account", "wrong password", "unknown name", "no TLS", "unknown CA"])
async def test_broker_refuses_clients_without_account_or_tls(door: broker_setup.Place, wrong: str) -> None:
    """Without an account, with a wrong password or name, without TLS or with another CA there is no connection."""
    given: dict[str, Any] = {
        "username": "reader",
        "password": door.passwords["reader"],
        "tls_context": tls.client_context("test", str(door.files / "ca.crt")),
    }
    changed: dict[str, dict[str, Any]] = {
        "no account": {"username": None, "password": None},
        "wrong password": {"password": door.passwords["operator"]},
        "unknown name": {"username": "root"},
        "no TLS": {"tls_context": None},
        "unknown CA": {"tls_context": tls.client_context("test", None)},
    }
    with pytest.raises(aiomqtt.MqttError):
        async with aiomqtt.Client("localhost", door.port, timeout=3, **(given | changed[wrong])):
            pass


# ── who may do what ────────────────────────────────────────────────────────────────────────────

ANSWERS = [topic for topic in command_topics() if "/response/" in topic or topic.endswith("/result")]
TREE = [*topic_classes(), *ANSWERS]
COMMANDS = [topic for topic in command_topics() if topic not in ANSWERS]
DISCOVERY = ["homeassistant/device/{id}/config"]
BIRTH = ["homeassistant/status"]
STRANGE = [
    "other/topic",
    "oneweb",
    "oneweb/bridge",
    "oneweb/bridge/request",
    "homeassistant/light/x/config",
    "oneweb/x",
]
ALL = [*TREE, *COMMANDS, *DISCOVERY, *BIRTH, *STRANGE]
MAY_PUBLISH = {"bridge": {*TREE, *DISCOVERY}, "reader": set[str](), "operator": {*COMMANDS, *BIRTH}}
BELOW = {topic for topic in STRANGE if topic.startswith("oneweb")}
"""What nobody publishes, and who may read everything below the base would hear."""
MAY_HEAR = {
    "bridge": {*TREE, *COMMANDS, *BIRTH, *BELOW},
    "reader": {*TREE, *DISCOVERY, *BIRTH, *BELOW, "homeassistant/light/x/config"} - {"oneweb/bridge/request"},
    "operator": {*TREE, *COMMANDS, *DISCOVERY, *BIRTH, *BELOW, "homeassistant/light/x/config"},
}


def filled(pattern: str) -> str:
    """A topic of a class."""
    return re.sub(r"\{entity\}", "terminal", pattern).replace("{", "X").replace("}", "")


@pytest.mark.parametrize("modern", [True, False], ids=["5", "3.1.1"])
@pytest.mark.parametrize("role", broker_setup.ROLES)
async def test_role_publishes_what_it_may_and_nothing_else(door: broker_setup.Place, role: str, modern: bool) -> None:
    """Of one message to each class of topic, exactly those that the role may write arrive."""
    async with broker_setup.record_as(door, broker_setup.WATCHER, "#") as watcher:
        async with door.client(role, modern=modern) as client:
            for pattern in ALL:
                await client.publish(filled(pattern), json.dumps({"role": role, "class": pattern}), qos=1)
        async with door.client(broker_setup.WATCHER) as client:
            await client.publish("end", b'{"role":"end"}', qos=1)
        await watcher.until(lambda: watcher.on("end"))

    assert {content["class"] for _, content, _ in watcher.messages if content.get("role") == role} == MAY_PUBLISH[role]


@pytest.mark.parametrize("modern", [True, False], ids=["5", "3.1.1"])
@pytest.mark.parametrize("role", broker_setup.ROLES)
async def test_role_hears_what_it_may_and_nothing_else(door: broker_setup.Place, role: str, modern: bool) -> None:
    """However a role subscribes, by wildcards or topic by topic, it hears exactly the classes that it may read."""
    filters = ["#", "oneweb/#", "oneweb/bridge/+/+/set", *(filled(pattern) for pattern in ALL), "$SYS/#"]
    async with (
        broker_setup.record_as(door, role, *filters, modern=modern) as recorder,
        door.client(broker_setup.WATCHER) as client,
    ):
        for pattern in [*ALL, "oneweb/bridge/status"]:
            await client.publish(filled(pattern), json.dumps({"class": pattern}), qos=1)
        await client.publish("oneweb/bridge/status", b'{"class":"end"}', qos=1)
        await recorder.until(lambda: {"class": "end"} in recorder.on("oneweb/bridge/status"))

    assert {topic for topic, _, _ in recorder.messages if topic.startswith("$SYS")} == set()
    assert {content["class"] for _, content, _ in recorder.messages if "class" in content} - {"end"} == MAY_HEAR[role]


# ── nothing lost, and no restart ───────────────────────────────────────────────────────────────


async def test_killed_broker_forgets_nothing_that_was_saved(place: broker_setup.Place) -> None:
    """After kill -9 retained messages and what waits for an absent subscriber are there again, as of the last save."""
    wanted = [f"oneweb/terminal/{number}/state" for number in range(50)]
    async with broker_setup.running(place) as process:
        async with place.client("reader", modern=False, identifier="historian") as client:
            await client.subscribe("oneweb/terminal/+/state", qos=1)
        await _publish(place, wanted)
        # The save that autosave_interval makes once a minute, asked for by hand. Source: mosquitto(8), SIGUSR1.
        process.send_signal(signal.SIGUSR1)
        await _until_saved(place, wanted[-1].encode())
        process.kill()
        await process.wait()
    async with broker_setup.running(place):
        async with broker_setup.record_as(place, "operator", "oneweb/terminal/#", "oneweb/bridge/status") as recorder:
            await recorder.until(lambda: set(wanted) <= recorder.topics())
        async with (
            place.client("reader", modern=False, identifier="historian") as client,
            asyncio.timeout(harness.BUSY_S),
        ):
            queued: list[str] = []
            async for message in client.messages:
                queued.append(str(message.topic))
                if len(queued) == len(wanted):
                    break

    assert queued == wanted


async def _publish(place: broker_setup.Place, topics: list[str]) -> None:
    async with place.client("bridge") as client:
        for topic in topics:
            await client.publish(topic, b'{"last":"%s"}' % topic.encode(), qos=1, retain=True)


async def _until_saved(place: broker_setup.Place, last: bytes) -> None:
    """Waits until the broker's file has a message in both of its places: as retained, and for the session."""
    async with asyncio.timeout(harness.BUSY_S):
        while not place.saved.exists() or last not in place.saved.read_bytes():
            await asyncio.sleep(0.05)


async def test_fleet_does_not_make_the_broker_write_its_database_for_each_message(place: broker_setup.Place) -> None:
    """What the broker writes to disk grows with the messages, not with their square."""
    async with broker_setup.running(place) as process:
        await _publish(place, [f"oneweb/terminal/{number}/state" for number in range(50)])
        few = shipped.written_bytes(process.pid)
        await _publish(place, [f"oneweb/terminal/{number}/state" for number in range(50, 1050)])
        # A save a minute may fall into this stretch, and writes some 150 kB; a save a message makes 80 MB of it.
        assert shipped.written_bytes(process.pid) - few < 4_000_000
    assert process.returncode == 0
    assert b"terminal/1049/state" in place.saved.read_bytes()


def test_absent_subscriber_of_a_fleet_is_kept_messages_of_half_a_day() -> None:
    """At 1 000 terminals (some 35 000 samples an hour) neither bound of the queue is reached within half a day."""
    lines = (broker_setup.FOLDER / "production.conf").read_text(encoding="utf-8").splitlines()
    given = dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))
    assert int(given["max_queued_messages"]) >= 12 * 35_000
    assert int(given["max_queued_bytes"]) >= 12 * 35_000 * 350


async def test_renewed_certificate_is_shown_after_a_reload(place: broker_setup.Place) -> None:
    """SIGHUP makes the broker show a renewed certificate to new connections."""
    async with broker_setup.running(place) as broker:
        await _renewed(place, broker)


async def _renewed(place: broker_setup.Place, broker: asyncio.subprocess.Process) -> None:
    before = await _serial(place)
    place.certify("cert server renewed.example.org subjectAltName=DNS:localhost")
    broker.send_signal(signal.SIGHUP)
    async with asyncio.timeout(harness.BUSY_S):
        while await _serial(place) == before:
            await asyncio.sleep(0.05)


async def _serial(place: broker_setup.Place) -> str:
    context = tls.client_context("test", str(place.files / "ca.crt"))
    _, writer = await asyncio.open_connection("127.0.0.1", place.port, ssl=context, server_hostname="localhost")
    certificate: dict[str, Any] = writer.get_extra_info("peercert")
    writer.close()
    return str(certificate["serialNumber"])


# ── the bridge itself through these doors ──────────────────────────────────────────────────────


async def test_bridge_works_with_its_role_and_others_with_theirs(door: broker_setup.Place, tmp_path: Path) -> None:
    """The role `bridge` is refused nothing, a reader hears tree and discovery, an operator's commands are obeyed."""
    async with (
        serve(Options(terminals=3, seed=2)) as api,
        broker_setup.record_as(door, "reader", "oneweb/#", "homeassistant/#") as reader,
    ):
        bridge, operator = (written(tmp_path, api.url, door, role) for role in ("bridge", "operator"))
        code, out, _ = await harness.command("check", "-c", str(bridge))
        assert (code, "FAILED" in out) == (0, False), out
        async with harness.running(bridge) as running:
            await reader.until(lambda: is_at_rest(reader))
            await reader.until(lambda: any(topic.startswith("homeassistant/device/") for topic in reader.topics()))
            commands = (["poll", "sites"], ["set", "sites", "--interval", "2m"], ["status"], ["check"])
            ended = await asyncio.gather(*(harness.command(*words, "-c", str(operator)) for words in commands))
            log = running.text()

    # An operator may not write the probe.
    assert [code for code, _, _ in ended] == [0, 0, 0, 1], ended
    assert "refuse" not in log
    assert not [topic for topic in reader.topics() if topic.endswith(("/set", "/poll"))]


def written(directory: Path, url: str, place: broker_setup.Place, role: str) -> Path:
    """A configuration with this role's account, its password in a file."""
    home = directory / role
    home.mkdir()
    (home / "password").write_text(place.passwords[role] + "\n")
    given = {**place.settings(role), "password_file": "password"}
    del given["password"]
    return harness.bridge_yaml(home, url, place.port, mqtt=given)
