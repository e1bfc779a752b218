"""Journal rows to MQTT messages, and ids to topic levels. Pure.

A topic that carries a message has no topic below it, and every payload is a JSON object, so that
Ignition can make folders of the levels and Node-RED can parse whatever comes.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Literal

import msgspec

from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.model.records import FormerJournalIds, Message, RecordKind, Row

EVENT_TYPE = "application/cloudevents+json"
MAX_NAME_CHARS = 128
"""Longest name of an unknown call or request that an answer goes to; a topic has 65535 bytes at most."""
MAX_LEVEL = 64
"""Longest encoded id in bytes; a longer one keeps its beginning and gets a hash."""

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
_ESCAPES = [chr(byte) if byte in _PLAIN else "__" if byte == 0x5F else f"_x{byte:02x}" for byte in range(256)]


def encode_id(id: str) -> str:
    """An id as one topic level: legal for MQTT, Sparkplug, Home Assistant, Ignition and NATS, never colliding."""
    if id.isascii() and id.isalnum() and len(id) <= MAX_LEVEL:
        return id
    raw = id.encode()
    parts = [_ESCAPES[byte] for byte in raw]
    if not parts:
        return "_e"
    level = "".join(parts)
    if len(level) <= MAX_LEVEL:
        return level
    return f"{_shortened_id(parts)}_h{sha256(raw).hexdigest()[:16]}"


def _shortened_id(parts: list[str], most: int = 40) -> str:
    kept, size = [], 0
    for part in parts:
        size += len(part)
        if size > most:
            break
        kept.append(part)
    return "".join(kept)


_ENTITIES = frozenset(("terminal", "product", "organization", "site", "usage", "forecast"))
"""First levels below the base that carry retained messages."""


class _EventBody(msgspec.Struct, frozen=True):
    """The body of an event row, as far as its messages need its parts."""

    record: msgspec.Raw = msgspec.Raw(b"null")
    components: msgspec.Raw = msgspec.Raw(b"{}")
    changed: msgspec.Raw = msgspec.Raw(b"")
    clears: list[str] = []
    remapped: bool = False


_decode_event_body = msgspec.json.Decoder(_EventBody).decode


class TopicTree:
    """All topics below one base, for one journal and one source of events.

    The journal's id may be renewed; rows that carry a former one keep it.
    """

    def __init__(self, base: str, instance: str, journal_id: str, former_journal_ids: FormerJournalIds = ()) -> None:
        self.base = base
        self.status = f"{base}/bridge/status"
        self.info = f"{base}/bridge/info"
        self.head = f"{base}/bridge/head"
        self.probe = f"{base}/bridge/probe"
        self.alert = f"{base}/bridge/alert"
        self.instance = instance
        self.journal_id = journal_id
        self.former_journal_ids = former_journal_ids
        self.epoch: int | None = None
        """The epoch of the lease under which it is published; None without leases."""

    def rename_journal(self, journal_id: str, former_journal_ids: FormerJournalIds) -> None:
        """The journal has got a new id, which the events of the rows after those of `former_journal_ids` carry."""
        self.journal_id, self.former_journal_ids = journal_id, former_journal_ids

    def event_id(self, seq: int) -> str:
        """The id of the event of a row: the same whenever the row is sent."""
        for id, until in self.former_journal_ids:
            if seq <= until:
                return f"{id}:{seq}"
        return f"{self.journal_id}:{seq}"

    def topic_of(self, entity: str, id: str, *below: str) -> str:
        """The topic of something that belongs to one id."""
        if entity == "call":
            return f"{self.base}/bridge/polling/{id}/{'/'.join(below)}"
        return (
            "/".join((self.base, entity, encode_id(id), *below)) if below else f"{self.base}/{entity}/{encode_id(id)}"
        )

    def class_of(self, topic: str) -> str:
        """What access rules tell apart: the filter of all topics that are like this one, but of another id."""
        levels = topic.removeprefix(f"{self.base}/").split("/")
        if levels[0] != "bridge":
            levels[1:2] = "+"
            if levels[2:3] in (["usage"], ["forecast"]):
                levels[3:] = "+"
        elif len(levels) > 3:
            levels[2] = "+"
        return "/".join((self.base, *levels))

    def classes(self, row: Row) -> set[str]:
        """The classes of topics on which a row has messages."""
        return {self.class_of(message.topic) for message in self.messages_of_row(row)}

    def messages_of_row(self, row: Row) -> list[Message]:
        """What a journal row becomes, in the order in which it is published."""
        match row.what:
            case "metric":
                return [Message(self.topic_of(row.entity, row.id, "metric", row.name), row.body, retain=True)]
            case "history":
                return [Message(self.topic_of(row.entity, row.id, "history", row.name), row.body, retain=False)]
            case "state":
                return [Message(self.topic_of(row.entity, row.id, row.name), row.body, retain=True)]
            case "usage" | "forecast":
                return [Message(self._of_bucket(row, row.what), row.body, retain=True)]
            case "clear":
                return [Message(self._of_bucket(row, name), b"", retain=True) for name in cleared_names(row)]
            case "alert":
                return [Message(self.alert, row.body, retain=False)]
            case "added" | "changed" | "removed" | "components":
                return self._event_messages(row)

    def _of_bucket(self, row: Row, name: str) -> str:
        """The topic `usage` or `forecast` of the bucket of a row."""
        if row.entity == "usage":
            return self.topic_of(name, row.id)
        return self.topic_of("product", row.id, name, encode_id(row.name))

    def _event_messages(self, row: Row) -> list[Message]:
        body = _decode_event_body(row.body)
        if row.what == "components":
            messages = [self._components(row.id, body.components)]
            return messages if not bytes(body.changed) else [self._event(row, self._without_components(row)), *messages]
        if row.what == "removed":
            clears = [
                Message(self.topic_of(row.entity, row.id, *name.split("/")), b"", retain=True) for name in body.clears
            ]
            data = {"record": body.record} | ({"remapped": True} if body.remapped else {})
            return [self._event(row, encode(data)), *clears]
        return [
            self._event(row, row.body),
            Message(self.topic_of(row.entity, row.id, "state"), bytes(body.record), retain=True),
        ]

    def _without_components(self, row: Row) -> bytes:
        body: dict[str, msgspec.Raw] = msgspec.json.decode(row.body, type=dict[str, msgspec.Raw])
        return encode({name: part for name, part in body.items() if name != "components"})

    def _components(self, imei: str, doc: bytes | msgspec.Raw) -> Message:
        payload = encode({"imei": imei, "components": msgspec.Raw(doc)})
        return Message(self.topic_of("terminal", imei, "components"), payload, retain=True)

    def _event(self, row: Row, data: bytes, *, replayed: bool = False) -> Message:
        """A CloudEvents 1.0 event in structured mode; its id is the same whenever the row is sent again."""
        what = "changed" if row.what == "components" else row.what
        body: dict[str, object] = {
            "specversion": "1.0",
            "id": self.event_id(row.seq),
            "source": f"/oneweb-bridge/{self.instance}",
            "type": f"net.oneweb.{row.entity}.{what}",
            "subject": row.id,
            "time": rfc3339(row.ts),
            "ts": row.ts,
            "datacontenttype": "application/json",
            "data": msgspec.Raw(data),
        }
        if replayed:
            body["replayed"] = True
        return Message(
            self.topic_of(row.entity, row.id, "event", what), encode(body), retain=False, content_type=EVENT_TYPE
        )

    def replay_message(self, row: Row) -> Message | None:
        """A row once more, marked as such and never to a retained topic; None when it is no news."""
        match row.what:
            case "added" | "changed" | "removed":
                data = encode({"record": _decode_event_body(row.body).record}) if row.what == "removed" else row.body
                return self._event(row, data, replayed=True)
            case "components" if bytes(_decode_event_body(row.body).changed):
                return self._event(row, self._without_components(row), replayed=True)
            case "metric" | "history":
                return Message(
                    self.topic_of(row.entity, row.id, "history", row.name), _with_replayed_flag(row.body), retain=False
                )
            case "usage" if row.entity == "usage":
                return Message(
                    f"{self.base}/history/usage/{encode_id(row.id)}", _with_replayed_flag(row.body), retain=False
                )
            case "usage":
                return Message(
                    self.topic_of("product", row.id, "history", "usage"), _with_replayed_flag(row.body), retain=False
                )
        return None

    def record_message(self, kind: RecordKind, id: str, doc: bytes) -> Message:
        """The retained message of a stored record, as it was published last."""
        match kind:
            case "components":
                return self._components(id, doc)
            case "relations":
                return Message(self.topic_of("terminal", id, "relations"), doc, retain=True)
            case "usage" | "forecast":
                product = msgspec.json.decode(doc, type=_Bucket).product_id
                topic = (
                    self.topic_of(kind, id)
                    if product is None
                    else self.topic_of("product", product, kind, encode_id(id))
                )
                return Message(topic, doc, retain=True)
            case _:
                return Message(self.topic_of(kind, id, "state"), doc, retain=True)

    def row_id_of(self, kind: RecordKind, id: str, doc: bytes) -> str:
        """The id that the journal rows of a stored record carry: usage and forecast come under their product."""
        product = msgspec.json.decode(doc, type=_Bucket).product_id if kind in ("usage", "forecast") else None
        return id if product is None else product

    def sample_message(self, entity: str, report: str, id: str, doc: bytes) -> Message:
        """The retained message of the newest sample."""
        return Message(self.topic_of(entity, id, "metric", report), doc, retain=True)

    def may_own(self, topic: str) -> bool:
        """Whether a topic has the form of one that a bridge keeps retained below this base."""
        if not topic.startswith(f"{self.base}/"):
            return False
        first, *rest = topic.removeprefix(f"{self.base}/").split("/")
        if first == "bridge":
            return topic in (self.status, self.info, self.head) or (rest[:1] == ["polling"] and rest[2:] == ["state"])
        return first in _ENTITIES and len(rest) > 0

    def answer_topic(self, command_topic: str) -> str | None:
        """Where the result of a command is published; None for a topic that is no command's."""
        address = parse_command_topic(command_topic, self.base)
        if address is None:
            return None
        # The name of an unknown call or request is whatever its sender likes.
        is_level = len(address.name) <= MAX_NAME_CHARS and address.name.isprintable()
        level = address.name if is_level else "unknown"
        if address.kind == "polling":
            return f"{self.base}/bridge/polling/{level}/result"
        return f"{self.base}/bridge/response/{level}"

    def command_filters(self) -> Iterable[str]:
        """The filters of all incoming topics below the base."""
        calls = f"{self.base}/bridge/polling/+"
        return (
            f"{calls}/set",
            f"{calls}/enabled/set",
            f"{calls}/interval/set",
            f"{calls}/poll",
            f"{self.base}/bridge/request/+",
        )


