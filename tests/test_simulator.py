"""The simulated API over real HTTP: its story, its gate, its pages, its reports."""

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from oneweb_bridge.simulator import Options, Simulator, serve
from oneweb_bridge.simulator.usage_kinds import KINDS

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


def luhn_is_valid(imei: str) -> bool:
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(imei))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def measured(entry: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (measurement["timestamp"], {each["name"]: each["value"] for each in measurement["performanceIndicator"]})
        for measurement in entry["measurement"]
    ]


# the story


ALL = [
    TERMINALS,
    PRODUCTS,
    ORGANIZATIONS,
    SITES,
    USAGE,
    THROUGHPUT,
    *(PERFORMANCE + name for name in REPORTS),
]


@pytest.mark.parametrize("path", ALL)
async def test_answer_is_the_same_for_the_same_seed_and_time(path: str) -> None:
    """Same seed, start and simulated time: the same bytes, however the time was reached."""
    async with simulated(terminals=40) as once, simulated(terminals=40) as repeated:
        for seconds in (100, 700, 2200):
            once.simulator.advance(seconds)
            await once.get(path)
        repeated.simulator.advance(3000)
        assert (await once.get(path)).body == (await repeated.get(path)).body


async def test_answer_differs_for_another_seed() -> None:
    """Another seed is another fleet."""
    async with simulated(seed=1) as first, simulated(seed=2) as other:
        assert (await first.get(TERMINALS)).body != (await other.get(TERMINALS)).body


def test_imeis_are_unique_and_valid() -> None:
    """15 digits, a right Luhn digit, no two the same, and each leads back to its terminal."""
    fleet = Simulator(Options(terminals=5000)).world.fleet
    imeis = [fleet.imei(index) for index in range(5000)]
    assert len(set(imeis)) == 5000
    assert all(len(imei) == 15 and luhn_is_valid(imei) for imei in imeis)
    assert [fleet.terminal_index(imei) for imei in imeis] == list(range(5000))


async def test_fleet_joins_but_for_the_dangling_ids(api: Client) -> None:
    """Sites, products and parties of terminals are listed, and some few are not."""
    terminals = (await api.get(TERMINALS)).json
    sites = {site["id"] for site in (await api.get(SITES)).json}
    products = {product["id"]: product for product in (await api.get(PRODUCTS)).json}
    organizations = {organization["id"] for organization in (await api.get(ORGANIZATIONS)).json}
    assert 0 < sum(terminal["place"]["id"] not in sites for terminal in terminals) <= 2
    assert all(link["id"] in products for terminal in terminals for link in terminal["product"])
    assert all(party["id"] in organizations for terminal in terminals for party in terminal["relatedParty"])
    assert any(not terminal["product"] for terminal in terminals)
    assert any(not product["realizingResource"] for product in products.values())
    assert "suspended" in {product["status"] for product in products.values()}


async def test_organizations_have_three_levels(api: Client) -> None:
    """Below a distribution partner there is a sub-distributor with customers of its own."""
    listed = {organization["id"]: organization for organization in (await api.get(ORGANIZATIONS)).json}
    depths = set()
    for organization in listed.values():
        depth, above = 0, organization
        while "organizationParentRelationship" in above:
            depth, above = depth + 1, listed[above["organizationParentRelationship"]["id"]]
        depths.add(depth)
    assert depths == {0, 1, 2}


async def test_terminals_show_the_odd_cases(api: Client) -> None:
    """No manufacturer, no hardware version: both in a fleet of 25, in which each terminal has a location."""
    terminals = (await api.get(TERMINALS)).json
    assert all(len(terminal["location"]["features"][0]["geometry"]["coordinates"]) >= 2 for terminal in terminals)
    assert any("manufacturer" not in terminal for terminal in terminals)
    assert any("hardwareVersion" not in terminal for terminal in terminals)


def test_states_flip_about_every_30_seconds_in_a_fleet_of_25() -> None:
    """The default liveliness: 25 terminals, one flip in about 30 s; a large fleet, about 1 % in 5 minutes."""
    flips = {}
    for size, horizon, step in ((25, 7200, 5), (2000, 600, 60)):
        life = Simulator(Options(terminals=size, start=START)).world.life
        seen = [[life.state(index, 1_750_000_000 + at) for at in range(0, horizon, step)] for index in range(size)]
        flips[size] = sum(state != next_ for row in seen for state, next_ in pairwise(row)) / horizon
    assert 1 / 60 < flips[25] < 1 / 20
    assert 0.005 < flips[2000] * 300 / 2000 < 0.02


