"""A simulated OneWeb Enterprise REST API over a living fleet.

It shares no code with the bridge, so that the two can disagree. What it answers is a function of seed,
simulated time, and what was asked for at the control endpoint (`/_control`), never of how often it was asked.

The real API's form is uncertain. `Shape` can play the alternatives; the rows are those of the API reference,
section 6:

====  ==============================================  =====================================================
Row   Uncertain                                       Shape (the default first)
====  ==============================================  =====================================================
1     authentication                                  Options.auth: basic, headers, oauth2
2,3   paths                                           hello_path, terminal_path, product_path,
                                                      organization_path, site_path, usage_path
30    product path of the training host               product_path
4     one path per report                             reports: paths, parameter; performance_base
5     report must be requested                        report_request: get, post_first
6     time parameters                                 start_parameter, end_parameter, window_required,
                                                      time_format: rfc3339, epoch_ms, epoch_s;
                                                      timestamps (of measurements): rfc3339, epoch_ms
7     bulk performance                                report_scope: bulk, per_terminal
8     form of a report                                indicators: list, flat, columns
9     indicator and characteristic names              names: default, other (`shapes.INDICATORS`,
                                                      `shapes.CHARACTERISTICS`)
10    units                                           throughput_unit: Mbps, bps; traffic_unit: B, MB;
                                                      indicator_unit: True, False
11    traffic                                         traffic: counter, delta
12    RSRP and RSSI                                   signal: named, swapped
13    where components live                           components: attribute, own_path, relationship,
                                                      characteristics; component_path; component_shown
14    components as a map                             component_form: list, map
15    envelope                                        envelope: none, items, data, results
16    paging                                          paging: offset_limit, none, page_size, link_next,
                                                      cursor; partial_206, totals, offset_parameter,
                                                      limit_parameter
17    `fields`                                        fields: True, False
18    coordinate order                                coordinate_order: lon_lat, lat_lon
19    site of a terminal                              place: object, array, external_id
20    roles                                           roles: default, other (`shapes.ROLES`)
21    link from product to terminal                   product_link: realizing_resource, characteristic,
                                                      terminal_only
22    dates and hardware version                      date_names: default, fallback
23    unlimited                                       unlimited: text, null, minus_one
24    counter types, sub-pool                         counters: default, other (`shapes.COUNTERS`)
25    usage rows                                      usage_rows: bucket, counter
29    link metrics                                    link_metrics: default, other (`shapes.LINK_METRICS`)
31    zone of times without offset                    zone_hours: None, a number
====  ==============================================  =====================================================
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .options import Options, Shape

if TYPE_CHECKING:
    from .server import run, serve
    from .simulator import Simulator

__all__ = ["Options", "Shape", "Simulator", "run", "serve"]

_LATE = {"Simulator": ".simulator", "run": ".server", "serve": ".server"}
"""Imported when it is used first: every command reads the options for its help, and few need the simulator."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name], __name__), name)
