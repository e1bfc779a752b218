"""The views for people who read with SQL: their columns with units, and the statements that make them. Pure.

Columns come from the fields of the calls that are configured, so a field that is mapped has a column. A view reads
JSON when somebody asks; nothing is written for it. Everything here is what docs/sql.md tells of SQLite.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from oneweb_bridge.decode.catalogue import Call, Field
from oneweb_bridge.decode.records import KEYS
from oneweb_bridge.decode.values import INTEGER_SUFFIXES
from oneweb_bridge.model.records import RecordKind

ColumnType = Literal["text", "time", "integer", "real", "boolean", "json"]
MAX_ARGUMENTS = 60
"""Arguments of one call of json_remove: SQLite may be compiled for no more than 100."""
SAMPLE_ROWS = "what IN ('metric', 'history') AND name <> 'presence'"
"""Rows that have a sample of a report."""
EVENT_ROWS = "what IN ('added', 'changed', 'removed', 'components')"
"""In the words of the index `journal_events`: SQLite uses a partial index for the same words alone."""


class Column(msgspec.Struct, frozen=True):
    """A column of a view: `sql` is what it selects."""

    name: str
    type: ColumnType
    sql: str
    unit: str = ""


def view_columns(calls: Mapping[str, Call]) -> dict[str, tuple[Column, ...]]:
    """View -> its columns, in their order."""
    return {
        "terminals": _record_columns(calls["user_terminals"], "terminal"),
        "products": _record_columns(calls["products"], "product"),
        "usage": (*_record_columns(calls["usage_consumption"], "usage"), *_TIME_OF_DOCUMENT),
        "samples": _sample_columns([call for call in calls.values() if call.reads == "report"]),
        "events": _EVENTS,
        "hourly": _HOURLY,
    }


def view_statements(calls: Mapping[str, Call]) -> dict[str, str]:
    """View -> the statement that makes it, byte for byte as SQLite keeps it."""
    return {
        name: f"CREATE VIEW {name} AS {' UNION ALL '.join(_selects(name, columns))}"
        for name, columns in view_columns(calls).items()
    }


def _selects(name: str, columns: Sequence[Column]) -> Iterable[str]:
    """One query, or one for terminals and one for products: only so does the index of the journal find an id."""
    if name not in ("samples", "hourly"):
        yield f"SELECT {_select(columns)} {_SOURCES[name]}"
        return
    for entity, other_key in (("terminal", "product_id"), ("product", "imei")):
        own = (replace(column, sql="NULL") if column.name == other_key else column for column in columns)
        yield f"SELECT {_select(own)} {_SOURCES[name].format(entity=entity)}"


def _select(columns: Iterable[Column]) -> str:
    return ", ".join(f'{column.sql} AS "{column.name}"' for column in columns)


# ── records ────────────────────────────────────────────────────────────────────────────────────


def _record_columns(call: Call, kind: RecordKind) -> tuple[Column, ...]:
    key = Column(KEYS[kind], "text", "id")
    return _unique([key, *_field_columns(call.fields, "doc")])


def _field_columns(fields: Iterable[Field], document: str) -> Iterable[Column]:
    """The columns of flat fields, each with the flag that says that it is unlimited."""
    for field in fields:
        yield Column(field.name, _type_of(field), _member(document, field.name), field.unit)
        if field.unlimited:
            yield Column(field.unlimited, "boolean", _member(document, field.unlimited))


def _type_of(field: Field) -> ColumnType:
    match field.type:
        case "number":
            return "integer" if field.name.endswith(INTEGER_SUFFIXES) else "real"
        case "bool":
            return "boolean"
        case "time":
            return "time"
        case "words" | "set":
            return "json"
        case _:
            return "text"


def _member(document: str, name: str) -> str:
    return f"json_extract({document}, '$.{name}')"


def _unique(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Columns without those of a name that stood before."""
    unique: dict[str, Column] = {}
    for column in columns:
        unique.setdefault(column.name, column)
    return tuple(unique.values())


_TIME_OF_DOCUMENT = (
    Column("time", "time", _member("doc", "time")),
    Column("ts", "integer", _member("doc", "ts"), "ms"),
)

# ── samples ────────────────────────────────────────────────────────────────────────────────────

_BODY = "CAST(body AS TEXT)"


