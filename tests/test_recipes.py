"""The lines of docs/recipes.md, run exactly as printed against a running bridge."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

from tests import harness
from tests.campaign import is_at_rest

PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"
TIMED_OUT = 27
"""The exit code of mosquitto_sub when its time is over."""
MAY_BE_EMPTY = ("bridge/alert",)
"""Parts of lines whose answer may be empty."""


def lines() -> list[str]:
    """Every printed line, in the page's order."""
    return [
        line for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL) for line in block.splitlines()
    ]


async def ran(script: str, directory: Path, places: asyncio.Semaphore) -> tuple[int, str, str]:
    """A script in a plain shell, when there is a place: exit code, output, errors."""
    async with places:
        return await _ran(script, directory)


async def _ran(script: str, directory: Path) -> tuple[int, str, str]:
    command = directory / "bin"
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        script,
        cwd=directory,
        env={"PATH": f"{command}:/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode or 0, out.decode(), err.decode()


async def test_recipes_work_as_printed(tmp_path: Path) -> None:
    """Each line exits well and answers, but for those that answer only when something is wrong; the port is ours."""
    printed = lines()
    top, recipes = printed[:3], printed[3:]
    chosen = next(line for line in recipes if line.startswith("IMEI="))
    # The measurements are of now, as `history` counts back from it; what happens is this test's choice alone,
    # because the fleet's own story follows the clock, and at some hours nobody would be offline.
    async with harness.world(tmp_path, start=None, liveliness=0.0) as world:
        (tmp_path / "bin").mkdir()
        command = tmp_path / "bin" / "oneweb-bridge"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m oneweb_bridge "$@"\n')
        command.chmod(0o755)
        set_up = "\n".join([*top, f"PORT={world.port}", chosen])
        make_interesting(world)
        # The call that fails is polled once, because while it is polling it has no error to show.
        configured = world.config(polling={"organizations": {"interval": "1h"}})
        async with harness.recording(world.port) as recorder, harness.running(configured):
            await recorder.until(lambda: is_at_rest(recorder))
            await recorder.until(lambda: any("/usage/" in topic for topic in recorder.retained))
            # A refusal of the sign-in is not tried again for long, and keeps its error.
            world.api.fault("status", status=403, path="partyManagement")
            failed = "oneweb/bridge/polling/organizations"
            await harness.publish(world.port, f"{failed}/poll", b"{}")
            await recorder.until(lambda: "error" in recorder.retained[f"{failed}/state"])
            spare = [line for line in recipes if line != chosen]
            places = asyncio.Semaphore(8)
            tasks = [
                asyncio.create_task(ran(patient(f"{set_up}\n{line}"), tmp_path, places), name=line) for line in spare
            ]
            flips = asyncio.create_task(flipping(world), name="something changes")
            try:
                answers = await asyncio.gather(*tasks)
            finally:
                flips.cancel()

    for line, (code, out, err) in zip(spare, answers, strict=True):
        assert err in ("", "Timed out\n"), line
        assert code == (0 if "| jq" in line or not err else TIMED_OUT), line
        silent = line.startswith("pub ") or any(part in line for part in MAY_BE_EMPTY) or line.endswith(".csv")
        assert silent or out.strip(), line
    assert len(spare) >= 20
    assert (tmp_path / "history.csv").read_text().count("\n") > 10
    by_line = dict(zip(spare, answers, strict=True))
    outputs = [out for line, (_, out, _) in by_line.items() if "polling/user_terminals/poll" in line]
    assert outputs == ["ok: 8 records\n"]
    answered = [answer for topic, answer, _ in recorder.messages if topic.endswith("/result") and failed not in topic]
    assert {answer["command"] for answer in answered} == {"poll", "interval", "enabled"}
    assert {answer["status"] for answer in answered} == {"ok"}


def patient(line: str) -> str:
    """The line with more time for what it waits for: mosquitto_sub counts it from its own start."""
    return line.replace("-W 2", "-W 10").replace("-W 5", "-W 16").replace("sleep 1;", "sleep 3;")


def make_interesting(world: harness.World) -> None:
    """One terminal is offline, another is on the site of the page, and a product has used most of what it has."""
    terminals = world.api.truth("terminals")
    world.api.fleet("set_state", id=terminals[0]["id"], state="offline")
    world.api.fleet("set", id=terminals[1]["id"], attributes={"place": {"id": "SITE-001"}})
    report = next(r for r in world.api.truth("usage") if amount(r["bucket"][0], "entitlement"))
    bucket = report["bucket"][0]
    used = {"amount": 0.9 * amount(bucket, "entitlement"), "units": "GB"}
    counters = [{**c, "value": used} if c["counterType"] == "usage" else c for c in bucket["bucketCounter"]]
    world.api.fleet("set", id=report["id"], attributes={"bucket": [{**bucket, "bucketCounter": counters}]})


def amount(bucket: dict[str, Any], kind: str) -> float:
    """What a bucket counts of a kind; 0 where it counts none."""
    return next((float(c["value"]["amount"]) for c in bucket["bucketCounter"] if c["counterType"] == kind), 0.0)


async def flipping(world: harness.World) -> None:
    """Terminals go offline and come back until cancelled, so that there is something to watch; the first stays away."""
    ids = [terminal["id"] for terminal in world.api.truth("terminals")[1:]]
    while True:
        for id in ids:
            world.api.fleet("flip", id=id)
            world.api.advance(30)
            await harness.publish(world.port, "oneweb/bridge/polling/user_terminals/poll", b"{}")
            await asyncio.sleep(1)


def test_first_block_is_for_a_local_broker() -> None:
    """The page begins with host, port and the two functions that every line uses."""
    assert lines()[0].startswith("HOST=127.0.0.1 PORT=")
    assert all(line.startswith(("sub()", "pub()")) for line in lines()[1:3])
