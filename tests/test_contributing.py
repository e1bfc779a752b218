"""CONTRIBUTING.md: its walk "Add a call of the API", followed with a made-up call, and the workflow that it names."""

import ast
import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from oneweb_bridge import __version__, app
from oneweb_bridge.config.read import load, parse
from oneweb_bridge.config.write import effective, yaml_text
from oneweb_bridge.contract import asyncapi
from oneweb_bridge.decode import catalogue
from oneweb_bridge.decode.catalogue import CALLS, Call
from oneweb_bridge.demo import demo
from tests import harness, listener
from tests.cancelling import end_tasks

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
CALL = "ut_dish_heading"
IMEI = "359235170006117"
DISCOVERY = f"homeassistant/device/oneweb_main_call_{CALL}/config"
ANSWER = [
    {
        "id": IMEI,
        "measurement": [
            {"timestamp": "2025-06-17T14:10:00Z", "performanceIndicator": [{"name": "heading", "value": 118.5}]}
        ],
    }
]


@pytest.fixture
def printed_call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """The row that CONTRIBUTING.md prints, as a part of the catalogue."""
    (printed,) = re.findall(r"^   ```python\n(.*?)^   ```$", PAGE, re.MULTILINE | re.DOTALL)
    ast.parse(f"({printed.strip()})")
    (row,) = eval(f"({printed.strip()})", vars(catalogue))
    monkeypatch.setitem(CALLS, CALL, row)
    assert isinstance(row, Call)
    return row


# ── the walk ───────────────────────────────────────────────────────────────────────────────────


async def test_new_call_is_polled_and_published(printed_call: Call, tmp_path: Path) -> None:
    """A row of the catalogue is enough: the call is polled, and its sample, state and discovery are published."""
    async with harness.world(tmp_path) as world, stub(printed_call.path) as url:
        world.config(api={"base_url": url}, polling={call: {"enabled": call == CALL} for call in CALLS})
        settings = load(tmp_path / "bridge.yaml", {})
        async with harness.recording(world.port, "oneweb/#", "homeassistant/#") as recorder:
            bridge = asyncio.create_task(app.run(settings), name="bridge")
            try:
                await recorder.until(lambda: recorder.retained.get(f"oneweb/terminal/{IMEI}/metric/dish_heading"))
                await recorder.until(lambda: state(recorder).get("status") == "ok")
                await recorder.until(lambda: DISCOVERY in recorder.retained)
            finally:
                await end_tasks(bridge)

    sample = recorder.retained[f"oneweb/terminal/{IMEI}/metric/dish_heading"]
    assert (sample["heading_deg"], sample["time"]) == (118.5, "2025-06-17T14:10:00.000Z")
    assert state(recorder)["samples"] == 1
    document = asyncapi.document(settings, __version__)
    assert listener.Judge(document).errors("DishHeading", sample) == []


def state(recorder: harness.Recorder) -> dict[str, Any]:
    """The newest published state of the new call."""
    state: dict[str, Any] = recorder.retained.get(f"oneweb/bridge/polling/{CALL}/state", {})
    return state


@asynccontextmanager
async def stub(path: str) -> AsyncIterator[str]:
    """An API that knows the sign-in check and the new report, and gives its address."""
    answers = {"/hello/v1/oneweb/world": {"message": "hello"}, path: ANSWER}

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(answers[request.path]) if request.path in answers else web.Response(status=404)

    server = web.Application()
    server.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def test_new_call_is_in_the_schema(printed_call: Call) -> None:
    """AsyncAPI has the new report, with the unit of its field, and the new call in the parameters of its topics."""
    document = asyncapi.document(parse("", {}), __version__)

    assert document["components"]["schemas"]["DishHeading"]["properties"]["heading_deg"]["x-unit"] == "deg"
    assert printed_call.report in document["channels"]["terminalMetric"]["parameters"]["report"]["enum"]
    assert CALL in document["channels"]["pollingState"]["parameters"]["call"]["enum"]


def test_new_call_is_in_the_configuration(printed_call: Call) -> None:
    """The configuration has the keys of the new call, reads them, and prints them with their defaults."""
    changed = parse(f"polling: {{{CALL}: {{interval: 20m, map: {{heading_deg: azimuth}}}}}}", {}).polling[CALL]
    printed = yaml.safe_load(yaml_text(effective(parse("", {}))))["polling"][CALL]

    assert (changed.interval, changed.fields[0].paths) == (1200.0, ("azimuth",))
    assert printed["path"] == printed_call.path
    assert list(printed["map"]) == ["heading_deg"]


def test_new_call_is_in_the_demo(printed_call: Call, tmp_path: Path) -> None:
    """The demo polls a call that it has no interval of its own for."""
    call = demo.configuration("http://127.0.0.1:1", 1883, tmp_path).polling[CALL]

    assert call.path == printed_call.path
    assert call.enabled
    assert call.interval <= 30.0


def test_walk_names_files_that_exist() -> None:
    """Every path in CONTRIBUTING.md that stands in code form, with a folder or an ending, is in the tree."""
    named = set(re.findall(r"`((?:tests|docs|deploy|mosquitto|bench|\.github)/[\w./-]*)`", PAGE))
    named |= set(re.findall(r"`([\w.]+\.(?:md|yaml|toml))`", PAGE)) - {"asyncapi.yaml"}

    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_commands_of_the_page_exist() -> None:
    """CONTRIBUTING.md names no make target that the Makefile does not have."""
    named = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(code(PAGE))))

    assert {"check", "test", "dist"} <= named
    assert named - targets() == set()


def code(text: str) -> list[str]:
    """The parts of a page that are code: in backquotes, and in blocks for a shell."""
    return [*re.findall(r"`(make [^`]+)`", text), *re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]


def targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


# ── the workflow ───────────────────────────────────────────────────────────────────────────────


def workflow() -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as true.
    document: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert set(document) == {"name", True, "permissions", "concurrency", "jobs"}
    return {str(name): value for name, value in document.items()}


def test_workflow_runs_the_three_commands() -> None:
    """The hosted CI runs `make check`, `make test` and `make test-console`, which people run too, and no other."""
    jobs = workflow()["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]

    assert commands == ["make check", "make test", "make test-console"]
    assert {command.removeprefix("make ") for command in commands} <= targets()


def test_workflow_tests_every_supported_python() -> None:
    """The matrix has the Pythons of the package's classifiers, and the check runs on the oldest of them."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    supported = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    jobs = workflow()["jobs"]

    assert jobs["test"]["strategy"]["matrix"]["python"] == supported == ["3.11", "3.12", "3.13", "3.14"]
    assert jobs["check"]["steps"][1]["with"]["python-version"] == supported[0]


def test_workflow_is_well_formed_and_has_no_rights() -> None:
    """Each job has a runner, a limit of time and only the right to read; each step is an action or a command."""
    document = workflow()

    assert document["permissions"] == {}
    for job in document["jobs"].values():
        assert set(job) <= {"runs-on", "timeout-minutes", "permissions", "strategy", "steps"}
        assert (job["permissions"], job["runs-on"]) == ({"contents": "read"}, "ubuntu-latest")
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            assert set(step) <= {"uses", "run", "with"}
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/x@v1"))
            for expression in re.findall(r"\$\{\{ (.*?) \}\}", str(step)):
                assert expression == "matrix.python"
