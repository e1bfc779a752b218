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


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
async def test_axe_finds_nothing(console: Console, open_tab: OpenTab, scheme: str, width: int) -> None:
    """No violation of WCAG 2.2 AA and of axe's best practice, with a table opened too."""
    tab = await open_tab(console.url, width, color_scheme=scheme, reduced_motion="reduce")
    source = axe_source()
    for name, address in (await addresses(console)).items():
        await tab.open(f"{address}?span=1h", name)
        if name == "terminal":
            await tab.page.get_by_role("button", name="Table").first.click()
        await tab.page.evaluate(source)
        results = await tab.page.evaluate("tags => axe.run({ runOnly: tags })", TAGS)
        assert [(name, rule["id"], rule["nodes"][0]["html"]) for rule in results["violations"]] == []


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
