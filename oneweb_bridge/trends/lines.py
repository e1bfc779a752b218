"""How samples, events and bins are written as lines: for people, for spreadsheets and as JSON. Pure.

`history` and the console's CSV write the same bytes.
"""

import csv
import io
from collections.abc import Iterator
from typing import Any

import msgspec

from oneweb_bridge.encoding import encode, printable, rfc3339
from oneweb_bridge.trends.bins import Bin
from oneweb_bridge.trends.items import BinItem, Item

CSV_HEAD = "time,id,kind,name,value"
CSV_BINS_HEAD = "time,id,kind,name,min,mean,max,count"
_SHARED = ("imei", "product_id", "bucket_id", "report", "time", "ts")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the begin of a formula. Source: OWASP, CSV Injection."""


def values_of(item: Item) -> dict[str, Any]:
    """What an item says beside whose it is and when: values of a sample, changes of an event."""
    body: dict[str, Any] = msgspec.json.decode(item.body)
    if item.kind in ("added", "changed", "removed"):
        return {
            name: f"{_or_none(change['from'])} → {_or_none(change['to'])}"
            for name, change in body.get("changed", {}).items()
        }
    return {name: value for name, value in body.items() if name not in _SHARED}


def _or_none(value: Any) -> str:
    return "(none)" if value is None else _word(value)


def _word(value: Any) -> str:
    """A value as JSON writes it, a text without quotes."""
    return value if isinstance(value, str) else encode(value).decode()


# ── for people ─────────────────────────────────────────────────────────────────────────────────


def table_line(item: Item) -> str:
    """An item in one line."""
    values = "  ".join(f"{name}={_word(value)}" for name, value in values_of(item).items())
    return printable(f"{rfc3339(item.ts)}  {item.kind:18}  {values}".rstrip())


def table_lines_of_bins(item: BinItem) -> Iterator[str]:
    """A line for each indicator of an interval."""
    for name, summary in item.bins.items():
        values = f"min={summary.min} mean={summary.mean:.6g} max={summary.max} count={summary.count}"
        yield f"{rfc3339(item.ts)}  {item.kind:18}  {name:20}  {values}"


# ── for spreadsheets ───────────────────────────────────────────────────────────────────────────


def csv_lines(item: Item) -> Iterator[str]:
    """A line for each value, because reports differ in their columns; without line ends."""
    for name, value in values_of(item).items() or [("", "")]:
        yield _csv_line((rfc3339(item.ts), item.id, item.kind, name, value))


def csv_lines_of_bins(item: BinItem) -> Iterator[str]:
    """A line for each indicator of an interval."""
    for name, summary in item.bins.items():
        yield _csv_line((rfc3339(item.ts), item.id, item.kind, name, *_numbers(summary)))


def _numbers(summary: Bin) -> tuple[float, float, float, int]:
    return summary.min, summary.mean, summary.max, summary.count


def _csv_line(cells: tuple[Any, ...]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([_harmless(cell) for cell in cells])
    return out.getvalue()


def _harmless(cell: Any) -> Any:
    """A text that no spreadsheet takes for a formula; numbers stay."""
    if isinstance(cell, (int, float)) and not isinstance(cell, bool):
        return cell
    text = _word(cell)
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# ── JSON ───────────────────────────────────────────────────────────────────────────────────────


def json_line(item: Item) -> str:
    """An item as one object, with what was published as `data`."""
    return encode({"time": rfc3339(item.ts), "ts": item.ts, "kind": item.kind, "data": msgspec.Raw(item.body)}).decode()


def json_line_of_bins(item: BinItem) -> str:
    """The bins of an interval as one object; `every` in seconds."""
    every = round(item.every) if item.every == round(item.every) else item.every
    data = {name: msgspec.to_builtins(summary) for name, summary in item.bins.items()}
    return encode({"time": rfc3339(item.ts), "ts": item.ts, "kind": item.kind, "every": every, "data": data}).decode()