MAX_RESPONSE_TOPIC_BYTES = 1024
"""Far above what brokers allow, and so short that an answer on it still fits into their packets."""
MAX_RESPONSE_TOPIC_LEVELS = 100
"""mosquitto ends the connection of who publishes on a topic with more than 200."""
SPARKPLUG_NAMESPACE = "spBv1.0"
"""Above all topics of Sparkplug. Source: Sparkplug 3.0, 4.1."""


def response_topic_problem(topic: str, base: str, discovery_prefix: str) -> str | None:
    """Why nobody is answered on a topic that the sender of a command chose; None where answers may go.

    Who may send commands may not speak in the bridge's name: below the base only `bridge/response` is for answers.
    """
    problem = None
    if not topic or len(topic.encode()) > MAX_RESPONSE_TOPIC_BYTES or not topic.isprintable():
        problem = f"expected 1 to {MAX_RESPONSE_TOPIC_BYTES} bytes without control characters"
    elif topic.count("/") > MAX_RESPONSE_TOPIC_LEVELS:
        problem = f"expected at most {MAX_RESPONSE_TOPIC_LEVELS} times '/'"
    elif "+" in topic or "#" in topic or topic.startswith("$"):
        problem = "expected a topic without '+', '#' and a leading '$'"
    elif _is_below(topic, base) and not topic.startswith(f"{base}/bridge/response/"):
        problem = f"it is the bridge's own: expected one below {base}/bridge/response/, or none below {base}"
    elif _is_below(topic, discovery_prefix):
        problem = f"it is Home Assistant's: expected none below {discovery_prefix}"
    elif _is_below(topic, SPARKPLUG_NAMESPACE):
        problem = f"it is Sparkplug's: expected none below {SPARKPLUG_NAMESPACE}"
    return problem and f"the response topic {topic[:64]!r} was not used: {problem}"


