"""The fleet of 10 000: sorted, filtered and scrolled with few rows drawn, and true while values change."""

import csv
import io
import json
import random
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from tests import harness
from tests.console import fleets
from tests.console.conftest import Console, OpenTab, Tab

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

ROWS = fleets.make_rows(10_000)
ANSWER = json.dumps(fleets.make_answer(ROWS, "SEQ"))
MAX_DRAWN_ROWS = 80
HEADS = {
    "Name": "name",
    "State": "state",
    "SINR dB": "sinr_db",
    "Avail. %": "link_availability_pct",
    "Usage of allowance": "used_pct",
    "Exhausted": "exhausted_ts",
    "Seen": "seen_ts",
}


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(tab: Tab, console: Console) -> Tab:
    """The page with a fleet of 10 000."""
    answer = ANSWER.replace("SEQ", (await console.get("fleet"))["seq"], 1)
    await tab.page.route("**/api/v1/fleet", lambda route: route.fulfill(body=answer, content_type="application/json"))
    await tab.open()
    return tab


async def shown(tab: Tab) -> list[str]:
    """The ids of the rows that are drawn, from top to bottom."""
    ids: list[str] = await tab.page.evaluate(
        "[...document.querySelectorAll('[data-testid=fleet-row]')]"
        ".sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map(row => row.dataset.id)"
    )
    return ids


def expected(column: str, *, descending: bool = False) -> list[str]:
    """The ids in the order of a column: what is missing last, equal values by their ids."""
    known = [row for row in ROWS if row[column] is not None]
    known.sort(key=lambda row: row["imei"])
    known.sort(key=lambda row: row[column], reverse=descending)
    return [row["imei"] for row in known] + [row["imei"] for row in ROWS if row[column] is None]


async def test_heads_sort_up_and_down_with_missing_last(fleet: Tab) -> None:
    """A click sorts upwards, a second one downwards; the address says so; what is not known comes last."""
    for head, column in HEADS.items():
        if column == "name":
            continue
        cell = fleet.page.get_by_role("columnheader", name=head, exact=True)
        assert await cell.get_by_role("button").get_attribute("title") or head == "State"
        for direction, sort in (("ascending", column), ("descending", f"-{column}")):
            await fleet.page.evaluate("scrollTo(0, 0)")
            await cell.get_by_role("button").click()
            await fleet.page.locator(f"[data-head={column}][aria-sort={direction}]").wait_for()
            order = expected(column, descending=direction == "descending")
            await fleet.page.locator(f"[data-id='{order[0]}'][aria-rowindex='2']").wait_for()
            assert (await shown(fleet))[:20] == order[:20]
            assert f"sort={sort}" in fleet.page.url
        last = expected(column, descending=True)[-20:]
        await fleet.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        await fleet.page.locator(f"[data-id='{last[-1]}']").wait_for()
        assert (await shown(fleet))[-20:] == last


async def test_exhausted_without_a_forecast_is_sorted_as_exhausted(console: Console, tab: Tab) -> None:
    """What is used up runs out first, also before there are days enough for a forecast."""
    rows = fleets.make_rows(8)
    rows[7] |= {"used_pct": 104.0, "exhausted_ts": None}
    answer = json.dumps(fleets.make_answer(rows, (await console.get("fleet"))["seq"]))
    await tab.page.route("**/api/v1/fleet", lambda route: route.fulfill(body=answer, content_type="application/json"))
    await tab.open("?sort=exhausted_ts")
    first = tab.page.get_by_test_id("fleet-row").first
    assert await first.get_attribute("data-id") == rows[7]["imei"]
    assert await first.locator("[data-column=exhausted_ts]").inner_text() == "exhausted"


async def test_search_finds_every_product_of_a_terminal(console: Console, tab: Tab) -> None:
    """Also the one that the row does not show, as it stands on a bill."""
    rows = [row | {"product_ids": None} for row in fleets.make_rows(12)]
    rows[9]["product_ids"] = "SC-9 SC-777"
    answer = json.dumps(fleets.make_answer(rows, (await console.get("fleet"))["seq"]))
    await tab.page.route("**/api/v1/fleet", lambda route: route.fulfill(body=answer, content_type="application/json"))
    await tab.open("?q=sc-777")
    await tab.page.locator("[role=table][aria-rowcount='2']").wait_for()
    assert await shown(tab) == [rows[9]["imei"]]


