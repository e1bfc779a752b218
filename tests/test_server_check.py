"""`check` of a database of PostgreSQL, and what a worker says of several instances: what there is, and what to do."""

import asyncio
from typing import Any

import aiohttp
import psycopg
import pytest

from oneweb_bridge.cli import check
from oneweb_bridge.config.read import load, parse
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.store.lease import Holder, open_leases
from oneweb_bridge.store.server_check import look_at_server
from oneweb_bridge.web.standby import serve_standby
from tests import harness
from tests.places import held
from tests.postgres import USER, Cluster

pytestmark = pytest.mark.postgres


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(statement.encode())


async def test_check_has_a_line_for_the_database(world: harness.World, url: str) -> None:
    """It says what answers, which schema is there and who holds the instance, and nothing of the address."""
    config = load(world.config(state={"path": None, "url": url}), {})

    async def line() -> str:
        lines: list[str] = []
        assert await check.check(config, lines.append)
        (shown_line,) = (line for line in lines if " database: " in line)
        return shown_line

    assert "main is held by nobody" in await line()
    async with held(url):
        shown = await line()
    assert shown.startswith("ok      database: PostgreSQL 1")
    assert shown.endswith("answers, this user may create schemas, schema 1; main is held by tester, epoch 1")
    assert url not in shown
    assert (await line()).endswith("main is held by nobody, epoch 1 was the last")


async def test_check_names_what_would_keep_a_worker_from_running(cluster: Cluster, url: str) -> None:
    """No server, no database, no right to make schemas, a newer schema: a sentence that says what to do."""
    bare = url.replace("/test_", "/postgres?application_name=test_")
    assert look_at_server(bare, "main").sentence.endswith("no schema yet: the first worker makes it")
    cluster.execute("CREATE ROLE limited LOGIN")
    limited = url.replace(f"{USER}@", "limited@")
    with pytest.raises(StoreError, match=r'may not create schemas.*: GRANT CREATE ON DATABASE "test_\d+" TO "limited"'):
        look_at_server(limited, "another")
    with pytest.raises(StoreError, match=r"state\.url: .*refused"):
        look_at_server(f"postgresql://{USER}@127.0.0.1:{mosquitto.free_port()}/x", "main")
    with pytest.raises(StoreError, match='database "missing" does not exist'):
        look_at_server(cluster.url_of("missing"), "main")
    execute(url, "UPDATE oneweb.version SET version = 99")
    with pytest.raises(StoreError, match="schema 99, known 1"):
        look_at_server(url, "main")


async def test_worker_ends_when_a_newer_one_has_changed_the_schema(url: str) -> None:
    """It finds it at its next renewal, and says so."""
    async with open_leases(url, Holder("a", "a-start", 600.0)) as leases:
        assert await leases.claim("main")
        execute(url, "UPDATE oneweb.version SET version = 99")
        with pytest.raises(StoreError, match="made by a newer oneweb-bridge"):
            await leases.renew(["main"])


async def test_worker_that_holds_another_instance_is_a_leader(url: str) -> None:
    """Where it stands by for one, health and metrics tell of all its instances."""
    port = mosquitto.free_port()
    config = parse(f"{{instance: main, http: {{listen: '127.0.0.1:{port}'}}}}", {})
    epochs: dict[str, int | None] = {"main": None, "other": None}

    async def ask(path: str) -> Any:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            assert answer.status == 200
            return await (answer.text() if path == "/metrics" else answer.json())

    async with asyncio.timeout(30), serve_standby(config, "a", lambda: True, lambda: epochs):
        assert await ask("/healthz") == {"alive": True, "role": "standby"}
        epochs["other"] = 3
        assert await ask("/healthz") == {"alive": True, "role": "leader"}
        assert await ask("/readyz") == {"role": "leader", "database": True}
        lines = (await ask("/metrics")).splitlines()
    assert 'oneweb_bridge_leader{instance="main"} 0.0' in lines
    assert 'oneweb_bridge_leader{instance="other"} 1.0' in lines
    assert [line for line in lines if line.startswith("oneweb_bridge_epoch{")] == [
        'oneweb_bridge_epoch{instance="other"} 3.0'
    ]
