"""Draws the image of the README with the demo's own fleet: `make image`, or `python -m tests.console.image FILE`."""

import asyncio
import sys
import tempfile
from pathlib import Path

from oneweb_bridge import app, simulator
from oneweb_bridge.demo import demo, mosquitto, past
from tests.cancelling import cancel_until_done
from tests.console.conftest import ARGUMENTS, Tab

WIDTH, HEIGHT = 1280, 720
TERMINALS = 25


async def draw(tab: Tab, path: Path) -> None:
    """Writes the fleet's page as it is at 1280 x 720, light, once usage and signal quality are known."""
    await tab.open("?sort=exhausted_ts")
    await tab.until("() => /\\d/.test(document.querySelector('[data-column=used_pct]').innerText)")
    # Until the bridge has caught up with the last day, and the broker with the bridge.
    await tab.until("() => !document.querySelector('[data-column=sinr_db] .stale')")
    await tab.page.get_by_text("backlog 0", exact=True).wait_for()
    await tab.page.locator("[data-testid=connection][data-state=live]").wait_for()
    await tab.page.screenshot(path=path)


async def main(path: Path) -> None:
    """Draws the fleet of the demo, with its past."""
    from playwright.async_api import async_playwright

    with tempfile.TemporaryDirectory() as folder:
        port, address = mosquitto.free_port(), asyncio.get_running_loop().create_future()
        async with (
            simulator.serve(demo.simulator_options(TERMINALS, 1.0, past.DAYS)) as fake,
            mosquitto.run_mosquitto(port),
            async_playwright() as playwright,
        ):
            config = demo.configuration(fake.url, port, Path(folder))
            await past.live_through(config, fake)
            bridge = asyncio.create_task(app.run(config, on_console=address.set_result))
            browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(ARGUMENTS))
            page = await browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            await draw(Tab(page, await address), path)
            await browser.close()
            await cancel_until_done(bridge)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
