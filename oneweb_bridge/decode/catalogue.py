"""The table of API calls: path, interval, and where each published field stands in the answer. Pure.

A new API call is one more row of `CALLS`. Whatever a real deployment may do differently is a value
of the row that `polling.<call>` in the configuration replaces; nothing here is known to the code
that reads it. Names and units of the fields are those that DataMiner's connector shows.
Source: TMF639 2.0, TMF637 3.0.0, TMF632 1.0.0, TMF674 1.0, TMF677 3.0.1, TMF628 4.0.0.
"""

from typing import Literal

import msgspec

FieldType = Literal["text", "word", "time", "number", "bool", "words", "set"]
Reads = Literal["record", "components", "report", "usage"]
READING = 2
"""Part of every mapping fingerprint. Raise it when a new version decodes the same answer into other values."""


class Field(msgspec.Struct, frozen=True):
    """One published field. `paths` are tried in order; `raw_unit` is assumed where the API names no unit.

    A volatile field never causes an event. `kind` says whether a number is a level (gauge), a
    counter that grows (cumulative) or the amount since the sample before (delta). `unlimited` names
    the flag that is true, with the number absent, when the API says that there is no limit: in the
    number's own place or in the field `unlimited_label`. A `word` is a text in snake_case, `words` are a
    list of texts whose order means something, and a `set` is one whose order does not.
    """

    name: str
    paths: tuple[str, ...]
    type: FieldType = "text"
    unit: str = ""
    raw_unit: str = ""
    volatile: bool = False
    kind: Literal["gauge", "cumulative", "delta"] = "gauge"
    unlimited: str = ""
    unlimited_label: str = ""


class PageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a listing comes in pages. Totals come in the header `total_header`, where there is one."""

    style: Literal["offset_limit", "none", "page_size", "link_next", "cursor"] = "offset_limit"
    limit: int = 1000
    offset_param: str = "offset"
    limit_param: str = "limit"
    page_param: str = "page"
    size_param: str = "size"
    first_page: int = 1
    cursor_param: str = "cursor"
    cursor_path: str = "next"
    total_header: str = "X-Total-Count"
    max_pages: int = 10_000


TimeFormat = Literal["rfc3339", "rfc3339_s", "rfc3339_offset", "without_zone", "date", "epoch_ms", "epoch_s"]


class TimeWindow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The time window that a report is requested for. `length` bounds one request, `keep` is the API's retention.

    Where a window is `required`, no request goes without begin and end: the first poll requests `length`.
    """

    start_param: str = "startDateTime"
    end_param: str = "endDateTime"
    format: TimeFormat = "rfc3339"
    length: float = 21600.0
    keep: float = 604800.0
    required: bool = False


