"""The Polling Manager: each deed arrives as over MQTT, with its result on the result topic; by keyboard alone too."""

from typing import Any

import pytest

from tests import harness
from tests.console.conftest import Console, Tab

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def until_state(console: Console, call: str, **wanted: object) -> None:
    """Waits until the retained state of a call has these members."""
    topic = f"oneweb/bridge/polling/{call}/state"
    await harness.until_retained(console.world.port, topic, lambda state: wanted.items() <= state.items())


async def test_switch_arrives_as_over_mqtt(console: Console, tab: Tab) -> None:
    """Off and on again by the switch; the row says that it was set here, and a button takes it back to the file."""
    await tab.open("polling")
    row = tab.page.locator("[data-call=sites]")
    async with harness.recording(console.world.port, "oneweb/bridge/polling/sites/result") as results:
        await row.get_by_role("switch", name="sites on").click()
        await row.get_by_test_id("call-status").and_(tab.page.get_by_text("disabled")).wait_for()
        await until_state(console, "sites", enabled=False, status="disabled")
        await results.until(lambda: results.on("oneweb/bridge/polling/sites/result"))
    await row.get_by_role("button", name="sites back to the file").click()
    await until_state(console, "sites", enabled=True)
    await row.get_by_role("button", name="sites back to the file").wait_for(state="detached")
    assert await row.get_by_role("switch", name="sites on").is_checked()


async def test_interval_is_typed_with_a_unit(console: Console, tab: Tab) -> None:
    """Enter sends; what is refused is told in the row, with the focus where it was; Escape takes it back."""
    await tab.open("polling")
    field = tab.page.get_by_role("textbox", name="organizations interval")
    await field.fill("7m")
    await field.press("Enter")
    await until_state(console, "organizations", interval=420)
    await tab.page.locator("[data-call=organizations]").get_by_text("interval set here").wait_for()
    await field.fill("1s")
    await field.press("Enter")
    await tab.page.locator("[aria-label='organizations interval'][aria-invalid=true]").wait_for()
    assert "10" in await tab.page.locator("[data-why=organizations]").inner_text()
    assert await field.evaluate("field => document.activeElement === field")
    await field.press("Escape")
    await tab.page.locator("[aria-label='organizations interval'][aria-invalid=false]").wait_for()
    assert await field.input_value() == "7m"
    await tab.page.get_by_role("button", name="organizations back to the file").click()
    await until_state(console, "organizations", interval=10)
    tab.expect("400")


async def test_interval_that_is_typed_is_not_lost(console: Console, tab: Tab) -> None:
    """Who does not press Enter finds a button beside what was typed, also after a look elsewhere."""
    await tab.open("polling")
    field = tab.page.get_by_role("textbox", name="organizations interval")
    await field.fill("8m")
    await tab.page.locator("h1").click()
    assert await field.input_value() == "8m"
    await tab.page.get_by_role("button", name="Set organizations interval").click()
    await until_state(console, "organizations", interval=480)
    await tab.page.get_by_role("button", name="Set organizations interval").wait_for(state="detached")
    await tab.page.get_by_role("button", name="organizations back to the file").click()
    await until_state(console, "organizations", interval=10)


async def test_held_removal_is_found_and_released(console: Console, tab: Tab) -> None:
    """What is held stands above the calls, with what a release does; after it the records are gone."""
    sites = [site["id"] for site in console.world.api.truth("sites")]
    for site in sites:
        console.world.api.fleet("remove", id=site)
    try:
        await harness.poll(console.world.port, "sites")
        alerts = {call["call"]: call["alerts"] for call in (await console.get("calls"))["calls"]}
        assert alerts["sites"] == [{"kind": "removal_held", "about": ""}]
        assert alerts["products"] == []
        await tab.open("alerts")
        await tab.page.locator("[data-kind=removal_held][data-open=true]").wait_for()
        await tab.page.locator("nav .badge").wait_for()
        await tab.open("polling")
        held = tab.page.locator("main .message").filter(has_text="Held: sites.")
        await held.wait_for()
        assert f"{len(sites)} records" in await held.inner_text()
        assert "removes what is still missing" in await held.inner_text()
        await held.get_by_text("Which", exact=True).click()
        await held.get_by_text(", ".join(sorted(sites))).wait_for()
        await held.get_by_role("button", name="Release sites").press("Enter")
        confirm = held.get_by_role("button", name=f"Release {len(sites)} records?")
        assert await confirm.evaluate("button => document.activeElement === button")
        await confirm.press("Escape")
        assert await held.get_by_role("button", name="Cancel").count() == 0
        await held.get_by_role("button", name="Release sites").dblclick()
        await held.get_by_role("button", name="Cancel").wait_for()
        assert (await console.get("calls"))["held"], "a double click is one wish"
        await confirm.press("Enter")
        await held.wait_for(state="detached")
        await until_state(console, "sites", status="ok", records=0)
        await tab.open("alerts")
        card = tab.page.locator("[data-kind=removal_held]").filter(has_text=f"{len(sites)} site records").first
        assert await card.get_attribute("data-open") == "false", "what was held is released"
    finally:
        for site in sites:
            console.world.api.fleet("restore", id=site)
        await harness.poll(console.world.port, "sites")


