"""What the layers in pyproject.toml do not say: which modules are pure, and who owns which library.

Imports inside functions and those for types alone count as well.
"""

import ast
import functools
import re
import statistics
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import oneweb_bridge

ROOT = Path(oneweb_bridge.__file__).parent

PURE = frozenset(
    [
        "model.*",
        "decode.*",
        "contract.*",
        "sparkplug.tree",
        "sparkplug.payload",
        "sparkplug.sparkplug_b_pb2",
        "sparkplug.fleet",
        "sparkplug.content",
        "sparkplug.edge_node",
        "sparkplug.host",
        "sparkplug.writes",
        "sparkplug.placement",
        "sparkplug.api_watch",
        "sparkplug.node_metrics",
        "config.units",
        "config.schema",
        "config.servers",
        "store.postgres_text",
        "store.server",
        "store.view_dialects",
        "store.lease_rules",
        "store.views",
        "config.rules",
        "config.credentials",
        "config.masks",
        "config.filters",
        "api.headers",
        "api.rate_limits",
        "api.paging",
        "api.listing",
        "polling.diff",
        "polling.samples",
        "polling.answer_watch",
        "polling.removal",
        "polling.vanishing",
        "polling.relations",
        "polling.schedule",
        "polling.time_windows",
        "polling.alerts",
        "mqtt.window",
        "mqtt.packets",
        "mqtt.suspects",
        "mqtt.lane",
        "mqtt.lanes",
        "mqtt.behind_head",
        "mqtt.fence",
        "mqtt.topics",
        "trends.forecast",
        "trends.usage_days",
        "trends.allowances",
        "trends.announcing",
        "homeassistant.discovery",
        "homeassistant.entities",
        "commands.decode",
        "web.access",
        "web.advice",
        "web.assets",
        "web.gate",
        "web.live_messages",
        "web.payloads",
        "web.sessions",
        "web.tree",
        "encoding",
        "trends.bins",
        "trends.chunks",
        "trends.indicators",
        "trends.series",
    ]
)
"""Modules that decide: no I/O, no clock, no chance, and nothing imported but one another."""

LIBRARIES = {
    "aiohttp": {
        "api.client",
        "web.answers",
        "web.command_routes",
        "web.connections",
        "web.console",
        "web.data",
        "web.health",
        "web.series_routes",
        "web.server",
        "web.standby",
        "web.streaming",
    },
    "aiomqtt": {
        "mqtt.link",
        "mqtt.session",
        "mqtt.publisher",
        "mqtt.purge",
        "mqtt.broker_errors",
        "mqtt.probing",
        "mqtt.sender",
        "mqtt.look",
        "mqtt.handshake",
        "cli.remote",
        "cli.check",
        "cli.locate",
        "sparkplug.births",
        "sparkplug.node",
        "sparkplug.session",
        "sparkplug.wire",
    },
    "paho": {"mqtt.link", "mqtt.paho_io", "mqtt.broker_errors"},
    "aiosqlite": {
        "store.database",
        "store.sqlite",
    },
    "psycopg": {
        "store.holders",
        "store.lease",
        "store.moving_server",
        "store.postgres",
        "store.postgres_schema",
        "store.postgres_thread",
        "store.postgres_views",
        "store.server_check",
    },
    "sqlite3": {
        "store.backup",
        "store.database",
        "store.errors",
        "store.moving_files",
        "store.sqlite",
        "trends.file",
    },
    "yaml": {"config.read", "config.write", "config.yaml_errors", "explore.report"},
    "ruamel": {"explore.writing"},
    "google": {"sparkplug.payload", "sparkplug.sparkplug_b_pb2"},
    "stamina": {"api.client"},
    "plotille": {"cli.plot"},
    "PIL": {"cli.picture"},
}
"""Library -> the modules that may import it: one owner for each resource."""

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
MAX_TOP_MODULES = 8
MAX_FILE_LINES = 450
MAX_CLASS_METHODS, MAX_CLASS_LINES = 25, 300
MAX_MEDIAN_FUNCTION_LINES, MAX_FUNCTION_LINES = 10, 60

RETIRED = frozenset(
    (
        *("again", "anew", "asked", "ear", "errand", "familiar", "found", "glance", "heard", "hearing", "heir"),
        *("hurry", "judged", "judging", "letters", "loose", "odd", "one", "poked", "reshaped", "said", "settled"),
        *("slip", "slips", "told", "verdict", "wish", "wishes", "wreckage"),
    )
)
"""Words that may name nothing: pictures and riddles, or words that stood for several things. See CONTRIBUTING.md."""
DATA_NAMES = {("model.status", "found")}
"""Where such a word is data: members of published payloads."""


