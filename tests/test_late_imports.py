"""What only a command, an option or a page needs is not imported by a running bridge, because it takes memory."""

import json
import subprocess
import sys
from pathlib import Path

LATE = (
    # Commands.
    "oneweb_bridge.demo",
    "oneweb_bridge.explore",
    "oneweb_bridge.simulator",
    "oneweb_bridge.cli.check",
    "oneweb_bridge.cli.history",
    "oneweb_bridge.cli.picture",
    "oneweb_bridge.cli.plot",
    "oneweb_bridge.cli.remote",
    "PIL",
    "plotille",
    # Pages of the console, and the documents of topics and API.
    "oneweb_bridge.contract",
    "jsonschema",
    "oneweb_bridge.web.bridge_metrics",
    "prometheus_client",
    # Outputs that are off by default.
    "google.protobuf",
    # Errors of the configuration.
    "difflib",
)
RUN = """
import asyncio, json, sys
from oneweb_bridge.cli import main
from oneweb_bridge import app
from oneweb_bridge.config.read import parse

async def run_until_it_serves(config):
    serving = asyncio.Event()
    bridge = asyncio.create_task(app.run(config, on_console=lambda _: serving.set()))
    await asyncio.wait({bridge, served := asyncio.create_task(serving.wait())}, return_when=asyncio.FIRST_COMPLETED)
    assert served.done(), bridge.exception()
    # Each task has begun.
    await asyncio.sleep(0)
    # Python 3.11 may forget that a task was cancelled.
    while not bridge.done():
        bridge.cancel()
        await asyncio.wait({bridge}, timeout=0.2)

text = f"state: {{path: {json.dumps(sys.argv[1])}}}\\nhttp: {{listen: 127.0.0.1:0}}\\n" + sys.argv[2]
asyncio.run(run_until_it_serves(parse(text, {})))
print(json.dumps(sorted(sys.modules)))
"""
NOWHERE = "{api: {base_url: 'http://127.0.0.1:1', client_id: a, client_secret: b}, mqtt: {host: 127.0.0.1, port: 1}}"


def modules_of_run(directory: Path) -> set[str]:
    """The modules of a bridge that runs, with an API and a broker that do not answer."""
    settings = NOWHERE.strip("{}").replace("}, ", "}\n") + "}\n"
    command = [sys.executable, "-c", RUN, str(directory / "bridge.db"), settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_running_bridge_imports_nothing_that_only_others_need(tmp_path: Path) -> None:
    """The memory of a bridge at rest has no commands, no pictures, no schemas and no metrics in it."""
    modules = modules_of_run(tmp_path)
    assert {"oneweb_bridge.app", "oneweb_bridge.web.console", "aiomqtt"} <= modules
    assert [name for name in LATE if name in modules] == []
