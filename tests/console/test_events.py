"""Events and alerts: newest first, more by scrolling, live, with filters and a pause; alerts with what to do."""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests import harness
from tests.console.conftest import Console, Tab

if TYPE_CHECKING:
    from playwright.async_api import Locator

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


ROWS = "document.querySelectorAll(\"[data-id^='journal:']\")"


async def answer_events(route: Any) -> None:
    """As the bridge answers where the journal has ALL events."""
    before = int(route.request.url.partition("before=")[2].partition("&")[0] or ALL + 1)
    numbers = range(before - 1, max(0, before - 1 - PAGE), -1)
    await route.fulfill(json={"events": [event(n) for n in numbers], "next": numbers[-1] if numbers[-1] > 1 else None})


async def test_events_are_loaded_by_scrolling(tab: Tab) -> None:
    """A page of events at first, the older ones when their place comes in view; a field filters what is shown."""
    await tab.page.route("**/api/v1/events?*", answer_events)
    await tab.open("events")
    rows = tab.page.locator("[data-testid=event][data-id^='journal:']")
    assert await rows.count() == PAGE
    assert await rows.first.get_attribute("data-id") == f"journal:{ALL}"
    for count in (2 * PAGE, ALL):
        await tab.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        await tab.until(f"() => {ROWS}.length === {count}")
    await tab.page.get_by_role("textbox", name="Field").fill("name")
    await tab.page.keyboard.press("Enter")
    await tab.until(f"() => {ROWS}.length === {ALL // 3}")


async def test_older_events_that_are_asked_for_twice_come_once(tab: Tab) -> None:
    """As where the list grows on top while the older ones are on their way."""
    waiting: list[Any] = []

    async def answer_late(route: Any) -> None:
        if "before=" in route.request.url:
            waiting.append(route)
        else:
            await answer_events(route)

    await tab.hold_live()
    await tab.page.route("**/api/v1/events?*", answer_late)
    await tab.open("events")
    await tab.page.get_by_role("button", name="Older").evaluate("button => { button.click(); button.click(); }")
    async with asyncio.timeout(30):
        while len(waiting) < 2:
            await asyncio.sleep(0.05)
    for route in waiting:
        async with tab.page.expect_response("**/api/v1/events?*before=*"):
            await answer_events(route)
        await tab.until(f"() => {ROWS}.length >= {2 * PAGE}")
    await tab.page.evaluate("new Promise(done => setTimeout(done, 300))")
    assert await tab.page.evaluate(f"{ROWS}.length") == 2 * PAGE


async def test_older_events_are_read_in_a_pause(tab: Tab) -> None:
    """What is loaded by scrolling, or with another filter, is not taken for what came during the pause."""
    await tab.hold_live()
    await tab.page.route("**/api/v1/events?*", answer_events)
    await tab.open("events")
    await tab.page.get_by_role("button", name="Pause").click()
    newest = tab.page.locator(f"[data-id='journal:{ALL}']")
    for count in (2 * PAGE, ALL):
        await tab.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        await tab.until(f"() => {ROWS}.length === {count}")
        assert await newest.count() == 1
    await tab.page.get_by_role("combobox", name="Kind").select_option("changed")
    await tab.until(f"() => {ROWS}.length === {PAGE}")
    await tab.ready("events")
    assert await newest.count() == 1
    assert await tab.page.get_by_text("while paused").count() == 0


async def test_events_stay_where_older_ones_fail(tab: Tab) -> None:
    """What is there stays below the sentence, and the same request is sent again at the next connection."""
    fails = True

    async def answer(route: Any) -> None:
        if fails and "before=" in route.request.url:
            await route.fulfill(status=503, json={"error": "the journal is busy"})
        else:
            await answer_events(route)

    await tab.page.route("**/api/v1/events?*", answer)
    await tab.open("events")
    await tab.page.locator("[data-testid=connection][data-state=live]").wait_for()
    await tab.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    await tab.page.get_by_text("the journal is busy").wait_for()
    assert await tab.page.evaluate(f"{ROWS}.length") == PAGE
    fails = False
    await tab.page.context.set_offline(True)
    await tab.page.locator("[data-testid=connection][data-state=lost]").wait_for()
    await tab.page.context.set_offline(False)
    await tab.until(f"() => {ROWS}.length >= {2 * PAGE}")
    await tab.page.get_by_text("the journal is busy").wait_for(state="detached")
    tab.expect("503", "ERR_")


