"""The broker as mosquitto/README.md sets it up: its own commands, certificates and passwords, at another place."""

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
from paho.mqtt.subscribeoptions import SubscribeOptions

from oneweb_bridge import tls
from oneweb_bridge.demo import mosquitto
from tests import harness
from tests.cancelling import cancel_until_done

FOLDER = Path(__file__).parent.parent / "mosquitto"
ROLES = ("bridge", "reader", "operator")
WATCHER = "watcher"
"""A user of the tests who may do everything, to see what arrives."""
EVERYTHING = f"\nuser {WATCHER}\ntopic readwrite #\n"


def printed() -> list[str]:
    """The shell commands of the section that sets up a broker, block by block."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    section = text.split("## Set up a real broker")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


class Place:
    """Where a broker lives: everything that the README puts below /etc/mosquitto, and its data."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = mosquitto.free_port()
        self.passwords = {role: f"pa55 {role} {secrets.token_hex(6)}" for role in (*ROLES, WATCHER)}
        self.config = home / "mosquitto.conf"
        self.store = home / "data"

    @property
    def files(self) -> Path:
        """The folder of certificates, passwords and roles."""
        return self.home / "oneweb-bridge"

    @property
    def saved(self) -> Path:
        """The file in which the broker keeps what it must not forget."""
        return self.store / "mosquitto.db"

    def set_up(self) -> None:
        """Runs the README's commands as they are printed, but for the place, the host's name and root's commands."""
        (self.home / "conf.d").mkdir()
        self.store.mkdir()
        _own(self.store)
        stubs = self.home / "stubs"
        stubs.mkdir()
        for name in ("apt-get", "systemctl"):
            (stubs / name).write_text("#!/bin/sh\n")
            (stubs / name).chmod(0o755)
        self._type_passwords(stubs / "mosquitto_passwd")
        self.run("set -eu\n" + "".join(printed()[:-1]), PATH=f"{stubs}:{os.environ['PATH']}")
        self._add_watcher()
        self._place_config()

    def _type_passwords(self, stub: Path) -> None:
        """Someone at the terminal, who types the password of the name that is asked for, and types it again."""
        cases = "".join(f"{role}) typed='{password}' ;; " for role, password in self.passwords.items())
        answer = 'printf "%s\\n%s\\n" "$typed" "$typed"'
        stub.write_text(
            f'#!/bin/sh\nfor name; do :; done\ncase "$name" in {cases}esac\n'
            f'{answer} | {shutil.which("mosquitto_passwd")} "$@"\n'
        )
        stub.chmod(0o755)

    def run(self, script: str, **environment: str) -> None:
        """Runs commands of the README in its folder. Raises AssertionError with what they said when they fail."""
        script = script.replace("/etc/mosquitto", str(self.home)).replace("broker.example.org", "localhost")
        script = script if os.geteuid() == 0 else script.replace(" -g mosquitto", "")
        given = {**os.environ, **environment}
        done = subprocess.run(
            ["sh", "-c", script], cwd=FOLDER, env=given, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _add_watcher(self) -> None:
        entry = ["mosquitto_passwd", "-b", str(self.files / "passwd"), WATCHER, self.passwords[WATCHER]]
        subprocess.run(entry, check=True, capture_output=True, timeout=100)
        with (self.files / "acl").open("a") as acl:
            acl.write(EVERYTHING)

    def _place_config(self) -> None:
        """What Debian's own /etc/mosquitto/mosquitto.conf says, and the port of this test."""
        ours = self.home / "conf.d" / "oneweb-bridge.conf"
        text = ours.read_text().replace("/etc/mosquitto", str(self.home))
        ours.write_text(text.replace("listener 8883", f"listener {self.port} 127.0.0.1"))
        self.config.write_text(
            f"persistence true\npersistence_location {self.store}/\nlog_dest stderr\ninclude_dir {ours.parent}\n"
        )

    def settings(self, role: str, **changes: Any) -> dict[str, Any]:
        """The `mqtt` section of a client with this role's account."""
        given = {
            "host": "localhost",
            "port": self.port,
            "username": role,
            "password": self.passwords[role],
            "tls": {"enabled": True, "ca_file": str(self.files / "ca.crt")},
        }
        return harness.merged(given, changes)

    def client(self, role: str, *, modern: bool = True, identifier: str | None = None) -> aiomqtt.Client:
        """A client with this role's account; with an identifier it keeps its session."""
        version = aiomqtt.ProtocolVersion.V5 if modern else aiomqtt.ProtocolVersion.V311
        client = aiomqtt.Client(
            "localhost",
            self.port,
            username=role,
            password=self.passwords[role],
            protocol=version,
            identifier=identifier,
            clean_session=None if modern else identifier is None,
            timeout=harness.BUSY_S,
            tls_context=tls.client_context("test", str(self.files / "ca.crt")),
        )
        # Of the TLS handshake, which aiomqtt's own timeout does not bound.
        client._client.connect_timeout = harness.BUSY_S
        return client

    def certify(self, script: str) -> None:
        """Runs the README's `cert` once more, or a line of openssl, in the folder of certificates."""
        shell = next(block for block in printed() if "cert()" in block)
        lines = (
            shell.split("openssl req -x509")[0] + "cert() {" + shell.split("cert() {")[1].split("\n}\n")[0] + "\n}\n"
        )
        self.run(f"set -eu; umask 027; dir={self.files}\n{lines}{script}\nchmod 640 *.key; chgrp $(stat -c %G .) *.key")


def _own(path: Path) -> None:
    """Gives a folder to the user that mosquitto changes to when root starts it."""
    if os.geteuid() == 0:
        shutil.chown(path, "mosquitto", "mosquitto")


@contextlib.contextmanager
def placed() -> Iterator[Place]:
    """A place, set up. Not below pytest's own folders, into which another user than ours could not look."""
    with tempfile.TemporaryDirectory(prefix="oneweb-bridge-doors-") as name:
        home = Path(name)
        home.chmod(0o755)
        place = Place(home)
        place.set_up()
        yield place


@contextlib.asynccontextmanager
async def running(place: Place) -> AsyncIterator[asyncio.subprocess.Process]:
    """The broker of a place while the block runs, unless it is killed before."""
    program = mosquitto.find_mosquitto()
    assert program
    with (place.home / "broker.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(program, "-c", str(place.config), stderr=log)
    try:
        async with asyncio.timeout(harness.BUSY_S):
            while not await _answers(place.port):
                assert process.returncode is None, (place.home / "broker.log").read_text()
                await asyncio.sleep(0.02)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@contextlib.asynccontextmanager
async def record_as(place: Place, role: str, *filters: str, modern: bool = True) -> AsyncIterator[harness.Recorder]:
    """What a role hears of `filters`, which are subscribed to one by one."""
    recorder = harness.Recorder()
    client = place.client(role, modern=modern)

    async def listen() -> None:
        async for message in client.messages:
            recorder.take(str(message.topic), bytes(message.payload), retain=bool(message.retain))

    async with client:
        for name in filters:
            await client.subscribe(
                name, options=SubscribeOptions(qos=1, retainAsPublished=True)
            ) if modern else await client.subscribe(name, 1)
        task = asyncio.create_task(listen(), name="recording")
        try:
            yield recorder
        finally:
            await cancel_until_done(task)
            with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError):
                await task
