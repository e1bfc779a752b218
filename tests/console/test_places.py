"""Organizations, sites and the map: what is not listed any more, and what a dot of several terminals shows."""

import json
from typing import Any

import pytest
import pytest_asyncio

from tests.console import fleets
from tests.console.conftest import Console, Tab

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def rows(tab: Tab, console: Console) -> list[dict[str, Any]]:
    """A fleet of twelve at one place, one of them offline, one of an unknown state."""
    made = fleets.make_rows(18)[6:]
    for row in made:
        row |= {"latitude": 60.0, "longitude": 5.0, "state": "online", "site_id": "GONE", "site": "Old Site"}
    made[0]["state"], made[1]["state"] = "offline", None
    answer = json.dumps(fleets.make_answer(made, (await console.get("fleet"))["seq"]))
    await tab.page.route("**/api/v1/fleet", lambda route: route.fulfill(body=answer, content_type="application/json"))
    return made


async def test_site_without_a_record_shows_its_terminals(tab: Tab, rows: list[dict[str, Any]]) -> None:
    """The page says that no record is listed, and what still names the site."""
    await tab.open("organizations?kind=site&id=GONE", "organizations")
    await tab.page.get_by_text("No record of this site is listed").wait_for()
    await tab.page.get_by_role("heading", name=f"{len(rows)} terminals").wait_for()
    assert await tab.page.locator(".details").get_by_role("link", name="Vessel 7", exact=True).count() == 1
    tab.expect("404")


async def test_dot_of_several_lists_its_terminals(tab: Tab, rows: list[dict[str, Any]]) -> None:
    """A click on it lists them; its colour is explained below the map."""
    await tab.open("map")
    dot = tab.page.locator("g.dot")
    assert await dot.get_attribute("data-state") == "mixed"
    assert "some of them offline" in await tab.page.locator(".map-legend").inner_text()
    await dot.click()
    await tab.page.get_by_role("heading", name=f"{len(rows)} terminals here").wait_for()


async def test_dot_says_offline_of_the_offline_alone(tab: Tab, console: Console) -> None:
    """A terminal of an unknown or another state is not drawn, nor counted, as offline."""
    made = fleets.make_rows(9)[6:]
    for row, state, longitude in zip(made, (None, "standby", "offline"), (-60.0, 5.0, 5.0), strict=True):
        row |= {"latitude": 60.0, "longitude": longitude, "state": state}
    answer = json.dumps(fleets.make_answer(made, (await console.get("fleet"))["seq"]))
    await tab.page.route("**/api/v1/fleet", lambda route: route.fulfill(body=answer, content_type="application/json"))
    await tab.open("map")
    dots = tab.page.locator("g.dot")
    states = await dots.evaluate_all(
        "dots => dots.map(dot => [dot.dataset.state, dot.querySelector('title').textContent])"
    )
    assert sorted(states) == [["mixed", "2 terminals, 1 offline"], ["unknown", "Vessel 6: \u2013"]]
