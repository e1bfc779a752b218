"""Brings the relations of terminals up to date with the records of the other calls."""

from collections.abc import Iterable, Mapping, Sequence

from oneweb_bridge.model.records import Batch, Fields, RecordKind, StoredRecord
from oneweb_bridge.polling import diff, relations
from oneweb_bridge.polling.poll_context import PollContext
from oneweb_bridge.store.store import Store


async def update_relations(context: PollContext) -> None:
    """Recomputes the relations of all stale terminals, and publishes those that changed."""
    while imeis := await context.store.relations.stale_terminals():
        async with context.slice_lock:
            await context.store.commit(await _compare_relations(context.store, imeis, context.now()))


async def _compare_relations(store: Store, imeis: Sequence[str], now: int) -> Batch:
    terminals = _fields(await store.records.load("terminal", imeis))
    linked = await store.relations.linked_products(imeis)
    products = await _load_fields(store, "product", {product for ids in linked.values() for product in ids})
    site_ids, organization_ids = relations.named_ids(terminals, products)
    sites = await _load_fields(store, "site", site_ids)
    organizations = await _load_fields(store, "organization", organization_ids)
    joined = {
        imei: relations.join_relations(
            imei, fields, [products[id] for id in linked.get(imei, ()) if id in products], sites, organizations
        )
        for imei, fields in terminals.items()
    }
    before = await store.records.load("relations", imeis)
    return relations.compare(imeis, terminals, joined, before, now)


async def _load_fields(store: Store, kind: RecordKind, ids: Iterable[str]) -> dict[str, Fields]:
    return _fields(await store.records.load(kind, sorted(ids)))


def _fields(stored: Mapping[str, StoredRecord]) -> dict[str, Fields]:
    return {id: diff.fields_of(record) for id, record in stored.items()}