@pytest.mark.parametrize(("hours", "is_stale"), [(1, False), (48, True)])
async def test_usage_that_was_not_read_lately_is_stale(console: Console, tab: Tab, hours: int, is_stale: bool) -> None:
    """It has the sign of a value that is old in the fleet, and on the pages of the terminal and the product."""
    calls, table = await console.get("calls"), await console.get("fleet")
    rows = [dict(zip(table["columns"], values, strict=True)) for values in table["rows"]]
    row = next(row for row in rows if row["used_pct"] is not None)
    pages = {"fleet": "", "terminal": f"terminal/{row['imei']}", "product": f"product/{quote(row['product_id'])}"}
    call = next(call for call in calls["calls"] if call["call"] == "usage_consumption")
    read_at = datetime.now(UTC) - timedelta(hours=hours)
    call.update(effective_interval=3600, last_success=read_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"))
    await tab.hold_live()
    await tab.page.route("**/api/v1/calls", lambda route: route.fulfill(json=calls))
    for name, address in pages.items():
        await tab.open(address, name)
        await tab.page.locator(".usage .bar").first.wait_for()
        if is_stale:
            await tab.page.locator(".usage .stale-sign").first.wait_for()
        else:
            assert await tab.page.locator(".usage .stale-sign").count() == 0


async def test_names_are_sorted_as_people_do(fleet: Tab) -> None:
    """Vessel 9 comes before Vessel 10."""
    await fleet.page.get_by_role("searchbox", name="Search").fill("vessel 101")
    await fleet.page.locator("[role=table][aria-rowcount='12']").wait_for()
    rows = fleet.page.locator("[data-testid=fleet-row] [data-column=name] a")
    assert (await rows.all_inner_texts())[:3] == ["Vessel 101", "Vessel 1010", "Vessel 1011"]


async def test_texts_are_ordered_as_the_browsers_collator_does(tab: Tab) -> None:
    """Whatever is in them: the quick comparison of plain texts and the collator's agree on each pair."""
    await tab.open()
    chance = random.Random(4)
    parts = [
        *string.printable[:95],
        "0",
        "007",
        "12",
        "120",
        " ",
        "Vessel",
        "vessel",
        "é",
        "ß",
        "Ø",
        "\u202e",
        "\U0001f6a2",
    ]
    texts = ["".join(chance.choices(parts, k=chance.randrange(6))) for _ in range(600)] + ["9" * 300, "9" * 299 + "8"]
    differing = await tab.page.evaluate(
        """async texts => {
          const { compareSortable, sortable } = await import('./static/textorder.js');
          const collator = new Intl.Collator('en', { numeric: true, sensitivity: 'base' });
          const wrong = [];
          for (const a of texts) for (const b of texts) {
            const order = compareSortable(sortable(a), sortable(b));
            if (Math.sign(order) !== Math.sign(collator.compare(a, b))) wrong.push([a, b]);
          }
          return wrong.slice(0, 20);
        }""",
        texts,
    )
    assert differing == []


async def test_filters_are_complete_when_the_page_is_ready(fleet: Tab) -> None:
    """Each state, customer and site can be chosen once the page says that it is drawn."""
    for label, wanted in (("State", 2), ("Customer", 5 + len(fleets.HOSTILE)), ("Site", 50)):
        options = fleet.page.get_by_role("combobox", name=label).locator("option")
        assert await options.first.text_content() == "all"
        assert await options.count() >= 1 + wanted


async def test_few_rows_are_drawn(fleet: Tab) -> None:
    """Wherever the page is scrolled to, the screen is full and no more than 80 rows are there."""
    table = fleet.page.get_by_role("table", name="Terminals")
    assert await table.get_attribute("aria-rowcount") in {"10000", "10001"}
    for part in (0, 0.31, 0.77, 1):
        await fleet.page.evaluate("part => scrollTo(0, part * document.documentElement.scrollHeight)", part)
        await fleet.until(
            "() => [...document.querySelectorAll('[data-testid=fleet-row]')]"
            ".some(row => Math.abs(row.getBoundingClientRect().top - innerHeight / 2) < 45)"
        )
        assert await fleet.page.get_by_test_id("fleet-row").count() <= MAX_DRAWN_ROWS


async def test_filters_stand_in_the_address(fleet: Tab) -> None:
    """A filtered view can be sent: who opens its address sees the same rows."""
    await fleet.page.get_by_role("combobox", name="State").select_option("offline")
    await fleet.page.get_by_role("combobox", name="Customer").select_option(label="Customer 3")
    await fleet.page.get_by_role("searchbox", name="Search").fill("site 8")
    wanted = [
        row["imei"]
        for row in ROWS
        if row["state"] == "offline" and row["end_customer"] == "Customer 3" and "site 8" in row["site"].lower()
    ]
    assert wanted
    table = fleet.page.locator(f"[role=table][aria-rowcount='{len(wanted) + 1}']")
    await table.wait_for()
    address = fleet.page.url
    assert all(part in address for part in ("state=offline", "customer=ACC-3", "q=site"))
    await fleet.page.goto("about:blank")
    await fleet.page.goto(address)
    await table.wait_for()
    assert sorted(await shown(fleet)) == sorted(wanted)


async def test_count_of_the_offline_leads_to_them(console: Console, tab: Tab) -> None:
    """A click on how many are offline shows those, beside the filters that are set."""
    rows = fleets.make_rows(100)
    answer = json.dumps(fleets.make_answer(rows, (await console.get("fleet"))["seq"]))
    await tab.page.route("**/api/v1/fleet", lambda route: route.fulfill(body=answer, content_type="application/json"))
    await tab.open("?customer=ACC-3")
    away = [row for row in rows if row["state"] == "offline" and row["end_customer_id"] == "ACC-3"]
    await tab.page.get_by_role("link", name=f"{len(away)} offline").click()
    await tab.page.locator(f"[role=table][aria-rowcount='{len(away) + 1}']").wait_for()
    assert sorted(await shown(tab)) == sorted(row["imei"] for row in away)


async def test_states_are_counted_as_known(console: Console, tab: Tab) -> None:
    """A state that nobody knows is not counted as offline; a state that is neither has its own count."""
    rows = fleets.make_rows(40)
    for row, state in zip(rows, (None, None, None, "offline", "standby"), strict=False):
        row["state"] = state
    for row in rows[5:]:
        row["state"] = "online"
    answer = json.dumps(fleets.make_answer(rows, (await console.get("fleet"))["seq"]))
    await tab.page.route("**/api/v1/fleet", lambda route: route.fulfill(body=answer, content_type="application/json"))
    await tab.open()
    counts = await tab.page.get_by_role("status").filter(has_text="terminals").inner_text()
    assert counts == "40 terminals \u00b7 1 offline \u00b7 1 standby \u00b7 3 unknown"


@pytest.mark.parametrize(("width", "is_complete"), [(768, False), (1280, True)])
async def test_columns_scroll_with_their_heads(
    console: Console, open_tab: OpenTab, width: int, is_complete: bool
) -> None:
    """Where the columns need more room than there is, the table scrolls, heads and rows together; the page does not."""
    tab = await open_tab(console.url, width, 800)
    answer = json.dumps(fleets.make_answer(fleets.make_rows(60), (await console.get("fleet"))["seq"]))
    await tab.page.route("**/api/v1/fleet", lambda route: route.fulfill(body=answer, content_type="application/json"))
    await tab.open()
    if is_complete:
        await tab.page.get_by_text("Columns", exact=True).click()
        for box in await tab.page.locator(".menu input").all():
            await box.check()
        await tab.page.keyboard.press("Escape")
    edges = """() => ['columnheader', 'cell'].map(role =>
      [...document.querySelectorAll(`.fleet-row:first-child [role=${role}]`)].at(-1).getBoundingClientRect())
      .flatMap(box => [box.left, box.right])"""
    body = tab.page.locator(".fleet-body")
    assert (await tab.page.evaluate(edges))[1] > width
    await body.evaluate("body => { body.scrollLeft = 9999; }")
    await tab.until("() => document.querySelector('.fleet-head').scrollLeft > 0")
    left, right, cell_left, cell_right = await tab.page.evaluate(edges)
    assert (left, right) == pytest.approx((cell_left, cell_right), abs=1)
    assert right <= width
    await tab.page.locator(".fleet-head").evaluate("head => { head.scrollLeft = 0; }")
    await tab.until("() => document.querySelector('.fleet-body').scrollLeft === 0")
    assert await tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [700, 768, 1024, 1280])
