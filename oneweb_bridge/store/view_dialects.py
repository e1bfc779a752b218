"""The phrases in which the views for people differ between SQLite and PostgreSQL. Pure.

With PostgreSQL a view has the rows of all instances, so it reads the tables of the schema `oneweb`, whose rows have an
instance. A value that has another type than its column is NULL there: a cast that fails would cost the whole view.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

ColumnType = Literal["text", "time", "integer", "real", "boolean", "json"]
MAX_ARGUMENTS = 60
"""Arguments of one call of json_remove: SQLite may be compiled for no more than 100."""
MAX_NAME_BYTES = 63
"""Of longer names PostgreSQL takes the beginning."""


class ViewDialect(msgspec.Struct, frozen=True):
    """Phrases of one engine. `{table}` stands for the table, or its alias, whose row a phrase speaks of."""

    schema: str
    """Before the name of a table."""
    has_instances: bool
    """Whether rows are of several instances, and have an epoch."""
    same_instance: str
    """Behind a condition: that the row of `{other}` is of the same instance as that of `{table}`."""
    record_document: str
    """The document of a row of `record`."""
    body_document: str
    """The document of a row of the journal."""
    parsed_record: str
    """Behind `FROM record`: what reads its document once for all columns."""
    parsed_body: str
    """The same behind a row of the journal, `{table}`."""
    member: Callable[[str, str, ColumnType], str]
    """A member of a document, by its name, as a column of a type."""
    without: Callable[[str, Sequence[str]], str]
    """A document without some members; NULL where nothing is left."""
    time_of: Callable[[str], str]
    """A time in ms since the epoch as a column of times."""
    false: str
    former_ids: str
    """A table `former` with the column `value`, from the ids that a journal had before: pairs of an id and a row."""
    former_id: str
    """The id of such a pair."""
    former_until: str
    """The last row of such a pair."""
    fields: str
    """A table `field` with the columns key and value, of the numbers in the sample's document, after `FROM`."""
    is_number: str
    """Whether the value of such a row is a number."""
    number: str
    """The value of such a row as a number."""
    column_name: Callable[[str], str]
    """The name that a column can have."""


# ── SQLite ─────────────────────────────────────────────────────────────────────────────────────


def _member_of_text(document: str, name: str, _: ColumnType) -> str:
    return f"json_extract({document}, '$.{name}')"


def _text_without(document: str, names: Sequence[str]) -> str:
    rest = document
    for start in range(0, len(names), MAX_ARGUMENTS):
        paths = ", ".join(f"'$.{name}'" for name in names[start : start + MAX_ARGUMENTS])
        rest = f"json_remove({rest}, {paths})"
    return f"nullif({rest}, '{{}}')"


SQLITE = ViewDialect(
    schema="",
    has_instances=False,
    same_instance="",
    record_document="doc",
    body_document="CAST(body AS TEXT)",
    parsed_record="",
    parsed_body="",
    member=_member_of_text,
    without=_text_without,
    time_of=lambda ms: f"strftime('%Y-%m-%dT%H:%M:%S', {ms} / 1000, 'unixepoch') || printf('.%03dZ', {ms} % 1000)",
    false="0",
    former_ids="json_each(meta.value) AS former",
    former_id="json_extract(former.value, '$[0]')",
    former_until="json_extract(former.value, '$[1]')",
    fields="json_each(CAST(sample.body AS TEXT)) AS field",
    is_number="field.type IN ('integer', 'real')",
    number="field.value",
    column_name=lambda name: name,
)

# ── PostgreSQL ─────────────────────────────────────────────────────────────────────────────────

_PARSED = "parsed.document"
# OFFSET 0 keeps the planner from reading the document anew for each column.
_PARSE = ", LATERAL (SELECT oneweb.read_document({text}) AS document OFFSET 0) AS parsed"


def _typed_member(document: str, name: str, type: ColumnType) -> str:
    key = name.replace("'", "''")
    match type:
        case "text":
            return f"{document} ->> '{key}'"
        case "json":
            return f"{document} -> '{key}'"
        case "time":
            return f"oneweb.read_time({document} ->> '{key}')"
        case _:
            return f"oneweb.read_{type}({document} -> '{key}')"


def _jsonb_without(document: str, names: Sequence[str]) -> str:
    keys = ", ".join("'{}'".format(name.replace("'", "''")) for name in names)
    return f"nullif({document} - ARRAY[{keys}], '{{}}')"


def _shortened(name: str) -> str:
    return name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")


POSTGRES = ViewDialect(
    schema="oneweb.",
    has_instances=True,
    same_instance=" AND {other}.instance = {table}.instance",
    record_document=_PARSED,
    body_document=_PARSED,
    parsed_record=_PARSE.format(text="record.doc"),
    parsed_body=_PARSE.format(text="convert_from({table}.body, 'UTF8')"),
    member=_typed_member,
    without=_jsonb_without,
    time_of=lambda ms: f"timestamptz 'epoch' + ({ms}) * interval '1 millisecond'",
    false="false",
    former_ids="jsonb_array_elements(meta.value::jsonb) AS former",
    former_id="former.value ->> 0",
    former_until="(former.value ->> 1)::bigint",
    fields="LATERAL jsonb_each(parsed.document) AS field",
    is_number="jsonb_typeof(field.value) = 'number'",
    number="oneweb.read_real(field.value)",
    column_name=_shortened,
)
