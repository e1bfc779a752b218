"""The views for people who read with SQL: their columns with units, and the statements that make them. Pure.

Columns come from the fields of the calls that are configured, so a field that is mapped has a column. A view reads
JSON when somebody asks; nothing is written for it. Each view is written once; `view_dialects` has what differs between
the engines. Everything here is what docs/sql.md tells.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from oneweb_bridge.decode.catalogue import Call, Field
from oneweb_bridge.decode.records import KEYS
from oneweb_bridge.decode.values import INTEGER_SUFFIXES
from oneweb_bridge.model.records import RecordKind
from oneweb_bridge.store.view_dialects import SQLITE, ColumnType, ViewDialect

SAMPLE_ROWS = "what IN ('metric', 'history') AND name <> 'presence'"
"""Rows that have a sample of a report."""
EVENT_ROWS = "what IN ('added', 'changed', 'removed', 'components')"
"""In the words of the index `journal_events`: SQLite uses a partial index for the same words alone."""
_KINDS: dict[str, RecordKind] = {"terminals": "terminal", "products": "product", "usage": "usage"}
"""The views of records."""
VIEWS = (*_KINDS, "samples", "events", "hourly")
"""The names of the views."""


class FieldColumn(msgspec.Struct, frozen=True, array_like=True):
    """A column that comes from a field of a call."""

    name: str
    type: ColumnType
    unit: str = ""


ViewFields = Mapping[str, tuple[FieldColumn, ...]]
"""View -> the columns that come from the fields of its calls."""


class Column(msgspec.Struct, frozen=True):
    """A column of a view: `sql` is what it selects."""

    name: str
    type: ColumnType
    sql: str
    unit: str = ""


def view_columns(calls: Mapping[str, Call]) -> dict[str, tuple[Column, ...]]:
    """View -> its columns in SQLite, in their order."""
    return columns_of(view_fields(calls), SQLITE)


def view_statements(calls: Mapping[str, Call]) -> dict[str, str]:
    """View -> the statement that makes it in SQLite, byte for byte as SQLite keeps it."""
    return {name: f"CREATE VIEW {name} AS {query}" for name, query in view_queries(view_fields(calls), SQLITE).items()}


def view_queries(fields: ViewFields, dialect: ViewDialect) -> dict[str, str]:
    """View -> the query that it stands for."""
    return {
        name: " UNION ALL ".join(_selects(name, columns, dialect))
        for name, columns in columns_of(fields, dialect).items()
    }


def columns_of(fields: ViewFields, dialect: ViewDialect) -> dict[str, tuple[Column, ...]]:
    """View -> its columns, in their order."""
    columns = {name: _record_columns(fields[name], kind, dialect) for name, kind in _KINDS.items()}
    return {
        **{name: (*_instance(name, dialect), *own) for name, own in columns.items()},
        "samples": (*_instance("samples", dialect), *_sample_columns(fields["samples"], dialect)),
        "events": (*_instance("events", dialect), *_event_columns(dialect)),
        "hourly": (*_instance("hourly", dialect), *_hour_columns(dialect)),
    }


_ROWS = {**dict.fromkeys(_KINDS, "record"), "samples": "sample", "events": "journal", "hourly": "sample"}
"""View -> the table, or its alias, that has a row for each of its rows."""


def _instance(view: str, dialect: ViewDialect) -> tuple[Column, ...]:
    return (Column("instance", "text", f"{_ROWS[view]}.instance"),) if dialect.has_instances else ()


def _selects(name: str, columns: Sequence[Column], dialect: ViewDialect) -> Iterable[str]:
    """One query, or one for terminals and one for products: only so does the index of the journal find an id."""
    source = _source(name, dialect)
    if name not in ("samples", "hourly"):
        yield f"SELECT {_select(columns, dialect)} {source}"
        return
    for entity, other_key in (("terminal", "product_id"), ("product", "imei")):
        own = (replace(column, sql="NULL") if column.name == other_key else column for column in columns)
        yield f"SELECT {_select(own, dialect)} {source.format(entity=entity)}"


def _select(columns: Iterable[Column], dialect: ViewDialect) -> str:
    unique = {dialect.column_name(column.name): column.sql for column in columns}
    return ", ".join(f'{sql} AS "{name}"' for name, sql in unique.items())


# ── fields ─────────────────────────────────────────────────────────────────────────────────────


def view_fields(calls: Mapping[str, Call]) -> dict[str, tuple[FieldColumn, ...]]:
    """The columns that come from the fields of these calls; those of all reports are columns of `samples`."""
    reports = [field for call in calls.values() if call.reads == "report" for field in call.fields]
    return {
        "terminals": _unique(_field_columns(calls["user_terminals"].fields)),
        "products": _unique(_field_columns(calls["products"].fields)),
        "usage": _unique(_field_columns(calls["usage_consumption"].fields)),
        "samples": _unique(column for column in _field_columns(reports) if column.name != "other"),
    }


def merge_fields(all_fields: Sequence[ViewFields]) -> dict[str, tuple[FieldColumn, ...]]:
    """The columns of views over several instances: each name once. Where types differ, the column is a text."""
    merged: dict[str, dict[str, FieldColumn]] = {}
    for fields in all_fields:
        for view, columns in fields.items():
            known = merged.setdefault(view, {})
            for column in columns:
                before = known.setdefault(column.name, column)
                if before.type != column.type:
                    known[column.name] = FieldColumn(column.name, "text")
    return {view: tuple(columns.values()) for view, columns in merged.items()}


def _field_columns(fields: Iterable[Field]) -> Iterable[FieldColumn]:
    """The columns of flat fields, each with the flag that says that it is unlimited."""
    for field in fields:
        yield FieldColumn(field.name, _type_of(field), field.unit)
        if field.unlimited:
            yield FieldColumn(field.unlimited, "boolean")


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


def _unique(columns: Iterable[FieldColumn]) -> tuple[FieldColumn, ...]:
    """Columns without those of a name that stood before."""
    unique: dict[str, FieldColumn] = {}
    for column in columns:
        unique.setdefault(column.name, column)
    return tuple(unique.values())


def _with_fields(
    first: Sequence[Column], fields: Iterable[FieldColumn], document: str, dialect: ViewDialect
) -> list[Column]:
    """Columns, and behind them those of fields that have no column among them."""
    names = {column.name for column in first}
    read = (Column(f.name, f.type, dialect.member(document, f.name, f.type), f.unit) for f in fields)
    return [*first, *(column for column in read if column.name not in names)]


# ── records ────────────────────────────────────────────────────────────────────────────────────


def _record_columns(fields: Sequence[FieldColumn], kind: RecordKind, dialect: ViewDialect) -> tuple[Column, ...]:
    document = dialect.record_document
    columns = _with_fields([Column(KEYS[kind], "text", "id")], fields, document, dialect)
    if kind == "usage":
        columns.append(Column("time", "time", dialect.member(document, "time", "time")))
        columns.append(Column("ts", "integer", dialect.member(document, "ts", "integer"), "ms"))
    return tuple(columns)


# ── samples ────────────────────────────────────────────────────────────────────────────────────


def _sample_columns(fields: Sequence[FieldColumn], dialect: ViewDialect) -> tuple[Column, ...]:
    """Whose sample, of which report and when, every field of all reports, and what else the sample has."""
    document = dialect.body_document
    first = (
        Column("imei", "text", "sample.id"),
        Column("product_id", "text", "sample.id"),
        Column("report", "text", "sample.name"),
        Column("time", "time", dialect.member(document, "time", "time")),
        Column("ts", "integer", "sample.ts", "ms"),
        Column(
            "corrected", "boolean", f"coalesce({dialect.member(document, 'corrected', 'boolean')}, {dialect.false})"
        ),
        Column("product_name", "text", dialect.member(document, "product_name", "text")),
    )
    known = _with_fields(first, fields, document, dialect)
    return (*known, Column("other", "json", dialect.without(document, [column.name for column in known])))


_IS_LAST_SAMPLE = f"""WHERE sample.entity = '{{{{entity}}}}' AND {SAMPLE_ROWS} AND NOT EXISTS (
SELECT 1 FROM {{schema}}journal AS later WHERE later.id = sample.id AND later.ts = sample.ts AND later.seq > sample.seq
AND later.name = sample.name AND later.entity = sample.entity
AND later.what IN ('metric', 'history'){{same_instance}})"""
"""A sample whose values changed has a row for each of them; the last one counts. Found by the index of (id, ts)."""


def _is_last_sample(dialect: ViewDialect) -> str:
    same_instance = dialect.same_instance.format(table="sample", other="later")
    return _IS_LAST_SAMPLE.format(schema=dialect.schema, same_instance=same_instance)


# ── events ─────────────────────────────────────────────────────────────────────────────────────


def _journal_id(dialect: ViewDialect) -> str:
    """The id that the journal had when the row was written: the first part of an event's id."""
    table = f"{dialect.schema}meta"
    mine, until = dialect.same_instance.format(table="journal", other="meta"), dialect.former_until
    return f"""coalesce((SELECT {dialect.former_id} FROM {table}, {dialect.former_ids}
WHERE meta.name = 'earlier' AND {until} >= journal.seq{mine} ORDER BY {until} LIMIT 1),
(SELECT value FROM {table} WHERE meta.name = 'journal'{mine}))"""


