"""The form of the configuration: structs with defaults, and the kinds of their values. Pure.

A kind is an annotated type: its `Meta` carries the bounds, the words for what was expected, and the
functions between the text of the file and the value. `read` and `write` go by these alone.
"""

import functools
import re
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from oneweb_bridge.config.units import (
    MAX_INTERVAL_S,
    MIN_INTERVAL_S,
    interval_text,
    length_text,
    parse_amount,
    parse_duration,
    parse_length,
    parse_share,
    parse_size,
    share_text,
    size_text,
)
from oneweb_bridge.decode.catalogue import Call, Explode, FieldType, PageSettings, TimeWindow

MAX_COUNT = 1_000_000_000


class Secret(str):
    """A text that `repr` does not show; `str` gives it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def _read_flag(raw: object) -> object:
    # YAML 1.1 has these words, and people who write configuration know them.
    return {"yes": True, "on": True, "no": False, "off": False}.get(str(raw).strip().casefold(), raw)


def _read_protocol(raw: object) -> str:
    return str(raw).removesuffix(".0")


AUTO = 0
"""What `mqtt.window: auto` is as a number."""


def _read_window(raw: object) -> object:
    if str(raw).strip() == str(AUTO):
        raise ValueError
    return AUTO if str(raw).strip().casefold() == "auto" else raw


def _window_text(window: int) -> object:
    return window or "auto"


def _to_list(raw: object) -> object:
    return [raw] if isinstance(raw, str) else raw


def _to_numbers(raw: object) -> object:
    texts = raw if isinstance(raw, (list, tuple)) else [raw]
    return [int(text) if isinstance(text, str) and text.isdecimal() else text for text in texts]


def _list_or_single(entries: tuple[object, ...]) -> object:
    return entries[0] if len(entries) == 1 else list(entries)


def _annotate(expected: str, parse: Callable[[object], object], text: Callable[[Any], object], **bounds: Any) -> Meta:
    return Meta(description=expected, extra={"parse": parse, "text": text}, **bounds)


_DURATION_TEXT = "a duration like 30s or 5m, at most 100 years"
Duration = Annotated[float, _annotate(_DURATION_TEXT, parse_duration, interval_text, ge=0)]
PositiveDuration = Annotated[float, _annotate(_DURATION_TEXT, parse_duration, interval_text, gt=0)]
Interval = Annotated[
    float, _annotate("a duration from 10s to 7d", parse_duration, interval_text, ge=MIN_INTERVAL_S, le=MAX_INTERVAL_S)
]
Size = Annotated[int, _annotate("a size like 64kB or 4GB", parse_size, size_text, gt=0)]
Length = Annotated[float, _annotate("a length like 100m or 1km", parse_length, length_text, ge=0)]
Share = Annotated[float, _annotate("a share like 10% or 0.1", parse_share, share_text, ge=0, le=1)]
Flag = Annotated[bool, _annotate("true or false", _read_flag, bool)]
Port = Annotated[int, Meta(ge=1, le=65535, description="a port from 1 to 65535")]
Count = Annotated[int, Meta(ge=1, le=MAX_COUNT, description="a whole number from 1 to 1000000000")]
Number = Annotated[int, Meta(ge=0, le=MAX_COUNT, description="a whole number from 0 to 1000000000")]
InFlight = Annotated[
    int, _annotate("auto or a whole number from 1 to 65535", _read_window, _window_text, ge=AUTO, le=65535)
]
Statuses = Annotated[
    tuple[Literal[204, 404], ...], _annotate("a list of 204 and 404, or one of them", _to_numbers, _list_or_single)
]
Texts = Annotated[tuple[str, ...], Meta(description="a list of texts like [a, b]")]
Paths = Annotated[tuple[str, ...], _annotate("a path or a list of paths", _to_list, _list_or_single, min_length=1)]
Roles = Annotated[tuple[str, ...], _annotate("a role's name or a list of them", _to_list, list, min_length=1)]
Amount = Annotated[float, _annotate("an amount like 90 or 89.5, at most 1000000000", parse_amount, float, ge=0)]
Currency = Annotated[str, Meta(pattern=r"^\S{1,16}\Z", description="a currency like EUR, without spaces")]
FileName = Annotated[str, Meta(min_length=1, description="a file name", extra={"file": True})]
Instance = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z", description="1 to 64 letters, digits, '_' or '-'")]
WorkerName = Annotated[str, Meta(pattern=r"^[!-~]{1,128}\Z", description="1 to 128 characters of ASCII without spaces")]
Host = Annotated[str, Meta(min_length=1, pattern=r"^[^\s/]+\Z", description="a host name or an address")]
UrlPath = Annotated[
    str, Meta(pattern=r"^/[^?#\s]*\Z", description="a path that begins with '/' (parameters belong to query)")
]


class Hello(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sign-in check."""

    path: UrlPath = "/hello/v1/oneweb/world"
    interval: Interval = 900.0


