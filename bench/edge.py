"""Row 16: the Sparkplug outlet: rows to DDATA, the first births of 500 Devices, and memory with ten Edge Nodes."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from bench import drains, fleet
from bench.clock import Clock
from bench.ratios import compared
from bench.scope import Scope, spelled
from bench.subscriber import Subscriber, subscribe
from bench.table import Row
from oneweb_bridge.clock import SYSTEM
from oneweb_bridge.config.read import parse
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.records import Batch, DecodedRecord, Entry
from oneweb_bridge.polling import diff
from oneweb_bridge.sparkplug import outlet, payload
from oneweb_bridge.sparkplug.payload import Aliased
from oneweb_bridge.sparkplug.shared import EdgeCallbacks
from oneweb_bridge.sparkplug.tree import Metric, MetricSpec, MetricType
from oneweb_bridge.store import store
from oneweb_bridge.store.growth import JournalGrowth

DEVICES = 500
NODES = 10
TIMEOUT_S = 300.0
NOW = 1_750_000_000_000
LEVELS = ("Signal/RSRP", "Signal/RSSI", "Signal/SINR")


def _entry(number: int, devices: int) -> Entry:
    """One sample of three values."""
    body = (
        f'{{"imei":"{_imei(number % devices)}","ts":{NOW + number},"rsrp_dbm":-90.5,"rssi_dbm":-70.25,"sinr_db":11.5}}'
    )
    return Entry("terminal", _imei(number % devices), "history", "signal_quality", NOW + number, body.encode())


def _imei(number: int) -> str:
    return f"35923517{number:07d}"


async def _no_alert(_: str, __: str) -> None:
    return None


async def _until(true: Callable[[], bool], what: str) -> None:
    """Looks every 5 ms. Raises TimeoutError with what did not come."""
    deadline = time.monotonic() + TIMEOUT_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not in {TIMEOUT_S:.0f} s")
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def _filled(devices: int) -> AsyncIterator[tuple[Path, store.Store]]:
    """A database with so many terminals, each with a product."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        async with store.open_store(path) as opened:
            for start in range(0, devices, 1000):
                numbers = range(start, min(start + 1000, devices))
                for kind in ("terminal", "product"):
                    rule = diff.CompareRule(kind=kind, now=NOW)
                    listed = [
                        diff.ListedRecord(DecodedRecord(kind, _imei(n), _record(kind, _imei(n))), b"") for n in numbers
                    ]
                    await opened.commit(diff.compare(rule, {}, listed, {}))
            yield path, opened


def _record(kind: str, imei: str) -> dict[str, str | int | float | bool | list[str]]:
    if kind == "terminal":
        return {"imei": imei, "name": f"Vessel {imei}", "state": "online", "latitude": 51.5, "longitude": -0.25}
    return {"product_id": imei, "imei": imei, "name": "Plan", "status": "ACTIVE", "allowance_gb": 100.0}


@contextlib.asynccontextmanager
async def _running(path: Path, growth: JournalGrowth, port: int) -> AsyncIterator[outlet.Outlet]:
    """The outlet, alone in this process."""
    config = parse(f"sparkplug: {{enabled: true}}\nmqtt: {{port: {port}, host: 127.0.0.1}}", {})
    callbacks = EdgeCallbacks(
        config=lambda: config,
        alert=_no_alert,
        submit=lambda *_: None,
        is_api_connected=lambda: True,
        poll_successes=dict,
    )
    async with outlet.open_outlet(path, growth, callbacks, SYSTEM, "1") as made:
        task = asyncio.create_task(made.run(), name="sparkplug")
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _is_at_rest(made: outlet.Outlet, head: int) -> bool:
    """Whether the broker has read everything of the first Edge Node up to a row, and the cursor is written."""
    nodes = made._shared.nodes
    return 1 in nodes and nodes[1].cursor >= max(head, made._shared.through)


def _subscribed(port: int, verb: str) -> contextlib.AbstractAsyncContextManager[Subscriber]:
    return subscribe(port, f"spBv1.0/+/{verb}/#")


