"""What can go wrong and be changed on demand: faults and the control endpoint."""

import base64
import json
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


@pytest.fixture
async def api() -> AsyncIterator[Client]:
    async with simulated() as client:
        yield client


async def control(api: Client, method: str, where: str, **members: Any) -> Any:
    """Ask the control endpoint, without credentials; the answer must be 200."""
    reply = await api.ask(method, "/_control" + where, headers={}, json=members)
    assert reply.status == 200, reply.body
    return reply.json


async def fault(api: Client, kind: str, **members: Any) -> None:
    await control(api, "POST", "/fault", kind=kind, **members)


# faults that replace the answer


@pytest.mark.parametrize(
    ("kind", "members", "status", "body"),
    [
        ("status", {"status": 503}, 503, b'{"message": "Service unavailable"}'),
        ("status", {"status": 504, "body": "<h1>Late</h1>"}, 504, b"<h1>Late</h1>"),
        ("empty_body", {}, 200, b""),
        ("null", {}, 200, b"null"),
        ("object", {}, 200, b"{}"),
        ("empty_list", {}, 200, b"[]"),
        ("deep", {"depth": 5}, 200, b"[[[[[]]]]]"),
    ],
)
async def test_replacing_fault_is_the_answer(
    api: Client, kind: str, members: dict[str, Any], status: int, body: bytes
) -> None:
    """The fault's status and body come instead of the true answer, once, with `count` 1."""
    await fault(api, kind, count=1, **members)
    reply = await api.get(TERMINALS)
    assert (reply.status, reply.body) == (status, body)
    assert len((await api.get(TERMINALS)).json) == 25


async def test_html_fault_is_a_login_page(api: Client) -> None:
    """200 with an HTML page, as from a proxy."""
    await fault(api, "html")
    reply = await api.get(TERMINALS)
    assert reply.headers["content-type"].startswith("text/html")
    assert b"<form>" in reply.body


async def test_redirect_fault_names_another_host(api: Client) -> None:
    """302 to the same path elsewhere."""
    await fault(api, "redirect", host="evil.invalid")
    reply = await api.ask("GET", TERMINALS, allow_redirects=False)
    assert (reply.status, reply.headers["location"]) == (302, f"http://evil.invalid{TERMINALS}")


async def test_status_fault_carries_headers(api: Client) -> None:
    """Further headers of a status fault are sent."""
    await fault(api, "status", status=429, headers={"Retry-After": "7"})
    assert (await api.get(TERMINALS)).headers["retry-after"] == "7"


async def test_big_and_bomb_unfold_to_their_size(api: Client) -> None:
    """`big` is valid JSON of that size, `gzip_bomb` a small body that unfolds to it."""
    await fault(api, "big", megabytes=2, count=1)
    big = await api.get(TERMINALS)
    assert len(big.body) == pytest.approx(2e6, rel=0.01)
    assert isinstance(big.json, list)
    await fault(api, "gzip_bomb", megabytes=2, count=1)
    bomb = await api.get(TERMINALS)
    assert int(bomb.headers["content-length"]) < 10_000 < len(bomb.body)


async def test_nan_fault_is_no_json(api: Client) -> None:
    """NaN and Infinity stand where numbers should."""
    await fault(api, "nan")
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode((await api.get(TERMINALS)).body)


async def test_hang_fault_never_answers(api: Client) -> None:
    """After its seconds the connection closes without an answer."""
    await fault(api, "hang", seconds=0.05)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await api.ask("POST", TERMINALS)


# faults that spoil the answer


@pytest.mark.parametrize("length", ["content", "chunked"])
async def test_cut_fault_breaks_the_body(api: Client, length: str) -> None:
    """The connection closes after some bytes, and a client that counts notices."""
    await fault(api, "cut", bytes=300, length=length)
    with pytest.raises(aiohttp.ClientPayloadError):
        await api.get(TERMINALS)


async def test_cut_fault_without_length_looks_whole(api: Client) -> None:
    """Without a length only the JSON tells that something is missing."""
    await fault(api, "cut", bytes=300, length="none")
    assert len((await api.get(TERMINALS)).body) == 300


