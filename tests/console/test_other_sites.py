"""What other sites may do to the console in a real Chromium: nothing."""

import shutil
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiohttp import web

from oneweb_bridge.demo import mosquitto
from tests.console.conftest import ARGUMENTS, Console, OpenTab

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def other_site() -> AsyncIterator[str]:
    """A site on another port of this host, which to a browser is another origin."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>other</title><p>other", content_type="text/html")

    application = web.Application()
    application.router.add_get("/", page)
    runner = web.AppRunner(application)
    await runner.setup()
    port = mosquitto.free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}/"
    await runner.cleanup()


async def test_other_site_reads_and_commands_nothing(console: Console, open_tab: OpenTab, other_site: str) -> None:
    """A fetch with a command, one without reading the answer, a form and a frame of another site change nothing."""
    before = await console.get("calls")
    tab = await open_tab(other_site)
    await tab.page.goto(other_site)
    refused: dict[str, Any] = await tab.page.evaluate(
        """async url => {
          const tries = {
            read: () => fetch(`${url}api/v1/fleet`),
            command: () => fetch(`${url}api/v1/calls/sites/set`, { method: 'POST', body: '{"interval":"1h"}',
              headers: { 'Content-Type': 'application/json', 'X-Oneweb-Console': '1' } }),
            stream: () => fetch(`${url}api/v1/live`),
          };
          const found = {};
          for (const [name, attempt] of Object.entries(tries)) {
            found[name] = await attempt().then((answer) => answer.status, (error) => error.name);
          }
          await fetch(`${url}api/v1/calls/sites/set`, { method: 'POST', mode: 'no-cors', body: '{"interval":"1h"}' })
            .catch(() => null);
          return found;
        }""",
        console.url,
    )
    assert set(refused.values()) == {"TypeError"}
    async with tab.page.expect_navigation():
        await tab.page.evaluate(
            """url => {
              const form = document.createElement('form');
              form.method = 'post';
              form.enctype = 'text/plain';
              form.action = `${url}api/v1/calls/sites/set`;
              document.body.append(form);
              form.submit();
            }""",
            console.url,
        )
    assert "error" in await tab.page.content()
    after = await console.get("calls")
    assert [call["interval"] for call in after["calls"]] == [call["interval"] for call in before["calls"]]
    # The browser looks for an icon beside the answer; what it says of it does not come after another page.
    await tab.page.goto("about:blank")
    tab.complaints.clear()
    tab.requests.clear()


async def test_name_that_points_here_is_refused(console: Console, browser: "Browser") -> None:
    """DNS rebinding: a foreign name that resolves to this host gets a sentence, and neither page nor data."""
    rules = "--host-resolver-rules=MAP rebound.example 127.0.0.1"
    executable = shutil.which("chromium")
    foreign = await browser.browser_type.launch(executable_path=executable, args=[*ARGUMENTS, rules])
    try:
        page = await foreign.new_page()
        for path in ("", "api/v1/fleet", "api/v1/live"):
            answer = await page.goto(console.url.replace("127.0.0.1", "rebound.example") + path)
            assert answer is not None
            assert answer.status == 421
            assert "console.hosts" in await answer.text()
    finally:
        await foreign.close()
