"""`oneweb-bridge history`: samples and events from the journal, for people, spreadsheets and scripts."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from oneweb_bridge.clock import SYSTEM
from oneweb_bridge.commands.decode import time_range
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.model.records import Row
from oneweb_bridge.store import journal

Form = Literal["table", "csv", "json"]
_EVENTS = ("added", "changed", "removed", "components")
_OWN = ("imei", "product_id", "bucket_id", "report", "time", "ts")


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: a terminal or a product, perhaps one report, and a span of time."""

    imei: str | None = None
    product: str | None = None
    report: str | None = None
    since: str = "24h"
    until: str | None = None


async def print_history(path: Path, question: HistoryQuery, form: Form, write: Callable[[str], None]) -> None:
    """Writes everything that answers the question, oldest row first, without holding it. Raises ValueError."""
    since, until = time_range(question.since, question.until, SYSTEM.wall())
    whose = ("product", question.product or "") if question.imei is None else ("terminal", question.imei)
    lines = _WRITERS[form]()
    async with journal.open_journal(path, "history", read_only=True) as rows:
        after = 0
        while page := await rows.history(whose, since, until, after):
            for row in page:
                if _asked_for(row, question.report):
                    lines.write(row, write)
            after = page[-1].seq


def _asked_for(row: Row, report: str | None) -> bool:
    if report is None:
        return True
    return row.what == "usage" if report == "usage" else row.name == report and row.what in ("metric", "history")


def _said(row: Row) -> dict[str, Any]:
    """What a row says beside whose it is and when."""
    body: dict[str, Any] = msgspec.json.decode(row.body)
    if row.what in ("metric", "history", "usage"):
        return {name: value for name, value in body.items() if name not in _OWN}
    if row.what == "components" and "changed" not in body:
        return {}
    changed = body.get("changed", {})
    return {name: f"{_shown(change['from'])} → {_shown(change['to'])}" for name, change in changed.items()}


def _shown(value: Any) -> str:
    return "(none)" if value is None else str(value)


def _kind(row: Row) -> str:
    if row.what in _EVENTS:
        return "changed" if row.what == "components" else row.what
    return "usage" if row.what == "usage" else row.name


class _Table:
    def write(self, row: Row, write: Callable[[str], None]) -> None:
        said = "  ".join(f"{name}={value}" for name, value in _said(row).items())
        write(f"{rfc3339(row.ts)}  {_kind(row):18}  {said}".rstrip())


class _JsonLines:
    def write(self, row: Row, write: Callable[[str], None]) -> None:
        said = {"time": rfc3339(row.ts), "ts": row.ts, "kind": _kind(row), "data": msgspec.Raw(row.body)}
        write(msgspec.json.encode(said).decode())


class _Csv:
    """One line per value, because reports differ in their columns."""

    def __init__(self) -> None:
        self._begun = False

    def write(self, row: Row, write: Callable[[str], None]) -> None:
        if not self._begun:
            self._begun = True
            write("time,id,kind,name,value")
        for name, value in _said(row).items() or [("", "")]:
            out = io.StringIO()
            csv.writer(out, lineterminator="").writerow((rfc3339(row.ts), row.id, _kind(row), name, value))
            write(out.getvalue())


_WRITERS: dict[Form, Callable[[], _Table | _JsonLines | _Csv]] = {
    "table": _Table,
    "csv": _Csv,
    "json": _JsonLines,
}
