"""Home Assistant's discovery: which devices and entities come of which records, and that all of them are valid."""

import ast
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.homeassistant import discovery, entities
from oneweb_bridge.homeassistant.discovery import DiscoverySettings, Product, ReportValues, Terminal
from oneweb_bridge.model.records import Fields
from oneweb_bridge.model.value_types import merge_value_types, value_types
from oneweb_bridge.mqtt.topics import TopicTree

IMEI, PRODUCT_ID = "359235170006117", "SC-410027318852"


def setup_of(instance: str = "main") -> DiscoverySettings:
    tree = TopicTree("oneweb", instance, "journal")
    return DiscoverySettings(
        tree=tree, prefix="homeassistant", version="1.2.3", online=("online",), accuracy=100, calls=CALLS
    )


SETUP = setup_of()
TRAFFIC = ReportValues(
    "traffic", {f"{side}_{way}_bytes": "n" for side in ("cnx", "mgmt", "wan") for way in ("tx", "rx")}
)
SIGNAL = ReportValues("signal_quality", {"rsrp_dbm": "n", "rssi_dbm": "n", "sinr_db": "n"})
RECORD: dict[str, Any] = {
    "imei": IMEI,
    "name": "Aurora UT1",
    "state": "online",
    "latitude": 64.2,
    "longitude": -51.7,
    "manufacturer": "Intellian",
    "serial_number": "SN1",
    "hardware_version": "B",
}
BUCKET: dict[str, Any] = {
    "bucket_id": "1409-19",
    "bucket_name": "Data",
    "used_gb": 3.0,
    "remaining_gb": 7.0,
    "entitlement_gb": 10.0,
    "overage_blocks": 0,
    "valid_from": "2025-06-01T00:00:00Z",
    "valid_until": "2025-07-01T00:00:00Z",
}


def test_terminal_has_everything_that_is_sent_of_it() -> None:
    """A terminal's device names it, its firmware and its bridge, and has an entity for each value that is known."""
    components: Fields = {"main/SSM": "SSM_5", "main/UT": "UT_2", "factory/UT": "UT_1"}
    payload = discovery.terminal(
        SETUP, Terminal(imei=IMEI, record=RECORD, components=components, reports=[SIGNAL, TRAFFIC])
    )

    assert payload["device"] == {
        "identifiers": [f"oneweb_main_terminal_{IMEI}"],
        "name": "Aurora UT1",
        "manufacturer": "Intellian",
        "model": "User terminal",
        "via_device": "oneweb_main_bridge",
        "serial_number": "SN1",
        "hw_version": "B",
        "sw_version": "UT_2",
    }
    assert discovery.platforms(payload) == {
        "connectivity": "binary_sensor",
        "state": "sensor",
        "position": "device_tracker",
        "changes": "event",
        "component_factory_x2fUT": "sensor",
        "component_main_x2fSSM": "sensor",
        "component_main_x2fUT": "sensor",
        **{f"signal_quality_{name}": "sensor" for name in SIGNAL.types},
        **{f"traffic_{name}": "sensor" for name in TRAFFIC.types},
    }
    assert all(
        c["entity_category"] == "diagnostic" for k, c in payload["components"].items() if k.startswith("component")
    )


def test_what_is_not_sent_has_no_entity() -> None:
    """A terminal without state, position, firmware and samples has its events and nothing else."""
    payload = discovery.terminal(SETUP, Terminal(imei=IMEI, record={"imei": IMEI}))

    assert set(payload["components"]) == {"changes"}
    assert "sw_version" not in payload["device"]


