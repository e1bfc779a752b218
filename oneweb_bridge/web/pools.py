"""Shared allowances as the console shows them: who takes from the pool that a product takes from."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from oneweb_bridge.store.reading import Queries
from oneweb_bridge.web.payloads import Pool, PoolMember


class _Usage(msgspec.Struct, gc=False):
    is_shared: Any = None
    shared_allowance_id: Any = None
    shared_allowance_name: Any = None
    shared_allowance_parent_id: Any = None
    product_id: str | None = None
    used_gb: float | None = None
    overage_blocks: int | None = None


class _Named(msgspec.Struct, gc=False):
    name: Any = None
    imei: Any = None


def read_pools(queries: Queries, documents: Iterable[str]) -> list[Pool]:
    """The pools that usage buckets, given as documents, take from; each once."""
    shared = {
        bucket.shared_allowance_id: bucket
        for document in documents
        if (bucket := _decode(document, _Usage)).is_shared and bucket.shared_allowance_id is not None
    }
    return [_read_pool(queries, bucket) for bucket in shared.values()]


def _read_pool(queries: Queries, bucket: _Usage) -> Pool:
    stored = queries.records_by_member("usage", "shared_allowance_id", bucket.shared_allowance_id)
    usage = {id: member for id, document in stored.items() if (member := _decode(document, _Usage)).is_shared}
    products = _named(queries, "product", (member.product_id for member in usage.values()))
    terminals = _named(queries, "terminal", (product.imei for product in products.values()))
    members = [_member(id, member, products, terminals) for id, member in usage.items()]
    return Pool(
        shared_allowance_id=bucket.shared_allowance_id,
        shared_allowance_name=bucket.shared_allowance_name,
        shared_allowance_parent_id=bucket.shared_allowance_parent_id,
        members=sorted(members, key=lambda member: (-(member.used_gb or 0), member.bucket_id)),
    )


def _member(id: str, usage: _Usage, products: Mapping[str, _Named], terminals: Mapping[str, _Named]) -> PoolMember:
    product = products.get(usage.product_id or "", _NOTHING)
    return PoolMember(
        bucket_id=id,
        used_gb=usage.used_gb,
        overage_blocks=usage.overage_blocks,
        product_id=usage.product_id,
        product=product.name,
        imei=product.imei,
        terminal=terminals.get(product.imei or "", _NOTHING).name,
    )


_NOTHING = _Named()


def _named(queries: Queries, kind: str, ids: Iterable[str | None]) -> dict[str, _Named]:
    documents = queries.records(kind, dict.fromkeys(id for id in ids if id is not None))
    return {id: _decode(document, _Named) for id, document in documents.items()}


def _decode(document: str, form: type[Any]) -> Any:
    """A record whose fields may have been mapped to other types."""
    return msgspec.convert(msgspec.json.decode(document), form, strict=False)