def _is_below(topic: str, parent: str) -> bool:
    return topic == parent or topic.startswith(f"{parent}/")


def cleared_names(row: Row) -> list[str]:
    """What a row of the kind `clear` clears of its bucket: `usage`, `forecast`, or both."""
    return msgspec.json.decode(row.body, type=list[str]) or ["usage"]


class _Bucket(msgspec.Struct, frozen=True):
    product_id: str | None = None


def _with_replayed_flag(body: bytes) -> bytes:
    return body[:-1] + b',"replayed":true}'


Verb = Literal["set", "poll", "enabled", "interval"]
"""What a command on a topic of a call changes or does."""


class CommandTopic(msgspec.Struct, frozen=True):
    """Where a command came in: polling/{call}/{verb} or request/{name}, below the base."""

    kind: Literal["polling", "request"]
    name: str
    verb: Verb | Literal[""] = ""


def parse_command_topic(topic: str, base: str) -> CommandTopic | None:
    """The command address of a topic, or None when it is no command topic."""
    levels = topic.removeprefix(f"{base}/bridge/").split("/")
    match levels:
        case ["polling", call, ("set" | "poll") as verb]:
            return CommandTopic("polling", call, verb)
        case ["polling", call, ("enabled" | "interval") as name, "set"]:
            return CommandTopic("polling", call, name)
        case ["request", name]:
            return CommandTopic("request", name)
    return None
