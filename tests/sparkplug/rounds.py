"""Rounds in which the bridge, the broker, the host or the connection fails at random; then the host must know all.

python -m tests.sparkplug.rounds --rounds 100 --seed 7
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests import checker, harness, truth, truth_usage
from tests.fault_bench import RoundResult
from tests.sparkplug import names
from tests.sparkplug.host import Host, Key, TagStore
from tests.sparkplug.stage import Stage, set_up

HOST = "scada"
FAULTS = ("kill -9", "broker restart", "host restart", "cut")
PATIENCE = 60.0
POLL_S = 10.0
"""Seconds that a poll may take; a command that came before the bridge was there is never answered."""
Shown = dict[Key, dict[int, list[Any]]]
"""Metric -> time -> the values that the API has shown for it, in their order."""


class Expected:
    """What the host must know at the end: from the simulator's truth, and from its ledger of answered pages."""

    def __init__(self, stage: Stage) -> None:
        self._places = {p["id"]: _device_of(truth.product(p), stage) for p in stage.api.truth("products")}
        ledger = [json.loads(line) for line in (stage.directory / "ledger.jsonl").read_bytes().splitlines()]
        self.shown: Shown = {}
        self.tags: dict[Key, Any] = {}
        for listing in checker.listings(ledger):
            self._add_samples(listing)
            if listing.call == "usage_consumption":
                self._add_usage(listing.items)
        self._add_records(stage)
        for key, by_time in self.shown.items():
            self.tags[key] = by_time[max(by_time)][-1]

    def _add_samples(self, listing: checker.Listing) -> None:
        for _, (place, _, at, text) in checker._versions(listing, "oneweb"):
            _, entity, level = place.split("/")
            device, folder = (level, "") if entity == "terminal" else (self._place_of(level), f"Product/{level}/")
            for field, value in json.loads(text).items():
                values = self.shown.setdefault((device, folder + names.SAMPLE[field]), {}).setdefault(at, [])
                if value not in values:
                    values.append(value)

    def _place_of(self, level: str) -> str:
        return next(device for product, device in self._places.items() if truth.level(product) == level)

    def _add_usage(self, reports: list[dict[str, Any]]) -> None:
        for topic, text in (bucket for report in reports for bucket in truth_usage.buckets(report, "oneweb")):
            levels, usage = topic.split("/"), json.loads(text)
            if levels[1] != "product":
                device, folder = "_usage", f"Usage/{levels[2]}/"
            else:
                device, folder = self._place_of(levels[2]), f"Product/{levels[2]}/Usage/{levels[4]}/"
            self.tags |= {(device, folder + name): usage.get(field) for field, name in names.USAGE.items()}

    def _add_records(self, stage: Stage) -> None:
        for thing in stage.api.truth("terminals"):
            record, device = truth.terminal(thing), truth.level(thing["id"])
            self.tags |= {(device, name): record.get(field) for field, name in names.TERMINAL.items()}
            self.tags[device, "Status/Online"] = record["state"] == "online"
        for thing in stage.api.truth("products"):
            record, folder = truth.product(thing), f"Product/{truth.level(thing['id'])}/"
            device = self._places[thing["id"]]
            self.tags |= {(device, folder + name): record.get(field) for field, name in names.PRODUCT.items()}

    def differences(self, store: TagStore) -> list[str]:
        """What the host knows otherwise, lacks, or has besides."""
        wrong = list(store.problems)
        for key, value in self.tags.items():
            if key not in store.tags:
                wrong.append(f"{key} is not there")
            elif store.tags[key].value != value:
                wrong.append(f"{key} is {store.tags[key]}, expected {value}")
        for key, by_time in self.shown.items():
            wrong += _history_differences(key, by_time, store.history.get(key, {}))
        return wrong


def _history_differences(key: Key, shown: dict[int, list[Any]], history: dict[int, list[Any]]) -> list[str]:
    wrong = [
        f"{key} at {at} is lost: {values}" for at, values in shown.items() if values[-1] not in history.get(at, ())
    ]
    for at, values in history.items():
        invented = [value for value in values if value not in shown.get(at, ())]
        wrong += [f"{key} at {at} was invented: {invented}"] if invented else []
    return wrong


