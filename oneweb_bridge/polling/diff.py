"""Compares stored and listed records; returns what to store and which events to append. Pure.

A listed record comes here when its hash differs from that of the stored one. That decides nothing yet:
it is compared field by field.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from oneweb_bridge.decode.values import parse_time
from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.model.records import (
    Batch,
    DecodedRecord,
    Entry,
    Fields,
    RecordKind,
    RecordWrite,
    StoredRecord,
    Value,
)

POSITION = ("latitude", "longitude", "elevation_m")
_LINKED: tuple[RecordKind, ...] = ("site", "organization")
_SIDES = ("site_id", "end_customer_id", "end_customer_name")
_RELATION_FIELDS: dict[RecordKind, tuple[str, ...]] = {
    "terminal": ("product_ids", "party_id", "party_name", *_SIDES),
    "product": ("imei", "distribution_partner_id", "distribution_partner_name", *_SIDES),
    "site": ("name",),
    "organization": ("name",),
}
"""The fields of a record that relations are made of."""


class CompareRule(msgspec.Struct, frozen=True, kw_only=True):
    """How one listing is compared. `threshold` in metres; times in ms; the lists in `unordered` have no order."""

    kind: RecordKind
    volatile: frozenset[str] = frozenset()
    threshold: float = 100.0
    initial: bool = False
    remapped: bool = False
    now: int = 0
    unordered: frozenset[str] = frozenset()
    unbelieved: frozenset[str] = frozenset()
    """The ids of which a time of a measurement is not believed."""


class ListedRecord(msgspec.Struct, frozen=True, gc=False):
    """One record of a complete listing that may have changed."""

    reading: DecodedRecord
    hash: bytes


def compare(
    rule: CompareRule,
    before: Mapping[str, StoredRecord],
    listed: Sequence[ListedRecord],
    context: Mapping[str, StoredRecord],
) -> Batch:
    """What a slice of a complete listing changes. `context`: the terminals of components, or the forecasts of usage."""
    batch = Batch()
    for record in listed:
        stored = before.get(record.reading.id)
        if rule.kind == "usage":
            _usage(rule, stored, record, context.get(record.reading.id), batch)
        elif rule.kind == "components":
            _components(rule, stored, record, context.get(record.reading.id), batch)
        else:
            _record(rule, stored, record, batch)
    return batch


# ── terminals, products, organizations, sites ──────────────────────────────────────────────────


def _record(rule: CompareRule, stored: StoredRecord | None, listed: ListedRecord, batch: Batch) -> None:
    reading = listed.reading
    before = fields_of(stored)
    after = fields_to_publish(before, reading, rule)
    changed = None if stored is None else changes(before, after, rule.volatile)
    if changed is not None and not changed:
        batch.unchanged.append((listed.hash, rule.kind, reading.id))
    else:
        doc = encode(after)
        batch.writes.append(RecordWrite(rule.kind, reading.id, doc, listed.hash, len(batch.entries)))
        batch.entries.append(_event(rule, reading.id, doc, changed))
        _mark_relations_stale(rule.kind, reading.id, before, after, batch)


def fields_of(stored: StoredRecord | None) -> Fields:
    """The published fields of a stored record; none of one that is not stored."""
    fields: Fields = msgspec.json.decode(stored.doc) if stored else {}
    return fields


def fields_to_publish(before: Fields, reading: DecodedRecord, rule: CompareRule) -> Fields:
    """The fields to publish: an unordered list in another order, and a position within `threshold`, stay as they are.

    Unparseable fields are not among them, because what is not known is absent.
    """
    after = dict(reading.fields)
    for name in rule.unordered & before.keys():
        if sorted(_list(before[name])) == after.get(name):
            after[name] = before[name]
    if not moved(before, after, rule.threshold):
        for name in POSITION:
            after.pop(name, None)
            if name in before:
                after[name] = before[name]
    return after


def moved(before: Fields, after: Fields, threshold: float) -> bool:
    """Whether a position differs by more than `threshold` metres, or came, or went."""
    if [name in before for name in POSITION] != [name in after for name in POSITION]:
        return True
    if "latitude" not in after or "longitude" not in after:
        return any(before.get(name) != after.get(name) for name in POSITION)
    height = abs(_float(before.get("elevation_m")) - _float(after.get("elevation_m")))
    return max(distance(before, after), height) > threshold


def distance(start: Fields, end: Fields) -> float:
    """Great-circle distance in metres on a sphere of the Earth's mean radius. Source: haversine formula."""
    lat1, lon1, lat2, lon2 = (
        math.radians(_float(fields[name])) for fields in (start, end) for name in ("latitude", "longitude")
    )
    half = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * 6_371_008.8 * math.asin(math.sqrt(min(1.0, half)))


