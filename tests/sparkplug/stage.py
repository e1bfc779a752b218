"""Where a scenario is played: the real command, the simulated API, and a mosquitto behind a tap.

bridge ── JSON ──────────▶ mosquitto
   └── Sparkplug ──▶ tap ──▶ mosquitto ◀── host
"""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt

from oneweb_bridge.demo import mosquitto
from oneweb_bridge.simulator import Options, Simulator, serve
from tests import harness
from tests.sparkplug.host import write_command
from tests.sparkplug.tap import Tap, tapped
from tests.sparkplug.wire import Event, Publish

GROUP, EDGE = "OneWeb", "oneweb-bridge"
PROGRAM = ("tests.sparkplug.quick",)


class Stage:
    """Made by `set_up`."""

    def __init__(self, directory: Path, api: Simulator, port: int, tap: Tap) -> None:
        self.directory = directory
        self.api = api
        self.port = port
        self.tap = tap
        self.bridge: harness.Process
        self._broker: contextlib.AsyncExitStack | None = None

    # ── what runs ──────────────────────────────────────────────────────────────────────────────

    async def start_broker(self) -> None:
        """A new mosquitto, that has forgotten everything."""
        self._broker = contextlib.AsyncExitStack()
        await self._broker.enter_async_context(mosquitto.run_mosquitto(self.port))

    async def stop_broker(self) -> None:
        """Ends mosquitto."""
        if self._broker is not None:
            await self._broker.aclose()

    async def start(self, protocol: str, primary_host: str | None = None, **changes: Any) -> None:
        """Starts the bridge with Sparkplug on."""
        given = {
            "sparkplug": {
                "enabled": True,
                "primary_host_id": primary_host,
                "mqtt": {"host": "127.0.0.1", "port": self.tap.port, "protocol": protocol},
            },
            "removal": {"after_missing": 1, "after_time": "0s"},
            "homeassistant": {"enabled": False},
        }
        path = harness.bridge_yaml(self.directory, self.api.url, self.port, **harness.merged(given, changes))
        self.bridge = await harness.launched(PROGRAM, path)

    async def kill(self) -> None:
        """Kill -9."""
        self.tap.note("kill")
        await self.bridge.kill()

    async def stop(self) -> None:
        """Asks the bridge to stop, and waits until it has."""
        self.tap.note("stop")
        # Its goodbye has more time than that of the command.
        assert await self.bridge.stop(patience=60) == 0

    # ── what a host or a user does ─────────────────────────────────────────────────────────────

    async def poll(self, *calls: str) -> None:
        """Has the bridge poll as soon as it takes commands, and waits for the results."""
        await harness.until_retained(
            self.port, "oneweb/bridge/status", lambda status: bool(status["state"] == "online"), patience=30
        )
        for call in calls or ("all",):
            await harness.poll(self.port, call)

    async def write(self, name: str, *values: bool | int, edge: str = EDGE) -> None:
        """A host's NCMDs to an Edge Node, one for each value."""
        async with aiomqtt.Client("127.0.0.1", self.port) as client:
            for value in values:
                await client.publish(f"spBv1.0/{GROUP}/NCMD/{edge}", write_command(name, value=value), qos=1)

    async def say_state(self, *, online: bool, timestamp: int, host: str = "scada") -> None:
        """What a primary host says of itself, retained."""
        body = json.dumps({"online": online, "timestamp": timestamp}).encode()
        await self._publish(f"spBv1.0/STATE/{host}", body, retain=True)

    async def _publish(self, topic: str, body: bytes, *, retain: bool = False) -> None:
        async with aiomqtt.Client("127.0.0.1", self.port) as client:
            await client.publish(topic, body, qos=1, retain=retain)

    # ── what the tap has ───────────────────────────────────────────────────────────────────────

    @property
    def here(self) -> int:
        """The place in the trace."""
        return len(self.tap.events)

    def published(self, verb: str, since: int = 0, device: str = "") -> list[Event]:
        """What went to the broker of a verb after a place."""
        return [
            event
            for event in self.tap.events[since:]
            if event.up
            and isinstance(event.packet, Publish)
            and event.packet.topic.split("/")[2] == verb
            and event.packet.topic.endswith(device)
        ]

    async def until(self, verb: str, since: int = 0, device: str = "", count: int = 1) -> None:
        """Waits until so many messages of a verb have come."""
        try:
            await self.tap.until(lambda: len(self.published(verb, since, device)) >= count)
        except TimeoutError:
            got = len(self.published(verb, since, device))
            raise AssertionError(
                f"{got} of {count} {verb} {device} after {since}: {self.bridge.text()[-2000:]}"
            ) from None


@contextlib.asynccontextmanager
async def set_up(directory: Path, **options: Any) -> AsyncIterator[Stage]:
    """A stage with a small fleet that stands still, a tap, and a broker that runs; no bridge yet."""
    port = mosquitto.free_port()
    given: dict[str, Any] = {
        "terminals": 3,
        "seed": 2,
        "start": "2025-06-17T14:15:00Z",
        "report_period": 0.05,
        "lateness_scale": 0.02,
        "ledger": str(directory / "ledger.jsonl"),
    }
    async with serve(Options(**(given | options))) as api, tapped(port) as tap:
        stage = Stage(directory, api, port, tap)
        await stage.start_broker()
        try:
            yield stage
        finally:
            if hasattr(stage, "bridge"):
                await stage.bridge.kill()
            await stage.stop_broker()
