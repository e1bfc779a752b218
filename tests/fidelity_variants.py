"""What a real API may do otherwise: each variant changes one thing of tests/fidelity_api.py."""

import gzip
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests import fidelity_api
from tests.fidelity_api import (
    HOST,
    REPORTS,
    Api,
    Json,
    Reply,
    Request,
    by_cursor,
    by_number,
    error,
    imei,
    parsed,
    rfc3339_window,
)
from tests.fidelity_api import by_offset as by_offset_

Change = Callable[[Api], None]
VARIANTS: dict[str, Change] = {}
"""What differs -> how the API is made so."""


def variant(name: str) -> Callable[[Change], Change]:
    """Adds a variant to the table."""

    def add(change: Change) -> Change:
        VARIANTS[name] = change
        return change

    return add


def _set(name: str, **parts: Any) -> None:
    def change(api: Api) -> None:
        for part, value in parts.items():
            setattr(api, part, value)

    VARIANTS[name] = change


def _records(name: str, made: Callable[[Json], Json], *calls: str) -> None:
    """Each record of some calls is made into another one."""

    def change(api: Api) -> None:
        api.record = lambda call, record: made(record) if call in calls else record

    VARIANTS[name] = change


def _all_records(name: str, made: Callable[[Json], Json]) -> None:
    VARIANTS[name] = lambda api: setattr(api, "record", lambda _, record: made(record))


def _wrapped(name: str, wrap: Callable[[list[Json]], Json]) -> None:
    _set(name, wrap=lambda _, items, __: wrap(items))


def _moved(name: str, call: str, path: str) -> None:
    VARIANTS[name] = lambda api: api.paths.update({call: path})


def _renamed(record: Json, **names: str) -> Json:
    return {names.get(name, name): value for name, value in record.items()}


def _deep(value: Json, name_of: Callable[[str], str]) -> Json:
    if isinstance(value, dict):
        return {name_of(name): _deep(inner, name_of) for name, inner in value.items()}
    return [_deep(inner, name_of) for inner in value] if isinstance(value, list) else value


def _mapped(value: Json, made: Callable[[Json], Json]) -> Json:
    """All values that are no list or object, made into others."""
    if isinstance(value, dict):
        return {name: _mapped(inner, made) for name, inner in value.items()}
    return [_mapped(inner, made) for inner in value] if isinstance(value, list) else made(value)


# ── sign-in ────────────────────────────────────────────────────────────────────────────────────

_set(
    "sign-in: two headers",
    accepts=lambda headers: (headers.get("client_id"), headers.get("client_secret")) == ("demo", "demo-secret"),
)
_set("sign-in: the check is not there", hello=lambda _: error(404))
_set("sign-in: the check is refused, data are not", hello=lambda _: error(403))
_set("sign-in: a token is wanted", accepts=lambda _: False, challenge='Bearer token_url="https://api.example/token"')
_set("sign-in: refused in every way", accepts=lambda _: False)

# ── envelopes ──────────────────────────────────────────────────────────────────────────────────

