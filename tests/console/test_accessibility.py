"""Nothing for axe to complain of on any page, light and dark; charts in words; less motion for who asks for it."""

from pathlib import Path

import pytest

from tests.console.conftest import Console, OpenTab, Tab
from tests.console.test_pages import addresses

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def axe_source() -> str:
    """The source of axe-core, which comes with a package from PyPI."""
    package = pytest.importorskip("axe_playwright_python", reason="no axe: `sh deploy/setup.sh console`")
    return next(Path(package.__file__).parent.rglob("axe.min.js")).read_text(encoding="utf-8")


async def run_axe(tab: Tab) -> tuple[list[tuple[str, str]], set[str]]:
    """The rules that the page violates, each with the first element that does, and the rules that it passes."""
    if not await tab.page.evaluate("'axe' in window"):
        await tab.page.evaluate(axe_source())
    # Only of violations all elements are told: those of what passes are many times larger than the page.
    violations, passes = await tab.page.evaluate(
        """async tags => {
          const results = await axe.run({ runOnly: tags, resultTypes: ['violations'], selectors: false });
          return [results.violations.map(rule => [rule.id, rule.nodes[0].html]), results.passes.map(rule => rule.id)];
        }""",
        TAGS,
    )
    return [(id, element) for id, element in violations], set(passes)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
async def test_axe_finds_nothing(console: Console, open_tab: OpenTab, scheme: str, width: int) -> None:
    """No violation of WCAG 2.2 AA and of axe's best practice, with a table opened too."""
    tab = await open_tab(console.url, width, color_scheme=scheme, reduced_motion="reduce")
    for name, address in (await addresses(console)).items():
        await tab.open(f"{address}?span=1h", name)
        if name == "terminal":
            await tab.page.get_by_role("button", name="Table").first.click()
        violations, passes = await run_axe(tab)
        assert [(name, *violation) for violation in violations] == []
        # Targets of at least 24 pixels are among what it looked at.
        assert "target-size" in passes


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_on_the_sign_in_page(console: Console, open_tab: OpenTab, scheme: str) -> None:
    tab = await open_tab(console.url, color_scheme=scheme)
    session = {"signed_in": False, "read_only": False, "base": "/"}
    await tab.page.route("**/api/v1/session", lambda route: route.fulfill(json=session))
    await tab.open("", "sign-in")
    violations, _ = await run_axe(tab)
    assert violations == []


async def test_each_chart_has_words_and_a_table(console: Console, tab: Tab) -> None:
    """Whatever a chart shows stands below it in words, and in a table with times and values."""
    pages = await addresses(console)
    for name in ("terminal", "product"):
        await tab.open(pages[name], name)
        charts = tab.page.get_by_test_id("chart")
        assert await charts.count() >= (4 if name == "terminal" else 1)
        values = 0
        for chart in await charts.all():
            words = await chart.get_by_test_id("chart-summary").inner_text()
            assert words
            await chart.get_by_role("button", name="Table").click()
            table = chart.get_by_test_id("chart-table")
            await table.locator("time[datetime$=Z]").first.wait_for()
            # Counters of which one sample is known have no rate yet, and the words of each say so.
            count, lines = await table.locator("data").count(), await table.locator("thead th").count() - 1
            assert count >= 1 or words.count("no values in this span") == lines >= 1, words
            values += count
        assert values >= 1, name


async def test_less_motion_for_who_asks(console: Console, open_tab: OpenTab) -> None:
    tab = await open_tab(console.url, reduced_motion="reduce")
    await tab.open("polling")
    moving = (
        "[...document.querySelectorAll('*')]"
        ".filter(element => parseFloat(getComputedStyle(element, '::after').transitionDuration) > 0).length"
    )
    assert await tab.page.evaluate(moving) == 0


async def test_tree_is_walked_by_keyboard(tab: Tab) -> None:
    """Arrows open, close and move; Enter shows the record of a node."""
    await tab.open("organizations")
    root = tab.page.get_by_role("tree").get_by_role("treeitem").first
    await root.focus()
    was_open = await root.get_attribute("aria-expanded")
    await tab.page.keyboard.press("ArrowLeft" if was_open == "true" else "ArrowRight")
    await tab.until("was => document.querySelector('[role=treeitem]').getAttribute('aria-expanded') !== was", was_open)
    await tab.page.keyboard.press("End")
    last = "[...document.querySelectorAll('[role=treeitem]')].at(-1)"
    await tab.until(f"() => document.activeElement === {last}")
    await tab.page.keyboard.press("Home")
    await tab.until("() => document.activeElement === document.querySelector('[role=treeitem]')")
    await tab.page.keyboard.press("Enter")
    await tab.page.get_by_role("treeitem", selected=True).wait_for()
    await tab.page.get_by_role("link", name="its terminals in the fleet").wait_for()
