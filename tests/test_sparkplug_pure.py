"""What the Sparkplug outlet decides without sockets: names, types, payloads, sessions, who has which Device."""

import re
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.devices import DeviceContent, NewestSample, TimedDoc
from oneweb_bridge.model.records import Row, RowType
from oneweb_bridge.mqtt.topics import encode_id
from oneweb_bridge.sparkplug import content, node_metrics, tree
from oneweb_bridge.sparkplug import sparkplug_b_pb2 as pb
from oneweb_bridge.sparkplug.api_watch import STALE_AFTER_S, ApiWatch
from oneweb_bridge.sparkplug.edge_node import EdgeMessage, EdgeNode, NotBorn, Reading
from oneweb_bridge.sparkplug.fleet import DeviceParts, Fleet
from oneweb_bridge.sparkplug.host import HostState, Rebirths
from oneweb_bridge.sparkplug.payload import GOOD, STALE, Written
from oneweb_bridge.sparkplug.placement import Placement
from oneweb_bridge.sparkplug.tree import Metric, MetricSpec, MetricType
from oneweb_bridge.sparkplug.writes import CallWrite, Rebirth, Refusal, read_writes

PAGE = (Path(__file__).parents[1] / "docs/sparkplug.md").read_text(encoding="utf-8")
NOW = 1_750_000_000_000
LEVEL = MetricSpec("Signal/SINR", MetricType.DOUBLE, "dB")
STATE = MetricSpec("Status/State", MetricType.STRING)


def read(message: EdgeMessage) -> Any:
    """The payload of a message, by the generated module."""
    return pb.Payload.FromString(message.payload)


# ── the tree ───────────────────────────────────────────────────────────────────────────────────


def expand(text: str) -> list[str]:
    """The texts that braces like `{a, b} {c, d}` stand for, the last one changing first."""
    match = re.search(r"\{([^{}]*)\}", text)
    if match is None:
        return [text]
    return [
        whole
        for part in match[1].split(",")
        for whole in expand(text[: match.start()] + part.strip() + text[match.end() :])
    ]


def documented(heading: str) -> dict[str, tuple[str, str, str]]:
    """Field -> metric, type and unit, as a table of docs/sparkplug.md has them."""
    section = PAGE.partition(f"### {heading}")[2].partition("\n### ")[0]
    rows: dict[str, tuple[str, str, str]] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| `") or len(cells) < 4:
            continue
        fields = [name for text in re.findall(r"`([^`]+)`", cells[0]) for name in expand(text)]
        metrics = [name for text in re.findall(r"`([^`]+)`", cells[1]) for name in expand(text)]
        rows |= {
            field: (metric, cells[2], cells[3])
            for field, metric in zip(fields, metrics, strict=False)
            if "<" not in metric
        }
    return rows


def implemented(specs: dict[str, MetricSpec]) -> dict[str, tuple[str, str, str]]:
    names = {MetricType.DATETIME: "DateTime"}
    return {
        field: (spec.name, names.get(spec.type, spec.type.name.capitalize()), spec.unit)
        for field, spec in specs.items()
    }


@pytest.mark.parametrize(
    ("heading", "specs"),
    [
        (
            "Terminal",
            tree.TERMINAL_SPECS | {k: v for k, v in tree.REPORT_SPECS.items() if k not in tree.THROUGHPUT},
        ),
        ("Product", tree.PRODUCT_SPECS | {k: v for k, v in tree.REPORT_SPECS.items() if k in tree.THROUGHPUT}),
        ("Usage bucket", tree.BUCKET_SPECS),
    ],
)
def test_tree_is_as_documented(heading: str, specs: dict[str, MetricSpec]) -> None:
    """Every metric of docs/sparkplug.md is in the code with the same name, type and unit, and none besides."""
    table = documented(heading)
    table.pop("main/SSM", None)
    assert table.pop("relations", ("Site/Name", "String", "")) == ("Site/Name", "String", "")
    assert implemented(specs) == table


def test_names_have_no_characters_that_hosts_refuse() -> None:
    """Hosts make folders at `/` and refuse most signs; ids are in their topic form."""
    specs = [*tree.TERMINAL_SPECS.values(), *tree.REPORT_SPECS.values(), *tree.PRODUCT_SPECS.values()]
    names = [spec.name for spec in [*specs, *tree.BUCKET_SPECS.values()]]
    names += [tree.product_folder("ä/%"), tree.bucket_folder("p.1", "b&1"), tree.component_spec("main/S.M").name]
    names += [tree.other_spec("", "a.b").name, tree.unknown_indicator_spec("", "signal_quality", "tx_pöwer_dbm").name]
    assert [name for name in names if not re.fullmatch(r"[A-Za-z0-9 _/-]+", name)] == []
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "metric", "kind", "unit"),
    [
        ("tx_power_dbm", "Signal/Tx Power", MetricType.DOUBLE, "dBm"),
        ("lost_bytes", "Signal/Lost", MetricType.INT64, "B"),
        ("beams", "Signal/Beams", MetricType.DOUBLE, ""),
    ],
)
def test_unknown_indicator_has_a_type_for_ever(name: str, metric: str, kind: MetricType, unit: str) -> None:
    """Its name alone says type and unit, so that neither changes with the values."""
    assert tree.unknown_indicator_spec("", "signal_quality", name) == MetricSpec(metric, kind, unit)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (MetricType.DOUBLE, "51.5"),
        (MetricType.DOUBLE, [1.5]),
        (MetricType.DOUBLE, True),
        (MetricType.DOUBLE, 10**400),
        (MetricType.INT64, "7"),
        (MetricType.INT64, 1 << 63),
        (MetricType.INT64, float("inf")),
        (MetricType.BOOLEAN, "false"),
        (MetricType.BOOLEAN, 1),
        (MetricType.DATETIME, "yesterday"),
        (MetricType.DATETIME, 5),
    ],
)
def test_value_of_another_kind_is_null(kind: MetricType, value: object) -> None:
    """A field to which the configuration gives another type does not change the metric's, and ends nothing."""
    assert tree.metric_value(MetricSpec("x", kind), value) is None


