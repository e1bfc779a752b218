"""Faults put into a good trace, one at a time, with the statements that must notice.

Together they show for each statement that its rule can fail.
"""

import msgspec

from oneweb_bridge.sparkplug import sparkplug_b_pb2 as pb
from tests.sparkplug.handmade import tell, tell_of_host
from tests.sparkplug.tampering import (
    Tamper,
    add_in_other_case,
    clear,
    drop,
    drop_verb,
    edit_first_property,
    edit_messages,
    edit_metrics,
    edit_packets,
    edit_payloads,
    edit_qualities,
    edit_will,
    edit_wills,
    is_packet,
    move_before,
    overlap,
    repeat,
    replace,
    retopic,
    reverse,
    send_late_data,
    set_members,
    shift_seq,
    without_will,
)
from tests.sparkplug.wire import Connack, Connect, Disconnect, Note, Subscribe, Trace


class Fault(msgspec.Struct, frozen=True):
    """What is done to which trace, and who must fail."""

    name: str
    tamper: Tamper
    noticed_by: tuple[str, ...]
    level: int = 5
    host: bool = False

    def trace(self) -> Trace:
        """The tampered trace."""
        whole = tell_of_host(self.level) if self.host else tell(self.level)
        return replace(whole, events=tuple(self.tamper(list(whole.events))))


_EDGE, _DEVICE = "message-flow-edge-node-birth-publish-", "message-flow-device-birth-publish-"
_DATA, _COMMANDS = "operational-behavior-data-publish-", "operational-behavior-data-commands-rebirth-"


