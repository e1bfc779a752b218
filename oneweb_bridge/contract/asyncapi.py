"""The AsyncAPI 3.0 document of all topics, made from the tables that publish. Pure.

A new call of the catalogue appears in it without further code: its fields in a schema, its report in the parameter.
Source: AsyncAPI 3.0.0, MQTT bindings 0.2.0.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from oneweb_bridge.commands import decode
from oneweb_bridge.config.schema import KEEPALIVE, Config, Mqtt
from oneweb_bridge.config.servers import servers_of
from oneweb_bridge.contract import schemas
from oneweb_bridge.contract.schemas import Schema, ref
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.records import KEYS
from oneweb_bridge.encoding import encode
from oneweb_bridge.homeassistant import discovery
from oneweb_bridge.model import status
from oneweb_bridge.model.forecast import Forecast
from oneweb_bridge.mqtt.topics import EVENT_TYPE, TopicTree
from oneweb_bridge.polling.samples import PRESENCE

BINDING = "0.2.0"
EVENTS = ("added", "changed", "removed")
JSON, TEXT = "application/json", "text/plain"

PARAMETERS: dict[str, tuple[str, str]] = {
    "imei": ("the terminal's id, encoded as a topic level", "359235170297930"),
    "product_id": ("the product's id, encoded as a topic level", "SC-410000160766"),
    "organization_id": ("the organization's id, encoded as a topic level", "ACC-101"),
    "site_id": ("the site's id, encoded as a topic level", "SITE__006"),
    "bucket_id": ("the usage bucket's id, encoded as a topic level", "1209417733-171000000"),
    "report": ("the report; the channel's message of the same name is its payload", "signal_quality"),
    "call": ("a call of the polling manager", "user_terminals"),
    "any_call": ("the call that the command named, also if there is no such call; `all` for all of them", "sites"),
    "request": ("the request that is answered, also if there is no such request", "replay"),
}
"""What varies in a topic: what it is, and an example. `any_…` is for channels where it may be something unknown."""


_AMOUNT = r"\d+(\.\d+)? ?(ms|s|m|min|h|d|y)?"
_ISO_DURATION = r"P(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?"
"""How a duration is written, as `config.units` reads it."""

COMMANDS: dict[str, Any] = {
    "SetPayload": {"enabled": True, "interval": "5m", "id": "shift-1"},
    "PollPayload": {"id": "morning"},
    "Republish": {"what": "discovery"},
    "Replay": {"since": "6h", "imei": "359235170297930", "report": "signal_quality"},
    "Release": {"call": "user_terminals"},
    "Purge": {"id": "spring cleaning"},
}
"""An example of each command that is an object."""


class PayloadSpec(msgspec.Struct, frozen=True):
    """One kind of payload. `schema` None: one of the shared schemas has its name."""

    name: str
    about: str
    content_type: str = JSON
    schema: Schema | None = None


class ChannelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One class of topics: its address, its payloads by key, and for commands the channel of the answer."""

    key: str
    address: str
    about: str
    payloads: dict[str, PayloadSpec]
    retain: bool = False
    incoming: bool = False
    reply: str = ""
    values: dict[str, list[str]] = {}


def document(config: Config, version: str) -> Schema:
    """The whole document, for one configuration and version of the bridge."""
    tree = TopicTree(config.mqtt.base_topic, config.instance, "")
    channels = [
        *_bridge_channels(tree),
        *_record_channels(tree, config),
        *_report_channels(tree, config),
        *_usage_channels(tree, config),
        *_forecast_channels(tree),
        *_polling_channels(tree, config),
        *_request_channels(tree),
        *_discovery_channels(tree, config, version),
    ]
    shared = _shared(config)
    messages = {payload.name: payload for channel in channels for payload in channel.payloads.values()}
    with_reply = {payload.name for channel in channels if channel.reply for payload in channel.payloads.values()}
    parts: Schema = {
        "asyncapi": "3.0.0",
        "info": _about(version),
        "defaultContentType": JSON,
        "servers": _servers(config, tree),
        "channels": {channel.key: _channel(channel) for channel in channels},
        "operations": {
            f"{'receive' if channel.incoming else 'send'}{_upper_first(channel.key)}": _operation(channel)
            for channel in channels
        },
        "components": {
            "schemas": shared
            | {payload.name: payload.schema for payload in messages.values() if payload.schema is not None},
            "messages": {
                name: _message(payload, shared, has_reply=name in with_reply) for name, payload in messages.items()
            },
        },
    }
    # A copy of each part, so that YAML needs no anchors.
    copied: Schema = msgspec.json.decode(encode(parts))
    return copied


