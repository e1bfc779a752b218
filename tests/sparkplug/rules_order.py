"""The statements on what follows on what: seq, births before data, rebirths, changes, the order of times. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from tests.sparkplug.facts import BIRTHS, COUNTED, DATA, Facts, Message, Session, bd_seq
from tests.sparkplug.judgement import Rule, findings
from tests.sparkplug.reader import Metric
from tests.sparkplug.wire import Other

GRACE_S = 1.0
"""What the Edge Node sent before it read a request may come so many seconds after it has."""
PUBACK = Other(4)
COMMAND_METRICS = ("Enabled", "Interval", "Poll Now")
"""The last words of node metrics whose answer to a write may be an unchanged value."""


def _seq_follows(*verbs: str) -> Rule:
    def find(facts: Facts) -> Iterator[str]:
        for session in facts.sessions:
            before = None
            for message in session.of(*COUNTED):
                seq = message.payload.seq if message.payload else None
                wanted = 0 if message.verb == "NBIRTH" else None if before is None else (before + 1) % 256
                if message.verb in verbs:
                    yield "" if seq == wanted is not None else f"{message.describe()} has seq {seq} after {before}"
                before = seq

    return findings(find, f"no {' or '.join(verbs)}")


class _Births(msgspec.Struct):
    """Who is born in a session after its last NBIRTH, and who must be born before any data."""

    due: set[str]
    born: dict[str, dict[int, Metric]] = {}
    """Device (empty for the node) -> alias -> metric of the last birth."""

    def take(self, message: Message) -> None:
        """Follows a birth or a death."""
        metrics = message.payload.metrics if message.payload else ()
        aliases = {metric.alias: metric for metric in metrics if metric.alias is not None}
        if message.verb == "NBIRTH":
            self.due |= self.born.keys() - {""}
            self.born = {"": aliases}
        elif message.verb == "DBIRTH":
            self.born[message.device] = aliases
            self.due.discard(message.device)
        elif message.verb == "DDEATH":
            self.born.pop(message.device, None)
            self.due.discard(message.device)

    def named(self, message: Message, metric: Metric) -> Metric | None:
        """The metric of the birth that a metric of data is, or itself where it has a name."""
        return metric if metric.name else self.born.get(message.device, {}).get(metric.alias or 0)

    def left(self) -> set[str]:
        """Who a later session must give birth to again."""
        return (self.born.keys() | self.due) - {""}


def _walk(facts: Facts) -> Iterator[tuple[Message, _Births]]:
    """Each message with the births before it. What was born in the session before is due in the next one."""
    left_notes = facts.notes("left")
    for sessions in facts.nodes.values():
        births = _Births(set())
        for session in sessions:
            births = _Births(births.left())
            for message in session.of(*COUNTED):
                births.due -= {note.device for index, note in left_notes if index < message.index}
                yield message, births
                births.take(message)


def _births_before(*verbs: str) -> Rule:
    """Before data: the node's birth, that of its Device, and those of all Devices that were there before."""

    def find(facts: Facts) -> Iterator[str]:
        for message, births in _walk(facts):
            if message.verb in verbs:
                is_born = "" in births.born and message.device in births.born
                if not is_born:
                    yield f"{message.describe()} before its birth"
                else:
                    yield f"{message.describe()} before DBIRTH of {min(births.due)}" if births.due else ""

    return findings(find, f"no {' or '.join(verbs)}")


def _metrics_born(verb: str) -> Rule:
    """Every metric of data is in the last birth of its node or Device."""

    def find(facts: Facts) -> Iterator[str]:
        for message, births in _walk(facts):
            if message.verb == verb and message.payload:
                born = births.born.get(message.device, {})
                unknown = [metric.alias for metric in message.payload.metrics if metric.alias not in born]
                yield f"{message.describe()}: alias {unknown[0]} is in no birth" if unknown else ""

    return findings(find, f"no {verb}")


# ── rebirth ────────────────────────────────────────────────────────────────────────────────────


def _requests(facts: Facts) -> Iterator[tuple[Session, Message, list[Message]]]:
    """Each request of a rebirth while born, and what the Edge Node sent after it in the session."""
    for session in facts.sessions:
        for request in session.rebirth_requests:
            if session.births and session.births[0].index < request.index:
                yield session, request, [message for message in session.sent if message.index > request.index]