def test_nothing_changes_by_itself_without_liveliness() -> None:
    """With liveliness 0 an hour changes nothing but the time last seen."""
    simulator = Simulator(Options(start=START, speed=0, liveliness=0))
    before = simulator.truth("terminals"), simulator.truth("components")
    simulator.advance(3600)
    after = simulator.truth("terminals"), simulator.truth("components")
    assert before != after
    for listing in (*before, *after):
        for entry in listing:
            entry.pop("lastSeenDate", None)
    assert before == after


def test_a_third_of_the_fleet_moves() -> None:
    """Ships go metres per second, the others stay within metres."""
    life = Simulator(Options(terminals=30)).world.life
    moved = []
    for index in range(30):
        first, other = life.position(index, 1_750_000_000), life.position(index, 1_750_000_060)
        moved.append(abs(first.latitude - other.latitude) + abs(first.longitude - other.longitude))
    assert sum(way > 0.0005 for way in moved) == 10


def test_terminals_come_and_go() -> None:
    """Within two hours a terminal is missing from the listing, and is back."""
    simulator = Simulator(Options(start=START, speed=0))
    counts = []
    for _ in range(24):
        counts.append(len(simulator.truth("terminals")))
        simulator.advance(300)
    assert set(counts) == {24, 25}


# gate


@pytest.mark.parametrize("path", [HELLO, TERMINALS, "/openapi.json", "/", "/oauth2/token"])
async def test_every_path_is_401_without_credentials(api: Client, path: str) -> None:
    """Without credentials even a path that does not exist is 401, with a challenge."""
    reply = await api.get(path, headers={})
    assert (reply.status, reply.json) == (401, {"error": "Client ID is not present"})
    assert reply.headers["www-authenticate"].startswith("Basic")
    assert (await api.get("/openapi.json")).status == 404


async def test_wrong_secret_is_401(api: Client) -> None:
    """A wrong secret is told apart from none."""
    wrong = {"Authorization": "Basic " + base64.b64encode(b"demo:wrong").decode()}
    reply = await api.get(HELLO, headers=wrong)
    assert (reply.status, reply.json) == (401, {"error": "Invalid client id or secret"})


async def test_headers_style_takes_two_headers() -> None:
    """With auth headers, the pair in client_id and client_secret is good, and Basic is not."""
    async with simulated(auth="headers") as api:
        pair = {"client_id": "demo", "client_secret": "demo-secret"}
        assert (await api.get(HELLO, headers=pair)).status == 200
        assert (await api.get(HELLO, headers=CREDENTIALS)).status == 401


async def test_oauth2_style_takes_a_token() -> None:
    """With oauth2, Basic or form credentials buy a token that opens the API until it expires."""
    async with simulated(auth="oauth2") as api:
        form = {"grant_type": "client_credentials"}
        granted = await api.ask("POST", "/oauth2/token", data=form)
        body = {**form, "client_id": "demo", "client_secret": "demo-secret"}
        assert (await api.ask("POST", "/oauth2/token", data=body, headers={})).status == 200
        assert (await api.ask("POST", "/oauth2/token", data=form, headers={})).status == 401
        bearer = {"Authorization": f"Bearer {granted.json['access_token']}"}
        assert granted.json["expires_in"] == 3600
        assert (await api.get(HELLO, headers=bearer)).status == 200
        api.simulator.fault("expire_tokens")
        assert (await api.get(HELLO, headers=bearer)).status == 401


