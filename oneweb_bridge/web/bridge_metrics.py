"""The bridge's own metrics in Prometheus' text form: readiness, the journal, the state of each call. No ids."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from oneweb_bridge.model.status import Info
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.store.server import Epochs

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PREFIX = "oneweb_bridge"
METRICS = {
    "": "version, contract and instance of this bridge",
    "ready": "1 when API, broker and journal are well",
    "api_up": "1 when the API accepts the credentials",
    "broker_up": "1 when the broker is connected and delivers",
    "journal_head": "last row of the journal",
    "journal_backlog": "rows that wait for the broker",
    "journal_backlog_limit": "rows waiting above which the bridge is not ready",
    "journal_owed": "retained topics that are not right on the broker, and are tried again",
    "journal_dropped_total": "rows dropped unsent",
    "journal_set_aside_total": "rows set aside because the broker always refused them",
    "progress_age_seconds": "time since a task of the bridge last made progress",
    "call_enabled": "1 when the call is enabled",
    "call_fresh": "1 when the last success is younger than three intervals plus the lateness",
    "call_interval_seconds": "interval in force",
    "call_last_success_timestamp_seconds": "time of the last success",
    "call_duration_seconds": "duration of the last successful poll",
    "call_failures": "failures since the last success",
    "call_records": "records in the last listing",
    "call_fields_missing": "expected fields that were in no record of the last answer",
}
"""Name without the prefix -> what it is. Base units; labels by call, never by an id."""
LEASE_METRICS = {
    "leader": "1 when this worker holds the instance",
    "epoch": "grows with each worker that takes the instance over",
}
"""The same of leases, with PostgreSQL alone; labels by instance."""


def families_of(gauges: Mapping[str, float], info: Info | None, poller: Poller, epochs: Epochs) -> list[Metric]:
    """All metrics: the gauges of METRICS that are given, leases, the journal while it can be read, and the calls."""
    given = [GaugeMetricFamily(f"{PREFIX}_{name}", METRICS[name], value) for name, value in gauges.items()]
    return [*given, *lease_families(epochs), *_of_journal(info), *_of_calls(poller)]


def lease_families(epochs: Epochs) -> list[Metric]:
    """Which instances this worker holds, and under which epochs; nothing without instances, as with SQLite."""
    if not epochs:
        return []
    leader = GaugeMetricFamily(f"{PREFIX}_leader", LEASE_METRICS["leader"], labels=["instance"])
    gauge = GaugeMetricFamily(f"{PREFIX}_epoch", LEASE_METRICS["epoch"], labels=["instance"])
    for instance, epoch in epochs.items():
        leader.add_metric([instance], float(epoch is not None))
        if epoch is not None:
            gauge.add_metric([instance], epoch)
    return [leader, gauge]


def write_metrics(families: list[Metric]) -> bytes:
    """The metrics as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(_PrecomputedMetrics(families))
    return generate_latest(registry)


def _of_journal(info: Info | None) -> Iterator[Metric]:
    if info is None:
        return
    labels = {"version": info.version, "contract": str(info.contract), "instance": info.instance}
    yield InfoMetricFamily(PREFIX, METRICS[""], value=labels)
    journal = info.journal
    for name, value in (
        ("journal_head", journal.head),
        ("journal_backlog", journal.backlog),
        ("journal_owed", journal.owed),
    ):
        yield GaugeMetricFamily(f"{PREFIX}_{name}", METRICS[name], value)
    for name, value in (("journal_dropped", journal.dropped), ("journal_set_aside", journal.dead)):
        yield CounterMetricFamily(f"{PREFIX}_{name}", METRICS[f"{name}_total"], value)


def _of_calls(poller: Poller) -> Iterator[Metric]:
    values_by_call: dict[str, dict[str, float]] = {}
    for call, runtime in poller.calls.items():
        state = poller.state(runtime)
        values_by_call[call] = {
            "call_enabled": float(state.enabled),
            "call_fresh": float(state.fresh),
            "call_interval_seconds": runtime.effective,
            "call_duration_seconds": (state.duration_ms or 0) / 1000,
            "call_failures": runtime.progress.failures,
            "call_records": state.records,
        }
        if state.coverage is not None:
            values_by_call[call]["call_fields_missing"] = len(state.coverage.missing)
        # A call without a success has no time; 0 would be 1970.
        if runtime.progress.last_success:
            values_by_call[call]["call_last_success_timestamp_seconds"] = runtime.progress.last_success / 1000
    for name in (name for name in METRICS if name.startswith("call_")):
        family = GaugeMetricFamily(f"{PREFIX}_{name}", METRICS[name], labels=["call"])
        for call, values in values_by_call.items():
            if name in values:
                family.add_metric([call], values[name])
        yield family


class _PrecomputedMetrics(Collector):
    """A collector with precomputed metrics, because `collect` cannot await."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics
