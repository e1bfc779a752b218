"""The statements on connections, wills, topics, subscriptions and the end of a session. Pure."""

from collections.abc import Iterable, Iterator

from tests.sparkplug.facts import COUNTED, DEVICE_VERBS, NAMESPACE, NODE_VERBS, Facts, Message, Session, bd_seq
from tests.sparkplug.judgement import PASS, Judgement, Rule, each, findings
from tests.sparkplug.reader import INT64
from tests.sparkplug.wire import Connect

DISCONNECT_WITH_WILL = 0x04
NOT_USED = "a permission that is not used"


def _connects(facts: Facts) -> Iterator[tuple[Session, Connect]]:
    for session in facts.sessions:
        if session.connect is not None:
            yield session, session.connect


def _of_level(level: int) -> Rule:
    def judge(pair: tuple[Session, Connect]) -> str:
        session, connect = pair
        if not connect.clean:
            return f"connection {session.number} has no clean start"
        return f"connection {session.number} outlives its end" if connect.session_expiry else ""

    return each(
        lambda facts: [pair for pair in _connects(facts) if pair[1].level == level],
        judge,
        f"no connection with MQTT {'5' if level == 5 else '3.1.1'}",
    )


def _will_there(pair: tuple[Session, Connect]) -> str:
    session, connect = pair
    is_death = connect.will is not None and connect.will.topic.split("/")[2:3] == ["NDEATH"]
    return "" if is_death else f"connection {session.number} has no NDEATH as its will"


def _will_read(pair: tuple[Session, Connect]) -> str:
    return "" if pair[0].will is not None else f"the will of connection {pair[0].number} cannot be read"


def _will_bd_seq(pair: tuple[Session, Connect]) -> str:
    metric = pair[0].will.metric("bdSeq") if pair[0].will else None
    if metric is None or metric.datatype != INT64 or metric.field != "long":
        return f"the will of connection {pair[0].number} has no bdSeq of the type Int64"
    return "" if 0 <= metric.value <= 255 else f"bdSeq {metric.value}"


def _will_qos(pair: tuple[Session, Connect]) -> str:
    will = pair[1].will
    return "" if will and will.qos == 1 else f"the will of connection {pair[0].number} has not QoS 1"


def _will_retain(pair: tuple[Session, Connect]) -> str:
    will = pair[1].will
    return "" if will and not will.retain else f"the will of connection {pair[0].number} is retained, or is not there"


def _will_topic(pair: tuple[Session, Connect]) -> str:
    session, connect = pair
    if connect.will is None:
        return f"connection {session.number} has no will"
    return _topic_of("NDEATH", connect.will.topic, {m.node for m in session.sent})


def _topic_of(verb: str, topic: str, nodes: Iterable[tuple[str, str]]) -> str:
    levels = topic.split("/")
    wanted = 5 if verb.startswith("D") else 4
    if len(levels) != wanted or levels[0] != NAMESPACE or levels[2] != verb or not all(levels):
        return f"{topic} has not the form of {verb}"
    wrong = [node for node in nodes if node != (levels[1], levels[3])]
    return f"{topic} is of another Edge Node than {wrong[0]}" if wrong else ""


def _topics(verb: str) -> Rule:
    """The form of a verb's topics. A DBIRTH's ids are those of the NBIRTH before it."""

    def find(facts: Facts) -> Iterator[str]:
        for session in facts.sessions:
            nodes = {message.node for message in session.births}
            for message in session.of(verb):
                yield _topic_of(verb, message.topic, nodes)

    return findings(find, f"no {verb}")


def _death_topic(facts: Facts) -> Judgement:
    wills = each(_connects, _will_topic)(facts)
    return wills if wills.result == "fail" else (_topics("NDEATH")(facts) if facts.of("NDEATH") else wills)


def _deaths(facts: Facts) -> Iterator[tuple[str, Session, object]]:
    """Wills and published NDEATHs: what to call them, their session, their payload."""
    for session in facts.sessions:
        if session.will is not None:
            yield f"the will of connection {session.number}", session, session.will
        for message in session.of("NDEATH"):
            yield message.describe(), session, message.payload