@pytest.mark.parametrize(
    ("shape", "key", "unit", "device_class", "state_class"),
    [
        (SIGNAL, "signal_quality_rsrp_dbm", "dBm", "signal_strength", "measurement"),
        (SIGNAL, "signal_quality_sinr_db", "dB", "signal_strength", "measurement"),
        (TRAFFIC, "traffic_wan_tx_bytes", "B", "data_size", "total_increasing"),
        (ReportValues("traffic", {"new_bytes": "n"}), "traffic_new_bytes", "B", "data_size", "measurement"),
        (ReportValues("link_metrics", {"loss_pct": "n"}), "link_metrics_loss_pct", "%", None, "measurement"),
        (ReportValues("signal_quality", {"gain_dbk": "n"}), "signal_quality_gain_dbk", None, None, "measurement"),
    ],
)
def test_number_has_the_unit_that_home_assistant_knows(
    shape: ReportValues, key: str, unit: str | None, device_class: str | None, state_class: str
) -> None:
    """Units and classes follow the end of a name; only counters only grow; a unit that is not known is left out."""
    entity = discovery.terminal(SETUP, Terminal(imei=IMEI, record={}, reports=[shape]))["components"][key]

    assert entity.get("unit_of_measurement") == unit
    assert entity.get("device_class") == device_class
    assert entity["state_class"] == state_class


def test_usage_sensor_is_a_total_reset_at_cycle_start() -> None:
    """Usage is a total that begins anew with the bill cycle, because a correction may lower it."""
    known = Product(product_id=PRODUCT_ID, record={"name": "Plan", "status": "active"}, imei=IMEI, buckets=[BUCKET])
    payload = discovery.product(SETUP, known)

    assert payload["device"]["via_device"] == f"oneweb_main_terminal_{IMEI}"
    used = payload["components"]["usage_1409-19_used_gb"]
    assert used["state_class"] == "total"
    assert "valid_from" in used["last_reset_value_template"]
    names = {key.removeprefix("usage_1409-19_") for key in payload["components"]}
    amounts = {"used_gb", "remaining_gb", "entitlement_gb", "overage_blocks", "used_pct"}
    assert names == amounts | {"valid_from", "valid_until", "status"}


FORECAST: Fields = {"bucket_id": "1409-19", "product_id": PRODUCT_ID, "status": "not_enough_data"}


def forecast_entities(record: Fields, *buckets: Fields, **forecasts: Fields) -> dict[str, Any]:
    """The entities of forecasts of a product, by what is behind the bucket's id."""
    known = Product(product_id=PRODUCT_ID, record=record, buckets=buckets or [BUCKET], forecasts=forecasts)
    entities_found: dict[str, Any] = discovery.product(SETUP, known)["components"]
    return {key: entity for key, entity in entities_found.items() if key.startswith("forecast_")}


def test_forecast_has_its_entities_with_the_band_as_attributes() -> None:
    """When it is exhausted, how probably, what is used at the end, and how many blocks, from the forecast's topic."""
    entities_found = forecast_entities({"overage_increment_gb": 30.0}, **{"1409-19": FORECAST})
    state = f"oneweb/product/{PRODUCT_ID}/forecast/1409-19"

    assert {key.removeprefix("forecast_1409-19_"): entity["name"] for key, entity in entities_found.items()} == {
        "exhausted": "Allowance exhausted",
        "probability": "Exhaustion probability",
        "used_at_end": "Usage at end of cycle",
        "overage": "Overage blocks expected",
    }
    assert {entity["state_topic"] for entity in entities_found.values()} == {state}
    assert {entity["json_attributes_topic"] for entity in entities_found.values()} == {state}
    exhausted, at_end = entities_found["forecast_1409-19_exhausted"], entities_found["forecast_1409-19_used_at_end"]
    assert exhausted["device_class"] == "timestamp"
    assert "'exhausted_p10'" in exhausted["json_attributes_template"]
    assert (at_end["device_class"], at_end["unit_of_measurement"]) == ("data_size", "GB")
    assert entities_found["forecast_1409-19_probability"]["unit_of_measurement"] == "%"
    assert "entity_category" not in exhausted


def test_forecast_says_nothing_of_what_there_is_not() -> None:
    """No entity for an unlimited allowance or without a forecast, none for blocks whose size is not known."""
    unlimited: Fields = {**FORECAST, "status": "unlimited"}

    assert forecast_entities({}) == {}
    assert forecast_entities({}, **{"1409-19": unlimited}) == {}
    assert len(forecast_entities({}, **{"1409-19": FORECAST})) == 3


