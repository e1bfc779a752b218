"""The rows of tests/fidelity.py: each an alternative to what the API reference is uncertain of, and its lines."""

from typing import Any

from tests.fidelity import Row, Seen

REPORTS = (
    "ut_link_availability",
    "ut_signal_quality",
    "ut_resource_state",
    "ut_traffic",
    "ut_link_metrics",
    "product_throughput",
)
SMALL_PAGES = {"default_limit": 5, "max_limit": 5}


def _deltas(truth: Seen) -> None:
    """The amount since the measurement before; the whole counter when it began anew. Without one before: not known."""
    for key in [key for key in truth.samples if key[0] == "traffic"]:
        by, amounts = truth.samples[key], {}
        for ts in sorted(by, reverse=True):
            if ts - 600_000 not in by:
                break
            before = by[ts - 600_000]
            amounts[ts] = {name: _grown(before[name], value) for name, value in by[ts].items()}
        truth.samples[key] = amounts


def _grown(before: Any, after: Any) -> Any:
    return after - before if isinstance(after, int) and after >= before else after


def _site_in_external_id(truth: Seen) -> None:
    for terminal in truth.kind("terminal"):
        if "site_id" in terminal:
            terminal["site_external_id"] = terminal["site_id"]


def _product_without_imei(truth: Seen) -> None:
    for product in truth.kind("product"):
        product.pop("imei", None)


def _fallback_dates(truth: Seen) -> None:
    for terminal in truth.kind("terminal"):
        if "first_seen" in terminal:
            terminal["start_time"] = terminal["first_seen"]
        else:
            terminal.pop("start_time", None)
    for product in truth.kind("product"):
        product["billing_start_date"] = product["start_date"]
        product.pop("last_update", None)


def _no_label(truth: Seen) -> None:
    for bucket in truth.kind("usage"):
        if bucket.get("remaining_unlimited"):
            bucket.pop("remaining_label", None)


def _other_counter_type(truth: Seen) -> None:
    for bucket in truth.kind("usage"):
        bucket["counter_type"] = "used"


