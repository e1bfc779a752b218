"""What the console shows of single records, events and alerts: from the database to the structs of its answers.

All of it runs in the thread of the queries.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from oneweb_bridge.model.records import Row
from oneweb_bridge.model.status import Alarm
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store.reading import EventFilter, Queries
from oneweb_bridge.web.advice import ADVICE
from oneweb_bridge.web.live_messages import event_of
from oneweb_bridge.web.payloads import (
    AlertEntry,
    AlertsAnswer,
    EventsAnswer,
    OrganizationAnswer,
    ProductAnswer,
    SiteAnswer,
    TerminalAnswer,
    TreeAnswer,
)
from oneweb_bridge.web.pools import read_pools
from oneweb_bridge.web.tree import Organization, Reference, Site, Terminal, build_tree


def _raw(doc: str | bytes) -> Raw:
    return Raw(doc.encode() if isinstance(doc, str) else doc)


def _raws(docs: Mapping[str, str]) -> list[Raw]:
    return [_raw(doc) for doc in docs.values()]


class _Members(msgspec.Struct):
    """The members of a record by which others are found."""

    imei: str | None = None
    parent_id: str | None = None


# ── single records ─────────────────────────────────────────────────────────────────────────────


def read_terminal(queries: Queries, imei: str) -> TerminalAnswer | None:
    """A terminal; None where there is no record."""
    record = queries.record("terminal", imei)
    if record is None:
        return None
    relations, components = queries.record("relations", imei), queries.record("components", imei)
    product_ids = queries.products_of_terminal(imei)
    buckets = queries.buckets_of(product_ids)
    return TerminalAnswer(
        record=_raw(record),
        relations=None if relations is None else _raw(relations),
        components={} if components is None else msgspec.json.decode(components, type=dict[str, str]),
        samples={report: _raw(doc) for report, doc in queries.newest_of("terminal", imei).items()},
        products=_raws(queries.records("product", product_ids)),
        buckets=_raws(buckets),
        forecasts=_raws(queries.records("forecast", buckets)),
    )


def read_product(queries: Queries, product_id: str) -> ProductAnswer | None:
    """A product; None where there is no record."""
    record = queries.record("product", product_id)
    if record is None:
        return None
    imei = msgspec.json.decode(record, type=_Members).imei
    imeis = [imei] if imei is not None else queries.terminals_of_product(product_id)
    terminal = next(iter(queries.records("terminal", imeis).values()), None)
    buckets = queries.buckets_of([product_id])
    return ProductAnswer(
        record=_raw(record),
        terminal=None if terminal is None else _raw(terminal),
        samples={report: _raw(doc) for report, doc in queries.newest_of("product", product_id).items()},
        buckets=_raws(buckets),
        forecasts=_raws(queries.records("forecast", buckets)),
        pools=read_pools(queries, buckets.values()),
    )


def read_organization(queries: Queries, id: str) -> OrganizationAnswer | None:
    """An organization; None where there is no record."""
    record = queries.record("organization", id)
    if record is None:
        return None
    parent_id = msgspec.json.decode(record, type=_Members).parent_id
    parent = None if parent_id is None else queries.record("organization", parent_id)
    return OrganizationAnswer(
        record=_raw(record),
        parent=None if parent is None else _raw(parent),
        children=_raws(queries.records_by_member("organization", "parent_id", id)),
        sites=_raws(queries.records_by_member("site", "related_party_id", id)),
    )


def read_site(queries: Queries, id: str) -> SiteAnswer | None:
    """A site; None where there is no record."""
    record = queries.record("site", id)
    if record is None:
        return None
    return SiteAnswer(
        record=_raw(record),
        terminals=_raws(queries.records("terminal", queries.records_by_member("relations", "site.id", id))),
        products=_raws(queries.records_by_member("product", "site_id", id)),
    )


# ── the tree ───────────────────────────────────────────────────────────────────────────────────


class _TerminalMembers(msgspec.Struct, gc=False):
    state: Any = None


class _RelationMembers(msgspec.Struct, gc=False):
    site: Reference | None = None
    end_customer: Reference | None = None
    distribution_partner: Reference | None = None


_NO_RELATIONS = _RelationMembers()


def read_tree(queries: Queries) -> TreeAnswer:
    """Organizations and sites with the count of their terminals."""
    relations = {
        imei: msgspec.json.decode(doc, type=_RelationMembers) for imei, doc in queries.all_records("relations")
    }
    organizations = {id: _lenient(doc, Organization) for id, doc in queries.all_records("organization")}
    sites = {id: _lenient(doc, Site) for id, doc in queries.all_records("site")}
    terminals = (
        _placed(msgspec.json.decode(doc, type=_TerminalMembers), relations.get(imei, _NO_RELATIONS))
        for imei, doc in queries.all_records("terminal")
    )
    return TreeAnswer(build_tree(organizations, sites, terminals))


def _placed(terminal: _TerminalMembers, relations: _RelationMembers) -> Terminal:
    owner = relations.end_customer or relations.distribution_partner
    return Terminal(None if terminal.state is None else str(terminal.state), relations.site, owner)


def _lenient(doc: str, form: type[Any]) -> Any:
    """A record whose fields may have been mapped to other types."""
    return msgspec.convert(msgspec.json.decode(doc), form, strict=False)


# ── events and alerts ──────────────────────────────────────────────────────────────────────────


def read_events(queries: Queries, tree: TopicTree, wanted: EventFilter) -> EventsAnswer:
    """A page of events."""
    rows = queries.events(msgspec.structs.replace(wanted, limit=wanted.limit + 1))
    page = rows[: wanted.limit]
    events = [_raw(event) for row in page if (event := event_of(tree, row)) is not None]
    return EventsAnswer(events=events, next=page[-1].seq if len(rows) > len(page) else None)


def read_alerts(queries: Queries, before: int | None, kind: str | None, limit: int) -> AlertsAnswer:
    """A page of alerts."""
    rows = queries.alerts(before, kind, limit + 1)
    page = rows[:limit]
    return AlertsAnswer(alerts=alert_entries(page), next=page[-1].seq if len(rows) > len(page) else None)


def alert_entries(rows: Iterable[Row]) -> list[AlertEntry]:
    """Alerts, each with what to do about it."""
    return [alert_entry(row) for row in rows]


def alert_entry(row: Row) -> AlertEntry:
    """The alert of a row, with what to do about it."""
    alert = msgspec.json.decode(row.body, type=Alarm)
    return AlertEntry(
        seq=row.seq,
        time=alert.time,
        kind=alert.kind,
        call=alert.call,
        message=alert.message,
        advice=ADVICE.get(alert.kind),
    )
