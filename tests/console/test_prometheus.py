"""A real Prometheus with the shipped files reads a real bridge, and answers what was published."""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from oneweb_bridge.demo import mosquitto
from tests import harness
from tests.campaign import is_at_rest

pytestmark = [pytest.mark.browser]
SHIPPED = Path(__file__).parent.parent.parent / "deploy/prometheus"


def program(name: str) -> str:
    """Where one of Prometheus' programs is."""
    path = shutil.which(name)
    if path is None:
        # As Chromium: `make test-console` installs it, so only a bare `pytest -m browser` comes here.
        pytest.skip(f"no {name}: `sh deploy/setup.sh console` installs it")
    return path


def test_shipped_files_are_good() -> None:
    """Promtool has nothing against the scrape file and the alert rules."""
    subprocess.run([program("promtool"), "check", "config", SHIPPED / "prometheus.yml"], check=True, timeout=60)


@contextlib.asynccontextmanager
async def prometheus(folder: Path, bridge: int) -> AsyncIterator[str]:
    """The address of a Prometheus that reads a bridge as the shipped file says, but every second."""
    port, path = mosquitto.free_port(), program("prometheus")
    text = (SHIPPED / "prometheus.yml").read_text()
    text = text.replace("127.0.0.1:8480", f"127.0.0.1:{bridge}").replace("scrape_interval: 1m", "scrape_interval: 1s")
    shutil.copy(SHIPPED / "oneweb.rules.yml", folder)
    (folder / "prometheus.yml").write_text(text)
    with (folder / "prometheus.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            path,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{port}/api/v1"
        finally:
            process.kill()
            await process.wait()


async def query(url: str, expression: str) -> list[dict[str, Any]]:
    """What an expression gives, as soon as it gives something."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                async with session.get(f"{url}/query", params={"query": expression}) as answer:
                    # While it starts it answers 503 with a text.
                    series = (await answer.json())["data"]["result"] if answer.status == 200 else []
                    if series:
                        return list(series)
            await asyncio.sleep(0.1)


async def test_prometheus_reads_the_fleet(world: harness.World, tmp_path: Path) -> None:
    """Values, labels and ages in Prometheus are those of the retained topics."""
    http = mosquitto.free_port()
    config = world.config(http={"listen": f"127.0.0.1:{http}"}, polling=harness.SLOW)
    async with harness.recording(world.port) as recorder, harness.running(config):
        world.api.freeze()
        await recorder.until(lambda: is_at_rest(recorder), harness.BUSY_S)
        async with prometheus(tmp_path, http) as url:
            await query(url, "oneweb_bridge_journal_backlog == 0")
            await recorder.catch_up()
            for series in await query(url, "oneweb_sinr_db"):
                labels = series["metric"]
                below = f"oneweb/terminal/{labels['imei']}"
                sample = recorder.retained[f"{below}/metric/signal_quality"]
                relations = recorder.retained[f"{below}/relations"]
                assert float(series["value"][1]) == sample["sinr_db"]
                assert labels["name"] == recorder.retained[f"{below}/state"]["name"]
                assert labels["customer"] == relations["end_customer"]["name"]
                assert labels["site"] == relations["site"]["name"]
                age = await query(url, f'oneweb_sample_age_seconds{{imei="{labels["imei"]}",report="signal_quality"}}')
                taken_at = float(age[0]["value"][0]) - float(age[0]["value"][1])
                assert taken_at == pytest.approx(sample["ts"] / 1000, abs=15)
            assert len(await query(url, "oneweb_terminal_state == 1")) == len(world.api.truth("terminals"))
            assert await query(url, "100 * oneweb_usage_used_gb / oneweb_usage_entitlement_gb")
            assert await query(url, "oneweb_bridge_ready == 1")
