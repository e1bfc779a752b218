"""A terminal and a product: what is drawn is what the API said."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.console.conftest import Console, Tab
from tests.console.test_pages import addresses

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_chart_says_what_the_series_says(console: Console, tab: Tab) -> None:
    """Each report has a canvas, a summary in words, and a table with each sample, unrounded, at its time."""
    address = (await addresses(console))["terminal"]
    imei = address.removeprefix("terminal/")
    path = f"series?entity=terminal&id={imei}&report=signal_quality"
    (series,) = await tab.open_and_read(address, "terminal", path)
    chart = tab.page.locator("[data-testid=chart][data-report=signal_quality]")
    assert await chart.locator("canvas").count() == 1
    summary = await chart.get_by_test_id("chart-summary").inner_text()
    assert "SINR: now" in summary or "SINR: last" in summary
    await chart.get_by_role("button", name="Table").click()
    rows = (
        await chart.get_by_test_id("chart-table")
        .locator("tbody tr")
        .evaluate_all(
            "rows => rows.map(row => [Date.parse(row.querySelector('time').dateTime),"
            " row.querySelector('[data-name=sinr_db]')?.value ?? null])"
        )
    )
    (sinr,) = (line for line in series["series"] if line["name"] == "sinr_db")
    wanted = dict(zip(series["t"], sinr["v"], strict=True))
    drawn = {time: value if value is None else float(value) for time, value in rows}
    assert drawn
    assert drawn == wanted


async def test_span_is_chosen_by_buttons(console: Console, tab: Tab) -> None:
    """24 h at first; a button changes it, and the address says so."""
    await tab.open((await addresses(console))["terminal"], "terminal")
    assert await tab.page.get_by_role("button", name="24h").get_attribute("aria-pressed") == "true"
    for span in ("1h", "2y"):
        await tab.page.get_by_role("button", name=span, exact=True).click()
        await tab.page.locator(f"button[aria-pressed=true]:text-is('{span}')").wait_for()
        await tab.ready("terminal")
        assert f"span={span}" in tab.page.url


async def test_chart_without_samples_says_so(console: Console, tab: Tab) -> None:
    address = (await addresses(console))["terminal"]
    await tab.open(f"{address}?from=2021-01-01T00:00:00.000Z&to=2021-01-02T00:00:00.000Z", "terminal")
    chart = tab.page.locator("[data-testid=chart][data-report=signal_quality]")
    assert await chart.get_by_test_id("chart-summary").inner_text() == "no samples in this span"


async def test_value_of_a_past_span_is_the_last_one(console: Console, tab: Tab) -> None:
    """Only where the span reaches to now, and nothing is missing since, a value is that of now."""
    address = (await addresses(console))["terminal"]
    now = "2026-11-23T12:00:00.000Z"
    series = {
        "step": None,
        "source": "samples",
        "period": 300.0,
        "lateness": 0,
        "t": [1795424970000],
        "series": [{"name": "rsrp_dbm", "unit": "dBm", "kind": "gauge", "v": [-44.0]}],
        "gaps": [],
        "corrected": [],
    }
    await tab.page.route("**/api/v1/series?*", lambda route: route.fulfill(json=series))
    await tab.open(f"{address}?from=2026-11-23T00:00:00.000Z&to={now}", "terminal")
    summary = tab.page.locator("[data-report=signal_quality]").get_by_test_id("chart-summary")
    assert "RSRP: last \u221244 dBm" in await summary.inner_text()


async def test_offline_terminal_says_for_how_long(console: Console, tab: Tab) -> None:
    """Samples that say that it is offline are data, not a sign of life: both times stand on its page."""
    address = (await addresses(console))["terminal"]
    imei = address.removeprefix("terminal/")
    detail = await console.get(f"terminals/{imei}")
    detail["record"] |= {"state": "offline", "last_seen": "2026-11-20T00:00:00.000Z"}
    changed = {
        "id": "journal:7",
        "type": "net.oneweb.terminal.changed",
        "subject": imei,
        "time": "2026-11-20T09:09:30.000Z",
        "ts": 1795165770000,
        "data": {"changed": {"state": {"from": "online", "to": "offline"}}, "record": {}},
    }
    await tab.page.route("**/api/v1/terminals/*", lambda route: route.fulfill(json=detail))
    await tab.page.route("**/api/v1/events?*", lambda route: route.fulfill(json={"events": [changed], "next": None}))
    await tab.open(address, "terminal")
    facts = tab.page.locator(".facts").first
    await facts.get_by_text("offline for").wait_for()
    assert await facts.locator("time[title^=since]").get_attribute("datetime") == "2026-11-20T09:09:30.000Z"
    text = await facts.inner_text()
    assert "last data" in text
    assert "last seen" in text


async def test_record_components_and_events_are_shown(console: Console, tab: Tab) -> None:
    """Every field of the record, each component, and the events of this terminal."""
    address = (await addresses(console))["terminal"]
    (detail,) = await tab.open_and_read(address, "terminal", address.replace("terminal/", "terminals/"))
    assert await tab.page.locator("h1").inner_text() == detail["record"]["name"]
    text = await tab.page.locator("main").inner_text()
    assert all(value in text for name, value in detail["record"].items() if name in {"serial_number", "manufacturer"})
    assert all(version in text for version in detail["components"].values())
    await tab.page.get_by_test_id("event").first.wait_for()


PLAYED_STREAM = """
const send = window.fetch;
window.fetch = (address, options) => {
  if (window.push || !String(address).includes('api/v1/live')) return send(address, options);
  const body = new ReadableStream({
    start(stream) { window.push = text => stream.enqueue(new TextEncoder().encode(text)); },
  });
  return Promise.resolve(new Response(body));
};
"""


async def test_terminal_is_loaded_again_with_its_products(console: Console, tab: Tab) -> None:
    """What the stream says of a product of the terminal changes the terminal's page, without a word of itself."""
    address = (await addresses(console))["terminal"]
    path = address.replace("terminal/", "/api/v1/terminals/")
    await tab.page.add_init_script(PLAYED_STREAM)
    await tab.open(address)
    # It may be loaded again because the stream is connected: a second after that.
    await tab.page.wait_for_timeout(1500)
    detail = await console.get(address.replace("terminal/", "terminals/"))
    (product_id, *_) = detail["relations"]["product_ids"]
    message = json.dumps({"entity": "product", "id": product_id, "what": "state", "body": {"product_id": product_id}})
    async with tab.page.expect_response(lambda answer: answer.url.endswith(path)):
        await tab.page.evaluate("text => window.push(text)", f"event: state\ndata: {message}\n\n")


