"""The form of the configuration: structs with defaults, units of values, and rules over several keys.

A kind is an annotated type: its `Meta` carries the bounds, the words for what was expected, and the
functions between the text of the file and the value. `config` reads and writes by these alone.
"""

import functools
import ipaddress
import re
import types
import zoneinfo
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Table
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from oneweb_bridge.decode.catalogue import Call, Explode, FieldType, PageSettings, TimeWindow
from oneweb_bridge.decode.units import can_convert

MAX_QUANTITY_CHARS = 64
"""Longest text that is read as a number with a unit."""
MAX_DURATION_S = 100 * 366 * 86400.0
MAX_SIZE_BYTES = (1 << 63) - 1
MAX_LENGTH_M = 1e9
MAX_COUNT = 1_000_000_000
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z%]*)", re.ASCII)
_DURATIONS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0, "": 1.0, "ms": 0.001}
_ISO_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", re.ASCII)
"""ISO 8601 without years, months and weeks, which Home Assistant and Java write."""
_ISO_FACTORS = (86400.0, 3600.0, 60.0, 1.0)
_DECIMAL = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY = {"KiB": 2**10, "kiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZES = _DECIMAL | _BINARY
_LENGTHS = {"km": 1000.0, "m": 1.0, "": 1.0}
_SHARES = {"%": 0.01, "": 1.0}


class Secret(str):
    """A text that `repr` does not show; `str` gives it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def parse_duration(said: object) -> float:
    """Seconds from `30s`, `5m`, `5min`, `6h`, `1d`, `250ms`, `PT5M` or a number. Raises ValueError with a sentence."""
    expected = "a duration like 30s or 5m, at most 100 years"
    parts = _ISO_DURATION.fullmatch(said.strip()) if isinstance(said, str) and len(said) <= MAX_QUANTITY_CHARS else None
    if parts is None or parts[0][-1] in "PT":
        return _quantity(said, _DURATIONS, expected, MAX_DURATION_S)
    seconds = sum(float(part or 0) * factor for part, factor in zip(parts.groups(), _ISO_FACTORS, strict=True))
    return _quantity(seconds, _DURATIONS, expected, MAX_DURATION_S)


def parse_size(said: object) -> int:
    """Bytes from `64kB`, `256MB`, `4GB`, `64KiB` or a number of bytes. Raises ValueError with a sentence."""
    return round(_quantity(said, _SIZES, "a size like 64kB or 4GB", MAX_SIZE_BYTES))


def parse_length(said: object) -> float:
    """Metres from `100m`, `1km` or a number of metres. Raises ValueError with a sentence."""
    return _quantity(said, _LENGTHS, "a length like 100m or 1km", MAX_LENGTH_M)


def parse_share(said: object) -> float:
    """A share from `10%` or `0.1`. Raises ValueError with a sentence."""
    return round(_quantity(said, _SHARES, "a share like 10% or 0.1", 1.0), 12)


def _quantity(said: object, units: Table[str, float], expected: str, most: float) -> float:
    """The number in `said`, in the unit of the bridge: from 0 to `most`, never infinite. Raises ValueError alone."""
    number: float | None = None
    if isinstance(said, (int, float)) and not isinstance(said, bool):
        number = said
    elif isinstance(said, str) and len(said) <= MAX_QUANTITY_CHARS:
        match = _QUANTITY.fullmatch(said.strip())
        number = float(match[1]) * units[match[2]] if match and match[2] in units else None
    # Compared before it is converted: an integer may have any size.
    if number is None or not 0 <= number <= most:
        raise ValueError(f"expected {expected}, got {_shortened(said)}")
    return float(number)


def _shortened(said: object) -> str:
    """A value as it stands in an error; a long one is cut."""
    if isinstance(said, int) and not isinstance(said, bool) and abs(said) >= 10**20:
        return "a number of more than 20 digits"
    text = str(said)
    return f"'{text[:40]}…'" if len(text) > 40 else f"'{text}'"


def interval_text(seconds: float) -> str:
    """The shortest exact form of a duration: 300 -> 5m. `parse_duration` reads it back."""
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _DURATIONS[unit] == 0:
            return f"{round(seconds / _DURATIONS[unit])}{unit}"
    millis = round(seconds * 1000)
    return f"{millis}ms" if millis and parse_duration(f"{millis}ms") == seconds else f"{seconds:.15g}s"


def _size_text(size: int) -> str:
    for unit in ("TB", "GB", "MB", "kB", "TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return f"{size}B"


def _length_text(metres: float) -> str:
    return f"{round(metres / 1000)}km" if metres and metres % 1000 == 0 else f"{metres:.15g}m"


def _share_text(share: float) -> str:
    return f"{round(share * 100, 10):.12g}%"


def _flag(said: object) -> object:
    # YAML 1.1 has these words, and people who write configuration know them.
    return {"yes": True, "on": True, "no": False, "off": False}.get(str(said).strip().casefold(), said)


def _protocol(said: object) -> str:
    return str(said).removesuffix(".0")


def _listed(said: object) -> object:
    return [said] if isinstance(said, str) else said


def _numbers(said: object) -> object:
    texts = said if isinstance(said, (list, tuple)) else [said]
    return [int(text) if isinstance(text, str) and text.isdecimal() else text for text in texts]


def _unlisted(said: tuple[object, ...]) -> object:
    return said[0] if len(said) == 1 else list(said)


def _kind(expected: str, parse: Callable[[object], object], text: Callable[[Any], object], **bounds: Any) -> Meta:
    return Meta(description=expected, extra={"parse": parse, "text": text}, **bounds)


_LIKE = "a duration like 30s or 5m, at most 100 years"
Duration = Annotated[float, _kind(_LIKE, parse_duration, interval_text, ge=0)]
PositiveDuration = Annotated[float, _kind(_LIKE, parse_duration, interval_text, gt=0)]
Interval = Annotated[float, _kind("a duration from 10s to 7d", parse_duration, interval_text, ge=10, le=604800)]
Size = Annotated[int, _kind("a size like 64kB or 4GB", parse_size, _size_text, gt=0)]
Length = Annotated[float, _kind("a length like 100m or 1km", parse_length, _length_text, ge=0)]
Share = Annotated[float, _kind("a share like 10% or 0.1", parse_share, _share_text, ge=0, le=1)]
Flag = Annotated[bool, _kind("true or false", _flag, bool)]
Port = Annotated[int, Meta(ge=1, le=65535, description="a port from 1 to 65535")]
Count = Annotated[int, Meta(ge=1, le=MAX_COUNT, description="a whole number from 1 to 1000000000")]
Number = Annotated[int, Meta(ge=0, le=MAX_COUNT, description="a whole number from 0 to 1000000000")]
InFlight = Annotated[int, Meta(ge=1, le=65535, description="a whole number from 1 to 65535")]
Statuses = Annotated[tuple[Literal[204, 404], ...], _kind("a list of 204 and 404, or one of them", _numbers, _unlisted)]
Words = Annotated[tuple[str, ...], Meta(description="a list of texts like [a, b]")]
Paths = Annotated[tuple[str, ...], _kind("a path or a list of paths", _listed, _unlisted, min_length=1)]
Roles = Annotated[tuple[str, ...], _kind("a role's name or a list of them", _listed, list, min_length=1)]
FileName = Annotated[str, Meta(min_length=1, description="a file name", extra={"file": True})]
Instance = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z", description="1 to 64 letters, digits, '_' or '-'")]
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
    """What the bridge allows itself, whatever the API allows; and how long it obeys one that asks for a pause."""

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


KEEPALIVE = 30
"""Seconds without a message after which the broker is asked whether it is still there."""


class Mqtt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The broker."""

    host: Host = "localhost"
    port: Port = 1883
    protocol: Annotated[Literal["5", "3.1.1"], _kind('"5" or "3.1.1"', _protocol, str)] = "5"
    transport: Literal["tcp", "websockets"] = "tcp"
    path: UrlPath = "/mqtt"
    base_topic: str = "oneweb"
    clear_old_base: Flag = True
    username: Secret | None = None
    password: Secret | None = None
    allow_plain_password: Flag = False
    tls: Tls = Tls()
    window: InFlight = 20
    max_payload: Size = 64_000


class History(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long and how much the journal keeps of what is published."""

    events: Duration = 2_592_000.0
    samples: Duration = 604_800.0
    max_size: Size = 4_000_000_000


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The database."""

    path: Annotated[str, Meta(min_length=1, description="a file name")] = "oneweb-bridge.db"
    history: History = History()
    max_backlog: Duration = 604_800.0


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How values of the API are understood, for all calls."""

    coordinate_order: Literal["lon_lat", "lat_lon"] = "lon_lat"
    timezone: str = "UTC"
    online_states: Words = ("online",)
    unlimited: Words = ("Unlimited", "-1")
    roles: dict[str, Roles] = msgspec.field(default_factory=lambda: dict(ROLES))


ROLES: dict[str, tuple[str, ...]] = {
    "distribution_partner": ("Distribution Partner",),
    "end_customer": ("End Customer",),
}
"""Names that paths use in braces -> what the API calls these roles."""


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is published; empty means all."""

    organizations: Words = ()
    sites: Words = ()
    imeis: Words = ()


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
    homeassistant: HomeAssistant = HomeAssistant()
    http: Http = Http()
    log: Log = Log()


class MapForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field of `polling.<call>.map` as the file says it; `unit` is the API's."""

    path: Paths
    type: FieldType = "text"
    unit: str = ""
    kind: Literal["gauge", "cumulative", "delta"] = "gauge"


class CallForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`polling.<call>` as the file says it."""

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
    measurements: str | None
    timestamp: Paths
    indicators: str | None


_FILE_TYPES: dict[type, dict[str, Any]] = {
    Config: {"polling": dict[str, CallForm]},
    PageSettings: {"limit": Count, "max_pages": Count, "first_page": Number},
    TimeWindow: {"length": PositiveDuration, "keep": PositiveDuration, "required": Flag},
}
"""Kinds of keys whose struct says less than the file does."""


@functools.cache
def key_types(struct: type) -> dict[str, Any]:
    """Key -> kind of one struct, in the file's order."""
    return get_type_hints(struct, include_extras=True) | _FILE_TYPES.get(struct, {})


def without_none(kind: Any) -> tuple[Any, bool]:
    """The kind itself, and whether null is allowed besides."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind, False
    (rest,) = (member for member in get_args(kind) if member is not type(None))
    return rest, True


def meta(kind: Any) -> Meta:
    """What the annotations of a kind say; an empty one for a bare type."""
    found = [note for note in getattr(kind, "__metadata__", ()) if isinstance(note, Meta)]
    return found[0] if found else Meta(extra={})


def expected(kind: Any) -> str:
    """What is expected of a kind, in words."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    return meta(kind).description or "a text"


def rule_violations(config: Config) -> Iterator[tuple[str, str]]:
    """Key and reason of each rule that the configuration breaks."""
    yield from _bad_urls(config)
    yield from _bad_auth(config)
    yield from _bad_mqtt(config)
    yield from _bad_topics(config)
    yield from _bad_mapping(config)
    for call in config.polling.values():
        yield from _bad_call(call)
        yield from _bad_fields(call)


def _bad_urls(config: Config) -> Iterator[tuple[str, str]]:
    yield from _bad_url("api.base_url", config.api.base_url, config)
    if config.api.auth.token_url:
        yield from _bad_url("api.auth.token_url", config.api.auth.token_url, config)
    if config.http.address()[1] > 65535:
        yield "http.listen", f"expected a port up to 65535, got '{config.http.listen}'"


def _bad_url(key: str, url: str, config: Config) -> Iterator[tuple[str, str]]:
    scheme, host, clean = _url(url)
    if not clean:
        yield key, "expected an address without user, password, parameters and fragment"
    elif scheme not in ("http", "https") or not host:
        yield key, f"expected an address like https://api.oneweb.net, got '{url}'"
    elif scheme == "http" and not config.api.allow_http and not _is_loopback(host):
        ways = "use https, or set api.allow_http: true"
        yield key, f"would send the credentials to {host} unencrypted; {ways}"
    elif scheme == "http" and not config.api.allow_http and not _is_loopback(_proxy_host(config) or "localhost"):
        yield key, "would send the credentials to api.proxy unencrypted; use https, or set api.allow_http: true"


def _proxy_host(config: Config) -> str | None:
    try:
        return urlsplit(config.api.proxy or "").hostname
    except ValueError:
        return None


def _url(url: str) -> tuple[str, str, bool]:
    """Scheme, host, and whether there is nothing in the URL but these, a port and a path."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", "", "@" not in url
    clean = "@" not in parts.netloc and not parts.query and not parts.fragment
    return parts.scheme, "" if port == 0 else parts.hostname or "", clean


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _bad_auth(config: Config) -> Iterator[tuple[str, str]]:
    auth = config.api.auth
    if auth.style == "oauth2_client_credentials" and not auth.token_url:
        yield "api.auth.token_url", "expected an address, because auth.style is oauth2_client_credentials"
    for key in ("client_id_header", "client_secret_header"):
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", getattr(auth, key)):
            yield f"api.auth.{key}", "expected the name of an HTTP header"
    for key in ("client_id", "client_secret"):
        if not getattr(config.api, key).isprintable():
            yield f"api.{key}", "expected a text without line ends and control characters"


def _bad_mqtt(config: Config) -> Iterator[tuple[str, str]]:
    mqtt = config.mqtt
    yield from _bad_host(mqtt.host)
    for key in ("username", "password"):
        if not (getattr(mqtt, key) or "").isprintable():
            yield f"mqtt.{key}", "expected a text without line ends and control characters"
    if mqtt.password and not mqtt.tls.enabled and not mqtt.allow_plain_password and not _is_loopback(mqtt.host):
        ways = "set mqtt.tls.enabled: true, or mqtt.allow_plain_password: true"
        yield "mqtt.password", f"would go to {mqtt.host} unencrypted; {ways}"
    if mqtt.password and not mqtt.username and mqtt.protocol == "3.1.1":
        yield "mqtt.username", "expected a name, because MQTT 3.1.1 has no password without one"
    if mqtt.tls.key_file and not mqtt.tls.cert_file:
        yield "mqtt.tls.cert_file", "expected a file name, because mqtt.tls.key_file is set"


def _bad_host(host: str) -> Iterator[tuple[str, str]]:
    """A host with a port behind it, which an IPv6 address only resembles."""
    name, _, port = host.rpartition(":")
    if port.isdecimal() and name and (":" not in name or name.endswith("]")):
        yield "mqtt.host", f"expected a host name or an address without a port, got '{host}'; set mqtt.port: {port}"
    elif ":" in host and not _is_ipv6(host):
        yield "mqtt.host", f"expected a host name or an address, got '{host}'"


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).version == 6
    except ValueError:
        return False


MAX_BASE_BYTES = 1024
"""So that every topic below fits into MQTT's 65,535 bytes, and none comes near what brokers allow."""


def _bad_topics(config: Config) -> Iterator[tuple[str, str]]:
    discovery = config.homeassistant.discovery_prefix
    for key, topic in (
        ("mqtt.base_topic", config.mqtt.base_topic),
        ("homeassistant.discovery_prefix", discovery),
    ):
        if not topic or re.search(r"[+#\0]|^[$/]|/$|//", topic):
            yield key, f"expected a topic without '+', '#', a leading '$' and empty levels, got '{topic}'"
        elif len(topic.encode()) > MAX_BASE_BYTES:
            yield key, f"expected a topic of at most {MAX_BASE_BYTES} bytes, got {len(topic.encode())}"
    base = config.mqtt.base_topic
    if config.homeassistant.enabled and f"{discovery}/".startswith(f"{base}/"):
        yield "homeassistant.discovery_prefix", f"expected a topic that is not below mqtt.base_topic '{base}'"


def _bad_mapping(config: Config) -> Iterator[tuple[str, str]]:
    try:
        zoneinfo.ZoneInfo(config.mapping.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        yield (
            "mapping.timezone",
            f"expected a time zone like UTC or Europe/Berlin, got '{config.mapping.timezone}'",
        )
    for name, texts in config.mapping.roles.items():
        if any(not text or re.search(r"[\[\],|{}]", text) for text in texts):
            yield f"mapping.roles.{name}", "expected names without brackets, braces, ',' and '|'"


_ID_PLACEHOLDERS = {"user_terminals": "{ut_id}", "products": "{product_id}"}


def _bad_call(call: Call) -> Iterator[tuple[str, str]]:
    key = f"polling.{call.id}"
    for each, place in _ID_PLACEHOLDERS.items():
        if place in call.path and call.for_each != each:
            yield f"{key}.for_each", f"expected {each}, because the path has {place}"
        if call.for_each == each and not any(place in said for said in (call.path, *call.query.values())):
            yield f"{key}.path", f"expected {place} in it or in the query, because for_each is {each}"
    if call.window and call.lateness and call.window.length < 2 * call.lateness:
        least = interval_text(2 * call.lateness)
        yield (
            f"{key}.window.length",
            f"expected at least twice the lateness ({least}), or nothing new would be seen",
        )


_TAKEN = {"time", "ts", "report", "corrected", "replayed", "cycle_started"}
_KEYS = {"terminal": "imei", "product": "product_id", "organization": "organization_id", "site": "site_id"}


def _bad_fields(call: Call) -> Iterator[tuple[str, str]]:
    taken = _TAKEN | {_KEYS.get(call.entity, "bucket_id")}
    for field in call.fields:
        key = f"polling.{call.id}.map.{field.name}"
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", field.name):
            yield key, "expected a field name of lower-case letters, digits and '_'"
        elif field.name in taken:
            yield key, "this name is the bridge's own; choose another"
        elif field.raw_unit and field.type != "number":
            yield f"{key}.type", f"expected number, because the field has the unit '{field.raw_unit}'"
        elif not can_convert(field.raw_unit, field.unit):
            yield f"{key}.unit", f"expected a unit that can be converted to {field.unit}, got '{field.raw_unit}'"
