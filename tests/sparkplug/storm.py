"""A storm of rebirth requests, and a host that reads slowly: few rebirths, whole ones, and memory that stays bounded.

python -m tests.sparkplug.storm                    both, with 500 Devices: about two minutes
python -m tests.sparkplug.storm --devices 50 --seconds 1
"""

import argparse
import asyncio
import contextlib
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec

from tests import harness
from tests.cancelling import end_tasks
from tests.sparkplug.facts import Facts, Message
from tests.sparkplug.host import TagStore, rebirth_request
from tests.sparkplug.stage import EDGE, GROUP, Stage, set_up
from tests.sparkplug.tap import read_bytes
from tests.sparkplug.wire import Publish, read_packet

REQUESTS_PER_S = 20
MAX_REBIRTHS = 3
SLOW_BYTES_PER_S = 100_000
MAX_GROWTH_MIB = 30.0
TIMEOUT_S = 120.0
LAST_INTERVAL_S = 601
NCMD = f"spBv1.0/{GROUP}/NCMD/{EDGE}"


class Outcome(msgspec.Struct, frozen=True):
    """How many rebirths came, what broke the order of births, and by how much memory grew over the quiet bridge."""

    rebirths: int
    breaches: list[str]
    growth_mib: float

    def findings(self) -> list[str]:
        """What is wrong."""
        wrong = list(self.breaches)
        if self.rebirths > MAX_REBIRTHS:
            wrong.append(f"{self.rebirths} rebirths: expected at most {MAX_REBIRTHS}")
        if self.growth_mib > MAX_GROWTH_MIB:
            wrong.append(f"{self.growth_mib:.1f} MiB more than the quiet bridge: expected at most {MAX_GROWTH_MIB}")
        return wrong


def breaches(messages: Sequence[Message], devices: int) -> list[str]:
    """Devices that said something between an NBIRTH and their DBIRTH, and births that are not whole."""
    starts = [index for index, message in enumerate(messages) if message.verb == "NBIRTH"]
    wrong = []
    for start, end in pairwise([*starts, len(messages)]):
        wrong += _breaches_of_birth(messages[start:end], devices)
    return wrong


def _breaches_of_birth(messages: Sequence[Message], devices: int) -> list[str]:
    """Of one NBIRTH and what follows until the next."""
    born: set[str] = set()
    wrong = []
    for message in messages:
        if message.verb == "DBIRTH":
            born.add(message.device)
        elif message.device and message.device not in born:
            wrong.append(f"{message.describe()} comes before the DBIRTH")
        elif message.verb == "NDATA" and len(born) < devices:
            wrong.append(f"{message.describe()} comes before all Devices are born")
    if len(born) < devices:
        wrong.append(f"after {messages[0].describe()} {len(born)} of {devices} Devices are born")
    return wrong


def _resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


@contextlib.asynccontextmanager
async def _watch_memory(stage: Stage) -> AsyncIterator[list[float]]:
    """The bridge's resident memory in MiB, looked at five times a second while the block runs."""
    sizes = [_resident_mib(stage.bridge.pid)]

    async def look() -> None:
        while True:
            await asyncio.sleep(0.2)
            sizes.append(_resident_mib(stage.bridge.pid))

    task = asyncio.create_task(look(), name="memory")
    try:
        yield sizes
    finally:
        await end_tasks(task)


def _is_polled(state: dict[str, Any]) -> bool:
    return state["status"] in ("ok", "incomplete")


@contextlib.asynccontextmanager
async def _born(directory: Path, devices: int) -> AsyncIterator[Stage]:
    """A bridge whose Devices are born and polled, and that was born once more: the quiet case."""
    async with set_up(directory, terminals=devices) as stage:
        await stage.start("5", polling={call: {"interval": "6h"} for call in harness.QUICK})
        async with asyncio.timeout(TIMEOUT_S):
            await stage.until("DBIRTH", count=devices)
            for call in ("products", "usage_consumption", "ut_signal_quality", "ut_traffic"):
                await harness.until_retained(stage.port, f"oneweb/bridge/polling/{call}/state", _is_polled, TIMEOUT_S)
            here = stage.here
            await stage.write("Node Control/Rebirth", True)
            await stage.until("NBIRTH", here)
            await stage.until("DBIRTH", here, count=devices)
        yield stage


async def play_storm(directory: Path, devices: int, seconds: float) -> Outcome:
    """REQUESTS_PER_S for so long, while samples come."""
    async with _born(directory, devices) as stage:
        here, requests = stage.here, max(1, round(seconds * REQUESTS_PER_S))
        async with _watch_memory(stage) as sizes, aiomqtt.Client("127.0.0.1", stage.port) as client:
            for number in range(requests):
                if number % REQUESTS_PER_S == 0:
                    stage.api.advance(60)
                    await client.publish("oneweb/bridge/polling/ut_signal_quality/poll", qos=1)
                await client.publish(NCMD, rebirth_request(), qos=1)
                await asyncio.sleep(1 / REQUESTS_PER_S)
            await _until_settled(stage, here, devices)
        return _outcome(stage, here, devices, sizes)