async def test_product_shows_usage_and_forecast(console: Console, tab: Tab) -> None:
    """Used of how much, when it runs out in words, and the reports of usage as a table."""
    address = (await addresses(console))["product"]
    paths = (address.replace("product/", "products/"), "series?entity=usage")
    detail, series = await tab.open_and_read(address, "product", *paths)
    (bucket,) = detail["buckets"]
    chart = tab.page.locator(f"[data-testid=chart][data-bucket='{bucket['bucket_id']}']")
    assert "GB" in await chart.inner_text()
    assert await chart.get_by_test_id("forecast").inner_text()
    await chart.get_by_role("button", name="Table").click()
    last = chart.get_by_test_id("chart-table").locator("data").last
    (used,) = (line["v"] for line in series["series"])
    assert float(await last.get_attribute("value") or "nan") == used[-1]


async def test_product_shows_who_shares_its_allowance(console: Console, tab: Tab) -> None:
    """The members of a shared allowance are listed with links to their products."""
    fleet = await console.get("fleet")
    ids = {row[fleet["columns"].index("product_id")] for row in fleet["rows"]} - {None}
    answers = [await console.get(f"products/{quote(id)}") for id in sorted(ids)]
    shared = next(answer for answer in answers if answer["pools"])
    await tab.open(f"product/{quote(shared['record']['product_id'])}", "product")
    pool = tab.page.get_by_test_id("pool")
    members = shared["pools"][0]["members"]
    assert await pool.locator("tbody tr").count() == len(members)
    assert shared["pools"][0]["shared_allowance_name"] in await pool.inner_text()


FORECAST = {
    "status": "ok",
    "confidence": "medium",
    "time": "2099-11-23T09:09:30.000Z",
    "cycle_end": "2099-12-01T00:00:00Z",
    "exhausted_p10": "2099-11-25T00:00:00Z",
    "exhausted_p50": "2099-11-27T00:00:00Z",
    "exhausted_p90": "2099-11-29T00:00:00Z",
    "used_at_end_p10_gb": 316.2,
    "used_at_end_p50_gb": 341.7,
    "used_at_end_p90_gb": 371.0,
    "overage_p10_blocks": 1,
    "overage_p50_blocks": 2,
    "overage_p90_blocks": 3,
}


