"""Every switch of Shape does what it says, over real HTTP."""

import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from oneweb_bridge.simulator import Options, Shape, Simulator, serve

START = "2025-06-17T14:15:00Z"
TERMINALS = "/resourceInventory/v3/userTerminal"
PRODUCTS = "/api/webservices/productinventory/v2/product"
ORGANIZATIONS = "/partyManagement/v1/organization"
SITES = "/geographicSiteManagement/v1/geographicSite"
USAGE = "/usageConsumption/v3/usageConsumptionReport"
PERFORMANCE = "/performanceMonitoring/v2/userTerminal/"
THROUGHPUT = "/performanceMonitoring/v2/product/throughput"
HELLO = "/hello/v1/oneweb/world"
REPORTS = ("linkAvailability", "signalQuality", "resourceState", "traffic", "linkMetrics")
CREDENTIALS = {"Authorization": "Basic " + base64.b64encode(b"demo:demo-secret").decode()}


class Reply(msgspec.Struct):
    """An answer that was read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks the simulator, with the right credentials unless others are given."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self._session = session

    async def get(self, path: str, *, headers: Any = None, **query: Any) -> Reply:
        return await self.ask("GET", path, headers=headers, params=query)

    async def ask(self, method: str, path: str, *, headers: dict[str, str] | None = None, **rest: Any) -> Reply:
        sent = CREDENTIALS if headers is None else headers
        async with self._session.request(method, self.simulator.url + path, headers=sent, **rest) as answer:
            return Reply(
                answer.status,
                {name.lower(): text for name, text in answer.headers.items()},
                await answer.read(),
            )


@asynccontextmanager
async def simulated(**options: Any) -> AsyncIterator[Client]:
    """A simulator whose clock stands still, and a client for it."""
    chosen = {"start": START, "speed": 0.0, "seed": 2, **options}
    async with serve(Options(**chosen)) as simulator, aiohttp.ClientSession() as session:
        yield Client(simulator, session)


async def shaped(path: str, *, query: dict[str, Any] | None = None, **shape: Any) -> Any:
    """The JSON of one path in a shape."""
    async with simulated(shape=Shape(**shape)) as api:
        reply = await api.get(path, **(query or {}))
        assert reply.status == 200, reply.body
        return reply.json


PRODUCTS = "/api/webservices/productinventory/v2/product"
USAGE = "/usageConsumption/v3/usageConsumptionReport"
THROUGHPUT = "/performanceMonitoring/v2/product/throughput"
BASE = "/performanceMonitoring/v2"


def indicators(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        each
        for entry in entries
        for measurement in entry["measurement"]
        for each in measurement["performanceIndicator"]
    ]


@pytest.mark.parametrize(
    "name", [name for name in Shape.__struct_fields__ if name.endswith("_path") and name != "component_path"]
)
async def test_path_moves_the_call(name: str) -> None:
    """Rows 2, 3, 30: a call answers at the path that was chosen, and no longer at the other."""
    async with simulated(shape=msgspec.convert({name: "/moved/here"}, Shape)) as api:
        assert (await api.get("/moved/here")).status == 200
        assert (await api.get(getattr(Shape(), name))).status == 404


async def test_performance_base_moves_all_reports() -> None:
    """Row 4: reports answer below the chosen base."""
    assert len(await shaped("/perf/userTerminal/traffic", performance_base="/perf")) == 25


async def test_reports_by_parameter_share_a_path() -> None:
    """Row 4: one path, and the report's name as a parameter."""
    async with simulated(shape=Shape(reports="parameter")) as api:
        listed = (await api.get(BASE + "/performanceReport", report="traffic")).json
        assert {entry["report"] for entry in listed} == {"traffic"}
        assert (await api.get(PERFORMANCE + "traffic")).status == 404
        assert (await api.get(BASE + "/performanceReport")).status == 400