async def test_heads_stay_below_the_bar(console: Console, open_tab: OpenTab, width: int) -> None:
    """However many lines the bar on top has, the heads stand below it while the page is scrolled."""
    tab = await open_tab(console.url, width, 800)
    answer = json.dumps(fleets.make_answer(fleets.make_rows(200), (await console.get("fleet"))["seq"]))
    await tab.page.route("**/api/v1/fleet", lambda route: route.fulfill(body=answer, content_type="application/json"))
    await tab.open()
    await tab.page.evaluate("scrollTo(0, 2000)")
    edges = "['.top', '.fleet-head'].map(part => document.querySelector(part).getBoundingClientRect())"
    await tab.until(f"() => {{ const [bar, head] = {edges}; return Math.abs(head.top - bar.bottom) < 2; }}")


async def test_menu_of_columns_closes(fleet: Tab) -> None:
    """With Escape, with a click elsewhere that does nothing else, and when the focus leaves it."""
    menu, summary = fleet.page.locator("details.menu"), fleet.page.get_by_text("Columns", exact=True)
    is_open = "menu => menu.open"
    await summary.click()
    await fleet.page.keyboard.press("Tab")
    await fleet.page.keyboard.press("Escape")
    assert not await menu.evaluate(is_open)
    assert await summary.evaluate("summary => document.activeElement === summary")
    await summary.click()
    await fleet.page.get_by_role("columnheader", name="State", exact=True).get_by_role("button").click()
    assert not await menu.evaluate(is_open)
    assert "sort=" not in fleet.page.url
    await fleet.page.get_by_role("columnheader", name="State", exact=True).get_by_role("button").click()
    assert "sort=state" in fleet.page.url
    await summary.click()
    await fleet.page.get_by_role("button", name="CSV").focus()
    assert not await menu.evaluate(is_open)