def _death_seq(item: tuple[str, Session, object]) -> str:
    return f"{item[0]} has a seq" if getattr(item[2], "seq", None) is not None else ""


def _death_metrics(item: tuple[str, Session, object]) -> str:
    names = [metric.name for metric in getattr(item[2], "metrics", ())]
    return "" if names == ["bdSeq"] else f"{item[0]} has the metrics {names}"


def _death_bd_seq(facts: Facts) -> Iterator[str]:
    for session in facts.sessions:
        births = [bd_seq(message) for message in session.births]
        deaths = [bd_seq(message) for message in session.of("NDEATH")]
        for number in deaths:
            yield "" if number == session.will_bd_seq else f"NDEATH says {number}, the will {session.will_bd_seq}"
        for number in births:
            yield "" if number == session.will_bd_seq else f"NBIRTH says {number}, the will {session.will_bd_seq}"


def _bd_seq_steps(facts: Facts) -> Iterator[str]:
    """From 0, one more at each CONNECT. A kill, and a connection that ended before its CONNECT, may take one along."""
    skips = [index for index, _ in facts.notes("kill")] + facts.silent_openings
    for sessions in facts.nodes.values():
        before, since = -1, 0
        for session in sessions:
            number = session.will_bd_seq
            if number is None:
                yield f"connection {session.number} has no bdSeq"
                continue
            allowed = 1 + sum(since <= index < session.connect_index for index in skips)
            step = (number - before) % 256
            yield "" if 1 <= step <= allowed else f"connection {session.number}: bdSeq {number} after {before}"
            before, since = number, session.connect_index


def _accepted_before_births(facts: Facts) -> Iterator[str]:
    for session in facts.sessions:
        for message in session.of("NBIRTH", "DBIRTH")[:1]:
            accepted = session.accepted_index
            is_first = accepted is not None and accepted < message.index
            yield "" if is_first else f"{message.describe()} before CONNACK"


def _subscribed(facts: Facts) -> Iterator[str]:
    for session in facts.sessions:
        for birth in session.births[:1]:
            topic = f"{NAMESPACE}/{birth.node[0]}/NCMD/{birth.node[1]}"
            subscribed = [(i, qos) for i, name, qos in session.subscriptions if name == topic and i < birth.index]
            yield (
                ""
                if subscribed and subscribed[0][1] == 1
                else f"{birth.describe()} without a subscription to {topic} of QoS 1"
            )


def _device_commands(facts: Facts) -> Iterator[str]:
    """A Device with a metric that says it may be written to."""
    for session in facts.sessions:
        for message in session.of("DBIRTH"):
            metrics = message.payload.metrics if message.payload else ()
            if any((kept := metric.property("readOnly")) and kept.value is False for metric in metrics):
                topic = message.topic.replace("/DBIRTH/", "/DCMD/")
                is_there = any(name == topic and qos == 1 for _, name, qos in session.subscriptions)
                yield "" if is_there else f"no subscription to {topic}"


def _birth_first(facts: Facts) -> Iterator[str]:
    """The NDEATH of a session that was never born is no harm."""
    for session in facts.sessions:
        first = next((m for m in session.sent if session.births or m.verb != "NDEATH"), None)
        if first is not None:
            yield "" if first.verb == "NBIRTH" else f"{first.describe()} is the first of connection {session.number}"


def _node_born_before_device(facts: Facts) -> Iterator[str]:
    for session in facts.sessions:
        for message in session.of("DBIRTH"):
            is_born = any(birth.index < message.index for birth in session.births)
            yield "" if is_born else f"{message.describe()} before NBIRTH"


# ── topics and ids ─────────────────────────────────────────────────────────────────────────────


def _namespace_form(message: Message) -> str:
    levels = message.levels
    is_known = len(levels) in (4, 5) and levels[2] in (*NODE_VERBS, *DEVICE_VERBS) and all(levels)
    return "" if is_known else f"{message.topic} is no topic of Sparkplug"


