"""The fleet in Prometheus' text form: every number once, with its labels, its unit in its name, and its age."""

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Batch, Entry, NewestSampleWrite, RecordWrite
from oneweb_bridge.store import store
from oneweb_bridge.store.reading import open_queries
from oneweb_bridge.web.fleet_metrics import AGE, write_metrics

ROOT = Path(__file__).parent.parent
EVIL = '<img src=x onerror=alert(1)>"\\\n}'
NOW = 1_750_000_060_000


def record(kind: Any, id: str, **doc: Any) -> RecordWrite:
    return RecordWrite(kind, id, encode(doc))


def sample(entity: str, id: str, report: str, **values: Any) -> Batch:
    entries = [Entry(entity, id, "metric", report, NOW - 60_000, b"{}")]
    doc = encode({"report": report, "ts": NOW - 60_000, **values})
    return Batch(entries=entries, newest=[NewestSampleWrite(entity, report, id, NOW - 60_000, 0, doc, 0)])


async def metrics(path: Path, *batches: Batch) -> dict[str, dict[tuple[str, ...], float]]:
    """Name of each metric -> its labels' values -> its value, as Prometheus' own parser reads them."""
    async with store.open_store(path) as opened:
        for batch in batches:
            await opened.commit(batch)
        with open_queries(path) as queries:
            text = b"".join(write_metrics(queries, NOW)).decode()
    families = list(text_string_to_metric_families(text))
    assert {family.type for family in families} == {"gauge"}
    values: dict[str, dict[tuple[str, ...], float]] = {}
    for sample_line in (sample for family in families for sample in family.samples):
        key = tuple(value for name, value in sample_line.labels.items())
        assert key not in values.get(sample_line.name, {})
        values.setdefault(sample_line.name, {})[key] = sample_line.value
    return values


async def test_every_number_stands_once_with_its_labels(tmp_path: Path) -> None:
    """Samples, usage and forecasts have the labels of their terminal; texts are states; names may be anything."""
    relations = {"product_ids": ["P"], "site": {"id": "S", "name": "Nuuk"}, "end_customer": {"id": "C"}}
    records = [
        record("terminal", "1", name=EVIL, state="online"),
        record("terminal", "2"),
        record("relations", "1", **relations),
        record("usage", "b", product_id="P", used_gb=1.5, is_shared=True, overage_blocks=2, ts=NOW - 5000),
        record("forecast", "b", product_id="P", status="ok", exhausted_p50="2025-06-16T00:00:00Z", ts=1),
    ]
    metrics_now = await metrics(
        tmp_path / "bridge.db",
        Batch(writes=records),
        sample("terminal", "1", "signal_quality", imei="1", sinr_db=9.5),
        sample("terminal", "1", "resource_state", resource_state="online"),
        sample("terminal", "1", "presence", last_seen="x"),
        sample("product", "P", "throughput", be_downlink_bps=7),
        sample("product", "Q", "throughput", be_downlink_bps=8, corrected=True),
    )
    own, product = ("1", EVIL, "C", "Nuuk"), ("1", EVIL, "C", "Nuuk", "P")
    assert metrics_now == {
        "oneweb_sinr_db": {own: 9.5},
        "oneweb_resource_state": {(*own, "online"): 1.0},
        "oneweb_terminal_state": {(*own, "online"): 1.0},
        "oneweb_be_downlink_bps": {product: 7.0, ("", "", "", "", "Q"): 8.0},
        "oneweb_usage_used_gb": {(*product, "b"): 1.5},
        "oneweb_usage_overage_blocks": {(*product, "b"): 2.0},
        "oneweb_forecast_exhausted_p50_timestamp_seconds": {(*product, "b"): 1_750_032_000.0},
        AGE: {
            (*own, "signal_quality"): 60.0,
            (*own, "resource_state"): 60.0,
            (*product, "throughput"): 60.0,
            ("", "", "", "", "Q", "throughput"): 60.0,
            (*product, "b", "usage"): 5.0,
        },
    }


def test_shipped_files_use_metrics_that_there_are() -> None:
    """Rules and dashboard name no metric that neither the bridge nor its fleet has."""
    from oneweb_bridge.decode.catalogue import CALLS
    from oneweb_bridge.model.forecast import Forecast
    from oneweb_bridge.web.bridge_metrics import METRICS

    fields = {call.entity: call for call in CALLS.values()}["usage"].fields
    known = {f"oneweb_bridge_{name or 'info'}" for name in METRICS} | {AGE, "oneweb_terminal_state"}
    known |= {f"oneweb_{field.name}" for call in CALLS.values() if call.report for field in call.fields}
    known |= {f"oneweb_usage_{field.name}" for field in fields}
    known |= {f"oneweb_forecast_{name}" for name in Forecast.__struct_fields__}
    rules = (ROOT / "deploy/prometheus/oneweb.rules.yml").read_text()
    dashboard = json.loads((ROOT / "deploy/grafana/oneweb-fleet.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = set(re.findall(r"\boneweb_\w+", " ".join([rules, *expressions])))
    assert named - known == set()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
