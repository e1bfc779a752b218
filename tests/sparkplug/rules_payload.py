"""The statements on single messages: QoS, retain, timestamps, metrics, aliases, properties. Pure."""

from collections.abc import Callable, Iterator

from tests.sparkplug.facts import BIRTHS, COUNTED, DATA, REBIRTH, WITHOUT_ALIAS, Facts, Message, bd_seq
from tests.sparkplug.judgement import PASS, Judgement, Rule, each, findings
from tests.sparkplug.reader import (
    BASIC_TYPES,
    BOOLEAN,
    FIELD_OF,
    INT32,
    INT64,
    METRIC_TYPES,
    PROPERTY_TYPES,
    Metric,
    Property,
)

QUALITIES = (0, 192, 500)
EARLIEST_MS, LATEST_MS = 1_420_070_400_000, 4_102_444_800_000
"""2015 and 2100: what lies outside is no number of milliseconds since the epoch."""
CLOCK_MS = 600_000
"""A payload's time is that of its sending: a wrong zone or unit is further off."""


def _messages(*verbs: str, judge: Callable[[Message], str]) -> Rule:
    return each(lambda facts: facts.of(*verbs), judge, f"no {' or '.join(verbs)}")


def _qos(verb: str, qos: int = 0) -> Rule:
    return _messages(verb, judge=lambda m: "" if m.qos == qos else f"{m.describe()} has QoS {m.qos}")


def _retain(verb: str) -> Rule:
    return _messages(verb, judge=lambda m: f"{m.describe()} is retained" if m.retain else "")


def _mqtt(verb: str) -> Rule:
    return _messages(
        verb, judge=lambda m: f"{m.describe()} has QoS {m.qos}, retain {m.retain}" if m.qos or m.retain else ""
    )


def _readable(verb: str) -> Rule:
    return _messages(verb, judge=lambda m: "" if m.payload else f"{m.describe()} cannot be read")


def _has_time(message: Message) -> str:
    stamp = message.payload.timestamp if message.payload else None
    if stamp is None:
        return f"{message.describe()} has no timestamp"
    is_now = abs(stamp - message.at * 1000) < CLOCK_MS
    return "" if is_now else f"{message.describe()} has the timestamp {stamp} at {message.at * 1000:.0f}"


def _has_seq(message: Message) -> str:
    seq = message.payload.seq if message.payload else None
    return "" if seq is not None and 0 <= seq <= 255 else f"{message.describe()} has the seq {seq}"


def _starts_at_0(message: Message) -> str:
    return "" if message.payload and message.payload.seq == 0 else f"{message.describe()} has not the seq 0"


# ── metrics ────────────────────────────────────────────────────────────────────────────────────


def _of_metrics(*verbs: str, judge: Callable[[Message, Metric], str]) -> Rule:
    def find(facts: Facts) -> Iterator[str]:
        for message in facts.of(*verbs):
            for number, metric in enumerate(message.payload.metrics if message.payload else ()):
                wrong = judge(message, metric)
                yield f"{message.describe()}: metric {number} ({metric.name or metric.alias}) {wrong}" if wrong else ""

    return findings(find, f"no metric in {' or '.join(verbs)}")


def _is_whole(_: Message, metric: Metric) -> str:
    """Name, datatype, and a value of that type or a null."""
    if not metric.name or metric.datatype is None:
        return "has no name or no datatype"
    return _value(_, metric) or _value_of_type(metric)


def _value_of_type(metric: Metric) -> str:
    wanted = FIELD_OF.get(metric.datatype or 0)
    return "" if metric.is_null or metric.field == wanted else f"of the type {metric.datatype} is in {metric.field}"


def _value(_: Message, metric: Metric) -> str:
    """A value, or `is_null` without one."""
    if metric.is_null:
        return "is null and has a value" if metric.field else ""
    return "" if metric.field else "has neither a value nor is_null"


def _named(_: Message, metric: Metric) -> str:
    return "" if metric.name or metric.alias is not None else "has no name and no alias"


def _named_and_aliased(_: Message, metric: Metric) -> str:
    """But for the two that hosts ask for by name: there the specification contradicts itself."""
    if not metric.name:
        return "has no name"
    return "" if metric.alias is not None or metric.name in WITHOUT_ALIAS else "has no alias"


def _aliased_alone(_: Message, metric: Metric) -> str:
    return "" if metric.alias is not None and metric.name is None else "has a name, or no alias"


def _typed(_: Message, metric: Metric) -> str:
    return "" if metric.datatype is not None else "has no datatype"


def _typed_legally(_: Message, metric: Metric) -> str:
    return "" if metric.datatype in METRIC_TYPES else f"has the datatype {metric.datatype}"


def _untyped(_: Message, metric: Metric) -> str:
    return "" if metric.datatype is None else "has a datatype"


def _uint32(_: Message, metric: Metric) -> str:
    return "" if metric.datatype is not None and 0 <= metric.datatype < 1 << 32 else "has a datatype that is no uint32"