# ── the content of Devices ─────────────────────────────────────────────────────────────────────


def stored(*, with_sample: bool = True, seen: int | None = None) -> DeviceContent:
    """What is stored of the terminal T with the product P and the bucket B."""
    sample = {"report": "signal_quality", "ts": NOW - 5, "sinr_db": 10.5, "lost_bytes": 7}
    samples = [NewestSample("signal_quality", "T", encode(sample), "lost_bytes=n sinr_db=n")] if with_sample else []
    if seen is not None:
        presence = {"ts": seen, "last_seen": "2025-06-15T00:00:00Z"}
        samples.append(NewestSample("presence", "T", encode(presence), ""))
    record = {"imei": "T", "state": "online", "last_seen": "2025-06-14T00:00:00Z", "product_ids": []}
    return DeviceContent(
        head=9,
        records={
            ("terminal", "T"): TimedDoc(encode(record), NOW - 100),
            ("components", "T"): TimedDoc(b'{"main/SSM": "5.0"}', NOW - 50),
            ("product", "P"): TimedDoc(b'{"product_id": "P", "name": "plan", "imei": "T"}', NOW - 90),
            ("usage", "B"): TimedDoc(encode({"bucket_id": "B", "product_id": "P", "used_gb": 1.5, "ts": NOW - 7}), 0),
        },
        samples=samples,
    )


def metrics_of(parts: DeviceParts, of: DeviceContent) -> dict[str, Metric]:
    unknown = content.find_unknown_indicators(of)
    return {m.metric.spec.name: m.metric for m in content.device_metrics(parts, of, ("online",), NOW, unknown)}


def test_birth_has_every_row_of_the_tree() -> None:
    """With null where there is no value, so that nothing of the tree needs another birth."""
    metrics = metrics_of(DeviceParts("T", ("P",), {"B": "P"}), stored())
    terminal = [*tree.TERMINAL_SPECS.values(), tree.ONLINE, tree.SITE_NAME]
    terminal += [spec for name, spec in tree.REPORT_SPECS.items() if name not in tree.THROUGHPUT]
    product = [*tree.PRODUCT_SPECS.values(), *(tree.REPORT_SPECS[name] for name in tree.THROUGHPUT)]
    expected = {spec.name for spec in terminal} | {f"Product/P/{spec.name}" for spec in product}
    expected |= {f"Product/P/Usage/B/{spec.name}" for spec in tree.BUCKET_SPECS.values()}
    assert set(metrics) == expected | {"Components/main/SSM", "Signal/Lost"}
    assert metrics["Status/Online"].value is True
    assert metrics["Status/Product Ids"].value is None
    assert metrics["Signal/RSRP"].value is None