_wrapped("list: in items", lambda items: {"items": items})
_wrapped("list: in data", lambda items: {"data": items})
_wrapped("list: in Results", lambda items: {"Results": items})
_wrapped("list: in content", lambda items: {"content": items})
_wrapped("list: in value", lambda items: {"value": items, "@odata.context": "x"})
_wrapped("list: in response.records", lambda items: {"response": {"code": 0, "records": items}})
_wrapped("list: in _embedded.list", lambda items: {"_embedded": {"list": items}, "_links": {"self": {"href": "/x"}}})
_wrapped("list: in payload.data.rows", lambda items: {"payload": {"data": {"rows": items}}})
_wrapped(
    "list: JSON:API, data with attributes",
    lambda items: {"data": [{"type": "x", "id": i["id"], "attributes": _without(i, "id")} for i in items]},
)
_LAST: Json = {"hasNextPage": False, "endCursor": "x"}
_wrapped(
    "list: GraphQL, edges with nodes",
    lambda items: {"data": {"things": {"edges": [{"node": i, "cursor": i["id"]} for i in items], "pageInfo": _LAST}}},
)
_set("list: HAL, by the resource's name", wrap=lambda request, items, _: {"_embedded": {request.call: items}})
_wrapped("list: an object by id", lambda items: {item["id"]: item for item in items})
_wrapped("list: an object by id, without the ids in it", lambda items: {i["id"]: _without(i, "id") for i in items})
_set("list: a list in a list", wrap=lambda _, items, __: [items], page=lambda _, items: (items, None, {}))
_wrapped("list: JSON lines", lambda items: b"\n".join(json.dumps(item).encode() for item in items))
_wrapped("list: gzip that does not say so", lambda items: gzip.compress(json.dumps(items).encode()))
_set("list: every record twice", page=lambda _, items: (items + items, None, {}))
_wrapped("list: beside a status", lambda items: {"status": "OK", "data": items, "errors": []})
_wrapped("list: a text with JSON in it", lambda items: {"data": json.dumps(items)})


# ── pages ──────────────────────────────────────────────────────────────────────────────────────