def _valid(level: int) -> Rule:
    def judge(message: Message) -> str:
        id = message.levels[level] if len(message.levels) > level else ""
        return "" if id and not set(id) & set("+/#") else f"{message.topic} has an illegal id"

    return each(lambda facts: [m for m in facts.sent if level < 4 or m.verb in DEVICE_VERBS], judge)


def _levels(verbs: tuple[str, ...], count: int) -> Rule:
    return each(
        lambda facts: facts.of(*verbs), lambda m: "" if len(m.levels) == count else f"{m.topic} has not {count} levels"
    )


def _unique_nodes(facts: Facts) -> Iterator[str]:
    """No two connections of one Edge Node are born at one time."""
    for sessions in facts.nodes.values():
        for session in sessions:
            for birth in session.births:
                others = [
                    other.number
                    for other in sessions
                    if other is not session
                    and other.births
                    and other.births[0].index < birth.index < (other.closed_index or birth.index)
                ]
                yield f"{birth.describe()} while connection {others[0]} is born" if others else ""


def _unique_devices(facts: Facts) -> Iterator[str]:
    """Two terminals with one Device id would differ in their IMEI."""
    known: dict[str, object] = {}
    for message in facts.of("DBIRTH"):
        metric = message.payload.metric("Status/IMEI") if message.payload else None
        if metric is not None and metric.value is not None:
            before = known.setdefault(message.device, metric.value)
            yield "" if before == metric.value else f"{message.topic} is of {before} and of {metric.value}"


def _devices_twice(facts: Facts) -> Judgement:
    nodes: dict[str, set[tuple[str, str]]] = {}
    for message in facts.of("DBIRTH"):
        nodes.setdefault(message.device, set()).add(message.node)
    return PASS if any(len(holders) > 1 for holders in nodes.values()) else Judgement("not seen", NOT_USED)


def _case_of_ids(facts: Facts) -> Iterator[str]:
    known: dict[str, str] = {}
    for message in facts.of(*COUNTED):
        id = "/".join(message.levels[1:2] + message.levels[3:])
        before = known.setdefault(id.lower(), id)
        yield "" if before == id else f"{id} and {before} differ only in case"


# ── the end ────────────────────────────────────────────────────────────────────────────────────


def _ended_on_purpose(facts: Facts) -> Iterator[Session]:
    """Sessions with a DISCONNECT, and those that were there when the bridge was asked to stop."""
    stops = [index for index, _ in facts.notes("stop")]
    for session in facts.sessions:
        closed = session.closed_index
        was_there = closed is not None and any(session.connect_index < index < closed for index in stops)
        if session.disconnect is not None or (was_there and session.accepted_index is not None):
            yield session


def _death_before_end(session: Session) -> str:
    deaths = session.of("NDEATH")
    is_in_order = deaths and (session.disconnect is None or deaths[-1].index < session.disconnect[0])
    return "" if is_in_order else f"connection {session.number} ended without NDEATH"


def _disconnect_after_death(session: Session) -> str:
    deaths = session.of("NDEATH")
    if not deaths or session.disconnect is None:
        return f"connection {session.number} ended without NDEATH and DISCONNECT"
    later = [message for message in session.sent if message.index > deaths[-1].index]
    return f"{later[0].describe()} after NDEATH" if later else ""


def _disconnects(level: int) -> Rule:
    def judge(session: Session) -> str:
        if level == 4:
            return _death_before_end(session)
        assert session.disconnect is not None
        reason = session.disconnect[1]
        return "" if reason == DISCONNECT_WITH_WILL else f"connection {session.number} ended with reason {reason}"

    return each(
        lambda facts: [s for s in facts.sessions if s.disconnect and s.connect and s.connect.level == level],
        judge,
        f"no DISCONNECT with MQTT {'5' if level == 5 else '3.1.1'}",
    )


def _device_deaths(facts: Facts) -> Iterator[str]:
    for index, note in facts.notes("left"):
        died = any(m.device == note.device and m.index > index for m in facts.of("DDEATH"))
        yield "" if died else f"no DDEATH of {note.device}"


