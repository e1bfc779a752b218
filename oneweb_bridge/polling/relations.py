"""What belongs to a terminal, joined from the records of the other calls. Pure.

All joins are soft: the calls are polled at different times, so an id without a record is normal,
and then the name counts that the terminal or its product itself carries.
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
    joined: dict[str, object] = {"imei": imei, "product_ids": sorted(ids)}
    sources = {
        "site": _carried_reference(terminal, "site_id", "") or _first(products, "site_id", ""),
        _PARTNER: _carried_reference(terminal, "party_id", "party_name")
        or _first(products, f"{_PARTNER}_id", f"{_PARTNER}_name"),
        _CUSTOMER: _first(products, f"{_CUSTOMER}_id", f"{_CUSTOMER}_name")
        or _carried_reference(terminal, f"{_CUSTOMER}_id", f"{_CUSTOMER}_name"),
    }
    for member, reference in sources.items():
        if reference is not None:
            id, carried_name = reference
            records = sites if member == "site" else organizations
            name = records.get(id, {}).get("name") or carried_name
            joined[member] = {"id": id, "name": name} if name else {"id": id}
    return joined


def named_ids(terminals: Mapping[str, Fields], products: Mapping[str, Fields]) -> tuple[set[str], set[str]]:
    """The sites and the organizations whose names the relations of these terminals need."""
    records = [*terminals.values(), *products.values()]
    sites = {str(record["site_id"]) for record in records if "site_id" in record}
    parties = ("party_id", f"{_PARTNER}_id", f"{_CUSTOMER}_id")
    return sites, {str(record[name]) for record in records for name in parties if name in record}


def compare(
    imeis: Sequence[str],
    terminals: Mapping[str, Fields],
    joined: Mapping[str, dict[str, object]],
    before: Mapping[str, StoredRecord],
    now: int,
) -> Batch:
    """What to store and to publish of the relations of `imeis`; removed terminals have none."""
    batch = Batch(relations_done=list(imeis))
    for imei in imeis:
        if imei not in terminals:
            continue
        doc = encode(joined[imei])
        if imei not in before or fields_of(before[imei]) != joined[imei]:
            batch.writes.append(RecordWrite("relations", imei, doc, entry=len(batch.entries)))
            batch.entries.append(Entry("terminal", imei, "state", "relations", now, doc))
    return batch


def _carried_reference(fields: Fields, id_name: str, name: str) -> tuple[str, str] | None:
    id = fields.get(id_name)
    return None if id is None else (str(id), str(fields.get(name, "")))


def _first(products: Sequence[Fields], id_name: str, name: str) -> tuple[str, str] | None:
    return next((ref for product in products if (ref := _carried_reference(product, id_name, name))), None)


def _texts(value: object) -> list[str]:
    return value if isinstance(value, list) else []
