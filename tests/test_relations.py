"""What belongs to a terminal, as the records of the other calls say it."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Fields, StoredRecord
from oneweb_bridge.polling.relations import compare, join_relations, named_ids

TERMINAL: Fields = {
    "imei": "T",
    "product_ids": ["P2"],
    "site_id": "S1",
    "party_id": "A1",
    "party_name": "said by the terminal",
    "end_customer_id": "A3",
}
PRODUCT: Fields = {
    "product_id": "P1",
    "imei": "T",
    "site_id": "S2",
    "distribution_partner_id": "A1",
    "end_customer_id": "A2",
    "end_customer_name": "said by the product",
}


def test_relations_join_the_names_of_the_records() -> None:
    """Ids get the names that the site's and the organizations' own records carry."""
    relations = join_relations(
        "T", TERMINAL, [PRODUCT], {"S1": {"name": "Harbour"}}, {"A1": {"name": "Partner"}, "A2": {"name": "C"}}
    )
    assert relations == {
        "imei": "T",
        "product_ids": ["P1", "P2"],
        "site": {"id": "S1", "name": "Harbour"},
        "distribution_partner": {"id": "A1", "name": "Partner"},
        "end_customer": {"id": "A2", "name": "C"},
    }


def test_relations_without_the_records_say_what_is_known() -> None:
    """An id without a record is normal: then the name that terminal or product said counts, or none."""
    assert join_relations("T", TERMINAL, [PRODUCT], {}, {}) == {
        "imei": "T",
        "product_ids": ["P1", "P2"],
        "site": {"id": "S1"},
        "distribution_partner": {"id": "A1", "name": "said by the terminal"},
        "end_customer": {"id": "A2", "name": "said by the product"},
    }


def test_relations_of_a_bare_terminal_are_few() -> None:
    """What is not known is absent, never null."""
    assert join_relations("T", {"imei": "T"}, [], {}, {}) == {"imei": "T", "product_ids": []}


def test_customer_comes_from_the_terminal_when_no_product_has_one() -> None:
    """The product says who pays; without one the terminal does."""
    relations = join_relations("T", TERMINAL, [], {}, {})
    assert relations["end_customer"] == {"id": "A3"}
    assert relations["product_ids"] == ["P2"]


def test_site_comes_from_the_product_when_the_terminal_has_none() -> None:
    """The terminal says where it is; without it its product does."""
    assert join_relations("T", {"imei": "T"}, [PRODUCT], {"S2": {"name": "n"}}, {})["site"] == {"id": "S2", "name": "n"}


def test_named_ids_are_all_that_relations_name() -> None:
    """Every site and organization that a relation may name is loaded for it."""
    sites, organizations = named_ids({"T": TERMINAL}, {"P1": PRODUCT})
    assert (sites, organizations) == ({"S1", "S2"}, {"A1", "A2", "A3"})


IDS = st.sampled_from(["x", "y"])
RECORD: Any = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("site_id", "party_id", "party_name", "distribution_partner_id", "end_customer_id", "end_customer_name"), IDS
    ),
)


@given(RECORD, st.lists(RECORD, max_size=3))
def test_relations_name_only_ids_that_are_loaded(terminal: Fields, products: list[Fields]) -> None:
    """No id in a relation is missing among those whose records were looked up, and no name is empty."""
    owned = [{**product, "product_id": f"P{i}"} for i, product in enumerate(products)]
    sites, organizations = named_ids({"T": terminal}, {f"P{i}": product for i, product in enumerate(owned)})
    relations: Any = join_relations("T", terminal, owned, {}, {})
    for name, known in (("site", sites), ("distribution_partner", organizations), ("end_customer", organizations)):
        if name in relations:
            assert relations[name]["id"] in known
            assert relations[name].get("name") != ""


# --- what is said ---------------------------------------------------------------------------------


def test_changed_relations_are_said_and_stored() -> None:
    """New and changed relations are a state of the terminal, without an event; unchanged ones are silent."""
    related: dict[str, dict[str, object]] = {"T": {"imei": "T", "product_ids": ["P"]}}
    batch = compare(["T"], {"T": {"imei": "T"}}, related, {}, 7)
    (entry,), (put,) = batch.entries, batch.writes
    assert (entry.entity, entry.id, entry.what, entry.name, entry.ts) == ("terminal", "T", "state", "relations", 7)
    assert json.loads(entry.body) == json.loads(put.doc) == related["T"]
    assert (put.kind, put.entry, batch.relations_done) == ("relations", 0, ["T"])
    batch_again = compare(["T"], {"T": {"imei": "T"}}, related, {"T": StoredRecord(put.doc)}, 8)
    assert (batch_again.entries, batch_again.writes, batch_again.relations_done) == ([], [], ["T"])
    other = compare(["T"], {"T": {"imei": "T"}}, related, {"T": StoredRecord(encode({"imei": "T"}))}, 8)
    assert len(other.entries) == 1


def test_terminal_that_is_gone_has_no_relations() -> None:
    """A terminal that was removed meanwhile is worked off without a word."""
    batch = compare(["T"], {}, {}, {}, 7)
    assert (batch.entries, batch.writes, batch.relations_done) == ([], [], ["T"])
