"""Decides by `filter` in the configuration which records are published. Pure."""

from collections.abc import Iterable

from oneweb_bridge.config.schema import Filter
from oneweb_bridge.model.records import Fields, RecordKind

_ORGANIZATIONS: dict[RecordKind, tuple[str, ...]] = {
    "terminal": ("party_id", "end_customer_id"),
    "product": ("distribution_partner_id", "end_customer_id"),
    "organization": ("organization_id", "parent_id"),
    "site": ("related_party_id", "other_related_party_ids"),
}
_SITES: dict[RecordKind, tuple[str, ...]] = {
    "terminal": ("site_id",),
    "product": ("site_id",),
    "site": ("site_id",),
}
_IMEIS: dict[RecordKind, tuple[str, ...]] = {"terminal": ("imei",), "product": ("imei",)}


def active(rule: Filter) -> bool:
    """Whether anything is filtered."""
    return bool(rule.organizations or rule.sites or rule.imeis)


def wanted(rule: Filter, kind: RecordKind, fields: Fields) -> bool:
    """Whether a record passes every list that applies to its kind; an empty list lets all pass."""
    return all(
        _passes(allowed, names.get(kind, ()), fields)
        for allowed, names in (
            (rule.organizations, _ORGANIZATIONS),
            (rule.sites, _SITES),
            (rule.imeis, _IMEIS),
        )
    )


def _passes(allowed: Iterable[str], names: tuple[str, ...], fields: Fields) -> bool:
    allowed = frozenset(allowed)
    return not allowed or not names or any(value in allowed for name in names for value in _texts(fields.get(name)))


def _texts(value: object) -> Iterable[object]:
    """The ids in a field: several in a list."""
    return value if isinstance(value, list) else (value,)
