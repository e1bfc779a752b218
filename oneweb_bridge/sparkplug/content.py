"""What a Device says in its birth, and what a row of the journal changes of it. Pure.

Each metric comes with the call whose polls bring it, by which its quality is judged.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from oneweb_bridge.decode import catalogue
from oneweb_bridge.model.devices import DeviceContent, NewestSample, TimedDoc
from oneweb_bridge.model.records import Row
from oneweb_bridge.polling.samples import PRESENCE
from oneweb_bridge.sparkplug import tree
from oneweb_bridge.sparkplug.fleet import DeviceParts
from oneweb_bridge.sparkplug.tree import Metric, MetricSpec, MetricType

_TERMINALS, _COMPONENTS, _PRODUCTS, _SITES, _USAGE = (
    "user_terminals",
    "user_terminal_components",
    "products",
    "sites",
    "usage_consumption",
)
CALL_OF_REPORT = {call.report: call.id for call in catalogue.CALLS.values() if call.report} | {PRESENCE: _TERMINALS}
"""Report -> the call that brings it."""
_THROUGHPUT = "throughput"
_LAST_SEEN = tree.TERMINAL_SPECS["last_seen"]


class SourcedMetric(msgspec.Struct, frozen=True, gc=False):
    """A metric, and the call whose polls bring it."""

    call: str
    metric: Metric


# ── births ─────────────────────────────────────────────────────────────────────────────────────


UnknownIndicators = Mapping[tuple[str, str], Mapping[str, MetricSpec]]
"""Report and id -> the metrics of indicators that the tree does not have, by name."""


def find_unknown_indicators(content: DeviceContent) -> dict[tuple[str, str], dict[str, MetricSpec]]:
    """The indicators of a Device's samples that the tree does not have."""
    indicators = {}
    for sample in content.samples:
        if sample.report in CALL_OF_REPORT and sample.report != PRESENCE:
            specs = tree.unknown_specs(report_folder(sample.report, sample.id), sample.report, sample.value_types)
            if specs:
                indicators[sample.report, sample.id] = {spec.name: spec for spec in specs}
    return indicators


def report_folder(report: str, id: str) -> str:
    """The folder of a report's metrics: those of a product are in its own."""
    return tree.product_folder(id) if report == _THROUGHPUT else ""


def device_metrics(
    parts: DeviceParts,
    content: DeviceContent,
    online_states: Collection[str],
    now: int,
    unknown: UnknownIndicators = MappingProxyType({}),
) -> list[SourcedMetric]:
    """All metrics of a Device, each name once, null where there is no value; none when nothing is known of it."""
    builder = _Builder(content, online_states, now, unknown)
    if parts.imei is not None and ("terminal", parts.imei) in content.records:
        builder.add_terminal(parts.imei)
    for product in parts.products:
        builder.add_product(product)
    for bucket, placed_in in parts.buckets.items():
        builder.add_bucket(bucket, placed_in)
    return list(builder.metrics.values())


