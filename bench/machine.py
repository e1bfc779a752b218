"""What the figures were measured on."""

import os
import platform
import shutil
import sqlite3
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from oneweb_bridge.demo import mosquitto as broker
from tests.nodered.server import HOME

PACKAGES = ("aiohttp", "aiomqtt", "aiosqlite", "msgspec", "paho-mqtt")


class Machine(msgspec.Struct, frozen=True):
    """The hardware and the versions; a text that is empty stands for what is not installed."""

    cpu: str
    cores: int
    memory: str
    kernel: str
    python: str
    sqlite: str
    packages: dict[str, str]
    mosquitto: str
    node_js: str
    node_red: str
    chromium: str


def machine() -> Machine:
    """The one that this runs on."""
    return Machine(
        cpu=_line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        cores=os.cpu_count() or 0,
        memory=_gib(_line("/proc/meminfo", "MemTotal")),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        packages={name: version for name in PACKAGES if (version := _version(name))},
        mosquitto=_output_of(broker.find_mosquitto(), "-h").partition("\n")[0].removeprefix("mosquitto version "),
        node_js=_output_of(str(HOME / "node"), "--version").strip().removeprefix("v"),
        node_red=_node_red(),
        chromium=_output_of(shutil.which("chromium"), "--version").strip().removeprefix("Chromium ").partition(" ")[0],
    )


def words(machine: Machine) -> str:
    """The machine in a sentence."""
    packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
    return (
        f"{machine.cpu}, {machine.cores} cores, {machine.memory} of memory, {machine.kernel}; Python {machine.python}, "
        f"SQLite {machine.sqlite}, {packages}; mosquitto {machine.mosquitto or 'not installed'}, Node.js "
        f"{machine.node_js or 'not installed'}, Node-RED {machine.node_red or 'not installed'}, "
        f"Chromium {machine.chromium or 'not installed'}"
    )


def _line(path: str, name: str) -> str:
    """The value of a line such as `name : value`, where the system has such a file."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _gib(line: str) -> str:
    return f"{int(line.split(maxsplit=1)[0]) / 2**20:.0f} GiB" if line else "?"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _output_of(program: str | None, option: str) -> str:
    """What a program says of itself. Its exit code means nothing: mosquitto's help ends with 3."""
    if not program or not os.access(program, os.X_OK):
        return ""
    return subprocess.run([program, option], capture_output=True, text=True, timeout=20, check=False).stdout


def _node_red() -> str:
    package = HOME / "node_modules/node-red/package.json"
    return str(msgspec.json.decode(package.read_bytes())["version"]) if package.exists() else ""