async def _rows_to_data(port: int, count: int, devices: int, clock: Clock) -> None:
    """The outlet has born all Devices; it is told of the rows when they are written, and the clock starts."""
    growth = JournalGrowth()
    async with (
        _filled(devices) as (path, opened),
        _subscribed(port, "DBIRTH") as births,
        _running(path, growth, port) as made,
    ):
        await _until(lambda: births.count >= devices and _is_at_rest(made, 1), "births")
        for start in range(0, count, 1000):
            await opened.commit(Batch(entries=[_entry(n, devices) for n in range(start, min(start + 1000, count))]))
        head = await made._tables.head()
        clock.start()
        growth.notify()
        await _until(lambda: _is_at_rest(made, head), "rows")
        clock.stop()


def _encoded(count: int, devices: int, clock: Clock) -> None:
    """The same values as the outlet's payloads have, made and encoded by protobuf alone: no journal, no broker."""
    specs = [MetricSpec(name, MetricType.DOUBLE, "dBm") for name in LEVELS]
    pages = range(0, count, outlet_page := 2000)
    clock.start()
    for start in pages:
        of_device: dict[int, list[Aliased]] = {}
        for number in range(start, min(start + outlet_page, count)):
            for alias, spec in enumerate(specs, 1):
                metric = Metric(spec, -90.5, NOW + number)
                of_device.setdefault(number % devices, []).append(Aliased(metric, alias, historical=True))
        for metrics in of_device.values():
            payload.with_seq(payload.encode_data(metrics, NOW), 1)
    clock.stop()


async def rows(scope: Scope) -> AsyncIterator[Row]:
    """Row 16."""
    count, devices = scope.of(20_000), scope.of(DEVICES)
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port):

        async def ours(clock: Clock) -> None:
            await _rows_to_data(port, count, devices, clock)

        async def by_protobuf(clock: Clock) -> None:
            _encoded(count, devices, clock)

        async def as_json(clock: Clock) -> None:
            await drains.ours(port, count, devices, clock)

        what = f"Sparkplug: {spelled(count)} rows of {spelled(devices)} Devices to DDATA"
        for floor, measure in (("protobuf alone", by_protobuf), ("the JSON drain", as_json)):
            row = await compared(
                Row(number="16", what=f"{what}, against {floor}", floor=floor), scope.rounds, ours, measure
            )
            yield msgspec.structs.replace(row, note=f"{count} rows; {row.bridge}")
        yield await _birth_row(port, devices)
    yield await _memory_row(scope.of(5000))


async def _birth_row(port: int, devices: int) -> Row:
    """Seconds from the start of the outlet to the last birth at a subscriber."""
    async with _filled(devices) as (path, opened), _subscribed(port, "DBIRTH") as births:
        begun = time.perf_counter()
        async with _running(path, opened.growth, port):
            await _until(lambda: births.count >= devices, "births")
    note = "all metrics of a terminal and its product; paced, so that a host keeps up; the connection is in it"
    what = f"Sparkplug: first births of {spelled(devices)} Devices"
    return Row(number="16", what=what, unit="s", measured=births.last - begun, note=note)


async def _memory_row(terminals: int) -> Row:
    """The real command, with all inventory polled and all births made."""
    given = {"enabled": True, "devices_per_edge_node": max(1, -(-terminals // NODES))}
    what = f"Sparkplug: peak RSS, {spelled(terminals)} terminals on {NODES} Edge Nodes"
    async with (
        fleet.simulated(terminals) as url,
        fleet.running(url, sparkplug=given) as run,
        _subscribed(run.port, "DBIRTH") as births,
    ):
        await run.poll("user_terminals")
        await _until(lambda: births.count >= terminals * 0.98, "births")
        await run.poll("products")
        await run.wait_until_at_rest()
        note = f"terminals and products polled; {spelled(births.count)} DBIRTHs; {run.usage.rss:.0f} MiB at its end"
        return Row(number="16", what=what, unit="MiB", measured=run.usage.peak, note=note)