def _read_at(session: Session, request: Message) -> float:
    """When the Edge Node had read a request: with its PUBACK, where the trace has one."""
    return next((e.at for i, e in session.events if i > request.index and e.up and e.packet == PUBACK), request.at)


def _stops_data(facts: Facts) -> Iterator[str]:
    for session, request, later in _requests(facts):
        before_birth = later[: next((i for i, m in enumerate(later) if m.verb == "NBIRTH"), len(later))]
        late = [m for m in before_birth if m.verb in DATA and m.at - _read_at(session, request) > GRACE_S]
        yield f"{late[0].describe()} between a request and its rebirth" if late else ""


def _is_born_again(facts: Facts) -> Iterator[str]:
    """NBIRTH, then each Device that was born, before anything else; a session that ends meanwhile owes nothing."""
    for session, request, later in _requests(facts):
        verbs = [message.verb for message in later]
        if "NBIRTH" not in verbs:
            is_silent = all(m.verb == "NDEATH" or m.at - _read_at(session, request) < GRACE_S for m in later)
            yield "" if session.closed_index is not None and is_silent else f"no NBIRTH after {request.describe()}"
            continue
        at = verbs.index("NBIRTH")
        births = _Births(set())
        for message in session.sent:
            if message.index < later[at].index:
                births.take(message)
        end = next((i for i in range(at + 1, len(verbs)) if verbs[i] in (*DATA, "NBIRTH", "NDEATH")), None)
        born = {message.device for message in later[at:end] if message.verb in ("DBIRTH", "DDEATH")}
        missing = births.born.keys() - {""} - born
        owes = missing and (end is not None or session.closed_index is None)
        yield f"no DBIRTH of {min(missing)} after {later[at].describe()}" if owes else ""


def _keeps_bd_seq(facts: Facts) -> Iterator[str]:
    for session, _, later in _requests(facts):
        for message in [entry for entry in later if entry.verb == "NBIRTH"][:1]:
            is_same = bd_seq(message) == session.will_bd_seq
            yield "" if is_same else f"{message.describe()} has another bdSeq than its will"


# ── changes ────────────────────────────────────────────────────────────────────────────────────


def _content(metric: Metric, *, with_time: bool) -> tuple[Any, ...]:
    quality = metric.property("Quality")
    value = None if metric.is_null else metric.value
    return (value, quality.value if quality else None, metric.timestamp if with_time and value is not None else None)


def _only_changes(*verbs: str) -> Rule:
    """No live metric says what was said last: a later sample of a Device is a change too, as each goes out."""

    def find(facts: Facts) -> Iterator[str]:
        for session in facts.sessions:
            last: dict[int, tuple[Any, ...]] = {}
            written = _written(session)
            for message in session.of(*BIRTHS, *verbs):
                for metric in message.payload.metrics if message.payload else ():
                    if metric.is_historical or metric.alias is None:
                        continue
                    content = _content(metric, with_time=bool(message.device))
                    is_repeat = last.get(metric.alias) == content and metric.alias not in written
                    last[metric.alias] = content
                    if message.verb in verbs:
                        yield f"{message.describe()}: alias {metric.alias} again" if is_repeat else ""

    return findings(find, f"no {' or '.join(verbs)}")


def _written(session: Session) -> set[int | None]:
    """The aliases that answer writes, when any host wrote: their value may come again unchanged."""
    if not any(message.verb == "NCMD" for message in session.received):
        return set()
    return {
        metric.alias
        for birth in session.births
        for metric in (birth.payload.metrics if birth.payload else ())
        if (metric.name or "").rpartition("/")[2] in COMMAND_METRICS
    }


def _changes_come(verb: str) -> Rule:
    """What a scenario changed comes in data or a birth after it."""

    def find(facts: Facts) -> Iterator[str]:
        notes = [(index, note) for index, note in facts.notes("changed") if bool(note.device) == (verb == "DDATA")]
        by_name = live_values(facts) if notes else {}
        for index, note in notes:
            came = any(at > index and value == note.value for at, value in by_name.get((note.device, note.metric), ()))
            yield "" if came else f"{note.device} {note.metric} did not become {note.value}"

    return findings(find, "a scenario changed nothing of the kind")