def _about(version: str) -> Schema:
    return {
        "title": "oneweb-bridge",
        "version": version,
        "description": (
            "What oneweb-bridge publishes to MQTT and which commands it takes.\n"
            "A field whose value is not known is absent; null stands only in `from` and `to` of a change.\n"
            "Every number with the format double is written as a float, also a whole one: 70.0.\n"
            "An empty message on a retained topic clears it."
        ),
        "license": {"name": "MIT"},
    }


def _servers(config: Config, tree: TopicTree) -> Schema:
    """Name -> server: `broker`, and the others of `mqtt.servers` with a number behind."""
    servers = servers_of(config.mqtt)
    return {
        "broker" if number == 1 else f"broker{number}": _server(config, tree, mqtt)
        for number, mqtt in enumerate(servers, start=1)
    }


def _server(config: Config, tree: TopicTree, mqtt: Mqtt) -> Schema:
    plain, secure = ("mqtt", "secure-mqtt") if mqtt.transport == "tcp" else ("ws", "wss")
    will = {"topic": tree.status, "qos": 1, "retain": True, "message": encode(status.Connection("offline")).decode()}
    binding = {
        "clientId": f"oneweb-bridge-{config.instance}",
        "cleanSession": True,
        "keepAlive": KEEPALIVE,
        "lastWill": will,
        "bindingVersion": BINDING,
    }
    return {
        "host": f"{mqtt.host}:{mqtt.port}",
        "protocol": secure if mqtt.tls.enabled else plain,
        "protocolVersion": mqtt.protocol,
        "description": "The broker that the bridge publishes to",
        "bindings": {"mqtt": binding},
    }


# ── rows ───────────────────────────────────────────────────────────────────────────────────────


def _channel_address(tree: TopicTree, entity: str, *below: str) -> str:
    """The address of a topic that belongs to one id."""
    above = tree.topic_of(entity, "0").removesuffix("0")
    return "/".join((f"{above}{{{KEYS[entity]}}}", *below))  # type: ignore[index]  # it is a Kind


def _single_payload(name: str, about: str, **more: Any) -> dict[str, PayloadSpec]:
    return {name: PayloadSpec(name, about, **more)}


def _bridge_channels(tree: TopicTree) -> Iterator[ChannelSpec]:
    for key, address, name, retain, about in (
        ("bridgeStatus", tree.status, "Connection", True, "online or offline; also the will"),
        ("bridgeInfo", tree.info, "Info", True, "version, API, journal and cost of the calls; at most every 10 s"),
        ("bridgeHead", tree.head, "Head", True, "the last journal row that this broker acknowledged"),
        ("bridgeProbe", tree.probe, "Probe", False, "published and read back at connect"),
        ("bridgeAlert", tree.alert, "Alarm", False, "a problem that needs attention"),
    ):
        yield ChannelSpec(key=key, address=address, about=about, retain=retain, payloads=_single_payload(name, about))


def _records(config: Config) -> dict[str, Call]:
    return {call.entity: call for call in config.polling.values() if call.reads == "record"}


def _record_channels(tree: TopicTree, config: Config) -> Iterator[ChannelSpec]:
    for entity, call in _records(config).items():
        name, about = entity.capitalize(), f"the {entity} as it was last published"
        payload = _single_payload(name, about, schema=schemas.record(call))
        yield ChannelSpec(
            key=f"{entity}State",
            address=_channel_address(tree, entity, "state"),
            about=about,
            retain=True,
            payloads=payload,
        )
        for what in EVENTS:
            event = schemas.event(call, what, name, f"/oneweb-bridge/{tree.instance}")
            about = f"a {entity} was {what}" if what != "changed" else f"a {entity} has changed"
            payload = _single_payload(f"{name}{what.capitalize()}", about, schema=event, content_type=EVENT_TYPE)
            key = f"{entity}{what.capitalize()}"
            yield ChannelSpec(
                key=key, address=_channel_address(tree, entity, "event", what), about=about, payloads=payload
            )
    further: tuple[tuple[str, str, str, Schema | None], ...] = (
        ("components", "Components", "firmware of a terminal", schemas.components()),
        ("relations", "Relations", "site, partner, customer and products of a terminal", None),
    )
    for below, name, about, schema in further:
        payload = _single_payload(name, about, schema=schema)
        address = _channel_address(tree, "terminal", below)
        yield ChannelSpec(key=f"terminal{name}", address=address, about=about, retain=True, payloads=payload)