async def test_report_is_requested_first() -> None:
    """Row 5: POST gives 202 and an id; the first GET of it is 202 too, the next is the report."""
    async with simulated(shape=Shape(report_request="post_first")) as api:
        assert (await api.get(PERFORMANCE + "traffic")).status == 404
        body = {"report": "traffic", "startDateTime": "2025-06-17T12:00:00Z"}
        posted = await api.ask("POST", BASE + "/performanceReport", json=body)
        assert posted.status == 202
        path = f"{BASE}/performanceReport/{posted.json['id']}"
        assert posted.headers["location"] == path
        assert (await api.get(path)).status == 202
        listed = (await api.get(path)).json
        assert max(len(entry["measurement"]) for entry in listed) > 5
        assert (await api.ask("POST", BASE + "/performanceReport", json={"report": "none"})).status == 400


async def test_window_takes_the_chosen_parameters() -> None:
    """Row 6: other names, epoch milliseconds; required if so chosen."""
    shape = Shape(start_parameter="from", end_parameter="to", time_format="epoch_ms", window_required=True)
    async with simulated(shape=shape) as api:
        path = PERFORMANCE + "resourceState"
        reply = await api.get(path, **{"from": 1750161600000, "to": 1750165200000})
        times = [measurement["timestamp"] for entry in reply.json for measurement in entry["measurement"]]
        assert {time[:14] for time in times} == {"2025-06-17T12:"}
        assert (await api.get(path)).status == 400
        assert (await api.get(path, **{"from": START})).status == 400


async def test_timestamps_may_be_epoch_ms() -> None:
    """Row 6: measurements carry their time in milliseconds."""
    entries = await shaped(PERFORMANCE + "resourceState", timestamps="epoch_ms")
    assert all(isinstance(measurement["timestamp"], int) for entry in entries for measurement in entry["measurement"])


async def test_reports_per_terminal_refuse_the_bulk() -> None:
    """Row 7: 400 without an id; one terminal by path or by parameter."""
    async with simulated(shape=Shape(report_scope="per_terminal")) as api:
        imei = (await api.get(TERMINALS)).json[0]["id"]
        assert (await api.get(PERFORMANCE + "traffic")).status == 400
        assert (await api.get(PERFORMANCE + "traffic", id=f"{imei},{imei[:-1]}0")).status == 400
        by_path = (await api.get(f"{PERFORMANCE}{imei}/traffic")).json
        assert [entry["id"] for entry in by_path] == [imei]
        assert (await api.get(PERFORMANCE + "traffic", id=imei)).json == by_path
        assert (await api.get(f"{PERFORMANCE}359235170000000/traffic")).status == 404


async def test_indicators_flat_and_columns() -> None:
    """Row 8: a flat object per sample; or columns and rows."""
    path = PERFORMANCE + "signalQuality"
    flat, columns = await shaped(path, indicators="flat"), await shaped(path, indicators="columns")
    sample = flat[0]["measurement"][0]
    assert set(sample) == {"timestamp", "rsrp", "rssi", "sinr"}
    assert columns[0]["columns"] == ["timestamp", "rsrp", "rssi", "sinr"]
    assert columns[0]["rows"][0] == list(sample.values())


async def test_locations_may_be_null() -> None:
    """No location, no features, no geometry: all in a fleet of 25."""
    locations = [terminal["location"] for terminal in await shaped(TERMINALS, null_locations=True)]
    assert None in locations
    features = [location["features"] for location in locations if location]
    assert [] in features
    assert any(feature[0]["geometry"] is None for feature in features if feature)


async def test_there_may_be_more_fields() -> None:
    """A network status and a firmware version of terminals, a balance of usage, two parties of a site."""
    terminal, site = (await shaped(TERMINALS, more_fields=True))[0], (await shaped(SITES, more_fields=True))[0]
    assert {"networkStatus", "firmwareVersion"} <= terminal.keys()
    assert [party["role"] for party in site["relatedParty"]] == ["Distribution Partner", "End Customer"]
    buckets = [report["bucket"][0] for report in await shaped(USAGE, more_fields=True)]
    assert {"amount", "units"} == next(
        bucket["currentBalance"] for bucket in buckets if "currentBalance" in bucket
    ).keys()
    assert not {"networkStatus", "firmwareVersion"} & (await shaped(TERMINALS))[0].keys()