ROWS = (
    Row(
        row="1 headers",
        differs="The credentials go in two headers",
        options={"auth": "headers"},
        yaml="""
            api:
              auth: {style: headers, client_id_header: client_id, client_secret_header: client_secret}
        """,
        calls=("user_terminals",),
    ),
    Row(
        row="1 oauth2",
        seen=False,
        differs="The credentials are exchanged for an OAuth2 token",
        options={"auth": "oauth2"},
        yaml="""
            api:
              auth:
                style: oauth2_client_credentials
                token_url: "http://127.0.0.1:3128/oauth2/token"
                token_auth: body
        """,
        calls=("user_terminals",),
    ),
    Row(
        row="2",
        seen=False,
        differs="Other paths of organizations, sites and usage, and of the sign-in check",
        shape={
            "hello_path": "/hello/v2/world",
            "organization_path": "/party/v4/organization",
            "site_path": "/geographicSite/v4/site",
            "usage_path": "/usage/v4/queryUsageConsumption",
        },
        yaml="""
            api: {hello: {path: /hello/v2/world}}
            polling:
              organizations: {path: /party/v4/organization}
              sites: {path: /geographicSite/v4/site}
              usage_consumption: {path: /usage/v4/queryUsageConsumption}
        """,
        calls=("organizations", "sites", "usage_consumption"),
    ),
    Row(
        row="3",
        seen=False,
        differs="Another path under the product inventory",
        shape={"product_path": "/api/webservices/productinventory/v2/products"},
        yaml="""
            polling:
              products: {path: /api/webservices/productinventory/v2/products}
        """,
        calls=("products",),
    ),
    Row(
        row="4",
        differs="One path for all reports, with a parameter",
        shape={"reports": "parameter"},
        yaml="""
            polling:
              ut_link_availability:
                path: /performanceMonitoring/v2/performanceReport
                query: {report: linkAvailability}
              ut_signal_quality: {path: /performanceMonitoring/v2/performanceReport, query: {report: signalQuality}}
              ut_resource_state: {path: /performanceMonitoring/v2/performanceReport, query: {report: resourceState}}
              ut_traffic: {path: /performanceMonitoring/v2/performanceReport, query: {report: traffic}}
              ut_link_metrics: {path: /performanceMonitoring/v2/performanceReport, query: {report: linkMetrics}}
              product_throughput: {path: /performanceMonitoring/v2/performanceReport, query: {report: throughput}}
        """,
        calls=REPORTS,
    ),
    Row(
        row="5",
        seen=False,
        differs="A report is requested with a POST, and read when it is ready",
        options=SMALL_PAGES,
        shape={"report_request": "post_first"},
        yaml="""
            polling:
              ut_signal_quality:
                fetch: request
                path: /performanceMonitoring/v2/performanceReport
                query: {report: signalQuality}
              product_throughput:
                fetch: request
                path: /performanceMonitoring/v2/performanceReport
                query: {report: throughput}
        """,
        note="Query and window are sent as JSON in the body. The report is then read from the `Location` "
        "header's address, or from `id` below the path.",
        calls=("ut_signal_quality", "product_throughput"),
    ),
    Row(
        row="6 names",
        differs="Other time parameters, in milliseconds",
        shape={"start_parameter": "from", "end_parameter": "to", "time_format": "epoch_ms", "timestamps": "epoch_ms"},
        yaml="""
            polling:
              ut_signal_quality: {window: {start_param: from, end_param: to, format: epoch_ms}}
              ut_traffic: {window: {start_param: from, end_param: to, format: epoch_ms}}
        """,
        note="Times in answers may be RFC 3339, with or without an offset, or an epoch in seconds or milliseconds.",
        calls=("ut_signal_quality", "ut_traffic"),
    ),
    Row(
        row="6 seconds",
        differs="Time parameters in seconds",
        shape={"time_format": "epoch_s"},
        yaml="""
            polling:
              product_throughput: {window: {format: epoch_s}}
        """,
        calls=("product_throughput",),
    ),
    Row(
        row="6 required",
        differs="No report without a time span",
        shape={"window_required": True},
        yaml="""
            polling:
              ut_signal_quality: {window: {required: true}}
              ut_link_availability: {window: {required: true, length: 12h}}
        """,
        note="The first poll then asks for `length` and the lateness, so that more samples come than by default.",
        calls=("ut_signal_quality", "ut_link_availability"),
        samples="common",
    ),
    Row(
        row="6 none",
        differs="No time parameters",
        shape={"start_parameter": "unheard", "end_parameter": "of"},
        yaml="""
            polling:
              ut_signal_quality: {window: none}
        """,
        note="The bridge then gets only what the API returns without a time span.",
        calls=("ut_signal_quality",),
        samples="newest",
    ),
    Row(
        row="7 path",
        differs="One request for each terminal or product",
        shape={"report_scope": "per_terminal"},
        yaml="""
            polling:
              ut_signal_quality:
                path: /performanceMonitoring/v2/userTerminal/{ut_id}/signalQuality
                for_each: user_terminals
                interval: 1h
              product_throughput:
                path: /performanceMonitoring/v2/product/{product_id}/throughput
                for_each: products
                interval: 1h
        """,
        note="The number of requests grows with the fleet. A terminal that the API answers with 404 has no samples.",
        calls=("user_terminals", "products", "ut_signal_quality", "product_throughput"),
    ),
    Row(
        row="7 query",
        differs="One request for each terminal, with the id as a parameter",
        shape={"report_scope": "per_terminal"},
        yaml="""
            polling:
              ut_signal_quality: {query: {id: "{ut_id}"}, for_each: user_terminals, interval: 1h}
        """,
        calls=("user_terminals", "ut_signal_quality"),
    ),
    Row(
        row="8 flat",
        differs="A measurement is a flat object",
        shape={"indicators": "flat"},
        yaml="""
            polling:
              ut_link_availability: {indicators: null}
              ut_signal_quality: {indicators: null}
              ut_resource_state: {indicators: null}
              ut_traffic: {indicators: null}
              ut_link_metrics: {indicators: null}
              product_throughput: {indicators: null}
        """,
        calls=REPORTS,
    ),
    Row(
        row="8 columns",
        differs="A report is a table of `columns` and `rows`",
        shape={"indicators": "columns"},
        yaml="""
            polling:
              ut_link_availability: {explode: columns, measurements: "rows[*]", indicators: null}
              ut_signal_quality: {explode: columns, measurements: "rows[*]", indicators: null}
              ut_resource_state: {explode: columns, measurements: "rows[*]", indicators: null}
              ut_traffic: {explode: columns, measurements: "rows[*]", indicators: null}
              ut_link_metrics: {explode: columns, measurements: "rows[*]", indicators: null}
              product_throughput: {explode: columns, measurements: "rows[*]", indicators: null}
        """,
        note="With `explode: rows` instead, the same lines read an answer with one flat record for each sample.",
        calls=REPORTS,
    ),
    Row(
        row="9",
        differs="Other names of indicators and characteristics",
        shape={"names": "other"},
        yaml="""
            polling:
              ut_link_availability: {map: {link_availability_pct: availabilityPercent}}
              ut_signal_quality: {map: {rsrp_dbm: RSRP_dBm, rssi_dbm: RSSI_dBm, sinr_db: SINR}}
              ut_resource_state: {map: {resource_state: state}}
              ut_traffic:
                map:
                  cnx_tx_bytes: customerTx
                  cnx_rx_bytes: customerRx
                  mgmt_tx_bytes: managementTx
                  mgmt_rx_bytes: managementRx
                  wan_tx_bytes: satelliteTx
                  wan_rx_bytes: satelliteRx
              ut_link_metrics:
                map: {latency_ms: roundTripTime, jitter_ms: delayVariation, packet_loss_pct: lossPercent}
              product_throughput:
                map:
                  ef_uplink_bps: EF_UL
                  ef_downlink_bps: EF_DL
                  af_uplink_bps: AF_UL
                  af_downlink_bps: AF_DL
                  be_uplink_bps: BE_UL
                  be_downlink_bps: BE_DL
              products:
                map:
                  allowance_gb: characteristic[name=dataAllowance].value
                  overage_increment_gb: characteristic[name=overageBlockSize].value
                  max_bandwidth_downlink_mbps: characteristic[name=downlinkMaximum].value
                  max_bandwidth_uplink_mbps: characteristic[name=uplinkMaximum].value
                  budgeted_amount_mbps: characteristic[name=committedRate].value
                  min_antenna_gain_dbk: characteristic[name=minimumGT].value
                  ip_static_address: characteristic[name=staticIp].value
                  ip_addressing_type: characteristic[name=addressing].value
                  service_grade: characteristic[name=grade].value
        """,
        note="Case, spaces, `_` and `-` do not matter. An indicator that nothing maps is published under its own name.",
        calls=(*REPORTS, "products"),
    ),
    Row(
        row="10 said",
        differs="Other units, and the API names them",
        shape={"throughput_unit": "bps", "traffic_unit": "MB"},
        calls=("ut_traffic", "product_throughput"),
    ),
    Row(
        row="10 unsaid",
        differs="Other units, and the API does not name them",
        shape={"throughput_unit": "bps", "traffic_unit": "MB", "indicator_unit": False},
        yaml="""
            polling:
              ut_traffic:
                map:
                  cnx_tx_bytes: {unit: MB}
                  cnx_rx_bytes: {unit: MB}
                  mgmt_tx_bytes: {unit: MB}
                  mgmt_rx_bytes: {unit: MB}
                  wan_tx_bytes: {unit: MB}
                  wan_rx_bytes: {unit: MB}
              product_throughput:
                map:
                  ef_uplink_bps: {unit: bps}
                  ef_downlink_bps: {unit: bps}
                  af_uplink_bps: {unit: bps}
                  af_downlink_bps: {unit: bps}
                  be_uplink_bps: {unit: bps}
                  be_downlink_bps: {unit: bps}
        """,
        calls=REPORTS,
    ),
    Row(
        row="11",
        differs="Traffic is the amount of each interval, not a counter",
        shape={"traffic": "delta"},
        yaml="""
            polling:
              ut_traffic:
                map:
                  cnx_tx_bytes: {kind: delta}
                  cnx_rx_bytes: {kind: delta}
                  mgmt_tx_bytes: {kind: delta}
                  mgmt_rx_bytes: {kind: delta}
                  wan_tx_bytes: {kind: delta}
                  wan_rx_bytes: {kind: delta}
        """,
        note="The amounts are published unchanged; `kind` tells Home Assistant and other programs what they are.",
        calls=("ut_traffic",),
        turn=_deltas,
        samples="common",
    ),
    Row(
        row="12",
        seen=False,
        differs="RSRP and RSSI carry each other's values",
        shape={"signal": "swapped"},
        yaml="""
            polling:
              ut_signal_quality: {map: {rsrp_dbm: rssi, rssi_dbm: rsrp}}
        """,
        calls=("ut_signal_quality",),
    ),
    Row(
        row="13 path",
        differs="Components have a path of their own",
        shape={"components": "own_path"},
        yaml="""
            polling:
              user_terminal_components: {path: /resourceInventory/v3/userTerminalComponent, query: {}}
        """,
        note="With `explode: rows` where each component is a record; `key` is the path of the terminal's id in it.",
        calls=("user_terminals", "user_terminal_components"),
    ),
    Row(
        row="13 records",
        seen=False,
        differs="Components read one by one, from below the terminals",
        yaml="""
            polling:
              user_terminal_components: {records: "$[*].component[*]"}
        """,
        note="The components of a terminal make one record again. Where terminal and component have a member of one "
        "name, the terminal's is under `parent`, for example `key: parent.id`.",
        calls=("user_terminals", "user_terminal_components"),
    ),
    Row(
        row="13 relationship",
        differs="Components are in `resourceRelationship`",
        shape={"components": "relationship"},
        yaml="""
            polling:
              user_terminal_components:
                query: {fields: "id,resourceRelationship"}
                map: {components: "resourceRelationship[*].resource"}
        """,
        calls=("user_terminals", "user_terminal_components"),
    ),
    Row(
        row="13 characteristics",
        differs="Components are characteristics with names like main.UT.version",
        shape={"components": "characteristics"},
        yaml="""
            polling:
              user_terminal_components:
                query: {fields: "id,resourceCharacteristic"}
                map:
                  components: resourceCharacteristic[*]
                  partition: name[:0]
                  type: name[:1]
                  version: value
        """,
        note="`[:1]` is the second part of a text, cut at `.` `/` `:` `|` and spaces.",
        calls=("user_terminals", "user_terminal_components"),
    ),
    Row(
        row="14",
        differs="Components are a map",
        shape={"component_form": "map"},
        yaml="""
            polling:
              user_terminal_components: {explode: map}
        """,
        note="A map of maps is recognised without it.",
        calls=("user_terminals", "user_terminal_components"),
    ),
    Row(row="15 items", differs="The list is in an object's `items`", shape={"envelope": "items"}),
    Row(row="15 data", differs="The list is in an object's `data`", shape={"envelope": "data"}),
    Row(
        row="15 results",
        differs="The list is in an object's `results`, or elsewhere",
        shape={"envelope": "results"},
        yaml="""
            polling:
              user_terminals: {records: "results[*]"}
              usage_consumption: {records: "results[*].bucket[*]"}
        """,
        note="`items`, `data` and `results` are recognised without it.",
        calls=("user_terminals", "usage_consumption"),
    ),
    Row(
        row="16 offset_limit",
        differs="Pages by offset and limit, with other names",
        options=SMALL_PAGES,
        shape={"offset_parameter": "start", "limit_parameter": "count", "partial_206": True},
        yaml="""
            polling:
              user_terminals: {page: &page {offset_param: start, limit_param: count, limit: 500}}
              products: {page: *page}
              ut_signal_quality: {page: *page}
        """,
        note="`&page` gives the value a name, and `*page` repeats it for other calls.",
        calls=("user_terminals", "products", "ut_signal_quality"),
    ),
    Row(
        row="16 none",
        differs="No pages",
        options=SMALL_PAGES,
        shape={"paging": "none", "totals": False},
        yaml="""
            polling:
              user_terminals: {page: {style: none}}
        """,
        note="Without this line it is recognised too, with a second request for each poll.",
        calls=("user_terminals", "products"),
    ),
    Row(
        row="16 page_size",
        differs="Pages by number and size",
        options=SMALL_PAGES,
        shape={"paging": "page_size"},
        yaml="""
            polling:
              user_terminals: {page: &page {style: page_size, page_param: page, size_param: size, first_page: 1}}
              products: {page: *page}
              usage_consumption: {page: *page}
        """,
        calls=("user_terminals", "products", "usage_consumption"),
    ),
    Row(
        row="16 link_next",
        differs="Pages by the Link header",
        options=SMALL_PAGES,
        shape={"paging": "link_next"},
        yaml="""
            polling:
              user_terminals: {page: &page {style: link_next}}
              products: {page: *page}
              ut_traffic: {page: *page}
        """,
        calls=("user_terminals", "products", "ut_traffic"),
    ),
    Row(
        row="16 cursor",
        differs="Pages by a cursor in the answer",
        options=SMALL_PAGES,
        shape={"paging": "cursor"},
        yaml="""
            polling:
              user_terminals: {page: &page {style: cursor, cursor_param: cursor, cursor_path: next}}
              products: {page: *page}
              product_throughput: {page: *page}
        """,
        calls=("user_terminals", "products", "product_throughput"),
    ),
    Row(
        row="17",
        differs="`fields` is not known, and components are always shown",
        shape={"fields": False, "component_shown": "always"},
        yaml="""
            polling:
              user_terminal_components: {query: {}}
        """,
        calls=("user_terminals", "user_terminal_components"),
    ),
    Row(
        row="18",
        differs="Latitude before longitude",
        shape={"coordinate_order": "lat_lon"},
        yaml="""
            mapping: {coordinate_order: lat_lon}
        """,
        calls=("user_terminals", "sites"),
    ),
    Row(
        row="19 array", differs="A terminal's `place` is an array", shape={"place": "array"}, calls=("user_terminals",)
    ),
    Row(
        row="19 external",
        differs="A terminal's site is in `place.externalId`",
        shape={"place": "external_id"},
        yaml="""
            polling:
              user_terminals: {map: {site_id: [place.externalId, place.id]}}
        """,
        calls=("user_terminals",),
        turn=_site_in_external_id,
    ),
    Row(
        row="20",
        differs="Other roles of parties",
        shape={"roles": "other"},
        yaml="""
            mapping:
              roles:
                distribution_partner: [distributor]
                end_customer: [customer]
        """,
    ),
    Row(
        row="21 characteristic",
        differs="A product's terminal is a characteristic",
        shape={"product_link": "characteristic"},
    ),
    Row(
        row="21 terminal",
        differs="Only the terminal says which product it has",
        shape={"product_link": "terminal_only"},
        note="The product's record has no `imei`; the relations of the terminal are the same.",
        turn=_product_without_imei,
    ),
    Row(
        row="22",
        differs="Other dates and hardware version",
        shape={"date_names": "fallback"},
        note="`start_time` is then the terminal's first seen date, and `billing_start_date` the product's start date.",
        calls=("user_terminals", "products"),
        turn=_fallback_dates,
    ),
    Row(
        row="23 null",
        differs="An unlimited allowance is null",
        shape={"unlimited": "null"},
        yaml="""
            mapping: {unlimited: [Unlimited, "-1", "null"]}
        """,
        calls=("products", "usage_consumption"),
        turn=_no_label,
    ),
    Row(
        row="23 minus one",
        differs="An unlimited allowance is -1",
        shape={"unlimited": "minus_one"},
        calls=("products", "usage_consumption"),
        turn=_no_label,
    ),
    Row(
        row="24",
        differs="Other counter types, and the sub-pool elsewhere",
        shape={"counters": "other"},
        yaml="""
            polling:
              usage_consumption:
                map:
                  counter_type: "bucketCounter[counterType=used,level=global].counterType"
                  counter_level: "bucketCounter[counterType=used,level=global].level"
                  used_gb: "bucketCounter[counterType=used,level=global].value.amount"
                  entitlement_gb: bucketCounter[counterType=allowance].value.amount
                  overage_blocks: bucketCounter[counterType=overageBlocks].value.amount
                  product_id: bucketCounter[0].product.id
                  user_id: bucketCounter[0].user.id
                  product_name: bucketCounter[0].product.name
                  shared_allowance_id: bucketRelationship[relationshipType=subPool].id
                  shared_allowance_name: bucketRelationship[relationshipType=subPool].name
                  shared_allowance_parent_id: bucketRelationship[relationshipType=subPool].parentId
        """,
        calls=("usage_consumption",),
        turn=_other_counter_type,
    ),
    Row(
        row="25",
        differs="Usage has one row for each counter",
        shape={"usage_rows": "counter", "paging": "none", "totals": False},
        yaml="""
            polling:
              usage_consumption:
                records: null
                explode: rows
                map:
                  remaining_label: remainingValueName
                  remaining_gb: remainingValue.amount
                  valid_from: validFor.startDateTime
                  valid_until: validFor.endDateTime
                  counter_type: "rows[counterType=usage,level=global].counterType"
                  counter_level: "rows[counterType=usage,level=global].level"
                  used_gb: "rows[counterType=usage,level=global].value.amount"
                  entitlement_gb: rows[counterType=entitlement].value.amount
                  overage_blocks: rows[counterType=overage].value.amount
                  product_id: product.id
                  user_id: user.id
                  product_name: product.name
        """,
        note="Rows of one `key` make one bucket: its members are those of the first row, and all rows are in `rows`. "
        "For a bucket per counter instead, join what tells them apart: `key: [id, counterType, level]`.",
        calls=("usage_consumption",),
    ),
    Row(
        row="26",
        seen=False,
        differs="Other states of a terminal count as online",
        yaml="""
            mapping: {online_states: [online, degraded]}
        """,
        note="The state itself is published unchanged.",
        calls=("user_terminals", "ut_resource_state"),
    ),
    Row(
        row="27",
        seen=False,
        differs="The API takes only so many requests",
        options={"rate_limit": 6, "rate_window": 0.3},
        yaml="""
            api:
              rate_limit: {max_in_flight: 1, min_interval: 60ms, max_requests_per_hour: 3000}
        """,
        note="Rate limit headers and 429 are obeyed in any case: the bridge sends nothing to the host "
        "until the window ends.",
        calls=("user_terminals", "products", "sites", "organizations"),
    ),
    Row(
        row="28",
        differs="Reports come later than the reference says",
        options={"lateness_scale": 2.0},
        yaml="""
            polling:
              ut_signal_quality: {lateness: 80m}
              product_throughput: {lateness: 100m}
        """,
        calls=("ut_signal_quality", "product_throughput"),
        samples="common",
    ),
    Row(
        row="29",
        differs="Other link metrics, one without a unit",
        shape={"link_metrics": "other"},
        yaml="""
            polling:
              ut_link_metrics:
                enabled: true
                map: {latency_ms: rtt, jitter_ms: delayVariation, packet_loss_pct: {path: lossRatio, unit: ratio}}
        """,
        calls=("ut_link_metrics",),
    ),
    Row(
        row="30",
        seen=False,
        differs="Another product path on the training host",
        shape={"product_path": "/api/webservices/productInventory/v2/product"},
        yaml="""
            profile: training
            polling:
              products: {path: /api/webservices/productInventory/v2/product}
        """,
        calls=("products",),
    ),
    Row(
        row="31",
        differs="Times without an offset are not UTC",
        shape={"zone_hours": 2},
        yaml="""
            mapping: {timezone: Africa/Johannesburg}
        """,
    ),
    Row(
        row="32",
        seen=False,
        differs="The way to the API goes through a proxy",
        yaml="""
            api:
              proxy: "http://127.0.0.1:3128"
        """,
        note="`api.ca_file` is for a company's own certificates.",
        calls=("user_terminals",),
        base_url="http://api.oneweb.localhost",
    ),
)
