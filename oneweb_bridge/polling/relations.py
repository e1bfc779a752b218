"""What belongs to a terminal, joined from the records of the other calls. Pure.

All joins are soft: the lists are polled at different times, so an id without a record is normal,
and then what the terminal or its product itself says of it counts.
"""

from collections.abc import Mapping, Sequence

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Batch, Entry, Fields, RecordWrite, StoredRecord
from oneweb_bridge.polling.diff import fields_of

_PARTNER = "distribution_partner"
_CUSTOMER = "end_customer"


def join_relations(
    imei: str,
    terminal: Fields,
    products: Sequence[Fields],
    sites: Mapping[str, Fields],
    organizations: Mapping[str, Fields],
) -> dict[str, object]:
    """The relations of one terminal: ids, and names where they are known."""
    ids = {*_texts(terminal.get("product_ids")), *(str(product["product_id"]) for product in products)}
    said: dict[str, object] = {"imei": imei, "product_ids": sorted(ids)}
    sources = {
        "site": _carried_reference(terminal, "site_id", "") or _first(products, "site_id", ""),
        _PARTNER: _carried_reference(terminal, "party_id", "party_name")
        or _first(products, f"{_PARTNER}_id", f"{_PARTNER}_name"),
        _CUSTOMER: _first(products, f"{_CUSTOMER}_id", f"{_CUSTOMER}_name")
        or _carried_reference(terminal, f"{_CUSTOMER}_id", f"{_CUSTOMER}_name"),
    }
    for name, found in sources.items():
        if found is not None:
            records = sites if name == "site" else organizations
            known = records.get(found[0], {}).get("name") or found[1]
            said[name] = {"id": found[0], "name": known} if known else {"id": found[0]}
    return said


def wanted_ids(terminals: Mapping[str, Fields], products: Mapping[str, Fields]) -> tuple[set[str], set[str]]:
    """The sites and the organizations whose names the relations of these terminals need."""
    records = [*terminals.values(), *products.values()]
    sites = {str(record["site_id"]) for record in records if "site_id" in record}
    parties = ("party_id", f"{_PARTNER}_id", f"{_CUSTOMER}_id")
    return sites, {str(record[name]) for record in records for name in parties if name in record}


def compare(
    imeis: Sequence[str],
    terminals: Mapping[str, Fields],
    related: Mapping[str, dict[str, object]],
    before: Mapping[str, StoredRecord],
    now: int,
) -> Batch:
    """What to store and say of the relations of `imeis`; terminals that are gone have none."""
    batch = Batch(related=list(imeis))
    for imei in imeis:
        if imei not in terminals:
            continue
        doc = encode(related[imei])
        if imei not in before or fields_of(before[imei]) != related[imei]:
            batch.puts.append(RecordWrite("relations", imei, doc, entry=len(batch.entries)))
            batch.entries.append(Entry("terminal", imei, "state", "relations", now, doc))
    return batch


def _carried_reference(fields: Fields, id_name: str, name: str) -> tuple[str, str] | None:
    id = fields.get(id_name)
    return None if id is None else (str(id), str(fields.get(name, "")))


def _first(products: Sequence[Fields], id_name: str, name: str) -> tuple[str, str] | None:
    return next((found for product in products if (found := _carried_reference(product, id_name, name))), None)


def _texts(value: object) -> list[str]:
    return value if isinstance(value, list) else []