async def test_organization_keeps_what_the_tree_counts(console: Console, tab: Tab) -> None:
    """An organization that is nobody's customer leads to the terminals that the tree counts below it, with its name."""
    rows = fleets.make_rows(60)[6:]
    node = {"kind": "organization", "id": "ACC-7", "name": "Sub Distributor", "states": {"online": 1}, "terminals": 24}
    customers = [
        {**node, "id": f"ACC-{number}", "name": f"Customer {number}", "terminals": 12, "children": []}
        for number in (1, 2)
    ]
    tree = {"roots": [{**node, "id": "ACC-100", "name": "Partner", "children": [{**node, "children": customers}]}]}
    answer = json.dumps(fleets.make_answer(rows, (await console.get("fleet"))["seq"]))
    await tab.page.route("**/api/v1/fleet", lambda route: route.fulfill(body=answer, content_type="application/json"))
    await tab.page.route("**/api/v1/tree", lambda route: route.fulfill(json=tree))
    record: dict[str, Any] = {"record": {"name": "Sub Distributor"}, "parent": None, "children": [], "sites": []}
    await tab.page.route("**/api/v1/organizations/*", lambda route: route.fulfill(json=record))
    await tab.open("organizations?kind=organization&id=ACC-7", "organizations")
    await tab.page.get_by_role("link", name="its terminals in the fleet").click()
    await tab.ready("fleet")
    wanted = {row["imei"] for row in rows if row["end_customer_id"] in {"ACC-1", "ACC-2"}}
    await tab.page.locator(f"[role=table][aria-rowcount='{len(wanted) + 1}']").wait_for()
    assert set(await shown(tab)) <= wanted
    box = tab.page.get_by_role("combobox", name="Organization")
    assert await box.evaluate("box => box.selectedOptions[0].text") == "Sub Distributor"
    await box.select_option("all")
    await tab.page.locator(f"[role=table][aria-rowcount='{len(rows) + 1}']").wait_for()


async def test_phone_shows_the_column_that_it_is_sorted_by(console: Console, open_tab: OpenTab) -> None:
    """On a phone a row has no room for all columns, but for the one in whose order they stand; no head is cut off."""
    tab = await open_tab(console.url, 390, 844)
    answer = json.dumps(fleets.make_answer(fleets.make_rows(20), (await console.get("fleet"))["seq"]))
    await tab.page.route("**/api/v1/fleet", lambda route: route.fulfill(body=answer, content_type="application/json"))
    await tab.open()
    row = tab.page.get_by_test_id("fleet-row").first
    for head, column in HEADS.items():
        cell = tab.page.get_by_role("columnheader", name=head, exact=True)
        box = await cell.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 390
        await cell.get_by_role("button").click()
        await tab.page.locator(f"[data-head={column}]:not([aria-sort=none])").wait_for()
        assert await row.locator(f"[data-column={column}]").is_visible(), column