def live_values(facts: Facts) -> dict[tuple[str, str | None], list[tuple[int, Any]]]:
    """Device and name -> place and value of each live one."""
    by_name: dict[tuple[str, str | None], list[tuple[int, Any]]] = {}
    for message, births in _walk(facts):
        for metric in message.payload.metrics if message.payload else ():
            known = births.named(message, metric)
            if known is not None and not metric.is_historical:
                value = metric.meaning(known.datatype)
                by_name.setdefault((message.device, known.name), []).append((message.index, value))
    return by_name


# ── times ──────────────────────────────────────────────────────────────────────────────────────


def _times_rise(metrics: Iterable[Metric]) -> bool:
    stamps = [metric.timestamp or 0 for metric in metrics]
    return stamps == sorted(stamps)


def _in_order(*verbs: str) -> Rule:
    """In a payload live metrics stand in the order of their times, and so do historical ones.

    A live value is never older than the last live one of its metric, and no live one stands beside history.
    """

    def find(facts: Facts) -> Iterator[str]:
        last: dict[tuple[tuple[str, str], str, str | None], int] = {}
        for message, births in _walk(facts):
            if message.verb not in verbs or message.payload is None:
                continue
            metrics = message.payload.metrics
            live = [metric for metric in metrics if not metric.is_historical]
            history = [metric for metric in metrics if metric.is_historical]
            if not (_times_rise(live) and _times_rise(history)):
                yield f"{message.describe()}: its metrics are not in the order of their times"
            for metric in live:
                known = births.named(message, metric)
                if known is None or metric.is_null or metric.timestamp is None:
                    continue
                key = (message.node, message.device, known.name)
                is_back = metric.timestamp < last.get(key, 0)
                last[key] = max(metric.timestamp, last.get(key, 0))
                yield f"{message.describe()}: {known.name} went back to {metric.timestamp}" if is_back else ""

    return findings(find)


_NODE, _DEVICE = "operational-behavior-data-publish-nbirth", "operational-behavior-data-publish-dbirth"
_COMMANDS = "operational-behavior-data-commands-rebirth-action"

RULES: dict[str, Rule] = {
    "message-flow-device-birth-publish-dbirth-payload-seq": _seq_follows("DBIRTH"),
    "topics-dbirth-seq": _seq_follows("DBIRTH"),
    "topics-ndata-seq-num": _seq_follows("NDATA"),
    "topics-ddata-seq-num": _seq_follows("DDATA"),
    "topics-ddeath-seq-num": _seq_follows("DDEATH"),
    "payloads-dbirth-seq-inc": _seq_follows("DBIRTH"),
    "payloads-ndata-seq-inc": _seq_follows("NDATA"),
    "payloads-ddata-seq-inc": _seq_follows("DDATA"),
    "payloads-ddeath-seq-inc": _seq_follows("DDEATH"),
    "payloads-sequence-num-incrementing": _seq_follows("DBIRTH", "NDATA", "DDATA", "DDEATH"),
    "payloads-dbirth-order": _births_before(*DATA),
    "payloads-ndata-order": _births_before("NDATA"),
    "payloads-ddata-order": _births_before("DDATA"),
    "topics-nbirth-metric-reqs": _metrics_born("NDATA"),
    "topics-dbirth-metric-reqs": _metrics_born("DDATA"),
    _NODE: _metrics_born("NDATA"),
    _DEVICE: _metrics_born("DDATA"),
    f"{_COMMANDS}-1": findings(_stops_data, "no rebirth was asked for"),
    f"{_COMMANDS}-2": findings(_is_born_again, "no rebirth was asked for"),
    f"{_COMMANDS}-3": findings(_keeps_bd_seq, "no rebirth was asked for"),
    "principles-rbe-recommended": _only_changes(*DATA),
    f"{_NODE}-change": _only_changes("NDATA"),
    f"{_DEVICE}-change": _only_changes("DDATA"),
    f"{_NODE}-order": _in_order("NBIRTH", "NDATA"),
    f"{_DEVICE}-order": _in_order("DBIRTH", "DDATA"),
    "topics-ndata-payload": _changes_come("NDATA"),
    "topics-ddata-payload": _changes_come("DDATA"),
}
