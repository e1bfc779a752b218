"""Events and alerts: newest first, more by scrolling, live, with filters and a pause; alerts with what to do."""

from typing import Any

import pytest

from tests import harness
from tests.console.conftest import Console, Tab

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

PAGE = 100
ALL = 250
MANY = 5000


def event(number: int) -> dict[str, Any]:
    """An event as it is published; every third is of a name."""
    field = "name" if number % 3 == 0 else "state"
    return {
        "id": f"journal:{number}",
        "type": "net.oneweb.terminal.changed",
        "subject": "359235170000000",
        "time": "2026-11-23T09:09:30.000Z",
        "ts": 1795424970000,
        "data": {"changed": {field: {"from": "a", "to": "b"}}, "record": {"name": f"Terminal {number}"}},
    }


async def test_events_are_loaded_by_scrolling(tab: Tab) -> None:
    """A page of events at first, the older ones when their place comes in view; a field filters what is shown."""

    async def answer(route: Any) -> None:
        before = int(route.request.url.partition("before=")[2].partition("&")[0] or ALL + 1)
        numbers = range(before - 1, max(0, before - 1 - PAGE), -1)
        await route.fulfill(
            json={"events": [event(n) for n in numbers], "next": numbers[-1] if numbers[-1] > 1 else None}
        )

    await tab.page.route("**/api/v1/events?*", answer)
    await tab.open("events")
    rows = tab.page.locator("[data-testid=event][data-id^='journal:']")
    assert await rows.count() == PAGE
    assert await rows.first.get_attribute("data-id") == f"journal:{ALL}"
    for count in (2 * PAGE, ALL):
        await tab.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        await tab.until(f"() => document.querySelectorAll(\"[data-id^='journal:']\").length === {count}")
    await tab.page.get_by_role("textbox", name="Field").fill("name")
    await tab.page.keyboard.press("Enter")
    await tab.until(f"() => document.querySelectorAll(\"[data-id^='journal:']\").length === {ALL // 3}")


async def test_long_list_forgets_its_end_and_loads_it_again(console: Console, tab: Tab) -> None:
    """A list that grows while nobody scrolls keeps 500 events of 1000; the others come again by scrolling, once."""

    async def answer(route: Any) -> None:
        before = int(route.request.url.partition("before=")[2].partition("&")[0] or MANY + 1)
        numbers = range(before - 1, max(0, before - 1 - PAGE), -1)
        await route.fulfill(json={"events": [event(n) for n in numbers], "next": numbers[-1]})

    await tab.page.route("**/api/v1/events?*", answer)
    await tab.open("events")
    await tab.page.locator("[data-testid=connection][data-state=live]").wait_for()
    rows = "[...document.querySelectorAll(\"[data-id^='journal:']\")]"
    for count in range(2 * PAGE, 1000 + PAGE, PAGE):
        await tab.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        await tab.until(f"() => {rows}.length >= {count}")
    await tab.page.evaluate("scrollTo(0, 0)")
    imei = (await console.get("fleet"))["rows"][0][0]
    console.world.api.fleet("rename", id=imei, name="Renamed below a long list")
    await harness.poll(console.world.port, "user_terminals")
    await tab.page.get_by_text("Renamed below a long list").first.wait_for()
    await tab.until(f"() => {rows}.length < 500")
    await tab.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    await tab.until(f"() => {rows}.length >= 500")
    numbers = await tab.page.evaluate(f"{rows}.map(row => Number(row.dataset.id.split(':')[1]))")
    assert numbers == list(range(MANY, MANY - len(numbers), -1))


async def test_event_comes_live_and_waits_in_a_pause(console: Console, tab: Tab) -> None:
    """A change is on top as it happens. In a pause nothing moves, and how many wait is told."""
    await tab.open("events?kind=changed")
    await tab.page.locator("[data-testid=connection][data-state=live]").wait_for()
    await tab.page.get_by_role("button", name="Pause").click()
    before = await tab.page.get_by_test_id("event").count()
    imei = (await console.get("fleet"))["rows"][0][0]
    console.world.api.fleet("rename", id=imei, name="Renamed while the page is paused")
    await harness.poll(console.world.port, "user_terminals")
    await tab.page.get_by_text("while paused").wait_for()
    assert await tab.page.get_by_test_id("event").count() == before
    await tab.page.get_by_role("button", name="Go on").click()
    await tab.page.get_by_text("Renamed while the page is paused").first.wait_for()


async def test_alerts_say_what_to_do(tab: Tab) -> None:
    """Alerts of one kind and call stand together, with how often and since when."""
    alerts = [
        {
            "seq": number,
            "time": f"2026-11-0{number}T00:00:00Z",
            "kind": "removal_held",
            "call": "user_terminals",
            "message": "10 terminal records are missing at once: 359235170000000 and others",
            "advice": "release them when they are really gone",
        }
        for number in (3, 2, 1)
    ]
    await tab.page.route("**/api/v1/alerts?*", lambda route: route.fulfill(json={"alerts": alerts, "next": None}))
    await tab.open("alerts")
    card = tab.page.get_by_test_id("alert")
    assert await card.count() == 1
    text = await card.inner_text()
    assert "3 times" in text
    assert await card.get_by_role("link", name="Release in the Polling Manager").count() == 1
    link = card.get_by_role("link", name="359235170000000")
    assert await link.get_attribute("href") == "#/terminal/359235170000000"
    assert "release them when they are really gone" in text


async def test_alert_has_links_and_times_of_the_page(tab: Tab) -> None:
    """Products lead to their pages, times are written as elsewhere, and no sentence of a kind is hidden."""
    message = "product SC-{}, bucket 1-2 (Maritime): the allowance will probably be used up on 2026-12-03T07:00:00Z"
    alerts = [
        {
            "seq": number,
            "time": "2026-11-01T00:00:00Z",
            "kind": "allowance_exhausts",
            "call": "usage_consumption",
            "message": message.format(number),
            "advice": "look at its forecast",
        }
        for number in (3, 2, 2)
    ]
    await tab.page.route("**/api/v1/alerts?*", lambda route: route.fulfill(json={"alerts": alerts, "next": None}))
    await tab.open("alerts")
    card = tab.page.get_by_test_id("alert")
    assert await card.get_by_role("link", name="SC-3").get_attribute("href") == "#/product/SC-3"
    assert "on 3 Dec 07:00" in await card.locator("p").first.inner_text()
    await card.get_by_text("1 other sentence").click()
    line = await card.get_by_role("link", name="SC-2").evaluate("link => getComputedStyle(link).textDecorationLine")
    assert line == "underline"
    assert await card.get_by_role("link", name="SC-2").is_visible()


async def test_list_without_events_says_why(tab: Tab) -> None:
    """Whether nothing has happened yet, or nothing that passes the filters."""
    await tab.page.route("**/api/v1/events?*", lambda route: route.fulfill(json={"events": [], "next": None}))
    await tab.open("events")
    await tab.page.get_by_text("they come with the first difference between two polls").wait_for()
    await tab.page.get_by_role("combobox", name="Kind").select_option("removed")
    await tab.page.get_by_text("No event passes these filters").wait_for()