def _numbered(request: Request, items: list[Json]) -> tuple[list[Json], Json, dict[str, str]]:
    """Pages from 0, of at most three records, with what Spring says of them."""
    size, number = min(3, int(request.params.get("size", 3))), int(request.params.get("page", 0))
    pages = -(-len(items) // size)
    more = {"size": size, "number": number, "totalElements": len(items), "totalPages": pages}
    return items[number * size : (number + 1) * size], more, {}


def _next_link(request: Request, more: Json) -> Json:
    number = more["number"] + 1
    links = {"next": {"href": f"{HOST}{request.path}?page={number}&size=3"}} if number < more["totalPages"] else {}
    return {"_links": links}


_set("pages: start and count", page=by_offset_("start", "count", 3, 3, total=False))
_set("pages: skip and top", page=by_offset_("skip", "top", 3, 3, total=False))
_set("pages: offset and limit, 3 at most", page=by_offset_(default=3, largest=3))
_set(
    "pages: offset and limit, and a total in the body",
    page=lambda r, items: (by_offset_(default=3, largest=3, total=False)(r, items)[0], {"total": len(items)}, {}),
)
_set("pages: page and size", page=by_number())
_set("pages: page from 0", page=by_number(first=0))
_set("pages: pageNumber and pageSize", page=by_number("pageNumber", "pageSize"))
_set("pages: page and per_page, hasMore", page=by_number("page", "per_page", more="hasMore"))
_set("pages: everything at once", page=lambda _, items: (items, None, {}))


def _link(path: str, position: int) -> tuple[Json, dict[str, str]]:
    return None, {"Link": f'<{HOST}{path}?cursor=c{position}>; rel="next"'} if position else {}


_set("pages: Link header", page=by_cursor(_link))
_set(
    "pages: nextCursor in meta",
    page=by_cursor(lambda _, position: ({"meta": {"nextCursor": f"c{position}" if position else None}}, {})),
)
_set("pages: next", page=by_cursor(lambda _, position: ({"next": f"c{position}" if position else None}, {}), "next"))
_set(
    "pages: pageToken",
    page=by_cursor(lambda _, position: ({"nextPageToken": f"c{position}"} if position else {}, {}), "pageToken"),
)
_set(
    "pages: next is an address",
    page=by_cursor(lambda path, position: ({"next": f"{HOST}{path}?cursor=c{position}" if position else None}, {})),
)
_set(
    "pages: _links.next.href",
    page=by_cursor(
        lambda path, position: ({"_links": {"next": {"href": f"{path}?cursor=c{position}"}} if position else {}}, {})
    ),
)
_set(
    "pages: a cursor under a name that nobody guesses",
    page=by_cursor(
        lambda _, position: ({"meta": {"nextCursor": f"c{position}" if position else None}}, {}), "resumeAt"
    ),
)
_set(
    "pages: at most 200 may be asked for",
    refuse=lambda r: error(400, "limit must not exceed 200") if int(r.params.get("limit", 0)) > 200 else None,
)
_set(
    "pages: unknown parameters are refused",
    refuse=lambda r: error(400, "unknown parameter offset") if "offset" in r.params or "limit" in r.params else None,
    page=lambda _, items: (items, None, {}),
)
_set(
    "pages: a total in the body that is never reached",
    wrap=lambda _, items, __: {"items": items, "total": len(items) + 4},
    page=lambda _, items: (items, None, {}),
)

_set(
    "pages: after and endCursor, of GraphQL",
    page=by_cursor(
        lambda _, position: (
            {"hasNextPage": position > 0, "endCursor": f"c{position}" if position else None},
            {},
        ),
        "after",
    ),
    wrap=lambda _, items, more: {"data": {"things": {"edges": [{"node": i} for i in items], "pageInfo": more}}},
)
_set(
    "pages: value and @odata.nextLink",
    page=by_cursor(
        lambda path, position: ({"@odata.nextLink": f"{HOST}{path}?$skiptoken=c{position}"} if position else {}, {}),
        "$skiptoken",
    ),
    wrap=lambda _, items, more: {"@odata.context": "$metadata", "value": items, **more},
)
_set(
    "pages: content and totalElements, of Spring",
    page=_numbered,
    wrap=lambda _, items, more: {"content": items, **more},
)
_set(
    "pages: _embedded and _links, of HAL",
    page=_numbered,
    wrap=lambda request, items, more: {"_embedded": {request.call: items}, "page": more, **_next_link(request, more)},
)
_set(
    "pages: each begins with the last record before",
    page=lambda r, items: (items[max(0, int(r.params.get("offset", 0)) - 1) :][:3], None, {}),
)
_set(
    "pages: a cursor that comes again",
    page=by_cursor(lambda _, position: ({"next": f"c{position or 3}"}, {}), "cursor"),
)

# ── time parameters ────────────────────────────────────────────────────────────────────────────


def _seconds(text: str) -> float:
    return float(int(text)) if 9 < len(text) < 11 else _refuse()


def _milliseconds(text: str) -> float:
    return int(text) / 1000 if len(text) == 13 else _refuse()


def _refuse() -> float:
    raise ValueError


def _form(pattern: str) -> Callable[[str], float]:
    """Reads a time that has exactly this form."""

    def read(text: str) -> float:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return (
            parsed(text if "T" not in text or text[-6:-5] == "+" or text[-1] == "Z" else f"{text}Z")
            if ("T" in text)
            else datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
        )

    return read


_DAY = r"\d{4}-\d\d-\d\d"
_TIME = _DAY + r"T\d\d:\d\d:\d\d"
_set("time: from and to in milliseconds", window=rfc3339_window("from", "to", _milliseconds))
_set("time: in seconds", window=rfc3339_window(read=_seconds, text="expected epoch seconds"))
_set("time: a date", window=rfc3339_window(read=_form(_DAY), text="startDateTime must match yyyy-MM-dd"))
_set("time: without a fraction", window=rfc3339_window(read=_form(_TIME + "Z")))
_set("time: with +00:00", window=rfc3339_window(read=_form(_TIME + r"\+00:00"), text="offset missing, use +00:00"))
_set("time: without a zone", window=rfc3339_window(read=_form(_TIME), text="local time without zone expected"))
_set("time: required", window=rfc3339_window(required=True))
_set(
    "time: from and to, required",
    window=rfc3339_window("from", "to", required=True, text="the parameters from and to are required"),
)
_set(
    "time: startTime and endTime in seconds, required",
    window=rfc3339_window("startTime", "endTime", _seconds, required=True),
)
_set("time: not heard", window=lambda _: None)
_set(
    "time: refused whatever it is",
    window=lambda r: error(400, "this report takes no period") if "startDateTime" in r.params else None,
)


def _short(request: Request) -> Any:
    window = rfc3339_window(required=True)(request)
    if not isinstance(window, Reply) and window is not None and window[1] - window[0] > 4 * 3600:
        return error(400, "the period must be at most 4 hours")
    return window


_set("time: required, of at most four hours", window=_short)

# ── ids ────────────────────────────────────────────────────────────────────────────────────────

_TERMINAL_REPORTS = REPORTS[:4]
_records("ids: a terminal has an imei and no id", lambda r: _without(r, "id"), "user_terminals")
_records("ids: reports name userTerminalId", lambda r: _renamed(r, id="userTerminalId"), *_TERMINAL_REPORTS)
_records("ids: reports have the terminal in resource.id", lambda r: _nested_id(r, "resource"), *_TERMINAL_REPORTS)
_records(
    "ids: reports have an id of their own",
    lambda r: {**r, "id": f"R-{r['id'][-3:]}", "imei": r["id"]},
    *_TERMINAL_REPORTS,
)
_records("ids: reports carry serial numbers", lambda r: {**r, "id": _serial(r["id"])}, *_TERMINAL_REPORTS)
_records("ids: reports carry IMSIs", lambda r: {**r, "id": _imsi(r["id"])}, *_TERMINAL_REPORTS)
_records(
    "ids: reports carry ids of another system",
    lambda r: {**r, "id": f"X{int(r['id']) * 7 % 99991}"},
    *_TERMINAL_REPORTS,
)
_records(
    "ids: reports have IMEIs with hyphens",
    lambda r: {**r, "id": f"{r['id'][:2]}-{r['id'][2:8]}-{r['id'][8:14]}-{r['id'][14:]}"},
    *_TERMINAL_REPORTS,
)
_records("ids: reports have IMEIs of 16 digits", lambda r: {**r, "id": f"{r['id'][:14]}01"}, *_TERMINAL_REPORTS)
_records(
    "ids: terminals have a uuid as their id", lambda r: {**r, "id": f"7d0c-{int(r['imei']) % 9973}"}, "user_terminals"
)
_records(
    "ids: numbers with a fraction of 0", lambda r: {**r, "id": float(r["id"])}, "user_terminals", *_TERMINAL_REPORTS
)
_records("ids: numbers", lambda r: {**r, "id": int(r["id"])}, "user_terminals", *_TERMINAL_REPORTS)
_records("ids: productId in throughput", lambda r: _renamed(r, id="productId"), "product_throughput")
_records("ids: products have productId", lambda r: _renamed(r, id="productId"), "products")


def _without(record: Json, *names: str) -> Json:
    return {name: value for name, value in record.items() if name not in names}


def _nested_id(record: Json, name: str) -> Json:
    return {**_without(record, "id"), name: {"id": record["id"]}}


def _number(id: str) -> int:
    return next(n for n in range(fidelity_api.COUNT) if imei(n) == id)


def _serial(id: str) -> str:
    return f"INS-{4400 + _number(id)}"


def _imsi(id: str) -> str:
    return f"00101017000{6100 + _number(id)}"


# ── names and spelling ─────────────────────────────────────────────────────────────────────────


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])[A-Z]", lambda match: "_" + match[0].lower(), name)


