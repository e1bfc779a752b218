"""Access rules of the console: what a request may do, decided from its facts alone. Pure.

`AccessGate` asks these functions in the order of docs/console.md; the first refusal is the answer.
"""

import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import msgspec

from oneweb_bridge.config.schema import Config

MAX_BODY_BYTES = 4096
DATA = "/api/v1"
FLEET_METRICS = "/metrics/fleet"
SESSION = f"{DATA}/session"
HEALTH = frozenset(("/healthz", "/readyz", "/metrics"))
"""Open to everybody under any name: no ids and no commands in them."""
READ_METHODS = frozenset(("GET", "HEAD"))
CONSOLE_HEADER = "x-oneweb-console"
_INGRESS_PATH = re.compile(r"/api/hassio_ingress/[A-Za-z0-9_-]+")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+/?")
_PROXY_HEADERS = frozenset(("forwarded", "x-real-ip", "via", "x-ingress-path"))
_DEFAULT_PORTS = {"http": 80, "https": 443}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Refusal(msgspec.Struct, frozen=True):
    """An HTTP status, the sentence that goes with it, and the seconds after which a retry may succeed."""

    status: int
    error: str
    retry_after_s: int | None = None


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The access rules that the configuration gives. `off` is the reason why there is no console."""

    off: str | None
    token: str | None
    read_only: bool
    hosts: frozenset[str]
    trusted_proxies: tuple[Network, ...]
    ingress: Address | None
    session_s: float
    port: int

    @property
    def cookie(self) -> str:
        """Name of the session cookie: cookies are shared by all ports of a host, hence the port in it."""
        return f"oneweb_console_{self.port}"


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What access is decided by. Header names are in lower case; of a repeated header the values are joined."""

    method: str
    path: str
    peer: str
    headers: Mapping[str, str]
    has_body: bool = False
    body_bytes: int | None = None
    """The announced length of the body; None where it is not announced."""

    def header(self, name: str) -> str:
        """The value of a header, or an empty text."""
        return self.headers.get(name, "")


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request comes from. `key` is the address, or IPv6 network, that limits are counted by."""

    key: str
    base: str = "/"
    is_ingress: bool = False
    is_secure: bool = False
    is_this_host: bool = False

    def cookie(self, rules: Rules) -> str:
        """Name of the session cookie for this visitor. Source of the prefixes: RFC 6265bis, 4.1.3."""
        if not self.is_secure:
            return rules.cookie
        return f"{'__Host-' if self.base == '/' else '__Secure-'}{rules.cookie}"


# ── the configuration ──────────────────────────────────────────────────────────────────────────


def rules_of(config: Config, port: int | None = None) -> Rules:
    """The rules of a configuration; `port` is the one that is listened on where `http.listen` leaves it open."""
    console, (_, configured_port) = config.console, config.http.address()
    return Rules(
        off=reason_for_off(config),
        token=str(console.token) if console.token else None,
        read_only=console.read_only,
        hosts=frozenset(name.casefold() for name in console.hosts),
        trusted_proxies=tuple(ipaddress.ip_network(text, strict=False) for text in console.trusted_proxies),
        ingress=ipaddress.ip_address(console.ingress) if console.ingress else None,
        session_s=console.session,
        port=configured_port if port is None else port,
    )


def reason_for_off(config: Config) -> str | None:
    """Why no console is served; None where one is."""
    console, (host, _) = config.console, config.http.address()
    if not console.enabled:
        return "the console is off: console.enabled is false"
    if is_loopback_name(host) or console.token or console.ingress:
        return None
    return (
        f"the console is off: http.listen is {config.http.listen}, which other hosts can reach, "
        "and there is no console.token; set one of at least 16 characters"
    )


def address_of(config: Config, port: int | None = None) -> str:
    """The console's address on this host."""
    host, configured_port = config.http.address()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 -- read here, not listened on
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{configured_port if port is None else port}/"


# ── the visitor ────────────────────────────────────────────────────────────────────────────────


def visitor_of(facts: RequestFacts, rules: Rules) -> Visitor:
    """Where a request comes from. Only trusted proxies and the ingress address are believed about it."""
    address = parse_address(facts.peer)
    ingress_path = facts.header("x-ingress-path")
    if address is not None and address == rules.ingress and _INGRESS_PATH.fullmatch(ingress_path):
        return Visitor(key=_limit_key(address), base=f"{ingress_path}/", is_ingress=True)
    if address is not None and is_trusted(address, rules):
        forwarded = _forwarded_for(facts.header("x-forwarded-for"), rules) or address
        return Visitor(
            key=_limit_key(forwarded),
            base=_base_of(facts.header("x-forwarded-prefix")),
            is_secure=facts.header("x-forwarded-proto").rpartition(",")[2].strip().casefold() == "https",
        )
    return Visitor(
        key=facts.peer if address is None else _limit_key(address),
        is_this_host=address is not None and address != rules.ingress and _is_this_host(address, facts),
    )


def parse_address(text: str) -> Address | None:
    """An IP address without its scope, IPv4 inside IPv6 as IPv4; None for any other text."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_trusted(address: Address, rules: Rules) -> bool:
    """Whether an address is one of `console.trusted_proxies`."""
    return any(address in network for network in rules.trusted_proxies)


def _limit_key(address: Address) -> str:
    """IPv6 by /64: whoever has one address there has all of them."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _forwarded_for(header: str, rules: Rules) -> Address | None:
    """The last address that is no trusted proxy: those before it anybody may have written."""
    for part in reversed(header.split(",")):
        address = parse_address(part.strip().strip("[]"))
        if address is None or not is_trusted(address, rules):
            return address
    return None