def _float(value: Value | None) -> float:
    return value if isinstance(value, float) else 0.0


def changes(before: Fields, after: Fields, volatile: frozenset[str]) -> dict[str, dict[str, Value | None]]:
    """The fields that differ, each with `from` and `to`; null stands for absent."""
    return {
        name: {"from": before.get(name), "to": after.get(name)}
        for name in {**after, **before}
        if name not in volatile and before.get(name) != after.get(name)
    }


def _event(rule: CompareRule, id: str, doc: bytes, changed: dict[str, dict[str, Value | None]] | None) -> Entry:
    what = "added" if changed is None else "changed"
    body: dict[str, object] = {} if changed is None else {"changed": changed}
    body |= {"record": msgspec.Raw(doc), "initial": rule.initial}
    if rule.remapped:
        body["remapped"] = True
    return Entry(rule.kind, id, what, "", rule.now, encode(body))  # type: ignore[arg-type]  # both are Whats


def _mark_relations_stale(kind: RecordKind, id: str, before: Fields, after: Fields, batch: Batch) -> None:
    unchanged = all(before.get(name) == after.get(name) for name in _RELATION_FIELDS.get(kind, ()))
    if unchanged and ((before and after) or kind in _LINKED):
        return
    if kind == "terminal":
        batch.stale_relations.append(id)
        batch.product_links.append(
            ("terminal", id, tuple((product, id) for product in _list(after.get("product_ids"))))
        )
    elif kind == "product":
        imeis = [str(fields["imei"]) for fields in (before, after) if "imei" in fields]
        batch.stale_relations.extend(imeis)
        batch.product_links.append(("product", id, tuple((id, imei) for imei in imeis[-1:] if "imei" in after)))
    elif kind in _LINKED:
        batch.all_stale = True


def _list(value: Value | None) -> list[str]:
    return value if isinstance(value, list) else []


# ── components ─────────────────────────────────────────────────────────────────────────────────


def _components(
    rule: CompareRule, stored: StoredRecord | None, listed: ListedRecord, terminal: StoredRecord | None, batch: Batch
) -> None:
    reading = listed.reading
    before, after = fields_of(stored), dict(reading.fields)
    changed = changes(before, after, frozenset())
    if not after or (stored is not None and not changed):
        # An empty list means that the API does not know, not that a terminal lost its firmware.
        if stored is not None:
            batch.unchanged.append((listed.hash, "components", reading.id))
        return
    doc = encode(after)
    body: dict[str, object] = {"components": msgspec.Raw(doc)}
    if stored is not None:
        body["changed"] = {f"components.{name}": change for name, change in changed.items()}
        body["record"] = msgspec.Raw(terminal.doc) if terminal else {"imei": reading.id}
        body["initial"] = False
        if rule.remapped:
            body["remapped"] = True
    batch.writes.append(RecordWrite("components", reading.id, doc, listed.hash, len(batch.entries)))
    batch.entries.append(Entry("terminal", reading.id, "components", "", rule.now, encode(body)))


# ── usage ──────────────────────────────────────────────────────────────────────────────────────


