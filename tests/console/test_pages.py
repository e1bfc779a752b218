"""Every page on a desk and on phones: drawn, within its width, without a complaint, from this host alone."""

import gzip
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests import harness
from tests.console import fleets
from tests.console.conftest import Console, OpenTab, Tab

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

WIDTHS = {"desk": (1280, 800), "phone": (390, 844), "narrow": (320, 700)}
MAX_FIRST_PAGE_BYTES = 80_000


async def addresses(console: Console, **headers: str) -> dict[str, str]:
    """An address of each page, by its name."""
    fleet = await console.get("fleet", **headers)
    rows = [dict(zip(fleet["columns"], row, strict=True)) for row in fleet["rows"]]
    # One that is online has values, whatever the time of the story is.
    online = [row for row in rows if row["product_id"] and row["state"] == "online" and row["sinr_db"] is not None]
    row = min(online, key=lambda row: row["used_pct"] is None)  # with a limited allowance, where there is one
    plain = ("organizations", "map", "polling", "events", "alerts", "setup")
    return {
        "fleet": "",
        "terminal": f"terminal/{row['imei']}",
        "product": f"product/{quote(row['product_id'])}",
        **{name: name for name in plain},
    }


@pytest.mark.parametrize("size", WIDTHS)
async def test_page_is_drawn_within_its_width(console: Console, open_tab: OpenTab, size: str) -> None:
    """Each page has one heading and its navigation, and nothing is wider than the screen."""
    width, height = WIDTHS[size]
    tab = await open_tab(console.url, width, height)
    for name, address in (await addresses(console)).items():
        await tab.open(address, name)
        assert await tab.page.locator("h1").count() == 1
        assert await tab.page.evaluate("document.documentElement.scrollWidth") <= width, name
        for link in ("Fleet", "Organizations", "Map", "Polling Manager", "Events", "Alerts"):
            assert await tab.page.get_by_role("navigation").get_by_role("link", name=link, exact=True).count() == 1
        boxes = [await link.bounding_box() for link in await tab.page.locator("nav a").all()]
        assert all(box and box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes), name


async def test_phone_shows_a_backlog(console: Console, open_tab: OpenTab) -> None:
    """Rows that wait for the broker are to be seen on the narrowest phone, and when the last event was."""
    tab = await open_tab(console.url, 320, 700)
    state = await console.get("bridge")
    state["info"]["journal"]["backlog"] = 12345
    await tab.hold_live()
    await tab.page.route("**/api/v1/bridge", lambda route: route.fulfill(json=state))
    await tab.open()
    assert await tab.page.get_by_text("backlog 12").is_visible()
    assert await tab.page.locator(".fact[title^='newest event']").is_visible()
    assert await tab.page.evaluate("document.documentElement.scrollWidth") <= 320


async def test_files_have_their_version_in_the_address(tab: Tab) -> None:
    """Page and modules are asked for with `?v=`, by way of the import map, so that a browser keeps them for ever."""
    await tab.open()
    await tab.open("polling")
    files = [address for address in tab.requests if "/static/" in address]
    assert any("polling.js" in address for address in files)
    assert [address for address in files if not re.search(r"\?v=[0-9a-f]+$", address)] == []


async def test_first_page_is_light(tab: Tab) -> None:
    """What a browser loads before the fleet is there weighs less than 80 kB."""
    answers: list[Any] = []
    tab.page.on("response", lambda answer: None if "/api/" in answer.url else answers.append(answer))
    await tab.open()
    await tab.page.wait_for_load_state("load")
    # What comes later is not of the first page, and its body might be asked for as the page is closed.
    bodies = [await answer.body() for answer in answers[:]]
    assert len(bodies) > 10
    assert sum(len(gzip.compress(body, 9)) for body in bodies) <= MAX_FIRST_PAGE_BYTES


