"""A trace as Sparkplug sees it: sessions of Edge Nodes with their messages, read once for all rules. Pure."""

from collections.abc import Iterator
from functools import cached_property

import msgspec

from tests.sparkplug.reader import Payload, Unreadable, read_payload
from tests.sparkplug.wire import Closed, Connack, Connect, Disconnect, Event, Note, Publish, Subscribe, Trace

NAMESPACE = "spBv1.0"
NODE_VERBS = ("NBIRTH", "NDATA", "NDEATH", "NCMD")
DEVICE_VERBS = ("DBIRTH", "DDATA", "DDEATH", "DCMD")
BIRTHS, DATA = ("NBIRTH", "DBIRTH"), ("NDATA", "DDATA")
COUNTED = ("NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH")
"""What has a seq."""
WITHOUT_ALIAS = ("bdSeq", "Node Control/Rebirth")
REBIRTH = "Node Control/Rebirth"


class Message(msgspec.Struct, frozen=True):
    """One PUBLISH in the namespace. `index` is its place in the trace; `payload` is None where it cannot be read."""

    index: int
    at: float
    up: bool
    connection: int
    topic: str
    qos: int
    retain: bool
    body: bytes
    payload: Payload | None

    levels: list[str]
    verb: str
    """The third level, or STATE."""
    node: tuple[str, str]
    """Group and Edge Node."""
    device: str
    """Empty for the node's own."""

    def describe(self) -> str:
        """How a verdict names it."""
        return f"{self.topic} (event {self.index})"


class Session:
    """One connection of an Edge Node. Its events carry their place in the trace."""

    def __init__(self, number: int, events: list[tuple[int, Event]]) -> None:
        self.number = number
        self.events = events
        self.messages = [_message(index, event) for index, event in events if isinstance(event.packet, Publish)]

    @cached_property
    def connect(self) -> Connect | None:
        return next((event.packet for _, event in self.events if isinstance(event.packet, Connect)), None)

    @cached_property
    def connect_index(self) -> int:
        return next((index for index, event in self.events if isinstance(event.packet, Connect)), self.events[0][0])

    @cached_property
    def accepted_index(self) -> int | None:
        """Where the broker has accepted the connection."""
        return next((i for i, e in self.events if isinstance(e.packet, Connack) and e.packet.code == 0), None)

    @cached_property
    def will(self) -> Payload | None:
        """The will's payload, where there is one that can be read."""
        will = self.connect.will if self.connect else None
        return _read(will.payload) if will else None

    @cached_property
    def will_bd_seq(self) -> int | None:
        return _bd_seq(self.will)

    @cached_property
    def node(self) -> tuple[str, str] | None:
        """Group and Edge Node, as the will's topic says, or else the first message or subscription."""
        will = self.connect.will if self.connect else None
        topics = [
            *([will.topic] if will else []),
            *(message.topic for message in self.sent),
            *(name for _, name, _ in self.subscriptions if "/STATE/" not in name),
        ]
        for topic in topics:
            levels = topic.split("/")
            if len(levels) >= 4:
                return levels[1], levels[3]
        return None

    @cached_property
    def sent(self) -> list[Message]:
        """What the Edge Node published."""
        return [message for message in self.messages if message.up]

    @cached_property
    def received(self) -> list[Message]:
        """What it was given: commands and STATE."""
        return [message for message in self.messages if not message.up]

    @cached_property
    def births(self) -> list[Message]:
        """Its NBIRTHs."""
        return [message for message in self.sent if message.verb == "NBIRTH"]

    @cached_property
    def subscriptions(self) -> list[tuple[int, str, int]]:
        """Place, filter and QoS."""
        return [
            (index, name, qos)
            for index, event in self.events
            if isinstance(event.packet, Subscribe)
            for name, qos in event.packet.filters
        ]

    @cached_property
    def disconnect(self) -> tuple[int, int] | None:
        """Place and reason of the DISCONNECT that the Edge Node sent."""
        return next((i_reason for i_reason in _disconnects(self.events)), None)

    @cached_property
    def closed_index(self) -> int | None:
        return next((index for index, event in self.events if isinstance(event.packet, Closed)), None)

    @cached_property
    def rebirth_requests(self) -> list[Message]:
        """The NCMDs that ask for a rebirth."""
        return [m for m in self.received if m.verb == "NCMD" and m.payload and _asks_for_rebirth(m.payload)]

    def of(self, *verbs: str) -> list[Message]:
        """What it published of some verbs."""
        return [message for message in self.sent if message.verb in verbs]