def _of_verb(verb: str) -> list[Fault]:
    """Faults that each counted verb may have."""
    small, is_death = verb.lower(), verb.endswith("DEATH")
    flow = {"NBIRTH": f"{_EDGE}nbirth-", "DBIRTH": f"{_DEVICE}dbirth-"}.get(verb)
    own = () if is_death else (f"payloads-{small}-qos",)
    kept = () if is_death else (f"payloads-{small}-retain",)
    times = (f"payloads-{small}-timestamp", *(() if is_death else (f"topics-{small}-timestamp",)))
    steps = {
        "NBIRTH": ("topics-nbirth-seq-num",),
        "DBIRTH": ("topics-dbirth-seq", "payloads-dbirth-seq-inc", f"{_DEVICE}dbirth-payload-seq"),
    }.get(verb, (f"topics-{small}-seq-num", f"payloads-{small}-seq-inc"))
    seqs: tuple[str, ...] = (f"payloads-{small}-seq", "payloads-sequence-num-always-included")
    seqs += {"NBIRTH": ("payloads-sequence-num-req-nbirth", f"{_EDGE}nbirth-payload-seq")}.get(verb, ())
    seqs += ("payloads-ddeath-seq-number",) if is_death else ()
    faults = [
        Fault(
            f"{verb} with QoS 1",
            edit_messages(verb, lambda packet: replace(packet, qos=1)),
            (f"topics-{small}-mqtt", *own, *((f"{flow}qos",) if flow else ())),
        ),
        Fault(
            f"{verb} retained",
            edit_messages(verb, lambda packet: replace(packet, retain=True)),
            (f"topics-{small}-mqtt", *kept, *((f"{flow}retained",) if flow else ())),
        ),
        Fault(f"{verb} without a time", edit_payloads(verb, clear("timestamp")), times),
        Fault(
            f"{verb} with its time in seconds",
            edit_payloads(verb, lambda payload: set_members(timestamp=payload.timestamp // 1000)(payload)),
            (*times, "payloads-timestamp-in-UTC"),
        ),
        Fault(f"{verb} without seq", edit_payloads(verb, clear("seq")), (*seqs, *steps)),
        Fault(f"{verb} with a seq too many", edit_payloads(verb, shift_seq, nth=0), steps),
        Fault(
            f"{verb} on a topic too deep",
            edit_messages(verb, lambda packet: replace(packet, topic=packet.topic + "/x/y"), nth=0),
            (f"topics-{small}-topic", "topic-structure"),
        ),
        Fault(
            f"{verb} of another group",
            edit_messages(verb, retopic("/OneWeb/", "/other/"), nth=0),
            (f"topics-{small}-topic", *((f"{flow}topic",) if flow else ())),
        ),
    ]
    if not is_death:
        faults += _of_metrics(verb)
    return faults


def _of_metrics(verb: str) -> list[Fault]:
    small, is_birth = verb.lower(), verb.endswith("BIRTH")
    values = (f"{_DATA}{small}-values", f"topics-{small}-metrics") if is_birth else ()
    faults = [
        Fault(
            f"{verb}: metrics without a time",
            edit_metrics(verb, clear("timestamp")),
            ("payloads-name-birth-data-requirement",),
        ),
        Fault(
            f"{verb}: metrics with times in seconds",
            edit_metrics(verb, lambda metric: set_members(timestamp=metric.timestamp // 1000)(metric)),
            ("payloads-metric-timestamp-in-UTC",),
        ),
    ]
    if not is_birth:
        return [
            *faults,
            Fault(
                f"{verb} with names",
                edit_metrics(verb, set_members(name="X")),
                ("payloads-alias-data-cmd-requirement",),
            ),
            Fault(f"{verb} without alias", edit_metrics(verb, clear("alias")), ("payloads-name-requirement",)),
            Fault(
                f"{verb} with types",
                edit_metrics(verb, set_members(datatype=10)),
                ("payloads-metric-datatype-not-req",),
            ),
            Fault(
                f"{verb} of an alias that is in no birth",
                edit_metrics(verb, set_members(alias=4711)),
                (
                    f"topics-{'nbirth' if verb == 'NDATA' else 'dbirth'}-metric-reqs",
                    f"{_DATA}{'nbirth' if verb == 'NDATA' else 'dbirth'}",
                ),
            ),
            Fault(
                f"{verb} without what changed",
                edit_packets(Note, lambda note: replace(note, value=-4711)),
                (f"topics-{small}-payload",),
            ),
        ]
    return [
        *faults,
        Fault(f"{verb} without names", edit_metrics(verb, clear("name")), ("payloads-alias-birth-requirement",)),
        Fault(
            f"{verb} without types",
            edit_metrics(verb, clear("datatype")),
            ("payloads-metric-datatype-req", "payloads-metric-datatype-value-type", f"topics-{small}-metrics"),
        ),
        Fault(
            f"{verb} with an unknown type",
            edit_metrics(verb, set_members(datatype=77)),
            ("payloads-metric-datatype-value", f"topics-{small}-metrics"),
        ),
        Fault(f"{verb}: nulls with values", edit_metrics(verb, set_members(is_null=True)), values),
        Fault(
            f"{verb}: a name in two cases", edit_payloads(verb, add_in_other_case), ("case-sensitivity-metric-names",)
        ),
        Fault(
            f"{verb}: an alias twice",
            edit_payloads(verb, lambda payload: set_members(alias=1)(payload.metrics[-1])),
            ("payloads-alias-uniqueness",),
        ),
        Fault(f"{verb} in the wrong order of times", edit_payloads(verb, reverse), (f"{_DATA}{small}-order",)),
        Fault(
            f"{verb}: properties without a type",
            edit_metrics(verb, edit_first_property(clear("type"))),
            ("payloads-metric-propertyvalue-type-req", "payloads-metric-propertyvalue-type-type"),
        ),
        Fault(
            f"{verb}: properties of an unknown type",
            edit_metrics(verb, edit_first_property(set_members(type=99))),
            ("payloads-metric-propertyvalue-type-value",),
        ),
        Fault(
            f"{verb}: a property without its value",
            edit_metrics(verb, lambda metric: metric.properties.keys.append("x")),
            ("payloads-propertyset-keys-array-size", "payloads-propertyset-values-array-size"),
        ),
        Fault(
            f"{verb} that is no payload",
            edit_messages(verb, lambda packet: replace(packet, payload=b"\xff")),
            (f"{_EDGE}nbirth-payload" if verb == "NBIRTH" else f"{_DEVICE}dbirth-payload",),
        ),
    ]


_ENDS = ("operational-behavior-edge-node-intentional-disconnect-ndeath", "payloads-ndeath-will-message-publisher")
_BD_SEQS = ("topics-nbirth-bdseq-matching", "payloads-nbirth-bdseq-repeat", f"{_EDGE}nbirth-payload-bdSeq")
_NO_BD_SEQ = ("topics-nbirth-bdseq-included", "payloads-nbirth-bdseq")
_NOT_FALSE = (f"{_COMMANDS}value", "topics-nbirth-rebirth-metric", "payloads-nbirth-rebirth-req")
_ORDERS = ("payloads-dbirth-order", "payloads-ddata-order")
_OFFLINE = "operational-behavior-edge-node-termination-host-offline"
REBIRTH = "Node Control/Rebirth"


def _unclean(packet: Connect) -> Connect:
    return replace(packet, clean=False)


def _unsubscribed(part: str, qos: int | None = None) -> Tamper:
    """The filters with a part of a topic get another QoS, or go."""

    def edit(packet: Subscribe) -> Subscribe:
        kept = [(name, level if part not in name else qos) for name, level in packet.filters]
        return Subscribe(tuple((name, level) for name, level in kept if level is not None))

    return edit_packets(Subscribe, edit)


def _remove(payload: pb.Payload, name: str) -> None:
    at = next(i for i, metric in enumerate(payload.metrics) if metric.name == name)
    del payload.metrics[at]


SESSION = [
    Fault("no clean session", edit_packets(Connect, _unclean), ("principles-persistence-clean-session-311",), level=4),
    Fault("no clean start", edit_packets(Connect, _unclean), ("principles-persistence-clean-session-50",)),
    Fault(
        "a session that lasts",
        edit_packets(Connect, lambda packet: replace(packet, session_expiry=60)),
        ("principles-persistence-clean-session-50",),
    ),
    Fault("no will", edit_packets(Connect, without_will), (f"{_EDGE}will-message", "payloads-ndeath-will-message")),
    Fault(
        "will with QoS 0",
        edit_packets(Connect, edit_will(qos=0)),
        (f"{_EDGE}will-message-qos", "payloads-ndeath-will-message-qos"),
    ),
    Fault(
        "will retained",
        edit_packets(Connect, edit_will(retain=True)),
        (f"{_EDGE}will-message-will-retained", "payloads-ndeath-will-message-retain"),
    ),
    Fault(
        "will on another topic",
        edit_packets(Connect, edit_will(topic="spBv1.0/OneWeb/NDEATH/other")),
        (f"{_EDGE}will-message-topic", "topics-ndeath-topic"),
    ),
    Fault(
        "will that is no payload", edit_packets(Connect, edit_will(payload=b"\xff")), (f"{_EDGE}will-message-payload",)
    ),
    Fault("will with a seq", edit_wills(set_members(seq=0)), ("payloads-ndeath-seq", "topics-ndeath-seq")),
    Fault(
        "will with more metrics", edit_wills(lambda payload: payload.metrics.add(name="x")), ("topics-ndeath-payload",)
    ),
    Fault(
        "bdSeq of another type",
        edit_wills(lambda payload: set_members(datatype=8)(payload.metrics[0])),
        (f"{_EDGE}will-message-payload-bdSeq",),
    ),
    Fault(
        "bdSeq of the next connection in the will",
        edit_wills(lambda payload: set_members(long_value=payload.metrics[0].long_value + 1)(payload.metrics[0])),
        ("payloads-ndeath-bdseq", "topics-nbirth-bdseq-increment", f"{_COMMANDS}action-3", *_BD_SEQS),
    ),
    Fault("no NDEATH at the end", drop_verb("NDEATH"), _ENDS),
    Fault(
        "no NDEATH at the end of 3.1.1",
        drop_verb("NDEATH"),
        (*_ENDS, "payloads-ndeath-will-message-publisher-disconnect-mqtt311"),
        level=4,
    ),
    Fault(
        "DISCONNECT without will",
        edit_packets(Disconnect, lambda packet: replace(packet, reason=0)),
        ("payloads-ndeath-will-message-publisher-disconnect-mqtt50",),
    ),
    Fault(
        "no DISCONNECT", drop(is_packet(Disconnect)), ("operational-behavior-edge-node-intentional-disconnect-packet",)
    ),
    Fault("births before CONNACK", drop(is_packet(Connack)), (f"{_EDGE}connect",)),
    Fault("no NCMD subscription", _unsubscribed("NCMD"), ("message-flow-edge-node-ncmd-subscribe",)),
    Fault("NCMD with QoS 0", _unsubscribed("NCMD", 0), ("message-flow-edge-node-ncmd-subscribe",)),
    Fault(
        "two connections of one node",
        overlap,
        ("topic-structure-namespace-unique-edge-node-descriptor", "payloads-nbirth-edge-node-descriptor"),
    ),
    Fault(
        "a Device that may be written to",
        edit_metrics("DBIRTH", edit_first_property(set_members(boolean_value=False)), name="Status/IMEI"),
        ("message-flow-device-dcmd-subscribe",),
    ),
    Fault(
        "two terminals in one Device",
        edit_metrics("DBIRTH", set_members(string_value="359235170009999"), name="Status/IMEI", nth=2),
        ("topic-structure-namespace-unique-device-id",),
    ),
    Fault(
        "ids in two cases",
        edit_messages("DDATA", retopic("/OneWeb/", "/ONEWEB/"), nth=0),
        ("case-sensitivity-sparkplug-ids",),
    ),
    Fault(
        "another namespace",
        edit_messages("DBIRTH", retopic("spBv1.0", "spBv2.0"), nth=0),
        ("topic-structure-namespace-a",),
    ),
    Fault(
        "an illegal group",
        edit_messages("NBIRTH", retopic("/OneWeb/", "/One#/"), nth=0),
        ("topic-structure-namespace-valid-group-id",),
    ),
    Fault(
        "an illegal node",
        edit_messages("NBIRTH", retopic("/oneweb-bridge", "/oneweb+"), nth=0),
        ("topic-structure-namespace-valid-edge-node-id",),
    ),
    Fault(
        "an illegal Device",
        edit_messages("DBIRTH", retopic("/3592", "/+3592"), nth=0),
        ("topic-structure-namespace-valid-device-id",),
    ),
    Fault(
        "data of a Device without its id",
        edit_messages("DDATA", lambda packet: replace(packet, topic=packet.topic.rpartition("/")[0]), nth=0),
        ("topic-structure-namespace-device-id-associated-message-types", "topics-ddata-topic"),
    ),
    Fault(
        "a birth of the node with a Device id",
        edit_messages("NBIRTH", lambda packet: replace(packet, topic=packet.topic + "/x"), nth=0),
        ("topic-structure-namespace-device-id-non-associated-message-types", f"{_EDGE}nbirth-topic"),
    ),
    Fault(
        "DBIRTH of another node",
        edit_messages("DBIRTH", retopic("/oneweb-bridge/", "/other/"), nth=0),
        (f"{_DEVICE}dbirth-match-edge-node-topic", f"{_DEVICE}dbirth-topic"),
    ),
]
"""Of connections, wills, ends, topics and ids."""

NODE = [
    Fault("NBIRTH without bdSeq", edit_payloads("NBIRTH", lambda p: _remove(p, "bdSeq")), (*_NO_BD_SEQ, *_BD_SEQS)),
    Fault(
        "NBIRTH without Rebirth",
        edit_payloads("NBIRTH", lambda p: _remove(p, REBIRTH)),
        (f"{_COMMANDS}name", *_NOT_FALSE),
    ),
    Fault("alias on Rebirth", edit_metrics("NBIRTH", set_members(alias=4711), REBIRTH), (f"{_COMMANDS}name-aliases",)),
    Fault("Rebirth is true", edit_metrics("NBIRTH", set_members(boolean_value=True), REBIRTH), _NOT_FALSE),
    Fault("Rebirth is a number", edit_metrics("NBIRTH", set_members(datatype=4), REBIRTH), (f"{_COMMANDS}datatype",)),
]
"""Of the node's two metrics."""

ORDER = [
    Fault(
        "DBIRTH before NBIRTH",
        move_before("DBIRTH", "NBIRTH"),
        (f"{_DEVICE}nbirth-wait", "principles-birth-certificates-order"),
    ),
    Fault("DDATA before DBIRTH", move_before("DDATA", "DBIRTH"), _ORDERS),
    Fault("NDATA before NBIRTH", move_before("NDATA", "NBIRTH"), ("payloads-ndata-order", "payloads-dbirth-order")),
    Fault("a Device that is not born again", drop_verb("DBIRTH", 5), (f"{_COMMANDS}action-2", "payloads-ndata-order")),
    Fault("no rebirth", drop_verb("NBIRTH", 2), (f"{_COMMANDS}action-2",)),
    Fault("data between a request and its rebirth", send_late_data, (f"{_COMMANDS}action-1",)),
    Fault("a Device leaves without DDEATH", drop_verb("DDEATH"), ("operational-behavior-device-ddeath",)),
    Fault("a message twice", repeat("DDATA", 0), ("payloads-sequence-num-incrementing", f"{_DATA}dbirth-change")),
    Fault(
        "a message of the node twice",
        repeat("NDATA", 2),
        ("principles-rbe-recommended", f"{_DATA}nbirth-change"),
    ),
    Fault(
        "a live value that is older",
        edit_metrics("DDATA", set_members(timestamp=1_700_000_000_000), nth=0),
        (f"{_DATA}dbirth-order",),
    ),
    Fault(
        "history that is live",
        edit_metrics("DDATA", clear("is_historical")),
        (f"{_DATA}dbirth-order",),
    ),
    Fault(
        "a Quality that is text",
        edit_payloads("DDATA", edit_qualities(type=12, string_value="STALE")),
        ("payloads-propertyset-quality-value-type", "payloads-propertyset-quality-value-value"),
    ),
    Fault(
        "a Quality of another scale",
        edit_payloads("DDATA", edit_qualities(type=3, int_value=1)),
        ("payloads-propertyset-quality-value-value",),
    ),
]
"""Of what follows on what."""

HOST = [
    Fault(
        "births without a host",
        drop_verb("STATE"),
        (f"{_EDGE}phid-wait", f"{_EDGE}phid-wait-id"),
        host=True,
    ),
    Fault(
        "births though the host is offline",
        edit_messages("STATE", lambda packet: replace(packet, payload=b'{"online": false, "timestamp": 1000}'), nth=2),
        (f"{_EDGE}phid-wait-online", "operational-behavior-edge-node-birth-sequence-wait"),
        host=True,
    ),
    Fault(
        "births after an old online",
        edit_messages("STATE", lambda packet: replace(packet, payload=b'{"online": true, "timestamp": 600}'), nth=2),
        (f"{_EDGE}phid-wait-timestamp",),
        host=True,
    ),
    Fault("the STATE of another host", _unsubscribed("STATE"), (f"{_EDGE}phid-wait-id",), host=True),
    Fault(
        "no NDEATH when the host goes",
        drop_verb("NDEATH", 0),
        (f"{_EDGE}phid-offline",),
        host=True,
    ),
    Fault("no end when the host goes", drop(is_packet(Disconnect), 0), (_OFFLINE, f"{_EDGE}phid-offline"), host=True),
    Fault(
        "no return when the host went",
        lambda events: [event for event in events if event.connection < 2],
        (f"{_OFFLINE}-reconnect",),
        host=True,
    ),
    Fault(
        "an end after an old offline",
        edit_messages("STATE", lambda packet: replace(packet, payload=b'{"online": false, "timestamp": 10}'), nth=7),
        (f"{_OFFLINE}-timestamp",),
        host=True,
    ),
]
"""Of the primary host."""

FAULTS = [fault for verb in ("NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH") for fault in _of_verb(verb)]
FAULTS += SESSION + NODE + ORDER + HOST