@pytest.mark.parametrize(("state", "online"), [("online", True), ("offline", False), (None, None)])
def test_terminal_without_a_state_is_neither_online_nor_offline(state: str | None, online: bool | None) -> None:
    """What is not known is null; a field that the record lacks too."""
    record = {"imei": "T"} | ({"state": state} if state else {})
    metrics = {m.spec.name: m.value for m in tree.terminal_metrics(record, NOW, ("online",))}
    assert (metrics["Status/Online"], metrics["Status/State"], metrics["Status/Name"]) == (online, state, None)


@pytest.mark.parametrize(
    ("name", "value", "ts"),
    [
        ("Status/State", "online", NOW - 100),
        ("Components/main/SSM", "5.0", NOW - 50),
        ("Signal/SINR", 10.5, NOW - 5),
        ("Signal/Lost", 7, NOW - 5),
        ("Product/P/Plan/Name", "plan", NOW - 90),
        ("Product/P/Usage/B/Used", 1.5, NOW - 7),
    ],
)
def test_birth_has_the_time_of_the_source(name: str, value: object, ts: int) -> None:
    """A sample's own time, the report's of usage, and that of the last event of a record."""
    metric = metrics_of(DeviceParts("T", ("P",), {"B": "P"}), stored())[name]
    assert (metric.value, metric.ts) == (value, ts)


@pytest.mark.parametrize(("seen", "ts"), [(NOW - 500, NOW - 100), (NOW - 10, NOW - 10)])
def test_last_seen_is_the_newer_and_its_time_never_goes_back(seen: int, ts: int) -> None:
    """The later value of record and presence, at the later time of both."""
    metric = metrics_of(DeviceParts("T"), stored(seen=seen))["Status/Last Seen"]
    assert (metric.value, metric.ts) == (tree.milliseconds("2025-06-15T00:00:00Z"), ts)


def test_nothing_is_born_of_a_terminal_without_a_record() -> None:
    """A Device of which nothing is stored any more has no metrics."""
    assert metrics_of(DeviceParts("X", ("Y",), {"Z": None}), stored()) == {}


def row(entity: str, what: RowType, id: str, body: object, *, name: str = "", seq: int = 1) -> Row:
    return Row(seq, 0, entity, id, what, name, NOW, encode(body))


def test_live_sample_says_what_it_lacks() -> None:
    """Known and unknown indicators that the newest sample lacks are null."""
    sample = row("terminal", "metric", "T", {"ts": NOW, "rsrp_dbm": -40.0}, name="signal_quality")
    update = content.row_metrics(sample, (), is_placed=False)
    assert update is not None
    unknown = [tree.unknown_indicator_spec("", "signal_quality", "lost_bytes")]
    assert {m.spec.name: m.value for m in content.live_sample(update, None)} == {"Signal/RSRP": -40.0}
    missing = content.missing_indicators(update, unknown)
    assert {m.spec.name: m.value for m in missing} == {"Signal/RSSI": None, "Signal/SINR": None, "Signal/Lost": None}


@pytest.mark.parametrize(
    ("components", "complete"), [({"a/b": "1"}, True), ({"a/b": "1", "c/d": "2"}, False), ({}, False)]
)
def test_component_that_is_new_or_gone_needs_a_birth(components: dict[str, str], complete: bool) -> None:
    """A change of a version is data; another set of components is another birth."""
    update = content.row_metrics(row("terminal", "components", "T", {"components": components}), (), is_placed=False)
    assert update is not None
    assert content.is_complete(update, {"Components/a/b", "Status/State"}) is complete


def test_field_of_the_configuration_that_is_gone_is_null() -> None:
    """It stays in the birth, without a value."""
    update = content.row_metrics(row("terminal", "changed", "T", {"record": {"imei": "T"}}), (), is_placed=False)
    assert update is not None
    (gone,) = content.gone_metrics(update, {"Other/Colour", "Product/P/Other/Colour", "Status/State"})
    assert (gone.spec, gone.value) == (MetricSpec("Other/Colour", MetricType.STRING), None)


