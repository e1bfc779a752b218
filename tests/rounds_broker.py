"""Rounds in which the broker or the way to it is at fault."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import aiomqtt

from tests import truth
from tests.fault_bench import RoundResult, Stage, set_up

ROW_TOPICS = ("oneweb/terminal/", "oneweb/product/", "oneweb/organization/", "oneweb/site/")


async def restarted(directory: Path, seed: int) -> RoundResult:
    """The broker is stopped in order and started again, with and without persistence."""
    kept = bool(seed % 2)
    async with set_up(directory, seed, kept=kept) as stage:
        await stage.start()
        for _ in range(3):
            await asyncio.sleep(stage.chance.uniform(1.0, 4.0))
            await stage.stop_broker()
            await asyncio.sleep(stage.chance.uniform(0.0, 1.0))
            await stage.start_broker(kept=kept)
        stage.mended()
        return await stage.finish()


async def killed(directory: Path, seed: int, *, kept: bool) -> RoundResult:
    """The broker is killed with -9, three times; what it had acknowledged and forgot is its own loss."""
    async with set_up(directory, seed, kept=kept) as stage:
        await stage.start()
        for _ in range(3):
            await asyncio.sleep(stage.chance.uniform(0.8, 4.0))
            await stage.stop_broker(kill=True)
            await asyncio.sleep(stage.chance.uniform(0.0, 1.0))
            await stage.start_broker(kept=kept)
        stage.mended()
        return await stage.finish()


async def away(directory: Path, seed: int, seconds: float) -> RoundResult:
    """The broker is away for long while the fleet lives; then everything comes, in order."""
    async with set_up(directory, seed, kept=True) as stage:
        await stage.start()
        await stage.wait_until_at_rest()
        await stage.stop_broker()
        await stage.until_ready("broker", is_well=False)
        await asyncio.sleep(seconds)
        _change(stage)
        await _grown(stage)
        await stage.start_broker(kept=True)
        stage.mended()
        # The pause between two tries grows to a minute, and a fifth more.
        return await stage.finish(patience=80.0)


def _change(stage: Stage) -> None:
    for terminal in stage.api.truth("terminals")[:4]:
        stage.api.fleet("rename", id=terminal["id"], name=f"T{stage.chance.randint(1, 10_000)}")


async def _grown(stage: Stage) -> None:
    """The backlog is told while the broker is away."""
    async with asyncio.timeout(30):
        while await stage.backlog() <= 0:
            await asyncio.sleep(0.2)


async def cut(directory: Path, seed: int) -> RoundResult:
    """The connection is cut within a message, every few messages, a dozen times."""
    async with set_up(directory, seed, terminals=20) as stage:
        stage.proxy.cut_after = lambda: stage.chance.randint(5, 120)
        await stage.start({"quick": True})
        async with asyncio.timeout(60):
            while stage.proxy.cuts < 12:
                stage.api.advance(1)
                await asyncio.sleep(0.1)
        stage.mended()
        return await stage.finish()


async def half_open(directory: Path, seed: int) -> RoundResult:
    """The connection stays open, but nothing passes in either direction; that is noticed within 60 s."""
    async with set_up(directory, seed) as stage:
        await stage.start()
        await stage.wait_until_at_rest()
        stage.proxy.swallows = True
        _change(stage)
        await stage.until_ready("broker", is_well=False, patience=60.0)
        stage.mended()
        return await stage.finish(patience=90.0)


async def slow(directory: Path, seed: int) -> RoundResult:
    """A link of a few kilobytes per second."""
    async with set_up(directory, seed, terminals=6) as stage:
        stage.proxy.rate = 20_000.0
        await stage.start()
        await asyncio.sleep(stage.chance.uniform(6.0, 12.0))
        stage.mended()
        return await stage.finish()


async def puback_late(directory: Path, seed: int) -> RoundResult:
    """Every PUBACK is late; then the connection is cut with many of them on their way."""
    async with set_up(directory, seed) as stage:
        stage.proxy.late = stage.chance.choice((0.05, 0.3, 1.5))
        await stage.start()
        await asyncio.sleep(stage.chance.uniform(4.0, 10.0))
        stage.proxy.sever()
        await asyncio.sleep(stage.chance.uniform(2.0, 4.0))
        stage.mended()
        return await stage.finish()


async def puback_withheld(directory: Path, seed: int) -> RoundResult:
    """PUBACKs stop coming while the connection is alive; after 30 s the bridge makes another one."""
    async with set_up(directory, seed) as stage:
        await stage.start()
        await stage.wait_until_at_rest()
        stage.proxy.bend = lambda topic: -1 if topic.startswith(ROW_TOPICS) else None
        _change(stage)
        connections = stage.proxy.connections
        async with asyncio.timeout(70):
            while stage.proxy.connections == connections:
                await asyncio.sleep(0.2)
        stage.mended()
        return await stage.finish()


async def puback_refused(directory: Path, seed: int) -> RoundResult:
    """PUBACKs with error codes: the bridge tries again, keeps the order, and lets the others pass."""
    async with set_up(directory, seed) as stage:
        share = stage.chance.uniform(0.05, 0.25)
        codes = (0x80, 0x83, 0x97)

        def bend(topic: str) -> int | None:
            hit = topic.startswith(ROW_TOPICS) and stage.chance.random() < share
            return stage.chance.choice(codes) if hit else None

        stage.proxy.bend = bend
        await stage.start()
        await asyncio.sleep(stage.chance.uniform(4.0, 9.0))
        stage.expect("broker refuses" in stage.bridge.text(), "a refused message is not in the log")
        stage.mended()
        return await stage.finish(bounded=False)


ACL = "topic readwrite {allowed}\n"


async def denied(directory: Path, seed: int, protocol: str) -> RoundResult:
    """The broker's access rules let nothing through, silently on 3.1.1: nothing counts as delivered, and it is told."""
    rules = directory / "acl"
    _write_acl(rules, "oneweb/bridge/polling/#")
    async with set_up(directory, seed, broker_conf=f"acl_file {rules}\n") as stage:
        # The recorder is a user that everything is allowed to; only the bridge has a name.
        await stage.start({"quick": True, "probe_patience": 2.0}, mqtt={"protocol": protocol})
        await stage.until_ready("broker", is_well=False)
        await _grown(stage)
        async with asyncio.timeout(40):
            while "access rules" not in stage.bridge.text():
                await asyncio.sleep(0.1)
        stage.expect(not [t for t in stage.recorder.topics() if "/event/" in t], "something passed a denial")
        _write_acl(rules, "#")
        stage.hang_up(signal.SIGHUP)
        stage.mended()
        return await stage.finish()


