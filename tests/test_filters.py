"""What the filter lets pass."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.config.filters import active, wanted
from oneweb_bridge.config.schema import Filter

TERMINAL: Any = {"imei": "T1", "party_id": "ACC-1", "end_customer_id": "ACC-2", "site_id": "S1"}
PRODUCT: Any = {"imei": "T1", "distribution_partner_id": "ACC-1", "end_customer_id": "ACC-2", "site_id": "S1"}
ORGANIZATION: Any = {"organization_id": "ACC-2", "parent_id": "ACC-1"}
SITE: Any = {"site_id": "S1", "related_party_id": "ACC-1"}
RECORDS: dict[Any, Any] = {"terminal": TERMINAL, "product": PRODUCT, "organization": ORGANIZATION, "site": SITE}


@pytest.mark.parametrize("kind", RECORDS)
def test_empty_filter_lets_everything_pass(kind: Any) -> None:
    """No lists, no filter."""
    assert wanted(Filter(), kind, RECORDS[kind])
    assert wanted(Filter(), kind, {})
    assert not active(Filter())


@pytest.mark.parametrize("rule", [Filter(organizations=("x",)), Filter(sites=("x",)), Filter(imeis=("x",))])
def test_any_list_makes_the_filter_active(rule: Filter) -> None:
    """Each of the three lists is a filter."""
    assert active(rule)


@pytest.mark.parametrize(
    ("rule", "passing"),
    [
        (Filter(organizations=("ACC-1",)), {"terminal", "product", "organization", "site"}),
        (Filter(organizations=("ACC-2",)), {"terminal", "product", "organization"}),
        (Filter(organizations=("ACC-9",)), set()),
        (Filter(organizations=("ACC-9", "ACC-1")), {"terminal", "product", "organization", "site"}),
        (Filter(sites=("S1",)), {"terminal", "product", "organization", "site"}),
        (Filter(sites=("S9",)), {"organization"}),
        (Filter(imeis=("T1",)), {"terminal", "product", "organization", "site"}),
        (Filter(imeis=("T9",)), {"organization", "site"}),
        (Filter(organizations=("ACC-1",), sites=("S9",)), {"organization"}),
        (Filter(sites=("S1",), imeis=("T9",)), {"organization", "site"}),
    ],
)
def test_record_passes_every_list_that_speaks_of_its_kind(rule: Filter, passing: set[str]) -> None:
    """A record needs a match in each list that its kind knows; a list that does not concern it lets it pass."""
    assert passing == {kind for kind, fields in RECORDS.items() if wanted(rule, kind, fields)}


def test_site_of_several_organizations_passes_for_each_of_them() -> None:
    """Those beside the first count too."""
    site: Any = {**SITE, "other_related_party_ids": ["ACC-2", "ACC-3"]}
    for organization in ("ACC-1", "ACC-2", "ACC-3"):
        assert wanted(Filter(organizations=(organization,)), "site", site)
    assert not wanted(Filter(organizations=("ACC-9",)), "site", site)


def test_record_without_the_field_does_not_pass() -> None:
    """A terminal that does not say its site is not at a wanted one."""
    assert not wanted(Filter(sites=("S1",)), "terminal", {"imei": "T1"})


@given(
    st.lists(st.sampled_from(["ACC-1", "ACC-9"]), max_size=2),
    st.lists(st.sampled_from(["S1", "S9"]), max_size=2),
    st.lists(st.sampled_from(["T1", "T9"]), max_size=2),
    st.sampled_from(sorted(RECORDS)),
)
def test_longer_list_lets_more_pass(organizations: list[str], sites: list[str], imeis: list[str], kind: Any) -> None:
    """A name more in a list that is a filter already never takes a record away."""
    rule = Filter(organizations=tuple(organizations), sites=tuple(sites), imeis=tuple(imeis))
    if wanted(rule, kind, RECORDS[kind]):
        for name in ("organizations", "sites", "imeis"):
            parts = {part: getattr(rule, part) for part in ("organizations", "sites", "imeis")}
            if parts[name]:
                assert wanted(Filter(**(parts | {name: (*parts[name], "more")})), kind, RECORDS[kind])