def test_state_of_a_call_is_five_metrics() -> None:
    """The interval is the one that was set; a poll that is asked for is never still true."""
    state = {"enabled": True, "interval": 300, "status": "ok", "last_poll": "2025-06-15T00:00:00.000Z"}
    metrics = node_metrics.row_metrics(row("call", "state", "ut_traffic", state))
    assert {m.spec.name.removeprefix("Polling/ut_traffic/"): m.value for m in metrics} == {
        "Enabled": True,
        "Interval": 300,
        "Status": "ok",
        "Last Poll": tree.milliseconds("2025-06-15T00:00:00Z"),
        "Poll Now": False,
    }
    writable = [m.spec.name.rpartition("/")[2] for m in metrics if m.spec.writable]
    assert writable == ["Enabled", "Interval", "Poll Now"]


# ── sessions ───────────────────────────────────────────────────────────────────────────────────


def born(**settings: Any) -> EdgeNode:
    """An Edge Node with the Device T, born."""
    node = EdgeNode("G", "E", 7, settings.get("max_payload", 64_000))
    node.node_birth([Metric(content.VERSION, "1", NOW)], NOW)
    node.device_birth("T", [Reading(Metric(LEVEL, 1.0, NOW)), Reading(Metric(STATE, None, 0))], NOW)
    return node


def test_will_and_death_have_the_number_of_the_births() -> None:
    """NDEATH has `bdSeq` alone, QoS 1 and no seq; the births of its connection have the same."""
    node = EdgeNode("G", "E", 7, 64_000)
    will, birth = node.will(), read(node.node_birth([], NOW))
    assert (will.topic, will.qos) == ("spBv1.0/G/NDEATH/E", 1)
    assert [(m.name, m.datatype, m.long_value) for m in read(will).metrics] == [("bdSeq", MetricType.INT64, 7)]
    assert not read(will).HasField("seq")
    assert {m.name: m.long_value for m in birth.metrics if m.name == "bdSeq"} == {"bdSeq": 7}
    assert node.death() == will
    assert not node.is_born


def test_birth_names_its_metrics_and_data_do_not() -> None:
    """Births have name, alias, type and properties; data the alias alone; two node metrics have none."""
    node = born()
    birth = read(node.node_birth([Metric(content.VERSION, "1", NOW)], NOW))
    assert {m.name: m.HasField("alias") for m in birth.metrics} == {
        "bdSeq": False,
        "Node Control/Rebirth": False,
        "Bridge/Version": True,
    }
    device = read(node.device_birth("T", [Reading(Metric(LEVEL, 1.0, NOW))], NOW))
    (metric,) = device.metrics
    assert dict(zip(metric.properties.keys, metric.properties.values, strict=True)).keys() == {"engUnit", "readOnly"}
    (data,) = (read(m) for m in node.live("T", [Reading(Metric(LEVEL, 2.0, NOW + 1))], NOW))
    (value,) = data.metrics
    assert (value.name, value.HasField("datatype"), value.alias, value.double_value) == ("", False, metric.alias, 2.0)


def test_aliases_stay_over_a_rebirth_and_are_unique() -> None:
    """A host may keep them as long as the session lasts."""
    node = born()
    first = {m.name: m.alias for m in read(node.device_birth("T", [Reading(Metric(LEVEL, 1.0, NOW))], NOW)).metrics}
    other = {m.name: m.alias for m in read(node.device_birth("U", [Reading(Metric(LEVEL, 1.0, NOW))], NOW)).metrics}
    node.node_birth([], NOW)
    second = {m.name: m.alias for m in read(node.device_birth("T", [Reading(Metric(LEVEL, 1.0, NOW))], NOW)).metrics}
    assert first == second
    assert first != other


def test_seq_counts_all_messages_and_wraps() -> None:
    """From 0 at NBIRTH over births, data and deaths of all Devices, and 0 after 255."""
    node = EdgeNode("G", "E", 0, 64_000)
    messages = [node.node_birth([], NOW), node.device_birth("T", [Reading(Metric(LEVEL, 0.0, NOW))], NOW)]
    for number in range(300):
        messages += node.live("T", [Reading(Metric(LEVEL, float(number), NOW + number))], NOW)
    messages.append(node.device_death("T", NOW))
    assert [read(m).seq for m in messages] == [number % 256 for number in range(303)]
    assert read(node.node_birth([], NOW)).seq == 0