def _sample_columns(reports: Sequence[Call]) -> tuple[Column, ...]:
    """Whose sample, of which report and when, every field of all reports, and what else the sample has."""
    fields = [field for call in reports for field in call.fields]
    known = _unique(
        (
            Column("imei", "text", "id"),
            Column("product_id", "text", "id"),
            Column("report", "text", "name"),
            Column("time", "time", _member(_BODY, "time")),
            Column("ts", "integer", "ts", "ms"),
            Column("corrected", "boolean", f"coalesce({_member(_BODY, 'corrected')}, 0)"),
            Column("product_name", "text", _member(_BODY, "product_name")),
            *(column for column in _field_columns(fields, _BODY) if column.name != "other"),
        )
    )
    return (*known, Column("other", "json", _without([column.name for column in known])))


def _without(names: Sequence[str]) -> str:
    """The document without some members; NULL where nothing is left."""
    rest = _BODY
    for start in range(0, len(names), MAX_ARGUMENTS):
        paths = ", ".join(f"'$.{name}'" for name in names[start : start + MAX_ARGUMENTS])
        rest = f"json_remove({rest}, {paths})"
    return f"nullif({rest}, '{{}}')"


_IS_LAST_SAMPLE = f"""WHERE sample.entity = '{{entity}}' AND {SAMPLE_ROWS} AND NOT EXISTS (
SELECT 1 FROM journal AS later WHERE later.id = sample.id AND later.ts = sample.ts AND later.seq > sample.seq
AND later.name = sample.name AND later.entity = sample.entity AND later.what IN ('metric', 'history'))"""
"""A sample whose values changed has a row for each of them; the last one counts. Found by the index of (id, ts)."""

# ── events ─────────────────────────────────────────────────────────────────────────────────────

_JOURNAL_ID = """coalesce((SELECT json_extract(former.value, '$[0]')
FROM meta, json_each(meta.value) AS former WHERE meta.name = 'earlier' AND json_extract(former.value, '$[1]') >= seq
ORDER BY json_extract(former.value, '$[1]') LIMIT 1), (SELECT value FROM meta WHERE name = 'journal'))"""
"""The id that the journal had when the row was written: the first part of an event's id."""

_EVENTS = (
    Column("id", "text", f"{_JOURNAL_ID} || ':' || seq"),
    Column("seq", "integer", "seq"),
    Column("time", "time", "strftime('%Y-%m-%dT%H:%M:%S', ts / 1000, 'unixepoch') || printf('.%03dZ', ts % 1000)"),
    Column("ts", "integer", "ts", "ms"),
    Column("entity", "text", "entity"),
    Column("key", "text", "id"),
    Column("verb", "text", "iif(what = 'components', 'changed', what)"),
    Column("changed", "json", _member(_BODY, "changed")),
    Column("record", "json", _member(_BODY, "record")),
    Column("initial", "boolean", _member(_BODY, "initial")),
)

# ── hours ──────────────────────────────────────────────────────────────────────────────────────

_HOUR_MS = 3_600_000
_HOURLY = (
    Column("imei", "text", "sample.id"),
    Column("product_id", "text", "sample.id"),
    Column("report", "text", "sample.name"),
    Column("field", "text", "field.key"),
    Column(
        "time",
        "time",
        f"strftime('%Y-%m-%dT%H:%M:%S.000Z', sample.ts / {_HOUR_MS} * {_HOUR_MS // 1000}, 'unixepoch')",
    ),
    Column("min", "real", "min(field.value)"),
    Column("mean", "real", "avg(field.value)"),
    Column("max", "real", "max(field.value)"),
    Column("count", "integer", "count(*)"),
)
_HOURS = f"""FROM journal AS sample, json_each(CAST(sample.body AS TEXT)) AS field {_IS_LAST_SAMPLE}
AND field.type IN ('integer', 'real') AND field.key <> 'ts'
GROUP BY sample.id, sample.name, field.key, sample.ts / {_HOUR_MS}"""

_SOURCES: dict[str, str] = {
    "terminals": "FROM record WHERE kind = 'terminal'",
    "products": "FROM record WHERE kind = 'product'",
    "usage": "FROM record WHERE kind = 'usage'",
    "samples": f"FROM journal AS sample {_IS_LAST_SAMPLE}",
    "events": f"FROM journal WHERE {EVENT_ROWS} AND (what <> 'components' OR {_member(_BODY, 'changed')} IS NOT NULL)",
    "hourly": _HOURS,
}
VIEWS = tuple(_SOURCES)
"""The names of the views."""
