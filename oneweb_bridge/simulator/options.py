"""What can be chosen about the simulator: the fleet and its life, the transport, the form of the answers."""

from typing import Annotated, Literal

import msgspec

from .clock import parse_rfc3339
from .usage_kinds import KINDS, kinds_of

MOST, LONGEST = 1e6, 1e9
"""The largest factor or number of items, and the longest time in seconds."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The form of the answers: each member an uncertainty of the real API, its default the assumed form."""

    hello_path: str = "/hello/v1/oneweb/world"
    """Path of the sign-in check."""
    terminal_path: str = "/resourceInventory/v3/userTerminal"
    """Path of the user terminals."""
    component_path: str = "/resourceInventory/v3/userTerminalComponent"
    """Path of the components when `components` is "own_path"."""
    product_path: str = "/api/webservices/productinventory/v2/product"
    """Path of the products."""
    organization_path: str = "/partyManagement/v1/organization"
    """Path of the organizations."""
    site_path: str = "/geographicSiteManagement/v1/geographicSite"
    """Path of the sites."""
    usage_path: str = "/usageConsumption/v3/usageConsumptionReport"
    """Path of the usage reports."""
    performance_base: str = "/performanceMonitoring/v2"
    """Path above all performance reports."""
    reports: Literal["paths", "parameter"] = "paths"
    """One path per report, or {performance_base}/performanceReport?report=NAME."""
    report_request: Literal["get", "post_first"] = "get"
    """Plain GET, or POST {performance_base}/performanceReport and GET its id until it is ready."""
    start_parameter: str = "startDateTime"
    """Name of the query parameter with the begin of the window."""
    end_parameter: str = "endDateTime"
    """Name of the query parameter with the end of the window."""
    time_format: Literal["rfc3339", "epoch_ms", "epoch_s"] = "rfc3339"
    """Form of the time parameters."""
    timestamps: Literal["rfc3339", "epoch_ms"] = "rfc3339"
    """Form of a measurement's timestamp."""
    window_required: bool = False
    """Whether a report without a window is refused with 400."""
    report_scope: Literal["bulk", "per_terminal"] = "bulk"
    """All ids in one listing, or one id per request: {base}/userTerminal/{id}/{report} or ?id=."""
    indicators: Literal["list", "flat", "columns"] = "list"
    """A measurement as a list of indicators or a flat object, or the report as columns and rows."""
    names: Literal["default", "other"] = "default"
    """Names of indicators and characteristics."""
    throughput_unit: Literal["Mbps", "bps"] = "Mbps"
    """Unit of throughput values."""
    traffic_unit: Literal["B", "MB"] = "B"
    """Unit of traffic values."""
    indicator_unit: bool = True
    """Whether indicators say their unit."""
    traffic: Literal["counter", "delta"] = "counter"
    """Traffic as cumulative counters or as the amount of each interval."""
    signal: Literal["named", "swapped"] = "named"
    """Whether rsrp and rssi carry each other's values."""
    components: Literal["attribute", "own_path", "relationship", "characteristics"] = "attribute"
    """Where component versions live."""
    component_form: Literal["list", "map"] = "list"
    """The component attribute as a list or as {partition: {type: version}}."""
    component_shown: Literal["asked", "always"] = "asked"
    """Whether a terminal shows its components only when `fields` asks for them."""
    envelope: Literal["none", "items", "data", "results"] = "none"
    """A bare array, or an object that holds it."""
    paging: Literal["offset_limit", "none", "page_size", "link_next", "cursor"] = "offset_limit"
    """How a listing is cut into pages."""
    partial_206: bool = False
    """Whether an incomplete page has status 206 and a Link header."""
    totals: bool = True
    """Whether X-Total-Count and X-Result-Count are sent."""
    offset_parameter: str = "offset"
    """Name of the offset parameter."""
    limit_parameter: str = "limit"
    """Name of the limit parameter."""
    fields: bool = True
    """Whether the `fields` parameter works; else it is ignored."""
    coordinate_order: Literal["lon_lat", "lat_lon"] = "lon_lat"
    """Order of a terminal's coordinates."""
    null_locations: bool = False
    """Whether some terminals never found out where they are: no location, no features, or no geometry."""
    more_fields: bool = False
    """Whether terminals say networkStatus and firmwareVersion, usage currentBalance, and sites name two parties."""
    place: Literal["object", "array", "external_id"] = "object"
    """A terminal's place: an object, an array of one, or an object whose externalId is the site's id."""
    roles: Literal["default", "other"] = "default"
    """Texts of relatedParty roles: "Distribution Partner", "End Customer"; or "distributor", "customer"."""
    product_link: Literal["realizing_resource", "characteristic", "terminal_only"] = "realizing_resource"
    """Where the link between product and terminal stands."""
    date_names: Literal["default", "fallback"] = "default"
    """"fallback": no startDate, billingStartDate and lastUpdate, and versionNumber for hardwareVersion."""
    unlimited: Literal["text", "null", "minus_one"] = "text"
    """How an unlimited allowance is written."""
    counters: Literal["default", "other"] = "default"
    """"other": counter types "used", "allowance", "overageBlocks"; the sub-pool in bucketRelationship."""
    usage_rows: Literal["bucket", "counter"] = "bucket"
    """One usage item per report with buckets, or one per counter."""
    link_metrics: Literal["default", "other"] = "default"
    """"other": rtt in ms, delayVariation in ms, lossRatio without unit (0 to 1)."""
    zone_hours: float | None = None
    """If set, times carry no offset and are this many hours ahead of UTC."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet, its life, its transport. The notes are what `simulate --help` says."""

    host: Annotated[str, "address to listen on"] = "127.0.0.1"
    port: Annotated[int, "port to listen on; 0 takes a free one"] = 0
    terminals: Annotated[int, "terminals in the fleet, 0 to 400000"] = 25
    seed: Annotated[int, "seed of the story; the same seed, start and time give the same bytes"] = 1
    speed: Annotated[float, "simulated seconds per real second; 0 stands still"] = 1.0
    start: Annotated[str | None, "simulated start time, RFC 3339; without it, now"] = None
    client_id: Annotated[str, "the client id that is accepted"] = "demo"
    client_secret: Annotated[str, "the client secret that is accepted"] = "demo-secret"  # noqa: S105  # the public one of the demo
    auth: Annotated[
        Literal["basic", "headers", "oauth2"],
        "how clients sign in: HTTP Basic, the headers client_id and client_secret, or an OAuth2 token",
    ] = "basic"
    token_ttl: Annotated[float, "real seconds that an OAuth2 token lasts"] = 3600.0
    liveliness: Annotated[float, "how often things change, as a factor; 0 lets nothing change by itself"] = 1.0
    report_period: Annotated[
        float, "factor on the time between two measurements; 0.02 gives samples every 6 to 72 s"
    ] = 1.0
    report_period_from: Annotated[
        str | None,
        "RFC 3339 time from which the report period holds; measurements before it have OneWeb's own periods",
    ] = None
    lateness_scale: Annotated[float, "factor on how late measurements become visible"] = 1.0
    cycle: Annotated[float | None, "seconds of a bill cycle; without it, calendar months in UTC"] = None
    cycle_day: Annotated[int, "day of the month, 1 to 28, on which a bill cycle of a calendar month begins"] = 1
    usage: Annotated[
        str,
        "how data are used: smooth, or kinds with commas that products take in turn (office, steady, vessel, bursty, "
        "shift, growth, walk)",
    ] = "smooth"
    keep: Annotated[float, "seconds of history that reports reach back"] = 7 * 86400.0
    default_limit: Annotated[int, "items of a page when no limit is asked for"] = 100
    max_limit: Annotated[int, "largest page"] = 1000
    rate_limit: Annotated[int | None, "requests allowed per window; without it, no limit and no rate headers"] = None
    rate_window: Annotated[float, "real seconds of the rate limit's window"] = 60.0
    gzip: Annotated[bool, "whether bodies are compressed for clients that accept it"] = True
    ledger: Annotated[str | None, "file to which every answered page is appended as a JSON line"] = None
    shape: Annotated[Shape, "the form of the answers"] = Shape()

    def __post_init__(self) -> None:
        for sentence, wrong in (
            ("terminals must be from 0 to 400000", not 0 <= self.terminals <= 400_000),
            ("port must be from 0 to 65535", not 0 <= self.port <= 65535),
            ("speed must be from 0 to 1000000", not 0 <= self.speed <= MOST),
            ("seed must be from 0 to 9223372036854775807", not 0 <= self.seed < 1 << 63),
            ("liveliness must be from 0 to 1000000", not 0 <= self.liveliness <= MOST),
            ("report_period must be above 0, at most 1000000", not 0 < self.report_period <= MOST),
            ("lateness_scale must be from 0 to 1000000", not 0 <= self.lateness_scale <= MOST),
            ("cycle must be from 1 to 1000000000 seconds", self.cycle is not None and not 1 <= self.cycle <= LONGEST),
            ("cycle_day must be from 1 to 28", not 1 <= self.cycle_day <= 28),
            (f"usage must be smooth, or some of {', '.join(KINDS)}, with commas", not _is_usage(self.usage)),
            ("keep must be above 0, at most 1000000000 seconds", not 0 < self.keep <= LONGEST),
            ("token_ttl must be above 0, at most 1000000000 seconds", not 0 < self.token_ttl <= LONGEST),
            ("max_limit must be from 1 to 1000000", not 1 <= self.max_limit <= MOST),
            ("default_limit must be from 1 to max_limit", not 1 <= self.default_limit <= self.max_limit),
            ("rate_limit must be at least 1", self.rate_limit is not None and self.rate_limit < 1),
            ("rate_window must be above 0, at most 1000000000 seconds", not 0 < self.rate_window <= LONGEST),
            ("start must be an RFC 3339 time such as 2025-06-17T14:15:00Z", not _is_time(self.start)),
            (
                "report_period_from must be an RFC 3339 time such as 2025-06-17T14:15:00Z",
                not _is_time(self.report_period_from),
            ),
            ("zone_hours must be from -24 to 24", not -24 <= (self.shape.zone_hours or 0.0) <= 24),
            ("every path in shape must begin with a slash", not _paths_are_absolute(self.shape)),
        ):
            if wrong:
                raise ValueError(f"{sentence}.")


def _is_time(text: str | None) -> bool:
    try:
        return text is None or parse_rfc3339(text) > 0
    except ValueError:
        return False


def _is_usage(text: str) -> bool:
    try:
        kinds_of(text)
    except ValueError:
        return False
    return True


def _paths_are_absolute(shape: Shape) -> bool:
    names = [name for name in shape.__struct_fields__ if name.endswith(("_path", "_base"))]
    return all(str(getattr(shape, name)).startswith("/") for name in names)