async def test_release_says_what_it_does(console: Console, tab: Tab) -> None:
    """Where a release has to wait for a complete listing, the page says that it was taken."""
    calls = await console.get("calls") | {"held": [{"call": "sites", "count": 6, "since": None}]}
    await tab.page.route("**/api/v1/calls", lambda route: route.fulfill(json=calls))
    done = {"id": "1", "status": "ok", "count": 1}
    await tab.page.route("**/api/v1/requests/release", lambda route: route.fulfill(json=done))
    await tab.open("polling")
    await tab.page.get_by_role("button", name="Release sites").click()
    await tab.page.get_by_role("button", name="Release 6 records?").click()
    await tab.page.get_by_text("Released: what is still missing goes with").wait_for()


async def test_call_says_what_it_is_about(tab: Tab) -> None:
    await tab.open("polling")
    assert "RSRP, RSSI and SINR" in await tab.page.locator("[data-call=ut_signal_quality]").inner_text()


async def test_poll_button_polls(console: Console, tab: Tab) -> None:
    """The row shows the new poll, and the result topic has its result."""
    await tab.open("polling")
    topic = "oneweb/bridge/polling/products/result"
    row = tab.page.locator("[data-call=products]")
    async with harness.recording(console.world.port, topic) as results:
        await row.get_by_role("button", name="Poll products").click()
        (result, *_) = await results.until(lambda: results.on(topic))
    assert result["status"] == "ok"
    await row.get_by_test_id("call-status").and_(tab.page.get_by_text("ok")).wait_for()


async def test_poll_by_keyboard_keeps_the_focus(tab: Tab) -> None:
    """While a call is polled and after it, the focus stays on its button."""
    await tab.open("polling")
    button = tab.page.get_by_role("button", name="Poll products")
    for key in ("Enter", "Space"):
        await button.focus()
        async with tab.page.expect_response("**/api/v1/calls/products/poll"):
            await tab.page.keyboard.press(key)
        await tab.page.locator("[aria-label='Poll products'][aria-disabled=false]").wait_for()
        assert await focused(tab) == "Poll products"


async def test_poll_whose_result_never_came_is_over_with_the_next_poll(console: Console, tab: Tab) -> None:
    """Where the result was lost, as over a hidden page, the call's own state says that it is over."""
    await tab.page.route(
        "**/api/v1/calls/products/poll", lambda route: route.fulfill(status=202, json={"id": "console-lost"})
    )
    # No other poll may come between.
    await harness.publish(console.world.port, "oneweb/bridge/polling/products/set", '{"interval": "1h"}')
    await until_state(console, "products", interval=3600)
    await tab.open("polling")
    await tab.page.locator("[data-testid=connection][data-state=live]").wait_for()
    button = tab.page.get_by_role("button", name="Poll products")
    status = tab.page.locator("[data-call=products]").get_by_test_id("call-status")
    await button.click()
    await status.and_(tab.page.get_by_text("polling")).wait_for()
    await harness.poll(console.world.port, "products")
    await tab.page.locator("[aria-label='Poll products'][aria-disabled=false]").wait_for()
    await status.and_(tab.page.get_by_text("ok")).wait_for()
    await harness.publish(console.world.port, "oneweb/bridge/polling/products/set", '{"interval": null}')
    await until_state(console, "products", interval=10)


async def test_failure_of_a_poll_goes_with_the_next_one(console: Console, tab: Tab) -> None:
    """The sentence stands in the row as long as the call has failed, and not longer."""
    await tab.open("polling")
    why = tab.page.locator("[data-why=products]")
    console.world.api.fault("status", status=403, path="productinventory")
    try:
        await tab.page.get_by_role("button", name="Poll products").click()
        await why.get_by_text("403").wait_for()
    finally:
        console.world.api.clear_faults()
    await harness.poll(console.world.port, "products")
    await why.wait_for(state="detached")


async def test_each_setting_says_where_it_comes_from(console: Console, tab: Tab) -> None:
    """A switch over MQTT and an interval that was typed here are told apart; without a poll nothing is known."""
    calls = await console.get("calls")
    listing = next(call for call in calls["calls"] if call["call"] == "sites")
    listing["source"] = {"enabled": "mqtt", "interval": "console"}
    listing.update(records=0, events=0, samples=0)
    listing.pop("duration_ms", None)
    await tab.hold_live()
    await tab.page.route("**/api/v1/calls", lambda route: route.fulfill(json=calls))
    await tab.open("polling")
    row = tab.page.locator("[data-call=sites]")
    await row.get_by_text("switch set over MQTT, interval set here").wait_for()
    assert await row.locator("[data-label=Records]").inner_text() == "\u2013"


