"""Value types that the packages hand each other. Pure.

A *record* is the current flat view of one entity, a *sample* one measurement, an *entry* what will be
appended to the journal, and a *row* what stands there. A *message* is what is published over MQTT.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import msgspec

Value = str | int | float | bool | list[str]
Fields = dict[str, Value]
"""A flat record: snake_case names, no nulls; an unknown value is absent."""

RecordKind = Literal[
    "terminal", "components", "product", "organization", "site", "usage", "forecast", "relations", "call"
]
"""Kinds of stored records; `usage`, `forecast`, `relations` and `call` cause no events."""

RowType = Literal[
    "added", "changed", "removed", "components", "state", "metric", "history", "usage", "forecast", "clear", "alert"
]
"""What a journal row is about; `topics.messages_of_row` makes its messages."""

FormerJournalIds = tuple[tuple[str, int], ...]
"""The ids that a journal had before the present one, each with the last row that carries it."""

Status = Literal["waiting", "polling", "ok", "incomplete", "failed", "disabled", "unauthorized", "rate_limited", "held"]


class DecodedRecord(msgspec.Struct, frozen=True, gc=False):
    """One record as the API listed it. `unparseable` names the fields that no parser reads, `reasons` says why."""

    kind: RecordKind
    id: str
    fields: Fields
    unparseable: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One measurement; `ts` is the report's own time in ms since the epoch, or None when it has none."""

    report: str
    id: str
    ts: int | None
    values: Fields
    labels: Fields = {}


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A row before it is appended to the journal.

    `entity` and `id` name the topic's owner, `name` the report, bucket or call, `ts` the time in ms
    by which history is read, and `body` is JSON whose form depends on `what`.
    """

    entity: str
    id: str
    what: RowType
    name: str
    ts: int
    body: bytes


class Row(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An entry with its number in the journal. `at` is when it was written, in steady ms (see clock.py)."""

    seq: int
    at: int
    entity: str
    id: str
    what: RowType
    name: str
    ts: int
    body: bytes


class Message(msgspec.Struct, frozen=True, gc=False):
    """One MQTT message, QoS 1. `topic` is complete; an empty payload on a retained topic clears it.

    `correlation` is that of the request which this message answers. Bytes that are no text have no content type.
    """

    topic: str
    payload: bytes
    retain: bool
    content_type: str = "application/json"
    correlation: bytes | None = None


class Waiting(msgspec.Struct, frozen=True):
    """A class of topics that waits: everything of it behind row `seq` is still to come, about `count` messages."""

    seq: int
    count: int = 0


class Positions(msgspec.Struct, frozen=True):
    """How far an output is: its cursor, and the classes of topics of which more waits than what is behind it."""

    cursor: int
    waiting: dict[str, Waiting] = {}


class Debt(msgspec.Struct, frozen=True):
    """A retained topic that is not right on the broker. `id` and `name` are of the row that was set aside there."""

    topic: str
    id: str
    name: str
    tries: int = 0


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """One record as stored. `doc` is the last published record as JSON."""

    doc: bytes
    hash: bytes = b""


class RecordWrite(msgspec.Struct, frozen=True, gc=False):
    """A record to store. `entry` is the index, in the same batch, of the journal entry that publishes it."""

    kind: RecordKind
    id: str
    doc: bytes
    hash: bytes = b""
    entry: int | None = None


class NewestSampleWrite(msgspec.Struct, frozen=True, gc=False):
    """The newest sample of a report and id to store, with its payload and the index of the entry that retains it.

    Without both it is of an id that is gone and has no topic. `value_types` has the name of each value with its type: a
    number, a text or a bool.
    """

    entity: str
    report: str
    id: str
    ts: int
    hash: int
    doc: bytes = b""
    entry: int | None = None
    value_types: str = ""


class SeenSample(msgspec.Struct, frozen=True, gc=False):
    """A sample that was published."""

    entity: str
    report: str
    id: str
    ts: int
    hash: int


class UsageDaysWrite(msgspec.Struct, frozen=True, gc=False):
    """What is kept of the use of a bucket or a pool to store, as JSON; empty: nothing is kept of it any more."""

    kind: str
    id: str
    body: bytes = b""


class Batch(msgspec.Struct, kw_only=True):
    """Everything that one transaction writes: the records and the journal entries about them, or neither."""

    entries: list[Entry] = []
    writes: list[RecordWrite] = []
    unchanged: list[tuple[bytes, RecordKind, str]] = []
    presence: list[tuple[str, int]] = []
    removed: list[tuple[RecordKind, str]] = []
    newest: list[NewestSampleWrite] = []
    seen: list[SeenSample] = []
    product_links: list[tuple[str, str, tuple[tuple[str, str], ...]]] = []
    stale_relations: list[str] = []
    all_stale: bool = False
    relations_done: list[str] = []
    usage_days: list[UsageDaysWrite] = []
    dirty_devices: list[tuple[str, str]] = []
    """Terminals and products whose reports have other values than before, so that discovery must compare them."""
    facts: list[tuple[str, str]] = []
    """Names and values of what is remembered besides, such as which alerts hold."""

    def extend(self, other: "Batch") -> None:
        """Appends another batch: its entries behind the own ones, and what refers to them moved with them."""
        offset = len(self.entries)
        self.entries.extend(other.entries)
        self.writes.extend(_shift_entries(other.writes, offset))
        self.newest.extend(_shift_entries(other.newest, offset))
        for name in _APPENDED:
            getattr(self, name).extend(getattr(other, name))
        self.all_stale = self.all_stale or other.all_stale


_APPENDED = (
    "unchanged",
    "presence",
    "removed",
    "seen",
    "product_links",
    "stale_relations",
    "relations_done",
    "usage_days",
    "dirty_devices",
    "facts",
)
"""Members of a batch that refer to no entry."""

_Published = TypeVar("_Published", RecordWrite, NewestSampleWrite)


def _shift_entries(writes: Iterable[_Published], offset: int) -> list[_Published]:
    """Writes that name their entry by its index, after the entries moved by `offset`."""
    return [p if p.entry is None else msgspec.structs.replace(p, entry=p.entry + offset) for p in writes]


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something an operator should look at. `call` is None when it concerns the bridge itself.

    Alerts of one kind with different `about` are each published.
    """

    kind: str
    message: str
    call: str | None = None
    about: str = ""


Json = Mapping[str, Any]


class KnownSamples(msgspec.Struct, gc=False):
    """What is known of one id's samples: the newest (`ts` -1: none), and the hashes by time of what may come again."""

    ts: int = -1
    hash: int = 0
    seen: dict[int, int] = {}


class OnlineTerminal(msgspec.Struct, frozen=True, gc=False):
    """A terminal that is online: the time of its newest sample of a report, and of the one before (-1: none).

    `event_at` is the time of its record's last event, in ms.
    """

    id: str
    newest: int
    before: int = -1
    event_at: int = 0