def _base_of(prefix: str) -> str:
    if not _PREFIX.fullmatch(prefix) or any(part in (".", "..") for part in prefix.split("/")):
        return "/"
    return f"{prefix.rstrip('/')}/"


def _is_this_host(address: Address, facts: RequestFacts) -> bool:
    name, _ = split_host(facts.header("host"))
    return address.is_loopback and is_loopback_name(name) and not _has_proxy_header(facts.headers)


def _has_proxy_header(headers: Iterable[str]) -> bool:
    return any(name in _PROXY_HEADERS or name.startswith("x-forwarded-") for name in headers)


# ── names ──────────────────────────────────────────────────────────────────────────────────────


def split_host(host: str) -> tuple[str, int | None]:
    """Name in lower case, without brackets, and port of a Host header; an empty name where it is none."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@,]+)(?::(\d{1,5}))?", host)
    if match is None:
        return "", None
    return match[1].strip("[]").casefold(), int(match[2]) if match[2] else None


def is_loopback_name(name: str) -> bool:
    """Whether a name can only mean this host."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = parse_address(name)
    return address is not None and address.is_loopback


def is_known_name(name: str, rules: Rules) -> bool:
    """Whether the console may be asked under this name. A name that anybody can give an address is not enough."""
    return is_loopback_name(name) or parse_address(name) is not None or name in rules.hosts


# ── refusals, in their order ───────────────────────────────────────────────────────────────────


def refuse_host(facts: RequestFacts, visitor: Visitor, rules: Rules) -> Refusal | None:
    """421 for a name that is not the console's; it keeps away pages whose name was pointed at this address."""
    name, _ = split_host(facts.header("host"))
    if visitor.is_ingress or is_known_name(name, rules):
        return None
    return Refusal(421, "this name is not one of the console's: add it to console.hosts, or use the address")


def needs_sign_in(facts: RequestFacts) -> bool:
    """Whether a route gives data: everything below /api/v1 but the session itself, and the metrics of the fleet."""
    return is_data(facts.path) and not (facts.path == SESSION and facts.method in (*READ_METHODS, "POST"))


def is_data(path: str) -> bool:
    """Whether the rules for data hold for a path."""
    return path in (FLEET_METRICS, DATA) or path.startswith(f"{DATA}/")


def refuse_other_site(facts: RequestFacts, visitor: Visitor) -> Refusal | None:
    """403 for what a page of another site has sent. Source: W3C, Fetch Metadata Request Headers."""
    allowed = ("same-origin", "none") if facts.method in READ_METHODS else ("same-origin",)
    if "sec-fetch-site" in facts.headers and facts.header("sec-fetch-site") not in allowed:
        return Refusal(403, "a page of another site has sent this request: open the console itself")
    if "origin" in facts.headers and not visitor.is_ingress and not _is_own_origin(facts):
        return Refusal(403, "Origin is not the address of the console: open the console itself")
    return None


def _is_own_origin(facts: RequestFacts) -> bool:
    try:
        origin = urlsplit(facts.header("origin"))
        port = origin.port
    except ValueError:
        return False
    default = _DEFAULT_PORTS.get(origin.scheme)
    if default is None or not origin.hostname or origin.path or origin.query or "@" in origin.netloc:
        return False
    host, host_port = split_host(facts.header("host"))
    return (origin.hostname.casefold(), port or default) == (host, host_port or default)


def bearer_of(facts: RequestFacts) -> str | None:
    """The token of an Authorization header; None without one."""
    scheme, _, token = facts.header("authorization").partition(" ")
    return token.strip() if scheme.casefold() == "bearer" else None


def is_right_token(given: str, rules: Rules) -> bool:
    """Whether a token is the configured one, in a time that tells nothing about it."""
    return rules.token is not None and hmac.compare_digest(given.encode(errors="replace"), rules.token.encode())


def refuse_form(facts: RequestFacts, *, has_right_bearer: bool) -> Refusal | None:
    """403, 415 or 413 for a request that would change something and does not have the form for it."""
    if facts.method in READ_METHODS:
        return None
    if facts.header(CONSOLE_HEADER) != "1" and not has_right_bearer:
        return Refusal(
            403,
            "a request that changes something needs the header 'X-Oneweb-Console: 1' (curl: -H 'X-Oneweb-Console: 1'), "
            "which pages of other sites cannot send",
        )
    if facts.has_body and facts.header("content-type").partition(";")[0].strip().casefold() != "application/json":
        return Refusal(415, "expected a body with Content-Type: application/json")
    if (facts.body_bytes or 0) > MAX_BODY_BYTES:
        return body_too_large()
    return None


def body_too_large() -> Refusal:
    """413 for a body above the limit."""
    return Refusal(413, f"expected a body of at most {MAX_BODY_BYTES} bytes")


def refuse_change(facts: RequestFacts, rules: Rules) -> Refusal | None:
    """403 for commands where the console is read-only; signing in and out is no command."""
    if rules.read_only and facts.method not in READ_METHODS and facts.path != SESSION:
        return Refusal(403, "the console is read-only: console.read_only is true")
    return None
