"""A small OneWeb API for the variants of tests/fidelity_variants.py, without code of the bridge or the simulator.

A variant changes what it is made of: its lists, its paths, its pages, its time parameters, or the whole answer.
"""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

NOW = 1_750_169_700
"""2025-06-17T14:15:00Z, in seconds."""
HOST = "https://api.example"
REPORTS = ("ut_link_availability", "ut_signal_quality", "ut_resource_state", "ut_traffic", "product_throughput")
PERFORMANCE = "/performanceMonitoring/v2"
PATHS = {
    "user_terminals": "/resourceInventory/v3/userTerminal",
    "products": "/api/webservices/productinventory/v2/product",
    "organizations": "/partyManagement/v1/organization",
    "sites": "/geographicSiteManagement/v1/geographicSite",
    "ut_link_availability": f"{PERFORMANCE}/userTerminal/linkAvailability",
    "ut_signal_quality": f"{PERFORMANCE}/userTerminal/signalQuality",
    "ut_resource_state": f"{PERFORMANCE}/userTerminal/resourceState",
    "ut_traffic": f"{PERFORMANCE}/userTerminal/traffic",
    "product_throughput": f"{PERFORMANCE}/product/throughput",
    "usage_consumption": "/usageConsumption/v3/usageConsumptionReport",
}
LATE = {"ut_link_availability": 80, "ut_signal_quality": 35, "ut_resource_state": 4, "ut_traffic": 25}
"""Minutes by which the newest measurement is old; 45 for throughput."""
INDICATORS = {
    "ut_link_availability": (("linkAvailability", "%"),),
    "ut_signal_quality": (("rsrp", "dBm"), ("rssi", "dBm"), ("sinr", "dB")),
    "ut_resource_state": (("resourceState", None),),
    "ut_traffic": tuple((f"{side}{way}", "B") for side in ("cnx", "mgmt", "wan") for way in ("Tx", "Rx")),
    "product_throughput": tuple(
        (f"{name}{way}", "Mbps") for name in ("expeditedForwarding", "bestEffort") for way in ("Uplink", "Downlink")
    ),
}
COUNT = 7

Json = Any


