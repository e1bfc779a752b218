"""The real command with large fleets: memory and CPU per cycle, with what `bench.inside` measures.

The simulated API is a process of its own, so that neither its CPU nor its memory is counted. Home Assistant's
discovery is on, as it is by default. Nothing polls by itself: each poll is a command over MQTT.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import aiomqtt
import msgspec

from bench import inside, nodered, plot
from bench.nodered import Row
from oneweb_bridge import broker
from oneweb_bridge.catalogue import CALLS
from oneweb_bridge.cli import SWITCH
from tests import harness
from tests.nodered.server import Usage

CALM: dict[str, Any] = {call: {"enabled": False} for call in CALLS}
CYCLE = [call for call in CALLS if call != "ut_link_metrics"]
PATIENCE = 400.0
QUIET = 1.0
PAUSE = 600
"""Simulated seconds between the first cycle and the one that is measured."""


@contextlib.asynccontextmanager
async def simulated(terminals: int) -> AsyncIterator[str]:
    """The simulator as the command `simulate`; gives its URL."""
    port = broker.free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oneweb_bridge", "simulate"),
        *("--port", str(port), "--terminals", str(terminals), "--seed", "2"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(120), aiohttp.ClientSession() as http:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(f"http://127.0.0.1:{port}/_control/time"):
                        break
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Run:
    """A running bridge that polls when told."""

    def __init__(self, process: harness.Process, client: aiomqtt.Client, ear: nodered.Ear) -> None:
        self.usage = Usage(process.pid)
        self.ear = ear
        self._client = client

    async def poll(self, call: str) -> dict[str, Any]:
        """One poll to its result, and until nothing more is published. Returns the call's state."""
        name = os.urandom(4).hex()
        await self._client.publish(f"oneweb/bridge/polling/{call}/poll", msgspec.json.encode({"id": name}), qos=1)
        async with asyncio.timeout(PATIENCE):
            async for message in self._client.messages:
                said = msgspec.json.decode(message.payload)
                if said.get("id") == name and "note" not in said:
                    await self.quiet()
                    return dict(said.get("state") or {}, error=said.get("error"))
        raise AssertionError

    async def quiet(self) -> None:
        """Until no message has come and little CPU was used for a while."""
        async with asyncio.timeout(PATIENCE):
            before = (-1, 0.0)
            while True:
                now = (self.ear.count, self.usage.cpu)
                if now[0] == before[0] and now[1] - before[1] < QUIET / 20:
                    return
                before = now
                await asyncio.sleep(QUIET)


@contextlib.asynccontextmanager
async def running(url: str, **changes: Any) -> AsyncIterator[Run]:
    """A broker and the bridge with an empty database, for the API at `url`."""
    port = broker.free_port()
    with tempfile.TemporaryDirectory() as directory:
        config = harness.bridge_yaml(Path(directory), url, port, **{"polling": CALM, **changes})
        async with (
            broker.running(port),
            nodered.hearing(port, "#") as ear,
            harness.running(config) as process,
            aiomqtt.Client("127.0.0.1", port) as client,
        ):
            await harness.until_retained(port, "oneweb/bridge/status", lambda said: said["state"] == "online", 30)
            await harness.until_retained(port, "oneweb/bridge/info", lambda said: said["api"]["state"] == "ok", 30)
            await client.subscribe("oneweb/bridge/polling/+/result", qos=1)
            yield Run(process, client, ear)


async def memory(terminals: int, goal: float) -> Row:
    """Row 7: the peak of a first snapshot of the inventory."""
    async with simulated(terminals) as url, running(url) as run:
        said = await run.poll("user_terminals")
        note = f"{said.get('records')} records, {run.ear.count} messages with discovery, {run.usage.rss:.0f} MiB after"
        return Row(f"peak RSS, first snapshot of {terminals}", goal, False, round(run.usage.peak, 1), "MiB", note)


async def idle() -> Row:
    """Row 7: what is resident once a small fleet has been polled."""
    async with simulated(8) as url, running(url) as run:
        for call in CYCLE:
            await run.poll(call)
        return Row(
            "idle RSS, 8 terminals", 45.0, False, round(run.usage.rss, 1), "MiB", f"peak {run.usage.peak:.0f} MiB"
        )


async def cycle(terminals: int) -> list[Row]:
    """Row 8: CPU seconds of every call, 10 simulated minutes after a first cycle, and their share at the defaults."""
    async with simulated(terminals) as url, running(url) as run:
        for call in CYCLE:
            await run.poll(call)
        async with aiohttp.ClientSession() as http:
            await (await http.post(f"{url}/_control/time", json={"advance": PAUSE})).read()
        spent, samples, troubles = {}, 0, []
        for call in CYCLE:
            before = run.usage.cpu
            said = await run.poll(call)
            spent[call] = run.usage.cpu - before
            samples += said.get("samples", 0)
            troubles += [f"{call}: {said['error']}"] if said["error"] else []
    share = 100 * sum(cpu / CALLS[call].interval for call, cpu in spent.items())
    note = f"{sum(spent.values()):.1f} CPU s a cycle, {samples} samples; " + ", ".join(
        f"{call} {cpu:.2f}" for call, cpu in spent.items()
    )
    what = f"share of a core, {terminals} terminals, default intervals"
    return [Row(what, 10.0, False, round(share, 2), "%", "; ".join([note, *troubles]))]


def _draw(found: dict[str, inside.Points]) -> None:
    Path("docs/performance.svg").write_text(plot.svg(found, "terminals or changes", "CPU seconds"))


async def rows(scale: float = 1.0) -> list[Row]:
    """The rows of the table, printed as they come."""
    grown, found = await inside.growth(scale)
    _draw(found)
    made = [*grown, *await inside.lag(scale), *await inside.trimming(scale), await idle()]
    made.append(await memory(int(10_000 * min(1.0, scale * 10)), 90.0))
    made.append(await memory(int(100_000 * scale), 160.0))
    made += await cycle(int(10_000 * min(1.0, scale * 10)))
    return made


def main() -> int:
    """Prints the rows."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--scale", type=float, default=1.0)
    given = options.parse_args()
    sys.setswitchinterval(SWITCH)
    for row in asyncio.run(rows(given.scale)):
        print(f"{row.what:58} goal {row.goal:6.2f}  {row.measured:7.2f} {row.unit}   {row.note}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