@pytest.mark.parametrize(
    ("forecast", "words"),
    [
        (FORECAST, "Exhausts 27 Nov 2099 (25 Nov 2099 \u2013 29 Nov 2099). 2 blocks (1\u20133)"),
        ({"status": "not_enough_data"}, "No forecast yet: there is not enough data."),
        ({"status": "unlimited"}, "Unlimited: it does not run out."),
        (None, "No forecast yet: it comes with the next report of usage."),
    ],
)
async def test_forecast_is_a_sentence(
    console: Console, tab: Tab, forecast: dict[str, object] | None, words: str
) -> None:
    """When it runs out with its band, or why that is not known; above the charts of its terminal in short."""
    address = (await addresses(console))["product"]
    detail = await console.get(address.replace("product/", "products/"))
    bucket, imei = detail["buckets"][0], detail["terminal"]["imei"]
    forecasts = [] if forecast is None else [{"bucket_id": bucket["bucket_id"], **forecast}]
    terminal = {**await console.get(f"terminals/{imei}"), "forecasts": forecasts}
    await tab.page.route("**/api/v1/products/*", lambda route: route.fulfill(json=detail | {"forecasts": forecasts}))
    await tab.page.route("**/api/v1/terminals/*", lambda route: route.fulfill(json=terminal))
    await tab.open(address, "product")
    chart = tab.page.locator(f"[data-testid=chart][data-bucket='{bucket['bucket_id']}']")
    assert (await chart.get_by_test_id("forecast").inner_text()).startswith(words)
    if forecast is FORECAST:
        await tab.open(f"terminal/{imei}", "terminal")
        products = tab.page.locator("main section").filter(has_text="Products").first
        assert "exhausts 27 Nov 2099 (25 Nov 2099 \u2013 29 Nov 2099)" in await products.inner_text()


async def test_product_has_its_site_the_price_of_a_block_and_a_csv(console: Console, tab: Tab) -> None:
    """What a bill is checked with: where it is, what a block costs, and the reports of this cycle as a file."""
    address = (await addresses(console))["product"]
    detail = await console.get(address.replace("product/", "products/"))
    bucket = detail["buckets"][0]["bucket_id"]
    detail["forecasts"] = [{"bucket_id": bucket, **FORECAST, "overage_price": 90.5, "overage_currency": "EUR"}]
    await tab.page.route("**/api/v1/products/*", lambda route: route.fulfill(json=detail))
    await tab.open(address, "product")
    chart = tab.page.locator(f"[data-testid=chart][data-bucket='{bucket}']")
    assert "at 90.5 EUR expected" in await chart.get_by_test_id("forecast").inner_text()
    link = tab.page.locator(".facts").get_by_role("link", name=detail["record"]["site_id"])
    assert await link.get_attribute("href") == f"#/organizations?kind=site&id={detail['record']['site_id']}"
    async with tab.page.expect_download() as waiting:
        await chart.get_by_role("link", name="CSV").click()
    lines = Path(await (await waiting.value).path()).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "time,id,kind,name,value"
    assert any(",usage,used_gb," in line for line in lines[1:]), lines[:3]


async def test_zoom_by_dragging_and_back(console: Console, tab: Tab) -> None:
    """A drag over a chart shows that span, a double click the one before, or a day where there was none."""
    address = (await addresses(console))["terminal"]
    await tab.hold_live()  # a sample that comes would draw the chart anew, beneath the pointer
    await tab.open(f"{address}?span=1h", "terminal")
    over = tab.page.locator("[data-report=signal_quality] .u-over")
    await over.scroll_into_view_if_needed()
    box = await over.bounding_box()
    assert box is not None
    await tab.page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 20)
    await tab.page.mouse.down()
    await tab.page.mouse.move(box["x"] + 0.99 * box["width"], box["y"] + 20, steps=5)
    async with tab.page.expect_response(lambda answer: "signal_quality" in answer.url and "until=" in answer.url):
        await tab.page.mouse.up()
    await tab.ready("terminal")
    assert "from=" in tab.page.url
    zoomed = tab.page.url
    await over.dblclick()
    await tab.until("() => location.hash.includes('span=1h') && !location.hash.includes('from=')")
    await tab.page.goto("about:blank")
    await tab.page.goto(zoomed)
    await tab.ready("terminal")
    await over.dblclick()
    await tab.page.locator("button[aria-pressed=true]:text-is('24h')").wait_for()


async def test_pointer_is_at_the_same_time_in_all_charts(console: Console, tab: Tab) -> None:
    """Who points at a moment of one chart sees it in the others."""
    await tab.hold_live()
    await tab.open(f"{(await addresses(console))['terminal']}?span=1h", "terminal")
    await tab.page.locator("[data-report=signal_quality] .u-over").hover()
    other = "document.querySelector('[data-report=traffic] .u-cursor-x')"
    await tab.until(f"() => new DOMMatrix(getComputedStyle({other}).transform).e > 10")