async def test_interval_that_is_no_duration_is_told_its_bounds(tab: Tab) -> None:
    await tab.open("polling")
    field = tab.page.get_by_role("textbox", name="products interval")
    await field.fill("2 minutes")
    await field.press("Enter")
    await tab.page.get_by_text("from 10 s to 7 d").wait_for()
    tab.expect("400")


async def test_poll_all_and_release_arrive_as_over_mqtt(console: Console, tab: Tab) -> None:
    """Both have their answer on its topic; what is held stands above the calls with its button."""

    async def hold(route: Any) -> None:
        answer = await (await route.fetch()).json()
        held = [{"call": "user_terminals", "count": 10, "since": "2026-11-23T09:09:30.000Z"}]
        await route.fulfill(json={**answer, "held": held})

    await tab.page.route("**/api/v1/calls", hold)
    await tab.open("polling")
    assert "10 records" in await tab.page.locator("main").inner_text()
    topics = ("oneweb/bridge/polling/all/result", "oneweb/bridge/response/release")
    async with harness.recording(console.world.port, *topics) as answers:
        await tab.page.get_by_role("button", name="Poll all").click()
        (result, *_) = await answers.until(lambda: answers.on(topics[0]))
        await tab.page.get_by_role("button", name="Release user_terminals").click()
        await tab.page.get_by_role("button", name="Release 10 records?").click()
        (response, *_) = await answers.until(lambda: answers.on(topics[1]))
    assert (result["command"], result["status"], response["status"]) == ("poll", "ok", "ok")
    assert result["id"].startswith("console-")
    assert response["id"].startswith("console-")


async def test_change_over_mqtt_is_shown(console: Console, tab: Tab) -> None:
    """What another sets over MQTT stands in the row at once, with its source."""
    await tab.open("polling")
    await harness.publish(console.world.port, "oneweb/bridge/polling/ut_traffic/interval/set", "13m")
    await tab.until("() => document.querySelector(\"[aria-label='ut_traffic interval']\").value === '13m'")
    await tab.page.locator("[data-call=ut_traffic]").get_by_text("set over MQTT").wait_for()
    await harness.publish(console.world.port, "oneweb/bridge/polling/ut_traffic/interval/set", "null")
    await tab.until("() => document.querySelector(\"[aria-label='ut_traffic interval']\").value === '10s'")


async def test_read_only_page_has_no_buttons(tab: Tab) -> None:
    """Where commands are refused the page offers none, and still shows everything."""
    session = {"signed_in": True, "read_only": True, "version": "1", "instance": "main", "base": "/"}
    await tab.page.route("**/api/v1/session", lambda route: route.fulfill(json=session))
    await tab.open("polling")
    assert await tab.page.get_by_test_id("call-row").count() == 12
    assert await tab.page.locator("main").get_by_role("button").count() == 0
    assert await tab.page.get_by_role("switch", disabled=False).count() == 0


async def test_whole_page_is_used_by_keyboard(console: Console, tab: Tab) -> None:
    """From the top with Tab and Enter: skip the bar, poll all, switch a call off and on, set its interval."""
    await tab.open("polling")
    await tab.page.keyboard.press("Tab")
    await tab.page.keyboard.press("Enter")
    await tab.page.keyboard.press("Tab")
    assert await focused(tab) == "Poll all"
    await tab.page.keyboard.press("Tab")
    assert await focused(tab) == "user_terminals on"
    await tab.page.keyboard.press("Space")
    await until_state(console, "user_terminals", enabled=False)
    await tab.page.locator("[data-call=user_terminals] [data-status=disabled]").wait_for()
    await tab.page.locator("[aria-label='user_terminals on']").focus()
    await tab.page.keyboard.press("Space")
    await until_state(console, "user_terminals", enabled=True)
    await tab.page.keyboard.press("Tab")
    assert await focused(tab) == "user_terminals interval"
    await tab.page.keyboard.press("Control+a")
    await tab.page.keyboard.type("11s")
    await tab.page.keyboard.press("Enter")
    await until_state(console, "user_terminals", interval=11)
    await tab.page.keyboard.press("Tab")
    assert await focused(tab) == "Poll user_terminals"
    await tab.page.get_by_role("button", name="user_terminals back to the file").press("Enter")
    await until_state(console, "user_terminals", interval=10)


async def focused(tab: Tab) -> str:
    """The name of what has the focus."""
    name: str = await tab.page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.innerText")
    return name