async def test_page_without_network_says_so_and_comes_back(tab: Tab) -> None:
    """A page that is open stays, says that the connection is lost, and goes on by itself."""
    await tab.open()
    connection = tab.page.get_by_test_id("connection")
    await connection.and_(tab.page.locator("[data-state=live]")).wait_for()
    await tab.page.context.set_offline(True)
    await connection.and_(tab.page.locator("[data-state=lost]")).wait_for()
    assert await tab.page.get_by_test_id("fleet-row").count() == 8
    await tab.page.get_by_role("link", name="Map", exact=True).click()
    await tab.page.get_by_text("The bridge cannot be reached").wait_for()
    await tab.page.context.set_offline(False)
    await connection.and_(tab.page.locator("[data-state=live]")).wait_for()
    await tab.ready("map")
    tab.expect("ERR_INTERNET_DISCONNECTED")


async def test_every_page_says_that_the_bridge_is_gone(console: Console, tab: Tab) -> None:
    """One sentence on each page; what the lights of API and broker showed is not known any more."""
    for name, address in (await addresses(console)).items():
        await tab.open(address, name)
        await tab.page.locator("[data-testid=connection][data-state=live]").wait_for()
        await tab.page.context.set_offline(True)
        await tab.page.get_by_text("The bridge cannot be reached").wait_for()
        for light in ("API", "broker"):
            assert await tab.page.locator(".light").filter(has_text=light).get_attribute("data-good") is None, name
        await tab.page.context.set_offline(False)
        await tab.page.get_by_text("The bridge cannot be reached").wait_for(state="detached")
    tab.expect("ERR_INTERNET_DISCONNECTED")


async def test_chart_does_not_repeat_that_the_bridge_is_gone(console: Console, tab: Tab) -> None:
    """It stands on top of the page, once, also where a chart has asked in vain."""
    await tab.open((await addresses(console))["terminal"], "terminal")
    await tab.page.locator("[data-testid=connection][data-state=live]").wait_for()
    await tab.page.context.set_offline(True)
    await tab.page.get_by_text("The bridge cannot be reached").wait_for()
    async with tab.page.expect_event("requestfailed", lambda request: "/series" in request.url):
        await tab.page.get_by_role("button", name="1h", exact=True).click()
    await tab.page.locator("main").get_by_text("Loading …").first.wait_for(state="detached")
    assert await tab.page.get_by_text("The bridge cannot be reached").count() == 1
    tab.expect("ERR_INTERNET_DISCONNECTED")


async def test_page_opened_by_keyboard_has_the_focus_on_its_heading(tab: Tab) -> None:
    """From a row of the fleet, from the navigation, and back; who types in the search stays there."""
    await tab.open()
    heading = "() => document.activeElement.matches('h1')"
    await tab.page.get_by_test_id("fleet-row").first.get_by_role("link").press("Enter")
    await tab.ready("terminal")
    await tab.until(heading)
    await tab.page.get_by_role("link", name="Polling Manager", exact=True).press("Enter")
    await tab.ready("polling")
    await tab.until(heading)
    await tab.page.go_back()
    await tab.ready("terminal")
    await tab.until(heading)


async def test_script_from_outside_is_refused(tab: Tab) -> None:
    """Trusted Types: nothing makes a script from a text, not even a test."""
    await tab.open()
    with pytest.raises(Exception, match="TrustedScript"):
        await tab.page.add_script_tag(content="window.foreign = 1")
    assert await tab.page.evaluate("window.foreign") is None
    assert any("TrustedScript" in complaint for complaint in tab.complaints)
    tab.complaints.clear()


async def test_unknown_address_leads_to_the_fleet(tab: Tab) -> None:
    await tab.open("nothing/here", "none")
    await tab.page.get_by_role("link", name="go to the fleet").click()
    await tab.ready("fleet")


