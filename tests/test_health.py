"""Health and metrics: the real bridge asked over HTTP, while the world around it comes and goes."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from prometheus_client.parser import text_string_to_metric_families

from oneweb_bridge import app, simulator
from oneweb_bridge.config.read import parse
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.status import Info, JournalState
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.web import bridge_metrics, health, server
from tests import harness
from tests.campaign import is_at_rest
from tests.cancelling import end_tasks


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def until_ready_says(session: aiohttp.ClientSession, port: int, patience: float = 40.0, **wanted: bool) -> None:
    """Waits until /readyz says this of its parts, with the status that belongs to it."""
    content: Any = None
    async with asyncio.timeout(patience):
        while content != wanted:
            await asyncio.sleep(0.05)
            try:
                async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    content, status = await answer.json(), answer.status
            except aiohttp.ClientConnectorError:
                continue
            assert content.pop("role") == "leader"
            assert status == (200 if all(content.values()) else 503)


async def scraped(session: aiohttp.ClientSession, port: int) -> dict[str, Any]:
    """Name of each metric -> its family, as Prometheus' own parser reads it."""
    async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return {family.name: family for family in text_string_to_metric_families(await answer.text())}


def value(family: Any) -> float:
    (sample,) = family.samples
    return float(sample.value)


async def test_readyz_reports_api_broker_and_journal_separately(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    """Neither there, then the broker, then the API, then the broker away, then the API away: /readyz says each.

    Both endpoints have the role `leader`, in every state: with SQLite there is no other process to wait for.
    """
    port, api_port, http = mosquitto.free_port(), mosquitto.free_port(), mosquitto.free_port()
    config = harness.bridge_yaml(
        tmp_path,
        f"http://127.0.0.1:{api_port}",
        port,
        http={"listen": f"127.0.0.1:{http}"},
        api={"timeout": {"connect": "1s", "read": "1s"}},
    )
    async with harness.running(config):
        await until_ready_says(session, http, api=False, broker=False, journal=True)
        async with simulator.serve(simulator.Options(port=api_port, terminals=3, seed=2)):
            async with mosquitto.run_mosquitto(port):
                await until_ready_says(session, http, api=True, broker=True, journal=True)
                assert value((await scraped(session, http))["oneweb_bridge_ready"]) == 1
            await until_ready_says(session, http, api=True, broker=False, journal=True)
            families = await scraped(session, http)
            assert [value(families[f"oneweb_bridge_{name}"]) for name in ("ready", "api_up", "broker_up")] == [0, 1, 0]
        await until_ready_says(session, http, api=False, broker=False, journal=True)
        async with session.get(f"http://127.0.0.1:{http}/healthz") as answer:
            assert (answer.status, await answer.json()) == (200, {"alive": True, "role": "leader"})


async def test_metrics_are_what_prometheus_expects(world: harness.World, session: aiohttp.ClientSession) -> None:
    """Its own parser reads them; names have prefix and unit; labels are calls; no id of the fleet is in them."""
    http = mosquitto.free_port()
    config = world.config(http={"listen": f"127.0.0.1:{http}"})
    async with harness.recording(world.port) as recorder, harness.running(config):
        await recorder.until(lambda: is_at_rest(recorder))
        families = await scraped(session, http)
        async with session.get(f"http://127.0.0.1:{http}/metrics") as answer:
            text = await answer.text()

    names = {sample.name for family in families.values() for sample in family.samples}
    assert names == {f"oneweb_bridge_{name or 'info'}" for name in bridge_metrics.METRICS}
    assert all((family.type == "counter") is (family.name + "_total" in names) for family in families.values())
    labels = {(name, value) for f in families.values() for s in f.samples for name, value in s.labels.items()}
    assert {value for name, value in labels if name == "call"} == set(CALLS)
    assert {name for name, _ in labels} == {"call", "version", "contract", "instance"}
    ids = {str(record["id"]) for kind in ("terminals", "products", "sites") for record in world.api.truth(kind)}
    assert ids
    assert not [id for id in ids if id in text]


async def test_stopped_process_does_not_say_that_it_lives(world: harness.World, session: aiohttp.ClientSession) -> None:
    """While the process is stopped /healthz does not answer; when it goes on it does."""
    http = mosquitto.free_port()
    config = world.config(http={"listen": f"127.0.0.1:{http}"})
    patience = aiohttp.ClientTimeout(total=1)
    async with harness.recording(world.port) as recorder, harness.running(config) as bridge:
        await recorder.until(lambda: is_at_rest(recorder))
        bridge.signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await session.get(f"http://127.0.0.1:{http}/healthz", timeout=patience)
        bridge.signal(signal.SIGCONT)
        async with session.get(f"http://127.0.0.1:{http}/healthz") as answer:
            assert answer.status == 200


def test_health_is_on_loopback_unless_said_otherwise() -> None:
    """The default address is loopback's."""
    assert parse("", {}).http.address() == ("127.0.0.1", 8480)


# ── in process, where time can be moved ────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def watched(directory: Path, backlog: int = 0) -> AsyncIterator[tuple[health.Health, Poller]]:
    """The health of a real poller before an API that is away."""
    config = parse(f"api: {{base_url: 'http://127.0.0.1:{mosquitto.free_port()}', client_id: i, client_secret: s}}", {})
    state = msgspec.structs.replace(config.state, path=str(directory / "bridge.db"))
    journal = JournalState(head=backlog, published=0, backlog=backlog, dropped=0, dead=0, owed=0)

    async def info() -> Info:
        return Info("1", 1, "main", parts.started_at, parts.poller.api_state, journal, {})

    async with app.open_bridge(msgspec.structs.replace(config, state=state)) as parts:
        yield health.Health(parts.poller, lambda: True, info), parts.poller


async def alive(checked: health.Health) -> tuple[bool, int]:
    """What /healthz says, and with which status."""
    answer = await checked.healthz(make_mocked_request("GET", "/healthz"))
    return b"true" in bytes(answer.body or b""), answer.status  # type: ignore[arg-type]  # it is bytes here


async def test_poller_that_stands_still_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no task of the poller has run for half a minute /healthz says 503, and 200 as soon as one runs again."""
    async with watched(tmp_path) as (watched_health, poller):
        assert await alive(watched_health) == (True, 200)
        before = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: before + health.STUCK_AFTER_S + 1)
        assert await alive(watched_health) == (False, 503)
        poller.progress = before + health.STUCK_AFTER_S
        assert await alive(watched_health) == (True, 200)


async def test_poll_that_does_not_end_is_told(tmp_path: Path) -> None:
    """A poll that still runs a minute after its deadline makes /healthz say 503, though other tasks go on."""
    async with watched(tmp_path) as (watched_health, poller):
        runtime = poller.calls["sites"]
        runtime.running, runtime.begun = True, time.monotonic() - 600.0 - 55.0
        assert await alive(watched_health) == (True, 200)
        runtime.begun -= 10.0
        assert await alive(watched_health) == (False, 503)


@pytest.mark.parametrize(
    ("backlog", "good"), [(0, True), (health.MAX_READY_BACKLOG - 1, True), (health.MAX_READY_BACKLOG, False)]
)
async def test_backlog_above_the_bound_is_told(tmp_path: Path, backlog: int, good: bool) -> None:
    """The journal's part is well below the stated number of waiting rows, and not from there on."""
    async with watched(tmp_path, backlog) as (watched_health, _):
        assert (await watched_health.parts()).journal is good


async def test_metrics_go_on_while_the_database_cannot_be_read(tmp_path: Path) -> None:
    """What needs no database is still told: the journal is not well, and its numbers are left out."""

    async def info() -> Info:
        raise StoreUnavailable("disk I/O error")

    async with watched(tmp_path) as (_, poller):
        checked = health.Health(poller, lambda: True, info)
        answer = await checked.metrics(make_mocked_request("GET", "/metrics"))
        assert not (await checked.parts()).journal
    text = bytes(answer.body or b"").decode()  # type: ignore[arg-type]  # it is bytes here
    names = {family.name.removeprefix("oneweb_bridge_") for family in text_string_to_metric_families(text)}
    assert answer.status == 200
    assert {"ready", "api_up", "broker_up", "call_enabled", "progress_age_seconds"} <= names
    assert not [name for name in names if name.startswith("journal_") and name != "journal_backlog_limit"]


async def test_request_that_hangs_does_not_fail_the_stop() -> None:
    """A request that is still answered at the stop is cut off, and the stop is no failure."""
    scraping = asyncio.Event()

    class Hanging(health.Health):
        async def readyz(self, _: web.Request) -> web.Response:
            scraping.set()
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(3600 if not ended else 0)
                if ended:
                    return web.Response()

    ended = False
    watch = Hanging.__new__(Hanging)
    port = mosquitto.free_port()
    async with aiohttp.ClientSession() as session:
        try:
            async with server.serve_http(watch, ("127.0.0.1", port)):
                asking = asyncio.create_task(session.get(f"http://127.0.0.1:{port}/readyz"))
                await scraping.wait()
        finally:
            ended = True
        await end_tasks(asking)
