"""Fields that some APIs have beside the usual ones: each its own where it is there, and absent where it is not."""

from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge.homeassistant import discovery
from oneweb_bridge.homeassistant.discovery import Product, Terminal
from oneweb_bridge.simulator import Shape
from oneweb_bridge.sparkplug import tree
from tests import truth
from tests.polls import bench
from tests.test_decode import read_one
from tests.test_discovery import BUCKET, IMEI, PRODUCT_ID, RECORD, SETUP

TERMINALS, SITES, USAGE = "user_terminals", "sites", "usage_consumption"
MORE = {TERMINALS: {"network_status", "firmware_version"}, SITES: {"other_related_party_ids"}}


@pytest.mark.parametrize(
    ("call", "record", "fields"),
    [
        (TERMINALS, {"networkStatus": "inService"}, {"network_status": "inService"}),
        (TERMINALS, {"IntegratedNetworkStatus": "degraded"}, {"network_status": "degraded"}),
        (TERMINALS, {"resourceState": "online"}, {"state": "online"}),
        (TERMINALS, {"firmwareVersion": "2.0.3"}, {"firmware_version": "2.0.3"}),
        (TERMINALS, {"softwareVersion": "2.0.3"}, {"firmware_version": "2.0.3"}),
        (SITES, {"relatedParty": [{"id": "A"}]}, {"related_party_id": "A"}),
        (
            SITES,
            {"relatedParty": [{"id": "A"}, {"id": "C"}, {"id": "B"}, {"id": "C"}]},
            {"related_party_id": "A", "other_related_party_ids": ["B", "C"]},
        ),
        (USAGE, {"currentBalance": 20.5}, {"current_balance_gb": 20.5}),
        (USAGE, {"currentBalance": {"amount": 20500, "units": "MB"}}, {"current_balance_gb": 20.5}),
        (USAGE, {"bucketBalance": [{"currentBalance": {"amount": -1, "units": "GB"}}]}, {"current_balance_gb": -1.0}),
    ],
)
def test_a_field_is_there_where_the_api_has_it(call: str, record: dict[str, Any], fields: dict[str, Any]) -> None:
    """And nothing else is: what is not known is absent."""
    key = {TERMINALS: "imei", SITES: "site_id", USAGE: "bucket_id"}[call]
    assert read_one(call, {"id": "X", **record}).fields == {key: "X", **fields}


async def test_an_api_that_has_them_is_read_as_it_says(tmp_path: Path) -> None:
    """The simulated API with more fields, against the independent judge."""
    async with bench(tmp_path, {"shape": Shape(more_fields=True)}) as b:
        await b.poll("products", TERMINALS, SITES, USAGE)
        for kind, thing, read in (("terminal", "terminals", truth.terminal), ("site", "sites", truth.site)):
            for item in b.sim.truth(thing):
                wanted = read(item)
                record = await b.record(kind, item["id"])
                assert all(record[name] == wanted[name] for name in MORE[TERMINALS if kind == "terminal" else SITES])
        balances = [row[0] for row in await b.rows("SELECT json_extract(doc, '$.current_balance_gb') FROM record")]
        assert any(isinstance(balance, float) for balance in balances)


async def test_an_api_that_begins_to_send_them_causes_events_of_those_records_alone(tmp_path: Path) -> None:
    """As after an upgrade, when they are read for the first time: the others have no event, these are `remapped`."""
    before = {TERMINALS: {"map": {"network_status": None, "firmware_version": None}}}
    async with bench(tmp_path, polling=before) as b:
        imei = b.ids("terminals")[0]
        b.sim.fleet("set", id=imei, attributes={"networkStatus": "inService"})
        await b.poll(TERMINALS)
        await b.news()
        b.configure(polling={TERMINALS: {"map": {"network_status": "networkStatus", "firmware_version": "fw"}}})
        await b.poll(TERMINALS)
        (event,) = [row for row in await b.news() if row.what == "changed"]
        assert (event.id, event.body["remapped"]) == (imei, True)
        assert event.body["changed"] == {"network_status": {"from": None, "to": "inService"}}


def test_home_assistant_shows_them() -> None:
    """A network status and a balance are sensors; the terminal's own firmware goes before that of its components."""
    record = {**RECORD, "network_status": "inService", "firmware_version": "9.1"}
    payload = discovery.terminal(SETUP, Terminal(imei=IMEI, record=record, components={"main/UT": "2"}))
    assert payload["device"]["sw_version"] == "9.1"
    assert payload["components"]["network_status"]["platform"] == "sensor"
    bucket = {**BUCKET, "current_balance_gb": 7.0}
    known = Product(product_id=PRODUCT_ID, record={"name": "Plan"}, imei=IMEI, buckets=[bucket])
    assert discovery.product(SETUP, known)["components"]["usage_1409-19_current_balance_gb"]["device_class"]


def test_sparkplug_has_them_beside_its_tables() -> None:
    """The tables of metrics are fixed, so they are in the folder Other; a Device without them has no such metric."""
    metrics = {m.spec.name: m.value for m in tree.terminal_metrics({**RECORD, "network_status": "x"}, 1, ("online",))}
    assert metrics["Other/Network Status"] == "x"
    assert not any(m.spec.name.startswith("Other/") for m in tree.terminal_metrics(RECORD, 1, ("online",)))
