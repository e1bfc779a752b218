"""Draws the image of the README with the real bridge: `make image`, or `python -m tests.console.image FILE`."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests import harness
from tests.console.conftest import ARGUMENTS, Console, Tab

WIDTH, HEIGHT = 1280, 720
TERMINALS = 24


async def draw(console: Console, tab: Tab, path: Path) -> None:
    """Writes the fleet's page as it is at 1280 x 720, light, once usage and signal quality are known."""
    await tab.open("?sort=-used_pct")
    await tab.until("() => /\\d/.test(document.querySelector('[data-column=used_pct]').innerText)")
    await tab.page.locator("[data-testid=connection][data-state=live]").wait_for()
    await tab.page.screenshot(path=path)


async def main(path: Path) -> None:
    """Draws a fleet of 24 with a world of its own."""
    from playwright.async_api import async_playwright

    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        async with harness.world(directory, terminals=TERMINALS, start=None) as world, async_playwright() as playwright:
            console = Console(world, directory)
            browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(ARGUMENTS))
            async with harness.running(console.config) as process:
                await console.until_polled(process)
                page = await browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
                await draw(console, Tab(page, console.url), path)
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