def test_nothing_is_sent_of_what_is_not_born() -> None:
    """A Device that is dead, or was never born, and a metric that no birth had."""
    node = born()
    for device, spec in (("U", LEVEL), ("T", MetricSpec("New/Thing", MetricType.STRING))):
        with pytest.raises(NotBorn):
            node.live(device, [Reading(Metric(spec, None, NOW))], NOW)
        with pytest.raises(NotBorn):
            node.history(device, [Metric(spec, None, NOW)], NOW)
    node.device_death("T", NOW)
    with pytest.raises(NotBorn):
        node.device_death("T", NOW)
    node.node_birth([], NOW)
    with pytest.raises(NotBorn):
        node.live("T", [Reading(Metric(LEVEL, 2.0, NOW))], NOW)


def test_live_time_never_goes_back() -> None:
    """A record whose event is older than what was sent has the time that was sent."""
    node = born()
    (data,) = (read(m) for m in node.live("T", [Reading(Metric(LEVEL, 2.0, NOW - 50))], NOW))
    assert data.metrics[0].timestamp == NOW
    assert node.has_later("T", [Metric(LEVEL, 3.0, NOW - 1)])
    assert not node.has_later("T", [Metric(LEVEL, 3.0, NOW)])


def test_history_does_not_count_as_sent_live() -> None:
    """It has its own time, oldest first, and leaves the live value as it is."""
    node = born()
    (data,) = (read(m) for m in node.history("T", [Metric(LEVEL, 9.0, NOW - 1), Metric(LEVEL, 8.0, NOW - 2)], NOW))
    assert [(m.is_historical, m.timestamp, m.double_value) for m in data.metrics] == [
        (True, NOW - 2, 8.0),
        (True, NOW - 1, 9.0),
    ]
    assert node.last_value("T", LEVEL.name) == 1.0


@pytest.mark.parametrize(("max_payload", "sizes"), [(64_000, [500, 500, 200]), (9_000, [250, 250, 250, 250, 200])])
def test_history_is_split(max_payload: int, sizes: list[int]) -> None:
    """At most 500 metrics and `max_payload` in a message; each has a seq of its own."""
    node = born(max_payload=max_payload)
    messages = node.history("T", [Metric(LEVEL, float(n), NOW + n) for n in range(1200)], NOW)
    assert [len(read(m).metrics) for m in messages] == sizes
    assert max(len(m.payload) for m in messages) <= max_payload
    assert [read(m).seq for m in messages] == list(range(2, 2 + len(sizes)))


@pytest.mark.parametrize(
    ("kind", "value", "member", "sent"),
    [
        (MetricType.INT64, -5, "long_value", (1 << 64) - 5),
        (MetricType.INT64, (1 << 53) + 1, "long_value", (1 << 53) + 1),
        (MetricType.DATETIME, NOW, "long_value", NOW),
        (MetricType.DOUBLE, 70, "double_value", 70.0),
        (MetricType.BOOLEAN, False, "boolean_value", False),
        (MetricType.STRING, "ü", "string_value", "ü"),
        (MetricType.STRING, None, None, None),
    ],
)
def test_values_have_the_member_of_their_type(kind: MetricType, value: Any, member: str | None, sent: object) -> None:
    """Negative numbers as two's complement; null without a value, at the time of the payload."""
    spec = MetricSpec("x", kind)
    node = EdgeNode("G", "E", 0, 64_000)
    node.node_birth([Metric(spec, value, NOW - 9)], NOW)
    (metric,) = (m for m in read(node.node_birth([Metric(spec, value, NOW - 9)], NOW)).metrics if m.name == "x")
    assert metric.WhichOneof("value") == member
    assert metric.is_null is (member is None)
    assert metric.timestamp == (NOW if member is None else NOW - 9)
    assert member is None or getattr(metric, member) == sent


def test_quality_is_said_only_where_asked() -> None:
    """500 and 192 as Int32."""
    node = born()
    readings = [Reading(Metric(LEVEL, 2.0, NOW), STALE), Reading(Metric(STATE, "x", NOW), None)]
    (data,) = (read(m) for m in node.live("T", readings, NOW))
    qualities = [
        [(k, v.type, v.int_value) for k, v in zip(m.properties.keys, m.properties.values, strict=True)]
        for m in data.metrics
    ]
    assert sorted(qualities) == [[], [("Quality", MetricType.INT32, STALE)]]