async def test_search_leads_to_the_fleet_from_every_page(fleet: Tab) -> None:
    """The key / goes to the field, and what is typed filters the fleet."""
    await fleet.open("alerts")
    await fleet.page.keyboard.press("/")
    await fleet.page.keyboard.type("359235170000042")
    await fleet.ready("fleet")
    await fleet.page.locator("[role=table][aria-rowcount='2']").wait_for()
    assert await fleet.page.get_by_role("searchbox", name="Search").input_value() == "359235170000042"


async def test_hostile_names_are_text(fleet: Tab) -> None:
    """Markup, formulas, 10 kB and marks of direction are shown as they are, and none makes the page wider."""
    await fleet.page.evaluate("() => { window.alert = () => { window.alerted = true; }; }")
    for row in ROWS[: len(fleets.HOSTILE)]:
        await fleet.page.get_by_role("searchbox", name="Search").fill(row["imei"])
        link = fleet.page.locator(f"[data-id='{row['imei']}'] [data-column=name] a")
        await link.wait_for()
        assert (await link.text_content() or "").startswith(row["name"][:40])
    assert await fleet.page.evaluate("window.alerted") is None
    assert await fleet.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await fleet.page.locator("main img, main script").count() == 0


async def test_csv_has_the_rows_and_no_formulas(fleet: Tab) -> None:
    """The button writes the rows that are shown; a cell that a spreadsheet would compute gets an apostrophe."""
    await fleet.page.get_by_role("combobox", name="State").select_option("online")
    async with fleet.page.expect_download() as waiting:
        await fleet.page.get_by_role("button", name="CSV").click()
    download = await waiting.value
    text = Path(await download.path()).read_text(encoding="utf-8")
    cells = list(csv.DictReader(io.StringIO(text, newline="")))
    online = {row["imei"]: row for row in ROWS if row["state"] == "online"}
    assert {cell["imei"] for cell in cells} == set(online)
    names = {cell["imei"]: cell["name"] for cell in cells}
    assert names[ROWS[1]["imei"]] == f"'{fleets.HOSTILE[1]}"
    assert next(cell for cell in cells if online[cell["imei"]]["sinr_db"] is None)["sinr_db"] == ""
    times = {cell["imei"]: datetime.fromisoformat(cell["seen_time"]) for cell in cells}
    assert times == {imei: datetime.fromtimestamp(row["seen_ts"] / 1000, UTC) for imei, row in online.items()}
    assert {float(cell["sinr_db"]) for cell in cells if cell["sinr_db"].startswith("-")}


async def test_value_changes_in_place(tab: Tab, console: Console) -> None:
    """A sample that comes is shown in its row, without a reload; no row moves, and neither scroll nor focus do."""
    real = await console.get("fleet")
    rows = fleets.make_rows(300)
    for row, values in zip(rows[150:], real["rows"], strict=False):
        row |= {"imei": values[0], "sinr_db": -99.0, "sinr_ts": 0}
    answer: dict[str, Any] = fleets.make_answer(rows, real["seq"])
    await tab.page.route("**/api/v1/fleet", lambda route: route.fulfill(json=answer))
    # Usage of buckets that the made rows do not have is a reason to ask again in 20 s, which is not what is tried here.
    await tab.page.add_init_script(
        "const later = setTimeout;"
        "window.setTimeout = (work, ms, ...more) => ms === 20000 ? 0 : later(work, ms, ...more);"
    )
    await tab.open("?sort=sinr_db")
    order = await shown(tab)
    link = tab.page.get_by_test_id("fleet-row").nth(3).get_by_role("link")
    await tab.page.evaluate("scrollTo(0, 60)")
    await link.focus()
    await harness.poll(console.world.port, "ut_signal_quality")
    sinr = "[...document.querySelectorAll('[data-testid=fleet-row] [data-column=sinr_db]')].slice(0, 8)"
    await tab.until(f"() => {sinr}.some(cell => !cell.innerText.includes('99'))")
    assert await tab.page.evaluate("scrollY") == 60
    assert await link.evaluate("link => document.activeElement === link")
    assert (await shown(tab))[:20] == order[:20]
    assert len([address for address in tab.requests if address.endswith("/api/v1/fleet")]) == 1