def test_forecasts_of_two_buckets_are_told_apart() -> None:
    """As their usage is."""
    two = [BUCKET, {**BUCKET, "bucket_id": "1409-20", "bucket_name": "Voice"}]
    entities_found = forecast_entities(
        {}, *two, **{"1409-19": FORECAST, "1409-20": {**FORECAST, "bucket_id": "1409-20"}}
    )

    assert {entity["name"] for entity in entities_found.values() if "probability" in entity["name"]} == {
        "Exhaustion probability (Data)",
        "Exhaustion probability (Voice)",
    }


def test_product_without_a_terminal_hangs_on_the_bridge() -> None:
    """A product whose terminal is not announced is reached through the bridge, and has no share of an unknown whole."""
    bucket = {name: value for name, value in BUCKET.items() if name not in ("entitlement_gb", "remaining_gb")}
    payload = discovery.product(SETUP, Product(product_id=PRODUCT_ID, record={}, buckets=[bucket]))

    assert payload["device"]["via_device"] == "oneweb_main_bridge"
    assert "usage_1409-19_used_pct" not in payload["components"]


def test_call_can_be_switched_set_and_polled() -> None:
    """A call is a device with a switch and a number that are retained, and a button that is not."""
    components = discovery.call(SETUP, "ut_traffic")["components"]

    base = "oneweb/bridge/polling/ut_traffic"
    assert (components["enabled"]["command_topic"], components["enabled"]["retain"]) == (f"{base}/enabled/set", True)
    assert (components["interval"]["command_topic"], components["interval"]["retain"]) == (f"{base}/interval/set", True)
    assert components["poll"]["command_topic"] == f"{base}/poll"
    assert "retain" not in components["poll"]
    assert set(components) == {"enabled", "interval", "poll", "status", "last_poll", "last_success", "problem"}


def test_one_message_makes_a_fleet_unavailable() -> None:
    """Every entity of a terminal hangs on the bridge's status and on the state of the call that feeds it."""
    payload = discovery.terminal(
        SETUP, Terminal(imei=IMEI, record=RECORD, components={"main/UT": "1"}, reports=[SIGNAL])
    )

    def fed_by(key: str) -> list[str]:
        return [entry["topic"] for entry in payload["components"][key]["availability"]]

    for key, call in {
        "state": "user_terminals",
        "component_main_x2fUT": "user_terminal_components",
        "signal_quality_sinr_db": "ut_signal_quality",
    }.items():
        assert fed_by(key) == ["oneweb/bridge/status", f"oneweb/bridge/polling/{call}/state"]
    assert payload["availability_mode"] == "all"


def test_device_identifiers_differ_between_instances() -> None:
    """No device of one bridge has the identifier of a device of another, whatever they are called."""
    first, other = setup_of("a"), setup_of("a_terminal")

    assert discovery.identifier(first, "terminal", "bridge") != discovery.identifier(other, "bridge")


# ── whatever the API sends ─────────────────────────────────────────────────────────────────────

WORDS = st.text(max_size=600)
VALUES = st.one_of(WORDS, st.floats(allow_nan=False, allow_infinity=False), st.booleans())
SHAPES = st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,40}", fullmatch=True), st.sampled_from("ntb"), max_size=5)


def checked(payload: dict[str, Any], topic: str) -> None:
    """What Home Assistant asks of every device."""
    assert re.fullmatch(r"homeassistant/device/[A-Za-z0-9_-]+/config", topic)
    assert set(payload) == {"device", "origin", "availability", "availability_mode", "components"}
    name = payload["device"]["name"]
    assert 0 < len(name) <= discovery.LONGEST_NAME
    assert name.isprintable()
    unique = [entity["unique_id"] for entity in payload["components"].values()]
    assert len(set(unique)) == len(unique)
    assert all(" " not in key and entity["name"] for key, entity in payload["components"].items())
    assert json.loads(discovery.message(topic, payload).payload) == payload
    for entity in payload["components"].values():
        for template in (value for key, value in entity.items() if key.endswith("_template")):
            # A cleared topic brings a message that is no JSON, which must not make an error there.
            assert "value_json is defined" in template
            code = re.sub(r"'(?:\\.|[^'\\])*'", "''", template)
            assert code.count("{{") == code.count("}}") == 1


