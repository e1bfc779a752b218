"""Rules of the configuration that no type can express: over several keys, addresses, topics and paths. Pure."""

import ipaddress
import re
import zoneinfo
from collections.abc import Iterator
from urllib.parse import urlsplit

from oneweb_bridge.config.schema import DEFAULT_PATH, Config, Console, Mqtt, Sparkplug
from oneweb_bridge.config.servers import split_server
from oneweb_bridge.config.units import interval_text
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.fields import RESERVED_MEMBERS
from oneweb_bridge.decode.records import KEYS
from oneweb_bridge.decode.units import can_convert


def rule_violations(config: Config) -> Iterator[tuple[str, str]]:
    """Key and reason of each rule that the configuration breaks."""
    yield from _bad_urls(config)
    yield from _bad_auth(config)
    yield from _bad_mqtt("mqtt", config.mqtt)
    yield from _bad_sparkplug(config.sparkplug)
    yield from _bad_topics(config)
    yield from _bad_mapping(config)
    yield from _bad_state(config)
    yield from _bad_trends(config)
    yield from _bad_console(config.console)
    for call in config.polling.values():
        yield from _bad_call(call)
        yield from _bad_fields(call)


def _bad_state(config: Config) -> Iterator[tuple[str, str]]:
    state = config.state
    if state.url is None:
        if state.path is None:
            yield "state.path", "expected a file name, because there is no state.url"
        return
    if state.path not in (None, DEFAULT_PATH):
        yield "state.url", "expected either state.path or state.url, got both"
    elif not re.match(r"postgres(ql)?://", state.url) or not state.url.isprintable():
        yield "state.url", "expected an address like postgresql://user@host:5432/database"
    elif not has_readable_servers(state.url):
        yield "state.url", "expected an address with host, port and database; escape special characters of a password"
    if config.trends.path is not None:
        yield "trends.path", "expected nothing: with state.url the trends are in the same database"


def has_readable_servers(url: str) -> bool:
    """Whether each server of an address of PostgreSQL is a host with or without a port; libpq takes `a:1,b:2`."""
    authority = re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0]
    try:
        servers = [urlsplit(f"//{server}") for server in authority.rpartition("@")[2].split(",")]
        return all(server.port is None or server.hostname for server in servers)
    except ValueError:
        return False


def _bad_trends(config: Config) -> Iterator[tuple[str, str]]:
    if config.state.url is None and config.trends.path == config.state.path:
        yield "trends.path", f"expected another file than state.path, got '{config.trends.path}'"
    if config.trends.keep_daily < config.trends.keep:
        least = interval_text(config.trends.keep)
        yield "trends.keep_daily", f"expected at least trends.keep ({least}), because days outlast their samples"


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
        remedy = "use https, or set api.allow_http: true"
        yield key, f"would send the credentials to {host} unencrypted; {remedy}"
    elif scheme == "http" and not config.api.allow_http and not _is_loopback(_proxy_host(config) or "localhost"):
        yield key, "would send the credentials to api.proxy unencrypted; use https, or set api.allow_http: true"


def _proxy_host(config: Config) -> str | None:
    try:
        return urlsplit(config.api.proxy or "").hostname
    except ValueError:
        return None


def _url(url: str) -> tuple[str, str, bool]:
    """Scheme, host, and whether the URL has nothing but these, a port and a path."""
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


MIN_TOKEN_CHARS = 16


def _bad_console(console: Console) -> Iterator[tuple[str, str]]:
    if console.token and len(console.token) < MIN_TOKEN_CHARS:
        yield "console.token", f"expected at least {MIN_TOKEN_CHARS} characters"
    elif console.token and not (console.token.isascii() and console.token.isprintable() and " " not in console.token):
        yield "console.token", "expected ASCII characters without spaces, so that it can stand in an HTTP header"
    for name in console.hosts:
        if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", name):
            yield "console.hosts", f"expected host names without port and path, got '{name}'"
    for text in console.trusted_proxies:
        if not _is_network(text):
            yield "console.trusted_proxies", f"expected addresses and networks like 10.0.0.0/8, got '{text}'"
    if console.ingress is not None and not _is_address(console.ingress):
        yield "console.ingress", f"expected an address like 172.30.32.2, got '{console.ingress}'"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


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


