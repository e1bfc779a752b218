"""A real Home Assistant as a process of its own, and what a test asks of it."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

PYTHON = Path(os.environ.get("HOMEASSISTANT_PYTHON", ".venv-homeassistant/bin/python"))
"""The Python that has Home Assistant; `make test-homeassistant` makes it."""
HEADLESS = Path(__file__).with_name("headless.py")


class Home:
    """A running Home Assistant."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def ask(self, what: str, **arguments: Any) -> Any:
        """The answer to one request."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"ask": what, **arguments}).encode() + b"\n")
        line = await self._line()
        assert not (isinstance(line, dict) and set(line) == {"error"}), line
        return line

    async def _line(self) -> Any:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 120)
        assert line, f"Home Assistant ended: {self._log.with_suffix('.err').read_text()[-2000:]}"
        return json.loads(line)

    async def states(self) -> dict[str, dict[str, Any]]:
        """State and attributes of each of the bridge's entities, by unique id."""
        entities, states = await self.ask("entities"), await self.ask("states")
        return {
            unique: states[entity] | {"entity_id": entity} for unique, entity in entities.items() if entity in states
        }

    async def until(self, true: Callable[[dict[str, dict[str, Any]]], Any], patience: float = 60.0) -> Any:
        """Waits until something holds of the states. Returns what it gave."""
        async with asyncio.timeout(patience):
            while not (states := true(await self.states())):
                await asyncio.sleep(0.2)
        return states

    async def call(self, unique: str, service: str, **arguments: Any) -> None:
        """Calls a service on one of the bridge's entities, as a user's finger does."""
        entity = (await self.ask("entities"))[unique]
        await self.ask(
            "call", domain=entity.partition(".")[0], service=service, data={"entity_id": entity, **arguments}
        )

    def complaints(self) -> list[str]:
        """Warnings and errors of its log."""
        return [
            line
            for line in self._log.read_text(encoding="utf-8").splitlines()
            if line.startswith(("WARNING", "ERROR", "CRITICAL", "Traceback")) and not any(part in line for part in OWN)
        ]


OWN = (
    "aiohttp_fast_zlib: zlib_ng and isal are not available",
    "calls async_forward_entry_setups for integration mqtt",
    "homeassistant.helpers.entity: Updating state for",
    "homeassistant.components.recorder.util: The system could not validate that the sqlite3 database",
    "homeassistant.components.recorder.util: Ended unfinished session",
)
"""Complaints about itself: what is not installed, how its own integration is written, how slow the machine is."""


@contextlib.asynccontextmanager
async def running(directory: Path, port: int) -> AsyncIterator[Home]:
    """A Home Assistant with its configuration in `directory`, connected to the broker at `port`."""
    directory.mkdir(exist_ok=True)
    with (directory / "home-assistant.err").open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            str(PYTHON),
            str(HEADLESS),
            str(directory),
            str(port),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=1 << 26,
        )
    home = Home(process, directory / "home-assistant.log")
    try:
        assert await home._line() == "started"
        yield home
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 30)
        if process.returncode is None:
            process.kill()
            await process.wait()
