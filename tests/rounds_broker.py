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


def _write_acl(path: Path, allowed: str, denied: str | None = None) -> None:
    rule = "" if denied is None else f"topic deny {denied}\n"
    path.write_text(f"topic readwrite #\n\nuser bridge\n{ACL.format(allowed=allowed)}{rule}")
    path.chmod(0o600 if os.geteuid() == 0 else 0o644)


async def denied_in_part(directory: Path, seed: int) -> RoundResult:
    """Access rules deny classes of topics on MQTT 5: their rows wait and are told, the others flow; then all comes."""
    rules = directory / "acl"
    _write_acl(rules, "#", denied="oneweb/site/#")
    async with set_up(directory, seed, broker_conf=f"acl_file {rules}\n") as stage:
        await stage.start()
        stage.expect(await stage.until(lambda: _alerts(stage, "topics_refused"), 40), "no alert names what is refused")
        await stage.wait_until_at_rest()
        passed = [topic for topic in stage.recorder.topics() if topic.startswith("oneweb/site/")]
        stage.expect(not passed, f"something passed a denial: {passed}")
        stage.expect(await stage.backlog() > 0, "what is refused as a whole does not wait")
        _write_acl(rules, "#")
        stage.hang_up(signal.SIGHUP)
        stage.mended()
        return await stage.finish()


async def denied_a_record(directory: Path, seed: int) -> RoundResult:
    """Access rules deny the topics of one record on MQTT 5: its rows are set aside and told, all others flow."""
    rules = directory / "acl"
    _write_acl(rules, "#")
    async with set_up(directory, seed, broker_conf=f"acl_file {rules}\n") as stage:
        site = f"oneweb/site/{stage.api.truth('sites')[0]['id']}"
        _write_acl(rules, "#", denied=f"{site}/#")
        stage.hang_up(signal.SIGHUP)
        await stage.start()
        alerted = await stage.until(lambda: _alerts(stage, "row_set_aside"), 40)
        stage.expect(alerted, "no alert says that rows were set aside")
        stage.mended()
        result = await stage.finish(without=(site,), bounded=False)
        known = stage.recorder.retained
        counted = await stage.until(lambda: _has_counted(known["oneweb/bridge/info"]["journal"]), 20)
        stage.expect(counted, f"info says {known['oneweb/bridge/info']['journal']}")
        return result


def _has_counted(journal: dict[str, int]) -> bool:
    return journal["dead"] > 0 and journal["owed"] > 0


def _alerts(stage: Stage, kind: str) -> list[Any]:
    return [alert for alert in stage.recorder.on("oneweb/bridge/alert") if alert["kind"] == kind]