def _report_channels(tree: TopicTree, config: Config) -> Iterator[ChannelSpec]:
    for entity in ("terminal", "product"):
        reports = {
            call.report: PayloadSpec(_pascal(call.report), call.about, schema=schemas.sample(call))
            for call in config.polling.values()
            if call.reads == "report" and call.entity == entity
        }
        if entity == "terminal":
            seen = schemas.presence(_records(config)["terminal"])
            reports[PRESENCE] = PayloadSpec("Presence", "when a terminal was last seen, at most hourly", schema=seen)
        history = reports if entity == "terminal" else {**reports, "usage": _usage(config)}
        for below, payload, about in (
            ("metric", reports, "the newest sample"),
            ("history", history, "every other sample: late, backfilled, corrected or replayed"),
        ):
            yield ChannelSpec(
                key=f"{entity}{below.capitalize()}",
                address=_channel_address(tree, entity, below, "{report}"),
                about=about,
                retain=below == "metric",
                payloads=payload,
                values={"report": list(payload)},
            )


def _usage(config: Config) -> PayloadSpec:
    call = next(call for call in config.polling.values() if call.reads == "usage")
    return PayloadSpec("Usage", call.about, schema=schemas.usage(call))


def _usage_channels(tree: TopicTree, config: Config) -> Iterator[ChannelSpec]:
    payload, bucket = {"Usage": _usage(config)}, "{bucket_id}"
    for key, address, about, retain in (
        ("productUsage", _channel_address(tree, "product", "usage", bucket), "the usage bucket of a product", True),
        ("usage", _channel_address(tree, "usage"), "a usage bucket without a product", True),
        ("usageHistory", f"{tree.base}/history/usage/{bucket}", "a usage bucket without a product, replayed", False),
    ):
        yield ChannelSpec(key=key, address=address, about=about, retain=retain, payloads=payload)


def _forecast_channels(tree: TopicTree) -> Iterator[ChannelSpec]:
    about, bucket = "when the allowance of a usage bucket runs out, with a band", "{bucket_id}"
    for key, address in (
        ("productForecast", _channel_address(tree, "product", "forecast", bucket)),
        ("forecast", _channel_address(tree, "forecast")),
    ):
        yield ChannelSpec(
            key=key, address=address, about=about, retain=True, payloads=_single_payload("Forecast", about)
        )


def _polling_channels(tree: TopicTree, config: Config) -> Iterator[ChannelSpec]:
    calls = list(config.polling)
    above = f"{tree.base}/bridge/polling"
    about = "the state of a call"
    yield ChannelSpec(
        key="pollingState",
        address=f"{above}/{{call}}/state",
        about=about,
        retain=True,
        payloads=_single_payload("CallState", about),
        values={"call": calls},
    )
    flag = {"type": "string", "enum": ["true", "false", "ON", "OFF", "yes", "no", "1", "0", "null"]}
    span = {"type": "string", "pattern": rf"^(null|{_AMOUNT}|{_ISO_DURATION})$", "examples": ["5m"]}
    for verb, payload, about in (
        (
            "set",
            _single_payload("SetPayload", "enabled, interval, or both"),
            "changes settings of a call, also after a restart",
        ),
        (
            "enabled/set",
            _single_payload("Enabled", "enabled or not, not quoted", content_type=TEXT, schema=flag),
            "enables or disables a call",
        ),
        (
            "interval/set",
            _single_payload("Interval", "10 s to 7 d, not quoted", content_type=TEXT, schema=span),
            "sets the interval of a call",
        ),
        ("poll", _single_payload("PollPayload", "empty, or an id"), "polls a call now; `all` polls every enabled one"),
    ):
        yield ChannelSpec(
            key=f"polling{_pascal(verb.replace('/', '_'))}",
            address=f"{above}/{{call}}/{verb}",
            about=f"{about}; may be retained",
            incoming=True,
            payloads=payload,
            reply="pollingResult",
            values={"call": [*calls, decode.ALL]},
        )
    about = "the answer to a command, also on its response topic"
    yield ChannelSpec(
        key="pollingResult", address=f"{above}/{{call}}/result", about=about, payloads=_single_payload("Result", about)
    )


def _request_channels(tree: TopicTree) -> Iterator[ChannelSpec]:
    for name in decode.REQUESTS:
        form = decode.PAYLOADS[name]
        about = str(form.__doc__)
        yield ChannelSpec(
            key=f"request{_upper_first(name)}",
            address=f"{tree.base}/bridge/request/{name}",
            about=about,
            incoming=True,
            payloads=_single_payload(form.__name__, about),
            reply="response",
        )
    about = "the answer to a request, also on its response topic"
    address = f"{tree.base}/bridge/response/{{request}}"
    yield ChannelSpec(key="response", address=address, about=about, payloads=_single_payload("Response", about))