def _device_of(product: dict[str, Any], stage: Stage) -> str:
    known = {terminal["id"] for terminal in stage.api.truth("terminals")}
    imei = str(product.get("imei"))
    return truth.level(imei) if imei in known else f"_product-{truth.level(product['product_id'])}"


class Rounds:
    """A bridge that is disturbed, and a host that listens all the time but when it restarts."""

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        self._stage = stage
        self._chance = chance
        self._store = TagStore()
        self._host: contextlib.AsyncExitStack
        self.host: Host

    async def start_host(self) -> None:
        """A host that still has its history, and knows no Edge Node."""
        self._store.nodes.clear()
        self.host = Host(self._stage.port, HOST)
        self.host.store = self._store
        self._host = contextlib.AsyncExitStack()
        await self._host.enter_async_context(self.host.connected())

    async def stop_host(self) -> None:
        """Says offline, waits for the deaths, and leaves."""
        await self._host.aclose()

    async def play(self, rounds: int) -> None:
        """Disturbs in so many rounds, each kind as often as the others. New samples come all the while."""
        await self.start_host()
        await self._start_bridge()
        await self.host.until(self._is_born, PATIENCE)
        for number in range(rounds):
            fault = FAULTS[(number + self._chance.randrange(2)) % len(FAULTS)]
            self._stage.api.advance(self._chance.uniform(5, 60))
            await self._ask_for_polls()
            await asyncio.sleep(self._chance.uniform(0.0, 0.6))  # so that it fails at any moment
            await self._disturb(fault)

    async def _start_bridge(self) -> None:
        """Of its own it polls once, at its start: what the API has shown at the end is final then.

        There is room for one Device on an Edge Node, or for more, whatever it was before.
        """
        polling = {call: {"interval": "6h"} for call in harness.QUICK}
        room = {"devices_per_edge_node": self._chance.choice((1, 2, 500))}
        await self._stage.start(self._chance.choice(("5", "3.1.1")), HOST, polling=polling, sparkplug=room)

    def _is_born(self) -> bool:
        return any(node.is_online and len(node.devices) > 1 for node in self._store.nodes.values())

    async def _ask_for_polls(self) -> None:
        await harness.publish(self._stage.port, "oneweb/bridge/polling/all/poll")

    async def _disturb(self, fault: str) -> None:
        match fault:
            case "kill -9":
                await self._stage.kill()
                await self._start_bridge()
            case "broker restart":
                await self._stage.stop_broker()
                await self._stage.start_broker()
            case "host restart":
                await self.stop_host()
                await self.start_host()
            case _:
                self._stage.tap.sever()

    async def findings(self) -> list[str]:
        """What is wrong after everything was polled in peace."""
        self._stage.api.freeze()
        await self.host.until(self._is_born, PATIENCE)
        for _ in range(2):
            result = await self._poll_in_peace()
            if result["status"] != "ok":
                return [f"a poll in peace failed: {result}"]
        expected = Expected(self._stage)
        with contextlib.suppress(TimeoutError):
            await self.host.until(lambda: not expected.differences(self._store), PATIENCE)
        return expected.differences(self._store)

    async def _poll_in_peace(self) -> dict[str, Any]:
        """The answer to a poll of every call; asked again, because the bridge may still be on its way to the broker."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await harness.poll(self._stage.port, patience=POLL_S)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise


async def play(directory: Path, seed: int, rounds: int) -> list[str]:
    """Some rounds, and what is wrong after them."""
    async with set_up(directory, seed=seed % 1000, terminals=3) as stage:
        game = Rounds(stage, random.Random(seed))
        await game.play(rounds)
        try:
            return await game.findings()
        finally:
            await game.stop_host()


async def disturbed(directory: Path, seed: int) -> RoundResult:
    """Ten of them, for the fault campaign."""
    return RoundResult(findings=await play(directory, seed, 10))


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 when the host knew everything."""
    parser = argparse.ArgumentParser(prog="python -m tests.sparkplug.rounds")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args(arguments)
    print(f"--rounds {options.rounds} --seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="oneweb-sparkplug-") as directory:
        wrong = asyncio.run(play(Path(directory), options.seed, options.rounds))
    print("\n".join([*wrong[:20], f"{len(wrong)} findings"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