_all_records("names: snake_case", lambda record: _deep(record, _snake))
_all_records("names: PascalCase", lambda record: _deep(record, lambda name: name[:1].upper() + name[1:]))
_all_records("names: kebab-case", lambda record: _deep(record, lambda name: _snake(name).replace("_", "-")))
_records("names: states in capitals", lambda r: {**r, "resourceState": r["resourceState"].upper()}, "user_terminals")
_all_records(
    "values: numbers are texts",
    lambda record: _mapped(record, lambda v: str(v) if isinstance(v, float | int) and not isinstance(v, bool) else v),
)
_records(
    "values: commas between thousands",
    lambda r: _mapped(r, lambda v: f"{v:,}" if isinstance(v, int) and not isinstance(v, bool) else v),
    "ut_traffic",
)
_records("names: a terminal's name is displayName", lambda r: _renamed(r, name="displayName"), "user_terminals")
_records(
    "names: terminals have operationalState", lambda r: _renamed(r, resourceState="operationalState"), "user_terminals"
)
_records("names: terminals have connectivity", lambda r: _renamed(r, resourceState="connectivity"), "user_terminals")
_records("names: products have lifecycleStatus", lambda r: _renamed(r, status="lifecycleStatus"), "products")
_records(
    "names: terminals have lastContactDate", lambda r: _renamed(r, lastSeenDate="lastContactDate"), "user_terminals"
)