def test_birth_that_is_not_sent_leaves_no_gap() -> None:
    """One that is too large is taken back, with its seq."""
    node = born()
    node.device_birth("U", [Reading(Metric(LEVEL, 2.0, NOW))], NOW)
    node.take_back("U")
    assert not node.has_born("U")
    assert read(node.device_birth("V", [Reading(Metric(LEVEL, 2.0, NOW))], NOW)).seq == 2


# ── the fleet ──────────────────────────────────────────────────────────────────────────────────


def terminal(what: RowType, imei: str = "T") -> Row:
    return row("terminal", what, imei, {"record": {"imei": imei}})


def product(what: RowType, imei: str | None, id: str = "P") -> Row:
    return row("product", what, id, {"record": {"product_id": id} | ({"imei": imei} if imei else {})})


def fleet() -> Fleet:
    """Two terminals; the product P of T with the bucket B; Q of nobody; a bucket U without a product."""
    return Fleet(["T", "S"], [("P", "T"), ("Q", "unknown")], [("B", "P"), ("U", None), ("V", "nobody's")])


def test_fleet_has_devices_for_everything() -> None:
    """Terminals, products that name no known terminal, and usage without a known product."""
    made = fleet()
    assert made.devices() == ["T", "S", "_product-Q", "_usage"]
    assert made.parts_of("T") == DeviceParts("T", ("P",), {"B": "P"})
    assert made.parts_of("_product-Q") == DeviceParts(None, ("Q",), {})
    assert made.parts_of("_usage") == DeviceParts(buckets={"U": None, "V": None})
    assert not made.has("_product-P")
    assert Fleet(["a.b"]).devices() == [encode_id("a.b")]


@pytest.mark.parametrize(
    ("change", "affected"),
    [
        (product("changed", "S"), ["T", "S"]),
        (product("changed", "T"), []),
        (row("product", "changed", "P", {"record": {"product_id": "P", "imei": 5}}), ["T", "_product-P"]),
        (product("removed", "T"), ["T", "_usage"]),
        (product("changed", "T", "Q"), ["_product-Q", "T"]),
        (terminal("removed"), ["T", "_product-P"]),
        (terminal("changed"), []),
        (terminal("added", "unknown"), ["_product-Q", "unknown"]),
        (terminal("added", "new"), ["new"]),
        (row("product", "usage", "P", {}, name="C"), ["T"]),
        (row("product", "usage", "Q", {}, name="B"), ["T", "_product-Q"]),
        (row("product", "usage", "P", {}, name="B"), []),
        (row("usage", "usage", "W", {}), ["_usage"]),
        (row("product", "clear", "P", ["usage", "forecast"], name="B"), ["T"]),
        (row("product", "clear", "P", ["forecast"], name="B"), []),
        (product("added", None, "nobody's"), ["_usage", "_product-nobody-s"]),
        (row("terminal", "metric", "T", {}, name="traffic"), []),
    ],
)
def test_row_affects_the_devices_whose_parts_change(change: Row, affected: list[str]) -> None:
    """Those that lose something come first, so that no metric is in two births at a time."""
    expected = [name.replace("nobody-s", encode_id("nobody's")) for name in affected]
    assert fleet().apply(change) == expected


def test_device_that_lost_everything_is_gone() -> None:
    """A `_product-…` whose product found its terminal, and `_usage` without its last bucket."""
    made = fleet()
    made.apply(terminal("added", "unknown"))
    made.apply(row("usage", "clear", "U", ["usage"]))
    made.apply(product("added", None, "nobody's"))
    assert [made.has(device) for device in ("_product-Q", "_usage", "unknown")] == [False, False, True]


def test_devices_keep_their_edge_node() -> None:
    """A new one goes to the first with room; a place that is free is taken again; a smaller limit moves nobody."""
    placement = Placement({"a": 1, "b": 1, "c": 2}, 2)
    assert [placement.place(name) for name in ("d", "e", "a")] == [2, 3, 1]
    placement.free("b")
    assert placement.place("f") == 1
    assert Placement({"a": 1, "b": 1}, 1).place("c") == 2
    assert placement.devices_of(2) == ["c", "d"]


# ── the host, the API, writes ──────────────────────────────────────────────────────────────────


