"""The import table: who may import whom, so that the arrow of the architecture cannot rot.

A new module, or a new import, is a line here: look at the picture in docs/architecture.md before
adding one. Imports inside functions and those for types alone count as well.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import oneweb_bridge

ROOT = Path(oneweb_bridge.__file__).parent

PURE = {
    "model": "",
    "encoding": "",
    "value_types": "model",
    "catalogue": "",
    "paths": "",
    "headers": "",
    "sizes": "",
    "limits": "headers settings",
    "bounds": "",
    "repeated_hour": "",
    "schedule": "",
    "values": "encoding model",
    "units": "values",
    "window": "model",
    "packets": "model",
    "suspects": "",
    "diff": "encoding model values",
    "samples": "encoding model value_types values",
    "relations": "diff encoding model",
    "heads": "model",
    "topics": "encoding model",
    "entities": "",
    "discovery": "catalogue encoding entities model topics",
    "wire": "catalogue model paths repeated_hour sizes units values",
    "glance": "catalogue paths values wire",
    "listing": "bounds model wire",
    "paging": "catalogue headers",
    "settings": "catalogue units",
    "masks": "settings",
    "removal": "settings",
    "vanishing": "diff model removal settings",
    "filters": "model settings",
    "commands": "catalogue settings topics values",
    "payloads": "model",
    "schemas": "catalogue payloads values wire",
    "asyncapi": "catalogue commands discovery encoding payloads samples schemas settings topics wire",
}
"""Modules that decide: no world, no clock, no chance, and nothing imported but one another."""

WORLD = {
    "config": "catalogue files paths settings",
    "logs": "masks repeats settings",
    "repeats": "",
    "turns": "",
    "clock": "",
    "notify": "",
    "broker": "",
    "api": "__init__ bounds clock headers limits masks settings tls turns",
    "fetch": "api catalogue glance headers listing paging sizes wire",
    "files": "",
    "tls": "files",
    "database": "clock files",
    "staging": "database",
    "store": "clock database model staging value_types",
    "journal": "clock database heads model",
    "backup": "database files",
    "housekeeping": "database model settings",
    "devices": "database model store",
    "announcer": "__init__ devices discovery filters model settings topics",
    "intake": (
        "api bounds catalogue clock config diff encoding fetch filters glance listing model relations removal "
        "repeated_hour samples store values vanishing wire"
    ),
    "poller": "api clock config encoding intake model payloads schedule settings store turns",
    "connections": "",
    "health": "connections encoding payloads poller",
    "link": "model packets settings tls",
    "restoring": "journal model topics",
    "refusals": "journal model restoring suspects topics window",
    "session": (
        "catalogue clock encoding heads journal link model packets payloads refusals restoring settings suspects "
        "topics window"
    ),
    "purge": "clock encoding heads journal link model payloads settings topics",
    "publisher": "encoding journal link model payloads purge session settings suspects topics",
    "executor": "clock commands encoding model payloads poller publisher session store topics",
    "console": "encoding journal model topics",
    "past": "clock commands encoding journal model",
    "remote": "catalogue config link model settings topics",
    "checking": "api clock config database encoding heads journal link masks model payloads topics",
}
"""Modules that touch the world, one resource each, and those that put the decisions to work."""

EXPLORE = {
    "evidence": "catalogue",
    "__init__": "api catalogue config explore headers masks sizes",
    "pages": "catalogue",
    "report": "",
    "spans": "catalogue encoding",
    "findings": "catalogue config glance model wire",
    "judge_components": "catalogue paths",
    "judge_records": "catalogue paths",
    "judge_reports": "catalogue paths",
    "judge_usage": "catalogue paths",
    "guesses": "units values",
    "judging": "catalogue config paths values",
    "redaction": "catalogue",
    "zones": "values",
}
"""What `explore` is made of, and what of the bridge each part may import. Only the command line needs it."""

ASSEMBLY = {
    "__init__": "",
    "__main__": "cli",
    "app": (
        "__init__ announcer api clock config devices encoding executor health housekeeping intake journal "
        "masks model notify payloads poller publisher session store topics"
    ),
    "healthcheck": "config",
    "demo": "app broker catalogue config console journal model settings simulator",
    "cli": (
        "__init__ app asyncapi backup catalogue checking commands config database demo explore files logs masks past "
        "remote settings simulator"
    ),
}

MAY_IMPORT = {module: frozenset(names.split()) for module, names in (PURE | WORLD | ASSEMBLY).items()}

LIBRARIES = {
    "aiohttp": {"api", "connections", "health"},
    "aiomqtt": {"link", "session", "publisher", "purge", "executor", "remote", "checking"},
    "paho": {"link"},
    "aiosqlite": {"database", "store", "staging", "journal", "housekeeping", "devices"},
    # Only `database` does something with it; the others name its errors.
    "sqlite3": {
        "announcer",
        "backup",
        "cli",
        "database",
        "executor",
        "health",
        "housekeeping",
        "poller",
        "publisher",
        "session",
        "store",
    },
    "yaml": {"config"},
    "stamina": {"api"},
}
"""Library -> the modules that may import it: one owner for each resource (the poller, for an error's class alone)."""

FORBIDDEN = {
    "asyncio",
    "logging",
    "os",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
    "time",
}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path, package: str) -> Iterator[str]:
    """Every module that a file names, in full; relative imports are made absolute."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def own(path: Path) -> set[str]:
    """The modules of the package that one of its modules imports; a name of the package itself is `__init__`."""
    found = set()
    for name in imports(path, "oneweb_bridge"):
        first, _, rest = name.partition(".")
        if first == "oneweb_bridge":
            module = rest.split(".")[0]
            found.add(module if module in {*MODULES, "simulator", "explore"} else "__init__")
    return found


def libraries(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path, "oneweb_bridge")}


MODULES = sorted(path.stem for path in ROOT.glob("*.py"))


def reached(module: str) -> set[str]:
    """Everything that comes along when a module is imported."""
    found: set[str] = set()
    left = [module]
    while left:
        for name in MAY_IMPORT.get(left.pop(), ()):
            if name not in found:
                found.add(name)
                left.append(name)
    return found


def test_table_names_every_module() -> None:
    """A module that is not in the table, or a line for one that is gone, fails."""
    assert sorted(MAY_IMPORT) == MODULES
    assert len(MAY_IMPORT) == len(PURE) + len(WORLD) + len(ASSEMBLY)


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_exactly_what_the_table_says(module: str) -> None:
    """The imports in the source are those of the table, no more and no fewer."""
    assert set(MAY_IMPORT.get(module, ())) == own(ROOT / f"{module}.py")


@pytest.mark.parametrize("part", sorted(path.stem for path in (ROOT / "explore").glob("*.py")))
def test_part_of_explore_imports_what_the_table_says(part: str) -> None:
    """A part of explore takes from the bridge what the table says, no more and no fewer."""
    assert set(EXPLORE.get(part, "").split()) - {"explore"} == own(ROOT / "explore" / f"{part}.py") - {"explore"}


def test_imports_have_no_circle() -> None:
    """The arrow has one direction: no module comes along with itself."""
    assert [module for module in MAY_IMPORT if module in reached(module)] == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_library_has_its_owners_alone(library: str) -> None:
    """HTTP, MQTT, SQLite and YAML are known to their owners and to nobody else."""
    assert LIBRARIES[library] == {module for module in MODULES if library in libraries(ROOT / f"{module}.py")}


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        ("store", "publisher session link poller intake api topics executor"),
        ("journal", "publisher session link poller intake api store"),
        ("publisher", "poller intake api store executor"),
        ("session", "poller intake api store executor publisher"),
        ("poller", "publisher session link topics journal executor window"),
        ("intake", "publisher session link topics journal poller"),
        ("api", "store journal publisher link poller wire"),
        ("housekeeping", "publisher session link poller store"),
    ],
)
def test_nobody_calls_against_the_arrow(module: str, strangers: str) -> None:
    """The store knows no publisher, the publisher no poller, the poller no MQTT: not even by way of another module."""
    assert reached(module) & set(strangers.split()) == set()


@pytest.mark.parametrize("module", PURE)
def test_pure_module_imports_only_pure_ones(module: str) -> None:
    """What decides depends on what decides, and on nothing that touches the world."""
    assert MAY_IMPORT[module] <= set(PURE)


@pytest.mark.parametrize("module", PURE)
def test_pure_module_has_neither_clock_nor_chance_nor_world(module: str) -> None:
    """In a module that decides nothing waits, nothing logs, and time and chance are arguments."""
    path = ROOT / f"{module}.py"
    assert libraries(path) & FORBIDDEN == set()
    assert libraries(path) - {"oneweb_bridge", "msgspec"} <= set(sys.stdlib_module_names)
    for node in ast.walk(tree_of(path)):
        assert not isinstance(node, (ast.AsyncFunctionDef, ast.AsyncWith, ast.AsyncFor, ast.Await)), node.lineno
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("now", "utcnow", "today") or not _is_clock(node), node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("open", "print", "input", "exec", "eval"), node.lineno


def _is_clock(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("datetime", "date", "time")


@pytest.mark.parametrize("path", sorted((ROOT / "simulator").glob("*.py")), ids=lambda path: path.stem)
def test_simulator_imports_nothing_of_the_bridge(path: Path) -> None:
    """The simulated API shares no code with the bridge, so that it can disagree with it."""
    named = {name for name in imports(path, "oneweb_bridge.simulator") if name.split(".")[0] == "oneweb_bridge"}
    assert {name for name in named if not name.startswith("oneweb_bridge.simulator")} == set()


def test_simulator_is_imported_by_the_demo_and_the_command_alone() -> None:
    """The bridge does not know that there is a simulator."""
    assert {module for module in MODULES if "simulator" in own(ROOT / f"{module}.py")} == {"cli", "demo"}
    assert "simulator" not in reached("app")


def test_exploring_is_asked_for_by_the_command_alone() -> None:
    """The running bridge needs nothing of `explore`."""
    assert {module for module in MODULES if "explore" in own(ROOT / f"{module}.py")} == {"cli"}


def test_nobody_waits_in_a_way_that_loses_a_cancellation() -> None:
    """A cancellation that comes with the result is forgotten by Python 3.11's `wait_for`, not by `timeout`."""
    for path in ROOT.rglob("*.py"):
        names = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
        assert "wait_for" not in names, path


def test_bridge_does_not_import_its_tests() -> None:
    """Nothing of the package needs the tests or the benchmarks, so that the wheel runs alone."""
    for path in ROOT.rglob("*.py"):
        assert libraries(path) & {"tests", "bench", "pytest", "hypothesis", "aioresponses"} == set(), path