def _bad_mqtt(key: str, mqtt: Mqtt) -> Iterator[tuple[str, str]]:
    yield from _bad_host(key, mqtt.host)
    yield from _bad_servers(key, mqtt)
    for name in ("username", "password"):
        if not (getattr(mqtt, name) or "").isprintable():
            yield f"{key}.{name}", "expected a text without line ends and control characters"
    if mqtt.password and not mqtt.tls.enabled and not mqtt.allow_plain_password:
        remedy = f"set {key}.tls.enabled: true, or {key}.allow_plain_password: true"
        for host in (mqtt.host, *(split_server(server)[0] for server in mqtt.servers)):
            if not _is_loopback(host):
                yield f"{key}.password", f"would go to {host} unencrypted; {remedy}"
    if mqtt.password and not mqtt.username and mqtt.protocol == "3.1.1":
        yield f"{key}.username", "expected a name, because MQTT 3.1.1 has no password without one"
    if mqtt.tls.key_file and not mqtt.tls.cert_file:
        yield f"{key}.tls.cert_file", f"expected a file name, because {key}.tls.key_file is set"


def _bad_servers(key: str, mqtt: Mqtt) -> Iterator[tuple[str, str]]:
    for server in mqtt.servers:
        host, port = split_server(server)
        if not 1 <= port <= 65535:
            yield f"{key}.servers", f"expected a port from 1 to 65535, got '{server}'"
        elif host.startswith("[") and not _is_ipv6(host):
            yield f"{key}.servers", f"expected a host name or an address, got '{server}'"


def _bad_sparkplug(settings: Sparkplug) -> Iterator[tuple[str, str]]:
    if settings.mqtt is not None:
        yield from _bad_mqtt("sparkplug.mqtt", settings.mqtt)


def _bad_host(key: str, host: str) -> Iterator[tuple[str, str]]:
    """Refuses a host with a port behind it; an IPv6 address only looks like one."""
    name, _, port = host.rpartition(":")
    if port.isdecimal() and name and (":" not in name or name.endswith("]")):
        remedy = f"set {key}.port: {port}"
        yield f"{key}.host", f"expected a host name or an address without a port, got '{host}'; {remedy}"
    elif ":" in host and not _is_ipv6(host):
        yield f"{key}.host", f"expected a host name or an address, got '{host}'"


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
    for each, placeholder in _ID_PLACEHOLDERS.items():
        if placeholder in call.path and call.for_each != each:
            yield f"{key}.for_each", f"expected {each}, because the path has {placeholder}"
        if call.for_each == each and not any(placeholder in text for text in (call.path, *call.query.values())):
            yield f"{key}.path", f"expected {placeholder} in it or in the query, because for_each is {each}"
    if call.match and call.reads not in ("report", "usage"):
        yield f"{key}.match", "expected nothing, because only the ids of reports and of usage are matched"
    elif call.match and not re.fullmatch(r"[a-z][a-z0-9_]*", call.match):
        yield f"{key}.match", f"expected a field of the inventory's records like serial_number, got '{call.match}'"
    if call.window and call.lateness and call.window.length < 2 * call.lateness:
        minimum = interval_text(2 * call.lateness)
        yield (
            f"{key}.window.length",
            f"expected at least twice the lateness ({minimum}), or nothing new would be seen",
        )


def _bad_fields(call: Call) -> Iterator[tuple[str, str]]:
    reserved = RESERVED_MEMBERS | {"cycle_started", KEYS[call.entity]}
    for field in call.fields:
        key = f"polling.{call.id}.map.{field.name}"
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", field.name):
            yield key, "expected a field name of lower-case letters, digits and '_'"
        elif field.name in reserved:
            yield key, "this name is the bridge's own; choose another"
        elif field.raw_unit and field.type != "number":
            yield f"{key}.type", f"expected number, because the field has the unit '{field.raw_unit}'"
        elif not can_convert(field.raw_unit, field.unit):
            yield f"{key}.unit", f"expected a unit that can be converted to {field.unit}, got '{field.raw_unit}'"