def _discovery_channels(tree: TopicTree, config: Config, version: str) -> Iterator[ChannelSpec]:
    if not config.homeassistant.enabled:
        return
    prefix = config.homeassistant.discovery_prefix
    setup = discovery.DiscoverySettings(
        tree=tree, prefix=prefix, version=version, online=(), accuracy=0, calls=config.polling
    )
    payload = _single_payload("Discovery", "a device of Home Assistant with its entities", schema=schemas.discovery())
    kinds: tuple[tuple[discovery.Device, str], ...] = (
        ("bridge", ""),
        ("call", "{call}"),
        ("terminal", "{imei}"),
        ("product", "{product_id}"),
    )
    for kind, id in kinds:
        address = discovery.topic(setup, kind, "0").replace(f"_{kind}_0/", f"_{kind}_{id}/")
        yield ChannelSpec(
            key=f"discovery{kind.capitalize()}",
            address=address,
            about=f"announces a {kind} to Home Assistant",
            retain=True,
            payloads=payload,
            values={"call": list(config.polling)} if kind == "call" else {},
        )
    states = {"type": "string", "enum": ["online", "offline"]}
    birth = _single_payload("Birth", "Home Assistant has started or ended", content_type=TEXT, schema=states)
    about = "Home Assistant has started: everything is announced again"
    yield ChannelSpec(key="homeAssistantStatus", address=f"{prefix}/status", about=about, incoming=True, payloads=birth)


# ── parts of the document ──────────────────────────────────────────────────────────────────────


def _shared(config: Config) -> dict[str, Schema]:
    """Schemas that others refer to, and those of structs."""
    structs: tuple[type[msgspec.Struct], ...] = (
        status.Connection,
        status.Info,
        status.Head,
        status.Probe,
        status.Alarm,
        status.Result,
        status.Response,
        status.Relations,
        Forecast,
    )
    commands_: tuple[type[msgspec.Struct], ...] = (decode.SetPayload, decode.PollPayload, *decode.PAYLOADS.values())
    records = {entity.capitalize(): schemas.record(call) for entity, call in _records(config).items()}
    return {
        **schemas.of_structs(structs),
        **schemas.of_structs(commands_, nullable=True),
        **schemas.changes(),
        **records,
    }


def _channel(channel: ChannelSpec) -> Schema:
    names = re.findall(r"{(\w+)}", channel.address)
    schema: Schema = {"address": channel.address, "description": channel.about}
    schema["messages"] = {
        key: {"$ref": f"#/components/messages/{payload.name}"} for key, payload in channel.payloads.items()
    }
    if names:
        schema["parameters"] = {name: _parameter(name, channel.values.get(name)) for name in names}
    return schema


def _parameter(name: str, values: list[str] | None) -> Schema:
    about, example = PARAMETERS[f"any_{name}" if values is None and f"any_{name}" in PARAMETERS else name]
    if values is not None:
        return {"description": about, "enum": values, "examples": [example if example in values else values[0]]}
    return {"description": about, "examples": [example]}


def _operation(channel: ChannelSpec) -> Schema:
    channel_ref = f"#/channels/{channel.key}"
    schema: Schema = {
        "action": "receive" if channel.incoming else "send",
        "channel": {"$ref": channel_ref},
        "summary": channel.about,
        "messages": [{"$ref": f"{channel_ref}/messages/{key}"} for key in channel.payloads],
    }
    binding: Schema = {"qos": 1, "bindingVersion": BINDING}
    schema["bindings"] = {"mqtt": binding if channel.incoming else {**binding, "retain": channel.retain}}
    if channel.reply:
        name = "Result" if channel.reply == "pollingResult" else "Response"
        answer = f"#/channels/{channel.reply}"
        schema["reply"] = {"channel": {"$ref": answer}, "messages": [{"$ref": f"{answer}/messages/{name}"}]}
    return schema


def _message(payload: PayloadSpec, shared: dict[str, Schema], *, has_reply: bool) -> Schema:
    schema = shared[payload.name] if payload.schema is None else payload.schema
    binding: Schema = {"payloadFormatIndicator": 1, "contentType": payload.content_type, "bindingVersion": BINDING}
    if has_reply:
        binding["responseTopic"] = {"type": "string", "description": "MQTT 5: where the answer goes too"}
        binding["correlationData"] = {"type": "string", "format": "binary", "description": "repeated in that answer"}
    return {
        "name": payload.name,
        "summary": payload.about,
        "contentType": payload.content_type,
        "payload": ref(payload.name),
        "bindings": {"mqtt": binding},
        "examples": [{"payload": COMMANDS.get(payload.name) or schemas.example(schema, shared)}],
    }


def _upper_first(key: str) -> str:
    return key[:1].upper() + key[1:]


def _pascal(name: str) -> str:
    return "".join(map(_upper_first, name.split("_")))