async def test_every_class_of_traffic_is_played() -> None:
    """Assured forwarding of some products has values, and of others none that is known."""
    values: dict[str, set[bool]] = {}
    for indicator in indicators(await shaped(THROUGHPUT, query={"startDateTime": "2025-06-17T10:00:00Z"})):
        values.setdefault(indicator["name"], set()).add(bool(indicator["value"]))
    assert values["assuredForwardingDownlink"] == {True, False}
    assert values["bestEffortDownlink"] >= {True}
    assert {"expeditedForwardingUplink", "assuredForwardingUplink"} <= values.keys()


async def test_names_may_be_others() -> None:
    """Row 9: other names for indicators and characteristics."""
    names = {indicator["name"] for indicator in indicators(await shaped(PERFORMANCE + "signalQuality", names="other"))}
    assert names == {"RSRP_dBm", "RSSI_dBm", "SINR"}
    products = await shaped(PRODUCTS, names="other")
    assert "dataAllowance" in {characteristic["name"] for characteristic in products[0]["characteristic"]}


async def test_units_may_be_others() -> None:
    """Row 10: bps for Mbps, MB for B, or no unit at all, of the same amounts."""
    usual, bps = await shaped(THROUGHPUT), await shaped(THROUGHPUT, throughput_unit="bps")
    for first, other in zip(indicators(usual), indicators(bps), strict=True):
        assert other["indicatorUnit"] == "bps"
        assert other["value"] == (None if first["value"] is None else round(first["value"] * 1e6))
    megabytes = indicators(await shaped(PERFORMANCE + "traffic", traffic_unit="MB"))
    for first, other in zip(indicators(await shaped(PERFORMANCE + "traffic")), megabytes, strict=True):
        assert (other["indicatorUnit"], other["value"]) == ("MB", first["value"] / 1e6)
    assert all(
        "indicatorUnit" not in indicator for indicator in indicators(await shaped(THROUGHPUT, indicator_unit=False))
    )


async def test_traffic_may_be_deltas() -> None:
    """Row 11: each measurement has the bytes of its interval; they add up to the counter's growth."""
    query = {"startDateTime": "2025-06-17T12:00:00Z"}
    counters = await shaped(PERFORMANCE + "traffic", query=query)
    deltas = await shaped(PERFORMANCE + "traffic", query=query, traffic="delta")
    for first, other in zip(counters, deltas, strict=True):
        rows, steps = first["measurement"], other["measurement"]
        for before, after, step in zip(rows, rows[1:], steps[1:], strict=False):
            grown = after["performanceIndicator"][0]["value"] - before["performanceIndicator"][0]["value"]
            near = after["timestamp"][:13] == before["timestamp"][:13]
            if near and grown >= 0 and int(after["timestamp"][14:16]) - int(before["timestamp"][14:16]) == 10:
                assert step["performanceIndicator"][0]["value"] == pytest.approx(grown, rel=0.2)
    assert {indicator["collectionType"] for indicator in indicators(deltas)} == {"delta"}


async def test_signal_may_be_swapped() -> None:
    """Row 12: rsrp and rssi carry each other's values."""
    usual = indicators(await shaped(PERFORMANCE + "signalQuality"))
    swapped = indicators(await shaped(PERFORMANCE + "signalQuality", signal="swapped"))
    assert [entry["name"] for entry in usual] == [entry["name"] for entry in swapped]
    assert (usual[0]["value"], usual[1]["value"]) == (swapped[1]["value"], swapped[0]["value"])


async def test_components_may_live_elsewhere() -> None:
    """Row 13: on a path of their own, as relationships, as characteristics; or always shown."""
    own = await shaped("/resourceInventory/v3/userTerminalComponent", components="own_path")
    assert own[0]["component"][0]["partition"] == "main"
    related = await shaped(TERMINALS, components="relationship", component_shown="always")
    assert related[0]["resourceRelationship"][0]["resource"]["type"] == "AIM"
    query = {"fields": "resourceCharacteristic"}
    named = await shaped(TERMINALS, query=query, components="characteristics")
    assert named[0]["resourceCharacteristic"][0]["name"] == "main.AIM.version"
    assert "component" in (await shaped(TERMINALS, component_shown="always"))[0]