async def test_pages_that_were_opened_without_network_come_back(tab: Tab) -> None:
    """Events and alerts that could not be loaded are there once the bridge can be reached again."""
    await tab.page.route("**/api/v1/events?*", answer_events)
    await tab.page.route(
        "**/api/v1/alerts?*", lambda route: route.fulfill(json={"alerts": [alert(1, "a", "b")], "next": None})
    )
    for name, part in (("Events", "event"), ("Alerts", "alert")):
        await tab.open(name.lower())  # so that its modules are there
        await tab.page.get_by_role("link", name="Map", exact=True).click()
        await tab.ready("map")
        await tab.page.locator("[data-testid=connection][data-state=live]").wait_for()
        await tab.page.context.set_offline(True)
        await tab.page.unroute_all()
        await tab.page.get_by_role("link", name=name, exact=True).click()
        await tab.page.locator(f"main[data-page={name.lower()}]").get_by_text("The bridge cannot be reached").wait_for()
        await tab.page.route("**/api/v1/events?*", answer_events)
        await tab.page.route(
            "**/api/v1/alerts?*", lambda route: route.fulfill(json={"alerts": [alert(1, "a", "b")], "next": None})
        )
        await tab.page.context.set_offline(False)
        await tab.page.get_by_test_id(part).first.wait_for()
    tab.expect("ERR_")


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


def alert(number: int, kind: str, message: str, call: str | None = None, time: str = "2026-11-01") -> dict[str, Any]:
    """An alert as the bridge answers it."""
    return {
        "seq": number,
        "time": f"{time}T00:00:00Z",
        "kind": kind,
        "call": call,
        "message": message,
        "advice": f"look at {kind}",
    }


async def show_alerts(
    console: Console, tab: Tab, alerts: list[dict[str, Any]], *, held: tuple[str, ...] = (), **of_calls: list[Any]
) -> "Locator":
    """Opens the page with these alerts, while these calls hold something, and these alerts of calls hold; its cards."""
    calls = await console.get("calls")
    calls["held"] = [{"call": call, "count": 6, "since": None} for call in held]
    for call in calls["calls"]:
        call["alerts"] = of_calls.get(call["call"], [])
    await tab.hold_live()
    await tab.page.route("**/api/v1/calls", lambda route: route.fulfill(json=calls))
    await tab.page.route("**/api/v1/alerts?*", lambda route: route.fulfill(json={"alerts": alerts, "next": None}))
    await tab.open("alerts")
    return tab.page.get_by_test_id("alert")


async def test_alerts_say_what_to_do(console: Console, tab: Tab) -> None:
    """Alerts of one kind, call and subject stand together, with how often and since when."""
    message = "10 terminal records are missing at once: 359235170000000 and others"
    alerts = [alert(number, "removal_held", message, "user_terminals", f"2026-11-0{number}") for number in (3, 2, 1)]
    card = await show_alerts(console, tab, alerts, held=("user_terminals",))
    assert await card.count() == 1
    text = await card.inner_text()
    assert "3 times" in text
    assert await card.get_by_role("link", name="Release in the Polling Manager").count() == 1
    link = card.get_by_role("link", name="359235170000000")
    assert await link.get_attribute("href") == "#/terminal/359235170000000"
    assert "look at removal_held" in text


LASTS = "product SC-{}, bucket 1-2 (Maritime): the allowance of 300 GB will probably last until the cycle ends on {}"
RUNS_OUT = (
    "product SC-{}, bucket 1-2 (Maritime): the allowance of 300 GB will probably be used up on 2099-12-03T07:00:00Z, "
    "before the cycle ends on {}; 47.6 GB are used, 307 GB are expected by then"
)
LATER, EARLIER = "2099-12-09T00:00:00Z", "2021-12-09T00:00:00Z"


