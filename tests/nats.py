"""A NATS cluster of three with the configuration of deploy/fleet on free ports, and subscribers of MQTT 3.1.1."""

import asyncio
import contextlib
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiomqtt

from oneweb_bridge.demo import mosquitto
from tests.cancelling import cancel_until_done

CONFIG = Path(__file__).parent.parent / "deploy" / "fleet" / "nats.conf"
NODES = 3
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
TRY_TIMEOUT_S = 3.0
"""Seconds that a server which is still looking for the others may take to refuse a client."""
PROTOCOL = aiomqtt.ProtocolVersion.V311


README = CONFIG.with_name("README.md")
USER, PASSWORD = "bridge", "PASSWORD-1"


def documented_users() -> str:
    """The users that the README of deploy/fleet shows."""
    match = re.search(r"```text\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert match
    return match[1]


def client_of(port: int, timeout: float = 10.0) -> aiomqtt.Client:
    """A client of MQTT 3.1.1 with the rights of the bridge."""
    return aiomqtt.Client(
        "127.0.0.1", port, protocol=PROTOCOL, username=USER, password=PASSWORD, timeout=timeout, clean_session=True
    )


def find_nats() -> str | None:
    """The program; None where it is not installed. It lies in sbin, which a plain user's PATH lacks."""
    return shutil.which("nats-server", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))


class NatsCluster:
    """Three servers with a directory each. `ports` are those for MQTT."""

    def __init__(self, program: str, directory: Path) -> None:
        self.ports = [mosquitto.free_port() for _ in range(NODES)]
        self._routes = [mosquitto.free_port() for _ in range(NODES)]
        self._program = program
        self._directory = directory
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    async def start(self, number: int) -> None:
        """Starts a server; `until_ready` waits for it."""
        home = self._directory / f"nats-{number}"
        home.mkdir(exist_ok=True)
        (home / "nats.conf").write_text(self._config(number, home))
        (home / "users.conf").write_text(documented_users())
        environment = {**os.environ, "NATS_NAME": f"nats-{number}"}
        self._processes[number] = await asyncio.create_subprocess_exec(
            self._program, "-c", str(home / "nats.conf"), "-l", str(home / "log"), env=environment
        )

    def _config(self, number: int, home: Path) -> str:
        """The shipped file without certificates, at other places."""
        text = re.sub(r"  tls \{.*?\n  \}\n", "", CONFIG.read_text(), flags=re.DOTALL)
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes)
        for pattern, place in (
            (r'listen: "127\.0\.0\.1:4222"', f'listen: "127.0.0.1:{mosquitto.free_port()}"'),
            (r'http: "127\.0\.0\.1:8222"\n', "\n"),
            (r'store_dir: "/data"', f'store_dir: "{home}/data"'),
            (r'listen: "0\.0\.0\.0:1883"', f'listen: "127.0.0.1:{self.ports[number]}"'),
            (r'listen: "0\.0\.0\.0:6222"', f'listen: "127.0.0.1:{self._routes[number]}"'),
            (r"routes: \[.*\]", f"routes: [{routes}]"),
        ):
            text, count = re.subn(pattern, place, text)
            assert count == 1, pattern
        return text

    async def kill(self, number: int) -> None:
        """Kill -9 of a server."""
        process = self._processes.pop(number)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()

    async def stop(self) -> None:
        """Ends all that run."""
        for number in list(self._processes):
            await self.kill(number)

    async def until_ready(self, number: int) -> None:
        """Waits until a server takes clients and their sessions. Raises TimeoutError with what it has logged."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await self._takes_clients(self.ports[number]):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            log = (self._directory / f"nats-{number}" / "log").read_text(errors="replace")
            raise TimeoutError(
                f"the NATS server {number} takes no clients; its log ends with:\n{log[-2000:]}"
            ) from None

    @staticmethod
    async def _takes_clients(port: int) -> bool:
        try:
            async with client_of(port, TRY_TIMEOUT_S) as client:
                await client.subscribe("oneweb/ready", qos=0)
                await client.publish("oneweb/ready", b"{}", qos=1)
        except (aiomqtt.MqttError, OSError, TimeoutError):
            return False
        return True


@contextlib.asynccontextmanager
async def run_nats(directory: Path) -> AsyncIterator[NatsCluster]:
    """A cluster of three that takes clients, until the block ends. Raises RuntimeError where NATS is not installed."""
    program = find_nats()
    if program is None:
        raise RuntimeError("nats-server is not installed: run 'make test-postgres'")
    cluster = NatsCluster(program, directory)
    try:
        for number in range(NODES):
            await cluster.start(number)
        for number in range(NODES):
            await cluster.until_ready(number)
        yield cluster
    finally:
        await cluster.stop()


class Subscriber:
    """What a subscriber with a session of its own has received, in its order."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Any]] = []
        self.newest: dict[str, Any] = {}
        self._arrived = asyncio.Event()

    def take(self, message: aiomqtt.Message) -> None:
        """Notes a message."""
        content = json.loads(bytes(message.payload)) if message.payload else None
        self.messages.append((str(message.topic), content))
        self.newest[str(message.topic)] = content
        self._arrived.set()

    async def until(self, true: Callable[[], Any], patience: float) -> None:
        """Waits until something holds, looking after each message. Raises TimeoutError with the last messages."""
        try:
            async with asyncio.timeout(patience):
                while not true():
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise TimeoutError(f"not received in {patience} s; last: {self.messages[-3:]!r:.1000}") from None


@contextlib.asynccontextmanager
async def subscribed(port: int, *filters: str) -> AsyncIterator[Subscriber]:
    """A subscriber of MQTT 3.1.1 with QoS 1."""
    subscriber = Subscriber()
    async with client_of(port) as client:
        for name in filters:
            await client.subscribe(name, qos=1)

        async def listen() -> None:
            async for message in client.messages:
                subscriber.take(message)

        task = asyncio.create_task(listen(), name="subscriber")
        try:
            yield subscriber
        finally:
            await cancel_until_done(task)
            with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError):
                await task


async def retained(port: int, *filters: str) -> dict[str, Any]:
    """What a new subscriber is given of `filters`: what has come when a message to itself comes."""
    nonce = f"oneweb/nonce/{os.urandom(8).hex()}"
    contents: dict[str, Any] = {}
    async with asyncio.timeout(START_TIMEOUT_S), client_of(port) as client:
        for name in (*filters, nonce):
            await client.subscribe(name, qos=0)
        await client.publish(nonce, b"", qos=1)
        async for message in client.messages:
            if str(message.topic) == nonce:
                return contents
            contents[str(message.topic)] = json.loads(bytes(message.payload))
    return contents
