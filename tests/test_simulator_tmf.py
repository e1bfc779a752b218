"""The simulated objects against the public TM Forum schemas (tests/tmf, see README.md there)."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from oneweb_bridge.simulator import Options, Simulator

TMF = Path(__file__).parent / "tmf"

CASES = [
    ("terminals", "TMF639_Resource_Inventory.regular.json", "PhysicalResource"),
    ("components", "TMF639_Resource_Inventory.regular.json", "PhysicalResource"),
    ("products", "TMF637_Product_Inventory_Management.swagger.json", "Product"),
    ("organizations", "TMF632_Party_Management.regular.swagger.json", "Organization"),
    ("sites", "TMF674_GeographicSite_Management.regular.swagger.json", "GeographicSite"),
    ("usage", "TMF677-UsageConsumption-v3.0.1.swagger.json", "UsageConsumptionReport"),
]


@cache
def validator(file: str, definition: str) -> Any:
    document = json.loads((TMF / file).read_text())
    return jsonschema.Draft4Validator({**document, "$ref": f"#/definitions/{definition}"})


@pytest.mark.parametrize(("kind", "file", "definition"), CASES)
def test_objects_follow_the_tmf_schema(kind: str, file: str, definition: str) -> None:
    """Every object of a fleet of 60 is valid by the TM Forum definition that the API is modelled on."""
    objects = Simulator(Options(terminals=60, start="2025-06-17T14:15:00Z", speed=0)).truth(kind)
    problems = [error.message for entry in objects for error in validator(file, definition).iter_errors(entry)]
    assert objects
    assert problems == []


@pytest.mark.parametrize(("kind", "file", "definition"), CASES)
def test_schema_check_refuses_a_wrong_type(kind: str, file: str, definition: str) -> None:
    """The check itself can fail: an id that is a number is refused."""
    first = Simulator(Options(start="2025-06-17T14:15:00Z", speed=0)).truth(kind)[0]
    assert list(validator(file, definition).iter_errors({**first, "id": 5}))


def test_indicators_follow_the_tmf_schema() -> None:
    """Every indicator and granularity of every report is valid by TMF628."""
    file = "TMF628-Performance-v4.0.0.swagger.json"
    world = Simulator(Options(start="2025-06-17T14:15:00Z", speed=0)).world
    reports = ["linkAvailability", "signalQuality", "resourceState", "traffic", "linkMetrics", "throughput"]
    entries = [entry for name in reports for entry in world.performance(name, None).slice(0, 99, world.clock.now())]
    indicators = [
        indicator
        for entry in entries
        for measured in entry["measurement"]
        for indicator in measured["performanceIndicator"]
    ]
    assert indicators
    for indicator in indicators:
        validator(file, "PerformanceIndicatorSpecification").validate(indicator)
    for entry in entries:
        validator(file, "Granularity").validate(entry["granularity"])