Explode = Literal["list", "map", "columns", "rows"]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One API call. Times in seconds. `records` None means: find the list in the answer.

    An answer with one of `empty_status` stands for an empty list.
    `match` names the field of the inventory's records that the ids of a report, or the products of usage, stand in.
    `explode` says how several values stand in one record: in a list, in a map of maps, as a table of
    `columns` and `rows`, or not at all: then `rows` of one key make one record (see `pages.merges_rows`).
    """

    id: str
    about: str
    entity: Literal["terminal", "product", "organization", "site", "usage"]
    reads: Reads
    report: str = ""
    enabled: bool = True
    interval: float
    path: str
    query: dict[str, str] = {}
    records: str | None = None
    explode: Explode = "list"
    key: tuple[str, ...] = ("id",)
    fields: tuple[Field, ...] = ()
    page: PageSettings = PageSettings()
    window: TimeWindow | None = None
    lateness: float = 0.0
    empty_status: tuple[int, ...] = ()
    for_each: Literal["user_terminals", "products"] | None = None
    fetch: Literal["get", "request"] = "get"
    match: str = ""
    derive: Literal["", "organization_kind"] = ""
    measurements: str | None = "measurement[*]"
    timestamp: tuple[str, ...] = ("timestamp",)
    indicators: str | None = "performanceIndicator[*]"


def _text(name: str, *paths: str) -> Field:
    return Field(name, paths)


def _time(name: str, *paths: str, volatile: bool = False) -> Field:
    return Field(name, paths, "time", volatile=volatile)


def _number(name: str, *paths: str, unit: str, raw_unit: str = "") -> Field:
    return Field(name, paths, "number", unit, raw_unit or unit)


def _characteristic(name: str, api_name: str, unit: str = "") -> Field:
    paths = tuple(f"{member}[name={api_name}].value" for member in ("characteristic", "productCharacteristic"))
    return Field(name, paths, "number" if unit else "text", unit, unit)


def _gauge(name: str, api_name: str, unit: str, raw_unit: str = "") -> Field:
    return Field(name, (api_name,), "number", unit, raw_unit or unit)


def _counter(name: str, api_name: str) -> Field:
    return Field(name, (api_name,), "number", "B", "B", kind="cumulative")


def _party(name: str, role: str, member: str) -> Field:
    return _text(name, f"relatedParty[role={{{role}}}].{member}")


_POINT = "location.features[0].geometry.coordinates"

TERMINAL = (
    _text("imsi", "imsi"),
    _text("name", "name"),
    _text("serial_number", "serialNumber"),
    _text("state", "resourceState"),
    _text("network_status", "networkStatus", "integratedNetworkStatus"),
    _time("start_time", "startDate", "firstSeenDate"),
    _time("first_seen", "firstSeenDate"),
    _time("last_seen", "lastSeenDate", volatile=True),
    _text("hardware_version", "hardwareVersion", "versionNumber"),
    _text("firmware_version", "firmwareVersion", "softwareVersion"),
    _text("manufacturer", "manufacturer"),
    _text("party_id", "relatedParty[role={distribution_partner}].id", "relatedParty[0].id"),
    _text("party_name", "relatedParty[role={distribution_partner}].name", "relatedParty[0].name"),
    _party("end_customer_id", "end_customer", "id"),
    _party("end_customer_name", "end_customer", "name"),
    _text("site_id", "place.id"),
    _text("site_external_id", "place.externalId"),
    Field("product_ids", ("product[*].id",), "set"),
    _number("longitude", f"{_POINT}[0]", unit="deg"),
    _number("latitude", f"{_POINT}[1]", unit="deg"),
    _number("elevation_m", f"{_POINT}[2]", unit="m"),
)

PRODUCT = (
    _text("name", "name"),
    _text("description", "description"),
    Field("is_bundle", ("isBundle",), "bool"),
    _text("status", "status"),
    _time("start_date", "startDate"),
    _time("termination_date", "terminationDate"),
    _time("billing_start_date", "billingStartDate", "startDate"),
    _time("last_update", "lastUpdate", volatile=True),
    _text("site_id", "place[0].id"),
    _party("distribution_partner_id", "distribution_partner", "id"),
    _party("distribution_partner_name", "distribution_partner", "name"),
    _party("end_customer_id", "end_customer", "id"),
    _party("end_customer_name", "end_customer", "name"),
    _text(
        "imei",
        "realizingResource[0].id",
        "characteristic[name=imei].value",
        "productCharacteristic[name=imei].value",
        "productSerialNumber",
    ),
    msgspec.structs.replace(_characteristic("allowance_gb", "allowance", "GB"), unlimited="allowance_unlimited"),
    _characteristic("overage_increment_gb", "overageIncrement", "GB"),
    _characteristic("max_bandwidth_downlink_mbps", "maxBandwidthDownlink", "Mbps"),
    _characteristic("max_bandwidth_uplink_mbps", "maxBandwidthUplink", "Mbps"),
    _characteristic("budgeted_amount_mbps", "budgetedAmount", "Mbps"),
    _characteristic("min_antenna_gain_dbk", "minAntennaGain", "dB/K"),
    _characteristic("ip_static_address", "ipStaticAddress"),
    _characteristic("ip_addressing_type", "ipAddressingType"),
    _characteristic("service_grade", "serviceGrade"),
)

ORGANIZATION = (
    _text("name", "tradingName", "name"),
    _text("parent_id", "organizationParentRelationship.id", "organizationParentRelationship.organization.id"),
    Field("kind", ("type",), "word"),
    _text("status", "status"),
)

_ADDRESS = {
    "street_nr": "streetNr",
    "street_name": "streetName",
    "city": "city",
    "postcode": "postcode",
    "state_or_province": "stateOrProvince",
    "country": "country",
}

SITE = (
    _text("name", "name"),
    _text("description", "description"),
    _text("code", "code"),
    _text("status", "status"),
    _text("related_party_id", "relatedParty[0].id"),
    Field("other_related_party_ids", ("relatedParty[1:].id",), "set"),
    *(_text(f"address_{name}", f"address.{member}") for name, member in _ADDRESS.items()),
    _number("latitude", "geographicLocation.geometry[0].x", unit="deg"),
    _number("longitude", "geographicLocation.geometry[0].y", unit="deg"),
    _number("elevation_m", "geographicLocation.geometry[0].z", unit="m"),
)

_BALANCE = "bucketBalance[0]"
_USED = "bucketCounter[counterType=usage,level=global]"

USAGE = (
    _text("bucket_name", "name"),
    _text("bucket_type", "bucketType"),
    _text("usage_type", "usageType"),
    Field("is_shared", ("isShared",), "bool"),
    _time("entitlement_renew", "entitlementRenew"),
    _text("remaining_label", f"{_BALANCE}.remainingValueName"),
    Field(
        "remaining_gb",
        (f"{_BALANCE}.remainingValue.amount",),
        "number",
        "GB",
        "GB",
        unlimited="remaining_unlimited",
        unlimited_label="remaining_label",
    ),
    _number("current_balance_gb", f"{_BALANCE}.currentBalance", "currentBalance", unit="GB"),
    _time("valid_from", f"{_BALANCE}.validFor.startDateTime"),
    _time("valid_until", f"{_BALANCE}.validFor.endDateTime"),
    _text("counter_type", f"{_USED}.counterType", "bucketCounter[counterType=usage].counterType"),
    _text("counter_level", f"{_USED}.level", "bucketCounter[counterType=usage].level"),
    _number("used_gb", f"{_USED}.value.amount", "bucketCounter[counterType=usage].value.amount", unit="GB"),
    _number("entitlement_gb", "bucketCounter[counterType=entitlement].value.amount", unit="GB"),
    _number("overage_blocks", "bucketCounter[counterType=overage].value.amount", unit="block"),
    _text("product_id", f"{_USED}.product.id", "bucketCounter[0].product.id", "product[0].id"),
    _text("user_id", f"{_USED}.user.id", "bucketCounter[0].user.id", "product[0].user[0].id"),
    _text("product_name", f"{_USED}.product.name", "bucketCounter[0].product.name", "product[0].name"),
    _text("shared_allowance_id", "sharedAllowance.id"),
    _text("shared_allowance_name", "sharedAllowance.name"),
    _text("shared_allowance_parent_id", "sharedAllowance.parentId"),
    _time("effective_date", "effectiveDate", volatile=True),
)

_CLASSES = {"ef": "expeditedForwarding", "af": "assuredForwarding", "be": "bestEffort"}

THROUGHPUT = tuple(
    _gauge(f"{short}_{direction}_bps", f"{long}{direction.capitalize()}", "bps", "Mbps")
    for short, long in _CLASSES.items()
    for direction in ("uplink", "downlink")
)

TRAFFIC = tuple(
    _counter(f"{side}_{direction}_bytes", f"{side}{direction.capitalize()}")
    for side in ("cnx", "mgmt", "wan")
    for direction in ("tx", "rx")
)

_PERFORMANCE = "/performanceMonitoring/v2"
_TERMINALS = "/resourceInventory/v3/userTerminal"


def _report(
    call: str,
    api_name: str,
    fields: tuple[Field, ...],
    *,
    about: str,
    interval: float,
    lateness: float,
    entity: Literal["terminal", "product"] = "terminal",
) -> Call:
    """A row for one performance report."""
    owner = "userTerminal" if entity == "terminal" else "product"
    return Call(
        id=call,
        about=about,
        entity=entity,
        reads="report",
        report=call.removeprefix("ut_").removeprefix("product_"),
        enabled=call != "ut_link_metrics",
        interval=interval,
        path=f"{_PERFORMANCE}/{owner}/{api_name}",
        fields=fields,
        window=TimeWindow(),
        lateness=lateness,
    )


MINUTE, HOUR = 60.0, 3600.0

CALLS: dict[str, Call] = {
    row.id: row
    for row in (
        Call(
            id="user_terminals",
            about="user terminals: state, position, hardware, partner, site",
            entity="terminal",
            reads="record",
            interval=5 * MINUTE,
            path=_TERMINALS,
            fields=TERMINAL,
        ),
        Call(
            id="user_terminal_components",
            about="firmware of each component of a terminal",
            entity="terminal",
            reads="components",
            interval=6 * HOUR,
            path=_TERMINALS,
            query={"fields": "id,component"},
            fields=(
                _text("components", "component[*]"),
                _text("partition", "partition"),
                _text("type", "type"),
                _text("version", "version"),
            ),
        ),
        Call(
            id="products",
            about="products: plan, allowance, bandwidths, customer, terminal",
            entity="product",
            reads="record",
            interval=HOUR,
            path="/api/webservices/productinventory/v2/product",
            fields=PRODUCT,
        ),
        Call(
            id="organizations",
            about="distribution partners and end customers",
            entity="organization",
            reads="record",
            interval=6 * HOUR,
            path="/partyManagement/v1/organization",
            fields=ORGANIZATION,
            derive="organization_kind",
        ),
        Call(
            id="sites",
            about="sites: address and position",
            entity="site",
            reads="record",
            interval=6 * HOUR,
            path="/geographicSiteManagement/v1/geographicSite",
            fields=SITE,
        ),
        _report(
            "ut_link_availability",
            "linkAvailability",
            (_gauge("link_availability_pct", "linkAvailability", "%"),),
            about="share of time that the link was up",
            interval=15 * MINUTE,
            lateness=90 * MINUTE,
        ),
        _report(
            "ut_signal_quality",
            "signalQuality",
            (
                _gauge("rsrp_dbm", "rsrp", "dBm"),
                _gauge("rssi_dbm", "rssi", "dBm"),
                _gauge("sinr_db", "sinr", "dB"),
            ),
            about="RSRP, RSSI and SINR",
            interval=10 * MINUTE,
            lateness=40 * MINUTE,
        ),
        _report(
            "ut_resource_state",
            "resourceState",
            (Field("resource_state", ("resourceState",)),),
            about="the state of a terminal as the performance system saw it",
            interval=5 * MINUTE,
            lateness=5 * MINUTE,
        ),
        _report(
            "ut_traffic",
            "traffic",
            TRAFFIC,
            about="traffic counters: customer, management and satellite side",
            interval=10 * MINUTE,
            lateness=30 * MINUTE,
        ),
        _report(
            "ut_link_metrics",
            "linkMetrics",
            (
                _gauge("latency_ms", "latency", "ms"),
                _gauge("jitter_ms", "jitter", "ms"),
                _gauge("packet_loss_pct", "packetLoss", "%"),
            ),
            about="latency, jitter and loss; the real fields are not public, hence disabled by default",
            interval=15 * MINUTE,
            lateness=60 * MINUTE,
        ),
        _report(
            "product_throughput",
            "throughput",
            THROUGHPUT,
            about="throughput per traffic class and direction",
            interval=15 * MINUTE,
            lateness=50 * MINUTE,
            entity="product",
        ),
        Call(
            id="usage_consumption",
            about="used, remaining and overage data per bucket of the bill cycle",
            entity="usage",
            reads="usage",
            interval=30 * MINUTE,
            path="/usageConsumption/v3/usageConsumptionReport",
            records="$[*].bucket[*]",
            fields=USAGE,
        ),
    )
}
"""The twelve calls of the polling manager, in the order in which they are first polled."""