class Auth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the credentials are sent. The last three are for oauth2_client_credentials only."""

    style: Literal["basic", "headers", "oauth2_client_credentials"] = "basic"
    client_id_header: str = "client_id"
    client_secret_header: str = "client_secret"  # noqa: S105 - the header's name
    token_url: str | None = None
    scope: str | None = None
    token_auth: Literal["basic", "body"] = "basic"  # noqa: S105 - a style


class RateLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bridge's own limits of requests, whatever the API allows, and the longest pause that a 429 may impose."""

    max_in_flight: Count = 1
    min_interval: Duration = 0.25
    max_requests_per_hour: Count | None = None
    max_pause: PositiveDuration = 3600.0


class Timeout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds: to connect, between two bytes of an answer, and for all pages of one poll."""

    connect: PositiveDuration = 10.0
    read: PositiveDuration = 60.0
    poll: PositiveDuration = 600.0


class Api(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the API is and how to sign in. A proxy's address may carry a password, hence a secret."""

    base_url: str = "https://api.oneweb.net"
    client_id: Secret = Secret()
    client_secret: Secret = Secret()
    allow_http: Flag = False
    hello: Hello = Hello()
    auth: Auth = Auth()
    rate_limit: RateLimit = RateLimit()
    timeout: Timeout = Timeout()
    clock_tolerance: Duration = 600.0
    max_body: Size = 64_000_000
    proxy: Secret | None = None
    ca_file: FileName | None = None


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TLS to the broker. `insecure` skips the check of its name and certificate."""

    enabled: Flag = False
    ca_file: FileName | None = None
    cert_file: FileName | None = None
    key_file: FileName | None = None
    insecure: Flag = False


_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+)):(\d{1,5})")
Servers = Annotated[
    tuple[Annotated[str, Meta(pattern=rf"^{_HOST_AND_PORT.pattern}\Z")], ...],
    _annotate("a list of servers like [broker-b.example.net:1883, '[fd00::2]:1883']", _to_list, list),
]

KEEPALIVE = 30
"""MQTT Keep Alive in seconds."""


class Mqtt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The broker."""

    host: Host = "localhost"
    port: Port = 1883
    protocol: Annotated[Literal["5", "3.1.1"], _annotate('"5" or "3.1.1"', _read_protocol, str)] = "5"
    transport: Literal["tcp", "websockets"] = "tcp"
    path: UrlPath = "/mqtt"
    base_topic: str = "oneweb"
    clear_old_base: Flag = True
    username: Secret | None = None
    password: Secret | None = None
    allow_plain_password: Flag = False
    tls: Tls = Tls()
    servers: Servers = ()
    window: InFlight = AUTO
    max_payload: Size = 64_000


DEFAULT_PATH = "oneweb-bridge.db"


class History(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Retention of published journal rows: seconds for events and samples, bytes for all."""

    events: Duration = 2_592_000.0
    samples: Duration = 604_800.0
    max_size: Size = 4_000_000_000


LeaseTime = Annotated[float, _annotate("a duration from 2s to 5m", parse_duration, interval_text, ge=2.0, le=300.0)]


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The database: the file `path` of SQLite, or with `url` one of PostgreSQL, of which the other keys speak."""

    path: Annotated[str, Meta(min_length=1, description="a file name")] | None = DEFAULT_PATH
    url: Secret | None = None
    lease: LeaseTime = 15.0
    worker: WorkerName | None = None
    history: History = History()
    max_backlog: Duration = 604_800.0


class Trends(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long and how much is kept of every sample, in a file of its own. Without `path` it is beside the database."""

    enabled: Flag = True
    path: Annotated[str, Meta(min_length=1, description="a file name")] | None = None
    keep: PositiveDuration = 63_072_000.0
    keep_daily: PositiveDuration = 315_360_000.0
    max_size: Size = 4_000_000_000


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How values of the API are decoded, for all calls."""

    coordinate_order: Literal["lon_lat", "lat_lon"] = "lon_lat"
    timezone: str = "UTC"
    online_states: Texts = ("online",)
    unlimited: Texts = ("Unlimited", "-1")
    roles: dict[str, Roles] = msgspec.field(default_factory=lambda: dict(ROLES))


ROLES: dict[str, tuple[str, ...]] = {
    "distribution_partner": ("Distribution Partner",),
    "end_customer": ("End Customer",),
}
"""Names that paths use in braces -> what the API calls these roles."""


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is published; empty means all."""

    organizations: Texts = ()
    sites: Texts = ()
    imeis: Texts = ()


class HoldAbove(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """More removals at once than the greater of both are held."""

    count: Number = 5
    share: Share = 0.1


class Removal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a record that the API no longer lists is removed."""

    after_missing: Count = 3
    after_time: Duration = 900.0
    hold_above: HoldAbove = HoldAbove()
    hold_for: Duration = 86_400.0


class HomeAssistant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Home Assistant's discovery."""

    enabled: Flag = True
    discovery_prefix: str = "homeassistant"
    filter: Filter = Filter()


_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):(\d{1,5})")


class Http(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where health and metrics are served."""

    listen: Annotated[
        str, Meta(pattern=rf"^{_LISTEN.pattern}\Z", description="an address and a port like 127.0.0.1:8480")
    ] = "127.0.0.1:8480"

    def address(self) -> tuple[str, int]:
        """Host and port; port 0 means any free one."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


Networks = Annotated[tuple[str, ...], _annotate("a list of addresses and networks like [10.0.0.0/8]", _to_list, list)]
Names = Annotated[tuple[str, ...], _annotate("a list of host names like [bridge.example.net]", _to_list, list)]


class Console(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may use the web console. Without a token only this host may."""

    enabled: Flag = True
    token: Secret | None = None
    read_only: Flag = False
    hosts: Names = ()
    trusted_proxies: Networks = ()
    ingress: str | None = None
    session: PositiveDuration = 43_200.0


class ForecastSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The forecast of allowances; the price of an overage block is published as it is."""

    enabled: Flag = True
    overage_price: Amount | None = None
    overage_currency: Currency | None = None


SparkplugId = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9._ -]{1,64}\Z", description="1 to 64 letters, digits, spaces, '-', '_' or '.'")
]
HostId = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9.$%@!_^*-]{1,64}\Z",
        description="1 to 64 letters, digits or characters of . $ % @ ! - _ ^ *",
    ),
]
DevicesPerNode = Annotated[int, Meta(ge=1, le=2000, description="a whole number from 1 to 2000")]