def _write_acl(path: Path, allowed: str) -> None:
    path.write_text(f"topic readwrite #\n\nuser bridge\n{ACL.format(allowed=allowed)}")
    path.chmod(0o600 if os.geteuid() == 0 else 0o644)


async def denied_in_part(directory: Path, seed: int) -> RoundResult:
    """Access rules deny one class of topics on MQTT 5: its rows are set aside and told, the others flow."""
    rules = directory / "acl"
    rules.write_text("topic readwrite #\n\nuser bridge\ntopic readwrite #\ntopic deny oneweb/site/#\n")
    async with set_up(directory, seed, broker_conf=f"acl_file {rules}\n") as stage:
        await stage.start()
        alerted = await stage.until(lambda: _alerts(stage, "row_set_aside"), 40)
        stage.expect(alerted, "no alert says that rows were set aside")
        stage.mended()
        result = await stage.finish(without=("oneweb/site/",), bounded=False)
        info = stage.recorder.retained["oneweb/bridge/info"]
        stage.expect(info["journal"]["dead"] > 0, f"info says {info['journal']}")
        return result


def _alerts(stage: Stage, kind: str) -> list[Any]:
    return [alert for alert in stage.recorder.on("oneweb/bridge/alert") if alert["kind"] == kind]


async def too_large(directory: Path, seed: int) -> RoundResult:
    """One record is larger than the broker takes: it is set aside and told, the others flow."""
    async with set_up(directory, seed, broker_conf="max_packet_size 8192\n") as stage:
        site = stage.api.truth("sites")[0]["id"]
        stage.api.fleet("rename_site", id=site, name="x" * 20_000)
        await stage.start()
        alerted = await stage.until(lambda: _alerts(stage, "row_set_aside"), 40)
        stage.expect(alerted, "no alert says that a row was set aside")
        stage.mended()
        return await stage.finish(without=(f"oneweb/site/{truth.level(site)}",))


async def taken_over(directory: Path, seed: int) -> RoundResult:
    """Somebody else connects with the bridge's client id, again and again; the bridge comes back and loses nothing."""
    async with set_up(directory, seed) as stage:
        await stage.start()
        for _ in range(3):
            await asyncio.sleep(stage.chance.uniform(0.8, 3.0))
            thief = aiomqtt.Client(
                "127.0.0.1", stage.port, identifier="oneweb-bridge-main", protocol=aiomqtt.ProtocolVersion.V5
            )
            try:
                async with thief:
                    await asyncio.sleep(stage.chance.uniform(0.1, 0.7))
            except aiomqtt.MqttError:
                continue
        stage.mended()
        return await stage.finish()