class _Builder:
    def __init__(
        self, content: DeviceContent, online_states: Collection[str], now: int, unknown: UnknownIndicators
    ) -> None:
        self.metrics: dict[str, SourcedMetric] = {}
        self._content = content
        self._online_states = online_states
        self._now = now
        self._unknown = unknown
        self._samples: dict[tuple[str, str], NewestSample] = {(s.report, s.id): s for s in content.samples}

    def add_terminal(self, imei: str) -> None:
        record = self._content.records["terminal", imei]
        self._add(_TERMINALS, tree.terminal_metrics(_decode(record), record.ts, self._online_states))
        presence = self._samples.get((PRESENCE, imei))
        if presence is not None:
            self._add_presence(msgspec.json.decode(presence.doc))
        relations = self._content.records.get(("relations", imei)) or TimedDoc(b"{}", self._now)
        self._add(_SITES, tree.relations_metrics(_decode(relations), relations.ts))
        components = self._content.records.get(("components", imei))
        if components is not None:
            self._add(_COMPONENTS, tree.component_metrics(_decode(components), components.ts))
        for report in CALL_OF_REPORT:
            if report not in (PRESENCE, _THROUGHPUT):
                self._add_report(report, imei, "")

    def add_product(self, product: str) -> None:
        record = self._content.records.get(("product", product))
        if record is None:
            return
        self._add(_PRODUCTS, tree.product_metrics(_decode(record), record.ts))
        self._add_report(_THROUGHPUT, product, tree.product_folder(product))

    def add_bucket(self, bucket: str, product: str | None) -> None:
        record = self._content.records.get(("usage", bucket))
        if record is not None:
            self._add(_USAGE, tree.bucket_metrics(_decode(record), tree.bucket_folder(product, bucket)))

    def _add_presence(self, presence: Mapping[str, Any]) -> None:
        """Of record and presence the newer counts; its time is the later one, so that it never goes back."""
        for metric in tree.presence_metrics(presence):
            before = self.metrics[metric.spec.name].metric
            newer = newer_presence(before.value, metric)
            self.metrics[metric.spec.name] = SourcedMetric(
                _TERMINALS, msgspec.structs.replace(newer, ts=max(before.ts, metric.ts))
            )

    def _add_report(self, report: str, id: str, folder: str) -> None:
        sample = self._samples.get((report, id))
        metrics = () if sample is None else tree.sample_metrics(report, msgspec.json.decode(sample.doc), folder)
        values = {metric.spec.name: metric for metric in metrics}
        specs = [*tree.indicator_specs(folder, report), *self._unknown.get((report, id), {}).values()]
        self._add(CALL_OF_REPORT[report], (values.get(spec.name) or Metric(spec, None, self._now) for spec in specs))

    def _add(self, call: str, metrics: Iterator[Metric]) -> None:
        for metric in metrics:
            self.metrics.setdefault(metric.spec.name, SourcedMetric(call, metric))


def newer_presence(before: object, metric: Metric) -> Metric:
    """The metric of when a terminal was seen, with the later of its value and the one before."""
    is_later = metric.spec.name == _LAST_SEEN.name and isinstance(before, int) and isinstance(metric.value, int)
    return msgspec.structs.replace(metric, value=before) if is_later and before > metric.value else metric  # type: ignore[operator]  # both are int


def _decode(record: TimedDoc) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(record.doc)
    return decoded


# ── rows ───────────────────────────────────────────────────────────────────────────────────────


class RowMetrics(msgspec.Struct, frozen=True):
    """What a row says of its Device.

    A `record` is complete: whatever it said before and does not say now is null, or gone. `sample` and `history` are
    samples with their own time.
    """

    kind: Literal["record", "sample", "history"]
    call: str
    metrics: list[Metric]
    report: str = ""
    folder: str = ""
    """Below which all metrics of a record stand, and those of a sample."""


def row_metrics(row: Row, online_states: Collection[str], *, is_placed: bool) -> RowMetrics | None:
    """What a row says of its Device; None for nothing. `is_placed`: a bucket is in the folder of its product."""
    match row.what:
        case "metric" | "history":
            return _sample_row(row)
        case "added" | "changed" if row.entity == "terminal":
            record = msgspec.json.decode(row.body)["record"]
            return RowMetrics("record", _TERMINALS, list(tree.terminal_metrics(record, row.ts, online_states)))
        case "added" | "changed" if row.entity == "product":
            record = msgspec.json.decode(row.body)["record"]
            metrics = list(tree.product_metrics(record, row.ts))
            return RowMetrics("record", _PRODUCTS, metrics, folder=tree.product_folder(row.id))
        case "components":
            components = msgspec.json.decode(row.body)["components"]
            return RowMetrics("record", _COMPONENTS, list(tree.component_metrics(components, row.ts)))
        case "state" if row.entity == "terminal" and row.name == "relations":
            return RowMetrics("record", _SITES, list(tree.relations_metrics(msgspec.json.decode(row.body), row.ts)))
        case "usage":
            bucket = row.name if row.entity == "product" else row.id
            folder = tree.bucket_folder(row.id if is_placed else None, bucket)
            metrics = list(tree.bucket_metrics(msgspec.json.decode(row.body), folder))
            return RowMetrics("record", _USAGE, metrics, folder=folder)
    return None


