"""The OpenAPI document: valid, complete, and what the console really answers."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import jsonschema
import pytest
import yaml

from oneweb_bridge import __version__
from oneweb_bridge.clock import SYSTEM
from oneweb_bridge.config.read import parse
from oneweb_bridge.contract import openapi
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.web import assembly
from oneweb_bridge.web.access import is_data, rules_of
from oneweb_bridge.web.command_routes import CommandQueue
from oneweb_bridge.web.console import Console
from oneweb_bridge.web.data import Sources
from tests import harness
from tests.campaign import is_at_rest
from tests.consoles import COMMAND

ROOT = Path(__file__).parent.parent
DOCUMENT = openapi.document(parse("", {}), __version__)


def routes() -> set[tuple[str, str]]:
    """Method and path of every route that the console serves below /api/v1, and of the fleet's metrics."""
    console = Console(rules_of(parse("", {})), SYSTEM, __version__, "main")
    nothing: Any = SimpleNamespace(queries=None, tree=None, place=None, trends=None)
    assembly.add_reading(console, cast("Sources", nothing), cast("Any", None))
    assembly.add_commands(console, cast("CommandQueue", nothing))
    plain = ((route.method.lower(), re.sub(r"{[^}]*}", "{}", route.path)) for route in console.routes())
    return {(method, path) for method, path in plain if is_data(path)}


def documented() -> set[tuple[str, str]]:
    return {
        (method, re.sub(r"{[^}]*}", "{}", path)) for path, methods in DOCUMENT["paths"].items() for method in methods
    }


def test_every_route_is_described_and_no_other() -> None:
    """The document has each route that is served, and docs/console.md has a row for each."""
    assert documented() == routes()
    text = (ROOT / "docs/console.md").read_text()
    rows = set(re.findall(r"^\| `(GET|POST|DELETE) (/[^`]*)`", text, re.MULTILINE))
    plain = {(method.lower(), re.sub(r"{[^}]*}", "{}", path)) for method, path in rows}
    requests = {("post", "/api/v1/requests/{}")} & plain
    expected = {(m, "/api/v1/requests/{}" if "/requests/" in path else path) for m, path in routes()}
    assert requests
    assert expected - plain == set()


def test_document_is_valid_by_the_official_schema() -> None:
    """The schema of OpenAPI 3.1 has nothing against the document, its own schemas are sound, and references resolve."""
    official = json.loads((ROOT / "tests/openapi/3.1.json").read_text())
    assert [error.message[:300] for error in jsonschema.Draft202012Validator(official).iter_errors(DOCUMENT)] == []
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(DOCUMENT)))
    assert names == set(DOCUMENT["components"]["schemas"]) - unused()


def unused() -> set[str]:
    return set(DOCUMENT["components"]["schemas"]) - set(re.findall(r"#/components/schemas/(\w+)", json.dumps(DOCUMENT)))


def test_every_schema_is_used() -> None:
    """No schema is left of something that is gone."""
    assert unused() == set()


async def test_command_prints_the_document(tmp_path: Path) -> None:
    """`oneweb-bridge openapi` prints it as YAML."""
    code, out, _ = await harness.command("openapi", cwd=tmp_path)
    assert code == 0
    assert yaml.safe_load(out) == DOCUMENT


@pytest.fixture
async def api(world: harness.World) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    http = mosquitto.free_port()
    async with (
        harness.recording(world.port) as recorder,
        harness.running(world.config(http={"listen": f"127.0.0.1:{http}"})),
        aiohttp.ClientSession(headers=COMMAND) as session,
    ):
        await recorder.until(lambda: is_at_rest(recorder))
        yield session, f"http://127.0.0.1:{http}"


async def test_answers_are_as_described(api: tuple[aiohttp.ClientSession, str]) -> None:
    """Each JSON answer of a running bridge fits the schema of the document that this bridge serves."""
    session, url = api
    async with session.get(f"{url}/api/v1/openapi.json") as answer:
        document = await answer.json()
    assert document["paths"].keys() == DOCUMENT["paths"].keys()
    async with session.get(f"{url}/api/v1/fleet") as answer:
        fleet = await answer.json()
    columns = fleet["columns"]
    row = dict(zip(columns, next(r for r in fleet["rows"] if r[columns.index("bucket_id")]), strict=True))
    ids = {
        "imei": row["imei"],
        "product_id": row["product_id"],
        "organization_id": row["end_customer_id"],
        "site_id": row["site_id"],
        "call": "sites",
    }
    tried = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            schema = operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema")
            if schema is None or path.endswith(("openapi.json", "purge")) or method == "delete":
                continue
            query = f"?entity=terminal&id={row['imei']}&report=signal_quality&since=9d" if "series" in path else ""
            body = {"set": {"enabled": True}, "session": {"token": "x"}}.get(path.rpartition("/")[2], {})
            async with (
                asyncio.timeout(30),
                session.request(
                    method, url + path.format(**ids) + query, json=body if method == "post" else None
                ) as answer,
            ):
                content = await answer.json()
            expected = operation["responses"][str(answer.status)]["content"]["application/json"]["schema"]
            jsonschema.Draft202012Validator({**expected, "components": document["components"]}).validate(content)
            tried.add((method, path, answer.status))
    assert {status for _, path, status in tried if not path.endswith("session")} == {200}
    assert len(tried) >= 15


async def test_unknown_parameter_is_refused_as_described(api: tuple[aiohttp.ClientSession, str]) -> None:
    """Each route that gives data answers 400 to a parameter that it does not know, and the document says so."""
    session, url = api
    for path, methods in DOCUMENT["paths"].items():
        if "get" not in methods or path.endswith("/session"):
            continue
        names = dict.fromkeys(re.findall(r"{(\w+)}", path), "1")
        async with session.get(f"{url}{path.format(**names)}?unknown=1") as answer:
            assert answer.status == 400, path
        assert "400" in methods["get"]["responses"], path