async def _until_settled(stage: Stage, since: int, devices: int) -> None:
    """Waits for a whole birth, and for the answer to a write that follows it."""
    async with asyncio.timeout(TIMEOUT_S):
        await stage.until("NBIRTH", since)
        while True:
            place = stage.here
            await stage.write("Polling/sites/Interval", 600)
            await stage.until("NDATA", place)
            last = stage.tap.events.index(stage.published("NBIRTH", since)[-1])
            if len(stage.published("DBIRTH", last)) >= devices:
                return


def _outcome(stage: Stage, since: int, devices: int, sizes: Sequence[float]) -> Outcome:
    sent = [message for message in Facts(stage.tap.trace()).sent if message.index >= since]
    return Outcome(
        rebirths=sum(message.verb == "NBIRTH" for message in sent),
        breaches=breaches(sent, devices),
        growth_mib=max(sizes) - sizes[0],
    )


# ── the slow host ──────────────────────────────────────────────────────────────────────────────


class SlowHost:
    """A host that takes `SLOW_BYTES_PER_S` off its socket, and asks for a rebirth where it misses something."""

    def __init__(self, rate: float) -> None:
        self.store = TagStore()
        self.requested = 0
        self._rate = rate
        self._asked_at = 0.0

    @contextlib.asynccontextmanager
    async def connected(self, port: int) -> AsyncIterator[None]:
        """Subscribed; it reads until the end of the block. Its own buffer is small, so that the broker must wait."""
        receiver = socket.socket()
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        receiver.setblocking(False)
        await asyncio.get_running_loop().sock_connect(receiver, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=receiver, limit=16_384)
        writer.write(_packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + _text("slow")))
        writer.write(_packet(0x82, b"\x00\x01" + _text("spBv1.0/#") + b"\x00"))
        task = asyncio.create_task(self._read(reader, writer), name="slow host")
        try:
            yield
        finally:
            await end_tasks(task)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            packet = await read_bytes(reader)
            await asyncio.sleep(len(packet) / self._rate)
            message = read_packet(packet, 4)
            if isinstance(message, Publish) and self.store.take(message.topic, message.payload):
                self._ask(writer)

    def _ask(self, writer: asyncio.StreamWriter) -> None:
        """At most one request a second."""
        now = time.monotonic()
        if now - self._asked_at >= 1.0:
            self._asked_at = now
            self.requested += 1
            writer.write(_packet(0x30, _text(NCMD) + rebirth_request()))

    def has(self, devices: int) -> bool:
        """Whether it knows that many Devices, and the last answer to a write."""
        answer = self.store.tags.get(("", "Polling/sites/Interval"))
        born = sum(len(node.devices) - 1 for node in self.store.nodes.values())
        return born >= devices and answer is not None and answer.value == LAST_INTERVAL_S


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def _packet(head: int, body: bytes) -> bytes:
    """A packet of less than 16 kB."""
    return bytes((head, len(body) & 0x7F | 0x80, len(body) >> 7)) + body


async def play_slow_host(directory: Path, devices: int, rate: float = SLOW_BYTES_PER_S) -> Outcome:
    """A rebirth and a poll of samples reach a host that reads so slowly; it ends when the host knows everything."""
    async with _born(directory, devices) as stage:
        here, host = stage.here, SlowHost(rate)
        async with _watch_memory(stage) as sizes, host.connected(stage.port):
            await stage.write("Node Control/Rebirth", True)
            await stage.until("NBIRTH", here)
            stage.api.advance(60)
            for call in ("ut_signal_quality", "ut_traffic"):
                await harness.publish(stage.port, f"oneweb/bridge/polling/{call}/poll")
            await stage.write("Polling/sites/Interval", LAST_INTERVAL_S)
            async with asyncio.timeout(2 * TIMEOUT_S):
                while not host.has(devices):
                    await asyncio.sleep(0.2)
        return _outcome(stage, here, devices, sizes)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 when nothing is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.sparkplug.storm")
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the storm")
    options = parser.parse_args(arguments)
    wrong = []
    for name, play in (("storm", play_storm), ("slow host", play_slow_host)):
        pace = options.seconds if name == "storm" else SLOW_BYTES_PER_S
        with tempfile.TemporaryDirectory(prefix="oneweb-sparkplug-") as directory:
            outcome = asyncio.run(play(Path(directory), options.devices, pace))
        wrong += outcome.findings()
        print(f"{name}: {outcome.rebirths} rebirths, {outcome.growth_mib:.1f} MiB more than quiet", flush=True)
    print("\n".join([*wrong[:20], f"{len(wrong)} findings"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