def test_host_is_believed_in_the_order_of_its_times() -> None:
    """Older words and other forms change nothing; an online while online makes everything before it old."""
    state, changes = HostState(), []
    for body in (
        b"OFFLINE",
        b'{"x": ' + b"[" * 100_000,
        b'{"online": false, "timestamp": 5}',
        b'{"online": true, "timestamp": 10}',
        b'{"online": true, "timestamp": 11}',
        b'{"online": false, "timestamp": 9}',
        b'{"online": "no", "timestamp": 12}',
        b'{"online": false, "timestamp": 10}',
        b'{"online": false, "timestamp": 11}',
        b'{"online": true, "timestamp": 9}',
        b'{"online": true, "timestamp": 11}',
    ):
        state, change = state.after(body, 100, 0)
        changes.append(change)
    assert changes == ["nothing"] * 3 + ["online"] + ["nothing"] * 4 + ["offline", "nothing", "online"]


def test_host_whose_clock_was_ahead_is_believed_when_it_is_right_again() -> None:
    """A time beyond the tolerance makes no right one old, whether the host's clock was wrong or this machine's."""

    def state_after(state: HostState, now: int, *, online: bool, timestamp: int) -> tuple[HostState, str]:
        return state.after(f'{{"online": {str(online).lower()}, "timestamp": {timestamp}}}'.encode(), now, 600)

    ahead, change = state_after(HostState(), 10_000, online=True, timestamp=10_601)
    assert (change, ahead.ahead, ahead.timestamp) == ("online", 601, 10_000)
    assert state_after(ahead, 10_100, online=False, timestamp=10_100)[1] == "offline"
    assert state_after(ahead, 10_100, online=False, timestamp=9_999)[1] == "nothing"
    near, change = state_after(HostState(), 10_000, online=True, timestamp=10_600)
    assert (change, near.ahead) == ("online", 0)
    assert state_after(near, 10_100, online=False, timestamp=10_599)[1] == "nothing"
    # This machine's clock was ahead, and has been set back.
    late, _ = state_after(HostState(), 99_000, online=True, timestamp=99_000)
    assert state_after(late, 10_000, online=False, timestamp=10_000)[1] == "offline"


@pytest.mark.parametrize(("requests", "due"), [([100.0], 100.0), ([12.0, 13.0], 15.0), ([15.0], 15.0)])
def test_rebirths_are_coalesced(requests: list[float], due: float) -> None:
    """At once, but not within 5 s of the last birth; all that ask meanwhile are answered together."""
    state = Rebirths(born_at=10.0)
    for at in requests:
        state = state.request(at)
    assert state.due == due
    assert state.is_waiting
    assert not state.is_due(due - 0.01)
    assert state.is_due(due)


def test_storm_of_requests_is_three_rebirths() -> None:
    """20 requests a second for 10 s: 3, at the first request, after 5 s, and at the end."""
    state, births = Rebirths(born_at=0.0), 0
    for tick in range(20 * 16):
        now = 100.0 + tick / 20
        if tick < 20 * 10:
            state = state.request(now)
        if state.is_due(now):
            state, births = Rebirths(born_at=now), births + 1
    assert (births, state.is_waiting) == (3, False)


def test_values_are_stale_after_a_minute_without_the_api() -> None:
    """And good again call by call, when each was polled."""
    watch = ApiWatch(("a", "b"), 0.0)
    done = {"a": 1, "b": 1}
    assert watch.look(0.0, 1000, is_connected=True, successes=done)
    assert watch.look(10.0, 2000, is_connected=False, successes=done)
    assert (watch.is_connected, watch.changed_at, watch.stale_calls) == (False, 2000, frozenset())
    assert not watch.look(10.0 + STALE_AFTER_S - 0.1, 3000, is_connected=False, successes=done)
    assert watch.look(10.0 + STALE_AFTER_S, 4000, is_connected=False, successes=done)
    assert watch.stale_calls == {"a", "b"}
    watch.look(90.0, 5000, is_connected=True, successes=done)
    assert watch.stale_calls == {"a", "b"}
    watch.look(91.0, 6000, is_connected=True, successes={"a": 2, "b": 1})
    assert watch.stale_calls == {"b"}


def test_poll_by_which_the_api_is_back_makes_its_values_good() -> None:
    """Also where it has ended by the time that the outlet notices; polls from before the API was away do not count."""
    watch = ApiWatch(("a", "b"), 0.0)
    watch.look(0.0, 1000, is_connected=False, successes={"a": 5, "b": 5})
    watch.look(STALE_AFTER_S, 2000, is_connected=False, successes={"a": 5, "b": 5})
    watch.look(90.0, 3000, is_connected=True, successes={"a": 6, "b": 5})
    assert watch.stale_calls == {"b"}