# ── reports ────────────────────────────────────────────────────────────────────────────────────


def _flat(measurement: Json) -> Json:
    return {"timestamp": measurement["timestamp"]} | {
        i["name"]: i["value"] for i in measurement["performanceIndicator"]
    }


def _measured(made: Callable[[Json], Json], name: str = "measurement") -> Callable[[Json], Json]:
    return lambda r: {**_without(r, "measurement"), name: [made(m) for m in r["measurement"]]}


def _rows(record: Json) -> list[Json]:
    return [{"id": record["id"], **_flat(m)} for m in record["measurement"]]


def _named_rows(record: Json) -> list[Json]:
    return [
        {"id": record["id"], "timestamp": m["timestamp"], "kpiName": i["name"], "kpiValue": i["value"]}
        for m in record["measurement"]
        for i in m["performanceIndicator"]
    ]


def _series(record: Json) -> Json:
    values: dict[str, list[Json]] = {}
    for m in record["measurement"]:
        for i in m["performanceIndicator"]:
            values.setdefault(i["name"], []).append([m["timestamp"], i["value"]])
    return {"id": record["id"], **values}


def _lists(record: Json) -> Json:
    flat = [_flat(m) for m in record["measurement"]]
    times = [row.pop("timestamp") for row in flat]
    names = list(flat[0]) if flat else []
    return {"id": record["id"], "timestamps": times} | {name: [row[name] for row in flat] for name in names}


def _long_series(record: Json) -> Json:
    columns = _lists(record)
    times = columns.pop("timestamps")
    series = [{"name": n, "timestamps": times, "values": v} for n, v in columns.items() if n != "id"]
    return {"id": record["id"], "series": series}


def _with_units(measurement: Json) -> Json:
    indicators = [
        _without(i, "indicatorUnit")
        | {"value": f"{i['value']} {i['indicatorUnit']}" if "indicatorUnit" in i else i["value"]}
        for i in measurement["performanceIndicator"]
    ]
    return {**measurement, "performanceIndicator": indicators}


def _table(record: Json) -> Json:
    flat = [_flat(m) for m in record["measurement"]]
    names = list(flat[0]) if flat else []
    return {"id": record["id"], "columns": names, "rows": [list(row.values()) for row in flat]}


def _indicators(made: Callable[[Json], Json], name: str = "performanceIndicator") -> Callable[[Json], Json]:
    def measured(measurement: Json) -> Json:
        return {"timestamp": measurement["timestamp"], name: [made(i) for i in measurement["performanceIndicator"]]}

    return _measured(measured)


