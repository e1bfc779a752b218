"""The fleet's newest values in Prometheus' text form: a gauge for each indicator, and the age of each report.

Samples are minutes to hours old and carry no times here, because Prometheus takes none that are older than its block;
`oneweb_sample_age_seconds` says how old they are.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from oneweb_bridge.decode.values import parse_time
from oneweb_bridge.store.reading import Queries

AGE = "oneweb_sample_age_seconds"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LABELS = ("imei", "name", "customer", "site")
_NOT_VALUES = frozenset(("imei", "product_id", "bucket_id", "report", "time", "ts", "shared_allowance_id"))
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
Series = dict[str, list[str]]
"""Name of a metric -> its lines."""


class _Terminal(msgspec.Struct, gc=False):
    name: Any = None
    state: Any = None


class _Reference(msgspec.Struct, frozen=True, gc=False):
    id: str = ""
    name: str = ""

    def label(self) -> str:
        """Its name, else its id."""
        return self.name or self.id


class _Relations(msgspec.Struct, gc=False):
    product_ids: list[str] = []
    site: _Reference = _Reference()
    end_customer: _Reference = _Reference()


def write_metrics(queries: Queries, now: int) -> Iterator[bytes]:
    """The metrics in parts, each metric whole; `now` in ms."""
    labels, imeis = _labels(queries)
    series: Series = {}
    _add_states(series, queries, labels)
    for entity in ("terminal", "product"):
        for id, report, ts, doc in queries.all_newest(entity):
            if report == "presence":
                continue
            owner = labels.get(id if entity == "terminal" else imeis.get(id, ""), _no_terminal())
            own = owner if entity == "terminal" else f'{owner},product_id="{_escape(id)}"'
            _add(series, "", own, msgspec.json.decode(doc))
            _line(series, AGE, f'{own},report="{_escape(report)}"', max(0, now - ts) / 1000)
    _add_buckets(series, queries, labels, imeis, now)
    for name in sorted(series):
        yield f"# HELP {name} {_help(name)}\n# TYPE {name} gauge\n{''.join(series.pop(name))}".encode()


def _help(name: str) -> str:
    if name == AGE:
        return "time since the newest sample of a report was measured"
    return f"newest {name.removeprefix('oneweb_').replace('_', ' ')}; its age is {AGE}"


def _labels(queries: Queries) -> tuple[dict[str, str], dict[str, str]]:
    """The labels of each terminal, and the terminal of each product."""
    terminals, relations = msgspec.json.Decoder(_Terminal).decode, msgspec.json.Decoder(_Relations).decode
    related = {imei: relations(doc) for imei, doc in queries.all_records("relations")}
    labels: dict[str, str] = {}
    imeis: dict[str, str] = {}
    for imei, doc in queries.all_records("terminal"):
        own = related.get(imei, _NO_RELATIONS)
        name = terminals(doc).name
        values = (imei, "" if name is None else str(name), own.end_customer.label(), own.site.label())
        labels[imei] = _join(values)
        imeis |= dict.fromkeys(own.product_ids, imei)
    return labels, imeis


_NO_RELATIONS = _Relations()


def _join(values: tuple[str, ...]) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in zip(LABELS, values, strict=True))


def _no_terminal() -> str:
    return _join(("",) * len(LABELS))


def _escape(text: str) -> str:
    """A label's value. Source: Prometheus, exposition formats."""
    return text.translate(_ESCAPES)


def _add_states(series: Series, queries: Queries, labels: Mapping[str, str]) -> None:
    decode = msgspec.json.Decoder(_Terminal).decode
    for imei, doc in queries.all_records("terminal"):
        state = decode(doc).state
        if isinstance(state, str):
            _line(series, "oneweb_terminal_state", f'{labels[imei]},state="{_escape(state)}"', 1)


def _add_buckets(
    series: Series, queries: Queries, labels: Mapping[str, str], imeis: Mapping[str, str], now: int
) -> None:
    for kind in ("usage", "forecast"):
        for id, doc in queries.all_records(kind):
            bucket: dict[str, Any] = msgspec.json.decode(doc)
            product = str(bucket.get("product_id", ""))
            owner = labels.get(imeis.get(product, ""), _no_terminal())
            own = f'{owner},product_id="{_escape(product)}",bucket_id="{_escape(id)}"'
            _add(series, f"{kind}_", own, bucket, has_states=False)
            if kind == "usage" and isinstance(bucket.get("ts"), int):
                _line(series, AGE, f'{own},report="usage"', max(0, now - bucket["ts"]) / 1000)
            for name in ("exhausted_p10", "exhausted_p50", "exhausted_p90"):
                if (moment := parse_time(bucket.get(name))) is not None:
                    _line(series, f"oneweb_forecast_{name}_timestamp_seconds", own, moment / 1000)


def _add(series: Series, prefix: str, labels: str, values: Mapping[str, Any], *, has_states: bool = True) -> None:
    """Adds the numbers of a sample, and its texts as states that are 1."""
    for name, value in values.items():
        metric = f"oneweb_{prefix}{name}"
        if name in _NOT_VALUES or not _NAME.fullmatch(metric):
            continue
        if isinstance(value, int | float) and not isinstance(value, bool):
            _line(series, metric, labels, value)
        elif has_states and isinstance(value, str) and name.endswith("state"):
            _line(series, metric, f'{labels},state="{_escape(value)}"', 1)


def _line(series: Series, name: str, labels: str, value: float) -> None:
    series.setdefault(name, []).append(f"{name}{{{labels}}} {value!r}\n")