def _disconnects(events: list[tuple[int, Event]]) -> Iterator[tuple[int, int]]:
    for index, event in events:
        if event.up and isinstance(event.packet, Disconnect):
            yield index, event.packet.reason


def _asks_for_rebirth(payload: Payload) -> bool:
    metric = payload.metric(REBIRTH)
    return metric is not None and metric.value is True


def _bd_seq(payload: Payload | None) -> int | None:
    metric = payload.metric("bdSeq") if payload else None
    return metric.value if metric is not None and isinstance(metric.value, int) else None


def bd_seq(message: Message) -> int | None:
    """The bdSeq of an NBIRTH or NDEATH."""
    return _bd_seq(message.payload)


def _read(body: bytes) -> Payload | None:
    try:
        return read_payload(body)
    except Unreadable:
        return None


def _message(index: int, event: Event) -> Message:
    packet = event.packet
    assert isinstance(packet, Publish)
    payload = None if "/STATE/" in packet.topic else _read(packet.payload)
    levels = packet.topic.split("/")
    _, group, verb, node, device = (levels + [""] * 5)[:5]
    return Message(
        index=index,
        at=event.at,
        up=event.up,
        connection=event.connection,
        topic=packet.topic,
        qos=packet.qos,
        retain=packet.retain,
        body=packet.payload,
        payload=payload,
        levels=levels,
        verb="STATE" if group == "STATE" else verb,
        node=(group, node),
        device=device,
    )


class Facts:
    """All sessions of Edge Nodes of a trace, in the order of their CONNECTs, and the notes."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.primary_host = trace.primary_host
        by_connection: dict[int, list[tuple[int, Event]]] = {}
        for index, event in enumerate(trace.events):
            if not isinstance(event.packet, Note):
                by_connection.setdefault(event.connection, []).append((index, event))
        sessions = [Session(number, events) for number, events in by_connection.items() if _is_edge(events)]
        self.sessions = sorted(sessions, key=lambda session: session.connect_index)
        self.silent_openings = [
            events[0][0]
            for events in by_connection.values()
            if not any(isinstance(event.packet, Connect) for _, event in events)
        ]
        """Connections that ended before their CONNECT."""

    @cached_property
    def sent(self) -> list[Message]:
        """What all Edge Nodes published, in its order."""
        return sorted((m for session in self.sessions for m in session.sent), key=lambda message: message.index)

    def of(self, *verbs: str) -> list[Message]:
        """What was published of some verbs."""
        return [message for message in self.sent if message.verb in verbs]

    @cached_property
    def nodes(self) -> dict[tuple[str, str], list[Session]]:
        """The sessions of each Edge Node in their order."""
        nodes: dict[tuple[str, str], list[Session]] = {}
        for session in self.sessions:
            if session.node is not None:
                nodes.setdefault(session.node, []).append(session)
        return nodes

    def notes(self, what: str) -> list[tuple[int, Note]]:
        """The notes of one kind with their places."""
        return [
            (index, event.packet)
            for index, event in enumerate(self.trace.events)
            if isinstance(event.packet, Note) and event.packet.what == what
        ]


def _is_edge(events: list[tuple[int, Event]]) -> bool:
    """Whether a connection has anything of Sparkplug: a will, a message or a subscription."""
    topics = []
    for _, event in events:
        packet = event.packet
        if isinstance(packet, Connect) and packet.will:
            topics.append(packet.will.topic)
        elif isinstance(packet, Publish):
            topics.append(packet.topic)
        elif isinstance(packet, Subscribe):
            topics += [name for name, _ in packet.filters]
    verbs = {*NODE_VERBS, *DEVICE_VERBS, "STATE"}
    return any(topic.startswith("spBv") or verbs & set(topic.split("/")[1:4:1]) for topic in topics)