async def test_components_may_be_a_map() -> None:
    """Row 14: partition, type, version as nested objects."""
    listed = await shaped(TERMINALS, query={"fields": "component"}, component_form="map")
    assert listed[0]["component"]["main"]["SSM"].startswith("SSM")


@pytest.mark.parametrize("envelope", ["items", "data", "results"])
async def test_envelope_holds_the_listing(envelope: str) -> None:
    """Row 15: an object around the array."""
    assert len((await shaped(TERMINALS, envelope=envelope))[envelope]) == 25


async def collected(api: Client, page: Any) -> list[str]:
    """All ids that are found by following the pages."""
    ids: list[str] = []
    reply = await api.get(TERMINALS, **page(None))
    while True:
        listed = reply.json if isinstance(reply.json, list) else reply.json["items"]
        ids += [entry["id"] for entry in listed]
        following = page(reply)
        if following is None:
            return ids
        reply = await api.get(TERMINALS, **following)


async def test_every_page_style_gives_the_whole_listing() -> None:
    """Row 16: by page number, by link, by cursor, or all at once: the same terminals in the same order."""

    def by_link(reply: Reply | None) -> dict[str, Any] | None:
        if reply is None:
            return {"limit": 40}
        match = re.search(r"cursor=(\w+)", reply.headers.get("link", ""))
        return {"limit": 40, "cursor": match[1]} if match else None

    def by_cursor(reply: Reply | None) -> dict[str, Any] | None:
        if reply is None:
            return {"limit": 40}
        return {"limit": 40, "cursor": reply.json["next"]} if reply.json["next"] else None

    numbers = iter(range(1, 9))

    def by_number(reply: Reply | None) -> dict[str, Any] | None:
        return None if reply and len(reply.json) < 40 else {"page": next(numbers), "size": 40}

    def at_once(reply: Reply | None) -> dict[str, Any] | None:
        return None if reply else {"limit": 5}

    pages = []
    for style, page in (
        ("link_next", by_link),
        ("cursor", by_cursor),
        ("page_size", by_number),
        ("none", at_once),
    ):
        async with simulated(terminals=130, shape=msgspec.convert({"paging": style}, Shape)) as api:
            pages.append(await collected(api, page))
    assert len(pages[0]) >= 129
    assert pages == [pages[0]] * 4


async def test_unknown_cursor_is_400() -> None:
    """Row 16: a cursor that was never given out is refused."""
    async with simulated(shape=Shape(paging="cursor")) as api:
        assert (await api.get(TERMINALS, cursor="c0000000112")).status == 400


async def test_partial_page_is_206_with_links() -> None:
    """Row 16: an incomplete page has 206 and a Link header; a complete one has 200 and none."""
    async with simulated(shape=Shape(partial_206=True)) as api:
        part, whole = await api.get(TERMINALS, offset=10, limit=10), await api.get(TERMINALS)
    assert (part.status, whole.status) == (206, 200)
    assert set(re.findall(r'rel="(\w+)"', part.headers["link"])) == {"self", "first", "next", "prev", "last"}
    assert "link" not in whole.headers


async def test_page_parameters_and_totals_may_differ() -> None:
    """Row 16: other names for offset and limit; no totals."""
    async with simulated(shape=Shape(offset_parameter="skip", limit_parameter="top", totals=False)) as api:
        reply = await api.get(TERMINALS, skip=20, top=3)
    assert len(reply.json) == 3
    assert "x-total-count" not in reply.headers


async def test_fields_may_be_ignored() -> None:
    """Row 17: a server that does not know `fields` sends everything."""
    assert "imei" in (await shaped(TERMINALS, query={"fields": "name"}, fields=False))[0]


async def test_coordinates_may_be_latitude_first() -> None:
    """Row 18: latitude and longitude change places, the elevation stays."""
    points = [
        (await shaped(TERMINALS, coordinate_order=order))[0]["location"]["features"][0]["geometry"]["coordinates"]
        for order in ("lon_lat", "lat_lon")
    ]
    assert points[0] == [points[1][1], points[1][0], points[1][2]]