class Sparkplug(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleet as Sparkplug B Edge Nodes and Devices. Without `mqtt` over the same broker."""

    enabled: Flag = False
    group_id: SparkplugId = "OneWeb"
    edge_node_id: SparkplugId = "oneweb-bridge"
    devices_per_edge_node: DevicesPerNode = 500
    primary_host_id: HostId | None = None
    mqtt: Mqtt | None = None


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The effective configuration. `polling` has all twelve calls, in the catalogue's order."""

    instance: Instance = "main"
    profile: Literal["production", "training"] = "production"
    api: Api = Api()
    mqtt: Mqtt = Mqtt()
    polling: dict[str, Call]
    mapping: Mapping = Mapping()
    filter: Filter = Filter()
    location_threshold: Length = 100.0
    removal: Removal = Removal()
    state: State = State()
    trends: Trends = Trends()
    homeassistant: HomeAssistant = HomeAssistant()
    http: Http = Http()
    console: Console = Console()
    forecast: ForecastSettings = ForecastSettings()
    sparkplug: Sparkplug = Sparkplug()
    log: Log = Log()


class MapForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field of `polling.<call>.map` as it stands in the file; `unit` is the API's."""

    path: Paths
    type: FieldType = "text"
    unit: str = ""
    kind: Literal["gauge", "cumulative", "delta"] = "gauge"


class CallForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`polling.<call>` as it stands in the file."""

    enabled: Flag
    interval: Interval
    path: UrlPath
    query: dict[str, str]
    records: str | None
    explode: Explode
    key: Paths
    map: dict[str, MapForm | None]
    page: PageSettings
    window: TimeWindow | None
    lateness: Duration
    empty_status: Statuses
    for_each: Literal["user_terminals", "products"] | None
    fetch: Literal["get", "request"]
    match: Annotated[str, Meta(description="a field of the inventory's records like serial_number")]
    measurements: str | None
    timestamp: Paths
    indicators: str | None


_FILE_TYPES: dict[type, dict[str, Any]] = {
    Config: {"polling": dict[str, CallForm]},
    PageSettings: {"limit": Count, "max_pages": Count, "first_page": Number},
    TimeWindow: {"length": PositiveDuration, "keep": PositiveDuration, "required": Flag},
}
"""Types of the keys whose struct allows more than the file does."""


@functools.cache
def key_types(struct: type) -> dict[str, Any]:
    """Key -> annotated type of one struct, in the file's order."""
    return get_type_hints(struct, include_extras=True) | _FILE_TYPES.get(struct, {})


def without_none(kind: Any) -> tuple[Any, bool]:
    """The type without None, and whether null is allowed."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind, False
    (inner,) = (member for member in get_args(kind) if member is not type(None))
    return inner, True


def meta(kind: Any) -> Meta:
    """The `Meta` of an annotated type; an empty one for a bare type."""
    notes = [note for note in getattr(kind, "__metadata__", ()) if isinstance(note, Meta)]
    return notes[0] if notes else Meta(extra={})


def expected(kind: Any) -> str:
    """The words for what a type expects."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    return meta(kind).description or "a text"