SPECS = {
    spec.name: spec
    for spec in (
        *(content.call_spec("ut_traffic", member) for member in content.CALL_MEMBERS),
        content.VERSION,
    )
}


def ncmd(*metrics: dict[str, Any]) -> bytes:
    payload = pb.Payload(timestamp=NOW)
    for members in metrics:
        payload.metrics.add(**members)
    return bytes(payload.SerializeToString())


def spec_of(written: Written) -> MetricSpec | None:
    by_alias = {5: "Polling/ut_traffic/Interval"}
    if written.name == "Node Control/Rebirth":
        return MetricSpec(written.name, MetricType.BOOLEAN, writable=True)
    return SPECS.get(written.name or by_alias.get(written.alias or 0, ""))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ({"name": "Node Control/Rebirth", "boolean_value": True}, Rebirth()),
        ({"name": "Polling/ut_traffic/Enabled", "boolean_value": False}, CallWrite("ut_traffic", "enabled", False)),
        ({"name": "Polling/ut_traffic/Interval", "int_value": 60}, CallWrite("ut_traffic", "interval", 60)),
        ({"name": "Polling/ut_traffic/Interval", "long_value": 60}, CallWrite("ut_traffic", "interval", 60)),
        ({"alias": 5, "long_value": (1 << 64) - 1}, CallWrite("ut_traffic", "interval", -1)),
        ({"name": "Polling/ut_traffic/Poll Now", "boolean_value": True}, CallWrite("ut_traffic", "poll", True)),
    ],
)
def test_write_is_read(metric: dict[str, Any], expected: object) -> None:
    """By alias or by name, and with any integer member."""
    assert read_writes(ncmd(metric), spec_of) == [expected]


@pytest.mark.parametrize(
    ("metric", "words", "name"),
    [
        ({"alias": 99, "boolean_value": True}, "alias 99", ""),
        ({"name": "Nobody's\x07", "boolean_value": True}, "Nobody's ", ""),
        ({"name": "Bridge/Version", "string_value": "2"}, "nobody may write it", "Bridge/Version"),
        ({"name": "Polling/ut_traffic/Enabled", "int_value": 1}, "true or false", "Polling/ut_traffic/Enabled"),
        ({"name": "Polling/ut_traffic/Interval", "string_value": "5m"}, "an integer", "Polling/ut_traffic/Interval"),
        ({"name": "Polling/ut_traffic/Interval", "boolean_value": True}, "an integer", "Polling/ut_traffic/Interval"),
        ({"name": "Polling/ut_traffic/Interval", "is_null": True}, "an integer", "Polling/ut_traffic/Interval"),
    ],
)
def test_write_that_is_wrong_is_refused_with_a_sentence(metric: dict[str, Any], words: str, name: str) -> None:
    """It names what was written and what was expected; the metric whose old value is the answer stands with it."""
    (refusal,) = read_writes(ncmd(metric), spec_of)
    assert isinstance(refusal, Refusal)
    assert words in refusal.sentence
    assert refusal.metric == name


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"not a payload", b"\0" * 70_000])
def test_payload_that_is_broken_is_refused(body: bytes) -> None:
    """Nothing of it is obeyed, and the session goes on."""
    (refusal,) = read_writes(body, spec_of)
    assert isinstance(refusal, Refusal)


def test_rebirth_false_asks_for_nothing() -> None:
    """Hosts write it back."""
    assert read_writes(ncmd({"name": "Node Control/Rebirth", "boolean_value": False}), spec_of) == []


def test_quality_numbers_are_those_of_the_specification() -> None:
    """192 is good, 500 is stale."""
    assert (GOOD, STALE) == (192, 500)


def test_generated_module_is_of_the_schema_beside_it() -> None:
    """The descriptor has the messages and fields of sparkplug_b.proto."""
    text = (Path(pb.__file__).parent / "sparkplug_b.proto").read_text(encoding="utf-8")
    messages = [pb.Payload.DESCRIPTOR, *pb.Payload.DESCRIPTOR.nested_types]
    fields = [field for message in messages for field in message.fields]
    assert len(fields) > 40
    for field in fields:
        assert re.search(rf"\b{field.name}\s*=\s*{field.number}\b", text), field.name
