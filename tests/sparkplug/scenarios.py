"""The scenarios of the checker, with the real command and a real mosquitto. Each returns its trace."""

import asyncio
from pathlib import Path

from tests import harness
from tests.sparkplug.facts import Facts
from tests.sparkplug.rules_order import live_values
from tests.sparkplug.stage import EDGE, Stage, set_up
from tests.sparkplug.wire import Trace

MANY = 130
"""Pairs of writes, each answered by an NDATA: more than 256 messages after one NBIRTH."""


async def tell_story(directory: Path) -> Trace:
    """Start, data, rebirth, changes, joins, leaves, a new field, many messages, staleness, restart, kill, stop."""
    async with set_up(directory) as stage:
        await stage.start("5")
        devices = [terminal["id"] for terminal in stage.api.truth("terminals")]
        for device in devices:
            await stage.until("DBIRTH", device=device)
        await stage.poll()
        stage.api.freeze()
        await _change_the_fleet(stage, devices)
        await _write_often(stage)
        await _lose_the_api(stage)
        await _ask_for_rebirths(stage)
        await _restart_the_broker(stage, len(devices))
        await _kill(stage, len(devices))
        stage.api.advance(60)
        await stage.poll()
        await stage.stop()
        return stage.tap.trace()


async def _change_the_fleet(stage: Stage, devices: list[str]) -> None:
    """A Device changes, one gets a new metric, one joins, one leaves."""
    here = stage.here
    changed, left = devices[0], devices[1]
    state = next(t["resourceState"] for t in stage.api.truth("terminals") if t["id"] == changed)
    stage.api.fleet("flip", id=changed)
    stage.tap.note("changed", changed, "Status/Online", state != "online")
    stage.api.fleet("firmware", id=changed, type="NEW", version="1.2.3")
    stage.tap.note("changed", changed, "Components/main/NEW", "1.2.3")
    (joined,) = stage.api.fleet("add")["ids"]
    stage.api.fleet("remove", id=left)
    stage.tap.note("left", left)
    await stage.poll("user_terminals", "user_terminal_components")
    await stage.until("DDATA", here, changed)
    await stage.until("DBIRTH", here, changed)
    await stage.until("DBIRTH", here, joined)
    await stage.until("DDEATH", here, left)


async def _ask_for_rebirths(stage: Stage) -> None:
    """Two requests within 5 s are one rebirth."""
    here = stage.here
    await stage.write("Node Control/Rebirth", True, True)
    await stage.until("NBIRTH", here)
    await stage.until("DBIRTH", here)


async def _write_often(stage: Stage) -> None:
    """The interval of a call is written until `seq` has wrapped; each write has its answer."""
    here = stage.here
    stage.tap.note("changed", "", "Polling/sites/Interval", 777)
    await stage.write("Polling/sites/Interval", *(600, 601) * MANY, 777)
    await stage.until("NDATA", here, count=2 * MANY + 1)


async def _lose_the_api(stage: Stage) -> None:
    """Values become stale, and good again after a poll."""
    here = stage.here
    stage.tap.note("changed", "", "API/Connected", False)
    stage.api.fault("status", status=503)
    await harness.publish(stage.port, "oneweb/bridge/polling/user_terminals/poll")
    # A sample of a poll before the fault may be on its way: what counts is that the fault was told.
    await _until_told(stage, here, "API/Connected", False)
    await stage.until("DDATA", here)
    here = stage.here
    stage.tap.note("changed", "", "API/Connected", True)
    stage.api.clear_faults()
    await stage.poll("user_terminals")
    await stage.until("DDATA", here)


async def _until_told(stage: Stage, since: int, metric: str, value: object) -> None:
    """Waits until a metric of an Edge Node has become a value after a place in the trace."""

    def is_told() -> bool:
        values = live_values(Facts(stage.tap.trace())).get(("", metric), [])
        return any(at >= since and live == value for at, live in values)

    async with asyncio.timeout(60):
        while not is_told():
            await asyncio.sleep(0.5)


async def _restart_the_broker(stage: Stage, count: int) -> None:
    here = stage.here
    await stage.stop_broker()
    await stage.start_broker()
    await stage.until("NBIRTH", here)
    await stage.until("DBIRTH", here, count=count)


async def _kill(stage: Stage, count: int) -> None:
    here = stage.here
    await stage.kill()
    await stage.start("5")
    await stage.until("NBIRTH", here)
    await stage.until("DBIRTH", here, count=count)


async def tell_of_host(directory: Path) -> Trace:
    """A primary host that is offline, comes, says old things, goes, and comes back."""
    async with set_up(directory) as stage:
        await stage.say_state(online=False, timestamp=1000)
        await stage.start("3.1.1", "scada")
        await _until_subscribed(stage, 0)
        await stage.say_state(online=True, timestamp=500)
        await stage.poll()
        await stage.say_state(online=True, timestamp=1000)
        await stage.until("NBIRTH")
        await stage.until("DBIRTH", count=3)
        await stage.say_state(online=True, timestamp=1800)
        await stage.say_state(online=False, timestamp=1700)
        stage.api.advance(60)
        here = stage.here
        await stage.poll()
        await stage.until("DDATA", here)
        here = stage.here
        await stage.say_state(online=False, timestamp=2000)
        await stage.until("NDEATH", here)
        await _until_subscribed(stage, here)
        await stage.say_state(online=True, timestamp=1500)
        stage.api.advance(60)
        await stage.poll()
        await stage.say_state(online=True, timestamp=3000)
        await stage.until("NBIRTH", here)
        await stage.until("DDATA", here)
        await stage.stop()
        return stage.tap.trace("scada")


async def _until_subscribed(stage: Stage, since: int) -> None:
    """Waits until an Edge Node has been given the retained STATE."""
    await stage.tap.until(
        lambda: any("/STATE/" in getattr(e.packet, "topic", "") and not e.up for e in stage.tap.events[since:])
    )


async def tell_of_several(directory: Path) -> Trace:
    """Devices on Edge Nodes with room for two: data, rebirth of one, joins, leaves, a cut, a stop."""
    async with set_up(directory, terminals=4) as stage:
        await stage.start("5", sparkplug={"devices_per_edge_node": 2})
        devices = [terminal["id"] for terminal in stage.api.truth("terminals")]
        for device in devices:
            await stage.until("DBIRTH", device=device)
        await stage.poll()
        await _rebear_second(stage)
        (joined,) = stage.api.fleet("add")["ids"]
        here = stage.here
        stage.api.fleet("remove", id=devices[-1])
        stage.tap.note("left", devices[-1])
        await stage.poll("user_terminals")
        await stage.until("DBIRTH", here, joined)
        await stage.until("DDEATH", here, devices[-1])
        here = stage.here
        stage.tap.sever()
        await stage.until("NBIRTH", here, count=3)
        await stage.until("DBIRTH", here, count=len(devices))
        stage.api.advance(60)
        await stage.poll()
        await stage.stop()
        return stage.tap.trace()


async def _rebear_second(stage: Stage) -> None:
    here, second = stage.here, f"{EDGE}-2"
    await stage.write("Node Control/Rebirth", True, edge=second)
    await stage.until("NBIRTH", here, second)
    await stage.until("DBIRTH", here, count=2)


async def tell_all(directory: Path) -> list[Trace]:
    """All scenarios, side by side."""
    places = [directory / name for name in ("story", "host", "several")]
    for place in places:
        place.mkdir(parents=True)
    story, host, several = places
    return list(await asyncio.gather(tell_story(story), tell_of_host(host), tell_of_several(several)))