async def test_truncated_fault_is_half_a_json(api: Client) -> None:
    """A whole HTTP answer whose JSON ends early."""
    await fault(api, "truncated", bytes=50)
    reply = await api.get(TERMINALS)
    assert len(reply.body) == 50
    assert reply.headers["content-length"] == "50"


async def test_text_faults_spoil_the_text(api: Client) -> None:
    """A byte order mark, bytes that are no UTF-8, another content type, few bytes at a time."""
    await fault(api, "bom", count=1)
    await fault(api, "not_utf8", count=1)
    await fault(api, "content_type", value="text/plain", count=1)
    await fault(api, "slow", rate=1e6, count=1)
    assert (await api.get(TERMINALS)).body.startswith(b"\xef\xbb\xbf[")
    with pytest.raises(UnicodeDecodeError):
        (await api.get(TERMINALS)).body.decode()
    assert (await api.get(TERMINALS)).headers["content-type"] == "text/plain"
    assert len((await api.get(TERMINALS)).json) == 25


async def test_date_fault_changes_the_header_alone(api: Client) -> None:
    """The API's clock is a day behind, the answer is the same."""
    right = await api.get(TERMINALS)
    await fault(api, "date", seconds=-86_400.0)
    wrong = await api.get(TERMINALS)

    assert wrong.body == right.body
    assert (right.headers["date"], wrong.headers["date"]) == (
        "Tue, 17 Jun 2025 14:15:00 GMT",
        "Mon, 16 Jun 2025 14:15:00 GMT",
    )


# faults that bend the answer


async def test_object_faults_bend_every_object(api: Client) -> None:
    """A missing key, null location, number as IMEI, attributes that nobody knows."""
    for kind in ("missing_key", "null_location", "number_imei", "unknown_attributes"):
        await fault(api, kind, share=1, count=1)
    assert all("id" not in terminal for terminal in (await api.get(TERMINALS)).json)
    assert all(terminal["location"] is None for terminal in (await api.get(TERMINALS)).json)
    assert all(isinstance(terminal["imei"], int) for terminal in (await api.get(TERMINALS)).json)
    assert all(terminal["newFlag"] for terminal in (await api.get(TERMINALS)).json)


async def test_unknown_indicator_is_added(api: Client) -> None:
    """A measurement carries an indicator that no reference names."""
    await fault(api, "unknown_indicator", share=1)
    entries = (await api.get(PERFORMANCE + "signalQuality")).json
    assert entries[0]["measurement"][0]["performanceIndicator"][-1]["name"] == "beamTemperature"


async def test_drop_items_hides_a_share(api: Client) -> None:
    """Some objects are missing while the total stays."""
    await fault(api, "drop_items", share=0.4)
    reply = await api.get(TERMINALS)
    assert 5 < len(reply.json) < 22
    assert reply.headers["x-total-count"] == "25"


async def test_page_faults_bend_pages(api: Client) -> None:
    """Every page the first, later pages empty, a total that grows."""
    first = (await api.get(TERMINALS, limit=10)).json
    await fault(api, "page_repeat", count=1)
    await fault(api, "page_missing", count=1)
    await fault(api, "total_changes", count=1)
    assert (await api.get(TERMINALS, offset=10, limit=10)).json == first
    assert (await api.get(TERMINALS, offset=10, limit=10)).json == []
    assert (await api.get(TERMINALS, offset=10, limit=10)).headers["x-total-count"] == "26"


async def test_link_faults_bend_links() -> None:
    """A next page for ever, or on another host."""
    async with simulated(shape=Shape(paging="link_next")) as api:
        await fault(api, "endless_next", count=1)
        await fault(api, "foreign_next", count=1)
        assert 'rel="next"' in (await api.get(TERMINALS)).headers["link"]
        assert (await api.get(TERMINALS)).headers["link"].startswith("<http://elsewhere.invalid/resourceInventory")
        assert "link" not in (await api.get(TERMINALS)).headers


async def test_fault_hits_only_its_path_and_turn(api: Client) -> None:
    """`path` is a part of path and query, `after` lets some pass, `count` ends it, DELETE clears all."""
    await fault(api, "status", path="userTerminal?limit=5", after=1, count=1)
    assert [(await api.get(TERMINALS, limit=5)).status for _ in range(3)] == [200, 500, 200]
    await fault(api, "status", path="organization")
    assert (await api.get(TERMINALS)).status == 200
    assert (await api.get("/partyManagement/v1/organization")).status == 500
    await control(api, "DELETE", "/fault")
    assert (await api.get("/partyManagement/v1/organization")).status == 200


