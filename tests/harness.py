"""What the tests of the whole bridge need: a broker, the simulated API and the real command, each its own process.

Everything listens on a free loopback port and is ended by its own process id.
"""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiomqtt
import yaml
from paho.mqtt.subscribeoptions import SubscribeOptions

from oneweb_bridge.demo import mosquitto
from oneweb_bridge.simulator import Options, Simulator, serve
from tests.cancelling import cancel_until_done

BUSY_S = 60.0
"""Seconds that a broker may take to answer on a busy machine."""
MARKS = "recorder/"
"""Where a recorder publishes to itself."""
QUICK: dict[str, Any] = {
    "user_terminals": {"interval": "10s"},
    "user_terminal_components": {"interval": "10s"},
    "products": {"interval": "10s"},
    "organizations": {"interval": "10s"},
    "sites": {"interval": "10s"},
    "ut_link_availability": {"interval": "10s", "lateness": "2m"},
    "ut_signal_quality": {"interval": "10s", "lateness": "2m"},
    "ut_resource_state": {"interval": "10s", "lateness": "2m"},
    "ut_traffic": {"interval": "10s", "lateness": "2m"},
    "ut_link_metrics": {"interval": "10s", "lateness": "2m", "enabled": True},
    "product_throughput": {"interval": "10s", "lateness": "2m"},
    "usage_consumption": {"interval": "10s"},
}


def merged(base: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`base` with the members of `other`, at any depth."""
    members = dict(base)
    for name, value in other.items():
        below = members.get(name)
        members[name] = merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return members


def bridge_yaml(directory: Path, api_url: str, port: int, **changes: Any) -> Path:
    """A configuration file for the simulator at `api_url` and the broker at `port`."""
    settings = {
        "api": {
            "base_url": api_url,
            "client_id": "demo",
            "client_secret": "demo-secret",
            "rate_limit": {"min_interval": "1ms"},
        },
        "mqtt": {"host": "127.0.0.1", "port": port},
        "state": {"path": str(directory / "bridge.db")},
        "http": {"listen": "127.0.0.1:0"},
        "polling": QUICK,
    }
    path = directory / "bridge.yaml"
    path.write_text(yaml.safe_dump(merged(settings, changes)))
    return path


SLOW: dict[str, Any] = {call: {"interval": "1h", "enabled": True} for call in QUICK}
"""Each call is polled once, and then only when it is told to be."""


class Process:
    """One run of the installed command. Its log is kept in a file."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.pid = process.pid
        self.log = log
        self._process = process

    @property
    def returncode(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.returncode

    async def kill(self) -> None:
        """Kill -9, and waits for the end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def stop(self, number: int = signal.SIGTERM, patience: float = 10.0) -> int:
        """Asks it to stop and returns its exit code."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return await asyncio.wait_for(self._process.wait(), patience)

    def signal(self, number: int) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def peak_mib(self) -> float:
        """The highest resident memory so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def text(self) -> str:
        """Everything it has written to standard error."""
        return self.log.read_text()


async def command(*arguments: str, cwd: Path | None = None, **environment: str) -> tuple[int, str, str]:
    """Runs the command to its end: exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "oneweb_bridge",
        *arguments,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def started(config: Path, *arguments: str, **environment: str) -> Process:
    """The bridge, started with `config`."""
    return await launched(("oneweb_bridge",), config, *arguments, **environment)


async def launched(program: tuple[str, ...], config: Path, *arguments: str, **environment: str) -> Process:
    """The bridge, started by `program`: a module, and what comes before the command."""
    log = config.with_suffix(".log")
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *program,
            "run",
            "-c",
            str(config),
            *arguments,
            stdout=out,
            stderr=out,
            env={**os.environ, **environment},
        )
    return Process(process, log)


@contextlib.asynccontextmanager
async def running(config: Path, *arguments: str, **environment: str) -> AsyncIterator[Process]:
    """The bridge while the block runs; killed at its end if it has not ended by itself."""
    process = await started(config, *arguments, **environment)
    try:
        yield process
    finally:
        await process.kill()


class Recorder:
    """A subscriber that keeps all it hears. `retained` is what a new subscriber would be given."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Any, bool]] = []
        self.raw: list[tuple[str, bytes, bool]] = []
        self.retained: dict[str, Any] = {}
        self.arrived = asyncio.Event()
        self.client: aiomqtt.Client
        self._marks: set[bytes] = set()

    def take(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Notes one message."""
        if topic.startswith(MARKS):
            self._marks.add(payload)
            self.arrived.set()
            return
        content = _read(payload)
        self.messages.append((topic, content, retain))
        self.raw.append((topic, payload, retain))
        if retain:
            self.retained.pop(topic, None) if content is None else self.retained.__setitem__(topic, content)
        self.arrived.set()

    def topics(self) -> set[str]:
        """All topics heard of so far."""
        return {topic for topic, _, _ in self.messages}

    def on(self, topic: str) -> list[Any]:
        """The payloads of one topic in their order."""
        return [content for name, content, _ in self.messages if name == topic]

    async def until(self, true: Callable[[], Any], patience: float = BUSY_S) -> Any:
        """Waits until something holds, looking after each message. Returns what it gave."""
        deadline = asyncio.get_running_loop().time() + patience
        while not (result := true()):
            self.arrived.clear()
            left = deadline - asyncio.get_running_loop().time()
            assert left > 0, f"not heard in {patience} s; last: {self.messages[-3:]!r:.2000}"
            # What holds may also be in a log or a table.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.arrived.wait(), min(left, 1.0))
        return result

    async def catch_up(self) -> None:
        """Waits until all has come that the broker took before; another connection may know it earlier."""
        topic, mark = f"{MARKS}{id(self)}", os.urandom(8).hex().encode()
        await self.client.subscribe(topic, qos=1)
        await self.client.publish(topic, mark, qos=1)
        await self.until(lambda: mark in self._marks)

    async def quiet(self, seconds: float, patience: float = 60.0) -> None:
        """Waits until nothing but the bridge's own state has come for so long."""
        async with asyncio.timeout(patience):
            count = -1
            while count != (count := sum("/bridge/" not in topic for topic, _, _ in self.messages)):
                await asyncio.sleep(seconds)


def _read(payload: bytes) -> Any:
    """A payload as JSON; what others publish may be anything."""
    try:
        return json.loads(payload) if payload else None
    except ValueError:
        return payload


@contextlib.asynccontextmanager
async def recording(port: int, *filters: str) -> AsyncIterator[Recorder]:
    """A recorder of `filters` (default: everything below oneweb), with retain as published."""
    recorder = Recorder()
    client = recorder.client = aiomqtt.Client(
        "127.0.0.1",
        port,
        protocol=aiomqtt.ProtocolVersion.V5,
        identifier=f"recorder-{id(recorder)}",
        timeout=BUSY_S,
    )

    async def listen() -> None:
        async for message in client.messages:
            recorder.take(str(message.topic), bytes(message.payload), retain=bool(message.retain))

    options = SubscribeOptions(qos=1, retainAsPublished=True)
    async with client:
        await client.subscribe([(name, options) for name in filters or ("oneweb/#",)])
        task = asyncio.create_task(listen(), name="recorder")
        try:
            yield recorder
        finally:
            await cancel_until_done(task)
            with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError):
                await task