def name_of(path: Path) -> str:
    """A module's name below the package; of a package's `__init__.py` the package's."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"}
"""All modules and packages by their names below the package."""
OWN = {name: path for name, path in MODULES.items() if not name.startswith("simulator")}
"""Those of the bridge itself: the simulator stands apart."""


MAKES_CODE = "decode.path_reader"
"""The one module that executes source: lines that it has written itself, with texts by their `repr` alone."""


def is_pure(name: str) -> bool:
    """Whether a module is among those that decide."""
    return name in PURE or f"{name.rpartition('.')[0]}.*" in PURE or f"{name}.*" in PURE


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[str]:
    """Every module and name that a file imports, in full; relative imports are made absolute."""
    package = ["oneweb_bridge", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, by their names below it."""
    modules = set()
    for name in imports(path):
        first, _, rest = name.partition(".")
        while first == "oneweb_bridge" and rest and rest not in MODULES:
            rest = rest.rpartition(".")[0]
        if first == "oneweb_bridge" and rest:
            modules.add(rest)
    return modules


def libraries(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


IMPORTS = {name: own_imports(path) for name, path in MODULES.items()}


def reached(module: str) -> set[str]:
    """Everything that comes along when a module is imported."""
    modules: set[str] = set()
    left = [module]
    while left:
        for name in IMPORTS[left.pop()] - modules:
            modules.add(name)
            left.append(name)
    return modules


def test_newcomer_sees_few_modules_at_the_top() -> None:
    """The top of the package is the list of packages, and a handful of modules that all of them use."""
    assert len(list(ROOT.glob("*.py"))) <= MAX_TOP_MODULES


def definitions(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of everything that a file names: functions, classes, arguments, variables, attributes, aliases."""
    for node in ast.walk(tree_of(path)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield node.lineno, name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from ((node.lineno, alias.asname) for alias in aliases if alias.asname)


def retired_names(path: Path, module: str) -> list[str]:
    """The retired words that name something in a file, each as line and name."""
    return [
        f"{module}:{line} {name}"
        for line, name in definitions(path)
        if name.strip("_").casefold() in RETIRED and (module, name) not in DATA_NAMES
    ]


@pytest.mark.parametrize("package", sorted({name.partition(".")[0] for name in MODULES}))
def test_retired_words_name_nothing(package: str) -> None:
    """Names say what a thing is in the words of the field; those that were riddles do not come back."""
    modules = {name: path for name, path in MODULES.items() if name.partition(".")[0] == package}
    assert [name for module, path in modules.items() for name in retired_names(path, module)] == []


@pytest.mark.parametrize("directory", ["tests", "bench", "deploy"])
def test_retired_words_name_nothing_beside_the_package(directory: str) -> None:
    """The same holds for tests, measurements and deployment."""
    paths = {str(path.relative_to(ROOT.parent)): path for path in sorted((ROOT.parent / directory).rglob("*.py"))}
    assert paths
    assert [line for name, path in paths.items() for line in retired_names(path, name)] == []


def test_modules_are_not_called_by_retired_words() -> None:
    """Also no module and no package has such a name."""
    assert {name for name in MODULES if RETIRED & set(name.split("."))} == set()


def test_files_are_short() -> None:
    """A file can be read in one go."""
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def is_large(node: ast.ClassDef) -> bool:
    """Whether a class has more methods or lines than one should have, without giving a reason."""
    methods = sum(isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)) for part in node.body)
    lines = (node.end_lineno or 0) - node.lineno + 1
    has_reason = "Large because" in (ast.get_docstring(node) or "")
    return not has_reason and (methods > MAX_CLASS_METHODS or lines > MAX_CLASS_LINES)


def test_classes_are_small_or_say_why_not() -> None:
    """A class is one idea: a large one says why with "Large because" in its docstring."""
    large = {
        f"{name}.{node.name}"
        for name, path in MODULES.items()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and is_large(node)
    }
    assert large == set()


def test_functions_are_short() -> None:
    """Ten lines are usual, sixty the limit."""
    lengths = {
        f"{name}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, path in MODULES.items()
        for node in ast.walk(tree_of(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert statistics.median(lengths.values()) <= MAX_MEDIAN_FUNCTION_LINES
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


MODULE_OF_PAGE = re.compile(r"`(?:oneweb_bridge/)?((?:[a-z_]+/)*[a-z_]+)(?:\.py|/)`")
LAYERS_OF_PAGE = re.compile(r"^cli > .*$", re.MULTILINE)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_page_names_modules_that_exist(page: str) -> None:
    """Every package, file and layer of the bridge that a page for developers names is there."""
    text = (ROOT.parent / page).read_text(encoding="utf-8")
    outside = {"dist", "oneweb", "__init__", *(path.name for path in ROOT.parent.iterdir())}
    names = {name for name in MODULE_OF_PAGE.findall(text) if name.partition("/")[0] not in outside}
    layers = {name for line in LAYERS_OF_PAGE.findall(text) for name in re.findall(r"[a-z_]+", line)}

    assert {name for name in names if name.replace("/", ".") not in MODULES} == set()
    assert {name for name in layers if name not in MODULES} == set()


def test_every_package_has_its_layer() -> None:
    """Each package and top module stands in the layers, which `make check` holds, exactly once."""
    contracts = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = [name.strip() for layer in contracts[0]["layers"] for name in layer.split("|")]
    top = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}

    assert sorted(named) == sorted(top | {path.parent.name for path in ROOT.glob("*/__init__.py")})


def test_pages_for_developers_name_every_package() -> None:
    """The layers in docs/architecture.md are those that are held, and CONTRIBUTING.md says what each package has."""
    contracts = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = " > ".join(layer for layer in contracts[0]["layers"] if layer != "simulator")
    rows = re.findall(r"^\| `(\w+)/` \|", (ROOT.parent / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}

    assert LAYERS_OF_PAGE.findall((ROOT.parent / "docs/architecture.md").read_text(encoding="utf-8")) == [layers]
    assert packages - set(rows) == set()


def test_pure_modules_are_there() -> None:
    """The list of pure modules names none that is gone."""
    assert {name for name in PURE if name.removesuffix(".*") not in MODULES} == set()


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_package_says_what_it_promises(path: Path) -> None:
    """Each package begins with what it promises and what it may know."""
    assert len((ast.get_docstring(tree_of(path)) or "").split()) > 10


def test_imports_have_no_circle() -> None:
    """The arrow has one direction: no module comes along with itself."""
    assert [module for module in OWN if module in reached(module)] == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_library_has_its_owners_alone(library: str) -> None:
    """HTTP, MQTT, SQLite and YAML are known to their owners and to nobody else."""
    assert LIBRARIES[library] == {name for name, path in OWN.items() if library in libraries(path)}


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        ("store.store", "mqtt polling api commands"),
        ("store.journal", "mqtt polling api store.store"),
        ("mqtt.publisher", "polling api store.store commands"),
        ("mqtt.session", "polling api store.store commands mqtt.publisher"),
        ("polling.poller", "mqtt store.journal commands"),
        ("polling.poll_runner", "mqtt store.journal polling.poller"),
        ("api.client", "store mqtt polling decode.pages"),
        ("store.housekeeping", "mqtt polling store.store trends"),
        ("trends.fold", "mqtt polling api store.store"),
        ("trends.items", "mqtt polling api store.store"),
    ],
)
def test_nobody_calls_against_the_arrow(module: str, strangers: str) -> None:
    """The store knows no publisher, the publisher no poller, the poller no MQTT: not even by way of another module."""
    for stranger in strangers.split():
        known = {name for name in reached(module) if name == stranger or name.startswith(f"{stranger}.")}
        assert known == set(), stranger


PURE_MODULES = sorted(name for name in OWN if is_pure(name) and OWN[name].name != "__init__.py")


@pytest.mark.parametrize("module", PURE_MODULES)
def test_pure_module_imports_only_pure_ones(module: str) -> None:
    """What decides depends on what decides, and on nothing that touches the world."""
    assert {name for name in IMPORTS[module] if not is_pure(name)} == set()


@pytest.mark.parametrize("module", PURE_MODULES)
def test_pure_module_has_neither_clock_nor_chance_nor_world(module: str) -> None:
    """In a module that decides nothing waits, nothing logs, and time and chance are arguments."""
    path = MODULES[module]
    assert libraries(path) & FORBIDDEN == set()
    assert libraries(path) - {"oneweb_bridge", "msgspec", "google"} <= set(sys.stdlib_module_names)
    for node in ast.walk(tree_of(path)):
        assert not isinstance(node, (ast.AsyncFunctionDef, ast.AsyncWith, ast.AsyncFor, ast.Await)), node.lineno
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("now", "utcnow", "today") or not _is_clock(node), node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            may_execute = module == MAKES_CODE and node.func.id == "exec"
            assert may_execute or node.func.id not in ("open", "print", "input", "exec", "eval"), node.lineno


def _is_clock(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("datetime", "date", "time")


def test_simulator_is_imported_by_the_demo_and_the_command_alone() -> None:
    """The bridge does not know that there is a simulator."""
    users = {name for name in OWN if any(i.split(".")[0] == "simulator" for i in IMPORTS[name])}
    assert users == {"cli.main", "cli.simulator_options", "demo.demo", "demo.past"}
    assert not any(name.startswith("simulator") for name in reached("app"))


def test_exploring_is_asked_for_by_the_command_alone() -> None:
    """The running bridge needs nothing of `explore`."""
    users = {name for name in OWN if any(i.split(".")[0] == "explore" for i in IMPORTS[name])}
    assert {name for name in users if not name.startswith("explore")} == {"cli.exploring"}


def test_nobody_waits_in_a_way_that_loses_a_cancellation() -> None:
    """A cancellation that comes with the result is forgotten by Python 3.11's `wait_for`, not by `timeout`."""
    for path in ROOT.rglob("*.py"):
        names = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
        assert "wait_for" not in names, path


def test_bridge_does_not_import_its_tests() -> None:
    """Nothing of the package needs the tests or the benchmarks, so that the wheel runs alone."""
    for path in ROOT.rglob("*.py"):
        assert libraries(path) & {"tests", "bench", "pytest", "hypothesis", "aioresponses"} == set(), path
