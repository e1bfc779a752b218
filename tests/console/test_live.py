"""The live stream of a page: one, not while it is hidden, over a restart of the bridge; and the sign-in."""

import json
from pathlib import Path

import pytest

from tests import harness
from tests.console.conftest import Console, OpenTab, Tab
from tests.console.test_terminal import PLAYED_STREAM

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

TOKEN = "a-token-of-the-tests"
SOONER = """
const later = window.setTimeout;
window.setTimeout = (work, ms, ...more) => later(work, ms === 20000 ? 2000 : ms, ...more);
"""
"""The fleet is loaded again 2 s after a message of a product, and not after 20."""
HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


def streams(tab: Tab) -> int:
    """How many streams the page has opened."""
    return len([address for address in tab.requests if "/api/v1/live" in address])


async def test_page_has_one_stream_and_none_while_hidden(tab: Tab) -> None:
    """Other pages use the same stream. A hidden page closes it, and goes on behind the last message when it is seen."""
    await tab.open()
    live = tab.page.locator("[data-testid=connection][data-state=live]")
    await live.wait_for()
    await tab.page.get_by_role("link", name="Events", exact=True).click()
    await tab.ready("events")
    assert streams(tab) == 1
    async with tab.page.expect_event("requestfailed", lambda request: "/live" in request.url):
        await tab.page.evaluate(HIDE, True)
    async with tab.page.expect_request("**/api/v1/live?since=*"):
        await tab.page.evaluate(HIDE, False)
    await live.wait_for()


async def test_sign_in_and_restart(console: Console, open_tab: OpenTab, tmp_path: Path) -> None:
    """With a token the page asks for it, refuses another one, and lets in. When the bridge is restarted the page says
    that the connection is lost, asks for the token again because sessions ended, and goes on without a reload.
    """
    guarded = Console(
        console.world, tmp_path, console={"token": TOKEN}, mqtt={"base_topic": "guarded"}, instance="guarded"
    )
    tab = await open_tab(guarded.url)
    async with harness.running(guarded.config) as process:
        await guarded.until_polled(process, Authorization=f"Bearer {TOKEN}")
        await tab.open("", "sign-in")
        await sign_in(tab, "another-token-of-tests")
        await tab.page.get_by_role("alert").filter(has_text=" ").wait_for()
        await sign_in(tab, TOKEN)
        await tab.ready("fleet")
        await tab.page.get_by_test_id("fleet-row").first.wait_for()
        await tab.page.evaluate("window.notReloaded = true")
        await process.stop()
    await tab.page.locator("[data-testid=connection][data-state=lost]").wait_for()
    async with harness.running(guarded.config) as process:
        await guarded.until_it_answers(process)
        await tab.ready("sign-in")
        await sign_in(tab, TOKEN)
        await tab.page.locator("[data-testid=connection][data-state=live]").wait_for()
        await tab.ready("fleet")
        assert await tab.page.evaluate("window.notReloaded")
        await tab.page.get_by_role("button", name="Sign out").click()
        await tab.ready("sign-in")
    tab.expect("401", "ERR_")


async def test_stream_that_was_refused_is_opened_after_the_next_sign_in(
    console: Console, open_tab: OpenTab, tmp_path: Path
) -> None:
    """What asks for the stream while nobody is signed in, as a reload that was due, keeps nobody from it later."""
    guarded = Console(
        console.world, tmp_path, console={"token": TOKEN}, mqtt={"base_topic": "refused"}, instance="refused"
    )
    tab = await open_tab(guarded.url)
    async with harness.running(guarded.config) as process:
        await guarded.until_polled(process, Authorization=f"Bearer {TOKEN}")
        await tab.page.add_init_script(PLAYED_STREAM + SOONER)
        await tab.open("", "sign-in")
        await sign_in(tab, TOKEN)
        await tab.ready("fleet")
        async with tab.page.expect_response(lambda answer: "/api/v1/fleet" in answer.url and answer.status == 401):
            message = json.dumps({"entity": "product", "id": "P", "what": "state", "body": {}})
            await tab.page.evaluate("text => window.push(text)", f"event: state\ndata: {message}\n\n")
            await tab.page.get_by_role("button", name="Sign out").click()
        await tab.ready("sign-in")
        # Whatever that has begun.
        await tab.page.wait_for_timeout(500)
        async with tab.page.expect_response(lambda answer: "/api/v1/live" in answer.url and answer.ok):
            await sign_in(tab, TOKEN)
        await tab.ready("fleet")
    tab.expect("401", "ERR_")


async def sign_in(tab: Tab, token: str) -> None:
    """Types a token and presses the button."""
    await tab.page.get_by_role("textbox", name="Token").fill(token)
    await tab.page.get_by_role("button", name="Sign in").click()