_records("reports: flat measurements", _measured(_flat), *REPORTS)
_records("reports: one flat record for each measurement", _rows, *REPORTS)
_records("reports: a row for each indicator", _named_rows, *REPORTS)
_records("reports: a series for each indicator", _series, *REPORTS)
_records("reports: columns and rows", _table, *REPORTS)
_records("reports: values are texts with their unit", _measured(_with_units), *REPORTS)
_records("reports: lists of equal length", _lists, *REPORTS)
_records("reports: a series with timestamps and values", _long_series, *REPORTS)
_records(
    "reports: measurements in result", lambda r: {"id": r["id"], "result": {"measurement": r["measurement"]}}, *REPORTS
)
_records("reports: samples instead of measurement", lambda r: _renamed(r, measurement="samples"), *REPORTS)
_records(
    "reports: kpis with metric and val",
    _indicators(lambda i: {"metric": i["name"], "val": i["value"]}, "kpis"),
    *REPORTS,
)
_records(
    "reports: objects by indicator",
    _measured(
        lambda m: {"timestamp": m["timestamp"]} | {i["name"]: {"value": i["value"]} for i in m["performanceIndicator"]}
    ),
    *REPORTS,
)
_records("reports: measuredAt instead of timestamp", _measured(lambda m: _renamed(m, timestamp="measuredAt")), *REPORTS)
_records("reports: no time at all", _measured(lambda m: _without(m, "timestamp")), *REPORTS)
_records("reports: sampledOn, of no known word", _measured(lambda m: _renamed(m, timestamp="sampledOn")), *REPORTS)
_records(
    "reports: values below metrics",
    _measured(lambda m: {"timestamp": m["timestamp"], "metrics": _without(_flat(m), "timestamp")}),
    *REPORTS,
)
_records(
    "reports: indicators of other names",
    _indicators(lambda i: {**i, "name": f"zz{i['name'][::-1]}"}),
    "ut_signal_quality",
)
_records(
    "reports: RSRP_dBm, RSSI_dBm, SINR",
    _indicators(lambda i: {**i, "name": {"rsrp": "RSRP_dBm", "rssi": "RSSI_dBm", "sinr": "SINR"}[i["name"]]}),
    "ut_signal_quality",
)


@variant("reports: one path with a parameter")
def _parameter(api: Api) -> None:
    reports = {path.rpartition("/")[2]: call for call, path in api.paths.items() if call in REPORTS}
    others = {path: call for call, path in api.paths.items() if call not in REPORTS}
    api.find = lambda path, params: (
        reports.get(params.get("report", ""))
        if path == "/performanceMonitoring/v2/performanceReport"
        else others.get(path)
    )


@variant("reports: one request for each terminal or product")
def _each(api: Api) -> None:
    def find(path: str, _: dict[str, str]) -> str | None:
        match = re.fullmatch(r"(/performanceMonitoring/v2/\w+)/([\w-]+)/(\w+)", path)
        plain = f"{match[1]}/{match[3]}" if match else path
        call = next((call for call, known in api.paths.items() if known == plain), None)
        return None if call is None or (call in REPORTS) != bool(match) else call

    def page(request: Request, items: list[Json]) -> tuple[list[Json], Json, dict[str, str]]:
        own = [item for item in items if f"/{item['id']}/" in request.path] if request.call in REPORTS else items
        return (own if request.params.get("offset", "0") == "0" else []), None, {}

    api.find, api.page = find, page


# ── units ──────────────────────────────────────────────────────────────────────────────────────


def _scaled(factor: float, unit: str | None, member: str = "indicatorUnit") -> Callable[[Json], Json]:
    def made(indicator: Json) -> Json:
        scaled = {**_without(indicator, "indicatorUnit"), "value": round(indicator["value"] * factor, 9)}
        return scaled | ({member: unit} if unit else {})

    return _indicators(made)


_records("units: bps, said", _scaled(1e6, "bps"), "product_throughput")
_records("units: kbps in unit", _scaled(1e3, "kbps", "unit"), "product_throughput")
_records("units: MB in uom", _scaled(1e-6, "MB", "uom"), "ut_traffic")
_records("units: bps, not said", _scaled(1e6, None), "product_throughput")
_records("units: MB, not said", _scaled(1e-6, None), "ut_traffic")
_records("units: a ratio, not said", _scaled(1e-2, "1"), "ut_link_availability")
_records("units: a ratio, and nothing says it", _scaled(1e-2, None), "ut_link_availability")
_records("units: not said, as expected", _scaled(1, None), *(call for call in REPORTS if call != "ut_resource_state"))
_records("units: dBm ten times too large", _scaled(10, None), "ut_signal_quality")