def _timed(_: Message, metric: Metric) -> str:
    return "" if metric.timestamp is not None else "has no timestamp"


def _timed_legally(_: Message, metric: Metric) -> str:
    stamp = metric.timestamp
    return "" if stamp is not None and EARLIEST_MS <= stamp < LATEST_MS else f"has the timestamp {stamp}"


def _alias_unique(facts: Facts) -> Iterator[str]:
    """One alias for one metric of one Device, over all births of a session, and the same one for as long."""
    for session in facts.sessions:
        owners: dict[int, tuple[str, str | None]] = {}
        aliases: dict[tuple[str, str | None], int] = {}
        for message in session.of(*BIRTHS):
            for metric in message.payload.metrics if message.payload else ():
                if metric.alias is not None:
                    owner = (message.device, metric.name)
                    is_same = owners.setdefault(metric.alias, owner) == owner
                    is_same = aliases.setdefault(owner, metric.alias) == metric.alias and is_same
                    yield "" if is_same else f"{message.describe()}: alias {metric.alias} of {owner}"


def _names_differ(message: Message) -> str:
    names = [metric.name.lower() for metric in (message.payload.metrics if message.payload else ()) if metric.name]
    return "" if len(set(names)) == len(names) else f"{message.describe()} has a name twice, or in another case"


# ── properties ─────────────────────────────────────────────────────────────────────────────────


def _of_properties(*verbs: str, judge: Callable[[Property], bool]) -> Rule:
    def judge_all(_: Message, metric: Metric) -> str:
        wrong = [key for key, value in zip(metric.keys, metric.properties, strict=False) if not judge(value)]
        return f"has the property {wrong[0]} with a wrong type" if wrong else ""

    return _with_properties(*verbs, judge=judge_all)


def _with_properties(*verbs: str, judge: Callable[[Message, Metric], str], key: str | None = None) -> Rule:
    def find(facts: Facts) -> Iterator[str]:
        for message in facts.of(*verbs):
            for metric in message.payload.metrics if message.payload else ():
                if (metric.keys or metric.properties) and (key is None or key in metric.keys):
                    wrong = judge(message, metric)
                    yield f"{message.describe()}: {metric.name or metric.alias} {wrong}" if wrong else ""

    return findings(find, "no such property")


def _as_many(_: Message, metric: Metric) -> str:
    counts = len(metric.keys), len(metric.properties)
    return "" if counts[0] == counts[1] else f"has {counts[0]} keys and {counts[1]} values"


def _quality_typed(_: Message, metric: Metric) -> str:
    quality = metric.property("Quality")
    return "" if quality and quality.type == INT32 else "has a Quality that is no Int32"


def _quality_known(_: Message, metric: Metric) -> str:
    quality = metric.property("Quality")
    is_known = quality is not None and quality.field == "int" and quality.value in QUALITIES
    return "" if is_known else "has a Quality that is none of 0, 192, 500"


# ── the node's two metrics ─────────────────────────────────────────────────────────────────────


def _has_bd_seq(message: Message) -> str:
    metric = message.payload.metric("bdSeq") if message.payload else None
    is_right = metric is not None and metric.datatype == INT64 and metric.field == "long"
    return "" if is_right else f"{message.describe()} has no bdSeq of the type Int64"


def _bd_seq_of_will(facts: Facts) -> Iterator[str]:
    for session in facts.sessions:
        for message in session.births:
            same = bd_seq(message) == session.will_bd_seq is not None
            wrong = f"{message.describe()} has bdSeq {bd_seq(message)}, its will {session.will_bd_seq}"
            yield _has_bd_seq(message) or ("" if same else wrong)


def _rebirth(judge: Callable[[Metric], bool], text: str) -> Rule:
    def of(message: Message) -> str:
        metric = message.payload.metric(REBIRTH) if message.payload else None
        return "" if metric is not None and judge(metric) else f"{message.describe()}: {REBIRTH} {text}"

    return _messages("NBIRTH", judge=of)


def _commands_seen(facts: Facts) -> Judgement:
    commands = [message for session in facts.sessions for message in session.received if message.verb == "NCMD"]
    return PASS if commands else Judgement("not seen", "no NCMD")


_NODE, _DEVICE = "message-flow-edge-node-birth-publish-nbirth-", "message-flow-device-birth-publish-dbirth-"
_COMMANDS = "operational-behavior-data-commands-rebirth-"
_IS_BOOLEAN = _rebirth(lambda metric: metric.datatype == BOOLEAN, "is no Boolean")
_IS_FALSE = _rebirth(lambda metric: metric.datatype == BOOLEAN and metric.value is False, "is not false")
_BD_SEQ = findings(_bd_seq_of_will, "no NBIRTH")