_END = each(_ended_on_purpose, _death_before_end, "no session ended on purpose")
_BIRTH = "message-flow-edge-node-birth-publish-"

RULES: dict[str, Rule] = {
    "principles-persistence-clean-session-311": _of_level(4),
    "principles-persistence-clean-session-50": _of_level(5),
    "principles-birth-certificates-order": findings(_birth_first),
    f"{_BIRTH}connect": findings(_accepted_before_births),
    f"{_BIRTH}will-message": each(_connects, _will_there),
    f"{_BIRTH}will-message-payload": each(_connects, _will_read),
    f"{_BIRTH}will-message-payload-bdSeq": each(_connects, _will_bd_seq),
    f"{_BIRTH}will-message-qos": each(_connects, _will_qos),
    f"{_BIRTH}will-message-topic": each(_connects, _will_topic),
    f"{_BIRTH}will-message-will-retained": each(_connects, _will_retain),
    "payloads-ndeath-will-message": each(_connects, _will_there),
    "payloads-ndeath-will-message-qos": each(_connects, _will_qos),
    "payloads-ndeath-will-message-retain": each(_connects, _will_retain),
    "payloads-ndeath-bdseq": findings(_death_bd_seq),
    "payloads-ndeath-seq": each(_deaths, _death_seq),
    "topics-ndeath-seq": each(_deaths, _death_seq),
    "topics-ndeath-payload": each(_deaths, _death_metrics),
    "topics-ndeath-topic": _death_topic,
    "topics-nbirth-bdseq-increment": findings(_bd_seq_steps),
    "message-flow-edge-node-ncmd-subscribe": findings(_subscribed),
    "message-flow-device-dcmd-subscribe": findings(_device_commands, "no Device has anything to write"),
    "message-flow-device-birth-publish-nbirth-wait": findings(_node_born_before_device),
    "message-flow-device-birth-publish-dbirth-match-edge-node-topic": _topics("DBIRTH"),
    "message-flow-device-birth-publish-dbirth-topic": _topics("DBIRTH"),
    f"{_BIRTH}nbirth-topic": _topics("NBIRTH"),
    "topics-nbirth-topic": _topics("NBIRTH"),
    "topics-dbirth-topic": _topics("DBIRTH"),
    "topics-ndata-topic": _topics("NDATA"),
    "topics-ddata-topic": _topics("DDATA"),
    "topics-ddeath-topic": _topics("DDEATH"),
    "topic-structure": each(lambda facts: facts.sent, _namespace_form),
    "topic-structure-namespace-a": each(
        lambda facts: facts.sent, lambda m: "" if m.levels[0] == NAMESPACE else f"{m.topic} is not below {NAMESPACE}"
    ),
    "topic-structure-namespace-valid-group-id": _valid(1),
    "topic-structure-namespace-valid-edge-node-id": _valid(3),
    "topic-structure-namespace-valid-device-id": _valid(4),
    "topic-structure-namespace-unique-edge-node-descriptor": findings(_unique_nodes),
    "payloads-nbirth-edge-node-descriptor": findings(_unique_nodes),
    "topic-structure-namespace-unique-device-id": findings(_unique_devices),
    "topic-structure-namespace-duplicate-device-id-across-edge-node": _devices_twice,
    "topic-structure-namespace-device-id-associated-message-types": _levels(DEVICE_VERBS, 5),
    "topic-structure-namespace-device-id-non-associated-message-types": _levels(NODE_VERBS, 4),
    "case-sensitivity-sparkplug-ids": findings(_case_of_ids),
    "operational-behavior-edge-node-intentional-disconnect-ndeath": _END,
    "payloads-ndeath-will-message-publisher": _END,
    "operational-behavior-edge-node-intentional-disconnect-packet": each(
        _ended_on_purpose, _disconnect_after_death, "no session ended on purpose"
    ),
    "payloads-ndeath-will-message-publisher-disconnect-mqtt311": _disconnects(4),
    "payloads-ndeath-will-message-publisher-disconnect-mqtt50": _disconnects(5),
    "operational-behavior-device-ddeath": findings(_device_deaths, "no Device left"),
}
