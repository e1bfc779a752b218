"""A deviating API is read right, with lines or without, or the user is told: none is silently wrong."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina

from tests import fidelity_runs
from tests.fidelity import DOCUMENT
from tests.fidelity_api import Api, error
from tests.fidelity_runs import CALLS, told_after
from tests.fidelity_variants import VARIANTS

DOCUMENTED = fidelity_runs.listed(DOCUMENT.read_text())


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=1, cap=True):
        yield


@pytest.mark.parametrize("name", VARIANTS)
async def test_a_variant_is_read_right_or_told(name: str, tmp_path: Path) -> None:
    """With the lines that explore prints, what is published is the truth; else explore and each poll say what is wrong.

    docs/fidelity.md has the lines, and the first sentence of the poll.
    """
    outcome = await fidelity_runs.outcome_of(VARIANTS[name], tmp_path, fidelity_runs.rounds_of(name))
    assert outcome.kind in ("right", "lines", "told"), outcome
    documented = outcome.kind, fidelity_runs.cell(outcome)
    assert DOCUMENTED[name] == documented, "python -m tests.fidelity writes docs/fidelity.md anew"


def test_most_variants_are_read_right() -> None:
    """The document has every variant, and at least four of five are read right."""
    assert list(DOCUMENTED) == list(VARIANTS)
    assert len(VARIANTS) >= 90
    assert sum(kind != "told" for kind, _ in DOCUMENTED.values()) >= 0.8 * len(VARIANTS)


# ── changes of a good API ──────────────────────────────────────────────────────────────────────


def records(call: str, made: Callable[[Any], Any]) -> Callable[[Api], None]:
    """Each record of a call is another one from now on."""
    return lambda api: setattr(api, "record", lambda of, record: made(record) if of == call else record)


def renamed(call: str, before: str, after: str = "zz") -> tuple[str, Callable[[Api], None]]:
    return call, records(call, lambda r: {after if name == before else name: value for name, value in r.items()})


def indicators(call: str, made: Callable[[Any], Any]) -> tuple[str, Callable[[Api], None]]:
    def changed(record: Any) -> Any:
        measurements = [
            {**m, "performanceIndicator": [made(i) for i in m["performanceIndicator"]]} for m in record["measurement"]
        ]
        return {**record, "measurement": measurements}

    return call, records(call, changed)


def half(call: str, name: str) -> tuple[str, Callable[[Api], None]]:
    def change(api: Api) -> None:
        count = iter(range(10_000))
        api.record = lambda of, r: {n: v for n, v in r.items() if n != name} if of == call and next(count) % 2 else r

    return call, change


TERMINALS, SIGNAL, TRAFFIC, RATES = "user_terminals", "ut_signal_quality", "ut_traffic", "product_throughput"
MUTATIONS: dict[str, tuple[str, Callable[[Api], None]]] = {
    "a terminal's state is renamed": renamed(TERMINALS, "resourceState"),
    "its name is renamed": renamed(TERMINALS, "name"),
    "its location is renamed": renamed(TERMINALS, "location"),
    "its serial number is gone": renamed(TERMINALS, "serialNumber"),
    "half of the terminals have no position": half(TERMINALS, "location"),
    "half of the terminals have no state": half(TERMINALS, "resourceState"),
    "latitudes are ten times too large": (
        TERMINALS,
        records(TERMINALS, lambda r: {**r, "location": {"features": [{"geometry": {"coordinates": [6.5, 622.5, 1]}}]}}),
    ),
    "components are renamed": (
        "user_terminal_components",
        records(TERMINALS, lambda r: {"zz" if name == "component" else name: value for name, value in r.items()}),
    ),
    "a product's status is renamed": renamed("products", "status"),
    "its terminal is renamed": renamed("products", "realizingResource"),
    "its characteristics are renamed": renamed("products", "characteristic"),
    "organizations have no trading name": renamed("organizations", "tradingName"),
    "sites have no position": renamed("sites", "geographicLocation"),
    "indicators have other names": indicators(SIGNAL, lambda i: {**i, "name": f"zz{i['name'][1:]}"}),
    "rates are a thousand times larger": indicators(RATES, lambda i: {**i, "value": i["value"] * 1000}),
    "levels have another unit": indicators(SIGNAL, lambda i: {**i, "indicatorUnit": "V"}),
    "levels are positive": indicators(SIGNAL, lambda i: {**i, "value": abs(i["value"]) + 100}),
    "reports carry ids of another system": (SIGNAL, records(SIGNAL, lambda r: {**r, "id": f"X{r['id'][-6:]}"})),
    "usage is of products of another system": (
        "usage_consumption",
        records(
            "usage_consumption",
            lambda r: {**r, "bucket": [{"id": b["id"], "product": [{"id": f"X{r['id']}"}]} for b in r["bucket"]]},
        ),
    ),
    "usage has no amounts": (
        "usage_consumption",
        records("usage_consumption", lambda r: {**r, "bucket": [{"id": b["id"]} for b in r["bucket"]]}),
    ),
    "the list is elsewhere": (TERMINALS, lambda api: setattr(api, "wrap", lambda _, items, __: {"zz": items})),
    "the list is empty and its total is not": (
        TERMINALS,
        lambda api: setattr(api, "wrap", lambda _, items, __: {"items": [], "total": len(items)}),
    ),
    "the path is gone": ("sites", lambda api: api.paths.update(sites="/zz")),
    "a call is refused": (
        "products",
        lambda api: setattr(api, "refuse", lambda r: error(403) if r.call == "products" else None),
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
async def test_a_change_of_a_good_api_is_told_within_one_poll(name: str, tmp_path: Path) -> None:
    """A poll that was good yesterday and is not today says so."""
    call, change = MUTATIONS[name]
    run = await told_after(change, tmp_path)
    assert call in run.sentences


async def test_an_api_that_did_not_change_tells_nothing(tmp_path: Path) -> None:
    run = await told_after(lambda _: None, tmp_path)
    assert run.sentences == {}
    assert len(MUTATIONS) >= 20
    assert {call for call, _ in MUTATIONS.values()} <= set(CALLS)