@settings(deadline=None)  # another process may have the core
@given(imei=WORDS, name=WORDS, components=st.dictionaries(WORDS, WORDS, max_size=3), shape=SHAPES, shared=st.booleans())
def test_any_terminal_is_a_valid_device(
    imei: str, name: str, components: Fields, shape: dict[str, str], *, shared: bool
) -> None:
    """Whatever a terminal is called and consists of, its device is valid, bounded and complete."""
    record: Fields = {
        "imei": imei,
        "name": name,
        "state": name,
        "manufacturer": name,
        "latitude": 1.0,
        "longitude": 2.0,
    }
    shapes = [ReportValues("signal_quality", shape), ReportValues("nobody_knows", shape)]
    known = Terminal(imei=imei, record=record, components=components, reports=shapes, shared_name=shared)

    checked(discovery.terminal(SETUP, known), discovery.topic(SETUP, "terminal", imei))


@settings(deadline=None)  # another process may have the core
@given(id=WORDS, names=st.lists(WORDS, max_size=3), fields=st.dictionaries(st.sampled_from(sorted(BUCKET)), VALUES))
def test_any_product_is_a_valid_device(id: str, names: list[str], fields: dict[str, Any]) -> None:
    """Whatever a product and its buckets are called, its device is valid and its entities are told apart."""
    buckets = [{**fields, "bucket_id": f"{number}/{id}", "bucket_name": name} for number, name in enumerate(names)]
    payload = discovery.product(SETUP, Product(product_id=id, record={"name": id}, buckets=buckets))

    checked(payload, discovery.topic(SETUP, "product", id))
    titles = [entity["name"] for entity in payload["components"].values()]
    assert len(set(titles)) == len(titles)


@settings(deadline=None)  # another process may have the core
@given(left=st.tuples(WORDS, WORDS), right=st.tuples(WORDS, WORDS))
def test_namesakes_are_told_apart(left: tuple[str, str], right: tuple[str, str]) -> None:
    """Two terminals of one name have two identifiers, and short plain ids stand in their names."""
    if left[0] != right[0]:
        assert discovery.identifier(SETUP, "terminal", left[0]) != discovery.identifier(SETUP, "terminal", right[0])
    first, second = (
        discovery.device_name(left[1], "OneWeb terminal", imei, always=True) for imei in (IMEI, "359235170006125")
    )
    assert first != second
    assert len(first) <= discovery.LONGEST_NAME


@settings(deadline=None)  # another process may have the core
@given(WORDS)
def test_quoted_text_stays_within_its_quotes(text: str) -> None:
    """Any text is a literal that means itself, and cannot end the literal or the template."""
    literal = entities.quoted(text)

    assert ast.literal_eval(literal) == text
    assert not set("'\"{}%#\\\n") & set(re.sub(r"\\U[0-9a-f]{8}", "", literal[1:-1]))


# ── what was there before ──────────────────────────────────────────────────────────────────────


def test_entity_that_is_gone_is_named_once_more() -> None:
    """An entity that was announced and is not any more is marked with its platform alone."""
    payload = discovery.terminal(SETUP, Terminal(imei=IMEI, record=RECORD))
    before = {**discovery.platforms(payload), "old": "sensor"}

    assert discovery.with_removed_entities(payload, before)["components"] == {
        **payload["components"],
        "old": {"platform": "sensor"},
    }


def test_value_of_two_types_is_a_text() -> None:
    """A value that came as a number and as a text is a text from then on, so that its entity stays the same."""
    number, text = value_types({"a": 1.0, "b": True}), value_types({"a": "x"})

    assert merge_value_types(number, text) == "a=t b=b"
    assert merge_value_types(merge_value_types(number, text), number) == "a=t b=b"
    assert merge_value_types("", number) == number


def test_a_state_in_capitals_is_the_same_state() -> None:
    """An API that says ONLINE has no fleet of terminals that are off."""
    payload = discovery.terminal(SETUP, Terminal(imei=IMEI, record=RECORD))
    template = payload["components"]["connectivity"]["value_template"]
    assert "value_json.get('state') | string | lower in ['online']" in template


def test_an_incomplete_call_is_a_problem() -> None:
    template = discovery.call(SETUP, "sites")["components"]["problem"]["value_template"]
    assert "'incomplete'" in template