async def test_place_may_be_otherwise() -> None:
    """Row 19: an array of one; or the site's id in externalId."""
    usual = (await shaped(TERMINALS))[0]["place"]
    assert (await shaped(TERMINALS, place="array"))[0]["place"] == [usual]
    other = (await shaped(TERMINALS, place="external_id"))[0]["place"]
    assert other["externalId"] == usual["id"] != other["id"]


async def test_roles_may_have_other_texts() -> None:
    """Row 20: distributor and customer."""
    for path in (TERMINALS, PRODUCTS):
        roles = {party["role"] for entry in await shaped(path, roles="other") for party in entry["relatedParty"]}
        assert roles == {"distributor", "reseller", "customer"}


async def test_product_link_may_stand_elsewhere() -> None:
    """Row 21: in a characteristic, or at the terminal only."""
    named = await shaped(PRODUCTS, product_link="characteristic")
    assert named[0]["characteristic"][-1]["name"] == "imei"
    for entry in (*named, *await shaped(PRODUCTS, product_link="terminal_only")):
        assert "realizingResource" not in entry


async def test_dates_may_be_missing() -> None:
    """Row 22: only the fallback names are there."""
    terminal = (await shaped(TERMINALS, date_names="fallback"))[0]
    assert {"startDate", "hardwareVersion"}.isdisjoint(terminal)
    assert {"firstSeenDate", "versionNumber"} <= set(terminal)
    product = (await shaped(PRODUCTS, date_names="fallback"))[0]
    assert {"billingStartDate", "lastUpdate"}.isdisjoint(product)


@pytest.mark.parametrize(("form", "text", "amount"), [("null", None, None), ("minus_one", "-1", -1)])
async def test_unlimited_may_be_written_otherwise(form: str, text: str | None, amount: int | None) -> None:
    """Row 23: null or -1, in the product and in the bucket."""
    products = await shaped(PRODUCTS, unlimited=form)
    values = [
        each["value"] for product in products for each in product["characteristic"] if each["name"] == "allowance"
    ]
    assert text in values
    assert "Unlimited" not in values
    balances = [entry["bucket"][0]["bucketBalance"][0] for entry in await shaped(USAGE, unlimited=form)]
    assert amount in [balance["remainingValue"]["amount"] for balance in balances]
    assert "Unlimited" not in [balance["remainingValueName"] for balance in balances]


async def test_counters_may_have_other_types() -> None:
    """Row 24: other counter types, and the sub-pool as a relationship."""
    buckets = [entry["bucket"][0] for entry in await shaped(USAGE, counters="other")]
    types = {counter["counterType"] for bucket in buckets for counter in bucket["bucketCounter"]}
    assert types == {"used", "allowance", "overageBlocks"}
    assert all("sharedAllowance" not in bucket for bucket in buckets)
    assert any("bucketRelationship" in bucket for bucket in buckets)


async def test_usage_rows_may_be_counters() -> None:
    """Row 25: one flat row per counter, with the bucket's id in each."""
    whole = sum(len(entry["bucket"][0]["bucketCounter"]) for entry in await shaped(USAGE))
    rows = await shaped(USAGE, usage_rows="counter")
    assert len(rows) == whole
    assert {"id", "counterType", "value", "remainingValue", "effectiveDate", "product"} <= set(rows[0])


async def test_link_metrics_may_be_others() -> None:
    """Row 29: other indicators with other units."""
    metrics = indicators(await shaped(PERFORMANCE + "linkMetrics", link_metrics="other"))
    assert {(metric["name"], metric["indicatorUnit"]) for metric in metrics} == {
        ("rtt", "ms"),
        ("delayVariation", "ms"),
        ("lossRatio", "1"),
    }


async def test_times_may_lack_the_offset() -> None:
    """Row 31: the clock of another zone, without saying so, everywhere."""
    usual, other = (await shaped(TERMINALS))[0], (await shaped(TERMINALS, zone_hours=2))[0]
    assert (
        other["lastSeenDate"]
        == usual["lastSeenDate"][:11] + f"{int(usual['lastSeenDate'][11:13]) + 2}" + usual["lastSeenDate"][13:19]
    )
    sample = (await shaped(PERFORMANCE + "resourceState", zone_hours=2))[0]["measurement"][0]["timestamp"]
    assert not sample.endswith("Z")