async def test_corrected_changes_what_was_shown(api: Client) -> None:
    """After `corrected` the newest measurements of that report have other values at the same times."""
    path = PERFORMANCE + "signalQuality"
    before = (await api.get(path)).json
    await fault(api, "corrected", report="signalQuality")
    after = (await api.get(path)).json
    times = [
        [[measurement["timestamp"] for measurement in entry["measurement"]] for entry in listing]
        for listing in (before, after)
    ]
    assert times[0] == times[1]
    assert before != after


async def test_counter_reset_starts_at_zero(api: Client) -> None:
    """After `counter_reset` the counters of that terminal begin anew."""
    imei = (await api.get(TERMINALS)).json[0]["id"]
    api.simulator.fleet("set_state", id=imei, state="online")
    await fault(api, "counter_reset", id=imei)
    api.simulator.advance(2400)
    entry = (await api.get(PERFORMANCE + "traffic", id=imei)).json[0]["measurement"][0]
    assert entry["timestamp"] > START
    assert all(indicator["value"] < 1e10 for indicator in entry["performanceIndicator"])


@pytest.mark.parametrize(
    "members", [{"kind": "nonsense"}, {"kind": "status", "colour": 1}, {}, {"kind": "cut", "bytes": "x"}]
)
async def test_wrong_fault_is_refused_in_a_sentence(api: Client, members: dict[str, Any]) -> None:
    """An unknown kind or member is 400 with a sentence."""
    reply = await api.ask("POST", "/_control/fault", headers={}, json=members)
    assert reply.status == 400
    assert reply.json["error"].endswith(".")


# the fleet on demand


async def terminal(api: Client, imei: str) -> dict[str, Any]:
    terminal: dict[str, Any] = (await api.get(f"{TERMINALS}/{imei}")).json[0]
    return terminal


async def test_added_terminals_are_listed(api: Client) -> None:
    """`add` makes terminals with new IMEIs, or with the one that is asked for."""
    added = (await control(api, "POST", "/fleet", op="add", count=3))["ids"]
    added += (await control(api, "POST", "/fleet", op="add", id="490154203237518"))["ids"]
    listed = [terminal["id"] for terminal in (await api.get(TERMINALS)).json]
    assert listed[-4:] == added
    assert added[-1] == "490154203237518"


async def test_removed_terminal_is_gone_until_restored(api: Client) -> None:
    """`remove` takes it from listing and single call, `restore` gives it back as it was."""
    third = (await api.get(TERMINALS)).json[2]
    await control(api, "POST", "/fleet", op="remove", id=third["id"])
    assert third["id"] not in [terminal["id"] for terminal in (await api.get(TERMINALS)).json]
    assert (await api.get(f"{TERMINALS}/{third['id']}")).status == 404
    await control(api, "POST", "/fleet", op="restore", id=third["id"])
    assert (await api.get(TERMINALS)).json[2] == third


async def test_terminal_changes_as_asked(api: Client) -> None:
    """Flip, state, firmware, move and attributes are shown at once and stay."""
    before = (await api.get(TERMINALS)).json[0]
    imei = before["id"]
    await control(api, "POST", "/fleet", op="flip", id=imei)
    assert {before["resourceState"], (await terminal(api, imei))["resourceState"]} == {"online", "offline"}
    await control(api, "POST", "/fleet", op="set_state", id=imei, state="degraded")
    await control(api, "POST", "/fleet", op="firmware", id=imei, type="SSM", version="SSMv2_9.9.9")
    await control(api, "POST", "/fleet", op="move", id=imei, latitude=1.5, longitude=2.5)
    await control(api, "POST", "/fleet", op="set", id=imei, attributes={"manufacturer": None}, drop=["imsi"])
    after = await terminal(api, imei)
    assert after["resourceState"] == "degraded"
    assert after["location"]["features"][0]["geometry"]["coordinates"][:2] == [2.5, 1.5]
    assert after["manufacturer"] is None
    assert "imsi" not in after
    components = (await api.get(f"{TERMINALS}/{imei}", fields="id,component")).json[0]["component"]
    assert {"partition": "main", "type": "SSM", "version": "SSMv2_9.9.9"} in components


