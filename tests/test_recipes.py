"""The lines of docs/recipes.md, run exactly as printed against a running bridge."""

import asyncio
import re
import sys
from pathlib import Path

from tests import harness
from tests.campaign import settled

PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"
MAY_BE_EMPTY = ("SITE-001", "select(.error)", "bridge/alert")
"""Parts of lines whose answer is empty when all is well."""
CHANGES = "event/changed"


def lines() -> list[str]:
    """Every printed line, in the page's order."""
    return [
        line for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL) for line in block.splitlines()
    ]


async def ran(script: str, directory: Path) -> tuple[int, str, str]:
    """A script in a plain shell: exit code, output, errors."""
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
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def test_recipes_work_as_printed(tmp_path: Path) -> None:
    """Each line exits well, complains of nothing, and answers, but for those that answer only when something is wrong."""
    printed = lines()
    top, recipes = printed[:3], printed[3:]
    chosen = next(line for line in recipes if line.startswith("IMEI="))
    async with harness.world(tmp_path) as world:
        (tmp_path / "bin").mkdir()
        command = tmp_path / "bin" / "oneweb-bridge"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m oneweb_bridge "$@"\n')
        command.chmod(0o755)
        set_up = "\n".join([*top, f"PORT={world.port}", chosen])
        async with harness.recording(world.port) as recorder, harness.running(world.config()):
            await recorder.until(lambda: settled(recorder))
            await recorder.until(lambda: any("/usage/" in topic for topic in recorder.retained))
            spare = [line for line in recipes if line != chosen]
            tasks = [asyncio.create_task(ran(f"{set_up}\n{line}", tmp_path), name=line) for line in spare]
            # Whoever watches has subscribed before anything changes: the slowest of the others takes longer.
            flips = asyncio.create_task(flipping(world), name="something changes")
            try:
                answers = await asyncio.gather(*tasks)
            finally:
                flips.cancel()

    for line, (code, out, err) in zip(spare, answers, strict=True):
        assert err == "", line
        assert code == 0, line
        silent = line.startswith("pub ") or any(part in line for part in MAY_BE_EMPTY) or line.endswith(".csv")
        assert silent or out.strip(), line
    assert len(spare) >= 20
    assert (tmp_path / "history.csv").read_text().count("\n") > 10
    by_line = dict(zip(spare, answers, strict=True))
    told = [out for line, (_, out, _) in by_line.items() if "polling/user_terminals/poll" in line]
    assert told == ["ok: 8 records\n"]
    answered = [said for topic, said, _ in recorder.messages if topic.endswith("/result")]
    assert {said["command"] for said in answered} == {"poll", "interval", "enabled"}
    assert {said["status"] for said in answered} == {"ok"}


async def flipping(world: harness.World) -> None:
    """Terminals go offline and come back, so that there is something to watch, until cancelled."""
    ids = [terminal["id"] for terminal in world.api.truth("terminals")]
    while True:
        for id in ids:
            world.api.fleet("flip", id=id)
            world.api.advance(30)
            await harness.said(world.port, "oneweb/bridge/polling/all/poll", b"{}")
            await asyncio.sleep(1)


def test_first_block_is_for_a_local_broker() -> None:
    """The page begins with host, port and the two functions that every line uses."""
    assert lines()[0].startswith("HOST=127.0.0.1 PORT=")
    assert all(line.startswith(("sub()", "pub()")) for line in lines()[1:3])
