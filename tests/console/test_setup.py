"""The set-up page: three steps, and what `explore` found, which is read and never typed."""

from pathlib import Path
from typing import Any

import pytest

from tests import harness
from tests.console.conftest import Console, OpenTab, Tab

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


async def without_terminals(tab: Tab, console: Console, exploration: dict[str, Any] | None) -> None:
    """Lets the page see a fleet without terminals, and what explore has found."""
    await tab.hold_live()
    fleet = {**await console.get("fleet"), "rows": []}
    await tab.page.route("**/api/v1/fleet", lambda route: route.fulfill(json=fleet))
    await tab.page.route("**/api/v1/exploration", lambda route: route.fulfill(json={"exploration": exploration}))


async def test_first_page_is_the_setup_until_explore_was_run(console: Console, tab: Tab) -> None:
    """Where nothing is there yet the first page says the three steps; where explore was run it says why nothing is."""
    await without_terminals(tab, console, None)
    await tab.open("", "setup")
    steps = await tab.page.locator("ol.steps > li h2").all_inner_texts()
    titles = ("Give the bridge the credentials", "See what your API answers", "Let it run")
    assert len(steps) == 3
    assert all(step.startswith(title) for step, title in zip(steps, titles, strict=True))
    assert "Three steps bring your terminals here" in await tab.page.locator("main").inner_text()
    await tab.page.unroute_all()
    await without_terminals(tab, console, {"calls": [], "general": [], "conclusion": "Nothing to change."})
    await tab.page.reload()
    await tab.ready("fleet")
    assert "No terminals: the API lists none" in await tab.page.locator("main").inner_text()


@pytest.mark.parametrize(
    ("status", "last_success", "sentence"),
    [
        ("polling", "2026-11-29T00:00:00.000Z", "No terminals: the API lists none"),
        ("waiting", None, "they come with the first poll"),
    ],
)
async def test_empty_fleet_says_whether_it_was_listed(
    status: str, last_success: str | None, sentence: str, console: Console, tab: Tab
) -> None:
    """While the listing waits or is polled, the last successful poll decides what the page says."""
    answer = await console.get("calls")
    listing = next(call for call in answer["calls"] if call["call"] == "user_terminals")
    listing.update(status=status, last_success=last_success)
    await tab.page.route("**/api/v1/calls", lambda route: route.fulfill(json=answer))
    await without_terminals(tab, console, {"calls": [], "general": [], "conclusion": "Nothing to change."})
    await tab.open("", "fleet")
    assert sentence in await tab.page.locator("main").inner_text()


async def test_setup_is_reached_also_when_terminals_are_there(tab: Tab) -> None:
    """A link leads to it from every page, and it says that all is done."""
    await tab.open()
    await tab.page.get_by_role("navigation").get_by_role("link", name="Set-up", exact=True).click()
    await tab.ready("setup")
    await tab.page.get_by_text("All three steps are done.").wait_for()


async def test_setup_counts_terminals_where_nothing_was_polled_since_the_start(console: Console, tab: Tab) -> None:
    """After a restart the fleet is there, although no call has listed it yet."""
    calls = await console.get("calls")
    for call in calls["calls"]:
        call.update(status="waiting", records=0)
        call.pop("duration_ms", None)
    await tab.hold_live()
    await tab.page.route("**/api/v1/calls", lambda route: route.fulfill(json=calls))
    await tab.open("setup")
    await tab.page.get_by_text("All three steps are done.").wait_for()


@pytest.mark.parametrize("secret", ["wrong", ""])
async def test_refused_credentials_lead_to_the_first_step(
    secret: str, console: Console, open_tab: OpenTab, tmp_path: Path
) -> None:
    """Who has given wrong credentials, or none, finds the first step open, and why, on the first page."""
    refused = Console(
        console.world, tmp_path, api={"client_secret": secret}, mqtt={"base_topic": "refused"}, instance="refused"
    )
    tab = await open_tab(refused.url)
    async with harness.running(refused.config) as process:
        await refused.until_it_answers(process)
        await tab.open("", "setup")
        step = tab.page.locator("ol.steps > li").first
        await step.locator(".error").wait_for()
        assert "open" in await step.locator("h2").inner_text()
        assert "ONEWEB_CLIENT_ID" in await step.inner_text()
        # Before the bridge ends, so that the browser does not complain of a stream that was cut.
        await tab.page.goto("about:blank")