async def retained(port: int, *filters: str) -> dict[str, Any]:
    """What a new subscriber is given of `filters` (default: everything below oneweb)."""
    nonce = f"harness/{os.urandom(8).hex()}"
    retained: dict[str, Any] = {}
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5, timeout=BUSY_S) as client:
        for name in (*(filters or ("oneweb/#",)), nonce):
            await client.subscribe(name, qos=1)
        await client.publish(nonce, b"", qos=1)
        async for message in client.messages:
            if str(message.topic) == nonce:
                return retained
            retained[str(message.topic)] = _read(bytes(message.payload))
    return retained


async def until_retained(port: int, topic: str, true: Callable[[Any], bool], patience: float = BUSY_S) -> None:
    """Waits until a retained topic says what is wanted."""
    async with recording(port, topic) as recorder:
        await recorder.until(lambda: topic in recorder.retained and true(recorder.retained[topic]), patience)


async def publish(port: int, topic: str, payload: bytes | str = b"", *, retain: bool = False) -> None:
    """Publishes one message as anybody could."""
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5, timeout=BUSY_S) as client:
        await client.publish(topic, payload, qos=1, retain=retain)


async def poll(port: int, call: str = "all", patience: float = BUSY_S) -> dict[str, Any]:
    """Has the bridge poll a call now, or all that are enabled, instead of waiting for its interval. The result."""
    topic, id = f"oneweb/bridge/polling/{call}", os.urandom(8).hex()
    async with recording(port, f"{topic}/result") as answers:
        await publish(port, f"{topic}/poll", json.dumps({"id": id}))
        results: list[dict[str, Any]] = await answers.until(
            lambda: [
                result for result in answers.on(f"{topic}/result") if result.get("id") == id and "note" not in result
            ],
            patience,
        )
        return results[-1]


def rows_of(database: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a database of the bridge answers, without changing it."""
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)) as db:
        return db.execute(sql).fetchall()


class World:
    """A broker, a simulated API and a place for files."""

    def __init__(self, port: int, api: Simulator, directory: Path) -> None:
        self.port = port
        self.api = api
        self.directory = directory

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """What the API has shown so far, page by page."""
        path = self.api.options.ledger
        return [] if path is None else [json.loads(line) for line in Path(path).read_bytes().splitlines()]

    def config(self, **changes: Any) -> Path:
        """A configuration of the bridge for this world."""
        return bridge_yaml(self.directory, self.api.url, self.port, **changes)


@contextlib.asynccontextmanager
async def world(directory: Path, **options: Any) -> AsyncIterator[World]:
    """A world with a fleet of eight, unless `options` of the simulator say otherwise."""
    port = mosquitto.free_port()
    given: dict[str, Any] = {
        "terminals": 8,
        "seed": 2,
        "start": "2025-06-17T14:15:00Z",
        "report_period": 0.05,
        "lateness_scale": 0.02,
        "ledger": str(directory / "ledger.jsonl"),
    }
    async with serve(Options(**(given | options))) as api, mosquitto.run_mosquitto(port):
        yield World(port, api, directory)