# ── times in answers ───────────────────────────────────────────────────────────────────────────

_ISO = re.compile(_TIME + "Z")


def _times(made: Callable[[float], Json]) -> Callable[[Json], Json]:
    return lambda record: _mapped(record, lambda v: made(parsed(v)) if isinstance(v, str) and _ISO.fullmatch(v) else v)


def _written(form: str, ahead: int = 0) -> Callable[[float], Json]:
    return lambda seconds: datetime.fromtimestamp(seconds + ahead, UTC).strftime(form)


_all_records("answers: times in seconds", _times(int))
_all_records("answers: times in milliseconds", _times(lambda seconds: int(seconds * 1000)))
_all_records("answers: times in microseconds", _times(lambda seconds: int(seconds * 1_000_000)))
_all_records("answers: times in nanoseconds", _times(lambda seconds: int(seconds) * 1_000_000_000))
_all_records("answers: times with +0000", _times(_written("%Y-%m-%dT%H:%M:%S+0000")))
_all_records("answers: times with a space", _times(_written("%Y-%m-%d %H:%M:%S")))
_all_records("answers: local times, two hours ahead", _times(_written("%Y-%m-%dT%H:%M:%S", 7200)))
_all_records("answers: local times, five hours behind", _times(_written("%Y-%m-%dT%H:%M:%S", -18000)))
_all_records("answers: times in a form of its own", _times(_written("%d/%m/%y %H.%M")))

# ── paths ──────────────────────────────────────────────────────────────────────────────────────

_moved("paths: resourceInventory/v4", "user_terminals", "/resourceInventory/v4/userTerminal")
_moved("paths: userTerminals", "user_terminals", "/resourceInventory/v3/userTerminals")
_moved("paths: products", "products", "/api/webservices/productinventory/v2/products")
_moved("paths: productInventory without its prefix", "products", "/productInventory/v2/product")
_moved("paths: organizations", "organizations", "/partyManagement/v1/organizations")
_moved("paths: partyManagement/v4", "organizations", "/partyManagement/v4/organization")
_moved("paths: geographic-site", "sites", "/geographicSiteManagement/v1/geographic-site")
_moved("paths: /site/v1", "sites", "/site/v1/geographicSite")
_moved("paths: usageConsumption", "usage_consumption", "/usageConsumption/v3/usageConsumption")
_moved("paths: usageConsumption/v4", "usage_consumption", "/usageConsumption/v4/usageConsumptionReport")
_moved("paths: somewhere that nobody guesses", "sites", "/x/y/places")


@variant("paths: all of performance in v1")
def _performance(api: Api) -> None:
    api.paths |= {call: path.replace("/v2/", "/v1/") for call, path in api.paths.items() if call in REPORTS}


# ── terminals, products, usage ─────────────────────────────────────────────────────────────────


def _roles(record: Json) -> Json:
    names = {"Distribution Partner": "distributor", "End Customer": "customer"}
    return _mapped(record, lambda value: names.get(value, value) if isinstance(value, str) else value)


def _point(record: Json) -> list[float]:
    point: list[float] = record["location"]["features"][0]["geometry"]["coordinates"]
    return point


def _with_point(record: Json, point: list[float]) -> Json:
    return {**record, "location": {"features": [{"geometry": {"coordinates": point}}]}}