def _sample_row(row: Row) -> RowMetrics | None:
    if row.name not in CALL_OF_REPORT:
        return None
    sample = msgspec.json.decode(row.body)
    kind: Literal["sample", "history"] = "sample" if row.what == "metric" else "history"
    if row.name == PRESENCE:
        return RowMetrics(kind, _TERMINALS, list(tree.presence_metrics(sample)), row.name)
    folder = tree.product_folder(row.id) if row.entity == "product" else ""
    metrics = list(tree.sample_metrics(row.name, sample, folder))
    return RowMetrics(kind, CALL_OF_REPORT[row.name], metrics, row.name, folder)


def live_sample(update: RowMetrics, last_seen: object) -> list[Metric]:
    """The metrics of a sample that is the newest; presence never goes back."""
    if update.report == PRESENCE:
        return [newer_presence(last_seen, metric) for metric in update.metrics]
    return update.metrics


def missing_indicators(update: RowMetrics, unknown: Collection[MetricSpec]) -> list[Metric]:
    """What the newest sample lacks, as null."""
    names = {metric.spec.name for metric in update.metrics}
    specs = [*tree.indicator_specs(update.folder, update.report), *unknown]
    return [Metric(spec, None, 0) for spec in specs if spec.name not in names]


def gone_metrics(update: RowMetrics, born: Collection[str]) -> list[Metric]:
    """Metrics of fields that only the configuration knows and that a record does not have any more: null."""
    names, prefix = {metric.spec.name for metric in update.metrics}, f"{update.folder}Other/"
    gone = [name for name in born if name.startswith(prefix) and name not in names]
    return [Metric(MetricSpec(name, MetricType.STRING), None, 0) for name in gone]


def is_complete(update: RowMetrics, born: Collection[str]) -> bool:
    """Whether a birth had all that a row says, and, of components, nothing besides."""
    names = {metric.spec.name for metric in update.metrics}
    if update.call == _COMPONENTS and names != {name for name in born if name.startswith(tree.COMPONENTS)}:
        return False
    return names <= set(born)


def without_older_presence(metrics: Collection[Metric], last_seen: object) -> list[Metric]:
    """The metrics of a terminal's record without a time of presence that a sample has brought forward."""
    return [metric for metric in metrics if newer_presence(last_seen, metric) is metric]


LAST_SEEN = _LAST_SEEN.name


# ── the Edge Node's own metrics ────────────────────────────────────────────────────────────────

VERSION = MetricSpec("Bridge/Version", MetricType.STRING)
INSTANCE = MetricSpec("Bridge/Instance", MetricType.STRING)
CONNECTED = MetricSpec("API/Connected", MetricType.BOOLEAN)
BACKLOG = MetricSpec("Journal/Backlog", MetricType.INT64)
_CALL_METRICS: Mapping[str, tuple[str, MetricSpec]] = {
    "enabled": ("Enabled", MetricSpec("", MetricType.BOOLEAN, writable=True)),
    "interval": ("Interval", MetricSpec("", MetricType.INT64, "s", writable=True)),
    "status": ("Status", MetricSpec("", MetricType.STRING)),
    "last_poll": ("Last Poll", MetricSpec("", MetricType.DATETIME)),
    "poll": ("Poll Now", MetricSpec("", MetricType.BOOLEAN, writable=True)),
}
"""Member of a call's state -> the last level of its metric, and its type. `poll` is always false."""
CALL_MEMBERS = tuple(_CALL_METRICS)


def call_spec(call: str, member: str) -> MetricSpec:
    """The metric of a member of a call's state."""
    name, spec = _CALL_METRICS[member]
    return msgspec.structs.replace(spec, name=f"Polling/{call}/{name}")


def call_metrics(call: str, state: Mapping[str, Any], ts: int, members: Sequence[str] = CALL_MEMBERS) -> list[Metric]:
    """The metrics of a call whose state is this since `ts`."""
    values = dict(state) | {"poll": False}
    specs = ((call_spec(call, member), values.get(member)) for member in members)
    return [Metric(spec, tree.metric_value(spec, value), ts) for spec, value in specs]


def call_of_metric(name: str) -> tuple[str, str] | None:
    """The call and the member of its state that the name of an Edge Node's metric stands for."""
    levels = name.split("/")
    if len(levels) != 3 or levels[0] != "Polling" or levels[1] not in catalogue.CALLS:
        return None
    members = {last: member for member, (last, _) in _CALL_METRICS.items()}
    return (levels[1], members[levels[2]]) if levels[2] in members else None