def _event_columns(dialect: ViewDialect) -> tuple[Column, ...]:
    document = dialect.body_document
    return (
        Column("id", "text", f"{_journal_id(dialect)} || ':' || journal.seq"),
        Column("seq", "integer", "journal.seq"),
        *([Column("epoch", "integer", "journal.epoch")] if dialect.has_instances else []),
        Column("time", "time", dialect.time_of("journal.ts")),
        Column("ts", "integer", "journal.ts", "ms"),
        Column("entity", "text", "journal.entity"),
        Column("key", "text", "journal.id"),
        Column("verb", "text", "CASE WHEN what = 'components' THEN 'changed' ELSE what END"),
        Column("changed", "json", dialect.member(document, "changed", "json")),
        Column("record", "json", dialect.member(document, "record", "json")),
        Column("initial", "boolean", dialect.member(document, "initial", "boolean")),
    )


# ── hours ──────────────────────────────────────────────────────────────────────────────────────

_HOUR_MS = 3_600_000


def _hour_columns(dialect: ViewDialect) -> tuple[Column, ...]:
    return (
        Column("imei", "text", "sample.id"),
        Column("product_id", "text", "sample.id"),
        Column("report", "text", "sample.name"),
        Column("field", "text", "field.key"),
        Column("time", "time", dialect.time_of(f"sample.ts / {_HOUR_MS} * {_HOUR_MS}")),
        Column("min", "real", f"min({dialect.number})"),
        Column("mean", "real", f"avg({dialect.number})"),
        Column("max", "real", f"max({dialect.number})"),
        Column("count", "integer", "count(*)"),
    )


def _source(view: str, dialect: ViewDialect) -> str:
    """What a view reads: from `FROM` on. Of samples and hours `{entity}` is still open."""
    body = dialect.parsed_body.format(table=_ROWS[view])
    samples = f"FROM {dialect.schema}journal AS sample{body}"
    match view:
        case "samples":
            return f"{samples} {_is_last_sample(dialect)}"
        case "hourly":
            key = ("sample.instance, " if dialect.has_instances else "") + "sample.id, sample.name, field.key"
            return f"""{samples}, {dialect.fields} {_is_last_sample(dialect)}
AND {dialect.is_number} AND field.key <> 'ts' GROUP BY {key}, sample.ts / {_HOUR_MS}"""
        case "events":
            changed = dialect.member(dialect.body_document, "changed", "json")
            return f"""FROM {dialect.schema}journal{body}
WHERE {EVENT_ROWS} AND (what <> 'components' OR {changed} IS NOT NULL)"""
        case _:
            return f"FROM {dialect.schema}record{dialect.parsed_record} WHERE kind = '{_KINDS[view]}'"