def iso(seconds: int) -> str:
    """A time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def imei(number: int) -> str:
    """The id of a terminal."""
    return f"35923517000{6100 + 11 * number}"


def product_id(number: int) -> str:
    """The id of a product."""
    return f"SC-4100273188{10 + number}"


def value_of(name: str, number: int, back: int) -> Any:
    """The value of an indicator, `back` periods ago."""
    if name == "resourceState":
        return "online" if number else "offline"
    if name == "linkAvailability":
        return 90.5 + number
    if name in ("rsrp", "rssi", "sinr"):
        return {"rsrp": -91.5, "rssi": -62.5, "sinr": 8.25}[name] - number * 0.5 - back
    if name.endswith(("Tx", "Rx")):
        return 5_000_000_000 + number * 7_000_123 + len(name) * 11_000 - back * 1_000_000
    return round(1.5 + number * 0.25 + len(name) * 0.125 - back * 0.0625, 6)


def party(number: int) -> list[Json]:
    """The partner and the customer of a record."""
    return [
        {"id": "ACC-101", "name": "Northlight Networks", "role": "Distribution Partner"},
        {"id": f"ACC-20{number % 2}", "name": f"Customer {number % 2}", "role": "End Customer"},
    ]


def terminal(number: int) -> Json:
    """One user terminal."""
    return {
        "id": imei(number),
        "name": f"Terminal {number}",
        "imei": imei(number),
        "imsi": f"00101017000{6100 + number}",
        "serialNumber": f"INS-{4400 + number}",
        "resourceState": "online" if number else "offline",
        "startDate": iso(NOW - 9_000_000),
        "lastSeenDate": iso(NOW - 20 - number),
        "hardwareVersion": "HW-2.0.1",
        "manufacturer": "Inster",
        "relatedParty": party(number),
        "place": {"id": f"SITE-00{number % 3}", "externalId": f"NO-{number % 3}"},
        "product": [{"id": product_id(number)}],
        "component": [{"partition": "main", "type": kind, "version": f"1.{number}"} for kind in ("UT", "SSM")],
        "location": {
            "features": [{"geometry": {"coordinates": [6.5 + number % 3 + number / 100, 62.25 + number % 3, 14.5]}}]
        },
    }


def product(number: int) -> Json:
    """One product."""
    named = {
        "allowance": ("300", "GB"),
        "overageIncrement": ("30", "GB"),
        "maxBandwidthDownlink": ("40", "Mbps"),
        "maxBandwidthUplink": ("15", "Mbps"),
        "serviceGrade": ("Silver", None),
    }
    return {
        "id": product_id(number),
        "name": "OneWeb Maritime",
        "status": "active",
        "startDate": iso(NOW - 9_000_000),
        "place": [{"id": f"SITE-00{number % 3}"}],
        "relatedParty": party(number),
        "realizingResource": [{"id": imei(number)}],
        "characteristic": [
            {"name": name, "value": value} | ({"unit": unit} if unit else {}) for name, (value, unit) in named.items()
        ],
    }


def organization(number: int) -> Json:
    """The partner, then its customers."""
    if not number:
        return {"id": "ACC-101", "type": "Distribution Partner", "tradingName": "Northlight Networks", "status": "x"}
    return {
        "id": f"ACC-20{number - 1}",
        "type": "End Customer",
        "tradingName": f"Customer {number - 1}",
        "status": "x",
        "organizationParentRelationship": {"id": "ACC-101"},
    }


def site(number: int) -> Json:
    """One site."""
    point = {"x": f"{62.25 + number}", "y": f"{6.5 + number}"}
    return {
        "id": f"SITE-00{number}",
        "name": f"Site {number}",
        "code": f"NO-{number}",
        "relatedParty": party(0)[:1],
        "geographicLocation": {"geometry": [point]},
    }


def usage(number: int) -> Json:
    """One report of usage, with one bucket."""
    counter = {
        "counterType": "usage",
        "level": "global",
        "value": {"amount": 120.5 + number, "units": "GB"},
        "product": {"id": product_id(number)},
    }
    balance = {
        "remainingValue": {"amount": 179.5 - number, "units": "GB"},
        "validFor": {"startDateTime": iso(NOW - 1_300_000), "endDateTime": iso(NOW + 1_300_000)},
    }
    entitlement = {"counterType": "entitlement", "value": {"amount": 300, "units": "GB"}}
    bucket = {"id": f"1409-{number}", "bucketBalance": [balance], "bucketCounter": [counter, entitlement]}
    return {"id": f"R{number}", "effectiveDate": iso(NOW - 60), "bucket": [bucket]}


def report(call: str, number: int) -> Json:
    """One entry of a report, with three measurements, oldest first."""
    newest = NOW - 60 * LATE.get(call, 45)
    measurements = [
        {
            "timestamp": iso(newest - back * 600),
            "performanceIndicator": [
                {"name": name, "value": value_of(name, number, back)} | ({"indicatorUnit": unit} if unit else {})
                for name, unit in INDICATORS[call]
            ],
        }
        for back in (2, 1, 0)
    ]
    return {"id": (product_id if call.startswith("product") else imei)(number), "measurement": measurements}


class Reply(NamedTuple):
    """An answer."""

    status: int
    body: Json
    headers: Mapping[str, str] = MappingProxyType({})


class Request(NamedTuple):
    """A request; `call` is the call whose path it has."""

    call: str
    path: str
    params: dict[str, str]


def error(status: int, text: str = "", **headers: str) -> Reply:
    """A refusal."""
    return Reply(status, {"message": text or "no"}, headers)


class Api:
    """The API. Its parts are what variants change."""

    def __init__(self) -> None:
        self.lists: dict[str, list[Json]] = {
            "user_terminals": [terminal(n) for n in range(COUNT)],
            "products": [product(n) for n in range(COUNT)],
            "organizations": [organization(n) for n in range(3)],
            "sites": [site(n) for n in range(3)],
            "usage_consumption": [usage(n) for n in range(COUNT)],
        } | {call: [report(call, n) for n in range(COUNT)] for call in REPORTS}
        self.paths = dict(PATHS)
        self.hello: Callable[[dict[str, str]], Reply] | None = None
        self.accepts: Callable[[dict[str, str]], bool] = _has_basic
        self.challenge = "Basic"
        self.refuse: Callable[[Request], Reply | None] = lambda _: None
        self.window: Callable[[Request], tuple[float, float] | Reply | None] = rfc3339_window()
        self.page: Callable[[Request, list[Json]], tuple[list[Json], Json, dict[str, str]]] = by_offset()
        self.wrap: Callable[[Request, list[Json], Json], Json] = lambda _, items, more: (
            items if more is None else {"items": items, **more}
        )
        self.record: Callable[[str, Json], Json] = lambda _, record: record
        self.find: Callable[[str, dict[str, str]], str | None] = lambda path, _: next(
            (call for call, known in self.paths.items() if known == path), None
        )

    def answer(self, url: str, params: dict[str, str], headers: dict[str, str]) -> Reply:
        """The answer to one GET."""
        parts = urlsplit(url)
        params = dict(parse_qsl(parts.query)) | params
        if self.hello is not None and parts.path.startswith("/hello"):
            return self.hello(headers)
        if not self.accepts(headers):
            return error(401, "who are you?", **{"WWW-Authenticate": self.challenge})
        if parts.path.startswith("/hello"):
            return Reply(200, {"message": "hello"})
        call = self.find(parts.path, params)
        if call is None:
            return error(404, "Resource not found")
        request = Request(call, parts.path, params)
        refused = self.refuse(request)
        if refused is not None:
            return refused
        return self._listing(request)

    def _listing(self, request: Request) -> Reply:
        items = json.loads(json.dumps(self.lists[request.call]))
        if request.call in REPORTS:
            window = self.window(request)
            if isinstance(window, Reply):
                return window
            for entry in items:
                entry["measurement"] = _within(entry["measurement"], window)
        items = [made for item in items for made in _several(self.record(request.call, item))]
        shown, more, headers = self.page(request, items)
        return Reply(200, self.wrap(request, shown, more), headers)


def _several(made: Json) -> list[Json]:
    return made if isinstance(made, list) else [made]


def _has_basic(headers: dict[str, str]) -> bool:
    return headers.get("Authorization") == "Basic " + base64.b64encode(b"demo:demo-secret").decode()


def _within(measurements: list[Json], window: tuple[float, float] | None) -> list[Json]:
    if window is None:
        return measurements[-1:]
    return [m for m in measurements if window[0] <= parsed(m["timestamp"]) < window[1]]


def parsed(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


# ── parts ──────────────────────────────────────────────────────────────────────────────────────


def rfc3339_window(
    start: str = "startDateTime",
    end: str = "endDateTime",
    read: Callable[[str], float] = parsed,
    *,
    required: bool = False,
    text: str = "Bad request",
) -> Callable[[Request], tuple[float, float] | Reply | None]:
    """Time parameters of these names, read so; where they are required, a refusal without both."""

    def window(request: Request) -> tuple[float, float] | Reply | None:
        params = request.params
        if required and not {start, end} <= params.keys():
            return error(400, text)
        if start not in params:
            return None
        try:
            return read(params[start]), read(params[end]) if end in params else NOW + 1.0
        except ValueError:
            return error(400, text)

    return window


def by_offset(
    offset: str = "offset", limit: str = "limit", default: int = 100, largest: int = 1000, *, total: bool = True
) -> Callable[[Request, list[Json]], tuple[list[Json], Json, dict[str, str]]]:
    """Pages by offset and limit."""

    def page(request: Request, items: list[Json]) -> tuple[list[Json], Json, dict[str, str]]:
        first, size = int(request.params.get(offset, 0)), int(request.params.get(limit, default))
        headers = {"X-Total-Count": str(len(items))} if total else {}
        return items[first : first + min(size, largest)], None, headers

    return page


def by_number(
    number: str = "page", size: str = "size", default: int = 3, first: int = 1, *, more: str = ""
) -> Callable[[Request, list[Json]], tuple[list[Json], Json, dict[str, str]]]:
    """Pages by number and size; `more` is a member that says whether there are more."""

    def page(request: Request, items: list[Json]) -> tuple[list[Json], Json, dict[str, str]]:
        per = int(request.params.get(size, default))
        begin = (int(request.params.get(number, first)) - first) * per
        has_more = begin + per < len(items)
        return items[begin : begin + per], {more: has_more} if more else None, {}

    return page


def by_cursor(
    make: Callable[[str, int], tuple[Json, dict[str, str]]], param: str = "cursor", default: int = 3
) -> Callable[[Request, list[Json]], tuple[list[Json], Json, dict[str, str]]]:
    """Pages by a position that the answer names: `make` gives members and headers for a path and the next position."""

    def page(request: Request, items: list[Json]) -> tuple[list[Json], Json, dict[str, str]]:
        begin = int(request.params.get(param, "c0")[1:])
        body, headers = make(request.path, begin + default if begin + default < len(items) else 0)
        return items[begin : begin + default], body, headers

    return page
