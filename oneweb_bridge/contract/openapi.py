"""The OpenAPI 3.1 document of the console's API, made of the structs that the console answers with. Pure."""

import msgspec

from oneweb_bridge.commands import decode
from oneweb_bridge.config.schema import Config
from oneweb_bridge.contract import schemas
from oneweb_bridge.contract.schemas import Schema, ref
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.encoding import encode
from oneweb_bridge.model import status
from oneweb_bridge.model.forecast import Forecast
from oneweb_bridge.trends.series import Series
from oneweb_bridge.web import payloads
from oneweb_bridge.web.access import DATA, FLEET_METRICS

JSON, CSV, EVENTS, TEXT = "application/json", "text/csv", "text/event-stream", "text/plain"
OPENAPI = f"{DATA}/openapi.json"
_REFUSALS = {
    400: "a query, path or body that is not what was expected",
    401: "not signed in",
    403: "a page of another site, a missing X-Oneweb-Console, or a command while the console is read-only",
    404: "there is no such id or call, or the console is off",
    409: "over the request budget, or another replay runs",
    413: "a body of more than 4096 bytes",
    415: "a body that is not application/json",
    421: "a name in Host that is not the console's",
    429: "too many requests, or too many wrong tokens; Retry-After says how long to wait",
    503: "the database cannot be read, or too much is under way; Retry-After says how long to wait",
}
_EVERYWHERE = (401, 403, 404, 421, 429)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path: what it answers, as the name of a schema or a media type, and what it takes."""

    method: str
    path: str
    about: str
    answer: str = ""
    media: str = JSON
    more: dict[int, str] = {}
    parameters: tuple[str, ...] = ()
    body: str = ""
    refusals: tuple[int, ...] = ()
    is_open: bool = False


_COMMAND = (400, 409, 413, 415, 503)
_SERIES = ("entity", "id", "report", "names", "since", "until", "points", "as")
ROUTES = (
    Route(method="get", path=f"{DATA}/session", about="Who is asking", answer="SessionState", is_open=True),
    Route(
        method="post",
        path=f"{DATA}/session",
        about="Signs in with the token; the answer sets the cookie",
        answer="SessionState",
        body="SignIn",
        refusals=(400, 401, 413, 415),
        is_open=True,
    ),
    Route(method="delete", path=f"{DATA}/session", about="Signs out", more={204: "signed out"}),
    Route(method="get", path=f"{DATA}/bridge", about="State of the bridge", answer="BridgeAnswer", refusals=(400, 503)),
    Route(method="get", path=f"{DATA}/fleet", about="All terminals", answer="FleetAnswer", refusals=(400, 503)),
    *(
        Route(
            method="get",
            path=f"{DATA}/{kind}s/{{{key}}}",
            about=f"One {kind}",
            answer=f"{kind.capitalize()}Answer",
            parameters=(key,),
            refusals=(400, 503),
        )
        for kind, key in (
            ("terminal", "imei"),
            ("product", "product_id"),
            ("organization", "organization_id"),
            ("site", "site_id"),
        )
    ),
    Route(
        method="get",
        path=f"{DATA}/tree",
        about="Organizations and sites with their terminals",
        answer="TreeAnswer",
        refusals=(400, 503),
    ),
    Route(
        method="get",
        path=f"{DATA}/series",
        about="A span of a report as lines to draw",
        answer="Series",
        parameters=_SERIES,
        refusals=(400, 503),
    ),
    Route(
        method="get",
        path=f"{DATA}/series.csv",
        about="Every sample of a span",
        media=CSV,
        parameters=_SERIES,
        refusals=(400, 503),
    ),
    Route(
        method="get",
        path=f"{DATA}/events",
        about="Events, newest first",
        answer="EventsAnswer",
        parameters=("before", "limit", "of_entity", "of_id", "event_kind"),
        refusals=(400, 503),
    ),
    Route(
        method="get",
        path=f"{DATA}/alerts",
        about="Alerts, newest first",
        answer="AlertsAnswer",
        parameters=("before", "limit", "alert_kind"),
        refusals=(400, 503),
    ),
    Route(
        method="get",
        path=f"{DATA}/calls",
        about="The polling manager",
        answer="CallsAnswer",
        refusals=(400, 503),
    ),
    Route(
        method="get",
        path=f"{DATA}/exploration",
        about="What `oneweb-bridge explore` found last",
        answer="ExplorationAnswer",
        refusals=(400, 503),
    ),
    *(
        Route(
            method="post",
            path=f"{DATA}/calls/{{call}}/{verb}",
            about=about,
            answer="Result",
            more={202: "CommandAccepted"},
            parameters=("call",),
            body=body,
            refusals=_COMMAND,
        )
        for verb, about, body in (
            ("set", "Enables, disables or changes the interval of a call", "SetPayload"),
            ("poll", "Polls a call now", "PollPayload"),
        )
    ),
    *(
        Route(
            method="post",
            path=f"{DATA}/requests/{name}",
            about=about,
            answer="Response",
            more={202: "CommandAccepted"},
            body=decode.PAYLOADS[name].__name__,
            refusals=_COMMAND,
        )
        for name, about in zip(
            decode.REQUESTS,
            (
                "Publishes every retained topic again",
                "Publishes samples and events of the past once more",
                "Lets held removals and values go",
                "Clears retained topics that the bridge does not own any more",
            ),
            strict=True,
        )
    ),
    Route(
        method="get",
        path=f"{DATA}/live",
        about="The live stream of server-sent events, see docs/console.md",
        media=EVENTS,
        parameters=("since_id", "Last-Event-ID"),
        refusals=(400, 503),
    ),
    Route(method="get", path=OPENAPI, about="This document", answer="Document", refusals=(400,)),
    Route(
        method="get",
        path=FLEET_METRICS,
        about="The newest value of each indicator for Prometheus",
        media=TEXT,
        refusals=(400, 503),
    ),
)


def _query(name: str, about: str, schema: Schema, *, required: bool = False) -> Schema:
    return {"name": name, "in": "query", "required": required, "description": about, "schema": schema}


def _path(name: str, about: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "description": about, "schema": {"type": "string"}}


def _words(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


_TEXT: Schema = {"type": "string"}
_TIME = "RFC 3339 with its zone, ms since the epoch, or how long ago like 24h"
PARAMETERS: dict[str, Schema] = {
    "imei": _path("imei", "id of the terminal"),
    "product_id": _path("product_id", "id of the product"),
    "organization_id": _path("organization_id", "id of the organization"),
    "site_id": _path("site_id", "id of the site"),
    "call": _path("call", "a call of the polling manager, or all"),
    "entity": _query("entity", "whose report it is", _words("terminal", "product", "usage"), required=True),
    "id": _query("id", "its id; of usage the bucket", _TEXT, required=True),
    "report": _query("report", "the report, like signal_quality; of usage usage", _TEXT, required=True),
    "names": _query("names", "indicators, with commas; all without it", _TEXT),
    "since": _query("since", f"{_TIME}; 24h without it", _TEXT),
    "until": _query("until", f"{_TIME}; now without it", _TEXT),
    "points": _query(
        "points",
        "above so many samples they are put into bins",
        {"type": "integer", "minimum": 10, "maximum": 10_000, "default": 2000},
    ),
    "as": _query("as", "how counters are shown", {**_words("rate", "raw", "total"), "default": "rate"}),
    "before": _query("before", "next of the page before", {"type": "integer", "minimum": 1}),
    "limit": _query("limit", "length of a page", {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}),
    "of_entity": _query("entity", "of these alone", _words("terminal", "product", "organization", "site")),
    "of_id": _query("id", "of this id alone", _TEXT),
    "event_kind": _query("kind", "of this kind alone", _words("added", "changed", "removed")),
    "alert_kind": _query("kind", "of this kind alone", _TEXT),
    "since_id": _query("since", "id of the message behind which the stream goes on", _TEXT),
    "Last-Event-ID": {
        "name": "Last-Event-ID",
        "in": "header",
        "required": False,
        "description": "the same; it wins",
        "schema": _TEXT,
    },
}
"""Name in the table of routes -> the parameter."""

_STRUCTS: tuple[type[msgspec.Struct], ...] = (
    payloads.SessionState,
    payloads.ErrorAnswer,
    payloads.BridgeAnswer,
    payloads.FleetAnswer,
    payloads.TerminalAnswer,
    payloads.ProductAnswer,
    payloads.OrganizationAnswer,
    payloads.SiteAnswer,
    payloads.TreeAnswer,
    payloads.EventsAnswer,
    payloads.AlertsAnswer,
    payloads.CallsAnswer,
    payloads.ExplorationAnswer,
    payloads.CommandAccepted,
    Series,
    status.Result,
    status.Response,
    Forecast,
    status.Relations,
)
_BODIES: tuple[type[msgspec.Struct], ...] = (
    payloads.SignIn,
    decode.SetPayload,
    decode.PollPayload,
    *decode.PAYLOADS.values(),
)
_NULLABLE = frozenset(struct.__name__ for struct in _STRUCTS if struct.__name__.endswith("Answer")) | {
    "Series",
    "Line",
    "AlertEntry",
    "TreeNode",
    "Exploration",
    "ExploredCall",
    "Pool",
    "PoolMember",
    "HeldEntry",
}
"""Structs that say null for what is not known; the others leave it out."""

_DOCUMENTS: dict[str, dict[str, Schema]] = {
    "TerminalAnswer": {
        "record": ref("Terminal"),
        "relations": {"anyOf": [ref("Relations"), {"type": "null"}]},
        "products": {"type": "array", "items": ref("Product")},
        "buckets": {"type": "array", "items": ref("Usage")},
        "forecasts": {"type": "array", "items": ref("Forecast")},
    },
    "ProductAnswer": {
        "record": ref("Product"),
        "terminal": {"anyOf": [ref("Terminal"), {"type": "null"}]},
        "buckets": {"type": "array", "items": ref("Usage")},
        "forecasts": {"type": "array", "items": ref("Forecast")},
    },
    "OrganizationAnswer": {
        "record": ref("Organization"),
        "parent": {"anyOf": [ref("Organization"), {"type": "null"}]},
        "children": {"type": "array", "items": ref("Organization")},
        "sites": {"type": "array", "items": ref("Site")},
    },
    "SiteAnswer": {
        "record": ref("Site"),
        "terminals": {"type": "array", "items": ref("Terminal")},
        "products": {"type": "array", "items": ref("Product")},
    },
}
"""Struct -> what its members are that the struct takes as bytes."""


def document(config: Config, version: str) -> Schema:
    """The whole document, for one configuration and version of the bridge."""
    paths: dict[str, Schema] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = _operation(route)
    parts: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "oneweb-bridge console",
            "version": version,
            "description": "What the web console of oneweb-bridge shows and does. Paths are relative to its own.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"session": []}, {}],
        "paths": paths,
        "components": {
            "schemas": _schemas(config),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "console.token of the configuration"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": f"oneweb_console_{config.http.address()[1]}",
                    "description": "set by POST session; with it, commands need the header X-Oneweb-Console: 1",
                },
            },
        },
    }
    # A copy of each part, so that YAML needs no anchors.
    copied: Schema = msgspec.json.decode(encode(parts))
    return copied


def _operation(route: Route) -> Schema:
    codes = (*route.refusals, *((403, 404, 421, 429) if route.is_open else _EVERYWHERE))
    operation: Schema = {
        "summary": route.about,
        "responses": _answers(route) | {str(c): _refusal(c) for c in sorted({*codes})},
    }
    if route.parameters:
        operation["parameters"] = [PARAMETERS[name] for name in route.parameters]
    if route.body:
        operation["requestBody"] = {"required": route.body in ("SignIn", "SetPayload"), "content": _content(route.body)}
    if route.is_open:
        operation["security"] = [{}]
    return operation


def _answers(route: Route) -> Schema:
    answers: dict[str, Schema] = {}
    if route.answer or route.media != JSON:
        content = _content(route.answer) if route.answer else {route.media: {"schema": {"type": "string"}}}
        answers["200"] = {"description": route.about, "content": content}
    for code, name in route.more.items():
        is_schema = name[:1].isupper()
        about = "under way; its result comes with the live stream" if is_schema else name
        answers[str(code)] = {"description": about} | ({"content": _content(name)} if is_schema else {})
    return answers


def _content(name: str) -> Schema:
    return {JSON: {"schema": {"type": "object"} if name == "Document" else ref(name)}}


def _refusal(code: int) -> Schema:
    return {"description": _REFUSALS[code], "content": _content("ErrorAnswer")}


def _schemas(config: Config) -> dict[str, Schema]:
    answers = schemas.of_structs(_STRUCTS, nullable=True)
    published = schemas.of_structs(_STRUCTS)
    structs = {name: schema if name in _NULLABLE else published[name] for name, schema in answers.items()}
    for name, members in _DOCUMENTS.items():
        structs[name]["properties"] |= members
    usage = _calls(config)["usage"]
    records = {
        entity.capitalize(): schemas.record(call) for entity, call in _calls(config).items() if entity != "usage"
    }
    return {**structs, **schemas.of_structs(_BODIES, nullable=True), **records, "Usage": schemas.usage(usage)}


def _calls(config: Config) -> dict[str, Call]:
    """Entity -> the call whose records it has."""
    return {call.entity: call for call in config.polling.values() if call.reads in ("record", "usage")}