_records("terminals: latitude first", lambda r: _with_point(r, [_point(r)[1], _point(r)[0], 14.5]), "user_terminals")
_records(
    "terminals: latitude and longitude of their own",
    lambda r: {**_without(r, "location"), "latitude": _point(r)[1], "longitude": _point(r)[0]},
    "user_terminals",
)
_records(
    "terminals: the location is a point",
    lambda r: {**r, "location": {"type": "Point", "coordinates": _point(r)}},
    "user_terminals",
)
_records("terminals: no position", lambda r: _without(r, "location"), "user_terminals")
_records("terminals: place is a list", lambda r: {**r, "place": [r["place"]]}, "user_terminals")
_records(
    "terminals: components as a map",
    lambda r: {**r, "component": {"main": {c["type"]: c["version"] for c in r["component"]}}},
    "user_terminals",
)
_records(
    "terminals: components as softwareComponent", lambda r: _renamed(r, component="softwareComponent"), "user_terminals"
)
_records("terminals: no components", lambda r: _without(r, "component"), "user_terminals")
_all_records("parties: other roles", _roles)


def _characteristics(record: Json, made: Callable[[Json], Json]) -> Json:
    return {**record, "characteristic": [made(c) for c in record["characteristic"]]}


def _word(c: Json) -> Json:
    return {**c, "value": "No limit"} if c["name"] == "allowance" else c


_records(
    "sites: the position is a point",
    lambda r: (
        _without(r, "geographicLocation")
        | {
            "geometry": {
                "type": "Point",
                "coordinates": [float(r["geographicLocation"]["geometry"][0][n]) for n in "yx"],
            }
        }
    ),
    "sites",
)
_records(
    "products: the terminal is in imei",
    lambda r: _without(r, "realizingResource") | {"imei": r["realizingResource"][0]["id"]},
    "products",
)
_records("products: productCharacteristic", lambda r: _renamed(r, characteristic="productCharacteristic"), "products")
_records(
    "products: downlinkMaximum, uplinkMaximum",
    lambda r: _characteristics(
        r,
        lambda c: {
            **c,
            "name": {"maxBandwidthDownlink": "downlinkMaximum", "maxBandwidthUplink": "uplinkMaximum"}.get(
                c["name"], c["name"]
            ),
        },
    ),
    "products",
)
_records(
    "products: values with their unit",
    lambda r: _characteristics(r, lambda c: {**c, "value": f"{c['value']} {c['unit']}"} if "unit" in c else c),
    "products",
)
_records(
    "products: allowance in MB, said",
    lambda r: _characteristics(r, lambda c: {**c, "value": "300000", "unit": "MB"} if c["name"] == "allowance" else c),
    "products",
)
_records("usage: buckets", lambda r: _renamed(r, bucket="buckets"), "usage_consumption")
_records(
    "usage: counters of other types",
    lambda r: json.loads(json.dumps(r).replace('"usage"', '"used"')),
    "usage_consumption",
)
_records("usage: each bucket a record", lambda r: r["bucket"], "usage_consumption")
_records(
    "usage: no amounts",
    lambda r: {**r, "bucket": [_without(b, "bucketCounter", "bucketBalance") for b in r["bucket"]]},
    "usage_consumption",
)
_records(
    "usage: products of another system",
    lambda r: json.loads(json.dumps(r).replace("SC-41", "ZZ-99")),
    "usage_consumption",
)

# ── refusals ───────────────────────────────────────────────────────────────────────────────────


def _refused(name: str, call: str, reply: Reply) -> None:
    _set(name, refuse=lambda request: reply if request.call == call else None)


_refused("refusals: usage is not for these credentials", "usage_consumption", error(403, "no contract for this API"))
_refused("refusals: products fail", "products", error(500, "database down"))
_refused("refusals: sites answer with a list of nothing", "sites", Reply(200, []))
_refused("refusals: sites answer with 204", "sites", Reply(204, None))
_refused("refusals: sites answer with an error and 200", "sites", Reply(200, {"error": "quota", "items": []}))
_refused("refusals: sites say that it failed", "sites", Reply(200, {"success": False, "message": "x", "data": None}))
_refused("refusals: terminals have no list", "user_terminals", Reply(200, {"message": "see the manual"}))
