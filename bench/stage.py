"""The real bridge with its console and a simulated fleet, and one cycle of its calls, for the rows of the console."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from bench import fleet
from bench.lagging import lags_of
from bench.subscriber import Subscriber, subscribe
from oneweb_bridge.demo import mosquitto
from tests import harness

PASSED_S = 600.0
"""Simulated seconds between two cycles."""
REST_S = 1.5
"""Seconds after a cycle in which the streams send what is left; they belong to it."""
EVENTS = "oneweb/terminal/+/event/+"


class Cycled(msgspec.Struct, frozen=True):
    """One cycle: seconds until all was published, CPU seconds, peak memory in MiB, lags of the event loop in ms."""

    wall: float
    cpu: float
    peak: float
    lags: list[float]


class Stage:
    """A running bridge. `url` is the console's address, `api_url` that of the simulated API."""

    def __init__(self, run: fleet.Run, api_url: str, url: str, lags: Path, samples: list[Subscriber]) -> None:
        self.run = run
        self.api_url = api_url
        self.url = url
        self._lags = lags
        self._samples = samples

    async def cycle(self) -> Cycled:
        """Ten minutes pass, then each call is polled until all of it is published."""
        await fleet.advance(self.api_url, PASSED_S)
        self.forget_peak()
        start, cpu, wall = self._lags.stat().st_size, self.run.usage.cpu, 0.0
        for call in fleet.CYCLE:
            wall += await self._published(call)
        await asyncio.sleep(REST_S)
        return Cycled(wall, self.run.usage.cpu - cpu, self.run.usage.peak, lags_of(self._lags, start))

    async def _published(self, call: str) -> float:
        """Seconds from the command to its result, or to the last message of a terminal or product that came of it."""
        for subscriber in self._samples:
            subscriber.reset()
        begun = time.perf_counter()
        answer = await self.run.tell(call, "poll")
        if answer["status"] != "ok":
            raise AssertionError(f"{call}: {answer.get('error')}")
        answered = time.perf_counter()
        await self.run.wait_until_at_rest()
        return max(answered, *(subscriber.last for subscriber in self._samples)) - begun

    def forget_peak(self) -> None:
        """Has the system count the peak of the bridge's memory from now on. Raises OSError where it cannot."""
        Path(f"/proc/{self.run.process.pid}/clear_refs").write_text("5")


@contextlib.asynccontextmanager
async def open_stage(api_url: str, **changes: Any) -> AsyncIterator[Stage]:
    """The bridge, started for the API at `api_url`, with nothing polled yet."""
    port, http = mosquitto.free_port(), mosquitto.free_port()
    given: dict[str, Any] = {
        "polling": fleet.CALM,
        "homeassistant": {"enabled": False},
        "http": {"listen": f"127.0.0.1:{http}"},
    }
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        config = harness.bridge_yaml(directory, api_url, port, **(given | changes))
        lags = directory / "lags"
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(mosquitto.run_mosquitto(port))
            process = await harness.launched(("bench.lagging", str(lags)), config)
            stack.push_async_callback(process.kill)
            run = await stack.enter_async_context(fleet.connected(process, directory / "bridge.db", port))
            samples = [
                await stack.enter_async_context(subscribe(port, f"oneweb/{entity}/#"))
                for entity in ("terminal", "product")
            ]
            yield Stage(run, api_url, f"http://127.0.0.1:{http}/", lags, samples)