async def test_times_are_shown_in_utc_or_local(console: Console, open_tab: OpenTab) -> None:
    """A switch chooses the zone; the choice is kept over a reload."""
    tab = await open_tab(console.url, timezone_id="Asia/Tokyo")
    await tab.open()
    seen = tab.page.locator("[data-column=seen_ts] time").first
    assert "local" not in (await seen.get_attribute("title") or "")
    await tab.page.get_by_role("button", name="UTC").click()
    await tab.until("() => document.querySelector('[data-column=seen_ts] time').title.includes('local')")
    await tab.page.reload()
    await tab.ready("fleet")
    assert "local" in (await seen.get_attribute("title") or "")


async def test_hostile_names_are_text_on_every_page(open_tab: OpenTab, tmp_path: Path) -> None:
    """Terminals, sites, customers, products and buckets are called what a script would be: no page becomes wider."""
    async with harness.world(tmp_path, start=None, report_period=0.02) as world:
        for op, kind, names in (
            ("rename", "terminals", fleets.HOSTILE),
            ("rename_site", "sites", fleets.HOSTILE[::-1]),
            ("rename_organization", "organizations", fleets.HOSTILE),
        ):
            for record, name in zip(world.api.truth(kind), names, strict=False):
                world.api.fleet(op, id=record["id"], name=name)
        for product, name in zip(world.api.truth("products"), fleets.HOSTILE, strict=False):
            world.api.fleet("set", id=product["id"], attributes={"name": name})
        for report, name in zip(world.api.truth("usage"), fleets.HOSTILE, strict=False):
            world.api.fleet("set", id=report["id"], attributes={"bucket": [{**report["bucket"][0], "name": name}]})
        console = Console(world, tmp_path)
        async with harness.running(console.config) as process:
            await console.until_polled(process)
            tab = await open_tab(console.url, 390, 844)
            await tab.page.add_init_script("window.alert = () => { window.alerted = true; };")
            for name, address in await hostile_addresses(console):
                await tab.open(address, name)
                assert await tab.page.evaluate("window.alerted") is None, address
                assert await tab.page.locator("main img, main script").count() == 0, address
                assert await tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
                assert await tab.page.evaluate("document.title.length < 20000"), address
            await tab.page.close()


async def hostile_addresses(console: Console) -> list[tuple[str, str]]:
    """Every page, and the terminal of each hostile name with the name as its heading."""
    pages = list((await addresses(console)).items())
    rows = (await console.get("fleet"))["rows"]
    assert {row[1] for row in rows} >= set(fleets.HOSTILE)
    pages += [("terminal", f"terminal/{row[0]}") for row in rows if row[1] in fleets.HOSTILE]
    products = [record for row in rows for record in (await console.get(f"terminals/{row[0]}"))["products"]]
    assert {product["name"] for product in products} & set(fleets.HOSTILE)
    pages += [("product", f"product/{quote(p['product_id'])}") for p in products if p["name"] in fleets.HOSTILE]
    roots = (await console.get("tree"))["roots"]
    pages += [("organizations", f"organizations?kind=organization&id={quote(root['id'])}") for root in roots[:3]]
    return pages


async def test_sign_in_page_is_drawn_within_its_width(tab: Tab) -> None:
    """One field and a button, also on the narrowest phone."""
    session = {"signed_in": False, "read_only": False, "base": "/"}
    await tab.page.route("**/api/v1/session", lambda route: route.fulfill(json=session))
    for width, height in WIDTHS.values():
        await tab.page.goto("about:blank")
        await tab.page.set_viewport_size({"width": width, "height": height})
        await tab.open("", "sign-in")
        assert await tab.page.locator("h1").count() == 1
        assert await tab.page.locator("main").get_by_role("textbox").count() == 1
        assert await tab.page.locator("main").get_by_role("button").count() == 1
        assert await tab.page.evaluate("document.documentElement.scrollWidth") <= width


async def test_parts_without_values_are_not_kept(tab: Tab) -> None:
    """What htm kept of them would hold the tree in which each was drawn first, with all rows of the fleet."""
    await tab.open("setup")
    is_kept = await tab.page.evaluate(
        """async () => {
          const { html } = await import('./static/html.js');
          const draw = () => html`<p>text</p>`;
          return draw() === draw();
        }"""
    )
    assert is_kept is False
