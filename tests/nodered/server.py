"""A real Node-RED: a process of its own in a directory of its own, and its admin API as the editor uses it.

`sh deploy/setup.sh nodered` installs it into `.node`. It listens on loopback alone, and is ended by its own process id.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

from oneweb_bridge.demo import mosquitto
from tests.cancelling import end_tasks

HOME = Path(__file__).parent.parent.parent / ".node"
TICKS = os.sysconf("SC_CLK_TCK")
Flow = list[dict[str, Any]]
"""What an export is: tabs, nodes and configurations in one list."""


class NotInstalled(Exception):
    """There is no Node-RED in the checkout; the text says what to do."""


class Usage:
    """What one process has used of the machine so far, as /proc says it."""

    def __init__(self, pid: int) -> None:
        self._place = Path(f"/proc/{pid}")

    @property
    def cpu(self) -> float:
        """CPU seconds of all its threads."""
        fields = (self._place / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def rss(self) -> float:
        """Resident memory in MiB."""
        return self._status("VmRSS")

    @property
    def peak(self) -> float:
        """The highest resident memory so far, in MiB."""
        return self._status("VmHWM")

    def _status(self, name: str) -> float:
        lines = (self._place / "status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


class NodeRed:
    """A running Node-RED. `heard` is what its debug nodes have said."""

    def __init__(self, pid: int, url: str, log: Path, http: aiohttp.ClientSession) -> None:
        self.pid = pid
        self.url = url
        self.notices: list[dict[str, Any]] = []
        self._log = log
        self._http = http

    async def deploy(self, nodes: Flow) -> None:
        """Replaces everything by `nodes`, as the editor's button does."""
        headers = {"Node-RED-Deployment-Type": "full"}
        async with self._http.post(f"{self.url}/flows", json=nodes, headers=headers) as answer:
            answer.raise_for_status()

    async def press(self, inject: str) -> None:
        """Presses the button of an inject node."""
        async with self._http.post(f"{self.url}/inject/{inject}") as answer:
            answer.raise_for_status()

    async def types(self) -> dict[str, str]:
        """Each type of node that is installed, and the module that it comes from."""
        async with self._http.get(f"{self.url}/nodes", headers={"Accept": "application/json"}) as answer:
            return {name: each["module"] for each in await answer.json() for name in each["types"]}

    async def page(self, path: str) -> str:
        """A page that a flow serves; nothing before the flow has started."""
        async with self._http.get(f"{self.url}{path}") as answer:
            if answer.status == HTTPStatus.NOT_FOUND:
                return ""
            answer.raise_for_status()
            return await answer.text()

    async def until(self, true: Callable[[str], Any], path: str, patience: float = 60.0) -> str:
        """Asks for a page until it says what is wanted, and returns it."""
        text = ""
        try:
            async with asyncio.timeout(patience):
                while not true(text := await self.page(path)):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{path} did not come to say it in {patience} s: {text:.3000}") from None
        return text

    async def until_notice(self, true: Callable[[dict[str, Any]], Any], patience: float = 60.0) -> dict[str, Any]:
        """Waits until a debug node has said what is wanted, and returns it."""
        try:
            async with asyncio.timeout(patience):
                while not (matching := [notice for notice in self.notices if true(notice)]):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not heard in {patience} s; last: {self.notices[-3:]!r:.2000}") from None
        return matching[0]

    def text(self) -> str:
        """Its log so far."""
        return self._log.read_text()

    async def listen(self) -> None:
        """Notes what debug nodes say, as the editor's sidebar shows it. Returns when Node-RED is gone."""
        async with self._http.ws_connect(f"{self.url}/comms") as socket:
            await socket.send_json({"subscribe": "debug"})
            async for message in socket:
                packets = json.loads(message.data)
                each = packets if isinstance(packets, list) else [packets]
                # Warnings of Node-RED itself come the same way, and are of no node.
                self.notices += [
                    packet["data"] for packet in each if packet.get("topic") == "debug" and "name" in packet["data"]
                ]


def settings(port: int) -> dict[str, Any]:
    """Settings as after an installation, but for the address, and that nothing is looked up elsewhere."""
    return {
        "uiHost": "127.0.0.1",
        "uiPort": port,
        "flowFile": "flows.json",
        "telemetry": {"enabled": False, "updateNotification": False},
        "externalModules": {"autoInstall": False, "palette": {"allowInstall": False}},
        "mqttReconnectTime": 1000,
        "logging": {"console": {"level": "info", "metrics": False, "audit": False}},
    }


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[NodeRed]:
    """A Node-RED without flows, until the end of the block. Raises NotInstalled."""
    program = HOME / "node_modules/node-red/red.js"
    if not program.exists():
        raise NotInstalled("Node-RED is not installed: sh deploy/setup.sh nodered")
    directory.mkdir(parents=True, exist_ok=True)
    port = mosquitto.free_port()
    (directory / "settings.js").write_text(f"module.exports = {json.dumps(settings(port), indent=2)}\n")
    arguments = (str(program), "--userDir", str(directory), "--settings", str(directory / "settings.js"))
    log = directory / "node-red.log"
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(str(HOME / "node"), *arguments, stdout=out, stderr=out)
    try:
        async with aiohttp.ClientSession() as http:
            started = NodeRed(process.pid, f"http://127.0.0.1:{port}", log, http)
            await _reachable(process, started)
            listener = asyncio.create_task(started.listen(), name="comms")
            try:
                yield started
            finally:
                await end_tasks(listener)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _reachable(process: asyncio.subprocess.Process, started: NodeRed, patience: float = 60.0) -> None:
    deadline = asyncio.get_running_loop().time() + patience
    while process.returncode is None and asyncio.get_running_loop().time() < deadline:
        with contextlib.suppress(aiohttp.ClientError):
            await started.types()
            return
        await asyncio.sleep(0.1)
    raise NotInstalled(f"Node-RED did not start: {started.text()[-2000:]}")