async def test_allowances_have_cards_of_their_own(console: Console, tab: Tab) -> None:
    """One for each product: open where its newest alert says that it runs out in a cycle that goes on."""
    sentences = ((6, LASTS, 1, LATER), (5, RUNS_OUT, 1, LATER), (4, RUNS_OUT, 2, LATER), (3, RUNS_OUT, 3, EARLIER))
    alerts = [
        alert(number, "allowance_exhausts", sentence.format(product, end), "usage_consumption")
        for number, sentence, product, end in sentences
    ]
    cards = await show_alerts(console, tab, alerts)
    assert await cards.evaluate_all("cards => cards.map(card => card.dataset.open)") == ["true", "false", "false"]
    first = cards.first
    assert await first.get_by_role("link", name="SC-2").get_attribute("href") == "#/product/SC-2"
    assert "on 3 Dec 2099 07:00" in await first.locator("p").first.inner_text()
    over = cards.filter(has_text="SC-1").first
    assert "over" in await over.locator("h2").inner_text()
    await over.get_by_text("1 earlier sentence").click()
    link = over.locator("details").get_by_role("link", name="SC-1")
    assert await link.evaluate("link => getComputedStyle(link).textDecorationLine") == "underline"
    assert await link.is_visible()
    await tab.page.locator("nav .badge").get_by_text("1", exact=True).wait_for()


async def test_alert_is_open_while_it_holds(console: Console, tab: Tab) -> None:
    """Judged by what the calls say now; of what nobody can know it is told how long ago it was."""
    alerts = [
        alert(6, "set_aside", "1 record could not be read and was left as it was", "organizations"),
        alert(5, "set_aside", "1 record could not be read and was left as it was", "sites"),
        alert(4, "value_unreadable", "sinr_db could not be read in 3 records", "ut_signal_quality"),
        alert(3, "value_unreadable", "rssi_dbm could not be read in 3 records", "ut_signal_quality"),
        alert(2, "removal_held", "6 site records are missing at once", "sites"),
        alert(1, "client_id_taken", "another client connects with the client id 'a'"),
    ]
    cards = await show_alerts(
        console,
        tab,
        alerts,
        organizations=[{"kind": "set_aside", "about": ""}],
        ut_signal_quality=[{"kind": "value_unreadable", "about": "rssi_dbm"}],
    )
    assert await cards.count() == len(alerts)
    states = {
        await card.locator("p").first.inner_text(): await card.locator("h2").inner_text() for card in await cards.all()
    }
    opened = await cards.evaluate_all(
        "cards => cards.filter(card => card.dataset.open === 'true').map(card => card.dataset.kind)"
    )
    assert opened == ["set_aside", "value_unreadable"]
    assert "open" in states["rssi_dbm could not be read in 3 records"]
    assert "over" in states["sinr_db could not be read in 3 records"]
    assert "over" in states["6 site records are missing at once"]
    assert "ago" in states["another client connects with the client id 'a'"]
    await tab.page.locator("nav .badge").get_by_text("2", exact=True).wait_for()


async def test_new_alert_whose_end_nobody_knows_is_counted_for_a_day(console: Console, tab: Tab) -> None:
    """It stands first and in the top bar; an older one of its kind does not."""
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    alerts = [
        alert(2, "removal_held", "6 site records are missing at once", "sites", now),
        alert(1, "commands_dropped", "7 commands dropped: commands came faster than they could be executed", None, now),
        alert(0, "client_id_taken", "another client connects with the client id 'a'"),
    ]
    cards = await show_alerts(console, tab, alerts)
    kinds = await cards.evaluate_all("cards => cards.map(card => card.dataset.kind)")
    assert kinds == ["commands_dropped", "removal_held", "client_id_taken"]
    await tab.page.locator("nav .badge").get_by_text("1", exact=True).wait_for()


async def test_list_without_events_says_why(tab: Tab) -> None:
    """Whether nothing has happened yet, or nothing that passes the filters."""
    await tab.hold_live()
    await tab.page.route("**/api/v1/events?*", lambda route: route.fulfill(json={"events": [], "next": None}))
    await tab.open("events")
    await tab.page.get_by_text("they come with the first difference between two polls").wait_for()
    await tab.page.get_by_role("combobox", name="Kind").select_option("removed")
    await tab.page.get_by_text("No event passes these filters").wait_for()
