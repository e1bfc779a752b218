"""The set-up page: three steps, and what `explore` found, which is read and never typed."""

import pytest

from tests import harness
from tests.console.conftest import Console, Tab

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_setup_shows_what_explore_found(console: Console, tab: Tab) -> None:
    """Says that explore was never run, and shows its report once it was, by itself and without a field to type in."""
    await tab.open("setup")
    shown = tab.page.get_by_test_id("exploration")
    await shown.get_by_text("explore was never run").wait_for()
    assert await tab.page.locator("ol.steps > li").count() == 3
    assert await tab.page.locator("main input").count() == 0
    code, out, err = await harness.command("explore", "-c", str(console.config), cwd=console.config.parent)
    assert code in (0, 1), err
    report = (await console.get("exploration"))["exploration"]
    await shown.get_by_text(report["conclusion"]).wait_for()
    assert report["conclusion"] in " ".join(out.split())
    assert await shown.locator("[data-explored]").count() == len(report["calls"])
    terminals = shown.locator("[data-explored=user_terminals]")
    assert "8 terminals" in await terminals.inner_text()
