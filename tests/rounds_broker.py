"""Rounds in which the broker or the way to it is at fault."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from tests.fault_bench import RoundResult, Stage, set_up

ROW_TOPICS = ("oneweb/terminal/", "oneweb/product/", "oneweb/organization/", "oneweb/site/")


async def _grown(stage: Stage) -> None:
    """The backlog is told while the broker is away."""
    async with asyncio.timeout(30):
        while await stage.backlog() <= 0:
            await asyncio.sleep(0.2)


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