def _usage(
    rule: CompareRule, stored: StoredRecord | None, listed: ListedRecord, forecast: StoredRecord | None, batch: Batch
) -> None:
    reading = listed.reading
    before = fields_of(stored)
    after = fields_to_publish(before, reading, msgspec.structs.replace(rule, threshold=0.0))
    ignored = rule.volatile | {"time", "ts", "cycle_started"}
    if stored is not None and not changes(before, after, ignored):
        batch.unchanged.append((listed.hash, "usage", reading.id))
        return
    ts = effective_date(after, rule.now)
    if reading.id in rule.unbelieved and isinstance(last := before.get("ts"), int):
        # Where its time is not believed, all clocks may be behind: a topic does not go back with them.
        ts = max(ts, last)
    after |= {"time": rfc3339(ts), "ts": ts}
    if stored is not None and cycle_started(before, after):
        after["cycle_started"] = True
    if stored is not None and before.get("product_id") != after.get("product_id"):
        _clear_usage(before, reading.id, rule.now, batch, has_forecast=forecast is not None)
    if "product_id" in after and _bucket_outline(before) != _bucket_outline(after):
        batch.dirty_devices.append(("product", str(after["product_id"])))
    doc = encode(after)
    batch.writes.append(RecordWrite("usage", reading.id, doc, listed.hash, len(batch.entries)))
    batch.entries.append(_usage_entry(after, reading.id, "usage", ts, doc))


def effective_date(bucket: Fields, now: int) -> int:
    """The time of a bucket's report in ms; `now` where the API does not say it."""
    effective = parse_time(bucket.get("effective_date"))
    return now if effective is None else effective


def _bucket_outline(bucket: Fields) -> tuple[object, ...]:
    """Which fields a bucket has, without its amounts, which differ in every poll."""
    names = sorted(bucket.keys() - {"cycle_started"})
    return names, bucket.get("product_id"), bucket.get("bucket_name"), bool(bucket.get("entitlement_gb"))


def cycle_started(before: Fields, after: Fields) -> bool:
    """Whether a bucket is in a later bill cycle than before."""
    for name in ("valid_from", "entitlement_renew"):
        old, new = before.get(name), after.get(name)
        if old is not None and new is not None and old != new:
            return (parse_time(new) or 0) > (parse_time(old) or 0)
    return False


def _clear_usage(fields: Fields, bucket: str, now: int, batch: Batch, *, has_forecast: bool) -> None:
    """Clears the topic of a bucket, and with it that of its forecast."""
    names = ["usage", "forecast"] if has_forecast else ["usage"]
    batch.entries.append(_usage_entry(fields, bucket, "clear", now, encode(names)))
    if has_forecast:
        batch.removed.append(("forecast", bucket))


def _usage_entry(fields: Fields, bucket: str, what: str, ts: int, body: bytes) -> Entry:
    product = fields.get("product_id")
    if product is None:
        return Entry("usage", bucket, what, "", ts, body)  # type: ignore[arg-type]  # usage or clear
    return Entry("product", str(product), what, bucket, ts, body)  # type: ignore[arg-type]  # usage or clear


# ── removal ────────────────────────────────────────────────────────────────────────────────────


def remove(
    kind: RecordKind,
    removed: Mapping[str, StoredRecord],
    topics: Mapping[str, Sequence[str]],
    now: int,
    *,
    remapped: bool = False,
) -> Batch:
    """The removal of records: the last that is known of each, and which of its topics are cleared.

    `remapped` marks the events as those of the first listing after a change of the mapping.
    """
    batch = Batch()
    for id, stored in removed.items():
        batch.removed.append((kind, id))
        fields = fields_of(stored)
        if kind == "usage":
            _clear_usage(fields, id, now, batch, has_forecast="forecast" in topics.get(id, ()))
            continue
        body: dict[str, object] = {"record": msgspec.Raw(stored.doc), "clears": list(topics.get(id, ()))}
        if remapped:
            body["remapped"] = True
        batch.entries.append(Entry(kind, id, "removed", "", now, encode(body)))
        _mark_relations_stale(kind, id, fields, {}, batch)
    if kind == "terminal":
        batch.stale_relations.clear()
    return batch