async def test_quota_ends_in_429() -> None:
    """The request after the last allowed one is 429, and every answer says limit, rest and reset in ms."""
    async with simulated(rate_limit=2) as api:
        replies = [await api.get(HELLO) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert [reply.headers["x-ratelimit-remaining"] for reply in replies] == ["1", "0", "0"]
    assert replies[2].json == {"error": "Quota has been exceeded"}
    assert 50_000 < int(replies[2].headers["x-ratelimit-reset"]) <= 60_000


async def test_other_methods_are_405(api: Client) -> None:
    """The API is read-only, and says so as APIkit does."""
    reply = await api.ask("POST", TERMINALS, json={})
    assert (reply.status, reply.json) == (405, {"message": "Method not allowed"})


async def test_date_header_is_simulated_time(api: Client) -> None:
    """A client takes the API's time from Date: it is the simulated one, on errors too."""
    api.simulator.advance(3600)
    for path in (HELLO, "/nowhere"):
        date = parsedate_to_datetime((await api.get(path)).headers["date"])
        assert date.isoformat() == "2025-06-17T15:15:00+00:00"


# pages and fields


async def test_pages_add_up_to_the_listing() -> None:
    """Pages by offset and limit hold every terminal once; totals say how many there are."""
    async with simulated(terminals=250) as api:
        pages = [await api.get(TERMINALS, offset=offset, limit=90) for offset in (0, 90, 180, 270)]
    ids = [entry["id"] for page in pages for entry in page.json]
    assert [len(page.json) for page in pages[:2]] == [90, 90]
    assert {page.headers["x-total-count"] for page in pages} == {str(len(set(ids)))}
    assert len(ids) == len(set(ids)) >= 247
    assert pages[3].headers["x-result-count"] == "0"


async def test_page_is_100_by_default_and_1000_at_most() -> None:
    """Without a limit 100 items, with a huge one 1000; a limit that is none is 400."""
    async with simulated(terminals=1500) as api:
        assert len((await api.get(TERMINALS)).json) == 100
        assert len((await api.get(TERMINALS, limit=5000)).json) == 1000
        for wrong in ("0", "-1", "ten", "1.5"):
            assert (await api.get(TERMINALS, limit=wrong)).json == {"message": "Bad request"}


async def test_single_terminal_is_an_array_of_one(api: Client) -> None:
    """/{imei} gives an array of that terminal; an unknown one is 404 with the APIkit body."""
    third = (await api.get(TERMINALS)).json[2]
    assert (await api.get(f"{TERMINALS}/{third['id']}")).json == [third]
    unknown = await api.get(f"{TERMINALS}/359235170000000")
    assert (unknown.status, unknown.json) == (404, {"message": "Resource not found"})


async def test_fields_keep_id_and_what_was_asked(api: Client) -> None:
    """`fields` keeps the named attributes and id; unknown names are ignored."""
    first = (await api.get(TERMINALS, fields="name,nonsense")).json[0]
    assert set(first) == {"id", "name"}


async def test_components_come_when_asked_for(api: Client) -> None:
    """A terminal shows its components when `fields` names them, and not otherwise."""
    assert all("component" not in terminal for terminal in (await api.get(TERMINALS)).json)
    listed = (await api.get(TERMINALS, fields="id,component")).json
    assert {part["type"] for part in listed[0]["component"]} >= {"AIM", "SSM", "UT"}
    assert [] in [terminal["component"] for terminal in listed]


async def test_body_is_compressed_when_accepted(api: Client) -> None:
    """Gzip for who accepts it, plain for who does not, the same content."""
    plain = await api.get(TERMINALS, headers={**CREDENTIALS, "Accept-Encoding": "identity"})
    packed = await api.get(TERMINALS)
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.body == plain.body


# reports


async def test_report_is_as_late_as_it_should_be(api: Client) -> None:
    """The newest measurement of each report is older than its lateness, and not much."""
    now = datetime.fromisoformat(START)
    for name, lateness, period in (
        ("linkAvailability", 90, 60),
        ("signalQuality", 40, 10),
        ("traffic", 30, 10),
    ):
        ages = [
            (now - datetime.fromisoformat(entry["measurement"][0]["timestamp"])).total_seconds() / 60
            for entry in (await api.get(PERFORMANCE + name)).json
            if entry["measurement"]
        ]
        assert min(ages) >= lateness
        assert sorted(ages)[len(ages) // 2] < lateness + period


async def test_window_is_half_open_and_oldest_first(api: Client) -> None:
    """A measurement at the window's begin is in it, one at its end is not."""
    path = PERFORMANCE + "resourceState"
    whole = measured((await api.get(path, startDateTime="2025-06-17T10:00:00Z")).json[0])
    times = [time for time, _ in whole]
    assert times == sorted(times)
    assert len(times) > 40
    part = (await api.get(path, startDateTime=times[3], endDateTime=times[8])).json[0]
    assert measured(part) == whole[3:8]


async def test_window_grows_only_at_its_end_but_for_late_and_corrected() -> None:
    """Some measurements appear late and some change once, and no other ever changes."""
    async with simulated(terminals=200) as api:
        query: dict[str, str | int] = {
            "startDateTime": "2025-06-17T12:00:00Z",
            "endDateTime": "2025-06-17T13:35:00Z",
            "limit": 1000,
        }
        path = PERFORMANCE + "signalQuality"
        early = {entry["id"]: dict(measured(entry)) for entry in (await api.get(path, **query)).json}
        api.simulator.advance(6 * 3600)
        late = {entry["id"]: dict(measured(entry)) for entry in (await api.get(path, **query)).json}
    known = [(key, time) for key in early.keys() & late.keys() for time in early[key]]
    assert all(time in late[key] for key, time in known)
    corrected = sum(early[key][time] != late[key][time] for key, time in known)
    appeared = sum(len(late[key]) - len(early[key]) for key in early.keys() & late.keys())
    assert 0 < corrected + appeared < 100


async def test_report_narrows_to_ids(api: Client) -> None:
    """`id` takes several; the answer has just these."""
    ids = [terminal["id"] for terminal in (await api.get(TERMINALS)).json[3:5]]
    listed = (await api.get(PERFORMANCE + "traffic", id=",".join(ids))).json
    assert [terminal["id"] for terminal in listed] == ids


async def test_offline_terminal_is_not_measured(api: Client) -> None:
    """After a terminal went offline its newest traffic stays the last before, and a window after is empty."""
    imei = (await api.get(TERMINALS)).json[0]["id"]
    api.simulator.fleet("set_state", id=imei, state="offline")
    api.simulator.advance(6 * 3600)
    newest = (await api.get(PERFORMANCE + "traffic", id=imei)).json[0]["measurement"]
    assert newest[0]["timestamp"] < START
    assert (await api.get(PERFORMANCE + "traffic", id=imei, startDateTime=START)).json[0]["measurement"] == []


async def test_traffic_counters_grow_but_for_resets() -> None:
    """Counters never fall but at a reset, which comes at times and not to all pairs at once."""
    async with simulated(terminals=10) as api:
        entries = (await api.get(PERFORMANCE + "traffic", startDateTime="2025-06-14T00:00:00Z")).json
    steps, falls = 0, 0
    for entry in entries:
        rows = [values for _, values in measured(entry)]
        for row, after in pairwise(rows):
            fallen = [name for name in row if after[name] < row[name]]
            falls, steps = falls + bool(fallen), steps + 1
            assert len(fallen) < 6
    assert 0 < falls < steps / 50


async def test_report_period_and_lateness_scale() -> None:
    """For a demo: a sample every 12 s that is visible after 24 s."""
    async with simulated(report_period=0.02, lateness_scale=0.01) as api:
        query = {"startDateTime": "2025-06-17T14:10:00Z"}
        entries = [measured(entry) for entry in (await api.get(PERFORMANCE + "signalQuality", **query)).json]
        times = [datetime.fromisoformat(time) for time, _ in max(entries, key=len)]
    gaps = {time - before for before, time in pairwise(times)}
    assert min(gaps) == timedelta(seconds=12)
    assert datetime.fromisoformat(START) - times[-1] < timedelta(seconds=60)


async def test_report_period_holds_from_a_time_on() -> None:
    """For the past of a demo: before it a sample every ten minutes, from then on one every 30 s, each once."""
    start = "2025-06-17T10:15:00Z"
    async with simulated(start=start, report_period=0.05, report_period_from=start, lateness_scale=0.01) as api:
        newest = {time for entry in (await api.get(PERFORMANCE + "signalQuality")).json for time, _ in measured(entry)}
        api.simulator.advance(3600)
        query = {"startDateTime": "2025-06-17T08:15:00Z"}
        entries = [measured(entry) for entry in (await api.get(PERFORMANCE + "signalQuality", **query)).json]
    times = [datetime.fromisoformat(time) for time, _ in max(entries, key=len)]
    change = datetime.fromisoformat(start)
    before = {time - last for last, time in pairwise([time for time in times if time < change])}
    since = {time - last for last, time in pairwise([time for time in times if time >= change])}
    assert (min(before), min(since)) == (timedelta(minutes=10), timedelta(seconds=30))
    assert newest
    assert all(datetime.fromisoformat(time) < change for time in newest)


async def test_product_without_values_has_a_timestamp(api: Client) -> None:
    """Throughput lies on quarter hours; one product has a measurement without any values."""
    entries = (await api.get(THROUGHPUT)).json
    assert {entry["measurement"][0]["timestamp"][14:] for entry in entries} <= {
        "00:00Z",
        "15:00Z",
        "30:00Z",
        "45:00Z",
    }
    assert any(entry["measurement"][0]["performanceIndicator"] == [] for entry in entries)


# usage


def buckets(reports: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {bucket["id"]: bucket for report in reports for bucket in report["bucket"]}


async def test_unlimited_bucket_has_amount_zero(api: Client) -> None:
    """The label "Unlimited" comes with the amount 0 and without an entitlement."""
    pool_buckets = [
        bucket
        for bucket in buckets((await api.get(USAGE)).json).values()
        if bucket["bucketBalance"][0]["remainingValueName"] == "Unlimited"
    ]
    assert pool_buckets
    assert {bucket["bucketBalance"][0]["remainingValue"]["amount"] for bucket in pool_buckets} == {0.0}
    assert all(
        "entitlement" not in {each["counterType"] for each in bucket["bucketCounter"]} for bucket in pool_buckets
    )


async def test_pool_is_shared_by_several_buckets(api: Client) -> None:
    """Buckets of one sub-pool tell the same balance, and each its own share."""
    pools: dict[str, list[dict[str, Any]]] = {}
    for bucket in buckets((await api.get(USAGE)).json).values():
        if bucket["isShared"]:
            pools.setdefault(bucket["sharedAllowance"]["id"], []).append(bucket)
    shared = max(pools.values(), key=len)
    assert len(shared) > 1
    assert len({bucket["bucketBalance"][0]["remainingValue"]["amount"] for bucket in shared}) == 1
    whole = shared[0]["bucketCounter"][0]["value"]["amount"]
    own = [bucket["bucketCounter"][-1]["value"]["amount"] for bucket in shared]
    assert sum(own) == pytest.approx(whole)


def test_usage_grows_within_the_cycle_and_starts_anew() -> None:
    """Used volume never falls but on the first of the month, or when a rollover is asked for."""
    usage = Simulator(Options(start=START, speed=0)).world.usage
    june = [usage.used(0, 1_748_736_000 + hour * 3600) for hour in range(30 * 24)]
    assert june == sorted(june)
    assert june[0] == 0.0
    assert usage.used(0, 1_748_736_000 + 30 * 86400 + 60) < 1 < june[-1]


@pytest.mark.parametrize(
    ("now", "begin", "end"),
    [
        ("2025-06-17T14:15:00Z", "2025-06-09", "2025-07-09"),
        ("2025-06-09T00:00:00Z", "2025-06-09", "2025-07-09"),
        ("2025-06-08T23:59:59Z", "2025-05-09", "2025-06-09"),
        ("2025-01-03T00:00:00Z", "2024-12-09", "2025-01-09"),
        ("2025-12-31T00:00:00Z", "2025-12-09", "2026-01-09"),
    ],
)
def test_cycle_begins_on_a_day_of_the_month(now: str, begin: str, end: str) -> None:
    """A bill cycle need not be a calendar month."""
    simulator = Simulator(Options(start=now, speed=0, cycle_day=9))
    cycle = simulator.world.usage.cycle(simulator.world.clock.now())
    assert [datetime.fromtimestamp(at, UTC).isoformat()[:10] for at in cycle] == [begin, end]


@pytest.mark.parametrize("kind", KINDS)
def test_kind_of_usage_grows_with_each_hour_by_the_same_seed(kind: str) -> None:
    """Each kind only ever adds, says the same whoever asks first, and uses about its share in a month."""
    usage, other = (Simulator(Options(start=START, speed=0, usage=kind)).world.usage for _ in range(2))
    hours = [1_748_736_000 + hour * 3600 for hour in range(0, 30 * 24, 5)]
    june = [usage.used(0, at) for at in hours]

    assert june == sorted(june)
    assert [other.used(0, at) for at in reversed(hours)] == june[::-1]
    assert 30 < june[-1] < 1500


def test_kinds_of_usage_are_dealt_out_to_products() -> None:
    """With two kinds both are played: offices use little on a weekend, what is steady does not."""
    usage = Simulator(Options(start=START, speed=0, usage="office,steady")).world.usage
    monday, saturday = 1_749_427_200, 1_749_859_200
    weekends = {
        round(usage.used(i, saturday + 86400) - usage.used(i, saturday), 3)
        < 0.5 * (usage.used(i, monday + 86400) - usage.used(i, monday))
        for i in range(10)
    }

    assert weekends == {True, False}


async def test_rollover_on_request_starts_a_cycle(api: Client) -> None:
    """After cycle_rollover every bucket is valid from that moment and nearly unused."""
    api.simulator.fault("cycle_rollover")
    first = next(iter(buckets((await api.get(USAGE)).json).values()))
    assert first["bucketBalance"][0]["validFor"]["startDateTime"] == START
    assert first["bucketCounter"][0]["value"]["amount"] == 0.0


async def test_ledger_holds_what_was_answered(tmp_path: Path) -> None:
    """One line per answered page, with the items as they were on the wire."""
    ledger = tmp_path / "ledger.jsonl"
    async with simulated(ledger=str(ledger)) as api:
        page = await api.get(TERMINALS, offset=5, limit=3)
        await api.get("/nowhere")
    (line,) = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert line["items"] == page.json
    assert (line["offset"], line["total"], line["complete_body"], line["at"]) == (5, 25, True, START)


@pytest.mark.parametrize(
    ("fault", "is_whole"),
    [
        ({"kind": "cut", "bytes": 5, "length": "content"}, False),
        ({"kind": "cut", "bytes": 1 << 20, "length": "content"}, True),
        ({"kind": "cut", "bytes": 1 << 20, "length": "none"}, True),
        ({"kind": "cut", "bytes": 1 << 20, "length": "chunked"}, False),
        ({"kind": "truncated", "bytes": 5}, False),
        ({"kind": "truncated", "bytes": 1 << 20}, True),
        ({"kind": "not_utf8"}, False),
    ],
)
async def test_ledger_says_whether_a_body_could_be_read(fault: dict[str, Any], is_whole: bool, tmp_path: Path) -> None:
    """A body that is shorter than the place where a fault would cut it was sent whole."""
    ledger = tmp_path / "ledger.jsonl"
    async with simulated(ledger=str(ledger)) as api:
        api.simulator.fault(**fault)
        with contextlib.suppress(aiohttp.ClientError, ValueError):
            await api.get(TERMINALS, limit=3)
    (line,) = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert line["complete_body"] == is_whole


@pytest.mark.parametrize(
    "wrong",
    [
        {"terminals": -1},
        {"start": "yesterday"},
        {"speed": -1.0},
        {"default_limit": 0},
        {"cycle": 0.5},
        {"port": 70000},
        {"usage": "office,nobody"},
    ],
)
def test_wrong_option_is_one_sentence(wrong: dict[str, Any]) -> None:
    """A wrong option raises ValueError with one sentence that names it."""
    with pytest.raises(ValueError, match=next(iter(wrong))) as raised:
        Options(**wrong)
    assert str(raised.value).count(".") == 1


def test_hundred_thousand_terminals_are_paged_quickly() -> None:
    """A page of 1000 terminals out of 100 000 costs about the same wherever it lies."""
    world = Simulator(Options(terminals=100_000, start=START, speed=0)).world
    page = world.collections["terminals"].slice(98_000, 99_000, world.clock.now())
    assert len({entry["id"] for entry in page}) == 1000


async def test_public_client_reaches_hello_and_its_terminals(api: Client) -> None:
    """It joins hello with two slashes, and takes the first answer for the whole fleet."""
    assert (await api.get("/hello/v1//oneweb/world")).status == 200
    assert len((await api.get(TERMINALS)).json) == 25
