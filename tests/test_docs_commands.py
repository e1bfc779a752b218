"""The command lines of docs/commands.md, run exactly as printed against a running bridge."""

import asyncio
import re
from pathlib import Path

from tests import harness
from tests.campaign import is_at_rest

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"


def printed_lines() -> list[str]:
    """Every mosquitto_pub and mosquitto_rr line of the page's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(("mosquitto_pub ", "mosquitto_rr "))]


async def test_printed_lines_are_obeyed(tmp_path: Path) -> None:
    """Each printed line is answered without an error; clearing a retained command is answered by nothing."""
    async with harness.world(tmp_path, terminals=4) as world:
        home = tmp_path / "home"
        home.mkdir()
        for name in ("mosquitto_pub", "mosquitto_rr"):
            (home / name).write_text(f"-p {world.port}\n")
        async with harness.recording(world.port) as recorder, harness.running(world.config()):
            await recorder.until(lambda: is_at_rest(recorder))
            (imei, *_) = (terminal["id"] for terminal in world.api.truth("terminals"))
            for printed in printed_lines():
                # The one of the page is nobody's here.
                line, before = re.sub(r"\b\d{15}\b", imei, printed), answers(recorder)
                process = await asyncio.create_subprocess_shell(
                    line, env={"PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(home)}
                )
                assert await asyncio.wait_for(process.wait(), 40) == 0, line
                if " -r " in line and line.endswith(" -n"):
                    continue
                await recorder.until(lambda before=before: answers(recorder) > before, 40)  # type: ignore[misc]

    errors = [answer for topic, answer, _ in recorder.messages if is_answer(topic) and answer["status"] == "error"]
    assert errors == []
    assert len(printed_lines()) >= 15


def is_answer(topic: str) -> bool:
    """Whether a topic carries results of commands."""
    return topic.startswith("oneweb/bridge/response/") or topic.endswith("/result")


def answers(recorder: harness.Recorder) -> int:
    """How many results were heard so far."""
    return sum(is_answer(topic) for topic, _, _ in recorder.messages)