RULES: dict[str, Rule] = {
    **{f"topics-{verb.lower()}-mqtt": _mqtt(verb) for verb in COUNTED},
    **{f"payloads-{verb.lower()}-qos": _qos(verb) for verb in COUNTED if verb != "DDEATH"},
    **{f"payloads-{verb.lower()}-retain": _retain(verb) for verb in COUNTED if verb != "DDEATH"},
    **{f"payloads-{verb.lower()}-timestamp": _messages(verb, judge=_has_time) for verb in COUNTED},
    **{f"topics-{verb.lower()}-timestamp": _messages(verb, judge=_has_time) for verb in (*BIRTHS, *DATA)},
    **{f"payloads-{verb.lower()}-seq": _messages(verb, judge=_has_seq) for verb in COUNTED},
    "payloads-ddeath-seq-number": _messages("DDEATH", judge=_has_seq),
    "payloads-sequence-num-always-included": _messages(*COUNTED, judge=_has_seq),
    "payloads-sequence-num-req-nbirth": _messages("NBIRTH", judge=_has_seq),
    "payloads-timestamp-in-UTC": _messages(*COUNTED, judge=_has_time),
    f"{_NODE}payload": _readable("NBIRTH"),
    f"{_NODE}payload-bdSeq": _BD_SEQ,
    f"{_NODE}payload-seq": _messages("NBIRTH", judge=_has_seq),
    f"{_NODE}qos": _qos("NBIRTH"),
    f"{_NODE}retained": _retain("NBIRTH"),
    f"{_DEVICE}payload": _readable("DBIRTH"),
    f"{_DEVICE}qos": _qos("DBIRTH"),
    f"{_DEVICE}retained": _retain("DBIRTH"),
    "topics-nbirth-seq-num": _messages("NBIRTH", judge=_starts_at_0),
    "topics-nbirth-bdseq-included": _messages("NBIRTH", judge=_has_bd_seq),
    "topics-nbirth-bdseq-matching": _BD_SEQ,
    "payloads-nbirth-bdseq": _messages("NBIRTH", judge=_has_bd_seq),
    "payloads-nbirth-bdseq-repeat": _BD_SEQ,
    "topics-nbirth-rebirth-metric": _IS_FALSE,
    "payloads-nbirth-rebirth-req": _IS_FALSE,
    f"{_COMMANDS}datatype": _IS_BOOLEAN,
    f"{_COMMANDS}name": _rebirth(lambda _: True, "is not there"),
    f"{_COMMANDS}name-aliases": _rebirth(lambda metric: metric.alias is None, "has an alias"),
    f"{_COMMANDS}value": _IS_FALSE,
    "topics-nbirth-metrics": _of_metrics("NBIRTH", judge=_is_whole),
    "topics-dbirth-metrics": _of_metrics("DBIRTH", judge=_is_whole),
    "operational-behavior-data-publish-nbirth-values": _of_metrics("NBIRTH", judge=_value),
    "operational-behavior-data-publish-dbirth-values": _of_metrics("DBIRTH", judge=_value),
    "case-sensitivity-metric-names": _messages(*BIRTHS, judge=_names_differ),
    "payloads-name-requirement": _of_metrics(*BIRTHS, *DATA, judge=_named),
    "payloads-alias-birth-requirement": _of_metrics(*BIRTHS, judge=_named_and_aliased),
    "payloads-alias-data-cmd-requirement": _of_metrics(*DATA, judge=_aliased_alone),
    "payloads-alias-uniqueness": findings(_alias_unique, "no alias"),
    "payloads-metric-datatype-req": _of_metrics(*BIRTHS, judge=_typed),
    "payloads-metric-datatype-not-req": _of_metrics(*DATA, judge=_untyped),
    "payloads-metric-datatype-value": _of_metrics(*BIRTHS, judge=_typed_legally),
    "payloads-metric-datatype-value-type": _of_metrics(*BIRTHS, judge=_uint32),
    "payloads-name-birth-data-requirement": _of_metrics(*BIRTHS, *DATA, judge=_timed),
    "payloads-metric-timestamp-in-UTC": _of_metrics(*BIRTHS, *DATA, judge=_timed_legally),
    "payloads-name-cmd-requirement": _commands_seen,
    "payloads-metric-propertyvalue-type-req": _of_properties(*BIRTHS, judge=lambda value: value.type is not None),
    "payloads-metric-propertyvalue-type-type": _of_properties(
        *BIRTHS, judge=lambda value: value.type is not None and 0 <= value.type < 1 << 32
    ),
    "payloads-metric-propertyvalue-type-value": _of_properties(
        *BIRTHS,
        judge=lambda value: (
            value.type in PROPERTY_TYPES
            and (value.type not in BASIC_TYPES or value.is_null or value.field == FIELD_OF[value.type])
        ),
    ),
    "payloads-propertyset-keys-array-size": _with_properties(*BIRTHS, *DATA, judge=_as_many),
    "payloads-propertyset-values-array-size": _with_properties(*BIRTHS, *DATA, judge=_as_many),
    "payloads-propertyset-quality-value-type": _with_properties(*BIRTHS, *DATA, judge=_quality_typed, key="Quality"),
    "payloads-propertyset-quality-value-value": _with_properties(*BIRTHS, *DATA, judge=_quality_known, key="Quality"),
}