async def test_names_and_status_change_as_asked(api: Client) -> None:
    """A renamed site and organization are renamed wherever they are mentioned; a product is suspended."""
    first = (await api.get(TERMINALS)).json[0]
    site, party, product = first["place"]["id"], first["relatedParty"][0]["id"], first["product"][0]["id"]
    await control(api, "POST", "/fleet", op="rename_site", id=site, name="New quay")
    await control(api, "POST", "/fleet", op="rename_organization", id=party, name="New name")
    await control(api, "POST", "/fleet", op="suspend", id=product)
    after = await terminal(api, first["id"])
    assert (after["place"]["name"], after["relatedParty"][0]["name"]) == ("New quay", "New name")
    products = await control(api, "GET", "/truth?kind=products")
    assert [entry["status"] for entry in products if entry["id"] == product] == ["suspended"]
    assert "New quay" in [site["name"] for site in await control(api, "GET", "/truth?kind=sites")]


@pytest.mark.parametrize(
    "members", [{"op": "fly"}, {"op": "flip", "id": "nobody"}, {"op": "suspend", "id": "SITE-001"}, {}]
)
async def test_wrong_change_is_refused_in_a_sentence(api: Client, members: dict[str, Any]) -> None:
    """An unknown operation or id is 400 with a sentence, and changes nothing."""
    before = (await api.get(TERMINALS)).body
    reply = await api.ask("POST", "/_control/fleet", headers={}, json=members)
    assert reply.status == 400
    assert reply.json["error"].endswith(".")
    assert (await api.get(TERMINALS)).body == before


async def test_freeze_stops_the_story_and_not_the_clock(api: Client) -> None:
    """Frozen: no flip, no firmware, no move for a day, while reports and last seen go on."""
    await control(api, "POST", "/freeze", on=True)
    before = (await api.get(TERMINALS)).json
    report = (await api.get(PERFORMANCE + "resourceState")).body
    assert (await control(api, "POST", "/time", advance=86400))["frozen"]
    after = (await api.get(TERMINALS)).json
    assert before != after
    assert (await api.get(PERFORMANCE + "resourceState")).body != report
    for terminal in (*before, *after):
        del terminal["lastSeenDate"]
    assert before == after
    await control(api, "POST", "/freeze", on=False)
    assert [terminal["resourceState"] for terminal in (await api.get(TERMINALS)).json] != [
        terminal["resourceState"] for terminal in before
    ]


@pytest.mark.parametrize("kind", ["terminals", "products", "organizations", "sites", "usage"])
async def test_truth_is_the_complete_listing(api: Client, kind: str) -> None:
    """The truth is what all pages together show."""
    paths = {
        "terminals": TERMINALS,
        "products": "/api/webservices/productinventory/v2/product",
        "organizations": "/partyManagement/v1/organization",
        "sites": "/geographicSiteManagement/v1/geographicSite",
        "usage": "/usageConsumption/v3/usageConsumptionReport",
    }
    assert await control(api, "GET", f"/truth?kind={kind}") == (await api.get(paths[kind])).json


async def test_requests_are_counted_without_credentials(api: Client) -> None:
    """Counts by path and the last requests with query and status; no credentials."""
    await api.get(TERMINALS, limit=3)
    await api.get("/nowhere", client_secret="demo-secret")
    requests = await control(api, "GET", "/requests")
    assert requests["counts"] == {TERMINALS: 1, "/nowhere": 1}
    assert requests["last"][0] == {"method": "GET", "path": TERMINALS, "query": {"limit": "3"}, "status": 200}
    assert "demo-secret" not in json.dumps(requests)


async def test_time_moves_as_asked(api: Client) -> None:
    """The clock stands with speed 0 and jumps as asked; backwards is refused."""
    assert (await control(api, "GET", "/time"))["now"] == START
    assert (await control(api, "POST", "/time", advance=90))["now"] == "2025-06-17T14:16:30Z"
    assert (await api.ask("POST", "/_control/time", headers={}, json={"advance": -1})).status == 400
