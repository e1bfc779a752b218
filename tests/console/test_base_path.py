"""Behind a real nginx, below a path of its own, and in the frame of Home Assistant: pages, live stream, sign-in."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oneweb_bridge.demo import mosquitto
from tests import harness
from tests.console.conftest import Console, OpenTab
from tests.console.test_live import TOKEN, sign_in
from tests.console.test_pages import addresses

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

INGRESS = "/api/hassio_ingress/Abc_123-x"
CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    server {{
        listen 127.0.0.1:{port};
        location {prefix}/ {{
            proxy_pass {bridge};
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_set_header Host $http_host;
            {headers}
        }}
    }}
}}
"""
FORWARDED = """
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Prefix /oneweb;
"""


@contextlib.asynccontextmanager
async def nginx(folder: Path, bridge: str, prefix: str, headers: str) -> AsyncIterator[str]:
    """The address of the console behind an nginx that takes the prefix off."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if program is None:
        # As Chromium: `make test-console` installs it, so only a bare `pytest -m browser` comes here.
        pytest.skip("no nginx: `sh deploy/setup.sh console` installs it")
    port = mosquitto.free_port()
    config = folder / "nginx.conf"
    config.write_text(CONFIGURATION.format(folder=folder, port=port, prefix=prefix, bridge=bridge, headers=headers))
    process = await asyncio.create_subprocess_exec(program, "-c", str(config), "-p", str(folder))
    try:
        await mosquitto._reachable(process, port)
        yield f"http://127.0.0.1:{port}{prefix}/"
    finally:
        process.terminate()
        await process.wait()


async def test_below_a_path_of_nginx(console: Console, open_tab: OpenTab, tmp_path: Path) -> None:
    """Sign-in, pages and the live stream work below /oneweb/; the cookie is for that path alone."""
    guarded = Console(
        console.world,
        tmp_path,
        console={"token": TOKEN, "trusted_proxies": ["127.0.0.1"]},
        mqtt={"base_topic": "proxied"},
        instance="proxied",
    )
    async with (
        harness.running(guarded.config) as process,
        nginx(tmp_path, guarded.url, "/oneweb", FORWARDED) as address,
    ):
        await guarded.until_polled(process, Authorization=f"Bearer {TOKEN}")
        tab = await open_tab(address)
        await tab.open("", "sign-in")
        await sign_in(tab, TOKEN)
        await tab.ready("fleet")
        await tab.page.locator("[data-testid=connection][data-state=live]").wait_for()
        (cookie,) = await tab.page.context.cookies()
        assert cookie["path"] == "/oneweb/"
        for name, place in (await addresses(guarded, Authorization=f"Bearer {TOKEN}")).items():
            await tab.open(place, name)
        await tab.page.close()


async def test_in_the_frame_of_home_assistant(console: Console, open_tab: OpenTab, tmp_path: Path) -> None:
    """By ingress nobody is asked for a token, and all addresses stay below the path that Home Assistant gives."""
    ingress = Console(
        console.world,
        tmp_path,
        console={"token": TOKEN, "ingress": "127.0.0.1"},
        mqtt={"base_topic": "ingress"},
        instance="ingress",
    )
    headers = f"proxy_set_header X-Ingress-Path {INGRESS};"
    async with (
        harness.running(ingress.config) as process,
        nginx(tmp_path, ingress.url, INGRESS, headers) as address,
    ):
        await ingress.until_polled(process, Authorization=f"Bearer {TOKEN}")
        tab = await open_tab(address)
        await tab.open()
        await tab.page.get_by_test_id("fleet-row").first.wait_for()
        await tab.page.locator("[data-testid=connection][data-state=live]").wait_for()
        for name, place in (await addresses(ingress, Authorization=f"Bearer {TOKEN}")).items():
            await tab.open(place, name)
        await tab.page.close()
